"""The HTTP API of a mailcow server: requests with a key, and what their answers mean.

mailcow-dockerized 2026-08 gives most refusals the status 200, and an empty answer is a failure.
"""

import asyncio
import json
import logging
import re
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from automx import deadline
from automx.backends.answers import parse
from automx.backends.keys import KeyGate, KeyMemory
from automx.errors import (
    MisconfiguredError,
    NotReachedError,
    SettingsError,
    SilentError,
    UncertainError,
)
from automx.moments import this_second

LARGEST_ANSWER = 2**20  # octets; the answer for a mailbox has about 2,000

# The path of mailcow's API, where no proxy changes it.
_USUAL_PATH = "/api/v1/"
_ENDPOINT = "check mailcow_endpoint: the usual one is https://HOST/api/v1"
_REFUSED_STATUS = {
    400: "",
    401: "check mailcow_token, and in mailcow that the key is active and allowed from this address",
    403: "the key in mailcow_token may only read",
    404: _ENDPOINT,
    405: _ENDPOINT,
}
_INCOMPLETE = "Cannot find attributes in post data"

_OUTAGE = re.compile(rb"Connection to [A-Za-z ]{1,40} failed")


class MailcowApi:
    """The API of a mailcow server; the parameters are those of mailcow.Mailcow. Safe for threads.

    Errors of get() and post() are MisconfiguredError and other kinds of TryAgainError if it is
    certain that nothing was changed, else UncertainError. Their cause names the request.
    """

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        timeout: float,
        ca_file: str,
        keys: KeyMemory,
        now: Callable[[], datetime] = this_second,
        largest_answer: int = LARGEST_ANSWER,
    ) -> None:
        if not re.fullmatch("[!-~]+", token):
            raise SettingsError(
                "mailcow_token must be set for the backend mailcow: a key of its API that may read "
                "and write, in ASCII characters"
            )
        url = _api_url(endpoint)
        self._url = str(url)
        self._largest_answer = largest_answer  # octets
        self._is_usual = url.path == _USUAL_PATH
        digest = sha256(f"{url} {token}".encode()).hexdigest()
        self._gate = KeyGate(keys, digest, "mailcow_token", now=now)
        self._lock = threading.Lock()
        self._is_closed = False
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

    def get(self, path: str, end: float) -> Any:
        """Return the JSON of an answer that is no error, before the deadline ``end``."""
        return self._ask("GET", path, None, end)

    def post(self, path: str, payload: object, end: float, *, secret: str = "") -> Any:
        """Return the JSON of an answer that is no error; no cause of an error has the secret."""
        return self._ask("POST", path, payload, end, secret)

    def change(
        self, path: str, payload: object, end: float, *, secret: str = ""
    ) -> Sequence[Mapping[str, Any]]:
        """Return the entries of the answer to a POST that changes something."""
        answer = self.post(path, payload, end, secret=secret)
        if isinstance(answer, list) and all(isinstance(entry, dict) for entry in answer):
            return answer
        what = f"mailcow, POST {self._url}{path}: {quoted(answer, secret)}"
        raise UncertainError(cause=self.hinted(what))

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

    def hinted(self, cause: str, hint: str = "") -> str:
        """Return a cause with a hint, and with another one if the endpoint is unusual."""
        hints = dict.fromkeys([hint, "" if self._is_usual else _ENDPOINT])
        text = "; ".join(filter(None, hints))
        return f"{cause} ({text})" if text else cause

    def _ask(self, method: str, path: str, payload: object, end: float, secret: str = "") -> Any:
        what = f"mailcow, {method} {self._url}{path}"
        with self._gate.turn(end) as turn:
            response, body = self._exchange(what, method, path, payload, end)
            status = response.status_code
            turn.is_accepted = False if status == 401 else None
            what += f": {status}"
            try:
                document = parse(body)
            except ValueError:
                raise self._no_json(what, method, response, body) from None
            is_error = isinstance(document, dict) and document.get("type") == "error"
            if status == 200 and not is_error:
                turn.is_accepted = True
                return document
        message = document.get("msg") if is_error else document
        what += f", {quoted(message, secret)}"
        if is_error and (status in _REFUSED_STATUS or message == _INCOMPLETE):
            raise MisconfiguredError(cause=self.hinted(what, _REFUSED_STATUS.get(status, "")))
        raise UncertainError(cause=self.hinted(what))

    def _no_json(
        self, what: str, method: str, response: httpx.Response, body: bytes
    ) -> MisconfiguredError | UncertainError:
        """Return the error for an answer that is no JSON: mailcow fails, or this is not its API."""
        status = response.status_code
        is_elsewhere = 300 <= status < 400 or status in {404, 405}
        if not body.strip():
            what += ", an empty answer"
            if status == 200:
                what += ": its own code failed, or the key did not arrive"
        elif outage := _OUTAGE.search(body):
            what += f", {outage[0].decode()}"
        else:
            content_type = response.headers.get("Content-Type", "without a type")[:100]
            what += f", {content_type}, which is no JSON"
            is_elsewhere = is_elsewhere or status == 200
        hint = _ENDPOINT if is_elsewhere else _REFUSED_STATUS[401] if status == 401 else ""
        if method == "GET" and hint:
            return MisconfiguredError(cause=self.hinted(what, hint))
        return UncertainError(cause=self.hinted(what, hint))

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
                body = bytearray()
                async for octets in response.aiter_raw():
                    body += octets
                    if len(body) > self._largest_answer:
                        raise UncertainError(cause=self.hinted(f"{what}: a huge answer"))
                return response, bytes(body)

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


def quoted(value: object, secret: str = "") -> str:
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


def _api_url(endpoint: str) -> httpx.URL:
    """Return the URL of the API, with a final slash, from that of the API or of the server."""
    with suppress(httpx.InvalidURL, UnicodeError):
        url = httpx.URL(endpoint.rstrip("/").removesuffix("/api/v1") + "/api/v1/")
        if url.scheme in {"http", "https"} and url.host and (url.port or 1) < 65536:
            return url
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
