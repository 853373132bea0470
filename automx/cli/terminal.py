"""What commands share on a terminal: tables, error lines, secrets that are typed, progress bars."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import click

_Item = TypeVar("_Item")

EXIT_STATUS = (
    "Exit status: 0 if all was done, 1 if something could not be done (standard error says why),"
    " 2 if the command was not understood."
)


def complain(line: str) -> None:
    """Print a line about an error or a warning to standard error."""
    click.echo(f"automx: {printable(line)}", err=True)


def printable(text: str) -> str:
    """Return a text that cannot move a terminal's cursor: parts of it come from strangers."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with columns, each column as wide as its longest cell."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def read_secret(what: str) -> str:
    """Return the secret on standard input, without the line end that ``echo`` adds.

    A terminal does not show it. Raises ClickException if it is empty, not UTF-8 or has a control
    character.
    """
    if sys.stdin.isatty():
        text = str(click.prompt(what.capitalize(), hide_input=True, err=True))
    else:
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise click.ClickException(f"the {what} is not UTF-8") from error
        text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise click.ClickException(f"the {what} is empty")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise click.ClickException(f"the {what} contains a control character")
    return text


def with_progress(items: Iterable[_Item], number: int) -> Iterator[_Item]:
    """Yield items; if standard error is a terminal, show there how many of ``number`` are done."""
    if not sys.stderr.isatty() or number < 2:
        yield from items
        return
    with click.progressbar(length=number, file=sys.stderr, show_pos=True) as bar:
        for item in items:
            click.echo("\r\x1b[K", nl=False, err=True)  # room for a line about the item
            yield item
            bar.update(1)
