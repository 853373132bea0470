"""Addresses, domains, hosts and URLs on the command line.

Each error names the option or argument, the value and the reason.
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click

from automx.address import EmailAddress, is_ip, parse_domain
from automx.errors import AddressError


class _Type(click.ParamType):  # type: ignore[type-arg]  # click before 8.4 has no arguments
    """A type of values that ``read`` makes of a text; it raises AddressError with the reason."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a text."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except AddressError as error:
            reason = str(error).removesuffix(".")
            self.fail(f"{value!r}: {reason[:1].lower()}{reason[1:]}", param, ctx)


def _checked(read: Callable[[str], Any]) -> Callable[[str], str]:
    """Return a function that returns the text itself, as it is looked for in the database."""

    def check(text: str) -> str:
        read(text)
        return text

    return check


def _host_name(text: str) -> str:
    """Return a host name as A-label, "" if none is given."""
    if not text:
        return text
    example = "give a host name such as automx.example.org"
    if "://" in text:
        raise AddressError(f"this is a URL: {example}")
    if is_ip(text.removeprefix("[").removesuffix("]")):
        raise AddressError(f"this is an IP address, to which no alias can lead: {example}")
    name, colon, port = text.rpartition(":")
    if colon and name and port.isdecimal():
        raise AddressError(f"this has a port: {example}")
    try:
        return parse_domain(text)
    except AddressError as error:
        raise AddressError(f"this is no host name: {example}") from error


def _name_server(text: str) -> tuple[str, int]:
    """Return address and port of a name server."""
    host, colon, port = text.rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):  # an IPv6 address has colons
        host, port = text, "53"
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
    except ValueError:
        expected = "expected an IP address, perhaps with a port, such as 192.0.2.1:53"
        raise AddressError(f"this is no IP address: {expected}") from None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise AddressError("the port is not from 1 to 65535")
    return host, int(port)


def _http_url(text: str) -> str:
    """Return a URL without its final slash."""
    example = "expected one such as https://example.org/automx"
    try:
        parts = urlsplit(text)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_complete = False
    if not is_complete:
        raise AddressError(f"this is no URL: {example}")
    if "?" in text or "#" in text:
        raise AddressError(f"the URL has a query or a fragment: {example}")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise AddressError(f"the URL has a character that is not allowed: {example}")
    return text.rstrip("/")


MAIL_ADDRESS = _Type("address", EmailAddress.parse)
MAIL_ADDRESS_TEXT = _Type("address", _checked(EmailAddress.parse))
DOMAIN = _Type("domain", parse_domain)
DOMAIN_TEXT = _Type("domain", _checked(parse_domain))
HOST_NAME = _Type("host", _host_name)
NAME_SERVER = _Type("address", _name_server)
HTTP_URL = _Type("url", _http_url)
