"""``automx names``: the host names that lead to this service, for certificates."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import click

from automx.check.hosts import Hosts
from automx.check.network import Network
from automx.cli import names as completion
from automx.cli.addresses import DOMAIN
from automx.cli.context import Context, with_json
from automx.cli.dns import (
    host_option,
    name_server_option,
    needed_public_host,
    public_host,
    timeout_option,
)
from automx.cli.terminal import complain, say, say_json_list, say_lines
from automx.database import Session, chunks
from automx.dns import SERVICE_HOSTS, host_names
from automx.lookup import enabled_domains, own_row
from automx.webserver import MAX_NAMES

# The domains that have as many names as one certificate, beside the public host.
_DOMAINS = (MAX_NAMES - 1) // len(SERVICE_HOSTS)

_AT_ONCE = 200  # domains whose names are looked up side by side


class _Entry(NamedTuple):
    """Host names of a domain, or the public host, and the number of their certificate."""

    number: int
    names: Sequence[str]


@click.command
@click.argument(
    "domains", nargs=-1, type=DOMAIN, metavar="[DOMAIN]...", shell_complete=completion.of("domain")
)
@click.option("--all", "all_domains", is_flag=True, help="All domains, and the public host.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["plain", "certbot"]),
    default="plain",
    show_default=True,
    help="A name on each line, or the arguments of certbot for a certificate on each line.",
)
@click.option("--resolving", is_flag=True, help="Only names that lead to the public host in DNS.")
@timeout_option("Seconds for each DNS query of --resolving.")
@name_server_option
@host_option
@with_json
def names(
    context: Context,
    /,
    domains: tuple[str, ...],
    all_domains: bool,
    format_: str,
    resolving: bool,
    timeout: float,
    name_server: tuple[str, int],
    host: str | None,
) -> None:
    """Print the host names that clients ask, for certificates.

    They are those of enabled domains. With --all, each certificate of certbot keeps its name, and
    a new domain changes one certificate only.

    Exit status: 0, even if --resolving leaves names out; standard error says which, and why.
    """
    if bool(domains) == all_domains:
        raise click.UsageError("Name either domains or --all.")
    hosts = None
    if resolving:
        make = partial(Network, name_server=name_server[0], port=name_server[1], timeout=timeout)
        hosts = Hosts(needed_public_host(context, host), make)
    service = public_host(context, host)
    with context.session() as session:
        entries = _all(session, service) if all_domains else _given(session, domains)
        if hosts is not None:
            entries = _leading(session, entries, hosts)
        if context.as_json:
            say_json_list(_certificates(entries, has_names=all_domains))
        elif format_ == "plain":
            for some in chunks(entries, 1_000 if hosts is None else 1):
                say_lines("\n".join(name for entry in some for name in entry.names))
        else:
            _print_for_certbot(entries, has_names=all_domains)


def _all(session: Session, service: str) -> Iterator[_Entry]:
    """Yield the public host, and the domains of the database in the order of their rows.

    The number of a certificate depends on the id of the row alone: a domain that is deleted moves
    no other one to another certificate.
    """
    if service:
        yield _Entry(1, [service])
    for row_id, domain in enabled_domains(session):
        if found := [name for name in host_names(domain) if name != service]:
            yield _Entry((row_id - 1) // _DOMAINS + 1, found)


def _given(session: Session, domains: Sequence[str]) -> Iterator[_Entry]:
    """Yield domains, each once.

    All of them are looked up first. Raises UnknownDomainError as own_row().
    """
    wanted = list(dict.fromkeys(domains))
    for domain in wanted:
        own_row(session, domain)
    for index, domain in enumerate(wanted):
        if found := host_names(domain):
            yield _Entry(index // _DOMAINS, found)
        else:
            complain(f"no authority certifies names of {domain}")


def _leading(session: Session, entries: Iterable[_Entry], hosts: Hosts) -> Iterator[_Entry]:
    """Yield those names of entries that lead to this service; tell which do not."""
    for some in chunks(entries, _AT_ONCE):
        session.rollback()  # no transaction stays open while name servers are asked
        faults = hosts.faults([name for entry in some for name in entry.names])
        for name, fault in faults.items():
            if fault:
                complain(f"{name} is left out: {fault}")
        for entry in some:
            if found := [name for name in entry.names if not faults[name]]:
                yield entry._replace(names=found)


def _print_for_certbot(entries: Iterable[_Entry], *, has_names: bool) -> None:
    """Print a line of arguments for each certificate; ``has_names`` gives each its own name.

    Without a name, certbot takes the first host.
    """
    for found in _certificates(entries, has_names=has_names):
        arguments = [f"--cert-name {found['certificate']}"] if has_names else []
        say(" ".join([*arguments, *(f"-d {name}" for name in found["names"])]))


def _certificates(entries: Iterable[_Entry], *, has_names: bool) -> Iterator[dict[str, Any]]:
    """Yield each certificate: its name, None without ``has_names``, and its host names."""
    for number, some in groupby(entries, lambda entry: entry.number):
        found = dict.fromkeys(name for entry in some for name in entry.names)
        yield {"certificate": f"automx-{number}" if has_names else None, "names": [*found]}
