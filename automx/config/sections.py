"""Sections of the configuration file beside ``[automx]``, such as ``[zone.example.com]``.

A section holds keys of one group of settings, without the group's prefix: ``zone_server`` becomes
``server``. A key that is left out has the value that ``[automx]`` or the environment gives.
"""

from collections.abc import Mapping

from automx.config import files
from automx.errors import SettingsError


def read(
    environ: Mapping[str, str], kind: str, names: Mapping[str, str]
) -> dict[str, dict[str, tuple[str, str]]]:
    """Return name -> key -> (text, source) of the sections ``[KIND.NAME]``.

    ``names`` maps each allowed name to its key, as for :func:`automx.config.files.read`. Raises
    SettingsError for a file that cannot be read, an unknown key, and a section without a name.
    """
    found = files.found(environ)
    if found is None or found[1] != "automx":
        return {}
    path = found[0]
    parser = files.parsed(path, "automx")
    sections = {}
    for section in parser.sections():
        begin, dot, name = section.partition(".")
        if begin != kind:
            continue
        source = f"{path}, [{section}]"
        if not dot or not name:
            raise SettingsError(f"{source}: the section must be [{kind}.NAME]")
        texts = {key: (text, source) for key, text in parser.items(section)}
        sections[name] = files.by_key(texts, names)
    return sections
