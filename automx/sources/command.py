"""Domains that a program of the administrator prints: CSV, JSON, or a name on each line.

It gets nothing on standard input. Only what a program has printed that ended with status 0 counts.
"""

from collections.abc import Iterator, Mapping

from automx.backends.program import run
from automx.config import SourceSettings
from automx.errors import TryAgainError, UncertainError
from automx.sources import texts
from automx.sources.found import SourceError


def records(source: SourceSettings) -> Iterator[Mapping[str, object]]:
    """Yield the records that the program prints. Raises SourceError."""
    what = source.command[0]
    try:
        output = run(source.command, b"", timeout=source.timeout, what=what, most=texts.MOST)
    except (TryAgainError, UncertainError) as error:
        raise SourceError(cause=error.cause) from error
    return texts.records(output, what)
