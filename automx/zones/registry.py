"""The registry: the TXT record that says which records of a domain automx has written.

``_automx.example.com TXT "v=automx1; owner=automx; records=0a1b2c3d,…"`` is changed in the same
update as the records, so that both are always true together. A record is named by the first eight
hexadecimal digits of the SHA-256 of its name, type and data.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import dns.name
from dns.rdata import Rdata
from dns.rdataset import Rdataset
from dns.rdatatype import RdataType

LABEL = "_automx"

_TEXT = re.compile(r"v=automx1; owner=([A-Za-z0-9._-]{1,64}); records=([0-9a-f,]*)")


@dataclass(frozen=True, slots=True)
class Registry:
    """Which owner writes the records of a domain ("" for none), and the marks of these records."""

    owner: str = ""
    marks: frozenset[str] = frozenset()

    def text(self) -> str:
        """Return the text of the TXT record."""
        return f"v=automx1; owner={self.owner}; records={','.join(sorted(self.marks))}"


def read(found: Rdataset | None, owner: str) -> tuple[Registry, Rdata | None]:
    """Return the registry among TXT records, and the record that holds it; that of ``owner`` first.

    Records of others beside it are passed over.
    """
    others: list[tuple[Registry, Rdata | None]] = []
    for record in found or ():
        if match := _TEXT.fullmatch(text_of(record)):
            registry = Registry(match[1], frozenset(filter(None, match[2].split(","))))
            if registry.owner == owner:
                return registry, record
            others.append((registry, record))
    return others[0] if others else (Registry(), None)


def mark(name: str, record: Rdata) -> str:
    """Return the mark of a record; ``name`` is its full name without final dot."""
    # Names within the data are in lower case there (RFC 4034, section 6.2).
    data = record.to_digestable(dns.name.root)
    key = f"{name} {RdataType.to_text(record.rdtype)} ".encode() + data
    return hashlib.sha256(key).hexdigest()[:8]


def text_of(record: Rdata) -> str:
    """Return the text of a TXT record, its strings joined; bytes beyond ASCII are replaced."""
    strings: Iterable[bytes] = getattr(record, "strings", ())
    return b"".join(strings).decode("ascii", "replace")
