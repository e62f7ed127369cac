"""Settings of all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Time is not what is tested, and a busy machine is slow; in CI the same examples each time.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    database=None if os.environ.get("CI") else settings.default.database,
)
settings.load_profile("project")

# Runs of tests take no time; the end-to-end tests have an Airflow of their own, with the default.
os.environ.setdefault("AIRFLOW__TESTRUNS__EVENT_DELAY", "0")

#: What a test that is marked ``unit`` does not do, by Python's audit events.
_NOT_UNIT = ("socket.connect", "socket.bind", "sqlite3.connect")
_now: dict[str, list[str]] = {}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in _NOT_UNIT and _now:
        for done in _now.values():
            done.append(f"{event}{arguments[1:]}")


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _unit_means_unit(request: pytest.FixtureRequest) -> Iterator[None]:
    """The marker ``unit`` is true of what bears it."""
    if request.node.get_closest_marker("unit") is None:
        yield
        return
    done = _now.setdefault(request.node.nodeid, [])
    try:
        yield
    finally:
        del _now[request.node.nodeid]
    assert done == [], "marked 'unit', and yet"
