"""No combination of counters, lists and gates passes a run in whose report more failed than the gate allows."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import ApiError, ConfigurationError
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.model import (
    CaseResult,
    Counts,
    Kind,
    Metric,
    Outcome,
    Run,
    RunReport,
    RunState,
    Verdict,
    reconcile,
)
from airflow_provider_testruns.platforms.eggplant import EggplantPlatform
from airflow_provider_testruns.platforms.futureagi import FutureAGIPlatform
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.reporting.junit import build
from airflow_provider_testruns.reporting.text import table
from airflow_provider_testruns.reporting.xcom import to_xcom
from tests.unit.platforms.steps import BASE_URL, Wire

pytestmark = pytest.mark.unit

TRIED = (Outcome.PASSED, Outcome.FAILED, Outcome.UNAVAILABLE)
#: What a counter may hold, whatever its type says.
_number = st.integers(0, 6) | st.sampled_from([-1, -(10**9), 10**15, 10**400, None, True, 2.5, "3"])
_counters = st.none() | st.builds(Counts, *[st.integers(0, 6)] * 4) | st.builds(Counts, *[_number] * 4)
_cases = st.lists(
    st.builds(CaseResult, st.sampled_from("abcd"), st.sampled_from(Outcome), suite=st.sampled_from(["", "s"])),
    max_size=8,
)
_metric = st.builds(
    Metric, st.none() | st.floats(0, 1) | st.just(float("nan")), st.none() | st.sampled_from([-1, 0, 1, 10**400])
)
_gates = st.builds(
    Gates,
    min_pass_rate=st.none() | st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    max_failures=st.none() | st.integers(0, 3),
    fail_on_no_tests=st.booleans(),
    allowed_failures=st.sampled_from([(), (), ("a",), ("s/*",), ("[ab]", "c"), ("*",)]),
    eval_thresholds=st.just({}) | st.just({"tone": 0.5}),
)


def counter(value: Any) -> int:
    """A counter as its reader has to take it: what is no number from 0 on says nothing."""
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0


def check_pass(counted: Counts | None, cases: list[CaseResult], gates: Gates) -> None:
    """Judge by counters and list apart, without what is tested: neither may miss a gate."""

    def forgiven(case: CaseResult) -> bool:
        ways = [case.name, f"{case.suite}/{case.name}" if case.suite else case.name]
        return any(fnmatch.fnmatchcase(way, name) for way in ways for name in gates.allowed_failures)

    bad = [case for case in cases if case.outcome in (Outcome.FAILED, Outcome.UNAVAILABLE)]
    left = [case for case in bad if not forgiven(case)]
    passed = sum(case.outcome is Outcome.PASSED for case in cases)
    views = []
    total = 0
    if counted is not None:
        total = sum(counter(value) for value in (counted.passed, counted.failed, counted.unavailable, counted.not_run))
        not_passed = counter(counted.failed) + counter(counted.unavailable) - (len(bad) - len(left))
        views.append((counter(counted.passed), max(0, not_passed)))
    if cases and len(cases) >= total:
        views.append((passed, len(left)))
    if gates.max_failures is not None:
        assert len(left) <= gates.max_failures
        assert all(not_passed <= gates.max_failures for _, not_passed in views)
    if gates.min_pass_rate is not None:
        for good, not_passed in views:
            assert not good + not_passed or good / (good + not_passed) >= gates.min_pass_rate
    if gates.max_failures is None and gates.min_pass_rate is None:
        assert not left
        assert all(not not_passed for _, not_passed in views)
    if gates.fail_on_no_tests and views and not (len(views) == 2 and total == 0):
        for good, not_passed in views:
            assert good + not_passed + len(bad)


@settings(max_examples=600)
@example(
    counted=Counts(0, 0, 1, 0),
    cases=[CaseResult("a", Outcome.NOT_RUN)],
    gates=Gates(max_failures=1),
    metrics={},
    ending=None,
    kind=Kind.RUN,
    metrics_error=None,
)
@given(
    counted=_counters,
    cases=_cases,
    gates=_gates,
    metrics=st.just({}) | st.fixed_dictionaries({"tone": _metric}),
    ending=st.none() | st.sampled_from(Verdict),
    kind=st.sampled_from([Kind.RUN, Kind.RUN, Kind.TEST_CONFIGURATION, Kind.MODEL]),
    metrics_error=st.none() | st.none() | st.just(ApiError("gone")),
)
def test_a_pass_is_one_by_counters_and_by_list(
    counted: Counts | None,
    cases: list[CaseResult],
    gates: Gates,
    metrics: dict[str, Metric],
    ending: Verdict | None,
    kind: Kind,
    metrics_error: ApiError | None,
) -> None:
    run = Run("omilia", "r-1", RunState.FINISHED, "over", platform_verdict=ending, kind=kind)
    report = RunReport(run, counted, tuple(cases), metrics, metrics_error)
    try:
        judgement = judge(report, gates)
    except (ApiError, ConfigurationError):
        assert gates.eval_thresholds
        return
    assert to_xcom(report, judgement)["verdict"] == judgement.verdict.value
    if judgement.verdict is not Verdict.PASSED:
        assert judgement.reasons
        return
    assert ending in (None, Verdict.PASSED, Verdict.FAILED)
    check_pass(counted, cases, gates)
    if gates.eval_thresholds:
        # Whatever could not be seen, the gate's own evaluation was.
        value = metrics["tone"].value
        assert value is not None
        assert value >= 0.5


@given(_counters, _cases)
def test_reconciling_is_done_once_and_never_better_than_either(counted: Counts | None, cases: list[CaseResult]) -> None:
    worse, _ = reconcile(counted, tuple(cases))
    again, said = reconcile(worse, tuple(cases))
    assert (again, said if worse is None else "") == (worse, "")
    listed = Counts.of(tuple(cases))
    if worse is None:
        assert counted is None
        assert not cases
        return
    assert all(isinstance(value, int) and value >= 0 for value in (worse.passed, worse.not_passed, worse.not_run))
    assert worse.not_passed >= listed.not_passed
    if counted is not None:
        assert worse.not_passed >= min(counter(counted.failed) + counter(counted.unavailable), 10**15)


@pytest.mark.parametrize(
    ("counted", "outcomes", "worse", "said"),
    [
        (Counts(2), "pp", Counts(2), ""),
        (Counts(2), "pf", Counts(1, 1), "counts 2 passed and 0 not passed, and lists 1 and 1"),
        (Counts(1, 1), "pp", Counts(1, 1), "counts 1 passed and 1 not passed, and lists 2 and 0"),
        # A list that is shorter shows what it shows.
        (Counts(9, 1), "ff", Counts(8, 2), "counts 9 passed and 1 not passed, and lists 0 and 2"),
        (Counts(9, 1), "pf", Counts(9, 1), ""),
        (Counts(1), "pn", Counts(1, not_run=1), ""),
        (Counts(), "pf", Counts(1, 1), ""),
        (None, "pu", Counts(1, unavailable=1), ""),
        # The two may call the same case by different words.
        (Counts(1, 1), "pu", Counts(1, unavailable=1), ""),
        (Counts(3, -1), "", Counts(3), "The platform's counters can't be right."),
    ],
)
def test_the_worse_of_the_two_counts(counted: Counts | None, outcomes: str, worse: Counts, said: str) -> None:
    words = {outcome.value[0]: outcome for outcome in Outcome}
    cases = tuple(CaseResult(f"case {at}", words[letter]) for at, letter in enumerate(outcomes))
    report = RunReport(
        Run("omilia", "r-1", RunState.FINISHED, "SUCCESS", platform_verdict=Verdict.PASSED), counted, cases
    )
    assert report.counts == worse
    assert said in report.disagreement
    assert bool(said) is bool(report.disagreement)
    judgement = judge(report)
    assert (judgement.verdict is Verdict.PASSED) is (worse.not_passed == 0)
    # Wherever the numbers are, they are those of the verdict, and the note is beside them.
    assert to_xcom(report, judgement)["failed"] == worse.failed
    for text in (table(report, judgement), build(report, judgement).tostring().decode()):
        assert (said.replace("'", "&apos;") in text or said in text) or not said


# The platforms' readers

_count = st.integers(0, 5) | st.none() | st.sampled_from([-1, 10**15, 10**400, "2", 3.0, float("1e300"), [], True])
_gone = st.just({"status": False})


def judged(wire: Wire, steps: Any, gates: Gates) -> tuple[RunReport, Verdict] | None:
    """The report and its verdict; ``None`` where the platform's responses make an error of it."""
    try:
        report = wire.run(steps)
        return report, judge(report, gates).verdict
    except (ApiError, ConfigurationError):
        return None


EXECUTION = "0e000000-0000-4000-8000-000000000001"
RUN_TEST = "0a000000-0000-4000-8000-000000000001"


@settings(max_examples=250)
@given(
    calls=st.fixed_dictionaries({}, optional=dict.fromkeys(("completed", "failed", "pending", "total"), _count)),
    beside=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("total_calls", "completed_calls", "failed_calls"), _count)
    ),
    rows=st.none() | st.lists(st.sampled_from(["completed", "failed", "cancelled", "analyzing", "FAILED"]), max_size=5),
    status=st.sampled_from(["completed", "completed", "failed", "cancelled"]),
    twice=st.booleans(),
    gates=_gates,
)
def test_future_agi_passes_nothing_that_it_lists_as_failed(
    calls: dict[str, Any], beside: dict[str, Any], rows: list[str] | None, status: str, twice: bool, gates: Gates
) -> None:
    listed = [
        {"call_execution_id": f"c-{at // 2 if twice else at}", "status": row} for at, row in enumerate(rows or [])
    ]
    metrics = {"execution_id": EXECUTION, "status": status, **beside, "metrics": {"calls": calls}}
    answers: dict[str, Any] = {
        f"GET /sdk/api/v1/simulation/metrics/?execution_id={EXECUTION}": {"status": True, "result": metrics},
    }
    if rows is not None:
        page = {"results": listed, "total_pages": 1}
        runs = {"status": True, "result": {"call_results": page}}
        answers[f"GET /sdk/api/v1/simulation/runs/?execution_id={EXECUTION}"] = runs
    run = Run(
        "futureagi",
        EXECUTION,
        RunState.FINISHED,
        "completed",
        platform_verdict=Verdict.PASSED,
        ids={"run_test_id": RUN_TEST},
    )
    found = judged(Wire(answers), FutureAGIPlatform("current").get_report(run), gates)
    if found is None or found[1] is not Verdict.PASSED:
        return
    report, _ = found
    assert status in ("completed", "failed")
    failed = {row["call_execution_id"] for row in listed if row["status"].casefold() == "failed"}
    forgiven = 0 if not gates.allowed_failures else len(failed)
    if gates.max_failures is None and gates.min_pass_rate is None:
        assert len(failed) <= forgiven
    if gates.max_failures is not None:
        assert len(failed) - forgiven <= gates.max_failures
    for counted in (calls.get("failed"), beside.get("failed_calls")):
        if isinstance(counted, int) and calls.get("total") and gates.min_pass_rate is None:
            assert counted - forgiven <= (gates.max_failures or 0)
    check_pass(report.counts, list(report.cases), gates)


@pytest.mark.parametrize("failed", [{}, {"failed": None}, {"failed": 0}], ids=repr)
def test_a_failed_call_that_future_agi_does_not_count_fails_the_run(failed: dict[str, Any]) -> None:
    metrics = {"execution_id": EXECUTION, "status": "completed", "metrics": {"calls": {"completed": 9, **failed}}}
    metrics["metrics"]["calls"]["total"] = 10
    of_calls = f"GET /sdk/api/v1/simulation/metrics/?execution_id={EXECUTION}"
    run = Run("futureagi", EXECUTION, RunState.FINISHED, "completed", platform_verdict=Verdict.PASSED)
    rows = [
        {"call_execution_id": f"c-{at}", "status": "failed" if at == 3 else "completed", "ended_reason": "busy"}
        for at in range(10)
    ]
    page = {"results": rows, "total_pages": 1}
    runs = {"status": True, "result": {"call_results": page, "eval_results": []}}
    at = f"GET /sdk/api/v1/simulation/runs/?execution_id={EXECUTION}"
    report = Wire({of_calls: {"status": True, "result": metrics}, at: runs}).run(
        FutureAGIPlatform("current").get_report(run)
    )
    assert report.counts == Counts(9, 1)
    assert judge(report).verdict is Verdict.FAILED
    assert judge(report, Gates(max_failures=0)).verdict is Verdict.FAILED
    # With nothing but counters, calls that nobody accounts for did not pass.
    report = Wire({of_calls: {"status": True, "result": metrics}}).run(FutureAGIPlatform("current").get_report(run))
    unknown = "failed" not in failed or failed["failed"] is None
    assert report.counts == (Counts(9, unavailable=1) if unknown else Counts(9, not_run=1))
    assert judge(report).verdict is (Verdict.FAILED if unknown else Verdict.PASSED)


@settings(max_examples=250)
@given(
    stats=st.none()
    | st.fixed_dictionaries({"runId": st.just("r-1"), "pass": _count, "fail": _count, "unavailable": _count}),
    rows=st.none() | st.lists(st.sampled_from(["pass", "fail", "unavailable", "splendid", None, "Failed"]), max_size=5),
    ending=st.sampled_from([Verdict.PASSED, Verdict.FAILED]),
    gates=_gates,
)
def test_omilia_passes_nothing_that_it_lists_as_failed(
    stats: dict[str, Any] | None, rows: list[str | None] | None, ending: Verdict, gates: Gates
) -> None:
    answers: dict[str, Any] = {}
    if stats is not None:
        answers["GET /api/runs/r-1/run_stats/"] = {"data": [stats]}
    if rows is not None:
        cases = [{"testCaseName": f"case {at}", "status": row} for at, row in enumerate(rows)]
        answers["GET /api/runs/r-1/test_cases/"] = {"data": cases}
    run = Run("omilia", "r-1", RunState.FINISHED, ending.value, platform_verdict=ending)
    found = judged(Wire(answers), OmiliaPlatform(BASE_URL).get_report(run), gates)
    if found is None or found[1] is not Verdict.PASSED:
        return
    report, _ = found
    bad = sum(row is not None and row.casefold() in ("fail", "failed", "unavailable") for row in rows or [])
    counted = 0
    if stats is not None:
        counted = counter(stats["fail"]) + counter(stats["unavailable"])
    forgiven = bad if gates.allowed_failures == ("*",) else 0
    if gates.max_failures is not None:
        assert max(bad, counted) - forgiven <= gates.max_failures
    elif gates.min_pass_rate is None:
        assert max(bad, counted) - forgiven <= 0
    check_pass(report.counts, list(report.cases), gates)


def test_failures_beyond_max_failures_that_omilia_does_not_count_fail_the_run() -> None:
    cases = [{"testCaseName": f"case {at}", "status": "fail" if at < 3 else "pass"} for at in range(10)]
    stats = {"runId": "r-1", "pass": 9, "fail": 1, "unavailable": 0}
    wire = Wire({"GET /api/runs/r-1/run_stats/": {"data": stats}, "GET /api/runs/r-1/test_cases/": {"data": cases}})
    run = Run("omilia", "r-1", RunState.FINISHED, "FAILURE", platform_verdict=Verdict.FAILED)
    report = wire.run(OmiliaPlatform(BASE_URL).get_report(run))
    judgement = judge(report, Gates(max_failures=2))
    assert judgement.reasons == ("3 failed of 10 test cases: max_failures is 2.",)
    assert judgement.notes == (
        "The platform counts 9 passed and 1 not passed, and lists 7 and 3: the worse of the two counts.",
    )
    assert judge(report, Gates(max_failures=3)).verdict is Verdict.PASSED


@settings(max_examples=150)
@given(
    rows=st.none() | st.lists(st.sampled_from(["PASSED", "FAILED", "ERROR", "odd", "INCOMPLETE"]), max_size=5),
    ending=st.sampled_from([Verdict.PASSED, Verdict.FAILED]),
    total=_count,
    gates=_gates,
)
def test_eggplant_passes_nothing_that_it_lists_as_failed(
    rows: list[str] | None, ending: Verdict, total: Any, gates: Gates
) -> None:
    results = [
        {"id": f"t-{at}", "test_case_name": f"case {at}", "status": row, "execution_id": EXECUTION}
        for at, row in enumerate(rows or [])
    ]
    answers: dict[str, Any] = {}
    if rows is not None:
        at = f"GET /api/v2/test_results?execution_id={EXECUTION}&limit=100&offset=0"
        answers[at] = {"items": results, "total_count": total}
    run = Run("eggplant", EXECUTION, RunState.FINISHED, ending.value, platform_verdict=ending)
    wire = Wire(answers)
    found = judged(wire, EggplantPlatform(BASE_URL).get_report(run), gates)
    assert rows is None or at in wire.asked
    if found is None or found[1] is not Verdict.PASSED:
        return
    report, _ = found
    check_pass(report.counts, list(report.cases), gates)
    if not gates.allowed_failures and gates.min_pass_rate is None and gates.max_failures is None:
        assert "FAILED" not in (rows or [])
