from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.database import migrated_database
from tests.integration.dag_test.running import AirflowProcess


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowProcess]:
    """A real Airflow, whose connections lead to a sandbox of its own."""
    with SandboxServer() as sandbox:
        process = AirflowProcess(tmp_path_factory.mktemp("airflow"), sandbox, migrated_database())
        try:
            yield process
        finally:
            process.close()


@pytest.fixture
def platforms(airflow: AirflowProcess) -> Control:
    """The sandbox behind Airflow's connections, as new."""
    return airflow.start_anew()
