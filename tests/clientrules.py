"""What mail clients make of automx's documents, by the rules that each was seen to follow.

``python -m tests.clientrules`` writes the table of docs/clients.md. The rules are those of programs
that were run against test servers, and of published sources where they could not be run.
"""

import json
import plistlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lxml import etree

from automx import seeddocument
from automx.address import EmailAddress
from automx.clientconfig import ClientConfig, MailServer
from automx.errors import AutomxError
from automx.formats import autoconfig, autodiscover, mobileconfig, pacc
from automx.rows import mail_server, service
from tests.documents import DATA
from tests.processes import REPOSITORY

ADDRESS = EmailAddress.parse("alice@example.com")
CLIENTS_PAGE = REPOSITORY / "docs" / "clients.md"
_TABLE = re.compile(r"(?<=<!-- table of clients -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)

_PASSWORDS = {"password-cleartext", "password-encrypted"}
_SOCKET_TYPES = {"SSL", "STARTTLS", "plain"}
_OLD_WORDS = {"plain": "password-cleartext", "secure": "password-encrypted"}
_NO_LOGIN = {"none", "client-IP-address"}
# Thunderbird and Delta Chat know OAuth2 for providers of a built-in list only.
_THUNDERBIRD = {*_PASSWORDS, *_NO_LOGIN, "GSSAPI", "NTLM", "TLS-client-cert"}


@dataclass(frozen=True)
class Offer:
    """A server in a document; a value is "" or empty if the document does not have it."""

    type: str
    host: str
    port: int
    socket_type: str = ""
    user_name: str = ""
    methods: tuple[str, ...] = ()


class UselessError(Exception):
    """A client ends up with nothing; the text says why."""


@dataclass(frozen=True)
class Client:
    """A client: the document that it reads, and its rules.

    ``methods`` are those that it knows, ``last`` the types of which it takes the last server. A
    client ``is_strict`` if it refuses a document that has a server which it cannot use.
    ``fills_in`` is its way to fill in placeholders.
    """

    name: str
    read: Callable[[ClientConfig], list[Offer]]
    incoming: tuple[str, ...] = ("imap", "pop3")
    methods: frozenset[str] = frozenset(_PASSWORDS)
    last: tuple[str, ...] = ()
    is_strict: bool = False
    fills_in: Callable[[str], str] = str

    def result(self, config: ClientConfig) -> str:
        """Return the ports that the client ends up with, or why it ends up with nothing."""
        try:
            offers = self.read(config)
            if self.is_strict:
                for offer in offers:
                    self._check_usable(offer)
            incoming = self._chosen(offers, *self.incoming)
            outgoing = self._chosen(offers, "smtp")
            return f"{self._used(config, incoming)}/{self._used(config, outgoing)}"
        except UselessError as error:
            return f"no: {error}"

    def choice(self, document: bytes) -> list[tuple[object, ...]]:
        """Return which servers of an Autoconfig document the client takes, and how it logs in.

        A server that the client cannot read is as if it were not there.
        """
        known = [offer for offer in offers(document) if self._can_read(offer)]
        return [
            (
                *(offer.type, self.fills_in(offer.host), offer.port, offer.socket_type),
                self.fills_in(offer.user_name),
                next(method for method in offer.methods if method in self.methods),
            )
            for offer in (self._chosen(known, *self.incoming), self._chosen(known, "smtp"))
        ]

    def _can_read(self, offer: Offer) -> bool:
        is_named = bool(offer.user_name) or not _NO_LOGIN.isdisjoint(offer.methods)
        is_named = is_named and bool(offer.host) and "%USERNAME%" not in offer.user_name
        has_method = not self.methods.isdisjoint(offer.methods)
        return is_named and offer.port > 0 and has_method and offer.socket_type in _SOCKET_TYPES

    def _check_usable(self, offer: Offer) -> None:
        if offer.socket_type == "plain":
            raise UselessError("plain")
        if not self.methods.intersection(offer.methods or self.methods):
            raise UselessError("method")

    def _chosen(self, offers: list[Offer], *types: str) -> Offer:
        found = [offer for offer in offers if offer.type in types]
        if not found:
            is_pop_only = "smtp" not in types and any(offer.type == "pop3" for offer in offers)
            raise UselessError("POP3" if is_pop_only else "no server")
        best = min((offer.type for offer in found), key=types.index)
        if best in self.last:
            return [offer for offer in found if offer.type == best][-1]
        return found[0]

    def _used(self, config: ClientConfig, offer: Offer) -> str:
        """Return how the client uses a server, if it can log in there."""
        server = _server(config, offer, self.fills_in(offer.host))
        taken = {*server.authentication, *(_PASSWORDS if server.takes_password else ())}
        if not taken.intersection(self.methods).intersection(offer.methods or self.methods):
            raise UselessError("method")
        if offer.socket_type and offer.socket_type != server.socket_type:
            raise UselessError("encryption")
        user_name = self.fills_in(offer.user_name) or str(ADDRESS)
        if server.needs_login and user_name != server.user_name:
            raise UselessError(f"login `{user_name}`")
        plain = " plain" if server.is_plain else ""
        return f"{'POP3 ' if offer.type == 'pop3' else ''}{server.port}{plain}"


def _server(config: ClientConfig, offer: Offer, host: str) -> MailServer:
    """Return the server of the domain that a client connects to."""
    for server in config.for_address(ADDRESS).mail_servers:
        if (server.type, server.hostname, server.port) == (offer.type, host, offer.port):
            return server
    raise UselessError(f"host {host}")


# Placeholders.


def _whole_address(text: str) -> str:
    """Fill in a value that is exactly the address, as aerc and Nextcloud Mail do."""
    return str(ADDRESS) if text == "%EMAILADDRESS%" else text


def _whole_values(text: str) -> str:
    """Fill in a value that is exactly one placeholder, as FairEmail does."""
    return ADDRESS.local_part if text == "%EMAILLOCALPART%" else _whole_address(text)


def _everything(text: str) -> str:
    for placeholder, value in (
        ("%EMAILADDRESS%", str(ADDRESS)),
        ("%EMAILLOCALPART%", ADDRESS.local_part),
        ("%EMAILDOMAIN%", ADDRESS.domain),
    ):
        text = text.replace(placeholder, value)
    return text


def _as_evolution(text: str) -> str:
    return _everything(text.replace("%EMAILDOMAIN%", ""))


# Documents.


def _autoconfig(address: EmailAddress | None) -> Callable[[ClientConfig], list[Offer]]:
    def read(config: ClientConfig) -> list[Offer]:
        return offers(_document(autoconfig.render, config, address))

    return read


def _texts(element: etree._Element, name: str) -> list[str]:
    return [(part.text or "").strip() for part in element.findall(name)]


def offers(document: bytes) -> list[Offer]:
    """Return the servers of an Autoconfig document."""
    return [
        Offer(
            element.get("type", ""),
            element.findtext("hostname", ""),
            int(element.findtext("port", "0")),
            next((word for word in _texts(element, "socketType") if word in _SOCKET_TYPES), ""),
            element.findtext("username", ""),
            tuple(_OLD_WORDS.get(word, word) for word in _texts(element, "authentication")),
        )
        for element in etree.fromstring(document).iter("incomingServer", "outgoingServer")
        if element.get("type") in {"imap", "pop3", "smtp"}
    ]


def _autodiscover(address: EmailAddress | None) -> Callable[[ClientConfig], list[Offer]]:
    def read(config: ClientConfig) -> list[Offer]:
        document = _document(autodiscover.render, config, address).decode()
        protocols = re.findall("<Protocol>(.*?)</Protocol>", document, re.DOTALL)
        found = [dict(re.findall("<(.*?)>(.*?)</", text)) for text in protocols]
        words = {"SSL": "SSL", "TLS": "STARTTLS", "None": "plain"}
        return [
            Offer(
                protocol["Type"].lower(),
                protocol["Server"],
                int(protocol["Port"]),
                words[protocol["Encryption"]],
                protocol.get("LoginName", ""),
                tuple(_methods(protocol)),
            )
            for protocol in found
            if protocol["Type"] in {"IMAP", "POP3", "SMTP"}
        ]

    return read


def _methods(protocol: dict[str, str]) -> Iterator[str]:
    if protocol["AuthRequired"] == "off":
        yield from _NO_LOGIN
    elif protocol["SPA"] == "on":
        yield from ("GSSAPI", "NTLM")
    else:
        yield from _PASSWORDS


def _thunderbirds_autodiscover(config: ClientConfig) -> list[Offer]:
    """Read as Thunderbird does: the port says which encryption is meant, and a login is needed."""
    found = []
    for offer in _autodiscover(ADDRESS)(config):
        encrypted = "STARTTLS" if offer.port in {25, 110, 143, 587} else "SSL"
        socket_type = "plain" if offer.socket_type == "plain" else encrypted
        methods = offer.methods if _NO_LOGIN.isdisjoint(offer.methods) else tuple(_PASSWORDS)
        found.append(replace(offer, socket_type=socket_type, methods=methods))
    return found


def _delta_chats_autodiscover(config: ClientConfig) -> list[Offer]:
    """Read as Delta Chat does: it tries each kind of encryption, and logs in by the address."""
    return [Offer(offer.type, offer.host, offer.port) for offer in _autodiscover(None)(config)]


def _profile(config: ClientConfig) -> list[Offer]:
    profile = plistlib.loads(_document(mobileconfig.render, config, ADDRESS))
    mail = profile["PayloadContent"][0]
    words = {
        "EmailAuthPassword": "password-cleartext",
        "EmailAuthCRAMMD5": "password-encrypted",
        "EmailAuthNTLM": "NTLM",
        "EmailAuthNone": "none",
    }
    incoming = {"EmailTypeIMAP": "imap", "EmailTypePOP": "pop3"}[mail["EmailAccountType"]]
    return [
        Offer(
            type_,
            mail[f"{prefix}MailServerHostName"],
            mail[f"{prefix}MailServerPortNumber"],
            "" if mail[f"{prefix}MailServerUseSSL"] else "plain",
            mail.get(f"{prefix}MailServerUsername", ""),
            (words[mail[f"{prefix}MailServerAuthentication"]],),
        )
        for type_, prefix in ((incoming, "Incoming"), ("smtp", "Outgoing"))
    ]


def _pacc(config: ClientConfig) -> list[Offer]:
    document = json.loads(_document(pacc.render, config))
    methods = tuple(_PASSWORDS) if document["authentication"]["password"] else ("OAuth2",)
    ports = {"imap": 993, "pop3": 995, "smtp": 465}
    return [
        Offer(type_, document["protocols"][type_]["host"], port, "SSL", "", methods)
        for type_, port in ports.items()
        if type_ in document["protocols"]
    ]


def _document(render: Callable[..., bytes], *arguments: object) -> bytes:
    try:
        return render(*arguments)
    except AutomxError as error:
        raise UselessError("no document") from error


CLIENTS = [
    Client(
        "Thunderbird",
        _autoconfig(ADDRESS),
        methods=frozenset(_THUNDERBIRD),
        fills_in=_everything,
    ),
    Client(
        "Thunderbird, Autodiscover", _thunderbirds_autodiscover, methods=frozenset(_THUNDERBIRD)
    ),
    Client(
        "Thunderbird for Android",
        _autoconfig(None),
        incoming=("imap",),
        is_strict=True,
        fills_in=_everything,
    ),
    Client("Delta Chat", _autoconfig(ADDRESS), incoming=("imap",), fills_in=_everything),
    Client("Delta Chat, Autodiscover", _delta_chats_autodiscover, incoming=("imap",)),
    Client(
        "Evolution",
        _autoconfig(None),
        methods=frozenset({*_PASSWORDS, *_NO_LOGIN, "GSSAPI", "NTLM"}),
        last=("imap", "pop3", "smtp"),
        fills_in=_as_evolution,
    ),
    Client("Nextcloud Mail", _autoconfig(ADDRESS), incoming=("imap",), fills_in=_whole_address),
    Client(
        "FairEmail",
        _autoconfig(ADDRESS),
        incoming=("imap",),
        last=("imap", "smtp"),
        fills_in=_whole_values,
    ),
    Client(
        "aerc",
        _autoconfig(ADDRESS),
        incoming=("imap",),
        last=("smtp",),
        fills_in=_whole_address,
    ),
    Client(
        "Outlook, eM Client",
        _autodiscover(ADDRESS),
        methods=frozenset({*_PASSWORDS, "NTLM", *_NO_LOGIN}),
    ),
    Client("iPhone, iPad, Mac", _profile, methods=frozenset({*_PASSWORDS, "NTLM", "none"})),
    Client("PACC", _pacc),
]


def servers() -> dict[str, object]:
    """Return the servers of each configuration of tests/data, as a seed holds them, by its name."""
    found = json.loads((DATA / "configurations.json").read_text("utf-8"))
    return {item["name"]: item["servers"] for item in found}


def configurations() -> dict[str, ClientConfig]:
    """Return the settings of example.com in each configuration, by its name."""
    return {name: _config(found) for name, found in servers().items()}


def _config(servers: object) -> ClientConfig:
    document = {
        "version": 2,
        "provider": "Example Inc.",
        "domains": [{"name": "example.com"}],
        "servers": servers,
    }
    rows = seeddocument.read(document).rows
    by_prio = sorted(rows["server"], key=lambda row: int(row["prio"]))
    return ClientConfig(
        domain="example.com",
        provider_name="Example Inc.",
        provider_short_name="Example",
        mail_servers=tuple(map(mail_server, by_prio)),
        services=tuple(map(service, rows["davserver"])),
    )


def table() -> str:
    """Return the table of docs/clients.md: what each client ends up with."""
    lines = [["Configuration", *(client.name for client in CLIENTS)], ["---"] * (len(CLIENTS) + 1)]
    for name, config in configurations().items():
        lines.append([name, *(client.result(config) for client in CLIENTS)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def table_of_docs() -> str:
    """Return the table as it stands in docs/clients.md."""
    [found] = _TABLE.findall(CLIENTS_PAGE.read_text("utf-8"))
    return str(found)


if __name__ == "__main__":
    page = CLIENTS_PAGE.read_text("utf-8")
    CLIENTS_PAGE.write_text(_TABLE.sub(lambda _: table(), page), "utf-8")
