"""A primary name server: what its zones hold, and updates of them (RFC 2136), by TCP.

Queries and updates are signed by TSIG (RFC 8945) if there is a key. All queries about a domain are
sent at once (RFC 7766, section 6.2.1.1). An update of conditions only asks whether a domain has
nothing to do: a signed answer for each name takes five times as long to read.
"""

import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.update
from dns.entropy import random_16 as random_id
from dns.message import Message
from dns.rdata import Rdata
from dns.rdataset import Rdataset

from automx import deadline
from automx.config import ZoneSettings
from automx.config.values import host_and_port
from automx.errors import (
    ElsewhereError,
    SettingsError,
    ZoneChangedError,
    ZoneError,
    ZoneUncertainError,
)
from automx.zones import registry
from automx.zones.plan import Key, Plan, Snapshot, keys, registry_key

# Types that a wildcard may give a domain, and that mail or a web site would miss.
_OF_DOMAINS = ("MX", "A", "AAAA", "TXT")

_PASSED_OVER = {"RRSIG", "NSEC", "NSEC3", "HINFO"}  # of answers to ANY (RFC 8482)

# What a server says if a prerequisite of an update does not hold (RFC 2136, section 3.2).
_CHANGED = {dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN}

# What can be done about a refused update. The key is a good one there, since the zone was read.
_SEE_LOG = "its log says why: may it write the file of the zone and beside it?"
_NO_RIGHT = "it must let zone_key change CNAME, SRV and TXT there; a frozen zone takes no update"
_ADVICE = {
    dns.rcode.REFUSED: _NO_RIGHT,
    dns.rcode.NOTIMP: "it takes no updates: switch them on there",
}
_NOT_LOADED = "its log says whether the zone is loaded"


class Primary:
    """A primary name server of the settings. Not safe for threads; close() it.

    A server that has once not answered in time is not asked again: each of many domains would wait
    for it. Raises SettingsError if there is neither a key nor a program that writes.
    """

    def __init__(self, settings: ZoneSettings) -> None:
        # It is not checked when settings are loaded: a web server needs no secret of zones.
        if not (settings.command or (settings.key and settings.secret)):
            raise SettingsError(
                f"zone_key and zone_secret are missing: updates of {settings.server} are signed"
                " with both, unless zone_command writes the records"
            )
        self._settings = settings
        secrets = {settings.key: settings.secret} if settings.key else {}
        self._keys = dns.tsigkeyring.from_text(secrets)
        self._host, self._port = host_and_port(settings.server, 53)
        self._socket: socket.socket | None = None
        self._delegated: set[str] = set()  # names that were asked for and are in another zone
        self._is_silent = False

    def snapshot(self, domain: str) -> Snapshot:
        """Return what the zone of a domain holds at the domain's names.

        Raises ElsewhereError if the server does not have the zone, and ZoneError.
        """
        end = deadline.after(self._settings.timeout)
        place = registry_key(domain)
        asked = [place, *(key for key in keys(domain) if key[1] != "CNAME")]
        hosts = [name for name, type_ in keys(domain) if type_ == "CNAME"]
        # Any query but one for CNAME gives the alias as well.
        asked += [(name, type_) for name in hosts for type_ in ("A", "AAAA", "ANY")]
        asked += [(domain, type_) for type_ in _OF_DOMAINS]
        self._delegated.clear()
        zone, sets = self._look(domain, asked, end)
        of_domain = {key: sets.pop(key) for key in [*sets] if key[0] == domain}
        own, _ = registry.read(sets.get(place), self._settings.owner)
        doubtful = [
            (name, type_)
            for (name, type_), found in sets.items()
            if any(registry.mark(name, record) not in own.marks for record in found)
        ]
        wild = self._wild(doubtful, sets, zone, end)
        covering = self._covering(domain, of_domain, zone, end)
        return Snapshot(zone, sets, wild, covering, frozenset(self._delegated))

    def glance(self, domain: str, key: Key) -> Snapshot:
        """Return what the zone of a domain holds at one name, wildcards included.

        Raises as snapshot().
        """
        end = deadline.after(self._settings.timeout)
        return Snapshot(*self._look(domain, [key], end))

    def holds(self, zone: str, sets: Mapping[Key, Collection[Rdata]]) -> bool:
        """Return whether a zone holds exactly these records at their names and types.

        It is one question for all names: an update that has conditions (RFC 2136, section 2.4.2)
        and changes nothing. TTLs are not compared. False as well if the server refuses such an
        update. Raises ZoneError.
        """
        message = dns.update.UpdateMessage(f"{zone}.")
        for (name, _), records in sets.items():
            owner = dns.name.from_text(f"{name}.")
            message.prerequisite.append(dns.rrset.from_rdata(owner, 0, *records))
        end = deadline.after(self._settings.timeout)
        [answer] = self._exchange([message], end)
        return answer.rcode() == dns.rcode.NOERROR

    def update(self, plan: Plan) -> None:
        """Make the changes of a plan, all or none of them.

        Raises ZoneChangedError if the zone holds something else than the plan was made for,
        ZoneUncertainError if the server may have made them, and ZoneError.
        """
        end = deadline.after(self._settings.timeout)
        message = dns.update.UpdateMessage(f"{plan.zone}.")
        for change in plan.changes:
            name = dns.name.from_text(f"{change.name}.")
            if change.found:
                message.present(name, *change.found)
            elif change.type == "CNAME":
                message.absent(name)
            else:
                message.absent(name, change.type)
                message.absent(name, "CNAME")
            for record in change.removed:
                message.delete(name, record)
            for record in change.added:
                message.add(name, change.ttl, record)
        [answer] = self._exchange([message], end, is_repeatable=False)
        code = answer.rcode()
        if code in _CHANGED:
            raise ZoneChangedError(
                cause=f"{plan.domain}: meanwhile, the zone {plan.zone} was changed, or names have"
                f" records of other types ({dns.rcode.to_text(code)}); nothing was written"
            )
        if code != dns.rcode.NOERROR:
            raise ZoneError(
                cause=f"{plan.domain}: {self._settings.server} refuses to update the zone"
                f" {plan.zone}: {dns.rcode.to_text(code)}; {_ADVICE.get(code, _SEE_LOG)}"
            )

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _look(
        self, domain: str, asked: Sequence[Key], end: float
    ) -> tuple[str, dict[Key, Rdataset]]:
        """Return the zone of a domain, and what it holds at some names and types."""
        queries = _queries([(domain, "SOA"), *asked])
        answer, *answers = self._exchange(queries, end)
        return self._zone_in(answer, domain), self._sets_in(answers, asked)

    def _zone_in(self, answer: Message, domain: str) -> str:
        """Return the name of the zone that holds a domain, without final dot."""
        name = dns.name.from_text(f"{domain}.")
        code = answer.rcode()
        if code in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN} and answer.flags & dns.flags.AA:
            for rrset in (*answer.answer, *answer.authority):
                if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
                    return rrset.name.to_text(omit_final_dot=True).lower()
        if code in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.REFUSED}:
            text = f"{domain}: {self._settings.server} has no zone of it"
            raise ElsewhereError(cause=f"{text} ({dns.rcode.to_text(code)})")
        advice = "see zone_key and zone_secret" if code == dns.rcode.NOTAUTH else _NOT_LOADED
        text = f"{self._settings.server} says {dns.rcode.to_text(code)}; {advice}"
        raise ZoneError(cause=f"{domain}: {text}")

    def _wild(
        self, doubtful: Sequence[Key], sets: dict[Key, Rdataset], zone: str, end: float
    ) -> set[Key]:
        """Return those of some keys at which a wildcard gives the same records (RFC 4592)."""
        wildcards: dict[Key, list[Key]] = {}
        for name, type_ in doubtful:
            for encloser in _enclosers(name, zone):
                wildcards.setdefault((f"*.{encloser}", type_), []).append((name, type_))
        if not wildcards:
            return set()
        found = self._sets_in(self._exchange(_queries([*wildcards]), end), [*wildcards])
        return {
            key
            for wildcard, names in wildcards.items()
            for key in names
            if found.get(wildcard) == sets[key]
        }

    def _covering(
        self, domain: str, sets: dict[Key, Rdataset], zone: str, end: float
    ) -> Key | None:
        """Return the wildcard that answers for a domain that does not exist itself.

        It answers for names below the domain, too: none of them exists. ``sets`` are what was
        answered for the domain.
        """
        enclosers = [*_enclosers(domain, zone)]
        below, _ = registry_key(domain)
        names = [below, *(f"*.{name}" for name in enclosers)]
        asked = [(name, type_) for _, type_ in sets for name in names] if enclosers else []
        found = self._sets_in(self._exchange(_queries(asked), end), asked) if asked else {}
        for (_, type_), records in sets.items():
            for name in enclosers if found.get((below, type_)) == records else ():
                if found.get((f"*.{name}", type_)) == records:
                    return f"*.{name}", type_
        return None

    def _sets_in(self, answers: Sequence[Message], asked: Sequence[Key]) -> dict[Key, Rdataset]:
        """Return the sets of records in answers; none for what does not exist."""
        sets: dict[Key, Rdataset] = {}
        for (name, type_), answer in zip(asked, answers, strict=True):
            code = answer.rcode()
            if type_ == "ANY" and code in {dns.rcode.NOTIMP, dns.rcode.REFUSED}:
                continue
            if code not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
                text = f"{self._settings.server} says {dns.rcode.to_text(code)}"
                raise ZoneError(cause=f"{name}: {text} to a query for {type_}")
            owner = dns.name.from_text(f"{name}.")
            if not answer.answer and not answer.flags & dns.flags.AA:  # a referral
                self._delegated.add(name)
            for rrset in answer.answer:
                found = dns.rdatatype.to_text(rrset.rdtype)
                if rrset.name == owner and found not in _PASSED_OVER:
                    sets[name, found] = rrset.to_rdataset()
        return sets

    def _exchange(
        self, messages: Sequence[Message], end: float, *, is_repeatable: bool = True
    ) -> list[Message]:
        """Return the answers to messages, in their order. Raises ZoneError.

        A connection that the server has closed meanwhile is opened anew; messages that may not be
        repeated get a new one, so that they are never sent twice.
        """
        if self._is_silent:
            text = "no answer in time to an earlier domain, so it was not asked"
            raise ZoneError(cause=f"{self._settings.server}: {text}")
        first = random_id()
        for number, message in enumerate(messages):
            message.id = (first + number) % 65_536  # no two alike
            if self._keys:
                message.use_tsig(self._keys, algorithm=self._settings.algorithm)
        if not is_repeatable:
            self.close()
        is_used = self._socket is not None
        try:
            try:
                return self._send_and_receive(messages, end)
            except (ConnectionError, EOFError):
                if not is_used:
                    raise
                self.close()
                return self._send_and_receive(messages, end)
        except (OSError, EOFError, dns.exception.DNSException) as error:
            self._is_silent = isinstance(error, TimeoutError | dns.exception.Timeout)
            # It was connected, and did not refuse the key.
            is_sent = self._socket is not None and not isinstance(error, dns.tsig.PeerError)
            self.close()
            is_update = messages[0].opcode() == dns.opcode.UPDATE
            text = _reason(error)
            if isinstance(error, dns.tsig.PeerBadKey) and is_update:  # Knot, if its acl refuses
                text = f"refuses the update (BADKEY); {_NO_RIGHT}"
            text = f"{self._settings.server}: {text}"
            if is_sent and not is_repeatable:
                text += "; the records may have been written, which the next run sees"
                raise ZoneUncertainError(cause=text) from error
            raise ZoneError(cause=text) from error

    def _send_and_receive(self, messages: Sequence[Message], end: float) -> list[Message]:
        connection = self._connected(end)
        wires = [message.to_wire() for message in messages]
        connection.settimeout(deadline.remaining(end))
        connection.sendall(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))
        waiting = {message.id: message for message in messages}
        answers: dict[int, Message] = {}
        while waiting:
            wire = _read(connection, int.from_bytes(_read(connection, 2, end), "big"), end)
            asked = waiting.pop(int.from_bytes(wire[:2], "big"), None)
            if asked is None:
                raise OSError("an answer to nothing that was asked")
            answers[asked.id] = _verified(wire, asked)
        return [answers[message.id] for message in messages]

    def _connected(self, end: float) -> socket.socket:
        if self._socket is None:
            address = self._host
            if not dns.inet.is_address(address):
                address = _address(address, deadline.remaining(end))
            self._socket = socket.create_connection((address, self._port), deadline.remaining(end))
        return self._socket


def _queries(asked: Sequence[Key]) -> list[Message]:
    """Return queries for what the zones of the server hold.

    No recursion is desired (RFC 1035, section 4.1.1): BIND of Debian would look for the target of
    an alias elsewhere, and fail if that has no address.
    """
    try:
        return [dns.message.make_query(f"{name}.", type_, flags=0) for name, type_ in asked]
    except dns.name.NameTooLong as error:
        raise ZoneError(cause="a name would be longer than 255 octets") from error


def _verified(wire: bytes, asked: Message) -> Message:
    """Return the answer to a message; if that was signed, then so is the answer.

    A refusal may be unsigned: Knot does not sign that it has no such zone.
    """
    if not asked.keyring:
        return dns.message.from_wire(wire)
    try:
        answer = dns.message.from_wire(wire, keyring=asked.keyring, request_mac=asked.mac)
    except dns.exception.FormError:  # it is not signed, else this fails
        answer = dns.message.from_wire(wire)
    if not answer.had_tsig and answer.rcode() in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        raise OSError("the answer is not signed: see zone_key and zone_secret")
    return answer


def _enclosers(name: str, zone: str) -> Iterator[str]:
    """Yield the names above a name, up to that of the zone."""
    while name != zone and "." in name:
        name = name.partition(".")[2]
        yield name


def _address(host: str, seconds: float) -> str:
    if host.rstrip(".") == "localhost":
        return "127.0.0.1"
    found = dns.resolver.Resolver().resolve_name(host, lifetime=seconds)
    with suppress(StopIteration):
        return next(iter(found.addresses()))
    raise OSError(f"there is no address of {host}")


def _read(connection: socket.socket, number: int, end: float) -> bytes:
    data = bytearray()
    while len(data) < number:
        connection.settimeout(deadline.remaining(end))
        part = connection.recv(number - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _reason(error: Exception) -> str:
    """Return why a name server did not answer, in a few words."""
    match error:
        case TimeoutError() | dns.exception.Timeout():
            return "no answer in time"
        case EOFError():
            return "closed the connection without an answer"
        case OSError():
            return str(error.strerror or error)
        case dns.tsig.PeerBadKey():
            return "does not know the key (BADKEY): see zone_key and zone_algorithm"
        case dns.tsig.PeerBadSignature():
            return "the secret of the key is another one there (BADSIG): see zone_secret"
        case dns.tsig.PeerBadTime():
            return "its clock differs from the one here (BADTIME): set both clocks"
    return str(error) or type(error).__name__
