"""The page "Test runs" under Browse in Airflow's UI.

Airflow loads this module in every one of its processes, so nothing is imported here but what a plugin is; the page's
own modules wait for the first request to the API server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: Where the page is, below the address of Airflow.
PREFIX = "/testruns"

_built: ASGIApp | None = None


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The page's ASGI application, made when it is first asked for."""
    global _built
    if _built is None:
        _built = await asyncio.to_thread(_build)
    await _built(scope, receive, send)


def _build() -> ASGIApp:
    from airflow_provider_testruns.plugin.app import build

    return build()


class ResultsPlugin(AirflowPlugin):
    """Registers the page and its place in the menu."""

    name = "test_runs"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as AirflowPlugin declares it
        {"app": app, "url_prefix": PREFIX, "name": "Test runs"}
    ]
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Test runs",
            # Relative to the address of Airflow, which may have a path. Without url_route it opens as a page of its
            # own: Airflow frames the others in a sandbox, in which links to tasks and platforms are dead.
            "href": f"{PREFIX.lstrip('/')}/",
            "destination": "nav",
            "category": "browse",
        }
    ]
