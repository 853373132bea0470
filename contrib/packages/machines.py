"""Machines with a bare Debian and its systemd, for tests of packages.

A machine is a container of systemd-nspawn without a network. What happens there happens in memory,
and is gone afterwards. The root folder of each Debian is made once and kept on this machine, with
the packages of Debian that automx depends on, which are not installed yet.
"""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import run
from tests.kept import alone, cache
from tests.processes import REPOSITORY, program, wait_until
from tests.pythons import mirror, pip_settings

# What apt shall find without a network.
DEPENDENCIES = {
    "bookworm": ("adduser", "ca-certificates", "python3.11"),
    "trixie": ("adduser", "ca-certificates", "python3.13"),
}
IN_MACHINE = ("systemd", "dbus", "curl")
# What Debian's own images leave out.
SLIM = (
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
# What the documentation clones, and where it is in a machine.
[ADDRESS] = re.findall(r"git clone (\S+)", (REPOSITORY / "README.md").read_text())
PLACE = "/srv/automx.git"
# What reads the libraries of a clone, on a Debian that has git and Python meanwhile.
FETCH = """\
{packages}
git clone /srv/automx.git /srv/automx
cd /srv/automx
python3 -m venv /srv/pip
/srv/pip/bin/pip download --quiet --dest /srv/wheels {wanted}
"""
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
)
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Machine:
    """A running machine; ``outer`` is the ID of the process that started its first one."""

    outer: int

    def run(self, script: str, code: int = 0) -> str:
        """Run shell commands as root in /root, and return what they print."""
        result = self.attempt(script)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout

    def attempt(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run shell commands as root in /root, whatever comes of it."""
        command = self.command(script)
        if not command:
            return subprocess.CompletedProcess(script, 1, "", "there is no process")
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def command(self, script: str) -> list[str]:
        """Return what runs shell commands there as root in /root; [] if it has not started yet."""
        children = Path(f"/proc/{self.outer}/task/{self.outer}/children").read_text().split()
        if not children or not _is_inside(children[0]):
            return []
        enter = [program("nsenter", "util-linux"), f"--target={children[0]}", "--all", "env", "-i"]
        return [*enter, *ENVIRONMENT, "sh", "-euc", f"cd /root\n{script}"]


def _is_inside(process: str) -> bool:
    """Return whether a child of systemd-nspawn has namespaces of its own.

    Else a script would run on the host.
    """
    with contextlib.suppress(OSError):  # the first child has ended
        spaces = {Path(f"/proc/{each}/ns/pid").readlink() for each in (process, "self")}
        return len(spaces) == 2 and Path(f"/proc/{process}/root/run/host").exists()
    return False


@contextlib.contextmanager
def debian(suite: str, packages: Path, log: Path) -> Iterator[Machine]:
    """Start a machine that sees a folder as /packages, and that ends with the block."""
    options = ["--volatile=overlay", f"--bind-ro={packages}:/packages"]
    with booted(_root(suite), options, log) as machine:
        yield machine


@contextlib.contextmanager
def booted(root: Path, options: Sequence[str], log: Path) -> Iterator[Machine]:
    """Start the systemd of a root folder, without a network, until the block ends."""
    with running(root, [*options, "--boot"], log) as machine:
        ready = {"running\n", "degraded\n"}
        wait_until(
            lambda: machine.attempt("systemctl is-system-running").stdout in ready,
            "the start of systemd",
        )
        yield machine


@contextlib.contextmanager
def running(
    root: Path, options: Sequence[str], log: Path, network: str = "--private-network"
) -> Iterator[Machine]:
    """Start what the options say in a root folder, without a network, until the block ends."""
    command = [*nspawn(root), network, "--console=pipe", *options]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as outer,
    ):
        try:
            yield Machine(outer.pid)
        finally:
            outer.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                outer.wait(60)
            outer.kill()


def base(suite: str) -> Path:
    """Return the archive of a Debian as small as the base of an image: without manuals."""
    path = cache() / f"base-{suite}.tar"
    with alone(path.name):
        if not path.exists():
            new = path.with_suffix(".new.tar")
            bootstrap(suite, new, *SLIM, "--include=ca-certificates")
            new.rename(path)
    return path


def _root(suite: str) -> Path:
    path = cache() / f"packages-{suite}"
    with alone(path.name):
        if not path.exists():
            new = path.with_suffix(".new")
            bootstrap(suite, new, f"--include={','.join(IN_MACHINE)}")
            wanted = " ".join(DEPENDENCIES[suite])
            with_network(new, f"apt-get update\napt-get install --download-only --yes {wanted}")
            new.rename(path)
    return path


def with_network(root: Path, script: str, *options: str) -> None:
    """Run shell commands in a root folder that reach what this machine reaches."""
    words = ["--resolv-conf=copy-host", *options, "env", "-i", *ENVIRONMENT, "sh", "-euc", script]
    result = subprocess.run([*nspawn(root), *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def with_index(root: Path, script: str, *options: str) -> None:
    """Do the same, and let pip find what it finds on this machine."""
    settings = pip_settings() | {"PIP_CERT": "/srv/authorities", "PIP_RETRIES": "10"}
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    authorities = "--bind-ro=/etc/ssl/certs/ca-certificates.crt:/srv/authorities"
    with_network(root, f"export {' '.join(words)}\n{script}", authorities, *options)


def repository(folder: Path) -> str:
    """Clone what is committed here, and return how a machine sees it as /srv/automx.git."""
    path = folder / "automx.git"
    run(["git", "clone", "--quiet", "--bare", "--single-branch", str(REPOSITORY), str(path)], "")
    return f"--bind-ro={path}:{PLACE}"


def typed(text: str) -> str:
    """Return commands of the documentation with the place of the repository in a machine."""
    return text.replace(f"git clone {ADDRESS} ", f"git clone {PLACE} ")


def cut_off(root: Path, origin: str, packages: str, wanted: str) -> None:
    """Let a root folder do without a network; ``origin`` is the repository, as it is seen there.

    ``packages`` is a command that installs git and Python for the while, ``wanted`` what pip has to
    find later.
    """
    wheels = root.with_name("wheels")  # a folder within the root would be below the overlay
    wheels.mkdir()
    script = FETCH.format(packages=packages, wanted=wanted)
    options = ["--volatile=overlay", origin, f"--bind={wheels}:/srv/wheels"]
    with_index(root, script, *options)
    shutil.move(wheels, root / "srv")
    resolver = root / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.write_text("nameserver 127.0.0.1\n")  # nothing listens there
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n")


def bootstrap(suite: str, target: Path, *options: str) -> None:
    """Lay a Debian of essential packages and apt into a root folder, or into an archive."""
    shutil.rmtree(target, ignore_errors=True)
    command = [program("mmdebstrap", "mmdebstrap"), "--variant=minbase", "--quiet", *options]
    # After a crash it is made anew: dpkg need not wait for the disk.
    command += ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Retries "5"']
    command += [suite, str(target), mirror()]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def nspawn(root: Path) -> list[str]:
    """Return how a container starts in a root folder; the options follow."""
    if os.geteuid() != 0:
        pytest.fail("a machine of its own needs root")
    command = [program("systemd-nspawn", "systemd-container"), "--quiet", "--register=no"]
    # Without systemd on this machine, there is nothing that could make a unit for the container.
    command += [] if Path("/run/systemd/system").exists() else ["--keep-unit"]
    return [*command, f"--machine=automx-{os.getpid()}-{next(_NUMBERS)}", f"--directory={root}"]
