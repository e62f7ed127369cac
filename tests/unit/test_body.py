"""The body of a response as it comes in, and the pace of a file, without a socket."""

from __future__ import annotations

import gzip
import io

import pytest

from airflow_provider_testruns import limits
from airflow_provider_testruns.transport.body import Body
from airflow_provider_testruns.transport.effects import EncodingError, NetworkError, Request, ResponseTooLargeError
from airflow_provider_testruns.transport.progress import Pace

pytestmark = pytest.mark.unit


def _body(status: int = 200, most: int = 100, into: io.BytesIO | None = None, **headers: str) -> Body:
    request = Request("GET", "https://platform.example.com/", {}, 5.0, most=most, most_file=most)
    return Body(request, status, {name.replace("_", "-"): value for name, value in headers.items()}, into)


def test_a_body_that_is_as_long_as_it_may_be():
    body = _body()
    assert body.add(b"x" * 60)
    assert body.add(b"y" * 40)
    response = body.response()
    assert (response.body, response.cut, response.status) == (b"x" * 60 + b"y" * 40, False, 200)


@pytest.mark.parametrize("into", [None, io.BytesIO()], ids=["memory", "file"])
def test_one_byte_more_is_too_long(into):
    body = _body(into=into)
    assert body.add(b"x" * 100)
    with pytest.raises(ResponseTooLargeError):
        body.add(b"y")
    if into is not None:
        assert into.getvalue() == b"x" * 100


def test_a_length_is_believed_when_it_is_too_long():
    with pytest.raises(ResponseTooLargeError):
        _body(content_length="101")
    assert _body(content_length="100").length == 100
    for length in ("", "-1", "many", "1_0", "9" * 19, "²"):
        assert _body(content_length=length).length is None


def test_an_error_is_cut_where_it_becomes_long():
    body = _body(500, content_length=str(10**12))
    assert body.add(b"x" * (limits.ERROR_BODY - 1))
    assert not body.add(b"yyy")
    response = body.response()
    assert response.body == b"x" * (limits.ERROR_BODY - 1) + b"y"
    assert response.cut
    exact = _body(500)
    assert exact.add(b"x" * limits.ERROR_BODY)
    assert not exact.response().cut


def test_an_error_that_is_compressed():
    body = _body(503, content_encoding="gzip")
    body.add(gzip.compress(b"down for a while"))
    assert body.response().body == b"down for a while"
    half = _body(503, content_encoding="gzip")
    half.add(gzip.compress(b"down for a while")[:-9])
    assert half.response().body == b"The body can't be read: its compression (gzip) breaks off"
    long = _body(503, content_encoding="gzip")
    assert not long.add(gzip.compress(bytes(10**6)))
    assert long.response().cut


def test_a_success_that_is_compressed_is_bounded_by_what_it_unpacks_to():
    body = _body(most=1_000, content_encoding="gzip", content_length="10")
    assert body.add(gzip.compress(bytes(1_000)))
    assert body.response().body == bytes(1_000)
    long = _body(most=1_000, content_encoding="gzip")
    with pytest.raises(ResponseTooLargeError):
        long.add(gzip.compress(bytes(1_001)))
    half = _body(content_encoding="gzip")
    half.add(gzip.compress(b"x")[:-1])
    with pytest.raises(EncodingError):
        half.response()


def test_a_file_that_is_compressed_is_not_taken():
    with pytest.raises(EncodingError, match="the file is compressed"):
        _body(into=io.BytesIO(), content_encoding="gzip")
    _body(into=io.BytesIO(), content_encoding="identity")


class Clock:
    """Says what it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_moves_fast_enough_or_not():
    clock = Clock()
    pace = Pace(clock=clock)
    for clock.now in range(1, 60):
        pace.add(1)
    clock.now = 60.0
    with pytest.raises(
        NetworkError, match="transfer is too slow: 60 bytes in 60 s, and 65,536 in 60 s is the minimum"
    ) as caught:
        pace.add(1)
    assert caught.value.sent


def test_each_minute_counts_for_itself():
    clock = Clock()
    pace = Pace(clock=clock)
    for clock.now in (30.0, 60.0, 90.0, 120.0):
        pace.add(limits.RATE_BYTES // 2)
    clock.now = 200.0
    with pytest.raises(NetworkError):
        pace.add(limits.RATE_BYTES - 1)
