"""Private LDAP directories: real slapd instances, and sockets that behave as broken ones do.

One slapd answers LDAP, StartTLS and LDAPS, and holds four trees: one with the schema that OpenLDAP
brings, one as Active Directory keeps people, one as FreeIPA does, one with the domains of iRedMail.
The data are loaded once; each instance starts with a copy of them. A directory writes what it is
asked into its log, so that tests can read the filters as they arrived.
"""

import base64
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.documents import DATA
from tests.processes import Running, free_port, frozen, listens, program, running
from tests.tls import Authority, Certificate

PEOPLE = 3000  # entries person0000@example.com and so on, in the tree of OpenLDAP's schema

PASSWORD = "blue salt (under) the *stairs*"  # of every service account
ADMIN_PASSWORD = "the administrator's own"

_SCHEMAS = Path("/etc/ldap/schema")
_MODULES = Path("/usr/lib/ldap")

Value = str | bytes
Entry = Mapping[str, Value | Sequence[Value]]


@dataclass(frozen=True)
class Tree:
    """A database of a directory; ``reader`` is the account that may read it."""

    suffix: str
    reader: str
    entries: tuple[tuple[str, Entry], ...] = field(repr=False)
    indexes: tuple[str, ...]

    @property
    def admin(self) -> str:
        """The account that may change everything."""
        return f"cn=admin,{self.suffix}"


def _person(number: int) -> tuple[str, Entry]:
    name = f"person{number:04}"
    return (
        f"uid={name},ou=people,dc=example,dc=com",
        {
            "objectClass": "inetOrgPerson",
            "uid": name,
            "cn": f"Person {number}",
            "sn": str(number),
            "mail": f"{name}@example.com",
            "employeeNumber": f"E{number:05}",
        },
    )


def _openldap_person(name: str, **attributes: Value | Sequence[Value]) -> tuple[str, Entry]:
    """Return an entry whose RDN says nothing about its login name; ``None`` is no value."""
    entry: dict[str, Value | Sequence[Value]] = {
        "objectClass": ("inetOrgPerson", "oddPerson"),
        "cn": name,
        "sn": name,
        "mail": f"{name}@example.com",
    }
    return f"employeeNumber={name},ou=people,dc=example,dc=com", {
        "employeeNumber": name,
        **entry,
        **attributes,
    }


OPENLDAP = Tree(
    suffix="dc=example,dc=com",
    reader="cn=automx,ou=services,dc=example,dc=com",
    entries=(
        ("dc=example,dc=com", {"objectClass": ("dcObject", "organization"), "o": "Example Inc."}),
        ("ou=people,dc=example,dc=com", {"objectClass": "organizationalUnit"}),
        ("ou=services,dc=example,dc=com", {"objectClass": "organizationalUnit"}),
        (
            "cn=automx,ou=services,dc=example,dc=com",
            {
                "objectClass": ("organizationalRole", "simpleSecurityObject"),
                "userPassword": PASSWORD,
            },
        ),
        (
            "uid=alice,ou=people,dc=example,dc=com",
            {
                "objectClass": "inetOrgPerson",
                "uid": "alice",
                "cn": "Alice Example",
                "sn": "Example",
                "displayName": "Alice",
                "mail": ("alice@example.com", "alice.example@example.com"),
                "employeeNumber": "E1",
                "userPassword": "wonderland",
            },
        ),
        # Attributes as they come.
        _openldap_person("several", uid=("first", "second"), displayName="Several Names"),
        _openldap_person("nothing"),
        _openldap_person("octets", octetLogin=b"octets-login"),
        _openldap_person("broken", octetLogin=b"\xff\xfe\x80"),
        _openldap_person("blank", uid=" "),
        _openldap_person("unicode", uid="jürgen", displayName="Jürgen Müller-Ωmega 猫"),
        _openldap_person("markup", uid="<b>&\"']]>", displayName="<i>&amp;</i>"),
        _openldap_person("control", uid="two\nlines", displayName="two\nlines"),
        _openldap_person("private", uid="mark\ue000\ue001", displayName="mark\ue000\ue001"),
        _openldap_person("placeholder", uid="%EMAILDOMAIN%", displayName="%EMAILADDRESS%"),
        _openldap_person("long", uid="l" * 5000, displayName="d" * 5000),
        _openldap_person("obrien", uid="obrien", mail="o'brien+mail@example.com"),
        # Two people with one address.
        _openldap_person("twin1", uid="twin1", mail="twins@example.com"),
        _openldap_person("twin2", uid="twin2", mail="twins@example.com"),
        *(_person(number) for number in range(PEOPLE)),
    ),
    indexes=("objectClass eq", "mail eq,sub", "uid eq"),
)

ACTIVE_DIRECTORY = Tree(
    suffix="dc=corp,dc=example,dc=net",
    reader="CN=automx,OU=Services,dc=corp,dc=example,dc=net",
    entries=(
        ("dc=corp,dc=example,dc=net", {"objectClass": ("dcObject", "organization"), "o": "Corp"}),
        ("OU=Services,dc=corp,dc=example,dc=net", {"objectClass": "organizationalUnit"}),
        ("OU=Staff,dc=corp,dc=example,dc=net", {"objectClass": "organizationalUnit"}),
        # A domain refers to its other partitions in every answer to a search of the whole domain.
        *(
            (
                f"DC={zone},dc=corp,dc=example,dc=net",
                {
                    "objectClass": ("referral", "extensibleObject"),
                    "ref": f"ldap://127.0.0.1:1/DC={zone},DC=corp,DC=example,DC=net",
                },
            )
            for zone in ("DomainDnsZones", "ForestDnsZones")
        ),
        (
            "CN=automx,OU=Services,dc=corp,dc=example,dc=net",
            {
                "objectClass": "user",
                "sn": "automx",
                "sAMAccountName": "automx",
                "userAccountControl": "66048",
                "userPassword": PASSWORD,
            },
        ),
        (
            "CN=Alice Example,OU=Staff,dc=corp,dc=example,dc=net",
            {
                "objectClass": "user",
                "sn": "Example",
                "givenName": "Alice",
                "displayName": "Alice Example",
                "sAMAccountName": "aexample",
                "userPrincipalName": "aexample@corp.example.net",
                "mail": "alice@example.net",
                "proxyAddresses": (
                    "SMTP:alice@example.net",
                    "smtp:a.example@example.net",
                    "x500:/o=corp/cn=alice",
                ),
                "userAccountControl": "512",
            },
        ),
        (
            "CN=Bob Left,OU=Staff,dc=corp,dc=example,dc=net",
            {
                "objectClass": "user",
                "sn": "Left",
                "displayName": "Bob Left",
                "sAMAccountName": "bleft",
                "userPrincipalName": "bleft@corp.example.net",
                "mail": "bob@example.net",
                "proxyAddresses": "SMTP:bob@example.net",
                "userAccountControl": "514",  # switched off
            },
        ),
    ),
    indexes=("objectClass eq", "mail eq", "proxyAddresses eq", "sAMAccountName eq"),
)

FREEIPA = Tree(
    suffix="dc=ipa,dc=example,dc=org",
    reader="uid=automx,cn=sysaccounts,cn=etc,dc=ipa,dc=example,dc=org",
    entries=(
        ("dc=ipa,dc=example,dc=org", {"objectClass": ("dcObject", "organization"), "o": "IPA"}),
        ("cn=etc,dc=ipa,dc=example,dc=org", {"objectClass": "organizationalRole"}),
        ("cn=sysaccounts,cn=etc,dc=ipa,dc=example,dc=org", {"objectClass": "organizationalRole"}),
        (
            "uid=automx,cn=sysaccounts,cn=etc,dc=ipa,dc=example,dc=org",
            {"objectClass": ("account", "simpleSecurityObject"), "userPassword": PASSWORD},
        ),
        ("cn=accounts,dc=ipa,dc=example,dc=org", {"objectClass": "organizationalRole"}),
        ("cn=users,cn=accounts,dc=ipa,dc=example,dc=org", {"objectClass": "organizationalRole"}),
        (
            "uid=alice,cn=users,cn=accounts,dc=ipa,dc=example,dc=org",
            {
                "objectClass": ("inetOrgPerson", "krbPrincipalAux"),
                "cn": "Alice Example",
                "sn": "Example",
                "displayName": "Alice Example",
                "krbPrincipalName": "alice@IPA.EXAMPLE.ORG",
                "mail": "alice@example.org",
            },
        ),
    ),
    indexes=("objectClass eq", "mail eq", "uid eq"),
)

DOMAINS = 620  # entries d000.example and so on, in the tree of iRedMail: more than slapd's limit


def _mail_domain(name: str, **attributes: Value | Sequence[Value]) -> tuple[str, Entry]:
    entry: dict[str, Value | Sequence[Value]] = {
        "objectClass": "mailDomain",
        "domainName": name,
        "accountStatus": "active",
    }
    return f"domainName={name},o=domains,dc=mail,dc=example,dc=org", {**entry, **attributes}


IREDMAIL = Tree(
    suffix="dc=mail,dc=example,dc=org",
    reader="cn=vmail,dc=mail,dc=example,dc=org",
    entries=(
        ("dc=mail,dc=example,dc=org", {"objectClass": ("dcObject", "organization"), "o": "Mail"}),
        ("o=domains,dc=mail,dc=example,dc=org", {"objectClass": "organization"}),
        (
            "cn=vmail,dc=mail,dc=example,dc=org",
            {
                "objectClass": ("organizationalRole", "simpleSecurityObject"),
                "userPassword": PASSWORD,
            },
        ),
        _mail_domain("one.example", domainAliasName=("alias.example", "other.example")),
        _mail_domain("off.example", accountStatus="disabled", domainAliasName="idle.example"),
        *(_mail_domain(f"d{number:03}.example") for number in range(DOMAINS)),
    ),
    indexes=("objectClass eq",),
)

TREES = (OPENLDAP, ACTIVE_DIRECTORY, FREEIPA, IREDMAIL)


@dataclass
class Directory:
    """A slapd of the test's own; it can be stopped, killed and started again on the same ports."""

    folder: Path
    host: str
    port: int
    tls_port: int
    command: list[str | Path]
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)
    _running: Running | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        """The socket for programs of this machine."""
        return self.folder / "socket"

    @property
    def uri(self) -> str:
        """The address for programs of ldap-utils."""
        return f"ldap://{self.host}:{self.port}"

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running slapd."""
        assert self._running is not None
        return self._running.process

    def start(self) -> None:
        """Start slapd and wait until it answers."""
        self._running = self._stack.enter_context(
            running(
                self.command,
                self.folder / "log",
                ready=lambda: listens(self.port, self.host),
            )
        )

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End slapd, by default as a clean service stop does; SIGKILL is a crash."""
        if self._running is not None:
            self._running.stop(sig)
        self._stack.close()
        self._running = None

    def restart(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Stop slapd and start it again."""
        self.stop(sig)
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep slapd from running: connections are still accepted, and then nothing is said."""
        with frozen(self.process):
            yield

    @property
    def log(self) -> str:
        """All that slapd has written so far."""
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def filters(self) -> list[str]:
        """Return the filter of each search so far, as slapd understood it."""
        return [match[1] for match in _SEARCH.finditer(self.log)]

    @property
    def searches(self) -> int:
        """How many searches there were so far."""
        return self.count("SRCH base=")

    @property
    def binds(self) -> int:
        """How often somebody began to log in, or to ask anonymously."""
        return len(re.findall(r' BIND dn="[^\n]*" method=', self.log))

    def count(self, what: str) -> int:
        """Return how often slapd has logged a word, such as STARTTLS."""
        return len(re.findall(rf" {re.escape(what)}", self.log))

    def change(self, tree: Tree, ldif: str, password: str = ADMIN_PASSWORD) -> None:
        """Change entries as the administrator of a tree does."""
        command = [program("ldapmodify", "ldap-utils"), "-x", "-H", self.uri, "-D", tree.admin]
        _run([*command, "-w", password], ldif)


# A filter may hold newlines; a debug line begins with seconds and a thread, both hexadecimal.
_SEARCH = re.compile(
    r' SRCH base="[^\n]*?" scope=\d deref=\d filter="(.*?)"\n(?=[0-9a-f.]+ |\Z)', re.DOTALL
)


def ldapserver_columns(
    directory: Directory, *, tree: Tree = OPENLDAP, **columns: Any
) -> dict[str, object]:
    """Return what a look-up reads of a directory, for a tree of it, not encrypted."""
    return {"login_name": None} | ldapserver_row(directory, tree=tree, **columns)


def ldapserver_row(
    directory: Directory, *, tree: Tree = OPENLDAP, **columns: Any
) -> dict[str, object]:
    """Return a row of the table ``ldapserver`` for a tree of a directory, not encrypted."""
    return {
        "id": 3,
        "name": directory.host,
        "port": directory.port,
        "use_ssl": False,
        "search_base": tree.suffix,
        "search_filter": "(mail={0})",
        "attr_uid": "uid",
        "attr_cn": "cn",
        "bind_user": tree.reader,
        "bind_password": PASSWORD,
        **columns,
    }


def insert_ldapserver(directory: Directory, *, tree: Tree = OPENLDAP, **columns: Any) -> str:
    """Return the SQL statement that adds such a row."""

    def literal(value: Any) -> str:
        if isinstance(value, str):
            return "'" + value.replace("'", "''") + "'"
        return "NULL" if value is None else f"{value:d}"

    row = ldapserver_row(directory, tree=tree, **columns)
    values = ", ".join(literal(value) for value in row.values())
    return f"INSERT INTO ldapserver ({', '.join(row)}) VALUES ({values});"


def ldif(entries: Sequence[tuple[str, Entry]]) -> str:
    """Return entries in the form that slapadd reads (RFC 2849)."""
    lines = []
    for dn, attributes in entries:
        lines.append(f"dn: {dn}")
        name, _, value = dn.partition(",")[0].partition("=")
        naming = {} if name in attributes else {name: value}
        for attribute, values in {**attributes, **naming}.items():
            for one in [values] if isinstance(values, str | bytes) else values:
                octets = one.encode() if isinstance(one, str) else one
                lines.append(f"{attribute}:: {base64.b64encode(octets).decode()}")
        lines.append("")
    return "\n".join(lines) + "\n"


def _run(command: Sequence[str | Path], stdin: str = "") -> None:
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.fail(f"{command[0]}: {result.stderr[-2000:]}")


def _configuration(
    folder: Path,
    *,
    certificate: Certificate | None = None,
    anonymous: bool = False,
    access: Sequence[str] = (),
    options: Sequence[str] = (),
    tree_options: Sequence[str] = (),
    replica_of: "Directory | None" = None,
) -> str:
    """Return slapd.conf(5) for the data in a folder."""
    schemas = [_SCHEMAS / f"{name}.schema" for name in ("core", "cosine", "inetorgperson")]
    schemas += [
        DATA / f"{name}.schema" for name in ("active-directory", "freeipa", "iredmail", "odd")
    ]
    lines = [f"modulepath {_MODULES}", "moduleload back_mdb", "moduleload syncprov"]
    lines += [f"include {schema}" for schema in schemas]
    lines += [f"pidfile {folder}/slapd.pid", "threads 4", *options]
    if certificate:
        lines += [f"TLSCertificateFile {certificate.certificate}"]
        lines += [f"TLSCertificateKeyFile {certificate.key}"]
    others = "read" if anonymous else "none"
    for number, tree in enumerate(TREES):
        lines += [
            "database mdb",
            f'suffix "{tree.suffix}"',
            f'rootdn "{tree.admin}"',
            f'rootpw "{ADMIN_PASSWORD}"',
            f"directory {folder}/{number}",
            "maxsize 67108864",
            "dbnosync",
            *(f"index {index}" for index in tree.indexes),
            "access to attrs=userPassword by anonymous auth by * none",
            *(access or [f'access to * by dn.exact="{tree.reader}" read by * {others}']),
            *tree_options,
        ]
        if replica_of is not None:
            account = f'binddn="{tree.admin}" credentials="{ADMIN_PASSWORD}" bindmethod=simple'
            what = f'searchbase="{tree.suffix}" type=refreshAndPersist retry="1 +"'
            lines += [
                f"syncrepl rid=1 provider={replica_of.uri} {account} {what}",
                f"updateref {replica_of.uri}",
            ]
        lines.append("overlay syncprov")
    return "\n".join(lines) + "\n"


def _load(folder: Path) -> None:
    """Load all trees into databases below a folder."""
    slapadd = program("slapadd", "slapd")
    (folder / "slapd.conf").write_text(_configuration(folder))
    for number in range(len(TREES)):
        (folder / str(number)).mkdir()
    for tree in TREES:
        command: list[str | Path] = [slapadd, "-w", "-f", folder / "slapd.conf", "-b", tree.suffix]
        _run(command, ldif(tree.entries))


MakeDirectory = Callable[..., Directory]


class Directories:
    """Makes directories; ``data`` is a folder with loaded trees, ``authority`` issues for all."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._made = 0
        self.authority = authority
        self.certificate = authority.issue("localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0")
        self.data = folder / "data"
        self.data.mkdir()
        _load(self.data)

    @contextlib.contextmanager
    def running(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_port: int = 0,
        certificate: Certificate | None = None,
        tls: bool = True,
        anonymous: bool = False,
        access: Sequence[str] = (),
        options: Sequence[str] = (),
        tree_options: Sequence[str] = (),
        replica_of: Directory | None = None,
        start: bool = True,
    ) -> Iterator[Directory]:
        """Run a slapd until the block ends.

        The ports are free ones unless they are given. It listens on the ``socket`` of its folder,
        too. LDAPS and StartTLS need ``tls``, with ``certificate`` or else one that fits the host.
        ``anonymous`` lets everyone read, ``access`` are other rules of who may read. ``options``
        and ``tree_options`` are lines of slapd.conf(5) for the whole server and for each tree. A
        replica takes changes from another directory and from nobody else.
        """
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        for number in range(len(TREES)):
            (folder / str(number)).mkdir()
            shutil.copy(self.data / str(number) / "data.mdb", folder / str(number))
        (folder / "slapd.conf").write_text(
            _configuration(
                folder,
                certificate=(certificate or self.certificate) if tls else None,
                anonymous=anonymous,
                access=access,
                options=options,
                tree_options=tree_options,
                replica_of=replica_of,
            )
        )
        port, tls_port = port or free_port(host), tls_port or free_port(host)
        urls = f"ldap://{host}:{port}" + (f" ldaps://{host}:{tls_port}" if tls else "")
        urls += f" ldapi://{quote(str(folder / 'socket'), safe='')}"
        slapd = program("slapd", "slapd")
        command: list[str | Path] = [slapd, "-d", "stats", "-h", urls, "-f", folder / "slapd.conf"]
        directory = Directory(folder, host, port, tls_port, command)
        try:
            if start:
                directory.start()
            yield directory
        finally:
            directory.stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    """What makes directories, with the data loaded."""
    folder = tmp_path_factory.mktemp("directories")
    return Directories(folder, Authority(folder))


@pytest.fixture(scope="session")
def shared_directory(directories: Directories) -> Iterator[Directory]:
    """A directory for all tests that only ask it; it is never stopped."""
    with directories.running() as directory:
        yield directory


@pytest.fixture
def make_directory(directories: Directories) -> Iterator[MakeDirectory]:
    """Run directories until the test ends; keyword arguments as for ``Directories.running``."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(directories.running(**options))


@pytest.fixture
def directory(make_directory: MakeDirectory) -> Directory:
    """A directory of the test's own, which may stop it."""
    return make_directory()


@contextlib.contextmanager
def silent_socket(host: str = "127.0.0.1") -> Iterator[int]:
    """Listen, and give the port: connections are accepted and never answered."""
    with dripping_socket(b"", host) as port:
        yield port


@contextlib.contextmanager
def dripping_socket(
    octets: bytes, host: str = "127.0.0.1", *, seconds: float = 0.2
) -> Iterator[int]:
    """Listen, and give the port: each connection gets ``octets``, one in so many seconds."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for octet in octets:
                connection.sendall(bytes([octet]))
                if ended.wait(seconds):
                    return
            ended.wait()

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=drip, args=[connection]))
                threads[-1].start()

    with socket.create_server((host, 0), backlog=100) as listener:
        listener.settimeout(0.05)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            accepting.join()
            for thread in threads:
                thread.join()


@contextlib.contextmanager
def slow_wire(directory: Directory, *, quick_octets: int, seconds: float = 0.2) -> Iterator[int]:
    """Give a port that passes everything on to a directory, and its answers more and more slowly.

    The first ``quick_octets`` of the answers of a connection come at once, then one in so many
    seconds: the directory turns slow in the midst of a conversation.
    """
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                target.sendall(octets)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def drip(source: socket.socket, target: socket.socket) -> None:
        quick = quick_octets
        with source, target, contextlib.suppress(OSError):
            while octets := source.recv(65536):
                target.sendall(octets[:quick])
                octets, quick = octets[quick:], max(0, quick - len(octets))
                for octet in octets:
                    if ended.wait(seconds):
                        return
                    target.sendall(bytes([octet]))

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                near, _ = listener.accept()
                far = socket.create_connection((directory.host, directory.port))
                sockets.extend((near, far))
                for work, ends in ((forward, (near, far)), (drip, (far, near))):
                    threads.append(threading.Thread(target=work, args=ends))
                    threads[-1].start()

    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.settimeout(0.05)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            accepting.join()
            for one in sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for one in sockets:
                one.close()
