#!/usr/bin/env python3
"""Wake phones with Delta Chat when mail arrives; a delivery program for getmail and its like.

    deltachat-push CONFIG < message    announce the message, unless a program sent it (RFC 3834)
    deltachat-push --check CONFIG      only read the settings, and tell what is wrong with them
    deltachat-push --test CONFIG       announce at once, and tell what the service answers

CONFIG is a file of settings, which may hold the tokens of several phones. There may be several
arguments; a notify token may stand in the place of a file.

To announce is to post the notify token of each phone, and nothing else, to the notification
service: as chatmail servers do. The phone then fetches its mail by itself.

Each phone gets at most one notification in ten seconds. Mail that arrives meanwhile is announced
when they are over, all of it at once: the phone may have finished fetching before that mail came.
So a process in the background, for each phone, does the waiting, the posting and the repeating, and
the mail program goes on immediately. Needs Python 3.11 or later, and nothing else.

Exit status: 0 done, 1 the test failed, 2 wrong arguments, 78 wrong settings (EX_CONFIG).
"""

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import re
import signal
import stat
import sys
import syslog
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

SECTION = "deltachat-push"
SERVICE = "https://notifications.delta.chat/notify"
INTERVAL = 10.0
"""Seconds between two notifications with the same token."""
RETRIES = (10, 20, 40, 80, 160)
"""Seconds to wait after each attempt that failed; the next message begins anew."""
TIMEOUT = 20.0
"""Seconds that the service has for each step of an answer."""
MAX_HEADER = 256 * 1024
"""Bytes of a message that are looked at."""


TOKEN = re.compile(r"(?:[\w.-]+:[!-~]{20,8192}|[0-9A-Fa-f]{64,})", re.ASCII)
"""A notify token, as an argument: that of Android, that of iPhones, or an encrypted one."""


class SettingsError(Exception):
    """The settings cannot be used."""


class RefusedError(Exception):
    """The service refuses the token, and would refuse it again."""


class UnreachableError(Exception):
    """The service cannot do it now, but perhaps later."""


@dataclass(frozen=True)
class Settings:
    """Where to post what, for one phone; ``name`` stands for it in the log."""

    url: SplitResult
    token: str = field(repr=False)
    name: str


def phones(arguments: Sequence[str]) -> list[Settings]:
    """Return the settings of all phones that arguments name, each once. Raises as load()."""
    found: dict[str, Settings] = {}
    for argument in arguments:
        if TOKEN.fullmatch(argument):  # a file of such a name would be ./NAME
            settings = [Settings(urlsplit(SERVICE), argument, "an argument")]
        else:
            settings = load(Path(argument).expanduser())
        for phone in settings:
            found.setdefault(phone.token, phone)
    return list(found.values())


def load(path: Path) -> list[Settings]:
    """Read a file of settings, for one phone or several.

    Raises SettingsError, which never tells a token, or OSError.
    """
    name = path.name
    parser = configparser.ConfigParser(interpolation=None)
    text, others_may_read = _read(path)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # The parser's own words would quote the line, which may be the token's.
        raise SettingsError(f"{path}: is not a file of settings ({type(error).__name__})") from None
    if parser.sections() != [SECTION]:
        raise SettingsError(f"{path}: needs the section [{SECTION}], and no other")
    values = dict(parser[SECTION])
    url = _url(path, values.pop("notify_url", SERVICE))
    token = values.pop("token", None)
    token_file = values.pop("token_file", None)
    if values:
        raise SettingsError(f"{path}: unknown setting {min(values)}")
    if (token is None) == (token_file is None):
        raise SettingsError(f"{path}: needs either token or token_file")
    if token is None:
        path = path.parent / Path(token_file or "").expanduser()
        token, others_may_read = _read(path)
    tokens = [line.strip() for line in token.splitlines() if line.strip()]
    if others_may_read:
        raise SettingsError(f"{path}: others can read the token: chmod 600 {path}")
    if not tokens or not all(re.fullmatch(r"[ -~]{1,8192}", token) for token in tokens):
        raise SettingsError(f"{path}: each token must be one line of ASCII characters")
    names = [f"{name}, token {number}" for number in range(1, len(tokens) + 1)]
    return [
        Settings(url, token, label if len(tokens) > 1 else name)
        for token, label in zip(tokens, names, strict=True)
    ]


def _read(path: Path) -> tuple[str, bool]:
    """Return the text of a file, and whether group or others may read it."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            return file.read(), bool(mode & (stat.S_IRWXG | stat.S_IRWXO))
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not a text in UTF-8") from None


def _url(path: Path, value: str) -> SplitResult:
    """Take a URL apart that the token may be sent to: https, or http to this very machine."""
    error = SettingsError(
        f"{path}: notify_url must be an https URL, or an http URL of this very machine"
    )
    try:
        url = urlsplit(value)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise error from None
    is_local = host == "localhost"
    with contextlib.suppress(ValueError):
        is_local = ipaddress.ip_address(host).is_loopback
    if (
        not host
        or not re.fullmatch(r"[!-~]+", value)
        or "@" in url.netloc
        or not (url.scheme == "https" or (url.scheme == "http" and is_local))
    ):
        raise error
    return url


def is_automatic(message: BinaryIO) -> bool:
    """Return whether a program sent a message on its own: RFC 3834, section 5. Reads all of it."""
    header = bytearray()
    for line in iter(lambda: message.readline(MAX_HEADER), b""):
        if not line.strip(b"\r\n") or len(header) + len(line) > MAX_HEADER:
            break
        header += line
    while message.read(65536):  # who writes into a pipe expects that all is read
        pass
    values = BytesHeaderParser().parsebytes(bytes(header)).get_all("Auto-Submitted", [])
    words = (re.sub(r"\([^()]*\)", "", str(value)).partition(";")[0] for value in values)
    return any(word.strip().lower() not in {"", "no"} for word in words)


def notify(settings: Settings) -> None:
    """Post the token; raises RefusedError or UnreachableError, which never tell the token."""
    import http.client

    kinds = {"https": http.client.HTTPSConnection, "http": http.client.HTTPConnection}
    host = settings.url.hostname or ""
    connection = kinds[settings.url.scheme](host, settings.url.port, timeout=TIMEOUT)
    target = (settings.url.path or "/") + (f"?{query}" if (query := settings.url.query) else "")
    headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "deltachat-push"}
    try:
        connection.request("POST", target, settings.token.encode("ascii"), headers)
        status = connection.getresponse().status
    except OSError as error:
        raise UnreachableError(f"{host} cannot be reached: {error}") from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise UnreachableError(f"{host} does not answer in HTTP: {type(error).__name__}") from None
    finally:
        connection.close()
    if status == 410:
        raise RefusedError(
            f"{host} answered 410: the token is no longer valid. The app has been removed or has"
            " a new token; take the token from the app again"
        )
    if status == 404:
        raise RefusedError(f"{host} answered 404: notify_url is wrong, or the token is not known")
    if status == 429 or status >= 500:
        raise UnreachableError(f"{host} answered {status}")
    if not 200 <= status < 300:
        raise RefusedError(f"{host} answered {status}: notify_url is wrong, or the token")


class State:
    """What the processes for one token know of each other: files that are named after its hash.

    ``pending`` exists while mail waits for its announcement. ``last`` was modified when the last
    notification was posted. ``lock`` is locked by the process that announces. Raises OSError if
    the user's folder for such files cannot be made, and SettingsError if root would make it in a
    folder of another user.
    """

    def __init__(self, token: str) -> None:
        base = os.environ.get("XDG_STATE_HOME", "")
        folder = Path(base if base.startswith("/") else "~/.local/state").expanduser() / SECTION
        _refuse_others(folder.resolve())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = folder / hashlib.sha256(token.encode("ascii")).hexdigest()[:32]
        self.pending = name.with_suffix(".pending")
        self.last = name.with_suffix(".last")
        self.lock = name.with_suffix(".lock")

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Lock the state as long as the block lasts; gives False if another process has."""
        with self.lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _refuse_others(path: Path) -> None:
    """Raise SettingsError if root would write into a folder that another user can exchange.

    Such as with the HOME of that user: a link there could lead to any file.
    """
    for folder in [path, *path.parents] if os.geteuid() == 0 else []:
        with contextlib.suppress(FileNotFoundError):
            status = folder.stat()
            is_open = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if status.st_uid != 0 or is_open:
                raise SettingsError(f"{folder} is open to another user, and this one is root")


def seconds_to_wait(last: float, now: float) -> float:
    """Return how long the next notification has to wait, in seconds.

    Both times are in seconds since 1970. A clock that was set back holds nothing up for longer
    than INTERVAL.
    """
    return min(INTERVAL, max(0.0, last + INTERVAL - now))


def announce(settings: Settings, state: State) -> None:
    """Notify until no mail waits for it any more, or another process sees to that.

    Only a long wait can be ended by SIGTERM: when its service stops, systemd ends this process,
    too, but what has begun takes seconds only.
    """
    log_as = settings.name
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    delays = iter(RETRIES)
    # Who finds the state locked may go: the owner looks for waiting mail again after unlocking.
    while state.pending.exists():
        with state.locked() as is_ours:
            if not is_ours:
                return
            if not state.pending.exists():
                continue
            if state.last.exists():
                time.sleep(seconds_to_wait(state.last.stat().st_mtime, time.time()))
            state.last.touch(0o600)
            # For mail that arrives from here on, the phone may be too quick.
            state.pending.unlink(missing_ok=True)
            try:
                notify(settings)
                syslog.syslog(syslog.LOG_INFO, f"{log_as}: notified")
            except RefusedError as error:
                syslog.syslog(syslog.LOG_ERR, f"{log_as}: {error}")
            except UnreachableError as error:
                delay = next(delays, None)
                if delay is None:
                    syslog.syslog(syslog.LOG_ERR, f"{log_as}: {error}; giving up")
                else:
                    syslog.syslog(syslog.LOG_WARNING, f"{log_as}: {error}; again in {delay} s")
                    state.pending.touch(0o600)
                    # A service that stops need not wait for this; the next message goes on with it.
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    time.sleep(delay)
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def split_off() -> bool:
    """Go on in a new process, which nobody waits for, as well; in that the result is True."""
    if os.fork():
        return False
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    return True


def main() -> int:
    """Do what the arguments say, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog=SECTION, description="Wake phones with Delta Chat when mail arrives."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only read the settings")
    mode.add_argument(
        "--test", action="store_true", help="notify at once, and tell what the service answers"
    )
    parser.add_argument(
        "config",
        nargs="+",
        help="file of settings, or a notify token; a message on standard input",
    )
    arguments = parser.parse_args()
    try:
        waiting = [(phone, State(phone.token)) for phone in phones(arguments.config)]
        if arguments.check:
            return 0
        if arguments.test:
            return max([trial(phone) for phone, _ in waiting])
        if is_automatic(sys.stdin.buffer):
            return 0
        for _, state in waiting:
            state.pending.touch(0o600)
    except (SettingsError, OSError) as error:
        what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        sys.stderr.write(f"{SECTION}: {what}\n")
        return os.EX_CONFIG
    for phone, state in waiting:
        if split_off():
            syslog.openlog(SECTION, syslog.LOG_PID, syslog.LOG_MAIL)
            try:
                announce(phone, state)
            except OSError as error:
                syslog.syslog(syslog.LOG_ERR, f"{phone.name}: {error}")
            break
    return 0


def trial(phone: Settings) -> int:
    """Notify a phone at once, tell what the service answers, and return the exit status."""
    try:
        notify(phone)
    except (RefusedError, UnreachableError) as error:
        sys.stderr.write(f"{SECTION}: {error}\n")
        return 1
    sys.stdout.write(f"{phone.url.hostname} has accepted the notification\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
