"""The sandbox's other side: order faults, look at the traffic, and decide about runs.

:class:`Control` is for tests in the same process and is safe to use from any thread. The same is served over HTTP
under ``/_sandbox``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from .catalogue import targets
from .eggplant import GENERATIONS
from .engine import Ending, SimulatedRun
from .faults import Fault, FaultKind, FaultMoment
from .futureagi_calls import FAILURE_REASON, WORKSPACE_ID, AgentExecution, RunTest
from .mistakes import Mistake, UnknownRun
from .omilia import PROJECT_NAMES, TOKEN_STATES, OmiliaRun
from .platform import Plan, Settings
from .state import SandboxState
from .traffic import SeenRequest

_PROGRESS_SHAPES = ("documented", "list", "items")
_DIALECTS = ("both", "current", "documented")


class Control:
    """Direct access to one server's state.

    :param state: the server's state.
    """

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._initial = asdict(state.settings)

    # Faults

    def fault(
        self,
        kind: FaultKind | str,
        *,
        when: FaultMoment | str = FaultMoment.BEFORE,
        platform: str | None = None,
        operation: str | None = None,
        method: str | None = None,
        path: str | None = None,
        times: int | None = None,
        skip: int = 0,
        probability: float | None = None,
        for_seconds: float | None = None,
        seconds: float = 0.0,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        size: int = 0,
        location: str | None = None,
    ) -> int:
        """Order a fault; see :class:`~airflow_provider_testruns.sandbox.faults.Fault` for what the words mean.

        :param for_seconds: strike only during the next so many seconds: an outage.
        :return: the order's number, for :meth:`clear_faults`.
        """
        state = self._state
        with state.lock:
            if platform is not None:
                state.platform(platform)
            fault = Fault(
                kind=FaultKind(kind),
                when=FaultMoment(when),
                platform=platform,
                operation=operation,
                method=method,
                path=path,
                times=times,
                skip=skip,
                probability=probability,
                until=None if for_seconds is None else state.clock.now() + for_seconds,
                seconds=seconds,
                status=status,
                headers=dict(headers or {}),
                body=body,
                size=size,
                location=location,
            )
            return state.faults.add(fault).id

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Remove one order, or all; return how many."""
        with self._state.lock:
            return self._state.faults.clear(fault_id)

    def faults(self) -> list[dict[str, Any]]:
        """Return the orders that can still strike."""
        with self._state.lock:
            return [fault.summary() for fault in self._state.faults.active()]

    # Traffic

    def stats(self) -> dict[str, Any]:
        """Return the counters, the violations and the runs that were created."""
        state = self._state
        with state.lock:
            now = state.clock.now()
            runs = {name: [run.summary(now) for run in api.runs.all()] for name, api in state.platforms.items()}
            created = {name: len(found) for name, found in runs.items()}
            return {**state.traffic.summary(), "runs_created": created, "runs": runs}

    def count(self, operation: str) -> int:
        """Return how often an operation was asked for since the last reset."""
        with self._state.lock:
            return self._state.traffic.operations[operation]

    def requests(self, operation: str | None = None) -> list[SeenRequest]:
        """Return the latest requests, oldest first."""
        with self._state.lock:
            seen = list(self._state.traffic.requests)
        return seen if operation is None else [r for r in seen if r.operation == operation]

    def violations(self) -> list[str]:
        """Return what the clients did that the documents don't allow, one line each."""
        with self._state.lock:
            return [f"{v.method} {v.path}: {v.reason}" for v in self._state.traffic.violations]

    def reset_traffic(self) -> None:
        """Start counting again; runs, tokens and faults stay."""
        with self._state.lock:
            self._state.traffic.reset()

    def reset(self) -> None:
        """Go back to the beginning: the named objects, the first settings and the machine's time; no runs, tokens,
        faults or counts."""
        state = self._state
        with state.lock:
            for name, value in self._initial.items():
                setattr(state.settings, name, value)
            state.clock.reset()
            for api in state.platforms.values():
                api.reset()
            state.faults.clear()
            state.traffic.reset()

    # Settings and time

    def configure(self, **settings: Any) -> None:
        """Change settings by their names; see :class:`~airflow_provider_testruns.sandbox.platform.Settings`."""
        known = {f.name: f for f in fields(Settings)}
        for name, value in settings.items():
            if name not in known:
                raise Mistake(f"no setting {name!r}, only {', '.join(known)}")
            current = getattr(self._state.settings, name)
            accepted = (int, float) if isinstance(current, float) else type(current)
            if isinstance(value, bool) != isinstance(current, bool) or not isinstance(value, accepted):
                raise Mistake(f"{name} takes a {type(current).__name__}, not {value!r}")
            if isinstance(value, (int, float)) and value < 0:
                raise Mistake(f"{name} can't be negative")
        if settings.get("eggplant_generation", "full") not in GENERATIONS:
            raise Mistake(f"eggplant_generation is one of {', '.join(GENERATIONS)}")
        if settings.get("eggplant_progress_shape", "list") not in _PROGRESS_SHAPES:
            raise Mistake(f"eggplant_progress_shape is one of {', '.join(_PROGRESS_SHAPES)}")
        if settings.get("futureagi_dialects", "both") not in _DIALECTS:
            raise Mistake(f"futureagi_dialects is one of {', '.join(_DIALECTS)}")
        if settings.get("omilia_project_names", "both") not in PROJECT_NAMES:
            raise Mistake(f"omilia_project_names is one of {', '.join(PROJECT_NAMES)}")
        if settings.get("omilia_access_token", "good") not in TOKEN_STATES:
            raise Mistake(f"omilia_access_token is one of {', '.join(TOKEN_STATES)}")
        path = settings.get("omilia_service_path", "")
        if path and (not str(path).startswith("/") or str(path).endswith("/")):
            raise Mistake("omilia_service_path begins with a slash and ends without one")
        with self._state.lock:
            for name, value in settings.items():
                setattr(self._state.settings, name, value)
            for api in self._state.platforms.values():
                for run in api.runs.all():
                    # Rows that were made from the old settings.
                    run.revision += 1

    def settings(self) -> dict[str, Any]:
        """Return the settings."""
        with self._state.lock:
            return asdict(self._state.settings)

    def now(self) -> float:
        """Return the server's time."""
        return self._state.clock.now()

    def advance(self, seconds: float) -> None:
        """Move the server's time forward: runs get on, tokens expire."""
        with self._state.lock:
            self._state.clock.advance(seconds)

    def stop_clock(self) -> None:
        """Stop the server's time until :meth:`reset`: from now on it changes by :meth:`advance` only."""
        with self._state.lock:
            self._state.clock.stop()

    # Tokens

    def issued_tokens(self, platform: str | None = None) -> list[str]:
        """Return every token that was handed out, good or not."""
        with self._state.lock:
            providers = self._identities(platform)
            return [token for provider in providers for token in provider.issued]

    def expire_tokens(self, platform: str | None = None) -> int:
        """Make every token bad that was handed out so far; return how many were still good."""
        with self._state.lock:
            return sum(provider.expire_tokens() for provider in self._identities(platform))

    def reject_tokens(self, seconds: float, platform: str | None = None) -> None:
        """Answer 401 to whatever credentials for a while, also to fresh tokens."""
        state = self._state
        with state.lock:
            for provider in self._identities(platform):
                provider.reject_tokens(seconds)
            if platform in (None, state.futureagi.name):
                state.futureagi.reject_credentials(seconds)

    def set_token_lifetime(
        self, seconds: float, platform: str | None = None, refresh_seconds: float | None = None
    ) -> None:
        """Decide how long the tokens last that are handed out from now on."""
        with self._state.lock:
            for provider in self._identities(platform):
                provider.token_seconds = seconds
                if refresh_seconds is not None:
                    provider.refresh_seconds = refresh_seconds

    def _identities(self, platform: str | None) -> list[Any]:
        state = self._state
        providers = {api.name: api.identity for api in (state.eggplant, state.omilia)}
        if platform is None:
            return list(providers.values())
        state.platform(platform)
        return [providers[platform]] if platform in providers else []

    # What can be run

    def targets(self) -> list[dict[str, Any]]:
        """Return the models, test configurations, run tests and projects."""
        with self._state.lock:
            return [
                {
                    "platform": platform,
                    "kind": kind,
                    "id": target.id,
                    "name": target.name,
                    "ending": target.ending.value,
                    "duration": target.duration,
                    "does": does,
                }
                for platform, kind, target, does in targets(self._state)
            ]

    def create_model(
        self,
        name: str,
        *,
        ending: Ending | str | None = None,
        duration: float | None = None,
        id: str | None = None,
    ) -> str:
        """Create an Eggplant model; return its id. The ending follows from the name unless it is given."""
        with self._state.lock:
            return self._state.eggplant.add_model(name, _ending(ending), duration, id).id

    def create_run_test(
        self,
        name: str,
        *,
        ending: Ending | str | None = None,
        duration: float | None = None,
        id: str | None = None,
        scenarios: Mapping[str, int] | None = None,
        agent_type: str = "text",
        recovers: bool = False,
        prompt_template: str | None = None,
        workspace: str = WORKSPACE_ID,
        failure_reason: str = FAILURE_REASON,
        never_closes: bool = False,
    ) -> str:
        """Create a Future AGI run test; return its id.

        :param scenarios: names and numbers of rows.
        :param agent_type: ``text`` or ``voice``.
        :param recovers: True when calls that failed pass once they are run again.
        :param prompt_template: the id of its prompt template, for a prompt simulation.
        :param workspace: the id of the workspace that it belongs to.
        :param failure_reason: why calls fail that do, such as the platform's words for a balance that is used up.
        :param never_closes: True when its executions go on for ever, though all of their calls are over.
        """
        if agent_type not in ("text", "voice"):
            raise Mistake("agent_type is text or voice")
        with self._state.lock:
            made = self._state.futureagi.add_run_test(
                name, _ending(ending), duration, id, scenarios, agent_type, recovers
            )
            made.prompt_template = prompt_template
            made.workspace, made.failure_reason, made.never_closes = workspace, failure_reason, never_closes
            return made.id

    def delete_prompt_version(self, run_test_id: str) -> None:
        """Delete the version of the prompt that a Future AGI prompt simulation runs."""
        with self._state.lock:
            target = self._state.futureagi.target(run_test_id)
            if not isinstance(target, RunTest) or not target.is_prompt:
                raise Mistake("only prompt simulations have a prompt")
            target.has_prompt_version = False

    def create_project(
        self,
        name: str,
        *,
        ending: Ending | str | None = None,
        duration: float | None = None,
        id: str | None = None,
        cases: int | None = None,
        tries: int = 0,
    ) -> str:
        """Create an Omilia project; return its id.

        :param cases: how many test cases it has.
        :param tries: how often the first case is tried before it ends as it does, with delays; 0 for the usual number.
        """
        with self._state.lock:
            return self._state.omilia.add_project(name, _ending(ending), duration, id, cases, tries).id

    def set_target(
        self,
        platform: str,
        id_or_name: str,
        *,
        ending: Ending | str | None = None,
        duration: float | None = None,
        failing: Iterable[str] | None = None,
    ) -> None:
        """Decide how the later runs of an object end and how long they take. What is None stays as it is.

        :param failing: as of :meth:`plan_next`, until an ending is chosen again.
        """
        chosen, names = _planned(ending, failing)
        with self._state.lock:
            target = self._state.platform(platform).target(id_or_name)
            if chosen is not None:
                target.ending, target.failing = chosen, names
            if duration is not None:
                target.duration = duration

    def plan_next(
        self,
        platform: str,
        *,
        ending: Ending | str | None = None,
        duration: float | None = None,
        failing: Iterable[str] | None = None,
    ) -> None:
        """Decide about the next run that a client starts; orders queue up.

        :param failing: the cases that fail, by their names, while all others pass; the ending follows from that. Cases
            of Future AGI are named by scenario and row (``Refund #1``).
        """
        chosen, names = _planned(ending, failing)
        with self._state.lock:
            self._state.platform(platform).plans.append(Plan(chosen, duration, names))

    # Runs

    def add_runs(
        self,
        platform: str,
        id_or_name: str,
        count: int = 1,
        *,
        age: float = 0.0,
        ending: Ending | str | None = None,
        duration: float | None = None,
        spacing: float = 0.001,
    ) -> list[str]:
        """Start runs as somebody else on the platform would; return their ids, oldest first.

        :param age: how long ago the newest of them was started.
        :param spacing: seconds between them.
        """
        state = self._state
        with state.lock:
            api = state.platform(platform)
            target = api.target(id_or_name)
            newest = state.clock.now() - age
            return [
                api.simulate(
                    target,
                    newest - spacing * (count - 1 - i),
                    api.complete_plan(Plan(_ending(ending), duration), target),
                ).run_id
                for i in range(count)
            ]

    def runs(self, platform: str | None = None) -> list[dict[str, Any]]:
        """Describe the runs, in the order of their creation."""
        state = self._state
        with state.lock:
            now = state.clock.now()
            chosen = state.platforms.values() if platform is None else [state.platform(platform)]
            return [run.summary(now) for api in chosen for run in api.runs.all()]

    def run(self, run_id: str) -> dict[str, Any]:
        """Describe one run."""
        with self._state.lock:
            return self._find(run_id).summary(self._state.clock.now())

    def set_run(
        self,
        run_id: str,
        *,
        ending: Ending | str | None = None,
        duration: float | None = None,
        raw_status: str | None = None,
        hidden: bool | None = None,
        vanished: bool | None = None,
        artifact_expired: bool | None = None,
        stuck: bool | None = None,
    ) -> None:
        """Decide about one run. What is None stays as it is.

        :param duration: seconds from its start; infinity for never.
        :param raw_status: say this word instead of the real status; an empty one says the real status again.
        :param hidden: leave it out of every list.
        :param vanished: answer 404 to every question about it.
        :param artifact_expired: its artifact is gone (Omilia).
        :param stuck: it never closes, though all of its calls are over (Future AGI).
        """
        with self._state.lock:
            run = self._find(run_id)
            chosen = _ending(ending)
            if chosen is not None:
                run.ending = chosen
            if duration is not None:
                run.duration = duration
            if raw_status is not None:
                run.raw_status = raw_status or None
            if hidden is not None:
                run.hidden = hidden
            if vanished is not None:
                run.vanished = vanished
            if artifact_expired is not None:
                if not isinstance(run, OmiliaRun):
                    raise Mistake("only runs of Omilia have artifacts")
                run.artifact_expired = artifact_expired
            if stuck is not None:
                if not isinstance(run, AgentExecution):
                    raise Mistake("only executions of Future AGI can be stuck")
                run.stuck = stuck
            run.revision += 1

    def finish_run(self, run_id: str, ending: Ending | str | None = None) -> None:
        """End a run at once.

        :param ending: how; None as it would have ended.
        """
        with self._state.lock:
            self._find(run_id).finish(self._state.clock.now(), _ending(ending))

    def hang_run(self, run_id: str) -> None:
        """Let a run go on for ever."""
        self.set_run(run_id, duration=math.inf)

    def hide_run(self, run_id: str, hidden: bool = True) -> None:
        """Leave a run out of every list."""
        self.set_run(run_id, hidden=hidden)

    def vanish_run(self, run_id: str, vanished: bool = True) -> None:
        """Answer 404 to every question about a run."""
        self.set_run(run_id, vanished=vanished)

    def call_ids(self, execution_id: str) -> list[str]:
        """Return the ids of the calls of a Future AGI execution."""
        with self._state.lock:
            run = self._find(execution_id)
            if not isinstance(run, AgentExecution):
                raise Mistake("only executions of Future AGI have calls")
            return [call.id for call in run.calls]

    def state(self) -> dict[str, Any]:
        """Describe everything but the traffic."""
        return {
            "now": self.now(),
            "settings": self.settings(),
            "targets": self.targets(),
            "faults": self.faults(),
            "runs": self.runs(),
        }

    def _find(self, run_id: str) -> SimulatedRun:
        for api in self._state.platforms.values():
            run = api.runs.get(run_id.lower())
            if run is not None:
                return run
        raise UnknownRun(f"no run {run_id}")


def _planned(ending: Ending | str | None, failing: Iterable[str] | None) -> tuple[Ending | None, frozenset[str] | None]:
    """An ending, which may follow from the cases that fail; and these."""
    if failing is None:
        return _ending(ending), None
    if ending is not None:
        raise Mistake("of ending and failing only one can be given")
    names = frozenset(failing)
    return Ending.FAILED if names else Ending.PASSED, names


def _ending(ending: Ending | str | None) -> Ending | None:
    return None if ending is None else Ending(ending)
