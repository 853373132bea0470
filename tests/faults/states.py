"""States in which a neighbour fails: of the network before it, its process, or its file."""

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.network import Network, Weather
from tests.processes import frozen

Fault = Callable[[], contextlib.AbstractContextManager[None]]


def weather_faults(before: Network) -> dict[str, Fault]:
    """Return the faults of the network before a neighbour."""

    def disturbed(weather: Weather) -> Fault:
        @contextlib.contextmanager
        def fault() -> Iterator[None]:
            before.weather = weather
            try:
                yield
            finally:
                before.weather = Weather.CLEAR

        return fault

    return {
        "refuses": disturbed(Weather.REFUSING),
        "silent": disturbed(Weather.SILENT),
        "drips": disturbed(Weather.DRIPPING),
        "garbage": disturbed(Weather.GARBAGE),
        "dies": disturbed(Weather.CUT),
    }


def freezing(process: Callable[[], "subprocess.Popen[bytes]"]) -> Fault:
    """Return the fault of a program that is stopped by SIGSTOP."""
    return lambda: frozen(process())


def locking(file: Path) -> Fault:
    """Return the fault of a SQLite file that another program locks."""

    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield

    return fault


def file_faults(file: Path) -> dict[str, Fault]:
    """Return the faults of a SQLite file that cannot be read."""

    def changed(change: Callable[[bytes], bytes | None]) -> Fault:
        @contextlib.contextmanager
        def fault() -> Iterator[None]:
            content = file.read_bytes()
            if (octets := change(content)) is None:
                file.unlink()
            else:
                file.write_bytes(octets)
            try:
                yield
            finally:
                file.write_bytes(content)

        return fault

    # The error of SQLite holds bytes that are no text.
    damage = (b"CREATE TABLE", b"CREATE \xff\xfeBLE")
    return {
        "missing": changed(lambda content: None),
        "overwritten": changed(lambda content: b"\xa5" * len(content)),
        "cut off": changed(lambda content: content[:5000]),
        "damaged": changed(lambda content: content.replace(*damage)),
    }


def told(file: Path, state: str) -> Fault:
    """Return the fault of a program that reads its state from a file."""

    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        file.write_text(state)
        try:
            yield
        finally:
            file.write_text("")

    return fault


def killed(before: Network, kill: Callable[[], object], start: Callable[[], object]) -> Fault:
    """Return the fault of a program that was killed, and whose port refuses connections."""

    @contextlib.contextmanager
    def fault() -> Iterator[None]:
        before.weather = Weather.REFUSING
        kill()
        try:
            yield
        finally:
            start()
            before.weather = Weather.CLEAR

    return fault
