"""The backend ``command``: a program of the administrator that makes and deletes mailboxes.

docs/account-command.md specifies its JSON on stdin and stdout (version 1).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

from automx.backends import Mailbox, Owner
from automx.backends.answers import parse
from automx.backends.program import CAUSE_CHARACTERS, one_line, run
from automx.errors import (
    SettingsError,
    TakenError,
    TryAgainError,
    UncertainError,
    UnfitAddressError,
)

VERSION = 1
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z

_STATUSES = {
    "check": ("allowed",),
    "create": ("created", "exists"),
    "find": ("found", "absent"),
    "password": ("changed", "absent"),
    "disable": ("disabled", "absent"),
    "delete": ("deleted", "absent"),
}


class Command:
    """The backend ``command``. ``words`` are the program and its arguments, ``timeout`` seconds."""

    def __init__(self, words: Sequence[str], *, timeout: float) -> None:
        if not words:
            raise SettingsError("account_command is empty: account_backend = command runs it")
        self._words = tuple(words)
        self._timeout = timeout

    def check_address(self, address: str) -> None:
        """Ask the program; one that does not know the action "check", or fails, allows all.

        Raises UnfitAddressError.
        """
        with suppress(TryAgainError, UncertainError):
            self._ask("check", address, Owner("", "0"))

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError, UnfitAddressError, TryAgainError, UncertainError."""
        if self._ask("create", address, owner, password)["status"] == "exists":
            raise TakenError

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        """Return what the program knows of a mailbox. Raises TryAgainError, UncertainError."""
        answer = self._ask("find", address, owner)
        if answer["status"] == "absent":
            return None
        is_active, is_ours = answer.get("active"), answer.get("ours")
        if not (isinstance(is_active, bool) and isinstance(is_ours, bool)):
            _fail("find", f"active and ours must be true or false: {answer}")
        last_login = answer.get("last_login")
        if last_login is None:
            return Mailbox(is_active, is_ours, sees_logins=False)
        if type(last_login) is not int or not 0 <= last_login <= _LAST_SECOND:
            _fail("find", f"last_login must be null, 0 or a Unix time in seconds: {answer}")
        if last_login == 0:  # there was none
            return Mailbox(is_active, is_ours)
        return Mailbox(is_active, is_ours, datetime.fromtimestamp(last_login, UTC))

    def set_password(self, address: str, password: str, owner: Owner) -> None:
        """Set another password. Raises TryAgainError, UncertainError.

        A program that does not know the action "password" refuses it.
        """
        if self._ask("password", address, owner, password)["status"] == "absent":
            raise TryAgainError(cause=f"account_command, password: there is no mailbox {address}")

    def disable(self, address: str, owner: Owner) -> None:
        """Prevent logins. Raises TryAgainError, UncertainError."""
        self._ask("disable", address, owner)

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Raises TryAgainError, UncertainError."""
        self._ask("delete", address, owner)

    def faults(self, domains: Sequence[str]) -> Iterator[str]:
        """Yield nothing: the protocol has no action that asks without making a mailbox."""
        yield from ()

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _ask(self, action: str, address: str, owner: Owner, password: str = "") -> dict[str, Any]:
        """Return the answer, whose status is one that the action allows."""
        document = {"version": VERSION, "action": action, "address": address}
        document |= {"token": owner.token, "mark": owner.mark}
        if password:
            document["password"] = password
        what = f"account_command, {action}"
        output = run(
            self._words, _line(document), timeout=self._timeout, what=what, secret=password
        )
        shown = one_line(output, password)
        try:
            answer = parse(output.decode())
        except ValueError as error:
            _fail(action, f"the answer is no JSON ({error}): {shown}")
        if not isinstance(answer, dict):
            _fail(action, f"the answer is no object: {shown}")
        status = answer.get("status")
        reason = one_line(str(answer.get("reason") or "without a reason"), password)
        if status == "refused":
            raise TryAgainError(cause=f"{what}: refused: {reason}"[:CAUSE_CHARACTERS])
        if status == "unfit" and action in {"check", "create"}:
            raise UnfitAddressError(
                cause=f"{what}: {address} is unfit: {reason}"[:CAUSE_CHARACTERS]
            )
        if status not in _STATUSES[action]:
            _fail(action, f"the status does not belong to this action: {shown}")
        return answer


def run_hook(words: Sequence[str], document: Mapping[str, object], *, timeout: float) -> None:
    """Run a program that sends a message, such as a warning that an account will expire.

    The program gets the document as JSON on stdin. Exit status 0 means success; stdout is not read.
    Raises NotReachedError if the program cannot be started, SilentError if it was killed after
    ``timeout`` seconds, and UncertainError if it failed.
    """
    given = _line(document)
    run(words, given, timeout=timeout, what=words[0], is_answering=False)


def _fail(action: str, what: str) -> NoReturn:
    raise UncertainError(cause=f"account_command, {action}: {what}"[:CAUSE_CHARACTERS])


def _line(document: Mapping[str, object]) -> bytes:
    return json.dumps(document).encode() + b"\n"
