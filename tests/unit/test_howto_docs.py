"""The how-to guides: their code is of files that can be read as DAGs, and no operator or sensor is left out."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_testruns.operators.base import PlatformOperator
from airflow_provider_testruns.sensors.base import RunSensor

pytestmark = pytest.mark.unit

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PLATFORMS = ["eggplant", "futureagi", "omilia"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_code_is_a_dag_that_airflow_can_store(platform: str) -> None:
    name = f"howto_{platform}"
    dag = runpy.run_path(str(HOWTO / "dags" / f"{name}.py"))[name]()
    DagSerialization.validate_schema(DagSerialization.to_dict(dag))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_piece_is_shown_once(platform: str) -> None:
    page, code = (HOWTO / f"{platform}.md").read_text(), (HOWTO / "dags" / f"howto_{platform}.py").read_text()
    pieces = re.findall(r"\[START (\w+)\]", code)
    assert pieces == re.findall(r"\[END (\w+)\]", code)
    assert sorted(re.findall(r':start-after: "\[START (\w+)\]"', page)) == sorted(pieces)
    assert sorted(re.findall(r':end-before: "\[END (\w+)\]"', page)) == sorted(pieces)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_operator_or_sensor_is_left_out(platform: str) -> None:
    page, code = (HOWTO / f"{platform}.md").read_text(), (HOWTO / "dags" / f"howto_{platform}.py").read_text()
    for part, base in (("operators", PlatformOperator), ("sensors", RunSensor)):
        module = import_module(f"airflow_provider_testruns.{part}.{platform}")
        for name, found in vars(module).items():
            public = isinstance(found, type) and issubclass(found, base) and found.__module__ == module.__name__
            if public and not name.startswith("_"):
                assert f"{module.__name__}.{name}`" in page, name
                assert f"{name}(" in code, name
