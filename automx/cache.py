"""What look-ups gave, remembered for a bounded time and number of domains.

While the database is away, the settings of domains that were found before are used for longer.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from copy import copy
from dataclasses import replace
from itertools import islice
from threading import Lock
from time import monotonic
from typing import Any, TypeVar, cast

from automx.address import EmailAddress, names_for
from automx.clientconfig import ClientConfig
from automx.directory.row import LdapServer
from automx.errors import AutomxError, BadRecordError, DatabaseError, UnknownDomainError
from automx.formats import pacc
from automx.memory import Memory

_Rendered = TypeVar("_Rendered")

# A busy database must not take all threads of a worker. If a domain that is due is being read for
# so many seconds, or so many others are, then further requests use what was remembered.
SLOW_SECONDS, REFRESHES = 0.25, 8

INVENTED = 1_000  # domains without a row of their own that are remembered

MAX_AGE = 60  # seconds that caches of others keep a document: they learn of no change

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


class FoundConfig:
    """The settings of a domain, with its directory and with what the formats made of them.

    ``origin`` is that of the row that decides for the domain, "" if it has none.

    ``age`` is None, or how many seconds ago they were read if the database could not be asked again
    when they were due.

    ``names`` are the wildcards that decide for the domain, or would if there were such a row;
    ``rows`` are the rows beside that of the domain which the settings are made of. ``read_at`` is
    when the oldest of all was read, in the time of the memory of rows; None if none was remembered.
    ``common`` is what the domain has in common with others, None if it is not known.

    ``stored_pacc`` is the PACC document whose digest automx manages in the zone, empty if there is
    none to publish; None if the rows give the document.
    """

    def __init__(
        self,
        config: ClientConfig,
        ldap_server: LdapServer | None = None,
        *,
        origin: str = "",
        names: tuple[str, ...] = (),
        rows: frozenset[RowKey] = frozenset(),
        read_at: float | None = None,
        common: Common | None = None,
        stored_pacc: bytes | None = None,
    ) -> None:
        self.config = config
        self.ldap_server = ldap_server
        self.origin = origin
        self.names = names
        self.rows = rows
        self.read_at = read_at
        self._common = common if common and common.is_same else None
        self.stored_pacc = stored_pacc
        self.age: int | None = None
        self.answers: dict[object, Any] = {}  # what the edge has made of the documents
        self._rendered: dict[Callable[[ClientConfig], object], object] = {}

    @property
    def is_by_wildcard(self) -> bool:
        """Whether the domain has no row of its own."""
        return bool(self.names)

    def rendered(self, render: Callable[[ClientConfig], _Rendered]) -> _Rendered:
        """Return ``render(config)``, computed once; ``render`` must be a pure function."""
        try:
            return cast("_Rendered", self._rendered[render])
        except KeyError:
            rendered = self._rendered[render] = render(self.config)
            return rendered

    def value(self, function: Callable[[ClientConfig], _Rendered]) -> _Rendered:
        """Return ``function(config)``, computed once, perhaps for another domain.

        Its value depends on the domain only where it is filled in.
        """
        return self.rendered(function) if self._common is None else self._common.value(function)

    def document(self, render: Callable[[ClientConfig], bytes]) -> bytes:
        """Return rendered(), whose document is made of one for other domains if possible.

        The domain stands in such a document as it is, if at all.
        """
        if self._common is None:
            return self.rendered(render)
        document = self._rendered.get(render)
        if document is None:
            document = self._rendered[render] = self._common.document(render, self.config.domain)
        return cast("bytes", document)

    def pacc(self) -> bytes:
        """Return the PACC document that is served; raises NothingToPublishError."""
        if self.stored_pacc is None:
            return self.rendered(pacc.render)
        if not self.stored_pacc:
            raise pacc.NothingToPublishError(cause=f"domain {self.config.domain}: none is stored")
        return self.stored_pacc

    def aged(self, seconds: float) -> "FoundConfig":
        """Return the same settings as they are used after so many seconds without the database."""
        found = copy(self)  # with the same documents
        found.age = int(seconds)
        return found


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


_Answers = Memory[str, FoundConfig | AutomxError]
_Settings = Memory[str, FoundConfig]


class ConfigCache:
    """Remembers what look-ups gave. Safe for threads.

    ``seconds`` is how long an answer is kept; 0 keeps none. Unknown domains and unusable rows are
    remembered as well, an unreachable database is not. While it cannot be reached, settings are
    used for ``stale_seconds`` longer: those of the ``stale_size`` domains that were read last.

    Domains without a row of their own, unknown or by a wildcard, have memories for themselves:
    strangers can invent any number of them, which must not push others out.

    ``rows`` is the memory of rows that look-ups may use, None if nothing is kept. Settings are due
    when the oldest of their rows is.
    """

    def __init__(
        self,
        seconds: float,
        *,
        stale_seconds: float = 0,
        size: int = 2_000,
        stale_size: int = 5_000,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._lock = Lock()
        self._now = now
        self._changes = 0  # how often something was forgotten
        self._hits = self._fresh_hits = 0
        self.misses = self.stale_hits = 0  # of get()
        self._refreshed: dict[str, float] = {}  # domains that are being read again, and since when
        self.rows = RowMemory(seconds, 5 * size, now) if seconds > 0 else None
        # Those of domains with a row of their own, and those of others.
        self._answers: list[_Answers] = []
        self._stale: list[_Settings] = []
        for at_most in (size, stale_size), (min(INVENTED, size), min(INVENTED, stale_size)):
            if seconds > 0:
                self._answers.append(Memory(at_most[0], seconds, now))
            if stale_seconds > 0:
                self._stale.append(Memory(at_most[1], seconds + stale_seconds, now))

    def fresh(self, domain: str) -> FoundConfig | AutomxError | None:
        """Return what get() would from memory; None if a look-up is due.

        It waits for no other thread, and is no use of the memory. One thread alone may call it:
        that of the event loop.
        """
        for memory in self._answers:
            if (kept := memory.get(domain)) is not None:
                self._fresh_hits += 1
                return kept[0]
        return None

    @property
    def hits(self) -> int:
        """How many answers of get() and fresh() came from memory."""
        return self._hits + self._fresh_hits

    def size(self) -> int:
        """Return the number of domains that are remembered."""
        with self._lock:
            return sum(1 for memory in self._answers for _ in memory.answers())

    def get(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        """Return or raise what ``look_up(domain)`` does, from memory if possible.

        Settings from memory take the place of a DatabaseError, and of waiting for a slow look-up
        that another thread makes already; they have an ``age``.
        """
        answer: FoundConfig | AutomxError | None = None
        is_refresh = False
        with self._lock:
            for memory in self._answers:
                if answer is None and (kept := memory.use(domain)) is not None:
                    answer = kept[0]
                    self._hits += 1
            if answer is None and any(memory.get(domain) for memory in self._stale):
                answer = self._instead_of_refresh(domain)
                is_refresh = answer is None and domain not in self._refreshed
                if is_refresh:
                    self._refreshed[domain] = self._now()
        if isinstance(answer, AutomxError):
            raise copy(answer)
        if answer is not None:
            return answer
        with self._lock:
            self.misses += 1
        try:
            return self._read(domain, look_up)
        finally:
            if is_refresh:
                with self._lock:
                    self._refreshed.pop(domain, None)

    def _instead_of_refresh(self, domain: str) -> FoundConfig | None:
        """Return old settings of a domain if the database is slow; the caller has the lock."""
        began = self._refreshed.get(domain)
        if began is None and len(self._refreshed) >= REFRESHES:
            began = min(self._refreshed.values())
        if began is None or self._now() - began < SLOW_SECONDS:
            return None
        return self._stale_one(domain)

    def _read(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        changes, read_at = self._changes, self._now()
        try:
            found = look_up(domain)
        except (UnknownDomainError, BadRecordError) as error:
            # Without the traceback, whose frames hold the whole request.
            self._keep(domain, copy(error), read_at, changes)
            raise
        except DatabaseError:
            with self._lock:
                stale = self._stale_one(domain)
            if stale is None:
                raise
            return stale
        self._keep(domain, found, read_at, changes)
        return found

    def clear(self) -> None:
        """Forget everything."""
        if self.rows is not None:
            self.rows.clear()  # first: what is looked up after the next line finds no old row
        with self._lock:
            self._changes += 1
            for memory in self._memories():
                memory.clear()

    def forget(self, changed: Collection[RowKey]) -> None:
        """Forget what is made of rows that were changed, for outages as well.

        Unknown domains are forgotten for which a row was added, and domains whose rows are unusable
        with any change of rows that may be theirs. What is being looked up at the moment is not
        kept.
        """
        changes = frozenset(changed)
        if not changes.isdisjoint(EVERYTHING):
            self.clear()
            return
        # Most changes are of domains: they are found without a look at all that is remembered.
        domains = {key for table, key in changes if table == "domain" and not key.startswith("*")}
        wider = changes - {("domain", name) for name in domains}
        if self.rows is not None and wider:
            self.rows.forget(wider)  # first: what is looked up after the next line finds no old row
        with self._lock:
            self._changes += 1
            for memory in self._memories():
                for domain in (*domains, *_changed_domains(memory, wider)):
                    memory.forget(domain)

    def _keep(
        self, domain: str, answer: FoundConfig | AutomxError, read_at: float, changes: int
    ) -> None:
        """Remember an answer, unless something was forgotten since ``changes``: it may be older."""
        found = answer if isinstance(answer, FoundConfig) else None
        if found is not None and found.read_at is not None:
            read_at = min(read_at, found.read_at)
        is_invented = found is None or found.is_by_wildcard
        with self._lock:
            if changes != self._changes:
                return
            for number, memory in enumerate(self._answers):
                if number == is_invented:
                    memory.keep(domain, answer, read_at)
                else:
                    memory.forget(domain)
            for number, settings in enumerate(self._stale):
                if found is not None and number == is_invented:
                    settings.keep(domain, found, read_at)
                else:
                    settings.forget(domain)

    def _memories(self) -> "list[_Answers | _Settings]":
        return [*self._answers, *self._stale]

    def _stale_one(self, domain: str) -> FoundConfig | None:
        """Return old settings of a domain, if there are any; the caller has the lock."""
        for memory in self._stale:
            if (kept := memory.use(domain)) is not None:
                found, read_at = kept
                self.stale_hits += 1
                return found.aged(self._now() - read_at)
        return None


def _changed_domains(memory: "_Answers | _Settings", changes: frozenset[RowKey]) -> list[str]:
    """Return the remembered domains whose answer may be another one after some changes."""
    if not changes:
        return []
    return [domain for domain, answer in memory.answers() if _is_changed(domain, answer, changes)]


def _is_changed(domain: str, answer: FoundConfig | AutomxError, changes: frozenset[RowKey]) -> bool:
    if isinstance(answer, FoundConfig):
        if not changes.isdisjoint(answer.rows):
            return True
        names: Collection[str] = answer.names
    else:
        if isinstance(answer, BadRecordError) and any(table != "domain" for table, _ in changes):
            return True
        names = names_for(domain)
    return any(("domain", name) in changes for name in names)
