"""Many clients of one process over a socket: what the connection allows them together, and a 429 that one has met."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from airflow_provider_testruns.exceptions import RateLimitedError
from airflow_provider_testruns.hooks.futureagi import FutureAGIHook
from airflow_provider_testruns.sandbox import futureagi
from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

_RUN_TEST = futureagi.named_id(1)
_START = "futureagi.execute"


@pytest.fixture(scope="module")
def _server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=60) as server:
        yield server


@pytest.fixture
def sandbox(_server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServer:
    _server.control.reset()
    connection = _server.connections()["futureagi_default"]
    connection["extra"]["max_starts_at_once"] = 3
    monkeypatch.setenv("AIRFLOW_CONN_FUTUREAGI_DEFAULT", json.dumps(connection))
    return _server


def _start(number: int) -> str:
    with closing(FutureAGIHook()) as hook:
        return hook.start_run(run_test_id=_RUN_TEST, select_all=True).run_id


def test_no_more_starts_at_once_than_the_connection_says(sandbox):
    sandbox.control.fault("latency", operation=_START, seconds=0.2)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(_start, range(8)))) == 8
    at = [seen.at for seen in sandbox.control.requests(_START)]
    # Whoever comes fourth has seen the response of one of the three before it, which came late.
    assert all(later - earlier >= 0.2 for earlier, later in zip(at, at[3:], strict=False))


def test_a_429_that_one_client_meets_holds_up_another(sandbox):
    control = sandbox.control
    control.fault("status", operation=_START, status=429, headers={"Retry-After": "1"}, times=1)
    with pytest.raises(RateLimitedError):
        _start(0)
    _start(1)
    refused = control.requests(_START)[0]
    assert min(seen.at for seen in control.requests() if seen.at > refused.at) - refused.at >= 1.0
