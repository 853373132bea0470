"""Lines of the log for systemd's journal, in its native protocol: each with fields of its own.

See https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. What the journal does not take goes to the standard
stream, whose lines it reads as well: each begins with its priority (sd-daemon(3)).
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class Journal(logging.StreamHandler[TextIO]):
    """Writes to the journal; ``stream`` is the standard stream that leads there as well.

    ``fields`` returns what is known of an event, by names in small letters. They become
    ``AUTOMX_STATUS`` and the like.
    """

    def __init__(
        self, stream: TextIO, fields: Callable[[logging.LogRecord], Mapping[str, object]]
    ) -> None:
        super().__init__(stream)
        self._fields = fields
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; logging holds the lock of this handler."""
        try:
            entry = self._entry(record)
        except Exception:
            self.handleError(record)
            return
        try:
            self._send(entry)
        except OSError:  # no socket, or a traceback that is longer than it takes
            self._close_socket()
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines for the standard stream."""
        prefix = f"<{_priority(record)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))

    def close(self) -> None:
        """Close the socket."""
        self._close_socket()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        entry = _field("MESSAGE", super().format(record))
        entry += _field("PRIORITY", _priority(record)) + _field("SYSLOG_IDENTIFIER", "automx")
        for name, value in self._fields(record).items():
            entry += _field(f"AUTOMX_{name.upper()}", value)
        return entry

    def _send(self, entry: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.connect(SOCKET)
        self._socket.send(entry)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def leads_there(stream: TextIO) -> bool:
    """Return whether what is written to a stream goes to the journal (systemd.exec(5))."""
    with suppress(OSError, ValueError):  # it is closed, or no file
        found = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def _priority(record: logging.LogRecord) -> int:
    return _PRIORITIES.get(record.levelname, 5)


def _field(name: str, value: object) -> bytes:
    """Return a field with the length of its value: so no value can begin another field."""
    data = str(value).encode(errors="backslashreplace")
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
