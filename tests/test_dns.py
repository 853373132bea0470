"""The records of a domain: complete, and a zone that a name server can load."""

import json
from pathlib import Path

import dns.zone
import pytest
from dns.rdatatype import RdataType

from automx import dns as records
from automx.clientconfig import ClientConfig
from tests.documents import golden
from tests.processes import automx
from tests.test_pacc import IMAP, SMTP, config
from tests.test_provider_details import DOCUMENT


@pytest.fixture
def env(database: Path, tmp_path: Path) -> dict[str, str]:
    """Settings of a database with everything in it."""
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    servers = [
        *DOCUMENT["servers"],
        {"type": "imap", "name": "second.example.com", "prio": 20},
        {"type": "pop", "name": "pop.example.com", "port": 110},
        {"type": "smtp", "name": "smtp.example.com", "port": 587},
        {"type": "caldav", "url": "https://dav.example.com/cal/%EMAILADDRESS%/"},
        {"type": "carddav", "url": "https://dav.example.com:8443/card"},
    ]
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps(DOCUMENT | {"servers": servers}))
    automx("seed", seed, env=env)
    return env


def test_the_zone_holds_all_records(env: dict[str, str]) -> None:
    zone = automx("dns", "Example.com", "--host", "automx.example.net", env=env)
    assert zone == golden("example.zone")


def test_a_zone_parser_reads_the_zone(env: dict[str, str]) -> None:
    text = automx("dns", "example.com", "--host", "automx.example.net", env=env)
    zone = dns.zone.from_text(text, "example.com.", relativize=False, check_origin=False)
    read = [
        (str(name).removesuffix("."), RdataType.to_text(data.rdtype), data.to_text())
        for name, _, data in zone.iterate_rdatas()
    ]
    printed = automx(
        "dns", "example.com", "--host", "automx.example.net", "--format", "json", env=env
    )
    told = [(record["name"], record["type"], record["data"]) for record in json.loads(printed)]
    assert sorted(read) == sorted(told)


def test_a_name_that_is_the_services_own_gets_no_alias() -> None:
    names = [
        record.name for record in records.records(config(IMAP, SMTP), "autoconfig.example.com")
    ]
    assert "autoconfig.example.com" not in names
    assert "autodiscover.example.com" in names


def test_services_that_are_not_offered_are_denied(env: dict[str, str]) -> None:
    settings: ClientConfig = config(IMAP, SMTP)
    denied = [r.name for r in records.records(settings, "h.example") if r.data == "0 0 0 ."]
    assert denied == [
        "_imap._tcp.example.com",
        "_pop3s._tcp.example.com",
        "_pop3._tcp.example.com",
        "_submission._tcp.example.com",
    ]
