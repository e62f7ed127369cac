from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.airflow import LocalAirflow
from tests.harness.database import migrated_database

EXAMPLES = Path(__file__).parents[2] / "example_dags"
HELD = Path(__file__).parent / "held_dags"
#: How long the runs of the examples take; seconds.
RUN_SECONDS = 12.0


@dataclass
class SharedAirflow:
    """The Airflow of all modules that need one with nothing special about it, for it takes a minute to start.

    :param airflow: it has the examples, whose connections are the usual ones, and the DAGs of ``held_dags``.
    :param examples: the platforms of the examples.
    :param held: those behind the connections ``held_…``: runs there go on until a test ends them.
    :param lineage: what its OpenLineage provider writes.
    """

    airflow: LocalAirflow
    examples: SandboxServer
    held: SandboxServer
    lineage: Path
    _dag_runs: dict[str, str] = field(default_factory=dict)

    def dag_run(self, dag_id: str) -> str:
        """The one run of a DAG that all tests look at; whoever comes first starts it."""
        if dag_id not in self._dag_runs:
            self._dag_runs[dag_id] = self.airflow.api.trigger(dag_id)
        return self._dag_runs[dag_id]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedAirflow]:
    folder = tmp_path_factory.mktemp("shared")
    dags, lineage = folder / "dags", folder / "events.jsonl"
    dags.mkdir()
    for file in (*EXAMPLES.glob("*.py"), *HELD.glob("*.py")):
        shutil.copy(file, dags)
    options = {
        # On a busy machine Airflow's scheduler may take longer than the default to process a deferral.
        "AIRFLOW__TESTRUNS__EVENT_DELAY": "12",
        # Nobody changes the DAG files.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(lineage), "append": True}),
    }
    with SandboxServer(run_seconds=RUN_SECONDS) as examples, SandboxServer(run_seconds=3600.0) as held:
        connections = examples.connections()
        connections |= {f"held_{name.removesuffix('_default')}": found for name, found in held.connections().items()}
        with LocalAirflow(
            folder / "airflow",
            dags=dags,
            connections=connections,
            options=options,
            parallelism=4,
            say=print,
            database=migrated_database(),
        ) as airflow:
            airflow.wait_for_dags(sorted(path.stem for path in EXAMPLES.glob("example_*.py")))
            yield SharedAirflow(airflow, examples, held, lineage)
