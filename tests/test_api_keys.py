"""Keys of the API that are made, rotated and revoked by the API itself."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from automx.accountcolumns import KEY_FORM
from automx.database import open_session
from tests.apikeys import WithKey, make_key
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import engine_uri

URL = "/api/v1/keys"
WANTED = {
    "name": "reseller",
    "role": "Write",
    "provider": 1,
    "domains": ["EXAMPLE.com", "müller.example", "example.com"],
    "from": ["127.0.0.0/8", "2001:db8::/32"],
    "until": "2099-12-31",
}


@pytest.fixture
def admin(api: WithKey, execute: Execute) -> FlaskClient:
    """A client with all rights, on a database with the example rows."""
    execute(EXAMPLE_ROWS)
    return api("admin", name="root")


def works(client: FlaskClient, secret: str) -> bool:
    """Return whether a key is valid."""
    headers = {"Authorization": f"Bearer {secret}"}
    status = client.get("/api/v1/openapi.json", headers=headers).status_code
    assert status in {200, 401}
    return status == 200


def secret_of(answer: Any) -> str:
    """Return the key in an answer, which is the only place of it."""
    document = answer.json
    assert answer.headers["Cache-Control"] == "no-store"
    assert KEY_FORM.fullmatch(document["key"])
    return str(document["key"])


def test_a_key_is_made_rotated_and_revoked_on_every_database(
    make_app: Callable[..., Flask], any_migrated_uri: str
) -> None:
    uri = engine_uri(any_migrated_uri)
    client = make_app(db_uri=uri).test_client()
    root = make_key(uri, "root", "admin")
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {root}"
    assert client.post("/api/v1/providers", json={"name": "Reseller"}).status_code == 201
    made = client.post(URL, json=WANTED)
    assert made.status_code == 201, made.text
    first = secret_of(made)
    document = made.json
    assert document is not None
    del document["key"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document.pop("created"))
    assert document == {
        "name": "reseller",
        "role": "write",
        "provider": 1,
        "domains": ["example.com", "xn--mller-kva.example"],
        "from": ["127.0.0.0/8", "2001:db8::/32"],
        "until": "2099-12-31T23:59:59Z",
        "revoked": False,
        "rotated": False,
        "used": None,
    }
    path = made.headers["Location"]
    assert path == f"{URL}/reseller"
    listed = client.get(URL).json
    assert listed is not None
    assert [item["name"] for item in listed["items"]] == ["root", "reseller"]
    assert client.get(path).json == listed["items"][1]

    second = secret_of(client.post(f"{path}/rotate"))
    assert (works(client, first), works(client, second)) == (True, True)
    ended = client.post(f"{path}/end-rotation").json
    assert ended is not None
    assert (ended["rotated"], "key" in ended) == (False, False)
    assert (works(client, first), works(client, second)) == (False, True)
    for _ in range(2):
        assert client.delete(path).status_code == 204
    assert not works(client, second)
    revoked = client.get(path).json
    assert revoked is not None
    assert revoked["revoked"] is True
    assert client.post(f"{path}/rotate").status_code == 409
    assert client.post(URL, json=WANTED).status_code == 409  # the name stays taken
    entries = client.get("/api/v1/audit").json
    assert entries is not None
    assert [(entry["actor"], entry["action"], entry["name"]) for entry in entries["items"][2:]] == [
        ("key:root", action, "reseller") for action in ("add", "rotate", "set", "revoke")
    ]
    assert "automx_" not in client.get("/api/v1/audit").text
    with open_session(uri) as session:
        assert session.scalar(text("SELECT COUNT(*) FROM api_key")) == 2


WRONG: list[tuple[dict[str, object], str]] = [
    ({"name": None}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "x" * 61}, "name"),
    ({"name": 7}, "name"),
    ({"role": None}, "role"),
    ({"role": "root"}, "role"),
    ({"role": ["admin"]}, "role"),
    ({"provider": 77}, "provider"),
    ({"provider": "Example Inc."}, "provider"),
    ({"provider": True}, "provider"),
    ({"provider": 2**31}, "provider"),
    ({"provider": 1e300}, "provider"),
    ({"domains": []}, "domains"),
    ({"domains": "example.com"}, "domains"),
    ({"domains": ["example.com", None]}, "domains[1]"),
    ({"domains": ["*.example.com"]}, "domains[0]"),
    ({"domains": ["a.example b.example"]}, "domains[0]"),
    ({"domains": [{}]}, "domains[0]"),
    ({"domains": [f"{'d' * 55}{number:04}.example" for number in range(890)]}, "domains"),
    ({"from": []}, "from"),
    ({"from": "192.0.2.0/24"}, "from"),
    ({"from": ["192.0.2.1/24"]}, "from[0]"),
    ({"from": ["192.0.2.0/24, 10.0.0.0/8"]}, "from[0]"),
    ({"from": ["fe80::%a b/64"]}, "from[0]"),
    ({"from": ["192.0.2.0/24", 3221225985]}, "from[1]"),
    ({"until": "2020-01-01"}, "until"),
    ({"until": "soon"}, "until"),
    ({"until": 4102444800}, "until"),
    ({"until": "9999-12-31T23:59:59Z"}, "until"),
    ({"key": "automx_secret"}, "key"),
    ({"revoked": True}, "revoked"),
]


def test_a_key_with_a_wrong_member_is_not_made(admin: FlaskClient) -> None:
    for change, path in WRONG:
        answer = admin.post(URL, json={"name": "portal", "role": "read"} | change)
        assert answer.status_code == 422, change
        assert answer.json is not None
        assert [error["path"] for error in answer.json["errors"]] == [path], change
    assert admin.get(f"{URL}/portal").status_code == 404


def test_null_is_no_limit(admin: FlaskClient) -> None:
    nothing = dict.fromkeys(("provider", "domains", "from", "until"))
    made = admin.post(URL, json={"name": "portal", "role": "read"} | nothing)
    assert made.json is not None
    assert {name: made.json[name] for name in nothing} == {
        "provider": None,
        "domains": [],
        "from": [],
        "until": None,
    }


def test_a_key_that_does_not_exist_is_not_found(admin: FlaskClient) -> None:
    for name in ("missing", "%00", "%0A", "a%2Fb", "..", "x" * 300, "m%C3%BCller"):
        for method, end in (
            *(("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/end-rotation")),
        ):
            answer = admin.open(f"{URL}/{name}{end}", method=method)
            assert answer.status_code == 404, (name, method, end)
            assert answer.content_type == "application/problem+json"


def test_lists_have_pages_and_leave_out_bad_rows(
    admin: FlaskClient, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        admin.post(URL, json={"name": name, "role": "read"})
    execute("UPDATE api_key SET networks = 'all' WHERE name = 'b'")
    names, cursor = [], ""
    while cursor is not None:
        page = admin.get(f"{URL}?limit=1{cursor}").json
        assert page is not None
        names += [item["name"] for item in page["items"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert names == ["root", "a", "c"]
    assert "table api_key, id 3: networks" in caplog.text
    assert admin.get(f"{URL}/b").status_code == 409


def test_a_bad_row_of_a_key_is_revoked(admin: FlaskClient, execute: Execute) -> None:
    secret = secret_of(admin.post(URL, json={"name": "b", "role": "read"}))
    execute("UPDATE api_key SET networks = 'all' WHERE name = 'b'")
    assert admin.delete(f"{URL}/b").status_code == 204
    execute("UPDATE api_key SET networks = '' WHERE name = 'b'")
    assert not works(admin, secret)
    document = admin.get(f"{URL}/b").json
    assert document is not None
    assert document["revoked"] is True
    entries = admin.get("/api/v1/audit").json
    assert entries is not None
    assert entries["items"][-1]["details"] == {"after": {"name": "b", "revoked": True}}


def test_an_administrator_may_revoke_even_the_last_key_which_is_logged(
    admin: FlaskClient, api: WithKey, caplog: pytest.LogCaptureFixture
) -> None:
    api("admin", name="scoped", provider=1)
    api("admin", name="second")
    assert admin.delete(f"{URL}/second").status_code == 204
    assert "last key" not in caplog.text
    assert admin.delete(f"{URL}/root").status_code == 204
    assert "key:root has revoked the last key of an administrator" in caplog.text
    assert admin.get(URL).status_code == 401
