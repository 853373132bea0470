"""``automx config``: the effective settings."""

import click

from automx.cli.context import Context, pass_context
from automx.cli.terminal import say
from automx.config import KEYS


@click.command
@pass_context
def config(context: Context) -> None:
    """Print the effective settings and their sources.

    Secrets are masked.
    """
    settings = context.settings
    for name, value in settings.values().items():
        line = f"{name} = {KEYS[name].show(value)}".rstrip()
        say(f"{line}  # {settings.sources[name]}")
    for zone, group in settings.zones.items():
        say(f"[zone.{zone}]")
        for key in KEYS.values():
            owner, _, attribute = key.path.rpartition(".")
            if owner == "zone":
                say(f"{attribute} = {key.show(getattr(group, attribute))}".rstrip())
