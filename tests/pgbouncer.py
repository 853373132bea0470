"""Private instances of a real PgBouncer in transaction mode: one session for all its clients."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Running, free_port, listens, program, running

# Each setting that differs from Debian's is told in docs/scaling.md, but for sizes and paths.
CONFIGURATION = """\
[databases]
* = host={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
server_login_retry = 1
"""


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
        (folder / "users").write_text('"postgres" ""\n"web" ""\n')
        values = {"server": server, "port": port, "folder": folder, "sessions": sessions}
        (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(**values))
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
