"""Autoconfig files: one's own for static hosting, those of other servers, those of ISPDB.

Standard: draft-ietf-mailmaint-autoconfig-06, and the older form of Mozilla (version 1.1). A file
becomes objects of members (see :mod:`automx.members`); what rows cannot hold is named. As in
Thunderbird, a server without a host, a port, a known encryption or a known authentication is left
out.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from automx import kinds, members, rows
from automx.clientconfig import ClientConfig, MailServer, ServiceType
from automx.errors import SeedError
from automx.formats import autoconfig, xml
from automx.formats.xml import Read
from automx.kinds import BadValueError, shown

MAX_SIZE = 1024 * 1024  # bytes

# Element and type of mail servers -> the type in the database.
_MAIL = {
    ("incomingServer", "imap"): "imap",
    ("incomingServer", "pop3"): "pop",
    ("outgoingServer", "smtp"): "smtp",
    ("setupServer", "managesieve"): "managesieve",
}
_SERVICES = {
    (element, type_.lower()): service
    for service, (element, type_) in (autoconfig.BESIDE_PROVIDER | autoconfig.INCOMING).items()
} | {("addressBook", "carddav"): ServiceType.CARDDAV}  # as Mozilla spelled it
_SECTIONS = {element for element, _ in (*_MAIL, *_SERVICES)} | {"videoConference"}
_IN_PROVIDER = {"incomingServer", "outgoingServer"}
_OAUTH2 = {
    "issuer": "issuer",
    "scope": "scope",
    "authURL": "auth_url",
    "tokenURL": "token_url",
    "clientID": "client_id",
}
# What a document of automx says of the login of services; other methods are lost.
_LOGINS = {"basic", "http-basic", "password-cleartext", "plain"}


@dataclass
class AutoconfigFile:
    """What a file says, as objects of members.

    ``domains`` are names in their normal form. ``provider`` has the members that the file gives,
    perhaps no name. ``servers`` are complete items with ``prio`` in the order of the file.
    ``lost`` has a line about each thing that is not kept, or not shown to clients.
    """

    domains: list[str] = field(default_factory=list)
    provider: members.Item = field(default_factory=dict)
    servers: list[members.Item] = field(default_factory=list)
    services: list[members.Item] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def read(data: bytes, name: str) -> AutoconfigFile:
    """Return what a file says; ``name`` is that of the file, for errors.

    Raises SeedError if it is no Autoconfig file, or has no incoming or no outgoing server: clients
    would refuse it.
    """
    if len(data) > MAX_SIZE:
        raise SeedError(f"{name} is larger than {MAX_SIZE} bytes")
    try:
        root = xml.read(data)
    except xml.UnreadableError as error:
        line = f" (line {error.line})" if error.line else ""
        raise SeedError(f"{name} {error}{line}") from error
    if root.tag != "clientConfig":
        raise SeedError(f"{name}: expected the element clientConfig, found {shown(root.tag)}")
    if root.find("emailProvider") is None:
        raise SeedError(f"{name}: the element emailProvider is missing")
    reader = _Reader()
    reader.read(root)
    found = reader.found
    for kind, types in (("incoming", {"imap", "pop"}), ("outgoing", {"smtp"})):
        if not any(server["type"] in types for server in found.servers):
            begin = f"{kind}Server "
            reasons = [line for line in found.lost if line.startswith(begin)] or ["it has none"]
            raise SeedError(f"{name}: no {kind} server can be used: {'; '.join(reasons[:3])}")
    return found


class _Reader:
    """Reads the elements of a file, each once, in their order."""

    def __init__(self) -> None:
        self.found = AutoconfigFile()
        self._numbers: Counter[str] = Counter()  # element, or group of servers -> how many
        self._seen: set[tuple[object, ...]] = set()  # what there is already
        self._records: dict[MailServer, str] = {}  # what each is called
        self._details: dict[str, Any] = {}

    def read(self, root: Read) -> None:
        """Read the whole file."""
        is_first = True
        for element in root:
            if element.tag == "emailProvider" and is_first:
                is_first = False
                self._provider(element)
            elif element.tag == "emailProvider":
                self._lose(
                    f"emailProvider {shown(element.get('id', ''))}", "clients take the first"
                )
            elif element.tag in _SECTIONS - _IN_PROVIDER:
                self._section(element)
            else:
                self._other(element)
        if self._details:
            self.found.provider["details"] = self._details
        self._name_hidden()
        self.found.lost = list(dict.fromkeys(self.found.lost))

    def _provider(self, provider: Read) -> None:
        names: dict[str, str] = {}
        for element in provider:
            match element.tag:
                case "domain":
                    self._domain(element)
                case "displayName" | "displayShortName" if _text(element):
                    names.setdefault(element.tag, _text(element))
                case "documentation":
                    self._documentation(element)
                case tag if tag in _SECTIONS:
                    self._section(element)
                case _:
                    self._other(element)
        names.setdefault("displayName", provider.get("id", "").strip())
        for tag, member in (("displayName", "name"), ("displayShortName", "short_name")):
            if text := names.get(tag):
                self._keep(self.found.provider, member, rows.PROVIDER[member], text, tag)

    def _domain(self, element: Read) -> None:
        text = _text(element)
        if element.get("purpose"):
            purpose = shown(element.get("purpose"))
            self._lose(f"domain {shown(text)}", f"its purpose is {purpose}")
            return
        if "%" in text:
            self._lose(f"domain {shown(text)}", "say for which domains the file is by --domain")
            return
        name = self._value(members.DOMAIN["name"], text, "domain")
        if name is not None and "*" in name:
            self._lose(f"domain {shown(name)}", "a wildcard is not taken from a file")
        elif name is not None and self._is_new("domain", kinds.domain_a_label(name)):
            self.found.domains.append(name)

    def _other(self, element: Read) -> None:
        """Read what may stand in the root and in the provider; the rest is lost."""
        match element.tag:
            case "webMail":
                self._webmail(element)
            case "oAuth2":
                self._oauth2(element)
            case "logo":
                self._logo(element)
            case _:
                self._lose(_name(element))

    def _webmail(self, element: Read) -> None:
        for part in element:
            url = part.get("url", "").strip()
            if part.tag == "loginPage" and url and "webmail_url" not in self._details:
                kind = rows.CONTACT["webmail_url"]
                self._keep(self._details, "webmail_url", kind, url, "webMail loginPage")
            else:
                self._lose(f"webMail {_name(part)}")

    def _oauth2(self, element: Read) -> None:
        if "oauth2" in self._details:
            self._lose("oAuth2", "there is one before it")
            return
        oauth2: dict[str, Any] = {}
        for part in element:
            member = _OAUTH2.get(part.tag)
            if member is None or member in oauth2:
                self._lose(f"oAuth2 {_name(part)}")
            else:
                kind = members.OAUTH2[member]
                self._keep(oauth2, member, kind, _text(part), f"oAuth2 {part.tag}")
        missing = [tag for tag in _OAUTH2 if tag != "clientID" and _OAUTH2[tag] not in oauth2]
        if "issuer" in missing:
            self._lose("oAuth2", "it has no issuer")
            return
        self._details["oauth2"] = oauth2
        if missing:
            self.found.lost.append(
                f"oAuth2 is kept and not shown to clients: it has no {' and no '.join(missing)}"
            )

    def _logo(self, element: Read) -> None:
        """Keep an image that stands in the file itself, as a data: URL (RFC 2397)."""
        url = element.get("url", "") or _text(element)
        head, comma, data = url.strip().partition(",")
        type_, _, coding = head.removeprefix("data:").partition(";")
        sizes = [element.get(side, "") for side in ("width", "height")]
        if not (head.startswith("data:") and comma and coding == "base64"):
            self._lose("logo", "it does not stand in the file itself, in Base64")
            return
        width, height = (int(size) if _is_number(size) else size for size in sizes)
        logo = {"type": type_, "width": width, "height": height, "data": data}
        try:
            members.fields(logo, members.LOGO, "logo", members.LOGO)
        except SeedError as error:
            self._lose("logo", str(error))
        else:
            self._details.setdefault("logo", logo)

    def _documentation(self, element: Read) -> None:
        url = self._value(rows.DOCUMENTATION["url"], element.get("url", ""), "documentation")
        if url is None:
            return
        pages = []
        for part in element:
            if part.tag != "descr":
                self._lose(f"documentation {_name(part)}")
                continue
            page: dict[str, Any] = {"url": url}
            for member, text in (("lang", part.get("lang", "")), ("text", _text(part))):
                kind = rows.DOCUMENTATION[member]
                self._keep(page, member, kind, text, f"documentation {url}")
            pages.append(page)
        for page in pages or [{"url": url}]:
            if self._is_new("page", *page.items()):
                self._details.setdefault("documentation", []).append(page)

    # Servers and services.

    def _section(self, element: Read) -> None:
        self._numbers[element.tag] += 1
        number = self._numbers[element.tag]
        type_ = element.get("type", "").strip()
        host = _text(element.find("hostname")) or _text(_url(element))
        words = [shown(word).strip('"') for word in (type_, host) if word]
        where = f"{element.tag} {number} ({', '.join(words) or 'empty'})"
        key = (element.tag, type_.lower())
        try:
            if key in _MAIL:
                self._mail_server(element, _MAIL[key], where)
            elif key in _SERVICES:
                self._service(element, _SERVICES[key], where)
            else:
                self._lose(where, "this type is not known")
        except SeedError as error:
            self._lose(where, str(error))

    def _mail_server(self, element: Read, type_: str, where: str) -> None:
        one_of_each = ("hostname", "port", "username")
        self._lose_rest(element, where, (*one_of_each, "socketType", "authentication"), one_of_each)
        values: dict[str, Any] = {"type": type_}
        for tag, member in (("hostname", "name"), ("port", "port")):
            values[member] = _text(element.find(tag))
            if not values[member]:
                raise SeedError(f"the element {tag} is missing")
        if _is_number(values["port"]):
            values["port"] = int(values["port"])
        values["socket_type"] = self._socket_type(element, where)
        methods = self._words(element, "authentication", where, rows.SERVER["authentication"].read)
        if not methods:
            raise SeedError("no authentication that is known")
        values["authentication"] = self._fitting(list(dict.fromkeys(methods)), where)
        values["user_name"] = self._user_name(element, where)
        group = "incoming" if type_ in {"imap", "pop"} else type_
        values["prio"] = 10 * (self._numbers[group] + 1)
        item = members.read("server", values)
        record = rows.mail_server(item)
        if record in self._records:
            self._lose(where, f"it is the same as {self._records[record]}")
            return
        if not item["user_name"] and record.user_name:
            self.found.lost.append(f"{where} has no username: {rows.USER_NAME} takes its place")
        self._records[record] = where
        self._numbers[group] += 1
        self.found.servers.append(item)

    def _socket_type(self, element: Read, where: str) -> str:
        kind = rows.SERVER["socket_type"]

        def read(text: str) -> str:
            return "TLS" if text.upper() == "TLS" else str(kind.read(text))

        found = self._words(element, "socketType", where, read)
        if not found:
            raise SeedError("no socketType that is known")
        found.sort(key=lambda word: word == "TLS")  # Thunderbird does not know it
        for other in dict.fromkeys(found[1:]):
            if other != found[0]:
                self._lose(f"{where}: socketType {other}", f"{found[0]} is before it")
        return found[0]

    def _words(self, element: Read, tag: str, where: str, read: Callable[[str], str]) -> list[str]:
        """Return the normal forms of the words of all elements with a name; others are lost."""
        found = []
        for part in element.findall(tag):
            text = _text(part)
            try:
                if text:
                    found.append(read(text))
            except BadValueError:
                self._lose(f"{where}: {tag} {shown(text)}", "it is not known")
        return found

    def _fitting(self, methods: list[str], where: str) -> str:
        """Return words of authentication, as many as the column can hold."""
        while True:
            try:
                return str(rows.SERVER["authentication"].read(" ".join(methods)))
            except BadValueError:
                self._lose(f"{where}: authentication {methods.pop()}", "there is no room for it")

    def _service(self, element: Read, service: ServiceType, where: str) -> None:
        names = ("url", "serverURL", "username")
        self._lose_rest(element, where, (*names, "authentication"), names)
        url = _text(_url(element))
        if not url:
            raise SeedError("the element url is missing")
        for part in element.findall("authentication"):
            if not _is_usual(service, _text(part)):
                self._lose(f"{where}: authentication {shown(_text(part))}")
        user_name = self._user_name(element, where)
        value = {"type": service.value, "url": url, "user_name": user_name}
        item = members.read("service", value)
        if self._is_new("service", *item.values()):
            self.found.services.append(item)
        else:
            self._lose(where, "there is the same one before it")

    def _user_name(self, element: Read, where: str) -> str:
        """Return the user name; tell if it is the address of one person.

        Servers that fill in placeholders by themselves answer with that of the person who asks.
        """
        name = _text(element.find("username"))
        if "@" in name and "%" not in name:
            self.found.lost.append(
                f"{where}: all people get the username {shown(name)}, not their own address"
            )
        return name

    def _lose_rest(
        self, element: Read, where: str, known: tuple[str, ...], once: tuple[str, ...]
    ) -> None:
        """Name the children of an element that are not read."""
        seen: set[str] = set()
        for part in element:
            if part.tag not in known or (part.tag in once and part.tag in seen):
                self._lose(f"{where}: {_name(part)}")
            seen.add(part.tag)

    def _name_hidden(self) -> None:
        """Name the mail servers that are kept, and that no document shows."""
        servers = tuple(self._records)
        for server, reason in ClientConfig("", "", "", servers, ()).left_out():
            where = self._records[server]
            self.found.lost.append(f"{where} is kept and not shown to clients: {reason}")

    # Values.

    def _keep(
        self, place: members.Item, member: str, kind: kinds.Kind, text: str, where: str
    ) -> None:
        """Put the normal form of a text into an object, if it has one."""
        value = self._value(kind, text, where)
        if value is not None and value != "":
            place[member] = value

    def _value(self, kind: kinds.Kind, text: str, where: str) -> Any:
        try:
            return kind.read(text)
        except BadValueError as error:
            self._lose(where, str(error))
            return None

    def _is_new(self, *key: object) -> bool:
        """Note that there is something; return whether it is the first."""
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _lose(self, what: str, reason: str = "") -> None:
        self.found.lost.append(f"{what} is not kept" + (f": {reason}" if reason else ""))


def _text(element: Read | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _name(element: Read) -> str:
    """Return what an element is called: its name, and its URL if it has one."""
    url = element.get("url") or element.get("visiturl")
    tag = shown(element.tag).strip('"')
    return f"{tag} ({shown(url)})" if url else tag


def _url(element: Read) -> Read | None:
    for tag in ("url", "serverURL"):
        found = element.find(tag)
        if found is not None:
            return found
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _is_usual(service: ServiceType, method: str) -> bool:
    """Return whether a document of automx names this method for the service."""
    if service is ServiceType.GRAPH:
        return method.lower() == "oauth2"
    return service not in {ServiceType.XMPP, ServiceType.MATRIX} and method.lower() in _LOGINS
