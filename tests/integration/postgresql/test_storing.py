"""On PostgreSQL, whose JSONB is stricter than SQLite's text: what a hostile platform says is stored in events, XComs
and records, and another wait continues meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

_REPOSITORY = Path(__file__).parents[3]


def test_what_a_hostile_platform_says_is_stored(postgresql: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgresql,
        # Otherwise Airflow asks for asyncpg.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": postgresql.replace("+psycopg:", "+psycopg_async:"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.postgresql.storing"],
        cwd=_REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])

    assert told["raw"] != "stored", "PostgreSQL has taken what it is said to refuse: the test proves nothing"
    assert told["events"] == {"hostile": 1, "other": 1}
    state, event = told["tasks"]["hostile"]
    assert (state, event["status"], event["error"]["type"]) == ("scheduled", "error", "PermissionDeniedError")
    assert "half \ufffd of a pair, NUL \ufffd, red ERROR" in event["error"]["message"]
    state, event = told["tasks"]["other"]
    assert (state, event["status"], event["run"]["ending"]) == ("scheduled", "finished", "passed")
    assert (told["xcom"]["verdict"], told["xcom"]["failed"]) == ("failed", 1)
    assert told["record"]["run"]["run_id"] == "r-1"
