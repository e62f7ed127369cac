"""How runs are found where Airflow's tables are of another form, or hold what is not for the page."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import JSON, Column, DateTime, Integer, String, Uuid, create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Session

from airflow_provider_testruns.plugin import stored
from tests.integration.plugin.pages import BEGAN, OPERATOR, Page, mark, report

pytestmark = pytest.mark.integration


class _Base(DeclarativeBase):
    pass


class _TaskInstance(_Base):
    """Of Airflow 3.4, as far as it matters: each try is a row of its own."""

    __tablename__ = "task_instance"
    id = Column(Uuid, primary_key=True)
    dag_id = Column(String(250))
    task_id = Column(String(250))
    run_id = Column(String(250))
    map_index = Column(Integer)
    try_number = Column(Integer)
    state = Column(String(20))
    operator = Column(String(250))


class _XCom(_Base):
    """Of Airflow 3.4, as far as it matters: an XCom is of a task instance."""

    __tablename__ = "xcom"
    task_instance_id = Column(Uuid, primary_key=True)
    key = Column(String(512), primary_key=True)
    dag_run_id = Column(Integer)
    dag_id = Column(String(250))
    task_id = Column(String(250))
    run_id = Column(String(250))
    map_index = Column(Integer)
    value = Column(JSON)
    timestamp = Column(DateTime(timezone=True))


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A database whose tables are those of Airflow 3.4."""
    monkeypatch.setattr(stored, "_tables", stored.Tables(_XCom, _TaskInstance))
    engine = create_engine("sqlite://")
    _Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def _tries(session: Session, *reports: dict[str, Any] | None) -> list[str]:
    """A task with so many tries."""
    ids = []
    for number, found in enumerate(reports):
        place = {"dag_id": "shop", "task_id": "test", "run_id": "manual", "map_index": -1}
        instance = uuid.UUID(int=number + 1)
        ids.append(str(instance))
        state = "deferred" if found is None else "failed"
        session.execute(
            insert(_TaskInstance),
            [{"id": instance, **place, "state": state, "operator": OPERATOR, "try_number": number}],
        )
        values = {"run_url": f"http://127.0.0.1/runs/{number}", "test_run": mark(number), "return_value": found}
        session.execute(
            insert(_XCom),
            [
                {
                    "task_instance_id": instance,
                    "key": key,
                    "dag_run_id": 1,
                    **place,
                    "value": value,
                    "timestamp": BEGAN + timedelta(minutes=number),
                }
                for key, value in values.items()
                if value is not None
            ],
        )
    return ids


def test_three_tries_of_one_task_are_three_runs_with_their_own_reports(newer: Session) -> None:
    ids = _tries(newer, report(0, ("joint account",)), report(1), None)
    found = stored.recent_runs(newer, ["shop"], limit=10)
    assert [(run.instance, run.state, run.mark["run_id"]) for run in found] == [
        (ids[2], "deferred", "run-2"),
        (ids[1], "failed", "run-1"),
        (ids[0], "failed", "run-0"),
    ]
    assert [run.report and run.report["failed"] for run in found] == [None, 0, 1]
    (task,) = stored.recent_tasks(newer, ["shop"], limit=10)
    of_task = stored.newest_runs(newer, [task], each=2)["shop", "test"]
    assert [run.instance for run in of_task] == [ids[2], ids[1]]
    # The second page goes on after the first.
    assert stored.recent_runs(newer, ["shop"], limit=10, before=stored.place_of(found[0])) == found[1:]


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    with made.client:
        yield made
    made.engine.dispose()


def test_runs_are_found_behind_many_that_are_none(page: Page) -> None:
    others: list[dict[str, Any]] = [
        {"number": 100 + n, "operator": "BashOperator", "task": f"other_{n % 40}", "xcoms": {"test_run": None}}
        for n in range(300)
    ]
    page.add({"number": 1}, {"number": 2}, *others)
    with Session(page.engine) as session:
        page.statements.clear()
        found = stored.recent_runs(session, ["shop"], limit=5)
        assert [run.mark["run_id"] for run in found] == ["run-2", "run-1"]
        # 5, 20, 80 and 320 of them; and the reports.
        assert len(page.statements) == 5
        assert [task.task_id for task in stored.recent_tasks(session, ["shop"], limit=5)] == ["test"]


def test_of_many_dags_only_those_that_were_asked_for_are_shown(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_MANY_DAGS", 1)
    page.add(*({"number": n, "dag": f"dag_{n % 3}"} for n in range(1, 10)))
    with Session(page.engine) as session:
        asked = ["dag_0", "dag_1"]
        assert {run.dag_id for run in stored.recent_runs(session, asked, limit=20)} == set(asked)
        assert len(stored.recent_runs(session, asked, limit=20)) == 6
        assert [task.dag_id for task in stored.recent_tasks(session, asked, limit=20)] == ["dag_0", "dag_1"]


@pytest.mark.parametrize(
    ("backend", "value", "elsewhere"),
    [
        ("airflow.sdk.execution_time.xcom.BaseXCom", "s3://bucket/key", False),
        ("airflow.providers.common.io.xcom.backend.XComObjectStorageBackend", "s3://bucket/key", True),
        # What a backend leaves where it is, as it is small, is shown.
        ("airflow.providers.common.io.xcom.backend.XComObjectStorageBackend", report(1), False),
    ],
)
def test_a_report_that_a_custom_backend_keeps(page, monkeypatch, backend, value, elsewhere):
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", backend)
    page.add({"number": 1, "xcoms": {"return_value": value}})
    with Session(page.engine) as session:
        (run,) = stored.recent_runs(session, ["shop"], limit=5)
    assert run.elsewhere is elsewhere
    assert (run.report is None) is isinstance(value, str)
