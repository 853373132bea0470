"""Registry of targets, and promises that many parsers make."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from automx.errors import AutomxError, SettingsError

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {}

# Seconds of one processor for one input. The largest has LARGE bytes: what takes longer is not
# linear, or nearly so.
SECONDS = 2.0
LARGE = 40_000

# An input that begins with this byte, which UTF-8 does not have, is "before, unit, after": the unit
# is repeated until the input is large.
REPEATED = b"\xff"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class BrokenPromiseError(AssertionError):
    """A parser did what it promises not to do."""


def target(check: Target) -> Target:
    """Add a function to the targets, by its name."""
    TARGETS[check.__name__] = check
    return check


def run(name: str, data: bytes) -> None:
    """Give an input to a target. Raises BrokenPromiseError, or what the target raises."""
    data = expanded(data)
    began = time.thread_time()
    TARGETS[name](data)
    if (seconds := time.thread_time() - began) > SECONDS:
        raise BrokenPromiseError(f"{seconds:.1f} s for {len(data)} bytes")


def expanded(data: bytes) -> bytes:
    """Return a large input of the short form that begins with REPEATED; others as they are."""
    parts = data.split(REPEATED)
    if len(parts) != 4 or parts[0] or not parts[2]:
        return data
    _, before, unit, after = parts
    return before + unit * (LARGE // len(unit)) + after


def text_of(data: bytes) -> str:
    """Return bytes as a text; what is not UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def keep(is_kept: bool, promise: str) -> None:
    """Raise BrokenPromiseError, with the promise, if it is not kept."""
    if not is_kept:
        raise BrokenPromiseError(promise)


def one_line(text: str) -> None:
    """Check that a text for people or for the log is one line without control characters."""
    keep(bool(text) and not _CONTROL.search(text), f"one line: {text!r}")


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """Let the block end by an error that is one of these; that of automx must be one line.

    An error of the settings may quote what an administrator wrote: the terminal and the log remove
    control characters.
    """
    try:
        yield
    except errors as error:
        if isinstance(error, SettingsError):
            keep("\n" not in str(error), f"one line: {error}")
        elif isinstance(error, AutomxError):
            one_line(str(error))
