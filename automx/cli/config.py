"""``automx config``: the effective settings."""

import click


@click.command
def config() -> None:
    """Print the effective settings and where each comes from, without secrets."""
    from automx.config import load, masked

    settings = load()
    for name, value in settings.values().items():
        click.echo(f"{name} = {masked(name, value)}".rstrip() + f"  # {settings.sources[name]}")
