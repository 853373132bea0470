"""``automx config``: the effective settings."""

import click


@click.command
def config() -> None:
    """Print the effective settings and where each comes from, without secrets."""
    from automx.config import KEYS, load

    settings = load()
    for name, value in settings.values().items():
        line = f"{name} = {KEYS[name].show(value)}".rstrip()
        click.echo(f"{line}  # {settings.sources[name]}")
