"""What a directory says of a person, whatever kind of directory it is."""

import logging
from dataclasses import dataclass

from automx.address import PLACEHOLDER
from automx.clientconfig import FORBIDDEN
from automx.errors import UnavailableError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Person:
    """What a directory says of an address; "" where it says nothing."""

    login_name: str
    display_name: str


NOBODY = Person("", "")


class DirectoryError(UnavailableError):
    """A directory cannot be asked; the cause was logged when the outage began."""

    is_logged = True


def usable(text: str, directory: str, name: str) -> str:
    """Return a text if documents can hold it, else ""; the log names the directory and the value.

    Clients would expand a placeholder.
    """
    if FORBIDDEN.search(text) or PLACEHOLDER.search(text):
        log.warning("%s: %s holds a value that is no text", directory, name)
        return ""
    return text
