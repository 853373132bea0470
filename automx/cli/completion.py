"""``automx completion``: the completion of words by a shell, as click has it."""

import click
from click.shell_completion import get_completion_class

from automx.cli.terminal import EXIT_STATUS, pass_on

VARIABLE = "_AUTOMX_COMPLETE"  # with it, automx prints words instead of doing what it is asked

_USE = """\b
bash: eval "$(automx completion bash)" in ~/.bashrc
zsh:  eval "$(automx completion zsh)" in ~/.zshrc, after compinit
fish: automx completion fish >~/.config/fish/completions/automx.fish"""


@click.command(epilog=f"{_USE}\n\n{EXIT_STATUS}")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes words.

    They are commands, options, their values, and names of the database.
    """
    completes = get_completion_class(shell)
    if completes is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    root = context.find_root()
    pass_on(completes(root.command, {}, "automx", VARIABLE).source())
