"""``automx import-mailadm``: imports the tokens and users of mailadm."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from automx.accounts import mailadm, mailadmfile
from automx.accounts.mailadm import Report
from automx.cli.addresses import DOMAIN_TEXT, PATH
from automx.cli.context import Context, with_json
from automx.cli.terminal import printable
from automx.config import BACKENDS


@click.command(
    "import-mailadm",
    epilog="Exit status: 0 if all that can be imported is here now, 1 if nothing was done (standard"
    " error says why), 2 if the command was not understood.",
)
@click.argument("database", metavar="MAILADM.DB", type=PATH)
@click.option("--dry-run", is_flag=True, help="Change nothing: only print what would be done.")
@click.option(
    "--domain", type=DOMAIN_TEXT, help="The domain of tokens and users, by default mailadm's."
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="The backend of the mailboxes, by default mailcow.",
)
@click.option(
    "--mailcow-token-file",
    "token_file",
    metavar="FILE",
    type=PATH,
    help="Write mailcow's key into FILE, a new one, which its owner alone may read.",
)
@with_json
def import_mailadm(
    context: Context, /, database: Path, dry_run: bool, token_file: Path | None, **options: Any
) -> None:
    """Import tokens and users of mailadm.

    The settings for automx are printed.

    QR codes that are printed stay valid, if web requests to mailadm's URL are passed to automx.
    MAILADM.DB is not changed. The import may be repeated: rows that are here already stay
    as they are, except that the count of uses of a token is raised to that of mailadm.
    """
    content = mailadmfile.read(database)
    with context.session() as session:
        report = mailadm.take_over(
            session, content, now=context.now, actor=context.actor, **options
        )
        settings = mailadm.settings(content, report)
        key = settings.pop("mailcow_token", None)
        if token_file is not None:
            token_file = token_file.absolute()
            settings["mailcow_token_file"] = str(token_file)
            _write_key(token_file, key, dry_run=dry_run)
        if dry_run:
            session.rollback()
    has_key_left = key is not None and token_file is None
    context.write(
        report.document(settings, dry_run=dry_run),
        lambda: _text(report, settings, dry_run, has_key_left),
    )


def _write_key(path: Path, key: str | None, *, dry_run: bool) -> None:
    """Write mailcow's key into a new file; one that holds it already is left as it is."""
    if key is None:
        raise click.ClickException("mailadm's database has no key of mailcow that can be used.")
    try:
        if path.exists():
            if path.read_bytes().strip() != key.encode():
                raise click.ClickException(f"{path} exists already, and holds something else.")
        elif not dry_run:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(f"{key}\n")
            except OSError:  # such as a full disk: a part of the key is none
                path.unlink()
                raise
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error


def _text(report: Report, settings: Mapping[str, str], dry_run: bool, has_key_left: bool) -> str:
    lines = ["This is what would be done; nothing was changed.", ""] if dry_run else []
    for name, counts in (("Tokens", report.tokens), ("Accounts", report.accounts)):
        lines.append(
            f"{name} of {report.domain}: {counts.added} added, {counts.present} here before,"
            f" {len(counts.left_out)} left out"
        )
    notes = list(report.notes)
    if report.raised:
        notes.append(f"The count of uses was raised to mailadm's: {', '.join(report.raised)}.")
    if report.expired:
        notes.append(
            f"{report.expired} of the accounts have expired: automx prune --dry-run prints what"
            " will be done with them."
        )
    if report.accounts.added and report.backend == "mailcow":
        notes.append(
            "automx disables and deletes an imported mailbox only if it has mailadm's tag in"
            " mailcow, such as mailadm:TOKEN. Without it, the mailbox stays when its account ends."
        )
    if notes:
        lines += ["", *(f"- {printable(note)}" for note in notes)]
    lines += ["", "Settings for automx.conf:", ""]
    lines += [printable(f"{name} = {value}") for name, value in settings.items()]
    if has_key_left:
        lines += ["", "mailcow's key: --mailcow-token-file FILE writes it into a file."]
    return "\n".join(lines)
