"""A bare Debian 13 in which the documentation is followed: only what a page installs is there.

It is the root folder of ``tests.pythons`` in namespaces of its own, without a network. What is
written goes into memory. Debian's packages, systemd and other servers are stubs that do nothing but
exist; automx is real. A layer is what has been written after another one: each page begins where
the installation has ended.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.processes import REPOSITORY, inner_process, own_mounts, program
from tests.pythons import debian_python

ROOTS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CRONS_PATH = "/usr/bin:/bin"
FOREIGN = "/home/alice/my files"  # closed to the user automx, and not root's

# What the packages of Debian bring that pages use: programs, and commands that are run afterwards.
PACKAGES: Mapping[str, tuple[Sequence[str], str]] = {
    "adduser": (("/usr/sbin/adduser", "/usr/sbin/deluser"), ""),
    "apache2": (
        ("/usr/sbin/a2enmod", "/usr/sbin/a2ensite", "/usr/sbin/apachectl"),
        "mkdir -p /etc/apache2/sites-available",
    ),
    "bind9": (("/usr/sbin/tsig-keygen",), "useradd -r bind && mkdir -p /etc/bind"),
    "bsd-mailx": (("/usr/bin/mail",), ""),
    "caddy": (("/usr/bin/caddy",), "mkdir -p /etc/caddy"),
    "certbot": (("/usr/bin/certbot",), ""),
    "curl": (("/usr/bin/curl", "/usr/bin/openssl"), ""),
    "dovecot-core": (("/usr/bin/doveadm",), "useradd -r dovecot && mkdir -p /etc/dovecot/conf.d"),
    "git": (("/usr/bin/git",), ""),
    "haproxy": (("/usr/sbin/haproxy",), "mkdir -p /etc/haproxy"),
    "knot": (("/usr/sbin/keymgr",), "useradd -r knot && mkdir -p /etc/knot"),
    "mariadb-client": (("/usr/bin/mariadb-dump",), ""),
    "mariadb-server": (
        ("/usr/bin/mariadb", "/usr/bin/mariadb-dump"),
        "mkdir -p /etc/mysql/mariadb.conf.d",
    ),
    "nginx": (("/usr/sbin/nginx",), "mkdir -p /etc/nginx/conf.d /etc/nginx/modules-enabled"),
    "pdns-server": (("/usr/bin/pdnsutil",), ""),
    "pgbouncer": ((), "mkdir -p /etc/pgbouncer"),
    "postgresql": (
        ("/usr/bin/psql", "/usr/bin/pg_dump", "/usr/bin/pg_basebackup"),
        (
            "id postgres >/dev/null 2>&1 || useradd -r postgres;"
            " mkdir -p /etc/postgresql/17/main /var/lib/postgresql/17/main;"
            " touch /etc/postgresql/17/main/pg_hba.conf"
        ),
    ),
    "postgresql-client": (("/usr/bin/psql", "/usr/bin/pg_dump"), ""),
    "python3": ((), ""),
    "python3-venv": ((), ""),
    "redis-server": ((), "mkdir -p /etc/redis"),
    "socat": (("/usr/bin/socat",), ""),
    "sqlite3": (("/usr/bin/sqlite3",), ""),
}

# Programs that are there from the beginning.
STUBS = {
    "/usr/bin/apt-get": """\
[ "$1" = install ] || exit 0
shift
for package; do
    case $package in -*) continue ;; esac
    [ -d "/opt/packages/$package" ] || { echo "Unable to locate package $package" >&2; exit 100; }
    cp -r "/opt/packages/$package/files/." /
    sh -eu "/opt/packages/$package/after"
done
""",
    # A unit of automx must be there before it is started.
    "/usr/bin/systemctl": """\
case "$1 $*" in enable*|start*|restart*|status*) ;; *) exit 0 ;; esac
[ "$1" != --user ] || exit 0
shift
for unit; do
    case $unit in
    -*) ;;
    automx*.*) ls "/etc/systemd/system/$unit" >/dev/null ;;
    automx*) ls "/etc/systemd/system/$unit.service" >/dev/null ;;
    esac
done
""",
    "/usr/bin/journalctl": "",
    "/usr/bin/loginctl": "",
    "/usr/sbin/rc-update": "",
    "/usr/sbin/rc-service": "",
    # pip of the virtual environment that contrib/setup-venv.sh fills.
    "/srv/automx/bin/python": """\
[ "$1 $2" = "-m pip" ]
cp /opt/automx.py /srv/automx/bin/automx
""",
}
INSTALLED = {
    "certbot": """\
live=/etc/letsencrypt/live/automx-1
[ "$1" != certonly ] || { mkdir -p $live && touch $live/fullchain.pem $live/privkey.pem; }""",
    "adduser": """\
for name; do case $name in -*|/*) ;; *) break ;; esac; done
useradd --system --user-group --no-create-home --home-dir /var/lib/automx "$name"
""",
    "deluser": 'userdel "$1"',
    "git": """\
[ "$1" = clone ] || exit 0
folder=${3:-automx}
mkdir -p "$(dirname "$folder")"
cp -r /opt/automx "$folder"
""",
    "tsig-keygen": "echo 'secret \"c2VjcmV0\";'",
    "keymgr": "echo '    secret: c2VjcmV0'",
    "pdnsutil": "echo 'automx. hmac-sha256. c2VjcmV0'",
}

MACHINE = """\
set -eu
work=$1 checkout=$2 stubs=$3
mount -t tmpfs -o mode=0755 tmpfs "$work"
mkdir -p "$work/root" "$work/start/opt/automx" "$work/start/home/alice/my files"
cp -r "$stubs/." "$work/start/"
cd "$checkout"
cp -r ./*.md Makefile pyproject.toml constraints.txt alembic automx contrib docs \
    "$work/start/opt/automx/"
find "$work/start/opt" -name __pycache__ -prune -exec rm -r {} +
chmod -R u=rwX,go=rX "$work/start"
chmod 700 "$work/start/home/alice"
ip link set lo up
touch "$work/ready"
exec "$4" -c "$5"
"""

# A name server that knows no name: without an answer, each question would take seconds.
NAME_SERVER = """\
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    question, client = server.recvfrom(512)
    end = question.index(b"\\0", 12) + 5
    head = question[:2] + bytes([0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0])
    server.sendto(head + question[12:end], client)
"""

# Runs a command in the root folder, with what was written in the layers before and in a new one.
LAYER = """\
set -eu
work=$1 lower=$2 upper=$3
shift 3
mkdir -p "$work/$upper" "$work/.$upper"
mount -t overlay overlay \
    -o "lowerdir=$lower,upperdir=$work/$upper,workdir=$work/.$upper" "$work/root"
mount -t proc proc "$work/root/proc"
mount --rbind /dev "$work/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$work/root/tmp"
exec chroot "$work/root" env -i "$@"
"""

# Before commands of bash: notes each that fails.
TRAP = """\
trap 'echo "$?: $BASH_COMMAND" >>/tmp/failed' ERR; set -E -o pipefail
"""
# Runs each step in a shell of its own; prints its status, its output, and what failed in it.
DRIVER = """\
import json, os, pwd, subprocess, sys
results = []
for step in json.load(sys.stdin):
    text = step["text"] if step["shell"] == "sh" else sys.argv[1] + step["text"]
    words = [step["shell"], "-c", text]
    if step["user"] != "root":
        words = ["/usr/sbin/runuser", "-u", step["user"], "--", *words]
    home = pwd.getpwnam(step["user"]).pw_dir
    env = {"PATH": step["path"], "HOME": home, "LC_ALL": "C.UTF-8"}
    result = subprocess.run(words, cwd=step["folder"], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    failed = open("/tmp/failed").read().splitlines() if os.path.exists("/tmp/failed") else []
    open("/tmp/failed", "w").close()
    results.append([result.returncode, result.stdout.decode(), failed])
json.dump(results, sys.stdout)
"""


class Step(NamedTuple):
    """A block of a page, or a line of cron, and how it is run."""

    text: str
    folder: str = FOREIGN
    path: str = ROOTS_PATH
    user: str = "root"
    shell: str = "bash"


class Result(NamedTuple):
    """What a step did; ``failed`` are the commands in it with another status than 0."""

    status: int
    output: str
    failed: list[str]


@dataclass(frozen=True)
class BareRoot:
    """The namespaces, and the layers that a next one lies on."""

    process: int
    work: Path
    python: str
    lower: str

    def run(self, layer: str, steps: Sequence[Step]) -> list[Result]:
        """Run steps one after another, in a new layer."""
        enter = [program("nsenter", "util-linux"), f"--target={self.process}", "--net", "--mount"]
        command = [*enter, "unshare", "--mount", "sh", "-c", LAYER, "sh", str(self.work)]
        command += [self.lower, layer, f"PATH={ROOTS_PATH}", self.python, "-c", DRIVER, TRAP]
        given = json.dumps([step._asdict() for step in steps])
        result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return [Result(*found) for found in json.loads(result.stdout)]

    def above(self, layer: str) -> "BareRoot":
        """Return the root in which a layer has been written already."""
        lower = f"{self.work}/{layer}:{self.lower}"
        return BareRoot(self.process, self.work, self.python, lower)


@contextlib.contextmanager
def bare_root(folder: Path) -> Iterator[BareRoot]:
    """Make a root that ends with the block; ``folder`` is an empty one for it."""
    python = debian_python()
    work, stubs = folder / "work", folder / "stubs"
    work.mkdir()
    _write_stubs(stubs, python.executable)
    command = own_mounts("--net", "--fork", "--kill-child")
    command += ["sh", "-c", MACHINE, "sh", str(work), str(REPOSITORY), str(stubs)]
    command += [sys.executable, NAME_SERVER]
    with inner_process(command, folder / "log", f"{work}/ready", "a bare root") as process:
        yield BareRoot(process, work, python.executable, f"{work}/start:{python.root}")


def _write_stubs(folder: Path, python: str) -> None:
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    for name, text in STUBS.items():
        write(folder / name[1:], f"#!/bin/sh\nset -eu\n{text}")
    for package, (programs, after) in PACKAGES.items():
        files = folder / "opt/packages" / package / "files"
        files.mkdir(parents=True)
        (files.parent / "after").write_text(f"{after}\n")
        for name in programs:
            text = INSTALLED.get(Path(name).name, "[ -t 0 ] || cat >/dev/null")
            write(files / name[1:], f"#!/bin/sh\nset -eu\n{text}\n")
    (folder / "etc").mkdir()
    (folder / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    start = f"#!{python}\nimport sys\nsys.path.insert(0, '/opt/automx')\n"
    write(folder / "opt/automx.py", f"{start}from automx.cli import main\nmain()\n")
