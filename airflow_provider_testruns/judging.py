"""What a finished run means: the one place where verdicts are made, for operators and sensors alike."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_testruns.arguments import count, fraction, names
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.model import CaseResult, Counts, Kind, Metric, Outcome, RunReport, Verdict, metric_name


@dataclass(frozen=True, slots=True)
class Gates:
    """What a task asks of a run beyond what the platform itself says.

    :param min_pass_rate: when given it replaces "all cases passed": the least fraction (0 to 1) of the cases that were
        tried (passed, failed and unavailable; not those that did not run, nor those that ``allowed_failures`` forgives)
        which must have passed.
    :param fail_on_no_tests: whether a run in which no test case took part counts as failed.
    :param eval_thresholds: the least value of an evaluation's figure, by its name, as a fraction (0 to 1).
    :param max_failures: when given it replaces "all cases passed": how many cases may have been tried and not passed
        (failed and unavailable), those that ``allowed_failures`` forgives not counted. With ``min_pass_rate`` both must
        be met.
    :param allowed_failures: cases that are known to fail: their names, or shell-style patterns (``*``,
        ``?``, ``[…]``), of a case (``refund_*``) or of suite and case (``smoke/refund_*``), upper and lower case told
        apart. Where such a case did not pass, it counts neither as passed nor as failed. A case that the platform
        counts and does not list can't be excluded.
    :param fail_on_rerun: whether a case that passed only when the platform ran it again fails the run, unless
        ``allowed_failures`` names it; otherwise it has passed, and a note lists it.
    """

    min_pass_rate: float | None = None
    fail_on_no_tests: bool = True
    eval_thresholds: Mapping[str, float] = field(default_factory=dict)
    max_failures: int | None = None
    allowed_failures: tuple[str, ...] = ()
    fail_on_rerun: bool = False

    def __post_init__(self) -> None:
        """Check them.

        :raises ConfigurationError: naming the argument.
        """
        if self.min_pass_rate is not None:
            fraction("min_pass_rate", self.min_pass_rate)
        if self.max_failures is not None:
            count("max_failures", self.max_failures)
        object.__setattr__(self, "allowed_failures", names("allowed_failures", self.allowed_failures))
        for name, value in self.eval_thresholds.items():
            fraction(f"eval_thresholds[{name!r}]", value)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the reasons for it.

    :param verdict: what the run means.
    :param reasons: why, each a sentence for people; none for a plain pass.
    :param notes: what should be checked and changes no verdict, each a sentence for people.
    :param allowed: the cases that did not pass and are forgiven.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    allowed: tuple[CaseResult, ...] = ()


def judge(report: RunReport, gates: Gates | None = None) -> Verdict:
    """Say what a finished run means. The one function that does, for operators and sensors alike.

    :param report: the report of a run that is final.
    :param gates: what the task asks of it; without, the platform's word and "all passed" decide.
    """
    return assess(report, gates).verdict


def assess(report: RunReport, gates: Gates | None = None) -> Judgement:
    """As :func:`judge`, with the reasons.

    The platform's word alone is enough for a pass only where it gives no counts, and a failure needs a test that did
    not pass: where a platform says that a run failed and no case shows it, the run itself broke (``ERRORED``). Where
    the platform's counters and its list contradict each other, the worse of the two counts (:func:`reconcile`).

    :raises ValueError: when the run is not final.
    :raises ConfigurationError: when a gate names an evaluation that the report does not know.
    :raises ApiError: when the verdict depends on evaluations that could not be seen.
    """
    judgement = _assess(report, gates or Gates())
    notes = [report.disagreement, *report.remarks] if report.disagreement else list(report.remarks)
    if again := tuple(case for case in report.cases if case.passed_after_rerun):
        tries = [f"{_ways(case)[-1]} (after {max(case.tries, len(case.earlier) + 1)} tries)" for case in again]
        notes.append(f"Passed after a re-run: {_some(tries)}.")
    return replace(judgement, notes=(*notes, *judgement.notes)) if notes else judgement


def _assess(report: RunReport, gates: Gates) -> Judgement:
    run, counts = report.run, report.counts
    if not run.final:
        raise ValueError(f"Run {run.run_id} is not final ({run.raw_state}); there is nothing to judge yet.")
    if run.platform_verdict is Verdict.CANCELLED:
        return Judgement(Verdict.CANCELLED, ("The run was cancelled.",))
    if run.platform_verdict is Verdict.ERRORED:
        return Judgement(Verdict.ERRORED, (run.message or f"The platform could not run it ({run.raw_state}).",))
    not_passed = counts.not_passed if counts else 0
    if run.platform_verdict is Verdict.FAILED and not_passed == 0 and not _missed_evaluations(report, gates):
        why = run.message or f"The run ended as {run.raw_state} without a test that failed: the run itself broke."
        return Judgement(Verdict.ERRORED, (why,))
    if counts is not None and counts.executed == 0 and run.kind is not Kind.GENERATION:
        said = "No test case took part in the run." if counts.total == 0 else "None of the test cases ran."
        if gates.fail_on_no_tests:
            hint = " Check the filters and selections of the task, or set fail_on_no_tests=False."
            return Judgement(Verdict.FAILED, (said + hint,))
        missed = _missed_evaluations(report, gates)
        return Judgement(Verdict.FAILED, missed) if missed else Judgement(Verdict.PASSED, (said,))
    if counts is not None and gates.fail_on_no_tests and run.kind is not Kind.GENERATION:
        listed = Counts.of(report.cases)
        if report.cases and len(report.cases) >= counts.total and listed.executed == 0:
            # Whatever is counted: by the list, which is whole, nothing was tested.
            said = "By the platform's list, none of the test cases ran."
            return Judgement(Verdict.FAILED, (f"{said} Set fail_on_no_tests=False if that may be.",))

    if counts is None and run.platform_verdict is None:
        why = f"The run is over ({run.raw_state}), and the platform says neither how it ended nor what was tested."
        return Judgement(Verdict.ERRORED, (why,))

    left, forgiven, notes = _forgive(report, gates)
    reasons: list[str] = []
    counted = gates.min_pass_rate is not None or gates.max_failures is not None
    if counted and counts is None and run.kind is not Kind.GENERATION:
        asked = [name for name in ("min_pass_rate", "max_failures") if getattr(gates, name) is not None]
        reasons.append(f"The platform gives no counts, so that {' and '.join(asked)} can't be checked.")
    elif counted and counts is not None and counts.executed:
        reasons += _missed_counts(left, gates)
    elif left.failed or left.unavailable:
        reasons.append(f"{_not_passed(left)} of {counts.total if counts else left.total} test cases.")
    if reasons and forgiven:
        reasons.append(f"{len(forgiven)} that did not pass are allowed to and not counted.")
    if reasons and gates.allowed_failures and (unlisted := _unlisted(report)):
        reasons.append(f"allowed_failures can't be checked for {unlisted} that the platform counts and does not list.")
    if gates.fail_on_rerun and (again := _passed_after_rerun(report, gates)):
        reasons.append(f"{len(again)} passed only after a re-run (fail_on_rerun=True): {_named(again)}.")
    reasons += _missed_evaluations(report, gates, failed=bool(reasons))
    return Judgement(Verdict.FAILED if reasons else Verdict.PASSED, tuple(reasons), notes, forgiven)


def _missed_counts(left: Counts, gates: Gates) -> list[str]:
    """The gates on counts that were missed.

    :param left: the counts, without what is forgiven.
    """
    reasons = []
    if gates.min_pass_rate is not None and left.executed:
        rate = left.passed / left.executed
        if rate < gates.min_pass_rate:
            reasons.append(
                f"Pass rate {rate:.1%} ({left.passed} of {left.executed}) is below"
                f" min_pass_rate {gates.min_pass_rate:.1%}."
            )
    if gates.max_failures is not None and left.not_passed > gates.max_failures:
        reasons.append(f"{_not_passed(left)} of {left.total} test cases: max_failures is {gates.max_failures}.")
    return reasons


def _not_passed(counts: Counts) -> str:
    parts = [f"{counts.failed} failed"] if counts.failed else []
    parts += [f"{counts.unavailable} unavailable"] if counts.unavailable else []
    return " and ".join(parts)


def _forgive(report: RunReport, gates: Gates) -> tuple[Counts, tuple[CaseResult, ...], tuple[str, ...]]:
    """What ``allowed_failures`` makes of a report.

    :return: the counts without what is forgiven, the forgiven cases, and notes.
    """
    counts = report.counts or Counts()
    if not gates.allowed_failures:
        return counts, (), ()
    matches = _matcher(gates.allowed_failures)
    known = [case for case in report.cases if matches(case)]
    forgiven = tuple(case for case in report.failures if matches(case))
    # Counters and list may call the same case failed and unavailable: what counts is how many did not pass.
    not_passed = counts.not_passed - len(forgiven)
    failed = min(max(0, counts.failed - Counts.of(forgiven).failed), not_passed)
    left = Counts(counts.passed, failed, not_passed - failed, counts.not_run)
    notes = []
    if forgiven:
        notes.append(f"Allowed to fail, and did not pass: {_named(forgiven)}.")
    if passed := tuple(case for case in known if case.outcome is Outcome.PASSED):
        notes.append(f"Allowed to fail, and passed: {_named(passed)}. allowed_failures may be out of date.")
    if len(report.cases) >= counts.total:
        there = {way for case in known for way in (*_ways(case), *_shown(case))}
        unused = [
            name
            for name in gates.allowed_failures
            if name not in there and not any(fnmatch.fnmatchcase(way, name) for way in there)
        ]
        if unused:
            notes.append(f"allowed_failures has entries that match no case: {_some([repr(n) for n in unused])}.")
    return left, forgiven, tuple(notes)


def _passed_after_rerun(report: RunReport, gates: Gates) -> tuple[CaseResult, ...]:
    """The cases that needed more than one try, but for those that may fail."""
    again = tuple(case for case in report.cases if case.passed_after_rerun)
    if not gates.allowed_failures:
        return again
    allowed = _matcher(gates.allowed_failures)
    return tuple(case for case in again if not allowed(case))


def _unlisted(report: RunReport) -> int:
    """How many cases did not pass of which the platform says only the number."""
    if report.counts is None:
        return 0
    return max(0, report.counts.not_passed - len(report.failures))


def _matcher(allowed: tuple[str, ...]) -> Callable[[CaseResult], bool]:
    """Says whether a case is one of ``allowed``: by its very name first, which may have signs of a pattern in it."""
    exact = frozenset(allowed)
    patterns = re.compile("|".join(fnmatch.translate(name) for name in allowed))

    def matches(case: CaseResult) -> bool:
        if any(way in exact or patterns.match(way) is not None for way in _ways(case)):
            return True
        # Whoever copies a name out of a report means that case: the hash in it stands for no other.
        return case.as_it_came is not None and any(way in exact for way in _shown(case))

    return matches


def _ways(case: CaseResult) -> tuple[str, ...]:
    """What a case can be called, as the platform spells it."""
    suite, name = case.as_it_came or (case.suite, case.name)
    return (name, f"{suite}/{name}") if suite else (name,)


def _shown(case: CaseResult) -> tuple[str, ...]:
    """What a case is called in logs and reports."""
    return (case.name, f"{case.suite}/{case.name}") if case.suite else (case.name,)


def _named(cases: tuple[CaseResult, ...]) -> str:
    return _some([_shown(case)[-1] for case in cases])


def _some(names: list[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _missed_evaluations(report: RunReport, gates: Gates, *, failed: bool = False) -> tuple[str, ...]:
    """The gates that were missed.

    :param failed: whether the run has failed already, whatever its evaluations say.
    """
    if not gates.eval_thresholds:
        return ()
    figures = {name: _figure(report, name) for name in gates.eval_thresholds}
    if report.metrics_error is not None and any(metric is None or metric.value is None for metric in figures.values()):
        # What was seen in spite of it can be judged.
        if not failed:
            raise report.metrics_error
        return (f"The gates of eval_thresholds are not checked: {report.metrics_error}",)
    unknown = [name for name, metric in figures.items() if metric is None]
    if unknown:
        known = _some([repr(name) for name in sorted(report.metrics)], 20) or "none"
        raise ConfigurationError(
            f"eval_thresholds names {', '.join(repr(name) for name in unknown)}, of which the report of run"
            f" {report.run.run_id} has no figure. It has: {known}."
        )
    reasons = []
    for name, threshold in gates.eval_thresholds.items():
        metric = figures[name]
        assert metric is not None
        if metric.value is None or (metric.scored is not None and metric.scored <= 0):
            reasons.append(f"Evaluation {name!r} scored nothing; its gate is {threshold:g}.")
        elif not metric.value >= threshold:  # a value that is not a number meets no gate
            missed_by = threshold - metric.value
            reasons.append(
                f"Evaluation {name!r} is {metric.value:.3g}, below its gate {threshold:g} by {missed_by:.3g}."
            )
    return tuple(reasons)


def _figure(report: RunReport, name: str) -> Metric | None:
    """The figure that a gate is about, ``None`` when there is none of that name."""
    name = metric_name(name)
    found = report.metrics.get(name)
    if found is not None or "=" not in name:
        return found
    evaluation = name.rpartition("=")[0]
    nothing = report.metrics.get(evaluation)
    if nothing is not None and nothing.value is None:
        return nothing
    others = {other: metric for other, metric in report.metrics.items() if other.startswith(f"{evaluation}=")}
    for other, metric in others.items():
        # Platforms take upper and lower case of a choice for one.
        if other.casefold() == name.casefold():
            return metric
    # A choice that was never made has no share in the report.
    return Metric(0.0, next(iter(others.values())).scored) if others else None
