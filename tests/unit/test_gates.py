"""The gates on counts and names: how many may fail, and which may."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.arguments import names
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.judging import Gates, Judgement, judge
from airflow_provider_testruns.model import CaseResult, Counts, Metric, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.reporting.digest import text
from airflow_provider_testruns.reporting.text import table
from airflow_provider_testruns.reporting.xcom import MAX_FAILURES, to_event, to_xcom

pytestmark = pytest.mark.unit

PASSED = CaseResult("greets", Outcome.PASSED, suite="smoke")
FAILED = CaseResult("pays", Outcome.FAILED, message="no money", suite="smoke")
ALSO_FAILED = CaseResult("refunds", Outcome.FAILED, message="known since May", suite="regression")
UNAVAILABLE = CaseResult("waits", Outcome.UNAVAILABLE)
NOT_RUN = CaseResult("later", Outcome.NOT_RUN)
CASES = (PASSED, FAILED, ALSO_FAILED, UNAVAILABLE, NOT_RUN)


def report(*cases: CaseResult, counts: Counts | None = None, ending: Verdict | None = Verdict.FAILED) -> RunReport:
    """A finished run with these cases, and with other counts than theirs where they are given."""
    run = Run(
        "omilia", "r-1", RunState.FINISHED, "FAILURE", platform_verdict=ending, url="https://studio.example.com/r-1"
    )
    return RunReport(run, counts or Counts.of(cases), cases, {"tone": Metric(0.5, 4)})


@pytest.mark.parametrize(
    ("most", "counts", "reasons"),
    [
        (0, Counts(passed=3), ()),
        (0, Counts(passed=3, failed=1), ("1 failed of 4 test cases: max_failures is 0.",)),
        (2, Counts(passed=3, failed=1, unavailable=1), ()),
        (2, Counts(failed=2, unavailable=1), ("2 failed and 1 unavailable of 3 test cases: max_failures is 2.",)),
        (2, Counts(failed=2, not_run=100), ()),
    ],
)
def test_max_failures_replaces_all_passed(most: int, counts: Counts, reasons: tuple[str, ...]) -> None:
    ending = Verdict.FAILED if counts.failed else Verdict.PASSED
    found = judge(report(counts=counts, ending=ending), Gates(max_failures=most))
    assert (found.verdict, found.reasons) == (Verdict.FAILED if reasons else Verdict.PASSED, reasons)


def test_both_gates_must_be_met() -> None:
    counts = Counts(passed=6, failed=4)
    both = judge(report(counts=counts), Gates(min_pass_rate=0.7, max_failures=3))
    assert both.reasons == (
        "Pass rate 60.0% (6 of 10) is below min_pass_rate 70.0%.",
        "4 failed of 10 test cases: max_failures is 3.",
    )
    for gates in (Gates(min_pass_rate=0.6, max_failures=3), Gates(min_pass_rate=0.7, max_failures=4)):
        assert judge(report(counts=counts), gates).verdict is Verdict.FAILED
    assert judge(report(counts=counts), Gates(min_pass_rate=0.6, max_failures=4)).verdict is Verdict.PASSED


def test_counts_that_are_not_there_meet_no_gate() -> None:
    run = RunReport(Run("eggplant", "r", RunState.FINISHED, "Passed", platform_verdict=Verdict.PASSED))
    assert judge(run, Gates(max_failures=1)).reasons == (
        "The platform gives no counts, so that max_failures can't be checked.",
    )
    assert judge(run, Gates(max_failures=1, min_pass_rate=0.5)).reasons == (
        "The platform gives no counts, so that min_pass_rate and max_failures can't be checked.",
    )


def test_max_failures_does_not_stand_for_tests_that_ran() -> None:
    nothing = report(counts=Counts(not_run=2), ending=Verdict.PASSED)
    assert judge(nothing, Gates(max_failures=5)).verdict is Verdict.FAILED
    assert judge(nothing, Gates(max_failures=5, fail_on_no_tests=False)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "allowed",
    [
        ("pays", "refunds", "waits"),
        ("smoke/pays", "regression/refunds", "waits"),
        ("smoke/*", "*/refunds", "w?its"),
        ("*",),
        ("[pw]a*s", "regression/*"),
    ],
)
def test_allowed_failures_fail_nothing(allowed: tuple[str, ...]) -> None:
    found = judge(report(*CASES), Gates(allowed_failures=allowed))
    assert (found.verdict, found.reasons) == (Verdict.PASSED, ())
    assert found.allowed == (FAILED, ALSO_FAILED, UNAVAILABLE)
    assert found.notes[0] == "Allowed to fail, and did not pass: smoke/pays, regression/refunds, waits."


@pytest.mark.parametrize("allowed", ["Pays", "pay", "smoke", "regression/pays", "smoke/pays ", "omilia/smoke/pays"])
def test_names_are_whole_and_in_upper_and_lower_case_as_they_are(allowed: str) -> None:
    gates = Gates(allowed_failures=(allowed.rstrip(), "refunds", "waits"))
    found = judge(report(*CASES), gates)
    if allowed.rstrip() == "smoke/pays":
        assert found.verdict is Verdict.PASSED
        return
    assert found.reasons == (
        "1 failed of 5 test cases.",
        "2 that did not pass are ignored (allowed_failures).",
    )
    assert found.notes[-1] == f"allowed_failures has entries that match no case: {allowed!r}."


def test_a_name_with_signs_of_a_pattern_in_it_is_still_a_name() -> None:
    case = CaseResult("pays[EUR]", Outcome.FAILED, suite="what?")
    for allowed in ("pays[EUR]", "what?/pays[EUR]"):
        assert judge(report(case), Gates(allowed_failures=(allowed,))).allowed == (case,)
    assert judge(report(case), Gates(allowed_failures=("pays[USD]",))).allowed == ()


def test_allowed_failures_are_neither_passed_nor_failed_to_the_other_gates() -> None:
    cases = (PASSED, PASSED, FAILED, ALSO_FAILED)
    allowed = ("refunds",)
    assert judge(report(*cases), Gates(min_pass_rate=0.66, allowed_failures=allowed)).verdict is Verdict.PASSED
    assert judge(report(*cases), Gates(min_pass_rate=0.67, allowed_failures=allowed)).reasons == (
        "Pass rate 66.7% (2 of 3) is below min_pass_rate 67.0%.",
        "1 that did not pass are ignored (allowed_failures).",
    )
    assert judge(report(*cases), Gates(max_failures=1, allowed_failures=allowed)).verdict is Verdict.PASSED
    assert judge(report(*cases), Gates(max_failures=0, allowed_failures=allowed)).reasons == (
        "1 failed of 3 test cases: max_failures is 0.",
        "1 that did not pass are ignored (allowed_failures).",
    )
    # Nothing is left that could miss it.
    only = judge(report(FAILED), Gates(min_pass_rate=1.0, allowed_failures=("pays",)))
    assert only.verdict is Verdict.PASSED


def test_what_is_counted_and_not_listed_can_not_be_forgiven() -> None:
    found = judge(report(PASSED, FAILED, counts=Counts(passed=1, failed=3, unavailable=1)), Gates(allowed_failures="*"))
    assert found.reasons == (
        "2 failed and 1 unavailable of 5 test cases.",
        "1 that did not pass are ignored (allowed_failures).",
        "allowed_failures can't be checked for 3 that the platform counts and does not list.",
    )
    # Nor is it known then which names are of no case.
    assert judge(report(PASSED, counts=Counts(passed=2)), Gates(allowed_failures=("x",))).notes == ()


def test_a_list_that_is_longer_than_its_count_is_believed() -> None:
    found = judge(report(FAILED, ALSO_FAILED, counts=Counts(passed=4, failed=1)), Gates(allowed_failures=("pays",)))
    assert found.reasons[0] == "1 failed of 5 test cases."


def test_an_allowed_failure_that_passes_is_told() -> None:
    found = judge(report(PASSED, NOT_RUN, ending=Verdict.PASSED), Gates(allowed_failures=("greets", "later", "gone")))
    assert found == Judgement(
        Verdict.PASSED,
        (),
        (
            "Allowed to fail, and passed: smoke/greets. allowed_failures may be out of date.",
            "allowed_failures has entries that match no case: 'gone'.",
        ),
    )
    many = tuple(CaseResult(f"c{at}", Outcome.PASSED) for at in range(40))
    notes = judge(report(*many, ending=Verdict.PASSED), Gates(allowed_failures=("c*",))).notes
    assert notes[0].startswith("Allowed to fail, and passed: c0, c1,")
    assert "c9 and 30 more." in notes[0]


def test_no_gate_makes_a_broken_or_cancelled_run_pass() -> None:
    gates = Gates(min_pass_rate=0.0, max_failures=1000, fail_on_no_tests=False, allowed_failures=("*",))
    for ending in (Verdict.ERRORED, Verdict.CANCELLED):
        assert judge(report(*CASES, ending=ending), gates).verdict is ending
    assert judge(report(PASSED, ending=Verdict.FAILED), gates).verdict is Verdict.ERRORED


def test_evaluation_gates_stay() -> None:
    gates = Gates(eval_thresholds={"tone": 0.6}, allowed_failures=("*",), max_failures=9)
    found = judge(report(*CASES), gates)
    assert found.verdict is Verdict.FAILED
    assert found.reasons[-1] == "Evaluation 'tone' is 0.5, below its gate 0.6 by 0.1."


@given(
    st.lists(
        st.builds(CaseResult, st.sampled_from("abcd"), st.sampled_from(Outcome), suite=st.sampled_from(["", "s"]))
    ),
    st.builds(Counts, *[st.integers(0, 6)] * 4) | st.none(),
    st.sets(st.sampled_from(["a", "b", "s/c", "[ad]", "s/*"])),
    st.none() | st.integers(0, 6),
    st.none() | st.floats(0, 1),
    st.sampled_from([Verdict.PASSED, Verdict.FAILED]),
)
def test_a_pass_is_one_whatever_the_gates(
    cases: list[CaseResult],
    counts: Counts | None,
    allowed: set[str],
    most: int | None,
    least: float | None,
    ending: Verdict,
) -> None:
    judged = report(*cases, counts=counts, ending=ending)
    found = judge(judged, Gates(least, allowed_failures=tuple(allowed), max_failures=most))
    assert set(found.allowed) <= set(judged.failures)
    if found.verdict is not Verdict.PASSED:
        assert found.reasons
        return
    assert judged.counts is not None
    not_passed = judged.counts.failed + judged.counts.unavailable
    if not allowed:
        assert found.allowed == ()
        assert most is None or not_passed <= most
        assert most is not None or least is not None or not_passed == 0
    elif most is None and least is None:
        # Every failure that is known is one that is allowed, and all are known.
        assert len(found.allowed) >= not_passed
        assert len(found.allowed) == len(judged.failures)


def test_not_every_name_is_held_against_every_case() -> None:
    allowed = tuple(f"case {at}" for at in range(200)) + tuple(f"s{at}/case *" for at in range(50))

    def calls(number: int) -> int:
        """How many functions are called, which no other work on the machine changes."""
        many = report(*(CaseResult(f"case {at}", Outcome.FAILED, suite=f"s{at % 50}") for at in range(number)))
        gates, counted = Gates(allowed_failures=allowed), 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            found = judge(many, gates)
        finally:
            sys.setprofile(before)
        assert found.verdict is Verdict.PASSED
        return counted

    assert (calls(2000) - calls(1000)) / 1000 < len(allowed) / 2


# The arguments


@pytest.mark.parametrize("value", [-1, 1.0, 0.5, "3", True, float("inf"), [1]], ids=repr)
def test_max_failures_is_a_number_of_cases(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_failures must be a whole number, 0 or more; got "):
        Gates(max_failures=value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, ()),
        ([], ()),
        ("", ()),
        (["a", "b c"], ("a", "b c")),
        (("a",), ("a",)),
        ({"a": 1}.keys(), ("a",)),
        ("a", ("a",)),
        ("a\n b/* \n\n", ("a", "b/*")),
        ('["a", "b, c"]', ("a", "b, c")),
        ([" a ", ""], ("a",)),
    ],
)
def test_allowed_failures_may_be_what_a_template_gives(given: Any, found: tuple[str, ...]) -> None:
    assert names("allowed_failures", given) == found
    assert Gates(allowed_failures=given).allowed_failures == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "allowed_failures must be a list of strings; got 7."),
        ({"a": True}, "allowed_failures must be a list of strings; got "),
        (["a", 1], "allowed_failures must be a list of strings; 1 is not a string."),
        ("['a', 'b']", "allowed_failures is a string that begins like a list and is not JSON: "),
        ("[a-c]*", "allowed_failures is a string that begins like a list and is not JSON: "),
        ('[["a"]]', "allowed_failures must be a list of strings; "),
    ],
)
def test_what_is_no_list_of_names_is_refused(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Gates(allowed_failures=given)
    assert str(caught.value).startswith(said)


# What is told of them


def test_allowed_failures_are_told_apart_everywhere() -> None:
    told = report(*CASES)
    judgement = judge(told, Gates(allowed_failures=("refunds", "waits")))
    found = to_xcom(told, judgement, "s3://reports/r-1.xml")
    assert (found["failed"], found["unavailable"], found["total"]) == (2, 1, 5)
    assert found["failures"] == [{"name": "pays", "suite": "smoke", "message": "no money", "outcome": "failed"}]
    assert found["failures_left_out"] == 0
    assert found["allowed_failures"] == [{"name": "refunds", "suite": "regression"}, {"name": "waits", "suite": ""}]
    assert found["allowed_failures_left_out"] == 0
    assert found["notes"] == ["Allowed to fail, and did not pass: regression/refunds, waits."]
    assert found["junit_path"] == "s3://reports/r-1.xml"
    assert (
        "  note: Allowed to fail, and did not pass: regression/refunds, waits." in table(told, judgement).splitlines()
    )
    assert text(found).splitlines() == [
        "Run r-1 failed. 1 failed of 5 test cases. 2 that did not pass are ignored (allowed_failures).",
        "1 of 5 passed, 2 failed, 1 unavailable, 1 not run; pass rate 25.0%.",
        "  failed: smoke / pays: no money",
        "The full report: s3://reports/r-1.xml",
        "The run: https://studio.example.com/r-1",
    ]


def test_many_allowed_failures_stay_few_in_xcom() -> None:
    cases = tuple(CaseResult(f"c{at}", Outcome.FAILED) for at in range(120))
    told = report(*cases, FAILED)
    found = to_xcom(told, judge(told, Gates(allowed_failures=("c*",))))
    assert len(found["allowed_failures"]) == MAX_FAILURES
    assert found["allowed_failures_left_out"] == 70
    assert [case["name"] for case in found["failures"]] == ["pays"]


def test_what_an_asset_event_tells() -> None:
    told = report(*CASES, counts=Counts(passed=1, failed=2, unavailable=1, not_run=1))
    assert to_event(told, judge(told, Gates(max_failures=3))) == {
        "platform": "omilia",
        "run_id": "r-1",
        "url": "https://studio.example.com/r-1",
        "state": "finished",
        "raw_state": "FAILURE",
        "verdict": "passed",
        "total": 5,
        "passed": 1,
        "failed": 2,
        "unavailable": 1,
        "not_run": 1,
        "pass_rate": 0.25,
    }
