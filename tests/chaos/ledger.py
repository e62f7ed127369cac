"""What Airflow's database says about a storm: every change of a task's record and state, with its time.

Triggers of the database itself write them down, so that none is missed and none is made up.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NOW = "((julianday('now') - 2440587.5) * 86400.0)"
_SCHEMA = f"""
CREATE TABLE chaos_record (
    n INTEGER PRIMARY KEY, at REAL, dag_id TEXT, task_id TEXT, map_index INTEGER, value TEXT
);
CREATE TABLE chaos_state (
    n INTEGER PRIMARY KEY, at REAL, task_id TEXT, map_index INTEGER, before TEXT, after TEXT, try_number INTEGER,
    max_tries INTEGER, triggerer INTEGER
);
CREATE TRIGGER chaos_record_new AFTER INSERT ON task_state_store BEGIN
    INSERT INTO chaos_record (at, dag_id, task_id, map_index, value)
    VALUES ({_NOW}, new.dag_id, new.task_id, new.map_index, new.value);
END;
CREATE TRIGGER chaos_record_changed AFTER UPDATE ON task_state_store BEGIN
    INSERT INTO chaos_record (at, dag_id, task_id, map_index, value)
    VALUES ({_NOW}, new.dag_id, new.task_id, new.map_index, new.value);
END;
CREATE TRIGGER chaos_record_gone AFTER DELETE ON task_state_store BEGIN
    INSERT INTO chaos_record (at, dag_id, task_id, map_index, value)
    VALUES ({_NOW}, old.dag_id, old.task_id, old.map_index, NULL);
END;
CREATE TRIGGER chaos_state_changed AFTER UPDATE ON task_instance WHEN old.state IS NOT new.state BEGIN
    INSERT INTO chaos_state (at, task_id, map_index, before, after, try_number, max_tries, triggerer)
    VALUES ({_NOW}, new.task_id, new.map_index, old.state, new.state, new.try_number, new.max_tries,
            (SELECT triggerer_id FROM "trigger" WHERE id = old.trigger_id));
END;
"""

TaskKey = tuple[str, int]


@dataclass(frozen=True)
class RecordChange:
    """A write of a task's record; no data when it was removed."""

    at: float
    data: dict[str, Any] | None

    @property
    def epoch(self) -> tuple[int, ...] | None:
        """Its epoch, as written."""
        return tuple(self.data["epoch"]) if self.data else None

    @property
    def phase(self) -> str | None:
        """How far the start had come."""
        return self.data["phase"] if self.data else None

    @property
    def run_id(self) -> str | None:
        """The run, from ``started`` on."""
        return self.data["run"]["run_id"] if self.data and self.data["run"] else None


@dataclass(frozen=True)
class StateChange:
    """A change of a task instance's state.

    :param triggerer: the job that had the task's trigger before, if one had.
    """

    at: float
    before: str | None
    after: str | None
    try_number: int
    max_tries: int
    triggerer: int | None


@dataclass(frozen=True)
class TaskRow:
    """A task instance as it stands."""

    state: str | None
    try_number: int
    triggerer: int | None


class Ledger:
    """Reads, and makes Airflow's database write down.

    :param database: the SQLite file.
    """

    def __init__(self, database: Path) -> None:
        self.database = database

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.database, timeout=60)) as connection:
            yield connection

    def begin(self) -> None:
        """Write down from now on."""
        with self._open() as connection:
            # Else whoever reads keeps all others from writing, and under this load Airflow's API stands still.
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise RuntimeError(f"the database stays in mode {mode}")
            connection.executescript(_SCHEMA)

    def tasks(self) -> dict[TaskKey, TaskRow]:
        """All task instances as they stand."""
        statement = (
            "SELECT task_id, map_index, state, try_number, t.triggerer_id FROM task_instance ti"
            ' LEFT JOIN "trigger" t ON t.id = ti.trigger_id'
        )
        with self._open() as connection:
            return {(row[0], row[1]): TaskRow(*row[2:]) for row in connection.execute(statement)}

    def running(self, pid: int) -> tuple[TaskKey, str] | None:
        """The task instance that runs in a process, and how far its start has come: ``nothing``, or a phase."""
        statement = (
            "SELECT task_id, map_index, (SELECT value FROM chaos_record r WHERE r.task_id = ti.task_id"
            " AND r.map_index = ti.map_index ORDER BY n DESC LIMIT 1) FROM task_instance ti"
            " WHERE state = 'running' AND pid = ?"
        )
        with self._open() as connection:
            row = connection.execute(statement, (pid,)).fetchone()
        if row is None:
            return None
        data = _record(row[2])
        return (row[0], row[1]), data["phase"] if data else "nothing"

    def records(self, dag_id: str) -> dict[TaskKey, list[RecordChange]]:
        """Every change of the records of a DAG's tasks, oldest first."""
        found: dict[TaskKey, list[RecordChange]] = {}
        with self._open() as connection:
            for task_id, index, at, value in connection.execute(
                "SELECT task_id, map_index, at, value FROM chaos_record WHERE dag_id = ? ORDER BY n", (dag_id,)
            ):
                found.setdefault((task_id, index), []).append(RecordChange(at, _record(value)))
        return found

    def states(self) -> dict[TaskKey, list[StateChange]]:
        """Every change of every state, oldest first."""
        found: dict[TaskKey, list[StateChange]] = {}
        with self._open() as connection:
            for task_id, index, *rest in connection.execute(
                "SELECT task_id, map_index, at, before, after, try_number, max_tries, triggerer FROM chaos_state"
                " ORDER BY n"
            ):
                found.setdefault((task_id, index), []).append(StateChange(*rest))
        return found

    def results(self) -> dict[TaskKey, dict[str, Any]]:
        """The return values."""
        with self._open() as connection:
            rows = connection.execute("SELECT task_id, map_index, value FROM xcom WHERE \"key\" = 'return_value'")
            return {(task_id, index): json.loads(value) for task_id, index, value in rows}

    def dump(self) -> str:
        """The whole database as text."""
        with self._open() as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = (row for name in tables for row in connection.execute(f'SELECT * FROM "{name}"'))
            return "\n".join(" | ".join(_text(value) for value in row) for row in rows)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _record(value: str | None) -> dict[str, Any] | None:
    # The store keeps JSON text of whatever it was given.
    data = None if value is None else json.loads(value)
    record: dict[str, Any] | None = json.loads(data) if isinstance(data, str) else data
    return record
