"""A fresh clone on a bare Debian: the commands of README.md, word for word.

The clone is of what is committed here. Debian's packages and the libraries are fetched before, and
then there is no network: what is measured is ``make run`` without downloads.
"""

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from packages.conftest import Record
from packages.machines import Machine, bootstrap, cut_off, repository, running, typed, with_network
from tests.processes import PATIENCE, REPOSITORY, program, wait_until

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"(?ms)^```(sh[^\n]*)\n(.*?)^```$", README)
[PACKAGES] = re.findall(r"`(apt-get update[^`]*)`", README)
URLS = re.findall(r"<(http://127[^>]*)>", README)
MOST_SECONDS = 90
# Of the processor: what all processes, and those that have ended, have needed, in hundredths.
NEEDED = """\
cat /proc/[0-9]*/stat | sed 's/.*) //' | awk '{ sum += $12 + $13 + $14 + $15 } END { print sum }'
"""
ROWS = {
    suite: pytest.mark.row(f"{name}: `make run` in a fresh clone, and the commands of the README")
    for suite, name in (("bookworm", "Debian 12"), ("trixie", "Debian 13"))
}


@dataclass
class Terminal:
    """A terminal in a machine in which shell commands run; ``shown`` is what a person sees."""

    process: "subprocess.Popen[bytes]"
    screen: int
    shown: str = ""

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def to_the_end(self, answers: Sequence[str] = ()) -> str:
        """Give answers, each to one question, and return what is shown until the commands end."""
        waiting = list(answers)
        with contextlib.suppress(OSError):  # EIO: they have ended
            while select.select([self.screen], [], [], PATIENCE)[0]:
                self.shown += os.read(self.screen, 65536).decode().replace("\r\n", "\n")
                if waiting and self.shown.endswith(": "):
                    self.type(f"{waiting.pop(0)}\n")
            pytest.fail(f"nothing more was shown for {PATIENCE} s: {self.shown}")
        assert not waiting, self.shown
        return self.shown


@contextlib.contextmanager
def terminal(machine: Machine, script: str) -> Iterator[Terminal]:
    """Run shell commands in a terminal of their own, until they end or the block does."""
    screen, keyboard = pty.openpty()
    command = [program("setsid", "util-linux"), "--ctty", *machine.command(script)]
    with subprocess.Popen(command, stdin=keyboard, stdout=keyboard, stderr=keyboard) as process:
        os.close(keyboard)
        try:
            yield Terminal(process, screen)
        finally:
            os.close(screen)  # all that still runs is hung up


@pytest.fixture(
    scope="module", params=[pytest.param(suite, marks=row) for suite, row in ROWS.items()]
)
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A bare Debian with what README names; the libraries lie ready, and there is no network."""
    folder = tmp_path_factory.mktemp("clone")
    origin = repository(folder)
    root = folder / "root"
    try:
        bootstrap(request.param, root)
        with_network(root, PACKAGES)
        cut_off(root, origin, PACKAGES, "--constraint constraints.txt . hatchling editables")
        with running(root, [origin, "--as-pid2", "sleep", "infinity"], folder / "log") as machine:
            wait_until(lambda: machine.attempt("true").returncode == 0, "the start of the machine")
            yield machine
    finally:
        shutil.rmtree(root)


@dataclass(frozen=True)
class Sample:
    """What ``make run`` serves in a fresh clone.

    ``seconds`` passed until it answered; ``needed`` are those of the processor.
    """

    machine: Machine
    terminal: Terminal
    seconds: float
    needed: float


@pytest.fixture(scope="module")
def sample(machine: Machine) -> Iterator[Sample]:
    """A running ``make run``."""
    began = time.monotonic()
    with terminal(machine, typed(BLOCKS[0][1])) as first:
        wait_for_answer(machine)
        seconds = time.monotonic() - began
        yield Sample(machine, first, seconds, int(machine.run(NEEDED)) / 100)


def wait_for_answer(machine: Machine) -> None:
    ask = f"curl --fail '{URLS[0]}'"
    wait_until(lambda: machine.attempt(ask).returncode == 0, "an answer", 10 * MOST_SECONDS)


def test_make_run_answers_soon(sample: Sample, record_property: Record) -> None:
    # Other programs of this machine do not count.
    assert sample.needed < MOST_SECONDS
    spent = f"{sample.seconds:.0f} s ({sample.needed:.0f} s of the processor) and downloads"
    record_property("seen", f"answered after {spent}")


def test_what_the_readme_names_can_be_asked(sample: Sample) -> None:
    commands = [*(f"curl '{url}'" for url in URLS), *re.findall(r"`(curl [^`]*)`", README)]
    assert len(commands) == 4
    for command in commands:
        quiet = command.replace("curl ", "curl --fail --silent --show-error ")
        assert "example.com" in sample.machine.run(quiet)


def test_quickstart_ends_with_what_is_left_to_do(sample: Sample, record_property: Record) -> None:
    with terminal(sample.machine, f"cd automx\n{BLOCKS[1][1]}") as second:
        shown = second.to_the_end(["", "nginx"])
    assert "Public host name of automx" in shown
    assert "autoconfig.example.org" in shown
    assert "server_name" in shown
    assert "What is left to do:\n" in shown
    record_property("seen", "quickstart")


def test_the_walk_through_prints_what_is_shown(sample: Sample, record_property: Record) -> None:
    [script] = [text for info, text in BLOCKS if info == "sh walk-through"]
    [expected] = re.findall(r"(?ms)^```sh walk-through\n.*?^```$\n+```text\n(.*?)^```$", README)
    assert sample.machine.run(f"cd automx\n{script}") == expected
    record_property("seen", "walk-through")


def test_ctrl_c_ends_it_and_make_run_may_be_repeated(
    sample: Sample, record_property: Record
) -> None:
    sample.terminal.type("\x03")
    assert "Try it:\n" in sample.terminal.to_the_end()
    with terminal(sample.machine, "cd automx\nmake run") as again:
        wait_for_answer(sample.machine)
        again.type("\x03")
        assert "Installing" not in again.to_the_end()
    assert sample.machine.attempt(f"curl --fail '{URLS[0]}'").returncode == 7  # refused
    record_property("seen", "Ctrl-C, and again")
