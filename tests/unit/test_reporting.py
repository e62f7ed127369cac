"""The report for XCom and for people: complete where it matters, and small whatever the run's size."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.exceptions import (
    RunCancelledError,
    RunEndedError,
    RunErroredError,
    RunFailedError,
)
from airflow_provider_testruns.judging import Gates, Judgement, judge
from airflow_provider_testruns.model import CaseResult, Counts, Metric, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.reporting.digest import MAX_NAMED, text
from airflow_provider_testruns.reporting.text import table, verdict_error
from airflow_provider_testruns.reporting.xcom import MAX_FAILURES, MAX_MESSAGE, shorten, to_xcom
from tests.unit.strategies import texts

pytestmark = pytest.mark.unit

_RUN = Run(
    "omilia",
    "r-1",
    RunState.FINISHED,
    "FAILURE",
    platform_verdict=Verdict.FAILED,
    started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    finished_at=datetime(2026, 1, 2, 3, 5, 35, 500_000, tzinfo=UTC),
    url="https://studio.example.com/r-1",
)
_CASES = (
    CaseResult("greets", Outcome.PASSED, 1.5, suite="smoke"),
    CaseResult("pays", Outcome.FAILED, 2.5, "step 3: expected 'yes',\n   found 'no'", "smoke"),
    CaseResult("waits", Outcome.UNAVAILABLE, message="no line"),
    CaseResult("later", Outcome.NOT_RUN),
)
_REPORT = RunReport(_RUN, Counts.of(_CASES), _CASES, {"tone": Metric(0.8512, 4), "depth": Metric(None)})


def _many(failed: int, *, message: str = "m", name: str = "case") -> RunReport:
    cases = tuple(CaseResult(f"{name}-{at}", Outcome.FAILED, message=message) for at in range(failed))
    return RunReport(_RUN, Counts.of(cases), cases)


def _xcom(report: RunReport) -> dict:
    return to_xcom(report, judge(report))


def digest(report: RunReport, judgement: Judgement, junit_path: str | None = None) -> str:
    return text(to_xcom(report, judgement, junit_path))


# XCom


def test_the_report_in_xcom():
    assert _xcom(_REPORT) == {
        "platform": "omilia",
        "run_id": "r-1",
        "verdict": "failed",
        "reasons": ["1 failed and 1 unavailable of 4 test cases."],
        "raw_state": "FAILURE",
        "url": "https://studio.example.com/r-1",
        "started_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:35.500000+00:00",
        "duration": 90.5,
        "total": 4,
        "passed": 1,
        "failed": 1,
        "unavailable": 1,
        "not_run": 1,
        "pass_rate": 0.333333,
        "failures": [
            {
                "name": "pays",
                "suite": "smoke",
                "message": "step 3: expected 'yes',\n   found 'no'",
                "outcome": "failed",
            },
            {"name": "waits", "suite": "", "message": "no line", "outcome": "unavailable"},
        ],
        "failures_left_out": 0,
        "allowed_failures": [],
        "allowed_failures_left_out": 0,
        "notes": [],
        "metrics": {"tone": 0.8512, "depth": None},
        "junit_path": None,
    }


def test_what_a_platform_does_not_say_is_none():
    found = _xcom(RunReport(Run("eggplant", "r", RunState.FINISHED, "passed", platform_verdict=Verdict.PASSED)))
    assert found["verdict"] == "passed"
    nothing = [
        "started_at",
        "finished_at",
        "duration",
        "total",
        "passed",
        "failed",
        "unavailable",
        "not_run",
        "pass_rate",
    ]
    assert {name: found[name] for name in nothing} == dict.fromkeys(nothing)
    assert (found["failures"], found["failures_left_out"], found["metrics"]) == ([], 0, {})


@pytest.mark.parametrize("verdict", Verdict)
def test_verdicts_are_lower_case(verdict):
    assert to_xcom(_REPORT, Judgement(verdict))["verdict"] == verdict.name.lower()


@pytest.mark.parametrize(("failed", "left_out"), [(50, 0), (51, 1), (5000, 4950)])
def test_at_most_50_failures_go_to_xcom_and_the_others_are_counted(failed, left_out):
    found = _xcom(_many(failed))
    assert len(found["failures"]) == min(failed, 50) == min(failed, MAX_FAILURES)
    assert found["failures_left_out"] == left_out


def test_failures_without_cases_are_counted_as_left_out():
    assert _xcom(RunReport(_RUN, Counts(passed=1, failed=3, unavailable=2)))["failures_left_out"] == 5


def test_more_cases_than_counts_are_left_out_too():
    cases = _many(60).cases
    for counts in (None, Counts(failed=10)):
        assert to_xcom(RunReport(_RUN, counts, cases), Judgement(Verdict.FAILED))["failures_left_out"] == 10


def test_texts_are_cut():
    report = RunReport(_RUN, None, (CaseResult("n" * 9999, Outcome.FAILED, message="m" * 9999, suite="s" * 9999),))
    found = to_xcom(report, Judgement(Verdict.ERRORED, ("r" * 9999,)))
    given = found["failures"][0]
    for said in (given["name"], given["suite"], given["message"], *found["reasons"]):
        assert len(said) == MAX_MESSAGE
        assert " …" in said[-20:] or " […]~" in said[-20:]


def test_xcom_stays_small_whatever_the_runs_size():
    assert len(json.dumps(_xcom(_many(2000, message="m" * 10_000, name="n" * 1000)))) < 120_000


@given(texts, st.integers(2, 40))
def test_shortening(said, most):
    found = shorten(said, most)
    assert len(found) <= most
    cleaned = clean(said, None)
    assert found == cleaned if len(cleaned) <= most else found.endswith("…")


@given(
    st.lists(
        st.builds(CaseResult, texts, st.sampled_from(Outcome), st.none() | st.floats(0, 1e6), texts, texts), max_size=70
    )
)
def test_any_report_is_plain_json_and_counts_every_failure(cases):
    report = RunReport(_RUN, Counts.of(tuple(cases)), tuple(cases))
    found = _xcom(report)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["failures"]) + found["failures_left_out"] == len(report.failures)
    assert table(report, judge(report))
    assert digest(report, judge(report))


# The log


def test_the_table():
    assert table(_REPORT, judge(_REPORT)) == "\n".join(
        [
            "Result of run r-1:",
            "  verdict      failed",
            "  state        FAILURE",
            "  passed       1",
            "  failed       1",
            "  unavailable  1",
            "  not run      1",
            "  total        4",
            "  pass rate    33.3%",
            "  duration     90.5 s",
            "  depth        nothing scored",
            "  tone         0.851",
        ]
    )


def test_failed_cases_are_told_once_in_the_table_or_in_the_message():
    failing, forgiving = (judge(_REPORT, Gates(min_pass_rate=rate)) for rate in (1.0, 0.1))
    named = "failed: smoke / pays"
    assert (named in table(_REPORT, failing), named in digest(_REPORT, failing)) == (False, True)
    # A pass has no message.
    assert named in table(_REPORT, forgiving)


def test_the_table_of_a_pass_is_short():
    run = Run("eggplant", "r-2", RunState.FINISHED, "passed", platform_verdict=Verdict.PASSED)
    report = RunReport(run, Counts(passed=3))
    assert table(report, judge(report)) == "\n".join(
        [
            "Result of run r-2:",
            "  verdict    passed",
            "  state      passed",
            "  passed     3",
            "  total      3",
            "  pass rate  100.0%",
        ]
    )


# The message of a failing task


def test_the_digest_says_what_why_and_where():
    assert digest(_REPORT, judge(_REPORT)) == "\n".join(
        [
            "Run r-1 failed. 1 failed and 1 unavailable of 4 test cases.",
            "1 of 4 passed, 1 failed, 1 unavailable, 1 not run; pass rate 33.3%.",
            "  failed: smoke / pays: step 3: expected 'yes', found 'no'",
            "  unavailable: waits: no line",
            "The run: https://studio.example.com/r-1",
        ]
    )


@pytest.mark.parametrize(("failed", "more"), [(10, None), (11, "  … and 1 more"), (5000, "  … and 4990 more")])
def test_at_most_ten_failures_are_named(failed, more):
    report = _many(failed)
    lines = digest(report, judge(report)).splitlines()
    named = [line for line in lines if line.startswith("  failed: ")]
    assert len(named) == 10 == MAX_NAMED
    assert [line for line in lines if "more" in line] == ([more] if more else [])


def test_failures_that_only_the_counts_know_are_counted():
    report = RunReport(_RUN, Counts(failed=7), _many(3).cases)
    assert "  … and 4 more" in digest(report, judge(report))
    assert "more" not in digest(RunReport(_RUN, Counts(failed=7)), Judgement(Verdict.FAILED))


def test_a_digest_is_no_dump():
    report = _many(500, message="line\n" * 500)
    said = digest(report, Judgement(Verdict.FAILED, ("r" * 9999,)))
    assert len(said) < 3500
    assert all(len(line) <= 200 for line in said.splitlines()[2:12])
    assert len(said.splitlines()) == 14


@pytest.mark.parametrize(
    ("verdict", "kind", "says"),
    [
        (Verdict.FAILED, RunFailedError, "Run r-1 failed. Because."),
        (Verdict.ERRORED, RunErroredError, "Run r-1 could not be run by the platform. Because."),
        (Verdict.CANCELLED, RunCancelledError, "Run r-1 was cancelled. Because."),
    ],
)
def test_every_verdict_but_a_pass_is_an_exception_of_its_own(verdict, kind, says):
    error = verdict_error(RunReport(_RUN), Judgement(verdict, ("Because.",)))
    assert type(error) is kind
    assert isinstance(error, RunEndedError)
    assert str(error).startswith(says)


def test_a_pass_is_no_exception():
    assert verdict_error(_REPORT, Judgement(Verdict.PASSED)) is None
