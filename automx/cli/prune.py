"""``automx prune``: what has to be done for accounts as time passes."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

import click

from automx.cli.text import (
    EXIT_STATUS,
    complain,
    echo_json,
    iso,
    json_option,
    parse_moment,
    reason,
    this_second,
    to_minute,
    with_progress,
)

if TYPE_CHECKING:
    from automx.accounts.accounts import Account
    from automx.accounts.prune import Done, Policy
    from automx.config import Settings

# What is done, what was done; by automx.accounts.prune.Action, in the order of a summary.
_WORDS = {
    "warn": ("warn", "warned"),
    "prolong": ("prolong", "prolonged"),
    "disable": ("disable", "disabled"),
    "delete": ("delete", "deleted"),
    "settle": ("clean up", "cleaned up"),
}


@click.command(epilog=EXIT_STATUS)
@click.option("--dry-run", is_flag=True, help="Change nothing: only print what would be done.")
@click.option(
    "--now",
    "time",
    metavar="TIME",
    help="Act as if it were this time (UTC), such as 2026-12-31 or 2026-12-31T18:00. Without"
    " --dry-run, a time to come ends accounts before their expiry.",
)
@json_option
def prune(dry_run: bool, time: str | None, as_json: bool) -> None:
    """Warn of the end of accounts, disable and delete expired ones, clean up.

    Cleaned up is what was left half done when a program was killed or a mail server did not
    answer. To be run every few minutes, by a timer; it may run several times at once. What fails
    is tried again by the next run.

    The settings account_warn_before, account_warn_command and account_grace say what is done when.
    """
    from automx.accounts.prune import pending, run
    from automx.backends import Backends
    from automx.config import load
    from automx.database import open_session

    now = this_second() if time is None else parse_moment(time, "'--now'")
    settings = load()
    policy = _policy(settings, now)
    steps: list[Done] = []
    with open_session(settings.db_uri) as session, closing(Backends(settings.accounts)) as backends:
        actions = pending(session, now=now, policy=policy)
        work = run(session, actions, backends, now=now, policy=policy, dry_run=dry_run)
        for done in with_progress(work, len(actions)):
            steps.append(done)
            if done.error:
                account, infinitive = done.account, _WORDS[done.action][0]
                complain(
                    f"could not {infinitive} {account.address} (token {account.token}):"
                    f" {reason(done.error)}"
                )
            elif not as_json:
                click.echo(_line(done, policy, now, dry_run))
    failed = sum(1 for done in steps if done.error)
    if as_json:
        document = {"now": iso(now), "dry_run": dry_run, "failed": failed}
        echo_json(document | {"steps": [_document(done) for done in steps]})
    else:
        click.echo(_summary(steps, dry_run))
    if failed:
        raise click.exceptions.Exit(1)


def _policy(settings: "Settings", now: datetime) -> "Policy":
    from automx.accounts.prune import Policy

    if settings.accounts.warn_before and not settings.accounts.warn_command:
        complain("account_warn_before has no effect: account_warn_command is not set")
    return Policy(
        warn_before=settings.accounts.warn_before,
        warn=_warner(settings, now) if settings.accounts.warn_command else None,
        grace=settings.accounts.grace,
    )


def _warner(settings: "Settings", now: datetime) -> Callable[["Account"], None]:
    """Return what tells the program of account_warn_command that an account ends."""

    def warn(account: "Account") -> None:
        from automx.backends.command import run_hook

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
        run_hook(settings.accounts.warn_command, document, timeout=settings.accounts.timeout)

    return warn


def _line(done: "Done", policy: "Policy", now: datetime, dry_run: bool) -> str:
    infinitive, past = _WORDS[done.action]
    verb = f"would {infinitive}" if dry_run else past
    account = done.account
    return f"{verb} {account.address} ({_circumstances(done, policy, now)}, token {account.token})"


def _circumstances(done: "Done", policy: "Policy", now: datetime) -> str:
    """Return why something was done, or what comes of it."""
    account = done.account
    match done.action.value, account.state.value:
        case "prolong", _:
            until = f"until {to_minute(done.expires_at)}" if done.expires_at else "for ever"
            return f"may still be in use; {until}"
        case "settle", "creating":
            return "its making was cut off"
        case "settle", _:
            return "its making failed"
        case "delete", "deleting":
            return "its deletion was cut off"
    if account.expires_at is None:
        return "without expiry"
    verb = "expires" if account.expires_at > now else "expired"
    text = f"{verb} {to_minute(account.expires_at)}"
    if done.action == "disable":
        text += f"; to be deleted {to_minute(now + policy.grace)}"
    return text


def _document(done: "Done") -> dict[str, object]:
    account = done.account
    expires_at = done.expires_at if done.action == "prolong" else account.expires_at
    return {
        "action": done.action.value,
        "address": account.address,
        "token": account.token,
        "expires": iso(expires_at),
        "error": reason(done.error) if done.error else None,
    }


def _summary(steps: list["Done"], dry_run: bool) -> str:
    """Return how much was done, in one line."""
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
