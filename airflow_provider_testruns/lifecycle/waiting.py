"""Waiting for a run: what each poll, or each failed poll, means for the wait.

The rules are in :class:`Wait`; :func:`wait_for` is the loop for one run, in a worker. The watcher of the triggerer
has a loop of its own, for many runs at once, over the same rules.
"""

from __future__ import annotations

import enum
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_testruns import exceptions, timing
from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    NotFoundError,
)
from airflow_provider_testruns.metrics import metrics
from airflow_provider_testruns.model import Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.platform import Platform
from airflow_provider_testruns.steps import Steps, pause
from airflow_provider_testruns.transport.policy import back_off, retrying

_WITH_GRACE = (NotFoundError, AuthenticationError, InvalidReplyError)


class WaitStatus(enum.StrEnum):
    """How a wait ended. Nothing is said about what the run's result means."""

    FINISHED = "finished"
    TIMEOUT = "timeout"
    ERROR = "error"
    #: The run is running, and more of its cases have failed than may.
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class WaitEnd:
    """The end of a wait.

    :param status: how it ended.
    :param run: the run as it was seen last.
    :param error: why the run can't be seen, with ``ERROR``; with ``TIMEOUT``, the failure of the last poll, if any.
    """

    status: WaitStatus
    run: Run
    error: ApiError | None = None

    def to_event(self) -> dict[str, Any]:
        """Plain JSON data for a trigger's event: ``status``, ``run`` and, when there is one, ``error``."""
        event: dict[str, Any] = {"status": self.status.value, "run": self.run.to_dict()}
        if self.error is not None:
            event["error"] = {"type": type(self.error).__name__, "message": str(self.error)}
        return event

    @classmethod
    def from_event(cls, event: Any) -> WaitEnd:
        """Read what :meth:`to_event` wrote, on the worker.

        :raises ConfigurationError: when it is anything else.
        """
        try:
            status = WaitStatus(event["status"])
            run = Run.from_dict(event["run"])
            given = event.get("error")
            error = None
            if given is not None:
                kind = getattr(exceptions, str(given["type"]), ApiError)
                if not (isinstance(kind, type) and issubclass(kind, ApiError)):
                    kind = ApiError
                error = kind(str(given["message"]))
            elif status is WaitStatus.ERROR:
                raise KeyError("error")
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ConfigurationError(
                f"The trigger's event is not one that this version of the provider knows ({type(e).__name__}: {e}). The"
                " triggerer and the workers must have the same version of airflow-provider-testruns."
            ) from e
        return cls(status, run, error)


@dataclass(slots=True)
class Wait:
    """One run that is waited for.

    :param run: the run as it was seen last.
    :param deadline: when the wait times out, in seconds of ``clock``.
    :param poll_interval: seconds between two polls.
    :param log: takes the lines for the task's log.
    :param clock: wall-clock seconds; for tests.
    :param seen: whether the platform has shown the run in a look.
    :param not_before: no look before this time (seconds of ``clock``), as the platform asked for with a Retry-After.
    :param slows_from: when the wait began (seconds of ``clock``), if the time between two polls is to double from look
        to look; ``None`` when it stays the same.
    :param max_interval: how long it may become, in seconds; ``None`` for any length.
    :param stalled_after: for how many seconds a run may show that all of its work is done, and nothing else, before it
        counts as ended, as errored; ``None`` for any time. One that was adopted after an error of its start may be
        pending for no longer than that and :data:`.timing.BEGINS_WITHIN`.
    :param max_failures: the wait ends when more cases of the run have failed for good while it is running; ``None`` to
        wait for its end whatever fails. Such a run is polled individually, as lists don't show failures.
    """

    run: Run
    deadline: float
    poll_interval: float
    log: logging.Logger | Any
    clock: Callable[[], float] = time.time
    seen: bool = False
    not_before: float = 0.0
    slows_from: float | None = None
    max_interval: float | None = None
    stalled_after: float | None = None
    max_failures: int | None = None
    #: What a run shows that has stalled, if nothing else comes, and since when.
    _stuck: tuple[Any, float] | None = field(default=None, init=False)
    _unseen_since: float | None = field(default=None, init=False)
    _trouble: type[ApiError] | None = field(default=None, init=False)
    _warned: tuple[str, float] | None = field(default=None, init=False)
    #: What the response to the run's start has shown, where the run was started here: no poll shows it again.
    _from_start: Mapping[str, Any] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Keep what the start has shown."""
        self._from_start = self.run.source

    def observe(self, run: Run, failures: int | None = None) -> WaitEnd | None:
        """The platform has shown the run.

        :param run: as it is shown.
        :param failures: how many of its cases have failed for good, where that was asked for and is known.
        :return: the end of the wait, or ``None`` when it continues.
        """
        if self._trouble is not None:
            self.log.info("The platform answers again about run %s.", run.run_id)
        self._trouble, self._unseen_since, self.not_before = None, None, 0.0
        run = self._with_start_error(run)
        news = (run.raw_state, run.progress) != (self.run.raw_state, self.run.progress)
        if news or not self.seen:
            self._tell(run)
        if not run.known_state and not run.final:
            self._warn_of_unknown_status(run)
        if self._from_start:
            run = replace(run, source={**self._from_start, **(run.source or {})})
        self.run, self.seen = run, True
        if run.final:
            return WaitEnd(WaitStatus.FINISHED, run)
        if self._has_stalled(run):
            self.run = run = self._stalled(run)
            return WaitEnd(WaitStatus.FINISHED, run)
        if self.max_failures is not None and failures is not None and failures > self.max_failures:
            self.log.info(
                "%d test cases of run %s have failed, and max_failures is %d: the run can't pass any more.",
                failures,
                run.run_id,
                self.max_failures,
            )
            return WaitEnd(WaitStatus.FAILING, run)
        return self._timeout(None)

    def failed(self, error: ApiError) -> WaitEnd | None:
        """A look ended in an error.

        What passes by itself never ends a wait before its deadline; a run that is not there, credentials that
        are not accepted and responses that can't be read do so after :data:`.timing.GRACE`; anything else at once.

        :return: the end of the wait, or ``None`` when it continues.
        """
        now = self.clock()
        if not error.transient:
            if self._unseen_since is None:
                self._unseen_since = now
            if not isinstance(error, _WITH_GRACE) or now - self._unseen_since >= timing.GRACE:
                return WaitEnd(WaitStatus.ERROR, self.run, error)
        else:
            self._unseen_since = None
        self.not_before = now + error.retry_after if error.retry_after else 0.0
        if type(error) is not self._trouble:
            self._trouble = type(error)
            if isinstance(error, NotFoundError) and not self.seen:
                self.log.info("The platform does not show run %s yet.", self.run.run_id)
            else:
                self.log.warning("%s Still waiting.", error)
        return self._timeout(error)

    @property
    def interval(self) -> float:
        """Seconds between two polls, as things stand.

        One that doubles is the first interval longer each time than all that were before it: so it follows from the
        time that has passed, and a restart does not begin again.
        """
        if self.slows_from is None:
            return self.poll_interval
        interval = self.poll_interval + max(0.0, self.clock() - self.slows_from)
        if self.max_interval is None:
            return interval
        return min(interval, max(self.max_interval, min(self.poll_interval, timing.SHORTEST_MAX_INTERVAL)))

    def pause(self) -> float:
        """Seconds until the next look: the poll interval give or take, never beyond the deadline.

        After a failure it is the same, or the Retry-After if that is longer: so the end of an outage is noticed
        as soon as anything else would be.
        """
        now = self.clock()
        return max(0.0, min(max(jittered(self.interval), self.not_before - now), self.deadline - now))

    @property
    def unsure(self) -> bool:
        """Whether the run could not be seen last, for a reason that ends the wait if it lasts."""
        return self._unseen_since is not None

    def _timeout(self, error: ApiError | None) -> WaitEnd | None:
        if self.clock() >= self.deadline:
            return WaitEnd(WaitStatus.TIMEOUT, self.run, error)
        return None

    def would_stall(self, run: Run) -> bool:
        """Whether :meth:`observe` would end the wait since the run has stalled. What a list shows of a run's progress
        can be less exact than what the run shows by itself: whoever polls a list then polls the run alone.

        :param run: as a list shows it.
        """
        before = self._stuck
        stalled = self._has_stalled(self._with_start_error(run))
        if stalled:
            # For the look at the run alone: it says the same or something else.
            self._stuck = before
        return stalled

    def _with_start_error(self, run: Run) -> Run:
        """Polls don't tell how a run was started."""
        kept = self.run.start_error
        return replace(run, start_error=kept) if kept and not run.start_error else run

    def _has_stalled(self, run: Run) -> bool:
        """Whether all of the run's work has been done, or it has not begun, for so long that the platform will hardly
        close it, or begin it."""
        progress, limit = run.progress, self.stalled_after
        shows: Any = None
        if limit is not None and not run.final:
            # Lists and single runs spell a status in different ways.
            if run.start_error and run.state is RunState.QUEUED:
                shows, limit = run.raw_state.strip().casefold(), min(limit, timing.BEGINS_WITHIN)
            elif progress is not None and progress.total and progress.done >= progress.total:
                shows = (run.raw_state.strip().casefold(), progress)
        if shows is None or limit is None:
            self._stuck = None
            return False
        now = self.clock()
        if self._stuck is None or self._stuck[0] != shows:
            self._stuck = (shows, now)
        return now - self._stuck[1] >= limit

    def _stalled(self, run: Run) -> Run:
        since = 0.0 if self._stuck is None else self.clock() - self._stuck[1]
        if run.start_error and run.state is RunState.QUEUED:
            why = (
                f"The run has not begun for {since / 60:.0f} minutes: it is still {run.raw_state}. It was found after"
                f" its start had failed: {run.start_error}"
            )
        else:
            why = (
                f"All {run.progress} items are done, and the platform has not closed the run for"
                f" {since / 60:.0f} minutes: it is still {run.raw_state}."
            )
        why += " Nothing was cancelled; a retry asks the platform again before it starts anything."
        self.log.warning(why)
        return replace(run, state=RunState.FINISHED, platform_verdict=Verdict.ERRORED, message=why, stalled=True)

    def _warn_of_unknown_status(self, run: Run) -> None:
        """Once for each such status, and again every hour: the wait may last until its deadline for it."""
        now = self.clock()
        if (
            self._warned is not None
            and self._warned[0] == run.raw_state
            and now - self._warned[1] < timing.WARN_AGAIN_AFTER
        ):
            return
        self._warned = (run.raw_state, now)
        self.log.warning(
            "Unknown status %r; treating run %s as running until its status is known, it has an end time, or the"
            " wait times out.",
            run.raw_state,
            run.run_id,
        )

    def _tell(self, run: Run) -> None:
        progress = f", {run.progress}" if run.progress is not None else ""
        self.log.info("Run %s is %s (%s%s).", run.run_id, run.state.value, run.raw_state, progress)


def jittered(interval: float) -> float:
    """An interval, give or take :data:`.timing.JITTER`; seconds."""
    return interval * (1 + timing.JITTER * (2 * random.random() - 1))


def wait_for(
    platform: Platform,
    wait: Wait,
    *,
    each_round: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] | None = None,
) -> Steps[WaitEnd]:
    """Wait for one run in place.

    :param platform: the run's platform.
    :param wait: the run and the rules; kept up to date while it continues.
    :param each_round: called after each look.
    :param stopped: whether the run was to be cancelled meanwhile, by a signal handler say: it is then looked at soon,
        and cancelled again until it is final.
    """
    while True:
        end = yield from look_once(platform, wait)
        each_round()
        if end is not None:
            return end
        if stopped is not None and stopped():
            return (yield from _until_stopped(platform, wait, each_round))
        left = wait.pause()
        if stopped is None:
            yield from pause(left, new_step=True)
            continue
        while left > 0:
            yield from pause(min(timing.WAKE_WITHIN, left), new_step=True)
            left -= timing.WAKE_WITHIN
            if stopped():
                break


def _until_stopped(platform: Platform, wait: Wait, each_round: Callable[[], None]) -> Steps[WaitEnd]:
    """The rest of a wait whose run was to be cancelled by a signal handler, which has only seconds for it: cancel it
    again, less and less often, until that is confirmed or the process is gone."""
    # It is being stopped already, and has a reason of its own.
    wait.max_failures = None
    failures = 0
    cancels = True
    while True:
        gap = back_off(failures) if cancels else jittered(wait.interval)
        now = wait.clock()
        yield from pause(max(0.0, min(max(gap, wait.not_before - now), wait.deadline - now)))
        failures += 1
        if cancels:
            try:
                yield from platform.cancel_run(wait.run)
            except ApiError as e:
                cancels = e.transient or isinstance(e, _WITH_GRACE)
                wait.log.warning(
                    "Run %s could not be cancelled%s. %s", wait.run.run_id, "; trying again" if cancels else "", e
                )
            else:
                wait.log.info("Asked the platform again to cancel run %s.", wait.run.run_id)
        end = yield from look_once(platform, wait)
        each_round()
        if end is not None:
            return end


def look_once(platform: Platform, wait: Wait) -> Steps[WaitEnd | None]:
    """One look at a run, whatever comes of it.

    :return: the end of the wait, or ``None`` when it continues.
    """
    metrics.count("polls", platform=platform.name)
    try:
        run, failures = yield from poll(platform, wait)
    except ApiError as e:
        metrics.count("poll_errors", platform=platform.name, error=type(e).__name__)
        return wait.failed(e)
    return wait.observe(run, failures)


def poll(platform: Platform, wait: Wait) -> Steps[tuple[Run, int | None]]:
    """The run of a wait in its present state, and the failures of its cases where the wait is about them, too.

    :param platform: the run's platform.
    :param wait: the run and the rules.
    """
    if wait.max_failures is not None:
        return (yield from platform.poll_with_failures(wait.run))
    return (yield from platform.get_run(wait.run)), None


def fetch_report(
    platform: Platform,
    run: Run,
    log: Any,
    *,
    patience: float = timing.REPORT_PATIENCE,
    clock: Callable[[], float] = time.time,
) -> Steps[RunReport]:
    """The report of a finished run. The run is paid for: trouble that a wait tolerates does not cost its report.

    :param platform: the run's platform.
    :param run: the run, final.
    :param log: takes the lines for the task's log.
    :param patience: seconds for trouble that passes by itself.
    :raises ApiError: when it is unavailable.
    """
    return (
        yield from retrying(platform.get_report(run), patience, grace=timing.REPORT_GRACE, clock=clock, log=log.warning)
    )
