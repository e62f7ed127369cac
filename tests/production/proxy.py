"""A TCP proxy that spreads connections over several servers, and that can be cut like a cable."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Self


class Proxy:
    """Listens on a port of this machine; each connection goes to the next server that takes it.

    :param upstreams: ports of this machine.
    :param port: where to listen; 0 for a free one.
    """

    def __init__(self, upstreams: Sequence[int], port: int = 0) -> None:
        self.upstreams = list(upstreams)
        self._next = 0
        self._is_cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._server = self._do(asyncio.start_server(self._connected, "127.0.0.1", port, backlog=512))
        except OSError:
            self._stop_loop()
            raise
        #: Where it listens.
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break all connections and take no new ones: whoever connects is left without an answer."""
        self._do(self._set_cut(True))

    def mend(self) -> None:
        """Take connections again."""
        self._do(self._set_cut(False))

    def close(self) -> None:
        """End it."""
        if not self._loop.is_running():
            return
        self._do(self._end())
        self._stop_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _set_cut(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        # What was left without an answer is ended when the cable is mended, too: it has nobody behind it.
        self._abort_all()

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        upstream = None
        try:
            if self._is_cut:
                # Read until the other side gives up.
                while await reader.read(65536):
                    pass
                return
            upstream = await self._dial()
            if upstream is None:
                return
            self._open.add(upstream[1])
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))
        except (OSError, asyncio.CancelledError):
            # Either side is gone, or the proxy is: so is the connection.
            return
        finally:
            for one in (writer, *(upstream[1:] if upstream else ())):
                self._open.discard(one)
                one.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self.upstreams:
            port = self.upstreams[self._next % len(self.upstreams)]
            self._next += 1
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
