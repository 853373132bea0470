"""Languages of pages: English, and those that have a catalogue in ``automx/translations``."""

from collections.abc import Callable
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from flask import request
from markupsafe import Markup

_CATALOGUES = Path(__file__).parent.parent / "translations"

# Languages that are written from right to left.
_FROM_RIGHT = {"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}


def load() -> None:
    """Read the catalogues now: a server that has no files left still says why in all languages."""
    _translations()


def choose(wanted: str = "") -> str:
    """Choose the language of a response and return its BCP 47 tag, such as ``pt-BR``.

    It is ``wanted`` if there is a catalogue, else what the browser prefers, else English.
    """
    fitting = {name.lower(): name for name in _translations()}
    # werkzeug's best_match() takes "de" for "de-CH" only if no other name fits exactly.
    accepted = [name.lower() for name, quality in request.accept_languages if quality]
    for name in (wanted.lower(), *accepted):
        if found := fitting.get(name) or fitting.get(name.partition("-")[0]):
            return found
    return "en"


def translated(text: str) -> str:
    """Return a text that ``N_()`` marks in the language that the client prefers."""
    return _translations()[choose()].gettext(text)


def translator(language: str) -> Callable[..., str]:
    """Return ``_()`` for a template, in one of the languages."""
    translate = _translations()[language].gettext

    def filled(text: str, **values: str) -> str:
        """Return a text in the language; values for ``%(name)s`` are escaped."""
        return Markup(translate(text)) % values if values else translate(text)  # noqa: S704 - our texts

    return filled


def counter(language: str) -> Callable[[str, str, int], str]:
    """Return ``ngettext()`` for a template: a text for one or for several, with their number."""
    translate = _translations()[language].ngettext
    return lambda one, several, number: translate(one, several, number) % {"number": number}


def direction(language: str) -> str:
    """Return the direction of a language for HTML: ``ltr`` or ``rtl``."""
    return "rtl" if language.partition("-")[0] in _FROM_RIGHT else "ltr"


def names() -> dict[str, str]:
    """Return each language's own name by its BCP 47 tag, English first."""
    return {
        # Translators: what your language calls itself, such as "Deutsch".
        language: translation.gettext("English")
        for language, translation in _translations().items()
    }


@cache
def _translations() -> dict[str, NullTranslations]:
    """Return the translations by the BCP 47 tag of their language, English first."""
    found = {"en": NullTranslations()}
    for path in sorted(_CATALOGUES.glob("*/LC_MESSAGES/messages.mo")):
        with path.open("rb") as file:
            found[path.parts[-3].replace("_", "-")] = GNUTranslations(file)
    return found
