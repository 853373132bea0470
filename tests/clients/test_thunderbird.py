"""Thunderbird, of Debian, finds its servers in every way that it knows.

Each test has mail domains of its own: what is denied for one of them stays denied, and Thunderbird
may remember answers.
"""

import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest

from automx.address import EmailAddress
from tests import clientrules
from tests.clients.front import Front, front
from tests.clients.hoster import NAME, hoster
from tests.clients.thunderbird import PROVIDERS, Configuration, Server, Thunderbird, thunderbird
from tests.processes import Server as Automx
from tests.tls import Authority

KNOWN = [
    "autoconfig.test",
    "well-known.test",
    "autodiscover.test",
    "bare-autodiscover.test",
    "upper-case.test",
    "müller.test",
    "database.test",
    "customer-1.test",
    "customer-2.test",
]
# One whose document has documentation, webMail, oAuth2 and jmap in it.
DETAILED = "details.test"
# Configurations of the table in docs/clients.md that are more than a first server for everybody.
CONFIGURED = {
    "fall-backs.test": "TLS, and plain fall-backs",
    "plain-pop.test": "STARTTLS, and plain POP3",
    "two-servers.test": "Kerberos and password on two servers",
    "kerberos.test": "Kerberos only",
    "ntlm.test": "NTLM only",
    "no-login.test": "Submission without login only",
    "ipv6.test": "IPv6 addresses",
    "domain-login.test": "Login `DOMAIN\\name`",
    "named-hosts.test": "Hosts named after the domain",
    "incomplete.test": "No server to send",
}
# The domains with a web server: those of the customers have none, those of their hosters do.
SERVED = [
    *(domain for domain in KNOWN if domain.isascii() and not domain.startswith("customer")),
    "xn--mller-kva.test",
    DETAILED,
    *CONFIGURED,
    "unknown.test",
    "hoster-1.test",
    "hoster-2.test",
    "hoster-3.test",
]

SERVERS: list[dict[str, object]] = [
    {"type": "imap", "name": "imap.hoster.test", "port": 993, "prio": 1},
    {
        "type": "imap",
        "name": "imap.hoster.test",
        "port": 143,
        "prio": 2,
        "authentication": "password-encrypted",
    },
    {
        "type": "pop",
        "name": "pop.hoster.test",
        "port": 10995,
        "prio": 3,
        "socket_type": "SSL",
        "user_name": "%EMAILLOCALPART%",
    },
    {"type": "smtp", "name": "smtp.hoster.test", "port": 465, "prio": 1},
    {"type": "smtp", "name": "smtp.hoster.test", "port": 587, "prio": 2},
    {"type": "caldav", "url": "https://dav.hoster.test/calendars/"},
    {"type": "carddav", "url": "https://dav.hoster.test/contacts/"},
]


def by_autoconfig(address: str, *, domain: str, source: str) -> Configuration:
    """Return the whole configuration that Autoconfig has to give for an address."""
    local_part = address.partition("@")[0]
    imap, pop, smtp = "imap.hoster.test", "pop.hoster.test", "smtp.hoster.test"
    password, encrypted = "passwordCleartext", "passwordEncrypted"
    return Configuration(
        source=source,
        id=domain,
        display_name=NAME,
        domains=[domain],
        complete=True,
        incoming=[
            Server("imap", imap, 993, "SSL", password, address, {}),
            Server("imap", imap, 143, "alwaysSTARTTLS", encrypted, address, {}),
            Server("pop3", pop, 10995, "SSL", password, local_part, {}),
        ],
        outgoing=[
            Server("smtp", smtp, 465, "SSL", password, address, {}),
            # Thunderbird fills in the placeholders of alternatives for incoming mail only.
            Server("smtp", smtp, 587, "alwaysSTARTTLS", password, "%EMAILADDRESS%", {}),
        ],
    )


def by_autodiscover(address: str, *, source: str) -> Configuration:
    """Return the whole configuration that Autodiscover has to give for an address."""
    local_part = address.partition("@")[0]
    imap, pop, smtp = "imap.hoster.test", "pop.hoster.test", "smtp.hoster.test"
    password = "passwordCleartext"
    return Configuration(
        source=source,
        id=None,
        display_name=None,
        domains=[],
        complete=True,
        incoming=[
            Server("imap", imap, 993, "SSL", password, address, {}),
            Server("imap", imap, 143, "alwaysSTARTTLS", password, address, {}),
            Server("pop3", pop, 10995, "SSL", password, local_part, {}),
        ],
        outgoing=[
            Server("smtp", smtp, 465, "SSL", password, address, {}),
            Server("smtp", smtp, 587, "alwaysSTARTTLS", password, address, {}),
        ],
    )


@pytest.fixture(scope="module")
def automx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Automx]:
    folder = tmp_path_factory.mktemp("automx")
    others = {domain: clientrules.servers()[name] for domain, name in CONFIGURED.items()}
    with hoster(folder, KNOWN, SERVERS, detailed=[DETAILED], others=others) as started:
        yield started


@pytest.fixture(scope="module")
def web(
    automx: Automx, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    names = [name for domain in SERVED for name in (domain, f"*.{domain}")]
    certificate = authority.issue(*names, "autoconfig.mail.hoster-1.test", PROVIDERS)
    with front(tmp_path_factory.mktemp("front"), certificate, SERVED, automx.url) as started:
        yield started


@pytest.fixture(scope="module")
def client(
    web: Front, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Thunderbird]:
    with thunderbird(tmp_path_factory.mktemp("thunderbird"), web, authority.root) as started:
        yield started


def test_finds_its_servers_by_the_autoconfig_host_name(client: Thunderbird, web: Front) -> None:
    domain = "autoconfig.test"
    web.deny(domain, f"autodiscover.{domain}")

    found = client.find(f"alice@{domain}")

    assert found == by_autoconfig(f"alice@{domain}", domain=domain, source="xml-from-isp-https")
    assert web.answered(domain) == {f"autoconfig.{domain}/mail/config-v1.1.xml"}


def test_finds_its_servers_in_a_document_with_all_details_of_the_provider(
    client: Thunderbird, web: Front
) -> None:
    web.deny(f"autodiscover.{DETAILED}", DETAILED)

    found = client.find(f"alice@{DETAILED}")

    assert found == by_autoconfig(f"alice@{DETAILED}", domain=DETAILED, source="xml-from-isp-https")
    assert web.answered(DETAILED) == {f"autoconfig.{DETAILED}/mail/config-v1.1.xml"}


@pytest.mark.parametrize(("domain", "name"), CONFIGURED.items())
def test_ends_up_with_what_the_table_of_clients_says(
    client: Thunderbird, web: Front, domain: str, name: str
) -> None:
    web.deny(f"autodiscover.{domain}", f"{domain}/autodiscover/autodiscover.xml")
    address = EmailAddress("alice", domain)
    config = clientrules.configurations()[name]
    expected = clientrules.CLIENTS[0].result(config)
    assert clientrules.CLIENTS[0].name == "Thunderbird"

    found = client.find(str(address))

    if expected == "no: no document":
        assert found is None
        return
    assert found is not None
    assert f"{found.incoming[0].port}/{found.outgoing[0].port}" == expected
    shown = replace(config, domain=domain).for_address(address).general()
    assert [
        (server.type, server.hostname, server.port, server.username)
        for server in (*found.incoming, *found.outgoing)
    ] == [
        (server.type, server.hostname, server.port, server.user_name)
        for server in (*shown.incoming, *shown.outgoing)
    ]


def test_finds_its_servers_by_the_well_known_url(client: Thunderbird, web: Front) -> None:
    domain = "well-known.test"
    web.deny(f"autoconfig.{domain}", f"autodiscover.{domain}")
    web.deny(f"{domain}/autodiscover/autodiscover.xml")

    found = client.find(f"alice@{domain}")

    assert found == by_autoconfig(f"alice@{domain}", domain=domain, source="xml-from-isp-https")
    assert web.answered(domain) == {f"{domain}/.well-known/autoconfig/mail/config-v1.1.xml"}


def test_finds_its_servers_by_autodiscover_and_its_password_is_not_logged(
    client: Thunderbird, web: Front, automx: Automx
) -> None:
    domain, password = "autodiscover.test", "correct horse"
    address = f"alice@{domain}"
    web.deny(domain, f"autoconfig.{domain}")

    found = client.find(address, password=password)

    assert found == by_autodiscover(address, source="exchange-from-url1")
    assert web.answered(domain) == {f"autodiscover.{domain}/autodiscover/autodiscover.xml"}
    # The password did travel, although nobody had asked for it.
    assert address in {r.basic_user for r in web.requests(domain) if r.status == 200}
    assert "/autodiscover/autodiscover.xml" in automx.output
    credentials = base64.b64encode(f"{address}:{password}".encode()).decode()
    for secret in (password, credentials, "Authorization", "Basic "):
        assert secret not in automx.output


def test_finds_its_servers_by_autodiscover_of_the_bare_domain(
    client: Thunderbird, web: Front
) -> None:
    domain = "bare-autodiscover.test"
    web.deny(f"autoconfig.{domain}", f"autodiscover.{domain}")
    web.deny(f"{domain}/.well-known/autoconfig/mail/config-v1.1.xml")

    found = client.find(f"alice@{domain}", password="secret")

    assert found == by_autodiscover(f"alice@{domain}", source="exchange-from-url2")
    assert web.answered(domain) == {f"{domain}/autodiscover/autodiscover.xml"}


def test_finds_its_servers_for_an_address_typed_in_upper_case(
    client: Thunderbird, web: Front
) -> None:
    found = client.find("Alice@UPPER-CASE.Test")

    assert found == by_autoconfig(
        "Alice@UPPER-CASE.Test", domain="upper-case.test", source="xml-from-isp-https"
    )
    assert (
        "GET https://autoconfig.upper-case.test/mail/config-v1.1.xml"
        "?emailaddress=Alice%40UPPER-CASE.Test"
    ) in map(str, web.requests("upper-case.test"))


def test_finds_its_servers_for_a_domain_beyond_ascii_typed_in_ascii(client: Thunderbird) -> None:
    # For alice@müller.test it asks nobody: its own check of host names knows only ASCII.
    address = "alice@xn--mller-kva.test"

    found = client.find(address)

    assert found == by_autoconfig(address, domain="xn--mller-kva.test", source="xml-from-isp-https")


def test_finds_its_servers_on_the_mail_exchanger_without_its_first_label(
    client: Thunderbird, web: Front
) -> None:
    domain, hoster_domain = "customer-1.test", "hoster-1.test"
    web.deny(f"autoconfig.{hoster_domain}")

    found = client.find(f"alice@{domain}", mail_exchangers={domain: f"mx1.mail.{hoster_domain}"})

    assert found == by_autoconfig(f"alice@{domain}", domain=domain, source="xml-from-isp-https")
    assert web.answered(hoster_domain) == {f"autoconfig.mail.{hoster_domain}/mail/config-v1.1.xml"}


def test_finds_its_servers_on_the_base_domain_of_the_mail_exchanger(
    client: Thunderbird, web: Front
) -> None:
    domain, hoster_domain = "customer-2.test", "hoster-2.test"

    found = client.find(f"alice@{domain}", mail_exchangers={domain: f"mx1.mail.{hoster_domain}"})

    # autoconfig.mail.hoster-2.test is not in the certificate.
    assert found == by_autoconfig(f"alice@{domain}", domain=domain, source="xml-from-isp-https")
    assert web.answered(hoster_domain) == {f"autoconfig.{hoster_domain}/mail/config-v1.1.xml"}


def test_finds_its_servers_where_an_administrator_sends_it(client: Thunderbird, web: Front) -> None:
    domain = "database.test"
    web.deny(domain, f"autoconfig.{domain}", f"autodiscover.{domain}")
    database = "https://database.hoster-3.test/v1.1/"

    with client.preference("mailnews.auto_config_url", database):
        found = client.find(f"alice@{domain}")

    assert found == by_autoconfig(f"alice@{domain}", domain=domain, source="xml-from-db")


def test_asks_on_for_a_domain_that_automx_does_not_know(client: Thunderbird, web: Front) -> None:
    domain, hoster_domain = "unknown.test", "hoster-2.test"
    found = client.find(
        f"alice@{domain}", password="secret", mail_exchangers={domain: f"mx1.{hoster_domain}"}
    )

    assert found is None
    path = f"mail/config-v1.1.xml?emailaddress=alice%40{domain}"
    assert {str(request): request.status for request in web.requests(domain)} == {
        f"GET https://autoconfig.{domain}/{path}": 404,
        f"GET http://autoconfig.{domain}/{path}": 404,
        f"GET https://{domain}/.well-known/autoconfig/{path}": 404,
        f"GET http://{domain}/.well-known/autoconfig/{path}": 404,
        f"POST https://autodiscover.{domain}/autodiscover/autodiscover.xml": 404,
        f"POST https://{domain}/autodiscover/autodiscover.xml": 404,
        f"POST http://autodiscover.{domain}/autodiscover/autodiscover.xml": 404,
    }
    assert f"GET https://{PROVIDERS}/autoconfig/v1.1/{domain}" in map(str, web.requests(PROVIDERS))
    assert f"GET https://autoconfig.{hoster_domain}/{path}" in map(str, web.requests(hoster_domain))
