"""Fuzzing: every parser of automx gets odd bytes, and keeps its promise.

A target gives bytes to one parser and checks what that promises. ``make test`` runs each with some
hundred inputs and with the files of ``tests/data/fuzz``. ``make fuzz`` (``__main__``) runs them for
long, guided by the code that an input reaches.
"""

from tests.documents import DATA

CORPUS = DATA / "fuzz"  # a folder for each target
