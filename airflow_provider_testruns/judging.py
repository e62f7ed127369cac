"""What a finished run means: the one place where verdicts are made, for operators and sensors alike."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from airflow_provider_testruns.arguments import count, fraction
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.model import (
    CaseResult,
    Comparison,
    Counts,
    Kind,
    Metric,
    Outcome,
    RunReport,
    Verdict,
    metric_name,
)
from airflow_provider_testruns.quarantine import WARN_DAYS, Quarantined, entries

#: The gates on how many cases passed, which replace "all cases passed".
_COUNTING = ("min_pass_rate", "max_failures", "max_new_failures")


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
        An entry may be :class:`.Quarantined` with the last day on which it holds; from then on the case counts again.
    :param max_new_failures: when given it replaces "all cases passed": how many cases may not have passed that the
        baseline of the report's comparison does not name, those that ``allowed_failures`` forgives not counted. Where
        the baseline's list is not complete, or there is no baseline, all count as new. With other gates all must be
        met.
    :param max_metric_drop: by how much the figure of an evaluation may be below that of the baseline, by its name.
    :param today: the day by which ``allowed_failures`` are in force; that of UTC without.
    :param fail_on_rerun: whether a case that passed only when the platform ran it again fails the run, unless
        ``allowed_failures`` names it; otherwise it has passed, and a note lists it.
    """

    min_pass_rate: float | None = None
    fail_on_no_tests: bool = True
    eval_thresholds: Mapping[str, float] = field(default_factory=dict)
    max_failures: int | None = None
    allowed_failures: tuple[str | Quarantined, ...] = ()
    fail_on_rerun: bool = False
    max_new_failures: int | None = None
    max_metric_drop: Mapping[str, float] = field(default_factory=dict)
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    def __post_init__(self) -> None:
        """Check them.

        :raises ConfigurationError: naming the argument.
        """
        if self.min_pass_rate is not None:
            fraction("min_pass_rate", self.min_pass_rate)
        if self.max_failures is not None:
            count("max_failures", self.max_failures)
        if self.max_new_failures is not None:
            count("max_new_failures", self.max_new_failures)
        object.__setattr__(self, "allowed_failures", entries("allowed_failures", self.allowed_failures))
        for name, value in self.eval_thresholds.items():
            fraction(f"eval_thresholds[{name!r}]", value)
        for name, value in self.max_metric_drop.items():
            fraction(f"max_metric_drop[{name!r}]", value)

    @property
    def may_fail(self) -> tuple[str, ...]:
        """The names and patterns of ``allowed_failures`` that hold today."""
        found = [
            entry.name if isinstance(entry, Quarantined) else entry
            for entry in self.allowed_failures
            if not isinstance(entry, Quarantined) or entry.until >= self.today
        ]
        return tuple(dict.fromkeys(found))


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


def judge(report: RunReport, gates: Gates | None = None) -> Judgement:
    """Say what a finished run means: its verdict, and why. The one function that does, for operators and sensors alike.

    The platform's word alone is enough for a pass only where it gives no counts, and a failure needs a test that did
    not pass: where a platform says that a run failed and no case shows it, the run itself broke (``ERRORED``). Where
    the platform's counters and its list contradict each other, the worse of the two counts (:func:`reconcile`).

    :param report: the report of a run that is final.
    :param gates: what the task asks of it; without, the platform's word and "all passed" decide.
    :raises ValueError: when the run is not final.
    :raises ConfigurationError: when a gate names an evaluation that the report does not know.
    :raises ApiError: when the verdict depends on evaluations that could not be seen.
    """
    judgement = _judge(report, gates or Gates())
    notes = [report.disagreement, *report.remarks] if report.disagreement else list(report.remarks)
    if report.comparison is not None and report.comparison.note:
        notes.append(report.comparison.note)
    if again := tuple(case for case in report.cases if case.passed_after_rerun):
        tries = [f"{_ways(case)[-1]} (after {max(case.tries, len(case.earlier) + 1)} tries)" for case in again]
        notes.append(f"Passed after a re-run: {_some(tries)}.")
    if unstable := tuple(case for case in report.cases if (case.suite, case.name) in report.unstable):
        notes.append(f"Flaky, by the last runs: {_named(unstable)}.")
    notes += _ends_of_quarantine(gates or Gates()) + _unchecked_drops(report, gates or Gates())
    return replace(judgement, notes=(*notes, *judgement.notes)) if notes else judgement


def _judge(report: RunReport, gates: Gates) -> Judgement:
    run, counts = report.run, report.counts
    if run.stopped_early:
        # What was seen before the stop decides: the platform calls the run cancelled.
        return Judgement(Verdict.FAILED, (run.stopped_early,))
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
            said = "According to the platform's list, none of the test cases ran."
            return Judgement(Verdict.FAILED, (f"{said} Set fail_on_no_tests=False to allow that.",))

    if counts is None and run.platform_verdict is None:
        why = (
            f"The run has finished ({run.raw_state}), and the platform reports neither its outcome nor what was tested."
        )
        return Judgement(Verdict.ERRORED, (why,))

    left, forgiven, notes = _forgive(report, gates)
    reasons: list[str] = []
    asked = [name for name in _COUNTING if getattr(gates, name) is not None]
    counted = bool(asked)
    if counted and counts is None and run.kind is not Kind.GENERATION:
        reasons.append(f"The platform gives no counts, so that {' and '.join(asked)} can't be checked.")
    elif counted and counts is not None and counts.executed:
        reasons += _missed_counts(left, gates, report.comparison)
    elif left.failed or left.unavailable:
        reasons.append(f"{_not_passed(left)} of {counts.total if counts else left.total} test cases.")
    if reasons and forgiven:
        reasons.append(f"{len(forgiven)} that did not pass are ignored (allowed_failures).")
    if reasons and gates.may_fail and (unlisted := _unlisted(report)):
        reasons.append(f"allowed_failures can't be checked for {unlisted} that the platform counts and does not list.")
    if gates.fail_on_rerun and (again := _passed_after_rerun(report, gates)):
        reasons.append(f"{len(again)} passed only after a re-run (fail_on_rerun=True): {_named(again)}.")
    reasons += _missed_evaluations(report, gates, failed=bool(reasons))
    return Judgement(Verdict.FAILED if reasons else Verdict.PASSED, tuple(reasons), notes, forgiven)


def _missed_counts(left: Counts, gates: Gates, comparison: Comparison | None) -> list[str]:
    """The gates on counts that were missed.

    :param left: the counts, without what is forgiven.
    :param comparison: with the baseline.
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
    if gates.max_new_failures is not None:
        baseline = comparison.baseline if comparison is not None else None
        trusted = baseline is not None and baseline.complete
        known = comparison.still_failing.total if comparison is not None and trusted else 0
        new = max(0, left.not_passed - known)
        if new > gates.max_new_failures:
            said = f"{new} new failures" if new > 1 else "1 new failure"
            if baseline is None:
                said += " (all count as new without a baseline)"
            elif not trusted:
                said += " (all count as new: the baseline does not name all of its failures)"
            reasons.append(f"{said} of {left.total} test cases: max_new_failures is {gates.max_new_failures}.")
    return reasons


def _ends_of_quarantine(gates: Gates) -> list[str]:
    """What is said of entries of ``allowed_failures`` that end soon, or have ended."""
    dated = sorted({entry for entry in gates.allowed_failures if isinstance(entry, Quarantined)}, key=_by_end)
    ended = [f"{entry}" for entry in dated if entry.until < gates.today]
    ending = [f"{entry}" for entry in dated if timedelta(0) <= entry.until - gates.today <= timedelta(days=WARN_DAYS)]
    notes = [f"No longer allowed to fail: {_some(ended)}."] if ended else []
    return notes + ([f"Soon no longer allowed to fail: {_some(ending)}."] if ending else [])


def _by_end(entry: Quarantined) -> tuple[date, str, str]:
    return entry.until, entry.name, entry.why


def _not_passed(counts: Counts) -> str:
    parts = [f"{counts.failed} failed"] if counts.failed else []
    parts += [f"{counts.unavailable} unavailable"] if counts.unavailable else []
    return " and ".join(parts)


def _forgive(report: RunReport, gates: Gates) -> tuple[Counts, tuple[CaseResult, ...], tuple[str, ...]]:
    """What ``allowed_failures`` makes of a report.

    :return: the counts without what is forgiven, the forgiven cases, and notes.
    """
    counts = report.counts or Counts()
    allowed = gates.may_fail
    if not allowed:
        return counts, (), ()
    matches = _matcher(allowed)
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
            name for name in allowed if name not in there and not any(fnmatch.fnmatchcase(way, name) for way in there)
        ]
        if unused:
            notes.append(f"allowed_failures has entries that match no case: {_some([repr(n) for n in unused])}.")
    return left, forgiven, tuple(notes)


def _passed_after_rerun(report: RunReport, gates: Gates) -> tuple[CaseResult, ...]:
    """The cases that needed more than one try, but for those that may fail."""
    again = tuple(case for case in report.cases if case.passed_after_rerun)
    if not gates.may_fail:
        return again
    allowed = _matcher(gates.may_fail)
    return tuple(case for case in again if not allowed(case))


def _unlisted(report: RunReport) -> int:
    """How many cases did not pass of which the platform says only the number."""
    if report.counts is None:
        return 0
    return max(0, report.counts.not_passed - len(report.failures))


def may_fail(gates: Gates) -> Callable[[CaseResult], bool]:
    """Says whether a case is one that may fail, by ``allowed_failures``.

    :param gates: what the task asks of the run.
    """
    allowed = gates.may_fail
    return _matcher(allowed) if allowed else lambda case: False


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
    return _missed_thresholds(report, gates, failed=failed) + _missed_drops(report, gates, failed=failed)


def _missed_thresholds(report: RunReport, gates: Gates, *, failed: bool) -> tuple[str, ...]:
    figures, reasons = _figures(report, "eval_thresholds", gates.eval_thresholds, failed=failed)
    for name, metric in figures.items():
        threshold = gates.eval_thresholds[name]
        if metric.value is None or (metric.scored is not None and metric.scored <= 0):
            reasons.append(f"Evaluation {name!r} has no score; its gate is {threshold:g}.")
        elif not metric.value >= threshold:  # a value that is not a number meets no gate
            missed_by = threshold - metric.value
            reasons.append(
                f"Evaluation {name!r} is {metric.value:.3g}, below its gate {threshold:g} by {missed_by:.3g}."
            )
    return tuple(reasons)


def _missed_drops(report: RunReport, gates: Gates, *, failed: bool) -> tuple[str, ...]:
    figures, reasons = _figures(report, "max_metric_drop", gates.max_metric_drop, failed=failed)
    for name, metric in figures.items():
        before = _figure_before(report, name)
        if before is None:
            continue
        if metric.value is None or (metric.scored is not None and metric.scored <= 0):
            reasons.append(f"Evaluation {name!r} has no score; it was {before:.3g} in the baseline.")
            continue
        most = gates.max_metric_drop[name]
        # 0.9 - 0.85 is a little more than 0.05.
        drop = round(before - metric.value, 9)
        if not drop <= most:  # a value that is not a number meets no gate
            reasons.append(
                f"Evaluation {name!r} dropped by {drop:.3g}, from {before:.3g} to {metric.value:.3g}: max_metric_drop"
                f" is {most:g}."
            )
    return tuple(reasons)


def _unchecked_drops(report: RunReport, gates: Gates) -> list[str]:
    """What is said of gates on a drop that the baseline has no figure for."""
    missing = [repr(name) for name in gates.max_metric_drop if _figure_before(report, name) is None]
    return [f"max_metric_drop is not checked for {_some(missing)}: the baseline has no such metric."] if missing else []


def _figure_before(report: RunReport, name: str) -> float | None:
    """An evaluation's figure in the baseline."""
    comparison = report.comparison
    metric = None if comparison is None else _figure(comparison.metrics_before, name)
    return None if metric is None else metric.value


def _figures(
    report: RunReport, argument: str, asked: Mapping[str, float], *, failed: bool
) -> tuple[dict[str, Metric], list[str]]:
    """The figures that gates are about; none, and a reason instead, when some can't be seen of a run that has failed
    anyway."""
    figures = {name: _figure(report.metrics, name) for name in asked}
    if report.metrics_error is not None and any(metric is None or metric.value is None for metric in figures.values()):
        # What was seen in spite of it can be judged.
        if not failed:
            raise report.metrics_error
        return {}, [f"The gates of {argument} are not checked: {report.metrics_error}"]
    unknown = [name for name, metric in figures.items() if metric is None]
    if unknown:
        known = _some([repr(name) for name in sorted(report.metrics)], 20) or "none"
        raise ConfigurationError(
            f"{argument} names {', '.join(repr(name) for name in unknown)}, of which the report of run"
            f" {report.run.run_id} has no figure. It has: {known}."
        )
    return {name: metric for name, metric in figures.items() if metric is not None}, []


def _figure(metrics: Mapping[str, Metric], name: str) -> Metric | None:
    """The figure that a gate is about, ``None`` when there is none of that name."""
    name = metric_name(name)
    found = metrics.get(name)
    if found is not None or "=" not in name:
        return found
    evaluation = name.rpartition("=")[0]
    nothing = metrics.get(evaluation)
    if nothing is not None and nothing.value is None:
        return nothing
    others = {other: metric for other, metric in metrics.items() if other.startswith(f"{evaluation}=")}
    for other, metric in others.items():
        # Platforms take upper and lower case of a choice for one.
        if other.casefold() == name.casefold():
            return metric
    # A choice that was never made has no share in the report.
    return Metric(0.0, next(iter(others.values())).scored) if others else None
