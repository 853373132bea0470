"""A real Delta Chat core, told to log in with nothing but an address and a password.

The core speaks JSON-RPC over its standard input and output, one message a line. It always asks port
443, so the front has a loopback address of its own; host names lead there, and to the mail host,
by an /etc/hosts that only the core sees: it runs in a mount namespace of its own.
"""

import contextlib
import itertools
import json
import os
import random
import shlex
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import own_mounts

# Where the core looks for the database of providers (ISPDB).
PROVIDERS = "autoconfig.thunderbird.net"

# The core gives up by itself; this bound is for a core that hangs.
SECONDS = 120


@dataclass(frozen=True)
class Network:
    """Loopback addresses that this test run has for itself."""

    front: str
    mail: str
    nothing: str
    """Nothing listens here."""


def network() -> Network:
    """Choose addresses on which port 443 is free; fail the test if it is not run by root."""
    if os.geteuid() != 0:
        pytest.fail(
            "Delta Chat asks port 443 and gets host names of its own: only root can arrange both"
        )
    for third in random.sample(range(1, 255), 20):
        prefix = f"127.88.{third}"
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind((f"{prefix}.1", 443))
            return Network(f"{prefix}.1", f"{prefix}.2", f"{prefix}.3")
    pytest.fail("port 443 is taken on all loopback addresses that were tried")


class DeltaChatError(Exception):
    """The core's own words for why it could not do what it was told."""


class DeltaChat:
    """A running core; what it writes beside its answers goes to ``log``."""

    def __init__(self, process: subprocess.Popen[str], log: Path, pins: Mapping[str, str]) -> None:
        self._process = process
        self._log = log
        self._pins = pins
        self._numbers = itertools.count(1)
        self.version: str = self.call("get_system_info")["deltachat_core_version"]

    def call(self, method: str, *parameters: object) -> Any:
        """Call a method of the core and return its result; raises DeltaChatError if it failed."""
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(SECONDS, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = {}
            while answer.get("id") != number:
                answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            log = self._log.read_text(errors="replace")
            raise DeltaChatError(
                f"the core has ended, at the latest after {SECONDS} s: {log}"
            ) from error
        finally:
            watchdog.cancel()
        if "error" in answer:
            raise DeltaChatError(answer["error"]["message"])
        return answer["result"]

    def log_in(self, address: str, password: str) -> dict[str, Any]:
        """Let a new profile find its servers and log in; return the settings it keeps.

        Raises DeltaChatError if the core cannot log in.
        """
        return self._new_profile(
            "add_or_update_transport", {"addr": address, "password": password}
        ).configured

    def scan(self, text: str) -> "Transport":
        """Let a new profile scan a QR code that makes an account or logs in to one.

        Raises DeltaChatError if the core cannot do that.
        """
        return self._new_profile("add_transport_from_qr", text)

    def _new_profile(self, method: str, parameter: object) -> "Transport":
        """Set up a profile of its own: the core remembers answers of web servers for each."""
        profile = self.call("add_account")
        database = Path(self.call("get_info", profile)["database_dir"])
        # The core has no setting for further authorities, but remembers keys it has seen.
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            connection.executemany(
                "INSERT INTO tls_spki (host, spki_hash, timestamp) VALUES (?, ?, ?)",
                [(host, pin, int(time.time())) for host, pin in self._pins.items()],
            )
        self.call(method, profile, parameter)
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
            settings = connection.execute(
                "SELECT entered_param, configured_param FROM transports"
            ).fetchone()
        self.call("remove_account", profile)
        return Transport(*map(json.loads, settings))


@dataclass(frozen=True)
class Transport:
    """The settings of a profile: what it was told, and what it made of that."""

    entered: dict[str, Any]
    configured: dict[str, Any]


@contextlib.contextmanager
def delta_chat(
    folder: Path, hosts: Mapping[str, str], pins: Mapping[str, str]
) -> Iterator[DeltaChat]:
    """Run the core with its profiles in ``folder``.

    It knows the addresses of ``hosts`` alone, and trusts the keys ``pins`` of hosts.
    """
    (folder / "hosts").write_text("".join(f"{hosts[name]} {name}\n" for name in hosts))
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    core = Path(sys.executable).with_name("deltachat-rpc-server")
    script = " && ".join(
        [
            f"mount --bind {shlex.quote(str(folder / 'hosts'))} /etc/hosts",
            f"mount --bind {shlex.quote(str(folder / 'resolv.conf'))} /etc/resolv.conf",
            f"exec {shlex.quote(str(core))}",
        ]
    )
    log = folder / "core.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*own_mounts(), "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "DC_ACCOUNTS_PATH": str(folder / "profiles")},
        ) as process,
    ):
        try:
            yield DeltaChat(process, log, pins)
        finally:
            process.kill()
