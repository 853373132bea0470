"""Domains in a file: CSV, JSON, or a name on each line."""

import os
import stat
from collections.abc import Iterator, Mapping

from automx.config import SourceSettings
from automx.sources import texts
from automx.sources.found import SourceError


def records(source: SourceSettings) -> Iterator[Mapping[str, object]]:
    """Yield the records of the file. Raises SourceError."""
    path = source.file
    try:
        with open(path, "rb", opener=_opened) as content:
            data = content.read(texts.MOST + 1)
    except OSError as error:
        raise SourceError(cause=f"{path} cannot be read: {error.strerror}") from error
    if len(data) > texts.MOST:
        raise SourceError(cause=f"{path} is larger than {texts.MOST} bytes")
    return texts.records(data, path)


def _opened(path: str, flags: int) -> int:
    """Return a file that is open; a pipe, perhaps put there a moment ago, is not waited for."""
    file = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise SourceError(cause=f"{path} is no file")
    return file
