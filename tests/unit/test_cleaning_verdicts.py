"""Cleaning and cutting change no verdict: names and metrics decide as the platform spells them."""

from __future__ import annotations

import fnmatch
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns import limits
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.lifecycle.starting import _same
from airflow_provider_testruns.model import CaseResult, Kind, Metric, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.omilia.responses import run_of
from airflow_provider_testruns.platforms.reading import Fields
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.reporting.xcom import to_xcom
from airflow_provider_testruns.tasks.record import TaskStateRecordStore

pytestmark = pytest.mark.unit

RUN = Run("omilia", "r-1", RunState.FINISHED, "SUCCESS")
_CHARACTERS = st.characters() | st.sampled_from("ab\x00\x01\x1b\x9b\ud800\u202e\u2028\n[]m31/~")
#: Names that arguments keep as they are, and that are no patterns; many of them are the same when cleaned, or when cut.
_NAMES = (
    st.text(_CHARACTERS, min_size=1, max_size=6)
    | st.sampled_from(["x" * limits.NAME + end for end in ("", "y", "z\x00", "\ud800")])
).filter(lambda name: name == name.strip() and not set(name) & set("*?["))
_OUTCOMES = st.sampled_from([Outcome.PASSED, Outcome.FAILED, Outcome.UNAVAILABLE, Outcome.NOT_RUN])


@given(st.dictionaries(_NAMES, _OUTCOMES, min_size=1, max_size=6), st.data())
def test_a_run_with_any_names_is_judged_as_one_with_plain_names(outcomes, data):
    allowed = data.draw(st.lists(st.sampled_from(sorted(outcomes)) | _NAMES, max_size=4))
    plain = {name: f"case-{at}" for at, name in enumerate([*outcomes, *allowed])}

    def judged(spelled: dict[str, str]):
        cases = tuple(CaseResult(spelled[name], outcome) for name, outcome in outcomes.items())
        gates = Gates(allowed_failures=tuple(spelled[name] for name in allowed))
        return cases, judge(RunReport(RUN, None, cases), gates)

    cases, judgement = judged({name: name for name in plain})
    _, expected = judged(plain)

    assert judgement.verdict is expected.verdict
    assert len(judgement.allowed) == len(expected.allowed)
    # None becomes another silently, and none is lost, wherever they are shown.
    assert len({case.name for case in cases}) == len(outcomes)
    report = to_xcom(RunReport(RUN, None, cases), judgement)
    assert len({case["name"] for case in report["failures"]}) == len(report["failures"])
    assert report["total"] == len(outcomes)


@given(
    st.dictionaries(_NAMES, _OUTCOMES, min_size=1, max_size=6), st.text("ab*?[]!\x00\x01\x1bx", min_size=1, max_size=5)
)
def test_patterns_match_the_names_as_they_came(outcomes, pattern):
    gates = Gates(allowed_failures=(pattern,))
    if not gates.allowed_failures:
        return
    (kept,) = gates.allowed_failures
    cases = tuple(CaseResult(name, outcome) for name, outcome in outcomes.items())
    matched = [
        name
        for name, outcome in outcomes.items()
        if outcome in (Outcome.FAILED, Outcome.UNAVAILABLE) and (name == kept or fnmatch.fnmatchcase(name, kept))
    ]
    failed = [name for name, outcome in outcomes.items() if outcome in (Outcome.FAILED, Outcome.UNAVAILABLE)]

    judgement = judge(RunReport(RUN, None, cases), gates)
    assert len(judgement.allowed) == len(matched) or judgement.verdict is Verdict.FAILED
    if any(outcome is not Outcome.NOT_RUN for outcome in outcomes.values()):
        assert (judgement.verdict is Verdict.PASSED) == (len(matched) == len(failed))


@pytest.mark.parametrize("odd", ["re\x1b[0mfund", "refund\x00", "refund\x01", "re\ud800fund", "refund" + "\u202e"])
def test_a_name_that_only_looks_like_an_allowed_one_is_not_forgiven(odd):
    cases = (CaseResult("refund", Outcome.PASSED), CaseResult(odd, Outcome.FAILED))
    assert judge(RunReport(RUN, None, cases), Gates(allowed_failures=("refund",))).verdict is Verdict.FAILED
    assert judge(RunReport(RUN, None, cases), Gates(allowed_failures=(odd,))).verdict is Verdict.PASSED
    # As a report shows it, it can be named, too.
    shown = to_xcom(RunReport(RUN, None, cases), judge(RunReport(RUN, None, cases)))["failures"][0]["name"]
    assert judge(RunReport(RUN, None, cases), Gates(allowed_failures=(shown,))).verdict is Verdict.PASSED


@given(st.dictionaries(_NAMES, st.sampled_from([0.2, 0.8]), min_size=1, max_size=4), st.data())
def test_gates_on_metrics_with_any_names(values, data):
    name = data.draw(st.sampled_from(sorted(values)))
    report = RunReport(
        RUN, None, (CaseResult("a", Outcome.PASSED),), {key: Metric(value) for key, value in values.items()}
    )

    assert len(report.metrics) == len(values)
    verdict = judge(report, Gates(eval_thresholds={name: 0.5})).verdict
    assert verdict is (Verdict.PASSED if values[name] >= 0.5 else Verdict.FAILED)


@given(_NAMES, _NAMES)
def test_a_choice_of_an_evaluation_with_any_name(evaluation, choice):
    cases = (CaseResult("a", Outcome.PASSED),)
    report = RunReport(RUN, None, cases, {f"{evaluation}={choice}": Metric(0.9, 10)})
    assert judge(report, Gates(eval_thresholds={f"{evaluation}={choice}": 0.5})).verdict is Verdict.PASSED
    # A choice that was never made has no share.
    if "=" not in choice:
        assert judge(report, Gates(eval_thresholds={f"{evaluation}=never{choice}": 0.5})).verdict is Verdict.FAILED


@given(st.text(_CHARACTERS, max_size=8), st.text(_CHARACTERS, max_size=8))
def test_a_lost_start_is_looked_up_by_what_was_given_not_by_what_is_shown(given_, other):
    """A run is told by the arguments that the platform shows again: one that differs only in what cleaning takes out is
    another run, and the task's own is found, whatever is in its arguments."""

    def shown(description: str) -> object:
        row = {"runId": "r-1", "status": "STARTED", "description": description}
        return run_of(Fields(row, "data"), Kind.RUN, lambda run_id, project_id: "").started_with["description"]

    assert _same(shown(given_), given_)
    assert _same(shown(other), given_) == (other == given_)
    # Nor by the next try, which knows what was given from the record.
    kept: dict[str, Any] = {}
    store = TaskStateRecordStore(SimpleNamespace(set=lambda key, value: kept.update(value)))
    store.write({"started_with": {"description": given_}})
    assert _same(shown(given_), kept["started_with"]["description"])
    assert _same(shown(other), kept["started_with"]["description"]) == (other == given_)


def test_the_record_is_clean_and_has_ids_as_they_are():
    secret = ClientSecrets(["canary-of-a-password"])
    secret.hold()
    kept: dict[str, object] = {}
    store = TaskStateRecordStore(SimpleNamespace(set=lambda key, value: kept.update({key: value})))
    run = {"run_id": "canary-of-a-password", "raw_state": "half \ud800\x00", "message": "canary-of-a-password"}
    store.write({"run": run, "started_with": {"group": "canary-of-a-password"}, "cannot_list": "\x1b[31mno"})
    secret.release()

    assert kept["test_run"] == {
        "run": {"run_id": "canary-of-a-password", "raw_state": "half \ufffd\ufffd", "message": "***"},
        "started_with": {"group": "canary-of-a-password"},
        "cannot_list": "no",
    }
