"""Names of the database, for the completion of a shell: quickly, and without an error."""

import re
import threading
from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from automx.changes import selection
from automx.cli.context import Context

_SECONDS = 1.5  # a person waits
_MOST = 200
# What a shell takes as it is: bash puts names into the line without quotes.
_PLAIN = re.compile(r"(?!-)[\w.:,@%+=/?*-]+")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def of(kind: str) -> Complete:
    """Return the function that completes names; ``kind`` is one of selection.names_beginning()."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in beginning(kind, incomplete)]

    return complete


def beginning(kind: str, text: str) -> Sequence[str]:
    """Return names that begin with a text; none if the database does not answer in time."""
    found: list[str] = []
    # Drivers know no limit that holds; the program ends without this thread.
    worker = threading.Thread(target=_read, args=(kind, text, found), daemon=True)
    worker.start()
    worker.join(_SECONDS)
    return list(found)


def _read(kind: str, text: str, found: list[str]) -> None:
    try:
        with Context().session() as session:
            names = selection.names_beginning(session, kind, text, _MOST)
        found += [name for name in names if _PLAIN.fullmatch(name)]
    except Exception:  # a line that is typed must not be disturbed
        return
