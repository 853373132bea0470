"""Whatever administrators do: no row is dangling, and each domain with servers is served."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automx import lookup
from automx.database import Session, create_engine
from automx.errors import BadRecordError, UnknownDomainError
from automx.references import dangling_references, domains_without_servers
from tests.commandline import attempt

IDS = st.integers(1, 3).map(str)
NAMES = st.sampled_from(["a.example", "b.example", "*.example", "müller.example"])
KINDS = st.sampled_from(["provider", "server", "service", "directory"])
ROWS = {
    "provider": ["--name", "P"],
    "server": ["--type", "imap", "--name", "imap.example"],
    "service": ["--type", "caldav", "--url", "https://dav.example/"],
    "directory": ["--name", "ldap.example", "--search-base", "dc=example"],
}
LINKS = st.lists(st.tuples(st.sampled_from(["--server", "--service", "--directory"]), IDS)).map(
    lambda pairs: [word for pair in pairs for word in pair]
)
COMMANDS = st.one_of(
    KINDS.map(lambda kind: [kind, "add", *ROWS[kind]]),
    st.tuples(KINDS, IDS).map(lambda t: [t[0], "del", t[1]]),
    st.tuples(KINDS, IDS).map(lambda t: [t[0], "del", t[1], "--unlink", "--yes"]),
    st.tuples(NAMES, IDS, LINKS).map(lambda t: ["domain", "add", t[0], "--provider", t[1], *t[2]]),
    st.tuples(NAMES, NAMES).map(lambda t: ["domain", "add", t[0], "--like", t[1]]),
    st.tuples(NAMES, LINKS).map(lambda t: ["domain", "set", t[0], *t[1]]),
    st.tuples(NAMES, NAMES).map(lambda t: ["domain", "set", t[0], "--name", t[1]]),
    st.tuples(NAMES, IDS).map(lambda t: ["domain", "set", t[0], "--provider", t[1]]),
    st.tuples(st.sampled_from(["link", "unlink"]), NAMES, IDS).map(lambda t: ["domain", *t]),
    st.tuples(st.sampled_from(["enable", "disable", "del"]), NAMES).map(lambda t: ["domain", *t]),
)
BEGIN = [["provider", "add", "--name", "P"], ["server", "add", *ROWS["server"]]]


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(commands=st.lists(COMMANDS, min_size=5, max_size=14))
def test_any_sequence_of_commands_leaves_whole_rows_that_are_served(
    empty_database: Path, commands: list[list[str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "automx.sqlite"
        shutil.copy(empty_database, path)
        env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{path}"}
        for command in [*BEGIN, *commands]:
            assert attempt(*command, env=env).returncode in {0, 1, 2}
        off = attempt("domain", "list", "--disabled", "--names", env=env).stdout.split()
        engine = create_engine(env["AUTOMX_DB_URI"])
        with Session(engine) as session:
            assert list(dangling_references(session)) == []
            bare = {name for _, name in domains_without_servers(session)}
            for _, name in list(lookup.domain_names(session)):
                asked = name.replace("*", "below")
                if name in off:
                    assert not _is_served(session, asked)
                elif name not in bare:
                    assert _is_served(session, asked)
        engine.dispose()


def _is_served(session: Session, domain: str) -> bool:
    a_label = domain.encode("idna").decode()
    try:
        return bool(lookup.find(session, a_label).config.servers)
    except (UnknownDomainError, BadRecordError):
        return False
