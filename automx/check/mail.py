"""Whether each mail server answers with the encryption that its row names."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from automx.address import expand
from automx.check import clients, greeting
from automx.check.finding import Check, DomainChecks, Finding, Level
from automx.check.network import CertificateError, NetworkError, NoAnswerError, NoTlsError
from automx.clientconfig import ClientConfig, MailServer, SocketType

_SEE_SERVER = "see that the server runs and is not behind a firewall, and the row's name and port"


@dataclass(frozen=True, slots=True)
class MailChecks(DomainChecks):
    """The checks of mail servers."""

    config: ClientConfig

    def checks(self) -> Iterator[Check]:
        """Yield a check for each server; each server is asked once for all domains."""
        for server in self.config.mail_servers:
            hostname = expand(server.hostname, self.domain, None)
            if hostname is not None:  # else each person has another host
                yield partial(self._check, server, hostname)

    def _check(self, server: MailServer, hostname: str) -> Iterator[Finding]:
        subject = clients.subject(replace(server, hostname=hostname))
        try:
            end = self.network.once(("mail", subject), lambda: self._not_after(server, hostname))
        except NetworkError as error:
            yield self.failure(Level.ERROR, subject, error, _SEE_SERVER)
            return
        if end is not None:
            yield from self.near_end(subject, end)
        yield from self.dead_addresses(subject, "server", hostname, server.port)
        yield from self.ipv6_only(subject, self.network.addresses(hostname))

    def _not_after(self, server: MailServer, hostname: str) -> datetime | None:
        """Connect as a mail client does; return the end of the certificate, None without TLS.

        Raises NetworkError with what is wrong, and with advice if the reason is known.
        """
        try:
            return greeting.greet(self.network, server, hostname).not_after
        except NoTlsError as error:
            if server.socket_type is SocketType.STARTTLS:
                raise
            text = "the server does not begin with TLS on this port"
            advice = "set socket_type to STARTTLS if the server offers it, or correct the port"
            raise NetworkError(text, advice) from error
        except NoAnswerError:
            # A server that begins with TLS waits for the client.
            if server.socket_type is SocketType.SSL or not self._begins_with_tls(server, hostname):
                raise
            text = "the server begins with TLS on this port"
            advice = "set socket_type to SSL, or correct the port"
            raise NetworkError(text, advice) from None

    def _begins_with_tls(self, server: MailServer, hostname: str) -> bool:
        try:
            self.network.not_after(hostname, server.port)
        except NetworkError as error:
            return isinstance(error, CertificateError)
        return True
