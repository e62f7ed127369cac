"""Entries of ``allowed_failures`` that hold until a day."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.model import CaseResult, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.quarantine import Quarantined, entries
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

pytestmark = pytest.mark.unit

ENTRY = {"name": "refund*", "until": "2026-12-10", "why": "the bank's test system is down"}
_UNTIL = date(2026, 12, 10)
_RUN = Run("omilia", "r-1", RunState.FINISHED, "FAILURE", platform_verdict=Verdict.FAILED)
_REPORT = RunReport(_RUN, None, (CaseResult("refund 1", Outcome.FAILED), CaseResult("pays", Outcome.PASSED)))
_SAID = "refund* (until 2026-12-10: the bank's test system is down)"


@pytest.mark.parametrize(
    ("days", "verdict", "note"),
    [
        (-8, Verdict.PASSED, None),
        (-7, Verdict.PASSED, f"Soon no longer allowed to fail: {_SAID}."),
        (0, Verdict.PASSED, f"Soon no longer allowed to fail: {_SAID}."),
        (1, Verdict.FAILED, f"No longer allowed to fail: {_SAID}."),
    ],
)
def test_it_holds_up_to_its_last_day(days: int, verdict: Verdict, note: str | None) -> None:
    gates = Gates(allowed_failures=(ENTRY, "gone"), today=_UNTIL + timedelta(days))  # type: ignore[arg-type]
    found = judge(_REPORT, gates)
    assert found.verdict is verdict
    assert [each for each in found.notes if "no longer" in each.lower()] == ([note] if note else [])
    assert (found.allowed == _REPORT.cases[:1]) is (verdict is Verdict.PASSED)


def test_without_a_day_it_is_that_of_utc() -> None:
    before, after = datetime.now(UTC).date(), Gates().today
    assert before <= after <= datetime.now(UTC).date()


@pytest.mark.parametrize(
    "until",
    [
        "2026-12-10",
        " 2026-12-10 ",
        _UNTIL,
        datetime(2026, 12, 10, 23, 59),
        datetime(2026, 12, 11, 1, 0, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_a_day_may_be_a_date_or_a_string(until: Any) -> None:
    (found,) = entries("allowed_failures", [{**ENTRY, "until": until}])
    assert found == Quarantined("refund*", _UNTIL, "the bank's test system is down")


def test_dicts_and_names_may_be_mixed_and_be_the_json_of_a_template() -> None:
    expected = ("greets", Quarantined("refund*", _UNTIL, "the bank's test system is down"))
    assert entries("allowed_failures", ["greets", "", ENTRY]) == expected
    assert entries("allowed_failures", json.dumps(["greets", ENTRY])) == expected
    assert Gates(allowed_failures=["greets", ENTRY]).allowed_failures == expected  # type: ignore[arg-type]
    # Rendering to native objects makes numbers of digits.
    (found,) = entries("allowed_failures", [{**ENTRY, "name": 1234}])
    assert isinstance(found, Quarantined)
    assert found.name == "1234"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"owner": "me"},
            r"^allowed_failures\[1\] must have exactly the keys name, until and why \(unknown: 'owner'\)",
        ),
        ({"why": ...}, r"\(missing: why\)"),
        ({"until": ..., "untill": "2026-12-10"}, r"\(unknown: 'untill'; missing: until\)"),
        ({"name": " "}, r"^allowed_failures\[1\]\['name'\] must be a string that is not empty"),
        ({"name": True}, r"\['name'\] must be"),
        ({"why": None}, r"\['why'\] must be"),
        ({"until": "2026-02-30"}, r"\['until'\] must be a date, or a string like 2026-12-31"),
        ({"until": "10.12.2026"}, r"\['until'\]"),
        ({"until": "20261210"}, r"\['until'\]"),
        ({"until": "2026-12-10T00:00"}, r"\['until'\]"),
        ({"until": None}, r"\['until'\]"),
        ({"until": 20261210}, r"\['until'\]"),
    ],
)
def test_what_is_no_such_entry_is_refused(changes: dict[str, Any], said: str) -> None:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not ...}
    with pytest.raises(ConfigurationError, match=said):
        entries("allowed_failures", ["greets", entry])


@pytest.mark.parametrize("native", [False, True])
def test_entries_may_be_templates(native: bool) -> None:
    with DAG("d", render_template_as_native_obj=native):
        entry = {"name": "{{ params.name }}", "until": "{{ params.until }}", "why": "see {{ params.why }}"}
        task = OmiliaCreateRunOperator(task_id="t", project_id="p", allowed_failures=["{{ params.name }}s", entry])
    task.render_template_fields({"params": {"name": "refund", "until": "2026-12-10", "why": 7}})  # type: ignore[typeddict-unknown-key]
    assert task.gates().allowed_failures == ("refunds", Quarantined("refund", _UNTIL, "see 7"))


def test_a_bad_entry_fails_before_anything_is_started() -> None:
    task = OmiliaCreateRunOperator(task_id="t", project_id="p", allowed_failures=[{"name": "a", "until": "soon"}])
    with pytest.raises(ConfigurationError, match=r"^allowed_failures\[0\] must have exactly the keys"):
        task.check_results()


def test_entries_are_serialized_with_the_dag_which_keeps_its_hash() -> None:
    def dag() -> dict[str, Any]:
        entry = {**ENTRY, "until": _UNTIL}
        with DAG("d", schedule=None) as dag:
            OmiliaCreateRunOperator(task_id="plain", project_id="p", allowed_failures=["greets", entry])
            OmiliaCreateRunOperator.partial(task_id="mapped", project_id="p").expand(
                allowed_failures=[["greets", entry], [ENTRY]]
            )
            OmiliaRunSensor.partial(task_id="sensor", allowed_failures=[entry]).expand(run_id=["r-1"])
        return DagSerialization.to_dict(dag)

    serialized = dag()
    assert SerializedDagModel.hash(serialized) == SerializedDagModel.hash(dag())
    assert set(DagSerialization.from_dict(json.loads(json.dumps(serialized))).task_dict) == {
        "plain",
        "mapped",
        "sensor",
    }
