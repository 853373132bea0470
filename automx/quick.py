"""Answers without Flask: documents that are the same for everybody in a domain, and Autoconfig.

Most requests of mail clients are for these, in a few usual forms. Such a request is answered here,
byte for byte as the views would answer it; anything unusual is left to them.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from automx import edge
from automx.address import EmailAddress, parse_domain
from automx.cache import FoundConfig
from automx.clientconfig import ClientConfig
from automx.errors import AddressError, UnknownDomainError
from automx.formats import autoconfig, autodiscover, pacc
from automx.rsgi import Scope, client_of, variable
from automx.views import log, wellknown
from automx.views.autoconfig import document_of_person
from automx.views.failure import unknown_domain
from automx.views.http import Answer, Parts, domain_of, personal_answer, public_answer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# A query with an address; one with other characters is read by the views.
_QUERY = re.compile(
    r"emailaddress=(?=[^@%]{1,64}[@%])([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)(?:@|%40)"
    r"([A-Za-z0-9.-]+)",
    re.ASCII,
)
_WITH_ADDRESS = {
    autoconfig.PATH,
    f"/.well-known/autoconfig{autoconfig.PATH}",
    autodiscover.XML_PATH,
}
# With one of these, a request is not answered here.
_UNUSUAL = ("content-length", "transfer-encoding", "if-none-match", "expect")
# Headers that say where a request came from; without proxies, only the first.
_ORIGIN = ("host", *(f"x-forwarded-{name}" for name in ("for", "host", "proto", "prefix")))


class Asked(NamedTuple):
    """A request that may be answered here, for what a domain has at a path of a host.

    ``local_part`` is that of the address that it names, "" if it names none.
    """

    path: str
    local_part: str
    domain: str
    host: str
    client: str


class Quick:
    """Answers for the parts of an application. Safe for threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._proxy_count = parts.settings.proxy_count
        self._makers: Mapping[str, Callable[[Asked, FoundConfig], Answer | None]] = {
            autoconfig.PATH: self._autoconfig,
            f"/.well-known/autoconfig{autoconfig.PATH}": self._autoconfig,
            autodiscover.XML_PATH: self._autodiscover,
            pacc.PATH: self._pacc,
            **dict.fromkeys(wellknown.SERVICES, self._redirect),
        }

    def asked(self, scope: Scope) -> Asked | None:
        """Return what a request is for; None if it is not of the usual form."""
        path = scope.path
        if path not in self._makers or scope.method != "GET" or scope.authority:
            return None
        headers = scope.headers
        if any(name in headers for name in _UNUSUAL):
            return None
        inbound = self._inbound(scope)
        if inbound is None or inbound.error is not None:
            return None
        query = scope.query_string
        try:
            if not query:
                return Asked(path, "", domain_of(inbound), inbound.host, inbound.client)
            if path not in _WITH_ADDRESS:
                return None
            found = _QUERY.fullmatch(query)
            if found is None:
                return None
            domain = parse_domain(found[2])
            return Asked(path, found[1], domain, inbound.host, inbound.client)
        except (AddressError, UnknownDomainError):
            return None

    def known(self, asked: Asked) -> Answer | None:
        """Answer from memory; None if there is no answer there that is fresh."""
        found = self._parts.cache.fresh(asked.domain)
        if isinstance(found, FoundConfig):
            is_slow = asked.local_part and self._parts.directory_of(found) is not None
            return None if is_slow else self._answer(asked, found)
        return self._refuse(asked, found) if isinstance(found, UnknownDomainError) else None

    def found(self, asked: Asked) -> Answer | None:
        """Answer, from database and directory if need be; None if the views have to.

        Raises as lookup.find, DatabaseError, and DirectoryError.
        """
        try:
            return self._answer(asked, self._parts.find(asked.domain))
        except UnknownDomainError as error:
            if (answer := self._refuse(asked, error)) is None:
                raise
            return answer

    def _inbound(self, scope: Scope) -> edge.Inbound | None:
        """Return who asks, None if a header that tells it is there twice or is not ASCII."""
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": scope.method,
            "REMOTE_ADDR": client_of(scope),
            "wsgi.url_scheme": scope.scheme,
        }
        headers = scope.headers
        for name in _ORIGIN if self._proxy_count else _ORIGIN[:1]:
            values = headers.get_all(name)
            if len(values) == 1:
                environ[variable(name)] = values[0]
            elif name in headers:
                return None
        return edge.read(environ, self._proxy_count)

    def _answer(self, asked: Asked, found: FoundConfig) -> Answer | None:
        if found.age is not None:
            return None
        answer = self._makers[asked.path](asked, found)
        if answer is not None:
            log.write_access(asked.path, answer.status, asked.client)
        return answer

    def _refuse(self, asked: Asked, error: UnknownDomainError) -> Answer | None:
        """Answer that a domain is unknown, as a text; None for protocols of another form."""
        if asked.path == autodiscover.XML_PATH:
            return None
        answer = unknown_domain(error, asked.path, asked.client)
        log.write_access(asked.path, answer.status, asked.client)
        return answer

    def _autoconfig(self, asked: Asked, found: FoundConfig) -> Answer:
        address = EmailAddress(asked.local_part, asked.domain) if asked.local_part else None
        body = document_of_person(self._parts, found, address)
        if body is None:
            return self._public(found, autoconfig.render, autoconfig.CONTENT_TYPE)
        return personal_answer(body, autoconfig.CONTENT_TYPE)

    def _autodiscover(self, _: Asked, found: FoundConfig) -> Answer:
        return self._public(found, autodiscover.render, autodiscover.CONTENT_TYPE)

    def _pacc(self, _: Asked, found: FoundConfig) -> Answer | None:
        with suppress(pacc.NothingToPublishError):
            return self._public(found, pacc.render, pacc.CONTENT_TYPE)
        return None

    def _redirect(self, asked: Asked, found: FoundConfig) -> Answer | None:
        kind = wellknown.SERVICES[asked.path]
        with suppress(UnknownDomainError):
            return wellknown.redirect(found.config, kind, asked.host, asked.path)
        return None

    def _public(
        self, found: FoundConfig, render: Callable[[ClientConfig], bytes], content_type: str
    ) -> Answer:
        answer = found.answers.get(render)
        if answer is None:
            body = found.pacc() if render is pacc.render else found.document(render)
            answer = public_answer(body, content_type, self._parts.settings)
            found.answers[render] = answer
        return answer
