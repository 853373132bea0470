"""What commands share on a terminal: lines, tables, secrets that are typed, progress bars.

All texts for people are printed here, because parts of them come from strangers, such as rows of
the database: a character that is not printable (control characters of ISO 6429, line separators,
the controls of bidirectional text) could move the cursor or disguise what a line says.
"""

import errno
import io
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, TypeVar

import click

_Item = TypeVar("_Item")

_LONGEST = 4_000  # characters of a line about an error
_MOST_SECRET = 65_536  # bytes of a secret on standard input
_FIRST_ROWS = 1_000  # of a long table, whose cells decide how wide its columns are

_echo = click.echo  # noqa: TID251 - the one place
_prompt = click.prompt  # noqa: TID251 - likewise

PREFIX = "automx: "  # of each line about an error or a warning

EXIT_STATUS = (
    "Exit status: 0 if all was done, 1 if something could not be done (standard error says why),"
    " 2 if the command was not understood."
)
INTERRUPTED = 130  # what a shell calls a program that Ctrl-C has ended

# Why standard output cannot be written; a pipe that is closed (EPIPE) is click's.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}

_HELP_AS_ERROR: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # since click 8.2


def prepare_streams() -> None:
    """Make the standard streams of a program ones that commands can use.

    A stream that the caller has closed (``>&-``) is opened, so that no other file gets its number:
    there is nothing to read then, and writing to standard output fails. A character that the
    encoding of standard output does not have is replaced.
    """
    flags = {"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
    for number, (name, flag) in enumerate(flags.items()):
        if getattr(sys, name) is None and os.open(os.devnull, flag) == number:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # that of standard error escapes it


def drop_unwritten() -> None:
    """Forget what standard streams cannot write; else the end of Python would change the status."""
    for name in ("stdout", "stderr"):
        try:
            if (stream := getattr(sys, name)) is not None:
                stream.flush()
        except OSError:
            setattr(sys, name, io.StringIO())


def complain(line: str) -> None:
    """Print a line about an error or a warning to standard error, if that can be written."""
    with suppress(OSError):  # a full disk, or a pipe that is closed
        _echo(f"{PREFIX}{printable(shortened(line, _LONGEST))}", err=True)


def complain_of_usage(error: click.ClickException) -> None:
    """Print an error of the command line to standard error, and where to read about it."""
    if isinstance(error, _HELP_AS_ERROR):
        error.show()  # the help of a group
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        with suppress(OSError):
            path = error.ctx.command_path
            _echo(f"{error.ctx.get_usage()}\nTry '{path} --help' for help.\n", err=True)
    complain(error.format_message())


def end_line() -> None:
    """End the line of a terminal that shows ^C or a question."""
    with suppress(OSError):
        if sys.stderr is not None and sys.stderr.isatty():
            _echo("", err=True)


def say(line: str) -> None:
    """Print a line to standard output."""
    _echo(printable(line))


def say_lines(text: str) -> None:
    """Print lines to standard output; line breaks within values were replaced by printable()."""
    _echo("\n".join(map(printable, text.split("\n"))))


def say_json(document: object, *, ascii_only: bool = False) -> None:
    """Print a document as JSON (RFC 8259), in UTF-8; what is not printable is escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=ascii_only)
    _echo(printable_json(text).encode())


def printable_json(text: str) -> str:
    """Return JSON in which what is not printable is escaped: it stands within strings only."""
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text)


def say_json_list(documents: Iterable[object]) -> None:
    """Print a list of documents as say_json() does, each as soon as it is there."""
    begin = "["
    for document in documents:
        text = json.dumps(document, indent=2, ensure_ascii=False)
        piece = printable_json(f"{begin}\n{text}").replace("\n", "\n  ")
        _echo(piece.encode(), nl=False)
        begin = ","
    _echo("[]" if begin == "[" else "\n]")


def pass_on(document: str | bytes) -> None:
    """Print a document for programs as it is: where it may hold such characters, they belong."""
    _echo(document, nl=False)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def printable(text: str) -> str:
    """Return a line with a replacement character for each one that is not printable."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(text: str, most: int = 1_000) -> str:
    """Return a text, its middle left out if it is longer: what strangers say may be endless."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


class PrintableFormatter(logging.Formatter):
    """Puts what a command logs into one printable line; lines of a traceback stay lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the message, which may quote a backend or a directory."""
        return f"{PREFIX}{printable(record.message)}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with columns, each column as wide as its longest cell."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def say_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows as table() gives them, any number of them.

    Columns are as wide as the longest cell of the first rows; a longer one moves the rest.
    """
    rows = iter(rows)
    first = [[printable(cell) for cell in row] for row in islice(rows, _FIRST_ROWS)]
    if not first:
        return
    widths = [max(map(len, column)) for column in zip(*first, strict=True)]
    for row in chain(first, rows):
        padded = [printable(c).ljust(width) for c, width in zip(row, widths, strict=True)]
        _echo("  ".join(padded).rstrip())


def confirm(what: str, *, question: str, yes: bool) -> None:
    """Ask a question; exit without a yes. Without a terminal, only ``yes`` is one.

    ``what`` says what would be done, such as "this would delete 3 domains".
    """
    if yes:
        return
    if not sys.stdin.isatty():
        complain(f"{what}; say --yes to do it")
        raise click.exceptions.Exit(2)
    if not agrees(question):
        raise click.Abort


def agrees(question: str, *, default: bool = False) -> bool:
    """Ask a question until the answer is yes or no; a mere Enter is the default."""
    hint = "Y/n" if default else "y/N"
    while True:
        answer = _typed(f"{printable(question)} [{hint}]", default="", show_default=False).lower()
        if not answer:
            return default
        if answer in {"y", "yes", "n", "no"}:
            return answer[0] == "y"
        complain("the answer is y or n")


def ask(question: str, type_: "click.ParamType[Any]", default: str | None = None) -> Any:
    """Ask for a value until the type takes it; a mere Enter is the default."""
    while True:
        # The type shows its choices; click would tell errors in other words than complain().
        text = _typed(question, default=default, type=type_, value_proc=str)
        try:
            return type_.convert(text, None, None)
        except click.UsageError as error:
            complain(error.message)


def _typed(question: str, **options: Any) -> str:
    return str(_prompt(question, err=True, **options)).strip()


def read_secret(what: str) -> str:
    """Return the secret on standard input, without the line end that ``echo`` adds.

    A terminal does not show it. Raises ClickException if it is empty, too long, not UTF-8 or has a
    control character.
    """
    if sys.stdin.isatty():
        text = str(_prompt(what.capitalize(), hide_input=True, err=True))
    else:
        try:
            data = sys.stdin.buffer.read(_MOST_SECRET + 1)
            if len(data) > _MOST_SECRET:
                raise click.ClickException(f"the {what} has more than {_MOST_SECRET} bytes")
            text = data.decode()
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
            _echo("\r\x1b[K", nl=False, err=True)  # room for a line about the item
            yield item
            bar.update(1)
