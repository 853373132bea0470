"""automx as a hoster runs it: one provider, several mail domains, a web server before it."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.processes import Server, automx, serving

NAME = "Müller & Söhne"


@contextlib.contextmanager
def hoster(
    folder: Path, domains: Sequence[str], servers: Sequence[dict[str, object]]
) -> Iterator[Server]:
    """Run automx with a database in ``folder`` that knows the domains and, as a seed, servers."""
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite",
        "AUTOMX_PROXY_COUNT": "1",
        "AUTOMX_LOGLEVEL": "DEBUG",
    }
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
