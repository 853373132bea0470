"""What each mail client ends up with, in configurations like those of providers."""

import pytest

from automx.check.finding import Level
from automx.check.rows import check_config
from tests.clientrules import CLIENTS, configurations, table, table_of_docs

CONFIGURATIONS = configurations()
# Clients whose document is not one of several that they read.
SOLE = [c for c in CLIENTS if "Autodiscover" not in c.name and c.name != "PACC"]


def test_the_table_of_the_documentation_is_what_the_rules_give() -> None:
    """Run ``python -m tests.clientrules`` to write it."""
    assert table_of_docs() == table()


def test_there_are_thirty_configurations() -> None:
    assert len(CONFIGURATIONS) == 30


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_client_takes_a_plain_server_beside_an_encrypted_one(name: str) -> None:
    config = CONFIGURATIONS[name]
    encrypted = {server.type for server in config.mail_servers if not server.is_plain}
    if {"imap", "smtp"} <= encrypted:
        assert not [client.name for client in CLIENTS if "plain" in client.result(config)]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_doctor_warns_if_and_only_if_a_client_ends_up_with_nothing(name: str) -> None:
    config = CONFIGURATIONS[name]
    results = {client.name: client.result(config) for client in SOLE}
    has_failed = any(result.startswith("no: ") for result in results.values())
    is_warned = any(finding.level > Level.OK for finding in check_config(config))
    # IP addresses and ports that do not fit are a matter of records and of Autodiscover.
    assert is_warned == (has_failed or name in {"IPv6 addresses", "TLS on STARTTLS ports"}), results
