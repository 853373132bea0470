"""A program of the administrator that writes records, for the API of a hoster.

It gets the changes as JSON on standard input; docs/dns.md specifies them (version 1). Exit status 0
means that all was done. It may get the same changes again: what is there or gone already is no
error.
"""

from typing import Any

from automx.backends.command import run_hook
from automx.config import ZoneSettings
from automx.errors import NotReachedError, SilentError, UncertainError, ZoneError
from automx.zones.plan import Plan, SetChange

VERSION = 1
PATIENCE = 2  # times that a program may take too long, one after the other


def document(plan: Plan) -> dict[str, Any]:
    """Return the changes of a plan as the program gets them."""
    return {
        "version": VERSION,
        "zone": plan.zone,
        "domain": plan.domain,
        "delete": [each for change in plan.changes for each in _records(change, is_new=False)],
        "add": [each for change in plan.changes for each in _records(change, is_new=True)],
    }


class Program:
    """The program of the settings. Not safe for threads.

    After ``PATIENCE`` timeouts in a row it is not run again: each further domain would wait. One
    timeout stops nothing.
    """

    def __init__(self, settings: ZoneSettings) -> None:
        self._settings = settings
        self._killed = 0  # times in a row

    def write(self, plan: Plan) -> None:
        """Let the program make the changes of a plan. Raises ZoneError."""
        what = f"{plan.domain}: zone_command: "
        if self._killed >= PATIENCE:
            raise ZoneError(cause=f"{what}took too long for earlier domains, so it was not run")
        killed, self._killed = self._killed, 0
        try:
            run_hook(self._settings.command, document(plan), timeout=self._settings.timeout)
        except (NotReachedError, SilentError, UncertainError) as error:
            if isinstance(error, SilentError):
                self._killed = killed + 1
            raise ZoneError(cause=f"{what}{error.reason}") from error


def _records(change: SetChange, *, is_new: bool) -> list[dict[str, Any]]:
    records, others = change.added, change.removed
    ttl = change.ttl
    if not is_new:
        records, others = others, records
        ttl = change.found.ttl if change.found else ttl
    if change.found is not None and change.found.ttl == change.ttl:
        records = tuple(record for record in records if record not in others)
    return [
        {"name": change.name, "type": change.type, "ttl": ttl, "data": record.to_text()}
        for record in sorted(records, key=lambda record: record.to_text())
    ]
