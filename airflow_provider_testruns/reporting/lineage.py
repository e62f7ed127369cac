"""The report for OpenLineage: the run facet ``test`` (``TestRunFacet``), which the OpenLineage provider sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.cleaning import outgoing_json
from airflow_provider_testruns.judging import Judgement
from airflow_provider_testruns.model import CaseResult, Outcome, RunReport, Verdict
from airflow_provider_testruns.reporting.xcom import MAX_MESSAGE, shorten

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

#: How many cases go into an event, those that did not pass first; transports refuse events that are too large.
MAX_CASES = 1000
_STATUS = {
    Outcome.PASSED: "pass",
    Outcome.FAILED: "fail",
    Outcome.UNAVAILABLE: "fail",
    Outcome.NOT_RUN: "skip",
}


def lineage(report: RunReport, judgement: Judgement) -> OperatorLineage[Any, Any]:
    """What a task's OpenLineage event says of its run. Empty where the client has no such facet (before 1.52).

    Every case is a test of the facet; severity ``warn`` says that a failure is forgiven. The first test is the run
    itself, with the verdict, what was asked and what was found, so that gates are there, too.

    :param report: the run's report.
    :param judgement: what it was judged to mean.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    try:
        from openlineage.client.facet_v2 import test_run
    except ImportError:
        return OperatorLineage()

    allowed = frozenset(judgement.allowed)
    cases = sorted(report.cases, key=lambda case: case.outcome in (Outcome.PASSED, Outcome.NOT_RUN))[:MAX_CASES]
    tests = [test_run.TestExecution(**_run(report, judgement))]
    tests += [test_run.TestExecution(**_case(report.run.platform, case, case in allowed)) for case in cases]
    return OperatorLineage(run_facets={"test": test_run.TestRunFacet(tests=tests)})


def _run(report: RunReport, judgement: Judgement) -> dict[str, Any]:
    run, counts = report.run, report.counts
    return {
        "name": run.run_id,
        "status": "pass" if judgement.verdict is Verdict.PASSED else "fail",
        "severity": "error",
        "type": f"{run.platform}.run",
        "description": shorten(" ".join(judgement.reasons), MAX_MESSAGE) or None,
        "expected": Verdict.PASSED.value,
        "actual": judgement.verdict.value,
        "params": _known(
            url=run.url,
            raw_state=run.raw_state,
            commit=report.commit,
            total=counts.total if counts else None,
            passed=counts.passed if counts else None,
            failed=counts.failed if counts else None,
            unavailable=counts.unavailable if counts else None,
            not_run=counts.not_run if counts else None,
            pass_rate=None if report.pass_rate is None else round(report.pass_rate, 6),
            cases_left_out=max(0, len(report.cases) - MAX_CASES) or None,
        ),
    }


def _case(platform: str, case: CaseResult, allowed: bool) -> dict[str, Any]:
    return {
        "name": shorten(f"{case.suite}/{case.name}" if case.suite else case.name, MAX_MESSAGE),
        "status": _STATUS[case.outcome],
        "severity": "warn" if allowed else "error",
        "type": f"{platform}.case",
        "description": shorten(case.message, MAX_MESSAGE, lines=True) or None,
        "expected": Outcome.PASSED.value,
        "actual": case.outcome.value,
        "params": _known(suite=case.suite, duration=case.duration),
    }


def _known(**values: Any) -> dict[str, Any]:
    known = {name: value for name, value in values.items() if value not in (None, "")}
    cleaned: dict[str, Any] = outgoing_json(known)
    return cleaned
