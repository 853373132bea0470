"""``automx apikey``: the keys of programs that use the API."""

from collections.abc import Sequence
from typing import Any

import click

from automx import apikeys, changelog, references
from automx.accountcolumns import NETWORK
from automx.apikeys import Key
from automx.changes import selection
from automx.cli import names
from automx.cli.addresses import DOMAIN
from automx.cli.context import Context, with_json
from automx.cli.ends import parse_end
from automx.cli.subcommands import Subcommands
from automx.cli.terminal import EXIT_STATUS, complain, table
from automx.kinds import BadValueError
from automx.moments import dated
from automx.words import Role


def _networks(
    _context: click.Context, _option: click.Parameter, texts: Sequence[str]
) -> tuple[str, ...]:
    try:
        return tuple(map(NETWORK.read, texts))
    except BadValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.group(cls=Subcommands, epilog=EXIT_STATUS)
def apikey() -> None:
    """Make, list, rotate and revoke keys of the API.

    As long as there is no key, there is no API: its paths are answered with 404.
    """


@apikey.command(epilog=EXIT_STATUS)
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="read: everything without secrets; write: change rows as well; accounts: accounts and"
    " their tokens only; admin: everything.",
)
@click.option(
    "--provider",
    metavar="NAME|ID",
    shell_complete=names.of("provider"),
    help="Only the domains of this provider, and what they use.",
)
@click.option(
    "--domain",
    "domains",
    type=DOMAIN,
    multiple=True,
    shell_complete=names.of("domain"),
    help="Only this domain; may be given several times.",
)
@click.option(
    "--until",
    metavar="DATE|DURATION",
    help="When it ends: 2026-12-31, 2026-12-31T18:00Z, or 30d from now on.",
)
@click.option(
    "--from",
    "networks",
    metavar="CIDR",
    callback=_networks,
    multiple=True,
    help="Only clients of this network (192.0.2.0/24); may be given several times.",
)
@with_json
def add(
    context: Context, /, name: str, role: str, provider: str | None, until: str | None, **lists: Any
) -> None:
    """Make a key called NAME, and print it: it is shown only now."""
    try:
        hint = "automx apikey revoke ends a key now"
        end = None if until is None else parse_end(until, context.now, hint)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--until'") from None
    domains = lists["domains"]
    with context.session() as session:
        if provider is not None:
            changelog.wait_for_turn(session)  # so that its name means the same provider until then
        key, secret = apikeys.add(
            session,
            name,
            Role(role),
            actor=context.actor,
            now=context.now,
            provider=None if provider is None else selection.find(session, "provider", provider),
            domains=domains,
            networks=lists["networks"],
            valid_until=end,
        )
        found = {a_label for _, _, a_label in references.same_domains(session, domains)}
    for domain in domains:
        if domain not in found:
            complain(f"the domain {domain} is not in the database yet")
    _write_secret(context, key, secret, f"Made the key {name}")


@apikey.command("list", epilog=EXIT_STATUS)
@with_json
def list_(context: Context) -> None:
    """Print all keys, those that are no longer valid included."""
    with context.session() as session:
        found = list(apikeys.all_keys(session))
    rows = [("Name", "Role", "Scope", "From", "State", "Last used")]
    rows += [
        (
            key.name,
            key.role,
            _scope(key),
            " ".join(key.networks) or "anywhere",
            _state(context, key),
            str(key.used_on or "never"),
        )
        for key in found
    ]
    none = "There are no keys yet: automx apikey add NAME --role ROLE makes one."
    context.write([key.document() for key in found], lambda: table(rows) if found else none)


@apikey.command(epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("key"))
@click.option("--end", is_flag=True, help="Let the key before be valid no longer; make none.")
@with_json
def rotate(context: Context, name: str, end: bool) -> None:
    """Give the key NAME another secret, and print it.

    Both keys are valid then: give the new one to the program, then run the command with --end.
    """
    with context.session() as session:
        if end:
            key = apikeys.end_rotation(session, name, actor=context.actor, now=context.now)
        else:
            key, secret = apikeys.rotate(session, name, actor=context.actor, now=context.now)
    if end:
        context.write(key.document(), lambda: f"Only the last key of {name} is valid now.")
    else:
        _write_secret(context, key, secret, f"Rotated the key {name}; the one before is valid, too")


@apikey.command(epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("key"))
@with_json
def revoke(context: Context, name: str) -> None:
    """Let the key NAME be valid no longer."""
    with context.session() as session:
        document = apikeys.revoke(session, name, actor=context.actor, now=context.now)
    context.write(document, lambda: f"Revoked the key {name}.")


def _write_secret(context: Context, key: Key, secret: str, done: str) -> None:
    text = f"{done}. It is shown only now:\n\n{secret}"
    context.write({**key.document(), "key": secret}, lambda: text)


def _scope(key: Key) -> str:
    provider = f"provider {key.provider_id}" if key.provider_id is not None else ""
    return " ".join(filter(None, (provider, *key.domains))) or "everything"


def _state(context: Context, key: Key) -> str:
    if key.is_revoked:
        return "revoked"
    until = f" until {dated(key.valid_until, context.now)}" if key.valid_until else ""
    is_expired = key.valid_until is not None and key.valid_until <= context.now
    word = "expired" if is_expired else "valid"
    return f"{word}{until}{', the key before as well' if key.is_rotated else ''}"
