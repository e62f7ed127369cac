"""Waiting for a state. The time that it may take is for hanging only: a busy machine takes long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: Seconds; what has not happened by then does not happen.
WITHIN = 300.0


def wait_until(done: Callable[[], object], what: str = "it", within: float = WITHIN, every: float = 0.05) -> None:
    """Wait until something is true.

    :param what: says it in words.
    :param within: seconds.
    :param every: seconds between two polls.
    :raises TimeoutError: when it does not become true.
    """
    end = time.monotonic() + within
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within:.0f} s: {what}")
        time.sleep(every)


async def until(done: Callable[[], object], within: float = WITHIN, every: float = 0.02) -> None:
    """The same in an event loop.

    :param within: seconds.
    :param every: seconds between two polls.
    :raises TimeoutError: when it does not become true.
    """
    end = time.monotonic() + within
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {within:.0f} s")
        await asyncio.sleep(every)
