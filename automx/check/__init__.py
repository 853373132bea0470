"""The doctor: whether people's mail clients find what the database says, and what to do if not.

Everything is asked as a client asks: names by DNS, documents by HTTPS, mail servers by their own
protocols. Each step has a bounded time, and many domains are looked at in parallel.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from sqlalchemy.orm import Session

from automx import ldap, lookup
from automx.check import directory, mail, records, rows, web
from automx.check.finding import Finding, Level
from automx.check.network import Network
from automx.errors import AutomxError, BadRecordError, UnknownDomainError
from automx.lookup import FoundConfig

__all__ = ["Finding", "Level", "Network", "Target", "check_domains", "check_rows", "load_targets"]

THREADS = 24


@dataclass(frozen=True, slots=True)
class Target:
    """A domain to look at, with its settings, or with the finding that it has none."""

    domain: str
    found: FoundConfig | None
    trouble: Finding | None = None


def load_targets(
    session: Session, domains: Sequence[str], ldap_options: ldap.Options
) -> list[Target]:
    """Return the domains (A-labels) with their settings; raises DatabaseError."""
    targets = []
    for domain in domains:
        try:
            targets.append(Target(domain, lookup.find(session, domain, ldap_options)))
        except (UnknownDomainError, BadRecordError) as error:
            targets.append(Target(domain, None, _unusable(domain, error)))
    return targets


def check_rows(session: Session) -> list[Finding]:
    """Return what is suspicious in the tables as a whole."""
    return list(rows.check(session))


def check_domains(
    targets: Sequence[Target],
    network: Network,
    *,
    host: str,
    ldap_options: ldap.Options,
) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each domain with its findings, as it is done.

    ``host`` is the public name of this service, or "" if it is not known.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as threads:
        work = {
            threads.submit(_check, target, network, host, ldap_options): target.domain
            for target in targets
        }
        for future in as_completed(work):
            yield work[future], future.result()


def _check(
    target: Target, network: Network, host: str, ldap_options: ldap.Options
) -> list[Finding]:
    if target.found is None:
        return [target.trouble] if target.trouble else []
    config = target.found.config
    found = [
        *rows.check_config(config),
        *records.check(config, network, host),
        *web.check(config, network),
        *mail.check(config, network),
    ]
    if target.found.ldap_server is not None:
        found += directory.check(config.domain, target.found.ldap_server, ldap_options, network)
    return found or [Finding(config.domain, Level.OK, "all", "everything is in order")]


def _unusable(domain: str, error: AutomxError) -> Finding:
    if isinstance(error, UnknownDomainError):
        return Finding(
            domain, Level.ERROR, "database", "no row fits this domain", "add it: automx seed"
        )
    return Finding(
        domain, Level.ERROR, "database", error.cause or str(error), "correct the rows it names"
    )
