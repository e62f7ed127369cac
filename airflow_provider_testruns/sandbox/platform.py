"""What the three platforms have in common: settings, runs, and the way from a request to a response."""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from .clock import Clock
from .engine import Ending, RunBook, SimulatedRun, Target
from .exchange import Exchange, Match, Operation, OperationTable, Refusal, Response


@dataclass(slots=True)
class Settings:
    """What can be set for the whole server.

    :param run_seconds: how long a run takes.
    :param begin_when_seen: a run's time begins with the first look at it, so that short ones are never over before.
    :param latency: seconds that every response of a platform takes longer.
    :param cancel_seconds: seconds between a cancel and the end of the run.
    :param eggplant_generation: which of Eggplant's ways to follow a run exist: ``full``, ``progress_only``,
        ``executions_get``, ``runs_only`` or ``v2`` (test configurations by their results only).
    :param eggplant_early_verdict: the list of runs has a test status before the end, beside a run status that shows
        that the run continues.
    :param eggplant_progress_shape: how a progress response is wrapped: ``documented`` (an object for an id, a list for
        a model), ``list`` or ``items``.
    :param futureagi_workflow_down: a start leaves a pending execution behind and answers 400; a rerun answers 200
        and starts nothing.
    :param futureagi_dialects: which dialects Future AGI takes: ``both``, ``current`` (then an API key as bearer token
        is refused, and a login token is taken) or ``documented`` (as of older installations).
    :param futureagi_open_workspace: the id of the workspace that the user of the unbound keys has opened last; empty
        for the usual one.
    :param omilia_service_path: the path, such as ``/testing-studio``, below which Omilia's calls are; what is beside it
        is answered by a console, with a page. Empty for none.
    :param omilia_project_names: how the Git values of a project are named: ``sample`` (``gitToken``, ``gitProvider``),
        ``table`` (``git_token``, ``git_provider``; other names are ignored), ``table_strict`` (other names are refused)
        or ``both``.
    :param omilia_access_token: what has become of the personal access token: ``good``, ``revoked`` (or expired),
        ``password_expired``, ``deactivated`` (the account), or ``reactivated`` (only a new one is taken).
    :param omilia_otp: the password grant needs a one-time password, as the documents say of all environments.
    :param artifact_bytes: size of the run artifacts; 0 for small ones with real contents.
    :param artifact_ttl: seconds until an artifact expires.
    """

    run_seconds: float = 6.0
    begin_when_seen: bool = False
    latency: float = 0.0
    cancel_seconds: float = 0.5
    eggplant_generation: str = "full"
    eggplant_early_verdict: bool = False
    eggplant_progress_shape: str = "documented"
    futureagi_workflow_down: bool = False
    futureagi_dialects: str = "both"
    futureagi_open_workspace: str = ""
    omilia_service_path: str = ""
    omilia_project_names: str = "sample"
    omilia_access_token: str = "good"
    omilia_otp: bool = False
    artifact_bytes: int = 0
    artifact_ttl: int = 604_800


@dataclass(slots=True)
class Plan:
    """What was ordered for the next run, whatever it is started from."""

    ending: Ending | None
    duration: float | None
    #: The cases that fail, by their names, while all others pass; None when that follows from the ending.
    failing: frozenset[str] | None = None


class PlatformAPI:
    """The API of one platform. A subclass declares its operations and answers them.

    Handlers run one at a time, under the server's lock, and never wait: whatever takes time happens around them.

    :param clock: the server's clock.
    :param settings: the server's settings.
    :param random: the server's source of chance, which makes ids too, so that a seed repeats them.
    """

    name: ClassVar[str]
    #: The mount point.
    prefix: ClassVar[str]

    def __init__(self, clock: Clock, settings: Settings, random: Random) -> None:
        self.clock = clock
        self.settings = settings
        self.random = random
        self.reset()
        self.table = OperationTable(self.operations())

    def reset(self) -> None:
        """Go back to the beginning: the named objects, and no runs."""
        self.runs = RunBook(self.clock, lambda: self.settings.begin_when_seen)
        self.plans: deque[Plan] = deque()
        self._run_count = 0

    def operations(self) -> Iterable[Operation]:
        """Return the operations that the platform answers."""
        raise NotImplementedError

    def authenticate(self, exchange: Exchange) -> None:
        """Refuse the request unless it carries good credentials."""
        raise NotImplementedError

    def before_operation(self, exchange: Exchange, operation: Operation) -> None:
        """Check what every operation of the platform demands, before the credentials."""

    def unknown_path(self, exchange: Exchange) -> Response:
        """Answer a path that the platform does not have."""
        raise NotImplementedError

    def wrong_method(self, exchange: Exchange, allowed: tuple[str, ...]) -> Response:
        """Answer a method that the path does not know."""
        raise NotImplementedError

    def target(self, id_or_name: str) -> Target:
        """Return what runs are started from, by its id or its name."""
        raise NotImplementedError

    def simulate(self, target: Target, created: float, plan: Plan) -> SimulatedRun:
        """Start a run that no client asked for, as the platform's own users do."""
        raise NotImplementedError

    def describe_run(self, run: SimulatedRun, now: float) -> RunDescription:
        """Describe a run for its page."""
        raise NotImplementedError

    def identify(self, method: str, raw_path: str) -> Match:
        """Find out which operation a request is."""
        return self.table.find(method, raw_path)

    def answer(self, exchange: Exchange, match: Match) -> Response:
        """Answer a request. What is wrong with it is left in :attr:`Exchange.violations`."""
        try:
            if match.operation is None:
                if match.allowed:
                    exchange.note(f"{exchange.method} is not allowed here, only {', '.join(match.allowed)}")
                    return self.wrong_method(exchange, match.allowed)
                return self.unknown_path(exchange)
            exchange.params = match.params
            self.before_operation(exchange, match.operation)
            if not match.operation.open:
                self.authenticate(exchange)
            return match.operation.handler(exchange)
        except Refusal as refusal:
            if refusal.violation is not None:
                exchange.note(refusal.violation)
            return refusal.response

    def new_id(self) -> str:
        """Return a fresh UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def take_plan(self, target: Target) -> Plan:
        """Decide how the next run of a target goes: by what was ordered, else by the target, else by the settings."""
        ordered = self.plans.popleft() if self.plans else Plan(None, None)
        return self.complete_plan(ordered, target)

    def complete_plan(self, plan: Plan, target: Target) -> Plan:
        """Fill in what a plan leaves open."""
        duration = plan.duration
        if duration is None:
            duration = self.settings.run_seconds if target.duration is None else target.duration
        if plan.ending is None:
            return Plan(target.ending, duration, target.failing)
        return Plan(plan.ending, duration, plan.failing)

    def next_number(self) -> int:
        """Return the next run's number."""
        self._run_count += 1
        return self._run_count


@dataclass(slots=True)
class RunDescription:
    """A run as its page shows it.

    :param title: what was run.
    :param status: the platform's own word.
    :param counts: names and numbers.
    :param columns: the headings of the table of cases.
    :param rows: its rows.
    :param remarks: further lines.
    """

    title: str
    status: str
    counts: dict[str, Any]
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    remarks: list[str] = field(default_factory=list)


def duration_of(plan: Plan) -> float:
    """Return a completed plan's duration."""
    return math.inf if plan.duration is None else plan.duration


def ending_of(plan: Plan) -> Ending:
    """Return a completed plan's ending."""
    return Ending.PASSED if plan.ending is None else plan.ending
