"""The log: one line for each event, with the address of the client."""

import logging
import re
from typing import Any

from flask import Flask, Response, has_request_context, request

from automx.config import Settings

access_log = logging.getLogger("automx.access")

MAX_LINE = 2_000  # characters; a path or a host name may have many more

_ACCESS = "%s %s %s"  # method, path, status
_QUERY = re.compile(r"\?\S*")
_TOKEN = re.compile(r"(?i)([?&]token=)[^&#\s'\"]+")  # of /tls/ask, in a URL
_ADDRESS = re.compile(r"(?s)^(/autodiscover/autodiscover\.json/v1\.0/).+")


class ClientFormatter(logging.Formatter):
    """Puts the client's address before a message, and keeps the message on one line.

    ``secret`` is the token of /tls/ask, "" if there is none: Caddy can send it in the URL only. It
    is masked wherever it stands.
    """

    secret = ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; what is not printable in a message is escaped: a client sent it.

        That is more than control characters: U+202E shows a line in another order.
        """
        client = getattr(record, "client", "")  # of a request without Flask
        if has_request_context():
            client = request.remote_addr
        message = f"{client} {record.message}" if client else record.message
        line = f"{record.levelname} {record.name}: {self._masked(message)}"
        return f"{self.formatTime(record)} {_printable(line[:MAX_LINE])}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback, whose last lines may quote a client as well."""
        text = self._masked(super().formatException(ei))
        return "\n".join(map(_printable, text.split("\n")))

    def _masked(self, text: str) -> str:
        if self.secret:
            text = text.replace(self.secret, "***")
        return _TOKEN.sub(r"\1***", text) if "=" in text else text


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


def write(settings: Settings) -> None:
    """Write the log of automx to standard error, from the level of the settings on."""
    logging.getLogger("werkzeug").addFilter(without_query)
    logger = logging.getLogger("automx")
    logger.setLevel(settings.loglevel)
    if not any(isinstance(handler.formatter, ClientFormatter) for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(ClientFormatter())
        logger.addHandler(handler)
    for formatter in (handler.formatter for handler in logger.handlers):
        if isinstance(formatter, ClientFormatter):
            formatter.secret = settings.tls_ask_token


def register(app: Flask) -> None:
    """Log each request: method, path without query, status; a load balancer's at level DEBUG."""
    if not access_log.isEnabledFor(logging.INFO):
        return

    @app.after_request
    def log_request(response: Response) -> Response:
        is_probe = request.path in {"/healthz", "/readyz"} and response.status_code == 200
        level = logging.DEBUG if is_probe else logging.INFO
        # No query: it may hold addresses and passwords.
        path = _ADDRESS.sub(r"\1…", request.path)
        access_log.log(level, _ACCESS, request.method, path, response.status_code)
        return response


def write_access(method: str, path: str, status: int, client: str) -> None:
    """Log a request that was answered without Flask."""
    access_log.info(_ACCESS, method, path, status, extra={"client": client})
