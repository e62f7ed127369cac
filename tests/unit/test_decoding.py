"""Compressed responses, unpacked the same for both clients."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.transport.decoding import Decoder
from airflow_provider_testruns.transport.effects import EncodingError

pytestmark = pytest.mark.unit


def _bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _unpack(encoding: str, data: bytes, step: int) -> bytes:
    decoder = Decoder(encoding)
    parts = [piece for at in range(0, len(data), step) for piece in decoder.feed(data[at : at + step])]
    return b"".join([*parts, *decoder.finish()])


@given(st.binary(), st.integers(1, 50))
def test_however_it_is_cut(data, step):
    for encoding, packed in [
        ("gzip", gzip.compress(data)),
        (" X-GZIP ", gzip.compress(data)),
        ("deflate", zlib.compress(data)),
        ("deflate", _bare(data)),
        ("gzip", gzip.compress(data[:3]) + gzip.compress(data[3:])),
        ("", data),
        ("identity", data),
    ]:
        assert _unpack(encoding, packed, step) == data


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip,br", "x" * 1000])
def test_what_was_not_asked_for(encoding):
    with pytest.raises(EncodingError, match="which was not requested") as caught:
        Decoder(encoding)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("packed", [gzip.compress(b"x" * 99)[:-9], gzip.compress(b"x" * 99)[:12], b"nonsense", b"\x1f"])
def test_what_cannot_be_unpacked(packed):
    with pytest.raises(EncodingError, match=r"is damaged|breaks off"):
        _unpack("gzip", packed, 5)


def test_pieces_are_small_however_much_it_unpacks_to():
    packed = gzip.compress(bytes(64 * 1024 * 1024))
    assert max(len(piece) for piece in Decoder("gzip").feed(packed)) <= 256 * 1024
