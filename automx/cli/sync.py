"""``automx sync``: the domains of sources become rows, and follow them."""

import gc
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import click

from automx import leases, sources
from automx import sync as synchronization
from automx.accounts.keystates import KeyStates
from automx.changes import MAX_ENTRIES
from automx.cli import plans
from automx.cli.context import Context, with_json
from automx.cli.terminal import complain, say, say_json
from automx.config import SourceSettings
from automx.database import Session
from automx.sync import Result, state
from automx.sync.state import Outcome, Record

log = logging.getLogger(__name__)

_LEASE = "sync"
_SPARE = timedelta(minutes=5)  # that a lease lasts longer than reading the source may take
_EARLY = 0.9  # of an interval: timers are late by a moment, and then early

_STATUS = (
    "Exit status: 0 if each source was read and the database holds what it says, even if some"
    " domains were passed over (standard error names them); 1 if a source changed nothing because"
    " it could not be read, is empty, or would switch off more than max_removed; 2 if the command"
    " was not understood."
)


@click.command(epilog=_STATUS)
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
@click.option("--adopt", is_flag=True, help="Take over rows of the same names without an origin.")
@click.option("--force", is_flag=True, help="Go on if more than max_removed are switched off.")
@click.option(
    "--due",
    is_flag=True,
    help="Only sources whose interval has passed, and only if no other process does it.",
)
@with_json
def sync(
    context: Context, names: tuple[str, ...], dry_run: bool, adopt: bool, force: bool, due: bool
) -> None:
    """Add, change, disable and remove domains as sources say.

    NAME is the name of a source of the settings; by default, all are read. What is changed is
    printed: + added, ~ changed, - removed.

    A domain that is gone is disabled first, and deleted after keep_days. Rows of other origins are
    never changed.
    """
    known = [source for source in context.settings.sources if source.finds_domains]
    chosen = _chosen(known, names)
    run = partial(
        synchronization.synchronize, now=context.now, adopt=adopt, force=force, dry_run=dry_run
    )
    results = []
    with context.session() as session, _rare_collections():
        for source in _due(context, session, chosen) if due else chosen:
            keys = KeyStates(lambda: Session(session.engine))
            read = partial(sources.read, source, context.settings, keys)
            before = state.record(session, source.name)
            result = run(session, source, read)
            results.append(result)
            if due and _is_known(result, before):
                continue
            _complain(result)
            if not context.as_json:
                _say(result, dry_run=dry_run)
    if context.as_json:
        say_json({"sources": [result.document() for result in results]})
    if any(result.outcome is not Outcome.DONE for result in results):
        raise click.exceptions.Exit(1)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for cycles of objects rarely until the block ends.

    Domains live to the end, and to look through hundreds of thousands takes a fifth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _chosen(known: Sequence[SourceSettings], names: Sequence[str]) -> list[SourceSettings]:
    by_name = {source.name: source for source in known}
    for name in names:
        if name not in by_name:
            all_names = ", ".join(by_name) or "none"
            raise click.UsageError(f"There is no section [source.{name}]; sources are {all_names}.")
    if not known:
        raise click.UsageError("The settings have no section [source.NAME].")
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(known)


def _due(
    context: Context, session: Session, chosen: Sequence[SourceSettings]
) -> Iterator[SourceSettings]:
    """Yield the sources that are due, each with the lease for it."""
    holder = f"{socket.gethostname()[:30]} {os.getpid()} {secrets.token_hex(8)}"
    took = False
    for source in chosen:
        if not _is_due(context, session, source):
            continue
        until = context.now + _longest(source)
        if not leases.take(session, _LEASE, holder, now=context.now, until=until):
            return
        took = True
        if _is_due(context, session, source):  # else another process has just given the lease back
            yield source
    if took:
        leases.give_back(session, _LEASE, holder)


def _is_due(context: Context, session: Session, source: SourceSettings) -> bool:
    before = state.record(session, source.name)
    session.rollback()
    if before is None:
        return True
    # Another process may have begun a little later than this one. A moment that is further to come
    # is that of a clock that was wrong: it must not be waited for.
    since = context.now - before.began_at
    return not -_longest(source) <= since < _EARLY * source.interval


def _longest(source: SourceSettings) -> timedelta:
    """Return how long a lease for a source lasts: longer than to read it may take."""
    return timedelta(seconds=source.timeout) + _SPARE


def _is_known(result: Result, before: Record | None) -> bool:
    """Return whether a result needs no line in the log of a timer: all is as it was before."""
    return (
        result.outcome is Outcome.DONE
        and not result.plan
        and before is not None
        and (before.outcome, before.problems) == (Outcome.DONE, len(result.plan.problems))
    )


def _complain(result: Result) -> None:
    name = result.source
    for line in result.plan.plan.warnings:
        complain(f"source {name}: {line}")
    for problem in result.plan.problems[:MAX_ENTRIES]:
        complain(f"source {name}: {problem}")
    if (more := len(result.plan.problems) - MAX_ENTRIES) > 0:
        complain(f"source {name}: {more} more were passed over")
    if result.outcome is not Outcome.DONE:
        complain(f"source {name}: {result.message}")


def _say(result: Result, *, dry_run: bool) -> None:
    """Print what was changed; only a dry run prints thousands of lines.

    A plan that was refused is printed by a dry run only, and that of an empty source never: it
    would be the end of all its domains.
    """
    if result.outcome is not Outcome.DONE and not (dry_run and result.outcome is Outcome.TOO_MANY):
        return
    *lines, summary = plans.lines(result.plan.plan)
    shown = lines if dry_run else lines[:MAX_ENTRIES]
    for line in shown:
        say(line)
    if len(shown) < len(lines):
        say(f"… and {len(lines) - len(shown)} more")
    if result.outcome is Outcome.DONE:
        count = f"{result.found} domain{'s' * (result.found != 1)}"
        say(f"Source {result.source}, {count}: {summary[0].lower()}{summary[1:]}")
