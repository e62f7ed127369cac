"""The vocabulary: runs survive being stored, and every way in which a run can end is judged for what it is."""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns import judging, lifecycle, limits, model
from airflow_provider_testruns.exceptions import ConfigurationError, ServerError
from airflow_provider_testruns.judging import Gates, Judgement, judge
from airflow_provider_testruns.model import (
    CaseResult,
    Counts,
    Kind,
    Metric,
    Outcome,
    Progress,
    Run,
    RunReport,
    RunState,
    Verdict,
    utc,
)
from tests.unit.strategies import counts, runs

pytestmark = pytest.mark.unit


def _run(ending: Verdict | None = None, **changes) -> Run:
    return Run("omilia", "r-1", RunState.FINISHED, changes.pop("raw_state", "DONE"), platform_verdict=ending, **changes)


def _judged(ending: Verdict | None, tally: Counts | None, gates: Gates | None = None, **more) -> Judgement:
    metrics = more.pop("metrics", {})
    return judge(RunReport(_run(ending, **more), tally, metrics=metrics), gates)


_SMALL = Run("omilia", "r-1", RunState.QUEUED, "PENDING")
_WHOLE = Run(
    "futureagi",
    "r-2",
    RunState.FINISHED,
    "completed",
    kind=Kind.TEST_CONFIGURATION,
    platform_verdict=Verdict.PASSED,
    started_at=datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC),
    finished_at=datetime(2026, 1, 2, 3, 5, tzinfo=UTC),
    progress=Progress(3),
    url="https://example.com/r-2",
    ids={"run_test_id": "t"},
    started_with={"group": "g", "tags": ["a"]},
    message="m",
    known_state=False,
    parts=(_SMALL,),
    start_unreadable=True,
    stalled=True,
    start_error="e",
    stopped_early="f",
)


@given(runs)
def test_a_run_survives_being_stored_as_json(run):
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_what_has_its_default_takes_no_room():
    assert _SMALL.to_dict() == {
        "platform": "omilia",
        "run_id": "r-1",
        "state": "queued",
        "raw_state": "PENDING",
    }


def test_every_field_is_stored_when_it_has_a_value():
    stored = _WHOLE.to_dict()
    # Under the names that Airflow's database has them by, from before the fields got theirs.
    names = {"ids": "context", "platform_verdict": "ending"}
    assert set(stored) == {names.get(field.name, field.name) for field in dataclasses.fields(Run)} - {"source"}
    assert stored["progress"] == [3, None]
    assert stored["started_at"] == "2026-01-02T03:04:05.000600+00:00"


def test_fields_of_a_later_version_are_passed_over():
    assert Run.from_dict({**_WHOLE.to_dict(), "colour": "red"}) == _WHOLE


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "asleep"},
        {"kind": "walk"},
        {"ending": "splendid"},
        {"started_at": "yesterday"},
        {"started_at": 5},
        {"progress": [1, 2, 3]},
        {"progress": 5},
    ],
)
def test_what_is_not_a_run_is_refused(damage):
    with pytest.raises((KeyError, ValueError, TypeError)):
        Run.from_dict({**_WHOLE.to_dict(), **damage})


@pytest.mark.parametrize("missing", ["platform", "run_id", "state", "raw_state"])
def test_a_run_without_what_every_run_has_is_refused(missing):
    stored = _WHOLE.to_dict()
    del stored[missing]
    with pytest.raises((KeyError, TypeError)):
        Run.from_dict(stored)


def test_only_finished_is_final():
    assert [state for state in RunState if Run("omilia", "r", state, "").final] == [RunState.FINISHED]


def test_progress_reads_as_people_write_it():
    assert str(Progress(3, 7)) == "3/7"
    assert str(Progress(3)) == "3"
    assert str(Progress(0, 0)) == "0/0"


def test_times_are_utc():
    naive = datetime(2026, 1, 1, 12)
    assert utc(naive) == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert utc(datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))) == datetime(2026, 1, 1, 10, tzinfo=UTC)


# Counts


@given(st.lists(st.sampled_from(Outcome), max_size=40))
def test_counts_of_cases_count_every_case_once(outcomes):
    tally = Counts.of(tuple(CaseResult(f"c{at}", outcome) for at, outcome in enumerate(outcomes)))
    assert tally.total == len(outcomes)
    assert tally.executed == sum(outcome is not Outcome.NOT_RUN for outcome in outcomes)
    assert tally.passed == outcomes.count(Outcome.PASSED)
    assert tally.failed == outcomes.count(Outcome.FAILED)
    assert tally.unavailable == outcomes.count(Outcome.UNAVAILABLE)


@given(counts)
def test_the_pass_rate_is_of_the_cases_that_were_tried(tally):
    rate = RunReport(_run(), tally).pass_rate
    if tally.passed + tally.failed + tally.unavailable == 0:
        assert rate is None
    else:
        assert rate == tally.passed / (tally.total - tally.not_run)
        assert 0 <= rate <= 1


def test_without_counts_there_is_no_pass_rate():
    assert RunReport(_run()).pass_rate is None


def test_duration_is_by_the_platforms_clock():
    began = datetime(2026, 1, 1, tzinfo=UTC)
    later = began + timedelta(seconds=90)
    assert RunReport(_run(started_at=began, finished_at=later)).duration == 90.0
    assert RunReport(_run(started_at=later, finished_at=began)).duration == 0.0
    assert RunReport(_run(started_at=began)).duration is None
    assert RunReport(_run(finished_at=later)).duration is None


def test_failures_are_what_was_tried_and_did_not_pass_failed_ones_first():
    cases = tuple(
        CaseResult(name, outcome)
        for name, outcome in [
            ("a", Outcome.UNAVAILABLE),
            ("b", Outcome.PASSED),
            ("c", Outcome.FAILED),
            ("d", Outcome.NOT_RUN),
            ("e", Outcome.UNAVAILABLE),
            ("f", Outcome.FAILED),
        ]
    )
    assert [case.name for case in RunReport(_run(), Counts.of(cases), cases).failures] == ["c", "f", "a", "e"]


# Judging


def test_a_run_that_is_not_final_is_not_judged():
    for state in (RunState.QUEUED, RunState.RUNNING):
        with pytest.raises(ValueError, match=r"Run r-1 is not final \(STARTED\)"):
            judge(RunReport(Run("omilia", "r-1", state, "STARTED"), Counts(passed=1)))


def test_operators_and_sensors_judge_with_the_same_function():
    assert lifecycle.judge is judging.judge


@pytest.mark.parametrize("tally", [None, Counts(), Counts(passed=3), Counts(failed=3)])
def test_a_cancelled_run_is_cancelled_whatever_it_counted(tally):
    found = _judged(Verdict.CANCELLED, tally, Gates(fail_on_no_tests=False))
    assert found == Judgement(Verdict.CANCELLED, ("The run was cancelled.",))


@pytest.mark.parametrize("tally", [None, Counts(), Counts(passed=3), Counts(failed=3)])
def test_what_the_platform_could_not_run_is_errored_whatever_it_counted(tally):
    assert _judged(Verdict.ERRORED, tally, message="no agent").reasons == ("no agent",)
    found = _judged(Verdict.ERRORED, tally, raw_state="error")
    assert found == Judgement(Verdict.ERRORED, ("The platform could not run it (error).",))


@pytest.mark.parametrize("tally", [None, Counts(), Counts(passed=3), Counts(not_run=3), Counts(passed=1, not_run=1)])
def test_failed_without_a_test_that_failed_is_a_run_that_broke(tally):
    found = _judged(Verdict.FAILED, tally, raw_state="FAILURE")
    assert found.verdict is Verdict.ERRORED
    assert found.reasons == ("The run ended as FAILURE without a test that failed: the run itself broke.",)
    assert _judged(Verdict.FAILED, tally, message="clone failed").reasons == ("clone failed",)


def test_failed_through_an_evaluation_is_failed():
    found = _judged(
        Verdict.FAILED, Counts(passed=3), Gates(eval_thresholds={"tone": 0.9}), metrics={"tone": Metric(0.5, 3)}
    )
    assert found == Judgement(Verdict.FAILED, ("Evaluation 'tone' is 0.5, below its gate 0.9 by 0.4.",))


@pytest.mark.parametrize(
    ("tally", "reason"),
    [
        (Counts(passed=3, failed=2), "2 failed of 5 test cases."),
        (Counts(passed=3, unavailable=1, not_run=1), "1 unavailable of 5 test cases."),
        (Counts(failed=1, unavailable=2), "1 failed and 2 unavailable of 3 test cases."),
    ],
)
@pytest.mark.parametrize("ending", [Verdict.PASSED, Verdict.FAILED, None])
def test_a_case_that_did_not_pass_fails_the_run_whatever_the_platform_calls_it(ending, tally, reason):
    assert _judged(ending, tally) == Judgement(Verdict.FAILED, (reason,))


@pytest.mark.parametrize("ending", [Verdict.PASSED, None])
@pytest.mark.parametrize("tally", [Counts(passed=1), Counts(passed=2, not_run=5)])
def test_all_that_was_tried_passed(ending, tally):
    assert _judged(ending, tally) == Judgement(Verdict.PASSED)


def test_without_counts_the_platforms_word_decides():
    assert _judged(Verdict.PASSED, None) == Judgement(Verdict.PASSED)


def test_without_counts_and_without_a_word_nothing_has_passed():
    found = _judged(None, None, raw_state="over")
    assert found.verdict is Verdict.ERRORED
    assert found.reasons == (
        "The run has finished (over), and the platform reports neither its outcome nor what was tested.",
    )


@pytest.mark.parametrize("ending", [Verdict.PASSED, None])
@pytest.mark.parametrize(
    ("tally", "said"),
    [(Counts(), "No test case took part in the run."), (Counts(not_run=4), "None of the test cases ran.")],
)
def test_a_run_in_which_nothing_was_tested_fails_unless_that_is_wanted(ending, tally, said):
    found = _judged(ending, tally)
    assert found.verdict is Verdict.FAILED
    assert found.reasons == (f"{said} Check the filters and selections of the task, or set fail_on_no_tests=False.",)
    assert _judged(ending, tally, Gates(fail_on_no_tests=False)) == Judgement(Verdict.PASSED, (said,))


def test_no_tests_allowed_is_not_no_evaluations_allowed():
    gates = Gates(fail_on_no_tests=False, eval_thresholds={"tone": 0.5})
    found = _judged(Verdict.PASSED, Counts(), gates, metrics={"tone": Metric(None, 0)})
    assert found == Judgement(Verdict.FAILED, ("Evaluation 'tone' has no score; its gate is 0.5.",))


def test_a_generation_has_no_tests_and_passes():
    for tally in (None, Counts()):
        for gates in (None, Gates(min_pass_rate=0.9)):
            assert _judged(Verdict.PASSED, tally, gates, kind=Kind.GENERATION) == Judgement(Verdict.PASSED)


@pytest.mark.parametrize("kind", [Kind.RUN, Kind.TEST_CONFIGURATION])
def test_only_generations_may_have_no_tests(kind):
    assert _judged(Verdict.PASSED, Counts(), kind=kind).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("ending", "tally", "least", "verdict"),
    [
        (Verdict.PASSED, Counts(passed=19, failed=1), 0.95, Verdict.PASSED),
        (Verdict.FAILED, Counts(passed=19, failed=1), 0.95, Verdict.PASSED),
        (None, Counts(passed=19, failed=1), 0.95, Verdict.PASSED),
        (Verdict.PASSED, Counts(passed=18, failed=1, unavailable=1), 0.95, Verdict.FAILED),
        (Verdict.FAILED, Counts(passed=18, failed=1, unavailable=1), 0.95, Verdict.FAILED),
        (None, Counts(passed=18, failed=1, unavailable=1), 0.95, Verdict.FAILED),
        (Verdict.FAILED, Counts(passed=7, failed=3), 0.7, Verdict.PASSED),
        (Verdict.FAILED, Counts(passed=1, failed=2), 1 / 3, Verdict.PASSED),
        (Verdict.FAILED, Counts(passed=19, failed=1, not_run=80), 0.95, Verdict.PASSED),
        (Verdict.FAILED, Counts(failed=4), 0.0, Verdict.PASSED),
        (Verdict.PASSED, Counts(passed=4), 1, Verdict.PASSED),
        # What broke without a test that failed.
        (Verdict.FAILED, Counts(passed=4), 1, Verdict.ERRORED),
        (Verdict.FAILED, Counts(passed=399, failed=1), 1.0, Verdict.FAILED),
    ],
)
def test_min_pass_rate_replaces_all_passed(ending, tally, least, verdict):
    found = _judged(ending, tally, Gates(min_pass_rate=least))
    assert found.verdict is verdict
    assert bool(found.reasons) is (verdict is not Verdict.PASSED)


def test_a_missed_pass_rate_says_by_how_much():
    found = _judged(Verdict.FAILED, Counts(passed=3, failed=1), Gates(min_pass_rate=0.9))
    assert found.reasons == ("Pass rate 75.0% (3 of 4) is below min_pass_rate 90.0%.",)


def test_a_pass_rate_that_cannot_be_checked_is_not_met():
    found = _judged(Verdict.PASSED, None, Gates(min_pass_rate=0.1))
    assert found == Judgement(
        Verdict.FAILED, ("The platform gives no counts, so that min_pass_rate can't be checked.",)
    )


@pytest.mark.parametrize("least", [0.0, 0.5, 1.0])
def test_min_pass_rate_says_nothing_of_a_run_without_tests(least):
    assert _judged(Verdict.PASSED, Counts(not_run=2), Gates(min_pass_rate=least)).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (Metric(0.85, 4), None),
        (Metric(0.851), None),
        (Metric(0.8, 4), "Evaluation 'tone' is 0.8, below its gate 0.85 by 0.05."),
        (Metric(None, 4), "Evaluation 'tone' has no score; its gate is 0.85."),
        (Metric(0.0, 0), "Evaluation 'tone' has no score; its gate is 0.85."),
        (Metric(0.99, 0), "Evaluation 'tone' has no score; its gate is 0.85."),
    ],
)
def test_evaluation_gates(metric, reason):
    metrics = {"other": Metric(0.1, 4), "tone": metric}
    found = _judged(Verdict.PASSED, Counts(passed=4), Gates(eval_thresholds={"tone": 0.85}), metrics=metrics)
    assert found == (Judgement(Verdict.FAILED, (reason,)) if reason else Judgement(Verdict.PASSED))


def test_all_missed_gates_are_named():
    gates = Gates(min_pass_rate=0.9, eval_thresholds={"tone": 0.9, "speed": 0.5, "depth": 1})
    metrics = {"tone": Metric(0.1, 3), "speed": Metric(0.6, 3), "depth": Metric(0.9)}
    found = _judged(Verdict.PASSED, Counts(passed=1, failed=1), gates, metrics=metrics)
    assert found.verdict is Verdict.FAILED
    assert [reason.split(" is ")[0] for reason in found.reasons] == [
        "Pass rate 50.0% (1 of 2)",
        "Evaluation 'tone'",
        "Evaluation 'depth'",
    ]


@pytest.mark.parametrize("metrics", [{}, {"speed": Metric(0.6), "other": Metric(None)}])
def test_a_gate_for_an_evaluation_that_is_not_there_is_a_mistake_in_the_task(metrics):
    gates = Gates(eval_thresholds={"speed": 0.5, "tone": 0.9})
    with pytest.raises(ConfigurationError, match=r"^eval_thresholds names .*'tone'") as caught:
        _judged(Verdict.PASSED, Counts(passed=1), gates, metrics=metrics)
    assert str(caught.value).endswith(f"It has: {'none' if not metrics else repr('other') + ', ' + repr('speed')}.")


def test_each_choice_of_an_evaluation_has_a_gate_of_its_own():
    metrics = {"tone=calm": Metric(0.75, 8), "tone=rude": Metric(0.25, 8)}

    def judged(**thresholds):
        named = {name.replace("_", "="): value for name, value in thresholds.items()}
        return _judged(Verdict.PASSED, Counts(passed=8), Gates(eval_thresholds=named), metrics=metrics)

    assert judged(tone_calm=0.7).verdict is Verdict.PASSED
    assert judged(tone_calm=0.8).reasons == ("Evaluation 'tone=calm' is 0.75, below its gate 0.8 by 0.05.",)
    # A choice that was never made.
    assert judged(tone_odd=0.0).verdict is Verdict.PASSED
    assert judged(tone_odd=0.1).verdict is Verdict.FAILED
    with pytest.raises(ConfigurationError, match="pace=fast"):
        judged(pace_fast=0.1)
    nothing = {"tone": Metric(None, 0)}
    found = _judged(Verdict.PASSED, Counts(passed=8), Gates(eval_thresholds={"tone=calm": 0.0}), metrics=nothing)
    assert found.reasons == ("Evaluation 'tone=calm' has no score; its gate is 0.",)


def test_evaluations_that_could_not_be_seen_are_an_error_only_where_the_verdict_depends_on_them():
    error = ServerError("The summary can't be had.")

    def judged(tally, gates):
        return judge(RunReport(_run(Verdict.PASSED), tally, metrics_error=error), gates)

    assert judged(Counts(passed=1), None) == Judgement(Verdict.PASSED)
    gates = Gates(eval_thresholds={"tone": 0.5})
    with pytest.raises(ServerError, match="The summary can't be had"):
        judged(Counts(passed=1), gates)
    found = judged(Counts(passed=1, failed=1), gates)
    assert found.verdict is Verdict.FAILED
    assert found.reasons[0] == "1 failed of 2 test cases."
    assert found.reasons[1] == "The gates of eval_thresholds are not checked: The summary can't be had."


def test_a_threshold_of_nought_needs_a_score_all_the_same():
    gates = Gates(eval_thresholds={"tone": 0})
    assert _judged(Verdict.PASSED, Counts(passed=1), gates, metrics={"tone": Metric(0.0, 2)}).verdict is Verdict.PASSED
    assert _judged(Verdict.PASSED, Counts(passed=1), gates, metrics={"tone": Metric(0.0, 0)}).verdict is Verdict.FAILED


@given(
    st.sampled_from([None, *Verdict]),
    st.none() | counts,
    st.sampled_from(Kind),
    st.none() | st.floats(0, 1),
    st.booleans(),
)
def test_a_verdict_is_true_whatever_is_judged(ending, tally, kind, least, fail_on_no_tests):
    found = _judged(ending, tally, Gates(least, fail_on_no_tests), kind=kind)
    not_passed = tally.failed + tally.unavailable if tally else 0
    if found.verdict is Verdict.PASSED:
        assert ending not in (Verdict.CANCELLED, Verdict.ERRORED)
        assert not_passed == 0 or least is not None
        assert ending is not Verdict.FAILED or not_passed
        if tally is not None and tally.executed and least is not None:
            assert tally.passed / tally.executed >= least
    else:
        assert found.reasons
    if ending is Verdict.CANCELLED:
        assert found.verdict is Verdict.CANCELLED
    elif found.verdict is Verdict.CANCELLED:
        pytest.fail("nobody cancelled it")


@pytest.mark.parametrize("value", [-0.01, 1.01, 95, float("nan"), float("inf"), "0.9", True, [0.9], None], ids=repr)
def test_gates_are_fractions(value):
    if value is not None:
        with pytest.raises(ConfigurationError, match=r"^min_pass_rate must be a fraction from 0 to 1") as caught:
            Gates(min_pass_rate=value)
        assert repr(value) in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"^eval_thresholds\['tone'\] must be a fraction from 0 to 1"):
        Gates(eval_thresholds={"tone": value})


def test_no_public_class_is_taken_for_a_test():
    names = itertools.chain.from_iterable(vars(module) for module in (model, lifecycle))
    assert not [name for name in names if name.startswith("Test")]


def test_the_messages_of_a_report_have_a_limit_in_all(monkeypatch):
    monkeypatch.setattr(limits, "MESSAGES", 10_000)
    again = CaseResult("b", Outcome.PASSED, earlier=(CaseResult("b", Outcome.FAILED, message="e" * 3_000),))
    failed = [CaseResult(f"a{number}", Outcome.FAILED, message="m" * 3_000) for number in range(9)]
    report = RunReport(_run(), None, (*failed, again))
    # A message that was cut takes two bytes for each character, and half as much again is there for those.
    assert [len(case.message) for case in report.cases] == [3_000] * 3 + [limits.ANSWER] * 5 + [len("[…]"), 0]
    assert report.cases[3].message.endswith("[…]")
    assert report.cases[8].message == report.cases[-1].earlier[0].message == "[…]"
    assert dataclasses.replace(report, commit="x").cases is report.cases
    assert [case.outcome for case in report.cases] == [Outcome.FAILED] * 9 + [Outcome.PASSED]
