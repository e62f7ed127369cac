"""The page "Test runs" under Browse in Airflow's UI, and the macros that say a run's result in a template.

Airflow loads this module in every one of its processes, so nothing is imported here but what a plugin is; the page's
own modules wait for the first request to the API server, and those of the macros until one is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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


def _macro(name: str) -> Callable[[Any], Any]:
    """A function of :mod:`.reporting.digest`, which is imported when it is first called."""

    def say(report: Any = None) -> Any:
        from airflow_provider_testruns.reporting import digest

        return getattr(digest, name)(report)

    # Airflow names a macro after its function.
    say.__name__ = say.__qualname__ = name
    return say


class ResultsPlugin(AirflowPlugin):
    """Registers the page and its place in the menu, and the macros ``macros.test_runs.*``."""

    name = "test_runs"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as AirflowPlugin declares it
        {"app": app, "url_prefix": PREFIX, "name": "Test runs"}
    ]
    macros: list[Any] = [_macro(name) for name in ("text", "markdown", "html", "slack_blocks")]  # noqa: RUF012
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
