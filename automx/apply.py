"""Apply: makes the database hold what a document says, and changes nothing else.

The document is a seed document (see :mod:`automx.seeddocument`). Its objects are rows that exist
already, or new ones; a member that is left out has its default, so that what was removed from the
document is undone. Rows may have an origin, the name of the document that they come from: rows of
another origin are never changed, and rows of its own that a document does not name any more can be
removed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select

from automx import members, references, seeddocument
from automx.audit import masked
from automx.changes import Change, Changes, described, insertion, name_of, stored
from automx.changes.plan import KINDS, Plan, execute
from automx.database import Session
from automx.errors import ConflictError, SeedError
from automx.members import TABLES, Item
from automx.models import ORIGINS
from automx.seeddocument import Object, SeedRows

# Kind of row -> the members by which objects without id are found, one group after the other.
_KEYS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "provider": [("name",)],
    "directory": [("name",)],
    "server": [("type", "name", "port")],
    "service": [("type", "url")],
}
_LOOSE_KEYS: Mapping[str, tuple[str, ...]] = {"server": ("type", "name")}
_SHOWN = 5


def apply(
    session: Session,
    document: object,
    *,
    actor: str,
    now: datetime,
    digest: str,
    origin: str | None = None,
    prune: bool = False,
    dry_run: bool = False,
    expected: Plan | None = None,
) -> Plan:
    """Make the database hold what a document says; return what was changed. The caller commits.

    ``actor``, ``now`` and ``digest`` (the SHA-256 of the document) are for the audit. ``origin``
    is that of the rows; the document may name it instead. With ``prune``, rows of this origin that
    the document does not name are deleted. With ``dry_run``, all is tried and undone. ``expected``
    is the plan that was agreed to.

    The transaction should begin here (see :class:`automx.changes.Changes`). Raises SeedError for
    what is wrong with the document, and ConflictError for rows that cannot be changed, or if the
    plan is another one than expected.
    """
    seed = seeddocument.read(document, with_objects=True)
    if seed.origin and origin and seed.origin != origin:
        raise SeedError(f"origin: the document says {seed.origin}, the command says {origin}")
    origin = seed.origin or origin
    if prune and origin is None:
        raise SeedError(
            "origin: expected a name, because only rows of one origin are pruned, found none"
        )
    changes = Changes(session, actor, now=now, origin=origin, digest=digest, dry_run=dry_run)
    plan = _Planner(session, seed, origin).plan(prune=prune)
    if expected is not None and not plan.is_like(expected):
        raise ConflictError("Meanwhile, the database was changed: look at the new plan.")
    execute(changes, plan, origin)
    plan.warnings += changes.warnings()
    changes.finish()
    return plan


class _Planner:
    """Compares a document with the rows. It only reads."""

    def __init__(self, session: Session, seed: SeedRows, origin: str | None) -> None:
        self._session = session
        self._seed = seed
        self._origin = origin
        self._found = Plan(warnings=seed.warnings)
        self._ids: dict[str, list[int]] = {}  # of the document's objects, in their order
        self._foreign: list[str] = []  # rows of other origins that would be changed

    def plan(self, *, prune: bool) -> Plan:
        for kind in KINDS[:-1]:
            objects = self._seed.objects[kind]
            rows = dict(stored.items(self._session, kind))
            self._allocate(kind, _paired(kind, objects, rows))
            self._compare(kind, objects, rows)
            items = rows | {each.id: each.after or {} for each in self._of(kind)}
            self._found.names[kind] = {
                row_id: name_of(kind, item) for row_id, item in items.items()
            }
        self._plan_domains()
        if prune:
            self._plan_removals()
        if self._foreign:
            more = ", …" if len(self._foreign) > _SHOWN else ""
            rows_ = ", ".join(self._foreign[:_SHOWN])
            raise ConflictError(f"Rows of another origin are not changed: {rows_}{more}.")
        return self._found

    def _of(self, kind: str) -> list[Change]:
        """Return the rows of a kind that are added and changed."""
        both = (self._found.added, self._found.changed)
        return [each for part in both for each in part if each.kind == kind]

    def _allocate(self, kind: str, ids: Sequence[int | None]) -> None:
        self._ids[kind] = insertion.allocate(self._session, TABLES[kind], [*ids])

    def _compare(self, kind: str, objects: Sequence[Object], rows: Mapping[int, Item]) -> None:
        """Note what is to be added and changed for the objects of a kind."""
        held = [row_id for row_id in self._ids[kind] if row_id in rows]
        origins = stored.origins(self._session, kind, held)
        for row_id, wanted in zip(self._ids[kind], objects, strict=True):
            after = wanted.item | {"id": row_id}
            before = rows.get(row_id)
            if before is None:
                self._found.added.append(Change(kind, row_id, None, after))
                if wanted.item["id"] is None:
                    self._found.free.add((TABLES[kind], row_id))
                continue
            after |= {member: before[member] for member in wanted.kept}
            origin = origins.get(row_id)
            if before != after and origin not in {None, self._origin}:
                self._foreign.append(f"{described(kind, before)} of {origin}")
            if origin is None and self._origin is not None:
                before, after = before | {"origin": None}, after | {"origin": self._origin}
            if before != after:
                self._found.changed.append(Change(kind, row_id, before, after))

    def _plan_domains(self) -> None:
        resolved = self._resolver()
        objects = [each._replace(item=resolved(each.item)) for each in self._seed.objects["domain"]]
        labels = {a for a, at in self._seed.domains.items() if objects[at].item["id"] is None}
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        ids: list[int | None] = [each.item["id"] for each in objects]
        taken = {*ids}
        for row_id, name, a_label in references.same_domains(self._session, labels):
            if row_id not in taken:  # else the document gives the row another name
                found[a_label].append((row_id, name))
        for a_label, rows in found.items():
            at = self._seed.domains[a_label]
            if len(rows) > 1:
                raise _ambiguous(objects[at].path, dict(rows))
            ids[at] = rows[0][0]
        self._allocate("domain", ids)
        held = [row_id for row_id in ids if row_id is not None]
        self._compare("domain", objects, dict(stored.items(self._session, "domain", held)))

    def _resolver(self) -> Callable[[Item], Item]:
        """Return the function that puts ids into a domain for what it leaves out or names."""
        everything = {
            member: tuple(sorted(self._ids[kind]))
            for member, kind in members.REFERENCES.items()
            if member in members.LINKS
        }
        providers = self._ids["provider"]
        named: dict[str, dict[object, int]] = {"provider": {}, "ldapserver_id": {}}
        for member, known in named.items():
            kind = members.REFERENCES[member]
            own = [
                (each.item["name"], row_id)
                for each, row_id in zip(self._seed.objects[kind], self._ids[kind], strict=True)
            ]
            stored_names = [(name, row_id) for row_id, name in self._found.names[kind].items()]
            for table, name in self._seed.named:
                if table == TABLES[kind]:
                    ids = {row_id for other, row_id in own if other == name} or {
                        row_id for other, row_id in stored_names if other == name
                    }
                    known[name] = self._seed.row_named(table, name, ids)

        def resolved(item: Item) -> Item:
            found = dict(item)
            for member, ids in everything.items():
                if found[member] is None:
                    found[member] = ids
            if found["provider"] is None:
                found["provider"] = providers[0]
            for member, known in named.items():
                found[member] = known.get(found[member], found[member])
            return found

        return resolved

    def _plan_removals(self) -> None:
        for kind in KINDS:
            row_id, origin = ORIGINS[TABLES[kind]].columns
            query = select(row_id).where(origin == self._origin)
            ids = set(self._session.scalars(query)).difference(self._ids[kind])
            for each, item in stored.items(self._session, kind, ids):
                self._found.removed.append(Change(kind, each, item, None))


def _paired(kind: str, objects: Sequence[Object], rows: Mapping[int, Item]) -> list[int | None]:
    """Return for each object the id of its row, None for a new one.

    An object without id is the row that is equal, else that of the same key. Raises SeedError if
    several fit.
    """
    ids: list[int | None] = [each.item["id"] for each in objects]

    def grouped(key: Callable[[Item], Hashable]) -> Iterable[tuple[list[int], list[int]]]:
        taken = set(ids)
        of_objects, of_rows = defaultdict(list), defaultdict(list)
        for index, each in enumerate(objects):
            if ids[index] is None:
                of_objects[key(each.item)].append(index)
        for row_id, item in rows.items():
            if row_id not in taken:
                of_rows[key(item)].append(row_id)
        return [(indexes, of_rows[value]) for value, indexes in of_objects.items()]

    for indexes, row_ids in grouped(_whole):
        if len(indexes) == len(row_ids):
            for index, row_id in zip(indexes, row_ids, strict=True):
                ids[index] = row_id
    for names in _KEYS[kind]:
        for indexes, row_ids in grouped(_key(names)):
            if len(indexes) == len(row_ids) == 1:
                ids[indexes[0]] = row_ids[0]
            elif row_ids:
                found = {row_id: name_of(kind, rows[row_id]) for row_id in row_ids}
                raise _ambiguous(objects[indexes[0]].path, found)
    if kind in _LOOSE_KEYS:
        key = _key(_LOOSE_KEYS[kind])
        of_objects = Counter(key(each.item) for each in objects)
        of_rows = Counter(map(key, rows.values()))
        for [index, *_], row_ids in grouped(key):
            value = key(objects[index].item)
            if row_ids and of_objects[value] == of_rows[value] == 1:
                ids[index] = row_ids[0]
    return ids


def _key(names: tuple[str, ...]) -> Callable[[Item], Hashable]:
    return lambda item: tuple(item[name] for name in names)


def _whole(item: Item) -> Hashable:
    values = {name: value for name, value in item.items() if name != "id"}
    return json.dumps(masked(values), sort_keys=True)


def _ambiguous(path: str, rows: Mapping[int, str]) -> SeedError:
    found = ", ".join(f"{row_id} ({name})" for row_id, name in sorted(rows.items()))
    return SeedError(
        f"{path or 'the document'}: expected an id, found none, and several rows fit: {found}"
    )
