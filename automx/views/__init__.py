"""HTTP: one module for each protocol reads requests, asks for settings, and sends documents."""

from flask import Flask

from automx import edge
from automx.config import Settings
from automx.views import (
    autoconfig,
    autodiscover,
    autodiscoverjson,
    failure,
    health,
    http,
    initdb,
    languages,
    mobileconfig,
    pacc,
    pagefiles,
    paths,
    root,
    site,
    tls,
    wellknown,
)


def register(app: Flask, settings: Settings) -> None:
    """Add all protocols and pages to an application."""
    # Paths are answered with and without a slash at the end: a redirect would name the host that a
    # stranger claims, and caches keep it. Delta Chat does not follow one.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # paths.py does it
    app.before_request(http.refuse_malformed)
    for module in (
        autoconfig,
        autodiscover,
        autodiscoverjson,
        mobileconfig,
        pacc,
        wellknown,
        initdb,
        health,
        pagefiles,
        tls,
        site,
    ):
        app.register_blueprint(module.blueprint)
    app.register_blueprint(root.make_blueprint(settings.web_endpoint))
    app.register_error_handler(Exception, failure.handler(failure.as_text))
    app.before_request(failure.raise_found)
    languages.load()
    # The way Flask's documentation shows.
    wsgi_app = edge.reading(paths.tolerant(app.wsgi_app), settings.proxy_count)
    app.wsgi_app = wsgi_app  # type: ignore[assignment, method-assign]
