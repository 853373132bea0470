"""Transcripts: what a person types on the command line, and all that the terminal then shows.

They stand in ``tests/data``. A line ``$ automx ...`` is a command, with ``<<< text`` for what comes
on its standard input; ``[1]`` after its output is its exit status, which is not told if it is 0.
"""

import re
import shlex
from collections.abc import Mapping

from click.testing import CliRunner

from automx.cli import main
from tests.documents import golden

# What is different each time, and what stands for it.
_VARYING = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d UTC": "2026-11-20 10:00 UTC",
    r"\((now|\d+ seconds? ago)\)": "(now)",
    r"\b[2345789acdefghjkmnpqrstuvwxyz]{24}\b": "nnnnnnnnnnnnnnnnnnnnnnnn",
    r"\btmp\.[2345789acdefghjkmnpqrstuvwxyz]{5}@": "tmp.nnnnn@",
    r"\b\w{6}-\w{6}-\w{6}\b": "nnnnnn-nnnnnn-nnnnnn",
}


def steady(text: str) -> str:
    """Return what a command printed without what is different each time."""
    for pattern, example in _VARYING.items():
        text = re.sub(pattern, example, text)
    return text


def replayed(name: str, env: Mapping[str, str]) -> str:
    """Run each command of the transcript ``name``, and return the transcript of it all."""
    lines = [line for line in golden(name).splitlines() if line.startswith("$ ")]
    return "".join(f"{line}\n{_run(line, env)}" for line in lines)


def _run(line: str, env: Mapping[str, str]) -> str:
    """Run a command within the test: to start the program each time would take minutes."""
    command, _, stdin = line.removeprefix("$ automx ").partition(" <<< ")
    text = "".join(f"{line}\n" for line in shlex.split(stdin))
    result = CliRunner(env=env).invoke(main, shlex.split(command), input=text, prog_name="automx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    status = f"[{result.exit_code}]\n" if result.exit_code else ""
    return steady(result.output) + status
