"""A key of the settings: how a field of a group is declared, and how its text is read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from automx.config import values
from automx.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the settings, as the file and the environment name it.

    ``parse`` returns the value of a text; it raises ValueError, with what is allowed. ``default``
    is a text, too. A ``secret`` can stand in a file of its own. ``show`` returns a value as a text
    without passwords. ``path`` says where the settings have the value, such as
    ``directory.timeout``.
    """

    name: str
    parse: Callable[[str], object]
    default: str
    secret: bool
    show: Callable[[Any], str]
    path: str = ""


def setting(
    name: str,
    parse: Callable[[str], T],
    default: str = "",
    *,
    secret: bool = False,
    show: Callable[[T], str] | None = None,
) -> T:
    """Declare a field of a group; a secret is shown as ``***``, or as ``show`` says."""
    is_plain = not secret and show is None
    declared = Key(
        name, parse, default, secret, show or (values.hidden if secret else values.shown)
    )
    return field(default_factory=lambda: parse(default), repr=is_plain, metadata={"key": declared})


def keys_of(group: Any, prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a group, and of the groups in it."""
    for item in fields(group):
        if is_dataclass(item.type):
            yield from keys_of(item.type, f"{item.name}.")
        elif item.metadata:
            yield replace(item.metadata["key"], path=prefix + item.name)


def names_of(keys: Mapping[str, Key]) -> dict[str, str]:
    """Return each name that a file or the environment may use, and its key."""
    return {name: name for name in keys} | {
        f"{name}_file": name for name in keys if keys[name].secret
    }


def read_texts(keys: Mapping[str, Key], texts: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return the value of each text: name of a key -> (text, where it stands).

    Raises SettingsError, which names the place, the key, and what is allowed.
    """
    found = {}
    for name, (text, where) in texts.items():
        try:
            found[name] = _parsed(keys[name], text)
        except ValueError as error:
            raise SettingsError(f"{where}: {name} must be {error}") from None
    return found


def _parsed(key: Key, text: str) -> object:
    """Return the value of a text; if there is none, that of the text before a comment."""
    if "\0" in text:  # neither a path nor a URI may hold it
        raise ValueError("a text without NUL")
    try:
        return key.parse(text)
    except ValueError:
        if (before := values.without_comment(text)) == text:
            raise
        return key.parse(before)
