"""What is known of a host of a directory: its addresses, whether each answers, idle connections.

An address that failed is passed over for a while, and so is a name that cannot be resolved; the
other addresses of the host are asked meanwhile.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

from automx import deadline
from automx.directory.connection import BrokenError, Connection, Credentials, Host, HostError
from automx.directory.row import LdapServer

log = logging.getLogger(__name__)

Clock = Callable[[], float]

RETRY_SECONDS = 2.0  # how long what failed is passed over


@dataclass(eq=False)
class Target:
    """What can fail by itself: the name of a host, or one of its addresses."""

    host: Host
    idle: list[Connection] = field(default_factory=list)
    failed_at: float | None = None  # None as long as it answers
    retry_at: float = 0


@dataclass(eq=False)
class Attempt:
    """A look-up in progress; the thread that waits for it can end it."""

    began: float
    end: float
    connection: Connection | None = None
    state: "HostState | None" = None
    target: Target | None = None
    is_abandoned: bool = False


class HostState:
    """A host of the directory of a row; threads share it.

    ``is_probed`` belongs to the directory: one thread at a time asks a host that failed.
    """

    def __init__(
        self, host: Host, server: LdapServer, credentials: Credentials, now: Clock
    ) -> None:
        self.is_probed = False
        self._server = server
        self._credentials = credentials
        self._now = now
        self._lock = Lock()
        self._is_closed = False
        self._name = Target(host)
        self._addresses: dict[Host, Target] = {}  # as last resolved

    def is_up(self) -> bool:
        """Return whether the host is worth asking."""
        return bool(self._up()) if self._addresses else self._name.failed_at is None

    def is_due(self) -> bool:
        """Return whether the name or an address failed, and shall be tried again."""
        targets = [self._name, *self._addresses.values()]
        now = self._now()
        return any(target.failed_at is not None and target.retry_at <= now for target in targets)

    def search(self, search_filter: str, attempt: Attempt, end: float) -> list[Any]:
        """Search by an idle connection if one is left, else by a new one.

        The addresses are asked in order, each for its share of the time. Raises HostError if none
        answers.
        """
        tried: list[Target] = []
        error = HostError("it has no address")
        while idle := self._take_idle(tried):
            target, connection = idle
            until = share(end, len(self._addresses) - len(tried))
            try:
                return self._search(target, connection, search_filter, attempt, until)
            except HostError as failure:
                # A restart of the host closes connections: a new one is worth a try.
                is_over = not isinstance(failure, BrokenError) or not deadline.left(until)
                if is_over:
                    error = self._failed_in(attempt, target, failure)
                    tried.append(target)
        self._resolve_for(attempt)
        targets = [target for target in self._to_ask() if target not in tried]
        for index, target in enumerate(targets):
            connection = Connection(target.host, self._credentials)
            until = share(end, len(targets) - index)
            try:
                return self._search(target, connection, search_filter, attempt, until)
            except HostError as failure:
                error = self._failed_in(attempt, target, failure)
        raise error

    def probe(self, seconds: float) -> None:
        """Find out whether what failed can be asked again; each address may take so long."""
        try:
            self._resolve()
            for target in list(self._addresses.values()):
                if target.failed_at is not None and target.retry_at <= self._now():
                    self._probe(target, deadline.after(seconds))
        except HostError:
            pass  # it is logged
        finally:
            self.is_probed = False

    def failed(self, target: Target, why: str) -> None:
        """Note, and log at first, that a name or an address fails."""
        with self._lock:
            is_news = target.failed_at is None
            target.failed_at = monotonic()
            target.retry_at = self._now() + RETRY_SECONDS
        if is_news:
            level = logging.WARNING if self.is_up() else logging.ERROR
            log.log(level, "ldapserver %s: %s fails: %s", self._server.id, target.host, why)

    def close(self) -> None:
        """Close the idle connections; the others are closed when their look-up ends."""
        with self._lock:
            self._is_closed = True
            idle = [one for target in self._addresses.values() for one in target.idle]
            self._addresses = {}
        for connection in idle:
            connection.close()

    def _search(
        self,
        target: Target,
        connection: Connection,
        search_filter: str,
        attempt: Attempt,
        end: float,
    ) -> list[Any]:
        attempt.target, attempt.connection = target, connection
        server = self._server
        try:
            if not connection.bound_as:
                connection.log_in(end)
            found = connection.search(server.search_bases, search_filter, server.attributes, end)
        except HostError:
            connection.close()
            raise
        attempt.connection = None
        self._keep(target, connection)
        self._answered(target, attempt.began)
        return found

    def _failed_in(self, attempt: Attempt, target: Target, error: HostError) -> HostError:
        if attempt.is_abandoned:  # the thread that waited has logged it, perhaps long ago
            raise error
        self.failed(target, str(error))
        return error

    def _resolve_for(self, attempt: Attempt) -> None:
        """Look for the addresses of the host, unless some are known and the resolver fails."""
        if self._addresses and self._name.failed_at is not None:
            return
        attempt.target, attempt.connection = self._name, None
        self._resolve()
        if attempt.is_abandoned:
            raise HostError("the resolver was too slow")

    def _resolve(self) -> None:
        """Look for the addresses of the host; those known before stay if there is no answer."""
        began = monotonic()
        try:
            found = self._name.host.each_address()
        except BrokenError as error:
            self.failed(self._name, str(error))
            if not self._addresses:
                raise
            return
        self._answered(self._name, began)
        with self._lock:
            before = self._addresses
            self._addresses = {host: before.get(host) or Target(host) for host in found}
            gone = [target for host, target in before.items() if host not in self._addresses]
            idle = [connection for target in gone for connection in target.idle]
        for connection in idle:
            connection.close()

    def _up(self) -> list[Target]:
        return [target for target in self._addresses.values() if target.failed_at is None]

    def _to_ask(self) -> list[Target]:
        """Return the addresses that are worth asking; all if each of them failed."""
        return self._up() or list(self._addresses.values())

    def _take_idle(self, tried: list[Target]) -> tuple[Target, Connection] | None:
        for target in self._to_ask():
            while target not in tried:
                with self._lock:
                    if not target.idle:
                        break
                    connection = target.idle.pop()
                if connection.is_fresh():
                    return target, connection
                connection.close()
        return None

    def _keep(self, target: Target, connection: Connection) -> None:
        connection.last_used = monotonic()
        with self._lock:
            if not self._is_closed and self._addresses.get(target.host) is target:
                target.idle.append(connection)
                return
        connection.close()

    def _probe(self, target: Target, end: float) -> None:
        connection = Connection(target.host, self._credentials)
        began = monotonic()
        try:
            connection.log_in(end)
        except HostError as error:
            connection.close()
            self.failed(target, str(error))
        else:
            self._keep(target, connection)
            self._answered(target, began)

    def _answered(self, target: Target, began: float) -> None:
        with self._lock:
            # What was asked before the host failed may still be answered as it goes down.
            is_news = target.failed_at is not None and began > target.failed_at
            if is_news:
                target.failed_at = None
        if is_news:
            log.warning("ldapserver %s: %s answers again", self._server.id, target.host)


def share(end: float, number: int) -> float:
    """Return the deadline of the first of a number of steps that share the time until ``end``."""
    return deadline.after(deadline.left(end) / max(1, number))
