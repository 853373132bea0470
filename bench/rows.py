"""The rows that the servers answer from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    String,
    Subquery,
    cast,
    create_engine,
    insert,
    literal,
    select,
    text,
    union_all,
)

from automx.models import DavServer, Domain, Provider, Server, davserver_domain, server_domain
from tests.commandline import automx
from tests.databases import engine_uri, running_mariadb, running_postgresql

DATABASES = ("sqlite", "postgresql", "mariadb")

SERVERS = [
    {"type": "imap", "name": "imap.example.com"},
    {"type": "pop", "name": "pop.example.com"},
    {"type": "smtp", "name": "smtp.example.com"},
    {"type": "caldav", "url": "https://dav.example.com/calendars/"},
    {"type": "carddav", "url": "https://dav.example.com/contacts/"},
]


def seed_document(*domains: str) -> str:
    """Return a seed document of version 2, which automx2 understands, too."""
    return json.dumps(
        {
            "version": 2,
            "provider": "Example Inc.",
            "domains": [{"name": domain} for domain in domains],
            "servers": SERVERS,
        }
    )


@contextmanager
def databases(kind: str, folder: Path, count: int) -> Iterator[list[str]]:
    """Yield the ``db_uri`` of so many new databases that hold the schema and no row."""
    match kind:
        case "postgresql":
            with running_postgresql() as instance:
                yield [created(instance.new_database()) for _ in range(count)]
        case "mariadb":
            with running_mariadb() as instance:
                yield [created(instance.new_database()) for _ in range(count)]
        case _:
            files = [folder / f"{number}.sqlite" for number in range(count)]
            for file in files:
                file.unlink(missing_ok=True)
            yield [created(f"sqlite:///{file}") for file in files]
            for file in files:
                file.unlink()


def created(db_uri: str) -> str:
    """Make the schema in an empty database, and return its ``db_uri``."""
    automx("db", "upgrade", env={"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri})
    return db_uri


def fill(db_uri: str, count: int) -> None:
    """Add the domains d1000000.example and so on, all of one provider, with the same servers.

    Statements that the database runs by itself, because seeding a million domains takes longer
    than all measurements together.
    """
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri}
    automx("seed", "-", env=env, stdin=seed_document("example.com"))
    engine = create_engine(engine_uri(db_uri), enable_from_linting=False)  # all pairs are meant
    numbers = _numbers(len(str(count - 1)))
    name = literal("d") + cast(numbers.c.number + 1_000_000, String(7)) + literal(".example")
    provider = select(Provider.c.id).scalar_subquery()
    domains = select(name, provider).where(numbers.c.number < count)
    with engine.begin() as connection:
        connection.execute(insert(Domain).from_select(["name", "provider_id"], domains))
        for link, server in ((server_domain, Server), (davserver_domain, DavServer)):
            pairs = select(server.c.id, Domain.c.id).where(Domain.c.name != "example.com")
            connection.execute(insert(link).from_select(list(link.c.keys()), pairs))
    if engine.dialect.name == "postgresql":  # its autovacuum would do so within a minute
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def _numbers(digits: int) -> Subquery:
    """Return a query for the column ``number``, all numbers of so many digits, on any database."""
    digit = union_all(*(select(literal(n).label("digit")) for n in range(10)))
    places = [digit.subquery() for _ in range(digits)]
    powers = reversed([10**power for power in range(digits)])  # the first loop is the outermost
    number = sum((p.c.digit * power for p, power in zip(places, powers, strict=True)), literal(0))
    return select(number.label("number")).subquery()
