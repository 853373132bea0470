"""``automx quickstart``: the first domain, from nothing to a list of what is left to do."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import click

from automx import __version__, installation, lookup, migrations, webserver
from automx.changes import Changes
from automx.check.network import Network
from automx.check.report import Report
from automx.cli import check as doctor
from automx.cli import names, quickstarttext
from automx.cli.addresses import HOST_NAME, MAIL_DOMAIN, MAIL_HOST, SERVER
from automx.cli.context import Context, with_json
from automx.cli.dns import ca_file_option, name_server_option, public_host, timeout_option
from automx.cli.terminal import (
    agrees,
    ask,
    complain,
    confirm,
    pass_on,
    say_json,
    say_lines,
    with_progress,
)
from automx.cli.webserver import listens_option, with_domain_option
from automx.clientconfig import ClientConfig, ServerType
from automx.config import KEYS
from automx.database import IN_MEMORY, file_to_make, is_in_memory, is_missing, open_session
from automx.errors import ConflictError, DatabaseError
from automx.members import Item
from automx.quickstart import rows, steps, surroundings
from automx.quickstart.search import Answer, Place, Search, chosen, missing
from automx.quickstart.steps import Situation, Step
from automx.webserver import Site
from automx.words import SERVER_TYPES

_LEFT = 3  # exit status: all was done, and something is left to do
_TRIES = 5  # how often a host name is asked for
_PROGRAMS = {"nginx": "nginx", "apache2": "apache", "httpd": "apache", "caddy": "caddy"}
_NONE = "none"
_QUESTION = "Shall mail clients use these servers?"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
_SECONDS_OF_WORKERS = 3.0  # in which a server that runs sees a new domain


class Wishes(NamedTuple):
    """What options say; None and empty texts are found out, or asked for."""

    provider: str | None
    public_host: str | None
    web_server: str | None
    listens: str
    has_domains: bool


def _server_options(command: Any) -> Any:
    for option, text in (
        ("smtp", "Take this server for submission (SMTP)."),
        ("pop3", "Take this server for POP3."),
        ("imap", "Take this server for IMAP."),
    ):
        decorator = click.option(f"--{option}", type=SERVER, metavar="HOST[:PORT]", help=text)
        command = decorator(command)
    return click.option(
        "--mail-host",
        type=MAIL_HOST,
        metavar="HOST",
        help="Take this host for IMAP and submission.",
    )(command)


@click.command(epilog=quickstarttext.EXIT_STATUS)
@click.argument("domain", type=MAIL_DOMAIN)
@_server_options
@click.option(
    "--provider",
    metavar="NAME",
    shell_complete=names.of("provider"),
    help="Name of the operator of the mail servers, which people see; by default, that of DOMAIN.",
)
@click.option(
    "--public-host",
    type=HOST_NAME,
    metavar="NAME",
    help="Public host name of automx; by default the setting public_host, else automx.DOMAIN.",
)
@click.option(
    "--web-server",
    type=click.Choice([*webserver.KINDS, _NONE]),
    help="The web server in front of automx; by default, the one that is installed here.",
)
@listens_option
@with_domain_option
@timeout_option(
    "Seconds for each DNS query and for each connection. The search takes at most 4 times as"
    " long, the check 16 times."
)
@name_server_option
@ca_file_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_json
def quickstart(
    context: Context,
    /,
    domain: str,
    mail_host: tuple[str, int | None] | None,
    imap: tuple[str, int | None] | None,
    pop3: tuple[str, int | None] | None,
    smtp: tuple[str, int | None] | None,
    name_server: tuple[str, int],
    timeout: float,
    ca_file: str | None,
    yes: bool,
    **wishes: Any,
) -> None:
    """Set up DOMAIN: find its mail servers, write rows, say what is left to do.

    The servers are found in DNS, at usual host names, and by asking their ports. Then the doctor
    looks at the domain, and the missing DNS records, the configuration of the web server and the
    steps that are left are printed. It may be repeated: what is there already stays.
    """
    if not yes and not sys.stdin.isatty():
        complain("nobody can be asked here; say --yes to take what is found")
        raise click.exceptions.Exit(2)
    given = {
        type_: Place(*place)
        for type_, place in (
            (ServerType.IMAP, imap or mail_host),
            (ServerType.POP3, pop3),
            (ServerType.SMTP, smtp or mail_host),
        )
        if place
    }
    address, port = name_server
    network = Network(name_server=address, port=port, ca_file=ca_file, timeout=timeout)
    # What the log says of rows is among the findings of the doctor.
    logging.getLogger("automx").addHandler(logging.NullHandler())
    Quickstart(context, domain, network, Wishes(**wishes), asks=not yes).run(given)


class Quickstart:
    """One run of the command for a domain, an A-label; with ``asks``, a person is asked."""

    def __init__(
        self, context: Context, domain: str, network: Network, wishes: Wishes, *, asks: bool
    ) -> None:
        self._context = context
        self._domain = domain
        self._network = network
        self._wishes = wishes
        self._asks = asks

    def run(self, given: Mapping[ServerType, Place]) -> None:
        """Find, ask, write, check, and print. Raises click.exceptions.Exit with the status."""
        known = self._known()
        if known is None:
            found = self._find(given)
        else:
            found = []
            _compare(self._domain, known, given)
        host, kind = self._public_host(), self._web_server()
        changes = self._write(found) if found else []
        if not changes:
            self._say(f"Nothing was changed: the database has {self._domain} already.")
        situation, config, report = self._look(host, kind, is_new=bool(changes))
        left = steps.remaining(situation)
        status = _LEFT if left else 0
        if self._context.as_json:
            begin = {"version": __version__, "status": status, "domain": self._domain}
            servers = [quickstarttext.server_document(answer) for answer in found]
            document = {"found": servers, "changes": changes}
            document |= quickstarttext.document(situation, config, report, left)
            say_json(begin | document, ascii_only=True)
        else:
            self._show(situation, config, report, left)
        raise click.exceptions.Exit(status)

    def _say(self, text: str = "") -> None:
        if not self._context.as_json:
            say_lines(quickstarttext.wrapped(text))

    def _known(self) -> list[Item] | None:
        """Return the servers of the domain; None if the database does not hold it, or is new.

        A database of an older automx, or of automx2, is brought up to date before.
        """
        db_uri = self._context.settings.db_uri
        if is_in_memory(db_uri):
            raise DatabaseError(cause=IN_MEMORY)
        path = file_to_make(db_uri)
        if path is not None and is_missing(path):
            return None
        with open_session(db_uri) as session:
            is_usable = migrations.state(session.connection()).is_usable
            has_tables = is_usable or migrations.has_tables(session.connection())
        if not has_tables:
            return None
        if not is_usable:
            self._upgrade()
        with self._context.session() as session:
            known = rows.known_servers(session, self._domain)
            if known is not None:
                lookup.own_row(session, self._domain)  # refuses a domain that is switched off
        if known == []:
            raise ConflictError(
                f"the database has {self._domain} already, without a mail server: automx server add"
                " and automx domain link give it some"
            )
        return known

    def _upgrade(self) -> None:
        text = "The database belongs to an older automx, or to automx2"
        question = f"{text}. Bring it up to date (a backup first is wise)?"
        confirm("this would bring the database up to date", question=question, yes=not self._asks)
        for step in migrations.upgrade(self._context.settings.db_uri):
            self._say(f"Upgraded to {step.revision}: {step.title}")

    def _find(self, given: Mapping[ServerType, Place]) -> list[Answer]:
        """Return the servers that the person agrees to. Raises ClickException if there are none."""
        for _ in range(_TRIES):
            self._say(f"Looking for the mail servers of {self._domain}.")
            search = Search(self._domain, self._network, given)
            for _ in with_progress(search.run(), search.number):
                pass
            found = chosen(search)
            lacking = missing(found)
            if not self._context.as_json:
                say_lines(quickstarttext.found(search, found))
            if not lacking and (not self._asks or agrees(_QUESTION, default=True)):
                return found
            if not self._asks:
                break
            which = " and ".join(type_.upper() for type_ in lacking) or "mail"
            place = ask(f"Host name of the {which} server", SERVER)
            types = lacking or (ServerType.IMAP, ServerType.SMTP)
            given = {**given, **dict.fromkeys(types, Place(*place))}
        raise click.ClickException(
            f"no mail server of {self._domain} was found for every protocol: name it by"
            " --mail-host, or by --imap and --smtp"
        )

    def _public_host(self) -> str:
        known = public_host(self._context, self._wishes.public_host)
        default = f"automx.{self._domain}"
        if known or not self._asks:
            return known or default
        question = "Public host name of automx, where mail clients will ask it"
        host: str = ask(question, HOST_NAME, default)
        return host

    def _web_server(self) -> str:
        """Return the kind of web server, "" for none."""
        kind = self._wishes.web_server
        if kind is None:
            here = (kind for name, kind in _PROGRAMS.items() if shutil.which(name, path=_PATH))
            kind = next(here, _NONE)
            if self._asks:
                choice = click.Choice([*webserver.KINDS, _NONE])
                question = "Web server in front of automx"
                kind = ask(question, choice, kind)
        return "" if kind == _NONE else kind

    def _write(self, found: Sequence[Answer]) -> list[dict[str, Any]]:
        """Write the rows, all or none; return the changes as documents."""
        db_uri = self._context.settings.db_uri
        if migrations.upgrade(db_uri):
            shown = KEYS["db_uri"].show(db_uri)
            self._say(f"Made the tables of automx in {shown}.")
        with self._context.session() as session:
            changes = Changes(session, self._context.actor, now=self._context.now)
            servers = [answer.server for answer in found]
            rows.add(changes, self._domain, servers, self._wishes.provider)
            changes.finish()
        for change in changes.made:
            self._say(quickstarttext.change(change))
        return [change.document() for change in changes.made]

    def _look(
        self, host: str, kind: str, *, is_new: bool
    ) -> tuple[Situation, ClientConfig, Report]:
        """Return what the steps depend on, the settings of the domain, and the doctor's report."""
        with self._context.session() as session:
            config = lookup.find(session, self._domain).config
            others = surroundings.other_domains(session, self._domain)
        report = Report()
        doctor.examine(report, self._context, [self._domain], host, self._network)
        settings = self._context.settings
        is_large = len(others) >= surroundings.MOST_DOMAINS
        here = {} if is_large else surroundings.leading_here(self._network, host, others)
        site = Site(
            host,
            [self._domain, *here],
            [*webserver.names_of([config], host), *chain.from_iterable(here.values())],
            listens=self._wishes.listens,
            has_domains=self._wishes.has_domains,
            account_path=webserver.path_of(settings.web_endpoint),
        )
        file = settings.file if settings.file and settings.file.path.is_file() else None
        situation = Situation(
            self._domain,
            site,
            kind,
            settings,
            [finding for found in report.found.values() for finding in found],
            is_served=surroundings.is_served(
                self._network, site.listens, self._domain, _SECONDS_OF_WORKERS if is_new else 0
            ),
            has_address=surroundings.has_address(self._network, host),
            file=file,
            service=installation.service(file.path if file else None),
            is_large=is_large or len(site.certified()) > webserver.MAX_NAMES,
        )
        return situation, config, report

    def _show(
        self, situation: Situation, config: ClientConfig, report: Report, left: list[Step]
    ) -> None:
        if situation.needs_records() or not situation.has_address:
            say_lines(quickstarttext.records(situation, config))
        kind = situation.web_server
        if kind and any(step.is_web for step in left):
            pass_on(quickstarttext.web_server(kind, situation.site))
        self._say()
        doctor.print_report(report, quiet=True)
        say_lines(quickstarttext.left(situation, left))


def _compare(domain: str, known: Sequence[Item], given: Mapping[ServerType, Place]) -> None:
    """Raise ConflictError if a domain does not use the servers that a person names."""
    for type_, place in given.items():
        if not any(
            SERVER_TYPES[item["type"]] is type_
            and item["name"] == place.host
            and place.port in {None, item["port"]}
            for item in known
        ):
            raise ConflictError(
                f"the database has {domain} already, without the {type_.upper()} server"
                f" {place.host}: automx server set and automx domain link change it"
            )
