"""Runs: files follow the rows, by the log of changes or by a comparison of all.

A run ends by writing the place in the log that it has seen. It is the one at which it began, so
that a run that was killed, or met changes, is made good by the next one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b

from sqlalchemy import ColumnElement, or_, select

import automx
from automx import changelog
from automx.address import parse_domain
from automx.config import Settings
from automx.database import KEYS_AT_ONCE, Session, url_of
from automx.errors import AddressError
from automx.models import Domain, davserver_domain, metadata, server_domain
from automx.publish import rowcheck
from automx.publish.documents import Documents, Reader
from automx.publish.folder import KINDS, Folder, Outcome
from automx.publish.rowcheck import Check
from automx.rowmemory import EVERYTHING, RowKey

FULL_AFTER = timedelta(hours=1)  # from one comparison of all files to the next

_LAYOUT = 1  # of the folder; another one is written anew
_FAILURES = 20  # that are told one by one


@dataclass(frozen=True)
class State:
    """What a run has seen: settings, the place in the log, the checks of rows.

    ``touched`` are the tables that the log has named since the checks were made.
    """

    fingerprint: str
    number: int
    full_at: datetime
    checks: Mapping[str, Check]
    touched: frozenset[str] = frozenset()

    @classmethod
    def read(cls, text: bytes) -> "State | None":
        """Return a state that was written; None if it is none."""
        try:
            found = json.loads(text)
            full_at = datetime.fromisoformat(found["full_at"])
            touched = frozenset(found["touched"])
            return cls(found["fingerprint"], found["number"], full_at, found["checks"], touched)
        except (ValueError, TypeError, LookupError):
            return None

    def text(self) -> bytes:
        """Return what read() reads."""
        values = {
            "fingerprint": self.fingerprint,
            "number": self.number,
            "full_at": self.full_at.isoformat(),
            "checks": dict(self.checks),
            "touched": sorted(self.touched),
        }
        return json.dumps(values).encode()


@dataclass
class Result:
    """What a run has done; ``reason`` says why all files were compared, "" if they were not."""

    reason: str = ""
    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def is_changed(self) -> bool:
        """Whether a file was written or removed."""
        return bool(self.counts[Outcome.WRITTEN] or self.counts[Outcome.REMOVED])

    def document(self) -> dict[str, object]:
        """Return the result as JSON has it."""
        names = (Outcome.WRITTEN, Outcome.REMOVED, Outcome.UNCHANGED)
        counts = {str(name): self.counts[name] for name in names}
        return {"compared_all": self.reason, **counts, "failed": self.failed}


class Run:
    """One run over a folder; ``full`` compares all files.

    Without ``checks``, only the log is asked for changes. Raises DatabaseError.
    """

    def __init__(
        self,
        session: Session,
        folder: Folder,
        settings: Settings,
        *,
        now: datetime,
        full: bool = False,
        checks: bool = True,
    ) -> None:
        self._session, self._folder, self._settings = session, folder, settings
        self._now = now
        self._is_full, self._has_checks = full, checks
        self.result = Result()
        self._reader = Reader(session, settings)

    def files(self) -> Iterator[tuple[Outcome, str, str]]:
        """Compare, write and remove; yield outcome, kind and domain of each file that changes."""
        before = State.read(self._folder.state())
        # First of all: what changes later is read by the next run.
        if before is None:
            number, changed = changelog.last_number(self._session), EVERYTHING
        else:
            number, changed = changelog.read_since(self._session, before.number)
        self._session.rollback()
        after = self._state(before, number, changed)
        if self.result.reason:
            yield from self._compare_all()
        else:
            yield from self._follow(changed)
        try:
            self._folder.flush()
            if self.result.failed == 0 and after != before:
                self._folder.write_state(after.text())
        except OSError as error:
            self._fail(str(self._folder.path), error)

    def _state(self, before: State | None, number: int, changed: frozenset[RowKey]) -> State:
        """Return the state that this run leaves, and find out why all is compared, if it is."""
        digest = fingerprint(self._settings)
        if before is None:
            self.result.reason = "there was no run before"
            before = State(digest, number, self._now, {})
        elif before.fingerprint != digest:
            self.result.reason = "automx or its settings were changed"
        elif not changed.isdisjoint(EVERYTHING):
            self.result.reason = "everything may have changed"
        elif gone := self._gone(changed):
            self.result.reason = f"{gone} was deleted"
        elif self._is_full:
            self.result.reason = "it was asked for"
        elif not timedelta(0) <= self._now - before.full_at < FULL_AFTER:
            self.result.reason = "the last comparison is old"
        touched = before.touched | {table for table, _ in changed}
        checks = before.checks if before.fingerprint == digest else {}
        if self._has_checks or self.result.reason:
            checks, differing = rowcheck.differing(self._session, checks)
            if not self.result.reason and (by_sql := sorted(differing - touched)):
                self.result.reason = f"SQL has changed rows ({', '.join(by_sql)})"
            touched = frozenset()
        full_at = self._now if self.result.reason else before.full_at
        return State(digest, number, full_at, checks, touched)

    def _gone(self, changed: frozenset[RowKey]) -> str:
        """Return a row of the log that is no more: which domains used it is not known then."""
        for table, ids in _ids(changed).items():
            if len(ids) > KEYS_AT_ONCE:
                return f"one of many {table}s perhaps"
            key = metadata.tables[table].c.id
            found = set(self._session.scalars(select(key).where(key.in_(ids))))
            if lost := [each for each in ids if each not in found]:
                return f"{table} {lost[0]}"
        return ""

    def _compare_all(self) -> Iterator[tuple[Outcome, str, str]]:
        for domain, documents in self._reader.of_rows(None):
            yield from self._put(domain, documents)
        for kind in KINDS:
            for names in self._folder.names(kind):
                for domain in self._reader.without_row(names):
                    yield from self._put(domain, self._of_domain(domain))

    def _follow(self, changed: frozenset[RowKey]) -> Iterator[tuple[Outcome, str, str]]:
        for table, domain in sorted(changed):
            if table == "domain":
                yield from self._put(domain, self._of_domain(domain))
        if (condition := _using(changed)) is not None:
            for domain, documents in self._reader.of_rows(condition):
                yield from self._put(domain, documents)

    def _of_domain(self, domain: str) -> Documents:
        """Return the documents of the domain of a row or a file, whose name may be none."""
        try:
            is_domain = parse_domain(domain) == domain
        except AddressError:
            is_domain = False
        found = self._reader.of_domain(domain) if is_domain else dict.fromkeys(KINDS)
        self._session.rollback()
        return found

    def _put(self, domain: str, documents: Documents) -> Iterator[tuple[Outcome, str, str]]:
        for kind, body in documents.items():
            try:
                outcome = self._folder.put(kind, domain, body)
            except OSError as error:
                self._fail(f"{kind} {domain}", error)
                continue
            self.result.counts[outcome] += 1
            if outcome in {Outcome.WRITTEN, Outcome.REMOVED}:
                yield outcome, kind, domain

    def _fail(self, what: str, error: OSError) -> None:
        self.result.failed += 1
        if len(self.result.failures) < _FAILURES:
            self.result.failures.append(f"{what}: {error.strerror}")


def fingerprint(settings: Settings) -> str:
    """Return a digest of what decides for documents beside the rows; no secret is in it."""
    people = [(source.name, source.domains) for source in settings.sources if source.finds_people]
    url = url_of(settings.db_uri)
    database = (url.get_backend_name(), url.host, url.port, url.database)
    values = (_LAYOUT, automx.__version__, settings.publish_seconds > 0, people, database)
    return blake2b(repr(values).encode(), digest_size=16).hexdigest()


def _ids(changed: frozenset[RowKey]) -> dict[str, list[int]]:
    """Return the ids of changed rows that domains refer to, by table."""
    found: dict[str, list[int]] = {}
    for table, key in sorted(changed - EVERYTHING):
        if table != "domain":
            found.setdefault(table, []).append(int(key))
    return found


def _using(changed: frozenset[RowKey]) -> ColumnElement[bool] | None:
    """Return the condition for domains that refer to changed rows; None if there are none."""
    conditions: list[ColumnElement[bool]] = []
    for table, ids in _ids(changed).items():
        match table:
            case "provider":
                conditions.append(Domain.c.provider_id.in_(ids))
            case "ldapserver":
                conditions.append(Domain.c.ldapserver_id.in_(ids))
            case "server" | "davserver":
                links = server_domain if table == "server" else davserver_domain
                row_id, domain_id = links.columns
                linked = select(domain_id).where(row_id.in_(ids))
                conditions.append(Domain.c.id.in_(linked))
    return or_(*conditions) if conditions else None
