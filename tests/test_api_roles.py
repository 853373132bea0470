"""Who may do what by the API: all operations, for each role, for a key with a scope, without one.

The requests change nothing: what is allowed finds a wrong member, an ETag of another row, or no
row.
"""

import re
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient

from automx import check
from automx.api.dispatch import OPERATIONS
from automx.api.operations import Operation
from automx.check.network import Network
from tests.apikeys import WithKey
from tests.conftest import EXAMPLE_ROWS, Execute

API = "/api/v1"
ROWS = """
INSERT INTO ldapserver VALUES
  (1, 'ldap.example.com', 389, 0, 'dc=example', '(mail={0})', 'uid', 'cn', NULL, NULL);
UPDATE domain SET ldapserver_id = 1;
INSERT INTO token VALUES (1, 'party', 's3cret', 'digest', 'example.com', 'tmp.', NULL, '1d', 50,
  1, NULL, 0, '', 0, '2026-11-21 10:00:00');
INSERT INTO account VALUES (1, 'guest@example.com', 1, 'f00d', 'none', 'active',
  '2026-11-21 10:00:00', NULL, '2026-11-21 10:00:00', NULL);
"""

CLIENTS: dict[str, dict[str, Any]] = {
    "read": {"role": "read"},
    "write": {"role": "write"},
    "accounts": {"role": "accounts"},
    "admin": {"role": "admin"},
    "scoped": {"role": "admin", "provider": 1},
    "none": {"role": "read"},
}
# The status for each of CLIENTS, in their order.
TABLE = """
get_providers                           200 200 403 200 200 401
get_providers_id                        200 200 403 200 404 401
post_providers                          403 422 403 422 403 401
patch_providers_id                      403 200 403 200 404 401
delete_providers_id                     403 412 403 412 404 401
get_servers                             200 200 403 200 200 401
get_servers_id                          200 200 403 200 200 401
post_servers                            403 422 403 422 422 401
patch_servers_id                        403 200 403 200 200 401
delete_servers_id                       403 412 403 412 412 401
get_domains                             200 200 403 200 200 401
get_domains_name                        200 200 403 200 200 401
post_domains                            403 422 403 422 422 401
patch_domains_name                      403 200 403 200 200 401
delete_domains_name                     403 412 403 412 412 401
get_services                            200 200 403 200 200 401
get_services_id                         200 200 403 200 200 401
post_services                           403 422 403 422 422 401
patch_services_id                       403 200 403 200 200 401
delete_services_id                      403 412 403 412 412 401
get_directories                         200 200 403 200 200 401
get_directories_id                      200 200 403 200 200 401
post_directories                        403 422 403 422 403 401
patch_directories_id                    403 200 403 200 403 401
delete_directories_id                   403 412 403 412 412 401
post_bulk_domains                       403 422 403 422 422 401
get_domains_name_documents_format       200 200 403 200 200 401
get_domains_name_dns                    200 200 403 200 200 401
get_domains_name_check                  200 200 403 200 403 401
get_audit                               200 200 403 200 200 401
post_apply                              403 403 403 422 403 401
get_tokens                              200 200 200 200 200 401
get_tokens_name                         200 200 200 200 200 401
post_tokens                             403 403 403 422 422 401
patch_tokens_name                       403 403 403 200 200 401
delete_tokens_name                      403 403 403 412 412 401
get_accounts                            200 200 200 200 200 401
get_accounts_address                    200 200 200 200 200 401
post_accounts                           403 403 422 422 422 401
patch_accounts_address                  403 403 200 200 200 401
delete_accounts_address                 403 403 412 412 412 401
get_keys                                403 403 403 200 403 401
get_keys_name                           403 403 403 200 403 401
post_keys                               403 403 403 422 403 401
post_keys_name_rotate                   403 403 403 409 403 401
post_keys_name_end-rotation             403 403 403 200 403 401
delete_keys_name                        403 403 403 204 403 401
"""


@pytest.fixture
def clients(
    api: WithKey, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> dict[str, FlaskClient]:
    """A client of each kind, on a database with a row of each kind; there are no name servers."""
    execute(EXAMPLE_ROWS + ROWS)
    monkeypatch.setattr(check, "check_domains", lambda *_, **__: iter(()))
    found = {name: api(**options) for name, options in CLIENTS.items()}
    found["none"].environ_base["HTTP_AUTHORIZATION"] = ""
    api("read", name="revoked")
    execute("UPDATE api_key SET is_revoked = 1 WHERE name = 'revoked'")
    return found


def status_of(client: FlaskClient, operation: Operation) -> int:
    """Ask for an operation, and return the status of the answer."""
    kind = operation.path.split("/")[1]
    names = {"domains": "example.com", "tokens": "party", "keys": "revoked"}
    values = {"id": "1", "format": "pacc", "address": "guest@example.com"}
    values["name"] = names.get(kind, "")
    path = re.sub(r"\{(\w+)\}", lambda found: values[found[1]], operation.path)
    headers = {"If-Match": '"another"'} if operation.method == "DELETE" else {}
    body: dict[str, object] | None = None if operation.body is None else {}
    url = f"{API}{path}"
    return client.open(url, method=operation.method, headers=headers, json=body).status_code


def test_each_operation_is_for_some_roles(clients: dict[str, FlaskClient]) -> None:
    """An operation that is missing in the table fails, too."""
    expected = {
        name: dict(zip(CLIENTS, map(int, statuses), strict=True))
        for name, *statuses in map(str.split, TABLE.strip().splitlines())
    }
    found = {
        operation.id: {name: status_of(client, operation) for name, client in clients.items()}
        for operation in OPERATIONS
    }
    assert found == expected


def test_the_doctor_answers_a_key_without_a_scope(
    api: WithKey, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(EXAMPLE_ROWS)
    nowhere = partial(Network, name_server="127.0.0.1", port=1)
    monkeypatch.setattr("automx.check.network.Network", nowhere)
    monkeypatch.setattr("automx.api.domains._CHECK_SECONDS", 0.2)
    client = api("read")
    answer = client.get(f"{API}/domains/EXAMPLE.com/check")
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    found = [(item["level"], item["subject"]) for item in answer.json["items"]]
    assert ("error", "example.com") in found
    assert client.get(f"{API}/domains/unknown.example/check").status_code == 404
