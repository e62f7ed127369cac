"""How fast this process may ask a platform: what all clients of one connection in it share.

Two limits come from the connection (``max_requests_per_minute``, ``max_starts_at_once``), and one from the platform:
where it has answered 429, this process sends nothing before that time has passed, and then one request at a time, ever
faster.

Nothing here sleeps. Whoever wants to send takes a turn and is told how long to wait for it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from threading import Lock
from typing import TypeVar

from airflow_provider_testruns import timing
from airflow_provider_testruns.steps import Sleep, Steps

T = TypeVar("T")
_LONG_AGO = float("-inf")

#: How many connections are remembered that nobody uses any more.
_KEPT = 256


class Pace:
    """What may be sent when. Used by several threads.

    :param max_requests_per_minute: how many requests may be sent in any minute; ``None`` for any number.
    :param max_starts_at_once: how many starts may be under way; ``None`` for any number.
    :param clock: seconds that never go back; for tests.
    """

    def __init__(
        self,
        max_requests_per_minute: int | None = None,
        max_starts_at_once: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._lock = Lock()
        self._starts: dict[object, None] = {}
        self._turns: deque[float] = deque()
        self._last = _LONG_AGO
        self._gap = 0.0
        self._held_until = _LONG_AGO
        self._refused_at = _LONG_AGO
        self._refusals = 0
        #: Differs when all who wait for their turns have to take others.
        self._round = 0
        self.max_requests_per_minute = max_requests_per_minute
        self.max_starts_at_once = max_starts_at_once

    def limit(self, max_requests_per_minute: int | None, max_starts_at_once: int | None) -> None:
        """Change the limits: the connection was edited.

        :param max_requests_per_minute: as of the class.
        :param max_starts_at_once: as of the class.
        """
        with self._lock:
            self.max_requests_per_minute = max_requests_per_minute
            self.max_starts_at_once = max_starts_at_once

    # Requests

    def take(self, patience: float = float("inf")) -> tuple[float, Turn | None]:
        """Take the next turn to send a request.

        :param patience: for how many seconds it may be waited for.
        :return: the seconds until then, and the turn; ``None`` where that is longer than ``patience``, and then none is
            taken.
        """
        with self._lock:
            now = self.clock()
            at = max(now, self._held_until, self._last + self._gap)
            most = self.max_requests_per_minute
            if most is not None:
                while self._turns and self._turns[0] <= now - timing.MINUTE:
                    self._turns.popleft()
                if len(self._turns) >= most:
                    at = max(at, self._turns[len(self._turns) - most] + timing.MINUTE)
            if at - now > patience:
                return at - now, None
            self._gap = self._gap * timing.FASTER if self._gap > timing.LAST_GAP else 0.0
            return at - now, self._taken(at)

    def take_now(self) -> Turn:
        """Take a turn for a request that is not to wait, whatever the limits are; those after it wait instead."""
        with self._lock:
            return self._taken(self.clock())

    def _taken(self, at: float) -> Turn:
        self._last = max(self._last, at)
        if self.max_requests_per_minute is not None:
            # In order: a request that does not wait counts as late as those that do.
            self._turns.append(max(at, self._turns[-1]) if self._turns else at)
        return Turn(at, self._round)

    def is_good(self, turn: Turn) -> bool:
        """Whether a turn that was waited for still is one: the platform may have answered 429 meanwhile.

        :param turn: as :meth:`take` gave it.
        """
        return turn.round == self._round

    def give_back(self, turn: Turn) -> None:
        """Nothing is sent in this turn.

        :param turn: as :meth:`take` gave it.
        """
        with self._lock:
            if turn.round == self._round and turn.at in self._turns:
                self._turns.remove(turn.at)

    def refused(self, turn: Turn, retry_after: float | None) -> float | None:
        """The platform has answered a request with 429: nothing is sent before the time has passed.

        :param turn: in which it was sent.
        :param retry_after: seconds, as the platform said; ``None`` where it did not.
        :return: for how many seconds nobody asks; ``None`` where this request had been sent before that was known.
        """
        with self._lock:
            now = self.clock()
            news = turn.at >= self._refused_at
            if news:
                quiet = now - max(self._refused_at, self._held_until) > timing.MINUTE
                self._refusals = 1 if quiet else self._refusals + 1
            before = self._refusals - 1
            pause = timing.REFUSED_BACKOFF.after(before) if retry_after is None else retry_after
            if news or now + pause > self._held_until:
                self._refused_at = now
                self._held_until = max(self._held_until, now + pause)
                self._gap = timing.REFUSED_GAP.after(before)
                # Whoever waits takes another turn.
                self._round += 1
                self._last = _LONG_AGO
                while self._turns and self._turns[-1] > now:
                    self._turns.pop()
            return pause if news else None

    # Starts

    def may_start(self, ticket: object) -> bool:
        """Whether a run may be started now. First come, first served.

        :param ticket: of whoever asks, until :meth:`end_start`.
        """
        with self._lock:
            self._starts.setdefault(ticket)
            most = self.max_starts_at_once
            return most is None or ticket in islice(self._starts, most)

    def end_start(self, ticket: object) -> None:
        """A start has been answered, or is given up; may be called again.

        :param ticket: of whoever asked.
        """
        with self._lock:
            self._starts.pop(ticket, None)


class Turn:
    """When a request may be sent.

    :param at: by the clock of the pace.
    :param round: of the pace.
    """

    __slots__ = ("at", "round")

    def __init__(self, at: float, round: int) -> None:
        self.at = at
        self.round = round


def in_turn(pace: Pace, steps: Steps[T]) -> Steps[T]:
    """Steps that start a run, as soon as one may be started.

    :param pace: of the connection.
    :param steps: what to do.
    """
    ticket = object()
    try:
        while not pace.may_start(ticket):
            yield Sleep(timing.ASK_FOR_TURN, new_step=True)
        return (yield from steps)
    finally:
        pace.end_start(ticket)


_paces: dict[tuple[str, str], Pace] = {}
_lock = Lock()


def shared_pace(
    conn_id: str, base_url: str, max_requests_per_minute: int | None, max_starts_at_once: int | None
) -> Pace:
    """The one of a connection in this process.

    :param conn_id: the Airflow connection.
    :param base_url: the platform's URL.
    :param max_requests_per_minute: as of :class:`Pace`.
    :param max_starts_at_once: as of :class:`Pace`.
    """
    with _lock:
        # The last one that was asked for is the last to be forgotten.
        pace = _paces.pop((conn_id, base_url), None) or Pace()
        _paces[conn_id, base_url] = pace
        for key in list(_paces)[:-_KEPT]:
            del _paces[key]
    pace.limit(max_requests_per_minute, max_starts_at_once)
    return pace


def _forget() -> None:
    """In a new process: another thread of the one that it comes from may hold a lock for ever."""
    global _lock
    _lock = Lock()
    _paces.clear()


os.register_at_fork(after_in_child=_forget)
