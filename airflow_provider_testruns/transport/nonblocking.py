"""Drives flows with aiohttp, in the triggerer. The only module that imports it."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from airflow_provider_testruns import __version__, timing
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.steps import Response, Sleep, StepIterator, Steps, clean_headers
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
from airflow_provider_testruns.transport.policy import Allowance, RequestStats, Session
from airflow_provider_testruns.transport.proxies import Proxy, proxy_for, proxy_secrets
from airflow_provider_testruns.transport.tls import Tls

T = TypeVar("T")

#: Connections of one client, however many runs are waited for through it, as long as they are enough.
CONNECTIONS = 8
#: How many they may become, unless the setting ``[testruns] max_connections`` says otherwise.
MAX_CONNECTIONS = 64


#: How much is read from a connection at once, in bytes.
_AT_ONCE = 64 * 1024
#: The empty line after a response's headers.
_END_OF_HEAD = re.compile(rb"\n\r?\n")


@dataclass(slots=True)
class _Exchange:
    """How far a request is.

    :param connecting: whether a connection is being made: then nothing of the request has been sent.
    """

    connecting: bool = False


_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange", default=_Exchange())  # noqa: B039  # never read


class Room:
    """How many requests of a client are under way at once, and so how many connections it has: as many as are enough.

    There is more room when requests have to wait for longer than :data:`.timing.ROOM_AFTER` while the platform
    answers, one for each answer; and again less when it has not been needed for :data:`.timing.ROOM_FOR`. First come,
    first served.

    :param most: the most that there may be.
    :param clock: seconds that never go back; for tests.
    """

    def __init__(self, most: int = MAX_CONNECTIONS, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.size = self._least = min(CONNECTIONS, most)
        self._clock = clock
        self._taken = 0
        #: The most that were taken at once since the beginning of the period.
        self._needed = 0
        self._since = clock()
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    async def __aenter__(self) -> None:
        if self._taken < self.size and not self._waiting:
            self._take()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((self._clock(), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was this one's turn already.
                self._leave()
            raise

    async def __aexit__(self, *exc: object) -> None:
        now = self._clock()
        if now - self._since >= timing.ROOM_FOR:
            self.size = max(self._least, min(self.size, self._needed))
            self._since, self._needed = now, self._taken
        self._leave()

    def answered(self) -> None:
        """The platform has answered a request: more may be under way at once, if they wait for it."""
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        late = self._waiting and self._clock() - self._waiting[0][0] > timing.ROOM_AFTER
        if late and self.size < self.most:
            self.size += 1

    def _take(self) -> None:
        self._taken += 1
        self._needed = max(self._needed, self._taken)

    def _leave(self) -> None:
        self._taken -= 1
        while self._waiting and self._taken < self.size:
            _, turn = self._waiting.popleft()
            if not turn.done():
                self._take()
                turn.set_result(None)


class AsyncClient:
    """Carries a session's flows with aiohttp, many at a time over a few connections. Belongs to one event loop.

    :param session: the connection's way to its platform.
    :param tls: what is trusted and shown over TLS.
    :param max_connections: how many connections it may have at most.
    """

    def __init__(
        self,
        session: Session,
        *,
        tls: Tls | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.session = session
        self._tls = tls or Tls()
        self._http: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._proxies: dict[tuple[str, str], Proxy | None] = {}
        self._proxy_secrets = ClientSecrets(proxy_secrets())
        self._room = Room(max_connections)
        self._opening = asyncio.Lock()
        self._renewal = asyncio.Lock()
        self._reading = asyncio.Lock()

    async def run(self, steps: Steps[T], until: float | None = None, stats: RequestStats | None = None) -> T:
        """Carry steps to their end.

        :param steps: what to do.
        :param until: no request may last much beyond this time (wall-clock seconds).
        :param stats: counts what it costs.
        :raises ApiError: as the steps do.
        """
        return await self._drive(self.session.execute(steps, until, stats, Allowance.in_the_triggerer()))

    async def close(self) -> None:
        """Close the connections. The client can be used again; it opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()
        self.session.auth.known.release()
        self._proxy_secrets.release()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _drive(self, flow: Flow[T]) -> T:
        with StepIterator(flow) as effects:
            for effect in effects:
                try:
                    effects.value = await self._perform(effect)
                except Exception as e:  # whatever it is, the flow decides what it means
                    effects.error = e
                # An error's traceback would keep what is in it: a response, maybe.
                del effect
            return effects.result

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Request():
                return await self._send(effect)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Read():
                # Parsing holds up the loop even so, but for no longer than what is counted before allows; the rest
                # takes turns with it. One at a time: each takes its memory.
                async with self._reading:
                    return await asyncio.to_thread(effect)
            case RefreshToken(_, stale):
                async with self._renewal:
                    return await self._drive(self.session.refreshing_token(stale))

    async def _send(self, request: Request) -> Response:
        if request.upload is not None or request.save_to is not None:
            raise NotImplementedError("Files are moved by workers, not by the triggerer.")
        # What the library raises holds the request, with its headers, and maybe a proxy's password: it does not get
        # into the chain of our own error, which Airflow logs as a traceback.
        error: NetworkError
        # Waiting for one of the few connections must not count, so the time is not left to aiohttp.
        async with self._room:
            http = self._http or await self._open()
            exchange = _Exchange()
            before = _EXCHANGE.set(exchange)
            proxy: Proxy | None = None
            try:
                async with asyncio.timeout(request.timeout):
                    proxy = await self._proxy_for(request.url)
                    if not request.new_connection:
                        response = await self._exchange(http, request, proxy)
                    else:
                        async with self._new_http() as own:
                            response = await self._exchange(own, request, proxy)
                    self._room.answered()
                    return response
            except (aiohttp.ClientError, OSError, ValueError) as e:
                tls = request.url.startswith("https:")
                error = _network_error(e, exchange.connecting, tls=tls, proxy=proxy is not None)
            finally:
                _EXCHANGE.reset(before)
        try:
            raise error
        finally:
            # Else the error and this frame keep each other alive.
            del error

    async def _exchange(self, http: aiohttp.ClientSession, request: Request, proxy: Proxy | None) -> Response:
        deadline = asyncio.get_running_loop().time() + request.timeout
        connect = min(10.0, request.timeout * 0.9)
        headers = request.headers
        to_proxy: Mapping[str, str] | None = None
        if proxy is not None and (authorization := proxy.authorization) is not None:
            to_proxy = {"Proxy-Authorization": authorization}
            if request.url.startswith("http:"):
                # There is no tunnel to ask for: the proxy reads the request itself.
                headers, to_proxy = {**headers, **to_proxy}, None
        async with http.request(
            request.method,
            request.url,
            headers=headers,
            data=request.body,
            proxy=None if proxy is None else proxy.url,
            proxy_headers=to_proxy,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect),
        ) as response:
            body = Body(request, response.status, clean_headers(_headers(response).items()))
            async for chunk in response.content.iter_any():
                # As long as something is there already, nothing else gets a turn, nor does the timeout.
                if asyncio.get_running_loop().time() > deadline:
                    raise TimeoutError
                if not body.add(chunk):
                    break
            return body.response()

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._http is None:
                if self._context is None:
                    # Reading a CA bundle takes tens of milliseconds: not in the event loop.
                    self._context = await asyncio.to_thread(self._tls.context)
                self._http = self._new_http()
                self._proxy_secrets.hold()
            return self._http

    def _new_http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(self._room, ssl=self._context or True, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"airflow-provider-testruns/{__version__}", "Accept-Encoding": ACCEPTED},
            auto_decompress=False,
        )

    async def _proxy_for(self, url: str) -> Proxy | None:
        """The proxy of the environment, which can differ between the platform and its token endpoint."""
        scheme, _, rest = url.partition("://")
        origin = (scheme, rest.partition("/")[0])
        if origin not in self._proxies:
            self._proxies[origin] = await asyncio.to_thread(proxy_for, url)
        return self._proxies[origin]


class _Protocol(ResponseHandler):
    """Reads a proxy's answer to CONNECT with the limits that all responses have, where aiohttp has 8 kB; and a response
    whose length is known to its end, whatever the server sends behind it. http.client leaves that alone, and aiohttp's
    parser drops the response with it: a run that a worker has started could not be seen in the triggerer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin_response()

    def _begin_response(self) -> None:
        self._message: Any = None
        #: The last bytes of a head that is not whole yet.
        self._before = b""
        #: How much of the response is still to come; ``None`` while not known, or where only the parser can tell.
        self._left: int | None = None

    def set_response_params(self, **params: Any) -> None:
        self._begin_response()
        params |= {"max_line_size": failures.MAX_LINE, "max_field_size": failures.MAX_LINE}
        super().set_response_params(**params | {"max_headers": failures.MAX_OTHER_HEADERS})

    def feed_data(self, data: Any, size: int = 0) -> None:
        self._message = data
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        # Else whoever reads the body learns of what is wrong in it when its time is over.
        if isinstance(exc, HttpProcessingError) and self._message is not None and not self._message[1].is_eof():
            self._message[1].set_exception(failures.not_http())
        super().set_exception(exc, *cause)

    def data_received(self, data: bytes) -> None:
        while data and self._message is None and self._parser is not None:
            # Heads one by one: the parser would take what is behind the response before it hands the response over.
            end = _END_OF_HEAD.search(self._before + data)
            size = len(data) if end is None else end.end() - len(self._before)
            self._before = (self._before + data[:size])[-2:] if end is None else b""
            super().data_received(data[:size])
            data = data[size:]
            self._left = self._length()
            if not data:
                return
        if self._left is not None:
            if len(data) > self._left and self.transport is not None:
                # Behind the response. Nobody can tell what would be read as the next one.
                self._should_close = True
                self.transport.close()
            data = data[: self._left]
            self._left -= len(data)
            if not data:
                return
        super().data_received(data)

    def _length(self) -> int | None:
        """How long the body is, by the head; ``None`` where that does not say it, or is not there yet."""
        if self._message is None:
            return None
        message, payload = self._message
        if 100 <= message.code < 200:
            if message.code != 101:
                # The response is still to come.
                self._message = None
            return None
        if payload.is_eof() or message.code in (204, 304):
            return 0
        length = message.headers.get("Content-Length")
        return None if message.chunked or length is None else int(length)


class _Connector(aiohttp.TCPConnector):
    """Notes while a connection is being made; aiohttp's errors don't show it for a proxy's tunnel. Keeps no more
    connections than there is room for."""

    def __init__(self, room: Room, **options: Any) -> None:
        super().__init__(limit=room.most, **options)
        self._room = room
        self._factory = cast("partial[ResponseHandler]", partial(_Protocol, loop=self._loop))

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        # aiohttp takes the one that has been idle for the longest: one too many would never be idle for long enough.
        kept = sum(map(len, self._conns.values())) + len(self._acquired)
        super()._release(key, protocol, should_close=should_close or kept > self._room.size)

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        exchange = _EXCHANGE.get()
        exchange.connecting = True
        connection = await super().connect(*args, **kwargs)
        exchange.connecting = False
        # So much is read, and parsed, before anything else gets a turn: asyncio's own 256 KB may be 10,000 responses.
        transport: Any = connection.transport
        if hasattr(transport, "max_size"):
            transport.max_size = _AT_ONCE
        # Over TLS the buffer is another one, made for the handshake.
        tls: Any = getattr(transport, "_ssl_protocol", None)
        if hasattr(tls, "_ssl_buffer_view") and len(tls._ssl_buffer) > _AT_ONCE:
            tls.max_size = _AT_ONCE
            tls._ssl_buffer = bytearray(_AT_ONCE)
            tls._ssl_buffer_view = memoryview(tls._ssl_buffer)
        return connection


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers as requests gives them: a name that is there several times has all its values."""
    raw = response.raw_headers
    version = response.version
    # With a colon, a blank and the end of the line.
    long = any(len(name) + len(value) + 4 > failures.MAX_LINE for name, value in raw)
    if long or len(raw) > failures.MAX_HEADERS or version is None or version.major != 1 or response.status < 100:
        raise failures.not_http()
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _network_error(error: Exception, connecting: bool, *, tls: bool, proxy: bool) -> NetworkError:
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):
        return failures.unusable_url()
    if connecting and proxy:
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return failures.proxy_refused(error.status)
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientResponseError):
            return failures.proxy_refused(None)
    if isinstance(error, TimeoutError):
        return failures.connect_timeout() if connecting else failures.response_timeout()
    if connecting:
        return failures.no_connection(error, tls=tls, proxy=proxy)
    return failures.not_http() if isinstance(error, aiohttp.ClientResponseError) else failures.lost(error)
