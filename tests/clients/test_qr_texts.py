"""Delta Chat reads from our QR codes what was meant: it logs in by nothing else."""

import string
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from automx.address import EmailAddress
from automx.clientconfig import Authentication, ClientConfig, MailServer, ServerType, SocketType
from automx.formats.dclogin import account_text, login_text, short_account_text
from tests.clients.deltachat import DeltaChat, delta_chat, network
from tests.clients.mailhost import MailHost, mail_host
from tests.tls import Authority

MAIL_HOST = "mx.hoster.test"
PASSWORDS = {
    "punctuation": string.punctuation,
    "blanks": "  two  blanks ",
    "percent": "100%25%20+%2B%",
    "international": "Pässwörd ✉ 密码",
    "long": "x" * 200,
}


@pytest.fixture(scope="module")
def client_and_mail(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DeltaChat, MailHost]]:
    """Run a core, and a mail host with a login for each password."""
    address = network().mail
    certificate = authority.issue(MAIL_HOST)
    with tempfile.TemporaryDirectory(prefix="automx-mail-host-") as folder:
        Path(folder).chmod(0o755)
        with (
            mail_host(Path(folder), address, certificate, PASSWORDS) as mail,
            delta_chat(
                tmp_path_factory.mktemp("deltachat"),
                {MAIL_HOST: address},
                {MAIL_HOST: certificate.pin},
            ) as client,
        ):
            yield client, mail


def config(mail: MailHost, login: str, socket_type: SocketType) -> ClientConfig:
    """Return the settings of a person who logs in to the mail host by this name."""
    is_tls = socket_type is SocketType.SSL
    ports = {
        ServerType.IMAP: mail.ports.imap_tls if is_tls else mail.ports.imap_starttls,
        ServerType.SMTP: mail.ports.smtp_tls if is_tls else mail.ports.smtp_starttls,
    }
    method = (Authentication.PASSWORD_CLEARTEXT,)
    servers = (
        MailServer(type_, MAIL_HOST, port, socket_type, login, method)
        for type_, port in ports.items()
    )
    return ClientConfig("example.test", "Example", "Example", tuple(servers), ())


@pytest.mark.parametrize(
    ("local_part", "login", "socket_type"),
    [
        ("alice", "punctuation", SocketType.SSL),
        ("o'neil+x", "blanks", SocketType.STARTTLS),
        ("a/b?c#d%e", "percent", SocketType.SSL),
        ("alice", "international", SocketType.STARTTLS),
        ("alice", "long", SocketType.SSL),
    ],
)
def test_delta_chat_logs_in_with_all_that_a_dclogin_text_says(
    client_and_mail: tuple[DeltaChat, MailHost],
    local_part: str,
    login: str,
    socket_type: SocketType,
) -> None:
    client, mail = client_and_mail
    address = EmailAddress(local_part, "example.test")
    settings = config(mail, login, socket_type)
    text = login_text(address, PASSWORDS[login], settings)

    entered = client.scan(text).entered

    imap, smtp = settings.mail_servers
    security = "Ssl" if socket_type is SocketType.SSL else "Starttls"
    assert entered == {
        "addr": str(address),
        "imap": {
            "server": MAIL_HOST,
            "port": imap.port,
            "folder": "INBOX",
            "security": security,
            "user": login,
            "password": PASSWORDS[login],
        },
        "smtp": {
            "server": MAIL_HOST,
            "port": smtp.port,
            "security": security,
            "user": login,
            "password": "",
        },
        "certificate_checks": "Automatic",
        "oauth2": False,
    }
    assert mail.logged_in(login)


@pytest.mark.parametrize(
    "local_part", ["alice", "o'neil+x", "a/b?c#d%e", "!$&*=_-.{^`|}~", "jürgen", "用户"]
)
def test_delta_chat_reads_the_address_of_a_dclogin_text(
    client_and_mail: tuple[DeltaChat, MailHost], local_part: str
) -> None:
    client, _ = client_and_mail
    address = EmailAddress.parse(f"{local_part}@bücher.example")
    found = client.call("check_qr", client.call("add_account"), login_text(address, "x"))
    assert found == {"kind": "login", "address": f"{local_part}@xn--bcher-kva.example"}


@pytest.mark.parametrize(
    "web_endpoint", ["https://mail.example.org", "https://mail.example.org:8443/new_email"]
)
def test_delta_chat_takes_the_text_of_a_token_for_an_account(
    client_and_mail: tuple[DeltaChat, MailHost], web_endpoint: str
) -> None:
    client, _ = client_and_mail
    text = account_text(web_endpoint, "1w_7rTq/+", "Sommer & Söhne")
    found = client.call("check_qr", client.call("add_account"), text)
    assert found == {"kind": "account", "domain": "mail.example.org"}


@pytest.mark.parametrize("domain", ["example.org", "xn--bcher-kva.example"])
def test_delta_chat_takes_a_domain_for_an_account(
    client_and_mail: tuple[DeltaChat, MailHost], domain: str
) -> None:
    client, _ = client_and_mail
    found = client.call("check_qr", client.call("add_account"), short_account_text(domain))
    assert found == {"kind": "account", "domain": domain}
