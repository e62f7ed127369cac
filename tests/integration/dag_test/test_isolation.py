"""A test whose DAG kills Airflow's process, or never comes to an end, fails alone: the next gets another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.sdk import task

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from tests.harness.waiting import wait_until
from tests.integration.dag_test.running import AirflowLostError, AirflowProcess

pytestmark = pytest.mark.integration


def killing() -> None:
    @task
    def kill() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    kill()


def hanging() -> None:
    @task
    def hang() -> None:
        import threading

        threading.Event().wait()

    hang()


def passing() -> None:
    OmiliaCreateRunOperator(
        task_id="omilia", project_id="0a000000-0000-4000-8000-000000000001", poll_interval=0.1, deferrable=True
    )


def works(airflow: AirflowProcess) -> None:
    assert airflow.run(passing)["omilia"].state == "success"


def test_a_dag_that_kills_its_process_fails_alone(airflow: AirflowProcess, platforms: Control) -> None:
    home = airflow.home
    with pytest.raises(AirflowLostError, match="Airflow has ended"):
        airflow.run(killing)
    works(airflow)
    assert airflow.home != home


def test_a_dag_that_hangs_fails_alone(airflow: AirflowProcess, platforms: Control) -> None:
    stuck = psutil.Process(airflow.pid)
    # It never ends: any time is long enough.
    with pytest.raises(AirflowLostError, match="did not answer within 3 s"):
        airflow.run(hanging, within=3.0)
    assert not stuck.is_running()
    works(airflow)


def test_a_test_whose_own_time_is_over_leaves_no_stuck_process(
    airflow: AirflowProcess, platforms: Control, mocker: Any
) -> None:
    works(airflow)
    stuck = psutil.Process(airflow.pid)
    # As pytest-timeout does: out of the middle of the waiting.
    mocker.patch.object(airflow, "_response", side_effect=pytest.fail.Exception("Timeout"))
    with pytest.raises(pytest.fail.Exception, match="Timeout"):
        airflow.run(hanging)
    assert not stuck.is_running()


def test_the_process_ends_when_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    # It is in the middle of something then, and somebody else has its pipe, too: the end of its input never comes.
    runner = "tests.integration.dag_test.runner"
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-m', {runner!r}, str(os.getpid())], stdin=0, stdout=1,"
        " start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        runner_process = psutil.Process(int(started.stdout.readline()))
        started.kill()
    wait_until(lambda: not runner_process.is_running(), "the runner has ended")
