"""Delta Chat scans a QR code, and has a mailbox in a real Dovecot that it can use at once."""

import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.deltachat import (
    PROVIDERS,
    DeltaChat,
    DeltaChatError,
    Network,
    delta_chat,
    network,
)
from tests.clients.front import Front, front
from tests.clients.hoster import hoster, settings
from tests.clients.mailhost import MailHost, mail_host
from tests.commandline import automx
from tests.processes import REPOSITORY, wait_until
from tests.tls import Authority, Certificate

DOMAIN = "chat.test"
WEB = f"new.{DOMAIN}"
MAIL_HOST = "mx.hoster.test"
PROGRAM = REPOSITORY / "contrib" / "accounts-dovecot"


@pytest.fixture(scope="module")
def addresses() -> Network:
    return network()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue(DOMAIN, f"*.{DOMAIN}", PROVIDERS, MAIL_HOST)


@pytest.fixture(scope="module")
def mail(addresses: Network, certificate: Certificate) -> Iterator[MailHost]:
    with tempfile.TemporaryDirectory(prefix="automx-mail-host-") as folder:
        Path(folder).chmod(0o755)
        with mail_host(Path(folder), addresses.mail, certificate, {}) as started:
            yield started


@pytest.fixture(scope="module")
def env(mail: MailHost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a service whose accounts are made in Dovecot."""
    return settings(tmp_path_factory.mktemp("automx")) | {
        "AUTOMX_WEB_ENDPOINT": f"https://{WEB}/new_email",
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": shlex.join([str(PROGRAM), str(mail.users)]),
    }


@pytest.fixture(scope="module")
def web(
    addresses: Network,
    certificate: Certificate,
    mail: MailHost,
    env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    servers: list[dict[str, object]] = [
        {"type": "imap", "name": MAIL_HOST, "port": mail.ports.imap_tls, "socket_type": "SSL"},
        {"type": "smtp", "name": MAIL_HOST, "port": mail.ports.smtp_tls, "socket_type": "SSL"},
    ]
    folder = Path(env["AUTOMX_DB_URI"].removeprefix("sqlite:///")).parent
    with (
        hoster(folder, [DOMAIN], servers, env) as server,
        front(
            tmp_path_factory.mktemp("front"),
            certificate,
            [DOMAIN],
            server.url,
            address=addresses.front,
            https_port=443,
        ) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def client(
    addresses: Network,
    certificate: Certificate,
    web: Front,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DeltaChat]:
    hosts = {MAIL_HOST: addresses.mail, PROVIDERS: addresses.front}
    hosts |= dict.fromkeys((WEB, DOMAIN, f"autoconfig.{DOMAIN}"), web.address)
    hosts |= {f"{guess}.{DOMAIN}": addresses.nothing for guess in ("imap", "smtp", "mail")}
    pins = dict.fromkeys(hosts, certificate.pin)
    with delta_chat(tmp_path_factory.mktemp("deltachat"), hosts, pins) as started:
        yield started


def new_token(env: dict[str, str], name: str, *options: str) -> str:
    """Make a token, and return the text of its QR code."""
    printed = automx("token", "add", name, "--domain", DOMAIN, *options, "--json", env=env)
    text: str = json.loads(printed)["dcaccount"]
    return text


def test_a_scanned_token_makes_a_mailbox_that_is_used_at_once(
    client: DeltaChat, web: Front, mail: MailHost, env: dict[str, str]
) -> None:
    text = new_token(env, "school", "--expiry", "1w")
    assert text.startswith(f"DCACCOUNT:https://{WEB}/new_email?t=")

    transport = client.scan(text)

    address = transport.entered["addr"]
    assert address.endswith(f"@{DOMAIN}")
    assert address.startswith("tmp.")
    assert f"{address}:" in mail.users.read_text()
    wait_until(lambda: mail.logged_in(address), f"logins of {address}")
    connection = {"host": MAIL_HOST, "port": mail.ports.imap_tls, "security": "Tls"}
    assert transport.configured["imap"] == [{"connection": connection, "user": address}]
    [asked, *rest] = [str(request) for request in web.requests(DOMAIN)]
    assert asked == f"POST {text.removeprefix('DCACCOUNT:')}"
    query = f"emailaddress={address.replace('@', '%40')}"
    assert rest == [f"GET https://autoconfig.{DOMAIN}/mail/config-v1.1.xml?{query}"]
    shown = json.loads(automx("account", "show", address, "--json", env=env))
    assert (shown["state"], shown["token"], shown["backend"]) == ("active", "school", "command")


def test_a_token_that_is_used_up_shows_our_reason(client: DeltaChat, env: dict[str, str]) -> None:
    text = new_token(env, "once", "--maxuse", "1")
    client.scan(text)
    with pytest.raises(DeltaChatError) as caught:
        client.scan(text)
    assert "This QR code has been used as often as it may be. Please ask for a new one." in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["revoke"], "This QR code has been withdrawn. Please ask for a new one."),
        (["del"], "This QR code is not known here. Please ask for a new one."),
    ],
)
def test_a_token_that_is_gone_shows_our_reason(
    client: DeltaChat, env: dict[str, str], change: list[str], reason: str
) -> None:
    text = new_token(env, f"gone-{change[0]}")
    automx("token", *change, f"gone-{change[0]}", env=env)
    with pytest.raises(DeltaChatError) as caught:
        client.scan(text)
    assert reason in str(caught.value)


def test_a_dclogin_code_logs_in_with_nothing_typed(
    client: DeltaChat, mail: MailHost, env: dict[str, str]
) -> None:
    new_token(env, "by-hand")
    made = json.loads(automx("account", "add", "--token", "by-hand", "--json", env=env))
    printed = automx(
        "dclogin", made["address"], "--password-stdin", "--json", env=env, stdin=made["password"]
    )
    transport = client.scan(json.loads(printed)["dclogin_url"])
    assert transport.entered["addr"] == made["address"]
    wait_until(lambda: mail.logged_in(made["address"]), f"logins of {made['address']}")


def test_the_code_of_a_new_account_on_odd_ports_needs_no_web_server(
    client: DeltaChat, web: Front, mail: MailHost, env: dict[str, str]
) -> None:
    new_token(env, "at-home")
    made = json.loads(automx("account", "add", "--token", "at-home", "--json", env=env))
    asked = len(web.requests(DOMAIN))
    transport = client.scan(made["dclogin_url"])
    assert transport.entered["imap"]["port"] == mail.ports.imap_tls
    assert transport.entered["smtp"]["port"] == mail.ports.smtp_tls
    assert len(web.requests(DOMAIN)) == asked
    wait_until(lambda: mail.logged_in(made["address"]), f"logins of {made['address']}")


def test_a_deleted_account_cannot_log_in_any_more(
    client: DeltaChat, mail: MailHost, env: dict[str, str]
) -> None:
    new_token(env, "short")
    made = json.loads(automx("account", "add", "--token", "short", "--json", env=env))
    client.log_in(made["address"], made["password"])
    automx("account", "del", made["address"], "--yes", env=env)
    assert f"{made['address']}:" not in mail.users.read_text()
    assert not mail.knows(made["address"], made["password"])
    with pytest.raises(DeltaChatError):
        client.log_in(made["address"], made["password"])
