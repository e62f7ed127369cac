"""An event for every run that finishes: the trigger, Airflow's own shared streams, and the sandbox over a socket.

Only the triggerer's supervisor is ours: it answers what Airflow's accessor of an asset's state store asks, and stores
events, a moment later, as Airflow's does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import Asset
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    AssetStateStoreResult,
    ErrorResponse,
    GetAssetStateStoreByName,
    SetAssetStateStoreByName,
)
from airflow.sdk.execution_time.context import AssetStateStoreAccessors
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.lifecycle import watcher
from airflow_provider_testruns.sandbox import eggplant, futureagi, omilia
from airflow_provider_testruns.triggers.finished import IN_FLIGHT, FinishedRunsTrigger
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.harness.waiting import until

pytestmark = pytest.mark.integration

_PROJECT = omilia.named_id(1)
_LIST, _SINGLE = "omilia.list_project_runs", "omilia.get_run"
_ASSET = "finished"
_INTERVAL = 0.1


class Supervisor:
    """What outlives a triggerer: the state store and the events that are stored."""

    def __init__(self) -> None:
        self.store: dict[tuple[str, str], str] = {}
        self.writes = 0
        self.events: list[dict[str, Any]] = []
        #: Whether the metadata database answers.
        self.available = True

    async def asend(self, message: Any) -> Any:
        await asyncio.sleep(0)
        if not self.available:
            raise RuntimeError("the metadata database is away")
        at = (message.name, message.key)
        if isinstance(message, SetAssetStateStoreByName):
            self.store[at] = json.dumps(message.value)
            self.writes += 1
            return None
        assert isinstance(message, GetAssetStateStoreByName)
        if at not in self.store:
            return ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND)
        return AssetStateStoreResult(value=json.loads(self.store[at]))

    @property
    def run_ids(self) -> list[str]:
        return [event["run_id"] for event in self.events]

    @property
    def cursor(self) -> str:
        (value,) = self.store.values()
        return value


class Triggerer:
    """One process of a triggerer, as far as triggers see it."""

    def __init__(self, supervisor: Supervisor, *triggers: FinishedRunsTrigger, ack_timeout: float = 300.0) -> None:
        self._supervisor = supervisor
        queue = conf.getint("triggerer", "shared_stream_subscriber_queue_size")
        self._streams = SharedStreamManager(max_subscriber_queue=queue, ack_timeout=ack_timeout)
        self._sent: list[tuple[dict[str, Any], int | None]] = []
        self.most_in_flight = 0
        #: What ended a trigger; Airflow starts those of assets again.
        self.ends: list[Exception] = []
        self.tasks = [asyncio.create_task(self._keep(at, trigger)) for at, trigger in enumerate(triggers)]
        self._storing = asyncio.create_task(self._store())

    async def _keep(self, trigger_id: int, trigger: FinishedRunsTrigger) -> None:
        while True:
            try:
                await self._run(trigger_id, FinishedRunsTrigger(**trigger.serialize()[1]))
            except Exception as e:
                self.ends.append(e)
            await asyncio.sleep(0.02)

    async def _run(self, trigger_id: int, trigger: FinishedRunsTrigger) -> None:
        key = trigger.shared_stream_key()
        stream = self._streams.subscribe(trigger_id=trigger_id, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                seq = self._streams.bind_pending_event(trigger_id=trigger_id, key=key)
                self._sent.append((event.payload, seq))
                self.most_in_flight = max(self.most_in_flight, len(self._sent))
        finally:
            await self._streams.unsubscribe(trigger_id, key)

    async def _store(self) -> None:
        """Once in a while store what was sent, and tell of it the time after that."""
        stored: list[int] = []
        while True:
            await asyncio.sleep(0.02)
            self._streams.confirm_persisted(stored)
            stored = []
            while self._sent and self._supervisor.available:
                payload, seq = self._sent.pop(0)
                self._supervisor.events.append(json.loads(json.dumps(payload)))
                if seq is not None:
                    stored.append(seq)

    async def kill(self) -> None:
        """As SIGKILL does: nothing more is stored, neither events nor cursors."""
        answers, self._supervisor.available = self._supervisor.available, False
        self._storing.cancel()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(self._storing, *self.tasks, return_exceptions=True)
        self._supervisor.available = answers


@pytest.fixture
def supervisor(mocker) -> Supervisor:
    made = Supervisor()
    mocker.patch.object(task_runner, "SUPERVISOR_COMMS", made, create=True)
    # Outages are over within the test's time.
    mocker.patch.object(timing, "CALL_BACKOFF", timing.Backoff(0.05, 0.05))
    return made


def _trigger(**arguments: Any) -> FinishedRunsTrigger:
    given = {"project_id": _PROJECT, "poll_interval": _INTERVAL, **arguments}
    return FinishedRunsTrigger("omilia", "omilia_default", asset_name=_ASSET, **given)


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it, and see that it leaves neither a task nor a watcher."""

    async def watched() -> None:
        await main()
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not watcher._watchers.get(asyncio.get_running_loop())

    asyncio.run(watched())


@contextlib.asynccontextmanager
async def _begun(supervisor: Supervisor, *triggers: FinishedRunsTrigger) -> AsyncIterator[Triggerer]:
    """A triggerer whose watchers have noted what there is."""
    triggerer = Triggerer(supervisor, *triggers)
    await until(lambda: len(supervisor.store) == len(triggers))
    try:
        yield triggerer
        assert triggerer.ends == []
    finally:
        await triggerer.kill()


# Nothing is lost, nothing floods


def test_a_burst_of_5000_is_sent_once_each_with_few_on_their_way(control, supervisor, caplog):
    noted = control.add_runs("omilia", _PROJECT, 100, duration=0.0, age=60.0)
    burst: list[str] = []

    async def main() -> None:
        async with _begun(supervisor, _trigger()) as triggerer:
            burst.extend(control.add_runs("omilia", _PROJECT, 5_000, duration=0.0, spacing=0.0))
            await until(lambda: len(supervisor.events) >= 5_000)
            polls = control.count(_LIST)
            await until(lambda: control.count(_LIST) > polls + 3)
            assert triggerer.most_in_flight <= IN_FLIGHT
        # Airflow warns of more.
        assert len(supervisor.cursor) < 65_535
        async with _begun(supervisor, _trigger()):
            polls = control.count(_LIST)
            await until(lambda: control.count(_LIST) > polls + 2)

    _run(main)
    assert Counter(supervisor.run_ids) == Counter(burst)
    assert not set(supervisor.run_ids) & set(noted)
    assert "100 runs" in caplog.text


def test_what_finishes_while_triggerers_are_killed_is_never_lost(control, supervisor):
    run_ids = control.add_runs("omilia", _PROJECT, 250, spacing=0.0)
    for run_id in run_ids:
        control.hang_run(run_id)
    left = list(run_ids)

    async def main() -> None:
        async with _begun(supervisor, _trigger()):
            pass
        for kill in range(6):
            triggerer = Triggerer(supervisor, _trigger())
            for run_id in left[:40]:
                control.finish_run(run_id)
            del left[:40]
            # At another moment each time: between a poll, an event, its storing and the cursor.
            enough = len(set(supervisor.run_ids)) + 1 + 6 * kill
            await until(lambda enough=enough: len(set(supervisor.run_ids)) >= enough)  # type: ignore[misc]
            await asyncio.sleep(0.01 * kill)
            await triggerer.kill()
        for run_id in left:
            control.finish_run(run_id)
        triggerer = Triggerer(supervisor, _trigger())
        await until(lambda: set(supervisor.run_ids) == set(run_ids))
        await triggerer.kill()

    _run(main)
    counts = Counter(supervisor.run_ids)
    assert set(counts) == set(run_ids)
    # What was on its way when a kill came, once for each.
    assert max(counts.values()) <= 7
    assert sum(counts.values()) - 250 <= 6 * IN_FLIGHT


def test_outages_of_the_platform_and_of_the_store_end_no_watcher(control, supervisor, caplog):
    async def main() -> None:
        async with _begun(supervisor, _trigger()):
            control.fault("status", platform="omilia", status=503, times=5)
            first = control.add_runs("omilia", _PROJECT, duration=0.0)
            await until(lambda: supervisor.run_ids == first)
            control.reject_tokens(1.0, "omilia")
            supervisor.available = False
            second = control.add_runs("omilia", _PROJECT, 300, duration=0.0)
            await asyncio.sleep(2.0)
            assert supervisor.run_ids == first
            supervisor.available = True
            await until(lambda: len(supervisor.events) == 301)
            assert set(supervisor.run_ids) == {*first, *second}
            written = supervisor.writes
            await until(lambda: supervisor.writes > written or second[-1] in supervisor.run_ids)

    _run(main)
    assert "no run is lost" in caplog.text


def test_a_short_queue_of_airflows_does_not_overflow(control, supervisor, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TRIGGERER__SHARED_STREAM_SUBSCRIBER_QUEUE_SIZE", "2")

    async def main() -> None:
        async with _begun(supervisor, _trigger()) as triggerer:
            control.add_runs("omilia", _PROJECT, 9, duration=0.0)
            await until(lambda: len(supervisor.events) == 9)
            assert triggerer.most_in_flight <= 2

    _run(main)


def test_an_outage_of_the_store_that_outlasts_airflows_patience_loses_nothing(control, supervisor):
    ends: list[Exception] = []

    async def main() -> None:
        triggerer = Triggerer(supervisor, _trigger(), ack_timeout=0.5)
        await until(lambda: supervisor.store != {})
        supervisor.available = False
        run_ids = control.add_runs("omilia", _PROJECT, 300, duration=0.0)
        await until(lambda: triggerer.ends != [])
        assert {type(end).__name__ for end in triggerer.ends} == {"AckTimeout"}
        supervisor.available = True
        await until(lambda: set(supervisor.run_ids) == set(run_ids))
        await triggerer.kill()
        ends.extend(triggerer.ends)

    _run(main)
    # What was on its way comes once more.
    assert len(supervisor.events) <= 300 + len(ends) * IN_FLIGHT


def test_new_credentials_are_taken_and_no_run_is_missed(control, supervisor, mocker, monkeypatch):
    mocker.patch.object(timing, "REOPEN_AFTER", 0.2)

    async def main() -> None:
        connection = json.loads(os.environ["AIRFLOW_CONN_OMILIA_DEFAULT"])
        async with _begun(supervisor, _trigger()):
            control.reject_tokens(3600.0, "omilia")
            before = control.count(_LIST)
            await until(lambda: control.count(_LIST) > before)
            control.add_runs("omilia", _PROJECT, duration=0.0)
            control.reject_tokens(0.0, "omilia")
            changed = {**connection, "extra": {**connection["extra"], "timeout": 29}}
            monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(changed))
            await until(lambda: len(supervisor.events) == 1)

    _run(main)


def test_an_unreadable_cursor_is_one_warning_and_no_flood(control, supervisor, caplog):
    control.add_runs("omilia", _PROJECT, 50, duration=0.0, age=60.0)
    trigger = _trigger(backfill_since="2020-01-01")

    async def main() -> None:
        async with _begun(supervisor, trigger):
            await until(lambda: len(supervisor.events) == 50)
            await until(lambda: "told" in supervisor.cursor)
        (at,) = supervisor.store
        supervisor.store[at] = '{"version": 1, "told": "spoilt"}'
        caplog.clear()
        triggerer = Triggerer(supervisor, trigger)
        await until(lambda: "spoilt" not in supervisor.cursor)
        (fresh,) = control.add_runs("omilia", _PROJECT, duration=0.0)
        await until(lambda: fresh in supervisor.run_ids)
        await triggerer.kill()

    with caplog.at_level(logging.WARNING):
        _run(main)
    assert len(supervisor.events) == 51
    assert [record.levelname for record in caplog.records if "cursor" in record.getMessage()] == ["WARNING"]


# What is shared


def test_waits_and_watchers_share_list_calls_token_and_connections(control, supervisor):
    waited = control.add_runs("omilia", _PROJECT, 5, ending="failed")
    waited += control.add_runs("omilia", _PROJECT, 15, ending="passed")
    for run_id in waited:
        control.hang_run(run_id)

    def wait(run_id: str) -> RunTrigger:
        run = {"platform": "omilia", "run_id": run_id, "state": "running", "raw_state": "STARTED"}
        run["context"] = {"project_id": _PROJECT}  # type: ignore[assignment]
        return RunTrigger("omilia", "omilia_default", run, time.time() + 600, poll_interval=_INTERVAL)

    async def ended(trigger: RunTrigger) -> Any:
        return [event.payload async for event in trigger.run()]

    async def main() -> None:
        waits = [asyncio.create_task(ended(wait(run_id))) for run_id in waited]
        passed, failed = _trigger(verdicts=["passed"]), _trigger(verdicts=["failed"])
        async with _begun(supervisor, passed, failed):
            control.reset_traffic()
            began = time.monotonic()
            await until(lambda: control.count(_LIST) >= 10)
            rounds = (time.monotonic() - began) / (_INTERVAL * 0.9) + 2
            # One list for twenty waits and two watchers, and no run by itself.
            assert control.count(_LIST) <= rounds
            assert control.count(_SINGLE) == 0
            for run_id in waited:
                control.finish_run(run_id)
            events = await asyncio.gather(*waits)
            assert {event["status"] for (event,) in events} == {"finished"}
            await until(lambda: len(supervisor.events) == 20)

    _run(main)
    assert Counter(event["verdict"] for event in supervisor.events) == {"passed": 15, "failed": 5}
    assert control.stats()["token_requests"].get("omilia", 0) <= 1
    assert len(supervisor.store) == 2
    assert control.violations() == []


def test_one_wait_beside_a_watcher_keeps_its_own_pace_and_price(control, supervisor):
    control.add_runs("omilia", _PROJECT, 500, duration=0.0, age=600.0)
    (waited,) = control.add_runs("omilia", _PROJECT)
    control.hang_run(waited)

    async def main() -> None:
        async with _begun(supervisor, _trigger(poll_interval=1.0)):
            run = {"platform": "omilia", "run_id": waited, "state": "running", "raw_state": "STARTED"}
            run["context"] = {"project_id": _PROJECT}  # type: ignore[assignment]
            events = RunTrigger("omilia", "omilia_default", run, time.time() + 600, poll_interval=_INTERVAL).run()
            waiting = asyncio.create_task(anext(events))
            # Its list is ten times as dear as the run alone, and read for the watcher only.
            await until(lambda: control.count(_SINGLE) >= 15)
            control.reset_traffic()
            began = time.monotonic()
            await until(lambda: control.count(_SINGLE) >= 20)
            assert control.count(_LIST) <= (time.monotonic() - began) / 0.9 + 2
            control.finish_run(waited)
            assert (await waiting).payload["status"] == "finished"
            await events.aclose()
            await until(lambda: supervisor.run_ids == [waited])

    _run(main)


_OF = {
    "eggplant": ({"model_id": eggplant.named_id(1)}, eggplant.named_id(1), "failed", "failed"),
    "futureagi": ({"run_test_id": futureagi.named_id(1)}, futureagi.named_id(1), None, "failed"),
    "omilia": ({"project_id": _PROJECT}, _PROJECT, "failed", "failed"),
}


@pytest.mark.parametrize("platform", _OF)
@pytest.mark.parametrize("judge", [False, True])
def test_the_event_of_each_platform(control, supervisor, platform: str, judge: bool):
    where, target, listed, judged = _OF[platform]
    asset = Asset(_ASSET)
    trigger = FinishedRunsTrigger(
        platform, f"{platform}_default", asset_name=_ASSET, poll_interval=_INTERVAL, judge=judge, **where
    )
    trigger.asset_state_store = AssetStateStoreAccessors(inlets=[asset])

    async def main() -> None:
        async with _begun(supervisor, trigger):
            control.add_runs(platform, target, duration=0.3, ending="failed")
            await until(lambda: len(supervisor.events) == 1)

    _run(main)
    (event,) = supervisor.events
    (run,) = control.runs(platform)
    assert event["run_id"] == run["run_id"]
    assert (event["platform"], event["state"], event["conn_id"]) == (platform, "finished", f"{platform}_default")
    assert event["verdict"] == (judged if judge else listed)
    assert event["judged"] is judge
    assert event["url"].startswith("http")
    assert event["started_at"]
    (name,) = set(where) - {"model_id"} or {"model_id"}
    assert event["context"][name] == where[name]
    if judge:
        assert event["failed"] + event["unavailable"] > 0
    else:
        assert event["total"] is None
    assert control.violations() == []


def test_a_filter_by_verdict_asks_for_the_report_where_the_list_has_no_verdict(control, supervisor):
    run_test = futureagi.named_id(1)
    trigger = FinishedRunsTrigger(
        "futureagi",
        "futureagi_default",
        asset_name=_ASSET,
        run_test_id=run_test,
        verdicts=["passed"],
        poll_interval=_INTERVAL,
    )
    passed: list[str] = []

    async def main() -> None:
        async with _begun(supervisor, trigger):
            control.add_runs("futureagi", run_test, 3, duration=0.0, ending="failed")
            passed.extend(control.add_runs("futureagi", run_test, 2, duration=0.0, ending="passed"))
            await until(lambda: len(supervisor.events) == 2)
            polls = control.count("futureagi.list_executions")
            await until(lambda: control.count("futureagi.list_executions") > polls + 2)

    _run(main)
    assert Counter(supervisor.run_ids) == Counter(passed)
    assert {event["judged"] for event in supervisor.events} == {True}


def test_a_report_that_is_refused_is_asked_for_again_after_the_list(control, supervisor, mocker):
    mocker.patch.object(timing, "REPORT_GRACE", 0.0)

    async def main() -> None:
        async with _begun(supervisor, _trigger(judge=True)):
            control.fault("status", operation="omilia.run_stats", status=401, times=4)
            control.add_runs("omilia", _PROJECT, 3, duration=0.0)
            await until(lambda: len(supervisor.events) == 3)

    _run(main)
    assert {(event["verdict"], event["judged"]) for event in supervisor.events} == {("passed", True)}


def test_without_its_report_a_run_is_told_of_whatever_verdicts_are_asked_for(control, supervisor, mocker):
    mocker.patch.object(timing, "REPORT_PATIENCE", 0.1)

    async def main() -> None:
        async with _begun(supervisor, _trigger(verdicts=["failed"], judge=True)):
            control.fault("status", operation="omilia.run_stats", status=500)
            control.add_runs("omilia", _PROJECT, duration=0.0)
            await until(lambda: len(supervisor.events) == 1)

    _run(main)
    (event,) = supervisor.events
    assert (event["verdict"], event["judged"]) == ("passed", False)
    assert event["error"].startswith("ServerError: ")


# Without Airflow's streams, and where the arguments can't be right


def test_before_airflow_3_3_what_was_told_of_is_remembered_in_memory(control, caplog):
    control.add_runs("omilia", _PROJECT, 10, duration=0.0, age=60.0)
    told: list[str] = []

    async def main() -> None:
        events = _trigger().run()
        following = asyncio.create_task(anext(events))
        await until(lambda: "in memory only" in caplog.text)
        fresh = control.add_runs("omilia", _PROJECT, 3, duration=0.0)
        told.append((await following).payload["run_id"])
        told.extend([(await anext(events)).payload["run_id"] for _ in fresh[1:]])
        assert sorted(told) == sorted(fresh)
        await events.aclose()

    with caplog.at_level(logging.WARNING):
        _run(main)


def test_a_trigger_of_another_asset_says_so_and_sends_nothing(control, mocker, caplog):
    mocker.patch.object(timing, "MISTAKEN_PAUSE", 0.01)
    trigger = _trigger()
    trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset("another")])
    assert trigger.shared_stream_key() is None

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="asset_name is 'finished'"):
            await anext(trigger.run())

    _run(main)
    assert control.count(_LIST) == 0
