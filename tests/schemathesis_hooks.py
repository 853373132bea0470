"""Requests that succeed, for schemathesis: what it makes of a schema seldom names rows that exist.

The rows are those of ``tests/canaries.py``. schemathesis imports this module by its path, which
stands in SCHEMATHESIS_HOOKS.
"""

from typing import Any

import schemathesis

PROVIDER, SERVER = 90001, 90001
_DETAILS = {"help_url": "https://help.own.example/"}

# Operation -> path parameters, query, body. What is deleted is nowhere else.
REQUESTS: dict[str, dict[str, Any]] = {
    **{f"get_{name}": {} for name in ("providers", "servers", "domains", "services", "audit")},
    **{f"get_{name}": {"query": {"limit": 1}} for name in ("directories", "tokens", "accounts")},
    **{
        f"get_{name}_id": {"path": {"id": 90001}}
        for name in ("providers", "servers", "services", "directories")
    },
    "post_providers": {"body": {"name": "New", "details": _DETAILS}},
    "patch_providers_id": {"path": {"id": 90001}, "body": {"details": _DETAILS}},
    "delete_providers_id": {"path": {"id": 90002}},
    "post_servers": {"body": {"type": "imap", "name": "imap.new.example"}},
    "patch_servers_id": {"path": {"id": 90001}, "body": {"prio": 20}},
    "delete_servers_id": {"path": {"id": 90005}, "query": {"unlink": "true"}},
    "post_services": {"body": {"type": "caldav", "url": "https://dav.new.example/"}},
    "patch_services_id": {"path": {"id": 90001}, "body": {"user_name": None}},
    "delete_services_id": {"path": {"id": 90002}, "query": {"unlink": "true"}},
    "post_directories": {"body": {"name": "ldap.new.example", "search_base": "dc=new"}},
    "patch_directories_id": {"path": {"id": 90001}, "body": {"attr_cn": "displayName"}},
    "delete_directories_id": {"path": {"id": 90002}, "query": {"unlink": "true"}},
    "get_domains_name": {"path": {"name": "own.example"}},
    "post_domains": {"body": {"name": "n.example", "provider": PROVIDER, "servers": [SERVER]}},
    "patch_domains_name": {"path": {"name": "second.example"}, "body": {"disabled": True}},
    "delete_domains_name": {"path": {"name": "gone.example"}},
    "post_bulk_domains": {"body": {"names": ["x.example", "y.example"], "provider": PROVIDER}},
    "get_domains_name_documents_format": {"path": {"name": "own.example", "format": "pacc"}},
    "get_domains_name_dns": {"path": {"name": "own.example"}},
    "get_tokens_name": {"path": {"name": "own"}},
    "post_tokens": {"body": {"name": "new", "domain": "own.example"}},
    "patch_tokens_name": {"path": {"name": "own"}, "body": {"maxuse": 90}},
    "delete_tokens_name": {"path": {"name": "gone"}},
    "get_accounts_address": {"path": {"address": "guest@own.example"}},
    "post_accounts": {"body": {"token": "own"}},
    "patch_accounts_address": {
        "path": {"address": "guest@own.example"},
        "body": {"expires": "2099-12-31T18:00:00Z"},
    },
    "delete_accounts_address": {"path": {"address": "gone@own.example"}},
    "post_apply": {
        "query": {"dry_run": "true"},
        "body": {"version": 2, "provider": "New", "servers": [], "domains": []},
    },
    "get_keys": {"query": {"limit": 1}},
    "get_keys_name": {"path": {"name": "kept"}},
    "post_keys": {"body": {"name": "new", "role": "read"}},
    "post_keys_name_rotate": {"path": {"name": "kept"}},
    "post_keys_name_end-rotation": {"path": {"name": "kept"}},
    "delete_keys_name": {"path": {"name": "gone"}},
}


@schemathesis.hook
def before_add_examples(
    context: schemathesis.HookContext, examples: list[schemathesis.Case[Any]]
) -> None:
    """Add the request that succeeds."""
    operation = context.operation
    if operation is None:
        return
    request = REQUESTS.get(operation.definition.raw["operationId"])
    if request is None:
        return
    given: dict[str, Any] = {"path_parameters": request.get("path", {})}
    given["query"] = request.get("query", {})
    if "body" in request:
        given |= {"body": request["body"], "media_type": "application/json"}
    examples.append(operation.Case(**given))
