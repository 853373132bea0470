"""A directory of the table ``ldapserver``: all its hosts are asked within a time.

A look-up runs in a thread of its directory and is waited for no longer than the time limit,
whatever hangs: the resolver, the connection, TLS, the bind or the search. ``hoststate`` remembers
what failed.
"""

import logging
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from threading import Lock
from time import monotonic
from typing import Any

from automx import deadline
from automx.address import EmailAddress, is_loopback
from automx.config import DirectorySettings
from automx.directory.connection import Credentials, Host, HostError, TlsMode
from automx.directory.hoststate import Attempt, Clock, HostState, share
from automx.directory.lookups import Lookups, Places
from automx.directory.person import DirectoryError, Person, usable
from automx.directory.row import LdapServer
from automx.errors import SettingsError

log = logging.getLogger(__name__)


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


class LdapDirectory:
    """The hosts of one row, and the threads that ask them; requests share it."""

    def __init__(
        self,
        server: LdapServer,
        settings: DirectorySettings,
        access: Credentials,
        now: Clock,
        places: Places,
    ) -> None:
        self.server = server
        self._timeout = settings.timeout
        self._lock = Lock()
        self._states = [HostState(host, server, access, now) for host in hosts(server, settings)]
        self._lookups = Lookups(places, f"ldap-{server.id}", spare=len(server.hosts))

    def is_up(self) -> bool:
        """Return whether a host is worth asking."""
        return any(state.is_up() for state in self._states)

    def find(self, address: EmailAddress) -> Person | None:
        """Return what the directory says of an address, None if it does not know it.

        Raises DirectoryError if no host answers in time.
        """
        end = deadline.after(self._timeout)
        with self._lookups.turn(end), ExitStack() as ends:
            attempt = Attempt(monotonic(), end)
            states, claimed = self._states_to_ask()
            for state in claimed:
                ends.callback(setattr, state, "is_probed", False)
            future = self._lookups.submit(self._find, address, states, attempt)
            found = self._wait(future, attempt)
            self._lookups.note_answer()
            return found

    def close(self) -> None:
        """Drop all connections: the idle ones now, the others when their look-up ends."""
        for state in self._states:
            state.close()

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
                self._lookups.submit(state.probe, self._timeout)
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
    directory = f"ldapserver {server.id}"
    values = {name.lower(): found for name, found in entry["raw_attributes"].items()}

    def first(name: str) -> str:
        found = values.get(name.lower()) or []
        if len(found) > 1:
            log.debug("ldapserver %s: %s has several values in one entry", server.id, name)
        try:
            text = bytes(found[0]).decode().strip() if found else ""
        except UnicodeDecodeError:
            text = "\x00"
        return usable(text, directory, name)

    login_name = server.login_name_of(first(server.attr_uid), address)
    display_name = first(server.attr_cn) if server.attr_cn else ""
    return Person(usable(login_name, directory, "login_name"), display_name)
