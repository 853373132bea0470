"""Two machines with one database: PostgreSQL with a replica, PgBouncer, Redis, proxies in front.

The machines are two ``automx serve`` on two addresses of loopback. The settings, and the lines of
nginx and PgBouncer that matter, are those of docs/scaling.md, and HAProxy's of its own page.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.databases import Instance
from tests.pgbouncer import running_pgbouncer
from tests.processes import (
    AUTOMX,
    REPOSITORY,
    Running,
    free_port,
    listens,
    program,
    running,
)
from tests.redisserver import running_redis

ADDRESSES = ("127.0.0.1", "127.0.0.2")
PAGE = REPOSITORY / "docs" / "scaling.md"
HAPROXY = REPOSITORY / "docs" / "proxies" / "haproxy.md"

NGINX = """\
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
events {{ }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{lines}
}}
"""


def lines_of_nginx(machines: dict[str, str], port: int, folder: Path) -> str:
    """Return contrib/nginx.conf with the upstream of docs/scaling.md; plain HTTP, at one port."""
    upstream: str = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    for before, after in machines.items():
        assert before in upstream
        upstream = upstream.replace(before, after)
    text = (REPOSITORY / "contrib" / "nginx.conf").read_text()
    text = re.sub(r"(?ms)^upstream automx \{.*?^\}\n", lambda _: upstream, text)
    text = re.sub(r"(?ms)^server \{\n    listen 80;.*?^\}\n", "", text)  # moves all to HTTPS
    text = re.sub(r"(?m)^ *(ssl_|listen \[::\]).*\n", "", text)
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    return text.replace("/var/log/nginx", str(folder))


def lines_of_haproxy(machines: dict[str, str], port: int) -> str:
    """Return the lines of docs/proxies/haproxy.md; plain HTTP, at one port."""
    text: str = re.findall(r"```text haproxy\n(.*?)```", HAPROXY.read_text(), re.DOTALL)[0]
    changes = {
        "    bind :80\n": "",
        "    http-request redirect scheme https code 302 unless { ssl_fc } || challenge\n": "",
        "bind :443 ssl crt /etc/haproxy/automx.pem": f"bind 127.0.0.1:{port}",
        **machines,
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


@contextlib.contextmanager
def running_replica(primary: Instance) -> Iterator[tuple[Running, Path]]:
    """Run a replica that follows by streaming; yield it and the folder of its socket."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    postgres = str(programs[-1] / "postgres")  # the primary has found it
    with tempfile.TemporaryDirectory(prefix="automx-", ignore_cleanup_errors=True) as name:
        folder, as_owner = Path(name), list[str]()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            as_owner = [program("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres"]
            as_owner.append("--clear-groups")
        copy = [str(Path(postgres).with_name("pg_basebackup")), "--checkpoint=fast", "--no-sync"]
        copy += ["--write-recovery-conf", "--username=postgres", f"--pgdata={folder}/data"]
        copy.append(f"--host={primary.socket.parent}")
        subprocess.run([*as_owner, *copy], check=True, capture_output=True, cwd=folder)
        command = [*as_owner, postgres, "-D", f"{folder}/data", "-c", "fsync=off"]
        command += ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        command += ["-c", "max_connections=50", "-c", "hot_standby=on"]

        def ready() -> bool:
            ask = [*primary.client, f"--host={folder}", "--command=SELECT 1", "postgres"]
            return subprocess.run(ask, capture_output=True, check=False).returncode == 0

        with running(command, folder / "log", ready=ready, cwd=folder) as started:
            yield started, folder


@dataclass
class Answer:
    """What a client got."""

    status: int
    text: str
    request_id: str = ""


def ask(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Ask as a client, on a connection of its own, at a name that nginx serves.

    Raises OSError if there is no answer.
    """
    named = {"Host": "autoconfig.own.example", **(headers or {})}
    request = urllib.request.Request(url, body, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as found:
            return Answer(found.status, found.read().decode(), found.headers["X-Request-ID"])
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode())


@dataclass
class Machines:
    """What runs, and where it is asked."""

    nginx: str  # its URL
    haproxy: str
    own: tuple[str, str]  # the URLs of the machines themselves
    serving: tuple[Running, Running]
    env: dict[str, str]  # settings of commands
    primary: Instance
    replica: Running
    database: str
    pgbouncer_port: int
    _pgbouncer: contextlib.ExitStack

    def restart_pgbouncer(self) -> None:
        """Stop PgBouncer and start another one at its port."""
        self._pgbouncer.close()
        server = self.primary.socket.parent
        self._pgbouncer.enter_context(running_pgbouncer(server, 10, self.pgbouncer_port))

    def count(self, table: str) -> int:
        """Return the number of rows in a table of the primary."""
        return int(self.primary.sql(f"SELECT count(*) FROM {table}", self.database))


@contextlib.contextmanager
def two_machines(
    folder: Path, primary: Instance, database: str, settings: dict[str, str]
) -> Iterator[Machines]:
    """Run everything for a database of the primary, which is filled; see Machines."""
    with contextlib.ExitStack() as stack:
        replica, socket = stack.enter_context(running_replica(primary))
        redis_port, pgbouncer_port = free_port(), free_port()
        stack.enter_context(running_redis(folder, redis_port))
        pgbouncer = stack.enter_context(contextlib.ExitStack())
        server = primary.socket.parent
        _, uri = pgbouncer.enter_context(running_pgbouncer(server, 10, pgbouncer_port))
        env = {
            "AUTOMX_CONF": "/dev/null",
            "AUTOMX_DB_URI": uri.format(user="postgres", database=database),
            "AUTOMX_DB_READ_URI": f"postgresql://postgres@/{database}?host={socket}",
            "AUTOMX_RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{redis_port}",
            "AUTOMX_PROXY_COUNT": "1",
            **settings,
        }
        started = [stack.enter_context(_serving(folder, address, env)) for address in ADDRESSES]
        addresses = {f"192.0.2.{11 + number}:4243": at for number, (_, at) in enumerate(started)}
        nginx = stack.enter_context(_nginx(folder, addresses))
        haproxy = stack.enter_context(_haproxy(folder, addresses))
        yield Machines(
            f"http://127.0.0.1:{nginx}",
            f"http://127.0.0.1:{haproxy}",
            (f"http://{started[0][1]}", f"http://{started[1][1]}"),
            (started[0][0], started[1][0]),
            env,
            primary,
            replica,
            database,
            pgbouncer_port,
            pgbouncer,
        )


@contextlib.contextmanager
def _serving(folder: Path, address: str, env: dict[str, str]) -> Iterator[tuple[Running, str]]:
    """Run a machine; yield it with its address and port."""
    port = free_port(address)
    command: list[str | Path] = [AUTOMX, "serve", "--host", address, "--port", str(port)]
    command += ["--workers", "1"]
    log = folder / f"serve-{address}.log"
    with running(command, log, ready=lambda: listens(port, address), env=env) as started:
        yield started, f"{address}:{port}"


@contextlib.contextmanager
def _nginx(folder: Path, addresses: dict[str, str]) -> Iterator[int]:
    """Run nginx in front of machines, by their addresses in docs/scaling.md; yield its port."""
    port = free_port()
    lines = lines_of_nginx(addresses, port, folder)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(user=user, folder=folder, lines=lines))
    command: list[str | Path] = [program("nginx", "nginx-light"), "-p", folder]
    command += ["-c", folder / "nginx.conf", "-e", "stderr"]
    with running(command, folder / "nginx.log", ready=lambda: listens(port)):
        yield port


@contextlib.contextmanager
def _haproxy(folder: Path, addresses: dict[str, str]) -> Iterator[int]:
    """Run HAProxy in front of machines, as _nginx() does."""
    port = free_port()
    (folder / "haproxy.cfg").write_text(lines_of_haproxy(addresses, port))
    command = [program("haproxy", "haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
    with running(command, folder / "haproxy.log", ready=lambda: listens(port)):
        yield port
