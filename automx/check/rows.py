"""Rows that no client can use, or that nobody should."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from automx import lookup
from automx.address import parse_domain
from automx.check.finding import Finding, Level
from automx.clientconfig import ClientConfig, SocketType
from automx.errors import AddressError
from automx.models import DavServer, Domain, Server, davserver_domain, server_domain

MAX_NAMED = 20  # findings of one kind


def check(session: Session) -> Iterator[Finding]:
    """Yield what is suspicious in the tables, whichever domain it concerns."""
    for table, row_id, text in lookup.bad_rows(session):
        subject = f"table {table}, id {row_id}"
        yield Finding("", Level.ERROR, subject, text, "correct the row; it is left out")
    unused = ((Server, server_domain.c.server_id), (DavServer, davserver_domain.c.davserver_id))
    for model, reference in unused:
        table = model.__tablename__
        without = select(model.id).where(model.id.not_in(select(reference))).order_by(model.id)
        for row_id in session.scalars(without.limit(MAX_NAMED)):
            subject = f"table {table}, id {row_id}"
            advice = f"link it to a domain in {table}_domain, or delete it"
            yield Finding("", Level.WARNING, subject, "no domain uses this server", advice)
    links = select(server_domain.c.domain_id)
    alone = select(Domain.id, Domain.name).where(Domain.id.not_in(links)).order_by(Domain.id)
    for row in session.execute(alone.limit(MAX_NAMED)):
        subject = f"table domain, id {row.id}"
        advice = "link servers to it in server_domain"
        yield Finding("", Level.ERROR, subject, f"{row.name} has no mail server", advice)
    yield from _names(session)


def _names(session: Session) -> Iterator[Finding]:
    """Yield the names of domains that no client can ask for, and those that mean the same."""
    seen: dict[str, int] = {}
    named = 0
    for row in session.execute(select(Domain.id, Domain.name).order_by(Domain.id)):
        subject = f"table domain, id {row.id}"
        plain = row.name.removeprefix("*.")
        try:
            a_label = "*" if row.name == "*" else parse_domain(plain)
        except AddressError:
            text = f"{row.name!r} is no domain name"
            finding = Finding("", Level.ERROR, subject, text, "correct the name")
        else:
            key = row.name[: len(row.name) - len(plain)] + a_label
            first = seen.setdefault(key, row.id)
            if first == row.id:
                continue
            text = f"{row.name} is the same domain as that of id {first}"
            finding = Finding("", Level.ERROR, subject, text, "delete one of the two rows")
        named += 1
        if named > MAX_NAMED:
            return
        yield finding


def check_config(config: ClientConfig) -> Iterator[Finding]:
    """Yield what is suspicious in the settings of a domain."""
    for missing, servers in (("incoming", config.incoming), ("outgoing", config.outgoing)):
        if not servers:
            text = f"there is no usable {missing} mail server"
            advice = "add one: most clients want one of each kind"
            yield Finding(config.domain, Level.ERROR, "database", text, advice)
    for server in config.mail_servers:
        if server.socket_type is SocketType.PLAIN:
            subject = f"{server.type} {server.hostname}:{server.port}"
            text = "passwords are sent without encryption; Thunderbird for Android refuses this"
            advice = "let the server offer TLS, and set socket_type to SSL or STARTTLS"
            yield Finding(config.domain, Level.WARNING, subject, text, advice)
    for dav_server in config.dav_servers:
        if not dav_server.url.startswith("https:"):
            text = "passwords are sent without encryption"
            advice = "serve it by https"
            yield Finding(config.domain, Level.WARNING, dav_server.url, text, advice)
