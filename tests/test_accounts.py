"""Accounts on three engines: made by tokens, undone when that fails, deleted with their mailbox."""

import itertools
import re
import string
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from automx import seed
from automx.accounts import accounts, tokens
from automx.accounts.accounts import Account, NewAccount
from automx.accounts.randomwords import LETTERS, new_password
from automx.accounts.tokens import Token
from automx.backends import Owner
from automx.database import Session, commit
from automx.errors import (
    AddressError,
    AutomxError,
    BadRecordError,
    ConflictError,
    ForbiddenError,
    MailLeftError,
    NoFreeAddressError,
    NotReachedError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
    UnknownAccountError,
)
from automx.words import State
from tests.mailboxes import LATER, NOW, Box, Mailboxes, backends, dump, rows
from tests.tokens import (
    DISABLE,
    ENABLE,
    EXHAUSTED,
    EXPIRED,
    OFF,
    REVOKED,
    UNKNOWN,
    add,
    usecount,
)

NO_FREE_ADDRESS = "No free address was found. Please try again."
TAKEN = "This address is taken already."
IN_BETWEEN = (
    "This address is being made or deleted at the moment. Please try again in half an hour."
)

# Nothing has changed after these, whatever the backend.
CERTAIN = [TryAgainError(cause="refused"), NotReachedError(cause="down")]
# After these, the mailbox may exist.
UNCERTAIN = [
    UncertainError(cause="odd"),
    SilentError(cause="silent"),
    RuntimeError("a bug"),
    KeyboardInterrupt(),
]
Create = Callable[..., NewAccount]


@pytest.fixture
def create(session: Session, mailboxes: Mailboxes) -> Create:
    """Make an account by a token, as the web server does: with a token that was just found."""

    def make(token: Token, *, now: datetime = NOW, **fields: str) -> NewAccount:
        found = tokens.find(session, token.token)
        return accounts.create(session, found, backends(mailboxes), now=now, **fields)

    return make


def fails(expected: type[BaseException], call: Callable[[], object]) -> str:
    """Return the text of the error that a call raises, which must be of this very class."""
    with pytest.raises(expected) as caught:
        call()
    assert type(caught.value) is expected
    return str(caught.value)


def states(session: Session) -> dict[str, str]:
    """Return address -> state of all accounts."""
    return {str(row["address"]): str(row["state"]) for row in rows(session, "account")}


def addresses(monkeypatch: pytest.MonkeyPatch, names: Iterator[str]) -> None:
    """Let the names of new addresses be these, one after the other."""
    monkeypatch.setattr(tokens, "new_address", lambda token: f"{next(names)}@{token.domain}")


# Made


def test_a_token_makes_an_account_and_a_mailbox(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session, expiry="12h")

    made = create(token)

    assert re.fullmatch(r"tmp\.[2-9a-z]{5}@example\.com", made.address)
    assert (made.expiry, made.lifetime) == ("12h", timedelta(hours=12))
    (row,) = rows(session, "account")
    assert re.fullmatch("[0-9a-f]{16}", str(row["mark"]))
    moment = NOW.replace(tzinfo=None)
    assert row == {
        "id": row["id"],
        "address": made.address,
        "token_id": token.id,
        "mark": row["mark"],
        "backend": "command",
        "state": "active",
        "created_at": moment,
        "expires_at": moment + timedelta(hours=12),
        "changed_at": moment,
        "warned_at": None,
    }
    owner = Owner("party", str(row["mark"]))
    assert mailboxes.boxes == {made.address: Box(owner, made.password)}
    assert mailboxes.calls == [("create", made.address)]
    assert usecount(session) == 1


def test_an_account_can_be_read_again(session: Session, create: Create) -> None:
    token = add(session, expiry="1w", backend="mailcow")
    made = create(token)
    (row,) = rows(session, "account")

    expected = Account(
        id=int(str(row["id"])),
        address=made.address,
        token_id=token.id,
        mark=str(row["mark"]),
        backend="mailcow",
        state=State.ACTIVE,
        created_at=NOW,
        expires_at=NOW + timedelta(days=7),
        changed_at=NOW,
        warned_at=None,
        token="party",
    )
    assert accounts.get(session, made.address.upper()) == expected
    assert list(accounts.all_accounts(session)) == [expected]
    assert list(accounts.all_accounts(session, token="party", state=State.ACTIVE)) == [expected]
    assert list(accounts.all_accounts(session, token="other")) == []
    assert list(accounts.all_accounts(session, state=State.DISABLED)) == []
    assert fails(UnknownAccountError, lambda: accounts.get(session, "a@example.com")) == (
        "There is no account a@example.com."
    )
    assert fails(AddressError, lambda: accounts.get(session, "a")) == (
        "A mail address has exactly one @."
    )


def test_without_a_backend_the_account_is_there_at_once(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session, backend="none"))

    assert [(row["backend"], row["state"]) for row in rows(session, "account")] == [
        ("none", "active")
    ]
    assert (made.address in states(session), mailboxes.calls) == (True, [])
    assert usecount(session) == 1


def test_the_password_is_kept_nowhere_but_in_the_mailbox(
    session: Session, mailboxes: Mailboxes, create: Create, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = create(add(session))

    assert made.password not in str(dump(session)) + repr(made) + caplog.text
    assert mailboxes.boxes[made.address].password == made.password


def test_passwords_satisfy_policies_and_have_no_look_alikes() -> None:
    passwords = {new_password() for _ in range(2000)}

    assert len(passwords) == 2000
    for password in passwords:
        assert re.fullmatch("([A-Za-z0-9]{6}-){2}[A-Za-z0-9]{6}", password)
        kinds = (string.digits, string.ascii_lowercase, string.ascii_uppercase, "-")
        assert all(set(kind) & set(password) for kind in kinds)
    assert set("".join(passwords)) == {*LETTERS, "-"}
    assert len(LETTERS) == len(set(LETTERS)) == 50
    for pair in ("0O", "0o", "0Q", "1l", "1I", "lI", "iI", "5S", "8B", "6b", "6G", "2Z"):
        assert not set(pair) <= set(LETTERS)


def test_an_address_and_a_password_can_be_given(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session), address=" TMP.Wurm@EXAMPLE.com", password="s3cret")

    day = timedelta(days=1)
    assert made == NewAccount("tmp.wurm@example.com", "s3cret", "1d", day, NOW + day)
    assert states(session) == {"tmp.wurm@example.com": "active"}
    assert mailboxes.boxes[made.address].password == "s3cret"


def test_an_address_of_another_domain_is_refused(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)

    for address, text in (
        ("a@example.net", "The token party makes addresses of example.com only."),
        ("a@xexample.com", "The token party makes addresses of example.com only."),
        ("a b@example.com", "The part before the @ has a character that is not allowed there."),
    ):
        with pytest.raises(AddressError) as caught:
            create(token, address=address)
        assert str(caught.value) == text
    assert (usecount(session), mailboxes.calls, rows(session, "account")) == (0, [], [])


def test_each_token_makes_accounts_of_its_domain_with_its_expiry(
    session: Session, create: Create
) -> None:
    session.execute(sa.text("INSERT INTO domain VALUES (3, '*.example.org', 1, NULL)"))
    session.execute(sa.text("INSERT INTO domain VALUES (4, 'MÜLLER.example', 1, NULL)"))
    session.commit()
    made = [
        create(add(session, f"of-{domain}", domain, expiry=expiry)).address
        for domain, expiry in (
            ("example.com", "30s"),
            ("Example.Net", "2w"),
            ("chat.example.org", "1y"),
            ("müller.example", "never"),
        )
    ]

    moment = NOW.replace(tzinfo=None)
    found = {row["address"]: row["expires_at"] for row in rows(session, "account")}
    assert found == {
        made[0]: moment + timedelta(seconds=30),
        made[1]: moment + timedelta(days=14),
        made[2]: moment + timedelta(days=365),
        made[3]: None,
    }
    assert [address.partition("@")[2] for address in made] == [
        *("example.com", "example.net", "chat.example.org", "xn--mller-kva.example"),
    ]


def test_a_domain_that_is_off_makes_no_accounts_and_keeps_those_that_it_has(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    made = create(token)
    read_before = tokens.find(session, token.token)
    session.execute(sa.text(DISABLE))
    session.commit()
    before, calls = dump(session), list(mailboxes.calls)

    assert fails(ForbiddenError, lambda: create(token)) == OFF
    session.rollback()
    # By a token that was read before the domain was switched off.
    assert fails(ForbiddenError, lambda: accounts.check_domain(session, read_before)) == OFF
    claim = tokens.claim(read_before, NOW)
    assert commit(session, claim) == []
    assert (dump(session), mailboxes.calls) == (before, calls)
    accounts.remove(session, accounts.get(session, made.address), backends(mailboxes), now=LATER)
    assert mailboxes.boxes == {}
    session.execute(sa.text(ENABLE))
    session.commit()
    assert create(token).address in mailboxes.boxes


def test_a_domain_that_is_purged_makes_no_accounts_until_it_is_seeded_anew(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    before = dump(session)
    seed.purge(session)
    session.commit()

    with pytest.raises(BadRecordError) as caught:
        create(token)

    assert caught.value.cause == "token party: the domain example.com is not in the table domain"
    session.rollback()
    assert (dump(session), mailboxes.calls) == (before, [])
    servers = [{"type": "imap", "name": "imap.example.com"}]
    document = {"version": 2, "provider": "Example Inc.", "domains": [{"name": "example.com"}]}
    seed.populate(session, document | {"servers": servers})
    session.commit()
    assert create(token).address in mailboxes.boxes


def test_a_change_of_the_token_leaves_its_accounts_as_they_are(
    session: Session, create: Create
) -> None:
    token = add(session, expiry="1d", maxuse=3)
    create(token)
    before = rows(session, "account")

    tokens.edit(session, "party", {"expiry": "1y", "prefix": "x.", "maxuse": 2})
    session.commit()

    assert rows(session, "account") == before
    assert usecount(session) == 1
    assert create(token).address.startswith("x.")
    assert fails(ForbiddenError, lambda: create(token)) == EXHAUSTED


# Not made


def test_a_token_makes_as_many_accounts_as_it_may(session: Session, create: Create) -> None:
    token = add(session, maxuse=3)

    made = [create(token) for _ in range(3)]

    assert fails(ForbiddenError, lambda: create(token)) == EXHAUSTED
    assert states(session) == {account.address: "active" for account in made}
    assert usecount(session) == 3


def test_a_token_without_maxuse_is_never_exhausted(session: Session, create: Create) -> None:
    token = add(session, maxuse=0, usecount=10**6)

    create(token)

    assert usecount(session) == 10**6 + 1


def test_a_withdrawn_and_an_expired_token_say_so(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session, valid_until=NOW + timedelta(days=1))

    assert fails(ForbiddenError, lambda: create(token, now=NOW + timedelta(days=1))) == EXPIRED
    tokens.edit(session, "party", {"is_revoked": True})
    session.commit()
    assert fails(ForbiddenError, lambda: create(token)) == REVOKED
    assert (usecount(session), mailboxes.calls, rows(session, "account")) == (0, [], [])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("UPDATE token SET usecount = maxuse", EXHAUSTED),
        ("UPDATE token SET is_revoked = '1'", REVOKED),
        ("UPDATE token SET valid_until = '2026-11-21 10:00:00'", EXPIRED),
        ("DELETE FROM token", UNKNOWN),
    ],
)
def test_a_token_that_is_changed_at_the_last_moment_says_why_it_makes_no_account(
    session: Session, mailboxes: Mailboxes, change: str, text: str
) -> None:
    token = add(session)
    session.execute(sa.text(change))
    session.commit()
    before = dump(session)

    def make() -> None:
        accounts.create(session, token, backends(mailboxes), now=NOW)

    assert fails(ForbiddenError, make) == text

    assert not session.in_transaction()
    assert (dump(session), mailboxes.calls) == (before, [])


def test_a_backend_whose_settings_are_wrong_costs_no_use(session: Session, create: Create) -> None:
    token = add(session)
    session.execute(sa.text("UPDATE token SET backend = 'dovecot'"))
    session.commit()

    assert fails(BadRecordError, lambda: create(token)) == BadRecordError.public
    assert [row["usecount"] for row in rows(session, "token")] == [0]
    assert rows(session, "account") == []


# Collisions


def test_a_name_that_an_account_has_is_not_tried_twice(
    session: Session, mailboxes: Mailboxes, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add(session)
    addresses(monkeypatch, iter(["a", "a", "a", "b"]))

    assert [create(token).address for _ in range(2)] == ["a@example.com", "b@example.com"]

    assert mailboxes.calls == [("create", "a@example.com"), ("create", "b@example.com")]
    assert usecount(session) == 2


def test_a_name_that_the_mail_server_knows_is_replaced(
    session: Session, mailboxes: Mailboxes, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add(session)
    boss = Box(Owner("", ""), "hers")
    mailboxes.boxes = {"boss@example.com": boss}
    addresses(monkeypatch, iter(["a", "boss", "a", "b"]))
    create(token)

    made = create(token)

    assert made.address == "b@example.com"
    assert states(session) == {"a@example.com": "active", "b@example.com": "active"}
    assert mailboxes.boxes["boss@example.com"] is boss
    marks = {row["address"]: row["mark"] for row in rows(session, "account")}
    assert mailboxes.boxes[made.address].owner.mark == marks[made.address]
    assert usecount(session) == 2


def test_names_are_tried_a_bounded_number_of_times_by_the_mail_server(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    mailboxes.fail("create", *[TakenError()] * 100)

    assert fails(NoFreeAddressError, lambda: create(token)) == NO_FREE_ADDRESS

    assert len(mailboxes.calls) == len(set(mailboxes.calls)) == accounts.ATTEMPTS
    assert (usecount(session), rows(session, "account")) == (0, [])


def test_names_are_tried_a_bounded_number_of_times_in_the_database(
    session: Session, mailboxes: Mailboxes, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add(session)
    tried = []

    def name(_: Token) -> str:
        tried.append("a")
        return "a@example.com"

    monkeypatch.setattr(tokens, "new_address", name)
    create(token)
    tried.clear()

    assert fails(NoFreeAddressError, lambda: create(token)) == NO_FREE_ADDRESS
    assert len(tried) == accounts.ATTEMPTS

    mailboxes.boxes.clear()
    mailboxes.fail("create", TakenError())
    addresses(monkeypatch, iter(["b", *["a"] * 100]))
    assert fails(NoFreeAddressError, lambda: create(token)) == NO_FREE_ADDRESS
    assert usecount(session) == 1
    assert states(session) == {"a@example.com": "active"}


def test_an_address_that_was_asked_for_is_not_replaced(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session, prefix="")
    mailboxes.boxes = {"boss@example.com": Box(Owner("", ""))}

    assert fails(TakenError, lambda: create(token, address="boss@example.com")) == TAKEN
    assert (usecount(session), rows(session, "account")) == (0, [])

    create(token, address="alice@example.com")
    assert fails(TakenError, lambda: create(token, address="Alice@example.com")) == TAKEN
    assert usecount(session) == 1
    assert states(session) == {"alice@example.com": "active"}


# A fixed address


def test_a_token_for_one_mailbox_makes_it_once(session: Session, create: Create) -> None:
    token = add(session, address="Alice@example.com")

    assert create(token).address == "alice@example.com"
    assert fails(TakenError, lambda: create(token)) == TAKEN
    session.execute(sa.text("DELETE FROM account"))
    session.commit()
    assert fails(ForbiddenError, lambda: create(token)) == EXHAUSTED
    other = "bob@example.com"
    session.execute(sa.text("UPDATE token SET usecount = 0"))
    session.commit()
    assert fails(AddressError, lambda: create(token, address=other)) == (
        "The token party makes alice@example.com only."
    )


def test_a_token_for_a_mailbox_that_exists_keeps_its_use(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session, address="alice@example.com")
    mailboxes.boxes = {"alice@example.com": Box(Owner("", ""))}

    assert fails(TakenError, lambda: create(token)) == TAKEN
    assert (usecount(session), rows(session, "account")) == (0, [])

    mailboxes.boxes.clear()
    assert create(token).address == "alice@example.com"


def test_two_tokens_for_the_same_mailbox_make_it_once(session: Session, create: Create) -> None:
    one, other = (add(session, name, address="alice@example.com") for name in ("one", "other"))
    create(one)

    assert fails(TakenError, lambda: create(other)) == TAKEN
    assert tokens.get(session, "other").usecount == 0


def test_a_person_whose_mailbox_may_exist_half_is_asked_to_wait(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session, address="alice@example.com")
    mailboxes.fail("create", SilentError(), is_done=True)
    fails(SilentError, lambda: create(token))

    assert fails(TryAgainError, lambda: create(token)) == IN_BETWEEN

    assert states(session) == {"alice@example.com": "undoing"}
    assert usecount(session) == 0
    account = accounts.get(session, "alice@example.com")
    accounts.remove(session, account, backends(mailboxes), now=LATER)
    assert create(token, now=LATER).address == "alice@example.com"


# A backend that fails


@pytest.mark.parametrize("error", CERTAIN, ids=lambda error: type(error).__name__)
def test_after_a_failure_that_changed_nothing_nothing_is_left(
    session: Session, mailboxes: Mailboxes, create: Create, error: AutomxError
) -> None:
    token = add(session, maxuse=1)
    before = dump(session)
    mailboxes.fail("create", error)

    assert fails(type(error), lambda: create(token)) == str(error)

    assert (dump(session), mailboxes.boxes) == (before, {})
    create(token)
    assert usecount(session) == 1


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("error", UNCERTAIN, ids=lambda error: type(error).__name__)
def test_after_a_failure_with_an_open_end_the_use_is_back_and_the_row_tells_what_is_left_to_do(
    session: Session, mailboxes: Mailboxes, create: Create, error: BaseException, is_done: bool
) -> None:
    token = add(session, maxuse=1)
    mailboxes.fail("create", error, is_done=is_done)

    fails(type(error), lambda: create(token))

    (row,) = rows(session, "account")
    assert (row["state"], row["changed_at"]) == ("undoing", NOW.replace(tzinfo=None))
    assert list(mailboxes.boxes) == ([row["address"]] if is_done else [])
    assert usecount(session) == 0
    create(token)
    assert usecount(session) == 1

    accounts.remove(
        session, accounts.get(session, str(row["address"])), backends(mailboxes), now=LATER
    )
    assert list(states(session).values()) == ["active"]
    assert list(states(session)) == list(mailboxes.boxes)
    assert usecount(session) == 1


def test_a_failure_after_some_taken_names_leaves_the_last_one(
    session: Session, mailboxes: Mailboxes, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add(session)
    addresses(monkeypatch, iter("abc"))
    mailboxes.fail("create", TakenError(), TakenError(), SilentError())

    fails(SilentError, lambda: create(token))

    assert states(session) == {"c@example.com": "undoing"}
    assert usecount(session) == 0


# Too late: "prune" has given the account up


def give_up(session: Session, mailboxes: Mailboxes) -> Callable[[str, str], None]:
    """Return what another program does in the middle of a call: settle the account."""

    def settle(action: str, address: str) -> None:
        mailboxes.during = lambda _, __: None
        with Session(session.engine) as other:
            account = accounts.get(other, address)
            accounts.remove(other, account, backends(mailboxes), now=LATER)

    return settle


def test_an_account_that_is_made_too_late_is_gone(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    mailboxes.during = give_up(session, mailboxes)

    fails(SilentError, lambda: create(token))

    assert [action for action, _ in mailboxes.calls] == ["create", "find", "find", "delete"]
    assert (mailboxes.boxes, rows(session, "account"), usecount(session)) == ({}, [], 0)


def test_an_account_that_is_made_too_late_leaves_the_mailbox_of_the_next_owner(
    session: Session, mailboxes: Mailboxes, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add(session)
    settle = give_up(session, mailboxes)
    make = mailboxes.create
    other = Box(Owner("other", "fedcba9876543210"))

    def make_and_sleep(address: str, password: str, owner: Owner) -> None:
        make(address, password, owner)
        settle("create", address)
        mailboxes.boxes[address] = other

    monkeypatch.setattr(mailboxes, "create", make_and_sleep)

    fails(SilentError, lambda: create(token))

    assert list(mailboxes.boxes.values()) == [other]


def test_an_account_that_is_renamed_too_late_is_gone(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    mailboxes.during = give_up(session, mailboxes)
    mailboxes.fail("create", TakenError())

    fails(SilentError, lambda: create(token))

    assert (mailboxes.boxes, rows(session, "account"), usecount(session)) == ({}, [], 0)


@pytest.mark.parametrize("error", [TryAgainError(), UncertainError()])
def test_an_account_that_fails_too_late_gives_its_use_back_once(
    session: Session, mailboxes: Mailboxes, create: Create, error: AutomxError
) -> None:
    token = add(session)
    create(token)
    mailboxes.during = give_up(session, mailboxes)
    mailboxes.fail("create", error)

    fails(type(error), lambda: create(token))

    assert len(mailboxes.boxes) == 1
    assert list(states(session)) == list(mailboxes.boxes)
    assert usecount(session) == 1


# Deleted


def test_an_account_is_deleted_with_its_mailbox_and_its_use_is_not_given_back(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    made, kept = create(token), create(token)
    mailboxes.calls.clear()

    accounts.remove(session, accounts.get(session, made.address), backends(mailboxes), now=NOW)

    assert mailboxes.calls == [("find", made.address), ("delete", made.address)]
    assert list(states(session)) == list(mailboxes.boxes) == [kept.address]
    assert usecount(session) == 2


def test_a_mailbox_that_is_gone_already_is_no_error(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session))
    mailboxes.boxes.clear()

    accounts.remove(session, accounts.get(session, made.address), backends(mailboxes), now=NOW)

    assert rows(session, "account") == []


def test_a_mailbox_that_was_made_anew_for_somebody_else_is_not_deleted(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session))
    hers = mailboxes.boxes[made.address] = Box(Owner("party", "other"), "hers")

    account = accounts.get(session, made.address)
    assert accounts.remove(session, account, backends(mailboxes), now=NOW) is False

    assert (rows(session, "account"), mailboxes.boxes) == ([], {made.address: hers})


def test_an_account_whose_mail_stays_on_the_disk_is_deleted_and_that_is_told(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session))
    mailboxes.fail("delete", MailLeftError(cause="on the disk"), is_done=True)

    def delete() -> None:
        account = accounts.get(session, made.address)
        accounts.remove(session, account, backends(mailboxes), now=NOW)

    fails(MailLeftError, delete)
    assert rows(session, "account") == []


def test_an_account_without_backend_is_deleted_without_one(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session, backend="none"))

    accounts.remove(session, accounts.get(session, made.address), backends(mailboxes), now=NOW)

    assert (rows(session, "account"), mailboxes.calls) == ([], [])


@pytest.mark.parametrize("state", [State.ACTIVE, State.DISABLED])
def test_an_account_that_could_not_be_deleted_stays_as_it_was(
    session: Session, mailboxes: Mailboxes, create: Create, state: State
) -> None:
    made = create(add(session))
    session.execute(sa.text(f"UPDATE account SET state = '{state}'"))
    session.commit()
    before, boxes = dump(session), dict(mailboxes.boxes)

    def delete() -> None:
        account = accounts.get(session, made.address)
        accounts.remove(session, account, backends(mailboxes), now=NOW + timedelta(hours=1))

    for error, is_done in itertools.product([*CERTAIN, *UNCERTAIN], [False, True]):
        mailboxes.fail("delete", error, is_done=is_done)
        fails(type(error), delete)
        assert dump(session) == before
        mailboxes.boxes.update(boxes)

    delete()
    assert (rows(session, "account"), mailboxes.boxes) == ([], {})


@pytest.mark.parametrize("state", [State.CREATING, State.UNDOING, State.DELETING])
def test_an_account_that_somebody_works_on_is_left_alone_for_a_quarter_of_an_hour(
    session: Session, mailboxes: Mailboxes, create: Create, state: State
) -> None:
    made = create(add(session))
    session.execute(sa.text(f"UPDATE account SET state = '{state}'"))
    session.commit()
    before = dump(session)

    def delete(now: datetime) -> None:
        account = accounts.get(session, made.address)
        accounts.remove(session, account, backends(mailboxes), now=now)

    almost = NOW + timedelta(minutes=14, seconds=59)
    assert fails(ConflictError, lambda: delete(almost)) == (
        f"{made.address} is being made or deleted right now."
    )
    session.rollback()
    assert dump(session) == before

    delete(NOW + timedelta(minutes=15))
    assert (rows(session, "account"), mailboxes.boxes) == ([], {})
    assert usecount(session) == (0 if state is State.CREATING else 1)


def test_an_account_that_was_changed_since_it_was_read_is_not_deleted(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    made = create(add(session))
    account = accounts.get(session, made.address)
    session.execute(sa.text("UPDATE account SET state = 'disabled'"))
    session.commit()
    before = dump(session)

    assert fails(
        ConflictError, lambda: accounts.remove(session, account, backends(mailboxes), now=NOW)
    ) == (f"{made.address} has just been changed by another program.")

    assert dump(session) == before
    assert list(mailboxes.boxes) == [made.address]


def test_a_conflict_leaves_what_the_caller_has_done(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    account = accounts.get(session, create(token).address)
    session.execute(sa.text("UPDATE account SET state = 'disabled'"))
    session.commit()

    tokens.add(session, "first", "example.com", now=NOW)
    fails(ConflictError, lambda: accounts.remove(session, account, backends(mailboxes), now=NOW))
    tokens.add(session, "second", "example.com", now=NOW)
    fails(TakenError, lambda: create(token, address=account.address))
    session.commit()

    names = [found.name for found in tokens.all_tokens(session)]
    assert names == ["first", "party", "second"]


def test_a_row_that_took_the_number_of_another_is_not_mistaken_for_it(
    session: Session, mailboxes: Mailboxes, create: Create
) -> None:
    token = add(session)
    account = accounts.get(session, create(token).address)
    session.execute(sa.text("DELETE FROM account"))
    session.commit()
    other = create(token)
    session.execute(sa.text(f"UPDATE account SET id = {account.id}"))
    session.commit()

    fails(ConflictError, lambda: accounts.remove(session, account, backends(mailboxes), now=NOW))

    assert states(session) == {other.address: "active"}
    assert other.address in mailboxes.boxes
