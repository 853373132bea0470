"""The session of a request, on an engine of Flask-SQLAlchemy."""

from collections.abc import Callable
from functools import partial

from flask import Flask, current_app, g, has_app_context
from flask_sqlalchemy import SQLAlchemy

from automx.config import Settings
from automx.database import (
    Session,
    Turns,
    driver_errors,
    drop_stale_connections,
    engine_options,
    existing_file_uri,
    is_in_memory,
    read_any_text,
    reading_options,
    report_unreadable_answers,
)
from automx.migrations import create_in_memory
from automx.models import metadata

db = SQLAlchemy(metadata=metadata)

TURNS = "automx.turns"  # the key of the Turns in app.extensions
_READING = "reading"  # the name of the second engine


def register(app: Flask, settings: Settings) -> Callable[[], Session]:
    """Let the requests of an application use the database of the settings.

    A database in memory gets its tables now. Return what makes a session for single queries, each
    of which sees what others have committed before it. Raises SettingsError for a bad ``db_uri``.
    """
    db_uri, seconds = settings.db_uri, settings.db_timeout
    app.config["SQLALCHEMY_DATABASE_URI"] = existing_file_uri(db_uri)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(db_uri, seconds)
    app.config["SQLALCHEMY_ECHO"] = settings.db_echo
    if not is_in_memory(db_uri):  # which has one connection only
        options = reading_options(db_uri, seconds)
        options |= {"url": app.config["SQLALCHEMY_DATABASE_URI"], "echo": settings.db_echo}
        app.config["SQLALCHEMY_BINDS"] = {_READING: options}
    with driver_errors(db_uri):
        db.init_app(app)
    with app.app_context():
        turns = app.extensions[TURNS] = Turns(db.engine, seconds)
        for engine in db.engines.values():
            drop_stale_connections(engine)
            read_any_text(engine)
            report_unreadable_answers(engine)
            if engine is not db.engine:
                turns.watch(engine)
        if is_in_memory(db_uri):
            with db.engine.begin() as connection:
                create_in_memory(connection)
        reading = db.engines.get(_READING)
    app.teardown_appcontext(_close)
    if reading is None:
        return partial(_only_session, turns)
    return partial(Session, reading, turns, is_reading=True)


def _only_session(turns: Turns) -> Session:
    """Return that of this request, if there is one: another would wait for its connection."""
    return current_session() if has_app_context() else Session(turns.engine, turns)


def new_session() -> Session:
    """Return a session whose transactions are limited by the settings."""
    return Session(db.engine, current_app.extensions[TURNS])


def current_session() -> Session:
    """Return the session of this request. What is not committed is rolled back at its end."""
    if "session" not in g:
        g.session = new_session()
    session: Session = g.session
    return session


def _close(_: BaseException | None) -> None:
    if "session" in g:
        g.pop("session").close()
