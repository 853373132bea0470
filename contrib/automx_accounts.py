"""What programs for automx's account_command have in common (docs/account-command.md).

Copy this file into the folder of the program that uses it. It needs Python 3.11 or later and
nothing else. A program of your own is a class with five methods, and a call of serve().
"""

import argparse
import contextlib
import errno
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

ACTIONS = ("check", "create", "find", "password", "disable", "delete")
REQUEST_BYTES = 65_536
MAX_LINKS = 40  # symbolic links on the way to a file, as in Linux

# Local parts and domains that are harmless as a part of a path or of a line in a file.
_ADDRESS = re.compile(
    r"(?P<local>[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*)"
    r"@(?P<domain>(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)"
)
_MARK = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH = re.compile(r"\{[A-Z0-9.-]+\}[!-9;-~]+")  # no colon: it separates the fields of passwd files


class UnfitError(Exception):
    """There can be no mailbox with this address; the text says why."""


class RefusedError(Exception):
    """The program does not do what it was asked, and has changed nothing; the text says why."""


class Request(NamedTuple):
    """A checked request. ``password`` is "" unless a mailbox is to be created, or gets another."""

    action: str
    address: str
    local: str
    domain: str
    token: str
    mark: str
    password: str


class Mailbox(NamedTuple):
    """What is known of a mailbox. ``last_login`` is a Unix time in seconds, None if not known."""

    active: bool
    ours: bool
    last_login: int | None = None


class Template:
    """A text with %u (the address), or %n (its local part) and %d (its domain).

    With %m (the mark of the account) as well, it differs from one owner of an address to the next.
    """

    def __init__(self, text: str) -> None:
        if re.search("%(?![undm])", text) or not ("%u" in text or ("%n" in text and "%d" in text)):
            raise argparse.ArgumentTypeError("must have %u, or %n and %d: one for each mailbox")
        # "%n.%d" is the same for a.b@c.example and a@b.c.example.
        apart = r"%u|%m|%n[^%]*[^%a-z0-9.-][^%]*%d|%d[^%]*[^%a-z0-9.-][^%]*%n"
        if not re.search(apart, text):
            raise argparse.ArgumentTypeError("must have a / or the like between %n and %d")
        self._text = text

    def fill(self, request: Request) -> str:
        """Return the text for an address, whose characters are checked: a path stays below."""
        values = {"u": request.address, "n": request.local, "d": request.domain, "m": request.mark}
        return re.sub("%([undm])", lambda match: values[match[1]], self._text)


class Mailboxes(Protocol):
    """Where mailboxes are kept. Each method raises RefusedError if it has changed nothing.

    Any other exception leaves open what happened, and automx asks again later.
    """

    def create(self, request: Request) -> bool:
        """Make a mailbox; False if somebody has that name already."""

    def find(self, request: Request) -> Mailbox | None:
        """Return what is known of a mailbox; None if it is certain that there is none."""

    def set_password(self, request: Request) -> bool:
        """Let another password be the only one; False if there is no such mailbox."""

    def disable(self, request: Request) -> bool:
        """Block the login; False if there is no such mailbox."""

    def delete(self, request: Request) -> bool:
        """Delete a mailbox; False if there was none."""


def argument_parser(description: str, file: str) -> argparse.ArgumentParser:
    """Return the arguments that all programs have; ``file`` explains the first of them."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="In paths, %u is the address, %n its local part, %d its domain, %m the mark of the"
        " account.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help=file)
    parser.add_argument("--doveadm", default="doveadm", help="default: doveadm")
    parser.add_argument("--scheme", default="SHA512-CRYPT", help="default: SHA512-CRYPT")
    return parser


def serve(mailboxes: Mailboxes) -> int:
    """Answer the request on stdin and return the exit status."""
    try:
        answer = _answer(mailboxes, read_request(sys.stdin.buffer.read(REQUEST_BYTES + 1)))
    except RefusedError as error:
        answer = {"status": "refused", "reason": str(error)}
    except UnfitError as error:
        answer = {"status": "unfit", "reason": str(error)}
    except Exception as error:  # whatever it is, the log of automx gets one line
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _answer(mailboxes: Mailboxes, request: Request) -> dict[str, Any]:
    if request.action in {"check", "create"} and "+" in request.local:
        # Mail servers deliver a+b@ to a@: recipient_delimiter of Dovecot and Postfix (RFC 5233).
        raise UnfitError("mail servers do not deliver to an address with a +")
    if request.action == "check":
        return {"status": "allowed"}
    if request.action == "create":
        return {"status": "created" if mailboxes.create(request) else "exists"}
    if request.action == "password":
        if not hasattr(mailboxes, "set_password"):  # of a program that is older than the action
            raise RefusedError("this program sets no passwords")
        return {"status": "changed" if mailboxes.set_password(request) else "absent"}
    if request.action == "disable":
        return {"status": "disabled" if mailboxes.disable(request) else "absent"}
    if request.action == "delete":
        return {"status": "deleted" if mailboxes.delete(request) else "absent"}
    mailbox = mailboxes.find(request)
    return {"status": "absent"} if mailbox is None else {"status": "found", **mailbox._asdict()}


def read_request(data: bytes) -> Request:
    """Return a request after a strict check. Raises RefusedError and UnfitError."""
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise RefusedError("the request is no JSON") from error
    if not isinstance(document, dict) or document.get("version") != 1:
        raise RefusedError("the request is not of version 1")
    text = {
        key: value if isinstance(value := document.get(key, ""), str) else ""
        for key in ("action", "address", "token", "mark", "password")
    }
    if text["action"] not in ACTIONS:
        raise RefusedError(f"the action is none of {', '.join(ACTIONS)}")
    address = _ADDRESS.fullmatch(text["address"])
    if not address or len(text["address"]) > 254 or len(address["local"]) > 64:
        is_new = text["action"] in {"check", "create"}
        reason = "the address has characters that this program does not accept"
        raise UnfitError(reason) if is_new else RefusedError(reason)
    if not _MARK.fullmatch(text["mark"]):
        raise RefusedError("the mark is empty or has odd characters")
    password = text["password"]
    if text["action"] in {"create", "password"} and not (password and password.isprintable()):
        raise RefusedError("the password is empty or has characters that cannot be printed")
    return Request(**text, local=address["local"], domain=address["domain"])


def owner_text(request: Request) -> str:
    """Return what is stored with a mailbox, to know it again: automx TOKEN MARK."""
    token = re.sub(r"[^A-Za-z0-9_.@+-]", "_", request.token)[:64]
    return f"automx {token} {request.mark}"


def is_owner(request: Request, text: str) -> bool:
    """Return whether a mailbox with this text was made for the account of the request."""
    return text.startswith("automx ") and text.rpartition(" ")[2] == request.mark


def refuse_strangers(request: Request, text: str) -> None:
    """Raise RefusedError if a mailbox with this text was not made for this account."""
    if not is_owner(request, text):
        raise RefusedError(f"{request.address} was not made for this account, and is left alone")


def hash_password(doveadm: str, scheme: str, password: str) -> str:
    """Return a password's hash with its {SCHEME}, made by ``doveadm pw``. Raises RefusedError.

    The password is written to its stdin, twice as a person would type it. Option -O keeps doveadm
    from reading a configuration whose keys only root can read.
    """
    try:
        result = subprocess.run(  # noqa: S603 - the administrator's own doveadm
            [doveadm, "-O", "pw", "-s", scheme],
            input=f"{password}\n{password}\n".encode(),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise RefusedError(f"{doveadm} cannot be started: {error.strerror}") from error
    hashed = result.stdout.decode(errors="replace").rstrip("\n")
    if result.returncode or not _HASH.fullmatch(hashed):
        complaint = " ".join(result.stderr.decode(errors="replace").split())
        raise RefusedError(f"{doveadm} pw made no hash: {complaint}")
    return hashed


@contextlib.contextmanager
def opened_parent(path: Path) -> Iterator[tuple[int, str]]:
    """Open the folder of a path; yield its descriptor (O_PATH) and the name in that folder.

    Each folder is opened in the one before, and a symbolic link is followed only if root or this
    user made it: so no other user leads root elsewhere, or exchanges a folder between two steps.
    Raises OSError.
    """
    *parts, name = path.absolute().parts
    way = parts[::-1]
    folder, links = -1, 0
    with contextlib.ExitStack() as ends:
        while way:
            found = _enter(folder, way.pop(), path)
            if isinstance(found, int):
                ends.callback(os.close, found)
                folder = found
                continue
            way += found.parts[::-1]
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        yield folder, name


def follow(path: Path) -> Path:
    """Return a path with the symbolic links at its end followed, as opened_parent() follows them.

    Raises OSError.
    """
    for _ in range(MAX_LINKS):
        with opened_parent(path) as (folder, name):
            found = _enter(folder, name, path)
        if isinstance(found, int):
            os.close(found)
            return path
        path = path.parent / found
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _enter(folder: int, name: str, path: Path) -> int | Path:
    """Open what has a name in a folder (O_PATH); return the target of a symbolic link instead.

    ``path`` is for the text of an OSError.
    """
    try:
        inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        error.filename = str(path)
        raise
    status = os.fstat(inner)
    if not stat.S_ISLNK(status.st_mode):
        return inner
    try:
        target = os.readlink("", dir_fd=inner)
    finally:
        os.close(inner)
    if status.st_uid not in {0, os.geteuid()} or status.st_nlink > 1:
        reason = f"{name} is a symbolic link of another user"
        raise PermissionError(errno.EPERM, reason, str(path))
    return Path(target)


def open_file(folder: int, name: str, flags: int) -> int:
    """Open or create a file in a folder: a regular one, and under no other name. Raises OSError.

    In a folder of another user, a link or a second name may stand for any file of root's.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would wait for its other end
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "not a regular file with one name", name)
