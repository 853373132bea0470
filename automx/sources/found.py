"""What a domain of a source is.

A record of a source has the columns ``domain``, ``active``, ``provider``, ``like`` and
``alias_of``; only the first is needed. Values come from SQL, LDAP, JSON or a text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from automx import kinds
from automx.address import parse_domain
from automx.errors import AddressError, UnavailableError
from automx.kinds import MAX_NAME

COLUMNS = ("domain", "active", "provider", "like", "alias_of")

_LONGEST_TEXT = 1_000
_YES = ("1", "true", "t", "yes", "y", "on", "active", "enabled", "\x01")
_NO = ("0", "false", "f", "no", "n", "off", "inactive", "disabled", "\x00")
_UNSAID = (None, "")
_WORDS = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)


class SourceError(UnavailableError):
    """A source cannot be read, or what it says cannot be used; nothing was changed."""

    public = "The source cannot be read."


class FoundDomain(NamedTuple):
    """A domain of a source.

    ``name`` is an A-label. ``provider`` is a name or an id, ``like`` and ``alias_of`` are A-labels
    of other domains: it gets provider, servers, services and directory of that one, and an alias
    is also off as long as its target is. "" is not said.
    """

    name: str
    is_active: bool = True
    provider: str = ""
    like: str = ""
    alias_of: str = ""


class Problem(NamedTuple):
    """A domain that was passed over, or another thing that an administrator should know of it."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass
class Domains:
    """The domains of a source: A-label -> domain; ``problems`` has those that are passed over.

    ``unclear`` are A-labels of domains of which the source says something that has no meaning.
    """

    by_label: dict[str, FoundDomain] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unclear: set[str] = field(default_factory=set)


def read(records: Iterable[Mapping[str, object]]) -> Domains:
    """Return the domains of records. Raises SourceError if no record has values of its columns.

    A single one must not stop all others: who owns a domain may write its row.
    """
    found = Domains()
    first_bad: Problem | None = None
    for record in records:
        try:
            domain = _read(record)
        except AddressError:
            found.problems.append(Problem(_shown(record), "it is no domain name"))
            continue
        except kinds.BadValueError as error:
            problem = Problem(_shown(record), str(error))
            first_bad = first_bad or problem
            found.problems.append(problem)
            found.unclear |= _labels(record)
            continue
        first = found.by_label.setdefault(domain.name, domain)
        if first != domain:
            text = "it is there twice; the first one counts"
            found.problems.append(Problem(_shown(record), text))
    if first_bad and not found.by_label:
        raise SourceError(cause=f"the domain {first_bad}")
    found.unclear -= found.by_label.keys()
    return found


def _labels(record: Mapping[str, object]) -> set[str]:
    """Return the A-label of the domain of a record; none if it has no such name."""
    try:
        return {parse_domain(_text(record, "domain"))}
    except (AddressError, kinds.BadValueError):
        return set()


def _shown(record: Mapping[str, object]) -> str:
    value = record.get("domain")
    if isinstance(value, str | bytes):
        value = value[:_LONGEST_TEXT]
    return kinds.shown(value).strip('"')


def _read(record: Mapping[str, object]) -> FoundDomain:
    # The A-label also where the source has a U-label: collations hold ü and u for the same letter.
    label = parse_domain(_text(record, "domain"))
    if len(label) > MAX_NAME:
        raise AddressError
    is_active = _is_active(record.get("active", True))
    get = record.get
    if get("provider") in _UNSAID and get("like") in _UNSAID and get("alias_of") in _UNSAID:
        return FoundDomain(label, is_active)  # so are most of most sources
    return FoundDomain(
        label,
        is_active,
        _text(record, "provider"),
        _label(record, "like"),
        _label(record, "alias_of"),
    )


def _text(record: Mapping[str, object], column: str) -> str:
    match record.get(column):
        case None | "":
            return ""
        case str() as text:
            return printable(_cut(text))
        case int() as number:  # the id of a provider
            return str(number)
        case bytes() as octets:
            return printable(_cut(octets.decode(errors="replace")))
        case value:
            raise kinds.BadValueError(f"{column}: expected a text, found {kinds.shown(value)}")


def _cut(text: str) -> str:
    """Return a text without blanks around it, cut where no name is as long: reports show it."""
    return text.strip()[:_LONGEST_TEXT]


def printable(text: str) -> str:
    """Return a text that every database and terminal takes; no name holds what is replaced."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def is_label(text: str) -> bool:
    """Return whether a text of ``like`` or ``alias_of`` is the A-label of a domain."""
    try:
        return parse_domain(text) == text
    except AddressError:
        return False


def _label(record: Mapping[str, object], column: str) -> str:
    """Return the A-label of a domain; a text that is none is kept, and means no domain."""
    text = _text(record, column)
    try:
        return text and parse_domain(text)
    except AddressError:
        return text


def _is_active(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)  # a BIT of MariaDB
    word = text if text in _WORDS else text.strip().lower()
    if word not in _WORDS:
        raise kinds.BadValueError(f"active: expected yes or no, 1 or 0, found {kinds.shown(value)}")
    return _WORDS[word]
