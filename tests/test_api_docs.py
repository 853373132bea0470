"""The documents about the API: OpenAPI as it is kept and served, and the commands of api.md."""

import json
import re
import shlex

import pytest
from flask.testing import FlaskClient

from automx.api.dispatch import OPERATIONS
from docs.reference import OPENAPI, openapi
from tests.apikeys import WithKey
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.processes import REPOSITORY

PAGE = REPOSITORY / "docs" / "api.md"


def test_the_document_in_the_repository_is_that_of_the_code() -> None:
    assert OPENAPI.read_text() == openapi(), "make reference writes it"


def test_the_document_is_served_to_every_key_and_to_no_one_else(api: WithKey) -> None:
    for role in ("read", "accounts"):
        client = api(role)
        assert client.get("/api/v1/openapi.json").json == json.loads(openapi())
    client.environ_base["HTTP_AUTHORIZATION"] = ""
    assert client.get("/api/v1/openapi.json").status_code == 401


def test_each_operation_has_a_name_and_a_summary_of_its_own() -> None:
    for attribute in ("id", "summary"):
        found = [getattr(operation, attribute) for operation in OPERATIONS]
        assert len(set(found)) == len(found)


@pytest.fixture
def client(api: WithKey, execute: Execute) -> FlaskClient:
    """A client with all rights on the rows that the page needs."""
    execute(EXAMPLE_ROWS)
    return api("admin")


def test_the_commands_of_the_page_succeed_one_after_the_other(client: FlaskClient) -> None:
    blocks = re.findall(r"```sh (?:api|accounts)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in "".join(blocks).splitlines():
        words = shlex.split(line)
        assert words[:3] == ["curl", "-H", "Authorization: Bearer $KEY"]
        options = dict(zip(words[3:-1:2], words[4:-1:2], strict=True))
        body = options.pop("--json", None)
        method = options.pop("-X", "GET" if body is None else "POST")
        name, _, value = options.pop("-H", "").partition(": ")
        assert not options
        answer = client.open(
            words[-1].removeprefix("http://127.0.0.1:4243"),
            method=method,
            data=body,
            headers={name: value} if name else {},
            content_type=None if body is None else "application/json",
        )
        assert answer.status_code in {200, 201, 204}, (line, answer.text)
