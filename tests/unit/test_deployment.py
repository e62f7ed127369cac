"""The settings of a deployment are what DAGs leave out, and what can't be right is refused where a DAG is read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_testruns import deployment
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.get_provider_info import get_provider_info
from airflow_provider_testruns.hooks.registry import hook_class
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.platforms.platform import Platform
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor

pytestmark = pytest.mark.unit

PROJECT = "0a000000-0000-4000-8000-000000000001"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch):
    """Sets them as the environment does."""

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"AIRFLOW__TESTRUNS__{name.upper()}", value)

    return put


def _operator(**arguments: object) -> OmiliaCreateRunOperator:
    return OmiliaCreateRunOperator(task_id="t", project_id=PROJECT, **arguments)


def _sensor(**arguments: object) -> OmiliaRunSensor:
    return OmiliaRunSensor(task_id="t", run_id="r", **arguments)


def test_without_them_operators_have_defaults_and_sensors_those_of_airflow() -> None:
    assert (_operator().poll_interval, _operator().timeout) == (10.0, 86_400.0)
    assert (_sensor().poke_interval, _sensor().timeout) == (60.0, 7 * 86_400.0)


def test_they_are_what_a_dag_leaves_out(settings) -> None:
    settings(poll_interval="30", timeout=" 7200.5 ")
    assert (_operator().poll_interval, _operator().timeout) == (30.0, 7200.5)
    assert (_sensor().poke_interval, _sensor().timeout) == (30.0, 7200.5)


def test_what_a_dag_says_comes_first(settings) -> None:
    settings(poll_interval="30", timeout="7200")
    own = _operator(poll_interval=5, timeout=timedelta(minutes=1))
    assert (own.poll_interval, own.timeout) == (5.0, 60.0)
    assert (_sensor(poke_interval=5, timeout=60).poke_interval, _sensor(timeout=60).timeout) == (5.0, 60.0)
    common = {"poke_interval": 7, "poll_interval": 8, "timeout": 9}
    assert (_sensor(default_args=common).poke_interval, _sensor(default_args=common).timeout) == (7.0, 9.0)
    assert (_operator(default_args=common).poll_interval, _operator(default_args=common).timeout) == (8.0, 9.0)


@pytest.mark.parametrize("platform", ["eggplant", "futureagi", "omilia"])
def test_a_hook_asks_for_pages_of_that_size(settings, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{platform.upper()}_DEFAULT", f"{platform}://u:canary-secret@h.example.com")
    assert hook_class(platform)().platform.page_size == deployment.PAGE_SIZE == Platform.page_size
    settings(page_size="250")
    assert hook_class(platform)().platform.page_size == 250


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("poll_interval", "0"),
        ("poll_interval", "often"),
        ("poll_interval", "nan"),
        ("timeout", "-1"),
        ("timeout", "inf"),
        ("page_size", "5"),
        ("page_size", "1001"),
        ("page_size", "1e2"),
    ],
)
def test_what_cannot_be_right_is_named_with_its_place(settings, name: str, value: str) -> None:
    settings(**{name: value})
    with pytest.raises(ConfigurationError, match=rf"\[testruns\] {name} must be .*{value}.*AIRFLOW__TESTRUNS__"):
        getattr(deployment, name)()


def test_their_defaults_are_those_that_airflow_lists() -> None:
    options = get_provider_info()["config"]["testruns"]["options"]
    assert options["page_size"]["default"] == str(deployment.PAGE_SIZE)
    # Unset, operators and sensors differ: so there is none for both.
    assert (options["poll_interval"]["default"], options["timeout"]["default"]) == (None, None)
    assert f"({deployment.POLL_INTERVAL:g} seconds" in options["poll_interval"]["description"]
    assert f"({deployment.TIMEOUT / 3600:g} hours" in options["timeout"]["description"]
