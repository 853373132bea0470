"""All directories of a process: which host is asked, for how long, and what is remembered.

A look-up runs in a thread of its directory and is waited for no longer than the time limit,
whatever hangs: the resolver, the connection, TLS, the bind or the search. A host that failed is
passed over for a while.
"""

import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Any

from cachetools import TTLCache, cachedmethod

from automx import deadline
from automx.address import PLACEHOLDER, EmailAddress, is_loopback
from automx.clientconfig import FORBIDDEN
from automx.config import DirectorySettings
from automx.directory.connection import BrokenError, Connection, Host, HostError, TlsMode
from automx.directory.row import LdapServer
from automx.errors import SettingsError, UnavailableError

log = logging.getLogger(__name__)

_Clock = Callable[[], float]

RETRY_SECONDS = 5.0  # how long a host that failed is passed over
LOOKUPS = 4  # how many look-ups of a directory run at once, so that one cannot take all threads
STALL_SECONDS = 1.0  # no look-up waits for its turn behind one that takes longer than this


@dataclass(frozen=True, slots=True)
class Person:
    """What a directory says of an address; "" where it says nothing."""

    login_name: str
    display_name: str


NOBODY = Person("", "")


class DirectoryError(UnavailableError):
    """A directory cannot be asked; the cause was logged when the outage began."""

    is_logged = True


def hosts(server: LdapServer, settings: DirectorySettings) -> list[Host]:
    """Return the hosts of a row, with what they do not say taken from its columns and settings."""
    found = []
    for host in server.hosts:
        is_ldaps = host.scheme == "ldaps" if host.scheme else server.use_ssl
        # The columns' port belongs to the columns' way of encryption.
        is_alike = server.port and is_ldaps == server.use_ssl
        default = server.port if is_alike else 636 if is_ldaps else 389
        if is_ldaps:
            tls = TlsMode.LDAPS
        elif settings.starttls == "no" or (settings.starttls == "yes" and is_loopback(host.name)):
            tls = TlsMode.NONE
        else:
            tls = TlsMode.STARTTLS if settings.starttls == "yes" else TlsMode.TRY_STARTTLS
        found.append(Host(host.name, host.port or default, tls))
    return found


def bind_password(server: LdapServer, settings: DirectorySettings) -> str:
    """Return the password by which automx logs in to a directory."""
    return settings.bind_passwords.get(server.id, server.bind_password)


class Directories:
    """All directories of a process, with their connections and what they said; threads share it."""

    def __init__(self, settings: DirectorySettings, *, now: _Clock = monotonic) -> None:
        self.settings = settings
        self._now = now
        self._lock = Lock()
        self._directories: dict[int, _Directory] = {}
        self._people: TTLCache[tuple[LdapServer, str], Person | None]
        self._people = TTLCache(settings.cache_size, settings.cache_seconds, now)
        # The system's authorities are loaded when they are needed; a wrong file is reported now.
        self._context = tls_context(settings) if settings.ca_file else None
        if not settings.verify:
            log.warning("ldap_verify = no: anyone on the way to a directory can read and forge")

    @cachedmethod(
        cache=attrgetter("_people"),
        key=lambda _, server, address: (server, str(address).lower()),
        lock=attrgetter("_lock"),
    )
    def find(self, server: LdapServer, address: EmailAddress) -> Person | None:
        """Return what a directory says of an address, or None if it does not know it.

        Answers come from memory if they are fresh enough. Raises DirectoryError if no host answers
        in time.
        """
        return self._directory(server).find(address)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            directories = list(self._directories.values())
            self._directories.clear()
        for directory in directories:
            directory.close()

    def _directory(self, server: LdapServer) -> "_Directory":
        with self._lock:
            if self._context is None:
                self._context = tls_context(self.settings)
            directory = self._directories.get(server.id)
            if directory is None or directory.server != server:  # the row was changed
                if directory is not None:
                    directory.close()
                directory = _Directory(server, self.settings, self._context, self._now)
                self._directories[server.id] = directory
            return directory


def tls_context(settings: DirectorySettings) -> ssl.SSLContext:
    """Return what TLS connections are checked with: TLS 1.2 or later, the system's authorities.

    Raises SettingsError if the file of authorities cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"ldap_ca_file {settings.ca_file} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(eq=False)
class _HostState:
    """A host with its idle connections, and whether it is worth asking."""

    host: Host
    idle: list[Connection] = field(default_factory=list)
    failed_at: float | None = None  # None as long as it answers
    retry_at: float = 0
    is_probed: bool = False


@dataclass(eq=False)
class _Attempt:
    """A look-up in progress; the thread that waits for it can end it."""

    began: float
    end: float
    connection: Connection | None = None
    state: _HostState | None = None
    is_abandoned: bool = False


class _Directory:
    """The hosts of one row."""

    def __init__(
        self, server: LdapServer, settings: DirectorySettings, context: ssl.SSLContext, now: _Clock
    ) -> None:
        self.server = server
        self._password = bind_password(server, settings)
        self._timeout = settings.timeout
        self._context = context
        self._now = now
        self._lock = Lock()
        self._turns = BoundedSemaphore(LOOKUPS)
        self._states = [_HostState(host) for host in hosts(server, settings)]
        self._attempts: list[_Attempt] = []
        self._is_closed = False
        self._threads = ThreadPoolExecutor(
            LOOKUPS + len(server.hosts), thread_name_prefix=f"ldap-{server.id}"
        )

    def find(self, address: EmailAddress) -> Person | None:
        end = deadline.after(self._timeout)
        self._take_turn(end)
        attempt = _Attempt(monotonic(), end)
        states: list[_HostState] = []
        with self._lock:
            self._attempts.append(attempt)
        try:
            states = self._states_to_ask()
            future = self._threads.submit(self._find, address, states, attempt)
            return self._wait(future, attempt)
        finally:
            with self._lock:
                self._attempts.remove(attempt)
            self._turns.release()
            for state in states:
                state.is_probed = False

    def close(self) -> None:
        """Drop all connections: the idle ones now, the others when their look-up ends."""
        self._is_closed = True
        for state in self._states:
            while (connection := self._take_idle(state)) is not None:
                connection.close()

    def _take_turn(self, end: float) -> None:
        while not self._turns.acquire(timeout=0.05):
            now = monotonic()
            with self._lock:
                is_stalled = any(now - attempt.began > STALL_SECONDS for attempt in self._attempts)
            if is_stalled or now > end:
                raise DirectoryError

    def _wait(self, future: "Future[Person | None]", attempt: _Attempt) -> Person | None:
        try:
            return future.result(deadline.left(attempt.end))
        except TimeoutError:
            attempt.is_abandoned = True
            if not future.cancel() and attempt.state is not None:
                self._failed(attempt.state, f"no answer within {self._timeout:g} s")
            if attempt.connection is not None:
                attempt.connection.close()
            raise DirectoryError from None

    def _states_to_ask(self) -> list[_HostState]:
        """Return the hosts that are worth asking, in order.

        A host that failed is tried again in the background as long as others answer, so that
        no request waits for it; where none answers, one request at a time tries.
        """
        with self._lock:
            up = [state for state in self._states if state.failed_at is None]
            down = [state for state in self._states if state.failed_at is not None]
            due = [state for state in down if not state.is_probed and state.retry_at <= self._now()]
            for state in due:
                state.is_probed = True
        if up:
            for state in due:
                self._threads.submit(self._probe, state)
            return up
        if not due:
            raise DirectoryError
        return due

    def _find(
        self, address: EmailAddress, states: Sequence[_HostState], attempt: _Attempt
    ) -> Person | None:
        search_filter = self.server.filter_for(address)
        for index, state in enumerate(states):
            # What is left is shared: a silent host must not use up the time of the next one.
            share = deadline.left(attempt.end) / (len(states) - index)
            attempt.state = state
            try:
                entries = self._search(search_filter, state, attempt, deadline.after(share))
            except HostError as error:
                if attempt.is_abandoned:  # _wait() has logged it, perhaps long ago
                    break
                self._failed(state, str(error))
                continue
            self._answered(state, attempt.began)
            if len(entries) > 1:
                several = "ldapserver %s: several entries fit %s; none is used"
                log.warning(several, self.server.id, address)
                return None
            return person(self.server, entries[0]) if entries else None
        raise DirectoryError

    def _search(
        self, search_filter: str, state: _HostState, attempt: _Attempt, end: float
    ) -> list[Any]:
        """Search by an idle connection if one is left, else or if it breaks by a new one."""
        while True:
            idle = self._take_idle(state)
            attempt.connection = connection = idle or Connection(state.host, self._context)
            try:
                if idle is None:
                    connection.log_in(self.server, self._password, end)
                entries = connection.search(
                    self.server.search_base, search_filter, self.server.attributes, end
                )
            except HostError as error:
                connection.close()
                if idle is None or not isinstance(error, BrokenError):
                    raise
            else:
                attempt.connection = None
                self._keep(connection, state)
                return entries

    def _keep(self, connection: Connection, state: _HostState) -> None:
        connection.last_used = monotonic()
        with self._lock:
            if not self._is_closed:
                state.idle.append(connection)
                return
        connection.close()

    def _take_idle(self, state: _HostState) -> Connection | None:
        while True:
            with self._lock:
                if not state.idle:
                    return None
                connection = state.idle.pop()
            if connection.is_fresh():
                return connection
            connection.close()

    def _probe(self, state: _HostState) -> None:
        """Find out whether a host that failed can be asked again."""
        connection = Connection(state.host, self._context)
        began = monotonic()
        try:
            connection.log_in(self.server, self._password, deadline.after(self._timeout))
        except HostError as error:
            connection.close()
            self._failed(state, str(error))
        else:
            self._keep(connection, state)
            self._answered(state, began)
        finally:
            state.is_probed = False

    def _failed(self, state: _HostState, why: str) -> None:
        with self._lock:
            is_news = state.failed_at is None
            state.failed_at = monotonic()
            state.retry_at = self._now() + RETRY_SECONDS
        if is_news:
            log.error("ldapserver %s: %s fails: %s", self.server.id, state.host, why)

    def _answered(self, state: _HostState, began: float) -> None:
        with self._lock:
            # What was asked before the host failed may still be answered as it goes down.
            is_news = state.failed_at is not None and began > state.failed_at
            if is_news:
                state.failed_at = None
        if is_news:
            log.warning("ldapserver %s: %s answers again", self.server.id, state.host)


def person(server: LdapServer, entry: Mapping[str, Any]) -> Person:
    """Return what an entry of a search says."""
    values = {name.lower(): found for name, found in entry["raw_attributes"].items()}

    def first(name: str) -> str:
        found = values.get(name.lower()) or []
        if len(found) > 1:
            log.debug("ldapserver %s: %s has several values in one entry", server.id, name)
        try:
            text = bytes(found[0]).decode().strip() if found else ""
        except UnicodeDecodeError:
            text = "\x00"
        if FORBIDDEN.search(text) or PLACEHOLDER.search(text):  # clients would expand that
            log.warning("ldapserver %s: %s holds a value that is no text", server.id, name)
            return ""
        return text

    return Person(first(server.attr_uid), first(server.attr_cn) if server.attr_cn else "")
