"""Which servers a document for all clients shows, and that all such documents show the same."""

import json
import re

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from lxml import etree

from automx.cli import main
from automx.clientconfig import ClientConfig, ServerType
from automx.formats import autoconfig, autodiscover, pacc
from automx.rows import mail_server
from tests import examples
from tests.conftest import Execute
from tests.documents import autodiscover_request

# Servers of a domain, by prio, each as type, port, socket type and methods; those that documents
# for all clients leave out stand in brackets.
CASES = [
    # No plain server beside an encrypted one of its kind.
    "imap 993 SSL plain, (imap 143 none plain), smtp 465 SSL plain, (smtp 25 none plain)",
    "(imap 143 none plain), imap 993 SSL plain, smtp 587 STARTTLS plain",
    "(imap 143 none plain), imap 143 STARTTLS plain, (smtp 25 none none), smtp 587 STARTTLS plain",
    "imap 143 none plain, smtp 25 none plain",
    "imap 993 SSL plain, smtp 25 none plain",
    # Encrypted ones all stay, in their order.
    "imap 143 STARTTLS plain, imap 993 SSL plain, smtp 587 STARTTLS plain, smtp 465 SSL plain",
    "imap 993 SSL secure, imap 993 SSL OAuth2, imap 993 SSL plain, smtp 465 SSL OAuth2",
    # No server that excludes clients beside one that does not.
    "imap 993 SSL plain, (imap 993 SSL NTLM), smtp 465 SSL plain, (smtp 587 STARTTLS GSSAPI)",
    "(imap 993 SSL TLS-client-cert), imap 993 SSL OAuth2, (smtp 25 SSL none), smtp 465 SSL secure",
    "imap 993 SSL GSSAPI+plain, imap 143 STARTTLS NTLM+secure, smtp 465 SSL NTLM+OAuth2",
    "(smtp 25 STARTTLS client-IP-address), imap 993 SSL plain, smtp 465 SSL plain",
    "imap 993 SSL GSSAPI, imap 993 SSL NTLM, smtp 465 SSL none",
    # A password does not make up for missing encryption.
    "imap 993 SSL GSSAPI, (imap 143 none plain), smtp 465 SSL GSSAPI, (smtp 25 none plain)",
    # POP3 stays beside IMAP, unless IMAP is better; IMAP stays beside a better POP3.
    "imap 993 SSL plain, pop 995 SSL plain, smtp 465 SSL plain",
    "pop 995 SSL plain, imap 993 SSL plain, smtp 465 SSL plain",
    "imap 993 SSL plain, (pop 110 none plain), smtp 465 SSL plain",
    "imap 993 SSL plain, (pop 995 SSL NTLM), smtp 465 SSL plain",
    "imap 143 none plain, pop 995 SSL plain, (pop 110 none plain), smtp 465 SSL plain",
    "imap 993 SSL NTLM, pop 995 SSL plain, smtp 465 SSL plain",
    "imap 143 none plain, pop 110 none plain, smtp 465 SSL plain",
    # Filter rules are a kind of their own.
    "imap 993 SSL plain, smtp 465 SSL plain, sieve 4190 none plain",
    "imap 993 SSL plain, smtp 465 SSL plain, (sieve 2000 none plain), sieve 4190 STARTTLS plain",
]


def rows(case: str) -> list[dict[str, object]]:
    """Return the rows of a case; each server's host name has its place in the case."""
    found: list[dict[str, object]] = []
    for number, text in enumerate(case.split(", "), 1):
        type_, port, socket_type, methods = text.strip("()").split()
        found.append(
            {
                "id": number,
                "prio": number,
                "name": f"{number}.example.com",
                "port": int(port),
                "type": type_,
                "socket_type": socket_type,
                "user_name": "",
                "authentication": methods.replace("+", " "),
            }
        )
    return found


def shown(case: str, *types: str) -> list[str]:
    """Return the host names of the servers that a case shows."""
    return [
        f"{number}.example.com"
        for number, text in enumerate(case.split(", "), 1)
        if text.startswith(types)
    ]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def config(case: str) -> ClientConfig:
    return examples.config(*map(mail_server, rows(case)))


def test_a_general_document_shows_the_right_servers(case: str, config: ClientConfig) -> None:
    general = config.general()
    hosts = [server.hostname for server in general.mail_servers]
    assert hosts == shown(case, "imap", "pop", "smtp", "sieve")
    assert general.general() == general
    left_out = [server for server, _ in config.left_out()]
    assert len(left_out) == case.count("(")
    assert sorted(map(str, (*general.mail_servers, *left_out))) == sorted(
        map(str, config.mail_servers)
    )


def test_a_reason_is_given_for_each_server_that_is_left_out(config: ClientConfig) -> None:
    for server, reason in config.left_out():
        if server.is_plain:
            assert reason == "it has no encryption, and another server has"
        else:
            assert server.excludes_clients
            assert reason == "it takes neither a password nor OAuth2, and another server does"


def test_all_general_documents_show_the_same_servers(case: str, config: ClientConfig) -> None:
    incoming, outgoing = shown(case, "imap", "pop"), shown(case, "smtp")
    root = etree.fromstring(autoconfig.render(config))
    assert [e.text for e in root.findall("*/incomingServer/hostname")] == incoming
    assert [e.text for e in root.findall("*/outgoingServer/hostname")] == outgoing
    found = re.findall(r"<Server>(.*?)</Server>", autodiscover.render(config).decode())
    assert found == shown(case, "imap", "pop", "smtp")
    try:
        protocols = json.loads(pacc.render(config))["protocols"]
    except pacc.NothingToPublishError:
        protocols = {}
    assert {found["host"] for found in protocols.values()} <= {*incoming, *outgoing}


def insert(execute: Execute, case: str) -> None:
    execute("INSERT INTO provider VALUES (1, 'Example Inc.', 'Example')")
    execute("INSERT INTO domain VALUES (1, 'example.com', 1, NULL)")
    for row in rows(case):
        columns = ("id", "prio", "name", "port", "type", "socket_type", "user_name")
        values = ", ".join(repr(row[column]) for column in (*columns, "authentication"))
        execute(f"INSERT INTO server VALUES ({values})")
    execute("INSERT INTO server_domain SELECT id, 1 FROM server")


def test_the_services_give_what_the_formats_say(
    client: FlaskClient, execute: Execute, case: str
) -> None:
    insert(execute, case)
    page = client.get("/?address=alice@example.com").text.replace("<wbr>", "")
    found = re.findall(r">(\d\.example\.com)<", page)
    assert sorted(found) == sorted(shown(case, "imap", "pop", "smtp", "sieve"))
    answer = client.post(
        "/autodiscover/autodiscover.xml",
        data=autodiscover_request("alice@example.com"),
        content_type="text/xml",
    )
    assert re.findall(r"<Server>(.*?)</Server>", answer.text) == shown(case, "imap", "pop", "smtp")
    answer = client.get("/mail/config-v1.1.xml?emailaddress=alice@example.com")
    hosts = [e.text for e in etree.fromstring(answer.data).iter("hostname")]
    kinds = (("sieve",), ("imap", "pop"), ("smtp",))
    assert hosts == [host for types in kinds for host in shown(case, *types)]


def test_show_says_what_is_left_out_and_why(database: object, execute: Execute) -> None:
    insert(
        execute,
        "imap 993 SSL plain, imap 143 none plain, (imap 993 SSL NTLM), smtp 465 SSL plain,"
        " smtp 25 STARTTLS none",
    )
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    result = CliRunner(env=env).invoke(main, ["show", "alice@example.com"])
    assert result.stdout == (
        "alice@example.com, Example Inc.\n"
        "IMAP  1.example.com  port 993  SSL  login alice@example.com  password-cleartext\n"
        "SMTP  4.example.com  port 465  SSL  login alice@example.com  password-cleartext\n"
        "\n"
        "Not in documents for all clients:\n"
        "IMAP  2.example.com  port 143  plain     login alice@example.com  password-cleartext"
        "  it has no encryption, and another server has\n"
        "IMAP  3.example.com  port 993  SSL       login alice@example.com  NTLM              "
        "  it takes neither a password nor OAuth2, and another server does\n"
        "SMTP  5.example.com  port 25   STARTTLS  no login                 none              "
        "  it takes neither a password nor OAuth2, and another server does\n"
    )


def test_a_server_that_a_document_cannot_name_takes_the_place_of_none() -> None:
    """An encrypted host for each person is in no document that is asked without an address."""
    encrypted = mail_server(rows("imap 993 SSL plain")[0] | {"name": "%EMAILLOCALPART%.test"})
    plain = mail_server(rows("imap 143 none plain")[0])
    config = examples.config(encrypted, plain, examples.SMTP)
    assert b"<Server>1.example.com</Server>" in autodiscover.render(config)
    assert [s.type for s in config.general().incoming] == [ServerType.IMAP]
