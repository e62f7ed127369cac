"""How many requests are under way at once in the triggerer: as many as are enough, up to the setting."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_testruns import timing
from airflow_provider_testruns.transport.nonblocking import CONNECTIONS, Room
from tests.unit.steps import Clock

pytestmark = pytest.mark.unit


class _Requests:
    """Requests that end when the test says so."""

    def __init__(self, most: int) -> None:
        self.clock = Clock()
        self.room = Room(most, self.clock)
        self.under_way: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def _request(self) -> None:
        async with self.room:
            done = asyncio.Event()
            self.under_way.append(done)
            await done.wait()
            self.room.answered()

    async def begin(self, count: int) -> None:
        self.tasks += [asyncio.create_task(self._request()) for _ in range(count)]
        await self.settle()

    async def end(self, count: int) -> None:
        for _ in range(count):
            self.under_way.pop(0).set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def test_there_is_no_more_room_than_is_needed():
    async def main() -> None:
        requests = _Requests(64)
        await requests.begin(30)
        assert len(requests.under_way) == CONNECTIONS
        # The others wait, and not for long.
        for _ in range(22):
            requests.clock.now += timing.ROOM_AFTER / 30
            await requests.end(1)
            assert len(requests.under_way) == CONNECTIONS
        await requests.end(CONNECTIONS)
        assert requests.room.size == CONNECTIONS

    asyncio.run(main())


def test_room_grows_with_demand_up_to_the_setting_and_back():
    async def main() -> None:
        requests = _Requests(20)
        await requests.begin(200)
        sizes = []
        for _ in range(3):
            requests.clock.now += 2 * timing.ROOM_AFTER
            await requests.end(len(requests.under_way))
            sizes.append(len(requests.under_way))
        assert sizes == [2 * CONNECTIONS, 20, 20]
        while requests.under_way:
            await requests.end(1)
        # What was needed in a period is there in the next one.
        requests.clock.now += timing.ROOM_FOR
        await requests.begin(12)
        await requests.end(12)
        assert requests.room.size == 20
        requests.clock.now += timing.ROOM_FOR
        await requests.begin(1)
        await requests.end(1)
        assert requests.room.size == 12
        requests.clock.now += timing.ROOM_FOR
        await requests.begin(1)
        await requests.end(1)
        assert requests.room.size == CONNECTIONS

    asyncio.run(main())


def test_a_platform_that_does_not_answer_gets_no_more_connections():
    async def main() -> None:
        requests = _Requests(64)
        await requests.begin(100)
        requests.clock.now += 100
        await requests.settle()
        assert len(requests.under_way) == CONNECTIONS
        # Nor when requests are given up.
        for task in requests.tasks[:50]:
            task.cancel()
        await requests.settle()
        assert (len(requests.under_way), requests.room.size) == (2 * CONNECTIONS, CONNECTIONS)
        for task in requests.tasks:
            task.cancel()
        await asyncio.gather(*requests.tasks, return_exceptions=True)
        requests.tasks.clear()
        requests.under_way.clear()
        await requests.begin(CONNECTIONS + 1)
        assert len(requests.under_way) == CONNECTIONS
        for task in requests.tasks:
            task.cancel()

    asyncio.run(main())


def test_a_setting_below_the_usual_number_is_kept():
    async def main() -> None:
        requests = _Requests(2)
        await requests.begin(10)
        for _ in range(5):
            requests.clock.now += 1
            assert len(requests.under_way) == 2
            await requests.end(2)

    asyncio.run(main())
