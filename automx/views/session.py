"""The session of a request, on an engine of Flask-SQLAlchemy."""

from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, current_app, g, has_app_context
from flask_sqlalchemy import SQLAlchemy

from automx import trace
from automx.config import Settings
from automx.counts import Sample
from automx.database import (
    Session,
    Spares,
    Turns,
    driver_errors,
    drop_stale_connections,
    engine_options,
    existing_file_uri,
    is_in_memory,
    name_denied_file,
    read_any_text,
    reading_options,
    report_unreadable_answers,
)
from automx.database.reading import Reading, turns_of_replica
from automx.models import metadata

if TYPE_CHECKING:
    from automx.accounts.keystates import KeyStates

db = SQLAlchemy(metadata=metadata)

TURNS = "automx.turns"  # the key of the Turns in app.extensions
REPLICA_TURNS = "automx.turns.replica"  # that of the replica's, if there is one
_READING, _REPLICA = "reading", "replica"  # the names of further engines


def register(app: Flask, settings: Settings) -> Reading:
    """Let the requests of an application use the database of the settings.

    A database in memory gets its tables now. Return where look-ups are read. Raises SettingsError
    for a bad ``db_uri`` or ``db_read_uri``.
    """
    db_uri, seconds = settings.db_uri, settings.db_timeout
    app.config["SQLALCHEMY_DATABASE_URI"] = existing_file_uri(db_uri)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(db_uri, seconds)
    app.config["SQLALCHEMY_ECHO"] = settings.db_echo
    uris = {_REPLICA: settings.db_read_uri} if settings.db_read_uri else {}
    if not is_in_memory(db_uri):  # which has one connection only
        uris[_READING] = app.config["SQLALCHEMY_DATABASE_URI"]
    app.config["SQLALCHEMY_BINDS"] = {
        name: {**reading_options(uri, seconds), "url": uri, "echo": settings.db_echo}
        for name, uri in uris.items()
    }
    with driver_errors(db_uri):
        db.init_app(app)
    with app.app_context():
        turns = app.extensions[TURNS] = Turns(db.engine, seconds)
        for engine in db.engines.values():
            drop_stale_connections(engine)
            read_any_text(engine)
            name_denied_file(engine)
            report_unreadable_answers(engine)
        if is_in_memory(db_uri):
            from automx.migrations import create_in_memory

            with db.engine.begin() as connection:
                create_in_memory(connection)
        primary = partial(_only_session, turns)
        if _READING in uris:
            engine = db.engines[_READING]
            turns.watch(engine)
            primary = partial(Session, engine, turns, Spares(engine))
        replica = None
        if _REPLICA in uris:
            replica = turns_of_replica(db.engines[_REPLICA], seconds)
            app.extensions[REPLICA_TURNS] = replica
    app.teardown_appcontext(_close)
    return Reading(primary, replica)


def _only_session(turns: Turns) -> Session:
    """Return that of this request, if there is one: another would wait for its connection."""
    return current_session() if has_app_context() else Session(turns.engine, turns)


def gauges(app: Flask) -> list[Sample]:
    """Return samples of the moment, for metrics."""
    turns: Turns = app.extensions[TURNS]
    samples: list[Sample] = [
        ("automx_database_turns", (), turns.used),
        ("automx_database_away", (), float(turns.is_away)),
    ]
    if (replica := app.extensions.get(REPLICA_TURNS)) is not None:
        samples.append(("automx_replica_away", (), float(replica.is_away)))
    return samples


def new_session() -> Session:
    """Return a session whose transactions are limited by the settings."""
    trace.mark(trace.DATABASE)
    return Session(db.engine, current_app.extensions[TURNS])


def key_states() -> "KeyStates":
    """Return what all processes know of the keys of backends."""
    from automx.accounts.keystates import KeyStates  # few workers make accounts

    return KeyStates(new_session)


def current_session() -> Session:
    """Return the session of this request. What is not committed is rolled back at its end."""
    if "session" not in g:
        g.session = new_session()
    session: Session = g.session
    return session


def _close(_: BaseException | None) -> None:
    if "session" in g:
        g.pop("session").close()
