"""What is known of the request that is being answered, for its lines of the log and for metrics."""

from contextvars import ContextVar
from time import perf_counter_ns

# Where an answer comes from, from near to far: the front, which needs no thread of its own for it,
# the memory of the worker, and neighbours. The farthest counts.
FRONT, MEMORY, DATABASE, DIRECTORY, BACKEND = WHERE = (
    "front",
    "memory",
    "database",
    "directory",
    "backend",
)
_FAR = {where: number for number, where in enumerate(WHERE)}


class Trace:
    """A request: who asks, with which User-Agent, for which domain, and where it is answered.

    ``client`` is an IP address, "" until it is known, as is ``domain``. ``began`` is when the
    request was there, in the time of perf_counter_ns().
    """

    __slots__ = ("agent", "began", "client", "domain", "family", "protocol", "request_id", "where")

    def __init__(
        self, client: str, request_id: str, agent: str = "", began: int | None = None
    ) -> None:
        self.client = client
        self.request_id = request_id
        self.agent = agent
        self.began = perf_counter_ns() if began is None else began
        self.domain = ""
        self.family = ""
        self.protocol = ""
        self.where = MEMORY


# The request of this thread, or of this task of an event loop.
CURRENT: ContextVar[Trace | None] = ContextVar("request", default=None)


def name_domain(domain: str) -> None:
    """Note the domain that the current request is for, if there is a request."""
    if (trace := CURRENT.get()) is not None:
        trace.domain = domain


def mark(where: str) -> None:
    """Note that the current request asks a neighbour, if there is a request."""
    if (trace := CURRENT.get()) is not None and _FAR[where] > _FAR[trace.where]:
        trace.where = where
