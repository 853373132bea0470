"""The backend ``command``: a program of the administrator that makes and deletes mailboxes.

docs/account-command.md specifies its JSON on stdin and stdout (version 1). Each call runs the
program once, in a session of its own, and ends when the program ends: processes that it leaves in
the background may keep its pipes. A program that takes too long is killed with its process group.
"""

import json
import logging
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

from automx import deadline
from automx.backends import Mailbox, Owner
from automx.backends.answers import parse
from automx.errors import (
    NotReachedError,
    SettingsError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
    UnfitAddressError,
)

log = logging.getLogger(__name__)

VERSION = 1
ANSWER_BYTES = 65_536  # more on stdout is no answer
_TAIL_BYTES = 8_192  # of stderr: the last lines name the error
_CAUSE_CHARACTERS = 500
_POLL_SECONDS = 0.05  # how soon an end is noticed while something else keeps the pipes open
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
        output = _run(self._words, document, timeout=self._timeout, what=what)
        shown = _one_line(output, password)
        try:
            answer = parse(output.decode())
        except ValueError as error:
            _fail(action, f"the answer is no JSON ({error}): {shown}")
        if not isinstance(answer, dict):
            _fail(action, f"the answer is no object: {shown}")
        status = answer.get("status")
        reason = _one_line(str(answer.get("reason") or "without a reason"), password)
        if status == "refused":
            raise TryAgainError(cause=f"{what}: refused: {reason}"[:_CAUSE_CHARACTERS])
        if status == "unfit" and action in {"check", "create"}:
            raise UnfitAddressError(
                cause=f"{what}: {address} is unfit: {reason}"[:_CAUSE_CHARACTERS]
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
    _run(words, document, timeout=timeout, what=words[0], is_answering=False)


def _run(
    words: Sequence[str],
    document: Mapping[str, object],
    *,
    timeout: float,
    what: str,
    is_answering: bool = True,
) -> bytes:
    """Run a program to its end and return what it wrote to stdout.

    ``what`` begins each cause; the ``password`` of the document is kept out of them.
    """
    secret = str(document.get("password", ""))
    end = deadline.after(timeout)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # The system then drops exit statuses, and every program seems to succeed.
        raise NotReachedError(cause=f"{what}: automx was started with SIGCHLD ignored")
    # A file in memory: a pipe would have to be written while the output is read.
    try:
        memory = os.memfd_create("request")
    except OSError as error:  # too many open files
        raise NotReachedError(cause=f"{what}: cannot be started: {error.strerror}") from error
    with os.fdopen(memory, "w+b") as request:
        request.write(json.dumps(document).encode() + b"\n")
        request.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - the administrator's words, never a shell
                words,
                stdin=request,
                stdout=subprocess.PIPE if is_answering else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise NotReachedError(cause=f"{what}: cannot be started: {error.strerror}") from error
    output, complaint = bytearray(), bytearray()
    try:
        _read(process, output, complaint, end)
        if len(output) > ANSWER_BYTES:
            raise UncertainError(cause=f"{what}: wrote more than {ANSWER_BYTES} bytes")
        process.wait(deadline.left(end))
    except subprocess.TimeoutExpired as error:
        what += f": was killed after {timeout:g} s"
        raise SilentError(cause=_cause(what, complaint, secret)) from error
    finally:
        _end(process)
    if code := process.returncode:
        what += f": exit status {code}" if code > 0 else f": killed by signal {-code}"
        raise UncertainError(cause=_cause(what, complaint, secret))
    if complaint.strip():
        log.warning("%s", _cause(what, complaint, secret))
    return bytes(output)


def _read(
    process: subprocess.Popen[bytes], output: bytearray, complaint: bytearray, end: float
) -> None:
    """Read until both pipes are closed, the program has ended, or its output is too long.

    ``output`` gets stdout, ``complaint`` the end of stderr. Raises TimeoutExpired.
    """
    with selectors.DefaultSelector() as pipes:
        for stream, octets in ((process.stdout, output), (process.stderr, complaint)):
            if stream is not None:
                pipes.register(stream, selectors.EVENT_READ, data=octets)
        while pipes.get_map() and len(output) <= ANSWER_BYTES:
            has_ended = process.poll() is not None  # all of its output is in the pipes by then
            seconds = deadline.left(end)
            if not seconds and not has_ended:
                raise subprocess.TimeoutExpired(process.args, 0)
            ready = pipes.select(0 if has_ended else min(seconds, _POLL_SECONDS))
            if has_ended and not (ready and seconds):
                break
            for key, _ in ready:
                data = os.read(key.fd, ANSWER_BYTES)
                key.data.extend(data)
                if not data:
                    pipes.unregister(key.fileobj)
            del complaint[:-_TAIL_BYTES]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a program that still runs; close its pipes."""
    if process.returncode is None:
        # The program was not waited for, so no other group can have its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _environment() -> dict[str, str]:
    """Return the environment of the program, without the settings of automx and their secrets."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **kept}


def _fail(action: str, what: str) -> NoReturn:
    raise UncertainError(cause=f"account_command, {action}: {what}"[:_CAUSE_CHARACTERS])


def _cause(what: str, complaint: bytes | bytearray, secret: str) -> str:
    """Return a cause with the end of stderr."""
    if len(complaint) == _TAIL_BYTES:  # it may begin in the middle of the secret
        complaint = re.sub(rb"^\S+", b"", complaint)
    text = _one_line(complaint, secret)[-_CAUSE_CHARACTERS:]
    return f"{what}: {text}" if text else what


def _one_line(text: str | bytes | bytearray, secret: str) -> str:
    """Return a text as one line for the log, without the secret in any of its spellings."""
    if not isinstance(text, str):
        text = text.decode(errors="replace")
    if secret:
        for spelling in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            text = text.replace(spelling, "***")
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()
