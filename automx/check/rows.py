"""Rows that clients cannot use, that no domain uses, or that are unsafe."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from urllib.parse import urlsplit

from automx import lookup, references
from automx.accounts import tokens
from automx.check import clients
from automx.check.finding import Finding, Level
from automx.clientconfig import ClientConfig
from automx.database import Session

MAX_SHOWN = 20  # findings of one kind
_REPAIR = "automx check --repair does it"

# Clients work without these.
_OPTIONAL_TABLES = {
    "provider",
    "provider_detail",
    "documentation",
    "disabled_domain",
    "synced_domain",
}
_TO_USE = {
    "server": "link it to a domain in server_domain",
    "davserver": "link it to a domain in davserver_domain",
    "ldapserver": "name it in domain.ldapserver_id",
    "provider": "name it in domain.provider_id",
}


def check_rows(session: Session) -> Iterator[Finding]:
    """Yield what is wrong in the tables, for all domains.

    Raises DatabaseError.
    """
    yield from _limited("bad rows", _bad(session))
    yield from _limited("unused rows", _unused(session))
    yield from _limited("domains without servers", _without_servers(session))
    yield from _limited("domains that are off", _disabled(session))
    yield from _limited("references to missing rows", _dangling(session))
    yield from _limited("tokens without domain", _without_domain(session))
    yield from _limited("keys without provider", _keys(session))
    yield from _limited("names of domains", _names(session))


def _limited(kind: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    yield from islice(findings, MAX_SHOWN)
    worst, number = Level.OK, 0
    for finding in findings:
        worst, number = max(worst, finding.level), number + 1
    if number:
        advice = "correct the first ones" if worst else ""
        yield Finding("", worst, kind, f"{number} more are not shown", advice)


def _bad(session: Session) -> Iterator[Finding]:
    for table, row_id, text in lookup.bad_rows(session):
        level = Level.WARNING if table in _OPTIONAL_TABLES else Level.ERROR
        yield Finding("", level, _row(table, row_id), text, "correct the row")


def _unused(session: Session) -> Iterator[Finding]:
    for table, row_id in references.unused_rows(session):
        text, advice = "no domain uses this row", f"{_TO_USE[table]}, or delete it"
        yield Finding("", Level.WARNING, _row(table, row_id), text, advice)


def _without_servers(session: Session) -> Iterator[Finding]:
    for row_id, name in references.domains_without_servers(session):
        text, advice = f"{name} has no mail server", "link servers to it in server_domain"
        yield Finding("", Level.ERROR, _row("domain", row_id), text, advice)


def _disabled(session: Session) -> Iterator[Finding]:
    for found in references.disabled_domains(session):
        row, text = _row("domain", found.id), f"{found.name} has been off"
        text += f" since {lookup.day(found.since)}"
        if found.used_id is None:
            yield Finding("", Level.OK, row, text)
            continue
        text += f", but look-ups use the row of id {found.used_id} for this domain"
        advice = "switch that row off, too, or correct the names"
        yield Finding("", Level.WARNING, row, text, advice)


def _dangling(session: Session) -> Iterator[Finding]:
    for found in references.dangling_references(session):
        level, row = Level.WARNING, f"table {found.table}, {found.key}"
        text = f"there is no {found.missing}"
        advice = f"delete the row: {_REPAIR}"
        if found.table == "domain":
            level = Level.ERROR
            text = f"{found.domain} names {found.missing}, which does not exist"
            advice = f"correct {found.column}"
            if found.is_deleted:
                advice += f", or delete the domain: {_REPAIR}"
        elif not found.is_deleted:
            advice = "delete the mailbox on the mail server, then this row"
        yield Finding("", level, row, text, advice)


def _without_domain(session: Session) -> Iterator[Finding]:
    for token in tokens.without_domain(session):
        text = f"the domain {token.domain} of the token {token.name} is not in the database"
        advice = f"add the domain, or delete the token: {_REPAIR}"
        if number := tokens.number_of_accounts(session, token.id):
            accounts = f"its {number} account{'s' * (number != 1)}"
            advice = f"add the domain, or delete {accounts} and the token"
        yield Finding("", Level.WARNING, _row("token", token.id), text, advice)


def _keys(session: Session) -> Iterator[Finding]:
    for name, provider in references.keys_without_provider(session):
        text = f"the provider {provider} of this key of the API does not exist"
        yield Finding("", Level.WARNING, f"key {name}", text, f"automx apikey revoke {name}")


def _names(session: Session) -> Iterator[Finding]:
    """Yield the names that are no domain names, that are there twice, or that are never found."""
    for found in references.non_normal_names(session):
        level = Level.ERROR
        if not found.a_label:
            text, advice = f"{found.name!r} is no domain name", "correct the name"
        elif found.duplicate_of is not None:
            text = f"{found.name} is the same domain as that of id {found.duplicate_of}"
            advice = "delete one of the two rows"
        elif not found.is_found:
            text = f"{found.name!r} is never found: look-ups use other spellings of it"
            advice = f"set name to {found.a_label}"
        elif found.is_padded:
            level, text = Level.WARNING, f"there are blanks around the name {found.name!r}"
            advice = f"set name to {found.a_label}"
        else:
            continue
        yield Finding("", level, _row("domain", found.id), text, advice)


def check_config(config: ClientConfig) -> Iterator[Finding]:
    """Yield what is wrong with the settings of a domain."""
    error = partial(Finding, config.domain, Level.ERROR)
    warning = partial(Finding, config.domain, Level.WARNING)
    for missing in config.missing:
        text = f"there is no usable {missing} mail server"
        yield error("database", text, "add one: most clients need one of each kind")
    for server in config.general().outgoing:
        if server.port == 25:
            advice = "let clients submit mail at port 465 (SSL) or 587 (STARTTLS)"
            yield warning(clients.subject(server), "many networks block port 25", advice)
    yield from clients.check_clients(config)
    for service in config.services:
        if not service.url.startswith(("https:", "wss:")):
            subject = f"{service.type} {service.url}"
            yield warning(subject, "passwords are sent without encryption", "serve it by https")
    yield from _underscores(config)


def _underscores(config: ClientConfig) -> Iterator[Finding]:
    """Yield the domain and the hosts whose names have a "_", which host names cannot have.

    They are served as they are, so that id and domain of a document are what the client asked for.
    """
    warning = partial(Finding, config.domain, Level.WARNING)
    if "_" in config.domain:
        text = "the domain has an underscore: Thunderbird asks nothing for it, and public"
        text += " authorities give no certificates for its hosts"
        yield warning(config.domain, text, "use a domain without an underscore")
    hosts = [server.hostname for server in config.mail_servers]
    hosts += [urlsplit(service.url).hostname or "" for service in config.services]
    for host in dict.fromkeys(hosts):
        if "_" in host:
            text = "no host name can have an underscore; Thunderbird leaves such mail servers out"
            yield warning(host, text, "give the server another name")


def _row(table: str, row_id: int) -> str:
    return f"table {table}, id {row_id}"
