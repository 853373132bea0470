"""``automx config``: the effective settings."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from automx.cli.context import Context, with_json
from automx.config import KEYS, SOURCE_KEYS, Settings
from automx.config.keys import Key


@click.command
@with_json
def config(context: Context) -> None:
    """Print the effective settings and their sources.

    Secrets are masked.
    """
    context.write(_document(context.settings), lambda: "\n".join(_lines(context.settings)))


def _document(settings: Settings) -> dict[str, object]:
    """Return the settings for programs; each value is the text of a file of settings."""
    return {
        "settings": _with_origins(KEYS, settings.values(), settings.given_by),
        "zones": {name: dict(_of_zone(group)) for name, group in settings.zones.items()},
        "sources": {
            source.name: _with_origins(SOURCE_KEYS, source.values(), source.given_by)
            for source in settings.sources
        },
    }


def _with_origins(
    keys: Mapping[str, Key], values: Mapping[str, object], given_by: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    return {
        name: {"value": keys[name].show(value), "given_by": given_by[name]}
        for name, value in values.items()
    }


def _of_zone(group: object) -> Iterator[tuple[str, str]]:
    """Yield the keys of a zone with the texts of their values."""
    for key in KEYS.values():
        owner, _, attribute = key.path.rpartition(".")
        if owner == "zone":
            yield attribute, key.show(getattr(group, attribute))


def _lines(settings: Settings) -> Iterator[str]:
    """Yield the settings as lines of a file of settings, each with where it comes from."""
    document: Any = _document(settings)
    yield from _of_section(document["settings"])
    for zone, values in document["zones"].items():
        yield from ("", f"[zone.{zone}]")
        yield from (f"{name} = {value}".rstrip() for name, value in values.items())
    for source, values in document["sources"].items():
        yield from ("", f"[source.{source}]")
        yield from _of_section(values)


def _of_section(values: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for name, given in values.items():
        shown = " ".join(given["value"].split())
        yield f"{f'{name} = {shown}'.rstrip()}  # {given['given_by']}"
