"""Rate limits: how often a client, and all clients of a token, may ask for an account.

Flask-Limiter counts in windows of a fixed length, in the memory of each worker or in a Redis that
all of them share. While Redis does not answer, each worker counts for itself: people get their
accounts, and a token still makes no more of them than it may.
"""

import ipaddress
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from time import time
from typing import TYPE_CHECKING

from flask import Flask, request
from werkzeug.exceptions import TooManyRequests

from automx.config import LimitSettings
from automx.errors import SettingsError, TooManyRequestsError

if TYPE_CHECKING:
    from flask_limiter import Limiter

# flask_limiter is imported where it is used: most servers make no accounts.

log = logging.getLogger(__name__)

LIMITS = "automx.limits"  # the key of the Limits in app.extensions

_MEMORY = "memory://"
# A Redis that does not answer is given up after so many seconds; wrapped, its errors are ours.
_STORAGE_OPTIONS: dict[str, str | int] = {
    "socket_connect_timeout": 1,
    "socket_timeout": 1,
    "wrap_exceptions": True,
}


@dataclass(frozen=True, slots=True)
class _Counters:
    """What counts the request that is being answered; the functions raise TooManyRequests."""

    limiter: "Limiter"
    count_client: Callable[[], None]
    count_token: Callable[[], None]


class Limits:
    """The limits of the settings. Safe for threads.

    Raises SettingsError if the storage of the settings cannot be used at all; that it does not
    answer is no such error.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._limit = settings.rate
        self._storage = settings.storage
        self._lock = threading.Lock()
        self._opened: _Counters | None = None
        if self._limit and self._storage != _MEMORY:
            self._counters()

    def count_client(self) -> None:
        """Count the request for its client. Raises TooManyRequestsError if it is one too many."""
        if self._limit:
            self._count(self._counters().count_client)

    def count_token(self) -> None:
        """Count the request for the token in its URL. Raises TooManyRequestsError likewise."""
        if self._limit:
            self._count(self._counters().count_token)

    def close(self) -> None:
        """Give back connections."""
        if self._opened is not None and self._storage != _MEMORY:
            self._opened.limiter.storage.storage.close()  # type: ignore[attr-defined] # of Redis

    def _count(self, counter: Callable[[], None]) -> None:
        from limits.errors import StorageError

        try:
            try:
                counter()
            except StorageError:  # another thread has just noticed, and Flask-Limiter raises here
                counter()
        except TooManyRequests:
            raise TooManyRequestsError(retry_after=self._seconds_left()) from None

    def _seconds_left(self) -> int:
        """Return how long the limit that the request has reached lasts, in seconds."""
        from limits.errors import StorageError

        reached = self._counters().limiter.current_limit
        assert reached is not None  # noqa: S101 - the counter has just raised
        try:
            return max(int(reached.reset_at - time()), 1)
        except StorageError:  # it has stopped meanwhile
            return reached.limit.get_expiry()

    def _counters(self) -> _Counters:
        with self._lock:
            if self._opened is None:
                self._opened = _open(self._limit, self._storage)
            return self._opened


def _open(limit: str, storage: str) -> _Counters:
    from flask_limiter import Limiter
    from limits.errors import ConfigurationError

    limiter = Limiter(
        _client,
        storage_uri=storage,
        storage_options={} if storage == _MEMORY else _STORAGE_OPTIONS,
        in_memory_fallback_enabled=storage != _MEMORY,
        key_prefix="automx",
    )
    limiter.logger = log
    try:
        # Not the application that serves: Flask-Limiter's hooks would take each request, whatever
        # it asks for, about as long as an answer of Autoconfig takes.
        limiter.init_app(Flask(__name__, static_folder=None))
    except ConfigurationError as error:
        text = "rate_limit_storage needs the Python module redis: pip install 'automx[redis]'"
        raise SettingsError(text) from error
    except ValueError as error:
        raise SettingsError("rate_limit_storage is not a URI of Redis") from error

    @limiter.shared_limit(limit, scope="client")
    def count_client() -> None:
        """Count the request for its client."""

    @limiter.shared_limit(limit, scope="token", key_func=_token)
    def count_token() -> None:
        """Count the request for its token."""

    return _Counters(limiter, count_client, count_token)


# Flask-Limiter takes any error in these two for one of the storage.


def _client() -> str:
    """Return the client's address; of IPv6, the network that one customer has at least."""
    text = request.remote_addr or "unknown"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address.packed[:8] + bytes(8), 64)))


def _token() -> str:
    """Return what stands for the token: who may look into Redis must not learn the token itself."""
    token = request.args.get("t", "")
    return blake2b(
        token.encode(errors="replace"), digest_size=16, person=b"automx limit"
    ).hexdigest()
