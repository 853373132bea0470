"""Which mail clients the settings of a domain shut out, server by server.

What each client can do stands in docs/clients.md.
"""

import re
from collections.abc import Iterator

from automx.address import is_ip
from automx.check.finding import Finding, Level
from automx.clientconfig import (
    IMPLICIT_TLS_PORTS,
    STARTTLS_PORTS,
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    SocketType,
)

# What is wrong and what to do.
_Defect = tuple[str, str]

_OFFER_PASSWORD = "let the server take passwords, too, and add plain to authentication"  # noqa: S105 - no password


def check_clients(config: ClientConfig) -> Iterator[Finding]:
    """Yield which clients cannot use a mail server, and which servers documents do not show."""
    shown = config.general()
    for server in (*shown.incoming, *shown.outgoing):
        for text, advice in (*_pop_only(shown, server), *_defects(server)):
            yield Finding(config.domain, Level.WARNING, subject(server), text, advice)
    for server, reason in config.left_out():
        text = f"documents for all clients leave this server out: {reason}"
        yield Finding(config.domain, Level.OK, subject(server), text)


def subject(server: MailServer) -> str:
    """Return how findings name a mail server."""
    host = f"[{server.hostname}]" if ":" in server.hostname else server.hostname
    return f"{server.type} {host}:{server.port} {server.socket_type}"


def _pop_only(shown: ClientConfig, server: MailServer) -> Iterator[_Defect]:
    if server.type is ServerType.POP3 and not shown.servers(ServerType.IMAP):
        clients = "Thunderbird for Android, FairEmail, aerc and Delta Chat"
        yield f"there is no IMAP server, and {clients} set up no POP3", "add an IMAP server"


def _defects(server: MailServer) -> Iterator[_Defect]:
    if server.is_plain:
        what = "passwords are" if server.needs_login else "mail is"
        text = f"{what} sent without encryption; Thunderbird for Android refuses this"
        advice = "let the server offer TLS, and set socket_type to SSL or STARTTLS"
        yield text, advice
    yield from _methods(server)
    if server.socket_type is SocketType.SSL and server.port in STARTTLS_PORTS:
        text = (
            "port and SSL do not fit: Thunderbird takes STARTTLS there if it asks by Autodiscover"
        )
        yield text, f"use port {IMPLICIT_TLS_PORTS[server.type]}, or set socket_type to STARTTLS"
    if server.socket_type is SocketType.STARTTLS and server.port in IMPLICIT_TLS_PORTS.values():
        text = (
            "port and STARTTLS do not fit: Thunderbird takes SSL there if it asks by Autodiscover"
        )
        yield text, "set socket_type to SSL, or correct the port"
    if is_ip(server.hostname):
        text = "an IP address: SRV records and PACC cannot name it, and few certificates are for it"
        yield text, "give the server a host name"
    if "%REALNAME%" in server.user_name:
        text = "Thunderbird alone fills in %REALNAME%"
        yield text, "set user_name to %EMAILADDRESS% or %EMAILLOCALPART%"
    if re.fullmatch(r"0\d+", server.user_name):
        text = f"Thunderbird reads the user name {server.user_name} as a number"
        yield text, "let people log in by a name with a letter in it"


def _methods(server: MailServer) -> Iterator[_Defect]:
    """Yield which clients know no method of a server."""
    if server.takes_password:
        return
    methods = ", ".join(server.authentication)
    if Authentication.OAUTH2 in server.authentication:
        clients = "Thunderbird, Thunderbird for Android and Delta Chat know OAuth2"
        text = f"{methods} only: {clients} for a fixed list of providers, and Apple profiles never"
        yield text, _OFFER_PASSWORD
        return
    others = "Delta Chat needs a password"
    if server.needs_login and Authentication.NTLM not in server.authentication:
        others += ", and Apple profiles cannot say it"
    text = f"{methods} only: Thunderbird for Android refuses the whole document; {others}"
    yield text, _OFFER_PASSWORD
