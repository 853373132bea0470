"""``python -m bench``: run the measurements, print their tables, keep them in var/bench."""

import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version

import click

from bench import (
    accounts,
    administration,
    answers,
    check,
    frozen,
    ldap,
    measurements,
    publish,
    sync,
)
from bench.measurements import Bench
from bench.report import Table
from bench.rows import DATABASES
from bench.servers import automx2_programs, automx2_version
from tests.processes import REPOSITORY

MEASUREMENTS = (
    measurements.MEASUREMENTS
    | answers.MEASUREMENTS
    | ldap.MEASUREMENTS
    | frozen.MEASUREMENTS
    | accounts.MEASUREMENTS
    | check.MEASUREMENTS
    | administration.MEASUREMENTS
    | sync.MEASUREMENTS
    | publish.MEASUREMENTS
)
FOLDER = REPOSITORY / "var" / "bench"


@click.command
@click.option(
    "--only",
    type=click.Choice(list(MEASUREMENTS)),
    multiple=True,
    help="Measure only this; may be given several times.",
)
@click.option(
    "--seconds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 60),
    help="Length of one run; each value is the median of several runs.",
)
@click.option(
    "--database",
    default="sqlite",
    show_default=True,
    type=click.Choice(DATABASES),
    help="Where to measure growth, seeding, and administration; the others are private instances.",
)
def main(only: tuple[str, ...], seconds: int, database: str) -> None:
    """Measure automx, beside automx2 and a bare Flask view; fail if a promise is not kept."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    bench = Bench(FOLDER, seconds, database)
    machine = _machine()
    print(f"{machine}\n")
    tables = []
    for name in only or MEASUREMENTS:
        tables.append(MEASUREMENTS[name](bench))
        print(tables[-1].markdown(), flush=True)
    _save(machine, tables)
    missed = [row for table in tables for row in table.missed]
    for row in missed:
        print(f"missed: {row}", file=sys.stderr)
    sys.exit(1 if missed else 0)


def _machine() -> str:
    """Return what the values depend on, in one sentence."""
    theirs = automx2_version(automx2_programs(FOLDER / "automx2"))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("Flask", "granian", "gunicorn"))
    return (
        f"Measured on {os.cpu_count()} processor cores ({platform.machine()}) with Python "
        f"{platform.python_version()}, {libraries}; automx2 {theirs}."
    )


def _save(machine: str, tables: list[Table]) -> None:
    results = {"machine": machine, "tables": [asdict(table) for table in tables]}
    (FOLDER / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    texts = [f"{machine}\n", *(table.markdown() for table in tables)]
    (FOLDER / "results.md").write_text("\n".join(texts))


if __name__ == "__main__":
    main()
