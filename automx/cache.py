"""What look-ups gave, remembered for a bounded time and number of domains.

While the database is away, the settings of domains that were found before are used for longer.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from threading import Lock
from time import monotonic
from typing import Any, TypeVar, cast

from cachetools import Cache, TTLCache

from automx.address import names_for
from automx.clientconfig import ClientConfig
from automx.directory.row import LdapServer
from automx.errors import AutomxError, BadRecordError, DatabaseError, UnknownDomainError

_Rendered = TypeVar("_Rendered")

# A busy database must not take all threads of a worker. If a domain that is due is being read for
# so many seconds, or so many others are, then further requests use what was remembered.
SLOW_SECONDS, REFRESHES = 0.25, 8

RowKey = tuple[str, str]  # table and key of a row, as changelog explains them
EVERYTHING: frozenset[RowKey] = frozenset({("*", "*")})


class FoundConfig:
    """The settings of a domain, with its directory and with what the formats made of them.

    ``origin`` is that of the row that decides for the domain, "" if it has none.

    ``age`` is None, or how many seconds ago they were read if the database could not be asked again
    when they were due.

    ``names`` are the wildcards that decide for the domain, or would if there were such a row;
    ``rows`` are the rows beside that of the domain which the settings are made of.
    """

    def __init__(
        self,
        config: ClientConfig,
        ldap_server: LdapServer | None = None,
        *,
        origin: str = "",
        names: tuple[str, ...] = (),
        rows: frozenset[RowKey] = frozenset(),
    ) -> None:
        self.config = config
        self.ldap_server = ldap_server
        self.origin = origin
        self.names = names
        self.rows = rows
        self.age: int | None = None
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

    def aged(self, seconds: float) -> "FoundConfig":
        """Return the same settings as they are used after so many seconds without the database."""
        found = copy(self)  # with the same documents
        found.age = int(seconds)
        return found


class ConfigCache:
    """Remembers what look-ups gave. Safe for threads.

    ``seconds`` is how long an answer is kept; 0 keeps none. Unknown domains and unusable rows are
    remembered as well, an unreachable database is not. While it cannot be reached, settings are
    used for ``stale_seconds`` longer: those of the ``stale_size`` domains that were read last.
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
        self._refreshed: dict[str, float] = {}  # domains that are being read again, and since when
        self._answers: TTLCache[str, FoundConfig | AutomxError] | None = (
            TTLCache(size, seconds, now) if seconds > 0 else None
        )
        # With the moment at which they were read.
        self._stale: TTLCache[str, tuple[FoundConfig, float]] | None = (
            TTLCache(stale_size, seconds + stale_seconds, now) if stale_seconds > 0 else None
        )

    def get(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        """Return or raise what ``look_up(domain)`` does, from memory if possible.

        Settings from memory take the place of a DatabaseError, and of waiting for a slow look-up
        that another thread makes already; they have an ``age``.
        """
        answer: FoundConfig | AutomxError | None = None
        is_refresh = False
        if self._answers is not None:
            with self._lock:
                answer = self._answers.get(domain)
                if answer is None and self._stale is not None and domain in self._stale:
                    answer = self._instead_of_refresh(domain)
                    is_refresh = answer is None and domain not in self._refreshed
                    if is_refresh:
                        self._refreshed[domain] = self._now()
        if isinstance(answer, AutomxError):
            raise copy(answer)
        if answer is not None:
            return answer
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
        answer: FoundConfig | AutomxError
        changes, read_at = self._changes, self._now()
        try:
            answer = look_up(domain)
        except (UnknownDomainError, BadRecordError) as error:
            answer = copy(error)  # without the traceback, whose frames hold the whole request
        except DatabaseError:
            with self._lock:
                stale = self._stale_one(domain)
            if stale is None:
                raise
            return stale
        with self._lock:
            if changes == self._changes:  # else it may have been read before
                self._keep(domain, answer, read_at)
        if isinstance(answer, AutomxError):
            raise copy(answer)
        return answer

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._changes += 1
            for memory in (self._answers, self._stale):
                if memory is not None:
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
        with self._lock:
            self._changes += 1
            for memory in (self._answers, self._stale):
                if memory is not None:
                    for domain in (*domains, *_changed_domains(memory, wider)):
                        with suppress(KeyError):  # it is not there, or its time is over
                            del memory[domain]

    def _keep(self, domain: str, answer: FoundConfig | AutomxError, read_at: float) -> None:
        if self._answers is not None:
            self._answers[domain] = answer
        if self._stale is not None:
            if isinstance(answer, FoundConfig):
                self._stale[domain] = answer, read_at
            else:
                self._stale.pop(domain, None)

    def _stale_one(self, domain: str) -> FoundConfig | None:
        """Return old settings of a domain, if there are any; the caller has the lock."""
        kept = None if self._stale is None else self._stale.get(domain)
        if kept is None:
            return None
        found, read_at = kept
        return found.aged(self._now() - read_at)


def _changed_domains(memory: Cache[str, Any], changes: frozenset[RowKey]) -> list[str]:
    """Return the remembered domains whose answer may be another one after some changes."""
    if not changes:
        return []
    # What TTLCache itself has in place of these would count as a use of each, and take longer.
    read: Callable[[Cache[str, Any], str], Any] = Cache.__getitem__
    domains: list[str] = list(Cache.__iter__(memory))
    kept = ((domain, read(memory, domain)) for domain in domains)
    return [
        domain
        for domain, answer in kept
        if _is_changed(domain, answer[0] if isinstance(answer, tuple) else answer, changes)
    ]


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
