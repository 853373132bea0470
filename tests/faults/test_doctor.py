"""What ``automx check`` says of a name server that fails: the table of docs/reliability.md."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commandline import attempt
from tests.faults.neighbours import OWN, sqlite_settings
from tests.faults.table import rows
from tests.network import HTTP, Weather, network
from tests.processes import frozen
from tests.zoneservers import ZoneServer, zone_server

FINDINGS = {
    state: finding
    for states, finding in rows("The name server of the doctor")
    for state in states.split(", ")
}


WEATHERS = {"drips": Weather.DRIPPING, "dies": Weather.CUT}


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZoneServer]:
    """A real name server, for all tests."""
    with zone_server("knot", tmp_path_factory.mktemp("zones") / "knot") as started:
        yield started


def garbage(query: bytes) -> bytes:
    """Return what is no answer of a name server."""
    return HTTP + query


def cut_off(query: bytes) -> bytes:
    """Return the answer that sends a client to TCP: the flags QR and TC (RFC 1035, 4.1.1)."""
    return query[:2] + bytes([query[2] | 0x82]) + query[3:]


@contextlib.contextmanager
def answering(answer: Callable[[bytes], bytes], port: int = 0) -> Iterator[str]:
    """Give the address of a port that answers by UDP."""
    ended = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.settimeout(0.1)

        def talk() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    query, client = sock.recvfrom(65535)
                    sock.sendto(answer(query), client)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def name_server(state: str, knot: ZoneServer) -> Iterator[str]:
    """Give the address of a name server in a state."""
    with contextlib.ExitStack() as stack:
        match state:
            case "frozen":
                stack.enter_context(frozen(knot.process))
                yield f"127.0.0.1:{knot.port}"
            case "garbage":
                yield stack.enter_context(answering(garbage))
            case "drips" | "dies":
                before = stack.enter_context(network(knot.port))
                before.weather = WEATHERS[state]
                yield stack.enter_context(answering(cut_off, before.port))
            case _:
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{sock.getsockname()[1]}"
                if state == "refuses":
                    sock.close()
                yield address


@pytest.mark.parametrize("state", FINDINGS)
def test_a_name_server_that_fails_is_told_once_for_the_domain_and_each_server(
    tmp_path: Path, knot: ZoneServer, state: str
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", **sqlite_settings(tmp_path)}
    with name_server(state, knot) as address:
        result = attempt("check", OWN, "--dns", address, "--timeout", "0.5", "--json", env=env)
    findings = [
        (finding["level"], finding["subject"], finding["text"])
        for finding in json.loads(result.stdout)["findings"]
        if finding["domain"] == OWN
    ]
    subjects = (
        OWN,
        "imap imap.example.com:993 SSL",
        "pop3 pop3.example.com:995 SSL",
        "smtp smtp.example.com:465 SSL",
        "smtp smtp.example.com:587 STARTTLS",
    )
    assert sorted(findings) == sorted(("error", subject, FINDINGS[state]) for subject in subjects)
    assert (result.returncode, result.stderr) == (2, "")
