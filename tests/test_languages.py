"""The page of a token and the reasons that people read, in the languages of the catalogues."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from gettext import GNUTranslations
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from flask import Flask
from flask.testing import FlaskClient

from automx import errors
from automx.formats.dclogin import SCAN_STEPS
from tests.conftest import Execute
from tests.processes import REPOSITORY
from tests.tokenpages import ENDPOINT, FAILURES, SECRET, SPENT, AddToken

CATALOGUES = REPOSITORY / "automx" / "translations"
LANGUAGES = ["de", "es", "fr", "it"]


def gettext(language: str) -> GNUTranslations:
    """Return the compiled catalogue of a language."""
    with (CATALOGUES / language / "LC_MESSAGES" / "messages.mo").open("rb") as file:
        return GNUTranslations(file)


# Catalogues


def catalogue(path: Path, locale: str | None = None) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=locale)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> set[Any]:
    """All texts that the code and the templates mark; a pair is for one and for several."""
    template = tmp_path_factory.mktemp("texts") / "messages.pot"
    command: list[str | Path] = [Path(sys.executable).with_name("pybabel"), "-q", "extract"]
    command += ["--no-location", "--mapping", "pyproject.toml", "--output", template, "."]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return {message.id for message in catalogue(template) if message.id}


def test_the_template_of_the_catalogues_holds_all_texts(texts: set[Any]) -> None:
    """If this fails, run ``make translations``, translate what is new, and run it again."""
    assert {m.id for m in catalogue(CATALOGUES / "messages.pot") if m.id} == texts


def test_these_are_the_languages() -> None:
    assert sorted(path.name for path in CATALOGUES.iterdir() if path.is_dir()) == LANGUAGES


def forms(message: object) -> list[str]:
    """Return the text of a message, or its texts for one and for several."""
    return [message] if isinstance(message, str) else list(message)  # type: ignore[call-overload] # tuples


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_is_complete_and_compiled(texts: set[Any], language: str) -> None:
    """If this fails, translate what is new, and run ``make translations``."""
    folder = CATALOGUES / language / "LC_MESSAGES"
    messages = [m for m in catalogue(folder / "messages.po", language) if m.id]
    assert {m.id for m in messages} == texts
    assert [m.id for m in messages if m.fuzzy] == []
    for message in messages:
        translated = forms(message.string)
        assert all(text.strip() for text in translated), message.id
        assert not isinstance(message.id, tuple) or len(translated) >= 2
        names = {tuple(sorted(re.findall(r"%\(\w+\)s", text))) for text in forms(message.id)}
        assert {tuple(sorted(re.findall(r"%\(\w+\)s", text))) for text in translated} == names
        if len(forms(message.id)[0].split()) > 3:  # a sentence is never the same
            assert translated != forms(message.id)
    with (folder / "messages.mo").open("rb") as file:
        compiled = {tuple(forms(m.id)): forms(m.string) for m in read_mo(file) if m.id}
    assert compiled == {tuple(forms(m.id)): forms(m.string) for m in messages}


def error_classes(of: type[errors.AutomxError]) -> Iterator[type[errors.AutomxError]]:
    for one in of.__subclasses__():
        yield one
        yield from error_classes(one)


def test_the_texts_of_errors_that_people_meet_are_marked(texts: set[Any]) -> None:
    """Statuses that have one reason for all errors are not among them, nor are those of the API.

    Commands and the API tell of zones, sources and waiting changes; people meet none of them.
    """
    met = {403, 409, 429, 503, 504}
    found = {
        one.public
        for one in error_classes(errors.AutomxError)
        if one.status in met
        and not issubclass(one, errors.ZoneError | errors.TurnError)
        and not one.__module__.startswith(("automx.api.", "automx.sources."))
    }
    assert found
    assert found <= texts
    assert set(SCAN_STEPS) <= texts


# The page of a token, and reasons


Make = Callable[..., Flask]

pytestmark = pytest.mark.usefixtures("example")


def reason(client: FlaskClient, language: str, path: str = f"/?t={SECRET}", **how: Any) -> str:
    """Return the reason that the app is told."""
    headers = {"Accept-Language": language} if language else {}
    answer = client.open(path, method=how.pop("method", "POST"), headers=headers, **how)
    assert answer.status_code >= 400
    return str(json.loads(answer.text)["reason"])


def lead(client: FlaskClient, language: str, path: str = f"/?t={SECRET}") -> str:
    """Return the reason on the page."""
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.headers["Content-Language"] == language
    assert f'<html lang="{language}" dir="ltr">' in answer.text
    found = re.search(r'<p class="lead">(.*)</p>', answer.text)
    assert found
    return found[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_of_a_token_is_in_the_language_of_the_visitor(
    make_app: Make, add_token: AddToken, language: str
) -> None:
    add_token(expiry="2w")
    settings = {"web_endpoint": ENDPOINT, "permit_cleartext_passwords": True}
    client = make_app(**settings).test_client()
    headers = {"Accept-Language": f"{language}-XX, en;q=0.5"}
    answer = client.get(f"/?t={SECRET}", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Language"] == language
    assert f'<html lang="{language}" dir="ltr">' in answer.text
    translate = gettext(language).gettext
    time = gettext(language).ngettext("%(number)s week", "%(number)s weeks", 2) % {"number": 2}
    lasts = "The mailbox lasts %(time)s. After that it is deleted, with all that is in it."
    for text in (
        "Your new mailbox is one scan away",
        *SCAN_STEPS,
        "Open in Delta Chat",
        "Without Delta Chat",
        "Make an account on this iPhone, iPad or Mac",
        "It is made when you scan the code or tap the button, not by looking at this page.",
        "Good to know",
    ):
        assert str(escape(translate(text), quote=False)) in answer.text.replace("&#39;", "'")
        assert text not in answer.text
    assert translate(lasts) % {"time": time} in answer.text
    assert "<strong>example.com</strong>" in answer.text


@pytest.mark.parametrize("secret", [SECRET, "unknown"])
def test_the_page_of_a_token_links_to_itself_in_other_languages(
    make_app: Make, add_token: AddToken, secret: str
) -> None:
    add_token()
    client = make_app(web_endpoint=ENDPOINT).test_client()
    page = client.get(f"/new_email?t={secret}&n=summer%20camp").text
    links = re.findall(r'<a href="(\?[^"]*)" hreflang="(\w+)"', page)
    assert [language for _, language in links] == ["en", *LANGUAGES]
    for link, language in links:
        answer = client.get(f"/new_email{unescape(link)}", headers={"Accept-Language": "it"})
        assert answer.headers["Content-Language"] == language
        assert re.findall(r'<a href="(\?[^"]*)" hreflang="(\w+)"', answer.text) == links
        assert f"t={secret}&n=summer+camp&lang=" in unescape(answer.text)


def test_a_long_argument_is_not_repeated_for_each_language(make_app: Make) -> None:
    client = make_app().test_client()
    short, long = (client.get(f"/?t={'x' * length}") for length in (1, 5_000))
    assert len(long.data) <= len(short.data)


def test_a_chosen_language_is_that_of_the_form_for_a_profile(
    make_app: Make, add_token: AddToken
) -> None:
    add_token()
    answer = make_app().test_client().post(f"/?t={SECRET}&lang=de", data={"profile": "1"})
    assert answer.headers["Content-Language"] == "de"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SPENT)
def test_a_token_that_makes_no_more_accounts_says_why(
    make_app: Make, add_token: AddToken, execute: Execute, language: str, name: str
) -> None:
    add_token()
    spend, english = SPENT[name]
    spend(execute)
    client = make_app(web_endpoint=ENDPOINT).test_client()
    translated = gettext(language).gettext(english)
    assert translated != english
    assert reason(client, language) == translated
    assert lead(client, language) == escape(translated, quote=False)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_the_mail_server_has_its_reason(
    make_app: Make, add_token: AddToken, tmp_path: Path, name: str
) -> None:
    add_token()
    script, _, english = FAILURES[name]
    file = tmp_path / "backend"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    command = {"account_backend": "command", "account_command": (str(file),)}
    client = make_app(**command, account_timeout=1).test_client()
    if name == "not there":
        reason(client, "fr")
    assert reason(client, "fr") == gettext("fr").gettext(english) != english


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("/", {}),
        ("/?t=unknown", {}),
        ("/?t=a&t=b", {}),
        ("/newemail?t=a", {}),
        ("/new_email?t=a", {"method": "PUT"}),
        (f"/?t={SECRET}", {"data": b"x" * 70_000}),
    ],
)
def test_every_other_failure_has_its_reason(
    make_app: Make, add_token: AddToken, path: str, how: dict[str, Any]
) -> None:
    add_token()
    client = make_app().test_client()
    english = reason(client, "", path, **how)
    assert reason(client, "it", path, **how) == gettext("it").gettext(english) != english


def test_the_form_for_a_profile_is_answered_in_the_language_of_the_visitor(
    make_app: Make, add_token: AddToken
) -> None:
    add_token()
    headers = {"Accept-Language": "it"}
    answer = make_app().test_client().post(f"/?t={SECRET}", headers=headers, data={"profile": "1"})
    assert answer.status_code == 403
    no_profile = (
        "This server gives out no profiles for these mailboxes. Please scan the QR code with the"
        " app Delta Chat."
    )
    assert f'<p class="lead">{gettext("it").gettext(no_profile)}</p>' in answer.text


def test_an_outage_and_a_limit_have_their_reasons(
    make_app: Make, add_token: AddToken, database: Path
) -> None:
    add_token()
    client = make_app(account_rate_limit="1 per day").test_client()
    client.post(f"/?t={SECRET}")
    english = reason(client, "")
    assert english.startswith("Too many accounts")
    assert reason(client, "es") == gettext("es").gettext(english) != english
    database.unlink()
    client = make_app().test_client()
    english = reason(client, "")
    assert english.startswith("The service is not available")
    assert reason(client, "de") == gettext("de").gettext(english) != english


@pytest.mark.parametrize("language", ["", "en", "pl", "*", "en-US,fr;q=0.5"])
def test_other_clients_are_answered_in_english(make_app: Make, language: str) -> None:
    """The clients of mailadm send no Accept-Language."""
    client = make_app().test_client()
    unknown = "This QR code is not known here. Please ask for a new one."
    assert reason(client, language, "/?t=x") == unknown
