"""A run's own log, streamed into the task log while the run is running: each line once.

The platforms give the whole log with every response, and lines of different sections come mixed: so what is new is
found by counting. A line is written as often as the log holds it, wherever it stands.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns import limits, timing
from airflow_provider_testruns.cleaning import clean, outgoing_text
from airflow_provider_testruns.exceptions import ApiError
from airflow_provider_testruns.limits import LOG_TEXT, NAME

if TYPE_CHECKING:
    from airflow_provider_testruns.lifecycle.watcher import WatcherHandle
    from airflow_provider_testruns.model import Run

#: How many lines of one run are written. Its log may be of any size; which were written is part of the trigger's event.
MAX_LINES = 10_000
#: After so many of them an event loop gets a turn.
_LINES_AT_ONCE = 50
#: A line in what is stored of those that were written: 6 bytes of its hash, in Base64.
_MARK = 8


class RunLog:
    """What of a run's log is in the task log.

    :param log: the task log.
    :param cursor: what another process has written already, as :attr:`cursor` gave it.
    :param clock: seconds; for tests.
    """

    def __init__(self, log: Any, cursor: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._seen = Counter(cursor[start : start + _MARK] for start in range(0, len(cursor), _MARK))
        self._clock = clock
        self._written = 0
        self._not_before = 0.0
        self._failing = False

    @property
    def cursor(self) -> str:
        """What has been written so far, as a plain string for the places in which Airflow stores it."""
        return "".join(sorted(self._seen.elements()))

    @property
    def due(self) -> bool:
        """Whether the platform may be asked again: not before the end of a Retry-After."""
        return self._clock() >= self._not_before

    def write(self, lines: Iterable[tuple[str, str]]) -> int:
        """The platform has shown the log.

        :param lines: all of it so far, each line with its section.
        :return: how many lines were new.
        """
        before = self._seen.total()
        for _ in self.write_in_steps(lines):
            pass
        return self._seen.total() - before

    def write_in_steps(self, lines: Iterable[tuple[str, str]]) -> Iterator[None]:
        """As :meth:`write`, with a break after some lines, in which an event loop can do something else."""
        self._failing = False
        total = self._seen.total()
        if total > MAX_LINES:
            return
        seen: Counter[str] = Counter()
        new = 0
        for number, (section, text) in enumerate(lines, 1):
            if number % _LINES_AT_ONCE == 0:
                yield
            mark = _mark(section, text)
            seen[mark] += 1
            if seen[mark] <= self._seen[mark]:
                continue
            self._seen[mark] += 1
            new += 1
            if total + new > MAX_LINES:
                self._log.warning("The run's log has more than %d lines: the rest is on the platform.", MAX_LINES)
                break
            if self._written > limits.RUN_LOG:
                continue
            for part in _parts(text):
                self._written += len(part)
                self._log.info("%s%s", f"[{outgoing_text(section, NAME)}] " if section else "", part)
            if self._written > limits.RUN_LOG:
                self._log.warning(
                    "The run's log has more than %d characters: the rest is on the platform.", limits.RUN_LOG
                )

    def failed(self, error: ApiError) -> None:
        """The log is unavailable. That says nothing of the run, and is logged once until it is available again."""
        self._not_before = self._clock() + (error.retry_after or 0.0)
        if not self._failing:
            self._failing = True
            self._log.warning("The run's log is not available. %s", error)

    def abandoned(self) -> None:
        """Following the log has failed for a reason of its own."""
        self._log.exception("The run's log is no longer streamed; the wait for the run continues.")


async def follow(watcher: WatcherHandle, run: Run, run_log: RunLog, interval: float) -> None:
    """Stream a run's log in the triggerer until this is cancelled. Whatever happens here, the wait itself continues.

    :param watcher: a hold of its own on the watcher of the run's connection.
    :param run: the run.
    :param run_log: what was written already; kept up to date.
    :param interval: seconds between two polls.
    """
    try:
        # Not all at once after a restart.
        await asyncio.sleep(random.uniform(0, interval))
        while True:
            if run_log.due:
                try:
                    platform, client = await watcher.open()
                    lines = await client.run(platform.read_log(run))
                    for _ in run_log.write_in_steps(lines):
                        await asyncio.sleep(0)
                    # Not kept until the next poll: it may be long.
                    del lines
                except ApiError as e:
                    run_log.failed(e)
            await asyncio.sleep(interval * (1 + timing.JITTER * (2 * random.random() - 1)))
    except Exception:
        run_log.abandoned()


def _mark(section: str, text: str) -> str:
    digest = blake2b(f"{section}\0{text}".encode("utf-8", "surrogatepass"), digest_size=_MARK * 6 // 8).digest()
    return base64.b64encode(digest).decode()


def _parts(text: str) -> Iterator[str]:
    """The lines of a text, which may be several; without what a terminal would make of control characters."""
    for line in clean(text, LOG_TEXT, lines=True).expandtabs(4).splitlines():
        if line := outgoing_text(line.rstrip()):
            yield line
