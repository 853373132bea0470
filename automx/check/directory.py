"""Whether the directory of a domain can be asked."""

from collections.abc import Iterator

from automx import ldap
from automx.check.finding import Finding, Level
from automx.check.network import Network


def check(
    domain: str, server: ldap.LdapServer, options: ldap.Options, network: Network
) -> Iterator[Finding]:
    """Yield the hosts of a directory that do not let us log in and search."""
    for host in server.hosts:
        key = ("ldap", str(server.id), str(host))
        why = network.once(key, lambda: _try(server, host, options, network))  # noqa: B023
        if why:
            subject = f"ldapserver {server.id}, {host}"
            yield Finding(
                domain, Level.ERROR, subject, why, f"try: automx ldap test someone@{domain}"
            )


def _try(server: ldap.LdapServer, host: ldap.Host, options: ldap.Options, network: Network) -> str:
    """Log in and search for nobody; return what went wrong, or ""."""
    connection = ldap.Connection(host, ldap.tls_context(options))
    try:
        ldap.log_in(connection, server, network.deadline())
        connection.search(
            server.search_base, "(uid=automx-check)", ldap.attributes(server), network.deadline()
        )
    except ldap.HostError as error:
        return str(error)
    finally:
        connection.close()
    return ""
