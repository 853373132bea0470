"""``automx config``: the effective settings."""

import click

from automx.config import load, masked


@click.command
def config() -> None:
    """Print the effective settings and their sources.

    Secrets are masked.
    """
    settings = load()
    for name, value in settings.values().items():
        click.echo(f"{name} = {masked(name, value)}".rstrip() + f"  # {settings.sources[name]}")
