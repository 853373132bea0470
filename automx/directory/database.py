"""People in the database of another program, found by a query: the face of a directory.

A look-up runs in a thread of its source and is waited for no longer than its time, whatever hangs.
A database that failed is passed over for a while; then one request at a time tries again.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock
from time import monotonic

from automx import deadline
from automx.address import EmailAddress
from automx.config import SourceSettings
from automx.counts import Counts
from automx.database.foreign import Answer, ForeignDatabase, NoSuchTextError, QueryError
from automx.directory.lookups import Lookups, Places
from automx.directory.person import DirectoryError, Person, usable
from automx.directory.queries import query
from automx.errors import AutomxError
from automx.memory import Memory, NotRememberedError

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0  # how long a database that failed is passed over
COLUMNS = ("login", "name")

_REMEMBERED = 10_000  # addresses of a source
_REPEAT_SECONDS = 60.0  # between two lines of the log about a query that is refused


class PeopleDatabase:
    """The people of one source; threads share it. ``name`` is that in the log and in metrics."""

    def __init__(
        self,
        source: SourceSettings,
        places: Places,
        counts: Counts,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.name = f"source {source.name}"
        self._counts = counts
        self._timeout = source.people_timeout
        self._query = query(source)
        self._now = now
        self._lock = Lock()
        self._failed_at: float | None = None  # None as long as it answers
        self._retry_at = 0.0
        self._is_tried = False
        self._complained_at: float | None = None
        self._people: Memory[str, Person | None]
        self._people = Memory(_REMEMBERED, source.people_cache_seconds, now)
        self._lookups = Lookups(places, f"people-{source.name}")
        self._database = ForeignDatabase(
            source.uri, source.people_timeout, f"the database of the {self.name}"
        )

    def find(self, address: EmailAddress) -> Person | None:
        """Return what the database says of an address, None if it does not know it.

        Answers come from memory if they are fresh enough. Raises DirectoryError if the database
        cannot be asked in time, or refuses the query.
        """
        with suppress(NotRememberedError):
            return self.remembered(address)
        found = self._counts.look_up(self.name, lambda: self._tried(address))
        with self._lock:
            self._people.keep(_key(address), found, self._now())
        return found

    def remembered(self, address: EmailAddress) -> Person | None:
        """Return what find() would from memory. It never waits. Raises NotRememberedError."""
        return self._people.answer(_key(address))

    @property
    def is_up(self) -> bool:
        """Whether the last look-up was answered."""
        return self._failed_at is None

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def _tried(self, address: EmailAddress) -> Person | None:
        is_try = self._claim()
        try:
            return self._find(address)
        finally:
            if is_try:
                self._is_tried = False

    def _claim(self) -> bool:
        """Return whether this look-up is the one that tries a database that had failed.

        Raises DirectoryError if it is passed over.
        """
        with self._lock:
            if self._failed_at is None:
                return False
            # While it is away, another thread looks whether it is back.
            is_over = self._now() >= self._retry_at and not self._database.is_away
            if self._is_tried or not is_over:
                raise DirectoryError
            self._is_tried = True
            return True

    def _find(self, address: EmailAddress) -> Person | None:
        end = deadline.after(self._timeout)
        with self._lookups.turn(end):
            began = monotonic()
            future = self._lookups.submit(self._database.ask, self._query, values(address))
            try:
                answer = self._wait(future, end)
                found = person(self.name, answer, address)
            except NoSuchTextError as error:
                log.debug("%s: %s", self.name, error.cause)
                found = None
            except QueryError as error:  # another address may be answered
                self._complain(error)
                raise DirectoryError from error
            except (AutomxError, TimeoutError) as error:
                self._failed(began, error)
                raise DirectoryError from error
            self._lookups.note_answer()
            self._answered(began)
            return found

    def _wait(self, future: Future[Answer], end: float) -> Answer:
        try:
            return future.result(deadline.left(end))
        except TimeoutError:
            future.cancel()
            raise TimeoutError(f"no answer within {self._timeout:g} s") from None

    def _failed(self, began: float, error: Exception) -> None:
        """Pass the database over for a while, and log it at first.

        If others were answered meanwhile, it is the look-up that was stuck.
        """
        if self._lookups.has_answered_since(began):
            return
        with self._lock:
            is_news = self._failed_at is None
            self._failed_at = monotonic()
            self._retry_at = self._now() + RETRY_SECONDS
        if is_news:
            why = error.reason if isinstance(error, AutomxError) else str(error)
            log.error("%s: people cannot be looked up: %s", self.name, why)

    def _complain(self, error: QueryError) -> None:
        with self._lock:
            now = self._now()
            last = self._complained_at
            is_news = last is None or now - last > _REPEAT_SECONDS
            if is_news:
                self._complained_at = now
        if is_news:
            log.error("%s: people cannot be looked up: %s", self.name, error.reason)

    def _answered(self, began: float) -> None:
        with self._lock:
            # What was asked before it failed may still be answered as it goes down.
            is_news = self._failed_at is not None and began > self._failed_at
            if is_news:
                self._failed_at = None
        if is_news:
            log.warning("%s: people are looked up again", self.name)


def _key(address: EmailAddress) -> str:
    return str(address).lower()


def values(address: EmailAddress) -> dict[str, str]:
    """Return the values of the placeholders: in lower case, as Postfix asks its own tables."""
    local_part = address.local_part.lower()
    return {
        "address": f"{local_part}@{address.domain}",
        "local": local_part,
        "domain": address.domain,
    }


def person(directory: str, answer: Answer, address: EmailAddress) -> Person | None:
    """Return the person in an answer, None if there is none or several; ``directory`` is its name.

    Raises QueryError if the columns are not those of a person.
    """
    for column in answer.columns:
        if column not in COLUMNS:
            raise QueryError(
                cause=f"people_query has a column {column}; known are {', '.join(COLUMNS)}"
            )
    if "login" not in answer.columns:
        raise QueryError(cause="people_query has no column login")
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    people = {
        Person(_text(row["login"], directory, "login"), _text(row.get("name"), directory, "name"))
        for row in rows
    }
    if len(people) > 1:
        log.warning("%s: several rows fit %s; none is used", directory, address)
        return None
    return next(iter(people), None)


def _text(value: object, directory: str, name: str) -> str:
    if value is None:
        return ""
    try:
        text = bytes(value).decode() if isinstance(value, bytes | memoryview) else str(value)
    except UnicodeDecodeError:
        text = "\x00"
    return usable(text.strip(), directory, name)
