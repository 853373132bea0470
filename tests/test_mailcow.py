"""The backend mailcow, against a local server that answers as mailcow was seen to do."""

import contextlib
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from automx.accounts.keystates import KeyStates
from automx.backends import Backends, Mailbox, Owner
from automx.backends.keys import TRIAL, TRUST, KeyState, KeyStatus, ProcessMemory
from automx.backends.mailcow import Mailcow
from automx.config import AccountSettings
from automx.database import Session, create_engine
from automx.errors import (
    AutomxError,
    MailLeftError,
    MisconfiguredError,
    NotReachedError,
    SettingsError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
    UnfitAddressError,
    WeakPasswordError,
)
from tests.commandline import attempt, automx
from tests.mailcow import STRICT, Domain, FakeMailcow, Key, Policy, Reply, running_mailcow
from tests.processes import free_port, serving, wait_until
from tests.tls import Authority

OWNER = Owner("school", "1f3a")
TAG = "automx:school"
MARK = "automx-account:1f3a"
PASSWORD = "correct-Horse7"
ALICE = "alice@lab.test"
QUICK = 0.5  # seconds that a call may take in tests where it has to fail

Open = Callable[..., Mailcow]


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def server() -> Iterator[FakeMailcow]:
    with running_mailcow() as mailcow:
        yield mailcow


@pytest.fixture
def connect(server: FakeMailcow) -> Iterator[Open]:
    """Open the backend on the server, or on another endpoint, with another key, ..."""
    opened = []

    def backend(endpoint: str = "", token: str = "", **options: Any) -> Mailcow:
        options.setdefault("timeout", 20)
        options.setdefault("ca_file", "")
        options.setdefault("keys", ProcessMemory())
        opened.append(Mailcow(endpoint or server.url, token or server.key, **options))
        return opened[-1]

    yield backend
    for mailcow in opened:
        mailcow.close()


@pytest.fixture
def mailcow(connect: Open) -> Mailcow:
    return connect()


# What was recorded: each case in the words of the record, a request, what was there before, the
# answer, and what the backend makes of such an answer.

SHOWN = "an object that tells of the mailbox"


@dataclass(frozen=True)
class Case:
    words: str
    path: str
    answer: object  # entries without "log", an object, or SHOWN
    outcome: object  # what the backend returns, or a class of errors; ... if it never asks so
    body: Any = None
    address: str = ALICE  # that the backend is asked about
    status: int = 200
    before: Callable[[FakeMailcow], object] = lambda _: None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    method: str = ""


def success(code: str, address: str) -> dict[str, Any]:
    return {"type": "success", "msg": [code, address]}


def danger(*message: Any) -> dict[str, Any]:
    return {"type": "danger", "msg": list(message) if len(message) > 1 else message[0]}


def refusal(code: str) -> type[MisconfiguredError]:
    """Return the class of the error for a code of mailcow."""
    return WeakPasswordError if code == "password_complexity" else MisconfiguredError


def error(message: str) -> dict[str, Any]:
    return {"type": "error", "msg": message}


def added(address: str, escaped: str = "") -> list[Any]:
    return [success("rl_saved", address), success("mailbox_added", escaped or address)]


def attributes(local_part: Any = "alice", domain: str = "lab.test", **others: Any) -> Any:
    """Return the body of an add; ... leaves a field out."""
    fields: dict[str, Any] = {"local_part": local_part, "domain": domain}
    fields |= {"password": PASSWORD, "password2": PASSWORD} | others
    return {name: value for name, value in fields.items() if value is not ...}


MAILADM: dict[str, Any] = {
    "quota": 0,
    "active": "1",
    "force_pw_update": "0",
    "tls_enforce_in": "0",
    "tls_enforce_out": "0",
    "tags": ["mailadm:school"],
}

WRONG_KEY = {"X-API-Key": "000000-000000-000000-000000-000000"}
NO_KEY = {"X-API-Key": None}


def has(*addresses: str, **fields: Any) -> Callable[[FakeMailcow], None]:
    def prepare(mailcow: FakeMailcow) -> None:
        for address in addresses:
            mailcow.add(address, **fields)

    return prepare


def small(domain: Domain, *mailboxes: str) -> Callable[[FakeMailcow], None]:
    def prepare(mailcow: FakeMailcow) -> None:
        mailcow.domains["small.test"] = domain
        for address in mailboxes:
            mailcow.add(address, quota=50 * 2**20)

    return prepare


def sets(**settings: Any) -> Callable[[FakeMailcow], None]:
    def prepare(mailcow: FakeMailcow) -> None:
        for name, value in settings.items():
            setattr(mailcow, name, value)

    return prepare


def key(**settings: Any) -> Callable[[FakeMailcow], None]:
    def prepare(mailcow: FakeMailcow) -> None:
        mailcow.keys[mailcow.key] = Key(**settings)

    return prepare


def read_only(mailcow: FakeMailcow) -> None:
    mailcow.keys[mailcow.key] = Key("ro")


def read_only_with_alice(mailcow: FakeMailcow) -> None:
    mailcow.add(ALICE)
    read_only(mailcow)


def unmovable(why: str) -> Callable[[FakeMailcow], None]:
    def prepare(mailcow: FakeMailcow) -> None:
        mailcow.add(ALICE)
        mailcow.maildir_trouble = why

    return prepare


def an_alias(mailcow: FakeMailcow) -> None:
    mailcow.aliases["ali@lab.test"] = "bob@lab.test"


def with_alias(mailcow: FakeMailcow) -> None:
    mailcow.add(ALICE)
    mailcow.aliases["ali@lab.test"] = ALICE


FOUND = Mailbox(is_active=True, is_ours=False)

ADD = [
    Case("add (mailadm's payload)", "add/mailbox", added(ALICE), None, attributes(**MAILADM)),
    Case(
        "add the same again",
        "add/mailbox",
        [danger("object_exists", ALICE)],
        TakenError,
        attributes(),
        before=has(ALICE),
    ),
    Case(
        "add the same again, other case",
        "add/mailbox",
        [danger("object_exists", ALICE)],
        TakenError,
        attributes("ALICE"),
        before=has(ALICE),
    ),
    Case(
        "add, only the four needed fields",
        "add/mailbox",
        added("bob@lab.test"),
        None,
        attributes("bob"),
        address="bob@lab.test",
    ),
    Case(
        "add, quota 100 MiB, local part in capitals",
        "add/mailbox",
        added("carol@lab.test"),
        None,
        attributes("CAROL", quota=100),
        address="carol@lab.test",
    ),
    Case(
        "add, active false",
        "add/mailbox",
        added("dora@lab.test"),
        None,
        attributes("dora", active=False),
        address="dora@lab.test",
    ),
    Case(
        "add, plus sign in the local part",
        "add/mailbox",
        added("erin+tag@lab.test"),
        UnfitAddressError,
        attributes("erin+tag"),
        address="erin+tag@lab.test",
    ),
    Case(
        "add, several tags and a name",
        "add/mailbox",
        added("frank@lab.test"),
        None,
        attributes("frank", tags=["one", "two"], name="Frank"),
        address="frank@lab.test",
    ),
    Case(
        "add, prehashed password",
        "add/mailbox",
        added("gina@lab.test"),
        None,
        attributes("gina", password="{SSHA256}abc", password2="{SSHA256}abc"),
        address="gina@lab.test",
    ),
    Case(
        "add, a tag of 300 characters",
        "add/mailbox",
        added("hugo@lab.test"),
        None,
        attributes("hugo", tags=["x" * 300]),
        address="hugo@lab.test",
    ),
    Case(
        "add, apostrophe in the local part",
        "add/mailbox",
        added("o'neil@lab.test", "o&#039;neil@lab.test"),
        None,
        attributes("o'neil"),
        address="o'neil@lab.test",
    ),
    Case(
        "add, ampersand in the local part",
        "add/mailbox",
        added("a&b@lab.test", "a&amp;b@lab.test"),
        None,
        attributes("a&b"),
        address="a&b@lab.test",
    ),
    *(
        Case(words, "add/mailbox", [danger(code)], refusal(code), body, before=before)
        for words, code, body, before in (
            (
                "password too short (policy: 6)",
                "password_complexity",
                attributes(password="aB3!x", password2="aB3!x"),
                has(),
            ),
            (
                "password empty",
                "password_complexity",
                attributes(password="", password2=""),
                has(),
            ),
            (
                "password fields missing",
                "password_complexity",
                attributes(password=..., password2=...),
                has(),
            ),
            ("password2 differs", "password_mismatch", attributes(password2="other"), has()),
            (
                "password against a strict policy (8, letters, digits, special, both cases)",
                "password_complexity",
                attributes(password="correcthorse", password2="correcthorse"),
                sets(policy=STRICT),
            ),
            ("unknown domain", "access_denied", attributes(domain="nowhere.test"), has()),
            ("domain not a name", "mailbox_invalid", attributes(domain="not a name"), has()),
            ("local part empty", "mailbox_invalid", attributes(""), has()),
            ("local part with a space", "mailbox_invalid", attributes("a b"), has()),
            ("local part of 65 characters", "mailbox_invalid", attributes("a" * 65), has()),
            ("local part missing", "mailbox_invalid", attributes(...), has()),
            ("local part non-ASCII", "mailbox_invalid", attributes("jürgen"), has()),
        )
    ),
    Case(
        "mailbox limit of the domain reached",
        "add/mailbox",
        [danger("max_mailbox_exceeded", 1, 1)],
        TryAgainError,
        attributes("b", "small.test"),
        before=small(Domain(mailboxes=1), "a@small.test"),
    ),
    Case(
        "quota above the domain's limit per mailbox (100)",
        "add/mailbox",
        [danger("mailbox_quota_exceeded", 100)],
        MisconfiguredError,
        attributes("b", "small.test", quota=101),
        before=small(Domain(maxquota=100)),
    ),
    Case(
        "quota above what the domain has left (50)",
        "add/mailbox",
        [danger("mailbox_quota_left_exceeded", 50)],
        TryAgainError,
        attributes("b", "small.test", quota=51),
        before=small(Domain(maxquota=100, quota=100), "a@small.test"),
    ),
    Case(
        "quota 0 in a domain with limits",
        "add/mailbox",
        added("unlim@small.test"),
        None,
        attributes("unlim", "small.test", quota=0),
        address="unlim@small.test",
        before=small(Domain(maxquota=100, quota=100), "a@small.test"),
    ),
    Case(
        "an alias has the address",
        "add/mailbox",
        [danger("is_alias", "ali@lab.test")],
        TakenError,
        attributes("ali"),
        address="ali@lab.test",
        before=an_alias,
    ),
    Case(
        "a temporary alias has the address",
        "add/mailbox",
        [danger("is_spam_alias", "ali@lab.test")],
        TakenError,
        attributes("ali"),
        address="ali@lab.test",
        before=sets(spam_aliases={"ali@lab.test"}),
    ),
    Case("memcached down, add", "add/mailbox", added(ALICE), None, attributes()),
    Case("add again after delete", "add/mailbox", added(ALICE), None, attributes()),
]

GET = [
    Case("get all, no mailbox on the server", "get/mailbox/all", {}, ...),
    Case("get one, missing", "get/mailbox/alice@lab.test", {}, None),
    Case(
        "get one, missing, domain unknown",
        "get/mailbox/alice@nowhere.test",
        {},
        MisconfiguredError,
        address="alice@nowhere.test",
    ),
    Case("get one, not an address", "get/mailbox/alice", {}, None),
    Case("get one", "get/mailbox/alice%40lab.test", SHOWN, FOUND, before=has(ALICE)),
    Case("get one, @ not escaped", "get/mailbox/alice@lab.test", SHOWN, FOUND, before=has(ALICE)),
    Case("get one, capitals", "get/mailbox/ALICE@lab.test", SHOWN, FOUND, before=has(ALICE)),
    *(
        Case(words, f"get/mailbox/{written}", answer, ..., before=has(ALICE, address))
        for words, address, written, answer in (
            ("get one, plus escaped as %2B", "e+t@lab.test", "e%2Bt@lab.test", {}),
            ("get one, plus escaped twice, %252B", "e+t@lab.test", "e%252Bt@lab.test", SHOWN),
            ("get one, plus not escaped", "e+t@lab.test", "e+t@lab.test", {}),
            ("get one, ampersand escaped once", "a&b@lab.test", "a%26b@lab.test", {}),
            ("get one, ampersand escaped twice", "a&b@lab.test", "a%2526b@lab.test", SHOWN),
        )
    ),
    Case(
        "get one, created with active false",
        "get/mailbox/alice@lab.test",
        SHOWN,
        Mailbox(is_active=False, is_ours=False),
        before=has(ALICE, active=0),
    ),
    Case("get all of one domain that has none", "get/mailbox/all/small.test", {}, ...),
    Case(
        "get one with a tag filter",
        "get/mailbox/alice@lab.test?tags=automx",
        [SHOWN],
        ...,
        before=has(ALICE, tags=("automx",)),
    ),
    Case("get the domain", "get/domain/lab.test", {"domain_name": "lab.test"}, ...),
    Case("get an unknown domain", "get/domain/nowhere.test", {}, ...),
    Case(
        "get one, its tag was too long",
        "get/mailbox/alice@lab.test",
        SHOWN,
        FOUND,
        before=has(ALICE),
    ),
    Case(
        "… its tags",
        "get/mailbox/alice@lab.test",
        SHOWN,
        Mailbox(is_active=True, is_ours=True),
        before=has(ALICE, tags=("other", MARK)),
    ),
    Case("… and get it", "get/mailbox/alice@lab.test", {}, None),
    Case("memcached down, get", "get/mailbox/alice@lab.test", {}, None),
]

ONE = "get/mailbox/alice@lab.test"
DENIED = "API read/write access denied"
ELSEWHERE = "api access denied for ip 127.0.0.1"

KEYS = [
    *(
        Case(
            f"wrong key, {words}",
            path,
            error("authentication failed"),
            MisconfiguredError,
            body,
            status=401,
            headers=WRONG_KEY,
        )
        for words, path, body in (
            ("get one", ONE, None),
            ("add", "add/mailbox", attributes()),
            ("delete", "delete/mailbox", [ALICE]),
        )
    ),
    Case("no key, get one", ONE, "", UncertainError, headers=NO_KEY, before=has(ALICE)),
    Case("no key, add", "add/mailbox", "", UncertainError, attributes(), headers=NO_KEY),
    Case(
        "no key, delete",
        "delete/mailbox",
        error(DENIED),
        MisconfiguredError,
        [ALICE],
        status=403,
        headers=NO_KEY,
    ),
    Case("empty key, get", ONE, "", UncertainError, headers={"X-API-Key": ""}),
    Case(
        "right key, address not in allow_from",
        ONE,
        error(ELSEWHERE),
        MisconfiguredError,
        status=401,
        before=key(allow_from=("192.0.2.0/24",)),
    ),
    Case(
        "right key, address not in allow_from, add",
        "add/mailbox",
        error(ELSEWHERE),
        MisconfiguredError,
        attributes(),
        status=401,
        before=key(allow_from=("192.0.2.0/24",)),
    ),
    Case("allow_from 127.0.0.0/8", ONE, {}, None, before=key(allow_from=("127.0.0.0/8",))),
    Case("skip_ip_check = 1, any address", ONE, {}, None),
    Case(
        "key not active",
        ONE,
        error("authentication failed"),
        MisconfiguredError,
        status=401,
        before=key(is_active=False),
    ),
    Case("read-only key, get one", ONE, SHOWN, FOUND, before=read_only_with_alice),
    Case(
        "read-only key, add",
        "add/mailbox",
        error(DENIED),
        MisconfiguredError,
        attributes(),
        status=403,
        before=read_only,
    ),
    Case(
        "read-only key, delete",
        "delete/mailbox",
        error(DENIED),
        MisconfiguredError,
        [ALICE],
        status=403,
        before=read_only,
    ),
    Case(
        "key with other characters around it",
        ONE,
        {},
        None,
        headers={"X-API-Key": '"AAAAAA-BBBBBB-CCCCCC-DDDDDD-EEEEEE"'},
    ),
]

NO_JSON = "Request body doesn't contain valid json!"
INCOMPLETE = "Cannot find attributes in post data"

FORMS = [
    Case("body not JSON", "add/mailbox", error(NO_JSON), MisconfiguredError, b"attr", status=400),
    Case("body JSON null", "add/mailbox", error(NO_JSON), MisconfiguredError, b"null", status=400),
    Case("body JSON list", "add/mailbox", [danger("mailbox_invalid")], MisconfiguredError, ["a"]),
    Case(
        "no Content-Type",
        "add/mailbox",
        error(INCOMPLETE),
        MisconfiguredError,
        attributes(),
        headers={"Content-Type": ""},
    ),
    Case(
        "Content-Type with charset",
        "add/mailbox",
        added(ALICE),
        None,
        attributes(),
        headers={"Content-Type": "application/json; charset=utf-8"},
    ),
    Case(
        "form-encoded attr=<json>",
        "add/mailbox",
        added("m2@lab.test"),
        None,
        b"attr=" + json.dumps(attributes("m2")).encode(),
        address="m2@lab.test",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Case("GET on add", "add/mailbox", error(INCOMPLETE), MisconfiguredError, method="GET"),
    Case(
        "POST on get", ONE, error("only GET method is allowed"), MisconfiguredError, {}, status=405
    ),
    Case(
        "unknown route",
        "add/nothing",
        error("route not found"),
        MisconfiguredError,
        attributes(),
        status=404,
    ),
    Case(
        "unknown action",
        "nothing/mailbox",
        error("route not found"),
        MisconfiguredError,
        attributes(),
        status=404,
    ),
    Case(
        "browser header",
        ONE,
        "",
        UncertainError,
        status=403,
        headers={"Sec-Fetch-Dest": "document"},
    ),
]


def removed(address: str) -> list[Any]:
    return [success("mailbox_removed", address)]


def warning(text: str) -> dict[str, Any]:
    return {"type": "warning", "msg": f"Could not move maildir to garbage collector: {text}"}


DELETE = [
    Case("delete existing", "delete/mailbox", removed(ALICE), None, [ALICE], before=has(ALICE)),
    Case("delete missing", "delete/mailbox", [danger("access_denied")], None, [ALICE]),
    Case(
        "delete, unknown domain",
        "delete/mailbox",
        [danger("access_denied")],
        MisconfiguredError,
        ["alice@nowhere.test"],
        address="alice@nowhere.test",
    ),
    Case("delete, not an address", "delete/mailbox", [danger("access_denied")], None, ["alice"]),
    Case(
        "delete, one there and one missing",
        "delete/mailbox",
        [success("mailbox_removed", "m1@lab.test"), danger("access_denied")],
        None,
        ["m1@lab.test", "nobody@lab.test"],
        address="m1@lab.test",
        before=has("m1@lab.test"),
    ),
    Case(
        "delete, one missing and one there",
        "delete/mailbox",
        [danger("access_denied"), success("mailbox_removed", "m2@lab.test")],
        None,
        ["nobody@lab.test", "m2@lab.test"],
        address="m2@lab.test",
        before=has("m2@lab.test"),
    ),
    Case(
        "delete, a bare string",
        "delete/mailbox",
        removed("gina@lab.test"),
        None,
        "gina@lab.test",
        address="gina@lab.test",
        before=has("gina@lab.test"),
    ),
    Case(
        "delete, capitals",
        "delete/mailbox",
        removed("Carol@lab.test"),
        None,
        ["Carol@lab.test"],
        address="carol@lab.test",
        before=has("carol@lab.test"),
    ),
    Case(
        "delete, an empty list",
        "delete/mailbox",
        {"type": "success", "msg": "Task completed"},
        UncertainError,
        [],
        before=has(ALICE),
    ),
    Case(
        "delete, an object",
        "delete/mailbox",
        [danger("access_denied")],
        TryAgainError,
        {"items": [ALICE]},
        before=has(ALICE),
    ),
    Case(
        "delete, the maildir could not be moved",
        "delete/mailbox",
        [warning("command failed: stub told to fail"), *removed(ALICE)],
        MailLeftError,
        [ALICE],
        before=unmovable("command failed: stub told to fail"),
    ),
    Case(
        "delete, no Dovecot container",
        "delete/mailbox",
        [warning(""), *removed(ALICE)],
        MailLeftError,
        [ALICE],
        before=unmovable(""),
    ),
    Case(
        "delete, apostrophe",
        "delete/mailbox",
        removed("o&#039;neil@lab.test"),
        None,
        ["o'neil@lab.test"],
        address="o'neil@lab.test",
        before=has("o'neil@lab.test"),
    ),
    Case(
        "delete an alias' target",
        "delete/mailbox",
        removed(ALICE),
        None,
        [ALICE],
        before=with_alias,
    ),
]


def modified(address: str) -> list[Any]:
    return [success("mailbox_modified", address)]


def edit(*addresses: str, **attributes: str) -> dict[str, Any]:
    return {"items": list(addresses), "attr": attributes or {"active": "0"}}


def over_quota(**limits: Any) -> Callable[[FakeMailcow], None]:
    """Put a mailbox of 50 MiB into a domain that allows less by now."""
    return small(Domain(**limits), "a@small.test")


def in_inactive_domain(mailcow: FakeMailcow) -> None:
    mailcow.add(ALICE)
    mailcow.domains["lab.test"].active = 0


def unfinished(mailcow: FakeMailcow) -> None:
    """Leave a mailbox without its row of quota2."""
    nothing = dict.fromkeys(("username", "active", "domain", "local_part"))
    mailcow.add(ALICE, tags=(TAG, MARK), **nothing)


DONE = {"type": "success", "msg": "Task completed"}
EDIT = [
    Case("edit", "edit/mailbox", modified(ALICE), None, edit(ALICE), before=has(ALICE)),
    Case(
        "edit, nothing changes",
        "edit/mailbox",
        modified(ALICE),
        None,
        edit(ALICE),
        before=has(ALICE, active=0),
    ),
    Case(
        "edit, capitals",
        "edit/mailbox",
        modified("ALICE@lab.test"),
        None,
        edit("ALICE@lab.test"),
        before=has(ALICE),
    ),
    Case(
        "edit, apostrophe",
        "edit/mailbox",
        modified("o'neil@lab.test"),
        None,
        edit("o'neil@lab.test"),
        address="o'neil@lab.test",
        before=has("o'neil@lab.test"),
    ),
    Case("edit missing", "edit/mailbox", [danger("access_denied")], None, edit(ALICE)),
    Case(
        "edit, unknown domain",
        "edit/mailbox",
        [danger("access_denied")],
        UncertainError,
        edit("alice@nowhere.test"),
        address="alice@nowhere.test",
    ),
    Case(
        "edit, not an address",
        "edit/mailbox",
        [danger("username_invalid", "alice")],
        TryAgainError,
        edit("alice"),
        before=has(ALICE),
    ),
    Case(
        "edit, one missing and one there",
        "edit/mailbox",
        [danger("access_denied"), *modified(ALICE)],
        None,
        edit("nobody@lab.test", ALICE),
        before=has(ALICE),
    ),
    Case("edit, no items", "edit/mailbox", DONE, UncertainError, edit(), before=has(ALICE)),
    Case("edit, items missing", "edit/mailbox", DONE, ..., {"attr": {"active": "0"}}),
    Case(
        "edit, inactive domain",
        "edit/mailbox",
        modified(ALICE),
        None,
        edit(ALICE),
        before=in_inactive_domain,
    ),
    Case(
        "edit, without a row of quota2",
        "edit/mailbox",
        [danger("access_denied")],
        UncertainError,
        edit(ALICE),
        before=unfinished,
    ),
    Case(
        "edit, quota above the limit of the domain for one mailbox",
        "edit/mailbox",
        [danger("mailbox_quota_exceeded", 10)],
        ...,
        edit("a@small.test"),
        before=over_quota(maxquota=10),
    ),
    Case(
        "edit, quota above what the domain has left",
        "edit/mailbox",
        [danger("mailbox_quota_left_exceeded", 10)],
        ...,
        edit("a@small.test"),
        before=over_quota(quota=10),
    ),
    Case(
        "edit, quota above the limits, and set to 0",
        "edit/mailbox",
        modified("a@small.test"),
        None,
        edit("a@small.test", active="0", quota="0"),
        address="a@small.test",
        before=over_quota(maxquota=10, quota=10),
    ),
    Case(
        "read-only key, edit",
        "edit/mailbox",
        error(DENIED),
        MisconfiguredError,
        edit(ALICE),
        status=403,
        before=read_only_with_alice,
    ),
    Case(
        "add in an inactive domain",
        "add/mailbox",
        added("new@lab.test"),
        ...,
        attributes("new"),
        before=in_inactive_domain,
    ),
]

OUTAGES = [
    Case(
        f"{words}, {action}",
        path,
        text,
        UncertainError,
        body,
        status=status,
        before=sets(trouble=trouble),
    )
    for words, trouble, status, text in (
        ("dockerapi down", "dockerapi", 500, "Connection to dockerapi container failed."),
        ("Redis down", "redis", 500, "Connection to Redis failed."),
        ("MariaDB down", "mariadb", 500, "Connection to database failed."),
        ("php-fpm down", "php-fpm", 502, "<title>Preparing</title>"),
    )
    for action, path, body in (
        ("get", ONE, None),
        ("add", "add/mailbox", attributes()),
        ("delete", "delete/mailbox", [ALICE]),
    )
]

RECORD = [*ADD, *GET, *KEYS, *FORMS, *DELETE, *EDIT, *OUTAGES]


def ask(
    server: FakeMailcow,
    path: str,
    body: object = None,
    *,
    headers: Mapping[str, str | None] | None = None,
    method: str = "",
) -> tuple[int, bytes, str]:
    """Send a request as it stands; return status, body and cookie of the answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent: dict[str, str | None] = {"X-API-Key": server.key, "Content-Type": "application/json"}
    sent.update(headers or {})
    if data is None:
        sent.pop("Content-Type")
    request = urllib.request.Request(
        f"{server.url}/{path}",
        data=data,
        headers={name: value for name, value in sent.items() if value is not None},
        method=method or None,
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers["Set-Cookie"] or ""
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read(), answer.headers["Set-Cookie"] or ""


def simplified(body: bytes) -> object:
    """Return an answer in the form in which the record has it."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode()

    def simple(part: Any) -> object:
        if isinstance(part, dict) and "username" in part:
            return SHOWN
        if isinstance(part, dict) and "domain_name" in part:
            return {"domain_name": part["domain_name"]}
        if isinstance(part, dict):
            return {name: value for name, value in part.items() if name != "log"}
        return part

    return [simple(part) for part in answer] if isinstance(answer, list) else simple(answer)


@pytest.mark.parametrize("case", RECORD, ids=lambda case: case.words)
def test_local_server_answers_as_mailcow_did(case: Case, server: FakeMailcow) -> None:
    case.before(server)
    status, body, _ = ask(server, case.path, case.body, headers=case.headers, method=case.method)
    assert status == case.status
    if isinstance(case.answer, str) and case.answer not in {"", SHOWN}:
        assert case.answer in body.decode()
    else:
        assert simplified(body) == case.answer


def assert_public(failure: AutomxError, server: FakeMailcow) -> None:
    """Check that people are told nothing that is not for them, and the log no secret."""
    assert str(failure) in {
        TakenError.public,
        TryAgainError.public,
        MisconfiguredError.public,
        UnfitAddressError.public,
        NotReachedError.public,
        UncertainError.public,
        SilentError.public,
        "The mail server has no room for further mailboxes.",
    }
    assert failure.cause
    assert server.key not in failure.cause
    assert PASSWORD not in failure.cause


@pytest.mark.parametrize(
    "case", [case for case in RECORD if case.outcome is not ...], ids=lambda case: case.words
)
def test_each_answer_has_its_outcome(case: Case, server: FakeMailcow, mailcow: Mailcow) -> None:
    case.before(server)
    status, body, _ = ask(server, case.path, case.body, headers=case.headers, method=case.method)
    server.trouble = ""
    server.keys[server.key] = Key()

    def call() -> Mailbox | None:
        match case.path.partition("/")[0]:
            case "get":
                server.replies[f"get/mailbox/{case.address}"] = Reply(status, body)
                return mailcow.find(case.address, OWNER)
            case "delete":
                server.replies["delete/mailbox"] = Reply(status, body)
                mailcow.delete(case.address, OWNER)
            case "edit":
                server.replies["edit/mailbox"] = Reply(status, body)
                mailcow.disable(case.address, OWNER)
            case _:
                server.replies["add/mailbox"] = Reply(status, body)
                mailcow.create(case.address, PASSWORD, OWNER)
        return None

    if isinstance(case.outcome, type):
        with pytest.raises(AutomxError) as failure:
            call()
        assert type(failure.value) is case.outcome
        if case.outcome is not MailLeftError:
            assert_public(failure.value, server)
    else:
        assert call() == case.outcome


# What cannot be one row: several requests, and what they leave behind.


def test_of_simultaneous_adds_one_succeeds(server: FakeMailcow, mailcow: Mailcow) -> None:
    at_once = threading.Barrier(3)
    server.before_insert = lambda: at_once.wait(20)

    def create(_: int) -> str:
        try:
            mailcow.create(ALICE, PASSWORD, OWNER)
        except AutomxError as failure:
            return type(failure).__name__
        return "done"

    with ThreadPoolExecutor(3) as threads:
        outcomes = sorted(threads.map(create, range(3)))
    assert outcomes == ["UncertainError", "UncertainError", "done"]
    assert list(server.mailboxes) == [ALICE]


def test_add_without_key_makes_nothing(server: FakeMailcow) -> None:
    ask(server, "add/mailbox", attributes(), headers=NO_KEY)
    assert server.mailboxes == {}


def test_cookie_of_an_earlier_answer_has_the_rights_of_the_key(server: FakeMailcow) -> None:
    server.add(ALICE)
    _, _, cookie = ask(server, ONE)
    assert cookie.startswith("MCSESSID=")
    status, body, _ = ask(server, ONE, headers=NO_KEY | {"Cookie": cookie})
    assert (status, simplified(body)) == (200, SHOWN)


def test_backend_never_sends_a_cookie_back(server: FakeMailcow, mailcow: Mailcow) -> None:
    for _ in range(2):
        mailcow.find(ALICE, OWNER)
    assert [request.headers.get("cookie") for request in server.requests] == [None] * 4


def test_a_mailbox_is_made_with_all_that_an_account_needs(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    mailcow.create(ALICE, PASSWORD, OWNER)
    assert [
        (request.method, request.path, request.headers["content-type"], request.json)
        for request in server.requests
        if request.method == "POST"
    ] == [
        (
            "POST",
            "/api/v1/add/mailbox",
            "application/json",
            {
                "local_part": "alice",
                "domain": "lab.test",
                "name": "alice",
                "password": PASSWORD,
                "password2": PASSWORD,
                "active": "1",
                "tags": [TAG, MARK],
                "force_pw_update": "0",
                "imap_access": "1",
                "smtp_access": "1",
            },
        )
    ]
    assert mailcow.find(ALICE, OWNER) == Mailbox(is_active=True, is_ours=True)
    for other in (Owner("other", ""), Owner("school", "2b4c")):
        assert mailcow.find(ALICE, other) == Mailbox(is_active=True, is_ours=False)


def test_a_life_of_a_mailbox_through_the_settings(server: FakeMailcow) -> None:
    settings = AccountSettings(
        backend="mailcow",
        mailcow_endpoint=server.url,
        mailcow_token=server.key,
    )
    backends = Backends(settings)
    backend = backends.get("")
    assert isinstance(backend, Mailcow)
    assert backends.get("mailcow") is backend
    assert backend.find(ALICE, OWNER) is None
    backend.create(ALICE, PASSWORD, OWNER)
    with pytest.raises(TakenError):
        backend.create(ALICE, PASSWORD, OWNER)
    server.mailboxes[ALICE]["last_imap_login"] = 1_790_000_000
    login = datetime.fromtimestamp(1_790_000_000, UTC)
    assert backend.find(ALICE, OWNER) == Mailbox(is_active=True, is_ours=True, last_login=login)
    backend.disable(ALICE, OWNER)
    backend.disable(ALICE, OWNER)
    assert backend.find(ALICE, OWNER) == Mailbox(is_active=False, is_ours=True, last_login=login)
    backend.delete(ALICE, OWNER)
    assert server.mailboxes == {}
    backend.delete(ALICE, OWNER)
    backend.disable(ALICE, OWNER)
    backend.create(ALICE, PASSWORD, OWNER)
    backends.close()


@pytest.mark.parametrize("local_part", ["e+t", "a&b", "o'neil", "a%2b", "a=b", "a#b", "a?b", "a%b"])
def test_odd_local_parts_are_found_and_deleted(
    local_part: str, server: FakeMailcow, mailcow: Mailcow
) -> None:
    address = f"{local_part}@lab.test"
    if "+" in local_part:  # of an earlier automx, or of mailadm
        server.add(address, tags=(MARK,))
    else:
        mailcow.create(address, PASSWORD, OWNER)
    assert mailcow.find(address, OWNER) == Mailbox(is_active=True, is_ours=True)
    mailcow.disable(address, OWNER)
    mailcow.delete(address, OWNER)
    assert server.mailboxes == {}


def test_a_tag_longer_than_mailcow_keeps_still_tells_whose_it_is(mailcow: Mailcow) -> None:
    owner = Owner("x" * 300, "1f3a")
    mailcow.create(ALICE, PASSWORD, owner)
    assert mailcow.find(ALICE, owner) == Mailbox(is_active=True, is_ours=True)


def test_a_domain_without_room_is_said_to_be_full(server: FakeMailcow, mailcow: Mailcow) -> None:
    server.limit = 1
    server.add("bob@lab.test")
    with pytest.raises(TryAgainError, match="no room for further mailboxes") as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert failure.value.cause == (
        'mailcow made no mailbox alice@lab.test: [["danger", ["max_mailbox_exceeded", 1, 1]]]'
    )


def test_a_refusal_tells_the_administrator_what_to_check(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.policy = Policy(length=40)
    with pytest.raises(TryAgainError) as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert failure.value.cause == (
        'mailcow made no mailbox alice@lab.test: [["danger", "password_complexity"]] '
        "(mailcow's password policy asks for more than automx gives)"
    )
    read_only(server)
    with pytest.raises(TryAgainError) as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert failure.value.cause == (
        f'mailcow, POST {server.url}/add/mailbox: 403, "API read/write access denied" '
        "(the key in mailcow_token may only read)"
    )


def test_an_outage_is_named_in_the_log(server: FakeMailcow, mailcow: Mailcow) -> None:
    server.trouble = "redis"
    with pytest.raises(UncertainError) as failure:
        mailcow.find(ALICE, OWNER)
    assert failure.value.cause == (
        f"mailcow, GET {server.url}/get/mailbox/{ALICE}: 500, Connection to Redis failed"
    )


def test_an_empty_answer_is_named_in_the_log(server: FakeMailcow, mailcow: Mailcow) -> None:
    server.trouble, server.troubled = "empty", "POST"
    with pytest.raises(UncertainError) as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert failure.value.cause == (
        f"mailcow, POST {server.url}/add/mailbox: 200, an empty answer: "
        "its own code failed, or the key did not arrive"
    )


def test_the_first_answer_after_an_upgrade_is_understood(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.is_upgraded = True
    mailcow.create(ALICE, PASSWORD, OWNER)
    server.is_upgraded = True
    mailcow.disable(ALICE, OWNER)
    server.is_upgraded = True
    mailcow.delete(ALICE, OWNER)
    server.is_upgraded = True
    mailcow.delete(ALICE, OWNER)


@pytest.mark.parametrize(
    "answer",
    [
        [danger("SQLSTATE[HY000]: General error: 1205 Lock wait timeout exceeded")],
        [danger("redis_error", "connection lost")],
        [danger("password_complexity"), danger("redis_error", "connection lost")],
        [success("rl_saved", ALICE)],
        [success("mailbox_added", "bob@lab.test")],
        [{"type": "danger", "msg": ["mailbox_added", ALICE]}],
        [{"type": "success", "msg": "mailbox_added"}],
        [{"type": "success", "msg": []}],
        [{"type": "success"}],
        ["mailbox_added"],
        [],
        {},
        {"type": "success", "msg": ["mailbox_added", ALICE]},
        {"type": "error", "msg": "Cannot add item"},
        None,
        "mailbox_added",
    ],
    ids=json.dumps,
)
def test_anything_that_may_have_made_a_mailbox_is_uncertain(
    answer: object, server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.replies["add/mailbox"] = Reply(200, json.dumps(answer).encode())
    with pytest.raises(AutomxError) as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert type(failure.value) is UncertainError
    assert_public(failure.value, server)


ENDPOINT = "check mailcow_endpoint: the usual one is https://HOST/api/v1"


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (200, b"<html>Sign in</html>", ENDPOINT),
        (200, b"[" * 100_000, ENDPOINT),
        (200, b"\xff\xfe{}", ENDPOINT),
        (200, b'{"username": "alice@lab.test", "active": 1}' + b" " * 2**20, ""),
        (201, b"{}", ""),
        (301, b"<html>Moved</html>", ENDPOINT),
        (302, b"", ENDPOINT),
        (401, b"<html>Who are you?</html>", "check mailcow_token"),
        (404, b"<html>Not found</html>", ENDPOINT),
        (429, b'{"detail": "too many requests"}', ""),
        (503, b'{"type": "error", "msg": "not now"}', ""),
    ],
    ids=lambda part: str(part)[:40],
)
def test_answers_of_other_servers_prove_nothing(
    status: int, body: bytes, hint: str, server: FakeMailcow, connect: Open
) -> None:
    reply = Reply(status, body, "text/html")
    server.replies[ONE] = server.replies["add/mailbox"] = reply
    with pytest.raises(AutomxError) as failure:
        connect().find(ALICE, OWNER)
    assert type(failure.value) is (MisconfiguredError if hint else UncertainError)
    assert hint in str(failure.value.cause)
    with pytest.raises(AutomxError) as failure:
        connect().create(ALICE, PASSWORD, OWNER)
    assert type(failure.value) is UncertainError
    assert_public(failure.value, server)
    server.replies["get/domain/lab.test"] = reply
    with pytest.raises(AutomxError) as failure:
        connect().create(ALICE, PASSWORD, OWNER)
    assert type(failure.value) is (MisconfiguredError if hint else TryAgainError)
    assert hint in str(failure.value.cause)


# What mailcow answers at a wrong path depends on the path, and on the server before it.
AT_A_WRONG_PATH = [
    Reply(200, b"<html>Sign in</html>", "text/html"),
    Reply(200, b"{}"),
    Reply(200, b""),
    Reply(200, b'{"type":"error","msg":"Cannot find attributes in post data"}'),
    Reply(302, b""),
    Reply(403, b"<html>Forbidden</html>", "text/html"),
    Reply(403, b'{"type":"error","msg":"API read/write access denied"}'),
    Reply(404, b"<html>Not found</html>", "text/html"),
    Reply(404, b'{"type":"error","msg":"route not found"}'),
    Reply(405, b'{"type":"error","msg":"only GET method is allowed"}'),
    Reply(500, b"<html>Error</html>", "text/html"),
    Reply(502, b"<html>Preparing</html>", "text/html"),
]


@pytest.mark.parametrize(
    "reply", AT_A_WRONG_PATH, ids=lambda reply: f"{reply.status} {reply.body!r}"
)
@pytest.mark.parametrize("path", ["/api/v2", "/api/v1/get"])
def test_a_wrong_path_has_its_hint_whatever_mailcow_answers(
    reply: Reply, path: str, server: FakeMailcow, connect: Open
) -> None:
    server.default = reply
    mailcow = connect(server.url.removesuffix("/api/v1") + path)
    for call in calls(mailcow):
        with pytest.raises(AutomxError) as failure:
            call()
        assert "check mailcow_endpoint" in str(failure.value.cause)
    assert server.mailboxes == {}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [{"username": ALICE, "active": 1}],
        {"username": "bob@lab.test", "active": 1},
        {"username": ALICE},
        {"username": ALICE, "active": None},
        {"username": ALICE, "active": "maybe"},
        {"active": 1},
        None,
        "alice",
    ],
    ids=json.dumps,
)
def test_what_does_not_tell_of_the_mailbox_is_uncertain(
    answer: object, server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.replies[ONE] = Reply(200, json.dumps(answer).encode())
    with pytest.raises(AutomxError) as failure:
        mailcow.find(ALICE, OWNER)
    assert type(failure.value) is UncertainError
    assert_public(failure.value, server)


def nested(depth: int) -> object:
    """Return lists in each other."""
    return json.loads("[" * depth + "]" * depth)


ODD_PARTS: list[object] = [
    *([], {}, [1], ["danger"], [[]], [{}, {}], "1.0", "\ud800", -1, 1.5, 10**300),
    *(["mailbox_added", [ALICE]], ["mailbox_removed", {}], nested(9)),
]
ODD: list[object] = [
    *(None, True, False, 0, -1, 1.5, 10**300, "", "alice", "\ud800", [], {}, [[]], [{}], [None]),
    *([1, 2], [[1], {"a": []}], ["mailbox_added"], {"type": []}, {"type": {}}, {"msg": {}}),
    *(nested(19), nested(30), nested(900), {"type": "error"}, {"type": "error", "msg": [[], {}]}),
    *({"domain_name": []}, {"domain_name": None, "active": {}, "mboxes_left": []}),
    *({"username": []}, {"username": {}}, {"username": 1, "active": 1}),
    *[{"username": ALICE, "active": odd} for odd in ODD_PARTS],
    *[[{"type": odd, "msg": odd}] for odd in ODD_PARTS],
    *[[{"type": "danger", "msg": odd}] for odd in ODD_PARTS],
    *[[{"type": "success", "msg": odd}] for odd in ODD_PARTS],
]
TAGS: list[object] = [
    None,
    1,
    "a",
    {},
    {"a": 1},
    [None],
    [[]],
    [{}],
    [1.5],
    ["mailadm:\ud800"],
    ["mailadm:"],
]


@pytest.mark.parametrize(
    ("path", "asking"),
    [
        (ONE, ["find"]),
        ("get/domain/lab.test", ["create", "faults"]),
        ("add/mailbox", ["create"]),
        ("edit/mailbox", ["disable"]),
        ("delete/mailbox", ["delete"]),
    ],
)
def test_no_shape_of_an_answer_is_a_bug(
    path: str, asking: list[str], server: FakeMailcow, mailcow: Mailcow
) -> None:
    """Each call ends with a result, or with an error that says what is known."""
    calls: dict[str, Callable[[], object]] = {
        "find": lambda: mailcow.find(ALICE, OWNER),
        "create": lambda: mailcow.create(ALICE, PASSWORD, OWNER),
        "disable": lambda: mailcow.disable(ALICE, OWNER),
        "delete": lambda: mailcow.delete(ALICE, OWNER),
        "faults": lambda: list(mailcow.faults(["lab.test"])),
    }
    server.add(ALICE)
    for odd in ODD:
        server.replies = {path: Reply(200, json.dumps(odd).encode())}
        for name in asking:
            if path in {"add/mailbox", "delete/mailbox"}:
                with pytest.raises(UncertainError):
                    calls[name]()
            else:
                with contextlib.suppress(AutomxError):
                    calls[name]()


@pytest.mark.parametrize("key", ["tags", "last_imap_login", "attributes"])
def test_odd_parts_of_a_mailbox_are_passed_over(
    key: str, server: FakeMailcow, mailcow: Mailcow
) -> None:
    for odd in TAGS:
        answer = {"username": ALICE, "active": 1, key: odd}
        server.replies = {ONE: Reply(200, json.dumps(answer).encode())}
        found = mailcow.find(ALICE, OWNER)
        assert found is not None
        assert (found.is_active, found.is_ours) == (True, False)


@pytest.mark.parametrize(
    ("active", "is_active"), [(1, True), ("1", True), (0, False), ("0", False), (2, False)]
)
def test_active_is_who_can_log_in(
    active: object, is_active: bool, server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.add(ALICE, active=active)
    assert mailcow.find(ALICE, OWNER) == Mailbox(is_active=is_active, is_ours=False)


@pytest.mark.parametrize(
    ("logins", "newest"),
    [
        ({}, None),
        ({"last_imap_login": 1_790_000_000}, 1_790_000_000),
        ({"last_imap_login": "1790000000", "last_smtp_login": "0"}, 1_790_000_000),
        ({"last_imap_login": 1_790_000_000, "last_smtp_login": 1_790_000_001}, 1_790_000_001),
        ({"last_imap_login": 1_790_000_000, "last_pop3_login": 1_790_000_002}, 1_790_000_002),
        ({"last_imap_login": 1_790_000_000, "last_sso_login": 1_790_000_003}, 1_790_000_003),
        ({"last_imap_login": None, "last_pop3_login": "", "last_smtp_login": False}, None),
        ({"last_imap_login": -1, "last_smtp_login": "never", "last_sso_login": 10**30}, None),
    ],
    ids=str,
)
def test_last_login_is_the_newest_that_is_known(
    logins: dict[str, Any], newest: int | None, server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.add(ALICE, **logins)
    expected = None if newest is None else datetime.fromtimestamp(newest, UTC)
    assert mailcow.find(ALICE, OWNER) == Mailbox(is_active=True, is_ours=False, last_login=expected)


def test_a_mailbox_of_which_only_the_beginning_was_made_is_found_and_deleted(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    nothing = dict.fromkeys(("username", "active", "domain", "local_part"))
    server.add(ALICE, tags=(TAG, MARK), **nothing)
    assert mailcow.find(ALICE, OWNER) == Mailbox(is_active=False, is_ours=True)
    mailcow.delete(ALICE, OWNER)
    assert server.mailboxes == {}


def test_a_server_that_says_no_to_everything_does_not_prove_absence(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.replies[ONE] = server.replies["get/domain/lab.test"] = Reply(200, b"{}")
    server.replies["delete/mailbox"] = Reply(200, json.dumps([danger("access_denied")]).encode())
    with pytest.raises(TryAgainError) as failure:
        mailcow.find(ALICE, OWNER)
    assert failure.value.cause == (
        "mailcow knows neither alice@lab.test nor its domain: check mailcow_endpoint"
    )
    with pytest.raises(TryAgainError):
        mailcow.delete(ALICE, OWNER)


@pytest.mark.parametrize("limits", [{"maxquota": 10}, {"quota": 10}])
def test_a_mailbox_above_the_quota_of_its_domain_is_disabled_and_deleted(
    limits: dict[str, int],
    server: FakeMailcow,
    mailcow: Mailcow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    over_quota(**limits)(server)
    mailcow.disable("a@small.test", OWNER)
    assert server.mailboxes["a@small.test"]["active"] == 0
    (message,) = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert (
        message == "mailcow: a@small.test is above the limits of its domain; its quota is removed"
    )
    mailcow.delete("a@small.test", OWNER)
    assert server.mailboxes == {}


def test_a_mailbox_within_its_quota_keeps_it_when_it_is_disabled(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    over_quota(quota=50, maxquota=50)(server)
    mailcow.disable("a@small.test", OWNER)
    assert server.mailboxes["a@small.test"]["quota"] == 50 * 2**20


def test_disabling_succeeds_only_if_mailcow_has_said_so(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    unfinished(server)
    with pytest.raises(UncertainError) as failure:
        mailcow.disable(ALICE, OWNER)
    assert failure.value.cause == (
        'mailcow did not disable alice@lab.test: [["danger", "access_denied"]]'
    )


@pytest.mark.parametrize(
    ("domain", "cause"),
    [
        ("nowhere.test", "mailcow does not know the domain nowhere.test"),
        (
            "off.test",
            "the domain off.test is not active in mailcow, so nobody could log in",
        ),
    ],
)
def test_a_domain_that_lets_nobody_log_in_gets_no_mailboxes(
    domain: str, cause: str, server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.domains["off.test"] = Domain(active=0)
    with pytest.raises(MisconfiguredError, match="administrator has to look into it") as failure:
        mailcow.create(f"alice@{domain}", PASSWORD, OWNER)
    assert failure.value.cause == cause
    assert server.mailboxes == {}


@pytest.mark.parametrize("local_part", ["e+t", "+", "tmp.+x"])
def test_no_mailbox_is_made_whose_mail_goes_to_another_one(
    local_part: str, server: FakeMailcow, mailcow: Mailcow
) -> None:
    """A token may be of a time when the settings named another backend."""
    with pytest.raises(UnfitAddressError, match="administrator has to look into it"):
        mailcow.create(f"{local_part}@lab.test", PASSWORD, OWNER)
    assert server.requests == []


@pytest.mark.parametrize("trouble", ["redis", "empty", "silent", "lost"])
def test_nothing_was_made_if_mailcow_fails_before_it_is_asked_for_a_mailbox(
    trouble: str, server: FakeMailcow, connect: Open
) -> None:
    server.trouble, server.troubled = trouble, "GET"
    with pytest.raises(TryAgainError) as failure:
        connect(timeout=QUICK).create(ALICE, PASSWORD, OWNER)
    assert failure.value.status == (504 if trouble in {"silent", "lost"} else 503)
    assert [request.method for request in server.requests] == ["GET"]


def test_a_template_above_the_limit_of_the_domain_is_for_the_administrator(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.template_quota = 3072
    server.domains["lab.test"].maxquota = 1024
    with pytest.raises(MisconfiguredError) as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert failure.value.cause == (
        'mailcow made no mailbox alice@lab.test: [["danger", ["mailbox_quota_exceeded", 1024]]] '
        "(the quota of mailcow's template for mailboxes is above the limit of the domain for one"
        " mailbox)"
    )


def test_logins_to_an_earlier_mailbox_are_shown_as_mailcow_does(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.add(ALICE, last_imap_login=1_790_000_000)
    mailcow.delete(ALICE, OWNER)
    mailcow.create(ALICE, PASSWORD, OWNER)
    login = datetime.fromtimestamp(1_790_000_000, UTC)
    assert mailcow.find(ALICE, OWNER) == Mailbox(is_active=True, is_ours=True, last_login=login)


def test_faults_are_found_before_a_mailbox_is_wanted(server: FakeMailcow, mailcow: Mailcow) -> None:
    server.domains |= {"off.test": Domain(active=0), "full.test": Domain(mailboxes=0)}
    assert list(mailcow.faults(["lab.test", "off.test", "full.test", "nowhere.test"])) == [
        "the domain off.test is not active in mailcow, so nobody could log in",
        "the domain full.test has no room for further mailboxes in mailcow",
        "mailcow does not know the domain nowhere.test",
    ]
    read_only(server)
    with pytest.raises(MisconfiguredError) as failure:
        list(mailcow.faults(["lab.test"]))
    assert "the key in mailcow_token may only read" in str(failure.value.cause)


def test_disabling_counts_only_when_seen(server: FakeMailcow, mailcow: Mailcow) -> None:
    server.add(ALICE)
    full = json.dumps([danger("mailbox_quota_left_exceeded", 50)]).encode()
    server.replies["edit/mailbox"] = Reply(200, full)
    with pytest.raises(TryAgainError) as refused:
        mailcow.disable(ALICE, OWNER)
    assert refused.value.cause == (
        'mailcow left alice@lab.test active: [["danger", ["mailbox_quota_left_exceeded", 50]]]'
    )
    done = json.dumps([success("mailbox_modified", ALICE)]).encode()
    server.replies["edit/mailbox"] = Reply(200, done)
    with pytest.raises(TryAgainError):
        mailcow.disable(ALICE, OWNER)
    del server.replies["edit/mailbox"]
    server.replies[ONE] = Reply(403, json.dumps(error(DENIED)).encode())
    with pytest.raises(AutomxError) as unseen:
        mailcow.disable(ALICE, OWNER)
    assert type(unseen.value) is UncertainError
    assert server.mailboxes[ALICE]["active"] == 0


def test_mail_that_stays_on_the_disk_is_not_said_to_be_deleted(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.add(ALICE)
    server.maildir_trouble = "command failed"
    with pytest.raises(MailLeftError) as failure:
        mailcow.delete(ALICE, OWNER)
    assert failure.value.reason == (
        "the mailbox alice@lab.test is deleted, but its mail is still on the disk of mailcow: "
        '["Could not move maildir to garbage collector: command failed"]'
    )
    assert server.mailboxes == {}


def test_a_deletion_with_another_complaint_is_uncertain(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    complaint = [danger("redis_error", "connection lost")]
    server.replies["delete/mailbox"] = Reply(200, json.dumps(complaint).encode())
    with pytest.raises(AutomxError) as failure:
        mailcow.delete(ALICE, OWNER)
    assert type(failure.value) is UncertainError


def calls(mailcow: Mailcow) -> list[Callable[[], object]]:
    """Return one call of each kind."""
    return [
        lambda: mailcow.create(ALICE, PASSWORD, OWNER),
        lambda: mailcow.find(ALICE, OWNER),
        lambda: mailcow.disable(ALICE, OWNER),
        lambda: mailcow.delete(ALICE, OWNER),
    ]


# Keys


WRONG = "WRONG"


def refusals(mailcow: Mailcow) -> None:
    """Make one call of each kind, none of which may succeed."""
    for call in calls(mailcow):
        with pytest.raises(MisconfiguredError):
            call()


def test_a_refused_key_is_not_sent_again_for_half_an_hour(
    server: FakeMailcow, connect: Open
) -> None:
    clock = Clock()
    mailcow = connect(token=WRONG, now=clock)
    for _ in range(5):
        refusals(mailcow)
    assert (len(server.requests), server.refused) == (1, 1)
    clock.time += timedelta(minutes=30, seconds=-1)
    with pytest.raises(MisconfiguredError) as failure:
        mailcow.find(ALICE, OWNER)
    assert failure.value.cause == (
        "the key in mailcow_token was refused, and is not sent until 2026-11-21 10:30 UTC: the"
        " server bans clients that send a wrong key too often. Another key is tried at once"
    )
    clock.time += timedelta(seconds=1)
    refusals(mailcow)
    assert server.refused == 2
    clock.time += timedelta(minutes=30)
    server.keys[WRONG] = Key()
    mailcow.create(ALICE, PASSWORD, OWNER)
    mailcow.delete(ALICE, OWNER)


def test_refusals_never_follow_each_other_so_closely_that_they_lead_to_a_ban(
    server: FakeMailcow, connect: Open
) -> None:
    clock = Clock()
    mailcow = connect(token=WRONG, now=clock)
    refused_at = []
    for _ in range(12 * 60):
        count = server.refused
        with pytest.raises(MisconfiguredError):
            mailcow.find(ALICE, OWNER)
        if server.refused > count:
            refused_at.append(clock.time)
        clock.time += timedelta(minutes=1)
    assert len(refused_at) == 24
    gaps = [after - before for before, after in pairwise(refused_at)]
    assert min(gaps) > timedelta(seconds=600)


def test_another_key_and_another_server_are_asked_during_the_pause(
    server: FakeMailcow, connect: Open
) -> None:
    keys = ProcessMemory()
    refusals(connect(token=WRONG, keys=keys))
    assert connect(keys=keys).find(ALICE, OWNER) is None
    with running_mailcow() as other:
        other.keys[WRONG] = Key()
        assert connect(other.url, WRONG, keys=keys).find(ALICE, OWNER) is None


def crowd(connect: Open, number: int, **options: Any) -> list[BaseException | None]:
    """Let many processes ask at once, with all threads that each has; return their errors."""
    backends = [connect(**options) for _ in range(number)]
    start = threading.Barrier(4 * number)

    def ask(thread: int) -> None:
        start.wait(20)
        backends[thread % number].find(f"user{thread}@lab.test", OWNER)

    with ThreadPoolExecutor(4 * number) as threads:
        futures = [threads.submit(ask, thread) for thread in range(4 * number)]
        return [future.exception(30) for future in futures]


@pytest.fixture
def key_states(database: Path) -> Iterator[KeyStates]:
    """A memory of keys in a database, as the workers of a server share it."""
    engine = create_engine(f"sqlite:///{database}")
    yield KeyStates(lambda: Session(engine))
    engine.dispose()


def test_of_a_crowd_one_request_tries_the_key_and_all_wait_for_it(
    server: FakeMailcow, connect: Open, key_states: KeyStates
) -> None:
    errors = crowd(connect, 4, token=WRONG, keys=key_states)
    assert {type(error) for error in errors} == {MisconfiguredError}
    assert (len(server.requests), server.refused) == (1, 1)
    assert crowd(connect, 4, keys=key_states) == [None] * 16
    assert server.refused == 1


def test_one_request_is_in_flight_until_a_key_has_worked(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.hold.clear()
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(mailcow.find, ALICE, OWNER) for _ in range(8)]
        wait_until(lambda: server.waiting == 1, "the first request")
        assert [future.done() for future in futures] == [False] * 8
        assert server.waiting == 1
        server.hold.set()
        assert [future.result(20) for future in futures] == [None] * 8


def test_a_key_that_has_worked_is_tried_anew_after_some_minutes(
    server: FakeMailcow, connect: Open, key_states: KeyStates
) -> None:
    clock = Clock()
    assert crowd(connect, 2, keys=key_states, now=clock) == [None] * 8
    server.keys[server.key].is_active = False
    clock.time += TRUST
    errors = crowd(connect, 2, keys=key_states, now=clock)
    assert {type(error) for error in errors} == {MisconfiguredError}
    assert server.refused == 1


@pytest.mark.parametrize("trouble", ["redis", "empty", "lost"])
def test_an_answer_that_says_nothing_of_the_key_lets_the_next_request_try_it(
    trouble: str, server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.trouble = trouble
    with pytest.raises(UncertainError):
        mailcow.find(ALICE, OWNER)
    server.trouble = ""
    assert mailcow.find(ALICE, OWNER) is None


def test_a_request_waits_for_the_trial_of_a_key_no_longer_than_for_an_answer(
    server: FakeMailcow, connect: Open
) -> None:
    keys = ProcessMemory()
    first, second = connect(keys=keys), connect(keys=keys, timeout=QUICK)
    server.hold.clear()
    with ThreadPoolExecutor(1) as threads:
        trial = threads.submit(first.find, ALICE, OWNER)
        wait_until(lambda: server.waiting == 1, "the trial")
        with pytest.raises(TryAgainError) as failure:
            second.find(ALICE, OWNER)
        assert failure.value.cause == (
            "another request tries the key in mailcow_token, and has no answer yet"
        )
        server.hold.set()
        assert trial.result(20) is None


def test_a_trial_whose_process_was_killed_does_not_block_the_key(
    server: FakeMailcow, connect: Open
) -> None:
    clock, keys = Clock(), ProcessMemory()
    mailcow = connect(keys=keys, now=clock, timeout=QUICK)
    mailcow.find(ALICE, OWNER)
    (digest, known) = keys._known.popitem()
    assert keys.replace(digest, None, KeyStatus(KeyState.TRIED, known.changed_at))
    with pytest.raises(TryAgainError):
        mailcow.find(ALICE, OWNER)
    clock.time += TRIAL
    assert mailcow.find(ALICE, OWNER) is None


def scan(url: str, secret: str) -> tuple[int, str]:
    """Ask for an account as Delta Chat does; return status and reason of the refusal."""
    request = urllib.request.Request(f"{url}/new_email?t={secret}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as answer, urllib.request.urlopen(request):
        pass
    with answer.value as refusal:
        return refusal.code, json.loads(refusal.read())["reason"]


def test_workers_and_commands_know_of_each_others_refused_key(
    server: FakeMailcow, database: Path, example: None, tmp_path: Path
) -> None:
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_ACCOUNT_BACKEND": "mailcow",
        "AUTOMX_ACCOUNT_RATE_LIMIT": "",
        "AUTOMX_MAILCOW_ENDPOINT": server.url,
        "AUTOMX_MAILCOW_TOKEN": WRONG,
    }
    automx("token", "add", "oneday", "--domain", "example.com", env=env)
    secret = json.loads(automx("token", "show", "oneday", "--json", env=env))["token"]

    with (
        serving(env, tmp_path / "log", "--workers", "2") as served,
        ThreadPoolExecutor(12) as people,
    ):
        refused = set(people.map(lambda _: scan(served.url, secret), range(12)))
    for command in (["account", "add", "--token", "oneday"], ["check"]):
        assert attempt(*command, env=env).returncode != 0

    reason = "This server cannot make mailboxes; its administrator has to look into it."
    assert refused == {(500, reason)}
    assert server.refused == 1
    assert json.loads(automx("token", "show", "oneday", "--json", env=env))["usecount"] == 0


def test_a_refused_key_tells_what_to_check(server: FakeMailcow, mailcow: Mailcow) -> None:
    server.keys[server.key].allow_from = ("192.0.2.0/24",)
    with pytest.raises(MisconfiguredError) as failure:
        mailcow.find(ALICE, OWNER)
    assert failure.value.cause == (
        f"mailcow, GET {server.url}/get/mailbox/{ALICE}: 401, "
        '"api access denied for ip 127.0.0.1" (check mailcow_token, and in mailcow that the key '
        "is active and allowed from this address)"
    )


def test_key_password_and_session_are_in_no_log(
    server: FakeMailcow, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mailcow = connect()
    failures = []

    def fail(answer: object = None, status: int = 200, trouble: str = "") -> None:
        if answer is not None:
            server.replies["add/mailbox"] = Reply(status, json.dumps(answer).encode())
        server.trouble = trouble
        with pytest.raises(AutomxError) as failure:
            mailcow.create("bob@lab.test", PASSWORD, OWNER)
        failures.append(failure.value)
        server.trouble = ""
        server.replies.clear()

    mailcow.create(ALICE, PASSWORD, OWNER)
    fail([danger(f"the password {PASSWORD} is not in the list")])
    fail([{"type": "danger", "log": [attributes()], "msg": "mailbox_invalid"}])
    fail({"type": "error", "msg": PASSWORD})
    fail({"password": PASSWORD})
    fail([PASSWORD], 500)
    fail(trouble="empty")
    fail(trouble="php-fpm")
    fail(trouble="lost")
    told = caplog.text + "".join(f"{failure!r} {failure.cause}" for failure in failures)
    assert "HTTP Request: POST" in told
    assert "bob@lab.test" in told
    for secret in (server.key, PASSWORD, "MCSESSID"):
        assert secret not in told


# Connections and time


def test_nothing_was_done_if_nobody_listens(connect: Open) -> None:
    mailcow = connect(f"http://127.0.0.1:{free_port()}")
    for call in calls(mailcow):
        with pytest.raises(NotReachedError, match="cannot be reached") as failure:
            call()
        assert "Connect call failed" in str(failure.value.cause)


def test_nothing_was_done_if_the_host_name_does_not_exist(connect: Open) -> None:
    mailcow = connect(f"https://{'a' * 64}.test/api/v1")
    with pytest.raises(NotReachedError):
        mailcow.create(ALICE, PASSWORD, OWNER)


def test_certificates_are_checked(tmp_path: Path, connect: Open) -> None:
    authority = Authority(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with running_mailcow(authority.issue("127.0.0.1")) as server:
        mailcow = connect(server.url, server.key, ca_file=str(authority.root))
        mailcow.create(ALICE, PASSWORD, OWNER)
        assert list(server.mailboxes) == [ALICE]
        for ca_file in ("", str(Authority(other).root)):
            stranger = connect(server.url, server.key, ca_file=ca_file)
            with pytest.raises(NotReachedError) as failure:
                stranger.create("bob@lab.test", PASSWORD, OWNER)
            assert "certificate verify failed" in str(failure.value.cause)
        assert len(server.requests) == 2
    with running_mailcow(authority.issue("mailcow.lab.test")) as server:
        mailcow = connect(server.url, server.key, ca_file=str(authority.root))
        with pytest.raises(NotReachedError) as failure:
            mailcow.create(ALICE, PASSWORD, OWNER)
        assert "IP address mismatch" in str(failure.value.cause)
        assert server.requests == []


@pytest.mark.parametrize("trouble", ["silent", "silent-after", "lost", "lost-after", "drip"])
def test_without_an_answer_it_is_open_what_was_done(
    trouble: str, server: FakeMailcow, connect: Open
) -> None:
    mailcow = connect(timeout=QUICK)
    server.trouble, server.troubled = trouble, "POST"
    with pytest.raises(SilentError, match="did not answer in time") as failure:
        mailcow.create(ALICE, PASSWORD, OWNER)
    assert_public(failure.value, server)
    if trouble in {"silent", "lost"}:
        assert server.mailboxes == {}
    else:
        wait_until(lambda: ALICE in server.mailboxes, "the work on the request")
    server.troubled = ""
    with pytest.raises(SilentError):
        mailcow.find(ALICE, OWNER)


def test_a_mailbox_made_by_a_call_that_failed_is_known_as_ours(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    server.trouble, server.troubled = "empty-after", "POST"
    with pytest.raises(UncertainError):
        mailcow.create(ALICE, PASSWORD, OWNER)
    server.trouble = ""
    assert mailcow.find(ALICE, OWNER) == Mailbox(is_active=True, is_ours=True)


def test_a_deletion_may_take_longer_than_other_calls(server: FakeMailcow, connect: Open) -> None:
    server.add(ALICE)
    mailcow = connect(timeout=QUICK)
    mailcow.find(ALICE, OWNER)
    server.hold.clear()
    with ThreadPoolExecutor(1) as threads:
        deletion = threads.submit(mailcow.delete, ALICE, OWNER)
        for _ in range(2):
            with pytest.raises(SilentError):
                mailcow.find(ALICE, OWNER)
        server.hold.set()
        deletion.result(20)
    assert server.mailboxes == {}


def test_connections_are_used_again(server: FakeMailcow, mailcow: Mailcow) -> None:
    mailcow.create(ALICE, PASSWORD, OWNER)
    mailcow.disable(ALICE, OWNER)
    mailcow.delete(ALICE, OWNER)
    assert (len(server.requests), server.connections) == (5, 1)


def test_sixteen_threads_share_a_backend(server: FakeMailcow, mailcow: Mailcow) -> None:
    at_once = threading.Barrier(16)
    server.before_insert = lambda: at_once.wait(20)

    def live(number: int) -> Mailbox | None:
        address = f"user{number}@lab.test"
        mailcow.create(address, PASSWORD, OWNER)
        found = mailcow.find(address, OWNER)
        mailcow.delete(address, OWNER)
        return found

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(live, range(16)))
    assert found == [Mailbox(is_active=True, is_ours=True)] * 16
    assert server.mailboxes == {}


def test_proxies_of_the_environment_do_not_get_the_key(
    server: FakeMailcow, monkeypatch: pytest.MonkeyPatch, connect: Open
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert connect().find(ALICE, OWNER) is None


def test_closing_ends_calls_that_are_under_way(server: FakeMailcow, connect: Open) -> None:
    mailcow = connect(timeout=3600)
    server.hold.clear()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(mailcow.find, ALICE, OWNER)
        wait_until(lambda: server.connections == 1, "the call")
        mailcow.close()
        assert isinstance(call.exception(20), SilentError | NotReachedError)
    mailcow.close()
    with pytest.raises(NotReachedError):
        mailcow.find(ALICE, OWNER)


# Settings


@pytest.mark.parametrize("end", ["/api/v1", "/api/v1/", "", "/"])
def test_endpoint_is_the_url_of_the_api_or_of_the_server(
    end: str, server: FakeMailcow, connect: Open
) -> None:
    mailcow = connect(server.url.removesuffix("/api/v1") + end)
    mailcow.create(ALICE, PASSWORD, OWNER)
    assert list(server.mailboxes) == [ALICE]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"mailcow_endpoint": ""}, "mailcow_endpoint"),
        ({"mailcow_endpoint": "mailcow.lab.test"}, "mailcow_endpoint"),
        ({"mailcow_endpoint": "https://mailcow.lab.test:99999"}, "mailcow_endpoint"),
        ({"mailcow_endpoint": "https://[::1"}, "mailcow_endpoint"),
        ({"mailcow_endpoint": "https://xn--"}, "mailcow_endpoint"),
        ({"mailcow_token": ""}, "mailcow_token"),
        ({"mailcow_token": "a key\n"}, "mailcow_token"),
        ({"mailcow_ca_file": "/nonexistent.pem"}, "mailcow_ca_file"),
        ({"mailcow_ca_file": __file__}, "mailcow_ca_file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, str], name: str) -> None:
    needed = {"mailcow_endpoint": "https://mailcow.lab.test", "mailcow_token": "KEY"} | settings
    backends = Backends(AccountSettings(**needed))  # type: ignore[arg-type] # the test knows the names
    with pytest.raises(SettingsError, match=f"^{name} "):
        backends.get("mailcow")


def test_a_moment_that_is_still_to_come_does_not_block_the_key(
    server: FakeMailcow, connect: Open
) -> None:
    """A clock was wrong for a while."""
    clock, keys = Clock(), ProcessMemory()
    mailcow = connect(keys=keys, now=clock, timeout=QUICK)
    mailcow.find(ALICE, OWNER)
    (digest, known) = keys._known.popitem()
    for state in (KeyState.TRIED, KeyState.REFUSED):
        later = KeyStatus(state, known.changed_at + timedelta(days=1))
        assert keys.replace(digest, keys.read(digest), later)
        assert mailcow.find(ALICE, OWNER) is None


def test_another_password_is_set(server: FakeMailcow, mailcow: Mailcow) -> None:
    mailcow.create(ALICE, PASSWORD, OWNER)
    before = dict(server.mailboxes[ALICE])
    mailcow.set_password(ALICE, "another", OWNER)
    assert server.passwords == {ALICE: "another"}
    assert server.mailboxes[ALICE] == before


def test_a_password_that_mailcow_refuses_changes_nothing_and_is_not_told(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    mailcow.create(ALICE, PASSWORD, OWNER)
    with pytest.raises(MisconfiguredError, check=lambda e: "short" not in str(e.cause)) as refused:
        mailcow.set_password(ALICE, "short", OWNER)
    assert "mailcow's password policy asks for more" in str(refused.value.cause)
    with pytest.raises(MisconfiguredError, match="administrator"):
        mailcow.set_password("nobody@lab.test", PASSWORD, OWNER)
    server.replies["edit/mailbox"] = Reply(200, b"[]")
    with pytest.raises(UncertainError):
        mailcow.set_password(ALICE, "another", OWNER)
    assert server.passwords == {ALICE: PASSWORD}


def test_a_mailbox_above_the_limits_of_its_domain_keeps_its_password(
    server: FakeMailcow, mailcow: Mailcow
) -> None:
    over_quota(quota=50, maxquota=10)(server)
    with pytest.raises(MisconfiguredError) as refused:
        mailcow.set_password("a@small.test", PASSWORD, OWNER)
    assert "above the limits of its domain" in str(refused.value.cause)
