"""Programs of the administrator that answer on stdout.

Each call runs the program once, in a session of its own, and ends when the program ends: processes
that it leaves in the background may keep its pipes. A program that takes too long is killed with
its process group.
"""

import json
import logging
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from automx import deadline
from automx.errors import NotReachedError, SilentError, UncertainError

log = logging.getLogger(__name__)

ANSWER_BYTES = 65_536  # more on stdout is no answer
CAUSE_CHARACTERS = 500
_TAIL_BYTES = 8_192  # of stderr: the last lines name the error
_POLL_SECONDS = 0.05  # how soon an end is noticed while something else keeps the pipes open


def run(
    words: Sequence[str],
    given: bytes,
    *,
    timeout: float,
    what: str,
    most: int = ANSWER_BYTES,
    is_answering: bool = True,
    secret: str = "",
) -> bytes:
    """Run a program to its end and return what it wrote to stdout, at most ``most`` bytes.

    It gets ``given`` on stdin. ``what`` begins the cause of each error, from which ``secret`` is
    kept out. Raises NotReachedError if the program cannot be started, SilentError if it was killed
    after ``timeout`` seconds, and UncertainError if it failed.
    """
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
        request.write(given)
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
        _read(process, output, complaint, end, most)
        if len(output) > most:
            raise UncertainError(cause=f"{what}: wrote more than {most} bytes")
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
    process: subprocess.Popen[bytes],
    output: bytearray,
    complaint: bytearray,
    end: float,
    most: int,
) -> None:
    """Read until both pipes are closed, the program has ended, or its output is too long.

    ``output`` gets stdout, ``complaint`` the end of stderr. Raises TimeoutExpired.
    """
    with selectors.DefaultSelector() as pipes:
        for stream, octets in ((process.stdout, output), (process.stderr, complaint)):
            if stream is not None:
                pipes.register(stream, selectors.EVENT_READ, data=octets)
        while pipes.get_map() and len(output) <= most:
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


def _cause(what: str, complaint: bytes | bytearray, secret: str) -> str:
    """Return a cause with the end of stderr."""
    if len(complaint) == _TAIL_BYTES:  # it may begin in the middle of the secret
        complaint = re.sub(rb"^\S+", b"", complaint)
    text = one_line(complaint, secret)[-CAUSE_CHARACTERS:]
    return f"{what}: {text}" if text else what


def one_line(text: str | bytes | bytearray, secret: str) -> str:
    """Return a text as one line for the log, without the secret in any of its spellings."""
    if not isinstance(text, str):
        text = text.decode(errors="replace")
    if secret:
        for spelling in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            text = text.replace(spelling, "***")
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()
