"""Other Pythons: those on the PATH, and that of Debian 13, which lies in a root folder of its own.

Each has an environment with the releases of constraints.txt. Environments and root folder are kept
on this machine; an environment is made anew when the lists of packages have changed.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kept import alone, cache
from tests.processes import REPOSITORY, own_mounts, program

DEBIAN = "trixie"  # Debian 13
ENVIRONMENTS = "automx-environments"

# Enters a root folder that holds the checkout, which nobody can write to there.
ENTER = """\
set -eu
root=$1 checkout=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$checkout"
mount --bind "$checkout" "$root$checkout"
mount -o remount,bind,ro "$root$checkout"
exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$checkout" "$@"
"""


def on_the_path() -> list[str]:
    """Return the Pythons that automx promises to support and that this machine can run."""

    def works(name: str) -> bool:
        path = shutil.which(name)  # it may be a name that pyenv keeps for a Python it does not run
        code = "import ensurepip, venv"
        return path is not None and _run([path, "-c", code]).returncode == 0

    return [name for name in ("python3.12", "python3.13", "python3.14") if works(name)]


@dataclass(frozen=True)
class Python:
    """An environment of a Python; ``root`` is the root folder that it lies in."""

    executable: str
    root: Path | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it in the checkout to its end, without the settings of the tests around it."""
        command = [self.executable, *arguments]
        return _run(command if self.root is None else _inside(self.root, command))


def python(name: str) -> Python:
    """Return a Python of the PATH with what the quick tests need."""
    command = [shutil.which(name) or name]
    with alone(name):
        return Python(_environment(command, cache() / ENVIRONMENTS, name))


def debian_python() -> Python:
    """Return Debian's Python with what the quick tests need; fail the test if it cannot be had."""
    if os.geteuid() != 0:
        pytest.fail(f"Debian's Python lies in a root folder of its own ({DEBIAN}): that needs root")
    with alone(DEBIAN):
        root = _root()
        command = _inside(root, ["/usr/bin/python3"])
        return Python(_environment(command, Path("/srv") / ENVIRONMENTS, DEBIAN, root), root)


def _root() -> Path:
    """Return the root folder of Debian; make it if it is not there."""
    root = cache() / f"{DEBIAN}-{platform.machine()}"
    if root.exists():
        return root
    new = root.with_suffix(".new")
    source = mirror()
    command = [program("mmdebstrap", "mmdebstrap"), "--variant=minbase", "--quiet"]
    command += ["--include=python3-venv", '--aptopt=Acquire::Retries "5"', DEBIAN, str(new), source]
    for _ in range(3):
        shutil.rmtree(new, ignore_errors=True)
        result = _run(command)
        if result.returncode == 0:
            new.rename(root)
            return root
    pytest.fail(f"Debian's {DEBIAN} could not be had from {source}:\n{result.stderr[-2000:]}")


def mirror() -> str:
    """Return where this machine gets Debian's packages from."""
    command = [program("apt-get", "apt"), "indextargets", "--format=$(REPO_URI)"]
    found = _run([*command, "Origin: Debian", "Label: Debian", "Created-By: Packages"]).stdout
    if not found:
        pytest.fail("apt knows no mirror of Debian: run apt-get update")
    return found.splitlines()[0]


def _environment(command: Sequence[str], folder: Path, name: str, root: Path | None = None) -> str:
    """Return the Python of an environment below a folder; make it if it is not there."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["quick"]]
    constraints = REPOSITORY / "constraints.txt"
    version = _run([*command, "--version"]).stdout
    recipe = f"{version}{wanted}{constraints.read_text()}"
    path = folder / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    outside = path if root is None else root / path.relative_to("/")
    complete = outside / "complete"
    if not complete.exists():
        for old in outside.parent.glob(f"{name}-*"):
            shutil.rmtree(old)
        if root is not None:
            for file in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
                (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, root / file[1:])
        new = Python(f"{path}/bin/python", root)
        pip = ["-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
        pip += ["--retries=10", "--timeout=60", f"--constraint={constraints}", *wanted]
        for _ in range(3):
            result = _run([*command, "-m", "venv", "--clear", str(path)])
            if result.returncode == 0:
                result = new.run(*pip)
            if result.returncode == 0:
                complete.touch()
                break
        else:
            pytest.fail(f"{name} does not get what the tests need:\n{result.stderr[-2000:]}")
    return f"{path}/bin/python"


def _inside(root: Path, command: Sequence[str]) -> list[str]:
    """Return the command that runs another one in a root folder, with the checkout in its place."""
    return [*own_mounts(), "sh", "-c", ENTER, "sh", str(root), str(REPOSITORY), *command]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    words = ("PYTEST_", "COV", "COVERAGE_", "AUTOMX_", "PYTHON", "VIRTUAL_ENV", "SSL_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(words)}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"} | pip_settings()
    return subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
    )


def pip_settings() -> dict[str, str]:
    """Return where pip finds packages on this machine, which no file in a root folder says."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = dict(line.partition("=")[::2] for line in lines)
    return {
        f"PIP_{name.upper().replace('-', '_')}": found[f"global.{name}"].strip("'")
        for name in ("index-url", "trusted-host", "proxy")
        if f"global.{name}" in found
    }
