"""What clients get while a neighbour fails, and when it is back: each row of docs/reliability.md.

A real ``automx serve`` stands behind the network before each neighbour. The two are started once
for all states.
"""

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from automx import errors
from automx.config import KEYS
from tests.documents import autodiscover_error, autodiscover_request, timeless
from tests.faults.neighbours import LIMIT, NEIGHBOURS, OTHER, OWN, TOKEN, Neighbour
from tests.faults.table import BACK, Cell, Promise, deadlines, order, promises, states
from tests.processes import Server, serving, wait_until

START = 30.0  # seconds in which a new service is ready
SLACK = 4.0  # seconds beside each limit; 0.5 are promised, and the machine may be busy
RECOVERY = 5.0  # seconds in which a neighbour that is back is used
CONNECTIONS = 17  # of a worker to its database: 16 transactions, and one that looks

PROMISES = promises()
UNAVAILABLE = errors.UnavailableError.public
REASONS = {
    503: {UNAVAILABLE, errors.TryAgainError.public, errors.UncertainError.public},
    504: {errors.NotReachedError.public, errors.SilentError.public},
}


@dataclass(frozen=True)
class Request:
    """A request of a mail client, and the document of an outage in its protocol."""

    method: str
    path: str
    outage: str
    body: str = ""


def requests(domain: str) -> list[Request]:
    """Return the requests of a person's mail clients, one for each form of errors."""
    address = f"alice@{domain}"
    return [
        Request("GET", f"/mail/config-v1.1.xml?emailaddress={address}", f"{UNAVAILABLE}\n"),
        Request(
            "POST",
            "/autodiscover/autodiscover.xml",
            autodiscover_error(603, UNAVAILABLE),
            autodiscover_request(address),
        ),
        Request("GET", f"/mobileconfig?emailaddress={address}", f"{UNAVAILABLE}\n"),
    ]


@dataclass(frozen=True)
class Answer:
    """What a client got, and after how many seconds; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: str
    seconds: float


@dataclass
class Service:
    """A running server and its neighbour."""

    server: Server
    neighbour: Neighbour
    # Of a healthy service: whether it is about OTHER, and the number of the request.
    documents: dict[tuple[bool, int], str] = field(default_factory=dict)
    passwords: set[str] = field(default_factory=set)  # of new accounts
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, method: str, path: str, body: str = "") -> Answer:
        began = time.monotonic()
        headers = {"Content-Type": "text/xml"} if body else {}
        with contextlib.closing(HTTPConnection("127.0.0.1", self.server.port, timeout=30)) as http:
            http.request(method, path, body or None, headers)
            answer = http.getresponse()
            text = answer.read().decode()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, text, time.monotonic() - began)

    def new_domain(self) -> str:
        """Return a domain that is in the database, and that the worker does not remember."""
        return f"d{next(self.numbers)}.{OWN}"


def without_domain(document: str, domain: str) -> str:
    """Return a document that is the same for all domains."""
    names = (domain, ".".join(reversed(domain.split("."))))  # the second one is Apple's form
    for name in names:
        document = document.replace(name, "DOMAIN")
    return re.sub(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", "UUID", document)


def check_documents(service: Service, domain: str, cell: Cell, seconds: float) -> None:
    """Check the answers about a domain in all protocols."""
    for number, request in enumerate(requests(domain)):
        answer = service.ask(request.method, request.path, request.body)
        assert answer.status == cell.status, (request.path, answer)
        assert answer.seconds < seconds, request.path
        if cell.status != 200:
            assert timeless(answer.body) == request.outage
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["cache-control"] == "no-store"
            continue
        document = without_domain(answer.body, domain)
        assert document == service.documents.setdefault((domain == OTHER, number), document)
        assert ("age" in answer.headers) == ("from memory" in cell.words)
        if "age" in answer.headers:
            assert answer.headers["age"].isdecimal()
            assert answer.headers["cache-control"] in {"no-cache", "no-store"}


def check_account(service: Service, cell: Cell) -> None:
    """Check the answer to Delta Chat, which asks for an account."""
    answer = service.ask("POST", f"/?t={TOKEN}")
    document = json.loads(answer.body)
    assert answer.status == cell.status, answer
    assert answer.seconds < service.neighbour.account_seconds + SLACK
    if cell.status == 200:
        assert document["email"].endswith(f"@{OWN}")
        service.passwords.add(document["password"])
        return
    reason = document.pop("reason")
    assert document == {"type": "error", "status_code": cell.status}
    assert reason in REASONS[cell.status]
    assert int(answer.headers["retry-after"]) > 0


def check_health(service: Service, cell: Cell) -> None:
    """Check what load balancers get."""
    answer = service.ask("GET", "/healthz")
    assert (answer.status, answer.body) == (cell.status, "ok\n")
    assert answer.seconds < SLACK


def check(service: Service, promise: Promise, at_once: int = 1) -> None:
    """Check each cell of a row by so many requests at once."""
    remembered = LIMIT if "from memory" in promise.other.words else 0
    work: list[Callable[[], None]] = []
    for _ in range(at_once):
        own = service.new_domain()
        work += [
            partial(check_documents, service, own, promise.own, LIMIT + SLACK),
            partial(check_documents, service, OTHER, promise.other, remembered + SLACK),
            partial(check_account, service, promise.account),
            partial(check_health, service, promise.health),
        ]
    with ThreadPoolExecutor(len(work)) as threads:
        for result in [threads.submit(one) for one in work]:
            result.result()
    # What fails is known now: the other domain is answered at full speed.
    check_documents(service, OTHER, promise.other, SLACK)


def await_recovery(service: Service, promise: Promise, seconds: float) -> None:
    """Ask until each cell of the row holds and what was remembered is not needed any more."""
    end = time.monotonic() + seconds
    while True:
        offset = len(service.server.output)
        try:
            check(service, promise)
            check_words(service, promise, offset)
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)
        else:
            return


def check_words(service: Service, promise: Promise, offset: int) -> None:
    """Check what the cells say beside "from memory", by the log from an offset on."""
    cells = (promise.own, promise.other, promise.health, promise.account)
    for word in {word for cell in cells for word in cell.words} - {"from memory"}:
        assert service.neighbour.words[word](service.server.output[offset:]), word


@contextlib.contextmanager
def running_service(name: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Run a neighbour, and a server of one worker that needs it, until the block ends."""
    with NEIGHBOURS[name](folder, request) as neighbour:
        env = {
            "AUTOMX_DOMAIN_CACHE_SECONDS": "0",
            "AUTOMX_ACCOUNT_RATE_LIMIT": "",
            "AUTOMX_LOGLEVEL": "DEBUG",
            **{
                f"AUTOMX_{setting.upper()}": str(LIMIT)
                for setting in deadlines().values()
                if setting in KEYS
            },
            **neighbour.settings,
        }
        with serving(env, folder / "serve.log", "--workers", "1") as server:
            service = Service(server, neighbour)
            await_recovery(service, PROMISES[name, BACK], START)
            yield service


@pytest.fixture(scope="module")
def start(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Service]]:
    """Start the service of a neighbour, or go on with the one that was started last."""
    started: dict[str, Service] = {}
    with contextlib.ExitStack() as stack:

        def start_or_go_on(name: str) -> Service:
            if name not in started:
                stack.close()
                started.clear()
                folder = tmp_path_factory.mktemp("faults")
                started[name] = stack.enter_context(running_service(name, folder, request))
            return started[name]

        yield start_or_go_on


@pytest.mark.parametrize(("name", "state"), order(list(PROMISES)))
def test_the_promises_of_the_page_hold(
    start: Callable[[str], Service], name: str, state: str
) -> None:
    service, promise = start(name), PROMISES[name, state]
    is_database = "from memory" in promise.other.words
    offset = len(service.server.output)
    with service.neighbour.faults[state]():
        check(service, promise, at_once=3)
        check_words(service, promise, offset)
        assert service.ask("GET", "/readyz").status == (503 if is_database else 200)
    await_recovery(service, PROMISES[name, BACK], RECOVERY + SLACK)
    if is_database and (before := service.neighbour.network):
        wait_until(lambda: before.connections <= CONNECTIONS, "the end of broken connections")
    output = service.server.output
    assert "Traceback" not in output
    for secret in (*service.neighbour.secrets, TOKEN, *service.passwords):
        assert secret not in output


def test_the_page_speaks_of_what_is_tested() -> None:
    faults = {state for _, state in PROMISES}
    assert set(states()) == faults
    assert set(deadlines()) == {name for name, _ in PROMISES} == set(NEIGHBOURS)
