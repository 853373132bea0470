"""Rate limits: how often a client, and all clients of a token, may ask for an account.

Requests are counted in windows of a fixed length, in the memory of each worker or in a Redis that
all workers share. While Redis does not answer, each worker counts alone: accounts are still made,
and no token makes more than its ``maxuse``.
"""

import ipaddress
import logging
import re
from hashlib import blake2b
from math import ceil
from threading import Lock
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from flask import request

from automx.config import LimitSettings
from automx.errors import SettingsError, TooManyRequestsError

if TYPE_CHECKING:
    from limits.strategies import FixedWindowRateLimiter

# The library limits is imported where it is used: most servers make no accounts.

log = logging.getLogger(__name__)

# Some proxies (IIS, Azure) append the port to the address in X-Forwarded-For.
_WITH_PORT = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::[0-9]+)?")

_MEMORY = "memory://"
_PAUSE = 10  # seconds after a failure of Redis in which it is not asked
# Of a connection to Redis, in seconds.
_TIMEOUT = {"socket_connect_timeout": 1, "socket_timeout": 1}


class Limits:
    """The limits of the settings. Safe for threads.

    Raises SettingsError if the storage of the settings can never be used; a storage that does not
    answer at the moment is no error.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._rate = settings.rate
        self._lock = Lock()
        self._memory: FixedWindowRateLimiter | None = None  # made at the first request
        is_shared = settings.rate and settings.storage != _MEMORY
        self._redis = _open(settings.storage) if is_shared else None
        self._next_try = 0.0  # when a Redis that failed is asked again; 0 while it answers

    def count_client(self) -> None:
        """Count the request for its client. Raises TooManyRequestsError above the limit."""
        self._count(_client(), "client")

    def count_token(self) -> None:
        """Count the request for the token in its URL. Raises TooManyRequestsError likewise."""
        self._count(_token(), "token")

    def close(self) -> None:
        """Close connections."""
        if self._redis is not None:
            self._redis.storage.storage.close()  # type: ignore[attr-defined] # of Redis

    def _count(self, key: str, scope: str) -> None:
        if not self._rate:
            return
        limiter = self._limiter()  # loads the library in one thread: its modules import in circles
        from limits.errors import StorageError

        try:
            seconds = self._wait(limiter, key, scope)
            if limiter is self._redis:
                self._next_try = 0.0
        except StorageError:
            log.warning("Rate limit storage unreachable: this worker counts alone")
            self._next_try = monotonic() + _PAUSE
            seconds = self._wait(self._in_memory(), key, scope)
        if seconds:
            raise TooManyRequestsError(retry_after=seconds)

    def _limiter(self) -> "FixedWindowRateLimiter":
        """Return what counts: Redis, or the memory if there is none or it has failed."""
        with self._lock:
            now = monotonic()
            if self._redis is not None and now >= self._next_try:
                if self._next_try:
                    self._next_try = now + _PAUSE  # one request tries, the others do not wait
                return self._redis
        return self._in_memory()

    def _in_memory(self) -> "FixedWindowRateLimiter":
        with self._lock:
            if self._memory is None:
                self._memory = _open(_MEMORY)
            return self._memory

    def _wait(self, limiter: "FixedWindowRateLimiter", key: str, scope: str) -> int:
        """Count a request; return how many seconds it came too early, 0 if it did not."""
        from limits import parse_many

        for limit in sorted(parse_many(self._rate), key=lambda limit: limit.get_expiry()):
            if not limiter.hit(limit, "automx", key, scope):
                reset = limiter.get_window_stats(limit, "automx", key, scope).reset_time
                return max(ceil(reset - time()), 1)
        return 0


def _open(storage: str) -> "FixedWindowRateLimiter":
    from limits.errors import ConfigurationError
    from limits.storage import storage_from_string
    from limits.strategies import FixedWindowRateLimiter

    try:  # wrapped, errors of Redis are StorageError; the memory takes no notice of options
        opened: Any = storage_from_string(storage, wrap_exceptions=True, **_TIMEOUT)
        return FixedWindowRateLimiter(opened)
    except ConfigurationError as error:
        text = "rate_limit_storage needs the Python module redis: pip install 'automx[redis]'"
        raise SettingsError(text) from error
    except ValueError as error:
        raise SettingsError("rate_limit_storage is not a URI of Redis") from error


def _client() -> str:
    """Return the client's address; of IPv6, the /64 network, the least that a customer has."""
    text = request.remote_addr or "unknown"
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return str(getattr(address, "ipv4_mapped", address))


def _token() -> str:
    """Return a digest of the token: the token itself must not stand in Redis."""
    token = request.args.get("t", "").encode(errors="replace")
    return blake2b(token, digest_size=16, person=b"automx limit").hexdigest()
