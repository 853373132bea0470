"""Where the mail servers of a domain are: what DNS says, and what usual hosts answer.

Standards: RFC 6186 and RFC 8314 (SRV records of mail), RFC 5321 (MX). Everything comes from
strangers: a name that could be none is passed over, and no wait is without a limit.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from automx.address import is_ip, parse_domain
from automx.check import queue
from automx.check.finding import Check
from automx.check.greeting import Greeting, greet
from automx.check.network import CertificateError, NameServerError, Network, NetworkError
from automx.clientconfig import (
    USUAL_PORTS,
    Authentication,
    MailServer,
    ServerType,
    SocketType,
)
from automx.errors import AddressError
from automx.kinds import HOST, BadValueError

SRV, MX, NAME, GIVEN = "SRV record", "MX record", "usual name", "given"

_SERVICES = {
    "_imaps": (ServerType.IMAP, SocketType.SSL),
    "_imap": (ServerType.IMAP, SocketType.STARTTLS),
    "_pop3s": (ServerType.POP3, SocketType.SSL),
    "_pop3": (ServerType.POP3, SocketType.STARTTLS),
    "_submissions": (ServerType.SMTP, SocketType.SSL),
    "_submission": (ServerType.SMTP, SocketType.STARTTLS),
}
TYPES = (ServerType.IMAP, ServerType.POP3, ServerType.SMTP)
# The best first. At port 25, servers take mail from other servers.
_PORTS = {
    type_: [
        (port, socket_type)
        for port, (of_port, socket_type) in USUAL_PORTS.items()
        if of_port is type_ and port != 25
    ]
    for type_ in TYPES
}
# Labels of usual hosts, the most likely first, and what people expect there.
_LABELS: Mapping[str, tuple[ServerType, ...]] = {
    "imap": (ServerType.IMAP,),
    "smtp": (ServerType.SMTP,),
    "mail": TYPES,
    "pop": (ServerType.POP3,),
    "pop3": (ServerType.POP3,),
    "": TYPES,
}
_MOST_HOSTS = 3  # of MX records, and of each SRV name
_PHASES = 4  # SRV or MX, addresses, and two rounds of connections: each takes at most the timeout


@dataclass(frozen=True, slots=True)
class Answer:
    """A place where a mail server may be, and what was seen there.

    ``source`` is one of SRV, MX, NAME and GIVEN; a low ``rank`` comes first within a source.
    ``fault`` is what is wrong, "" if clients can use the server; ``not_after`` is the end of its
    certificate.
    """

    server: MailServer
    source: str
    rank: tuple[int, ...]
    fault: str = ""
    not_after: datetime | None = None
    is_secure: bool = True  # whether TLS has worked

    @property
    def place(self) -> tuple[ServerType, str, int, SocketType]:
        """What tells servers apart."""
        server = self.server
        return server.type, server.hostname, server.port, server.socket_type


@dataclass(frozen=True, slots=True)
class Place:
    """A host that a person names, and perhaps the port."""

    host: str
    port: int | None = None


@dataclass
class Search:
    """One search for the servers of a domain, an A-label.

    ``given`` are the places that a person has named; a protocol that is among them is not looked
    for elsewhere.
    """

    domain: str
    network: Network
    given: Mapping[ServerType, Place] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    denied: set[tuple[ServerType, SocketType]] = field(default_factory=set)
    troubles: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def number(self) -> int:
        """How many steps the search has."""
        return len(self._checks())

    def run(self) -> Iterator[str]:
        """Search; yield what each step looked for when it has ended."""
        for step, late in queue.run(self._checks(), self.network.timeout * _PHASES):
            with self._lock:
                self.troubles += [f"{step}: {each.text}" for each in late]
            yield step

    def _checks(self) -> dict[str, Check]:
        found: dict[str, Check] = {}
        for type_, place in self.given.items():
            found[f"{type_} {place.host}"] = partial(
                self._at, place.host, (type_,), GIVEN, 0, place
            )
        wanted = tuple(type_ for type_ in TYPES if type_ not in self.given)
        if wanted:
            for service, (type_, socket_type) in _SERVICES.items():
                if type_ in wanted:
                    found[service] = partial(self._srv, service, type_, socket_type)
            found["MX"] = partial(self._mx, wanted)
            for rank, (label, types) in enumerate(_LABELS.items()):
                some = tuple(type_ for type_ in types if type_ in wanted)
                if host := _host(f"{label}.{self.domain}".removeprefix(".")):
                    found[host] = partial(self._at, host, some, NAME, rank)
        return found

    def _records(self, name: str, type_: str) -> list[list[str]]:
        """Return the words of records; what a name server does not say is noted."""
        try:
            return [data.split() for data in self.network.records(name, type_)]
        except NameServerError as error:
            with self._lock:
                self.troubles.append(f"{name}: {error}")
            return []

    def _srv(self, service: str, type_: ServerType, socket_type: SocketType) -> Iterator[Check]:
        """Yield a check of each server that an SRV record names; "." says that there is none."""
        records = self._records(f"{service}._tcp.{self.domain}", "SRV")
        targets = []
        for priority, weight, port, target in (words for words in records if len(words) == 4):
            if target == ".":
                with self._lock:
                    self.denied.add((type_, socket_type))
            elif int(port) and (host := _host(target)):
                targets.append(((int(priority), -int(weight)), host, int(port)))
        for order, target_host, target_port in sorted(targets)[:_MOST_HOSTS]:
            server = _server(type_, target_host, target_port, socket_type)
            yield partial(self._ask, server, SRV, order)

    def _mx(self, types: tuple[ServerType, ...]) -> Iterator[Check]:
        records = self._records(self.domain, "MX")
        hosts = [(int(words[0]), host) for words in records if (host := _host(words[-1]))]
        for rank, (_, host) in enumerate(sorted(hosts)[:_MOST_HOSTS]):
            yield partial(self._at, host, types, MX, rank)

    def _at(
        self,
        host: str,
        types: Iterable[ServerType],
        source: str,
        rank: int,
        place: Place | None = None,
    ) -> Iterator[Check]:
        """Yield a check of each port of a host, unless the host is a guess that does not exist."""
        if source != GIVEN:
            try:
                if not self.network.addresses(host):
                    return
            except NameServerError as error:
                with self._lock:
                    self.troubles.append(f"{host}: {error}")
                return
        for type_ in types:
            for order, (port, socket_type) in enumerate(_ports(type_, place)):
                server = _server(type_, host, port, socket_type)
                yield partial(self._ask, server, source, (rank, order))

    def _ask(self, server: MailServer, source: str, rank: tuple[int, ...]) -> Iterator[Check]:
        """Ask a server, each once, and note the answer."""
        key = ("greeting", server.type, server.hostname, str(server.port), server.socket_type)
        answer = Answer(server, source, rank)
        ask: Callable[[], Greeting] = partial(
            greet, self.network, server, server.hostname, asks_methods=True
        )
        try:
            greeting = self.network.once(key, ask)
        except NetworkError as error:
            is_secure = isinstance(error, CertificateError)
            answer = Answer(server, source, rank, str(error), is_secure=is_secure)
        else:
            fault = "" if greeting.method else "the server offers no login that mail clients know"
            if greeting.method:
                server = _server(*answer.place, greeting.method)
            answer = Answer(server, source, rank, fault, greeting.not_after)
        with self._lock:
            self.answers.append(answer)
        return iter(())


def chosen(search: Search) -> list[Answer]:
    """Return the servers that clients should use: for each protocol the best answer, IMAP first.

    SRV records come before guesses, and TLS from the beginning before STARTTLS (RFC 8314). POP3 is
    chosen where a person or an SRV record names it, and where there is no IMAP. A server that a
    person names is taken as it is, whatever it answers.
    """
    found: list[Answer] = []
    for type_ in TYPES:
        of_type = [answer for answer in search.answers if answer.server.type is type_]
        usable = sorted(
            (each for each in of_type if not each.fault and not _is_denied(search, each)),
            key=_order,
        )
        if type_ in search.given and not usable:
            usable = sorted(of_type, key=lambda each: (not each.is_secure, _order(each)))
        if usable:
            found.append(usable[0])
    has_imap = any(answer.server.type is ServerType.IMAP for answer in found)
    return [
        answer
        for answer in found
        if answer.server.type is not ServerType.POP3
        or answer.source in {GIVEN, SRV}
        or not has_imap
    ]


def missing(servers: Iterable[Answer]) -> list[ServerType]:
    """Return the protocols that mail clients need and that have no server: IMAP or POP3, SMTP."""
    types = {answer.server.type for answer in servers}
    found = [] if types & {ServerType.IMAP, ServerType.POP3} else [ServerType.IMAP]
    return found if ServerType.SMTP in types else [*found, ServerType.SMTP]


def passed_over(search: Search, servers: Iterable[Answer]) -> tuple[list[Answer], list[Answer]]:
    """Return what else was seen, each place once: servers that work, and those with a fault.

    Guesses that do not answer are no news; a place that DNS or a person names is one.
    """
    seen = {answer.place for answer in servers}
    works, faulty = [], []
    for answer in sorted(search.answers, key=_order):
        if answer.place in seen:
            continue
        is_news = answer.source in {SRV, GIVEN} or answer.is_secure
        if not answer.fault:
            works.append(answer)
        elif is_news:
            faulty.append(answer)
        else:
            continue
        seen.add(answer.place)
    return works, faulty


def _order(answer: Answer) -> tuple[object, ...]:
    is_named = answer.source in {SRV, GIVEN}
    is_late = answer.server.socket_type is SocketType.STARTTLS
    place = (NAME, MX).index(answer.source) if not is_named else 0
    type_ = TYPES.index(answer.server.type)  # else, which host is quicker would decide
    return not is_named, is_late, place, answer.rank, answer.server.hostname, type_


def _is_denied(search: Search, answer: Answer) -> bool:
    """Return whether DNS says that there is no such service, and nothing but a guess found it."""
    is_guess = answer.source in {MX, NAME}
    return is_guess and (answer.server.type, answer.server.socket_type) in search.denied


def _ports(type_: ServerType, place: Place | None) -> list[tuple[int, SocketType]]:
    if place is None or place.port is None:
        return _PORTS[type_]
    usual = USUAL_PORTS.get(place.port, (type_, SocketType.PLAIN))[1]
    if usual is not SocketType.PLAIN:
        return [(place.port, usual)]
    return [(place.port, SocketType.SSL), (place.port, SocketType.STARTTLS)]


def _host(target: str) -> str:
    """Return the host of a record, "" for what can be none, or is too long for a row."""
    try:
        name = parse_domain(target) if target != "." else ""
        return "" if not name or is_ip(name) else str(HOST.read(name))
    except (AddressError, BadValueError):
        return ""


def _server(
    type_: ServerType,
    host: str,
    port: int,
    socket_type: SocketType,
    method: Authentication = Authentication.PASSWORD_CLEARTEXT,
) -> MailServer:
    return MailServer(type_, host, port, socket_type, "%EMAILADDRESS%", (method,))
