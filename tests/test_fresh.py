"""A change through automx is seen by all workers of all servers, whatever they remember.

Servers remember for an hour here. The real time until a change is seen is printed (pytest -s).
"""

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from automx.seeddocument import SAMPLE
from tests.commandline import automx
from tests.databases import Instance
from tests.processes import Server, serving, wait_until

TOKEN = "secret-1"
DOCUMENT = {"provider": "New", "domains": ["new.example"], "servers": SAMPLE["servers"]}
# So many connections reach all workers of a server: the kernel chooses one for each.
CONNECTIONS = 16


def status_of(server: Server, domain: str) -> int:
    """Return the status of the answer for a domain over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", f"/v1.1/{domain}")
    answer = connection.getresponse()
    if answer.status == 200:
        assert answer.headers["Cache-Control"] == "public, max-age=60"
    connection.close()
    return answer.status


def all_answer(servers: list[Server], domain: str, status: int) -> bool:
    """Return whether all workers of some servers answer for a domain with a status."""
    every = (status_of(server, domain) for server in servers for _ in range(CONNECTIONS))
    return all(found == status for found in every)  # ends at the first that differs


def initdb(server: Server, method: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, "/initdb/", headers={"Authorization": f"Bearer {TOKEN}"})
    text = connection.getresponse().read().decode()
    connection.close()
    return text


@contextlib.contextmanager
def remembering(uri: str, log: Path, workers: int) -> Iterator[Server]:
    """Run a server that remembers for an hour, and that has not noticed an outage at the end."""
    settings = {
        "AUTOMX_DB_URI": uri,
        "AUTOMX_DOMAIN_CACHE_SECONDS": "3600",
        "AUTOMX_INITDB_TOKEN": TOKEN,
        "AUTOMX_LOGLEVEL": "ERROR",  # unknown domains are warnings
    }
    with serving(settings, log, "--workers", str(workers)) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.output
        assert "away" not in server.output


def wait_for(servers: list[Server], domain: str, status: int, what: str) -> None:
    began = time.monotonic()
    wait_until(lambda: all_answer(servers, domain, status), what)
    sys.stdout.write(f"{what}: seen after {time.monotonic() - began:.2f} s\n")


def test_a_change_is_seen_by_all_workers_of_all_servers(
    migrated_sqlite: str, tmp_path: Path
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": migrated_sqlite}
    with (
        remembering(migrated_sqlite, tmp_path / "first", 2) as first,
        remembering(migrated_sqlite, tmp_path / "second", 1) as second,
    ):
        servers = [first, second]
        assert all_answer(servers, "new.example", 404)
        assert all_answer(servers, "example.com", 404)
        automx("seed", "-", env=env, stdin=json.dumps(DOCUMENT))
        wait_for(servers, "new.example", 200, "automx seed")
        assert initdb(first, "GET") == "The database holds data already; nothing was changed.\n"
        assert initdb(first, "DELETE").startswith("All providers")
        wait_for(servers, "new.example", 404, "/initdb/")
        automx("seed", "--sample", env=env)
        wait_for(servers, "example.com", 200, "automx seed --sample")
        automx("purge", "--yes", env=env)
        wait_for(servers, "example.com", 404, "automx purge")


def new_postgresql(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the ``db_uri`` of a new database for its owner, and for a user who may only read."""
    instance: Instance = request.getfixturevalue("postgresql_instance")
    uri = instance.new_migrated_database()
    name = make_url(uri).database
    role = f"reader_{name}"
    instance.sql(f"CREATE ROLE {role} LOGIN;")
    instance.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};", name)
    return uri, uri.replace("postgres@", f"{role}@", 1)


def new_mariadb(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Likewise."""
    instance: Instance = request.getfixturevalue("mariadb_instance")
    uri = instance.new_migrated_database()
    name = make_url(uri).database
    instance.sql(f"CREATE USER r_{name}@localhost; GRANT SELECT ON {name}.* TO r_{name}@localhost;")
    return uri, uri.replace("root@", f"r_{name}@", 1)


@pytest.mark.parametrize("new_database", [new_postgresql, new_mariadb])
def test_a_server_that_may_only_read_sees_changes(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    new_database: Callable[[pytest.FixtureRequest], tuple[str, str]],
) -> None:
    uri, reader = new_database(request)
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}
    with remembering(reader, tmp_path / "log", 1) as server:
        assert all_answer([server], "new.example", 404)
        automx("seed", "-", env=env, stdin=json.dumps(DOCUMENT))
        wait_for([server], "new.example", 200, "automx seed")
        automx("purge", "--yes", env=env)
        wait_for([server], "new.example", 404, "automx purge")
