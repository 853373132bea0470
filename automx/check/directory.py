"""Whether automx can log in and search at each host of a domain's directory."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from automx.address import EmailAddress
from automx.check.finding import Check, DomainChecks, Finding
from automx.check.web import UNKNOWN
from automx.config import DirectorySettings
from automx.deadline import left
from automx.directory.connection import Connection, Host, HostError
from automx.directory.pool import bind_password, hosts, tls_context
from automx.directory.row import LdapServer


@dataclass(frozen=True, slots=True)
class DirectoryChecks(DomainChecks):
    """The checks of the directory of a domain."""

    server: LdapServer
    options: DirectorySettings

    def checks(self) -> Iterator[Check]:
        """Yield a check for each host; each host is asked once for all domains that name it."""
        for host in hosts(self.server, self.options):
            yield partial(self._check, host)

    def _check(self, host: Host) -> Iterator[Finding]:
        subject = f"ldapserver {self.server.id}, {host}"
        if reason := self.network.once(("ldap", subject), lambda: self._search(host)):
            advice = f"see which step fails: automx ldap test someone@{self.domain}"
            yield self.error(subject, reason, advice)

    def _search(self, host: Host) -> str:
        """Log in and search for an address that no person has; return what failed, or "".

        The host's name is looked up by the system, as in a request for settings.
        """
        server = self.server
        search_filter = server.filter_for(EmailAddress(UNKNOWN, self.domain))
        connection = Connection(host, tls_context(self.options))
        deadline = self.network.deadline()
        # ldap3 waits anew for each byte of a slow host.
        watch = threading.Timer(self.network.timeout, connection.close)
        watch.daemon = True
        watch.start()
        try:
            connection.log_in(server, bind_password(server, self.options), deadline)
            connection.search(server.search_base, search_filter, server.attributes, deadline)
        except HostError as error:
            # After the timer has closed a connection, the error names another reason.
            return "no answer in time" if not left(deadline) else str(error)
        finally:
            watch.cancel()
            connection.close()
        return ""
