"""A network between a program and a server, which a test can disturb."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path


class Weather(Enum):
    """What the network does with what the server says; requests are passed on."""

    CLEAR = "passes it on"
    SILENT = "keeps it back"
    DRIPPING = "passes on a byte at a time"
    GARBAGE = "says something else"


class Network:
    """Passes on connections from a port of loopback to a server's Unix socket."""

    def __init__(self, server: Path) -> None:
        self.weather = Weather.CLEAR
        self.connections = 0  # that are open
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port: int = self._listener.getsockname()[1]
        self._is_closed = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End all connections."""
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=[client]))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        """Pass on what both sides say until one of them has ended."""
        self.connections += 1
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server))
            while not self._is_closed:
                # Answers that are kept back stay with the server.
                is_silent = self.weather is Weather.SILENT
                ready, _, _ = select.select(
                    [client] if is_silent else [client, server], [], [], 0.1
                )
                for source in ready:
                    data = source.recv(1 if self._drips(source is server) else 65536)
                    if not data:
                        raise ConnectionError
                    if source is client:
                        server.sendall(data)
                        continue
                    if self.weather is Weather.GARBAGE:
                        data = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + data[::-1]
                    client.sendall(data)
                if self._drips(server in ready):
                    time.sleep(0.2)
        self.connections -= 1

    def _drips(self, is_answer: bool) -> bool:
        return is_answer and self.weather is Weather.DRIPPING


@contextlib.contextmanager
def network(server: Path) -> Iterator[Network]:
    """Run a network before a server's Unix socket until the block ends."""
    running = Network(server)
    try:
        yield running
    finally:
        running.close()
