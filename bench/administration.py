"""Many domains at once: added by names, applied from a file, listed."""

import json
from collections.abc import Callable

from bench.measurements import MANY, SEEDED, Bench, env_of, resources
from bench.report import Table, number
from bench.rows import SERVERS, databases, fill
from tests.commandline import automx

ADD_SECONDS = 30
APPLY_SECONDS = 15
CHANGED = 10
MORE_MEMORY = 20  # MB, of a list of MANY rows beside one of 10
NAMES_MEMORY = 20  # MB, of adding SEEDED names beside adding 10


def add_domains(bench: Bench) -> Table:
    """Measure ``automx domain add`` of many names."""
    table = _table(f"automx domain add of {SEEDED:,} names ({bench.database})", "10 names")
    with databases(bench.database, bench.folder, 2) as uris:
        found = []
        for db_uri, count in zip(uris, (10, SEEDED), strict=True):
            automx("seed", "-", env=env_of(db_uri), stdin=_document(["example.com"]))
            file = bench.folder / "names"
            file.write_text("".join(f"d{name}.example\n" for name in range(count)))
            found.append(resources(["domain", "add", "-", "--provider", "1"], db_uri, stdin=file))
            file.unlink()
    _add(table, "automx domain add", found[0], found[1], ADD_SECONDS, NAMES_MEMORY)
    return table


def apply(bench: Bench) -> Table:
    """Measure ``automx apply`` of a file with many domains of which ten have changed."""
    table = _table(f"automx apply of {SEEDED:,} domains ({bench.database})", "10 domains")
    with databases(bench.database, bench.folder, 2) as [small, large]:
        few = _apply(bench, small, 10)
        many = _apply(bench, large, SEEDED)
    for what, limit in (("first", None), (f"{CHANGED} changed", APPLY_SECONDS), ("same", None)):
        _add(table, f"automx apply, {what}", few[what], many[what], limit, None)
    return table


def list_domains(bench: Bench) -> Table:
    """Measure the memory of ``automx domain list`` with many rows."""
    table = _table(f"automx domain list of {MANY:,} rows ({bench.database})", "10 rows")
    with databases(bench.database, bench.folder, 2) as [small, large]:
        fill(small, 10)
        fill(large, MANY)
        for options in ((), ("--json",)):
            command = ["domain", "list", *options]
            few, many = resources(command, small), resources(command, large)
            _add(table, f"automx {' '.join(command)}", few, many, None, MORE_MEMORY)
    return table


def _apply(bench: Bench, db_uri: str, count: int) -> dict[str, tuple[float, float]]:
    """Return what applying a document costs: the first time, with ten changes, and once more."""
    names = [f"d{name}.example" for name in range(count)]
    changed = [f"new{name}" for name in names[:CHANGED]] + names[CHANGED:]
    file = bench.folder / "apply.json"
    found = {}
    for what, domains in (("first", names), (f"{CHANGED} changed", changed), ("same", changed)):
        file.write_text(_document(domains, origin="bench"))
        found[what] = resources(["apply", str(file), "--prune", "--yes"], db_uri)
    file.unlink()
    return found


def _document(domains: list[str], **members: str) -> str:
    rows = [{"name": name} for name in domains]
    return json.dumps(
        {"version": 2, "provider": "Example Inc.", "domains": rows, "servers": SERVERS, **members}
    )


def _table(title: str, few: str) -> Table:
    columns = ("command", "seconds", "allowed", f"more memory than for {few}", "allowed memory")
    return Table(title, columns)


def _add(
    table: Table,
    command: str,
    few: tuple[float, float],
    many: tuple[float, float],
    seconds: float | None,
    megabytes: float | None,
) -> None:
    more = many[1] - few[1]
    is_ok = (seconds is None or many[0] <= seconds) and (megabytes is None or more <= megabytes)
    table.add(
        command,
        number(many[0]),
        "" if seconds is None else number(seconds),
        f"{more:+.0f} MB",
        "" if megabytes is None else f"{megabytes:+.0f} MB",
        ok=None if seconds is None and megabytes is None else is_ok,
    )


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {
    function.__name__: function for function in (add_domains, apply, list_domains)
}
