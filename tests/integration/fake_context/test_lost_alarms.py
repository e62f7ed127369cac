"""An ``execution_timeout`` whose one alarm strikes where Python drops what it raises."""

from __future__ import annotations

import gc
import json
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from airflow_provider_testruns import timing
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from airflow_provider_testruns.tasks import execution, overtime
from tests.integration.fake_context.tasks import Task

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

_PROJECT = omilia.named_id(1)
#: Seconds, which begin when a test says so.
_LIMIT = 0.5


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    with SandboxServer(run_seconds=3600) as server:
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(server.connections()["omilia_default"]))
        yield server.control


class _Clock:
    """Stands until something has happened, however long a slow machine takes to get there."""

    def __init__(self, happened: Callable[[], bool]) -> None:
        self._happened = happened
        self._since: float | None = None

    def __call__(self) -> float:
        if self._since is None and self._happened():
            self._since = time.monotonic()
        return 0.0 if self._since is None else time.monotonic() - self._since


@pytest.fixture
def limit_begins(mocker: Any) -> Callable[[Callable[[], bool]], None]:
    """Lets the time of ``execution_timeout`` begin when something has happened."""
    mocker.patch.object(timing, "OVERTIME", 0.1)
    time_left = overtime.time_left

    def begins(when: Callable[[], bool]) -> None:
        clock = _Clock(when)
        for module in (execution, overtime):
            mocker.patch.object(module, "time_left", lambda task: time_left(task, clock))

    return begins


class _Thing:
    pass


def _lost(alarm: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """An alarm at the worst moment: in the callback of a weak reference."""

    def handler(number: Any, frame: Any) -> None:
        thing = _Thing()
        reference = weakref.ref(thing, lambda reference: alarm(number, frame))
        del thing
        gc.collect()
        assert reference() is None

    return handler


def _under_airflows_limit(work: Callable[[], Any]) -> Any:
    """As Airflow's task runner does it, with an alarm that is lost."""
    with TimeoutPosix(_LIMIT) as limit:
        signal.signal(signal.SIGALRM, _lost(limit.handle_timeout))
        return work()


def _operator(**arguments: Any) -> OmiliaCreateRunOperator:
    return OmiliaCreateRunOperator(
        task_id="t",
        project_id=_PROJECT,
        deferrable=False,
        poll_interval=0.2,
        execution_timeout=timedelta(seconds=_LIMIT),
        **arguments,
    )


def test_a_wait_in_place_ends_and_its_run_is_cancelled_when_the_alarm_is_lost(control, limit_begins):
    """Seen at once in a test run under load: the task then waited for its own 24 hours."""
    limit_begins(lambda: control.count("omilia.get_run") > 0)
    with pytest.raises(AirflowTaskTimeout, match="Airflow's own alarm was lost"):
        _under_airflows_limit(lambda: _operator().execute(Task().context))
    (run,) = control.runs("omilia")
    assert run["phase"] == "cancelled"


@pytest.mark.parametrize("phase", ["start", "report"])
def test_a_start_and_a_report_end_too(control, limit_begins, phase):
    control.fault("status", operation="omilia.get_project" if phase == "start" else "omilia.run_*", status=503)
    asked = "omilia.get_project" if phase == "start" else "omilia.run_stats"
    limit_begins(lambda: control.count(asked) > 0)
    if phase == "report":
        control.configure(run_seconds=0)
    with pytest.raises(AirflowTaskTimeout):
        _under_airflows_limit(lambda: _operator().execute(Task().context))


def test_a_cancel_ends_too(control, limit_begins):
    control.fault("hang", operation="omilia.revoke_run", seconds=60)
    limit_begins(lambda: control.count("omilia.revoke_run") > 0)
    with pytest.raises(AirflowTaskTimeout):
        _under_airflows_limit(lambda: _operator(timeout=0.1).execute(Task().context))


@pytest.mark.parametrize(("soft_fail", "kind"), [(False, AirflowTaskTimeout), (True, AirflowSkipException)])
def test_a_sensor_that_pokes_in_place_ends_as_with_airflows_own_alarm(control, limit_begins, soft_fail, kind):
    (run_id,) = control.add_runs("omilia", _PROJECT)
    limit_begins(lambda: control.count("omilia.get_run") > 0)
    sensor = OmiliaRunSensor(
        task_id="s",
        run_id=run_id,
        poke_interval=3600,
        timeout=100_000,
        mode="poke",
        deferrable=False,
        soft_fail=soft_fail,
        execution_timeout=timedelta(seconds=_LIMIT),
    )
    with pytest.raises(kind):
        _under_airflows_limit(lambda: sensor.execute(Task().context))
    assert control.count("omilia.revoke_run") == 0
