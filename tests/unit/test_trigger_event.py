"""Whatever goes wrong in the triggerer, a trigger ends in one event that Airflow can encode and store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from airflow_provider_testruns.exceptions import ApiError, NotFoundError
from airflow_provider_testruns.lifecycle.waiting import WaitEnd, WaitStatus
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.triggers.run import RunTrigger

pytestmark = pytest.mark.unit

RUN = Run("omilia", "r-1", RunState.RUNNING, "STARTED", ids={"project_id": "p-1"}).to_dict()
HOSTILE = "a\ud800b\x00c\x1b[31m\nERROR - not ours\u202e"


def stored(event: TriggerEvent) -> Any:
    """What Airflow makes of an event on its way: from the triggerer to its supervisor, and into the database."""
    from airflow.jobs.triggerer_job_runner import TriggerEventEntry, messages
    from airflow.sdk.execution_time.comms import _RequestFrame
    from airflow.sdk.serde import serialize

    message = messages.TriggerStateChanges(events=[TriggerEventEntry(1, event, None)])
    _RequestFrame(id=0, body=message.model_dump()).as_bytes()
    text = json.dumps(serialize({"event": event.payload}), allow_nan=False, ensure_ascii=False)
    # PostgreSQL's JSONB takes no NUL, in whatever spelling.
    assert "\x00" not in text
    assert "\\u0000" not in text
    text.encode()
    return event.payload


def ended(trigger: RunTrigger) -> Any:
    """The payload of the one event."""

    async def run() -> list[TriggerEvent]:
        async with asyncio.timeout(60):
            return [event async for event in trigger.run()]

    events = asyncio.run(run())
    assert len(events) == 1
    return stored(events[0])


class _Watcher:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def wait(self, wait: Any) -> WaitEnd:
        raise self._error


class _Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("where", ["opening", "waiting", "closing"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(HOSTILE),
        KeyError(HOSTILE),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        ExceptionGroup(HOSTILE, [ValueError(HOSTILE)]),
        MemoryError(),
        RecursionError(HOSTILE),
        ImportError(HOSTILE),
        _Odd(),
        NotFoundError(HOSTILE),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_is_one_event(monkeypatch, where, error):
    @contextlib.asynccontextmanager
    async def watcher(self: RunTrigger):
        if where == "opening":
            raise error
        yield _Watcher(error if where == "waiting" else ValueError("first"))
        raise error

    monkeypatch.setattr(RunTrigger, "_watcher", watcher)
    payload = ended(RunTrigger("omilia", "con", RUN, 0.0))

    end = WaitEnd.from_event(payload)
    assert (end.status, end.run.run_id) == (WaitStatus.ERROR, "r-1")
    assert isinstance(end.error, ApiError)
    assert isinstance(end.error, NotFoundError) == (isinstance(error, NotFoundError) and where != "closing")
    assert "\n" not in str(end.error)


@pytest.mark.parametrize("run", [{}, {"run_id": HOSTILE}, {"state": "no state"}, {HOSTILE: [float("nan"), 2**70]}])
def test_arguments_that_can_not_be_read_are_one_event(run):
    assert ended(RunTrigger("omilia", "con", run, 0.0))["status"] == "error"


def test_a_cancellation_is_none(monkeypatch):
    waits = asyncio.Event()

    @contextlib.asynccontextmanager
    async def watcher(self: RunTrigger):
        waits.set()
        await asyncio.Event().wait()
        yield None

    monkeypatch.setattr(RunTrigger, "_watcher", watcher)

    async def cancelled() -> None:
        trigger = RunTrigger("omilia", "con", RUN, 0.0)
        task = asyncio.ensure_future(anext(aiter(trigger.run())))
        async with asyncio.timeout(60):
            await waits.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())


def test_what_a_platform_says_of_a_run_is_clean_in_the_event(monkeypatch):
    run = Run(
        "omilia", "r-1", RunState.FINISHED, HOSTILE, url=HOSTILE, message=HOSTILE, started_with={HOSTILE: HOSTILE}
    )

    class Watcher:
        async def wait(self, wait: Any) -> WaitEnd:
            return WaitEnd(WaitStatus.FINISHED, run, ApiError(HOSTILE))

    @contextlib.asynccontextmanager
    async def watcher(self: RunTrigger):
        yield Watcher()

    monkeypatch.setattr(RunTrigger, "_watcher", watcher)
    payload = ended(RunTrigger("omilia", "con", RUN, 0.0))

    assert (payload["status"], payload["run"]["run_id"]) == ("finished", "r-1")
    assert WaitEnd.from_event(payload).run.final
