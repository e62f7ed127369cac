"""No secret is left anywhere: what all operators and sensors leave behind is searched for every secret there is."""

from __future__ import annotations

import base64
import html
import json
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.futureagi import API_KEY, SECRET_KEY
from airflow_provider_testruns.sensors.eggplant import EggplantExecutionSensor
from airflow_provider_testruns.sensors.futureagi import FutureAGITestExecutionSensor
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from tests.integration.dag_test.running import WRONG_PASSWORD, AirflowProcess
from tests.integration.transport.wires import RawServer, Seen, answering

pytestmark = pytest.mark.integration


def everything(deferrable: bool) -> None:
    shared = {"deferrable": deferrable, "poll_interval": 0.1, "retries": 1, "retry_delay": timedelta(0)}
    eggplant = EggplantStartExecutionOperator(
        task_id="eggplant", model_id="e0000000-0000-4000-8000-000000000002", **shared
    )
    futureagi = FutureAGIExecuteTestRunOperator(
        task_id="futureagi", run_test_name="flaky-support-sim", select_all=True, **shared
    )
    # The project's Git token comes back in clear with some responses.
    omilia = OmiliaCreateRunOperator(task_id="omilia", project_id="0a000000-0000-4000-8000-000000000005", **shared)
    watching = {"deferrable": deferrable, "poke_interval": 0.1, "trigger_rule": "all_done"}
    eggplant >> EggplantExecutionSensor(task_id="watch_eggplant", execution_id=eggplant.output["run_id"], **watching)
    futureagi >> FutureAGITestExecutionSensor(
        task_id="watch_futureagi", execution_id=futureagi.output["run_id"], **watching
    )
    omilia >> OmiliaRunSensor(task_id="watch_omilia", run_id=omilia.output["run_id"], **watching)
    # Some that end in errors of the connection, and in timeouts.
    OmiliaCreateRunOperator(task_id="wrong_password", project_id="p", omilia_conn_id="wrong_password", **shared)
    OmiliaCreateRunOperator(task_id="timeout", project_id="0a000000-0000-4000-8000-000000000001", timeout=0.2, **shared)


@pytest.fixture(scope="module")
def left_behind(airflow: AirflowProcess) -> dict[str, str]:
    """Every table and every file of Airflow's home after runs of all kinds, this session's other tests included."""
    for deferrable in (True, False):
        control = airflow.start_anew()
        # Errors quote what the platform answers: here, the credentials that came with the request.
        echo = {"detail": f"refused: {SECRET_KEY} and {API_KEY}"}
        control.fault("status", status=400, body=echo, operation="futureagi.metrics", times=1)
        tasks = airflow.run(everything, deferrable=deferrable)
        assert "refused: *** and ***" in tasks["futureagi"].errors[0].message
    places = {f"table {name}": text for name, text in airflow.tables().items()}
    places |= {str(path): _read(path) for path in airflow.home.rglob("*") if path.is_file()}
    return places


def test_the_search_would_find_a_secret(airflow: AirflowProcess, left_behind: dict[str, str]) -> None:
    assert len(airflow.secrets) > 10
    assert all(len(secret) > 12 for secret in airflow.secrets)
    assert WRONG_PASSWORD in airflow.secrets
    text = "\n".join(left_behind.values())
    # What is no secret is found in all the places that a secret would be in.
    for name in ("xcom", "task_state_store", "rendered_task_instance_fields", "serialized_dag", "log"):
        assert f"table {name}" in left_behind
    assert "run_url" in left_behind["table xcom"]
    assert "project_id" in left_behind["table task_state_store"]
    assert "Using connection 'omilia_default'" in text
    assert "wrong_password" in text


def test_no_secret_is_left_in_the_database_the_logs_or_the_xcoms(
    airflow: AirflowProcess, left_behind: dict[str, str]
) -> None:
    forms = set(airflow.secrets)
    for secret in airflow.secrets - airflow.issued:
        # As they are in addresses and in the headers of logins.
        forms |= {quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")}
    found = [(place, form) for place, text in left_behind.items() for form in forms if form in text]
    assert found == []
    # All that is secret on the sandbox begins with these words.
    assert [place for place, text in left_behind.items() if "sandbox-canary" in text] == []


#: With characters that each way to write it changes.
TOKEN = "canary/token+of=the&echo?<0123456789>"


def echoing(conn: str) -> None:
    import os

    os.environ["AIRFLOW_CONN_ECHO"] = conn
    shared = {"omilia_conn_id": "echo", "retries": 0}
    OmiliaCreateRunOperator(task_id="refused", project_id="0a000000-0000-4000-8000-000000000001", **shared)
    where = "0a000000-0000-4000-8000-000000000001"
    OmiliaRunSensor(task_id="broken", run_id=where, timeout=1, poke_interval=0.1, **shared)


def test_a_platform_that_echoes_its_token_leaves_none_of_it(airflow: AirflowProcess) -> None:
    """Airflow's own masker does not know tokens: that is left to ours, also in the traceback of a task that fails."""
    written = [
        TOKEN,
        quote(TOKEN, safe=""),
        quote(TOKEN, safe="").lower(),
        html.escape(TOKEN),
        json.dumps(TOKEN).replace("/", "\\/")[1:-1],
        *(base64.b64encode(before + TOKEN.encode()).decode() for before in (b"", b"a", b"ab")),
    ]

    def answer(seen: Seen) -> tuple[int, bytes]:
        if seen.path.endswith("/token"):
            return 200, json.dumps({"access_token": TOKEN, "expires_in": 60}).encode()
        if seen.method == "POST":
            return 403, json.dumps({"detail": "You sent: " + " and ".join(written)}).encode()
        return 200, json.dumps({"runId": {"sent": written}, "status": f"{TOKEN}"}).encode()

    begin = airflow.log_file.stat().st_size
    with RawServer(answering(answer)) as server:
        conn = {"conn_type": "omilia", "host": server.url, "login": "me", "password": "canary-of-the-echo"}
        tasks = airflow.run(echoing, conn=json.dumps(conn))
    assert "You sent: *** and ***" in tasks["refused"].error.message
    assert tasks["broken"].state == "failed"
    log = airflow.log_file.read_bytes()[begin:].decode(errors="replace")
    assert "Traceback" in log or "exc_type" in log
    places = {"log": log, **airflow.tables()}
    forms = {form.rstrip("=")[3:-2] for form in written}
    assert [(place, form) for place, text in places.items() for form in forms if form in text] == []


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")
