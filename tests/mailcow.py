"""A mailcow server as its HTTP API shows it: real requests, with domains and mailboxes in memory.

It answers as mailcow-dockerized of 2026-08 was seen to do, status and octets, and goes through the
same checks in the same order. What it does not imitate: everything but mailboxes and domains.
"""

import contextlib
import html
import ipaddress
import json
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from tests.tls import Certificate

MEBIBYTE = 2**20

OUTAGES = {
    "dockerapi": "Connection to dockerapi container failed.<br /><br />The following error was "
    "reported:<br/>111 - Connection refused",
    "redis": "Connection to Redis failed.<br /><br />The following error was reported:<br/>"
    "Connection refused",
    "mariadb": "Connection to database failed.<br /><br />The following error was reported:<br/> "
    "SQLSTATE[HY000] [2002] No such file or directory",
}
PREPARING = "<!DOCTYPE html> <html> <head> <title>Preparing</title> </head> <body></body> </html>"

_ADDRESS = re.compile(
    r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([a-z0-9-]+\.)+[a-z0-9-]+", re.IGNORECASE
)


_LOGINS = tuple(f"last_{name}_login" for name in ("imap", "smtp", "pop3", "sso"))


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Key:
    """An API key: ``access`` is "rw" or "ro"; ``allow_from`` holds networks, none for all."""

    access: str = "rw"
    is_active: bool = True
    allow_from: tuple[str, ...] = ()


@dataclass
class Domain:
    """A domain and its limits: number of mailboxes; MiB for one mailbox and for all together."""

    mailboxes: int = 1000
    maxquota: int = 100_000
    quota: int = 1_000_000
    active: int = 1
    backupmx: int = 0


@dataclass
class Policy:
    """What a password must have (``PASSWD_POLICY``)."""

    length: int = 6
    letters: bool = False
    digits: bool = False
    special: bool = False
    both_cases: bool = False

    def allows(self, password: str) -> bool:
        """Tell whether a password has it all."""

        def has(pattern: str) -> bool:
            return bool(re.search(pattern, password))

        return (
            len(password.encode()) >= self.length
            and (not self.letters or has("[a-zA-Z]"))
            and (not self.digits or has(r"\d"))
            and (not self.special or has(r"[^a-zA-Z\d]"))
            and (not self.both_cases or (has("[a-z]") and has("[A-Z]")))
        )


STRICT = Policy(8, letters=True, digits=True, special=True, both_cases=True)


@dataclass
class Request:
    """A request as it arrived; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Reply:
    """An answer."""

    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass
class FakeMailcow:
    """A mailcow server: what it knows, how it behaves, and what it was asked.

    ``trouble`` is how it fails: "dockerapi", "redis", "mariadb" or "php-fpm" (that service is
    down), "empty" (an exception in its PHP code before it did anything), "empty-after" (after it
    did), "silent" and "silent-after" (no answer), "lost" and "lost-after" (the connection ends
    without an answer), "drip" (one octet in a tenth of a second). ``troubled`` is the method of
    the requests that it concerns, "" for all.
    """

    url: str = ""
    key: str = "AAAAAA-BBBBBB-CCCCCC-DDDDDD-EEEEEE"
    read_only_key: str = "111111-222222-333333-444444-555555"
    keys: dict[str, Key] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=lambda: {"lab.test": Domain()})
    mailboxes: dict[str, dict[str, Any]] = field(default_factory=dict)  # as get/mailbox has them
    passwords: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)  # address -> where it leads
    alias_domains: dict[str, str] = field(default_factory=dict)  # alias -> target
    inactive_aliases: set[str] = field(default_factory=set)  # of these
    spam_aliases: set[str] = field(default_factory=set)
    policy: Policy = field(default_factory=Policy)
    template_quota: int = 0  # MiB
    trouble: str = ""
    troubled: str = ""
    maildir_trouble: str | None = None  # why Dovecot's container cannot move the mail away
    is_upgraded: bool = False  # the next request to a page changes the schema
    replies: dict[str, Reply] = field(default_factory=dict)  # "add/mailbox" -> another answer
    default: Reply | None = None  # the answer to everything: the path is wrong
    before_insert: Callable[[], object] = lambda: None  # runs between the last check and the INSERT
    hold: threading.Event = field(default_factory=_set_event)  # answers wait until it is set
    waiting: int = 0  # requests whose answers wait
    requests: list[Request] = field(default_factory=list)
    refused: int = 0  # answers with 401, each of which Fail2ban hears of
    connections: int = 0  # how many were opened
    sees_logins: bool = True  # SHOW_LAST_LOGIN
    # Address -> fields of get/mailbox: sasl_log keeps log-ins when a mailbox is deleted.
    logins: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys.setdefault(self.key, Key())
        self.keys.setdefault(self.read_only_key, Key("ro"))
        self.lock = threading.RLock()
        self._sessions: dict[str, str] = {}  # cookie -> access

    @property
    def limit(self) -> int:
        """How many mailboxes each domain may have."""
        return min(domain.mailboxes for domain in self.domains.values())

    @limit.setter
    def limit(self, mailboxes: int) -> None:
        for domain in self.domains.values():
            domain.mailboxes = mailboxes

    def add(self, address: str, *, tags: tuple[str, ...] = (), **fields: Any) -> None:
        """Put a mailbox there; ``fields`` are of what ``get/mailbox`` answers."""
        local_part, _, domain = address.partition("@")
        attributes = {
            "force_pw_update": "0",
            "tls_enforce_in": "0",
            "tls_enforce_out": "0",
            "sogo_access": "1",
            "imap_access": "1",
            "pop3_access": "1",
            "smtp_access": "1",
            "sieve_access": "1",
            "relayhost": "0",
            "passwd_update": "2026-08-05 12:00:00",
            "mailbox_format": "maildir:",
            "quarantine_notification": "hourly",
            "quarantine_category": "reject",
        }
        mailbox: dict[str, Any] = {
            "username": address,
            "active": 1,
            "active_int": 1,
            "domain": domain,
            "name": "",
            "local_part": local_part,
            "quota": 0,
            "messages": 0,
            "attributes": attributes | fields.pop("attributes", {}),
            "custom_attributes": [],
            "quota_used": 0,
            "percent_in_use": "- ",
            "created": "2026-08-05 12:00:00",
            "modified": None,
            "authsource": "mailcow",
            "percent_class": "info",
            "last_imap_login": 0,
            "last_smtp_login": 0,
            "last_pop3_login": 0,
            "last_sso_login": 0,
            "max_new_quota": 0,
            "spam_aliases": 0,
            "pushover_active": 0,
            "rl": False,
            "rl_scope": "domain",
            "is_relayed": 0,
        }
        if tags:
            mailbox["tags"] = list(tags)
        with self.lock:
            self.mailboxes[address] = mailbox | self.logins.get(address, {}) | fields

    def trouble_with(self, method: str) -> str:
        """Return how requests of a method fail."""
        return self.trouble if self.troubled in {"", method} else ""

    def answer(self, request: Request) -> tuple[Reply, str]:
        """Return the answer to a request, and the cookie of the session."""
        with self.lock:
            self.requests.append(request)
        trouble = self.trouble_with(request.method)
        if trouble == "php-fpm":
            return Reply(502, PREPARING.encode(), "text/html"), ""
        if trouble in OUTAGES:
            text = f"<center style='font-family:sans-serif;'>{OUTAGES[trouble]}</center> "
            return Reply(500, text.encode(), "text/html; charset=UTF-8"), ""
        path = request.path.removeprefix("/api/v1/")
        if self.default is not None:
            return self.default, ""
        if path in self.replies:
            return self.replies[path], ""
        session = _cookie(request) or secrets.token_hex(16)
        if trouble == "empty":
            return Reply(200, b""), session
        access, refusal = self._access(request, session)
        if refusal:
            return refusal, session
        reply = self._route(request, path, access)
        if trouble == "empty-after":
            return Reply(200, b""), session
        return reply, session

    def _access(self, request: Request, session: str) -> tuple[str, Reply | None]:
        """Return "rw", "ro" or "" for nobody, or the answer to a key that is not good."""
        shown = request.headers.get("x-api-key", "")
        if not shown:
            return self._sessions.get(session, ""), None
        key = self.keys.get(re.sub("[^a-zA-Z0-9-]", "", shown))
        if key is None or not key.is_active:
            return "", self._refuse("authentication failed")
        client = ipaddress.ip_address(request.client)
        if key.allow_from and not any(client in ipaddress.ip_network(n) for n in key.allow_from):
            return "", self._refuse(f"api access denied for ip {request.client}")
        with self.lock:
            self._sessions[session] = key.access
        return key.access, None

    def _refuse(self, why: str) -> Reply:
        with self.lock:
            self.refused += 1
        return _error(401, why)

    def _route(self, request: Request, path: str, access: str) -> Reply:
        if request.headers.get("sec-fetch-dest", "empty") != "empty":
            return Reply(403, b"")
        # nginx decodes the path and makes it an argument, which PHP decodes once more.
        action, category, name, *_ = [
            *unquote_plus(unquote(urlsplit(path).path).partition("&")[0]).split("/"),
            "",
            "",
        ]
        sent: Any = None
        content_type = request.headers.get("content-type", "")
        if "application/json" in content_type:
            with contextlib.suppress(ValueError):
                sent = request.json
            if sent is None and action != "get":
                return _error(400, "Request body doesn't contain valid json!")
        elif "x-www-form-urlencoded" in content_type:
            form = parse_qs(request.body.decode())
            sent = json.loads(form["attr" if action == "add" else "items"][0])
        if action == "get":
            if request.method != "GET":
                return _error(405, "only GET method is allowed")
            return self._get(category, name, request.path, access)
        if action not in {"add", "edit", "delete"}:
            return _error(404, "route not found")
        if access == "ro" or (not access and action != "add"):
            return _error(403, "API read/write access denied")
        if sent is None:
            return _error(200, "Cannot find attributes in post data")
        if request.method != "POST":
            return _error(405, "only POST method is allowed")
        if category != "mailbox":
            return _error(404, "route not found")
        if not access:
            return Reply(200, b"")
        change = {"add": self._add, "edit": self._edit, "delete": self._delete}[action]
        with self.lock:
            is_first, self.is_upgraded = self.is_upgraded, False
        begin = [_entry("info", "db_init_complete", log="init_db_schema")] if is_first else []
        entries = change(sent)
        if entries is None:
            return Reply(200, b"")
        if not [*begin, *entries]:
            return Reply(200, _json({"type": "success", "msg": "Task completed"}))
        return Reply(200, _json([*begin, *entries]))

    def _get(self, category: str, name: str, path: str, access: str) -> Reply:
        if not access:
            return Reply(200, b"")
        found: Any = {}
        with self.lock:
            if category == "mailbox" and name == "all":
                domain = unquote_plus(urlsplit(path).path).partition("/all/")[2]
                found = [m for m in self.mailboxes.values() if domain in {"", m["domain"]}]
            elif category == "mailbox":
                found = self.mailboxes.get(name.lower(), {})
                if found and not self.sees_logins:
                    found = found | dict.fromkeys(_LOGINS, 0)
                tags = parse_qs(urlsplit(path).query).get("tags", [])
                if tags:
                    found = [found] if any(tag in found.get("tags", ()) for tag in tags) else []
            elif category == "domain" and name == "all":
                found = [self._domain(each) for each in self.domains]
            elif category == "alias-domain" and name == "all":
                found = [
                    {
                        "alias_domain": alias,
                        "target_domain": target,
                        "active": int(alias not in self.inactive_aliases),
                        "active_int": int(alias not in self.inactive_aliases),
                    }
                    for alias, target in self.alias_domains.items()
                ]
            elif category == "domain" and name.lower() in self.domains:
                found = self._domain(name.lower())
            elif category != "domain":
                return _error(404, "route not found")
            return Reply(200, json.dumps(found or {}, indent=4, ensure_ascii=False).encode())

    def _domain(self, name: str) -> dict[str, Any]:
        mailboxes = [m for m in self.mailboxes.values() if m["domain"] == name]
        return {
            "quota_used_in_domain": str(sum(m["quota"] for m in mailboxes)),
            "mboxes_in_domain": len(mailboxes),
            "mboxes_left": self.domains[name].mailboxes - len(mailboxes),
            "domain_name": name,
            "max_num_mboxes_for_domain": self.domains[name].mailboxes,
            "active": self.domains[name].active,
            "active_int": self.domains[name].active,
            "backupmx": self.domains[name].backupmx,
            "backupmx_int": self.domains[name].backupmx,
        }

    def _add(self, sent: Any) -> list[Any] | None:
        attributes = sent if isinstance(sent, dict) else {}

        def refuse(code: str, *arguments: object) -> list[Any]:
            return [_entry("danger", code, *arguments, log="mailbox", sent=attributes)]

        local_part = str(attributes.get("local_part", "")).strip().lower()
        name = str(attributes.get("domain", "")).strip().lower()
        address = f"{local_part}@{name}"
        if not _ADDRESS.fullmatch(address):
            return refuse("mailbox_invalid")
        domain = self.domains.get(name)
        if domain is None:
            return refuse("access_denied")
        with self.lock:
            for taken, code in (
                (self.mailboxes, "object_exists"),
                (self.aliases, "is_alias"),
                (self.spam_aliases, "is_spam_alias"),
            ):
                if address in taken:
                    return refuse(code, _escaped(address))
        password = attributes.get("password", "")
        if not password or not attributes.get("password2"):
            return refuse("password_complexity")
        if password != attributes["password2"]:
            return refuse("password_mismatch")
        if not self.policy.allows(password):
            return refuse("password_complexity")
        quota = int(attributes.get("quota", self.template_quota))
        with self.lock:
            others = [m for m in self.mailboxes.values() if m["domain"] == name]
        used = sum(m["quota"] for m in others) // MEBIBYTE
        if len(others) >= domain.mailboxes:
            return refuse("max_mailbox_exceeded", len(others), domain.mailboxes)
        if quota > domain.maxquota:
            return refuse("mailbox_quota_exceeded", domain.maxquota)
        if used + quota > domain.quota:
            return refuse("mailbox_quota_left_exceeded", domain.quota - used)
        self.before_insert()
        active = int(attributes.get("active", 1))
        tags = attributes.get("tags") or []
        with self.lock:
            if address in self.mailboxes:  # a duplicate of the primary key is an exception
                return None
            self.add(
                address,
                tags=tuple(tag for tag in tags if len(tag) <= 255),
                name=attributes.get("name") or "",
                active=active,
                active_int=active,
                quota=quota * MEBIBYTE,
                attributes={
                    key: str(value) for key, value in attributes.items() if key.endswith("_access")
                }
                | {"force_pw_update": str(attributes.get("force_pw_update", "0"))},
            )
            self.passwords[address] = password
        return [
            _entry("success", "rl_saved", address, log="ratelimit"),
            _entry("success", "mailbox_added", _escaped(address), log="mailbox", sent=attributes),
        ]

    def _edit(self, sent: Any) -> list[Any]:
        items, attributes = sent.get("items") or [], sent.get("attr") or {}
        entries = []
        for item in items if isinstance(items, list) else [items]:
            with self.lock:
                refusal = self._edit_refusal(str(item), attributes)
                if refusal:
                    entries.append(_entry("danger", *refusal, log="mailbox"))
                    continue
                mailbox = self.mailboxes[str(item).lower()]
                if "active" in attributes:
                    mailbox["active"] = mailbox["active_int"] = int(attributes["active"])
                if "password" in attributes:
                    self.passwords[str(item).lower()] = attributes["password"]
                if "quota" in attributes:
                    mailbox["quota"] = int(attributes["quota"]) * MEBIBYTE
                entries.append(_entry("success", "mailbox_modified", item, log="mailbox"))
        return entries

    def _edit_refusal(self, item: str, attributes: Any) -> tuple[str, *tuple[object, ...]] | None:
        """Return the code of a refusal and its arguments; None if there is none.

        The quota is checked even if it is not sent.
        """
        if not _ADDRESS.fullmatch(item):
            return "username_invalid", item
        mailbox = self.mailboxes.get(item.lower())
        domain = self.domains.get(item.lower().partition("@")[2])
        if mailbox is None or mailbox["username"] is None or domain is None:
            return ("access_denied",)
        if "password" in attributes and not self.policy.allows(attributes["password"]):
            return ("password_complexity",)
        quota = int(attributes.get("quota", mailbox["quota"] // MEBIBYTE))
        others = [m for m in self.mailboxes.values() if m["domain"] == mailbox["domain"]]
        left = domain.quota - sum(m["quota"] for m in others if m is not mailbox) // MEBIBYTE
        if quota > left:
            return "mailbox_quota_left_exceeded", left
        if quota > domain.maxquota:
            return "mailbox_quota_exceeded", domain.maxquota
        return None

    def _delete(self, sent: Any) -> list[Any]:
        items = list(sent.values()) if isinstance(sent, dict) else sent
        entries = []
        for item in items if isinstance(items, list) else [items]:
            address = str(item).lower()
            with self.lock:
                if address not in self.mailboxes:
                    entries.append(_entry("danger", "access_denied", log="mailbox"))
                    continue
                if self.maildir_trouble is not None:
                    text = f"Could not move maildir to garbage collector: {self.maildir_trouble}"
                    entries.append(_entry("warning", text, log="mailbox"))
                mailbox = self.mailboxes.pop(address)
                self.logins[address] = {name: mailbox[name] for name in _LOGINS if name in mailbox}
                self.passwords.pop(address, None)
                self.aliases = {
                    alias: goal for alias, goal in self.aliases.items() if goal != address
                }
            entries.append(_entry("success", "mailbox_removed", _escaped(item), log="mailbox"))
        return entries


def _entry(kind: str, code: str, *arguments: object, log: str, sent: Any = None) -> dict[str, Any]:
    shown = dict(sent) if isinstance(sent, dict) else sent
    for name in ("password", "password2"):
        if isinstance(shown, dict) and name in shown:
            shown[name] = "*"
    return {"type": kind, "log": [log, shown], "msg": [code, *arguments] if arguments else code}


def _escaped(address: str) -> str:
    """Return text as PHP's htmlspecialchars() writes it."""
    return html.escape(address).replace("&#x27;", "&#039;")


def _json(value: object) -> bytes:
    """Return JSON as PHP writes it."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode()


def _error(status: int, text: str) -> Reply:
    return Reply(status, _json({"type": "error", "msg": text}))


def _cookie(request: Request) -> str:
    found = re.search(r"MCSESSID=(\w+)", request.headers.get("cookie", ""))
    return found[1] if found else ""


class _Server(ThreadingHTTPServer):
    """Each connection has a thread; leaving ends all of them."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, mailcow: FakeMailcow, context: ssl.SSLContext | None, port: int) -> None:
        self.mailcow = mailcow
        self.context = context
        self.ended = threading.Event()
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def end(self) -> None:
        """Stop, and hang up on everybody."""
        self.ended.set()
        self.mailcow.hold.set()
        self.shutdown()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Turns octets into a Request and a Reply into octets, or behaves as ``trouble`` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        """Answer all requests of a connection."""
        with contextlib.suppress(OSError):  # such as a client that does not trust us
            super().handle()

    def setup(self) -> None:
        """Begin TLS in the thread of the connection."""
        with self.server.lock:
            self.server.open.add(self.request)
            self.server.mailcow.connections += 1
        if self.server.context is not None:
            plain = self.request
            try:
                self.request = self.server.context.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
                with self.server.lock:
                    self.server.open = (self.server.open - {plain}) | {self.request}
                self.request.do_handshake()
            except OSError:
                pass
        super().setup()

    def finish(self) -> None:
        """Forget the connection."""
        with contextlib.suppress(OSError):
            super().finish()
        with self.server.lock:
            self.server.open.discard(self.request)
        self.request.close()

    def do_GET(self) -> None:
        """Answer, or do what the trouble of the day is."""
        mailcow = self.server.mailcow
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body, self.client_address[0])
        trouble = mailcow.trouble_with(self.command)
        if trouble in {"silent", "lost"}:
            mailcow.requests.append(request)
        else:
            with mailcow.lock:
                mailcow.waiting += 1
            mailcow.hold.wait()
            with mailcow.lock:
                mailcow.waiting -= 1
            reply, session = mailcow.answer(request)
        if trouble.startswith("silent"):
            self.server.ended.wait()
        if trouble.startswith(("silent", "lost")):
            self.close_connection = True
            return
        head = (
            f"HTTP/1.1 {reply.status} {self.responses[reply.status][0]}\r\n"
            f"Server: nginx\r\nContent-Type: {reply.content_type}\r\n"
            f"Content-Length: {len(reply.body)}\r\n"
        )
        if session:
            head += f"Set-Cookie: MCSESSID={session}; path=/; HttpOnly\r\n"
        octets = head.encode() + b"\r\n" + reply.body
        if trouble != "drip":
            self.wfile.write(octets)
            return
        for octet in octets:
            self.wfile.write(bytes([octet]))
            if self.server.ended.wait(0.1):
                self.close_connection = True
                return

    def do_POST(self) -> None:
        """Answer likewise."""
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to the terminal."""


@contextlib.contextmanager
def running_mailcow(
    certificate: Certificate | None = None, *, port: int = 0
) -> Iterator[FakeMailcow]:
    """Run a mailcow server on loopback, by TLS if there is a certificate; 0 is any free port."""
    mailcow = FakeMailcow()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
    server = _Server(mailcow, context, port)
    scheme = "https" if certificate else "http"
    mailcow.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/api/v1"
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    try:
        yield mailcow
    finally:
        server.end()
        thread.join()
