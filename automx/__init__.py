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
    from functools import partial

    from flask import Flask

    from automx import api, backends, cache, changelog, config, counts, log, views
    from automx.database import is_in_memory
    from automx.directory import pool
    from automx.views import drawings, http, limits, session
    from automx.views import log as requests

    settings = settings or config.load()
    log.write(settings)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = http.MAX_BODY
    counted = counts.Counts()
    answered = requests.Answered(settings, counted)
    signer = None
    if settings.signing.certificate:
        from automx import signing  # its library takes some MiB

        signer = signing.Signer(settings.signing)
    reading = session.register(app, settings)
    seconds = settings.domain_cache_seconds
    memory = cache.ConfigCache(seconds, stale_seconds=settings.stale_seconds)
    follower = None
    if seconds and not is_in_memory(settings.db_uri):  # which no other process can change
        follower = changelog.Follower(reading, memory)
    app.extensions[http.PARTS] = http.Parts(
        settings,
        reading,
        memory,
        follower,
        pool.Directories(settings.directory, settings.sources, counts=counted),
        backends.Backends(settings.accounts, session.key_states, counted),
        limits.Limits(settings.limits, counted),
        drawings.Drawings(),
        signer,
        answered,
        counted,
    )
    counted.gauges.append(app.extensions[http.PARTS].gauges)
    counted.gauges.append(partial(session.gauges, app))
    requests.register(app, answered)
    api.register(app)
    views.register(app, settings)
    return app
