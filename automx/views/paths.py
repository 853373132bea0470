"""Paths as clients write them: in another case, with doubled slashes, with a slash at the end."""

import re
from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# What follows is an address, which keeps its case and its slashes.
_BEFORE_ADDRESS = re.compile(
    r"/+autodiscover/+autodiscover\.json/+v1\.0/+(?=[^/])", re.ASCII | re.IGNORECASE
)
_FILE_WITH_SLASH = re.compile(r"(\.(?:xml|json|mobileconfig))/\Z", re.ASCII | re.IGNORECASE)
# A path holds bytes of UTF-8 (PEP 3333), of which str.lower() would change some.
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def normal(path: str) -> str:
    """Return a path as the routes have it.

    Slashes are single, paths below /autodiscover/ are in lower case, and documents have no slash at
    the end.
    """
    before = _BEFORE_ADDRESS.match(path)
    address = path[before.end() :].rstrip("/") if before else ""
    path = re.sub("//+", "/", before[0] if before else path)
    if path[:14].lower() == "/autodiscover/":
        path = path.translate(_LOWER)
    return _FILE_WITH_SLASH.sub(r"\1", path) + address


def tolerant(wsgi_app: "WSGIApplication") -> "WSGIApplication":
    """Wrap an application so that it gets normal paths."""

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ["PATH_INFO"] = normal(environ.get("PATH_INFO", ""))
        return wsgi_app(environ, start_response)

    return call
