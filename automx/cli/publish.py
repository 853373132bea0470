"""``automx publish``: documents that are the same for everybody become files for nginx."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL, getLogger
from pathlib import Path
from time import monotonic, sleep

import click

from automx import changelog
from automx.changes import MAX_ENTRIES
from automx.cli.addresses import PATH
from automx.cli.context import Context, with_json
from automx.cli.terminal import EXIT_STATUS, complain, say
from automx.database import Session
from automx.errors import DatabaseError
from automx.moments import this_second
from automx.publish.folder import Folder, Outcome
from automx.publish.run import Result, Run

CHECK_SECONDS = 60.0  # from one check of rows to the next, with --watch


@click.command(epilog=EXIT_STATUS)
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--full", is_flag=True, help="Compare all files, whatever has changed.")
@click.option("--watch", is_flag=True, help="Go on, and follow each change within a second.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@with_json
def publish(context: Context, folder: Path, full: bool, watch: bool, dry_run: bool) -> None:
    """Write documents that are the same for everybody into DIR, for nginx.

    These are Autoconfig and PACC documents, a file for each domain. DIR is empty or was made by
    this command; it belongs to the user who runs it, and nobody else may write there.

    Only what has changed since the last run is read. All files are compared once an hour, after a
    change of settings, and if SQL seems to have changed rows.
    """
    if watch and (dry_run or context.as_json):
        raise click.UsageError("--watch goes neither with --dry-run nor with --json.")
    with Folder(folder, dry_run=dry_run) as opened, _quiet():
        if watch:
            _watch(context, opened, full=full)
        with context.session() as session:
            run = Run(session, opened, context.settings, now=context.now, full=full)
            changes = _changes(run, is_shown=dry_run and not context.as_json)
        result = run.result
        _complain(result)
        document = {"folder": str(folder), "dry_run": dry_run, **result.document()}
        context.write(document | {"changes": changes}, lambda: _summary(result, dry_run=dry_run))
    if result.failed:
        raise click.exceptions.Exit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Name no bad rows in the log: they have no files, and the doctor reports them."""
    logger = getLogger("automx")
    before = logger.level
    logger.setLevel(CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _watch(context: Context, folder: Folder, *, full: bool) -> None:
    """Run again and again, until the process is ended."""
    is_away = False
    checked = float("-inf")
    while True:
        try:
            with context.session() as session:
                while True:
                    began = monotonic()
                    is_due = began - checked >= CHECK_SECONDS
                    result = _step(context, session, folder, full=full, checks=is_due)
                    full, is_away = False, False
                    checked = began if is_due else checked
                    pause = CHECK_SECONDS if result.failed else changelog.SECONDS
                    sleep(max(0.0, began + pause - monotonic()))
        except DatabaseError as error:
            if not is_away:
                complain(f"{error.reason}; the files stay as they are until it answers")
            is_away = True
            sleep(changelog.SECONDS)


def _step(
    context: Context, session: Session, folder: Folder, *, full: bool, checks: bool
) -> Result:
    run = Run(session, folder, context.settings, now=this_second(), full=full, checks=checks)
    for _ in run.files():
        pass
    session.rollback()
    _complain(run.result)
    if run.result.is_changed:
        say(_summary(run.result, dry_run=False))
    return run.result


def _changes(run: Run, *, is_shown: bool) -> list[dict[str, str]]:
    """Return the first changes, and print all if they are shown."""
    changes: list[dict[str, str]] = []
    for outcome, kind, domain in run.files():
        if is_shown:
            say(f"{'+' if outcome is Outcome.WRITTEN else '-'} {kind} {domain}")
        if len(changes) < MAX_ENTRIES:
            changes.append({"action": str(outcome), "kind": kind, "domain": domain})
    return changes


def _complain(result: Result) -> None:
    for line in result.failures:
        complain(line)
    if (more := result.failed - len(result.failures)) > 0:
        complain(f"{more} more files could not be written or removed")


def _summary(result: Result, *, dry_run: bool) -> str:
    counts = result.counts
    if not (result.reason or result.is_changed or result.failed):
        return "Nothing has changed since the last run."
    would = "Would be " if dry_run else ""
    text = f"{would}{counts[Outcome.WRITTEN]} written, {counts[Outcome.REMOVED]} removed"
    if result.reason:
        text += f", {counts[Outcome.UNCHANGED]} unchanged; all were compared: {result.reason}"
    return f"{text}."
