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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

from automx import deadline
from automx.backends import Mailbox, Owner
from automx.errors import (
    NotReachedError,
    SettingsError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
)

log = logging.getLogger(__name__)

VERSION = 1
ANSWER_BYTES = 65_536  # more on stdout is no answer
_TAIL_BYTES = 8_192  # of stderr: the last lines name the error
_CAUSE_CHARACTERS = 500
_POLL_SECONDS = 0.05  # how soon an end is noticed while something else keeps the pipes open
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z

_STATUSES = {
    "create": ("created", "exists"),
    "find": ("found", "absent"),
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

    def create(self, address: str, password: str, owner: Owner) -> None:
        """Make a mailbox. Raises TakenError, TryAgainError, UncertainError."""
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
            return Mailbox(is_active, is_ours)
        if type(last_login) is not int or not 0 < last_login <= _LAST_SECOND:
            _fail("find", f"last_login must be null or a Unix time in seconds: {answer}")
        return Mailbox(is_active, is_ours, datetime.fromtimestamp(last_login, UTC))

    def disable(self, address: str, owner: Owner) -> None:
        """Prevent logins. Raises TryAgainError, UncertainError."""
        self._ask("disable", address, owner)

    def delete(self, address: str, owner: Owner) -> None:
        """Delete a mailbox. Raises TryAgainError, UncertainError."""
        self._ask("delete", address, owner)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _ask(
        self, action: str, address: str, owner: Owner, password: str | None = None
    ) -> dict[str, Any]:
        """Return the answer, whose status is one that the action allows."""
        document = {"version": VERSION, "action": action, "address": address}
        document |= {"token": owner.token, "mark": owner.mark}
        if password is not None:
            document["password"] = password
        output = _run(
            self._words,
            document,
            timeout=self._timeout,
            what=f"account_command, {action}",
            secret=password or "",
        )
        shown = _one_line(output, password or "")
        try:
            answer = json.loads(output.decode(), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            _fail(action, f"the answer is no JSON ({error}): {shown}")
        if not isinstance(answer, dict):
            _fail(action, f"the answer is no object: {shown}")
        status = answer.get("status")
        if status == "refused":
            reason = _one_line(str(answer.get("reason") or "without a reason"), password or "")
            text = f"account_command, {action}: refused: {reason}"
            raise TryAgainError(cause=text[:_CAUSE_CHARACTERS])
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


class _TooMuchError(Exception):
    """The program wrote more to stdout than an answer may have."""


def _run(
    words: Sequence[str],
    document: Mapping[str, object],
    *,
    timeout: float,
    what: str,
    secret: str = "",
    is_answering: bool = True,
) -> bytes:
    """Run a program to its end and return what it wrote to stdout.

    ``what`` begins each cause, ``secret`` is kept out of them.
    """
    request = json.dumps(document).encode() + b"\n"
    end = deadline.after(timeout)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # The system then drops exit statuses, and every program seems to succeed.
        raise NotReachedError(cause=f"{what}: automx was started with SIGCHLD ignored")
    try:
        process = subprocess.Popen(  # noqa: S603 - the administrator's words, never a shell
            words,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if is_answering else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise NotReachedError(cause=f"{what}: cannot be started: {error.strerror}") from error
    complaint = bytearray()
    try:
        output = _exchange(process, request, complaint, end)
        process.wait(deadline.left(end))
    except subprocess.TimeoutExpired as error:
        raise SilentError(
            cause=_cause(f"{what}: was killed after {timeout:g} s", complaint, secret)
        ) from error
    except _TooMuchError as error:
        raise UncertainError(cause=f"{what}: wrote more than {ANSWER_BYTES} bytes") from error
    finally:
        _end(process)
    if code := process.returncode:
        ending = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
        raise UncertainError(cause=_cause(f"{what}: {ending}", complaint, secret))
    if complaint.strip():
        log.warning("%s", _cause(what, complaint, secret))
    return output


def _exchange(
    process: subprocess.Popen[bytes], request: bytes, complaint: bytearray, end: float
) -> bytes:
    """Write the request, and read until all pipes are closed or the program has ended.

    Returns stdout; ``complaint`` gets the end of stderr. Raises TimeoutExpired and _TooMuchError.
    """
    output = bytearray()
    left = memoryview(request)
    with selectors.DefaultSelector() as pipes:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                event = selectors.EVENT_WRITE if stream is process.stdin else selectors.EVENT_READ
                pipes.register(stream, event, data=stream)
        while pipes.get_map():
            has_ended = process.poll() is not None  # all of its output is in the pipes by then
            seconds = deadline.left(end)
            if not seconds and not has_ended:
                raise subprocess.TimeoutExpired(process.args, 0)
            ready = pipes.select(0 if has_ended else min(seconds, _POLL_SECONDS))
            if has_ended and not (ready and seconds):
                break
            for key, _ in ready:
                if key.data is process.stdin:
                    try:
                        left = left[os.write(key.fd, left) :]
                    except BrokenPipeError:  # the program does not read its input
                        left = left[:0]
                    is_done = not left
                else:
                    data = os.read(key.fd, ANSWER_BYTES)
                    is_done = not data
                    if key.data is process.stdout:
                        output += data
                    else:
                        complaint += data
                        del complaint[:-_TAIL_BYTES]
                if is_done:
                    pipes.unregister(key.fileobj)
                    key.data.close()
                if len(output) > ANSWER_BYTES:
                    raise _TooMuchError
    return bytes(output)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a program that still runs; close its pipes."""
    if process.returncode is None:
        # The program was not waited for, so no other group can have its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _environment() -> dict[str, str]:
    """Return the environment of the program, without the settings of automx and their secrets."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    if "HOME" in os.environ:
        environment["HOME"] = os.environ["HOME"]
    return environment


def _fail(action: str, what: str) -> NoReturn:
    raise UncertainError(cause=f"account_command, {action}: {what}"[:_CAUSE_CHARACTERS])


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


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
