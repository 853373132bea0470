"""Targets: requests of strangers, from the body of Autodiscover to whole requests."""

import json
import logging
import plistlib
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from automx import config, create_app
from automx.accounts import tokens
from automx.errors import BadRequestError
from automx.formats import autodiscover
from automx.rsgi import environment
from automx.views import failure
from automx.views.http import MAX_BODY
from automx.views.session import current_session
from tests.fuzz.promises import BrokenPromiseError, keep, one_line, refusing, target
from tests.rsgi import Headers, Request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


@target
def autodiscover_request(data: bytes) -> None:
    with refusing(BadRequestError):
        request = autodiscover.parse_request(data[:MAX_BODY])
        keep(request.address.strip() == request.address != "", "there is an address")


class _Bugs(logging.Handler):
    """What the application logs as a bug; ``found`` is the newest."""

    found: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found = record.exc_info[1]


@cache
def _application() -> "tuple[WSGIApplication, _Bugs]":
    """Return the application with the sample in a database in memory, and its bugs."""
    settings = {"db_uri": "sqlite:///:memory:", "loglevel": "CRITICAL", "proxy_count": 1}
    settings |= {"permit_cleartext_passwords": True, "initdb_token": "token"}
    settings |= {"account_rate_limit": "", "account_backend": "none"}
    app = create_app(config.make(**settings))
    bugs = _Bugs()
    failure.log.addHandler(bugs)
    seeded = app.test_client().get("/initdb/", headers={"Authorization": "Bearer token"})
    keep(seeded.status_code == 200, "the sample can be seeded")
    with app.test_request_context():
        session = current_session()
        now = datetime.now(UTC)
        tokens.add(session, "summer", "example.com", now=now, token="token", maxuse=50)
        session.commit()
    return app.wsgi_app, bugs


def _request(head: str) -> Request:
    """Return a request as granian gives it, from the text of a request that may be broken."""
    first, *lines = head.split("\n")
    words = first.split(" ")
    target, _, query = (words[1] if len(words) > 1 else "/").partition("?")
    pairs = (line.partition(":") for line in lines)
    headers = [(name.lower(), value.strip()) for name, _, value in pairs if name]
    return Request(
        target if target.startswith("/") else f"/{target}",
        query,
        Headers([(name, value if value.isascii() else None) for name, value in headers]),
        words[0] or "GET",
        words[2] if len(words) > 2 and words[2] else None,
    )


def _environ(data: bytes) -> "WSGIEnvironment":
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    environ = environment(_request(head.decode("utf-8", "replace")))
    environ["CONTENT_LENGTH"] = str(len(body[: MAX_BODY - 1]))
    environ["wsgi.input"] = BytesIO(body[: MAX_BODY - 1])
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


@target
def http_request(data: bytes) -> None:
    """Answer a request: "METHOD PATH?QUERY AUTHORITY", headers, an empty line, the body."""
    application, bugs = _application()
    environ = _environ(data)
    if environ["PATH_INFO"].strip("/").lower() == "initdb":
        environ.pop("HTTP_AUTHORIZATION", None)  # the sample shall stay
    answered: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:
        answered.update(status=status, headers=headers)

    bugs.found = None
    chunks = application(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        if close := getattr(chunks, "close", None):
            close()
    if bugs.found is not None:
        raise bugs.found
    for name, value in answered["headers"]:
        keep(f"{name}{value}".isprintable(), f"a header is one line: {name}: {value!r}")
        value.encode("latin-1")
    status = int(answered["status"][:3])
    headers = {name.lower(): value for name, value in answered["headers"]}
    keep(status < 500, f"a stranger causes no {status}")
    _check_body(environ["REQUEST_METHOD"], status, headers, body)


def _check_body(method: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """Check that a body is what its headers say."""
    if method == "HEAD" or status in {204, 304}:
        keep(not body, "no body")
        return
    keep(headers.get("content-length", str(len(body))) == str(len(body)), "the length is right")
    kind = headers.get("content-type", "").partition(";")[0]
    text = "" if kind.startswith("image/png") else body.decode()
    try:
        if kind in {"text/xml", "application/xml", "image/svg+xml"}:
            ElementTree.fromstring(body)
        elif kind == "application/json":
            json.loads(body)
        elif kind == "application/x-apple-aspen-config":
            plistlib.loads(body)
        elif kind == "text/plain" and status >= 400:
            one_line(text.removesuffix("\n"))
    except (ElementTree.ParseError, ValueError) as error:
        raise BrokenPromiseError(f"it is no {kind}: {body[:200]!r}") from error
