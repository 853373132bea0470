"""Tokens and accounts by the API."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.migrations import upgrade
from tests.apikeys import WithKey, make_key
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import engine_uri

API = "/api/v1"
NEW = {"name": "party", "domain": "example.com", "prefix": "guest.", "maxuse": 3}
# Another provider with a token and an account.
OTHER = """
INSERT INTO provider VALUES (2, 'Other', 'Other');
INSERT INTO domain VALUES (2, 'other.example', 2, NULL);
INSERT INTO token VALUES (1, 'other', 's3cret', 'digest', 'other.example', 'tmp.', NULL, '1d', 50,
  1, NULL, 0, '', 0, '2026-11-21 10:00:00');
INSERT INTO account VALUES (1, 'guest@other.example', 1, 'f00d', 'none', 'active',
  '2026-11-21 10:00:00', NULL, '2026-11-21 10:00:00', NULL);
"""


@pytest.fixture(autouse=True)
def rows(execute: Execute) -> None:
    """Fill the database."""
    execute(EXAMPLE_ROWS + OTHER)


@pytest.fixture
def token(api: WithKey) -> str:
    """The name of a token of example.com."""
    assert api("admin", name="root").post(f"{API}/tokens", json=NEW).status_code == 201
    return "party"


def test_an_administrator_makes_changes_and_deletes_a_token(api: WithKey) -> None:
    admin = api("admin", name="root")
    made = admin.post(f"{API}/tokens", json={**NEW, "valid_until": "2099-12-31T18:00Z"})
    assert made.status_code == 201, made.text
    document = made.json
    assert document is not None
    assert document.pop("token")
    assert document.pop("created")
    assert document == {
        "name": "party",
        "expiry": "1d",
        "prefix": "guest.",
        "maxuse": 3,
        "usecount": 0,
        "domain": "example.com",
        "address": None,
        "valid_until": "2099-12-31T18:00:00Z",
        "revoked": False,
        "backend": None,
        "spare_active": False,
        "dcaccount": None,
    }
    path = made.headers["Location"]
    changed = admin.patch(path, json={"revoked": True, "maxuse": 9, "valid_until": None})
    assert changed.json is not None
    assert (changed.json["revoked"], changed.json["maxuse"], changed.json["valid_until"]) == (
        True,
        9,
        None,
    )
    assert admin.delete(path).status_code == 204
    assert admin.get(path).status_code == 404
    entries = admin.get(f"{API}/audit").json
    assert entries is not None
    shown = [(e["actor"], e["action"], e["name"]) for e in entries["items"] if e["kind"] == "token"]
    assert shown == [("key:root", action, "party") for action in ("add", "set", "delete")]


def test_the_secret_of_a_token_is_for_administrators(api: WithKey, token: str) -> None:
    for role in ("read", "write", "accounts"):
        client = api(role)
        for path in ("tokens", f"tokens/{token}", "audit"):
            answer = client.get(f"{API}/{path}")
            if path == "audit" and role == "accounts":
                assert answer.status_code == 403
                continue
            assert answer.status_code == 200
            assert not {'"token"', '"dcaccount"'} & set(answer.text.split())
        assert client.post(f"{API}/tokens", json=NEW).status_code == 403
        assert client.delete(f"{API}/tokens/{token}").status_code == 403


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"domain": "unknown.example"}, "domain"),
        ({"domain": None}, "domain"),
        ({"name": "a b"}, "name"),
        ({"maxuse": -1}, "maxuse"),
        ({"maxuse": None}, "maxuse"),
        ({"expiry": "soon"}, "expiry"),
        ({"valid_until": "soon"}, "valid_until"),
        ({"spare_active": "yes"}, "spare_active"),
        ({"token": "s3cret"}, "token"),
    ],
)
def test_a_token_with_a_wrong_member_is_not_made(
    api: WithKey, change: dict[str, object], path: str
) -> None:
    admin = api("admin")
    answer = admin.post(f"{API}/tokens", json=NEW | change)
    assert answer.status_code == 422, answer.text
    assert answer.json is not None
    assert [error["path"] for error in answer.json["errors"]] == [path]
    assert admin.get(f"{API}/tokens/party").status_code == 404


@pytest.mark.parametrize("remark", [None, "x", []])
def test_a_remark_in_a_document_has_no_effect(api: WithKey, token: str, remark: object) -> None:
    admin = api("admin")
    for method, path, body, status in (
        ("PATCH", f"tokens/{token}", {}, 200),
        ("PATCH", "servers/1", {}, 200),
        ("POST", "accounts", {"token": token}, 201),
        ("POST", "bulk/domains", {"names": ["new.example"], "provider": 1}, 201),
    ):
        answer = admin.open(f"{API}/{path}", method=method, json={**body, "_remark": remark})
        assert answer.status_code == status, answer.text


def test_a_program_makes_reads_and_deletes_an_account(api: WithKey, token: str) -> None:
    portal = api("accounts", name="portal")
    made = portal.post(f"{API}/accounts", json={"token": token, "address": "guest.bob@example.com"})
    assert made.status_code == 201, made.text
    assert made.json is not None
    assert made.json["address"] == "guest.bob@example.com"
    assert len(made.json["password"]) == 20
    path = made.headers["Location"]
    read = portal.get(path)
    assert read.json is not None
    assert (read.json["address"], read.json["state"]) == ("guest.bob@example.com", "active")
    assert made.json["password"] not in read.text
    assert portal.get(f"{API}/accounts?token={token}&state=active").json == {
        "items": [read.json],
        "next": None,
    }
    assert portal.delete(path).status_code == 204
    assert portal.get(path).status_code == 404
    entries = api("read").get(f"{API}/audit?domain=example.com").json
    assert entries is not None
    shown = [(entry["actor"], entry["action"], entry["name"]) for entry in entries["items"]]
    assert shown == [
        ("key:portal", action, "guest.bob@example.com") for action in ("add", "delete")
    ]


@pytest.mark.parametrize("role", ["read", "write"])
def test_other_roles_make_and_delete_no_accounts(api: WithKey, token: str, role: str) -> None:
    client = api(role)
    assert client.post(f"{API}/accounts", json={"token": token}).status_code == 403
    assert client.delete(f"{API}/accounts/guest@other.example").status_code == 403
    assert client.get(f"{API}/accounts/guest@other.example").status_code == 200


def test_a_repeat_makes_nothing_and_is_told_the_address(api: WithKey, token: str) -> None:
    portal, other = api("accounts"), api("accounts")

    def make(client: FlaskClient, key: str) -> tuple[int, str]:
        headers = {"Idempotency-Key": key}
        answer = client.post(f"{API}/accounts", json={"token": token}, headers=headers)
        assert answer.json is not None
        assert ("password" in answer.json) == (answer.status_code == 201)
        return answer.status_code, answer.json["address"]

    status, first = make(portal, "one")
    assert status == 201
    assert make(portal, "one") == (409, first)
    assert make(portal, "two")[0] == 201
    assert make(other, "one")[0] == 201  # keys of another client are its own


def test_a_request_that_failed_may_be_repeated(api: WithKey, token: str) -> None:
    portal = api("accounts")
    headers = {"Idempotency-Key": "one"}
    for address, status in (("bob@example.com", 400), ("guest.bob@example.com", 201)):
        body = {"token": token, "address": address}
        answer = portal.post(f"{API}/accounts", json=body, headers=headers)
        assert answer.status_code == status


def test_a_day_later_the_key_of_a_request_may_be_used_again(
    api: WithKey, token: str, execute: Execute
) -> None:
    portal = api("accounts")
    headers = {"Idempotency-Key": "one"}
    for status in (201, 409):
        answer = portal.post(f"{API}/accounts", json={"token": token}, headers=headers)
        assert answer.status_code == status
    execute("UPDATE api_request SET made_at = datetime(made_at, '-25 hours')")
    answer = portal.post(f"{API}/accounts", json={"token": token}, headers=headers)
    assert answer.status_code == 201


def test_no_password_and_no_key_of_a_request_is_kept(
    api: WithKey, token: str, database: Path
) -> None:
    headers = {"Idempotency-Key": "key-of-the-request"}
    body = {"token": token, "password": "pass-of-the-account"}
    made = api("accounts").post(f"{API}/accounts", json=body, headers=headers)
    assert made.json is not None
    assert made.json["password"] == "pass-of-the-account"
    connection = sqlite3.connect(database)
    dump = "\n".join(connection.iterdump())
    connection.close()
    assert "of-the-" not in dump


def test_an_account_is_made_once_on_every_database(
    make_app: Callable[..., Flask], any_database_uri: str
) -> None:
    uri = engine_uri(any_database_uri)
    upgrade(uri)
    client = make_app(db_uri=uri).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {make_key(uri, 'root', 'admin')}"
    client.post(f"{API}/providers", json={"name": "One"})
    client.post(f"{API}/domains", json={"name": "own.example", "provider": 1})
    new = NEW | {"domain": "own.example"}
    assert client.post(f"{API}/tokens", json=new).status_code == 201
    statuses = [
        client.post(
            f"{API}/accounts", json={"token": "party"}, headers={"Idempotency-Key": "one"}
        ).status_code
        for _ in range(3)
    ]
    assert statuses == [201, 409, 409]
    listed = client.get(f"{API}/accounts?token=party").json
    assert listed is not None
    assert len(listed["items"]) == 1


def test_a_token_that_is_used_up_makes_no_account(api: WithKey, token: str) -> None:
    portal = api("accounts")
    statuses = [portal.post(f"{API}/accounts", json={"token": token}).status_code for _ in range(4)]
    assert statuses == [201, 201, 201, 403]
    assert api("admin").delete(f"{API}/tokens/{token}").status_code == 409


@pytest.mark.parametrize("scope", [{"provider": 1}, {"domains": ("example.com",)}])
def test_a_scope_has_its_own_tokens_and_accounts(
    api: WithKey, token: str, scope: dict[str, object]
) -> None:
    client = api("admin", **scope)
    listed = client.get(f"{API}/tokens").json
    assert listed is not None
    assert [item["name"] for item in listed["items"]] == [token]
    assert client.get(f"{API}/accounts").json == {"items": [], "next": None}
    assert client.get(f"{API}/accounts?token=other").json == {"items": [], "next": None}
    made = client.post(f"{API}/accounts", json={"token": token})
    assert made.status_code == 201
    assert client.get(made.headers["Location"]).status_code == 200

    def refused(name: str) -> tuple[int, str]:
        answer = client.post(f"{API}/accounts", json={"token": name})
        return answer.status_code, answer.text.replace(name, "NAME")

    assert refused("other") == refused("missing")
    assert refused("other")[0] == 422
    for domain in ("other.example", "missing.example"):
        answer = client.post(f"{API}/tokens", json={"name": "x", "domain": domain})
        assert answer.status_code == 422


def test_the_name_of_a_foreign_token_tells_nothing(api: WithKey, token: str) -> None:
    """Names of tokens are unique in the whole database, so this one cannot be hidden."""
    answer = api("admin", provider=1).post(f"{API}/tokens", json=NEW | {"name": "other"})
    assert answer.status_code == 409
    assert "other.example" not in answer.text
