"""Scopes: what a key of a part of the database sees and changes, as a grid.

A foreign row is answered, byte for byte, as one that does not exist.
"""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.api.dispatch import OPERATIONS
from automx.api.operations import Operation
from tests.apikeys import WithKey
from tests.commandline import attempt, automx
from tests.conftest import Execute

API = "/api/v1"

# Provider 1 is the key's, 2 another one; server 3 is used by both, 4 by none.
ROWS = """
INSERT INTO provider VALUES (1, 'Own', 'Own'), (2, 'Other', 'Other');
INSERT INTO ldapserver VALUES
  (1, 'ldap.own.example', 389, 0, 'dc=own', '(mail={0})', 'uid', 'cn', 's3cret', 'cn=own'),
  (2, 'ldap.other.example', 389, 0, 'dc=other', '(mail={0})', 'uid', 'cn', 's3cret', 'cn=other');
INSERT INTO domain VALUES (1, 'own.example', 1, 1), (2, 'other.example', 2, 2),
  (3, '*.wild.example', 2, NULL), (4, '*.own.example', 1, NULL), (5, 'second.example', 1, NULL);
INSERT INTO server VALUES
  (1, 10, 'imap.own.example', 993, 'imap', 'SSL', '', 'plain'),
  (2, 10, 'imap.other.example', 993, 'imap', 'SSL', '', 'plain'),
  (3, 10, 'imap.shared.example', 993, 'imap', 'SSL', '', 'plain'),
  (4, 10, 'imap.unused.example', 993, 'imap', 'SSL', '', 'plain'),
  (5, 10, 'imap.wild.example', 993, 'imap', 'SSL', '', 'plain');
INSERT INTO davserver VALUES
  (1, 'https://dav.own.example/', 0, 'caldav', 1, 0, NULL),
  (2, 'https://dav.other.example/', 0, 'caldav', 1, 0, NULL),
  (3, 'https://dav.shared.example/', 0, 'caldav', 1, 0, NULL);
INSERT INTO server_domain VALUES (1, 1), (3, 1), (5, 1), (2, 2), (3, 2), (5, 4), (2, 3);
INSERT INTO davserver_domain VALUES (1, 1), (3, 1), (2, 2), (3, 2);
INSERT INTO token VALUES (1, 'other', 's3cret', 'digest', 'other.example', 'tmp.', NULL, '1d', 50,
  1, NULL, 0, '', 0, '2026-11-21 10:00:00');
INSERT INTO account VALUES (1, 'guest@other.example', 1, 'f00d', 'none', 'active',
  '2026-11-21 10:00:00', NULL, '2026-11-21 10:00:00', NULL);
"""
SCOPES: dict[str, dict[str, Any]] = {
    "provider": {"provider": 1},
    "domain": {"domains": ("own.example",)},
    "both": {"provider": 1, "domains": ("own.example",)},
}
FOREIGN = {
    "domain": "other.example",
    "token": "other",
    "account": "guest@other.example",
    "key": "other",
}
MISSING = {
    "domain": "missing.example",
    "token": "missing",
    "account": "guest@missing.example",
    "key": "missing",
}
BODIES = {
    ("POST", "/domains"): {"name": "new.example"},
    ("POST", "/bulk/domains"): {"names": ["new.example"]},
    ("POST", "/servers"): {"type": "imap", "name": "new.example"},
    ("POST", "/services"): {"type": "caldav", "url": "https://new.example/"},
    ("POST", "/directories"): {"name": "ldap.new.example", "search_base": "dc=new"},
    ("POST", "/providers"): {"name": "New"},
}


@pytest.fixture(autouse=True)
def rows(execute: Execute) -> None:
    """Fill the database."""
    execute(ROWS)


def send(client: FlaskClient, operation: Operation, path: str) -> TestResponse:
    """Send a request for an operation that is right but for the row."""
    body = BODIES.get((operation.method, operation.path), {})
    json_body = body if operation.body is not None else None
    return client.open(f"{API}{path}", method=operation.method, json=json_body)


def path_of(operation: Operation, names: dict[str, str], number: int) -> str:
    """Return the path of a row."""
    kind = operation.path.split("/")[1].removesuffix("s")
    name = names.get(kind, "")
    path = operation.path.replace("{format}", "autoconfig").replace("{address}", name)
    return path.replace("{name}", name).replace("{id}", str(number))


WITH_ROW = [operation for operation in OPERATIONS if "{" in operation.path]


@pytest.mark.parametrize("role", ["read", "write", "accounts", "admin"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_foreign_row_is_answered_as_a_missing_one(
    api: WithKey, same_ids: None, role: str, scope: str
) -> None:
    client = api(role, **SCOPES[scope])
    api("read", name="other")
    for operation in WITH_ROW:
        foreign = send(client, operation, path_of(operation, FOREIGN, 2))
        missing = send(client, operation, path_of(operation, MISSING, 77))
        assert foreign.status_code in {403, 404}, (operation.id, foreign.text)
        assert (foreign.status_code, foreign.data) == (missing.status_code, missing.data)
        assert dict(foreign.headers) == dict(missing.headers)


@pytest.mark.parametrize(
    "collection", ["providers", "domains", "servers", "services", "directories"]
)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "query",
    ["", "?provider=2", "?server=2", "?directory=2", "?service=2", "?pattern=*", "?unused=true"],
)
def test_no_list_shows_a_foreign_row(api: WithKey, scope: str, collection: str, query: str) -> None:
    client = api("read", **SCOPES[scope])
    answer = client.get(f"{API}/{collection}{query}")
    if answer.status_code == 400:  # this list has no such filter
        return
    assert "other" not in answer.text
    assert "wild.example" not in answer.text.replace("imap.wild.example", "")
    assert "unused" not in answer.text
    if query in {"?provider=2", "?server=2", "?directory=2", "?service=2"}:
        assert answer.json == {"items": [], "next": None}  # not even what both use


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        ("provider", {"domains": [1, 5], "servers": [1, 3, 5], "services": [1, 3]}),
        ("domain", {"domains": [1], "servers": [1, 3, 5], "services": [1, 3]}),
        ("both", {"domains": [1], "servers": [1, 3, 5], "services": [1, 3]}),
    ],
)
def test_a_key_sees_its_domains_and_what_they_use(
    api: WithKey, scope: str, seen: dict[str, list[int]]
) -> None:
    client = api("read", **SCOPES[scope])
    for collection, ids in {**seen, "directories": [1], "providers": []}.items():
        answer = client.get(f"{API}/{collection}").json
        assert answer is not None
        assert [item["id"] for item in answer["items"]] == ids
        for item in answer["items"]:
            at = item["name"] if collection == "domains" else item["id"]
            assert client.get(f"{API}/{collection}/{at}").json == item


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("path", "patch", "delete"),
    [
        ("servers/1", 200, 409),
        ("servers/3", 403, 403),
        ("servers/5", 403, 403),  # a wildcard uses it, too
        ("services/1", 200, 409),
        ("services/3", 403, 403),
        ("directories/1", 403, 403),
        ("providers/1", 404, 404),
        ("domains/*.own.example", 404, 404),
        ("domains/own.example", 200, 204),
    ],
)
def test_a_key_changes_what_its_domains_alone_use(
    api: WithKey, scope: str, path: str, patch: int, delete: int
) -> None:
    client = api("write", **SCOPES[scope])
    assert client.patch(f"{API}/{path}", json={}).status_code == patch
    assert client.delete(f"{API}/{path}").status_code == delete


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("patch", "status"),
    [
        ({"provider": 2}, 422),
        ({"provider": 77}, 422),
        ({"servers": [1, 2]}, 422),
        ({"servers": [1, 77]}, 422),
        ({"servers": [4]}, 422),
        ({"servers": [3]}, 200),
        ({"davservers": [2]}, 422),
        ({"ldapserver_id": 2}, 422),
        ({"ldapserver_id": None}, 200),
        ({"name": "*.new.example"}, 422),
        ({"disabled": True}, 200),
    ],
)
def test_a_domain_stays_within_the_scope(
    api: WithKey, scope: str, patch: dict[str, object], status: int
) -> None:
    client = api("write", **SCOPES[scope])
    answer = client.patch(f"{API}/domains/own.example", json=patch)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("member", "foreign", "missing"),
    [
        ("provider", 2, 77),
        ("servers", [2], [77]),
        ("davservers", [2], [77]),
        ("ldapserver_id", 2, 77),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "POST", "BULK"])
def test_a_reference_to_a_foreign_row_is_answered_as_one_to_a_missing_row(
    api: WithKey, method: str, member: str, foreign: object, missing: object
) -> None:
    client = api("write", provider=1)

    def answer(value: object, number: str) -> tuple[int, str]:
        if method == "PATCH":
            found = client.patch(f"{API}/domains/own.example", json={member: value})
        elif method == "POST":
            found = client.post(f"{API}/domains", json={"name": "new.example", member: value})
        else:
            body = {"names": ["new.example"], member: value}
            found = client.post(f"{API}/bulk/domains", json=body)
        return found.status_code, found.text.replace(f"found {number}", "found N")

    assert answer(foreign, "2") == answer(missing, "77")
    assert answer(foreign, "2")[0] == 422


def test_a_key_of_a_provider_makes_rows_that_are_its_own(api: WithKey) -> None:
    client, other = api("write", provider=1), api("write", provider=2)
    server = client.post(f"{API}/servers", json={"type": "imap", "name": "new.example"})
    assert server.status_code == 201
    path = server.headers["Location"]
    assert client.get(path).status_code == 200
    assert client.patch(path, json={"port": 143}).status_code == 200
    assert other.get(path).status_code == 404
    assert server.json is not None
    domain = {"name": "new.example", "servers": [server.json["id"]]}
    made = client.post(f"{API}/domains", json=domain)
    assert made.status_code == 201
    assert made.json is not None
    assert made.json["provider"] == 1
    assert other.get(f"{API}/domains/new.example").status_code == 404
    assert client.delete(f"{API}/domains/new.example").status_code == 204
    assert client.delete(path).status_code == 204


@pytest.mark.parametrize(
    ("scope", "collection", "body", "status"),
    [
        ("provider", "providers", {"name": "New"}, 403),
        ("provider", "directories", {"name": "ldap.x.example", "search_base": "dc=x"}, 403),
        ("provider", "servers", {"id": 99, "type": "imap", "name": "x.example"}, 422),
        ("provider", "servers", {"id": 2, "type": "imap", "name": "x.example"}, 422),
        ("provider", "domains", {"name": "x.example", "provider": 2}, 422),
        ("provider", "domains", {"name": "*.x.example"}, 422),
        ("provider", "domains", {"name": "*"}, 422),
        ("provider", "domains", {"name": "x.wild.example"}, 409),
        ("provider", "domains", {"name": "y.x.WILD.example"}, 409),
        ("provider", "domains", {"name": "x.own.example"}, 201),
        ("provider", "domains", {"name": "other.example"}, 409),
        ("domain", "domains", {"name": "x.example"}, 403),
        ("both", "domains", {"name": "x.example"}, 422),
        ("provider", "bulk/domains", {"names": ["x.example", "*.x.example"]}, 422),
        ("provider", "bulk/domains", {"names": ["x.example", "x.wild.example"]}, 409),
        ("provider", "bulk/domains", {"names": ["x.example"], "servers": [2]}, 422),
        ("both", "bulk/domains", {"names": ["x.example"]}, 422),
        ("domain", "bulk/domains", {"names": ["x.example"]}, 403),
    ],
)
def test_a_new_row_is_within_the_scope(
    api: WithKey, scope: str, collection: str, body: dict[str, object], status: int
) -> None:
    answer = api("admin", **SCOPES[scope]).post(f"{API}/{collection}", json=body)
    assert answer.status_code == status, answer.text


def test_a_domain_cannot_be_renamed_into_a_wildcard_of_others(api: WithKey) -> None:
    client = api("write", provider=1)
    answer = client.patch(f"{API}/domains/own.example", json={"name": "x.wild.example"})
    assert answer.status_code == 409


@pytest.mark.parametrize("scope", SCOPES)
def test_the_audit_shows_a_key_with_a_scope_its_own_changes(api: WithKey, scope: str) -> None:
    api("admin", name="root").patch(f"{API}/domains/own.example", json={"disabled": True})
    client = api("write", name="reseller", **SCOPES[scope])
    client.patch(f"{API}/domains/own.example", json={"servers": [1]})
    found = client.get(f"{API}/audit").json
    assert found is not None
    assert [entry["actor"] for entry in found["items"]] == ["key:reseller"]


@pytest.mark.parametrize("scope", SCOPES)
def test_the_doctor_is_for_keys_without_a_scope(api: WithKey, scope: str) -> None:
    client = api("admin", **SCOPES[scope])
    assert client.get(f"{API}/domains/own.example/check").status_code == 403


@pytest.mark.parametrize("path", ["dns", "documents/autoconfig"])
def test_previews_are_for_own_domains(api: WithKey, path: str) -> None:
    client = api("read", provider=1)
    assert client.get(f"{API}/domains/x.wild.example/{path}").status_code == 404
    assert client.get(f"{API}/domains/x.own.example/{path}").status_code == 404  # by a wildcard
    assert client.get(f"{API}/domains/*.own.example/{path}").status_code == 404
    assert client.get(f"{API}/domains/own.example/{path}").status_code in {200, 409}


def test_a_key_whose_provider_is_gone_sees_nothing(api: WithKey, execute: Execute) -> None:
    client = api("read", provider=1)
    execute("UPDATE api_key SET provider_id = 77")
    for collection in ("domains", "servers", "services", "directories", "providers"):
        assert client.get(f"{API}/{collection}").json == {"items": [], "next": None}


def test_another_provider_does_not_get_the_id_that_a_key_is_for(
    api: WithKey, execute: Execute, database: Path
) -> None:
    client, admin = api("read", name="reseller", provider=1), api("admin")
    execute("UPDATE api_key SET provider_id = 77 WHERE name = 'reseller'")
    refused = admin.post(f"{API}/providers", json={"id": 77, "name": "New"})
    assert refused.status_code == 409
    made = admin.post(f"{API}/providers", json={"name": "New"})
    assert made.json is not None
    assert made.json["id"] == 78
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    found = attempt("check", env=env).stdout
    assert "key reseller" in found
    assert "the provider 77 of this key of the API does not exist" in found
    automx("apikey", "revoke", "reseller", env=env)
    assert admin.post(f"{API}/providers", json={"id": 77, "name": "New"}).status_code == 201
    assert client.get(f"{API}/domains").status_code == 401


def test_a_key_with_a_scope_switches_on_only_what_it_has_switched_off(api: WithKey) -> None:
    own, other = api("write", provider=1), api("write", provider=1)
    admin = api("admin")

    def switch(client: FlaskClient, is_off: bool, name: str = "own.example") -> int:
        path = f"{API}/domains/{name}"
        return client.patch(path, json={"disabled": is_off}).status_code

    assert [switch(own, True), switch(other, False), switch(own, False)] == [200, 403, 200]
    assert switch(admin, True) == 200
    assert switch(own, True) == 200  # it is off already
    refused = own.patch(f"{API}/domains/own.example", json={"disabled": None})
    assert (refused.status_code, "has not switched" in refused.text) == (403, True)
    # Else the name would be free for a new domain, which is on.
    path = f"{API}/domains/own.example"
    assert own.patch(path, json={"name": "new.example"}).status_code == 403
    assert own.delete(path).status_code == 403
    assert switch(own, True, "second.example") == 200
    path = f"{API}/domains/second.example"
    assert own.patch(path, json={"name": "new.example"}).status_code == 200
    assert switch(own, False, "new.example") == 200
    assert switch(own, True, "new.example") == 200
    assert own.delete(f"{API}/domains/new.example").status_code == 204


def test_a_key_with_a_scope_does_not_switch_on_what_many_changes_may_have_switched_off(
    api: WithKey, execute: Execute
) -> None:
    own, path = api("write", provider=1), f"{API}/domains/own.example"
    assert own.patch(path, json={"disabled": True}).status_code == 200
    execute(
        "INSERT INTO audit (at, actor, action, kind, name, details) SELECT at, 'user:alice',"
        """ 'bulk', '', '', '{"numbers": {"set": {"domain": 101}}, "digest": "d"}' FROM audit"""
    )
    assert own.patch(path, json={"disabled": False}).status_code == 403
