"""The command line. The module of a command is imported when the command is run."""

import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from automx import __version__
from automx.cli import caller
from automx.cli.terminal import (
    INTERRUPTED,
    UNWRITABLE,
    PrintableFormatter,
    complain,
    complain_of_usage,
    drop_unwritten,
    end_line,
    prepare_streams,
)
from automx.errors import AutomxError

# Each command: "module:attribute", and its first sentence for ``automx --help``.
COMMANDS = {
    "account": ("account:account", "Make, show, change and delete accounts."),
    "apikey": ("apikey:apikey", "Make, list, rotate and revoke keys of the API."),
    "apply": ("apply:apply", "Make the database hold what FILE says."),
    "audit": ("audit:audit", "Print who changed what, and when."),
    "backup": ("backup:backup", "Write all that the database holds into FILE."),
    "check": ("check:check", "Check settings, database and domains as clients do."),
    "completion": ("completion:completion", "Print the script by which a shell completes words."),
    "config": ("config:config", "Print the effective settings and their sources."),
    "db": ("db:db", "Create, update and show the database schema."),
    "dclogin": ("dclogin:dclogin", "Make a QR code that logs Delta Chat in to ADDRESS."),
    "directory": ("rows:directory", "Add, list, show, change and delete directories (LDAP)."),
    "dns": ("dns:dns", "Print the DNS records for the zone of DOMAIN."),
    "dns-apply": ("dnsapply:dns_apply", "Write the DNS records of each DOMAIN into its zone."),
    "domain": ("domain:domain", "Add, show, change, link, disable and delete domains."),
    "export": ("seed:export", "Write a document that seeds an equal database."),
    "import-autoconfig": (
        "imports:import_autoconfig",
        "Import Autoconfig files: domains with their provider, servers and services.",
    ),
    "import-csv": (
        "imports:import_csv",
        "Import domains from a table in CSV: FILE, or - for standard input.",
    ),
    "import-mailadm": ("mailadm:import_mailadm", "Import tokens and users of mailadm."),
    "ldap": ("ldap:ldap", "Try the directories that know people's login names."),
    "mobileconfig-qr": ("dclogin:mobileconfig_qr", "Make a QR code of the profile of ADDRESS."),
    "names": ("hostnames:names", "Print the host names that clients ask, for certificates."),
    "prune": ("prune:prune", "Warn, disable, delete and clean up accounts."),
    "publish": (
        "publish:publish",
        "Write documents that are the same for everybody into DIR, for nginx.",
    ),
    "provider": ("rows:provider", "Add, list, show, change and delete providers."),
    "purge": ("seed:purge", "Delete all providers, domains and servers."),
    "quickstart": (
        "quickstart:quickstart",
        "Set up DOMAIN: find its mail servers, write rows, say what is left to do.",
    ),
    "restore": ("backup:restore", "Fill an empty database from a backup."),
    "seed": ("seed:seed", "Add the rows of a seed document."),
    "serve": ("serve:serve", "Answer mail clients until SIGTERM or Ctrl-C."),
    "server": ("rows:server", "Add, list, show, change and delete mail servers."),
    "service": ("rows:service", "Add, list, show, change and delete calendars and the like."),
    "show": ("show:show", "Print exactly what the client of ADDRESS would get."),
    "sync": ("sync:sync", "Add, change, disable and remove domains as sources say."),
    "token": ("token:token", "Make, print, change and withdraw tokens."),
    "web-server": (
        "webserver:web_server",
        "Print the configuration of a web server in front of automx.",
    ),
}


# Commands of mailadm, and what stands for them here.
MAILADM = {
    "add-token": "automx token add NAME",
    "mod-token": "automx token mod NAME",
    "del-token": "automx token revoke NAME, or automx token del NAME",
    "list-tokens": "automx token list",
    "gen-qr": "automx token qr NAME --output FILE.png",
    "add-user": "automx account add ADDRESS --token NAME",
    "del-user": "automx account del ADDRESS",
    "list-users": "automx account list",
    "init": "automx db upgrade, and the settings web_endpoint, mailcow_endpoint, mailcow_token",
    "web": "automx serve",
    "migrate-db": "automx import-mailadm MAILADM.DB",
    "gen-sysconfig": "the files automx.service and automx-prune.timer in the folder contrib",
    "setup-bot": "automx token, automx account; there is no bot",
}


class Commands(click.Group):
    """The group of all commands, loaded lazily (click: "Lazily Loading Subcommands")."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the program; each error is a line that begins alike, and a status (see terminal).

        A shell that completes words hears nothing of errors.
        """
        prepare_streams()
        if "_AUTOMX_COMPLETE" in os.environ:
            logging.disable()
        if logging.lastResort is not None:  # it writes the warnings of commands
            logging.lastResort.setFormatter(PrintableFormatter())
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        try:
            _become_user(args[0] if args else options.get("args"))
            status: Any = super().main(*args, **(options | {"standalone_mode": False}))
        except AutomxError as error:
            complain(error.reason)
            status = 1
        except click.ClickException as error:
            complain_of_usage(error)
            status = error.exit_code
        except click.Abort as error:
            is_interrupt = isinstance(error.__context__, KeyboardInterrupt)
            if is_interrupt or isinstance(error.__context__, EOFError):
                end_line()
            complain("interrupted" if is_interrupt else "aborted")
            status = INTERRUPTED if is_interrupt else 1
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            complain(f"the output cannot be written: {error.strerror}")
            status = 1
        finally:
            drop_unwritten()
        sys.exit(status)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, whose module is imported now; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"automx.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is asked for; a name of mailadm is answered with ours."""
        if args and args[0] in MAILADM:
            ctx.fail(f"{args[0]} is a command of mailadm. Here it is: {MAILADM[args[0]]}.")
        is_wrong = args and args[0] not in COMMANDS and not ctx.resilient_parsing
        if is_wrong and (near := get_close_matches(args[0].lower(), COMMANDS, 1)):
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin so, without an import."""
        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for ``--help`` without an import."""
        limit = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, click.Command(name, help=text).get_short_help_str(limit))
                    for name, (_, text) in COMMANDS.items()
                ]
            )

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error that automx raises on purpose is one line and status 1."""
        try:
            return super().invoke(ctx)
        except AutomxError as error:
            complain(error.reason)
            raise click.exceptions.Exit(1) from error
        except KeyboardInterrupt as error:
            raise click.Abort from error
        except UnicodeEncodeError as error:  # an argument holds odd bytes
            complain("an argument is no text in UTF-8")
            raise click.exceptions.Exit(1) from error


def _become_user(words: Sequence[str] | None) -> None:
    """Work as the user that AUTOMX_USER names; raises SettingsError. No words: those typed."""
    words = sys.argv[1:] if words is None else words
    if user := os.environ.pop(caller.VARIABLE, ""):
        name = next((word for word in words if not word.startswith("-")), "")
        caller.work_as(user, keeps_rights=name in caller.WITH_FILES)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="automx")
def main() -> None:
    """Set up every mail client from one database."""
