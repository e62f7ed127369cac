"""Says from time to time how far a large transfer is."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_provider_testruns import limits
from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.transport.effects import NetworkError

log = get_logger(__name__)

_MB = 1_000_000
#: What is smaller, and takes less than :data:`EVERY` seconds, goes without a word.
STEP = 25 * _MB
#: How long a transfer continues without a log line, at most; seconds.
EVERY = 30.0


class Progress:
    """Counts the bytes of one transfer; a line in the log every tenth, and at least every 30 seconds.

    :param what: the transfer in words: "Received of GET /api/runs/r/artifacts/".
    :param total: its bytes, ``None`` when not known.
    :param clock: seconds; for tests.
    """

    def __init__(self, what: str, total: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._clock = clock
        self._step = max(STEP, (total or 0) // 10)
        self._done = 0
        self._told = 0
        self._told_at = clock()

    def add(self, size: int) -> None:
        """So many more bytes have gone."""
        self._done += size
        now = self._clock()
        if self._done - self._told < self._step and now - self._told_at < EVERY:
            return
        self._told, self._told_at = self._done, now
        of = f" of {self._total / _MB:.1f}" if self._total else ""
        log.info("%s: %.1f%s MB", self._what, self._done / _MB, of)


class Pace:
    """Sees to it that a file does not move too slowly: less than a number of bytes in a time, whatever the timeout of
    a single read says.

    :param clock: seconds; for tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bytes = 0
        self._since = clock()

    def add(self, size: int) -> None:
        """So many more bytes have moved.

        :raises NetworkError: when they were too few in the time that has passed.
        """
        self._bytes += size
        now = self._clock()
        if now - self._since < limits.RATE_WINDOW:
            return
        if self._bytes < limits.RATE_BYTES:
            raise NetworkError(
                f"the transfer is too slow: {self._bytes:,} bytes in {now - self._since:.0f} s, and"
                f" {limits.RATE_BYTES:,} in {limits.RATE_WINDOW:.0f} s is the minimum",
                sent=True,
            )
        self._bytes, self._since = 0, now
