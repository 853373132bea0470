"""Private instances of a real PgBouncer in transaction mode: one session for all its clients."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.processes import REPOSITORY, Running, free_port, listens, program, running

PAGE = REPOSITORY / "docs" / "scaling.md"
# In the file of the page: all databases, no passwords, a private port and folder.
CHANGES = {
    "automx = host=127.0.0.1": "* = host={server}",
    "listen_addr = *": "listen_addr = 127.0.0.1\nunix_socket_dir =",
    "listen_port = 6432": "listen_port = {port}",
    "auth_type = scram-sha-256": "auth_type = trust",
    "/etc/pgbouncer": "{folder}",
    "default_pool_size = 20": "default_pool_size = {sessions}",
    "max_client_conn = 2000": "max_client_conn = 200",
}


def configuration(**values: object) -> str:
    """Return the file of docs/scaling.md, changed for an instance of a test."""
    text: str = re.findall(r"```ini pgbouncer\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    for before, after in CHANGES.items():
        assert before in text
        text = text.replace(before, after.format(**values))
    return text


@contextlib.contextmanager
def running_pgbouncer(
    server: Path, sessions: int, port: int | None = None
) -> Iterator[tuple[Running, str]]:
    """Run a PgBouncer in front of the PostgreSQL whose socket is in the folder ``server``.

    Each database has so many ``sessions`` for each user, "postgres" or "web". Yield it with the
    URI of "{user}" and "{database}".
    """
    port = port or free_port()
    # Other users can reach it, unlike the folders of pytest.
    with tempfile.TemporaryDirectory(prefix="automx-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "userlist.txt").write_text('"postgres" ""\n"web" ""\n')
        text = configuration(server=server, port=port, folder=folder, sessions=sessions)
        (folder / "pgbouncer.ini").write_text(text)
        command = [program("pgbouncer", "pgbouncer"), str(folder / "pgbouncer.ini")]
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            command += ["--user=postgres"]
        with running(command, folder / "log", ready=lambda: listens(port)) as pgbouncer:
            yield pgbouncer, f"postgresql://{{user}}@127.0.0.1:{port}/{{database}}?sslmode=disable"


def asked(uri: str, statement: str) -> str:
    """Return what psql prints for a statement."""
    command = [program("psql", "postgresql"), "--no-psqlrc", "--tuples-only", "--no-align"]
    command += ["--set=ON_ERROR_STOP=1", "--quiet", "--command", statement, uri]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
