"""The requests that the page "Test runs" answers, and who may make them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_provider_testruns.plugin import page, stored

#: Runs on a page of runs.
RUNS = 50
#: Tasks on a page of tasks.
TASKS = 10
#: How many of a task's newest runs its trend and its most failed cases are of.
NEWEST = 20

_MAX_ID = 250
#: The years that a place in the list can be in. Databases differ in what they take beyond.
_YEARS = range(1970, 2200)


def _session() -> Iterator[Session]:
    with create_session(scoped=False) as session:
        yield session


_Session = Annotated[Session, Depends(_session)]
_Manager = Annotated[Any, Depends(get_auth_manager)]
_Id = Annotated[str | None, Query(max_length=_MAX_ID)]
_Place = Annotated[str | None, Query(max_length=2000)]


def build() -> FastAPI:
    """Make the application."""
    app = FastAPI(title="Test runs", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_api_route("/", runs, methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/tasks", tasks, methods=["GET"], response_class=HTMLResponse)
    return app


def runs(
    user: GetUserDep,
    manager: _Manager,
    session: _Session,
    dag_id: _Id = None,
    task_id: _Id = None,
    before: _Place = None,
) -> Response:
    """The newest runs, of all DAGs, of one, or of one task; of a task with its trend, too."""
    _check_ids(dag_id=dag_id, task_id=task_id)
    place = _run_place(before)
    known = _dag_ids(user, manager, session)
    chosen = _chosen(known, dag_id)
    found = stored.recent_runs(session, chosen, limit=RUNS + 1, task_id=task_id if dag_id else None, before=place)
    shown = found[:RUNS]
    history = None
    if dag_id and task_id and shown:
        task = stored.StoredTask(dag_id, task_id, shown[0].seen_at, 0)
        newest = shown[:NEWEST] if place is None else stored.newest_runs(session, [task], each=NEWEST)[dag_id, task_id]
        history = page.History(dag_id, task_id, newest)
    older = None
    if len(found) > RUNS:
        when, *rest = stored.place_of(shown[-1])
        older = _query(dag_id=dag_id, task_id=task_id, before=json.dumps([when.isoformat(), *rest]))
    return _html(
        lambda nonce: page.runs_page(
            shown, history, dag_ids=known, dag_id=dag_id, older=older, first=before is None, nonce=nonce
        )
    )


def tasks(
    user: GetUserDep, manager: _Manager, session: _Session, dag_id: _Id = None, before: _Place = None
) -> Response:
    """Every task's trend and the cases that failed most often in its newest runs."""
    _check_ids(dag_id=dag_id)
    place = _task_place(before)
    known = _dag_ids(user, manager, session)
    chosen = _chosen(known, dag_id)
    found = stored.recent_tasks(session, chosen, limit=TASKS + 1, before=place)
    shown = found[:TASKS]
    newest = stored.newest_runs(session, shown, each=NEWEST)
    histories = [page.History(task.dag_id, task.task_id, newest[task.dag_id, task.task_id]) for task in shown]
    older = None
    if len(found) > TASKS:
        last = shown[-1]
        older = _query(dag_id=dag_id, before=json.dumps([last.newest.isoformat(), last.dag_id, last.task_id]))
    return _html(
        lambda nonce: page.tasks_page(
            histories, dag_ids=known, dag_id=dag_id, older=older, first=before is None, nonce=nonce
        )
    )


def _dag_ids(user: Any, manager: Any, session: Session) -> list[str]:
    """The DAGs with runs whose results the user may see."""

    # A report is an XCom, which one may be barred from seeing where one may see the DAG: of all DAGs, or of one.
    def may_read_xcoms(**of: Any) -> bool:
        return bool(manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.XCOM, user=user, **of))

    allowed = manager.get_authorized_dag_ids(user=user, method="GET", session=session)
    with_runs = stored.dag_ids_with_runs(session, allowed)
    readable = [dag_id for dag_id in with_runs if may_read_xcoms(details=DagDetails(id=dag_id))]
    if not readable and not may_read_xcoms():
        raise HTTPException(403, "You don't have access to XComs, where the results of test runs are stored.")
    return readable


def _chosen(known: list[str], dag_id: str | None) -> list[str]:
    if not dag_id:
        return known
    # The same answer for a DAG that is not there and one that may not be seen.
    return [dag_id] if dag_id in known else []


def _run_place(text: str | None) -> tuple[datetime, int, str, int] | None:
    if not text:
        return None
    when, dag_run_id, task_id, map_index = _place(text, (str, int, str, int))
    return _time(when), dag_run_id, task_id, map_index


def _task_place(text: str | None) -> tuple[datetime, str, str] | None:
    if not text:
        return None
    when, dag_id, task_id = _place(text, (str, str, str))
    return _time(when), dag_id, task_id


_NO_PLACE = "before: not a position in the list."


def _place(text: str, kinds: tuple[type, ...]) -> list[Any]:
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise HTTPException(422, _NO_PLACE) from e
    # bool is an int, too; and no database takes numbers of any size, or any text.
    right = isinstance(parts, list) and tuple(type(part) for part in parts) == kinds
    if not right or not all(_is_storable(part) for part in parts):
        raise HTTPException(422, _NO_PLACE)
    return list(parts)


def _is_storable(part: str | int) -> bool:
    """Whether every database can compare with it."""
    if isinstance(part, int):
        return abs(part) < 2**31
    return len(part) <= _MAX_ID and "\0" not in part and not any("\ud800" <= each <= "\udfff" for each in part)


def _check_ids(**ids: str | None) -> None:
    for name, value in ids.items():
        if value is not None and not _is_storable(value):
            raise HTTPException(422, f"{name}: not an id.")


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None or when.astimezone(UTC).year not in _YEARS:
            raise HTTPException(422, _NO_PLACE)
    except (ValueError, OverflowError) as e:
        raise HTTPException(422, _NO_PLACE) from e
    return when.astimezone(UTC)


def _query(**values: str | None) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})


def _html(make: Any, status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(make(nonce), status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    if error.status_code == 401:
        return RedirectResponse(f"../api/v2/auth/login?next={quote(str(request.url), safe='')}", 302)
    return _html(lambda nonce: page.error_page(str(error.detail), nonce=nonce), error.status_code)


async def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    names = sorted({str(each["loc"][-1]) for each in error.errors()})
    what = f"{', '.join(names)}: too long, or of the wrong type."
    return _html(lambda nonce: page.error_page(what, nonce=nonce), 422)
