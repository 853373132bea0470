"""What ``automx check`` says of a name server that fails: the table of docs/reliability.md."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commandline import attempt
from tests.faults.neighbours import OWN, sqlite_settings
from tests.faults.table import rows
from tests.network import HTTP

FINDINGS = {
    state: finding
    for states, finding in rows("The name server of the doctor")
    for state in states.split(", ")
}


@contextlib.contextmanager
def name_server(state: str) -> Iterator[str]:
    """Give the address of a name server in a state."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        if state == "refuses":
            sock.close()
        ended = threading.Event()

        def talk() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    query, client = sock.recvfrom(65535)
                    sock.sendto(HTTP + query, client)

        if state != "garbage":
            yield address
            return
        sock.settimeout(0.1)
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield address
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("state", FINDINGS)
def test_a_name_server_that_fails_is_told_once_for_the_domain_and_each_server(
    tmp_path: Path, state: str
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", **sqlite_settings(tmp_path)}
    with name_server(state) as address:
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
