"""What automx2's manual and an article of its readers say, word for word, with automx for automx2.

The manual's chapter on a standalone test has a configuration or none, a server, and two requests.
The article is "Mail Client Auto-Configuration" of 2021: a configuration, SQL, a systemd unit, and
two blocks for nginx; only ports, folders and certificates are put in.
"""

import configparser
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.documents import golden
from tests.processes import AUTOMX, Running, free_port, listens, program, running

SAMPLE_CONFIGURATION = """\
[automx]
loglevel = WARNING
# Echo SQL commands into log? Used for debugging.
db_echo = no

# In-memory SQLite database
db_uri = sqlite:///:memory:

# SQLite database in a UNIX-like file system
#db_uri = sqlite:////var/lib/automx/db.sqlite
"""
COMMANDS = {
    "flask": ["flask", "run", "--host=127.0.0.1", "--port={port}"],
    "automx": ["automx", "serve", "--port", "{port}"],
}

ARTICLE_CONFIGURATION = """\
[automx]
loglevel = DEBUG # or WARNING
db_echo = no
db_uri = sqlite:///{home}/automxdb.sqlite
"""
ARTICLE_SQL = """\
# clear database #
DELETE FROM provider;
DELETE FROM server;
DELETE FROM domain;
DELETE FROM server_domain;

# define a provider #
INSERT INTO provider VALUES(100, "long_name_example.com", "short_name");

# define servers (imap + stmp) #
INSERT INTO server VALUES(101, 10, "example.com", 587, 'smtp', 'STARTTLS', '%EMAILADDRESS%', 'plain');
INSERT INTO server VALUES(102, 10, "example.com", 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain');

# link domain to provider #
INSERT INTO domain VALUES(110, 'example.com', 100, NULL);

# link servers to domain #
INSERT INTO server_domain VALUES(101, 110);
INSERT INTO server_domain VALUES(102, 110);
"""  # noqa: E501 - as it is printed
ARTICLE_UNIT = """\
[Unit]
After=network.target
Description=MUA configuration service

[Service]
WorkingDirectory=/home/automx
Environment=FLASK_APP=automx.server:app
Environment=FLASK_CONFIG=production
ExecStart=/usr/bin/python3 -m flask run --host=127.0.0.1 --port=4243
Restart=always
User=automx

[Install]
WantedBy=multi-user.target
"""
ARTICLE_NGINX = """\
    server {

        server_name autoconfig.example.de autodiscover.example.de;
        listen 443 ssl;
        listen [::]:443 ssl;

        location /initdb {
            allow 127.0.0.1;
            deny all;
        }

        location /{
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-Proto http;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_pass http://localhost:5014;
        }
    }
"""
ARTICLE_NGINX_WELL_KNOWN = """\
    location /.well-known/autoconfig/{
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto http;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_pass http://localhost:5014/;
    }
"""
ARTICLE_PROVIDER = """\
<emailProvider id="example.com">
    <domain>example.com</domain>
    <displayName>long_name_example.com</displayName>
    <displayShortName>short_name</displayShortName>
    <incomingServer type="imap">
      <hostname>example.com</hostname>
      <port>993</port>
      <socketType>SSL</socketType>
      <username>%EMAILADDRESS%</username>
      <authentication>password-cleartext</authentication>
    </incomingServer>
    <outgoingServer type="smtp">
      <hostname>example.com</hostname>
      <port>587</port>
      <socketType>STARTTLS</socketType>
      <username>%EMAILADDRESS%</username>
      <authentication>password-cleartext</authentication>
    </outgoingServer>
  </emailProvider>"""


def provider(document: str) -> str:
    """Return the provider of an Autoconfig document."""
    before, end = "<emailProvider", "</emailProvider>"
    return before + document.partition(before)[2].partition(end)[0] + end


@contextmanager
def started(command: list[str], home: Path, port: int) -> Iterator[Running]:
    """Run a command of the virtual environment with a home folder of its own."""
    env = {"HOME": str(home), "FLASK_APP": "automx.server:app"}
    env |= {"AUTOMX_CONF": "", "AUTOMX2_CONF": "", "XDG_DATA_HOME": "", "STATE_DIRECTORY": ""}
    words = [word.format(port=port) for word in command]
    words[0] = str(AUTOMX.with_name(words[0]))
    log = home / "server.log"
    with running(words, log, ready=lambda: listens(port), env=env, cwd=home) as server:
        yield server


def curl(*arguments: str) -> str:
    """Return what curl prints; fail if it cannot fetch the URL."""
    result = subprocess.run(
        [program("curl", "curl"), "--silent", "--show-error", "--fail", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("server", COMMANDS)
@pytest.mark.parametrize(
    ("configuration", "path"), [("", "/initdb/"), (SAMPLE_CONFIGURATION, "/initdb")]
)
def test_the_standalone_chapter_of_the_manual(
    tmp_path: Path, server: str, configuration: str, path: str
) -> None:
    if configuration:
        (tmp_path / ".automx.conf").write_text(configuration)
    port = free_port()
    with started(COMMANDS[server], tmp_path, port) as process:
        assert curl(f"http://127.0.0.1:{port}{path}").startswith("Added: 1 provider, 3 domains")
        url = f"http://127.0.0.1:{port}/mail/config-v1.1.xml?emailaddress=user@example.com"
        assert provider(curl(url)) == provider(golden("sample.autoconfig.xml"))
        is_told = "The database is in memory: there is one worker" in process.output
    assert is_told is (server == "automx" and bool(configuration))
    database = tmp_path / ".local" / "share" / "automx" / "automx.sqlite"
    assert database.exists() is not bool(configuration)


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[tuple[int, Path]]:
    """Run nginx with both blocks of the article; yield its port and its certificate."""
    port, certificate = free_port(), folder / "nginx.pem"
    subprocess.run(
        [
            program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=tests",
            "-addext", "subjectAltName=DNS:autoconfig.example.de,DNS:example.com",
            "-keyout", folder / "nginx.key", "-out", certificate,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    tls = f"ssl_certificate {certificate};\nssl_certificate_key {folder / 'nginx.key'};\n"
    own_server = f"server {{ server_name example.com; listen 443 ssl;\n{ARTICLE_NGINX_WELL_KNOWN}}}"
    blocks = (ARTICLE_NGINX + own_server).replace("        listen [::]:443 ssl;\n", "")
    blocks = blocks.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;\n{tls}")
    blocks = blocks.replace("http://localhost:5014", f"http://localhost:{upstream}")
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off;\npid {folder / 'pid'};\nevents {{}}\n"
        f"http {{\n{temporary}access_log off;\n{blocks}\n}}\n"
    )
    command = [program("nginx", "nginx-light"), "-c", str(configuration), "-e", "stderr"]
    with running(command, folder / "nginx.log", ready=lambda: listens(port)):
        yield port, certificate


def test_the_article_from_its_configuration_to_its_web_server(tmp_path: Path) -> None:
    configuration = ARTICLE_CONFIGURATION.format(home=tmp_path)
    (tmp_path / ".automx.conf").write_text(configuration)
    port = free_port()
    first = ["python", "-m", "flask", "run", "--host=127.0.0.1", "--port", "{port}"]
    with started(first, tmp_path, port):
        assert curl(f"http://localhost:{port}/initdb").startswith("Added: ")
        url = f"http://127.0.0.1:{port}/mail/config-v1.1.xml?emailaddress=user@example.com"
        assert provider(curl(url)) == provider(golden("sample.autoconfig.xml"))

    sqlite3 = program("sqlite3", "sqlite3")
    subprocess.run(
        [sqlite3, tmp_path / "automxdb.sqlite"], input=ARTICLE_SQL, text=True, check=True
    )

    unit = configparser.ConfigParser(strict=False)
    unit.read_string(ARTICLE_UNIT)
    command = shlex.split(unit["Service"]["ExecStart"].replace("4243", "{port}"))
    assert command.pop(0) == "/usr/bin/python3"
    port = free_port()
    with (
        started(["python", *command], tmp_path, port),
        nginx(tmp_path, port) as (tls_port, certificate),
    ):
        options = ("--cacert", str(certificate), "--noproxy", "*")
        for host, path in (
            ("autoconfig.example.de", "/mail/config-v1.1.xml"),
            ("example.com", "/.well-known/autoconfig/mail/config-v1.1.xml"),
        ):
            answer = curl(
                *(*options, "--resolve", f"{host}:{tls_port}:127.0.0.1"),
                f"https://{host}:{tls_port}{path}?emailaddress=user@example.com",
            )
            assert provider(answer) == ARTICLE_PROVIDER
