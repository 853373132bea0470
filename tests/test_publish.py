"""``automx publish``: files follow the rows, in a folder that only it changes."""

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from automx.address import parse_domain
from automx.database import open_session
from automx.formats import autoconfig, pacc
from automx.moments import this_second
from automx.publish import run as runs
from automx.publish.folder import KINDS, bucket_of
from tests.commandline import attempt, automx
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import engine_uri
from tests.processes import AUTOMX, running, wait_until

# Two domains alike, one with a directory, one whose login names are personal, an unusable one, one
# that is off, wildcards, names in other spellings, two rows for one domain; a stored text.
ROWS = """
INSERT INTO ldapserver (id, name, port, use_ssl, search_base, search_filter, attr_uid)
  VALUES (1, '127.0.0.1', 1, 0, 'dc=example', '(mail={0})', 'uid');
INSERT INTO server VALUES (11, 10, 'imap.example.com', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain'),
  (12, 10, 'smtp.%EMAILDOMAIN%', 465, 'smtp', 'SSL', '%EMAILADDRESS%', 'plain'),
  (13, 10, 'imap.example.com', 993, 'imap', 'SSL', '%EMAILLOCALPART%', 'plain'),
  (14, 10, 'pop.example.com', 110, 'pop', 'STARTTLS', '%EMAILADDRESS%', 'plain');
INSERT INTO domain VALUES (11, 'one.example', 1, NULL), (12, 'two.example', 1, NULL),
  (13, 'ldap.example', 1, 1), (14, 'personal.example', 1, NULL), (15, 'half.example', 1, NULL),
  (16, 'off.example', 1, NULL), (17, '*.wild.example', 1, NULL), (18, '*', 1, NULL),
  (19, 'none.example', 99, NULL), (20, 'Müller.example', 1, NULL), (21, ' blank.example', 1, NULL),
  (22, 'UPPER.example', 1, NULL), (23, 'Twice.example', 1, NULL), (24, 'twice.example', 1, NULL),
  (25, 'no domain', 1, NULL), (26, 'localhost', 1, NULL), (27, 'a_b.example', 1, NULL),
  (28, 'pop.example', 1, NULL), (29, 'xn--bcher-kva.example', 1, NULL), (30, '../x', 1, NULL);
INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain
  WHERE server.id IN (11, 12) AND domain.id > 10 AND domain.id NOT IN (14, 15, 24, 28);
INSERT INTO server_domain VALUES (13, 14), (12, 14), (12, 15), (13, 24), (14, 28), (12, 28);
INSERT INTO disabled_domain VALUES (16, '2026-11-30 10:00:00');
INSERT INTO managed_domain (name, document, step, ttl, changed_at, version)
  VALUES ('two.example', CAST('{"stored": 1}' AS BLOB), 'steady', 60, '2026-11-30 10:00:00', 1),
    ('localhost', CAST('' AS BLOB), 'steady', 60, '2026-11-30 10:00:00', 1),
    ('pop.example', '{}', 'steady', 60, '2026-11-30 10:00:00', 1);
"""  # noqa: E501 - rows are easier to compare when each stands on one line

BOTH = {"one.example", "two.example", "xn--mller-kva.example", "blank.example", "upper.example",
        "twice.example", "a_b.example", "pop.example", "xn--bcher-kva.example"}  # fmt: skip
PUBLISHED = {
    "autoconfig": BOTH | {"localhost"},
    "pacc": BOTH - {"pop.example"}
    | {"example.com", "ldap.example", "personal.example", "half.example"},
}

Publish = Callable[..., str]


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """The settings of commands, on the test's database."""
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where files are published."""
    return tmp_path / "published"


@pytest.fixture
def publish(env: dict[str, str], target: Path) -> Publish:
    """Run the command on the test's folder."""

    def run(*options: str, **settings: str) -> str:
        return automx("publish", target, *options, env=env | settings)

    return run


@pytest.fixture
def rows(execute: Execute) -> None:
    """Fill the database."""
    execute(EXAMPLE_ROWS + ROWS)


def files(folder: Path) -> dict[str, bytes]:
    """Return path -> content of all published files; folders of other names are left out."""
    found = {}
    for kind in KINDS:
        for path in (folder / kind).glob("*/*"):
            assert path.parent.name == bucket_of(path.name)
            found[f"{kind}/{path.name}"] = path.read_bytes()
    return found


def afresh(env: dict[str, str], folder: Path) -> dict[str, bytes]:
    """Return what the first run writes into another folder."""
    automx("publish", folder, env=env)
    return files(folder)


@pytest.mark.usefixtures("rows")
def test_files_are_what_automx_answers_everybody(
    make_app: Callable[..., Flask], publish: Publish, target: Path
) -> None:
    publish()
    client = make_app().test_client()
    expected = {}
    for kind, domains in PUBLISHED.items():
        for domain in domains:
            if kind == "pacc":
                answer = client.get(pacc.PATH, base_url=f"http://ua-auto-config.{domain}")
            else:
                path = f"{autoconfig.PATH}?emailaddress=alice@{domain}"
                answer = client.get(path)
                assert client.get(path.replace("alice", "bob")).data == answer.data
            assert (domain, answer.status_code) == (domain, 200)
            expected[f"{kind}/{domain}"] = answer.data
    assert files(target) == expected
    assert expected["pacc/two.example"] == b'{"stored": 1}'


def test_a_domain_whose_people_a_source_knows_has_no_autoconfig_file(
    execute: Execute, env: dict[str, str], target: Path, tmp_path: Path
) -> None:
    execute(EXAMPLE_ROWS + ROWS + "INSERT INTO domain_origin VALUES (12, 'source:mail');")
    config = tmp_path / "automx.conf"
    config.write_text(
        f"[source.mail]\ntype = sql\nuri = sqlite:///{tmp_path}/mail\n"
        "query = SELECT domain FROM domain\npeople_query = SELECT login FROM u WHERE a = :address\n"
    )
    automx("publish", target, env=env)
    assert "autoconfig/two.example" in files(target)
    automx("publish", target, env=env | {"AUTOMX_CONF": str(config)})
    assert "autoconfig/two.example" not in files(target)
    assert "autoconfig/one.example" in files(target)


@pytest.mark.usefixtures("rows")
def test_pacc_is_published_only_if_dns_apply_waits_for_it(publish: Publish, target: Path) -> None:
    publish(AUTOMX_PUBLISH_SECONDS="0")
    assert {path.partition("/")[0] for path in files(target)} == {"autoconfig"}
    assert "settings were changed" in publish()
    assert {path.partition("/")[0] for path in files(target)} == {"autoconfig", "pacc"}


CHANGES: dict[str, Sequence[str]] = {
    "a domain is switched off": ("domain", "disable", "one.example"),
    "a domain is switched on": ("domain", "enable", "off.example"),
    "a domain is deleted": ("domain", "del", "one.example", "--yes"),
    "a domain is added": ("domain", "add", "new.example", "--like", "one.example"),
    "a wildcard is switched off": ("domain", "disable", "*"),
    "a domain gets a directory": ("domain", "set", "one.example", "--directory", "1"),
    "a domain is renamed": ("domain", "set", "one.example", "--name", "other.example"),
    "a server is moved": ("server", "set", "11", "--name", "new.example.com", "--yes"),
    "a server becomes personal": (
        "server",
        "set",
        "11",
        "--user-name",
        "%EMAILLOCALPART%",
        "--yes",
    ),
    "a server is deleted": ("server", "del", "12", "--unlink", "--yes"),
    "a directory is deleted": ("directory", "del", "1", "--unlink", "--yes"),
    "a provider is renamed": ("provider", "set", "1", "--name", "Other", "--yes"),
    "everything is deleted": ("purge", "--yes"),
}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("change", CHANGES)
def test_the_next_run_follows_a_change(
    publish: Publish, env: dict[str, str], target: Path, tmp_path: Path, change: str
) -> None:
    publish()
    before = files(target)
    automx(*CHANGES[change], env=env)
    said = publish()
    assert files(target) == afresh(env, tmp_path / "other")
    if change != "a wildcard is switched off":
        assert files(target) != before
    is_of_all = change in {"a server is deleted", "a directory is deleted", "everything is deleted"}
    assert ("all were compared" in said) == is_of_all
    assert publish() == "Nothing has changed since the last run.\n"


SEED = {
    "version": 2,
    "provider": "Example Inc.",
    "domains": [{"name": "example.com"}, {"name": "example.net"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 993},
        {"type": "smtp", "name": "smtp.example.com", "port": 465},
    ],
}

BY_SQL = {
    "a server": "UPDATE server SET name = 'new.example.com' WHERE id = 11",
    "a login name": "UPDATE server SET user_name = '%EMAILLOCALPART%' WHERE id = 11",
    "a provider": "UPDATE provider SET name = 'Other'",
    "details": "INSERT INTO provider_detail (provider_id, webmail_url) VALUES (1, 'https://a.test/')",
    "a new domain": "INSERT INTO domain VALUES (50, 'new.example', 1, NULL);"
    "INSERT INTO server_domain VALUES (11, 50), (12, 50)",
    "a deleted domain": "DELETE FROM server_domain WHERE domain_id = 11;"
    "DELETE FROM domain WHERE id = 11",
    "a domain that is off": "INSERT INTO disabled_domain VALUES (11, '2026-11-30 10:00:00')",
    "a link": "DELETE FROM server_domain WHERE server_id = 12 AND domain_id = 11",
    "a directory of a domain": "UPDATE domain SET ldapserver_id = 1 WHERE id = 11",
    "a stored document": "UPDATE managed_domain SET document = CAST('{}' AS BLOB), version = 2",
}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("change", BY_SQL)
def test_the_next_run_follows_a_change_by_sql(
    publish: Publish,
    env: dict[str, str],
    execute: Execute,
    target: Path,
    tmp_path: Path,
    change: str,
) -> None:
    publish()
    before = files(target)
    execute(BY_SQL[change])
    assert "SQL has changed rows" in publish()
    assert files(target) == afresh(env, tmp_path / "other")
    assert files(target) != before


def test_each_database_is_followed_by_its_log_and_by_its_rows(
    any_migrated_uri: str, target: Path, tmp_path: Path
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_migrated_uri}
    automx("seed", "-", env=env, stdin=json.dumps(SEED))
    automx("publish", target, env=env)
    assert "autoconfig/example.com" in files(target)
    changes = [
        (("domain", "disable", "example.com"), ""),
        (("server", "set", "1", "--name", "new.example.com", "--yes"), ""),
        ((), "UPDATE server SET name = 'other.example.com' WHERE id = 1"),
        ((), "DELETE FROM disabled_domain"),
        (("domain", "add", "new.example", "--like", "example.com"), ""),
        (("domain", "del", "example.net", "--yes"), ""),
    ]
    for number, (command, sql) in enumerate(changes):
        before = files(target)
        if command:
            automx(*command, env=env)
        else:
            with open_session(engine_uri(any_migrated_uri)) as session:
                session.execute(text(sql))
        said = automx("publish", target, env=env)
        assert ("SQL has changed rows" in said) == bool(sql)
        assert files(target) == afresh(env, tmp_path / str(number))
        assert files(target) != before
        assert "Nothing has changed" in automx("publish", target, env=env)


@pytest.mark.usefixtures("rows")
def test_what_the_check_does_not_show_is_seen_within_an_hour(
    publish: Publish, execute: Execute, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    execute("UPDATE domain SET name = 'won.example' WHERE id = 11")
    assert publish() == "Nothing has changed since the last run.\n"
    assert "autoconfig/won.example" not in files(target)
    monkeypatch.setattr(runs, "FULL_AFTER", timedelta(0))
    assert "the last comparison is old" in publish()
    assert "autoconfig/won.example" in files(target)
    assert "autoconfig/one.example" not in files(target)


@pytest.mark.usefixtures("rows")
def test_rows_that_no_domain_uses_yet_are_no_reason_to_compare_all(
    publish: Publish, env: dict[str, str]
) -> None:
    publish()
    automx("server", "add", "--name", "imap.new.example", "--type", "imap", env=env)
    assert publish() == "Nothing has changed since the last run.\n"
    automx(
        "domain", "add", "new.example", "--server", "imap.new.example", "--server", "12", env=env
    )
    assert publish() == "2 written, 0 removed.\n"


@pytest.mark.usefixtures("rows")
def test_a_log_that_was_cut_leads_to_a_comparison(
    publish: Publish, env: dict[str, str], execute: Execute, target: Path
) -> None:
    publish()
    automx("domain", "disable", "one.example", env=env)
    automx("domain", "disable", "two.example", env=env)
    execute("DELETE FROM change_log WHERE number = (SELECT MIN(number) FROM change_log)")
    assert "everything may have changed" in publish()
    assert "autoconfig/one.example" not in files(target)


@pytest.mark.usefixtures("rows")
def test_a_full_run_mends_whatever_was_done_to_the_files(publish: Publish, target: Path) -> None:
    publish()
    before = files(target)
    one = target / "autoconfig" / "ne" / "one.example"
    one.write_bytes(b"x")
    (target / "pacc" / "wo" / "two.example").unlink()
    (target / "autoconfig" / "wo" / "two.example").chmod(0o600)
    os.link(target / "pacc" / "ne" / "one.example", target / "linked")
    for name in ("gone.example", "a" * 255, "..x", ".hidden", "UPPER"):
        (target / "autoconfig" / "ne" / name).write_bytes(b"x")
    (target / "autoconfig" / "zz").mkdir()
    (target / "autoconfig" / "zz" / "one.example").write_bytes(b"x")
    publish("--full")
    assert files(target) == before
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in target.glob("*/*/*"))


@pytest.mark.usefixtures("rows")
def test_an_unchanged_file_is_not_written_again(publish: Publish, target: Path) -> None:
    publish()
    before = {path: path.stat().st_ino for path in target.glob("*/*/*")}
    publish("--full")
    assert {path: path.stat().st_ino for path in target.glob("*/*/*")} == before


@pytest.mark.usefixtures("rows")
def test_no_link_in_the_folder_is_followed(publish: Publish, target: Path, tmp_path: Path) -> None:
    publish()
    before = files(target)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one.example").write_bytes(b"theirs")
    (outside / "keep").write_bytes(b"theirs")
    (target / "autoconfig" / "ne" / "one.example").unlink()
    (target / "autoconfig" / "ne" / "one.example").symlink_to(outside / "one.example")
    (target / "autoconfig" / "wo").rename(tmp_path / "moved")
    (target / "autoconfig" / "wo").symlink_to(outside)
    (target / ".new").rmdir()
    (target / ".new").symlink_to(outside)
    (target / "pacc").rename(tmp_path / "pacc")
    (target / "pacc").symlink_to(outside)
    publish("--full")
    assert files(target) == before
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {
        "one.example": b"theirs",
        "keep": b"theirs",
    }


def refuse(env: dict[str, str], target: Path, *options: str) -> str:
    """Run the command, which fails; return what it says."""
    result = attempt("publish", target, *options, env=env)
    assert result.returncode == 1
    return result.stderr


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--full",)])
def test_a_folder_of_others_is_left_alone(
    env: dict[str, str], target: Path, options: tuple[str, ...]
) -> None:
    target.mkdir()
    (target / "autoconfig").mkdir()
    (target / "autoconfig" / "mine").write_text("mine")
    assert "is neither empty nor made by automx publish" in refuse(env, target, *options)
    (target / ".automx-published").symlink_to(target / "autoconfig" / "mine")
    assert "is neither empty nor made by automx publish" in refuse(env, target, *options)
    assert sorted(path.name for path in target.rglob("*")) == [
        ".automx-published",
        "autoconfig",
        "mine",
    ]


def test_a_folder_that_others_can_change_is_refused(env: dict[str, str], target: Path) -> None:
    target.mkdir()
    target.chmod(0o777)
    assert "can be changed by other users" in refuse(env, target)
    target.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(target, 12345, 12345)
        assert "belongs to another user" in refuse(env, target)
    assert "No such file or directory" in refuse(env, target / "no" / "where")
    (target.parent / "file").touch()
    assert "Not a directory" in refuse(env, target.parent / "file")


@pytest.mark.usefixtures("rows")
def test_nginx_can_read_the_files_and_nobody_can_write_them(publish: Publish, target: Path) -> None:
    umask = os.umask(0o077)  # that of the services
    try:
        publish()
    finally:
        os.umask(umask)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [target, *target.rglob("*")]}
    own = {target / ".automx-published": 0o600, target / ".state": 0o600, target / ".new": 0o700}
    for path, mode in modes.items():
        assert (path, mode) == (path, own.get(path, 0o755 if path.is_dir() else 0o644))


@pytest.mark.usefixtures("rows")
def test_two_runs_at_once_do_not_disturb_each_other(
    publish: Publish, env: dict[str, str], target: Path
) -> None:
    publish()
    with (target / ".automx-published").open("r+") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        assert "another process publishes into" in refuse(env, target, "--full")
        assert publish("--dry-run") == "Nothing has changed since the last run.\n"
    publish("--full")


@pytest.mark.usefixtures("rows")
def test_a_full_disk_leaves_old_files_and_the_next_run_goes_on(
    publish: Publish, env: dict[str, str], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    before = files(target)
    automx("server", "set", "11", "--name", "new.example.com", "--yes", env=env)
    automx("domain", "disable", "two.example", env=env)
    write = os.write

    def fail(file: int, body: bytes) -> int:
        if b"new.example.com" in body:
            write(file, body[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, body)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        assert "autoconfig one.example: No space left on device" in refuse(env, target)
    gone = {"autoconfig/two.example", "pacc/two.example"}
    assert files(target) == {path: body for path, body in before.items() if path not in gone}
    assert not [*(target / ".new").iterdir()]
    publish()
    assert b"new.example.com" in files(target)["autoconfig/one.example"]


# Runs the command until it calls a function for the third time; then it is killed.
KILLED = """
import os, signal, sys
from automx.publish import folder
from automx.cli import main

def until(real, calls=[]):
    def call(*arguments, **options):
        calls.append(real)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

folder._AT_ONCE = 4
name = sys.argv.pop(1)
setattr(os, name, until(getattr(os, name)))
main()
"""


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_killed_run_leaves_whole_files_and_the_next_one_goes_on(
    publish: Publish, env: dict[str, str], target: Path, tmp_path: Path, call: str
) -> None:
    publish()
    before = files(target)
    automx("server", "set", "11", "--name", "new.example.com", "--yes", env=env)
    after = afresh(env, tmp_path / "other")
    command: list[str | Path] = [sys.executable, "-c", KILLED, call, "publish", target]
    process = subprocess.run(command, env=os.environ | env, check=False)
    assert process.returncode == -signal.SIGKILL
    found = files(target)
    assert found.keys() == before.keys()
    assert all(found[path] in {before[path], after[path]} for path in found)
    assert [*(target / ".new").iterdir()]
    publish()
    assert files(target) == after
    assert not [*(target / ".new").iterdir()]


@pytest.mark.usefixtures("rows")
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    publish: Publish, env: dict[str, str], target: Path
) -> None:
    lines = publish("--dry-run").splitlines()
    assert not target.exists()
    names = sorted(
        f"+ {kind} {domain}" for kind, domains in PUBLISHED.items() for domain in domains
    )
    assert sorted({*lines[:-1]}) == names
    publish()
    automx("domain", "disable", "one.example", env=env)
    assert publish("--dry-run") == (
        "- autoconfig one.example\n- pacc one.example\nWould be 0 written, 2 removed.\n"
    )
    assert "autoconfig/one.example" in files(target)


@pytest.mark.usefixtures("rows")
def test_json_says_what_was_done(publish: Publish, env: dict[str, str], target: Path) -> None:
    publish()
    automx("domain", "disable", "one.example", env=env)
    change = {"action": "removed", "domain": "one.example"}
    assert json.loads(publish("--json")) == {
        "folder": str(target),
        "dry_run": False,
        "compared_all": "",
        "written": 0,
        "removed": 2,
        "unchanged": 0,
        "failed": 0,
        "changes": [change | {"kind": "autoconfig"}, change | {"kind": "pacc"}],
    }


@pytest.mark.usefixtures("rows")
def test_watch_follows_each_change_at_once(
    env: dict[str, str], target: Path, tmp_path: Path
) -> None:
    one = target / "autoconfig" / "ne" / "one.example"
    command: list[str | Path] = [AUTOMX, "publish", target, "--watch"]
    with running(command, tmp_path / "log", ready=one.exists, env=env) as process:
        automx("domain", "disable", "one.example", env=env)
        wait_until(lambda: not one.exists(), "the removal of the file")
        automx("domain", "enable", "one.example", env=env)
        wait_until(one.exists, "the file of the domain")
        wait_until(lambda: "2 written" in process.output, "a line about it")
    assert "Traceback" not in process.output
    assert files(target) == afresh(env, tmp_path / "other")


@pytest.mark.parametrize("option", ["--dry-run", "--json"])
def test_watch_goes_on_for_ever_and_prints_lines(
    env: dict[str, str], target: Path, option: str
) -> None:
    assert attempt("publish", target, "--watch", option, env=env).returncode == 2
    assert not target.exists()


def test_a_database_without_schema_is_told_in_one_line(target: Path, tmp_path: Path) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{tmp_path}/none.sqlite"}
    assert len(refuse(env, target).splitlines()) == 1


@pytest.mark.parametrize(
    "state", [b"", b"{}", b"[]", b"\xff", b'{"number": "x", "full_at": 1}', b"1" * 5000]
)
@pytest.mark.usefixtures("rows")
def test_a_state_that_cannot_be_read_leads_to_a_comparison(
    publish: Publish, target: Path, state: bytes
) -> None:
    publish()
    (target / ".state").write_bytes(state)
    assert "there was no run before" in publish()


def test_a_state_of_the_future_leads_to_a_comparison(publish: Publish, target: Path) -> None:
    publish()
    state = json.loads((target / ".state").read_bytes())
    state["full_at"] = (this_second() + timedelta(days=1)).isoformat()
    (target / ".state").write_text(json.dumps(state))
    assert "the last comparison is old" in publish()


@pytest.mark.parametrize(
    "name", ["a", "ab", "abc.example", "x.y", "_dmarc.example", "-", "127.0.0.1", "a" * 63 + ".b"]
)
def test_a_domain_is_the_name_of_a_file_in_its_folder(name: str) -> None:
    bucket = bucket_of(name)
    assert 0 < len(bucket) <= 2
    assert "." not in bucket
    assert "/" not in bucket
    longest = parse_domain(".".join(["a" * 61] * 4) + ".abcde")
    assert len(longest) == 253  # a name of a file has at most 255 bytes
