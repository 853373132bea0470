"""The doctor: whether people's mail clients find what the database says, and what to do if not.

Everything is asked as a client asks: names by DNS, documents by HTTPS, mail servers by their own
protocols. The work on a domain is split into steps that know nothing of each other and run side by
side; each has a bounded time, and one that fails in a way that nobody thought of takes no other
with it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread

from sqlalchemy.orm import Session

from automx import ldap, lookup
from automx.check import directory, mail, records, rows, settings, web
from automx.check.finding import Finding, Level, Step
from automx.check.network import Network
from automx.errors import AutomxError, BadRecordError, UnknownDomainError
from automx.lookup import FoundConfig

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


def check_rows(session: Session, ldap_options: ldap.Options) -> list[Finding]:
    """Return what is suspicious in the tables as a whole; raises DatabaseError."""
    return list(rows.check(session, ldap_options))


def load_targets(
    session: Session, domains: Sequence[str] | None, ldap_options: ldap.Options
) -> list[Target]:
    """Return domains, as somebody has typed them, with their settings; each is there once.

    None stands for all rows of the table ``domain`` whose name is one: check_rows() tells of the
    others. Raises DatabaseError.
    """
    if domains is None:
        domains = [name for _, name in lookup.domain_names(session) if rows.a_label_of(name)]
    names = dict.fromkeys(rows.a_label_of(text) or text for text in domains)
    return [_target(session, name, ldap_options) for name in names]


def _target(session: Session, domain: str, ldap_options: ldap.Options) -> Target:
    if rows.a_label_of(domain) is None:
        text, advice = "this is no domain name", "see how it is written"
        return Target(domain, None, (Finding(domain, Level.ERROR, domain, text, advice),))
    if "*" in domain:
        text = "a wildcard stands for domains that are not known here"
        advice = "look at one of them by its name"
        return Target(domain, None, (Finding(domain, Level.OK, "database", text, advice),))
    try:
        return Target(domain, lookup.find(session, domain, ldap_options))
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
    ldap_options: ldap.Options,
) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each domain with its findings, as it is done; "" is that of ``host``.

    ``host`` is the public name of this service, or "" if it is not known.
    """
    work: SimpleQueue[tuple[str, int, Step]] = SimpleQueue()
    done: SimpleQueue[tuple[str, int, list[Finding]]] = SimpleQueue()
    left: dict[str, int] = {}
    for target in targets:
        steps = list(_steps(target, network, host, ldap_options))
        left[target.domain] = len(steps)
        for index, step in enumerate(steps):
            work.put((target.domain, index, step))
    if host and targets:
        left[""] = 1
        work.put(("", 0, partial(web.check_service, network, host)))
    stopped = Event()
    for _ in range(min(THREADS, work.qsize())):
        # Whoever ends the program does not wait for a silent server.
        Thread(target=_work, args=(work, done, stopped), daemon=True).start()
    found: dict[str, dict[int, list[Finding]]] = {domain: {} for domain in left}
    limit = seconds_at_most(len(targets), network.timeout)
    try:
        for domain in _finished(left, found, done, time.monotonic() + limit):
            findings = [finding for _, part in sorted(found[domain].items()) for finding in part]
            if left[domain]:
                text = f"{left[domain]} steps were not done within {limit:g} s"
                advice = "look at fewer domains at once, or give less --timeout"
                findings.append(Finding(domain, Level.ERROR, "automx check", text, advice))
            yield domain, findings
    finally:
        stopped.set()


def _steps(
    target: Target, network: Network, host: str, ldap_options: ldap.Options
) -> Iterator[Step]:
    yield lambda: target.trouble
    found = target.found
    if found is None:
        return
    config = found.config
    yield partial(rows.check_config, config)
    yield from records.steps(config, network, host)
    yield from web.steps(config, network, host)
    yield from mail.steps(config, network)
    if found.ldap_server is not None:
        yield from directory.steps(config.domain, found.ldap_server, ldap_options, network)


def _work(
    work: "SimpleQueue[tuple[str, int, Step]]",
    done: "SimpleQueue[tuple[str, int, list[Finding]]]",
    stopped: Event,
) -> None:
    """Do what there is, until there is nothing more."""
    while not stopped.is_set():
        try:
            domain, index, step = work.get_nowait()
        except Empty:
            return
        try:
            findings = list(step())
        except Exception as error:  # a bug here must not hide what others find
            text = f"this check itself failed: {type(error).__name__}: {error}"
            if isinstance(error, AutomxError):
                text = error.cause or str(error)
            findings = [Finding(domain, Level.ERROR, "automx check", text, "please report this")]
        done.put((domain, index, findings))


def _finished(
    left: dict[str, int],
    found: dict[str, dict[int, list[Finding]]],
    done: "SimpleQueue[tuple[str, int, list[Finding]]]",
    end: float,
) -> Iterator[str]:
    """Yield domains as their last step is done; at the end of the time, all that are not done."""
    missing = set(left)
    while missing:
        try:
            domain, index, findings = done.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            yield from [domain for domain in left if domain in missing]
            return
        found[domain][index] = findings
        left[domain] -= 1
        if not left[domain]:
            missing.discard(domain)
            yield domain
