"""The backend ``mailcow``: the mailboxes of a mailcow server, made and deleted by its HTTP API.

mailcow describes the API in its ``data/web/api/openapi.yaml``, which each server shows under
``/api``. The answers of mailcow-dockerized 2026-08 go beyond that: most refusals have the status
200, an empty answer is a failure, and the entry that counts may stand anywhere in a list. So only
the entry that names it is a success, and only what mailcow checks before it writes is certain to
have changed nothing.
"""

import asyncio
import html
import json
import logging
import re
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx

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

# After a refused key. mailcow bans an address that is refused ten times within 600 s, from all of
# its services; other workers and the command line have their own count.
PAUSE_SECONDS = 300

_LARGEST_ANSWER = 2**20  # octets; that about a mailbox has some 2,000
_LONGEST_TAG = 255  # characters; mailcow leaves longer tags out without a word

_TAKEN = {"object_exists", "is_alias", "is_spam_alias"}
_NO_ROOM = {"max_mailbox_exceeded", "mailbox_quota_exceeded", "mailbox_quota_left_exceeded"}
# What mailcow checks before it writes anything, and what its administrator can do about it. After
# any other complaint the mailbox may be there: such as one of the database about a later step.
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


@dataclass(frozen=True, slots=True)
class _Answer:
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes


class Mailcow:
    """The mailboxes of a mailcow server. Safe for threads.

    ``endpoint`` is the URL of the API, such as ``https://mailcow.example.org/api/v1``, or of the
    server; ``token`` a key that may read and write. ``timeout`` (seconds) bounds each call as a
    whole, from the look-up of the host name on; a deletion has at least DELETE_SECONDS. ``ca_file``
    holds certificate authorities (PEM) to be trusted instead of those of the system, if not empty.
    ``now`` is a clock in seconds, for the time in which a refused key is not shown again.
    Raises SettingsError if one of them cannot be used; the text names the setting.
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
        self._is_refused = False
        self._ask_again_at = 0.0
        # httpcore's debugging lines hold the session cookie, which is as good as the key.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        self._client = httpx.AsyncClient(
            headers={
                "X-API-Key": token,
                "User-Agent": "automx",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # a few octets can be a compressed gigabyte
            },
            # With the cookie of an earlier answer, mailcow would not look at the key.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # The time for a call as a whole is kept in _send().
            timeout=httpx.Timeout(None, connect=timeout),
            verify=_tls_context(ca_file),
            trust_env=False,
        )
        # A loop of its own, since only asyncio ends everything in time: the look-up of a name, a
        # handshake, and answers of which one octet comes in a second.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mailcow", daemon=True)
        self._thread.start()

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError if there is a mailbox or an alias of that name.

        Quota and all that is not said here come from mailcow's default template for mailboxes.
        """
        local_part, _, domain = address.rpartition("@")
        attributes = {
            "local_part": local_part,
            "domain": domain,
            "name": local_part,
            "password": password,
            "password2": password,
            "active": "1",
            "tags": [_tag(owner), _mark(owner)],
            # Whatever the template says: a chat program cannot change a password, nor do without.
            "force_pw_update": "0",
            "imap_access": "1",
            "smtp_access": "1",
        }
        entries = self._change("add/mailbox", attributes, self._deadline(), secret=password)
        if _tells(entries, "mailbox_added", address):
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

        A mailbox is ours if it has the tag of this very account. The one of its token is for
        people, and to find all mailboxes of a token: another automx may use the same names.
        """
        return self._find(address, owner, self._deadline())

    def disable(self, address: str, owner: Owner) -> None:
        """Let nobody log in; the mail stays. A mailbox that is missing is no error."""
        deadline = self._deadline()
        change = {"items": [address], "attr": {"active": "0"}}
        entries = self._change("edit/mailbox", change, deadline)
        try:
            mailbox = self._find(address, owner, deadline)
        except TryAgainError as error:
            cause = f"mailcow was told to disable {address}, and then: {error.cause}"
            raise UncertainError(cause=cause) from error
        if mailbox is not None and mailbox.is_active:
            raise TryAgainError(cause=f"mailcow left {address} active: {_quoted(entries)}")

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Returns only when mailcow said that it is gone, or never was."""
        deadline = self._deadline(DELETE_SECONDS)
        entries = self._change("delete/mailbox", [address], deadline)
        for entry in entries:
            if entry.get("type") == "warning":  # the mailbox is gone, its files may not be
                log.warning("mailcow, deleting %s: %s", address, _quoted(entry.get("msg")))
        if _tells(entries, "mailbox_removed", address):
            return
        cause = f"mailcow did not delete {address}: {_quoted(entries)}"
        if _complaints(entries) != {"access_denied"}:
            raise UncertainError(cause=cause)
        # That is what mailcow says of a mailbox that does not exist, too.
        if self._find(address, owner, deadline) is not None:
            raise TryAgainError(cause=cause)

    def close(self) -> None:
        """Give back connections; calls that are under way end with an error."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _deadline(self, seconds: float = 0) -> float:
        return monotonic() + max(self._timeout, seconds)

    def _find(self, address: str, owner: Owner, deadline: float) -> Mailbox | None:
        answer = self._ask(f"get/mailbox/{_in_path(address)}", None, deadline)
        if answer == {}:
            self._prove_absence(address, deadline)
            return None
        username = answer.get("username", "") if isinstance(answer, dict) else ""
        # mailcow gives null for a mailbox of which it made only the beginning.
        if username is not None and str(username).lower() != address:
            raise UncertainError(cause=f"mailcow does not tell of {address}: {_quoted(answer)}")
        active = _number(answer.get("active"))
        if active is None and username is not None:
            raise UncertainError(cause=f"mailcow does not tell whether {address} is active")
        tags = answer.get("tags")
        return Mailbox(
            is_active=active == 1,
            is_ours=isinstance(tags, list) and _mark(owner) in tags,
            last_login=_last_login(answer),
        )

    def _prove_absence(self, address: str, deadline: float) -> None:
        """Raise TryAgainError unless the server that knows no such mailbox knows its domain.

        ``{}`` is a weak proof: a server that is not mailcow, or another one than that on which the
        mailbox was made, may say so about everything.
        """
        domain = address.rpartition("@")[2]
        answer = self._ask(f"get/domain/{_in_path(domain)}", None, deadline)
        if not isinstance(answer, dict) or "domain_name" not in answer:
            cause = f"mailcow knows neither {address} nor its domain: check mailcow_endpoint"
            raise TryAgainError(cause=cause)

    def _change(
        self, path: str, payload: object, deadline: float, *, secret: str = ""
    ) -> Sequence[Mapping[str, Any]]:
        """Return the entries that mailcow answers to a POST; raises as _ask() does."""
        answer = self._ask(path, payload, deadline, secret=secret)
        if isinstance(answer, list) and all(isinstance(entry, dict) for entry in answer):
            return answer
        raise UncertainError(cause=f"mailcow, POST {self._url}{path}: {_quoted(answer, secret)}")

    def _ask(self, path: str, payload: object, deadline: float, *, secret: str = "") -> Any:
        """Return the JSON of an answer that is no error; GET if there is no payload, else POST.

        Raises TryAgainError or UncertainError, whose cause holds everything but the secret.
        """
        self._wait_for_turn()
        method = "GET" if payload is None else "POST"
        answer = self._exchange(method, path, payload, deadline)
        self._note(answer.status)
        what = f"mailcow, {method} {self._url}{path}: {answer.status}"
        if not answer.body.strip():
            why = "its own code failed, or the key did not arrive"
            raise UncertainError(cause=f"{what}, an empty answer: {why}")
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):
            outage = _OUTAGE.search(answer.body)
            told = outage[0].decode() if outage else f"{answer.content_type}, which is no JSON"
            raise UncertainError(cause=f"{what}, {told}") from None
        if isinstance(document, dict) and document.get("type") == "error":
            cause = f"{what}, {_quoted(document.get('msg'), secret)}"
            if hint := _REFUSED_STATUS.get(answer.status):
                cause += f" ({hint})"
            if answer.status in _REFUSED_STATUS or document.get("msg") == _INCOMPLETE:
                raise TryAgainError(cause=cause)
            raise UncertainError(cause=cause)
        if answer.status != 200:
            raise UncertainError(cause=f"{what}, {_quoted(document, secret)}")
        return document

    def _wait_for_turn(self) -> None:
        """Raise TryAgainError as long as mailcow is not to be asked, because it refused the key."""
        with self._lock:
            wait = self._ask_again_at - self._now()
            if wait > 0:
                raise TryAgainError(
                    cause=f"mailcow refused the key in mailcow_token; for {wait:.0f} s it is not "
                    "shown again, because mailcow bans whoever comes with a wrong key too often"
                )
            if self._is_refused:  # one tries, and the others wait for what becomes of it
                self._ask_again_at = self._now() + PAUSE_SECONDS

    def _note(self, status: int) -> None:
        """Remember whether mailcow took the key."""
        with self._lock:
            self._is_refused = status == 401
            self._ask_again_at = self._now() + PAUSE_SECONDS if self._is_refused else 0.0

    def _exchange(self, method: str, path: str, payload: object, deadline: float) -> _Answer:
        with self._lock:
            if self._is_closed:
                raise NotReachedError(cause="the backend mailcow is closed")
            coroutine = self._send(method, path, payload, deadline - monotonic())
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    async def _send(self, method: str, path: str, payload: object, seconds: float) -> _Answer:
        """Return the answer to a request.

        Raises NotReachedError if it is certain that nothing was sent, else SilentError;
        UncertainError for an answer that is too long.
        """
        is_sent = False

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            nonlocal is_sent
            is_sent = is_sent or event.endswith(".send_request_headers.started")

        what = f"mailcow, {method} {self._url}{path}"
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    method,
                    self._url + path,
                    json=payload,
                    extensions={"trace": trace},
                ) as response,
            ):
                body = b""
                async for octets in response.aiter_raw():
                    body += octets
                    if len(body) > _LARGEST_ANSWER:
                        raise UncertainError(cause=f"{what}: a huge answer")
                content_type = response.headers.get("Content-Type", "without a type")
                return _Answer(response.status_code, content_type[:100], body)
        except (httpx.TransportError, TimeoutError, asyncio.CancelledError) as error:
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
    try:
        url = httpx.URL(endpoint.rstrip("/").removesuffix("/api/v1") + "/api/v1/")
        is_usable = url.scheme in {"http", "https"} and url.host and (url.port or 1) < 65536
    except (httpx.InvalidURL, UnicodeError):
        is_usable = False
    if not is_usable:
        raise SettingsError(
            "mailcow_endpoint must be set for the backend mailcow: the URL of its API, such as "
            "https://mailcow.example.org/api/v1"
        )
    return str(url)


def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Return how certificates are checked: by the system's authorities if no file is named."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"mailcow_ca_file {ca_file} cannot be used: {error}") from error


def _tag(owner: Owner) -> str:
    return f"automx:{owner.token}"[:_LONGEST_TAG]


def _mark(owner: Owner) -> str:
    return f"automx-account:{owner.mark}"


def _in_path(name: str) -> str:
    """Return an address as a path needs it: nginx decodes it, and then PHP does so once more."""
    return quote(quote(name, safe="@"), safe="@")


def _message(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and first argument of an entry; the argument is "" if there is none."""
    message = entry.get("msg")
    words: list[object] = message if isinstance(message, list) else [message]
    code, argument, *_ = [*words, "", ""]
    return str(code), str(argument)


def _tells(entries: Sequence[Mapping[str, Any]], code: str, address: str) -> bool:
    """Tell whether one of the entries says that something succeeded for an address."""
    for entry in entries:
        found, argument = _message(entry)
        # Some entries have the address as HTML, others as it is.
        names = {argument.lower(), html.unescape(argument).lower()}
        if entry.get("type") == "success" and found == code and address in names:
            return True
    return False


def _complaints(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the codes of the entries that say what went wrong."""
    return {_message(entry)[0] for entry in entries if entry.get("type") in {"danger", "error"}}


def _quoted(value: object, secret: str = "") -> str:
    """Return what mailcow said for the log: in one line, not long, and without a secret.

    Of entries, type and message are told, but not ``log``, in which mailcow repeats what it got.
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
    """Return when somebody logged in last by any protocol; mailcow has 0 for "not known"."""
    times = (_number(mailbox.get(f"last_{name}_login")) for name in ("imap", "pop3", "smtp", "sso"))
    newest = max(time or 0 for time in times)
    return datetime.fromtimestamp(newest, UTC) if newest else None


def _number(value: object) -> int | None:
    """Return a whole number that mailcow gives as such or, in older versions, as a string."""
    return int(str(value)) if re.fullmatch(r"\d{1,10}", str(value), re.ASCII) else None


def _reason(error: BaseException, seconds: float) -> str:
    """Return why there is no answer: the innermost error says most."""
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:.1f} s"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, BaseExceptionGroup):  # a host with several addresses
        return "; ".join(str(inner) for inner in error.exceptions)
    return str(error) or type(error).__name__
