"""Deadlines: the seconds that are left."""

import pytest

from automx import deadline


def test_what_begins_now_has_all_of_its_time() -> None:
    end = deadline.after(60)

    assert 50 < deadline.left(end) <= 60
    assert 50 < deadline.remaining(end) <= 60


def test_no_time_is_left_after_a_deadline() -> None:
    end = deadline.after(-1)

    assert deadline.left(end) == 0
    with pytest.raises(TimeoutError, match="no answer in time"):
        deadline.remaining(end)
