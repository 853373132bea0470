"""Moments in UTC, to the second: read from a text, written for programs and for people."""

from datetime import UTC, date, datetime, time

LAST_SECOND = time(23, 59, 59)  # the end of a day, which a date means where something ends
_UNITS = [("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)]


def this_second() -> datetime:
    """Return the current time as the database stores it."""
    return datetime.now(UTC).replace(microsecond=0)


def parse_moment(text: str, *, time_of_date: time = time.min) -> datetime:
    """Return the moment in ``text``: a date, or a date and a time (ISO 8601), UTC by default.

    A date alone gets the time ``time_of_date``. Raises ValueError with a sentence for people.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        example = "such as 2026-12-31 or 2026-12-31T18:00Z"
        raise ValueError(f"{text!r} is no time {example}.") from None
    try:
        moment = datetime.combine(date.fromisoformat(text), time_of_date)
    except ValueError:
        pass  # it has a time
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # the first or last hours that there are
        pass
    if not 2000 <= moment.year < 3000:  # in UTC, as it is stored
        raise ValueError(f"{text!r} is not between 2000 and 2999.")
    return moment


def iso(moment: datetime | None) -> str | None:
    """Return a moment for programs: ISO 8601 in UTC, to the second; None for None."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_minute(moment: datetime) -> str:
    """Return a moment for people, such as ``2026-12-31 18:00 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def dated(moment: datetime, now: datetime) -> str:
    """Return a moment for people and its distance from ``now``."""
    return f"{to_minute(moment)} ({away(moment, now)})"


def away(moment: datetime, now: datetime) -> str:
    """Return the distance of a moment from ``now``, such as ``in 3 days`` or ``5 hours ago``."""
    seconds = round((moment - now).total_seconds())
    if not seconds:
        return "now"
    units = (unit for unit in _UNITS if abs(seconds) >= 2 * unit[1])
    unit, length = next(units, ("second", 1))
    number = round(abs(seconds) / length)
    words = f"{number} {unit}{'s' * (number != 1)}"
    return f"in {words}" if seconds > 0 else f"{words} ago"
