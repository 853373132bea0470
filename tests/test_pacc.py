"""PACC: by host name, the same bytes everywhere, and a digest for the zone."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.clientconfig import (
    Authentication,
    ClientConfig,
    Logo,
    OAuth2,
    ProviderDetails,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.database import Session, create_engine
from automx.errors import BadRecordError
from automx.formats import pacc
from automx.seed import populate
from tests.commandline import automx
from tests.conftest import Execute
from tests.databases import engine_uri
from tests.documents import golden
from tests.examples import DOCUMENT, IMAP, SMTP, config
from tests.processes import serving

URL = pacc.PATH
HOST = {"Host": "ua-auto-config.example.com"}


def protocols(settings: ClientConfig) -> object:
    return json.loads(pacc.render(settings))["protocols"]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_ip_address_is_not_published(host: str) -> None:
    assert protocols(config(replace(IMAP, hostname=host), SMTP)) == {
        "smtp": {"host": "smtp.example.com"},
        "submit": {"host": "smtp.example.com"},
    }


def test_a_server_with_neither_password_nor_oauth2_gives_way_to_one_with_a_password() -> None:
    kerberos = replace(IMAP, hostname="krb.example.com", authentication=(Authentication.GSSAPI,))
    assert pacc.render(config(kerberos, IMAP, SMTP)) == pacc.render(config(IMAP, SMTP))


@pytest.fixture
def details(database: Path) -> None:
    """Seed the document with all details into the test's database."""
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session:
        populate(session, DOCUMENT)
        session.commit()
    engine.dispose()


@pytest.mark.usefixtures("details")
def test_the_document_is_compact_sorted_and_complete(client: FlaskClient) -> None:
    answer = client.get(URL, headers=HOST)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text == golden("details.pacc.json")


@pytest.mark.usefixtures("details")
def test_the_bare_domain_as_host_and_any_case_are_understood(client: FlaskClient) -> None:
    for host in ("example.com", "UA-Auto-Config.EXAMPLE.com", "ua-auto-config.example.com:8443"):
        assert client.get(URL, headers={"Host": host}).text == golden("details.pacc.json")


def test_an_unknown_domain_is_404(client: FlaskClient) -> None:
    assert client.get(URL, headers=HOST).status_code == 404


def test_only_the_ports_that_the_format_means_are_told() -> None:
    others = (
        replace(IMAP, port=1993),
        replace(IMAP, port=143, socket_type=SocketType.STARTTLS),
        replace(SMTP, port=587, socket_type=SocketType.STARTTLS),
        replace(IMAP, type=ServerType.POP3, port=110, socket_type=SocketType.PLAIN),
        replace(IMAP, type=ServerType.MANAGESIEVE, port=4190),
        replace(IMAP, hostname="%EMAILLOCALPART%.example.com"),
    )
    for server in others:
        with pytest.raises(pacc.NothingToPublishError):
            pacc.render(config(server))
    assert protocols(config(*others, IMAP, replace(IMAP, hostname="second.example.com"))) == {
        "imap": {"host": "imap.example.com"}
    }


def test_submission_has_the_names_of_both_drafts() -> None:
    host = {"host": "smtp.example.com"}
    assert protocols(config(SMTP)) == {"smtp": host, "submit": host}


def test_urls_that_are_somebodys_or_not_encrypted_are_not_told() -> None:
    dav = (
        Service(ServiceType.CALDAV, "https://dav.example.com/%EMAILADDRESS%/", "", False),
        Service(ServiceType.CARDDAV, "http://dav.example.com/", "", False),
        Service(ServiceType.WEBDAV, "https://%EMAILDOMAIN%/files", "", False),
        Service(ServiceType.ACTIVESYNC, "https://sync.example.com/", "", False),
    )
    settings = replace(config(IMAP), services=dav)
    assert protocols(settings) == {
        "imap": {"host": "imap.example.com"},
        "webdav": {"url": "https://example.com/files"},
    }


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://dav.example.com/c/", "https://dav.example.com/c/"),
        ("https://dav.example.com:443/c/", "https://dav.example.com/c/"),
        ("https://DAV.example.com", "https://dav.example.com/"),
        ("https://dav.example.com?a=1", "https://dav.example.com/?a=1"),
        ("https://dav.example.com:8443/c/", None),
        ("https://alice@dav.example.com/c/", None),
        ("http://dav.example.com:443/c/", None),
    ],
)
def test_a_url_means_https_at_port_443_and_has_a_path(url: str, told: str | None) -> None:
    settings = replace(config(IMAP), services=(Service(ServiceType.CALDAV, url, "", False),))
    imap = {"imap": {"host": "imap.example.com"}}
    assert protocols(settings) == imap | ({"caldav": {"url": told}} if told else {})


@pytest.mark.parametrize(
    ("content_type", "size"),
    [("image/svg+xml", {}), ("image/png", {"width": 7, "height": 8})],
)
def test_an_svg_logo_has_no_size(content_type: str, size: dict[str, int]) -> None:
    details = ProviderDetails(logo=Logo(content_type, 7, 8))
    info = json.loads(pacc.render(config(IMAP, details=details)))["info"]
    url = "https://ua-auto-config.example.com/logo"
    assert info["provider"]["logo"] == [{"url": url, "content-type": content_type, **size}]


@pytest.mark.parametrize(
    ("methods", "issuer", "expected"),
    [
        ([Authentication.PASSWORD_CLEARTEXT], "", {"password": True}),
        ([Authentication.PASSWORD_ENCRYPTED], "login.example.com", {"password": True}),
        ([Authentication.GSSAPI], "", {"password": False}),
        ([Authentication.OAUTH2], "http://login.example.com", {"password": False}),
        ([Authentication.OAUTH2], "https://login.example.com/?a=1", {"password": False}),
        ([Authentication.OAUTH2], "https://login.example.com/?", {"password": False}),
        ([Authentication.OAUTH2], "https://login.example.com#a", {"password": False}),
        ([Authentication.OAUTH2], "https://a@login.example.com", {"password": False}),
        ([Authentication.OAUTH2], "https:///a", {"password": False}),
        (
            [Authentication.OAUTH2],
            "https://login.example.com:8443/a/b",
            {
                "oauth-public": {"issuer": "https://login.example.com:8443/a/b"},
                "password": False,
            },
        ),
        (
            [Authentication.OAUTH2],
            "https://login.example.com",
            {"oauth-public": {"issuer": "https://login.example.com"}, "password": False},
        ),
    ],
)
def test_authentication_tells_passwords_and_an_issuer_that_has_a_url(
    methods: list[Authentication], issuer: str, expected: object
) -> None:
    server = replace(IMAP, authentication=tuple(methods))
    oauth2 = OAuth2(issuer, "", "", "", "") if issuer else None
    document = json.loads(pacc.render(config(server, details=ProviderDetails(oauth2=oauth2))))
    assert document["authentication"] == expected


def test_long_names_are_cut_as_the_draft_wants() -> None:
    settings = replace(config(IMAP), provider_name="n" * 128, provider_short_name="s" * 32)
    provider = json.loads(pacc.render(settings))["info"]["provider"]
    assert provider == {"name": "n" * 60, "shortName": "s" * 20}


@pytest.mark.usefixtures("details")
def test_a_stored_document_that_is_a_text_is_told_as_a_bad_row(
    client: FlaskClient, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite lets any value into a column; the other documents of the domain are served."""
    execute(
        "INSERT INTO managed_domain (name, document, step, ttl, changed_at, version)"
        " VALUES ('example.com', '{}', 'steady', 60, '2026-11-30 10:00:00', 1)"
    )
    answer = client.get(URL, headers=HOST)
    assert (answer.status_code, answer.text) == (500, f"{BadRecordError.public}\n")
    [record] = caplog.records
    assert record.exc_info is None
    cause = "table managed_domain, example.com: document must be bytes and no text"
    assert record.getMessage().endswith(f"({cause})")
    assert client.get("/mail/config-v1.1.xml", headers=HOST).status_code == 200


def test_the_digest_is_that_of_the_bytes() -> None:
    document = pacc.render(config(IMAP))
    digest = base64.b64encode(hashlib.sha256(document).digest()).decode()
    assert pacc.digest_record(document) == f"v=UAAC1; a=sha256; d={digest}"


def test_the_bytes_are_equal_on_all_databases(
    any_migrated_uri: str, make_app: Callable[..., Flask]
) -> None:
    uri = engine_uri(any_migrated_uri)
    engine = create_engine(uri)
    with Session(engine) as session:
        populate(session, DOCUMENT)
        session.commit()
    engine.dispose()
    answer = make_app(db_uri=uri).test_client().get(URL, headers=HOST)
    assert answer.data == golden("details.pacc.json").encode()


def test_the_bytes_are_equal_in_all_workers_and_after_a_restart(
    database: Path, tmp_path: Path
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    document = tmp_path / "seed.json"
    document.write_text(json.dumps(DOCUMENT))
    automx("seed", document, env=env)
    answers = set()
    for _ in range(2):
        with serving(env, tmp_path / "log", "--workers", "2") as server:
            for _ in range(20):
                request = Request(server.url + URL, headers=HOST)
                with urlopen(request, timeout=10) as answer:
                    answers.add(answer.read())
    assert answers == {golden("details.pacc.json").encode()}
    zone = automx("dns", "example.com", "--host", "automx.example.com", env=env)
    assert pacc.digest_record(answers.pop()) in zone
