"""``automx config``: the effective settings."""

import click

from automx.config import KEYS, load


@click.command
def config() -> None:
    """Print the effective settings and their sources.

    Secrets are masked.
    """
    settings = load()
    for name, value in settings.values().items():
        line = f"{name} = {KEYS[name].show(value)}".rstrip()
        click.echo(f"{line}  # {settings.sources[name]}")
