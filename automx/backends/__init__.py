"""Backends: the programs that make, disable and delete the mailboxes of accounts.

A backend knows nothing of tokens and rows. A method that returns has done its work. Its errors say
whether the mailbox may have changed: after TakenError and TryAgainError (and so NotReachedError and
MisconfiguredError) it has certainly not; after UncertainError (and so SilentError) it may have.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from automx.config import BACKENDS, AccountSettings
from automx.counts import Counts
from automx.errors import SettingsError
from automx.trace import BACKEND, mark

if TYPE_CHECKING:
    from automx.backends.keys import KeyMemory


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a mailbox: the name of a token, and the mark.

    The mark is unique for an account, or that of mailadm_mark().
    """

    token: str
    mark: str


def mailadm_mark(token: str) -> str:
    """Return the mark of accounts that mailadm made by a token of this name.

    In mailcow, mailadm has marked their mailboxes with the name of the token only. A digest of it
    fits into the column ``mark``, however long the name is.
    """
    digest = sha256(token.encode(errors="surrogatepass")).hexdigest()
    return f"mailadm:{digest[:24]}"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """What a backend knows of a mailbox.

    ``is_ours``: it was made for the owner in question, as far as the backend knows. ``last_login``
    (UTC) is None if there was none. If not ``sees_logins``, the backend knows nothing of log-ins.
    """

    is_active: bool
    is_ours: bool
    last_login: datetime | None = None
    sees_logins: bool = True


class Backend(Protocol):
    """The methods of every backend; safe for threads.

    ``address`` is a mail address in lower case. No call takes longer than some seconds more than
    the setting ``account_timeout``. Each method raises TryAgainError or UncertainError if it fails.
    """

    def check_address(self, address: str) -> None:
        """Raise UnfitAddressError if the mail server allows no such address; asked before create().

        An address that passes may still be refused by create().
        """

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError if there is a mailbox or an alias of that name."""

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """Return what is known of a mailbox; None only if it is certain that there is none."""

    def set_password(self, address: str, password: str, owner: Owner) -> None:
        """Give a mailbox another password, by which people log in from now on.

        The caller has asked find() whether the mailbox is the owner's, here and for disable() and
        delete(). Raises ConflictError if the backend cannot, and WeakPasswordError.
        """

    def disable(self, address: str, owner: Owner) -> None:
        """Prevent logins; the mail stays. A missing mailbox is no error."""

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Returns only when the backend has said that there is none any more.

        Raises MailLeftError if the mailbox is deleted, but its mail is not.
        """

    def faults(self, domains: Sequence[str]) -> Iterator[str]:
        """Yield what prevents new mailboxes of these domains, in sentences for the administrator.

        Changes nothing. Raises as the other methods if the backend itself cannot be used.
        """

    def close(self) -> None:
        """Close connections."""


class Counted:
    """A backend whose calls are counted."""

    def __init__(self, backend: Backend, name: str, counts: Counts) -> None:
        self._backend = backend
        self._name = name
        self._counts = counts

    def _call(self, name: str) -> AbstractContextManager[None]:
        if self._name != "none":  # which asks no neighbour
            mark(BACKEND)
        return self._counts.call(self._name, name)

    def check_address(self, address: str) -> None:
        """See Backend."""
        with self._call("check_address"):
            self._backend.check_address(address)

    def create(self, address: str, password: str, owner: Owner) -> None:
        """See Backend."""
        with self._call("create"):
            self._backend.create(address, password, owner)

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """See Backend."""
        with self._call("find"):
            return self._backend.find(address, owner)

    def set_password(self, address: str, password: str, owner: Owner) -> None:
        """See Backend."""
        with self._call("set_password"):
            self._backend.set_password(address, password, owner)

    def disable(self, address: str, owner: Owner) -> None:
        """See Backend."""
        with self._call("disable"):
            self._backend.disable(address, owner)

    def delete(self, address: str, owner: Owner) -> None:
        """See Backend."""
        with self._call("delete"):
            self._backend.delete(address, owner)

    def faults(self, domains: Sequence[str]) -> Iterator[str]:
        """See Backend."""
        return self._backend.faults(domains)

    def close(self) -> None:
        """See Backend."""
        self._backend.close()


class Backends:
    """The backends of the settings, each opened when it is first used. Safe for threads.

    ``keys`` returns what remembers keys for all processes, and is called with the first backend; by
    default, this process remembers them alone.
    """

    def __init__(
        self,
        settings: AccountSettings,
        keys: "Callable[[], KeyMemory] | None" = None,
        counts: Counts | None = None,
    ) -> None:
        self._counts = counts
        self._settings = settings
        self._make_keys = keys
        self._keys: KeyMemory | None = None
        self._opened: dict[str, Backend] = {}
        self._lock = threading.Lock()

    def name(self, name: str) -> str:
        """Return the name of a backend: for "", the one of the settings."""
        return name or self._settings.backend

    def get(self, name: str) -> Backend:
        """Return a backend by its name, "" for that of the settings.

        Raises SettingsError for an unknown name, and for settings that the backend cannot use.
        """
        name = self.name(name)
        with self._lock:
            if name not in self._opened:
                if self._keys is None:
                    self._keys = self._make_keys() if self._make_keys else _process_memory()
                backend = _open(name, self._settings, self._keys)
                self._opened[name] = (
                    Counted(backend, name, self._counts) if self._counts else backend
                )
            return self._opened[name]

    def close(self) -> None:
        """Close all backends; get() opens them again."""
        with self._lock:
            for backend in self._opened.values():
                backend.close()
            self._opened.clear()


def _process_memory() -> "KeyMemory":
    from automx.backends.keys import ProcessMemory  # few workers make accounts

    return ProcessMemory()


def _open(name: str, settings: AccountSettings, keys: "KeyMemory") -> Backend:
    """Open a backend. Each one is imported when it is used: httpx takes time and memory."""
    if name == "none":
        from automx.backends.none import NoBackend

        return NoBackend()
    if name == "mailcow":
        from automx.backends.mailcow import Mailcow

        return Mailcow(
            settings.mailcow_endpoint,
            settings.mailcow_token,
            timeout=settings.timeout,
            ca_file=settings.mailcow_ca_file,
            keys=keys,
        )
    if name == "command":
        from automx.backends.command import Command

        return Command(settings.command, timeout=settings.timeout)
    raise SettingsError(f"the account backend must be one of {', '.join(BACKENDS)}, not {name}")
