"""Runs targets by atheris, which prefers inputs that reach new code.

All parsers are imported once, with what counts the code that is reached; each target runs in a
fork. Inputs that break a target are saved in a folder ``crashes``, one for each place where it
breaks. The numbers of inputs and of such places are written as JSON to ``results/TARGET``.
"""

import hashlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["automx", "idna"], enable_loader_override=False):
    from tests.fuzz.targets import corpus, run

from tests.fuzz import CORPUS
from tests.fuzz.promises import REPEATED

_LONGEST = 4096  # bytes
_REPEATS = 50  # after so many inputs, one is made large
_PROBE_SECONDS = 0.2


class Guided:
    """A run of one target; ``inputs`` have been tried, and ``places`` are where it broke."""

    def __init__(self, name: str, wanted: int, folder: Path) -> None:
        self.name = name
        self.wanted = wanted
        self.folder = folder
        self.inputs = 0
        self.places: dict[str, str] = {}

    def one(self, data: bytes) -> None:
        """Try an input, and at times a large one that is made of it."""
        self._try(data)
        if self.inputs % _REPEATS == 0 and len(data) > 2 and REPEATED not in data:
            begin = self.inputs // _REPEATS % (len(data) - 1)
            end = min(begin + 1 + self.inputs // 7 % 8, len(data))
            parts = data[:begin], data[begin:end], data[end:]
            self._try(REPEATED + REPEATED.join(parts))
        if self.inputs % 500 == 0 or self.inputs >= self.wanted:
            self._write()

    def _try(self, data: bytes) -> None:
        self.inputs += 1
        try:
            run(self.name, data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
            place += f" {frames[-2].filename}:{frames[-2].lineno}"
            if place not in self.places:
                digest = hashlib.sha256(data).hexdigest()[:12]
                (self.folder / "crashes" / f"{self.name}-{digest}").write_bytes(data)
                self.places[place] = digest
                traceback.print_exc()
                self._write()

    def _write(self) -> None:
        result = {"inputs": self.inputs, "crashes": len(self.places)}
        (self.folder / "results" / self.name).write_text(json.dumps(result))


def speed(name: str) -> float:
    """Return how many inputs a target takes in a second of one processor."""
    inputs = [path.read_bytes() for path in corpus(name)]
    for data in inputs:  # the first input may have to make a database
        run(name, data)
    inputs = [data for data in inputs if not data.startswith(REPEATED)]
    began, done = time.thread_time(), 0
    while time.thread_time() - began < _PROBE_SECONDS:
        run(name, inputs[done % len(inputs)])
        done += 1
    return done / (time.thread_time() - began)


def fuzz(name: str, wanted: int, folder: Path) -> NoReturn:
    """Run a target and end the process, as atheris does."""
    log = os.open(folder / "logs" / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    found = folder / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={wanted}",
        f"-max_len={_LONGEST}",
        "-timeout=120",
        "-rss_limit_mb=2048",
        "-verbosity=0",
        "-report_slow_units=600",  # it counts the time in which others have the processor
        f"-artifact_prefix={folder / 'crashes' / name}-",
    ]
    guided = Guided(name, wanted, folder)
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / name)], guided.one)
    atheris.Fuzz()
    os._exit(0)
