"""Writes commands.md, the reference of all commands, from the help of the command line."""

from collections.abc import Iterator
from pathlib import Path

import click

from automx.cli import main

PAGE = Path(__file__).parent / "commands.md"
_HEAD = """\
# Commands

Each command tells this by `--help`. `make reference` writes this page from the code.
"""


def page() -> str:
    """Return the content of commands.md."""
    context = click.Context(main, info_name="automx", **main.context_settings)
    return _HEAD + "".join(_sections(context, main))


def _sections(context: click.Context, command: click.Command) -> Iterator[str]:
    """Yield the part about a command, and those about its subcommands."""
    context.terminal_width = 80
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            if subcommand is not None and not subcommand.hidden:
                yield from _sections(
                    click.Context(subcommand, parent=context, info_name=name), subcommand
                )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
