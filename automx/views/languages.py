"""Languages of pages: English, and those that have a catalogue in ``automx/translations``.

Flask-Babel takes more than a MiB of memory, so it waits until somebody looks at a page: a worker
that only talks to mail programs does without.
"""

from threading import Lock

from flask import Flask, current_app, g, request

_NAMES = "automx.languages"  # the key of the names by language, in app.extensions

# Languages that are written from right to left.
_FROM_RIGHT = {"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"}

_lock = Lock()


def choose(wanted: str) -> str:
    """Choose the language of this answer and return it as BCP 47 writes it, such as ``pt-BR``.

    That is ``wanted`` if there is a catalogue, else what the browser prefers, else English.
    Templates have ``_()`` from here on.
    """
    languages = names()
    fitting = {name.lower(): name for name in languages}
    language = fitting.get(wanted.lower().replace("_", "-"))
    language = language or request.accept_languages.best_match(languages, "en") or "en"
    g.language = language
    return language


def direction(language: str) -> str:
    """Return how a language is written, as HTML says it: ``ltr`` or ``rtl``."""
    return "rtl" if language.partition("-")[0] in _FROM_RIGHT else "ltr"


def names() -> dict[str, str]:
    """Return what each language calls itself, by its BCP 47 name, English first."""
    app = current_app._get_current_object()  # type: ignore[attr-defined] # noqa: SLF001 - as documented
    with _lock:
        if _NAMES not in app.extensions:
            app.extensions[_NAMES] = _load(app)
    found: dict[str, str] = app.extensions[_NAMES]
    return found


def _load(app: Flask) -> dict[str, str]:
    from flask_babel import Babel, force_locale, gettext

    babel = Babel(app, locale_selector=lambda: g.get("language", "en").replace("-", "_"))
    found = {}
    for locale in sorted(
        map(str, babel.list_translations()), key=lambda name: (name != "en", name)
    ):
        with force_locale(locale):
            # Translators: what your language calls itself, such as "Deutsch".
            found[locale.replace("_", "-")] = gettext("English")
    return found
