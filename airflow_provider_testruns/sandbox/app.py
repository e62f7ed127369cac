"""The application: the three platforms, the control under ``/_sandbox``, and a page for every run."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from .control import Control
from .engine import Ending
from .faults import FaultKind, FaultMoment
from .mistakes import Mistake, UnknownRun
from .pages import missing_page, run_page
from .state import SandboxState
from .wire import Dated, Gateway

PlatformName = Literal["eggplant", "futureagi", "omilia"]


class _Order(BaseModel):
    """A body of the control: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid")


class FaultOrder(_Order):
    """What :meth:`Control.fault` takes."""

    kind: FaultKind
    when: FaultMoment = FaultMoment.BEFORE
    platform: PlatformName | None = None
    operation: str | None = None
    method: str | None = None
    path: str | None = None
    times: Annotated[int, Field(gt=0)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    probability: float | None = None
    for_seconds: float | None = None
    seconds: float = 0.0
    status: int | None = None
    headers: dict[str, str] | None = None
    body: Any = None
    size: int = 0
    location: str | None = None


class TokenOrder(_Order):
    """Which tokens, and for how long."""

    platform: PlatformName | None = None
    seconds: float | None = None


class TargetOrder(_Order):
    """A new model, run test or project."""

    platform: PlatformName
    name: str
    id: str | None = None
    ending: Ending | None = None
    duration: float | None = None


class RunsOrder(_Order):
    """Runs that somebody else starts."""

    platform: PlatformName
    target: str
    count: Annotated[int, Field(gt=0)] = 1
    age: float = 0.0
    ending: Ending | None = None
    duration: float | None = None


class RunOrder(_Order):
    """What :meth:`Control.set_run` takes; a duration of -1 is for ever."""

    ending: Ending | None = None
    duration: float | None = None
    raw_status: str | None = None
    hidden: bool | None = None
    vanished: bool | None = None
    artifact_expired: bool | None = None
    stuck: bool | None = None


class NextOrder(_Order):
    """How the next run goes."""

    platform: PlatformName
    ending: Ending | None = None
    duration: float | None = None
    failing: list[str] | None = None


def create_app(state: SandboxState, control: Control) -> FastAPI:
    """Return the application of one server.

    :param state: what it knows.
    :param control: the same, for the routes under ``/_sandbox``.
    """
    app = FastAPI(
        title="Test run sandbox",
        docs_url="/_sandbox/docs",
        redoc_url=None,
        openapi_url="/_sandbox/openapi.json",
        redirect_slashes=False,
    )

    @app.exception_handler(Mistake)
    async def refuse(request: Request, problem: Mistake) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, status_code=400)

    @app.exception_handler(UnknownRun)
    async def miss(request: Request, problem: UnknownRun) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, status_code=404)

    _add_control(app, control)
    _add_pages(app, state)
    for api in state.platforms.values():
        app.mount(api.prefix, Gateway(state, api))
    app.add_middleware(Dated, clock=state.clock)
    return app


def _add_control(app: FastAPI, control: Control) -> None:
    @app.post("/_sandbox/faults", status_code=201)
    async def order_fault(order: FaultOrder) -> dict[str, int]:
        return {"id": control.fault(**order.model_dump())}

    @app.get("/_sandbox/faults")
    async def list_faults() -> list[dict[str, Any]]:
        return control.faults()

    @app.delete("/_sandbox/faults")
    async def clear_faults(id: Annotated[int | None, Query()] = None) -> dict[str, int]:
        return {"removed": control.clear_faults(id)}

    @app.get("/_sandbox/stats")
    async def stats() -> dict[str, Any]:
        return control.stats()

    @app.get("/_sandbox/state")
    async def show_state() -> dict[str, Any]:
        return control.state()

    @app.post("/_sandbox/reset")
    async def reset(traffic_only: Annotated[bool, Query()] = False) -> dict[str, bool]:
        if traffic_only:
            control.reset_traffic()
        else:
            control.reset()
        return {"done": True}

    @app.post("/_sandbox/settings")
    async def configure(settings: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        control.configure(**settings)
        return control.settings()

    @app.post("/_sandbox/advance")
    async def advance(seconds: Annotated[float, Body(embed=True)]) -> dict[str, float]:
        control.advance(seconds)
        return {"now": control.now()}

    @app.post("/_sandbox/stop_clock")
    async def stop_clock() -> dict[str, float]:
        control.stop_clock()
        return {"now": control.now()}

    @app.post("/_sandbox/expire_tokens")
    async def expire_tokens(order: TokenOrder | None = None) -> dict[str, int]:
        return {"expired": control.expire_tokens(order.platform if order else None)}

    @app.post("/_sandbox/reject_tokens")
    async def reject_tokens(order: TokenOrder) -> dict[str, bool]:
        if order.seconds is None:
            raise HTTPException(422, "seconds is missing")
        control.reject_tokens(order.seconds, order.platform)
        return {"done": True}

    @app.post("/_sandbox/token_lifetime")
    async def token_lifetime(order: TokenOrder) -> dict[str, bool]:
        if order.seconds is None:
            raise HTTPException(422, "seconds is missing")
        control.set_token_lifetime(order.seconds, order.platform)
        return {"done": True}

    @app.get("/_sandbox/tokens")
    async def tokens() -> list[str]:
        return control.issued_tokens()

    @app.post("/_sandbox/targets", status_code=201)
    async def create_target(order: TargetOrder) -> dict[str, str]:
        create = {
            "eggplant": control.create_model,
            "futureagi": control.create_run_test,
            "omilia": control.create_project,
        }[order.platform]
        return {"id": create(order.name, ending=order.ending, duration=order.duration, id=order.id)}

    @app.post("/_sandbox/next")
    async def plan_next(order: NextOrder) -> dict[str, bool]:
        control.plan_next(order.platform, ending=order.ending, duration=order.duration, failing=order.failing)
        return {"done": True}

    @app.post("/_sandbox/runs", status_code=201)
    async def add_runs(order: RunsOrder) -> list[str]:
        return control.add_runs(
            order.platform,
            order.target,
            order.count,
            age=order.age,
            ending=order.ending,
            duration=order.duration,
        )

    @app.patch("/_sandbox/runs/{run_id}")
    async def set_run(run_id: str, order: RunOrder) -> dict[str, Any]:
        changes = order.model_dump()
        if order.duration is not None and order.duration < 0:
            changes["duration"] = math.inf
        control.set_run(run_id, **changes)
        return control.run(run_id)

    @app.post("/_sandbox/runs/{run_id}/finish")
    async def finish_run(run_id: str, ending: Annotated[Ending | None, Query()] = None) -> dict[str, Any]:
        control.finish_run(run_id, ending)
        return control.run(run_id)


def _add_pages(app: FastAPI, state: SandboxState) -> None:
    def show(platform: str, run_id: str) -> HTMLResponse:
        with state.lock:
            api = state.platforms.get(platform)
            run = None if api is None else api.runs.find(run_id.lower())
            if api is None or run is None:
                return HTMLResponse(missing_page(run_id), status_code=404)
            now = state.clock.now()
            return HTMLResponse(run_page(run, api.describe_run(run, now), now))

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("/_sandbox/docs")

    @app.get("/_sandbox/runs/{platform}/{run_id}", response_class=HTMLResponse)
    async def run(platform: str, run_id: str) -> HTMLResponse:
        return show(platform, run_id)

    # Where the product's own application shows an execution.
    @app.get(
        f"{state.futureagi.prefix}/dashboard/simulate/test/{{run_test_id}}/{{execution_id}}",
        response_class=HTMLResponse,
    )
    async def dashboard(run_test_id: str, execution_id: str) -> HTMLResponse:
        return show(state.futureagi.name, execution_id)
