"""The second deadline for ``execution_timeout``, for when the exception of Airflow's alarm was lost."""

from __future__ import annotations

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_testruns.steps import Call, Response, ask, pause
from airflow_provider_testruns.tasks.overtime import time_left
from airflow_provider_testruns.timing import OVERTIME
from airflow_provider_testruns.transport.blocking import BlockingClient
from airflow_provider_testruns.transport.effects import NetworkError, Request
from tests.unit.steps import Clock

pytestmark = pytest.mark.unit


def _task(seconds: float | None) -> Any:
    return SimpleNamespace(execution_timeout=None if seconds is None else timedelta(seconds=seconds))


def test_without_an_execution_timeout_there_is_no_end():
    assert time_left(_task(None))() == math.inf


def test_time_is_over_some_seconds_after_airflows_own_alarm():
    clock = Clock()
    left = time_left(_task(30.0), clock)
    clock.now += 30.0
    assert left() == pytest.approx(OVERTIME)
    clock.now += OVERTIME
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout of 30 s passed 5 s ago"):
        left()


class _Session:
    """As the transport's, with steps as they are."""

    def execute(self, steps: Any, until: float | None = None) -> Any:
        return steps


def _client(clock: Clock, seconds: float) -> tuple[BlockingClient, list[float]]:
    slept: list[float] = []

    def sleep(for_seconds: float) -> None:
        slept.append(for_seconds)
        clock.now += for_seconds

    client = BlockingClient(_Session(), sleep=sleep)  # type: ignore[arg-type]
    client.time_left = time_left(_task(seconds), clock)
    return client, slept


def test_a_client_goes_on_with_nothing_after_the_end(monkeypatch):
    """A start, a wait, a cancel and a report are all steps of a client."""
    clock = Clock()
    client, slept = _client(clock, 30.0)
    steps = 0

    def forever() -> Any:
        nonlocal steps
        while True:
            steps += 1
            yield from pause(10.0)

    with pytest.raises(AirflowTaskTimeout):
        client.run(forever())
    assert slept == [10.0, 10.0, 10.0, 5.0]
    assert steps == 5
    with pytest.raises(AirflowTaskTimeout):
        client.run(pause(1.0))
    assert len(slept) == 4


def test_a_request_lasts_no_longer_than_to_the_end(monkeypatch):
    clock = Clock()
    client, _ = _client(clock, 3.0)
    sent: list[float] = []

    def send(request: Request) -> Response:
        sent.append(request.timeout)
        clock.now += request.timeout
        raise NetworkError("no complete response within the time allowed", sent=True)

    monkeypatch.setattr(client, "_send", send)

    def again() -> Any:
        while True:
            try:
                yield Request("GET", "http://127.0.0.1/", {}, 5.0)
            except NetworkError:
                continue

    with pytest.raises(AirflowTaskTimeout):
        client.run(again())
    assert sent == [5.0, 3.0]


def test_what_the_end_strikes_in_the_middle_of_is_closed():
    clock = Clock()
    client, _ = _client(clock, 0.0)
    closed = []

    def steps() -> Any:
        try:
            yield from pause(10.0)
            yield from ask(Call("x", "GET", "/x", lambda response: None))
        finally:
            closed.append(True)

    with pytest.raises(AirflowTaskTimeout):
        client.run(steps())
    assert closed == [True]
