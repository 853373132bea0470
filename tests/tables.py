"""A row of each table, as people insert it, for tests that put odd values into their columns."""

from typing import Any

# The domain uses all of them.
ROWS: dict[str, dict[str, Any]] = {
    "provider": {"id": 1, "name": "Example Inc.", "short_name": "Example"},
    "ldapserver": {
        "id": 1,
        "name": "ldap.example.com",
        "port": 389,
        "use_ssl": 0,
        "search_base": "dc=example",
        "search_filter": "(mail={0})",
        "attr_uid": "uid",
        "attr_cn": "cn",
        "bind_password": "hush",
        "bind_user": "cn=reader",
    },
    "ldapserver_detail": {
        "ldapserver_id": 1,
        "search_base": None,
        "search_filter": None,
        "login_name": "CORP\\{uid}",
    },
    "server": {
        "id": 1,
        "prio": 10,
        "name": "imap.example.com",
        "port": 993,
        "type": "imap",
        "socket_type": "SSL",
        "user_name": "%EMAILADDRESS%",
        "authentication": "plain",
    },
    "davserver": {
        "id": 1,
        "url": "https://dav.example.com/",
        "port": 0,
        "type": "caldav",
        "use_ssl": 1,
        "domain_required": 1,
        "user_name": "%EMAILADDRESS%",
    },
    "provider_detail": {
        "provider_id": 1,
        "webmail_url": "https://mail.example.com/",
        "help_url": "https://help.example.com/",
        "support_address": "help@example.com",
        "color": "#1a5fb4",
        "logo_type": "image/png",
        "logo_width": 10,
        "logo_height": 10,
        "logo": b"logo",
        "oauth2_issuer": "login.example.com",
        "oauth2_auth_url": "https://login.example.com/auth",
        "oauth2_token_url": "https://login.example.com/token",
        "oauth2_scope": "mail",
        "oauth2_client_id": "automx",
    },
    "documentation": {
        "id": 1,
        "provider_id": 1,
        "url": "https://help.example.com/",
        "lang": "en",
        "text": "Help",
    },
    "domain": {"id": 1, "name": "example.com", "provider_id": 1, "ldapserver_id": 1},
}
COLUMNS = [
    (table, column)
    for table, row in ROWS.items()
    for column in row
    if column not in {"id", "provider_id", "ldapserver_id"} and table != "domain"
]
# Another server, so that the domain is served whatever becomes of the first.
OTHERS = {"type": "smtp", "name": "smtp.example.com", "id": 2, "port": 465}
