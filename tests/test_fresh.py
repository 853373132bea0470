"""A change through automx is seen by all workers of all servers, whatever they remember.

Servers remember for an hour here. The real time until a change is seen is printed (pytest -s).
"""

import http.client
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from automx.migrations import upgrade
from automx.seeddocument import SAMPLE
from tests.commandline import automx
from tests.databases import Instance, engine_uri
from tests.processes import Server, serving, wait_until

TOKEN = "secret-1"
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


def reader_of(request: pytest.FixtureRequest, uri: str) -> str:
    """Return the ``db_uri`` of a user who may do no more than read; SQLite knows no users."""
    if "sqlite" in uri:
        return uri
    name = make_url(uri).database
    if "postgresql" in uri:
        instance: Instance = request.getfixturevalue("postgresql_instance")
        role = f"reader_{name}"
        instance.sql(f"CREATE ROLE {role} LOGIN;")
        instance.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};", name)
        return uri.replace("postgres@", f"{role}@", 1)
    instance = request.getfixturevalue("mariadb_instance")
    instance.sql(f"CREATE USER r_{name}@localhost; GRANT SELECT ON {name}.* TO r_{name}@localhost;")
    return uri.replace("root@", f"r_{name}@", 1)


def test_a_change_is_seen_by_all_workers_of_all_servers(
    request: pytest.FixtureRequest, any_database_uri: str, tmp_path: Path
) -> None:
    """One server may change the database, the other one may only read."""
    upgrade(engine_uri(any_database_uri))
    reader = reader_of(request, any_database_uri)
    settings = {"AUTOMX_DOMAIN_CACHE_SECONDS": "3600", "AUTOMX_INITDB_TOKEN": TOKEN}
    settings["AUTOMX_LOGLEVEL"] = "ERROR"  # unknown domains are warnings
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_database_uri}
    document = {"provider": "New", "domains": ["new.example"], "servers": SAMPLE["servers"]}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                serving(settings | {"AUTOMX_DB_URI": uri}, tmp_path / name, "--workers", workers)
            )
            for name, uri, workers in (("first", any_database_uri, "2"), ("second", reader, "1"))
        ]

        def wait_for(domain: str, status: int, what: str) -> None:
            began = time.monotonic()
            wait_until(lambda: all_answer(servers, domain, status), what)
            sys.stdout.write(f"{what}: seen after {time.monotonic() - began:.2f} s\n")

        assert all_answer(servers, "new.example", 404)
        assert all_answer(servers, "example.com", 404)
        automx("seed", "-", env=env, stdin=json.dumps(document))
        wait_for("new.example", 200, "automx seed")
        assert (
            initdb(servers[0], "GET") == "The database holds data already; nothing was changed.\n"
        )
        assert initdb(servers[0], "DELETE").startswith("All providers")
        wait_for("new.example", 404, "/initdb/")
        automx("seed", "--sample", env=env)
        wait_for("example.com", 200, "automx seed --sample")
        automx("purge", "--yes", env=env)
        wait_for("example.com", 404, "automx purge")
        for server in servers:
            assert server.stop() == 0
            assert "Traceback" not in server.output
            assert "away" not in server.output
