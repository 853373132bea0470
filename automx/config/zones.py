"""Settings of single zones, in sections such as ``[zone.example.com]``.

A key that is left out has the value that ``[automx]`` or the environment gives.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from automx.config import files, values
from automx.errors import SettingsError

if TYPE_CHECKING:
    from automx.config import ZoneSettings

ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")  # of TSIG, RFC 8945

_SECRETS = {"secret"}


def read(
    sections: Mapping[str, dict[str, tuple[str, str]]],
    default: "ZoneSettings",
    parsers: Mapping[str, Callable[[str], object]],
) -> dict[str, "ZoneSettings"]:
    """Return the settings of zones by the name of their section, an A-label in lower case.

    ``sections`` has the texts of each section: name -> key -> (text, where it stands). ``default``
    are those of all other zones; ``parsers`` has the keys of a section, and what reads them. Raises
    SettingsError.
    """
    names = {name: name for name in parsers} | {f"{name}_file": name for name in _SECRETS}
    zones = {}
    for section, texts in sections.items():
        try:
            zone = values.host_name(section)
        except ValueError:
            text = "the name of a zone must be an A-label, such as example.com"
            raise SettingsError(f"[zone.{section}]: {text}") from None
        changed: dict[str, Any] = {}
        for key, (text, source) in files.by_key(texts, names).items():
            try:
                changed[key] = parsers[key](text)
            except ValueError as error:
                raise SettingsError(f"{source}: {key} must be {error}") from None
        zones[zone] = replace(default, **changed)
    return zones
