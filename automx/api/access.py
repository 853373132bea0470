"""Access to the API: the key of a request, its role and its scope.

A wrong key is answered as a missing one. Clients with many wrong ones have to wait; a right key is
accepted all the same, because others may share the address.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from threading import Lock
from time import monotonic

from flask import current_app, g
from werkzeug.exceptions import NotFound

from automx import apikeys
from automx.accountcolumns import KEY_FORM
from automx.apikeys import PERMISSIONS, Key
from automx.errors import AutomxError, BadRecordError, ForbiddenError
from automx.scopes import Scope
from automx.views.http import inbound
from automx.views.limits import Windows
from automx.views.session import current_session, new_session
from automx.words import Role

log = logging.getLogger(__name__)

WRONG, WRONG_SECONDS = 20, 60.0  # wrong keys of a client
REQUESTS, REQUEST_SECONDS = 1_000, 10.0  # requests of a key
NOTE_SECONDS = 60.0  # until the use of a key is written again after that has failed
_CLIENTS = 10_000  # that are counted at once

_LIMITS = "automx.api.limits"  # the key of the limits in app.extensions


class NoKeyError(AutomxError):
    """The request has no key that is valid for this client now; ``cause`` says why."""

    status = 401
    public = "This needs a key that is valid (Authorization: Bearer KEY)."


class TooManyError(AutomxError):
    """A client has sent too many requests; it may ask again after ``retry_after`` seconds."""

    status = 429
    public = "There were too many requests. Please wait a while."

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.retry_after = max(ceil(seconds), 1)


class _Limits:
    """The requests of this worker. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._noting = Lock()  # held by the thread that waits for the right to write
        self._note_at = 0.0  # when to try again, in the time of monotonic()
        self._wrong = Windows(WRONG, WRONG_SECONDS, _CLIENTS)
        self._used = Windows(REQUESTS, REQUEST_SECONDS, _CLIENTS)

    def count_wrong(self, client: str) -> None:
        self._count(self._wrong, client)

    def count_use(self, key: str) -> None:
        self._count(self._used, key)

    def note_use(self, key: Key, now: datetime) -> None:
        """Keep the day of the use of a key, unless that has just failed."""
        if monotonic() < self._note_at or not self._noting.acquire(blocking=False):
            return
        try:
            with new_session() as session:
                if not apikeys.note_use(session, key, now):
                    self._note_at = monotonic() + NOTE_SECONDS
        finally:
            self._noting.release()

    def _count(self, windows: Windows, name: str) -> None:
        with self._lock:
            seconds = windows.hit(name)
        if seconds:
            raise TooManyError(seconds)


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks, and when; ``scope`` is None for the whole database."""

    key: Key
    scope: Scope | None
    now: datetime

    def check(self, role: Role) -> None:
        """Raise ForbiddenError if the key has not the permission of a role."""
        if role not in PERMISSIONS[self.key.role]:
            raise ForbiddenError(f"A key of the role {self.key.role} may not do this.")

    def check_everything(self) -> None:
        """Raise ForbiddenError if the key is for a part of the database only."""
        if self.scope is not None:
            raise ForbiddenError("A key with a scope may not do this.")


def is_valid(authorization: str, client: str) -> bool:
    """Return whether a header Authorization gives a client access; nothing is counted or logged.

    Errors are those of the database.
    """
    with new_session() as session:
        key = apikeys.find(session, authorization.partition(" ")[2].strip())
    return key is not None and not key.obstacle(client, datetime.now(UTC))


def authenticate(authorization: str) -> Access:
    """Return the access that a header Authorization gives.

    Raises NotFound as long as there is no key, NoKeyError and TooManyError.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    scheme, _, secret = authorization.partition(" ")
    session = current_session()
    key, obstacle = None, "no such key"
    asked = inbound()
    limits: _Limits = current_app.extensions.setdefault(_LIMITS, _Limits())
    if scheme.lower() == "bearer":
        try:
            key = apikeys.find(session, secret.strip())
        except BadRecordError as error:
            obstacle = error.cause or str(error)
    if key is not None:
        found = key.obstacle(asked.client, now)
        obstacle = found and f"key {key.name}: {found}"
    if key is None or obstacle:
        if key is None and not apikeys.exist(session):
            raise NotFound  # in the form of a path that leads nowhere
        session.rollback()
        if KEY_FORM.fullmatch(secret.strip()):  # else it guesses nothing
            limits.count_wrong(asked.network)
        g.problem_headers = {"WWW-Authenticate": 'Bearer realm="automx"'}
        raise NoKeyError(cause=obstacle)
    session.rollback()  # changes begin with a transaction of their own
    limits.count_use(key.name)
    if not key.is_used_on(now):
        limits.note_use(key, now)
    scope = Scope(key.provider_id, key.domains, key.actor) if key.is_scoped else None
    return Access(key, scope, now)
