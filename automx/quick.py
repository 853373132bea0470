"""Answers without Flask: the documents of mail clients, and redirects.

Most requests of mail clients come in a few usual forms. Such a request is answered here, byte for
byte as the views would answer it; anything unusual is left to them.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from automx import edge
from automx.address import EmailAddress, parse_domain
from automx.cache import FoundConfig
from automx.clientconfig import ClientConfig
from automx.errors import AddressError, BadRequestError, UnknownDomainError
from automx.formats import autoconfig, autodiscover, mobileconfig, pacc
from automx.rsgi import Scope, client_of, variable
from automx.views import log, wellknown
from automx.views.autoconfig import document_of_person
from automx.views.autodiscover import document_for
from automx.views.failure import unknown_domain
from automx.views.http import Answer, Parts, domain_of, personal_answer, public_answer
from automx.views.mobileconfig import disposition

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# A query with an address; one with other characters is read by the views.
_QUERY = re.compile(
    r"emailaddress=(?=[^@%]{1,64}[@%])([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)(?:@|%40)"
    r"([A-Za-z0-9.-]+)",
    re.ASCII,
)
# With one of these, a request is not answered here.
_UNUSUAL = ("transfer-encoding", "if-none-match", "expect")
# Headers that say where a request came from; without proxies, only the first.
_ORIGIN = ("host", *(f"x-forwarded-{name}" for name in ("for", "host", "proto", "prefix")))
_MAX_BODY = 4096  # bytes; a longer request of Autodiscover is not read in the event loop

_AUTOCONFIG = (autoconfig.PATH, f"/.well-known/autoconfig{autoconfig.PATH}")
_MOBILECONFIG = ("/mobileconfig", "/mobileconfig/")
_WITH_ADDRESS = {*_AUTOCONFIG, *_MOBILECONFIG, autodiscover.XML_PATH}


class Asked(NamedTuple):
    """A request that may be answered here, for what a domain has at a path of a host.

    ``address`` is that of the person whose document is wanted, None for that of the domain.
    ``request`` is the document that the client has sent.
    """

    method: str
    path: str
    domain: str
    host: str
    client: str
    address: EmailAddress | None
    request: autodiscover.Request | None = None


class Quick:
    """Answers for the parts of an application. Safe for threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._proxy_count = parts.settings.proxy_count
        self._makers: Mapping[str, Callable[[Asked, FoundConfig], Answer | None]] = {
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
        method, path = scope.method, scope.path
        if path not in self._makers or scope.authority:
            return None
        headers = scope.headers
        if any(name in headers for name in _UNUSUAL):
            return None
        is_post = method == "POST" and path == autodiscover.XML_PATH
        if not is_post and (method != "GET" or "content-length" in headers):
            return None
        inbound = self._inbound(scope)
        if inbound is None or inbound.error is not None:
            return None
        if is_post:
            return Asked(method, path, "", inbound.host, inbound.client, None)
        try:
            named = _named(path, scope.query_string, inbound)
        except (AddressError, UnknownDomainError):
            return None
        return named and Asked(method, path, named[0], inbound.host, inbound.client, named[1])

    def posted(self, asked: Asked, body: bytes) -> Asked | None:
        """Return what a POST with a body is for; None if it is not of the usual form."""
        if len(body) > _MAX_BODY:
            return None
        with suppress(AddressError, BadRequestError):
            request = autodiscover.parse_request(body)
            address = EmailAddress.parse(request.address)
            return asked._replace(domain=address.domain, address=address, request=request)
        return None

    def known(self, asked: Asked) -> Answer | None:
        """Answer from memory; None if there is no answer there that is fresh."""
        found = self._parts.cache.fresh(asked.domain)
        if isinstance(found, FoundConfig):
            return None if self._may_wait(asked, found) else self._answer(asked, found)
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

    def _may_wait(self, asked: Asked, found: FoundConfig) -> bool:
        """Return whether an answer may have to wait for a directory."""
        return asked.address is not None and self._parts.directory_of(found) is not None

    def _answer(self, asked: Asked, found: FoundConfig) -> Answer | None:
        if found.age is not None:
            return None
        answer = self._makers[asked.path](asked, found)
        if answer is not None:
            log.write_access(asked.method, asked.path, answer.status, asked.client)
        return answer

    def _refuse(self, asked: Asked, error: UnknownDomainError) -> Answer | None:
        """Answer that a domain is unknown, as a text; None for protocols of another form."""
        if asked.path == autodiscover.XML_PATH:
            return None
        answer = unknown_domain(error, asked.path, asked.client)
        log.write_access(asked.method, asked.path, answer.status, asked.client)
        return answer

    def _autoconfig(self, asked: Asked, found: FoundConfig) -> Answer:
        body = document_of_person(self._parts, found, asked.address)
        if body is None:
            return self._public(found, autoconfig.render, autoconfig.CONTENT_TYPE)
        return personal_answer(body, autoconfig.CONTENT_TYPE)

    def _autodiscover(self, asked: Asked, found: FoundConfig) -> Answer:
        if asked.address is None or asked.request is None:
            return self._public(found, autodiscover.render, autodiscover.CONTENT_TYPE)
        body = document_for(self._parts, found, asked.address, asked.request)
        return personal_answer(body, autodiscover.CONTENT_TYPE)

    def _mobileconfig(self, asked: Asked, found: FoundConfig) -> Answer | None:
        if asked.address is None or self._parts.signer is not None:
            return None
        person = self._parts.known_person(found, asked.address)
        template = found.rendered(mobileconfig.template)
        body = template.fill(asked.address, person.login_name, person.display_name)
        headers = [("Content-Disposition", disposition(asked.address))]
        return personal_answer(body, mobileconfig.CONTENT_TYPE, headers)

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


def _named(path: str, query: str, inbound: edge.Inbound) -> tuple[str, EmailAddress | None] | None:
    """Return the domain that a GET request is for, and the address if it is for a person.

    None if that is not told in the usual way. Raises AddressError, and UnknownDomainError.
    """
    if not query:
        return None if path in _MOBILECONFIG else (domain_of(inbound), None)
    found = _QUERY.fullmatch(query) if path in _WITH_ADDRESS else None
    if found is None:
        return None
    domain = parse_domain(found[2])
    is_personal = path != autodiscover.XML_PATH
    return domain, EmailAddress(found[1], domain) if is_personal else None
