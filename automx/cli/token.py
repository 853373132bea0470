"""``automx token``: what people scan to get an account."""

import re
import shlex
from dataclasses import dataclass
from datetime import datetime, time
from typing import TYPE_CHECKING

import click

from automx.cli.qr import Card, QrOutput, qr_options
from automx.cli.text import (
    EXIT_STATUS,
    complain,
    dated,
    echo_json,
    iso,
    json_option,
    length_of,
    parse_moment,
    read_secret,
    table,
    this_second,
    to_minute,
)
from automx.config import BACKENDS
from automx.errors import SettingsError, UnknownDomainError

if TYPE_CHECKING:
    from automx.accounts.tokens import Token
    from automx.config import Settings

expiry_option = click.option(
    "--expiry",
    metavar="DURATION",
    help="How long each account lasts: a number and one of s, m, h, d, w, y (12h, 2w), or never.",
)
prefix_option = click.option(
    "--prefix", help='What each address begins with, before random letters; "" for nothing.'
)
maxuse_option = click.option(
    "--maxuse",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="How many accounts it makes in all; 0 is no limit.",
)
valid_until_option = click.option(
    "--valid-until",
    metavar="DATE|DURATION",
    help="When it stops making accounts: 2026-12-31, 2026-12-31T18:00Z, or 30d from now on;"
    " never is no limit.",
)
backend_option = click.option(
    "--backend",
    type=click.Choice([*BACKENDS, "default"]),
    help="Who makes its mailboxes; default is the account_backend of the settings.",
)


@click.group(epilog=EXIT_STATUS)
def token() -> None:
    """Make, print, change and withdraw tokens.

    A token is what people scan as a QR code with Delta Chat: each scan makes an account, until the
    token is used up, no longer valid, or revoked.
    """


@token.command(epilog=EXIT_STATUS)
@click.argument("name")
@click.option("--domain", help="The domain of its addresses; not needed if there is only one.")
@expiry_option
@prefix_option
@maxuse_option
@valid_until_option
@click.option("--address", help="Make this one mailbox only, once.")
@backend_option
@click.option(
    "--spare-active", is_flag=True, help="Keep accounts of people who still log in, past expiry."
)
@click.option(
    "--token-stdin", is_flag=True, help="Read its secret from standard input, not a random one."
)
@json_option
def add(
    name: str,
    domain: str | None,
    expiry: str | None,
    prefix: str | None,
    maxuse: int | None,
    valid_until: str | None,
    address: str | None,
    backend: str | None,
    spare_active: bool,
    token_stdin: bool,
    as_json: bool,
) -> None:
    """Make a token called NAME, and print it.

    Unless told otherwise, it makes 50 accounts that last for one day each, and whose addresses
    begin with "tmp.".
    """
    from automx import lookup
    from automx.accounts import tokens
    from automx.address import EmailAddress
    from automx.config import load
    from automx.database import open_session

    if address is not None and (prefix is not None or maxuse is not None):
        raise click.UsageError("A token for one --address has neither --prefix nor --maxuse.")
    now = this_second()
    fields = _fields(expiry, prefix, maxuse, valid_until, backend, now)
    settings = load()
    token = read_secret("token") if token_stdin else None
    with open_session(settings.db_uri) as session:
        if domain is None:
            one = address and EmailAddress.parse(address).domain
            domain = one or _only(lookup.first_domains(session, 6))
        added = tokens.add(
            session,
            name,
            domain,
            now=now,
            address=address,
            token=token,
            spare_active=spare_active,
            **fields,
        )
    if as_json:
        echo_json(document(added, settings))
    else:
        click.echo(f"Made the token {name}.\n\n" + _details(added, settings, now), nl=False)


@token.command("list", epilog=EXIT_STATUS)
@json_option
def list_(as_json: bool) -> None:
    """Print all tokens; their secrets only with --json."""
    from automx.accounts import tokens
    from automx.config import load
    from automx.database import open_session

    now = this_second()
    settings = load()
    with open_session(settings.db_uri) as session:
        found = tokens.all_tokens(session)
    if as_json:
        echo_json([document(token, settings) for token in found])
    elif found:
        click.echo(_table(found, now), nl=False)
    else:
        click.echo("There are no tokens yet: automx token add NAME makes one.")


@token.command(epilog=EXIT_STATUS)
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Print all of the token NAME, its secret included."""
    from automx.accounts import tokens
    from automx.config import load
    from automx.database import open_session

    settings = load()
    with open_session(settings.db_uri) as session:
        found = tokens.get(session, name)
    if as_json:
        echo_json(document(found, settings))
    else:
        click.echo(_details(found, settings, this_second()), nl=False)


@token.command(epilog=EXIT_STATUS)
@click.argument("name")
@expiry_option
@prefix_option
@maxuse_option
@valid_until_option
@backend_option
@click.option(
    "--spare-active/--no-spare-active",
    default=None,
    help="Whether accounts of people who still log in are kept, past expiry.",
)
@click.option("--unrevoke", is_flag=True, help="Take back what revoke did.")
@json_option
def mod(
    name: str,
    expiry: str | None,
    prefix: str | None,
    maxuse: int | None,
    valid_until: str | None,
    backend: str | None,
    spare_active: bool | None,
    unrevoke: bool,
    as_json: bool,
) -> None:
    """Change the token NAME; the count of its uses stays.

    What is not given stays as it is. Printed QR codes stay valid, and accounts that exist keep
    their expiry.
    """
    now = this_second()
    changes = _fields(expiry, prefix, maxuse, valid_until, backend, now)
    if spare_active is not None:
        changes["spare_active"] = spare_active
    if unrevoke:
        changes["is_revoked"] = False
    if not changes:
        raise click.UsageError("Say what to change, such as --maxuse 100.")
    _edit(name, changes, now, "Changed", as_json)


@token.command(epilog=EXIT_STATUS)
@click.argument("name")
@json_option
def revoke(name: str, as_json: bool) -> None:
    """Let the token NAME make no more accounts; those that it made stay."""
    _edit(name, {"is_revoked": True}, this_second(), "Revoked", as_json)


@token.command("del", epilog=EXIT_STATUS)
@click.argument("name")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete the token NAME, which must not have accounts any more."""
    from automx.accounts import tokens
    from automx.config import load
    from automx.database import open_session

    settings = load()
    with open_session(settings.db_uri) as session:
        deleted = tokens.get(session, name)
        tokens.remove(session, name)
    if as_json:
        echo_json(document(deleted, settings))
    else:
        click.echo(f"Deleted the token {name}.")


@token.command(epilog=EXIT_STATUS)
@click.argument("name")
@qr_options("--output")
def qr(name: str, output: QrOutput) -> None:
    """Print the QR code of the token NAME, or write it to a file.

    Whoever scans it with Delta Chat gets an account. It leads to web_endpoint of the settings.
    """
    from automx import lookup
    from automx.accounts import tokens
    from automx.config import load
    from automx.database import open_session
    from automx.formats.dclogin import SCAN_STEPS, account_text

    now = this_second()
    settings = load()
    with open_session(settings.db_uri) as session:
        found = tokens.get(session, name)
        config = lookup.find(session, found.domain).config
    if not settings.web_endpoint:
        raise SettingsError(
            "web_endpoint is not set, to which the QR code leads: set it to the public URL of this"
            f" service, such as https://automx.{found.domain}/new_email"
        )
    text = account_text(settings.web_endpoint, found.token, found.name)
    output.write(
        text, Card(config.provider_name, SCAN_STEPS, _notes(found)), document(found, settings)
    )
    if why_not := obstacle(found, now):
        complain(f"the token {name} makes no account: {why_not}")


def document(token: "Token", settings: "Settings") -> dict[str, object]:
    """Return a token as programs read it, in mailadm's words."""
    return {
        "name": token.name,
        "token": token.token,
        "expiry": token.expiry,
        "prefix": token.prefix,
        "maxuse": token.maxuse,
        "usecount": token.usecount,
        "domain": token.domain,
        "address": token.address,
        "valid_until": iso(token.valid_until),
        "revoked": token.is_revoked,
        "backend": token.backend or None,
        "spare_active": token.spare_active,
        "created": iso(token.created_at),
        "dcaccount": _account_text(token, settings),
    }


@dataclass(frozen=True)
class Obstacle:
    """Why a token makes no account, in words for an administrator, and what changes that."""

    why: str
    advice: str

    def __str__(self) -> str:
        return f"{self.why} ({self.advice})"


def obstacle(token: "Token", now: datetime) -> Obstacle | None:
    """Return why a token makes no account; None if it makes one."""
    mod = f"automx token mod {shlex.quote(token.name)}"
    match why_not := token.obstacle(now):
        case None:
            return None
        case "revoked":
            return Obstacle(why_not, f"{mod} --unrevoke takes that back")
        case "expired":
            ended = f"valid until {dated(token.valid_until or now, now)}"
            return Obstacle(ended, f"{mod} --valid-until DATE prolongs it")
    if token.address is not None:
        return Obstacle(why_not, "it makes one mailbox, once")
    return Obstacle(why_not, f"{mod} --maxuse NUMBER allows more")


def _fields(
    expiry: str | None,
    prefix: str | None,
    maxuse: int | None,
    valid_until: str | None,
    backend: str | None,
    now: datetime,
) -> dict[str, object]:
    """Return the fields of a token that options name, by the names that tokens.edit() knows."""
    options = {"expiry": expiry, "prefix": prefix, "maxuse": maxuse}
    fields: dict[str, object] = {
        name: value for name, value in options.items() if value is not None
    }
    if valid_until is not None:
        fields["valid_until"] = _valid_until(valid_until, now)
    if backend is not None:
        fields["backend"] = "" if backend == "default" else backend
    return fields


def _valid_until(text: str, now: datetime) -> datetime | None:
    """Return the moment that a value of --valid-until means; BadParameter if it is none."""
    from automx.duration import parse_duration

    option = "'--valid-until'"
    if text == "never":
        return None
    if re.fullmatch(r"\d+[a-z]", text):
        try:
            return now + parse_duration(text)
        except ValueError as error:
            raise click.BadParameter(f"A duration is {error}.", param_hint=option) from None
    moment = parse_moment(text, option, time_of_date=time(23, 59, 59))
    if moment <= now:
        hint = "automx token revoke ends a token now"
        raise click.BadParameter(f"{text!r} is past; {hint}.", param_hint=option)
    return moment


def _only(names: list[str]) -> str:
    """Return the only domain of the database; UsageError if it has several."""
    if not names:
        raise UnknownDomainError(
            "The database names no domain yet: add one first, so that Delta Chat finds its mail"
            " servers (automx seed)."
        )
    if len(names) > 1:
        some = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
        raise click.UsageError(f"Say which domain, as in --domain {names[0]}: there are {some}.")
    return names[0]


def _edit(name: str, changes: dict[str, object], now: datetime, done: str, as_json: bool) -> None:
    from automx.accounts import tokens
    from automx.config import load
    from automx.database import open_session

    settings = load()
    with open_session(settings.db_uri) as session:
        edited = tokens.edit(session, name, changes)
    if as_json:
        echo_json(document(edited, settings))
    else:
        click.echo(f"{done} the token {name}.\n\n" + _table([edited], now), nl=False)


def _account_text(token: "Token", settings: "Settings") -> str | None:
    """Return what the QR code of a token says; None if the settings do not tell where we are."""
    from automx.formats.dclogin import account_text

    try:
        return account_text(settings.web_endpoint, token.token, token.name)
    except SettingsError:
        return None


def _notes(token: "Token") -> list[str]:
    """Return the small print of a card."""
    from automx.address import unicode_domain

    domain = unicode_domain(token.domain)
    if token.address is not None:
        notes = [f"This code makes one mailbox: {token.address.partition('@')[0]}@{domain}."]
    else:
        notes = [f"This code makes a mailbox of its own for each person, at {domain}."]
    if token.lifetime is not None:
        unused = " without use" if token.spare_active else ""
        notes.append(f"The mailbox and its mail end after {length_of(token.lifetime)}{unused}.")
    if token.valid_until is not None:
        notes.append(f"The code can be used until {to_minute(token.valid_until)}.")
    return notes


def _table(tokens: list["Token"], now: datetime) -> str:
    rows = [("Name", "Addresses", "Expiry", "Uses", "State")]
    rows += [
        (token.name, _addresses(token), token.expiry, _uses(token), _state(token, now))
        for token in tokens
    ]
    return table(rows)


def _addresses(token: "Token") -> str:
    return token.address or f"{token.prefix}…@{token.domain}"


def _uses(token: "Token") -> str:
    if token.maxuse:
        return f"{token.usecount} of {token.maxuse} used"
    return f"{token.usecount} used, no limit"


def _state(token: "Token", now: datetime, *, with_advice: bool = False) -> str:
    """Return in words whether a token makes accounts."""
    if why_not := obstacle(token, now):
        return str(why_not) if with_advice else why_not.why
    return f"usable until {dated(token.valid_until, now)}" if token.valid_until else "usable"


def _details(token: "Token", settings: "Settings", now: datetime) -> str:
    """Return all of a token, a field on each line."""
    lifetime = token.lifetime
    lasts = f"each account lasts {length_of(lifetime)}" if lifetime else "accounts have no end"
    rows = [
        ("Name", token.name),
        ("Token", f"{token.token} (secret)"),
        ("Addresses", _addresses(token)),
        ("Expiry", f"{token.expiry} ({lasts})"),
        ("Uses", _uses(token)),
        ("State", _state(token, now, with_advice=True)),
        ("Backend", token.backend or f"{settings.accounts.backend} (of the settings)"),
        ("Spare active", "yes" if token.spare_active else "no"),
        ("Created", dated(token.created_at, now)),
        ("QR text", _account_text(token, settings) or _NO_ENDPOINT),
    ]
    return table(rows)


_NO_ENDPOINT = "none: the setting web_endpoint must be an https URL first"
