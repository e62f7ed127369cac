"""The body of a response as it comes in: unpacked, and no longer than it may be; the same for both clients."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import BinaryIO

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.steps import Response
from airflow_provider_testruns.transport.decoding import Decoder
from airflow_provider_testruns.transport.effects import EncodingError, Request, ResponseTooLargeError


class Body:
    """The body of one response.

    Of one that is no success only the beginning is read: it is for people, and platforms say what is wrong first.

    :param request: what it is the response to.
    :param status: the HTTP status.
    :param headers: by lower-case name.
    :param into: a file that takes it; ``None`` for memory.
    :raises ResponseTooLargeError: when it says itself that it is too long.
    :raises EncodingError: when it is compressed in a way that was not asked for. A file must not be compressed at all:
        a megabyte may unpack to a full disk.
    """

    def __init__(self, request: Request, status: int, headers: Mapping[str, str], into: BinaryIO | None = None) -> None:
        self._status = status
        self._headers = headers
        self._success = 200 <= status < 300
        self._most = limits.ERROR_BODY if not self._success else request.most if into is None else request.most_file
        self._memory = io.BytesIO()
        self._into: BinaryIO = self._memory if into is None else into
        self._unpacked = self._received = 0
        self._cut = False
        self._decoder: Decoder | None = None
        try:
            self._decoder = Decoder(headers.get("content-encoding", ""))
        except EncodingError as e:
            self._give_up(e)
        if self._decoder is not None and self._decoder.plain:
            if self._success and self.length is not None and self.length > self._most:
                raise ResponseTooLargeError
        elif into is not None:
            raise EncodingError(
                f"the file is compressed ({clean(headers.get('content-encoding', ''), 60)!r}) on the way"
            )

    @property
    def length(self) -> int | None:
        """How long it says that it is, in bytes; ``None`` when it does not."""
        length = self._headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None

    def add(self, data: bytes) -> bool:
        """Take some more of it.

        :param data: as it came.
        :return: whether the rest is wanted.
        :raises ResponseTooLargeError: when it is too long.
        :raises EncodingError: when it can't be unpacked.
        """
        if self._decoder is None:
            return False
        # What comes may be longer than what it unpacks to, without end.
        self._received += len(data)
        if self._received > self._most and self._success:
            raise ResponseTooLargeError
        try:
            for piece in self._decoder.feed(data):
                if not self._take(piece):
                    return False
        except EncodingError as e:
            self._give_up(e)
            return False
        if self._received > self._most:
            self._cut = True
        return not self._cut

    def response(self) -> Response:
        """The response, when all of it is there that is wanted.

        :raises EncodingError: when some of it is missing.
        """
        if self._decoder is not None and not self._cut:
            try:
                for piece in self._decoder.finish():
                    self._take(piece)
            except EncodingError as e:
                self._give_up(e)
        # Not copied: the buffer is given away as it is.
        return Response(self._status, self._headers, self._memory.getvalue(), self._cut)

    def _take(self, piece: bytes) -> bool:
        room = self._most - self._unpacked
        self._unpacked += len(piece)
        if len(piece) <= room:
            self._into.write(piece)
            return True
        if self._success:
            raise ResponseTooLargeError
        self._into.write(piece[:room])
        self._cut = True
        return False

    def _give_up(self, error: EncodingError) -> None:
        """The status says more than a body that can't be unpacked."""
        if self._success:
            raise error
        self._decoder = None
        self._memory = io.BytesIO(f"The body can't be read: {error}".encode())
