"""automx as a hoster runs it: one provider, several mail domains, a web server before it."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.processes import Server, automx, serving

NAME = "Müller & Söhne"


def settings(folder: Path) -> dict[str, str]:
    """Return the environment of a hoster's automx, whose database is in ``folder``."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite",
        "AUTOMX_PROXY_COUNT": "1",
        "AUTOMX_LOGLEVEL": "DEBUG",
    }


@contextlib.contextmanager
def hoster(
    folder: Path,
    domains: Sequence[str],
    servers: Sequence[dict[str, object]],
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run automx with a database in ``folder`` that knows the domains and, as a seed, servers.

    ``env`` holds settings beyond those of settings().
    """
    env = {**settings(folder), **(env or {})}
    seed = {
        "version": 2,
        "provider": NAME,
        "domains": [{"name": domain} for domain in domains],
        "servers": servers,
    }
    automx("db", "upgrade", env=env)
    automx("seed", "-", env=env, stdin=json.dumps(seed))
    with serving(env, folder / "automx.log") as server:
        yield server
