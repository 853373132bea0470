"""What commands read and print: moments, tables, JSON, secrets, the progress of long work."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

import click

from automx.errors import AutomxError

_Item = TypeVar("_Item")

EXIT_STATUS = (
    "Exit status: 0 if all was done, 1 if something could not be done (standard error says why),"
    " 2 if the command was not understood."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

_UNITS = [("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)]


def parse_moment(text: str, option: str, *, time_of_date: time = time.min) -> datetime:
    """Return the moment that the value of an option names: a date, or a date and a time.

    It is UTC unless it says otherwise (ISO 8601); a date alone has ``time_of_date``. Raises
    BadParameter.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        example = "such as 2026-12-31 or 2026-12-31T18:00Z"
        raise click.BadParameter(f"{text!r} is no time {example}.", param_hint=option) from None
    if not 2000 <= moment.year < 3000:
        raise click.BadParameter(f"{text!r} is not between 2000 and 2999.", param_hint=option)
    try:
        moment = datetime.combine(date.fromisoformat(text), time_of_date)
    except ValueError:
        pass  # it has a time
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def this_second() -> datetime:
    """Return the time as the database keeps it."""
    return datetime.now(UTC).replace(microsecond=0)


def iso(moment: datetime | None) -> str | None:
    """Return a moment as programs read it: ISO 8601 in UTC, to the second."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_minute(moment: datetime) -> str:
    """Return a moment in UTC as people read it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def dated(moment: datetime, now: datetime) -> str:
    """Return a moment as people read it, and how far away it is."""
    return f"{to_minute(moment)} ({away(moment, now)})"


def away(moment: datetime, now: datetime) -> str:
    """Return how far away a moment is, such as ``in 3 days`` or ``5 hours ago``."""
    seconds = round((moment - now).total_seconds())
    if not seconds:
        return "now"
    units = (unit for unit in _UNITS if abs(seconds) >= 2 * unit[1])
    unit, length = next(units, ("second", 1))
    words = _number(round(abs(seconds) / length), unit)
    return f"in {words}" if seconds > 0 else f"{words} ago"


def length_of(duration: timedelta) -> str:
    """Return a duration of whole seconds in words, such as ``90 minutes`` or ``1 day``."""
    seconds = int(duration.total_seconds())
    unit, length = next(unit for unit in _UNITS if seconds % unit[1] == 0)
    return _number(seconds // length, unit)


def _number(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns, each as wide as it must be, with line ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def echo_json(document: object) -> None:
    """Print a JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def reason(error: AutomxError) -> str:
    """Return what an administrator has to know of an error, on one line."""
    if error.status >= 500 and error.cause:  # the public text tells as little as it may
        return error.cause
    return f"{error} ({error.cause})" if error.cause else str(error)


def complain(line: str) -> None:
    """Print a line about something that went wrong."""
    click.echo(f"automx: {line}", err=True)


def read_secret(what: str) -> str:
    """Return the secret on standard input, without the line end that echo adds.

    Who types it on a terminal does not see it. Raises ClickException for one that cannot be.
    """
    if sys.stdin.isatty():
        return checked_secret(click.prompt(what.capitalize(), hide_input=True, err=True), what)
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"the {what} is not UTF-8") from error
    return checked_secret(text.removesuffix("\n").removesuffix("\r"), what)


def checked_secret(text: str, what: str) -> str:
    """Return a secret. Raises ClickException if it is empty or nobody could type it."""
    if not text:
        raise click.ClickException(f"the {what} is empty")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise click.ClickException(f"the {what} has a character that nobody can type")
    return text


def with_progress(items: Iterable[_Item], number: int) -> Iterator[_Item]:
    """Yield items; if standard error is a terminal, show there how many of them are done."""
    if not sys.stderr.isatty() or number < 2:
        yield from items
        return
    with click.progressbar(length=number, file=sys.stderr, show_pos=True) as bar:
        for item in items:
            click.echo("\r\x1b[K", nl=False, err=True)  # room for a line about the item
            yield item
            bar.update(1)
