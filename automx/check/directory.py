"""Whether the directory of a domain can be asked."""

import threading
import time
from collections.abc import Iterator
from functools import partial

from automx.address import EmailAddress
from automx.check.finding import Finding, Level, Step
from automx.check.network import Network
from automx.check.web import NOBODY
from automx.config import DirectorySettings
from automx.directory.connection import Connection, Host, HostError
from automx.directory.pool import bind_password, hosts, tls_context
from automx.directory.row import LdapServer


def steps(
    domain: str, server: LdapServer, options: DirectorySettings, network: Network
) -> Iterator[Step]:
    """Yield what is to be done; each host is asked once for all domains that name it."""
    for host in hosts(server, options):
        yield partial(_check, domain, server, host, options, network)


def _check(
    domain: str,
    server: LdapServer,
    host: Host,
    options: DirectorySettings,
    network: Network,
) -> Iterator[Finding]:
    subject = f"ldapserver {server.id}, {host}"
    search = server.filter_for(EmailAddress(NOBODY, domain))
    key = ("ldap", str(server.id), str(host))
    why = network.once(key, lambda: _try(server, host, search, options, network))
    if why:
        advice = f"see which step fails: automx ldap test someone@{domain}"
        yield Finding(domain, Level.ERROR, subject, why, advice)


def _try(
    server: LdapServer,
    host: Host,
    search_filter: str,
    options: DirectorySettings,
    network: Network,
) -> str:
    """Log in and search for nobody; return what went wrong, or "".

    The host's name is looked up as automx does it, by the system.
    """
    connection = Connection(host, tls_context(options))
    deadline = network.deadline()
    # Octets that drip in begin ldap3's waiting anew.
    watch = threading.Timer(network.timeout, connection.close)
    watch.daemon = True
    watch.start()
    try:
        connection.log_in(server, bind_password(server, options), deadline)
        connection.search(server.search_base, search_filter, server.attributes, deadline)
    except HostError as error:
        # What was closed for its slowness says something else.
        return "no answer in time" if time.monotonic() > deadline else str(error)
    finally:
        watch.cancel()
        connection.close()
    return ""
