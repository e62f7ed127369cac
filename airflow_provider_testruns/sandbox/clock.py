"""Time as the sandbox sees it, and the three ways in which the platforms write it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

from .mistakes import Mistake


class Clock:
    """Wall-clock time that can be moved forward, so that a test need not wait for an hour to pass, and stopped, so that
    nothing changes between two requests."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._stopped_at: float | None = None

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return (time.time() if self._stopped_at is None else self._stopped_at) + self._offset

    def advance(self, seconds: float) -> None:
        """Move the time forward.

        :param seconds: how far; never negative, as runs and tokens only grow older.
        """
        if seconds < 0:
            raise Mistake("time only moves forward")
        self._offset += seconds

    def stop(self) -> None:
        """From now on the time changes by :meth:`advance` only."""
        if self._stopped_at is None:
            self._stopped_at = time.time()

    def reset(self) -> None:
        """Go back to the time of this machine: only for when nothing is left that has grown older."""
        self._offset = 0.0
        self._stopped_at = None


def zulu(moment: float) -> str:
    """Write a time as ``2026-11-22T12:28:21.319040Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def offset(moment: float) -> str:
    """Write a time as ``2026-11-22T12:28:21.319040+00:00``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def naive(moment: float) -> str:
    """Write a time in UTC without saying so: ``2023-04-11T15:22:50.193226``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


#: An hour east of UTC, so that whoever ignores the offset is found out.
_EGGPLANT_ZONE = timezone(timedelta(hours=1))


def short_offset(moment: float) -> str:
    """Write a time with a two-digit offset: ``2018-05-31 17:00:01.366412+01``."""
    return datetime.fromtimestamp(moment, _EGGPLANT_ZONE).strftime("%Y-%m-%d %H:%M:%S.%f+01")
