"""Names of domains that a command reads: arguments, lines or CSV on standard input."""

import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import click

from automx import members
from automx.errors import SeedError
from automx.kinds import shown

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
                found.append({"name": name}, name)
            elif is_csv:
                for number, record in _csv_records(_standard_input()):
                    found.append(record, f"line {number}")
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
    """Yield the lines of standard input. Raises ClickException if they are not UTF-8."""
    try:
        for number, line in enumerate(sys.stdin.buffer):
            yield line.decode("utf-8" if number else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"line {number + 1} of standard input is not UTF-8") from error


def _lines(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if (name := line.strip()) and not name.startswith("#"):
            yield number, name


def _csv_records(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the records with the number of their last line. Raises SeedError."""
    head = next(lines, "")
    separator = ";" if head.count(";") > head.count(",") else ","
    try:
        columns = [name.strip().lower() for name in next(csv.reader([head], delimiter=separator))]
        for column in columns:
            if column not in COLUMNS:
                known = ", ".join(COLUMNS)
                raise SeedError(f"line 1: expected columns of {known}, found {shown(column)}")
        if "name" not in columns or len(set(columns)) < len(columns):
            raise SeedError("line 1: expected the column name, and each column once")
        reader = csv.reader(lines, delimiter=separator, strict=True)
        for row in reader:
            number = reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                raise SeedError(f"line {number}: expected {len(columns)} columns, found {len(row)}")
            yield number, {c: cell.strip() for c, cell in zip(columns, row, strict=True)}
    except (csv.Error, StopIteration) as error:
        raise SeedError(f"standard input is no CSV: {error}") from error


def words(cell: Any) -> list[str]:
    """Return the names in a cell that may hold several, with blanks between."""
    return str(cell or "").split()
