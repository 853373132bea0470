"""Bytes on a socket that no client sends: smuggling, bad framing, other protocols, too much.

Each is followed by a good request on the same connection. It is answered, or the connection ends;
what stands in a body is never answered as a request of its own.
"""

import contextlib
from collections.abc import Iterator

import pytest

from tests.documents import autodiscover_request, golden
from tests.hostile.mutations import SMUGGLED
from tests.hostile.requests import SCRIPT, faults
from tests.hostile.target import Target
from tests.hostile.wire import Answer, Connection

HOST = b"Host: example.com"
CHUNKED = b"Transfer-Encoding: chunked"
GET = b"GET /mail/config-v1.1.xml HTTP/1.1"
POST = b"POST /autodiscover/autodiscover.xml HTTP/1.1"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
REQUEST = autodiscover_request("alice@example.com").encode()
WHOLE_CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)

# What comes on a connection: statuses, and words for the answers to these two requests.
NEXT, SMUGGLED_ONE = "next", "smuggled"
Outcome = list[int | str]


def message(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""]) + body


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return message(POST, HOST, *headers, body=body)


def chunks(*lines: bytes) -> bytes:
    return post(CHUNKED, body=b"".join(lines))


def length(value: bytes, body: bytes = b"abc") -> bytes:
    return post(b"Content-Length: " + value, body=body)


SHAPES: dict[str, tuple[bytes, Outcome]] = {
    # Length and chunks: RFC 9112, sections 6 and 11.2.
    "length before chunks": (
        post(b"Content-Length: %d" % (5 + len(SMUGGLED)), CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
        [400],
    ),
    "length after chunks": (
        post(CHUNKED, b"Content-Length: %d" % (5 + len(SMUGGLED)), body=b"0\r\n\r\n" + SMUGGLED),
        [400],
    ),
    "a short length, and chunks": (
        post(b"Content-Length: 4", CHUNKED, body=WHOLE_CHUNK),
        [400],
    ),
    "two lengths": (
        post(b"Content-Length: 0", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), [400],
    ),
    "one length twice": (
        post(*[b"Content-Length: %d" % len(SMUGGLED)] * 2, body=SMUGGLED), [400, NEXT],
    ),
    "a list of lengths": (length(b"3, 3"), [400]),
    "a length with a plus": (length(b"+3"), [400]),
    "a length below zero": (length(b"-3"), [400]),
    "a length with spaces": (length(b"  3  "), [400, NEXT]),
    "a length with a space inside": (length(b"1 3"), [400]),
    "a length with zeros": (length(b"0003"), [400, NEXT]),
    "a length in hexadecimal digits": (length(b"0x3"), [400]),
    "a length with a fraction": (length(b"3.0"), [400]),
    "a length of other digits": (length("\uff13".encode()), [400]),
    "an empty length": (length(b""), [400]),
    "a length above 64 bits": (length(b"99999999999999999999"), [400]),
    "the longest length": (length(b"18446744073709551615"), [431]),
    "a length with a tab before the colon": (
        post(b"Content-Length\t: %d" % len(SMUGGLED), body=SMUGGLED), [400],
    ),
    "a length with a space before the colon": (
        post(b"Content-Length : %d" % len(SMUGGLED), body=SMUGGLED), [400],
    ),
    "a length with an underscore": (post(b"Content_Length: 3"), [400, NEXT]),
    "chunks by another name": (post(b"Transfer-Encoding: xchunked", body=SMUGGLED), [400]),
    "chunks and identity": (post(b"Transfer-Encoding: chunked, identity", body=SMUGGLED), [400]),
    "identity": (post(b"Transfer-Encoding: identity", body=SMUGGLED), [400]),
    "compressed chunks": (
        post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), [400, NEXT],
    ),
    "chunks twice": (post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), [400, NEXT]),
    "chunks with a vertical tab": (post(b"Transfer-Encoding: \x0bchunked", body=SMUGGLED), [400]),
    "chunks in quotation marks": (post(b'Transfer-Encoding: "chunked"', body=SMUGGLED), [400]),
    "chunks in capitals": (post(b"TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n"), [400, NEXT]),
    "chunks with an empty element": (
        post(b"Transfer-Encoding: chunked,", body=b"0\r\n\r\n"), [400],
    ),
    "chunks and a space before the colon": (
        post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED), [400],
    ),
    "chunks of HTTP/1.0": (
        message(POST.replace(b"1.1", b"1.0"), HOST, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED), [400],
    ),
    "a body of GET": (
        message(GET, HOST, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), [200, NEXT],
    ),
    "a body in chunks that nobody reads": (
        message(b"OPTIONS /healthz HTTP/1.1", HOST, CHUNKED,
                body=WHOLE_CHUNK),
        [200, NEXT],
    ),
    "a body at a path that is none": (
        message(b"POST /x HTTP/1.1", HOST, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        [404, NEXT],
    ),
    "a body that is refused": (
        message(b"POST /initdb/ HTTP/1.1", HOST, b"Content-Length: %d" % len(SMUGGLED),
                body=SMUGGLED),
        [403, NEXT],
    ),
    "a body too large": (length(b"70000", SMUGGLED + b"x" * (70_000 - len(SMUGGLED))), [413]),
    # Chunks: RFC 9112, section 7.1.
    "a chunk of no size": (chunks(b"zz\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk with an empty size": (chunks(b"\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk with a plus": (chunks(b"+2\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk below zero": (chunks(b"-2\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk with 0x": (chunks(b"0x2\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk above 64 bits": (chunks(b"10000000000000002\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk with a space": (chunks(b"2 \r\nab\r\n0\r\n\r\n"), [400, NEXT]),
    "a chunk that is longer than its size": (chunks(b"1\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk that is shorter than its size": (chunks(b"3\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk that ends by LF": (chunks(b"2\nab\n0\n\n"), [400]),
    "a chunk with an extension": (chunks(b'2;a="b;c"\r\nab\r\n0\r\n\r\n'), [400, NEXT]),
    "a chunk with a line break in its extension": (
        chunks(b"2;a=b\nab\r\n0\r\n\r\n" + SMUGGLED), [400],
    ),
    "a chunk with an extension of 100 kB": (
        chunks(b"2;" + b"a" * 100_000 + b"\r\nab\r\n0\r\n\r\n"), [400],
    ),
    "many chunks with extensions": (
        chunks(b"1;%s\r\na\r\n" % (b"a" * 1_000) * 40, b"0\r\n\r\n"), [400],
    ),
    "trailers": (chunks(b"2\r\nab\r\n0\r\nHost: evil.test\r\n\r\n"), [400]),
    "trailers of 100 kB": (chunks(b"2\r\nab\r\n0\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"), [400]),
    "the end of a chunk, twice": (chunks(b"0\r\n\r\n0\r\n\r\n"), [400, 400]),
    # Heads: RFC 9112, sections 2 to 5.
    "a folded header": (message(GET, HOST, b"X: a\r\n b"), [400]),
    "a folded length": (post(b"Content-Length:\r\n %d" % len(SMUGGLED), body=SMUGGLED), [400]),
    "a header before all, folded": (message(GET, b" X: a", HOST), [400]),
    "lines that end by LF": (b"GET /healthz HTTP/1.1\nHost: a\n\n", [NEXT, NEXT]),
    "lines that end by CR": (b"GET /healthz HTTP/1.1\rHost: a\r\r", [400]),
    "a CR in a header": (message(GET, HOST, b"X: a\rY: b"), [400]),
    "a LF in a header": (message(GET, HOST, b"X: a\nX-Forwarded-Host: evil.test"), [404, NEXT]),
    "empty lines before a request": (b"\r\n\r\n" + HEALTH, [NEXT, NEXT]),
    "a header without a colon": (message(GET, HOST, b"X"), [400]),
    "a header without a name": (message(GET, HOST, b": a"), [400]),
    "a header with a space in its name": (message(GET, HOST, b"X Y: a"), [400]),
    "a header with a NUL in its name": (message(GET, HOST, b"X\0: a"), [400]),
    "a header with a NUL": (message(GET, HOST, b"X: a\0b"), [400]),
    "a header with a control character": (message(GET, HOST, b"X: a\x1bb"), [400]),
    "a header that is not UTF-8": (message(GET, HOST, b"X: \xff\xfe\xc3"), [200, NEXT]),
    "a Host that is not UTF-8": (message(GET, b"Host: \xff\xfe"), [404, NEXT]),
    "a header name that is not ASCII": (message(GET, HOST, "Ü: a".encode()), [400]),
    "two spaces in the first line": (message(b"GET  /healthz HTTP/1.1", HOST), [400]),
    "a tab in the first line": (message(b"GET\t/healthz HTTP/1.1", HOST), [400]),
    "a space after the first line": (message(b"GET /healthz HTTP/1.1 ", HOST), [400]),
    "a space in the path": (message(b"GET /health z HTTP/1.1", HOST), [400]),
    "a NUL in the path": (message(b"GET /health\0z HTTP/1.1", HOST), [400]),
    "a NUL in the query": (message(b"GET /?address=\0 HTTP/1.1", HOST), [400]),
    "a control character in the path": (message(b"GET /\x1b[31m HTTP/1.1", HOST), [400]),
    "a control character in the query": (message(b"GET /?address=\x07 HTTP/1.1", HOST), [400]),
    "a delete in the path": (message(b"GET /\x7f HTTP/1.1", HOST), [400]),
    "a path that is not UTF-8": (message(b"GET /\xff\xfe HTTP/1.1", HOST), [400]),
    "a query that is not UTF-8": (message(b"GET /?address=\xff\xfe HTTP/1.1", HOST), [400]),
    "a path in UTF-8": (message("GET /ü HTTP/1.1".encode(), HOST), [404, NEXT]),
    "a NUL, percent-encoded": (message(b"GET /healthz%00 HTTP/1.1", HOST), [404, NEXT]),
    "a NUL in an address": (
        message(b"GET /mobileconfig?emailaddress=a%00@example.com HTTP/1.1", HOST), [400, NEXT],
    ),
    "slashes, percent-encoded": (message(b"GET %2fhealthz HTTP/1.1", HOST), [400]),
    "a line break, percent-encoded": (
        message(b"GET /x%0d%0aSet-Cookie:%20a HTTP/1.1", HOST), [404, NEXT],
    ),
    "bad UTF-8, percent-encoded": (message(b"GET /v1.1/%ff%c3 HTTP/1.1", HOST), [400, NEXT]),
    "half a percent-encoding": (message(b"GET /v1.1/%f%%g HTTP/1.1", HOST), [400, NEXT]),
    "a surrogate, percent-encoded": (
        message(b"GET /v1.1/%ed%a0%80.com HTTP/1.1", HOST), [400, NEXT],
    ),
    "a path of dots": (message(b"GET /../../%2e%2e/etc/passwd HTTP/1.1", HOST), [404, NEXT]),
    # Targets: RFC 9112, section 3.2.
    "an absolute target": (
        message(GET.replace(b" /", b" http://example.com/"), b"Host: evil.test"), [200, NEXT],
    ),
    "an absolute target of a foreign host": (
        message(GET.replace(b" /", b" http://evil.test/"), HOST), [404, NEXT],
    ),
    "an absolute target of a bad host": (
        message(GET.replace(b" /", b" http://xn--a/"), HOST), [400, NEXT],
    ),
    "an absolute target without a host": (
        message(GET.replace(b" /", b" http:///"), HOST), [400],
    ),
    "an absolute target with a user": (
        message(GET.replace(b" /", b" http://a:b@example.com/"), HOST), [200, NEXT],
    ),
    "an absolute target of another scheme": (
        message(GET.replace(b" /", b" gopher://example.com/"), HOST), [200, NEXT],
    ),
    "an absolute target in capitals": (
        message(GET.replace(b" /", b" HTTP://EXAMPLE.COM/"), HOST), [200, NEXT],
    ),
    "an absolute target with a bad port": (
        message(GET.replace(b" /", b" http://example.com:99999/"), HOST), [400, NEXT],
    ),
    "two slashes": (message(b"GET //evil.test/healthz HTTP/1.1", HOST), [404, NEXT]),
    "an authority": (message(b"CONNECT evil.test:443 HTTP/1.1", HOST), [404, NEXT]),
    "an authority of GET": (message(b"GET evil.test:443 HTTP/1.1", HOST), [200, NEXT]),
    "an asterisk": (message(b"OPTIONS * HTTP/1.1", HOST), [404, NEXT]),
    "an asterisk of GET": (message(b"GET * HTTP/1.1", HOST), [404, NEXT]),
    "a target without a slash": (message(b"GET healthz HTTP/1.1", HOST), [200, NEXT]),
    "a question mark": (message(b"GET ? HTTP/1.1", HOST), [400]),
    "no target": (message(b"GET HTTP/1.1", HOST), [400]),
    "a fragment": (message(b"GET /healthz#/static/page.js HTTP/1.1", HOST), [NEXT, NEXT]),
    # Methods.
    "TRACE": (message(b"TRACE /healthz HTTP/1.1", HOST, b"Cookie: a=b"), [405, NEXT]),
    "CONNECT": (message(b"CONNECT /healthz HTTP/1.1", HOST), [405, NEXT]),
    "small letters": (message(b"get /healthz HTTP/1.1", HOST), [400, NEXT]),
    "small letters, to delete all": (message(b"delete /initdb/ HTTP/1.1", HOST), [400, NEXT]),
    "an unknown method": (message(b"BREW /healthz HTTP/1.1", HOST), [405, NEXT]),
    "a method that is no word": (message(b"GE(T /healthz HTTP/1.1", HOST), [400]),
    "a method of 1 kB": (message(b"G" * 1_000 + b" /healthz HTTP/1.1", HOST), [405, NEXT]),
    "no method": (message(b" /healthz HTTP/1.1", HOST), [400]),
    # Headers that change the course of a request.
    "a client that waits for a word": (
        post(b"Expect: 100-continue", b"Content-Length: %d" % len(REQUEST), body=REQUEST),
        [200, NEXT],
    ),
    "a client that waits in vain": (
        message(GET, HOST, b"Expect: 100-continue"), [200, NEXT],
    ),
    "another expectation": (message(GET, HOST, b"Expect: 200-ok"), [200, NEXT]),
    "an upgrade to a web socket": (
        message(b"GET /healthz HTTP/1.1", HOST, b"Connection: Upgrade", b"Upgrade: websocket",
                b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        [400, NEXT],
    ),
    "an upgrade to HTTP/2": (
        message(b"GET /healthz HTTP/1.1", HOST, b"Connection: Upgrade, HTTP2-Settings",
                b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        [NEXT, NEXT],
    ),
    "a connection that names Host": (
        message(GET, HOST, b"Connection: keep-alive, Host"), [200, NEXT],
    ),
    # Other protocols.
    "HTTP/0.9": (b"GET /healthz\r\n", [400]),
    "HTTP/0.9 with a version": (message(b"GET /healthz HTTP/0.9", HOST), [400]),
    "HTTP/1.2": (message(b"GET /healthz HTTP/1.2", HOST), [400]),
    "HTTP/2": (message(b"GET /healthz HTTP/2", HOST), [400]),
    "http in lower case": (message(b"GET /healthz http/1.1", HOST), [400]),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, []),
    "a hello of TLS": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", [400],
    ),
    "a hello of SMTP": (b"EHLO example.com\r\nMAIL FROM:<a@example.com>\r\n\r\n", [400]),
    "the header of a proxy (PROXY)": (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + HEALTH, [400],
    ),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [400]),
    "zeros": (b"\0" * 1_000, [400]),
    "line breaks": (b"\r\n" * 1_000, [NEXT]),
    # Too much.
    "a head of 100 kB": (message(GET, HOST, *[b"X: " + b"x" * 990] * 100), [431]),
    "a header of 1 MB": (message(GET, HOST, b"X: " + b"x" * 1_000_000), [431]),
    "a header name of 70 kB": (message(GET, HOST, b"X" * 70_000 + b": a"), [431]),
    "a target of 100 kB": (message(b"GET /?a=" + b"x" * 100_000 + b" HTTP/1.1", HOST), [414]),
    "1,000 headers": (message(GET, HOST, *[b"X-%d: a" % n for n in range(1_000)]), [431]),
    "99 headers": (message(GET, HOST, *[b"X-%d: a" % n for n in range(98)]), [200, NEXT]),
    "99 headers of one name": (message(GET, HOST, *[b"X-Forwarded-For: a"] * 98), [200, NEXT]),
    "20,000 arguments": (message(b"GET /?" + b"a&" * 20_000 + b" HTTP/1.1", HOST), [200, NEXT]),
    "20,000 fields of a form": (
        message(b"POST /mobileconfig HTTP/1.1", HOST, b"Content-Length: 40000",
                b"Content-Type: application/x-www-form-urlencoded", body=b"a&" * 20_000),
        [400, NEXT],
    ),
    "20,000 parts of a form": (
        message(b"POST /mobileconfig HTTP/1.1", HOST, b"Content-Length: 60000",
                b"Content-Type: multipart/form-data; boundary=", body=b"--\r\n\r\n" * 10_000),
        [400, NEXT],
    ),
    # Several requests at once.
    "ten requests": (HEALTH * 10, [NEXT] * 11),
    "ten requests with bodies": (
        post(b"Content-Length: %d" % len(REQUEST), body=REQUEST) * 10, [*[200] * 10, NEXT],
    ),
    "ten requests, the sixth of which is none": (
        HEALTH * 5 + b"zz\r\n\r\n" + HEALTH * 4, [*[NEXT] * 5, 400],
    ),
    "ten requests, the sixth with two lengths": (
        HEALTH * 5 + post(b"Content-Length: 0", b"Content-Length: 5") + HEALTH * 4,
        [*[NEXT] * 5, 400],
    ),
    "ten requests, the sixth at a bad host": (
        HEALTH * 5 + message(GET, b"Host: a b") + HEALTH * 4, [*[NEXT] * 5, 400, *[NEXT] * 5],
    ),
    "ten requests, the sixth too large": (
        HEALTH * 5 + length(b"70000", b"x" * 70_000) + HEALTH * 4, [*[NEXT] * 5, 413],
    ),
    "ten requests, the sixth of which is the last": (HEALTH * 5 + LAST + HEALTH * 4, [NEXT] * 6),
}  # fmt: skip


def word(answer: Answer) -> int | str:
    if SCRIPT in answer.body:
        return SMUGGLED_ONE
    return NEXT if (answer.status, answer.body) == (200, b"ok\n") else answer.status


def outcome(found: Iterator[Answer]) -> Outcome:
    """Return what came; fail if an answer should not be, whatever was asked."""
    words: Outcome = []
    for answer in found:
        assert not list(faults(answer))
        words.append(word(answer))
    return words


def assert_answers(server: Target) -> None:
    """Check that a server answers the next client as ever."""
    with Connection(server.port) as connection:
        connection.send(message(GET, HOST, b"Connection: close"))
        documents = [answer.body.decode() for answer in connection.answers()]
        assert documents == [golden("example.autoconfig.xml")]


@pytest.mark.parametrize("name", SHAPES)
def test_bytes_that_no_client_sends_do_not_derange_a_connection(server: Target, name: str) -> None:
    data, expected = SHAPES[name]
    before = len(server.output)
    with Connection(server.port) as connection:
        connection.send(data + LAST)
        assert outcome(connection.answers()) == expected
    assert_answers(server)
    assert not server.faults(before)


# What a client begins and does not end, and how the server ends it.
SLOW: dict[str, tuple[bytes, Outcome]] = {
    "nothing": (b"", []),
    "half a first line": (b"GET /heal", []),
    "half a head": (message(GET, HOST)[:-2], []),
    "half a header": (message(GET, HOST)[:-9], []),
    "half a head after a request": (HEALTH + b"GET /", [NEXT]),
    "half a body": (length(b"5", b"ab"), [408]),
    "no body": (length(b"5", b""), [408]),
    "half a chunk": (chunks(b"5\r\nab"), [408]),
    "half the size of a chunk": (chunks(b"5"), [408]),
    "a chunk of the longest size": (chunks(b"ffffffffffffffff\r\nab\r\n"), [408]),
    "no last chunk": (chunks(b"2\r\nab\r\n"), [408]),
    "half a trailer": (chunks(b"2\r\nab\r\n0\r\nX: "), [408]),
    "a body of a petabyte": (length(b"1125899906842624", b"ab"), [413]),
    "half a seed": (
        message(b"POST /initdb/ HTTP/1.1", HOST, b"Content-Length: 70000", body=b"[" * 10), [403],
    ),
}  # fmt: skip


def test_what_is_begun_and_not_ended_is_ended_by_the_server(server: Target) -> None:
    before = len(server.output)
    with contextlib.ExitStack() as stack:
        waiting = {name: stack.enter_context(Connection(server.port)) for name in SLOW}
        for name, connection in waiting.items():
            connection.send(SLOW[name][0])
        assert_answers(server)
        found = {name: outcome(connection.answers()) for name, connection in waiting.items()}
    assert found == {name: expected for name, (_, expected) in SLOW.items()}
    assert not server.faults(before)


def test_a_head_that_comes_byte_by_byte_is_ended_by_the_server(server: Target) -> None:
    with Connection(server.port) as connection:
        connection.send(message(GET, HOST)[:-2])
        while connection.send(b"X") and not connection.says_something(0.3):
            pass
        assert outcome(connection.answers()) == []
    assert_answers(server)


@pytest.mark.parametrize("name", ["a request", "half a head", "half a body", "half a chunk"])
def test_a_client_that_closes_its_sending_side_ends_its_connection_only(
    server: Target, name: str
) -> None:
    """What was whole may be answered or not: docs/reliability.md."""
    data = {"a request": HEALTH} | {name: SLOW[name][0] for name in SLOW}
    before = len(server.output)
    with Connection(server.port) as connection:
        connection.send(data[name])
        connection.close_sending()
        assert outcome(connection.answers()) in ([], [400], [NEXT])
    assert_answers(server)
    assert not server.faults(before)
