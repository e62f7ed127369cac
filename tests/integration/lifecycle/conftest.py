from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer


@pytest.fixture(scope="package")
def minute_long() -> Iterator[SandboxServer]:
    """A sandbox whose runs take a minute."""
    with SandboxServer(run_seconds=60) as server:
        yield server


@pytest.fixture
def control(minute_long: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Control:
    """The sandbox, as new, behind the three default connections."""
    minute_long.control.reset()
    for conn_id, connection in minute_long.connections().items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return minute_long.control
