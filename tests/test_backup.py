"""Backups: all rows come back equal, from any database into any other one, or nothing does."""

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, make_url, select, text

from automx.backup import restore as restoring
from automx.backup import rows as writing
from automx.backup.file import Reader
from automx.changelog import last_number, read_since
from automx.errors import ConflictError
from automx.models import metadata
from automx.moments import this_second
from automx.rowmemory import EVERYTHING
from tests.backups import (
    CHANGES,
    ROWS,
    TABLES,
    Dump,
    dump,
    environment,
    fill,
    insert,
    is_without_rows,
    opened,
    sample_row,
)
from tests.commandline import attempt, automx
from tests.databases import ENGINES, Instance, engine_uri
from tests.test_migrations import REVISIONS
from tests.test_seed import peak_memory


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Dump]]:
    """Backups of filled databases, and what these hold, by engine; a test adds what is missing."""
    return {}


# From each engine to each engine.


@pytest.mark.parametrize("source", ENGINES)
def test_each_database_comes_back_in_each_other(
    request: pytest.FixtureRequest,
    backups: dict[str, tuple[Path, Dump]],
    source: str,
    target: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if source not in backups:
        folder = tmp_path_factory.mktemp(source)
        uri = f"sqlite:///{folder}/automx.sqlite"
        if source != "sqlite":
            instance: Instance = request.getfixturevalue(f"{source}_instance")
            uri = instance.new_database()
        automx("db", "upgrade", env=environment(uri))
        fill(uri)
        path = folder / "automx.backup"
        assert automx("backup", path, env=environment(uri)) == f"Wrote {ROWS} rows.\n"
        backups[source] = path, dump(uri)
    path, before = backups[source]

    said = automx("restore", path, env=environment(target))

    assert said.startswith(f"Restored {ROWS} rows, as of 20")
    assert dump(target, is_restored=True) == before
    assert_new_rows_get_free_ids(target)
    # A second backup is the same but for its moment, the entry of the restoring, and the order of
    # texts, which each database has its own of.
    again = path.with_name("again")
    automx("backup", again, env=environment(target))
    lines, lines_again = (set(file.read_text().splitlines()[1:-1]) for file in (path, again))
    assert {line for line in lines - lines_again if not line.startswith("[1,")} == set()


def assert_new_rows_get_free_ids(uri: str) -> None:
    with opened(uri) as session:
        for table in TABLES:
            if table.autoincrement_column is None:
                continue
            row = sample_row(table)
            del row["id"]
            row |= {c.name: f"new {c.name}" for c in table.columns if c.unique}
            highest = max(session.scalars(select(table.c.id)))
            insert(session, table.name, row)
            assert max(session.scalars(select(table.c.id))) == highest + 1, table.name
        session.rollback()


def test_an_id_of_zero_stays_zero(filled: Path, target: str, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(filled)) as connection:
        connection.execute("INSERT INTO provider VALUES (0, 'Zero', 'Zero'), (-3, 'Less', 'Less')")
        connection.commit()
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{filled}"))
    automx("restore", path, env=environment(target))
    assert dump(target, is_restored=True) == dump(f"sqlite:///{filled}")


def test_a_fraction_of_a_second_is_kept_where_the_database_can_hold_it(
    database: Path, target: str, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "INSERT INTO audit VALUES (1, '2026-11-30 10:00:00', 'a', 'add', 'k', 'n', '{}'),"
            " (2, '2026-11-30 10:00:00.75', 'a', 'add', 'k', 'n', '{}'),"
            " (3, '2026-11-30 12:00:00+02:00', 'a', 'add', 'k', 'n', '{}')"
        )
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{database}"))
    automx("restore", path, env=environment(target))
    with opened(target) as session:
        query = text("SELECT at FROM audit WHERE id < 4 ORDER BY id")
        found = [str(value) for value in session.execute(query).scalars()]
    fraction = "" if target.startswith("mysql") else ".750000"
    whole = ".000000" if target.startswith("sqlite") else ""
    moment = "2026-11-30 10:00:00"
    assert found == [f"{moment}{whole}", f"{moment}{fraction}", f"{moment}{whole}"]


# Values that only SQLite lets into a column.

ODD = """
INSERT INTO provider VALUES (1, X'ff00', 'A'), (2, CAST(X'ff' AS TEXT), 'B');
INSERT INTO server VALUES (1, 10, 'a', 'many', 'imap', 'SSL', '', ''),
    (2, 1.5, 'b', 99999999999, 'imap', 'SSL', '', ''), (3, 9e999, 'c', X'00', '', '', '', '');
INSERT INTO davserver VALUES (1, 'u', 0, 'caldav', 2, 'yes', NULL);
INSERT INTO domain VALUES (1, 'no.example', 99, 98);
INSERT INTO disabled_domain VALUES (97, 'yesterday');
INSERT INTO provider_detail (provider_id, logo) VALUES (1, 'no bytes'), (2, 7);
"""


def with_types(path: Path) -> Dump:
    """Return the values of all tables with their types in SQLite; texts in hexadecimal digits."""
    found: Dump = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in ("provider", "server", "davserver", "domain", "disabled_domain",
                      "provider_detail"):  # fmt: skip
            columns = [f"typeof({c.name}), hex({c.name})" for c in metadata.tables[table].columns]
            found[table] = connection.execute(
                f"SELECT {', '.join(columns)} FROM {table}"
            ).fetchall()
    return found


def test_odd_values_of_sqlite_come_back_in_sqlite(
    database: Path, tmp_path: Path, new: str, execute: Callable[[str], None]
) -> None:
    execute(ODD)
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{database}"))
    automx("restore", path, env=environment(new))
    before, after = with_types(database), with_types(Path(new.removeprefix("sqlite:///")))
    # A text that is not UTF-8 is bytes for automx, and comes back as bytes.
    assert before["provider"][1][2] == "text"
    before["provider"][1] = tuple(
        "blob" if i == 2 else v for i, v in enumerate(before["provider"][1])
    )
    assert after == before


REFUSED = {
    "server VALUES (5, 10, 'a', 'many', 'imap', 'SSL', '', '')": (
        "server.port: expected a whole number below 2147483648, found 'text', which only SQLite"
        " may hold there\n"
    ),
    "server VALUES (5, 10, 'a', 9999999999, 'imap', 'SSL', '', '')": (
        "server.port: expected a whole number below 2147483648, found 9999999999\n"
    ),
    "provider VALUES (1, 'A', '123456789012345678901234567890123')": (
        "provider.short_name: expected a text of at most 32 characters"
    ),
    "davserver VALUES (1, 'u', 0, 'caldav', 2, 1, NULL)": (
        "davserver.use_ssl: expected true or false, found 'integer', which only SQLite may hold"
    ),
    "disabled_domain VALUES (1, 'yesterday')": (
        "disabled_domain.since: expected a moment in UTC, found 'text', which only SQLite may"
    ),
    "server_domain VALUES (1, 2)": (
        "the database refuses rows of the table server_domain, nothing was restored:"
    ),
}


@pytest.mark.parametrize("rows", REFUSED)
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_what_a_database_cannot_hold_is_named_and_nothing_is_restored(
    request: pytest.FixtureRequest,
    database: Path,
    execute: Callable[[str], None],
    tmp_path: Path,
    engine: str,
    rows: str,
) -> None:
    target: str = request.getfixturevalue(engine)
    reason = REFUSED[rows]
    execute(f"INSERT INTO {rows}")
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{database}"))
    result = attempt("restore", path, env=environment(target))
    assert (result.returncode, result.stdout) == (1, "")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    with opened(target) as session:  # only what the database itself finds needs the tables
        tables = inspect(session.connection()).get_table_names()
    assert bool(tables) == ("refuses" in reason)
    if tables:
        assert is_without_rows(target)


def test_names_that_mariadb_takes_for_one_are_refused(
    database: Path, execute: Callable[[str], None], mariadb: str, tmp_path: Path
) -> None:
    execute(
        "INSERT INTO provider VALUES (1, 'A', 'A');"
        "INSERT INTO domain VALUES (1, 'müller.example', 1, NULL), (2, 'MULLER.example', 1, NULL)"
    )
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{database}"))
    result = attempt("restore", path, env=environment(mariadb))
    assert result.returncode == 1
    assert "Duplicate entry 'MULLER.example'" in result.stderr
    assert is_without_rows(mariadb)


def test_a_text_with_u_0000_is_refused_by_postgresql_only(
    database: Path, execute: Callable[[str], None], target: str, tmp_path: Path
) -> None:
    execute("INSERT INTO provider VALUES (1, 'A' || char(0), 'A')")
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{database}"))
    result = attempt("restore", path, env=environment(target))
    assert result.returncode == int(target.startswith("postgresql"))
    if result.returncode:
        assert "provider.name: expected a text of at most 128 characters without U+0000" in (
            result.stderr
        )


def test_a_table_without_transactions_is_not_filled(
    backup: Path, migrated_mariadb: str, mariadb_instance: Instance
) -> None:
    name = migrated_mariadb.partition("localhost/")[2].partition("?")[0]
    mariadb_instance.sql("ALTER TABLE audit ENGINE = MyISAM", name)
    result = attempt("restore", backup, env=environment(migrated_mariadb))
    reason = "The table audit is of MyISAM, which has no transactions: restore into a new database"
    assert (result.returncode, result.stderr) == (1, f"automx: {reason}\n")
    assert is_without_rows(migrated_mariadb)


# Into an empty database only.


def test_a_database_with_a_row_in_any_table_is_left_as_it_is(backup: Path, new: str) -> None:
    env = environment(new)
    automx("db", "upgrade", env=env)
    for table in TABLES:
        with opened(new) as session:
            insert(session, table.name, sample_row(table))
            session.commit()
        result = attempt("restore", backup, env=env)
        reason = f"The database is not empty, the table {table.name} has rows"
        assert (result.returncode, result.stderr) == (
            1,
            f"automx: {reason}: restore into a new database\n",
        )
        with opened(new) as session:
            session.execute(table.delete())
            session.commit()
    assert is_without_rows(new)


def test_rows_of_the_moment_are_no_obstacle(backup: Path, filled: Path, target: str) -> None:
    env = environment(target)
    automx("db", "upgrade", env=env)
    with opened(target) as session:
        moment = "2026-11-30 10:00:00"
        for statement in (
            f"INSERT INTO lease VALUES ('prune', 'done', '{moment}')",
            f"INSERT INTO backend_key VALUES ('d', 'tried', '{moment}')",
            "INSERT INTO change_count VALUES (1, 1)",
            "INSERT INTO change_log VALUES (1, '*', '*')",
        ):
            session.execute(text(statement))
        session.commit()
    automx("restore", backup, env=env)
    assert dump(target, is_restored=True) == dump(f"sqlite:///{filled}")


def test_a_database_of_automx2_is_not_touched(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "automx2.sqlite"
    uri = f"sqlite:///{path}"
    automx("db", "upgrade", "0001", env=environment(uri))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE automx_version; INSERT INTO provider VALUES (1, 'A', 'A')"
        )
    before = path.read_bytes()
    result = attempt("restore", backup, env=environment(uri))
    assert result.returncode == 1
    assert "The database is not empty" in result.stderr
    assert path.read_bytes() == before
    result = attempt("backup", "-", env=environment(uri))
    assert result.stderr == "automx: the database holds no automx schema: run automx db upgrade\n"


def test_of_two_restorings_at_once_one_succeeds(backup: Path, filled: Path, target: str) -> None:
    uri = engine_uri(target)
    start = threading.Barrier(2)
    outcomes: list[object] = []

    def one() -> None:
        with backup.open("rb") as file:
            start.wait()
            try:
                outcomes.append(
                    restoring.restore(uri, Reader(file, "it"), actor="user:a", now=this_second())
                )
            except ConflictError as error:
                outcomes.append(str(error)[:25])

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [ROWS, "The database is not empty"]
    assert dump(uri, is_restored=True) == dump(f"sqlite:///{filled}")


KILLED = """
import os, signal, sys
from automx.backup import restore
from automx.cli import main
parts, times = restore._parts, []
def killed(backup, dialect):
    times.append(1)
    for number, part in enumerate(parts(backup, dialect)):
        if len(times) == 2 and part.table.name == "domain":  # the rows before are written
            os.kill(os.getpid(), signal.SIGKILL)
        yield part
restore._parts = killed
main(sys.argv[1:])
"""


def test_a_restoring_that_is_killed_leaves_an_empty_database(
    backup: Path, filled: Path, target: str
) -> None:
    env = environment(target)
    command = [sys.executable, "-c", KILLED, "restore", str(backup)]
    result = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGKILL, "", "")
    assert is_without_rows(target)
    automx("restore", backup, env=env)
    assert dump(target, is_restored=True) == dump(f"sqlite:///{filled}")


# While others work.


class Interfering(io.BytesIO):
    """An output; at the first row, another program writes into the database."""

    def __init__(self, interfere: Callable[[], None]) -> None:
        super().__init__()
        self.interfere: Callable[[], None] | None = interfere

    def write(self, data: Any) -> int:
        if bytes(data).startswith(b"[") and self.interfere:
            interfere, self.interfere = self.interfere, None
            interfere()
        return super().write(data)


def test_a_backup_is_of_one_moment_and_stops_nobody_who_writes(target: str, new: str) -> None:
    automx("db", "upgrade", env=environment(target))
    fill(target)
    before = dump(target)

    def interfere() -> None:
        with opened(target) as session:
            for statement in (
                "DELETE FROM account",
                "UPDATE server SET name = 'changed'",
                "INSERT INTO provider VALUES (100, 'Late', 'Late')",
            ):
                session.execute(text(statement))
            session.commit()

    output = Interfering(interfere)
    with opened(target) as session, writing.snapshot(session) as snapshot:
        rows = writing.write(snapshot, output, version="1.0.0", now=this_second(), warn=pytest.fail)
    assert output.interfere is None
    assert rows == ROWS
    output.seek(0)
    restored = f"{new}.restored"
    restoring.restore(restored, Reader(output, "it"), actor="user:a", now=this_second())
    assert dump(restored, is_restored=True) == before


def test_workers_forget_all_whatever_number_of_changes_they_know(backup: Path, new: str) -> None:
    automx("restore", backup, env=environment(new))
    with opened(new) as session:
        last = last_number(session)
        assert last == CHANGES + 1_000_001
        for known in (0, 1, CHANGES - 1, CHANGES, CHANGES + 1, CHANGES + 500, 5_000_000):
            assert read_since(session, known) == (last, EVERYTHING)


def test_a_restoring_is_an_entry_of_the_audit(backup: Path, new: str) -> None:
    automx("restore", backup, env=environment(new))
    audit = metadata.tables["audit"]
    with opened(new) as session:
        [entry] = session.execute(select(audit).where(audit.c.action == "restore"))
    assert (entry.id, entry.kind, entry.name) == (8, "", "")
    assert entry.actor.startswith("user:")
    header = json.loads(backup.read_text().splitlines()[0])
    assert json.loads(entry.details) == {
        "backup": {name: header[name] for name in ("version", "revision", "made_at")},
        "numbers": {"restore": {"rows": ROWS}},
    }


# Other releases, other columns.


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_an_older_schema_gives_what_an_upgrade_gives(
    revision: str, tmp_path: Path, new: str
) -> None:
    old = f"sqlite:///{tmp_path}/old.sqlite"
    path = tmp_path / "old.backup"
    automx("db", "upgrade", revision, env=environment(old))
    fill(old)
    automx("backup", path, env=environment(old))
    assert json.loads(path.read_text().splitlines()[0])["revision"] == revision

    automx("restore", path, env=environment(new))

    automx("db", "upgrade", env=environment(old))
    assert dump(new, is_restored=True) == dump(old)


def test_a_database_of_a_newer_automx_is_not_backed_up(database: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE automx_version SET version_num = '0999'")
        connection.commit()
    path = tmp_path / "automx.backup"
    result = attempt("backup", path, env=environment(f"sqlite:///{database}"))
    assert (result.returncode, result.stderr) == (
        1,
        "automx: the database schema belongs to a newer automx: install that version\n",
    )
    assert not path.exists()


def test_columns_that_somebody_has_added_are_named(
    database: Path, execute: Callable[[str], None], tmp_path: Path
) -> None:
    execute("ALTER TABLE server ADD COLUMN note TEXT; CREATE TABLE notes (id INTEGER)")
    result = attempt("backup", tmp_path / "it", env=environment(f"sqlite:///{database}"))
    assert (result.returncode, result.stderr) == (
        0,
        "automx: the column note of the table server is not automx's, and is left out\n",
    )


def test_a_locked_database_is_told_and_not_waited_for_for_ever(
    database: Path, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        uri = f"sqlite:///{database}?timeout=0.1"
        result = attempt("backup", tmp_path / "it", env=environment(uri))
    assert (result.returncode, result.stderr) == (1, "automx: database: database is locked\n")


def test_memory_does_not_grow_with_the_number_of_rows_and_their_size(
    backup: Path, database: Path, execute: Callable[[str], None], new: str, tmp_path: Path
) -> None:
    uri = f"sqlite:///{database}"
    backing = peak_memory("backup", tmp_path / "few", env=environment(uri))
    restoring_few = peak_memory("restore", backup, env=environment(f"{new}.few"))
    numbers = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    execute(
        f"{numbers.format(899)} INSERT INTO provider SELECT i, 'a', 'b' FROM n;"
        "INSERT INTO provider_detail (provider_id, logo) SELECT id, randomblob(60000)"
        " FROM provider WHERE id >= 100;"
        f"{numbers.format(5099)}"
        " INSERT INTO domain SELECT i, 'customer-' || i || '.example.com', 1, NULL FROM n;"
        "INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain"
        " WHERE domain.id >= 100"
    )
    many = tmp_path / "many"
    backing_many = peak_memory("backup", many, env=environment(uri))
    restoring_many = peak_memory("restore", many, env=environment(new))
    count = text(
        "SELECT (SELECT count(*) FROM domain) + (SELECT count(*) FROM server_domain)"
        " + (SELECT sum(length(logo)) FROM provider_detail)"
    )
    with opened(uri) as before, opened(new) as after:
        assert after.scalar(count) == before.scalar(count) > 48_020_000
    assert backing_many - backing < 24_000_000
    assert restoring_many - restoring_few < 24_000_000


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_user_who_may_only_read_backs_up_and_cannot_restore(
    request: pytest.FixtureRequest, engine: str, backup: Path, tmp_path: Path
) -> None:
    instance: Instance = request.getfixturevalue(f"{engine}_instance")
    uri = instance.new_migrated_database()
    name = make_url(engine_uri(uri)).database or ""
    if engine == "postgresql":
        instance.sql(
            "CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
            name,
        )
        reader = environment(uri.replace("postgres@", "reader@"))
    else:
        instance.sql(f"CREATE USER reader; GRANT SELECT ON {name}.* TO reader")
        reader = environment(uri.replace("root@", "reader@"))
    try:
        assert automx("backup", tmp_path / "it", env=reader) == "Wrote 0 rows.\n"
        result = attempt("restore", backup, env=reader)
        assert result.returncode == 1
        assert result.stderr.startswith("automx: database: ")
        assert "denied" in result.stderr
        assert result.stderr.count("\n") == 1
    finally:
        instance.sql(
            "DROP OWNED BY reader; DROP ROLE reader"
            if engine == "postgresql"
            else "DROP USER reader",
            name,
        )
