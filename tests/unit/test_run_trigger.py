"""The trigger's arguments, and when it sends its event."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, WaitStatus
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.timing import EVENT_DELAY, SURELY_DEFERRED
from airflow_provider_testruns.triggers import run as module
from airflow_provider_testruns.triggers.run import (
    RunTrigger,
    defer_until_final,
    left_to_hold,
)

pytestmark = pytest.mark.unit

_RUN = Run("omilia", "r-1", RunState.RUNNING, "STARTED", ids={"project_id": "p-1"})
_DONE = Run("omilia", "r-1", RunState.FINISHED, "SUCCESS")


class Deferred(BaseException):
    pass


class _Operator:
    """What takes the trigger."""

    log = SimpleNamespace(info=lambda *args: None)

    def defer(self, *, trigger: RunTrigger, method_name: str, timeout: Any) -> None:
        assert (method_name, timeout) == ("execute_complete", None)
        self.trigger = trigger
        raise Deferred


def _deferred(wait: Wait) -> RunTrigger:
    """The trigger as the triggerer gets it."""
    operator: Any = _Operator()
    with pytest.raises(Deferred):
        defer_until_final(operator, wait, platform="omilia", conn_id="c", cancel_on_kill=True)
    path, kwargs = operator.trigger.serialize()
    assert path == "airflow_provider_testruns.triggers.run.RunTrigger"
    return RunTrigger(**kwargs)


def test_a_trigger_of_before_has_none_of_the_new_arguments_and_is_stored_as_before():
    kwargs = {
        "platform": "omilia",
        "conn_id": "c",
        "run": _RUN.to_dict(),
        "deadline": 1.0,
        "poll_interval": 10.0,
        "cancel_on_kill": True,
    }
    trigger = RunTrigger(**kwargs)
    assert trigger.serialize()[1] == kwargs
    assert trigger.event_delay == 0


def test_a_deferral_takes_along_what_the_worker_has_learnt(monkeypatch):
    monkeypatch.setenv("AIRFLOW__TESTRUNS__EVENT_DELAY", "7.5")
    wait = Wait(_RUN, time.time() + 900, 10.0, None, not_before=time.time() + 40, slows_from=5.0, max_interval=60.0)
    trigger = _deferred(wait)
    assert trigger.not_before == wait.not_before
    assert (trigger.slows_from, trigger.max_interval, trigger.event_delay) == (5.0, 60.0, 7.5)
    assert trigger.deferred_at == pytest.approx(time.time(), abs=60)


def test_a_request_to_wait_that_is_over_is_left_out():
    assert _deferred(Wait(_RUN, time.time() + 900, 10.0, None, not_before=time.time() - 1)).not_before is None


@pytest.mark.parametrize(
    ("setting", "delay"), [(None, EVENT_DELAY), ("0", 0.0), ("12", 12.0), ("-1", 5.0), ("nan", 5.0), ("soon", 5.0)]
)
def test_how_long_events_are_held_back_is_a_setting(monkeypatch, setting, delay):
    if setting is None:
        monkeypatch.delenv("AIRFLOW__TESTRUNS__EVENT_DELAY")
    else:
        monkeypatch.setenv("AIRFLOW__TESTRUNS__EVENT_DELAY", setting)
    assert _deferred(Wait(_RUN, 1.0, 10.0, None)).event_delay == delay


@pytest.mark.parametrize(
    ("delay", "since_begin", "since_deferral", "left"),
    [
        (5.0, 0.0, 0.0, 5.0),
        (5.0, 1.5, 3.0, 3.5),  # from when the trigger began: that was after the deferral by any clock
        (5.0, 4.9, 4.9, pytest.approx(0.1)),
        (5.0, 5.0, 5.0, 0.0),
        (5.0, 3600.0, 3600.0, 0.0),  # longer runs lose nothing
        (0.0, 0.0, 0.0, 0.0),
        (5.0, 0.0, -7200.0, 5.0),  # a triggerer whose clock is behind holds nothing back for longer
        (5.0, 0.0, SURELY_DEFERRED + 1, 0.0),  # started again, in the middle of a wait
        (5.0, 0.0, None, 5.0),
    ],
)
def test_how_long_an_event_is_held_back(delay, since_begin, since_deferral, left):
    assert left_to_hold(delay, since_begin, since_deferral) == left


class _Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class _Watching:
    """A watcher that shows the end of the run after a while."""

    def __init__(self, clock: _Time, after: float) -> None:
        self._clock, self._after = clock, after

    async def __aenter__(self) -> _Watching:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    async def wait(self, wait: Wait) -> WaitEnd:
        self._clock.now += self._after
        return WaitEnd(WaitStatus.FINISHED, _DONE)


@pytest.mark.parametrize(("takes", "delay", "sent_after"), [(0, 5, 5), (2, 5, 5), (5, 5, 5), (90, 5, 90), (0, 0, 0)])
def test_no_event_leaves_before_its_time_and_none_later_than_its_run_ended(monkeypatch, takes, delay, sent_after):
    clock = _Time()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=clock.sleep))
    began = clock.now
    trigger = RunTrigger("omilia", "c", _RUN.to_dict(), began + 900, event_delay=delay, deferred_at=began)
    monkeypatch.setattr(trigger, "_watcher", lambda: _Watching(clock, takes))

    async def main() -> list[float]:
        return [clock.now - began async for _ in trigger.run()]

    assert asyncio.run(main()) == [sent_after]
