"""The application for WSGI servers: granian, gunicorn, uWSGI, mod_wsgi and ``flask run``."""

from automx import create_app, wsgi
from automx.errors import SettingsError

try:
    app = create_app()
except SettingsError as error:
    raise SystemExit(f"automx: {error}") from None
app.wsgi_app = wsgi.make_application(app)  # type: ignore[assignment, method-assign]
