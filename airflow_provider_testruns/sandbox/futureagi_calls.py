"""Run tests, their executions, and what comes of the calls: Future AGI without its API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .clock import offset
from .engine import PENDING_SHARE, Ending, Phase, SimulatedRun, Target


def named_id(number: int) -> str:
    """Return the id of a named object."""
    return f"fa000000-0000-4000-8000-{number:012d}"


#: The workspace that keys are bound to, and that run tests are made in, unless it is said otherwise.
WORKSPACE_ID = "fa000000-0000-4000-8000-0000000000b1"
FAILURE_REASON = "The agent hung up before the customer's request was understood"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. Each of its rows becomes a call.

    :param id: its id.
    :param name: its name.
    :param rows: how many rows it has.
    :param flawed_rows: those whose calls fail in a run test whose calls fail.
    """

    id: str
    name: str
    rows: int
    flawed_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation of every call of a run test.

    :param choice_scores: the choices of its template and the score of each, which make an object of every output.
    :param several: True when an answer may have several choices.
    :param numeric: True when numbers stand in the place of choices.
    """

    id: str
    template_id: str
    name: str
    output_type: str
    choice_scores: Mapping[str, float] = field(default_factory=dict)
    several: bool = False
    numeric: bool = False

    @property
    def choices(self) -> list[str]:
        """What can be chosen."""
        return list(self.choice_scores) or ["Yes", "No"]

    def output(self, position: int) -> Any:
        """Return what a call is given by the position of the call, as the product's engine shapes it."""
        chosen = self.choices[position % len(self.choices)]
        if self.numeric:
            return 3 + position % 3
        if self.several:
            made = self.choices if position % 3 == 2 else [chosen]
            if self.choice_scores:
                return {"score": sum(self.choice_scores[c] for c in made) / len(made), "choices": made}
            return list(made)
        if self.choice_scores:
            return {"score": self.choice_scores[chosen], "choice": chosen}
        return None


def make_evaluations(number: int) -> tuple[Evaluation, ...]:
    """Return the evaluations of a run test, one of each kind."""
    kinds = (("task_completion", "Pass/Fail"), ("politeness", "score"), ("handover", "choices"))
    return tuple(
        Evaluation(named_id(number * 10_000 + 900 + i), named_id(90_000_000 + i), name, kind)
        for i, (name, kind) in enumerate(kinds, start=1)
    )


def make_rich_evaluations(number: int) -> tuple[Evaluation, ...]:
    """Return one evaluation of each form that an output can have."""
    scores = {"Great": 0.9, "Good": 0.7, "Poor": 0.2}
    forms: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("resolved", "Pass/Fail", {}),
        ("tone", "score", {}),
        ("escalated", "choices", {}),
        ("warmth", "score", {"choice_scores": scores}),
        ("mood", "choices", {"choice_scores": scores}),
        ("topics", "choices", {"several": True}),
        ("moods", "choices", {"choice_scores": scores, "several": True}),
        ("rating", "choices", {"numeric": True}),
    )
    return tuple(
        Evaluation(named_id(number * 10_000 + 900 + i), named_id(91_000_000 + i), name, kind, **form)
        for i, (name, kind, form) in enumerate(forms, start=1)
    )


@dataclass(slots=True)
class RunTest(Target):
    """A run test."""

    scenarios: tuple[Scenario, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    #: ``text`` or ``voice``.
    agent_type: str = "text"
    #: True when a call that failed passes once it is run again.
    recovers: bool = False
    #: The id of the prompt template of a prompt simulation; None for the run test of an agent.
    prompt_template: str | None = None
    #: False once the version of that prompt has been deleted.
    has_prompt_version: bool = True
    #: The workspace that it belongs to.
    workspace: str = WORKSPACE_ID
    #: Why its calls fail that do.
    failure_reason: str = FAILURE_REASON
    #: True when its executions never close, though all of their calls are over.
    never_closes: bool = False
    #: The tools whose use is evaluated in every call.
    tools: tuple[str, ...] = ()

    @property
    def is_voice(self) -> bool:
        """True for a voice agent."""
        return self.agent_type == "voice" and not self.is_prompt

    @property
    def is_prompt(self) -> bool:
        """True for a prompt simulation."""
        return self.prompt_template is not None


@dataclass(slots=True, eq=False)
class Call:
    """One call of an execution."""

    id: str
    scenario: Scenario
    row: int
    fails: bool
    #: Evaluated as not good enough.
    unsatisfying: bool = False
    #: One of its evaluations does not work.
    unscored: bool = False
    #: Its status from an earlier round, None while it belongs to the present one.
    settled: str | None = None

    @property
    def seconds(self) -> int:
        """How long the call takes, as the product reports it."""
        return 40 + 3 * self.row + len(self.scenario.name) % 7


#: The statuses of calls that took place.
MADE = ("completed", "failed", "analyzing")
SETUP_REASON = "Failed to set up the test execution: the agent did not answer the connection check"


def percent(part: float, whole: float) -> float:
    """Return a share in percent, 0 of nothing."""
    return round(100.0 * part / whole, 2) if whole else 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class AgentExecution(SimulatedRun):
    """An execution of a run test.

    :param run_test: what it was started from.
    :param calls: its calls, from all rounds.
    :param scenario_ids: what was asked for, known or not.
    :param scenario_names: as the list of executions shows them.
    """

    run_test: RunTest
    calls: list[Call] = field(default_factory=list)
    scenario_ids: list[str] = field(default_factory=list)
    scenario_names: str = ""
    #: True for one that never closes, though all of its calls are over.
    stuck: bool = False

    @property
    def is_voice(self) -> bool:
        """True for a voice agent."""
        return self.run_test.is_voice

    def phase(self, now: float) -> Phase:
        """Return where the execution stands."""
        phase = SimulatedRun.phase(self, now)
        if self.stuck and phase in (Phase.FINISHED, Phase.EVALUATING):
            return Phase.RUNNING
        return phase

    def add_calls(self, scenarios: Iterable[Scenario], new_id: Callable[[], str]) -> None:
        """Make the calls, as the ending wants them: one for each row of each scenario."""
        if self.ending is Ending.EMPTY:
            return
        fails = self.ending is Ending.FAILED
        flawed = any(scenario.flawed_rows for scenario in self.run_test.scenarios)
        for scenario in scenarios:
            for row in range(scenario.rows):
                # The first call of a run test without flaws that was told to fail.
                chosen = row in scenario.flawed_rows or not (flawed or self.calls)
                if self.failing is not None:
                    chosen = f"{scenario.name} #{row + 1}" in self.failing
                self.calls.append(Call(new_id(), scenario, row, fails and chosen))
        if fails and self.run_test.recovers:
            good = [call for call in self.calls if not call.fails]
            for call in good[:1]:
                call.unsatisfying = True
            for call in good[1:2]:
                call.unscored = True

    def rerun(self, chosen: list[Call], now: float, duration: float, evaluates_only: bool) -> None:
        """Begin another round with these calls; the others stay as they are."""
        for call, status in zip(self.calls, self.call_statuses(now), strict=True):
            call.settled = status
        for call in chosen:
            if not evaluates_only:
                call.settled = None
            if self.run_test.recovers:
                call.fails = call.fails and evaluates_only
                call.unsatisfying = call.unscored = False
        self.restart(now, duration, evaluates_only)

    def visible_calls(self, now: float) -> list[Call]:
        """Return the calls that exist already. Those of a voice agent are made one after the other, while it is
        pending."""
        if self.makes_calls(now):
            return self.calls[: int(len(self.calls) * self.fraction(now) / PENDING_SHARE)]
        return self.calls

    def makes_calls(self, now: float) -> bool:
        """True while calls are still being made."""
        return self.is_voice and self.phase(now) is Phase.PENDING and not any(c.settled for c in self.calls)

    def call_statuses(self, now: float) -> list[str]:
        """Return the status of every call, in order."""
        progress = self.progress(now)
        cancelled = self.phase(now) is Phase.CANCELLED
        count = sum(1 for call in self.calls if call.settled is None)
        statuses: list[str] = []
        position = 0
        for call in self.calls:
            if call.settled is not None:
                statuses.append(call.settled)
                continue
            done = progress * count - position if self.ending is not Ending.ERRORED else 0.0
            position += 1
            if done >= 1:
                statuses.append("failed" if call.fails else "completed")
            elif cancelled:
                statuses.append("cancelled")
            elif done >= 0.7:
                statuses.append("analyzing")
            else:
                statuses.append("ongoing" if done > 0 else "pending")
        return statuses

    def status(self, now: float) -> str:
        """Return the product's word for where the execution stands."""
        if self.raw_status is not None:
            return self.raw_status
        phase = self.phase(now)
        if phase is not Phase.FINISHED:
            # An execution that can't be set up never gets further.
            stuck = self.ending is Ending.ERRORED and phase is Phase.RUNNING
            return Phase.PENDING.value if stuck else phase.value
        if self.ending is Ending.ERRORED:
            return "failed"
        statuses = self.call_statuses(now)
        return "completed" if not statuses or "completed" in statuses else "failed"

    def counts(self, now: float) -> dict[str, int]:
        """Return how many calls there are of each status, and in all."""
        statuses = self.call_statuses(now)[: len(self.visible_calls(now))]
        counts = {
            word: statuses.count(word)
            for word in ("completed", "failed", "pending", "analyzing", "ongoing", "cancelled")
        }
        counts["total"] = len(statuses)
        return counts

    def completed_at(self, now: float) -> float | None:
        """Return when the execution ended as far as the product says so: for chats it mostly forgets to."""
        if not self.is_voice and self.ending is not Ending.ERRORED and self.cancel_requested is None:
            return None
        return self.finished_at(now)

    def talked(self, now: float) -> int:
        """Return the seconds of all calls that were made."""
        statuses = self.call_statuses(now)
        return sum(c.seconds for c, s in zip(self.calls, statuses, strict=True) if s in MADE)

    def calls_now(self, now: float) -> list[tuple[Call, str]]:
        """Return the calls that exist already, with their statuses."""
        visible = self.visible_calls(now)
        return list(zip(visible, self.call_statuses(now)[: len(visible)], strict=True))

    def has_scores(self, now: float) -> bool:
        """True once the evaluations are over."""
        return self.phase(now) is Phase.FINISHED and self.ending is not Ending.ERRORED

    def scores(self, call: Call, status: str, now: float) -> dict[str, dict[str, Any]]:
        """Return the evaluations of a call by their ids."""
        if status != "completed" or not self.has_scores(now):
            return {}
        position = self.calls.index(call)
        scores: dict[str, dict[str, Any]] = {}
        for evaluation in self.run_test.evaluations:
            output: Any
            output = evaluation.output(position)
            if output is not None:
                reason = f"because {output}"
            elif evaluation.output_type == "Pass/Fail":
                output = "Failed" if call.unsatisfying else "Passed"
                reason = "The request stayed open." if call.unsatisfying else "The request was settled."
            elif evaluation.output_type == "score":
                output, reason = round(0.96 - 0.02 * (position % 10), 2), "Polite throughout."
            else:
                output, reason = ["Yes" if call.unsatisfying else "No"], "Handed over to a person or not."
            score = {
                "name": evaluation.name,
                "output": output,
                "output_type": evaluation.output_type,
                "reason": reason,
                "status": "Completed",
            }
            if call.unscored and evaluation.output_type == "score":
                score.update(
                    output=None,
                    reason="Evaluation failed: model unavailable",
                    status="Failed",
                    error="error",
                    timestamp=offset(self.finished_at(now) or now),
                )
            scores[evaluation.id] = score
        return scores

    def tool_outputs(self, call: Call, status: str, now: float) -> dict[str, dict[str, Any]]:
        """Return the evaluations of a call's use of tools: the second use of each tool fails in every other call, and
        the last call's could not be evaluated."""
        if status != "completed" or not self.has_scores(now):
            return {}
        position = self.calls.index(call)
        found: dict[str, dict[str, Any]] = {}
        for tool in self.run_test.tools:
            for use in (1, 2):
                broke = use == 2 and position == len(self.calls) - 1 and position > 0
                passed = use == 1 or position % 2 == 0
                found[f"{tool}-{use}"] = {
                    "name": f"{tool} #{use}",
                    "value": "" if broke else "Passed" if passed else "Failed",
                    "type": "Pass/Fail",
                    "reason": "API call not allowed" if broke else "as expected" if passed else "wrong arguments",
                    "error": broke,
                    "status": "failed" if broke else "completed",
                }
        return found

    def error_messages(self, now: float) -> list[str]:
        """Return why the execution could not be set up."""
        final = self.phase(now).is_final
        return [SETUP_REASON] if final and self.ending is Ending.ERRORED else []


def summarize(run_test: RunTest, run: AgentExecution | None, now: float) -> list[dict[str, Any]]:
    """Return the evaluation summary. What could not be scored is left out of it."""
    scored = [run.scores(call, status, now) for call, status in run.calls_now(now)] if run else []
    summary: list[dict[str, Any]] = []
    for evaluation in run_test.evaluations:
        outputs = [s[evaluation.id]["output"] for s in scored if evaluation.id in s]
        outputs = [o for o in outputs if o is not None]
        item: dict[str, Any] = {
            "name": evaluation.name,
            "id": evaluation.id,
            "total_cells": len(outputs),
            "output": {},
        }
        total: Any
        if evaluation.output_type == "Pass/Fail":
            passed = outputs.count("Passed")
            total_name, total = "total_pass_rate", percent(passed, len(outputs)) if outputs else 0
            if outputs:
                item["output"] = {
                    "pass": total,
                    "fail": percent(len(outputs) - passed, len(outputs)),
                    "pass_count": passed,
                    "fail_count": len(outputs) - passed,
                }
        elif evaluation.output_type == "score":
            # Of scores that are objects it makes nothing, and counts them.
            numbers = [o for o in outputs if isinstance(o, int | float)]
            total_name, total = "total_avg", round(100.0 * sum(numbers) / len(numbers), 2) if numbers else 0
            if numbers:
                item["avg_score"] = total
                item["output"] = _percentiles(numbers)
        else:
            words = sorted({str(o) for o in outputs})
            shares = {w: percent(sum(1 for o in outputs if str(o) == w), len(outputs)) for w in words}
            total_name, total = "total_choices_avg", shares
            item["output"] = shares
        summary.append(
            {
                "name": evaluation.name,
                "id": evaluation.template_id,
                "output_type": evaluation.output_type,
                "result": [item],
                total_name: total,
            }
        )
    return summary


def average_scores(run: AgentExecution, now: float) -> dict[str, Any]:
    """Return the averages by the names that key figures have, as the product's query works them out: from the outputs
    of all calls, with one decimal. What has no scores is left out."""
    scored = [run.scores(call, status, now) for call, status in run.calls_now(now)]
    averages: dict[str, Any] = {}
    for evaluation in run.run_test.evaluations:
        outputs = [s[evaluation.id]["output"] for s in scored if evaluation.id in s]
        name = evaluation.name.lower().replace(" ", "_")
        figures: list[float] = []
        counts: dict[str, int] = {}
        for output in outputs:
            if evaluation.output_type == "Pass/Fail" and output in ("Passed", "Failed"):
                figures.append(100.0 * (output == "Passed"))
            elif evaluation.output_type == "score":
                score = output.get("score") if isinstance(output, dict) else output
                figures += [100.0 * score] if isinstance(score, int | float) else []
            elif evaluation.output_type == "choices" and isinstance(output, int | float):
                figures.append(float(output))
            elif evaluation.output_type == "choices" and output is not None:
                made = output.get("choices", [output.get("choice")]) if isinstance(output, dict) else output
                for choice in [made.strip(" []")] if isinstance(made, str) else made:
                    counts[choice.lower()] = counts.get(choice.lower(), 0) + 1
        if figures:
            averages[f"avg_{name}"] = round(sum(figures) / len(figures), 1)
        elif counts:
            averages[name] = counts
    return averages


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    marks = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
    found = {}
    for mark in marks:
        position = (len(ordered) - 1) * mark / 100
        below = int(position)
        above = min(below + 1, len(ordered) - 1)
        value = ordered[below] + (ordered[above] - ordered[below]) * (position - below)
        found[f"p{mark}"] = round(value * 100, 2)
    return found
