"""Options and output of all commands that make a QR code."""

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

import click

from automx.cli.card import Card
from automx.cli.context import Context, with_json
from automx.cli.output import open_output
from automx.cli.terminal import complain, say
from automx.formats import qr


@dataclass(frozen=True)
class QrOutput:
    """How a QR code is written: to ``file``, else to the terminal; ``option`` names the file.

    ``language`` is that of a card.
    """

    option: str
    file: str | None
    is_card: bool
    language: str = "en"

    def write(
        self, context: Context, text: str, card: Card, document: Mapping[str, object]
    ) -> None:
        """Write the QR code of a text to the file, else to the terminal.

        ``card`` stands around the code if a card is wanted; a drawing has its title. ``document``,
        with the name of the file if there is one, is printed with ``--json``. Raises
        BadRequestError if the text is too long for a QR code, ClickException if the file cannot
        be written.
        """
        with self.opened() as write_file:
            write_file(text, card)
        if self.file is not None or context.as_json:
            context.write({**document, **self.document()}, lambda: f"Wrote {self.file}.")
        else:
            self._show(text)

    @contextmanager
    def opened(self) -> Iterator[Callable[[str, Card], None]]:
        """Open the file, if there is one, and yield a function that writes a QR code into it.

        So a file that cannot be written is known before there is anything to write. Raises as
        write().
        """
        if self.file is None:
            yield lambda _text, _card: None
            return
        with open_output(self.file) as output:

            def write_file(text: str, card: Card) -> None:
                output.write(self._content(text, card))

            yield write_file

    def document(self) -> dict[str, object]:
        """Return the name of the file for ``--json``."""
        return {} if self.file is None else {"file": self.file}

    def _content(self, text: str, card: Card) -> bytes:
        if self.is_card:
            return card.draw(text, self.language).encode()
        if self.file and _extension(self.file) == ".png":
            return qr.png(text)
        return qr.svg(text, title=card.title).encode()

    def _show(self, text: str) -> None:
        is_terminal = sys.stdout.isatty()
        is_coloured = is_terminal and not os.environ.get("NO_COLOR")
        lines = qr.terminal(text, is_coloured=is_coloured)
        say(text)
        click.echo(f"\n{lines}", nl=False, color=is_coloured)  # noqa: TID251 - our own drawing
        width = qr.terminal_width(text)
        if is_terminal and shutil.get_terminal_size().columns < width:
            complain(
                f"the QR code needs {width} columns; make the terminal wider, or write it to a"
                f" file: {self.option} FILE"
            )


def qr_options(option: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --card, --language, --json and an option for a file to a command, with a QrOutput."""

    def add_options(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            option,
            "file",
            metavar="FILE",
            callback=_checked_name,
            help="Write the QR code to FILE, a .png or .svg, which its owner alone may read.",
        )
        @click.option("--card", is_flag=True, help="Make FILE, an .svg, a card of A6 to print.")
        @click.option(
            "--language",
            metavar="TAG",
            help="The language of the card, such as de. Default: en.",
        )
        @with_json
        @functools.wraps(command)
        def with_output(
            context: Context, file: str | None, card: bool, language: str | None, **options: object
        ) -> None:
            if card and (file is None or _extension(file) != ".svg"):
                raise click.UsageError(f"--card needs the name of an .svg file: {option} FILE.svg")
            if language is not None and not card:
                raise click.UsageError("--language is that of a card: --card")
            command(context, **options, output=QrOutput(option, file, card, language or "en"))

        return with_output

    return add_options


def _extension(file: str) -> str:
    return PurePath(file).suffix.lower()


def _checked_name(_: click.Context, __: click.Parameter, file: str | None) -> str | None:
    if file is not None and _extension(file) not in {".png", ".svg"}:
        raise click.BadParameter("the name must end in .png or .svg")
    return file
