"""Runs ``Domains.apply`` in a process of its own that is killed at one of its points.

A point lies before and after each commit, and before and after each update of a zone.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unittest.mock import patch

from automx.config import Settings
from automx.database import Session, open_session
from automx.zones.apply import Domains, Options, Outcome
from automx.zones.primary import Primary

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Run:
    """What a run is given; it can be sent to another process."""

    settings: Settings
    options: Options
    domain: str

    def apply(self, now: datetime, **options: Any) -> Outcome:
        """Apply the domain in this process."""
        with open_session(self.settings.db_uri) as session:
            work = Domains(session, self.settings, self.options, now=lambda: now)
            try:
                return work.apply(self.domain, **options)
            finally:
                work.close()

    def kill_at(self, point: int, now: datetime) -> bool:
        """Apply the domain, but be killed (SIGKILL) at a point; return whether it was reached."""
        process = _processes.Process(target=_killed_at, args=(self, point, now))
        process.start()
        process.join(60)
        assert process.exitcode in {0, -signal.SIGKILL}, process.exitcode
        killed = process.exitcode != 0
        process.close()
        return killed


def _killed_at(run: Run, point: int, now: datetime) -> None:
    passed = 0

    def pass_point() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def with_points(work: Callable[..., Any]) -> Callable[..., Any]:
        def worked(*arguments: Any) -> Any:
            pass_point()
            result = work(*arguments)
            pass_point()
            return result

        return worked

    with (
        patch.object(Session, "commit", with_points(Session.commit)),
        patch.object(Primary, "update", with_points(Primary.update)),
    ):
        run.apply(now)
