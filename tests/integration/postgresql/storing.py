"""Two waits in one event loop, of which a hostile platform answers one; and what they leave, stored as Airflow does.

Run as a process of its own, with Airflow's database in PostgreSQL: ``python -m tests.integration.postgresql.storing``.
Prints what was read back, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What JSON can spell and PostgreSQL, or any encoder, does not take.
HOSTILE = "half \ud800 of a pair, NUL \x00, \x1b[31mred\x1b[0m\nERROR - a line that is not ours"
_DAG, _RUN = "hostile", "manual"
_hostile_is_over = threading.Event()


class _Platform(BaseHTTPRequestHandler):
    """Omilia, of which one run is answered with a hostile error, and the other is final once that has been stored."""

    def do_GET(self) -> None:
        run_id = self.path.rsplit("/", 1)[-1]
        if run_id == "hostile":
            self._answer(403, {"detail": HOSTILE})
            return
        status = "SUCCESS" if _hostile_is_over.is_set() else "STARTED"
        self._answer(200, {"data": {"runId": run_id, "status": status, "projectId": "p-1", "description": HOSTILE}})

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


def _tables(engine: Any) -> None:
    """Airflow's tables, of which rows of a few are enough."""
    from airflow.models import import_all_models
    from airflow.models.base import Base

    from tests.harness.postgresql import ignore_foreign_keys

    import_all_models()
    Base.metadata.create_all(engine)
    ignore_foreign_keys(engine)
    engine.dispose()


def _waiting_task(session: Any, task_id: str) -> Any:
    """The row of a deferred task."""
    from airflow.models.taskinstance import TaskInstance

    row = {"id": uuid.uuid4(), "dag_id": _DAG, "run_id": _RUN, "task_id": task_id, "map_index": -1, "state": "deferred"}
    more = {"next_method": "execute_complete", "try_number": 1, "pool": "default_pool", "queue": "default"}
    session.execute(TaskInstance.__table__.insert().values(**row, **more))
    return row["id"]


async def _events(url: str) -> dict[str, Any]:
    """The events of both waits, by run; the second ends after the first has."""
    from airflow_provider_testruns.model import Run, RunState
    from airflow_provider_testruns.triggers.run import RunTrigger

    os.environ["AIRFLOW_CONN_CON"] = json.dumps({"conn_type": "omilia", "host": url, "password": "canary-of-a-token"})
    events: dict[str, Any] = {}

    async def wait(run_id: str) -> None:
        run = Run("omilia", run_id, RunState.QUEUED, "PENDING", ids={"project_id": "p-1"})
        trigger = RunTrigger("omilia", "con", run.to_dict(), time.time() + 120, 0.1)
        events[run_id] = [event async for event in trigger.run()]
        if run_id == "hostile":
            _hostile_is_over.set()

    async with asyncio.timeout(110), asyncio.TaskGroup() as waits:
        waits.create_task(wait("hostile"))
        waits.create_task(wait("other"))
    assert list(events) == ["hostile", "other"]
    return events


def _left_behind() -> tuple[Any, Any]:
    """The XCom and the record of a run whose cases have hostile names."""
    from airflow_provider_testruns.cleaning import outgoing_json
    from airflow_provider_testruns.judging import Gates, judge
    from airflow_provider_testruns.model import CaseResult, Metric, Outcome, Run, RunReport, RunState
    from airflow_provider_testruns.reporting.xcom import to_xcom
    from airflow_provider_testruns.tasks.record import TaskStateRecordStore

    run = Run("omilia", "r-1", RunState.FINISHED, HOSTILE, message=HOSTILE, started_with={"description": HOSTILE})
    cases = (CaseResult(HOSTILE, Outcome.FAILED, message=HOSTILE, suite=HOSTILE), CaseResult("a", Outcome.PASSED))
    report = RunReport(run, None, cases, {HOSTILE: Metric(0.5)})
    kept: list[Any] = []

    class Accessor:
        def set(self, key: str, value: Any) -> None:
            kept.append(value)

    TaskStateRecordStore(Accessor()).write({"run": run.to_dict(), "cannot_list": HOSTILE})
    return outgoing_json(to_xcom(report, judge(report, Gates()))), kept[0]


def main() -> None:
    from airflow import settings
    from airflow.models.dagrun import DagRun
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.models.xcom import XComModel
    from sqlalchemy import func, select
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.orm import Session

    engine = settings.engine
    _tables(engine)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Platform)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    events = asyncio.run(_events(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()
    server.server_close()
    xcom, record = _left_behind()
    place = {"dag_run_id": 1, "dag_id": _DAG, "run_id": _RUN, "task_id": "hostile", "map_index": -1}
    told: dict[str, Any] = {"events": {name: len(found) for name, found in events.items()}}

    with Session(engine) as session:
        row = {"id": 1, "dag_id": _DAG, "run_id": _RUN, "run_type": "manual", "run_after": func.now()}
        session.execute(DagRun.__table__.insert().values(**row))
        ids = {name: _waiting_task(session, name) for name in events}
        session.commit()
        # What Airflow would store without us: the test would see the difference.
        try:
            session.add(XComModel(key="raw", value={"said": HOSTILE}, **place))
            session.commit()
            told["raw"] = "stored"
        except (DBAPIError, UnicodeEncodeError) as e:
            told["raw"] = type(e).__name__
            session.rollback()
        for name, (event,) in events.items():
            handle_event_submit(event, task_instance=session.get(TaskInstance, ids[name]), session=session)
            session.commit()
        session.add(XComModel(key="return_value", value=xcom, **place))
        session.add(TaskStateStoreModel(key="test_run", value=json.dumps(record), **place))
        session.commit()
    with Session(engine) as session:
        tasks = select(TaskInstance.task_id, TaskInstance.state, TaskInstance.next_kwargs)
        told["tasks"] = {name: [state, kwargs["event"]] for name, state, kwargs in session.execute(tasks)}
        told["xcom"] = session.scalar(select(XComModel.value))
        told["record"] = json.loads(session.scalar(select(TaskStateStoreModel.value)) or "null")
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
