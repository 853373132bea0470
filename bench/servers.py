"""The servers under load: automx and automx2, each as its documentation says how to run it."""

import contextlib
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.rows import seed_document
from tests.commandline import automx
from tests.processes import REPOSITORY, Running, free_port, listens, running

WORKERS = 2
_OF_BOTH = "both.sqlite"  # the name of the database of automx2 and automx
BIN = Path(sys.executable).parent


@dataclass
class Server(Running):
    """A running web server."""

    port: int

    @property
    def url(self) -> str:
        """The base URL, without a final slash."""
        return f"http://127.0.0.1:{self.port}"

    def worker_memory(self, field: str) -> float:
        """Return the largest value of a field of /proc/PID/smaps_rollup of the workers, in MB."""
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        folders = [Path("/proc", child) for child in children]
        # Python starts a process beside the workers of automx serve.
        workers = [
            folder
            for folder in folders
            if b"resource_tracker" not in (folder / "cmdline").read_bytes()
        ]
        texts = [(worker / "smaps_rollup").read_text() for worker in workers]
        lines = [line.split() for text in texts for line in text.splitlines()]
        return max(int(line[1]) for line in lines if line[0] == f"{field}:") / 1024


@contextmanager
def gunicorn(
    application: str, env: Mapping[str, str], log: Path, folder: Path = BIN
) -> Iterator[Server]:
    """Run gunicorn of an environment's folder of programs: sync workers, no access log."""
    port = free_port()
    options = [f"--workers={WORKERS}", f"--bind=127.0.0.1:{port}", "--log-level=warning"]
    command = [str(folder / "gunicorn"), *options, application]
    with _serving(command, env, log, port) as server:
        yield server


@contextmanager
def serve(
    env: Mapping[str, str], log: Path, *, bare: bool = False, workers: int = WORKERS
) -> Iterator[Server]:
    """Run ``automx serve``, or the same web server for the bare view."""
    port = free_port()
    program = [sys.executable, "-m", "bench.bare"] if bare else [str(BIN / "automx"), "serve"]
    command = [*program, f"--port={port}", f"--workers={workers}"]
    with _serving(command, env, log, port) as server:
        if bare:
            _check_is_bare(server)
        yield server


def _check_is_bare(server: Server) -> None:
    """Raise RuntimeError if a server has more than documents, such as a page."""
    try:
        with urllib.request.urlopen(f"{server.url}/", timeout=30):
            raise RuntimeError("the server beside automx is automx")
    except urllib.error.HTTPError as error:
        error.close()


@contextmanager
def _serving(
    command: Sequence[str], env: Mapping[str, str], log: Path, port: int
) -> Iterator[Server]:
    log.unlink(missing_ok=True)
    env = {"AUTOMX_CONF": "/dev/null", **env}
    with running(command, log, ready=lambda: listens(port), env=env, cwd=REPOSITORY) as started:
        yield Server(started.process, started.log, port)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nRss:")[2].split()[0]) / 1024


def automx2_programs(folder: Path) -> Path:
    """Install automx2 from the package index, unless it is there; return its folder of programs."""
    programs = folder / "bin"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        command: list[str | Path] = [programs / "python", "-m", "pip", "install", "-qq"]
        command += ["--disable-pip-version-check", "--retries=10", "--timeout=60"]
        subprocess.run([*command, "automx2", f"gunicorn=={version('gunicorn')}"], check=True)
        (folder / "complete").touch()
    return programs


def automx2_version(programs: Path) -> str:
    """Return the version of the automx2 that is installed."""
    command = "import importlib.metadata; print(importlib.metadata.version('automx2'))"
    result = subprocess.run(
        [programs / "python", "-c", command], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


@contextmanager
def automx2_and_automx(
    folder: Path, settings: Mapping[str, str] | None = None, sql: str = ""
) -> Iterator[tuple[Server, Server]]:
    """Run automx2 and automx under the same gunicorn, with the very same rows.

    automx2 creates and seeds a SQLite database, then automx adopts it. ``settings`` are automx's;
    ``sql`` changes the rows of both.
    """
    programs = automx2_programs(folder / "automx2")
    database = folder / _OF_BOTH
    database.unlink(missing_ok=True)
    db_uri = f"sqlite:///{database}"
    file = folder / "automx2.conf"
    file.write_text(f"[automx2]\nloglevel = WARNING\ndb_uri = {db_uri}\nproxy_count = 0\n")
    env2 = {"AUTOMX2_CONF": str(file)}
    env = environment_of_both(folder, settings)
    with gunicorn("automx2.server:app", env2, folder / "automx2.log", programs) as automx2:
        _seed_automx2(automx2.url)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.executescript(sql)
        automx("db", "upgrade", env=env)
        with gunicorn("automx.server:app", env, folder / "automx.log") as our_own:
            yield automx2, our_own
    database.unlink()


def environment_of_both(folder: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which automx uses the database of automx2_and_automx()."""
    db_uri = f"sqlite:///{folder / _OF_BOTH}"
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri, **(settings or {})}


def _seed_automx2(base: str) -> None:
    body = seed_document("example.com", "example.net", "example.org").encode()
    request = urllib.request.Request(f"{base}/initdb/", body)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
