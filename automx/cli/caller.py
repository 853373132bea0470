"""The caller of a command, where root has commands run as the user of the service.

Root's command ``automx`` sets ``AUTOMX_USER``. The database then is that user's, while files that a
command names are the caller's: they are opened with the rights of root, or of the person who typed
``sudo automx``. Links on the way to them are followed only if they are root's or the caller's.
Others may own the folder: what they put in the place of a file after a look at it is not opened.
"""

import errno
import os
import pwd
import re
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

from automx.errors import SettingsError

VARIABLE = "AUTOMX_USER"
# Commands with arguments or options that name files. The others give up the caller's rights.
WITH_FILES = frozenset(
    {
        *("account", "apply", "backup", "dclogin", "export", "import-autoconfig", "import-csv"),
        *("mobileconfig-qr", "provider", "restore", "seed", "token"),
    }
)

_FOLDER = os.O_PATH | os.O_CLOEXEC
_ENTRY = _FOLDER | os.O_NOFOLLOW
_MOST_LINKS = 40  # as Linux has it
# A file that is opened, and may be a pipe. An interrupt may come at each step of its change: to
# change a list is one step, while an Event has a lock, for which its handler would wait for ever.
_OPENING: list[Path] = []
_OWN_STREAMS = ("/dev/fd/", "/dev/std", "/proc/self/fd/")


class Place(NamedTuple):
    """Where a file is: the rights to use it with, and a path that is valid within the block."""

    rights: Callable[[], AbstractContextManager[None]]
    path: Path
    is_followed: bool  # the path has no links any more


def work_as(name: str, *, keeps_rights: bool) -> None:
    """Work as another user of the system; root only can.

    ``keeps_rights`` says whether files can still be opened as the caller. Programs that are started
    have the rights of the user only. Raises SettingsError.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(f"{VARIABLE}: there is no user {name}") from None
    if os.geteuid() == user.pw_uid:
        return
    if os.geteuid() != 0:
        raise SettingsError(f"only root can run commands as the user {name}")
    os.environ.setdefault("SUDO_USER", "root")  # the actor of the audit
    os.environ["HOME"] = user.pw_dir  # libraries of databases look for files there
    kept = _person() if keeps_rights else (user.pw_uid, user.pw_gid)
    if kept[0] in {0, user.pw_uid}:
        os.initgroups(name, user.pw_gid)
    else:
        os.setgroups([])  # a person must not get the groups of the user
    os.setresgid(user.pw_gid, user.pw_gid, kept[1])
    os.setresuid(user.pw_uid, user.pw_uid, kept[0])


def give_up() -> None:
    """Give the rights of the caller up for good, when no other file will be opened."""
    if _has_caller():
        user, group = os.geteuid(), os.getegid()
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


def open_file(path: str | Path) -> BinaryIO:
    """Open a file for reading: as the caller; for root, else as the user. Raises OSError."""
    try:
        with place(Path(path)) as (rights, followed, is_followed), rights():
            # A link at the end is refused: it was none a moment ago.
            flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if is_followed else 0)
            return os.fdopen(_open(followed, flags), "rb")
    except PermissionError:
        if not _is_called_by_root():
            raise
    return Path(path).open("rb")


def _open(path: Path, flags: int) -> int:
    """Open a file. An interrupt ends the wait for the other end of a pipe, in any block."""
    _OPENING.append(path)
    try:
        return os.open(path, flags)
    finally:
        _OPENING.clear()


def open_special(place: "Place") -> BinaryIO | None:
    """Open a pipe or device for writing, in a block of its rights; None for a usual file.

    Raises OSError, also for a pipe that another user has put there.
    """
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if place.is_followed else 0)
    try:
        if not place.path.exists() or place.path.is_file():
            return None
        descriptor = _open(place.path, flags)  # creates nothing, and cuts nothing off
    except FileNotFoundError:
        return None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):  # it was none a moment ago
        os.close(descriptor)
        return None
    if place.is_followed and found.st_uid not in {0, os.geteuid()}:
        os.close(descriptor)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place.path))
    return os.fdopen(descriptor, "wb")


@contextmanager
def place(path: Path) -> Iterator[Place]:
    """Find the place of a file that may not be there yet.

    Raises OSError, also where a link of another user is on the way.
    """
    if not _has_caller():
        yield Place(nullcontext, path, is_followed=False)
    elif str(path).startswith(_OWN_STREAMS):  # the caller has opened them
        yield Place(_rights, path, is_followed=False)
    else:
        with _rights():
            folder, name = _follow(path)
        try:
            yield Place(_rights, Path(f"/proc/self/fd/{folder}") / name, is_followed=True)
        finally:
            os.close(folder)


def _person() -> tuple[int, int]:
    """Return the IDs of user and group of the caller.

    People who may call nothing but automx by sudo get no rights of root by it.
    """
    command = os.environ.get("SUDO_COMMAND", "").partition(" ")[0]
    if Path(command).name != "automx":
        return 0, 0
    ids = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if not all(re.fullmatch("[0-9]{1,9}", text) for text in ids):
        raise SettingsError("SUDO_UID and SUDO_GID are no numbers of a user and a group")
    return int(ids[0]), int(ids[1])


def _has_caller() -> bool:
    _, effective, saved = os.getresuid()
    return saved != effective


def _is_called_by_root() -> bool:
    return _has_caller() and os.getresuid()[2] == 0


@contextmanager
def _rights() -> Iterator[None]:
    """Have the rights of the caller within a block.

    The user may send signals to this process: an interrupt must not leave the rights with it. So it
    waits for the end of the block, unless the block itself waits.
    """
    (_, user, caller), (_, group, callers_group) = os.getresuid(), os.getresgid()
    interrupts: list[int] = []

    def note(number: int, _: object) -> None:
        if _OPENING:
            _OPENING.clear()
            raise KeyboardInterrupt
        interrupts.append(number)

    handler = signal.signal(signal.SIGINT, note)
    try:
        os.seteuid(caller)
        os.setegid(callers_group)
        yield
    finally:
        os.setegid(group)
        os.seteuid(user)
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        signal.raise_signal(signal.SIGINT)


def _follow(path: Path) -> tuple[int, str]:
    """Return an open folder, and the name of the file in it, which is no link.

    Each folder is opened relative to the one before, so a rename cannot redirect the path.
    """
    trusted = {0, os.geteuid()}
    rest = _parts(path)
    folder = os.open(path.anchor or ".", _FOLDER)
    links = 0
    try:
        while rest:
            name = rest.pop()
            try:
                entry = os.open(name, _ENTRY, dir_fd=folder)
            except FileNotFoundError:
                if rest:
                    raise
                return folder, name
            found = os.fstat(entry)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                target = Path(os.readlink("", dir_fd=entry))
                os.close(entry)
                if found.st_uid not in trusted or links > _MOST_LINKS:
                    raise PermissionError(  # noqa: TRY301 - the folder is closed below
                        errno.EACCES, os.strerror(errno.EACCES), str(path)
                    )
                rest += _parts(target)
                if target.anchor:
                    os.close(folder)
                    folder = os.open(target.anchor, _FOLDER)
            elif rest:
                os.close(folder)
                folder = entry
            else:
                os.close(entry)
                return folder, name
    except BaseException:
        os.close(folder)
        raise
    return folder, "."


def _parts(path: Path) -> list[str]:
    """Return the names on the way, the last one first."""
    return [part for part in reversed(path.parts) if part != path.anchor]
