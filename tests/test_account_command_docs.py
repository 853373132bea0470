"""docs/account-command.md, followed word for word on a machine with Debian's own Dovecot."""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from automx.backends import Owner
from automx.backends.command import Command
from automx.errors import TakenError
from tests.debian import Machine, machine
from tests.processes import REPOSITORY, program, wait_until

PAGE = (REPOSITORY / "docs" / "account-command.md").read_text()
ADDRESS = "dc-abcde@example.org"
PASSWORD = "pässword: {x}$1"
FIRST, SECOND = Owner("weekly", "0123456789abcdef"), Owner("weekly", "fedcba9876543210")

# What systemd does for the socket, as the installed units say.
START = """\
#!/bin/sh
set -eu
unit=/etc/systemd/system/automx-accounts@.service
user=$(sed -n 's/^User=//p' "$unit")
command=$(sed -n '/^ExecStart=/,/[^\\\\]$/p' "$unit" | sed 's/^ExecStart=//; s/\\\\$//; s/%%/%/g')
systemd-socket-activate --accept --inetd --listen=/run/automx-accounts.sock \
    --setenv=PATH="$PATH" runuser -u "$user" -- $command >/run/automx-accounts.log 2>&1 &
until [ -S /run/automx-accounts.sock ]; do sleep 0.1; done
"""

# Logs in, and prints the subjects of all messages in all folders. With a third argument, it goes on
# until the server ends the session. The certificate of the machine is nobody's.
CLIENT = """\
import imaplib, ssl, sys
client = imaplib.IMAP4_SSL("127.0.0.1", ssl_context=ssl._create_unverified_context())
client.authenticate("PLAIN", lambda _: "\\0".join(["", *sys.argv[1:3]]).encode())
for line in client.list()[1]:
    client.select(line.split()[-1].decode())
    for number in client.search(None, "ALL")[1][0].split():
        print(client.fetch(number, "BODY[HEADER.FIELDS (SUBJECT)]")[1][0][1].decode().strip())
if sys.argv[3:]:
    print("waits", flush=True)
    client.sock.settimeout(100)
    client.send(b"a IDLE\\r\\n")
    while line := client.readline():
        pass
    print("ended")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    """A machine on which the page was followed."""
    program("dovecot", "dovecot-imapd")
    program("socat", "socat")
    with tempfile.TemporaryDirectory(prefix="automx-") as folder, machine(Path(folder)) as started:
        started.put("/usr/local/bin/start-automx-accounts", START)
        started.run("chmod 755 /usr/local/bin/start-automx-accounts; groupadd --force automx")
        source = "/usr/local/src/automx"
        started.run(f"mkdir -p {source} && mount --bind {REPOSITORY} {source}")
        steps = re.findall(r"^```sh dovecot\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        printed = [started.run(step) for step in steps]
        assert '{"status": "absent"}\n' in printed
        yield started


@pytest.fixture
def backend(server: Machine) -> Command:
    """The backend of the settings on the page; each test leaves no mailbox behind."""
    [command] = set(re.findall(r"^account_command = (/usr/bin/socat .*)$", PAGE, re.MULTILINE))
    return Command((*server.words, *shlex.split(command)), timeout=60)


@pytest.fixture
def mail(server: Machine) -> Iterator[Machine]:
    """The machine; no mailbox is there before and after a test."""
    users = "/var/lib/automx-mail/users"
    assert server.run(f"cat {users}; find /var/vmail -mindepth 2; find /var/mail -mindepth 1") == ""
    yield server
    server.run(f"doveadm kick {ADDRESS} || true; : >{users}; rm -rf /var/vmail/example.org")


def client(server: Machine, *arguments: str) -> list[str]:
    """Return the command of a mail client on the machine."""
    return [*server.words, sys.executable, "-c", CLIENT, ADDRESS, PASSWORD, *arguments]


def subjects(server: Machine) -> list[str]:
    """Log in, and return the subjects of all messages in all folders."""
    return subprocess.run(
        client(server), capture_output=True, text=True, check=True
    ).stdout.splitlines()


def is_refused(server: Machine) -> bool:
    """Return whether the server refuses the login."""
    result = subprocess.run(client(server), capture_output=True, text=True, check=False)
    assert result.returncode == 0 or "AUTHENTICATIONFAILED" in result.stderr
    return result.returncode != 0


def deliver(server: Machine, subject: str, folder: str = "INBOX") -> None:
    """Deliver a message by Dovecot, as Postfix does."""
    script = (
        'printf "Subject: %s\\n\\nHello\\n" "$1" | /usr/lib/dovecot/dovecot-lda -d "$2" -m "$3"'
    )
    server.run(script, subject, ADDRESS, folder)


def test_a_mailbox_can_be_used_at_once(mail: Machine, backend: Command) -> None:
    assert backend.find(ADDRESS, FIRST) is None
    backend.create(ADDRESS, PASSWORD, FIRST)
    assert subjects(mail) == []
    deliver(mail, "one")
    deliver(mail, "two", "Sent")
    assert sorted(subjects(mail)) == ["Subject: one", "Subject: two"]
    with pytest.raises(TakenError):
        backend.create(ADDRESS, PASSWORD, SECOND)


def test_the_file_is_asked_before_pam(mail: Machine) -> None:
    """PAM takes two seconds to refuse a login."""
    drivers = re.findall(r"(?m)^  driver = (.*)$", mail.run("doveconf passdb"))
    assert drivers == ["passwd-file", "pam"]


def test_the_last_login_is_known(mail: Machine, backend: Command) -> None:
    backend.create(ADDRESS, PASSWORD, FIRST)
    before = datetime.now(UTC).replace(microsecond=0)
    assert subjects(mail) == []

    def last_login() -> datetime | None:
        found = backend.find(ADDRESS, FIRST)
        assert found is not None
        return found.last_login

    wait_until(lambda: last_login() is not None, "the note of the login")
    login = last_login()
    assert login is not None
    assert before <= login <= datetime.now(UTC)


def test_the_next_owner_of_a_name_finds_no_mail_of_the_first(
    mail: Machine, backend: Command
) -> None:
    backend.create(ADDRESS, PASSWORD, FIRST)
    deliver(mail, "secret of the first")
    deliver(mail, "draft of the first", "Drafts")
    assert len(subjects(mail)) == 2
    backend.delete(ADDRESS, FIRST)
    assert is_refused(mail)
    assert mail.run("find /var/vmail -mindepth 2; find /var/mail -mindepth 1") == ""
    backend.create(ADDRESS, PASSWORD, SECOND)
    assert subjects(mail) == []
    deliver(mail, "first of the second")
    assert subjects(mail) == ["Subject: first of the second"]


@pytest.mark.parametrize("action", ["disable", "delete"])
def test_a_session_ends_with_its_mailbox(mail: Machine, backend: Command, action: str) -> None:
    backend.create(ADDRESS, PASSWORD, FIRST)
    with subprocess.Popen(client(mail, "stay"), stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "waits\n"
        getattr(backend, action)(ADDRESS, FIRST)
        assert session.stdout.read() == "ended\n"
    assert is_refused(mail)
    found = backend.find(ADDRESS, FIRST)
    assert (found is None) == (action == "delete")
