"""Queries of SQL that look up a person; their placeholders are :address, :local and :domain.

A placeholder stands where SQL wants a value, never within quotes or comments: a driver may put an
escaped text there that has quotes of its own, and what a stranger has typed would end the quotes of
the query.
"""

import re
from collections.abc import Iterator

from automx.config import values

PLACEHOLDERS = ("address", "local", "domain")

# "::text" is a cast of PostgreSQL, "12:30" and "x[1:n]" are no placeholders either.
_COLON_WORD = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)")

_PARTS = (
    r"'(?:{char}[^'{not_}]|'')*'",
    r'"(?:{char}[^"{not_}]|"")*"',
    "`[^`]*`",
    r"\$(?P<tag>\w*)\$.*?\$(?P=tag)\$",
    r"/\*.*?\*/",
    r"--[^\n]*",
)
_OPEN = r"['\"`]|/\*"  # it is not closed


def _grammars() -> Iterator[re.Pattern[str]]:
    """Yield the ways in which databases find quoted parts: not all know backslashes and #."""
    for char, not_ in (("", ""), (r"\\.|", r"\\")):
        parts = [part.format(char=char, not_=not_) for part in _PARTS]
        for comment in ([], [r"\#[^\n]*"]):
            yield re.compile("|".join([*parts, *comment, f"(?P<open>{_OPEN})"]), re.DOTALL)


_GRAMMARS = tuple(_grammars())


def checked(text: str) -> str:
    """Return a query that looks up a person, without a semicolon at its end.

    Raises ValueError, with what is allowed.
    """
    query = values.query(text).rstrip("; \t\r\n")
    if not query:
        return ""
    found = [match[1] for match in _COLON_WORD.finditer(query)]
    for grammar in _GRAMMARS:
        for part in grammar.finditer(query):
            if part["open"]:
                raise ValueError("a query whose quotes and comments are closed")
            if any(match[1] in PLACEHOLDERS for match in _COLON_WORD.finditer(part[0])):
                raise ValueError(
                    "a query whose placeholders stand without quotes and not in comments: :address,"
                    " not ':address'"
                )
    outside = _GRAMMARS[0].sub(" ", query)
    for match in _COLON_WORD.finditer(outside):
        if match[1] not in PLACEHOLDERS:
            known = ", ".join(f":{name}" for name in PLACEHOLDERS)
            raise ValueError(f"a query with the placeholders {known}, not :{match[1]}")
    if not {"address", "local"} & {*found}:
        raise ValueError("a query with the placeholder :address or :local")
    return query
