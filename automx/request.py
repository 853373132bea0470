"""A request without its body: what usual requests are known by, in the words of RSGI.

It may come by RSGI or by WSGI (PEP 3333), where its headers have other names.
"""

from functools import lru_cache
from typing import Protocol


class Headers(Protocol):
    """Headers, whose names are in lower case."""

    def __contains__(self, name: str) -> bool:
        """Return whether there is a header of a name."""

    def get_all(self, name: str) -> list[str]:
        """Return the values of a name; those that are not ASCII may be left out."""


class Scope(Protocol):
    """A request. ``authority`` is that of a target in absolute form."""

    client: str
    method: str
    path: str
    query_string: str
    authority: str | None

    @property
    def headers(self) -> Headers:
        """The headers."""


def client_of(scope: Scope) -> str:
    """Return the IP address of the client, without brackets."""
    return scope.client.rpartition(":")[0].strip("[]")


@lru_cache(maxsize=1024)
def variable(name: str) -> str:
    """Return the variable of a header, "" for one that has none."""
    if "_" in name:
        return ""
    word = name.replace("-", "_").upper()
    return word if word in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{word}"
