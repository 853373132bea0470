"""Keys that servers may refuse: one request tries a key, and a refused one is not sent for a while.

mailcow (2026-08) bans the address of a client from all of its services after ten refused keys, if
each of them follows the one before within 600 s; a ban lasts 1800 s. All processes of a machine
have one address, so they share what they know: a KeyMemory keeps it for them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from automx import deadline
from automx.errors import MisconfiguredError, TryAgainError
from automx.moments import this_second, to_minute

PAUSE = timedelta(minutes=30)  # after a refusal
TRUST = timedelta(minutes=5)  # how long an accepted key is sent by any number of requests at once
TRIAL = timedelta(minutes=2)  # longer than any request: from then on, its process was killed

_POLL_SECONDS = 0.05
_TRIES = 20


class KeyState(StrEnum):
    """What is known of a key."""

    TRIED = "tried"  # a request has sent it, and is not answered yet
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The state of a key, and since when (UTC, to the second)."""

    state: KeyState
    changed_at: datetime


class KeyMemory(Protocol):
    """What is known of keys, by a digest of each; safe for threads."""

    def read(self, digest: str) -> KeyStatus | None:
        """Return the status of a key; None if nothing is known."""

    def replace(self, digest: str, before: KeyStatus | None, after: KeyStatus | None) -> bool:
        """Change the status of a key; False, and no change, if it is not ``before`` any more."""


class ProcessMemory:
    """A KeyMemory of one process."""

    def __init__(self) -> None:
        self._known: dict[str, KeyStatus] = {}
        self._lock = threading.Lock()

    def read(self, digest: str) -> KeyStatus | None:
        """Return the status of a key; None if nothing is known."""
        return self._known.get(digest)

    def replace(self, digest: str, before: KeyStatus | None, after: KeyStatus | None) -> bool:
        """Change the status of a key; False, and no change, if it is not ``before`` any more."""
        with self._lock:
            if self._known.get(digest) != before:
                return False
            if after is None:
                self._known.pop(digest, None)
            else:
                self._known[digest] = after
            return True


@dataclass(slots=True)
class Turn:
    """The right to send a key in one request.

    ``is_accepted`` is to be set by what the server answered; None if the answer does not say it.
    """

    trial: KeyStatus | None
    is_accepted: bool | None = None


class KeyGate:
    """Lets requests send a key. Safe for threads.

    ``name`` is the setting of the key, for messages; ``now`` is a clock.
    """

    def __init__(
        self,
        memory: KeyMemory,
        digest: str,
        name: str,
        *,
        now: Callable[[], datetime] = this_second,
    ) -> None:
        self._memory = memory
        self._digest = digest
        self._name = name
        self._now = now

    @contextmanager
    def turn(self, end: float) -> Iterator[Turn]:
        """Let one request send the key within the block.

        Until the key was accepted, other requests wait for the end of the block, up to the deadline
        ``end``. Raises MisconfiguredError in the pause after a refusal, and TryAgainError if the
        wait was too long.
        """
        turn = Turn(self._claim(end))
        try:
            yield turn
        finally:
            if turn.is_accepted is False:
                self._refuse()
            elif turn.trial is not None:
                after = self._status(KeyState.ACCEPTED) if turn.is_accepted else None
                self._memory.replace(self._digest, turn.trial, after)

    def _claim(self, end: float) -> KeyStatus | None:
        """Return the status of the trial that begins; None if the key is known to be accepted."""
        while True:
            found = self._memory.read(self._digest)
            # A clock that was wrong for a while leaves moments that are still to come.
            age = abs(self._now() - found.changed_at) if found else TRIAL
            match found and found.state:
                case KeyState.ACCEPTED if age < TRUST:
                    return None
                case KeyState.REFUSED if found and age < PAUSE:
                    raise MisconfiguredError(
                        cause=f"the key in {self._name} was refused, and is not sent until"
                        f" {to_minute(found.changed_at + PAUSE)}: the server bans clients that send"
                        " a wrong key too often. Another key is tried at once"
                    )
                case KeyState.TRIED if age < TRIAL:
                    pass
                case _:
                    trial = self._status(KeyState.TRIED)
                    if self._memory.replace(self._digest, found, trial):
                        return trial
            if not deadline.left(end):
                raise TryAgainError(
                    cause=f"another request tries the key in {self._name}, and has no answer yet"
                )
            time.sleep(_POLL_SECONDS)

    def _refuse(self) -> None:
        refused = self._status(KeyState.REFUSED)
        for _ in range(_TRIES):  # another process may change it in between
            if self._memory.replace(self._digest, self._memory.read(self._digest), refused):
                return

    def _status(self, state: KeyState) -> KeyStatus:
        return KeyStatus(state, self._now())
