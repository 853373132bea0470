"""Databases of SQLite in memory: each ends with its connection, and is that of one process only.

``automx serve`` has to tell them at its start, before it has loaded the libraries of databases. So
a URI is taken apart here, as SQLAlchemy does it.
"""

import re
from urllib.parse import parse_qsl

_SQLITE = re.compile(
    r"sqlite(?:\+[\w+]*)?://"
    r"(?:[^:/]*(?::[^@]*)?@)?[^/?]*"  # user and host, which SQLite does not use
    r"(?:/(?P<name>[^?]*))?(?:\?(?P<query>.*))?"
)


def is_in_memory(db_uri: str) -> bool:
    """Return whether a URI names a database of SQLite in memory."""
    if (uri := _SQLITE.match(db_uri)) is None:
        return False
    name = uri["name"] or ":memory:"
    modes = [value for key, value in parse_qsl(uri["query"] or "") if key == "mode"]
    is_named = name.startswith("file:") and (":memory:" in name or modes == ["memory"])
    return name == ":memory:" or is_named
