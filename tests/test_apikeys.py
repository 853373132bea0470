"""Keys of the API: made, found, rotated, revoked; and ``automx apikey``."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from automx import apikeys, audit
from automx.accountcolumns import KEY_FORM
from automx.changes import Changes
from automx.database import Session, open_session
from automx.errors import BadRecordError, BadRequestError, ConflictError, UnknownKeyError
from automx.models import ApiKey
from automx.seed import populate
from automx.seeddocument import SAMPLE
from automx.words import Role
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.databases import engine_uri

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BY: dict[str, Any] = {"actor": "user:alice", "now": NOW}


@pytest.fixture
def session(any_migrated_uri: str) -> Iterator[Session]:
    """A session on a database with the sample, of each engine in turn."""
    uri = engine_uri(any_migrated_uri)
    with open_session(uri) as opened:
        populate(opened, SAMPLE)
        opened.commit()
        yield opened


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """The settings of a command on the test's database."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "SUDO_USER": "alice",
    }


def test_a_key_is_found_by_its_secret_which_is_not_stored(session: Session) -> None:
    assert not apikeys.exist(session)

    key, secret = apikeys.add(
        session,
        "portal",
        Role.WRITE,
        provider=1,
        domains=("example.com", "xn--mller-kva.example"),
        networks=("192.0.2.0/24", "2001:db8::/32"),
        valid_until=NOW + timedelta(1),
        **BY,
    )

    assert KEY_FORM.fullmatch(secret)
    assert apikeys.exist(session)
    assert apikeys.find(session, secret) == key == apikeys.get(session, "portal")
    assert key.document() == {
        "name": "portal",
        "role": "write",
        "provider": 1,
        "domains": ["example.com", "xn--mller-kva.example"],
        "from": ["192.0.2.0/24", "2001:db8::/32"],
        "until": "2026-12-01T12:00:00Z",
        "revoked": False,
        "rotated": False,
        "created": "2026-11-30T12:00:00Z",
        "used": None,
    }
    [row] = session.execute(select(ApiKey)).all()
    assert secret not in repr(row)


def test_blanks_around_the_name_of_a_key_do_not_count(session: Session) -> None:
    key, _ = apikeys.add(session, " portal ", Role.READ, **BY)
    assert key == apikeys.get(session, "portal")


def test_no_other_text_finds_a_key(session: Session) -> None:
    key, secret = apikeys.add(session, "portal", Role.READ, **BY)
    [digest] = session.scalars(select(ApiKey.c.digest))

    for wrong in ("", secret[:-1], secret.swapcase(), f"{secret} ", digest, f"{secret}\n", "ü"):
        assert apikeys.find(session, wrong) is None
    assert apikeys.find(session, secret) == key


def test_two_secrets_are_valid_after_a_rotation_and_never_three(session: Session) -> None:
    _, first = apikeys.add(session, "portal", Role.READ, **BY)
    _, other = apikeys.add(session, "other", Role.READ, **BY)

    def valid() -> list[bool]:
        return [apikeys.find(session, secret) is not None for secret in secrets]

    secrets = [first, apikeys.rotate(session, "portal", **BY)[1]]
    assert valid() == [True, True]
    secrets.append(apikeys.rotate(session, "portal", **BY)[1])
    assert valid() == [False, True, True]
    apikeys.end_rotation(session, "portal", **BY)
    assert valid() == [False, False, True]
    apikeys.rotate(session, "other", **BY)
    assert apikeys.find(session, other)


def test_a_revoked_key_is_known_and_has_an_obstacle(session: Session) -> None:
    _, first = apikeys.add(session, "portal", Role.READ, **BY)
    _, second = apikeys.rotate(session, "portal", **BY)

    apikeys.revoke(session, "portal", **BY)

    assert apikeys.find(session, first) is None
    found = apikeys.find(session, second)
    assert found
    assert found.obstacle("192.0.2.1", NOW) == "revoked"
    assert apikeys.exist(session)
    with pytest.raises(ConflictError, match="revoked"):
        apikeys.rotate(session, "portal", **BY)
    with pytest.raises(ConflictError, match="perhaps a revoked one"):
        apikeys.add(session, "portal", Role.ADMIN, **BY)


@pytest.mark.parametrize(
    ("client", "days", "obstacle"),
    [
        ("192.0.2.7", 0, ""),
        ("2001:db8::1", 0, ""),
        ("192.0.3.7", 0, "not valid from this address"),
        ("unknown", 0, "not valid from this address"),
        ("192.0.2.7", 1, "expired"),
    ],
)
def test_a_key_is_for_some_networks_and_some_time(
    session: Session, client: str, days: int, obstacle: str
) -> None:
    networks = ("192.0.2.0/24", "2001:db8::/32")
    until = NOW + timedelta(1)
    key, _ = apikeys.add(session, "portal", Role.READ, networks=networks, valid_until=until, **BY)
    assert key.obstacle(client, NOW + timedelta(days)) == obstacle


def test_the_day_of_the_last_use_is_kept(session: Session) -> None:
    key, secret = apikeys.add(session, "portal", Role.READ, **BY)

    for hours, day in ((0, 30), (1, 30), (12, 1), (11, 1)):
        apikeys.note_use(session, key, NOW + timedelta(hours=hours))
        found = apikeys.find(session, secret)
        assert found
        assert found.used_on
        assert found.used_on.day == day
        key = found


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "x" * 61},
        {"domains": ("*.example.com",)},
        {"networks": ("192.0.2.1/24",)},
        {"networks": ("everywhere",)},
    ],
)
def test_what_a_column_cannot_hold_is_refused(session: Session, values: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        apikeys.add(session, **({"name": "a", "role": Role.READ} | values | BY))
    assert not apikeys.exist(session)


@pytest.mark.parametrize(
    ("column", "value"), [("role", "root"), ("networks", "0.0.0.0/33"), ("domains", "*")]
)
def test_a_row_that_cannot_be_read_is_no_key(session: Session, column: str, value: str) -> None:
    _, secret = apikeys.add(session, "portal", Role.READ, **BY)
    session.execute(text(f"UPDATE api_key SET {column} = '{value}'"))
    with pytest.raises(BadRecordError) as raised:
        apikeys.find(session, secret)
    assert f"table api_key, id 1: {column}" in str(raised.value.cause)


def test_acts_on_keys_stand_in_the_audit_without_secrets(session: Session) -> None:
    before = len(list(audit.entries(session)))
    secrets = [apikeys.add(session, "portal", Role.READ, provider=1, **BY)[1]]
    secrets.append(apikeys.rotate(session, "portal", **BY)[1])
    apikeys.end_rotation(session, "portal", **BY)
    apikeys.revoke(session, "portal", **BY)

    entries = list(audit.entries(session))[before:]

    assert [(entry.actor, entry.action, entry.kind, entry.name) for entry in entries] == [
        ("user:alice", action, "key", "portal") for action in ("add", "rotate", "set", "revoke")
    ]
    assert entries[0].details["after"]["provider"] == 1
    assert not any(secret in repr(entries) for secret in secrets)


def test_a_provider_with_a_key_cannot_be_deleted(session: Session) -> None:
    changes = Changes(session, "user:alice", now=NOW)
    provider = changes.add("provider", {"name": "Reseller"}).id
    apikeys.add(session, "reseller", Role.WRITE, provider=provider, **BY)

    with pytest.raises(ConflictError, match=r"is in use: 1 key \(reseller\)"):
        changes.delete("provider", provider)
    apikeys.revoke(session, "reseller", **BY)
    changes.delete("provider", provider)


def test_a_purge_revokes_keys_of_providers_only(session: Session) -> None:
    apikeys.add(session, "reseller", Role.WRITE, provider=1, **BY)
    apikeys.add(session, "portal", Role.WRITE, **BY)

    Changes(session, "user:alice", now=NOW).purge()

    found = {key.name: key.is_revoked for key in apikeys.all_keys(session)}
    assert found == {"reseller": True, "portal": False}


def test_a_key_that_does_not_exist_is_an_error(session: Session) -> None:
    for act in (apikeys.rotate, apikeys.end_rotation, apikeys.revoke):
        with pytest.raises(UnknownKeyError):
            act(session, "portal", **BY)


def test_a_key_for_a_provider_that_was_deleted_meanwhile_is_not_made(session: Session) -> None:
    """It waits until the transaction that deletes the provider has ended."""
    provider = Changes(session, "user:alice", now=NOW).add("provider", {"name": "Reseller"}).id
    session.commit()
    changes = Changes(session, "user:alice", now=NOW)
    changes.delete("provider", provider)
    uri = session.engine.url.render_as_string(hide_password=False)

    def make() -> str:
        with open_session(uri) as other:
            try:
                apikeys.add(other, "reseller", Role.WRITE, provider=provider, **BY)
            except BadRequestError as error:
                return str(error)
        return "made"

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(make)
        with pytest.raises(TimeoutError):
            made.result(0.3)
        session.commit()
        assert made.result(30) == f"provider: expected the id of a provider, found {provider}"


# The command


@pytest.mark.usefixtures("example")
def test_a_bad_row_is_left_out_of_the_list_and_revoked(
    env: dict[str, str], execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bad", "good"):
        automx("apikey", "add", name, "--role", "read", env=env)
    execute("UPDATE api_key SET networks = 'all' WHERE name = 'bad'")
    listed = attempt("apikey", "list", env=env)
    assert listed.returncode == 0
    assert "table api_key, id 1: networks" in caplog.text
    assert listed.stdout.splitlines()[1].startswith("good ")
    assert json.loads(automx("apikey", "revoke", "bad", "--json", env=env)) == {
        "name": "bad",
        "revoked": True,
    }


@pytest.mark.usefixtures("example")
def test_an_administrator_makes_rotates_and_revokes_a_key(env: dict[str, str]) -> None:
    made = automx("apikey", "add", "portal", "--role", "write", "--provider", "example", env=env)
    assert re.fullmatch(r"Made the key portal. It is shown only now:\n\nautomx_\w{40}\n", made)
    rotated = json.loads(automx("apikey", "rotate", "portal", "--json", env=env))
    assert KEY_FORM.fullmatch(rotated.pop("key"))
    listed = json.loads(automx("apikey", "list", "--json", env=env))
    assert listed == [rotated]
    assert (rotated["provider"], rotated["rotated"]) == (1, True)
    assert "valid, the key before as well" in automx("apikey", "list", env=env)
    assert automx("apikey", "rotate", "portal", "--end", env=env) == (
        "Only the last key of portal is valid now.\n"
    )
    assert automx("apikey", "revoke", "portal", env=env) == "Revoked the key portal.\n"
    assert automx("apikey", "list", env=env) == (
        "Name    Role   Scope       From      State    Last used\n"
        "portal  write  provider 1  anywhere  revoked  never\n"
    )


@pytest.mark.usefixtures("example")
def test_a_key_for_domains_and_networks_is_made_in_json(env: dict[str, str]) -> None:
    options = ["--domain", "EXAMPLE.com", "--domain", "new.example", "--from", "192.0.2.0/24"]
    result = attempt(
        *("apikey", "add", "portal", "--role", "read", *options, "--until", "2099-12-31", "--json"),
        env=env,
    )
    assert result.stderr == "automx: the domain new.example is not in the database yet\n"
    document = json.loads(result.stdout)
    assert document["domains"] == ["example.com", "new.example"]
    assert (document["from"], document["until"]) == (["192.0.2.0/24"], "2099-12-31T23:59:59Z")
    assert KEY_FORM.fullmatch(document["key"])


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--provider", "Nobody"], "There is no provider Nobody."),
        (["--until", "2020-01-01"], "'2020-01-01' is past"),
        (
            ["--from", "example.com"],
            'expected a network such as "192.0.2.0/24", found "example.com".',
        ),
        (["--domain", "*.example.com"], "'*.example.com': the domain name is not valid"),
    ],
)
def test_a_wrong_option_makes_no_key(env: dict[str, str], options: list[str], said: str) -> None:
    result = attempt("apikey", "add", "portal", "--role", "read", *options, env=env)
    assert result.returncode != 0
    assert said in result.stderr
    assert automx("apikey", "list", env=env).startswith("There are no keys yet")
