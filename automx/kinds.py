"""Kinds of values: what a column may hold, in words and as the function that reads it.

A value may come from SQL, from JSON or from a command line. Reading gives its normal form, which is
what automx writes into the database; reading a normal form changes nothing.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from automx import placeholders
from automx.address import PLACEHOLDER, EmailAddress, parse_domain, parse_host, unicode_domain
from automx.clientconfig import FORBIDDEN
from automx.errors import AddressError

_Type = TypeVar("_Type")

MAX_INTEGER = 2**31 - 1  # of a column, in all databases
MAX_NAME = 128  # characters of a host, a domain or a URL

FORBIDDEN_IN_URL = re.compile(FORBIDDEN.pattern + r'|[\s<>"]')


class BadValueError(ValueError):
    """A value that a column cannot hold; the text says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    ``expected`` says it in words. ``normalise`` returns the normal form of a value; it raises
    ValueError or AddressError if the value is not of this kind, and BadValueError if it can say
    more than that. The value of a ``secret`` kind is never shown. ``schema`` is for editors and
    clients of the API (JSON Schema 2020-12); it cannot say all that ``normalise`` looks at.
    ``words`` are the usual values of a kind that has few.
    """

    expected: str
    normalise: Callable[[Any], Any]
    secret: bool = False
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"}, compare=False)
    words: tuple[str, ...] = ()

    def read(self, value: object) -> Any:
        """Return the normal form of a value; raises BadValueError."""
        try:
            return self.normalise(value)
        except BadValueError:
            raise
        except (ValueError, AddressError):
            found = shown(value, secret=self.secret)
            raise BadValueError(f"expected {self.expected}, found {found}") from None


def shown(value: object, *, secret: bool = False) -> str:
    """Return a value in one short line of JSON; of a secret only that there is one."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if secret and value is not None:
        return "another value, which is not shown"
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


# Texts.


def instance(value: object, type_: type[_Type]) -> _Type:
    """Return a value that has a type; raises ValueError if it has another."""
    if not isinstance(value, type_):
        raise ValueError  # noqa: TRY004 - the one error of all kinds
    return value


def string(value: object) -> str:
    """Return a value that is a text; raises ValueError if it is none."""
    return instance(value, str)


def plain(value: object) -> str:
    """Return a text without control characters."""
    if FORBIDDEN.search(string(value)):
        raise ValueError
    return string(value)


def fitting(value: str, least: int, length: int) -> str:
    """Return a text that has so many characters; raises ValueError if it has not."""
    if not least <= len(value) <= length:
        raise ValueError
    return value


def _text(least: int, length: int, read: Callable[[Any], str], *, secret: bool = False) -> Kind:
    """Return the kind of a text without control characters; ``read`` gives its normal form."""
    return Kind(
        f"a text of {least} to {length} characters without control characters",
        lambda value: fitting(read(value), least, length),
        secret,
        string_schema(length, least),
    )


def string_schema(length: int, least: int = 1, pattern: str = "") -> dict[str, Any]:
    """Return the JSON Schema of a text of some length that fits a regular expression."""
    lengths = {"minLength": least} if least else {}
    patterns = {"pattern": pattern} if pattern else {}
    return {"type": "string", **lengths, "maxLength": length, **patterns}


def text(length: int) -> Kind:
    """Return the kind of a text that programs read; blanks at its ends are dropped."""
    return _text(1, length, lambda value: plain(value).strip())


def exact_text(length: int, *, secret: bool = False) -> Kind:
    """Return the kind of a text in which blanks at the ends count; null is an empty one."""
    return _text(0, length, lambda value: plain(or_empty(value)), secret=secret)


def label(length: int, *, empty: bool = False) -> Kind:
    """Return the kind of a text for people; characters that no document can hold are dropped."""
    least = 0 if empty else 1
    return Kind(
        f"a text of {least} to {length} characters",
        lambda value: fitting(FORBIDDEN.sub("", or_empty(value)).strip(), least, length),
        schema=string_schema(length, least),
    )


def pattern(expected: str, regex: str, *, exact: bool = False, secret: bool = False) -> Kind:
    """Return the kind of a text that fits a regular expression; ``exact``: blanks at ends count."""

    def normalise(value: object) -> str:
        found = string(value) if exact else string(value).strip()
        if not re.fullmatch(regex, found) or not found.isprintable():
            raise ValueError
        return found

    return Kind(expected, normalise, secret, {"type": "string", "pattern": f"^({regex})$"})


def or_empty(value: object) -> str:
    """Return a text, "" for None; raises ValueError for any other value."""
    return "" if value is None else string(value)


def or_null(kind: Kind) -> Kind:
    """Return a kind that allows null as well."""
    return replace(
        kind,
        expected=f"{kind.expected}, or null",
        normalise=lambda value: None if value is None else kind.normalise(value),
        schema={"anyOf": [kind.schema, {"type": "null"}]},
    )


def optional(kind: Kind, nothing: str | None = None) -> Kind:
    """Return a kind that allows null as well, which an empty text means, too.

    ``nothing`` is the normal form of both.
    """

    def normalise(value: object) -> Any:
        is_empty = value is None or (isinstance(value, str) and not value.strip())
        return nothing if is_empty else kind.normalise(value)

    return replace(kind, normalise=normalise, schema={"anyOf": [kind.schema, {"enum": [None, ""]}]})


# Numbers and words.


def number(least: int, most: int) -> Kind:
    """Return the kind of a whole number in a range."""

    def normalise(value: object) -> int:
        if type(value) is not int or not least <= value <= most:  # True is an int, too
            raise ValueError
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Kind(f"a whole number from {least} to {most}", normalise, schema=schema)


# People insert 0, too.
ID = number(-MAX_INTEGER - 1, MAX_INTEGER)


def _boolean(value: object) -> bool:
    """Return a boolean; automx2 takes numbers and words as well."""
    if isinstance(value, int):
        return bool(value)
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return _word(words, str(value))


BOOLEAN = Kind("true or false", _boolean, schema={"type": "boolean"})


def word(words: Mapping[str, object], synonyms: Mapping[str, object] | None = None) -> Kind:
    """Return the kind of a word: one of the keys of ``words`` or ``synonyms``, in any case.

    Of keys with one meaning, the first is the normal form. An empty value and null mean the key "".
    """
    normal = _normal_words({**words, **(synonyms or {})})
    return Kind(
        f"one of {', '.join(filter(None, words))}",
        lambda value: _word(normal, or_empty(value).strip()),
        schema={"enum": [*words, *(synonyms or {})]},
        words=_usual(words),
    )


def word_list(
    words: Mapping[str, object], length: int, synonyms: Mapping[str, object] | None = None
) -> Kind:
    """Return the kind of one or several words as word() takes them, with blanks or commas between.

    An empty value and null mean the key "".
    """
    normal = _normal_words({**words, **(synonyms or {})})

    def normalise(value: object) -> str:
        parts = [part for part in re.split(r"[\s,]+", or_empty(value)) if part] or [""]
        found = [_word(normal, part) for part in parts]
        joined = " ".join(dict.fromkeys(found))
        if len(joined) > length:
            raise BadValueError(
                f"expected at most {length} characters, found {shown(joined)}, which has"
                f" {len(joined)}"
            )
        return joined

    every = "|".join(map(re.escape, [*words, *(synonyms or {})]))
    return Kind(
        f"one of {', '.join(words)}, or several with blanks between",
        normalise,
        schema=string_schema(length, 0, f"^({every})([ ,]+({every}))*$"),
        words=_usual(words),
    )


def _usual(words: Mapping[str, object]) -> tuple[str, ...]:
    """Return the normal forms of words, without the empty one."""
    return tuple(word for word in dict.fromkeys(_normal_words(words).values()) if word)


def _word(words: Mapping[str, _Type], value: str) -> _Type:
    """Return what a word means, in any case; raises ValueError if it is unknown."""
    if value.lower() not in words:
        raise ValueError
    return words[value.lower()]


def _normal_words(words: Mapping[str, object]) -> dict[str, str]:
    first: dict[object, str] = {}
    for spelling, meaning in words.items():
        first.setdefault(meaning, spelling)
    return {spelling.lower(): first[meaning] for spelling, meaning in words.items()}


def _moment(value: object) -> datetime:
    moment = instance(value, datetime)
    if moment.tzinfo is None:
        raise ValueError
    return moment


MOMENT = Kind("a moment with its time zone", _moment)


# Names, addresses and URLs.


def _with_placeholders(value: str, *, in_url: bool = False) -> str:
    """Return a text with its placeholders as the standard spells them.

    Raises BadValueError for what looks like a placeholder and is none, ValueError for a text that
    is far too long.
    """
    value = placeholders.normal(value)
    if found := placeholders.unknown(value, in_url=in_url):
        near = placeholders.suggestion(found)
        raise BadValueError(f"{shown(found)} is no placeholder; did you mean {near}?")
    return value


def user_name(length: int, empty: str) -> Kind:
    """Return the kind of a login name, which may hold placeholders; ``empty`` is what "" means."""
    return _text(
        0, length, lambda value: _with_placeholders(plain(or_empty(value)).strip()) or empty
    )


def _host(value: object) -> str:
    lowered = _with_placeholders(string(value).strip()).lower().removesuffix(".")
    name = _with_placeholders(lowered)  # placeholders stay in upper case
    if name.endswith("."):  # parse_host() would remove a second one
        raise ValueError
    host = parse_host(PLACEHOLDER.sub("x", name))
    return fitting(host if ":" in host else name, 1, MAX_NAME)


HOST = Kind(
    f'a host name of at most {MAX_NAME} characters such as "mail.example.com"',
    _host,
    schema=string_schema(MAX_NAME, pattern=r"^[^\s/@]+$"),
)


def _service_url(value: object) -> str:
    url = _with_placeholders(string(value).strip(), in_url=True)
    parts = urlsplit(PLACEHOLDER.sub("x", url if "://" in url else f"https://{url}"))
    if parts.scheme not in {"http", "https", "ws", "wss"} or parts.port == 0:
        raise ValueError
    if FORBIDDEN_IN_URL.search(url):
        raise ValueError
    parse_host(parts.hostname or "")
    return fitting(url, 1, MAX_NAME)


SERVICE_URL = Kind(
    f'a URL of at most {MAX_NAME} characters such as "https://dav.example.com/calendars/"',
    _service_url,
    schema=string_schema(MAX_NAME, pattern=r"^\S+$"),
)


def _link(value: object) -> str:
    url = _with_placeholders(string(value).strip(), in_url=True)
    for placeholder in placeholders.KNOWN.findall(url):
        if placeholder != "%EMAILDOMAIN%":  # a link is the same for everybody
            found = shown(placeholder)
            raise BadValueError(f"expected no placeholder but %EMAILDOMAIN%, found {found}")
    parts = urlsplit(PLACEHOLDER.sub("x", url))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError
    if FORBIDDEN_IN_URL.search(url):
        raise ValueError
    return fitting(url, 1, 255)


LINK = Kind(
    'a URL of at most 255 characters such as "https://www.example.com/"',
    _link,
    schema=string_schema(255, pattern=r"^https?://\S+$"),
)


def _mail_address(value: object) -> str:
    return str(EmailAddress.parse(string(value)))


_ADDRESS = string_schema(320, pattern=r"^\S+@\S+$")
MAIL_ADDRESS = Kind('a mail address such as "help@example.com"', _mail_address, schema=_ADDRESS)


# What the local part of a mailbox that automx makes has, as the inside of a set of a pattern.
ACCOUNT_LETTERS = "a-z0-9._+-"


def _account_address(value: object) -> str:
    """Return the address of a mailbox that automx makes: it becomes a path, a line, a URL."""
    address = _mail_address(string(value).lower())
    if not re.fullmatch(f"[{ACCOUNT_LETTERS}]+", address.partition("@")[0]):
        raise ValueError
    return address


ACCOUNT_ADDRESS = Kind(
    'a mail address such as "guest@example.com", with letters, digits and . _ + - before the @',
    _account_address,
    schema=_ADDRESS,
)
A_LABEL = Kind(
    'a domain name such as "example.com"',
    lambda value: parse_domain(string(value)),
    schema=string_schema(253, pattern=r"^[^\s/@]+$"),
)


def _domain_name(value: object) -> str:
    """Return the name of a domain in a form that look-up asks for.

    That is A-label or U-label as it is written, in lower case, without blanks around it.
    """
    a_label = domain_a_label(string(value).strip())
    wildcard = "*." if a_label.startswith("*.") else ""
    plain = a_label.removeprefix(wildcard)
    is_ascii = string(value).isascii() or plain == "*"
    return fitting(wildcard + (plain if is_ascii else unicode_domain(plain)), 1, MAX_NAME)


DOMAIN_NAME = Kind(
    f'a domain name of at most {MAX_NAME} characters such as "example.com", "*.example.com" or "*"',
    _domain_name,
    schema=string_schema(MAX_NAME, pattern=r"^[^\s/@]+$"),
)


def domain_a_label(name: str) -> str:
    """Return the name of a domain or wildcard as A-label in lower case; raises AddressError."""
    if name == "*":
        return name
    wildcard = "*." if name.startswith("*.") else ""
    return wildcard + parse_domain(name.removeprefix(wildcard))


def image(length: int) -> Kind:
    """Return the kind of an image: bytes, which JSON holds in Base64."""

    def normalise(value: object) -> bytes:
        data = value if isinstance(value, bytes) else base64.b64decode(string(value), validate=True)
        if not 0 < len(data) <= length:
            raise ValueError
        return data

    schema = {"type": "string", "contentEncoding": "base64", "maxLength": -(-length // 3) * 4}
    return Kind(f"an image in Base64, of at most {length} bytes", normalise, schema=schema)


# Parts of documents.


def list_of(example: str) -> Kind:
    """Return the kind of a list whose items are read elsewhere."""
    schema = {"type": "array"}
    return Kind(f"a list such as [{example}]", lambda value: instance(value, list), schema=schema)


def object_of(example: str) -> Kind:
    """Return the kind of an object whose members are read elsewhere."""
    schema = {"type": "object"}
    return Kind(f"an object such as {example}", lambda value: instance(value, dict), schema=schema)
