"""Settings of single zones, in sections such as ``[zone.example.com]``."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from automx.config import sections, values
from automx.errors import SettingsError

if TYPE_CHECKING:
    from automx.config import ZoneSettings

ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")  # of TSIG, RFC 8945

_SECRETS = {"secret"}


def read(
    environ: Mapping[str, str],
    default: "ZoneSettings",
    parsers: Mapping[str, Callable[[str], object]],
) -> dict[str, "ZoneSettings"]:
    """Return the settings of zones by the name of their section, an A-label in lower case.

    ``default`` are those of all other zones; ``parsers`` has the keys of a section, and what reads
    them. Raises SettingsError.
    """
    names = {name: name for name in parsers} | {f"{name}_file": name for name in _SECRETS}
    zones = {}
    for section, texts in sections.read(environ, "zone", names).items():
        try:
            zone = values.host_name(section)
        except ValueError:
            text = "the name of a zone must be an A-label, such as example.com"
            raise SettingsError(f"[zone.{section}]: {text}") from None
        changed: dict[str, Any] = {}
        for key, (text, source) in texts.items():
            try:
                changed[key] = parsers[key](text)
            except ValueError as error:
                raise SettingsError(f"{source}: {key} must be {error}") from None
        zones[zone] = replace(default, **changed)
    return zones
