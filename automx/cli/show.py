"""``automx show``: the settings that a person's client gets."""

from contextlib import closing

import click

from automx.address import EmailAddress
from automx.cli.context import Context, pass_context
from automx.cli.terminal import table
from automx.clientconfig import ClientConfig
from automx.directory.pool import NOBODY, Directories
from automx.formats import autoconfig, autodiscover, mobileconfig
from automx.lookup import find


@click.command
@click.argument("address")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "autoconfig", "autodiscover", "mobileconfig"]),
    default="text",
    show_default=True,
    help="The document that a client of this kind gets, or a summary for people.",
)
@pass_context
def show(context: Context, address: str, format_: str) -> None:
    """Print exactly what the client of ADDRESS would get."""
    person = EmailAddress.parse(address)
    config = personal_config(context, person)
    match format_:
        case "text":
            click.echo(_text(config, person))
        case "autoconfig":
            click.echo(autoconfig.render(config), nl=False)
        case "autodiscover":
            click.echo(autodiscover.render(config, person), nl=False)
        case "mobileconfig":
            click.echo(mobileconfig.render(config, person), nl=False)


def personal_config(context: Context, address: EmailAddress) -> ClientConfig:
    """Return the settings of a person, with the login name that a directory has.

    Raises UnknownDomainError, BadRecordError, DatabaseError or DirectoryError as look-ups do.
    """
    with context.session() as session:
        found = find(session, address.domain)
    with closing(Directories(context.settings.directory)) as directories:
        server = found.ldap_server
        known = (directories.find(server, address) if server else None) or NOBODY
    return found.config.for_person(known.login_name, known.display_name)


def _text(config: ClientConfig, address: EmailAddress) -> str:
    """Return one line for each server, in columns, best first."""
    config = config.for_address(address)
    rows = [
        (
            server.type.upper(),
            server.hostname,
            f"port {server.port}",
            server.socket_type,
            f"login {server.user_name}",
            ", ".join(server.authentication),
        )
        for server in (*config.incoming, *config.outgoing, *config.sieve)
    ]
    lines = [f"{address}, {config.provider_name}", table(rows)]
    lines += [f"{s.type.upper()}  {s.url}  login {s.user_name}" for s in config.services]
    return "\n".join(lines)
