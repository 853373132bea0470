"""``automx ldap``: directories."""

from collections.abc import Callable

import click

from automx.address import EmailAddress
from automx.cache import FoundConfig
from automx.cli.addresses import MAIL_ADDRESS
from automx.cli.context import Context, with_json
from automx.cli.terminal import say, say_json
from automx.config import DirectorySettings, Settings
from automx.deadline import after
from automx.directory import ldap as directories
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

Tell = Callable[[str, str], None]  # takes the name of a step, and what came of it

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
@with_json
def test(context: Context, address: EmailAddress) -> None:
    """Look up ADDRESS step by step; print advice for the first step that fails."""
    with context.session() as session:
        found = find(session, address.domain)
    lines: list[dict[str, str]] = []

    def tell(what: str, text: str) -> None:
        lines.append({"name": what.strip(), "text": text})
        if not context.as_json:
            _say(what, text)

    known = _look_up(context.settings, found, address, tell)
    if context.as_json:
        login_name, display_name = known or (None, None)
        names = {"login_name": login_name, "display_name": display_name or None}
        say_json({"address": str(address), "done": known is not None, **names, "lines": lines})
    if known is None:
        raise click.exceptions.Exit(1)


def _look_up(
    settings: Settings, found: FoundConfig, address: EmailAddress, tell: Tell
) -> tuple[str, str] | None:
    """Return login name and display name; None if a step failed. Each step is told."""
    options = settings.directory
    server = found.ldap_server
    if server is None:
        if source := pool.source_of_people(settings.sources, found.origin, address.domain):
            raise AutomxError(
                f"the people of {address.domain} are looked up by SQL, in the source {source.name}:"
                f" see automx show {address} and automx check {address.domain}"
            )
        raise AutomxError(
            f"the domain {address.domain} names no ldapserver: set domain.ldapserver_id if its"
            " people shall be looked up"
        )
    tell("Row", f"ldapserver {server.id}, for the domain {address.domain}")
    hosts = directories.hosts(server, options)
    tell("Hosts", ", ".join(f"{host} ({host.tls})" for host in hosts))
    if not options.verify:
        tell("Warning", "ldap_verify = no: certificates are not checked")
    bases = " and ".join(map(repr, server.search_bases))
    tell("Filter", f"{server.filter_for(address)} below {bases}")
    access = directories.credentials(server, options)
    answers = [
        _try(reached, server, access, options, address, tell)
        for host in hosts
        for reached in _addresses(host, tell)
    ]
    first = next(filter(None, answers), None)
    if first is None or None in answers:
        return None
    config = found.config.for_person(first.login_name, first.display_name)
    login_name, display_name = config.mail_servers[0].user_name, config.display_name
    tell("Result", f"login name {login_name}")
    tell("", f"display name {display_name or '(none)'}")
    return login_name, display_name


def _addresses(host: Host, tell: Tell) -> list[Host | None]:
    """Return the host once for each of its addresses; None if it has none, after advice."""
    try:
        return [*host.each_address()]
    except HostError as error:
        tell(f"Host {host}", str(host.tls))
        _failed("Resolve", error, tell)
        return [None]


def _try(
    host: Host | None,
    server: LdapServer,
    access: Credentials,
    options: DirectorySettings,
    address: EmailAddress,
    tell: Tell,
) -> Person | None:
    """Ask one host and print each step; return None if a step failed, after advice for it."""
    if host is None:
        return None
    tell(f"Host {host}", str(host.tls))
    deadline = after(options.timeout)
    connection = Connection(host, access)
    step = "Connect"  # the one at work

    def report(done: LogInStep, trouble: str) -> None:
        nonlocal step
        match done:
            case "Connect":
                tell("  Connect", "ok")
                is_next = host.tls in {TlsMode.STARTTLS, TlsMode.TRY_STARTTLS}
                step = "StartTLS" if is_next else "Bind"
            case "StartTLS":
                tell("  StartTLS", f"refused ({trouble}); going on without encryption")
            case "TLS":
                tell("  TLS", _certificate(connection))
                step = "Bind"
            case "Bind":
                tell("  Bind", f"ok, as {connection.bound_as}")
                step = "Search"

    try:
        search_filter = server.filter_for(address)
        with connection.ending(deadline):
            connection.log_in(deadline, report)
            entries = connection.search(
                server.search_bases, search_filter, server.attributes, deadline
            )
    except HostError as error:
        _failed(step, error, tell)
        return None
    finally:
        connection.close()
    tell("  Entries", ", ".join(entry["dn"] for entry in entries) or "none")
    if len(entries) != 1:
        why = "must find one entry only" if entries else "finds no entry with this address"
        tell("", f"The person is taken for unknown: the filter {why}.")
        return NOBODY
    for name, values in entries[0]["raw_attributes"].items():
        tell(f"  {name}", ", ".join(repr(value.decode(errors="replace")) for value in values))
    return directories.person(server, entries[0], address)


def _failed(step: str, error: HostError, tell: Tell) -> None:
    tell(f"  {step}", f"failed: {error}")
    reason = "Certificate" if "CERTIFICATE_VERIFY_FAILED" in str(error) else step
    tell("", f"What to do: {_ADVICE[reason]}.")


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
