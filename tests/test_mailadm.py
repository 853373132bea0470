"""Tests of automx.accounts.mailadm and automx import-mailadm: mailadm's database, taken over."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from automx.accounts import accounts, tokens
from automx.accounts.mailadm import Report, settings, take_over
from automx.accounts.mailadmfile import read
from automx.backends import Backends
from automx.config import AccountSettings, load
from automx.database import Session, create_engine, open_session
from automx.errors import BadRequestError, ConflictError, ForbiddenError, UnknownDomainError
from automx.seed import populate
from automx.seeddocument import SAMPLE
from tests.commandline import attempt, automx
from tests.databases import engine_uri
from tests.mailcow import Domain, running_mailcow
from tests.processes import running, serving, wait_until

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
DAY = 86400
NEVER = sys.maxsize

# The tables as the versions of mailadm make them, and what "mailadm init" writes.
TOKENS = """
CREATE TABLE tokens (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, expiry TEXT NOT NULL,
    prefix TEXT, maxuse INTEGER default 50, usecount INTEGER default 0);
CREATE TABLE config (name TEXT PRIMARY KEY, value TEXT);
"""
USERS = {
    "0.10": """CREATE TABLE users (addr TEXT PRIMARY KEY, hash_pw TEXT NOT NULL DEFAULT '{X}x',
        homedir TEXT NOT NULL DEFAULT '/home', date INTEGER, ttl INTEGER, token_name TEXT NOT NULL,
        FOREIGN KEY (token_name) REFERENCES tokens (name))""",
    "1.0": """CREATE TABLE users (addr TEXT PRIMARY KEY, date INTEGER, ttl INTEGER,
        token_name TEXT NOT NULL, FOREIGN KEY (token_name) REFERENCES tokens (name))""",
    "later": """CREATE TABLE users (addr TEXT PRIMARY KEY, date INTEGER, ttl INTEGER,
        token_name TEXT NOT NULL, warned INTEGER default 0,
        FOREIGN KEY (token_name) REFERENCES tokens (name))""",
}
CONFIG = {
    "dbversion": "1",
    "mail_domain": "example.com",
    "web_endpoint": "https://mail.example.com/new_email/",
    "mailcow_endpoint": "https://mailcow.example.com/api/v1/",
    "mailcow_token": "932848-324B2E-787E98",
    "admingrpid": "12",
}
OLD_CONFIG = {
    "dbversion": "1",
    "mail_domain": "example.com",
    "web_endpoint": "https://mail.example.com/new_email",
    "vmail_user": "vmail",
    "path_virtual_mailboxes": "/home/mailadm/virtual_mailboxes",
}

ONE_DAY = ("oneday", "1d_r84EW3N8hEKk", "1d", "tmp.", 50, 3)

Row = Sequence[object]


def mailadm_database(
    path: Path,
    *,
    version: str = "1.0",
    config: dict[str, str] = CONFIG,
    old_tokens: Sequence[Row] = (ONE_DAY,),
    users: Sequence[Row] = (),
) -> Path:
    """Write a database as a version of mailadm does; users are (addr, date, ttl, token_name)."""
    with closing(sqlite3.connect(path)) as connection, connection:
        if version != "0.10":
            connection.execute("PRAGMA journal_mode=wal")
        connection.executescript(TOKENS + USERS[version])
        connection.executemany("INSERT INTO config VALUES (?, ?)", config.items())
        connection.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", old_tokens)
        connection.executemany(
            "INSERT INTO users (addr, date, ttl, token_name) VALUES (?, ?, ?, ?)", users
        )
    return path


def at(moment: datetime) -> int:
    return int(moment.timestamp())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The path of a database of mailadm that a test writes."""
    return tmp_path / "mailadm.db"


@contextlib.contextmanager
def opened(db_uri: str) -> Iterator[Session]:
    """Yield a session in a database that is to know example.com."""
    engine = create_engine(db_uri)
    with Session(engine) as session:
        populate(session, SAMPLE)
        session.commit()
        yield session
    engine.dispose()


@pytest.fixture
def session(migrated_sqlite: str) -> Iterator[Session]:
    with opened(migrated_sqlite) as session:
        yield session


def taken(session: Session, path: Path, **options: Any) -> Report:
    report = take_over(session, read(path), now=NOW, **options)
    session.commit()
    return report


def token_rows(session: Session) -> list[dict[str, object]]:
    loaded = [asdict(token) for token in tokens.all_tokens(session)]
    return [{key: token[key] for key in token if key != "domain_row"} for token in loaded]


def account_rows(session: Session) -> list[dict[str, object]]:
    rows = [asdict(account) for account in accounts.all_accounts(session)]
    for row in rows:
        assert len(row.pop("mark")) == (32 if row["backend"] == "mailcow" else 16)
        del row["id"], row["token_id"]
    return rows


def of_token(**fields: object) -> dict[str, object]:
    """Return the row of the token ONE_DAY, with other fields."""
    return {
        "id": 1,
        "name": "oneday",
        "token": "1d_r84EW3N8hEKk",
        "domain": "example.com",
        "prefix": "tmp.",
        "address": None,
        "expiry": "1d",
        "maxuse": 50,
        "usecount": 3,
        "valid_until": None,
        "is_revoked": False,
        "backend": "mailcow",
        "spare_active": False,
        "created_at": NOW,
    } | fields


def of_account(address: str, **fields: object) -> dict[str, object]:
    return {
        "address": address,
        "backend": "mailcow",
        "state": "active",
        "created_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(hours=23),
        "changed_at": NOW,
        "warned_at": None,
        "token": "oneday",
    } | fields


HOUR_AGO = at(NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    ("version", "config", "backend"),
    [("0.10", OLD_CONFIG, "command"), ("1.0", CONFIG, None), ("later", CONFIG, None)],
)
def test_tokens_and_users_of_every_version_are_taken_over(
    version: str, config: dict[str, str], backend: str | None, any_migrated_uri: str, old: Path
) -> None:
    users = [
        ("tmp.2x7ab@example.com", HOUR_AGO, DAY, "oneday"),
        ("Tmp.Forever@Example.COM", HOUR_AGO, NEVER, "forever"),
    ]
    forever = ("forever", "never_s", "never", "", 7, 0)
    mailadm_database(
        old, version=version, config=config, old_tokens=[ONE_DAY, forever], users=users
    )
    has = {"backend": backend or "mailcow"}
    with opened(engine_uri(any_migrated_uri)) as session:
        report = taken(session, old, backend=backend)
        assert token_rows(session) == [
            of_token(
                id=2, name="forever", token="never_s", expiry="never", prefix="", maxuse=7,
                usecount=0, **has,
            ),
            of_token(**has),
        ]  # fmt: skip
        assert account_rows(session) == [
            of_account("tmp.2x7ab@example.com", **has),
            of_account("tmp.forever@example.com", expires_at=None, token="forever", **has),
        ]
    assert (report.tokens.added, report.accounts.added) == (2, 2)
    assert [note for note in report.notes if "mail servers take the passwords" not in note] == []
    assert len(report.notes) == (version == "0.10")


def test_a_printed_qr_code_makes_accounts_until_it_is_used_up(session: Session, old: Path) -> None:
    mailadm_database(old, old_tokens=[("few", "1d_few", "1d", "few.", 3, 2)])
    taken(session, old, backend="none")
    backends = Backends(AccountSettings())
    made = accounts.create(session, tokens.find(session, "1d_few"), backends, now=NOW)
    assert made.address.startswith("few.")
    assert made.address.endswith("@example.com")
    with pytest.raises(ForbiddenError, match="as often as it may be"):
        accounts.create(session, tokens.find(session, "1d_few"), backends, now=NOW)


def test_repeating_it_adds_only_what_is_new_and_never_counts_less(
    session: Session, old: Path
) -> None:
    other = ("other", "1w_o", "1w", "o.", 50, 9)
    mailadm_database(
        old, old_tokens=[ONE_DAY, other], users=[("tmp.a@example.com", HOUR_AGO, DAY, "oneday")]
    )
    taken(session, old)
    tokens.edit(session, "oneday", {"expiry": "2w", "prefix": "new.", "maxuse": 5})
    tokens.edit(session, "other", {"is_revoked": True})
    session.commit()
    before = account_rows(session)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("UPDATE tokens SET usecount = 4 WHERE name = 'oneday'")
        connection.execute("UPDATE tokens SET usecount = 0 WHERE name = 'other'")
        connection.execute("UPDATE users SET ttl = 1")
        connection.execute("INSERT INTO users VALUES ('tmp.b@example.com', ?, 60, 'other')", [1])
    report = taken(session, old)
    assert (report.tokens.added, report.tokens.present, report.raised) == (0, 2, ["oneday"])
    assert (report.accounts.added, report.accounts.present) == (1, 1)
    assert token_rows(session) == [
        of_token(expiry="2w", prefix="new.", maxuse=5, usecount=4),
        of_token(
            id=2, name="other", token="1w_o", expiry="1w", prefix="o.", usecount=9, is_revoked=True
        ),
    ]
    assert account_rows(session)[:1] == before
    assert taken(session, old).notes == []


def test_another_token_of_the_same_name_is_left_alone(session: Session, old: Path) -> None:
    tokens.add(session, "oneday", "example.com", now=NOW, token="ours", prefix="ours.", maxuse=1)
    session.commit()
    before = token_rows(session)
    mailadm_database(old, users=[("tmp.a@example.com", HOUR_AGO, DAY, "oneday")])
    report = taken(session, old)
    assert report.tokens.left_out == ["oneday"]
    assert report.notes == [
        "The token oneday is left out: there is another one of this name here.",
        (
            "1 of the accounts are of tokens that are not here: they belong to the token"
            " mailadm-import, which makes none."
        ),
    ]
    assert [row for row in token_rows(session) if row["name"] == "oneday"] == before
    with pytest.raises(ForbiddenError, match="not known"):
        tokens.find(session, "1d_r84EW3N8hEKk")


def test_a_token_that_is_here_by_another_name_is_known_by_its_secret(
    session: Session, old: Path
) -> None:
    secret = "1d_r84EW3N8hEKk"
    tokens.add(session, "day", "example.com", now=NOW, token=secret, usecount=1)
    mailadm_database(old, users=[("tmp.a@example.com", HOUR_AGO, DAY, "oneday")])
    report = taken(session, old)
    assert report.notes == ["The token oneday is called day here."]
    assert [(token.name, token.usecount) for token in tokens.all_tokens(session)] == [("day", 3)]
    assert account_rows(session) == [of_account("tmp.a@example.com", token="day")]


@pytest.mark.parametrize(
    ("row", "fields", "notes"),
    [
        ({"expiry": "1s"}, {"expiry": "30s"}, ["its expiry is 30s here, not 1s"]),
        ({"expiry": "0d"}, {"expiry": "30s"}, ["its expiry is 30s here, not 0d"]),
        ({"expiry": "-1d"}, {"expiry": "30s"}, ["its expiry is 30s here, not -1d"]),
        ({"expiry": "+1_0d"}, {"expiry": "10d"}, ["its expiry is 10d here, not +1_0d"]),
        ({"expiry": "26d"}, {"expiry": "26d"}, []),
        ({"expiry": "27d"}, {"expiry": "27d", "spare_active": True}, [...]),
        ({"expiry": "10y"}, {"expiry": "10y", "spare_active": True}, [...]),
        (
            {"expiry": "11y"},
            {"expiry": "never", "spare_active": True},
            ["its expiry is never here, not 11y", ...],
        ),
        (
            {"expiry": f"{'9' * 30}d"},
            {"expiry": "never", "spare_active": True},
            [f"its expiry is never here, not {'9' * 30}d", ...],
        ),
        (
            {"expiry": "6m"},
            {"is_revoked": True},
            [
                ("mailadm 1.0 does not understand the expiry '6m' either; it is revoked until"
                " automx token mod oneday --expiry EXPIRY --unrevoke gives it one")
            ],
        ),
        ({"prefix": None}, {"prefix": ""}, []),
        ({"prefix": ".-Tmp..x y"}, {"prefix": "tmp.xy"}, [
            "its prefix is 'tmp.xy' here, not '.-Tmp..x y'"
        ]),
        ({"maxuse": None}, {"maxuse": 50}, []),
        ({"maxuse": 10**12, "usecount": 10**12}, {"maxuse": 10**9, "usecount": 10**9}, []),
        (
            {"maxuse": 0},
            {"maxuse": 3, "is_revoked": True},
            ["maxuse 0 makes no account in mailadm: it is revoked here"],
        ),
        ({"usecount": None}, {"usecount": 0}, []),
        ({"token": "a b"}, None, []),
        ({"token": "Ü"}, None, []),
        ({"token": b"\xff"}, None, []),
    ],
)  # fmt: skip
def test_an_odd_token_gets_the_nearest_terms_that_are_possible(
    row: dict[str, object],
    fields: dict[str, object] | None,
    notes: list[Any],
    session: Session,
    old: Path,
) -> None:
    columns = ("name", "token", "expiry", "prefix", "maxuse", "usecount")
    values = dict(zip(columns, ONE_DAY, strict=True)) | row
    mailadm_database(old, old_tokens=[tuple(values.values())])
    report = taken(session, old)
    spared = (
        "People who still log in keep the accounts of tokens with an expiry of 27d or more: oneday."
        " Here, a log-in within the whole expiry is enough; mailadm wants one in its last quarter."
        " mailcow does not tell of log-ins by SOGo."
    )
    if fields is None:
        assert token_rows(session) == []
        assert report.tokens.left_out == ["oneday"]
        assert report.notes == [
            (
                "The token oneday is left out: token: expected 1 to 255 ASCII characters without"
                " blanks, found another value, which is not shown."
            )
        ]
    else:
        assert token_rows(session) == [of_token(**fields)]
        expected = [spared if note is ... else f"The token oneday: {note}." for note in notes]
        assert report.notes == expected


def test_names_that_cannot_be_here_are_changed_and_take_no_others_name(
    session: Session, old: Path
) -> None:
    names = ["one day", "one\t\x00day", "one-day", "x" * 70, "x" * 64, "", "\ufffd"]
    rows = [(name, f"secret{i}", "1d", "", 50, 0) for i, name in enumerate(names)]
    mailadm_database(old, old_tokens=rows)
    report = taken(session, old)
    found = {row["token"]: row["name"] for row in token_rows(session)}
    assert found == {
        "secret0": "one-day-2",
        "secret1": "one-day-3",
        "secret2": "one-day",
        "secret3": "x" * 60 + "-2",
        "secret4": "x" * 64,
        "secret5": "mailadm",
        "secret6": "\ufffd",
    }
    assert len(report.notes) == 4
    assert taken(session, old).tokens.present == len(names)
    assert {row["token"]: row["name"] for row in token_rows(session)} == found


def test_two_tokens_of_one_secret_are_one(session: Session, old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection:
        script = TOKENS.replace(" UNIQUE", "") + USERS["1.0"]
        connection.executescript(script)
        connection.executemany("INSERT INTO config VALUES (?, ?)", CONFIG.items())
        rows = [("a", "same", "1d", "a.", 5, 1), ("b", "same", "1w", "b.", 9, 4)]
        connection.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO users VALUES ('b.x@example.com', ?, 9, 'b')", [HOUR_AGO])
        connection.commit()
    report = taken(session, old)
    assert report.notes == ["The token b is called a here."]
    assert token_rows(session) == [
        of_token(name="a", token="same", prefix="a.", maxuse=5, usecount=4)
    ]
    assert [account.token for account in accounts.all_accounts(session)] == ["a"]


def test_users_whose_token_is_gone_belong_to_one_that_makes_none(
    session: Session, old: Path
) -> None:
    users = [
        ("short@example.com", HOUR_AGO, DAY, "gone"),
        ("long@example.com", HOUR_AGO, 27 * DAY, "gone"),
        ("endless@example.com", HOUR_AGO, NEVER, "gone"),
    ]
    mailadm_database(old, old_tokens=[], users=users)
    report = taken(session, old)
    assert report.notes == [
        (
            "2 of the accounts are of tokens that are not here: they belong to the token"
            " mailadm-import, which makes none."
        ),
        (
            "1 of the accounts are of tokens that are not here: they belong to the token"
            " mailadm-import-spared, which makes none."
        ),
        "1 of the accounts have no end, as in mailadm, though their token has.",
    ]
    assert [(account["address"], account["token"]) for account in account_rows(session)] == [
        ("short@example.com", "mailadm-import"),
        ("long@example.com", "mailadm-import-spared"),
        ("endless@example.com", "mailadm-import"),
    ]
    found = tokens.all_tokens(session)
    assert [(token.name, token.is_revoked, token.spare_active) for token in found] == [
        ("mailadm-import", True, False),
        ("mailadm-import-spared", True, True),
    ]
    for token in found:
        with pytest.raises(ForbiddenError):
            token.check_usable(NOW)
    assert taken(session, old).notes == []
    assert tokens.all_tokens(session) == found


@pytest.mark.parametrize(
    ("date", "ttl", "created_at", "expires_at"),
    [
        (HOUR_AGO, 60, NOW - timedelta(hours=1), NOW - timedelta(minutes=59)),
        (HOUR_AGO, 2**63 - 1, NOW - timedelta(hours=1), None),
        (HOUR_AGO, 2**31 - 1, NOW - timedelta(hours=1), None),  # "never" on 32 bits
        (HOUR_AGO, None, NOW - timedelta(hours=1), None),  # an expiry it did not understand
        (HOUR_AGO, -5, NOW - timedelta(hours=1), NOW - timedelta(hours=1)),
        (None, 60, NOW, None),
        (2**62, 60, NOW, NOW + timedelta(seconds=60)),
        (253402300799, 60, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), None),
        (-1, 60, datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 1, tzinfo=UTC)),
        ("yesterday", "soon", NOW, None),
    ],
)
def test_an_account_ends_when_mailadm_would_end_it(
    date: object,
    ttl: object,
    created_at: datetime,
    expires_at: datetime | None,
    session: Session,
    old: Path,
) -> None:
    mailadm_database(old, users=[("tmp.a@example.com", date, ttl, "oneday")])
    report = taken(session, old)
    assert account_rows(session) == [
        of_account("tmp.a@example.com", created_at=created_at, expires_at=expires_at)
    ]
    assert report.expired == (expires_at is not None and expires_at <= NOW)
    endless = ["1 of the accounts have no end, as in mailadm, though their token has."]
    assert report.notes == ([] if expires_at else endless)


def test_accounts_that_mailadm_would_spare_are_told_if_their_token_does_not(
    session: Session, old: Path
) -> None:
    mailadm_database(old, users=[("tmp.a@example.com", HOUR_AGO, 30 * DAY, "oneday")])
    assert taken(session, old).notes == [
        (
            "1 of the accounts of the token oneday last so long that mailadm keeps people who still"
            " log in; the token does not, until automx token mod oneday --spare-active changes it."
        )
    ]


def test_addresses_that_cannot_be_taken_over_are_told(session: Session, old: Path) -> None:
    addresses = [
        "a@example.com",
        "A@example.com",
        "b@evilexample.com",
        "c@example.net",
        "d@example.net",
        "no address",
        "",
        b"\xff@example.com",
        "o'hara@example.com",
        "e@example.com",
    ]
    mailadm_database(old, users=[(address, HOUR_AGO, DAY, "oneday") for address in addresses])
    report = taken(session, old)
    assert report.notes == [
        "The user 'no address' is left out: that is no address.",
        "The user '' is left out: that is no address.",
        "The user '\ufffd@example.com' is left out: that is no address.",
        (
            """The user "o'hara@example.com" is left out: expected a mail address such as"""
            ' "guest@example.com", with letters, digits and . _ + - before the @, found'
            """ "o'hara@example.com"."""
        ),
        (
            "1 of the users are left out: they are of evilexample.com. If automx is to have them,"
            " repeat this with --domain evilexample.com."
        ),
        (
            "2 of the users are left out: they are of example.net. If automx is to have them,"
            " repeat this with --domain example.net."
        ),
    ]
    assert report.accounts.left_out == [
        "b@evilexample.com",
        "c@example.net",
        "d@example.net",
        "no address",
        "",
        "\ufffd@example.com",
        "o'hara@example.com",
    ]
    report = taken(session, old, domain="EXAMPLE.net")
    assert [account["address"] for account in account_rows(session)] == [
        "a@example.com",
        "e@example.com",
        "c@example.net",
        "d@example.net",
    ]
    assert (report.accounts.added, report.accounts.present) == (2, 3)


def test_many_users_are_taken_over(session: Session, old: Path) -> None:
    users = [(f"tmp.{i}@example.com", HOUR_AGO, DAY, "oneday") for i in range(1234)]
    mailadm_database(old, users=users)
    assert taken(session, old).accounts.added == 1234
    assert taken(session, old).accounts.present == 1234
    assert len(account_rows(session)) == 1234


def test_an_account_that_somebody_makes_at_the_same_moment_stops_it(
    migrated_postgresql: str, old: Path
) -> None:
    users = [(f"tmp.{i}@example.com", HOUR_AGO, DAY, "oneday") for i in range(3)]
    mailadm_database(old, users=users)
    uri = engine_uri(migrated_postgresql)
    with opened(uri) as session:
        theirs = tokens.add(session, "theirs", "example.com", now=NOW, address=str(users[1][0]))
        session.commit()
        backends = Backends(AccountSettings())
        made: list[str] = []

        def make_theirs(_: object, __: object, statement: str, *___: object) -> None:
            if statement.startswith("INSERT INTO account") and not made:
                made.append(statement)
                with open_session(uri) as other:
                    accounts.create(other, theirs, backends, now=NOW)

        event.listen(session.engine, "before_cursor_execute", make_theirs)
        tokens.add(session, "kept", "example.com", now=NOW)
        with pytest.raises(ConflictError) as caught:
            take_over(session, read(old), now=NOW)
        session.commit()
        assert str(caught.value) == (
            "The accounts were changed by another program meanwhile: nothing was imported. Please"
            " run this again."
        )
        assert [token.name for token in tokens.all_tokens(session)] == ["kept", "theirs"]
        report = taken(session, old)
        assert (report.accounts.added, report.accounts.present) == (2, 1)


def test_a_domain_that_automx_does_not_know_stops_it(session: Session, old: Path) -> None:
    mailadm_database(old, config=CONFIG | {"mail_domain": "new.example"})
    with pytest.raises(UnknownDomainError) as caught:
        take_over(session, read(old), now=NOW)
    assert str(caught.value) == (
        "The domain new.example is not in the database. Add it and its mail servers first, by"
        " automx seed FILE or by SQL, so that Delta Chat finds them; then run this again."
    )


@pytest.mark.parametrize(
    ("missing", "options", "text"),
    [
        (
            "mail_domain",
            {},
            "mailadm's database does not name its mail domain: say --domain DOMAIN.",
        ),
        (
            "mailcow_endpoint",
            {},
            (
                "mailadm's database names no mailcow: say the backend of the mailboxes, such as"
                " --backend command."
            ),
        ),
        ("mail_domain", {"domain": "example.com"}, None),
        ("mailcow_endpoint", {"backend": "command"}, None),
    ],
)
def test_what_the_database_does_not_tell_has_to_be_said(
    missing: str, options: dict[str, str], text: str | None, session: Session, old: Path
) -> None:
    config = {name: value for name, value in CONFIG.items() if name != missing}
    mailadm_database(old, config=config)
    if text is None:
        assert taken(session, old, **options).tokens.added == 1
    else:
        with pytest.raises(BadRequestError) as caught:
            take_over(session, read(old), now=NOW)
        assert str(caught.value) == text


def test_settings_that_cannot_be_used_are_told(session: Session, old: Path) -> None:
    config = {"web_endpoint": "http://mail.example.com/", "mailcow_endpoint": "mailcow\nloglevel=x"}
    mailadm_database(old, config=CONFIG | config)
    content = read(old)
    report = take_over(session, content, now=NOW)
    assert settings(content, report) == {
        "account_backend": "mailcow",
        "mailcow_token": "932848-324B2E-787E98",
    }
    assert report.notes == [
        (
            "The setting web_endpoint must be an https URL such as"
            " https://example.org/new_email, without query: mailadm's is not."
        ),
        (
            "The setting mailcow_endpoint must be a URL such as"
            " https://mailcow.example.org/api/v1, without query: mailadm's is not."
        ),
    ]


def test_what_mailadm_has_not_moved_from_its_log_is_read(old: Path) -> None:
    mailadm_database(old)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("INSERT INTO users VALUES ('a@example.com', 1, 1, 'oneday')")
        connection.commit()
        assert old.with_name("mailadm.db-wal").stat().st_size > 0
        before = old.read_bytes()
        assert [user.address for user in read(old).users] == ["a@example.com"]
        connection.execute("INSERT INTO users VALUES ('b@example.com', 1, 1, 'oneday')")
        assert [user.address for user in read(old).users] == ["a@example.com"]  # not committed
        assert old.read_bytes() == before


# What mailadm does for each new account, without an end.
WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("PRAGMA synchronous=off")
for number in range(5000, 10**9):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO users VALUES (?, 1, 1, 'oneday')", [f"{number}@example.com"])
    connection.execute("UPDATE tokens SET usecount = usecount + 1")
    connection.execute("COMMIT")
    time.sleep(0.001)  # without a log, who never rests lets nobody read
"""


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_mailadm_that_is_writing_is_read_at_one_moment(
    journal_mode: str, old: Path, tmp_path: Path
) -> None:
    users = [(f"{number}@example.com", 1, 1, "oneday") for number in range(5000)]
    mailadm_database(old, old_tokens=[("oneday", "s", "1d", "", 10**9, 5000)], users=users)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
    command = [sys.executable, "-c", WRITER, str(old)]
    with running(command, tmp_path / "log", ready=lambda: True):
        wait_until(lambda: len(read(old).users) > 5000, "the next account")
        for _ in range(30):
            content = read(old)
            assert len(content.users) == content.tokens[0].usecount


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody until the block ends, if we are root: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder where everybody may read, and write only as long as the mode is not changed."""
    with tempfile.TemporaryDirectory(prefix="automx-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_database_in_a_folder_where_we_may_not_write_is_read(closed_folder: Path) -> None:
    path = mailadm_database(closed_folder / "mailadm.db", users=[("a@example.com", 1, 1, "oneday")])
    assert not path.with_name("mailadm.db-wal").exists()
    closed_folder.chmod(0o555)
    with unprivileged():
        assert [user.address for user in read(path).users] == ["a@example.com"]
    path.chmod(0)
    with unprivileged(), pytest.raises(BadRequestError) as caught:
        read(path)
    assert str(caught.value) == f"{path} cannot be read: Permission denied"


def test_a_log_that_cannot_be_used_is_not_passed_over(closed_folder: Path, old: Path) -> None:
    mailadm_database(old)
    path = closed_folder / "mailadm.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("INSERT INTO users VALUES ('a@example.com', 1, 1, 'oneday')")
        connection.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{old}{suffix}", f"{path}{suffix}")
    closed_folder.chmod(0o555)
    with unprivileged(), pytest.raises(BadRequestError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path} cannot be read without mailadm.db-wal: copy both into a folder where this user may"
        " write"
    )


CUT_OFF = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=5")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE users SET ttl = 7")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_change_that_was_cut_off_is_not_read(old: Path) -> None:
    users = [(f"tmp.{i}@example.com", HOUR_AGO, DAY, "oneday") for i in range(5000)]
    mailadm_database(old, version="0.10", users=users)
    subprocess.run([sys.executable, "-c", CUT_OFF, old], check=False)
    with pytest.raises(BadRequestError) as caught:
        read(old)
    assert str(caught.value) == (
        f"{old} holds half of a change: let mailadm list-tokens put it in order"
    )


def damaged(path: Path, name: str) -> None:
    """Write a database in which the first page of a table or an index is not what it should be."""
    users = [(f"tmp.{i}@example.com", HOUR_AGO, DAY, "oneday") for i in range(500)]
    mailadm_database(path, version="0.10", users=users)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        [(page,)] = connection.execute(query, [name]).fetchall()
        [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = b"\xa5" * size
    path.write_bytes(content)


def damaged_names(path: Path) -> None:
    """Write a database whose errors hold bytes that are no text."""
    mailadm_database(path, version="1.0")
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", b"CREATE \xff\xfeBLE"))


def other_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE config (name, value)")
        connection.execute("CREATE TABLE users (addr, password)")
        connection.execute("CREATE TABLE tokens (name, token, expiry, prefix, maxuse, usecount)")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_text("[automx]\n" * 200), "cannot be read: file is not a data"),
        (
            lambda path: path.write_bytes(b""),
            "is no database of mailadm 0.10 or later: no such table: config",
        ),
        (other_tables, "is no database of mailadm 0.10 or later: no such column: date"),
        (
            lambda path: damaged(path, "users"),
            "cannot be read: database disk image is malformed",
        ),
        (lambda path: damaged(path, "sqlite_autoindex_users_1"), "is damaged: "),
        (damaged_names, "is damaged: it holds a name that is no text"),
    ],
    ids=["missing", "folder", "text", "empty", "other tables", "damaged", "damaged index", "names"],
)  # fmt: skip
def test_a_file_that_is_not_mailadms_is_told_in_one_line(
    write: Any, text: str, database: Path, old: Path
) -> None:
    write(old)
    env = environment(database)
    before = database.read_bytes()
    result = attempt("import-mailadm", old, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"automx: {old} ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert database.read_bytes() == before


def environment(database: Path) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


REPORT = """\
Tokens of example.com: 2 added, 0 here before, 0 left out
Accounts of example.com: 1 added, 0 here before, 1 left out

- The token one hour: it is called one-hour here: names have no blanks, none of ? # / % \\, \
and 64 characters at most.
- The user 'nobody' is left out: that is no address.
- 1 of the accounts have expired: automx prune --dry-run prints what will be done with them.
- automx disables and deletes an imported mailbox only if it has mailadm's tag in mailcow, such as \
mailadm:TOKEN. Without it, the mailbox stays when its account ends.

Settings for automx.conf:

account_backend = mailcow
web_endpoint = https://mail.example.com/new_email
mailcow_endpoint = https://mailcow.example.com/api/v1

mailcow's key: --mailcow-token-file FILE writes it into a file.
"""


def test_the_command_tells_what_it_did_and_with_dry_run_what_it_would_do(
    database: Path, old: Path
) -> None:
    env = environment(database)
    automx("seed", "--sample", env=env)
    mailadm_database(
        old,
        old_tokens=[ONE_DAY, ("one hour", "1h_s", "1h", "h.", 50, 0)],
        users=[("nobody", 1, 1, "oneday"), ("tmp.a@example.com", 1, 1, "one hour")],
    )
    before = database.read_bytes()
    dry = automx("import-mailadm", old, "--dry-run", env=env)
    assert dry == f"This is what would be done; nothing was changed.\n\n{REPORT}"
    assert database.read_bytes() == before
    assert automx("import-mailadm", old, env=env) == REPORT
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM token ORDER BY name").fetchall() == [
            ("one-hour",),
            ("oneday",),
        ]
    again = automx("import-mailadm", old, "--json", env=env)
    assert json.loads(again) == {
        "dry_run": False,
        "domain": "example.com",
        "backend": "mailcow",
        "tokens": {"added": 0, "present": 2, "left_out": [], "raised": []},
        "accounts": {"added": 0, "present": 1, "left_out": ["nobody"], "expired": 0},
        "notes": [
            "The token one hour is called one-hour here.",
            "The user 'nobody' is left out: that is no address.",
        ],
        "settings": {
            "account_backend": "mailcow",
            "web_endpoint": "https://mail.example.com/new_email",
            "mailcow_endpoint": "https://mailcow.example.com/api/v1",
        },
    }


def test_the_settings_it_prints_work_and_hold_no_key(
    database: Path, old: Path, tmp_path: Path
) -> None:
    env = environment(database)
    automx("seed", "--sample", env=env)
    mailadm_database(old)
    key = tmp_path / "key"
    automx("import-mailadm", old, "--mailcow-token-file", key, "--dry-run", env=env)
    assert not key.exists()
    printed = automx("import-mailadm", old, "--mailcow-token-file", key, env=env)
    assert "932848" not in printed
    assert key.stat().st_mode & 0o777 == 0o600
    lines = printed.partition("Settings for automx.conf:\n")[2]
    conf = tmp_path / "automx.conf"
    conf.write_text(f"[automx]\n{lines}")
    found = load({"AUTOMX_CONF": str(conf)})
    assert (found.accounts.backend, found.web_endpoint, found.accounts.mailcow_endpoint) == (
        "mailcow",
        "https://mail.example.com/new_email",
        "https://mailcow.example.com/api/v1",
    )
    assert found.accounts.mailcow_token == "932848-324B2E-787E98"
    again = automx("import-mailadm", old, "--mailcow-token-file", key, env=env)
    assert again.partition("Settings for automx.conf:\n")[2] == lines


def test_imported_accounts_end_in_mailcow_as_mailadm_would_end_them(
    database: Path, old: Path, tmp_path: Path
) -> None:
    env = environment(database)
    automx("seed", "--sample", env=env)
    now = int(time.time())
    users = [
        ("tmp.new@example.com", now, DAY, "oneday"),
        ("tmp.over@example.com", now - 2 * DAY, DAY, "oneday"),
        ("tmp.gone@example.com", now - 2 * DAY, DAY, "oneday"),  # somebody has deleted it
        ("y.used@example.com", now - 400 * DAY, 365 * DAY, "year"),
        ("y.left@example.com", now - 800 * DAY, 365 * DAY, "year"),
        ("z.used@example.com", now - 400 * DAY, 365 * DAY, "deleted"),
        ("z.over@example.com", now - 400 * DAY, DAY, "deleted"),
    ]
    last_logins = {"y.used": now - DAY, "z.used": now - DAY, "y.left": now - 500 * DAY}
    with running_mailcow() as mailcow:
        mailcow.domains["example.com"] = Domain()
        for address, _, _, token in users:
            login = last_logins.get(address.partition("@")[0], 0)
            mailcow.add(address, tags=(f"mailadm:{token}",), last_imap_login=str(login))
        del mailcow.mailboxes["tmp.gone@example.com"]
        config = {"mailcow_endpoint": f"{mailcow.url}/", "mailcow_token": mailcow.key}
        year = ("year", "1y_s", "1y", "y.", 50, 2)
        mailadm_database(old, config=CONFIG | config, old_tokens=[ONE_DAY, year], users=users)
        key = tmp_path / "key"
        printed = automx("import-mailadm", old, "--mailcow-token-file", key, env=env)
        conf = tmp_path / "automx.conf"
        conf.write_text("[automx]\n" + printed.partition("Settings for automx.conf:\n")[2])
        env["AUTOMX_CONF"] = str(conf)
        pruned = automx("prune", env=env)
        assert sorted(mailcow.mailboxes) == [
            "tmp.new@example.com",
            "y.used@example.com",
            "z.used@example.com",
        ]
        listed = json.loads(automx("account", "list", "--json", env=env))
        assert [account["address"] for account in listed] == [
            "tmp.new@example.com",
            "y.used@example.com",
            "z.used@example.com",
        ]
        assert pruned.endswith("2 prolonged, 4 deleted.\n")
        assert automx("prune", env=env) == "Nothing to do.\n"


def test_an_imported_mailbox_that_was_made_anew_for_somebody_else_stays(
    database: Path, old: Path, tmp_path: Path
) -> None:
    env = environment(database)
    automx("seed", "--sample", env=env)
    now = int(time.time())
    long = "a token whose name is longer than any column for a mark"
    names = {"hers": "", "other": "oneday", "long": long, "gone": "gone"}
    users = [
        ("tmp.hers@example.com", now - 2 * DAY, DAY, "oneday"),
        ("tmp.other@example.com", now - 2 * DAY, DAY, "gone"),
        ("tmp.long@example.com", now - 2 * DAY, DAY, long),
        ("tmp.gone@example.com", now - 2 * DAY, DAY, "gone"),
    ]
    with running_mailcow() as mailcow:
        mailcow.domains["example.com"] = Domain()
        for name, token in names.items():
            mailcow.add(f"tmp.{name}@example.com", tags=(f"mailadm:{token}",) if token else ())
        config = {"mailcow_endpoint": f"{mailcow.url}/", "mailcow_token": mailcow.key}
        old_tokens = [ONE_DAY, (long, "1d_long", "1d", "l.", 50, 2)]
        mailadm_database(old, config=CONFIG | config, old_tokens=old_tokens, users=users)
        automx("import-mailadm", old, env=env)
        env |= {"AUTOMX_MAILCOW_ENDPOINT": mailcow.url, "AUTOMX_MAILCOW_TOKEN": mailcow.key}

        dry = automx("prune", "--dry-run", env=env)
        assert dry.endswith("Would delete 2, forget 2.\n")
        assert automx("prune", env=env).endswith("2 deleted, 2 forgotten.\n")

        assert sorted(mailcow.mailboxes) == ["tmp.hers@example.com", "tmp.other@example.com"]
        assert json.loads(automx("account", "list", "--json", env=env)) == []


def test_another_file_is_not_overwritten_by_the_key_and_nothing_is_imported(
    database: Path, old: Path, tmp_path: Path
) -> None:
    env = environment(database)
    automx("seed", "--sample", env=env)
    mailadm_database(old)
    other = tmp_path / "automx.conf"
    other.write_bytes(b"\xff[automx]\n")
    result = attempt("import-mailadm", old, "--mailcow-token-file", other, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"automx: {other} exists already, and holds something else.\n"
    assert other.read_bytes() == b"\xff[automx]\n"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM token").fetchone() == (0,)


def test_printed_qr_codes_lead_to_accounts_as_before(
    database: Path, old: Path, tmp_path: Path
) -> None:
    env = environment(database) | {"AUTOMX_WEB_ENDPOINT": "https://mail.example.com/join/"}
    automx("seed", "--sample", env=env)
    mailadm_database(old, config=CONFIG | {"web_endpoint": "https://mail.example.com/join/"})
    automx("import-mailadm", old, "--backend", "none", env=env)
    # As mailadm has them printed: web_endpoint as it is, and behind nginx, which cut the path off.
    query = "?t=1d_r84EW3N8hEKk&n=oneday"
    with serving(env, tmp_path / "log") as server:
        for path in ("/join/", "/join", "/", "/new_email"):
            request = urllib.request.Request(f"{server.url}{path}{query}", method="POST")
            with urllib.request.urlopen(request) as answer:
                made = json.load(answer)
            assert re.fullmatch(r"tmp\.\w{5}@example\.com", made["email"])
            assert (made["expiry"], made["ttl"]) == ("1d", DAY)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT usecount FROM token").fetchone() == (7,)
