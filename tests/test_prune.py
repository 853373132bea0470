"""What is done for accounts as time passes: warning, disabling, deleting, bringing in order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from automx.accountcolumns import ACCOUNT
from automx.accounts import accounts, prune, tokens
from automx.accounts.accounts import Account
from automx.accounts.prune import Action, Done, Policy
from automx.backends import Owner
from automx.database import Session
from automx.errors import (
    AutomxError,
    BadRecordError,
    MailLeftError,
    NotReachedError,
    SettingsError,
    SilentError,
    TryAgainError,
    UncertainError,
)
from automx.words import State
from tests.mailboxes import NOW, Box, Mailboxes, backends, dump, rows
from tests.tokens import add

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
POSTPONED = "postponed, since there was no answer for the accounts before it"

Step = tuple[str, str]  # action, local part of the address; "!" before the action if it failed


@dataclass
class Hook:
    """The program that warns people: it keeps what it was told, or fails."""

    told: list[tuple[str, datetime | None]] = field(default_factory=list)
    errors: list[AutomxError] = field(default_factory=list)

    def __call__(self, account: Account) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.told.append((account.address.partition("@")[0], account.expires_at))


@dataclass
class Service:
    """Accounts of example.com, and "prune" by a policy that a test may change."""

    session: Session
    mailboxes: Mailboxes
    policy: Policy = field(default_factory=Policy)

    def token(self, **fields: object) -> None:
        """Make the token "party"."""
        add(self.session, "party", "example.com", prefix="", **fields)

    def account(self, name: str = "alice", *, token: str = "party", now: datetime = NOW) -> None:
        """Make an account."""
        found = tokens.get(self.session, token)
        address = f"{name}@{found.domain}"
        accounts.create(self.session, found, backends(self.mailboxes), now=now, address=address)

    def set(self, name: str, **values: object) -> None:
        """Change the row of an account."""
        for column, value in values.items():
            change = sa.text(f"UPDATE account SET {column} = :value WHERE address LIKE :name")
            self.session.execute(change, {"value": value, "name": f"{name}@%"})
        self.session.commit()

    def box(self, name: str = "alice") -> Box:
        """Return a mailbox."""
        return self.mailboxes.boxes[f"{name}@example.com"]

    def done(self, after: timedelta, *, dry_run: bool = False) -> list[Done]:
        """Prune some time after NOW, and return all that was done."""
        now = NOW + after
        actions = prune.pending(self.session, now=now, policy=self.policy)
        return list(
            prune.run(
                self.session,
                actions,
                backends(self.mailboxes),
                now=now,
                policy=self.policy,
                dry_run=dry_run,
            )
        )

    def prune(self, after: timedelta, *, dry_run: bool = False) -> list[Step]:
        """Prune some time after NOW, and return what was done, in brief."""
        return [
            (f"{'!' if done.error else ''}{done.action}", done.account.address.partition("@")[0])
            for done in self.done(after, dry_run=dry_run)
        ]

    def states(self) -> dict[str, str]:
        """Return name -> state of all accounts."""
        return {
            str(row["address"]).partition("@")[0]: str(row["state"])
            for row in rows(self.session, "account")
        }

    def all(self) -> tuple[object, ...]:
        """Return all that the database and the mail server know."""
        return dump(self.session), repr(self.mailboxes.boxes)

    @property
    def usecount(self) -> int:
        """The uses of the token "party"."""
        count = tokens.get(self.session, "party").usecount
        self.session.rollback()
        return count


@pytest.fixture
def service(session: Session, mailboxes: Mailboxes) -> Service:
    return Service(session, mailboxes)


# A life


def test_an_account_is_warned_disabled_and_deleted_each_once(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook, grace=3 * DAY)
    service.token(expiry="30d")
    service.account()
    steps = {}

    for hours in range(24 * 40):
        if done := service.prune(hours * HOUR):
            steps[hours * HOUR] = done

    assert steps == {
        23 * DAY: [("warn", "alice")],
        30 * DAY: [("disable", "alice")],
        33 * DAY: [("delete", "alice")],
    }
    assert hook.told == [("alice", NOW + 30 * DAY)]
    assert [action for action, _ in service.mailboxes.calls] == [
        *("create", "find", "disable", "find", "delete"),
    ]
    assert (service.states(), service.mailboxes.boxes, service.usecount) == ({}, {}, 1)


def test_each_step_leaves_its_row(service: Service) -> None:
    service.policy = Policy(warn_before=7 * DAY, warn=Hook(), grace=3 * DAY)
    service.token(expiry="30d")
    service.account()
    (row,) = rows(service.session, "account")
    moment = NOW.replace(tzinfo=None)

    service.prune(24 * DAY)
    row |= {"warned_at": moment + 24 * DAY}
    assert rows(service.session, "account") == [row]

    service.prune(31 * DAY)
    row |= {"state": "disabled", "changed_at": moment + 31 * DAY}
    assert rows(service.session, "account") == [row]
    assert not service.box().is_active


def test_without_warning_and_grace_an_account_is_deleted_when_it_expires(service: Service) -> None:
    service.token(expiry="12h")
    service.account()

    assert service.prune(12 * HOUR - timedelta(seconds=1)) == []
    assert service.prune(12 * HOUR) == [("delete", "alice")]
    assert (service.states(), service.mailboxes.boxes) == ({}, {})


def test_an_account_that_never_expires_stays(service: Service) -> None:
    service.policy = Policy(warn_before=7 * DAY, warn=Hook(), grace=3 * DAY)
    service.token(expiry="never")
    service.account()
    before = service.all()

    assert service.prune(36500 * DAY) == []
    assert service.all() == before


def test_an_account_without_backend_takes_the_same_steps(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=DAY, warn=hook, grace=DAY)
    service.token(expiry="1w", backend="none")
    service.account()

    assert service.prune(6 * DAY) == [("warn", "alice")]
    assert service.prune(7 * DAY) == [("disable", "alice")]
    assert service.prune(8 * DAY) == [("delete", "alice")]
    assert (service.states(), service.mailboxes.calls) == ({}, [])
    assert hook.told == [("alice", NOW + 7 * DAY)]


def test_the_oldest_account_comes_first(service: Service) -> None:
    service.policy = Policy(warn_before=2 * DAY, warn=Hook(), grace=DAY)
    service.token(expiry="1w")
    add(service.session, "short", prefix="", expiry="1d")
    service.account("zoe")
    service.account("bob", token="short")
    service.account("amy")
    service.account("late", now=NOW + 6 * DAY)

    assert service.prune(DAY) == [("disable", "bob")]
    assert service.prune(6 * DAY) == [("warn", "zoe"), ("delete", "bob"), ("warn", "amy")]


def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook, grace=3 * DAY)
    service.token(expiry="30d")
    add(service.session, "spare", prefix="", expiry="30d", spare_active=True)
    for name in ("expired", "disabled", "deleting", "creating", "undoing"):
        service.account(name)
        service.set(name, state=name if name != "expired" else "active")
    service.account("soon", now=NOW + 5 * DAY)
    service.account("spared", token="spare")
    service.box("spared").last_login = NOW + 20 * DAY
    service.account("taken")
    service.box("taken").owner = Owner("party", "other")
    before = service.all()
    service.mailboxes.calls.clear()

    would = service.prune(30 * DAY, dry_run=True)

    assert would == [
        ("disable", "expired"),
        ("delete", "disabled"),
        ("delete", "deleting"),
        ("settle", "creating"),
        ("settle", "undoing"),
        ("warn", "soon"),
        ("prolong", "spared"),
        ("forget", "taken"),
    ]
    assert service.all() == before
    assert {action for action, _ in service.mailboxes.calls} == {"find"}
    assert hook.told == []
    assert service.prune(30 * DAY) == would


# Warning


def test_a_failing_hook_is_asked_again_and_holds_up_nothing_else(service: Service) -> None:
    hook = Hook(errors=[NotReachedError(cause="down") for _ in range(4)])
    service.policy = Policy(warn_before=DAY, warn=hook)
    service.token(expiry="1w")
    add(service.session, "short", prefix="", expiry="2d")
    for name in ("a", "b", "c"):
        service.account(name)
    service.account("x", token="short")

    assert service.prune(6 * DAY) == [
        *(("!warn", "a"), ("!warn", "b"), ("!warn", "c"), ("delete", "x")),
    ]
    assert {row["warned_at"] for row in rows(service.session, "account")} == {None}
    assert service.prune(6 * DAY) == [("!warn", "a"), ("warn", "b"), ("warn", "c")]
    assert service.prune(6 * DAY) == [("warn", "a")]
    assert service.prune(6 * DAY) == []
    assert [name for name, _ in hook.told] == ["b", "c", "a"]


def test_a_hook_that_breaks_off_is_asked_again(service: Service) -> None:
    def interrupted(_: Account) -> None:
        raise KeyboardInterrupt

    service.policy = Policy(warn_before=DAY, warn=interrupted)
    service.token(expiry="1w")
    service.account()
    with pytest.raises(KeyboardInterrupt):
        service.prune(6 * DAY)

    service.policy = Policy(warn_before=DAY, warn=Hook())
    assert service.prune(6 * DAY) == [("warn", "alice")]


def test_no_transaction_is_open_while_the_hook_runs(service: Service) -> None:
    def warn(account: Account) -> None:
        service.mailboxes.during("warn", account.address)

    service.policy = Policy(warn_before=DAY, warn=warn)
    service.token(expiry="1w")
    service.account()

    assert service.prune(6 * DAY) == [("warn", "alice")]


def test_who_has_an_account_for_less_than_the_time_of_the_warning_is_not_warned(
    service: Service,
) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook)
    service.token(expiry="1w")
    service.account()

    assert service.prune(timedelta(0)) == service.prune(6 * DAY) == []
    assert service.prune(7 * DAY) == [("delete", "alice")]
    assert hook.told == []


def test_without_a_hook_nobody_is_warned(service: Service) -> None:
    service.policy = Policy(warn_before=7 * DAY)
    service.token(expiry="30d")
    service.account()

    assert service.prune(29 * DAY) == []
    assert rows(service.session, "account")[0]["warned_at"] is None


def test_two_programs_at_once_warn_once(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook)
    service.token(expiry="30d")
    for name in ("a", "b", "c"):
        service.account(name)
    now = NOW + 25 * DAY
    actions = prune.pending(service.session, now=now, policy=service.policy)

    assert service.prune(25 * DAY) == [("warn", "a"), ("warn", "b"), ("warn", "c")]
    again = prune.run(
        service.session, actions, backends(service.mailboxes), now=now, policy=service.policy
    )

    assert list(again) == []
    assert [name for name, _ in hook.told] == ["a", "b", "c"]


# Disabling and deleting


def test_the_grace_is_counted_from_the_disabling(service: Service) -> None:
    service.policy = Policy(grace=3 * DAY)
    service.token(expiry="1d")
    service.account()

    assert service.prune(10 * DAY) == [("disable", "alice")]
    assert service.prune(13 * DAY - timedelta(seconds=1)) == []
    assert service.prune(13 * DAY) == [("delete", "alice")]


def test_a_grace_that_is_shortened_counts_for_those_who_are_disabled(service: Service) -> None:
    service.policy = Policy(grace=30 * DAY)
    service.token(expiry="1d")
    service.account()
    service.prune(DAY)

    service.policy = Policy()
    assert service.prune(DAY) == [("delete", "alice")]


ERRORS: list[AutomxError] = [
    *(TryAgainError(), NotReachedError(), UncertainError(), SilentError()),
    SettingsError("account_command is empty"),
]


@pytest.mark.parametrize(("action", "grace"), [("disable", DAY), ("delete", timedelta(0))])
def test_a_step_that_fails_is_told_and_done_by_the_next_run(
    service: Service, action: str, grace: timedelta
) -> None:
    service.policy = Policy(grace=grace)
    service.token(expiry="1d")
    service.account()
    (before,), boxes = rows(service.session, "account"), dict(service.mailboxes.boxes)
    if action == "disable":
        before |= {"state": "disabling", "changed_at": (NOW + DAY).replace(tzinfo=None)}

    for error in ERRORS:
        for is_done in (False, True):
            service.mailboxes.fail(action, error, is_done=is_done)
            (done,) = service.done(DAY)
            assert (done.action, done.error, done.account.address) == (
                *(action, error, "alice@example.com"),
            )
            assert rows(service.session, "account") == [before]
            service.mailboxes.boxes.update(boxes)

    assert service.prune(DAY) == [(action, "alice")]
    assert service.states() == ({"alice": "disabled"} if grace else {})


def test_a_mailbox_that_cannot_be_disabled_is_deleted_after_the_grace(service: Service) -> None:
    service.policy = Policy(grace=3 * DAY)
    service.token(expiry="1d")
    service.account()
    service.mailboxes.fail("disable", *(TryAgainError() for _ in range(10)))

    assert service.prune(DAY) == [("!disable", "alice")]
    assert service.prune(4 * DAY - timedelta(seconds=1)) == [("!disable", "alice")]
    assert service.states() == {"alice": "disabling"}
    assert service.prune(4 * DAY, dry_run=True) == [("delete", "alice")]
    assert service.prune(4 * DAY) == [("delete", "alice")]
    assert (service.states(), service.mailboxes.boxes) == ({}, {})


def test_a_mailbox_that_is_disabled_at_last_has_its_grace_from_then_on(service: Service) -> None:
    service.policy = Policy(grace=3 * DAY)
    service.token(expiry="1d")
    service.account()
    service.mailboxes.fail("disable", TryAgainError())

    assert service.prune(DAY) == [("!disable", "alice")]
    assert service.prune(3 * DAY) == [("disable", "alice")]
    assert service.prune(6 * DAY - timedelta(seconds=1)) == []
    assert service.prune(6 * DAY) == [("delete", "alice")]


def test_no_grace_passes_while_the_backend_does_not_answer(service: Service) -> None:
    service.policy = Policy(grace=DAY)
    service.token(expiry="1d")
    service.account()
    before = dump(service.session)
    service.mailboxes.fail("find", NotReachedError())

    assert service.prune(DAY) == [("!disable", "alice")]
    assert dump(service.session) == before
    assert service.prune(9 * DAY) == [("disable", "alice")]


def test_mail_that_stays_on_the_disk_is_told_and_the_account_goes(service: Service) -> None:
    service.token(expiry="1d")
    service.account()
    service.mailboxes.fail("delete", MailLeftError(cause="still on the disk"), is_done=True)

    (done,) = service.done(DAY)

    assert done.error is not None
    assert done.error.reason == "still on the disk"
    assert service.states() == {}
    assert service.prune(DAY) == []


# Mailboxes that somebody else has made


@pytest.mark.parametrize("is_spared", [False, True])
@pytest.mark.parametrize("state", ["active", "disabling", "disabled", "deleting"])
def test_a_mailbox_that_was_made_anew_for_somebody_else_stays(
    service: Service, state: str, is_spared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service.policy = Policy(grace=DAY)
    service.token(expiry="1d", spare_active=is_spared)
    service.account()
    service.set("alice", state=state)
    hers = service.mailboxes.boxes["alice@example.com"] = Box(Owner("party", "other"), "hers")
    hers.last_login = NOW + 5 * DAY

    assert service.prune(5 * DAY, dry_run=True) == [("forget", "alice")]
    assert service.prune(5 * DAY) == [("forget", "alice")]
    assert service.states() == {}
    assert service.mailboxes.boxes == {"alice@example.com": hers}
    assert hers.is_active
    assert [record.getMessage() for record in caplog.records] == [
        "alice@example.com: the mailbox was not made for this account, and stays"
    ]


def test_the_person_of_a_mailbox_that_was_made_anew_is_not_warned(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook)
    spared(service, timedelta(0))
    service.box().owner = Owner("party", "other")

    assert service.prune(24 * DAY, dry_run=True) == service.prune(24 * DAY) == []
    assert (hook.told, service.states()) == ([], {"alice": "active"})


# Rows that were changed by SQL


MOMENTS = ["2026-11-22 10:00:00", "2026-11-22T10:00:00", "2026-11-22 10:00:00.75"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("state", "column", "action"),
    [
        ("active", "expires_at", "disable"),
        ("active", "changed_at", "disable"),
        ("active", "warned_at", "disable"),
        ("disabling", "changed_at", "disable"),
        ("disabled", "changed_at", "delete"),
        ("deleting", "changed_at", "delete"),
        ("creating", "changed_at", "settle"),
        ("undoing", "changed_at", "settle"),
    ],
)
@pytest.mark.parametrize("accounts_database", ["sqlite", "postgresql"], indirect=True)
def test_a_moment_that_was_written_by_hand_does_not_prevent_an_action(
    service: Service, moment: str, state: str, column: str, action: str
) -> None:
    service.policy = Policy(grace=DAY if action == "disable" else timedelta(0))
    service.token(expiry="1d")
    service.account()
    service.set("alice", state=state, **{column: moment})

    expected = [(action, "alice")]
    after = DAY + 20 * MINUTE
    assert service.prune(after, dry_run=True) == service.prune(after) == expected
    assert service.prune(after) == []
    assert service.states() == ({"alice": "disabled"} if action == "disable" else {})


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_expiry_that_was_written_by_hand_counts_from_its_second_on(
    service: Service, moment: str
) -> None:
    service.token(expiry="1w")
    service.account()
    service.set("alice", expires_at=moment)

    assert service.prune(DAY - timedelta(seconds=1)) == []
    assert service.prune(DAY) == [("delete", "alice")]


def test_a_deletion_that_fails_after_the_grace_needs_no_second_grace(service: Service) -> None:
    service.policy = Policy(grace=DAY)
    service.token(expiry="1d")
    service.account()
    service.prune(DAY)
    before = dump(service.session)
    service.mailboxes.fail("delete", UncertainError())

    assert service.prune(2 * DAY) == [("!delete", "alice")]
    assert dump(service.session) == before
    assert service.prune(2 * DAY) == [("delete", "alice")]


def test_a_bug_in_a_backend_stops_the_run_and_leaves_the_account_as_it_was(
    service: Service,
) -> None:
    service.token(expiry="1d")
    service.account()
    before = dump(service.session)
    service.mailboxes.fail("delete", RuntimeError("a bug"))

    with pytest.raises(RuntimeError, match="a bug"):
        service.prune(DAY)

    assert dump(service.session) == before


def test_mailboxes_that_are_gone_already_are_no_error(service: Service) -> None:
    service.policy = Policy(grace=DAY)
    service.token(expiry="1d")
    service.account()
    service.mailboxes.boxes.clear()

    assert service.prune(DAY) == [("disable", "alice")]
    assert service.prune(2 * DAY) == [("delete", "alice")]
    assert service.states() == {}


def test_a_deletion_that_was_cut_off_is_carried_on_after_a_quarter_of_an_hour(
    service: Service,
) -> None:
    service.token(expiry="1d")
    for name in ("with", "without"):
        service.account(name)
        service.set(name, state="deleting")
    del service.mailboxes.boxes["without@example.com"]

    assert service.prune(15 * MINUTE - timedelta(seconds=1)) == []
    assert service.prune(15 * MINUTE) == [("delete", "with"), ("delete", "without")]
    assert (service.states(), service.mailboxes.boxes) == ({}, {})


@pytest.mark.parametrize("grace", [timedelta(0), DAY])
def test_what_another_program_was_quicker_with_is_not_done_twice(
    service: Service, grace: timedelta
) -> None:
    service.policy = Policy(grace=grace)
    service.token(expiry="1d")
    service.account()
    actions = prune.pending(service.session, now=NOW + DAY, policy=service.policy)
    service.prune(DAY)
    before = service.all()

    again = prune.run(
        service.session, actions, backends(service.mailboxes), now=NOW + DAY, policy=service.policy
    )

    assert list(again) == []
    assert service.all() == before
    assert [action for action, _ in service.mailboxes.calls].count("delete") == (not grace)


@pytest.mark.parametrize("state", ["deleting", "undoing"])
def test_what_another_program_is_at_work_on_is_left_to_it(service: Service, state: str) -> None:
    service.token()
    service.account()
    service.set("alice", state=state)
    now = NOW + HOUR
    actions = prune.pending(service.session, now=now, policy=service.policy)
    told: list[Done] = []

    def prune_as_well(_: str, __: str) -> None:
        service.mailboxes.during = lambda _, __: None
        with Session(service.session.engine) as other:
            told.extend(
                prune.run(
                    other, actions, backends(service.mailboxes), now=now, policy=service.policy
                )
            )

    service.mailboxes.during = prune_as_well
    assert len(service.prune(HOUR)) == 1

    assert told == []
    assert [action for action, _ in service.mailboxes.calls].count("delete") == 1


# People who still log in


def spared(service: Service, last_login: timedelta | None, *, expiry: str = "30d") -> None:
    """Make an account of a token that spares people who log in."""
    service.token(expiry=expiry, spare_active=True)
    service.account()
    service.box().last_login = None if last_login is None else NOW + last_login


def expiry(service: Service) -> timedelta | None:
    """Return when the only account expires, after NOW."""
    (account,) = accounts.all_accounts(service.session)
    service.session.rollback()
    return None if account.expires_at is None else account.expires_at - NOW


def test_who_logged_in_of_late_is_spared_for_a_lifetime_from_then_on(service: Service) -> None:
    spared(service, 12 * DAY)

    (done,) = service.done(30 * DAY)

    assert (done.action, done.expires_at) == (Action.PROLONG, NOW + 42 * DAY)
    assert expiry(service) == 42 * DAY
    assert service.prune(41 * DAY) == []
    assert service.prune(42 * DAY) == [("delete", "alice")]


def test_who_never_logs_in_any_more_is_not_spared(service: Service) -> None:
    spared(service, timedelta(0))

    assert service.prune(30 * DAY) == [("delete", "alice")]


def test_who_has_never_logged_in_is_not_spared(service: Service) -> None:
    spared(service, None)

    assert service.prune(30 * DAY, dry_run=True) == [("delete", "alice")]
    assert service.prune(30 * DAY) == [("delete", "alice")]


def test_without_a_login_a_longer_expiry_of_the_token_counts_from_the_creation(
    service: Service,
) -> None:
    spared(service, None)
    tokens.edit(service.session, "party", {"expiry": "40d"})
    service.session.commit()

    assert service.prune(30 * DAY) == [("prolong", "alice")]
    assert expiry(service) == 40 * DAY
    assert service.prune(40 * DAY) == [("delete", "alice")]


def test_logins_to_an_earlier_mailbox_of_the_name_do_not_count(service: Service) -> None:
    spared(service, -DAY)

    assert service.prune(30 * DAY) == [("delete", "alice")]


def test_who_cannot_be_seen_to_log_in_counts_as_active(service: Service) -> None:
    spared(service, None)
    service.box().sees_logins = False

    assert service.prune(30 * DAY) == [("prolong", "alice")]
    assert expiry(service) == 60 * DAY
    assert service.prune(60 * DAY) == [("prolong", "alice")]
    assert expiry(service) == 90 * DAY


def test_who_logs_in_before_the_account_could_be_disabled_is_spared(service: Service) -> None:
    service.policy = Policy(grace=3 * DAY)
    spared(service, timedelta(0))
    service.mailboxes.fail("disable", TryAgainError())

    assert service.prune(30 * DAY) == [("!disable", "alice")]
    service.box().last_login = NOW + 30 * DAY
    assert service.prune(31 * DAY) == [("prolong", "alice")]
    assert (service.states(), expiry(service)) == ({"alice": "active"}, 60 * DAY)


def test_who_was_disabled_by_a_step_that_seemed_to_fail_is_not_spared(service: Service) -> None:
    service.policy = Policy(grace=3 * DAY)
    spared(service, timedelta(0))
    service.mailboxes.fail("disable", UncertainError(), is_done=True)

    assert service.prune(30 * DAY) == [("!disable", "alice")]
    service.box().last_login = NOW + 30 * DAY
    assert service.prune(31 * DAY, dry_run=True) == [("disable", "alice")]
    assert service.prune(31 * DAY) == [("disable", "alice")]


def test_without_a_backend_everybody_counts_as_active(service: Service) -> None:
    service.token(expiry="30d", spare_active=True, backend="none")
    service.account()

    assert service.prune(30 * DAY) == [("prolong", "alice")]
    assert expiry(service) == 60 * DAY
    assert service.mailboxes.calls == []


def test_a_mailbox_that_is_gone_has_nobody_to_be_spared(service: Service) -> None:
    spared(service, None)
    service.mailboxes.boxes.clear()

    assert service.prune(30 * DAY) == [("delete", "alice")]
    assert service.states() == {}


def test_a_token_that_is_for_ever_now_spares_for_ever(service: Service) -> None:
    spared(service, timedelta(0))
    tokens.edit(service.session, "party", {"expiry": "never"})
    service.session.commit()

    (done,) = service.done(30 * DAY)

    assert (done.action, done.expires_at, expiry(service)) == (Action.PROLONG, None, None)
    assert service.prune(36500 * DAY) == []


def test_a_mailbox_that_is_gone_is_not_spared_for_ever(service: Service) -> None:
    spared(service, None)
    tokens.edit(service.session, "party", {"expiry": "never"})
    service.session.commit()
    service.mailboxes.boxes.clear()

    assert service.prune(30 * DAY) == [("delete", "alice")]


def test_a_token_that_does_not_spare_asks_for_no_login(service: Service) -> None:
    service.token(expiry="30d")
    service.account()
    service.box().last_login = NOW + 30 * DAY

    assert service.prune(30 * DAY) == [("delete", "alice")]
    assert [action for action, _ in service.mailboxes.calls] == ["create", "find", "delete"]


def test_who_is_spared_is_not_warned_and_who_is_not_is_warned(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook)
    spared(service, timedelta(0))
    service.account("busy")
    service.box("busy").last_login = NOW + 20 * DAY

    assert service.prune(23 * DAY) == [("warn", "alice"), ("prolong", "busy")]
    assert [name for name, _ in hook.told] == ["alice"]
    assert service.prune(24 * DAY) == []


def test_who_logs_in_after_the_warning_is_spared_and_warned_anew(service: Service) -> None:
    hook = Hook()
    service.policy = Policy(warn_before=7 * DAY, warn=hook)
    spared(service, timedelta(0))

    assert service.prune(23 * DAY) == [("warn", "alice")]
    service.box().last_login = NOW + 29 * DAY
    assert service.prune(30 * DAY) == [("prolong", "alice")]
    assert service.prune(52 * DAY) == [("warn", "alice")]
    assert service.prune(59 * DAY) == [("delete", "alice")]
    assert hook.told == [("alice", NOW + 30 * DAY), ("alice", NOW + 59 * DAY)]


def test_a_disabled_account_is_not_spared(service: Service) -> None:
    service.policy = Policy(grace=DAY)
    spared(service, timedelta(0))
    service.prune(30 * DAY)
    service.box().last_login = NOW + 30 * DAY

    assert service.prune(31 * DAY) == [("delete", "alice")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_nothing_is_done_while_the_login_cannot_be_asked_for(
    service: Service, error: AutomxError
) -> None:
    spared(service, timedelta(0))
    before = service.all()
    service.mailboxes.fail("find", error)

    assert service.prune(30 * DAY) == [("!delete", "alice")]
    assert service.all() == before


def test_an_expiry_that_somebody_made_up_is_told_and_holds_up_nothing_else(
    service: Service,
) -> None:
    spared(service, None)
    add(service.session, "other", prefix="", expiry="30d")
    service.account("bob", token="other")
    service.session.execute(sa.text("UPDATE token SET expiry = '1month' WHERE name = 'party'"))
    service.session.commit()

    first, second = service.done(30 * DAY)

    assert isinstance(first.error, BadRecordError)
    assert (second.action, second.error) == (Action.DELETE, None)


def test_an_account_that_was_changed_meanwhile_is_not_prolonged(service: Service) -> None:
    spared(service, None)
    actions = prune.pending(service.session, now=NOW + 30 * DAY, policy=service.policy)
    service.set("alice", state="disabled")
    before = service.all()

    done = prune.run(
        service.session,
        actions,
        backends(service.mailboxes),
        now=NOW + 30 * DAY,
        policy=service.policy,
    )

    assert list(done) == []
    assert service.all() == before


# Bringing in order


@pytest.mark.parametrize(("state", "uses"), [("creating", 0), ("undoing", 1)])
def test_what_was_left_half_made_is_brought_in_order_after_a_quarter_of_an_hour(
    service: Service, state: str, uses: int
) -> None:
    service.token()
    service.account()
    service.set("alice", state=state)
    before = service.all()

    assert service.prune(15 * MINUTE - timedelta(seconds=1)) == []
    assert service.all() == before
    assert service.prune(15 * MINUTE) == [("settle", "alice")]
    assert (service.states(), service.mailboxes.boxes, service.usecount) == ({}, {}, uses)
    assert [action for action, _ in service.mailboxes.calls] == ["create", "find", "delete"]


def test_without_a_mailbox_only_the_row_goes(service: Service) -> None:
    service.token()
    service.account()
    service.set("alice", state="creating")
    service.mailboxes.boxes.clear()

    assert service.prune(15 * MINUTE) == [("settle", "alice")]
    assert (service.states(), service.usecount) == ({}, 0)
    assert [action for action, _ in service.mailboxes.calls] == ["create", "find"]


@pytest.mark.parametrize("state", ["creating", "undoing"])
def test_a_mailbox_that_somebody_else_has_made_stays(
    service: Service, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    service.token()
    service.account()
    service.set("alice", state=state)
    hers = service.mailboxes.boxes["alice@example.com"] = Box(Owner("party", "other"), "hers")

    assert service.prune(15 * MINUTE) == [("settle", "alice")]
    assert service.states() == {}
    assert service.mailboxes.boxes == {"alice@example.com": hers}
    assert [record.getMessage() for record in caplog.records] == [
        "alice@example.com: the mailbox was not made for this account, and stays"
    ]


@pytest.mark.parametrize("action", ["find", "delete"])
def test_an_account_that_could_not_be_brought_in_order_comes_again_at_once(
    service: Service, action: str
) -> None:
    service.token()
    service.account()
    service.set("alice", state="creating")

    for error in ERRORS:
        service.mailboxes.fail(action, error)
        assert service.prune(15 * MINUTE) == [("!settle", "alice")]
        assert service.states() == {"alice": "undoing"}
        assert service.usecount == 0

    assert service.prune(15 * MINUTE) == [("settle", "alice")]
    assert (service.states(), service.mailboxes.boxes, service.usecount) == ({}, {}, 0)


def test_a_use_that_the_table_never_had_is_not_given_back(service: Service) -> None:
    service.token()
    service.account()
    service.set("alice", state="creating")
    service.session.execute(sa.text("UPDATE token SET usecount = 0"))
    service.session.commit()

    assert service.prune(15 * MINUTE) == [("settle", "alice")]
    assert (service.states(), service.usecount) == ({}, 0)


@pytest.mark.parametrize("grace", [timedelta(0), DAY])
def test_an_account_that_was_given_more_time_meanwhile_keeps_its_mailbox(
    service: Service, grace: timedelta
) -> None:
    service.policy = Policy(grace=grace)
    service.token(expiry="1d")
    service.account()
    now = NOW + 2 * DAY
    actions = prune.pending(service.session, now=now, policy=service.policy)
    accounts.change(service.session, actions[0].account, expires_at=NOW + 30 * DAY)
    before = service.all()

    done = prune.run(
        service.session, actions, backends(service.mailboxes), now=now, policy=service.policy
    )

    assert list(done) == []
    assert service.all() == before


def test_an_account_that_is_made_meanwhile_is_not_brought_in_order(service: Service) -> None:
    service.token()
    service.account()
    service.set("alice", state="creating")
    actions = prune.pending(service.session, now=NOW + HOUR, policy=service.policy)
    service.set("alice", state="active")
    before = service.all()

    done = prune.run(
        service.session, actions, backends(service.mailboxes), now=NOW + HOUR, policy=service.policy
    )

    assert list(done) == []
    assert service.all() == before
    assert service.usecount == 1


# Backends that do not answer


def silent_for(service: Service, names: str, action: str = "delete") -> None:
    """Let the mail server never answer for some accounts."""
    check: Callable[[str, str], object] = service.mailboxes.during

    def silence(called: str, address: str) -> None:
        check(called, address)
        if called == action and address.partition("@")[0] in names:
            raise SilentError(cause="no answer")

    service.mailboxes.during = silence


def test_a_backend_that_is_silent_three_times_is_asked_ever_more_rarely(service: Service) -> None:
    service.token(expiry="1d")
    names = "abcdefghijklmnopqrst"
    for name in names:
        service.account(name)
    silent_for(service, names)
    service.mailboxes.calls.clear()

    done = service.done(DAY)

    assert [item.account.address[0] for item in done] == list(names)
    asked = [address[0] for action, address in service.mailboxes.calls if action == "delete"]
    assert "".join(asked) == "abcehm"  # then one, two, four, eight are postponed
    causes = [item.error.cause for item in done if item.error]
    assert causes == ["no answer" if name in asked else POSTPONED for name in names]
    assert set(service.states().values()) == {"active"}
    assert service.usecount == len(names)


def test_accounts_that_never_get_an_answer_hold_up_no_others(service: Service) -> None:
    service.token(expiry="1d")
    for name in "abcdefgh":
        service.account(name)
    silent_for(service, "abcd")

    service.prune(DAY)
    service.prune(DAY)

    assert "".join(service.states()) == "abcd"


def test_a_silent_backend_does_not_hold_up_another_one(service: Service) -> None:
    service.token(expiry="1d")
    add(service.session, "none", prefix="", expiry="1d", backend="none")
    for name in "abc":
        service.account(name)
    service.account("other", token="none")
    service.account("d")
    silent_for(service, "abcd")

    assert service.prune(DAY) == [
        *(("!delete", "a"), ("!delete", "b"), ("!delete", "c")),
        *(("delete", "other"), ("!delete", "d")),
    ]
    assert ("delete", "d@example.com") not in service.mailboxes.calls


def test_a_backend_that_answers_in_between_or_refuses_is_not_silent(service: Service) -> None:
    service.token(expiry="1d")
    for name in "abcdefgh":
        service.account(name)
    service.mailboxes.calls.clear()
    silent, refused = SilentError(), TryAgainError()
    service.mailboxes.fail("delete", silent, silent, refused, silent, silent, refused, refused)

    done = service.prune(DAY)

    assert done == [*(("!delete", name) for name in "abcdefg"), ("delete", "h")]
    assert [action for action, _ in service.mailboxes.calls].count("delete") == 8


def test_a_state_that_the_code_does_not_know_delays_nothing_else(service: Service) -> None:
    service.token(expiry="1d")
    service.account("odd")
    service.account("other")
    service.set("odd", state="archived")

    assert service.prune(2 * DAY) == [("delete", "other")]


def test_states_are_those_that_the_code_knows() -> None:
    assert [state.value for state in State] == [
        *("creating", "active", "disabling", "disabled", "undoing", "deleting"),
    ]


@pytest.mark.parametrize("accounts_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        *("state = 'lost'", "created_at = 'x'", "address = 'nobody'", "backend = 'other'"),
        *("expires_at = CAST(x'30ff' AS TEXT)", "expires_at = 'soon'", "expires_at = 1796256000"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_stops_no_other(
    service: Service, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    service.token(expiry="1h")
    service.account("bad")
    service.account("good")
    service.session.execute(
        sa.text(f"UPDATE account SET {change} WHERE address = 'bad@example.com'")
    )
    service.session.commit()
    later = NOW + 2 * HOUR
    pending = prune.pending(service.session, now=later, policy=Policy())
    assert [item.account.address for item in pending] == ["good@example.com"]
    assert [found.address for found in accounts.all_accounts(service.session)] == [
        "good@example.com"
    ]
    column = change.partition(" ")[0]
    assert caplog.messages[0].startswith(f"table account, id 1: {column}: expected ")


@pytest.mark.parametrize("state", State)
def test_every_state_of_an_account_can_be_read(state: State) -> None:
    assert ACCOUNT["state"].read(state.value) == state.value
