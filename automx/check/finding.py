"""What the doctor has found."""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is; the numbers are exit statuses."""

    OK = 0
    WARNING = 1  # it works for most, or could be better
    ERROR = 2  # people's clients fail


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about a domain ("" for the database as a whole): what is where, and what to do."""

    domain: str
    level: Level
    subject: str
    text: str
    advice: str = ""
