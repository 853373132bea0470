"""Autodiscover in JSON, and for clients that synchronize by ActiveSync (MobileSync)."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.database import Session, create_engine
from automx.seed import populate
from tests.conftest import Execute
from tests.documents import MOBILESYNC_SCHEMA, autodiscover_request, golden
from tests.examples import DOCUMENT

URL = "/autodiscover/autodiscover.json"
XML_URL = "https://autodiscover.example.com/autodiscover/autodiscover.xml"
SYNC_URL = "https://sync.example.com/Microsoft-Server-ActiveSync"
MOBILESYNC_REQUEST = (
    "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/requestschema/2006"
)
OUTLOOK_REQUEST = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"


@pytest.fixture(autouse=True)
def details(database: Path) -> None:
    """Seed the document that has an ActiveSync server."""
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session:
        populate(session, DOCUMENT)
        session.commit()
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        f"{URL}?Email=alice%40example.com&Protocol=Autodiscoverv1&RedirectCount=1",
        f"{URL}?email=alice%40EXAMPLE.com&protocol=AUTODISCOVERV1",
        f"{URL}/v1.0/alice@example.com?Protocol=Autodiscoverv1",
        f"{URL}/v1.0/alice%40example.com?Protocol=AutodiscoverV1&x=y&x=z",
        "/Autodiscover/AutoDiscover.JSON/V1.0/Alice@Example.com?Protocol=AutodiscoverV1",
    ],
)
def test_the_json_leads_to_the_xml(client: FlaskClient, url: str) -> None:
    answer = client.get(url, headers={"Host": "autodiscover.example.com"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.json == {"Protocol": "AutodiscoverV1", "Url": XML_URL}


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("example.com", "example.com"),
        ("automx.example.net", "automx.example.net"),
        ("evil.example", "autodiscover.example.com"),
        ("autodiscover.evil.example", "autodiscover.example.com"),
        ("xautodiscover.hoster.example", "autodiscover.example.com"),
        # SRV records of domains without names of their own lead to those of their hoster.
        ("autodiscover.hoster.example", "autodiscover.hoster.example"),
        ("AutoDiscover.HOSTER.example.:443", "autodiscover.hoster.example"),
        ("autodiscover.sub.wild.example", "autodiscover.sub.wild.example"),
        ("hoster.example", "autodiscover.example.com"),
        ("autodiscover.example.com:8443", "autodiscover.example.com"),
    ],
)
def test_the_url_never_comes_from_a_host_that_nobody_knows(
    make_app: Callable[..., Flask], execute: Execute, host: str, told: str
) -> None:
    execute(
        "INSERT INTO domain VALUES (11, 'Hoster.example', 1, NULL);"
        "INSERT INTO domain VALUES (12, '*.wild.example', 1, NULL), (13, '*', 1, NULL)"
    )
    client = make_app(web_endpoint="https://automx.example.net/new_email").test_client()
    url = f"{URL}?Email=alice@example.com&Protocol=AutodiscoverV1"
    answer = client.get(url, headers={"Host": host})
    assert answer.json == {
        "Protocol": "AutodiscoverV1",
        "Url": f"https://{told}/autodiscover/autodiscover.xml",
    }


def test_the_url_names_the_public_host_if_the_client_asked_there(
    make_app: Callable[..., Flask],
) -> None:
    settings = {"web_endpoint": "https://mail.example.net", "public_host": "automx.example.net"}
    client = make_app(**settings).test_client()
    told = [
        client.get(
            f"{URL}?Email=alice@example.com&Protocol=AutodiscoverV1", headers={"Host": host}
        ).json
        for host in ("automx.example.net", "mail.example.net")
    ]
    assert told == [
        {
            "Protocol": "AutodiscoverV1",
            "Url": f"https://{host}/autodiscover/autodiscover.xml",
        }
        for host in ("automx.example.net", "autodiscover.example.com")
    ]


def test_activesync_is_told_where_it_is(client: FlaskClient) -> None:
    answer = client.get(f"{URL}?Email=alice@example.com&Protocol=ActiveSync")
    assert answer.json == {"Protocol": "ActiveSync", "Url": SYNC_URL}


@pytest.mark.parametrize("protocol", ["Protocol=Ews", "Protocol=", "", "Protocol=Rest"])
def test_another_protocol_is_invalid(client: FlaskClient, protocol: str) -> None:
    answer = client.get(f"{URL}?Email=alice@example.com&{protocol}")
    assert answer.status_code == 400
    assert answer.json == {
        "ErrorCode": "InvalidProtocol",
        "ErrorMessage": "This protocol is not served here.",
    }


@pytest.mark.parametrize(
    ("email", "status", "code"),
    [
        ("alice@other.example", 404, "UserNotFound"),
        ("alice", 400, "InvalidRequest"),
        ("a@b@c", 400, "InvalidRequest"),
    ],
)
def test_errors_are_json_as_well(client: FlaskClient, email: str, status: int, code: str) -> None:
    answer = client.get(f"{URL}?Email={email}&Protocol=AutodiscoverV1")
    assert answer.status_code == status
    assert answer.json is not None
    assert answer.json["ErrorCode"] == code


@pytest.mark.parametrize("namespace", [OUTLOOK_REQUEST, MOBILESYNC_REQUEST])
def test_mobilesync_gets_its_server(client: FlaskClient, namespace: str) -> None:
    request = autodiscover_request("Alice@example.com", MOBILESYNC_SCHEMA)
    request = request.replace(OUTLOOK_REQUEST, namespace)
    answer = client.post("/autodiscover/autodiscover.xml", data=request, content_type="text/xml")
    assert answer.status_code == 200
    assert answer.text == golden("mobilesync.autodiscover.xml")


def test_the_outlook_schema_never_tells_of_mobilesync(client: FlaskClient) -> None:
    answer = client.post(
        "/autodiscover/autodiscover.xml",
        data=autodiscover_request("alice@example.com"),
        content_type="text/xml",
    )
    assert answer.status_code == 200
    assert "sync" not in answer.text.lower()
