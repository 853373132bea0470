"""``automx dns``: the records that a domain's zone should have; options of the network."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from automx import dns as records
from automx.address import parse_domain
from automx.cli import names
from automx.cli.addresses import DOMAIN, HOST_NAME, NAME_SERVER
from automx.cli.context import Context, with_json
from automx.cli.terminal import pass_on, say_json
from automx.errors import SettingsError
from automx.lookup import find

_Command = TypeVar("_Command", bound=Callable[..., Any])

host_option = click.option(
    "--host",
    type=HOST_NAME,
    metavar="NAME",
    help="Public host name of automx, by default the setting public_host.",
)


class _Seconds(click.FloatRange):
    """A number in a range; NaN, which is neither below nor above, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of a text."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


def timeout_option(text: str) -> Callable[[_Command], _Command]:
    """Return the option for the seconds of each network step; ``text`` is its help."""
    return click.option(
        "--timeout",
        default=5.0,
        show_default=True,
        type=_Seconds(0.1, 120),
        help=text,
    )


ca_file_option = click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Authorities (PEM) to trust beside those of the system.",
)
name_server_option = click.option(
    "--dns",
    "name_server",
    type=NAME_SERVER,
    metavar="ADDRESS",
    default=("", 53),
    help="Ask this name server: an IP address, perhaps :PORT.",
)


def public_host(context: Context, option: str | None) -> str:
    """Return the public host name of automx as A-label, "" if it is not known."""
    if option:
        return option
    name = context.settings.public_host
    return parse_domain(name) if name else ""


def needed_public_host(context: Context, option: str | None) -> str:
    """Return the public host name as A-label; raises SettingsError if it is not known."""
    if name := public_host(context, option):
        return name
    raise SettingsError(
        "the public host name of automx is not known: give it by --host, or set public_host"
    )


@click.command
@click.argument("domain", type=DOMAIN, shell_complete=names.of("domain"))
@click.option("--format", "format_", type=click.Choice(["zone", "json"]), default="zone")
@host_option
@with_json
def dns(context: Context, domain: str, format_: str, host: str | None) -> None:
    """Print the DNS records for the zone of DOMAIN."""
    name = needed_public_host(context, host)
    with context.session() as session:
        config = find(session, domain).config
    found = records.records(config, name)
    if context.as_json or format_ == "json":
        say_json([record.document() for record in found])
    else:
        pass_on(records.zone(config, found))
