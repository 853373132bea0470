"""``automx ldap``: directories."""

import time
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from automx.address import EmailAddress
    from automx.config import DirectorySettings
    from automx.directory.connection import Connection, Host
    from automx.directory.pool import Person
    from automx.directory.row import LdapServer


@click.group("ldap")
def ldap_() -> None:
    """Try the directories that know people's login names."""


@ldap_.command()
@click.argument("address")
def test(address: str) -> None:
    """Walk through the look-up of ADDRESS, and say at the first failing step what to do."""
    from automx.address import EmailAddress
    from automx.config import load
    from automx.database import open_session
    from automx.directory import pool
    from automx.lookup import find

    person = EmailAddress.parse(address)
    settings = load()
    options = settings.directory
    with open_session(settings.db_uri) as session:
        found = find(session, person.domain)
    server = found.ldap_server
    if server is None:
        _fail(
            f"The domain {person.domain} names no ldapserver",
            "set domain.ldapserver_id if its people shall be looked up",
        )
    _say("Row", f"ldapserver {server.id}, for the domain {person.domain}")
    hosts = pool.hosts(server, options)
    _say("Hosts", ", ".join(f"{host} ({host.tls})" for host in hosts))
    if not options.verify:
        _say("Warning", "ldap_verify = no: certificates are not checked")
    _say("Filter", f"{server.filter_for(person)} below {server.search_base!r}")
    found_people = [_try(host, server, options, person) for host in hosts]
    answers = [answer for answer in found_people if answer is not None]
    if len(answers) < len(hosts):
        raise click.exceptions.Exit(1)
    config = found.config.for_person(answers[0].login_name, answers[0].display_name)
    _say("Result", f"login name {config.mail_servers[0].user_name}")
    _say("", f"display name {config.display_name or '(none)'}")


def _try(
    host: "Host", server: "LdapServer", options: "DirectorySettings", address: "EmailAddress"
) -> "Person | None":
    """Ask one host, step by step; return None after telling which step failed, and what to do."""
    from automx.directory import pool
    from automx.directory.connection import BrokenError, Connection, HostError, TlsMode

    _say(f"Host {host}", str(host.tls))
    deadline = time.monotonic() + options.timeout
    connection = Connection(host, pool.tls_context(options))
    step, advice = (
        "Connect",
        "check host name, port and firewall, and whether the host speaks LDAPS there",
    )
    try:
        connection.connect(deadline)
        _say("  Connect", "ok")
        if host.tls in {TlsMode.STARTTLS, TlsMode.TRY_STARTTLS}:
            step, advice = "StartTLS", "let the directory offer StartTLS, or see ldap_starttls"
            try:
                connection.start_tls(deadline)
            except HostError as error:
                if host.tls is TlsMode.STARTTLS or isinstance(error, BrokenError):
                    raise
                _say("  StartTLS", f"refused ({error}); going on without encryption")
                connection.close()
                connection.connect(deadline)
        _say("  TLS", _certificate(connection))
        step, advice = "Bind", "check bind_user and bind_password, or ldap_bind_password_file"
        connection.bind(server.bind_user, pool.bind_password(server, options), deadline)
        _say("  Bind", f"ok, as {server.bind_user or 'anonymous'}")
        step, advice = "Search", "check search_base, and what bind_user may read"
        search_filter = server.filter_for(address)
        entries = connection.search(server.search_base, search_filter, server.attributes, deadline)
    except HostError as error:
        _say(f"  {step}", click.style("failed", fg="red") + f": {error}")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            advice = (
                "check that the host's certificate is valid, names the host as the row does, and"
            )
            advice += " comes from an authority of the system or of ldap_ca_file"
        _say("", f"What to do: {advice}.")
        return None
    finally:
        connection.close()
    _say("  Entries", ", ".join(entry["dn"] for entry in entries) or "none")
    if len(entries) != 1:
        why = "must find one entry only" if entries else "finds nobody with this address"
        _say("", f"The person is taken for unknown: the filter {why}.")
        return pool.NOBODY
    for name, values in entries[0]["raw_attributes"].items():
        _say(f"  {name}", ", ".join(repr(value.decode(errors="replace")) for value in values))
    return pool.person(server, entries[0])


def _certificate(connection: "Connection") -> str:
    """Return names and dates of the certificate of a connection."""
    if not connection.is_encrypted:
        return "not encrypted"
    certificate = connection.certificate()
    if not certificate:
        return "encrypted; the certificate was not checked"
    names = ", ".join(name for _, name in certificate.get("subjectAltName", ()))
    return f"certificate for {names}, {certificate['notBefore']} to {certificate['notAfter']}"


def _say(what: str, text: str) -> None:
    click.echo(f"{what:<12} {text}".rstrip())


def _fail(what: str, advice: str) -> NoReturn:
    click.echo(f"{what}: {advice}.", err=True)
    raise click.exceptions.Exit(1)
