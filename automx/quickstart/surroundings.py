"""What stands around the first domain: other domains, the public host, automx as it runs here."""

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from time import sleep

from automx import dns, lookup
from automx.check import http
from automx.check.hosts import Hosts
from automx.check.network import NameServerError, Network, NetworkError
from automx.clientconfig import ClientConfig
from automx.database import Session
from automx.deadline import after, left
from automx.errors import AutomxError, SettingsError

MOST_DOMAINS = 33  # in one certificate, which has at most 100 names

_SAMPLE = re.compile(r"(^|\.)example\.(com|net|org)$")  # RFC 2606
_PAUSE = 0.2


def other_domains(session: Session, domain: str) -> list[ClientConfig]:
    """Return other domains that are on, at most MOST_DOMAINS; those of the sample do not count."""
    names = (name for _, name in lookup.enabled_domains(session))
    wanted = (name for name in names if name != domain and not _SAMPLE.search(name))
    found = []
    for name in islice(wanted, MOST_DOMAINS):
        with suppress(AutomxError):  # the doctor names its rows
            found.append(lookup.find(session, name).config)
    return found


def leading_here(
    network: Network, host: str, others: Sequence[ClientConfig]
) -> dict[str, list[str]]:
    """Return domains with those of their names that lead to the public host, if there are any."""
    names = {other.domain: dns.host_names(other.domain) for other in others}
    every = [name for some in names.values() for name in some]
    try:
        faults = Hosts(host, lambda: network).faults(every) if every else {}
    except SettingsError:  # DNS does not know the host yet
        return {}
    found = {domain: [name for name in some if not faults[name]] for domain, some in names.items()}
    return {domain: some for domain, some in found.items() if some}


def has_address(network: Network, host: str) -> bool:
    """Return whether DNS gives an address for a host."""
    try:
        return bool(network.addresses(host))
    except NameServerError:
        return False


def is_served(network: Network, listens: str, domain: str, seconds: float) -> bool | None:
    """Return whether automx, which listens at HOST:PORT, answers for a domain.

    None tells that nothing answers there. A server that runs gets some seconds to see a new domain.
    """
    query = f"emailaddress=automx-check@{domain}"
    urls = [f"http://{place}/mail/config-v1.1.xml?{query}" for place in _places(listens)]
    end = after(seconds)
    while True:
        answers = []
        for url in urls:
            with suppress(NetworkError):
                answers.append(http.ask(network, url))
        if not answers:
            return None
        is_known = any(each.status == 200 and b"<clientConfig" in each.body for each in answers)
        if is_known or not left(end):
            return is_known
        sleep(_PAUSE)


def _places(listens: str) -> list[str]:
    """Return HOST:PORT with the addresses of the host.

    As for the web server, /etc/hosts may know it, such as localhost.
    """
    host, _, port = listens.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in addresses]
