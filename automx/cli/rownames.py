"""Names of domains that a command reads: arguments, lines or CSV on standard input."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import click

from automx import csvfile, members
from automx.cli.documents import read_file

_LONGEST = 65_536  # bytes of a line
_IN_MEMORY = 2**20  # octets; more go into a temporary file

COLUMNS = ("name", "provider", "servers", "services", "directory", "disabled")


class Records:
    """The domains to add, checked: a record of columns each, as often as they are iterated."""

    def __init__(self) -> None:
        self.number = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - kept

    def close(self) -> None:
        """Forget the records."""
        self._file.close()

    def append(self, record: Mapping[str, str], place: str) -> None:
        """Add a record; raises SeedError with its place if its name is not that of a domain."""
        members.one(record.get("name", ""), members.DOMAIN["name"], place)
        self._write(place, record)

    def append_csv(self, data: bytes, name: str, delimiter: str = "") -> None:
        """Add the records of a table in CSV, the file ``name``. Raises SeedError."""
        for number, record in csvfile.read(data, name, COLUMNS, "name", delimiter):
            place = f"{name}: line {number}"
            members.one(record["name"], members.DOMAIN["name"], f"{place}, column name")
            self._write(place, record)

    def _write(self, place: str, record: Mapping[str, str]) -> None:
        self._file.write(json.dumps([place, record]).encode() + b"\n")
        self.number += 1

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield place and record."""
        self._file.seek(0)
        for line in self._file:
            place, record = json.loads(line)
            yield place, record


def read_records(names: Sequence[str], *, is_csv: bool) -> Records:
    """Return the domains that arguments name; "-" stands for those on standard input."""
    found = Records()
    try:
        for name in names or ("-",):
            if name != "-":
                found.append({"name": name}, name or repr(name))
            elif is_csv:
                found.append_csv(read_file("-")[1], "standard input")
            else:
                for number, line in _lines(_standard_input()):
                    found.append({"name": line}, f"line {number}")
    except BaseException:
        found.close()
        raise
    return found


def read_names(names: Sequence[str]) -> list[str]:
    """Return names; "-" stands for those on standard input, one on each line."""
    found: list[str] = []
    for name in names:
        found += (line for _, line in _lines(_standard_input())) if name == "-" else [name]
    return found


def _standard_input() -> Iterator[str]:
    """Yield the lines of standard input. Raises ClickException if they can be no names."""
    number = 0
    try:
        while line := sys.stdin.buffer.readline(_LONGEST + 1):
            if len(line) > _LONGEST:
                where = f"line {number + 1} of standard input"
                raise click.ClickException(f"{where} has more than {_LONGEST} bytes")
            yield line.decode("utf-8" if number else "utf-8-sig")
            number += 1
    except UnicodeDecodeError as error:
        raise click.ClickException(f"line {number + 1} of standard input is not UTF-8") from error


def _lines(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if (name := line.strip()) and not name.startswith("#"):
            yield number, name


def words(cell: Any) -> list[str]:
    """Return the names in a cell that may hold several, with blanks between."""
    return str(cell or "").split()
