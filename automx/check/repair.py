"""Repairs of the doctor: rows are deleted that refer to rows that do not exist."""

from datetime import datetime

from automx import audit, changelog, references
from automx.accounts import tokens
from automx.database import Session
from automx.rowmemory import EVERYTHING

MAX_NAMES = 20


def repair(session: Session, *, actor: str, now: datetime) -> list[str]:
    """Delete rows that refer to rows that do not exist; return a line about each kind of them.

    ``actor`` is for the audit, which has one entry with the numbers. The transaction should begin
    here. The caller commits, or rolls back to learn only what would be deleted. Tokens with
    accounts stay: without them, the mailboxes would stay for ever. Raises DatabaseError.
    """
    changelog.wait_for_turn(session)
    dangling = references.dangling_references(session)
    orphans = [found.domain for found in dangling if found.table == "domain" and found.is_deleted]
    numbers = references.delete_dangling(session)
    deleted = dict(numbers)
    lines = []
    if numbers.pop("domain", 0):
        lines.append(f"domains whose provider does not exist: {_some(orphans)}")
    for table, number in numbers.items():
        lines.append(f"rows of {table} that refer to rows that do not exist: {number}")
    gone = [
        token.name
        for token in tokens.without_domain(session)
        if not tokens.number_of_accounts(session, token.id)
    ]
    for name in gone:
        tokens.remove(session, name)
    if gone:
        lines.append(f"tokens whose domain is not in the database: {_some(gone)}")
        deleted["token"] = len(gone)
    if deleted:
        details = {"numbers": {"delete": deleted}}
        audit.write(session, actor, now, action="repair", kind="", name="", details=details)
        changelog.write(session, EVERYTHING)
    return lines


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
