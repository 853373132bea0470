"""Details of providers: seeded, exported, looked up, and told in Autoconfig."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from lxml import etree

from automx import schema
from automx.address import EmailAddress
from automx.clientconfig import (
    ClientConfig,
    Documentation,
    Logo,
    OAuth2,
    ProviderDetails,
    ServerType,
    SocketType,
)
from automx.database import Session, create_engine, open_session
from automx.errors import SeedError, UnknownDomainError
from automx.export import export
from automx.formats import autoconfig, autodiscover, dclogin, mobileconfig, pacc
from automx.lookup import find, logo
from automx.seed import populate, purge
from tests.commandline import automx
from tests.conftest import Execute
from tests.databases import engine_uri
from tests.documents import DATA, golden
from tests.examples import DOCUMENT, LOGO

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
def session(any_migrated_uri: str) -> Iterator[Session]:
    """A session with an empty database of each engine."""
    db_uri = engine_uri(any_migrated_uri)
    engine = create_engine(db_uri)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def config_of(session: Session, domain: str = "example.com") -> ClientConfig:
    return find(session, domain).config


def test_details_are_seeded_and_found(session: Session) -> None:
    populate(session, DOCUMENT)
    assert config_of(session).details == DETAILS
    assert logo(session, "example.com") == ("image/svg+xml", LOGO)


def test_an_export_seeds_equal_details(session: Session) -> None:
    populate(session, DOCUMENT)
    exported = json.loads("".join(export(session)))
    assert exported == {"$schema": schema.ADDRESS, **DOCUMENT}
    purge(session)
    populate(session, exported)
    assert config_of(session).details == DETAILS
    document = json.loads("".join(export(session)))
    assert document == {"$schema": schema.ADDRESS, **DOCUMENT}


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
    with pytest.raises(UnknownDomainError, match="There is no logo here"):
        logo(session, "one.example")


def test_a_purge_leaves_no_details_behind(session: Session) -> None:
    populate(session, DOCUMENT)
    purge(session)
    populate(session, DOCUMENT | {"details": {}})
    assert config_of(session).details == ProviderDetails()


def test_a_new_provider_does_not_inherit_what_a_careless_deletion_has_left(
    database: Path, execute: Execute
) -> None:
    execute("INSERT INTO provider_detail (provider_id, color) VALUES (1, '#000000')")
    execute("INSERT INTO documentation VALUES (1, 1, 'https://old.example/', 'en', 'Old')")
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as opened:
        populate(opened, DOCUMENT)
        assert config_of(opened).details == DETAILS
        purge(opened)
        opened.commit()
        execute("INSERT INTO provider_detail (provider_id, color) VALUES (1, '#000000')")
        populate(opened, {key: value for key, value in DOCUMENT.items() if key != "details"})
        assert config_of(opened).details == ProviderDetails()
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        (
            "logo_type = 'image/tiff'",
            (
                "logo_type: expected one of image/png, image/svg+xml, image/jpeg, image/webp,"
                ' found "image/tiff"'
            ),
        ),
        ("logo_width = 0", "logo_width: expected a whole number from 1 to 10000, found 0"),
        ("logo_height = NULL", "logo_height: it is missing, and a logo needs it"),
        ("logo = NULL", None),
    ],
)
def test_a_logo_that_nobody_could_show_is_left_out_and_named_in_the_log(
    database: Path,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
    change: str,
    defect: str | None,
) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as opened:
        populate(opened, DOCUMENT)
        opened.commit()
        execute(f"UPDATE provider_detail SET {change}")
        assert config_of(opened).details == replace(DETAILS, logo=None)
    engine.dispose()
    found = [record.getMessage() for record in caplog.records]
    assert found == ([f"table provider_detail, id 1: {defect}"] if defect else [])


def test_a_logo_is_answered_exactly_if_the_settings_name_it(
    database: Path, execute: Execute, client: FlaskClient
) -> None:
    with open_session(f"sqlite:///{database}") as opened:
        populate(opened, DOCUMENT)
    execute("UPDATE provider_detail SET logo_type = 'IMAGE/SVG+XML'")
    assert client.get("/logo?domain=example.com").content_type == "image/svg+xml"
    execute("UPDATE provider_detail SET logo_width = NULL")
    assert client.get("/logo?domain=example.com").status_code == 404


def test_a_logo_type_may_be_written_in_capitals(session: Session) -> None:
    details = DOCUMENT["details"]
    logo_of = details["logo"] | {"type": "IMAGE/SVG+XML"}
    populate(session, DOCUMENT | {"details": details | {"logo": logo_of}})
    assert config_of(session).details == DETAILS


@pytest.mark.parametrize("missing", ["auth_url", "token_url", "scope"])
def test_autoconfig_has_no_oauth2_that_a_client_could_not_use(
    session: Session, missing: str
) -> None:
    details = DOCUMENT["details"]
    oauth2 = {key: value for key, value in details["oauth2"].items() if key != missing}
    populate(session, DOCUMENT | {"details": details | {"oauth2": oauth2}})
    assert b"oAuth2" not in autoconfig.render(config_of(session))


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
        ({"color": "red"}, 'details.color: expected a colour such as "#1a5fb4", found "red"'),
        (
            {"logo": {"type": "image/png", "data": "!", "width": 1, "height": 1}},
            "details.logo.data: expected an image in Base64, of at most 65535 bytes, found \"!\"",
        ),
        (
            {"oauth2": {"auth_url": "https://login.example.com/"}},
            "details.oauth2: the key issuer is missing; expected a text of 1 to 255 characters",
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


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://mail.example.com/%EMAILADDRESS%", "expected no placeholder but %EMAILDOMAIN%"),
        ("https://%emaillocalpart%.example.com/", "expected no placeholder but %EMAILDOMAIN%"),
        ("https://mail.example.com/?name=%REALNAME%", "expected no placeholder but %EMAILDOMAIN%"),
        ("https://mail.%d/", "did you mean %EMAILDOMAIN%?"),
        ("https://mail.%DOMAIN%/", "did you mean %EMAILDOMAIN%?"),
    ],
)
@pytest.mark.parametrize("key", ["webmail_url", "help_url", "documentation"])
def test_a_url_with_what_no_page_can_fill_in_is_refused(
    key: str, url: str, complaint: str, database: Path
) -> None:
    details = {key: [{"url": url}] if key == "documentation" else url}
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as opened, pytest.raises(SeedError, match=re.escape(complaint)):
        populate(opened, DOCUMENT | {"details": details})
    engine.dispose()


def test_the_domain_is_filled_in_in_all_urls(session: Session) -> None:
    details = DOCUMENT["details"] | {
        "webmail_url": "https://mail.%EMAILDOMAIN%/?d=%emaildomain%&x=%20",
        "help_url": "https://help.example.com/%EmailDomain%",
        "oauth2": {
            "issuer": "https://login.%EMAILDOMAIN%",
            "auth_url": "https://login.%EMAILDOMAIN%/authorize",
            "token_url": "https://login.%EMAILDOMAIN%/token",
            "scope": "mail",
        },
        "documentation": [{"url": "https://%EMAILDOMAIN%/mail"}, {"url": "https://d.example/"}],
    }
    domains = [{"name": "*.wild.example"}]
    populate(session, DOCUMENT | {"details": details, "domains": domains})
    config = config_of(session, "a.wild.example")
    found = config.details
    assert found.webmail_url == "https://mail.a.wild.example/?d=a.wild.example&x=%20"
    assert found.help_url == "https://help.example.com/a.wild.example"
    assert [page.url for page in found.documentation] == [
        "https://a.wild.example/mail",
        "https://d.example/",
    ]
    for document in (autoconfig.render(config), pacc.render(config)):
        assert b"EMAILDOMAIN" not in document.upper()
        assert b"https://login.a.wild.example" in document
    exported = "".join(export(session))
    assert '"https://mail.%EMAILDOMAIN%/?d=%EMAILDOMAIN%&x=%20"' in exported


def test_a_page_may_have_neither_language_nor_title(session: Session) -> None:
    pages: list[dict[str, str | None]] = [
        {"url": "https://a.example/"},
        {"url": "https://b.example/", "lang": None, "text": None},
        {"url": "https://c.example/", "lang": "", "text": " "},
    ]
    populate(session, DOCUMENT | {"details": {"documentation": pages}})
    expected = tuple(Documentation(str(page["url"]), "", "") for page in pages)
    assert config_of(session).details.documentation == expected
    seed = json.loads("".join(export(session, with_secrets=True, warn=lambda _: None)))
    purge(session)
    populate(session, seed)
    assert config_of(session).details.documentation == expected


@pytest.mark.usefixtures("example")
def test_a_detail_that_nobody_could_use_is_left_out_and_named_in_the_log(
    execute: Execute, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execute(
        "INSERT INTO provider_detail (provider_id, webmail_url, help_url, color, support_address)"
        " VALUES (1, 'mail.example.com', 'https://help.example.com/', 'red', 'help');"
        "INSERT INTO documentation VALUES (1, 1, 'https://help.example.com/', '??', 'Help');"
        "INSERT INTO documentation VALUES (2, 1, 'https://help.example.com/', 'en', 'Help');"
        "INSERT INTO documentation VALUES (3, 1, 'help', 'en', 'Help');"
        "INSERT INTO documentation VALUES (4, 1, ' ', 'en', 'Help');"
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
            "table provider_detail, id 1: webmail_url: expected a URL of at most 255 characters"
            ' such as "https://www.example.com/", found "mail.example.com"'
        ),
        (
            "table provider_detail, id 1: support_address: expected a mail address such as"
            ' "help@example.com", found "help"'
        ),
        ('table provider_detail, id 1: color: expected a colour such as "#1a5fb4", found "red"'),
        (
            'table documentation, id 1: lang: expected a language such as "en" or "pt-BR",'
            ' found "??"; this row is left out'
        ),
        (
            "table documentation, id 3: url: expected a URL of at most 255 characters such as"
            ' "https://www.example.com/", found "help"; this row is left out'
        ),
        (
            "table documentation, id 4: url: expected a URL of at most 255 characters such as"
            ' "https://www.example.com/", found " "; this row is left out'
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


NEWER_TYPES = ["managesieve", "jmap", "activesync"]


@pytest.mark.parametrize("type_", [*NEWER_TYPES, "webdav"])
def test_a_format_is_the_same_without_the_servers_it_does_not_know(
    session: Session, type_: str
) -> None:
    populate(session, DOCUMENT | {"details": {}})
    config = config_of(session)
    without = replace(
        config,
        mail_servers=tuple(s for s in config.mail_servers if s.type != type_),
        services=tuple(s for s in config.services if s.type != type_),
    )
    alice = EmailAddress("alice", "example.com")
    told: dict[str, Callable[[ClientConfig], bytes | str]] = {
        "autoconfig": autoconfig.render,
        "autodiscover": lambda config: autodiscover.render(config, alice),
        "mobileconfig": lambda config: mobileconfig.render(config, alice),
        "pacc": pacc.render,
        "dclogin": lambda config: dclogin.login_text(alice, "secret", config),
    }
    differ = {name for name, render in told.items() if render(config) != render(without)}
    expected = {"jmap": {"autoconfig", "pacc"}, "webdav": set()}
    assert differ == expected.get(type_, {"autoconfig"})


def test_show_tells_all_servers(database: Path, tmp_path: Path) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    document = tmp_path / "seed.json"
    document.write_text(json.dumps(DOCUMENT))
    automx("seed", document, env=env)
    assert automx("show", "alice@example.com", env=env) == (
        "alice@example.com, Example Inc.\n"
        "IMAP         imap.example.com  port 993   SSL       login alice@example.com"
        "  password-cleartext\n"
        "SMTP         smtp.example.com  port 465   SSL       login alice@example.com"
        "  password-cleartext\n"
        "MANAGESIEVE  imap.example.com  port 4190  STARTTLS  login alice@example.com"
        "  password-cleartext\n"
        "JMAP  https://jmap.example.com/session  login alice@example.com\n"
        "ACTIVESYNC  https://sync.example.com/Microsoft-Server-ActiveSync"
        "  login alice@example.com\n"
    )
    for format_ in ("autodiscover", "mobileconfig"):
        shown = automx("show", "alice@example.com", "--format", format_, env=env)
        assert "imap.example.com" in shown
        assert "4190" not in shown
        assert "sync.example.com" not in shown


def test_a_sieve_server_is_seeded_with_its_port_and_starttls(session: Session) -> None:
    servers = [
        {"type": "imap", "name": "imap.example.com"},
        {"type": "managesieve", "name": "sieve.example.com"},
    ]
    populate(
        session,
        {"version": 2, "provider": "X", "servers": servers, "domains": [{"name": "x.example"}]},
    )
    (sieve,) = config_of(session, "x.example").sieve
    assert (sieve.type, sieve.port, sieve.socket_type) == (
        ServerType.MANAGESIEVE,
        4190,
        SocketType.STARTTLS,
    )


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
