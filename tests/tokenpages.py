"""What people and the app Delta Chat read at the URL of a token."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from automx.accounts import tokens
from automx.database import open_session
from automx.formats import qr
from tests.conftest import Execute
from tests.documents import golden, unversioned
from tests.tokens import OFF

SECRET = "2hxg7kpw4m9tdzr3cfq8vyna"
ENDPOINT = "https://mail.example.com/x/y"

INCOMPLETE = "This link is incomplete: its token is missing. Please scan the QR code again."
UNKNOWN = "This QR code is not known here. Please ask for a new one."
DAMAGED = "This QR code is damaged. Please scan it again, or ask for a new one."
WRONG_ADDRESS = "This QR code leads to a wrong address. Please ask for a new one."
FOR_THE_APP = "This address is for the app Delta Chat. Please scan the QR code with it."
TOO_LARGE = "This request is too large. Please scan the QR code with the app Delta Chat."
OUT_OF_ORDER = "This server cannot make mailboxes; its administrator has to look into it."
USED_UP = "This QR code has been used as often as it may be. Please ask for a new one."
UNAVAILABLE = "The service is not available at the moment. Please try again later."

PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}

FAILURES = {
    "taken": (
        """echo '{"status": "exists"}'""",
        409, "No free address was found. Please try again.",
    ),
    "refused": (
        """echo '{"status": "refused", "reason": "secret reason"}'""",
        503, "The mail server cannot do this at the moment. Please try again later.",
    ),
    "failed": (
        "echo secret output >&2; exit 1",
        503, "The mail server did not answer as it should. Please try again later.",
    ),
    "silent": (
        "sleep 60",
        504, "The mail server did not answer in time. Please try again later.",
    ),
    "not there": (
        "rm \"$0\"; exit 9",
        504, "The mail server cannot be reached at the moment. Please try again later.",
    ),
}  # fmt: skip


AddToken = Callable[..., None]


@pytest.fixture
def add_token(database: Path) -> AddToken:
    """Add a token "summer" to the test's database; keyword arguments are its fields."""

    def add(secret: str = SECRET, name: str = "summer", **values: Any) -> None:
        with open_session(f"sqlite:///{database}") as session:
            now = datetime.now(UTC)
            tokens.add(session, name, "example.com", now=now, token=secret, **values)

    return add


def revoke(execute: Execute) -> None:
    execute("UPDATE token SET is_revoked = 1")


def use_up(execute: Execute) -> None:
    execute("UPDATE token SET usecount = maxuse")


def let_end(execute: Execute) -> None:
    execute("UPDATE token SET valid_until = '2026-01-01 00:00:00'")


def switch_off(execute: Execute) -> None:
    execute("INSERT INTO disabled_domain VALUES (1, '2026-01-01 00:00:00')")


SPENT = {
    "domain off": (switch_off, OFF),
    "revoked": (revoke, "This QR code has been withdrawn. Please ask for a new one."),
    "exhausted": (use_up, USED_UP),
    "expired": (let_end, "This QR code is no longer valid. Please ask for a new one."),
}


def rows(database: Path, query: str) -> list[Any]:
    """Return what a query finds."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def style_of(page: str) -> str:
    """Return the address of a page's style sheet, a query."""
    found = re.search(r'<link rel="stylesheet" href="(\?style&amp;[^"]+)">', page)
    assert found
    return unescape(found[1])


def steady(page: str) -> str:
    """Return a page without what changes with its style sheet, and with the URL of the page."""
    return re.sub(r'"\?(?:[^"]*&amp;)?lang=', '"?QUERY&amp;lang=', unversioned(page))


def assert_page(answer: TestResponse, status: int, document: str) -> None:
    """Check that an answer is this page, and keeps its URL, with the token in it, to itself."""
    assert steady(answer.text) == document
    assert answer.status_code == status
    for name, value in PAGE_HEADERS.items():
        assert answer.headers[name] == value


PROVIDER = "Example Inc."


def provider_of(name: str) -> str:
    """Return the provider on the page of a token that is spent in a way of SPENT."""
    return "" if name == "domain off" else PROVIDER


def error_page(headline: str, reason: str, provider: str = "") -> str:
    """Return the page that tells an error, with the provider if the token is known."""
    text = golden("token-error.html")
    if provider:
        header = f'<header class="top">\n<p class="provider">{provider}</p>\n</header>'
        text = text.replace("<body>", f"<body>\n{header}")
    return text.replace("{headline}", headline).replace("{reason}", reason)


def token_page(link: str) -> str:
    """Return the page of a token whose code holds this text."""
    code = qr.svg(link, title="QR code")
    href = link.replace("DCACCOUNT:", "dcaccount:").replace("&", "&amp;")
    return golden("token.html").replace("{code}\n", code).replace("{link}", href)
