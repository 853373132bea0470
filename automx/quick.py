"""Answers without Flask: the documents of mail clients, and redirects.

Most requests of mail clients come in a few usual forms. Such a request is answered here, byte for
byte as the views would answer it; anything unusual is left to them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from time import perf_counter_ns
from typing import TYPE_CHECKING

from automx import edge, families
from automx.address import EmailAddress, parse_domain
from automx.cache import FoundConfig
from automx.clientconfig import ClientConfig
from automx.counts import Counts, Entry
from automx.errors import AddressError, BadRequestError, UnknownDomainError
from automx.formats import autoconfig, autodiscover, mobileconfig, pacc
from automx.memory import NotRememberedError
from automx.request import Headers, Scope, client_of, variable
from automx.trace import CURRENT, FRONT, Trace
from automx.views import wellknown
from automx.views.autoconfig import document_of_person, is_for_all
from automx.views.autodiscover import document_for
from automx.views.failure import unknown_domain
from automx.views.http import Answer, Parts, WhoIs, domain_of, personal_answer, public_answer
from automx.views.mobileconfig import disposition

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# A query with an address; one with other characters is read by the views.
_QUERY = re.compile(
    r"emailaddress=(?=[^@%]{1,64}[@%])([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)(?:@|%40)"
    r"([A-Za-z0-9.-]+)",
    re.ASCII,
)
# Headers that tell where a request goes; without proxies, only the first.
_WHERE = ("host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix")
_FORWARDED_FOR, _REQUEST_ID = "x-forwarded-for", "x-request-id"  # the others of proxies
# Characters of a query or header that may be remembered: those with a long domain have fewer.
_LONGEST = 400
_MAX_BODY = 4096  # bytes; a longer request of Autodiscover is left to the views

_REMEMBERED = 1_000  # kinds of requests whose entry is known at once
_READ = 2_000  # hosts, and queries, that were read and are known at once

_AUTOCONFIG = (autoconfig.PATH, f"/.well-known/autoconfig{autoconfig.PATH}")
_MOBILECONFIG = ("/mobileconfig", "/mobileconfig/")
_WITH_ADDRESS = {*_AUTOCONFIG, *_MOBILECONFIG, autodiscover.XML_PATH}


_PROTOCOLS = {
    **dict.fromkeys(_AUTOCONFIG, "autoconfig"),
    **dict.fromkeys(_MOBILECONFIG, "mobileconfig"),
    **dict.fromkeys(wellknown.SERVICES, "wellknown"),
    autodiscover.XML_PATH: "autodiscover",
    pacc.PATH: "pacc",
}

_Kind = tuple[str, str, str, bool, int]  # path, method, User-Agent, whether made up, status
Sent = tuple[int, list[tuple[str, str]], bytes]  # status, headers with the ID, body


class Asked(Trace):
    """A request that may be answered here, for what its domain has at a path of a host.

    ``address`` is that of the person whose document is wanted, None for that of the domain.
    ``request`` is the document that the client has sent. ``agent`` and ``began`` are there only if
    they are needed, ``client`` is read when it is. ``forwarded`` is what proxies say of it.
    """

    __slots__ = ("address", "forwarded", "host", "method", "path", "query", "request", "scope")

    def __init__(self, scope: Scope, method: str, path: str, request_id: str) -> None:
        super().__init__("", request_id, "", 0)
        self.scope = scope
        self.method = method
        self.path = path
        self.query = scope.query_string
        self.forwarded = self.host = ""
        self.address: EmailAddress | None = None
        self.request: autodiscover.Request | None = None


class Quick:
    """Answers for the parts of an application. Safe for threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._answered = parts.answered
        self._is_measured = parts.answered.names_family
        self._has_lines = parts.answered.has_lines
        self._counts = parts.answered.counts
        # Where a kind of requests is counted: all that their family and their labels depend on.
        self._entries: dict[_Kind, Entry] = {}
        self._proxy_count = parts.settings.proxy_count
        self._makers: Mapping[str, Callable[[Asked, FoundConfig, WhoIs], Answer | None]] = {
            **dict.fromkeys(_AUTOCONFIG, self._autoconfig),
            **dict.fromkeys(_MOBILECONFIG, self._mobileconfig),
            **dict.fromkeys(wellknown.SERVICES, self._redirect),
            autodiscover.XML_PATH: self._autodiscover,
            pacc.PATH: self._pacc,
        }

    def asked(self, scope: Scope) -> Asked | None:
        """Return what a request is for; None if it is not of the usual form.

        Of a POST, it is not known before posted() has read the body.
        """
        began = perf_counter_ns() if self._is_measured else 0
        path = scope.path
        if path not in self._makers or scope.authority:
            return None
        headers = scope.headers
        # With any() over a tuple, it takes four times as long.
        if "transfer-encoding" in headers or "if-none-match" in headers or "expect" in headers:
            return None
        method = scope.method
        is_post = method == "POST" and path == autodiscover.XML_PATH
        if not is_post and (method != "GET" or "content-length" in headers):
            return None
        names = _WHERE if self._proxy_count else _WHERE[:1]
        found = _single(headers, names)
        where = None if found is None else _where(found, self._proxy_count)
        if where is None:
            return None
        asked = Asked(scope, method, path, edge.new_request_id())
        if self._proxy_count and not self._read_proxies(asked, headers):
            return None
        asked.host, domain = where
        if not is_post:
            if query := asked.query:
                address = _address(query) if path in _WITH_ADDRESS else None
                if address is None:
                    return None
                domain = address.domain
                if path != autodiscover.XML_PATH:
                    asked.address = address
            elif path in _MOBILECONFIG:
                return None
            if domain is None:
                return None
            asked.domain = domain
        if self._is_measured:
            asked.began = began
            asked.agent = ",".join(headers.get_all("user-agent"))
        return asked

    def posted(self, asked: Asked, body: bytes) -> Asked | None:
        """Return what a POST with a body is for; None if it is not of the usual form."""
        if self._is_measured:  # the client's time does not count
            asked.began = perf_counter_ns()
        if len(body) > _MAX_BODY:
            return None
        with suppress(AddressError, BadRequestError):
            asked.request = autodiscover.parse_request(body)
            asked.address = EmailAddress.parse(asked.request.address)
            asked.domain = asked.address.domain
            return asked
        return None

    def known(self, asked: Asked) -> Sent | None:
        """Answer from memory, and ask no neighbour; None if nothing there is fresh."""
        found = self._parts.cache.fresh(asked.domain)
        if isinstance(found, FoundConfig):
            answer = self._from_memory(asked, found)
        elif isinstance(found, UnknownDomainError):
            self._name(asked)
            answer = self._refuse(asked, found)
        else:
            return None
        if answer is None:
            return None
        status, headers, body = answer
        if self._counts is not None:  # a call would take too long here
            is_made_up = families.MADE_UP in asked.query
            kind = (asked.path, asked.method, asked.agent, is_made_up, status)
            entry = self._entries.get(kind)
            if entry is None:
                entry = self._entry(self._counts, asked, kind)
            duration = perf_counter_ns() - asked.began
            entry[0] += duration  # Python's lock is not given up within such a line
            entry[duration.bit_length()] += 1
        if self._has_lines:
            asked.where = FRONT
            if isinstance(found, FoundConfig):  # else it was named before
                self._name(asked)
            self._answered.write(asked, asked.method, asked.path, status)
        return status, [*headers, (edge.REQUEST_ID, asked.request_id)], body

    def found(self, asked: Asked) -> Sent | None:
        """Answer, from database and directory if need be; None if the views have to.

        Raises as lookup.find, DatabaseError, and DirectoryError.
        """
        self._name(asked)
        token = CURRENT.set(asked)
        try:
            found = self._parts.find(asked.domain)
            answer = None
            if found.age is None:
                answer = self._makers[asked.path](asked, found, self._parts.known_person)
        except UnknownDomainError as error:
            answer = self._refuse(asked, error)
            if answer is None:
                raise
        finally:
            CURRENT.reset(token)
        if answer is None:
            return None
        self._answered.note(asked, asked.method, asked.path, answer.status)
        return answer._replace(headers=[*answer.headers, (edge.REQUEST_ID, asked.request_id)])

    def _name(self, asked: Asked) -> None:
        """Note who asks, and how, for lines of the log."""
        environ = {"REMOTE_ADDR": client_of(asked.scope), variable(_FORWARDED_FOR): asked.forwarded}
        asked.client, _ = edge.client_of(environ, self._proxy_count)
        self._answered.begin(asked, _PROTOCOLS[asked.path], asked.method, asked.query)

    def _entry(self, counts: Counts, asked: Asked, kind: _Kind) -> Entry:
        """Return where a kind of requests is counted; remember it if its User-Agent is not long."""
        protocol = _PROTOCOLS[asked.path]
        family = families.family_of(asked.agent, protocol, asked.method, asked.query)
        entry = counts.entry_of_front(protocol, family, kind[-1])
        if len(asked.agent) <= families.LONGEST:
            if len(self._entries) >= _REMEMBERED:
                self._entries.clear()
            self._entries[kind] = entry
        return entry

    def _read_proxies(self, asked: Asked, headers: Headers) -> bool:
        """Read what proxies say of the client and the ID of a request.

        Return whether it has the usual form.
        """
        found = _single(headers, (_FORWARDED_FOR, _REQUEST_ID))
        if found is None:
            return False
        forwarded, given = found
        asked.forwarded = forwarded or ""
        if given is not None and edge.is_request_id(given):
            asked.request_id = given
        return True

    def _from_memory(self, asked: Asked, found: FoundConfig) -> Answer | None:
        """Answer for a domain that is remembered; None if a directory has to be asked."""
        answer: Answer | None = found.answers.get(asked.path) if asked.request is None else None
        if answer is not None:
            return answer
        try:
            answer = self._makers[asked.path](asked, found, self._parts.remembered_person)
        except NotRememberedError:
            return None
        if answer is not None and self._is_for_all(asked, found):
            found.answers[asked.path] = answer
        return answer

    def _is_for_all(self, asked: Asked, found: FoundConfig) -> bool:
        """Return whether all requests for a domain at a path get the same answer."""
        if asked.path in _AUTOCONFIG:
            return is_for_all(self._parts, found)
        return asked.path == pacc.PATH or (
            asked.path == autodiscover.XML_PATH and asked.request is None
        )

    def _refuse(self, asked: Asked, error: UnknownDomainError) -> Answer | None:
        """Answer that a domain is unknown, as a text; None where it may have another form."""
        if asked.path in {autodiscover.XML_PATH, *_MOBILECONFIG}:
            return None
        return unknown_domain(error, asked.path, asked)

    def _autoconfig(self, asked: Asked, found: FoundConfig, who_is: WhoIs) -> Answer:
        body = document_of_person(self._parts, found, asked.address, who_is)
        if body is None:
            return self._public(found, autoconfig.render, autoconfig.CONTENT_TYPE)
        return personal_answer(body, autoconfig.CONTENT_TYPE)

    def _autodiscover(self, asked: Asked, found: FoundConfig, who_is: WhoIs) -> Answer:
        if asked.address is None or asked.request is None:
            return self._public(found, autodiscover.render, autodiscover.CONTENT_TYPE)
        body = document_for(found, asked.address, asked.request, who_is)
        return personal_answer(body, autodiscover.CONTENT_TYPE)

    def _mobileconfig(self, asked: Asked, found: FoundConfig, who_is: WhoIs) -> Answer | None:
        if asked.address is None or self._parts.signer is not None:
            return None
        person = who_is(found, asked.address)
        template = found.rendered(mobileconfig.template)
        body = template.fill(asked.address, person.login_name, person.display_name)
        headers = [("Content-Disposition", disposition(asked.address))]
        return personal_answer(body, mobileconfig.CONTENT_TYPE, headers)

    def _pacc(self, _: Asked, found: FoundConfig, __: WhoIs) -> Answer | None:
        with suppress(pacc.NothingToPublishError):
            return self._public(found, pacc.render, pacc.CONTENT_TYPE)
        return None

    def _redirect(self, asked: Asked, found: FoundConfig, _: WhoIs) -> Answer | None:
        key = (asked.path, asked.host)  # a domain has few hosts
        answer: Answer | None = found.answers.get(key)
        if answer is None:
            kind = wellknown.SERVICES[asked.path]
            with suppress(UnknownDomainError):
                answer = wellknown.redirect(found.config, kind, asked.host, asked.path)
                found.answers[key] = answer
        return answer

    def _public(
        self, found: FoundConfig, render: Callable[[ClientConfig], bytes], content_type: str
    ) -> Answer:
        answer = found.answers.get(render)
        if answer is None:
            body = found.pacc() if render is pacc.render else found.document(render)
            answer = public_answer(body, content_type, self._parts.settings)
            found.answers[render] = answer
        return answer


def _single(headers: Headers, names: Sequence[str]) -> tuple[str | None, ...] | None:
    """Return the values of some headers, None for each that is missing.

    None if one of them is there twice, is long, or is not ASCII.
    """
    found: list[str | None] = []
    for name in names:
        values = headers.get_all(name)
        if not values:
            if name in headers:
                return None
            found.append(None)
        elif len(values) > 1 or len(values[0]) > _LONGEST:
            return None
        else:
            found.append(values[0])
    return tuple(found)


@lru_cache(_READ)
def _where(values: tuple[str | None, ...], proxy_count: int) -> tuple[str, str | None] | None:
    """Return the host that a request is for, and its domain, by the values of _WHERE.

    The domain is None if the host belongs to none. None if the request is malformed.
    """
    environ: WSGIEnvironment = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}
    for name, value in zip(_WHERE, values, strict=False):
        if value is not None:
            environ[variable(name)] = value
    inbound = edge.read(environ, proxy_count)
    if inbound.error is not None:
        return None
    try:
        return inbound.host, domain_of(inbound)
    except UnknownDomainError:
        return inbound.host, None


def _address(query: str) -> EmailAddress | None:
    """Return the address that a query has in the usual way, None if it has none."""
    return _address_in(query) if len(query) <= _LONGEST else None


@lru_cache(_READ)
def _address_in(query: str) -> EmailAddress | None:
    found = _QUERY.fullmatch(query)
    if found is None:
        return None
    try:
        return EmailAddress(found[1], parse_domain(found[2]))
    except AddressError:
        return None
