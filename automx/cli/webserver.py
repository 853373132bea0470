"""``automx web-server``: the configuration of a web server in front of automx."""

import re

import click

from automx import webserver
from automx.cli import names
from automx.cli.addresses import DOMAIN
from automx.cli.context import Context, pass_context
from automx.cli.dns import host_option, needed_public_host
from automx.cli.terminal import EXIT_STATUS, pass_on
from automx.lookup import find
from automx.webserver import Site


def _listens(_context: click.Context, _option: click.Parameter, text: str) -> str:
    """Read where automx listens; a text with other characters could end a line of a file."""
    match = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})", text, re.ASCII)
    if match is None or not 0 < int(match[2]) < 65536:
        raise click.BadParameter("expected HOST:PORT, such as 127.0.0.1:4243.")
    return text


listens_option = click.option(
    "--listens",
    metavar="HOST:PORT",
    default=webserver.LISTENS,
    show_default=True,
    callback=_listens,
    help="Where automx listens.",
)
with_domain_option = click.option(
    "--with-domain",
    "has_domains",
    is_flag=True,
    help="Answer at the mail domain itself, too: it leads to this web server in DNS, and has no"
    " configuration of its own.",
)


@click.command("web-server", epilog=EXIT_STATUS)
@click.argument("kind", type=click.Choice([*webserver.KINDS]))
@click.argument(
    "domains",
    type=DOMAIN,
    metavar="DOMAIN...",
    nargs=-1,
    required=True,
    shell_complete=names.of("domain"),
)
@host_option
@listens_option
@with_domain_option
@pass_context
def web_server(
    context: Context,
    /,
    kind: str,
    domains: tuple[str, ...],
    host: str | None,
    listens: str,
    has_domains: bool,
) -> None:
    """Print the configuration of a web server in front of automx.

    It is the file of contrib for nginx, Apache or Caddy, filled in for each DOMAIN. nginx and
    Apache take the certificate automx-1 of certbot.
    """
    name = needed_public_host(context, host)
    with context.session() as session:
        configs = [find(session, domain).config for domain in domains]
    site = Site(
        name,
        [*dict.fromkeys(config.domain for config in configs)],
        webserver.names_of(configs, name),
        listens=listens,
        has_domains=has_domains,
        account_path=webserver.path_of(context.settings.web_endpoint),
    )
    pass_on(webserver.configuration(kind, site))
