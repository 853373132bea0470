"""Look-up of people in LDAP directories that may be slow, broken or hostile.

Standards: RFC 4511 (protocol), RFC 4515 (filters), RFC 4513 (StartTLS). A look-up runs in a thread
of its directory and is waited for no longer than the time limit, whatever hangs: the resolver, the
connection, TLS, the bind or the search. A host that failed is passed over for a while.

ldap3 is imported where it is used: it takes several MiB, and many servers have no directory.
"""

import ipaddress
import logging
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Any

from cachetools import TTLCache

from automx.address import PLACEHOLDER, EmailAddress
from automx.config import Settings
from automx.errors import BadRecordError, SettingsError, UnavailableError

__all__ = [
    "BrokenError",
    "Connection",
    "Directories",
    "DirectoryError",
    "Host",
    "HostError",
    "LdapServer",
    "Options",
    "Person",
    "TlsMode",
    "read_hosts",
]

log = logging.getLogger(__name__)

_importing = Lock()

RETRY_SECONDS = 5.0  # how long a host that failed is passed over
IDLE_SECONDS = 60.0  # how long an unused connection is kept: firewalls forget them silently
LOOKUPS = 4  # how many look-ups of a directory run at once, so that one cannot take all threads
STALL_SECONDS = 1.0  # nobody waits for a turn behind a look-up that takes longer than this

_PLACEHOLDER = re.compile(r"\{(0|local|domain)\}")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.-_")
_HOST = re.compile(r"(?:(ldaps?)://)?(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(\d{1,5}))?/?")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ue000-\ue00f\ufffe\uffff]")

_SUCCESS, _SIZE_LIMIT_EXCEEDED = 0, 4  # result codes of RFC 4511, appendix A


class TlsMode(StrEnum):
    """How a connection to a host is encrypted."""

    LDAPS = "LDAPS"
    STARTTLS = "StartTLS"
    TRY_STARTTLS = "StartTLS if possible"
    NONE = "not encrypted"


@dataclass(frozen=True, slots=True)
class Options:
    """The settings that concern all directories; times are seconds.

    ``bind_passwords`` maps the id of a row to a password that takes the place of the row's.
    """

    starttls: str = "yes"
    ca_file: str = ""
    verify: bool = True
    timeout: float = 3
    cache_seconds: float = 60
    cache_size: int = 10_000
    bind_passwords: Mapping[int, str] = field(default_factory=dict, repr=False)


def options(settings: Settings) -> Options:
    """Return those of the settings that concern directories."""
    return Options(
        starttls=settings.ldap_starttls,
        ca_file=settings.ldap_ca_file,
        verify=settings.ldap_verify,
        timeout=settings.ldap_timeout,
        cache_seconds=settings.ldap_cache_seconds,
        cache_size=settings.ldap_cache_size,
        bind_passwords=settings.ldap_bind_password_file,
    )


@dataclass(frozen=True, slots=True)
class Host:
    """One server of a directory."""

    name: str
    port: int
    tls: TlsMode

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class LdapServer:
    """A checked row of the table ``ldapserver``; hosts in the order in which they are tried."""

    id: int
    hosts: tuple[Host, ...]
    search_base: str
    search_filter: str
    attr_uid: str
    attr_cn: str
    bind_user: str
    bind_password: str = field(repr=False)

    def filter_for(self, address: EmailAddress) -> str:
        """Return the filter that finds an address; what it inserts is escaped (RFC 4515)."""
        values = {"0": str(address), "local": address.local_part, "domain": address.domain}
        return _PLACEHOLDER.sub(lambda match: _escape(values[match[1]]), self.search_filter)


@dataclass(frozen=True, slots=True)
class Person:
    """What a directory says of an address; "" where it says nothing."""

    login_name: str
    display_name: str


NOBODY = Person("", "")


class DirectoryError(UnavailableError):
    """A directory cannot be asked; the cause was logged when the outage began."""

    is_logged = True


class HostError(Exception):
    """A host does not do its work; the text tells the administrator why."""


class BrokenError(HostError):
    """The connection to a host failed, or could not be made."""


def ldap_server(row: Any, options: Options) -> LdapServer:
    """Return a row of the table ``ldapserver``, checked.

    Raises BadRecordError, with the id of the row and the column as cause.
    """

    def bad(column: str, reason: str) -> BadRecordError:
        return BadRecordError(cause=f"table ldapserver, id {row.id}: {column} {reason}")

    if not isinstance(row.port, int) or not 0 <= row.port <= 65535:
        raise bad("port", f"is {row.port!r}, it must be from 1 to 65535")
    try:
        hosts = [_host(*parts, row, options) for parts in read_hosts(str(row.name or ""))]
    except ValueError as error:
        raise bad("name", f"holds {error.args[0]!r}, it must be a host name") from error
    search_filter = str(row.search_filter or "").strip()
    if not re.search(r"\{(0|local)\}", search_filter):
        raise bad("search_filter", "has no placeholder {0} or {local} for the address")
    try:
        check_filter(_PLACEHOLDER.sub("x", search_filter))
    except ValueError as error:
        raise bad("search_filter", f"is no LDAP filter: {error}") from error
    if not str(row.attr_uid or "").strip():
        raise bad("attr_uid", "is empty")
    return LdapServer(
        id=row.id,
        hosts=tuple(hosts),
        search_base=str(row.search_base or ""),
        search_filter=search_filter,
        attr_uid=str(row.attr_uid).strip(),
        attr_cn=str(row.attr_cn or "").strip(),
        bind_user=str(row.bind_user or ""),
        bind_password=options.bind_passwords.get(row.id, row.bind_password or ""),
    )


def _escape(text: str) -> str:
    """Return a value for a filter; all but the plainest characters are escaped (RFC 4515).

    ldap3 would take blanks at the ends of a value for nothing. Raises UnicodeEncodeError for half
    of a surrogate pair.
    """
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in text.encode())


def read_hosts(text: str) -> list[tuple[str | None, str, int]]:
    """Return scheme (None if there is none), name and port (or 0) of each host in ``name``.

    Raises ValueError with what is no host.
    """
    hosts = []
    for item in re.split(r"[\s,]+", text.strip()):
        match = _HOST.fullmatch(f"[{item}]" if item.count(":") > 1 and _is_ip(item) else item)
        port = int(match[3] or 0) if match else 0
        if not match or port > 65535 or (match[3] and not port):
            raise ValueError(item)
        hosts.append((match[1], match[2].strip("[]"), port))
    return hosts


def check_filter(search_filter: str) -> None:
    """Raise ValueError if this is not a filter of RFC 4515."""
    _ldap3()
    if re.search(r"\\(?![0-9a-fA-F]{2})|\(\s*[~<>]?=", search_filter):
        raise ValueError("invalid escape or attribute")
    from ldap3.core.exceptions import LDAPException
    from ldap3.operation.search import parse_filter

    try:
        parse_filter(search_filter, None, False, False, None, False)
    except LDAPException as error:
        raise ValueError(str(error)) from error


def _host(scheme: str | None, name: str, port: int, row: Any, options: Options) -> Host:
    """Return a host, with what it does not say itself taken from the columns and the settings."""
    is_ldaps = scheme == "ldaps" if scheme else bool(row.use_ssl)
    # The columns' port belongs to the columns' way of encryption.
    default = row.port if row.port and is_ldaps == bool(row.use_ssl) else 636 if is_ldaps else 389
    if is_ldaps:
        tls = TlsMode.LDAPS
    elif options.starttls == "no" or (options.starttls == "yes" and _is_loopback(name)):
        tls = TlsMode.NONE
    else:
        tls = TlsMode.STARTTLS if options.starttls == "yes" else TlsMode.TRY_STARTTLS
    return Host(name, port or default, tls)


def _is_ip(name: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    return _is_ip(name) and ipaddress.ip_address(name).is_loopback


class Directories:
    """All directories of a process, with their connections and what they said; threads share it."""

    def __init__(self, options: Options, *, now: Callable[[], float] = monotonic) -> None:
        self.options = options
        self._now = now
        self._lock = Lock()
        self._directories: dict[int, _Directory] = {}
        self._people: TTLCache[tuple[LdapServer, str], Person] | None = None
        if options.cache_seconds > 0 and options.cache_size > 0:
            self._people = TTLCache(options.cache_size, options.cache_seconds, now)
        # The system's authorities are loaded when they are needed; a wrong file is told at once.
        self._context = tls_context(options) if options.ca_file else None
        if not options.verify:
            log.warning("ldap_verify = no: anyone on the way to a directory can read and forge")

    def find(self, server: LdapServer, address: EmailAddress) -> Person | None:
        """Return what a directory says of an address, or None if it does not know it.

        Answers come from memory if they are fresh enough. Raises DirectoryError if no host answers
        in time.
        """
        key = (server, str(address).lower())
        if self._people is not None:
            with self._lock:
                known = self._people.get(key)
            if known is not None:
                return known if known is not NOBODY else None
        person = self._directory(server).find(address)
        if self._people is not None:
            with self._lock:
                self._people[key] = person or NOBODY
        return person

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
                self._context = tls_context(self.options)
            directory = self._directories.get(server.id)
            if directory is None or directory.server != server:  # the row was changed
                if directory is not None:
                    directory.close()
                directory = _Directory(server, self.options.timeout, self._context, self._now)
                self._directories[server.id] = directory
            return directory


def tls_context(options: Options) -> ssl.SSLContext:
    """Return what TLS connections are checked with: TLS 1.2 or later, the system's authorities.

    Raises SettingsError if the file of authorities cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"ldap_ca_file {options.ca_file} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _ldap3() -> Any:
    """Return the library; whoever needs a part of it calls this first.

    Its modules import each other in circles, so that threads that begin with different ones fail.
    """
    with _importing:
        import ldap3

        return ldap3


class Connection:
    """A bound connection to a host.

    ``deadline`` is the time, by ``monotonic()``, until which each step has to be done. All methods
    raise HostError, and BrokenError where the connection itself fails.
    """

    def __init__(self, host: Host, context: ssl.SSLContext) -> None:
        self.host = host
        self.is_encrypted = False
        self.last_used = 0.0
        self._context = context
        self._ldap: Any = None

    def connect(self, deadline: float) -> None:
        """Connect, by TLS from the beginning if the host is to be asked by LDAPS."""
        ldap3 = _ldap3()
        tls = ldap3.Tls()
        # Python's own check of the certificate, host name included, in place of ldap3's.
        tls.wrap_socket = self._encrypt
        with _broken():
            server = ldap3.Server(
                self.host.name,
                self.host.port,
                use_ssl=self.host.tls is TlsMode.LDAPS,
                tls=tls,
                get_info=ldap3.NONE,
                connect_timeout=_remaining(deadline),
            )
            self._ldap = ldap3.Connection(
                server,
                client_strategy=ldap3.SYNC,
                auto_referrals=False,
                auto_range=False,
                check_names=False,
                read_only=True,
                return_empty_attributes=False,
            )
            self._ldap.open(read_server_info=False)
        self.is_encrypted = self.host.tls is TlsMode.LDAPS

    def _encrypt(self, connection: Any, do_handshake: bool = False) -> None:
        """Put TLS on the socket of a connection of ldap3's, which calls this."""
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=self.host.name
        )

    def start_tls(self, deadline: float) -> None:
        """Encrypt the connection (RFC 4513, section 3)."""
        from ldap3.core.exceptions import LDAPStartTLSError

        with _broken():
            self._limit(deadline)
            try:
                self._ldap.start_tls(read_server_info=False)
            except LDAPStartTLSError:
                description = (self._ldap.result or {}).get("description")
                if description == "success":  # what went wrong came later: the certificate, say
                    raise
                raise HostError(f"StartTLS was refused: {description}") from None
        self.is_encrypted = True

    def bind(self, user: str, password: str, deadline: float) -> None:
        """Log in, anonymously if there is no user."""
        with _broken():
            self._limit(deadline)
            if user:
                self._ldap.user, self._ldap.password = user, password
                self._ldap.authentication = "SIMPLE"
            is_bound = self._ldap.bind(read_server_info=False)
        if not is_bound:
            raise HostError(f"the bind was refused: {self._ldap.result['description']}")

    def search(
        self, base: str, search_filter: str, attributes: Sequence[str], deadline: float
    ) -> list[Any]:
        """Return at most two entries.

        Where the host has a limit of its own, an entry is returned twice rather than taken for the
        only one.
        """
        with _broken():
            self._limit(deadline)
            self._ldap.search(base, search_filter, attributes=list(attributes), size_limit=2)
        result = self._ldap.result
        if result["result"] not in {_SUCCESS, _SIZE_LIMIT_EXCEEDED}:
            raise HostError(f"the search was refused: {result['description']}")
        # Active Directory also sends referrals to other partitions; they are not followed.
        entries = [entry for entry in self._ldap.response if entry["type"] == "searchResEntry"]
        return entries if result["result"] == _SUCCESS else (entries * 2)[:2]

    def certificate(self) -> Mapping[str, Any]:
        """Return the host's certificate as ``ssl`` describes it, {} if it was not checked."""
        sock = self._ldap.socket
        return (sock.getpeercert() or {}) if isinstance(sock, ssl.SSLSocket) else {}

    def is_fresh(self) -> bool:
        """Tell whether the connection may be used again: young enough, and not closed meanwhile."""
        if monotonic() - self.last_used > IDLE_SECONDS:
            return False
        # Nothing is expected: what can be read is the end, or the announcement of it.
        try:
            return not select.select([self._ldap.socket], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Close the connection without a word; a thread that waits for an answer ends."""
        sock = self._ldap.socket if self._ldap is not None else None
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                sock.close()

    def _limit(self, deadline: float) -> None:
        self._ldap.socket.settimeout(_remaining(deadline))


@contextmanager
def _broken() -> Iterator[None]:
    """Raise BrokenError for what goes wrong with a connection; its text holds no secret."""
    try:
        yield
    except HostError:
        raise
    except TimeoutError as error:
        raise BrokenError("no answer in time") from error
    except Exception as error:  # ldap3 raises whatever its decoder stumbles over
        # ldap3 wraps the texts of ssl like a tuple.
        text = " ".join(str(error).split()).removeprefix("('").removesuffix("',)")
        raise BrokenError(text or type(error).__name__) from error


def _remaining(deadline: float) -> float:
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError("no answer in time")
    return seconds


class _HostState:
    """A host with its idle connections, and whether it is worth asking."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.idle: list[Connection] = []
        self.is_down = False
        self.failed_at = 0.0
        self.retry_at = 0.0
        self.is_probed = False


@dataclass(eq=False)
class _Attempt:
    """A look-up in progress, so that whoever waits for it can end it."""

    began: float
    connection: Connection | None = None
    state: _HostState | None = None
    is_abandoned: bool = False


class _Directory:
    """The hosts of one row."""

    def __init__(
        self,
        server: LdapServer,
        timeout: float,
        context: ssl.SSLContext,
        now: Callable[[], float],
    ) -> None:
        self.server = server
        self._timeout = timeout
        self._context = context
        self._now = now
        self._lock = Lock()
        self._turns = BoundedSemaphore(LOOKUPS)
        self._states = [_HostState(host) for host in server.hosts]
        self._attempts: list[_Attempt] = []
        self._is_closed = False
        self._threads = ThreadPoolExecutor(
            LOOKUPS + len(server.hosts), thread_name_prefix=f"ldap-{server.id}"
        )

    def find(self, address: EmailAddress) -> Person | None:
        deadline = monotonic() + self._timeout
        self._take_turn(deadline)
        attempt = _Attempt(monotonic())
        states: list[_HostState] = []
        try:
            states = self._states_to_ask()
            with self._lock:
                self._attempts.append(attempt)
            future = self._threads.submit(self._find, address, states, attempt, deadline)
            return self._wait(future, attempt, deadline)
        finally:
            with self._lock, suppress(ValueError):
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

    def _take_turn(self, deadline: float) -> None:
        while not self._turns.acquire(timeout=0.05):
            now = monotonic()
            with self._lock:
                is_stalled = any(now - attempt.began > STALL_SECONDS for attempt in self._attempts)
            if is_stalled or now > deadline:
                raise DirectoryError

    def _wait(
        self, future: "Future[Person | None]", attempt: _Attempt, deadline: float
    ) -> Person | None:
        try:
            return future.result(max(deadline - monotonic(), 0))
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
        nobody waits for it; where none answers, one request at a time tries.
        """
        with self._lock:
            up = [state for state in self._states if not state.is_down]
            due = [
                state
                for state in self._states
                if state.is_down and not state.is_probed and state.retry_at <= self._now()
            ]
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
        self,
        address: EmailAddress,
        states: Sequence[_HostState],
        attempt: _Attempt,
        deadline: float,
    ) -> Person | None:
        try:
            search_filter = self.server.filter_for(address)
        except UnicodeEncodeError:
            return None  # nobody has such an address
        for index, state in enumerate(states):
            # What is left is shared: a silent host must not use up the time of the next one.
            share = (deadline - monotonic()) / (len(states) - index)
            attempt.state = state
            try:
                entries = self._search(search_filter, state, attempt, monotonic() + share)
            except HostError as error:
                if attempt.is_abandoned:  # whoever waited has said so, and it may be long ago
                    break
                self._failed(state, str(error))
                continue
            self._answered(state, attempt.began)
            return self._person(address, entries)
        raise DirectoryError

    def _search(
        self, search_filter: str, state: _HostState, attempt: _Attempt, deadline: float
    ) -> list[Any]:
        """Search by an idle connection if one is left, else or if it breaks by a new one."""
        while True:
            connection = self._take_idle(state)
            is_new = connection is None
            if connection is None:
                connection = Connection(state.host, self._context)
            attempt.connection = connection
            try:
                if is_new:
                    log_in(connection, self.server, deadline)
                entries = connection.search(
                    self.server.search_base,
                    search_filter,
                    attributes(self.server),
                    deadline,
                )
            except HostError as error:
                connection.close()
                if is_new or not isinstance(error, BrokenError):
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
            log_in(connection, self.server, began + self._timeout)
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
            is_news = not state.is_down
            state.is_down = True
            state.failed_at = monotonic()
            state.retry_at = self._now() + RETRY_SECONDS
        if is_news:
            log.error("ldapserver %s: %s fails: %s", self.server.id, state.host, why)

    def _answered(self, state: _HostState, began: float) -> None:
        with self._lock:
            # What was asked before the host failed may still be answered as it goes down.
            is_news = state.is_down and began > state.failed_at
            if is_news:
                state.is_down = False
        if is_news:
            log.warning("ldapserver %s: %s answers again", self.server.id, state.host)

    def _person(self, address: EmailAddress, entries: Sequence[Any]) -> Person | None:
        if len(entries) > 1:
            log.warning(
                "ldapserver %s: several entries fit %s; none is used", self.server.id, address
            )
            return None
        return person(self.server, entries[0]) if entries else None


def log_in(connection: Connection, server: LdapServer, deadline: float) -> None:
    """Connect, encrypt as the host is to be asked, and bind; raises as these do."""
    connection.connect(deadline)
    if connection.host.tls is TlsMode.STARTTLS:
        connection.start_tls(deadline)
    elif connection.host.tls is TlsMode.TRY_STARTTLS:
        try:
            connection.start_tls(deadline)
        except BrokenError:
            raise  # such as a wrong certificate: whoever shows it must not get the password
        except HostError:
            connection.close()
            connection.connect(deadline)
    connection.bind(server.bind_user, server.bind_password, deadline)


def attributes(server: LdapServer) -> list[str]:
    """Return the names of the attributes that a search asks for."""
    return [name for name in (server.attr_uid, server.attr_cn) if name]


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
        if _FORBIDDEN.search(text) or PLACEHOLDER.search(text):  # clients would expand that
            log.warning("ldapserver %s: %s holds a value that is no text", server.id, name)
            return ""
        return text

    return Person(first(server.attr_uid), first(server.attr_cn) if server.attr_cn else "")
