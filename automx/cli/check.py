"""``automx check``: the doctor."""

import logging
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import click

from automx import __version__
from automx import check as doctor
from automx.address import parse_domain
from automx.check import Finding, Level
from automx.check.finding import WORDS
from automx.cli.context import Context, json_option, pass_context
from automx.config import Settings
from automx.dns import is_host_name
from automx.errors import AutomxError

_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
_INTERRUPTED = 130  # what a shell calls a program that Ctrl-C has ended

_TIMEOUT = """Seconds for each DNS query and for each connection. With N domains, the whole run
takes at most (15 + N) times as long."""


@dataclass
class _Report:
    """The findings so far; ``domains`` are those of the command line."""

    domains: list[str] = field(default_factory=list)
    common: list[Finding] = field(default_factory=list)
    by_domain: dict[str, list[Finding]] = field(default_factory=dict)
    is_interrupted: bool = False

    @property
    def findings(self) -> list[Finding]:
        """All findings: those of no domain first, then domain by domain, the worst first."""
        parts = [self.common, *(self.by_domain.get(domain, []) for domain in self.domains)]
        return [finding for part in parts for finding in sorted(part, key=lambda f: -f.level)]

    @property
    def status(self) -> int:
        """The exit status."""
        return max((finding.level for finding in self.findings), default=0)

    def document(self) -> dict[str, object]:
        """Return the report for programs."""
        return {
            "version": __version__,
            "status": self.status,
            "complete": not self.is_interrupted,
            "domains": self.domains,
            "findings": [finding.document() for finding in self.findings],
        }


@click.command
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--all", "all_domains", is_flag=True, help="Look at all domains of the database.")
@json_option
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
@pass_context
def check(
    context: Context,
    domains: tuple[str, ...],
    all_domains: bool,
    quiet: bool,
    timeout: float,
    name_server: str | None,
    host: str | None,
    ca_file: str | None,
) -> None:
    """Check settings, database and domains as clients do.

    Each DOMAIN is asked by DNS, HTTPS and the protocols of mail, as mail clients ask it.

    Without DOMAIN and --all, no network is used.

    Exit status: 0 all is well, 1 there are warnings, 2 there are errors.
    """
    if domains and all_domains:
        raise click.UsageError("Name either domains or --all.")
    address, port = _name_server(name_server)
    report = _Report()
    with _errors_in(report):
        settings = context.settings
        service = _host(host, settings)
        network = doctor.Network(
            name_server=address, port=port, ca_file=ca_file or "", timeout=timeout
        )
        report.common += doctor.check_settings(settings, network.now)
        with _silent_log(), context.session() as session:
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
    if context.as_json:
        context.write_json(report.document(), ascii_only=True)  # a text may hold anything
    else:
        _print(report, quiet=quiet, all_domains=all_domains)
    sys.exit(_INTERRUPTED if report.is_interrupted else report.status)


@contextmanager
def _errors_in(report: _Report) -> Iterator[None]:
    """Turn an error that ends the work into a finding, so that earlier findings are printed."""
    try:
        yield
    except AutomxError as error:
        subject = "database" if error.status == 503 else "settings"
        advice = "nothing else was looked at"
        report.common.append(Finding("", Level.ERROR, subject, error.reason, advice))
    except KeyboardInterrupt:
        report.is_interrupted = True
    except Exception as error:  # status 1, Python's own, would be taken for warnings
        traceback.print_exc()
        text = f"this check itself failed: {type(error).__name__}: {error}"
        report.common.append(Finding("", Level.ERROR, "automx check", text, "please report this"))


@contextmanager
def _silent_log() -> Iterator[None]:
    """Silence the log: its messages about rows are among the findings."""
    logger = logging.getLogger("automx")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _progress(length: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal; yield the function that advances it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=length, label="Checking", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _host(text: str | None, settings: Settings) -> str:
    """Return the public host name of this service as A-label, "" if it is not known."""
    text = text or settings.public_host
    name = parse_domain(text) if text else ""
    return name if is_host_name(name) else ""


def _name_server(text: str | None) -> tuple[str, int]:
    """Return address and port of a name server, ("", 53) for those of the system."""
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


def _print(report: _Report, *, quiet: bool, all_domains: bool) -> None:
    """Print a line for each finding, and for whatever is in order, and their numbers."""
    width = max((min(len(domain), 40) for domain in report.domains), default=1)
    blocks = [("", report.common)]
    blocks += [(domain, report.by_domain.get(domain, [])) for domain in report.domains]
    for domain, found in blocks:
        if not found and not quiet and (not domain or domain in report.by_domain):
            text = "everything is in order" if domain else "settings and database are in order"
            _line(Level.OK, domain, width, text, "")
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


def _line(level: Level, domain: str, width: int, text: str, advice: str) -> None:
    """Print one line; for a terminal, it is broken, and what to do has a line of its own."""
    word = click.style(f"{WORDS[level]:<7}", fg=_COLORS[level])
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
