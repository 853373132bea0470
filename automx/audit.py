"""The audit: who changed what, and when.

An entry has the members that were changed, before and after. Secrets are never in it, and of an
image it has the digest.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Insert, or_, select

from automx import rows
from automx.accountcolumns import TOKEN
from automx.database import Session
from automx.kinds import domain_a_label
from automx.models import metadata
from automx.moments import iso

_AUDIT = metadata.tables["audit"]
_MAX_DETAILS = 60_000  # characters of ASCII: what a TEXT of MariaDB holds

MASK = "***"  # in place of a secret
SECRETS = {name for name, kind in (rows.LDAPSERVER | TOKEN).items() if kind.secret}


class Entry(NamedTuple):
    """An entry of the audit.

    ``actor`` is ``user:NAME`` for a user of the system, ``key:NAME``, ``source:NAME``, ``initdb``,
    or ``seed`` for another program. ``kind`` is that of the row, ``name`` what people call it.
    ``details`` is a JSON object.
    """

    id: int
    at: datetime
    actor: str
    action: str
    kind: str
    name: str
    details: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the entry as JSON holds it."""
        return {**self._asdict(), "at": iso(self.at)}


def write(
    session: Session,
    actor: str,
    now: datetime,
    *,
    action: str,
    kind: str,
    name: str,
    details: Mapping[str, Any],
) -> None:
    """Write an entry; the caller commits."""
    session.execute(entry(actor, now, action=action, kind=kind, name=name, details=details))


def entry(
    actor: str,
    now: datetime,
    *,
    action: str,
    kind: str,
    name: str,
    details: Mapping[str, Any],
) -> Insert:
    """Return the statement that writes an entry; ``numbers`` in its details are how many rows."""
    shown = masked(details)
    if "numbers" in details:  # that of tokens is no secret
        shown["numbers"] = details["numbers"]
    text = json.dumps(shown)
    if len(text) > _MAX_DETAILS:
        text = json.dumps({"digest": hashlib.sha256(text.encode()).hexdigest()})
    values = {"actor": actor[:128], "action": action, "kind": kind, "name": name[:255]}
    return _AUDIT.insert().values({"at": now, "details": text, **values})


def _digest(image: bytes) -> str:
    return f"sha256:{hashlib.sha256(image).hexdigest()}"


def masked(value: object, key: str = "", *, image: Callable[[bytes], str] = _digest) -> Any:
    """Return a value as the audit and people see it: JSON without secrets, images as digests."""
    if key in SECRETS:
        return value and MASK
    match value:
        case Mapping():
            return {name: masked(item, name, image=image) for name, item in value.items()}
        case list() | tuple():
            return [masked(item, image=image) for item in value]
        case bytes():
            return image(value)
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)


def masked_row(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as documents hold it: JSON without secrets, images in Base64."""
    found: dict[str, Any] = masked(item, image=lambda data: base64.b64encode(data).decode())
    return found


def entries(
    session: Session,
    *,
    domain: str = "",
    since: datetime | None = None,
    after: int = 0,
    actor: str = "",
    number: int | None = None,
) -> Iterator[Entry]:
    """Yield entries, oldest first: those of a domain and its accounts, or all.

    ``after`` is the id of the last entry that is known already; ``number`` is how many are wanted
    at most, those of ``actor`` only if it is given. Raises AddressError for a bad domain.
    """
    query = select(_AUDIT).where(_AUDIT.c.id > after).order_by(_AUDIT.c.id)
    if domain:
        name = domain_a_label(domain)
        account = _AUDIT.c.name.endswith(f"@{name}", autoescape=True)
        query = query.where(or_(_AUDIT.c.name == name, account))
    if since is not None:
        query = query.where(_AUDIT.c.at >= since)
    if actor:
        query = query.where(_AUDIT.c.actor == actor)
    if number is not None:
        query = query.limit(number)
    for row in session.execute(query.execution_options(yield_per=500)):
        values = row._asdict()
        yield Entry(**values | {"details": _details(values["details"])})


def _details(text: object) -> dict[str, Any]:
    """Return the details of an entry, which SQL or a backup may have brought."""
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"text": str(text)}


def disabled_by(session: Session, domain_id: int) -> str:
    """Return the actor who has switched a domain off last, "" if that is not certain.

    It is uncertain if the entry is deleted, or if a change of many rows came later: its entry does
    not name them.
    """
    its = _AUDIT.c.details.contains(f'"id": {domain_id},', autoescape=True)
    many = (_AUDIT.c.action == "bulk") & _AUDIT.c.details.contains('"set"', autoescape=True)
    query = select(_AUDIT).where(or_((_AUDIT.c.kind == "domain") & its, many))
    for row in session.execute(query.order_by(_AUDIT.c.id.desc())):
        details = _details(row.details)
        if row.action == "bulk":
            return ""
        if details.get("id") != domain_id:
            continue
        after = details.get("after")
        if isinstance(after, dict) and after.get("disabled"):
            return str(row.actor)
        if row.action != "set":  # an earlier domain of the same id
            return ""
    return ""


def delete_before(session: Session, moment: datetime) -> int:
    """Delete the entries that are older than a moment; return their number. The caller commits."""
    return session.execute(_AUDIT.delete().where(_AUDIT.c.at < moment)).rowcount
