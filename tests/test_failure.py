"""An exception becomes one record and one log line, and each protocol shows that record."""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from flask import Flask, Response
from sqlalchemy import exc
from werkzeug import exceptions

from automx import errors
from automx.formats import autodiscover as documents
from automx.views import autodiscover, autodiscoverjson, dcaccount, failure, site, tokenpage
from automx.views.autodiscoverjson import InvalidProtocolError
from tests.documents import autodiscover_error, golden, timeless, unversioned

BUG = "The server cannot answer this request."
UNAVAILABLE = "The service is not available at the moment. Please try again later."
INCOMPLETE = "The settings of this domain are incomplete; its administrator has to look into it."
TOO_MANY = "Too many accounts were asked for. Please wait a while and try again."


class Case(NamedTuple):
    """An exception, the record that is made of it, and what the log says of it."""

    error: Exception
    status: int
    text: str
    headers: dict[str, str]
    level: int
    logged: str


def from_driver(text: str) -> sqlite3.OperationalError:
    return sqlite3.OperationalError(text)


CASES = {
    "bad input": Case(
        errors.AddressError("A mail address has exactly one @."), 400,
        "A mail address has exactly one @.", {},
        logging.WARNING, "GET /x 400: A mail address has exactly one @.",
    ),
    "a refusal": Case(
        errors.ForbiddenError(), 403, "This is not allowed.", {},
        logging.WARNING, "GET /x 403: This is not allowed.",
    ),
    "an unknown domain": Case(
        errors.UnknownDomainError(cause="domain a.example"), 404,
        "No configuration is known for this domain.", {},
        logging.WARNING,
        "GET /x 404: No configuration is known for this domain. (domain a.example)",
    ),
    "a conflict": Case(
        errors.TakenError(), 409, "This address is taken already.", {},
        logging.WARNING, "GET /x 409: This address is taken already.",
    ),
    "too many requests": Case(
        errors.TooManyRequestsError(retry_after=7), 429, TOO_MANY, {"Retry-After": "7"},
        logging.WARNING, f"GET /x 429: {TOO_MANY}",
    ),
    "unusable rows": Case(
        errors.BadRecordError(cause="table server, id 1"), 500, INCOMPLETE, {},
        logging.ERROR, f"GET /x 500: {INCOMPLETE} (table server, id 1)",
    ),
    "a neighbour": Case(
        errors.UnavailableError(cause="ldap.example.com"), 503, UNAVAILABLE, {"Retry-After": "10"},
        logging.ERROR, f"GET /x 503: {UNAVAILABLE} (ldap.example.com)",
    ),
    "a backend": Case(
        errors.SilentError(), 504,
        "The mail server did not answer in time. Please try again later.", {"Retry-After": "60"},
        logging.ERROR,
        "GET /x 504: The mail server did not answer in time. Please try again later.",
    ),
    "a path": Case(
        exceptions.NotFound(), 404, "There is nothing at this address.", {},
        logging.WARNING, "GET /x 404: There is nothing at this address.",
    ),
    "a method": Case(
        exceptions.MethodNotAllowed(["GET", "HEAD"]), 405, "This method is not allowed here.",
        {"Allow": "GET, HEAD"}, logging.WARNING, "GET /x 405: This method is not allowed here.",
    ),
    "a large body": Case(
        exceptions.RequestEntityTooLarge(), 413, "The request is too large.", {},
        logging.WARNING, "GET /x 413: The request is too large.",
    ),
    "a host": Case(
        exceptions.BadHost(), 400, "The request cannot be understood.", {},
        logging.WARNING, "GET /x 400: The request cannot be understood. (Host 'localhost')",
    ),
    "another error of HTTP": Case(
        exceptions.ImATeapot("secret"), 418, "I'm a teapot.", {},
        logging.WARNING, "GET /x 418: I'm a teapot.",
    ),
    "an error in an error": Case(
        exceptions.InternalServerError(), 500, "Internal Server Error.", {},
        logging.ERROR, "GET /x 500: Internal Server Error.",
    ),
    "an outage of the database": Case(
        exc.OperationalError("SELECT secret", {}, from_driver("database is locked")), 503,
        UNAVAILABLE, {"Retry-After": "10"},
        logging.ERROR, f"GET /x 503: {UNAVAILABLE} (database: database is locked)",
    ),
    "a database without tables": Case(
        exc.OperationalError("SELECT secret", {}, from_driver("no such table: domain")), 503,
        UNAVAILABLE, {"Retry-After": "10"},
        logging.ERROR,
        f"GET /x 503: {UNAVAILABLE}"
        ' (database: no such table: domain; was "automx db upgrade" run?)',
    ),
    "no free connection": Case(
        exc.TimeoutError("QueuePool limit"), 503, UNAVAILABLE, {"Retry-After": "10"},
        logging.ERROR,
        f"GET /x 503: {UNAVAILABLE} (database: no free connection: QueuePool limit)",
    ),
    "a bug": Case(
        ZeroDivisionError("secret"), 500, BUG, {}, logging.CRITICAL, "GET /x: a bug in automx"
    ),
    "a bug in a statement": Case(
        exc.ProgrammingError("SELECT secret", {}, from_driver("near FORM: syntax error")), 500,
        BUG, {}, logging.CRITICAL, "GET /x: a bug in automx",
    ),
}  # fmt: skip


@pytest.fixture
def request_context(make_app: Callable[..., Flask]) -> Iterator[None]:
    """Stand in a request that is answered, GET /x."""
    with make_app().test_request_context("/x"):
        yield


@pytest.mark.usefixtures("request_context")
@pytest.mark.parametrize("name", CASES)
def test_an_exception_becomes_one_record_and_one_log_line(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    case = CASES[name]
    made = failure.record(case.error)
    assert (made.status, made.text, made.headers) == (case.status, case.text, case.headers)
    (line,) = caplog.records
    assert (line.name, line.levelno, line.getMessage()) == (
        "automx.views.failure", case.level, case.logged,
    )  # fmt: skip
    is_bug = case.level == logging.CRITICAL
    assert (line.exc_info is not None and line.exc_info[1] is case.error) == is_bug


@pytest.mark.usefixtures("request_context")
def test_the_record_of_an_outage_holds_the_error_that_it_means() -> None:
    assert isinstance(failure.record(CASES["no free connection"].error).error, errors.DatabaseError)
    bug = CASES["a bug"].error
    assert failure.record(bug).error is bug


@pytest.mark.usefixtures("request_context")
def test_what_was_logged_where_it_happened_is_not_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = errors.UnavailableError(cause="ldap.example.com")
    error.is_logged = True
    assert failure.record(error).status == 503
    assert caplog.records == []


def text(response: Response) -> str:
    return response.get_data(as_text=True)


# What each form shows of the text, beside status and headers.


def text_of_line(response: Response) -> str:
    assert response.content_type == "text/plain; charset=utf-8"
    return text(response).removesuffix("\n")


def text_of_exchange(response: Response) -> str:
    assert response.content_type == "application/json; charset=utf-8"
    document = json.loads(text(response))
    assert document.keys() == {"ErrorCode", "ErrorMessage"}
    return str(document["ErrorMessage"])


def text_of_mailadm(response: Response) -> str:
    assert response.content_type == "application/json"
    document = json.loads(text(response))
    assert (document.pop("type"), document.pop("status_code")) == ("error", response.status_code)
    assert document.keys() == {"reason"}
    return str(document["reason"])


def text_of_xml(response: Response) -> str:
    assert response.content_type == "text/xml; charset=utf-8"
    shown = text(response).partition("<Message>")[2].partition("</Message>")[0]
    code = int(text(response).partition("<ErrorCode>")[2].partition("</ErrorCode>")[0])
    assert timeless(text(response)) == autodiscover_error(code, shown)
    return shown


def text_of_token_page(response: Response) -> str:
    assert response.content_type == "text/html; charset=utf-8"
    return text(response).partition('<p class="lead">')[2].partition("</p>")[0]


FORMS: dict[str, tuple[Callable[[failure.Failure], Response], Callable[[Response], str]]] = {
    "text": (failure.as_text, text_of_line),
    "Outlook": (autodiscover.error_document, text_of_xml),
    "Exchange": (autodiscoverjson.error_document, text_of_exchange),
    "mailadm": (dcaccount.error_document, text_of_mailadm),
    "a token": (tokenpage.failure_page, text_of_token_page),
}


@pytest.mark.usefixtures("request_context")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [403, 429, 503, 504])
def test_each_form_shows_status_text_and_headers(form: str, status: int) -> None:
    error = RuntimeError()
    shown = failure.Failure(status, "It is so.", {"Retry-After": "7", "Allow": "GET"}, error)
    show, text_of = FORMS[form]
    response = show(shown)
    assert (response.status_code, text_of(response)) == (status, "It is so.")
    assert (response.headers["Retry-After"], response.headers["Allow"]) == ("7", "GET")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    without = show(failure.Failure(status, "It is so.", {}, error))
    assert not {"Retry-After", "Allow"} & set(without.headers.keys())


@pytest.mark.usefixtures("request_context")
@pytest.mark.parametrize("status", [400, 404, 405, 413, 500])
def test_the_status_alone_gives_the_reason_of_a_qr_code(status: int) -> None:
    shown = failure.Failure(status, "Nothing for people.", {}, RuntimeError())
    for form in ("mailadm", "a token"):
        show, text_of = FORMS[form]
        response = show(shown)
        assert response.status_code == status
        assert "Nothing for people." not in text(response)
        assert text_of(response) == dcaccount.reason(shown)


@pytest.mark.usefixtures("request_context")
def test_the_class_alone_says_that_the_address_of_a_qr_code_is_taken() -> None:
    taken = "The address of this QR code is taken already. Please ask for another QR code."
    assert dcaccount.reason(failure.record(errors.TakenError())) == taken
    assert dcaccount.reason(failure.record(errors.TakenError("In other words."))) == taken
    for error in (
        errors.NoFreeAddressError(),
        errors.ConflictError(errors.TakenError.public),
    ):
        assert dcaccount.reason(failure.record(error)) == str(error)


@pytest.mark.usefixtures("request_context")
@pytest.mark.parametrize(
    ("error", "of_outlook", "of_exchange"),
    [
        (errors.UnknownDomainError(), 500, "UserNotFound"),
        (documents.SchemaNotServedError(), 601, "InvalidRequest"),
        (InvalidProtocolError(), 600, "InvalidProtocol"),
        (errors.AddressError(), 600, "InvalidRequest"),
        (exceptions.RequestEntityTooLarge(), 600, "InvalidRequest"),
        (errors.BadRecordError(), 603, "InternalServerError"),
        (CASES["an outage of the database"].error, 603, "InternalServerError"),
        (CASES["a bug"].error, 603, "InternalServerError"),
    ],
)
def test_the_class_of_the_error_gives_the_codes_of_outlook_and_exchange(
    error: Exception, of_outlook: int, of_exchange: str
) -> None:
    made = failure.record(error)
    document = text(autodiscover.error_document(made))
    assert timeless(document) == autodiscover_error(of_outlook, made.text)
    assert autodiscoverjson.error_document(made).json == {
        "ErrorCode": of_exchange, "ErrorMessage": made.text,
    }  # fmt: skip


@pytest.mark.usefixtures("request_context")
def test_the_page_for_people_shows_its_own_words_and_bugs_as_text() -> None:
    for error, words in (
        (CASES["an outage of the database"].error, "This server is not ready."),
        (errors.BadRecordError(), "The settings of this domain are incomplete."),
        (errors.BadRequestError(), "This link is damaged. Please type your address."),
    ):
        made = failure.record(error)
        response = site.failure_page(made)
        assert (response.status_code, words in text(response)) == (made.status, True)
        assert response.headers.get("Retry-After") == made.headers.get("Retry-After")
    outage = failure.record(CASES["an outage of the database"].error)
    assert unversioned(text(site.failure_page(outage))) == golden("root-not-ready.html")
    bug = site.failure_page(failure.record(CASES["a bug"].error))
    assert (bug.status_code, text(bug)) == (500, f"{BUG}\n")
