"""``automx check``: the doctor."""

import io
import logging
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import click

from automx import __version__
from automx.accounts import tokens
from automx.accounts.keystates import KeyStates
from automx.backends import Backends
from automx.check import check_domains, load_targets
from automx.check.accounts import check_accounts
from automx.check.database import check_database
from automx.check.finding import Finding, Level
from automx.check.network import Network
from automx.check.repair import repair
from automx.check.report import Entry, Report
from automx.check.rows import check_rows
from automx.check.settings import check_settings
from automx.check.sources import source_checks
from automx.check.zones import check_states
from automx.cli import names
from automx.cli.context import Context, json_option, pass_context
from automx.cli.dns import (
    ca_file_option,
    host_option,
    name_server_option,
    public_host,
    timeout_option,
)
from automx.cli.terminal import INTERRUPTED, complain, confirm, printable, say_json, shortened
from automx.config import AccountSettings
from automx.database import Session
from automx.errors import AutomxError

_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
_NAMED = 3  # domains in the line of a finding that several have


@click.command
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...", shell_complete=names.of("domain"))
@click.option("--all", "all_domains", is_flag=True, help="Look at all domains of the database.")
@json_option
@click.option(
    "--repair",
    "wants_repair",
    is_flag=True,
    help="Delete rows that refer to rows that do not exist, and ask before; then check.",
)
@click.option("--yes", is_flag=True, help="Do not ask before --repair.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing about what is in order.")
@timeout_option(
    "Seconds for each DNS query and for each connection. With N domains, the whole run takes"
    " at most (15 + N) times as long."
)
@name_server_option
@host_option
@ca_file_option
@pass_context
def check(
    context: Context,
    /,
    domains: tuple[str, ...],
    all_domains: bool,
    wants_repair: bool,
    yes: bool,
    quiet: bool,
    name_server: tuple[str, int],
    host: str | None,
    **options: Any,
) -> None:
    """Check settings, database and domains as clients do.

    Each DOMAIN is asked by DNS, HTTPS and the protocols of mail, as mail clients ask it.

    Without DOMAIN and --all, no network is used, but sources are read, and mailcow is asked if it
    makes accounts.

    Exit status: 0 all is well, 1 there are warnings, 2 there are errors.
    """
    if domains and all_domains:
        raise click.UsageError("Name either domains or --all.")
    if yes and not wants_repair:
        raise click.UsageError("--yes belongs to --repair.")
    # The log's messages about rows are among the findings.
    logging.getLogger("automx").addHandler(logging.NullHandler())
    if wants_repair:
        _repair(context, yes=yes)
    report = Report()
    try:
        service = public_host(context, host)
        network = Network(name_server=name_server[0], port=name_server[1], **options)
        examine(report, context, None if all_domains else domains, service, network)
    except AutomxError as error:  # earlier findings are printed all the same
        subject = "database" if error.status == 503 else "settings"
        text = error.reason.removeprefix(f"{subject}: ")
        advice = "nothing else was looked at"
        report.found[""].append(Finding("", Level.ERROR, subject, text, advice))
        report.is_aborted = True
    except KeyboardInterrupt:
        report.is_interrupted = True
    except Exception as error:  # status 1, Python's own, would be taken for warnings
        traceback.print_exc()
        text = f"this check itself failed: {type(error).__name__}: {error}"
        finding = Finding("", Level.ERROR, "automx check", text, "please report this")
        report.found[""].append(finding)
    if context.as_json:
        document = {"version": __version__} | report.document()
        say_json(document, ascii_only=True)  # a text may hold anything
    else:
        print_report(report, quiet=quiet, all_domains=all_domains)
    sys.exit(INTERRUPTED if report.is_interrupted else report.status)


def examine(
    report: Report,
    context: Context,
    domains: Sequence[str] | None,
    service: str,
    network: Network,
) -> None:
    """Add what is found to a report; ``domains`` are those to look at, None for all."""
    settings = context.settings
    report.found[""] += check_settings(settings, network.now)
    with context.session() as session:
        report.found[""] += check_database(session, settings)
        report.found[""] += check_rows(session)
        report.found[""] += check_states(session, settings, network.now)
        targets = load_targets(session, domains)
        report.found[""] += _accounts(session, settings.accounts, network)
        keys = KeyStates(lambda: Session(session.engine))
        further = source_checks(session, settings, keys, network)
        session.commit()  # nothing is open while the network is used
        report.domains = [target.domain for target in targets]
        work = check_domains(targets, network, settings, host=service, further=further)
        file = sys.stderr if sys.stderr.isatty() else io.StringIO()
        with click.progressbar(length=len(targets), label="Checking", file=file) as bar:
            for domain, found in work:
                report.found[domain] += found
                bar.update(1 if domain else 0)


def _accounts(session: Session, settings: AccountSettings, network: Network) -> list[Finding]:
    """Return what the backends of accounts say; each question takes as long as one of a client."""
    found = tokens.all_tokens(session)
    session.commit()
    settings = replace(settings, timeout=network.timeout)
    with closing(
        Backends(settings, lambda: KeyStates(lambda: Session(session.engine)))
    ) as backends:
        return list(check_accounts(found, backends, network.now))


def _repair(context: Context, *, yes: bool) -> None:
    """Show what would be deleted, ask, and delete it; exit without a yes or without a terminal."""
    with context.session() as session:
        found = repair(session, actor=context.actor, now=context.now)
        session.rollback()  # nothing stays locked while the person reads
        if not found:
            complain("there is nothing to repair")
            return
        if not yes:
            for line in found:
                complain(f"to be deleted: {line}")
        confirm("this would delete these rows", question="Delete these rows?", yes=yes)
        for line in repair(session, actor=context.actor, now=context.now):
            complain(f"deleted: {line}")


def print_report(report: Report, *, quiet: bool, all_domains: bool = False) -> None:
    """Print a line for each finding, and for whatever is in order, and their numbers."""
    width = max((min(len(domain), 40) for domain in report.domains), default=1)
    found = report.entries(is_whole=True)
    for entry in found:
        if entry.finding.level or not quiet:
            _line(entry, width)
    if report.is_interrupted:
        done = f"{len(report.found) - 1} of {len(report.domains)} domains"
        _echo(f"Interrupted: {done} were looked at.")
    elif report.status or not quiet:
        levels = [int(entry.finding.level) for entry in found]
        counts = [(len(report.domains), "domain"), (levels.count(2), "error")]
        counts.append((levels.count(1), "warning"))
        _echo(", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in counts))
    if not (report.domains or quiet or report.is_interrupted or report.is_aborted):
        hint = "The database names no domain." if all_domains else "Name domains, or give --all."
        _echo(f"No domain was looked at. {hint}")


def _line(entry: Entry, width: int) -> None:
    """Print one line; for a terminal, it is broken, and what to do has a line of its own."""
    finding = entry.finding
    word = click.style(f"{finding.level.name.lower():<7}", fg=_COLORS[finding.level])
    begin = f"  {printable(finding.domain) or '-':<{width}}  "
    text = f"{finding.subject}: {finding.text}" if finding.subject else finding.text
    text = printable(shortened(text) + _of_several(entry.domains))
    advice = printable(f"-> {shortened(finding.advice)}" if finding.advice else "")
    if not sys.stdout.isatty():
        _echo(f"{word}{begin}{text} {advice}".rstrip())
        return
    columns = shutil.get_terminal_size().columns
    indent = " " * min(7 + len(begin), columns // 4)
    fill = partial(
        textwrap.fill,
        width=max(columns, 20),
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    _echo(word + fill(text, initial_indent="." * 7 + begin)[7:])
    if advice:
        _echo(fill(advice, initial_indent=indent))


def _of_several(domains: Sequence[str]) -> str:
    """Return how many domains a line is about, and the first of them, if there are several."""
    if len(domains) < 2:
        return ""
    more = f" and {len(domains) - _NAMED} more" if len(domains) > _NAMED else ""
    return f" ({len(domains)} domains: {', '.join(domains[:_NAMED])}{more})"


def _echo(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "replace").decode(encoding)
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(text, color=color)  # noqa: TID251 - coloured; its parts are printable
