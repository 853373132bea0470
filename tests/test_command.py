"""The backend ``command`` runs any program, and knows what each of its ends means."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from automx.backends import Mailbox, Owner, command
from automx.backends.command import Command, run_hook
from automx.errors import (
    AutomxError,
    NotReachedError,
    SettingsError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
    UnfitAddressError,
)
from tests.processes import REPOSITORY, wait_until

ADDRESS = "dc-abcde@example.org"
PASSWORD = 'pass"wörd'
OWNER = Owner("weekly", "0123456789abcdef")

Program = Callable[[str], tuple[str, ...]]


@pytest.fixture
def shell(tmp_path: Path) -> Program:
    """Make a program of a shell script; "$1" in it is the folder of the test."""

    def make(script: str) -> tuple[str, ...]:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return (str(path), str(tmp_path))

    return make


@pytest.fixture
def python(tmp_path: Path) -> Program:
    """Make a program of Python statements, run without the site's packages."""

    def make(statements: str) -> tuple[str, ...]:
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{statements}\n")
        path.chmod(0o755)
        return (str(path), str(tmp_path))

    return make


def says(answer: object) -> str:
    """Return a script that reads the request and prints an answer."""
    return f"cat >/dev/null; cat <<'END'\n{json.dumps(answer)}\nEND"


def cause(error: pytest.ExceptionInfo[AutomxError], words: tuple[str, ...]) -> str:
    """Return the cause of an error without the folder of the test."""
    assert error.value.cause is not None
    return error.value.cause.replace(words[0], "program")


def is_alive(pid: int) -> bool:
    """Tell whether a process runs, and is no zombie that nobody has waited for yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def has_ended(pid: int) -> bool:
    """Tell whether a process runs no more."""
    return not is_alive(pid)


def call(words: tuple[str, ...], action: str, timeout: float = 30) -> Mailbox | None:
    backend = Command(words, timeout=timeout)
    if action == "create":
        backend.create(ADDRESS, PASSWORD, OWNER)
        return None
    if action == "find":
        return backend.find(ADDRESS, OWNER)
    if action == "set_password":
        backend.set_password(ADDRESS, PASSWORD, OWNER)
        return None
    if action == "disable":
        backend.disable(ADDRESS, OWNER)
        return None
    backend.delete(ADDRESS, OWNER)
    return None


ODD = [
    *("null", "true", "1", "1.5", "1e999", "NaN", '"x"', "[]", "{}", "[[]]", "[" * 900 + "]" * 900),
    *(f'{{"status": {odd}}}' for odd in ("null", "1", "[]", "{}", '["created"]', '"\\ud800"')),
    '{"status": "found", "active": [], "ours": {}}',
    '{"status": "found", "active": true, "ours": true, "last_login": [1]}',
    '{"status": "found", "active": true, "ours": true, "last_login": 1e3}',
    '{"status": "found", "active": true, "ours": true, "last_login": true}',
    '{"status": "created", "reason": ' + "[" * 900 + "]" * 900 + "}",
]


@pytest.mark.parametrize("answer", ODD, ids=lambda answer: answer[:60])
def test_no_shape_of_an_answer_is_a_bug(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Each is uncertain, whichever action it answers."""
    monkeypatch.setattr(command, "run", lambda *_, **__: answer.encode())
    for action in ("create", "find", "disable", "delete"):
        with pytest.raises(UncertainError) as error:
            call(("/program",), action)
        assert "\n" not in str(error.value.cause)
    Command(("/program",), timeout=30).check_address(ADDRESS)


@pytest.mark.parametrize("status", ["refused", "unfit"])
@pytest.mark.parametrize("reason", ["null", "1", "[]", "{}", "[[1]]", '{"a": []}', '"\\ud800"'])
def test_a_reason_of_any_shape_is_told(
    monkeypatch: pytest.MonkeyPatch, status: str, reason: str
) -> None:
    text = f'{{"status": "{status}", "reason": {reason}}}'
    monkeypatch.setattr(command, "run", lambda *_, **__: text.encode())
    with pytest.raises((TryAgainError, UnfitAddressError)):
        call(("/program",), "create")


@pytest.mark.parametrize(
    "answer",
    [{"status": "allowed"}, {"status": "refused"}, {"status": "absent"}, {"status": "?"}, "x"],
)
def test_an_address_is_allowed_unless_the_program_says_no(shell: Program, answer: object) -> None:
    Command(shell(says(answer)), timeout=30).check_address(ADDRESS)
    Command(("/nowhere",), timeout=30).check_address(ADDRESS)


def test_an_address_that_the_mail_server_does_not_have_is_no_outage(shell: Program) -> None:
    words = shell(says({"status": "unfit", "reason": f"too\nlong for {PASSWORD}"}))
    with pytest.raises(UnfitAddressError) as error:
        Command(words, timeout=30).check_address(ADDRESS)
    assert error.value.cause == (
        f"account_command, check: {ADDRESS} is unfit: too long for {PASSWORD}"
    )
    with pytest.raises(UnfitAddressError) as error:
        call(words, "create")
    assert error.value.cause == f"account_command, create: {ADDRESS} is unfit: too long for ***"
    with pytest.raises(UncertainError):
        call(words, "delete")


def test_the_program_gets_one_line_of_json(shell: Program, tmp_path: Path) -> None:
    words = shell('cat >"$1/request"; echo \'{"status": "created"}\'')
    Command(words, timeout=30).create(ADDRESS, PASSWORD, OWNER)
    request = (tmp_path / "request").read_bytes()
    assert json.loads(request) == {
        "version": 1,
        "action": "create",
        "address": ADDRESS,
        "token": "weekly",
        "mark": "0123456789abcdef",
        "password": PASSWORD,
    }
    assert request.endswith(b"}\n")
    assert request.count(b"\n") == 1
    assert request.isascii()


@pytest.mark.parametrize("action", ["find", "disable", "delete"])
def test_only_create_tells_a_password(shell: Program, tmp_path: Path, action: str) -> None:
    words = shell('cat >"$1/request"; echo \'{"status": "absent"}\'')
    assert call(words, action) is None
    assert json.loads((tmp_path / "request").read_bytes()) == {
        "version": 1,
        "action": action,
        "address": ADDRESS,
        "token": "weekly",
        "mark": "0123456789abcdef",
    }


def test_the_program_sees_little_of_automx(
    shell: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOMX_DB_URI", "postgresql://automx:secret@localhost/automx")
    monkeypatch.setenv("HOME", "/var/lib/automx")
    script = 'cat >/dev/null; env >"$1/env"; pwd >"$1/cwd"; ls -l /proc/$$/fd >"$1/open"'
    words = shell(script + '; ps -o sid= -p $$ >"$1/session"; echo \'{"status": "deleted"}\'')
    with (tmp_path / "something").open("w"):
        call(words, "delete")
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LANG", "HOME"}  # the shell's own
    assert (tmp_path / "cwd").read_text() == "/\n"
    assert str(tmp_path / "something") not in (tmp_path / "open").read_text()
    assert int((tmp_path / "session").read_text()) != os.getsid(0)


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("create", "created"),
        ("set_password", "changed"),
        ("disable", "disabled"),
        ("disable", "absent"),
        ("delete", "deleted"),
        ("delete", "absent"),
        ("find", "absent"),
    ],
)
def test_statuses_of_success(shell: Program, action: str, status: str) -> None:
    assert call(shell(says({"status": status})), action) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"active": True, "ours": True, "last_login": None}, Mailbox(True, True, None, False)),
        ({"active": False, "ours": True}, Mailbox(False, True, None, False)),
        ({"active": True, "ours": True, "last_login": 0}, Mailbox(True, True)),
        (
            {"active": True, "ours": False, "last_login": 1790000000, "more": [1]},
            Mailbox(True, False, datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        ),
        (
            {"active": True, "ours": True, "last_login": 253402300799},
            Mailbox(True, True, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ),
    ],
)
def test_a_mailbox_that_is_found(
    shell: Program, answer: Mapping[str, object], expected: Mailbox
) -> None:
    assert call(shell(says({"status": "found", **answer})), "find") == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, "active and ours must be true or false"),
        ({"active": True}, "active and ours must be true or false"),
        ({"active": 1, "ours": True}, "active and ours must be true or false"),
        ({"active": True, "ours": "true"}, "active and ours must be true or false"),
    ],
)
def test_a_mailbox_that_is_told_of_wrongly(
    shell: Program, answer: Mapping[str, object], expected: str
) -> None:
    words = shell(says({"status": "found", **answer}))
    with pytest.raises(UncertainError) as error:
        call(words, "find")
    assert cause(error, words).startswith(f"account_command, find: {expected}: {{'status': 'found'")


@pytest.mark.parametrize("wrong", ["1790000000", 1790000000.0, True, False, -1, 1790000000000, []])
def test_a_last_login_that_is_no_time(shell: Program, wrong: object) -> None:
    answer = {"status": "found", "active": True, "ours": True, "last_login": wrong}
    words = shell(says(answer))
    with pytest.raises(UncertainError) as error:
        call(words, "find")
    expected = (
        f"account_command, find: last_login must be null, 0 or a Unix time in seconds: {answer}"
    )
    assert cause(error, words) == expected


def test_a_mailbox_that_exists_is_taken(shell: Program) -> None:
    with pytest.raises(TakenError) as error:
        call(shell(says({"status": "exists"})), "create")
    assert error.value.cause is None


@pytest.mark.parametrize("action", ["create", "find", "disable", "delete"])
def test_a_refusal_changed_nothing_and_has_a_reason(shell: Program, action: str) -> None:
    words = shell(says({"status": "refused", "reason": f"the disk\nis full of {PASSWORD}"}))
    with pytest.raises(TryAgainError) as error:
        call(words, action)
    expected = (
        "the disk is full of ***" if action == "create" else f"the disk is full of {PASSWORD}"
    )
    assert cause(error, words) == f"account_command, {action}: refused: {expected}"
    assert str(error.value) == TryAgainError.public


@pytest.mark.parametrize("answer", [{}, {"reason": None}, {"reason": ""}])
def test_a_refusal_may_have_no_reason(shell: Program, answer: Mapping[str, object]) -> None:
    words = shell(says({"status": "refused", **answer}))
    with pytest.raises(TryAgainError) as error:
        call(words, "delete")
    assert cause(error, words) == "account_command, delete: refused: without a reason"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", "the answer is no JSON (Expecting value: line 1 column 1 (char 0)):"),
        (b"\xef\xbb\xbf" + b'{"status": "created"}', "the answer is no JSON (Unexpected UTF-8 BOM"),
        (b'{"status": "cr\xe9ated"}', "the answer is no JSON ('utf-8' codec can't decode byte"),
        ('{"status": "created"}'.encode("utf-16"), "the answer is no JSON ('utf-8' codec can't"),
        (b'{"status": "created", "time": NaN}', "the answer is no JSON (NaN is no JSON)"),
        (b'{"status": "created"} {}', "the answer is no JSON (Extra data"),
        (b'{"status": "created"', "the answer is no JSON (Expecting ',' delimiter"),
        (b"[" * 60_000, "the answer is no JSON (it is nested too deeply)"),
        (b"1" * 60_000, "the answer is no JSON (Exceeds the limit"),
        (b'["created"]', 'the answer is no object: ["created"]'),
        (b"null", "the answer is no object: null"),
        (b'{"status": "deleted"}', "the status does not belong to this action:"),
        (b'{"status": ["created"]}', "the status does not belong to this action:"),
        (b'{"status": null}', "the status does not belong to this action:"),
        (b"{}", "the status does not belong to this action: {}"),
        (b'{"status": "created"}' + b" " * 65_536, "wrote more than 65536 bytes"),
    ],
)
def test_an_answer_that_is_none_leaves_open_what_happened(
    shell: Program, tmp_path: Path, output: bytes, expected: str
) -> None:
    (tmp_path / "answer").write_bytes(output)
    words = shell('cat >/dev/null; cat "$1/answer"')
    with pytest.raises(UncertainError) as error:
        call(words, "create")
    assert type(error.value) is UncertainError
    text = cause(error, words)
    assert text.startswith(f"account_command, create: {expected}")
    assert len(text) <= 500
    assert str(error.value) == UncertainError.public


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 3", "account_command, create: exit status 3"),
        ("echo no such file >&2; exit 1", "account_command, create: exit status 1: no such file"),
        ('echo \'{"status": "created"}\'; exit 1', "account_command, create: exit status 1"),
        ("kill -9 $$", "account_command, create: killed by signal 9"),
        ("echo oh >&2; kill -TERM $$", "account_command, create: killed by signal 15: oh"),
    ],
)
def test_a_program_that_fails_leaves_open_what_happened(
    shell: Program, script: str, expected: str
) -> None:
    words = shell(script)
    with pytest.raises(UncertainError) as error:
        call(words, "create")
    assert type(error.value) is UncertainError
    assert cause(error, words) == expected


@pytest.mark.parametrize(
    "spelling",
    [PASSWORD, json.dumps(PASSWORD), repr({"password": PASSWORD})],
    ids=["plain", "json", "repr"],
)
def test_a_password_on_stderr_is_not_told(python: Program, spelling: str) -> None:
    words = python(f"sys.stderr.buffer.write({spelling.encode()!r} + b' is wrong'); sys.exit(1)")
    with pytest.raises(UncertainError) as error:
        call(words, "create")
    text = cause(error, words)
    assert "*** is wrong" in text.replace('"', "").replace("'}", "")
    assert "pass" not in text.replace("password", "")


def test_no_part_of_a_long_password_is_told(python: Program) -> None:
    password = "wachtwoord-" * 20
    words = python("os.write(2, sys.stdin.read().encode() * 100); sys.exit(1)")
    with pytest.raises(UncertainError) as error:
        Command(words, timeout=30).create(ADDRESS, password, OWNER)
    assert "***" in cause(error, words)
    assert "wacht" not in cause(error, words)
    words = python(f"os.write(2, b'{password} ' * 1000); sys.exit(1)")
    with pytest.raises(UncertainError) as error:
        Command(words, timeout=30).create(ADDRESS, password, OWNER)
    assert re.fullmatch(r"account_command, create: exit status 1:( \*\*\*)+", cause(error, words))


def test_a_password_in_an_answer_is_not_told(shell: Program) -> None:
    words = shell("cat")
    with pytest.raises(UncertainError) as error:
        call(words, "create")
    assert '"password": "***"}' in cause(error, words)


def test_the_end_of_much_on_stderr_is_told(python: Program) -> None:
    words = python("os.write(2, b'x' * 60000); os.write(2, b'the disk is full\\n'); sys.exit(1)")
    with pytest.raises(UncertainError) as error:
        call(words, "create")
    text = cause(error, words)
    assert text.endswith("exit status 1: disk is full")
    assert len(text) < 600


def test_what_a_successful_program_complains_of_is_logged(
    shell: Program, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    words = shell(f"echo 'the quota is\nnearly used up' >&2; {says({'status': 'created'})}")
    call(words, "create")
    assert caplog.messages == ["account_command, create: the quota is nearly used up"]


@pytest.mark.parametrize("contents", [None, "no program", "#!/nonexistent\n"])
def test_a_program_that_cannot_be_started_changed_nothing(
    tmp_path: Path, contents: str | None
) -> None:
    path = tmp_path / "program"
    if contents is not None:
        path.write_text(contents)
        path.chmod(0o755)
    words = (str(path),)
    with pytest.raises(NotReachedError) as error:
        call(words, "create")
    assert cause(error, words).startswith("account_command, create: cannot be started: ")


def test_no_program_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="account_command is empty"):
        Command((), timeout=1)


def test_words_are_not_read_by_a_shell(python: Program, tmp_path: Path) -> None:
    words = python("print(open(sys.argv[1]).read())")
    odd = tmp_path / "$(id) ; * answer"
    odd.write_text('{"status": "deleted"}')
    call((words[0], str(odd)), "delete")


@pytest.mark.parametrize(
    "statements",
    [
        # reads nothing, and so closes stdin while the request is written
        """os.write(1, b'{"status": "created"}')""",
        # leaves a process in the background that keeps all pipes open, in the group and out of it
        """os.write(1, b'{"status": "created"}')
if daemon(): time.sleep(600)""",
        """os.write(1, b'{"status": "created"}')
if daemon(): os.setsid(); time.sleep(600)""",
        # the same, while the background goes on complaining
        """os.write(1, b'{"status": "created"}')
if daemon():
    while True: os.write(2, b'x' * 100)""",
        # answers in pieces
        """for piece in ('{"sta', 'tus": "', 'created"}'): print(piece, end='', flush=True)""",
        # complains at length first
        """os.write(2, b'x' * 1000000); os.write(1, b'{"status": "created"}')""",
    ],
    ids=["reads nothing", "daemon", "daemon of its own", "loud daemon", "pieces", "long complaint"],
)
def test_the_answer_counts_when_the_program_has_ended(
    python: Program, tmp_path: Path, statements: str
) -> None:
    define = """
def daemon():
    pid = os.fork()
    if pid: open(sys.argv[1] + '/daemon', 'w').write(str(pid))
    return not pid
"""
    try:
        call(python(define + statements), "create", timeout=60)
    finally:
        if (tmp_path / "daemon").exists():
            os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        'cat >/dev/null; sleep 600 & echo $! >"$1/child"; wait',
        'echo \'{"status": "created"}\'; exec >&- 2>&-; sleep 600',
        "trap '' TERM INT HUP; while :; do sleep 600; done",
    ],
    ids=["sleeps", "waits for a child", "closes its output", "ignores signals"],
)
def test_a_program_that_takes_too_long_is_killed_with_all_it_started(
    shell: Program, tmp_path: Path, script: str
) -> None:
    words = shell(f'echo $$ >"$1/pid"; {script}')
    with pytest.raises(SilentError) as error:
        call(words, "create", timeout=0.5)
    assert cause(error, words) == "account_command, create: was killed after 0.5 s"
    for name in ("pid", "child"):
        if (tmp_path / name).exists():
            pid = int((tmp_path / name).read_text())
            wait_until(partial(has_ended, pid), f"the end of {pid}")


def test_the_log_has_what_a_killed_program_complained_of(shell: Program) -> None:
    words = shell("echo waiting for the lock >&2; sleep 600")
    with pytest.raises(SilentError) as error:
        call(words, "create", timeout=0.5)
    assert (
        cause(error, words)
        == "account_command, create: was killed after 0.5 s: waiting for the lock"
    )


def test_a_program_that_prints_without_end_is_killed_at_once(
    shell: Program, tmp_path: Path
) -> None:
    words = shell('echo $$ >"$1/pid"; exec yes')
    with pytest.raises(UncertainError) as error:
        call(words, "create", timeout=600)
    assert cause(error, words) == "account_command, create: wrote more than 65536 bytes"
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_many_threads_may_call_at_once(python: Program) -> None:
    words = python(
        """import json
request = json.load(sys.stdin)
found = {"status": "found", "active": True, "ours": request["mark"] == request["address"]}
print(json.dumps(found | {"last_login": int(request["token"])}))"""
    )
    backend = Command(words, timeout=60)

    def find(number: int) -> Mailbox | None:
        return backend.find(f"{number}@example.org", Owner(str(number), f"{number}@example.org"))

    numbers = range(1, 65)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(find, numbers))
    assert found == [Mailbox(True, True, datetime.fromtimestamp(n, UTC)) for n in numbers]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_server_started_without_exit_statuses_runs_nothing(
    shell: Program, tmp_path: Path
) -> None:
    words = shell('touch "$1/ran"; exit 1')
    statements = f"""
import signal
from automx.backends.command import run_hook
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
run_hook({words!r}, {{}}, timeout=30)
"""
    result = subprocess.run(
        [sys.executable, "-c", statements],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "automx.errors.NotReachedError" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_a_hook_is_told_a_document(shell: Program, tmp_path: Path) -> None:
    run_hook(shell('cat >"$1/told"'), {"address": ADDRESS, "days": 3}, timeout=30)
    assert json.loads((tmp_path / "told").read_text()) == {"address": ADDRESS, "days": 3}


def test_what_a_hook_prints_is_not_read(shell: Program) -> None:
    run_hook(shell("cat >/dev/null; yes | head -c 10000000"), {"address": ADDRESS}, timeout=60)


@pytest.mark.parametrize(
    ("script", "expected", "text"),
    [
        ("exit 75", UncertainError, "program: exit status 75"),
        ("echo no route >&2; exit 1", UncertainError, "program: exit status 1: no route"),
        ("kill -9 $$", UncertainError, "program: killed by signal 9"),
        ("sleep 600", SilentError, "program: was killed after 0.5 s"),
    ],
)
def test_a_hook_that_fails(
    shell: Program, script: str, expected: type[AutomxError], text: str
) -> None:
    words = shell(script)
    with pytest.raises(expected) as error:
        run_hook(words, {"address": ADDRESS}, timeout=0.5)
    assert type(error.value) is expected
    assert cause(error, words) == text


def test_a_hook_that_cannot_be_started(tmp_path: Path) -> None:
    words = (str(tmp_path / "program"),)
    with pytest.raises(NotReachedError) as error:
        run_hook(words, {"address": ADDRESS}, timeout=30)
    assert cause(error, words) == "program: cannot be started: No such file or directory"


def test_a_hook_without_a_free_file_descriptor_is_not_started(
    shell: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    words = shell('touch "$1/ran"')
    with pytest.raises(NotReachedError) as error:
        run_hook(words, {"address": ADDRESS}, timeout=30)
    assert cause(error, words) == "program: cannot be started: Too many open files"
    assert not (tmp_path / "ran").exists()
