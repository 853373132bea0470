"""Autodiscover, for Outlook, Thunderbird, eM Client and Delta Chat.

Standard: [MS-OXDSCLI], the outlook schema. From a server that is not
Exchange, Outlook reads IMAP, POP and SMTP; eM Client also reads CalDAV and CardDAV. Clients of
Exchange ActiveSync use the mobilesync schema ([MS-ASCMD], section 2.2.1.1). An answer holds the
settings of one schema only. The JSON of newer clients has no published specification.
"""

from dataclasses import dataclass
from datetime import datetime

from automx.address import EmailAddress, expand_url
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.errors import BadRequestError
from automx.formats import xml
from automx.formats.template import Template
from automx.formats.xml import Element, add

CONTENT_TYPE = "text/xml; charset=utf-8"

REQUEST_NS = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"
RESPONSE_NS = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
OUTLOOK_NS = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"

MOBILESYNC_REQUEST_NS = (
    "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/requestschema/2006"
)
MOBILESYNC_NS = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"
XML_PATH = "/autodiscover/autodiscover.xml"

_TYPES = {ServerType.IMAP: "IMAP", ServerType.POP3: "POP3", ServerType.SMTP: "SMTP"}
_DAV_TYPES = {ServiceType.CALDAV: "CalDAV", ServiceType.CARDDAV: "CardDAV"}
# Implicit TLS must be called SSL: Outlook takes TLS for STARTTLS. SSL "off" means plaintext to
# Thunderbird and Delta Chat, even beside an Encryption element.
_ENCRYPTION = {
    SocketType.SSL: ("on", "SSL"),
    SocketType.STARTTLS: ("on", "TLS"),
    SocketType.PLAIN: ("off", "None"),
}
# With SPA "on", Thunderbird logs in by one of these, with "off" by a password.
_SPA = {Authentication.NTLM, Authentication.GSSAPI}


class InvalidRequestError(BadRequestError):
    """The body of a request is not a request of [MS-OXDSCLI]."""


class SchemaNotServedError(BadRequestError):
    """The client accepts only a schema that this server does not serve."""

    public = "This response schema is not served here."


@dataclass(frozen=True, slots=True)
class Request:
    """A request for the settings of ``address`` (not parsed yet), in one of two schemas.

    ``outlook_will_do`` is whether the outlook schema answers a request for mobilesync, too, where a
    domain has no ActiveSync. Microsoft's service for the new Outlook asks in the namespace of
    Outlook for mobilesync; it goes on to IMAP where there is no ActiveSync, but fails by an error.
    """

    address: str
    mobilesync: bool = False
    outlook_will_do: bool = True


def parse_request(body: bytes) -> Request:
    """Return the request in the body of a POST.

    Raises InvalidRequestError for no XML, a document type, another namespace or a missing address,
    and SchemaNotServedError for another response schema.
    """
    try:
        root = xml.read(body)
    except xml.UnreadableError as error:
        raise InvalidRequestError(f"The request {error}.") from error
    space, _, name = root.tag.rpartition("}")
    namespace = space.removeprefix("{")
    if name != "Autodiscover" or namespace not in {REQUEST_NS, MOBILESYNC_REQUEST_NS}:
        raise InvalidRequestError(f"The request is not an Autodiscover element of {REQUEST_NS}.")
    request = root.find("Request", {"": namespace})
    if request is None:
        raise InvalidRequestError("The element Request is missing.")
    schema = request.findtext("AcceptableResponseSchema", "", {"": namespace}).strip()
    if not schema:
        schema = OUTLOOK_NS if namespace == REQUEST_NS else MOBILESYNC_NS
    if schema not in {OUTLOOK_NS, MOBILESYNC_NS}:
        raise SchemaNotServedError
    address = request.findtext("EMailAddress", "", {"": namespace}).strip()
    if not address:
        raise InvalidRequestError("The element EMailAddress is missing.")
    return Request(address, schema == MOBILESYNC_NS, namespace == REQUEST_NS)


def render(config: ClientConfig, address: EmailAddress | None = None) -> bytes:
    """Return the settings of an address; with None, those of the domain, without login names."""
    config = config.for_address(address).general()
    root, response = _document(OUTLOOK_NS)
    user = add(response, "User")
    add(user, "DisplayName", config.display_name or str(address or config.provider_name))
    if address is not None:
        add(user, "AutoDiscoverSMTPAddress", str(address))
    account = add(response, "Account")
    add(account, "AccountType", "email")
    add(account, "Action", "settings")
    for server in config.mail_servers:
        if server.type in _TYPES:
            _mail_server(add(account, "Protocol"), server, has_login=address is not None)
    for service in config.services:
        if service.type in _DAV_TYPES:
            _dav_server(add(account, "Protocol"), service, has_login=address is not None)
    return xml.to_bytes(root)


def template(config: ClientConfig) -> Template:
    """Return the template of a domain."""
    return Template(render, config)


def render_mobilesync(config: ClientConfig, address: EmailAddress) -> bytes:
    """Return the ActiveSync server of an address.

    Raises SchemaNotServedError if the domain has none.
    """
    url = activesync_url(config, address)
    if url is None:
        raise SchemaNotServedError
    root, response = _document(MOBILESYNC_NS)
    add(response, "Culture", "en:us")
    user = add(response, "User")
    add(user, "DisplayName", config.display_name or str(address))
    add(user, "EMailAddress", str(address))
    settings = add(add(response, "Action"), "Settings")
    server = add(settings, "Server")
    add(server, "Type", "MobileSync")
    add(server, "Url", url)
    add(server, "Name", url)
    return xml.to_bytes(root)


def activesync_url(config: ClientConfig, address: EmailAddress | None) -> str | None:
    """Return the URL of the domain's ActiveSync, or None if it has none."""
    for server in config.services:
        if server.type is ServiceType.ACTIVESYNC:
            return expand_url(server.url, config.domain, address)
    return None


def render_error(code: int, message: str, *, now: datetime) -> bytes:
    """Return an error document; ``code`` is one of [MS-OXDSCLI], such as 600, invalid request."""
    root, response = _document(RESPONSE_NS)
    error = add(response, "Error", Time=f"{now:%H:%M:%S.%f}0", Id="0")
    add(error, "ErrorCode", str(code))
    add(error, "Message", message)
    add(error, "DebugData")
    return xml.to_bytes(root)


def _document(response_ns: str) -> tuple[Element, Element]:
    """Return the root and the Response element.

    The namespaces are written as attributes, so that no prefix can appear: Thunderbird reads
    elements without prefix only.
    """
    root = xml.root("Autodiscover", xmlns=RESPONSE_NS)
    return root, add(root, "Response", xmlns=response_ns)


def _mail_server(protocol: Element, server: MailServer, *, has_login: bool) -> None:
    ssl, encryption = _ENCRYPTION[server.socket_type]
    has_spa = not server.takes_password and not _SPA.isdisjoint(server.authentication)
    add(protocol, "Type", _TYPES[server.type])
    add(protocol, "Server", server.hostname)
    add(protocol, "Port", str(server.port))
    add(protocol, "DomainRequired", "off")
    if has_login and server.user_name:
        add(protocol, "LoginName", server.user_name)
    add(protocol, "SPA", "on" if has_spa else "off")
    add(protocol, "SSL", ssl)
    add(protocol, "Encryption", encryption)
    add(protocol, "AuthRequired", "on" if server.needs_login else "off")
    if server.type is ServerType.SMTP:
        add(protocol, "UsePOPAuth", "off")
        add(protocol, "SMTPLast", "off")


def _dav_server(protocol: Element, service: Service, *, has_login: bool) -> None:
    add(protocol, "Type", _DAV_TYPES[service.type])
    add(protocol, "Server", service.url)
    add(protocol, "DomainRequired", "on" if service.domain_required else "off")
    if has_login:
        add(protocol, "LoginName", service.user_name)
    add(protocol, "SSL", "on" if service.url.startswith("https:") else "off")
