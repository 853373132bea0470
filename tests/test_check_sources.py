"""``automx check`` looks at sources: can they be read, by whom, and when were they synchronized."""

import json
import os
from pathlib import Path

import pytest

from tests.commandline import attempt
from tests.conftest import Execute
from tests.directory import silent_socket
from tests.people import MailDatabase, new_database

Findings = list[tuple[str, str, str]]

SUBJECT = "source mail"
SEE = "see automx sync --dry-run mail"
TWO = ("ok", "it has 2 domains", "")


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    """A file with the domains of the mail server."""
    path = tmp_path / "domains"
    path.write_text("one.example\ntwo.example\n")
    return path


@pytest.fixture
def env(database: Path, example: None, domains: Path) -> dict[str, str]:
    """Settings with one source, a file."""
    return settings(database, TYPE="file", FILE=str(domains))


def settings(database: Path, **keys: str) -> dict[str, str]:
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "PATH": os.environ["PATH"],
        **{f"AUTOMX_SOURCE_MAIL_{key}": text for key, text in keys.items()},
    }


def found(env: dict[str, str], *options: str) -> Findings:
    """Return level, text and advice of findings about the source, which are no domain's."""
    result = attempt("check", "--json", *options, env=env)
    findings = [
        finding
        for finding in json.loads(result.stdout)["findings"]
        if finding["subject"] == SUBJECT
    ]
    assert {finding["domain"] for finding in findings} <= {""}
    return [(finding["level"], finding["text"], finding["advice"]) for finding in findings]


def sync(env: dict[str, str], *options: str) -> None:
    """Synchronize, whatever comes of it."""
    attempt("sync", *options, env=env)


def test_a_source_is_in_order_when_it_was_synchronized(env: dict[str, str], database: Path) -> None:
    never = ("warning", "it was never synchronized", "run automx sync mail, or the timer")
    assert found(env) == [never, TWO]
    sync(env)
    before = database.read_bytes()
    assert found(env) == [TWO]
    assert database.read_bytes() == before
    assert attempt("check", env=env).stdout.splitlines()[0] == (
        "ok       -  source mail: it has 2 domains"
    )


def test_a_source_is_looked_at_once_however_many_domains_are(env: dict[str, str]) -> None:
    sync(env)
    offline = ("--dns", "127.0.0.1:1", "--timeout", "0.5")
    assert found(env, *offline, "one.example", "two.example", "example.com") == [TWO]


def test_a_source_that_cannot_be_read_is_told_once(env: dict[str, str], domains: Path) -> None:
    sync(env)
    domains.unlink()
    text = f"{domains} cannot be read: No such file or directory"
    advice = "see [source.mail] in the settings, and that the source runs"
    now_away = ("error", f"it cannot be read: {text}", advice)
    assert found(env) == [now_away]
    sync(env)
    assert found(env) == [now_away]
    domains.write_text("one.example\ntwo.example\n")
    [(level, failed, advice), is_back] = found(env)
    assert (is_back, level, advice) == (TWO, "error", SEE)
    assert failed.startswith(f"the last synchronization failed: {text} (last success: 20")
    sync(env)
    assert found(env) == [TWO]


def test_an_empty_source_is_an_error(env: dict[str, str], domains: Path) -> None:
    sync(env)
    domains.write_text("")
    empty = (
        "error",
        "it has no domain, so a synchronization changes nothing",
        "see [source.mail] in the settings, and what its account may read",
    )
    assert found(env) == [empty]
    sync(env)
    assert found(env) == [empty]


def test_a_guard_that_has_stopped_a_synchronization_is_an_error(
    env: dict[str, str], domains: Path
) -> None:
    domains.write_text("".join(f"d{number}.example\n" for number in range(10)))
    sync(env)
    domains.write_text("d1.example\n")
    sync(env)
    [(level, text, advice), one] = found(env)
    assert (one, level, advice) == (("ok", "it has 1 domain", ""), "error", SEE)
    assert "9 of 10 domains would be switched off at once" in text
    sync(env, "--force")
    assert found(env) == [one]


def test_the_first_synchronization_that_fails_has_no_success_before(
    env: dict[str, str], domains: Path
) -> None:
    domains.rename(domains.with_name("away"))
    sync(env)
    domains.with_name("away").rename(domains)
    [(level, text, _), _] = found(env)
    assert (level, text.endswith("(last success: never)")) == ("error", True)


@pytest.mark.parametrize(
    ("interval", "minutes", "is_late"),
    [("5m", 55, False), ("5m", 65, True), ("1h", 175, False), ("1h", 185, True)],
)
def test_a_synchronization_is_late_after_three_intervals_and_an_hour(
    env: dict[str, str], execute: Execute, interval: str, minutes: int, is_late: bool
) -> None:
    sync(env)
    ago = f"datetime(began_at, '-{minutes} minutes')"
    execute(f"UPDATE source_sync SET began_at = {ago}, succeeded_at = {ago};")
    advice = "see that the timer runs, or set interval to how often it does"
    [*late, two] = found(env | {"AUTOMX_SOURCE_MAIL_INTERVAL": interval})
    assert two == TWO
    assert [(level, told) for level, _, told in late] == [("error", advice)] * is_late
    assert all(text.startswith("the last synchronization was 20") for _, text, _ in late)


def test_problems_of_the_last_synchronization_are_a_warning(
    env: dict[str, str], domains: Path
) -> None:
    domains.write_text("one.example\ntwo.example\nbad name\nexample.com\n")
    sync(env)
    text = "problems of the last synchronization: 2"
    assert found(env) == [("warning", text, SEE), ("ok", "it has 3 domains", "")]


def test_several_sources_are_looked_at_and_one_of_them_does_not_stop_the_others(
    env: dict[str, str], domains: Path
) -> None:
    more = {"AUTOMX_SOURCE_SLOW_TYPE": "command", "AUTOMX_SOURCE_SLOW_COMMAND": "/bin/sleep 600"}
    env |= more | {"AUTOMX_SOURCE_SLOW_TIMEOUT": "0.5"}
    sync(env, "mail")
    result = attempt("check", "--json", env=env)
    findings = json.loads(result.stdout)["findings"]
    assert [(each["subject"], each["level"]) for each in findings] == [
        ("source slow", "error"),
        ("source slow", "warning"),
        (SUBJECT, "ok"),
    ]
    assert result.returncode == 2


# Databases


@pytest.mark.parametrize(
    "query", [{"PRESET": "postfixadmin"}, {"PEOPLE": "postfixadmin", "DOMAINS": "example.com"}]
)
def test_a_silent_database_does_not_hold_up_the_doctor(
    database: Path, example: None, query: dict[str, str]
) -> None:
    with silent_socket() as port:
        uri = f"mysql://reader:stairs@127.0.0.1:{port}/mail?ssl_disabled=true"
        told = found(settings(database, TYPE="sql", URI=uri, **query), "--timeout", "0.2")
    assert told[0][0] == "error"
    assert "no answer within " in told[0][1]
    assert "stairs" not in str(told)


@pytest.fixture(params=["mariadb", "postgresql"])
def mail(request: pytest.FixtureRequest, tmp_path: Path) -> MailDatabase:
    """A database with domains and people; ``uri`` is that of its administrator."""
    mail = new_database(request.param, request, tmp_path)
    mail.sql(
        "CREATE TABLE domain (name VARCHAR(255)); CREATE TABLE people (login VARCHAR(255));"
        "INSERT INTO domain VALUES ('one.example'), ('two.example')"
    )
    return mail


def test_people_who_cannot_be_looked_up_are_told_without_a_domain(
    mail: MailDatabase, database: Path, example: None
) -> None:
    mail.grant("domain")
    query = "SELECT login FROM people WHERE login = :address"
    keys = {"TYPE": "sql", "DOMAINS": "example.com", "PEOPLE_QUERY": query, "URI": mail.uri}
    [(level, text, _)] = found(settings(database, **keys))
    assert level == "error"
    assert text.startswith("people cannot be looked up: database: ")
    assert text.endswith("; the account may not read this: it needs GRANT SELECT")


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        ("sources", {"QUERY": "SELECT name AS domain FROM domain"}),
        ("people", {"PEOPLE_QUERY": "SELECT login FROM people WHERE login = :address"}),
    ],
)
def test_an_account_that_may_write_is_told(
    mail: MailDatabase, database: Path, example: None, page: str, keys: dict[str, str]
) -> None:
    keys |= {"TYPE": "sql", "DOMAINS": "example.com"}

    def told(uri: str) -> Findings:
        env = settings(database, **keys, URI=uri)
        return [each for each in found(env) if "synchronized" not in each[1] and each != TWO]

    administrator = mail.uri
    mail.grant("domain", "people")
    assert told(mail.uri) == []
    reader = f"reader_{mail.name}"
    table = f"{mail.name}.domain" if mail.engine == "mariadb" else "domain"
    mail.sql(f"GRANT INSERT, UPDATE ON {table} TO {reader}")
    advice = f"let it SELECT only, see docs/{page}.md"
    text = "its account may do more than read: INSERT, UPDATE"
    assert told(mail.uri) == [("warning", text, advice)]
    [(level, text, _)] = told(administrator)
    assert level == "warning"
    assert ("ALL PRIVILEGES" if mail.engine == "mariadb" else "superuser") in text
