"""The life of a simulated run, worked out from the clock whenever somebody asks.

Nothing runs in the background: a run is created with a duration and an ending, and where it stands follows from the
time. So a server with a thousand runs is idle until it is asked, and a test can move the clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .clock import Clock


class Ending(StrEnum):
    """How a run will end."""

    PASSED = "passed"
    FAILED = "failed"
    #: The platform could not run the tests.
    ERRORED = "errored"
    #: Somebody on the platform's side stops it.
    CANCELLED = "cancelled"
    #: It ends well, without a single test.
    EMPTY = "empty"


class Phase(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    #: All calls are over, their scores are not (Future AGI).
    EVALUATING = "evaluating"
    #: A cancel was accepted, the run is not over yet.
    CANCELLING = "cancelling"
    FINISHED = "finished"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True when nothing will change any more."""
        return self in (Phase.FINISHED, Phase.CANCELLED)


#: The share of a run's duration that it spends waiting for its turn.
PENDING_SHARE = 0.1

#: Words in a name that choose how its runs end, first match wins. The named objects are named after them, and an
#: object that a client creates can choose its ending in the same way.
_ENDING_WORDS: tuple[tuple[Ending, tuple[str, ...]], ...] = (
    (Ending.EMPTY, ("empty",)),
    (Ending.ERRORED, ("broken", "dead", "errored")),
    (Ending.CANCELLED, ("cancelled",)),
    (Ending.FAILED, ("regression", "returns", "flaky", "fail")),
)


def ending_for_name(name: str) -> Ending:
    """Return how the runs of an object end that nobody decided about: by a word in its name, else well."""
    folded = name.casefold()
    for ending, words in _ENDING_WORDS:
        if any(word in folded for word in words):
            return ending
    return Ending.PASSED


@dataclass(slots=True)
class Target:
    """What a run is started from: a model, a project, a run test, a test configuration.

    :param id: its id.
    :param name: its name.
    :param ending: how its runs end.
    :param duration: how long they take; None takes the server's setting.
    """

    id: str
    name: str
    ending: Ending
    duration: float | None = None
    #: The cases that fail, by their names, while all others pass; None when that follows from the ending.
    failing: frozenset[str] | None = field(default=None, kw_only=True)


@dataclass(slots=True, eq=False)
class SimulatedRun:
    """A run of any platform.

    :param platform: the platform's name.
    :param kind: ``run``, ``generation`` or ``test configuration``.
    :param run_id: its id.
    :param number: its place in the order of creation on this server, starting with 1.
    :param target_id: what it was started from.
    :param target_name: the name of that, None for a script.
    :param created: when it was created.
    :param duration: seconds from the creation to the end; infinity for a run that hangs.
    :param ending: how it will end.
    :param arguments: what the client asked for.
    :param evaluates: True when it spends its last fifth evaluating.
    """

    platform: str
    kind: str
    run_id: str
    number: int
    target_id: str
    target_name: str | None
    created: float
    duration: float
    ending: Ending
    arguments: dict[str, Any] = field(default_factory=dict)
    evaluates: bool = False
    #: When the present round began: later than the creation once calls were run again.
    round_started: float = 0.0
    #: True when the present round only evaluates.
    evaluates_only: bool = False
    cancel_requested: float | None = None
    cancel_seconds: float = 0.0
    cancelled_by: str | None = None
    #: Its rounds begin with the first look at them.
    begins_when_seen: bool = False
    #: Nobody has looked at the present round yet, and it begins when somebody does.
    unseen: bool = False
    #: Left out of every list, though a look at it alone finds it.
    hidden: bool = False
    #: Gone: 404 everywhere.
    vanished: bool = False
    #: The cases that fail, by their names; None when that follows from the ending.
    failing: frozenset[str] | None = None
    #: Said instead of the real status word.
    raw_status: str | None = None
    #: Changes with every intervention, so that cached rows are made again.
    revision: int = 0
    #: The row that lists show as JSON text, what it was made from, and when it will be out of date whatever happens.
    row: str = ""
    row_key: tuple[Any, ...] = ()
    row_until: float = 0.0

    def __post_init__(self) -> None:
        if not self.round_started:
            self.round_started = self.created

    def _frozen(self, now: float) -> float:
        """Return the time at which the run's own progress stopped, or now."""
        return now if self.cancel_requested is None else min(now, self.cancel_requested)

    def fraction(self, now: float) -> float:
        """Return how much of the present round is over, from 0 to 1."""
        if self.unseen:
            return 0.0
        if math.isinf(self.duration):
            # A run that hangs gets half way, so that it is seen running.
            return min(0.5, max(0.0, (self._frozen(now) - self.round_started) / 2))
        if self.duration <= 0:
            return 1.0
        return min(1.0, max(0.0, (self._frozen(now) - self.round_started) / self.duration))

    def progress(self, now: float) -> float:
        """Return how much of the testing is done, from 0 to 1: the waiting before it and the scoring after left out."""
        if self.evaluates_only:
            return 1.0
        end = 0.8 if self.evaluates else 1.0
        return min(1.0, max(0.0, (self.fraction(now) - PENDING_SHARE) / (end - PENDING_SHARE)))

    def phase(self, now: float) -> Phase:
        """Return where the run stands."""
        if self.cancel_requested is not None:
            over = now >= self.cancel_requested + self.cancel_seconds
            return Phase.CANCELLED if over else Phase.CANCELLING
        fraction = self.fraction(now)
        if fraction >= 1:
            return Phase.CANCELLED if self.ending is Ending.CANCELLED else Phase.FINISHED
        if self.evaluates_only:
            return Phase.EVALUATING
        if fraction < PENDING_SHARE:
            return Phase.PENDING
        # Only calls that took place can be evaluated.
        if self.evaluates and fraction >= 0.8 and self.ending not in (Ending.ERRORED, Ending.EMPTY):
            return Phase.EVALUATING
        return Phase.RUNNING

    def finished_at(self, now: float) -> float | None:
        """Return when the run ended, None while it continues."""
        if not self.phase(now).is_final:
            return None
        if self.cancel_requested is not None:
            return self.cancel_requested + self.cancel_seconds
        return self.round_started + self.duration

    def request_cancel(self, now: float, seconds: float, operation: str) -> None:
        """Stop the run, unless it is being stopped already.

        :param seconds: how long it takes until the run is over.
        :param operation: who asked, for the statistics.
        """
        if self.cancel_requested is None:
            self.cancel_requested = now
            self.cancel_seconds = seconds
            self.cancelled_by = operation
            self.revision += 1

    def finish(self, now: float, ending: Ending | None = None) -> None:
        """End the run at once."""
        self.unseen = False
        self.duration = max(0.0, now - self.round_started)
        if ending is not None:
            self.ending = ending
        self.revision += 1

    def restart(self, now: float, duration: float, evaluates_only: bool) -> None:
        """Begin another round under the same id."""
        self.round_started = now
        self.duration = duration
        self.evaluates_only = evaluates_only
        self.unseen = self.begins_when_seen and 0 < duration < math.inf
        self.cancel_requested = None
        self.cancelled_by = None
        self.raw_status = None
        if self.ending is Ending.CANCELLED:
            self.ending = Ending.PASSED
        self.revision += 1

    def cached_row(self, now: float) -> str | None:
        """Return the row if it can't have changed, without working out where the run stands.

        Most runs of a long list are over, and lists are polled often.
        """
        return self.row if now < self.row_until and self.row_key[0] == self.revision else None

    def cache_row(self, key: tuple[Any, ...], until: float, make: Callable[[], dict[str, Any]]) -> str:
        """Return the row, made again if what it is made from has changed.

        :param key: what it is made from, the revision first.
        :param until: when it will be out of date; 0 to compare the key every time.
        :param make: makes it.
        """
        if key != self.row_key:
            self.row_key = key
            self.row = json.dumps(make())
        self.row_until = until
        return self.row

    def summary(self, now: float) -> dict[str, Any]:
        """Describe the run for the statistics."""
        return {
            "platform": self.platform,
            "kind": self.kind,
            "run_id": self.run_id,
            "number": self.number,
            "target_id": self.target_id,
            "target_name": self.target_name,
            "created": self.created,
            "duration": None if math.isinf(self.duration) else self.duration,
            "ending": self.ending.value,
            "phase": self.phase(now).value,
            "progress": round(self.progress(now), 3),
            "finished": self.finished_at(now),
            "cancelled_by": self.cancelled_by,
            "hidden": self.hidden,
            "vanished": self.vanished,
            "raw_status": self.raw_status,
            "arguments": self.arguments,
        }


class RunBook:
    """The runs of one platform in the order of their creation, and by what they were started from.

    :param clock: the server's clock.
    :param begin_when_seen: whether a run begins with the first look at it; see ``Settings``.
    """

    def __init__(self, clock: Clock, begin_when_seen: Callable[[], bool] = lambda: False) -> None:
        self._clock = clock
        self._begin_when_seen = begin_when_seen
        self._by_id: dict[str, SimulatedRun] = {}
        self._by_target: dict[str, list[SimulatedRun]] = {}

    def add(self, run: SimulatedRun) -> None:
        """Enter a run, in its place by time of creation."""
        run.begins_when_seen = self._begin_when_seen()
        # Not one that is over since long, nor one that never ends.
        until = run.created + run.duration
        run.unseen = run.begins_when_seen and run.duration > 0 and self._clock.now() < until < math.inf
        self._by_id[run.run_id] = run
        runs = self._by_target.setdefault(run.target_id, [])
        position = len(runs)
        while position and runs[position - 1].created > run.created:
            position -= 1
        runs.insert(position, run)

    def find(self, run_id: str) -> SimulatedRun | None:
        """Return a run by its id, unless it has vanished."""
        run = self._by_id.get(run_id)
        return None if run is None or run.vanished else self.see(run)

    def get(self, run_id: str) -> SimulatedRun | None:
        """Return a run by its id, even when it has vanished."""
        return self._by_id.get(run_id)

    def all(self) -> Iterable[SimulatedRun]:
        """Return every run, in the order in which they were entered."""
        return self._by_id.values()

    def listed(self, target_id: str) -> list[SimulatedRun]:
        """Return the runs of a target that lists show, oldest first."""
        return [self.see(r) for r in self._by_target.get(target_id, ()) if not (r.hidden or r.vanished)]

    def see(self, run: SimulatedRun) -> SimulatedRun:
        """Note that a client looks at a run, which begins now if it waits for that."""
        if run.unseen:
            run.unseen = False
            run.round_started = self._clock.now()
            run.revision += 1
        return run

    def latest(self, target_id: str) -> SimulatedRun | None:
        """Return the newest run of a target that lists show."""
        for run in reversed(self._by_target.get(target_id, ())):
            if not (run.hidden or run.vanished):
                return run
        return None
