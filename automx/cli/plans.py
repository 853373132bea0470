"""Plans as people read them: + added, ~ changed with before and after, - removed."""

from collections import Counter
from collections.abc import Iterator

from automx.changes import Change
from automx.changes.plan import Plan
from automx.changes.selection import plural_of
from automx.cli import rowtext


def lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan for people, the counts at the end."""
    for change in plan.added:
        yield f"+ {change.kind} {change.name}"
    names = {(kind, row_id): name for kind, of in plan.names.items() for row_id, name in of.items()}
    for change in plan.changed:
        values = "; ".join(rowtext.differences(change, names))
        yield f"~ {change.kind} {change.name}: {values}"
    for change in plan.removed:
        yield f"- {change.kind} {change.name}"
    yield f"{summary(plan).capitalize()}." if plan else "Nothing to do."


def summary(plan: Plan) -> str:
    """Return the counts, such as "add 1 server; change 3 domains"."""
    parts = (("add", plan.added), ("change", plan.changed), ("remove", plan.removed))
    return "; ".join(f"{word} {_counted(changes)}" for word, changes in parts if changes)


def _counted(changes: list[Change]) -> str:
    numbers = Counter(change.kind for change in changes)
    return ", ".join(
        f"{number} {kind if number == 1 else plural_of(kind)}" for kind, number in numbers.items()
    )
