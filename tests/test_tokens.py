"""Tokens on three engines: made, found by their secret, changed, withdrawn, deleted."""

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from automx import seed
from automx.accounts import tokens
from automx.accounts.randomwords import new_token
from automx.accounts.tokens import Obstacle, Token
from automx.database import Session, open_session
from automx.errors import (
    AddressError,
    AutomxError,
    BadRecordError,
    BadRequestError,
    ConflictError,
    DisabledDomainError,
    ForbiddenError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.seeddocument import SAMPLE
from tests.mailboxes import NOW, dump, rows
from tests.tokens import (
    DISABLE,
    ENABLE,
    EXHAUSTED,
    EXPIRED,
    MISSING,
    OFF,
    REVOKED,
    UNKNOWN,
    add,
)

MAXUSE = "maxuse: expected a whole number from 0 (no limit) to 1000000000"


def reason(token: Token, now: datetime = NOW) -> str | None:
    """Return what a person reads who scans a token, None if it makes an account."""
    try:
        token.check_usable(now)
    except ForbiddenError as error:
        return str(error)
    return None


# Made


def test_a_token_has_mailadms_defaults(session: Session) -> None:
    token = add(session)

    assert token == Token(
        id=token.id,
        name="party",
        token=token.token,
        domain="example.com",
        prefix="tmp.",
        address=None,
        expiry="1d",
        maxuse=50,
        usecount=0,
        valid_until=None,
        is_revoked=False,
        backend="",
        spare_active=False,
        created_at=NOW,
    )
    assert token.lifetime == timedelta(days=1)
    assert tokens.get(session, "party") == token
    assert tokens.find(session, token.token) == token
    assert token.token not in repr(token)


def test_a_token_keeps_what_it_was_given(session: Session) -> None:
    token = add(
        session,
        "Straße:42",
        "EXAMPLE.net",
        expiry=" NEVER ",
        prefix="guest-",
        maxuse=0,
        usecount=7,
        token="1w_Geheim!",
        valid_until=NOW + timedelta(days=9),
        backend="mailcow",
        spare_active=True,
    )

    assert token == Token(
        id=token.id,
        name="Straße:42",
        token="1w_Geheim!",
        domain="example.net",
        prefix="guest-",
        address=None,
        expiry="never",
        maxuse=0,
        usecount=7,
        valid_until=NOW + timedelta(days=9),
        is_revoked=False,
        backend="mailcow",
        spare_active=True,
        created_at=NOW,
    )
    assert token.lifetime is None
    assert tokens.find(session, "1w_Geheim!") == token


def test_adding_a_token_leaves_the_commit_to_the_caller(session: Session) -> None:
    tokens.add(session, "party", "example.com", now=NOW)
    session.rollback()

    assert dump(session)["token"] == []


def test_secrets_are_long_and_have_no_look_alikes() -> None:
    secrets = {new_token() for _ in range(1000)}

    assert len(secrets) == 1000
    assert all(re.fullmatch("[2345789acdefghjkmnpqrstuvwxyz]{24}", secret) for secret in secrets)
    assert len(set("".join(secrets))) == 29


def test_addresses_are_made_of_prefix_letters_and_domain(session: Session) -> None:
    token = add(session)
    bare = add(session, "bare", prefix="")

    letters = "[2345789acdefghjkmnpqrstuvwxyz]"
    for _ in range(500):
        assert re.fullmatch(rf"tmp\.{letters}{{5}}@example\.com", tokens.new_address(token))
        assert re.fullmatch(rf"{letters}{{9}}@example\.com", tokens.new_address(bare))
    assert len({tokens.new_address(bare) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("name", ["a", "x" * 64, "Ünïcode", "a&b:c;d'e\"f", "-", "0"])
def test_a_name_can_be_anything_that_can_be_seen(session: Session, name: str) -> None:
    assert add(session, name) == tokens.get(session, name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "a/b",
        "a?b",
        "a#b",
        "50%",
        "\\",
        "two words",
        "tab\t",
        "null\0",
        "\u200b",
        "\udc80",
    ],
)
def test_other_names_are_refused(session: Session, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        add(session, name)
    assert str(caught.value).startswith(
        "name: expected a text of 1 to 64 characters without blanks and ? # / % \\, found "
    )
    assert dump(session)["token"] == []


def test_names_that_differ_in_case_or_accent_are_two(session: Session) -> None:
    names = ["party", "Party", "pàrty", "PARTY"]
    made = {name: add(session, name) for name in names}

    assert {name: tokens.get(session, name) for name in names} == made
    assert sorted(token.name for token in tokens.all_tokens(session)) == sorted(names)


def test_a_name_or_secret_that_exists_is_a_conflict(session: Session) -> None:
    first = add(session, token="secret")
    before = dump(session)

    for name, secret in (("party", "other"), ("other", "secret"), ("party", None)):
        with pytest.raises(ConflictError) as caught:
            add(session, name, token=secret)
        assert str(caught.value) == f"There is a token {name} already, or one of its secret."

    assert dump(session) == before
    assert tokens.all_tokens(session) == [first]


def test_a_conflict_leaves_what_the_caller_has_done(session: Session) -> None:
    first = tokens.add(session, "first", "example.com", now=NOW)

    with pytest.raises(ConflictError):
        tokens.add(session, "first", "example.com", now=NOW)
    second = tokens.add(session, "second", "example.com", now=NOW)
    session.commit()

    assert tokens.all_tokens(session) == [first, second]


def test_a_new_token_does_not_get_the_accounts_of_one_that_was_deleted_by_sql(
    database: Path,
) -> None:
    with open_session(f"sqlite:///{database}") as session:
        seed.populate(session, SAMPLE)
        session.execute(
            sa.text(
                "INSERT INTO account VALUES (1, 'x@a.test', 67, '', '', '', '', NULL, '', NULL)"
            )
        )
        token = add(session)
        assert token.id == 68
        assert tokens.number_of_accounts(session, token.id) == 0


def test_an_unknown_field_is_refused(session: Session) -> None:
    with pytest.raises(BadRequestError) as caught:
        add(session, color="red")
    assert str(caught.value) == "A token has no field color."


@pytest.mark.parametrize("secret", ["", "x" * 256, "two words", "schlüssel", "tab\t", "\x7f"])
def test_a_secret_that_no_url_could_carry_is_refused(session: Session, secret: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        add(session, token=secret)
    assert str(caught.value) == (
        "token: expected 1 to 255 ASCII characters without blanks,"
        " found another value, which is not shown"
    )


def test_a_secret_can_be_as_short_and_as_long_as_mailadms(session: Session) -> None:
    for number, secret in enumerate(("!", "~" * 255, "1d_r84EW3N8hEKk", "%&?#+=/")):
        assert add(session, f"token{number}", token=secret) == tokens.find(session, secret)


# Their fields


@pytest.mark.parametrize("expiry", ["30s", "12h", "1d", "2w", "1y", "10y", "never", "3650d"])
def test_an_expiry_is_a_duration_or_never(session: Session, expiry: str) -> None:
    assert add(session, expiry=expiry).expiry == expiry


@pytest.mark.parametrize("expiry", [" 1D ", "NEVER", "1d\n"])
def test_an_expiry_is_kept_in_lower_case_without_blanks(session: Session, expiry: str) -> None:
    assert add(session, expiry=expiry).expiry == expiry.strip().lower()


@pytest.mark.parametrize(
    "expiry",
    ["", "1", "-1d", "1.5d", "1month", "0s", "1s", "29s", "11y", "3651d", "101y"],
)
def test_other_expiries_are_refused_when_the_token_is_made_or_changed(
    session: Session, expiry: str
) -> None:
    text = (
        "expiry: expected a number and one of s, m, h, d, w, y, from 30s to 10y, such as 12h or 2w,"
        f' or never, found "{expiry}"'
    )
    with pytest.raises(BadRequestError) as caught:
        add(session, expiry=expiry)
    assert str(caught.value) == text
    add(session)
    before = dump(session)
    with pytest.raises(BadRequestError) as caught:
        tokens.edit(session, "party", {"expiry": expiry})
    assert str(caught.value) == text
    assert dump(session) == before


@pytest.mark.parametrize("prefix", ["", "tmp.", "a", "0_+-.", "x" * 40, "_a", "+a"])
def test_a_prefix_is_the_beginning_of_a_name(session: Session, prefix: str) -> None:
    assert add(session, prefix=prefix).prefix == prefix


@pytest.mark.parametrize(
    "prefix", [".a", "-a", "a..b", "x..", "x" * 41, "Tmp.", "ü", "a b", "a@", "%"]
)
def test_other_prefixes_are_refused(session: Session, prefix: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        add(session, prefix=prefix)
    assert str(caught.value) == (
        "prefix: expected up to 40 lower-case letters, digits and . _ + -, with no dot or hyphen at"
        f' the beginning and no two dots in a row, found "{prefix}"'
    )


@pytest.mark.parametrize("maxuse", [-1, 1_000_000_001])
def test_maxuse_has_bounds(session: Session, maxuse: int) -> None:
    with pytest.raises(BadRequestError) as caught:
        add(session, maxuse=maxuse)
    assert str(caught.value) == (f"{MAXUSE}, found {maxuse}")
    assert add(session, maxuse=1_000_000_000).maxuse == 1_000_000_000


def test_a_backend_is_one_that_exists_or_that_of_the_settings(session: Session) -> None:
    for backend in ("", "none", "mailcow", "command"):
        assert add(session, f"with-{backend}", backend=backend).backend == backend
    with pytest.raises(BadRequestError) as caught:
        add(session, backend="dovecot")
    assert str(caught.value) == 'backend: expected one of none, mailcow, command, found "dovecot"'


def test_a_token_for_one_mailbox_is_for_it_alone(session: Session) -> None:
    for columns in ({"maxuse": 50}, {"prefix": "tmp."}):
        with pytest.raises(BadRequestError, match="a token for one mailbox has neither prefix nor"):
            add(session, "alice", address="Alice.Smith@Example.COM", **columns)
    token = add(session, "alice", address="Alice.Smith@Example.COM", maxuse=1, prefix="")

    assert (token.address, token.prefix, token.maxuse) == ("alice.smith@example.com", "", 1)
    assert tokens.new_address(token) == "alice.smith@example.com"
    for changes in ({"maxuse": 2}, {"prefix": "x"}):
        with pytest.raises(BadRequestError, match="a token for one mailbox has neither prefix nor"):
            tokens.edit(session, "alice", changes)


def test_the_address_of_a_token_must_be_one_of_its_domain(session: Session) -> None:
    for address in ("alice@example.net", "alice@sub.example.com"):
        with pytest.raises(AddressError) as caught:
            add(session, address=address)
        assert str(caught.value) == "The address must be one of example.com."
    for address in ("alice", "alice@", ""):
        with pytest.raises(BadRequestError) as refused:
            add(session, address=address)
        assert str(refused.value) == (
            'address: expected a mail address such as "guest@example.com", with letters, digits and'
            f' . _ + - before the @, or null, found "{address}"'
        )


# Domains


def test_a_token_belongs_to_a_domain_of_the_database(session: Session) -> None:
    for name in ("example.com", "EXAMPLE.COM.", "example.net"):
        token = add(session, f"of-{name}", name)
        assert token.domain == name.lower().rstrip(".")
    for name in ("example.org", "sub.example.com", "com"):
        with pytest.raises(UnknownDomainError) as caught:
            add(session, domain=name)
        assert str(caught.value) == (
            f"The domain {name} is not in the database: add it first, so that Delta Chat finds its"
            " mail servers."
        )
    for name in ("", "*", "*.example.com", "a b", "-"):
        with pytest.raises(BadRequestError) as refused:
            add(session, domain=name)
        assert str(refused.value) == (
            f'domain: expected a domain name such as "example.com", found "{name}"'
        )


def test_a_wildcard_knows_the_domains_that_it_stands_for(session: Session) -> None:
    session.execute(sa.text("INSERT INTO domain VALUES (3, '*.example.org', 1, NULL)"))
    session.commit()

    assert add(session, domain="chat.example.org").domain == "chat.example.org"
    with pytest.raises(UnknownDomainError):
        add(session, "other", "example.org")


def test_a_domain_with_umlauts_is_known_in_both_spellings(session: Session) -> None:
    session.execute(sa.text("INSERT INTO domain VALUES (3, 'müller.example', 1, NULL)"))
    session.execute(sa.text("INSERT INTO domain VALUES (4, 'xn--bcher-kva.example', 1, NULL)"))
    session.commit()

    for name, a_label in (
        ("MÜLLER.example", "xn--mller-kva.example"),
        ("bücher.example", "xn--bcher-kva.example"),
    ):
        token = add(session, name, name)
        assert token.domain == a_label
        assert tokens.new_address(token).endswith(f"@{a_label}")


def test_a_token_outlives_a_domain_that_is_purged(session: Session) -> None:
    token = add(session)
    seed.purge(session)
    session.commit()

    assert tokens.find(session, token.token) == token
    assert tokens.edit(session, "party", {"maxuse": 7}) == replace(token, maxuse=7)


# Found


@pytest.mark.parametrize(
    "secret",
    [
        *("Secret", "secret ", " secret", "secre", "secrett", "sécret", "secret\0", "%", "_ecret"),
        *("' OR 1=1 --", "x" * 100_000, "\ud800", "sec\udcffret", "party", "2bb80d53"),
    ],
)
def test_only_the_very_secret_finds_a_token(session: Session, secret: str) -> None:
    add(session, token="secret")

    with pytest.raises(ForbiddenError) as caught:
        tokens.find(session, secret)
    assert str(caught.value) == UNKNOWN


def test_a_secret_with_half_a_character_is_not_taken_for_one_with_a_question_mark(
    session: Session,
) -> None:
    add(session, token="what?")

    with pytest.raises(ForbiddenError):
        tokens.find(session, "what\ud800")


def test_a_missing_secret_has_its_own_reason(session: Session) -> None:
    add(session)

    with pytest.raises(ForbiddenError) as caught:
        tokens.find(session, "")
    assert str(caught.value) == MISSING


def test_the_database_is_asked_for_the_digest_and_never_for_the_secret(
    session: Session, engine: sa.Engine
) -> None:
    token = add(session, token="secret-of-the-party")
    asked: list[object] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *values: asked.append(values[2:4]))

    tokens.find(session, token.token)

    queries = [each for each in asked if "SELECT" in str(each)]
    assert len(queries) == 2  # the other one is for the domain
    assert "secret-of-the-party" not in str(asked)


def test_a_row_whose_secret_is_another_one_is_not_found(session: Session) -> None:
    add(session, token="secret")
    session.execute(sa.text("UPDATE token SET token = 'secret2'"))
    session.commit()

    for secret in ("secret", "secret2"):
        with pytest.raises(ForbiddenError) as caught:
            tokens.find(session, secret)
        assert str(caught.value) == UNKNOWN


def test_all_tokens_are_listed_by_name(session: Session) -> None:
    made = [add(session, name) for name in ("cellar", "attic", "kitchen")]

    assert tokens.all_tokens(session) == sorted(made, key=lambda token: token.name)


# Usable


def test_each_reason_why_a_token_makes_no_account_has_its_own_text(session: Session) -> None:
    token = add(session, maxuse=3, valid_until=NOW + timedelta(seconds=1))

    assert reason(token) is None
    assert reason(replace(token, usecount=2)) is None
    assert reason(replace(token, usecount=3)) == EXHAUSTED
    assert reason(replace(token, usecount=4)) == EXHAUSTED
    assert reason(replace(token, usecount=10**6, maxuse=0)) is None
    assert reason(token, NOW + timedelta(seconds=1)) == EXPIRED
    assert reason(replace(token, is_revoked=True)) == REVOKED
    assert reason(replace(token, is_revoked=True, usecount=3), NOW + timedelta(days=1)) == REVOKED
    assert reason(replace(token, usecount=3), NOW + timedelta(days=1)) == EXPIRED


def test_the_database_claims_a_use_if_and_only_if_there_is_no_obstacle(session: Session) -> None:
    moments = (None, *(NOW + timedelta(seconds=seconds) for seconds in (-1, 0, 1)))
    obstacles = set()
    for is_revoked, valid_until, maxuse in product((True, False), moments, (0, 1, 2)):
        name = f"{is_revoked}:{valid_until and valid_until.second}:{maxuse}"
        token = add(
            session,
            name,
            usecount=1,
            is_revoked=is_revoked,
            valid_until=valid_until,
            maxuse=maxuse,
        )
        for switch in (None, DISABLE, ENABLE):
            if switch is not None:
                session.execute(sa.text(switch))
            found = tokens.get(session, name)
            session.execute(tokens.claim(token, NOW))
            is_claimed = tokens.get(session, name).usecount == found.usecount + 1
            assert is_claimed == (found.obstacle(NOW) is None), name
            obstacles.add(found.obstacle(NOW))
    assert obstacles == {None, *Obstacle}


@pytest.mark.parametrize("row", ["example.org", "EXAMPLE.org", "*.org", "*"])
def test_a_token_makes_no_account_while_its_domain_is_off(session: Session, row: str) -> None:
    session.execute(sa.text(f"INSERT INTO domain VALUES (3, '{row}', 1, NULL)"))
    token = add(session, domain="example.org")
    assert reason(token) is None
    session.execute(sa.text(DISABLE.replace("1", "3", 1)))
    assert [token.obstacle(NOW) for token in tokens.all_tokens(session)] == [Obstacle.OFF]
    found = tokens.find(session, token.token)
    assert reason(found) == OFF
    assert reason(replace(found, is_revoked=True)) == OFF
    assert tokens.without_domain(session) == []
    with pytest.raises(DisabledDomainError) as caught:
        add(session, "other", "example.org")
    by = f", by the row {row}" if "*" in row else ""
    assert caught.value.reason == f"example.org has been off since 2026-11-30{by}"
    session.execute(sa.text(ENABLE.replace("1", "3", 1)))
    assert reason(tokens.find(session, token.token)) is None


# Changed


def test_a_change_leaves_the_count_of_uses_and_all_else_as_it_was(session: Session) -> None:
    token = add(session, usecount=17)

    changes = {
        "expiry": "2w",
        "prefix": "x.",
        "maxuse": 99,
        "valid_until": NOW,
        "backend": "none",
        "spare_active": True,
        "is_revoked": True,
    }
    for name, value in changes.items():
        changed = tokens.edit(session, "party", {name: value})
        session.commit()
        token = replace(token, **{name: value})  # type: ignore[arg-type] # the test knows the names
        assert changed == token == tokens.get(session, "party")
    assert token.usecount == 17
    undone = tokens.edit(session, "party", {"is_revoked": False, "valid_until": None})
    assert undone == replace(token, is_revoked=False, valid_until=None)


def test_a_change_of_nothing_changes_nothing(session: Session) -> None:
    token = add(session)

    assert tokens.edit(session, "party", {}) == token


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"usecount": 0}, "The field usecount of a token cannot be changed."),
        ({"token": "x"}, "The field token of a token cannot be changed."),
        ({"address": "a@example.com"}, "The field address of a token cannot be changed."),
        ({"maxuse": "many"}, f'{MAXUSE}, found "many"'),
        ({"maxuse": -1}, f"{MAXUSE}, found -1"),
        ({"is_revoked": None}, "is_revoked: expected true or false, found null"),
        ({"backend": "x"}, 'backend: expected one of none, mailcow, command, found "x"'),
        (
            {"spare_active": "?", "maxuse": -1},
            f'spare_active: expected true or false, found "?"; {MAXUSE}, found -1',
        ),
    ],
)
def test_a_change_that_cannot_be_is_refused(
    session: Session, changes: dict[str, object], text: str
) -> None:
    add(session)
    before = dump(session)

    with pytest.raises(BadRequestError) as caught:
        tokens.edit(session, "party", changes)

    assert str(caught.value) == text
    assert dump(session) == before


def test_an_unknown_token_is_named(session: Session) -> None:
    add(session)

    def no_token(error: AutomxError) -> bool:
        return str(error) == "There is no token Party."

    with pytest.raises(UnknownTokenError, check=no_token):
        tokens.get(session, "Party")
    with pytest.raises(UnknownTokenError, check=no_token):
        tokens.edit(session, "Party", {"maxuse": 1})
    with pytest.raises(UnknownTokenError, check=no_token):
        tokens.remove(session, "Party")


# Deleted

ACCOUNT = (
    "INSERT INTO account (id, address, token_id, mark, backend, state, created_at, changed_at)"
    " VALUES ({0}, 'a{0}@example.com', {1}, 'f00d', 'none', 'active', '2026-11-21 10:00:00',"
    " '2026-11-21 10:00:00')"
)


def test_a_token_without_accounts_can_be_deleted(session: Session) -> None:
    add(session, "other")
    token = add(session)

    tokens.remove(session, "party")
    session.commit()

    assert [row["name"] for row in rows(session, "token")] == ["other"]
    with pytest.raises(ForbiddenError):
        tokens.find(session, token.token)


@pytest.mark.parametrize(("number", "accounts"), [(1, "1 account"), (2, "2 accounts")])
def test_a_token_with_accounts_cannot_be_deleted(
    session: Session, number: int, accounts: str
) -> None:
    token = add(session)
    for account in range(number):
        session.execute(sa.text(ACCOUNT.format(account + 1, token.id)))
    session.commit()
    before = dump(session)

    with pytest.raises(ConflictError) as caught:
        tokens.remove(session, "party")
    session.commit()

    assert str(caught.value) == (
        f"The token party has {accounts}: delete them first, or revoke the token, which keeps them."
    )
    assert dump(session) == before


def test_a_token_that_cannot_be_deleted_leaves_what_the_caller_has_done(session: Session) -> None:
    token = add(session)
    session.execute(sa.text(ACCOUNT.format(1, token.id)))
    session.commit()
    other = tokens.add(session, "other", "example.com", now=NOW)

    with pytest.raises(ConflictError):
        tokens.remove(session, "party")
    session.commit()

    assert tokens.all_tokens(session) == [other, token]


def test_a_token_cannot_be_deleted_while_an_account_is_made(
    session: Session, engine: sa.Engine
) -> None:
    token = add(session)
    made: list[bool] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def make_account(_: object, __: object, statement: str, *___: object) -> None:
        # On SQLite, no other program writes after the beginning of the transaction.
        last_moment = "BEGIN" if engine.dialect.name == "sqlite" else "DELETE FROM token"
        if statement.startswith(last_moment) and not made:
            made.append(True)
            with engine.begin() as other:
                other.execute(sa.text(ACCOUNT.format(1, token.id)))

    with pytest.raises(ConflictError, match="The token party has 1 account:"):
        tokens.remove(session, "party")
    session.commit()

    assert [row["token_id"] for row in rows(session, "account")] == [token.id]
    assert tokens.get(session, "party") == token


# Times


def test_moments_are_kept_in_utc_whatever_their_time_zone(session: Session) -> None:
    berlin = timezone(timedelta(hours=1))
    token = add(session, valid_until=datetime(2026, 12, 24, 18, 30, 5, 999_999, berlin))

    assert rows(session, "token")[0]["valid_until"] == datetime(2026, 12, 24, 17, 30, 5)  # noqa: DTZ001 - a column
    assert token.valid_until is not None
    assert token.valid_until.isoformat() == "2026-12-24T17:30:05+00:00"
    assert rows(session, "token")[0]["created_at"] == NOW.replace(tzinfo=None)


def test_a_moment_without_time_zone_is_refused(session: Session) -> None:
    with pytest.raises(BadRequestError) as caught:
        add(session, valid_until=NOW.replace(tzinfo=None))
    assert str(caught.value) == (
        'valid_until: expected a moment with its time zone, or null, found "2026-11-21 10:00:00"'
    )
    assert dump(session)["token"] == []


EXPIRY = (
    "expiry: expected a number and one of s, m, h, d, w, y, from 30s to 10y, such as 12h or 2w, or"
    ' never, found "1month"'
)


def test_a_row_that_cannot_be_read_is_named_and_hides_no_other(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = add(session, "bad"), add(session, "good")
    session.execute(sa.text("UPDATE token SET expiry = '1month' WHERE name = 'bad'"))
    cause = f"table token, id {bad.id}: {EXPIRY}"

    with pytest.raises(BadRecordError) as caught:
        tokens.get(session, "bad")
    assert caught.value.cause == cause
    with pytest.raises(BadRecordError):
        tokens.find(session, bad.token)
    with pytest.raises(BadRecordError):
        tokens.edit(session, "bad", {"maxuse": 1})
    assert tokens.all_tokens(session) == [good]
    assert caplog.messages == [f"{cause}; this row is left out"]
    tokens.remove(session, "bad")
    caplog.clear()
    assert tokens.all_tokens(session) == [good]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ("valid_until = 'soon'", "valid_until: expected a moment with its time zone, or null"),
        (
            "valid_until = 17",
            "valid_until: expected a moment with its time zone, or null, found 17",
        ),
        ("created_at = CAST(x'ff' AS TEXT)", "created_at: expected a moment with its time zone"),
        ("is_revoked = 'perhaps'", 'is_revoked: expected true or false, found "perhaps"'),
        ("maxuse = 'many'", "maxuse: expected a whole number"),
        ("domain = CAST(x'ff' AS TEXT)", "domain: expected a domain name"),
        ("prefix = char(27) || '[2J'", "prefix: expected up to 40"),
        ("name = 'a' || char(27) || '[2Jb'", "name: expected a text of 1 to 64"),
        ("token = CAST(x'73ff' AS TEXT)", "token: expected 1 to 255 ASCII characters"),
        ("backend = 'other'", "backend: expected one of"),
    ],
)
def test_whatever_sqlite_lets_into_a_row_is_named(
    database: Path, caplog: pytest.LogCaptureFixture, change: str, defect: str
) -> None:
    with open_session(f"sqlite:///{database}") as session:
        seed.populate(session, SAMPLE)
        add(session, "bad")
        good = add(session, "good")
        session.execute(sa.text(f"UPDATE token SET {change} WHERE name = 'bad'"))
        assert tokens.all_tokens(session) == [good]
    [message] = caplog.messages
    assert message.startswith(f"table token, id 1: {defect}")
    assert message.isprintable()


@pytest.mark.parametrize("text", ["2026-11-21 12:00:00+02:00", "2026-11-21T10:00:00Z"])
def test_a_moment_that_sql_wrote_with_a_time_zone_is_that_moment(database: Path, text: str) -> None:
    with open_session(f"sqlite:///{database}") as session:
        seed.populate(session, SAMPLE)
        add(session, "party")
        session.execute(sa.text(f"UPDATE token SET valid_until = '{text}'"))
        assert tokens.get(session, "party").valid_until == NOW
