"""The code of docs/events.md is executed: its trigger sends an event, and its tasks are given it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.triggers.finished import FinishedRunsTrigger
from tests.harness.waiting import until
from tests.unit.junit_files import outcomes_of_two_readers

pytestmark = pytest.mark.integration

TEXT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
BLOCKS = {
    re.findall(r"^(\w+)\(\)$", block, re.MULTILINE)[-1]: block
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
}
FIELDS = {
    name: types
    for names, types in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", TEXT.partition("## The event")[2], re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
}
TYPES = {
    "text": str,
    "number": int | float,
    "boolean": bool,
    "object": dict,
    "null": type(None),
}


def _execute(name: str) -> tuple[DAG, dict[str, Any]]:
    found: dict[str, Any] = {}
    exec(compile(BLOCKS[name].replace(f"\n{name}()", f"\nmade = {name}()"), f"docs/events.md:{name}", "exec"), found)
    return found["made"], found


def _event(trigger: FinishedRunsTrigger, control: Control) -> dict[str, Any]:
    """The event of a run that somebody else has started."""

    async def first() -> Any:
        events = trigger.run()
        following = asyncio.create_task(anext(events))
        # The second poll is made when what the first has shown is noted.
        await until(lambda: control.count("omilia.list_project_runs") > 1)
        control.add_runs("omilia", trigger.where["project_id"], duration=0.0)
        event = await following
        await events.aclose()
        return event.payload

    return asyncio.run(first())


@pytest.fixture
def payload(control: Control) -> dict[str, Any]:
    """What the trigger of the first block sends; the name of its asset is checked."""
    _, found = _execute("follow_up")
    asset: Asset = found["voice_runs"]
    (watcher,) = asset.watchers
    assert isinstance(watcher, AssetWatcher)
    assert watcher.trigger.asset_name == asset.name
    arguments = watcher.trigger.serialize()[1]
    return _event(FinishedRunsTrigger(**arguments | {"poll_interval": 0.1}), control)


def test_all_blocks_are_executed_here() -> None:
    assert set(BLOCKS) == {"follow_up", "collect_nightly"}


def test_a_dag_that_is_scheduled_on_the_asset_reads_the_event(payload) -> None:
    dag, found = _execute("follow_up")
    assert dag.timetable.asset_condition.name == "voice-runs"
    event = SimpleNamespace(extra={"from_trigger": True, "payload": payload})
    told = dag.get_task("tell").python_callable(triggering_asset_events={found["voice_runs"]: [event, event]})
    assert told == [f"passed: 4 of 4 passed, {payload['url']}"]


def test_the_fields_of_an_event_are_as_documented(payload) -> None:
    assert set(payload) == set(FIELDS) - {"error"}
    for name, value in payload.items():
        kinds = FIELDS[name].strip().split(" or ")
        assert any(isinstance(value, TYPES[kind]) for kind in kinds), (name, value)


def test_the_nightly_dag_writes_what_is_missing(payload, tmp_path: Path) -> None:
    dag, found = _execute("collect_nightly")
    event = SimpleNamespace(extra={"payload": payload})
    asked: list[str] = []

    class Events:
        def after(self, moment: str) -> list[Any]:
            asked.append(moment)
            return [event, event]

    task = dag.get_task("collect")
    assert task.inlets == [found["VOICE_RUNS"]]
    written = task.python_callable(f"file://{tmp_path}", inlet_events={found["VOICE_RUNS"]: Events()})
    assert len(written) == len(asked) == 1
    (file,) = tmp_path.iterdir()
    assert file.name == f"omilia-{payload['run_id']}.xml"
    assert len(outcomes_of_two_readers(file)) == payload["total"]
    assert task.python_callable(f"file://{tmp_path}", inlet_events={found["VOICE_RUNS"]: Events()}) == []
