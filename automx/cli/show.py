"""``automx show``: the settings that a person's client gets."""

from contextlib import closing

import click

from automx.address import EmailAddress, expand, expand_url
from automx.cli.context import Context, pass_context
from automx.cli.terminal import table
from automx.clientconfig import ClientConfig
from automx.directory.pool import NOBODY, Directories, options
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
    with closing(Directories(options(context.settings))) as directories:
        server = found.ldap_server
        known = (directories.find(server, address) if server else None) or NOBODY
    return found.config.for_person(known.login_name, known.display_name)


def _text(config: ClientConfig, address: EmailAddress) -> str:
    """Return one line for each server, in columns, best first."""

    def filled(text: str) -> str:
        return expand(text, config.domain, address) or text

    rows = [
        (
            server.type.upper(),
            filled(server.hostname),
            f"port {server.port}",
            server.socket_type,
            f"login {filled(server.user_name)}",
            ", ".join(server.authentication),
        )
        for server in (*config.incoming, *config.outgoing, *config.sieve)
    ]
    lines = [f"{address}, {config.provider_name}", table(rows)]
    for service in config.services:
        url = expand_url(service.url, config.domain, address)
        login = filled(service.user_name)
        lines.append(f"{service.type.upper()}  {url}  login {login}")
    return "\n".join(lines)
