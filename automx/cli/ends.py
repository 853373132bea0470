"""The moment at which a token or an account ends, as options give it."""

import re
from datetime import datetime

from automx.duration import parse_duration
from automx.moments import LAST_SECOND, parse_moment


def parse_end(text: str, now: datetime, hint: str) -> datetime | None:
    """Return the moment that a date, a time or a duration from ``now`` on means, None for never.

    A date means its end (UTC). ``hint`` says what to do instead of giving a moment that is past.
    Raises ValueError with a sentence for people.
    """
    if text == "never":
        return None
    if re.fullmatch(r"\d+[a-z]", text):
        try:
            return now + parse_duration(text)
        except ValueError as error:
            raise ValueError(f"A duration is {error}.") from None
    try:
        moment = parse_moment(text, time_of_date=LAST_SECOND)
    except ValueError as error:
        raise ValueError(f"{error} A duration is written as 30d.") from None
    if moment <= now:
        raise ValueError(f"{text!r} is past; {hint}.")
    return moment
