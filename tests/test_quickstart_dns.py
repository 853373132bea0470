"""``automx quickstart`` with name servers that answer what no name server should, or nothing."""

import contextlib
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from automx.check.network import Network
from automx.quickstart.search import Search
from tests.commandline import attempt
from tests.nameserver import _free_port

Answer = Callable[[dns.message.Message], Sequence[bytes]]
Stream = Callable[[socket.socket, dns.message.Message], object]


def response(query: dns.message.Message, *records: dns.rrset.RRset, rcode: int = 0) -> bytes:
    found = dns.message.make_response(query)
    found.set_rcode(dns.rcode.Rcode.make(rcode))
    found.answer.extend(records)
    return found.to_wire()


def truncated(query: dns.message.Message) -> list[bytes]:
    found = dns.message.make_response(query)
    found.flags |= dns.flags.TC
    return [found.to_wire()]


def next_alias(query: dns.message.Message) -> list[bytes]:
    """Return an alias of a name that is an alias as well, and so on without an end."""
    name = query.question[0].name
    return [response(query, dns.rrset.from_text(name, 60, "IN", "CNAME", f"x.{name}"))]


def of_wrong_number(query: dns.message.Message) -> list[bytes]:
    query.id ^= 1
    return [response(query)]


def drip(connection: socket.socket, _query: dns.message.Message) -> None:
    connection.sendall(struct.pack("!H", 60_000))
    while True:
        connection.sendall(b"x")


def wait(connection: socket.socket, _query: dns.message.Message) -> None:
    connection.recv(1)  # until the other side gives up


SILENT = "the name server did not answer in time"
# How it answers by UDP and TCP, and what is told.
SERVERS: dict[str, tuple[Answer, Stream | None, str]] = {
    "says nothing": (lambda _: [], None, SILENT),
    "fails": (lambda query: [response(query, rcode=2)], None, "answers SERVFAIL"),
    "refuses": (lambda query: [response(query, rcode=5)], None, "answers REFUSED"),
    "fails oddly": (lambda query: [response(query, rcode=3_841)], None, "the name server answers"),
    "sends garbage": (lambda _: [os.urandom(500)], None, SILENT),
    "sends too little": (lambda query: [query.to_wire()[:3]], None, SILENT),
    "sends the question": (lambda query: [query.to_wire()], None, SILENT),
    "answers others": (of_wrong_number, None, SILENT),
    "has no end of aliases": (next_alias, None, "the CNAME records form a loop"),
    "cuts answers off": (truncated, None, "the name server cannot be reached"),
    "cuts off, and is silent": (truncated, wait, SILENT),
    "cuts off, and drips": (truncated, drip, SILENT),
    "cuts off, and sends garbage": (
        truncated,
        lambda connection, _: connection.sendall(os.urandom(5_000)),
        "the name server cannot be reached",
    ),
}


@contextlib.contextmanager
def serving(answer: Answer, stream: Stream | None) -> Iterator[str]:
    """Run a name server; yield what ``--dns`` wants."""

    class Packet(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            for each in answer(dns.message.from_wire(data)):
                sock.sendto(each, self.client_address)

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            assert stream is not None
            size = struct.unpack("!H", self.request.recv(2))[0]
            with contextlib.suppress(OSError):  # the other side knows enough
                stream(self.request, dns.message.from_wire(self.request.recv(size)))

    port = _free_port()
    with contextlib.ExitStack() as stack:
        servers: list[socketserver.BaseServer] = [
            stack.enter_context(socketserver.ThreadingUDPServer(("127.0.0.1", port), Packet))
        ]
        if stream is not None:
            by_tcp = socketserver.ThreadingTCPServer(("127.0.0.1", port), Connection)
            servers.append(stack.enter_context(by_tcp))
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.02,)).start()
            stack.callback(server.shutdown)
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("options", [(), ("--mail-host", "mail.x.example")], ids=["", "named"])
def test_the_command_ends_and_tells_why(
    tmp_path: Path, server: str, options: tuple[str, ...]
) -> None:
    """The doctor, too, gets no answers, where servers are named and so rows are written."""
    answer, stream, told = SERVERS[server]
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{tmp_path}/automx.sqlite"}
    with serving(answer, stream) as at:
        command = ["quickstart", "x.example", "--yes", "--dns", at, "--timeout", "0.5", *options]
        result = attempt(*command, env=env)
    assert result.returncode == (3 if options else 1)
    assert told in " ".join(result.stdout.split())
    text = result.stdout + result.stderr
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert "this check itself failed" not in text


class BrokenNetwork(Network):
    """A network in which a step fails as it does by a bug."""

    def records(self, name: str, type_: str) -> list[str]:
        raise LookupError(name)


def test_a_step_of_the_search_that_fails_is_told() -> None:
    search = Search("x.example", BrokenNetwork(name_server="127.0.0.1", port=9, timeout=1))
    assert len([*search.run()]) == search.number
    assert "MX: this check itself failed: LookupError: x.example" in search.troubles
