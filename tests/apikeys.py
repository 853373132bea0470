"""Programs that use the API: clients with keys of all kinds."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx import apikeys
from automx.database import open_session
from automx.words import Role

WithKey = Callable[..., FlaskClient]


def make_key(db_uri: str, name: str, role: str, **options: Any) -> str:
    """Make a key and return its secret; ``options`` are those of apikeys.add()."""
    with open_session(db_uri) as session:
        now = datetime.now(UTC)
        return apikeys.add(session, name, Role(role), actor="user:alice", now=now, **options)[1]


@pytest.fixture
def api(make_app: Callable[..., Flask], database: Path) -> WithKey:
    """Make a client with a new key: ``api("write", provider=1)``."""
    app = make_app(public_host="automx.example.net")
    numbers = iter(range(1, 100))

    def make(role: str, **options: Any) -> FlaskClient:
        name = options.pop("name", f"key{next(numbers)}")
        secret = make_key(f"sqlite:///{database}", name, role, **options)
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
        return client

    return make
