"""Drives flows with requests, in a worker. The only module that imports it."""

from __future__ import annotations

import http.client
import io
import math
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
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
    InvalidChunkLength,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import ProxyError as Urllib3ProxyError

from airflow_provider_testruns import __version__
from airflow_provider_testruns.emission import tidy_errors
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.steps import Response, Sleep, StepIterator, Steps, Upload, clean_headers
from airflow_provider_testruns.transport import failures
from airflow_provider_testruns.transport.body import Body
from airflow_provider_testruns.transport.decoding import ACCEPTED
from airflow_provider_testruns.transport.effects import (
    Effect,
    Flow,
    NetworkError,
    Read,
    RefreshToken,
    Request,
)
from airflow_provider_testruns.transport.policy import Session
from airflow_provider_testruns.transport.progress import Pace, Progress
from airflow_provider_testruns.transport.proxies import proxy_for, proxy_secrets
from airflow_provider_testruns.transport.tls import Tls

T = TypeVar("T")

_CHUNK = 64 * 1024
#: How many responses of 1xx may come before the one that counts.
_MAX_INTERIM = 1000
#: What http.client says of a proxy that opens no tunnel.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")
_BEFORE_SENDING = (NewConnectionError, NameResolutionError, Urllib3ProxyError)


@dataclass
class _Exchange:
    """What the connections below need to know of the request that they serve, and the other way round.

    :param timeout: seconds for what is no file.
    :param deadline: when it must be over; ``None`` while a file moves, which takes as long as it takes, as long as it
        moves fast enough.
    :param pace: of the file that moves.
    :param connecting: whether a connection is being made: then nothing of the request has been sent.
    """

    timeout: float = 0.0
    deadline: float | None = None
    pace: Pace | None = None
    connecting: bool = False

    def set_deadline(self) -> None:
        """From now on it is no file."""
        self.deadline, self.pace = time.monotonic() + self.timeout, None

    def set_pace(self) -> Pace:
        """From now on it is a file."""
        self.deadline, self.pace = None, Pace()
        return self.pace

    def time_left(self) -> float:
        """Seconds for the next read.

        :raises TimeoutError: when there is none.
        """
        if self.deadline is None:
            return self.timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


#: Of this thread, and the innermost: a signal handler may send a request in the middle of another.
_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange", default=_Exchange())  # noqa: B039  # never changed


class BlockingClient:
    """Carries a session's flows with requests, one at a time.

    :param session: the connection's way to its platform.
    :param tls: what is trusted and shown over TLS.
    :param sleep: waits for so many seconds; for tests.
    :raises TlsFileError: when a file of ``tls`` can't be used.
    """

    def __init__(
        self,
        session: Session,
        *,
        tls: Tls | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.session = session
        self._tls = (tls or Tls()).context()
        self._sleep = sleep
        #: The seconds that are left for all that this client does; asked before each step, and may raise instead.
        self.time_left: Callable[[], float] = lambda: math.inf
        self._http = _new_http(self._tls)
        self._proxies = ClientSecrets(proxy_secrets())
        # Re-entrant: a signal handler may run a flow of its own in the middle of a renewal.
        self._renewal = RLock()

    @tidy_errors
    def run(self, steps: Steps[T], until: float | None = None) -> T:
        """Carry steps to their end.

        :param steps: what to do.
        :param until: no request may last much beyond this time (wall-clock seconds).
        :raises ApiError: as the steps do.
        """
        return self._drive(self.session.execute(steps, until))

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
        with StepIterator(flow) as effects:
            for effect in effects:
                try:
                    effects.value = self._perform(effect)
                except Exception as e:  # whatever it is, the flow decides what it means
                    effects.error = e
                # An error's traceback would keep what is in it: a response, maybe.
                del effect
            return effects.result

    def _perform(self, effect: Effect) -> Any:
        left = self.time_left()
        match effect:
            case Request():
                return self._send(effect if effect.timeout <= left else replace(effect, timeout=left))
            case Sleep(seconds):
                return self._sleep(min(seconds, left))
            case Read():
                return effect()
            case RefreshToken(_, stale):
                with self._renewal:
                    return self._drive(self.session.refreshing_token(stale))

    def _send(self, request: Request) -> Response:
        proxy = proxy_for(request.url)
        client = _new_http(self._tls) if request.new_connection else self._http
        exchange = _Exchange(request.timeout)
        exchange.set_deadline()
        before = _EXCHANGE.set(exchange)
        self._proxies.hold()
        headers = dict(request.headers)
        data: Any = request.body
        upload = None
        if request.upload is not None:
            what = f"Sent of {request.method} {urlsplit(request.url).path}"
            data = upload = _MultipartFile(request.upload, what, exchange.set_pace)
            headers["Content-Type"] = upload.content_type
        # What the library raises holds the request, with its headers, and maybe a proxy's password: it does not get
        # into the chain of our own error, which Airflow logs as a traceback.
        error: NetworkError
        try:
            with client.request(
                request.method,
                request.url,
                headers=headers,
                data=data,
                auth=_no_auth,
                timeout=(min(10.0, request.timeout), request.timeout),
                proxies={} if proxy is None else {urlsplit(request.url).scheme: proxy.whole_url},
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._receive(response, request, exchange)
        except (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError) as e:
            tls = request.url.startswith("https:")
            error = _network_error(e, exchange.connecting, tls=tls, proxy=proxy is not None)
        finally:
            _EXCHANGE.reset(before)
            if upload is not None:
                upload.close()
            if request.new_connection:
                client.close()
        try:
            raise error
        finally:
            # Else the error and this frame keep each other alive.
            del error

    def _receive(self, response: requests.Response, request: Request, exchange: _Exchange) -> Response:
        headers = clean_headers(response.headers.items())
        if request.save_to is None or not 200 <= response.status_code < 300:
            body = Body(request, response.status_code, headers)
            for chunk in response.raw.stream(_CHUNK, decode_content=False):
                # What has been received already is read without a look at the time.
                exchange.time_left()
                if not body.add(chunk):
                    break
            return body.response()
        with request.save_to.open("wb") as file:
            body = Body(request, response.status_code, headers, file)
            progress = Progress(f"Received of {request.method} {urlsplit(request.url).path}", body.length)
            exchange.set_pace()
            for chunk in response.raw.stream(_CHUNK, decode_content=False):
                self.time_left()
                body.add(chunk)
                progress.add(len(chunk))
            return body.response()


class _InTime(io.RawIOBase):
    """Reads from a socket as long as there is time. The timeouts of requests begin again with every byte that comes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, exchange: _Exchange) -> None:
        self._raw = raw
        self._sock = sock
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._exchange.time_left())
        size = self._raw.readinto(buffer)
        if self._exchange.pace is not None:
            self._exchange.pace.add(size or 0)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Head:
    """Keeps the lines of a response's head. http.client takes much that is no HTTP, and aiohttp does not.

    :param raw: what they are read from.
    """

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.lines: list[bytes] = []
        self._begun = False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self.raw.readline(limit)
        while not self._begun and line in (b"\r\n", b"\n"):
            line = self.raw.readline(limit)
        self._begun = True
        self.lines.append(line)
        return line

    def rest(self) -> list[bytes]:
        """The lines of a head that is none of a response yet."""
        self.lines.clear()
        while len(self.lines) <= failures.MAX_OTHER_HEADERS:
            line = self.readline(failures.MAX_LINE + 1)
            if len(line) > failures.MAX_LINE:
                break
            if line in (b"\r\n", b"\n", b""):
                return self.lines
        raise http.client.HTTPException("too much before the response")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class _Chunks:
    """What a body in chunks is read from. urllib3 takes much that is no chunk, and aiohttp does not.

    :param raw: what it is read from.
    """

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        #: How much of a chunk is still to come, with the end of the line after it.
        self._left = 0
        self._trailer: list[bytes] | None = None

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self.raw.readline(limit)
        if len(line) == limit and not line.endswith(b"\n"):
            raise http.client.LineTooLong("between chunks")
        if self._trailer is None:
            size = failures.chunk_size(line)
            if size:
                self._left = size + 2
            else:
                self._trailer = []
            return line
        self._trailer.append(line)
        if line in (b"\r\n", b"\n", b""):
            failures.check_head(self._trailer)
            # What urllib3 ends at.
            return b"\r\n"
        if len(self._trailer) > failures.MAX_OTHER_HEADERS:
            raise http.client.HTTPException("too many headers after the last chunk")
        return line

    def read(self, size: int = -1) -> bytes:
        # urllib3 reads what is behind a chunk by itself.
        behind = self._left == 2
        data: bytes = self.raw.read(size)
        self._left -= len(data)
        if behind and data and data != b"\r\n"[: len(data)]:
            raise http.client.HTTPException("a chunk that does not end where it should")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class _Response(http.client.HTTPResponse):
    """A response that is read, from its first line on, within the deadline."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        exchange = _EXCHANGE.get()
        if exchange.pace is not None:
            # The file has been sent.
            exchange.set_deadline()
        self.fp: Any = io.BufferedReader(_InTime(self.fp.detach(), sock, exchange))

    def begin(self, *args: Any, **kwargs: Any) -> None:
        head = _Head(self.fp)
        self.fp = head
        try:
            super().begin(*args, **kwargs)
        finally:
            if self.fp is head:
                self.fp = head.raw
        failures.check_head(head.lines)
        if self.chunked and self.fp is not None:
            self.fp = _Chunks(self.fp)

    def _read_status(self) -> tuple[str, int, str]:
        # A proxy's answer to CONNECT is read without begin().
        tunnel = not isinstance(self.fp, _Head)
        head = _Head(self.fp) if tunnel else self.fp
        # http.client passes over 100 only; 102, 103 and whatever else may come before the response are none either.
        for _ in range(_MAX_INTERIM):
            line = head.readline(failures.MAX_LINE + 1)
            if not line:
                raise http.client.RemoteDisconnected("closed")
            if len(line) > failures.MAX_LINE:
                raise http.client.LineTooLong("status line")
            failures.check_status_line(line)
            version, status, *reason = line.decode("latin-1").rstrip("\r\n").split(" ", 2)
            if not 100 <= int(status) < 200 or status == "101":
                head.lines.clear()
                if tunnel:
                    # http.client takes any lines for its head, and looks at none.
                    lines = head.rest()
                    failures.check_head(lines)
                    head.raw.close()
                    self.fp = io.BytesIO(b"".join(lines))
                return version, int(status), reason[0].strip() if reason else ""
            failures.check_head(head.rest())
        raise http.client.HTTPException("no end of interim responses")


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
    """Connects with the connections above, and with the TLS context that both clients have.

    :param tls: that context. requests would read the CA bundle again for each connection.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, proxy_ssl_context=self._tls)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        host, _ = super().build_connection_pool_key_attributes(*args, **kwargs)
        # For http, too: the proxy on the way there may speak TLS.
        return host, {"ssl_context": self._tls}

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the connection as it is: the context has all that it is about."""


class _MultipartFile:
    """A multipart form with one file, read from the disk while it is sent.

    :param upload: the file.
    :param what: the transfer in words.
    :param begin: called when the first bytes are sent; gives what sees to it that it does not take for ever.
    """

    def __init__(self, upload: Upload, what: str, begin: Callable[[], Pace]) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        name = upload.path.name.replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{upload.field}"; filename="{name}"\r\n'
            f"Content-Type: {upload.content_type}\r\n\r\n"
        )
        self._size, self._file = _open(upload.path)
        self._progress = Progress(what, self._size)
        self._begin = begin
        self._parts = [head.encode(), None, f"\r\n--{boundary}--\r\n".encode()]
        self._length = self._size + sum(len(part) for part in self._parts if part is not None)
        self._chunks = self._read()
        self._left = b""

    def __len__(self) -> int:
        return self._length

    def _read(self) -> Iterator[bytes]:
        # The connection is there.
        pace = self._begin()
        for part in self._parts:
            if part is not None:
                yield part
            else:
                while chunk := self._file.read(_CHUNK):
                    yield chunk
                    self._progress.add(len(chunk))
                    pace.add(len(chunk))

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


def _new_http(tls: ssl.SSLContext) -> requests.Session:
    http = _Http()
    # The environment's proxies and CA bundle are read by us, for both clients alike; its .netrc by nobody.
    http.trust_env = False
    http.mount("http://", _Adapter(tls))
    http.mount("https://", _Adapter(tls))
    http.headers["User-Agent"] = f"airflow-provider-testruns/{__version__}"
    http.headers["Accept-Encoding"] = ACCEPTED
    return http


def _no_auth(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting a .netrc entry in the place of our own header."""
    return prepared


def _network_error(error: Exception, connecting: bool, *, tls: bool, proxy: bool) -> NetworkError:
    found = tuple(failures.chain(error))
    if any(isinstance(each, LocationValueError | requests.exceptions.InvalidURL | UnicodeError) for each in found):
        return failures.unusable_url()
    not_sent = connecting or any(isinstance(each, _BEFORE_SENDING) for each in found)
    if not_sent and proxy:
        for each in found:
            if (answer := _TUNNEL.match(str(each))) is not None:
                return failures.proxy_refused(int(answer[1]))
            if isinstance(each, http.client.HTTPException):
                return failures.proxy_refused(None)
    if any(isinstance(each, TimeoutError | ReadTimeoutError) or type(each) is ConnectTimeoutError for each in found):
        return failures.connect_timeout() if not_sent else failures.response_timeout()
    if not_sent:
        return failures.no_connection(error, tls=tls, proxy=proxy)
    # urllib3 says of a connection that ends where a chunk should begin that the length is none.
    no_chunk = any(isinstance(each, InvalidChunkLength) and each.length != b"" for each in found)
    return failures.not_http() if no_chunk or failures.is_malformed(error) else failures.lost(error)
