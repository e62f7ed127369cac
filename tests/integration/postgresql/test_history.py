"""What a run is compared with, over Airflow's own routes and tables: on PostgreSQL as on SQLite, whatever DAG runs come
between, with a logical date and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.api_fastapi.execution_api.routes import xcoms
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.sdk.api.datamodels._generated import XComResponse
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetXCom, SetXCom, XComResult
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from fastapi import HTTPException
from pytest_mock import MockerFixture
from sqlalchemy import Engine, create_engine, delete, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_provider_testruns.model import CaseResult, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from airflow_provider_testruns.tasks.comparing import KEY, Comparing
from tests.harness.postgresql import empty_database

pytestmark = pytest.mark.integration

_BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


class Airflow:
    """The XComs of a DAG's runs: what tasks send to the supervisor is answered by the routes that the API server has.

    :param engine: of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: What was asked for: ``get`` and ``set``.
        self.requests: list[str] = []
        self._days = 0

    def send(self, message: Any) -> Any:
        """What the supervisor does with a request."""
        place = {"dag_id": message.dag_id, "run_id": message.run_id, "task_id": message.task_id, "key": message.key}
        with Session(self.engine) as session:
            if isinstance(message, GetXCom):
                self.requests.append("get")
                params = xcoms.GetXcomFilterParams(
                    map_index=-1 if message.map_index is None else message.map_index,
                    include_prior_dates=message.include_prior_dates,
                )
                try:
                    value = xcoms.get_xcom(**place, session=session, params=params).value
                except HTTPException as e:
                    if e.status_code != 404:
                        raise
                    value = None
                return XComResult.from_xcom_response(XComResponse(key=message.key, value=value))
            assert isinstance(message, SetXCom)
            self.requests.append("set")
            index = -1 if message.map_index is None else message.map_index
            xcoms.set_xcom(**place, session=session, value=message.value, map_index=index)
            session.commit()
        return None

    def run(
        self, kind: str, failing: str = "", *, map_index: int = -1, project: str = "p-1", **arguments: Any
    ) -> dict[str, Any]:
        """A DAG run a day after the one before, with a task whose cases failed.

        :param kind: of the DAG run: ``scheduled``, ``manual`` or ``asset_triggered``; those that are none of the first
            have no logical date.
        :param failing: the cases that failed, each a letter.
        :return: what the comparison says.
        """
        self._days += 1
        after = _BEGAN + timedelta(days=self._days)
        dag_run = SimpleNamespace(run_id=f"{kind}__{self._days}", logical_date=after if kind == "scheduled" else None)
        row = {"id": self._days, "dag_id": "dag", "run_type": kind, "run_after": after, **vars(dag_run)}
        with self.engine.begin() as connection:
            connection.execute(insert(DagRun.__table__), row)
        return self.judge(dag_run, after, failing, map_index=map_index, project=project, **arguments)

    def judge(
        self,
        dag_run: Any,
        ended: datetime,
        failing: str = "",
        *,
        map_index: int = -1,
        project: str = "p-1",
        run: str = "",
        named: str | None = None,
        started_with: dict[str, Any] | None = None,
        watched: bool = False,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Judge a task's run in a DAG run.

        :param named: how its map_index_template names the mapped task.
        :param started_with: what the platform shows of the run's start.
        :param watched: the task is a sensor.
        """
        given = {"compare_with": "previous", "project_id": project, **arguments}
        task = (partial(OmiliaRunSensor, run_id="r") if watched else OmiliaCreateRunOperator)(task_id="task", **given)
        ti = RuntimeTaskInstance.model_construct(
            dag_id="dag", run_id=dag_run.run_id, task_id="task", map_index=map_index, task=task
        )
        cases = [CaseResult(each, Outcome.FAILED if each in failing else Outcome.PASSED) for each in "abcde"]
        found = Run(
            "omilia",
            run or f"of {dag_run.run_id}",
            RunState.FINISHED,
            "FAILURE",
            platform_verdict=Verdict.FAILED if failing else Verdict.PASSED,
            finished_at=ended,
            ids={"project_id": project},
            started_with=started_with or {},
        )
        context: Any = {"ti": ti, "dag_run": dag_run, "named": named}
        context["map_index_template"] = None if named is None else "suite {{ named }}"
        comparing = Comparing(task, context)
        report, judgement = comparing.judge(RunReport(found, None, tuple(cases)))
        comparing.remember()
        comparison = report.comparison
        if comparison is None:
            return {}
        kinds = ("new_failures", "still_failing", "fixed")
        names = {kind: "".join(name for _, name in getattr(comparison, kind).named) for kind in kinds}
        baseline = comparison.baseline.run_id if comparison.baseline is not None else None
        return {"baseline": baseline, "note": comparison.note, "verdict": judgement.verdict.value, **names}

    def stored(self) -> list[tuple[str, Any]]:
        """The XComs that there are, by their DAG runs."""
        with Session(self.engine) as session:
            rows = session.execute(
                select(XComModel.run_id, XComModel.value).where(XComModel.key == KEY).order_by(XComModel.dag_run_id)
            )
            return [(run_id, value) for run_id, value in rows]


@pytest.fixture(params=["sqlite", "postgresql"])
def airflow(request: pytest.FixtureRequest, mocker: MockerFixture) -> Iterator[Airflow]:
    """Airflow's tables in an empty database, and what a task's process has of Airflow."""
    import_all_models()
    if request.param == "sqlite":
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = empty_database(request.getfixturevalue("postgresql"), "history")
    Base.metadata.create_all(engine)
    found = Airflow(engine)
    # What the task runner sets in the process of a task.
    mocker.patch.object(task_runner, "SUPERVISOR_COMMS", found, create=True)
    yield found
    engine.dispose()


@pytest.mark.parametrize(
    "kinds",
    [
        ("scheduled", "manual", "scheduled", "asset_triggered", "manual", "scheduled", "scheduled"),
        ("manual", "scheduled", "scheduled", "asset_triggered", "scheduled", "manual", "manual"),
        ("asset_triggered", "manual", "asset_triggered"),
        ("scheduled", "scheduled", "scheduled"),
    ],
    ids=["a scheduled one first", "a manual one first", "none with a date", "all with a date"],
)
def test_each_run_is_compared_with_the_one_before(airflow: Airflow, kinds: tuple[str, ...]) -> None:
    failing = ("a", "ab", "bc", "", "d", "de", "e")
    expected = None
    for number, (kind, now) in enumerate(zip(kinds, failing, strict=False), 1):
        found = airflow.run(kind, now)
        before = set(failing[number - 2]) if number > 1 else set()
        assert (found["baseline"], found["note"] if expected else "") == (expected, "")
        assert set(found["new_failures"]) == set(now) - before
        assert set(found["still_failing"]) == set(now) & before
        assert set(found["fixed"]) == before - set(now)
        expected = f"of {kind}__{number}"
    assert airflow.requests == ["get", "set"] * len(kinds)


def test_without_compare_with_nothing_is_asked_or_kept(airflow: Airflow) -> None:
    assert airflow.run("scheduled", "a", compare_with=None) == {}
    assert (airflow.requests, airflow.stored()) == ([], [])


def test_each_mapped_task_has_its_own(airflow: Airflow) -> None:
    airflow.run("scheduled", "a", map_index=0)
    airflow.run("manual", "b", map_index=1)
    assert airflow.run("manual", "a", map_index=0)["baseline"] == "of scheduled__1"
    assert airflow.run("scheduled", "b", map_index=1)["baseline"] == "of manual__2"
    assert airflow.run("scheduled", "ac", map_index=0)["baseline"] == "of manual__3"


def test_a_mapped_task_of_another_name_is_no_baseline(airflow: Airflow) -> None:
    airflow.run("scheduled", "a", map_index=0, named="EU")
    assert airflow.run("manual", "a", map_index=0, named="EU")["baseline"] == "of scheduled__1"
    found = airflow.run("scheduled", "a", map_index=0, named="US")
    assert found["note"].endswith("tested something else (map_index_template differs).")


def test_a_retry_is_not_compared_with_its_first_try(airflow: Airflow) -> None:
    airflow.run("scheduled", "a")
    # It has no logical date, so that its first try has written into the row that the next one reads.
    dag_run = SimpleNamespace(run_id="manual__2", logical_date=None)
    gates = {"max_new_failures": 0}
    assert airflow.run("manual", "ab", **gates)["verdict"] == "failed"
    again = airflow.judge(dag_run, _BEGAN + timedelta(days=2, hours=1), "ab", run="another", **gates)
    assert (again["baseline"], again["new_failures"], again["verdict"]) == ("of scheduled__1", "b", "failed")
    assert airflow.run("scheduled", "ab", **gates)["baseline"] == "another"


def test_a_retry_that_runs_only_failed_cases_again_is_compared_all_the_same(airflow: Airflow) -> None:
    airflow.run("scheduled", "a", started_with={"description": None})
    again = SimpleNamespace(run_id="manual__2", logical_date=None)
    airflow.run("manual", "ab", started_with={"description": None})
    filtered = {"description": "of the failed ones"}
    found = airflow.judge(again, _BEGAN + timedelta(days=2, hours=1), "b", run="again", started_with=filtered)
    assert (found["baseline"], found["new_failures"]) == ("of scheduled__1", "b")
    assert airflow.run("scheduled", "b", started_with={"description": None})["baseline"] == "again"


def test_a_sensor_goes_by_what_the_platform_shows(airflow: Airflow) -> None:
    airflow.run("scheduled", "a", watched=True, started_with={"group": "smoke"})
    found = airflow.run("manual", "a", watched=True, started_with={"group": "regression"})
    assert found["note"].endswith("tested something else (group differs).")


def test_a_dag_run_of_an_earlier_date_is_compared_with_what_was_before_it(airflow: Airflow) -> None:
    airflow.run("scheduled", "a")
    airflow.run("scheduled", "b")
    airflow.run("scheduled", "c")
    # The second one is cleared: Airflow removes the XComs of its task, and runs it again.
    with airflow.engine.begin() as connection:
        connection.execute(delete(XComModel.__table__).where(XComModel.run_id == "scheduled__2"))
    cleared = SimpleNamespace(run_id="scheduled__2", logical_date=_BEGAN + timedelta(days=2))
    found = airflow.judge(cleared, _BEGAN + timedelta(days=3, hours=1), "b", run="again")
    assert found["baseline"] == "of scheduled__1"
    assert airflow.run("scheduled", "c")["baseline"] == "of scheduled__3"


def test_a_run_of_something_else_and_one_that_ended_later_are_no_baseline(airflow: Airflow) -> None:
    airflow.run("scheduled", "a", project="p-1")
    found = airflow.run("manual", "a", project="p-2")
    assert found["note"] == "No baseline: the last run (of scheduled__1) tested something else (project_id differs)."
    assert airflow.run("scheduled", "a", project="p-2")["baseline"] == "of manual__2"
    found = airflow.run("scheduled", "a", project="p-2", group="smoke")
    assert found["note"].endswith("tested something else (group differs).")
    late = SimpleNamespace(run_id="scheduled__4", logical_date=_BEGAN + timedelta(days=4))
    airflow.judge(late, _BEGAN + timedelta(days=900), "a", run="late")
    found = airflow.run("manual", "a")
    assert found["note"] == "No baseline: run late ended at 2029-04-19 00:00:00+00:00, after this one."
    assert airflow.run("manual", "a")["baseline"] == "of manual__5"


@pytest.mark.parametrize("value", [7, "x", {"form": 1}, {"form": 1, "place": {}, "runs": []}, ["\U0001f600" * 9]])
def test_an_xcom_that_people_have_written_is_no_baseline(airflow: Airflow, value: Any) -> None:
    airflow.run("scheduled", "a")
    with airflow.engine.begin() as connection:
        connection.execute(update(XComModel.__table__).values(value=value))
    found = airflow.run("scheduled", "a", max_new_failures=0)
    assert found["note"].startswith("No baseline: the XCom test_run_history of an earlier run can't be read (")
    assert found["verdict"] == "failed"
    assert airflow.run("scheduled", "a", max_new_failures=0)["verdict"] == "passed"


@pytest.mark.parametrize(("first", "then"), [("manual", "scheduled"), ("scheduled", "manual")])
def test_a_row_of_another_form_is_written_anew_where_it_stands(airflow: Airflow, first: str, then: str) -> None:
    airflow.run(first, "a")
    ((_, value),) = airflow.stored()
    with airflow.engine.begin() as connection:
        connection.execute(update(XComModel.__table__).values(value={**value, "form": 99}))
    assert airflow.run(then, "a")["note"].startswith("No baseline: the XCom test_run_history")
    assert len(airflow.stored()) == 1
    assert airflow.run(then, "a")["baseline"]


def test_the_row_that_was_read_may_be_gone_when_it_is_to_be_written(airflow: Airflow, mocker: MockerFixture) -> None:
    airflow.run("scheduled", "a")
    send = airflow.send

    def cleaned_meanwhile(message: Any) -> Any:
        if isinstance(message, SetXCom) and message.run_id == "scheduled__1":
            raise RuntimeError("DAG run not found")
        return send(message)

    mocker.patch.object(airflow, "send", cleaned_meanwhile)
    assert airflow.run("manual", "ab")["baseline"] == "of scheduled__1"
    assert "manual__2" in dict(airflow.stored())


def test_what_is_kept_is_json_with_bounds(airflow: Airflow) -> None:
    airflow.run("scheduled", "abc")
    ((run_id, value),) = airflow.stored()
    assert run_id == "scheduled__1"
    assert len(json.dumps(value)) < 1_000
