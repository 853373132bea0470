"""automx behind real nginx, Apache and Caddy with the files of contrib, alone and two in a row.

The files are used as they are; only ports, certificates and paths are put in. What automx makes of
a request is seen from outside: the client's address in its log; scheme, host and path prefix in the
URL of a QR code.
"""

import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest

from automx.accounts import tokens
from automx.database import open_session
from automx.formats import pacc
from tests.commandline import automx
from tests.processes import (
    REPOSITORY,
    Server,
    free_port,
    listens,
    program,
    running,
    serving,
    wait_until,
)

CLIENT = "127.0.0.7"  # any address of 127.0.0.0/8 is a loopback address on Linux
TOKEN = "a-token-of-the-tests"
ACCOUNT_TOKEN = "2hxg7kpw4m9tdzr3cfq8vyna"
NAMES = ("autoconfig.example.com", "autodiscover.example.com", "ua-auto-config.example.com")
LOGO = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'
SEED = {
    "version": 2,
    "provider": "Example Inc.",
    "domains": [{"name": "example.com"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 993},
        {"type": "smtp", "name": "smtp.example.com", "port": 465},
        {"type": "caldav", "url": "https://dav.example.com/calendars/%EMAILADDRESS%/"},
        {"type": "carddav", "url": "https://dav.example.com/contacts/%EMAILADDRESS%/"},
    ],
    "details": {
        "logo": {
            "type": "image/svg+xml",
            "width": 8,
            "height": 8,
            "data": base64.b64encode(LOGO).decode(),
        }
    },
}

# What a client could send to be taken for somebody else.
SPOOFS = {
    "plain": [
        ("X-Forwarded-For", "203.0.113.66"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Host", "autoconfig.evil.example"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Port", "666"),
        ("X-Real-IP", "203.0.113.66"),
        ("Forwarded", "for=203.0.113.66;proto=ftp;host=autoconfig.evil.example"),
    ],
    "lists": [
        ("X-Forwarded-For", "203.0.113.66, 203.0.113.67, 203.0.113.68"),
        ("X-Forwarded-Proto", "ftp, ftp, ftp"),
        ("X-Forwarded-Host", "a.evil.example, b.evil.example, c.evil.example"),
        ("X-Forwarded-Prefix", "/evil, /evil, /evil"),
    ],
    "repeated": [
        ("X-Forwarded-For", "203.0.113.66"),
        ("X-Forwarded-For", "203.0.113.67"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Host", "a.evil.example"),
        ("X-Forwarded-Host", "b.evil.example"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Prefix", "/evil"),
    ],
    "quotation mark": [
        ("X-Forwarded-For", '"203.0.113.66'),
        ("X-Forwarded-Proto", '"ftp'),
        ("X-Forwarded-Host", '"autoconfig.evil.example'),
        ("X-Forwarded-Prefix", '"/evil'),
    ],
    "not ASCII": [
        ("X-Forwarded-For", "\xff"),
        ("X-Forwarded-Proto", "\xff"),
        ("X-Forwarded-Host", "\xff"),
        ("X-Forwarded-Prefix", "/\xff"),
    ],
    "empty": [
        ("X-Forwarded-For", ""),
        ("X-Forwarded-Proto", ""),
        ("X-Forwarded-Host", ""),
        ("X-Forwarded-Prefix", ""),
    ],
    "underscores": [
        ("X-Forwarded-For", "203.0.113.66"),  # keeps a proxy's own value in front of the next lines
        ("X_Forwarded_For", "203.0.113.66, 203.0.113.66"),
        ("X-Forwarded_For", "203.0.113.66, 203.0.113.66"),
        ("x_forwarded-for", "203.0.113.66, 203.0.113.66"),
        ("X_Forwarded_Proto", "ftp, ftp"),
        ("X-Forwarded_Proto", "ftp, ftp"),
        ("x_forwarded-proto", "ftp, ftp"),
        ("X_Forwarded_Host", "a.evil.example, b.evil.example"),
        ("X-Forwarded_Host", "a.evil.example, b.evil.example"),
        ("x_forwarded-host", "a.evil.example, b.evil.example"),
        ("X_Forwarded_Prefix", "/evil, /evil"),
        ("X-Forwarded_Prefix", "/evil, /evil"),
        ("x_forwarded-prefix", "/evil, /evil"),
    ],
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class Front:
    """Where a client reaches automx: the port of the outermost proxy, or of automx itself."""

    port: int
    automx: Server
    tls: ssl.SSLContext | None = None
    plain_port: int = 0
    logs: Sequence[Path] = field(default=())

    @property
    def scheme(self) -> str:
        """The scheme that the client uses."""
        return "https" if self.tls else "http"

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        host: str = NAMES[0],
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        raw_host: str | None = None,
    ) -> Answer:
        """Send one request from ``CLIENT``; certificate and name are checked as a client does."""
        raw: socket.socket = socket.create_connection(
            ("127.0.0.1", self.port), 30, source_address=(CLIENT, 0)
        )
        if self.tls:
            raw = self.tls.wrap_socket(raw, server_hostname=host)
        with contextlib.closing(http.client.HTTPConnection(host)) as connection:
            connection.sock = raw
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", raw_host or f"{host}:{self.port}")
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None and "Transfer-Encoding" not in dict(headers):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    @contextlib.contextmanager
    def logged(self, line: str) -> Iterator[None]:
        """Check that automx logs exactly this line about the request of the block."""
        request = line.partition(" ")[2].rpartition(" ")[0]  # method and path
        before = self._lines(request)
        yield
        wait_until(lambda: len(self._lines(request)) > len(before), f"the line {line!r} in the log")
        assert self._lines(request) == [*before, line]

    def _lines(self, request: str) -> list[str]:
        return re.findall(rf"automx\.access: (\S+ {re.escape(request)} \d+)\n", self.automx.output)


def put(text: str, *changes: tuple[str, str]) -> str:
    """Return the text with each change made; each must have something to change."""
    for old, new in changes:
        assert old in text, f"contrib no longer holds {old!r}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for all names, and next to it its key (``.key``)."""
    file = tmp_path_factory.mktemp("tls") / "automx.pem"
    subprocess.run(
        [
            program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=automx tests",
            "-addext", "subjectAltName=" + ",".join(f"DNS:{n}" for n in (*NAMES, "example.com")),
            "-keyout", file.with_suffix(".key"), "-out", file,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return file


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings for a database that knows example.com."""
    file = tmp_path_factory.mktemp("database") / "automx.sqlite"
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{file}"}
    automx("db", "upgrade", env=env)
    automx("seed", "-", env=env, stdin=json.dumps(SEED))
    with open_session(env["AUTOMX_DB_URI"]) as session:
        now = datetime.now(UTC)
        tokens.add(session, "summer", "example.com", now=now, token=ACCOUNT_TOKEN, maxuse=0)
    return env


@pytest.fixture(scope="module")
def servers(
    database: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """Three servers: the first trusts no proxy, the next one, the last two."""
    logs = tmp_path_factory.mktemp("automx")
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                serving(
                    {
                        **database,
                        "AUTOMX_PROXY_COUNT": str(count),
                        "AUTOMX_LOGLEVEL": "INFO",
                        # It would take the place of the host in URLs of plain HTTP.
                        "AUTOMX_WEB_ENDPOINT": "https://example.com/new_email" if count else "",
                    },
                    logs / f"{count}.log",
                    "--workers",
                    "1",
                )
            )
            for count in range(3)
        ]


def nginx(
    folder: Path, certificate: Path, upstream: int, *, inner: bool
) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Run nginx with contrib/nginx.conf; as inner proxy it speaks plain HTTP to another one."""
    port, plain, unused = free_port(), free_port(), free_port()
    site = put(
        (REPOSITORY / "contrib/nginx.conf").read_text(),
        ("server 127.0.0.1:4243;", f"server 127.0.0.1:{upstream};"),
        ("    listen [::]:80;\n", ""),
        ("    listen [::]:443 ssl;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{unused if inner else port} ssl;"),
        ("/etc/ssl/certs/automx.pem", str(certificate)),
        ("/etc/ssl/private/automx.key", str(certificate.with_suffix(".key"))),
        ("/var/log/nginx/automx.log", str(folder / "access.log")),
        ("/var/log/nginx/error.log", str(folder / "error.log")),
    )
    if inner:
        site = put(
            site.partition("# The paths that clients ask on the mail domain itself.")[0],
            ("# listen 127.0.0.1:8080;", f"listen 127.0.0.1:{port};"),
            ("ua-auto-config.*;", "ua-auto-config.* example.com;"),
        )
    (folder / "automx.conf").write_text(site)
    temporary = "\n".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""
        daemon off;
        worker_processes 1;
        pid {folder / "pid"};
        events {{}}
        http {{
            {temporary}
            gzip on;
            gzip_min_length 1;
            gzip_proxied any;
            gzip_types *;
            include {folder / "automx.conf"};
        }}
        """
    )
    command = [program("nginx", "nginx-light"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    return _proxy(command, folder, port, plain)


def apache(
    folder: Path, certificate: Path, upstream: int, *, inner: bool
) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Run Apache with contrib/apache.conf; as inner proxy it speaks plain HTTP to another one."""
    port, plain = free_port(), free_port()
    site = put(
        (REPOSITORY / "contrib/apache.conf").read_text(),
        ("http://127.0.0.1:4243", f"http://127.0.0.1:{upstream}"),
        ("<VirtualHost *:80>", f"<VirtualHost 127.0.0.1:{plain}>"),
        ("<VirtualHost *:443>", f"<VirtualHost 127.0.0.1:{port}>"),
        ("/etc/ssl/certs/automx.pem", str(certificate)),
        ("/etc/ssl/private/automx.key", str(certificate.with_suffix(".key"))),
    )
    if inner:
        before, _, after = site.partition("# The paths that clients ask on the mail domain itself.")
        site = put(
            before + after[after.index("UndefMacro") :],
            ("ua-auto-config.*", "ua-auto-config.* example.com"),
        )
        site = re.sub(r"(?m)^ +SSL.*\n", "", site)
    (folder / "automx.conf").write_text(site)
    # What Debian enables by itself, and what the head of the file asks for.
    modules = [
        *("alias", "authz_core", "deflate", "dir", "env", "filter", "mime", "mpm_event"),
        *("reqtimeout", "setenvif", "headers", "macro", "proxy", "proxy_http", "rewrite"),
        *("socache_shmcb", "ssl"),
    ]
    (folder / "apache.conf").write_text(
        "\n".join(
            [
                *(
                    f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
                    for name in modules
                ),
                "ServerName localhost",
                f"DefaultRuntimeDir {folder}",
                f"PidFile {folder / 'pid'}",
                "ErrorLog /dev/stderr",
                f"TypesConfig {folder / 'mime.types'}",
                f"Listen 127.0.0.1:{port}",
                f"Listen 127.0.0.1:{plain}",
                (
                    "AddOutputFilterByType DEFLATE text/html text/plain text/xml application/xml"
                    " application/json image/svg+xml"
                ),
                f"Include {folder / 'automx.conf'}",
            ]
        )
    )
    (folder / "mime.types").touch()
    command = [program("apache2", "apache2"), "-f", str(folder / "apache.conf"), "-DFOREGROUND"]
    return _proxy(command, folder, port, plain, APACHE_LOG_DIR=str(folder))


def caddy(
    folder: Path, certificate: Path, upstream: int, *, inner: bool
) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Run Caddy with contrib/Caddyfile; as inner proxy it speaks plain HTTP to another one."""
    port, plain = free_port(), free_port()
    names = ", ".join(NAMES)
    scheme = "http" if inner else "https"
    site = put(
        (REPOSITORY / "contrib/Caddyfile").read_text(),
        ("reverse_proxy 127.0.0.1:4243", f"reverse_proxy 127.0.0.1:{upstream}"),
        (
            "{\n\tservers {",
            f"{{\n\tadmin off\n\thttp_port {plain}\n\tauto_https disable_redirects\n\tservers {{",
        ),
    )
    if inner:
        site = put(
            site.partition("# The paths that clients ask on the mail domain itself.")[0],
            (f"\n{names} {{", f"\n{names}, example.com {{"),
            ("# trusted_proxies 192.0.2.1", "trusted_proxies 127.0.0.0/8"),
            ("\trequest_header X-Forwarded-Prefix /\n", ""),
            ("# request_header", "request_header"),
            ("# header_up", "header_up"),
        )
    tls = "" if inner else f"\ttls {certificate} {certificate.with_suffix('.key')}\n"
    site = re.sub(
        r"(?m)^((?:[\w.-]+\.example\.com|example\.com).*) \{\n",
        lambda match: (
            ", ".join(f"{scheme}://{name.strip()}:{port}" for name in match[1].split(","))
            + " {\n\tbind 127.0.0.1\n"
            + tls
        ),
        site,
    )
    (folder / "Caddyfile").write_text(site)
    command = [program("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile")]
    home = str(folder / "home")  # Caddy keeps its state there
    return _proxy(
        [*command, "--adapter", "caddyfile"], folder, port, 0,
        HOME=home, XDG_DATA_HOME=home, XDG_CONFIG_HOME=home,
    )  # fmt: skip


@contextlib.contextmanager
def _proxy(
    command: Sequence[str], folder: Path, port: int, plain: int, **env: str
) -> Iterator[tuple[int, int]]:
    with running(command, folder / "log", ready=lambda: listens(port), env=env):
        yield port, plain


PROXIES = {"nginx": nginx, "apache": apache, "caddy": caddy}
ALONE = ["nginx", "apache", "caddy"]
IN_A_ROW = ["nginx-nginx", "nginx-apache", "nginx-caddy", "apache-nginx", "caddy-nginx"]


@contextlib.contextmanager
def chain(
    names: str, server: Server, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """Run the named proxies in front of a server, the outermost one named first."""
    front = Front(server.port, server)
    tls = ssl.create_default_context(cafile=certificate)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # self-signed
    with contextlib.ExitStack() as stack:
        outwards = list(reversed(names.split("-")))
        for position, name in enumerate(outwards, 1):
            folder = tmp_path_factory.mktemp(name)
            inner = position < len(outwards)
            port, plain = stack.enter_context(
                PROXIES[name](folder, certificate, front.port, inner=inner)
            )
            logs = [*front.logs, *folder.glob("*.log")]
            front = Front(port, server, None if inner else tls, plain, logs)
        yield front


@pytest.fixture(scope="module", params=ALONE + IN_A_ROW)
def front(
    request: pytest.FixtureRequest,
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    """A server behind one or two proxies, with the ``proxy_count`` that is right for them."""
    server = servers[len(request.param.split("-"))]
    with chain(request.param, server, certificate, tmp_path_factory) as started:
        yield started


@pytest.fixture(scope="module")
def direct(servers: list[Server]) -> Front:
    """A server without a proxy."""
    return Front(servers[0].port, servers[0])


CODE = "/mobileconfig.svg"


def code_url(
    front: Front, *, prefix: str = "", host: str = NAMES[0], spoof: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the URL of this service in a QR code; check that the log has the client's address."""
    with front.logged(f"{CLIENT} GET {CODE} 200"):
        path = f"{prefix}{CODE}?emailaddress=alice@example.com"
        answer = front.ask(path, host=host, headers=spoof)
    found = re.search("<title>(.*)mobileconfig/\\?", answer.body.decode())
    assert found
    return found[1]


def test_client_scheme_and_host_reach_automx(front: Front) -> None:
    assert code_url(front) == f"https://{NAMES[0]}:{front.port}/"


def test_client_scheme_and_host_are_right_without_a_proxy(direct: Front) -> None:
    assert code_url(direct) == f"http://{NAMES[0]}:{direct.port}/"


@pytest.mark.parametrize("spoof", SPOOFS)
def test_forwarding_headers_of_the_client_have_no_effect(front: Front, spoof: str) -> None:
    assert code_url(front, spoof=SPOOFS[spoof]) == f"https://{NAMES[0]}:{front.port}/"


@pytest.mark.parametrize("spoof", SPOOFS)
def test_forwarding_headers_have_no_effect_without_a_proxy(direct: Front, spoof: str) -> None:
    assert code_url(direct, spoof=SPOOFS[spoof]) == f"http://{NAMES[0]}:{direct.port}/"


CHOSEN = [(name, "chosen") for name in ("X-Request-ID", "X_Request_ID", "x-request_id")]


def test_a_client_cannot_choose_the_id_of_its_request(front: Front, direct: Front) -> None:
    for asked in (front, direct):
        found = asked.ask("/mail/config-v1.1.xml", headers=CHOSEN).headers["X-Request-ID"]
        assert re.fullmatch("[0-9a-f-]{32,36}", found)


def test_path_below_which_automx_is_published_reaches_automx(front: Front) -> None:
    url = f"https://example.com:{front.port}/automx/"
    assert code_url(front, prefix="/automx", host="example.com") == url


@pytest.mark.parametrize("spoof", SPOOFS)
def test_path_below_which_automx_is_published_cannot_be_spoofed(front: Front, spoof: str) -> None:
    url = code_url(front, prefix="/automx", host="example.com", spoof=SPOOFS[spoof])
    assert url == f"https://example.com:{front.port}/automx/"


@pytest.mark.parametrize("host", NAMES)
def test_host_name_chooses_the_domain(front: Front, host: str) -> None:
    with front.logged(f"{CLIENT} GET /mail/config-v1.1.xml 200"):
        answer = front.ask("/mail/config-v1.1.xml", host=host)
    assert answer.status == 200
    assert b"<domain>example.com</domain>" in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/autoconfig/mail/config-v1.1.xml?emailaddress=alice%40example.com",
        "/.well-known/autoconfig/mail/config-v1.1.xml",
        "/Autodiscover/Autodiscover.xml",
        "//Autodiscover//Autodiscover.xml/",
        "/autodiscover/autodiscover.xml",
        "/automx/mail/config-v1.1.xml",
    ],
)
def test_mail_domain_itself_answers_at_the_paths_that_clients_ask(front: Front, path: str) -> None:
    answer = front.ask(path, host="example.com")
    assert answer.status == 200
    assert b"imap.example.com" in answer.body


@pytest.mark.parametrize("encoding", ["identity", "gzip", "br, zstd, gzip"])
@pytest.mark.parametrize("host", ["ua-auto-config.example.com", "example.com"])
def test_pacc_comes_byte_by_byte_as_the_zone_vouches_for_it(
    front: Front, database: dict[str, str], host: str, encoding: str
) -> None:
    answer = front.ask(pacc.PATH, host=host, headers=[("Accept-Encoding", encoding)])
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["Content-Encoding"] is None
    record = pacc.digest_record(answer.body)
    assert record in automx("dns", "example.com", "--host", "automx.example.com", env=database)


def test_the_logo_comes_where_pacc_says_that_it_is(front: Front) -> None:
    document = json.loads(front.ask(pacc.PATH, host="ua-auto-config.example.com").body)
    (logo,) = document["info"]["provider"]["logo"]
    assert logo["url"] == "https://ua-auto-config.example.com/logo"
    answer = front.ask("/logo", host="ua-auto-config.example.com")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    assert answer.body == LOGO
    assert front.ask("/logo", host="example.com").status == 404  # that of a web site, perhaps


@pytest.mark.parametrize("method", ["GET", "PROPFIND"])
def test_calendars_and_address_books_are_found_at_the_mail_domain(
    front: Front, method: str
) -> None:
    for service, path in (("caldav", "calendars"), ("carddav", "contacts")):
        body = b"<propfind/>" if method == "PROPFIND" else None
        answer = front.ask(f"/.well-known/{service}", method, host="example.com", body=body)
        location = answer.headers["Location"]
        assert (answer.status, location) == (301, f"https://dav.example.com/{path}/")


@pytest.mark.parametrize("host", ["autodiscover.example.com", "example.com"])
@pytest.mark.parametrize(
    "path", ["autodiscover/autodiscover.json", "Autodiscover/AutoDiscover.JSON"]
)
def test_autodiscover_in_json_leads_to_the_host_that_was_asked(
    front: Front, host: str, path: str
) -> None:
    answer = front.ask(f"/{path}?Email=alice%40example.com&Protocol=AutodiscoverV1", host=host)
    url = f"https://{host}/autodiscover/autodiscover.xml"
    assert json.loads(answer.body) == {"Protocol": "AutodiscoverV1", "Url": url}


def test_outlook_is_answered_through_the_proxy(front: Front) -> None:
    request = b"""<?xml version="1.0" encoding="utf-8"?>
<Autodiscover
 xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
<Request><EMailAddress>alice@example.com</EMailAddress><AcceptableResponseSchema>
http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a
</AcceptableResponseSchema></Request></Autodiscover>"""
    answer = front.ask(
        "/Autodiscover/Autodiscover.xml",
        "POST",
        host="autodiscover.example.com",
        headers=[("Content-Type", "text/xml; charset=utf-8")],
        body=request,
    )
    assert answer.status == 200
    assert b"<LoginName>alice@example.com</LoginName>" in answer.body


def test_delta_chat_gets_an_account_at_the_mail_domain_and_at_the_names(front: Front) -> None:
    for host, path in (
        ("example.com", "/new_email"),
        ("example.com", "/new_email/"),
        (NAMES[0], "/new_email"),
        (NAMES[0], "/"),
    ):
        with front.logged(f"{CLIENT} POST {path} 200"):
            answer = front.ask(f"{path}?t={ACCOUNT_TOKEN}&n=summer", "POST", host=host)
        assert answer.headers["Content-Type"] == "application/json"
        assert json.loads(answer.body)["email"].endswith("@example.com")


def test_the_page_of_a_token_and_its_style_sheet_are_shown_at_the_mail_domain(front: Front) -> None:
    page = front.ask(f"/new_email?t={ACCOUNT_TOKEN}", host="example.com")
    assert page.status == 200
    found = re.search(rb'<link rel="stylesheet" href="([^"]+)">', page.body)
    assert found
    style = front.ask(f"/new_email{unescape(found[1].decode())}", host="example.com")
    assert (style.status, style.headers["Content-Type"]) == (200, "text/css; charset=utf-8")


def test_reasons_of_automx_are_passed_on(front: Front) -> None:
    answer = front.ask("/new_email?t=unknown", "POST", host="example.com")
    assert json.loads(answer.body) == {
        "type": "error",
        "status_code": 403,
        "reason": "This QR code is not known here. Please ask for a new one.",
    }


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_unchanged_document_is_not_sent_again(front: Front, encoding: str) -> None:
    path, accept = "/mail/config-v1.1.xml", ("Accept-Encoding", encoding)
    first = front.ask(path, headers=[accept])
    assert first.status == 200
    second = front.ask(path, headers=[accept, ("If-None-Match", first.headers["ETag"])])
    assert (second.status, second.body) == (304, b"")
    assert second.headers["ETag"] == first.headers["ETag"]


def test_head_tells_what_get_would_send(front: Front) -> None:
    path = "/mail/config-v1.1.xml"
    got, head = front.ask(path), front.ask(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control", "Vary"):
        assert head.headers[name] == got.headers[name], name


def test_unknown_domain_is_not_found(front: Front) -> None:
    path = "/mail/config-v1.1.xml?emailaddress=alice%40unknown.example"
    with front.logged(f"{CLIENT} GET /mail/config-v1.1.xml 404"):
        assert front.ask(path).status == 404


def test_large_body_is_refused(front: Front) -> None:
    answer = front.ask(
        "/autodiscover/autodiscover.xml",
        "POST",
        headers=[("Content-Type", "text/xml")],
        body=b" " * 70_000,
    )
    assert answer.status == 413


def test_large_body_of_untold_length_is_refused(front: Front) -> None:
    answer = front.ask(
        "/autodiscover/autodiscover.xml",
        "POST",
        headers=[("Content-Type", "text/xml"), ("Transfer-Encoding", "chunked")],
        body=b"11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n",
    )
    assert answer.status in {
        400,
        413,
    }  # 400: Apache passes it on, automx reads as much as it allows


@pytest.fixture(scope="module")
def server_with_token(
    database: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server behind one proxy that has a token for /initdb/."""
    env = {"AUTOMX_PROXY_COUNT": "1", "AUTOMX_LOGLEVEL": "INFO", "AUTOMX_INITDB_TOKEN": TOKEN}
    log = tmp_path_factory.mktemp("automx") / "token.log"
    with serving(database | env, log, "--workers", "1") as server:
        yield server


@pytest.mark.parametrize("name", ["nginx", "apache"])
def test_large_body_does_not_reach_automx(
    server_with_token: Server,
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    """Caddy passes it on as it comes, and automx refuses it."""
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Content-Type", "application/json")]
    with (
        chain(name, server_with_token, certificate, tmp_path_factory) as front,
        front.logged(f"{CLIENT} POST /initdb/ 400"),
    ):
        assert front.ask("/initdb/", "POST", headers=headers, body=b" " * 70_000).status == 413
        assert front.ask("/initdb/", "POST", headers=headers, body=b" ").status == 400


@pytest.mark.parametrize("name", ALONE)
def test_token_opens_initdb_through_a_proxy(
    server_with_token: Server,
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    authorization = ("Authorization", f"Bearer {TOKEN}")
    with chain(name, server_with_token, certificate, tmp_path_factory) as front:
        with front.logged(f"{CLIENT} GET /initdb/ 200"):
            assert front.ask("/initdb/", headers=[authorization]).status == 200
        with front.logged(f"{CLIENT} GET /initdb/ 403"):
            wrong = ("Authorization", "Bearer wrong")
            assert front.ask("/initdb/", headers=[wrong]).status == 403


def content(database: dict[str, str]) -> str:
    """Return the seed document of all rows."""
    return automx("export", env=database)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings for a database without rows."""
    file = tmp_path_factory.mktemp("empty") / "automx.sqlite"
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{file}"}
    automx("db", "upgrade", env=env)
    return env


@pytest.fixture(scope="module")
def bare_nginx(
    servers: list[Server],
    empty_database: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Front]]:
    """An nginx that passes requests on by ``proxy_pass`` and adds no header.

    Its fronts are named by the database of the server, a filled or an empty one, and by the version
    of HTTP that nginx speaks to it: 1.0 is the default before nginx 1.29.7.
    """
    folder = tmp_path_factory.mktemp("bare")
    env = {**empty_database, "AUTOMX_PROXY_COUNT": "1"}
    with serving(env, folder / "automx.log", "--workers", "1") as empty:
        fronts = {
            f"{name} {version}": Front(free_port(), server)
            for name, server in (("filled", servers[1]), ("empty", empty))
            for version in ("1.0", "1.1")
        }
        blocks = "".join(
            f"server {{ listen 127.0.0.1:{front.port}; location / {{"
            f" proxy_http_version {name.split()[1]};"
            f" proxy_pass http://127.0.0.1:{front.automx.port}; }} }}\n"
            for name, front in fronts.items()
        )
        temporary = "".join(
            f"{kind}_temp_path {folder / kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off;\nworker_processes 1;\npid {folder / 'pid'};\nevents {{}}\n"
            f"http {{\n{temporary}access_log off;\n{blocks}}}\n"
        )
        command = [program("nginx", "nginx-light"), "-c", str(folder / "nginx.conf")]
        with _proxy([*command, "-e", "stderr"], folder, next(iter(fronts.values())).port, 0):
            yield fronts


STRANGERS_SEED = json.dumps(SEED | {"domains": [{"name": "evil.test"}]}).encode()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("host", [NAMES[0], "localhost", "127.0.0.1:4243"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_stranger_changes_nothing_through_a_proxy_that_adds_no_header(
    bare_nginx: dict[str, Front], database: dict[str, str], method: str, host: str, version: str
) -> None:
    front, before = bare_nginx[f"filled {version}"], content(database)
    json_type = [("Content-Type", "application/json")]
    body = STRANGERS_SEED if method == "POST" else None
    answer = front.ask("/initdb/", method, raw_host=host, headers=json_type, body=body)
    assert answer.status == (200 if (method, version) == ("GET", "1.1") else 403)
    if method == "DELETE":
        assert b"automx purge" in answer.body
    assert content(database) == before


def test_an_empty_database_without_token_is_the_risk_that_remains(
    bare_nginx: dict[str, Front], empty_database: dict[str, str]
) -> None:
    """SECURITY.md names it."""
    json_type = [("Content-Type", "application/json")]
    before = content(empty_database)
    server, warning = (
        bare_nginx["empty 1.0"].automx,
        "database is empty and initdb_token is not set",
    )
    wait_until(lambda: warning in server.output, "the warning of the server")
    for name in ("empty 1.0", "empty 1.1"):
        for method in ("DELETE", "POST", "POST"):
            answer = bare_nginx[name].ask(
                "/initdb/", method, headers=json_type, body=STRANGERS_SEED
            )
            is_filled = (name, method) == ("empty 1.1", "POST")
            assert answer.status == (200 if is_filled else 403)
            assert is_filled or content(empty_database) == before
    front = bare_nginx["empty 1.1"]
    filled = content(empty_database)
    assert "evil.test" in filled
    other = STRANGERS_SEED.replace(b"evil.test", b"more.test")
    assert front.ask("/initdb/", "POST", headers=json_type, body=other).status == 403
    assert content(empty_database) == filled


@pytest.mark.parametrize("spoof", SPOOFS)
def test_initdb_is_closed_to_clients_of_a_proxy_that_is_not_counted(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    spoof: str,
) -> None:
    with chain("nginx", servers[0], certificate, tmp_path_factory) as front:
        assert front.ask("/initdb/", headers=SPOOFS[spoof], raw_host="localhost").status == 403


@pytest.mark.parametrize("spoof", [[], SPOOFS["quotation mark"], SPOOFS["not ASCII"]])
def test_initdb_is_closed_if_more_proxies_are_counted_than_there_are(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    spoof: list[tuple[str, str]],
) -> None:
    with chain("nginx", servers[2], certificate, tmp_path_factory) as front:
        assert front.ask("/initdb/", headers=spoof, raw_host="localhost").status == 403


@pytest.mark.parametrize("name", ALONE)
def test_initdb_is_closed_to_another_machine(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    """The test is the outer one of two proxies: no packet need come from another machine."""
    folder = tmp_path_factory.mktemp(name)
    with PROXIES[name](folder, certificate, servers[2].port, inner=True) as (port, _):
        front = Front(port, servers[2])
        with front.logged("203.0.113.9 GET /initdb/ 403"):
            answer = front.ask("/initdb/", headers=[("X-Forwarded-For", "203.0.113.9")])
    assert answer.status == 403


def test_initdb_is_open_to_this_machine_without_a_proxy(direct: Front) -> None:
    assert direct.ask("/initdb/", host="localhost").status == 200
    assert direct.ask("/initdb/", host="localhost", headers=SPOOFS["plain"]).status == 403


def test_initdb_is_closed_to_a_web_page_whose_name_points_to_this_machine(direct: Front) -> None:
    assert direct.ask("/initdb/", host="rebound.example").status == 403


@pytest.mark.parametrize("name", ["nginx", "apache"])
def test_plain_http_moves_to_https_with_302(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    with chain(name, servers[1], certificate, tmp_path_factory) as front:
        plain = Front(front.plain_port, front.automx)
        path = "/autodiscover/autodiscover.xml?emailaddress=a%2Bb%40example.com"
        answer = plain.ask(path, host="autodiscover.example.com")
    assert answer.status == 302
    assert answer.headers["Location"] == f"https://autodiscover.example.com{path}"


@pytest.mark.parametrize("host", ['autoconfig.example.com"', "x,autoconfig.example.com", "a b"])
def test_nginx_refuses_a_host_that_cannot_be_one(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    host: str,
) -> None:
    with chain("nginx", servers[1], certificate, tmp_path_factory) as front:
        assert front.ask("/mail/config-v1.1.xml", raw_host=host).status == 400


@pytest.mark.parametrize("name", ["nginx", "apache"])
def test_the_proxys_log_has_a_line_for_each_request(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
) -> None:
    with chain(name, servers[1], certificate, tmp_path_factory) as front:
        front.ask("/mail/config-v1.1.xml?emailaddress=alice%40example.com")
        (log,) = (path for path in front.logs if path.name != "error.log")
        wait_until(lambda: "\n" in log.read_text(), "a line in the log of the proxy")
        line = log.read_text()
    assert line.startswith(f"{CLIENT} [")
    assert f'] {NAMES[0]} "GET /mail/config-v1.1.xml" 200 ' in line


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("name", ALONE)
def test_addresses_and_tokens_stay_out_of_all_logs_of_a_proxy(
    servers: list[Server],
    certificate: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    is_up: bool,
) -> None:
    folder = tmp_path_factory.mktemp(name)
    tls = ssl.create_default_context(cafile=certificate)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # self-signed
    upstream = servers[1].port if is_up else free_port()
    with PROXIES[name](folder, certificate, upstream, inner=False) as (port, _):
        front = Front(port, servers[1], tls)
        found = [
            front.ask(f"/new_email?t={ACCOUNT_TOKEN}", "POST", host="example.com").status,
            front.ask(f"/new_email?t={ACCOUNT_TOKEN}").status,
            front.ask(f"/?t={ACCOUNT_TOKEN}", "POST").status,
            front.ask(
                "/mail/config-v1.1.xml?emailaddress=alice%40example.com",
                headers=[
                    ("Authorization", "Bearer abc"),
                    ("Referer", f"https://example.com/?t={ACCOUNT_TOKEN}"),
                ],
            ).status,
        ]
        large = front.ask(
            f"/?t={ACCOUNT_TOKEN}", "POST", headers=[("Content-Type", "x/y")], body=b" " * 70_000
        )
    assert found == [200] * 4 if is_up else set(found) <= {502, 503}
    assert large.status == 413 or not is_up
    for log in folder.rglob("*log"):
        text = log.read_text(errors="replace")
        for secret in (ACCOUNT_TOKEN, "alice", "Bearer"):
            assert secret not in text, log.name
