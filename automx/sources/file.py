"""Domains in a file: CSV, JSON, or a name on each line."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from automx.config import SourceSettings
from automx.sources import texts
from automx.sources.found import SourceError


def records(source: SourceSettings) -> Iterator[Mapping[str, object]]:
    """Yield the records of the file. Raises SourceError."""
    path = Path(source.file)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise SourceError(cause=f"{path} is no file")
        with path.open("rb") as content:
            data = content.read(texts.MOST + 1)
    except OSError as error:
        raise SourceError(cause=f"{path} cannot be read: {error.strerror}") from error
    if len(data) > texts.MOST:
        raise SourceError(cause=f"{path} is larger than {texts.MOST} bytes")
    return texts.records(data, str(path))
