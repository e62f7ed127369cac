"""What comes over the wire when it is no HTTP, or only nearly."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_END = b"\r\n"


def _body(body: bytes, *headers: bytes) -> bytes:
    return _OK + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def responses() -> Iterator[tuple[str, bytes]]:
    """All of them, each with its name."""
    yield "nothing", b""
    yield "blank lines", b"\r\n" * 50
    yield "no status", b"HTTP/1.1\r\n\r\n"
    yield "a status of letters", b"HTTP/1.1 abc OK\r\n\r\n"
    yield "a negative status", b"HTTP/1.1 -200 OK\r\n\r\n"
    yield "status 999", b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\n{}"
    yield "status 1000", b"HTTP/1.1 1000 Odd\r\nContent-Length: 2\r\n\r\n{}"
    yield "status 0", b"HTTP/1.1 000 Odd\r\nContent-Length: 2\r\n\r\n{}"
    yield "HTTP/9.9", b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    yield "HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n{}"
    yield "HTTP/0.9", b"{}"
    yield "ICY", b"ICY 200 OK\r\n\r\n{}"
    yield "a greeting", b"220 mail.example.com ESMTP\r\n"
    yield "TLS", b"\x15\x03\x01\x00\x02\x02\x28"
    yield "HTTP/2", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"
    yield "a long status line", b"HTTP/1.1 200 " + b"O" * 100_000 + b"\r\n\r\n"
    yield "an odd reason", b"HTTP/1.1 403 \x1b[31m\xff\x00\r\nContent-Length: 2\r\n\r\n{}"
    yield "bare line feeds", b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"
    yield "headers without an end", _OK
    yield "half a header", _OK + b"Content-Le"
    yield "a header without a colon", _OK + b"nonsense\r\nContent-Length: 2\r\n\r\n{}"
    yield "a header without a name", _OK + b": x\r\nContent-Length: 2\r\n\r\n{}"
    yield "a folded header", _OK + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}"
    yield "a blank before the colon", _OK + b"X-A : b\r\nContent-Length: 2\r\n\r\n{}"
    yield "NUL in a header", _OK + b"X-A: \x00\r\nContent-Length: 2\r\n\r\n{}"
    yield "bytes in a header", _OK + b"X-A: \xff\xfe\x80\r\nContent-Length: 2\r\n\r\n{}"
    yield "a terminal's command in a header", _OK + b"Retry-After: \x1b[2J\r\nContent-Length: 2\r\n\r\n{}"
    yield "a long header", _OK + b"X-A: " + b"x" * 200_000 + b"\r\nContent-Length: 2\r\n\r\n{}"
    yield "a long name", _OK + b"X" * 200_000 + b": x\r\nContent-Length: 2\r\n\r\n{}"
    yield "many headers", _OK + b"".join(b"X-%d: x\r\n" % n for n in range(5_000)) + b"Content-Length: 2\r\n\r\n{}"
    for length in (b"-1", b"abc", b"1e3", b"0x2", b"9" * 30, b"9" * 5_000, b"", b"2, 2", b"+2", b"2 ", b"1", b"3"):
        yield f"length {length[:20]!r}", _OK + b"Content-Length: " + length + b"\r\n\r\n{}"
    yield "two lengths", _OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
    yield "no length", _OK + b"\r\n{}"
    chunked = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
    yield "chunks", chunked + b"2\r\n{}\r\n0\r\n\r\n"
    for size in (b"", b"-2", b"zz", b"FFFFFFFFFFFFFFFFFF", b"2;" + b"x" * 100_000, b"0" * 100_000 + b"2", b"1", b"3"):
        yield f"a chunk of {size[:20]!r}", chunked + size + b"\r\n{}\r\n0\r\n\r\n"
    yield "chunks without an end", chunked + b"2\r\n{}\r\n"
    yield "trailers", chunked + b"2\r\n{}\r\n0\r\n" + b"X-T: x\r\n" * 3_000 + b"\r\n"
    yield "chunks and a length", _OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    yield "an unknown transfer", _OK + b"Transfer-Encoding: magic\r\n\r\n{}"
    yield "small chunks", chunked + b"1\r\n \r\n" * 20_000 + b"2\r\n{}\r\n0\r\n\r\n"
    packed = gzip.compress(b'{"a": 1}')
    yield "gzip", _body(packed, b"Content-Encoding: gzip")
    yield "half a gzip", _body(packed[:12], b"Content-Encoding: gzip")
    yield "a gzip that is none", _body(b"{}", b"Content-Encoding: gzip")
    yield "two gzips", _body(packed + packed, b"Content-Encoding: gzip")
    yield "a gzip and more", _body(packed + b"more", b"Content-Encoding: gzip")
    yield "a gzip in a gzip", _body(gzip.compress(packed), b"Content-Encoding: gzip, gzip")
    yield "twenty gzips", _body(packed, b"Content-Encoding: " + b", ".join([b"gzip"] * 20))
    yield "a gzip bomb", _body(gzip.compress(b" " * 100_000_000, 9), b"Content-Encoding: gzip")
    yield "a gzip bomb of objects", _body(gzip.compress(b"[" + b"{}," * 8_000_000, 9), b"Content-Encoding: gzip")
    yield "zlib", _body(zlib.compress(b"{}"), b"Content-Encoding: deflate")
    yield "raw deflate", _body(zlib.compress(b"{}")[2:-4], b"Content-Encoding: deflate")
    yield "br", _body(b"\x0b\x00\x80{}\x03", b"Content-Encoding: br")
    yield "zstd", _body(b"\x28\xb5\x2f\xfd", b"Content-Encoding: zstd")
    yield "an unknown encoding", _body(b"{}", b"Content-Encoding: magic")
    yield "a continue for ever", b"HTTP/1.1 100 Continue\r\n\r\n" * 500
    yield "a continue first", b"HTTP/1.1 100 Continue\r\n\r\n" + _body(b"{}")
    yield "early hints", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _body(b"{}")
    yield "switching protocols", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    yield "204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}"
    yield "304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n{}"
    yield "two responses", _body(b"{}") + _body(b'{"a": 1}')
    yield "a cookie", _body(b"{}", b"Set-Cookie: a=b; Domain=.; Expires=Thu, 99 Foo 99999 00:00:00 GMT")
    for status, place in (
        (301, b"http://[::1"),
        (302, b"\x00"),
        (307, b"//u:canary-in-a-url@host"),
        (302, b"?" * 9_000),
    ):
        yield (
            f"{status} to {place[:20]!r}",
            b"HTTP/1.1 %d Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, place),
        )
    yield "a certificate for nobody", b"HTTP/1.1 495 SSL\r\nConnection: close\r\n\r\n<html>"
    yield "a large error", b"HTTP/1.1 500 No\r\n\r\n" + b"<p>no " * 2_000_000


def broken(seed: int, number: int) -> bytes:
    """A good response of which some bytes were lost, doubled or turned into others."""
    order = random.Random(seed * 100_003 + number)
    data = bytearray(
        _body(b'{"status": "Passed", "id": "1", "list": [1, 2, 3]}', b"Date: Thu, 26 Nov 2026 10:00:00 GMT")
    )
    if order.random() < 0.3:
        data = bytearray(_OK + b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1\r\n1\r\n}\r\n0\r\n\r\n')
    for _ in range(order.randint(1, 6)):
        first = order.randrange(len(data) + 1)
        last = min(len(data), first + order.choice((0, 0, 1, 1, 2, 20)))
        data[first:last] = order.randbytes(order.choice((0, 1, 2, 5)))
    return bytes(data)
