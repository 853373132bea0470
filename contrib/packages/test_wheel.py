"""The wheel: pipx and uv install the command automx for a person, as docs/packages.md says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from packages.conftest import PAGE, Record
from tests.processes import REPOSITORY

COMMANDS = re.findall(r"(?m)^((pipx|uv tool) install .*)$", PAGE.read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the releases that are tested, as a checkout has them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
    build += ["--outdir", str(folder / "dist"), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    shutil.copy(REPOSITORY / "constraints.txt", folder)
    return folder


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        pytest.param(command, words.split()[0], marks=pytest.mark.row(f"`{words} install`"))
        for command, words in COMMANDS
    ],
)
def test_a_person_installs_the_command(
    folder: Path, tmp_path: Path, command: str, tool: str, record_property: Record
) -> None:
    tools = Path(sys.executable).parent
    env = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    env |= {"HOME": str(tmp_path), "PATH": f"{tools}:{env['PATH']}", "AUTOMX_CONF": "/dev/null"}
    env |= {"UV_PYTHON": sys.executable, "UV_NO_CONFIG": "1"}

    def run(command: str) -> str:
        result = subprocess.run(
            command, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(command)
    automx = tmp_path / ".local/bin/automx"
    version = run(f"{automx} --version").split()[-1]
    assert "The database is up to date" in run(f"{automx} db upgrade")
    assert (tmp_path / ".local/share/automx/automx.sqlite").exists()
    run(f"{automx} seed --sample")
    assert run(f"{automx} show alice@example.com").startswith("alice@example.com, Example Mail")
    tool_version = run(f"{tool} --version").split()
    record_property("seen", f"{tool} {tool_version[tool == 'uv']}: automx {version} works")
