"""JSON Schema (2020-12) of the objects that documents and the API are made of.

The schemas are for editors and clients: what a value may be is decided by its kind.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from automx import kinds, members, rows, seeddocument
from automx.kinds import Kind

# Where editors look for the schema of documents: beside the document, on each machine.
ADDRESS = "seed.schema.json"

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SECRET_FILE = Kind("a file that holds bind_password, relative to the document", kinds.string)

Schema = dict[str, Any]


def of(kind: Kind) -> Schema:
    """Return the schema of a value, with the words for people."""
    return {"description": kind.expected, **kind.schema}


def of_members(keys: Mapping[str, Kind], required: Collection[str] = ()) -> Schema:
    """Return the schema of an object; members that begin with "_" are remarks."""
    return {
        "type": "object",
        "properties": {key: of(kind) for key, kind in keys.items()},
        "patternProperties": {"^_": {}},
        "required": sorted(required),
        "additionalProperties": False,
    }


def of_item(kind: str) -> Schema:
    """Return the schema of an object of a kind."""
    schema = of_members(members.MEMBERS[kind], members.REQUIRED[kind])
    match kind:
        case "provider":
            schema["properties"]["details"] = of_details()
        case "server":
            schema["properties"]["type"] = of(rows.SERVER["type"])
        case "service":
            schema["properties"]["type"] = of(rows.DAVSERVER["type"])
    return schema


def of_details() -> Schema:
    """Return the schema of the details of a provider."""
    schema = of_members(members.DETAILS)
    pages = of_members(rows.DOCUMENTATION, ("url",))
    schema["properties"] |= {
        "logo": of_members(members.LOGO, members.LOGO),
        "oauth2": of_members(members.OAUTH2, ("issuer",)),
        "documentation": {"type": "array", "items": pages},
    }
    return schema


def of_document() -> Schema:
    """Return the schema of a seed document of version 2, which apply reads as well."""
    schema = of_members(seeddocument.DOCUMENT_KEYS, ("version", "domains", "servers"))
    domain = of_item("domain")
    words = {"provider": "provider", "ldapserver_id": "directory"}
    for key, kind in seeddocument.BY_NAME.items():
        by_id = domain["properties"][key]
        by_name = {"anyOf": [by_id, of(kind)], "description": f"the id or name of a {words[key]}"}
        domain["properties"][key] = by_name
    directory = of_item("directory")
    directory["properties"]["bind_password_file"] = of(_SECRET_FILE)
    schema["properties"] |= {
        "version": {"const": 2},
        "details": of_details(),
        "providers": {"type": "array", "items": of_item("provider")},
        "ldapservers": {"type": "array", "items": directory},
        "servers": {"type": "array", "items": {"anyOf": [of_item("server"), of_item("service")]}},
        "domains": {"type": "array", "items": domain},
    }
    either = [{"required": ["provider"]}, {"required": ["providers"]}]
    return {
        "$schema": DIALECT,
        "$id": "urn:automx:seed:2",
        "title": "Seed document of automx",
        **schema,
        "oneOf": either,
    }


def of_embedded_document() -> Schema:
    """Return the schema of a document in another one, such as a request: it reads no files."""
    schema = {key: value for key, value in of_document().items() if not key.startswith("$")}
    del schema["properties"]["ldapservers"]["items"]["properties"]["bind_password_file"]
    return schema


def text() -> str:
    """Return the schema of a seed document as it is published."""
    return json.dumps(of_document(), indent=2, ensure_ascii=False) + "\n"
