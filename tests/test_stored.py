"""Tests of automx.changes.stored: the links of domains, however odd the rows are."""

import pytest
from sqlalchemy import insert, text

from automx.changes import stored
from automx.database import Session, open_session
from automx.models import Domain, Provider, Server, server_domain
from tests.databases import engine_uri

IMAP = {
    "type": "imap",
    "port": 993,
    "socket_type": "SSL",
    "user_name": "%EMAILADDRESS%",
    "authentication": "plain",
}


def link(session: Session, *pairs: tuple[int, int]) -> None:
    for server, domain in pairs:
        values = {"server_id": server, "domain_id": domain}
        session.execute(insert(server_domain), [values])


def add_domains(session: Session, number: int, servers: range) -> None:
    session.execute(insert(Provider), [{"id": 1, "name": "Example", "short_name": "Example"}])
    session.execute(
        insert(Server), [{"id": each, "name": f"s{each}.example", **IMAP} for each in servers]
    )
    session.execute(
        insert(Domain),
        [
            {"id": each, "name": f"d{each}.example", "provider_id": 1}
            for each in range(1, number + 1)
        ],
    )


def test_each_domain_has_its_servers_however_many_they_are(any_migrated_uri: str) -> None:
    """MySQL cuts a list of ids off at 1,024 characters."""
    uri = engine_uri(any_migrated_uri)
    servers = range(1_000, 1_300)
    with open_session(uri) as session:
        add_domains(session, 4, servers)
        link(session, *((each, 1) for each in servers), (1_007, 2), (1_001, 2), (1_009, 4))
        assert stored.links(session, "server", [1, 2, 3, 4]) == {
            1: (*servers,),
            2: (1_001, 1_007),
            4: (1_009,),
        }
        assert stored.links(session, "davserver", [1, 2, 3, 4]) == {}


@pytest.mark.parametrize("odd", [99, "imap.example.com", "2,2", "", 1.5])
def test_a_link_to_no_server_is_left_out(migrated_sqlite: str, odd: object) -> None:
    """SQLite takes any value, and references to rows that do not exist."""
    with open_session(migrated_sqlite) as session:
        add_domains(session, 2, range(1, 4))
        link(session, (2, 1), (1, 1))
        statement = text("INSERT INTO server_domain VALUES (:odd, 1), (:odd, 2)")
        session.execute(statement, {"odd": odd})
        assert stored.links(session, "server", [1, 2]) == {1: (1, 2)}
