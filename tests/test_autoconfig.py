"""Autoconfig: the document that Thunderbird and its relatives read, and how it is asked for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from lxml import etree

from automx.clientconfig import (
    Documentation,
    ProviderDetails,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.formats import autoconfig
from tests.conftest import Execute
from tests.documents import DATA, golden
from tests.examples import IMAP, SMTP, config

PATHS = ("/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml")
ADDRESS = "?emailaddress=alice@example.com"
# Evolution asks with a local part of its own making.
EVOLUTION = "?emailaddress=EVOLUTIONUSER%40example.com&emailmd5=0123456789abcdef"

pytestmark = pytest.mark.usefixtures("example")


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    """Return the schema of draft-ietf-mailmaint-autoconfig."""
    return etree.RelaxNG(etree.parse(str(DATA / "autoconfig.rng")))


# The document.


@pytest.fixture
def shared(example: None, execute: Execute) -> None:
    """Let nothing in the example rows depend on the person but user names that are the address."""
    execute("""
        UPDATE server SET user_name = '%EMAILADDRESS%';
        UPDATE davserver SET url = replace(url, '%EMAILADDRESS%', ''), user_name = 'files';
    """)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        (EVOLUTION, "example.autoconfig.xml"),
        (ADDRESS, "example-alice.autoconfig.xml"),
    ],
)
def test_the_document_is_as_expected_and_valid(
    client: FlaskClient, schema: etree.RelaxNG, query: str, document: str
) -> None:
    answer = client.get(PATHS[0] + query)
    assert answer.status_code == 200
    assert answer.text == golden(document)
    schema.assertValid(etree.fromstring(answer.data))


def test_each_column_reaches_the_document(
    client: FlaskClient, execute: Execute, schema: etree.RelaxNG
) -> None:
    execute("""
        INSERT INTO provider VALUES (2, 'Ärzte & <Söhne> "Ltd"', '&Ä');
        INSERT INTO domain VALUES (2, 'MÜLLER.de', 2, NULL);
        INSERT INTO server VALUES (11, 30, 'IMAP.Müller.de', 1143, 'IMAP', 'none', 'u&<1>', 'none');
        INSERT INTO server VALUES (12, 20, 'pop.%EMAILDOMAIN%', 995, 'pop3', 'ssl', '%EMAILDOMAIN%/%EMAILLOCALPART%', 'OAuth2 plain');
        INSERT INTO server VALUES (13, 10, '192.0.2.1', 25, 'smtp', 'starttls', '', 'GSSAPI,NTLM,client-IP-address');
        INSERT INTO server VALUES (14, 5, 'smtp.müller.de', 465, 'smtp', 'SSL', '%EMAILADDRESS%', 'TLS-client-cert');
        INSERT INTO davserver VALUES (11, 'http://dav.example.com/?a=1&b=%EMAILADDRESS%', 8080, 'caldav', 0, 1, 'c');
        INSERT INTO server_domain SELECT id, 2 FROM server WHERE id > 10;
        INSERT INTO davserver_domain VALUES (11, 2);
    """)  # noqa: E501 - rows are easier to compare when each stands on one line
    answer = client.get(PATHS[0] + "?emailaddress=alice@müller.de")
    assert answer.text == golden("columns.autoconfig.xml")
    schema.assertValid(etree.fromstring(answer.data))


@pytest.mark.parametrize("domain", ["a_b.example.com", "_a_.example.com", "a.b_c.example.com"])
def test_a_domain_with_an_underscore_is_the_same_in_address_host_and_document(
    client: FlaskClient, execute: Execute, domain: str
) -> None:
    execute(f"UPDATE domain SET name = '{domain}'")
    document = golden("example.autoconfig.xml")
    document = document.replace('id="example.com"', f'id="{domain}"')
    document = document.replace("<domain>example.com<", f"<domain>{domain}<")
    for url, host in (
        (f"{PATHS[0]}?emailaddress=EVOLUTIONUSER@{domain}", "example.org"),
        (f"/v1.1/{domain}", "example.org"),
        (PATHS[0], f"autoconfig.{domain}"),
        (PATHS[1], f"{domain.upper()}:443"),
    ):
        answer = client.get(url, headers={"Host": host})
        assert (answer.status_code, answer.text) == (200, document)


def test_the_document_has_each_type_of_the_registry(schema: etree.RelaxNG) -> None:
    def service(type_: ServiceType, url: str, user_name: str = "%EMAILADDRESS%") -> Service:
        return Service(type_, url, user_name, domain_required=True)

    sieve = replace(
        IMAP,
        type=ServerType.MANAGESIEVE,
        port=4190,
        socket_type=SocketType.STARTTLS,
        user_name="sieve",
    )
    settings = replace(
        config(sieve, IMAP, SMTP),
        provider_name=f"{'n' * 59} {'n' * 68}",
        provider_short_name="s" * 32,
        services=(
            service(ServiceType.JMAP, "https://jmap.example.com/session"),
            service(ServiceType.CALDAV, "https://dav.example.com/calendars/"),
            service(ServiceType.ACTIVESYNC, "https://sync.example.com/Microsoft-Server-ActiveSync"),
            service(ServiceType.EWS, "https://ews.example.com/EWS/Exchange.asmx"),
            service(ServiceType.WEBDAV, "https://files.example.com/", "%EMAILLOCALPART%"),
            service(ServiceType.XMPP, "wss://xmpp.example.com/websocket"),
            service(ServiceType.MATRIX, "https://matrix.example.com/"),
            service(ServiceType.GRAPH, "https://graph.example.com/v1.0/"),
        ),
        details=ProviderDetails(
            documentation=(
                Documentation("https://help.example.com/mail", "", "Mail"),
                Documentation("https://help.example.com/", "en", ""),
                Documentation("https://help.example.com/mail", "de", "E-Mail"),
            )
        ),
    )
    document = autoconfig.render(settings)
    assert document.decode() == golden("registry.autoconfig.xml")
    schema.assertValid(etree.fromstring(document))


def test_only_the_asked_domain_is_listed(client: FlaskClient, execute: Execute) -> None:
    execute("""
        INSERT INTO domain VALUES (2, 'other.example', 1, NULL), (3, '*.example.org', 1, NULL);
        INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain
            WHERE domain.id > 1;
    """)
    for domain in ("example.com", "other.example", "deep.down.example.org"):
        root = etree.fromstring(client.get(f"{PATHS[0]}?emailaddress=a@{domain}").data)
        assert [element.text for element in root.iter("domain")] == [domain]
        assert root.xpath("string(emailProvider/@id)") == domain


@pytest.mark.parametrize("name", ["example", "example-alice", "columns", "registry", "details"])
def test_the_document_is_one_that_the_strictest_clients_can_read(name: str) -> None:
    text = golden(f"{name}.autoconfig.xml")
    assert text.startswith("<?xml")
    assert "<!" not in text  # no CDATA, comment or document type
    root = etree.fromstring(text.encode())
    for leaf in (element for element in root.iter() if not len(element)):
        text = leaf.text or ""
        assert text == text.strip()
        # Thunderbird loses the text of a leaf that has an attribute. The draft's authentication of
        # DAV servers has one, and stands beside a plain one.
        if text and leaf.items() and leaf.tag != "descr":
            assert (leaf.tag, leaf.items()) == ("authentication", [("system", "http")])
            following = leaf.getnext()
            assert following is not None
            assert (following.tag, following.text, following.items()) == (leaf.tag, text, [])
    for server in root.iter("incomingServer", "outgoingServer"):
        if server.get("type") in {"imap", "pop3", "smtp"}:
            assert [child.items() for child in server] == [[]] * len(server)
            assert server.findtext("socketType") in {"SSL", "STARTTLS", "plain"}
    # FairEmail takes the last user name of the document.
    owner = list(root.iter("username"))[-1].getparent()
    assert owner is not None
    assert (owner.tag, owner.get("type")) == ("outgoingServer", "smtp")


# How it is asked for.


@pytest.mark.parametrize(
    "query",
    [
        ADDRESS,
        "?emailaddress=Alice%40EXAMPLE.COM",
        "?emailaddress=alice@example.com.",
        "?emailaddress=%20alice@example.com%20",
        EVOLUTION,
        "?emailaddress=J%C3%BCrgen@example.com",
        "?emailaddress=o'neil%2Bx@example.com&unknown=%FF",
    ],
)
@pytest.mark.usefixtures("shared")
def test_the_address_decides_and_its_person_does_not_matter(
    client: FlaskClient, query: str
) -> None:
    expected = client.get("/v1.1/example.com").text
    assert "%EMAILADDRESS%" in expected
    for path in PATHS:
        answer = client.get(path + query, headers={"Host": "autoconfig.hoster.example"})
        assert answer.status_code == 200
        assert answer.text == expected


# Placeholders.


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # Each is the row's value and what the document holds.
        ("", {"%EMAILDOMAIN%": "example.com"}),
        ("", {"%EMAILADDRESS%": "%EMAILADDRESS%"}),
        ("", {"%EMAILLOCALPART%/%EMAILDOMAIN%": "%EMAILLOCALPART%/example.com"}),
        ("", {"u-%EMAILADDRESS%": "u-%EMAILADDRESS%"}),
        (EVOLUTION, {"%EMAILLOCALPART%/%EMAILDOMAIN%": "%EMAILLOCALPART%/example.com"}),
        (EVOLUTION, {"%EMAILADDRESS%": "%EMAILADDRESS%"}),
        (ADDRESS, {"%EMAILADDRESS%": "%EMAILADDRESS%"}),
        (ADDRESS, {"%EMAILLOCALPART%": "alice"}),
        (ADDRESS, {"%EMAILLOCALPART%@%EMAILDOMAIN%": "alice@example.com"}),
        (ADDRESS, {"EXAMPLE\\%EMAILLOCALPART%": "EXAMPLE\\alice"}),
        (ADDRESS, {"u-%EMAILADDRESS%": "u-alice@example.com"}),
        (ADDRESS, {"%REALNAME%": "%REALNAME%"}),
        ("?emailaddress=%25EMAILDOMAIN%25@example.com", {"%EMAILLOCALPART%": "%EMAILDOMAIN%"}),
        ("?emailaddress=O'Neil%2Bx@Example.COM", {"x/%EMAILLOCALPART%": "x/O'Neil+x"}),
        ("?emailaddress=evolutionuser@example.com", {"%EMAILLOCALPART%": "evolutionuser"}),
    ],
)
def test_what_is_known_of_a_user_name_is_filled_in(
    client: FlaskClient, execute: Execute, query: str, expected: dict[str, str]
) -> None:
    [(written, found)] = expected.items()
    execute(f"UPDATE server SET user_name = '{written}' WHERE id = 3")
    root = etree.fromstring(client.get(PATHS[0] + query, headers={"Host": "example.com"}).data)
    assert root.xpath("string(//outgoingServer/username)") == found


@pytest.mark.parametrize(
    ("query", "host", "url"),
    [
        (EVOLUTION, "%EMAILLOCALPART%.wild.test", "https://wild.test/%EMAILADDRESS%/"),
        ("?emailaddress=", "%EMAILLOCALPART%.wild.test", "https://wild.test/%EMAILADDRESS%/"),
        (ADDRESS, "alice.wild.test", "https://wild.test/alice@wild.test/"),
        ("?emailaddress=a/b@example.com", "a/b.wild.test", "https://wild.test/a%2Fb@wild.test/"),
    ],
)
def test_what_is_known_of_a_host_name_and_a_url_is_filled_in(
    client: FlaskClient, execute: Execute, query: str, host: str, url: str
) -> None:
    execute("""
        UPDATE domain SET name = '*.test';
        UPDATE server SET name = '%EMAILLOCALPART%.%EMAILDOMAIN%' WHERE type = 'smtp';
        UPDATE davserver SET url = 'https://%EMAILDOMAIN%/%EMAILADDRESS%/' WHERE type = 'caldav';
    """)
    answer = client.get(
        PATHS[0] + query.replace("example.com", "wild.test"), headers={"Host": "wild.test"}
    )
    root = etree.fromstring(answer.data)
    assert root.xpath("string(//outgoingServer/hostname)") == host
    assert root.xpath("string(/clientConfig/calendar/url)") == url


def test_a_document_with_a_persons_values_is_kept_by_no_cache(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    client = make_app(domain_cache_seconds=900).test_client()
    assert client.get(PATHS[0] + ADDRESS).headers["Cache-Control"] == "no-store"
    assert client.get(PATHS[0] + EVOLUTION).headers["Cache-Control"] == "public, max-age=60"
    bob = client.get(PATHS[0] + "?emailaddress=bob@example.com").text
    assert bob == golden("example-alice.autoconfig.xml").replace("alice", "bob")


# Servers.


@pytest.mark.parametrize(("type_", "missing"), [("smtp", "outgoing"), ("imap", "incoming")])
def test_there_is_no_document_without_a_server_of_each_direction(
    client: FlaskClient,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
    type_: str,
    missing: str,
) -> None:
    execute(f"UPDATE server SET port = 0 WHERE type IN ('{type_}', 'pop')")
    for url in (PATHS[0] + ADDRESS, PATHS[1] + EVOLUTION, "/v1.1/example.com"):
        caplog.clear()
        answer = client.get(url)
        assert answer.status_code == 500
        assert answer.text == (
            "The settings of this domain are incomplete; its administrator has to look into it.\n"
        )
        assert f"domain example.com: no usable {missing} mail server" in caplog.text


def test_outgoing_mail_without_login_has_no_user_name(
    client: FlaskClient, execute: Execute, schema: etree.RelaxNG
) -> None:
    execute("UPDATE server SET user_name = '', authentication = 'none' WHERE type IN ('smtp')")
    root = etree.fromstring(client.get(PATHS[0] + ADDRESS).data)
    (smtp,) = root.iter("outgoingServer")
    assert [(child.tag, child.text) for child in smtp] == [
        ("hostname", "smtp.example.com"),
        ("port", "587"),
        ("socketType", "STARTTLS"),
        ("authentication", "none"),
    ]
    schema.assertValid(root)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "EXAMPLE.com",
        "example.com:4243",
        "autoconfig.example.com",
        "AutoConfig.Example.Com",
        "autodiscover.example.com",
        "ua-auto-config.example.com:443",
        "autoconfig.example.com.",
    ],
)
def test_without_an_address_the_host_decides(client: FlaskClient, host: str) -> None:
    for path in PATHS:
        for query in ("", "?", "?emailaddress=", "?emailaddress=%20", "?x=a@b.c"):
            answer = client.get(path + query, headers={"Host": host})
            assert answer.status_code == 200
            assert answer.text == golden("example.autoconfig.xml")


def test_only_one_prefix_of_the_host_is_taken_off(client: FlaskClient) -> None:
    for host in ("autoconfig.autodiscover.example.com", "mail.example.com", "www.example.com"):
        assert client.get(PATHS[0], headers={"Host": host}).status_code == 404


def test_a_domain_that_begins_like_a_prefix_is_found_by_address(
    client: FlaskClient, execute: Execute
) -> None:
    execute("UPDATE domain SET name = 'autoconfig.example.com'")
    answer = client.get(PATHS[0] + "?emailaddress=a@autoconfig.example.com")
    assert answer.status_code == 200


@pytest.mark.parametrize("domain", ["example.com", "EXAMPLE.com", "example.com."])
def test_mozillas_form_of_the_url_names_the_domain(client: FlaskClient, domain: str) -> None:
    answer = client.get(f"/v1.1/{domain}", headers={"Host": "other.example"})
    assert answer.status_code == 200
    assert answer.text == golden("example.autoconfig.xml")


@pytest.mark.parametrize("domain", ["müller.de", "M%C3%9CLLER.de", "xn--mller-kva.de"])
def test_mozillas_form_of_the_url_knows_both_forms_of_idna(
    client: FlaskClient, execute: Execute, domain: str
) -> None:
    execute("UPDATE domain SET name = 'Müller.de'")
    answer = client.get(f"/v1.1/{domain}")
    assert answer.status_code == 200
    assert answer.text == golden("example.autoconfig.xml").replace(
        "example.com</domain>", "xn--mller-kva.de</domain>"
    ).replace('id="example.com"', 'id="xn--mller-kva.de"')


@pytest.mark.parametrize(
    ("url", "host", "status", "text"),
    [
        (PATHS[0], "example.org", 404, "No configuration is known for this domain."),
        (f"{PATHS[0]}?emailaddress=a@example.org", "example.com", 404, "No configuration is known"),
        (f"{PATHS[1]}?emailaddress=a@sub.example.com", "example.com", 404, "No configuration is"),
        ("/v1.1/example.org", "example.com", 404, "No configuration is known for this domain."),
        ("/v1.1/", "example.com", 404, "There is nothing at this address."),
        ("/v1.1/*.example.com", "example.com", 400, "The domain name is not valid."),
        ("/v1.1/exam%00ple.com", "example.com", 400, "The domain name is not valid."),
        ("/v1.1/%3Cb%3E", "example.com", 400, "The domain name is not valid."),
        ("/mail/config-v1.2.xml", "example.com", 404, "There is nothing at this address."),
        ("/mail/", "example.com", 404, "There is nothing at this address."),
    ],
)
def test_what_is_not_known_is_told_in_one_line(
    client: FlaskClient, url: str, host: str, status: int, text: str
) -> None:
    answer = client.get(url, headers={"Host": host})
    assert answer.status_code == status
    assert answer.text.startswith(text)
    assert answer.text.count("\n") == 1
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"


# How long it may be kept.


@pytest.mark.usefixtures("shared")
def test_the_answer_may_be_kept_by_caches_as_long_as_we_keep_it(
    make_app: Callable[..., Flask],
) -> None:
    answer = make_app(domain_cache_seconds=10).test_client().get(PATHS[0] + ADDRESS)
    assert answer.headers["Content-Type"] == "application/xml; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=10"
    assert answer.headers["Vary"] == "Host"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.usefixtures("shared")
def test_without_a_cache_of_ours_others_have_to_ask_again(client: FlaskClient) -> None:
    assert client.get(PATHS[0] + ADDRESS).headers["Cache-Control"] == "no-cache"


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("url", [PATHS[0] + ADDRESS, PATHS[1] + ADDRESS, "/v1.1/example.com"])
def test_a_client_that_has_the_document_is_not_sent_it_again(client: FlaskClient, url: str) -> None:
    first = client.get(url)
    etag = first.headers["ETag"]
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get(url, headers={"If-None-Match": condition})
        assert again.status_code == 304
        assert again.data == b""
        assert again.headers["ETag"] == etag
        assert again.headers["Vary"] == "Host"
        assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
    for condition in ('"other"', "broken", ""):
        assert client.get(url, headers={"If-None-Match": condition}).data == first.data


@pytest.mark.usefixtures("shared")
def test_the_etag_changes_with_the_document_and_only_then(
    client: FlaskClient, execute: Execute
) -> None:
    url = PATHS[0] + ADDRESS
    etag = client.get(url).headers["ETag"]
    assert client.get(PATHS[1] + "?emailaddress=bob@example.com").headers["ETag"] == etag
    execute("UPDATE server SET port = 994 WHERE id = 1")
    changed = client.get(url, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert "<port>994</port>" in changed.text
    assert changed.headers["ETag"] != etag
    execute("UPDATE server SET port = 993 WHERE id = 1")
    assert client.get(url).headers["ETag"] == etag


@pytest.mark.usefixtures("shared")
def test_head_gives_the_headers_of_get(client: FlaskClient) -> None:
    get, head = client.get(PATHS[0] + ADDRESS), client.head(PATHS[0] + ADDRESS)
    assert head.status_code == 200
    assert head.data == b""
    for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control", "Vary"):
        assert head.headers[name] == get.headers[name]


def test_other_methods_are_refused(client: FlaskClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = client.open(PATHS[0] + ADDRESS, method=method)
        assert answer.status_code == 405
        assert answer.text == "This method is not allowed here.\n"
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_a_change_is_visible_when_the_time_of_the_cache_is_over(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    forgetful = make_app(domain_cache_seconds=0).test_client()
    remembering = make_app(domain_cache_seconds=900_000).test_client()
    url = PATHS[0] + ADDRESS
    assert forgetful.get(url).data == remembering.get(url).data
    execute("UPDATE provider SET name = 'Other Inc.'")
    assert "Other Inc." in forgetful.get(url).text
    assert "Example Inc." in remembering.get(url).text
