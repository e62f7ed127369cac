"""Responses of any size, shape and speed: what each may cost, the same for a worker and the triggerer."""

from __future__ import annotations

import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    InvalidReplyError,
    NotFoundError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.steps import Call, Response, Upload, ask, no_value
from airflow_provider_testruns.transport.auth import OAuthToken
from airflow_provider_testruns.transport.blocking import BlockingClient
from tests.integration.transport.wires import Line, RawServer, answering, dripping, get, session, within

pytestmark = pytest.mark.integration

_LIMIT = 200_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of a response, small."""
    for name in ("POLL_BODY", "PAGE_BODY"):
        monkeypatch.setattr(limits, name, _LIMIT)


@contextmanager
def little_memory(most: int = 8 * _LIMIT) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def flooding(head: bytes, more: bytes) -> Callable[[Line], None]:
    """A way to talk: the head of a response, and then more of it without end."""

    def talk(line: Line) -> None:
        while line.read() is not None:
            line.send(head)
            while True:
                line.send(more)

    return talk


def _head(status: int = 200, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} As ordered\r\n{lines}\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _gzip_of_nothing(status: int) -> Callable[[Line], None]:
    """Deflated data that unpacks to nothing, without end."""
    packer = zlib.compressobj(wbits=31)
    begin = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    head = _head(status, Transfer_Encoding="chunked", Content_Encoding="gzip")
    return flooding(head + _chunk(begin), _chunk(b"\0\0\0\xff\xff" * 2_000))


def _packed(status: int, encoding: str, body: bytes) -> Callable[[Line], None]:
    return answering(lambda seen: (status, body, {"Content-Encoding": encoding}))


_CHUNKED = {"Transfer_Encoding": "chunked"}
_TOO_LONG = {
    "announced": flooding(_head(Content_Length="1000000000000"), b"x" * 100_000),
    "in chunks": flooding(_head(**_CHUNKED), _chunk(b"x" * 10_000)),
    "until it closes": flooding(_head(Connection="close"), b"x" * 100_000),
    "gzip": _packed(200, "gzip", gzip.compress(bytes(60 * _LIMIT))),
    "deflate": _packed(200, "deflate", zlib.compress(bytes(60 * _LIMIT))),
    "gzip of nothing": _gzip_of_nothing(200),
}


@pytest.mark.parametrize("talk", _TOO_LONG.values(), ids=_TOO_LONG)
def test_a_response_that_is_too_long_is_refused(drive, small, talk):
    with RawServer(talk) as server:
        client = drive(session(server.url, timeout=20))
        with little_memory(), pytest.raises(InvalidReplyError, match="larger than 200,000 bytes"):
            client.ask(get())


def test_of_a_gzip_file_of_many_parts_few_are_read(drive, small):
    body = gzip.compress(b"") * 5_000
    with (
        RawServer(answering(lambda seen: (200, body, {"Content-Encoding": "gzip"}))) as server,
        pytest.raises(InvalidReplyError, match="members"),
    ):
        drive(session(server.url)).ask(get())


@pytest.mark.parametrize("encoding", ["gzip, gzip", "identity, gzip, deflate", "br", "gzip;q=1"])
def test_only_one_encoding_that_was_asked_for_is_undone(drive, encoding):
    body = gzip.compress(gzip.compress(b"{}"))
    answers = iter([(200, body, {"Content-Encoding": encoding}), (404, body, {"Content-Encoding": encoding})])
    with RawServer(answering(lambda seen: next(answers))) as server:
        client = drive(session(server.url))
        with pytest.raises(InvalidReplyError, match="not requested"):
            client.ask(get())
        # The status says more than a body that can't be read.
        with pytest.raises(NotFoundError, match=r"HTTP 404: The body can't be read: .*not requested"):
            client.ask(get())


_LONG_ERRORS = {
    "in chunks": flooding(_head(500, **_CHUNKED), _chunk(b'{"detail": "' + b"why " * 3_000)),
    "gzip": _packed(500, "gzip", gzip.compress(b"why " * 3_000_000)),
    "announced": flooding(_head(500, Content_Length="1000000000000"), b"why " * 10_000),
    "gzip of nothing": _gzip_of_nothing(500),
}


@pytest.mark.parametrize(("kind", "talk"), _LONG_ERRORS.items(), ids=_LONG_ERRORS)
def test_of_an_error_only_the_beginning_is_read_and_that_is_said(drive, kind, talk):
    with RawServer(talk) as server:
        client = drive(session(server.url, timeout=20))
        with little_memory(), pytest.raises(ServerError) as caught:
            client.ask(get())
        message = str(caught.value)
        assert "HTTP 500" in message
        assert "of more than 64 KB, which are not read" in message
        assert ("why why" in message) == (kind != "gzip of nothing")
        assert len(message) < 1_500
        with pytest.raises(ServerError):
            client.ask(get())


_SHAPES = {
    "objects": b"[" + b"{}," * 300_000 + b"{}]",
    "deep": b"[" * 101 + b"]" * 101,
    "long numbers": b"[" + b"9" * 4_000 + b"," + b" " * 300_000 + b"1]",
    "NaN": b"NaN",
}


@pytest.mark.parametrize("body", _SHAPES.values(), ids=_SHAPES)
def test_a_response_of_a_shape_that_no_platform_has_is_refused(drive, body):
    with RawServer(answering(lambda seen: (200, body))) as server, pytest.raises(InvalidReplyError):
        drive(session(server.url)).ask(get())


def test_a_long_response_is_read_beside_the_event_loop(drive):
    rows = [{"id": str(index), "text": "x" * 100} for index in range(4_000)]
    body = json.dumps(rows).encode()
    assert len(body) > limits.READ_HERE
    read_in = []

    def read(response: Response) -> int:
        read_in.append(threading.get_ident())
        return len(response.json())

    with RawServer(answering(lambda seen: (200, body))) as server:
        client = drive(session(server.url))
        assert client.ask(Call("look", "GET", "/", read)) == 4_000
    beside = type(client).__name__ == "Nonblocking"
    assert (read_in[0] != threading.get_ident()) == beside


def test_what_the_reader_of_a_long_response_raises_is_its_error(drive):
    def read(response: Response) -> None:
        raise InvalidReplyError("it is not what it should be")

    with (
        RawServer(answering(lambda seen: (200, b" " * 300_000))) as server,
        pytest.raises(InvalidReplyError, match=r"could not look .*it is not what it should be"),
    ):
        drive(session(server.url)).ask(Call("look", "GET", "/", read))


# Tokens


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (json.dumps({"access_token": "canary" * 3_000}).encode(), "without a usable access_token"),
        (json.dumps({"access_token": "canary", "more": "x" * 300_000}).encode(), "more than 256 KB"),
        (b'{"access_token": "canary", "more": ' + b"[" * 200 + b"]" * 200 + b"}", "without a usable access_token"),
    ],
    ids=["token", "response", "deep"],
)
def test_a_token_that_no_server_would_take_is_refused(drive, answer, says):
    with RawServer(answering(lambda seen: (200, answer))) as tokens:
        auth = OAuthToken(f"{tokens.url}/token", {"grant_type": "client_credentials"})
        with pytest.raises(InvalidReplyError, match=says):
            drive(session("http://127.0.0.1:9", auth)).ask(get())


def test_of_the_refusal_of_a_token_endpoint_only_the_beginning_is_read(drive):
    with RawServer(flooding(_head(401, **_CHUNKED), _chunk(b"no " * 5_000))) as tokens:
        auth = OAuthToken(f"{tokens.url}/token", {"grant_type": "client_credentials"})
        with little_memory(), pytest.raises(AuthenticationError, match="of more than 64 KB"):
            drive(session("http://127.0.0.1:9", auth)).ask(get())


# Steps of many calls


@pytest.mark.parametrize(("name", "allowed"), [("STEP_BYTES", 1), ("STEP_SECONDS", 0.0)], ids=["bytes", "seconds"])
def test_a_step_of_many_pages_has_an_end(drive, monkeypatch, name, allowed):
    monkeypatch.setattr(limits, name, allowed)
    monkeypatch.setattr(limits, name.replace("STEP", "STEP_POLL"), allowed)

    def pages():
        while True:
            yield get()

    with RawServer(answering(lambda seen: (200, b"[1]"))) as server:
        with pytest.raises((InvalidReplyError, TransportError), match="did not look any more") as caught:
            drive(session(server.url)).run(pages())
        # A step may take its first call in any case.
        assert len(server.seen) == (1 if name == "STEP_BYTES" else 0)
    assert caught.value.not_executed
    assert caught.value.transient == (name == "STEP_SECONDS")


# Time


def test_a_flood_of_tiny_chunks_ends_with_its_time(drive):
    with (
        RawServer(flooding(_head(**_CHUNKED), _chunk(b"x") * 1_000)) as server,
        within(15),
        pytest.raises(TransportError, match="no complete response within the time allowed"),
    ):
        drive(session(server.url, timeout=0.3)).ask(get())


# Files, which workers move


def _download(save_to: Path) -> Call[None]:
    return Call("download it", "GET", "/", no_value, save_to=save_to)


def _client(server: RawServer, timeout: float = 5.0, **options: int) -> BlockingClient:
    made = session(server.url, timeout=timeout)
    for name, value in options.items():
        setattr(made, name, value)
    return BlockingClient(made)


@pytest.mark.parametrize(
    ("talk", "written"),
    [
        (flooding(_head(Content_Length="5000000"), b"x" * 10_000), 0),
        (flooding(_head(**_CHUNKED), _chunk(b"x" * 10_000)), 1_000_000),
    ],
    ids=["announced", "in chunks"],
)
def test_a_file_is_no_larger_than_the_connection_allows(tmp_path, talk, written):
    with (
        RawServer(talk) as server,
        _client(server, max_file_size=1_000_000) as client,
        pytest.raises(InvalidReplyError, match=r"larger than 1,000,000 bytes.*'max_file_size'"),
    ):
        client.run(ask(_download(tmp_path / "file")))
    assert (tmp_path / "file").stat().st_size <= written


def test_a_file_is_asked_for_as_it_is_and_nothing_else_is_taken(tmp_path):
    packed = gzip.compress(bytes(10_000_000))
    with RawServer(answering(lambda seen: (200, packed, {"Content-Encoding": "gzip"}))) as server:
        with _client(server) as client, pytest.raises(InvalidReplyError, match="the file is compressed"):
            client.run(ask(_download(tmp_path / "file")))
        assert server.seen[0].headers["accept-encoding"] == "identity"
    assert (tmp_path / "file").stat().st_size == 0


@pytest.mark.parametrize(
    "talk",
    [
        dripping(_head(Content_Length="1000000"), b"x", every=0.02),
        dripping(_head(**_CHUNKED), b"1\r\nx\r\n", every=0.02),
        dripping(_head(**_CHUNKED), b"0", every=0.02),
    ],
    ids=["length", "chunks", "the length of a chunk"],
)
def test_a_file_that_drips_ends(tmp_path, monkeypatch, talk):
    monkeypatch.setattr(limits, "RATE_WINDOW", 0.3)
    with (
        RawServer(talk) as server,
        _client(server) as client,
        within(15),
        pytest.raises(TransportError, match="transfer is too slow"),
    ):
        client.run(ask(_download(tmp_path / "file")))


def test_the_head_of_a_file_has_no_more_time_than_any(tmp_path):
    with (
        RawServer(dripping(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n")) as server,
        _client(server, 0.3) as client,
        within(15),
        pytest.raises(TransportError, match="no complete response"),
    ):
        client.run(ask(_download(tmp_path / "file")))


def _upload(file: Path) -> Call[None]:
    return Call("upload it", "POST", "/", no_value, upload=Upload("file", file), idempotent=False)


def test_an_upload_that_is_taken_too_slowly_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "RATE_WINDOW", 0.3)
    monkeypatch.setattr(limits, "RATE_BYTES", 10**9)
    (tmp_path / "file").write_bytes(bytes(20_000_000))

    def talk(line: Line) -> None:
        line.read(pause=0.1)

    with (
        RawServer(talk) as server,
        _client(server) as client,
        within(15),
        pytest.raises(TransportError, match="transfer is too slow"),
    ):
        client.run(ask(_upload(tmp_path / "file")))


@pytest.mark.parametrize(
    "drip",
    [(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"), (_head(**_CHUNKED), b"1\r\nx\r\n")],
    ids=["headers", "body"],
)
def test_the_response_to_an_upload_has_no_more_time_than_any(tmp_path, drip):
    (tmp_path / "file").write_bytes(bytes(100_000))
    with (
        RawServer(dripping(*drip)) as server,
        _client(server, 0.3) as client,
        within(15),
        pytest.raises(TransportError, match="no complete response"),
    ):
        client.run(ask(_upload(tmp_path / "file")))
