"""A machine of its own for a mail server as Debian installs it: root, its files, ports, processes.

It is a set of namespaces of Linux in which the files of this machine can be read. What is written
below ``/etc``, ``/run``, ``/usr/local`` and ``/var`` goes into memory, and is gone afterwards.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import REPOSITORY, inner_process, own_mounts, program

# The certificate is what Debian's dovecot-core makes when it is installed; only root can read its
# key. There is no systemd: "systemctl" starts what the documentation starts.
MACHINE = """\
set -eu
mount -t tmpfs -o mode=0755 tmpfs "$1"
for folder in etc run usr/local var; do
    mkdir -p "$1/$folder/new" "$1/$folder/work"
    chmod --reference="/$folder" "$1/$folder/new"
    mount -t overlay overlay -o \
        "lowerdir=/$folder,upperdir=$1/$folder/new,workdir=$1/$folder/work" "/$folder"
done
ip link set lo up
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mail.example.org \
    -keyout /etc/dovecot/private/dovecot.key -out /etc/dovecot/private/dovecot.pem
mkdir -p /etc/systemd/system
cat >/usr/local/bin/systemctl <<'END'
#!/bin/sh
case $* in
"restart dovecot") exec dovecot </dev/null >/run/dovecot.log 2>&1 ;;
"daemon-reload") ;;
"enable --now automx-accounts.socket") exec start-automx-accounts </dev/null >/run/start.log 2>&1 ;;
*) echo "systemctl $*: not here" >&2; exit 1 ;;
esac
END
chmod 755 /usr/local/bin/systemctl
touch /run/machine-is-ready
exec sleep infinity
"""


@dataclass(frozen=True)
class Machine:
    """A running machine; ``process`` is the ID of its first process."""

    process: int

    def run(self, script: str, *arguments: str, code: int = 0) -> str:
        """Run shell commands as root in the checkout, and return what they print."""
        command = [*self.words, "sh", "-eu", "-c", script, "sh", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout

    @property
    def words(self) -> Sequence[str]:
        """The beginning of a command that runs another one there."""
        enter = [program("nsenter", "util-linux"), f"--target={self.process}"]
        path = f"PATH=/usr/local/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        return [*enter, "--mount", "--net", "--pid", f"--wd={REPOSITORY}", "env", path]

    def put(self, path: str, text: str) -> None:
        """Write a file."""
        subprocess.run([*self.words, "tee", path], input=text.encode(), stdout=-3, check=True)


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Start a machine that ends, with all of its processes, with the block."""
    if os.geteuid() != 0:
        pytest.fail("a machine of its own needs root")
    unshare = own_mounts("--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    unshare += ["sh", "-c", MACHINE, "sh", str(folder)]
    log = folder.with_suffix(".log")
    with inner_process(unshare, log, "/run/machine-is-ready", "a machine") as process:
        yield Machine(process)
