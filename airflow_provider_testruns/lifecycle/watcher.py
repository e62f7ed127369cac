"""Many waits at once, for the price of few requests: what all waits of one triggerer and connection share.

One :class:`Watcher` per event loop and connection has one transport, so one token and a few sockets. Runs that a
platform can list together are polled with one list call as soon as more than one of them is watched.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, look_once
from airflow_provider_testruns.platforms.call import Steps
from airflow_provider_testruns.platforms.platform import Platform

T = TypeVar("T")


class Client(Protocol):
    """The part of a transport that a watcher needs."""

    async def run(self, steps: Steps[T], until: float | None = None) -> T:
        """Carry steps to their end."""

    async def close(self) -> None:
        """Close what is open."""


Open = Callable[[], Awaitable[tuple[Platform, Client]]]


class Watcher:
    """Waits for many runs over one connection.

    :param open_client: reads the connection and opens its transport.
    """

    def __init__(self, open_client: Open) -> None:
        self._open_client = open_client
        self._opening = asyncio.Lock()
        self._opened: tuple[Platform, Client] | None = None
        self.users = 0

    async def open(self) -> tuple[Platform, Client]:
        """The platform and the transport, opened by the first who asks."""
        if self._opened is None:
            async with self._opening:
                if self._opened is None:
                    self._opened = await self._open_client()
        return self._opened

    async def wait(self, wait: Wait, *, first_pause: float | None = None) -> WaitEnd:
        """Wait for a run.

        :param wait: the run and the rules.
        :param first_pause: seconds before the first look; without, any part of the poll interval by chance, so that
            runs that are taken up together are not asked for together.
        """
        platform, client = await self.open()
        gap = random.uniform(0, wait.poll_interval) if first_pause is None else first_pause
        while True:
            await asyncio.sleep(min(gap, max(0.0, wait.deadline - wait.clock())))
            end = await client.run(look_once(platform, wait), max(wait.deadline, wait.clock() + 1.0))
            if end is not None:
                return end
            gap = wait.pause()

    async def close(self) -> None:
        """Close the transport."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[1].close()


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Watcher]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_watcher(platform: str, conn_id: str, open_client: Open) -> AsyncIterator[Watcher]:
    """The watcher of a connection in the running event loop; closed when the last who uses it leaves.

    :param platform: the platform's name.
    :param conn_id: the Airflow connection.
    :param open_client: reads the connection and opens its transport, when there is no watcher yet.
    """
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    key = (platform, conn_id)
    watcher = watchers.get(key)
    if watcher is None:
        watcher = watchers[key] = Watcher(open_client)
    watcher.users += 1
    try:
        yield watcher
    finally:
        watcher.users -= 1
        if watcher.users == 0:
            if watchers.get(key) is watcher:
                del watchers[key]
            await watcher.close()
