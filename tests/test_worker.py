"""A worker: the libraries that it loads, each of which takes memory as long as it runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

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
    "cachetools",
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

IMPORT = """
import sys
from automx.cli import worker  # as automx serve does
from automx.front import make_front  # likewise
from automx.server import app  # as gunicorn does
"""

# What the main process of automx serve does; the client of tests has needs of its own.
LOAD = """
import pdb, sys
from click import testing
from flask import testing
from automx import config
from automx.cli import server, worker

worker.load_libraries(config.load())
before = set(sys.modules)
app = worker.make()._app
"""

ASK = """
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
"""


@pytest.fixture
def printed(database: Path, example: None) -> Callable[[str], set[str]]:
    """Run a program with the settings of a worker; return the words that it prints."""
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}

    def run(program: str) -> set[str]:
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return set(result.stdout.split())

    return run


def test_a_worker_that_serves_mail_clients_loads_nothing_that_only_others_need(
    printed: Callable[[str], set[str]],
) -> None:
    loaded = printed(IMPORT + ASK + "print(*sys.modules)")
    assert {"automx.front", "granian", "lxml.etree", "sqlalchemy"} <= loaded
    assert RARE & loaded == set()
    assert all(map(find_spec, RARE))  # no name is wrong, or of a library that is gone


def test_the_main_process_loads_all_that_a_worker_needs_and_no_more(
    printed: Callable[[str], set[str]],
) -> None:
    assert printed(LOAD + ASK + "print(*set(sys.modules) - before)") == set()
    # Each worker tries the backend of the settings.
    assert RARE & printed(LOAD + "print(*before)") == {"automx.backends.keys"}


def test_granian_takes_no_memory_of_another_server(printed: Callable[[str], set[str]]) -> None:
    loaded = printed("import sys, automx.server; print(*sys.modules)")
    assert "automx.quick" in loaded
    assert {"automx.rsgi", "granian", "uvloop"} & loaded == set()
