"""A running sandbox: in a thread of its own for tests, or in the foreground for the command line."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn

from .app import create_app
from .catalogue import connections
from .control import Control
from .platform import Settings
from .state import SandboxState
from .wire import Connections, counting_protocol

# For hanging only: a busy machine takes long.
_STARTING_SECONDS = 60.0
_STOPPING_SECONDS = 60.0


class ForegroundServer(uvicorn.Server):
    """uvicorn with a sandbox's application.

    :param state: the server's state.
    :param control: the same, for the routes under ``/_sandbox``.
    :param certfile: a certificate chain in PEM: the server then speaks TLS.
    :param keyfile: its key.
    """

    def __init__(
        self, state: SandboxState, control: Control, certfile: str | None = None, keyfile: str | None = None
    ) -> None:
        self._connections = Connections(state.traffic)
        super().__init__(
            uvicorn.Config(
                create_app(state, control),
                http=counting_protocol(self._connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # The application has its own, by the time that it goes by.
                date_header=False,
                # Clients keep their connections for longer than uvicorn's 5 seconds between two polls.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=1,
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, without waiting for anybody."""
        self._connections.abort()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's algorithm on, and every response takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket, secure: bool) -> str:
    """Return the address that a listening socket is reached at."""
    host, port = sock.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    return f"{'https' if secure else 'http'}://{host}:{port}"


class _AnnouncingServer(ForegroundServer):
    """Says when it is ready."""

    ready: threading.Event

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class SandboxServer:
    """A sandbox for tests: runs in a thread with its own event loop, on a free port of this machine.

    .. code-block:: python

        with SandboxServer(run_seconds=0.2) as sandbox:
            sandbox.control.fault("drop", operation="omilia.create_run", when="after", times=1)
            ...
            assert sandbox.control.violations() == []

    Any number can run at once; they share nothing.

    :param settings: how it begins; see :class:`~airflow_provider_testruns.sandbox.platform.Settings`.
    :param run_seconds: the setting that is wanted most often; overrides the one in ``settings``.
    :param certfile: a certificate chain in PEM: the server then speaks TLS.
    :param keyfile: its key.
    :param verify: what the connections say about certificates: a CA bundle's path, say.
    :param seed: repeats ids and chances.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        run_seconds: float | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        verify: bool | str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int | None = None,
    ) -> None:
        self._state = SandboxState(settings, seed)
        if run_seconds is not None:
            self._state.settings.run_seconds = run_seconds
        #: Direct access to faults, traffic and runs.
        self.control = Control(self._state)
        self._verify = verify
        self._server = _AnnouncingServer(self._state, self.control, certfile, keyfile)
        self._started = self._server.ready = threading.Event()
        self._socket = listen(host, port)
        #: The address, without a slash at the end.
        self.url = url_of(self._socket, certfile is not None)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"sandbox {self.url}", daemon=True)
        self._thread.start()
        if not self._started.wait(_STARTING_SECONDS) or self._failure is not None:
            self.close()
            raise RuntimeError("the sandbox did not start") from self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            # The thread has nobody to raise to: __init__ does it.
            self._failure = failure
            self._started.set()

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_report)
        await self._server.serve(sockets=[self._socket])

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return the three Airflow connections by their ids, ready for ``json.dumps`` into ``AIRFLOW_CONN_...``."""
        return connections(self.url, self._verify)

    def close(self) -> None:
        """Stop the server. Connections that are still open are cut."""
        self._server.should_exit = True
        self._thread.join(_STOPPING_SECONDS)
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError("the sandbox did not stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_log = logging.getLogger(__name__)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what goes wrong in the event loop, but for clients that leave: they do so on purpose here."""
    if not isinstance(context.get("exception"), (ConnectionError, ssl.SSLError)):
        _log.error("sandbox: %s", context.get("message"), exc_info=context.get("exception"))
