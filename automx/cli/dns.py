"""``automx dns``: the records that a domain's zone should have."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from automx.dns import Record


@click.command
@click.argument("domain")
@click.option("--format", "format_", type=click.Choice(["zone", "json"]), default="zone")
@click.option("--host", help="Public host name of automx, by default the setting public_host.")
def dns(domain: str, format_: str, host: str | None) -> None:
    """Print the DNS records of DOMAIN, ready to paste into its zone."""
    from automx import dns as records
    from automx.address import parse_domain
    from automx.config import load
    from automx.database import open_session
    from automx.errors import SettingsError
    from automx.lookup import find

    settings = load()
    text = host or settings.public_host
    name = parse_domain(text) if text else ""
    if not name or not records.is_host_name(name):
        raise SettingsError(
            "under which host name do clients reach automx? Give it by --host, or set public_host"
        )
    with open_session(settings.db_uri) as session:
        config = find(session, parse_domain(domain)).config
    found = records.records(config, name)
    if format_ == "json":
        click.echo(json.dumps([_as_dict(record) for record in found], indent=2))
    else:
        click.echo(records.zone(config, found), nl=False)


def _as_dict(record: "Record") -> dict[str, object]:
    from automx.dns import TTL

    return {"name": record.name, "ttl": TTL, "type": record.type, "data": record.data}
