"""A mail server of files, which the backend ``command`` keeps by a program of its own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A mailbox is a file that holds its mark. What stands in "broken" makes the program fail.
PROGRAM = """\
#!/bin/sh
cd '{folder}' || exit 1
request=$(cat)
printf '%s\\n' "$request" >> requests
value() {{ printf '%s\\n' "$request" | sed -n "s/.*\\"$1\\": \\"\\([^\\"]*\\)\\".*/\\1/p"; }}
mailbox="mailboxes/$(value address)"
if [ -e "broken/$(value address)" ]; then
    echo "the disk is full" >&2
    exit 3
fi
case $(value action) in
create)
    if [ -e "$mailbox" ]; then
        echo '{{"status": "exists"}}'
    else
        value mark > "$mailbox"
        echo '{{"status": "created"}}'
    fi
    ;;
find)
    login=null
    [ -e "logins/$(value address)" ] && login=$(cat "logins/$(value address)")
    ours=false
    if [ ! -e "$mailbox" ]; then
        echo '{{"status": "absent"}}'
    else
        [ "$(cat "$mailbox")" = "$(value mark)" ] && ours=true
        echo '{{"status": "found", "active": true, "ours": '$ours', "last_login": '"$login"'}}'
    fi
    ;;
password)
    if [ -e "$mailbox" ]; then
        value password > "passwords/$(value address)"
        echo '{{"status": "changed"}}'
    else
        echo '{{"status": "absent"}}'
    fi
    ;;
disable) echo '{{"status": "disabled"}}' ;;
delete)
    rm -f "$mailbox"
    echo '{{"status": "deleted"}}'
    ;;
esac
"""


@dataclass(frozen=True)
class MailProgram:
    """The program; ``program`` is for the settings account_command and account_warn_command."""

    folder: Path
    program: Path

    @property
    def addresses(self) -> set[str]:
        """The mailboxes that there are."""
        return {path.name for path in (self.folder / "mailboxes").iterdir()}

    def marks(self) -> dict[str, str]:
        """Return address -> mark of all mailboxes."""
        paths = (self.folder / "mailboxes").iterdir()
        return {path.name: path.read_text().strip() for path in paths}

    def requests(self) -> list[dict[str, Any]]:
        """Return what the program was asked, and forget it."""
        path = self.folder / "requests"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def add(self, address: str, mark: str, last_login: int | None = None) -> None:
        """Make a mailbox, as if the program had made it."""
        (self.folder / "mailboxes" / address).write_text(f"{mark}\n")
        if last_login is not None:
            (self.folder / "logins" / address).write_text(f"{last_login}\n")

    def fail_for(self, *addresses: str) -> None:
        """Let the program fail for these addresses, and for no others."""
        for path in (self.folder / "broken").iterdir():
            path.unlink()
        for address in addresses:
            (self.folder / "broken" / address).touch()


def mail_program(folder: Path) -> MailProgram:
    """Return a mail server without mailboxes in a new folder."""
    for name in ("mailboxes", "passwords", "logins", "broken"):
        (folder / name).mkdir(parents=True)
    program = folder / "program"
    program.write_text(PROGRAM.format(folder=folder))
    program.chmod(0o755)
    return MailProgram(folder, program)
