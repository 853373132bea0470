"""Which mail clients the settings of a domain shut out, server by server.

What each client can do stands in docs/clients.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set

from automx.address import is_ip
from automx.check.finding import Finding, Level
from automx.clientconfig import (
    IMPLICIT_TLS_PORTS,
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    SocketType,
)

# What is wrong and what to do.
_Defect = tuple[str, str]

_NO_LOGIN = {Authentication.NONE, Authentication.CLIENT_IP_ADDRESS}
# The methods that clients know beside passwords. OAuth2 is not among them: they know it for the
# providers of built-in lists.
_KNOWN_METHODS: Mapping[str, Set[Authentication]] = {
    "Thunderbird": {
        *(Authentication.GSSAPI, Authentication.NTLM, Authentication.TLS_CLIENT_CERT),
        *_NO_LOGIN,
    },
    "Thunderbird for Android": set(),
    "Delta Chat": set(),
    "Evolution": {Authentication.GSSAPI, Authentication.NTLM, *_NO_LOGIN},
    "Nextcloud Mail": set(),
    "FairEmail": set(),
    "aerc": set(),
    "Outlook": {Authentication.NTLM, *_NO_LOGIN},
    "eM Client": {Authentication.NTLM, *_NO_LOGIN},
    "Apple profiles": {Authentication.NTLM, *_NO_LOGIN},
}
_WITHOUT_POP3 = ["Thunderbird for Android", "Delta Chat", "Nextcloud Mail", "FairEmail", "aerc"]

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
        text = f"there is no IMAP server, and {_joined(_WITHOUT_POP3)} set up no POP3"
        yield text, "add an IMAP server"


def _defects(server: MailServer) -> Iterator[_Defect]:
    if server.is_plain:
        what = "passwords are" if server.needs_login else "mail is"
        text = f"{what} sent without encryption; Thunderbird for Android refuses this"
        advice = "let the server offer TLS, and set socket_type to SSL or STARTTLS"
        yield text, advice
    yield from _methods(server)
    usual = server.unfit_socket_type
    if usual is SocketType.STARTTLS:
        text = (
            "port and SSL do not fit: Thunderbird takes STARTTLS there if it asks by Autodiscover"
        )
        yield text, f"use port {IMPLICIT_TLS_PORTS[server.type]}, or set socket_type to STARTTLS"
    if usual is SocketType.SSL and not server.is_plain:
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
    names = [
        name for name, known in _KNOWN_METHODS.items() if known.isdisjoint(server.authentication)
    ]
    if Authentication.OAUTH2 in server.authentication:
        text = f"{methods} only: mail clients know OAuth2 for a fixed list of providers; at others,"
    else:
        text = f"{methods} only: Thunderbird for Android refuses the whole document, and"
        names.remove("Thunderbird for Android")
    yield f"{text} {_joined(names)} cannot log in", _OFFER_PASSWORD


def _joined(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return f"{', '.join(names[:-1])} and {names[-1]}"
