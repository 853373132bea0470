"""The load: eight connections of wrk, and the three documents they ask for."""

import math
import os
import re
import statistics
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.report import Table, number
from tests.processes import program

CONNECTIONS = 8

_REQUEST = """<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>alice@example.com</EMailAddress>
    <AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>
  </Request>
</Autodiscover>
"""


@dataclass(frozen=True)
class Document:
    """What a mail client asks for: a path with its query, and a body if it is a POST."""

    name: str
    path: str
    body: str = ""

    def fetch(self, base: str, host: str = "") -> tuple[bytes, str]:
        """Return the bytes of the document and its Content-Type.

        With ``host``, it is asked for at that host name.
        """
        request = urllib.request.Request(f"{base}{self.path}", self.body.encode() or None)
        if host:
            request.add_header("Host", host)
        if self.body:
            request.add_header("Content-Type", "text/xml; charset=utf-8")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read(), answer.headers["Content-Type"]


AUTOCONFIG = Document("Autoconfig", "/mail/config-v1.1.xml?emailaddress=alice@example.com")
AUTODISCOVER = Document("Autodiscover", "/autodiscover/autodiscover.xml", _REQUEST)
MOBILECONFIG = Document("Mobileconfig", "/mobileconfig/?emailaddress=alice@example.com")
DOCUMENTS = (AUTOCONFIG, AUTODISCOVER, MOBILECONFIG)
# All that mail clients and people ask for, at a host name of the domain.
PROTOCOLS = (
    *DOCUMENTS,
    Document("Autodiscover, version 2", "/autodiscover/autodiscover.json?Protocol=AutodiscoverV1"),
    Document("PACC", "/.well-known/user-agent-configuration.json"),
    Document("page", "/?address=alice@example.com"),
)


def load(
    base: str,
    document: Document,
    seconds: int,
    *,
    domains: int = 0,
    unknown: int = 0,
    people: tuple[int, str] | None = None,
    host: str = "",
) -> float:
    """Ask a server for a document as often as it can answer; return the requests per second.

    ``domains`` asks for one of so many domains at random instead, ``unknown`` for one of so many
    that the server does not know, ``people`` for one of so many people of a domain. ``host`` is the
    header Host. An answer that is not a success, or is one for an unknown domain, is an error: it
    would not be the document.
    """
    is_unknown, domains = unknown > 0, domains or unknown
    text = _wrk(
        base, document, seconds, domains=domains, is_unknown=is_unknown, people=people, host=host
    )
    return _value(r"^Requests/sec:\s*([\d.]+)", text)


def latencies(
    base: str, document: Document, seconds: int, *, connections: int, domains: int = 0
) -> tuple[float, float]:
    """Return the median and the 99th percentile of the times of answers, in milliseconds.

    ``domains`` asks for one of so many domains at random instead of the document's.
    """
    text = _wrk(base, document, seconds, domains=domains, connections=connections)
    median, high = (_milliseconds(percent, text) for percent in (50, 99))
    return median, high


def _wrk(
    base: str,
    document: Document,
    seconds: int,
    *,
    domains: int = 0,
    is_unknown: bool = False,
    people: tuple[int, str] | None = None,
    connections: int = CONNECTIONS,
    host: str = "",
) -> str:
    """Run wrk; return what it prints."""
    env = {"BENCH_BODY": document.body} if document.body else {}
    path = document.path
    if domains:
        env |= {"BENCH_DOMAINS": str(domains), "BENCH_PREFIX": "u" if is_unknown else "d"}
        path, query, _ = path.partition("?")
        if not query:
            env["BENCH_FILES"] = "yes"
            path = path.rpartition("/")[0].rpartition("/")[0]
    if people:
        env |= {"BENCH_PEOPLE": str(people[0]), "BENCH_DOMAIN": people[1]}
        path = path.partition("?")[0]
    command = [program("wrk", "wrk"), "--threads=1", "--latency", f"--connections={connections}"]
    command += [f"--duration={seconds}s"]
    if host:
        command.append(f"--header=Host: {host}")
    if env:
        command += [f"--script={Path(__file__).with_name('requests.lua')}"]
    command.append(f"{base}{path}")
    result = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    text = result.stdout
    expected = _value(r"([\d]+) requests in", text) if is_unknown else 0
    refused = _value(r"Non-2xx or 3xx responses: (\d+)", text) if "Non-2xx" in text else 0
    # wrk counts requests that are under way at the end on one side only.
    if abs(expected - refused) > (connections if is_unknown else 0) or "Socket errors" in text:
        raise RuntimeError(f"{document.name}: {text}{result.stderr}")
    return text


def _milliseconds(percent: int, text: str) -> float:
    """Return the time within which a part of the answers came."""
    found = re.search(rf"^ +{percent}%\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(text)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def _value(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise RuntimeError(text)
    return float(found[1])


@dataclass(frozen=True)
class Comparison:
    """The rates of two servers under the same load, in requests per second."""

    first: float
    second: float
    ratio: float  # second to first
    required: float | None

    def add_to(self, table: Table, *cells: str, form: str) -> None:
        """Append a row: cells, rates, ratio, and what is required of it, in a format."""
        table.add(
            *cells,
            number(self.first),
            number(self.second),
            f"{self.ratio:{form}}",
            f"{self.required:{form}}" if self.required else "",
            ok=self.ratio >= self.required if self.required else None,
        )


def compare(
    first: Callable[[int], float],
    second: Callable[[int], float],
    *,
    seconds: int,
    required: float | None,
) -> Comparison:
    """Measure two servers in turn, so that what else the machine does strikes both alike.

    ``first(n)`` and ``second(n)`` load a server for n seconds. The rates are medians, and so is the
    ratio: the median of the ratios of neighbouring runs. They are repeated until it is clear on
    which side of the required ratio theirs is, on a quiet machine after a few; None is for
    information, where three must do.
    """
    for warm_up in (first, second):
        warm_up(1)
    ratios: list[float] = []
    pairs: list[tuple[float, float]] = []
    least, most = (5, 15) if required else (3, 3)
    while len(pairs) < least or (len(pairs) < most and not _is_clear(ratios, required)):
        pairs.append((first(seconds), second(seconds)))
        ratios.append(pairs[-1][1] / pairs[-1][0])
    first_rate, second_rate = map(statistics.median, zip(*pairs, strict=True))
    return Comparison(first_rate, second_rate, statistics.median(ratios), required)


def _is_clear(ratios: list[float], required: float | None) -> bool:
    """Tell whether the median of the ratios is twice its standard error away from a limit."""
    median = statistics.median(ratios)
    deviation = 1.48 * statistics.median(abs(ratio - median) for ratio in ratios)
    error = 1.25 * deviation / math.sqrt(len(ratios))
    return required is None or abs(median - required) > 2 * error
