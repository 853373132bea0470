"""``automx audit``: who changed what, and when."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from automx import audit as entries
from automx.cli import names
from automx.cli.addresses import DOMAIN_TEXT
from automx.cli.context import Context, with_json
from automx.cli.subcommands import Subcommands
from automx.cli.terminal import EXIT_STATUS, say, say_json_list, say_table
from automx.duration import parse_duration
from automx.moments import parse_moment, to_minute


@click.group(cls=Subcommands, epilog=EXIT_STATUS)
def audit() -> None:
    """Print who changed what, and when."""


@audit.command("list", epilog=EXIT_STATUS)
@click.option(
    "--domain",
    type=DOMAIN_TEXT,
    shell_complete=names.of("domain"),
    help="Only changes of this domain, and of its accounts.",
)
@click.option(
    "--since",
    metavar="DATE|DURATION",
    help="Only changes from then on: 2026-12-31, 2026-12-31T18:00Z, or 30d before now.",
)
@with_json
def list_(context: Context, domain: str | None, since: str | None) -> None:
    """Print the changes of rows, the oldest first; secrets are not in them."""
    start = None if since is None else _moment(since, context.now)
    with context.session() as session:
        found = entries.entries(session, domain=domain or "", since=start)
        if context.as_json:
            say_json_list(entry.document() for entry in found)
            return
        first = next(found, None)
        if first is None:
            say("There are no such changes." if domain or since else "There are no changes yet.")
            return
        say_table(_rows(first, found))


def _moment(text: str, now: datetime) -> datetime:
    try:
        if re.fullmatch(r"\d+[a-z]", text):
            return now - parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"A duration is {error}.", param_hint="'--since'") from None
    try:
        return parse_moment(text)
    except ValueError as error:
        text = f"{error} A duration is written as 30d."
        raise click.BadParameter(text, param_hint="'--since'") from None


def _rows(first: entries.Entry, rest: Iterator[entries.Entry]) -> Iterator[tuple[str, ...]]:
    yield ("at", "actor", "action", "kind", "name", "details")
    yield _row(first)
    yield from map(_row, rest)


def _row(entry: entries.Entry) -> tuple[str, ...]:
    at = to_minute(entry.at)
    return (at, entry.actor, entry.action, entry.kind, entry.name, _details(entry.details))


def _details(details: dict[str, Any]) -> str:
    """Return what was changed in one line: members before and after, or numbers."""
    before, after = details.get("before"), details.get("after")
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(
            f"{member} {_json(before.get(member))} -> {_json(after.get(member))}"
            for member in {**before, **after}
        )
    if isinstance(numbers := details.get("numbers"), dict):
        return ", ".join(
            f"{action} {number} {kind}"
            for action, kinds in numbers.items()
            for kind, number in kinds.items()
        )
    values = after or before or details
    if not isinstance(values, dict):
        return _json(values)
    return ", ".join(
        f"{member} {_json(value)}"
        for member, value in values.items()
        if value not in (None, "", [], {}, False) and member not in {"id", "name"}
    )


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
