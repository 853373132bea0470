"""Documents in files: JSON or YAML, with secrets in files of their own."""

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from automx import seeddocument, yamldocument
from automx.cli.caller import give_up, open_file
from automx.errors import SeedError
from automx.kinds import shown

MAX_SIZE = 256 * 1024 * 1024  # bytes; a million domains in JSON

_SECRET = "bind_password"  # noqa: S105 - the name of a member
_SECRET_FILE = f"{_SECRET}_file"
_SECRET_SIZE = 65_536  # bytes of such a file


class Given(NamedTuple):
    """A document, and the SHA-256 of its file as sha256sum prints it."""

    document: object
    digest: str


def read_document(file: str) -> Given:
    """Return the document in a file, or on standard input for "-".

    It is YAML if the name says so (.yaml, .yml) or, where the name does not tell, if it does not
    begin as JSON does. Raises SeedError if it cannot be read.
    """
    name, data = read_file(file)
    suffix = "" if file == "-" else Path(file).suffix.lower()
    is_json = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"{", b"["}
    is_yaml = suffix in {".yaml", ".yml"} or (suffix != ".json" and not is_json)
    parse = yamldocument.parse if is_yaml else seeddocument.parse
    document = parse(data, name)
    if file == "-":
        give_up()  # nobody has named a folder of the caller
    _read_secrets(document, Path() if file == "-" else Path(file).parent)
    give_up()
    return Given(document, hashlib.sha256(data).hexdigest())


def read_file(file: str, max_size: int = MAX_SIZE) -> tuple[str, bytes]:
    """Return the name of a file for people, and what it holds.

    "-" is standard input. Raises SeedError if it cannot be read or is larger than ``max_size``
    bytes.
    """
    name = "standard input" if file == "-" else file
    try:
        if file == "-":
            data = sys.stdin.buffer.read(max_size + 1)
        else:
            with open_file(file) as opened:
                data = opened.read(max_size + 1)
    except OSError as error:
        raise SeedError(f"{name} cannot be read: {error.strerror}") from error
    if len(data) > max_size:
        raise SeedError(f"{name} is larger than {max_size} bytes")
    return name, data


def _read_secrets(document: object, folder: Path) -> None:
    """Put passwords in place of the files, relative to a folder, that hold them."""
    directories: Any = document.get("ldapservers") if isinstance(document, dict) else None
    for index, value in enumerate(directories if isinstance(directories, list) else ()):
        if not isinstance(value, dict) or _SECRET_FILE not in value:
            continue
        path = f"ldapservers[{index}].{_SECRET_FILE}"
        if _SECRET in value:
            raise SeedError(f"{path}: expected beside no {_SECRET}, found beside one")
        file = value.pop(_SECRET_FILE)
        if not isinstance(file, str):
            raise SeedError(f"{path}: expected the name of a file, found {shown(file)}")
        try:
            text = _secret(folder, file)
        except (OSError, ValueError) as error:  # not UTF-8, or a null character in the name
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise SeedError(f"{path}: {folder / file} cannot be read: {reason}") from error
        value[_SECRET] = text.removesuffix("\n").removesuffix("\r")


def _secret(folder: Path, name: str) -> str:
    """Return the text of a file. Raises OSError and ValueError.

    One beside the document is the caller's, as the document is. A path could name any file of root.
    """
    path = folder / name
    with open_file(path) if Path(name).name == name else path.open("rb") as opened:
        data = opened.read(_SECRET_SIZE + 1)
    if len(data) > _SECRET_SIZE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data.decode()
