"""Private instances of a real Redis."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Running, listens, program, running


@contextlib.contextmanager
def running_redis(folder: Path, port: int, *options: str) -> Iterator[Running]:
    """Run a private Redis that keeps nothing on disk until the block ends."""
    command = [program("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(folder), *options]
    with running(command, folder / "redis.log", ready=lambda: listens(port)) as redis:
        yield redis


def redis_cli(port: int, *words: str) -> list[str]:
    """Run a command in a Redis and return the words of the answer."""
    command = [program("redis-cli", "redis-tools"), "--no-auth-warning", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
