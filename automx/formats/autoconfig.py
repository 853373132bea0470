"""Autoconfig, for Thunderbird, K-9, KMail, Evolution and Delta Chat.

Standard: draft-ietf-mailmaint-autoconfig, version 1.2 of the document. Where clients are stricter
than the draft, the clients are served: Thunderbird 153 loses the text of a leaf element that has an
attribute, and white space around a leaf's text is part of the value for Thunderbird for Android.
"""

from html import escape

from lxml import etree

from automx.address import LOGIN_MARK
from automx.clientconfig import (
    ClientConfig,
    MailServer,
    OAuth2,
    ProviderDetails,
    Service,
    ServiceType,
)

CONTENT_TYPE = "application/xml; charset=utf-8"

_DAV_ELEMENTS = {
    ServiceType.CALDAV: "calendar",
    ServiceType.CARDDAV: "addressbook",
    ServiceType.WEBDAV: "fileShare",
}


def render(config: ClientConfig) -> bytes:
    """Return the document for a domain; it is the same for all addresses.

    Placeholders are passed on: every client fills in the address that was typed.
    """
    root = etree.Element("clientConfig", version="1.2")
    # Thunderbird wants a host name here; "_" is none.
    provider = etree.SubElement(root, "emailProvider", id=config.domain.replace("_", "-"))
    _leaf(provider, "domain", config.domain)
    _leaf(provider, "displayName", config.provider_name)
    _leaf(provider, "displayShortName", config.provider_short_name)
    for server in config.incoming:
        _mail_server(etree.SubElement(provider, "incomingServer", type=server.type), server)
    for service in config.services:  # behind those that every client knows
        if service.type is ServiceType.JMAP:
            _dav_server(etree.SubElement(provider, "incomingServer", type="jmap"), service)
    for server in config.outgoing:
        _mail_server(etree.SubElement(provider, "outgoingServer", type=server.type), server)
    _documentation(provider, config.details)
    for service in config.services:
        if name := _DAV_ELEMENTS.get(service.type):
            _dav_server(etree.SubElement(root, name, type=service.type), service)
    if config.details.webmail_url:  # Mozilla's element; the draft lets it be
        web_mail = etree.SubElement(root, "webMail")
        etree.SubElement(web_mail, "loginPage", url=config.details.webmail_url)
    if config.details.oauth2 is not None:
        _oauth2(root, config.details.oauth2)
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True)


class LoginTemplate:
    """The documents of a domain's people who log in by a name of their own, to be filled in."""

    def __init__(self, config: ClientConfig) -> None:
        document = render(config.for_person(LOGIN_MARK)).decode().replace("%", "%%")
        self._template = document.replace(LOGIN_MARK, "%(login_name)s")

    def fill(self, login_name: str) -> bytes:
        """Return the same bytes as render() does for a person with this login name."""
        return (self._template % {"login_name": escape(login_name, quote=False)}).encode()


def _mail_server(element: etree._Element, server: MailServer) -> None:
    _leaf(element, "hostname", server.hostname)
    _leaf(element, "port", str(server.port))
    _leaf(element, "socketType", server.socket_type)
    _leaf(element, "username", server.user_name)
    for method in server.authentication:
        _leaf(element, "authentication", method)


def _dav_server(element: etree._Element, server: Service) -> None:
    _leaf(element, "url", server.url)
    # The draft's form, and one without attribute for readers that lose such text.
    etree.SubElement(element, "authentication", system="http").text = "basic"
    _leaf(element, "authentication", "basic")
    _leaf(element, "username", server.user_name)


def _documentation(provider: etree._Element, details: ProviderDetails) -> None:
    """Write one element for each page, with its titles in all languages."""
    elements: dict[str, etree._Element] = {}
    for page in details.documentation:
        if page.url not in elements:
            elements[page.url] = etree.SubElement(provider, "documentation", url=page.url)
        etree.SubElement(elements[page.url], "descr", lang=page.language).text = page.text


def _oauth2(root: etree._Element, oauth2: OAuth2) -> None:
    """Write how people log in by OAuth 2.0; nothing if a part is missing that nobody can guess."""
    texts = {
        "issuer": oauth2.issuer,
        "scope": oauth2.scope,
        "authURL": oauth2.auth_url,
        "tokenURL": oauth2.token_url,
    }
    if all(texts.values()):
        element = etree.SubElement(root, "oAuth2")
        for name, text in texts.items():
            _leaf(element, name, text)
        if oauth2.client_id:
            _leaf(element, "clientID", oauth2.client_id)


def _leaf(parent: etree._Element, name: str, text: str) -> None:
    etree.SubElement(parent, name).text = text
