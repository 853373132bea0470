"""Delta Chat logs in to a mail host whose ports it cannot guess, by each URL that it asks.

Each test has a mail domain of its own: what is denied for one of them stays denied.
"""

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
from tests.clients.hoster import hoster
from tests.clients.mailhost import MailHost, mail_host
from tests.processes import wait_until
from tests.tls import Authority, Certificate

KNOWN = ["first.test", "second.test", "third.test", "fourth.test"]
# One whose document has documentation, webMail, oAuth2 and jmap in it.
DETAILED = "details.test"
UNKNOWN = "unknown.test"
DOMAINS = [*KNOWN, DETAILED, UNKNOWN]
MAIL_HOST = "mx.hoster.test"
PASSWORD = "correct horse"


def questions(domain: str) -> list[str]:
    """Return what Delta Chat asks a domain for alice's servers, in order."""
    return [
        f"GET https://autoconfig.{domain}/mail/config-v1.1.xml?emailaddress=alice%40{domain}",
        f"GET https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml",
        f"GET https://{domain}/autodiscover/autodiscover.xml",
        f"GET https://autodiscover.{domain}/autodiscover/autodiscover.xml",
    ]


def kept(user: str, servers: list[tuple[int, str]]) -> list[dict[str, object]]:
    """Return the servers of the mail host as Delta Chat keeps them."""
    return [
        {"connection": {"host": MAIL_HOST, "port": port, "security": security}, "user": user}
        for port, security in servers
    ]


@pytest.fixture(scope="module")
def addresses() -> Network:
    return network()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    names = [name for domain in DOMAINS for name in (domain, f"*.{domain}")]
    return authority.issue(*names, PROVIDERS, MAIL_HOST)


@pytest.fixture(scope="module")
def mail(addresses: Network, certificate: Certificate) -> Iterator[MailHost]:
    users = {f"alice@{domain}": PASSWORD for domain in (*KNOWN, DETAILED)}
    with tempfile.TemporaryDirectory(prefix="automx-mail-host-") as folder:
        Path(folder).chmod(0o755)
        with mail_host(Path(folder), addresses.mail, certificate, users) as started:
            yield started


@pytest.fixture(scope="module")
def web(
    addresses: Network,
    certificate: Certificate,
    mail: MailHost,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    ports = mail.ports
    servers: list[dict[str, object]] = [
        {"type": kind, "name": MAIL_HOST, "port": port, "socket_type": socket_type, "prio": prio}
        for kind, port, socket_type, prio in (
            ("imap", ports.imap_tls, "SSL", 1),
            ("imap", ports.imap_starttls, "STARTTLS", 2),
            ("smtp", ports.smtp_starttls, "STARTTLS", 1),
            ("smtp", ports.smtp_tls, "SSL", 2),
        )
    ]
    servers.append({"type": "caldav", "url": "https://dav.hoster.test/calendars/"})
    with (
        hoster(tmp_path_factory.mktemp("automx"), KNOWN, servers, detailed=[DETAILED]) as automx,
        front(
            tmp_path_factory.mktemp("front"),
            certificate,
            DOMAINS,
            automx.url,
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
    for domain in DOMAINS:
        for name in (domain, f"autoconfig.{domain}", f"autodiscover.{domain}"):
            hosts[name] = addresses.front
        for guess in ("imap", "smtp", "mail"):
            hosts[f"{guess}.{domain}"] = addresses.nothing
    pins = dict.fromkeys(hosts, certificate.pin)
    with delta_chat(tmp_path_factory.mktemp("deltachat"), hosts, pins) as started:
        yield started


@pytest.mark.parametrize("position", range(4), ids=KNOWN)
def test_logs_in_by_each_of_the_urls_that_it_asks(
    client: DeltaChat, web: Front, mail: MailHost, position: int
) -> None:
    domain = KNOWN[position]
    address = f"alice@{domain}"
    asked = questions(domain)[: position + 1]
    for question in asked[:-1]:
        web.deny(question.removeprefix("GET https://").partition("?")[0])

    settings = client.log_in(address, PASSWORD)

    requests = web.requests(domain)
    assert [str(request) for request in requests] == asked
    assert [request.status for request in requests] == [404] * position + [200]
    ports = mail.ports
    imap = [(ports.imap_tls, "Tls"), (ports.imap_starttls, "Starttls")]
    smtp = [(ports.smtp_starttls, "Starttls"), (ports.smtp_tls, "Tls")]
    if "autodiscover.xml" in asked[-1]:
        # There it reads only that a connection is encrypted, and tries both ways on each port.
        imap, smtp = (
            [(port, security) for port, _ in servers for security in ("Tls", "Starttls")]
            for servers in (imap, smtp)
        )
    assert settings["imap"] == kept(address, imap)
    assert settings["smtp"] == kept(address, smtp)
    wait_until(lambda: mail.logged_in(address), f"logins of {address}")


def test_logs_in_by_a_document_with_all_details_of_the_provider(
    client: DeltaChat, web: Front, mail: MailHost
) -> None:
    address, ports = f"alice@{DETAILED}", mail.ports

    settings = client.log_in(address, PASSWORD)

    assert list(map(str, web.requests(DETAILED))) == questions(DETAILED)[:1]
    imap = [(ports.imap_tls, "Tls"), (ports.imap_starttls, "Starttls")]
    smtp = [(ports.smtp_starttls, "Starttls"), (ports.smtp_tls, "Tls")]
    assert settings["imap"] == kept(address, imap)
    assert settings["smtp"] == kept(address, smtp)
    wait_until(lambda: mail.logged_in(address), f"logins of {address}")


def test_asks_on_for_a_domain_that_automx_does_not_know(client: DeltaChat, web: Front) -> None:
    with pytest.raises(DeltaChatError, match="Could not find your mail server"):
        client.log_in(f"alice@{UNKNOWN}", PASSWORD)

    # It searches once more, for its log, when the search and its own guesses have failed.
    requests = web.requests(UNKNOWN)
    assert [str(request) for request in requests] == questions(UNKNOWN) * 2
    assert {request.status for request in requests} == {404}
    assert f"GET https://{PROVIDERS}/v1.1/{UNKNOWN}" in map(str, web.requests(PROVIDERS))
