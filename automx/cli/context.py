"""What each command works with: the time, the settings, the database, the form of its output."""

import os
import pwd
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import click

from automx.cli.terminal import say_json, say_lines
from automx.config import Settings, load
from automx.database import Session, open_session
from automx.moments import this_second


@dataclass
class Context:
    """The context of one command; ``now`` is when it began, to the second."""

    as_json: bool = False
    now: datetime = field(default_factory=this_second)

    @cached_property
    def settings(self) -> Settings:
        """The effective settings, read at the first use. Raises SettingsError."""
        return load()

    @cached_property
    def actor(self) -> str:
        """Who runs the command, for the audit.

        Under sudo, that is the person who called it: many share root, or the user automx. People
        who can set the variable can write the database as well.
        """
        name = os.environ.get("SUDO_USER") or _user_name()
        return f"user:{name}"

    def session(self) -> AbstractContextManager[Session]:
        """Open a session for a ``with`` block: commit at its end, roll back on an error."""
        return open_session(self.settings.db_uri)

    def write(self, document: object, text: Callable[[], str]) -> None:
        """Print the document with ``--json``, else the text."""
        if self.as_json:
            say_json(document)
        else:
            say_lines(text())


pass_context = click.make_pass_decorator(Context, ensure=True)


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Context).as_json = value


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_set_json,
    help="Print JSON, for programs.",
)


def with_json(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--json`` to a command, which gets its Context."""
    return json_option(pass_context(command))


def _user_name() -> str:
    """Return the name of the system's user, or the number of one without a name."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
