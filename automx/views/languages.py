"""Languages of pages: English, and those that have a catalogue in ``automx/translations``.

Flask-Babel takes more than 1 MiB of memory, so it is loaded with the first page: most workers
answer mail programs only.
"""

from collections.abc import Callable
from threading import Lock

from flask import Flask, current_app, g, request
from markupsafe import Markup

_NAMES = "automx.languages"  # the key of the names by language, in app.extensions

# Languages that are written from right to left.
_FROM_RIGHT = {"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}

_lock = Lock()


def choose(wanted: str) -> str:
    """Choose the language of this response and return its BCP 47 tag, such as ``pt-BR``.

    It is ``wanted`` if there is a catalogue, else what the browser prefers, else English.
    """
    fitting = {name.lower(): name for name in names()}
    # werkzeug's best_match() takes "de" for "de-CH" only if no other name fits exactly.
    accepted = [name.lower() for name, quality in request.accept_languages if quality]
    for name in (wanted.lower(), *accepted):
        found = fitting.get(name) or fitting.get(name.partition("-")[0])
        if found:
            break
    g.language = found or "en"
    return str(g.language)


def translator() -> Callable[..., str]:
    """Return ``_()`` for a template, in the language that was chosen.

    Flask-Babel's own looks up the language for each text, which takes most of the time of a page.
    """
    from flask_babel import get_translations

    translate = get_translations().gettext

    def translated(text: str, **values: str) -> str:
        """Return a text in the language; values for ``%(name)s`` are escaped."""
        return Markup(translate(text)) % values if values else translate(text)  # noqa: S704 - our texts

    return translated


def direction(language: str) -> str:
    """Return the direction of a language for HTML: ``ltr`` or ``rtl``."""
    return "rtl" if language.partition("-")[0] in _FROM_RIGHT else "ltr"


def names() -> dict[str, str]:
    """Return each language's own name by its BCP 47 tag, English first."""
    app = current_app._get_current_object()  # type: ignore[attr-defined] # noqa: SLF001 - as documented
    with _lock:
        if _NAMES not in app.extensions:
            app.extensions[_NAMES] = _load(app)
    found: dict[str, str] = app.extensions[_NAMES]
    return found


def _load(app: Flask) -> dict[str, str]:
    from flask_babel import Babel, force_locale, gettext

    babel = Babel(
        app,
        configure_jinja=False,
        locale_selector=lambda: g.get("language", "en").replace("-", "_"),
    )
    found = {}
    locales = {str(locale) for locale in babel.list_translations()} - {"en"}
    for locale in ("en", *sorted(locales)):
        with force_locale(locale):
            # Translators: what your language calls itself, such as "Deutsch".
            found[locale.replace("_", "-")] = gettext("English")
    return found
