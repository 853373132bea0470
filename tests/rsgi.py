"""Requests of RSGI without a server."""

from collections.abc import Sequence
from dataclasses import dataclass


class Headers:
    """Headers as granian gives them: a value None stands for one that is not ASCII."""

    def __init__(self, pairs: Sequence[tuple[str, str | None]] = ()) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def keys(self) -> list[str]:
        return [*dict(self.pairs)]

    def items(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.pairs if value is not None]

    def get_all(self, wanted: str) -> list[str]:
        return [value for name, value in self.items() if name == wanted]


@dataclass
class Request:
    """A request; ``answer`` is what it was answered."""

    path: str = "/"
    query_string: str = ""
    headers: Headers = Headers()  # noqa: RUF009 - it is never changed
    method: str = "GET"
    authority: str | None = None
    http_version: str = "1.1"
    server: str = "127.0.0.1:4243"
    client: str = "192.0.2.100:5000"
    scheme: str = "http"
    body: bytes = b""
    answer: tuple[int, list[tuple[str, str]], bytes] = (0, [], b"")

    async def __call__(self) -> bytes:
        return self.body

    def __aiter__(self) -> "Request":
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def client_disconnect(self) -> None:
        return None

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answer = status, headers, body
