"""What the server of a backend says: JSON (RFC 8259), which may be of any shape."""

import json
from typing import Any, NoReturn

MAX_DEPTH = 20  # of lists and objects in each other; the answers of mailcow have 6


def parse(text: str | bytes) -> Any:
    """Return the document of a JSON text.

    Raises ValueError if it is none, or nested so deeply that it could not even be quoted.
    """
    try:
        document = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return document
    raise ValueError("it is nested too deeply")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
