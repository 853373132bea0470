"""The wheel: pipx and uv install the command automx for a person."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from packages.conftest import Record
from tests.processes import REPOSITORY

TOOLS = {
    "pipx": ["pipx", "install", "--python", sys.executable],
    "uv": ["uv", "tool", "install", "--no-config", "--python", sys.executable],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    subprocess.run([*build, str(REPOSITORY)], check=True, capture_output=True)
    (path,) = folder.glob("automx-*.whl")
    return path


@pytest.mark.parametrize("tool", TOOLS)
def test_a_person_installs_the_command(
    wheel: Path, tmp_path: Path, tool: str, record_property: Record
) -> None:
    name, *words = TOOLS[tool]
    record_property("tried", f"`{' '.join([name, *words[: words.index('install') + 1]])}`")
    env = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    env |= {"HOME": str(tmp_path), "AUTOMX_CONF": "/dev/null"}

    def run(*command: str | Path) -> str:
        result = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(Path(sys.executable).with_name(name), *words, f"{wheel}[mysql,postgresql,redis]")
    automx = tmp_path / ".local/bin/automx"
    version = run(automx, "--version").split()[-1]
    assert run(automx, "db", "upgrade").endswith("The database is up to date (0010).\n")
    assert (tmp_path / ".local/share/automx/automx.sqlite").exists()
    run(automx, "seed", "--sample")
    assert run(automx, "show", "alice@example.com").startswith("alice@example.com, Example Mail")
    tool_version = run(Path(sys.executable).with_name(name), "--version").split()
    record_property("seen", f"{name} {tool_version[name == 'uv']}: automx {version} works")
