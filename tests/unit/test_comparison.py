"""What has changed since an earlier run: the comparison, what is remembered for it, and the gates that stand on it."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from pytest_mock import MockerFixture

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.comparison import History, Selection, compare, from_json, remember, to_json
from airflow_provider_testruns.exceptions import ApiError, ConfigurationError
from airflow_provider_testruns.judging import Gates, Judgement, judge
from airflow_provider_testruns.model import (
    CaseResult,
    CompareWith,
    Counts,
    Metric,
    Outcome,
    Run,
    RunReport,
    RunState,
    Verdict,
)
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.reporting.text import table
from airflow_provider_testruns.reporting.xcom import to_event, to_xcom
from airflow_provider_testruns.sensors.eggplant import EggplantRunProgressSensor
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

pytestmark = pytest.mark.unit

TESTED = Selection("omilia", "run", "", {"group": "0a"}, {"project_id": "p-1"})
_FIRST = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def ran(
    number: int, cases: str, *, ending: Verdict | None = None, metrics: dict[str, float] | None = None, **changes: Any
) -> RunReport:
    """The report of the run of a day: its cases by their letters, of which the capital ones failed."""
    found = tuple(
        CaseResult(each.lower(), Outcome.FAILED if each.isupper() else Outcome.PASSED, suite="s") for each in cases
    )
    ending = ending or (Verdict.FAILED if cases != cases.lower() else Verdict.PASSED)
    run = Run(
        "omilia",
        f"r-{number}",
        RunState.FINISHED,
        "DONE",
        platform_verdict=ending,
        finished_at=_FIRST + timedelta(days=number),
        url=f"https://studio.example.com/r-{number}",
    )
    return RunReport(run, None, found, {name: Metric(value) for name, value in (metrics or {}).items()}, **changes)


class Task:
    """A task that remembers its runs as the XCom would have it."""

    def __init__(self, gates: Gates | None = None, compare_with: CompareWith = CompareWith.PREVIOUS) -> None:
        self.gates = gates or Gates()
        self.compare_with = compare_with
        self.stored: Any = None

    def run(self, report: RunReport, *, dag_run: str = "", tested: Selection = TESTED) -> tuple[RunReport, Judgement]:
        """Judge a run, and remember it."""
        history = None if self.stored is None else from_json(json.loads(json.dumps(self.stored)))
        report = compare(report, self.gates, self.compare_with, history, tested, dag_run=dag_run)
        judgement = judge(report, self.gates)
        history = remember(report, judgement.verdict, self.gates, history, tested, dag_run=dag_run)
        self.stored = to_json(history)
        return report, judgement

    def runs(self, *cases: str) -> tuple[RunReport, Judgement]:
        """Several in a row; the last one's."""
        for number, each in enumerate(cases):
            found = self.run(ran(number, each))
        return found


def changed(report: RunReport) -> tuple[str, str, str]:
    """The names of new failures, of those that still fail, and of those that are fixed."""
    comparison = report.comparison
    assert comparison is not None
    kinds = (comparison.new_failures, comparison.still_failing, comparison.fixed)
    return tuple("".join(name for _, name in kind.named) for kind in kinds)  # type: ignore[return-value]


def test_what_is_new_what_is_known_and_what_is_fixed() -> None:
    report, judgement = Task(Gates(allowed_failures=("e",))).runs("aBCdE", "ABcDE")
    assert changed(report) == ("ad", "b", "c")
    found = to_xcom(report, judgement)
    assert found["new_failures"] == [{"name": "a", "suite": "s"}, {"name": "d", "suite": "s"}]
    assert found["baseline"] == {
        "run_id": "r-0",
        "verdict": "failed",
        "finished_at": "2026-11-25T03:00:00+00:00",
        "url": "https://studio.example.com/r-0",
        "complete": True,
    }
    event = to_event(report, judgement)
    assert {**found, **event} == {**found, "state": "finished"}
    assert (event["new_failures"], event["still_failing_left_out"]) == (found["new_failures"], 0)
    said = table(report, judgement).splitlines()
    assert "  baseline       run r-0, failed, 2026-11-25 03:00 UTC" in said
    assert "  new failures   2: s / a, s / d" in said


def test_several_cases_of_one_name_are_known_as_often_as_they_failed() -> None:
    report, _ = Task().runs("AAb", "AAAb")
    assert changed(report) == ("a", "aa", "")
    report, _ = Task().runs("AAb", "aAb")
    assert changed(report) == ("", "a", "a")


def test_a_failure_that_was_allowed_is_new_when_it_is_not_any_more() -> None:
    task = Task(Gates(allowed_failures=("a",), max_new_failures=0))
    assert task.run(ran(0, "Ab"))[1].verdict is Verdict.PASSED
    task.gates = Gates(max_new_failures=0)
    report, judgement = task.run(ran(1, "Ab"))
    assert changed(report) == ("a", "", "")
    assert judgement.verdict is Verdict.FAILED


def test_the_last_run_that_passed() -> None:
    task = Task(compare_with=CompareWith.LAST_PASSED)
    report, judgement = task.run(ran(0, "Ab"))
    assert report.comparison is not None
    assert report.comparison.baseline is None
    assert judgement.notes == ("No baseline: there is no earlier run of this task.",)
    report, judgement = task.run(ran(1, "AB"))
    assert judgement.notes == ("No baseline: no earlier run passed, as far as is known.",)
    task.run(ran(2, "ab"))
    task.run(ran(3, "Ab"))
    report, judgement = task.run(ran(4, "Ab"))
    assert report.comparison is not None
    assert report.comparison.baseline is not None
    assert report.comparison.baseline.run_id == "r-2"
    assert changed(report) == ("a", "", "")


@pytest.mark.parametrize("compare_with", CompareWith)
def test_a_retry_is_not_compared_with_its_own_first_try(compare_with: CompareWith) -> None:
    task = Task(Gates(max_new_failures=1), compare_with)
    task.run(ran(0, "abc"), dag_run="monday")
    for number in (1, 2, 3):
        report, judgement = task.run(ran(number, "ABc"), dag_run="tuesday")
        assert changed(report) == ("ab", "", "")
        assert judgement.reasons == ("2 new failures of 3 test cases: max_new_failures is 1.",)
    # Nor a run with itself, which two DAG runs may watch.
    report, _ = task.run(ran(3, "ABc"), dag_run="wednesday")
    assert changed(report) == ("ab", "", "")
    report, judgement = task.run(ran(4, "ABc"), dag_run="thursday")
    expected = ("", "ab", "") if compare_with is CompareWith.PREVIOUS else ("ab", "", "")
    assert changed(report) == expected


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(TESTED, platform="eggplant"), "platform"),
        (replace(TESTED, kind="generation"), "kind"),
        (replace(TESTED, name="EU"), "map_index_template"),
        (replace(TESTED, arguments={"group": "0b"}), "group"),
        (replace(TESTED, arguments={"group": "0a", "scenario_ids": "1"}), "scenario_ids"),
        (replace(TESTED, shown={"project_id": "p-2"}), "project_id"),
    ],
)
def test_a_run_of_something_else_is_no_baseline(other: Selection, said: str) -> None:
    task = Task(Gates(max_new_failures=0))
    task.run(ran(0, "Aa"), tested=other)
    report, judgement = task.run(ran(1, "Aa"))
    assert report.comparison is not None
    assert report.comparison.baseline is None
    assert judgement.notes == (f"No baseline: the last run (r-0) tested something else ({said} differs).",)
    assert judgement.reasons == (
        "1 new failure (all count as new without a baseline) of 2 test cases: max_new_failures is 0.",
    )
    assert task.run(ran(2, "Aa"))[1].verdict is Verdict.PASSED


def test_what_the_platform_does_not_show_each_time_makes_no_difference() -> None:
    assert not replace(TESTED, shown={}).differs(TESTED)
    assert not TESTED.differs(replace(TESTED, shown={"project_id": "p-1", "group": "g"}))


def test_a_run_that_ended_later_is_no_baseline_and_the_next_run_has_one_again() -> None:
    task = Task()
    task.run(ran(7, "a"))
    report, judgement = task.run(ran(1, "A"))
    assert judgement.notes == ("No baseline: run r-7 ended at 2026-12-02 03:00:00+00:00, after this one.",)
    report, judgement = task.run(ran(2, "A"))
    assert changed(report) == ("", "a", "")


# The gates


def unlisted(report: RunReport, failed: int) -> RunReport:
    """The same with more failures that the platform only counts."""
    counts = report.counts
    assert counts is not None
    return replace(report, counts=Counts(counts.passed, counts.failed + failed))


@pytest.mark.parametrize(
    ("before", "now", "new", "why"),
    [
        (ran(0, "ABc"), ran(1, "ABc"), 0, ""),
        (ran(0, "Abc"), ran(1, "ABC"), 2, ""),
        (ran(0, "ABc"), unlisted(ran(1, "ABc"), 3), 3, ""),
        (unlisted(ran(0, "ABc"), 1), ran(1, "ABc"), 2, "the baseline does not name all of its failures"),
        (ran(0, "ABc", ending=Verdict.ERRORED), ran(1, "ABc"), 2, "the baseline does not name all of its failures"),
        (ran(0, "ABc", ending=Verdict.CANCELLED), ran(1, "ABc"), 2, "the baseline does not name all of its failures"),
    ],
    ids=["all known", "new ones", "unlisted now", "unlisted before", "errored before", "cancelled before"],
)
def test_max_new_failures(before: RunReport, now: RunReport, new: int, why: str) -> None:
    for most in (0, new - 1, new):
        task = Task(Gates(max_new_failures=max(0, most)))
        task.run(before)
        judgement = task.run(now)[1]
        assert (judgement.verdict is Verdict.PASSED) is (new <= max(0, most))
        if judgement.reasons:
            (reason,) = judgement.reasons
            assert reason.startswith(f"{new} new failure")
            assert why in reason


def test_a_baseline_with_more_names_than_there_is_room_for_knows_none() -> None:
    names = [f"case {number} with a name of some length" for number in range(3_000)]
    cases = tuple(CaseResult(name, Outcome.FAILED) for name in names)
    task = Task(Gates(max_new_failures=2_999))
    task.run(replace(ran(0, "A"), cases=cases, counts=None))
    assert len(json.dumps(task.stored)) < 80_000
    report, judgement = task.run(replace(ran(1, "A"), cases=cases, counts=None))
    comparison = report.comparison
    assert comparison is not None
    assert comparison.baseline is not None
    assert not comparison.baseline.complete
    assert 1_000 < comparison.still_failing.total < 2_000
    assert judgement.verdict is Verdict.FAILED
    found = to_xcom(report, judgement)
    assert len(found["still_failing"]) == 50
    assert found["still_failing_left_out"] == comparison.still_failing.total - 50


@pytest.mark.parametrize(
    ("gates", "report"),
    [
        ({"max_failures": 0}, ran(1, "Ab")),
        ({"min_pass_rate": 0.9}, ran(1, "Ab")),
        ({"eval_thresholds": {"tone": 0.9}}, ran(1, "Ab", metrics={"tone": 0.5})),
        ({"max_metric_drop": {"tone": 0.1}}, ran(1, "Ab", metrics={"tone": 0.5})),
        ({"fail_on_rerun": True}, replace(ran(1, "Ab"), cases=(CaseResult("b", Outcome.PASSED, tries=2),))),
        ({}, ran(1, "Ab", ending=Verdict.ERRORED)),
        ({}, ran(1, "")),
    ],
    ids=["max_failures", "min_pass_rate", "eval_thresholds", "max_metric_drop", "fail_on_rerun", "errored", "no tests"],
)
def test_no_new_failure_passes_no_run_that_another_gate_fails(gates: dict[str, Any], report: RunReport) -> None:
    task = Task(Gates(max_new_failures=0, **gates))
    task.run(ran(0, "Ab", metrics={"tone": 0.95}))
    assert task.run(report)[1].verdict is not Verdict.PASSED


def test_without_counts_the_gate_is_not_met() -> None:
    judgement = Task(Gates(max_new_failures=0)).run(ran(0, "", ending=Verdict.PASSED))[1]
    assert judgement.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (0.9, 0.85, None),
        (0.9, 0.95, None),
        (0.9, 0.84, "Evaluation 'tone' dropped by 0.06, from 0.9 to 0.84: max_metric_drop is 0.05."),
    ],
)
def test_max_metric_drop(before: float, now: float, reason: str | None) -> None:
    task = Task(Gates(max_metric_drop={"tone": 0.05}))
    _, judgement = task.run(ran(0, "a", metrics={"tone": before}))
    assert judgement.notes[-1] == "max_metric_drop is not checked for 'tone': the baseline has no such metric."
    report, judgement = task.run(ran(1, "a", metrics={"tone": now}))
    assert judgement.reasons == ((reason,) if reason else ())
    assert to_xcom(report, judgement)["metrics_change"] == {"tone": round(now - before, 6)}
    assert f"({now - before:+.3g})" in table(report, judgement)


def test_a_run_that_broke_does_not_hide_a_drop() -> None:
    task = Task(Gates(max_metric_drop={"tone": 0.05}))
    task.run(ran(0, "a", metrics={"tone": 0.9}))
    task.run(ran(1, "", ending=Verdict.ERRORED))
    _, judgement = task.run(ran(2, "a", metrics={"tone": 0.5}))
    assert judgement.verdict is Verdict.FAILED
    assert "Metrics are compared with those of run r-0, as the baseline has none." in judgement.notes[0]


def test_a_choice_that_was_never_made_and_evaluations_that_are_not_there() -> None:
    task = Task(Gates(max_metric_drop={"mood=Great": 0.1}))
    task.run(ran(0, "a", metrics={"mood=Great": 0.8, "mood=Poor": 0.2}))
    assert task.run(ran(1, "a", metrics={"mood=Poor": 1.0}))[1].verdict is Verdict.FAILED
    with pytest.raises(
        ConfigurationError, match=r"^max_metric_drop names 'mood=Great', of which the report of run r-2"
    ):
        task.run(ran(2, "a"))
    with pytest.raises(ApiError, match="no metrics"):
        task.run(ran(2, "a", metrics_error=ApiError("no metrics")))


# Flaky cases


@pytest.mark.parametrize(
    ("runs", "flaky"),
    [
        (("a", "A", "a"), "PFP"),
        (("A", "a", "A"), "FPF"),
        (("A", "A", "a", "a"), None),
        (("a", "A"), None),
        # A case that is new and fails at first has changed once.
        (("", "A", "a"), None),
        (("a", "", "A", "", "a"), "PFP"),
        (("a", "A", *"a" * 8), "PFPPPPPPPP"),
        (("a", "A", *"a" * 9), None),
    ],
)
def test_a_case_that_changed_twice_in_its_last_ten_runs_is_flaky(runs: Iterable[str], flaky: str | None) -> None:
    report, judgement = Task().runs(*(f"{each}z" for each in runs))
    assert report.unstable == ({("s", "a"): flaky} if flaky else {})
    found = to_xcom(report, judgement)
    assert found.get("flaky") == ([{"name": "a", "suite": "s"}] if flaky else None)
    assert ("Flaky, by the last runs: s/a." in judgement.notes) is bool(flaky)
    assert ("  flaky          1: s / a" in table(report, judgement)) is bool(flaky)


def test_a_run_that_broke_changes_no_outcome() -> None:
    task = Task()
    task.run(ran(0, "ab"))
    task.run(ran(1, "Ab", ending=Verdict.CANCELLED))
    report, _ = task.run(ran(2, "ab"))
    assert not report.unstable


def test_a_case_that_passed_at_a_later_try_is_flaky_without_any_baseline() -> None:
    report = replace(ran(0, "a"), cases=(CaseResult("a", Outcome.PASSED, tries=2),))
    assert to_xcom(report, judge(report))["flaky"] == [{"name": "a", "suite": ""}]


# What is remembered


def history() -> History:
    """One with all there is."""
    task = Task(Gates(allowed_failures=("d",)))
    task.runs("abcD", "aBcD", "ABcD", "abcD")
    task.run(ran(4, "AbcD", metrics={"tone": 0.5}))
    return from_json(task.stored)


def test_it_survives_being_stored() -> None:
    found = history()
    stored = json.loads(json.dumps(to_json(found)))
    assert from_json(stored) == found
    assert found.passed is not None
    assert (found.last.run_id, found.passed.run_id, found.last.allowed) == ("r-4", "r-3", {("s", "d"): 1})
    # Runs are stored once, whatever they are.
    assert [run["run_id"] for run in stored["runs"]] == ["r-4", "r-3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"form": 2},
        {"runs": []},
        {"runs": [{}]},
        {"runs": {"r-1": None}},
        {"last": None},
        {"last": True},
        {"last": -1},
        {"tested": None},
        {"outcomes": {"s": {"a": "PX"}}},
        {"outcomes": {"s": ["a"]}},
        {"passing": ["?"]},
        {"passing": "abcd"},
    ],
    ids=str,
)
def test_what_is_no_history_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json({**to_json(history()), **changes})


def test_what_is_read_of_a_run_is_clean() -> None:
    data = to_json(history())
    forged = "r-1\n[2025-01-01] ERROR forged \x1b[31m"
    data["runs"] = [{**run, "run_id": forged, "url": forged, "dag_run": forged} for run in data["runs"]]
    last = from_json(data).last
    assert {last.run_id, last.url, last.dag_run} == {clean(forged)}
    assert "\n" not in clean(forged)
    assert "\x1b" not in clean(forged)


@pytest.mark.parametrize("data", [None, 7, "{}", [], {}, {"form": 1}])
def test_what_is_nothing_of_ours_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verdict", "fine"),
        ("finished_at", "yesterday"),
        ("finished_at", 7),
        ("failed", ["a"]),
        ("failed", {"s": "abc"}),
        ("left_out", -1),
        ("left_out", True),
        ("metrics", {"tone": "high"}),
        ("metrics", {"tone": 10**400}),
        ("url", None),
    ],
)
def test_what_is_no_run_is_refused(field: str, value: Any) -> None:
    stored = to_json(history())
    stored["runs"][0][field] = value
    with pytest.raises(ValueError, match=r"."):
        from_json(stored)


def test_everything_has_its_bounds() -> None:
    suite = "ü" * 400
    report = ran(0, "a", metrics={f"metric {number} {'x' * 400}": 0.5 for number in range(500)})
    report = replace(
        report,
        cases=tuple(
            CaseResult(
                f"{number} {'ß' * 450}", Outcome.FAILED if number % 2 else Outcome.PASSED, suite=f"{suite}{number}"
            )
            for number in range(2_000)
        ),
        counts=None,
    )
    turned = replace(
        report,
        run=replace(report.run, run_id="r-1", platform_verdict=Verdict.FAILED),
        cases=tuple(
            replace(case, outcome=Outcome.PASSED if case.outcome is Outcome.FAILED else Outcome.FAILED)
            for case in report.cases
        ),
    )
    task = Task()
    for each in (report, turned, report, turned):
        task.run(each)
    assert len(json.dumps(task.stored, ensure_ascii=False).encode()) < 150_000
    assert task.stored["outcomes_left_out"] > 0


@pytest.mark.perf
def test_a_hundred_thousand_cases_are_compared_in_little_memory() -> None:
    def large(number: int, step: int) -> RunReport:
        cases = tuple(
            CaseResult(f"test case {at}", Outcome.PASSED if at % step else Outcome.FAILED, suite=f"suite {at % 40}")
            for at in range(100_000)
        )
        return replace(ran(number, "A"), cases=cases, counts=None)

    gates = Gates(max_new_failures=0)
    before, now = large(0, 2), large(1, 3)
    stored = to_json(remember(before, Verdict.FAILED, gates, None, TESTED))
    gc.collect()
    tracemalloc.start()
    try:
        known = from_json(stored)
        report = compare(now, gates, CompareWith.PREVIOUS, known, TESTED)
        to_json(remember(report, judge(report, gates).verdict, gates, known, TESTED))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.comparison is not None
    assert report.comparison.new_failures.total + report.comparison.still_failing.total == 33_334
    assert peak < 50_000_000


# The arguments


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(OmiliaCreateRunOperator, project_id="p", compare_with="last"), r"^compare_with must be 'previous' or"),
        (
            partial(OmiliaRunSensor, run_id="r", max_new_failures=0),
            r"^max_new_failures needs an earlier run",
        ),
        (
            partial(OmiliaRunSensor, run_id="r", compare_with="previous", max_new_failures=-1),
            r"^max_new_failures must be a whole number",
        ),
        (
            partial(FutureAGITestExecutionSensor, execution_id="e", max_metric_drop={"tone": 0.1}),
            r"^max_metric_drop needs an earlier run",
        ),
        (
            partial(EggplantRunProgressSensor, model_name="Checkout", compare_with="previous"),
            r"^compare_with is only for run_id",
        ),
    ],
)
def test_arguments_that_cannot_be_right_are_refused_where_the_dag_is_written(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make(task_id="t")


@pytest.mark.parametrize("version", ["3.0.6", "3.1.0rc1", "3.1.8"])
def test_it_needs_an_airflow_whose_tasks_can_read_earlier_xcoms(version: str, mocker: MockerFixture) -> None:
    mocker.patch("airflow.__version__", version)
    make = partial(OmiliaCreateRunOperator, task_id="t", project_id="p")
    make()
    if version.startswith("3.0"):
        with pytest.raises(ConfigurationError, match=r"^compare_with needs Airflow 3\.1 or later, .*this is 3\.0\.6"):
            make(compare_with="previous")
    else:
        make(compare_with="previous")


def test_the_evaluations_of_both_gates_are_asked_for_before_a_start() -> None:
    task = FutureAGIExecuteTestRunOperator(
        task_id="t",
        run_test_id="fa000000-0000-4000-8000-000000000001",
        select_all=True,
        eval_thresholds={"tone": "0.8"},  # type: ignore[dict-item]
        compare_with="previous",
        max_metric_drop={"depth": 0.05},
    )
    assert task.start_arguments()["evaluations"] == ["depth", "tone"]
    assert (task.gates().eval_thresholds, task.gates().max_metric_drop) == ({"tone": 0.8}, {"depth": 0.05})
