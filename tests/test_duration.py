"""Durations: what is read, what is refused, and how they are written."""

from datetime import timedelta

import pytest

from automx.duration import LONGEST, format_duration, parse_duration

ALLOWED = "a number and one of s, m, h, d, w, y, such as 12h or 2w"


@pytest.mark.parametrize(
    ("text", "duration", "written"),
    [
        ("0s", timedelta(0), "0s"),
        ("30s", timedelta(seconds=30), "30s"),
        ("90m", timedelta(minutes=90), "90m"),
        ("12h", timedelta(hours=12), "12h"),
        ("1d", timedelta(days=1), "1d"),
        ("24h", timedelta(days=1), "1d"),
        ("2w", timedelta(days=14), "2w"),
        ("10d", timedelta(days=10), "10d"),
        ("1y", timedelta(days=365), "1y"),
        ("86401s", timedelta(days=1, seconds=1), "86401s"),
        ("007d", timedelta(days=7), "1w"),
        (" 1d\n", timedelta(days=1), "1d"),
        ("100y", LONGEST, "100y"),
        ("36500d", LONGEST, "100y"),
    ],
)
def test_a_duration_is_a_number_and_a_letter(text: str, duration: timedelta, written: str) -> None:
    assert parse_duration(text) == duration
    assert format_duration(duration) == written
    assert parse_duration(written) == duration


@pytest.mark.parametrize(
    "text",
    ["", "1", "d", "1 d", "1.5h", "-1d", "+1d", "1D", "1dd", "1d2h", "never", "\u0661d", "1e9s"],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=ALLOWED):
        parse_duration(text)


@pytest.mark.parametrize("text", ["101y", "36501d", "876001h", "999999999y", "999999999w"])
def test_more_than_a_hundred_years_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 100y"):
        parse_duration(text)


def test_a_number_that_no_computer_should_read_is_refused() -> None:
    with pytest.raises(ValueError, match=ALLOWED):
        parse_duration("9" * 5000 + "d")
