"""Turns of the tests that run side by side: one that is marked ``alone`` has the machine to itself.

Such a test measures how long something takes, or loads all processors.
"""

import fcntl
import os
from collections.abc import Generator

import pytest

from tests.processes import REPOSITORY

DOOR = REPOSITORY / "Makefile"
ROOM = REPOSITORY / "pyproject.toml"  # files to lock; nothing is written


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test while none runs that is alone, and one that is alone while no other runs."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    is_alone = item.get_closest_marker("alone") is not None
    with ROOM.open() as room:
        with DOOR.open() as door:  # behind one that waits to be alone, the others queue up
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        return (yield)
