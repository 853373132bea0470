"""Published files: the runs of ``automx publish``, and nginx with these files."""

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.load import Document, compare, load
from bench.measurements import Bench, env_of, resources
from bench.report import Table
from bench.rows import databases, fill
from bench.servers import serve
from tests.processes import REPOSITORY
from tests.publishednginx import nginx

DOMAINS = 100_000
FIRST_SECONDS, UNCHANGED_SECONDS = 60, 2
GROWTH = 20  # MB, from ten domains to DOMAINS
SHARE = 0.9
HOST = "autoconfig.d1000000.example"
ANY = Document("Autoconfig", "/mail/config-v1.1.xml?emailaddress=alice@d1000000.example")
# The same bytes, by the same directives of nginx, but without its expressions.
STATIC = Document("file", "/static/autoconfig/00/d1000000.example")


def runs(bench: Bench) -> Table:
    """Measure the first run, runs without changes, and one with a change of all domains."""
    table = Table(
        f"automx publish with {DOMAINS:,} domains of a provider ({bench.database})",
        ("run", "seconds", "at most", "more memory than for 10", "allowed memory"),
    )
    with databases(bench.database, bench.folder, 2) as [small, large], _folder(bench) as folder:
        fill(small, 10)
        fill(large, DOMAINS)
        _, few = _publish(small, folder / "few")
        kinds: list[tuple[str, tuple[str, ...], float | None, int]] = [
            ("the first", (), FIRST_SECONDS, 1),
            ("nothing has changed", (), UNCHANGED_SECONDS, 5),
            ("all are compared", ("--full",), None, 1),
        ]
        for name, options, limit, times in kinds:
            found = [_publish(large, folder / "many", *options) for _ in range(times)]
            seconds = statistics.median(each for each, _ in found)
            more = max(memory for _, memory in found) - few
            ok = limit is None or (seconds <= limit and more <= GROWTH)
            cells = (name, f"{seconds:.1f}", f"{limit or ''}", f"{more:+.0f} MB", f"{GROWTH:+d} MB")
            table.add(*cells, ok=ok if limit else None)
    return table


def published(bench: Bench) -> Table:
    """Compare nginx with published files with the same nginx, and any file of the same size."""
    table = Table(
        f"nginx with published files of {DOMAINS:,} domains",
        (
            "asked for",
            "compared with",
            "its requests/s",
            "published, requests/s",
            "ratio",
            "required",
        ),
    )
    with databases("sqlite", bench.folder, 1) as [db_uri], _folder(bench) as folder:
        fill(db_uri, DOMAINS)
        _publish(db_uri, folder / "files")
        with ExitStack() as stack:
            env = env_of(db_uri) | {"AUTOMX_PROXY_COUNT": "1"}
            server = stack.enter_context(serve(env, bench.folder / "automx.log"))
            start = partial(_nginx, stack, folder, server.port)
            files, plain = (
                start("nginx-published.conf", folder / "files"),
                start("nginx.conf", None),
            )
            for name, domains in (("one domain", 0), ("any domain", DOMAINS)):
                second = partial(load, files, ANY, domains=domains, host=HOST)
                for what, base, document, required in (
                    ("the same file, static", files, STATIC, SHARE),
                    ("nginx with automx", plain, ANY, None),
                ):
                    first = partial(load, base, document, domains=domains, host=HOST)
                    found = compare(first, second, seconds=bench.seconds, required=required)
                    found.add_to(table, name, what, form=".2f")
    return table


def _nginx(stack: ExitStack, folder: Path, port: int, name: str, published: Path | None) -> str:
    (own := folder / name).mkdir()
    static = f"location /static/ {{ alias {published}/; {_directives(name)} }}" if published else ""
    found = stack.enter_context(nginx(name, own, port, published, more=static))
    return f"http://127.0.0.1:{found}"


def _directives(name: str) -> str:
    """Return how the first location of a file of contrib sends published files."""
    text = (REPOSITORY / "contrib" / name).read_text()
    return text.partition("= @automx;\n")[2].partition("    }\n")[0]


@contextmanager
def _folder(bench: Bench) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="publish-", dir=bench.folder))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _publish(db_uri: str, folder: Path, *options: str) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of a run."""
    return resources(["publish", str(folder), *options], db_uri)


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {"publish_runs": runs, "publish": published}
