"""A network between a program and a server, which a test can disturb."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

# What stands at the port of another service: it is valid HTTP, and in no other protocol.
HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


class Weather(Enum):
    """What the network does with what the server says; requests are passed on."""

    CLEAR = "passes it on"
    SILENT = "keeps it back"
    DRIPPING = "passes on a byte at a time"
    GARBAGE = "says something else"
    CUT = "passes on the first half, and closes the connection"
    REFUSING = "refuses connections, and closes those that are open"


class Network:
    """Passes on connections from a port of loopback to a server: its Unix socket or its port.

    ``garbage`` is what is said instead of the server's words; these follow backwards.
    """

    def __init__(self, server: Path | int, garbage: bytes = HTTP) -> None:
        self.connections = 0  # that are open
        self._server = server
        self._garbage = garbage
        self._weather = Weather.CLEAR
        self._is_closed = False
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    @property
    def weather(self) -> Weather:
        """What the network does at the moment; it may be set."""
        return self._weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        before, self._weather = self._weather, weather
        if Weather.REFUSING in {before, weather} and before is not weather:
            if weather is Weather.REFUSING:
                self._stop_listening()
            else:
                self._listen(self.port)

    def close(self) -> None:
        """End all connections."""
        self._is_closed = True
        self._stop_listening()
        for thread in self._threads:
            thread.join(30)

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=500)
        self._accepting = threading.Thread(target=self._accept, args=[self._listener], daemon=True)
        self._accepting.start()

    def _stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._threads.append(
                    threading.Thread(target=self._serve, args=[client], daemon=True)
                )
                self._threads[-1].start()

    def _connected(self) -> socket.socket:
        if isinstance(self._server, int):
            return socket.create_connection(("127.0.0.1", self._server), 30)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server))
        return server

    def _count(self, more: int) -> None:
        with self._lock:
            self.connections += more

    def _serve(self, client: socket.socket) -> None:
        """Pass on what both sides say until one of them has ended."""
        self._count(1)
        with client, contextlib.suppress(OSError), self._connected() as server:
            while not self._is_closed and self.weather is not Weather.REFUSING:
                # Answers that are kept back stay with the server.
                is_silent = self.weather is Weather.SILENT
                ready, _, _ = select.select(
                    [client] if is_silent else [client, server], [], [], 0.1
                )
                for source in ready:
                    self._pass_on(source, client, server)
                if self.weather is Weather.DRIPPING and server in ready:
                    time.sleep(0.2)
        self._count(-1)

    def _pass_on(self, source: socket.socket, client: socket.socket, server: socket.socket) -> None:
        weather = self.weather
        drips = weather is Weather.DRIPPING and source is server
        data = source.recv(1 if drips else 65536)
        if not data:
            raise ConnectionError
        if source is client:
            server.sendall(data)
        elif weather is Weather.GARBAGE:
            client.sendall(self._garbage + data[::-1])
        elif weather is Weather.CUT:
            client.sendall(data[: len(data) // 2])
            raise ConnectionError
        else:
            client.sendall(data)


@contextlib.contextmanager
def network(server: Path | int, garbage: bytes = HTTP) -> Iterator[Network]:
    """Run a network before a server's Unix socket or port until the block ends."""
    running = Network(server, garbage)
    try:
        yield running
    finally:
        running.close()
