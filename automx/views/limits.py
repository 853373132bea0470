"""Rate limits: how often a client, and all clients of a token, may ask for an account.

Flask-Limiter counts in windows of a fixed length, in the memory of each worker or in a Redis that
all workers share. While Redis does not answer, each worker counts alone: accounts are still made,
and no token makes more than its ``maxuse``.
"""

import ipaddress
import logging
import threading
from collections.abc import Callable
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
# Timeouts are in seconds; wrapped, errors of Redis are StorageError.
_STORAGE_OPTIONS: dict[str, str | int] = {
    "socket_connect_timeout": 1,
    "socket_timeout": 1,
    "wrap_exceptions": True,
}


class Limits:
    """The limits of the settings. Safe for threads.

    Raises SettingsError if the storage of the settings can never be used; a storage that does not
    answer at the moment is no error.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._limit = settings.rate
        self._storage = settings.storage
        self._lock = threading.Lock()
        self._limiter: Limiter | None = None
        self._counters: dict[str, Callable[[], str]] = {}
        if self._limit and self._storage != _MEMORY:
            self._open()

    def count_client(self) -> None:
        """Count the request for its client. Raises TooManyRequestsError above the limit."""
        self._count("client")

    def count_token(self) -> None:
        """Count the request for the token in its URL. Raises TooManyRequestsError likewise."""
        self._count("token")

    def close(self) -> None:
        """Close connections."""
        if self._limiter is not None and self._storage != _MEMORY:
            self._limiter.storage.storage.close()  # type: ignore[attr-defined] # of Redis

    def _count(self, scope: str) -> None:
        if not self._limit:
            return
        from limits.errors import StorageError

        limiter = self._open()
        try:
            try:
                self._counters[scope]()
            except StorageError:  # raised if another thread has just noticed the outage
                self._counters[scope]()
        except TooManyRequests:
            reached = limiter.current_limit
            assert reached is not None  # noqa: S101 - the counter has just raised
            try:
                seconds = max(int(reached.reset_at - time()), 1)
            except StorageError:  # the outage began after the count
                seconds = reached.limit.get_expiry()
            raise TooManyRequestsError(retry_after=seconds) from None

    def _open(self) -> "Limiter":
        """Return the Limiter, made at the first call."""
        with self._lock:
            if self._limiter is None:
                limiter = _make_limiter(self._storage)
                for scope, key in (("client", _client), ("token", _token)):
                    limit = limiter.shared_limit(self._limit, scope=scope, key_func=key)
                    self._counters[scope] = limit(key)  # a call of any limited function counts
                self._limiter = limiter
            return self._limiter


def _make_limiter(storage: str) -> "Limiter":
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
        # Not the application that serves: Flask-Limiter's hooks would cost each request, of any
        # protocol, about as much time as an answer of Autoconfig.
        limiter.init_app(Flask(__name__, static_folder=None))
    except ConfigurationError as error:
        text = "rate_limit_storage needs the Python module redis: pip install 'automx[redis]'"
        raise SettingsError(text) from error
    except ValueError as error:
        raise SettingsError("rate_limit_storage is not a URI of Redis") from error
    return limiter


# These two must not raise: Flask-Limiter takes any error in them for an outage of the storage.


def _client() -> str:
    """Return the client's address; of IPv6, the /64 network, the least that a customer has."""
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
    """Return a digest of the token: the token itself must not stand in Redis."""
    token = request.args.get("t", "")
    return blake2b(
        token.encode(errors="replace"), digest_size=16, person=b"automx limit"
    ).hexdigest()
