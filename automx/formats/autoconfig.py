"""Autoconfig, for Thunderbird, K-9, KMail, Evolution and Delta Chat.

Standard: draft-ietf-mailmaint-autoconfig, version 1.2 of the document. Where clients are stricter
than the draft, the document follows the clients: Thunderbird 153 loses the text of a leaf element
that has an attribute, and Thunderbird for Android takes white space around a leaf's text as part
of the value.
"""

from automx.address import EmailAddress
from automx.clientconfig import ClientConfig, MailServer, OAuth2, Service, ServiceType
from automx.formats import xml
from automx.formats.template import Template
from automx.formats.xml import Element, add

CONTENT_TYPE = "application/xml; charset=utf-8"
PATH = "/mail/config-v1.1.xml"

_DAV_ELEMENTS = {
    ServiceType.CALDAV: "calendar",
    ServiceType.CARDDAV: "addressbook",
    ServiceType.WEBDAV: "fileShare",
}


def render(config: ClientConfig, address: EmailAddress | None = None) -> bytes:
    """Return the document for an address; with None, that for all addresses of the domain.

    Placeholders are filled in as far as they are known; others, and a user name that is exactly
    %EMAILADDRESS%, are filled in by the client. Raises BadRecordError if the domain has no incoming
    or no outgoing server: Thunderbird refuses such a document and stops its search.
    """
    config.check_complete()
    config = config.for_client(address).general()
    root = xml.root("clientConfig", version="1.2")
    # Thunderbird wants a host name here, which cannot hold "_".
    provider = add(root, "emailProvider", id=config.domain.replace("_", "-"))
    add(provider, "domain", config.domain)
    add(provider, "displayName", config.provider_name)
    add(provider, "displayShortName", config.provider_short_name)
    for server in config.incoming:
        _mail_server(add(provider, "incomingServer", type=server.type), server)
    for service in config.services:  # after the servers that every client knows
        if service.type is ServiceType.JMAP:
            _dav_server(add(provider, "incomingServer", type="jmap"), service)
    for server in config.outgoing:
        _mail_server(add(provider, "outgoingServer", type=server.type), server)
    pages: dict[str, Element] = {}  # an element for each page has its titles in all languages
    for page in config.details.documentation:
        if page.url not in pages:
            pages[page.url] = add(provider, "documentation", url=page.url)
        add(pages[page.url], "descr", page.text, lang=page.language)
    for service in config.services:
        if name := _DAV_ELEMENTS.get(service.type):
            _dav_server(add(root, name, type=service.type), service)
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


def _dav_server(element: Element, server: Service) -> None:
    add(element, "url", server.url)
    # The draft's form, and one without attribute for clients that lose the text of the other.
    add(element, "authentication", "basic", system="http")
    add(element, "authentication", "basic")
    add(element, "username", server.user_name)


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
