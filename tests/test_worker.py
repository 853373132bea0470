"""A worker: the libraries that it loads, each of which takes memory as long as it runs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# What serves few mail clients or none: accounts, the API, directories, names that IDNA maps, QR
# codes, signed profiles, commands.
RARE = {
    "alembic",
    "automx.accounts",
    "automx.api.dispatch",
    "automx.apikeys",
    "automx.audit",
    "automx.backends.keys",
    "automx.backends.program",
    "automx.changes",
    "automx.check",
    "automx.directory.connection",
    "automx.directory.database",
    "automx.directory.ldap",
    "automx.dns",
    "automx.formats.qr",
    "automx.references",
    "automx.replica",
    "automx.seeddocument",
    "automx.signing",
    "automx.sync",
    "automx.zones",
    "cryptography",
    "dns",
    "httpx",
    "idna",
    "ldap3",
    "limits",
    "redis",
    "segno",
    "yaml",
}

ASK = """
import sys
from automx.cli import worker  # as automx serve does
from automx.front import make_front  # likewise
from automx.server import app  # as gunicorn does

client = app.test_client()
for path in (
    "/mail/config-v1.1.xml?emailaddress=alice@example.com",
    "/autodiscover/autodiscover.xml",
    "/autodiscover/autodiscover.json?Protocol=AutodiscoverV1",
    "/mobileconfig?emailaddress=alice@example.com",
    "/.well-known/user-agent-configuration.json",
    "/?address=alice@example.com",
    "/healthz",
    "/readyz",
):
    assert client.get(path, headers={"Host": "example.com"}).status_code == 200, path
print(*sys.modules)
"""


def test_a_worker_that_serves_mail_clients_loads_nothing_that_only_others_need(
    database: Path, example: None
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    result = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(result.stdout.split())
    assert {"automx.front", "granian", "lxml.etree", "sqlalchemy"} <= loaded
    assert RARE & loaded == set()
    assert all(map(find_spec, RARE))  # no name is wrong, or of a library that is gone
