"""The user that root has commands run as, and which commands keep root's rights for files.

tests/test_docs_commands.py does it as root on a machine where automx is installed.
"""

import os
import pwd
from collections.abc import Iterator

import click
import pytest

from automx.cli import COMMANDS, caller, main
from tests.commandline import attempt, automx

# Files of these belong to the service.
OF_THE_SERVICE = {
    ("publish", "folder"),
    ("import-mailadm", "database"),
    ("import-mailadm", "token_file"),
    ("check", "ca_file"),
    ("dns-apply", "ca_file"),
    ("quickstart", "ca_file"),
}


def parameters(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the parameters of a command and of those below it."""
    yield from command.params
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        yield from parameters(below)


def names_a_file(parameter: click.Parameter) -> bool:
    metavar = parameter.metavar or parameter.name or ""
    return isinstance(parameter.type, click.Path) or "FILE" in metavar.upper()


def test_commands_that_name_files_open_them_as_the_caller() -> None:
    found = {
        name
        for name in COMMANDS
        if (command := main.get_command(click.Context(main), name))
        for parameter in parameters(command)
        if names_a_file(parameter) and (name, parameter.name) not in OF_THE_SERVICE
    }
    assert found == caller.WITH_FILES


def test_a_user_that_does_not_exist_is_named() -> None:
    result = attempt("config", env={"AUTOMX_CONF": "/dev/null", "AUTOMX_USER": "no-such-user"})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "automx: AUTOMX_USER: there is no user no-such-user\n"


def test_nobody_but_root_works_as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    result = attempt("config", env={"AUTOMX_CONF": "/dev/null", "AUTOMX_USER": "root"})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "automx: only root can run commands as the user root\n"


def test_the_user_itself_needs_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_USER": name}
    assert "  # default\n" in automx("config", env=env)
    assert os.getresuid() == (os.geteuid(),) * 3
