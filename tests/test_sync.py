"""Synchronization of domains with a source: what is added, changed, disabled, removed."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from automx import audit, lookup
from automx.changes import Changes, stored
from automx.cli.terminal import printable
from automx.config import SourceSettings
from automx.config.values import Share
from automx.database import Session, create_engine
from automx.models import Domain
from automx.seed import populate
from automx.sources.found import Domains, SourceError, read
from automx.sync import Result, state, synchronize
from automx.sync.state import Outcome
from tests.databases import engine_uri

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DAY = timedelta(days=1)

# Two providers; "model.example" of the second one has a directory and a service.
ROWS: dict[str, Any] = {
    "version": 2,
    "providers": [{"id": 1, "name": "East"}, {"id": 2, "name": "West"}],
    "ldapservers": [{"id": 1, "name": "ldap.example", "search_base": "dc=example"}],
    "servers": [
        {"id": 1, "type": "imap", "name": "imap.east.example"},
        {"id": 2, "type": "smtp", "name": "smtp.east.example"},
        {"id": 3, "type": "imap", "name": "imap.west.example"},
        {"id": 1, "type": "caldav", "url": "https://dav.west.example/"},
    ],
    "domains": [
        {"id": 1, "name": "east.example", "provider": 1, "servers": [1, 2], "davservers": []},
        {
            "id": 2,
            "name": "model.example",
            "provider": 2,
            "servers": [3],
            "davservers": [1],
            "ldapserver_id": 1,
        },
    ],
}
EAST = (1, None, (1, 2), ())
WEST = (2, 1, (3,), (1,))
CHAIN = "c.example: its target b.example is an alias itself; it gets the servers of a.example"


@pytest.fixture
def session(database: Path) -> Iterator[Session]:
    """A session of SQLite, with the rows."""
    yield from filled(f"sqlite:///{database}")


@pytest.fixture
def any_session(any_migrated_uri: str) -> Iterator[Session]:
    """A session of each engine in turn, with the rows."""
    yield from filled(any_migrated_uri)


def filled(db_uri: str) -> Iterator[Session]:
    engine = create_engine(engine_uri(db_uri))
    with Session(engine) as session:
        populate(session, ROWS, now=NOW)
        session.commit()
        yield session
    engine.dispose()


def source(**settings: Any) -> SourceSettings:
    return SourceSettings(name="mail", type="file", file="/x", **{"provider": "East", **settings})


def domains(*records: str | dict[str, Any]) -> Callable[[], Domains]:
    """Return what reads a source; a text is the name of an active domain."""
    found = [{"domain": each} if isinstance(each, str) else each for each in records]
    return lambda: read(found)


def off(name: str) -> dict[str, Any]:
    return {"domain": name, "active": 0}


def alias(name: str, target: str, **more: Any) -> dict[str, Any]:
    return {"domain": name, "alias_of": target, **more}


def sync(session: Session, *records: Any, at: datetime = NOW, **options: Any) -> Result:
    """Synchronize; ``settings`` are those of the source."""
    settings = source(**options.pop("settings", {}))
    return synchronize(session, settings, domains(*records), now=at, **options)


def rows(session: Session) -> dict[str, tuple[Any, ...]]:
    """Return domain -> provider, directory, servers, services, and "off" or its origin."""
    session.rollback()
    items = dict(stored.items(session, "domain"))
    origins = stored.origins(session, "domain", list(items))
    found = {}
    for row_id, item in items.items():
        members = (item["provider"], item["ldapserver_id"], item["servers"], item["davservers"])
        is_off = ("off",) if item["disabled"] else ()
        found[item["name"]] = (*members, origins.get(row_id), *is_off)
    session.rollback()
    return found


def own(session: Session) -> dict[str, tuple[Any, ...]]:
    """Return the rows of the source, without their origin."""
    return {
        name: (*row[:4], *row[5:]) for name, row in rows(session).items() if row[4] == "source:mail"
    }


def problems(result: Result) -> list[str]:
    return [str(problem) for problem in result.plan.problems]


def switch(session: Session, name: str, disabled: bool, at: datetime = NOW) -> None:
    """Switch a domain on or off as an administrator does."""
    [row_id] = [i for i, item in stored.items(session, "domain") if item["name"] == name]
    session.rollback()
    changes = Changes(session, "user:root", now=at)
    changes.set("domain", row_id, {"disabled": disabled})
    changes.finish()
    session.commit()


# What is found.


def test_domains_of_a_source_become_rows_of_its_origin_and_author(session: Session) -> None:
    before = rows(session)
    result = sync(session, "One.Example", "müller.example", off("off.example"))
    assert result.outcome is Outcome.DONE
    assert own(session) == {
        "one.example": EAST,
        "xn--mller-kva.example": EAST,
        "off.example": (*EAST, "off"),
    }
    assert {name: rows(session)[name] for name in before} == before
    *_, entry = audit.entries(session)
    assert (entry.actor, entry.details["numbers"]) == ("source:mail", {"add": {"domain": 3}})
    assert lookup.knows(session, "one.example")
    assert not lookup.knows(session, "off.example")


def test_a_second_time_nothing_is_changed(session: Session) -> None:
    records = ("one.example", off("off.example"), alias("alias.example", "one.example"))
    assert sync(session, *records).plan
    number = len(list(audit.entries(session)))
    result = sync(session, *records, at=NOW + DAY)
    assert (bool(result.plan), result.outcome) == (False, Outcome.DONE)
    assert len(list(audit.entries(session))) == number


def test_rows_of_a_source_are_all_found_in_whatever_parts_they_are_read(
    any_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{letter}.example" for letter in "abcdefg"]
    records = [*names[1:], alias(names[0], names[1])]
    sync(any_session, *records)
    sync(any_session, *records[1:])  # one is switched off
    monkeypatch.setattr("automx.sync.rows._ROWS_AT_ONCE", 2)
    result = sync(any_session, *records[2:])
    assert [each.name for each in result.plan.plan.changed] == [names[2]]
    assert not sync(any_session, *records[2:]).plan


def test_a_renamed_domain_is_a_new_one_and_the_old_one_is_switched_off(session: Session) -> None:
    sync(session, "old.example", "other.example")
    sync(session, "new.example", "other.example")
    assert own(session) == {
        "old.example": (*EAST, "off"),
        "other.example": EAST,
        "new.example": EAST,
    }


@pytest.mark.parametrize(
    ("settings", "members"),
    [
        ({"provider": "East"}, EAST),
        ({"provider": "2"}, (2, None, (3,), (1,))),
        ({"provider": "", "like": "model.example"}, WEST),
        ({"provider": "East", "like": "model.example"}, (1, 1, (1, 2), ())),
        ({"servers": ("imap.west.example", "2")}, (1, None, (2, 3), ())),
        (
            {"services": ("https://dav.west.example/",), "directory": "ldap.example"},
            (1, 1, (1, 2), (1,)),
        ),
    ],
)
def test_new_domains_get_what_the_settings_say(
    session: Session, settings: dict[str, Any], members: tuple[Any, ...]
) -> None:
    sync(session, "one.example", settings=settings)
    assert own(session) == {"one.example": members}
    # What an administrator changes afterwards stays.
    changes = Changes(session, "user:root", now=NOW)
    changes.set("domain", 3, {"servers": [1]})
    changes.finish()
    session.commit()
    assert not sync(session, "one.example", settings=settings).plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"provider": ""}, "provider is missing: there is not exactly one provider"),
        ({"provider": "North"}, "provider: There is no provider North."),
        ({"servers": ("imap.north.example",)}, "servers: There is no mail server imap.north."),
        ({"like": "north.example"}, "like: There is no domain north.example."),
    ],
)
def test_settings_that_name_no_row_change_nothing(
    session: Session, settings: dict[str, Any], message: str
) -> None:
    before = rows(session)
    result = sync(session, "one.example", settings=settings)
    assert result.outcome is Outcome.FAILED
    assert result.message.startswith(f"[source.mail]: {message}")
    assert rows(session) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"servers": ("imap.north.example",)}, "servers: There is no mail server imap.north."),
        ({"like": "north.example"}, "like: There is no domain north.example."),
    ],
)
def test_settings_that_name_no_row_are_told_before_a_new_domain_needs_them(
    session: Session, settings: dict[str, Any], message: str
) -> None:
    sync(session, "one.example")
    result = sync(session, "one.example", settings=settings)
    assert (result.outcome, bool(result.plan)) == (Outcome.DONE, False)
    [warning] = result.plan.plan.warnings
    assert warning.startswith(f"new domains cannot be added: [source.mail]: {message}")
    # What the source says itself needs no settings.
    like = {"domain": "one.example", "like": "north.example"}
    assert sync(session, like, settings=settings).plan.plan.warnings == []


def test_a_source_can_say_the_provider_of_each_domain_and_change_it(session: Session) -> None:
    one, two = {"domain": "one.example", "provider": "West"}, {"domain": "two.example"}
    bad = {"domain": "bad.example", "provider": "North"}
    result = sync(session, one, two, bad)
    assert own(session) == {"one.example": (2, None, (3,), (1,)), "two.example": EAST}
    assert problems(result) == ["bad.example: There is no provider North."]
    sync(session, one | {"provider": "East"}, two | {"provider": 2})
    assert own(session) == {"one.example": EAST, "two.example": (2, None, (3,), (1,))}
    result = sync(session, one | {"provider": "North"}, two)
    assert problems(result) == ["one.example: There is no provider North."]
    assert not result.plan


# Aliases.


def test_aliases_follow_their_target(any_session: Session) -> None:
    sync(
        any_session,
        "one.example",
        alias("alias.example", "one.example"),
        alias("west.example", "MODEL.example"),
        {"domain": "like.example", "like": "model.example"},
    )
    assert own(any_session) == {
        "one.example": EAST,
        "alias.example": EAST,
        "west.example": WEST,
        "like.example": WEST,
    }
    sync(
        any_session,
        {"domain": "one.example", "provider": "West"},
        alias("alias.example", "one.example"),
        alias("west.example", "one.example"),
        {"domain": "like.example", "like": "east.example"},
    )
    west = (2, None, (3,), (1,))
    assert own(any_session) == {
        "one.example": west,
        "alias.example": west,
        "west.example": west,
        "like.example": EAST,
    }


@pytest.mark.parametrize(
    ("records", "expected", "said"),
    [
        (
            ["a.example", alias("b.example", "a.example"), alias("c.example", "b.example")],
            {"a.example": EAST, "b.example": EAST, "c.example": EAST},
            [CHAIN],
        ),
        (
            [alias("a.example", "b.example"), alias("b.example", "a.example")],
            {},
            [
                "a.example: it is an alias of itself: a.example -> b.example -> a.example",
                "b.example: it is an alias of itself: b.example -> a.example -> b.example",
            ],
        ),
        (
            [alias("a.example", "a.example"), "b.example"],
            {"b.example": EAST},
            ["a.example: it is an alias of itself: a.example -> a.example"],
        ),
        (
            [alias("a.example", "gone.example"), alias("b.example", "no name")],
            {},
            [
                "a.example: its target gone.example does not exist",
                "b.example: its target no name does not exist",
            ],
        ),
        (
            [off("a.example"), alias("b.example", "a.example")],
            {"a.example": (*EAST, "off"), "b.example": (*EAST, "off")},
            ["b.example: its target a.example is not active, so it is off as well"],
        ),
        (
            ["a.example", alias("b.example", "a.example", active="0")],
            {"a.example": EAST, "b.example": (*EAST, "off")},
            [],
        ),
        (
            [
                {"domain": "a.example", "like": "b.example"},
                {"domain": "b.example", "like": "a.example"},
            ],
            {},
            [
                "a.example: there is no domain b.example whose servers it could get",
                "b.example: there is no domain a.example whose servers it could get",
            ],
        ),
    ],
)
def test_odd_aliases_are_reported(
    session: Session, records: list[Any], expected: dict[str, Any], said: list[str]
) -> None:
    result = sync(session, *records)
    assert result.outcome is Outcome.DONE
    assert problems(result) == said
    assert own(session) == expected


def test_long_chains_are_reported(session: Session) -> None:
    names = [f"d{number}.example" for number in range(3_000)]
    for column in ("alias_of", "like"):
        links = [{"domain": a, column: b} for a, b in pairwise(names)]
        result = sync(session, *links, names[-1])
        assert result.outcome is Outcome.DONE
        assert len(result.plan.problems) >= len(names) - 20
        assert own(session)[names[-1]] == own(session)[names[-3]] == EAST


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("alias_of", "it leads to more than 16 aliases, one after the other"),
        ("like", "there is no domain d1.example whose servers it could get"),
    ],
)
def test_a_chain_of_sixteen_is_followed_and_no_longer_one(
    session: Session, column: str, said: str
) -> None:
    names = [f"d{number}.example" for number in range(18)]
    result = sync(session, *[{"domain": a, column: b} for a, b in pairwise(names)], names[-1])
    assert own(session) == dict.fromkeys(sorted(names[1:]), EAST)
    assert [text for text in problems(result) if text.startswith("d0.")] == [f"d0.example: {said}"]


def test_names_that_a_collation_holds_for_one_are_two(any_session: Session) -> None:
    sync(any_session, "muller.example", "müller.example", "MULLER.example")
    assert list(own(any_session)) == ["muller.example", "xn--mller-kva.example"]


def test_an_alias_is_off_as_long_as_its_target_is(session: Session) -> None:
    records = ["one.example", alias("alias.example", "one.example")]
    sync(session, *records)
    sync(session, off("one.example"), records[1])
    assert own(session)["alias.example"] == (*EAST, "off")
    sync(session, *records)
    assert own(session) == {"one.example": EAST, "alias.example": EAST}
    sync(session, records[1])
    assert {row[-1] for row in own(session).values()} == {"off"}


def test_aliases_of_a_domain_that_an_administrator_has_switched_off_are_off(
    session: Session,
) -> None:
    many = [alias(f"a{number}.example", "one.example") for number in range(5)]
    records = ["one.example", "two.example", *many, alias("chain.example", "a0.example")]
    sync(session, *records)
    switch(session, "one.example", disabled=True, at=NOW + DAY)
    assert sync(session, *records, at=NOW + 2 * DAY).outcome is Outcome.TOO_MANY
    result = sync(session, *records, at=NOW + 2 * DAY, force=True)
    assert "a1.example: its target one.example is not active, so it is off as well" in problems(
        result
    )
    assert {name for name, row in own(session).items() if row[-1] != "off"} == {"two.example"}
    assert not sync(session, *records, at=NOW + 3 * DAY).plan
    switch(session, "one.example", disabled=False, at=NOW + 4 * DAY)
    switch(session, "a0.example", disabled=False, at=NOW + 4 * DAY)
    switch(session, "a0.example", disabled=True, at=NOW + 5 * DAY)
    sync(session, *records, at=NOW + 6 * DAY)
    assert {name for name, row in own(session).items() if row[-1] == "off"} == {
        "a0.example",
        "chain.example",
    }


# What is gone, off, and comes back.


def test_a_domain_that_is_gone_is_switched_off_then_deleted_and_comes_back(
    session: Session,
) -> None:
    both = ("one.example", "two.example")
    sync(session, *both)
    result = sync(session, "one.example")
    assert [change.difference() for change in result.plan.plan.changed] == [
        {"disabled": (False, True)}
    ]
    assert own(session)["two.example"] == (*EAST, "off")
    sync(session, *both, at=NOW + DAY)
    assert own(session)["two.example"] == EAST
    sync(session, "one.example", at=NOW + 2 * DAY)
    for days in (3, 31):
        assert not sync(session, "one.example", at=NOW + days * DAY).plan
    result = sync(session, "one.example", at=NOW + 32 * DAY)
    assert [change.name for change in result.plan.plan.removed] == ["two.example"]
    assert list(own(session)) == ["one.example"]


def test_a_domain_is_never_deleted_without_keep_days_or_while_it_is_in_use(
    session: Session,
) -> None:
    sync(session, "one.example", "two.example")
    sync(session, "one.example")
    later = NOW + 4000 * DAY
    assert not sync(session, "one.example", at=later, settings={"keep_days": 0}).plan
    insert_token(session, "two.example")
    result = sync(session, "one.example", at=later)
    assert problems(result) == ["two.example: it is gone, and stays disabled: 1 token (party)"]
    assert own(session)["two.example"] == (*EAST, "off")


def insert_token(session: Session, domain: str) -> None:
    from automx.models import Token

    values: dict[str, Any] = {
        "name": "party",
        "token": "s",
        "token_digest": "d",
        "domain": domain,
        "prefix": "",
    }
    values |= {"expiry": "1d", "maxuse": 0, "usecount": 0, "backend": "", "created_at": NOW}
    session.execute(Token.insert().values({"is_revoked": False, "spare_active": False} | values))
    session.commit()


def test_a_domain_that_an_administrator_has_switched_off_stays_off(any_session: Session) -> None:
    sync(any_session, "one.example", "two.example")
    switch(any_session, "one.example", disabled=True, at=NOW + DAY)
    assert not sync(any_session, "one.example", "two.example", at=NOW + 2 * DAY).plan
    # ... also if it was off in the source, or gone, meanwhile.
    sync(any_session, off("one.example"), "two.example", at=NOW + 3 * DAY)
    sync(any_session, "two.example", at=NOW + 4 * DAY)
    sync(any_session, "one.example", "two.example", at=NOW + 5 * DAY)
    assert own(any_session) == {"one.example": (*EAST, "off"), "two.example": EAST}
    # It is an administrator's again if he switches it on and off himself.
    switch(any_session, "one.example", disabled=False)
    sync(any_session, off("one.example"), "two.example", at=NOW + 6 * DAY)
    switch(any_session, "one.example", disabled=False, at=NOW + 7 * DAY)
    switch(any_session, "one.example", disabled=True, at=NOW + 7 * DAY)
    sync(any_session, "one.example", "two.example", at=NOW + 8 * DAY)
    assert own(any_session)["one.example"] == (*EAST, "off")


def test_a_domain_that_is_inactive_and_switched_on_by_hand_is_switched_off_again(
    session: Session,
) -> None:
    sync(session, off("one.example"))
    switch(session, "one.example", disabled=False)
    sync(session, off("one.example"), at=NOW + DAY)
    assert own(session)["one.example"] == (*EAST, "off")
    sync(session, "one.example", at=NOW + 2 * DAY)
    assert own(session)["one.example"] == EAST


# Rows of others.


def test_rows_of_others_are_reported_and_not_taken(any_session: Session) -> None:
    changes = Changes(any_session, "user:root", now=NOW, origin="git")
    changes.add("domain", {"name": "git.example", "provider": 1, "servers": [1, 2]})
    changes.finish()
    any_session.commit()
    before = rows(any_session)
    records = ("one.example", "EAST.example", off("git.example"))
    result = sync(any_session, *records)
    said = [
        "east.example: the database has a row without an origin (see --adopt)",
        "git.example: the database has a row of git",
    ]
    assert sorted(problems(result)) == said
    assert rows(any_session) == before | {"one.example": (*EAST, "source:mail")}
    result = sync(any_session, *records, adopt=True)
    assert problems(result) == said[1:]
    assert own(any_session) == {"east.example": EAST, "one.example": EAST}
    assert [change.difference() for change in result.plan.plan.changed] == [
        {"origin": (None, "source:mail")}
    ]
    sync(any_session, "one.example")
    assert own(any_session)["east.example"] == (*EAST, "off")


def test_an_adopted_row_keeps_its_members_and_an_administrators_switch(session: Session) -> None:
    switch(session, "model.example", disabled=True)
    sync(session, off("east.example"), "model.example", adopt=True)
    assert own(session) == {"east.example": (*EAST, "off"), "model.example": (*WEST, "off")}
    sync(session, "east.example", "model.example", at=NOW + DAY)
    assert own(session) == {"east.example": EAST, "model.example": (*WEST, "off")}


def test_two_sources_do_not_touch_each_others_rows(session: Session) -> None:
    sync(session, "one.example")
    other = SourceSettings(name="other", type="file", file="/x", provider="West")
    result = synchronize(session, other, domains("one.example", "two.example"), now=NOW)
    assert problems(result) == ["one.example: the database has a row of source:mail"]
    sync(session, "three.example")
    assert {name: row[4:] for name, row in rows(session).items() if row[4]} == {
        "one.example": ("source:mail", "off"),
        "two.example": ("source:other",),
        "three.example": ("source:mail",),
    }


def test_bad_names_are_reported_and_passed_over(session: Session) -> None:
    names = ["bad name", "*.example", "", "-.example", "a" * 64 + ".example", "\x1b[31m.example"]
    long = ".".join(["l" * 60] * 3)  # a domain name, and too long for the column
    result = sync(
        session, "one.example", *names, long, {"domain": None}, {"domain": "ONE.example."}
    )
    assert list(own(session)) == ["one.example"]
    assert len(problems(result)) == 8
    assert {text.rpartition(": ")[2] for text in problems(result)} == {"it is no domain name"}
    assert "\x1b" not in "".join(problems(result))


def test_a_domain_with_two_rows_is_reported_and_not_taken(session: Session) -> None:
    domain = Domain.insert()
    for row_id, name in ((8, "müller.example"), (9, "xn--mller-kva.example")):
        session.execute(domain.values(id=row_id, name=name, provider_id=1))
    session.commit()
    before = rows(session)
    for adopt in (False, True):
        result = sync(session, "müller.example", adopt=adopt)
        assert problems(result) == ["xn--mller-kva.example: the database has 2 rows"]
    assert rows(session) == before


def test_odd_values_of_a_source_are_reported(any_session: Session) -> None:
    for odd in ("\0", "a\0b.example", "\ud800", "\x1b[2J", "x" * 5_000_000, "²", "7" * 40):
        for column in ("provider", "like", "alias_of"):
            result = sync(any_session, "one.example", {"domain": "odd.example", column: odd})
            assert result.outcome is Outcome.DONE
            assert [problem.name for problem in result.plan.problems] == ["odd.example"]
            [text] = problems(result)
            assert printable(text) == text
            assert len(text) < 1_500
    assert own(any_session) == {"one.example": EAST}


@pytest.mark.parametrize(
    "odd",
    [{"active": None}, {"active": "perhaps"}, {"active": 2}, {"provider": 1.5}, {"like": ["x"]}],
)
def test_a_row_of_which_nothing_can_be_said_stops_no_other_and_stays_as_it_is(
    session: Session, odd: dict[str, Any]
) -> None:
    sync(session, "one.example", "odd.example", alias("alias.example", "odd.example"))
    records = ["two.example", {"domain": "Odd.example", **odd}, {"domain": "new.example", **odd}]
    result = sync(session, *records, alias("alias.example", "odd.example"), at=NOW + DAY)
    assert result.outcome is Outcome.DONE
    assert [problem.name for problem in result.plan.problems] == ["Odd.example", "new.example"]
    assert own(session) == {
        "one.example": (*EAST, "off"),  # it is gone
        "odd.example": EAST,
        "alias.example": EAST,
        "two.example": EAST,
    }


# Guards.


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\x1b[2J", "\u202e", "x" * 100_000])
def test_whatever_a_neighbour_says_is_kept_as_a_text(any_session: Session, odd: str) -> None:
    def fail() -> Domains:
        raise SourceError(cause=f"it says {odd}")

    result = synchronize(any_session, source(), fail, now=NOW)
    assert result.outcome is Outcome.UNREADABLE
    record = state.record(any_session, "mail")
    assert record
    assert record.message.startswith("it says ")
    assert printable(record.message) == record.message


def test_an_empty_or_unreadable_source_changes_nothing(session: Session) -> None:
    assert sync(session).outcome is Outcome.DONE  # as long as it never had a domain
    sync(session, "one.example")
    before = rows(session)

    def fail() -> Domains:
        raise SourceError(cause="database: it is away")

    for force in (False, True):
        result = sync(session, force=force)
        assert (result.outcome, result.message) == (
            Outcome.EMPTY,
            "the source has no domain: nothing was changed",
        )
        result = synchronize(session, source(), fail, now=NOW + DAY, force=force)
        assert (result.outcome, result.message) == (Outcome.UNREADABLE, "database: it is away")
    assert rows(session) == before
    [record] = state.records(session)
    assert record.document() == {
        "name": "mail",
        "began_at": "2026-12-01T12:00:00Z",
        "succeeded_at": "2026-11-30T12:00:00Z",
        "outcome": "unreadable",
        "message": "database: it is away",
        "found": 0,
        "added": 0,
        "changed": 0,
        "removed": 0,
        "problems": 0,
    }


@pytest.mark.parametrize(
    ("most", "number", "gone", "stops"),
    [
        (Share(10, True), 60, 6, False),
        (Share(10, True), 60, 7, True),
        (Share(10, True), 20, 5, False),
        (Share(10, True), 20, 6, True),
        (Share(3, False), 20, 3, False),
        (Share(3, False), 20, 4, True),
    ],
)
def test_too_many_domains_are_not_switched_off_at_once(
    session: Session, most: Share, number: int, gone: int, stops: bool
) -> None:
    names = [f"d{index}.example" for index in range(number)]
    settings = {"max_removed": most}
    sync(session, *names, settings=settings)
    # Some are off, others are gone.
    records = [*map(off, names[: gone // 2]), *names[gone:], "new.example"]
    before = rows(session)
    for dry_run in (True, False):
        result = sync(session, *records, settings=settings, dry_run=dry_run)
        assert (result.outcome is Outcome.TOO_MANY) == stops
    if not stops:
        assert sum(len(row) > 4 for row in own(session).values()) == gone
        return
    assert rows(session) == before
    allowed = most.of(number, least=5)
    assert result.message == (
        f"{gone} of {number} domains would be switched off at once, and max_removed allows"
        f" {allowed}: nothing was changed; --force does it"
    )
    assert sync(session, *records, settings=settings, force=True).outcome is Outcome.DONE
    assert sum(len(row) > 4 for row in own(session).values()) == gone
    assert "new.example" in own(session)


def test_a_dry_run_plans_the_same_and_writes_nothing(session: Session) -> None:
    sync(session, "one.example", "two.example")
    before, record = rows(session), state.record(session, "mail")
    records = ("one.example", alias("alias.example", "one.example"), off("off.example"))
    planned = sync(session, *records, at=NOW + DAY, dry_run=True)
    assert (rows(session), state.record(session, "mail")) == (before, record)
    done = sync(session, *records, at=NOW + DAY)
    assert planned.document() == done.document()


# Several at once.


def test_a_state_that_is_older_than_that_of_another_process_is_read_again(
    any_session: Session,
) -> None:
    sync(any_session, "one.example", "two.example")
    states = [["one.example"], ["one.example", "two.example", "three.example"]]

    def read_slowly() -> Domains:
        if len(states) == 2:  # meanwhile, another process reads more, and writes it
            with Session(any_session.engine) as other:
                synchronize(other, source(), domains(*states[1]), now=NOW)
        return domains(*states.pop(0))()

    result = synchronize(any_session, source(), read_slowly, now=NOW)
    assert result.outcome is Outcome.DONE
    assert own(any_session) == dict.fromkeys(["one.example", "two.example", "three.example"], EAST)
    assert states == []


def test_a_source_that_others_synchronize_all_the_time_is_given_up(session: Session) -> None:
    sync(session, "one.example")
    number = iter(range(100))

    def read_slowly() -> Domains:
        with Session(session.engine) as other:
            synchronize(
                other, source(), domains("one.example", f"d{next(number)}.example"), now=NOW
            )
        return domains("one.example")()

    result = synchronize(session, source(), read_slowly, now=NOW)
    assert result.outcome is Outcome.FAILED
