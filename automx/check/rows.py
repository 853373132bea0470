"""Rows that no client can use, or that nobody should."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Column, Select, Table, select

from automx import lookup
from automx.check.finding import Finding, Level
from automx.clientconfig import ClientConfig, SocketType
from automx.database import Session
from automx.errors import AddressError
from automx.kinds import domain_a_label
from automx.models import (
    DavServer,
    Documentation,
    Domain,
    LdapServer,
    Provider,
    ProviderDetail,
    Server,
    davserver_domain,
    server_domain,
)

MAX_NAMED = 20  # findings of one kind

# Without these, people's clients still work.
_SIDE_TABLES = {ProviderDetail.name, Documentation.name}

# The first label of a name that a wildcard is asked for.
_ANY = "automx-check"


def check(session: Session) -> Iterator[Finding]:
    """Yield what is suspicious in the tables, whichever domain it concerns.

    Raises DatabaseError.
    """
    yield from _limited("bad rows", _bad(session))
    yield from _limited("unused rows", _unused(session))
    yield from _limited("domains without servers", _alone(session))
    yield from _limited("domains with missing rows", _missing(session))
    yield from _limited("names of domains", _names(session))


def _limited(kind: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    yield from islice(findings, MAX_NAMED)
    if more := list(findings):
        worst = max(finding.level for finding in more)
        yield Finding("", worst, kind, f"{len(more)} more are not shown", "correct the first ones")


def _bad(session: Session) -> Iterator[Finding]:
    for table, row_id, text in lookup.bad_rows(session):
        level = Level.WARNING if table in _SIDE_TABLES else Level.ERROR
        yield Finding("", level, _row(table, row_id), text, "correct the row")


def _unused(session: Session) -> Iterator[Finding]:
    uses: tuple[tuple[Table, Column[Any], str], ...] = (
        (Server, server_domain.c.server_id, "link it to a domain in server_domain"),
        (DavServer, davserver_domain.c.davserver_id, "link it to a domain in davserver_domain"),
        (LdapServer, Domain.c.ldapserver_id, "name it in domain.ldapserver_id"),
        (Provider, Domain.c.provider_id, "name it in domain.provider_id"),
    )
    for model, reference, advice in uses:
        used = select(reference).where(reference.is_not(None))
        query = select(model.c.id).where(model.c.id.not_in(used)).order_by(model.c.id)
        for row_id in session.scalars(query):
            subject = _row(model.name, row_id)
            yield Finding(
                "", Level.WARNING, subject, "no domain uses this row", f"{advice}, or delete it"
            )


def _alone(session: Session) -> Iterator[Finding]:
    linked = select(server_domain.c.domain_id).join(
        Server, Server.c.id == server_domain.c.server_id
    )
    for row in _domains(
        session, select(Domain.c.id, Domain.c.name).where(Domain.c.id.not_in(linked))
    ):
        advice = "link servers to it in server_domain"
        text = f"{row.name} has no mail server"
        yield Finding("", Level.ERROR, _row("domain", row.id), text, advice)


def _missing(session: Session) -> Iterator[Finding]:
    columns = Domain.c
    for name, column, model in (
        ("provider", columns.provider_id, Provider),
        ("ldapserver", columns.ldapserver_id, LdapServer),
    ):
        query = select(Domain.c.id, Domain.c.name, column.label("named"))
        query = query.where(column.is_not(None), column.not_in(select(model.c.id)))
        for row in _domains(session, query):
            text = f"{row.name} names {name} {row.named}, which does not exist"
            advice = f"correct {column.name}"
            yield Finding("", Level.ERROR, _row("domain", row.id), text, advice)


def _domains(session: Session, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
    return session.execute(query.order_by(Domain.c.id)).all()


def _names(session: Session) -> Iterator[Finding]:
    """Yield the names of domains that no client can ask for, and those that mean the same."""
    first: dict[str, int] = {}
    for row_id, name in list(lookup.domain_names(session)):
        subject = _row("domain", row_id)
        try:
            a_label = domain_a_label(name)
        except AddressError:
            text, advice = f"{name!r} is no domain name", "correct the name"
            yield Finding("", Level.ERROR, subject, text, advice)
            continue
        if first.setdefault(a_label, row_id) != row_id:
            text = f"{name} is the same domain as that of id {first[a_label]}"
            yield Finding("", Level.ERROR, subject, text, "delete one of the two rows")
        elif name.lower() != a_label or not name.isascii():
            asked = a_label.replace("*", _ANY, 1)
            if lookup.deciding_row(session, asked) != row_id:
                text = f"{name!r} is never found: it is not written as it is looked for"
                yield Finding("", Level.ERROR, subject, text, f"set name to {a_label}")


def check_config(config: ClientConfig) -> Iterator[Finding]:
    """Yield what is suspicious in the settings of a domain."""
    for missing, servers in (("incoming", config.incoming), ("outgoing", config.outgoing)):
        if not servers:
            text = f"there is no usable {missing} mail server"
            advice = "add one: most clients want one of each kind"
            yield Finding(config.domain, Level.ERROR, "database", text, advice)
    for server in config.mail_servers:
        subject = f"{server.type} {server.hostname}:{server.port} {server.socket_type}"
        if server.socket_type is SocketType.PLAIN:
            text = "passwords are sent without encryption; Thunderbird for Android refuses this"
            advice = "let the server offer TLS, and set socket_type to SSL or STARTTLS"
            yield Finding(config.domain, Level.WARNING, subject, text, advice)
        if server in config.outgoing and server.port == 25:
            text = "many networks let nobody reach port 25"
            advice = "let people submit mail at port 465 (SSL) or 587 (STARTTLS)"
            yield Finding(config.domain, Level.WARNING, subject, text, advice)
    for service in config.services:
        subject = f"{service.type} {service.url}"
        if not service.url.startswith("https:"):
            text = "passwords are sent without encryption"
            yield Finding(config.domain, Level.WARNING, subject, text, "serve it by https")


def _row(table: str, row_id: int) -> str:
    return f"table {table}, id {row_id}"
