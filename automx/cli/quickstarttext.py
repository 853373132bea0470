"""What ``automx quickstart`` prints: lines of at most 80 columns, and documents for programs."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from automx import dns, installation, webserver
from automx.changes import Change, described
from automx.check.finding import Level
from automx.check.report import Report
from automx.cli.terminal import shortened, table
from automx.clientconfig import ClientConfig, ServerType
from automx.quickstart.search import Answer, Search, passed_over
from automx.quickstart.steps import Situation, Step
from automx.webserver import Site

EXIT_STATUS = (
    "Exit status: 0 if nothing is left to do, 1 if something could not be done (standard error says"
    " why), 2 if the command was not understood or nobody could be asked, 3 if all was done and"
    " something is left to do, as the list at the end says."
)
_COLUMNS = 80
_MOST_FAULTS = 6
_MOST_TROUBLES = 3
_VERBS = {"add": "Added", "set": "Changed", "delete": "Deleted"}


def wrapped(text: str, indent: str = "") -> str:
    """Return a sentence as lines."""
    return textwrap.fill(
        text,
        _COLUMNS,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def found(search: Search, servers: Sequence[Answer]) -> str:
    """Return the servers that were chosen, and what else was seen."""
    works, faulty = passed_over(search, servers)
    lines = []
    if servers:
        lines += ["", table([_row(answer) for answer in servers])]
        lines += [wrapped(f"{_name(a)}: {shortened(a.fault)}.", "  ") for a in servers if a.fault]
    if works:
        others = ", ".join(f"{_name(a)} ({a.server.socket_type})" for a in works)
        lines += ["", wrapped(f"Others that answer: {others}.", "  ")]
        if any(a.server.type is ServerType.POP3 for a in works):
            lines.append("The option --pop3 HOST adds a server of POP3.")
    if faulty:
        lines += ["", "Passed over:"]
        lines += [
            wrapped(f"  {_name(a)}: {shortened(a.fault)}", "    ") for a in faulty[:_MOST_FAULTS]
        ]
        if len(faulty) > _MOST_FAULTS:
            lines.append(f"  and {len(faulty) - _MOST_FAULTS} more")
    troubles = dict.fromkeys(search.troubles)
    lines += [wrapped(f"DNS: {text}.", "  ") for text in [*troubles][:_MOST_TROUBLES]]
    if not servers:
        lines.append(f"No mail server of {search.domain} was found.")
    return "\n".join([*lines, ""])


def _name(answer: Answer) -> str:
    server = answer.server
    return f"{server.type.upper()} {server.hostname}:{server.port}"


def _row(answer: Answer) -> tuple[str, ...]:
    server = answer.server
    until = f"certificate until {answer.not_after:%Y-%m-%d}" if answer.not_after else "not checked"
    where = (server.type.upper(), server.hostname, f"port {server.port}", server.socket_type)
    return (*where, until, f"({answer.source})")


def server_document(answer: Answer) -> dict[str, Any]:
    """Return a server that was found, for programs."""
    server = answer.server
    return {
        "type": server.type,
        "name": server.hostname,
        "port": server.port,
        "socket_type": server.socket_type,
        "authentication": server.authentication[0],
        "source": answer.source,
        "fault": answer.fault,
    }


def change(made: Change) -> str:
    """Return what was changed, in one line."""
    item = made.item
    more = ""
    if made.kind == "server":
        more = f": {item['type']}, port {item['port']}, {item['socket_type']}"
    return f"{_VERBS[made.action]} {described(made.kind, item)}{more}."


def records(situation: Situation, config: ClientConfig) -> str:
    """Return the records for the zone of the domain, as ``automx dns`` prints them."""
    host = situation.site.host
    zone = dns.zone(config, dns.records(config, host))
    if not situation.has_address:
        zone += f"; and an address (A, AAAA) for {host}: that of the web server\n"
    return f"\nRecords for the zone of {config.domain}:\n\n{zone.rstrip()}"


def web_server(kind: str, site: Site) -> str:
    """Return the configuration of the web server, with a head for people."""
    target = webserver.KINDS[kind].target
    return f"\nConfiguration of {kind}, for {target}:\n\n{webserver.configuration(kind, site)}"


def left(situation: Situation, steps: Sequence[Step]) -> str:
    """Return the steps that are left, numbered, each with its commands."""
    warnings = sum(finding.level is Level.WARNING for finding in situation.findings)
    lines = [""]
    if not steps:
        lines.append(f"Mail clients find {situation.domain}. Nothing is left to do.")
    else:
        lines.append("What is left to do:")
    for number, step in enumerate(steps, 1):
        lines += ["", wrapped(f"{number}. {step.text}", "   ")]
        lines += [line for command in step.commands for line in command_lines(command)]
    if warnings:
        text = "the warning above is" if warnings == 1 else f"the {warnings} warnings above are"
        page = installation.page("check.md")
        lines += ["", wrapped(f"Beside this, {text} worth a look: {page} explains them.")]
    page = f"https://{situation.site.host}/"
    lines += ["", wrapped(f"iPhone and Mac need a profile, which people get at {page}")]
    return "\n".join(lines)


def command_lines(command: str) -> Iterator[str]:
    """Yield a command, indented; a long one goes on after a backslash, as shells read it."""
    indent = "     "
    line = indent[:-1]
    parts: list[str] = []
    # A text in quotes stays whole.
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|[^ '"])+""", command):
        if parts and not re.match(r"-[-a-z]|&&|\|\||>", word):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    for part in parts:
        if len(line) + len(part) + 3 > _COLUMNS and line.strip():
            yield f"{line} \\"
            line = f"{indent} "
        line += f" {part}"
    yield line


def document(
    situation: Situation, config: ClientConfig, report: Report, steps: Sequence[Step]
) -> dict[str, Any]:
    """Return what is there and what is left, for programs."""
    kind, site = situation.web_server, situation.site
    configuration = webserver.configuration(kind, site) if kind else ""
    return {
        "public_host": site.host,
        "records": [record.document() for record in dns.records(config, site.host)],
        "web_server": {"kind": kind or None, "configuration": configuration},
        "findings": [entry.document() for entry in report.entries()],
        "left": [{"text": step.text, "commands": list(step.commands)} for step in steps],
    }
