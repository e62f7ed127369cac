"""The report as a JUnit XML file, for the systems that read those: CI servers, dashboards, merge requests.

One file is one run. Its first suite stands for the run itself and has the properties and the cases that belong to no
suite; each suite of the platform follows. What a case is in the file:

=====================================  ==============================================================================
passed                                 a ``testcase``
failed                                 with ``failure``
failed or unavailable, and forgiven    with ``skipped``, type ``allowed_failure``
unavailable, not run                   with ``skipped``, type ``unavailable`` or ``not_run``
flaky                                  as it ended, with ``flakyFailure`` besides
=====================================  ==============================================================================

So that nobody takes a bad run for a good one, the run itself is a ``testcase`` too where its cases don't show what it
amounts to: with ``error`` when it could not be run, was cancelled or could not be seen, with ``failure`` when it failed
without a case that did (a gate that was missed, no test at all, cases that the platform counts and does not list).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.cleaning import outgoing_text
from airflow_provider_testruns.files import check_target, save
from airflow_provider_testruns.judging import Judgement
from airflow_provider_testruns.model import CaseNames, CaseResult, Comparison, Outcome, RunReport, Verdict, utc
from airflow_provider_testruns.reporting.xcom import MAX_MESSAGE, shorten

if TYPE_CHECKING:
    from junitparser.junitparser import FinalResult
    from junitparser.xunit2 import InterimResult, JUnitXml, TestCase

    from airflow_provider_testruns.files import Place

#: More seconds than any case takes; what a platform says beyond is no time.
_MOST_SECONDS = 1e9


def check_place(target: Any, *, try_writing: bool = False) -> None:
    """Check ``junit_path`` before a run is paid for.

    :param target: as it was rendered.
    :param try_writing: whether to try, too; see :func:`.check_target`.
    :raises ConfigurationError: when no file can be written there.
    """
    check_target(target, "junit_path", try_writing=try_writing)


def write(
    target: Place,
    report: RunReport,
    judgement: Judgement | None,
    about: Mapping[str, Any] | None = None,
    *,
    error: BaseException | None = None,
) -> str:
    """Write a run's report, whole or not at all; a file that is there is replaced.

    :param target: a file, or a folder (one that is there, or a path that ends with a slash) for a file that is named
        after platform and run.
    :param report: the run's report, as far as it is known.
    :param judgement: what the run was judged to mean; ``None`` when it could not be judged.
    :param about: further properties, by name.
    :param error: why the run could not be judged.
    :return: where the file is.
    :raises ConfigurationError: when ``target`` can't be a place.
    """
    run = report.run
    tree = build(report, judgement, about, error=error)
    name = "-".join(part for part in (run.platform, run.run_id) if part) + ".xml"

    def fetch(path: Path) -> None:
        tree.write(str(path))

    return save(target, fetch, name=name)


def build(
    report: RunReport,
    judgement: Judgement | None,
    about: Mapping[str, Any] | None = None,
    *,
    error: BaseException | None = None,
) -> JUnitXml:
    """The file's content; arguments as of :func:`write`."""
    from junitparser.xunit2 import JUnitXml, TestSuite

    run = report.run
    title = f"{run.platform} run {run.run_id}" if run.run_id else f"{run.platform} run"
    allowed = frozenset(judgement.allowed if judgement else ())
    by_suite: dict[str, list[CaseResult]] = {"": []}
    for case in report.cases:
        by_suite.setdefault(case.suite, []).append(case)

    root = JUnitXml(_clean(title))
    root.tests, root.failures, root.errors = 0, 0, 0
    seconds = 0.0
    for name, cases in by_suite.items():
        suite = TestSuite(_clean(name or title))
        tests, failures, errors = len(cases), sum(_is_failure(case, allowed) for case in cases), 0
        passed = sum(case.outcome is Outcome.PASSED for case in cases)
        suite.skipped = tests - failures - passed
        if not name:
            if run.started_at is not None:
                suite.timestamp = utc(run.started_at).strftime("%Y-%m-%dT%H:%M:%S")
            for key, value in _properties(report, judgement, about or {}):
                suite.add_property(_clean(key), _clean(value))
            itself = _run_itself(report, judgement, error, any(_is_failure(case, allowed) for case in report.cases))
            if itself is not None:
                element, is_error = itself
                suite.append(element)
                tests, failures, errors = tests + 1, failures + (not is_error), errors + is_error
        # A testcase may have no properties by the schema that Jenkins checks files against; its suite may.
        for case in cases:
            for key, value in _details(case):
                suite.add_property(_clean(f"case.{case.name}.{key}"), value)
        # Not add_testcases(), which counts all over again by reading the elements.
        unstable = report.unstable
        outcomes = [unstable.get((case.suite, case.name), "") if unstable else "" for case in cases]
        both = zip(cases, outcomes, strict=True)
        suite.extend([_case(case, run.platform, case in allowed, each) for case, each in both])
        suite.tests, suite.failures, suite.errors = tests, failures, errors
        took = sum(_seconds(case.duration) or 0.0 for case in cases)
        suite.time = round(took, 3)
        root.append(suite)
        root.tests, root.failures, root.errors = root.tests + tests, root.failures + failures, root.errors + errors
        seconds += took
    whole = _seconds(report.duration)
    root.time = round(seconds, 3) if whole is None else whole
    return root


def _is_failure(case: CaseResult, allowed: frozenset[CaseResult]) -> bool:
    """Whether a case is a failure in the file."""
    return case.outcome is Outcome.FAILED and case not in allowed


def _case(case: CaseResult, platform: str, allowed: bool, outcomes: str) -> TestCase:
    """
    :param outcomes: those of its last runs, where it is flaky by them.
    """
    from junitparser import SystemOut
    from junitparser.xunit2 import TestCase

    classname = f"{platform}.{case.suite}" if case.suite else platform
    element = TestCase(_clean(case.name) or "(no name)", _clean(classname), _seconds(case.duration))
    tries = [each for each in case.earlier if each.outcome in (Outcome.FAILED, Outcome.UNAVAILABLE)]
    for earlier in tries:
        element.append(_earlier_try(earlier, passed=case.outcome is Outcome.PASSED))
    if outcomes or (case.passed_after_rerun and not tries):
        element.append(_flaky(case, outcomes))
    if case.outcome is not Outcome.PASSED:
        element.append(_result(case, allowed))
    if case.details:
        # Beside the case, in the form that readers take for properties of it.
        said = SystemOut("\n".join(f"[[PROPERTY|{key}={value}]]" for key, value in _details(case)))
        element.append(said)
    return element


def _result(case: CaseResult, allowed: bool) -> FinalResult:
    from junitparser import Failure, Skipped

    what = case.outcome.value.replace("_", " ")
    result: FinalResult
    if allowed:
        result = Skipped(_line("Allowed to fail: ", case.message, what), "allowed_failure")
    elif case.outcome is Outcome.FAILED:
        result = Failure(_line("", case.message, what), case.outcome.value)
    else:
        result = Skipped(_line("", case.message, what), case.outcome.value)
    # Never empty: some readers take a result without a text for none.
    result.text = _clean(case.message) if case.message.strip() else what
    return result


def _details(case: CaseResult) -> list[tuple[str, str]]:
    """What else the platform says of a case."""
    return [
        (_clean(name), _clean(str(value).lower() if isinstance(value, bool) else str(value)))
        for name, value in case.details.items()
    ]


def _earlier_try(case: CaseResult, *, passed: bool) -> InterimResult:
    """A try that does not count, as Maven Surefire has it.

    :param passed: whether the try that counts has passed.
    """
    from junitparser.xunit2 import FlakyError, FlakyFailure, RerunError, RerunFailure

    failed = case.outcome is Outcome.FAILED
    kind = (FlakyFailure if failed else FlakyError) if passed else (RerunFailure if failed else RerunError)
    result: InterimResult = kind(_line("", case.message, case.outcome.value), case.outcome.value)
    result.text = _clean(case.message) if case.message.strip() else case.outcome.value
    return result


def _flaky(case: CaseResult, outcomes: str) -> InterimResult:
    """That a case does not always end alike."""
    from junitparser.xunit2 import FlakyFailure

    words = {"P": "passed", "F": "failed"}
    said = f"Passed at try {case.tries}."
    if outcomes:
        said = f"Its last {len(outcomes)} runs: {', '.join(words[outcome] for outcome in outcomes)}."
    result: InterimResult = FlakyFailure(said, "flaky")
    result.text = said
    return result


def _run_itself(
    report: RunReport, judgement: Judgement | None, error: BaseException | None, failed: bool
) -> tuple[TestCase, bool] | None:
    """The run as a test case, where its cases don't show what it amounts to.

    :param failed: whether one of its cases is a failure in the file.
    :return: the case, and whether it is an error rather than a failure.
    """
    from junitparser import Error, Failure
    from junitparser.xunit2 import TestCase

    run = report.run
    result: FinalResult
    if judgement is None:
        said = str(error) if error is not None else "The run could not be judged."
        result, is_error = Error(_line("", said, ""), type(error).__name__ if error is not None else "unknown"), True
    elif judgement.verdict is Verdict.FAILED and not failed:
        said, is_error = "\n".join(judgement.reasons), False
        result = Failure(_line("", said, "failed"), judgement.verdict.value)
    elif judgement.verdict in (Verdict.ERRORED, Verdict.CANCELLED):
        said, is_error = "\n".join(judgement.reasons), True
        result = Error(_line("", said, judgement.verdict.value), judgement.verdict.value)
    else:
        return None
    result.text = _clean(said)
    case = TestCase(_clean(f"run {run.run_id}".rstrip()), _clean(run.platform), _seconds(report.duration))
    case.append(result)
    return case, is_error


def _properties(report: RunReport, judgement: Judgement | None, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    run, counts = report.run, report.counts
    found: list[tuple[str, Any]] = [
        ("platform", run.platform),
        ("run_id", run.run_id),
        ("kind", run.kind.value),
        ("raw_state", run.raw_state),
        ("url", run.url),
        ("commit", report.commit),
        ("verdict", judgement.verdict.value if judgement else "unknown"),
        ("pass_rate", None if report.pass_rate is None else round(report.pass_rate, 6)),
    ]
    if counts is not None:
        # What the platform counts: more than there are cases here where it does not list them all.
        found += [(name, getattr(counts, name)) for name in ("total", "passed", "failed", "unavailable", "not_run")]
    found += [(f"filter.{name}", value) for name, value in sorted(run.started_with.items())]
    found += [(f"context.{name}", value) for name, value in sorted(run.ids.items())]
    found += [(f"metric.{name}", metric.value) for name, metric in sorted(report.metrics.items())]
    if report.comparison is not None:
        found += _changes(report.comparison)
    found.append(("flaky", len(report.flaky) or None))
    if judgement is not None:
        found += [("reason", reason) for reason in judgement.reasons]
        found += [("note", note) for note in judgement.notes]
    found += about.items()
    return [(name, shorten(str(value), MAX_MESSAGE, lines=True)) for name, value in found if value not in (None, "")]


def _changes(comparison: Comparison) -> list[tuple[str, Any]]:
    """What has changed since an earlier run."""
    found: list[tuple[str, Any]] = [("compared_with", comparison.compare_with.value)]
    baseline = comparison.baseline
    if baseline is not None:
        found += [
            ("baseline.run_id", baseline.run_id),
            ("baseline.verdict", baseline.verdict.value),
            ("baseline.finished_at", baseline.finished_at and utc(baseline.finished_at).isoformat()),
            ("baseline.url", baseline.url),
            ("baseline.complete", str(baseline.complete).lower()),
        ]
    for label in ("new_failures", "still_failing", "fixed"):
        cases: CaseNames = getattr(comparison, label)
        found.append((label, cases.total))
        # Each by itself: one property of all of them would have to be taken apart again.
        found += [(f"{label}.{number}", "/".join(filter(None, case))) for number, case in enumerate(cases.named, 1)]
    found += [(f"metric_change.{name}", round(change, 6)) for name, change in sorted(comparison.metrics.items())]
    return found


def _line(before: str, text: str, otherwise: str) -> str:
    """The first line of a text, for where only a line is shown."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _clean(shorten(before + (lines[0] if lines else otherwise), MAX_MESSAGE))


def _seconds(value: float | None) -> float | None:
    """A time as the format has it: at most three places, no exponent."""
    if value is None or not math.isfinite(value):
        return None
    return round(min(max(value, 0.0), _MOST_SECONDS), 3)


def _clean(text: str) -> str:
    """A string as it may leave, which XML can hold, too."""
    return outgoing_text(text, None, lines=True)
