"""A document that is filled in for a person equals the one that is rendered for that person."""

import pytest

from automx.address import EmailAddress
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.formats import autodiscover, mobileconfig

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


@pytest.mark.parametrize("local_part", ADDRESSES)
def test_an_autodiscover_answer(local_part: str) -> None:
    address = EmailAddress.parse(f"{local_part}@example.com")
    expected = autodiscover.render(CONFIG, address)
    assert autodiscover.Template(CONFIG).fill(address) == expected


@pytest.mark.parametrize("name", ["", "Alice Example", "</string> & \ue000", "%EMAILADDRESS%", "Ä"])
@pytest.mark.parametrize("local_part", ADDRESSES)
def test_a_profile(local_part: str, name: str) -> None:
    address = EmailAddress.parse(f"{local_part}@example.com")
    expected = mobileconfig.render(CONFIG, address, name=name)
    assert mobileconfig.Template(CONFIG).fill(address, name) == expected
