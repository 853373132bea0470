"""``automx account``: the mailboxes that tokens have made."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import click

from automx import lookup
from automx.accounts import accounts, created, edits, tokens
from automx.accounts.accounts import Account
from automx.accounts.keystates import KeyStates
from automx.accounts.randomwords import new_password
from automx.accounts.tokens import Token
from automx.address import EmailAddress
from automx.backends import Backends
from automx.cli import names
from automx.cli.addresses import MAIL_ADDRESS_TEXT
from automx.cli.card import Card
from automx.cli.context import Context, with_json
from automx.cli.dclogin import login_notes
from automx.cli.ends import parse_end
from automx.cli.qr import QrOutput, qr_options
from automx.cli.subcommands import Subcommands
from automx.cli.terminal import (
    EXIT_STATUS,
    complain,
    confirm,
    read_secret,
    say,
    say_json,
    table,
    with_progress,
)
from automx.cli.token import obstacle_text
from automx.database import Session
from automx.errors import (
    AddressError,
    AutomxError,
    BadRecordError,
    ForbiddenError,
    MailLeftError,
    UnknownAccountError,
    UnknownDomainError,
)
from automx.formats.dclogin import SCAN_STEPS, new_login_text
from automx.moments import dated, this_second, to_minute
from automx.words import State

_STATES = {
    State.CREATING: "being made",
    State.ACTIVE: "active",
    State.DISABLING: "expired (automx prune disables it)",
    State.DISABLED: "disabled (expired; login is blocked)",
    State.UNDOING: "failed (automx prune cleans up)",
    State.DELETING: "being deleted",
}


@click.group(cls=Subcommands, epilog=EXIT_STATUS)
def account() -> None:
    """Make, show, change and delete accounts.

    An account is a mailbox that a token has made.
    """


@account.command(epilog=EXIT_STATUS)
@click.argument("address", type=MAIL_ADDRESS_TEXT, required=False)
@click.option(
    "--token",
    "name",
    required=True,
    metavar="NAME",
    shell_complete=names.of("token"),
    help="The token that makes it.",
)
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from standard input, instead of a random one.",
)
@qr_options("--qr")
def add(
    context: Context, address: str | None, name: str, password_stdin: bool, output: QrOutput
) -> None:
    """Make an account by a token, as Delta Chat would, and print its password.

    ADDRESS must be one that the token allows; by default, it is a free random one. The password is
    not stored: it is shown only now. The QR code logs Delta Chat in to the account.
    """
    now = context.now
    with (
        output.opened() as write_qr,
        context.session() as session,
        closing(_backends(context, session)) as backends,
    ):
        token = tokens.get(session, name)
        _check_usable(token, now)
        accounts.check_domain(session, token)
        try:
            config = lookup.find(session, token.domain).config
            card = Card.of(session, config, SCAN_STEPS)
        except BadRecordError:  # the account can be used all the same, by typing the servers
            config, card = None, Card(token.domain, SCAN_STEPS)
        password = read_secret("password") if password_stdin else None
        try:
            made = accounts.create(
                session,
                token,
                backends,
                now=now,
                address=address,
                password=password,
                actor=context.actor,
            )
        except ForbiddenError:  # another process has taken the last use
            _check_usable(tokens.get(session, name), now)
            raise
        found = accounts.get(session, made.address)
        person = EmailAddress.parse(made.address)
        session.commit()  # the program of account_created_command may take long
        url = new_login_text(person, made.password, config)
        try:
            _print_account(context, found, made.password, url, output)
            write_qr(url, replace(card, notes=login_notes(person)))
        finally:  # the account is there, even if the output cannot be written
            created.tell(context.settings.accounts, made, token)


def _print_account(
    context: Context, found: Account, password: str, url: str, output: QrOutput
) -> None:
    """Print a new account; its password is known only now."""
    rows = [
        ("Address", found.address),
        ("Password", password),
        ("Expires", _expiry(found, context.now)),
        ("QR text", url),
    ]
    text = table(rows)
    if found.backend == "none":
        text += "\n\nThe mail server creates the mailbox at the first login."
    if output.file is not None:
        text += f"\n\nThe QR code is in {output.file}."
    document = {**found.document(), "password": password, "dclogin_url": url}
    context.write(document | output.document(), lambda: text)


@account.command("list", epilog=EXIT_STATUS)
@click.option(
    "--token",
    "name",
    metavar="NAME",
    shell_complete=names.of("token"),
    help="Only accounts of this token.",
)
@click.option(
    "--state",
    type=click.Choice([state.value for state in State]),
    help="Only accounts in this state.",
)
@with_json
def list_(context: Context, name: str | None, state: str | None) -> None:
    """Print all accounts, the oldest first."""
    with context.session() as session:
        if name is not None:
            tokens.get(session, name)  # an unknown token is an error, not an empty list
        wanted = State(state) if state else None
        found = list(accounts.all_accounts(session, token=name, state=wanted))
    rows = [("Address", "Token", "State", "Created", "Expires")]
    for account in found:
        created, expires = to_minute(account.created_at), _expiry(account, context.now)
        rows.append((account.address, account.token, account.state.value, created, expires))
    none = "There are no such accounts." if name or state else "There are no accounts."
    context.write([account.document() for account in found], lambda: table(rows) if found else none)


@account.command(epilog=EXIT_STATUS)
@click.argument("address", type=MAIL_ADDRESS_TEXT, shell_complete=names.of("account"))
@with_json
def show(context: Context, address: str) -> None:
    """Print all fields of the account ADDRESS; its password is not stored."""
    now = context.now
    with context.session() as session:
        found = accounts.get(session, address)
    rows = [
        ("Address", found.address),
        ("Token", found.token),
        ("State", _STATES[found.state]),
        ("Since", dated(found.changed_at, now)),
        ("Backend", found.backend),
        ("Created", dated(found.created_at, now)),
        ("Expires", _expiry(found, now)),
        ("Warned", dated(found.warned_at, now) if found.warned_at else "no"),
    ]
    context.write(found.document(), lambda: table(rows))


@account.command("set", epilog=EXIT_STATUS)
@click.argument("address", type=MAIL_ADDRESS_TEXT, shell_complete=names.of("account"))
@click.option(
    "--expires",
    required=True,
    metavar="DATE|DURATION|never",
    help="When it ends: 2026-12-31, 2026-12-31T18:00Z, 30d from now on, or never.",
)
@with_json
def set_(context: Context, address: str, expires: str) -> None:
    """Change when the account ADDRESS ends; its person is warned again before that."""
    now = context.now
    try:
        end = parse_end(expires, now, "automx account del ends an account now")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--expires'") from None
    with context.session() as session:
        found = accounts.get(session, address)
        found = edits.set_expiry(session, found, end, actor=context.actor, now=now)
    context.write(found.document(), lambda: f"{found.address} expires {_expiry(found, now)}.")


@account.command(epilog=EXIT_STATUS)
@click.argument("address", type=MAIL_ADDRESS_TEXT, shell_complete=names.of("account"))
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from standard input, instead of a random one.",
)
@qr_options("--qr")
def password(context: Context, address: str, password_stdin: bool, output: QrOutput) -> None:
    """Give the account ADDRESS another password, and print it.

    The mail server must let automx set passwords: mailcow does, and so may the program of
    account_command. The password is not stored: it is shown only now.
    """
    secret = read_secret("password") if password_stdin else new_password()
    with (
        output.opened() as write_qr,
        context.session() as session,
        closing(_backends(context, session)) as backends,
    ):
        found = accounts.get(session, address)
        try:
            config = lookup.find(session, found.address.partition("@")[2]).config
        except (BadRecordError, UnknownDomainError):
            config = None
        edits.set_password(session, found, backends, secret, actor=context.actor, now=context.now)
        person = EmailAddress.parse(found.address)
        url = new_login_text(person, secret, config)
        color = config.details.color if config else ""
        title = config.provider_name if config else person.domain
        _print_account(context, found, secret, url, output)
        write_qr(url, Card(title, SCAN_STEPS, login_notes(person), color))


@account.command("del", epilog=EXIT_STATUS)
@click.argument(
    "addresses",
    nargs=-1,
    required=True,
    metavar="ADDRESS...",
    shell_complete=names.of("account"),
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_json
def delete(context: Context, addresses: tuple[str, ...], yes: bool) -> None:
    """Delete accounts, their mailboxes and all mail in them.

    An address without account is an error: it is told first, and the exit status is 1. After an
    error, the next account is deleted all the same. The uses of the token are not given back.
    """
    addresses = tuple(dict.fromkeys(address.lower() for address in addresses))
    results: dict[str, dict[str, object]] = {}
    with context.session() as session, closing(_backends(context, session)) as backends:
        known = []
        for address in addresses:
            try:
                accounts.get(session, address)
                known.append(address)
            except (AddressError, UnknownAccountError) as error:
                results[address] = {"address": address, "deleted": False, "error": error.reason}
                is_unknown = isinstance(error, UnknownAccountError)  # the text names the address
                complain(
                    error.reason if is_unknown else f"{address or repr(address)}: {error.reason}"
                )
        session.commit()  # nothing stays open while the person reads
        if known:
            _confirm(known, yes)

        def remove(address: str) -> tuple[bool, str | None]:
            """Delete an account; return whether it is gone, and what went wrong."""
            try:
                found = accounts.get(session, address)
                is_whole = accounts.remove(
                    session, found, backends, now=this_second(), actor=context.actor
                )
            except AutomxError as error:
                session.rollback()
                return isinstance(error, MailLeftError), error.reason
            return True, None if is_whole else "the mailbox was not made for it, and stays"

        work = ((address, *remove(address)) for address in known)
        for address, is_gone, fault in with_progress(work, len(known)):
            results[address] = {"address": address, "deleted": is_gone, "error": fault}
            if fault is not None:
                outcome = "is deleted, but" if is_gone else "could not be deleted"
                complain(f"{address} {outcome}: {fault}")
            elif not context.as_json:
                say(f"Deleted {address}.")
    if context.as_json:
        say_json([results[address] for address in addresses])
    if any(result["error"] for result in results.values()):
        raise click.exceptions.Exit(1)


def _backends(context: Context, session: Session) -> Backends:
    return Backends(context.settings.accounts, lambda: KeyStates(lambda: Session(session.engine)))


def _check_usable(token: Token, now: datetime) -> None:
    """Raise ForbiddenError with the reason for administrators if a token makes no account."""
    if why_not := obstacle_text(token, now):
        raise ForbiddenError(f"The token {token.name} makes no account: {why_not}.")


def _expiry(account: Account, now: datetime) -> str:
    return "never" if account.expires_at is None else dated(account.expires_at, now)


def _confirm(addresses: Sequence[str], yes: bool) -> None:
    """Ask whether to delete accounts; exit without a yes, or without a terminal."""
    some = ", ".join(addresses[:5]) + (" and more" if len(addresses) > 5 else "")
    number = len(addresses)
    what = f"{number} account{'s' * (number != 1)} with all mail: {some}"
    confirm(f"this would delete {what}", question=f"Delete {what}?", yes=yes)
