"""What look-ups gave, remembered for a bounded time and number of domains.

While the database is away, the settings of domains that were found before are used for longer.
"""

from collections.abc import Callable
from copy import copy
from threading import Lock
from time import monotonic
from typing import TypeVar, cast

from cachetools import TTLCache

from automx.clientconfig import ClientConfig
from automx.directory.row import LdapServer
from automx.errors import AutomxError, BadRecordError, DatabaseError, UnknownDomainError

_Rendered = TypeVar("_Rendered")

# How many domains are read again at once. Requests for others, and all further ones for these, use
# what is remembered meanwhile: a busy database must not take all threads of a worker.
REFRESHES = 8


class FoundConfig:
    """The settings of a domain, with its directory and with what the formats made of them.

    ``age`` is None, or how many seconds ago they were read if the database could not be asked again
    when they were due.
    """

    def __init__(self, config: ClientConfig, ldap_server: LdapServer | None = None) -> None:
        self.config = config
        self.ldap_server = ldap_server
        self.age: int | None = None
        self._rendered: dict[Callable[[ClientConfig], object], object] = {}

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
        self._clearings = 0
        self._refreshed: set[str] = set()  # domains that are being read again
        self._answers: TTLCache[str, FoundConfig | AutomxError] | None = (
            TTLCache(size, seconds, now) if seconds > 0 else None
        )
        # With the moment at which they were read.
        self._stale: TTLCache[str, tuple[FoundConfig, float]] | None = (
            TTLCache(stale_size, seconds + stale_seconds, now) if stale_seconds > 0 else None
        )

    def get(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        """Return or raise what ``look_up(domain)`` does, from memory if possible.

        Settings from memory take the place of a DatabaseError, and of waiting for a look-up that
        another thread makes already; they have an ``age``.
        """
        answer: FoundConfig | AutomxError | None = None
        if self._answers is not None:
            with self._lock:
                answer = self._answers.get(domain)
                is_known = answer is None and self._stale is not None and domain in self._stale
                is_awaited = is_known and not self._is_to_refresh(domain)
            if is_awaited and (stale := self._stale_one(domain)) is not None:
                return stale
            if is_known:
                try:
                    return self._read(domain, look_up)
                finally:
                    with self._lock:
                        self._refreshed.discard(domain)
        if answer is None:
            return self._read(domain, look_up)
        if isinstance(answer, AutomxError):
            raise copy(answer)
        return answer

    def _is_to_refresh(self, domain: str) -> bool:
        """Return whether the caller, who has the lock, shall read a domain again."""
        if domain in self._refreshed or len(self._refreshed) >= REFRESHES:
            return False
        self._refreshed.add(domain)
        return True

    def _read(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        answer: FoundConfig | AutomxError
        clearings, read_at = self._clearings, self._now()
        try:
            answer = look_up(domain)
        except (UnknownDomainError, BadRecordError) as error:
            answer = copy(error)  # without the traceback, whose frames hold the whole request
        except DatabaseError:
            if (stale := self._stale_one(domain)) is None:
                raise
            return stale
        with self._lock:
            if clearings == self._clearings:  # else it may have been read before
                self._keep(domain, answer, read_at)
        if isinstance(answer, AutomxError):
            raise copy(answer)
        return answer

    def clear(self) -> None:
        """Forget everything, because the database was changed by this very process."""
        with self._lock:
            self._clearings += 1
            for memory in (self._answers, self._stale):
                if memory is not None:
                    memory.clear()

    def _keep(self, domain: str, answer: FoundConfig | AutomxError, read_at: float) -> None:
        if self._answers is not None:
            self._answers[domain] = answer
        if self._stale is not None:
            if isinstance(answer, FoundConfig):
                self._stale[domain] = answer, read_at
            else:
                self._stale.pop(domain, None)

    def _stale_one(self, domain: str) -> FoundConfig | None:
        if self._stale is None:
            return None
        with self._lock:
            kept = self._stale.get(domain)
        if kept is None:
            return None
        found, read_at = kept
        return found.aged(self._now() - read_at)
