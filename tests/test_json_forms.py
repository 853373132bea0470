"""What commands print for programs, and what each does if it cannot print or is interrupted."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from automx.cli import main
from automx.errors import SettingsError
from tests import jsonforms
from tests.commandline import attempt
from tests.jsonforms import PAGE, SECTIONS, WITHOUT
from tests.zoneservers import ZoneServer, zone_server

FULL = "automx: the output cannot be written: No space left on device"
LINES = [line for _, lines in SECTIONS.values() for line in lines.split("\n")]


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZoneServer]:
    with zone_server("bind", tmp_path_factory.mktemp("zones") / "bind") as server:
        yield server


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, zones: ZoneServer) -> dict[str, list[Any]]:
    return jsonforms.outputs(tmp_path_factory.mktemp("forms"), zones)


@pytest.fixture(scope="module")
def given(
    tmp_path_factory: pytest.TempPathFactory, zones: ZoneServer
) -> tuple[dict[str, str], dict[str, str]]:
    """Files for the commands, and settings with a database of all kinds of rows."""
    return jsonforms.prepared(tmp_path_factory.mktemp("given"), zones)


def test_the_page_shows_what_commands_print(found: dict[str, list[Any]]) -> None:
    assert jsonforms.page(found) == PAGE.read_text()


@pytest.mark.parametrize("title", SECTIONS)
def test_commands_of_a_section_print_the_same_members(
    found: dict[str, list[Any]], title: str
) -> None:
    forms = []
    for document in found[title]:
        item = document[0] if isinstance(document, list) else document
        forms.append({*item} - {"file"})
    assert all(form == forms[0] for form in forms)


def test_each_command_has_json_and_a_form_or_a_reason() -> None:
    known = dict(jsonforms.commands(main))
    assert {name for name, has_json in known.items() if has_json} == {
        jsonforms.name_of(line) for line in LINES
    }
    assert {name for name, has_json in known.items() if not has_json} == {*WITHOUT}


@pytest.mark.parametrize("is_json", [False, True])
def test_a_full_disk_is_one_line_and_status_1_for_each_command(
    tmp_path: Path, zones: ZoneServer, monkeypatch: pytest.MonkeyPatch, is_json: bool
) -> None:
    files, env = jsonforms.prepared(tmp_path, zones)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    commands = [
        [*words, *["--json"] * is_json]
        for _, (_, lines) in jsonforms.in_order()
        for words in jsonforms.lines_of(lines, files)
    ]
    if not is_json:
        commands += [["completion", "bash"], ["db", "schema", "--dialect", "sqlite"], ["export"]]
    told = {" ".join(words): into_full_disk(words) for words in commands}
    found = {
        command: (status, errors)
        for command, (status, errors) in told.items()
        if status != 1 or errors.splitlines()[-1:] != [FULL] or "Traceback" in errors
    }
    assert found == {}


def into_full_disk(words: list[str]) -> tuple[int, str]:
    """Run a command whose standard output is a full disk; return its status and its errors."""
    before = sys.stdin, sys.stdout, sys.stderr
    errors = io.StringIO()
    disk = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closing it fails, too
    try:
        sys.stdin = io.TextIOWrapper(io.BytesIO(b"a password"))
        sys.stdout, sys.stderr = disk, errors
        with pytest.raises(SystemExit) as ended:
            main(words, prog_name="automx")
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        with contextlib.suppress(OSError):
            disk.close()
    return int(ended.value.code or 0), errors.getvalue()


@pytest.mark.parametrize("line", [*LINES, "export", "serve"])
def test_ctrl_c_ends_each_command_with_130(
    given: tuple[dict[str, str], dict[str, str]], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("automx.cli.context.load", interrupt)
    if line == "serve":
        monkeypatch.setattr("automx.cli.server.load", interrupt)
    files, _ = given
    result = attempt(*line.format(**files).split(), env={}, stdin="a password")
    if line == "check":
        assert result.stdout.splitlines()[-1] == "Interrupted: 0 of 0 domains were looked at."
    else:
        assert (result.stdout, result.stderr) == ("", "automx: interrupted\n")
    assert result.returncode == 130


def test_other_errors_of_settings_keep_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SettingsError("a reason")

    monkeypatch.setattr("automx.cli.context.load", fail)
    result = attempt("domain", "list", env={})
    assert (result.returncode, result.stderr) == (1, "automx: a reason\n")
