"""What only the triggerer needs: an event loop that is never held up, and nothing left when all is closed."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from airflow_provider_testruns.exceptions import ApiError
from airflow_provider_testruns.steps import Sleep, Upload, ask
from airflow_provider_testruns.transport.nonblocking import CONNECTIONS, AsyncClient
from airflow_provider_testruns.transport.tls import Tls
from tests.harness.waiting import WITHIN
from tests.integration.transport.wires import (
    API,
    SMOKE,
    RawServer,
    answering,
    dripping,
    get,
    password_grant,
    post,
    session,
    to_sandbox,
    within,
)

pytestmark = pytest.mark.integration


def _sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:  # the one that listed them
            continue
    return count


@contextmanager
def _nothing_left(sandbox=None) -> Iterator[None]:
    """No socket of ours, and no warning about anything that was not closed or not awaited."""
    gc.freeze()  # what others have left is not looked at
    before = _sockets()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    gc.unfreeze()
    assert [str(warning.message) for warning in caught] == []
    if sandbox is not None:
        until = time.monotonic() + WITHIN
        while sandbox.control.stats()["connections"]["open"] and time.monotonic() < until:
            time.sleep(0.01)
        assert sandbox.control.stats()["connections"]["open"] == 0
        assert _sockets() <= before


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it as asyncio.run does, and see that it leaves no task."""

    async def watched() -> None:
        await main()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(watched())


def test_the_loop_is_never_held_up(sandbox):
    async def main() -> None:
        client = AsyncClient(to_sandbox(sandbox, password_grant(sandbox)))
        with blockbuster_ctx():
            with pytest.raises(BlockingError):  # it is awake
                time.sleep(0.001)  # noqa: ASYNC251
            await asyncio.gather(*(client.run(ask(API.list_projects())) for _ in range(20)))
            await client.run(ask(API.create_run(SMOKE)))
            await client.close()

    _run(main)


def test_nothing_is_left_when_it_is_closed(sandbox):
    async def main() -> None:
        async with AsyncClient(to_sandbox(sandbox, password_grant(sandbox))) as client:
            await asyncio.gather(*(client.run(ask(API.list_projects())) for _ in range(20)))
            await client.run(ask(API.create_run(SMOKE)))

    with _nothing_left(sandbox):
        _run(main)


def test_nothing_is_left_after_faults(sandbox):
    async def main() -> None:
        async with AsyncClient(to_sandbox(sandbox, timeout=0.3)) as client:
            for kind in ("drop", "truncate", "hang", "huge", "redirect", "wrong_json"):
                sandbox.control.clear_faults()
                sandbox.control.fault(kind, seconds=5, size=200_000_000, location="http://elsewhere.invalid/", body="x")
                for call in (API.list_projects(), API.create_run(SMOKE)):
                    with pytest.raises(ApiError):
                        await client.run(ask(call))

    with _nothing_left(sandbox):
        _run(main)


def test_a_client_of_its_own_for_each_loop(sandbox):
    async def main() -> None:
        async with AsyncClient(to_sandbox(sandbox, password_grant(sandbox))) as client:
            assert await client.run(ask(API.list_projects()))

    with _nothing_left(sandbox):
        for _ in range(3):
            _run(main)
    assert sandbox.control.count("omilia.token") == 3


def test_a_closed_client_opens_again(sandbox):
    async def main() -> None:
        client = AsyncClient(to_sandbox(sandbox))
        for _ in range(2):
            assert await client.run(ask(API.list_projects()))
            await client.close()
        await client.close()

    with _nothing_left(sandbox):
        _run(main)


@pytest.mark.parametrize("moment", ["opening", "connecting", "waiting for headers", "reading", "sleeping", "in line"])
def test_what_is_cancelled_leaves_nothing(sandbox, moment):
    closed = []

    def steps():
        try:
            if moment == "sleeping":
                yield Sleep(30)
            yield get()
        finally:
            closed.append(True)

    slow = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"1")
    silent = dripping(b"", b"", every=0.2)
    well = threading.Event()

    def talk(line):
        if well.is_set():
            return answering(lambda seen: (200, b"{}"))(line)
        return slow(line) if moment == "reading" else silent(line)

    async def main() -> None:
        with RawServer(talk) as server:
            url = server.url if moment != "connecting" else server.url.replace("http:", "https:")
            async with AsyncClient(session(url, timeout=30), tls=Tls(verify=moment != "connecting")) as client:
                count = 3 * CONNECTIONS if moment == "in line" else 1
                tasks = [asyncio.create_task(client.run(steps())) for _ in range(count)]
                await asyncio.sleep(0 if moment == "opening" else 0.2)
                for task in tasks:
                    task.cancel()
                with within(1):
                    found = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(outcome) for outcome in found} == {asyncio.CancelledError}
                if moment == "connecting":
                    return
                # Its connections are free again: many calls get their turn.
                well.set()
                with within(1):
                    await asyncio.gather(*(client.run(ask(get())) for _ in range(3 * CONNECTIONS)))

    with _nothing_left():
        _run(main)
    if moment != "opening":
        assert closed


def test_a_renewal_whose_flow_is_cancelled_is_done_by_the_next(sandbox):
    sandbox.control.fault("latency", operation="omilia.token", seconds=0.4, times=1)

    async def main() -> None:
        async with AsyncClient(to_sandbox(sandbox, password_grant(sandbox))) as client:
            first = asyncio.create_task(client.run(ask(API.list_projects())))
            await asyncio.sleep(0.1)
            others = [asyncio.create_task(client.run(ask(API.list_projects()))) for _ in range(20)]
            await asyncio.sleep(0.1)
            first.cancel()
            assert all(await asyncio.gather(*others))

    with _nothing_left(sandbox):
        _run(main)
    assert sandbox.control.count("omilia.token") <= 2


def test_files_are_refused(sandbox, tmp_path):
    async def main() -> None:
        async with AsyncClient(to_sandbox(sandbox)) as client:
            with pytest.raises(NotImplementedError, match="by workers"):
                await client.run(ask(post(upload=Upload("file", tmp_path / "x"))))

    _run(main)
