"""Mobileconfig: configuration profiles for iPhone, iPad and Mac.

Standard: Apple's device management schema (iOS 18), payloads com.apple.mail.managed,
com.apple.caldav.account and com.apple.carddav.account. A device replaces a profile of the same
PayloadIdentifier, so identifiers and UUIDs depend on the address alone.
"""

import plistlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlsplit

from automx.address import EmailAddress, expand, expand_url
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
    best_first,
)
from automx.errors import BadRecordError
from automx.formats.template import Template

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


# With these, people can switch S/MIME on for an account that comes from a profile.
_SMIME_CHOICES = (
    "SMIMESigningUserOverrideable",
    "SMIMESigningCertificateUUIDUserOverrideable",
    "SMIMEEncryptByDefaultUserOverrideable",
    "SMIMEEncryptionCertificateUUIDUserOverrideable",
    "SMIMEEnableEncryptionPerMessageSwitch",
)


def render(
    config: ClientConfig,
    address: EmailAddress,
    *,
    password: str = "",
    removal_date: datetime | None = None,
) -> bytes:
    """Return the profile of an address as an XML property list.

    Without a ``password``, the device asks for it. The device removes the profile of a temporary
    account on ``removal_date`` (with time zone). Raises BadRecordError if the domain has no
    incoming or no outgoing server that a profile can describe: it needs one of each.
    """
    content = [_mail(config, address, password)]
    for server, subject in _services(config):
        content.append(_dav(config, address, server, subject, password))
    profile = _payload("Configuration", address, config.provider_name) | {
        "PayloadContent": content,
        "PayloadDescription": f"Sets up {address} on this device.",
        "PayloadOrganization": config.provider_name,
        "PayloadRemovalDisallowed": False,
    }
    if removal_date is not None:  # property lists know UTC only
        profile["RemovalDate"] = removal_date.astimezone(UTC).replace(tzinfo=None)
    return plistlib.dumps(profile)


def is_possible(config: ClientConfig) -> bool:
    """Return whether a profile can be made of the settings of a domain."""
    with suppress(BadRecordError):
        return bool(_servers(config))
    return False


def template(config: ClientConfig) -> Template:
    """Return the template of a domain; render() is far slower than its fill()."""
    return Template(render, config, derived=_uuid_of)


def has_services(config: ClientConfig) -> bool:
    """Return whether a profile has calendars or address books."""
    return any(True for _ in _services(config))


def mail_only(config: ClientConfig) -> ClientConfig:
    """Return settings without calendars and address books."""
    return replace(config, services=())


def mail_template(config: ClientConfig) -> Template:
    """Return the template of a domain for profiles with mail only."""
    return template(mail_only(config))


def _mail(config: ClientConfig, address: EmailAddress, password: str) -> dict[str, object]:
    incoming, outgoing = _servers(config)
    is_imap = incoming.type is ServerType.IMAP
    payload = _payload("com.apple.mail.managed", address, f"Mail {address}") | {
        "EmailAccountDescription": str(address),
        "EmailAccountName": config.display_name or str(address),
        "EmailAccountType": "EmailTypeIMAP" if is_imap else "EmailTypePOP",
        "EmailAddress": str(address),
    }
    for prefix, server in (("Incoming", incoming), ("Outgoing", outgoing)):
        payload[f"{prefix}MailServerAuthentication"] = _authentication(server.authentication)
        payload[f"{prefix}MailServerHostName"] = expand(server.hostname, config.domain, address)
        payload[f"{prefix}MailServerPortNumber"] = server.port
        payload[f"{prefix}MailServerUseSSL"] = server.socket_type is not SocketType.PLAIN
        if server.user_name:
            user_name = expand(server.user_name, config.domain, address)
            payload[f"{prefix}MailServerUsername"] = user_name
    same_login = incoming.user_name == outgoing.user_name
    payload["OutgoingPasswordSameAsIncomingPassword"] = same_login
    payload |= dict.fromkeys(_SMIME_CHOICES, True)
    if password:
        payload["IncomingPassword"] = password
        if outgoing.needs_login and not same_login:
            payload["OutgoingPassword"] = password
    return payload


def _servers(config: ClientConfig) -> tuple[MailServer, MailServer]:
    """Return the incoming and the outgoing server of a profile.

    OAuth2, Kerberos and certificates have no word in a profile, so servers that offer nothing else
    are left out. Raises BadRecordError if that leaves none.
    """
    config.check_complete()
    known = config.having(lambda s: not _AUTHENTICATIONS.keys().isdisjoint(s.authentication))
    known = known.encrypted()
    for kind in known.missing:
        methods = "OAuth2, GSSAPI or TLS-client-cert"
        cause = f"domain {config.domain}: a profile cannot say {methods}, and no {kind} mail"
        raise BadRecordError(cause=f"{cause} server has another method")
    incoming = best_first(known.incoming)
    same_type = [server for server in incoming if server.type is incoming[0].type]
    return _first(same_type), _first(known.outgoing)


def _first(servers: Sequence[MailServer]) -> MailServer:
    """Return the first server with a password, else the first one."""
    return next((server for server in servers if server.takes_password), servers[0])


def _authentication(methods: Iterable[Authentication]) -> str:
    """Return Apple's word for the best method that has one."""
    return next(_AUTHENTICATIONS[method] for method in methods if method in _AUTHENTICATIONS)


def _services(config: ClientConfig) -> Iterator[tuple[Service, str]]:
    """Yield calendars and address books, each once, and a text that is different for each.

    iOS refuses a profile with two equal UUIDs. The text has the user name only where the URL does
    not do: the UUID stays when a row gets another user name.
    """
    users: dict[str, list[str]] = {}
    for server in config.services:
        if server.type in _DAV_KEYS:
            subject = f"{server.type} {server.url}"
            others = users.setdefault(subject, [])
            if server.user_name not in others:
                yield server, f"{subject} {server.user_name}" if others else subject
                others.append(server.user_name)


def _dav(
    config: ClientConfig, address: EmailAddress, server: Service, subject: str, password: str
) -> dict[str, object]:
    payload_type, key = _DAV_KEYS[server.type]
    url = urlsplit(expand_url(server.url, config.domain, address) or "")
    use_ssl = url.scheme == "https"
    payload = _payload(payload_type, address, f"{key} {address}", subject) | {
        f"{key}AccountDescription": f"{config.provider_short_name} {address}",
        f"{key}HostName": (url.hostname or "").lower(),  # hostname keeps the case behind a "%"
        f"{key}Port": url.port or (443 if use_ssl else 80),
        f"{key}UseSSL": use_ssl,
        f"{key}Username": expand(server.user_name, config.domain, address),
    }
    path = url._replace(scheme="", netloc="", path=url.path or "/", fragment="").geturl()
    if path.strip("/"):
        payload[f"{key}PrincipalURL"] = path
    if password:
        payload[f"{key}Password"] = password
    return payload


def _payload(
    payload_type: str, address: EmailAddress, display_name: str, subject: str = ""
) -> dict[str, object]:
    """Return the keys that all payloads have.

    The UUID depends only on the address, in lower case, and the subject. It is of version 8
    (RFC 9562, section 5.8): the last part is a hash of the subject, the others are a hash of the
    address.
    """
    subject_hash = sha256((subject or payload_type).encode()).hexdigest()[:12].upper()
    uuid = f"{_uuid_of(address)}-{subject_hash}"
    reversed_domain = ".".join(reversed(address.domain.split(".")))
    return {
        "PayloadDisplayName": display_name,
        "PayloadIdentifier": f"{reversed_domain}.automx.{uuid}",
        "PayloadType": payload_type,
        "PayloadUUID": uuid,
        "PayloadVersion": 1,
    }


def _uuid_of(address: EmailAddress) -> str:
    """Return the parts of a UUID that are a hash of the address."""
    digits = sha256(f"mailto:{address}".lower().encode()).hexdigest().upper()
    variant = "89AB"[int(digits[12], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}"
