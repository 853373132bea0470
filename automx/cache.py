"""What look-ups gave, remembered for a bounded time and number of domains.

While the database is away, the settings of domains that were found before are used for longer.
"""

from collections.abc import Callable, Collection
from copy import copy
from threading import Lock
from time import monotonic
from typing import Any, TypeVar, cast

from automx.address import names_for
from automx.clientconfig import ClientConfig
from automx.directory.row import LdapServer
from automx.errors import AutomxError, BadRecordError, DatabaseError, UnknownDomainError
from automx.formats import pacc
from automx.memory import Memory
from automx.rowmemory import EVERYTHING, Common, RowKey, RowMemory

_Rendered = TypeVar("_Rendered")

# A busy database must not take all threads of a worker. If a domain that is due is being read for
# so many seconds, or so many others are, then further requests use what was remembered.
SLOW_SECONDS, REFRESHES = 0.25, 8

INVENTED = 1_000  # domains without a row of their own that are remembered

MAX_AGE = 60  # seconds that caches of others keep a document: they learn of no change


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
        """Return the PACC document that is served.

        Raises NothingToPublishError, and BadRecordError if what is stored is no document.
        """
        if self.stored_pacc is None:
            return self.rendered(pacc.render)
        if not isinstance(self.stored_pacc, bytes):  # SQLite lets a text into the column
            text = "document must be bytes and no text"
            raise BadRecordError(cause=f"table managed_domain, {self.config.domain}: {text}")
        if not self.stored_pacc:
            raise pacc.NothingToPublishError(cause=f"domain {self.config.domain}: none is stored")
        return self.stored_pacc

    def aged(self, seconds: float) -> "FoundConfig":
        """Return the same settings as they are used after so many seconds without the database."""
        found = copy(self)  # with the same documents
        found.age = int(seconds)
        return found


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
        self.hits = self.misses = self.stale_hits = 0  # of get()
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

        It waits for no other thread, and is no use of the memory.
        """
        for memory in self._answers:
            if (kept := memory.get(domain)) is not None:
                return kept[0]
        return None

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
                    self.hits += 1
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
