"""Details of providers: seeded, exported, looked up, and told in Autoconfig."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from lxml import etree
from sqlalchemy.orm import Session

from automx import ldap
from automx.clientconfig import (
    ClientConfig,
    Documentation,
    Logo,
    OAuth2,
    ProviderDetails,
    ServerType,
)
from automx.errors import SeedError
from automx.formats import autodiscover
from automx.lookup import find, logo
from automx.migrations import upgrade
from automx.models import create_engine
from automx.seed import export, populate, purge
from tests.conftest import Execute
from tests.databases import engine_uri
from tests.documents import DATA, golden

LOGO = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'
DOCUMENT: dict[str, Any] = {
    "version": 2,
    "provider": "Example Inc.",
    "details": {
        "webmail_url": "https://mail.example.com/",
        "help_url": "https://help.example.com/",
        "support_address": "help@example.com",
        "color": "#1a5fb4",
        "logo": {
            "type": "image/svg+xml",
            "width": 8,
            "height": 8,
            "data": base64.b64encode(LOGO).decode(),
        },
        "oauth2": {
            "issuer": "https://login.example.com",
            "auth_url": "https://login.example.com/authorize",
            "token_url": "https://login.example.com/token",
            "scope": "mail offline_access",
            "client_id": "mail-clients",
        },
        "documentation": [
            {"url": "https://help.example.com/mail", "lang": "en", "text": "Set up <your> mail"},
            {"url": "https://help.example.com/mail", "lang": "de", "text": "E-Mail einrichten"},
            {"url": "https://help.example.com/ios", "lang": "en", "text": "iPhone"},
        ],
    },
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 993},
        {"type": "smtp", "name": "smtp.example.com", "port": 465},
        {"type": "managesieve", "name": "imap.example.com", "port": 4190},
        {"type": "jmap", "url": "https://jmap.example.com/session"},
        {"type": "activesync", "url": "https://sync.example.com/Microsoft-Server-ActiveSync"},
    ],
    "domains": [{"name": "example.com"}],
}
DETAILS = ProviderDetails(
    webmail_url="https://mail.example.com/",
    help_url="https://help.example.com/",
    support_address="help@example.com",
    color="#1a5fb4",
    logo=Logo("image/svg+xml", 8, 8),
    oauth2=OAuth2(
        "https://login.example.com",
        "https://login.example.com/authorize",
        "https://login.example.com/token",
        "mail offline_access",
        "mail-clients",
    ),
    documentation=(
        Documentation("https://help.example.com/mail", "en", "Set up <your> mail"),
        Documentation("https://help.example.com/mail", "de", "E-Mail einrichten"),
        Documentation("https://help.example.com/ios", "en", "iPhone"),
    ),
)


@pytest.fixture
def session(any_database_uri: str) -> Iterator[Session]:
    """A session with an empty database of each engine."""
    db_uri = engine_uri(any_database_uri)
    upgrade(db_uri)
    engine = create_engine(db_uri)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def config_of(session: Session, domain: str = "example.com") -> ClientConfig:
    return find(session, domain, ldap.Options()).config


def test_details_are_seeded_and_found(session: Session) -> None:
    populate(session, DOCUMENT)
    assert config_of(session).details == DETAILS
    assert logo(session, "example.com") == ("image/svg+xml", LOGO)


def test_an_export_seeds_equal_details(session: Session) -> None:
    populate(session, DOCUMENT)
    exported = json.loads("".join(export(session)))
    assert exported == DOCUMENT
    purge(session)
    populate(session, exported)
    assert config_of(session).details == DETAILS
    assert json.loads("".join(export(session))) == DOCUMENT


def test_each_of_several_providers_has_its_own_details(session: Session) -> None:
    document = {
        "version": 2,
        "providers": [
            {"id": 7, "name": "One", "details": {"color": "#000000"}},
            {"id": 8, "name": "Two"},
            {"id": 9, "name": "Three", "details": {"help_url": "https://three.example/"}},
        ],
        "servers": [{"type": "imap", "name": "imap.example.com", "port": 993}],
        "domains": [
            {"name": "one.example", "provider": 7},
            {"name": "two.example", "provider": 8},
            {"name": "three.example", "provider": 9},
        ],
    }
    populate(session, document)
    assert config_of(session, "one.example").details == ProviderDetails(color="#000000")
    assert config_of(session, "two.example").details == ProviderDetails()
    assert config_of(session, "three.example").details == ProviderDetails(
        help_url="https://three.example/"
    )
    exported = json.loads("".join(export(session)))
    assert exported["providers"] == document["providers"]
    assert logo(session, "one.example") is None


def test_a_purge_leaves_no_details_behind(session: Session) -> None:
    populate(session, DOCUMENT)
    purge(session)
    populate(session, DOCUMENT | {"details": {}})
    assert config_of(session).details == ProviderDetails()


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (
            {"webmail": "https://x"},
            'details: the key "webmail" is not known here; did you mean webmail_url?',
        ),
        (
            {"help_url": "javascript:alert(1)"},
            ('details.help_url: expected a URL of at most 255 characters such as '
            '"https://www.example.com/", found "javascript:alert(1)"'),
        ),
        (
            {"support_address": "help"},
            ('details.support_address: expected a mail address such as "help@example.com", '
            'found "help"'),
        ),
        ({"color": "red"}, 'details.color: expected a color such as "#1a5fb4", found "red"'),
        (
            {"logo": {"type": "image/png", "data": "!", "width": 1, "height": 1}},
            "details.logo.data: expected an image in Base64, of at most 32768 bytes, found \"!\"",
        ),
        (
            {"oauth2": {"auth_url": "https://login.example.com/"}},
            ("details.oauth2: the key issuer is missing; expected a text of 1 to 255 characters "
            "without control characters or blanks at its ends"),
        ),
        (
            {"documentation": [{"url": "https://x.example/", "lang": "english!", "text": "x"}]},
            ('details.documentation[0].lang: expected a language such as "en" or "pt-BR", '
            'found "english!"'),
        ),
    ],
)  # fmt: skip
def test_bad_details_are_refused(details: dict[str, Any], text: str, database: Path) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as opened, pytest.raises(SeedError) as caught:
        populate(opened, DOCUMENT | {"details": details})
    engine.dispose()
    assert str(caught.value) == text


@pytest.mark.usefixtures("example")
def test_a_detail_that_nobody_could_use_is_left_out_and_named_in_the_log(
    execute: Execute, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execute(
        "INSERT INTO provider_detail (provider_id, webmail_url, help_url, color, support_address)"
        " VALUES (1, 'mail.example.com', 'https://help.example.com/', 'red', 'help');"
        "INSERT INTO documentation VALUES (1, 1, 'https://help.example.com/', '??', 'Help');"
        "INSERT INTO documentation VALUES (2, 1, 'https://help.example.com/', 'en', 'Help');"
    )
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as opened:
        details = config_of(opened).details
    engine.dispose()
    assert details == ProviderDetails(
        help_url="https://help.example.com/",
        documentation=(Documentation("https://help.example.com/", "en", "Help"),),
    )
    assert [record.getMessage() for record in caplog.records] == [
        (
            "table provider_detail, id 1: webmail_url is 'mail.example.com', it must be an http or"
            " https URL"
        ),
        "table provider_detail, id 1: support_address is 'help', it must be a mail address",
        "table provider_detail, id 1: color is 'red', it must be a color such as #1a5fb4",
        (
            "table documentation, id 1: lang is '??', it must be a language such as en or pt-BR;"
            " this row is left out"
        ),
    ]


def test_autoconfig_tells_documentation_webmail_oauth2_and_jmap(
    database: Path, client: FlaskClient
) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as opened:
        populate(opened, DOCUMENT)
        opened.commit()
    engine.dispose()
    answer = client.get("/mail/config-v1.1.xml?emailaddress=alice@example.com")
    assert answer.text == golden("details.autoconfig.xml")
    schema = etree.RelaxNG(etree.parse(str(DATA / "autoconfig.rng")))
    schema.assertValid(etree.fromstring(answer.data))


def test_autodiscover_and_show_pass_over_what_they_cannot_tell(session: Session) -> None:
    populate(session, DOCUMENT)
    config = config_of(session)
    assert [server.type for server in config.sieve] == [ServerType.MANAGESIEVE]
    document = etree.fromstring(autodiscover.render(config))
    types = document.findall(f".//{{{autodiscover.OUTLOOK_NS}}}Type")
    assert [element.text for element in types] == ["IMAP", "SMTP"]


def test_a_domain_with_a_sieve_server_alone_cannot_be_served(
    client: FlaskClient, execute: Execute
) -> None:
    execute(
        "INSERT INTO provider VALUES (1, 'Example Inc.', 'Example');"
        "INSERT INTO domain VALUES (1, 'example.com', 1, NULL);"
        "INSERT INTO server VALUES"
        " (1, 10, 'imap.example.com', 4190, 'sieve', 'STARTTLS', '%EMAILADDRESS%', 'plain');"
        "INSERT INTO server_domain VALUES (1, 1);"
    )
    answer = client.get("/mail/config-v1.1.xml?emailaddress=alice@example.com")
    assert answer.status_code == 500
