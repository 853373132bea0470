"""Mobileconfig: configuration profiles for iPhone, iPad and Mac.

Standard: Apple's device management schema (iOS 18), payloads com.apple.mail.managed,
com.apple.caldav.account and com.apple.carddav.account. A device replaces a profile of the same
PayloadIdentifier, so identifiers and UUIDs depend on the address alone.
"""

import plistlib
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from urllib.parse import urlsplit

from automx.address import (
    LOGIN_MARK,
    MARK,
    NAME_MARK,
    URL_MARK,
    EmailAddress,
    expand,
    expand_url,
    in_url,
)
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.errors import BadRecordError

CONTENT_TYPE = "application/x-apple-aspen-config"

_AUTHENTICATIONS = {
    Authentication.PASSWORD_CLEARTEXT: "EmailAuthPassword",
    Authentication.PASSWORD_ENCRYPTED: "EmailAuthCRAMMD5",
    Authentication.NTLM: "EmailAuthNTLM",
    Authentication.NONE: "EmailAuthNone",
    Authentication.CLIENT_IP_ADDRESS: "EmailAuthNone",
}
_DAV_KEYS = {
    ServiceType.CALDAV: ("com.apple.caldav.account", "CalDAV"),
    ServiceType.CARDDAV: ("com.apple.carddav.account", "CardDAV"),
}


def render(
    config: ClientConfig,
    address: EmailAddress,
    *,
    name: str = "",
    password: str = "",
    removal_date: datetime | None = None,
) -> bytes:
    """Return the profile of an address as an XML property list.

    ``name`` is the display name of the person, ``password`` the one of the account; an empty one
    is left out, and the device asks for it. The device removes the profile of a temporary account
    on ``removal_date`` (with time zone). Raises BadRecordError if the domain has no incoming or
    no outgoing server: a profile needs one of each.
    """
    incoming = _best(config, ServerType.IMAP) or _best(config, ServerType.POP3)
    outgoing = _best(config, ServerType.SMTP)
    if incoming is None or outgoing is None:
        missing = "outgoing" if incoming else "incoming"
        raise BadRecordError(cause=f"domain {config.domain}: no usable {missing} mail server")
    content = [_mail(config, address, incoming, outgoing, name, password)]
    services = (server for server in config.services if server.type in _DAV_KEYS)
    content += (_dav(config, address, server, password) for server in services)
    profile = _payload("Configuration", address, config, config.provider_name) | {
        "PayloadContent": content,
        "PayloadDescription": f"Sets up {address} on this device.",
        "PayloadOrganization": config.provider_name,
        "PayloadRemovalDisallowed": False,
    }
    if removal_date is not None:  # property lists know UTC only
        profile["RemovalDate"] = removal_date.astimezone(UTC).replace(tzinfo=None)
    return plistlib.dumps(profile)


class Template:
    """The profiles of all addresses of a domain, rendered once and filled in for each person.

    A property list takes longer to write than all the rest of an answer. Raises BadRecordError as
    render() does.
    """

    def __init__(self, config: ClientConfig) -> None:
        marked = EmailAddress(MARK, config.domain)
        document = render(config, marked, name=NAME_MARK).decode().replace("%", "%%")
        document = document.replace(MARK, "%(local_part)s").replace(NAME_MARK, "%(name)s")
        document = document.replace(URL_MARK, "%(in_url)s").replace(LOGIN_MARK, "%(login_name)s")
        self._template = document.replace(_uuid_of(marked), "%(uuid)s")

    def fill(self, address: EmailAddress, name: str = "", login_name: str = "") -> bytes:
        """Return the same bytes as render() does for this address of the domain.

        ``login_name`` has an effect in a login_template() only.
        """
        values = {
            "local_part": escape(address.local_part, quote=False),
            "in_url": escape(in_url(address.local_part), quote=False),
            "login_name": escape(login_name, quote=False),
            "name": escape(name or str(address), quote=False),
            "uuid": _uuid_of(address),
        }
        return (self._template % values).encode()


def login_template(config: ClientConfig) -> Template:
    """Return the profiles of people of a domain who log in by a name of their own."""
    return Template(config.for_person(LOGIN_MARK))


def _best(config: ClientConfig, type_: ServerType) -> MailServer | None:
    """Return the preferred server of a type, but none in plaintext if there is an encrypted one."""
    servers = [server for server in config.mail_servers if server.type is type_]
    encrypted = [server for server in servers if server.socket_type is not SocketType.PLAIN]
    return next(iter(encrypted or servers), None)


def _mail(
    config: ClientConfig,
    address: EmailAddress,
    incoming: MailServer,
    outgoing: MailServer,
    name: str,
    password: str,
) -> dict[str, object]:
    is_imap = incoming.type is ServerType.IMAP
    payload = _payload("com.apple.mail.managed", address, config, f"Mail {address}") | {
        "EmailAccountDescription": str(address),
        "EmailAccountName": name or config.display_name or str(address),
        "EmailAccountType": "EmailTypeIMAP" if is_imap else "EmailTypePOP",
        "EmailAddress": str(address),
    }
    for prefix, server in (("Incoming", incoming), ("Outgoing", outgoing)):
        payload[f"{prefix}MailServerAuthentication"] = _authentication(server.authentication)
        payload[f"{prefix}MailServerHostName"] = expand(server.hostname, config.domain, address)
        payload[f"{prefix}MailServerPortNumber"] = server.port
        payload[f"{prefix}MailServerUseSSL"] = server.socket_type is not SocketType.PLAIN
        payload[f"{prefix}MailServerUsername"] = expand(server.user_name, config.domain, address)
    same_login = incoming.user_name == outgoing.user_name
    payload["OutgoingPasswordSameAsIncomingPassword"] = same_login
    if password:
        payload["IncomingPassword"] = password
        if not same_login:
            payload["OutgoingPassword"] = password
    return payload


def _authentication(methods: Sequence[Authentication]) -> str:
    """Return Apple's word for the best method it knows; it has none for OAuth2 or certificates."""
    known = (_AUTHENTICATIONS[method] for method in methods if method in _AUTHENTICATIONS)
    return next(known, "EmailAuthPassword")


def _dav(
    config: ClientConfig, address: EmailAddress, server: Service, password: str
) -> dict[str, object]:
    payload_type, key = _DAV_KEYS[server.type]
    url = urlsplit(expand_url(server.url, config.domain, address) or "")
    use_ssl = url.scheme == "https"
    payload = _payload(payload_type, address, config, f"{key} {address}", _subject(server)) | {
        f"{key}AccountDescription": f"{config.provider_short_name} {address}",
        f"{key}HostName": url.hostname or "",
        f"{key}Port": url.port or (443 if use_ssl else 80),
        f"{key}UseSSL": use_ssl,
        f"{key}Username": expand(server.user_name, config.domain, address),
    }
    if url.path.strip("/"):
        payload[f"{key}PrincipalURL"] = url.path
    if password:
        payload[f"{key}Password"] = password
    return payload


def _subject(server: Service) -> str:
    """Return what tells the payload of a DAV server from all others of an address."""
    return f"{server.type} {server.url}"


def _payload(
    payload_type: str,
    address: EmailAddress,
    config: ClientConfig,
    display_name: str,
    subject: str = "",
) -> dict[str, object]:
    """Return the keys that every payload has."""
    uuid = _uuid(address, subject or payload_type)
    reversed_domain = ".".join(reversed(config.domain.split(".")))
    return {
        "PayloadDisplayName": display_name,
        "PayloadIdentifier": f"{reversed_domain}.automx.{uuid}",
        "PayloadType": payload_type,
        "PayloadUUID": uuid,
        "PayloadVersion": 1,
    }


def _uuid(address: EmailAddress, subject: str) -> str:
    """Return a UUID that depends on the address, in any case, and on nothing that may change.

    It is of version 8 (RFC 9562, section 5.8): the last part stands for the subject, all others for
    the address.
    """
    return f"{_uuid_of(address)}-{sha256(subject.encode()).hexdigest()[:12].upper()}"


def _uuid_of(address: EmailAddress) -> str:
    """Return those parts of a UUID that stand for the address."""
    digits = sha256(f"mailto:{address}".lower().encode()).hexdigest().upper()
    variant = "89AB"[int(digits[12], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}"
