"""The DAGs of docs/gates.md are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_testruns.sandbox.control import Control
from tests.integration.dag_test.running import AirflowProcess

pytestmark = pytest.mark.integration

TEXT = (Path(__file__).parents[3] / "docs" / "gates.md").read_text()
BLOCKS = {
    re.findall(r"^(\w+)\(\)$", block, re.MULTILINE)[-1]: block
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
}


def source(dag_id: str) -> str:
    return BLOCKS[dag_id].replace(f"\n{dag_id}()", f"\ndag = {dag_id}()")


def test_all_blocks_are_run_here() -> None:
    assert set(BLOCKS) == {"quarantine"}


def test_quarantine(airflow: AirflowProcess, platforms: Control) -> None:
    platforms.configure(run_seconds=0.0)
    done = airflow.run_file(source("quarantine"), "quarantine")["regression"]
    assert done.state == "success"
    assert [case["name"] for case in done.result["allowed_failures"]] == [
        "balance_joint_account",
        "transfer_above_limit",
    ]
    assert done.result["new_failures"] == [{"name": "block_then_replace", "suite": ""}]
    assert "No baseline: there is no earlier run of this task." in done.result["notes"]
