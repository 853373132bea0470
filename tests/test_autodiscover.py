"""Autodiscover: what Outlook, Delta Chat and others ask by POST and GET, and what they are told."""

import contextlib
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import Execute
from tests.documents import (
    MOBILESYNC_SCHEMA,
    OUTLOOK_SCHEMA,
    autodiscover_error,
    autodiscover_request,
    golden,
    timeless,
)

PATH = "/autodiscover/autodiscover.xml"
REQUEST = autodiscover_request("alice@example.com")
REQUEST_NS = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"
UNKNOWN = "No configuration is known for this domain."

pytestmark = pytest.mark.usefixtures("example")


def post(
    client: FlaskClient, body: str | bytes, content_type: str | None = "text/xml"
) -> TestResponse:
    return client.post(PATH, data=body, content_type=content_type)


def assert_error(answer: TestResponse, status: int, code: int, message: str) -> None:
    """Check that an answer is the error document and nothing else."""
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert timeless(answer.text) == autodiscover_error(code, message)


# POST.


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "/Autodiscover/Autodiscover.xml",
        "/AutoDiscover/AutoDiscover.xml",
        "/AUTODISCOVER/AUTODISCOVER.XML",
        "/autodiscover/Autodiscover.xml?x=1",
        "//autodiscover/autodiscover.xml",
        "//Autodiscover///Autodiscover.xml/",
    ],
)
def test_the_answer_is_as_expected_however_the_path_is_written(
    client: FlaskClient, path: str
) -> None:
    path_info, _, query = path.partition("?")
    answer = client.post(
        query_string=query,
        environ_overrides={"PATH_INFO": path_info},
        data=REQUEST,
        content_type="text/xml",
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text == golden("example-alice.autodiscover.xml")


def test_other_paths_keep_their_case(client: FlaskClient) -> None:
    assert client.get("/Mail/config-v1.1.xml").status_code == 404
    assert client.get("/HEALTHZ").status_code == 404


def test_each_column_reaches_the_answer(client: FlaskClient, execute: Execute) -> None:
    execute("""
        INSERT INTO provider VALUES (2, 'Ärzte & <Söhne>', 'Ä');
        INSERT INTO domain VALUES (2, 'MÜLLER.de', 2, NULL);
        INSERT INTO server VALUES (11, 30, 'imap.müller.de', 143, 'imap', 'plain', 'u&<1>', 'none');
        INSERT INTO server VALUES (12, 20, 'pop.%EMAILDOMAIN%', 995, 'pop', 'SSL', '%EMAILDOMAIN%/%EMAILLOCALPART%', 'OAuth2');
        INSERT INTO server VALUES (13, 10, 'smtp.example.net', 25, 'smtp', 'STARTTLS', 'x', 'client-IP-address none');
        INSERT INTO server VALUES (14, 5, 'smtp.example.net', 465, 'smtp', 'SSL', '', 'none plain');
        INSERT INTO davserver VALUES (11, 'http://dav.example.net/%EMAILLOCALPART%', 8080, 'caldav', 0, 1, '');
        INSERT INTO davserver VALUES (12, 'https://files.example.net/', 0, 'webdav', 1, 0, '');
        INSERT INTO server_domain SELECT id, 2 FROM server WHERE id > 10;
        INSERT INTO davserver_domain VALUES (11, 2), (12, 2);
    """)  # noqa: E501 - rows are easier to compare when each stands on one line
    answer = post(client, autodiscover_request("jürgen&amp;co@müller.de"))
    assert answer.text == golden("columns.autodiscover.xml")


@pytest.mark.parametrize(
    ("authentication", "spa", "auth_required"),
    [
        ("plain", "off", "on"),
        ("secure", "off", "on"),
        ("NTLM", "on", "on"),
        ("GSSAPI", "on", "on"),
        ("GSSAPI NTLM TLS-client-cert", "on", "on"),
        ("NTLM OAuth2", "on", "on"),
        ("GSSAPI plain", "off", "on"),
        ("NTLM secure", "off", "on"),
        ("OAuth2", "off", "on"),
        ("TLS-client-cert", "off", "on"),
        ("none", "off", "off"),
    ],
)
def test_spa_is_on_where_there_is_ntlm_or_kerberos_and_no_password(
    client: FlaskClient, execute: Execute, authentication: str, spa: str, auth_required: str
) -> None:
    execute(f"UPDATE server SET authentication = '{authentication}'")
    answer = post(client, REQUEST).text
    assert set(re.findall("<SPA>(.*?)</SPA>", answer)) == {spa}
    assert set(re.findall("<AuthRequired>(.*?)</AuthRequired>", answer)) == {auth_required}


def test_outgoing_mail_without_login_has_no_login_name(
    client: FlaskClient, execute: Execute
) -> None:
    execute("UPDATE server SET user_name = '', authentication = 'none' WHERE type = 'smtp'")
    protocols = re.findall("<Protocol>.*?</Protocol>", post(client, REQUEST).text, re.DOTALL)
    (smtp,) = [protocol for protocol in protocols if "<Type>SMTP</Type>" in protocol]
    assert "<AuthRequired>off</AuthRequired>" in smtp
    assert "LoginName" not in smtp


@pytest.mark.parametrize(
    "content_type",
    [
        "text/xml; charset=utf-8",
        "application/xml",
        "application/x-www-form-urlencoded",  # FairEmail
        "multipart/form-data; boundary=x",
        "text/xml; charset=utf-16",
        "nonsense",
        "",
        None,
    ],
)
def test_the_body_decides_and_not_the_content_type(
    client: FlaskClient, content_type: str | None
) -> None:
    answer = post(client, REQUEST, content_type)
    assert answer.status_code == 200
    assert answer.text == golden("example-alice.autodiscover.xml")
    assert_error(post(client, "x=1", content_type), 400, 600, "The request is not an XML document.")


@pytest.mark.parametrize(
    "body",
    [
        autodiscover_request("  alice@EXAMPLE.com\n"),
        autodiscover_request("alice@example.com", ""),
        autodiscover_request("alice@example.com", f" {OUTLOOK_SCHEMA}\r\n"),
        REQUEST.replace(
            "<EMailAddress>",
            "<LegacyDN>/o=Org/ou=Exchange/cn=Recipients/cn=alice</LegacyDN><EMailAddress>",
        ),
        REQUEST.replace(
            "</EMailAddress>",
            '</EMailAddress><Future a="b"><x xmlns="urn:x">1</x></Future><!-- comment -->',
        ),
        REQUEST.replace("<Request>", "<Other/><?pi x?><Request>"),
        REQUEST.replace("xmlns=", 'xmlns:xsi="urn:y" xsi:z="1" xmlns='),
        REQUEST.replace("<Autodiscover xmlns=", "<q:Autodiscover xmlns:q=")
        .replace("</", "</q:")
        .replace("<EMail", "<q:EMail")
        .replace("<Acc", "<q:Acc")
        .replace("<Req", "<q:Req"),
        REQUEST.replace("alice@", "<![CDATA[alice]]>&#64;"),
        REQUEST.encode("utf-8-sig"),
        REQUEST.replace("utf-8", "utf-16").encode("utf-16"),
        REQUEST.replace("utf-8", "iso-8859-1").encode("iso-8859-1"),
        REQUEST.replace('<?xml version="1.0" encoding="utf-8"?>\n', ""),
    ],
    ids=[
        "spaces",
        "no-schema",
        "schema-with-spaces",
        "legacy-dn-as-well",
        "unknown-elements",
        "unknown-elements-outside",
        "unknown-attributes",
        "prefix",
        "cdata-and-reference",
        "byte-order-mark",
        "utf-16",
        "latin-1",
        "no-declaration",
    ],
)
def test_all_that_is_a_request_is_answered(client: FlaskClient, body: str | bytes) -> None:
    answer = post(client, body)
    assert answer.status_code == 200
    assert answer.text == golden("example-alice.autodiscover.xml")


def test_a_declared_encoding_is_obeyed(client: FlaskClient) -> None:
    body = autodiscover_request("jürgen@example.com").replace("utf-8", "iso-8859-1")
    answer = post(client, body.encode("iso-8859-1"))
    assert "<LoginName>jürgen@example.com</LoginName>" in answer.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "The request is not an XML document."),
        ("   ", "The request is not an XML document."),
        ("hello", "The request is not an XML document."),
        ('{"EMailAddress": "alice@example.com"}', "The request is not an XML document."),
        (REQUEST[:-20], "The request is not an XML document."),
        (REQUEST + REQUEST, "The request is not an XML document."),
        (b"\x00" * 100, "The request is not an XML document."),
        (b"\xff\xfe\xff", "The request is not an XML document."),
        (REQUEST.replace("alice", "\xe4").encode("latin-1"), "The request is not an XML document."),
        (REQUEST.replace("utf-8", "no-such"), "The request is not an XML document."),
        (REQUEST.replace("alice", "&undefined;"), "The request is not an XML document."),
        ("<a>" * 5000 + "</a>" * 5000, "The request is nested too deeply."),
        (
            "<Autodiscover/>",
            f"The request is not an Autodiscover element of {REQUEST_NS}.",
        ),
        (
            REQUEST.replace("requestschema/2006", "requestschema/2007"),
            f"The request is not an Autodiscover element of {REQUEST_NS}.",
        ),
        (REQUEST.replace("Request>", "Req>"), "The element Request is missing."),
        (REQUEST.replace("EMailAddress>", "LegacyDN>"), "The element EMailAddress is missing."),
        (autodiscover_request(""), "The element EMailAddress is missing."),
        (autodiscover_request("<b>alice@example.com</b>"), "The element EMailAddress is missing."),
    ],
)
def test_what_is_no_request_is_error_600(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, body: str | bytes, message: str
) -> None:
    assert_error(post(client, body), 400, 600, message)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"POST {PATH} 400: {message}"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("alice", "A mail address has exactly one @."),
        ("alice@bob@example.com", "A mail address has exactly one @."),
        ("@example.com", "A mail address has a name before the @ and a domain after it."),
        ("ali ce@example.com", "The part before the @ has a character that is not allowed there."),
        ("&lt;b&gt;@example.com", "The part before the @ has a character that is not allowed"),
        ("alice@exa_mple..com", "The domain name is not valid."),
        ("alice@xn--zzzzzzzz99999.com", "The domain name is not valid."),
        ("a" * 10_000 + "@example.com", "The mail address is too long."),
    ],
)
def test_what_is_no_address_is_error_600_and_not_repeated(
    client: FlaskClient, address: str, message: str
) -> None:
    answer = post(client, autodiscover_request(address))
    assert answer.status_code == 400
    text = timeless(answer.text)
    expected = autodiscover_error(600, message)
    start, end = expected.split(message)
    assert text.startswith(start + message)
    assert text.endswith(end.removeprefix("."))
    assert "alice" not in text
    assert "b&gt;" not in text


@pytest.mark.parametrize("schema", ["urn:other", OUTLOOK_SCHEMA.upper(), OUTLOOK_SCHEMA[:-1]])
def test_another_schema_is_error_601(client: FlaskClient, schema: str) -> None:
    answer = post(client, autodiscover_request("alice@example.com", schema))
    assert_error(answer, 400, 601, "This response schema is not served here.")


def test_new_outlook_gets_the_mail_servers_where_there_is_no_activesync(
    client: FlaskClient, execute: Execute
) -> None:
    request = autodiscover_request("alice@example.com", MOBILESYNC_SCHEMA)
    answer = post(client, request)
    assert answer.status_code == 200
    assert answer.text == golden("example-alice.autodiscover.xml")
    execute("UPDATE davserver SET type = 'activesync', url = 'https://x.example.com/' WHERE id = 1")
    assert "<Type>MobileSync</Type>" in post(client, request).text


def test_a_client_of_activesync_is_told_that_there_is_none(client: FlaskClient) -> None:
    request = autodiscover_request("alice@example.com", MOBILESYNC_SCHEMA)
    answer = post(client, request.replace("outlook/requestschema", "mobilesync/requestschema"))
    assert_error(answer, 400, 601, "This response schema is not served here.")


def test_an_unknown_domain_is_error_500_with_status_404(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert_error(post(client, autodiscover_request("alice@example.org")), 404, 500, UNKNOWN)
    assert "example.org" in caplog.text  # the administrator wants to know which


def test_a_domain_that_cannot_be_served_is_error_603_with_status_500(
    client: FlaskClient, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    execute("DELETE FROM server_domain")
    message = "The settings of this domain are incomplete; its administrator has to look into it."
    assert_error(post(client, REQUEST), 500, 603, message)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "table domain, id 1: no usable mail server" in record.getMessage()


# Entities and other traps of XML.

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
TRAPS = {
    "a-billion-laughs": f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]>\n'
    + autodiscover_request("&l9;@example.com"),
    "quadratic-laughs": f'<!DOCTYPE x [<!ENTITY a "{"a" * 20_000}">]>\n'
    + autodiscover_request("&a;" * 2000),
    "external-entity": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>\n'
    + autodiscover_request("&a;@example.com"),
    "external-entity-by-http": '<!DOCTYPE x [<!ENTITY a SYSTEM "http://127.0.0.1:9/">]>\n'
    + autodiscover_request("&a;@example.com"),
    "parameter-entity": '<!DOCTYPE x [<!ENTITY % a SYSTEM "file:///etc/hostname">%a;]>\n' + REQUEST,
    "external-dtd": '<!DOCTYPE x SYSTEM "file:///etc/hostname">\n' + REQUEST,
    "unused-doctype": "<!DOCTYPE Autodiscover>\n" + REQUEST,
}


def without_declaration(document: str) -> str:
    """Return a document without its XML declaration, which must not stand behind a doctype."""
    return document.replace('<?xml version="1.0" encoding="utf-8"?>\n', "")


@pytest.mark.parametrize("trap", TRAPS)
def test_documents_with_entities_or_document_types_are_error_600(
    client: FlaskClient, trap: str
) -> None:
    answer = post(client, without_declaration(TRAPS[trap]))
    assert answer.status_code == 400
    assert timeless(answer.text) in {
        autodiscover_error(600, "The request must not have a document type."),
        autodiscover_error(600, "The request is not an XML document."),
    }


def test_an_external_entity_is_not_even_opened(client: FlaskClient, tmp_path: Path) -> None:
    pipe = tmp_path / "entity"  # whoever opens it to read waits for a writer
    os.mkfifo(pipe)
    body = without_declaration(TRAPS["external-entity"]).replace("/etc/hostname", str(pipe))
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(post, client, body)
        try:
            assert answer.result(5).status_code == 400
        finally:
            with contextlib.suppress(OSError):  # nobody reads, as it should be
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def test_xinclude_is_not_followed(client: FlaskClient) -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/hostname"/>'
    answer = post(client, autodiscover_request(f"{include}alice@example.com"))
    assert_error(answer, 400, 600, "The element EMailAddress is missing.")


def test_a_body_of_5_megabytes_is_an_error_document_with_status_413(client: FlaskClient) -> None:
    answer = post(client, autodiscover_request("a" * 5_000_000))
    assert_error(answer, 413, 600, "The request is too large.")


# GET.


def test_get_with_an_address_gives_the_settings_of_its_domain(client: FlaskClient) -> None:
    answer = client.get(PATH + "?emailaddress=Alice@EXAMPLE.com")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert answer.text == golden("example.autodiscover.xml")


@pytest.mark.parametrize("host", ["autodiscover.example.com", "example.com:443", "EXAMPLE.COM"])
@pytest.mark.parametrize("path", [PATH, "/Autodiscover/Autodiscover.XML"])
def test_get_without_an_address_gives_the_settings_of_the_host(
    client: FlaskClient, host: str, path: str
) -> None:
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 200
    assert answer.text == golden("example.autodiscover.xml")


def test_get_leaves_out_what_only_an_address_could_complete(
    client: FlaskClient, execute: Execute
) -> None:
    execute("UPDATE server SET name = '%EMAILLOCALPART%.example.com' WHERE id = 2")
    with_address = post(client, REQUEST).text
    assert "<Server>alice.example.com</Server>" in with_address
    without = client.get(PATH, headers={"Host": "example.com"}).text
    assert "<Type>POP3</Type>" not in without
    assert "%" not in without
    assert "LoginName" not in without


def test_get_may_be_kept_by_caches_and_asked_conditionally(make_app: Callable[..., Flask]) -> None:
    client = make_app(domain_cache_seconds=10).test_client()
    answer = client.get(PATH, headers={"Host": "example.com"})
    assert answer.headers["Cache-Control"] == "public, max-age=10"
    assert answer.headers["Vary"] == "Host"
    condition = {"Host": "example.com", "If-None-Match": answer.headers["ETag"]}
    again = client.get(PATH, headers=condition)
    assert (again.status_code, again.data) == (304, b"")
    head = client.head(PATH, headers={"Host": "example.com"})
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]


def test_get_for_an_unknown_domain_is_404_so_that_clients_search_on(client: FlaskClient) -> None:
    answer = client.get(PATH, headers={"Host": "example.org"})
    assert_error(answer, 404, 500, UNKNOWN)
    assert_error(client.get(PATH + "?emailaddress=a@example.org"), 404, 500, UNKNOWN)


def test_get_with_a_bad_address_is_error_600(client: FlaskClient) -> None:
    answer = client.get(PATH + "?emailaddress=alice")
    assert_error(answer, 400, 600, "A mail address has exactly one @.")


def test_a_password_that_comes_unasked_is_neither_an_error_nor_logged(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_app(loglevel="DEBUG").test_client()
    for body, status in ((REQUEST, 200), (autodiscover_request("a@example.org"), 404), ("", 400)):
        answer = client.post(
            PATH, data=body, content_type="text/xml", auth=("alice@example.com", "hunter2")
        )
        assert answer.status_code == status
        assert "WWW-Authenticate" not in answer.headers
    assert "hunter2" not in caplog.text
    assert "YWxpY2VAZXhhbXBsZS5jb206aHVudGVyMg" not in caplog.text  # both in Base64
    assert "alice" not in caplog.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(client: FlaskClient, method: str) -> None:
    answer = client.open(PATH, method=method, data=REQUEST, content_type="text/xml")
    assert answer.status_code == 405
    assert answer.text == "This method is not allowed here.\n"


def test_other_names_below_autodiscover_are_not_found(client: FlaskClient) -> None:
    for path in ("/autodiscover", "/autodiscover/", "/Autodiscover/other.xml"):
        answer = client.get(path, headers={"Host": "example.com"})
        assert answer.status_code == 404
        assert answer.text == "There is nothing at this address.\n"
