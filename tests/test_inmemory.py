"""Databases in memory are told by their URIs, as SQLite and SQLAlchemy see them."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy

from automx.inmemory import is_in_memory

URIS = {
    "sqlite://": True,
    "sqlite:///": True,
    "sqlite:///:memory:": True,
    "sqlite+pysqlite:///:memory:?timeout=5": True,
    "sqlite:///file::memory:?cache=shared&uri=true": True,
    "sqlite:///file:name?mode=memory&cache=shared&uri=true": True,
    "sqlite:///file:name?mode=rwc&uri=true": False,
    "sqlite:///{folder}/memory.sqlite": False,
    "sqlite:///{folder}/:memory:": False,
    "sqlite:///{folder}/a.sqlite?timeout=5": False,
    "sqlite+pysqlite:///{folder}/file:x": False,
    "sqlite:///name": False,
}


@pytest.mark.parametrize("uri", URIS)
def test_a_database_in_memory_has_no_file(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = uri.format(folder=tmp_path)
    engine = sqlalchemy.create_engine(whole, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE a (b)")
        [(_, _, file)] = connection.exec_driver_sql("PRAGMA database_list").all()
    engine.dispose()
    assert (not Path(file).is_file()) == URIS[uri]
    assert is_in_memory(whole) == URIS[uri]


@pytest.mark.parametrize("uri", ["postgresql://a/b?mode=memory", "mysql://", ":memory:", ""])
def test_no_other_database_is_in_memory(uri: str) -> None:
    assert not is_in_memory(uri)


def test_to_tell_it_no_library_of_databases_is_loaded() -> None:
    code = (
        "import sys, automx.inmemory, automx.cli.scheduler; assert 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
