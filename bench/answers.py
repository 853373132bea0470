"""How fast documents are answered: remembered, cold, of unknown domains; beside other servers."""

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.load import (
    AUTOCONFIG,
    AUTODISCOVER,
    CONNECTIONS,
    MOBILECONFIG,
    Document,
    compare,
    latencies,
    load,
)
from bench.measurements import Bench, bare_answers, env_of
from bench.report import Table
from bench.rows import DATABASES, databases, fill
from bench.servers import BIN, WORKERS, Server, automx2_and_automx, serve
from tests.processes import REPOSITORY, free_port, listens, program, running

DOMAINS = 200_000
# What is required, beside a bare Flask view behind the same front.
WARM, PERSONAL = 3.0, 0.85
COLD = {"sqlite": 0.55, "postgresql": 0.4}
CROWD, SPREAD = 64, 10  # connections, and the 99th percentile beside the median

BY_GET = Document(
    "Autodiscover by GET", "/autodiscover/autodiscover.xml?emailaddress=alice@example.com"
)

Rate = Callable[[int], float]  # seconds -> requests per second


def answers(bench: Bench) -> Table:
    """Compare answers with those of a bare Flask view, which knows and asks nothing.

    Cold is any of so many domains, of which a worker remembers one in a hundred.
    """
    table = Table(
        f"Answers beside a bare Flask view, {WORKERS} workers each, {CONNECTIONS} connections",
        ("answered by", "asked for", "bare Flask, requests/s", "requests/s", "share", "required"),
    )

    def add(name: str, what: str, first: Rate, second: Rate, required: float | None = None) -> None:
        found = compare(first, second, seconds=bench.seconds, required=required)
        found.add_to(table, name, what, form=".0%")

    for kind in DATABASES:
        with _flask_and_automx(bench, kind) as (env, flask, server):
            bare = partial(load, flask.url, AUTOCONFIG)
            if kind == DATABASES[0]:
                for name, other in OTHERS.items():
                    with other(bench, env) as url:
                        add(name, AUTOCONFIG.name, bare, partial(load, url, AUTOCONFIG))
                for document, required in (
                    (AUTOCONFIG, WARM),
                    (BY_GET, WARM),
                    (AUTODISCOVER, PERSONAL),
                    (MOBILECONFIG, PERSONAL),
                ):
                    first = partial(load, flask.url, document)
                    add(
                        "automx",
                        document.name,
                        first,
                        partial(load, server.url, document),
                        required,
                    )
            name = f"automx, {kind}"
            cold = partial(load, server.url, AUTOCONFIG, domains=DOMAINS)
            add(name, f"any of {DOMAINS:,} domains", bare, cold, COLD.get(kind))
            unknown = partial(load, server.url, AUTOCONFIG, unknown=DOMAINS)
            add(name, "unknown domains", bare, unknown, COLD.get(kind))
    return table


def spread(bench: Bench) -> Table:
    """Compare the 99th percentile of the times of answers with their median."""
    table = Table(
        f"Times of answers, {CROWD} connections",
        ("asked for", "median", "99th percentile", "ratio", "at most"),
    )
    with _flask_and_automx(bench, "sqlite") as (_env, _flask, server):
        for what, domains in (("one domain", 0), (f"any of {DOMAINS:,} domains", DOMAINS)):
            load(server.url, AUTOCONFIG, 1, domains=domains)
            median, high = latencies(
                server.url, AUTOCONFIG, 3 * bench.seconds, connections=CROWD, domains=domains
            )
            cells = (f"{median:.2f} ms", f"{high:.2f} ms", f"{high / median:.1f}", f"{SPREAD}")
            table.add(what, *cells, ok=high <= SPREAD * median)
    return table


@contextlib.contextmanager
def _flask_and_automx(bench: Bench, kind: str) -> Iterator[tuple[dict[str, str], Server, Server]]:
    """Run automx for many domains, and a bare Flask view with its answers.

    With them comes the environment that tells the answers.
    """
    with databases(kind, bench.folder, 1) as [db_uri]:
        fill(db_uri, DOMAINS)
        with serve(env_of(db_uri), bench.folder / "automx.log") as server:
            env = env_of(db_uri) | bare_answers(server, bench.folder / "bare")
            with serve(env, bench.folder / "bare.log", bare=True) as flask:
                yield env, flask, server


@contextlib.contextmanager
def _automx2(bench: Bench, _: dict[str, str]) -> Iterator[str]:
    with automx2_and_automx(bench.folder) as (automx2, _automx):
        yield automx2.url


@contextlib.contextmanager
def _wsgi(bench: Bench, env: dict[str, str]) -> Iterator[str]:
    """Run a bare WSGI function."""
    port = free_port()
    command = [str(BIN / "granian"), "--interface=wsgi", f"--workers={WORKERS}", f"--port={port}"]
    command += ["--no-log", "bench.bare:wsgi"]
    log = bench.folder / "wsgi.log"
    with running(command, log, ready=lambda: listens(port), env=env, cwd=REPOSITORY):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _nginx(bench: Bench, env: dict[str, str]) -> Iterator[str]:
    """Run nginx with the document as a file."""
    port, folder = free_port(), bench.folder / "nginx"
    file = folder / AUTOCONFIG.path.partition("?")[0].removeprefix("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    answer = Path(env["BENCH_BARE"]) / f"{AUTOCONFIG.name}.json"
    file.write_text(json.loads(answer.read_text())["body"])
    places = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nuser root;\nworker_processes {WORKERS};\npid {folder / 'pid'};\n"
        f"events {{}}\nhttp {{\n{places}access_log off;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; open_file_cache max=100; }}\n}}\n"
    )
    command = [program("nginx", "nginx-light"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, bench.folder / "nginx.log", ready=lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"


# Servers by which the others are measured.
OTHERS = {"automx2, gunicorn": _automx2, "a bare WSGI function": _wsgi, "nginx, a file": _nginx}

MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {
    function.__name__: function for function in (answers, spread)
}
