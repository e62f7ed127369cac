"""A worker (requests) and the triggerer (aiohttp) before the same server: the same result, or the same words.

A run that a worker has started and the triggerer cannot see, or the other way round, is one that nobody waits for.
"""

from __future__ import annotations

import gzip
import os
import re
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trustme
from aiohttp.client_proto import ResponseHandler

from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError, ServerError, TransportError
from tests.integration.transport.wires import Blocking, Line, Nonblocking, RawServer, answering, get, post, session

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request"),  # what urllib3 says to verify: false
]

Outcome = tuple[Any, ...]


def _outcome(kind: type[Blocking] | type[Nonblocking], url: str, call: Any, timeout: float, **options: Any) -> Outcome:
    client = kind(session(url, timeout=timeout), **options)
    try:
        return "ok", client.ask(call)
    except ApiError as e:
        return type(e), str(e), getattr(e, "sent", None), e.status, e.not_executed, e.retry_after
    finally:
        client.close()


def alike(url: str, call: Any = None, timeout: float = 30.0, **options: Any) -> Outcome:
    """What both clients make of a server; that they agree is asserted.

    :param timeout: seconds; for a server that answers, enough on a busy machine, too.
    """
    call = call or get()
    worker, triggerer = (_outcome(kind, url, call, timeout, **options) for kind in (Blocking, Nonblocking))
    assert worker == triggerer
    return worker


def sending(*parts: bytes) -> Callable[[Line], None]:
    """A way to talk: these bytes for an answer, then the end of the connection."""

    def talk(line: Line) -> None:
        if line.read() is not None:
            for part in parts:
                line.send(part)

    return talk


def _reset(line: Line) -> None:
    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _resetting(*parts: bytes) -> Callable[[Line], None]:
    def talk(line: Line) -> None:
        sending(*parts)(line)
        _reset(line)

    return talk


BODY = b'{"a": 1}'


def response(*lines: bytes, body: bytes = BODY, length: bool = True) -> bytes:
    head = [b"HTTP/1.1 200 OK", *([b"Content-Length: %d" % len(body)] if length else []), *lines]
    return b"\r\n".join([*head, b"", body])


def packed(encoding: bytes, body: bytes) -> bytes:
    return response(b"Content-Encoding: " + encoding, body=body)


def chunked(body: bytes) -> bytes:
    return response(b"Transfer-Encoding: chunked", body=body, length=False)


def _matches(words: str, said: str) -> None:
    assert re.search(words, said), said


# What both read

GOOD = {
    "100 before it": b"HTTP/1.1 100 Continue\r\n\r\n" + response(),
    "102 before it": b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + response(),
    "103 before it": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + response(),
    "199 before it": b"HTTP/1.1 199 Whatever\r\nX: y\r\n\r\n" + response(),
    "a header of 9 kB": response(b"X-Long: " + b"x" * 9_000),
    "a header of 60 kB": response(b"X-Long: " + b"x" * 60_000),
    "a name of 9 kB": response(b"x" * 9_000 + b": y"),
    "90 headers of 1 kB": response(*(b"X-%d: " % i + b"x" * 1_000 for i in range(90))),
    "gzip": packed(b"gzip", gzip.compress(BODY)),
    "x-gzip": packed(b"X-GZIP", gzip.compress(BODY)),
    "deflate": packed(b"deflate", zlib.compress(BODY)),
    "bare deflate": packed(b"deflate", zlib.compress(BODY)[2:-4]),
    "identity": packed(b"identity", BODY),
    "chunks": chunked(b'2\r\n{"\r\n6;x=y\r\na": 1}\r\n0\r\nX-Trailer: 1\r\n\r\n'),
    "to the end": response(length=False),
    "HTTP/1.0": response().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no reason": response().replace(b" OK", b""),
    "line feeds": response().replace(b"\r\n", b"\n"),
    "a blank line before it": b"\r\n" + response(),
    "a folded header": response(b"X: y\r\n z"),
    "no ASCII": response(b"X: \xe4\xff"),
    "120 headers before it": b"HTTP/1.1 103 Early Hints\r\n" + b"X: y\r\n" * 120 + b"\r\n" + response(),
    "as many headers as can be": response(*[b"X: y"] * 98),
    "a line as long as can be": response(b"X-Long: " + b"x" * (65_536 - 10)),
    "a folded length": response(b"Content-Length:\r\n %d" % len(BODY), length=False),
    "something behind it": response() + b"junk",
    "something behind it, and the end": response(b"Connection: close") + b"junk",
    "no encoding": response(b"Transfer-Encoding:", b"Content-Length: %d" % len(BODY), length=False),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_both_read(data):
    with RawServer(sending(data)) as server:
        assert alike(server.url) == ("ok", {"a": 1})
        assert {seen.headers["accept-encoding"] for seen in server.seen} == {"gzip, deflate"}


# What neither reads, in the same words

LOST = r"the connection was lost before the response was complete\. Check the network"
NO_HTTP = "the response is not valid HTTP"
BAD: dict[str, tuple[Callable[[Line], None], type[ApiError], str]] = {
    "closed at once": (lambda line: None, TransportError, LOST),
    "closed after the request": (lambda line: sending()(line), TransportError, LOST),
    "reset": (_resetting(), TransportError, LOST),
    "closed in the head": (sending(b"HTTP/1.1 200 OK\r\nContent-Le"), TransportError, LOST),
    "closed after the head": (sending(response()[:-8]), TransportError, LOST),
    "closed in the body": (sending(response()[:-1]), TransportError, LOST),
    "closed in a chunk": (sending(chunked(b"8\r\n" + BODY[:4])), TransportError, LOST),
    "closed before the last chunk": (sending(chunked(b"8\r\n" + BODY + b"\r\n")), TransportError, LOST),
    "closed in the first line": (sending(b"HTTP/1.1 20"), TransportError, LOST),
    "closed in the line of a chunk": (sending(chunked(b"8")), TransportError, LOST),
    "closed after the last chunk": (sending(chunked(b"8\r\n" + BODY + b"\r\n0\r\n")), TransportError, LOST),
    "closed after 102": (sending(b"HTTP/1.1 102 Processing\r\n\r\n"), TransportError, LOST),
    "another protocol": (sending(b"SSH-2.0-OpenSSH_9.2\r\n"), TransportError, NO_HTTP),
    "HTTP/0.9": (sending(BODY), TransportError, NO_HTTP),
    "HTTP/2": (sending(response().replace(b"HTTP/1.1", b"HTTP/2.0")), TransportError, NO_HTTP),
    "a status of words": (sending(response().replace(b"200", b"two")), TransportError, NO_HTTP),
    **{
        f"the first line {line!r}": (sending(response().replace(b"HTTP/1.1 200 OK", line)), TransportError, NO_HTTP)
        for line in (
            b"HTTP/1.2 200 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 +200 OK",
            b"HTTP/1.1 099 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 200 " + b"x" * 70_000,
        )
    },
    **{
        f"the chunk {chunk!r}": (sending(chunked(chunk)), TransportError, NO_HTTP)
        for chunk in (
            b" 8\r\n" + BODY + b"\r\n0\r\n\r\n",
            b"0x8\r\n" + BODY + b"\r\n0\r\n\r\n",
            b"-8\r\n" + BODY,
            b"0_8\r\n" + BODY + b"\r\n0\r\n\r\n",
            b"f" * 18 + b"\r\n" + BODY,
            b"8\r\n" + BODY + b"xx0\r\n\r\n",
            b"8\r\n" + BODY + b"\r\n0\r\nnothing\r\n\r\n",
            b"8\r\n" + BODY + b"\r\n0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        )
    },
    "one header too many": (sending(response(*[b"X: y"] * 99)), TransportError, NO_HTTP),
    "a line that is too long": (sending(response(b"X: " + b"x" * (65_536 - 4))), TransportError, NO_HTTP),
    "no header before it": (
        sending(b"HTTP/1.1 103 Early Hints\r\nnothing\r\n\r\n" + response()),
        TransportError,
        NO_HTTP,
    ),
    "a folded length that is none": (
        sending(response(b"Content-Length: 8\r\n 0", length=False)),
        TransportError,
        NO_HTTP,
    ),
    "a status of four digits": (sending(response().replace(b"200", b"2000")), TransportError, NO_HTTP),
    "a header of 70 kB": (sending(response(b"X: " + b"x" * 70_000)), TransportError, NO_HTTP),
    "120 headers": (sending(response(*[b"X: y"] * 120)), TransportError, NO_HTTP),
    "a chunk without a length": (sending(chunked(b"zz\r\n" + BODY)), TransportError, NO_HTTP),
    "two lengths": (sending(response(b"Content-Length: 7")), TransportError, NO_HTTP),
    "a length and chunks": (sending(response(b"Transfer-Encoding: chunked")), TransportError, NO_HTTP),
    "a length below zero": (sending(response(b"Content-Length: -1", length=False)), TransportError, NO_HTTP),
    "a length of words": (sending(response(b"Content-Length: all", length=False)), TransportError, NO_HTTP),
    "a header without a name": (sending(response(b"nothing")), TransportError, NO_HTTP),
    "a blank in a name": (sending(response(b"X : y")), TransportError, NO_HTTP),
    "a NUL": (sending(response(b"X: y\0z")), TransportError, NO_HTTP),
    "br": (sending(packed(b"br", BODY)), InvalidReplyError, "compressed as 'br', which was not requested"),
    "zstd": (sending(packed(b"zstd", BODY)), InvalidReplyError, "compressed as 'zstd', which was not requested"),
    "gzip twice": (sending(packed(b"gzip, gzip", BODY)), InvalidReplyError, "which was not requested"),
    "gzip that is none": (sending(packed(b"gzip", BODY)), InvalidReplyError, r"its compression \(gzip\) is damaged"),
    "half of gzip": (sending(packed(b"gzip", gzip.compress(BODY)[:-9])), InvalidReplyError, "breaks off"),
    "101": (sending(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), ApiError, "HTTP 101"),
    "407": (sending(response().replace(b"200", b"407")), ApiError, "HTTP 407: .* environment variables http_proxy"),
    "a Retry-After twice": (
        sending(response(b"Retry-After: 1", b"Retry-After: 9").replace(b"200", b"503")),
        ServerError,
        "HTTP 503",
    ),
}


@pytest.mark.parametrize(("talk", "kind", "words"), BAD.values(), ids=BAD)
def test_neither_reads(talk, kind, words):
    with RawServer(talk) as server:
        found, said, *_ = alike(server.url, post())
        assert issubclass(found, kind)
        _matches(words, said)
        for inside in ("HTTPConnection", "urllib3", "aiohttp", "object at", "RemoteDisconnected", "Errno", "_ssl.c"):
            assert inside not in said


def test_a_body_that_is_no_http_is_noticed_when_it_comes_later():
    """Not only when the time for it is over."""

    def talk(line: Line) -> None:
        if line.read() is not None:
            line.send(chunked(b"8\r\n"))
            time.sleep(0.2)
            line.send(BODY + b"xx")
            line.linger()

    with RawServer(talk) as server:
        kind, said, *_ = alike(server.url)
        assert kind is TransportError
        _matches(NO_HTTP, said)


# Connections

NOWHERE = "http://127.0.0.1:1"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1", r"no connection \(Connection refused\)"),
        ("nowhere.invalid", r"no connection \(.*[Nn]ame .*\)"),
        ("a" * 70 + ".invalid", "the URL is not usable"),
        ("a..b", "the URL is not usable"),
    ],
)
def test_no_connection(scheme, host, words):
    port = _free_port()
    kind, said, sent, _, not_executed, _ = alike(f"{scheme}://{host}:{port}", post())
    assert kind is TransportError
    assert not sent
    assert not_executed
    _matches(words, said)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def _serving(authority: trustme.CA, *names: str, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "platform.invalid")), **more).configure_cert(context)
    return context


def _fine(line: Line) -> None:
    answering(lambda seen: (200, b"{}"))(line)


HANDSHAKES: dict[str, tuple[Callable[[Line], None], str]] = {
    "plain HTTP": (lambda line: line.response(400), "TLS failed: wrong version number"),
    "another protocol": (lambda line: line.send(b"SSH-2.0-OpenSSH_9.2\r\n"), "TLS failed: wrong version number"),
    "closed": (lambda line: line.sock.recv(9) and None, "TLS failed: the other side closed the connection in the"),
    "closed at once": (lambda line: None, "TLS failed: the other side closed the connection in the handshake"),
    "reset": (lambda line: _reset(line), "TLS failed: the other side closed the connection in the handshake"),
    "silent": (lambda line: line.linger(), "no connection within the time allowed"),
}


@pytest.mark.parametrize(("talk", "words"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_handshakes_that_fail(talk, words):
    with RawServer(talk) as server:
        timeout = 1.0 if "time allowed" in words else 30.0
        kind, said, sent, _, not_executed, _ = alike(server.url.replace("http:", "https:"), post(), timeout)
    assert (kind, sent, not_executed) == (TransportError, False, True)
    _matches(words, said)
    assert "not permitted" not in said


@pytest.mark.parametrize("over_tls", [False, True])
def test_the_triggerer_reads_little_at_once_over_tls_too(authority, bundle, monkeypatch, over_tls):
    sizes = []
    receive = ResponseHandler.data_received

    def received(self, data):
        sizes.append(len(data))
        receive(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", received)
    body = b" " * 3_000_000 + BODY
    with RawServer(sending(response(body=body)), tls=_serving(authority) if over_tls else None) as server:
        client = Nonblocking(session(server.url, timeout=30.0), verify=bundle)
        try:
            client.ask(get())
        finally:
            client.close()
    assert sum(sizes) > len(body)
    # What is left of a TLS record before is read with it.
    assert max(sizes) <= 2 * 64 * 1024


def test_certificates_that_are_not_trusted(authority, bundle):
    for context, verify, words in [
        (_serving(authority), True, "certificate verify failed: unable to get local issuer certificate"),
        (_serving(authority, "dai.example.com"), bundle, "certificate verify failed: .*not valid for '127.0.0.1'"),
    ]:
        with RawServer(_fine, tls=context) as server:
            kind, said, sent, _, not_executed, _ = alike(server.url, post(), verify=verify)
            assert (kind, sent, not_executed) == (TransportError, False, True)
            _matches(f"TLS failed: {words}. Check the connection's extra 'verify'", said)


def test_client_certificates(authority, bundle, tmp_path):
    context = _serving(authority)
    # TLS 1.3 tells a client without a certificate after the handshake, when it may have gone on.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    leaf = authority.issue_cert("worker@example.com")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    trustme.CA().issue_cert("me@example.com").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "other.pem"))
    with RawServer(_fine, tls=context) as server:
        for options in (
            {"cert": str(tmp_path / "both.pem")},
            {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")},
        ):
            assert alike(server.url, post(), verify=bundle, **options) == ("ok", {})
        _, said, sent, *_ = alike(server.url, post(), verify=bundle, cert=str(tmp_path / "other.pem"))
        _matches("TLS failed: .* Check the connection's extras 'cert' and 'key'", said)
        assert not sent
        kind, _, sent, *_ = alike(server.url, post(), verify=bundle)
        assert (kind, sent) == (TransportError, False)


# Proxies


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for sock in (source, sink):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class Proxy:
    """A way to talk: as a proxy does, with its tunnels all to one server.

    :param target: that server's port.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, line: Line) -> None:
        head = line.read_head()
        if head is None:
            return
        method, where, headers = head
        self.asked.append((method, where, headers.get("proxy-authorization")))
        if method != "CONNECT":
            line.response(200, b'{"by": "proxy"}')
            return
        with socket.create_connection(("127.0.0.1", self._target)) as target:
            line.send(b"HTTP/1.1 200 Connection established\r\nX: " + b"x" * 9_000 + b"\r\n\r\n")
            back = threading.Thread(target=_pump, args=(target, line.sock), daemon=True)
            back.start()
            _pump(line.sock, target)
            back.join(5)


@pytest.fixture
def platform(authority: trustme.CA) -> Iterator[RawServer]:
    with RawServer(_fine, tls=_serving(authority)) as server:
        yield server


def test_a_tunnel_with_credentials(platform, bundle, monkeypatch):
    proxy = Proxy(platform.port)
    url = f"https://platform.invalid:{platform.port}"
    with RawServer(proxy) as server:
        monkeypatch.setenv("ALL_PROXY", f"user:canary%40pass@127.0.0.1:{server.port}")
        assert alike(url, verify=bundle) == ("ok", {})
        assert set(proxy.asked) == {("CONNECT", url.removeprefix("https://"), "Basic dXNlcjpjYW5hcnlAcGFzcw==")}
        # What is inside of it is checked all the same.
        _, said, *_ = alike(url)
        _matches("certificate verify failed", said)


def test_a_proxy_that_speaks_tls(platform, authority, bundle, monkeypatch):
    proxy = Proxy(platform.port)
    with RawServer(proxy, tls=_serving(authority)) as server:
        monkeypatch.setenv("http_proxy", server.url)
        assert alike("http://platform.invalid/x", verify=bundle) == ("ok", {"by": "proxy"})
        assert proxy.asked == [("GET", "http://platform.invalid/x/", None)] * 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("no_proxy", "127.0.0.0/8"),
        ("NO_PROXY", "example.com, 127.0.0.1"),
        ("no_proxy", "*"),
    ],
)
def test_past_the_proxy(monkeypatch, variable, value):
    with RawServer(answering(lambda seen: (200, b'{"by": "itself"}'))) as server:
        monkeypatch.setenv("ALL_PROXY", NOWHERE)
        monkeypatch.setenv(variable, value)
        assert alike(server.url) == ("ok", {"by": "itself"})


def test_past_the_proxy_by_name_and_port(monkeypatch):
    with RawServer(answering(lambda seen: (200, b'{"by": "itself"}'))) as server:
        monkeypatch.setenv("ALL_PROXY", NOWHERE)
        url = f"http://localhost:{server.port}"
        monkeypatch.setenv("no_proxy", f"localhost:{server.port}")
        assert alike(url) == ("ok", {"by": "itself"})
        monkeypatch.setenv("no_proxy", f"localhost:{server.port + 1}")
        assert alike(url)[0] is TransportError


REFUSALS: dict[str, tuple[Callable[[Line], None], str]] = {
    "403": (lambda line: line.read_head() and line.response(403), r"\(it answered HTTP 403\)"),
    "407": (lambda line: line.read_head() and line.response(407), r"\(it answered HTTP 407\)"),
    "closed": (lambda line: line.read_head() and None, r"\(it did not answer as a proxy does\)"),
    "403 and much": (
        lambda line: line.read_head() and line.send(b"HTTP/1.1 403 F\r\nX: " + b"x" * 30_000 + b"\r\n\r\n"),
        r"\(it answered HTTP 403\)",
    ),
    "a head that is none": (
        lambda line: line.read_head() and line.send(b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n"),
        r"\(it did not answer as a proxy does\)",
    ),
    "no HTTP": (lambda line: line.read_head() and line.send(b"SSH-2.0\r\n\r\n"), "did not answer as a proxy does"),
}


@pytest.mark.parametrize(("talk", "words"), REFUSALS.values(), ids=REFUSALS)
def test_proxies_that_open_no_tunnel(monkeypatch, talk, words):
    with RawServer(talk) as server:
        monkeypatch.setenv("https_proxy", server.url.replace("//", "//user:canary-proxy-pass@"))
        kind, said, sent, _, not_executed, _ = alike("https://platform.invalid", post())
    assert (kind, sent, not_executed) == (TransportError, False, True)
    _matches(f"no connection through the proxy of the environment .*{words}.* Check the environment variables", said)
    assert "canary-proxy" not in said


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:canary-proxy-pass@127.0.0.1:1",
        "http://user:canary-proxy-pass@nowhere.invalid:3128",
        "socks5://user:canary-proxy-pass@h",
    ],
)
def test_proxies_that_are_not_there(monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", proxy)
    kind, said, sent, _, not_executed, _ = alike("https://platform.invalid", post())
    assert (kind, sent, not_executed) == (TransportError, False, True)
    _matches("prox.* Check the environment variables", said)
    assert "canary-proxy" not in said


def test_the_environment_of_these_tests_has_no_proxy():
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]
