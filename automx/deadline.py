"""Deadlines: until when something must have ended, as seconds of ``time.monotonic()``."""

from time import monotonic


def after(seconds: float) -> float:
    """Return the deadline of something that begins now and may take so many seconds."""
    return monotonic() + seconds


def left(deadline: float) -> float:
    """Return the seconds until a deadline; 0 if it has passed."""
    return max(0.0, deadline - monotonic())


def remaining(deadline: float) -> float:
    """Return the seconds until a deadline. Raises TimeoutError if it has passed."""
    if not (seconds := left(deadline)):
        raise TimeoutError("no answer in time")
    return seconds
