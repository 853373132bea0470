"""The doctor: whether people's mail clients find what the database says, and what to do if not.

Everything is asked as a client asks: names by DNS, documents by HTTPS, mail servers by their own
protocols. The work on a domain is split into steps that know nothing of each other and run side by
side; each has a bounded time, and one that fails in a way that nobody thought of takes no other
with it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import Empty, PriorityQueue, SimpleQueue
from threading import Thread

from sqlalchemy.orm import Session

from automx import lookup
from automx.cache import FoundConfig
from automx.check import directory, mail, records, rows, settings, web
from automx.check.finding import Finding, Level, Step
from automx.check.network import Network
from automx.config import DirectorySettings
from automx.errors import AddressError, AutomxError, BadRecordError, UnknownDomainError
from automx.kinds import domain_a_label

__all__ = [
    "Finding",
    "Level",
    "Network",
    "Target",
    "check_domains",
    "check_rows",
    "check_settings",
    "load_targets",
    "seconds_at_most",
]

THREADS = 32

check_settings = settings.check


@dataclass(frozen=True, slots=True)
class Target:
    """A domain to look at, with its settings, or with what is known without looking."""

    domain: str
    found: FoundConfig | None
    trouble: tuple[Finding, ...] = ()


def check_rows(session: Session) -> list[Finding]:
    """Return what is suspicious in the tables as a whole; raises DatabaseError."""
    return list(rows.check(session))


def load_targets(session: Session, domains: Sequence[str] | None) -> list[Target]:
    """Return domains, as somebody has typed them, with their settings; each is there once.

    None stands for all rows of the table ``domain`` whose name is one: check_rows() tells of the
    others. Raises DatabaseError.
    """
    if domains is None:
        domains = [name for _, name in lookup.domain_names(session) if _a_label(name)]
    names = dict.fromkeys(_a_label(text) or text for text in domains)
    return [_target(session, name) for name in names]


def _a_label(name: str) -> str | None:
    try:
        return domain_a_label(name)
    except AddressError:
        return None


def _target(session: Session, domain: str) -> Target:
    if _a_label(domain) is None:
        text, advice = "this is no domain name", "see how it is written"
        return Target(domain, None, (Finding(domain, Level.ERROR, domain, text, advice),))
    if "*" in domain:
        text = "a wildcard stands for domains that are not known here"
        advice = "look at one of them by its name"
        return Target(domain, None, (Finding(domain, Level.OK, "database", text, advice),))
    try:
        return Target(domain, lookup.find(session, domain))
    except UnknownDomainError:
        text, advice = "no row of the table domain fits", "add one, by automx seed or by SQL"
    except BadRecordError as error:
        text, advice = error.cause or str(error), "correct the rows"
    return Target(domain, None, (Finding(domain, Level.ERROR, "database", text, advice),))


def seconds_at_most(number: int, timeout: float) -> float:
    """Return the time after which check_domains() ends in any case, for a number of domains."""
    return timeout * (15 + number)


def check_domains(
    targets: Sequence[Target],
    network: Network,
    *,
    host: str,
    ldap_options: DirectorySettings,
) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each domain with its findings, as it is done; "" is that of ``host``.

    ``host`` is the public name of this service, or "" if it is not known.
    """
    queue = _Queue()
    for target in targets:
        queue.add(target.domain, partial(_begin, target, network, host, ldap_options))
    if host and targets:
        queue.add("", lambda: [partial(web.check_service, network, host)])
    limit = seconds_at_most(len(targets), network.timeout)
    for domain, findings, is_done in queue.run(limit):
        if not is_done:
            text = f"this domain was not done within {limit:g} s"
            advice = "look at fewer domains at once, or give less --timeout"
            findings.append(Finding(domain, Level.ERROR, "automx check", text, advice))
        yield domain, findings


def _begin(
    target: Target, network: Network, host: str, ldap_options: DirectorySettings
) -> Sequence[Step]:
    """Return what is to be done for a domain, after the one question that all steps wait for."""
    if target.found is None:
        return [lambda: target.trouble]
    config = target.found.config
    records.is_usable(network, config.domain)
    steps: list[Step] = [
        partial(rows.check_config, config),
        *records.steps(config, network, host),
        *web.steps(config, network, host),
        *mail.steps(config, network),
    ]
    if target.found.ldap_server is not None:
        server = target.found.ldap_server
        steps += directory.steps(config.domain, server, ldap_options, network)
    return steps


@dataclass(order=True, frozen=True, slots=True)
class _Task:
    """A step, or the beginning of a domain; those with a low ``rank`` are done first."""

    rank: int
    number: int
    domain: str = field(compare=False, default="")
    begin: Callable[[], Sequence[Step]] | None = field(compare=False, default=None)
    step: Step | None = field(compare=False, default=None)


_BEGINNING, _STEP, _END = 2, 1, 0


class _Queue:
    """The work on all domains, and the threads that do it."""

    def __init__(self) -> None:
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._numbers = count()
        # domain, number of the step, what it has found, how many steps it has added
        self._done: SimpleQueue[tuple[str, int, list[Finding], int]] = SimpleQueue()
        self._domains: list[str] = []

    def add(self, domain: str, begin: Callable[[], Sequence[Step]]) -> None:
        """Add a domain, whose steps ``begin`` will tell when its turn comes."""
        self._domains.append(domain)
        self._tasks.put(_Task(_BEGINNING, next(self._numbers), domain, begin=begin))

    def run(self, seconds: float) -> Iterator[tuple[str, list[Finding], bool]]:
        """Yield each domain as it is done, with its findings and True.

        When the time is over, yield the others with what is known of them, and False.
        """
        found: dict[str, dict[int, list[Finding]]] = {domain: {} for domain in self._domains}
        missing = dict.fromkeys(found, 1)  # how many steps
        end = time.monotonic() + seconds
        for _ in range(THREADS):
            # Whoever ends the program does not wait for a silent server.
            Thread(target=self._work, daemon=True).start()
        try:
            while missing:
                domain, number, findings, added = self._done.get(
                    timeout=max(0.0, end - time.monotonic())
                )
                found[domain][number] = findings
                missing[domain] += added - 1
                if not missing[domain]:
                    del missing[domain]
                    yield domain, _in_order(found.pop(domain)), True
        except Empty:
            for domain in missing:
                yield domain, _in_order(found[domain]), False
        finally:
            for _ in range(THREADS):
                self._tasks.put(_Task(_END, next(self._numbers)))

    def _work(self) -> None:
        while (task := self._tasks.get()).rank != _END:
            findings: list[Finding] = []
            steps: Sequence[Step] = ()
            try:
                if task.begin is not None:
                    steps = task.begin()
                if task.step is not None:
                    findings = list(task.step())
            except Exception as error:  # a bug here must not hide what others find
                text = f"this check itself failed: {type(error).__name__}: {error}"
                if isinstance(error, AutomxError):
                    text = error.cause or str(error)
                advice = "please report this"
                findings = [Finding(task.domain, Level.ERROR, "automx check", text, advice)]
            # Said before any of the steps can be done.
            self._done.put((task.domain, task.number, findings, len(steps)))
            for step in steps:
                self._tasks.put(_Task(_STEP, next(self._numbers), task.domain, step=step))


def _in_order(found: dict[int, list[Finding]]) -> list[Finding]:
    return [finding for _, findings in sorted(found.items()) for finding in findings]
