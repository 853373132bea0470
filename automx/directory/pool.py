"""All directories of a process: which knows a person, and what they said.

``ldap`` and ``database`` ask them. They are loaded with the first row or source that needs them, as
few workers have directories.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from automx.address import EmailAddress, names_for
from automx.config import DirectorySettings, SourceSettings
from automx.counts import Counts
from automx.directory.lookups import Places
from automx.directory.person import Person
from automx.directory.row import LdapServer
from automx.memory import Memory, NotRememberedError

if TYPE_CHECKING:
    import ssl

    from automx.directory.database import PeopleDatabase
    from automx.directory.hoststate import Clock
    from automx.directory.ldap import LdapDirectory

log = logging.getLogger(__name__)


# What knows people: a row of ``ldapserver``, or a source with a query for people.
Directory = LdapServer | SourceSettings


class Directories:
    """All directories of a process, with their connections and what they said; threads share it.

    ``sources`` are those of the settings; some of them know people. ``counts`` counts look-ups.
    """

    def __init__(
        self,
        settings: DirectorySettings,
        sources: Sequence[SourceSettings] = (),
        *,
        now: "Clock" = monotonic,
        counts: Counts | None = None,
    ) -> None:
        self.settings = settings
        self._counts = counts or Counts()
        self._sources = tuple(source for source in sources if source.finds_people)
        self._now = now
        self._lock = Lock()
        self._directories: dict[int, LdapDirectory] = {}
        self._places = Places()
        self._databases = _people_databases(self._sources, self._places, self._counts, now)
        self._people: Memory[tuple[LdapServer, EmailAddress], Person | None]
        self._people = Memory(settings.cache_size, settings.cache_seconds, now)
        self._context: ssl.SSLContext | None = None
        # Those with a certificate of automx's, by the id of the row.
        self._contexts: dict[int, ssl.SSLContext] = {}
        # The system's authorities are loaded when they are needed; a wrong file is reported now.
        if settings.ca_file or settings.client_certificates:
            self._load_certificates()
        if not settings.verify:
            log.warning("ldap_verify = no: anyone on the way to a directory can read and forge")

    def of(self, server: LdapServer | None, origin: str, domain: str) -> Directory | None:
        """Return what knows the people of a domain, None if nothing does.

        ``server`` is the directory of its row, and ``origin`` that of the row. The directory of the
        row goes before all sources; of these, the first of the settings that fits.
        """
        if server is not None or not self._sources:
            return server
        return source_of_people(self._sources, origin, domain)

    def find(self, directory: Directory, address: EmailAddress) -> Person | None:
        """Return what a directory says of an address, or None if it does not know it.

        Answers come from memory if they are fresh enough. Raises DirectoryError if the directory
        does not answer in time.
        """
        if isinstance(directory, SourceSettings):
            return self._databases[directory.name].find(address)
        with suppress(NotRememberedError):
            return self.remembered(directory, address)
        asked = self._directory(directory)
        found = self._counts.look_up(str(directory.id), lambda: asked.find(address))
        with self._lock:
            self._people.keep((directory, address), found, self._now())
        return found

    def remembered(self, directory: Directory, address: EmailAddress) -> Person | None:
        """Return what find() would from memory. It never waits. Raises NotRememberedError."""
        if isinstance(directory, SourceSettings):
            return self._databases[directory.name].remembered(address)
        # In its own case: a stranger's spelling must not stand in the login name of others.
        return self._people.answer((directory, address))

    def are_up(self) -> dict[str, bool]:
        """Return whether each directory answers.

        The names are ids of rows, of those that were asked, and ``source NAME``.
        """
        with self._lock:
            rows = {str(key): directory.is_up() for key, directory in self._directories.items()}
        return rows | {database.name: database.is_up for database in self._databases.values()}

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            directories = list(self._directories.values())
            self._directories.clear()
        for directory in directories:
            directory.close()
        for database in self._databases.values():
            database.close()

    def _directory(self, server: LdapServer) -> "LdapDirectory":
        # Before the lock: requests for people who are remembered wait for it.
        from automx.directory.ldap import LdapDirectory, credentials

        with self._lock:
            directory = self._directories.get(server.id)
            if directory is None or directory.server != server:  # the row was changed
                if directory is not None:
                    directory.close()
                access = credentials(server, self.settings, self._context_for(server))
                directory = LdapDirectory(server, self.settings, access, self._now, self._places)
                self._directories[server.id] = directory
            return directory

    def _load_certificates(self) -> None:
        from automx.directory.ldap import tls_context

        if self.settings.ca_file:
            self._context = tls_context(self.settings)
        for row_id in self.settings.client_certificates:
            self._contexts[row_id] = tls_context(self.settings, row_id)

    def _context_for(self, server: LdapServer) -> "ssl.SSLContext":
        from automx.directory.ldap import tls_context

        if context := self._contexts.get(server.id):
            return context
        if self._context is None:
            self._context = tls_context(self.settings)
        return self._context


def _people_databases(
    sources: Sequence[SourceSettings], places: Places, counts: Counts, now: "Clock"
) -> dict[str, "PeopleDatabase"]:
    """Return the people of each source by its name."""
    if not sources:
        return {}
    from automx.directory.database import PeopleDatabase

    return {source.name: PeopleDatabase(source, places, counts, now) for source in sources}


def source_of_people(
    sources: Sequence[SourceSettings], origin: str, domain: str
) -> SourceSettings | None:
    """Return the first source that knows the people of a domain, None if there is none.

    ``origin`` is that of the row that decides for the domain.
    """
    names = {*names_for(domain)}
    for source in sources:
        is_its = not names.isdisjoint(source.domains) if source.domains else source.origin == origin
        if is_its and source.finds_people:
            return source
    return None
