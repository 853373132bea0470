"""The folder of published files, which one process writes and nginx reads.

    DIR/.automx-published           marks a folder that automx has made, and is locked
    DIR/.state                      what the last run has seen
    DIR/.new/                       files that are not whole yet
    DIR/autoconfig/le/example.com   a document, by the last two characters of the first label

Each file is written whole, brought to the disk, and then moved to its place. No link in the folder
is followed: each folder is opened in the one before it. A domain in the form of
:func:`automx.address.parse_domain` holds no slash, does not begin with a dot and has at most 253
characters, so that it is the name of a file in its folder.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Self

from automx.errors import PublishError

KINDS = ("autoconfig", "pacc")

_MARK, _STATE, _NEW = ".automx-published", ".state", ".new"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a planted pipe keeps none
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 500  # folders that are kept open
_AT_ONCE = 4_000  # new files that are brought to the disk together
_FEW = 20  # files that are brought to the disk one by one


class Outcome(StrEnum):
    """What became of a file; ``absent`` is one that was not there and shall not be."""

    WRITTEN = "written"
    REMOVED = "removed"
    UNCHANGED = "unchanged"
    ABSENT = "absent"


def bucket_of(domain: str) -> str:
    """Return the folder in which the file of a domain is."""
    return domain.partition(".")[0][-2:]


class Folder:
    """A folder of published files; nothing in it is changed with ``dry_run``.

    Raises PublishError if it is no such folder. Methods for single files raise OSError.
    """

    def __init__(self, path: Path, *, dry_run: bool = False) -> None:
        self.path = path
        self._is_dry_run = dry_run
        self._root: int | None = None  # stays None in a dry run without a folder
        self._mark: int | None = None
        self._folders: dict[tuple[str, str], int] = {}
        self._new: list[tuple[str, str, str]] = []  # name in .new, kind, domain
        self._number = 0
        self._changed: set[tuple[str, str]] = set()  # kind and bucket
        self._is_synced = False
        umask = os.umask(0)
        os.umask(umask)
        self._has_umask = umask & 0o644 != 0

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            self.close()
            raise PublishError(f"{self.path} cannot be used: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all folders; another process may have this one."""
        for each in (*self._folders.values(), self._root, self._mark):
            if each is not None:
                os.close(each)
        self._folders.clear()
        self._root = self._mark = None

    def state(self) -> bytes:
        """Return what write_state() has kept, b"" if there is nothing."""
        if self._root is None:
            return b""
        with suppress(OSError):
            found = os.open(_STATE, _READ, dir_fd=self._root)
            with os.fdopen(found, "rb") as file:
                return file.read() if _is_own(os.fstat(found)) else b""
        return b""

    def write_state(self, text: bytes) -> None:
        """Keep a state, after all that was written before it is on the disk."""
        if self._is_dry_run:
            return
        self.flush()
        if len(self._changed) > _FEW or self._is_synced:
            os.sync()
        else:
            for kind, bucket in self._changed:
                if (folder := self._folder(kind, bucket)) is not None:
                    os.fsync(folder)
        self._changed.clear()
        self._is_synced = False
        new = self._write_new(text, 0o600)
        self._sync([new])
        os.rename(new, _STATE, src_dir_fd=self._new_folder, dst_dir_fd=self._root)

    def put(self, kind: str, domain: str, body: bytes | None) -> Outcome:
        """Let the file of a domain hold a document; with None, let there be no file.

        A file is in its place after flush() only.
        """
        bucket = bucket_of(domain)
        folder = self._folder(kind, bucket, make=body is not None)
        if body is None:
            if folder is None:
                return Outcome.ABSENT
            return self._remove(kind, bucket, domain, folder)
        if folder is not None and _holds(folder, domain, body):
            return Outcome.UNCHANGED
        if not self._is_dry_run:
            self._new.append((self._write_new(body, 0o644), kind, domain))
            if len(self._new) >= _AT_ONCE:
                self.flush()
        return Outcome.WRITTEN

    def flush(self) -> None:
        """Bring new files to the disk, and move them to their places."""
        new, self._new = self._new, []
        self._sync([name for name, _, _ in new])
        failure: OSError | None = None
        for name, kind, domain in new:
            bucket = bucket_of(domain)
            try:
                folder = self._folder(kind, bucket, make=True)
                os.rename(name, domain, src_dir_fd=self._new_folder, dst_dir_fd=folder)
                self._changed.add((kind, bucket))
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    def names(self, kind: str) -> Iterator[list[str]]:
        """Yield the names of the files of a kind, those of each folder together.

        What does not belong there is removed, but for folders.
        """
        for bucket in self._listed(self._folder(kind, "")):
            folder = self._folder(kind, bucket)
            yield [name for name in self._listed(folder) if self._belongs(folder, bucket, name)]

    def _belongs(self, folder: int | None, bucket: str, name: str) -> bool:
        if name[:1] != "." and bucket_of(name) == bucket:
            return True
        if not self._is_dry_run:
            with suppress(OSError):  # a folder
                os.unlink(name, dir_fd=folder)
        return False

    def _open(self) -> None:
        if not self._is_dry_run:
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o755)
                self.path.chmod(0o755)  # whatever the umask is
        elif not self.path.exists():
            return
        self._root = os.open(self.path, _DIRECTORY & ~os.O_NOFOLLOW)
        found = os.fstat(self._root)
        if found.st_uid != os.geteuid():
            raise PublishError(f"{self.path} belongs to another user; run the command as that user")
        if found.st_mode & 0o022:
            raise PublishError(f"{self.path} can be changed by other users: chmod go-w {self.path}")
        self._mark = self._marked()
        if self._is_dry_run or self._mark is None:
            return
        try:
            fcntl.flock(self._mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(f"another process publishes into {self.path}") from None
        for name in self._listed(self._new_folder):
            os.unlink(name, dir_fd=self._new_folder)

    def _marked(self) -> int | None:
        """Open the mark of the folder, made now in an empty one. Raises PublishError."""
        others = set(self._listed(self._root)) - {"lost+found"}
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if not others and not self._is_dry_run:
            return os.open(_MARK, flags | os.O_CREAT, 0o600, dir_fd=self._root)
        if not others:
            return None
        try:
            found = os.open(_MARK, flags, dir_fd=self._root)
        except OSError:
            raise PublishError(f"{self.path} is neither empty nor made by automx publish") from None
        if not _is_own(os.fstat(found)):
            os.close(found)
            raise PublishError(f"{self.path / _MARK} is no file of automx")
        return found

    @property
    def _new_folder(self) -> int:
        folder = self._folder(_NEW, "", make=True)
        assert folder is not None  # noqa: S101 - for mypy: there is one, or an OSError
        return folder

    def _folder(self, kind: str, bucket: str, *, make: bool = False) -> int | None:
        """Return a folder; None if there is none. With ``make``, it is made where that may be."""
        key = kind, bucket
        if (found := self._folders.get(key)) is not None:
            return found
        above = self._folder(kind, "", make=make) if bucket else self._root
        if above is None:
            return None
        opened = _opened(bucket or kind, above, make=make and not self._is_dry_run)
        if opened is not None:
            if len(self._folders) >= _OPEN:
                self._forget_one()
            self._folders[key] = opened
        return opened

    def _forget_one(self) -> None:
        key = next(key for key in self._folders if key[1])
        os.close(self._folders.pop(key))

    def _listed(self, folder: int | None) -> list[str]:
        return [] if folder is None else os.listdir(folder)  # noqa: PTH208 - an open folder

    def _remove(self, kind: str, bucket: str, domain: str, folder: int) -> Outcome:
        try:
            if self._is_dry_run:
                os.stat(domain, dir_fd=folder, follow_symlinks=False)
            else:
                os.unlink(domain, dir_fd=folder)
                self._changed.add((kind, bucket))
        except FileNotFoundError:
            return Outcome.ABSENT
        return Outcome.REMOVED

    def _write_new(self, body: bytes, mode: int) -> str:
        """Write a file into .new, and return its name there."""
        self._number += 1
        name = str(self._number)
        folder = self._new_folder
        file = os.open(name, _WRITE, mode, dir_fd=folder)
        try:
            while body:
                body = body[os.write(file, body) :]
            if self._has_umask:
                os.fchmod(file, mode)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(file)
        return name

    def _sync(self, names: list[str]) -> None:
        if len(names) > _FEW:
            os.sync()  # one by one, each would wait for the journal of the file system
            self._is_synced = True
            return
        for name in names:
            file = os.open(name, _READ, dir_fd=self._new_folder)
            try:
                os.fsync(file)
            finally:
                os.close(file)


def _opened(name: str, above: int, *, make: bool) -> int | None:
    """Open a folder in another one; with ``make``, in place of what is no folder."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        if not make:
            return None
    except OSError:  # a link, or a file
        if not make:
            return None
        os.unlink(name, dir_fd=above)
    os.mkdir(name, 0o700, dir_fd=above)
    found = os.open(name, _DIRECTORY, dir_fd=above)
    if name != _NEW:
        os.fchmod(found, 0o755)
    return found


def _holds(folder: int, name: str, body: bytes) -> bool:
    """Return whether a file is there that nginx can read, and holds a document."""
    try:
        file = os.open(name, _READ, dir_fd=folder)
    except OSError:  # there is none, or a link
        return False
    try:
        found = os.fstat(file)
        if found.st_size != len(body) or not _is_own(found):
            return False
        return stat.S_IMODE(found.st_mode) == 0o644 and os.read(file, len(body) + 1) == body
    except OSError:  # a folder, or a disk that fails
        return False
    finally:
        os.close(file)


def _is_own(found: os.stat_result) -> bool:
    is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return is_ours and found.st_nlink == 1
