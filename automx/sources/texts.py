"""Lists of domains as texts: JSON, lines of JSON, CSV, or a name on each line.

Which of them it is, the text itself tells. In a plain list, what follows ``#`` is a comment.
"""

import json
import re
from collections.abc import Iterator, Mapping

from automx import csvfile
from automx.errors import SeedError
from automx.sources.found import COLUMNS, SourceError

MOST = 64 * 1024 * 1024  # bytes of a text


def records(data: bytes, what: str) -> Iterator[Mapping[str, object]]:
    """Yield the records of a text; ``what`` names it in errors. Raises SourceError."""
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"[", b"{"}:
        yield from _json(data, what)
        return
    head = data[:1_000].splitlines()[0].lower() if data.strip() else b""
    if b"domain" in head.replace(b"\0", b"") and b"." not in head:
        try:
            yield from _csv(data, what)
        except SeedError as error:
            raise SourceError(cause=str(error)) from error
        return
    lines = (line.partition("#")[0].strip() for line in _text(data, what).splitlines())
    names = [name for name in lines if name]
    if names and re.search("[,;\t]", names[0]):
        text = "CSV needs a head with a column domain, a list has one name on each line"
        raise SourceError(cause=f"{what}: {text}")
    yield from ({"domain": name} for name in names)


def _csv(data: bytes, what: str) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a table; an empty cell says nothing."""
    for _, row in csvfile.read(data, what, COLUMNS, "domain"):
        yield {column: cell for column, cell in row.items() if cell}


def _json(data: bytes, what: str) -> Iterator[Mapping[str, object]]:
    text = _text(data, what)
    try:
        documents = [json.loads(text)]
    except (ValueError, RecursionError):
        documents = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                documents += [json.loads(line)] if line.strip() else []
            except (ValueError, RecursionError) as error:
                reason = f"line {number} is no JSON: {error}"
                raise SourceError(cause=f"{what}: {reason}") from error
    if len(documents) == 1 and isinstance(documents[0], list):
        documents = documents[0]
    for document in documents:
        match document:
            case str():
                yield {"domain": document}
            case {"domain": _}:
                _check(document, what)
                yield document
            case _:
                raise SourceError(
                    cause=f"{what}: expected a list of names, or of objects with a member domain"
                )


def _check(document: Mapping[str, object], what: str) -> None:
    for member in document:
        if member not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise SourceError(cause=f"{what}: the member {member} is not known; known are {known}")


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(cause=f"{what} is not UTF-8") from error
