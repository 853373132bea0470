"""The edge: who asks, how, and at which URL, read from a request and checked once.

A proxy tells in ``X-Forwarded-For``, ``-Host``, ``-Proto`` and ``-Prefix`` what it saw. Each proxy
appends its value to those of the others, and a client can send such headers as well: the value of
the outermost of ``proxy_count`` proxies counts, and nothing beyond it. Quotation marks have no
meaning in these lists: a client could hide the value of a proxy behind one.

The result stands in the WSGI environment (PEP 3333), so that all others find what was checked, and
nothing else: ``REMOTE_ADDR``, ``HTTP_HOST``, ``wsgi.url_scheme`` and ``SCRIPT_NAME``.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple

from automx.address import is_loopback, parse_host
from automx.errors import AddressError, BadRequestError
from automx.trace import CURRENT, Trace

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KEY = "automx.edge"  # the key of the Inbound in the WSGI environment
BEGAN = "automx.began"  # of when a web server had the request, in the time of perf_counter_ns()
TRACE = "automx.trace"  # of a Trace that the request has already
REQUEST_ID = "X-Request-ID"
UNKNOWN = "unknown"  # the client's address where there is none, as for a Unix socket

_MAX_ADDRESS = 100  # characters of an address with port and zone

# Some proxies (IIS, Azure) append the port to the address in X-Forwarded-For.
_CLIENT = re.compile(r"(?:([0-9.]+)|\[([^\]]+)\])(?::[0-9]{1,5})?", re.ASCII)
# A header Host (RFC 9110, section 7.2).
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4}))?", re.ASCII)
# A request target in absolute form (RFC 9112, section 3.2.2).
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
# A path below which automx is published; "/" for none.
_PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]+)*/?", re.ASCII)

# What proxies make: a UUID, hexadecimal digits, HAProxy's addresses and ports, Amazon's Root=1-….
_ID = re.compile(r"[A-Za-z0-9._:=/+-]{1,128}", re.ASCII)

_PROXY_HEADERS = ("HTTP_FORWARDED", "HTTP_VIA")
# Such as X-Forwarded-For, X-Real-IP, X-Original-Host, True-Client-IP, CF-Connecting-IP.
_PROXY_HEADER = re.compile(
    r"HTTP_(?:X_(?:FORWARD|REAL_|ORIGINAL_|ENVOY_|CLUSTER_)\w*|\w*(?:CLIENT|CONNECTING)_IP)",
    re.ASCII,
)


class Inbound(NamedTuple):
    """Who asks, and at which host.

    ``client`` is the IP address in its usual form, or UNKNOWN; ``network`` is what rate limits
    count: the address, and of IPv6 its /64, the least that a customer has. ``host`` is the name or
    IP address in lower case, without brackets, "" if the request has none; ``port`` is "" if it is
    the scheme's. ``asked`` is the host as it was sent, for the log. ``error`` says what is
    malformed; such a request has no host.
    """

    client: str
    network: str
    host: str = ""
    port: str = ""
    asked: str = ""
    error: BadRequestError | None = None


def reading(wsgi_app: "WSGIApplication", proxy_count: int) -> "WSGIApplication":
    """Wrap an application so that it gets requests that were read here.

    It has the Trace of a request meanwhile; its answers have the ID of the request.
    """

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        found = read(environ, proxy_count)
        trace: Trace | None = environ.get(TRACE)
        if trace is None:
            agent = environ.get("HTTP_USER_AGENT", "")
            request_id = request_id_of(environ, proxy_count)
            trace = Trace(found.client, request_id, agent, environ.get(BEGAN))
        trace.client = found.client
        sent = (REQUEST_ID, trace.request_id)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, sent], *error)

        token = CURRENT.set(trace)
        try:
            return wsgi_app(environ, start)
        finally:
            CURRENT.reset(token)

    return call


def read(environ: "WSGIEnvironment", proxy_count: int) -> Inbound:
    """Return the Inbound of a request; the first call reads it and changes the environment.

    Raises nothing: the error of a malformed request stands in the Inbound, for the form that its
    protocol has.
    """
    found: Inbound | None = environ.get(KEY)
    if found is None:
        found = environ[KEY] = _read(environ, proxy_count)
    return found


def request_id_of(environ: "WSGIEnvironment", proxy_count: int) -> str:
    """Return the ID that a proxy has given to a request, else a new one of 32 digits."""
    if proxy_count:
        given: str = environ.get("HTTP_X_REQUEST_ID", "")
        if is_request_id(given):
            return given
    return new_request_id()


def is_request_id(text: str) -> bool:
    """Return whether a text that a proxy has sent is taken as the ID of a request."""
    return _ID.fullmatch(text) is not None


def new_request_id() -> str:
    """Return an ID of 32 digits."""
    return getrandbits(128).to_bytes(16).hex()  # it keeps no secret


def client_of(environ: "WSGIEnvironment", proxy_count: int) -> tuple[str, str]:
    """Return address and network of the client, as Inbound has them.

    What is no address counts as the proxy's own.
    """
    for text in (_forwarded(environ, "FOR", proxy_count), environ.get("REMOTE_ADDR", "")):
        try:
            if text:
                return parse_client(text)
        except ValueError:
            pass
    return UNKNOWN, UNKNOWN


def of(environ: "WSGIEnvironment") -> Inbound:
    """Return the Inbound of a request that was read."""
    found: Inbound = environ[KEY]
    return found


def bearer(authorization: str) -> str | None:
    """Return the token of a header Authorization (RFC 6750), None if it is of another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def has_token(authorization: str, expected: str) -> bool:
    """Return whether a header Authorization has a token of the settings; "" stands for none."""
    token = bearer(authorization) or ""
    return hmac.compare_digest(token.encode(), expected.encode()) and bool(expected)


def is_through_proxy(environ: "WSGIEnvironment") -> bool:
    """Return whether a request shows that a proxy has passed it on, a trusted one or not.

    False is no proof: nginx with a bare ``proxy_pass`` adds no header. It speaks HTTP/1.0 to the
    server behind it, by default before 1.29.7, as few programs of today do.
    """
    if environ.get("SERVER_PROTOCOL") in {"HTTP/1.0", "HTTP/1"}:  # the latter is granian's word
        return True
    return any(name in environ for name in _PROXY_HEADERS) or any(
        _PROXY_HEADER.fullmatch(name) for name in environ
    )


def is_local(environ: "WSGIEnvironment") -> bool:
    """Return whether it looks as if a program on this machine sends a request that was read.

    A proxy on this machine connects from loopback for all its clients. Most are known by their
    headers, whether ``proxy_count`` trusts them or not. Some are not: so these requests may do
    little more than those of strangers. A page of another site in a browser on this machine is
    known by Sec-Fetch-Site, or by its host name if that was made to point here (DNS rebinding).
    """
    if is_through_proxy(environ):
        return False
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in {"none", "same-origin"}:
        return False
    inbound = of(environ)
    return is_loopback(inbound.client) and is_loopback(inbound.host)


@lru_cache(1000)
def parse_client(text: str) -> tuple[str, str]:
    """Return an IP address in its usual form and its network, as Inbound has them.

    A port, brackets and the zone of IPv6 are left out; an IPv4 address in IPv6 is one of IPv4.
    Raises ValueError if it is no IP address.
    """
    if len(text) > _MAX_ADDRESS:
        raise ValueError("too long for an IP address")
    if found := _CLIENT.fullmatch(text):
        text = found[1] or found[2]
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address), str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped), str(address.ipv4_mapped)
    return str(address), str(ipaddress.IPv6Network((int(address), 64), strict=False))


@lru_cache(1000)  # most requests are for few hosts
def parse_authority(text: str) -> tuple[str, str]:
    """Return host and port of a header Host, as Inbound has them.

    A name may hold "_", as in :func:`automx.address.parse_domain`. One that ends in a number is an
    IPv4 address, as for web browsers. Raises AddressError.
    """
    found = _AUTHORITY.fullmatch(text)
    error = AddressError("The host name is not valid.", cause=f"Host {text!r}")
    if found is None or int(found[2] or 1) > 65535:
        raise error
    try:
        host = parse_host(found[1])
        if host.rpartition(".")[2].isdecimal() and ":" not in host:
            ipaddress.IPv4Address(host)
    except (ValueError, AddressError):
        raise error from None
    return host, found[2] or ""


def _read(environ: "WSGIEnvironment", proxy_count: int) -> Inbound:
    client = client_of(environ, proxy_count)
    environ["REMOTE_ADDR"] = client[0]
    asked = _forwarded(environ, "HOST", proxy_count) or _asked_host(environ)
    host, port, error = "", "", None
    try:
        _read_scheme(environ, proxy_count)
        _read_prefix(environ, proxy_count)
        _read_method(environ)
        if asked is not None:
            host, port = parse_authority(asked)
    except BadRequestError as failure:
        error = failure
    name = f"[{host}]" if ":" in host else host
    environ["HTTP_HOST"] = f"{name}:{port}" if port else name
    return Inbound(*client, host, port, asked or "", error)


def _asked_host(environ: "WSGIEnvironment") -> str | None:
    """Return the host that the client names; None if it names none, as with HTTP/1.0.

    An absolute target wins over Host, where the server gives it.
    """
    target: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if found := _ABSOLUTE.match(target):
        return found[1]
    return environ.get("HTTP_HOST") or None


def _read_method(environ: "WSGIEnvironment") -> None:
    """Raise BadRequestError for a method in small letters, which is another one (RFC 9110, 9.1).

    Werkzeug would take it for the one in capitals, past all that compares it before the routes.
    """
    method: str = environ["REQUEST_METHOD"]
    if method != method.upper():
        raise BadRequestError("The method is not valid.", cause=f"method {method!r}")


def _read_scheme(environ: "WSGIEnvironment", proxy_count: int) -> None:
    scheme = _forwarded(environ, "PROTO", proxy_count) or environ["wsgi.url_scheme"]
    is_valid = scheme.lower() in {"http", "https"}
    environ["wsgi.url_scheme"] = scheme.lower() if is_valid else "http"
    if not is_valid:
        raise BadRequestError("The scheme is not http or https.", cause=f"scheme {scheme!r}")


def _read_prefix(environ: "WSGIEnvironment", proxy_count: int) -> None:
    prefix = _forwarded(environ, "PREFIX", proxy_count)
    if not _PREFIX.fullmatch(prefix):
        raise BadRequestError("The path prefix is not valid.", cause=f"prefix {prefix!r}")
    if prefix:
        environ["SCRIPT_NAME"] = prefix.rstrip("/")


def _forwarded(environ: "WSGIEnvironment", name: str, proxy_count: int) -> str:
    """Return the value that the outermost of our proxies gave, "" if there are fewer values."""
    values = environ.get(f"HTTP_X_FORWARDED_{name}", "").split(",") if proxy_count else ()
    return values[-proxy_count].strip(" \t") if len(values) >= proxy_count > 0 else ""
