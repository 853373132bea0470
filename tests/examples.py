"""Examples for many tests: a provider of whom everything is known, and settings of mail clients."""

import base64
from dataclasses import replace
from typing import Any

from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    SocketType,
)

# A seed document, with details of all kinds.
LOGO = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'
DOCUMENT: dict[str, Any] = {
    "version": 2,
    "provider": "Example Inc.",
    "details": {
        "webmail_url": "https://mail.example.com/",
        "help_url": "https://help.example.com/",
        "support_address": "help@example.com",
        "color": "#1a5fb4",
        "logo": {
            "type": "image/svg+xml",
            "width": 8,
            "height": 8,
            "data": base64.b64encode(LOGO).decode(),
        },
        "oauth2": {
            "issuer": "https://login.example.com",
            "auth_url": "https://login.example.com/authorize",
            "token_url": "https://login.example.com/token",
            "scope": "mail offline_access",
            "client_id": "mail-clients",
        },
        "documentation": [
            {"url": "https://help.example.com/mail", "lang": "en", "text": "Set up <your> mail"},
            {"url": "https://help.example.com/mail", "lang": "de", "text": "E-Mail einrichten"},
            {"url": "https://help.example.com/ios", "lang": "en", "text": "iPhone"},
        ],
    },
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 993},
        {"type": "smtp", "name": "smtp.example.com", "port": 465},
        {"type": "managesieve", "name": "imap.example.com", "port": 4190},
        {"type": "jmap", "url": "https://jmap.example.com/session"},
        {"type": "activesync", "url": "https://sync.example.com/Microsoft-Server-ActiveSync"},
    ],
    "domains": [{"name": "example.com"}],
}

IMAP = MailServer(
    ServerType.IMAP,
    "imap.example.com",
    993,
    SocketType.SSL,
    "%EMAILADDRESS%",
    (Authentication.PASSWORD_CLEARTEXT,),
)
SMTP = replace(IMAP, type=ServerType.SMTP, hostname="smtp.example.com", port=465)


def config(*servers: MailServer, **values: Any) -> ClientConfig:
    """Return the settings of example.com with these servers; ``values`` are further fields."""
    return ClientConfig("example.com", "Example Inc.", "Example", servers, (), **values)
