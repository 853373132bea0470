"""Many domains at once: in parts, so that memory does not grow with their number."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from automx import kinds, members, references
from automx.changes import MAX_ENTRIES, Changes, complete, insertion
from automx.database import chunks
from automx.errors import ConflictError
from automx.members import Item
from automx.seeddocument import SeedRows

_AT_ONCE = 2_000
_SHOWN = 5


class NewDomain(NamedTuple):
    """A domain to add: its object (see :mod:`automx.members`), and what names it in errors."""

    value: Mapping[str, Any]
    path: str


@dataclass
class Added:
    """How many domains were added, and how many existed before, with the first names of these."""

    number: int = 0
    existing: int = 0
    names: list[str] = field(default_factory=list)


def add_domains(
    changes: Changes,
    domains: Iterable[NewDomain],
    number: int,
    *,
    skip_existing: bool = False,
    taken: Collection[str] = (),
) -> Added:
    """Add ``number`` domains; a few have an entry each in the audit, more have one together.

    Those that exist, in the database or earlier among the domains, are passed over if
    ``skip_existing``; else ConflictError says how many there are. ``taken`` are A-labels that count
    as existing. Raises SeedError for an object that is wrong, or that refers to a row that does not
    exist.
    """
    added = Added()
    for chunk in chunks(domains, _AT_ONCE):
        new = _new(changes, chunk, added, taken)
        if added.existing and not skip_existing:
            continue  # what exists is counted to the end
        if number <= MAX_ENTRIES:
            for domain, _ in new:
                changes.add("domain", domain.value, domain.path)
        elif new:
            changes.insert(_rows(new))
            if not added.number:
                insertion.analyze_domains(changes.session)
        added.number += len(new)
    if added.existing and not skip_existing:
        raise ConflictError(existing_in_words(added.existing, number, added.names))
    return added


def existing_in_words(existing: int, number: int, names: Sequence[str]) -> str:
    """Return the reason why none of ``number`` domains is added; ``names`` are those that exist.

    The first of them are enough.
    """
    verb = "exist" if existing > 1 else "exists"
    more = ", …" if existing > _SHOWN else ""
    return f"{existing} of {number} domains {verb} already: {', '.join(names[:_SHOWN])}{more}"


def _rows(domains: Iterable[tuple[NewDomain, Item]]) -> SeedRows:
    """Return the rows of domains that do not exist: their names are not looked for again."""
    new = SeedRows()
    for domain, item in domains:
        new.add_item("domain", complete("domain", item, domain.path), domain.path)
    return new


def _new(
    changes: Changes, chunk: list[NewDomain], added: Added, taken: Collection[str]
) -> list[tuple[NewDomain, Item]]:
    """Return the domains that do not exist yet, with their items; note the others."""
    items = [(members.read("domain", one.value, one.path), one) for one in chunk]
    a_labels = [kinds.domain_a_label(item["name"]) for item, _ in items]
    known = {a_label for *_, a_label in references.same_domains(changes.session, set(a_labels))}
    known.update(taken)
    new, existing = [], []
    for a_label, (item, domain) in zip(a_labels, items, strict=True):
        if a_label in known:
            existing.append(item["name"])
        else:
            new.append((domain, item))
            known.add(a_label)
    added.existing += len(existing)
    added.names += existing[: _SHOWN - len(added.names)]
    return new
