"""The card around a QR code: its texts in a language, logo and colour of the provider."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import click

from automx import lookup
from automx.clientconfig import ClientConfig, Logo
from automx.database import Session
from automx.errors import UnknownDomainError
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
    the provider, "" for black. ``logo`` is its logo, form and bytes, in place of the title.
    """

    title: str
    steps: Sequence[str]
    notes: Sequence[Note] = ()
    color: str = ""
    logo: tuple[Logo, bytes] | None = None

    @classmethod
    def of(cls, session: Session, config: ClientConfig, steps: Sequence[str]) -> "Card":
        """Return a card with name, colour and logo of the provider of a domain, without notes."""
        logo, form = None, config.details.logo
        if form:
            with suppress(UnknownDomainError):  # SQLite lets a text into the column
                logo = form, lookup.logo(session, config.domain)[1]
        return cls(config.provider_name, steps, color=config.details.color, logo=logo)

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
            logo=self.logo,
        )
