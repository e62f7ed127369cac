"""What the tests of the core share: a platform without a network, a clock that only sleeping moves, and two drivers.

:func:`drive` carries a platform's steps against :class:`FakePlatform`; :func:`flow` carries the transport's flows
against responses that a test has written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_testruns.exceptions import ApiError, ConfigurationError, NotFoundError, TransportError
from airflow_provider_testruns.model import Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.platform import Platform, Start
from airflow_provider_testruns.steps import Call, Response, Sleep, Steps, ask
from airflow_provider_testruns.transport.effects import RefreshToken, Request

#: When all tests begin; seconds since 1970, a whole second.
BEGIN = 1_800_000_000.0
#: How long the fake platform takes for a call, in seconds.
LATENCY = 0.125


class Clock:
    """Wall-clock seconds that pass only when somebody lets them."""

    def __init__(self, now: float = BEGIN) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    @property
    def past(self) -> float:
        """Seconds since the beginning."""
        return self.now - BEGIN


class Lines:
    """Takes the lines for a task's log and keeps them, formatted as logging does."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    def debug(self, line: str, *arguments: Any) -> None:
        self._keep("debug", line, arguments)

    def info(self, line: str, *arguments: Any) -> None:
        self._keep("info", line, arguments)

    def warning(self, line: str, *arguments: Any) -> None:
        self._keep("warning", line, arguments)

    def error(self, line: str, *arguments: Any) -> None:
        self._keep("error", line, arguments)

    def _keep(self, level: str, line: str, arguments: tuple[Any, ...]) -> None:
        self.kept.append((level, line % arguments if arguments else line))

    def of(self, level: str) -> list[str]:
        """The lines of one level."""
        return [line for kept, line in self.kept if kept == level]


@dataclass
class Fault:
    """What goes wrong with a call.

    :param error: what the caller sees.
    :param done: whether the platform has done the work all the same.
    :param takes: seconds until the caller sees it.
    """

    error: BaseException
    done: bool = False
    takes: float = 0.0


def lost(*, done: bool, takes: float = 0.0) -> Fault:
    """A response that never came."""
    return Fault(TransportError("Connection 'c' could not do it: the connection was lost.", sent=True), done, takes)


def moment(seconds: float) -> datetime:
    """A time in UTC from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


class FakePlatform(Platform):
    """A platform that is asked through :func:`drive`.

    :param clock: ours; the platform's own is ``offset`` seconds ahead.
    """

    name = "fake"
    title = "Fake"

    def __init__(self, clock: Clock, offset: float = 0.0) -> None:
        self.clock = clock
        self.offset = offset
        #: How many seconds the times of its runs are ahead of its clock: local time that should be UTC.
        self.zone = 0.0
        #: Oldest first.
        self.runs: list[Run] = []
        #: What goes wrong, by action (``start``, ``list`` …), in the order of asking; ``None`` is nothing.
        self.faults: dict[str, list[Fault | None]] = {}
        #: What was asked for, in order.
        self.actions: list[str] = []
        #: What each ``get`` shows, in order, the last one for good; without, the run as it stands in :attr:`runs`.
        self.looks: list[Run | ApiError] = []
        #: Seconds from a run's start until the list shows it.
        self.listing_lag = 0.0
        #: Whether the list shows runs from before what was asked for.
        self.lists_all = False
        #: Called when a start arrives, before it does anything.
        self.at_start: Callable[[], None] = lambda: None
        self.sleeps: list[float] = []
        self.cannot_list: str | None = None
        self.not_compared: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        #: The run that makes a start needless.
        self.existing_run: Run | None = None
        #: Seconds from a cancel until the run is final.
        self.stops_after = 0.0
        self._cancelled_at: dict[str, float] = {}
        #: The ``Date`` of the last response minus our clock, as the transport's session keeps it.
        self.clock_offset: float | None = None
        #: Whether responses have a ``Date``.
        self.sends_date = True

    # What tests arrange

    def add(self, run_id: str, *, age: float | None = 0.0, **changes: Any) -> Run:
        """Put a run there that somebody else has started, ``age`` seconds ago; ``None``: it has no start time yet."""
        run = Run(
            "fake",
            run_id,
            changes.pop("state", RunState.RUNNING),
            changes.pop("raw_state", "running"),
            started_at=None if age is None else moment(self.clock() + self.offset + self.zone - age),
            started_with=changes.pop("started_with", {"group": "g"}),
            **changes,
        )
        self.runs.append(run)
        return run

    def end(self, run_id: str, ending: Verdict) -> Run:
        """Make a run final."""
        at, run = next((at, run) for at, run in enumerate(self.runs) if run.run_id == run_id)
        self.runs[at] = replace(run, state=RunState.FINISHED, raw_state=ending.value, platform_verdict=ending)
        return self.runs[at]

    def lose(self, run_id: str) -> None:
        """Forget a run."""
        self.runs = [run for run in self.runs if run.run_id != run_id]

    def count(self, action: str) -> int:
        """How often something was asked for."""
        return self.actions.count(action)

    # What the driver calls

    def serve(self, call: Call[Any]) -> Any:
        """Answer a call."""
        action = call.path.split("/")[1]
        self.actions.append(action)
        self.clock.now += LATENCY
        waiting = self.faults.get(action)
        fault = waiting.pop(0) if waiting else None
        if fault is None or fault.done:
            result = call.read(Response(200, {}, b""))
        if fault is not None:
            self.clock.now += fault.takes
            raise fault.error
        if self.sends_date:
            # Dates have whole seconds.
            self.clock_offset = float(int(self.clock() + self.offset)) - self.clock()
        return result

    # The platform

    def prepare_start(self, **arguments: Any) -> Steps[Start]:
        if arguments.get("group") == "":
            raise ConfigurationError("group must not be empty.")
        yield from ask(Call("prepare", "GET", "/prepare", lambda response: None))
        return Start(
            "a fake run",
            Call("start a run", "POST", "/start", lambda response: self._start(arguments), idempotent=False),
            ids={"project_id": "p"},
            started_with=dict(arguments),
            cannot_list=self.cannot_list,
            not_compared=self.not_compared,
            warnings=self.warnings,
            existing_run=self.existing_run,
        )

    def _start(self, arguments: dict[str, Any]) -> Run:
        self.at_start()
        run = self.add(f"run-{len(self.runs) + 1}", started_with=dict(arguments), ids={"project_id": "p"})
        # As the real ones do: the response to a start shows less than a poll.
        return Run("fake", run.run_id, RunState.QUEUED, "pending", ids={"project_id": "p"})

    def newest_run(self, start: Start) -> Steps[Run | None]:
        return (yield from ask(Call("newest", "GET", "/newest", lambda response: next(iter(self._listed()), None))))

    def get_run(self, run: Run) -> Steps[Run]:
        run_id = run.run_id
        return (yield from ask(Call(f"get run {run_id}", "GET", f"/get/{run_id}", lambda response: self._get(run_id))))

    def _get(self, run_id: str) -> Run:
        if self.looks:
            look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
            if isinstance(look, ApiError):
                raise look
            return look
        cancelled_at = self._cancelled_at.get(run_id)
        for run in self.runs:
            if run.run_id == run_id:
                over = cancelled_at is not None and self.clock() >= cancelled_at + self.stops_after
                return self.end(run_id, Verdict.CANCELLED) if over and not run.final else run
        raise NotFoundError(f"Connection 'c' could not get run {run_id}: HTTP 404.", status=404)

    def find_runs(self, since: datetime | None, **ids: str) -> Steps[list[Run]]:
        def found(response: Response) -> list[Run]:
            everything = since is None or self.lists_all
            return [run for run in self._listed() if everything or run.started_at is None or run.started_at >= since]

        assert ids == {"project_id": "p"}
        return (yield from ask(Call("list", "GET", "/list", found)))

    def _listed(self) -> list[Run]:
        now = moment(self.clock() + self.offset + self.zone - self.listing_lag)
        shown = [run for run in self.runs if run.started_at is None or run.started_at <= now]
        return sorted(shown, key=lambda run: run.started_at or moment(4e9), reverse=True)

    def cancel_run(self, run: Run) -> Steps[None]:
        run_id = run.run_id

        def cancel(response: Response) -> None:
            self._cancelled_at.setdefault(run_id, self.clock())

        return (yield from ask(Call(f"cancel run {run_id}", "POST", f"/cancel/{run_id}", cancel)))

    def get_report(self, run: Run) -> Steps[RunReport]:
        return (yield from ask(Call("report", "GET", "/report", lambda response: RunReport(run))))

    def check(self) -> Steps[str]:
        return (yield from ask(Call("check", "GET", "/check", lambda response: "fine")))


class Died(BaseException):
    """The worker was killed."""


def drive(
    platform: FakePlatform, steps: Steps[Any], *, most: int = 10_000, dies: Callable[[int], bool] = lambda number: False
) -> Any:
    """Carry steps to their end.

    :param platform: answers; its clock is moved by sleeping.
    :param steps: what to do.
    :param most: more steps than this are an endless loop.
    :param dies: whether the worker is killed before the step of this number.
    """
    value: Any = None
    error: ApiError | None = None
    try:
        for number in range(most):
            try:
                step = steps.throw(error) if error else steps.send(value)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            if dies(number):
                raise Died
            if isinstance(step, Sleep):
                assert step.seconds >= 0
                platform.sleeps.append(step.seconds)
                platform.clock.now += step.seconds
                continue
            try:
                value = platform.serve(step)
            except ApiError as e:
                error = e
    finally:
        steps.close()
    raise AssertionError(f"not over after {most} steps")


@dataclass
class Script:
    """What :func:`flow` has carried.

    :param answers: a response or an error for each request, in order; a callable makes one from the request.
    """

    answers: Iterable[Response | Exception | Callable[[Request], Response | Exception]]
    requests: list[Request] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    renewals: int = 0

    def __post_init__(self) -> None:
        self.answers = iter(self.answers)

    def answer(self, request: Request) -> Response:
        """The next answer."""
        self.requests.append(request)
        found = next(self.answers, None)  # type: ignore[call-overload]
        assert found is not None, f"a request more than expected: {request.method} {request.url}"
        if callable(found):
            found = found(request)
        if isinstance(found, Exception):
            raise found
        return found

    def done(self) -> bool:
        """Whether all answers were asked for."""
        return next(self.answers, None) is None  # type: ignore[call-overload]


def flow(session: Any, steps: Any, wire: Script) -> Any:
    """Carry a flow of the transport to its end, as the drivers do, over a written wire."""
    value: Any = None
    error: Exception | None = None
    try:
        while True:
            try:
                effect = steps.throw(error) if error else steps.send(value)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            try:
                match effect:
                    case Request():
                        value = wire.answer(effect)
                    case Sleep(seconds):
                        wire.sleeps.append(seconds)
                        session.clock.now += seconds
                    case RefreshToken(_, stale):
                        wire.renewals += 1
                        flow(session, session.refreshing_token(stale), wire)
                    case other:
                        raise AssertionError(other)
            except Exception as e:
                error = e
    finally:
        steps.close()
