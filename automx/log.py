"""The log: one line for each event, with what is known of its request.

Under systemd, the journal gets that in fields.
"""

import ipaddress
import json
import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import WatchedFileHandler
from time import perf_counter_ns
from typing import Any, TextIO

from automx.config import Settings
from automx.config.monitoring import LogSettings
from automx.errors import SettingsError
from automx.journal import Journal, leads_there
from automx.trace import CURRENT, Trace

access_log = logging.getLogger("automx.access")

ACCESS = "%s %s %s"  # method, path, status: the arguments of each line of the access log
MAX_LINE = 2_000  # characters; a path or a host name may have many more

_QUERY = re.compile(r"\?\S*")
_TOKEN = re.compile(r"(?i)([?&]token=)[^&#\s'\"]+")  # of /tls/ask, in a URL
_AT = re.compile("@|%40")
_NETWORK_BITS = {4: 24, 6: 48}


class _Masking(logging.Formatter):
    """Masks a secret wherever it stands, all tokens of URLs, and local parts of mail addresses.

    ``secret`` is the token of /tls/ask, "" if there is none: Caddy can send it in the URL only.
    """

    secret = ""

    def masked(self, text: str) -> str:
        if self.secret:
            text = text.replace(self.secret, "***")
        return without_people(_TOKEN.sub(r"\1***", text) if "=" in text else text)


class TextFormatter(_Masking):
    """Puts the client's address before a message, and keeps the message on one line.

    ``addresses`` is the setting ``log_addresses``.
    """

    def __init__(self, addresses: str = "full") -> None:
        super().__init__()
        self._addresses = addresses

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; what is not printable in a message is escaped: a client sent it.

        That is more than control characters: U+202E shows a line in another order.
        """
        trace = trace_of(record)
        client = shown_client(trace.client, self._addresses) if trace else ""
        message = f"{client} {record.message}" if client else record.message
        line = f"{record.levelname} {record.name}: {self.masked(message)}"
        return f"{self.formatTime(record)} {_printable(line[:MAX_LINE])}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback, whose last lines may quote a client as well."""
        text = self.masked(super().formatException(ei))
        return "\n".join(map(_printable, text.split("\n")))


class JsonFormatter(_Masking):
    """Writes each event as a JSON object in ASCII."""

    def __init__(self, addresses: str = "full") -> None:
        super().__init__()
        self._addresses = addresses

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        first: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
        }
        message = self.masked(record.getMessage())[:MAX_LINE]
        document = first | self.fields(record) | {"message": message} | self._exception(record)
        return json.dumps({name: _encodable(value) for name, value in document.items()})

    def _exception(self, record: logging.LogRecord) -> dict[str, object]:
        if not record.exc_info:
            return {}
        return {"exception": self.masked(self.formatException(record.exc_info))}

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Return what is known of an event beside its text."""
        fields: dict[str, object] = {"logger": record.name}
        if (trace := trace_of(record)) is not None:
            known = {
                "request_id": trace.request_id,
                "client": shown_client(trace.client, self._addresses),
                "family": trace.family,
                "domain": trace.domain,
                "protocol": trace.protocol,
            }
            fields |= {name: value for name, value in known.items() if value}
        if record.msg is ACCESS and isinstance(record.args, tuple):
            method, path, status = record.args
            fields |= {
                "method": method,
                "path": self.masked(str(path))[:MAX_LINE],
                "status": status,
            }
            if trace is not None:
                fields["where"] = trace.where
                fields["seconds"] = round((perf_counter_ns() - trace.began) / 1e9, 6)
        return fields


def trace_of(record: logging.LogRecord) -> Trace | None:
    """Return the request of a line, None if there is none."""
    trace: Trace | None = getattr(record, "trace", None)  # of the access log
    return CURRENT.get() if trace is None else trace


@lru_cache(1000)
def shown_client(client: str, addresses: str) -> str:
    """Return what the log may tell of a client's address; "" if that is nothing."""
    if addresses == "full" or not client:
        return client
    if addresses == "none":
        return ""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client  # "unknown"
    return str(ipaddress.ip_network((client, _NETWORK_BITS[address.version]), strict=False))


def without_people(text: str, before: str = " /<>(),") -> str:
    """Return a text without the local parts of mail addresses.

    ``before`` are the characters that may stand before an address. The time that it takes grows
    with the length only: a stranger may have sent the text.
    """
    if "@" not in text and "%40" not in text:
        return text
    *parts, rest = _AT.split(text)
    shown = []
    for part in parts:
        end = part.rfind('"', 0, -1) if part.endswith('"') else len(part)
        kept = 1 + max(part.rfind(sign, 0, max(end, 0)) for sign in before)
        shown.append(f"{part[:kept]}…@" if kept < len(part) else f"{part}@")
    return "".join(shown) + rest


def _encodable(value: object) -> object:
    """Return a value without half of a surrogate pair: what reads JSON may refuse the line.

    Python makes them of bytes that are no text, such as those of a file's name.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode(errors="replace").decode()


def _printable(line: str) -> str:
    if line.isprintable():  # nearly all are
        return line
    return "".join(char if char.isprintable() else _escaped(char) for char in line)


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def without_query(record: logging.LogRecord) -> bool:
    """Remove the query from a line of werkzeug's log, which ``flask run`` writes. Returns True."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _QUERY.sub("", text) if isinstance(text, str) else text for text in record.args
        )
    return True


class _Stream(logging.StreamHandler[TextIO]):
    """Writes to a standard stream. ``made_for`` are the settings."""

    def __init__(self, stream: TextIO, made_for: LogSettings) -> None:
        super().__init__(stream)
        self.made_for = made_for
        self.setFormatter(_formatter(made_for))


class _Journal(Journal):
    """Writes to the journal of systemd."""

    def __init__(self, stream: TextIO, made_for: LogSettings) -> None:
        self.known = JsonFormatter(made_for.addresses)
        super().__init__(stream, self.known.fields)
        self.made_for = made_for
        self.setFormatter(_formatter(made_for))


class _File(WatchedFileHandler):
    """Writes to a file, and to a new one of its name once it is renamed."""

    def __init__(self, made_for: LogSettings) -> None:
        super().__init__(made_for.access, encoding="utf-8", errors="backslashreplace")
        self.made_for = made_for
        self.setFormatter(_formatter(made_for))
        self._is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Tell once that lines are lost: a full disk must not fill the other log as well."""
        if not self._is_told:
            self._is_told = True
            text = "access_log cannot be written, its lines are lost: %s"
            logging.getLogger("automx").error(text, sys.exc_info()[1])


class GranianHandler(logging.Handler):
    """Hands the records of granian to the logger automx, which has their form and place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on."""
        record.name = "granian"
        logging.getLogger("automx").handle(record)


def write(settings: Settings) -> None:
    """Write the log of automx as the settings say. Raises SettingsError for a file that cannot be.

    It replaces what an earlier call has set up for other settings.
    """
    werkzeug = logging.getLogger("werkzeug")
    werkzeug.removeFilter(without_query)
    werkzeug.addFilter(without_query)
    logger = logging.getLogger("automx")
    logger.setLevel(settings.loglevel)
    logs = settings.logs
    if not any(handler.made_for == logs for handler in _own(logger)):
        _replace(logger, _standard(sys.stderr, logs))
    _write_access(settings)
    for handler in (*logger.handlers, *access_log.handlers):
        formatters = [handler.formatter, handler.known if isinstance(handler, _Journal) else None]
        for formatter in formatters:
            if isinstance(formatter, _Masking):
                formatter.secret = settings.tls_ask_token


def _write_access(settings: Settings) -> None:
    logs = settings.logs
    access_log.propagate = not logs.access
    if not logs.access:
        access_log.setLevel(logging.NOTSET)
        _replace(access_log, None)
        return
    level = logging.DEBUG if settings.loglevel == "DEBUG" else logging.INFO
    access_log.setLevel(logging.CRITICAL + 1 if logs.access == "off" else level)
    if not any(handler.made_for == logs for handler in _own(access_log)):
        _replace(access_log, _access_handler(logs))


def close_files() -> None:
    """Close the files and sockets of the log; the next line opens its own again."""
    for handler in (*_own(logging.getLogger("automx")), *_own(access_log)):
        handler.close()


def has_fields(settings: Settings) -> bool:
    """Return whether the log tells the protocol and the family of clients; lines of text do not."""
    return settings.logs.format == "json" or leads_there(sys.stderr) or leads_there(sys.stdout)


def _standard(stream: TextIO, logs: LogSettings) -> "_Stream | _Journal":
    return _Journal(stream, logs) if leads_there(stream) else _Stream(stream, logs)


def _access_handler(logs: LogSettings) -> "_Handler | None":
    if logs.access == "off":
        return None
    if logs.access == "-":
        return _standard(sys.stdout, logs)
    try:
        return _File(logs)
    except OSError as error:
        text = f"access_log: {logs.access} cannot be written: {error.strerror}"
        raise SettingsError(text) from error


_Handler = _Stream | _Journal | _File


def _own(logger: logging.Logger) -> list[_Handler]:
    return [handler for handler in logger.handlers if isinstance(handler, _Handler)]


def _replace(logger: logging.Logger, handler: logging.Handler | None) -> None:
    for old in _own(logger):
        logger.removeHandler(old)
        if not isinstance(old, _Stream):  # whose stream is that of the process
            with suppress(OSError):  # the disk is full
                old.close()
    if handler is not None:
        logger.addHandler(handler)


def _formatter(logs: LogSettings) -> logging.Formatter:
    kind = JsonFormatter if logs.format == "json" else TextFormatter
    return kind(logs.addresses)
