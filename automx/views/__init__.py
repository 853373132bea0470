"""HTTP: one module for each protocol reads requests, asks for settings, and sends documents."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from automx.config import Settings
from automx.views import (
    autoconfig,
    autodiscover,
    autodiscoverjson,
    failure,
    health,
    initdb,
    log,
    mobileconfig,
    pacc,
    pagefiles,
    paths,
    root,
    site,
    wellknown,
)


def register(app: Flask, settings: Settings) -> None:
    """Add all protocols and pages to an application."""
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
        site,
    ):
        app.register_blueprint(module.blueprint)
    app.register_blueprint(root.make_blueprint(settings.web_endpoint))
    app.register_error_handler(Exception, failure.handler(failure.as_text))
    log.register(app)
    app.wsgi_app = paths.tolerant(app.wsgi_app)  # type: ignore[assignment, method-assign] # as below
    if n := settings.proxy_count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign] # the way Flask's documentation shows
            app.wsgi_app, x_for=n, x_proto=n, x_host=n, x_prefix=n
        )
