"""Autoconfig, for Thunderbird, K-9, KMail, Evolution and Delta Chat.

Standard: draft-ietf-mailmaint-autoconfig, version 1.2 of the document. Where clients are stricter
than the draft, the clients are served: Thunderbird 153 loses the text of a leaf element that has an
attribute, and white space around a leaf's text is part of the value for Thunderbird for Android.
"""

from html import escape

from lxml import etree

from automx.address import LOGIN_MARK
from automx.clientconfig import ClientConfig, DavServer, DavType, MailServer

CONTENT_TYPE = "application/xml; charset=utf-8"

_DAV_ELEMENTS = {
    DavType.CALDAV: "calendar",
    DavType.CARDDAV: "addressbook",
    DavType.WEBDAV: "fileShare",
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
    for server in config.outgoing:
        _mail_server(etree.SubElement(provider, "outgoingServer", type=server.type), server)
    for dav_server in config.dav_servers:
        element = etree.SubElement(root, _DAV_ELEMENTS[dav_server.type], type=dav_server.type)
        _dav_server(element, dav_server)
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


def _dav_server(element: etree._Element, server: DavServer) -> None:
    _leaf(element, "url", server.url)
    # The draft's form, and one without attribute for readers that lose such text.
    etree.SubElement(element, "authentication", system="http").text = "basic"
    _leaf(element, "authentication", "basic")
    _leaf(element, "username", server.user_name)


def _leaf(parent: etree._Element, name: str, text: str) -> None:
    etree.SubElement(parent, name).text = text
