"""Paths and arguments as clients write them: they lead to the same documents."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.errors import BadRequestError
from automx.views.http import own_url
from automx.views.paths import normal
from tests.conftest import Execute
from tests.documents import golden

AUTOCONFIG = "/mail/config-v1.1.xml"
WELL_KNOWN = "/.well-known/autoconfig/mail/config-v1.1.xml"
NINE = "/v1.1/mail/config-v1.1.xml"  # a client for Android
AUTODISCOVER = "/autodiscover/autodiscover.xml"
JSON = "/autodiscover/autodiscover.json"
HOST = {"Host": "autoconfig.example.com"}

pytestmark = pytest.mark.usefixtures("example")


def get(client: FlaskClient, path: str, **arguments: Any) -> TestResponse:
    """Ask for a path as it is: in a URL, the client would take "//mail" for a host name."""
    return client.get("/", environ_overrides={"PATH_INFO": path}, **arguments)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        (AUTOCONFIG, AUTOCONFIG),
        ("//mail//config-v1.1.xml//", AUTOCONFIG),
        (f"{WELL_KNOWN}/", WELL_KNOWN),
        ("/Mail/Config-v1.1.xml/", "/Mail/Config-v1.1.xml"),
        ("//AutoDiscover//AutoDiscover.XML/", AUTODISCOVER),
        ("//Autodiscover/Autodiscover.json", JSON),
        ("/email.mobileconfig/", "/email.mobileconfig"),
        ("/mobileconfig/", "/mobileconfig/"),
        ("/x/Y//z/", "/x/Y/z/"),
        # An address keeps its case and its slashes.
        (f"//{JSON.upper()}//V1.0//Al//Ice@EXAMPLE.com/", f"{JSON}/v1.0/Al//Ice@EXAMPLE.com"),
        # A path holds the bytes of UTF-8: those of "Ä" are not letters in upper case.
        (f"{JSON}/v1.0/\xc3\x84@x", f"{JSON}/v1.0/\xc3\x84@x"),
        ("/AUTODISCOVER/\xc3\x84", "/autodiscover/\xc3\x84"),
    ],
)
def test_a_path_is_put_into_the_form_of_the_routes(written: str, path: str) -> None:
    assert normal(written) == path


@pytest.mark.parametrize("path", [AUTOCONFIG, WELL_KNOWN, NINE])
@pytest.mark.parametrize("form", ["{}", "{}/", "/{}", "/{}//"])
def test_autoconfig_is_found_however_its_path_is_written(
    client: FlaskClient, path: str, form: str
) -> None:
    for query, headers, document in (
        ("emailaddress=alice@example.com", {}, "example-alice.autoconfig.xml"),
        ("", HOST, "example.autoconfig.xml"),
    ):
        answer = get(client, form.format(path), query_string=query, headers=headers)
        assert answer.status_code == 200
        assert answer.text == golden(document)


@pytest.mark.parametrize(
    "path", ["/email.mobileconfig", "/apple.mobileconfig", "//email.mobileconfig/", "/mobileconfig"]
)
@pytest.mark.parametrize("name", ["email", "emailaddress"])
def test_links_for_other_servers_give_the_profile(
    client: FlaskClient, path: str, name: str
) -> None:
    arguments = {name: "alice@example.com", "name": "Alice Example"}
    answer = get(client, path, query_string=arguments)
    assert answer.status_code == 200
    assert answer.text == golden("example-alice.mobileconfig")


@pytest.mark.parametrize("path", ["/email.mobileconfig", "/apple.mobileconfig/"])
@pytest.mark.parametrize("query", ["", "?email=", "?emailaddress=%20"])
def test_a_printed_link_without_an_address_leads_to_the_page(
    make_app: Callable[..., Flask], path: str, query: str
) -> None:
    answer = make_app().test_client().get(path + query)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    assert answer.headers["Cache-Control"] == "no-store"
    headers = {"X-Forwarded-Prefix": "/automx"}
    answer = make_app(proxy_count=1).test_client().get(path + query, headers=headers)
    assert answer.headers["Location"] == "/automx/"


# Addresses in URLs.


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("ben+b@example.com", "ben+b@example.com"),
        ("ben%20b@example.com", "ben+b@example.com"),
        ("ben+a++b+@example.com", "ben+a++b+@example.com"),
        ("ben%2Bb@example.com", "ben+b@example.com"),
        ("%20ben@example.com+", "ben@example.com"),
    ],
)
def test_a_blank_in_a_local_part_is_a_plus_that_was_not_escaped(
    client: FlaskClient, execute: Execute, sent: str, meant: str
) -> None:
    execute(
        "INSERT INTO davserver VALUES"
        " (4, 'https://%EMAILLOCALPART%.example.com/', 0, 'activesync', 1, 0, '');"
        "INSERT INTO davserver_domain VALUES (4, 1)"
    )
    document = client.get(f"{AUTOCONFIG}?emailaddress={sent}").text
    assert f"<url>https://dav.example.com/cal/{meant}</url>" in document
    assert client.get(f"{AUTODISCOVER}?emailaddress={sent}").status_code == 200
    address = f"<string>{meant}</string>"
    assert address in client.get(f"/mobileconfig?emailaddress={sent}").text
    assert address in client.get(f"/email.mobileconfig?email={sent}").text
    form = {"data": f"emailaddress={sent}", "content_type": "application/x-www-form-urlencoded"}
    assert address in client.post("/mobileconfig", **form).text
    assert f"?emailaddress={meant}".replace("+", "%2B") in (
        client.get(f"/mobileconfig.svg?emailaddress={sent}").text
    )
    answer = client.get(f"{JSON}?Email={sent}&Protocol=ActiveSync")
    assert answer.json == {
        "Protocol": "ActiveSync",
        "Url": f"https://{meant.partition('@')[0]}.example.com/",
    }


def test_an_address_in_the_path_keeps_its_local_part(client: FlaskClient, execute: Execute) -> None:
    execute(
        "INSERT INTO davserver VALUES"
        " (4, 'https://sync.example.com/%EMAILADDRESS%', 0, 'activesync', 1, 0, '');"
        "INSERT INTO davserver_domain VALUES (4, 1)"
    )
    for sent, meant in (
        ("J%C3%9CRGEN@EXAMPLE.com", "J%C3%9CRGEN@example.com"),
        ("Ben+B@example.com/", "Ben+B@example.com"),
        ("a%2F%2Fb@example.com", "a%2F%2Fb@example.com"),
    ):
        answer = client.get(f"/Autodiscover/AutoDiscover.json/V1.0/{sent}?Protocol=ActiveSync")
        assert answer.json == {
            "Protocol": "ActiveSync",
            "Url": f"https://sync.example.com/{meant}",
        }


@pytest.mark.parametrize("sent", ["a", "a&b@example.com", "a@b@example.com", "a@b%20c", "%0D@x.y"])
def test_where_the_address_cannot_be_read_the_host_decides_if_it_is_known(
    client: FlaskClient, sent: str
) -> None:
    for path in (AUTOCONFIG, WELL_KNOWN, NINE):
        answer = client.get(f"{path}?emailaddress={sent}", headers=HOST)
        assert answer.status_code == 200
        assert answer.text == golden("example.autoconfig.xml")
        assert client.get(f"{path}?emailaddress={sent}").status_code == 400
    answer = client.get(f"{AUTODISCOVER}?emailaddress={sent}", headers=HOST)
    assert answer.text == golden("example.autodiscover.xml")
    lead = client.get(f"{JSON}?Email={sent}&Protocol=AutodiscoverV1", headers=HOST)
    assert lead.json == {
        "Protocol": "AutodiscoverV1",
        "Url": f"https://autodiscover.example.com{AUTODISCOVER}",
    }


# Host names.


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("example.com", "https://example.com/x%20y/"),
        ("a_b.example.com:8080", "http://a_b.example.com:8080/x%20y/"),
        ("xn--mller-kva.de", "https://xn--mller-kva.de/x%20y/"),
        ("[::1]:4243", "http://[::1]:4243/x%20y/"),
        ("192.0.2.1", "http://192.0.2.1/x%20y/"),
    ],
)
def test_a_url_of_this_service_has_the_host_that_was_asked(
    make_app: Callable[..., Flask], host: str, url: str
) -> None:
    with make_app().test_request_context(headers={"Host": host}):
        assert own_url("/x y/") == url


@pytest.mark.parametrize("host", ["xn--a.com", "xn--.com", "exa mple", "-", "[::1", "x:y"])
def test_a_host_name_that_is_none_is_in_no_url(make_app: Callable[..., Flask], host: str) -> None:
    with (
        make_app().test_request_context(headers={"Host": host}),
        pytest.raises(BadRequestError, match=r"The host name is not valid\."),
    ):
        own_url("/")
