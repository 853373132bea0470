"""Autoconfig files as they are read: what is kept, what is named as lost, what is refused."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from automx import autoconfigfile, imports, lookup
from automx.address import EmailAddress
from automx.autoconfigfile import MAX_SIZE
from automx.changes import Changes
from automx.database import Session, create_engine
from automx.errors import SeedError
from automx.formats import autoconfig
from automx.imports import Wishes
from automx.moments import this_second
from automx.seed import populate, purge
from automx.words import AUTHENTICATIONS, SERVICE_TYPES
from tests import clientrules
from tests.documents import DATA, golden
from tests.examples import DOCUMENT

FOLDER = DATA / "imports"
FILES = sorted(FOLDER.glob("*.xml"))
SERVER = """
    <hostname>mail.example.com</hostname>
    <port>993</port>
    <socketType>SSL</socketType>
    <username>%EMAILADDRESS%</username>
    <authentication>password-cleartext</authentication>
"""


def file_with(
    incoming: str = SERVER, outgoing: str = SERVER, more: str = "", *, beside: str = ""
) -> bytes:
    """Return a file of example.com with the elements of an IMAP and an SMTP server."""
    return f"""<clientConfig version="1.1"><emailProvider id="example.com">
    <domain>example.com</domain>
    <incomingServer type="imap">{incoming}</incomingServer>
    <outgoingServer type="smtp">{outgoing}</outgoingServer>{more}
    </emailProvider>{beside}</clientConfig>""".encode()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_as_expected(path: Path) -> None:
    found = autoconfigfile.read(path.read_bytes(), path.name)
    text = json.dumps(vars(found), indent=2, ensure_ascii=False)
    assert f"{text}\n" == golden(f"imports/{path.stem}.json")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not an XML document (line 1)"),
        (b"\xff", "is not an XML document (line 1)"),
        (b"<clientConfig>\n<emailProvider>", "is not an XML document (line 2)"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "must not have a document type"),
        (b"<a>" * 200, "is nested too deeply"),
        (b"<html/>", ': expected the element clientConfig, found "html"'),
        (b"<clientConfig/>", ": the element emailProvider is missing"),
        (b" " * (MAX_SIZE + 1), f"is larger than {MAX_SIZE} bytes"),
        (
            b"<clientConfig><emailProvider id='a'/></clientConfig>",
            ": no incoming server can be used: it has none",
        ),
    ],
)
def test_a_file_that_no_client_could_use_is_refused_with_its_name(data: bytes, reason: str) -> None:
    with pytest.raises(SeedError) as caught:
        autoconfigfile.read(data, "my.xml")
    expected = f"my.xml{reason}" if reason.startswith(":") else f"my.xml {reason}"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (SERVER.replace("hostname", "host"), "the element hostname is missing"),
        (SERVER.replace("port", "ports"), "the element port is missing"),
        (SERVER.replace("SSL", "SSLv2"), "no socketType that is known"),
        (SERVER.replace("SSL", "TLS").replace("993", "1"), 'socket_type: expected one of .*"TLS"'),
        (SERVER.replace("password-cleartext", "magic"), "no authentication that is known"),
        (SERVER.replace("993", "99999"), "port: expected a whole number from 1 to 65535, found .*"),
        (
            SERVER.replace("993", "\u0669"),
            "port: expected a whole number from 1 to 65535, found .*",
        ),
        (SERVER.replace("mail.example", "mail..example"), "name: expected a host name .*"),
        (SERVER.replace("EMAILADDRESS", "USERNAME"), 'user_name: "%USERNAME%" is no placeholder.*'),
    ],
)
def test_a_file_without_a_server_that_thunderbird_could_use_says_why(
    server: str, reason: str
) -> None:
    for sides, kind, type_ in (
        ({"incoming": server}, "incoming", "imap"),
        ({"outgoing": server}, "outgoing", "smtp"),
    ):
        with pytest.raises(SeedError) as caught:
            autoconfigfile.read(file_with(**sides), "my.xml")
        where = rf"{kind}Server 1 \({type_}(, mail\.+example\.com)?\)"
        expected = rf"my\.xml: no {kind} server can be used: .*{where} is not kept: {reason}"
        assert re.fullmatch(expected, str(caught.value))


@pytest.mark.parametrize(
    ("socket_types", "port", "expected"),
    [
        (["SSL"], 993, "SSL"),
        (["STARTTLS", "SSL"], 143, "STARTTLS"),
        (["TLS"], 143, "STARTTLS"),
        (["TLS"], 993, "SSL"),
        (["TLS", "plain"], 993, "plain"),
        (["SSLv3", "plain"], 143, "plain"),
        (["ssl"], 993, "SSL"),
    ],
)
def test_the_first_socket_type_that_thunderbird_knows_is_taken(
    socket_types: list[str], port: int, expected: str
) -> None:
    elements = "".join(f"<socketType>{word}</socketType>" for word in socket_types)
    server = SERVER.replace("<socketType>SSL</socketType>", elements).replace("993", str(port))
    [found, _] = autoconfigfile.read(file_with(server), "").servers
    assert found["socket_type"] == expected


def test_a_server_without_user_name_gets_the_address_and_that_is_named() -> None:
    found = autoconfigfile.read(file_with(re.sub("<username>.*", "", SERVER)), "")
    assert found.servers[0]["user_name"] == ""
    assert found.lost == [
        "incomingServer 1 (imap, mail.example.com) has no username: %EMAILADDRESS% takes its place"
    ]


def test_a_user_name_that_is_the_address_of_one_person_is_named() -> None:
    server = re.sub("<username>.*", "<username>alice@example.com</username>", SERVER)
    calendar = (
        '<calendar type="caldav"><serverURL>https://dav.example.com/</serverURL>'
        "<username>alice@example.com</username></calendar>"
    )
    found = autoconfigfile.read(file_with(server, beside=calendar), "")
    assert found.servers[0]["user_name"] == "alice@example.com"
    assert found.lost == [
        f'{where}: all people get the username "alice@example.com", not their own address'
        for where in (
            "incomingServer 1 (imap, mail.example.com)",
            "calendar 1 (caldav, https://dav.example.com/)",
        )
    ]


def test_words_of_authentication_that_have_no_room_are_named() -> None:
    words = ["TLS-client-cert", "client-IP-address", "OAuth2", "password-cleartext"]
    elements = "".join(f"<authentication>{word}</authentication>" for word in words)
    server = re.sub("<authentication>.*", elements, SERVER)
    found = autoconfigfile.read(file_with(server), "")
    assert found.servers[0]["authentication"] == "TLS-client-cert"
    where = "incomingServer 1 (imap, mail.example.com): authentication"
    assert found.lost[:3] == [
        f"{where} {word} is not kept: there is no room for it"
        for word in ("plain", "OAuth2", "client-IP-address")
    ]


@pytest.mark.parametrize(
    "logo",
    [
        '<logo url="https://www.example.com/logo.png"/>',
        "<logo>data:image/png;base64,AAAA</logo>",
        '<logo width="1" height="1">data:image/gif;base64,AAAA</logo>',
        '<logo width="1" height="x">data:image/png;base64,AAAA</logo>',
        '<logo width="1" height="1">data:image/png;base64,***</logo>',
        '<logo width="1" height="1">data:image/png,AAAA</logo>',
    ],
)
def test_a_logo_that_rows_cannot_hold_is_named(logo: str) -> None:
    found = autoconfigfile.read(file_with(more=logo), "")
    assert "details" not in found.provider
    assert [line.partition(":")[0] for line in found.lost] == ["logo is not kept"]


def test_a_secret_of_a_file_is_never_shown() -> None:
    secrets = "<password>hidden-1</password>"
    oauth2 = "<oAuth2><issuer>i</issuer><clientSecret>hidden-2</clientSecret></oAuth2>"
    found = autoconfigfile.read(file_with(SERVER + secrets, beside=oauth2), "")
    assert "hidden" not in str(vars(found))
    assert "incomingServer 1 (imap, mail.example.com): password is not kept" in found.lost
    assert "oAuth2 clientSecret is not kept" in found.lost


def test_a_file_of_the_greatest_size_is_read_in_linear_time() -> None:
    """With a look at all others for each element, this would take minutes."""
    domains = "".join(f"<domain>d{number}.example</domain>" for number in range(8_000))
    pages = "".join(f"<documentation url='https://a.b/{n}'/>" for n in range(3_000))
    found = autoconfigfile.read(file_with(more=domains + pages), "")
    assert len(found.domains) == 8_001
    assert len(found.provider["details"]["documentation"]) == 3_000


# What clients make of it.


@pytest.fixture(scope="module")
def session(empty_database: Path) -> Iterator[Session]:
    """Open a session on an empty database; each test purges it before."""
    engine = create_engine(f"sqlite:///{empty_database}")
    with Session(engine) as found:
        yield found
        found.rollback()
    engine.dispose()


def served(session: Session, domain: str, address: str | None) -> bytes:
    """Return the document that automx serves."""
    config = lookup.find(session, domain).config
    return autoconfig.render(config, EmailAddress.parse(address) if address else None)


def take_over(session: Session, data: bytes, *domains: str) -> imports.Imported:
    """Import a file into the database."""
    changes = Changes(session, "user:test", now=this_second())
    found = autoconfigfile.read(data, "the file")
    imported = imports.add_file(changes, found, "the file", Wishes(domains))
    changes.finish()
    return imported


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("client", ["Thunderbird", "Delta Chat"])
def test_clients_take_the_servers_that_they_took_of_the_file(
    session: Session, path: Path, client: str
) -> None:
    purge(session)
    take_over(session, path.read_bytes(), "example.com")
    [rules] = [one for one in clientrules.CLIENTS if one.name == client]
    for address in (None, str(clientrules.ADDRESS)):
        document = served(session, "example.com", address)
        assert rules.choice(document) == rules.choice(path.read_bytes())


HOSTS = st.sampled_from(["mail.example.com", "mx.%EMAILDOMAIN%", "192.0.2.1", "müller.example"])
USERS = st.sampled_from(
    ["%EMAILADDRESS%", "%EMAILLOCALPART%", "EXAMPLE\\%EMAILLOCALPART%", "a&<b>", "%EMAILDOMAIN%"]
)
METHODS = st.lists(st.sampled_from(sorted(filter(None, AUTHENTICATIONS))), max_size=2).map(" ".join)
TEXTS = st.text(max_size=70)


def server_of(*types: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "type": st.sampled_from(types),
            "name": HOSTS,
            "port": st.sampled_from([143, 993, 587, 1]),
            "prio": st.integers(-5, 5),
            "socket_type": st.sampled_from(["SSL", "STARTTLS", "plain"]),
            "authentication": METHODS,
            "user_name": st.one_of(st.just(""), USERS),
        }
    )


def service_of() -> st.SearchStrategy[dict[str, Any]]:
    urls = ["https://dav.example.com/%EMAILADDRESS%/", "http://x.example:8080/?a=1&b=2"]
    return st.fixed_dictionaries(
        {"type": st.sampled_from(sorted(SERVICE_TYPES)), "url": st.sampled_from(urls)},
        optional={"user_name": USERS, "port": st.sampled_from([0, 443, 8443])},
    )


def details() -> st.SearchStrategy[dict[str, Any]]:
    page = st.fixed_dictionaries(
        {"url": st.sampled_from(["https://a.example/", "https://%EMAILDOMAIN%/b?c&d"])},
        optional={"lang": st.sampled_from(["en", "pt-BR"]), "text": TEXTS},
    )
    oauth2 = DOCUMENT["details"]["oauth2"]
    return st.fixed_dictionaries(
        {},
        optional={
            "webmail_url": st.just("https://mail.%EMAILDOMAIN%/"),
            "documentation": st.lists(page, max_size=4),
            "oauth2": st.sampled_from([oauth2, {"issuer": "a", "scope": "b"}]),
        },
    )


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    incoming=st.lists(server_of("imap", "pop"), min_size=1, max_size=4),
    outgoing=st.lists(server_of("smtp"), min_size=1, max_size=3),
    sieve=st.lists(server_of("managesieve"), max_size=2),
    services=st.lists(service_of(), max_size=5),
    details=details(),
    name=st.text(min_size=1, max_size=70),
    address=st.sampled_from([None, "alice@example.com"]),
)
def test_a_document_of_automx_gives_the_same_document(
    session: Session, address: str | None, details: Any, name: str, **servers: list[dict[str, Any]]
) -> None:
    purge(session)
    document = {
        "version": 2,
        "provider": name,
        "details": details,
        "domains": [{"name": "example.com"}],
        "servers": [server for some in servers.values() for server in some],
    }
    try:
        populate(session, document)
    except SeedError:
        return
    config = lookup.find(session, "example.com").config.for_client(None)
    for records in (config.mail_servers, config.services):
        assume(len(set(records)) == len(records))  # the same one twice is taken over once
    before = served(session, "example.com", address)
    purge(session)
    take_over(session, before)
    assert served(session, "example.com", address) == before
