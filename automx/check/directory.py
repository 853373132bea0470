"""Whether automx can log in and search at each host of a domain's directory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from automx.address import EmailAddress
from automx.check.finding import Check, DomainChecks, Finding
from automx.check.web import UNKNOWN
from automx.config import DirectorySettings
from automx.directory.connection import Connection, Host, HostError
from automx.directory.ldap import credentials, hosts
from automx.directory.row import LdapServer


@dataclass(frozen=True, slots=True)
class DirectoryChecks(DomainChecks):
    """The checks of the directory of a domain."""

    server: LdapServer
    options: DirectorySettings

    def checks(self) -> Iterator[Check]:
        """Yield a check for each host."""
        for host in hosts(self.server, self.options):
            yield partial(self._check, host)

    def _check(self, host: Host) -> Iterator[Finding | Check]:
        """Yield a check for each address of a host."""
        try:
            for address in host.each_address():
                yield partial(self._check_address, address)
        except HostError as error:
            yield self._error(host, str(error))

    def _check_address(self, host: Host) -> Iterator[Finding]:
        """Ask an address, once for all domains that name it."""
        key = f"ldapserver {self.server.id}, {host}"
        if reason := self.network.once(("ldap", key), lambda: self._search(host)):
            yield self._error(host, reason)

    def _error(self, host: Host, reason: str) -> Finding:
        advice = f"see which step fails: automx ldap test someone@{self.domain}"
        return self.error(f"ldapserver {self.server.id}, {host}", reason, advice)

    def _search(self, host: Host) -> str:
        """Log in and search for an address that no person has; return what failed, or "".

        The system has looked up the host's name, as in a request for settings.
        """
        server = self.server
        search_filter = server.filter_for(EmailAddress(UNKNOWN, self.domain))
        connection = Connection(host, credentials(server, self.options))
        deadline = self.network.deadline()
        try:
            with connection.ending(deadline):
                connection.log_in(deadline)
                connection.search(server.search_bases, search_filter, server.attributes, deadline)
        except HostError as error:
            return str(error)
        finally:
            connection.close()
        return ""
