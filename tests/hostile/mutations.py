"""Mutations: what becomes of a real request if a stranger changes it.

Well-formed ones keep their framing, so that each has exactly one answer. Of raw ones any byte may
be another, and the server may find none, one or more requests in them.
"""

import gzip
from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.hostile.corpus import CORPUS, Request
from tests.hostile.target import SECRETS

# A request that stands in a body: an answer to it would have the script of the page.
SMUGGLED = b"GET /static/page.js HTTP/1.1\r\nHost: example.com\r\n\r\n"

METHODS = tuple(
    b"GET HEAD POST PUT PATCH OPTIONS TRACE CONNECT PROPFIND BREW get Post G".split()
)  # no DELETE: with the token it empties the database, as it should

TEXTS = (
    b"", b" ", b"\t", b"\0", b"\r\n", b"\n", b"\r", b"\x1b[31m", b"\x7f", b"\xff\xfe", b"\xc3",
    b"\xed\xa0\x80", b"%", b"%00", b"%0d%0a", b"%2f", b"%2e%2e%2f", b"%ff", b"%u0041", b"%25",
    b"../../etc/passwd", b"//", b"\\", b";", b"&", b"&&=", b"=", b"?", b"#", b"@", b"@@", b"*",
    b"<b>", b"<!--", b"]]>", b"&lt;", b"&#0;", b"&#x10FFFF;", b"&nothing;",
    b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
    b"'", b'"', b"' OR 1=1--", b"{{7*7}}", b"{0.__class__}", b"%s%n%(a)s", b"${jndi:ldap://x}",
    b"%EMAILADDRESS%", b"%EMAILLOCALPART%", b"xn--", b"xn--a", b"xn--mller-kva",
    b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"99999999999999999999", b"[]", b"{}", b"[[",
    b"[" * 20_000, b'{"a":' * 5_000, b"<a>" * 5_000, b"a" * 3_000, b"a." * 200, b"&a=b" * 1_500,
    b"Bearer", b"Basic Zm9vOmJhcg==", b"example.com", b"http://evil.test/", b"javascript:alert(1)",
    "ü".encode(), "例え.テスト".encode(), "İ".encode(), "ß".encode(), "\u202e".encode(),
    "\u2028".encode(), "\ufeff".encode(), "\ufffe".encode(), "\x85".encode(), "\ue000".encode(),
    "\uf8ff".encode(), "\U000f0000".encode(), "\U0010fffd".encode(), "e\u0301".encode(),
    SMUGGLED,
)  # fmt: skip

HEADERS = (
    (b"Host", b"example.org"), (b"Host", b"evil.test:81"), (b"Host", b"[::1"), (b"Host", b""),
    (b"X-Forwarded-Host", b"evil.test"), (b"X-Forwarded-Host", b"a,,b"),
    (b"X-Forwarded-Proto", b"gopher"), (b"X-Forwarded-Prefix", b"//evil.test"),
    (b"X-Forwarded-For", b'"192.0.2.1'), (b"Forwarded", b'for="_x";host=evil.test'),
    (b"Via", b"1.1 x"), (b"Connection", b"close"), (b"Connection", b"keep-alive, Host"),
    (b"Upgrade", b"websocket"), (b"Expect", b"100-continue"), (b"Expect", b"200-ok"),
    (b"Range", b"bytes=0-1,5-"), (b"If-Range", b'"0"'), (b"If-None-Match", b"*"),
    (b"If-None-Match", b'W/"' * 500), (b"If-Modified-Since", b"Thu, 99 Foo 0000 99:99:99 GMT"),
    (b"Accept", b"q=" * 500), (b"Accept", b"*/*;q=1e999"), (b"Accept-Language", b"de;q=x,*;q=-1"),
    (b"Accept-Language", b"-," * 1_000), (b"Accept-Charset", b"utf-7"), (b"TE", b"trailers"),
    (b"Content-Encoding", b"gzip"), (b"Content-Type", b"application/json"),
    (b"Content-Type", b"multipart/form-data; boundary="), (b"Content-Type", b";;=;charset=utf-99"),
    (b"Content-Type", b"multipart/form-data; boundary=a"), (b"Content-Type", b"text/xml"),
    (b"Content-Type", b"application/x-www-form-urlencoded; charset=utf-16"),
    (b"Authorization", b"Bearer x"), (b"Authorization", b"Digest " + b'a="b",' * 200),
    (b"Cookie", b"a=b; $Version=1; c"), (b"Cookie", b"=" * 2_000), (b"Cookie2", b"x"),
    (b"X_Forwarded_Host", b"evil.test"), (b"Sec-Fetch-Site", b"cross-site"),
    (b"X-HTTP-Method-Override", b"DELETE"), (b"Date", b"x"), (b"Trailer", b"Host"),
    (b"Max-Forwards", b"0"), (b"Origin", b"null"), (b"Content-Length-", b"1"),
    (b"User-Agent", b""), (b"User-Agent", b"iPhone Android Windows Macintosh CrOS" * 50),
)  # fmt: skip

Change = Callable[[Request, Random], Request]


def mutated(seed: int, number: int) -> tuple[str, bytes, bytes | None]:
    """Return a mutation: the name of its real request, its bytes, and its method.

    It depends on the two numbers only. The method is None for a raw one.
    """
    random = Random(f"{seed} {number}")
    name = random.choice(list(CORPUS))
    request = CORPUS[name]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        request = random.choice(CHANGES)(request, random)
    if random.random() < 0.85:
        return name, request.message(), request.method
    # Secrets stay out of what is logged: a path, a host. Only the reader of an answer to HEAD knows
    # that it has no body.
    method = b"GET" if request.method == b"HEAD" else request.method
    whole = replace(request.without(SECRETS), method=method).message()
    return name, _raw(whole, random), None


def _method(request: Request, random: Random) -> Request:
    method = random.choice(METHODS)
    return replace(request, method=method)


def _path(request: Request, random: Random) -> Request:
    path = request.path
    match random.randrange(5):
        case 0:
            path = path.swapcase()
        case 1:
            path = path.replace(b"/", random.choice((b"//", b"%2f", b"/./", b"/../")))
        case 2:
            path = b"http://" + random.choice((b"evil.test", b"a@example.com:1", b"[")) + path
        case 3:
            place = random.randrange(len(path))
            path = path[:place] + b"%%%02x" % path[place] + path[place + 1 :]
        case _:
            path = b"/" + _changed(path, random)[1:]
    return replace(request, path=_escaped(path))


def _query(request: Request, random: Random) -> Request:
    query = request.query or random.choice((b"", b"t=x", b"address=a@b.c", b"domain=example.com"))
    match random.randrange(4):
        case 0:
            query = b"&".join([query, query])
        case 1:
            name, mark, value = query.partition(b"=")
            query = name + mark + value * random.choice((0, 2, 400))
        case 2:
            fields = query.split(b"&")
            random.shuffle(fields)
            query = b"&".join(fields[1:] or (b"style",))
        case _:
            query = _changed(query, random)
    return replace(request, query=_escaped(query))


def _header(request: Request, random: Random) -> Request:
    headers = list(request.headers) or [random.choice(HEADERS)]
    place = random.randrange(len(headers))
    name, value = headers[place]
    match random.randrange(5):
        case 0:
            del headers[place]
        case 1:
            headers.append((name, value))
        case 2:
            text = _changed(value, random).translate(None, b"\r\n\0")
            headers[place] = name, text
        case _:
            headers.insert(place, random.choice(HEADERS))
    return replace(request, headers=tuple(headers))


def _body(request: Request, random: Random) -> Request:
    body = request.body or random.choice((b"", b"profile=1", b"{}", SMUGGLED))
    match random.randrange(6):
        case 0:
            text = body.decode("utf-8", "replace")
            body = text.encode(random.choice(("utf-16", "utf-32-be", "utf-7", "utf-8-sig")))
        case 1:
            body = gzip.compress(body * 100, mtime=0)
        case 2:
            return replace(request, body=body, is_chunked=not request.is_chunked)
        case _:
            body = _changed(body, random)
    method = random.choice((request.method, b"POST"))
    return replace(request, method=method, body=body)


# Most faults are found in what is read last.
CHANGES: tuple[Change, ...] = (_method, _path, _query, _query, _header, _header, _body, _body)


def _changed(text: bytes, random: Random) -> bytes:
    """Return a text with one change."""
    place = random.randint(0, len(text))
    match random.randrange(6):
        case 0 if text:
            place %= len(text)
            flipped = text[place] ^ (1 << random.randrange(8))
            return text[:place] + bytes([flipped]) + text[place + 1 :]
        case 1:
            return text[:place]
        case 2:
            return text[:place] + text
        case 3:
            end = random.randint(place, len(text))
            return text[:place] + random.choice(TEXTS) + text[end:]
        case 4:
            return random.choice(TEXTS)
        case _:
            return text[:place] + random.choice(TEXTS) + text[place:]


def _raw(message: bytes, random: Random) -> bytes:
    for _ in range(random.randint(1, 3)):
        message = _changed(message, random)
    return message


def _escaped(text: bytes) -> bytes:
    """Return a text without what would end a request target."""
    return b"".join(
        b"%%%02x" % byte if byte <= 32 or byte == 127 else bytes([byte]) for byte in text
    )
