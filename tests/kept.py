"""What tests keep on this machine for the next run: in a cache folder, each made by one process.

The folder is /var/cache/automx-tests for root and ~/.cache/automx-tests for others.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache() -> Path:
    """Return the cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path("/var/cache") if os.geteuid() == 0 else home) / "automx-tests"


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Let no other process make the same thing meanwhile."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
