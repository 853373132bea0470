"""All targets, and their corpus: the files of a folder that has the name of the target."""

from pathlib import Path

from tests.fuzz import CORPUS, addresses, files, neighbours, records, requests
from tests.fuzz.promises import TARGETS, run

__all__ = ["TARGETS", "corpus", "run"]

_MODULES = (addresses, files, neighbours, records, requests)  # each adds its targets


def corpus(name: str) -> list[Path]:
    """Return the files of a target: real inputs, and those that once broke a parser."""
    return sorted((CORPUS / name).iterdir())
