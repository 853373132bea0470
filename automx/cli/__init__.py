"""The command line. Heavy imports wait inside the commands, so that ``automx --help`` is quick."""

import click

from automx import __version__
from automx.cli.account import account
from automx.cli.check import check
from automx.cli.config import config
from automx.cli.db import db
from automx.cli.dclogin import dclogin, mobileconfig_qr
from automx.cli.dns import dns
from automx.cli.ldap import ldap_
from automx.cli.mailadm import import_mailadm
from automx.cli.prune import prune
from automx.cli.seed import export, purge, seed
from automx.cli.serve import serve
from automx.cli.show import show
from automx.cli.text import complain, reason
from automx.cli.token import token
from automx.errors import AutomxError


class Commands(click.Group):
    """Tells errors that automx raises on purpose in one line: status 1, no traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except AutomxError as error:
            complain(reason(error))
            raise click.exceptions.Exit(1) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="automx")
def main() -> None:
    """Set up every mail client from one database."""


COMMANDS = (
    account, check, config, db, dclogin, dns, export, import_mailadm, ldap_, mobileconfig_qr,
    prune, purge, seed, serve, show, token,
)  # fmt: skip

for command in COMMANDS:
    main.add_command(command)
