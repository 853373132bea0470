"""The backend ``mailcow``: the mailboxes of a mailcow server, made and deleted by its HTTP API.

The API is described in mailcow's ``data/web/api/openapi.yaml``, which each server shows under
``/api``. mailcow-dockerized 2026-08 differs from that: most refusals have the status 200, an empty
answer is a failure, and the entry that matters may be anywhere in a list. So only an entry that
says so is a success, and only a refusal before mailcow writes is certain to change nothing.
"""

import asyncio
import html
import json
import logging
import re
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx

from automx import deadline
from automx.backends import Mailbox, Owner
from automx.errors import (
    NotReachedError,
    SettingsError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
)

log = logging.getLogger(__name__)

DELETE_SECONDS = 75  # mailcow itself waits up to 60 s until Dovecot's container has moved the mail

# The pause after a refused key: mailcow bans a client address after ten refusals within 600 s from
# all of its services. Other workers and the command line count for themselves.
PAUSE_SECONDS = 300

_LARGEST_ANSWER = 2**20  # octets; the answer for a mailbox has about 2,000
_LONGEST_TAG = 255  # characters; mailcow drops longer tags without an error

_TAKEN = {"object_exists", "is_alias", "is_spam_alias"}
_NO_ROOM = {"max_mailbox_exceeded", "mailbox_quota_exceeded", "mailbox_quota_left_exceeded"}
# The checks of mailcow before it writes, and hints for its administrator. After any other error,
# such as one of the database in a later step, the mailbox may exist.
_REFUSED = {
    "access_denied": "mailcow does not know the domain, or the key may not use it",
    "domain_invalid": "the domain is not valid",
    "domain_not_found": "mailcow does not know the domain",
    "mailbox_invalid": "mailcow allows no such address",
    "password_complexity": "mailcow's password policy asks for more than automx gives",
    "password_mismatch": "mailcow has seen two different passwords",
    "unlimited_quota_acl": "the mailbox template of mailcow sets no quota, and the key may not",
}
_REFUSED_STATUS = {
    400: "",
    401: "check mailcow_token, and in mailcow that the key is active and allowed from this address",
    403: "the key in mailcow_token may only read",
    404: "check mailcow_endpoint",
    405: "check mailcow_endpoint",
}
_INCOMPLETE = "Cannot find attributes in post data"

_OUTAGE = re.compile(rb"Connection to [A-Za-z ]{1,40} failed")


class Mailcow:
    """The mailboxes of a mailcow server. Safe for threads.

    ``endpoint`` is the URL of the API, such as ``https://mailcow.example.org/api/v1``, or of the
    server; ``token`` is a key that may read and write. ``timeout`` (seconds) limits a whole call,
    the look-up of the host name included; a deletion has at least DELETE_SECONDS. ``ca_file`` holds
    certificate authorities (PEM) to trust instead of those of the system, "" for none. ``now`` is a
    clock in seconds, for the pause after a refused key. Raises SettingsError, whose text names the
    setting, for a value that cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        timeout: float,
        ca_file: str,
        now: Callable[[], float] = monotonic,
    ) -> None:
        if not re.fullmatch("[!-~]+", token):
            raise SettingsError(
                "mailcow_token must be set for the backend mailcow: a key of its API that may read "
                "and write, in ASCII characters"
            )
        self._url = _api_url(endpoint)
        self._timeout = timeout
        self._now = now
        self._lock = threading.Lock()
        self._is_closed = False
        self._ask_again_at: float | None = None  # after a refused key
        # The debug log of httpcore has the session cookie, which gives the same rights as the key.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        self._client = httpx.AsyncClient(
            headers={
                "X-API-Key": token,
                "User-Agent": "automx",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # a few octets can be a compressed gigabyte
            },
            # With the cookie of an earlier answer, mailcow ignores the key.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # _exchange() limits the time of the whole call.
            timeout=httpx.Timeout(None, connect=timeout),
            verify=_tls_context(ca_file),
            trust_env=False,
        )
        # Only asyncio can limit the time of everything: the look-up of a name, a handshake, an
        # answer that sends one octet per second. So this backend has a loop of its own.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mailcow", daemon=True)
        self._thread.start()

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError if there is a mailbox or an alias of that name.

        Quota and other attributes are those of mailcow's default template for mailboxes.
        """
        local_part, _, domain = address.rpartition("@")
        attributes = {
            "local_part": local_part,
            "domain": domain,
            "name": local_part,
            "password": password,
            "password2": password,
            "active": "1",
            "tags": [f"automx:{owner.token}"[:_LONGEST_TAG], _mark(owner)],
            # A chat program needs IMAP and SMTP, and cannot change its password.
            "force_pw_update": "0",
            "imap_access": "1",
            "smtp_access": "1",
        }
        end = deadline.after(self._timeout)
        entries = self._change("add/mailbox", attributes, end, secret=password)
        if _has_succeeded(entries, "mailbox_added", address):
            return
        codes = _complaints(entries)
        cause = f"mailcow made no mailbox {address}: {_quoted(entries, password)}"
        if not codes or not codes <= _TAKEN | _NO_ROOM | _REFUSED.keys():
            raise UncertainError(cause=cause)
        if codes & _TAKEN:
            raise TakenError(cause=cause)
        if codes & _NO_ROOM:
            raise TryAgainError("The mail server has no room for further mailboxes.", cause=cause)
        hints = "; ".join(_REFUSED[code] for code in sorted(codes))
        raise TryAgainError(cause=f"{cause} ({hints})")

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """Return what is known of a mailbox; None only if it is certain that there is none.

        A mailbox is ours if it has the tag of the account. The tag of the token does not decide,
        because another automx may use the same name; it lets people find all mailboxes of a token.
        """
        return self._find(address, owner, deadline.after(self._timeout))

    def disable(self, address: str, owner: Owner) -> None:
        """Prevent logins; the mail stays. A missing mailbox is no error."""
        end = deadline.after(self._timeout)
        change = {"items": [address], "attr": {"active": "0"}}
        entries = self._change("edit/mailbox", change, end)
        try:
            mailbox = self._find(address, owner, end)
        except TryAgainError as error:
            cause = f"mailcow was asked to disable {address}, and then: {error.cause}"
            raise UncertainError(cause=cause) from error
        if mailbox is not None and mailbox.is_active:
            raise TryAgainError(cause=f"mailcow left {address} active: {_quoted(entries)}")

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Returns only when mailcow has said that there is none any more."""
        end = deadline.after(max(self._timeout, DELETE_SECONDS))
        entries = self._change("delete/mailbox", [address], end)
        for entry in entries:
            if entry.get("type") == "warning":  # the mailbox is deleted, perhaps not its files
                log.warning("mailcow, deleting %s: %s", address, _quoted(entry.get("msg")))
        if _has_succeeded(entries, "mailbox_removed", address):
            return
        cause = f"mailcow did not delete {address}: {_quoted(entries)}"
        if _complaints(entries) != {"access_denied"}:
            raise UncertainError(cause=cause)
        # mailcow says the same of a mailbox that does not exist.
        if self._find(address, owner, end) is not None:
            raise TryAgainError(cause=cause)

    def close(self) -> None:
        """Close connections; running calls end with an error."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _find(self, address: str, owner: Owner, end: float) -> Mailbox | None:
        answer = self._ask(f"get/mailbox/{_in_path(address)}", None, end)
        if answer == {}:
            self._check_domain(address, end)
            return None
        username = answer.get("username", "") if isinstance(answer, dict) else ""
        # mailcow gives null for a mailbox that it did not finish.
        if username is not None and str(username).lower() != address:
            raise UncertainError(cause=f"mailcow does not answer for {address}: {_quoted(answer)}")
        active = _number(answer.get("active"))
        if active is None and username is not None:
            raise UncertainError(cause=f"mailcow does not say whether {address} is active")
        tags = answer.get("tags")
        return Mailbox(
            is_active=active == 1,
            is_ours=isinstance(tags, list) and _mark(owner) in tags,
            last_login=_last_login(answer),
        )

    def _check_domain(self, address: str, end: float) -> None:
        """Raise TryAgainError if the server has no such domain either.

        A server that is not mailcow, or not the one with the mailbox, may always answer ``{}``.
        """
        domain = address.rpartition("@")[2]
        answer = self._ask(f"get/domain/{_in_path(domain)}", None, end)
        if not isinstance(answer, dict) or "domain_name" not in answer:
            cause = f"mailcow knows neither {address} nor its domain: check mailcow_endpoint"
            raise TryAgainError(cause=cause)

    def _change(
        self, path: str, payload: object, end: float, *, secret: str = ""
    ) -> Sequence[Mapping[str, Any]]:
        """Return the entries of the answer to a POST; raises as _ask() does."""
        answer = self._ask(path, payload, end, secret=secret)
        if isinstance(answer, list) and all(isinstance(entry, dict) for entry in answer):
            return answer
        raise UncertainError(cause=f"mailcow, POST {self._url}{path}: {_quoted(answer, secret)}")

    def _ask(self, path: str, payload: object, end: float, *, secret: str = "") -> Any:
        """Return the JSON of an answer that is no error; GET if there is no payload, else POST.

        Raises TryAgainError or UncertainError; their cause does not contain the secret.
        """
        self._wait_for_turn()
        method = "GET" if payload is None else "POST"
        what = f"mailcow, {method} {self._url}{path}"
        response, body = self._exchange(what, method, path, payload, end)
        status = response.status_code
        self._note(status)
        what += f": {status}"
        if not body.strip():
            why = "its own code failed, or the key did not arrive"
            raise UncertainError(cause=f"{what}, an empty answer: {why}")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            outage = _OUTAGE.search(body)
            content_type = response.headers.get("Content-Type", "without a type")[:100]
            found = outage[0].decode() if outage else f"{content_type}, which is no JSON"
            raise UncertainError(cause=f"{what}, {found}") from None
        is_error = isinstance(document, dict) and document.get("type") == "error"
        if status == 200 and not is_error:
            return document
        message = document.get("msg") if is_error else document
        cause = f"{what}, {_quoted(message, secret)}"
        if is_error and (status in _REFUSED_STATUS or message == _INCOMPLETE):
            hint = _REFUSED_STATUS.get(status)
            raise TryAgainError(cause=f"{cause} ({hint})" if hint else cause)
        raise UncertainError(cause=cause)

    def _wait_for_turn(self) -> None:
        """Raise TryAgainError during the pause after a refused key."""
        with self._lock:
            if self._ask_again_at is None:
                return
            wait = self._ask_again_at - self._now()
            if wait > 0:
                raise TryAgainError(
                    cause="mailcow refused the key in mailcow_token; it is not sent for"
                    f" {wait:.0f} s, because mailcow bans clients that send a wrong key too often"
                )
            # One call tries, and the others wait for its result.
            self._ask_again_at = self._now() + PAUSE_SECONDS

    def _note(self, status: int) -> None:
        """Remember whether mailcow accepted the key."""
        with self._lock:
            self._ask_again_at = self._now() + PAUSE_SECONDS if status == 401 else None

    def _exchange(
        self, what: str, method: str, path: str, payload: object, end: float
    ) -> tuple[httpx.Response, bytes]:
        """Return an answer and its body. Each cause begins with ``what``.

        Raises NotReachedError if it is certain that nothing was sent, else SilentError;
        UncertainError for an answer that is too long.
        """
        is_sent = False
        seconds = deadline.left(end)

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            nonlocal is_sent
            is_sent = is_sent or event.endswith(".send_request_headers.started")

        async def send() -> tuple[httpx.Response, bytes]:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    method, self._url + path, json=payload, extensions={"trace": trace}
                ) as response,
            ):
                body = b""
                async for octets in response.aiter_raw():
                    body += octets
                    if len(body) > _LARGEST_ANSWER:
                        raise UncertainError(cause=f"{what}: a huge answer")
                return response, body

        with self._lock:
            if self._is_closed:
                raise NotReachedError(cause="the backend mailcow is closed")
            future = asyncio.run_coroutine_threadsafe(send(), self._loop)
        try:
            return future.result()
        except (httpx.TransportError, TimeoutError, CancelledError) as error:
            cause = f"{what}: {_reason(error, seconds)}"
            raise (SilentError if is_sent else NotReachedError)(cause=cause) from error

    async def _hang_up(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._client.aclose()


def _api_url(endpoint: str) -> str:
    """Return the URL of the API, with a final slash, from that of the API or of the server."""
    with suppress(httpx.InvalidURL, UnicodeError):
        url = httpx.URL(endpoint.rstrip("/").removesuffix("/api/v1") + "/api/v1/")
        if url.scheme in {"http", "https"} and url.host and (url.port or 1) < 65536:
            return str(url)
    raise SettingsError(
        "mailcow_endpoint must be set for the backend mailcow: the URL of its API, such as "
        "https://mailcow.example.org/api/v1"
    )


def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Return the TLS context: with the authorities of the file, "" for those of the system."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"mailcow_ca_file {ca_file} cannot be used: {error}") from error


def _mark(owner: Owner) -> str:
    return f"automx-account:{owner.mark}"


def _in_path(name: str) -> str:
    """Return an address for a path, encoded twice: nginx decodes it, and PHP does it again."""
    return quote(quote(name, safe="@"), safe="@")


def _message(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and first argument of an entry; the argument is "" if there is none."""
    message = entry.get("msg")
    words: list[object] = message if isinstance(message, list) else [message]
    code, argument, *_ = [*words, "", ""]
    return str(code), str(argument)


def _has_succeeded(entries: Sequence[Mapping[str, Any]], code: str, address: str) -> bool:
    """Return whether one of the entries is this success for an address."""
    for entry in entries:
        found, argument = _message(entry)
        # Some entries have the address as HTML, others as plain text.
        names = {argument.lower(), html.unescape(argument).lower()}
        if entry.get("type") == "success" and found == code and address in names:
            return True
    return False


def _complaints(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the codes of the entries that are errors."""
    return {_message(entry)[0] for entry in entries if entry.get("type") in {"danger", "error"}}


def _quoted(value: object, secret: str = "") -> str:
    """Return an answer of mailcow for the log: one short line without the secret.

    It has type and message of entries, but not their ``log``, which repeats the request.
    """
    if isinstance(value, list):
        value = [
            [entry.get("type"), entry.get("msg")] if isinstance(entry, dict) else entry
            for entry in value
        ]
    text = json.dumps(value)
    if secret:
        text = text.replace(json.dumps(secret)[1:-1], "***")
    return text[:300]


def _last_login(mailbox: Mapping[str, Any]) -> datetime | None:
    """Return the last login by any protocol, None if mailcow knows none, for which it has 0."""
    times = (_number(mailbox.get(f"last_{name}_login")) for name in ("imap", "pop3", "smtp", "sso"))
    newest = max(time or 0 for time in times)
    return datetime.fromtimestamp(newest, UTC) if newest else None


def _number(value: object) -> int | None:
    """Return a whole number, which older versions of mailcow give as a string."""
    return int(str(value)) if re.fullmatch(r"\d{1,10}", str(value), re.ASCII) else None


def _reason(error: BaseException, seconds: float) -> str:
    """Return why there is no answer, from the innermost error."""
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:.1f} s"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, BaseExceptionGroup):  # a host with several addresses
        return "; ".join(str(inner) for inner in error.exceptions)
    return str(error) or type(error).__name__
