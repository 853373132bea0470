"""The doctor: whether mail clients find what the database holds, and what to do if they do not.

The doctor asks as a client does: names by DNS, documents by HTTPS, mail servers by their own
protocols. The work on a domain is split into checks that do not depend on each other and run side
by side. Each check ends within a time, and a bug in one check does not stop the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from shlex import quote

from automx import lookup
from automx.cache import FoundConfig
from automx.check import queue, rows, web
from automx.check.directory import DirectoryChecks
from automx.check.finding import Check, Finding, Level
from automx.check.mail import MailChecks
from automx.check.mx import MxChecks
from automx.check.network import Network
from automx.check.people import PeopleChecks
from automx.check.records import RecordChecks
from automx.check.web import WebChecks
from automx.check.zones import ZoneChecks
from automx.config import Settings
from automx.database import Session
from automx.directory.pool import source_of_people
from automx.errors import (
    AddressError,
    BadRecordError,
    DisabledDomainError,
    UnknownDomainError,
)
from automx.kinds import domain_a_label
from automx.zones import states
from automx.zones.rollover import State

_MOST_NAMES = 20  # of unknown domains in one command


@dataclass(frozen=True, slots=True)
class Target:
    """A domain to check: its settings, or why it has none.

    ``state`` is that of its records if automx writes them, else None.
    """

    domain: str
    found: FoundConfig | Finding
    state: State | None = None


def load_targets(session: Session, domains: Sequence[str] | None) -> list[Target]:
    """Return domains, as a person has typed them, with their settings; each is there once.

    None stands for all rows of the table ``domain`` whose name is a domain name; rows.check_rows()
    reports the others. Raises DatabaseError.
    """
    if domains is None:
        domains = [name for _, name in lookup.domain_names(session) if _a_label(name)]
    names = dict.fromkeys(_a_label(text) or text for text in domains)
    targets = {name: _target(session, name) for name in names}
    advice = _how_to_add([name for name, target in targets.items() if target is None])
    text = "no row of the table domain matches"
    return [
        target or Target(name, Finding(name, Level.ERROR, "database", text, advice))
        for name, target in targets.items()
    ]


def _how_to_add(unknown: Sequence[str]) -> str:
    """Return the command that adds unknown domains, which is the advice for each of them."""
    if len(unknown) > _MOST_NAMES:
        return "add them: automx domain add - reads their names from standard input"
    them = "one" if len(unknown) == 1 else "them"
    return f"add {them}: automx domain add {' '.join(map(quote, unknown))}"


def _a_label(name: str) -> str | None:
    try:
        return domain_a_label(name.strip())
    except AddressError:
        return None


def _target(session: Session, domain: str) -> Target | None:
    """Return a domain to check, None if the database does not know it."""
    level, subject = Level.ERROR, "database"
    if _a_label(domain) is None:
        subject, text, advice = domain, "this is no domain name", "see how it is written"
    elif "*" in domain:
        row = lookup.domain_row(session, domain)
        level, text = Level.OK, "a wildcard stands for domains that are not known here"
        advice = "look at one of them by its name"
        if row is not None and row.off:
            subject, text, advice = "", row.off, ""
    else:
        try:
            return Target(domain, lookup.find(session, domain), states.read(session, domain))
        except DisabledDomainError as error:
            level, subject, text, advice = Level.OK, "", error.reason, ""
        except UnknownDomainError:
            return None
        except BadRecordError as error:
            text, advice = error.cause or str(error), "correct the rows"
    return Target(domain, Finding(domain, level, subject, text, advice))


def check_domains(
    targets: Sequence[Target],
    network: Network,
    settings: Settings,
    *,
    host: str,
    further: Sequence[Check] = (),
) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each domain with its findings when its checks have ended.

    "" is that of ``host`` and of ``further`` checks, which belong to no domain. ``host`` is the
    public name of this service, or "" if it is not known. All domains end within (15 + their
    number) times the timeout of ``network``.
    """
    domains: dict[str, Check] = {
        target.domain: partial(_check_domain, target, network, settings, host) for target in targets
    }
    service = list(further)
    if host and targets:
        service.append(partial(web.check_service, network, host))
    if service:
        domains[""] = lambda: service
    return queue.run(domains, network.timeout * (15 + len(targets)))


def _check_domain(
    target: Target, network: Network, settings: Settings, host: str
) -> Iterator[Finding | Check]:
    """Yield the checks of a domain, after the one query that all of them need."""
    if isinstance(target.found, Finding):
        yield target.found
        return
    domain, config, server = target.domain, target.found.config, target.found.ldap_server
    network.is_usable(domain)
    yield partial(rows.check_config, config)
    documents = target.state.published if target.state else None
    yield from RecordChecks(domain, network, config, host, documents).checks()
    yield from WebChecks(domain, network, config, host, target.found.stored_pacc).checks()
    yield from ZoneChecks(domain, network, settings, target.found, target.state, host).checks()
    yield from MailChecks(domain, network, config).checks()
    yield from MxChecks(domain, network, config).checks()
    if server is not None:
        yield from DirectoryChecks(domain, network, server, settings.directory).checks()
    elif source := source_of_people(settings.sources, target.found.origin, domain):
        yield from PeopleChecks(domain, network, source).checks()
