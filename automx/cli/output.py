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
    path = Path(file)
    try:
        if _is_planted(path):
            raise click.ClickException(f"{file} is a link of another user, and is not followed")
        if path.exists() and not path.is_file():  # such as /dev/null or a pipe
            with path.open("wb") as output:
                yield output
            return
        path = Path(os.path.realpath(path))  # a link stays a link
        # A name of 255 bytes is the longest one.
        descriptor, new = tempfile.mkstemp(prefix=f".{path.name[:60]}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as output:
                yield output
                output.flush()
                os.fsync(output.fileno())  # else a loss of power may leave an empty file
            Path(new).replace(path)
        finally:
            Path(new).unlink(missing_ok=True)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error


def _is_planted(path: Path) -> bool:
    """Return whether a path is a link that another user has put into a folder for all.

    It is the rule of Linux (protected_symlinks), which cannot know that a file is replaced: in such
    a folder, links of the own user, of root and of the owner of the folder are followed.
    """
    folder = path.parent.stat()
    if not (folder.st_mode & stat.S_IWOTH and path.is_symlink()):
        return False
    return path.lstat().st_uid not in {os.geteuid(), 0, folder.st_uid}
