"""The file of a backup: JSON lines (RFC 8259, in ASCII), perhaps in gzip (RFC 1952).

The first line is the header. A line with the name of a table and of its columns comes before the
rows of the table, each of which is a list. The last line has the SHA-256 of all lines before.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple

from automx.errors import BackupError
from automx.moments import iso

FORMAT = 1
MAX_LINE = 16 * 1024 * 1024  # bytes of a row; the largest ones that automx writes have 200,000

_KEY = "automx_backup"
_GZIP = b"\x1f\x8b"


class Header(NamedTuple):
    """What a backup is of: the version of automx, the revision of the schema, the moment."""

    version: str
    revision: str
    made_at: str


class Writer:
    """Writes the lines of a backup; ``rows`` counts those of tables."""

    def __init__(self, output: BinaryIO, *, version: str, revision: str, now: datetime) -> None:
        self._output = output
        self._digest = hashlib.sha256()
        self.rows = 0
        header = Header(version, revision, iso(now) or "")
        self._write({_KEY: FORMAT, **header._asdict()})

    def table(self, name: str, columns: list[str]) -> None:
        """Begin the rows of a table."""
        self._write({"table": name, "columns": columns})

    def row(self, values: list[Any]) -> None:
        """Write a row. Raises BackupError if no backup could hold it."""
        self._write(values)
        self.rows += 1

    def end(self) -> None:
        """Write the last line."""
        self._write({"sha256": self._digest.hexdigest()})

    def _write(self, document: object) -> None:
        line = _json(document)
        if len(line) > MAX_LINE:
            raise BackupError(f"a row has more than {MAX_LINE} bytes: no backup can hold it")
        self._digest.update(line)
        self._output.write(line)


class Line(NamedTuple):
    """A line of a backup: its number, its bytes, what it says."""

    number: int
    size: int
    value: Any


class Reader:
    """Reads a backup from a file that can be read again from its beginning.

    ``name`` is that of the file, for people. Raises BackupError if it is no backup, if it is of a
    newer format, and where a line cannot be read. Memory does not grow with the file.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.header = self._read_header()

    def lines(self) -> Iterator[Line]:
        """Yield what stands between the first and the last line.

        Raises BackupError for a line that is not JSON, and at the end if the file is not as it was
        written.
        """
        for number, line in enumerate(self._lines(), 1):
            if number > 1:
                yield Line(number, len(line), self._parse(number, line))

    def _parse(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise BackupError(f"{self.name}: line {number} is not JSON") from error

    def _read_header(self) -> Header:
        try:
            found = json.loads(next(self._raw_lines(), b""), parse_constant=_refuse)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or type(format_ := found.get(_KEY)) is not int:
            raise BackupError(f"{self.name} is no backup of automx")
        if format_ > FORMAT:
            raise BackupError(f"{self.name} is of a newer automx: install that version")
        values = [found.get(field) for field in Header._fields]
        if not all(isinstance(value, str) and len(value) < 65 for value in values):
            raise BackupError(f"{self.name} is no backup of automx")
        return Header(*map(str, values))

    def _lines(self) -> Iterator[bytes]:
        """Yield all lines but the last one, which has their digest."""
        digest = hashlib.sha256()
        before: bytes | None = None
        for line in self._raw_lines():
            if before is not None:
                digest.update(before)
                yield before
            before = line
        if before != _json({"sha256": digest.hexdigest()}):
            raise BackupError(
                f"{self.name} was cut off or changed: its digest is wrong, nothing was restored"
            )

    def _raw_lines(self) -> Iterator[bytes]:
        try:
            self._file.seek(0)
            is_gzip = self._file.read(2) == _GZIP
            self._file.seek(0)
            source: Any = gzip.GzipFile(fileobj=self._file) if is_gzip else self._file
            while line := source.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise BackupError(f"{self.name} has a line of more than {MAX_LINE} bytes")
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BackupError(
                f"{self.name} was cut off or changed: nothing was restored"
            ) from error
        except OSError as error:
            raise BackupError(f"{self.name} cannot be read: {error.strerror or error}") from error


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(constant)


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
