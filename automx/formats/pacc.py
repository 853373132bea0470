"""PACC: a domain's settings in JSON, with a digest in its DNS zone.

Standard: draft-ietf-mailmaint-pacc; submission is published under the names of -02 (``smtp``) and
of -03 (``submit``). A mail protocol has no port there: it means implicit TLS on 993, 995 or 465, so
any other server is left out, and so are IP addresses and ManageSieve, which has no such port (RFC
5804). A URL means https at port 443. The zone holds the SHA-256 of the document: its bytes depend
on the rows alone.
"""

import base64
import hashlib
import json
import re
from urllib.parse import urlsplit

from automx.address import is_ip
from automx.clientconfig import (
    IMPLICIT_TLS_PORTS,
    ClientConfig,
    MailServer,
    ServerType,
    ServiceType,
    SocketType,
)
from automx.errors import UnknownDomainError

CONTENT_TYPE = "application/json"
PATH = "/.well-known/user-agent-configuration.json"
HOST_PREFIX = "ua-auto-config"
TXT_NAME = "_ua-auto-config"
LOGO_PATH = "/logo"

_NAMES = {
    ServerType.IMAP: ("imap",),
    ServerType.POP3: ("pop3",),
    ServerType.SMTP: ("smtp", "submit"),
}
_URL_TYPES = (ServiceType.JMAP, ServiceType.CALDAV, ServiceType.CARDDAV, ServiceType.WEBDAV)


# An issuer has neither query nor fragment (RFC 8414, section 2).
_ISSUER = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#]*)?", re.ASCII)


class NothingToPublishError(UnknownDomainError):
    """The domain has no server that this format can describe."""


def render(config: ClientConfig) -> bytes:
    """Return the document of a domain; raises NothingToPublishError."""
    config = config.for_address(None).general()
    published = [server for server in config.mail_servers if _is_published(server)]
    protocols: dict[str, dict[str, str]] = {}
    for server in published:
        for name in _NAMES[server.type]:
            protocols.setdefault(name, {"host": server.hostname})
    for service in config.services:
        if service.type in _URL_TYPES and (url := _published_url(service.url)):
            protocols.setdefault(service.type.value, {"url": url})
    if not protocols:
        raise NothingToPublishError(cause=f"domain {config.domain}: nothing to publish by PACC")
    takes_password = not published or any(server.takes_password for server in published)
    authentication: dict[str, object] = {"password": takes_password}
    oauth2 = config.details.oauth2
    if oauth2 is not None and _ISSUER.fullmatch(oauth2.issuer):
        authentication["oauth-public"] = {"issuer": oauth2.issuer}
    document = {"authentication": authentication, "info": _info(config), "protocols": protocols}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_record(document: bytes) -> str:
    """Return the text of the TXT record for a document."""
    digest = base64.b64encode(hashlib.sha256(document).digest()).decode()
    return f"v=UAAC1; a=sha256; d={digest}"


def _is_published(server: MailServer) -> bool:
    """Return whether this format can describe a server."""
    is_standard = server.port == IMPLICIT_TLS_PORTS.get(server.type)
    is_ssl = server.socket_type is SocketType.SSL
    return is_ssl and is_standard and not is_ip(server.hostname)


def _published_url(url: str) -> str | None:
    """Return a URL as this format has it, with a path; None if it is not https at port 443."""
    parts = urlsplit(url)
    if parts.scheme != "https" or (parts.port or 443) != 443 or parts.username is not None:
        return None
    return parts._replace(netloc=parts.hostname or "", path=parts.path or "/").geturl()


def _info(config: ClientConfig) -> dict[str, object]:
    """Return the texts for people, and the logo; an SVG logo has no size."""
    details = config.details
    name, short_name = config.display_names
    provider: dict[str, object] = {"name": name, "shortName": short_name}
    if details.logo is not None:
        logo: dict[str, object] = {
            "url": f"https://{HOST_PREFIX}.{config.domain}{LOGO_PATH}",
            "content-type": details.logo.content_type,
        }
        if details.logo.content_type != "image/svg+xml":
            logo |= {"width": details.logo.width, "height": details.logo.height}
        provider["logo"] = [logo]
    info: dict[str, object] = {"provider": provider}
    pages = [page.url for page in details.documentation]
    help_: dict[str, object] = {}
    if documentation := details.help_url or (pages[0] if pages else ""):
        help_["documentation"] = documentation
    if details.support_address:
        help_["contact"] = [f"mailto:{details.support_address}"]
    if help_:
        info["help"] = help_
    return info
