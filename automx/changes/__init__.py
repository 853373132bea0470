"""Changes of providers, directories, servers, services and domains.

All that writes such rows goes through here: commands, the API, documents and sources. Each change
is checked against what depends on the row, written into the audit, and told to the other workers.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError

from automx import audit, changelog, kinds, members, references
from automx.changes import insertion, stored
from automx.changes.dependents import Dependents, dependents, of_domains
from automx.database import KEYS_AT_ONCE, Session, chunks, savepoint
from automx.errors import ConflictError, SeedError, UnknownRowError
from automx.members import TABLES, Item
from automx.models import RECORDS, metadata
from automx.rowmemory import EVERYTHING, RowKey
from automx.seeddocument import SeedRows

MAX_ENTRIES = 100  # of the audit by one transaction; more become one
_HELD = "The database refused a row that it holds already, perhaps since a moment ago"


_TABLES = metadata.tables

# The member by which people call a row of a kind.
NAMES = {kind: "url" if kind == "service" else "name" for kind in TABLES}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one row. ``before`` is None for a new row, ``after`` for a deleted one."""

    kind: str
    id: int
    before: Item | None
    after: Item | None

    @property
    def action(self) -> str:
        """The word of the audit."""
        if self.before is None:
            return "add"
        return "set" if self.after is not None else "delete"

    @property
    def item(self) -> Item:
        """The row, as it is then or was before."""
        return self.after or self.before or {}

    @property
    def name(self) -> str:
        """What people call the row."""
        return name_of(self.kind, self.item)

    def difference(self) -> dict[str, tuple[Any, Any]]:
        """Return the members that differ, before and after."""
        before, after = self.before or {}, self.after or {}
        return {
            member: (before.get(member), after.get(member))
            for member in {**before, **after}
            if before.get(member) != after.get(member)
        }

    def document(self) -> dict[str, Any]:
        """Return the change as JSON holds it, without secrets."""
        found: dict[str, Any] = {"kind": self.kind, "id": self.id, "name": self.name}
        if self.before is not None and self.after is not None:
            for side, at in (("before", 0), ("after", 1)):
                values = {member: both[at] for member, both in self.difference().items()}
                found[side] = audit.masked(values)
            return found
        found["before" if self.after is None else "after"] = audit.masked(self.after or self.before)
        return found


class Changes:
    """The changes of one transaction.

    ``actor`` is who makes them, as :class:`automx.audit.Entry` says. Rows that they make are of
    ``origin``; rows of another origin are not changed then, unless ``changes_others``. Other
    transactions of changes wait until the end of this one, so what it reads stays as it is; the
    transaction should begin here, because MariaDB goes on to see the database as it was at the
    first query.

    ``digest`` is that of the document that says all changes; they have one entry in the audit then.

    After the last change, finish() has to be called; then the caller commits. With ``dry_run``,
    finish() undoes everything.
    """

    def __init__(
        self,
        session: Session,
        actor: str,
        *,
        now: datetime,
        origin: str | None = None,
        digest: str | None = None,
        changes_others: bool = False,
        dry_run: bool = False,
    ) -> None:
        changelog.wait_for_turn(session)
        self.session = session
        self.made: list[Change] = []
        self._actor = actor
        self._now = now
        self._origin = origin
        self._document_digest = digest
        self._changes_others = changes_others
        self._is_dry_run = dry_run
        self._numbers: Counter[tuple[str, str]] = Counter()  # (action, kind)
        self._digest = hashlib.sha256()
        self._changed: set[RowKey] = set()
        self._providers: dict[str, str] = {}  # new names; the key is the name in lower case

    @property
    def numbers(self) -> Mapping[tuple[str, str], int]:
        """How many changes were made: (action, kind) -> number."""
        return self._numbers

    def add(self, kind: str, value: object, path: str = "") -> Change:
        """Add the row of an object; members that it leaves out have their defaults.

        ``path`` names the object in errors. Raises SeedError as members.read(), and ConflictError
        if the database holds the domain or the id already.
        """
        item = complete(kind, members.read(kind, value, path), path)
        if kind == "domain":
            self._check_names([item], [])
        new = SeedRows()
        new.add_item(kind, item, path or kind)
        self._insert(new)
        row_id = new.rows[TABLES[kind]][0]["id"]
        return self._made(Change(kind, row_id, None, {**item, "id": row_id}))

    def insert(self, new: SeedRows) -> None:
        """Add the rows of a checked document. Raises as add()."""
        self._insert(new)
        for kind, table in TABLES.items():
            for row in new.rows[table]:
                name = str(row[NAMES[kind]])
                self._count("add", kind, [kind, row["id"], name])
                if kind == "domain":
                    self._note(kind, row["id"], name)

    def set(
        self,
        kind: str,
        row_id: int,
        patch: Mapping[str, Any],
        *,
        expected: Item | None = None,
        path: str = "",
    ) -> Change | None:
        """Change members of a row (JSON Merge Patch); return None if it is so already.

        ``expected`` is the item that the actor has seen. Raises SeedError as members.read(),
        UnknownRowError, and ConflictError if the row is another one than expected, or cannot be as
        it is wanted because of other rows.
        """
        before = self._current(kind, row_id, expected)
        after = complete(kind, members.changed(kind, before, patch, path), path)
        if after["id"] != row_id:
            raise SeedError(f"{members.below(path, 'id')}: the id of a row cannot be changed")
        if after == before:
            return None
        if kind == "domain":
            self._check_references({path or kind: after})
            self._check_names([after], [before])
            self._check_renamed([(before, after)])
        self._rewrite(kind, [(before, after)])
        self._note(kind, row_id, name_of(kind, before))
        return self._made(Change(kind, row_id, before, after))

    def delete(
        self, kind: str, row_id: int, *, unlink: bool = False, expected: Item | None = None
    ) -> Change:
        """Delete a row.

        With ``unlink``, domains lose a server, a service or a directory that they use.
        Raises UnknownRowError, and ConflictError if other rows depend on it.
        """
        before = self._current(kind, row_id, expected)
        change = Change(kind, row_id, before, None)
        found = dependents(self.session, kind, row_id, change.name)
        if found and not (unlink and kind not in {"provider", "domain"}):
            raise ConflictError(_in_use(kind, before, found))
        if kind == "directory":  # a domain refers to it
            stored.unlink_directory(self.session, row_id)
        stored.delete(self.session, kind, [row_id])
        return self._made(change)

    def replace(self, kind: str, pairs: Sequence[tuple[Item, Item]]) -> None:
        """Let rows hold other items: each pair is what a row holds, and what it shall hold.

        The former were read in this transaction. Raises as set(), without a path.
        """
        self._check_origins(kind, [before for before, _ in pairs])
        if kind == "domain":
            self._check_references({described(kind, after): after for _, after in pairs})
            self._check_names([after for _, after in pairs], [before for before, _ in pairs])
            self._check_renamed(pairs)
        self._rewrite(kind, pairs)
        for before, after in pairs:
            self._note(kind, before["id"], name_of(kind, before))
            self._made(Change(kind, before["id"], before, after))

    def remove(self, kind: str, items: Sequence[Item]) -> None:
        """Delete rows that were read in this transaction. Raises as delete(), for all at once."""
        self._check_origins(kind, items)
        self._check_unused(kind, items)
        stored.delete(self.session, kind, [each["id"] for each in items])
        for each in items:
            self._made(Change(kind, each["id"], each, None))

    def adopt(self, kind: str, ids: Sequence[int]) -> None:
        """Give rows that have no origin that of these changes."""
        if self._origin is None:
            raise ValueError("these changes have no origin")
        insertion.add_origins(self.session, TABLES[kind], ids, self._origin)
        for row_id in ids:
            self._count("adopt", kind, [kind, row_id])

    def purge(self) -> None:
        """Delete all rows of automx2's seven tables, and what belongs to them.

        Keys of the API stay; those whose scope is a provider are revoked.
        """
        for kind, table in TABLES.items():
            count = select(func.count()).select_from(_TABLES[table])
            if number := self.session.scalar(count):
                self._numbers["delete", kind] += number
        for each in reversed(metadata.sorted_tables):  # rows that refer to others go first
            if each.name not in {"token", "account", "backend_key", "api_key", *RECORDS}:
                self.session.execute(each.delete())
        # Another provider may get the id.
        keys = _TABLES["api_key"]
        of_provider = keys.c.provider_id.is_not(None)
        self.session.execute(keys.update().where(of_provider).values(is_revoked=True))
        self._changed |= EVERYTHING

    def warnings(self) -> Iterator[str]:
        """Yield a line about each new name of a provider that others have, too.

        It may be called until finish().
        """
        name = _TABLES["provider"].c.name
        for some in chunks(self._providers.items(), KEYS_AT_ONCE):
            is_known = or_(name.in_(dict(some).values()), func.lower(name).in_(dict(some)))
            query = select(name).where(is_known)
            numbers = Counter(str(each).lower() for each in self.session.scalars(query))
            for lowered, given in some:
                if (number := numbers[lowered]) > 1:
                    only = "commands find them by their ids only"
                    yield f"{number} providers have the name {given}: {only}"

    def finish(self) -> None:
        """Write the audit, and tell the other workers; with dry_run, undo everything instead."""
        if self._is_dry_run:
            self.session.rollback()
            return
        if not self._numbers:
            return
        insertion.set_sequences(self.session)
        changelog.write(self.session, self._changed)
        is_listed = sum(self._numbers.values()) == len(self.made)
        if is_listed and self._document_digest is None:
            for change in self.made:
                self._write(change.action, change.kind, change.name, change.document())
        else:
            numbers: dict[str, dict[str, int]] = {}
            for (action, kind), number in self._numbers.items():
                numbers.setdefault(action, {})[kind] = number
            digest = self._document_digest or self._digest.hexdigest()
            self._write("bulk", "", "", {"numbers": numbers, "digest": digest})

    def _insert(self, new: SeedRows) -> None:
        insertion.check(self.session, new)
        self._note_names(row["name"] for row in new.rows["provider"])
        try:
            with savepoint(self.session):
                insertion.insert(self.session, new, self._origin, self._now)
        except IntegrityError as error:
            raise ConflictError(f"{_HELD}; nothing was added", cause=str(error.orig)) from error

    def _note_names(self, names: Iterable[str]) -> None:
        """Note new names of providers for warnings()."""
        self._providers |= {name.lower(): name for name in names}

    def _rewrite(self, kind: str, pairs: Sequence[tuple[Item, Item]]) -> None:
        if kind == "provider":
            self._note_names(new["name"] for old, new in pairs if new["name"] != old["name"])
        try:
            with savepoint(self.session):
                stored.write(self.session, kind, pairs, self._now)
        except IntegrityError as error:
            raise ConflictError(f"{_HELD}; nothing was changed", cause=str(error.orig)) from error

    def _current(self, kind: str, row_id: int, expected: Item | None) -> Item:
        item = stored.item(self.session, kind, row_id)
        if item is None:
            raise UnknownRowError(f"There is no {kind} {row_id}.")
        if expected is not None and item != expected:
            raise ConflictError(
                f"Meanwhile, {described(kind, item)} was changed: look at it again."
            )
        self._check_origins(kind, [item])
        return item

    def _check_origins(self, kind: str, items: Sequence[Item]) -> None:
        """Raise ConflictError for a row of another origin."""
        if self._origin is None or self._changes_others:
            return
        found = stored.origins(self.session, kind, [each["id"] for each in items])
        for each in items:
            origin = found.get(each["id"], self._origin)
            if origin != self._origin:
                shown = described(kind, each)
                raise ConflictError(f"The origin of {shown} is {origin}, not {self._origin}.")

    def _check_references(self, domains: Mapping[str, Item]) -> None:
        """Raise SeedError, with its path, if a domain refers to rows that do not exist."""
        new = SeedRows()
        for path, domain in domains.items():
            new.add_item("domain", domain, path)
        insertion.check_references(self.session, new)

    def _check_names(self, domains: Sequence[Item], before: Sequence[Item]) -> None:
        """Raise ConflictError if other rows have the new names of domains.

        ``before`` are the same domains as they are now. Those that keep their names are not
        checked, so that one of two rows for the same domain can be changed; names that are given up
        are free.
        """
        old = {each["id"]: each["name"] for each in before}
        new = {each["id"]: kinds.domain_a_label(each["name"]) for each in domains}
        renamed = {new[each["id"]]: each for each in domains if each["name"] != old.get(each["id"])}
        for row_id, name, a_label in references.same_domains(self.session, renamed.keys()):
            this = renamed[a_label]
            is_twin = a_label == _normal_name(old.get(this["id"], "")) and name != this["name"]
            if row_id != this["id"] and new.get(row_id, a_label) == a_label and not is_twin:
                raise ConflictError(f"The database holds the domain {name} already")

    def _check_unused(self, kind: str, items: Sequence[Item]) -> None:
        """Raise ConflictError if anything depends on rows."""
        found: dict[int, list[Dependents]] = {}
        if kind == "domain":
            found = of_domains(self.session, {each["id"]: name_of(kind, each) for each in items})
        else:
            for each in items:
                if those := dependents(self.session, kind, each["id"], name_of(kind, each)):
                    found[each["id"]] = those
        if found:
            in_use = (_in_use(kind, each, found.get(each["id"], ())) for each in items)
            raise ConflictError("; ".join(filter(None, in_use)))

    def _check_renamed(self, pairs: Sequence[tuple[Item, Item]]) -> None:
        """Raise ConflictError for a new name of a domain on whose name others depend."""
        kept = {kinds.domain_a_label(after["name"]) for _, after in pairs}
        renamed = [before for before, _ in pairs if _normal_name(before["name"]) not in kept]
        self._check_unused("domain", renamed)

    def _made(self, change: Change) -> Change:
        if len(self.made) < MAX_ENTRIES:
            self.made.append(change)
        self._count(change.action, change.kind, change.document())
        # Nothing is made of new rows that are no domains.
        if change.before is not None or change.kind == "domain":
            self._note(change.kind, change.id, change.name)
        return change

    def _count(self, action: str, kind: str, document: object) -> None:
        self._numbers[action, kind] += 1
        self._digest.update(json.dumps([action, document]).encode())

    def _note(self, kind: str, row_id: int, name: str) -> None:
        """Remember what other workers have to forget; more than changelog.MOST are everything."""
        if len(self._changed) <= changelog.MOST:
            key = _normal_name(name) if kind == "domain" else str(row_id)
            self._changed.add((TABLES[kind], key))

    def _write(self, action: str, kind: str, name: str, details: Mapping[str, Any]) -> None:
        audit.write(
            self.session,
            self._actor,
            self._now,
            action=action,
            kind=kind,
            name=_normal_name(name) if kind == "domain" else name,
            details=details,
        )


def complete(kind: str, item: Item, path: str) -> Item:
    """Return an item in which a domain has a provider; None stands for no links.

    Raises SeedError for a domain without a provider.
    """
    if kind != "domain":
        return item
    if item["provider"] is None:
        raise SeedError(f"{members.below(path, 'provider')}: expected the id of a provider")
    return item | {member: item[member] or () for member in members.LINKS}


def name_of(kind: str, item: Item) -> str:
    """Return what people call a row."""
    return str(item[NAMES[kind]])


def described(kind: str, item: Item) -> str:
    """Return a row in words, such as "server 3 (imap.example.com)"."""
    name = name_of(kind, item)
    return f"{kind} {name}" if kind == "domain" else f"{kind} {item['id']} ({name})"


def _in_use(kind: str, item: Item, found: Sequence[Dependents]) -> str:
    """Return a row and what depends on it in words, "" if nothing does."""
    return f"{described(kind, item)} is in use: {', '.join(map(str, found))}" if found else ""


def _normal_name(domain: str) -> str:
    return references.a_label_of(domain) or domain
