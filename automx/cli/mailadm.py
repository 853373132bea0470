"""``automx import-mailadm``: the tokens and users of mailadm, taken over."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from automx.cli.text import echo_json, json_option, this_second

if TYPE_CHECKING:
    from automx.accounts.mailadm import Report, Tally


@click.command(
    "import-mailadm",
    epilog="Exit status: 0 if what could be taken over is here now, 1 if nothing was done (standard"
    " error says why), 2 if the command was not understood.",
)
@click.argument("database", metavar="MAILADM.DB", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("--domain", help="The domain of tokens and users, by default mailadm's.")
@click.option(
    "--backend",
    type=click.Choice(["none", "mailcow", "command"]),
    help="Who has the mailboxes, by default mailcow.",
)
@click.option(
    "--mailcow-token-file",
    "token_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write mailcow's key into FILE, a new one, which its owner alone may read.",
)
@json_option
def import_mailadm(
    database: Path,
    dry_run: bool,
    domain: str | None,
    backend: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Take over tokens and users from mailadm's database, and tell the settings for automx.

    QR codes that are printed stay valid, if web requests to mailadm's URL are passed to automx.
    MAILADM.DB is not changed. This may be repeated: what is here already stays as it is, except
    that the uses of a token never count less than in mailadm.
    """
    from automx.accounts import mailadm, mailadmfile
    from automx.config import load
    from automx.database import open_session

    db_uri = load().db_uri
    content = mailadmfile.read(database)
    now = this_second()
    with open_session(db_uri) as session:
        report = mailadm.take_over(session, content, now=now, domain=domain, backend=backend)
        settings = mailadm.settings(content, report)
        key = settings.pop("mailcow_token", None)
        if token_file is not None:
            token_file = token_file.absolute()
            settings["mailcow_token_file"] = str(token_file)
            _write_key(token_file, key, dry_run=dry_run)
        if dry_run:
            session.rollback()
    if as_json:
        echo_json(_document(report, settings, dry_run))
    else:
        has_key_left = key is not None and token_file is None
        click.echo(_text(report, settings, dry_run, has_key_left), nl=False)


def _write_key(path: Path, key: str | None, *, dry_run: bool) -> None:
    """Write mailcow's key into a new file; one that holds it already is left as it is."""
    if key is None:
        raise click.ClickException("mailadm's database has no key of mailcow that can be used.")
    try:
        if path.exists():
            if path.read_text("utf-8").strip() != key:
                raise click.ClickException(f"{path} exists already, and holds something else.")
        elif not dry_run:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{key}\n")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} exists already, and holds something else.") from error


def _document(report: "Report", settings: Mapping[str, str], dry_run: bool) -> object:
    def counts(of: "Tally") -> dict[str, object]:
        return {"added": of.added, "present": of.present, "left_out": of.left_out}

    return {
        "dry_run": dry_run,
        "domain": report.domain,
        "backend": report.backend,
        "tokens": {**counts(report.tokens), "raised": report.raised},
        "accounts": {**counts(report.accounts), "expired": report.expired},
        "notes": report.notes,
        "settings": dict(settings),
    }


def _text(report: "Report", settings: Mapping[str, str], dry_run: bool, has_key_left: bool) -> str:
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
            f"{report.expired} of the accounts have expired: automx prune --dry-run tells what will"
            " become of them."
        )
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    lines += ["", "Settings for automx.conf:", ""]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    if has_key_left:
        lines += ["", "mailcow's key: --mailcow-token-file FILE writes it into a file."]
    return "".join(f"{line}\n" for line in lines)
