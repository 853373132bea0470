"""``automx account``: the mailboxes that tokens have made."""

import sys
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

import click

from automx.cli.text import (
    EXIT_STATUS,
    complain,
    dated,
    echo_json,
    iso,
    json_option,
    read_secret,
    reason,
    table,
    this_second,
    to_minute,
    with_progress,
)
from automx.cli.token import obstacle
from automx.errors import AutomxError, ForbiddenError

if TYPE_CHECKING:
    from automx.accounts.accounts import Account
    from automx.accounts.tokens import Token

# The states of automx.accounts, in words.
_STATES = {
    "creating": "being made",
    "active": "active",
    "disabled": "disabled (it has expired, and nobody can log in)",
    "undoing": "failed (making it went wrong; automx prune cleans up)",
    "deleting": "being deleted",
}


@click.group(epilog=EXIT_STATUS)
def account() -> None:
    """Make, show and delete accounts: the mailboxes that tokens make."""


@account.command(epilog=EXIT_STATUS)
@click.argument("address", required=False)
@click.option("--token", "name", required=True, metavar="NAME", help="The token that makes it.")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from standard input, instead of making one up.",
)
@json_option
def add(address: str | None, name: str, password_stdin: bool, as_json: bool) -> None:
    """Make an account by a token, as Delta Chat would, and print its password.

    ADDRESS must be one that the token may make; without it, a free one is made up. The password is
    kept nowhere: this is the only time that it is shown.
    """
    from automx.accounts import accounts, tokens
    from automx.address import EmailAddress
    from automx.backends import Backends
    from automx.config import load
    from automx.database import open_session
    from automx.formats.dclogin import login_text

    settings = load()
    now = this_second()
    with open_session(settings.db_uri) as session, closing(Backends(settings.accounts)) as backends:
        token = tokens.get(session, name)
        _check_usable(token, now)
        password = read_secret("password") if password_stdin else None
        try:
            made = accounts.create(
                session, token, backends, now=now, address=address, password=password
            )
        except ForbiddenError:  # somebody else has taken the last use
            _check_usable(tokens.get(session, name), now)
            raise
        found = accounts.get(session, made.address)
    url = login_text(EmailAddress.parse(made.address), made.password)
    if as_json:
        echo_json({**_document(found), "password": made.password, "dclogin_url": url})
        return
    rows = [
        ("Address", made.address),
        ("Password", made.password),
        ("Expires", _expiry(found, now)),
        ("QR text", url),
    ]
    click.echo(table(rows), nl=False)
    if found.backend == "none":
        click.echo("\nThe mail server makes the mailbox when somebody logs in for the first time.")


@account.command("list", epilog=EXIT_STATUS)
@click.option("--token", "name", metavar="NAME", help="Only accounts of this token.")
@click.option("--state", type=click.Choice(list(_STATES)), help="Only accounts in this state.")
@json_option
def list_(name: str | None, state: str | None, as_json: bool) -> None:
    """Print all accounts, the oldest first."""
    from automx.accounts import accounts, tokens
    from automx.config import load
    from automx.database import open_session

    now = this_second()
    with open_session(load().db_uri) as session:
        if name is not None:
            tokens.get(session, name)  # a name that is misspelt is no empty list
        wanted = None if state is None else accounts.State(state)
        found = list(accounts.all_accounts(session, token=name, state=wanted))
    if as_json:
        echo_json([_document(account) for account in found])
    elif found:
        rows = [("Address", "Token", "State", "Created", "Expires")]
        rows += [
            (
                account.address,
                account.token,
                account.state.value,
                to_minute(account.created_at),
                _expiry(account, now),
            )
            for account in found
        ]
        click.echo(table(rows), nl=False)
    else:
        click.echo("There are no such accounts." if name or state else "There are no accounts.")


@account.command(epilog=EXIT_STATUS)
@click.argument("address")
@json_option
def show(address: str, as_json: bool) -> None:
    """Print all that is known of the account ADDRESS; its password is not."""
    from automx.accounts import accounts
    from automx.config import load
    from automx.database import open_session

    now = this_second()
    with open_session(load().db_uri) as session:
        found = accounts.get(session, address)
    if as_json:
        echo_json(_document(found))
        return
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
    click.echo(table(rows), nl=False)


@account.command("del", epilog=EXIT_STATUS)
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(addresses: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete accounts, their mailboxes and all mail in them.

    One that cannot be deleted is told, and the others are deleted all the same. The uses of the
    token are not given back.
    """
    from automx.accounts import accounts
    from automx.backends import Backends
    from automx.config import load
    from automx.database import open_session

    addresses = tuple(dict.fromkeys(address.lower() for address in addresses))
    if not yes:
        _confirm(addresses)
    settings = load()
    results = []
    with open_session(settings.db_uri) as session, closing(Backends(settings.accounts)) as backends:

        def remove(address: str) -> str | None:
            """Delete an account; return what went wrong."""
            try:
                found = accounts.get(session, address)
                accounts.remove(session, found, backends, now=this_second())
            except AutomxError as error:
                session.rollback()
                return reason(error)
            return None

        work = ((address, remove(address)) for address in addresses)
        for address, error in with_progress(work, len(addresses)):
            results.append({"address": address, "deleted": error is None, "error": error})
            if error is not None:
                complain(f"{address} could not be deleted: {error}")
            elif not as_json:
                click.echo(f"Deleted {address}.")
    if as_json:
        echo_json(results)
    if not all(result["deleted"] for result in results):
        raise click.exceptions.Exit(1)


def _check_usable(token: "Token", now: datetime) -> None:
    """Raise ForbiddenError, in words for an administrator, if a token makes no account."""
    if why_not := obstacle(token, now):
        raise ForbiddenError(f"The token {token.name} makes no account: {why_not}.")


def _document(account: "Account") -> dict[str, object]:
    """Return an account as programs read it."""
    return {
        "address": account.address,
        "token": account.token,
        "state": account.state.value,
        "backend": account.backend,
        "created": iso(account.created_at),
        "expires": iso(account.expires_at),
        "changed": iso(account.changed_at),
        "warned": iso(account.warned_at),
    }


def _expiry(account: "Account", now: datetime) -> str:
    return "never" if account.expires_at is None else dated(account.expires_at, now)


def _confirm(addresses: tuple[str, ...]) -> None:
    """Ask whether to delete accounts; exit if nobody says yes, or nobody can be asked."""
    some = ", ".join(addresses[:5]) + (" and more" if len(addresses) > 5 else "")
    number = len(addresses)
    what = f"{number} account{'s' * (number != 1)} with all mail: {some}"
    if not sys.stdin.isatty():
        complain(f"this would delete {what}; say --yes to do it")
        raise click.exceptions.Exit(2)
    click.confirm(f"Delete {what}?", abort=True, err=True)
