"""Whether host names lead to this service, as an authority looks before it certifies them.

It connects to the address that DNS gives for the name (RFC 8555, section 8).
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial

from automx.check import queue
from automx.check.finding import Check, Finding
from automx.check.network import NameServerError, Network
from automx.errors import SettingsError


class Hosts:
    """Compares names with ``host``, the public name of this service, an A-label.

    ``make_network`` returns a Network; it remembers each answer, so each look at names has its own.
    Raises SettingsError if DNS gives no address for ``host``: then nothing can be said of names.
    """

    def __init__(self, host: str, make_network: Callable[[], Network]) -> None:
        self._host = host
        self._make_network = make_network
        try:
            self._addresses = frozenset(make_network().addresses(host))
        except NameServerError as error:
            raise SettingsError(f"{host} cannot be looked up: {error}") from error
        if not self._addresses:
            raise SettingsError(f"{host}, the public host of automx, has no address in DNS")

    def faults(self, names: Collection[str]) -> dict[str, str]:
        """Return for each name why it does not lead to the host, "" if it does.

        The look-ups run side by side, and end after (15 + number of names) times the timeout of the
        network.
        """
        network = self._make_network()
        found: dict[str, str] = {}
        checks: dict[str, Check] = {
            name: partial(self._check, network, name, found) for name in names
        }
        for _ in queue.run(checks, network.timeout * (15 + len(names))):
            pass
        return {name: found.get(name, "the look-up did not end in time") for name in names}

    def _check(self, network: Network, name: str, found: dict[str, str]) -> Iterator[Finding]:
        found[name] = self._fault(network, name)
        return iter(())

    def _fault(self, network: Network, name: str) -> str:
        """Return what faults() does for a name.

        One address that leads elsewhere is enough: an authority may take it.
        """
        if name == self._host:
            return ""
        try:
            if f"{self._host}." in map(str.lower, network.records(name, "CNAME")):
                return ""
            addresses = network.addresses(name)
        except NameServerError as error:
            return str(error)
        if not addresses:
            return "the name has no address"
        others = [address for address in addresses if address not in self._addresses]
        return f"it leads to {', '.join(others)}, not to {self._host}" if others else ""
