"""Tables in CSV (RFC 4180), as spreadsheets and other programs write them.

A file has a head that names the columns. Spreadsheets write UTF-8 with or without a byte order
mark, UTF-16 with tabs between, or the code page 1252 of Windows; some write ``sep=;`` before the
head.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator
from typing import Any

from automx.errors import SeedError
from automx.kinds import shown

DELIMITERS = ",;\t"

_MAX_SIZE = 256 * 1024 * 1024  # bytes
_HEAD = 64 * 1024  # characters by which the delimiter is found


def read(
    data: bytes, name: str, columns: Collection[str], needed: str, delimiter: str = ""
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of its first line, and the cells by column, for each row of a table.

    ``columns`` are those that the table may have, ``needed`` is one that it must have. Without a
    ``delimiter``, it is found by the head. Rows without any text are left out; blanks around a
    text do not matter. Raises SeedError with file, line and what is wrong.
    """
    if len(data) > _MAX_SIZE:
        raise SeedError(f"{name} is larger than {_MAX_SIZE} bytes")
    text = io.TextIOWrapper(io.BytesIO(data), _encoding(data, name), newline="")
    begin = text.read(_HEAD)
    text.seek(0)
    lines, before = iter(text), 0
    if found := re.match(r"sep=(.)\r?\n", begin):
        delimiter, before, begin = delimiter or found[1], 1, begin[found.end() :]
        next(lines)
    reader = csv.reader(lines, delimiter=delimiter or _delimiter(begin), strict=True)
    try:
        yield from _rows(reader, before, name, columns, needed)
    except csv.Error as error:
        line = before + max(1, reader.line_num)
        raise SeedError(f"{name}: line {line} is no CSV: {error}") from error


def _rows(
    reader: Any, before: int, name: str, columns: Collection[str], needed: str
) -> Iterator[tuple[int, dict[str, str]]]:
    head = [cell.strip().lower() for cell in next(reader, [])]
    where = f"{name}: line {before + 1}"
    for column in head:
        if column not in columns:
            known = ", ".join(columns)
            raise SeedError(
                f"{where}: expected a head with columns of {known}, found {shown(column)}"
            )
    if needed not in head or len(set(head)) < len(head):
        raise SeedError(f"{where}: expected the column {needed}, and each column once")
    number = before + reader.line_num + 1
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            if len(cells) != len(head):
                found = f"{len(cells)} cells" if len(cells) > 1 else "1 cell"
                raise SeedError(f"{name}: line {number}: expected {len(head)} cells, found {found}")
            yield number, dict(zip(head, cells, strict=True))
        number = before + reader.line_num + 1


def _encoding(data: bytes, name: str) -> str:
    """Return the encoding of a text. Raises SeedError for bytes that no text holds."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            encoding = "cp1252"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        known = "UTF-16" if encoding == "utf-16" else "UTF-8 or Windows-1252"
        raise SeedError(f"{name}: line {line} is no text in {known}") from error
    if "\0" in text:
        raise SeedError(f"{name} is no text: it has a character NUL")
    return encoding


def _delimiter(begin: str) -> str:
    """Return the delimiter of a table that begins with some text."""
    head = begin.splitlines()[0] if begin else ""
    # csv.Sniffer takes seconds for some heads of 40 kB; names of columns hold no delimiter.
    return max(DELIMITERS, key=head.count)
