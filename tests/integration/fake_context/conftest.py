from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.integration.fake_context.tasks import Told


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Told:
    """The log of the tasks."""
    return Told(capfd)


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    """A sandbox whose runs take less than a second."""
    with SandboxServer(run_seconds=0.3, seed=6) as server:
        yield server


@pytest.fixture
def control(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """The sandbox behind the default connections, as new. Nothing that a test does may be against the documents."""
    server.control.reset()
    server.control.configure(cancel_seconds=0.1, begin_when_seen=True)
    for name, connection in server.connections().items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
    yield server.control
    assert server.control.violations() == []
