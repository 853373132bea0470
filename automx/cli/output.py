"""The output of commands: standard output, or a file that is replaced when all is written."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from automx.cli import caller


@contextmanager
def open_output(file: str | None) -> Iterator[BinaryIO]:
    """Open the file of this name; standard output for None or "-".

    A file is replaced when the block ends without an error. Only its owner may read it, because it
    may hold passwords. Raises ClickException if it cannot be written.
    """
    if file is None or file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with caller.place(Path(file)) as place, _written(file, place) as output:
            yield output
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error


@contextmanager
def _written(file: str, place: caller.Place) -> Iterator[BinaryIO]:
    rights, path, is_followed = place
    with rights():
        if not is_followed and _is_planted(path):
            raise click.ClickException(f"{file} is a link of another user, and is not followed")
        special = caller.open_special(place)  # such as /dev/null or a pipe
        if special is None:
            # A link stays a link. The temporary name, too, must fit into 255 bytes.
            path = path if is_followed else Path(os.path.realpath(path))
            descriptor, new = tempfile.mkstemp(prefix=f".{path.name[:60]}.", dir=path.parent)
    if special is not None:
        with special:
            yield special
        return
    try:
        with os.fdopen(descriptor, "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())  # else a loss of power may leave an empty file
        with rights():
            Path(new).replace(path)
    finally:
        with rights():
            Path(new).unlink(missing_ok=True)


def _is_planted(path: Path) -> bool:
    """Return whether a path is a link that another user has put into a folder for all.

    It is the rule of Linux (protected_symlinks), which cannot know that a file is replaced: in such
    a folder, links of the own user, of root and of the owner of the folder are followed.
    """
    folder = path.parent.stat()
    if not (folder.st_mode & stat.S_IWOTH and path.is_symlink()):
        return False
    return path.lstat().st_uid not in {os.geteuid(), 0, folder.st_uid}
