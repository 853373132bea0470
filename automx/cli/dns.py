"""``automx dns``: the records that a domain's zone should have."""

from ipaddress import ip_address

import click

from automx import dns as records
from automx.address import is_ip, parse_domain
from automx.cli import names
from automx.cli.context import Context, pass_context
from automx.cli.terminal import pass_on, say_json
from automx.errors import AddressError, SettingsError
from automx.lookup import find

host_option = click.option(
    "--host", help="Public host name of automx, by default the setting public_host."
)


name_server_option = click.option(
    "--dns", "name_server", help="Ask this name server: an IP address, perhaps :PORT."
)


def public_host(context: Context, option: str | None) -> str:
    """Return the public host name of automx as A-label, "" if it is not known.

    Raises SettingsError for what is no host name.
    """
    text = option or context.settings.public_host
    try:
        name = parse_domain(text) if text else ""
    except AddressError as error:
        raise SettingsError("--host must be a host name, such as automx.example.org") from error
    return "" if is_ip(name) else name


def needed_public_host(context: Context, option: str | None) -> str:
    """Return the public host name as public_host() does; raises SettingsError if there is none."""
    if name := public_host(context, option):
        return name
    if option or context.settings.public_host:
        raise SettingsError("no alias can lead to an IP address: give a host name by --host")
    raise SettingsError(
        "the public host name of automx is not known: give it by --host, or set public_host"
    )


def name_server_address(text: str | None) -> tuple[str, int]:
    """Return address and port of the option --dns, ("", 53) for the name servers of the system.

    Raises click.BadParameter.
    """
    if text is None:
        return "", 53
    host, colon, port = text.rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):  # an IPv6 address has colons
        host, port = text, "53"
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise click.BadParameter("expected an IP address, perhaps with a port", param_hint="--dns")
    return host, number


@click.command
@click.argument("domain", shell_complete=names.of("domain"))
@click.option("--format", "format_", type=click.Choice(["zone", "json"]), default="zone")
@host_option
@pass_context
def dns(context: Context, domain: str, format_: str, host: str | None) -> None:
    """Print the DNS records for the zone of DOMAIN."""
    name = needed_public_host(context, host)
    with context.session() as session:
        config = find(session, parse_domain(domain)).config
    found = records.records(config, name)
    if format_ == "json":
        say_json([record.document() for record in found])
    else:
        pass_on(records.zone(config, found))
