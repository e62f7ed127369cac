"""What a version of the provider stores in Airflow's database, caught in all its forms as it is written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

#: Triggers of the database itself write down each value, so that none that lasts for a moment only is missed.
_SCHEMA = """
CREATE TABLE form (n INTEGER PRIMARY KEY, kind TEXT, task_id TEXT, name TEXT, value TEXT);
CREATE TRIGGER form_trigger AFTER INSERT ON "trigger" BEGIN
    INSERT INTO form (kind, name, value) VALUES ('trigger', new.classpath, new.kwargs);
END;
CREATE TRIGGER form_record_new AFTER INSERT ON task_state_store BEGIN
    INSERT INTO form (kind, task_id, name, value) VALUES ('record', new.task_id, new."key", new.value);
END;
CREATE TRIGGER form_record AFTER UPDATE ON task_state_store BEGIN
    INSERT INTO form (kind, task_id, name, value) VALUES ('record', new.task_id, new."key", new.value);
END;
CREATE TRIGGER form_xcom AFTER INSERT ON xcom BEGIN
    INSERT INTO form (kind, task_id, name, value) VALUES ('xcom', new.task_id, new."key", new.value);
END;
CREATE TRIGGER form_next AFTER UPDATE ON task_instance
WHEN new.next_method IS NOT NULL AND (old.next_kwargs IS NOT new.next_kwargs OR old.next_method IS NOT new.next_method)
BEGIN
    INSERT INTO form (kind, task_id, name, value) VALUES ('next', new.task_id, new.next_method, new.next_kwargs);
END;
"""


class Forms:
    """Catches what is stored.

    :param database: Airflow's SQLite file.
    """

    def __init__(self, database: Path) -> None:
        self._database = database

    def begin(self) -> None:
        """Write down from now on."""
        with self._open() as connection:
            # Else whoever reads keeps all others from writing.
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.executescript(_SCHEMA)

    def states(self, run_id: str) -> dict[str, str | None]:
        """The states of a DAG run's tasks."""
        return dict(self._all("SELECT task_id, state FROM task_instance WHERE run_id = ?", run_id))

    def results(self, run_id: str) -> dict[str, Any]:
        """What a DAG run's tasks have returned."""
        rows = self._all("SELECT task_id, value FROM xcom WHERE run_id = ? AND \"key\" = 'return_value'", run_id)
        return {task_id: json.loads(value) for task_id, value in rows}

    def records(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The records of a DAG run's tasks."""
        rows = self._all("SELECT task_id, value FROM task_state_store WHERE run_id = ?", run_id)
        return {task_id: _record(value) for task_id, value in rows}

    def caught(self) -> dict[str, list[dict[str, Any]]]:
        """One of each form: of those of one task that have the same names and the same phase, the first."""
        found: dict[str, dict[str, dict[str, Any]]] = {"trigger": {}, "record": {}, "xcom": {}, "next": {}}
        for kind, task_id, name, value in self._all("SELECT kind, task_id, name, value FROM form ORDER BY n"):
            read = _record if kind == "record" else json.loads
            data = read(value) if value is not None else None
            found[kind].setdefault(_shape(kind, task_id, name, data), {"task": task_id, "name": name, "value": data})
        return {kind: list(forms.values()) for kind, forms in found.items()}

    def _all(self, statement: str, *parameters: str) -> list[Any]:
        with self._open() as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._database, timeout=60)) as connection:
            yield connection


def _record(value: str) -> dict[str, Any]:
    data = json.loads(value)
    # The store keeps JSON text of whatever it was given.
    record: dict[str, Any] = json.loads(data) if isinstance(data, str) else data
    return record


def _shape(kind: str, task_id: str | None, name: str, data: Any) -> str:
    """What two values that are the same form have in common."""
    if kind == "record":
        return f"{task_id} {data['phase']} {data['seen']}"
    if kind == "trigger":
        return f"{data['platform']} {data['run'].get('kind')} {data['run'].get('context')} {sorted(data)}"
    event = data.get("event", {}) if kind == "next" and isinstance(data, dict) else {}
    return f"{task_id} {name} {event.get('status')}"
