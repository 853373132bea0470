"""From a request to its operation: the key, the path, the parameters."""

from flask import Response, request
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from automx.api import accounts, apply, domains, keys, rows, tokens
from automx.api.access import Access
from automx.api.openapi import document as openapi
from automx.api.operations import Call, NothingHereError, Operation, read_query
from automx.api.operations import answer as as_json
from automx.api.problem import UnusableRowsError, WrongMembersError
from automx.apikeys import PERMISSIONS
from automx.errors import BadRecordError, SeedError

OPERATIONS: tuple[Operation, ...] = (
    *rows.OPERATIONS,
    *domains.OPERATIONS,
    *apply.OPERATIONS,
    *tokens.OPERATIONS,
    *accounts.OPERATIONS,
    *keys.OPERATIONS,
)

_BY_ID = {operation.id: operation for operation in OPERATIONS}
_MAP = Map(
    [
        Rule(
            operation.path.replace("{", "<").replace("}", ">"),
            endpoint=operation.id,
            methods=[operation.method],
        )
        for operation in OPERATIONS
    ]
    + [Rule("/openapi.json", endpoint="openapi", methods=["GET"])],
    strict_slashes=False,
    merge_slashes=False,
)


def answer(access: Access, path: str) -> Response:
    """Answer a request below the path of the API."""
    try:
        name, arguments = _MAP.bind("automx").match(path, request.method)
    except NotFound:
        raise NothingHereError from None
    if name == "openapi":
        return as_json(openapi(OPERATIONS))
    operation = _BY_ID[name]
    if operation.also is None or operation.also not in PERMISSIONS[access.key.role]:
        access.check(operation.role)
    if operation.unscoped:
        access.check_everything()
    try:
        return operation.call(Call(access, arguments, read_query(operation.query)))
    except SeedError as error:
        raise WrongMembersError.of(error) from error
    except BadRecordError as error:
        raise UnusableRowsError(error.cause) from error
