"""The promises of docs/reliability.md about neighbours that fail, read from its tables."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.processes import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
BACK = "back"  # the state after each other one


@dataclass(frozen=True)
class Cell:
    """What a client gets: the status, and the words behind it, such as "from memory"."""

    status: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Promise:
    """A row: what clients get while a neighbour is in a state."""

    own: Cell
    other: Cell
    health: Cell
    account: Cell


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    found = re.search(rf"(?ms)^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE.read_text())
    assert found, f"{PAGE.name} has no heading {heading}"
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def promises() -> dict[tuple[str, str], Promise]:
    """Return the promise for each neighbour and each state."""
    found = {}
    for neighbours, states, *cells in rows("Answers while a neighbour fails"):
        promise = Promise(*(_cell(cell) for cell in cells))
        for key in _pairs(neighbours, states):
            assert key not in found, f"{key} stands in two rows"
            found[key] = promise
    return found


def deadlines() -> dict[str, str]:
    """Return, for each neighbour, the setting that limits a wait for it, or a time such as 1 s."""
    return {
        neighbour: deadline
        for neighbours, _, deadline, *_ in rows("Neighbours")
        for neighbour in neighbours.split(", ")
    }


def states() -> list[str]:
    """Return the states that the page explains."""
    return [state for state, _ in rows("States")]


def _pairs(neighbours: str, states: str) -> Iterator[tuple[str, str]]:
    for neighbour in neighbours.split(", "):
        for state in states.split(", "):
            yield neighbour, state


def _cell(text: str) -> Cell:
    status, *words = text.split(", ")
    return Cell(int(status), tuple(words))


def order(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the keys of faults, those of a neighbour together: its parts are started once."""
    neighbours = list(dict.fromkeys(neighbour for neighbour, _ in keys))
    faults = [key for key in keys if key[1] != BACK]
    return sorted(faults, key=lambda key: neighbours.index(key[0]))
