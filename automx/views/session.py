"""The session of a request."""

from flask import Flask, current_app, g

from automx.database import Session, create_engine, drop_stale_connections

ENGINE = "automx.engine"  # the key of the Engine in app.extensions


def register(app: Flask, db_uri: str, *, echo: bool) -> None:
    """Let the requests of an application use a database; ``echo`` logs each statement.

    Raises SettingsError for a bad ``db_uri``.
    """
    engine = app.extensions[ENGINE] = create_engine(db_uri, echo=echo)
    drop_stale_connections(engine)
    app.teardown_appcontext(_close)


def current_session() -> Session:
    """Return the session of this request. What is not committed is rolled back at its end."""
    if "session" not in g:
        g.session = Session(current_app.extensions[ENGINE])
    session: Session = g.session
    return session


def _close(_: BaseException | None) -> None:
    if "session" in g:
        g.pop("session").close()
