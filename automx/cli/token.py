"""``automx token``: the QR codes by which people make accounts."""

import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any

import click

from automx import lookup
from automx.accounts import fit, tokens
from automx.accounts.tokens import Obstacle, Token
from automx.address import EmailAddress, unicode_domain
from automx.backends import Backends
from automx.cli import names
from automx.cli.addresses import DOMAIN_TEXT, MAIL_ADDRESS_TEXT
from automx.cli.card import Card, Note
from automx.cli.context import Context, with_json
from automx.cli.ends import parse_end
from automx.cli.qr import QrOutput, qr_options
from automx.cli.subcommands import Subcommands
from automx.cli.terminal import EXIT_STATUS, complain, read_secret, table
from automx.config import BACKENDS
from automx.duration import in_words
from automx.errors import SettingsError, UnknownDomainError
from automx.formats.dclogin import SCAN_STEPS, account_text, short_account_text
from automx.moments import dated, to_minute
from automx.texts import N_

_FIELDS = (
    click.option(
        "--expiry",
        metavar="DURATION",
        help="How long each account lasts: a number and one of s, m, h, d, w, y (12h, 2w), or"
        " never.",
    ),
    click.option(
        "--prefix", help='What each address begins with, before random letters; "" for nothing.'
    ),
    click.option(
        "--maxuse",
        type=click.IntRange(0),
        metavar="NUMBER",
        help="How many accounts it makes in all; 0 is no limit.",
    ),
    click.option(
        "--valid-until",
        metavar="DATE|DURATION",
        help="When it stops making accounts: 2026-12-31, 2026-12-31T18:00Z, or 30d from now on;"
        " never is no limit.",
    ),
    click.option(
        "--backend",
        type=click.Choice([*BACKENDS, "default"]),
        help="The backend of its mailboxes; default is the account_backend of the settings.",
    ),
)


def field_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the fields that a command can set."""
    for option in reversed(_FIELDS):
        command = option(command)
    return command


@click.group(cls=Subcommands, epilog=EXIT_STATUS)
def token() -> None:
    """Make, print, change and withdraw tokens.

    A token is what people scan as a QR code with Delta Chat: each scan makes an account, until the
    token is used up, no longer valid, or revoked.
    """


@token.command(epilog=EXIT_STATUS)
@click.argument("name")
@click.option(
    "--domain",
    type=DOMAIN_TEXT,
    shell_complete=names.of("domain"),
    help="The domain of its addresses; not needed if there is only one.",
)
@click.option("--address", type=MAIL_ADDRESS_TEXT, help="Make this one mailbox only, once.")
@field_options
@click.option(
    "--spare-active", is_flag=True, help="Keep accounts past their expiry while people log in."
)
@click.option(
    "--token-stdin", is_flag=True, help="Read its secret from standard input, not a random one."
)
@with_json
def add(
    context: Context, /, name: str, domain: str | None, token_stdin: bool, **options: Any
) -> None:
    """Make a token called NAME, and print it.

    By default, it makes 50 accounts, which last for one day each; their addresses begin with
    "tmp.".
    """
    fields = _fields(options, context.now)
    if token_stdin:
        fields["token"] = read_secret("token")
    with context.session() as session:
        if domain is None and "address" in fields:
            domain = EmailAddress.parse(fields["address"]).domain
        domain = domain or _only(lookup.first_domains(session, 6))
        session.rollback()  # the backend may take long
        with _backends(context) as backends:
            fit.check_new(backends, domain, fields)
        added = tokens.add(session, name, domain, now=context.now, actor=context.actor, **fields)
    _write(context, added, lambda: f"Made the token {name}.\n\n{_details(context, added)}")


@token.command("list", epilog=EXIT_STATUS)
@with_json
def list_(context: Context) -> None:
    """Print all tokens; their secrets only with --json."""
    endpoint = context.settings.web_endpoint
    with context.session() as session:
        found = tokens.all_tokens(session)
    none = "There are no tokens yet: automx token add NAME makes one."
    context.write(
        [token.document(endpoint) for token in found],
        lambda: _table(found, context.now) if found else none,
    )


@token.command(epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("token"))
@with_json
def show(context: Context, name: str) -> None:
    """Print all fields of the token NAME, its secret included."""
    with context.session() as session:
        found = tokens.get(session, name)
    _write(context, found, lambda: _details(context, found))


@token.command(epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("token"))
@field_options
@click.option(
    "--spare-active/--no-spare-active",
    default=None,
    help="Whether accounts are kept past their expiry while people log in.",
)
@click.option("--unrevoke", is_flag=True, help="Undo automx token revoke.")
@with_json
def mod(context: Context, /, name: str, unrevoke: bool, **options: Any) -> None:
    """Change the token NAME; the count of its uses stays.

    Fields that are not given stay as they are. Printed QR codes stay valid, and accounts that exist
    keep their expiry.
    """
    changes = _fields(options, context.now)
    if unrevoke:
        changes["is_revoked"] = False
    if not changes:
        raise click.UsageError("Say what to change, such as --maxuse 100.")
    _edit(context, name, changes, "Changed")


@token.command(epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("token"))
@with_json
def revoke(context: Context, name: str) -> None:
    """Let the token NAME make no more accounts; those that it made stay."""
    _edit(context, name, {"is_revoked": True}, "Revoked")


@token.command("del", epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("token"))
@with_json
def delete(context: Context, name: str) -> None:
    """Delete the token NAME, which must not have accounts any more."""
    with context.session() as session:
        deleted = tokens.get(session, name)
        tokens.remove(session, name, actor=context.actor, now=context.now)
    _write(context, deleted, lambda: f"Deleted the token {name}.")


@token.command(epilog=EXIT_STATUS)
@click.argument("name", shell_complete=names.of("token"))
@click.option(
    "--short",
    is_flag=True,
    help="Name the domain only: Delta Chat makes up address and password, and the mail server makes"
    " the mailbox at the first login. Uses are not counted, and accounts do not expire.",
)
@qr_options("--output")
def qr(context: Context, name: str, short: bool, output: QrOutput) -> None:
    """Print the QR code of the token NAME, or write it to a file.

    Delta Chat makes an account when it scans the code, which leads to the setting web_endpoint.
    """
    endpoint = context.settings.web_endpoint
    with context.session() as session:
        found = tokens.get(session, name)
        card = Card.of(session, lookup.find(session, found.domain).config, SCAN_STEPS)
    if short:
        text = _short_text(context, found)
        if text is None:
            raise click.UsageError(
                "--short is for tokens of the backend none, without --address: only there the mail"
                " server makes mailboxes by itself."
            )
        card = replace(card, notes=_notes_of_domain(found.domain))
        output.write(context, text, card, {"name": name, "dcaccount": text})
        return
    if not endpoint:
        raise SettingsError(
            "web_endpoint is not set, to which the QR code leads: set it to the public URL of this"
            f" service, such as https://automx.{found.domain}/new_email"
        )
    text = account_text(endpoint, found.token, found.name)
    output.write(context, text, replace(card, notes=_notes(found)), found.document(endpoint))
    if why_not := obstacle_text(found, context.now):
        complain(f"the token {name} makes no account: {why_not}")


def obstacle_text(token: Token, now: datetime) -> str | None:
    """Return why a token makes no account, and what changes that; None if it makes one."""
    if (found := token.obstacle(now)) is None:
        return None
    mod = f"automx token mod {shlex.quote(token.name)}"
    uses = "it makes one mailbox, once" if token.address else f"{mod} --maxuse NUMBER allows more"
    advice = {
        Obstacle.OFF: token.domain_row.off if token.domain_row else "",
        Obstacle.REVOKED: f"{mod} --unrevoke takes that back",
        Obstacle.EXPIRED: f"{mod} --valid-until DATE prolongs it",
        Obstacle.USED_UP: uses,
    }
    return f"{_state(token, now)} ({advice[found]})"


def _fields(options: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the fields of a token that options give, by the names that tokens.edit() knows."""
    fields = {name: value for name, value in options.items() if value is not None}
    if "valid_until" in fields:
        try:
            fields["valid_until"] = parse_end(
                fields["valid_until"], now, "automx token revoke ends a token now"
            )
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--valid-until'") from None
    if fields.get("backend") == "default":
        fields["backend"] = ""
    return fields


def _only(names: list[str]) -> str:
    """Return the only domain of the database; UsageError if it has several."""
    if not names:
        raise UnknownDomainError(
            "The database names no domain yet: add one first, so that Delta Chat finds its mail"
            " servers (automx domain add)."
        )
    if len(names) > 1:
        some = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
        raise click.UsageError(f"Say which domain, as in --domain {names[0]}: there are {some}.")
    return names[0]


def _edit(context: Context, name: str, changes: dict[str, object], done: str) -> None:
    """Change a token and print it."""
    with context.session() as session:
        before = tokens.get(session, name)
        session.rollback()  # the backend may take long
        with _backends(context) as backends:
            fit.check_changed(backends, before, changes)
        edited = tokens.edit(session, name, changes, actor=context.actor, now=context.now)
    _write(context, edited, lambda: f"{done} the token {name}.\n\n{_table([edited], context.now)}")


def _backends(context: Context) -> closing[Backends]:
    return closing(Backends(context.settings.accounts))


def _write(context: Context, token: Token, text: Callable[[], str]) -> None:
    """Print a token with ``--json``, else the text."""
    context.write(token.document(context.settings.web_endpoint), text)


def _short_text(context: Context, token: Token) -> str | None:
    """Return the text that names the domain only; None if the mail server makes no mailboxes."""
    backend = token.backend or context.settings.accounts.backend
    is_possible = backend == "none" and token.address is None
    return short_account_text(token.domain) if is_possible else None


def _notes_of_domain(domain: str) -> list[Note]:
    text = N_("This code makes a mailbox of its own for each person, at %(domain)s.")
    return [Note(text, {"domain": unicode_domain(domain)})]


def _notes(token: Token) -> list[Note]:
    """Return the small print of a card."""
    notes = _notes_of_domain(token.domain)
    if token.address is not None:
        address = f"{token.address.partition('@')[0]}@{unicode_domain(token.domain)}"
        notes = [Note(N_("This code makes one mailbox: %(address)s."), {"address": address})]
    if token.lifetime is not None:
        text = N_("The mailbox and its mail end after %(time)s.")
        if token.spare_active:
            text = N_("The mailbox and its mail end after %(time)s without use.")
        notes.append(Note(text, {"time": token.lifetime}))
    if token.valid_until is not None:
        text = N_("The code can be used until %(time)s.")
        notes.append(Note(text, {"time": to_minute(token.valid_until)}))
    return notes


def _table(tokens: list[Token], now: datetime) -> str:
    rows = [("Name", "Addresses", "Expiry", "Uses", "State")]
    rows += [
        (token.name, _addresses(token), token.expiry, _uses(token), _state(token, now))
        for token in tokens
    ]
    return table(rows)


def _addresses(token: Token) -> str:
    return token.address or f"{token.prefix}…@{token.domain}"


def _uses(token: Token) -> str:
    if token.maxuse:
        return f"{token.usecount} of {token.maxuse} used"
    return f"{token.usecount} used, no limit"


def _state(token: Token, now: datetime) -> str:
    """Return whether a token makes accounts, in words."""
    found = token.obstacle(now)
    if found and found is not Obstacle.EXPIRED:
        return found
    until = f" until {dated(token.valid_until, now)}" if token.valid_until else ""
    return f"{'valid' if found else 'usable'}{until}"


def _details(context: Context, token: Token) -> str:
    """Return all of a token, a field on each line."""
    now = context.now
    settings = context.settings
    lifetime = token.lifetime
    lasts = f"each account lasts {in_words(lifetime)}" if lifetime else "accounts have no end"
    rows = [
        ("Name", token.name),
        ("Token", f"{token.token} (secret)"),
        ("Addresses", _addresses(token)),
        ("Expiry", f"{token.expiry} ({lasts})"),
        ("Uses", _uses(token)),
        ("State", obstacle_text(token, now) or _state(token, now)),
        ("Backend", token.backend or f"{settings.accounts.backend} (of the settings)"),
        ("Spare active", "yes" if token.spare_active else "no"),
        ("Created", dated(token.created_at, now)),
    ]
    if short := _short_text(context, token):
        rows.append(("Short text", f"{short} (--short: not counted, no expiry)"))
    rows.append(("QR text", token.qr_text(settings.web_endpoint) or _NO_ENDPOINT))
    return table(rows)


_NO_ENDPOINT = "none: the setting web_endpoint must be an https URL first"
