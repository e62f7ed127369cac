"""What Airflow's database says about a run of faults, on PostgreSQL; see :mod:`tests.chaos.ledger`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg

from tests.chaos.ledger import Ledger, TaskKey, TaskRow
from tests.chaos.plan import DAG_ID

_NOW = "extract(epoch from clock_timestamp())::double precision"
_SCHEMA = f"""
CREATE TABLE chaos_record (
    n BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION, dag_id TEXT, task_id TEXT, map_index INTEGER, value TEXT
);
CREATE TABLE chaos_state (
    n BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION, task_id TEXT, map_index INTEGER, before TEXT, after TEXT,
    try_number INTEGER, max_tries INTEGER, triggerer INTEGER
);
CREATE FUNCTION chaos_note_record() RETURNS trigger AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO chaos_record (at, dag_id, task_id, map_index, value)
        VALUES ({_NOW}, old.dag_id, old.task_id, old.map_index, NULL);
    ELSE
        INSERT INTO chaos_record (at, dag_id, task_id, map_index, value)
        VALUES ({_NOW}, new.dag_id, new.task_id, new.map_index, new.value::text);
    END IF;
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER chaos_record AFTER INSERT OR UPDATE OR DELETE ON task_state_store
    FOR EACH ROW EXECUTE FUNCTION chaos_note_record();
CREATE FUNCTION chaos_note_state() RETURNS trigger AS $$ BEGIN
    INSERT INTO chaos_state (at, task_id, map_index, before, after, try_number, max_tries, triggerer)
    VALUES ({_NOW}, new.task_id, new.map_index, old.state, new.state, new.try_number, new.max_tries,
            (SELECT triggerer_id FROM "trigger" WHERE id = old.trigger_id));
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER chaos_state AFTER UPDATE ON task_instance
    FOR EACH ROW WHEN (old.state IS DISTINCT FROM new.state AND new.dag_id = '{DAG_ID}')
    EXECUTE FUNCTION chaos_note_state();
"""
#: How long a statement is tried again while the server is away; seconds.
_PATIENCE = 60.0


class _Connection:
    """Takes statements in the form that SQLite has them in."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        return self._connection.execute(cast(Any, statement.replace("?", "%s")), parameters or None)


class PostgreSQLLedger(Ledger):
    """The same of a PostgreSQL that other DAGs use, too.

    :param conninfo: how to connect, past PgBouncer and whatever cable is cut.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    @contextmanager
    def _open(self) -> Iterator[Any]:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                connection = psycopg.connect(self._conninfo, autocommit=True)
                break
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        with contextlib.closing(connection):
            yield _Connection(connection)

    def begin(self) -> None:
        """Write down from now on."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(cast(Any, _SCHEMA))

    def tasks(self) -> dict[TaskKey, TaskRow]:
        """The task instances as they stand."""
        statement = (
            "SELECT task_id, map_index, state, try_number, t.triggerer_id FROM task_instance ti"
            ' LEFT JOIN "trigger" t ON t.id = ti.trigger_id WHERE dag_id = ?'
        )
        with self._open() as connection:
            return {(row[0], row[1]): TaskRow(*row[2:]) for row in connection.execute(statement, (DAG_ID,))}

    def results(self) -> dict[TaskKey, dict[str, Any]]:
        """The return values."""
        statement = "SELECT task_id, map_index, value FROM xcom WHERE \"key\" = 'return_value' AND dag_id = ?"
        with self._open() as connection:
            return {(task_id, index): value for task_id, index, value in connection.execute(statement, (DAG_ID,))}

    def dump(self) -> str:
        """The whole database as text."""
        with self._open() as connection:
            tables = [
                name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            ]
            return "\n".join(
                str(row) for name in tables for (row,) in connection.execute(f'SELECT t::text FROM "{name}" t')
            )
