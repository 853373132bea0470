"""``automx apply``: makes the database hold what a document says."""

import click

from automx import seeddocument
from automx.apply import apply as apply_document
from automx.changes.plan import Plan
from automx.cli import plans
from automx.cli.addresses import FILE
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
@click.argument("file", type=FILE)
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
        for line in plans.lines(plan):
            say(line)
    if plan and is_asking:
        confirm(f"this would {plans.summary(plan)}", question="Apply?", yes=False)
        run(dry_run=False, expected=plan)
