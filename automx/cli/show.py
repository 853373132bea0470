"""``automx show``: what a person's client would get."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from automx.address import EmailAddress
    from automx.clientconfig import ClientConfig
    from automx.config import Settings


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
def show(address: str, format_: str) -> None:
    """Print exactly what the client of ADDRESS would get."""
    from automx.address import EmailAddress
    from automx.config import load

    person = EmailAddress.parse(address)
    click.echo(_FORMATS[format_](personal_config(person, load()), person), nl=False)


def personal_config(address: "EmailAddress", settings: "Settings") -> "ClientConfig":
    """Return the settings of a person, with the login name that a directory tells.

    Raises UnknownDomainError, BadRecordError, DatabaseError or DirectoryError as look-ups do.
    """
    from automx.database import open_session
    from automx.directory.pool import NOBODY, Directories
    from automx.lookup import find

    with open_session(settings.db_uri) as session:
        found = find(session, address.domain)
    with closing(Directories(settings.directory)) as directories:
        server = found.ldap_server
        known = (directories.find(server, address) if server else None) or NOBODY
    return found.config.for_person(known.login_name, known.display_name)


def _autoconfig(config: "ClientConfig", _: "EmailAddress") -> bytes:
    from automx.formats import autoconfig

    return autoconfig.render(config)


def _autodiscover(config: "ClientConfig", address: "EmailAddress") -> bytes:
    from automx.formats import autodiscover

    return autodiscover.render(config, address)


def _mobileconfig(config: "ClientConfig", address: "EmailAddress") -> bytes:
    from automx.formats import mobileconfig

    return mobileconfig.render(config, address)


def _text(config: "ClientConfig", address: "EmailAddress") -> str:
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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"{address}, {config.provider_name}"]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    lines += [f"{s.type.upper()}  {s.url}  login {s.user_name}" for s in config.services]
    return "\n".join(lines) + "\n"


_FORMATS: dict[str, Callable[["ClientConfig", "EmailAddress"], bytes | str]] = {
    "text": _text,
    "autoconfig": _autoconfig,
    "autodiscover": _autodiscover,
    "mobileconfig": _mobileconfig,
}
