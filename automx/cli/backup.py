"""``automx backup``, ``automx restore``: all that the database holds, into a file and back."""

import gzip
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import click

from automx import __version__
from automx.backup import copies, rows
from automx.backup.file import Reader
from automx.backup.restore import restore as restore_rows
from automx.cli.addresses import FILE
from automx.cli.caller import give_up, open_file
from automx.cli.context import Context, pass_context
from automx.cli.output import open_output
from automx.cli.terminal import EXIT_STATUS, complain, printable, say
from automx.errors import BackupError

_BACKUP = """\b
Example:
  automx backup automx.backup.gz
  automx backup - | gpg --encrypt --recipient admin@example.com >automx.backup.gpg"""
_RESTORE = """\b
Example, to change from SQLite to PostgreSQL:
  automx backup move.backup
  export AUTOMX_DB_URI='postgresql:///automx?host=/run/postgresql'
  automx restore move.backup"""


@click.command(epilog=f"{_BACKUP}\n\n{EXIT_STATUS}")
@click.argument("file", type=FILE)
@pass_context
def backup(context: Context, file: str) -> None:
    """Write all that the database holds into FILE.

    That includes passwords and tokens: only the owner can read FILE. It is in gzip if its name ends
    with .gz, and replaced when all is written; "-" is standard output. Others may write into the
    database meanwhile. The settings are not part of it.
    """
    with (
        context.session() as session,
        rows.snapshot(session) as snapshot,
        open_output(file) as output,
    ):
        if output.isatty():
            raise click.ClickException(
                "a backup holds secrets, and is not written to a terminal: name a FILE"
            )
        with _compressed(output, file) as plain:
            number = rows.write(
                snapshot, plain, version=__version__, now=context.now, warn=complain
            )
    if file != "-":
        say(f"Wrote {number} row{'s' * (number != 1)}.")


@click.command(epilog=f"{_RESTORE}\n\n{EXIT_STATUS}")
@click.argument("file", type=FILE)
@pass_context
def restore(context: Context, file: str) -> None:
    """Fill an empty database from a backup.

    FILE is of this automx or an older one, and of any kind of database; "-" is standard input. The
    tables are made if they are missing. All is restored, or nothing.
    """
    name = "standard input" if file == "-" else printable(file)
    with _opened(file, name) as opened:
        reader = Reader(opened, name)
        number = restore_rows(context.settings.db_uri, reader, actor=context.actor, now=context.now)
    say(
        f"Restored {number} row{'s' * (number != 1)}, as of {reader.header.made_at}"
        f" (automx {reader.header.version})."
    )


@contextmanager
def _compressed(output: BinaryIO, file: str) -> Iterator[Any]:
    """Yield what writes into an output, compressed if the name of the file says so."""
    if not file.endswith(".gz"):
        yield output
        return
    with gzip.GzipFile("", "wb", 6, output, mtime=0) as compressed:
        yield compressed


@contextmanager
def _opened(file: str, name: str) -> Iterator[BinaryIO]:
    """Open a file that can be read again from its beginning; that of a pipe is a copy."""
    try:
        with ExitStack() as stack:
            source: Any = sys.stdin.buffer
            if file != "-":
                source = stack.enter_context(open_file(file))
            give_up()
            if not source.seekable():
                source = stack.enter_context(copies.of_pipe(source, name))
            yield source
    except OSError as error:
        raise BackupError(f"{name} cannot be read: {error.strerror or error}") from error
