"""The file of a backup: who may read it, and what is refused in one line."""

import gzip
import hashlib
import io
import json
import os
import pty
import sqlite3
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from automx import migrations
from automx.backup import restore as restoring
from automx.backup.file import MAX_LINE, Reader
from automx.errors import BackupError
from automx.models import metadata
from automx.moments import this_second
from tests.backups import ROWS, dump, environment, is_without_rows
from tests.commandline import attempt, automx
from tests.processes import AUTOMX, own_mounts


def test_a_backup_can_be_read_by_its_owner_only_and_takes_the_place_of_an_older_one(
    filled: Path, tmp_path: Path
) -> None:
    path = tmp_path / "automx.backup"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        automx("backup", path, env=environment(f"sqlite:///{filled}"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith('{"automx_backup":1,"version":"')


def test_a_backup_that_fails_leaves_an_older_one_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "automx.backup"
    path.write_text("old")
    database = tmp_path / "automx.sqlite"
    sqlite3.connect(database).close()
    result = attempt("backup", path, env=environment(f"sqlite:///{database}"))
    assert (result.returncode, result.stderr) == (
        1,
        "automx: the database holds no automx schema: run automx db upgrade\n",
    )
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path, database]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_backup_goes_through_pipes(filled: Path, new: str, is_compressed: bool) -> None:
    """The program is started: the standard input of a test could be read twice."""
    env = {**os.environ, **environment(f"sqlite:///{filled}")}
    written = subprocess.run([AUTOMX, "backup", "-"], env=env, capture_output=True, check=True)
    assert written.stderr == b""
    data = gzip.compress(written.stdout) if is_compressed else written.stdout
    read = subprocess.run(
        [AUTOMX, "restore", "-"],
        env=env | environment(new),
        input=data,
        capture_output=True,
        check=True,
    )
    assert read.stdout.startswith(f"Restored {ROWS} rows".encode())
    assert dump(new, is_restored=True) == dump(f"sqlite:///{filled}")


def test_a_name_that_ends_with_gz_gives_a_compressed_file(
    filled: Path, tmp_path: Path, new: str
) -> None:
    path = tmp_path / "automx.backup.gz"
    automx("backup", path, env=environment(f"sqlite:///{filled}"))
    assert gzip.decompress(path.read_bytes()).startswith(b'{"automx_backup":1,')
    automx("restore", path, env=environment(new))
    assert dump(new, is_restored=True) == dump(f"sqlite:///{filled}")


@pytest.mark.parametrize("name", ["loop", "x" * 250, "株" * 80])
def test_a_backup_may_have_any_name_that_a_file_has(
    filled: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    if name == "loop":
        path.symlink_to(path)
    automx("backup", path, env=environment(f"sqlite:///{filled}"))
    assert [*path.parent.iterdir()] == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_for_temporary_files_that_is_missing_is_told(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    result = attempt("backup", tmp_path / "it", env=environment(f"sqlite:///{filled}"))
    reason = "no folder for temporary files can be used (No such file or directory)"
    told = f"automx: {reason}: name one by TMPDIR\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", told)


def test_secrets_are_not_written_to_a_terminal(filled: Path) -> None:
    main, terminal = pty.openpty()
    try:
        result = subprocess.run(
            [AUTOMX, "backup", "-"],
            env={**os.environ, **environment(f"sqlite:///{filled}")},
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        os.set_blocking(main, False)
        with pytest.raises(BlockingIOError):
            os.read(main, 1)
    finally:
        os.close(main)
        os.close(terminal)
    assert result.returncode == 1
    assert result.stderr == (
        "automx: a backup holds secrets, and is not written to a terminal: name a FILE\n"
    )


NO_PLACE = "no folder for temporary files can be used (No space left on device): name one by TMPDIR"


def with_digest(*documents: object) -> bytes:
    """Return a file whose digest is right, whatever it says."""
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in documents]
    text = b"".join(line + b"\n" for line in lines)
    digest = hashlib.sha256(text).hexdigest()
    return text + json.dumps({"sha256": digest}, separators=(",", ":")).encode() + b"\n"


HEADER = {"automx_backup": 1, "version": "1.0.0", "revision": "0009", "made_at": "2026-11-30"}
PROVIDER = {"table": "provider", "columns": ["id", "name", "short_name"]}
NONE = "is no backup of automx"
BAD = {
    "empty": (b"", NONE),
    "a text": (b"hello\n", NONE),
    "a seed document": (b'{\n  "version": 2\n}\n', NONE),
    "a list": (with_digest([1]), NONE),
    "odd bytes": (b"\xff\xfe\x00\x01" * 50, NONE),
    "a database": (b"SQLite format 3\0" + bytes(5_000), NONE),
    "a deep header": (b"[" * 200_000 + b"\n", NONE),
    "a header without revision": (with_digest({"automx_backup": 1}), NONE),
    "a header of other types": (with_digest(HEADER | {"revision": 9}), NONE),
    "a format that is true": (with_digest(HEADER | {"automx_backup": True}), NONE),
    "a long line": (b" " * (MAX_LINE + 1), f"has a line of more than {MAX_LINE} bytes"),
    "a newer format": (with_digest(HEADER | {"automx_backup": 2}),
                       "is of a newer automx: install that version"),
    "a newer revision": (
        with_digest(HEADER | {"version": "3.0.0", "revision": "0999"}),
        f"is of automx 3.0.0, whose schema (0999) is newer than that of this automx ({migrations.head()})"),  # noqa: E501
    "no gzip": (b"\x1f\x8b" + b"x" * 100, "was cut off or changed"),
    "a deep row": (with_digest(HEADER, PROVIDER, b"[" * 200_000), "line 3 is not JSON"),
    "NaN": (with_digest(HEADER, PROVIDER, b'[NaN,"a","b"]'), "line 3 is not JSON"),
    "a long number": (with_digest(HEADER, PROVIDER, b"[" + b"9" * 5_000 + b',"a","b"]'),
                      "line 3 is not JSON"),
    "no UTF-8": (with_digest(HEADER, PROVIDER, b'[1,"\xff","b"]'), "line 3 is not JSON"),
    "an empty line": (with_digest(HEADER, PROVIDER, b""), "line 3 is not JSON"),
    "a row before a table": (with_digest(HEADER, [1, 2]), "line 2: expected a row of 0 values"),
    "a number for a row": (with_digest(HEADER, PROVIDER, 7), "line 3: expected a row of 3 values"),
    "a short row": (with_digest(HEADER, PROVIDER, [1, "a"]), "line 3: expected a row of 3 values"),
    "another table": (with_digest(HEADER, {"table": "users\x1b[2J", "columns": []}),
                      'line 2: there is no table "users\\u001b[2J"'),
    "a table of the moment": (with_digest(HEADER, {"table": "lease", "columns": []}),
                              'line 2: there is no table "lease"'),
    "a list for a table": (with_digest(HEADER, {"table": [1]}),
                           "line 2: there is no table a list"),
    "a table twice": (with_digest(HEADER, PROVIDER, PROVIDER), "line 3: provider came before"),
    "no columns": (with_digest(HEADER, {"table": "provider"}),
                   "line 2: expected a list of columns, found null"),
    "a column of SQL": (
        with_digest(HEADER, {"table": "provider", "columns": ["id) VALUES (1); DROP TABLE x --"]}),
        'line 2: provider has no column "id) VALUES (1); DROP TABLE x --", or has it twice'),
    "a column twice": (with_digest(HEADER, {"table": "provider", "columns": ["id", "id"]}),
                       'line 2: provider has no column "id", or has it twice'),
    "a column too few": (with_digest(HEADER, {"table": "provider", "columns": ["id", "name"]}),
                         "line 2: the column short_name of provider is missing"),
    "a text for a number": (with_digest(HEADER, PROVIDER, ["1", "a", "b"]),
                            'below 9223372036854775808, found "1"'),
    "true for a number": (with_digest(HEADER, PROVIDER, [True, "a", "b"]), "found true"),
    "a high number": (with_digest(HEADER, PROVIDER, [2**63, "a", "b"]),
                      "found 9223372036854775808"),
    "a high number of changes": (
        with_digest(HEADER, {"table": "change_count", "columns": ["id", "number"]},
                    [1, 2**63 - 1]),
        "change_count.number: expected at most 9007199254740992, found 9223372036854775807"),
    **{
        f"{next(iter(value))} for the number of changes": (
            with_digest(HEADER, {"table": "change_count", "columns": ["id", "number"]},
                        [1, value]),
            "line 3: change_count.number: expected ")
        for value in ({"text": "many"}, {"real": "nan"}, {"blob": "AAAA"})
    },
    "null for a text": (with_digest(HEADER, PROVIDER, [1, None, "b"]),
                        "line 3: provider.name: expected a text, found null"),
    "half of a pair": (with_digest(HEADER, PROVIDER, b'[1,"\\ud800","b"]'),
                       "line 3: provider.name: expected a text, found"),
    "an object": (with_digest(HEADER, PROVIDER, [1, {"python": "os"}, "b"]),
                  "line 3: provider.name: expected a text, found 'python', which only SQLite"),
    "a large object": (with_digest(HEADER, PROVIDER, [1, {"integer": 2**63}, "b"]),
                       "found 'integer', which only SQLite may hold there"),
    "a bad moment": (
        with_digest(HEADER, {"table": "disabled_domain", "columns": ["domain_id", "since"]},
                    [1, "2026-11-30T10:00:00+02:00"]),
        'disabled_domain.since: expected a moment in UTC, found "2026-11-30T10:00:00+02:00"'),
    "bad Base64": (
        with_digest(HEADER, {"table": "provider_detail", "columns": ["provider_id", "logo"]},
                    [1, "a?"]),
        'provider_detail.logo: expected Base64, found "a?"'),
    "an id twice": (with_digest(HEADER, PROVIDER, [1, "a", "b"], [1, "c", "d"]),
                    "database refuses rows of the table provider, nothing was restored: UNIQUE"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_in_one_line(what: str, tmp_path: Path, new: str) -> None:
    data, reason = BAD[what]
    path = tmp_path / "bad.backup"
    path.write_bytes(data)

    result = attempt("restore", path, env=environment(new))

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"automx: {path}")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr[:-1].isprintable()
    if "database refuses" in reason:
        assert is_without_rows(new)
    else:  # nothing was made
        assert not Path(new.removeprefix("sqlite:///")).exists()


def test_a_secret_of_a_wrong_type_is_not_shown(tmp_path: Path, new: str) -> None:
    path = tmp_path / "bad.backup"
    columns = [column.name for column in metadata.tables["ldapserver"].columns]
    row = [1, "a", 1, True, "b", "c", "d", None, 4711, None]
    path.write_bytes(with_digest(HEADER, {"table": "ldapserver", "columns": columns}, row))
    result = attempt("restore", path, env=environment(new))
    assert "4711" not in result.stderr
    assert "ldapserver.bind_password: expected a text, found another value" in result.stderr


def test_a_file_that_is_cut_off_anywhere_or_changed_is_refused(backup: Path) -> None:
    data = backup.read_bytes()
    lines = data.splitlines(keepends=True)
    header = len(lines[0])
    cuts = [header, header + 1, len(data) // 2, len(data) - 1, len(data) - len(lines[-1])]
    cuts += [len(b"".join(lines[:number])) for number in range(1, len(lines), 7)]
    damaged = [data[:cut] for cut in cuts]
    damaged += [data + b"\n", data + lines[-1], data + b"[1]\n", b"".join(lines[:5] + lines[6:])]
    damaged += [
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(header, len(data), 997)
    ]
    for each in damaged:
        with pytest.raises(BackupError, match=r"was cut off or changed|line [0-9]+ is not JSON"):
            [*Reader(io.BytesIO(each), "it").lines()]
    compressed = gzip.compress(data)
    for each in (*(data[:cut] for cut in cuts), *(compressed[:cut] for cut in (-1, -9, -2_000))):
        with pytest.raises(BackupError, match="was cut off or changed"):
            [*Reader(io.BytesIO(each), "it").lines()]
    assert [*Reader(io.BytesIO(data), "it").lines()] == [
        *Reader(io.BytesIO(compressed), "it").lines()
    ]


@pytest.mark.parametrize(
    ("command", "data", "told"),
    [
        ("backup $1/it", b"", "/it cannot be written: No space left on device"),
        ("backup - >/dev/full", b"", "the output cannot be written: No space left on device"),
        ("backup it", b"", NO_PLACE),
        (
            "restore -",
            with_digest(HEADER, PROVIDER, *([n, "a", "b"] for n in range(5_000))),
            NO_PLACE,
        ),
    ],
)
def test_a_full_disk_is_told(
    filled: Path, tmp_path: Path, command: str, data: bytes, told: str
) -> None:
    full, work = tmp_path / "full", tmp_path / "work"
    full.mkdir()
    work.mkdir()
    temporary = "$1" if told == NO_PLACE else work
    script = f"mount -t tmpfs -o size=4k tmpfs $1; TMPDIR={temporary} exec {AUTOMX} {command}"
    result = subprocess.run(
        [*own_mounts(), "sh", "-c", script, "sh", str(full)],
        env={**os.environ, **environment(f"sqlite:///{filled}")},
        cwd=work,
        input=data,
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode().startswith("automx: ")
    assert result.stderr.decode().endswith(f"{told}\n")
    assert result.stderr.count(b"\n") == 1
    assert [*work.iterdir()] == []


BUFFER = 65_536


class Endless(io.RawIOBase):
    """A file that begins as a backup does, and goes on with the same line for ever."""

    def __init__(self, line: bytes) -> None:
        self.head = json.dumps(HEADER).encode() + b"\n"
        self.size = len(line) + 1
        self.lines = (line + b"\n") * (BUFFER // self.size + 2)  # enough for any rest of a line
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        assert self.at < 2**26, "it is read on and on"
        size = min(len(buffer), BUFFER)
        rest = max(0, self.at - len(self.head)) % self.size
        piece = self.head[self.at :][:size] or self.lines[rest : rest + size]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


@pytest.mark.parametrize("line", [b"", b"[]", b"[" * 500, bytes(MAX_LINE)])
def test_what_is_no_row_ends_it_at_once(new: str, line: bytes) -> None:
    """A small file may be an endless one in gzip."""
    backup = Reader(io.BufferedReader(Endless(line)), "it")
    with pytest.raises(BackupError, match=r"^it: line 2|^it has a line of more than"):
        restoring.restore(new, backup, actor="user:a", now=this_second())


def test_a_pipe_that_is_no_backup_is_not_copied(new: str) -> None:
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as endless:
        result = subprocess.run(
            [AUTOMX, "restore", "-"],
            env={**os.environ, **environment(new)},
            stdin=endless.stdout,
            capture_output=True,
            check=False,
        )
        endless.kill()
    assert result.returncode == 1
    assert result.stderr == b"automx: standard input is no backup of automx\n"


class Swapped(io.BytesIO):
    """A file that is another one when it is read for the third time: then rows are written."""

    def __init__(self, data: bytes, other: bytes) -> None:
        super().__init__(data)
        self.other = other
        self.times = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.times += 1
        if self.times == 5:  # twice for each time
            self.__init__(self.other, self.other)  # type: ignore[misc]
        return super().seek(offset, whence)


def test_a_file_that_changes_while_it_is_restored_is_not_restored(new: str) -> None:
    rows = [PROVIDER, *([number, "a", "b"] for number in range(600))]
    good, other = with_digest(HEADER, *rows), with_digest(HEADER, *rows[:-1])[:-2]
    with pytest.raises(BackupError, match="was cut off or changed"):
        restoring.restore(
            new, Reader(Swapped(good, other), "it"), actor="user:a", now=this_second()
        )
    assert is_without_rows(new)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, new: str) -> None:
    for file, reason in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a direct"),
    ):
        result = attempt("restore", file, env=environment(new))
        assert result.returncode == 1
        assert result.stderr.startswith(f"automx: {file} cannot be read: {reason}")
