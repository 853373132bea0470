"""The doctor says which clients each mail server of a domain shuts out."""

import re
from dataclasses import replace

import pytest

from automx.check.clients import check_clients
from automx.check.finding import Finding, Level
from automx.check.rows import check_config
from automx.clientconfig import Authentication, MailServer, ServerType, SocketType
from tests import clientrules
from tests.examples import IMAP, SMTP, config

POP = replace(IMAP, type=ServerType.POP3, hostname="pop.example.com", port=995)


def using(server: MailServer, *methods: str) -> MailServer:
    return replace(server, authentication=tuple(Authentication(method) for method in methods))


def findings(*servers: MailServer) -> list[tuple[str, str, str]]:
    """Return level, subject and text of what the doctor finds."""
    found = check_clients(config(*servers))
    return [(finding.level.name, finding.subject, finding.text) for finding in found]


@pytest.mark.parametrize(
    "servers",
    [
        (IMAP, SMTP),
        (IMAP, POP, SMTP),
        (replace(IMAP, port=143, socket_type=SocketType.STARTTLS), SMTP),
        (replace(IMAP, port=10993), replace(SMTP, port=2525, socket_type=SocketType.STARTTLS)),
        (using(IMAP, "OAuth2", "password-cleartext"), using(SMTP, "NTLM", "password-encrypted")),
        (replace(IMAP, user_name="00123x"), replace(SMTP, user_name="%EMAILLOCALPART%")),
    ],
)
def test_nothing_is_said_about_servers_for_all_clients(servers: tuple[MailServer, ...]) -> None:
    assert findings(*servers) == []


@pytest.mark.parametrize(
    ("damaged", "text"),
    [
        (
            using(IMAP, "OAuth2"),
            (
                "OAuth2 only: mail clients know OAuth2 for a fixed list of providers; at others,"
                " Thunderbird, Thunderbird for Android, Delta Chat, Evolution, Nextcloud Mail,"
                " FairEmail, aerc, Outlook, eM Client and Apple profiles cannot log in"
            ),
        ),
        (
            using(IMAP, "GSSAPI"),
            (
                "GSSAPI only: Thunderbird for Android refuses the whole document, and Delta Chat,"
                " Nextcloud Mail, FairEmail, aerc, Outlook, eM Client and Apple profiles cannot log"
                " in"
            ),
        ),
        (
            using(IMAP, "TLS-client-cert"),
            (
                "TLS-client-cert only: Thunderbird for Android refuses the whole document, and"
                " Delta Chat, Evolution, Nextcloud Mail, FairEmail, aerc, Outlook, eM Client and"
                " Apple profiles cannot log in"
            ),
        ),
        (
            using(SMTP, "NTLM", "GSSAPI"),
            (
                "NTLM, GSSAPI only: Thunderbird for Android refuses the whole document, and Delta"
                " Chat, Nextcloud Mail, FairEmail and aerc cannot log in"
            ),
        ),
        (
            using(SMTP, "none"),
            (
                "none only: Thunderbird for Android refuses the whole document, and Delta Chat,"
                " Nextcloud Mail, FairEmail and aerc cannot log in"
            ),
        ),
        (
            replace(IMAP, port=143, socket_type=SocketType.PLAIN),
            "passwords are sent without encryption; Thunderbird for Android refuses this",
        ),
        (
            replace(IMAP, port=143),
            "port and SSL do not fit: Thunderbird takes STARTTLS there if it asks by Autodiscover",
        ),
        (
            replace(SMTP, port=587),
            "port and SSL do not fit: Thunderbird takes STARTTLS there if it asks by Autodiscover",
        ),
        (
            replace(SMTP, port=465, socket_type=SocketType.STARTTLS),
            "port and STARTTLS do not fit: Thunderbird takes SSL there if it asks by Autodiscover",
        ),
        (
            replace(IMAP, hostname="192.0.2.1"),
            "an IP address: SRV records and PACC cannot name it, and few certificates are for it",
        ),
        (
            replace(SMTP, hostname="2001:db8::1"),
            "an IP address: SRV records and PACC cannot name it, and few certificates are for it",
        ),
        (replace(IMAP, user_name="%REALNAME%"), "Thunderbird alone fills in %REALNAME%"),
        (
            replace(IMAP, user_name="00123"),
            "Thunderbird reads the user name 00123 as a number",
        ),
    ],
)
def test_each_server_that_shuts_out_clients_is_named(damaged: MailServer, text: str) -> None:
    servers = [damaged if damaged.type is server.type else server for server in (IMAP, SMTP)]
    host = "[2001:db8::1]" if ":" in damaged.hostname else damaged.hostname
    subject = f"{damaged.type} {host}:{damaged.port} {damaged.socket_type}"
    assert findings(*servers) == [("WARNING", subject, text)]
    (finding,) = check_clients(config(*servers))
    assert finding.advice


def test_each_pop3_server_is_named_where_there_is_no_imap() -> None:
    text = (
        "there is no IMAP server, and Thunderbird for Android, Delta Chat, Nextcloud Mail,"
        " FairEmail and aerc set up no POP3"
    )
    assert findings(POP, replace(POP, port=10995), SMTP) == [
        ("WARNING", "pop3 pop.example.com:995 SSL", text),
        ("WARNING", "pop3 pop.example.com:10995 SSL", text),
    ]


# The clients of the rules, as findings name them.
CLIENTS = {client.name: client for client in clientrules.CLIENTS}
NAMES = {
    **{name: name for name in ("Thunderbird", "Thunderbird for Android", "Delta Chat")},
    **{name: name for name in ("Evolution", "Nextcloud Mail", "FairEmail", "aerc")},
    **dict.fromkeys(("Outlook", "eM Client"), "Outlook, eM Client"),
    "Apple profiles": "iPhone, iPad, Mac",
}


@pytest.mark.parametrize("configuration", clientrules.configurations())
def test_the_clients_that_end_up_with_nothing_are_named(configuration: str) -> None:
    settings = clientrules.configurations()[configuration]
    if settings.missing:
        return  # that there is no server at all is another finding
    found = [finding for finding in check_clients(settings) if finding.level is Level.WARNING]
    named = {
        name
        for name in NAMES
        for finding in found
        # What it takes by Autodiscover alone shuts Thunderbird out by one way only.
        if re.search(rf"\b{name}\b(?! for)(?! takes)", finding.text)
    }
    results = {name: CLIENTS[client].result(settings) for name, client in NAMES.items()}
    assert named == {name for name, result in results.items() if result.startswith("no: ")}


def test_a_server_that_documents_do_not_show_shuts_nobody_out() -> None:
    plain = replace(IMAP, port=143, socket_type=SocketType.PLAIN)
    assert findings(plain, IMAP, using(SMTP, "NTLM"), SMTP) == [
        (
            "OK",
            "imap imap.example.com:143 plain",
            (
                "documents for all clients leave this server out: it has no encryption, and another"
                " server has"
            ),
        ),
        (
            "OK",
            "smtp smtp.example.com:465 SSL",
            (
                "documents for all clients leave this server out: it takes neither a password nor"
                " OAuth2, and another server does"
            ),
        ),
    ]


@pytest.mark.parametrize(("servers", "missing"), [([IMAP], "outgoing"), ([SMTP], "incoming")])
def test_a_missing_direction_is_an_error(servers: list[MailServer], missing: str) -> None:
    assert list(check_config(config(*servers))) == [
        Finding(
            "example.com",
            Level.ERROR,
            "database",
            f"there is no usable {missing} mail server",
            "add one: most clients need one of each kind",
        )
    ]
