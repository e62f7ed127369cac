"""What the tests of the transport share: both drivers under one face, and a server that misbehaves as no other can."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.steps import Call, Response, Steps, ask
from airflow_provider_testruns.transport.auth import Auth, FixedHeaders, OAuthToken
from airflow_provider_testruns.transport.policy import Session
from airflow_provider_testruns.transport.tls import Tls

T = TypeVar("T")

SMOKE = omilia.named_id(1)
BEARER = omilia.STATIC_BEARER
API = OmiliaPlatform()
_KEPT = 1024 * 1024


class Blocking:
    """Carries calls with requests, as a worker does."""

    def __init__(self, session: Session, verify: bool | str = True, **tls: str) -> None:
        from airflow_provider_testruns.transport.blocking import BlockingClient

        self._client = BlockingClient(session, tls=Tls(verify, **tls))

    def run(self, steps: Steps[T], until: float | None = None) -> T:
        return self._client.run(steps, until)

    def ask(self, call: Call[T], until: float | None = None) -> T:
        return self.run(ask(call), until)

    def close(self) -> None:
        self._client.close()


class Nonblocking:
    """Carries calls with aiohttp, as the triggerer does; in an event loop that lasts as long as this."""

    def __init__(self, session: Session, verify: bool | str = True, **tls: str) -> None:
        from airflow_provider_testruns.transport.nonblocking import AsyncClient

        async def open_client() -> AsyncClient:
            return AsyncClient(session, tls=Tls(verify, **tls))

        self._closed = False
        self._runner = asyncio.Runner()
        self._client = self._runner.run(open_client())

    def run(self, steps: Steps[T], until: float | None = None) -> T:
        return self._runner.run(self._client.run(steps, until))

    def ask(self, call: Call[T], until: float | None = None) -> T:
        return self.run(ask(call), until)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._runner.run(self._client.close())
            self._runner.close()


Driver = Blocking | Nonblocking
Drive = Callable[..., Driver]


def fixed(token: str = BEARER) -> FixedHeaders:
    """A token that never changes."""
    return FixedHeaders({"Authorization": f"Bearer {token}"}, (token,))


def session(base_url: str, auth: Auth | None = None, timeout: float = 60.0) -> Session:
    """A connection's way to any server."""
    return Session("omilia_default", base_url, auth or fixed(), timeout=timeout)


def to_sandbox(sandbox: SandboxServer, auth: Auth | None = None, timeout: float = 60.0) -> Session:
    """A connection's way to the sandbox's Omilia."""
    return session(f"{sandbox.url}/omilia", auth, timeout)


def password_grant(sandbox: SandboxServer, **options: Any) -> OAuthToken:
    """Tokens of the sandbox's Omilia, with refresh tokens beside them."""
    grant = {
        "grant_type": "password",
        "client_id": "ocp",
        "username": omilia.USER,
        "password": omilia.PASSWORD,
    }
    url = f"{sandbox.url}/omilia/auth/realms/master/protocol/openid-connect/token"
    return OAuthToken(url, grant, **{"can_refresh": True, **options})


def get(path: str = "/", **options: Any) -> Call[Any]:
    """A call that may be repeated and whose response is JSON."""
    return Call("look", "GET", path, Response.json, **options)


def post(path: str = "/", **options: Any) -> Call[Any]:
    """A call that starts something."""
    return Call("start it", "POST", path, Response.json, json={"what": "a run"}, idempotent=False, **options)


@dataclass
class Seen:
    """One request, as it came.

    :param body: its first megabyte.
    :param size: how long it was.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    size: int


@dataclass
class Line:
    """One connection of a :class:`RawServer`, from the server's side."""

    sock: socket.socket
    server: RawServer
    number: int
    _left: bytes = field(default=b"", init=False)

    def read_head(self) -> tuple[str, str, dict[str, str]] | None:
        """The next request's line and headers; None when the client has left."""
        data = self._left
        while b"\r\n\r\n" not in data:
            got = self.sock.recv(65_536)
            if not got:
                return None
            data += got
        head, _, self._left = data.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        return method, path, headers

    def read(self, pause: float = 0.0) -> Seen | None:
        """The next request, whole; noted in the server's list.

        :param pause: seconds between two reads of the body.
        """
        head = self.read_head()
        if head is None:
            return None
        method, path, headers = head
        wanted = int(headers.get("content-length", "0"))
        kept, size = bytearray(self._left), len(self._left)
        self._left = b""
        buffer = bytearray(_KEPT)
        while size < wanted:
            time.sleep(pause)
            got = self.sock.recv_into(buffer)
            if not got:
                return None
            size += got
            if len(kept) < _KEPT:
                kept += buffer[:got]
        seen = Seen(method, path, headers, bytes(kept), size)
        self.server.seen.append(seen)
        return seen

    def linger(self) -> None:
        """Say nothing until the server is closed."""
        self.server.closing.wait(10)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def response(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"HTTP/1.1 {status} As ordered\r\n{head}\r\n".encode("latin-1") + body)


class RawServer:
    """A server that does as a test says, byte by byte; each connection in a thread of its own.

    :param talk: given each connection; it is closed when this returns.
    :param tls: makes it speak TLS.
    :param port: where it listens; 0 for any free one.
    """

    def __init__(self, talk: Callable[[Line], None], tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._talk = talk
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", port))
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        #: Set when the server is to end.
        self.closing = threading.Event()
        #: Every request that was read whole.
        self.seen: list[Seen] = []
        #: How many connections there were.
        self.connections = 0
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:  # it was closed
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        # Clients that leave in the middle are what many of these tests are about.
        with suppress(OSError), sock:
            if self._tls is not None:
                with self._tls.wrap_socket(sock, server_side=True) as wrapped:
                    self._open.add(wrapped)
                    self._talk(Line(wrapped, self, number))
            else:
                self._talk(Line(sock, self, number))

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._accepting.join(5)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


Answer = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]


def answering(answer: Callable[[Seen], Answer]) -> Callable[[Line], None]:
    """A way to talk: every request gets what ``answer`` makes of it."""

    def talk(line: Line) -> None:
        while (seen := line.read()) is not None:
            line.response(*answer(seen))

    return talk


def dripping(prefix: bytes, drop: bytes, every: float = 0.05) -> Callable[[Line], None]:
    """A way to talk: the beginning of a response, then for ever a few more bytes of it."""

    def talk(line: Line) -> None:
        while line.read() is not None:
            line.send(prefix)
            while not line.server.closing.wait(every):
                line.send(drop)

    return talk


#: How much longer what is to end may take on a busy machine.
_BUSY = 30.0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is in it comes to an end by itself, where the other side would go on for minutes or for ever.

    :param seconds: how long it takes on a machine that does nothing else; on a busy one it may take many times that.
    """
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds * _BUSY, f"took {took:.2f} s, where {seconds} s is normal"
