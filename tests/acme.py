"""An authority of one's own on loopback: Pebble, an ACME server (RFC 8555) for tests."""

import contextlib
import json
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.nameserver import NameServer
from tests.processes import Running, free_port, listens, program, running
from tests.tls import Authority


@dataclass(frozen=True)
class Pebble:
    """A running Pebble.

    It asks at ``http_port`` and ``tls_port`` instead of 80 and 443. ``root`` is the authority of
    its own HTTPS; ``issued_by`` that of the certificates which it issues.
    """

    url: str
    root: Path
    issued_by: Path
    http_port: int
    tls_port: int
    program: Running = field(repr=False)

    @property
    def orders(self) -> int:
        """How many orders there have been."""
        return self.program.output.count("/order-plz")

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.issued_by)
        return context


@contextlib.contextmanager
def pebble(folder: Path, names: NameServer, http_port: int, tls_port: int) -> Iterator[Pebble]:
    """Run an authority that looks names up at a name server, and asks at two ports."""
    folder.mkdir()
    own = Authority(folder)
    certificate = own.issue("127.0.0.1")
    port, management = free_port(), free_port()
    configuration = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate.certificate),
        "privateKey": str(certificate.key),
        "httpPort": http_port,
        "tlsPort": tls_port,
    }
    file = folder / "pebble.json"
    file.write_text(json.dumps({"pebble": configuration}))
    command = [program("pebble", "pebble"), "-config", str(file), "-dnsserver", names.option]
    # It rejects some requests, and waits before it asks, unless it is told not to.
    env = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}

    def answers() -> bool:
        return listens(port) and listens(management)

    with running(command, folder / "pebble.log", ready=answers, env=env) as started:
        context = ssl.create_default_context(cafile=str(own.root))
        url = f"https://127.0.0.1:{management}/roots/0"
        with urllib.request.urlopen(url, context=context, timeout=30) as answer:
            root = folder / "issued-by.pem"
            root.write_bytes(answer.read())
        directory = f"https://127.0.0.1:{port}/dir"
        yield Pebble(directory, own.root, root, http_port, tls_port, started)
