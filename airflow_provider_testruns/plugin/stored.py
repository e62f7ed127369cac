"""Finding test runs in Airflow's database, a page at a time, with a bounded number of queries.

Every task that starts or watches a run pushes the XCom ``test_run``, which marks it, beside ``run_url``, which Airflow
writes once more when the try has ended; and it returns its report under ``return_value`` of the same task instance. So
runs are found by an index over the keys of XComs, and the reports, which are what is large, are read for the page
alone. Airflow removes a task instance's XComs when its next try begins: what is here is the last try.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import Text, and_, case, cast, desc, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from airflow_provider_testruns.links.run import TEST_RUN_KEY, URL_KEY

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Select

_RETURN_KEY = "return_value"
#: What a report has, beside its verdict, and no return value of another of our tasks.
_RATE = "pass_rate"
#: The classes whose tasks pushed no mark, as Airflow stored their names, before there was one. Nothing is added here.
_BEFORE_MARKS = frozenset(
    {
        "EggplantExecutionSensor",
        "EggplantRunProgressSensor",
        "EggplantStartExecutionOperator",
        "EggplantStartTestConfigurationOperator",
        "FutureAGIExecuteTestRunOperator",
        "FutureAGIRerunCallsOperator",
        "FutureAGITestExecutionSensor",
        "OmiliaCreateGenerationOperator",
        "OmiliaCreateRunOperator",
        "OmiliaGenerationSensor",
        "OmiliaRunSensor",
    }
)

#: How many characters of JSON a report has at most: 50 failures and 50 forgiven ones with all their texts are well
#: within. Anything can be in an XCom, and nothing that is longer leaves the database.
_LONGEST = 1_000_000

_started = aliased(XComModel, name="started")
_mark = aliased(XComModel, name="mark")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A test run, as Airflow knows of it.

    :param dag_id: the DAG.
    :param run_id: the DAG run.
    :param task_id: the task.
    :param map_index: -1 for a task that is not mapped.
    :param dag_run_id: the DAG run's number.
    :param state: the task instance's state, in Airflow's words.
    :param seen_at: when the task last said where its run is: at its start, and once more when the try has ended.
    :param url: the run's page on its platform; empty where there is none.
    :param mark: what the task said of its run when it had started or found it: ``platform``, ``conn_id``, ``run_id``
        and ``kind``; empty of a task from before there was that. Anybody who writes XComs can have written it.
    :param report: the task's report; ``None`` while there is none.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    dag_run_id: int
    state: str
    seen_at: datetime
    url: str = ""
    mark: Mapping[str, Any] = field(default_factory=dict)
    report: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task that has runs.

    :param newest: when its newest run was last seen to begin.
    :param count: how many runs are stored.
    """

    dag_id: str
    task_id: str
    newest: datetime
    count: int


def dag_ids_with_runs(session: Session, allowed: Collection[str]) -> list[str]:
    """The DAGs that have runs, of those that may be seen.

    Compared here rather than in SQL, as an installation may have more DAGs than a statement takes parameters.

    :param session: a session of Airflow's database.
    :param allowed: the DAGs that the user may read.
    """
    found = session.scalars(select(XComModel.dag_id).where(XComModel.key == URL_KEY).distinct())
    return sorted(set(found) & set(allowed))


def recent_runs(
    session: Session,
    dag_ids: Collection[str],
    *,
    limit: int,
    task_id: str | None = None,
    before: tuple[datetime, int, str, int] | None = None,
) -> list[StoredRun]:
    """Runs, newest first, with their reports. Two queries.

    :param session: a session of Airflow's database.
    :param dag_ids: the DAGs to look at.
    :param limit: how many at most.
    :param task_id: only this task's.
    :param before: the place after which to go on, as :func:`place_of` gives it.
    """
    if not dag_ids:
        return []
    order = (_started.timestamp, _started.dag_run_id, _started.task_id, _started.map_index)
    query = _runs(select(*_columns()), dag_ids)
    if task_id is not None:
        query = query.where(_started.task_id == task_id)
    if before is not None:
        # Not a comparison of tuples: that uses no index on some databases, and is not known to others.
        query = query.where(
            or_(
                *(
                    and_(*(order[i] == before[i] for i in range(last)), order[last] < before[last])
                    for last in range(len(order))
                )
            )
        )
    rows = session.execute(query.order_by(*(desc(each) for each in order)).limit(limit)).all()
    return _with_reports(session, rows)


def recent_tasks(
    session: Session, dag_ids: Collection[str], *, limit: int, before: tuple[datetime, str, str] | None = None
) -> list[StoredTask]:
    """Tasks that have runs, the one with the newest run first. One query.

    :param before: the last one of the page before: its newest run, its DAG and its id.
    """
    if not dag_ids:
        return []
    newest = func.max(_started.timestamp)
    columns: tuple[Any, ...] = (_started.dag_id, _started.task_id, newest, func.count())
    query = _runs(select(*columns), dag_ids)
    query = query.group_by(_started.dag_id, _started.task_id)
    if before is not None:
        when, dag_id, task_id = before
        query = query.having(
            or_(
                newest < when,
                and_(newest == when, _started.dag_id < dag_id),
                and_(newest == when, _started.dag_id == dag_id, _started.task_id < task_id),
            )
        )
    query = query.order_by(desc(newest), desc(_started.dag_id), desc(_started.task_id)).limit(limit)
    return [StoredTask(*row) for row in session.execute(query).all()]


def newest_runs(session: Session, tasks: Sequence[StoredTask], *, each: int) -> dict[tuple[str, str], list[StoredRun]]:
    """The newest runs of some tasks, newest first, with their reports. Two queries for all of them.

    :param tasks: as :func:`recent_tasks` gives them.
    :param each: how many of each task at most.
    :return: by DAG and task.
    """
    found: dict[tuple[str, str], list[StoredRun]] = {(task.dag_id, task.task_id): [] for task in tasks}
    if not found:
        return found
    newest: tuple[Any, ...] = (desc(_started.timestamp), desc(_started.dag_run_id), desc(_started.map_index))
    place = func.row_number().over(partition_by=(_started.dag_id, _started.task_id), order_by=newest)
    query = _runs(select(*_columns(), place.label("place")), {task.dag_id for task in tasks})
    inner = query.where(tuple_(_started.dag_id, _started.task_id).in_(list(found))).subquery()
    rows = session.execute(select(*list(inner.c)[:-1]).where(inner.c.place <= each).order_by(inner.c.place)).all()
    for run in _with_reports(session, rows):
        found[run.dag_id, run.task_id].append(run)
    return found


def place_of(run: StoredRun) -> tuple[datetime, int, str, int]:
    """Where a run is in the order of :func:`recent_runs`."""
    return run.seen_at, run.dag_run_id, run.task_id, run.map_index


def _columns() -> list[Any]:
    return [
        _started.dag_id,
        _started.run_id,
        _started.task_id,
        _started.map_index,
        _started.dag_run_id,
        TaskInstance.state,
        _started.timestamp,
    ]


def _runs(query: Select[Any], dag_ids: Collection[str]) -> Select[Any]:
    same = ("dag_run_id", "task_id", "map_index")
    is_task = and_(
        TaskInstance.dag_id == _started.dag_id,
        TaskInstance.task_id == _started.task_id,
        TaskInstance.run_id == _started.run_id,
        TaskInstance.map_index == _started.map_index,
    )
    is_mark = and_(*(getattr(_mark, name) == getattr(_started, name) for name in same), _mark.key == TEST_RUN_KEY)
    return (
        query.select_from(_started)
        .join(TaskInstance, is_task)
        .outerjoin(_mark, is_mark)
        .where(
            _started.key == URL_KEY,
            _started.dag_id.in_(sorted(dag_ids)),
            or_(_mark.key.is_not(None), TaskInstance.operator.in_(sorted(_BEFORE_MARKS))),
        )
    )


def _with_reports(session: Session, rows: Sequence[Any]) -> list[StoredRun]:
    if not rows:
        return []
    table, keys = XComModel, (URL_KEY, TEST_RUN_KEY, _RETURN_KEY)
    wanted = [(row.dag_run_id, row.task_id, row.map_index) for row in rows]
    value = _bounded(table.value).label("value")
    query = select(table.dag_run_id, table.task_id, table.map_index, table.key, value).where(
        tuple_(table.dag_run_id, table.task_id, table.map_index).in_(wanted), table.key.in_(keys)
    )
    values = {tuple(row[:4]): row.value for row in session.execute(query)}
    runs = []
    for row, place in zip(rows, wanted, strict=True):
        url = _plain(values.get((*place, URL_KEY)))
        mark = _plain(values.get((*place, TEST_RUN_KEY)))
        report = _plain(values.get((*place, _RETURN_KEY)))
        known = isinstance(report, dict) and _RATE in report and isinstance(report.get("verdict"), str)
        runs.append(
            StoredRun(
                dag_id=row.dag_id,
                run_id=row.run_id,
                task_id=row.task_id,
                map_index=row.map_index,
                dag_run_id=row.dag_run_id,
                state=str(row.state or ""),
                seen_at=row.timestamp,
                url=url if isinstance(url, str) else "",
                mark=mark if isinstance(mark, dict) else {},
                report=report if known else None,
            )
        )
    return runs


def _bounded(value: Any) -> Any:
    """A stored value as the JSON that it is, ``NULL`` where it is too long; the database sees to it."""
    text = cast(value, Text)
    return case((func.length(text) <= _LONGEST, text))


def _plain(value: Any) -> Any:
    """An XCom's value from its JSON, which some versions of Airflow store as a text in JSON; ``None`` for what is
    none, or is too long or too deep."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                # What is in the text is a text.
                break
    return value
