"""Rows that domains share, remembered: their records, and what domains of the same rows have.

A row that was changed is forgotten by its key.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import Any, TypeVar, cast

from automx.address import EmailAddress
from automx.clientconfig import ClientConfig
from automx.directory.row import LdapServer

_Rendered = TypeVar("_Rendered")

# In place of a domain: a private character, which no checked row holds (clientconfig.FORBIDDEN).
_DOMAIN = "\ue004"

RowKey = tuple[str, str]  # table and key of a row, as changelog explains them
EVERYTHING: frozenset[RowKey] = frozenset({("*", "*")})


class Common:
    """What all domains with the same rows have in common, and documents of it.

    ``config`` has neither a domain nor values that would be filled in with it. ``is_same`` is
    whether nothing but the domain itself differs between these domains. ``rows`` is that of
    FoundConfig. Safe for threads.
    """

    def __init__(
        self, config: ClientConfig, ldap_server: LdapServer | None, rows: frozenset[RowKey]
    ) -> None:
        self.config = config
        self.ldap_server = ldap_server
        self.rows = rows
        self.missing = config.missing
        self.is_same = False
        if not self.missing:  # else the error of a document names the domain
            one, other = (self._samples(domain) for domain in ("a.example", "b.example"))
            self.is_same = one == other
        self._values: dict[Callable[[ClientConfig], object], object] = {}
        self._pieces: dict[Callable[[ClientConfig], bytes], list[bytes]] = {}

    def for_domain(self, domain: str) -> ClientConfig:
        """Return the settings of a domain."""
        if self.is_same:
            return replace(self.config, domain=domain)
        return replace(
            self.config,
            domain=domain,
            provider_name=self.config.provider_name or domain,
            provider_short_name=self.config.provider_short_name or domain,
            details=self.config.details.for_domain(domain),
        )

    def value(self, function: Callable[[ClientConfig], _Rendered]) -> _Rendered:
        """Return ``function(config)``, computed once; it does not depend on the domain."""
        if function not in self._values:
            self._values[function] = function(self.config)
        return cast("_Rendered", self._values[function])

    def document(self, render: Callable[[ClientConfig], bytes], domain: str) -> bytes:
        """Return ``render(config)`` for a domain that stands in the document as it is, if at all.

        To be asked only if ``is_same``.
        """
        pieces = self._pieces.get(render)
        if pieces is None:
            document = render(replace(self.config, domain=_DOMAIN))
            pieces = self._pieces[render] = document.split(_DOMAIN.encode())
        return domain.encode().join(pieces)

    def _samples(self, domain: str) -> list[ClientConfig]:
        config = self.for_domain(domain)
        addresses = (None, EmailAddress("x", domain))
        return [replace(config.for_client(address), domain="") for address in addresses]


class RowMemory:
    """Remembers records of rows, so that the domains of a provider share them. Safe for threads.

    ``seconds`` is how long a record is kept, ``size`` how many there are.
    """

    def __init__(self, seconds: float, size: int, now: Callable[[], float]) -> None:
        self.now = now
        self._seconds = seconds
        self._size = size
        self._lock = Lock()
        self._changes = 0  # how often something was forgotten
        # With when they were read. A cache of cachetools takes ten times as long.
        self._records: dict[tuple[str, int], tuple[Any, float]] = {}
        self._commons: dict[Hashable, tuple[Common, float]] = {}

    def common(self, key: Hashable) -> tuple[Common, float] | None:
        """Return what domains of some rows have in common, and when the oldest row was read."""
        kept = self._commons.get(key)
        return kept if kept is not None and kept[1] > self.now() - self._seconds else None

    def keep_common(self, key: Hashable, common: Common, read_at: float, mark: int) -> None:
        """Remember what domains of some rows have in common, as keep() does."""
        with self._lock:
            if mark == self._changes:
                if len(self._commons) >= self._size:
                    self._commons.clear()
                self._commons[key] = common, read_at

    def get(self, table: str, ids: Collection[int]) -> dict[int, tuple[Any, float]]:
        """Return those records of a table that are remembered, each with when it was read."""
        begin = self.now() - self._seconds
        found = {}
        for row_id in ids:
            kept = self._records.get((table, row_id))
            if kept is not None and kept[1] > begin:
                found[row_id] = kept
        return found

    def mark(self) -> int:
        """Return what keep() needs to know; to be asked before the rows are read."""
        return self._changes

    def keep(self, table: str, records: Mapping[int, Any], read_at: float, mark: int) -> None:
        """Remember records, unless something was forgotten since ``mark``: they may be older."""
        with self._lock:
            if mark != self._changes:
                return
            for row_id, record in records.items():
                self._records.pop((table, row_id), None)  # the oldest come first
                self._records[table, row_id] = record, read_at
            for key in [*islice(self._records, max(0, len(self._records) - self._size))]:
                del self._records[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._changes += 1
            self._records.clear()
            self._commons.clear()

    def forget(self, changes: Collection[RowKey]) -> None:
        """Forget rows that were changed."""
        with self._lock:
            self._changes += 1
            self._commons.clear()
            for table, key in changes:
                if table != "domain":
                    self._records.pop((table, int(key)), None)
