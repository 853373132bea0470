"""Redirects to calendars and address books (RFC 6764), and the logo."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from automx.address import shared_url
from automx.database import Session, create_engine
from automx.seed import populate
from tests.conftest import Execute
from tests.examples import DOCUMENT, LOGO

HOST = {"Host": "example.com"}


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PROPFIND", "OPTIONS"])
def test_both_services_redirect_to_what_is_the_same_for_everybody(
    client: FlaskClient, method: str
) -> None:
    caldav = client.open("/.well-known/caldav", method=method, headers=HOST)
    assert (caldav.status_code, caldav.headers["Location"]) == (
        301,
        "https://dav.example.com/cal/",
    )
    carddav = client.open("/.well-known/carddav", method=method, headers=HOST)
    assert (carddav.status_code, carddav.headers["Location"]) == (
        301,
        "https://dav.example.com:8443/card",
    )


@pytest.mark.usefixtures("example")
def test_a_domain_without_the_service_and_an_unknown_one_are_404(
    client: FlaskClient, execute: Execute
) -> None:
    execute("DELETE FROM davserver_domain")
    assert client.get("/.well-known/caldav", headers=HOST).status_code == 404
    other = client.get("/.well-known/caldav", headers={"Host": "other.example"})
    assert other.status_code == 404


@pytest.mark.usefixtures("example")
def test_no_redirect_leads_to_itself(client: FlaskClient, execute: Execute) -> None:
    execute(
        "UPDATE davserver SET url = 'https://example.com/.well-known/caldav/', port = 0"
        " WHERE type = 'caldav'"
    )
    for path in ("/.well-known/caldav", "/.well-known/caldav/"):
        assert client.get(path, headers=HOST).status_code == 404
    execute(
        "INSERT INTO davserver VALUES (9, 'https://dav.example.com/.well-known/caldav', 0,"
        " 'caldav', 1, 0, NULL); INSERT INTO davserver_domain VALUES (9, 1)"
    )
    answer = client.get("/.well-known/caldav", headers=HOST)
    assert answer.headers["Location"] == "https://dav.example.com/.well-known/caldav"


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("https://dav.example.com/cal", "https://dav.example.com/cal"),
        ("https://dav.example.com/%EMAILADDRESS%/cal", "https://dav.example.com/"),
        ("https://dav.example.com/u/%EMAILLOCALPART%", "https://dav.example.com/u/"),
        ("https://dav.example.com/u-%EMAILLOCALPART%/", "https://dav.example.com/"),
        ("https://dav.%EMAILDOMAIN%/u/%EMAILADDRESS%/", "https://dav.example.com/u/"),
        ("https://%EMAILLOCALPART%.example.com/", None),
    ],
)
def test_a_url_is_shared_up_to_where_people_differ(url: str, shared: str | None) -> None:
    assert shared_url(url, "example.com") == shared


def test_the_logo_is_that_of_the_hosts_provider(client: FlaskClient, database: Path) -> None:
    assert client.get("/logo", headers=HOST).status_code == 404
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session:
        populate(session, DOCUMENT)
        session.commit()
    engine.dispose()
    answer = client.get("/logo", headers={"Host": "ua-auto-config.example.com"})
    assert (answer.status_code, answer.data) == (200, LOGO)
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
