"""The arguments of the trigger for finished runs, and what is stored of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk import Asset, AssetWatcher
from airflow.serialization.encoders import encode_trigger
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.model import Verdict
from airflow_provider_testruns.triggers.finished import FinishedRunsStream, FinishedRunsTrigger

pytestmark = pytest.mark.unit

_PATH = "airflow_provider_testruns.triggers.finished.FinishedRunsTrigger"


def _trigger(**arguments: Any) -> FinishedRunsTrigger:
    given = {"platform": "omilia", "conn_id": "c", "asset_name": "a", "project_id": "p-1", **arguments}
    return FinishedRunsTrigger(**given)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"platform": "omila"}, "platform: There is no platform 'omila'"),
        ({"platform": None}, "platform"),
        ({"conn_id": " "}, "conn_id must be a string"),
        ({"asset_name": None}, "asset_name must be a string"),
        ({"project_id": None}, "project_id must be given for platform 'omilia'; given: none"),
        ({"project_id": ""}, "project_id must be a string"),
        ({"project_id": "p\n1"}, "project_id must be a string"),
        ({"run_test_id": "r-1"}, "run_test_id is not for platform 'omilia'"),
        ({"platform": "eggplant"}, "project_id is not for platform 'eggplant', whose runs are found by model_id or"),
        (
            {"platform": "eggplant", "project_id": None, "model_id": "m", "model_name": "M"},
            "exactly one of model_id, model_name must be given",
        ),
        ({"platform": "eggplant", "project_id": None, "model_id": "Checkout"}, "model_id must be a UUID"),
        ({"platform": "futureagi", "project_id": None, "run_test_id": "nightly"}, "run_test_id must be a UUID"),
        ({"verdicts": "passed"}, "verdicts must be a list"),
        ({"verdicts": []}, "verdicts must be a list"),
        ({"verdicts": ["passed", "green"]}, "verdicts .* 'green' is none"),
        ({"poll_interval": 0}, "poll_interval must be a number of seconds"),
        ({"judge": "yes"}, "judge must be True or False"),
        ({"backfill_since": "yesterday"}, "backfill_since must be a datetime"),
        ({"backfill_since": 1.0}, "backfill_since must be a datetime"),
    ],
)
def test_a_bad_argument_is_named_where_the_dag_is_written(arguments: dict[str, Any], said: str):
    with pytest.raises(ConfigurationError, match=said):
        _trigger(**arguments)


def test_what_is_stored_makes_the_same_trigger_again_and_the_same_hash():
    berlin = timezone(timedelta(hours=1))
    trigger = _trigger(
        verdicts=[Verdict.FAILED, "PASSED"],
        judge=True,
        poll_interval=timedelta(minutes=1),
        backfill_since=datetime(2026, 12, 1, 1, tzinfo=berlin),
    )
    path, kwargs = trigger.serialize()
    assert path == _PATH
    assert kwargs == {
        "platform": "omilia",
        "conn_id": "c",
        "asset_name": "a",
        "project_id": "p-1",
        "poll_interval": 60.0,
        "verdicts": ["passed", "failed"],
        "judge": True,
        "backfill_since": "2026-12-01T00:00:00+00:00",
    }
    again = FinishedRunsTrigger(**kwargs)
    assert again.serialize() == (path, kwargs)
    assert again.backfill_since == datetime(2026, 12, 1, tzinfo=UTC)
    assert BaseEventTrigger.hash(path, kwargs) == BaseEventTrigger.hash(*again.serialize())
    asset = Asset("a", watchers=[AssetWatcher(name="w", trigger=trigger)])
    assert encode_trigger(asset.watchers[0].trigger)["classpath"] == _PATH


def test_streams_are_shared_by_equal_arguments_alone_and_cursors_outlive_other_changes():
    one = _trigger()
    assert one.shared_stream_key() == _trigger().shared_stream_key()
    others = [_trigger(asset_name="b"), _trigger(poll_interval=60), _trigger(verdicts=["failed"]), _trigger(judge=True)]
    assert len({one.shared_stream_key(), *(other.shared_stream_key() for other in others)}) == 5

    def key(trigger: FinishedRunsTrigger) -> str:
        return FinishedRunsStream(trigger, None).key

    # Whoever polls at another pace, or judges as well, goes on where it was; whoever asks for something else does not.
    assert {key(_trigger(poll_interval=60)), key(_trigger(judge=True))} == {key(one)}
    assert len({key(one), key(_trigger(project_id="p-2")), key(_trigger(verdicts=["failed"]))}) == 3
    # It is stored: another one would begin again.
    assert key(one) == "finished_runs_cb8ab38ad91ce642"
