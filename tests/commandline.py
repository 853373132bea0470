"""Runs automx commands within the test: to start the program takes nearly half a second each time.

A test whose point is the process (signals, a terminal, a stream that is closed, the installed
script) starts ``AUTOMX`` of ``tests.processes``.
"""

import contextlib
import logging
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from automx.cli import main


def automx(*arguments: str | Path, env: Mapping[str, str], stdin: str | None = None) -> str:
    """Run an automx command and return what it prints; fail the test if it fails."""
    result = attempt(*arguments, env=env, stdin=stdin)
    if result.returncode != 0:
        pytest.fail(f"automx {' '.join(map(str, arguments))}: {result.stderr}")
    return result.stdout


def attempt(
    *arguments: str | Path, env: Mapping[str, str], stdin: str | bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an automx command, which may fail; the result is as if a program had been started."""
    command = [str(argument) for argument in arguments]
    with _log_of_its_own():
        result = CliRunner(env=env).invoke(main, command, input=stdin, prog_name="automx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(command, int(result.exit_code), result.stdout, result.stderr)


@contextlib.contextmanager
def _log_of_its_own() -> Iterator[None]:
    """Let a command write its log to its own standard error, as a new process does."""
    logger = logging.getLogger("automx")
    handlers, level = logger.handlers, logger.level
    logger.handlers = []
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
