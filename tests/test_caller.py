"""The user that root has commands run as, and which commands keep root's rights for files.

tests/test_docs_commands.py does it as root on a machine where automx is installed.
"""

import os
import pwd
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from automx.cli import COMMANDS, caller, main
from automx.errors import SettingsError
from tests.commandline import attempt, automx
from tests.processes import PATIENCE, REPOSITORY

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


# What follows is tried in a process of root's that works as nobody, with folders of both.

AS_NOBODY = """
import os, signal, sys, threading
from pathlib import Path
from automx.cli import caller, output
caller.work_as("nobody", keeps_rights=True)
folder = Path(sys.argv[1])
"""


def as_nobody(folder: Path, script: str) -> str:
    """Return what a script prints that has the rights of nobody, and root's for named files."""
    if os.geteuid() != 0:
        pytest.fail("only root can work as another user: run the tests as root")
    folder.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY + textwrap.dedent(script), str(folder)],
        env={"PATH": os.environ["PATH"], "HOME": "/root", "PYTHONPATH": str(REPOSITORY)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.stderr == ""
    return result.stdout


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder of root's with a secret, beside one of nobody's."""
    with tempfile.TemporaryDirectory(prefix="automx-") as name:  # pytest's are closed to others
        folder = Path(name)
        (folder / "root").mkdir(mode=0o700)
        (folder / "root" / "secret").write_text("root's")
        (folder / "theirs").mkdir()
        user = pwd.getpwnam("nobody")
        os.chown(folder / "theirs", user.pw_uid, user.pw_gid)
        yield folder


def test_a_file_that_root_names_is_read_and_written_as_root(closed: Path) -> None:
    script = """
    print(caller.open_file(folder / "root/secret").read())
    with output.open_output(str(folder / "root/made")) as made:
        made.write(b"new")
    print(os.getresuid()[1] == os.stat(folder / "theirs").st_uid, os.environ["HOME"] != "/root")
    """
    assert as_nobody(closed, script) == 'b"root\'s"\nTrue True\n'
    made = closed / "root" / "made"
    assert (made.read_text(), made.stat().st_uid, made.stat().st_mode & 0o777) == ("new", 0, 0o600)


def test_rights_that_are_given_up_are_gone(closed: Path) -> None:
    script = """
    caller.give_up()
    print(len({*os.getresuid()}), len({*os.getresgid()}))
    try:
        caller.open_file(folder / "root/secret")
    except PermissionError:
        print("denied")
    """
    assert as_nobody(closed, script) == "1 1\ndenied\n"


def test_a_file_that_becomes_a_link_after_the_look_at_it_is_not_read(closed: Path) -> None:
    """The owner of a folder exchanges the file between the look at it and its opening."""
    script = """
    follow = caller._follow
    def late(path):
        found = follow(path)
        (folder / "theirs/file").unlink()
        (folder / "theirs/file").symlink_to(folder / "root/secret")
        return found
    (folder / "theirs/file").write_text("theirs")
    caller._follow = late
    try:
        print(caller.open_file(folder / "theirs/file").read())
    except OSError as error:
        print(error.strerror)
    """
    assert "root's" not in as_nobody(closed, script)


def test_a_pipe_of_another_user_gets_nothing(closed: Path) -> None:
    script = """
    import click
    os.mkfifo(folder / "theirs/pipe")
    reader = os.open(folder / "theirs/pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with output.open_output(str(folder / "theirs/pipe")) as made:
            made.write(b"backup")
    except click.ClickException as error:
        print(error.message.rpartition(": ")[2], os.read(reader, 10))
    """
    assert as_nobody(closed, script) == "Permission denied b''\n"


def test_a_link_of_another_user_is_not_written_to(closed: Path) -> None:
    script = """
    import click
    (folder / "theirs/database").write_text("rows")
    (folder / "theirs/link").symlink_to(folder / "theirs/database")
    try:
        with output.open_output(str(folder / "theirs/link")) as made:
            made.write(b"export")
    except click.ClickException as error:
        print(error.message.rpartition(": ")[2])
    print((folder / "theirs/database").read_text())
    """
    assert as_nobody(closed, script) == "Permission denied\nrows\n"


def test_an_interrupt_leaves_no_rights(closed: Path) -> None:
    script = """
    user = os.geteuid()
    try:
        with caller._rights():
            signal.raise_signal(signal.SIGINT)
            print(os.geteuid())
    except KeyboardInterrupt:
        print("interrupted", os.geteuid() == user)
    """
    assert as_nobody(closed, script) == "0\ninterrupted True\n"


@pytest.mark.parametrize(
    "opens", ["caller.open_file(pipe)", "output.open_output(str(pipe)).__enter__()"]
)
def test_an_interrupt_ends_the_wait_for_the_other_end_of_a_pipe(closed: Path, opens: str) -> None:
    script = f"""
    user, pipe, ended = os.geteuid(), folder / "root/pipe", threading.Event()
    with caller._rights():
        os.mkfifo(pipe)
    def interrupt():
        while not ended.wait(0.05):  # it may come before the wait
            os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    signal.signal(signal.SIGINT, lambda *_: None)
    thread.start()
    try:
        {opens}
    except KeyboardInterrupt:
        ended.set()
        thread.join()
        print("interrupted", os.geteuid() == user)
    """
    assert as_nobody(closed, script) == "interrupted True\n"


def test_an_interrupt_at_any_step_of_an_opening_leaves_no_rights(closed: Path) -> None:
    script = """
    user, steps = os.geteuid(), 0
    def trace(frame, event, _):
        global left
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if not left:
            left = -1
            signal.raise_signal(signal.SIGINT)
        return trace
    def traced(*values):
        sys.settrace(trace)
        try:
            return opened(*values)
        finally:
            sys.settrace(before)
    opened, caller._open, before = caller._open, traced, sys.gettrace()
    signal.alarm(60)  # its end, if an interrupt waits for ever
    left = -1
    while left < 0:
        steps += 1
        left = steps
        try:
            caller.open_file(folder / "root/secret").close()
        except KeyboardInterrupt:
            assert os.geteuid() == user
    print(steps > 20)
    """
    assert as_nobody(closed, script) == "True\n"


@pytest.mark.parametrize("number", ["4294967295", "99999999999", "-1", "", "x"])
def test_a_forged_number_of_sudo_gives_no_rights_of_root(
    monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    for name, value in (("COMMAND", "/usr/bin/automx show"), ("UID", number), ("GID", "1000")):
        monkeypatch.setenv(f"SUDO_{name}", value)
    with pytest.raises(SettingsError):
        caller._person()
