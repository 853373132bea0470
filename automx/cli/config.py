"""``automx config``: the effective settings."""

from collections.abc import Iterator, Mapping

import click

from automx.cli.context import Context, pass_context
from automx.cli.terminal import say
from automx.config import KEYS, SOURCE_KEYS
from automx.config.keys import Key


@click.command
@pass_context
def config(context: Context) -> None:
    """Print the effective settings and their sources.

    Secrets are masked.
    """
    settings = context.settings
    for line in _lines(KEYS, settings.values(), settings.given_by):
        say(line)
    for zone, group in settings.zones.items():
        say("")
        say(f"[zone.{zone}]")
        for key in KEYS.values():
            owner, _, attribute = key.path.rpartition(".")
            if owner == "zone":
                say(f"{attribute} = {key.show(getattr(group, attribute))}".rstrip())
    for source in settings.sources:
        say("")
        say(f"[source.{source.name}]")
        for line in _lines(SOURCE_KEYS, source.values(), source.given_by):
            say(line)


def _lines(
    keys: Mapping[str, Key], values: Mapping[str, object], given_by: Mapping[str, str]
) -> Iterator[str]:
    for name, value in values.items():
        shown = " ".join(keys[name].show(value).split())
        yield f"{f'{name} = {shown}'.rstrip()}  # {given_by[name]}"
