"""A plan: the changes that a document or a source asks for, before they are made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from automx import kinds, members
from automx.changes import Change, Changes, described
from automx.seeddocument import SeedRows

# The kinds of rows, each after those that it refers to.
KINDS = ("provider", "directory", "server", "service", "domain")


@dataclass
class Plan:
    """What is changed.

    A row that gets the origin of the changes has ``origin`` as a further member. ``names`` says
    what people call the rows that domains refer to: kind -> id -> name. ``free`` has the ids of new
    rows that were found to be free: (table, id).
    """

    added: list[Change] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    names: dict[str, dict[int, str]] = field(default_factory=dict)
    free: set[tuple[str, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.added or self.changed or self.removed)

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """Return the plan as JSON holds it, without secrets."""
        parts = {"added": self.added, "changed": self.changed, "removed": self.removed}
        return {word: [change.document() for change in part] for word, part in parts.items()}

    def is_like(self, other: "Plan") -> bool:
        """Return whether another plan makes the same changes."""
        return (self.added, self.changed, self.removed) == (
            other.added,
            other.changed,
            other.removed,
        )


def execute(changes: Changes, plan: Plan, origin: str | None) -> None:
    """Make the changes of a plan, in an order in which names are free and referred rows exist."""
    removed, changed = _by_kind(plan.removed), _by_kind(plan.changed)
    changes.remove("domain", [each.before or {} for each in removed["domain"]])
    for is_domain in (False, True):
        new = SeedRows()
        for each in plan.added:
            if (each.kind == "domain") == is_domain and each.after is not None:
                if is_domain:
                    new.domains[kinds.domain_a_label(each.name)] = len(new.rows["domain"])
                new.add_item(each.kind, each.after, described(each.kind, each.after))
        if any(new.rows.values()):
            new.paths = {key: path for key, path in new.paths.items() if key not in plan.free}
            changes.insert(new)
        if not is_domain:
            for kind in KINDS:
                _change(changes, kind, changed[kind], origin)
    for kind in reversed(KINDS[:-1]):
        changes.remove(kind, [each.before or {} for each in removed[kind]])


def _change(changes: Changes, kind: str, made: Sequence[Change], origin: str | None) -> None:
    pairs, adopted = [], []
    for each in made:
        before, after = dict(each.before or {}), dict(each.after or {})
        if origin is not None and "origin" in after:
            del before["origin"], after["origin"]
            adopted.append(each.id)
        if before != after:
            pairs.append((before, after))
    if pairs:
        changes.replace(kind, pairs)
    if adopted:
        changes.adopt(kind, adopted)


def _by_kind(made: Iterable[Change]) -> Mapping[str, list[Change]]:
    found: dict[str, list[Change]] = {kind: [] for kind in members.MEMBERS}
    for each in made:
        found[each.kind].append(each)
    return found
