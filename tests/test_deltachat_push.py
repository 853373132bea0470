"""contrib/deltachat-push wakes a phone when mail arrives: the program, and getmail with Dovecot.

A web server on loopback stands in for the notification service.
"""

import contextlib
import dataclasses
import http.server
import imaplib
import importlib.util
import itertools
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.processes import (
    REPOSITORY,
    free_port,
    listens,
    own_mounts,
    program,
    running,
    wait_until,
)
from tests.tls import Authority

FOLDER = REPOSITORY / "contrib" / "deltachat-push"
PROGRAM = FOLDER / "deltachat-push.py"
PAGE = REPOSITORY / "docs" / "deltachat-push.md"
TOKEN = "fcm-chat.delta:c67DVcpVQN2rJHiSszKNDW:APA91bErcJV2b8qG0IT4aiuCqw6Al0_SbydSuz3V0CHB"
MESSAGE = b"From: bob@example.com\r\nSubject: Private\r\n\r\nAuto-Submitted: yes\r\n"
AUTOMATIC = b"Auto-Submitted: auto-replied\r\n" + MESSAGE
CLOCKS = 0.05
"""Seconds by which a file's time may lag behind the clock."""


@dataclass
class Request:
    """What the service was asked, and when."""

    line: str
    headers: dict[str, str]
    body: bytes
    time: float


@dataclass
class Service:
    """A notification service; ``statuses`` are its next answers, then it is content."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def bodies(self) -> list[str]:
        """All tokens that were posted."""
        return [request.body.decode() for request in self.requests]


@contextlib.contextmanager
def notification_service(context: ssl.SSLContext | None = None) -> Iterator[Service]:
    """Run a service on loopback, over TLS if there is a context."""
    service = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.requestline, dict(self.headers), body, time.time())
            service.requests.append(request)
            self.send_response(service.statuses.pop(0) if service.statuses else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass  # clients that do not trust the certificate go away

    with Server(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        service.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    with notification_service() as started:
        yield started


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The program's code, to see its state as it does."""
    spec = importlib.util.spec_from_file_location("deltachat_push", PROGRAM)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def processes(config: Path) -> list[Path]:
    """Return the folders in /proc of the processes that were started with this file."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(config).encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(folder)
    return found


class Phone:
    """The settings for one phone, and the program that uses them."""

    def __init__(self, module: ModuleType, config: Path, notify_url: str, token: str) -> None:
        self.config = config
        self.write(f"notify_url = {notify_url}\ntoken = {token}\n")
        self.state: Any = module.State(token)

    def write(self, settings: str, mode: int = 0o600) -> None:
        """Write the file of settings."""
        self.config.write_text(f"[deltachat-push]\n{settings}")
        self.config.chmod(mode)

    def run(
        self, *options: str, message: bytes = b"", env: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Run the program; return its exit status, output and errors."""
        result = subprocess.run(
            [sys.executable, PROGRAM, *options, self.config],
            input=message,
            env={**os.environ, **(env or {})},
            capture_output=True,
            check=False,
        )
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    def get(self, message: bytes) -> None:
        """Hand a message to the program, which has nothing to say to the mail program."""
        assert self.run(message=message) == (0, "", "")

    def settle(self) -> None:
        """Wait until nothing is done in the background any more."""
        wait_until(lambda: not processes(self.config), "the end of the background process")

    def set_last(self, seconds: float) -> float:
        """Have the last notification posted so many seconds ago; return that time."""
        last = time.time() - seconds
        os.utime(self.state.last, (last, last))
        return last

    def close(self) -> None:
        """End what waits in the background."""
        for process in processes(self.config):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        self.settle()


@pytest.fixture
def make_phone(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Phone]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    phones: list[Phone] = []

    def make(notify_url: str, token: str = TOKEN) -> Phone:
        phone = Phone(module, tmp_path / f"phone-{len(phones)}.conf", notify_url, token)
        phones.append(phone)
        return phone

    yield make
    for phone in phones:
        phone.close()


@pytest.fixture
def phone(make_phone: Callable[..., Phone], service: Service) -> Phone:
    return make_phone(f"http://127.0.0.1:{service.port}/notify?x=1")


def test_message_is_announced_with_the_token_and_nothing_else(
    phone: Phone, service: Service
) -> None:
    phone.get(MESSAGE)
    phone.settle()
    (request,) = service.requests
    assert request.line == "POST /notify?x=1 HTTP/1.1"
    assert request.body == TOKEN.encode()
    assert request.headers == {
        "Host": f"127.0.0.1:{service.port}",
        "Accept-Encoding": "identity",
        "Content-Length": str(len(TOKEN)),
        "Content-Type": "text/plain; charset=utf-8",
        "User-Agent": "deltachat-push",
    }


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "auto-submitted: AUTO-GENERATED (cron)",
        "Auto-Submitted:\r\n auto-notified; owner-email=root@example.com",
        "Auto-Submitted: (no) x-other",
        "Auto-Submitted: no\r\nAuto-Submitted: auto-replied",
        "X-Long: " + "x" * 200_000 + "\r\nAuto-Submitted: auto-replied",
    ],
)
def test_automatic_message_is_not_announced(phone: Phone, service: Service, header: str) -> None:
    phone.get(header.encode() + b"\r\n" + MESSAGE)
    assert processes(phone.config) == []
    assert service.requests == []
    assert not phone.state.pending.exists()


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        b"Auto-Submitted: No (really)\r\n" + MESSAGE,
        b"Auto-Submitted: no; x=y\n\nAuto-Submitted: auto-replied\n",
        b"Auto-Submitted:\r\n" + MESSAGE,
        b"X-Long: " + b"x" * 1_000_000 + b"\r\nAuto-Submitted: auto-replied\r\n" + MESSAGE,
        b"Subject: \xff\xfe\r\n\r\n" + b"\0" * 1_000_000,
        b"no header at all",
        b"",
    ],
    ids=["none", "no", "body", "empty", "endless", "bytes", "malformed", "nothing"],
)
def test_other_message_is_announced(phone: Phone, service: Service, message: bytes) -> None:
    phone.get(message)
    phone.settle()
    assert service.bodies == [TOKEN]


def test_message_within_ten_seconds_is_announced_when_they_are_over(
    phone: Phone, service: Service
) -> None:
    phone.get(MESSAGE)
    phone.settle()
    last = phone.set_last(8)
    phone.get(MESSAGE)
    phone.settle()
    assert service.bodies == [TOKEN, TOKEN]
    assert service.requests[1].time >= last + 10


def test_messages_that_arrive_meanwhile_are_announced_together(
    phone: Phone, service: Service
) -> None:
    with phone.state.locked():  # as by a process that waits for the ten seconds to end
        for _ in range(5):
            phone.get(MESSAGE)
        phone.settle()
        assert service.requests == []
    phone.get(MESSAGE)
    phone.settle()
    assert service.bodies == [TOKEN]


def test_messages_at_the_same_moment_are_announced_at_most_twice(
    phone: Phone, service: Service
) -> None:
    phone.state.last.touch()
    last = phone.set_last(8)
    threads = [threading.Thread(target=phone.get, args=(MESSAGE,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phone.settle()
    times = [last, *(request.time for request in service.requests)]
    assert len(times) in {2, 3}  # three if the machine needs two seconds to start eight programs
    assert all(late - early >= 10 - CLOCKS for early, late in itertools.pairwise(times))
    assert not phone.state.pending.exists()


@pytest.mark.parametrize(
    ("last", "wait"),
    [(0, 0), (989.9, 0), (990, 0), (993, 3), (1000, 10), (1001, 10), (90_000, 10)],
)
def test_wait_is_never_longer_than_ten_seconds_whatever_the_clock_did(
    module: ModuleType, last: float, wait: float
) -> None:
    assert module.seconds_to_wait(last, 1000) == wait


def test_phones_do_not_wait_for_each_other(
    phone: Phone, make_phone: Callable[..., Phone], service: Service
) -> None:
    other = make_phone(f"http://localhost:{service.port}", "other token")
    with phone.state.locked():
        phone.get(MESSAGE)
        other.get(MESSAGE)
        other.settle()
        assert service.bodies == ["other token"]
        assert service.requests[0].line == "POST / HTTP/1.1"


OTHERS = ["a" * 64, "openpgp:wcFMA+/w==" + "x" * 700]  # longer than the name of a file can be


@pytest.mark.parametrize("form", ["lines", "file", "files"])
def test_all_phones_of_a_mailbox_are_woken(
    phone: Phone, make_phone: Callable[..., Phone], service: Service, form: str
) -> None:
    url = f"notify_url = http://127.0.0.1:{service.port}\n"
    others: list[str | Path] = []
    if form == "lines":
        phone.write(f"{url}token = {TOKEN}\n  {OTHERS[0]}\n\n  {OTHERS[1]}\n")
    elif form == "file":
        file = phone.config.with_name("tokens")
        file.write_text("\n".join([TOKEN, *OTHERS, TOKEN]))
        file.chmod(0o600)
        phone.write(f"{url}token_file = tokens")
    else:
        others = [make_phone(f"http://localhost:{service.port}", other).config for other in OTHERS]
    status = phone.run(*map(str, others), message=MESSAGE)
    assert status == (0, "", "")
    phone.settle()
    assert sorted(service.bodies) == sorted([TOKEN, *OTHERS])


def test_tokens_as_arguments_go_to_the_service_of_the_app(module: ModuleType) -> None:
    found = module.phones([TOKEN, *OTHERS, TOKEN])
    assert [phone.token for phone in found] == [TOKEN, *OTHERS]
    assert {phone.url.geturl() for phone in found} == {"https://notifications.delta.chat/notify"}
    assert TOKEN not in repr(found)
    with pytest.raises(FileNotFoundError):
        module.phones(["/nowhere/alice.conf"])


def test_a_trial_tells_of_each_phone(phone: Phone, service: Service) -> None:
    phone.write(f"notify_url = http://127.0.0.1:{service.port}\ntoken = {TOKEN}\n  {OTHERS[0]}")
    service.statuses = [429]
    accepted = "127.0.0.1 has accepted the notification\n"
    assert phone.run("--test") == (1, accepted, "deltachat-push: 127.0.0.1 answered 429\n")


def test_service_that_fails_is_asked_again(phone: Phone, service: Service) -> None:
    service.statuses = [503]
    phone.get(MESSAGE)
    phone.settle()
    assert service.bodies == [TOKEN, TOKEN]
    assert service.requests[1].time >= service.requests[0].time + 10 - CLOCKS


def ignores_end(process: Path) -> bool:
    """Tell whether a process ignores SIGTERM."""
    match = re.search(r"SigIgn:\s*([0-9a-f]+)", (process / "status").read_text())
    return match is not None and bool(int(match[1], 16) & 1 << signal.SIGTERM - 1)


def test_end_of_the_service_does_not_end_what_takes_ten_seconds(
    phone: Phone, service: Service
) -> None:
    phone.get(MESSAGE)
    phone.settle()
    phone.set_last(8)
    phone.get(MESSAGE)
    (process,) = processes(phone.config)
    wait_until(lambda: ignores_end(process), "that the signal is ignored")
    assert os.getsid(int(process.name)) == int(process.name)  # it has no terminal, either
    os.kill(int(process.name), signal.SIGTERM)
    phone.settle()
    assert service.bodies == [TOKEN, TOKEN]


def test_end_of_the_service_leaves_a_later_attempt_to_the_next_message(
    phone: Phone, service: Service
) -> None:
    service.statuses = [503]
    phone.get(MESSAGE)
    (process,) = processes(phone.config)
    wait_until(lambda: len(service.requests) == 1, "the first attempt")
    wait_until(lambda: not ignores_end(process), "that the signal is not ignored")
    os.kill(int(process.name), signal.SIGTERM)
    phone.settle()
    assert phone.state.pending.exists()

    phone.set_last(20)
    phone.get(MESSAGE)
    phone.settle()
    assert service.bodies == [TOKEN, TOKEN]
    assert not phone.state.pending.exists()


@pytest.mark.parametrize("status", [302, 400, 404, 410])
def test_service_that_refuses_is_not_asked_again(
    phone: Phone, service: Service, status: int
) -> None:
    service.statuses = [status]
    phone.get(MESSAGE)
    phone.settle()
    assert service.bodies == [TOKEN]
    assert not phone.state.pending.exists()


def test_trial_notifies_at_once(phone: Phone, service: Service) -> None:
    accepted = (0, "127.0.0.1 has accepted the notification\n", "")
    assert phone.run("--test") == accepted
    assert phone.run("--test") == accepted
    assert service.bodies == [TOKEN, TOKEN]


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (302, "127.0.0.1 answered 302: notify_url is wrong, or the token"),
        (404, "127.0.0.1 answered 404: notify_url is wrong, or the token is not known"),
        (
            410,
            (
                "127.0.0.1 answered 410: the token is no longer valid. "
                "The app has been removed or has a new token; take the token from the app again"
            ),
        ),
        (429, "127.0.0.1 answered 429"),
        (500, "127.0.0.1 answered 500"),
    ],
)
def test_trial_tells_why_the_service_does_not_notify(
    phone: Phone, service: Service, status: int, complaint: str
) -> None:
    service.statuses = [status]
    assert phone.run("--test") == (1, "", f"deltachat-push: {complaint}\n")
    assert service.bodies == [TOKEN]  # a redirection is not followed


def test_trial_tells_that_the_service_cannot_be_reached(
    make_phone: Callable[..., Phone],
) -> None:
    phone = make_phone(f"http://[::1]:{free_port()}/notify")
    complaint = "::1 cannot be reached: [Errno 111] Connection refused"
    assert phone.run("--test") == (1, "", f"deltachat-push: {complaint}\n")


def test_certificate_of_the_service_is_checked(
    make_phone: Callable[..., Phone], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with notification_service(context) as service:
        right = make_phone(f"https://localhost:{service.port}/notify")
        wrong = make_phone(f"https://127.0.0.1:{service.port}/notify")
        trusted = {"SSL_CERT_FILE": str(authority.root)}
        status, _, error = right.run("--test")
        assert (status, "certificate verify failed" in error) == (1, True)
        status, _, error = wrong.run("--test", env=trusted)
        assert (status, "certificate verify failed" in error) == (1, True)
        assert service.requests == []
        assert right.run("--test", env=trusted)[0] == 0
        assert service.bodies == [TOKEN]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("token = a\nnotify_url = http://example.com/notify", "{} notify_url must be an https URL"),
        ("token = a\nnotify_url = http://127.0.0.1.example.com", "{} notify_url must be an https"),
        ("token = a\nnotify_url = https://user@example.com", "{} notify_url must be an https URL"),
        ("token = a\nnotify_url = https://example.com:port", "{} notify_url must be an https URL"),
        ("token = a\nnotify_url = https://exa mple.com", "{} notify_url must be an https URL"),
        ("token = a\nnotify_url = https://", "{} notify_url must be an https URL"),
        ("token = a\nnotify_url = notifications.delta.chat", "{} notify_url must be an https URL"),
        ("notify_url = https://example.com", "{} needs either token or token_file"),
        ("token = a\ntoken_file = b", "{} needs either token or token_file"),
        ("token =", "{} each token must be one line of ASCII characters"),
        ("token = a\n \u00fc", "{} each token must be one line of ASCII characters"),
        ("token = schlüssel", "{} each token must be one line of ASCII characters"),
        ("token_file = nothing", "{}/nothing: No such file or directory"),
        ("tokken = secret", "{} unknown setting tokken"),
        ("token = a\n[other]", "{} needs the section [deltachat-push], and no other"),
        ("secret", "{} is not a file of settings"),
        ("token = secret\ntoken = secret", "{} is not a file of settings"),
    ],
)
def test_wrong_settings_are_named(phone: Phone, settings: str, complaint: str) -> None:
    phone.write(settings)
    named = complaint.format(
        phone.config.parent if complaint.startswith("{}/") else f"{phone.config}:"
    )
    for options in ([], ["--check"], ["--test"]):
        status, output, error = phone.run(*options, message=MESSAGE)
        assert (status, output) == (78, "")
        assert error.startswith(f"deltachat-push: {named}")
        assert "secret" not in error
        assert error.count("\n") == 1


def test_settings_that_are_missing_or_no_text_are_named(phone: Phone) -> None:
    phone.config.write_bytes(b"\xff")
    assert phone.run()[2] == f"deltachat-push: {phone.config}: is not a text in UTF-8\n"
    phone.config.unlink()
    assert phone.run()[2] == f"deltachat-push: {phone.config}: No such file or directory\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_token_that_others_can_read_is_refused(phone: Phone, service: Service, mode: int) -> None:
    complaint = "deltachat-push: {0}: others can read the token: chmod 600 {0}\n"
    phone.config.chmod(mode)
    assert phone.run("--test") == (78, "", complaint.format(phone.config))

    file = phone.config.with_name("alice.token")
    file.write_text(f"{TOKEN}\n")
    file.chmod(mode)
    url = f"notify_url = http://127.0.0.1:{service.port}"
    phone.write(f"{url}\ntoken_file = alice.token", mode=0o644)
    assert phone.run("--test") == (78, "", complaint.format(file))
    assert service.requests == []

    file.chmod(0o600)
    assert phone.run("--test")[0] == 0
    assert service.bodies == [TOKEN]


def test_state_that_cannot_be_kept_is_named(phone: Phone, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    status, _, error = phone.run(message=MESSAGE, env={"XDG_STATE_HOME": str(file)})
    assert (status, error) == (78, f"deltachat-push: {file}/deltachat-push: Not a directory\n")


def test_root_keeps_no_state_in_a_folder_of_another_user(phone: Phone, tmp_path: Path) -> None:
    """A link there could lead to any file: such as with ``HOME`` of that user."""
    if os.geteuid() != 0:
        pytest.fail("needs root: nobody else can give files to others")
    folder = tmp_path / "other"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    (tmp_path / "link").symlink_to(folder)
    complaint = f"deltachat-push: {folder} is open to another user, and this one is root\n"
    for name in ("other", "link", "other/more"):
        status, _, error = phone.run(message=MESSAGE, env={"XDG_STATE_HOME": str(tmp_path / name)})
        assert (status, error) == (78, complaint)
    assert list(folder.iterdir()) == []


# A folder for devices in which the log is a socket of the test's own.
OWN_LOG = """
mkdir dev && touch dev/null && mount --bind /dev/null dev/null && ln -s "$PWD/log" dev/log
if [ -d /dev/shm ]; then  # files of the tests may lie there
    mkdir dev/shm && mount --bind /dev/shm dev/shm
fi
mount --rbind dev /dev && exec "$@"
"""


def test_system_log_tells_what_happened_but_no_secret(
    phone: Phone, service: Service, tmp_path: Path
) -> None:
    service.statuses = [410]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(30)
        command = [*own_mounts(), "sh", "-euc", OWN_LOG, "sh"]
        command += [sys.executable, str(PROGRAM), str(phone.config)]
        subprocess.run(command, input=MESSAGE, cwd=tmp_path, check=True)
        logged = log.recv(4096).decode()
    assert re.fullmatch(
        r"<19>.* deltachat-push\[\d+\]: phone-0\.conf: 127\.0\.0\.1 answered 410: the token is no"
        r" longer valid\..* take the token from the app again",
        logged,
    )
    assert TOKEN not in logged
    assert service.bodies == [TOKEN]


# What follows is done as docs/deltachat-push.md says, in a home folder of its own.

DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = automx-push
log_path = /dev/stderr
listen = 127.0.0.1
protocols = imap
ssl = required
ssl_cert = <{certificate.certificate}
ssl_key = <{certificate.key}
mail_location = maildir:~/mail
first_valid_uid = 1
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/home/%u
}}
protocol imap {{
  rawlog_dir = {folder}/raw
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
  }}
}}
"""


def blocks(info: str) -> list[str]:
    """Return the fenced blocks of the page with these words behind the fence."""
    found = re.findall(r"(?ms)^( *)```(\w+)\n(.*?)^\1```$", PAGE.read_text())
    return [re.sub(rf"(?m)^{indent}", "", text) for indent, word, text in found if word == info]


@dataclass(frozen=True)
class Mailbox:
    """An empty mailbox on a running Dovecot, whose files are in ``folder``."""

    folder: Path
    port: int
    authority: Path
    user: str = "nobody"

    @contextlib.contextmanager
    def imap(self) -> Iterator[imaplib.IMAP4]:
        """Log in as another client of the same person would."""
        context = ssl.create_default_context(cafile=self.authority)
        with imaplib.IMAP4_SSL("localhost", self.port, ssl_context=context) as connection:
            connection.login(self.user, "secret")
            yield connection

    def append(self, message: bytes, flags: str = "") -> None:
        """Put a message in."""
        with self.imap() as connection:
            status, _ = connection.append("INBOX", flags, None, message)
            assert status == "OK"

    def flags(self) -> list[str]:
        """Return the flags of all messages."""
        with self.imap() as connection:
            connection.select("INBOX", readonly=True)
            _, found = connection.fetch("1:*", "(FLAGS)")
        lines = [line.decode() for line in found if isinstance(line, bytes)]
        flags = [re.sub(r".*\(FLAGS \((.*)\)\)", r"\1", line) for line in lines]
        return [text.replace(r"\Recent", "").strip() for text in flags]

    def idles(self) -> int:
        """Count how often a client has begun to wait for mail."""
        outputs = (self.folder / "raw").glob("*.out")
        return sum(file.read_text(errors="replace").count("+ idling") for file in outputs)


@pytest.fixture(scope="module")
def dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate = authority.issue("localhost")
    (metadata,) = blocks("text")
    with tempfile.TemporaryDirectory(prefix="automx-push-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Dovecot's own users must be able to enter it
        for writable in ("home", "raw"):
            (folder / writable).mkdir()
            (folder / writable).chmod(0o777)
        port = free_port()
        config = folder / "dovecot.conf"
        config.write_text(
            DOVECOT.format(folder=folder, certificate=certificate, port=port) + metadata
        )
        with running(
            [program("dovecot", "dovecot-imapd"), "-F", "-c", config],
            folder / "dovecot.log",
            ready=lambda: listens(port),
        ):
            yield Mailbox(folder, port, authority.root)


@pytest.fixture
def mailbox(dovecot: Mailbox, tmp_path: Path) -> Mailbox:
    return dataclasses.replace(dovecot, user=f"{tmp_path.name}@example.com")


@dataclass
class Home:
    """A home folder in which everything is installed, and the unit's commands for it."""

    folder: Path
    env: dict[str, str]
    check: list[str]
    wait_for_mail: list[str]
    look_once: list[str]


@pytest.fixture
def home(tmp_path: Path, mailbox: Mailbox) -> Home:
    program("getmail", "getmail6")
    folder = tmp_path / "home"
    folder.mkdir()
    env = {"HOME": str(folder), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    install, _, look_once, *_ = blocks("sh")
    subprocess.run(["sh", "-eu"], input=install, text=True, cwd=REPOSITORY, env=env, check=True)

    getmailrc = folder / ".config/deltachat-push/alice.getmailrc"
    text = getmailrc.read_text()
    for old, new in {
        "imap.example.com": f"localhost\nport = {mailbox.port}",
        "alice@example.com": mailbox.user,
        "/etc/ssl/certs/ca-certificates.crt": str(mailbox.authority),
        "MDA_external": "MDA_external\nallow_root_commands = true",  # tests may be run by root
    }.items():
        assert old in text
        text = text.replace(old, new)
    getmailrc.write_text(text)

    unit = (folder / ".config/systemd/user/deltachat-push@.service").read_text()
    for specifier, value in {"%h": str(folder), "%E": f"{folder}/.config", "%i": "alice"}.items():
        unit = unit.replace(specifier, value)
    commands = dict(re.findall(r"(?m)^(ExecStart\w*)=(.*)$", unit))
    return Home(
        folder,
        env,
        commands["ExecStartPre"].split(),
        commands["ExecStart"].split(),
        shlex.split(look_once.replace("~", str(folder))),
    )


@pytest.fixture
def installed_phone(
    home: Home, service: Service, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Phone]:
    monkeypatch.setenv("XDG_STATE_HOME", str(home.folder / ".local/state"))
    config = home.folder / ".config/deltachat-push/alice.conf"
    phone = Phone(module, config, f"http://127.0.0.1:{service.port}/notify", TOKEN)
    yield phone
    phone.close()


def run(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Run a command; return its exit status and all its output."""
    result = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return result.returncode, result.stdout


def test_settings_need_a_token_before_the_unit_starts(home: Home) -> None:
    config = home.folder / ".config/deltachat-push/alice.conf"
    complaint = f"deltachat-push: {config}: needs either token or token_file\n"
    assert run(home.check, home.env) == (78, complaint)
    config.write_text(config.read_text().replace("#token =", "token = abc"))
    assert run(home.check, home.env) == (0, "")


def test_getmail_waits_for_mail_and_the_phone_is_woken(
    home: Home, mailbox: Mailbox, installed_phone: Phone, service: Service, tmp_path: Path
) -> None:
    def arrive(message: bytes) -> None:
        before = mailbox.idles()
        mailbox.append(message)
        wait_until(lambda: mailbox.idles() > before, "that getmail waits again")

    phone = installed_phone
    mailbox.append(MESSAGE, r"\Seen")  # read on another device: not announced
    mailbox.append(AUTOMATIC, r"\Deleted")
    before = mailbox.idles()
    with running(
        home.wait_for_mail,
        tmp_path / "getmail.log",
        ready=lambda: mailbox.idles() > before,
        env=home.env,
    ) as getmail:
        assert not phone.state.pending.exists()
        arrive(MESSAGE)
        phone.settle()
        assert service.bodies == [TOKEN]
        arrive(AUTOMATIC)
        assert not phone.state.pending.exists()

        with phone.state.locked():  # as by a process that waits for the ten seconds to end
            for _ in range(3):
                arrive(MESSAGE)
            phone.settle()
        phone.set_last(20)
        arrive(MESSAGE)
        phone.settle()
        assert service.bodies == [TOKEN, TOKEN]

        assert getmail.output == ""
        assert getmail.stop(signal.SIGTERM) == 0
    assert mailbox.flags() == [r"\Seen", r"\Deleted", *[""] * 6]


def test_message_is_announced_later_if_the_settings_are_wrong(
    home: Home, mailbox: Mailbox, installed_phone: Phone, service: Service
) -> None:
    mailbox.append(MESSAGE)
    installed_phone.config.chmod(0o644)
    for _ in range(2):
        status, output = run(home.look_once, home.env)
        assert status != 0
        assert f"{installed_phone.config}: others can read the token" in output
    assert service.requests == []

    installed_phone.config.chmod(0o600)
    assert run(home.look_once, home.env) == (0, "")
    installed_phone.settle()
    assert run(home.look_once, home.env) == (0, "")
    installed_phone.settle()
    assert service.bodies == [TOKEN]
    assert mailbox.flags() == [""]


def test_getmail_has_nothing_to_do_with_faults_of_the_service(
    home: Home, mailbox: Mailbox, installed_phone: Phone, service: Service
) -> None:
    service.statuses = [503]
    mailbox.append(MESSAGE)
    assert run(home.look_once, home.env) == (0, "")
    wait_until(lambda: len(service.requests) == 1, "the first attempt")
    assert run(home.look_once, home.env) == (0, "")
    assert len(processes(installed_phone.config)) == 1  # which tries again
    assert mailbox.flags() == [""]


def test_wrong_certificate_of_the_mail_server_is_refused(
    home: Home, mailbox: Mailbox, installed_phone: Phone, tmp_path: Path
) -> None:
    getmailrc = home.folder / ".config/deltachat-push/alice.getmailrc"
    right = getmailrc.read_text()
    stranger = Authority(tmp_path).root
    for old, new, complaint in (
        (str(mailbox.authority), str(stranger), "certificate verify failed"),
        ("server = localhost", "server = 127.0.0.1", "'127.0.0.1' doesn't match 'localhost'"),
    ):
        assert old in right
        getmailrc.write_text(right.replace(old, new))
        status, output = run(home.look_once, home.env)
        assert status != 0
        assert complaint in output


def test_token_is_read_from_the_mail_server_as_the_page_says(mailbox: Mailbox) -> None:
    token = "openpgp:" + "a+b/" * 240 + "=="
    with mailbox.imap() as connection:
        assert "METADATA" in connection.capability()[1][0].decode().split()
        connection.xatom("SETMETADATA", '"INBOX"', f'(/private/devicetoken "{token}")')
    command = shlex.split(next(text for text in blocks("sh") if text.startswith("doveadm")))
    command = [word.replace("alice@example.com", mailbox.user) for word in command]
    command[:1] = [program("doveadm", "dovecot-imapd"), "-c", f"{mailbox.folder}/dovecot.conf"]
    assert run(command, dict(os.environ)) == (0, f"{token}\n")


def test_systemd_finds_no_fault_in_the_unit(home: Home, tmp_path: Path) -> None:
    unit = home.folder / ".config/systemd/user/deltachat-push@alice.service"
    env = {**home.env, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_COLORS": "0"}
    analyze = program("systemd-analyze", "systemd")
    assert run([analyze, "verify", "--user", "--man=no", str(unit)], env) == (0, "")
