"""The doctor compares MX records with the mail servers of a domain, on a real name server."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from automx.check.finding import Finding, Level
from automx.check.mx import MxChecks
from automx.check.network import Network
from automx.clientconfig import MailServer
from tests.examples import IMAP, SMTP, config
from tests.nameserver import name_server

COMMON = """\
imap.hoster.test. IN A 192.0.2.1
smtp.hoster.test. IN CNAME imap.hoster.test.
same.other.test. IN A 192.0.2.1
far.other.test. IN A 192.0.2.9
six.other.test. IN AAAA 2001:db8::1
"""
ADVICE = "switch it off if so; a filter in front of the mail servers is fine"


@dataclass(frozen=True)
class Case:
    """The MX records of a domain; ``elsewhere`` is what is told of them, None for nothing."""

    mx: tuple[str, ...]
    elsewhere: str | None = None
    hosts: tuple[str, ...] = ("imap.hoster.test", "smtp.hoster.test")


CASES = {
    "none": Case(()),
    "same-host": Case(("10 imap.hoster.test.",)),
    "same-domain": Case(("10 mx1.in.HOSTER.test.",)),
    "same-address": Case(("10 same.other.test.",)),
    "one-of-two": Case(("10 far.other.test.", "20 mx.hoster.test.")),
    "placeholder": Case(("10 mx.placeholder.test.",), hosts=("imap.%EMAILDOMAIN%",)),
    "ip": Case(("10 same.other.test.",), hosts=("192.0.2.1",)),
    "ip-v6": Case(("10 six.other.test.",), hosts=("2001:db8::1",)),
    "personal": Case(("10 far.other.test.",), hosts=("%EMAILLOCALPART%.hoster.test",)),
    "lost-zone": Case(("10 mx.lost.", "20 far.other.test.")),  # that zone gives no answer
    "far": Case(("10 far.other.test.",), "far.other.test"),
    "by-preference": Case(("20 gone.other.test.", "10 far.other.test."),
                          "far.other.test, gone.other.test"),
    "many": Case(tuple(f"{i} m{i}.other.test." for i in range(5)),
                 "m0.other.test, m1.other.test, m2.other.test …"),
    "own-name": Case(("10 mail.own-name.test.",), "mail.own-name.test"),
    "other-co-uk": Case(("10 mx.other.co.uk.",), "mx.other.co.uk", hosts=("imap.hoster.co.uk",)),
    "same-co-uk": Case(("10 mx.hoster.co.uk.",), hosts=("imap.hoster.co.uk",)),
    "short": Case(("10 mx.gmx.de.",), hosts=("imap.gmx.de",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Return a network whose only name server knows all cases."""
    zone = COMMON + "null.test. IN MX 0 .\n"
    for name, case in CASES.items():
        zone += f"{name}.test. IN A 192.0.2.7\n"
        zone += "".join(f"{name}.test. IN MX {mx}\n" for mx in case.mx)
    zones = {"test": zone, "lost": None, "uk": "", "de": ""}
    with name_server(tmp_path_factory.mktemp("names") / "names", zones) as started:
        yield Network(name_server="127.0.0.1", port=started.port)


def found(network: Network, domain: str, *hosts: str) -> list[Finding]:
    servers: list[MailServer] = [replace(IMAP, hostname=host) for host in hosts]
    settings = replace(config(IMAP, SMTP), domain=domain, mail_servers=tuple(servers))
    findings = []
    for check in MxChecks(domain, network, settings).checks():
        findings += [item for item in check() if isinstance(item, Finding)]
    return findings


@pytest.mark.parametrize("name", CASES)
def test_mail_elsewhere_is_a_hint(network: Network, name: str) -> None:
    case, domain = CASES[name], f"{name}.test"
    verb = "is" if len(case.mx) == 1 else "are"
    text = (
        f"mail for {domain} is delivered to {case.elsewhere} (MX), which {verb} none of its mail"
        " servers: is the domain elsewhere?"
    )
    expected = [Finding(domain, Level.WARNING, domain, text, ADVICE)] if case.elsewhere else []
    assert found(network, domain, *case.hosts) == expected


def test_a_domain_that_accepts_no_mail_is_told(network: Network) -> None:
    text = "the MX record says that the domain accepts no mail (RFC 7505)"
    advice = "correct it, or switch the domain off"
    warning = Finding("null.test", Level.WARNING, "null.test", text, advice)
    assert found(network, "null.test", "imap.hoster.test") == [warning]


def test_a_domain_without_answer_is_left_to_other_checks(network: Network) -> None:
    assert found(network, "gone.test", "imap.hoster.test") == []
    assert found(network, "lost", "imap.hoster.test") == []
