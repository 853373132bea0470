"""``automx sync``, alone, beside others of its kind, and in the background of ``automx serve``."""

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from automx import leases
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.processes import AUTOMX, serving, wait_until

SETTINGS = """\
[automx]
db_uri = sqlite:///{database}
[source.mail]
type = file
file = {folder}/domains
interval = 10s
[source.other]
type = command
command = /bin/cat {folder}/other.csv
provider = 1
like = example.com
"""


FOREIGN = (
    "automx: source mail: example.com: the database has a row without an origin (see --adopt)\n"
)


@pytest.fixture
def env(database: Path, example: None, tmp_path: Path) -> dict[str, str]:
    """Settings of two sources: a list with two domains, and a table with one."""
    conf = tmp_path / "automx.conf"
    conf.write_text(SETTINGS.format(database=database, folder=tmp_path))
    (tmp_path / "domains").write_text("one.example\ntwo.example # of Mr. Two\n")
    (tmp_path / "other.csv").write_text("domain,active\nthree.example,no\n")
    return {"AUTOMX_CONF": str(conf), "PATH": os.environ["PATH"]}


def names(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM domain ORDER BY id")]


def test_all_sources_are_read_and_what_is_changed_is_printed(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    planned = automx("sync", "--dry-run", env=env)
    assert names(database) == ["example.com"]
    assert (
        automx("sync", env=env)
        == planned
        == (
            "+ domain one.example\n"
            "+ domain two.example\n"
            "Source mail, 2 domains: add 2 domains.\n"
            "+ domain three.example\n"
            "Source other, 1 domain: add 1 domain.\n"
        )
    )
    (tmp_path / "domains").write_text("one.example\nexample.com\nbad name\n")
    result = attempt("sync", "mail", env=env)
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        "~ domain two.example: disabled no -> yes\nSource mail, 2 domains: change 1 domain.\n",
        f"automx: source mail: bad name: it is no domain name\n{FOREIGN}",
    )
    assert automx("sync", "mail", "--adopt", "--dry-run", env=env) == (
        "~ domain example.com: origin none -> source:mail\n"
        "Source mail, 2 domains: change 1 domain.\n"
    )


def test_json_tells_the_plan_and_the_problems_of_each_source(env: dict[str, str]) -> None:
    [mail, other] = json.loads(automx("sync", "--json", env=env))["sources"]
    added = {
        "id": 2,
        "name": "one.example",
        "provider": 1,
        "ldapserver_id": None,
        "servers": [1, 2, 3],
        "davservers": [1, 2, 3],
        "disabled": False,
    }
    assert mail["added"][0] == {
        "kind": "domain",
        "id": 2,
        "name": "one.example",
        "after": added,
    }
    del mail["added"], other["added"]
    common: dict[str, Any] = {"message": "", "changed": [], "removed": [], "problems": []}
    assert mail == {"source": "mail", "outcome": "done", "found": 2, **common}
    assert other == {"source": "other", "outcome": "done", "found": 1, **common}


def test_a_source_that_fails_gives_status_1_and_the_others_go_on(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    (tmp_path / "domains").unlink()
    result = attempt("sync", env=env)
    text = f"{tmp_path}/domains cannot be read: No such file or directory"
    assert (result.returncode, result.stderr) == (1, f"automx: source mail: {text}\n")
    assert names(database) == ["example.com", "three.example"]
    result = attempt("sync", "--json", env=env)
    [mail, other] = json.loads(result.stdout)["sources"]
    assert (mail["outcome"], mail["message"], other["outcome"]) == ("unreadable", text, "done")
    assert result.returncode == 1


def test_a_refused_plan_is_not_printed_as_if_it_had_been_done(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    every = [f"d{number}.example" for number in range(8)]
    (tmp_path / "domains").write_text("\n".join(every))
    automx("sync", "mail", env=env)
    before = names(database)
    (tmp_path / "domains").write_text("# nothing\n")
    empty = "automx: source mail: the source has no domain: nothing was changed\n"
    for options in ([], ["--dry-run"], ["--force"]):
        result = attempt("sync", "mail", *options, env=env)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", empty)
    (tmp_path / "domains").write_text(every[0])
    result = attempt("sync", "mail", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert "max_removed allows 5: nothing was changed" in result.stderr
    planned = attempt("sync", "mail", "--dry-run", env=env)
    assert (planned.returncode, planned.stderr) == (1, result.stderr)
    assert planned.stdout.splitlines() == [
        f"~ domain {name}: disabled no -> yes" for name in every[1:]
    ]
    assert names(database) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nobody"], "There is no section [source.nobody]; sources are mail, other."),
        (["mail", "--purge"], "No such option"),
    ],
)
def test_what_is_not_understood_gives_status_2(
    env: dict[str, str], arguments: list[str], text: str
) -> None:
    result = attempt("sync", *arguments, env=env)
    assert result.returncode == 2
    assert text in result.stderr


def test_without_sources_there_is_nothing_to_synchronize(env: dict[str, str]) -> None:
    result = attempt("sync", env={"AUTOMX_CONF": "/dev/null"})
    assert result.returncode == 2
    assert "The settings have no section [source.NAME]." in result.stderr


def test_only_sources_that_are_due_are_read_and_repeated_news_are_not_told(
    env: dict[str, str], execute: Execute, tmp_path: Path
) -> None:
    (tmp_path / "domains").write_text("one.example\nbad name\n")
    first = attempt("sync", "--due", env=env)
    assert "Source mail, 1 domain: add 1 domain.\n" in first.stdout
    assert "bad name" in first.stderr
    result = attempt("sync", "--due", env=env)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)
    (tmp_path / "domains").write_text("one.example\nbad name\nnew.example\n")
    assert automx("sync", "--due", env=env) == ""  # 10 seconds are not over
    execute("UPDATE source_sync SET began_at = '2026-01-01 00:00:00' WHERE name = 'mail'")
    assert "+ domain new.example\n" in automx("sync", "--due", env=env)
    execute("UPDATE source_sync SET began_at = '2026-01-01 00:00:00' WHERE name = 'mail'")
    result = attempt("sync", "--due", env=env)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_a_clock_that_was_wrong_does_not_stop_synchronizations(
    env: dict[str, str], execute: Execute, tmp_path: Path
) -> None:
    automx("sync", env=env)
    execute("UPDATE source_sync SET began_at = '2037-01-01 00:00:00'")
    (tmp_path / "domains").write_text("one.example\ntwo.example\nnew.example\n")
    assert "+ domain new.example\n" in automx("sync", "--due", env=env)


def test_what_is_due_is_left_to_the_process_that_has_the_lease(
    env: dict[str, str], database: Path, execute: Execute
) -> None:
    execute("INSERT INTO lease VALUES ('sync', 'another process', '2999-01-01 00:00:00')")
    assert automx("sync", "--due", env=env) == ""
    assert names(database) == ["example.com"]
    execute("UPDATE lease SET until = '2026-01-01 00:00:00'")  # it was killed
    assert "Source mail" in automx("sync", "--due", env=env)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT * FROM lease").fetchall() == []


def test_what_another_process_has_read_meanwhile_is_not_read_again(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = leases.take
    printed: list[str] = []

    def take_late(*arguments: Any, **moments: Any) -> bool:
        if not printed:
            printed.append(subprocess.check_output([AUTOMX, "sync", "--due"], env=env, text=True))
        return take(*arguments, **moments)

    monkeypatch.setattr(leases, "take", take_late)
    assert json.loads(automx("sync", "--due", "--json", env=env)) == {"sources": []}
    assert "Source mail" in printed[0]


def test_two_synchronizations_at_once_leave_one_state(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    all_names = [f"d{number}.example" for number in range(300)]
    (tmp_path / "domains").write_text("\n".join(all_names))
    command: list[str | Path] = [AUTOMX, "sync", "mail", "--json"]
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    documents = [json.loads(output)["sources"][0] for output, _ in results]
    assert sorted(len(document["added"]) for document in documents) == [0, 0, 300]
    assert sorted(names(database)[1:]) == sorted(all_names)


def test_a_synchronization_that_is_killed_has_done_nothing_or_all(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    (tmp_path / "domains").write_text("\n".join(f"d{number}.example" for number in range(5_000)))
    journal = database.with_name(f"{database.name}-journal")
    with subprocess.Popen([AUTOMX, "sync", "mail"], env=env, stdout=subprocess.PIPE) as process:
        wait_until(lambda: journal.exists() or process.poll() is not None, "the first write")
        process.send_signal(signal.SIGKILL)
    assert len(names(database)) in {1, 5_001}
    automx("sync", "mail", env=env)
    assert len(names(database)) == 5_001


def test_the_server_synchronizes_if_it_shall_and_ends_at_sigterm(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    env |= {"AUTOMX_SYNC_IN_SERVER": "yes"}
    log = tmp_path / "serve.log"
    with serving(env, log, "--workers", "1") as server:
        wait_until(lambda: "three.example" in names(database), "the first synchronization")
        (tmp_path / "domains").write_text("one.example\nnew.example\n")
        wait_until(lambda: "new.example" in names(database), "the next synchronization")
        server.process.terminate()
        assert server.process.wait(20) == 0
    text = log.read_text()
    assert "+ domain new.example\n" in text
    assert "Traceback" not in text


def test_a_synchronization_that_hangs_does_not_hold_up_the_end_of_the_server(
    env: dict[str, str], tmp_path: Path
) -> None:
    conf = Path(env["AUTOMX_CONF"])
    started = tmp_path / "started"
    program = tmp_path / "hangs"
    program.write_text(f"#!/bin/sh\necho $$ >{started}\nexec sleep 600\n")
    program.chmod(0o755)
    conf.write_text(conf.read_text().replace(f"/bin/cat {tmp_path}/other.csv", str(program)))
    env |= {"AUTOMX_SYNC_IN_SERVER": "yes", "AUTOMX_SOURCE_OTHER_TIMEOUT": "600"}
    with serving(env, tmp_path / "serve.log", "--workers", "1") as server:
        wait_until(lambda: started.exists() and bool(started.read_text()), "a program that hangs")
        server.process.terminate()
        assert server.process.wait(20) == 0
    assert not Path(f"/proc/{started.read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"AUTOMX_CONF": "/dev/null"}, "sync_in_server needs a source: a section [source.NAME]"),
        (
            {"AUTOMX_DB_URI": "sqlite:///:memory:"},
            "sync_in_server needs a database that is not in memory",
        ),
    ],
)
def test_a_server_that_cannot_synchronize_does_not_start(
    env: dict[str, str], variables: dict[str, str], text: str
) -> None:
    env |= {"AUTOMX_SYNC_IN_SERVER": "yes", **variables}
    result = attempt("serve", env=env)
    assert (result.returncode, result.stderr) == (1, f"automx: {text}\n")


def test_a_source_that_knows_people_only_is_not_read(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    people = {
        "AUTOMX_SOURCE_PEOPLE_TYPE": "sql",
        "AUTOMX_SOURCE_PEOPLE_URI": f"sqlite:///{tmp_path}/nothing.sqlite",
        "AUTOMX_SOURCE_PEOPLE_PEOPLE": "postfixadmin",
        "AUTOMX_SOURCE_PEOPLE_DOMAINS": "*",
    }
    assert "Source people" not in automx("sync", env=env | people)
    result = attempt("sync", "people", env=env | people)
    assert (result.returncode, "sources are mail, other." in result.stderr) == (2, True)
