"""Which finished runs of a list are news: decided without I/O, for the trigger that sends an event for each of them.

A platform lists runs by when they began; what is looked for is when they ended. A run is *due* when it is final, was
not told of yet, and either was seen before it was final or ended since :attr:`FinishedRuns.floor`. So nothing rests on
how long runs take, on whether a platform gives an end time (Future AGI's list has none), or on our own clock: times are
the platform's.

What has to be remembered across restarts is :meth:`FinishedRuns.to_json`, the *cursor*: the newest end, the runs that
were told of since a while before it (ends may be equal, and shown late), and the runs that were not final yet. It is
stored where people can write, and bounded.
"""

from __future__ import annotations

import base64
import binascii
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from airflow_provider_testruns import limits, timing
from airflow_provider_testruns.exceptions import ApiError
from airflow_provider_testruns.judging import Gates, Judgement, judge
from airflow_provider_testruns.lifecycle.waiting import jittered
from airflow_provider_testruns.model import Run, RunReport
from airflow_provider_testruns.platforms.platform import Platform
from airflow_provider_testruns.steps import Steps
from airflow_provider_testruns.transport.policy import retrying

#: The version of the cursor that is written, and the only one that is read.
VERSION = 1
#: How many runs the cursor names that were told of, and that are not final: Airflow asks for no more than 64 kB.
MOST_TOLD = 6_500
MOST_OPEN = 1_000
#: How many characters of the cursor stand for a run.
_KEY = 8
#: A run is taken for running again, under the same id, after so many polls that say so: one may come from a copy of the
#: platform's database that lags behind.
_RERUN_AFTER = 2


class CursorError(ValueError):
    """A stored cursor that is none."""


@lru_cache(maxsize=10_000)
def _key(run_id: str) -> str:
    """What stands for a run in the cursor: 48 bits of a hash. Beside as many runs as it can name, one new run in forty
    billion would be taken for another."""
    return base64.urlsafe_b64encode(blake2b(run_id.encode("utf-8", "replace"), digest_size=6).digest()).decode()


class FinishedRuns:
    """What of a list has been told, and what is due.

    :param backfill_since: with the first look at the list, what ended since then is due; ``None`` when nothing is.
    :param clock: wall-clock seconds; for tests.
    """

    def __init__(self, backfill_since: datetime | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._backfill = None if backfill_since is None else backfill_since.timestamp()
        #: Whether the list was polled, or a cursor of such polls is known.
        self.begun = False
        #: The newest end that was seen; seconds since 1970.
        self.until: float | None = None
        #: What ended before is told of, unless it was seen before its end.
        self.floor: float | None = None
        #: Whether there is something that the cursor as it was last read or written does not have.
        self.changed = False
        self._told: dict[str, float] = {}
        self._open: dict[str, float | None] = {}
        self._pending: dict[str, float] = {}
        self._again: dict[str, int] = {}
        self._waits_from: float | None = None

    @property
    def since(self) -> datetime | None:
        """The earliest start that is of interest in the next look at the list."""
        if not self.begun:
            now = self._clock()
            first = now if self._backfill is None else min(now, self._backfill)
            return _moment(first - timing.LONGEST_WATCHED_RUN)
        times = [time for time in (self.floor, self._waits_from) if time is not None]
        return _moment(min(times)) if times else None

    def look(self, runs: Sequence[Run]) -> list[Run]:
        """Take in what the list shows.

        :param runs: all that began since :attr:`since`, or show no start; in any order.
        :return: the runs that are due, in the order of their ends. Each is one that is on its way until :meth:`told`
            or :meth:`undelivered` says more.
        """
        first, self.begun = not self.begun, True
        self.changed = self.changed or first
        now = self._latest()
        keyed = [(_key(run.run_id), run) for run in runs]
        due: dict[str, tuple[float, str, Run]] = {}
        newest = self.until
        for key, run in keyed:
            if not run.final:
                self._is_going(key, run)
                continue
            ended = self._time_of(run, now)
            if ended is not None and (newest is None or ended > newest):
                newest = ended
            if key in self._told:
                # One without times can't be told from what is new by them: it is remembered as long as it is listed.
                self._told[key] = max(self._told[key], now if ended is None else ended)
                self._again.pop(key, None)
                continue
            if key in self._pending or key in due:
                continue
            if first and (self._backfill is None or (ended is not None and ended < self._backfill)):
                self._told[key] = now if ended is None else ended
            elif key in self._open or ended is None or self.floor is None or ended >= self.floor:
                due[key] = (now if ended is None else ended, run.run_id, run)
        if newest != self.until:
            self.until, self.changed = newest, True
        ordered = sorted(due.items(), key=lambda item: item[1][:2])
        self._pending.update({key: ended for key, (ended, _, _) in ordered})
        if first and self.floor is None:
            # What is older than the first look was looking for is not listed, and must never become news.
            self.floor = now - timing.LONGEST_WATCHED_RUN if self._backfill is None else self._backfill
        self._forget(keyed)
        return [run for _, (_, _, run) in ordered]

    def told(self, run_id: str) -> None:
        """An event of the run is stored, or none is asked for."""
        key = _key(run_id)
        self._told[key] = self._pending.pop(key, self._latest())
        self._open.pop(key, None)
        self.changed = True

    def undelivered(self, run_id: str) -> None:
        """The event of the run got lost on its way: the run is due again with the next look."""
        self._pending.pop(_key(run_id), None)

    @property
    def noted(self) -> int:
        """How many runs are remembered as told of."""
        return len(self._told)

    def to_json(self) -> dict[str, Any]:
        """The cursor: ``version``, ``until`` and ``from`` (the newest end, and from when on ends are compared with what
        was told), ``told`` and ``open`` (runs, each as :data:`_KEY` characters), ``since`` (the start of the earliest
        run that is not final)."""
        self._raise_floor()
        floor = self.floor
        told = sorted(self._told.items(), key=lambda item: item[1])
        if len(told) > MOST_TOLD:
            told = told[-MOST_TOLD:]
            floor = self._not_beyond_pending(max(floor or 0.0, told[0][1]))
        going = sorted(self._open.items(), key=lambda item: item[1] or 0.0)[-MOST_OPEN:]
        return {
            "version": VERSION,
            "until": _text(self.until),
            "from": _text(floor),
            "since": _text(self._waits_from),
            "told": "".join(key for key, _ in told),
            "open": "".join(key for key, _ in going),
        }

    def restore(self, stored: Any) -> None:
        """Go on from a cursor.

        :param stored: what :meth:`to_json` gave, or whatever somebody has put in its place.
        :raises CursorError: when it is no cursor; nothing has changed then.
        """
        if not isinstance(stored, Mapping):
            raise CursorError(f"it is of the type {type(stored).__name__}")
        if stored.get("version") != VERSION or isinstance(stored["version"], bool):
            raise CursorError(f"its version is not {VERSION}")
        until, floor, waits_from = (_time(stored, name) for name in ("until", "from", "since"))
        told, going = (_keys(stored, name, most) for name, most in (("told", MOST_TOLD), ("open", MOST_OPEN)))
        latest = max(self._clock(), 0.0)
        self.until = None if until is None else min(until, latest)
        self.floor = None if floor is None else min(floor, latest)
        self._waits_from = waits_from
        # When each of them ended is not in it: none has ended later.
        known = latest if self.until is None else self.until
        self._told = dict.fromkeys(told, known)
        self._open = dict.fromkeys(going, waits_from)
        self.begun, self.changed = True, False

    def _is_going(self, key: str, run: Run) -> None:
        started = None if run.started_at is None else run.started_at.timestamp()
        if key in self._told:
            self._again[key] = self._again.get(key, 0) + 1
            if self._again[key] < _RERUN_AFTER:
                return
            del self._again[key], self._told[key]
        if key not in self._open:
            self._open[key], self.changed = started, True
        elif started is not None:
            self._open[key] = started

    def _time_of(self, run: Run, now: float) -> float | None:
        """When a run ended, or began where its end is not shown. A time that has not come yet is now: one far ahead
        would let all others look old."""
        moment = run.finished_at or run.started_at
        return None if moment is None else min(moment.timestamp(), now)

    def _latest(self) -> float:
        now = self._clock()
        return now if self.until is None else max(now, self.until)

    def _raise_floor(self) -> None:
        if self.until is None:
            return
        floor = self._not_beyond_pending(self.until - timing.FINISHED_OVERLAP)
        if self.floor is None or floor > self.floor:
            self.floor = floor

    def _not_beyond_pending(self, floor: float) -> float:
        """What is still to be told of must not be taken for old, should the cursor be all that is left."""
        return min([floor, *(at for key, at in self._pending.items() if key not in self._open)])

    def _forget(self, keyed: Sequence[tuple[str, Run]]) -> None:
        """Leave out what can't be of interest any more, and what is too much."""
        self._raise_floor()
        floor = self.floor
        if floor is not None:
            for key in [key for key, at in self._told.items() if at < floor]:
                del self._told[key]
                self._again.pop(key, None)
        if len(self._told) > limits.RUNS:
            kept = sorted(self._told.items(), key=lambda item: item[1])[-limits.RUNS :]
            self._told = dict(kept)
            self.floor = self._not_beyond_pending(max(floor or 0.0, kept[0][1]))
        given_up = self._latest() - timing.LONGEST_WATCHED_RUN
        going = [(key, at) for key, at in self._open.items() if key in self._pending or at is None or at >= given_up]
        going.sort(key=lambda item: item[1] or 0.0)
        self._open = dict(going[-MOST_OPEN:])
        starts = [
            run.started_at.timestamp()
            for key, run in keyed
            if run.started_at is not None and (key in self._open or key in self._pending)
        ]
        self._waits_from = min(starts, default=None)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(0.0, seconds), UTC)


def _text(seconds: float | None) -> str | None:
    return None if seconds is None else _moment(seconds).isoformat()


def _time(stored: Mapping[str, Any], name: str) -> float | None:
    given = stored.get(name)
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError) as e:
        raise CursorError(f"{name!r} is no time") from e


def _keys(stored: Mapping[str, Any], name: str, most: int) -> list[str]:
    given = stored.get(name)
    if not isinstance(given, str) or len(given) % _KEY or len(given) > most * _KEY:
        raise CursorError(f"{name!r} is no list of runs")
    try:
        base64.b64decode(given.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as e:
        raise CursorError(f"{name!r} is no list of runs") from e
    return [given[at : at + _KEY] for at in range(0, len(given), _KEY)]


@dataclass(slots=True)
class Listing:
    """The rules for polling a list: what a failure means, and when the next look is. No failure ends it.

    :param ids: where to look (a project, a run test, a model).
    :param interval: seconds between two polls.
    :param since: the earliest start that is of interest, as things stand.
    :param log: takes the lines for the triggerer's log.
    :param what: the list in words, for the log.
    :param clock: wall-clock seconds; for tests.
    """

    ids: Mapping[str, str]
    interval: float
    since: Callable[[], datetime | None]
    log: logging.Logger | Any
    what: str
    clock: Callable[[], float] = time.time
    _trouble: type[Exception] | None = field(default=None, init=False)
    _warned_at: float = field(default=0.0, init=False)
    _not_before: float = field(default=0.0, init=False)

    def observed(self) -> None:
        """The list was shown."""
        if self._trouble is not None:
            self.log.info("%s: the platform answers again.", self.what)
        self._trouble, self._not_before = None, 0.0

    def failed(self, error: Exception) -> None:
        """The list was not available.

        :param error: why.
        """
        now = self.clock()
        retry_after = error.retry_after if isinstance(error, ApiError) else None
        self._not_before = now + retry_after if retry_after else 0.0
        if type(error) is not self._trouble or now - self._warned_at >= timing.WARN_AGAIN_AFTER:
            self._trouble, self._warned_at = type(error), now
            self.log.warning("%s: %s Still watching; no run is lost.", self.what, error)

    def pause(self) -> float:
        """Seconds until the next look: as of :meth:`.Wait.pause`."""
        return max(jittered(self.interval), self._not_before - self.clock())

    def first_pause(self) -> float:
        """Seconds until the first look, by chance: lists that are taken up together are not asked for together."""
        return random.uniform(0, self.interval)


def judged(platform: Platform, run: Run, log: Callable[..., None] | None = None) -> Steps[tuple[RunReport, Judgement]]:
    """The report of a finished run and what it means, with the gates that operators have if nothing else is said.

    :param platform: the run's.
    :param run: as a list shows it.
    :param log: told of each failure that is passed over.
    :raises ApiError: when it is not available.
    """
    report = yield from retrying(platform.get_report(run), timing.REPORT_PATIENCE, grace=timing.REPORT_GRACE, log=log)
    return report, judge(report, Gates())
