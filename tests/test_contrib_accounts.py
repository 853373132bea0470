"""The programs for account_command keep mailboxes that real servers let people log in to."""

import contextlib
import functools
import imaplib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import create_engine, text

from automx.backends import Mailbox, Owner
from automx.backends.command import Command
from automx.errors import TakenError, TryAgainError, UncertainError
from tests.databases import Instance, engine_uri, run
from tests.processes import REPOSITORY, Running, free_port, listens, program, running, wait_until

CONTRIB = REPOSITORY / "contrib"
ADDRESS = "dc-abcde@example.org"
PASSWORD = "pässword: {x}$1"
MARK = "0123456789abcdef"
OWNER = Owner("weekly", MARK)
STRANGER = Owner("weekly", "fedcba9876543210")
HOME = "/nowhere/%d/%n-%m"
NO_ACTION = "the action is none of check, create, find, password, disable, delete"

# Dovecot 2.3, as in Debian 12. It forgets nothing and delays nobody.
DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = automx-accounts
log_path = /dev/stderr
listen = 127.0.0.1
protocols = imap
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = maildir:~/Maildir
first_valid_uid = 1
mail_plugins = last_login
plugin {{
  last_login_dict = file:~/last-login
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
}}
{databases}
"""

PASSWD_FILE = """\
passdb {{
  driver = passwd-file
  args = {users}
}}
userdb {{
  driver = passwd-file
  args = {users}
}}
"""


@dataclass
class Dovecot:
    """A running Dovecot."""

    server: Running
    port: int
    configuration: Path

    def lets_in(self, password: str, user: str = ADDRESS) -> bool:
        """Tell whether somebody can log in and see the INBOX."""
        with imaplib.IMAP4("127.0.0.1", self.port) as client:
            credentials = f"\0{user}\0{password}".encode()
            try:
                client.authenticate("PLAIN", lambda _: credentials)
            except client.error:
                return False
            return client.select()[0] == "OK"

    def will_let_in(self, password: str, user: str = ADDRESS) -> None:
        """Wait until somebody can log in after a change that the program did not make."""
        wait_until(lambda: self.lets_in(password, user), f"the login of {user}")


@contextlib.contextmanager
def running_dovecot(folder: Path, databases: str) -> Iterator[Dovecot]:
    port = free_port()
    configuration = folder / "dovecot.conf"
    configuration.write_text(DOVECOT.format(folder=folder, port=port, databases=databases))
    with running(
        [program("dovecot", "dovecot-imapd"), "-F", "-c", configuration],
        folder / "dovecot.log",
        ready=lambda: listens(port),
    ) as server:
        yield Dovecot(server, port, configuration)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that Dovecot's users may enter, with a short name: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="automx-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# Runs a program that does not wait for Dovecot: most tests have none.
HASTY = """\
import sys, time
del sys.argv[0]
time.sleep = lambda _: None
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
with open(sys.argv[0]) as program:
    exec(compile(program.read(), sys.argv[0], "exec"))
"""


@dataclass
class Accounts:
    """The passwd-file of a test, and the program that keeps it."""

    file: Path
    options: list[str] = field(default_factory=list)
    is_hasty: bool = True
    program: Path = CONTRIB / "accounts-dovecot"

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""
        start = ("-S", "-c", HASTY) if self.is_hasty else ()  # -S: it needs no packages
        start = (sys.executable, "-W", "error", *start, str(self.program))
        return (*start, str(self.file), *self.options)

    @property
    def backend(self) -> Command:
        """The backend as it is configured with the command line."""
        return Command(self.words, timeout=60)

    def run(self, **document: object) -> object:
        """Run the program with any request and return its answer."""
        request = {"version": 1, "address": ADDRESS, "token": OWNER.token, "mark": OWNER.mark}
        return answer(self.words, json.dumps(request | document).encode())


def answer(words: Sequence[str], request: bytes) -> object:
    result = subprocess.run(words, input=request, capture_output=True, check=True)
    assert result.stderr == b""
    return json.loads(result.stdout)


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    """An empty passwd-file, and homes that nobody has used."""
    folder = tmp_path / "accounts"
    folder.mkdir()
    file = folder / "users"
    file.touch(0o640)
    return Accounts(file, ["--home", HOME])


@pytest.fixture(scope="module")
def dovecot(open_folder: Path) -> Iterator[Dovecot]:
    """A Dovecot that reads the file ``users`` in the open folder."""
    users = open_folder / "users"
    users.touch()
    users.chmod(0o644)
    mail = open_folder / "mail"
    mail.mkdir()
    mail.chmod(0o777)
    with running_dovecot(open_folder, PASSWD_FILE.format(users=users)) as server:
        yield server


@pytest.fixture
def served(open_folder: Path, dovecot: Dovecot) -> Iterator[Accounts]:
    """The passwd-file that Dovecot reads; each test leaves it empty."""
    mail = f"{open_folder}/mail/%d/%n"
    options = ["--uid", "nobody", "--gid", "nogroup", "--home", mail]
    options += ["--last-login", f"{mail}/last-login"]
    accounts = Accounts(open_folder / "users", options, is_hasty=False)
    yield accounts
    accounts.backend.delete(ADDRESS, OWNER)
    shutil.rmtree(open_folder / "mail" / "example.org", ignore_errors=True)
    assert accounts.file.read_bytes() == b""


def test_a_new_mailbox_can_be_logged_in_to(served: Accounts, dovecot: Dovecot) -> None:
    assert served.backend.find(ADDRESS, OWNER) is None
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    assert dovecot.lets_in(PASSWORD)
    assert not dovecot.lets_in(PASSWORD + "x")
    assert not dovecot.lets_in("")
    assert served.backend.find(ADDRESS, OWNER) is not None
    home = served.options[5].replace("%d", "example.org").replace("%n", "dc-abcde")
    name, hashed, *others = served.file.read_text().split(":")
    assert name == ADDRESS
    assert hashed.startswith("{SHA512-CRYPT}$6$")
    assert others[:4] == ["nobody", "nogroup", "automx weekly 0123456789abcdef", home]
    assert others[4:] == ["", "userdb_mail=maildir", "~/Maildir\n"]


def test_a_disabled_mailbox_cannot_be_logged_in_to_and_keeps_its_password(
    served: Accounts, dovecot: Dovecot
) -> None:
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    assert dovecot.lets_in(PASSWORD)
    enabled = served.file.read_text()
    served.backend.disable(ADDRESS, OWNER)
    assert not dovecot.lets_in(PASSWORD)
    assert served.backend.find(ADDRESS, OWNER) == Mailbox(
        is_active=False, is_ours=True, last_login=last_login(served)
    )
    disabled = served.file.read_text()
    hashed = disabled.split(":")[1].removeprefix("{CRYPT}!")
    assert not any(dovecot.lets_in(guess) for guess in (hashed, "!" + hashed, ""))
    served.backend.disable(ADDRESS, OWNER)
    assert served.file.read_text() == disabled
    assert "Error" not in dovecot.server.output

    served.file.write_text(disabled.replace("{CRYPT}!", ""))
    assert served.file.read_text() == enabled
    dovecot.will_let_in(PASSWORD)


def test_another_password_is_the_only_one_and_enables_nothing(
    served: Accounts, dovecot: Dovecot
) -> None:
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    served.backend.set_password(ADDRESS, "another", OWNER)
    assert dovecot.lets_in("another")
    assert not dovecot.lets_in(PASSWORD)
    with pytest.raises(TryAgainError, check=lambda error: "not made" in str(error.cause)):
        served.backend.set_password(ADDRESS, PASSWORD, STRANGER)
    served.backend.disable(ADDRESS, OWNER)
    served.backend.set_password(ADDRESS, "third", OWNER)
    assert not dovecot.lets_in("third")
    served.file.write_text(served.file.read_text().replace("{CRYPT}!", ""))
    dovecot.will_let_in("third")


def last_login(served: Accounts) -> datetime | None:
    found = served.backend.find(ADDRESS, OWNER)
    assert found is not None
    return found.last_login


def test_the_last_login_is_told(served: Accounts, dovecot: Dovecot) -> None:
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    assert served.backend.find(ADDRESS, OWNER) == Mailbox(is_active=True, is_ours=True)
    before = datetime.now(UTC).replace(microsecond=0)
    assert dovecot.lets_in(PASSWORD)
    wait_until(lambda: last_login(served) is not None, "the note of the login")
    login = last_login(served)
    assert login is not None
    assert before <= login <= datetime.now(UTC)


def test_a_deleted_mailbox_is_gone_with_its_mail(
    served: Accounts, dovecot: Dovecot, open_folder: Path
) -> None:
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    assert dovecot.lets_in(PASSWORD)
    domain = open_folder / "mail" / "example.org"
    assert (domain / "dc-abcde" / "Maildir" / "cur").is_dir()
    served.backend.delete(ADDRESS, OWNER)
    assert list(domain.iterdir()) == []
    assert served.backend.find(ADDRESS, OWNER) is None
    assert not dovecot.lets_in(PASSWORD)
    served.backend.delete(ADDRESS, OWNER)
    served.backend.disable(ADDRESS, OWNER)


def test_sessions_end_when_a_mailbox_is_disabled(
    served: Accounts, dovecot: Dovecot, tmp_path: Path
) -> None:
    doveadm = tmp_path / "doveadm"
    doveadm.write_text(f'#!/bin/sh\nexec doveadm -c "{dovecot.configuration}" "$@"\n')
    doveadm.chmod(0o755)
    served.options += ["--kick", "--doveadm", str(doveadm)]
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    assert dovecot.lets_in(PASSWORD)
    client = imaplib.IMAP4("127.0.0.1", dovecot.port)
    try:
        client.authenticate("PLAIN", lambda _: f"\0{ADDRESS}\0{PASSWORD}".encode())
        served.backend.disable(ADDRESS, OWNER)
        with pytest.raises(imaplib.IMAP4.abort):
            client.noop()
    finally:
        client.shutdown()
    served.backend.disable(ADDRESS, OWNER)


def test_the_user_of_a_session_is_no_option(accounts: Accounts, tmp_path: Path) -> None:
    """The first part of an address may begin with a hyphen: doveadm kick has an option -a."""
    doveadm = tmp_path / "doveadm"
    doveadm.write_text(f'#!/bin/sh\necho "$@" >"{tmp_path}/told"\n')
    doveadm.chmod(0o755)
    accounts.file.write_text(f"-a@example.org:x:::automx weekly {MARK}:::\n")
    accounts.options += ["--kick", "--doveadm", str(doveadm)]
    accounts.backend.disable("-a@example.org", OWNER)
    assert (tmp_path / "told").read_text() == "kick -- -a@example.org\n"


def test_sessions_that_cannot_be_ended_are_no_failure(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    accounts.file.write_text(line())
    accounts.options += ["--kick", "--doveadm", "/nowhere"]
    accounts.backend.disable(ADDRESS, OWNER)
    assert caplog.messages == [
        "account_command, disable: [Errno 2] No such file or directory: '/nowhere'"
    ]
    accounts.backend.delete(ADDRESS, OWNER)
    assert accounts.file.read_bytes() == b""


def test_dovecot_notices_each_change(served: Accounts, dovecot: Dovecot) -> None:
    """It compares size and time of the file, the latter in seconds: sizes here are all the same."""
    for number in range(3):
        served.backend.create(ADDRESS, f"password {number}", OWNER)
        assert dovecot.lets_in(f"password {number}")
        served.backend.delete(ADDRESS, OWNER)


def test_each_of_a_crowd_can_log_in_when_it_is_told_so(served: Accounts, dovecot: Dovecot) -> None:
    """Others log in all the time, so Dovecot has just looked at its file when a line is added."""
    names = [f"dc-{number}@example.org" for number in range(16)]
    served.options += ["--scheme", "SSHA256"]
    served.backend.create(ADDRESS, PASSWORD, OWNER)
    is_over = threading.Event()

    def keep_logging_in() -> None:
        while not is_over.is_set():
            assert dovecot.lets_in(PASSWORD)

    def scan(name: str) -> bool:
        served.backend.create(name, PASSWORD, OWNER)
        return dovecot.lets_in(PASSWORD, name)

    with ThreadPoolExecutor(5) as phones, ThreadPoolExecutor(1) as others:
        going_on = others.submit(keep_logging_in)
        let_in = list(phones.map(scan, names))
        is_over.set()
        going_on.result()
    for name in names:
        served.backend.delete(name, OWNER)
    assert let_in == [True] * len(names)


def test_names_of_others_are_taken(accounts: Accounts) -> None:
    accounts.file.write_text(f"{ADDRESS}:{{PLAIN}}secret:::Alice\n")
    before = accounts.file.read_bytes()
    with pytest.raises(TakenError):
        accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    assert accounts.backend.find(ADDRESS, OWNER) == Mailbox(
        is_active=True, is_ours=False, sees_logins=False
    )
    for change in (accounts.backend.disable, accounts.backend.delete):
        with pytest.raises(TryAgainError) as error:
            change(ADDRESS, OWNER)
        assert "was not made for this account, and is left alone" in str(error.value.cause)
    assert accounts.file.read_bytes() == before


def test_mailboxes_of_other_accounts_are_left_alone(accounts: Accounts) -> None:
    accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    before = accounts.file.read_bytes()
    with pytest.raises(TakenError):
        accounts.backend.create(ADDRESS, PASSWORD, STRANGER)
    assert accounts.backend.find(ADDRESS, STRANGER) == Mailbox(
        is_active=True, is_ours=False, sees_logins=False
    )
    with pytest.raises(TryAgainError):
        accounts.backend.delete(ADDRESS, STRANGER)
    assert accounts.file.read_bytes() == before


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_of_others_stay_as_they_are(accounts: Accounts, end: bytes) -> None:
    others = (
        b"# a comment\n\nalice@example.org:{PLAIN}x\nbob\n:\n\xff:{PLAIN}y::::::a=b c:d\r" + end
    )
    accounts.file.write_bytes(others)
    accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    accounts.backend.create("x" + ADDRESS, PASSWORD, STRANGER)
    assert accounts.file.read_bytes().startswith(others)
    accounts.backend.disable(ADDRESS, OWNER)
    accounts.backend.delete(ADDRESS, OWNER)
    accounts.backend.delete("x" + ADDRESS, STRANGER)
    assert accounts.file.read_bytes() == others.removesuffix(b"\n") + b"\n"


def test_the_line_at_the_top_is_found(accounts: Accounts) -> None:
    accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    accounts.backend.create("x" + ADDRESS, PASSWORD, OWNER)
    accounts.backend.delete(ADDRESS, OWNER)
    assert accounts.file.read_text().startswith(f"x{ADDRESS}:")
    assert accounts.file.read_text().count("\n") == 1


def test_the_options_fill_the_fields(accounts: Accounts) -> None:
    accounts.options += ["--uid", "vmail", "--gid", "5000", "--home", "/srv/%d/%u/%n"]
    accounts.options += ["--extra", "userdb_quota_rule=*:storage=1G", "--scheme", "PLAIN"]
    owner = Owner("a/b: \u00fc\n", "1")
    accounts.backend.create(ADDRESS, "secret", owner)
    home = f"/srv/example.org/{ADDRESS}/dc-abcde"
    assert accounts.file.read_text() == (
        f"{ADDRESS}:{{PLAIN}}secret:vmail:5000:automx a_b____ 1:{home}"
        "::userdb_mail=maildir:~/Maildir userdb_quota_rule=*:storage=1G\n"
    )
    assert accounts.backend.find(ADDRESS, owner) == Mailbox(
        is_active=True, is_ours=True, sees_logins=False
    )


@pytest.mark.parametrize(
    "location",
    [
        "userdb_mail=sdbox:~/mail",
        # Dovecot 2.4
        "userdb_mail_driver=maildir userdb_mail_path=~/Maildir userdb_mail_inbox_path=~/Maildir",
    ],
)
def test_the_mail_may_be_elsewhere_in_the_home(accounts: Accounts, location: str) -> None:
    accounts.options += ["--extra", location]
    accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    assert accounts.file.read_text().endswith(f"-0123456789abcdef::{location}\n")
    accounts.backend.delete(ADDRESS, OWNER)
    accounts.backend.create(ADDRESS, PASSWORD, STRANGER)


@pytest.mark.parametrize(
    "options",
    [
        ["--home", "var/%u"],
        ["--home", "/var/%u:x"],
        ["--home", "/var/%u/%h"],
        ["--mail", "/var/%n"],
        ["--mail", "/var/%d"],
        ["--home", "/var/%m"],
        ["--home", "/var/%n.%d"],
        ["--home", "/var/%d-%n/mail"],
        ["--home", "/var/%n%d"],
        ["--extra", "userdb_mail=mbox:~/mail:INBOX=/var/mail/%u"],
        ["--extra", "userdb_quota_rule=*:storage=1G userdb_mail=maildir:/srv/%u"],
        ["--extra", "userdb_mail=maildir:~/../other"],
        ["--extra", "userdb_mail_driver=maildir userdb_mail_path=/srv/%u"],
        ["--extra", "userdb_home=/srv/mail"],
        ["--last-login", "/var/last-login"],
        ["--uid", "a:b"],
        ["--extra", "a\nb"],
        ["--ho", "/var/%u"],
        ["--trash", "/var/trash"],
    ],
)
def test_options_that_cannot_be_right(accounts: Accounts, options: list[str]) -> None:
    accounts.options = options
    with pytest.raises(UncertainError) as error:
        accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    assert "exit status 2: usage: accounts-dovecot" in str(error.value.cause)
    assert accounts.file.read_bytes() == b""


def test_owner_mode_and_link_of_the_file_stay(accounts: Accounts, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(accounts.file)
    if os.geteuid() == 0:
        os.chown(accounts.file, 12345, 23456)
    accounts.file.chmod(0o640)
    before = accounts.file.stat()
    Accounts(link, accounts.options).backend.create(ADDRESS, PASSWORD, OWNER)
    after = accounts.file.stat()
    assert link.is_symlink()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )
    assert after.st_ino != before.st_ino
    assert sorted(path.name for path in accounts.file.parent.iterdir()) == ["users", "users.lock"]
    lock = accounts.file.with_name("users.lock").stat()
    assert (lock.st_uid, lock.st_mode & 0o777) == (before.st_uid, 0o600)


# Root may run the program, although another user owns the folder of the file or of the mail.

HOSTILE = 12345  # the number of that user


def planted(what: str, path: Path, secret: Path) -> None:
    """Put something in the place of a file, as the other user could."""
    path.unlink(missing_ok=True)
    if what == "link":
        path.symlink_to(secret)
        os.chown(path, HOSTILE, HOSTILE, follow_symlinks=False)
    elif what == "link of nothing":
        path.symlink_to(secret.with_name("new"))
        os.chown(path, HOSTILE, HOSTILE, follow_symlinks=False)
    elif what == "second name":
        path.hardlink_to(secret)
    elif what == "pipe":
        os.mkfifo(path)
        os.chown(path, HOSTILE, HOSTILE)
    elif what == "folder":
        path.mkdir()
    elif what == "file of root":  # that the other user could move, such as a backup
        path.write_bytes(secret.read_bytes())


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file of root's, which must stay as it is and where it is."""
    folder = tmp_path / "root"
    folder.mkdir()
    secret = folder / "secret"
    secret.write_text("of root\n")
    secret.chmod(0o600)
    before = secret.stat()
    yield secret
    after = secret.stat()
    assert secret.read_text() == "of root\n"
    kept = ("st_uid", "st_gid", "st_mode", "st_size", "st_mtime_ns", "st_ino")
    assert [getattr(after, key) for key in kept] == [getattr(before, key) for key in kept]
    assert list(folder.iterdir()) == [secret]


@pytest.fixture
def hostile(accounts: Accounts) -> Accounts:
    """A passwd-file in a folder of another user, with a mailbox."""
    if os.geteuid() != 0:
        pytest.fail("needs root: nobody else can give files to others")
    accounts.file.write_text(f"{ADDRESS}:{{PLAIN}}x:::automx weekly {MARK}:::\n")
    for path in (accounts.file.parent, accounts.file):
        os.chown(path, HOSTILE, HOSTILE)
    return accounts


PLANTED = ["link", "link of nothing", "second name", "pipe", "folder"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *itertools.product(["users", "users.lock", "users.retired"], PLANTED),
        ("users.lock", "file of root"),
        ("users.retired", "file of root"),
    ],
)
def test_root_opens_only_files_of_the_folder(
    hostile: Accounts, secret: Path, name: str, what: str
) -> None:
    """It would give the other user what it opens, or write there."""
    path = hostile.file.with_name(name)
    planted(what, path, secret)
    before = path.lstat().st_ino, path.lstat().st_uid
    answer = hostile.run(action="delete")
    assert isinstance(answer, dict)
    assert answer["status"] == "refused"
    assert name in answer["reason"]
    assert "\n" not in answer["reason"]
    assert (path.lstat().st_ino, path.lstat().st_uid) == before


@pytest.mark.parametrize("what", PLANTED)
def test_the_note_of_a_login_is_a_file_of_the_home(
    hostile: Accounts, secret: Path, tmp_path: Path, what: str
) -> None:
    note = tmp_path / "example.org" / "dc-abcde" / "last-login"
    note.parent.mkdir(parents=True)
    planted(what, note, secret)
    hostile.options += ["--last-login", f"{tmp_path}/%d/%n/last-login"]
    answer = hostile.run(action="find")
    if what == "link of nothing":
        note.unlink()
    assert isinstance(answer, dict)
    assert answer["status"] == "refused"


@pytest.mark.parametrize("is_absolute", [True, False])
@pytest.mark.parametrize("part", ["file", "folder"])
def test_root_follows_links_of_its_own_only(
    hostile: Accounts, tmp_path: Path, part: str, is_absolute: bool
) -> None:
    target = hostile.file if part == "file" else hostile.file.parent
    link = tmp_path / "link"
    link.symlink_to(target if is_absolute else Path("..", tmp_path.name) / target.name / ".")
    if part == "file":
        link.unlink()
        link.symlink_to(target if is_absolute else f"../{tmp_path.name}/accounts/users")
    file = link if part == "file" else link / "users"
    assert Accounts(file).run(action="find") == {
        "status": "found",
        "active": True,
        "ours": True,
        "last_login": None,
    }
    os.chown(link, HOSTILE, HOSTILE, follow_symlinks=False)
    reason = f"{file}: link is a symbolic link of another user"
    assert Accounts(file).run(action="find") == {"status": "refused", "reason": reason}


@pytest.mark.parametrize("part", ["domain", "trash"])
def test_root_moves_no_home_through_a_planted_folder(
    accounts: Accounts, mail: Path, tmp_path: Path, part: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    trash = mail / ".trash"
    trash.mkdir()
    planted_folder = mail / "example.org" if part == "domain" else trash
    planted_folder.rename(elsewhere)
    planted_folder.symlink_to(elsewhere)
    os.chown(planted_folder, HOSTILE, HOSTILE, follow_symlinks=False)
    accounts.options += ["--trash", str(trash)] if part == "trash" else []
    accounts.file.write_text(line(mail))
    before = messages(elsewhere)
    answer = accounts.run(action="delete")
    assert isinstance(answer, dict)
    assert answer["status"] == "refused"
    assert answer["reason"].endswith(f"{planted_folder.name} is a symbolic link of another user")
    assert messages(elsewhere) == before


def test_what_is_in_a_home_is_removed_there_only(
    accounts: Accounts, mail: Path, secret: Path
) -> None:
    home = mail / "example.org" / "dc-abcde"
    (home / "folder").symlink_to(secret.parent)
    (home / "file").symlink_to(secret)
    (home.parent / ".dc-abcde.deleted-1").symlink_to(secret.parent)
    accounts.file.write_text(line(mail))
    assert accounts.run(action="delete") == {"status": "deleted"}
    assert [path.name for path in home.parent.iterdir()] == ["dc-abcd"]


@pytest.mark.parametrize("mode", ["of another user", "of a group that may write"])
def test_root_moves_no_folder_that_others_wrote_into_the_file(
    hostile: Accounts, secret: Path, mode: str
) -> None:
    if mode == "of a group that may write":
        for path in (hostile.file.parent, hostile.file):
            os.chown(path, 0, HOSTILE)
            path.chmod(0o770)
    hostile.file.write_text(f"{ADDRESS}:{{PLAIN}}x:::automx weekly {MARK}:{secret.parent}::\n")
    reason = f"{secret.parent}: a folder of another user"
    assert hostile.run(action="delete") == {"status": "refused", "reason": reason}
    assert ADDRESS in hostile.file.read_text()


@pytest.mark.parametrize("is_usual", [True, False])
def test_root_deletes_a_mailbox_of_another_user_as_that_user_would(
    hostile: Accounts, mail: Path, is_usual: bool
) -> None:
    home = mail / "example.org" / "dc-abcde"
    if not is_usual:
        home = home.rename(mail / "moved")
        os.chown(home, HOSTILE, HOSTILE)
    hostile.options = ["--home", f"{mail}/%d/%n"]
    hostile.file.write_text(line(mail).replace(str(mail / "example.org" / "dc-abcde"), str(home)))
    assert hostile.run(action="delete") == {"status": "deleted"}
    assert not home.exists()
    names = {path.name: path.stat().st_uid for path in hostile.file.parent.iterdir()}
    assert names == {"users": HOSTILE, "users.lock": HOSTILE}


def test_no_rights_are_needed_but_those_to_the_folder() -> None:
    """A folder with the group of Dovecot and the setgid bit gives each new file that group."""
    with tempfile.TemporaryDirectory(prefix="automx-") as name:
        # Another user may not read a checkout below /root, nor run a Python there.
        copy = Path(name) / "lib"
        copy.mkdir()
        for file in ("accounts-dovecot", "automx_accounts.py"):
            shutil.copy(CONTRIB / file, copy)
        folder = Path(name) / "mail"
        folder.mkdir()
        accounts = Accounts(folder / "users", program=copy / "accounts-dovecot")
        accounts.file.touch()
        words: tuple[str, ...] = ("/usr/bin/python3", *accounts.words[1:])
        Path(name).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 23456)
            os.chown(accounts.file, 65534, 23456)
            setpriv = program("setpriv", "util-linux")
            words = (setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *words)
        folder.chmod(0o2750)
        accounts.file.chmod(0o640)
        before = accounts.file.stat()
        Command(words, timeout=60).create(ADDRESS, PASSWORD, OWNER)
        after = accounts.file.stat()
        assert after.st_size > 0
        assert (after.st_gid, after.st_mode) == (before.st_gid, before.st_mode)


def test_no_two_versions_of_the_file_look_the_same_to_dovecot(accounts: Accounts) -> None:
    accounts.options += ["--scheme", "PLAIN"]
    versions = []

    def remember() -> None:
        status = accounts.file.stat()
        versions.append((int(status.st_mtime), status.st_size))

    for _ in range(3):
        accounts.backend.create(ADDRESS, "secret", OWNER)
        remember()
        accounts.backend.disable(ADDRESS, OWNER)
        remember()
        accounts.backend.delete(ADDRESS, OWNER)
        remember()
    assert len(set(versions)) == len(versions)


def test_forty_programs_at_once_lose_nothing(accounts: Accounts) -> None:
    backend = accounts.backend
    names = [f"dc-{number}@example.org" for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda name: backend.create(name, PASSWORD, OWNER), names))
        lines = accounts.file.read_text().splitlines()
        assert sorted(line.partition(":")[0] for line in lines) == sorted(names)
        list(pool.map(lambda name: backend.delete(name, OWNER), names))
    assert accounts.file.read_bytes() == b""


def test_one_of_many_programs_gets_a_name(accounts: Accounts) -> None:
    backend = accounts.backend

    def create(mark: int) -> str:
        try:
            backend.create(ADDRESS, PASSWORD, Owner("weekly", str(mark)))
        except TakenError:
            return "taken"
        return "created"

    with ThreadPoolExecutor(10) as pool:
        assert sorted(pool.map(create, range(10))) == ["created", *["taken"] * 9]
    assert accounts.file.read_text().count("\n") == 1


# The system calls that change something, or are between two that do.
CALLS = [
    "flock",
    "write",
    "fchmod",
    "fchown",
    "utimensat",
    "fsync",
    "renameat",
    "unlinkat",
]


def killed(
    words: Sequence[str], request: object, call: str, number: int
) -> subprocess.CompletedProcess[bytes]:
    """Run a program and kill it as it is about to do a system call for the so many-th time."""
    strace = [program("strace", "strace"), "--quiet=all", "--output=/dev/null"]
    return subprocess.run(
        [*strace, f"--inject={call}:signal=KILL:when={number}", *words],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )


def sent(words: Sequence[str], request: object, log: Path) -> list[str]:
    """Run a program to its end, and return what it has sent to others, message by message."""
    strace = [program("strace", "strace"), "--quiet=all", f"--output={log}"]
    subprocess.run(
        [*strace, "--trace=sendto", "--string-limit=500", *words],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=True,
    )
    return [line for line in log.read_text().splitlines() if line.startswith("sendto(")]


def killed_everywhere(
    words: Sequence[str], request: object, prepare: Callable[[], object], log: Path
) -> Iterator[bytes]:
    """Run a program whole, and kill it at each of its changes; yields what it has answered."""
    strace = [program("strace", "strace"), "--quiet=all", f"--output={log}"]
    prepare()
    whole = subprocess.run(
        [*strace, f"--trace={','.join(CALLS)}", *words],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=True,
    )
    calls = Counter(re.findall(r"^\w+(?=\()", log.read_text(), re.MULTILINE))
    yield whole.stdout
    for call, times in calls.items():
        for number in range(1, times + 1):
            prepare()
            result = killed(words, request, call, number)
            assert result.returncode == -signal.SIGKILL
            yield result.stdout


def test_a_program_that_is_killed_at_any_point_leaves_a_whole_file(
    accounts: Accounts, tmp_path: Path
) -> None:
    accounts.options += ["--scheme", "PLAIN"]
    others = "user@example.org:{PLAIN}x:::::\n"
    made = line()
    locked = made.replace("{PLAIN}", "{CRYPT}!{PLAIN}")
    request = {"version": 1, "address": ADDRESS, "token": OWNER.token, "mark": OWNER.mark}
    for action, before, after in (
        ("create", others, others + made),
        ("disable", others + made, others + locked),
        ("delete", others + made, others),
    ):
        document = request | {"action": action, "password": "secret"}
        found = []
        prepare = functools.partial(accounts.file.write_text, before)
        for answered in killed_everywhere(accounts.words, document, prepare, tmp_path / "calls"):
            contents = accounts.file.read_text()
            assert contents in {before, after}
            assert contents == after or not answered, "it said what is not true"
            found.append(contents)
            accounts.backend.find(ADDRESS, OWNER)
            names = sorted(path.name for path in accounts.file.parent.iterdir())
            assert names == ["users", "users.lock"], "the next run cleans up"
        assert found.count(before) >= 5
        assert found.count(after) >= 2


def test_many_programs_of_which_some_are_killed_lose_nothing(accounts: Accounts) -> None:
    accounts.options += ["--scheme", "PLAIN"]
    request = {"version": 1, "action": "create", "password": "secret", "token": "weekly"}
    names = [f"dc-{number}@example.org" for number in range(30)]

    def run(number: int) -> bool:
        document = request | {"address": names[number], "mark": "1"}
        call = CALLS[number % len(CALLS)]
        return killed(accounts.words, document, call, 1 + number % 3).stdout != b""

    with ThreadPoolExecutor(8) as pool:
        have_answered = list(pool.map(run, range(30)))
    lines = accounts.file.read_text().splitlines(keepends=True)
    form = r"[^:]+:\{PLAIN\}secret:::automx weekly 1:/nowhere/\S+-1::userdb_mail=\S+\n"
    assert all(re.fullmatch(form, line) for line in lines)
    made = [line.partition(":")[0] for line in lines]
    assert len(made) == len(set(made))
    assert {name for name, has in zip(names, have_answered, strict=True) if has} <= set(made)
    assert 0 < sum(have_answered) < 30


@pytest.fixture
def mail(accounts: Accounts, tmp_path: Path) -> Path:
    """The folder of the mailboxes, with a message for each of two people."""
    folder = tmp_path / "mail"
    for name in ("dc-abcde", "dc-abcd"):
        maildir = folder / "example.org" / name / "Maildir"
        for part in ("cur", "new", "tmp"):
            (maildir / part).mkdir(parents=True)
        (maildir / "new" / "1").write_text("Subject: secret\n\n")
    accounts.options = ["--home", f"{folder}/%d/%n"]
    return folder


def messages(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_mail_that_is_there_already_belongs_to_somebody(accounts: Accounts, mail: Path) -> None:
    before = messages(mail)
    with pytest.raises(TakenError):
        accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    accounts.backend.delete(ADDRESS, OWNER)
    assert messages(mail) == before


def line(folder: Path | None = None) -> str:
    """Return the line of a mailbox whose home is in a folder of mailboxes."""
    home = f"{folder}/example.org/dc-abcde" if folder else "/nowhere/example.org/dc-abcde-" + MARK
    return (
        f"{ADDRESS}:{{PLAIN}}secret:::automx weekly {MARK}:{home}::userdb_mail=maildir:~/Maildir\n"
    )


def test_only_the_mail_of_the_mailbox_is_removed(accounts: Accounts, mail: Path) -> None:
    accounts.file.write_text(line(mail))
    accounts.backend.delete(ADDRESS, OWNER)
    assert messages(mail) == ["example.org/dc-abcd/Maildir/new/1"]
    assert [path.name for path in (mail / "example.org").iterdir()] == ["dc-abcd"]


def test_mail_is_moved_into_the_trash(accounts: Accounts, mail: Path) -> None:
    trash = mail / ".trash"
    trash.mkdir()
    accounts.options += ["--trash", str(trash)]
    for _ in range(2):
        accounts.file.write_text(line(mail))
        accounts.backend.delete(ADDRESS, OWNER)
        (mail / "example.org" / "dc-abcd").rename(mail / "example.org" / "dc-abcde")
        (mail / "example.org" / "dc-abcd").mkdir()
    names = sorted(path.name for path in trash.iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(rf"{ADDRESS}\.\d{{8}}T\d{{6}}Z\.[0-9a-f]{{8}}", name) for name in names)
    assert [path.split("/", 2)[2] for path in messages(trash.parent)] == ["Maildir/new/1"] * 2


def test_mail_that_cannot_be_moved_keeps_the_mailbox(accounts: Accounts, mail: Path) -> None:
    accounts.options += ["--trash", str(mail / "missing")]
    accounts.file.write_text(line(mail))
    before = messages(mail)
    with pytest.raises(TryAgainError) as error:
        accounts.backend.delete(ADDRESS, OWNER)
    assert str(error.value.cause).endswith("No such file or directory")
    assert accounts.file.read_text() == line(mail)
    assert messages(mail) == before
    assert sorted(path.name for path in accounts.file.parent.iterdir()) == ["users", "users.lock"]


def test_mail_that_cannot_be_seen_keeps_the_mailbox(accounts: Accounts, mail: Path) -> None:
    """As without the right to enter the folder, which root always has."""
    accounts.file.write_text(line(mail))
    shutil.rmtree(mail / "example.org")
    (mail / "example.org").symlink_to("example.org")
    with pytest.raises(TryAgainError) as error:
        accounts.backend.delete(ADDRESS, OWNER)
    assert str(error.value.cause).endswith("Too many levels of symbolic links")
    assert accounts.file.read_text() == line(mail)
    accounts.file.write_text("")
    with pytest.raises(TryAgainError):
        accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    assert accounts.file.read_text() == ""


def test_a_link_to_mail_is_removed_and_the_mail_stays(accounts: Accounts, mail: Path) -> None:
    folder = mail / "example.org" / "dc-abcde"
    elsewhere = mail / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    accounts.file.write_text(line(mail))
    accounts.backend.delete(ADDRESS, OWNER)
    assert not folder.is_symlink()
    assert (elsewhere / "Maildir" / "new" / "1").exists()


def test_a_deletion_that_is_killed_is_carried_on(accounts: Accounts, tmp_path: Path) -> None:
    accounts.options = ["--home", f"{tmp_path}/mail/%d/%n"]
    folder = tmp_path / "mail" / "example.org" / "dc-abcde"
    request = {"version": 1, "action": "delete", "address": ADDRESS}
    request |= {"token": OWNER.token, "mark": OWNER.mark}

    def prepare() -> None:
        (folder / "cur").mkdir(parents=True)
        (folder / "cur" / "1").touch()
        accounts.file.write_text(line(tmp_path / "mail"))

    states = set()
    for _ in killed_everywhere(accounts.words, request, prepare, tmp_path / "calls"):
        has_line, has_mail = bool(accounts.file.read_bytes()), folder.exists()
        states.add((has_line, has_mail, bool(list((tmp_path / "mail").rglob("1")))))
        accounts.backend.delete(ADDRESS, OWNER)
        assert accounts.file.read_bytes() == b""
        assert list(folder.parent.iterdir()) == []
    assert states == {
        (True, True, True),
        (True, False, True),  # moved aside; and never the other way round: whoever gets
        (False, False, True),  # the name would find the mail
        (False, False, False),
    }


# Whoever has a name next.


def test_the_next_owner_of_a_name_has_another_folder(accounts: Accounts, tmp_path: Path) -> None:
    accounts.options = ["--home", f"{tmp_path}/%d/%n-%m"]
    homes = []
    for owner in (OWNER, STRANGER):
        accounts.backend.create(ADDRESS, PASSWORD, owner)
        homes.append(Path(accounts.file.read_text().split(":")[5]))
        accounts.backend.delete(ADDRESS, owner)
        homes[-1].mkdir(parents=True)  # by a session that is still open
    assert [home.name for home in homes] == [f"dc-abcde-{MARK}", "dc-abcde-fedcba9876543210"]


def test_the_last_login_is_in_the_folder_that_the_line_names(
    accounts: Accounts, mail: Path
) -> None:
    """Else whoever changes the options lets all accounts seem unused."""
    note = mail / "example.org" / "dc-abcde" / "last-login"
    note.write_text(f"shared/last-login/{ADDRESS}\n1796000000\n")
    accounts.file.write_text(line(mail))
    home = f"{mail}/%d/%n-%m"
    accounts.options = ["--home", home, "--last-login", f"{home}/last-login"]
    assert accounts.backend.find(ADDRESS, OWNER) == Mailbox(
        True, True, datetime.fromtimestamp(1796000000, UTC)
    )


def test_the_folder_that_the_line_names_is_removed(accounts: Accounts, mail: Path) -> None:
    """The option may have changed since the mailbox was made."""
    accounts.file.write_text(line(mail))
    accounts.options = ["--home", f"{mail}/%d/%n/%m"]
    accounts.backend.delete(ADDRESS, OWNER)
    assert messages(mail) == ["example.org/dc-abcd/Maildir/new/1"]
    accounts.backend.create(ADDRESS, PASSWORD, STRANGER)


@pytest.mark.parametrize("home", ["", "/nowhere/dc-abcde"])
def test_a_name_whose_mail_may_be_anywhere_has_no_next_owner(accounts: Accounts, home: str) -> None:
    """Such as Debian's /var/mail, if neither the program nor the line says another place."""
    accounts.options = []
    if home:
        accounts.file.write_text(f"{ADDRESS}:{{PLAIN}}x:::automx weekly {MARK}:{home}::\n")
    else:
        accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    for _ in range(2):
        accounts.backend.delete(ADDRESS, OWNER)
        assert accounts.backend.find(ADDRESS, OWNER) is None
        with pytest.raises(TakenError):
            accounts.backend.create(ADDRESS, PASSWORD, STRANGER)
        accounts.options = ["--home", HOME]
    retired = accounts.file.with_name("users.retired")
    assert retired.read_text() == f"{ADDRESS}\n"
    assert retired.stat().st_mode & 0o777 == 0o600
    accounts.backend.create("x" + ADDRESS, PASSWORD, STRANGER)
    retired.write_text("")
    accounts.backend.create(ADDRESS, PASSWORD, STRANGER)


def test_a_retired_name_has_a_line_of_its_own(accounts: Accounts) -> None:
    retired = accounts.file.with_name("users.retired")
    retired.write_text("alice@example.o")
    accounts.options = []
    accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    accounts.backend.delete(ADDRESS, OWNER)
    with pytest.raises(TakenError):
        accounts.backend.create(ADDRESS, PASSWORD, STRANGER)
    assert retired.read_text() == f"alice@example.o\n{ADDRESS}\n"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "dc-abcde",
        "@example.org",
        "a@b@example.org",
        "../etc@example.org",
        "..@example.org",
        ".a@example.org",
        "a..b@example.org",
        "a/b@example.org",
        "a@../../etc",
        "a@example..org",
        "a@-example.org",
        "a@example.org\n",
        "a:b@example.org",
        "a b@example.org",
        "#a@example.org",
        "%d@example.org",
        "A@example.org",
        "\u00e4@example.org",
        "a\x00@example.org",
        "a" * 65 + "@example.org",
        "a@" + "b." * 130 + "org",
        None,
        ["a@example.org"],
    ],
)
@pytest.mark.parametrize(
    ("action", "status"), [("check", "unfit"), ("create", "unfit"), ("delete", "refused")]
)
def test_odd_addresses_are_refused(
    accounts: Accounts, mail: Path, action: str, status: str, address: object
) -> None:
    before = messages(mail)
    answer = accounts.run(action=action, address=address, password=PASSWORD)
    reason = "the address has characters that this program does not accept"
    assert answer == {"status": status, "reason": reason}
    assert messages(mail) == before
    assert accounts.file.read_bytes() == b""


def test_a_new_address_has_no_plus(accounts: Accounts) -> None:
    """Dovecot and Postfix deliver a+b@ to a@. Mailboxes that are there can be deleted."""
    assert accounts.run(action="check") == {"status": "allowed"}
    unfit = {"status": "unfit", "reason": "mail servers do not deliver to an address with a +"}
    for action in ("check", "create"):
        answer = accounts.run(action=action, address="dc+a@example.org", password=PASSWORD)
        assert answer == unfit
    accounts.file.write_text(line().replace(ADDRESS, "dc+a@example.org"))
    assert accounts.run(action="delete", address="dc+a@example.org") == {"status": "deleted"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "the request is not of version 1"),
        (
            {"action": "rename"},
            NO_ACTION,
        ),
        ({"action": None}, NO_ACTION),
        ({"mark": ""}, "the mark is empty or has odd characters"),
        ({"mark": "a/b"}, "the mark is empty or has odd characters"),
        ({"mark": "a:b"}, "the mark is empty or has odd characters"),
        ({"password": ""}, "the password is empty or has characters that cannot be printed"),
        ({"password": "a\nb"}, "the password is empty or has characters that cannot be printed"),
        ({"password": "a\x00b"}, "the password is empty or has characters that cannot be printed"),
        ({"password": 1}, "the password is empty or has characters that cannot be printed"),
    ],
)
def test_requests_that_are_not_understood_are_refused(
    accounts: Accounts, change: dict[str, object], reason: str
) -> None:
    request: dict[str, object] = {"action": "create", "password": PASSWORD}
    assert accounts.run(**(request | change)) == {"status": "refused", "reason": reason}
    assert accounts.file.read_bytes() == b""


@pytest.mark.parametrize("request_", [b"", b"{", b"\xff", b"[" * 50_000, b" " * 70_000])
def test_what_is_no_json_is_refused(accounts: Accounts, request_: bytes) -> None:
    expected = {"status": "refused", "reason": "the request is no JSON"}
    assert answer(accounts.words, request_) == expected


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (
            ["--doveadm", "/nowhere"],
            "/nowhere cannot be started: No such file or directory",
        ),
        (["--scheme", "ROT13"], "doveadm pw made no hash: Fatal: Unknown scheme: ROT13"),
        (["--doveadm", "cat"], "cat pw made no hash: cat: invalid option -- 'O'"),
        (["--doveadm", "true"], "true pw made no hash: "),
    ],
)
def test_a_password_without_a_hash_makes_no_mailbox(
    accounts: Accounts, options: list[str], cause: str
) -> None:
    accounts.options += options
    with pytest.raises(TryAgainError) as error:
        accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    assert cause.strip() in str(error.value.cause)
    assert accounts.file.read_bytes() == b""


def test_nobody_sees_the_password_of_a_running_program(accounts: Accounts, tmp_path: Path) -> None:
    doveadm = tmp_path / "doveadm"
    seen = shlex.quote(str(tmp_path / "seen"))
    doveadm.write_text(
        f"#!/bin/sh\nenv >{seen}; cat /proc/$PPID/environ /proc/$PPID/cmdline >>{seen}\n"
        f'echo "$@" >>{seen}\nexec doveadm "$@"\n'
    )
    doveadm.chmod(0o755)
    accounts.options += ["--doveadm", str(doveadm)]
    accounts.backend.create(ADDRESS, PASSWORD, OWNER)
    assert "-O pw -s SHA512-CRYPT" in (tmp_path / "seen").read_text()
    assert "pässword" not in (tmp_path / "seen").read_text()


@pytest.mark.parametrize("action", ["create", "find", "disable", "delete"])
def test_a_file_that_is_missing_is_not_made(accounts: Accounts, action: str) -> None:
    accounts.file.unlink()
    assert accounts.run(action=action, password=PASSWORD) == {
        "status": "refused",
        "reason": f"{accounts.file}: No such file or directory",
    }
    assert list(accounts.file.parent.iterdir()) == []


def test_a_full_disk_changes_nothing(accounts: Accounts) -> None:
    others = "x:\n" * 1000
    accounts.file.write_text(others)
    limited = ("/bin/sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *accounts.words)
    with pytest.raises(TryAgainError) as error:
        Command(limited, timeout=60).create(ADDRESS, PASSWORD, OWNER)
    assert "File too large" in str(error.value.cause)
    assert accounts.file.read_text() == others
    assert sorted(path.name for path in accounts.file.parent.iterdir()) == ["users", "users.lock"]


def test_a_file_that_somebody_edits_meanwhile_is_not_overwritten(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(CONTRIB)
    loader = SourceFileLoader("accounts_dovecot", str(CONTRIB / "accounts-dovecot"))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    file = module.PasswdFile(accounts.file)
    with file.locked() as lines:
        accounts.file.write_text("edited\n")
        with pytest.raises(module.RefusedError, match="was changed by somebody"):
            file.prepare([*lines, b"line"])
    assert accounts.file.read_text() == "edited\n"


# PostfixAdmin 3.3: what concerns mailboxes, and the types as its upgrade makes them.
POSTFIXADMIN = {
    "mariadb": """
CREATE TABLE domain (
  domain varchar(255) NOT NULL PRIMARY KEY, description varchar(255) NOT NULL DEFAULT '',
  aliases int NOT NULL DEFAULT 0, mailboxes int NOT NULL DEFAULT 0,
  maxquota bigint NOT NULL DEFAULT 0, quota bigint NOT NULL DEFAULT 0,
  transport varchar(255) NOT NULL DEFAULT '', backupmx tinyint(1) NOT NULL DEFAULT 0,
  created datetime NOT NULL DEFAULT '2000-01-01', modified datetime NOT NULL DEFAULT '2000-01-01',
  active tinyint(1) NOT NULL DEFAULT 1, password_expiry int DEFAULT 0
) CHARACTER SET latin1 COLLATE latin1_general_ci;
CREATE TABLE mailbox (
  username varchar(255) NOT NULL PRIMARY KEY, password varchar(255) NOT NULL,
  name varchar(255) CHARACTER SET utf8mb4 NOT NULL, maildir varchar(255) NOT NULL,
  quota bigint NOT NULL DEFAULT 0, local_part varchar(255) NOT NULL, domain varchar(255) NOT NULL,
  created datetime NOT NULL DEFAULT '2000-01-01', modified datetime NOT NULL DEFAULT '2000-01-01',
  active tinyint(1) NOT NULL DEFAULT 1, phone varchar(30) NOT NULL DEFAULT '',
  email_other varchar(255) NOT NULL DEFAULT '', token varchar(255) NOT NULL DEFAULT '',
  token_validity datetime NOT NULL DEFAULT '2000-01-01',
  password_expiry datetime NOT NULL DEFAULT '2000-01-01', KEY domain (domain)
) CHARACTER SET latin1 COLLATE latin1_general_ci;
CREATE TABLE alias (
  address varchar(255) NOT NULL PRIMARY KEY, goto text NOT NULL, domain varchar(255) NOT NULL,
  created datetime NOT NULL DEFAULT '2000-01-01', modified datetime NOT NULL DEFAULT '2000-01-01',
  active tinyint(1) NOT NULL DEFAULT 1, KEY domain (domain)
) CHARACTER SET latin1 COLLATE latin1_general_ci;
""",
    "postgresql": """
CREATE TABLE domain (
  domain varchar(255) NOT NULL PRIMARY KEY, description varchar(255) NOT NULL DEFAULT '',
  aliases int NOT NULL DEFAULT 0, mailboxes int NOT NULL DEFAULT 0,
  maxquota bigint NOT NULL DEFAULT 0, quota bigint NOT NULL DEFAULT 0, transport varchar(255),
  backupmx boolean NOT NULL DEFAULT false, created timestamptz DEFAULT now(),
  modified timestamptz DEFAULT now(), active boolean NOT NULL DEFAULT true,
  password_expiry int DEFAULT 0
);
CREATE TABLE mailbox (
  username varchar(255) NOT NULL PRIMARY KEY, password varchar(255) NOT NULL DEFAULT '',
  name varchar(255) NOT NULL DEFAULT '', maildir varchar(255) NOT NULL DEFAULT '',
  quota bigint NOT NULL DEFAULT 0, created timestamptz DEFAULT now(),
  modified timestamptz DEFAULT now(), active boolean NOT NULL DEFAULT true,
  domain varchar(255) REFERENCES domain, local_part varchar(255) NOT NULL,
  phone varchar(30) NOT NULL DEFAULT '', email_other varchar(255) NOT NULL DEFAULT '',
  token varchar(255) NOT NULL DEFAULT '', token_validity timestamptz DEFAULT '2000-01-01',
  password_expiry timestamptz DEFAULT '2000-01-01'
);
CREATE TABLE alias (
  address varchar(255) NOT NULL PRIMARY KEY, goto text NOT NULL,
  domain varchar(255) NOT NULL REFERENCES domain, created timestamptz DEFAULT now(),
  modified timestamptz DEFAULT now(), active boolean NOT NULL DEFAULT true
);
""",
}

# The same on both engines.
POSTFIXADMIN_MORE = """
CREATE TABLE vacation (email varchar(255) NOT NULL PRIMARY KEY, domain varchar(255) NOT NULL);
CREATE TABLE vacation_notification (
  on_vacation varchar(255) NOT NULL, notified varchar(255) NOT NULL,
  FOREIGN KEY (on_vacation) REFERENCES vacation (email)
);
CREATE TABLE quota2 (username varchar(255) NOT NULL PRIMARY KEY, bytes bigint NOT NULL);
CREATE TABLE fetchmail (id int NOT NULL PRIMARY KEY, mailbox varchar(255) NOT NULL);
INSERT INTO domain (domain) VALUES ('example.org');
"""

SQL_DATABASES = """\
passdb {{
  driver = sql
  args = {file}
}}
userdb {{
  driver = sql
  args = {file}
}}
service auth {{
  user = root
}}
"""

SQL_QUERIES = """\
driver = {driver}
connect = host={host} dbname={name} user={user}
password_query = SELECT username AS user, password FROM mailbox WHERE username = '%u' AND active = '1'
user_query = SELECT '{mail}/%d/%n' AS home, 65534 AS uid, 65534 AS gid FROM mailbox \\
  WHERE username = '%u' AND active = '1'
"""  # noqa: E501 - no lines can be broken within them


@dataclass
class Tables:
    """PostfixAdmin's tables in a database, and the program that keeps mailboxes in them."""

    engine: str
    instance: Instance
    uri: str
    file: Path
    options: list[str] = field(default_factory=list)

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""
        path = str(CONTRIB / "accounts-postfixadmin")
        return (sys.executable, "-W", "error", path, str(self.file), *self.options)

    @property
    def backend(self) -> Command:
        """The backend as it is configured with the command line."""
        return Command(self.words, timeout=60)

    def sql(self, statements: str) -> str:
        """Run SQL and return what it prints."""
        return self.instance.sql(statements, urlsplit(self.uri).path.removeprefix("/"))

    def count(self, table: str) -> int:
        return int(self.sql(f"SELECT COUNT(*) FROM {table};"))

    def counts(self) -> tuple[int, int]:
        """Return the number of mailboxes and of aliases."""
        numbers = self.sql("SELECT COUNT(*) FROM mailbox; SELECT COUNT(*) FROM alias;").split()
        return int(numbers[0]), int(numbers[1])

    def row(self, expressions: str, table: str, condition: str) -> list[str]:
        """Return a row as the server's own program prints it."""
        text = self.sql(f"SELECT {expressions} FROM {table} WHERE {condition};")
        return text.removesuffix("\n").replace("\t", "|").split("|")


ON_ONE = pytest.mark.parametrize("tables", ["mariadb"], indirect=True)  # for what is no SQL


@pytest.fixture(params=["postgresql", "mariadb"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    """A database of PostfixAdmin with the domain example.org, on each engine in turn."""
    instance: Instance = request.getfixturevalue(f"{request.param}_instance")
    uri = instance.new_database()
    file = tmp_path / "dsn"
    file.write_text(f"{uri}\n")
    tables = Tables(request.param, instance, uri, file)
    tables.sql(POSTFIXADMIN[request.param] + POSTFIXADMIN_MORE)
    return tables


def test_logins_follow_postfixadmin(tables: Tables, open_folder: Path) -> None:
    parts = urlsplit(tables.uri)
    place = dict(parse_qsl(parts.query))
    folder = Path(tempfile.mkdtemp(dir=open_folder))
    folder.chmod(0o755)
    mail = folder / "mail"
    mail.mkdir()
    mail.chmod(0o777)
    queries = folder / "sql.conf"
    queries.write_text(
        SQL_QUERIES.format(
            driver="pgsql" if tables.engine == "postgresql" else "mysql",
            host=place.get("host") or place["unix_socket"],
            name=parts.path.removeprefix("/"),
            user=parts.username,
            mail=mail,
        )
    )
    backend = tables.backend
    with running_dovecot(folder, SQL_DATABASES.format(file=queries)) as dovecot:
        assert backend.find(ADDRESS, OWNER) is None
        assert not dovecot.lets_in(PASSWORD)
        backend.create(ADDRESS, PASSWORD, OWNER)
        assert dovecot.lets_in(PASSWORD)
        assert not dovecot.lets_in(PASSWORD + "x")
        assert backend.find(ADDRESS, OWNER) == Mailbox(
            is_active=True, is_ours=True, sees_logins=False
        )

        backend.set_password(ADDRESS, "another", OWNER)
        assert dovecot.lets_in("another")
        assert not dovecot.lets_in(PASSWORD)
        with pytest.raises(TryAgainError, check=lambda error: "not made" in str(error.cause)):
            backend.set_password(ADDRESS, PASSWORD, STRANGER)
        backend.set_password(ADDRESS, PASSWORD, OWNER)

        backend.disable(ADDRESS, OWNER)
        assert not dovecot.lets_in(PASSWORD)
        assert backend.find(ADDRESS, OWNER) == Mailbox(
            is_active=False, is_ours=True, sees_logins=False
        )
        backend.disable(ADDRESS, OWNER)
        tables.sql(f"UPDATE mailbox SET active = '1' WHERE username = '{ADDRESS}';")
        assert dovecot.lets_in(PASSWORD)

        backend.delete(ADDRESS, OWNER)
        assert not dovecot.lets_in(PASSWORD)
        assert backend.find(ADDRESS, OWNER) is None
        backend.delete(ADDRESS, OWNER)
        backend.disable(ADDRESS, OWNER)


def test_rows_are_those_that_postfixadmin_writes(tables: Tables) -> None:
    before = tables.row("CURRENT_TIMESTAMP - INTERVAL '1' SECOND", "domain", "1 = 1")[0]
    tables.backend.create(ADDRESS, PASSWORD, OWNER)
    is_true = "t" if tables.engine == "postgresql" else "1"
    columns = "name, maildir, quota, local_part, domain, active, phone, email_other, token"
    assert tables.row(columns, "mailbox", f"username = '{ADDRESS}'") == [
        "automx weekly 0123456789abcdef",
        f"example.org/dc-abcde-{MARK}/",
        "0",
        "dc-abcde",
        "example.org",
        is_true,
        "",
        "",
        "",
    ]
    [hashed] = tables.row("password", "mailbox", f"username = '{ADDRESS}'")
    assert hashed.startswith("{SHA512-CRYPT}$6$")
    assert tables.row("goto, domain, active", "alias", f"address = '{ADDRESS}'") == [
        ADDRESS,
        "example.org",
        is_true,
    ]
    for table in ("mailbox", "alias"):
        times = f"created BETWEEN '{before}' AND CURRENT_TIMESTAMP AND created = modified"
        assert tables.row("COUNT(*)", table, times) == ["1"]
    expiry = "password_expiry = created + INTERVAL '365' DAY"
    assert tables.row("COUNT(*)", "mailbox", expiry) == ["1"]


def test_columns_of_later_versions_are_kept(tables: Tables) -> None:
    """Since 4.0, smtp_active alone can decide about logins of Postfix."""
    kind = "boolean" if tables.engine == "postgresql" else "tinyint(1)"
    tables.sql(f"ALTER TABLE mailbox ADD COLUMN smtp_active {kind} NOT NULL DEFAULT '0';")
    tables.sql("UPDATE domain SET password_expiry = 30;")
    tables.backend.create(ADDRESS, PASSWORD, OWNER)
    assert tables.row("COUNT(*)", "mailbox", "active = '1' AND smtp_active = '1'") == ["1"]
    expiry = "password_expiry = created + INTERVAL '30' DAY"
    assert tables.row("COUNT(*)", "mailbox", expiry) == ["1"]
    tables.backend.disable(ADDRESS, OWNER)
    assert tables.row("COUNT(*)", "mailbox", "active = '0' AND smtp_active = '0'") == ["1"]
    assert tables.row("COUNT(*)", "alias", "active = '0'") == ["1"]


def test_columns_of_earlier_versions_are_enough(tables: Tables) -> None:
    for table in ("mailbox", "domain"):
        tables.sql(f"ALTER TABLE {table} DROP COLUMN password_expiry;")
    tables.sql("DROP TABLE vacation_notification; DROP TABLE vacation; DROP TABLE quota2;")
    tables.backend.create(ADDRESS, PASSWORD, OWNER)
    tables.backend.disable(ADDRESS, OWNER)
    tables.backend.delete(ADDRESS, OWNER)
    assert tables.counts() == (0, 0)


# The account of the documentation; automx's own database has one of another name.
ROLE = "automx_accounts"


def test_the_rights_of_the_documentation_are_enough(tables: Tables) -> None:
    page = (REPOSITORY / "docs" / "account-command.md").read_text()
    found = re.search(r"^```sql mariadb\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found
    database = urlsplit(tables.uri).path.removeprefix("/")
    if tables.engine == "mariadb":
        statements, user = found[1].replace("postfixadmin.", f"{database}."), f"{ROLE}@localhost"
    else:
        grants = found[1].replace(f"TO {ROLE}@localhost", f"TO {ROLE}").replace("postfixadmin.", "")
        statements, user = re.sub(r"CREATE USER .*;", f"CREATE USER {ROLE};", grants), ROLE
    tables.sql(statements)
    try:
        administrator = urlsplit(tables.uri).username
        uri = tables.uri.replace(f"{administrator}@", f"{ROLE}:PASSWORD@")
        tables.file.write_text(uri)
        tables.backend.create(ADDRESS, PASSWORD, OWNER)
        tables.sql(f"INSERT INTO quota2 VALUES ('{ADDRESS}', 1000);")
        assert tables.backend.find(ADDRESS, OWNER) == Mailbox(
            is_active=True, is_ours=True, sees_logins=False
        )
        tables.backend.disable(ADDRESS, OWNER)
        tables.backend.delete(ADDRESS, OWNER)
        assert (*tables.counts(), tables.count("quota2")) == (0, 0, 0)
    finally:
        tables.sql(
            f"DROP USER {user};"
            if tables.engine == "mariadb"
            else f"DROP OWNED BY {user}; DROP USER {user};"
        )


@ON_ONE
@pytest.mark.parametrize("maildir", ["%u/", "%d/%n/"])
def test_other_maildirs(tables: Tables, maildir: str) -> None:
    tables.options += ["--maildir", maildir]
    tables.backend.create(ADDRESS, PASSWORD, OWNER)
    expected = maildir.replace("%u", ADDRESS).replace("%d/%n", "example.org/dc-abcde")
    assert tables.row("maildir", "mailbox", "1 = 1") == [expected]


def test_a_deletion_takes_all_rows_of_the_mailbox_only(tables: Tables) -> None:
    other = "dc-fghij@example.org"
    for address in (ADDRESS, other):
        tables.backend.create(address, PASSWORD, OWNER)
        number = len(address + str(address == other))
        tables.sql(
            f"INSERT INTO vacation VALUES ('{address}', 'example.org');"
            f"INSERT INTO vacation_notification VALUES ('{address}', 'a@example.com');"
            f"INSERT INTO quota2 VALUES ('{address}', 1000);"
            f"INSERT INTO fetchmail VALUES ({number}, '{address}');"
        )
    tables.backend.delete(ADDRESS, OWNER)
    for table, column in (
        ("mailbox", "username"),
        ("alias", "address"),
        ("vacation", "email"),
        ("vacation_notification", "on_vacation"),
        ("quota2", "username"),
        ("fetchmail", "mailbox"),
    ):
        assert tables.sql(f"SELECT {column} FROM {table};") == f"{other}\n"


def test_names_in_postfixadmin_are_taken(tables: Tables) -> None:
    tables.sql(
        "INSERT INTO alias (address, goto, domain)"
        f" VALUES ('{ADDRESS}', 'alice@example.org', 'example.org');"
    )
    with pytest.raises(TakenError):
        tables.backend.create(ADDRESS, PASSWORD, OWNER)
    assert tables.backend.find(ADDRESS, OWNER) is None
    tables.backend.delete(ADDRESS, OWNER)
    assert tables.counts() == (0, 1)
    tables.sql(
        "INSERT INTO mailbox (username, password, name, maildir, local_part, domain)"
        " VALUES ('alice@example.org', 'x', 'Alice', 'alice/', 'alice', 'example.org');"
    )
    backend = tables.backend
    with pytest.raises(TakenError):
        backend.create("alice@example.org", PASSWORD, OWNER)
    assert backend.find("alice@example.org", OWNER) == Mailbox(
        is_active=True, is_ours=False, sees_logins=False
    )
    for change in (backend.disable, backend.delete):
        with pytest.raises(TryAgainError) as error:
            change("alice@example.org", OWNER)
        assert "was not made for this account, and is left alone" in str(error.value.cause)
    assert tables.counts() == (1, 1)
    assert tables.row("active", "mailbox", "1 = 1")[0] in {"t", "1"}


@ON_ONE
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DELETE FROM domain", "PostfixAdmin has no active domain example.org"),
        ("UPDATE domain SET active = '0'", "PostfixAdmin has no active domain example.org"),
        ("UPDATE domain SET mailboxes = -1", "example.org may have no more mailboxes"),
        ("UPDATE domain SET quota = 100", "example.org has no room for a quota of 0 MB"),
    ],
)
def test_limits_of_a_domain(tables: Tables, change: str, reason: str) -> None:
    tables.sql(f"{change};")
    with pytest.raises(TryAgainError) as error:
        tables.backend.create(ADDRESS, PASSWORD, OWNER)
    assert error.value.cause == f"account_command, create: refused: {reason}"
    assert tables.counts() == (0, 0)


@ON_ONE
@pytest.mark.parametrize(
    ("limits", "options", "expected"),
    [
        ("maxquota = 0", [], 0),
        ("maxquota = 100", [], 102_400_000),
        ("maxquota = -1", [], -1),
        ("maxquota = 100", ["--quota", "50"], 51_200_000),
        ("maxquota = 100", ["--quota", "50", "--quota-multiplier", "1048576"], 52_428_800),
        ("maxquota = 100", ["--quota", "101"], None),
        ("maxquota = 100", ["--quota", "0"], None),
        ("quota = 250", ["--quota", "100"], 102_400_000),
        ("quota = 250, maxquota = 125", [], 128_000_000),
        ("quota = 99", ["--quota", "100"], None),
    ],
)
def test_quotas(tables: Tables, limits: str, options: list[str], expected: int | None) -> None:
    tables.sql(f"UPDATE domain SET {limits};")
    tables.options += options
    if expected is None:
        with pytest.raises(TryAgainError):
            tables.backend.create(ADDRESS, PASSWORD, OWNER)
        assert tables.counts() == (0, 0)
    else:
        tables.backend.create(ADDRESS, PASSWORD, OWNER)
        assert tables.row("quota", "mailbox", "1 = 1") == [str(expected)]


@ON_ONE
def test_quotas_of_a_domain_add_up(tables: Tables) -> None:
    tables.sql("UPDATE domain SET quota = 250;")
    tables.options += ["--quota", "100"]
    for number in range(2):
        tables.backend.create(f"dc-{number}@example.org", PASSWORD, OWNER)
    with pytest.raises(TryAgainError) as error:
        tables.backend.create("dc-2@example.org", PASSWORD, OWNER)
    assert "example.org has no room for a quota of 100 MB" in str(error.value.cause)


def outcomes(backend: Command, addresses: Iterable[str]) -> dict[str, int]:
    """Create mailboxes at the same time and count how each ended."""

    def create(item: tuple[int, str]) -> str:
        try:
            backend.create(item[1], PASSWORD, Owner("weekly", str(item[0])))
        except (TakenError, TryAgainError) as error:
            return type(error).__name__
        return "created"

    with ThreadPoolExecutor(20) as pool:
        return dict(Counter(pool.map(create, enumerate(addresses))))


def test_one_of_many_programs_gets_a_name_in_postfixadmin(tables: Tables) -> None:
    assert outcomes(tables.backend, [ADDRESS] * 10) == {"created": 1, "TakenError": 9}
    assert tables.counts() == (1, 1)


def test_a_domain_never_has_more_mailboxes_than_it_may(tables: Tables) -> None:
    tables.sql("UPDATE domain SET mailboxes = 7;")
    names = [f"dc-{number}@example.org" for number in range(12)]
    assert outcomes(tables.backend, names) == {"created": 7, "TryAgainError": 5}
    assert tables.counts() == (7, 7)


def test_a_row_that_somebody_without_lock_adds_is_taken(tables: Tables) -> None:
    waiting = {
        "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        "mariadb": "SELECT COUNT(*) FROM information_schema.processlist"
        " WHERE info LIKE 'INSERT INTO alias%'",
    }[tables.engine]
    engine = create_engine(engine_uri(tables.uri))
    insert = "INSERT INTO alias (address, goto, domain) VALUES (:name, 'x', 'example.org')"
    with ThreadPoolExecutor(1) as pool, engine.connect() as postfixadmin:
        postfixadmin.execute(text(insert), {"name": ADDRESS})
        creation = pool.submit(tables.backend.create, ADDRESS, PASSWORD, OWNER)
        wait_until(lambda: tables.sql(f"{waiting};") == "1\n", "the wait for the row")
        postfixadmin.commit()
        with pytest.raises(TakenError):
            creation.result()
    engine.dispose()
    assert tables.counts() == (0, 1)


@pytest.mark.parametrize("action", ["create", "delete"])
def test_a_program_that_is_killed_leaves_both_rows_or_none(
    tables: Tables, tmp_path: Path, action: str
) -> None:
    """It is killed before each message to the server from the first that changes a row."""
    tables.options += ["--scheme", "PLAIN"]
    request = {"version": 1, "action": action, "address": ADDRESS, "password": "secret"}
    request |= {"token": OWNER.token, "mark": OWNER.mark}
    prepare = "DELETE FROM mailbox; DELETE FROM alias;"
    if action == "delete":
        tables.backend.create(ADDRESS, "secret", OWNER)
        tables.sql(
            "CREATE TABLE a AS SELECT * FROM alias; CREATE TABLE m AS SELECT * FROM mailbox;"
        )
        prepare += "INSERT INTO alias SELECT * FROM a; INSERT INTO mailbox SELECT * FROM m;"
    tables.sql(prepare)
    messages = sent(tables.words, request, tmp_path / "calls")
    before, after = ((0, 0), (1, 1)) if action == "create" else ((1, 1), (0, 0))
    assert tables.counts() == after
    first = next(n for n, text in enumerate(messages, 1) if re.search("INSERT|DELETE", text))
    found = []
    for number in range(first, len(messages) + 1):
        tables.sql(prepare)
        assert killed(tables.words, request, "sendto", number).returncode == -signal.SIGKILL
        found.append(tables.counts())
    assert len(found) > 2
    assert set(found) <= {before, after}
    assert found[0] == before


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("", "the database's URL must begin with mysql:// or postgresql://"),
        ("sqlite:///secret", "the database's URL must begin with mysql:// or postgresql://"),
        ("mysql://a:sec/ret@localhost/x", "the database's URL cannot be read"),
        ("mysql://a:secret@localhost/x?y", "the database's URL cannot be read"),
        ("postgresql://[secret/x", "the database's URL cannot be read"),
        ("postgresql://a:secret@localhost:1/x", "the database cannot be reached: "),
        ("mysql://a:secret@127.0.0.1:1/x", "the database cannot be reached: "),
        ("postgresql://a:secret@localhost:1/x?odd=1", "the database cannot be reached: "),
        ("mariadb://a:secret@localhost:1/x?odd=1", "the database cannot be reached: "),
        ("mysql+pymysql://a:s%65cret@127.0.0.1:1/x", "the database cannot be reached: "),
    ],
)
def test_databases_that_cannot_be_reached(tmp_path: Path, dsn: str, reason: str) -> None:
    file = tmp_path / "dsn"
    file.write_text(dsn)
    words = (sys.executable, str(CONTRIB / "accounts-postfixadmin"), str(file))
    with pytest.raises(TryAgainError) as error:
        Command(words, timeout=60).find(ADDRESS, OWNER)
    assert str(error.value.cause).startswith(f"account_command, find: refused: {reason}")
    assert "secret" not in str(error.value.cause)
    file.unlink()
    with pytest.raises(TryAgainError) as error:
        Command(words, timeout=60).find(ADDRESS, OWNER)
    assert error.value.cause == f"account_command, find: refused: {file} cannot be read"


def test_a_database_that_refuses_does_not_tell_the_hash(tables: Tables) -> None:
    """PostgreSQL shows the whole row in the details of such an error."""
    tables.sql("ALTER TABLE mailbox ADD CONSTRAINT short CHECK (quota > 5);")
    with pytest.raises(TryAgainError) as error:
        tables.backend.create(ADDRESS, PASSWORD, OWNER)
    assert "short" in str(error.value.cause)
    assert "SHA512" not in str(error.value.cause)
    assert tables.counts() == (0, 0)


def example(language: str) -> str:
    """Return the program of the documentation in a language."""
    page = (REPOSITORY / "docs" / "account-command.md").read_text()
    found = re.search(rf"^```{language} own\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_programs_of_the_documentation_work(tmp_path: Path, language: str) -> None:
    file = tmp_path / "program"
    file.write_text(example(language))
    if language == "python":
        shutil.copy(CONTRIB / "automx_accounts.py", tmp_path)
        place = str(tmp_path / "mailboxes.sqlite")
        with contextlib.closing(sqlite3.connect(place)) as database:
            table = re.search(r'"""(CREATE TABLE .*;)"""', example(language))
            assert table
            database.execute(table[1])
        backend = Command((sys.executable, str(file), place), timeout=60)
    else:
        assert run([program("shellcheck", "shellcheck"), "--shell=sh", str(file)], "") == ""
        program("jq", "jq")
        place = str(tmp_path / "mailboxes")
        Path(place).mkdir()
        backend = Command(("/bin/sh", str(file), place), timeout=60)
    assert backend.find(ADDRESS, OWNER) is None
    backend.disable(ADDRESS, OWNER)
    backend.delete(ADDRESS, OWNER)
    backend.create(ADDRESS, PASSWORD, OWNER)
    with pytest.raises(TakenError):
        backend.create(ADDRESS, PASSWORD, STRANGER)
    assert backend.find(ADDRESS, OWNER) == Mailbox(is_active=True, is_ours=True, sees_logins=False)
    assert backend.find(ADDRESS, STRANGER) == Mailbox(
        is_active=True, is_ours=False, sees_logins=False
    )
    for change in (backend.disable, backend.delete):
        with pytest.raises(TryAgainError, check=lambda error: "not made" in str(error.cause)):
            change(ADDRESS, STRANGER)
    with pytest.raises(TryAgainError, check=lambda error: "not made" in str(error.cause)):
        backend.set_password(ADDRESS, PASSWORD, STRANGER)
    backend.set_password(ADDRESS, "another", OWNER)
    backend.disable(ADDRESS, OWNER)
    assert backend.find(ADDRESS, OWNER) == Mailbox(is_active=False, is_ours=True, sees_logins=False)
    with pytest.raises(TakenError):
        backend.create(ADDRESS, PASSWORD, OWNER)
    backend.delete(ADDRESS, OWNER)
    assert backend.find(ADDRESS, OWNER) is None
    backend.create(ADDRESS, PASSWORD, OWNER)


def test_the_page_tells_every_option() -> None:
    page = (REPOSITORY / "docs" / "account-command.md").read_text()
    for name in ("accounts-dovecot", "accounts-postfixadmin"):
        words = [sys.executable, str(CONTRIB / name), "--help"]
        options = set(re.findall(r"--[a-z-]+", run(words, ""))) - {"--help"}
        assert options
        assert {option for option in options if f"`{option}" not in page} == set()


def test_programs_can_be_run_by_name() -> None:
    for path in sorted(CONTRIB.glob("accounts-*")):
        assert path.read_text().startswith("#!/usr/bin/env python3\n")
        assert os.access(path, os.X_OK)


def units(folder: Path) -> list[Path]:
    """Return copies of the units for another user, with the program that is tested."""
    paths = []
    for name in ("automx-accounts.socket", "automx-accounts@.service"):
        text = (CONTRIB / name).read_text()
        paths.append(folder / name)
        paths[-1].write_text(text.replace("/usr/local/lib/automx/", f"{CONTRIB}/"))
    return paths


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    assert run([analyze, "verify", "--man=no", *map(str, units(tmp_path))], "") == ""
    service = str(tmp_path / "automx-accounts@.service")
    text = run([analyze, "security", "--offline=true", "--no-pager", service], "")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert exposure
    assert float(exposure[1]) <= 1


def test_the_options_of_the_unit_are_right(accounts: Accounts, tmp_path: Path) -> None:
    service = units(tmp_path)[1].read_text().replace("\\\n", "")
    [command] = re.findall(r"(?m)^ExecStart=(.*)$", service)
    words = shlex.split(command.replace("%%", "%"))
    accounts.options += words[1:-1]
    assert accounts.backend.find(ADDRESS, OWNER) is None


def test_a_socket_of_systemd_leads_to_a_program_of_another_user(
    accounts: Accounts, tmp_path: Path
) -> None:
    [line] = re.findall(r"account_command = (.*)", (CONTRIB / "automx-accounts.socket").read_text())
    page = (REPOSITORY / "docs" / "account-command.md").read_text()
    assert f"account_command = {line}\n" in page
    program("socat", "socat")
    with tempfile.TemporaryDirectory(prefix="automx-") as folder:
        socket = Path(folder) / "socket"
        activate = program("systemd-socket-activate", "systemd")
        command = [activate, "--accept", "--inetd", f"--setenv=PATH={os.environ['PATH']}"]
        command += [f"--listen={socket}", *accounts.words]
        with running(command, tmp_path / "log", ready=socket.exists):
            words = tuple(shlex.split(line.replace("/run/automx-accounts.sock", str(socket))))
            backend = Command(words, timeout=60)
            backend.create(ADDRESS, PASSWORD, OWNER)
            with pytest.raises(TakenError):
                backend.create(ADDRESS, PASSWORD, OWNER)
            assert backend.find(ADDRESS, OWNER) == Mailbox(
                is_active=True, is_ours=True, sees_logins=False
            )
            backend.delete(ADDRESS, OWNER)
        with pytest.raises(UncertainError):
            backend.find(ADDRESS, OWNER)
