"""``automx check`` asks mailcow, so that a wrong key is known before a person scans a code."""

import json
from collections.abc import Iterator

import pytest

from tests.commandline import attempt, automx
from tests.mailcow import Domain, FakeMailcow, Key, running_mailcow

Findings = list[tuple[str, str]]

ADVICE = "tokens make no accounts there until this is corrected"


@pytest.fixture
def server() -> Iterator[FakeMailcow]:
    with running_mailcow() as mailcow:
        mailcow.domains["example.com"] = Domain()
        yield mailcow


@pytest.fixture
def env(database: object, server: FakeMailcow, example: None) -> dict[str, str]:
    """The settings of a service whose mailboxes are made by mailcow, with one token."""
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_ACCOUNT_BACKEND": "mailcow",
        "AUTOMX_MAILCOW_ENDPOINT": server.url,
        "AUTOMX_MAILCOW_TOKEN": server.key,
    }
    automx("token", "add", "oneday", "--domain", "example.com", env=env)
    return env


def found(env: dict[str, str]) -> Findings:
    """Return subject and text of all findings, which must be errors about the whole service."""
    result = attempt("check", "--json", env=env)
    findings = json.loads(result.stdout)["findings"]
    assert result.returncode == (2 if findings else 0)
    for finding in findings:
        assert (finding["domain"], finding["level"], finding["advice"]) == ("", "error", ADVICE)
    return [(finding["subject"], finding["text"]) for finding in findings]


def test_a_mailcow_that_makes_mailboxes_is_in_order(
    env: dict[str, str], server: FakeMailcow
) -> None:
    assert found(env) == []
    assert server.mailboxes == {}


def test_a_domain_that_mailcow_has_switched_off_or_does_not_know_is_told(
    env: dict[str, str], server: FakeMailcow
) -> None:
    server.domains["example.com"].active = 0
    assert found(env) == [
        (
            "backend mailcow",
            "the domain example.com is not active in mailcow, so nobody could log in",
        )
    ]
    del server.domains["example.com"]
    assert found(env) == [("backend mailcow", "mailcow does not know the domain example.com")]


def test_a_token_that_makes_no_more_accounts_is_not_asked_for(
    env: dict[str, str], server: FakeMailcow
) -> None:
    del server.domains["example.com"]
    automx("token", "revoke", "oneday", env=env)
    assert found(env) == []


@pytest.mark.parametrize("is_revoked", [False, True])
def test_a_wrong_key_is_told_and_sent_once_only(
    env: dict[str, str], server: FakeMailcow, is_revoked: bool
) -> None:
    if is_revoked:
        automx("token", "revoke", "oneday", env=env)
    server.keys[server.key] = Key(is_active=False)
    ((subject, text),) = found(env)
    assert subject == "backend mailcow"
    assert "authentication failed" in text
    assert "check mailcow_token" in text
    for _ in range(12):
        ((_, text),) = found(env)
        assert text.startswith("the key in mailcow_token was refused, and is not sent until ")
        result = attempt("account", "add", "--token", "oneday", "--json", env=env)
        assert result.returncode == 1
    assert server.refused == 1


def test_a_key_that_may_only_read_is_told(env: dict[str, str], server: FakeMailcow) -> None:
    env["AUTOMX_MAILCOW_TOKEN"] = server.read_only_key
    ((_, text),) = found(env)
    assert text.endswith("(the key in mailcow_token may only read)")


def test_a_wrong_path_and_missing_settings_are_told(
    env: dict[str, str], server: FakeMailcow
) -> None:
    env["AUTOMX_MAILCOW_ENDPOINT"] = f"{server.url}/get"
    ((_, text),) = found(env)
    assert "check mailcow_endpoint: the usual one is https://HOST/api/v1" in text
    env["AUTOMX_MAILCOW_ENDPOINT"] = ""
    ((subject, text),) = found(env)
    assert (subject, text.partition(" ")[0]) == ("backend mailcow", "mailcow_endpoint")


def test_a_token_with_a_backend_of_its_own_is_checked_there(
    env: dict[str, str], server: FakeMailcow
) -> None:
    env["AUTOMX_ACCOUNT_BACKEND"] = "none"
    server.keys[server.key] = Key(is_active=False)
    assert found(env) == []
    assert server.requests == []
    automx("token", "mod", "oneday", "--backend", "mailcow", env=env)
    assert [subject for subject, _ in found(env)] == ["backend mailcow"]
