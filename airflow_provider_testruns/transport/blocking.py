"""Drives flows with requests, in a worker. The only module that imports it."""

from __future__ import annotations

import http.client
import io
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import ProxyError as Urllib3ProxyError

from airflow_provider_testruns import __version__
from airflow_provider_testruns.platforms.call import Reply, Sleep, Steps, Upload
from airflow_provider_testruns.redaction import ClientSecrets, redact
from airflow_provider_testruns.transport.effects import (
    MAX_REPLY,
    Flow,
    Renew,
    ReplyTooLargeError,
    Request,
    WireError,
)
from airflow_provider_testruns.transport.policy import Session
from airflow_provider_testruns.transport.progress import Progress
from airflow_provider_testruns.transport.proxies import proxy_secrets

T = TypeVar("T")

_CHUNK = 64 * 1024
_BEFORE_SENDING = (NewConnectionError, NameResolutionError, Urllib3ProxyError)


@dataclass
class _Exchange:
    """What the connections below need to know of the request that they serve, and the other way round.

    :param deadline: when it must be over; ``None`` for one that moves a file, which takes as long as it takes, as long
        as something moves.
    :param connecting: whether a connection is being made: then nothing of the request has been sent.
    """

    deadline: float | None = None
    connecting: bool = False


#: Of this thread, and the innermost: a signal handler may send a request in the middle of another.
_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange", default=_Exchange())  # noqa: B039  # never changed


class BlockingClient:
    """Carries a session's flows with requests, one at a time.

    :param session: the connection's way to its platform.
    :param verify: as in requests: whether certificates are checked, or the path of a CA bundle.
    :param sleep: waits for so many seconds; for tests.
    """

    def __init__(
        self,
        session: Session,
        *,
        verify: bool | str = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.session = session
        self._verify = verify
        self._sleep = sleep
        self._http = _new_http()
        self._proxies = ClientSecrets(proxy_secrets())
        # Re-entrant: a signal handler may run a flow of its own in the middle of a renewal.
        self._renewal = RLock()

    def run(self, steps: Steps[T], until: float | None = None) -> T:
        """Carry steps to their end.

        :param steps: what to do.
        :param until: no request may last much beyond this time (wall-clock seconds).
        :raises ApiError: as the steps do.
        """
        return self._drive(self.session.carry(steps, until))

    def close(self) -> None:
        """Close the connections that are kept."""
        self._http.close()
        self.session.auth.known.release()
        self._proxies.release()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _drive(self, flow: Flow[T]) -> T:
        value: Any = None
        error: Exception | None = None
        try:
            while True:
                try:
                    effect = flow.throw(error) if error else flow.send(value)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                value, error = None, None
                try:
                    match effect:
                        case Request():
                            value = self._send(effect)
                        case Sleep(seconds):
                            self._sleep(seconds)
                        case Renew(_, stale):
                            with self._renewal:
                                self._drive(self.session.renewing(stale))
                except Exception as e:  # whatever it is, the flow decides what it means
                    error = e
        finally:
            flow.close()

    def _send(self, request: Request) -> Reply:
        http = _new_http() if request.fresh else self._http
        moves_a_file = request.upload is not None or request.save_to is not None
        exchange = _Exchange(None if moves_a_file else time.monotonic() + request.timeout)
        before = _EXCHANGE.set(exchange)
        self._proxies.hold()
        headers = dict(request.headers)
        data: Any = request.body
        upload = None
        if request.upload is not None:
            data = upload = _MultipartFile(request.upload, f"Sent of {request.method} {urlsplit(request.url).path}")
            headers["Content-Type"] = upload.content_type
        # What the library raises holds the request, with its headers, and maybe a proxy's password: it does not get
        # into the chain of our own error, which Airflow logs as a traceback.
        error: WireError
        try:
            with http.request(
                request.method,
                request.url,
                headers=headers,
                data=data,
                auth=_as_it_is,
                timeout=(min(10.0, request.timeout), request.timeout),
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._receive(response, request)
                return Reply(
                    response.status_code, {key.lower(): value for key, value in response.headers.items()}, body
                )
        except requests.RequestException as e:
            error = _wire_error(e, exchange.connecting)
        except LocationValueError as e:
            error = WireError(f"the address is not usable ({_short(redact(str(e)))})", sent=False)
        except HTTPError as e:
            error = WireError(f"the connection broke ({type(e).__name__})", sent=True)
        finally:
            _EXCHANGE.reset(before)
            if upload is not None:
                upload.close()
            if request.fresh:
                http.close()
        try:
            raise error
        finally:
            # Else the error and this frame keep each other alive.
            del error

    def _receive(self, response: requests.Response, request: Request) -> bytes:
        if request.save_to is not None and 200 <= response.status_code < 300:
            length = response.headers.get("Content-Length", "")
            whole = int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
            progress = Progress(f"Received of {request.method} {urlsplit(request.url).path}", whole)
            with request.save_to.open("wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    progress.add(len(chunk))
            return b""
        parts: list[bytes] = []
        size = 0
        for chunk in response.iter_content(_CHUNK):
            size += len(chunk)
            if size > MAX_REPLY:
                raise ReplyTooLargeError
            parts.append(chunk)
        return b"".join(parts)


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket until a deadline. The time-outs of requests begin anew with every byte that comes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A reply that is read, from its first line on, within the deadline."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        deadline = _EXCHANGE.get().deadline
        if deadline is not None:
            self.fp: Any = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, deadline))


@contextmanager
def _connecting(connection: HTTPConnection) -> Iterator[None]:
    exchange = _EXCHANGE.get()
    exchange.connecting = True
    yield
    if exchange.deadline is not None and time.monotonic() >= exchange.deadline:
        connection.close()
        raise ConnectTimeoutError(connection, "the connection took too long")
    exchange.connecting = False


class _Connection(HTTPConnection):
    response_class = _Response
    #: http.client can be told, for the whole process, to print what it sends. Not what we send, and with what headers.
    debuglevel = 0

    def connect(self) -> None:
        with _connecting(self):
            super().connect()


class _TLSConnection(HTTPSConnection):
    response_class = _Response
    debuglevel = 0

    def connect(self) -> None:
        with _connecting(self):
            super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    """Connects with the connections above."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager


class _MultipartFile:
    """A multipart form with one file, read from the disk while it is sent."""

    def __init__(self, upload: Upload, what: str) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        name = upload.path.name.replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{upload.field}"; filename="{name}"\r\n'
            f"Content-Type: {upload.content_type}\r\n\r\n"
        )
        self._size, self._file = _open(upload.path)
        self._progress = Progress(what, self._size)
        self._parts = [head.encode(), None, f"\r\n--{boundary}--\r\n".encode()]
        self._length = self._size + sum(len(part) for part in self._parts if part is not None)
        self._chunks = self._read()
        self._left = b""

    def __len__(self) -> int:
        return self._length

    def _read(self) -> Iterator[bytes]:
        for part in self._parts:
            if part is not None:
                yield part
            else:
                while chunk := self._file.read(_CHUNK):
                    self._progress.add(len(chunk))
                    yield chunk

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as http.client asks for them."""
        while size < 0 or len(self._left) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._left += chunk
        cut = len(self._left) if size < 0 else size
        given, self._left = self._left[:cut], self._left[cut:]
        return given

    def close(self) -> None:
        self._file.close()


def _open(path: Path) -> tuple[int, IO[bytes]]:
    return path.stat().st_size, path.open("rb")


class _Http(requests.Session):
    """Leaves redirects alone. requests looks into them even when it is told not to follow: it then reads their whole
    body, and raises for an address that can't be one as if nothing had been sent."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _new_http() -> requests.Session:
    http = _Http()
    http.mount("http://", _Adapter())
    http.mount("https://", _Adapter())
    http.headers["User-Agent"] = f"airflow-provider-testruns/{__version__}"
    return http


def _as_it_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting a .netrc entry in the place of our own header."""
    return prepared


def _wire_error(error: requests.RequestException, connecting: bool) -> WireError:
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    text = redact(str(reason or error))
    if isinstance(error, requests.exceptions.SSLError):
        certificate = connecting and ("CERTIFICATE_VERIFY_FAILED" in text or "match" in text)
        return WireError(f"TLS failed: {text}", sent=not connecting, certificate=certificate)
    if isinstance(error, requests.exceptions.Timeout) or isinstance(reason, ReadTimeoutError):
        if connecting:
            return WireError("no connection within the time allowed", sent=False)
        return WireError("no complete reply within the time allowed", sent=True)
    if connecting or isinstance(reason, _BEFORE_SENDING):
        return WireError(f"no connection ({_short(text)})", sent=False)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return WireError(f"the address is not usable ({_short(text)})", sent=False)
    return WireError(f"the connection was lost ({_short(text)})", sent=True)


def _short(text: str) -> str:
    """The part of a urllib3 message that says what happened, without the object's repr before it."""
    return text.rsplit(": ", 1)[-1].strip("()'\" ")[:200]
