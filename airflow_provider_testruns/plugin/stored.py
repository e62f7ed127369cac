"""Finding test runs in Airflow's database, a page at a time, with a bounded number of queries.

Every task that starts or watches a run pushes the XCom ``test_run``, which marks it, beside ``run_url``, which Airflow
writes once more when the try has ended; and it returns its report under ``return_value`` of the same task instance. So
runs are found by an index over the keys of XComs, and the reports, which are what is large, are read for the page
alone. Airflow removes a task instance's XComs when its next try begins: what is here is the last try.

The newest runs are looked for in batches. The index leads to all runs, and only a batch of them is joined to task
instances and marks: few XComs of that name are of other tasks, so the first batch is nearly always enough.

Where Airflow stores XComs by task instance, every try is a run of its own, with its own report.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import Text, and_, case, cast, desc, func, or_, select, tuple_, union
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

#: From how many DAGs on it is not the database that picks their runs: longer statements take it longer than more runs.
_MANY_DAGS = 500
#: How many times as many runs each batch has as the one before.
_GROWTH = 4
#: The columns that an XCom and a task instance share, and those by which XComs of one task instance are found.
_PLACE = ("dag_id", "task_id", "run_id", "map_index")
_SAME = ("dag_run_id", "task_id", "map_index")


class Tables:
    """Airflow's tables, and how they hang together in the version that is installed.

    :param xcom: the model of an XCom.
    :param task_instance: the model of a task instance.
    """

    def __init__(self, xcom: Any = XComModel, task_instance: Any = TaskInstance) -> None:
        self.xcom = xcom
        self.task_instance = task_instance
        #: Whether XComs name their task instance, of which there may then be several of the same place: one a try.
        self.by_instance = hasattr(xcom, "task_instance_id")
        self.started = aliased(xcom, name="started")
        self.mark = aliased(xcom, name="mark")

    def same(self, one: Any, other: Any) -> Any:
        """The condition that two XComs are of the same task instance."""
        names = ("task_instance_id",) if self.by_instance else _SAME
        return and_(*(getattr(one, name) == getattr(other, name) for name in names))

    def of_task(self, xcom: Any) -> Any:
        """The condition that an XCom is of a task instance."""
        if self.by_instance:
            return self.task_instance.id == xcom.task_instance_id
        return and_(*(getattr(self.task_instance, name) == getattr(xcom, name) for name in _PLACE))

    def key(self, xcom: Any) -> tuple[Any, ...]:
        """The columns that tell the XComs of one task instance from those of others."""
        return (xcom.task_instance_id,) if self.by_instance else tuple(getattr(xcom, name) for name in _SAME)


_tables = Tables()


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
    :param instance: the id of the task instance.
    :param elsewhere: whether there may be a report that a custom XCom backend keeps: what the database has of it is for
        that backend alone. Its ``url`` and ``mark`` are then likely to be empty, too.
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
    instance: str = ""
    elsewhere: bool = False


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
    xcom = _tables.xcom
    found = {row.dag_id for row in _rows(session, select(xcom.dag_id).where(xcom.key == URL_KEY).distinct())}
    return sorted(found & set(allowed))


def _rows(session: Session, query: Any) -> Sequence[Any]:
    """What a query finds: of tasks all tries, where Airflow keeps them (3.4) and shows the last only unless asked."""
    return session.execute(query, execution_options={"include_all_attempts": True}).all()


def recent_runs(
    session: Session,
    dag_ids: Collection[str],
    *,
    limit: int,
    task_id: str | None = None,
    before: tuple[datetime, int, str, int] | None = None,
) -> list[StoredRun]:
    """Runs, newest first, with their reports. Two queries, and one more for each batch that was not enough.

    :param session: a session of Airflow's database.
    :param dag_ids: the DAGs to look at.
    :param limit: how many at most.
    :param task_id: only this task's.
    :param before: the position after which to continue, as :func:`place_of` gives it.
    """
    chosen = set(dag_ids)
    rows: list[Any] = []
    size = limit
    while chosen:
        batch = _rows(session, _batch(chosen, task_id, before, size))
        rows += [row for row in batch if row.dag_id in chosen and _is_run(row)]
        if len(rows) >= limit or len(batch) < size:
            break
        last = batch[-1]
        before = (last.timestamp, last.dag_run_id, last.task_id, last.map_index)
        size *= _GROWTH
    return _with_reports(session, rows[:limit])


def _batch(
    dag_ids: Collection[str], task_id: str | None, before: tuple[datetime, int, str, int] | None, size: int
) -> Select[Any]:
    """The newest XComs that a run may be known by, with their task instances and marks."""
    started = _tables.started
    order = (started.timestamp, started.dag_run_id, started.task_id, started.map_index)
    query = _of_dags(select(started).where(started.key == URL_KEY), started, dag_ids)
    if task_id is not None:
        query = query.where(started.task_id == task_id)
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
    query = query.with_only_columns(*(getattr(started, name) for name in _columns_of_xcom()))
    newest = query.order_by(*(desc(each) for each in order)).limit(size).subquery("newest")
    found = _with_task(select(*_columns(newest.c)), newest.c)
    return found.order_by(*(desc(newest.c[each.key]) for each in order))


def _columns_of_xcom() -> list[str]:
    names = ["dag_id", "run_id", "task_id", "map_index", "dag_run_id", "timestamp"]
    return [*names, "task_instance_id"] if _tables.by_instance else names


def _columns(started: Any) -> list[Any]:
    names = [getattr(started, name) for name in ("dag_id", "run_id", "task_id", "map_index", "dag_run_id", "timestamp")]
    task = _tables.task_instance
    return [*names, task.id.label("instance"), task.state, task.operator, _tables.mark.key.label("marked")]


def _with_task(query: Select[Any], started: Any) -> Select[Any]:
    mark = _tables.mark
    return query.join(_tables.task_instance, _tables.of_task(started)).outerjoin(
        mark, and_(_tables.same(mark, started), mark.key == TEST_RUN_KEY)
    )


def _of_dags(query: Select[Any], xcom: Any, dag_ids: Collection[str]) -> Select[Any]:
    """The same of some DAGs; of all of them where there are many, for whoever asks to pick."""
    return query if len(dag_ids) > _MANY_DAGS else query.where(xcom.dag_id.in_(sorted(dag_ids)))


def _is_run(row: Any) -> bool:
    """Whether what has the name of a run's XCom is one."""
    return row.marked is not None or row.operator in _BEFORE_MARKS


def recent_tasks(
    session: Session, dag_ids: Collection[str], *, limit: int, before: tuple[datetime, str, str] | None = None
) -> list[StoredTask]:
    """Tasks that have runs, the one with the newest run first. Two queries for each batch, nearly always one.

    :param session: a session of Airflow's database.
    :param dag_ids: the DAGs to look at.
    :param limit: how many at most.
    :param before: the last one of the page before: its newest run, its DAG and its id.
    """
    chosen = set(dag_ids)
    found: list[StoredTask] = []
    size = limit
    while chosen:
        batch = [StoredTask(*row) for row in _rows(session, _batch_of_tasks(chosen, before, size))]
        tests = _test_tasks(session, [(task.dag_id, task.task_id) for task in batch if task.dag_id in chosen])
        found += [task for task in batch if (task.dag_id, task.task_id) in tests]
        if len(found) >= limit or len(batch) < size:
            break
        before = (batch[-1].newest, batch[-1].dag_id, batch[-1].task_id)
        size *= _GROWTH
    return found[:limit]


def _batch_of_tasks(dag_ids: Collection[str], before: tuple[datetime, str, str] | None, size: int) -> Select[Any]:
    """The tasks with the newest XComs that a run may be known by."""
    started = _tables.started
    newest = func.max(started.timestamp)
    columns: tuple[Any, ...] = (started.dag_id, started.task_id, newest, func.count())
    query = _of_dags(select(*columns).where(started.key == URL_KEY), started, dag_ids)
    query = query.group_by(started.dag_id, started.task_id)
    if before is not None:
        when, dag_id, task_id = before
        query = query.having(
            or_(
                newest < when,
                and_(newest == when, started.dag_id < dag_id),
                and_(newest == when, started.dag_id == dag_id, started.task_id < task_id),
            )
        )
    return query.order_by(desc(newest), desc(started.dag_id), desc(started.task_id)).limit(size)


def _test_tasks(session: Session, tasks: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of some tasks, which all have XComs of that name, have runs."""
    if not tasks:
        return set()
    mark, task = _tables.mark, _tables.task_instance
    marked = select(mark.dag_id, mark.task_id).where(
        tuple_(mark.dag_id, mark.task_id).in_(tasks), mark.key == TEST_RUN_KEY
    )
    older = select(task.dag_id, task.task_id).where(
        tuple_(task.dag_id, task.task_id).in_(tasks), task.operator.in_(sorted(_BEFORE_MARKS))
    )
    return {(row.dag_id, row.task_id) for row in _rows(session, union(marked, older))}


def newest_runs(session: Session, tasks: Sequence[StoredTask], *, each: int) -> dict[tuple[str, str], list[StoredRun]]:
    """The newest runs of some tasks, newest first, with their reports. Two queries for all of them.

    :param session: a session of Airflow's database.
    :param tasks: as :func:`recent_tasks` gives them.
    :param each: how many of each task at most.
    :return: by DAG and task.
    """
    found: dict[tuple[str, str], list[StoredRun]] = {(task.dag_id, task.task_id): [] for task in tasks}
    if not found:
        return found
    started = _tables.started
    newest: tuple[Any, ...] = (desc(started.timestamp), desc(started.dag_run_id), desc(started.map_index))
    place = func.row_number().over(partition_by=(started.dag_id, started.task_id), order_by=newest)
    query = _with_task(select(*_columns(started), place.label("place")).select_from(started), started)
    inner = query.where(
        started.key == URL_KEY,
        tuple_(started.dag_id, started.task_id).in_(list(found)),
        or_(_tables.mark.key.is_not(None), _tables.task_instance.operator.in_(sorted(_BEFORE_MARKS))),
    ).subquery()
    rows = _rows(session, select(*list(inner.c)[:-1]).where(inner.c.place <= each).order_by(inner.c.place))
    for run in _with_reports(session, rows):
        found[run.dag_id, run.task_id].append(run)
    return found


def place_of(run: StoredRun) -> tuple[datetime, int, str, int]:
    """Where a run is in the order of :func:`recent_runs`."""
    return run.seen_at, run.dag_run_id, run.task_id, run.map_index


def _with_reports(session: Session, rows: Sequence[Any]) -> list[StoredRun]:
    if not rows:
        return []
    table, keys = _tables.xcom, (URL_KEY, TEST_RUN_KEY, _RETURN_KEY)
    columns = _tables.key(table)
    wanted: list[Any] = [
        row.instance if _tables.by_instance else (row.dag_run_id, row.task_id, row.map_index) for row in rows
    ]
    # One list for each column, and not one of tuples: for hundreds of those PostgreSQL takes half a second to think.
    # The few others that fit are passed over.
    values_of = [wanted] if _tables.by_instance else [sorted(set(each)) for each in zip(*wanted, strict=True)]
    these = and_(*(column.in_(each) for column, each in zip(columns, values_of, strict=True)))
    query = select(*columns, table.key, _bounded(table.value).label("value")).where(these, table.key.in_(keys))
    values = {(row[0] if _tables.by_instance else tuple(row[:3]), row.key): row.value for row in _rows(session, query)}
    elsewhere = _custom_backend()
    runs = []
    for row, place in zip(rows, wanted, strict=True):
        url = _plain(values.get((place, URL_KEY)))
        mark = _plain(values.get((place, TEST_RUN_KEY)))
        report = _plain(values.get((place, _RETURN_KEY)))
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
                instance=str(row.instance),
                elsewhere=elsewhere and not known and (place, _RETURN_KEY) in values,
            )
        )
    return runs


def _custom_backend() -> bool:
    """Whether XComs are kept by something else than Airflow itself."""
    backend = conf.get("core", "xcom_backend", fallback="BaseXCom")
    return str(backend).rpartition(".")[2] != "BaseXCom"


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
