"""Texts that Delta Chat reads from QR codes: DCACCOUNT makes an account, dclogin logs in to one.

Standard: the URI schemes of Delta Chat
(https://github.com/deltachat/interface/blob/main/uri-schemes.md).
"""

from urllib.parse import quote, urlencode, urlsplit

from automx.address import EmailAddress
from automx.clientconfig import ClientConfig, MailServer, ServerType, SocketType
from automx.errors import BadRecordError, SettingsError
from automx.texts import N_

# Instructions for both texts.
SCAN_STEPS = (
    # Translators: Delta Chat 2.65, https://get.delta.chat
    N_("Install Delta Chat on your phone, from its app store or get.delta.chat."),
    # Translators: Delta Chat 2.65, its welcome screen.
    N_("Open it and tap “Create New Profile”, “Use Other Server”, “Scan Invitation Code”."),
    # Translators: Delta Chat 2.65, its scanner.
    N_("Hold the camera over this code and follow the app."),
)


# What the client tries by itself if it finds no settings.
_GUESSES = {
    (ServerType.IMAP, 993, SocketType.SSL),
    (ServerType.IMAP, 143, SocketType.STARTTLS),
    (ServerType.SMTP, 465, SocketType.SSL),
    (ServerType.SMTP, 587, SocketType.STARTTLS),
}

# Cores before 2.0 do not decode the address, so characters that a URL allows are not encoded.
_SAFE_IN_ADDRESS = "!$&'*+=_-.~@"


def short_account_text(domain: str) -> str:
    """Return the text that lets a client make up an address of a domain, and log in to it.

    It is for mail servers that make a mailbox at the first login. ``domain`` is an A-label.
    """
    return f"DCACCOUNT:{domain}"


def account_text(web_endpoint: str, token: str, name: str) -> str:
    """Return the text that lets a client ask for a new account.

    ``web_endpoint`` is the setting, ``token`` the secret, ``name`` the name of the token. Raises
    SettingsError if the endpoint is no https URL: clients use no other.
    """
    parts = urlsplit(web_endpoint)
    if parts.scheme != "https":
        is_set = f"not {web_endpoint}" if web_endpoint else "and is not set"
        raise SettingsError(f"web_endpoint must be an https URL, {is_set}")
    query = urlencode({"t": token, "n": name}, quote_via=quote)
    return f"DCACCOUNT:https://{parts.netloc}{parts.path or '/'}?{query}"


def new_login_text(address: EmailAddress, password: str, config: ClientConfig | None) -> str:
    """Return login_text() for a new mailbox of a domain; None: its settings cannot be served.

    It names the servers only if the client does not guess their ports: machines without the ports
    80 and 443 cannot answer the client when it looks for its settings.
    """
    if config is None:
        return login_text(address, password)
    best = [_first(config, type_) for type_ in (ServerType.IMAP, ServerType.SMTP)]
    servers = [server for server in best if server is not None]
    are_guessed = all((s.type, s.port, s.socket_type) in _GUESSES for s in servers)
    return login_text(address, password, None if are_guessed or len(servers) < 2 else config)


def login_text(address: EmailAddress, password: str, config: ClientConfig | None = None) -> str:
    """Return the text that lets a client log in to a mailbox, as version 1 of the scheme.

    With the settings ``config`` of the person, the text names the best IMAP and the best SMTP
    server; with None, the client looks for the servers itself. Raises BadRecordError if
    ``config`` has no IMAP or no SMTP server that takes a password.
    """
    arguments = {"p": password, "v": "1"}
    if config is not None:
        config = config.for_address(address)
        for prefix, type_ in (("i", ServerType.IMAP), ("s", ServerType.SMTP)):
            server = _best(config, type_)
            arguments |= {
                f"{prefix}h": server.hostname,
                f"{prefix}p": str(server.port),
                f"{prefix}u": server.user_name,
                f"{prefix}s": server.socket_type.lower(),
            }
    # The client decodes the query as a form, where "+" is a space, so all of it is encoded.
    query = urlencode(arguments, quote_via=quote)
    return f"dclogin://{quote(str(address), safe=_SAFE_IN_ADDRESS)}/?{query}"


def _best(config: ClientConfig, type_: ServerType) -> MailServer:
    """Return the best server of a type that takes a password. Raises BadRecordError."""
    server = _first(config, type_)
    if server is None:
        kind = type_.upper()
        cause = f"domain {config.domain}: no usable {kind} server that takes a password"
        raise BadRecordError(cause=cause)
    return server


def _first(config: ClientConfig, type_: ServerType) -> MailServer | None:
    """Return the best server of a type that takes a password, None if there is none."""
    servers = config.having(lambda server: server.takes_password).encrypted().servers(type_)
    return servers[0] if servers else None
