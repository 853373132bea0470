"""Cards to print, as the commands make them: with the logo and the colour of the provider."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from automx.database import Session, create_engine
from automx.formats import palette
from automx.seed import populate
from tests.barcodes import decoded, drawn
from tests.commandline import automx
from tests.conftest import Execute
from tests.documents import golden

# What makes a card, and what it reads from standard input.
COMMANDS = {
    "token": (["token", "qr", "summer", "--output"], None),
    "short code": (["token", "qr", "summer", "--short", "--output"], None),
    "account": (["account", "add", "--token=summer", "--qr"], None),
    "login": (["dclogin", "alice@example.com", "--password-stdin", "--qr"], "secret"),
    "profile": (["mobileconfig-qr", "alice@example.com", "--qr"], None),
}
SEED = json.loads(golden("page.seed.json"))
LOGO = base64.b64decode(SEED["providers"][0]["details"]["logo"]["data"])

commands = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """Settings for a database with a provider that has a logo, and with a token of its domain."""
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session:
        populate(session, SEED)
        session.commit()
    engine.dispose()
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_WEB_ENDPOINT": "https://mail.example.com/new_email",
    }
    automx("token", "add", "summer", "--domain=example.com", env=env)
    return env


def card(name: str, env: dict[str, str], file: Path, *options: str) -> Any:
    """Make a card, and return it as an element of lxml."""
    arguments, stdin = COMMANDS[name]
    automx(*arguments, file, "--card", *options, env=env, stdin=stdin)
    return etree.fromstring(file.read_bytes())


@commands
def test_each_card_has_the_logo_and_the_color_of_the_provider(
    env: dict[str, str], tmp_path: Path, name: str
) -> None:
    file = tmp_path / "card.svg"
    root = card(name, env, file)
    [image] = root.iter("{*}image")
    kind, _, data = image.get("{http://www.w3.org/1999/xlink}href").partition(",")
    assert (kind, base64.b64decode(data)) == ("data:image/svg+xml;base64", LOGO)
    assert {disc.get("fill") for disc in root.iter("{*}circle")} == {palette.on_paper("#1a5fb4")}
    assert len(decoded(drawn(file))) == 1


@commands
def test_a_card_without_a_logo_has_the_name_of_the_provider(
    env: dict[str, str], execute: Execute, tmp_path: Path, name: str
) -> None:
    # SQLite lets a text into the column.
    for change in ("logo = 'no bytes'", "logo = NULL"):
        execute(f"UPDATE provider_detail SET {change}")
        root = card(name, env, tmp_path / "card.svg")
        assert [*root.iter("{*}image")] == []
        assert next(root.iter("{*}text")).text == "Example & Sons"


def test_a_card_has_the_language_that_is_asked_for(env: dict[str, str], tmp_path: Path) -> None:
    steps = {
        "en": "Hold the camera",
        "de": "Halten Sie die Kamera",
        "es": "Ponga la cámara",
        "fr": "photo devant ce code",
        "it": "Inquadra questo codice",
    }
    for language, step in steps.items():
        root = card("token", env, tmp_path / "card.svg", "--language", language)
        assert step in " ".join(line.text for line in root.iter("{*}text"))
