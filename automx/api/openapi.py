"""The OpenAPI document (3.1), from the declarations of the operations."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from automx import __version__
from automx.api import PATH, schemas
from automx.api.operations import JSON, MERGE_PATCH, Operation
from automx.api.problem import TYPE
from automx.schema import DIALECT, of
from automx.words import Role

_ALWAYS = (400, 401, 403, 405, 429, 500, 503)
_WITH_BODY = (413, 415, 422)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document that describes operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "automx", "version": __version__},
        "jsonSchemaDialect": DIALECT,
        "servers": [{"url": PATH}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": schemas.PROBLEM},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    roles = dict.fromkeys(filter(None, (operation.role, operation.also, Role.ADMIN)))
    scope = ", and a key without a scope" if operation.unscoped else ""
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": f"Needs the role {' or '.join(roles)}{scope}.",
        "parameters": [*_parameters(operation)],
        "responses": {
            **{
                str(status): _success(status, answer)
                for status, answer in operation.answers.items()
            },
            **{str(status): _problem(status) for status in _errors(operation)},
        },
    }
    if operation.body is not None:
        types = (JSON, MERGE_PATCH) if operation.method == "PATCH" else operation.types
        content = {name: {"schema": operation.body} for name in types}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _errors(operation: Operation) -> list[int]:
    with_body = _WITH_BODY if operation.body is not None else ()
    changed = (412,) if "If-Match" in operation.headers else ()
    return sorted({*_ALWAYS, *with_body, *changed, *operation.errors})


def _parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name in ("id", "name", "address", "format"):
        if f"{{{name}}}" in operation.path:
            types = {"id": {"type": "integer"}}
            value = types.get(name, {"type": "string", "minLength": 1})
            yield {"name": name, "in": "path", "required": True, "schema": value}
    for name, kind in operation.query.items():
        yield {"name": name, "in": "query", "schema": of(kind)}
    for name, text in operation.headers.items():
        yield {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _success(status: int, answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(answer, dict):
        found["content"] = {JSON: {"schema": answer}}
    elif isinstance(answer, str):
        found["content"] = {answer: {}}
    return found


def _problem(status: int) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": HTTPStatus(status).phrase, "content": {TYPE: problem}}
