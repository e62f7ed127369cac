"""The page "Test runs" over a database of its own, and what its HTML has in it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.base import Base
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, event, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from starlette.applications import Starlette
from starlette.routing import Mount

from airflow_provider_testruns.judging import judge
from airflow_provider_testruns.links.run import mark_test_run
from airflow_provider_testruns.model import CaseResult, Counts, Outcome, Run, RunReport, RunState
from airflow_provider_testruns.plugin.app import _session, build
from airflow_provider_testruns.reporting.xcom import to_xcom

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
OPERATOR = "OmiliaCreateRunOperator"


def report(number: int = 0, failing: tuple[str, ...] = (), total: int = 4, **changes: Any) -> dict[str, Any]:
    """A report as a task returns it."""
    run = Run("omilia", f"run-{number}", RunState.FINISHED, "SUCCESS", url=f"http://127.0.0.1/runs/{number}")
    cases = [CaseResult(name, Outcome.FAILED, message="expected 1, found 2", suite="Balance") for name in failing]
    counts = Counts(passed=total - len(failing), failed=len(failing))
    whole = RunReport(run, counts=counts, cases=tuple(cases))
    return to_xcom(whole, judge(whole)) | changes


def mark(number: int = 0, **changes: Any) -> dict[str, Any]:
    """The mark of a task that has started or found a run."""
    told: dict[str, Any] = {}
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda key, value: told.update({key: value}))}
    mark_test_run(context, Run("omilia", f"run-{number}", RunState.QUEUED, ""), "omilia_default")
    (value,) = told.values()
    return value | changes


class Manager:
    """Says who may see what.

    :param dag_ids: the DAGs that may be read.
    :param xcoms: whether XComs may be.
    """

    def __init__(self, dag_ids: set[str], xcoms: bool = True) -> None:
        self.dag_ids = dag_ids
        self.xcoms = xcoms
        #: The DAGs whose XComs may be read all the same, or may not.
        self.others: set[str] = set()

    def is_authorized_dag(self, **asked: Any) -> bool:
        assert asked["method"] == "GET"
        assert asked["access_entity"] is DagAccessEntity.XCOM
        details = asked.get("details")
        return self.xcoms is not (details is not None and details.id in self.others)

    def get_authorized_dag_ids(self, **asked: Any) -> set[str]:
        return self.dag_ids


class Page:
    """The application over a database of its own.

    :param engine: of an empty database; without, SQLite in memory.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        Base.metadata.create_all(self.engine)
        self.manager = Manager({"shop"})
        self.statements: list[str] = []
        event.listen(self.engine, "before_cursor_execute", self._note)
        app = build()

        def session() -> Iterator[Session]:
            with Session(self.engine) as session:
                yield session

        app.dependency_overrides |= {
            get_user: lambda: "somebody",
            get_auth_manager: lambda: self.manager,
            _session: session,
        }
        self.app = app
        airflow = Starlette(routes=[Mount("/testruns", app)])
        self.client = TestClient(airflow, base_url="http://127.0.0.1", follow_redirects=False)

    def _note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.statements.append(statement)

    def add(self, *runs: dict[str, Any]) -> None:
        """Store task instances with their XComs: ``number`` and what differs from the usual."""
        tasks, xcoms = [], []
        for each in runs:
            given = {"dag": "shop", "task": "test", "map_index": -1, "state": "success", "operator": OPERATOR, **each}
            number = given["number"]
            key = {
                "dag_id": given["dag"],
                "task_id": given["task"],
                "run_id": given.get("run_id", f"manual__{number}"),
                "map_index": given["map_index"],
            }
            tasks.append(
                {
                    "id": uuid.UUID(int=number * 1000 + given["map_index"] + 1),
                    **key,
                    "state": given["state"],
                    "operator": given["operator"],
                    "pool": "default_pool",
                    "pool_slots": 1,
                    "max_tries": 0,
                }
            )
            values = {
                "run_url": f"http://127.0.0.1/runs/{number}",
                "test_run": mark(number),
                "return_value": report(number),
            }
            values |= given.get("xcoms", {})
            for name, value in values.items():
                if value is not None:
                    seen = BEGAN + timedelta(minutes=given.get("minute", number))
                    xcoms.append({**key, "dag_run_id": number, "key": name, "value": value, "timestamp": seen})
        with self.engine.begin() as connection:
            connection.execute(insert(TaskInstance.__table__), tasks)
            connection.execute(insert(XComModel.__table__), xcoms)

    def get(self, path: str = "", **params: Any) -> str:
        """The page's HTML."""
        self.statements.clear()
        response = self.client.get(f"/testruns/{path}", params=params or None)
        assert response.status_code == 200, response.text
        Tags().feed(response.text)
        return response.text

    def older(self, html: str) -> dict[str, str]:
        """The parameters of the link to the next page; empty on the last one."""
        found = re.search(r'rel="next" href="([^"]+)"', html)
        query = urlsplit(found[1].replace("&amp;", "&")).query if found else ""
        return {name: values[0] for name, values in parse_qs(query).items()}


class Tags(HTMLParser):
    """Fails where tags are not closed in the order in which they were opened."""

    VOID = frozenset({"meta", "line", "circle", "rect", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rows(html: str) -> list[str]:
    return re.findall(r"<tr><td>.*?</tr>", html, re.DOTALL)


def text(html: str) -> str:
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())
