"""What the page "Test runs" costs a large database: ``python -m benchmarks.pages URL`` fills it, and measures.

``URL`` is SQLAlchemy's, of an empty database of PostgreSQL, MySQL or MariaDB; its tables are Airflow's own. For each
page it prints how many queries it takes and how long the database is at it, and with ``--plans`` how it does it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session

from airflow_provider_testruns.plugin import stored

#: How often each page is asked for; the median counts.
TIMES = 5
_MARK = {"platform": "omilia", "conn_id": "omilia_default", "run_id": "run", "kind": "run"}
_REPORT = {
    "platform": "omilia",
    "run_id": "run",
    "verdict": "failed",
    "raw_state": "SUCCESS",
    "url": "https://studio.example.com/runs/run",
    "started_at": "2026-11-01T10:00:00+00:00",
    "finished_at": "2026-11-01T10:20:00+00:00",
    "duration": 1200.0,
    "total": 40,
    "passed": 37,
    "failed": 3,
    "unavailable": 0,
    "not_run": 0,
    "pass_rate": 0.925,
    "failures": [{"name": f"case {n}", "suite": "Payments", "message": "expected 1, found 2; " * 10} for n in range(3)],
    "failures_left_out": 0,
    "metrics": {},
}
#: Of each database: a time so many seconds after the first, an id from a number, and a text as JSON.
_DIALECTS = {
    "postgresql": (
        "TIMESTAMP WITH TIME ZONE '2026-01-01 00:00:00+00' + {n} * INTERVAL '1 second'",
        "CAST(LPAD(TO_HEX({n}), 32, '0') AS UUID)",
        "CAST({text} AS JSONB)",
    ),
    "mysql": ("TIMESTAMP '2026-01-01 00:00:00' + INTERVAL {n} SECOND", "LPAD(HEX({n}), 32, '0')", "{text}"),
}


def fill(engine: Engine, runs: int, dags: int, others: int) -> None:
    """Store runs with their XComs, and as many XComs of other tasks.

    :param engine: of an empty database.
    :param runs: how many test runs.
    :param dags: of how many DAGs they are, with four tasks each.
    :param others: how many XComs of other tasks there are, and task instances for every second of them.
    """
    mysql = engine.dialect.name == "mysql"
    # Rows of a few tables are enough: foreign keys are not looked at.
    off = "SET foreign_key_checks = 0" if mysql else "SET session_replication_role = replica"
    moment, number, as_json = _DIALECTS[engine.dialect.name]
    tables: Any = [TaskInstance.__table__, XComModel.__table__]
    for table in tables:
        table.foreign_keys.clear()
    key = '"key"' if engine.dialect.name == "postgresql" else "`key`"
    with engine.begin() as connection:
        connection.execute(text(off))
        for table in tables:
            table.constraints = {each for each in table.constraints if type(each).__name__ != "ForeignKeyConstraint"}
            table.create(connection)
        connection.execute(text("CREATE TABLE digits (d INTEGER)"))
        connection.execute(text(f"INSERT INTO digits VALUES {', '.join(f'({d})' for d in range(10))}"))
        numbers = "SELECT a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d + 100000*g.d AS n FROM " + ", ".join(
            f"digits {name}" for name in "abcefg"
        )
        for count, dag, task, operator, first in (
            (runs, f"CONCAT('tests_', MOD(n, {dags}))", "CONCAT('test_', MOD(n, 4))", "OmiliaCreateRunOperator", 0),
            (others // 2, "CONCAT('other_', MOD(n, 500))", "CONCAT('task_', MOD(n, 7))", "BashOperator", 1_000_000),
        ):
            connection.execute(
                text(
                    "INSERT INTO task_instance (id, dag_id, task_id, run_id, map_index, state, operator, pool,"
                    " pool_slots, max_tries, try_number, span_status, priority_weight, queue, hostname, unixname,"
                    f" executor_config, custom_operator_name) SELECT {number.format(n=f'(n+{first})')}, {dag},"
                    f" {task}, CONCAT('scheduled__', n), -1, 'success', '{operator}', 'default_pool', 1, 0, 1, 'ended',"
                    f" 1, 'default', 'worker', 'airflow', '', '{operator}' FROM ({numbers}) AS numbers"
                    f" WHERE n < {count}"
                )
            )
        rows: list[tuple[str, int, str, str, str, Any, int]] = [
            (name, runs, f"CONCAT('tests_', MOD(n, {dags}))", "CONCAT('test_', MOD(n, 4))", "n", value, 0)
            for name, value in (
                ("run_url", "https://studio.example.com/runs/run"),
                ("test_run", _MARK),
                ("return_value", _REPORT),
            )
        ]
        rows += [
            (name, others // 2, "CONCAT('other_', MOD(n, 500))", "CONCAT('task_', MOD(n, 7))", "n", value, 1_000_000)
            for name, value in (("return_value", "x" * 200), ("skipmixin_key", [1, 2]))
        ]
        for name, count, dag, task, at, value, first in rows:
            connection.execute(
                text(
                    f"INSERT INTO xcom (dag_run_id, task_id, map_index, {key}, dag_id, run_id, value,"
                    f" {_quoted(engine)}) SELECT n+1+{first}, {task}, -1, '{name}', {dag}, CONCAT('scheduled__', n),"
                    f" {as_json.format(text=':value')}, {moment.format(n=at)} FROM ({numbers}) AS numbers"
                    f" WHERE n < {count}"
                ),
                {"value": json.dumps(value)},
            )
        connection.execute(text("DROP TABLE digits"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ("task_instance", "xcom"):
            connection.execute(text(f"ANALYZE {'TABLE ' if engine.dialect.name == 'mysql' else ''}{table}"))


def _quoted(engine: Engine) -> str:
    return '"timestamp"' if engine.dialect.name == "postgresql" else "`timestamp`"


def pages(dag_ids: list[str]) -> dict[str, Callable[[Session], Any]]:
    """What each page asks of the database, by what it shows.

    :param dag_ids: the DAGs that the user may read.
    """

    def found(session: Session) -> list[str]:
        return stored.dag_ids_with_runs(session, dag_ids)

    def tasks(session: Session) -> Any:
        shown = stored.recent_tasks(session, found(session), limit=26)[:25]
        return stored.newest_runs(session, shown, each=30)

    def older(session: Session) -> Any:
        known = found(session)
        last = stored.recent_runs(session, known, limit=2_000)[-1]
        measured.clear()
        return stored.recent_runs(session, known, limit=51, before=stored.place_of(last))

    return {
        "the newest runs of all DAGs": lambda session: stored.recent_runs(session, found(session), limit=51),
        "their page 40": older,
        "of one DAG": lambda session: stored.recent_runs(session, [dag_ids[7]], limit=51),
        "of one task": lambda session: stored.recent_runs(session, [dag_ids[7]], limit=51, task_id="test_3"),
        "the trends of all tasks": tasks,
    }


#: The statements of the page that is asked for, their parameters, and how long each took; seconds.
measured: list[tuple[str, Any, float]] = []


def watch(engine: Engine) -> None:
    """Keep what is asked of the database in :data:`measured`."""

    @event.listens_for(engine, "before_cursor_execute")
    def before(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        context.began = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        measured.append((statement, parameters, time.perf_counter() - context.began))


def main() -> None:
    """Fill a database, unless it is filled, and measure."""
    parser = argparse.ArgumentParser(prog="benchmarks.pages")
    parser.add_argument("url")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--dags", type=int, default=5_000)
    parser.add_argument("--others", type=int, default=400_000)
    parser.add_argument("--filled", action="store_true", help="the database is that of an earlier run")
    parser.add_argument("--plans", action="store_true", help="print how the database does it")
    asked = parser.parse_args()
    engine = create_engine(asked.url)
    if not asked.filled:
        fill(engine, asked.runs, asked.dags, asked.others)
    watch(engine)
    for name, page in pages([f"tests_{n}" for n in range(asked.dags)] + [f"other_{n}" for n in range(500)]).items():
        took: list[tuple[float, int]] = []
        for _ in range(TIMES):
            with Session(engine) as session:
                measured.clear()
                page(session)
                statements = list(measured)
                took.append((sum(seconds for _, _, seconds in statements), len(statements)))
        seconds, count = sorted(took)[TIMES // 2]
        print(f"{name}: {seconds * 1000:.0f} ms in {count} queries", flush=True)
        if asked.plans:
            with engine.connect() as connection:
                for statement, parameters, each in statements:
                    analyze = "ANALYZE" if engine.dialect.name == "mysql" else "EXPLAIN (ANALYZE, COSTS OFF)"
                    lines = [
                        str(row[0]) if len(row) == 1 else str(tuple(row))
                        for row in connection.exec_driver_sql(f"{analyze} {statement}", parameters)
                    ]
                    print(
                        f"  {each * 1000:.0f} ms: {' '.join(statement.split())[:900]}\n    "
                        + "\n    ".join(line[:220] for line in lines)
                    )


if __name__ == "__main__":
    main()
