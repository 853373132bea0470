"""Rows by HTTP: lists, single rows, and their changes."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from flask import Response

from automx import audit, kinds, members, references, schema
from automx.api import schemas
from automx.api.access import Access
from automx.api.operations import (
    FLAG,
    ID,
    PAGE,
    PAGING,
    TEXT,
    Call,
    NothingHereError,
    Operation,
    answer,
    answer_nothing,
    answer_page,
    check_match,
    check_members,
    etag,
    location,
    read_body,
)
from automx.changes import Change, Changes, selection, stored
from automx.changes.bulk import NewDomain, add_domains
from automx.changes.selection import Filter
from automx.database import Session
from automx.errors import AddressError, ForbiddenError, SeedError
from automx.kinds import Kind
from automx.members import Item
from automx.views.http import parts
from automx.views.session import current_session
from automx.words import Role

COLLECTIONS = {
    "providers": "provider",
    "servers": "server",
    "domains": "domain",
    "services": "service",
    "directories": "directory",
}
# Where the password of a directory goes, and whether in clear text.
_PLACE = ("name", "port", "use_ssl")

_FILTERS: dict[str, dict[str, Kind]] = {
    "provider": {"pattern": TEXT, "unused": FLAG},
    "directory": {"pattern": TEXT, "unused": FLAG, "provider": ID},
    "server": {"pattern": TEXT, "unused": FLAG, "provider": ID},
    "service": {"pattern": TEXT, "unused": FLAG, "provider": ID},
    "domain": {
        "pattern": TEXT,
        "unused": FLAG,
        "disabled": FLAG,
        "provider": ID,
        "server": ID,
        "service": ID,
        "directory": ID,
    },
}


def row_id(access: Access, kind: str, call: Call) -> int:
    """Return the id of the row in a path, a domain by its name. Raises NothingHereError."""
    session = current_session()
    number = _domain(session, access, call.path["name"]) if kind == "domain" else call.number()
    if access.scope is not None and not access.scope.sees(session, kind, number):
        raise NothingHereError
    return number


def _domain(session: Session, access: Access, name: str) -> int:
    try:
        found = sorted(references.same_domains(session, [kinds.domain_a_label(name)]))
    except AddressError:
        raise NothingHereError from None
    seen = [
        number
        for number, _, _ in found
        if access.scope is None or access.scope.sees(session, "domain", number)
    ]
    if not seen:
        raise NothingHereError
    return seen[0]


def _list(kind: str, call: Call) -> Response:
    session, scope = current_session(), call.access.scope
    query = dict(call.query)
    after, limit = query.pop("cursor", None), query.pop("limit", PAGE)
    where = selection.conditions(session, kind, Filter(**query))
    if scope is not None:
        # That others use a row must not be told.
        provider = query.get("provider")
        if kind != "domain" and provider is not None and provider != scope.provider:
            return _page([], limit)
        where.append(scope.seen(session, kind))
    found = selection.page(session, kind, where, after, limit + 1)
    return _page(found, limit)


def _page(found: list[tuple[int, Item]], limit: int) -> Response:
    shown = found[:limit]
    last = shown[-1][0] if len(found) > limit else None
    return answer_page([audit.masked_row(item) for _, item in shown], last)


def _get(kind: str, call: Call) -> Response:
    item = _item(current_session(), kind, row_id(call.access, kind, call))
    found = audit.masked_row(item)
    return answer(found, headers={"ETag": etag(found)})


def _item(session: Session, kind: str, number: int) -> Item:
    item = stored.item(session, kind, number)
    if item is None:
        raise NothingHereError
    return item


@contextmanager
def changing(access: Access, dry_run: bool = False) -> Iterator[Changes]:
    """Yield the changes of a request, which are committed at the end."""
    session = current_session()
    scope = access.scope
    changes = Changes(
        session,
        access.key.actor,
        now=access.now,
        origin=scope.origin if scope else None,
        changes_others=True,
        dry_run=dry_run,
    )
    yield changes
    changes.finish()
    commit(session)


def commit(session: Session) -> None:
    """Commit changes, and let what is remembered of them be forgotten."""
    session.commit()
    if parts().follower is None:  # else it forgets what was changed, in all workers
        parts().cache.clear()


def _add(kind: str, call: Call) -> Response:
    value = read_body()
    check_members(value, members.MEMBERS[kind])
    _check_secret(value)
    with changing(call.access) as changes:
        value = checked(call.access, changes.session, kind, value)
        change = changes.add(kind, value)
    found = audit.masked_row(_item(current_session(), kind, change.id))
    at = found["name"] if kind == "domain" else change.id
    collection = next(name for name, of in COLLECTIONS.items() if of == kind)
    return answer(found, 201, {"ETag": etag(found), "Location": location(collection, at)})


def checked(
    access: Access, session: Session, kind: str, value: dict[str, Any], path: str = ""
) -> dict[str, Any]:
    """Return the object of a new row, if the scope of the key allows it."""
    if (scope := access.scope) is None:
        return value
    value = scope.check_new(kind, value)
    item = members.read(kind, value, path)
    scope.check_item(session, kind, item, None, path)
    if kind == "domain":
        scope.check_free(session, item["name"])
    return value


def _change(kind: str, call: Call) -> Response:
    patch = read_body(patch=True)
    patch = {name: value for name, value in patch.items() if not _is_masked(name, value)}
    check_members(patch, members.MEMBERS[kind])
    with changing(call.access) as changes:
        session = changes.session
        number = row_id(call.access, kind, call)
        before = _item(session, kind, number)
        check_match(audit.masked_row(before))
        if (scope := call.access.scope) is not None:
            scope.check_change(session, kind, number)
            after = members.changed(kind, before, patch)
            scope.check_item(session, kind, after, before)
            if kind == "domain":
                _check_switch(call.access, session, before, after)
                if after["name"] != before["name"]:
                    scope.check_free(session, after["name"], number)
        change = changes.set(kind, number, patch)
        if change is not None and kind == "directory":
            _check_password_place(change, patch)
    found = audit.masked_row(_item(current_session(), kind, number))
    return answer(found, headers={"ETag": etag(found)})


def _check_switch(access: Access, session: Session, before: Item, after: Item) -> None:
    """Raise ForbiddenError if somebody else has switched off a domain, which a key undoes.

    ``after`` is {} if the key deletes it: the domain could be added again, as after another name.
    """
    is_undone = not after.get("disabled") or after["name"] != before["name"]
    if not (before["disabled"] and is_undone):
        return
    if audit.disabled_by(session, before["id"]) != access.key.actor:
        raise ForbiddenError(
            "This key has not switched this domain off, and may neither switch it on nor rename or"
            " delete it."
        )


def _delete(kind: str, call: Call) -> Response:
    with changing(call.access) as changes:
        number = row_id(call.access, kind, call)
        before = _item(changes.session, kind, number)
        check_match(audit.masked_row(before))
        if call.access.scope is not None:
            call.access.scope.check_change(changes.session, kind, number)
            if kind == "domain":
                _check_switch(call.access, changes.session, before, {})
        changes.delete(kind, number, unlink=call.query.get("unlink", False))
    return answer_nothing()


def _check_password_place(change: Change, patch: Mapping[str, Any]) -> None:
    """Raise SeedError if a directory takes a password that is not known to another place.

    Its new server would get it: who may change rows may not read secrets.
    """
    is_kept = bool(change.item["bind_password"]) and "bind_password" not in patch
    if is_kept and not change.difference().keys().isdisjoint(_PLACE):
        raise SeedError(
            "bind_password: expected the secret itself, or null, because"
            f" {', '.join(_PLACE)} say where it is sent"
        )


def _is_masked(name: str, value: object) -> bool:
    return name in audit.SECRETS and value == audit.MASK


def _check_secret(value: Mapping[str, Any]) -> None:
    for name, item in value.items():
        if _is_masked(name, item):
            raise SeedError(f"{name}: expected the secret itself")


_BULK = {
    "names": kinds.list_of('"example.com"'),
    **{name: kind for name, kind in members.DOMAIN.items() if name not in {"id", "name"}},
    "skip_existing": kinds.BOOLEAN,
}


def _add_many(call: Call) -> Response:
    value = read_body()
    check_members(value, _BULK)
    names, skip = value.pop("names", None), value.pop("skip_existing", False)
    if not isinstance(names, list) or not names:
        raise SeedError('names: expected a list such as ["example.com"]')
    access, session = call.access, current_session()
    session.allow_large_changes()
    taken: Collection[str] = ()
    with changing(access) as changes:
        if access.scope is not None:
            # The members are the same for all; the names are looked at one by one.
            value = access.scope.check_new("domain", value)
            for index, name in enumerate(names):
                item = members.read("domain", {**value, "name": name}, f"names[{index}]")
                names[index] = item["name"]
                if index:
                    access.scope.check_name(item["name"], f"names[{index}]")
                else:
                    access.scope.check_item(session, "domain", item, None)
            taken = access.scope.taken(session, names)
        new = (
            NewDomain({**value, "name": name}, f"names[{index}]")
            for index, name in enumerate(names)
        )
        added = add_domains(changes, new, len(names), skip_existing=bool(skip), taken=taken)
    return answer({"added": added.number, "existing": added.existing}, 201)


def _operations() -> Iterator[Operation]:
    for collection, kind in COLLECTIONS.items():
        one = f"/{collection}/{{{'name' if kind == 'domain' else 'id'}}}"
        found = schemas.item(kind)
        match = {"If-Match": "The ETag that the row must have."}
        yield Operation(
            "GET",
            f"/{collection}",
            Role.READ,
            f"List {collection}",
            partial(_list, kind),
            {200: schemas.page(found)},
            query={**PAGING, **_FILTERS[kind]},
        )
        yield Operation(
            *("GET", one, Role.READ, f"Read a {kind}", partial(_get, kind), {200: found}),
            errors=(404,),
        )
        yield Operation(
            *("POST", f"/{collection}", Role.WRITE, f"Add a {kind}", partial(_add, kind)),
            {201: found},
            body=schema.of_item(kind),
            errors=(409,),
        )
        yield Operation(
            *("PATCH", one, Role.WRITE, f"Change members of a {kind}", partial(_change, kind)),
            {200: found},
            headers=match,
            body=schemas.patch(kind),
            errors=(404, 409),
        )
        is_linked = kind in {"server", "service", "directory"}
        yield Operation(
            *("DELETE", one, Role.WRITE, f"Delete a {kind}", partial(_delete, kind), {204: None}),
            query={"unlink": FLAG} if is_linked else {},
            headers=match,
            errors=(404, 409),
        )
    yield Operation(
        *("POST", "/bulk/domains", Role.WRITE, "Add many domains that are alike", _add_many),
        {201: schemas.ADDED},
        body=schemas.bulk(_BULK),
        errors=(409,),
    )


OPERATIONS = (*_operations(),)
