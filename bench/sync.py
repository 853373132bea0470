"""What docs/performance.md promises of ``automx sync``: many domains in PostfixAdmin's tables."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Boolean, Column, Integer, MetaData, String, create_engine
from sqlalchemy import Table as SqlTable
from sqlalchemy.engine import make_url

from bench.measurements import SEEDED, Bench, env_of, resources
from bench.report import Table, number
from bench.rows import created, seed_document
from tests import postfixadmin
from tests.commandline import automx
from tests.databases import engine_uri, running_mariadb, running_postgresql

SECONDS = {"first": 60, "same": 5}
CHANGED = 10
ALIASES = 10  # each so many-th domain is an alias of the one before it

# PostfixAdmin's columns that must be given. On SQLite, they are its tables.
_POSTFIXADMIN = MetaData()
_DOMAIN = SqlTable(
    "domain",
    _POSTFIXADMIN,
    Column("domain", String(255), primary_key=True),
    *(Column(name, String(255)) for name in ("description", "transport")),
    *(Column(name, Integer) for name in ("aliases", "mailboxes", "maxquota", "quota")),
    *(Column(name, Boolean) for name in ("backupmx", "active")),
)
_ALIAS = SqlTable(
    "alias_domain",
    _POSTFIXADMIN,
    Column("alias_domain", String(255), primary_key=True),
    Column("target_domain", String(255)),
    Column("active", Boolean),
)


def sync(bench: Bench) -> Table:
    """Measure ``automx sync`` of many domains: at first, without changes, with ten switched off."""
    table = Table(
        f"automx sync of {SEEDED:,} domains of PostfixAdmin ({bench.database})",
        ("what", "seconds", "allowed", "more memory than for 10"),
    )
    few, many = _costs(bench, CHANGED), _costs(bench, SEEDED)
    for what, (seconds, megabytes) in many.items():
        limit = SECONDS.get(what)
        table.add(
            what,
            number(seconds),
            number(limit) if limit else "",
            f"{megabytes - few[what][1]:+.0f} MB",
            ok=seconds <= limit if limit else None,
        )
    return table


def _costs(bench: Bench, count: int) -> dict[str, tuple[float, float]]:
    """Return the seconds and the peak memory in MB of synchronizations."""
    with _databases(bench) as (db_uri, mail_uri):
        automx("seed", "-", env=env_of(db_uri), stdin=seed_document("example.com"))
        _fill(mail_uri, count)
        env = {"TYPE": "sql", "URI": mail_uri, "PRESET": "postfixadmin", "LIKE": "example.com"}
        env = {f"AUTOMX_SOURCE_MAIL_{key}": value for key, value in env.items()}
        found = {what: resources(["sync"], db_uri, env=env) for what in ("first", "same")}
        _switch_off(mail_uri, CHANGED)
        command = ["sync", "--force"]  # so many are more than allowed among few
        return found | {f"{CHANGED} changed": resources(command, db_uri, env=env)}


@contextmanager
def _databases(bench: Bench) -> Iterator[tuple[str, str]]:
    """Yield the URIs of two databases on one engine: automx's schema, and PostfixAdmin's tables."""
    if bench.database == "sqlite":
        files = [bench.folder / name for name in ("automx.sqlite", "mail.sqlite")]
        _remove(files)
        uris = [f"sqlite:///{file}" for file in files]
        engine = create_engine(uris[1])
        _POSTFIXADMIN.create_all(engine)
        engine.dispose()
        yield created(uris[0]), uris[1]
        _remove(files)
        return
    is_mariadb = bench.database == "mariadb"
    with running_mariadb() if is_mariadb else running_postgresql() as instance:
        db_uri, mail_uri = created(instance.new_database()), instance.new_database()
        place, user = (
            (instance.socket, "root") if is_mariadb else (instance.socket.parent, "postgres")
        )
        postfixadmin.make_tables(bench.database, str(make_url(mail_uri).database), place, user)
        yield db_uri, mail_uri


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _fill(mail_uri: str, count: int) -> None:
    """Add domains in an order that is not that of their names; some are aliases of others."""
    names = [f"d{n * 7919 % count}.example" for n in range(count)]
    values = {"description": "", "transport": "virtual", "backupmx": False, "active": True}
    values |= dict.fromkeys(("aliases", "mailboxes", "maxquota", "quota"), 0)
    aliases = [
        {"alias_domain": names[n], "target_domain": names[n - 1], "active": True}
        for n in range(ALIASES - 1, count, ALIASES)
    ]
    engine = create_engine(engine_uri(mail_uri))
    with engine.begin() as connection:
        connection.execute(_DOMAIN.insert(), [{"domain": name, **values} for name in names])
        connection.execute(_ALIAS.insert(), aliases)
    engine.dispose()


def _switch_off(mail_uri: str, count: int) -> None:
    names = [f"d{number}.example" for number in range(count)]
    engine = create_engine(engine_uri(mail_uri))
    with engine.begin() as connection:
        off = _DOMAIN.update().where(_DOMAIN.c.domain.in_(names)).values(active=False)
        connection.execute(off)
    engine.dispose()


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {"sync": sync}
