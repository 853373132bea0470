"""The doctor and odd servers: whatever they answer is a finding, and never a traceback."""

import random
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import dns.message
import dns.resolver
import dns.rrset
import pytest

from automx.check.http import ask, follow, target
from automx.check.mail import MailChecks
from automx.check.mx import MxChecks
from automx.check.network import Network, NetworkError
from automx.check.records import RecordChecks
from automx.check.web import WebChecks
from automx.clientconfig import (
    ServerType,
)
from tests.fakenetwork import CONFIG, IMAP, FakeNetwork, findings

URL = "https://autoconfig.example.com/mail/config-v1.1.xml"

LOCATIONS = [
    *("https://[bad/", "https://]/", "https://[::1/", "https://[1:2:3:4:5:6:7:8:9]/", "https://"),
    *(
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:x/",
        "https:///",
    ),
    *("//[", "//", "[", "https:", "javascript:alert(1)", "https://user:pw@[x/", "\x00", "http://["),
    *("https://\u2100.com/", "https://a\u2044b/", "https://\ud800/", "https://ex ample.com:1:2/"),
]
BAD_NAMES = [
    *("https://a..b/", f"https://{'a' * 64}.test/", f"https://{'a.' * 200}test/", "https://xn--a/"),
    *(
        "https://.test/",
        "https://\u00e9\u0301\u200b.test/",
        "https://-/",
        "https://*/",
        "https://%00/",
    ),
    *("https://\\000/", "https://1.2.3/", "https://0x7f.1/", "https://[fe80::1%25eth0]/"),
]


def redirect(location: str) -> bytes:
    octets = location.encode("utf-8", "surrogatepass")
    return b"HTTP/1.1 302 Found\r\nLocation: " + octets + b"\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("location", LOCATIONS, ids=ascii)
def test_a_redirect_to_no_url_is_told(location: str) -> None:
    with closing(FakeNetwork(redirect(location))) as network, pytest.raises(NetworkError) as error:
        follow(network, URL, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("location", [*LOCATIONS, *BAD_NAMES], ids=ascii)
def test_each_check_of_the_web_server_survives_a_redirect(location: str) -> None:
    with closing(FakeNetwork(redirect(location))) as network:
        checks = WebChecks("example.com", network, CONFIG, "automx.example.com")
        found = [finding for check in checks.checks() for finding in findings(check)]
    assert found
    assert all(finding.text for finding in found)


def test_an_odd_name_is_a_network_error() -> None:
    """Such as one that a redirect leads to, by the real resolver."""
    network = Network(name_server="127.0.0.1", port=9, timeout=0.02)
    for url in [*LOCATIONS, *BAD_NAMES]:
        with pytest.raises(NetworkError):
            ask(network, url)


def test_a_redirect_is_resolved_as_clients_do() -> None:
    for location, url in {
        "/x": "https://autoconfig.example.com/x",
        "HTTPS://Example.org/": "https://Example.org/",
        "//example.org/y": "https://example.org/y",
        "http://example.org/": "http://example.org/",
    }.items():
        assert target(URL, location) == url


GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 5\r\n\r\n<xml>"
GARBAGE = [
    *(b"", b"\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 999 X\r\n\r\n", b"HTTP/1.1 -1 X\r\n\r\n"),
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1e9\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n:\r\n \xff\x00\r\nContent-Type\r\n\r\n",
    b'HTTP/1.1 200 OK\r\nContent-Type: \xff\x80;=;"\r\nContent-Length: 0\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    b"\x16\x03\x01\x02\x00" * 20,
    b"\x00" * 1000,
]


def mutations(number: int) -> Iterator[bytes]:
    """Yield answers with octets changed, removed and repeated."""
    chance = random.Random(5)
    for _ in range(number):
        octets = bytearray(chance.choice([GOOD, redirect("https://example.org/"), *GARBAGE]))
        for _ in range(chance.randint(1, 6)):
            place = chance.randint(0, len(octets))
            octets[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 4))
        yield bytes(octets)


def test_garbage_in_the_place_of_http_is_an_answer_or_a_network_error() -> None:
    for octets in [*GARBAGE, *mutations(300)]:
        with closing(FakeNetwork(octets)) as network, suppress(NetworkError):
            assert isinstance(ask(network, URL).location, str)


@pytest.mark.parametrize("type_", ServerType)
def test_garbage_in_the_place_of_a_mail_server_is_a_finding(type_: ServerType) -> None:
    greetings = [
        b"* OK hi\r\na OK\r\n",
        b"220 x\r\n250 x\r\n220 x\r\n",
        b"+OK\r\n+OK\r\n",
        b'"A"\r\nOK\r\n',
    ]
    for octets in [*GARBAGE, *greetings, *mutations(20)]:
        config = replace(CONFIG, mail_servers=(replace(IMAP, type=type_),))
        with closing(FakeNetwork(octets)) as network:
            for check in MailChecks("example.com", network, config).checks():
                list(findings(check))


RECORDS = {
    "SRV": ["0 0 443 .", r"65535 65535 0 a\.b\032c.\000.", "1 2 3 xn--a.", "0 0 443 1.2.3.4."],
    "TXT": ['""', r'"\000\255\"" "x"', '"v=UAAC1;"', '"' + "x" * 255 + '"', r'"\027[2J"'],
    "CNAME": [".", r"\..", "*."],
    "MX": ["0 .", r"65535 \.a\032.", "1 1.2.3.4.", "2 *.xn--a."],
    "A": ["0.0.0.0", "255.255.255.255"],
    "AAAA": ["::", "::ffff:127.0.0.1", "fe80::1"],
}


def test_odd_records_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(name_server="127.0.0.1", port=9, timeout=0.02)
    for type_, data in [(type_, data) for type_, odd in RECORDS.items() for data in odd]:
        network._answers.clear()

        def resolve(name: str, wanted: str, **_: object) -> dns.resolver.Answer:
            query = dns.message.make_query(name, wanted)
            response: Any = dns.message.make_response(query)
            if wanted == type_:  # noqa: B023 - called within the loop
                response.answer.append(dns.rrset.from_text(name, 60, "IN", type_, data))  # noqa: B023
            question = query.question[0]
            return dns.resolver.Answer(question.name, question.rdtype, question.rdclass, response)

        monkeypatch.setattr(network._resolver, "resolve", resolve)
        records = RecordChecks("example.com", network, CONFIG, "automx.example.com")
        for check in (*records.checks(), *MxChecks("example.com", network, CONFIG).checks()):
            list(findings(check))
