"""Targets: addresses, domains, hosts, headers of proxies, paths, placeholders, times."""

from collections.abc import Callable
from datetime import UTC, datetime, time
from urllib.parse import unquote

from automx import edge
from automx.address import (
    MAX_ADDRESS_OCTETS,
    PLACEHOLDER,
    EmailAddress,
    expand,
    expand_url,
    fill_in,
    fill_in_url,
    is_ip,
    is_loopback,
    parse_domain,
    parse_host,
    shared_url,
    spellings,
    unicode_domain,
)
from automx.duration import LONGEST, format_duration, parse_duration
from automx.errors import AddressError
from automx.moments import iso, parse_moment
from automx.views.paths import normal
from tests.fuzz.promises import keep, one_line, refusing, target, text_of

ALICE = EmailAddress("Alice+x", "example.com")


@target
def email_address(data: bytes) -> None:
    with refusing(AddressError):
        address = EmailAddress.parse(text_of(data))
        keep(EmailAddress.parse(str(address)) == address, "its normal form is read as the same")
        keep(EmailAddress.parse(address.for_people) == address, "so is the form for people")
        keep(len(str(address).encode()) <= MAX_ADDRESS_OCTETS + 255, "its length has a limit")
        keep(str(address).isprintable() and " " not in str(address), "it is printable")
        keep(address.url_local_part.isascii(), "a URL is ASCII")
        keep(unquote(address.url_local_part) == address.local_part, "a URL can be decoded")


@target
def domain(data: bytes) -> None:
    with refusing(AddressError):
        name = parse_domain(text_of(data))
        keep(name.isascii() and len(name) <= 253 and name == name.lower(), "it is an A-label")
        keep(parse_domain(name) == name, "its normal form is read as the same")
        keep(parse_domain(unicode_domain(name)) == name, "so is its U-label")
        keep(name in spellings(name), "it is one of its spellings")


@target
def host(data: bytes) -> None:
    text = text_of(data)
    keep(not is_loopback(text) or is_ip(text) or text.lower() == "localhost", "loopback is known")
    with refusing(AddressError):
        name = parse_host(text)
        keep(parse_host(name) == name, "its normal form is read as the same")
        keep(name.isprintable() and not set("[]@/ ") & set(name), "it can stand in a URL")


# The variables that a request has, by the line of the input in which the value stands.
_VARIABLES = (
    *("HTTP_HOST", "REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST"),
    *(
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_FORWARDED_PREFIX",
        "RAW_URI",
        "wsgi.url_scheme",
        "REQUEST_METHOD",
    ),
)


@target
def forwarded(data: bytes) -> None:
    """Read the headers of proxies: the first byte is the number of those that are trusted."""
    lines = data[1:].decode("latin-1").split("\n")
    environ = {"wsgi.url_scheme": "http", "REQUEST_METHOD": "GET"}
    environ |= {name: value for name, value in zip(_VARIABLES, lines, strict=False) if value}
    found = edge.read(environ, data[0] % 4 if data else 0)
    keep(found.client == edge.UNKNOWN or is_ip(found.client), "the client is an address")
    keep(environ["REMOTE_ADDR"] == found.client, "and stands in the environment")
    keep(environ["wsgi.url_scheme"] in {"http", "https"}, "the scheme is known")
    prefix = environ.get("SCRIPT_NAME", "")
    keep(not prefix.endswith("/") and "//" not in prefix and prefix.isprintable(), "a prefix")
    keep("/.." not in prefix, "a prefix leads down")
    if found.error:
        one_line(str(found.error))
        keep(not found.host, "what is malformed has no host")
    elif asked := environ["HTTP_HOST"]:
        keep(edge.parse_authority(asked) == (found.host, found.port), "the host is read again")
    edge.is_local(environ)


@target
def path(data: bytes) -> None:
    found = normal(data.decode("latin-1"))
    keep(normal(found) == found, "a normal path stays as it is")
    is_json = found.startswith("/autodiscover/autodiscover.json/v1.0/")
    keep("//" not in found or is_json, "slashes are single")


@target
def placeholders(data: bytes) -> None:
    text = text_of(data)
    for address in (None, ALICE):
        for filled in (
            fill_in(text, "example.com", address),
            fill_in_url(text, "example.com", address),
        ):
            keep(filled.count("\n") == text.count("\n"), "lines stay lines")
        for whole in (
            expand(text, "example.com", address),
            expand_url(text, "example.com", address),
        ):
            is_whole = whole is not None
            needs = any(found != "%EMAILDOMAIN%" for found in PLACEHOLDER.findall(text))
            keep(is_whole == (address is not None or not needs), "what needs an address is None")
    shared = shared_url(text, "example.com")
    keep(shared is None or expand(shared, "example.com", None) is not None, "it needs no address")


def _is_refused(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError as error:
        one_line(str(error))
        return True
    return False


@target
def duration(data: bytes) -> None:
    text = text_of(data)
    if not _is_refused(parse_duration, text):
        found = parse_duration(text)
        keep(found <= LONGEST, "it has a limit")
        keep(parse_duration(format_duration(found)) == found, "what is written is read again")


@target
def moment(data: bytes) -> None:
    text = text_of(data)
    if not _is_refused(parse_moment, text):
        found = parse_moment(text, time_of_date=time(23, 59, 59))
        keep(found.tzinfo is UTC and isinstance(found, datetime), "it is in UTC")
        written = iso(found)
        keep(
            written is not None and abs((parse_moment(written) - found).total_seconds()) < 1, "iso"
        )
