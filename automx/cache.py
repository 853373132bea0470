"""What look-ups gave, remembered for a bounded time and number of domains."""

from collections.abc import Callable
from copy import copy
from threading import Lock
from time import monotonic
from typing import TypeVar, cast

from cachetools import TTLCache

from automx.clientconfig import ClientConfig
from automx.directory.row import LdapServer
from automx.errors import AutomxError, BadRecordError, UnknownDomainError

_Rendered = TypeVar("_Rendered")


class FoundConfig:
    """The settings of a domain, with its directory and with what the formats made of them."""

    def __init__(self, config: ClientConfig, ldap_server: LdapServer | None = None) -> None:
        self.config = config
        self.ldap_server = ldap_server
        self._rendered: dict[Callable[[ClientConfig], object], object] = {}

    def rendered(self, render: Callable[[ClientConfig], _Rendered]) -> _Rendered:
        """Return ``render(config)``, computed once; ``render`` must be a pure function."""
        try:
            return cast("_Rendered", self._rendered[render])
        except KeyError:
            rendered = self._rendered[render] = render(self.config)
            return rendered


class ConfigCache:
    """Remembers what look-ups gave. Safe for threads.

    ``seconds`` is how long an answer is kept; 0 keeps none. Unknown domains and unusable rows are
    remembered as well, an unreachable database is not.
    """

    def __init__(
        self, seconds: float, *, size: int = 2_000, now: Callable[[], float] = monotonic
    ) -> None:
        self._lock = Lock()
        self._answers: TTLCache[str, FoundConfig | AutomxError] | None = (
            TTLCache(size, seconds, now) if seconds > 0 else None
        )

    def get(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        """Return or raise what ``look_up(domain)`` does, from memory if possible."""
        if self._answers is None:
            return look_up(domain)
        with self._lock:
            answer = self._answers.get(domain)
        if answer is None:
            try:
                answer = look_up(domain)
            except (UnknownDomainError, BadRecordError) as error:
                answer = copy(error)  # without the traceback, whose frames hold the whole request
            with self._lock:
                self._answers[domain] = answer
        if isinstance(answer, AutomxError):
            raise copy(answer)
        return answer

    def clear(self) -> None:
        """Forget everything, because the database was changed by this very process."""
        if self._answers is not None:
            with self._lock:
                self._answers.clear()
