"""What a flow asks its driver to do.

A *flow* is a generator that yields these and ends in a result. It decides; the driver (requests in a worker,
aiohttp in the triggerer) moves the bytes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_testruns import limits
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.steps import Response, Sleep, Upload

if TYPE_CHECKING:
    from airflow_provider_testruns.transport.auth import Auth

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. The driver answers with a :class:`Response`, whatever its status, or raises NetworkError.

    :param method: the HTTP method.
    :param url: the whole URL.
    :param headers: all of them; the driver adds none that names a user.
    :param timeout: seconds for the whole exchange, from the connection to the last byte.
    :param body: what is sent, ``None`` for nothing.
    :param upload: a file to send instead, as a multipart form.
    :param save_to: a local file that takes the body of a 2xx response.
    :param new_connection: send it over a connection of its own: a kept one may be dead, and then it can't be determined
        whether the request arrived.
    :param most: the longest body of a 2xx response that is read, in bytes.
    :param most_file: the same of one that goes to a file.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    body: bytes | None = field(default=None, repr=False)
    upload: Upload | None = None
    save_to: Path | None = None
    new_connection: bool = False
    most: int = limits.PAGE_BODY
    most_file: int = limits.FILE_SIZE

    def with_headers(self, more: Mapping[str, str]) -> Request:
        """The same request, with more headers."""
        # In full: dataclasses.replace() takes several times as long, and every poll passes here.
        return Request(
            self.method,
            self.url,
            {**self.headers, **more},
            self.timeout,
            self.body,
            self.upload,
            self.save_to,
            self.new_connection,
            self.most,
            self.most_file,
        )


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Make sure that ``auth`` holds something newer than number ``stale``; one at a time, however many flows ask."""

    auth: Auth
    stale: int | None


class NetworkError(Exception):
    """No complete response.

    :param message: what happened, for people; secrets in it are masked.
    :param sent: whether any of the request may have been read by the other side.
    :param about: what it is about, beside the network: ``verify`` for the other side's certificate, ``cert`` for ours,
        ``proxy`` for the proxy of the environment.
    """

    def __init__(self, message: str, *, sent: bool, about: str = "") -> None:
        super().__init__(redact(message))
        self.sent = sent
        self.about = about


class ResponseTooLargeError(Exception):
    """The body of a response is longer than it may be."""


class EncodingError(Exception):
    """The response is compressed in a way that can't be undone."""


@dataclass(frozen=True, slots=True)
class Read:
    """Make the result of a response that is long: in the triggerer, while the event loop continues.

    :param read: makes it, from ``response``. What it raises, the flow gets.
    """

    read: Callable[[Response], Any]
    response: Response

    def __call__(self) -> Any:
        """Read it without collecting garbage meanwhile.

        Hundreds of rows are thousands of objects that are gone in a moment. Looking for garbage among them, and from
        time to time in the whole process, takes as long as all the rest.
        """
        if not gc.isenabled():
            return self.read(self.response)
        gc.disable()
        try:
            return self.read(self.response)
        finally:
            gc.enable()


Effect = Request | RefreshToken | Sleep | Read
Flow = Generator[Effect, Any, T]


def send(request: Request) -> Flow[Response]:
    """The flow of one request, typed."""
    response: Response = yield request
    return response
