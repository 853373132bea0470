"""The access log: a line for each request that was answered."""

import logging
import re

from flask import Flask, Response, request

from automx import families
from automx.config import Settings
from automx.counts import Counts
from automx.log import ACCESS, access_log, has_fields, without_people
from automx.trace import CURRENT, Trace

_ADDRESS = re.compile(r"(?s)^(/autodiscover/autodiscover\.json/v1\.0/).+")

# The protocols of the blueprints; a POST at a path of "root" is for an account.
_PROTOCOLS = {
    "autoconfig": "autoconfig",
    "autodiscover": "autodiscover",
    "autodiscoverjson": "autodiscover_json",
    "mobileconfig": "mobileconfig",
    "pacc": "pacc",
    "wellknown": "wellknown",
    "initdb": "initdb",
    "tls": "tls",
    "health": "health",
    "pagefiles": "page",
    "site": "page",
    "root": "page",
    "api": "api",
}
ACCOUNT, UNKNOWN = "account", "other"
PROTOCOLS = (*dict.fromkeys(_PROTOCOLS.values()), ACCOUNT, UNKNOWN)


class Answered:
    """What is done with each request once it is answered: it is logged and counted.

    Safe for threads. ``counts`` is None if nothing is counted.
    """

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self.counts = counts if settings.metrics.listen else None
        self.has_lines = access_log.isEnabledFor(logging.INFO)
        self.names_family = has_fields(settings) or self.counts is not None

    def begin(self, trace: Trace, protocol: str, method: str, query: str) -> None:
        """Note the protocol of a request and the family of the client, if they are wanted."""
        if self.names_family:
            trace.protocol = protocol
            trace.family = families.family_of(trace.agent, protocol, method, query)

    def note(self, trace: Trace, method: str, path: str, status: int) -> None:
        """Count a request and write its line; that of a load balancer at level DEBUG.

        ``path`` is without query, which may hold addresses and passwords.
        """
        if self.counts is not None:
            self.counts.answered(trace, status)
        if self.has_lines:
            self.write(trace, method, path, status)

    def write(self, trace: Trace, method: str, path: str, status: int) -> None:
        """Write the line of a request."""
        is_probe = status == 200 and path in {"/healthz", "/readyz"}
        level = logging.DEBUG if is_probe else logging.INFO
        access_log.log(level, ACCESS, method, path, status, extra={"trace": trace})


def shown_path(path: str) -> str:
    """Return a path as the log tells it: without the local parts of addresses, by segment."""
    return without_people(_ADDRESS.sub(r"\1…", path), before="/")


def register(app: Flask, answered: Answered) -> None:
    """Note each request of an application, before all others look at it and after them."""

    @app.before_request
    def begin() -> None:
        if (trace := CURRENT.get()) is not None and answered.names_family:
            protocol = _PROTOCOLS.get(request.blueprint or "", UNKNOWN)
            if request.blueprint == "root" and request.method == "POST":
                protocol = ACCOUNT
            answered.begin(trace, protocol, request.method, request.environ["QUERY_STRING"])

    @app.after_request
    def note(response: Response) -> Response:
        if (trace := CURRENT.get()) is not None:
            answered.note(trace, request.method, shown_path(request.path), response.status_code)
        return response
