"""``automx show``: the settings that a person's client gets."""

from contextlib import closing
from dataclasses import asdict
from importlib import import_module

import click

from automx.address import EmailAddress
from automx.cli.addresses import MAIL_ADDRESS
from automx.cli.context import Context, with_json
from automx.cli.terminal import pass_on, table
from automx.clientconfig import ClientConfig, MailServer
from automx.lookup import find


@click.command
@click.argument("address", type=MAIL_ADDRESS)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "autoconfig", "autodiscover", "mobileconfig"]),
    default="text",
    show_default=True,
    help="The document that a client of this kind gets, or a summary for people.",
)
@with_json
def show(context: Context, address: EmailAddress, format_: str) -> None:
    """Print exactly what the client of ADDRESS would get."""
    config = personal_config(context, address)
    if context.as_json and format_ != "text":
        raise click.UsageError("--json goes with --format text only.")
    if format_ == "text":
        context.write(_document(config, address), lambda: _text(config, address))
        return
    render = import_module(f"automx.formats.{format_}").render  # each has a library of its own
    pass_on(render(config, address))


def personal_config(context: Context, address: EmailAddress) -> ClientConfig:
    """Return the settings of a person, with the login name that a directory has.

    Raises UnknownDomainError, BadRecordError, DatabaseError or DirectoryError as look-ups do.
    """
    with context.session() as session:
        found = find(session, address.domain)
    settings = context.settings
    if found.ldap_server is None and not settings.sources:
        return found.config
    from automx.directory.pool import Directories  # noqa: PLC0415 - few domains need it

    with closing(Directories(settings.directory, settings.sources)) as directories:
        directory = directories.of(found.ldap_server, found.origin, address.domain)
        known = None if directory is None else directories.find(directory, address)
    if known is None:
        return found.config
    login_name = found.config.special_login(known.login_name, address)
    return found.config.for_person(login_name, known.display_name)


def _document(config: ClientConfig, address: EmailAddress) -> dict[str, object]:
    """Return the settings for programs, the servers best first."""
    config = config.for_address(address)
    shown = config.general()
    return {
        "address": str(address),
        "provider": config.provider_name,
        "display_name": config.display_name or None,
        "servers": [asdict(server) for server in (*shown.incoming, *shown.outgoing, *shown.sieve)],
        "services": [asdict(service) for service in config.services],
        "left_out": [asdict(server) | {"reason": reason} for server, reason in config.left_out()],
    }


def _text(config: ClientConfig, address: EmailAddress) -> str:
    """Return one line for each server, in columns, best first; then the servers left out."""
    config = config.for_address(address)
    shown = config.general()
    servers = (*shown.incoming, *shown.outgoing, *shown.sieve)
    lines = [f"{address}, {config.provider_name}", table([*map(_columns, servers)])]
    lines += [f"{s.type.upper()}  {s.url}  login {s.user_name}" for s in config.services]
    if left_out := config.left_out():
        rows = [(*_columns(server), reason) for server, reason in left_out]
        lines += ["", "Not in documents for all clients:", table(rows)]
    return "\n".join(lines)


def _columns(server: MailServer) -> tuple[str, ...]:
    return (
        server.type.upper(),
        server.hostname,
        f"port {server.port}",
        server.socket_type,
        f"login {server.user_name}" if server.user_name else "no login",
        ", ".join(server.authentication),
    )
