"""The edge: one module for each protocol, which parses, looks up and formats."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from automx.views import (
    autoconfig,
    autodiscover,
    autodiscoverjson,
    errors,
    health,
    initdb,
    log,
    mobileconfig,
    pacc,
    site,
    wellknown,
)


def register(app: Flask, proxy_count: int) -> None:
    """Add all pages to an application that stands behind so many proxies."""
    for module in (
        autoconfig,
        autodiscover,
        autodiscoverjson,
        mobileconfig,
        pacc,
        wellknown,
        initdb,
        health,
        site,
    ):
        app.register_blueprint(module.blueprint)
    errors.register(app)
    log.register(app)
    app.wsgi_app = autodiscover.any_case(app.wsgi_app)  # type: ignore[assignment, method-assign]
    if proxy_count:
        n = proxy_count
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign] # the way Flask's documentation shows
            app.wsgi_app, x_for=n, x_proto=n, x_host=n, x_prefix=n
        )
