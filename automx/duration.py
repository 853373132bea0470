"""Durations as mailadm writes them: ``30s``, ``90m``, ``12h``, ``1d``, ``2w``, ``1y``."""

import re
from datetime import timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "y": "year"}
_DURATION = re.compile(r"(\d{1,9})([smhdwy])", re.ASCII)

LONGEST = timedelta(days=100 * 365)


def parse_duration(text: str) -> timedelta:
    """Return the duration in ``text``: digits and one of the letters s, m, h, d, w, y.

    A year has 365 days. Raises ValueError, with a text that says what is allowed, for other texts
    and for more than 100 years.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError("a number and one of s, m, h, d, w, y, such as 12h or 2w")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > LONGEST.total_seconds():  # a timedelta cannot hold all of them
        raise ValueError("at most 100y")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Return a duration of whole seconds as parse_duration() reads it, in the largest unit."""
    seconds = int(duration.total_seconds())
    for letter, length in reversed(_SECONDS.items()):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{letter}"
    return f"{seconds}s"


def in_words(duration: timedelta) -> str:
    """Return a duration of whole seconds in words, such as ``90 minutes`` or ``2 weeks``."""
    text = format_duration(duration)
    number = int(text[:-1])
    return f"{number} {_WORDS[text[-1]]}{'s' * (number != 1)}"
