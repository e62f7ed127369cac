"""Undoes the compression of a response piece by piece, the same for both clients."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.transport.effects import EncodingError

#: What every request says that it takes. What aiohttp and urllib3 would add depends on what else is installed.
ACCEPTED = "gzip, deflate"
#: How much is unpacked at once, in bytes: a small response can unpack into one of any size.
_PIECE = 256 * 1024
#: Of how many members a gzip file may consist. Each takes its time, also without anything in it.
_MEMBERS = 1_000
#: By so many bytes it is known what "deflate" means.
_KNOWN_BY = 1024


class Decoder:
    """The body of one response, unpacked.

    :param encoding: the header ``Content-Encoding``; empty when there is none.
    :raises EncodingError: when it is one that was not asked for.
    """

    def __init__(self, encoding: str = "") -> None:
        parts = (part.strip().lower() for part in encoding.split(","))
        names = [name for name in parts if name not in ("", "identity")]
        if len(names) > 1 or not set(names) <= {"gzip", "x-gzip", "deflate"}:
            raise EncodingError(
                f"it is compressed as {clean(', '.join(names), 60)!r}, which was not requested (Accept-Encoding:"
                f" {ACCEPTED})"
            )
        self._name = names[0] if names else ""
        self._stream = None if not names else self._new_stream()
        self._members = 1
        self._begun = False
        self._given = False
        # What came before there was anything to give: it may have to be read in another way.
        self._head = b""

    @property
    def plain(self) -> bool:
        """Whether there is nothing to undo."""
        return self._stream is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What some more of the body unpacks to, in pieces that are never large.

        :raises EncodingError: when it can't be unpacked.
        """
        if self._stream is None:
            if data:
                yield data
            return
        while data:
            if self._stream.eof:
                # A gzip file may consist of several; what else follows the end is no part of it.
                if self._name == "deflate" or not data.startswith(b"\x1f"):
                    return
                self._members += 1
                if self._members > _MEMBERS:
                    raise EncodingError(f"its compression ({self._name}) has more than {_MEMBERS:,} members")
                self._stream = self._new_stream()
            try:
                piece = self._stream.decompress(data, _PIECE)
            except zlib.error as e:
                if self._name != "deflate" or self._given:
                    raise EncodingError(f"its compression ({self._name}) is damaged") from e
                # "deflate" means the zlib format; some servers send the bare stream.
                self._given = True
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
                data = self._head + data
                continue
            self._begun = True
            if not piece and not self._given and self._name == "deflate":
                self._head += data
                self._given = len(self._head) > _KNOWN_BY
            data = self._stream.unconsumed_tail or self._stream.unused_data
            if piece:
                self._given = True
                yield piece

    def finish(self) -> Iterator[bytes]:
        """The end of it.

        :raises EncodingError: when some of it is missing.
        """
        if self._stream is None or not self._begun:
            return
        try:
            rest = self._stream.flush()
        except zlib.error as e:
            raise EncodingError(f"its compression ({self._name}) is damaged") from e
        if not self._stream.eof:
            raise EncodingError(f"its compression ({self._name}) breaks off")
        if rest:
            yield rest

    def _new_stream(self) -> zlib._Decompress:
        # 32: by its first bytes, gzip or zlib.
        return zlib.decompressobj(32 + zlib.MAX_WBITS)
