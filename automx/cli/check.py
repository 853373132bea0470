"""``automx check``: the doctor."""

import json
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from automx import __version__
from automx.errors import AutomxError

if TYPE_CHECKING:
    from automx.check import Finding
    from automx.config import Settings

_COLORS = ("green", "yellow", "red")
_WORDS = ("ok", "warning", "error")
_INTERRUPTED = 130  # what a shell calls a program that Ctrl-C has ended

_TIMEOUT = """Seconds for each question to a name server, and for each connection with all that is
said on it. With N domains, the whole run ends after (15 + N) times as long, however many servers
are silent."""


@dataclass
class _Report:
    """What is known so far; ``domains`` are those that were asked for."""

    domains: list[str] = field(default_factory=list)
    common: "list[Finding]" = field(default_factory=list)
    by_domain: "dict[str, list[Finding]]" = field(default_factory=dict)
    is_interrupted: bool = False

    @property
    def findings(self) -> "list[Finding]":
        """All findings: those of no domain first, then domain by domain, the worst first."""
        parts = [self.common, *(self.by_domain.get(domain, []) for domain in self.domains)]
        return [finding for part in parts for finding in sorted(part, key=lambda f: -f.level)]

    @property
    def status(self) -> int:
        """The exit status."""
        return max((finding.level for finding in self.findings), default=0)


@click.command
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--all", "all_domains", is_flag=True, help="Look at all domains of the database.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing about what is in order.")
@click.option(
    "--timeout",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 120),
    help=" ".join(_TIMEOUT.split()),
)
@click.option("--dns", "name_server", help="Ask this name server: an IP address, perhaps :PORT.")
@click.option("--host", help="Public host name of automx, by default the setting public_host.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Authorities (PEM) to trust beside those of the system.",
)
def check(
    domains: tuple[str, ...],
    all_domains: bool,
    as_json: bool,
    quiet: bool,
    timeout: float,
    name_server: str | None,
    host: str | None,
    ca_file: str | None,
) -> None:
    """Look at settings and database, and at each DOMAIN as mail clients see it.

    Without DOMAIN and --all, the network is not asked.

    Exit status: 0 all is well, 1 there are warnings, 2 there are errors.
    """
    if domains and all_domains:
        raise click.UsageError("Name either domains or --all.")
    address, port = _name_server(name_server)
    report = _Report()
    with _errors_in(report):
        from automx import check as doctor
        from automx import config, database

        settings = config.load()
        service = _host(host, settings)
        network = doctor.Network(
            name_server=address, port=port, ca_file=ca_file or "", timeout=timeout
        )
        report.common += doctor.check_settings(settings, network.now)
        with _silent_log(), database.open_session(settings.db_uri) as session:
            report.common += doctor.check_rows(session)
            asked = None if all_domains else domains
            targets = doctor.load_targets(session, asked)
        report.domains = [target.domain for target in targets]
        work = doctor.check_domains(targets, network, host=service, ldap_options=settings.directory)
        with _progress(len(targets)) as advance:
            for domain, found in work:
                if domain:
                    report.by_domain[domain] = found
                    advance()
                else:
                    report.common += found
    if as_json:
        click.echo(json.dumps(_as_dict(report), indent=2))
    else:
        _print(report, quiet=quiet, all_domains=all_domains)
    sys.exit(_INTERRUPTED if report.is_interrupted else report.status)


@contextmanager
def _errors_in(report: _Report) -> Iterator[None]:
    """Turn what ends the work early into a finding: what was found before is not lost."""
    from automx.check import Finding, Level

    try:
        yield
    except AutomxError as error:
        text = error.cause if error.status >= 500 and error.cause else str(error)
        subject = "database" if error.status == 503 else "settings"
        report.common.append(Finding("", Level.ERROR, subject, text, "nothing else was looked at"))
    except KeyboardInterrupt:
        report.is_interrupted = True
    except Exception as error:  # status 1, Python's own, would be taken for warnings
        traceback.print_exc()
        text = f"this check itself failed: {type(error).__name__}: {error}"
        report.common.append(Finding("", Level.ERROR, "automx check", text, "please report this"))


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keep the log quiet: what it would say of rows is among the findings."""
    import logging

    logger = logging.getLogger("automx")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _progress(length: int) -> Iterator[Callable[[], None]]:
    """Show a bar to a person, and to nobody else; what is given advances it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=length, label="Checking", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _host(text: str | None, settings: "Settings") -> str:
    """Return the public host name of this service as A-label, "" if it is not known."""
    from automx.address import parse_domain
    from automx.dns import is_host_name

    text = text or settings.public_host
    name = parse_domain(text) if text else ""
    return name if is_host_name(name) else ""


def _name_server(text: str | None) -> tuple[str, int]:
    """Return address and port of a name server, ("", 53) for those of the system."""
    from ipaddress import ip_address

    if text is None:
        return "", 53
    host, colon, port = text.rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):  # an IPv6 address has colons
        host, port = text, "53"
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise click.BadParameter("expected an IP address, perhaps with a port", param_hint="--dns")
    return host, number


def _as_dict(report: _Report) -> dict[str, object]:
    return {
        "version": __version__,
        "status": report.status,
        "complete": not report.is_interrupted,
        "domains": report.domains,
        "findings": [
            {
                "domain": finding.domain,
                "level": _WORDS[finding.level],
                "subject": finding.subject,
                "text": finding.text,
                "advice": finding.advice,
            }
            for finding in report.findings
        ],
    }


def _print(report: _Report, *, quiet: bool, all_domains: bool) -> None:
    """Print a line for each finding, and for whatever is in order, and their numbers."""
    width = max((min(len(domain), 40) for domain in report.domains), default=1)
    blocks = [("", report.common)]
    blocks += [(domain, report.by_domain.get(domain, [])) for domain in report.domains]
    for domain, found in blocks:
        if not found and not quiet and (not domain or domain in report.by_domain):
            text = "everything is in order" if domain else "settings and database are in order"
            _line(0, domain, width, text, "")
        for finding in sorted(found, key=lambda finding: -finding.level):
            if finding.level or not quiet:
                text = f"{finding.subject}: {finding.text}"
                _line(finding.level, domain, width, text, finding.advice)
    if report.is_interrupted:
        done = f"{len(report.by_domain)} of {len(report.domains)} domains"
        _echo(f"Interrupted: {done} were looked at.")
    elif report.status or not quiet:
        levels = [int(finding.level) for finding in report.findings]
        counts = [(len(report.domains), "domain"), (levels.count(2), "error")]
        counts.append((levels.count(1), "warning"))
        _echo(", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in counts))
    if not report.domains and not quiet and not report.is_interrupted:
        hint = "The database names no domain." if all_domains else "Name domains, or give --all."
        _echo(f"No domain was looked at. {hint}")


def _line(level: int, domain: str, width: int, text: str, advice: str) -> None:
    """Print one line; for a terminal, it is broken, and what to do has a line of its own."""
    word = click.style(f"{_WORDS[level]:<7}", fg=_COLORS[level])
    begin = f"  {_printable(domain) or '-':<{width}}  "
    text, advice = _printable(text), _printable(f"-> {advice}" if advice else "")
    if not sys.stdout.isatty():
        _echo(f"{word}{begin}{text} {advice}".rstrip())
        return
    columns = shutil.get_terminal_size().columns
    indent = " " * min(7 + len(begin), columns // 4)
    paragraphs = [
        textwrap.fill(
            part,
            max(columns, 20),
            initial_indent=first,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for part, first in ((text, "." * 7 + begin), (advice, indent))
        if part
    ]
    _echo(word + "\n".join(paragraphs)[7:])


def _printable(text: str) -> str:
    """Return a text that cannot move a terminal's cursor: parts of it come from strangers."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _echo(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "replace").decode(encoding)
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
