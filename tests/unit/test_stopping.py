"""A cancel is confirmed: the run is watched until it is final, for so long and no longer."""

from __future__ import annotations

import pytest

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.lifecycle.stopping import stop
from airflow_provider_testruns.model import Run, Verdict
from airflow_provider_testruns.timing import CONFIRM_WITHIN
from tests.unit.steps import Clock, FakePlatform, Fault, Lines, drive

pytestmark = pytest.mark.unit


class World:
    """A run that somebody wants to stop."""

    def __init__(self) -> None:
        self.clock, self.lines = Clock(), Lines()
        self.platform = FakePlatform(self.clock)
        self.run = self.platform.add("r-1", ids={"project_id": "p"})

    def stop(self, **more) -> Run:
        steps = stop(self.platform, self.run, self.lines, why="the task timed out", clock=self.clock, **more)
        return drive(self.platform, steps)


def test_a_run_is_cancelled_and_seen_to_be_over():
    world = World()
    run = world.stop()
    assert run.final
    assert run.platform_verdict is Verdict.CANCELLED
    assert world.platform.actions == ["cancel", "get"]
    assert world.lines.of("info") == [
        "Asked the platform to cancel run r-1: the task timed out.",
        "Run r-1 has ended as cancelled.",
    ]
    assert world.lines.of("warning") == []


@pytest.mark.parametrize("seconds", [0.4, 3.0, 20.0])
def test_a_platform_that_stops_in_the_background_is_waited_for(seconds):
    world = World()
    world.platform.stops_after = seconds
    assert world.stop().final
    assert seconds <= world.clock.past <= seconds + 6
    gaps = world.platform.sleeps
    assert gaps[0] == 0.5
    assert gaps == sorted(gaps)
    assert max(gaps) <= 5.0


@pytest.mark.parametrize("within", [CONFIRM_WITHIN, 3.5, 20.0])
def test_a_run_that_does_not_stop_is_said_and_left(within):
    world = World()
    world.platform.stops_after = 1000
    run = world.stop(within=within)
    assert not run.final
    assert world.clock.past <= within + 1
    assert world.lines.of("warning") == [f"Run r-1 was asked to stop and is still running after {within:.0f} s."]
    assert world.platform.count("cancel") == 1


def test_what_ended_by_itself_meanwhile_keeps_its_own_ending():
    world = World()
    world.platform.stops_after = 1000
    world.platform.end("r-1", Verdict.PASSED)
    assert world.stop().platform_verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "error", [ServerError("busy."), RateLimitedError("slow."), TransportError("lost."), AuthenticationError("who?")]
)
def test_trouble_in_passing_is_outlasted(error):
    world = World()
    world.platform.faults["cancel"] = [Fault(error), Fault(error)]
    world.platform.faults["get"] = [Fault(error), Fault(error), Fault(error)]
    assert world.stop().final
    assert world.lines.of("error") == []


@pytest.mark.parametrize(
    "error",
    [PermissionDeniedError("Not allowed."), InvalidRequestError("bad."), ApiError("x.")],
)
def test_a_cancel_that_is_refused_is_an_error_line_and_no_exception(error):
    world = World()
    world.platform.faults["cancel"] = [Fault(error)]
    assert world.stop() == world.run
    assert world.lines.of("error") == [
        f"Could not cancel run r-1 (the task timed out); it may still be running. {error}"
    ]
    assert world.platform.actions == ["cancel"]


@pytest.mark.parametrize("error", [ServerError("busy."), AuthenticationError("who?")])
def test_a_cancel_that_fails_all_the_time_ends_in_half_of_the_time(error):
    world = World()
    world.platform.faults["cancel"] = [Fault(error)] * 100
    assert world.stop(within=20.0) == world.run
    assert world.clock.past <= 11
    assert "it may still be running" in world.lines.of("error")[0]


def test_a_run_that_is_gone_is_stopped():
    world = World()
    world.platform.lose("r-1")
    assert world.stop() == world.run
    assert world.lines.of("info")[-1] == "Run r-1 no longer exists."


def test_a_run_that_cannot_be_looked_at_after_its_cancel_is_said_with_the_reason():
    world = World()
    world.platform.faults["get"] = [Fault(PermissionDeniedError("Not for you."))] * 100
    assert world.stop() == world.run
    assert world.lines.of("warning")[-1].endswith("after 30 s. Not for you.")
    assert world.clock.past <= CONFIRM_WITHIN + 1
