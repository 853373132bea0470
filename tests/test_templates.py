"""A document that is filled in for a person equals the one that is rendered for that person."""

from types import ModuleType

import pytest

from automx import kinds
from automx.address import EmailAddress
from automx.clientconfig import (
    FORBIDDEN,
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.errors import AddressError
from automx.formats import autoconfig, autodiscover, mobileconfig, template

CONFIG = ClientConfig(
    domain="example.com",
    provider_name="Ham & Eggs <Ltd>",
    provider_short_name="Ham",
    mail_servers=(
        MailServer(
            ServerType.IMAP,
            "%EMAILLOCALPART%.mail.%EMAILDOMAIN%",
            993,
            SocketType.SSL,
            "%EMAILADDRESS%",
            (Authentication.PASSWORD_CLEARTEXT,),
        ),
        MailServer(
            ServerType.SMTP,
            "smtp.example.com",
            587,
            SocketType.STARTTLS,
            "user/%EMAILLOCALPART%",
            (Authentication.PASSWORD_CLEARTEXT,),
        ),
    ),
    services=(
        Service(ServiceType.CALDAV, "https://dav.example.com/a/%EMAILADDRESS%/", "x", False),
        Service(ServiceType.CALDAV, "https://dav.example.com/b/%EMAILLOCALPART%/", "y", True),
        Service(ServiceType.CARDDAV, "https://dav.example.com/", "%EMAILADDRESS%", False),
        Service(ServiceType.CARDDAV, "https://%EMAILLOCALPART%.dav.example.com", "z", False),
    ),
)

ADDRESSES = [
    "alice",
    "Alice",
    "o'neil&sons",
    "jürgen",
    "%EMAILDOMAIN%",
    "a/b+c=d",
    "a?b#c%d",
    "00123",
]


PERSONS = [("", ""), ("a&l%ice", ""), ("", "Ä <b> & \ue000 %EMAILADDRESS%"), ("alice", "Alice")]


@pytest.mark.parametrize(("login_name", "display_name"), PERSONS)
@pytest.mark.parametrize("local_part", ADDRESSES)
@pytest.mark.parametrize("format_", [autoconfig, autodiscover, mobileconfig])
def test_it_is_filled_in_for_every_person(
    format_: ModuleType, local_part: str, login_name: str, display_name: str
) -> None:
    address = EmailAddress.parse(f"{local_part}@example.com")
    expected = format_.render(CONFIG.for_person(login_name, display_name), address)
    assert format_.template(CONFIG).fill(address, login_name, display_name) == expected


def test_no_template_holds_a_slot_of_another_person() -> None:
    for format_ in (autoconfig, autodiscover, mobileconfig):
        template = format_.template(CONFIG)
        template.fill(EmailAddress.parse("alice@example.com"), "alice", "Alice")
        bob = template.fill(EmailAddress.parse("bob@example.com"), "bob", "Bob").decode()
        assert "alice" not in bob.lower()
        assert not FORBIDDEN.search(bob.replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("slot", template.SLOTS)
def test_neither_an_address_nor_a_row_holds_a_slot(slot: str) -> None:
    assert FORBIDDEN.search(slot)
    for text in (f"{slot}@example.com", f"a{slot}b@example.com"):
        with pytest.raises(AddressError):
            EmailAddress.parse(text)
    for kind in (kinds.HOST, kinds.SERVICE_URL, kinds.user_name(64, empty="")):
        with pytest.raises(kinds.BadValueError):
            kind.read(f"https://{slot}.example.com/" if kind is kinds.SERVICE_URL else f"x{slot}")
