"""Addresses, domains, hosts, URLs and names of files on the command line.

Each error names the option or argument, the value and the reason.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from click.shell_completion import CompletionItem

from automx.address import EmailAddress, is_ip, parse_domain, parse_host
from automx.errors import AddressError
from automx.kinds import MAX_NAME


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


class _FileType(_Type):
    """A type of names of files, which a shell completes."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell find the files that begin so."""
        return [CompletionItem(incomplete, type="file")]


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
        host = parse_domain(text)
    except AddressError as error:
        raise AddressError(f"this is no host name: {example}") from error
    if "." not in host:
        raise AddressError(f"this is no name of the public DNS: {example}")
    return host


def _mail_domain(text: str) -> str:
    """Return a domain that may have mail servers of its own, as A-label."""
    try:
        name = parse_domain(text)
    except AddressError:
        name = ""
    if "." not in name or is_ip(name):
        raise AddressError("this is no mail domain, such as example.com")
    return _short(name)


def _short(name: str) -> str:
    """Return a name that the database can hold."""
    if len(name) > MAX_NAME:
        raise AddressError(f"this has more than {MAX_NAME} characters")
    return name


def _with_port(text: str) -> tuple[str, int | None]:
    """Return a host as it is written, and its port; the port is None if there is none."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):  # an IPv6 address has colons
        return text, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise AddressError("the port is not from 1 to 65535")
    return host, int(port)


def _server(text: str) -> tuple[str, int | None]:
    """Return A-label or IP address of a server, and its port; the port is None if there is none."""
    text = text.strip()
    host, port = (text, None) if "://" in text else _with_port(text)
    try:
        name = parse_host(host)
    except AddressError as error:
        raise AddressError("this is no host name, such as mail.example.com") from error
    return _short(name), port


def _mail_host(text: str) -> tuple[str, int | None]:
    """Return what _server() does of a host that has servers at several ports."""
    host, port = _server(text)
    if port is not None:
        raise AddressError("this has a port, which belongs to --imap and --smtp")
    return host, port


def _name_server(text: str) -> tuple[str, int]:
    """Return address and port of a name server."""
    host, port = _with_port(text)
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
    except ValueError:
        expected = "expected an IP address, perhaps with a port, such as 192.0.2.1:53"
        raise AddressError(f"this is no IP address: {expected}") from None
    return host, port or 53


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


def _file(text: str) -> str:
    """Return the name of a file; an empty one, as of a variable that is not set, is none."""
    if not text:
        raise AddressError("this is no name of a file")
    return text


MAIL_ADDRESS = _Type("address", EmailAddress.parse)
MAIL_ADDRESS_TEXT = _Type("address", _checked(EmailAddress.parse))
DOMAIN = _Type("domain", parse_domain)
DOMAIN_TEXT = _Type("domain", _checked(parse_domain))
MAIL_DOMAIN = _Type("mail domain", _mail_domain)
HOST_NAME = _Type("host", _host_name)
MAIL_HOST = _Type("mail host", _mail_host)
SERVER = _Type("server", _server)
NAME_SERVER = _Type("address", _name_server)
HTTP_URL = _Type("url", _http_url)
FILE = _FileType("file", _file)
PATH = _FileType("path", lambda text: Path(_file(text)))
