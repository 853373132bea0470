"""``automx config``: the effective settings."""

import click

from automx.config import KEYS, load, masked


@click.command
def config() -> None:
    """Print the effective settings and their sources.

    Secrets are masked.
    """
    settings = load()
    for name in KEYS:
        value = masked(name, getattr(settings, name))
        click.echo(f"{name} = {value}".rstrip() + f"  # {settings.sources[name]}")
