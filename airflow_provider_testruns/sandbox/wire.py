"""From bytes to a platform and back, and everything that can go wrong on the way.

Dropping a connection or breaking off in the middle of a response is out of an ASGI application's reach. So the server
runs on uvicorn's own protocol with one addition: every request's scope carries the transport.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any, cast

from .clock import Clock
from .exchange import Exchange, Match, Response
from .faults import Fault, FaultKind, FaultMoment, FaultPlan
from .platform import PlatformAPI
from .state import SandboxState
from .traffic import SeenRequest, Traffic, Violation

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The largest request body that is read.
MAX_BODY = 64 * 1024 * 1024
_CHUNK = 64 * 1024


class Connections:
    """The open TCP connections of one server.

    :param traffic: counts them.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._open: set[asyncio.Transport] = set()

    def opened(self, transport: asyncio.Transport) -> None:
        """Take note of a connection."""
        self._open.add(transport)
        self._traffic.connection_opened()

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._open.discard(transport)
        self._traffic.connection_closed()

    def abort(self) -> None:
        """Cut every connection, so that nothing that hangs on purpose keeps the server from stopping."""
        for transport in list(self._open):
            transport.abort()


def counting_protocol(connections: Connections) -> type[asyncio.Protocol]:
    """Return an HTTP protocol for uvicorn that keeps count of its connections and hands on the transport.

    httptools is taken when it is there, as it is several times faster; h11 otherwise.
    """
    base: Any
    if importlib.util.find_spec("httptools") is not None:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base
    else:
        from uvicorn.protocols.http.h11_impl import H11Protocol as base

    class CountingProtocol(base):  # type: ignore[misc]
        app_state: dict[str, Any]
        transport: asyncio.Transport

        def connection_made(self, transport: asyncio.Transport) -> None:
            connections.opened(transport)
            super().connection_made(transport)
            # uvicorn copies this into the scope of every request of the connection.
            self.app_state = {**self.app_state, "transport": transport}

        def connection_lost(self, exc: Exception | None) -> None:
            connections.closed(self.transport)
            super().connection_lost(exc)

    return cast(type[asyncio.Protocol], CountingProtocol)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the request's body, None when the client left or sent too much."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        continue


def _transport(scope: Scope) -> asyncio.Transport:
    return cast(asyncio.Transport, scope["state"]["transport"])


async def _send_response(transport: asyncio.Transport, send: Send, response: Response) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if response.stream is None and response.status != 204:
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is not None:
        for chunk in response.stream:
            if transport.is_closing():
                # Nobody is left to read the rest.
                return
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": response.body, "more_body": False})


def _filler(size: int) -> Iterator[bytes]:
    """Yield a JSON string of ``size`` bytes."""
    if size < 2:
        yield b"0" * size
        return
    yield b'"'
    left = size - 2
    block = b"x" * _CHUNK
    while left > 0:
        yield block[: min(left, _CHUNK)]
        left -= _CHUNK
    yield b'"'


class Dated:
    """Gives every response the sandbox's time as its ``Date``: runs begin by the same clock.

    :param app: the application that answers.
    :param clock: the server's.
    """

    def __init__(self, app: App, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if all(name.lower() != b"date" for name, _ in headers):
                    headers.append((b"date", formatdate(self._clock.now(), usegmt=True).encode()))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, dated)


class Gateway:
    """The ASGI application of one platform.

    :param state: the server's state.
    :param platform: whose API it serves.
    """

    def __init__(self, state: SandboxState, platform: PlatformAPI) -> None:
        self._state = state
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox speaks HTTP, not {scope['type']}")
        body = await _read_body(receive)
        if body is None:
            _transport(scope).abort()
            return
        exchange = self._exchange(scope, body)
        with self._state.lock:
            match = self._platform.identify(exchange.method, exchange.raw_path)
            operation = self._operation_name(match)
            path = self._platform.prefix + exchange.raw_path
            plan = self._state.faults.plan(self._platform.name, operation, exchange.method, path)
        arrived = self._state.clock.now()
        wait = plan.latency_before + self._state.settings.latency
        if wait:
            await asyncio.sleep(wait)
        fault = plan.at(FaultMoment.BEFORE)
        response: Response | None = None
        if fault is None:
            with self._state.lock:
                response = self._platform.answer(exchange, match)
            if plan.latency_after:
                await asyncio.sleep(plan.latency_after)
            fault = plan.at(FaultMoment.AFTER)
        if fault is not None:
            response = _faulty_response(fault, response)
        # Counted before it is sent: whoever has the response in hand must find it in the statistics.
        self._count(exchange, operation, arrived, response, plan)
        await self._deliver(scope, receive, send, fault, response)

    def _exchange(self, scope: Scope, body: bytes) -> Exchange:
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "localhost")
        prefix = self._platform.prefix
        return Exchange(
            method=scope["method"],
            raw_path=raw_path.decode("latin-1").partition("?")[0][len(prefix) :],
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=body,
            origin=f"{scope['scheme']}://{host}{prefix}",
        )

    def _operation_name(self, match: Match) -> str:
        if match.operation is not None:
            return match.operation.name
        return f"{self._platform.name}.{'wrong_method' if match.allowed else 'unknown_path'}"

    def _count(
        self, exchange: Exchange, operation: str, arrived: float, response: Response | None, plan: FaultPlan
    ) -> None:
        path = self._platform.prefix + exchange.raw_path
        traffic = self._state.traffic
        with self._state.lock:
            traffic.answered(
                SeenRequest(
                    at=arrived,
                    platform=self._platform.name,
                    operation=operation,
                    method=exchange.method,
                    path=f"{path}?{exchange.query}" if exchange.query else path,
                    status=0 if response is None else response.status,
                    fault=_kind(plan),
                )
            )
            for reason in exchange.violations:
                traffic.violations.append(Violation(arrived, operation, exchange.method, path, reason))

    async def _deliver(
        self, scope: Scope, receive: Receive, send: Send, fault: Fault | None, response: Response | None
    ) -> None:
        if fault is not None and fault.kind is FaultKind.HANG:
            # A client that gives up first ends the hanging.
            with suppress(TimeoutError):
                await asyncio.wait_for(_gone(receive), fault.seconds)
        if response is None:
            _transport(scope).abort()
            await _gone(receive)
            return
        if fault is not None and fault.kind is FaultKind.TRUNCATE:
            await self._truncate(scope, receive, send, response)
            return
        await _send_response(_transport(scope), send, response)

    async def _truncate(self, scope: Scope, receive: Receive, send: Send, response: Response) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        headers.append((b"content-length", str(len(response.body) * 2 + 64).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        half = response.body[: len(response.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        # Unlike abort, close sends what was written before it closes.
        _transport(scope).close()
        await _gone(receive)


def _kind(plan: FaultPlan) -> str | None:
    if plan.fault is not None:
        return plan.fault.kind.value
    return FaultKind.LATENCY.value if plan.latency_before or plan.latency_after else None


def _faulty_response(fault: Fault, response: Response | None) -> Response | None:
    """Return what is answered instead; None when the connection is closed without an answer."""
    json_type = ("content-type", "application/json")
    if fault.kind in (FaultKind.DROP, FaultKind.HANG):
        return None
    if fault.kind is FaultKind.STATUS:
        status = 500 if fault.status is None else fault.status
        media = [] if "content-type" in {name.lower() for name in fault.headers} else [json_type]
        return Response(status, fault.encoded_body(), [*media, *fault.headers.items()])
    if fault.kind is FaultKind.WRONG_JSON:
        return Response(200, fault.encoded_body(), [json_type, *fault.headers.items()])
    if fault.kind is FaultKind.HUGE:
        return Response(200, headers=[json_type], stream=_filler(fault.size))
    if fault.kind is FaultKind.REDIRECT:
        location = ("location", fault.location or "/")
        return Response(302 if fault.status is None else fault.status, b"", [location, *fault.headers.items()])
    # A truncated response is the real one, cut short.
    return response if response is not None else Response(200, b'{"data": []}' * 10, [json_type])
