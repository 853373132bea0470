"""What the doctor has found."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad it is; the numbers are exit statuses."""

    OK = 0  # worth knowing, nothing to do
    WARNING = 1  # it works for most, or not for long
    ERROR = 2  # people's clients fail


WORDS = {Level.OK: "ok", Level.WARNING: "warning", Level.ERROR: "error"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about a domain ("" for database and settings): what is where, and what to do.

    The texts may hold what strangers sent: whoever shows them takes out control characters.
    """

    domain: str
    level: Level
    subject: str
    text: str
    advice: str = ""

    def document(self) -> dict[str, object]:
        """Return the finding for programs."""
        return {
            "domain": self.domain,
            "level": WORDS[self.level],
            "subject": self.subject,
            "text": self.text,
            "advice": self.advice,
        }


# A part of the work that can be done beside all others.
Step = Callable[[], Iterable[Finding]]
