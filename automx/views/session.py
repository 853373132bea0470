"""The session of a request, on an engine of Flask-SQLAlchemy."""

from flask import Flask, g
from flask_sqlalchemy import SQLAlchemy

from automx.database import (
    Session,
    driver_errors,
    drop_stale_connections,
    engine_options,
    existing_file_uri,
    is_in_memory,
    read_any_text,
)
from automx.migrations import create_in_memory
from automx.models import metadata

db = SQLAlchemy(metadata=metadata)


def register(app: Flask, db_uri: str, *, echo: bool) -> None:
    """Let the requests of an application use a database; ``echo`` logs each statement.

    A database in memory gets its tables now. Raises SettingsError for a bad ``db_uri``.
    """
    app.config["SQLALCHEMY_DATABASE_URI"] = existing_file_uri(db_uri)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(db_uri)
    app.config["SQLALCHEMY_ECHO"] = echo
    with driver_errors(db_uri):
        db.init_app(app)
    with app.app_context():
        drop_stale_connections(db.engine)
        read_any_text(db.engine)
        if is_in_memory(db_uri):
            with db.engine.begin() as connection:
                create_in_memory(connection)
    app.teardown_appcontext(_close)


def current_session() -> Session:
    """Return the session of this request. What is not committed is rolled back at its end."""
    if "session" not in g:
        g.session = Session(db.engine)
    session: Session = g.session
    return session


def _close(_: BaseException | None) -> None:
    if "session" in g:
        g.pop("session").close()
