"""Man pages say what the help of the command line says, in the words that roff shows."""

import re
import subprocess

import click
import pytest

from automx.cli import COMMANDS, main
from docs import manpages
from tests.processes import program

PAGES = dict(manpages.pages())


def read(page: str) -> str:
    """Return what man shows, in one line; no warning is allowed."""
    command = [program("groff", "groff-base"), "-man", "-Tutf8", "-Kutf8", "-ww", "-P-cbou"]
    result = subprocess.run(
        [*command, "-rHY=0", "-rLL=500n"], input=page.encode(), capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    return flat(result.stdout.decode())


def flat(text: str) -> str:
    # groff shows the minus sign and the hyphen, quotes and the tilde by the signs of Unicode.
    return re.sub(r"\s+", " ", text.replace("\N{HYPHEN}", "-").replace("\N{MINUS SIGN}", "-"))


def test_each_command_has_a_page() -> None:
    assert set(PAGES) == {"automx", *(f"automx-{name}" for name in COMMANDS)}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_page_says_what_help_says(name: str) -> None:
    page = read(PAGES[f"automx-{name}"])
    root = click.Context(main, info_name="automx", **main.context_settings)
    command = main.get_command(root, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=root, terminal_width=500)
    contexts = [context]
    if isinstance(command, click.Group):
        contexts += [
            click.Context(each, info_name=word, parent=context, terminal_width=500)
            for word, each in command.commands.items()
        ]
    for each in contexts:
        usage = each.get_usage().removeprefix("Usage: ")
        assert flat(usage) in page
        for paragraph in (each.command.help or "").split("\n\n"):
            assert flat(paragraph.removeprefix("\b\n")).strip() in page
        for parameter in each.command.params:
            record = parameter.get_help_record(each)
            if isinstance(parameter, click.Option) and record is not None:
                assert flat(" ".join(record)).strip() in page
    assert flat(command.epilog or "").replace("\b ", "").strip() in page
    assert f"automx-{name} - {COMMANDS[name][1].removesuffix('.')}" in page


def test_the_first_page_lists_all_commands() -> None:
    page = read(PAGES["automx"])
    for name, (_, sentence) in COMMANDS.items():
        assert f" automx-{name}(1) {sentence} " in page


@pytest.mark.parametrize("text", ["a\\nb", "'x' `y` ~z ^", ".TH", "'TH", "--x-y", "\\fBx\\*[y]"])
def test_no_text_is_a_request_of_roff(text: str) -> None:
    assert text in read(f".TH x 1\n.SH NAME\n{manpages.literal(text)}\n")
