"""Documents that are applied by the API: the plan, what it needs, what it leaves."""

import json
import sqlite3
from collections.abc import Callable
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient

from automx import api as api_module
from tests.apikeys import WithKey, make_key
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import engine_uri
from tests.test_apply import HOSTER

URL = "/api/v1/apply"
SERVER = {"type": "imap", "name": "imap.example.com", "port": 143}


@pytest.fixture
def admin(api: WithKey) -> FlaskClient:
    """A client with all rights on an empty database."""
    return api("admin", name="root")


def names(plan: Any) -> dict[str, list[str]]:
    """Return the names of the rows of a plan."""
    return {word: [change["name"] for change in plan[word]] for word in plan}


def rows_of(database: Path) -> list[str]:
    """Return all rows but those of keys, which note their use."""
    connection = sqlite3.connect(database)
    lines = [line for line in connection.iterdump() if '"api_key"' not in line]
    connection.close()
    return lines


def test_a_document_is_applied_as_its_plan_said(
    make_app: Callable[..., Flask], any_migrated_uri: str
) -> None:
    uri = engine_uri(any_migrated_uri)
    client = make_app(db_uri=uri).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {make_key(uri, 'root', 'admin')}"

    planned = client.post(f"{URL}?dry_run=true", json=HOSTER)
    assert planned.status_code == 200, planned.text
    assert client.get("/api/v1/domains").json == {"items": [], "next": None}
    match = {"If-Match": planned.headers["ETag"]}
    done = client.post(URL, json=HOSTER, headers=match)
    assert (done.status_code, done.json) == (200, planned.json)
    assert done.json is not None
    assert done.headers["ETag"] == planned.headers["ETag"]
    assert set(names(done.json)["added"]) == {
        *("East", "West", "ldap.example.com", "imap.example.com", "smtp.example.com"),
        *("https://dav.example.com/", "a.example", "b.example", "müller.example"),
    }
    nothing: dict[str, list[object]] = {"added": [], "changed": [], "removed": []}
    assert client.post(URL, json=HOSTER).json == nothing
    again = client.post(URL, json=HOSTER, headers=match)
    assert (again.status_code, again.content_type) == (412, "application/problem+json")

    fewer = {**HOSTER, "domains": HOSTER["domains"][:1]}
    assert client.post(URL, json=fewer).json == nothing
    pruned = client.post(f"{URL}?prune=true", json=fewer).json
    assert names(pruned) == {"added": [], "changed": [], "removed": ["b.example", "müller.example"]}
    entries = client.get("/api/v1/audit").json
    assert entries is not None
    found = [(entry["actor"], entry["action"]) for entry in entries["items"]]
    assert found[1:] == [("key:root", "bulk")] * 2


def test_the_audit_has_the_digest_of_the_body(admin: FlaskClient) -> None:
    body = json.dumps({**HOSTER, "_comment": "x"}, indent=3).encode()
    assert admin.post(URL, data=body, content_type="application/json").status_code == 200
    entries = admin.get("/api/v1/audit").json
    assert entries is not None
    assert entries["items"][-1]["details"]["digest"] == sha256(body).hexdigest()


def test_a_change_is_shown_with_both_sides(admin: FlaskClient) -> None:
    admin.post(URL, json=HOSTER)
    changed = deepcopy(HOSTER)
    changed["domains"][0]["disabled"] = True
    plan = admin.post(URL, json=changed).json
    assert plan == {
        "added": [],
        "changed": [
            {
                "kind": "domain",
                "id": 1,
                "name": "a.example",
                "before": {"disabled": False},
                "after": {"disabled": True},
            }
        ],
        "removed": [],
    }
    assert admin.get("/api/v1/domains/a.example").json is not None


def test_a_document_may_be_yaml(admin: FlaskClient) -> None:
    body = yaml.safe_dump(HOSTER, allow_unicode=True)
    for content_type in ("application/yaml", "Application/YAML; charset=utf-8"):
        answer = admin.post(URL, data=body.encode(), content_type=content_type)
        assert answer.status_code == 200, answer.text
    assert admin.post(URL, json=HOSTER).json == {"added": [], "changed": [], "removed": []}


def test_the_origin_may_stand_in_the_url(admin: FlaskClient, api: WithKey) -> None:
    document = {name: value for name, value in HOSTER.items() if name != "origin"}
    assert admin.post(f"{URL}?origin=git", json=document).status_code == 200
    for query, status in (("", 200), ("?origin=git", 200), ("?origin=other", 200)):
        assert admin.post(URL + query, json=document).status_code == status
    changed = deepcopy(document)
    changed["domains"][0]["disabled"] = True
    assert admin.post(f"{URL}?origin=other", json=changed).status_code == 409
    assert admin.post(f"{URL}?origin=other", json=HOSTER).status_code == 422
    assert admin.post(f"{URL}?origin=git", json=changed).status_code == 200


def test_secrets_are_in_no_answer_and_their_mask_is_refused(admin: FlaskClient) -> None:
    document = deepcopy(HOSTER)
    document["ldapservers"][0]["bind_password"] = "s3cret"
    answers = [admin.post(f"{URL}?dry_run=true", json=document), admin.post(URL, json=document)]
    document["ldapservers"][0]["bind_password"] = "an0ther"
    answers.append(admin.post(URL, json=document))
    answers.append(admin.get("/api/v1/audit"))
    for answer in answers:
        assert answer.status_code == 200
        assert "s3cret" not in answer.text
        assert "an0ther" not in answer.text
    document["ldapservers"][0]["bind_password"] = "***"
    answer = admin.post(URL, json=document)
    assert answer.json is not None
    assert answer.json["errors"][0]["path"] == "ldapservers[0].bind_password"


def test_what_has_no_effect_is_warned_of(admin: FlaskClient) -> None:
    document = deepcopy(HOSTER)
    document["servers"][3]["name"] = "dav"
    answer = admin.post(f"{URL}?dry_run=true", json=document).json
    assert answer is not None
    assert answer["warnings"] == ["servers[3].name has no effect: a service has a url"]


DIRECTORY = {"name": "ldap.example", "search_base": "dc=x"}
WRONG: list[tuple[dict[str, object], str]] = [
    ({"servers": [{**SERVER, "port": "143"}]}, "servers[0].port"),
    ({"servers": [{**SERVER, "colour": "red"}]}, "servers[0]"),
    ({"servers": None}, "servers"),
    ({"servers": [None]}, "servers[0]"),
    ({"domains": [{"name": "a b", "provider": 1}]}, "domains[0].name"),
    ({"domains": [{"name": "a.example", "provider": "North"}]}, "domains[0].provider"),
    ({"providers": [{"name": "P", "details": {"color": "red"}}]}, "providers[0].details.color"),
    ({"ldapservers": [{**DIRECTORY, "bind_password_file": "/etc/passwd"}]}, "ldapservers[0]"),
    ({"origin": None}, "origin"),
    ({"origin": ""}, "origin"),
    ({"origin": "a\nb"}, "origin"),
    ({"version": 3}, "version"),
    ({"version": 1e300}, "version"),
    ({"provider": "both"}, ""),
    ({"colour": "red"}, ""),
]


def test_what_is_wrong_is_named_and_nothing_is_changed(admin: FlaskClient, database: Path) -> None:
    admin.post(URL, json=HOSTER)
    before = rows_of(database)
    for change, path in WRONG:
        answer = admin.post(URL, json=HOSTER | change)
        assert answer.status_code == 422, change
        assert answer.json is not None
        assert [error["path"] for error in answer.json["errors"]] == [path]
    assert admin.post(URL, json=HOSTER | {"servers": [{**SERVER, "id": 1e300}]}).status_code == 422
    assert rows_of(database) == before


def test_a_reference_to_a_missing_row_is_refused(admin: FlaskClient) -> None:
    domain = {"name": "a.example", "provider": 77}
    answer = admin.post(URL, json=HOSTER | {"domains": [domain]})
    assert (answer.status_code, "provider" in answer.text) == (422, True)


UNREADABLE = [
    (b"null", "application/json", 422),
    (b"[]", "application/json", 422),
    (b"3", "application/json", 422),
    (b"{}", "application/json", 422),
    (b"{", "application/json", 400),
    (b'{"a":1,"a":2}', "application/json", 400),
    (b"[" * 60_000, "application/json", 400),
    (b"&a [*a]", "application/yaml", 400),
    (b"a: !!python/object:os.system {}", "application/yaml", 400),
    (b"a: 1\na: 2", "application/yaml", 400),
    (b"\xff", "application/yaml", 400),
    (b"[" * 60_000, "application/yaml", 400),
    (b"", "application/yaml", 422),
    (b"{}", "text/plain", 415),
    (b"{}", "application/merge-patch+json", 415),
    (b"{}", "", 415),
]


def test_a_body_that_cannot_be_read_is_refused(admin: FlaskClient) -> None:
    for body, content_type, status in UNREADABLE:
        answer = admin.post(URL, data=body, content_type=content_type)
        assert answer.content_type == "application/problem+json"
        assert answer.status_code == status, (body[:20], content_type)


def test_a_parameter_that_is_not_understood_applies_nothing(admin: FlaskClient) -> None:
    twice = "dry_run=true&dry_run=false"
    for query in ("dry_run=1", "dry_run=", "prune=yes", twice, "origin=", "yes=true"):
        assert admin.post(f"{URL}?{query}", json=HOSTER).status_code == 400, query
    assert admin.get("/api/v1/domains").json == {"items": [], "next": None}


def test_pruning_needs_an_origin_and_leaves_rows_in_use(
    admin: FlaskClient, execute: Execute
) -> None:
    execute(EXAMPLE_ROWS)
    document = {name: value for name, value in HOSTER.items() if name != "origin"}
    answer = admin.post(f"{URL}?prune=true", json=document)
    assert (answer.status_code, "origin" in answer.text) == (422, True)
    assert admin.post(URL, json=HOSTER).status_code == 200
    admin.post("/api/v1/tokens", json={"name": "party", "domain": "a.example"})
    fewer = {**HOSTER, "domains": HOSTER["domains"][1:]}
    answer = admin.post(f"{URL}?prune=true", json=fewer)
    assert (answer.status_code, "1 token" in answer.text) == (409, True)


def test_documents_may_be_large_and_less_so_in_yaml(admin: FlaskClient) -> None:
    assert api_module.MAX_YAML_BODY < 2_000_000 < api_module.MAX_LARGE_BODY
    body = b" " * 2_000_000 + b"{}"
    statuses = [
        admin.post(URL, data=body, content_type=content_type).status_code
        for content_type in ("application/json", "application/yaml")
    ]
    assert statuses == [422, 413]
