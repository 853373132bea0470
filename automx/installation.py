"""How automx is installed on this machine: where its manual is, and what runs it as a service."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_PACKAGE = Path("/usr/lib/automx")  # of Debian
_PACKAGE_DOCS = Path("/usr/share/doc/automx")
_SYSTEMD = [
    Path(folder) / "automx.service"
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
]
_OPENRC = Path("/etc/init.d/automx")
_ETC = Path("/etc")


@dataclass(frozen=True, slots=True)
class Service:
    """The commands that start automx and start it again."""

    start: str
    restart: str


def page(name: str) -> str:
    """Return where people read a page of the manual, such as "check.md".

    That is a file, if this machine has it. The path is short in the folder of a checkout.
    """
    folder = _PACKAGE_DOCS if _HERE.is_relative_to(_PACKAGE) else _HERE.parent / "docs"
    files = (folder / name, folder / f"{name}.gz")  # Debian compresses long ones
    found = next((file for file in files if file.is_file()), None)
    return f"docs/{name}" if found is None or Path.cwd() == _HERE.parent else str(found)


def service(
    settings: Path | None, systemd: Sequence[Path] = tuple(_SYSTEMD), openrc: Path = _OPENRC
) -> Service | None:
    """Return the service that reads a file of settings, None if automx is started by hand.

    A service reads settings below /etc; a checkout has its own beside it.
    """
    if settings is None or not settings.is_relative_to(_ETC):
        return None
    if any(unit.is_file() for unit in systemd):
        return Service("systemctl enable --now automx", "systemctl restart automx")
    if openrc.is_file():
        return Service("rc-service automx start", "rc-service automx restart")
    return None
