"""Autoconfig, for Thunderbird, K-9, KMail, Evolution and Delta Chat.

Standard: draft-ietf-mailmaint-autoconfig-06, version 1.2 of the document. Where clients are
stricter than the draft, the document follows the clients: Thunderbird 153 loses the text of a leaf
element that has an attribute, and Thunderbird for Android takes white space around a leaf's text as
part of the value.
"""

from collections.abc import Iterable, Mapping

from automx.address import EmailAddress
from automx.clientconfig import ClientConfig, Documentation, MailServer, OAuth2, ServiceType
from automx.formats import xml
from automx.formats.template import Template
from automx.formats.xml import Element, add

CONTENT_TYPE = "application/xml; charset=utf-8"
PATH = "/mail/config-v1.1.xml"

# Element and type of services, by the registry of the draft.
BESIDE_PROVIDER = {
    ServiceType.CALDAV: ("calendar", "caldav"),
    ServiceType.CARDDAV: ("addressbook", "carddav"),
    ServiceType.WEBDAV: ("fileShare", "webdav"),
    ServiceType.XMPP: ("chatServer", "xmpp"),
    ServiceType.MATRIX: ("chatServer", "matrix"),
}
INCOMING = {
    ServiceType.JMAP: ("incomingServer", "jmap"),
    ServiceType.EWS: ("incomingServer", "ews"),
    ServiceType.ACTIVESYNC: ("incomingServer", "activeSync"),
    ServiceType.GRAPH: ("incomingServer", "graph"),
}
# The log-in of services whose password does not go by HTTP.
_OTHER_LOGIN = {ServiceType.GRAPH: ["OAuth2"], ServiceType.XMPP: [], ServiceType.MATRIX: []}


def render(config: ClientConfig, address: EmailAddress | None = None) -> bytes:
    """Return the document for an address; with None, that for all addresses of the domain.

    Placeholders are filled in as far as they are known; others, and a user name that is exactly
    %EMAILADDRESS%, are filled in by the client. Raises BadRecordError if the domain has no incoming
    or no outgoing server: Thunderbird refuses such a document and stops its search.
    """
    config.check_complete()
    config = config.for_client(address).general()
    root = xml.root("clientConfig", version="1.2")
    # FairEmail takes the last user name of the document: that of a mail server has to be the last.
    _services(root, config, BESIDE_PROVIDER)
    for server in config.sieve:
        _mail_server(add(root, "setupServer", type=server.type), server)
    provider = add(root, "emailProvider", id=config.domain)
    name, short_name = config.display_names
    add(provider, "domain", config.domain)
    add(provider, "displayName", name)
    add(provider, "displayShortName", short_name)
    for server in config.incoming:
        _mail_server(add(provider, "incomingServer", type=server.type), server)
    _services(provider, config, INCOMING)  # after the servers that every client knows
    for server in config.outgoing:
        _mail_server(add(provider, "outgoingServer", type=server.type), server)
    _documentation(provider, config.details.documentation)
    if config.details.webmail_url:  # Mozilla's element; the draft allows it
        add(add(root, "webMail"), "loginPage", url=config.details.webmail_url)
    if config.details.oauth2 is not None:
        _oauth2(root, config.details.oauth2)
    return xml.to_bytes(root)


def is_personal(config: ClientConfig) -> bool:
    """Return whether the document differs between the addresses of a domain."""
    return config.for_client(EmailAddress("x", config.domain)) != config.for_client(None)


def template(config: ClientConfig) -> Template:
    """Return the template of a domain."""
    return Template(render, config)


def _mail_server(element: Element, server: MailServer) -> None:
    add(element, "hostname", server.hostname)
    add(element, "port", str(server.port))
    add(element, "socketType", server.socket_type)
    if server.user_name:
        add(element, "username", server.user_name)
    for method in server.authentication:
        add(element, "authentication", method)


def _services(
    parent: Element, config: ClientConfig, elements: Mapping[ServiceType, tuple[str, str]]
) -> None:
    """Write the services whose types are in ``elements``, which has the element of each."""
    for service in config.services:
        if service.type not in elements:
            continue
        name, type_ = elements[service.type]
        element = add(parent, name, type=type_)
        add(element, "url", service.url)
        if service.type not in _OTHER_LOGIN:
            # The draft's form, and one without attribute for clients that lose the text of it.
            add(element, "authentication", "Basic", system="http")
        for method in _OTHER_LOGIN.get(service.type, ["Basic"]):
            add(element, "authentication", method)
        add(element, "username", service.user_name)


def _documentation(provider: Element, pages: Iterable[Documentation]) -> None:
    """Write an element for each page, with its titles in all languages."""
    elements: dict[str, Element] = {}
    for page in pages:
        if page.url not in elements:
            elements[page.url] = add(provider, "documentation", url=page.url)
        if page.text:
            language = {"lang": page.language} if page.language else {}
            add(elements[page.url], "descr", page.text, **language)


def _oauth2(root: Element, oauth2: OAuth2) -> None:
    """Write the OAuth 2.0 settings; nothing if a required one is missing."""
    texts = {
        "issuer": oauth2.issuer,
        "scope": oauth2.scope,
        "authURL": oauth2.auth_url,
        "tokenURL": oauth2.token_url,
    }
    if all(texts.values()):
        element = add(root, "oAuth2")
        for name, text in texts.items():
            add(element, name, text)
        if oauth2.client_id:
            add(element, "clientID", oauth2.client_id)
