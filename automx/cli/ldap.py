"""``automx ldap``: directories."""

import click

from automx.address import EmailAddress
from automx.cli.addresses import MAIL_ADDRESS
from automx.cli.context import Context, pass_context
from automx.cli.terminal import say
from automx.config import DirectorySettings
from automx.deadline import after
from automx.directory import pool
from automx.directory.connection import (
    Connection,
    Credentials,
    Host,
    HostError,
    LogInStep,
    TlsMode,
)
from automx.directory.person import NOBODY, Person
from automx.directory.row import LdapServer
from automx.errors import AutomxError
from automx.lookup import find

_ADVICE = {
    "Connect": "check host name, port and firewall, and whether the host speaks LDAPS there",
    "StartTLS": "let the directory offer StartTLS, or see ldap_starttls",
    "Resolve": "check the host name and the resolver of this machine",
    "Bind": "check bind_user and bind_password, or ldap_bind_password_file; without bind_user, what"
    " the directory makes of the user or the certificate of automx",
    "Search": "check search_base, and what bind_user may read",
    "Certificate": "check that the host's certificate is valid, names the host as the row does,"
    " and comes from an authority of the system or of ldap_ca_file",
}


@click.group
def ldap() -> None:
    """Try the directories that know people's login names."""


@ldap.command()
@click.argument("address", type=MAIL_ADDRESS)
@pass_context
def test(context: Context, address: EmailAddress) -> None:
    """Look up ADDRESS step by step; print advice for the first step that fails."""
    options = context.settings.directory
    with context.session() as session:
        found = find(session, address.domain)
    server = found.ldap_server
    if server is None:
        if source := pool.source_of_people(context.settings.sources, found.origin, address.domain):
            raise AutomxError(
                f"the people of {address.domain} are looked up by SQL, in the source {source.name}:"
                f" see automx show {address} and automx check {address.domain}"
            )
        raise AutomxError(
            f"the domain {address.domain} names no ldapserver: set domain.ldapserver_id if its"
            " people shall be looked up"
        )
    _say("Row", f"ldapserver {server.id}, for the domain {address.domain}")
    hosts = pool.hosts(server, options)
    _say("Hosts", ", ".join(f"{host} ({host.tls})" for host in hosts))
    if not options.verify:
        _say("Warning", "ldap_verify = no: certificates are not checked")
    bases = " and ".join(map(repr, server.search_bases))
    _say("Filter", f"{server.filter_for(address)} below {bases}")
    access = pool.credentials(server, options)
    answers = [
        _try(reached, server, access, options, address)
        for host in hosts
        for reached in _addresses(host)
    ]
    first = next(filter(None, answers), None)
    if first is None or None in answers:
        raise click.exceptions.Exit(1)
    config = found.config.for_person(first.login_name, first.display_name)
    _say("Result", f"login name {config.mail_servers[0].user_name}")
    _say("", f"display name {config.display_name or '(none)'}")


def _addresses(host: Host) -> list[Host | None]:
    """Return the host once for each of its addresses; None if it has none, after advice."""
    try:
        return [*host.each_address()]
    except HostError as error:
        _say(f"Host {host}", str(host.tls))
        _failed("Resolve", error)
        return [None]


def _try(
    host: Host | None,
    server: LdapServer,
    access: Credentials,
    options: DirectorySettings,
    address: EmailAddress,
) -> Person | None:
    """Ask one host and print each step; return None if a step failed, after advice for it."""
    if host is None:
        return None
    _say(f"Host {host}", str(host.tls))
    deadline = after(options.timeout)
    connection = Connection(host, access)
    step = "Connect"  # the one at work

    def report(done: LogInStep, trouble: str) -> None:
        nonlocal step
        match done:
            case "Connect":
                _say("  Connect", "ok")
                is_next = host.tls in {TlsMode.STARTTLS, TlsMode.TRY_STARTTLS}
                step = "StartTLS" if is_next else "Bind"
            case "StartTLS":
                _say("  StartTLS", f"refused ({trouble}); going on without encryption")
            case "TLS":
                _say("  TLS", _certificate(connection))
                step = "Bind"
            case "Bind":
                _say("  Bind", f"ok, as {connection.bound_as}")
                step = "Search"

    try:
        search_filter = server.filter_for(address)
        with connection.ending(deadline):
            connection.log_in(deadline, report)
            entries = connection.search(
                server.search_bases, search_filter, server.attributes, deadline
            )
    except HostError as error:
        _failed(step, error)
        return None
    finally:
        connection.close()
    _say("  Entries", ", ".join(entry["dn"] for entry in entries) or "none")
    if len(entries) != 1:
        why = "must find one entry only" if entries else "finds no entry with this address"
        _say("", f"The person is taken for unknown: the filter {why}.")
        return NOBODY
    for name, values in entries[0]["raw_attributes"].items():
        _say(f"  {name}", ", ".join(repr(value.decode(errors="replace")) for value in values))
    return pool.person(server, entries[0], address)


def _failed(step: str, error: HostError) -> None:
    _say(f"  {step}", click.style("failed", fg="red") + f": {error}")
    reason = "Certificate" if "CERTIFICATE_VERIFY_FAILED" in str(error) else step
    _say("", f"What to do: {_ADVICE[reason]}.")


def _certificate(connection: Connection) -> str:
    """Return names and dates of the certificate of a connection."""
    if connection.host.tls is TlsMode.SOCKET:
        return "not needed: the socket is on this machine"
    if not connection.is_encrypted:
        return "not encrypted"
    certificate = connection.certificate()
    if not certificate:
        return "encrypted; the certificate was not checked"
    names = ", ".join(name for _, name in certificate.get("subjectAltName", ()))
    return f"certificate for {names}, {certificate['notBefore']} to {certificate['notAfter']}"


def _say(what: str, text: str) -> None:
    say(f"{what:<12} {text}".rstrip())
