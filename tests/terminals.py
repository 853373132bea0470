"""Terminals that programs of tests print to."""

import contextlib
import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.processes import AUTOMX


def printed_to(screen: int) -> bytes:
    """Return all that is printed to a terminal until no program has it any more; close it.

    ``screen`` is the end of the terminal that nobody types at.
    """
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the programs have ended
        while piece := os.read(screen, 65536):
            shown += piece
    os.close(screen)
    return shown


def answered_on_a_terminal(
    arguments: Sequence[str], env: Mapping[str, str], answer: str
) -> subprocess.CompletedProcess[str]:
    """Run an automx command whose standard input and error are a terminal, where somebody types."""
    screen, terminal = pty.openpty()
    os.write(screen, f"{answer}\n".encode())
    environment = {**os.environ, **env, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [AUTOMX, *arguments],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment,
    ) as process:
        os.close(terminal)
        output, _ = process.communicate()
    shown = printed_to(screen)
    shown = shown.removeprefix(f"{answer}\r\n".encode())  # echoed before anybody had asked
    return subprocess.CompletedProcess(
        [*arguments], process.returncode, output.decode(), shown.decode()
    )


def on_a_terminal(
    command: Sequence[str | Path], env: Mapping[str, str], *, with_errors: bool = True
) -> str:
    """Run a command to its end; return what a person sees, with standard error or without it."""
    screen, terminal = pty.openpty()
    environment = {**os.environ, **env}
    errors = terminal if with_errors else None
    with subprocess.Popen(command, stdout=terminal, stderr=errors, env=environment):
        os.close(terminal)
        shown = printed_to(screen)
    return shown.decode()
