"""Whom it is measured for: this provider in two ways, four others, and a trigger that does nothing.

Each other provider is used as its own operator or sensor would use it, with the defaults that this one passes on; the
poll interval is the scenario's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from benchmarks.server import PROJECT_ID, RUN_ID

#: The Airflow connection of every scenario.
CONN_ID = "bench"
_SECRET = "benchmark-secret"


@dataclass(frozen=True)
class Subject:
    """One column of the table.

    :param title: for people.
    :param distribution: whose version counts.
    :param connection: the Airflow connection to a site, from its port and the path of the certificate of its authority.
    :param trigger: a trigger that waits for a run, from its number, the poll interval and the number of groups.
    :param passed: whether the event is that of a run that was waited for to its end.
    :param imports: what the import cost is measured of, by what it is.
    :param start: starts one run, as a worker does; ``None`` where the provider starts nothing.
    :param authority: whether its ``verify`` needs the environment's certificates.
    """

    title: str
    distribution: str
    connection: Callable[[int, str], dict[str, Any]]
    trigger: Callable[[int, float, int], Any]
    passed: Callable[[Any], bool]
    imports: dict[str, tuple[str, ...]]
    start: Callable[[], Any] | None = None


def _ours_connection(port: int, authority: str) -> dict[str, Any]:
    return {
        "conn_type": "omilia",
        "host": f"https://127.0.0.1:{port}",
        "login": "benchmark",
        "password": _SECRET,
        "extra": {
            "grant_type": "client_credentials",
            "auth_url": f"https://127.0.0.1:{port}/token",
            "verify": authority,
            "timeout": 10,
        },
    }


def _ours(number: int, interval: float, groups: int) -> Any:
    from airflow_provider_testruns.triggers.run import RunTrigger

    # Without its project a run can't be listed with others.
    context = {"project_id": PROJECT_ID.format((number - 1) % groups)} if groups and number > 0 else {}
    run = {
        "platform": "omilia",
        "run_id": RUN_ID.format(number),
        "state": "running",
        "raw_state": "STARTED",
        "context": context,
    }
    return RunTrigger("omilia", CONN_ID, run, time.time() + 86400, interval)


def _ours_start() -> Any:
    from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

    operator = OmiliaCreateRunOperator(
        task_id="start", project_id=PROJECT_ID.format(0), omilia_conn_id=CONN_ID, wait_for_completion=False
    )
    return operator.execute(_context(operator))


def _databricks_connection(port: int, _: str) -> dict[str, Any]:
    return {
        "conn_type": "databricks",
        # The port with the name: the hook leaves a port of its own field out of the address that it asks for a token.
        "host": f"127.0.0.1:{port}",
        "login": "benchmark",
        "password": _SECRET,
        "extra": {"service_principal_oauth": True},
    }


def _databricks(number: int, interval: float, _: int) -> Any:
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

    return DatabricksExecutionTrigger(
        run_id=number,
        databricks_conn_id=CONN_ID,
        polling_period_seconds=max(1, int(interval)),
        retry_limit=3,
        retry_delay=1,
        run_page_url="https://127.0.0.1/#job/1/run/1",
    )


def _databricks_start() -> Any:
    from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

    operator = DatabricksSubmitRunOperator(
        task_id="start",
        databricks_conn_id=CONN_ID,
        json={"run_name": "benchmark", "tasks": []},
        wait_for_termination=False,
    )
    return operator.execute(_context(operator))


def _dbt_connection(port: int, _: str) -> dict[str, Any]:
    return {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{port}", "login": "1", "password": _SECRET}


def _dbt(number: int, interval: float, _: int) -> Any:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    return DbtCloudRunJobTrigger(
        conn_id=CONN_ID,
        run_id=number,
        end_time=time.time() + 86400,
        poll_interval=interval,
        account_id=1,
        hook_params={},
    )


def _dbt_start() -> Any:
    from airflow.providers.dbt.cloud.operators.dbt import DbtCloudRunJobOperator

    operator = DbtCloudRunJobOperator(
        task_id="start",
        dbt_cloud_conn_id=CONN_ID,
        job_id=1,
        account_id=1,
        trigger_reason="benchmark",
        wait_for_termination=False,
        openlineage_inject_parent_job_info=False,
    )
    return operator.execute(_context(operator))


def _airbyte_connection(port: int, _: str) -> dict[str, Any]:
    return {
        "conn_type": "airbyte",
        "host": f"https://127.0.0.1:{port}",
        "login": "benchmark",
        "password": _SECRET,
        "schema": "v1/applications/token",
    }


def _airbyte(number: int, interval: float, _: int) -> Any:
    from airflow.providers.airbyte.triggers.airbyte import AirbyteSyncTrigger

    return AirbyteSyncTrigger(number, CONN_ID, time.time() + 86400, interval)


def _airbyte_start() -> Any:
    from airflow.providers.airbyte.operators.airbyte import AirbyteTriggerSyncOperator

    operator = AirbyteTriggerSyncOperator(
        task_id="start",
        airbyte_conn_id=CONN_ID,
        connection_id="00000000-0000-4000-8000-000000000001",
        asynchronous=True,
    )
    return operator.execute(_context(operator))


def _http_connection(port: int, _: str) -> dict[str, Any]:
    return {"conn_type": "http", "host": f"https://127.0.0.1:{port}"}


def _http(number: int, interval: float, _: int) -> Any:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    return HttpSensorTrigger(endpoint=f"http/{number}", http_conn_id=CONN_ID, poke_interval=interval)


def _nothing(number: int, _: float, __: int) -> Any:
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    class EmptyTrigger(BaseTrigger):
        """Waits, and does nothing for it."""

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "benchmarks.EmptyTrigger", {}

        async def run(self) -> AsyncIterator[TriggerEvent]:
            await asyncio.sleep(0.1 if number == 0 else 86400)
            yield TriggerEvent({})

    return EmptyTrigger()


def _context(operator: Any) -> Any:
    """What an operator's ``execute`` reads of Airflow's context."""
    ti = MagicMock(
        max_tries=0,
        try_number=1,
        dag_id="benchmark",
        task_id=operator.task_id,
        run_id="benchmark",
        map_index=-1,
        start_date=None,
        stats_tags={},
    )
    return {"ti": ti, "task_instance": ti, "dag_run": SimpleNamespace(clear_number=0), "task": operator, "params": {}}


_OURS_IMPORTS = {
    "operators": tuple(f"airflow_provider_testruns.operators.{name}" for name in ("eggplant", "futureagi", "omilia")),
    "sensors": tuple(f"airflow_provider_testruns.sensors.{name}" for name in ("eggplant", "futureagi", "omilia")),
    "trigger": ("airflow_provider_testruns.triggers.run",),
}

SUBJECTS = {
    "ours": Subject(
        "this provider",
        "airflow-provider-testruns",
        _ours_connection,
        _ours,
        lambda event: event["status"] == "finished",
        _OURS_IMPORTS,
        _ours_start,
    ),
    "databricks": Subject(
        "Databricks",
        "apache-airflow-providers-databricks",
        _databricks_connection,
        _databricks,
        lambda event: '"SUCCESS"' in event["run_state"],
        {
            "operators": ("airflow.providers.databricks.operators.databricks",),
            "sensors": ("airflow.providers.databricks.sensors.databricks",),
            "trigger": ("airflow.providers.databricks.triggers.databricks",),
        },
        _databricks_start,
    ),
    "dbt": Subject(
        "dbt Cloud",
        "apache-airflow-providers-dbt-cloud",
        _dbt_connection,
        _dbt,
        lambda event: event["status"] == "success",
        {
            "operators": ("airflow.providers.dbt.cloud.operators.dbt",),
            "sensors": ("airflow.providers.dbt.cloud.sensors.dbt",),
            "trigger": ("airflow.providers.dbt.cloud.triggers.dbt",),
        },
        _dbt_start,
    ),
    "airbyte": Subject(
        "Airbyte",
        "apache-airflow-providers-airbyte",
        _airbyte_connection,
        _airbyte,
        lambda event: event["status"] == "success",
        {
            "operators": ("airflow.providers.airbyte.operators.airbyte",),
            "sensors": ("airflow.providers.airbyte.sensors.airbyte",),
            "trigger": ("airflow.providers.airbyte.triggers.airbyte",),
        },
        _airbyte_start,
    ),
    "http": Subject(
        "HttpSensor",
        "apache-airflow-providers-http",
        _http_connection,
        _http,
        lambda event: event is True,
        {
            "operators": ("airflow.providers.http.operators.http",),
            "sensors": ("airflow.providers.http.sensors.http",),
            "trigger": ("airflow.providers.http.triggers.http",),
        },
    ),
    "empty": Subject(
        "empty trigger",
        "apache-airflow",
        lambda port, _: {"conn_type": "http", "host": f"https://127.0.0.1:{port}"},
        _nothing,
        lambda event: True,
        {"trigger": ("airflow.triggers.base",)},
    ),
}


def load(name: str) -> None:
    """Import what the subject's triggers are made of."""
    for module in SUBJECTS[name].imports["trigger"]:
        import_module(module)
