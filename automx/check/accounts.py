"""Whether tokens can make accounts: the backends are asked before a person is refused."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from automx.accounts.tokens import Token
from automx.backends import Backends
from automx.check.finding import Finding, Level
from automx.errors import AutomxError

_ADVICE = "tokens make no accounts there until this is corrected"


def check_accounts(tokens: Sequence[Token], backends: Backends, now: datetime) -> Iterator[Finding]:
    """Yield what prevents new accounts: of tokens that still make some, and by the settings."""
    domains: dict[str, set[str]] = {backends.name(""): set()}
    for token in tokens:
        if token.obstacle(now) is None:
            domains.setdefault(backends.name(token.backend), set()).add(token.domain)
    for name in sorted(domains):
        subject = f"backend {name}"
        try:
            for fault in backends.get(name).faults(sorted(domains[name])):
                yield Finding("", Level.ERROR, subject, fault, _ADVICE)
        except AutomxError as error:
            yield Finding("", Level.ERROR, subject, error.reason, _ADVICE)
