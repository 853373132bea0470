"""What all tests with real clients share."""

import pytest

from tests.tls import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the certificate authority that the clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))
