"""Starting a run exactly once.

No platform takes an idempotency key, so a start that is repeated is a second run that is paid for. The rule: a
start is repeated only after looking, and only when looking showed that nothing was started.

What happened is kept in one :class:`Record`, which outlives the try where the Airflow version has a place for it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from airflow_provider_testruns import timing
from airflow_provider_testruns.cleaning import clean, distinct, is_id
from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    RunTimeoutError,
    StartAbandonedError,
    StartOutcomeUnknownError,
    StartSupersededError,
)
from airflow_provider_testruns.judging import judge
from airflow_provider_testruns.lifecycle.stopping import stop
from airflow_provider_testruns.lifecycle.waiting import fetch_report
from airflow_provider_testruns.limits import MESSAGE
from airflow_provider_testruns.model import Kind, Run, RunState, Verdict
from airflow_provider_testruns.platforms.platform import NOT_LISTED, Identity, Platform, Start
from airflow_provider_testruns.steps import Steps, ask, pause
from airflow_provider_testruns.transport.pace import Pace
from airflow_provider_testruns.transport.policy import back_off, retrying

T = TypeVar("T")

#: What may be transient where nothing was started for certain, but seldom does: tried again for :data:`.timing.GRACE`.
_MAY_PASS = (AuthenticationError, InvalidReplyError)


#: Times that a record can hold, in seconds since 1970; the year 3000 is late enough.
_EARLIEST, _LATEST = -62_135_596_800.0, 32_503_680_000.0
#: The longest time for a start, which a connection can set, and the furthest that a clock can be off, that a record can
#: hold; seconds. A lookup lasts for as long as the former.
_LONGEST_WINDOW, _MOST_OFFSET = 600.0, 10 * 366 * 86_400.0
#: How far workers' clocks may be apart, so that a record is not from the future; seconds.
_WORKERS_APART = 3_600.0
#: How far ahead of the clock that a platform sends with its responses the times of its runs may be; seconds.
_PLATFORM_AHEAD = 2 * 86_400.0
_REMOVE = (
    "Check the platform; when no run of this task is running there, remove the key test_run from the task's state store"
    " (or set durable=False for one run), and the next try starts a new one."
)


class Phase(enum.StrEnum):
    """How far a start has come."""

    INTENT = "intent"
    STARTED = "started"
    JUDGED = "judged"


@dataclass(frozen=True, slots=True)
class Epoch:
    """Which attempt of its user's a task is in. A retry keeps it, a clear moves it.

    :param max_tries: of the task instance: a clear raises it, a retry does not.
    :param retries: of the task: when it was lowered, a clear may leave ``max_tries`` as it was.
    :param clear_number: of the DAG run.
    """

    max_tries: int
    retries: int
    clear_number: int

    def same_as(self, other: Epoch) -> bool:
        """Whether no clear lies between the two."""
        if self.max_tries != other.max_tries:
            return False
        return self.retries == other.retries or self.clear_number == other.clear_number


@dataclass(frozen=True, slots=True)
class Watermark:
    """What the platform showed just before a start was sent: the line between older runs and ours.

    :param run_id: the newest run then; ``None`` when there was none, or it was not available.
    :param at: its start by the platform's clock, or the best guess at the platform's time then (seconds since
        1970); ``None`` when the platform showed that there was no run at all.
    :param offset: the platform's clock minus ours in seconds, ``None`` when not known.
    """

    run_id: str | None = None
    at: float | None = None
    offset: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The one thing that is remembered of a task's start. Holds ids and times, never a secret.

    :param epoch: see :class:`Epoch`.
    :param phase: how far it has come.
    :param intent_at: when the start was about to be sent, by our clock; seconds since 1970.
    :param window: how many seconds after ``intent_at`` the start may have reached the platform.
    :param mark: see :class:`Watermark`.
    :param fingerprint: of the arguments.
    :param ids: where the run is to be looked for.
    :param started_with: what a lookup compares.
    :param cannot_list: why no lookup is possible, ``None`` when one is.
    :param run: the run, from ``started`` on.
    :param seen: whether the platform has shown the run in a poll.
    :param verdict: of a judged run.
    :param deadline: when the wait of the try that wrote this times out; seconds since 1970, ``None`` when not known.
    :param trigger_failures: how often the trigger of that wait has failed.
    :param rerun_of: the run whose failed cases are tested again, as of :class:`.Start`.
    """

    epoch: Epoch
    phase: Phase
    intent_at: float
    window: float
    mark: Watermark
    fingerprint: str
    ids: Mapping[str, str] = field(default_factory=dict)
    started_with: Mapping[str, Any] = field(default_factory=dict)
    cannot_list: str | None = None
    run: Run | None = None
    seen: bool = False
    verdict: Verdict | None = None
    deadline: float | None = None
    trigger_failures: int = 0
    rerun_of: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; :meth:`from_json` reads it back."""
        return {
            "version": 1,
            "epoch": [self.epoch.max_tries, self.epoch.retries, self.epoch.clear_number],
            "phase": self.phase.value,
            "intent_at": self.intent_at,
            "window": self.window,
            "mark": {"run_id": self.mark.run_id, "at": self.mark.at, "offset": self.mark.offset},
            "fingerprint": self.fingerprint,
            "context": dict(self.ids),
            "started_with": dict(self.started_with),
            "cannot_list": self.cannot_list,
            "run": self.run.to_dict() if self.run else None,
            "seen": self.seen,
            "verdict": self.verdict.value if self.verdict else None,
            **({} if self.deadline is None else {"deadline": self.deadline}),
            **({} if self.trigger_failures == 0 else {"trigger_failures": self.trigger_failures}),
            **({} if not self.rerun_of else {"rerun_of": self.rerun_of}),
        }

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Read what :meth:`to_json` wrote.

        The state store can be written by people, so that nothing in it is believed: neither its types nor its times.

        :raises StartOutcomeUnknownError: when it is anything else: a record that can't be read may stand for a
            run that is running.
        """
        try:
            given = dict(data["mark"])
            # What a later version has added is ignored.
            mark = Watermark(given["run_id"], given["at"], given["offset"])
            ids, started_with = data.get("context") or {}, data.get("started_with") or {}
            _check(mark.run_id is None or isinstance(mark.run_id, str), "mark")
            _check(isinstance(started_with, dict) and isinstance(data["fingerprint"], str), "started_with")
            _check(_is_texts(ids), "context")
            _check(data.get("cannot_list") is None or isinstance(data["cannot_list"], str), "cannot_list")
            phase = Phase(data["phase"])
            run = Run.from_dict(data["run"]) if data.get("run") else None
            _check(run is None or (isinstance(run.run_id, str) and _is_texts(run.ids)), "run")
            return cls(
                epoch=Epoch(*(int(part) for part in data["epoch"])),
                phase=phase,
                intent_at=_seconds(data["intent_at"], "intent_at", 0.0, _LATEST),
                window=_seconds(data["window"], "window", 0.0, _LONGEST_WINDOW),
                mark=Watermark(
                    mark.run_id,
                    None if mark.at is None else _seconds(mark.at, "mark.at", _EARLIEST, _LATEST),
                    None if mark.offset is None else _seconds(mark.offset, "mark.offset", -_MOST_OFFSET, _MOST_OFFSET),
                ),
                fingerprint=data["fingerprint"],
                ids=ids,
                started_with=started_with,
                cannot_list=data.get("cannot_list"),
                # A start that was about to be sent has none: one that stands there all the same is nobody's word, and
                # must not be what is cancelled when the task is killed.
                run=None if phase is Phase.INTENT else run,
                seen=bool(data.get("seen")),
                verdict=Verdict(data["verdict"]) if data.get("verdict") else None,
                deadline=None
                if data.get("deadline") is None
                else _seconds(data["deadline"], "deadline", _EARLIEST, _LATEST),
                trigger_failures=int(_seconds(data.get("trigger_failures") or 0, "trigger_failures", 0, 1e6)),
                rerun_of=data["rerun_of"] if is_id(data.get("rerun_of")) else "",
            )
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as e:
            raise StartOutcomeUnknownError(
                f"The record of this task's start can't be read ({type(e).__name__}: {clean(str(e), 200)}), and may"
                f" refer to a run that is still running. Nothing is started. {_REMOVE}"
            ) from e


def _check(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"{what} can't be right")


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _seconds(value: Any, what: str, least: float, most: float) -> float:
    _check(isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most, what)
    return float(value)


class RecordStore(Protocol):
    """Where the record is kept beyond a try."""

    def read(self) -> Any:
        """What was written last, ``None`` when nothing was."""

    def write(self, data: dict[str, Any]) -> None:
        """Keep ``data``.

        :raises StartSupersededError: when a later try owns the task.
        :raises Exception: any other, when it could not be kept.
        """

    def clear(self) -> None:
        """Forget what was written."""


@dataclass(frozen=True, slots=True)
class StartResult:
    """The run that a task is to wait for or to judge.

    :param run: the run as it was seen last.
    :param how: ``started``, ``adopted``, ``reattached``, ``judged`` or ``already`` (nothing had to be started).
    :param seen: whether the platform has shown it in a poll.
    """

    run: Run
    how: str
    seen: bool = False


class Starter:
    """Obtains the one run of a task.

    :param platform: where it runs.
    :param store: where the record is kept; ``None`` when there is no such place or none is wanted.
    :param epoch: the task's.
    :param window: seconds within which a start is sent and answered, or given up.
    :param adopt: whether a run that a lookup has found is taken; otherwise it is reported as an error.
    :param cancel_older: whether the run of an earlier epoch is cancelled when it is still running.
    :param log: takes the lines for the task's log.
    :param after_failed_run: what follows on a run that was judged as failed, instead of a new start: a start of another
        kind, or a sentence that says why there is none. ``None`` for always a new start.
    :param clock_offset: gives the platform's clock minus ours in seconds, ``None`` while not known.
    :param deadline: when the task times out (seconds since 1970): nothing is started from then on. ``None`` for
        no such time.
    :param not_before: the earliest time, by Airflow's clock (seconds since 1970), at which a run of this task can have
        begun: when its DAG run was created; ``None`` when not known.
    :param clock: wall-clock seconds; for tests.
    :param pace: how many may start at once over the connection; any number if it is not given.

    What is stored between tries is not believed, as who may write a task's state may not be allowed to use its
    connection. A run that it names is only judged, waited for or cancelled after the platform has shown it as one of
    this task's: of its project, model or run test, with its arguments, and begun when it can have been.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        store: RecordStore | None,
        epoch: Epoch,
        window: float,
        log: Any,
        adopt: bool = True,
        cancel_older: bool = True,
        after_failed_run: Callable[[Run], Steps[Start | str]] | None = None,
        clock_offset: Callable[[], float | None] = lambda: None,
        deadline: float | None = None,
        not_before: float | None = None,
        clock: Callable[[], float] = time.time,
        pace: Pace | None = None,
    ) -> None:
        self.platform = platform
        self._pace = pace or Pace()
        self._store = store
        self._epoch = epoch
        self._window = window
        self._log = log
        self._may_adopt = adopt
        self._cancel_older = cancel_older
        self.after_failed_run = after_failed_run
        self.deadline = deadline
        #: How often the trigger of this try's wait has failed.
        self.trigger_failures = 0
        self._read_offset = clock_offset
        self._not_before = not_before
        self._identity: Identity | None = None
        self._clock = clock
        #: The record as it should be kept; what is known even if it could not be. One that was read is here only after
        #: the platform has shown its run.
        self.record: Record | None = None
        #: The run from before the task was cleared, while it is being cancelled.
        self.older: Run | None = None
        #: Set from outside when the task is killed: nothing is started from then on, and what was is cancelled.
        self.stopped = False
        self._unkept = False

    @property
    def has_store(self) -> bool:
        """Whether the record outlives this process."""
        return self._store is not None

    def obtain(self, arguments: Mapping[str, Any]) -> Steps[StartResult]:
        """Get the run that the task is to wait for, by starting, adopting or attaching again.

        :param arguments: of :meth:`Platform.prepare_start`.
        :raises StartOutcomeUnknownError: when a start may have worked and no lookup can tell.
        :raises StartSupersededError: when a later try owns the task.
        :raises StartAbandonedError: when the task was killed before the start was sent.
        :raises ApiError: when nothing was started and the platform says why.
        """
        obtained = yield from self._obtain(arguments)
        if self.stopped and not obtained.run.final:
            run = yield from stop(
                self.platform,
                obtained.run,
                self._log,
                why="the task was killed",
                within=timing.LATE_START_WITHIN,
                clock=self._clock,
            )
            obtained = replace(obtained, run=run)
        return obtained

    def _obtain(self, arguments: Mapping[str, Any]) -> Steps[StartResult]:
        record = self._read()
        fingerprint = _fingerprint(arguments)
        if record is not None and not record.epoch.same_as(self._epoch):
            if record.phase is not Phase.JUDGED and self._cancel_older:
                yield from self._identify(arguments, record)
                yield from self._cancel_older_epoch(record)
            record = None
        if record is not None:
            yield from self._identify(arguments, record)
            if record.fingerprint != fingerprint:
                self._log.warning(
                    "The arguments of this task differ from those its run was started with. The run is kept unless"
                    " the platform shows a different value for one of them."
                )
            yield from self._identify_rerun(record)
            obtained = yield from self._resume(record, fingerprint)
            if obtained is not None:
                return obtained
        return (yield from self._start(arguments, fingerprint))

    def _identify(self, arguments: Mapping[str, Any], record: Record) -> Steps[None]:
        """Find out what a run of this task must show, from the task itself."""
        identity = yield from self._retried(self.platform.identity(**arguments))
        self._identity = identity if identity is not None else Identity(record.ids, record.started_with)

    def _identify_rerun(self, record: Record) -> Steps[None]:
        """What a run of this task must show that tests the failed cases of another one again: not the task's own
        filters, but those that follow from the other run, which must be one of this task's. So no record makes this
        task judge a run with filters of somebody's choice.

        :raises StartOutcomeUnknownError: when the other run is not this task's.
        """
        if not record.rerun_of or self.after_failed_run is None or self._identity is None:
            return
        named = replace(self.platform.run_by_id(record.rerun_of), ids=self._identity.ids)
        try:
            origin = self._ours((yield from self._poll(named, log=self._log.warning)), record)
            start = yield from self._retried(self.after_failed_run(origin))
        except (InvalidRequestError, NotFoundError) as e:
            self._log.warning("Run %s, whose failed cases are tested again, can't be read. %s", record.rerun_of, e)
            return
        if isinstance(start, Start):
            self._expect_rerun(start)

    def _expect_rerun(self, start: Start) -> None:
        if start.rerun_of and self._identity is not None:
            self._identity = replace(self._identity, started_with=start.started_with)

    def confirm(self, run: Run, arguments: Mapping[str, Any]) -> Steps[tuple[Run, bool]]:
        """A run that something other than the record names, which people can write, too.

        :param run: as it was stored.
        :param arguments: of :meth:`Platform.prepare_start`.
        :return: as the platform shows it, and whether it does: what is not there can't be somebody else's.
        :raises StartOutcomeUnknownError: when it is not one of this task's.
        """
        record = Record(self._epoch, Phase.STARTED, self._clock(), self._window, Watermark(), "", run.ids, run=run)
        yield from self._identify(arguments, record)
        try:
            return self._ours((yield from self._poll(run, log=self._log.warning)), record), True
        except NotFoundError:
            assert self._identity is not None
            return replace(run, url="", ids=self._identity.ids), False

    def doubt(self, run: Run, record: Record) -> str:
        """Why a run is not taken for this task's; empty when it may be.

        :param run: as the platform shows it, not as it was stored.
        :param record: that names it, or by which it was found.
        """
        identity = self._identity
        if identity is None:
            return ""
        if identity.run_id is not None:
            return "" if _same_id(run.run_id, identity.run_id) else f"this task's is {identity.run_id}"
        if run.run_id == record.mark.run_id and self.after_failed_run is None:
            return "it was there before this task's start was sent"
        if run.ids is NOT_LISTED:
            where = ", ".join(f"{name} {value}" for name, value in identity.ids.items() if name != "kind")
            return f"the platform does not list it among those of {where}"
        if run.kind.value != identity.ids.get("kind", Kind.RUN.value):
            return f"it is a {run.kind.value}"
        for name, value in identity.ids.items():
            shown = run.ids.get(name)
            if shown and not (_same_id(shown, value) if name.endswith("_id") else shown == value):
                return f"its {name} is {clean(shown, 100)!r}, and this task's is {value!r}"
        for name, given in identity.started_with.items():
            if name in run.started_with and not _same(run.started_with[name], given):
                return f"its {name} is {clean(str(run.started_with[name]), 100)!r}, and this task's is {given!r}"
        return "" if run.started_at is None else self._began_wrongly(run.started_at, record)

    def _began_wrongly(self, started_at: datetime, record: Record) -> str:
        """Why a run with this start can't be this task's; empty when it can. All by the platform's clock."""
        began, said = started_at.timestamp(), f"it began at {started_at.isoformat(timespec='seconds')}"
        earliest = self._earliest()
        if earliest is not None and began < earliest:
            return f"{said}, before this DAG run was created"
        mark = record.mark
        if mark.run_id is not None and mark.at is not None and began < mark.at and self.after_failed_run is None:
            return f"{said}, before this task's start was sent"
        latest, now = self._latest(record)
        if latest < began <= now and not self.platform.begins_late:
            return f"{said}, after this task's start was sent"
        return ""

    def _earliest(self) -> float | None:
        if self._not_before is None:
            return None
        offset = self._clock_offset()
        # Dates have whole seconds.
        return self._not_before - timing.CLOCK_ALLOWANCE if offset is None else self._not_before + offset - 5.0

    def _latest(self, record: Record) -> tuple[float, float]:
        """Until when a start may have become a run, and the time now, by the platform's clock."""
        offset, allowance = record.mark.offset, 2.0
        if offset is None:
            offset, allowance = 0.0, timing.CLOCK_ALLOWANCE
        return (
            record.intent_at + offset + allowance + record.window + timing.LISTING_LAG,
            self._clock() + offset + allowance,
        )

    def _clock_offset(self) -> float | None:
        offset = self._read_offset()
        return offset if offset is not None and abs(offset) <= _MOST_OFFSET else None

    def _ours(self, run: Run, record: Record) -> Run:
        """A run that the platform has shown, with what else is known of this task's runs.

        :raises StartOutcomeUnknownError: when it is not one of this task's.
        """
        why = self.doubt(run, record)
        if why:
            raise StartOutcomeUnknownError(
                f"The record of this task's start names run {clean(run.run_id, 200)}, and the platform does not show it"
                f" as a run of this task: {why}. It is neither judged nor waited for nor cancelled, and nothing is"
                f" started. {_REMOVE}"
            )
        known = self._identity.ids if self._identity is not None else {}
        return replace(run, ids={**known, **run.ids})

    def _poll(self, run: Run, *, log: Callable[..., None] | None = None) -> Steps[Run]:
        """A run that a record names, as the platform shows it.

        :raises NotFoundError: when it does not.
        """
        assert self._identity is not None
        earliest = self._earliest()
        since = None if earliest is None else datetime.fromtimestamp(earliest, UTC)
        steps = self.platform.get_stored_run(run, self._identity, since)
        return (
            yield from retrying(
                _of_record(steps), timing.LOOKUP_PATIENCE, grace=timing.GRACE, clock=self._clock, log=log
            )
        )

    def mark_seen(self, run: Run) -> None:
        """Note that the platform has shown the run; kept with the record, so that a later 404 is understood."""
        if self.record is not None and self.record.run is not None and not self.record.seen:
            self.record = replace(self.record, run=run, seen=True)
            self._keep_if_possible()

    def judged(self, run: Run, verdict: Verdict) -> None:
        """Note the verdict. To be called before a failing one is raised: the next try then starts again."""
        if self.record is not None and self.record.run is not None and self.record.run.run_id == run.run_id:
            self.record = replace(self.record, phase=Phase.JUDGED, run=run, verdict=verdict, seen=True)
            self._keep_if_possible()

    def gave_up(self, run: Run) -> None:
        """Note that a run was given up that has stalled. The next try asks the platform for it: one that has still not
        begun then, after an error of its start, is cancelled, and a new one started.

        :param run: as it was seen last.
        """
        record = self.record
        if record is not None and record.run is not None and _same_id(record.run.run_id, run.run_id):
            kept = replace(record.run, stalled=True, start_error=run.start_error or record.run.start_error)
            self.record = replace(record, run=kept, seen=True)
            self._keep_if_possible()

    def flush_record(self) -> None:
        """Try once more to keep a record that could not be kept.

        :raises StartSupersededError: when a later try owns the task.
        """
        if self._unkept:
            self._keep_if_possible()

    def stored_wait(self) -> tuple[float | None, int]:
        """What the record has of the wait that was handed to a trigger: its deadline, and how often that has failed;
        for a process that has to hand it over again."""
        record = self._read()
        if record is None or not record.epoch.same_as(self._epoch):
            return None, 0
        return record.deadline, record.trigger_failures

    def keep_wait(self) -> None:
        """Note the deadline of the wait and the failures of its trigger, if the record has others."""
        record = self.record
        if record is None or (record.deadline, record.trigger_failures) == (self.deadline, self.trigger_failures):
            return
        self.record = replace(record, deadline=self.deadline, trigger_failures=self.trigger_failures)
        self._keep_if_possible()

    def restore(self, run: Run) -> bool:
        """Pick up the record in a new process, after a wait elsewhere.

        :param run: the run that the wait was for.
        :return: whether the record agrees that it is this task's, as far as there is one.
        """
        record = self._read()
        if record is None or not record.epoch.same_as(self._epoch):
            return True
        if record.run is None:
            # It could not be kept that this run was started, before the wait was handed over.
            record = replace(record, phase=Phase.STARTED, run=run, seen=True)
        if record.run is None or record.run.run_id.casefold() != run.run_id.casefold():
            return False
        self.record = record
        return True

    def candidates(self, record: Record) -> Steps[list[Run]]:
        """One look for the run of a start whose response never came: all runs that it could be."""
        since = None if record.mark.at is None else datetime.fromtimestamp(record.mark.at, UTC)
        runs = yield from self.platform.find_runs(since, **record.ids)
        # A run that is said to begin in the future goes by a clock that can't be compared (local time that is taken for
        # UTC, say): it is not ruled out by it.
        until, now = self._latest(record)
        for run in runs:
            if run.start_unreadable and run.run_id != record.mark.run_id:
                # It may be older than this task's start, or be its run.
                raise InvalidReplyError(
                    f"The start time of run {run.run_id} can't be read, so it can't be determined whether this task"
                    " started it."
                )
        return [
            run
            for run in runs
            if run.run_id != record.mark.run_id
            and (run.started_at is None or since is None or run.started_at >= since)
            and (run.started_at is None or not until < run.started_at.timestamp() <= now)
            and all(
                _same(run.started_with[key], value)
                for key, value in record.started_with.items()
                if key in run.started_with
            )
        ]

    def _read(self) -> Record | None:
        data = self._store.read() if self._store is not None else None
        if data is None:
            return None
        record = Record.from_json(data)
        # By it all runs would be too old to be this task's, and a second one would be started.
        marked_later = record.mark.at is not None and record.mark.at > _latest_mark(
            record.intent_at, record.mark.offset
        )
        if record.intent_at > self._clock() + _WORKERS_APART or marked_later:
            raise StartOutcomeUnknownError(
                f"The record of this task's start can't be right: it is from the future. Nothing is started. {_REMOVE}"
            )
        return record

    def _cancel_older_epoch(self, record: Record) -> Steps[None]:
        """The task was cleared since: its older run is not wanted any more.

        :raises StartOutcomeUnknownError: when a run is named that is running and not this task's.
        """
        run = record.run
        try:
            run = yield from (self._find_older(record) if run is None else self._poll(run))
        except NotFoundError:
            return
        except ApiError as e:
            self._log.warning(
                "Could not poll the run from before this task was cleared; it may still be running. %s", e
            )
            return
        if run is None or run.final:
            return
        run = self._ours(run, record)
        self.older = run
        yield from stop(self.platform, run, self._log, why="the task was cleared and starts again", clock=self._clock)
        self.older = None

    def _find_older(self, record: Record) -> Steps[Run | None]:
        """The run of a start from before the task was cleared, of which no try has learned; ``None`` when there is
        none, or it is not sure which."""
        if record.cannot_list is not None:
            self._log.warning(
                "This task was cleared while it started a run, and that run can't be looked up: %s The platform may"
                " have an orphaned run.",
                record.cannot_list,
            )
            return None
        until = min(record.intent_at, self._clock()) + record.window + timing.LISTING_LAG
        polls = 0
        while True:
            steps = _of_record(self.candidates(record))
            found = yield from retrying(steps, timing.LOOKUP_PATIENCE, grace=timing.GRACE, clock=self._clock)
            if len(found) == 1:
                return found[0]
            if found:
                self._log.warning(
                    "This task was cleared while it started a run, and %d runs could be it (%s): none is cancelled.",
                    len(found),
                    ", ".join(run.run_id for run in found[:5]),
                )
                return None
            left = until - self._clock()
            if left <= 0:
                return None
            if not polls:
                self._log.info("This task was cleared while it started a run: looking for that run, to cancel it.")
            yield from pause(min(timing.LOOKUP_BACKOFF.after(polls), left), new_step=True)
            polls += 1

    def _resume(self, record: Record, fingerprint: str) -> Steps[StartResult | None]:
        """Go on from what an earlier try of this epoch left; ``None`` when a new start is due.

        :raises StartOutcomeUnknownError: when it names a run that is not this task's.
        """
        run = record.run
        if record.phase is Phase.INTENT or run is None:
            self.record = record
            self._log.info("An earlier try may have started a run; checking.")
            return (yield from self._look_up(record, stored=True))
        # By the clock of another worker, perhaps, which is no reason to wait longer.
        until = min(record.intent_at, self._clock()) + record.window + timing.GRACE
        now: Run | None = None
        while now is None:
            try:
                now = yield from self._poll(run, log=self._log.warning)
            except InvalidRequestError as e:
                raise StartOutcomeUnknownError(
                    f"The record of this task's start can't be right: the platform refuses the run that it names. {e}"
                    f" Nothing is started. {_REMOVE}"
                ) from e
            except NotFoundError as e:
                if record.verdict is Verdict.PASSED:
                    raise StartOutcomeUnknownError(
                        f"Run {run.run_id} is recorded as passed in an earlier try, and the platform no longer shows"
                        f" it. Nothing is started. {_REMOVE}"
                    ) from e
                if record.seen:
                    self._log.warning("Run %s no longer exists on the platform; starting a new one. %s", run.run_id, e)
                    return None
                left = until - self._clock()
                if left > 0:
                    yield from pause(min(5.0, left), new_step=True)
                    continue
                raise StartOutcomeUnknownError(
                    f"Run {run.run_id} was started by an earlier try, and the platform has never shown it. Nothing"
                    " is started. Check the platform for the run; clear the task to start a new one."
                ) from e
        now = self._ours(now, record)
        if run.start_error:
            now = replace(now, start_error=run.start_error)
        self.record = record
        if run.stalled:
            if run.start_error and now.state is RunState.QUEUED and (yield from self._stopped_unbegun(now)):
                return None
            self.record = record = replace(record, run=replace(run, stalled=False))
        if record.phase is Phase.JUDGED and run.stopped_early and not now.final:
            # The verdict is noted before the run is stopped; the try may have ended in between.
            self.older = now
            now = yield from stop(
                self.platform, now, self._log, why="an earlier try has given it up as failed", clock=self._clock
            )
            self.older = None
        if record.phase is Phase.JUDGED and now.final:
            if record.verdict is Verdict.PASSED:
                self._log.info("Run %s passed in an earlier try; not starting it again.", run.run_id)
                return StartResult(now, "judged", seen=True)
            if record.verdict is Verdict.FAILED and self.after_failed_run is not None:
                return (yield from self._start_instead(self.after_failed_run, record, now, fingerprint))
            if record.verdict is not None:
                self._log.info("Run %s of an earlier try ended as %s: starting a new one.", run.run_id, record.verdict)
                return None
        if now.final and record.epoch.clear_number != self._epoch.clear_number:
            # A task that was cleared while it ran keeps its epoch on some executors. Its worker has cancelled the run;
            # to fail for that is not what a clear is for. The number also moves when other tasks of the DAG run are
            # cleared: a run that was cancelled on the platform is then followed by a new one a try earlier than else.
            report = yield from fetch_report(
                self.platform, now, self._log, patience=timing.LOOKUP_PATIENCE, clock=self._clock
            )
            if judge(report).verdict is Verdict.CANCELLED:
                self._log.info("Run %s was cancelled, perhaps by a clear of this task: starting a new one.", run.run_id)
                return None
        self._log.info("Run %s was started by an earlier try: waiting for it, no new start.", run.run_id)
        self.mark_seen(now)
        return StartResult(now, "reattached", seen=True)

    def _stopped_unbegun(self, run: Run) -> Steps[bool]:
        """Cancel a run that has never begun and that an earlier try gave up: it must not begin beside a new one.

        :return: whether it has ended.
        """
        self._log.warning(
            "Run %s of an earlier try has still not begun (%s). Its start had failed: %s",
            run.run_id,
            run.raw_state,
            run.start_error,
        )
        if not self._cancel_older:
            self._log.warning("Waiting for it instead of starting a new run (cancel_on_kill=False).")
            return False
        self.older = run
        run = yield from stop(
            self.platform, run, self._log, why="it has not begun, and a new one is started", clock=self._clock
        )
        self.older = None
        return run.final

    def _start(self, arguments: Mapping[str, Any], fingerprint: str) -> Steps[StartResult]:
        start = yield from self._retried(self.platform.prepare_start(**arguments))
        return (yield from self._send(start, fingerprint))

    def _start_instead(
        self, after_failed_run: Callable[[Run], Steps[Start | str]], record: Record, run: Run, fingerprint: str
    ) -> Steps[StartResult | None]:
        """Follow a failed run with something else than a new start; ``None`` when that can't be."""
        self._log.info("Run %s of an earlier try ended as %s.", run.run_id, record.verdict)
        try:
            start = yield from self._retried(after_failed_run(run))
            if isinstance(start, Start):
                self._expect_rerun(start)
                return (yield from self._send(start, fingerprint, before=record))
            why = start
        except (InvalidRequestError, NotFoundError) as e:
            why = str(e)
        self._log.warning("%s Starting a new run.", why)
        return None

    def _send(self, start: Start, fingerprint: str, before: Record | None = None) -> Steps[StartResult]:
        """Send a start.

        :param before: the record to go back to when it is proven that nothing was started.
        """
        for warning in start.warnings:
            self._log.warning(warning)
        if start.existing_run is not None:
            return self._use_existing(start, start.existing_run, fingerprint)
        ticket = object()
        try:
            return (yield from self._send_in_turn(start, fingerprint, before, ticket))
        finally:
            self._pace.end_start(ticket)

    def _wait_for_turn(self, start: Start, ticket: object) -> Steps[None]:
        """Wait until the connection allows one more start. There is no intent meanwhile, as nothing can be started."""
        told = False
        while not self._pace.may_start(ticket) and not self.stopped:
            if self.deadline is not None and self._clock() >= self.deadline:
                return
            if not told:
                told = True
                self._log.info(
                    "Waiting to start %s: max_starts_at_once of the connection is %d, and others start runs.",
                    start.what,
                    self._pace.max_starts_at_once or 0,
                )
            yield from pause(timing.ASK_FOR_TURN, new_step=True)

    def _send_in_turn(
        self, start: Start, fingerprint: str, before: Record | None, ticket: object
    ) -> Steps[StartResult]:
        """Send a start when it is its turn.

        :param ticket: of this start, for the pace.
        """
        yield from self._wait_for_turn(start, ticket)
        give_up_at = self._clock() + timing.START_PATIENCE
        tolerated_until: float | None = None
        failures = unknown = 0
        while True:
            yield from self._wait_for_turn(start, ticket)
            self._check_time(start, unknown, before)
            mark, cannot_list = yield from self._mark(start)
            record = Record(
                self._epoch,
                Phase.INTENT,
                self._clock(),
                self._window,
                mark,
                fingerprint,
                start.ids,
                start.started_with,
                cannot_list,
                deadline=self.deadline,
                trigger_failures=self.trigger_failures,
                rerun_of=(before.rerun_of if before is not None else "") or start.rerun_of,
            )
            self._check_stopped(start)
            self._check_time(start, unknown, before)
            self.record = record
            # A start that nobody would know of must not be sent: this may raise.
            self._keep(record)
            try:
                self._check_stopped(start)
            except StartAbandonedError:
                self._forget(before)
                raise
            if self._clock() - record.intent_at > self._window:
                continue
            try:
                # A lookup relies on it that the start has arrived within the window, or never does: whatever holds
                # this process up in between, a suspended machine included.
                call = replace(start.call, deadline=record.intent_at + self._window, send_before=self.deadline)
                run = yield from ask(call)
            except ApiError as e:
                # What follows may take minutes, in which others can start theirs.
                self._pace.end_start(ticket)
                if e.not_executed:
                    wait = max(back_off(failures), e.retry_after or 0.0)
                    failures += 1
                    until = give_up_at if e.transient else 0.0
                    if isinstance(e, _MAY_PASS):
                        until = tolerated_until = tolerated_until or self._clock() + timing.GRACE
                    if self.deadline is not None:
                        until = min(until, self.deadline)
                    if self._clock() + wait <= until:
                        self._log.warning("%s Nothing was started; trying again in %.0f s.", e, wait)
                        yield from pause(wait, new_step=True)
                        continue
                    self._forget(before)
                    raise
                self._log.warning("%s A run may have been started; checking.", e)
                obtained = yield from self._look_up(record, e, start.not_compared)
                if obtained is not None:
                    return obtained
                unknown += 1
                refused = e.status is not None and 400 <= e.status < 500
                if refused or unknown >= timing.MAX_UNKNOWN_STARTS or not start.start_after_lookup:
                    self._forget(before)
                    raise
                continue
            self._pace.end_start(ticket)
            self._log.info("Started %s: run %s.", start.what, run.run_id)
            if run.message:
                self._log.warning(run.message)
            self._started(run)
            return StartResult(run, "started")

    def _check_time(self, start: Start, unknown: int, before: Record | None) -> None:
        """Start nothing that there is no time to wait for.

        :param unknown: how many starts were sent without an answer, and shown by lookups to have done nothing.
        :param before: the record to go back to.
        """
        if self.deadline is None or self._clock() < self.deadline:
            return
        known = "No start was sent."
        if unknown:
            sent = (
                "A start was sent and got no response"
                if unknown == 1
                else f"{unknown} starts were sent and got no response"
            )
            known = f"{sent}, and the platform's list shows no run of it: nothing was started."
            self._forget(before)
        raise RunTimeoutError(
            f"This task timed out before {start.what} could be started. {known} A longer timeout leaves time to look up"
            " a lost start; the next try starts a run."
        )

    def _check_stopped(self, start: Start) -> None:
        if self.stopped:
            raise StartAbandonedError(f"The task was killed before {start.what} was started.")

    def _use_existing(self, start: Start, run: Run, fingerprint: str) -> StartResult:
        """Take a run that is there already."""
        self._log.info("Nothing to start (%s): using existing run %s (%s).", start.what, run.run_id, run.raw_state)
        self.record = Record(
            self._epoch,
            Phase.STARTED,
            self._clock(),
            self._window,
            Watermark(),
            fingerprint,
            start.ids,
            start.started_with,
            start.cannot_list,
            run,
            seen=True,
            deadline=self.deadline,
            trigger_failures=self.trigger_failures,
        )
        self._keep_if_possible()
        return StartResult(run, "already", seen=True)

    def _retried(self, steps: Steps[T]) -> Steps[T]:
        """Steps that only read, with the patience of a start."""
        return retrying(steps, timing.LOOKUP_PATIENCE, grace=timing.GRACE, clock=self._clock, log=self._log.warning)

    def _mark(self, start: Start) -> Steps[tuple[Watermark, str | None]]:
        """What the platform shows before a start, and why no lookup of it is possible; ``None`` when one is."""
        newest: Run | None = None
        known = False
        if start.cannot_list is None:
            try:
                newest = yield from self._retried(self.platform.newest_run(start))
                known = True
            except AuthenticationError:
                raise
            except ApiError as e:
                self._log.warning("The runs before this start can't be listed; falling back to timestamps. %s", e)
        offset = self._clock_offset()
        cannot_list = start.cannot_list
        if newest is not None and newest.started_at is not None:
            began = newest.started_at.timestamp()
            if began <= _latest_mark(self._clock(), offset):
                return Watermark(newest.run_id, began, offset), cannot_list
            # A record with such a mark is one that no process would believe, this one's next part included.
            cannot_list = (
                f"according to the platform's times, run {newest.run_id} began days in the future, so they can't be"
                " used."
            )
        if known and newest is None:
            return Watermark(None, None, offset), cannot_list
        guess = self._clock() - timing.CLOCK_ALLOWANCE if offset is None else self._clock() + offset - 2.0
        return Watermark(newest.run_id if newest else None, guess, offset), cannot_list

    def _look_up(
        self,
        record: Record,
        cause: ApiError | None = None,
        not_compared: tuple[str, ...] = (),
        *,
        stored: bool = False,
    ) -> Steps[StartResult | None]:
        """Find the run of a start whose response never came; ``None`` when it is sure that there is none.

        :param stored: whether the record was only read, so that the run that it leads to is not believed.
        """
        if record.cannot_list is not None:
            raise StartOutcomeUnknownError(
                f"A start was sent and its outcome is not known, and it can't be looked up: {record.cannot_list}"
                " Nothing is started again. Check the platform; clear the task to start a new run."
                + (f" ({cause})" if cause else "")
            ) from cause
        until = min(record.intent_at, self._clock()) + record.window + timing.LISTING_LAG
        polls = 0
        while True:
            try:
                found = yield from retrying(
                    _of_record(self.candidates(record)) if stored else self.candidates(record),
                    max(timing.LOOKUP_PATIENCE, until - self._clock()),
                    grace=timing.GRACE,
                    clock=self._clock,
                    log=self._log.warning,
                )
            except ApiError as e:
                raise StartOutcomeUnknownError(
                    f"A start was sent and its outcome is not known, and the runs could not be listed. {e} Nothing"
                    " is started again; the next try of the task checks again."
                ) from e
            if len(found) > 1:
                ids = ", ".join(run.run_id for run in found[:5])
                raise StartOutcomeUnknownError(
                    f"A start was sent and its outcome is not known: {len(found)} runs could be it ({ids})."
                    " Nothing is started again. Check on the platform which one is this task's; clear the task to"
                    " start a new run. An Airflow pool with one slot serialises identical starts."
                    + (f" ({cause})" if cause else "")
                ) from cause
            if found:
                run = self._ours(found[0], record) if stored else found[0]
                return self._adopt(run, cause, not_compared)
            left = until - self._clock()
            if left <= 0:
                self._log.info("The platform shows no run of that start: nothing was started.")
                return None
            yield from pause(min(timing.LOOKUP_BACKOFF.after(polls), left), new_step=True)
            polls += 1

    def _adopt(self, run: Run, cause: ApiError | None, not_compared: tuple[str, ...]) -> StartResult:
        if not self._may_adopt:
            raise StartOutcomeUnknownError(
                f"A start was sent and got no response; run {run.run_id} is most likely it, and"
                " adopt_lost_start=False prevents adopting it. Nothing is started again. Check the run on the"
                " platform; clear the task to start a new one." + (f" ({cause})" if cause else "")
            ) from cause
        self._log.warning("Adopted run %s, whose start response was lost.", run.run_id)
        if cause is not None:
            # Told again with how it ends, if that is all that is known of why.
            run = replace(run, start_error=clean(str(cause), MESSAGE))
        if not_compared:
            self._log.info("The platform's list does not show, so not compared: %s.", ", ".join(not_compared))
        self._started(run, seen=True)
        return StartResult(run, "adopted", seen=True)

    def _started(self, run: Run, *, seen: bool = False) -> None:
        assert self.record is not None
        self.record = replace(self.record, phase=Phase.STARTED, run=run, seen=seen)
        self._keep_if_possible()

    def _keep(self, record: Record) -> None:
        if self._store is not None:
            self._store.write(record.to_json())
        self._unkept = False

    def _keep_if_possible(self) -> None:
        assert self.record is not None
        try:
            self._keep(self.record)
        except StartSupersededError:
            raise
        except Exception as e:  # whatever the backend raises: the run is running, and the wait must continue
            if not self._unkept:
                self._log.warning(
                    "The record of the run could not be kept (%s: %s); trying again.", type(e).__name__, e
                )
            self._unkept = True

    def _forget(self, before: Record | None = None) -> None:
        self.record = before
        if self._store is not None:
            try:
                if before is not None:
                    self._store.write(before.to_json())
                else:
                    self._store.clear()
            except Exception as e:  # the next try then looks before it starts, which costs time and no run
                self._log.warning("The record of a start that did nothing could not be removed: %s", e)


def _latest_mark(now: float, offset: float | None) -> float:
    """The latest time by a platform's clock that a run before a start can have begun at; local time that is taken for
    UTC is ahead, too.
    """
    return now + max(0.0, offset or 0.0) + _PLATFORM_AHEAD


def _fingerprint(arguments: Mapping[str, Any]) -> str:
    text = json.dumps(arguments, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _of_record(steps: Steps[T]) -> Steps[T]:
    """Steps whose arguments were read from a record.

    :raises StartOutcomeUnknownError: when they can't be right.
    """
    try:
        return (yield from steps)
    except (ConfigurationError, TypeError, ValueError, LookupError, OverflowError) as e:
        raise StartOutcomeUnknownError(
            f"The record of this task's start can't be right ({clean(str(e), 200)}). Nothing is started. {_REMOVE}"
        ) from e


def _same_id(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def _same(one: Any, other: Any) -> bool:
    """Equal, where nothing given and an empty text are the same to all three platforms.

    Of strings that are not clean, or long, the platforms' modules give a form that is, with a hash: see
    :func:`.distinct`.
    """
    return bool(_comparable(one or None) == _comparable(other or None))


def _comparable(value: Any) -> Any:
    return distinct(value, MESSAGE) if isinstance(value, str) else value
