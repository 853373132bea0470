"""``automx apply``: makes the database hold what a document says."""

from collections import Counter
from collections.abc import Iterator

import click

from automx import seeddocument
from automx.apply import Plan
from automx.apply import apply as apply_document
from automx.changes import Change
from automx.changes.selection import plural_of
from automx.cli import rowtext
from automx.cli.context import Context, with_json
from automx.cli.documents import read_document
from automx.cli.terminal import EXIT_STATUS, complain, confirm, say, say_json
from automx.kinds import BadValueError


def _origin(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    try:
        return None if text is None else seeddocument.ORIGIN.read(text)
    except BadValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=EXIT_STATUS)
@click.argument("file")
@click.option("--prune", is_flag=True, help="Remove rows of this origin that FILE does not name.")
@click.option("--origin", metavar="NAME", callback=_origin, help="What the rows come from.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_json
def apply(
    context: Context,
    file: str,
    prune: bool,
    origin: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make the database hold what FILE says.

    FILE is a seed document in JSON or YAML; - reads standard input. What would be changed is
    printed first: + added, ~ changed, - removed. All is done in one transaction.

    A member that FILE leaves out gets its default. Rows of another origin are never changed. Rows
    that FILE names and that have no origin get the one of FILE.
    """
    given = read_document(file)

    def run(*, dry_run: bool, expected: Plan | None = None) -> Plan:
        with context.session() as session:
            return apply_document(
                session,
                given.document,
                actor=context.actor,
                now=context.now,
                digest=given.digest,
                origin=origin,
                prune=prune,
                dry_run=dry_run,
                expected=expected,
            )

    is_asking = not (yes or dry_run)
    plan = run(dry_run=dry_run or is_asking)
    for line in plan.warnings:
        complain(line)
    if context.as_json:
        say_json(plan.document())
    else:
        for line in _lines(plan):
            say(line)
    if plan and is_asking:
        confirm(f"this would {_summary(plan)}", question="Apply?", yes=False)
        run(dry_run=False, expected=plan)


def _lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan for people, the counts at the end."""
    for change in plan.added:
        yield f"+ {change.kind} {change.name}"
    names = {(kind, row_id): name for kind, of in plan.names.items() for row_id, name in of.items()}
    for change in plan.changed:
        values = "; ".join(rowtext.differences(change, names))
        yield f"~ {change.kind} {change.name}: {values}"
    for change in plan.removed:
        yield f"- {change.kind} {change.name}"
    yield f"{_summary(plan).capitalize()}." if plan else "Nothing to do."


def _summary(plan: Plan) -> str:
    """Return the counts, such as "add 1 server; change 3 domains"."""
    parts = (("add", plan.added), ("change", plan.changed), ("remove", plan.removed))
    return "; ".join(f"{word} {_counted(changes)}" for word, changes in parts if changes)


def _counted(changes: list[Change]) -> str:
    numbers = Counter(change.kind for change in changes)
    return ", ".join(
        f"{number} {kind if number == 1 else plural_of(kind)}" for kind, number in numbers.items()
    )
