"""The card around a QR code: its texts in a language, and the colour of the provider."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import click

from automx.formats import palette, qr


@dataclass(frozen=True)
class Note:
    """A line of small print: a text that ``N_()`` marks, and the values for its ``%(name)s``."""

    text: str
    values: Mapping[str, str | timedelta] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """The texts of a card around the code: see automx.formats.qr.card().

    ``steps`` and the texts of ``notes`` are English texts that ``N_()`` marks. ``color`` is that of
    the provider, "" for black.
    """

    title: str
    steps: Sequence[str]
    notes: Sequence[Note] = ()
    color: str = ""

    def draw(self, code: str, language: str) -> str:
        """Return the card as an SVG document, with the QR code of a text, in a language.

        Raises UsageError if there is no such language, BadRequestError if the text is too long.
        """
        from automx.views import languages  # noqa: PLC0415 - Flask takes long, for cards alone

        tags = languages.names()
        if language not in tags:
            raise click.UsageError(f"--language must be one of {', '.join(tags)}.")
        translate = languages.translator(language)

        def shown(value: str | timedelta) -> str:
            return value if isinstance(value, str) else languages.spoken(language, value)

        def filled(note: Note) -> str:
            values = {name: shown(value) for name, value in note.values.items()}
            return translate(note.text) % values

        return qr.card(
            code,
            title=self.title,
            steps=[translate(step) for step in self.steps],
            notes=[filled(note) for note in self.notes],
            color=palette.on_paper(self.color) if self.color else "#000",
        )
