"""Marionette, the remote control built into Mozilla programs (protocol version 3).

Each message is its length in octets, a colon, and JSON: a command ``[0, id, name, parameters]``,
an answer ``[1, id, error, result]``.
"""

import json
import socket
from types import TracebackType
from typing import Any, Self


class MarionetteError(Exception):
    """The program could not do what it was told."""


class Marionette:
    """A connection to the Marionette port of a Mozilla program, in its privileged context."""

    def __init__(self, port: int, *, seconds: float = 120) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._stream = self._socket.makefile("rb")
        self._commands = 0
        self._receive()  # the greeting
        session = self.command("WebDriver:NewSession", capabilities={})
        self.capabilities: dict[str, Any] = session["capabilities"]
        self.command("Marionette:SetContext", value="chrome")
        self.command("WebDriver:SetTimeouts", script=int(seconds * 1000))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def command(self, name: str, **parameters: object) -> Any:
        """Send a command and return its result; raises MarionetteError if it failed."""
        self._commands += 1
        message = json.dumps([0, self._commands, name, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, number, error, result = self._receive()
        if number != self._commands:
            raise MarionetteError(f"answer to command {number}, not to {self._commands}")
        if error is not None:
            raise MarionetteError(f"{error['error']}: {error['message']}\n{error['stacktrace']}")
        return result

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an asynchronous function with privileges; return what it resolves to.

        The script finds ``arguments`` as WebDriver defines it: the last one is the callback.
        """
        result = self.command(
            "WebDriver:ExecuteAsyncScript",
            script=script,
            args=arguments,
            sandbox="system",
            newSandbox=True,
        )
        return result["value"]

    def _receive(self) -> Any:
        length = b""
        while (octet := self._stream.read(1)) != b":":
            if not octet:
                raise MarionetteError("the program closed the connection")
            length += octet
        return json.loads(self._stream.read(int(length)))
