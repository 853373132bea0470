"""Backends: the programs that make, disable and delete the mailboxes of accounts.

A backend knows nothing of tokens and rows. It says what it did by returning, and otherwise by one
of four errors, since the rules must know whether anything may have changed: TakenError and
TryAgainError (which includes NotReachedError) promise that nothing has, UncertainError (which
includes SilentError) leaves it open.
"""

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from automx.config import BACKENDS, AccountSettings
from automx.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Owner:
    """By whom a mailbox is made: the name of the token, and a mark that each account has alone."""

    token: str
    mark: str


@dataclass(frozen=True, slots=True)
class Mailbox:
    """What a backend tells of a mailbox.

    ``is_ours`` tells whether it was made for the owner that was asked about, as far as the backend
    can tell at all; ``last_login`` (UTC) is None if it is not known, which includes "never".
    """

    is_active: bool
    is_ours: bool
    last_login: datetime | None = None


class Backend(Protocol):
    """What every backend can do. It may be called from several threads at the same time.

    ``address`` is a mail address in lower case. No call takes longer than some seconds beyond the
    setting ``account_timeout``. Each method raises TryAgainError or UncertainError if it fails.
    """

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError if there is a mailbox or an alias of that name."""

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """Return what is known of a mailbox; None only if it is certain that there is none."""

    def disable(self, address: str, owner: Owner) -> None:
        """Let nobody log in; the mail stays. A mailbox that is missing is no error."""

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Returns only when the backend said that it is gone, or never was."""

    def close(self) -> None:
        """Give back connections."""


class Backends:
    """The backends of the settings, each opened when it is first used. Safe for threads."""

    def __init__(self, settings: AccountSettings) -> None:
        self._settings = settings
        self._opened: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def name(self, name: str) -> str:
        """Return the name of a backend, which is that of the settings for ""."""
        return name or self._settings.backend

    def get(self, name: str) -> Backend | None:
        """Return a backend by its name, "" for that of the settings; None for ``none``.

        Raises SettingsError for a name that is not known, and if settings that it needs are empty.
        """
        name = self.name(name)
        if name == "none":
            return None
        with self._lock:
            if name not in self._opened:
                self._opened[name] = _open(name, self._settings)
            return self._opened[name]

    def close(self) -> None:
        """Give back all connections; backends are opened anew when they are used again."""
        with self._lock:
            for backend in self._opened.values():
                backend.close()
            self._opened.clear()


def _open(name: str, settings: AccountSettings) -> Backend:
    """Open a backend; its libraries are loaded here, since most servers use one or none."""
    if name == "mailcow":
        from automx.backends.mailcow import Mailcow

        return Mailcow(
            settings.mailcow_endpoint,
            settings.mailcow_token,
            timeout=settings.timeout,
            ca_file=settings.mailcow_ca_file,
        )
    if name == "command":
        from automx.backends.command import Command

        return Command(settings.command, timeout=settings.timeout)
    raise SettingsError(f"the account backend must be one of {', '.join(BACKENDS)}, not {name}")
