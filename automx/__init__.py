"""automx sets up mail clients from one database: Autoconfig, Autodiscover, Mobileconfig."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from automx.config import Settings

__version__ = "1.0.0"


def create_app(settings: "Settings | None" = None) -> "Flask":
    """Return the web application for some settings, by default those of files and environment.

    Raises SettingsError if the settings are wrong. Imports are made here to keep ``automx --help``
    quick.
    """
    from flask import Flask

    from automx import backends, cache, config, database, views
    from automx.directory import pool
    from automx.views import dcaccount, http, limits, log
    from automx.views.session import db

    settings = settings or config.load()
    log.write(settings)
    app = Flask(__name__, static_folder=None)
    app.config["AUTOMX"] = settings
    app.config["MAX_CONTENT_LENGTH"] = http.MAX_BODY
    app.config["SQLALCHEMY_DATABASE_URI"] = database.existing_file_uri(settings.db_uri)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = database.engine_options(settings.db_uri)
    app.config["SQLALCHEMY_ECHO"] = settings.db_echo
    app.extensions[http.DIRECTORIES] = pool.Directories(settings.directory)
    app.extensions[http.CACHE] = cache.ConfigCache(settings.domain_cache_seconds)
    app.extensions[dcaccount.BACKENDS] = backends.Backends(settings.accounts)
    app.extensions[limits.LIMITS] = limits.Limits(settings.limits)
    if settings.signing.certificate:
        from automx import signing  # its library takes some MiB

        app.extensions[http.SIGNER] = signing.Signer(settings.signing)
    with database.driver_errors(settings.db_uri):
        db.init_app(app)
    with app.app_context():
        database.drop_stale_connections(db.engine)
    views.register(app, settings)
    return app
