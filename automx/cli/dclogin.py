"""``automx dclogin`` and ``automx mobileconfig-qr``: QR codes that set up one person's client."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

import click

from automx.address import EmailAddress
from automx.cli.addresses import HTTP_URL, MAIL_ADDRESS
from automx.cli.card import Card, Note
from automx.cli.context import Context
from automx.cli.qr import QrOutput, qr_options
from automx.cli.show import personal_config
from automx.cli.terminal import read_secret
from automx.clientconfig import ClientConfig
from automx.config import Settings
from automx.formats import mobileconfig
from automx.formats.dclogin import SCAN_STEPS, login_text
from automx.texts import N_

PROFILE_STEPS = (
    # Translators: iOS and iPadOS 12.2 and later.
    N_("Open the camera of your iPhone or iPad, hold it over this code and tap the link."),
    # Translators: iOS and iPadOS 12.2 and later.
    N_("Tap “Allow” to download the profile."),
    # Translators: iOS and iPadOS 12.2 and later, Apple's text,
    # https://simetry.freshdesk.com/support/solutions/articles/154000182325
    N_("Open Settings, tap “Profile Downloaded”, then “Install”."),
    # Translators: iOS and iPadOS 12.2 and later.
    N_("Type the password of your mailbox when you are asked for it."),
)


@click.command
@click.argument("address", type=MAIL_ADDRESS)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--discover",
    is_flag=True,
    help="Leave the servers out: Delta Chat asks this service for them. The code is smaller.",
)
@qr_options("--qr")
def dclogin(
    context: Context, address: EmailAddress, password_stdin: bool, discover: bool, output: QrOutput
) -> None:
    """Make a QR code that logs Delta Chat in to ADDRESS.

    It holds the password and all settings, for people who cannot type a host name. The password is
    asked for, or read from standard input.
    """
    config = personal_config(context, address)
    login_text(address, "", config)  # raises its errors before the password is typed
    if not password_stdin and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for the password: --password-stdin")
    password = read_secret("password")
    text = login_text(address, password, None if discover else config)
    card = _card(context, config, SCAN_STEPS, login_notes(address))
    output.write(context, text, card, {"address": str(address), "dclogin_url": text})


def login_notes(person: EmailAddress) -> tuple[Note, ...]:
    """Return the small print of a card with a code that logs in."""
    secret = N_(
        "This code holds the password: whoever scans it can read the mail. Keep it like a key."
    )
    return (_for_whom(person), Note(secret))


def _for_whom(person: EmailAddress) -> Note:
    return Note(N_("For %(person)s."), {"person": person.for_people})


@click.command("mobileconfig-qr")
@click.argument("address", type=MAIL_ADDRESS)
@click.option(
    "--url",
    type=HTTP_URL,
    metavar="URL",
    help="Where phones reach this service, such as https://example.org/automx. Default: the "
    "setting public_host, else https://autoconfig.DOMAIN.",
)
@qr_options("--qr")
def mobileconfig_qr(
    context: Context, address: EmailAddress, url: str | None, output: QrOutput
) -> None:
    """Make a QR code of the profile of ADDRESS.

    The profile sets up the mailbox on an iPhone or iPad.
    """
    config = personal_config(context, address)
    mobileconfig.render(config, address)  # raises its errors before a code is printed
    base = url or _own_url(address, context.settings)
    text = f"{base}/mobileconfig/?emailaddress={quote(str(address), safe='@')}"
    card = _card(context, config, PROFILE_STEPS, (_for_whom(address),))
    output.write(context, text, card, {"address": str(address), "url": text})


def _card(
    context: Context, config: ClientConfig, steps: Sequence[str], notes: Sequence[Note]
) -> Card:
    with context.session() as session:
        return replace(Card.of(session, config, steps), notes=notes)


def _own_url(address: EmailAddress, settings: Settings) -> str:
    """Return where a phone finds the profile, without a final slash."""
    return settings.public_url or f"https://autoconfig.{address.domain}"
