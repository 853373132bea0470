"""Tokens and accounts by the API."""

import json
import re
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.backends.command import Command
from automx.errors import WeakPasswordError
from tests.apikeys import WithKey, make_key
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import engine_uri
from tests.mailprogram import MailProgram, mail_program

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
    changed = admin.patch(path, json={"valid_until": "2099-12-31"})
    assert changed.json is not None
    assert changed.json["valid_until"] == "2099-12-31T23:59:59Z"
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
    actions = ("add", "set", "set", "delete")
    assert shown == [("key:root", action, "party") for action in actions]


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
        ({"name": None}, "name"),
        ({"expiry": "soon"}, "expiry"),
        ({"valid_until": "soon"}, "valid_until"),
        ({"valid_until": "2020-01-01"}, "valid_until"),
        ({"spare_active": "yes"}, "spare_active"),
        ({"token": "s3cret"}, "token"),
        ({"address": "a@example.com", "prefix": ""}, "maxuse"),
        ({"address": "a@example.com", "maxuse": 1}, "prefix"),
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


def test_null_gives_a_member_of_a_token_its_default(api: WithKey) -> None:
    """What the API answers can be sent to it again."""
    admin = api("admin", name="root")
    names = ("prefix", "expiry", "maxuse", "backend", "spare_active", "valid_until")
    default = {
        "prefix": "tmp.",
        "expiry": "1d",
        "maxuse": 50,
        "backend": None,
        "spare_active": False,
        "valid_until": None,
    }
    other = {
        "prefix": "guest.",
        "expiry": "1w",
        "maxuse": 3,
        "backend": "command",
        "spare_active": True,
        "valid_until": "2099-12-31T23:59:59Z",
    }
    new = {"name": "party", "domain": "example.com"}
    made = admin.post(f"{API}/tokens", json={**new, **dict.fromkeys(names), "address": None})
    path = made.headers["Location"]
    for change, expected in (
        ({}, default | {"revoked": False}),
        (other | {"revoked": True}, other | {"revoked": True}),
        (dict.fromkeys((*names, "revoked")), default | {"revoked": False}),
    ):
        changed = admin.patch(path, json=change)
        assert changed.status_code == 200, changed.text
        assert changed.json is not None
        assert {name: changed.json[name] for name in expected} == expected
        again = admin.patch(path, json={name: changed.json[name] for name in names})
        assert again.json == changed.json
    new = {"name": "one", "domain": "example.com", "address": "a@example.com"}
    one = admin.post(f"{API}/tokens", json=dict.fromkeys(names) | new)
    assert one.json is not None
    assert (one.json["prefix"], one.json["maxuse"]) == ("", 1)
    again = admin.patch(one.headers["Location"], json={name: one.json[name] for name in names})
    assert again.json == one.json


def test_a_token_whose_addresses_the_mail_server_refuses_is_not_made(
    make_app: Callable[..., Flask], database: Path
) -> None:
    """Mailcow, which takes an address with a plus for another one."""
    settings = {"mailcow_endpoint": "https://mailcow.example.com/api/v1", "mailcow_token": "key"}
    admin = make_app(**settings).test_client()
    secret = make_key(f"sqlite:///{database}", "root", "admin")
    admin.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    tokens, plain = f"{API}/tokens", {"name": "plain", "domain": "example.com"}
    assert admin.post(tokens, json={**plain, "prefix": "a+"}).status_code == 201  # backend none
    assert admin.post(tokens, json=NEW | {"backend": "mailcow"}).status_code == 201
    new = {"name": "new", "domain": "example.com", "backend": "mailcow"}
    for method, path, body, member in (
        ("POST", tokens, {**new, "prefix": "a+"}, "prefix"),
        ("POST", tokens, {**new, "address": "a+b@example.com"}, "address"),
        ("PATCH", f"{tokens}/party", {"prefix": "a+"}, "prefix"),
        ("PATCH", f"{tokens}/plain", {"backend": "mailcow"}, "backend"),
    ):
        answer = admin.open(path, method=method, json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json is not None
        assert [error["path"] for error in answer.json["errors"]] == [member]
    listed = admin.get(tokens).json
    assert listed is not None
    assert [(token["name"], token["prefix"], token["backend"]) for token in listed["items"]] == [
        ("other", "tmp.", None),
        ("plain", "a+", None),
        ("party", "guest.", "mailcow"),
    ]
    assert admin.patch(f"{tokens}/party", json={"prefix": "a+", "backend": "none"}).json


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
    for address, status in (("bob@example.com", 422), ("guest.bob@example.com", 201)):
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
    make_app: Callable[..., Flask], any_migrated_uri: str
) -> None:
    uri = engine_uri(any_migrated_uri)
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


# Changes of accounts


@pytest.fixture
def server(tmp_path: Path) -> MailProgram:
    """A mail server of files."""
    return mail_program(tmp_path / "server")


@pytest.fixture
def portal(
    make_app: Callable[..., Flask], database: Path, server: MailProgram, execute: Execute
) -> FlaskClient:
    """A client of a service whose program makes mailboxes; guest.bob@example.com has one."""
    app = make_app(account_backend="command", account_command=(str(server.program),))
    client = app.test_client()
    secret = make_key(f"sqlite:///{database}", "portal", "accounts", domains=("example.com",))
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    execute(
        "INSERT INTO token VALUES (2, 'party', 's3cret2', 'digest2', 'example.com', 'guest.', NULL,"
        " '1d', 50, 0, NULL, 0, '', 0, '2026-01-01 00:00:00.000000')"
    )
    made = client.post(f"{API}/accounts", json={"token": "party", "address": BOB})
    assert made.status_code == 201, made.text
    return client


BOB = "guest.bob@example.com"
ACCOUNT = f"{API}/accounts/{BOB}"


def changes_of(database: Path) -> list[tuple[str, str, dict[str, object]]]:
    """Return actor, action and details of the changes of Bob's account."""
    connection = sqlite3.connect(database)
    query = (
        "SELECT actor, action, details FROM audit WHERE name = ? AND action <> 'add' ORDER BY id"
    )
    rows = connection.execute(query, (BOB,)).fetchall()
    connection.close()
    return [
        (actor, action, json.loads(details)) for actor, action, details in rows if action != "add"
    ]


def test_the_end_of_an_account_is_changed(
    portal: FlaskClient, database: Path, execute: Execute
) -> None:
    execute("UPDATE account SET warned_at = '2026-01-01 00:00:00.000000'")
    before = portal.get(ACCOUNT).json
    assert before is not None
    ends = [before["expires"]]
    for value, end in (
        ("2099-12-31", "2099-12-31T23:59:59Z"),
        ("2099-06-30T12:00:00+02:00", "2099-06-30T10:00:00Z"),
        (None, None),
    ):
        answer = portal.patch(ACCOUNT, json={"expires": value})
        assert answer.status_code == 200, answer.text
        assert answer.json == before | {"expires": end, "warned": None}
        assert portal.get(ACCOUNT).json == answer.json
        ends.append(end)
    assert changes_of(database) == [
        ("key:portal", "set", {"before": {"expires": old}, "after": {"expires": new}})
        for old, new in pairwise(ends)
    ]


def test_the_password_of_an_account_is_changed(
    portal: FlaskClient, server: MailProgram, database: Path
) -> None:
    before = portal.get(ACCOUNT).json
    assert before is not None
    own = portal.patch(ACCOUNT, json={"password": "my own"})
    assert own.json == before | {"password": "my own"}
    assert (server.folder / "passwords" / BOB).read_text() == "my own\n"
    new = portal.patch(ACCOUNT, json={"password": None, "expires": None})
    assert new.json is not None
    assert re.fullmatch(r"[\w-]{20}", new.json["password"])
    assert new.json["expires"] is None
    assert (server.folder / "passwords" / BOB).read_text() == f"{new.json['password']}\n"
    assert [change[:2] for change in changes_of(database)] == [
        ("key:portal", action) for action in ("password", "password", "set")
    ]
    dump = "\n".join(map(repr, changes_of(database)))
    assert "my own" not in dump
    assert new.json["password"] not in dump


WRONG_CHANGES: list[tuple[dict[str, object], str]] = [
    ({"expires": "2020-01-01"}, "expires"),
    ({"expires": "never"}, "expires"),
    ({"expires": 4102444800}, "expires"),
    ({"expires": []}, "expires"),
    ({"expires": "9999-12-31T23:59:59-23:59"}, "expires"),
    ({"password": ""}, "password"),
    ({"password": 7}, "password"),
    ({"password": "a\nb"}, "password"),
    ({"password": "x" * 129}, "password"),
    ({"password": "fine", "expires": "2020-01-01"}, "expires"),
    ({"state": "disabled"}, "state"),
    ({"address": "other@example.com"}, "address"),
]


def test_a_wrong_change_of_an_account_is_refused(
    portal: FlaskClient, server: MailProgram, database: Path
) -> None:
    before = portal.get(ACCOUNT).json
    server.requests()
    for patch, path in WRONG_CHANGES:
        answer = portal.patch(ACCOUNT, json=patch)
        assert answer.status_code == 422, patch
        assert answer.json is not None
        assert [error["path"] for error in answer.json["errors"]] == [path]
        assert "fine" not in answer.text
    assert portal.get(ACCOUNT).json == before
    assert (server.requests(), changes_of(database)) == ([], [])


@pytest.mark.parametrize("state", ["creating", "disabling", "disabled", "deleting", "undoing"])
def test_only_an_active_account_is_changed(
    portal: FlaskClient, execute: Execute, state: str
) -> None:
    execute(f"UPDATE account SET state = '{state}'")
    for patch in ({"expires": None}, {"password": "x"}, {"password": "x", "expires": None}):
        assert portal.patch(ACCOUNT, json=patch).status_code == 409
    assert portal.patch(ACCOUNT, json={}).status_code == 200


def test_a_mail_server_that_sets_no_password_leaves_all_as_it_is(
    portal: FlaskClient, server: MailProgram, database: Path, execute: Execute
) -> None:
    before = portal.get(ACCOUNT).json
    patch = {"password": "x", "expires": None}
    server.fail_for(BOB)
    answer = portal.patch(ACCOUNT, json=patch)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert portal.get(ACCOUNT).json == before
    execute("UPDATE account SET backend = 'none'")
    answer = portal.patch(ACCOUNT, json=patch)
    assert (answer.status_code, "sets no passwords" in answer.text) == (409, True)
    assert before is not None
    assert portal.get(ACCOUNT).json == before | {"backend": "none"}
    assert changes_of(database) == []


def test_an_account_or_a_token_is_changed_only_if_it_is_what_was_seen(
    portal: FlaskClient, api: WithKey, server: MailProgram
) -> None:
    admin = api("admin")
    for client, path, patch in (
        (portal, ACCOUNT, {"expires": None}),
        (admin, f"{API}/tokens/party", {"maxuse": 7}),
    ):
        seen = {"If-Match": client.get(path).headers["ETag"]}
        changed = client.patch(path, json=patch, headers=seen)
        assert changed.status_code == 200
        assert changed.headers["ETag"] == client.get(path).headers["ETag"] != seen["If-Match"]
        for method in ("PATCH", "DELETE"):
            body = patch if method == "PATCH" else None
            for match in (seen, {"If-Match": ""}):
                answer = client.open(path, method=method, json=body, headers=match)
                assert answer.status_code == 412
        assert client.get(path).headers["ETag"] == changed.headers["ETag"]
    assert BOB in server.addresses


def test_a_mailbox_that_was_not_made_for_the_account_stays_which_is_answered(
    portal: FlaskClient, server: MailProgram
) -> None:
    server.add(BOB, "another mark")
    answer = portal.delete(ACCOUNT)
    assert (answer.status_code, answer.json) == (
        200,
        {
            "address": BOB,
            "detail": "The account is deleted. The mailbox was not made for it, and stays.",
        },
    )
    assert server.addresses == {BOB}
    assert portal.get(ACCOUNT).status_code == 404


def test_a_password_that_the_mail_server_refuses_is_a_wrong_member(
    portal: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random one that it refuses is a fault of its settings."""

    def refuse(*_: object) -> None:
        raise WeakPasswordError(cause="password_complexity")

    for name in ("create", "set_password"):
        monkeypatch.setattr(Command, name, refuse)
    new = {"token": "party", "address": "guest.eve@example.com"}
    for method, path, body in (("POST", f"{API}/accounts", new), ("PATCH", ACCOUNT, {})):
        answer = portal.open(path, method=method, json={**body, "password": "weak"})
        assert answer.json is not None
        assert (answer.status_code, answer.json["errors"][0]["path"]) == (422, "password")
        answer = portal.open(path, method=method, json={**body, "password": None})
        assert answer.status_code == 500


# Pages, and what a scope sees of them


def test_lists_have_pages_in_which_bad_rows_are_left_out(
    api: WithKey, execute: Execute, token: str
) -> None:
    admin = api("admin")
    for number in range(4):
        admin.post(f"{API}/tokens", json=NEW | {"name": f"t{number}"})
        execute(
            "INSERT INTO account (address, token_id, mark, backend, state, created_at, changed_at)"
            f" SELECT 'a{number}@example.com', id, 'f', 'none', 'active', created_at, created_at"
            " FROM token WHERE name = 'party'"
        )
    execute(
        "UPDATE token SET maxuse = -1 WHERE name = 't1';"
        "UPDATE account SET state = 'lost' WHERE address = 'a1@example.com'"
    )
    for scope, path, expected in (
        ({}, "tokens", ["other", "party", "t0", "t2", "t3"]),
        ({"provider": 1}, "tokens", ["party", "t0", "t2", "t3"]),
        ({}, "accounts", ["guest@other.example", "a0", "a2", "a3"]),
        ({"provider": 1}, "accounts", ["a0", "a2", "a3"]),
        ({"provider": 1}, "accounts?token=party&state=active", ["a0", "a2", "a3"]),
        ({"provider": 1}, "accounts?token=t0", []),
        ({"domains": ("example.com",)}, "tokens", ["party", "t0", "t2", "t3"]),
    ):
        client, found, cursor = api("read", **scope), [], ""
        while cursor is not None:
            page = client.get(f"{API}/{path}{'&' if '?' in path else '?'}limit=2{cursor}").json
            assert page is not None
            found += [item.get("name", item.get("address")) for item in page["items"]]
            cursor = page["next"] and f"&cursor={page['next']}"
        assert [name.removesuffix("@example.com") for name in found] == expected, (scope, path)
