"""Languages of pages: English, and those that have a catalogue in ``automx/translations``."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

from flask import request
from markupsafe import Markup

from automx.duration import format_duration

_FOLDER = Path(__file__).parent.parent / "translations"

# Languages that are written from right to left.
_FROM_RIGHT = {"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}


def load() -> None:
    """Read the catalogues now: a server that has no files left still says why in all languages."""
    _catalogues()


def choose() -> str:
    """Choose the language of a response and return its BCP 47 tag, such as ``pt-BR``.

    It is the argument ``lang`` if it has a catalogue, else what the browser prefers, else English.
    """
    fitting = {name.lower(): name for name in _catalogues()}
    # werkzeug's best_match() takes "de" for "de-CH" only if no other name fits exactly.
    accepted = [name.lower() for name, quality in request.accept_languages if quality]
    for name in (request.args.get("lang", "").lower(), *accepted):
        if found := fitting.get(name) or fitting.get(name.partition("-")[0]):
            return found
    return "en"


def translated(text: str) -> str:
    """Return a text that ``N_()`` marks in the language that the client prefers."""
    return _translation(choose()).gettext(text)


def translator(language: str) -> Callable[..., str]:
    """Return ``_()`` for a template, in one of the languages."""
    translate = _translation(language).gettext

    def filled(text: str, **values: str) -> str:
        """Return a text in the language; values for ``%(name)s`` are escaped."""
        return Markup(translate(text)) % values if values else translate(text)  # noqa: S704 - our texts

    return filled


def spoken(language: str, duration: timedelta) -> str:
    """Return a duration of whole seconds in words of a language, such as ``2 weeks``."""
    text = format_duration(duration)
    number, ngettext = int(text[:-1]), _translation(language).ngettext
    words = {
        "s": ngettext("%(number)s second", "%(number)s seconds", number),
        "m": ngettext("%(number)s minute", "%(number)s minutes", number),
        "h": ngettext("%(number)s hour", "%(number)s hours", number),
        "d": ngettext("%(number)s day", "%(number)s days", number),
        "w": ngettext("%(number)s week", "%(number)s weeks", number),
        "y": ngettext("%(number)s year", "%(number)s years", number),
    }[text[-1]]
    return words % {"number": number}


def direction(language: str) -> str:
    """Return the direction of a language for HTML: ``ltr`` or ``rtl``."""
    return "rtl" if language.partition("-")[0] in _FROM_RIGHT else "ltr"


def names() -> dict[str, str]:
    """Return each language's own name by its BCP 47 tag, English first."""
    return {
        # Translators: what your language calls itself, such as "Deutsch".
        language: _translation(language).gettext("English")
        for language in _catalogues()
    }


@cache
def _catalogues() -> dict[str, bytes]:
    """Return the catalogues by the BCP 47 tag of their language; English first, which has none."""
    found = {"en": b""}
    for path in sorted(_FOLDER.glob("*/LC_MESSAGES/messages.mo")):
        found[path.parts[-3].replace("_", "-")] = path.read_bytes()
    return found


@cache
def _translation(language: str) -> NullTranslations:
    """Return a language, which takes more than twice the memory of its catalogue."""
    content = _catalogues()[language]
    return GNUTranslations(BytesIO(content)) if content else NullTranslations()
