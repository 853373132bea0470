"""The schema on three engines: made from nothing, adopted from automx2, undone, printed as SQL."""

import itertools
import logging
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from automx import migrations
from automx.database import Session, create_engine
from automx.errors import BadRequestError, ConflictError, DatabaseError, SettingsError
from automx.migrations import SchemaState
from tests.commandline import attempt, automx
from tests.databases import Instance, engine_uri, run
from tests.processes import AUTOMX, REPOSITORY, program

TITLES = {
    "0001": "automx2's seven tables, and what makes a domain quick to find",
    "0002": "Tokens and accounts of Delta Chat",
    "0003": "Details of providers: what people and newer protocols want to know of them",
    "0004": "Keys of mail servers: whether they are accepted",
    "0005": "Details of directories: longer filters, several search bases, login names",
    "0006": "Administration: domains that are off, origins of rows, the log of changes, the audit",
    "0007": "Keys of the API, and requests that make an account once",
    "0008": (
        "Sources of domains: what is gone there, when each was read last, and which process reads"
        " them"
    ),
    "0009": "Domains whose records automx writes into their zones",
    "0010": "An index of domain names with blanks around them, on PostgreSQL",
}
REVISIONS = list(TITLES)
KNOWN = ", ".join(REVISIONS)
AUTOMX2_COLUMNS = {
    "provider": ["id", "name", "short_name"],
    "server": [
        *("id", "prio", "name", "port", "type", "socket_type", "user_name", "authentication"),
    ],
    "domain": ["id", "name", "provider_id", "ldapserver_id"],
    "server_domain": ["server_id", "domain_id"],
    "ldapserver": [
        *("id", "name", "port", "use_ssl", "search_base", "search_filter", "attr_uid", "attr_cn"),
        *("bind_password", "bind_user"),
    ],
    "davserver": ["id", "url", "port", "type", "use_ssl", "domain_required", "user_name"],
    "davserver_domain": ["davserver_id", "domain_id"],
}
ACCOUNT_COLUMNS = {
    "token": [
        *("id", "name", "token", "token_digest", "domain", "prefix", "address", "expiry", "maxuse"),
        *("usecount", "valid_until", "is_revoked", "backend", "spare_active", "created_at"),
    ],
    "account": [
        *("id", "address", "token_id", "mark", "backend", "state", "created_at", "expires_at"),
        *("changed_at", "warned_at"),
    ],
}
DETAIL_COLUMNS = {
    "provider_detail": [
        *("provider_id", "webmail_url", "help_url", "support_address", "color"),
        *("logo_type", "logo_width", "logo_height", "logo"),
        *("oauth2_issuer", "oauth2_auth_url", "oauth2_token_url", "oauth2_scope"),
        "oauth2_client_id",
    ],
    "documentation": ["id", "provider_id", "url", "lang", "text"],
}
KEY_COLUMNS = {"backend_key": ["digest", "state", "changed_at"]}
DIRECTORY_COLUMNS = {
    "ldapserver_detail": ["ldapserver_id", "search_base", "search_filter", "login_name"],
}
ADMINISTRATION_COLUMNS = {
    **{
        f"{table}_origin": [f"{table}_id", "origin"]
        for table in ("provider", "server", "davserver", "ldapserver", "domain")
    },
    "disabled_domain": ["domain_id", "since"],
    "change_count": ["id", "number"],
    "change_log": ["number", "table_name", "row_key"],
    "audit": ["id", "at", "actor", "action", "kind", "name", "details"],
}
API_KEY_COLUMNS = {
    "api_key": [
        *("id", "name", "digest", "old_digest", "role", "provider_id", "domains", "networks"),
        *("valid_until", "is_revoked", "created_at", "used_on"),
    ],
    "api_request": ["digest", "address", "made_at"],
}
SOURCE_COLUMNS = {
    "synced_domain": ["domain_id", "gone_at", "disabled_at"],
    "source_sync": [
        *("name", "number", "began_at", "succeeded_at", "outcome", "message"),
        *("found", "added", "changed", "removed", "problems"),
    ],
    "lease": ["name", "holder", "until"],
}
MANAGED_COLUMNS = {
    "managed_domain": [
        *("name", "document", "next_document", "old_document", "step", "ttl", "changed_at"),
        *("due_at", "version"),
    ],
}
# What each revision adds.
ADDED = {
    "0001": AUTOMX2_COLUMNS,
    "0002": ACCOUNT_COLUMNS,
    "0003": DETAIL_COLUMNS,
    "0004": KEY_COLUMNS,
    "0005": DIRECTORY_COLUMNS,
    "0006": ADMINISTRATION_COLUMNS,
    "0007": API_KEY_COLUMNS,
    "0008": SOURCE_COLUMNS,
    "0009": MANAGED_COLUMNS,
    "0010": {},
}
COLUMNS = {table: columns for added in ADDED.values() for table, columns in added.items()}
DAV_TABLES = {"davserver", "davserver_domain"}
OUR_INDEXES = {
    "ix_domain_lower_name",
    "ix_server_domain_domain_id",
    "ix_davserver_domain_domain_id",
    "ix_domain_padded_name",
}
INSERT_TOKEN = (
    "INSERT INTO token VALUES (1, 'party', 's3cret', 'digest', 'example.com', 'tmp.', NULL, '1d',"
    " 50, 1, NULL, '0', '', '0', '2026-11-21 10:00:00')"
)
INSERT_ACCOUNT = (
    "INSERT INTO account VALUES (1, 'tmp.k7x2p@example.com', 1, 'f00d', 'none', 'active',"
    " '2026-11-21 10:00:00', '2026-11-22 10:00:00', '2026-11-21 10:00:00', NULL)"
)
INSERT_MANAGED_DOMAIN = (
    "INSERT INTO managed_domain VALUES ('example.com', '{}', NULL, NULL, 'steady', 3600,"
    " '2026-11-21 10:00:00', NULL, 1)"
)
INSERT_DETAIL = (
    "INSERT INTO provider_detail (provider_id, webmail_url, logo_type, logo_width, logo_height,"
    " logo) VALUES ({}, 'https://mail.example.com/', 'image/png', 8, 8, '123')"
)
INSERT_PAGE = "INSERT INTO documentation VALUES ({}, {}, 'https://help.example.com/', 'en', 'Help')"
INSERT_KEY = "INSERT INTO backend_key VALUES ('digest', 'refused', '2026-11-21 10:00:00')"
INSERT_LDAPSERVER = (
    "INSERT INTO ldapserver VALUES (8000, 'ldap.example.com', 389, '0', 'dc=example', '(mail={0})',"
    " 'uid', NULL, NULL, NULL)"
)
INSERT_LDAPSERVER_DETAIL = (
    "INSERT INTO ldapserver_detail VALUES (8000, NULL, '(mail={0})', 'CORP/{uid}')"
)
INSERT_API_KEY = (
    "INSERT INTO api_key VALUES (1, 'portal', 'digest', NULL, 'read', NULL, '', '', NULL, '0',"
    " '2026-11-21 10:00:00', NULL)"
)
BY_POSITION = (
    "INSERT INTO server VALUES (101, 10, 'mail.example.com', 587, 'smtp', 'STARTTLS',"
    " '%EMAILADDRESS%', 'plain')"
)

# What automx2 has left behind: release -> (revision in alembic_version or None, position and
# default of server.prio or None, length of short texts, whether it knew CalDAV and CardDAV).
GENERATIONS: dict[str, tuple[str | None, tuple[int, str] | None, int, bool]] = {
    "2020.0": ("f62e64b43d2f", None, 128, False),
    "2020.12": ("5334f8a8282c", (7, "100"), 128, False),
    "2021.3": ("43ebb40d0578", (7, "10"), 128, True),
    "2021.3-new": ("43ebb40d0578", (1, "100"), 128, True),
    "2026.2": (None, (1, "10"), 32, True),
    "2026.2-stale": ("5334f8a8282c", (1, "10"), 32, True),
}


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes an empty database of an engine and returns its ``db_uri``."""
    numbers = itertools.count(1)

    def make(engine: str) -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path}/{next(numbers)}.sqlite"
        instance: Instance = request.getfixturevalue(f"{engine}_instance")
        return instance.new_database()

    return make


@contextmanager
def connected(db_uri: str) -> Iterator[sa.Connection]:
    """Yield a connection whose work is committed at the end."""
    with sa.create_engine(engine_uri(db_uri), poolclass=NullPool).begin() as connection:
        yield connection


def upgrade(db_uri: str) -> list[str]:
    return [step.revision for step in migrations.upgrade(engine_uri(db_uri))]


def downgrade(db_uri: str, revision: str = "base") -> list[str]:
    return [step.revision for step in migrations.downgrade(engine_uri(db_uri), revision)]


def dump(db_uri: str, *, schema_only: bool = False) -> str:
    """Return the whole database as SQL, as the engine's own program writes it."""
    url = make_url(engine_uri(db_uri))
    database = str(url.database)
    match url.get_backend_name():
        case "sqlite":
            what = ".schema --nosys" if schema_only else ".dump"
            text = run([program("sqlite3", "sqlite3"), database, what], "")
        case "postgresql":
            command = [program("pg_dump", "postgresql-client"), "--username=postgres"]
            command += [f"--host={url.query['host']}", "--inserts", "--dbname", database]
            text = run([*command, *(["--schema-only"] if schema_only else [])], "")
            text = re.sub(r"^(\\|--).*", "", text, flags=re.MULTILINE)
        case _:
            command = [program("mariadb-dump", "mariadb-client"), "--no-defaults", "--user=root"]
            command += [f"--socket={url.query['unix_socket']}", "--skip-comments"]
            text = run([*command, *(["--no-data"] if schema_only else []), database], "")
    return " ".join(text.split())


def make_automx2_database(db_uri: str, generation: str) -> None:
    """Make a database as a release of automx2 would, with some rows."""
    revision, prio, short, dav = GENERATIONS[generation]
    metadata = sa.MetaData()

    def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
        return sa.Table(name, metadata, *columns)

    def texts(**lengths: int) -> list[sa.Column[Any]]:
        return [
            sa.Column(name, sa.String(length), nullable=False) for name, length in lengths.items()
        ]

    def number(name: str) -> sa.Column[Any]:
        return sa.Column(name, sa.Integer, nullable=False)

    def yes_no(name: str) -> sa.Column[Any]:
        checked = sa.Boolean(name=f"{name}_is_boolean", create_constraint=short == 128)
        return sa.Column(name, checked, nullable=False)

    def key(name: str = "id", to: str | None = None) -> sa.Column[Any]:
        references = [sa.ForeignKey(to)] if to else []
        return sa.Column(name, sa.Integer, *references, primary_key=True)

    table("provider", key(), *texts(name=128, short_name=short))
    server = [key(), *texts(name=128), number("port")]
    server += texts(type=short, socket_type=short, user_name=max(64, short), authentication=short)
    position, default = prio or (None, None)
    if position == 1:
        server.insert(1, sa.Column("prio", sa.Integer, server_default=default, nullable=False))
    table("server", *server)
    attributes = [
        sa.Column(name, sa.String(128)) for name in ("attr_cn", "bind_password", "bind_user")
    ]
    table(
        "ldapserver",
        *(key(), *texts(name=128), number("port"), yes_no("use_ssl")),
        *(*texts(search_base=128, search_filter=128, attr_uid=short), *attributes),
    )
    table(
        "domain",
        key(),
        sa.Column("name", sa.String(128), nullable=False, unique=True),
        sa.Column("provider_id", sa.ForeignKey("provider.id"), nullable=False),
        sa.Column("ldapserver_id", sa.ForeignKey("ldapserver.id")),
    )
    table("server_domain", key("server_id", "server.id"), key("domain_id", "domain.id"))
    if dav:
        table(
            "davserver",
            *(key(), *texts(url=128), number("port"), *texts(type=short)),
            *(yes_no("use_ssl"), yes_no("domain_required"), sa.Column("user_name", sa.String(64))),
        )
        table(
            "davserver_domain", key("davserver_id", "davserver.id"), key("domain_id", "domain.id")
        )
    if revision:
        table("alembic_version", sa.Column("version_num", sa.String(32), primary_key=True))
    with connected(db_uri) as connection:
        metadata.create_all(connection)
        if position == 7:
            column = f"prio INTEGER DEFAULT '{default}' NOT NULL"
            connection.execute(sa.text(f"ALTER TABLE server ADD COLUMN {column}"))

        def insert(table: str, *rows: dict[str, object]) -> None:
            for row in rows:
                columns = sa.table(table, *(sa.column(name) for name in row))
                connection.execute(sa.insert(columns), row)

        def mail_server(number: int, priority: int, type_: str, port: int) -> dict[str, object]:
            row = {"id": number, "name": f"{type_}.example.com", "port": port, "type": type_}
            row |= {"socket_type": "SSL", "user_name": "%EMAILADDRESS%", "authentication": "plain"}
            return row if prio is None else row | {"prio": priority}

        insert("provider", {"id": 100, "name": "Example Inc. & Söhne", "short_name": "Example"})
        insert("server", mail_server(7, 20, "imap", 993), mail_server(9, 10, "smtp", 465))
        ldap: dict[str, object] = {
            "id": 3,
            "name": "ldap.example.com",
            "port": 636,
            "use_ssl": True,
        }
        ldap |= {"search_base": "dc=example,dc=com", "search_filter": "(mail={0})"}
        ldap |= {
            "attr_uid": "uid",
            "attr_cn": None,
            "bind_password": "s3cret%",
            "bind_user": "cn=a",
        }
        insert("ldapserver", ldap)
        insert("domain", {"id": 50, "name": "Example.COM", "provider_id": 100, "ldapserver_id": 3})
        insert("domain", {"id": 51, "name": "müller.example", "provider_id": 100})
        pairs: list[dict[str, object]] = [
            {"server_id": server_id, "domain_id": domain_id}
            for server_id, domain_id in itertools.product((7, 9), (50, 51))
        ]
        insert("server_domain", *pairs)
        if dav:
            row: dict[str, object] = {"id": 11, "url": "https://dav.example.com/", "port": 0}
            row |= {"type": "caldav", "use_ssl": True, "domain_required": False}
            insert("davserver", row | {"user_name": "%EMAILADDRESS%"})
            insert("davserver_domain", {"davserver_id": 11, "domain_id": 50})
        if revision:
            insert("alembic_version", {"version_num": revision})


def rows(db_uri: str) -> dict[str, list[dict[str, Any]]]:
    """Return table -> its rows, of all tables but our version table."""
    found = {}
    with connected(db_uri) as connection:
        for name in sa.inspect(connection).get_table_names():
            if name != migrations.VERSION_TABLE:
                result = connection.execute(sa.select(sa.text("*")).select_from(sa.table(name)))
                found[name] = sorted((dict(row) for row in result.mappings()), key=repr)
    return found


def columns(db_uri: str) -> dict[str, list[str]]:
    """Return table -> its columns in order, of all tables but those that hold versions."""
    with connected(db_uri) as connection:
        inspector = sa.inspect(connection)
        names = set(inspector.get_table_names()) - {migrations.VERSION_TABLE, "alembic_version"}
        return {name: [column["name"] for column in inspector.get_columns(name)] for name in names}


def definitions(db_uri: str) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return table -> column -> its type and whether it may be null."""
    with connected(db_uri) as connection:
        inspector = sa.inspect(connection)
        return {
            name: {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)}
            for name in set(inspector.get_table_names()) - {migrations.VERSION_TABLE}
        }


def current(db_uri: str) -> str | None:
    return migrations.current(engine_uri(db_uri))


def state(db_uri: str) -> SchemaState:
    with connected(db_uri) as connection:
        return migrations.state(connection)


def assert_usable(db_uri: str) -> None:
    """Check that rows can be inserted in the ways people do, and that references hold."""

    def do(statement: str) -> None:
        with connected(db_uri) as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.execute(sa.text(statement))

    do(BY_POSITION)
    do(
        "INSERT INTO server (name, port, type, socket_type, user_name, authentication)"
        " VALUES ('new.example.com', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain')"
    )
    do("INSERT INTO provider (name, short_name) VALUES ('New', 'New')")
    servers = {row["name"]: row for row in rows(db_uri)["server"]}
    given = {"id": 101, "prio": 10, "name": "mail.example.com", "port": 587, "type": "smtp"}
    given |= {"socket_type": "STARTTLS", "user_name": "%EMAILADDRESS%", "authentication": "plain"}
    assert servers["mail.example.com"] == given
    assert servers["new.example.com"]["prio"] == 10
    with pytest.raises(sa.exc.IntegrityError):
        do("INSERT INTO server_domain VALUES (4711, 4711)")
    if rows(db_uri)["server_domain"]:
        with pytest.raises(sa.exc.IntegrityError):
            do("DELETE FROM server WHERE id = 7")
    do("INSERT INTO domain SELECT 9000, 'other.example', MIN(id), NULL FROM provider")
    with pytest.raises(sa.exc.IntegrityError):
        do("INSERT INTO domain SELECT 9001, 'other.example', MIN(id), NULL FROM provider")
    do("INSERT INTO server_domain VALUES (101, 9000)")
    with pytest.raises(sa.exc.IntegrityError):
        do(INSERT_ACCOUNT)
    do(INSERT_TOKEN)
    do(INSERT_ACCOUNT)
    for taken in ("'other', 's', 'digest'", "'party', 's', 'other'"):
        with pytest.raises(sa.exc.IntegrityError):
            do(INSERT_TOKEN.replace("(1, 'party', 's3cret', 'digest'", f"(2, {taken}"))
    with pytest.raises(sa.exc.IntegrityError):
        do(INSERT_ACCOUNT.replace("(1,", "(2,"))
    with pytest.raises(sa.exc.IntegrityError):
        do("DELETE FROM token")
    do("INSERT INTO provider VALUES (8000, 'Detailed', 'Detailed')")
    with pytest.raises(sa.exc.IntegrityError):
        do(INSERT_DETAIL.format(8001))
    with pytest.raises(sa.exc.IntegrityError):
        do(INSERT_PAGE.format(1, 8000))
    do(INSERT_DETAIL.format(8000))
    with pytest.raises(sa.exc.IntegrityError):
        do(INSERT_DETAIL.format(8000))
    for number in (1, 2):
        do(INSERT_PAGE.format(number, 8000))
    do("DELETE FROM provider WHERE id = 8000")
    with pytest.raises(sa.exc.IntegrityError):
        do(INSERT_LDAPSERVER_DETAIL)
    do(INSERT_LDAPSERVER)
    do(INSERT_LDAPSERVER_DETAIL)
    do("DELETE FROM ldapserver WHERE id = 8000")
    for table in DETAIL_COLUMNS | DIRECTORY_COLUMNS:
        assert rows(db_uri)[table] == []


def test_an_empty_database_gets_automx2s_tables_and_ours_with_their_columns_in_order(
    any_database_uri: str,
) -> None:
    assert upgrade(any_database_uri) == REVISIONS

    assert columns(any_database_uri) == COLUMNS
    assert current(any_database_uri) == migrations.head() == REVISIONS[-1]
    assert_usable(any_database_uri)


def test_the_schema_is_what_the_classes_say(any_database_uri: str) -> None:
    from automx.models import metadata

    upgrade(any_database_uri)
    options: dict[str, Any] = {"compare_type": True, "compare_server_default": True}
    options["version_table"] = migrations.VERSION_TABLE
    options["include_object"] = lambda _, name, kind, *__: (
        kind != "index" or name not in OUR_INDEXES
    )
    with connected(any_database_uri) as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*expression-based index ix_domain_lower_name")
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_revisions_are_numbered_as_their_files_are() -> None:
    script = ScriptDirectory(str(migrations.script_location()))
    assert [revision.revision for revision in script.walk_revisions()][::-1] == REVISIONS
    assert list(migrations.revisions()) == REVISIONS
    assert script.get_heads() == [migrations.head()]


def test_a_second_upgrade_does_nothing(any_migrated_uri: str) -> None:
    before = dump(any_migrated_uri)

    assert upgrade(any_migrated_uri) == []

    assert dump(any_migrated_uri) == before


def test_the_missing_folder_of_a_sqlite_database_is_made(tmp_path: Path) -> None:
    assert upgrade(f"sqlite:///{tmp_path}/some/folder/automx.sqlite") == REVISIONS
    assert (tmp_path / "some/folder/automx.sqlite").is_file()


def test_upgrades_at_the_same_moment_wait_for_each_other(any_database_uri: str) -> None:
    make_automx2_database(any_database_uri, "2020.0")
    command = [str(AUTOMX), "db", "upgrade"]
    env = {**os.environ, "AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_database_uri}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(command, env=env, **pipes) for _ in range(4)]

    outputs = sorted(process.communicate(timeout=60)[0] for process in started)

    done = f"The database is up to date ({REVISIONS[-1]}).\n"
    assert outputs[:3] == [done] * 3
    upgraded = "".join(rf"Upgraded to {revision}: .+\n" for revision in REVISIONS)
    assert re.fullmatch(upgraded + re.escape(done), outputs[3])
    assert_usable(any_database_uri)


# automx2's databases


@pytest.mark.parametrize("generation", list(GENERATIONS))
def test_a_database_of_automx2_of_any_age_is_adopted_with_all_its_rows(
    any_database_uri: str, generation: str
) -> None:
    make_automx2_database(any_database_uri, generation)
    expected, before = rows(any_database_uri), definitions(any_database_uri)
    for row in expected["server"]:
        row.setdefault("prio", 10)
    for table in DAV_TABLES | (COLUMNS.keys() - AUTOMX2_COLUMNS.keys()):
        expected.setdefault(table, [])

    assert upgrade(any_database_uri) == REVISIONS

    assert rows(any_database_uri) == expected
    assert columns(any_database_uri) == COLUMNS
    after = definitions(any_database_uri)
    assert after["server"].pop("prio")[1] is False
    before["server"].pop("prio", None)
    assert {name: after[name] for name in before} == before
    assert_usable(any_database_uri)
    assert rows(any_database_uri).get("alembic_version") == expected.get("alembic_version")
    assert upgrade(any_database_uri) == []


def test_what_others_added_to_the_table_of_servers_stays(any_database_uri: str) -> None:
    make_automx2_database(any_database_uri, "2020.12")
    with connected(any_database_uri) as connection:
        for statement in (
            "ALTER TABLE server ADD COLUMN comment VARCHAR(20) DEFAULT '50 % :sure'",
            "CREATE INDEX server_by_name ON server (name, port)",
        ):
            connection.execute(sa.text(statement.replace(":", "\\:")))
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("CREATE VIEW imap AS SELECT * FROM server WHERE port = 993")
            connection.exec_driver_sql(
                "CREATE TRIGGER lower AFTER INSERT ON server BEGIN"
                " UPDATE server SET name = lower(name) WHERE id = new.id; END"
            )
        connection.execute(sa.text("UPDATE server SET comment = 'mine' WHERE id = 7"))

    upgrade(any_database_uri)

    assert columns(any_database_uri)["server"] == [*COLUMNS["server"], "comment"]
    with connected(any_database_uri) as connection:
        indexes = sa.inspect(connection).get_indexes("server")
        assert [index["name"] for index in indexes] == ["server_by_name"]
        assert indexes[0]["column_names"] == ["name", "port"]
        values = "8, 10, 'NEW', 993, 'imap', 'SSL', 'u', 'plain'"
        names = ", ".join(COLUMNS["server"])
        connection.execute(sa.text(f"INSERT INTO server ({names}) VALUES ({values})"))
        query = sa.text("SELECT name, comment FROM server WHERE port = 993 ORDER BY id")
        (_, old), (name, new) = connection.execute(query).all()
        assert (old, new) == ("mine", "50 % :sure")
        if connection.dialect.name == "sqlite":
            assert name == "new"
            assert connection.exec_driver_sql("SELECT count(*) FROM imap").scalar() == 2


FOREIGN = {
    "domain": "id",
    "token": "address",
    "account": "address",
    "provider_detail": "color",
    "documentation": "id",
    "backend_key": "changed_at",
    "ldapserver_detail": "ldapserver_id",
    "domain_origin": "domain_id",
    "disabled_domain": "domain_id",
    "change_log": "number",
    "audit": "action",
    "api_key": "created_at",
    "api_request": "address",
    "synced_domain": "disabled_at",
    "source_sync": "added",
    "lease": "holder",
}


# Where a failure undoes all that was done before, the last revision tells enough.
@pytest.mark.parametrize(
    ("engine", "table"),
    [*(("mariadb", table) for table in FOREIGN), ("sqlite", "lease"), ("postgresql", "lease")],
)
def test_a_table_of_another_program_is_refused_and_left_alone(
    engine: str, table: str, new_database: Callable[[str], str]
) -> None:
    uri = new_database(engine)
    with connected(uri) as connection:
        connection.execute(sa.text(f"CREATE TABLE {table} (domain VARCHAR(255), active INTEGER)"))
        connection.execute(sa.text(f"INSERT INTO {table} VALUES ('mine', 1)"))
    before = dump(uri)

    with pytest.raises(DatabaseError) as caught:
        upgrade(uri)

    assert caught.value.cause == (
        f"the table {table} has no column {FOREIGN[table]}, so it is another program's:"
        " give automx a database of its own"
    )
    if engine != "mariadb":
        assert dump(uri) == before
    assert columns(uri)[table] == ["domain", "active"]
    assert rows(uri)[table] == [{"domain": "mine", "active": 1}]
    ours = next(added.keys() for added in ADDED.values() if table in added)
    if ours != AUTOMX2_COLUMNS.keys():
        assert not ours - {table} & columns(uri).keys()


# Cut off half way


class CutError(Exception):
    """Raised in the middle of an upgrade."""


@contextmanager
def cut_before_change(number: int) -> Iterator[None]:
    """Let the given statement that changes something fail, counted from 1."""
    changes = itertools.count(1)

    def count(_: object, __: object, statement: str, *___: object) -> None:
        reads = re.match(r"\s*(SELECT|PRAGMA|SHOW|BEGIN|SET|DESCRIBE)\b", statement, re.IGNORECASE)
        if not reads and next(changes) == number:
            raise CutError(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)


# Both have transactions around all of it; to try a place takes PostgreSQL's tools longer.
@pytest.mark.parametrize(("engine", "step"), [("sqlite", 1), ("postgresql", 9)])
def test_an_upgrade_cut_off_anywhere_has_changed_nothing(
    engine: str, step: int, new_database: Callable[[str], str]
) -> None:
    uri = new_database(engine)
    make_automx2_database(uri, "2020.0")
    before = dump(uri)
    for number in itertools.count(1, step):
        try:
            with cut_before_change(number):
                upgrade(uri)
        except CutError:
            assert dump(uri) == before
            assert state(uri) is SchemaState.MISSING
        else:
            break
    assert number > 10
    assert columns(uri) == COLUMNS
    assert_usable(uri)


def test_mariadb_finishes_an_upgrade_that_was_cut_off_anywhere(
    new_database: Callable[[str], str],
) -> None:
    complete = new_database("mariadb")
    make_automx2_database(complete, "2020.0")
    upgrade(complete)
    expected = dump(complete)
    for number in itertools.count(1):
        uri = new_database("mariadb")
        make_automx2_database(uri, "2020.0")
        try:
            with cut_before_change(number):
                upgrade(uri)
        except CutError:
            reached = current(uri)
            done = REVISIONS[: REVISIONS.index(reached) + 1] if reached else []
            assert state(uri) is (SchemaState.OLDER if done else SchemaState.MISSING)
            assert done + upgrade(uri) == REVISIONS
            assert dump(uri) == expected
        else:
            break
    assert number > 10


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from automx import migrations

@event.listens_for(Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

migrations.upgrade(sys.argv[1])
"""


@pytest.fixture(scope="module")
def upgraded() -> dict[str, str]:
    """What databases of automx2 are when they are upgraded: engine -> dump."""
    return {}


@pytest.mark.parametrize(
    ("engine", "statement", "done"),
    [
        ("sqlite", "CREATE TABLE documentation", []),
        ("postgresql", "CREATE TABLE documentation", []),
        ("mariadb", "ALTER TABLE server", []),
        ("mariadb", "CREATE TABLE account", ["0001"]),
        ("mariadb", "CREATE TABLE provider_detail", ["0001", "0002"]),
        ("mariadb", "CREATE TABLE documentation", ["0001", "0002"]),
        ("mariadb", "CREATE TABLE ldapserver_detail", ["0001", "0002", "0003", "0004"]),
        ("mariadb", "CREATE TABLE api_request", REVISIONS[:6]),
        ("mariadb", "CREATE TABLE source_sync", REVISIONS[:7]),
    ],
)
def test_an_upgrade_that_is_killed_leaves_a_database_that_can_be_upgraded(
    engine: str,
    statement: str,
    done: list[str],
    new_database: Callable[[str], str],
    upgraded: dict[str, str],
) -> None:
    if engine not in upgraded:
        complete = new_database(engine)
        make_automx2_database(complete, "2020.12")
        upgrade(complete)
        upgraded[engine] = dump(complete)
    uri = new_database(engine)
    make_automx2_database(uri, "2020.12")
    before = dump(uri)
    command = [sys.executable, "-c", KILLED, engine_uri(uri), statement]

    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    assert (dump(uri) == before) == (engine != "mariadb")
    assert done + upgrade(uri) == REVISIONS
    assert dump(uri) == upgraded[engine]


# Down again


def test_a_database_without_rows_is_empty_again_after_a_downgrade(any_migrated_uri: str) -> None:

    assert downgrade(any_migrated_uri) == REVISIONS[::-1]

    assert rows(any_migrated_uri) == {}
    assert state(any_migrated_uri) is SchemaState.MISSING
    assert migrations.VERSION_TABLE not in dump(any_migrated_uri)
    assert downgrade(any_migrated_uri) == []
    assert upgrade(any_migrated_uri) == REVISIONS


def test_a_downgrade_by_one_revision_takes_only_its_tables(any_database_uri: str) -> None:
    make_automx2_database(any_database_uri, "2026.2")
    upgrade(any_database_uri)

    left = dict(COLUMNS)
    for revision, before in itertools.pairwise(reversed(REVISIONS)):
        assert downgrade(any_database_uri, before) == [revision]
        for table in ADDED[revision]:
            del left[table]
        assert columns(any_database_uri) == left
        assert state(any_database_uri) is SchemaState.OLDER

    assert left == AUTOMX2_COLUMNS
    assert upgrade(any_database_uri) == REVISIONS[1:]
    assert_usable(any_database_uri)


@pytest.mark.parametrize("generation", ["2020.0", "2026.2"])
def test_a_downgrade_loses_no_row(any_database_uri: str, generation: str) -> None:
    make_automx2_database(any_database_uri, generation)
    upgrade(any_database_uri)
    with connected(any_database_uri) as connection:
        connection.execute(sa.text(INSERT_TOKEN))
        connection.execute(sa.text(INSERT_ACCOUNT))
        connection.execute(sa.text(INSERT_DETAIL.format(100)))
        connection.execute(sa.text(INSERT_PAGE.format(1, 100)))
        connection.execute(sa.text(INSERT_KEY))
        connection.execute(sa.text(INSERT_LDAPSERVER))
        connection.execute(sa.text(INSERT_LDAPSERVER_DETAIL))
        connection.execute(sa.text("INSERT INTO ldapserver_origin VALUES (8000, 'git')"))
        connection.execute(sa.text(INSERT_API_KEY))
        connection.execute(sa.text("INSERT INTO lease VALUES ('sync', 'x', '2026-11-21 10:00:00')"))
        connection.execute(sa.text(INSERT_MANAGED_DOMAIN))
    before, upgraded = rows(any_database_uri), dump(any_database_uri)

    assert downgrade(any_database_uri) == REVISIONS[::-1]

    assert rows(any_database_uri) == before
    assert columns(any_database_uri) == COLUMNS
    assert current(any_database_uri) is None
    assert not [name for name in OUR_INDEXES if name in dump(any_database_uri)]
    assert upgrade(any_database_uri) == REVISIONS
    assert sorted(dump(any_database_uri).split()) == sorted(upgraded.split())


@pytest.mark.parametrize("revision", [revision for revision in REVISIONS if ADDED[revision]])
def test_one_row_in_any_table_keeps_all_of_its_revision(
    empty_database: Path, tmp_path: Path, revision: str
) -> None:
    for table, names in ADDED[revision].items():
        path = tmp_path / f"{table}.sqlite"
        path.write_bytes(empty_database.read_bytes())
        uri = f"sqlite:///{path}"
        values = ", ".join(f"'{number}'" for number, _ in enumerate(names, 1))
        with connected(uri) as connection:
            connection.execute(sa.text(f"INSERT INTO {table} VALUES ({values})"))

        downgrade(uri)

        assert columns(uri) == ADDED[revision]
        assert len(rows(uri)[table]) == 1
    assert upgrade(uri) == REVISIONS
    assert columns(uri) == COLUMNS


def test_a_downgrade_to_where_the_database_is_does_nothing(migrated_sqlite: str) -> None:
    assert downgrade(migrated_sqlite, REVISIONS[-1]) == []
    assert current(migrated_sqlite) == REVISIONS[-1]


# How the schema stands to the program


def test_a_newer_schema_is_left_alone(any_migrated_uri: str) -> None:
    assert state(any_migrated_uri) is SchemaState.CURRENT
    with connected(any_migrated_uri) as connection:
        connection.execute(sa.text("UPDATE automx_version SET version_num = '0815'"))
    before = dump(any_migrated_uri)

    for command in (upgrade, downgrade, current):
        with pytest.raises(DatabaseError) as caught:
            command(any_migrated_uri)
        assert caught.value.cause == (
            "the database schema belongs to a newer automx: install that version"
            f" (the database is at 0815, this automx knows {KNOWN})"
        )

    assert state(any_migrated_uri) is SchemaState.NEWER
    assert dump(any_migrated_uri) == before


def test_a_database_without_our_schema_is_told_from_an_older_one(
    any_database_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_automx2_database(any_database_uri, "2026.2")
    assert state(any_database_uri) is SchemaState.MISSING
    assert current(any_database_uri) is None
    upgrade(any_database_uri)
    newer = tmp_path / "newer"
    shutil.copytree(migrations.script_location(), newer)
    head, following = REVISIONS[-1], f"{int(REVISIONS[-1]) + 1:04}"
    (newer / f"versions/{following}_next.py").write_text(
        f'"""Next."""\nrevision, down_revision = "{following}", "{head}"\n'
        "def upgrade(): pass\ndef downgrade(): pass\n"
    )
    monkeypatch.setattr(migrations, "script_location", lambda: newer)
    migrations.revisions.cache_clear()
    try:
        assert state(any_database_uri) is SchemaState.OLDER
        assert upgrade(any_database_uri) == [following]
        assert state(any_database_uri) is SchemaState.CURRENT
        assert downgrade(any_database_uri, head) == [following]
        assert state(any_database_uri) is SchemaState.OLDER
        assert migrations.upgrade(engine_uri(any_database_uri), head) == []
    finally:
        migrations.revisions.cache_clear()


def test_a_current_database_is_found_so_while_another_program_writes(migrated_sqlite: str) -> None:
    with sqlite3.connect(str(make_url(migrated_sqlite).database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert upgrade(migrated_sqlite) == []
        assert current(migrated_sqlite) == REVISIONS[-1]
    other.close()


def test_a_current_database_need_not_be_writable(migrated_sqlite: str) -> None:
    path = make_url(migrated_sqlite).database
    assert upgrade(f"sqlite:///file:{path}?mode=ro&uri=true") == []


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Return the modes of all that is below a folder."""
    found = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: oct(status.st_mode & 0o7777) for name, status in found.items()}


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
@pytest.mark.parametrize("form", ["{}", "file:{}?uri=true", "file:{}?mode=rwc&uri=true", "link"])
def test_only_the_owner_can_read_a_file_that_is_made(tmp_path: Path, form: str, mask: int) -> None:
    """Nor the files that SQLite makes beside it."""
    file = tmp_path / "a" / "b c" / "automx.sqlite"
    name = form.format(file)
    if form == "link":
        (tmp_path / "link").symlink_to(file)
        name = str(tmp_path / "link")
    uri = f"sqlite:///{name}"
    with umask(mask):
        migrations.upgrade(uri)
        made = {"a": "0o700", "a/b c": "0o700", "a/b c/automx.sqlite": "0o600"}
        assert {key: mode for key, mode in modes(tmp_path).items() if key != "link"} == made
        for journal in ("wal", "delete"):
            with sqlite3.connect(file, isolation_level=None) as connection:
                connection.execute(f"PRAGMA journal_mode = {journal}")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("CREATE TABLE more (id INTEGER)")
                connection.execute("INSERT INTO more VALUES (1)")
                beside = {key: mode for key, mode in modes(tmp_path).items() if "sqlite-" in key}
                connection.execute("ROLLBACK")
            connection.close()
            assert beside
            assert set(beside.values()) == {"0o600"}


def test_each_way_to_make_a_file_makes_it_readable_to_its_owner_only(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/initdb/automx.sqlite"
    with umask(0):
        migrations.create(uri, Session(create_engine(uri)))
        env = {"AUTOMX_DB_URI": f"sqlite:///{tmp_path}/command/automx.sqlite"}
        automx("db", "upgrade", env=env)
    assert modes(tmp_path) == {
        "initdb": "0o700",
        "initdb/automx.sqlite": "0o600",
        "command": "0o700",
        "command/automx.sqlite": "0o600",
    }


def test_the_mode_of_a_file_that_exists_stays(tmp_path: Path) -> None:
    file = tmp_path / "automx.sqlite"
    file.touch()
    file.chmod(0o640)
    migrations.upgrade(f"sqlite:///{file}")
    assert modes(tmp_path) == {"automx.sqlite": "0o640"}


def test_root_makes_the_file_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    """The service, another user, could not read a file of root's."""
    if os.geteuid() != 0:
        pytest.fail("needs root: nobody else can give files to others")
    os.chown(tmp_path, 12345, 23456)
    migrations.upgrade(f"sqlite:///{tmp_path}/automx.sqlite")
    made = (tmp_path / "automx.sqlite").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (12345, 23456, 0o600)


def test_no_other_command_makes_a_file_that_a_uri_names(tmp_path: Path) -> None:
    env = {"AUTOMX_DB_URI": f"sqlite:///file:{tmp_path}/automx.sqlite?uri=true"}
    result = attempt("token", "list", env=env)
    assert (result.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "automx db upgrade" in result.stderr


def test_asking_for_the_state_changes_nothing(sqlite: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        current(sqlite)
    path = make_url(sqlite).database
    assert caught.value.cause == f"there is no database {path}: run automx db upgrade"
    assert not Path(str(path)).exists()


def test_unknown_revisions_are_refused(sqlite: str) -> None:
    with pytest.raises(BadRequestError, match=f"no revision 0815: {KNOWN}"):
        migrations.upgrade(engine_uri(sqlite), "0815")
    with pytest.raises(BadRequestError, match=f"no revision 0815: {KNOWN} and base"):
        migrations.downgrade(engine_uri(sqlite), "0815")
    assert not Path(str(make_url(sqlite).database)).exists()


# What can be wrong with a database


def cause_of_failure(db_uri: str) -> str:
    with pytest.raises((DatabaseError, SettingsError)) as caught:
        upgrade(db_uri)
    assert "s3cret" not in str(caught.value)
    return caught.value.cause or str(caught.value)


def test_a_locked_database_is_named(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_automx2_database(sqlite, "2020.0")
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.1)
    with sqlite3.connect(str(make_url(sqlite).database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        path = make_url(sqlite).database
        assert cause_of_failure(sqlite) == f"sqlite database {path}: database is locked"
    other.close()


def test_a_postgresql_table_in_use_is_named(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_automx2_database(postgresql, "2020.0")
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 1)
    with connected(postgresql) as other:
        other.execute(sa.text("LOCK TABLE server"))
        assert "canceling statement due to lock timeout" in cause_of_failure(postgresql)


def test_an_upgrade_that_waits_too_long_for_another_gives_up(
    mariadb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 1)
    with connected(mariadb) as other:
        name = "SHA1(CONCAT(DATABASE(), '.automx_version'))"
        assert other.scalar(sa.text(f"SELECT GET_LOCK({name}, 1)")) == 1
        expected = "the database is locked: another upgrade is running"
        assert cause_of_failure(mariadb) == expected


def test_a_file_that_is_no_database_is_named(sqlite: str) -> None:
    path = Path(str(make_url(sqlite).database))
    path.write_text("This is a text of more than a hundred bytes. " * 3)
    assert cause_of_failure(sqlite) == f"sqlite database {path}: file is not a database"
    assert path.read_text().startswith("This is a text")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = f"the folder {tmp_path}/file/folder cannot be created: Not a directory"
    assert cause_of_failure(f"sqlite:///{tmp_path}/file/folder/automx.sqlite") == expected


@pytest.mark.parametrize(
    ("db_uri", "expected"),
    [
        ("postgresql://u:s3cret@127.0.0.1:1/db", "postgresql database db on 127.0.0.1: "),
        ("mysql://u:s3cret@127.0.0.1:1/db", "mysql database db on 127.0.0.1: "),
        ("mysql://u:s3cret@127.0.0.1:port/db", "db_uri is not the URI of a database"),
        ("mysql://u@127.0.0.1:1/db?paswd=s3cret", "mysql database db on 127.0.0.1: "),
        (
            "postgresql+missing://u:s3cret@127.0.0.1/db",
            "db_uri names a kind of database that is not known",
        ),
        (
            "postgresql+psycopg2://u:s3cret@127.0.0.1:1/db",
            (
                "db_uri names the driver psycopg2, which cannot be loaded: write postgresql://, "
                "whose driver comes with pip install 'automx[postgresql]', or pip install "
                "psycopg2-binary"
            ),
        ),
        (
            "mysql+mysqldb://u:s3cret@127.0.0.1:1/db",
            (
                "db_uri names the driver mysqldb, which cannot be loaded: write mysql://, whose "
                "driver comes with pip install 'automx[mysql]', or pip install mysqlclient"
            ),
        ),
        (
            "sqlite+pysqlcipher://:s3cret@/db",
            (
                "db_uri names the driver pysqlcipher, which cannot be loaded: write sqlite://, or "
                "pip install pysqlcipher"
            ),
        ),
    ],
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    db_uri: str, expected: str
) -> None:
    cause = cause_of_failure(db_uri)
    assert cause.startswith(expected)
    assert "\n" not in cause
    assert "s3cret" not in cause


def test_a_wrong_password_is_named_but_not_told(mariadb: str) -> None:
    cause = cause_of_failure(mariadb.replace("root@", "nobody:s3cret@"))
    assert "Access denied for user 'nobody'@'localhost'" in cause
    assert "s3cret" not in cause


# Speed


def fill(db_uri: str) -> None:
    """Give a database 3000 domains that share provider and servers."""
    dav = "INSERT INTO davserver SELECT id, 'https://x', 0, 'caldav', id = 1, id = 1, NULL"
    domains = [{"id": number, "name": f"D{number}.example"} for number in range(1, 3001)]
    with connected(db_uri) as connection:
        for statement in (
            "INSERT INTO provider VALUES (1, 'Example Inc.', 'Example')",
            BY_POSITION,
            BY_POSITION.replace("101", "102"),
            f"{dav} FROM provider",
            f"{dav.replace('id,', 'id + 1,')} FROM provider",
        ):
            connection.execute(sa.text(statement))
        connection.execute(sa.text("INSERT INTO domain VALUES (:id, :name, 1, NULL)"), domains)
        for server in ("server", "davserver"):
            pairs = sa.text(f"SELECT {server}.id, domain.id FROM {server}, domain")
            names = [f"{server}_id", "domain_id"]
            table = sa.table(f"{server}_domain", *(sa.column(name) for name in names))
            connection.execute(
                sa.insert(table).from_select(
                    names, pairs.columns(*(sa.column(name, sa.Integer) for name in names))
                )
            )
    with connected(db_uri) as connection:
        if connection.dialect.name in {"sqlite", "postgresql"}:
            connection.execute(sa.text("ANALYZE"))
        else:
            connection.execute(sa.text(f"ANALYZE TABLE {', '.join(COLUMNS)}")).all()


def plan(db_uri: str, query: str) -> str:
    """Return how the database would answer a query, one step in a line."""
    explain = "EXPLAIN QUERY PLAN" if db_uri.startswith("sqlite") else "EXPLAIN"
    with connected(db_uri) as connection:
        steps = connection.execute(sa.text(f"{explain} {query}")).mappings().all()
    return "\n".join(" ".join(f"{name}={value}" for name, value in row.items()) for row in steps)


BY_NAME = "SELECT id FROM domain WHERE {} IN ('d7.example', '*.example', '*')"
SERVERS = "SELECT * FROM server JOIN server_domain ON server_id = server.id WHERE domain_id = 77"
DAV_SERVERS = SERVERS.replace("server", "davserver")


def test_sqlite_finds_a_domain_and_its_servers_by_index(migrated_sqlite: str) -> None:
    fill(migrated_sqlite)
    domain = plan(migrated_sqlite, BY_NAME.format("lower(name)"))
    assert "SEARCH domain USING COVERING INDEX ix_domain_lower_name (<expr>=?)" in domain
    for query, server in ((SERVERS, "server"), (DAV_SERVERS, "davserver")):
        index = f"INDEX ix_{server}_domain_domain_id (domain_id=?)"
        assert re.search(
            f"SEARCH {server}_domain USING (COVERING )?{re.escape(index)}",
            plan(migrated_sqlite, query),
        )


def test_postgresql_finds_a_domain_and_its_servers_by_index(migrated_postgresql: str) -> None:
    fill(migrated_postgresql)
    domain = plan(migrated_postgresql, BY_NAME.format("lower(name)"))
    assert re.search(r"(Index Scan using|Bitmap Index Scan on) ix_domain_lower_name", domain)
    for query, server in ((SERVERS, "server"), (DAV_SERVERS, "davserver")):
        index = f"ix_{server}_domain_domain_id"
        found = plan(migrated_postgresql, query)
        assert re.search(f"(Index (Only )?Scan using|Bitmap Index Scan on) {index}", found), found


def test_postgresql_finds_a_name_with_blanks_by_the_index_of_these(
    migrated_postgresql: str,
) -> None:
    fill(migrated_postgresql)
    bare = r"btrim({}, E' \t\r\n')"  # as the query of domainrows
    found = plan(
        migrated_postgresql,
        f"SELECT id FROM domain WHERE name <> {bare.format('name')}"
        f" AND {bare.format('lower(name)')} = ANY (ARRAY['d7.example', '*'])",
    )
    assert "ix_domain_padded_name" in found
    assert "Seq Scan" not in found


def test_mariadb_finds_a_domain_and_its_servers_by_index(migrated_mariadb: str) -> None:
    fill(migrated_mariadb)
    with connected(migrated_mariadb) as connection:
        assert (
            connection.scalar(sa.text(f"SELECT COUNT(*) FROM ({BY_NAME.format('name')}) AS d")) == 1
        )
    assert "table=domain type=range possible_keys=name key=name" in plan(
        migrated_mariadb, BY_NAME.format("name")
    )
    for query, server in ((SERVERS, "server"), (DAV_SERVERS, "davserver")):
        found = plan(migrated_mariadb, query)
        assert re.search(f"table={server}_domain type=ref .* key=domain_id .*ref=const", found), (
            found
        )


# MariaDB's collations and indexes


def mariadb_indexes(db_uri: str, table: str) -> list[str]:
    with connected(db_uri) as connection:
        return sorted(str(i["name"]) for i in sa.inspect(connection).get_indexes(table))


def collation(db_uri: str) -> str:
    with connected(db_uri) as connection:
        column = connection.execute(sa.text("SHOW FULL COLUMNS FROM domain LIKE 'name'"))
        return str(column.mappings().one()["Collation"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "utf8mb4_general_ci"),
        ("CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", "utf8mb4_unicode_ci"),
        ("CHARACTER SET utf8mb3 COLLATE utf8mb3_bin", "utf8mb3_general_ci"),
        ("CHARACTER SET latin1 COLLATE latin1_general_cs", "latin1_general_ci"),
    ],
)
def test_names_of_an_adopted_mariadb_database_are_found_in_any_case(
    mariadb_instance: Instance, options: str, expected: str
) -> None:
    uri = mariadb_instance.new_database(options)
    make_automx2_database(uri, "2020.12")
    before = rows(uri)

    upgrade(uri)

    assert rows(uri)["domain"] == before["domain"]
    assert collation(uri) == expected
    assert mariadb_indexes(uri, "domain") == ["ldapserver_id", "name", "provider_id"]
    with connected(uri) as connection:
        query = sa.text("SELECT id FROM domain WHERE name IN ('example.com')")
        assert connection.scalars(query).all() == [50]
    definition = r"`name` varchar\(128\)[^,]* NOT NULL"
    assert re.search(definition, dump(uri, schema_only=True))


@pytest.mark.parametrize("charset", ["latin1 COLLATE latin1_bin", "utf8mb4 COLLATE utf8mb4_bin"])
def test_a_new_mariadb_schema_does_not_depend_on_the_default_collation(
    mariadb_instance: Instance, charset: str
) -> None:
    uri = mariadb_instance.new_database(f"CHARACTER SET {charset}")
    upgrade(uri)
    assert collation(uri) == "utf8mb4_general_ci"
    with connected(uri) as connection:
        connection.execute(sa.text("INSERT INTO provider VALUES (1, 'Пример', 'Пример')"))
        connection.execute(sa.text("INSERT INTO domain VALUES (1, 'пример.example', 1, NULL)"))
    assert rows(uri)["domain"][0]["name"] == "пример.example"


def test_names_that_only_case_tells_apart_are_named_before_mariadb_changes_anything(
    mariadb_instance: Instance,
) -> None:
    uri = mariadb_instance.new_database("COLLATE utf8mb4_bin")
    make_automx2_database(uri, "2026.2")
    with connected(uri) as connection:
        connection.execute(sa.text("INSERT INTO domain VALUES (52, 'example.com', 100, NULL)"))
    before = rows(uri)

    with pytest.raises(ConflictError) as caught:
        upgrade(uri)

    assert str(caught.value) == (
        "The table domain holds names that differ in case or accents only:"
        " Example.COM,example.com. Keep one of each, then upgrade again."
    )
    assert rows(uri) == before
    assert current(uri) is None
    with connected(uri) as connection:
        connection.execute(sa.text("DELETE FROM domain WHERE id = 52"))
    assert upgrade(uri) == REVISIONS


def test_mariadb_gets_no_second_index_beside_that_of_a_foreign_key(mariadb: str) -> None:
    upgrade(mariadb)
    assert mariadb_indexes(mariadb, "server_domain") == ["domain_id"]
    assert mariadb_indexes(mariadb, "davserver_domain") == ["domain_id"]
    assert mariadb_indexes(mariadb, "domain") == ["ldapserver_id", "name", "provider_id"]
    assert mariadb_indexes(mariadb, "account") == [
        *("address", "ix_account_expires_at", "ix_account_token_id"),
    ]
    assert mariadb_indexes(mariadb, "documentation") == ["ix_documentation_provider_id"]


def test_a_database_of_mariadb_whose_tables_know_no_references_is_adopted(
    mariadb: str,
) -> None:
    make_automx2_database(mariadb, "2026.2")
    with connected(mariadb) as connection:
        inspector = sa.inspect(connection)
        for table in AUTOMX2_COLUMNS:
            for key in inspector.get_foreign_keys(table):
                drop = f"ALTER TABLE {table} DROP FOREIGN KEY {key['name']}"
                connection.execute(sa.text(drop))
        for table in AUTOMX2_COLUMNS:
            connection.execute(sa.text(f"ALTER TABLE {table} ENGINE=MyISAM"))
    before = rows(mariadb)

    assert upgrade(mariadb) == REVISIONS

    assert columns(mariadb) == COLUMNS
    assert {table: rows(mariadb)[table] for table in before} == before
    with connected(mariadb) as connection:
        connection.execute(sa.text(INSERT_DETAIL.format(100)))
        connection.execute(sa.text(INSERT_PAGE.format(1, 100)))
        connection.execute(sa.text("DELETE FROM provider_detail"))
    assert rows(mariadb)["documentation"] == []


def test_mariadb_gets_the_indexes_where_there_are_no_foreign_keys(mariadb: str) -> None:
    with connected(mariadb) as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE server_domain (server_id INTEGER NOT NULL,"
                " domain_id INTEGER NOT NULL, PRIMARY KEY (server_id, domain_id))"
            )
        )
    upgrade(mariadb)
    assert mariadb_indexes(mariadb, "server_domain") == ["ix_server_domain_domain_id"]


# As SQL, and on the command line


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_the_printed_schema_loads_and_equals_an_upgrade(
    engine: str, new_database: Callable[[str], str]
) -> None:
    loaded, upgraded = new_database(engine), new_database(engine)
    upgrade(upgraded)
    dialect = "mysql" if engine == "mariadb" else engine
    sql = automx("db", "schema", "--dialect", dialect, env={"AUTOMX_CONF": "/dev/null"})
    url = make_url(engine_uri(loaded))
    match engine:
        case "sqlite":
            command = [program("sqlite3", "sqlite3"), "-bail", str(url.database)]
        case "postgresql":
            command = [program("psql", "postgresql-client"), "--no-psqlrc", "--quiet"]
            command += ["--set=ON_ERROR_STOP=1", "--username=postgres"]
            command += [f"--host={url.query['host']}", str(url.database)]
        case _:
            command = [program("mariadb", "mariadb-client"), "--no-defaults", "--user=root"]
            command += [f"--socket={url.query['unix_socket']}", str(url.database)]

    assert run(command, sql) == ""

    assert dump(loaded) == dump(upgraded)
    assert upgrade(loaded) == []
    assert_usable(loaded)


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(
        BadRequestError, match="no dialect oracle: choose sqlite, mysql, postgresql"
    ):
        migrations.schema_sql("oracle")


def test_the_commands_tell_in_a_line_what_they_did(any_database_uri: str) -> None:
    make_automx2_database(any_database_uri, "2020.0")
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_database_uri}
    head = REVISIONS[-1]

    assert automx("db", "current", env=env) == "none (run automx db upgrade)\n"
    assert automx("db", "upgrade", env=env) == (
        "".join(f"Upgraded to {revision}: {title}\n" for revision, title in TITLES.items())
        + f"The database is up to date ({head}).\n"
    )
    assert automx("db", "upgrade", env=env) == f"The database is up to date ({head}).\n"
    assert automx("db", "current", env=env) == f"{head} (up to date)\n"
    assert automx("db", "downgrade", "0001", env=env) == (
        "".join(f"Undone {revision}: {TITLES[revision]}\n" for revision in REVISIONS[:0:-1])
        + "The database is at 0001.\n"
    )
    assert automx("db", "downgrade", "base", env=env) == (
        f"Undone 0001: {TITLES['0001']}\nThe database is at base.\n"
    )


@pytest.mark.parametrize("command", [["upgrade"], ["downgrade", "base"], ["current"]])
def test_a_command_that_fails_says_why_in_one_line(command: list[str]) -> None:
    uri = "postgresql://u:s3cret@127.0.0.1:1/db"

    result = attempt("db", *command, env={"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri})

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("automx: ")
    assert result.stderr.count("\n") == 1
    assert "postgresql database db on 127.0.0.1: " in result.stderr
    assert "s3cret" not in result.stderr


def test_alembic_keeps_quiet_also_where_everything_is_logged(
    sqlite: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    upgrade(sqlite)
    downgrade(sqlite)
    assert [record.name for record in caplog.records if record.name.startswith("alembic")] == []
    assert capfd.readouterr() == ("", "")


def test_a_database_in_memory_is_told_what_it_is_worth() -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": "sqlite:///:memory:"}
    assert automx("db", "upgrade", env=env) == (
        "There is nothing to upgrade: the database is in memory.\n"
        "The web server makes its tables at each start, and loses all data at its end.\n"
    )
    told = (
        "automx: the database of db_uri is in memory: only the web server has it, until it ends\n"
    )
    for command in (("db", "current"), ("db", "downgrade", "base"), ("seed", "--sample")):
        result = attempt(*command, env=env)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", told)


# What automx2 of 2019 made, on the two engines that its tables were for.
TABLES_OF_2019 = """
CREATE TABLE provider (id {key}, name VARCHAR NOT NULL, short_name VARCHAR NOT NULL);
CREATE TABLE server (id {key}, port INTEGER NOT NULL, type VARCHAR NOT NULL, name VARCHAR NOT NULL,
  socket_type VARCHAR NOT NULL, user_name VARCHAR NOT NULL, authentication VARCHAR NOT NULL);
CREATE TABLE domain (id {key}, provider_id INTEGER NOT NULL REFERENCES provider (id),
  name VARCHAR NOT NULL UNIQUE);
CREATE TABLE server_domain (server_id INTEGER NOT NULL REFERENCES server (id),
  domain_id INTEGER NOT NULL REFERENCES domain (id), PRIMARY KEY (server_id, domain_id));
INSERT INTO provider VALUES (1000, 'Big Corporation, Inc.', 'BigCorp');
INSERT INTO server VALUES (3001, 587, 'smtp', 'smtp.example.com', 'STARTTLS', '%EMAILADDRESS%', 'plain');
INSERT INTO server VALUES (3002, 143, 'imap', 'imap.example.com', 'STARTTLS', '%EMAILADDRESS%', 'plain');
INSERT INTO domain VALUES (0, 1000, 'example.com');
INSERT INTO server_domain VALUES (3001, 0), (3002, 0)
"""  # noqa: E501 - rows are easier to compare when each stands on one line


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_database_of_2019_is_adopted(new_database: Callable[[str], str], engine: str) -> None:
    uri = new_database(engine)
    key = {"sqlite": "INTEGER NOT NULL PRIMARY KEY", "postgresql": "SERIAL PRIMARY KEY"}[engine]
    with connected(uri) as connection:
        for statement in TABLES_OF_2019.format(key=key).split(";"):
            connection.execute(sa.text(statement))
    assert upgrade(uri) == REVISIONS
    found = columns(uri)
    assert {name: found[name] for name in AUTOMX2_COLUMNS} == AUTOMX2_COLUMNS
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": engine_uri(uri)}
    expected = (
        "a@example.com, Big Corporation, Inc.\n"
        "IMAP  imap.example.com  port 143  STARTTLS  login a@example.com  password-cleartext\n"
        "SMTP  smtp.example.com  port 587  STARTTLS  login a@example.com  password-cleartext\n"
    )
    assert automx("show", "a@example.com", env=env) == expected
    with connected(uri) as connection:
        references = sa.inspect(connection).get_foreign_keys("domain")
        assert {tuple(key["constrained_columns"]) for key in references} == {
            ("provider_id",),
            ("ldapserver_id",),
        }
        connection.execute(sa.text(BY_POSITION))
        connection.exec_driver_sql("INSERT INTO domain VALUES (1, 'example.net', 1000, NULL)")
        with pytest.raises(sa.exc.IntegrityError):
            connection.exec_driver_sql("INSERT INTO domain VALUES (2, 'example.net', 1000, NULL)")
    assert upgrade(uri) == []


def test_the_command_alembic_works_by_itself_in_a_checkout(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copytree(REPOSITORY / "alembic", tmp_path / "alembic")
    uri = f"sqlite:///{tmp_path}/var/try.sqlite"
    env = {**os.environ, "AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}

    def alembic(*arguments: str) -> str:
        command: list[str | Path] = [AUTOMX.with_name("alembic"), *arguments]
        result = subprocess.run(
            command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        )
        return result.stdout

    alembic("upgrade", "head")
    assert alembic("current") == f"{REVISIONS[-1]} (head)\n"
    assert migrations.current(uri) == REVISIONS[-1]
    history = [line.split("-> ")[1] for line in alembic("history").splitlines()]
    assert history == [
        f"{revision}{' (head)' * (revision == REVISIONS[-1])}, {TITLES[revision]}."
        for revision in reversed(REVISIONS)
    ]
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"^alembic (.*)$", contributing, re.MULTILINE)
    assert shown[0].startswith("revision ")
    for arguments in shown:  # a new revision, upgrade, and downgrade to the last one of ours
        alembic(*shlex.split(arguments))
    assert alembic("current") == f"{REVISIONS[-1]}\n"
    alembic("upgrade", "head")
    assert alembic("current") == f"{int(REVISIONS[-1]) + 1:04} (head)\n"
    alembic("downgrade", "0001")
    assert alembic("current") == "0001\n"
    assert alembic("upgrade", "0001:0002", "--sql").count("CREATE TABLE") == 2


def test_the_command_alembic_tells_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    env = {**os.environ, "AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": "sqlite:///:memory:"}
    result = subprocess.run(
        [AUTOMX.with_name("alembic"), "current"],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    told = "the database of db_uri is in memory: only the web server has it, until it ends"
    assert (result.returncode != 0, result.stdout.strip()) == (True, f"FAILED: {told}")
