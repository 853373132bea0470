"""All directories of a process: which host is asked, for how long, and what is remembered.

A look-up runs in a thread of its directory and is waited for no longer than the time limit,
whatever hangs: the resolver, the connection, TLS, the bind or the search. ``hoststate`` remembers
what failed.
"""

import logging
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Any

from cachetools import TTLCache, cachedmethod

from automx import deadline
from automx.address import PLACEHOLDER, EmailAddress, is_loopback
from automx.clientconfig import FORBIDDEN
from automx.config import DirectorySettings
from automx.directory.connection import Credentials, Host, HostError, TlsMode
from automx.directory.hoststate import Attempt, Clock, HostState, share
from automx.directory.row import LdapServer
from automx.errors import SettingsError, UnavailableError

log = logging.getLogger(__name__)

LOOKUPS = 4  # how many look-ups of a directory run at once, so that one cannot take all threads
# A silent directory must not take the threads of a worker (32 in `automx serve`), which other
# domains need: so many look-ups run at once in all directories together, and so many wait for
# their turn with patience. Together, that is three quarters of the threads.
ALL_LOOKUPS = 12
QUEUE = 12
# How long, in seconds, a directory may give no answer until those in the queue give up, and until
# all others do. A healthy one answers in milliseconds: there, each of a burst gets its turn.
STALL_SECONDS = 0.5
BRIEF_SECONDS = 0.15


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
        if host.scheme == "ldapi":
            found.append(Host(host.name, 0, TlsMode.SOCKET))
            continue
        is_ldaps = host.scheme == "ldaps" if host.scheme else server.use_ssl
        # The columns' port belongs to the columns' way of encryption.
        is_alike = server.port and is_ldaps == server.use_ssl
        default = server.port if is_alike else 636 if is_ldaps else 389
        if is_ldaps:
            tls = TlsMode.LDAPS
        elif settings.starttls == "no" or (settings.starttls == "yes" and is_loopback(host.name)):
            tls = TlsMode.NONE
        elif settings.starttls == "try" and server.id not in settings.client_certificates:
            tls = TlsMode.TRY_STARTTLS
        else:  # with a certificate, a refused StartTLS would make the search anonymous
            tls = TlsMode.STARTTLS
        found.append(Host(host.name, host.port or default, tls))
    return found


def credentials(
    server: LdapServer, settings: DirectorySettings, context: ssl.SSLContext | None = None
) -> Credentials:
    """Return how automx logs in to the hosts of a directory, by default with a new context.

    Raises SettingsError as tls_context().
    """
    return Credentials(
        context or tls_context(settings, server.id),
        server.id in settings.client_certificates,
        server.bind_user,
        settings.bind_passwords.get(server.id, server.bind_password),
    )


class Directories:
    """All directories of a process, with their connections and what they said; threads share it."""

    def __init__(self, settings: DirectorySettings, *, now: Clock = monotonic) -> None:
        self.settings = settings
        self._now = now
        self._lock = Lock()
        self._directories: dict[int, _Directory] = {}
        self._turns = BoundedSemaphore(ALL_LOOKUPS)
        self._queue = BoundedSemaphore(QUEUE)
        self._people: TTLCache[tuple[LdapServer, str], Person | None]
        self._people = TTLCache(settings.cache_size, settings.cache_seconds, now)
        # The system's authorities are loaded when they are needed; a wrong file is reported now.
        self._context = tls_context(settings) if settings.ca_file else None
        # Those with a certificate of automx's, by the id of the row.
        self._contexts = {key: tls_context(settings, key) for key in settings.client_certificates}
        if not settings.verify:
            log.warning("ldap_verify = no: anyone on the way to a directory can read and forge")

    @cachedmethod(
        cache=attrgetter("_people"),
        # In its own case: a stranger's spelling must not stand in the login name of others.
        key=lambda _, server, address: (server, address),
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
            directory = self._directories.get(server.id)
            if directory is None or directory.server != server:  # the row was changed
                if directory is not None:
                    directory.close()
                access = credentials(server, self.settings, self._context_for(server))
                turns = (BoundedSemaphore(LOOKUPS), self._turns)
                directory = _Directory(
                    server, self.settings, access, self._now, turns=turns, queue=self._queue
                )
                self._directories[server.id] = directory
            return directory

    def _context_for(self, server: LdapServer) -> ssl.SSLContext:
        if context := self._contexts.get(server.id):
            return context
        if self._context is None:
            self._context = tls_context(self.settings)
        return self._context


def tls_context(settings: DirectorySettings, row_id: int | None = None) -> ssl.SSLContext:
    """Return what TLS connections are checked with: TLS 1.2 or later, the system's authorities.

    With the id of a row, the context shows the certificate that the settings have for it. Raises
    SettingsError if a file of the settings cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"ldap_ca_file {settings.ca_file} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if row_id is not None and (path := settings.client_certificates.get(row_id)):
        key = settings.client_keys.get(row_id)
        try:
            # Without a password, OpenSSL would ask for that of an encrypted key at the terminal.
            context.load_cert_chain(path, key, password="")
        except (OSError, ssl.SSLError) as error:
            text = f"{path}{f' with the key {key}' if key else ''} cannot be used: {error}"
            raise SettingsError(f"ldap_client_certificate_file: {text}") from error
    return context


class _Directory:
    """The hosts of one row; a look-up takes all of ``turns``, and perhaps waits in ``queue``."""

    def __init__(
        self,
        server: LdapServer,
        settings: DirectorySettings,
        access: Credentials,
        now: Clock,
        *,
        turns: Sequence[BoundedSemaphore],
        queue: BoundedSemaphore,
    ) -> None:
        self.server = server
        self._timeout = settings.timeout
        self._lock = Lock()
        self._turns = turns
        self._queue = queue
        self._answered_at = 0.0
        self._states = [HostState(host, server, access, now) for host in hosts(server, settings)]
        self._attempts: list[Attempt] = []
        self._threads = ThreadPoolExecutor(
            LOOKUPS + len(server.hosts), thread_name_prefix=f"ldap-{server.id}"
        )

    def find(self, address: EmailAddress) -> Person | None:
        end = deadline.after(self._timeout)
        with ExitStack() as ends:
            self._take_turn(end, ends)
            attempt = Attempt(monotonic(), end)
            with self._lock:
                self._attempts.append(attempt)
            ends.callback(self._forget, attempt)
            states, claimed = self._states_to_ask()
            for state in claimed:
                ends.callback(setattr, state, "is_probed", False)
            future = self._threads.submit(self._find, address, states, attempt)
            found = self._wait(future, attempt)
            self._answered_at = monotonic()
            return found

    def close(self) -> None:
        """Drop all connections: the idle ones now, the others when their look-up ends."""
        for state in self._states:
            state.close()

    def _take_turn(self, end: float, ends: ExitStack) -> None:
        """Wait for a turn, which ends with ``ends``. Raises DirectoryError if it is in vain."""
        began = monotonic()
        with ExitStack() as waiting:
            patience = BRIEF_SECONDS
            if self._queue.acquire(blocking=False):
                waiting.callback(self._queue.release)
                patience = STALL_SECONDS
            for turns in self._turns:
                while not turns.acquire(timeout=0.05):
                    if self._silence(began) > patience or monotonic() > end:
                        raise DirectoryError
                ends.callback(turns.release)

    def _silence(self, began: float) -> float:
        """Return for how many seconds no look-up was answered that runs, or waits since began."""
        with self._lock:
            first = min((attempt.began for attempt in self._attempts), default=began)
        return monotonic() - max(first, self._answered_at)

    def _forget(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts.remove(attempt)

    def _wait(self, future: "Future[Person | None]", attempt: Attempt) -> Person | None:
        try:
            return future.result(deadline.left(attempt.end))
        except TimeoutError:
            attempt.is_abandoned = True
            if not future.cancel() and attempt.state and attempt.target:
                attempt.state.failed(attempt.target, f"no answer within {self._timeout:g} s")
            if attempt.connection is not None:
                attempt.connection.close()
            raise DirectoryError from None

    def _states_to_ask(self) -> tuple[list[HostState], list[HostState]]:
        """Return the hosts that are worth asking, in order, and those of them that had failed.

        What failed is tried again in the background as long as other hosts or addresses answer, so
        that no request waits for it; where none answers, one request at a time tries.
        """
        with self._lock:
            up = [state for state in self._states if state.is_up()]
            due = [state for state in self._states if not state.is_probed and state.is_due()]
            for state in due:
                state.is_probed = True
        if up:
            for state in due:
                self._threads.submit(state.probe, self._timeout)
            return up, []
        if not due:
            raise DirectoryError
        return due, due

    def _find(
        self, address: EmailAddress, states: Sequence[HostState], attempt: Attempt
    ) -> Person | None:
        search_filter = self.server.filter_for(address)
        for index, state in enumerate(states):
            # What is left is shared: a silent host must not use up the time of the next one.
            until = share(attempt.end, len(states) - index)
            attempt.state = state
            try:
                entries = state.search(search_filter, attempt, until)
            except HostError:  # it is logged
                if attempt.is_abandoned:
                    break
                continue
            if len(entries) > 1:
                several = "ldapserver %s: several entries fit %s; none is used"
                log.warning(several, self.server.id, address)
                return None
            return person(self.server, entries[0], address) if entries else None
        raise DirectoryError


def person(server: LdapServer, entry: Mapping[str, Any], address: EmailAddress) -> Person:
    """Return what an entry of a search for an address says."""
    values = {name.lower(): found for name, found in entry["raw_attributes"].items()}

    def first(name: str) -> str:
        found = values.get(name.lower()) or []
        if len(found) > 1:
            log.debug("ldapserver %s: %s has several values in one entry", server.id, name)
        try:
            text = bytes(found[0]).decode().strip() if found else ""
        except UnicodeDecodeError:
            text = "\x00"
        return usable(name, text)

    def usable(name: str, text: str) -> str:
        if FORBIDDEN.search(text) or PLACEHOLDER.search(text):  # clients would expand that
            log.warning("ldapserver %s: %s holds a value that is no text", server.id, name)
            return ""
        return text

    login_name = server.login_name_of(first(server.attr_uid), address)
    display_name = first(server.attr_cn) if server.attr_cn else ""
    return Person(usable("login_name", login_name), display_name)
