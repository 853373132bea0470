"""Settings of single zones, in sections such as ``[zone.example.com]``.

A key that is left out has the value that ``[automx]`` or the environment gives.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from automx.config import files, values
from automx.config.keys import Key, names_of, read_texts
from automx.errors import SettingsError

if TYPE_CHECKING:
    from automx.config import ZoneSettings

ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")  # of TSIG, RFC 8945


def read(
    sections: Mapping[str, dict[str, tuple[str, str]]],
    default: "ZoneSettings",
    keys: Mapping[str, Key],
) -> dict[str, "ZoneSettings"]:
    """Return the settings of zones by the name of their section, an A-label in lower case.

    ``sections`` has the texts of each section: name -> key -> (text, where it stands). ``default``
    are those of all other zones; ``keys`` are those of a section by their names there. Raises
    SettingsError.
    """
    zones = {}
    for section, texts in sections.items():
        try:
            zone = values.host_name(section)
        except ValueError:
            text = "the name of a zone must be an A-label, such as example.com"
            raise SettingsError(f"[zone.{section}]: {text}") from None
        zones[zone] = replace(default, **read_texts(keys, files.by_key(texts, names_of(keys))))
    return zones
