"""``automx check``: the doctor."""

import json
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from automx.check import Finding
    from automx.config import Settings

_COLORS = ("green", "yellow", "red")
_WORDS = ("ok", "warning", "error")


@click.command
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--all", "all_domains", is_flag=True, help="Look at all domains of the database.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--timeout", default=5.0, show_default=True, help="Seconds for each step.")
@click.option("--dns", "name_server", help="Ask this name server: an IP address, perhaps :PORT.")
@click.option("--host", help="Public host name of automx, by default that of web_endpoint.")
@click.option("--ca-file", type=click.Path(exists=True), help="Authorities (PEM) to trust.")
def check(
    domains: tuple[str, ...],
    all_domains: bool,
    as_json: bool,
    timeout: float,
    name_server: str | None,
    host: str | None,
    ca_file: str | None,
) -> None:
    """Look at the database, and at each DOMAIN as mail clients see it.

    Exit status: 0 all is well, 1 there are warnings, 2 there are errors.
    """
    if bool(domains) == all_domains and domains:
        raise click.UsageError("Name either domains or --all.")
    from automx import check as doctor
    from automx import ldap
    from automx.address import parse_domain
    from automx.config import load
    from automx.lookup import known_domains
    from automx.models import open_session

    settings = load()
    options = ldap.options(settings)
    address, port = _name_server(name_server)
    network = doctor.Network(name_server=address, port=port, ca_file=ca_file or "", timeout=timeout)
    with open_session(settings.db_uri) as session:
        findings = doctor.check_rows(session)
        names = list(known_domains(session)) if all_domains else [parse_domain(d) for d in domains]
        targets = doctor.load_targets(session, names, options)
    by_domain: dict[str, list[doctor.Finding]] = {}
    work = doctor.check_domains(
        targets,
        network,
        host=host or urlsplit(settings.web_endpoint).hostname or "",
        ldap_options=options,
    )
    with click.progressbar(
        work, length=len(targets), label="Checking", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as progress:
        by_domain.update(progress)
    findings += [finding for name in names for finding in by_domain[name]]
    findings += _signing(settings)
    if as_json:
        click.echo(json.dumps([_as_dict(finding) for finding in findings], indent=2))
    else:
        _table(findings, len(names))
    sys.exit(max((finding.level for finding in findings), default=0))


def _name_server(text: str | None) -> tuple[str, int]:
    """Return address and port of a name server, ("", 53) for those of the system."""
    from ipaddress import ip_address

    host, colon, port = (text or "").rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):  # an IPv6 address has colons
        host, port = text or "", "53"
    host = host.strip("[]")
    try:
        if host:
            ip_address(host)
        return host, int(port)
    except ValueError:
        text = "expected an IP address, perhaps with a port"
        raise click.BadParameter(text, param_hint="--dns") from None


def _signing(settings: "Settings") -> "list[Finding]":
    """Return what is wrong with the certificate that profiles are signed with."""
    from datetime import UTC, datetime

    from automx.check import Finding, Level
    from automx.errors import SettingsError

    if not settings.signing_certificate:
        return []
    from automx.signing import files

    subject = "signing_certificate"
    try:
        trouble = files(settings).read().trouble(datetime.now(UTC))
    except SettingsError as error:
        return [Finding("", Level.ERROR, subject, str(error), "correct the setting or the file")]
    if not trouble:
        return []
    return [Finding("", Level.WARNING, subject, trouble, "renew the certificate")]


def _as_dict(finding: "Finding") -> dict[str, str]:
    return {
        "domain": finding.domain,
        "level": _WORDS[finding.level],
        "subject": finding.subject,
        "text": finding.text,
        "advice": finding.advice,
    }


def _table(findings: "list[Finding]", number: int) -> None:
    """Print the findings of each domain below its name, the worst first."""
    domain = None
    for finding in findings:
        if finding.domain != domain:
            domain = finding.domain
            click.secho(domain or "Database and settings", bold=True)
        word = click.style(f"{_WORDS[finding.level]:<8}", fg=_COLORS[finding.level])
        click.echo(f"  {word} {finding.subject}: {finding.text}")
        if finding.advice:
            click.echo(f"           -> {finding.advice}")
    errors = sum(finding.level == 2 for finding in findings)
    warnings = sum(finding.level == 1 for finding in findings)
    domains = f"{number} domain{'s' * (number != 1)}"
    click.echo(f"{domains}, {errors} error{'s' * (errors != 1)}, ", nl=False)
    click.echo(f"{warnings} warning{'s' * (warnings != 1)}")
