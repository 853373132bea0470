"""The wheel: the commands work where it is installed, without the checkout it was built from."""

import os
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from automx.migrations import head
from automx.models import metadata
from tests.databases import run
from tests.processes import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
    run([*command, "--outdir", str(folder), str(REPOSITORY)], "")
    (path,) = folder.glob("automx-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own and return that environment's folder.

    The libraries are those of the running environment. Its ``.pth`` files have no effect there, so
    the checkout is not importable.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], "")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run([python, "-c", where], "").strip())
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def automx(environment: Path, folder: Path, *arguments: str) -> str:
    """Run the installed ``automx`` in a folder and return what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": "sqlite:///automx.sqlite"}
    result = subprocess.run(
        [str(environment / "bin" / "automx"), *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_the_wheel_holds_the_revisions_and_nothing_stale(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    revisions = {
        f"automx/{path.relative_to(REPOSITORY)}" for path in REPOSITORY.glob("alembic/**/*.py")
    }
    assert revisions | {"automx/alembic/script.py.mako"} == {
        name for name in names if name.startswith("automx/alembic/")
    }
    assert "automx/alembic/env.py" in revisions
    assert not [name for name in names if name.startswith(("alembic/", "tests/", "bench/"))]


def test_the_wheel_holds_what_the_pages_need(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for pattern in ("templates/*.html", "static/*", "translations/*/LC_MESSAGES/*.mo"):
        files = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "automx").glob(pattern)]
        assert files
        assert {str(path) for path in files} <= set(names)


def test_the_image_is_built_with_all_that_the_wheel_takes_from_contrib() -> None:
    container = REPOSITORY / "contrib" / "packages" / "container"
    ignored = (container / "Dockerfile.dockerignore").read_text().splitlines()
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = wheel["targets"]["wheel"]["force-include"]
    assert {line for line in ignored if line.startswith("!contrib/")} == {
        f"!{name}" for name in included if name.startswith("contrib/")
    }
    assert "COPY contrib /src/contrib\n" in (container / "Dockerfile").read_text()


def test_the_installed_package_is_not_the_checkout(environment: Path, tmp_path: Path) -> None:
    python = str(environment / "bin" / "python")
    code = (
        "import automx, automx.migrations as m, alembic; print(automx.__file__, alembic.__file__)"
    )
    result = subprocess.run(
        [python, "-c", f"{code}; print(m.script_location())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    package, library, revisions = result.stdout.split()
    assert Path(package).is_relative_to(environment)
    assert revisions == str(Path(package).with_name("alembic"))
    assert not Path(library).is_relative_to(REPOSITORY / "alembic")


def test_the_schema_commands_work_from_the_wheel_in_an_empty_folder(
    environment: Path, tmp_path: Path
) -> None:
    upgraded = automx(environment, tmp_path, "db", "upgrade")
    assert upgraded.startswith("Upgraded to 0001: ")
    assert upgraded.endswith(f"\nThe database is up to date ({head()}).\n")
    assert [path.name for path in tmp_path.iterdir()] == ["automx.sqlite"]
    assert automx(environment, tmp_path, "db", "current") == f"{head()} (up to date)\n"
    again = automx(environment, tmp_path, "db", "upgrade")
    assert again == f"The database is up to date ({head()}).\n"
    for dialect in ("sqlite", "mysql", "postgresql"):
        schema = automx(environment, tmp_path, "db", "schema", "--dialect", dialect)
        assert schema.count("CREATE TABLE") == len(metadata.tables) + 1
    assert automx(environment, tmp_path, "db", "downgrade", "base").endswith("at base.\n")


def test_the_configuration_of_a_web_server_is_printed_from_the_wheel(
    environment: Path, tmp_path: Path
) -> None:
    automx(environment, tmp_path, "db", "upgrade")
    automx(environment, tmp_path, "seed", "--sample")
    for kind, sign in (("nginx", "upstream automx"), ("apache", "<Macro"), ("caddy", "(automx)")):
        command = ["web-server", kind, "example.com", "--host", "automx.example.com"]
        assert f"\n{sign}" in automx(environment, tmp_path, *command)
