"""The server that is tried: each worker of the tests has one for all modules here."""

from collections.abc import Iterator

import pytest

from tests.hostile.target import Target, target


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A running server of one worker process."""
    with target(tmp_path_factory.mktemp("hostile")) as started:
        yield started
