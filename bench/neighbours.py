"""The neighbours of automx that can be frozen, each with clients that need it.

They are real programs, stopped by SIGSTOP with all of their processes. A SQLite file and the
program of the backend ``command`` wait for a lock that is held here.
"""

import contextlib
import fcntl
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

from redis import Redis

from automx.directory.hoststate import RETRY_SECONDS
from automx.front import ACCOUNT_SECONDS, BODY_SECONDS
from automx.views.sharedwindows import SECONDS as REDIS_SECONDS
from bench.crowd import Ask, Line, get, post
from bench.load import AUTODISCOVER
from bench.rows import created, databases, seed_document
from bench.servers import BIN
from tests.commandline import automx
from tests.databases import Instance, running_mariadb, running_postgresql
from tests.directory import PEOPLE, Directories, insert_ldapserver
from tests.mailcow import FakeMailcow
from tests.processes import REPOSITORY, free_port, frozen, running
from tests.redisserver import running_redis
from tests.tls import Authority

CLIENTS, DRIPPING = 100, 200
SECONDS = 12.0  # of the outage: longer than domain_cache_seconds
MARGIN = 2.0  # by which it is longer than what clients may have to wait

DB_TIMEOUT, LDAP_TIMEOUT = 3.0, 3.0  # the defaults
ACCOUNT_TIMEOUT = 5.0  # less than the default, to be measured in less time

DOMAIN = "example.com"
OTHERS = [f"known{number}.example" for number in range(20)]
TOKENS = [f"bench-token-{number}" for number in range(4)]
REFUSED = frozenset({503, 504})

# Makes no mailboxes.
PROGRAM = """\
#!/bin/sh
read -r request
flock --shared '{lock}' true
echo '{{"status": "created"}}'
"""


@dataclass(frozen=True)
class Neighbour:
    """What is frozen for some seconds, and what clients ask that need it.

    ``request`` makes a numbered request, ``right`` is the status of its answer when all is well.
    ``ask`` is what clients ask meanwhile if it is something else. ``while_frozen`` are statuses of
    answers meanwhile, ``deadline`` is within how many seconds each comes. ``is_back`` tells whether
    the neighbour was asked for a numbered request, if answers are right without it, too.
    """

    title: str
    env: Mapping[str, str]
    request: Callable[[int], bytes]
    right: int
    deadline: float
    freeze: Callable[[], AbstractContextManager[None]]
    seconds: float = SECONDS
    while_frozen: frozenset[int] = REFUSED
    ask: Ask | None = None
    clients: int = CLIENTS
    is_back: Callable[[int], bool] | None = None


Kind = Callable[[Path], AbstractContextManager[Neighbour]]


def document(domain: str) -> str:
    """Return the path of the Autoconfig document of a domain."""
    return f"/mail/config-v1.1.xml?emailaddress=alice@{domain}"


def _seeded(db_uri: str) -> dict[str, str]:
    """Put the domains into a database, and return the settings of a server."""
    env = {"AUTOMX_DB_URI": db_uri, "AUTOMX_ACCOUNT_RATE_LIMIT": ""}
    command_env = {"AUTOMX_CONF": "/dev/null", **env}
    automx("seed", "-", env=command_env, stdin=seed_document(DOMAIN, *OTHERS))
    return env


def _unknown_domain(number: int) -> bytes:
    return get(document(f"d{number}.unknown.example"))


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[Neighbour]:
    with databases("sqlite", folder, 1) as [db_uri]:

        @contextlib.contextmanager
        def locked() -> Iterator[None]:
            file = db_uri.removeprefix("sqlite:///")
            # It is unlocked in another thread.
            other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            with contextlib.closing(other):
                other.execute("BEGIN EXCLUSIVE")
                yield

        env = _seeded(db_uri)
        yield Neighbour("SQLite is locked", env, _unknown_domain, 404, DB_TIMEOUT, locked)


@contextlib.contextmanager
def _database(
    name: str, run: Callable[[], AbstractContextManager[Instance]], _: Path
) -> Iterator[Neighbour]:
    with run() as instance:
        env = _seeded(created(instance.new_database()))
        freeze = partial(frozen, instance.server.process)
        yield Neighbour(f"{name} is frozen", env, _unknown_domain, 404, DB_TIMEOUT, freeze)


@contextlib.contextmanager
def _ldap(folder: Path) -> Iterator[Neighbour]:
    def person(number: int) -> bytes:
        path = document(DOMAIN).replace("alice", f"person{number % PEOPLE:04}")
        return get(path)

    with (
        tempfile.TemporaryDirectory(prefix="automx-") as name,
        Directories(Path(name), Authority(Path(name))).running() as directory,
        databases("sqlite", folder, 1) as [db_uri],
    ):
        env = _seeded(db_uri) | {"AUTOMX_LDAP_CACHE_SECONDS": "0"}
        use = f"UPDATE domain SET ldapserver_id = 3 WHERE name = '{DOMAIN}';"
        with contextlib.closing(sqlite3.connect(db_uri.removeprefix("sqlite:///"))) as connection:
            connection.executescript(insert_ldapserver(directory) + use)
        # It returns when the second try has just failed, which is the worst moment.
        seconds = LDAP_TIMEOUT + RETRY_SECONDS + LDAP_TIMEOUT + 0.3
        yield Neighbour(
            "slapd is frozen", env, person, 200, LDAP_TIMEOUT, directory.frozen, seconds
        )


@contextlib.contextmanager
def _with_tokens() -> Iterator[dict[str, str]]:
    """Yield the settings of a server that makes accounts for the tokens, without limit.

    In PostgreSQL: accounts of many clients at once would wait for the one writer of SQLite.
    """
    with databases("postgresql", Path(), 1) as [db_uri]:
        env = _seeded(db_uri) | {"AUTOMX_ACCOUNT_TIMEOUT": f"{ACCOUNT_TIMEOUT:g}"}
        for token in TOKENS:
            options = ("--domain", DOMAIN, "--maxuse", "0", "--prefix", "long-prefix.")
            command = ("token", "add", token, *options, "--token-stdin")
            automx(*command, env={"AUTOMX_CONF": "/dev/null", **env}, stdin=f"{token}\n")
        yield env


def _account(number: int) -> bytes:
    return post(f"/?t={TOKENS[number % len(TOKENS)]}")


_account_neighbour = partial(
    Neighbour,
    request=_account,
    right=200,
    deadline=ACCOUNT_SECONDS + ACCOUNT_TIMEOUT,
    seconds=ACCOUNT_SECONDS + ACCOUNT_TIMEOUT + MARGIN,
)


@contextlib.contextmanager
def _mailcow(folder: Path) -> Iterator[Neighbour]:
    log = folder / "mailcow.log"
    log.unlink(missing_ok=True)
    command: list[str | Path] = [BIN / "python", "-m", "bench.mailcow", "0", DOMAIN]
    with (
        _with_tokens() as settings,
        running(command, log, ready=lambda: b"\n" in log.read_bytes(), cwd=REPOSITORY) as mailcow,
    ):
        env = settings | {
            "AUTOMX_ACCOUNT_BACKEND": "mailcow",
            "AUTOMX_MAILCOW_ENDPOINT": mailcow.output.strip(),
            "AUTOMX_MAILCOW_TOKEN": FakeMailcow().key,
        }
        yield _account_neighbour("mailcow is frozen", env, freeze=partial(frozen, mailcow.process))


@contextlib.contextmanager
def _command(folder: Path) -> Iterator[Neighbour]:
    lock, script = folder / "account.lock", folder / "account-command"
    lock.touch()
    script.write_text(PROGRAM.format(lock=lock))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)

    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    with _with_tokens() as settings:
        env = settings | {
            "AUTOMX_ACCOUNT_BACKEND": "command",
            "AUTOMX_ACCOUNT_COMMAND": str(script),
        }
        yield _account_neighbour("The account command waits", env, freeze=locked)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[Neighbour]:
    """Clients open pages and ask for accounts in turn: for tokens that do not exist, each once."""

    def request(number: int) -> bytes:
        path = f"/?t=unknown-{number}"
        return get(path) if number % 2 else post(path)

    def is_counted(number: int) -> bool:
        token = blake2b(f"unknown-{number}".encode(), digest_size=16, person=b"automx limit")
        key = f"LIMITS:LIMITER/automx/{token.hexdigest()}/token/1000000/1/minute"
        return number % 2 == 0 and bool(client.exists(key))

    port = free_port()
    with (
        databases("sqlite", folder, 1) as [db_uri],
        running_redis(folder, port) as redis,
        contextlib.closing(Redis(port=port)) as client,
    ):
        env = _seeded(db_uri) | {
            "AUTOMX_ACCOUNT_RATE_LIMIT": "1000000 per minute",
            "AUTOMX_RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{port}",
        }
        freeze = partial(frozen, redis.process)
        yield Neighbour(
            "Redis is frozen", env, request, 403, REDIS_SECONDS, freeze, is_back=is_counted
        )


@contextlib.contextmanager
def _drip(folder: Path) -> Iterator[Neighbour]:
    request = post(AUTODISCOVER.path, AUTODISCOVER.body)

    async def drip(line: Line) -> int:
        return await line.drip(request)

    with databases("sqlite", folder, 1) as [db_uri]:
        yield Neighbour(
            "Bodies that drip",
            _seeded(db_uri),
            lambda _: request,
            200,
            BODY_SECONDS,
            contextlib.nullcontext,
            while_frozen=frozenset({408}),
            ask=drip,
            clients=DRIPPING,
        )


KINDS: dict[str, Kind] = {
    "sqlite": _sqlite,
    "postgresql": partial(_database, "PostgreSQL", running_postgresql),
    "mariadb": partial(_database, "MariaDB", running_mariadb),
    "ldap": _ldap,
    "mailcow": _mailcow,
    "command": _command,
    "redis": _redis,
    "drip": _drip,
}
