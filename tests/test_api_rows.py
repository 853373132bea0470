"""Rows by the API: lists, single rows, changes, previews; on three databases where SQL decides."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.api.rows import COLLECTIONS
from tests.apikeys import WithKey, make_key
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import engine_uri
from tests.test_changes import NEW, PATCHES

API = "/api/v1"


@pytest.fixture
def admin(api: WithKey, execute: Execute) -> FlaskClient:
    """A client with all rights, on a database with the example rows."""
    execute(EXAMPLE_ROWS)
    return api("admin", name="root")


@pytest.fixture
def anywhere(make_app: Callable[..., Flask], any_migrated_uri: str) -> FlaskClient:
    """A client with all rights on an empty database, of each engine in turn."""
    uri = engine_uri(any_migrated_uri)
    client = make_app(db_uri=uri).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {make_key(uri, 'root', 'admin')}"
    return client


def items(client: FlaskClient, path: str) -> list[Any]:
    """Return the names, or URLs, of all rows of a list, page by page."""
    found: list[Any] = []
    separator = "&" if "?" in path else "?"
    cursor = ""
    while cursor is not None:
        page = client.get(f"{API}/{path}{separator}limit=2{cursor}").json
        assert page is not None
        assert len(page["items"]) <= 2
        found += [item.get("name", item.get("url")) for item in page["items"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    return found


def test_rows_are_added_read_changed_and_deleted(anywhere: FlaskClient) -> None:
    for kind in ("provider", "directory", "server", "service", "domain"):
        collection = next(name for name, of in COLLECTIONS.items() if of == kind)
        made = anywhere.post(f"{API}/{collection}", json=NEW[kind])
        assert made.status_code == 201, made.text
        assert made.json is not None
        at = "new.example.com" if kind == "domain" else made.json["id"]
        assert made.headers["Location"] == f"{API}/{collection}/{at}"
        read = anywhere.get(made.headers["Location"])
        assert (read.json, read.headers["ETag"]) == (made.json, made.headers["ETag"])
        patch = PATCHES[kind]
        if kind == "domain":
            anywhere.post(f"{API}/providers", json=NEW["provider"])
            anywhere.post(f"{API}/servers", json=NEW["server"])
            patch = {**patch, "servers": [1, 2], "davservers": [1]}
        changed = anywhere.patch(read.location or made.headers["Location"], json=patch)
        assert changed.status_code == 200, changed.text
        assert changed.json is not None
        for name, value in patch.items():
            if name == "bind_password":
                assert changed.json[name] == "***"
            elif name != "details":
                assert changed.json[name] == value
    assert items(anywhere, "servers") == ["old.example.com", "new.example.com"]
    for path in ("domains/old.example.com", "servers/1", "services/1", "directories/1"):
        assert anywhere.delete(f"{API}/{path}").status_code == 204, path
        assert anywhere.get(f"{API}/{path}").status_code == 404
    assert items(anywhere, "domains") == []


def test_lists_have_pages_and_filters(anywhere: FlaskClient) -> None:
    for name in ("One", "Two"):
        anywhere.post(f"{API}/providers", json={"name": name})
    for number in range(1, 4):
        anywhere.post(f"{API}/servers", json={"type": "imap", "name": f"imap{number}.example"})
    for number, provider, servers in ((1, 1, [1, 2]), (2, 1, []), (3, 2, [2])):
        domain = {"name": f"d{number}.example", "provider": provider, "servers": servers}
        assert anywhere.post(f"{API}/domains", json=domain).status_code == 201
    anywhere.patch(f"{API}/domains/d2.example", json={"disabled": True})

    for path, found in {
        "domains": [1, 2, 3],
        "domains?provider=1": [1, 2],
        "domains?server=2": [1, 3],
        "domains?unused=true": [2],
        "domains?disabled=true": [2],
        "domains?disabled=false&provider=1": [1],
        "domains?pattern=D[12]*": [],
        "domains?pattern=D?.ex*": [1, 2, 3],
        "domains?pattern=%25": [],
    }.items():
        assert items(anywhere, path) == [f"d{number}.example" for number in found], path
    for path, found in {
        "servers": [1, 2, 3],
        "servers?unused=true": [3],
        "servers?provider=2": [2],
        "servers?pattern=*3.example": [3],
    }.items():
        assert items(anywhere, path) == [f"imap{number}.example" for number in found], path


def test_a_change_needs_the_row_that_was_seen(admin: FlaskClient) -> None:
    path = f"{API}/servers/1"
    seen = {"If-Match": admin.get(path).headers["ETag"]}
    for method, patch, status in (
        ("PATCH", {"port": 143, "socket_type": "STARTTLS"}, 200),
        ("PATCH", {"port": 993}, 412),
        ("DELETE", None, 412),
    ):
        answer = admin.open(path, method=method, json=patch, headers=seen)
        assert answer.status_code == status
    assert admin.get(path).json == {
        "id": 1,
        "type": "imap",
        "name": "imap.example.com",
        "port": 143,
        "prio": 10,
        "socket_type": "STARTTLS",
        "user_name": "%EMAILADDRESS%",
        "authentication": "plain",
    }


def test_every_wrong_member_is_named_with_its_path(admin: FlaskClient) -> None:
    wrong = {"type": "imap", "name": "a b", "port": "993", "colour": "red"}
    answer = admin.post(f"{API}/servers", json=wrong)
    assert answer.status_code == 422
    assert answer.json is not None
    assert [error["path"] for error in answer.json["errors"]] == ["colour", "name", "port"]
    details = {"name": "P", "details": {"documentation": [{"url": "nowhere"}]}}
    answer = admin.post(f"{API}/providers", json=details)
    assert answer.json is not None
    assert answer.json["errors"][0]["path"] == "details.documentation[0].url"
    missing = admin.post(
        f"{API}/domains", json={"name": "x.example", "provider": 1, "servers": [9]}
    )
    assert missing.json is not None
    assert missing.json["errors"] == [
        {
            "path": "servers",
            "message": "expected the id of a server in this document or in the database, found 9",
        }
    ]


def test_rows_in_use_are_not_deleted_unless_they_are_unlinked(admin: FlaskClient) -> None:
    answer = admin.delete(f"{API}/servers/1")
    assert answer.status_code == 409
    assert "1 domain (example.com)" in answer.text
    assert admin.delete(f"{API}/servers/1?unlink=true").status_code == 204
    assert admin.delete(f"{API}/providers/1").status_code == 409
    assert (
        admin.post(f"{API}/domains", json={"name": "EXAMPLE.com", "provider": 1}).status_code == 409
    )


def test_a_secret_is_never_answered_and_its_mask_changes_nothing(
    admin: FlaskClient, execute: Execute
) -> None:
    new = {"name": "ldap.example.com", "search_base": "dc=x", "bind_password": "s3cret"}
    made = admin.post(f"{API}/directories", json=new)
    patch = {"bind_password": "***", "search_base": "dc=y"}
    patched = admin.patch(f"{API}/directories/1", json=patch)
    listed = admin.get(f"{API}/directories")
    entries = admin.get(f"{API}/audit")
    for answer in (made, patched, listed, entries):
        assert "s3cret" not in answer.text
    assert patched.json is not None
    assert (patched.json["bind_password"], patched.json["search_base"]) == ("***", "dc=y")
    execute("CREATE TABLE proof AS SELECT 1 / (bind_password = 's3cret') AS one FROM ldapserver")
    execute(
        "INSERT INTO ldapserver SELECT 2, name, port, use_ssl, search_base, search_filter,"
        " attr_uid, attr_cn, bind_password, bind_user FROM ldapserver, proof WHERE one = 1"
    )
    assert len(items(admin, "directories")) == 2
    assert admin.post(f"{API}/directories", json={**new, "bind_password": "***"}).status_code == 422


@pytest.mark.parametrize("place", [{"name": "evil.example"}, {"port": 3389}, {"use_ssl": False}])
def test_a_secret_is_not_sent_to_a_place_that_a_key_chooses(
    admin: FlaskClient, place: dict[str, Any]
) -> None:
    new = {"name": "ldap.example.com", "search_base": "dc=x", "use_ssl": True, "bind_password": "x"}
    path = admin.post(f"{API}/directories", json=new).headers["Location"]
    before = admin.get(path).json
    for secret in ({}, {"bind_password": "***"}):
        refused = admin.patch(path, json={**place, **secret})
        assert (refused.status_code, refused.json and refused.json["errors"][0]["path"]) == (
            422,
            "bind_password",
        )
    assert admin.get(path).json == before
    same = {name: value for name, value in (before or {}).items() if name in place}
    assert admin.patch(path, json=same).status_code == 200
    assert admin.patch(path, json={**place, "bind_password": "another"}).status_code == 200
    assert admin.patch(path, json={**same, "bind_password": None}).status_code == 200
    assert admin.patch(path, json=place).status_code == 200


def test_many_domains_are_added_at_once_or_none(anywhere: FlaskClient) -> None:
    anywhere.post(f"{API}/providers", json={"name": "One"})
    anywhere.post(f"{API}/servers", json={"type": "imap", "name": "imap.example"})
    names = [f"d{number}.example" for number in range(250)]
    body = {"names": names, "provider": 1, "servers": [1]}
    answer = anywhere.post(f"{API}/bulk/domains", json=body)
    assert (answer.status_code, answer.json) == (201, {"added": 250, "existing": 0})
    assert len(items(anywhere, "domains?server=1&pattern=d1*")) == 111

    more = {**body, "names": ["new.example", *names[:2]]}
    assert anywhere.post(f"{API}/bulk/domains", json=more).status_code == 409
    assert anywhere.get(f"{API}/domains/new.example").status_code == 404
    answer = anywhere.post(f"{API}/bulk/domains", json={**more, "skip_existing": True})
    assert answer.json == {"added": 1, "existing": 2}
    wrong = anywhere.post(f"{API}/bulk/domains", json={**body, "names": ["ok.example", "a b"]})
    assert wrong.json is not None
    assert (wrong.status_code, wrong.json["errors"][0]["path"]) == (422, "names[1].name")
    assert anywhere.get(f"{API}/domains/ok.example").status_code == 404


def test_previews_are_what_clients_get(admin: FlaskClient) -> None:
    for name, path in {
        "autoconfig": "/mail/config-v1.1.xml?emailaddress=bob@example.com",
        "autodiscover": "/autodiscover/autodiscover.xml?email=bob@example.com",
        "mobileconfig": "/mobileconfig?emailaddress=bob@example.com",
        "pacc": "/.well-known/user-agent-configuration.json",
    }.items():
        got = admin.get(path, base_url="http://ua-auto-config.example.com")
        url = f"{API}/domains/example.com/documents/{name}"
        if name != "autodiscover":  # by GET, it is the same for all
            url += "?address=bob@example.com"
        preview = admin.get(url)
        assert preview.status_code == 200
        assert (preview.content_type, preview.data) == (got.content_type, got.data)
    assert admin.get(f"{API}/domains/example.com/documents/paper").status_code == 404
    assert admin.get(f"{API}/domains/other.example/documents/pacc").status_code == 404


def test_the_records_of_a_domain_are_listed(admin: FlaskClient) -> None:
    found = admin.get(f"{API}/domains/example.com/dns").json
    assert found is not None
    assert {"name": "autoconfig.example.com", "ttl": 3600, "type": "CNAME"}.items() <= found[
        "items"
    ][0].items()


def test_the_audit_names_the_key_and_the_change(admin: FlaskClient) -> None:
    admin.patch(f"{API}/servers/1", json={"port": 143})
    admin.post(f"{API}/domains", json={"name": "new.example", "provider": 1})
    entries = admin.get(f"{API}/audit?cursor=1").json
    assert entries is not None
    shown = [(entry["actor"], entry["action"], entry["name"]) for entry in entries["items"]]
    assert shown == [
        ("key:root", "set", "imap.example.com"),
        ("key:root", "add", "new.example"),
    ]
    assert entries["items"][0]["details"]["before"] == {"port": 993}
    found = admin.get(f"{API}/audit?domain=new.example&since=2020-01-01&limit=1").json
    assert found is not None
    assert ([entry["name"] for entry in found["items"]], found["next"]) == (["new.example"], None)


def test_a_domain_is_found_in_any_spelling(admin: FlaskClient) -> None:
    admin.post(f"{API}/domains", json={"name": "müller.example", "provider": 1})
    admin.post(f"{API}/domains", json={"name": "*.wild.example", "provider": 1})
    for name in ("müller.example", "xn--mller-kva.example", "MÜLLER.example", "*.wild.example"):
        assert admin.get(f"{API}/domains/{name}").status_code == 200
    for name in ("x.wild.example", "a b", "..", "%00", "*", "a" * 300):
        assert admin.get(f"{API}/domains/{name}").status_code == 404


def test_a_change_is_served_at_once_where_no_log_is_followed(
    make_app: Callable[..., Flask], database: Any, execute: Execute
) -> None:
    execute(EXAMPLE_ROWS)
    app = make_app(domain_cache_seconds=0)
    client = app.test_client()
    secret = make_key(f"sqlite:///{database}", "root", "admin")
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v1.1/example.com").status_code == 200
    client.patch(f"{API}/domains/example.com", json={"disabled": True}, headers=headers)
    assert client.get("/v1.1/example.com").status_code == 404
