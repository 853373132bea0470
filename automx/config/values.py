"""Values of settings: functions that return the value of a text, and what is shown of a value.

The text has no blanks at its ends. Each function raises ValueError, with what is allowed.
"""

import base64
import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from automx.duration import format_duration, parse_duration

T = TypeVar("T")


def matching(pattern: str, allowed: str, convert: Callable[[str], T]) -> Callable[[str], T]:
    """Return a function that converts what matches a pattern, and refuses anything else."""

    def parse(text: str) -> T:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(allowed)
        return convert(text)

    return parse


def choice(words: Mapping[str, T], allowed: str) -> Callable[[str], T]:
    """Return a function that takes one of some words, in any case; they are given in lower case."""

    def parse(text: str) -> T:
        if text.lower() not in words:
            raise ValueError(allowed)
        return words[text.lower()]

    return parse


def one_of(words: Sequence[str]) -> Callable[[str], str]:
    """Return a function that returns one of some words as it is written here, in any case."""
    allowed = f"one of {', '.join(filter(None, words))}"
    return choice({word.lower(): word for word in words}, allowed)


_SECONDS = r"\d{1,6}(\.\d{1,3})?"
_UP_TO_60 = r"(?=.*[1-9])([0-5]?\d(\.\d{1,3})?|60(\.0{1,3})?)"
_PERIOD = r"\d{1,9}\s*(/|per)\s*(\d{1,9}\s*)?(second|minute|hour|day|month|year)s?"
_REDIS = r"(redis|rediss|redis\+unix)://[!-~]+"
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = rf"(?i)(({_LABEL}\.)*(?=[a-z]){_LABEL})?"  # unlike the last label of an IP address
_NAME = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"  # a label of any domain name
_TRUE, _FALSE = ("yes", "true", "on", "1"), ("no", "false", "off", "0")

boolean = choice(dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False), "yes or no")
starttls = choice({"yes": "yes", "no": "no", "try": "try"}, "yes, no or try")
proxy_count = matching(r"\d{1,2}", "a whole number from 0 to 99", int)
count = matching(r"\d{1,9}", "a whole number, 0 or more", int)
days = matching(r"\d{1,5}", "a whole number of days, 0 or more", int)
seconds = matching(_SECONDS, "a number of seconds, 0 or more", float)
positive_seconds = matching(rf"(?=.*[1-9]){_SECONDS}", "a number of seconds above 0", float)
# An account that is not made after some minutes is given up: a call must end before.
call_seconds = matching(_UP_TO_60, "a number of seconds above 0, at most 60", float)
rate_limit = matching(  # as the library limits writes them (https://limits.readthedocs.io)
    rf"(?i)({_PERIOD}(\s*[;,|]\s*{_PERIOD})*)?", "limits such as 30 per minute; 300 per day", str
)
storage = matching(f"memory://|{_REDIS}", "memory:// or a URI such as redis://localhost:6379", str)
token = matching("[!-~]*", "printable ASCII characters without blanks", str)
host_name = matching(
    _HOST_NAME, "a host name such as mail.example.org, in ASCII, without port", str.lower
)

one_line = matching(r"[^\r\n]*", "a text of one line", str)


class Share(NamedTuple):
    """A part of a number: a percentage, or a number by itself."""

    number: int
    is_percentage: bool

    def __str__(self) -> str:
        return f"{self.number}{'%' * self.is_percentage}"

    def of(self, whole: int, least: int = 0) -> int:
        """Return the part of a number; a percentage is rounded down, and is at least ``least``."""
        return max(least, whole * self.number // 100) if self.is_percentage else self.number


share = matching(
    r"(100|\d{1,2})%|\d{1,9}",
    "a percentage such as 10%, or a number",
    lambda text: Share(int(text.rstrip("%")), text.endswith("%")),
)

_SHORTEST_INTERVAL = 10  # seconds


def interval(text: str) -> timedelta:
    """Return a duration that is not so short that a server would do nothing else."""
    found = parse_duration(text)
    if found.total_seconds() < _SHORTEST_INTERVAL:
        raise ValueError(f"a duration such as 5m, at least {_SHORTEST_INTERVAL}s")
    return found


def query(text: str) -> str:
    """Return a query of SQL: it only reads."""
    if text and not re.match(r"(?i)\(*\s*(SELECT|WITH)\b", text):
        raise ValueError("a query that begins with SELECT or WITH")
    return text


def pairs(text: str) -> Mapping[str, str]:
    """Return name -> value of pairs with blanks or commas between: ``domain=domainName``."""
    words_ = (word.partition("=") for word in words(text))
    found = {}
    for name, equals, value in words_:
        if name not in _SAID or not equals or not re.fullmatch(r"[A-Za-z][A-Za-z0-9.;-]*", value):
            raise ValueError(f"pairs such as domain=domainName; names are {', '.join(_SAID)}")
        found[name] = value
    return found


_SAID = ("domain", "active", "provider", "like", "alias_of", "aliases")


def words(text: str) -> tuple[str, ...]:
    """Return words with blanks or commas between."""
    return tuple(filter(None, re.split(r"[\s,]+", text)))


def domains(text: str) -> tuple[str, ...]:
    """Return names of domains, as A-labels in lower case, and wildcards."""
    found = words(text.lower())
    for word in found:
        if not re.fullmatch(rf"\*|(\*\.)?{_DOMAIN_LABEL}(\.{_DOMAIN_LABEL})*", word):
            raise ValueError("domains or wildcards such as example.com *.example.org, in ASCII")
    return found


def absolute_path(text: str) -> str:
    """Return the full path of a file, which need not exist yet, or ""."""
    if text and not Path(text).is_absolute():
        raise ValueError("the full path of a file")
    return text


key_name = matching(
    rf"(?i)(({_NAME}\.)*{_NAME}\.?)?", "the name of a key, such as automx", str.lower
)
owner = matching("[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, dots, hyphens", str)
ttl = matching("[1-9][0-9]{0,5}", "a whole number of seconds from 1 to 999999", int)


def tsig_secret(text: str) -> str:
    """Return the secret of a TSIG key (RFC 8945), which is written in base64."""
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("a text in base64, as tsig-keygen prints it") from error
    return text


def name_server(text: str) -> str:
    """Return the host of a name server, perhaps with a port, or ""."""
    if text:
        host_and_port(text, 53)
    return text.lower()


def host_and_port(text: str, default: int) -> tuple[str, int]:
    """Return host and port of a text such as ``192.0.2.1``, ``[2001:db8::1]:53`` or ``ns1:53``."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", text)
    host, port = text, default
    if found:
        host, port = (found[1] or found[2]), int(found[3] or default)
    try:
        ipaddress.ip_address(host)
        is_host = True
    except ValueError:
        is_host = bool(re.fullmatch(rf"{_HOST_NAME}\.?", host, re.ASCII))
    if not is_host or not 0 < port < 65536:
        raise ValueError("a host name or an IP address, perhaps with a port, such as 192.0.2.1:53")
    return host, port


def listener(text: str) -> str:
    """Return an IP address and a port in their usual form, or ""."""
    if not text:
        return text
    expected = "an IP address and a port, such as 127.0.0.1:9324"
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"0*[1-9]\d{0,4}", port, re.ASCII) or int(port) > 65535:
        raise ValueError(expected)
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(expected) from None
    return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"


def log_file(text: str) -> str:
    """Return where lines go: "", "-", "off", or the full path of a file."""
    if text in {"", "-"} or text.startswith("/"):
        return text
    if text.lower() == "off":
        return "off"
    raise ValueError("-, off, or the full path of a file")


def readable_file(text: str) -> str:
    """Return the path of a file that can be read now, or ""."""
    if text and not (_is_file(text) and os.access(text, os.R_OK)):
        raise ValueError("the path of a file that can be read")
    return text


def ca_file(text: str) -> str:
    """Return the path of a file of certificate authorities, or ""."""
    if readable_file(text):
        import ssl  # few commands need it

        try:
            ssl.create_default_context(cafile=text)
        except OSError as error:
            raise ValueError("a file of certificate authorities (PEM)") from error
    return text


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # the name is too long
        return False


def _content(path: str) -> str:
    return Path(path).read_text("utf-8")


def files_of_rows(text: str) -> Mapping[int, str]:
    """Return the paths of files that can be read now, by the id of the row: ``3:/path``."""
    paths = {}
    for item in re.split(r"[\s,]+", text) if text else ():
        row_id, colon, path = item.partition(":")
        if not colon or not row_id.isdecimal():
            raise ValueError("pairs of id and file, such as 3:/etc/automx/ldap.3")
        try:
            _content(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            text = f"pairs of id and file; the file of {row_id} cannot be read: {reason}"
            raise ValueError(text) from error
        paths[int(row_id)] = path
    return paths


def bind_passwords(text: str) -> Mapping[int, str]:
    """Return the passwords by the id of the row, read from the files that ``3:/path`` names."""
    return {row_id: _content(path).strip() for row_id, path in files_of_rows(text).items()}


def without_comment(text: str) -> str:
    """Return a text without the comment that stands behind it, after a blank and ``#``."""
    return re.split(r"\s#", text, maxsplit=1)[0].rstrip()


def api_url(text: str) -> str:
    """Return the URL of an API, in the form of _url()."""
    return _url(text, "a URL such as https://mailcow.example.org/api/v1, without query")


def https_url(text: str) -> str:
    """Return the URL of a page, in the form of _url(), which must be https."""
    url = _url(text, "a URL such as https://example.org/new_email, without query")
    if url and not url.startswith("https://"):
        raise ValueError("an https URL such as https://example.org/new_email, without query")
    return url


def _url(text: str, expected: str) -> str:
    """Return a URL of http or https, with its scheme in lower case and no final slash.

    It has no user, no query ("?"), no fragment ("#"), and nothing that a URL must escape: "<" and
    ">" would make a pattern of a path that is answered.
    """
    if not text:
        return text
    pattern = r"(?i)https?://[a-z0-9.:\[\]-]+(/[!$-;=@-~]*)?"
    try:
        parts = urlsplit(text)
        is_complete = bool(re.fullmatch(pattern, text) and parts.hostname and parts.port != 0)
    except ValueError:  # a port above 65535, a bracket that stays open
        is_complete = False
    if not is_complete:
        raise ValueError(expected)
    return parts.geturl().rstrip("/")


_COMMAND_BYTES = 100_000  # Linux takes words of up to 131,071 bytes (execve(2))


def command(text: str) -> tuple[str, ...]:
    """Return the words of a command line: quotes are as in a shell, and nothing else is."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError("a program and its arguments, with closed quotes") from error
    if words and not (
        words[0].startswith("/") and _is_file(words[0]) and os.access(words[0], os.X_OK)
    ):
        raise ValueError("the full path of a program that can be run, and its arguments")
    if len(text.encode()) > _COMMAND_BYTES:
        raise ValueError(f"at most {_COMMAND_BYTES:,} bytes")
    return words


_ASYNCHRONOUS = {"aiomysql", "aiosqlite", "asyncmy", "asyncpg", "psycopg_async"}


def db_uri(text: str) -> str:
    """Return the URI with a driver that automx ships, and with an absolute path for SQLite."""
    scheme, separator, rest = text.partition("://")
    drivers = {
        "postgres": "postgresql+psycopg",
        "postgresql": "postgresql+psycopg",
        "mysql": "mysql+pymysql",
        "mariadb": "mariadb+pymysql",
    }
    known = re.fullmatch(r"(sqlite|postgres(?:ql)?|mysql|mariadb)(?:\+(\w+))?", scheme)
    if not separator or not known or re.search(r"\s#", rest):  # a comment in the line of the key
        raise ValueError("a URI such as sqlite:////path, postgresql://… or mysql://…")
    if known[1] != "sqlite" and rest.partition("?")[0].count("@") > 1:  # its rest would be a host
        raise ValueError("a URI in whose user name and password %40 stands for @")
    if known[2] in _ASYNCHRONOUS:
        raise ValueError(
            f"a URI of a driver that is not asynchronous: write {known[1]}:// in place of"
            f" {scheme}://"
        )
    if scheme.startswith("sqlite") and rest.startswith("/") and not rest.startswith("//"):
        path, question, query = rest[1:].partition("?")
        if path and not path.startswith((":memory:", "file:")):
            rest = f"/{Path(path).absolute()}{question}{query}"
    return f"{drivers.get(scheme, scheme)}://{rest}"


def replica_uri(text: str) -> str:
    """Return the URI of a replica, as db_uri(); it may be empty."""
    if text.startswith("sqlite"):
        raise ValueError("a URI of PostgreSQL or MariaDB: a file of SQLite has no replica")
    return db_uri(text) if text else ""


def shown(value: object) -> str:
    """Return a value as the file would hold it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Share):
        return str(value)
    if isinstance(value, tuple):
        return shlex.join(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def hidden(value: str) -> str:
    """Return only that there is a value."""
    return "***" if value else ""


# Names of what may be secret in the query of a URI: of PostgreSQL, MariaDB, Redis and ODBC.
_SECRET_NAME = re.compile("(?i)pass|pwd|secret|token|scram|odbc|credential")


def without_password(uri: str) -> str:
    """Return a URI with its passwords hidden: before the host, and in the query."""
    before, question, query = re.sub(r"(?s)(://[^:/]*:).*@", r"\1***@", uri).partition("?")
    shown = []
    for item in re.split("([&;])", query):
        name, equals, _ = item.partition("=")
        # A name may be percent-encoded, and once more by mistake.
        is_secret = equals and _SECRET_NAME.search(unquote(unquote(name)))
        shown.append(f"{name}=***" if is_secret else item)
    return before + question + "".join(shown)


def without_passwords(passwords: Mapping[int, str]) -> str:
    """Return only the ids of rows that have a password."""
    return " ".join(f"{row_id}:***" for row_id in passwords)


def row_files(paths: Mapping[int, str]) -> str:
    """Return paths by the id of the row as the file would hold them."""
    return " ".join(f"{row_id}:{path}" for row_id, path in paths.items())
