"""From nothing to a certificate: real Caddy and certbot with the files of contrib, and Pebble.

The files are used as they are; only ports, the authority and folders are put in.
"""

import contextlib
import http.client
import os
import socket
import sqlite3
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.acme import Pebble, pebble
from tests.commandline import automx
from tests.conftest import EXAMPLE_ROWS
from tests.documents import golden
from tests.nameserver import NameServer, name_server
from tests.processes import (
    AUTOMX,
    REPOSITORY,
    Running,
    Server,
    free_port,
    listens,
    one_worker,
    program,
    running,
    wait_until,
)
from tests.test_proxies import put

HOST = "mail.example.com"
TOKEN = "0123456789abcdef"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
PATH = "/mail/config-v1.1.xml?emailaddress=alice@example.com"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


ROWS = f"""
{EXAMPLE_ROWS}
INSERT INTO domain VALUES (2, 'off.example', 1, NULL);
INSERT INTO domain VALUES (3, '*.wild.example', 1, NULL);
INSERT INTO domain VALUES (40, 'second.example', 1, NULL);
INSERT INTO domain VALUES (41, 'waiting.example', 1, NULL);
INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain WHERE domain.id > 1;
INSERT INTO disabled_domain VALUES (2, '2026-11-21 10:00:00.000000');
"""
HERE = """\
autoconfig IN A 127.0.0.1
autodiscover IN CNAME autoconfig
mail IN A 127.0.0.1
a IN CNAME autoconfig
"""
ZONES = {
    "example.com": HERE,
    "off.example": HERE,
    "wild.example": "* IN A 127.0.0.1\n",
    "other.example": HERE,
    "second.example": HERE,
    "waiting.example": "autoconfig IN A 192.0.2.1\n",
    "new.example": HERE,
}


@pytest.fixture(scope="module")
def names(folder: Path) -> Iterator[NameServer]:
    """A name server whose zones lead here, but for one."""
    with name_server(folder / "dns", ZONES) as server:
        yield server


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """Settings of a database with domains of each kind."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(ROWS)
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_PROXY_COUNT": "1",
        "AUTOMX_PUBLIC_HOST": HOST,
    }


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    with one_worker({**env, "AUTOMX_TLS_ASK_TOKEN": TOKEN}, tmp_path / "automx.log") as running:
        yield running


@pytest.fixture
def authority(names: NameServer, tmp_path: Path) -> Iterator[Pebble]:
    with pebble(tmp_path / "pebble", names, free_port(), free_port()) as running:
        yield running


@contextlib.contextmanager
def caddy(
    authority: Pebble, server: Server, folder: Path, *changes: tuple[str, str], further: str = ""
) -> Iterator[Running]:
    """Run Caddy with the file for on-demand certificates, with some changes, and further sites."""
    options = f"""\
    admin off
    default_bind 127.0.0.1
    http_port {authority.http_port}
    https_port {authority.tls_port}
    acme_ca {authority.url}
    acme_ca_root {authority.root}
    """
    site = put(
        (REPOSITORY / "contrib/Caddyfile.on-demand").read_text(),
        ("\n{\n", f"\n{{\n{options}\n"),
        *changes,
        ("127.0.0.1:4243", f"127.0.0.1:{server.port}"),
    )
    (folder / "Caddyfile").write_text(site + further)
    command = [program("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile")]
    command += ["--adapter", "caddyfile"]
    env = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder / "home"))
    env |= {"AUTOMX_TLS_ASK_TOKEN": TOKEN}

    def answers() -> bool:
        return listens(authority.tls_port) and listens(authority.http_port)

    with running(command, folder / "caddy.log", ready=answers, env=env) as started:
        yield started


def get(authority: Pebble, name: str) -> tuple[int, str]:
    """Return status and body at a name, whose certificate is checked as a client does."""
    raw = socket.create_connection(("127.0.0.1", authority.tls_port), 60)
    with contextlib.closing(http.client.HTTPConnection(name)) as connection:
        connection.sock = authority.client().wrap_socket(raw, server_hostname=name)
        connection.request("GET", PATH)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def is_refused(authority: Pebble, name: str) -> bool:
    """Return whether a handshake fails because there is no certificate; none was ordered."""
    before = authority.orders
    with contextlib.suppress(ssl.SSLError):
        get(authority, name)
        return False
    return authority.orders == before


def asked(server: Server, name: str) -> int:
    """Return the status of the answer about a name, as Caddy gets it."""
    try:
        with urllib.request.urlopen(f"{server.url}/tls/ask?domain={name}", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_caddy_gets_certificates_for_the_names_of_domains_and_for_no_others(
    authority: Pebble, server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    document = 200, golden("example-alice.autoconfig.xml")
    with caddy(authority, server, tmp_path):
        assert get(authority, "autoconfig.example.com") == document
        assert get(authority, "autodiscover.example.com") == document
        assert get(authority, HOST) == document
        assert authority.orders == 3
        for name in (
            "autoconfig.off.example",
            "autoconfig.a.wild.example",
            "autoconfig.wild.example",
            "autoconfig.other.example",
            "a.example.com",
            "example.com",
        ):
            assert is_refused(authority, name), name

        assert is_refused(authority, "autoconfig.new.example")
        automx("domain", "add", "new.example", env=env)
        wait_until(lambda: asked(server, "autoconfig.new.example") == 200, "the change")
        assert get(authority, "autoconfig.new.example") == document
        automx("domain", "disable", "new.example", env=env)
        wait_until(lambda: asked(server, "autodiscover.new.example") == 404, "the change")
        assert is_refused(authority, "autodiscover.new.example")
        assert authority.orders == 4


def with_token(port: int) -> list[tuple[str, str]]:
    """Return the changes by which Caddy asks with the token at a port, as the file says."""
    line = "ask http://192.0.2.1:4243/tls/ask?token={$AUTOMX_TLS_ASK_TOKEN}"
    return [
        ("\t\task http://127.0.0.1:4243/tls/ask\n", ""),
        (f"\t# {line}\n\ton_demand_tls {{\n", f"\ton_demand_tls {{\n\t\t{line}\n"),
        ("192.0.2.1:4243", f"127.0.0.1:{port}"),
    ]


def test_caddy_of_another_machine_asks_with_the_token(
    authority: Pebble, server: Server, tmp_path: Path
) -> None:
    port = free_port()
    # To automx, what comes through a proxy comes from another machine.
    proxy = f"http://127.0.0.1:{port} {{\n\treverse_proxy 127.0.0.1:{server.port}\n}}\n"
    with caddy(authority, server, tmp_path, *with_token(port), further=proxy) as web_server:
        assert get(authority, "autoconfig.example.com")[0] == 200
        assert is_refused(authority, "autoconfig.other.example")
        server.stop()
        assert is_refused(authority, "autodiscover.example.com")
        assert get(authority, "autoconfig.example.com")[0] == 502  # the certificate is there
        assert authority.orders == 1
    assert TOKEN not in web_server.output + server.output


def test_the_log_of_caddy_has_no_token_if_automx_cannot_be_reached(
    authority: Pebble, server: Server, tmp_path: Path
) -> None:
    with caddy(authority, server, tmp_path, *with_token(free_port())) as web_server:
        assert is_refused(authority, "autoconfig.example.com")
    assert "/tls/ask?token=*** " in web_server.output
    assert TOKEN not in web_server.output


# certbot


@contextlib.contextmanager
def nginx(port: int, folder: Path) -> Iterator[Path]:
    """Run nginx with the block of contrib/nginx.conf for port 80; yield its folder."""
    text = (REPOSITORY / "contrib/nginx.conf").read_text()
    text = text[text.index("log_format") : text.index("# The names of every mail domain")]
    webroot = folder / "webroot"
    webroot.mkdir()
    site = put(
        text,
        ("    listen [::]:80;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("/var/www/html", str(webroot)),
        ("/var/log/nginx/automx.log", str(folder / "access.log")),
        ("/var/log/nginx/error.log", str(folder / "error.log")),
    )
    temporary = (f"{kind}_temp_path {folder / kind};" for kind in TEMPORARY)
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes 1; pid {folder / 'pid'}; events {{}}\n"
        f"http {{ {' '.join(temporary)}\n{site} }}\n"
    )
    command = [program("nginx", "nginx-light"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with running(command, folder / "nginx.log", ready=lambda: listens(port)):
        yield webroot


@dataclass
class Certbot:
    """contrib/certbot.sh, and what certbot keeps in ``folder``."""

    folder: Path
    env: dict[str, str]

    def run(self, **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [REPOSITORY / "contrib/certbot.sh"],
            env={**os.environ, **self.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def certificates(self) -> dict[str, list[str]]:
        """The names of each certificate."""
        found = {}
        for file in sorted(self.folder.glob("config/live/*/cert.pem")):
            certificate = x509.load_pem_x509_certificate(file.read_bytes())
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            found[file.parent.name] = sorted(extension.value.get_values_for_type(x509.DNSName))
        return found


@pytest.fixture
def certbot(
    authority: Pebble, env: dict[str, str], names: NameServer, tmp_path: Path
) -> Iterator[Certbot]:
    folders = " ".join(f"--{kind}-dir {tmp_path / kind}" for kind in ("config", "work", "logs"))
    with nginx(authority.http_port, tmp_path) as webroot:
        yield Certbot(
            tmp_path,
            {
                **env,
                "AUTOMX": str(AUTOMX),
                "NAMES": f"--all --resolving --dns {names.option}",
                "WEBROOT": str(webroot),
                "DEPLOY_HOOK": f"echo $RENEWED_LINEAGE >>{tmp_path / 'deployed'}",
                "CERTBOT": (
                    f"{program('certbot', 'certbot')} {folders} --server {authority.url}"
                    " --agree-tos --register-unsafely-without-email"
                ),
                "REQUESTS_CA_BUNDLE": str(authority.root),
            },
        )


EXAMPLE = ["autoconfig.example.com", "autodiscover.example.com", HOST]
SECOND = ["autoconfig.second.example", "autodiscover.second.example"]
NEW = ["autoconfig.new.example", "autodiscover.new.example"]


def test_certbot_gets_certificates_and_changes_only_that_of_a_new_domain(
    certbot: Certbot, authority: Pebble, env: dict[str, str]
) -> None:
    first = certbot.run()
    assert first.returncode == 0, first.stderr + first.stdout
    assert "automx: autoconfig.waiting.example is left out: it leads to 192.0.2.1" in first.stderr
    assert certbot.certificates == {"automx-1": EXAMPLE, "automx-2": SECOND}
    assert authority.orders == 2

    automx("domain", "add", "new.example", env=env)
    second = certbot.run()
    assert second.returncode == 0, second.stderr + second.stdout
    assert certbot.certificates == {"automx-1": EXAMPLE, "automx-2": sorted(NEW + SECOND)}
    assert authority.orders == 3
    deployed = (certbot.folder / "deployed").read_text().split()
    assert [Path(folder).name for folder in deployed] == ["automx-1", "automx-2", "automx-2"]


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("AUTOMX_DB_URI", "sqlite:////nowhere/automx.sqlite", "unable to open database file"),
        ("NAMES", "--all --resolving --dns 127.0.0.1:1 --timeout 1", "cannot be looked up"),
    ],
)
def test_certbot_is_not_called_if_the_names_cannot_be_told(
    certbot: Certbot, variable: str, value: str, complaint: str
) -> None:
    result = certbot.run(**{variable: value, "CERTBOT": "echo called"})
    assert (result.returncode, result.stdout) == (1, "")
    assert complaint in result.stderr


def test_a_certificate_that_fails_stops_no_other_one(certbot: Certbot) -> None:
    calls, program = certbot.folder / "calls", certbot.folder / "certbot"
    program.write_text(f'#!/bin/sh\necho "$*" >>{calls}\ncase "$*" in *automx-1*) exit 1;; esac\n')
    program.chmod(0o755)
    result = certbot.run(CERTBOT=f"{program} --quiet", WEBROOT="/w", DEPLOY_HOOK="reload it")
    assert (result.returncode, result.stdout) == (1, "")
    options = (
        "--quiet certonly --non-interactive --keep-until-expiring --renew-with-new-domains"
        " --webroot --webroot-path /w --deploy-hook reload it --cert-name"
    )
    first = "-d mail.example.com -d autoconfig.example.com -d autodiscover.example.com"
    second = "-d autoconfig.second.example -d autodiscover.second.example"
    # What it has by now is renewed when it is due, without the name that fails.
    renewal = (
        "--quiet renew --non-interactive --cert-name automx-1 --allow-subset-of-names"
        " --deploy-hook reload it"
    )
    assert calls.read_text().splitlines() == [
        f"{options} automx-1 {first}",
        renewal,
        f"{options} automx-2 {second}",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "--cert-name automx-1 -d a.example --pre-hook reboot",
        "--cert-name automx-1 -d a.example -d --pre-hook=reboot",
        "--cert-name automx-1 --config-dir x -d a.example",
        "--cert-name ../automx-1 -d a.example",
        "--cert-name automx-1 -d *.example",
        "--cert-name automx-1 -d a.example; reboot",
        "-d $(reboot).example",
        "--cert-name automx-1",
        "renew",
        "",
    ],
)
def test_other_lines_than_names_never_reach_certbot(tmp_path: Path, line: str) -> None:
    """It runs as root, and automx does not."""
    program, lines = tmp_path / "automx", tmp_path / "lines"
    lines.write_text(f"--cert-name automx-1 -d a.example -d b.example\n{line}\n")
    program.write_text(f"#!/bin/sh\ncat {lines}\n")
    program.chmod(0o755)
    result = subprocess.run(
        [REPOSITORY / "contrib/certbot.sh"],
        env={**os.environ, "AUTOMX": str(program), "NAMES": "", "CERTBOT": "echo called"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "automx-certbot: automx has printed other things than names: nothing is done\n"
    )
