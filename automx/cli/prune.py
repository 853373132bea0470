"""``automx prune``: warns, disables, deletes and cleans up accounts."""

from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial

import click

from automx import audit, leases
from automx.accounts.accounts import Account
from automx.accounts.keystates import KeyStates
from automx.accounts.prune import Done, Policy, pending, run
from automx.backends import Backends
from automx.backends.command import run_hook
from automx.cli.context import Context, with_json
from automx.cli.terminal import EXIT_STATUS, complain, say, with_progress
from automx.config import AccountSettings
from automx.database import Session
from automx.moments import iso, parse_moment, to_minute

# Infinitive and past of each action, in the order of the summary.
_WORDS = {
    "warn": ("warn", "warned"),
    "prolong": ("prolong", "prolonged"),
    "disable": ("disable", "disabled"),
    "delete": ("delete", "deleted"),
    "forget": ("forget", "forgotten"),
    "settle": ("clean up", "cleaned up"),
}


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """Return the value of --now; BadParameter if it is no moment."""
    try:
        return parse_moment(text) if text is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=EXIT_STATUS)
@click.option("--dry-run", is_flag=True, help="Change nothing: only print what would be done.")
@click.option(
    "--now",
    "time",
    metavar="TIME",
    callback=_moment,
    help="Act as if it were this time (UTC), such as 2026-12-31 or 2026-12-31T18:00. Without"
    " --dry-run, a time in the future ends accounts before their expiry.",
)
@with_json
def prune(context: Context, dry_run: bool, time: datetime | None) -> None:
    """Warn, disable, delete and clean up accounts.

    People are warned before the end of an account; expired accounts are disabled, then deleted.

    Accounts are cleaned up that were left half done by a killed program or a mail server without
    an answer. Run this every few minutes by a timer; several runs at once do no harm. The next run
    tries again what failed.

    Entries of the audit are deleted after audit_days.

    The times are set by account_warn_before, account_warn_command and account_grace.
    """
    now = time or context.now
    settings = context.settings.accounts
    policy = _policy(settings, now)
    steps: list[Done] = []
    with (
        context.session() as session,
        closing(Backends(settings, lambda: KeyStates(lambda: Session(session.engine)))) as backends,
    ):
        actions = pending(session, now=now, policy=policy)
        work = run(session, actions, backends, now=now, policy=policy, dry_run=dry_run)
        for done in with_progress(work, len(actions)):
            steps.append(done)
            if done.error:
                account, infinitive = done.account, _WORDS[done.action][0]
                complain(
                    f"could not {infinitive} {account.address} (token {account.token}):"
                    f" {done.error.reason}"
                )
            elif not context.as_json:
                say(_line(done, policy, now, dry_run))
    forgotten = _prune_audit(context, dry_run)
    failed = sum(1 for done in steps if done.error)
    if not dry_run:
        with context.session() as session:
            leases.note_end(session, leases.PRUNE, "failed" if failed else "done", context.now)
    document: dict[str, object] = {"now": iso(now), "dry_run": dry_run, "failed": failed}
    document |= {"steps": [done.document() for done in steps], "audit_entries": forgotten}
    context.write(document, lambda: _summary(steps, dry_run))
    if failed:
        raise click.exceptions.Exit(1)


def _prune_audit(context: Context, dry_run: bool) -> int:
    """Delete old entries of the audit, by the real time; return their number."""
    days = context.settings.audit_days
    if not days:
        return 0
    with context.session() as session:
        number = audit.delete_before(session, context.now - timedelta(days=days))
        if dry_run:
            session.rollback()
    if number and not context.as_json:
        verb = "would delete" if dry_run else "deleted"
        say(f"{verb} {number} entries of the audit that are older than {days} days")
    return number


def _policy(settings: AccountSettings, now: datetime) -> Policy:
    if settings.warn_before and not settings.warn_command:
        complain("account_warn_before has no effect: account_warn_command is not set")
    warn = partial(_warn, settings, now) if settings.warn_command else None
    return Policy(settings.warn_before, warn, settings.grace)


def _warn(settings: AccountSettings, now: datetime, account: Account) -> None:
    """Run account_warn_command for an account that ends soon."""
    if account.expires_at is None:
        return
    document = {
        "version": 1,
        "action": "warn",
        "address": account.address,
        "token": account.token,
        "expires_at": iso(account.expires_at),
        "seconds_left": int((account.expires_at - now).total_seconds()),
    }
    run_hook(settings.warn_command, document, timeout=settings.timeout)


def _line(done: Done, policy: Policy, now: datetime, dry_run: bool) -> str:
    infinitive, past = _WORDS[done.action]
    verb = f"would {infinitive}" if dry_run else past
    account = done.account
    return f"{verb} {account.address} ({_circumstances(done, policy, now)}, token {account.token})"


def _circumstances(done: Done, policy: Policy, now: datetime) -> str:
    """Return the reason of an action, or what follows from it."""
    account = done.account
    match done.action.value, account.state.value:
        case "prolong", _:
            until = f"until {to_minute(done.expires_at)}" if done.expires_at else "for ever"
            return f"may still be in use; {until}"
        case "forget", _:
            return "its mailbox was not made for it, and stays"
        case "settle", "creating":
            return "its creation was interrupted"
        case "settle", _:
            return "its creation failed"
        case "delete", "deleting":
            return "its deletion was interrupted"
    if account.expires_at is None:
        return "without expiry"
    verb = "expires" if account.expires_at > now else "expired"
    text = f"{verb} {to_minute(account.expires_at)}"
    if done.action == "disable":
        text += f"; to be deleted {to_minute(now + policy.grace)}"
    return text


def _summary(steps: list[Done], dry_run: bool) -> str:
    """Return the number of accounts by action, in one line."""
    counts = Counter(done.action.value for done in steps if not done.error)
    parts = [
        f"{infinitive} {counts[action]}" if dry_run else f"{counts[action]} {past}"
        for action, (infinitive, past) in _WORDS.items()
        if counts[action]
    ]
    if dry_run and parts:
        parts[0] = f"Would {parts[0]}"
    if failed := len(steps) - counts.total():
        parts.append(f"{failed} failed")
    return ", ".join(parts) + "." if parts else "Nothing to do."
