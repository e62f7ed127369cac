"""Waiting: what each look at a run, or each failure to look, means for the wait."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionUnavailableError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.lifecycle.waiting import (
    Wait,
    WaitEnd,
    WaitStatus,
    fetch_report,
    look_once,
    wait_for,
)
from airflow_provider_testruns.model import Progress, Run, RunState, Verdict
from airflow_provider_testruns.timing import GRACE, JITTER, REPORT_GRACE
from tests.unit.steps import BEGIN, LATENCY, Clock, FakePlatform, Fault, Lines, drive
from tests.unit.strategies import json_values, runs

pytestmark = pytest.mark.unit

_QUEUED = Run("fake", "r-1", RunState.QUEUED, "PENDING", ids={"project_id": "p"})
_RUNNING = replace(_QUEUED, state=RunState.RUNNING, raw_state="STARTED")
_DONE = replace(_QUEUED, state=RunState.FINISHED, raw_state="SUCCESS", platform_verdict=Verdict.PASSED)
_ODD = replace(_RUNNING, raw_state="MEDITATING", known_state=False)

_IN_PASSING = [
    ServerError("busy."),
    RateLimitedError("slow."),
    TransportError("lost."),
    ConnectionUnavailableError("away."),
]
_WITH_GRACE = [NotFoundError("gone."), AuthenticationError("who?"), InvalidReplyError("what?")]
_AT_ONCE = [PermissionDeniedError("no."), InvalidRequestError("bad."), ApiError("other.")]


def _name(error) -> str:
    return type(error).__name__


class World:
    """A wait for one run, in place."""

    def __init__(self, *looks: Run | ApiError, timeout: float = 3600.0, interval: float = 10.0, seen: bool = False):
        self.clock, self.lines = Clock(), Lines()
        self.platform = FakePlatform(self.clock)
        self.platform.looks = list(looks)
        self.wait = Wait(_QUEUED, BEGIN + timeout, interval, self.lines, self.clock, seen=seen)

    def end(self) -> WaitEnd:
        return drive(self.platform, wait_for(self.platform, self.wait))

    @property
    def told(self) -> list[str]:
        return [line for _, line in self.lines.kept]


# The ends of a wait


@pytest.mark.parametrize(("most", "failures", "status"), [(1, 2, WaitStatus.FAILING), (2, 2, None), (None, 9, None)])
def test_a_wait_ends_when_more_cases_have_failed_than_may(most, failures, status):
    world = World()
    world.wait.max_failures = most
    end = world.wait.observe(_RUNNING, failures)
    assert (end.status if end else None) is status
    # A run that is over is judged, whatever it was like before.
    assert world.wait.observe(_DONE, failures).status is WaitStatus.FINISHED
    if end is not None:
        assert WaitEnd.from_event(json.loads(json.dumps(end.to_event()))) == end


def test_a_run_that_is_over_at_the_first_look():
    world = World(_DONE)
    assert world.end() == WaitEnd(WaitStatus.FINISHED, _DONE)
    assert world.platform.sleeps == []


def test_a_run_that_ends_is_noticed_at_the_next_look():
    world = World(_QUEUED, _RUNNING, _RUNNING, _DONE)
    assert world.end() == WaitEnd(WaitStatus.FINISHED, _DONE)
    assert world.platform.count("get") == 4
    assert len(world.platform.sleeps) == 3


def test_a_wait_ends_at_its_deadline_with_one_more_look():
    world = World(_RUNNING, timeout=35.0)
    assert world.end() == WaitEnd(WaitStatus.TIMEOUT, _RUNNING)
    assert 35.0 <= world.clock.past < 35.5
    assert world.platform.actions[-1] == "get"


def test_a_run_that_ends_at_the_deadline_is_finished_not_late():
    world = World(_RUNNING, _DONE, timeout=5.0)
    assert world.end().status is WaitStatus.FINISHED


def test_a_deadline_that_is_over_before_the_first_look_still_looks():
    assert World(_DONE, timeout=-100).end().status is WaitStatus.FINISHED
    world = World(_RUNNING, timeout=-100)
    assert world.end().status is WaitStatus.TIMEOUT
    assert world.platform.sleeps == []


@pytest.mark.parametrize("error", _IN_PASSING, ids=_name)
def test_what_passes_by_itself_never_ends_a_wait_before_its_deadline(error):
    world = World(_RUNNING, *[error] * 500, _DONE, timeout=24 * 3600)
    assert world.end() == WaitEnd(WaitStatus.FINISHED, _DONE)


@pytest.mark.parametrize("error", _IN_PASSING, ids=_name)
def test_an_outage_up_to_the_deadline_is_a_time_out_that_says_so(error):
    world = World(_RUNNING, error, timeout=100.0)
    assert world.end() == WaitEnd(WaitStatus.TIMEOUT, _RUNNING, error)


@pytest.mark.parametrize("error", _IN_PASSING, ids=_name)
def test_the_end_of_an_outage_is_noticed_within_a_poll_interval(error):
    world = World(_RUNNING, *[error] * 60, _DONE)
    world.end()
    assert max(world.platform.sleeps) <= 10.0 * (1 + JITTER)


@pytest.mark.parametrize("error", _WITH_GRACE, ids=_name)
def test_what_may_be_a_hiccup_ends_the_wait_when_it_lasts(error):
    world = World(_RUNNING, error)
    end = world.end()
    assert (end.status, end.run, end.error) == (WaitStatus.ERROR, _RUNNING, error)
    assert GRACE <= world.clock.past - world.platform.sleeps[0] <= GRACE + 11 + 2


@pytest.mark.parametrize("error", _WITH_GRACE, ids=_name)
@pytest.mark.parametrize("break_", [_RUNNING, ServerError("busy.")], ids=["seen", "outage"])
def test_what_does_not_last_without_a_break_does_not_end_the_wait(error, break_):
    world = World(*[error, error, error, error, break_] * 20, _DONE)
    assert world.end().status is WaitStatus.FINISHED
    assert world.clock.past > 10 * GRACE


def test_the_grace_is_one_for_all_kinds_of_not_seeing():
    world = World(_RUNNING, *_WITH_GRACE * 100)
    assert world.end().status is WaitStatus.ERROR
    assert world.clock.past < GRACE + 25


@pytest.mark.parametrize("error", _WITH_GRACE, ids=_name)
def test_with_a_long_poll_interval_the_second_look_decides(error):
    world = World(error, interval=300.0)
    assert world.end().status is WaitStatus.ERROR
    assert world.platform.count("get") == 2


@pytest.mark.parametrize("error", _WITH_GRACE, ids=_name)
def test_a_deadline_within_the_grace_is_a_time_out(error):
    assert World(_RUNNING, error, timeout=30.0).end() == WaitEnd(WaitStatus.TIMEOUT, _RUNNING, error)


@pytest.mark.parametrize("error", _AT_ONCE, ids=_name)
def test_what_nobody_can_wait_out_ends_the_wait_at_once(error):
    world = World(_RUNNING, error)
    assert world.end() == WaitEnd(WaitStatus.ERROR, _RUNNING, error)
    assert world.platform.count("get") == 2


def test_every_api_error_has_its_rule():
    known = {type(error) for error in _IN_PASSING + _WITH_GRACE + _AT_ONCE}
    assert known == {ApiError, *ApiError.__subclasses__()}
    assert {type(error) for error in _IN_PASSING} == {kind for kind in known if kind.transient}


def test_errors_that_are_not_the_platforms_are_not_disguised():
    world = World()

    def broken(run_id, **context):
        raise RuntimeError("a bug")
        yield

    world.platform.get_run = broken
    with pytest.raises(RuntimeError):
        world.end()


# Pauses


@given(st.floats(0.1, 3600), st.floats(0, 7200))
def test_a_pause_is_the_interval_give_or_take_and_not_beyond_the_deadline(interval, left):
    wait = Wait(_RUNNING, BEGIN + left, interval, Lines(), Clock())
    found = wait.pause()
    assert 0 <= found <= min(left, interval * (1 + JITTER)) + 1e-6
    assert found >= min(left, interval * (1 - JITTER)) - 1e-6


def test_pauses_of_many_runs_do_not_march_in_step():
    wait = World().wait
    pauses = [wait.pause() for _ in range(2000)]
    assert min(pauses) < 9.2
    assert max(pauses) > 10.8
    assert sum(pauses) / 2000 == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("kind", [RateLimitedError, ServerError])
def test_retry_after_is_obeyed_when_it_is_longer(kind):
    world = World(kind("slow.", retry_after=45.0), _RUNNING, kind("slow.", retry_after=2.0), _DONE)
    world.end()
    first, second, third = world.platform.sleeps
    assert first == 45.0
    assert 9 <= second <= 11
    assert 9 <= third <= 11


def test_retry_after_does_not_move_the_deadline():
    world = World(RateLimitedError("slow.", retry_after=300.0), timeout=100.0)
    assert world.end().status is WaitStatus.TIMEOUT
    assert world.clock.past < 101


def test_the_callers_work_is_done_in_each_round():
    rounds = []
    world = World(_QUEUED, ServerError("busy."), _DONE)
    drive(world.platform, wait_for(world.platform, world.wait, each_round=lambda: rounds.append(world.wait.run)))
    assert rounds == [_QUEUED, _QUEUED, _DONE]


def test_a_run_that_was_stopped_meanwhile_is_looked_at_soon():
    world = World(_RUNNING, _DONE)
    world.wait.poll_interval = 60.0

    def stopped() -> bool:
        return world.clock.past >= 7.0

    end = drive(world.platform, wait_for(world.platform, world.wait, stopped=stopped))
    assert end.status is WaitStatus.FINISHED
    assert 7.0 <= world.clock.past <= 8.0


def test_a_run_whose_cancel_failed_is_cancelled_again_less_and_less_often_until_it_is_over():
    """It was looked at every second, and never cancelled again."""
    world = World(timeout=10_000.0)
    world.platform.add("r-1")
    world.platform.stops_after = 5.0
    world.platform.faults["cancel"] = [Fault(ServerError("busy."))] * 6
    end = drive(world.platform, wait_for(world.platform, world.wait, stopped=lambda: True))
    assert (end.status, end.run.platform_verdict) == (WaitStatus.FINISHED, Verdict.CANCELLED)
    cancels = world.platform.count("cancel")
    assert 7 <= cancels <= 9
    assert world.platform.count("get") == cancels + 1
    # 1, 2, 4 … 30 s: in the first 30 s there are five looks, not 53.
    assert all(later >= earlier for earlier, later in itertools.pairwise(world.platform.sleeps[:4]))
    assert sum(world.platform.sleeps[:5]) >= 30.0
    assert len([line for line in world.told if "could not be cancelled; trying again" in line]) == 6


def test_a_run_that_cannot_be_cancelled_at_all_is_waited_for_as_before():
    world = World(timeout=600.0)
    world.platform.add("r-1")
    world.platform.faults["cancel"] = [Fault(InvalidRequestError("there is no such call."))] * 9
    end = drive(world.platform, wait_for(world.platform, world.wait, stopped=lambda: True))
    assert end.status is WaitStatus.TIMEOUT
    assert world.platform.count("cancel") == 1
    assert world.platform.count("get") <= 64


def test_a_cancel_that_is_tried_again_obeys_a_request_to_wait():
    world = World(_RUNNING, RateLimitedError("slow.", retry_after=50.0), _DONE)
    drive(world.platform, wait_for(world.platform, world.wait, stopped=lambda: True))
    assert world.platform.sleeps[1] == pytest.approx(50.0, abs=1)


def test_a_wait_that_may_be_stopped_keeps_its_interval():
    world = World(_RUNNING, _RUNNING, _DONE)
    world.wait.poll_interval = 10.0
    drive(world.platform, wait_for(world.platform, world.wait, stopped=lambda: False))
    assert 18.0 <= world.clock.past <= 22.5
    assert world.platform.count("get") == 3


def test_what_stops_the_callers_work_stops_the_wait():
    world = World(_QUEUED)

    def stop():
        raise RuntimeError("superseded")

    with pytest.raises(RuntimeError, match="superseded"):
        drive(world.platform, wait_for(world.platform, world.wait, each_round=stop))


def test_one_look():
    world = World(_RUNNING, ServerError("busy."), NotFoundError("gone."), _DONE)
    steps = [drive(world.platform, look_once(world.platform, world.wait)) for _ in range(4)]
    assert steps == [None, None, None, WaitEnd(WaitStatus.FINISHED, _DONE)]
    assert world.wait.seen
    assert world.wait.run == _DONE


def test_whether_a_wait_is_unsure_of_its_run():
    world = World()
    assert not world.wait.unsure
    for error, unsure in [(NotFoundError("gone."), True), (ServerError("busy."), False), (_WITH_GRACE[1], True)]:
        assert world.wait.failed(error) is None
        assert world.wait.unsure is unsure
    world.wait.observe(_RUNNING)
    assert not world.wait.unsure


def test_a_wait_knows_whether_its_run_was_seen():
    world = World()
    world.wait.failed(NotFoundError("gone."))
    assert not world.wait.seen
    world.wait.observe(_RUNNING)
    assert world.wait.seen


# Lines


def test_only_news_is_told():
    steps = [
        _QUEUED,
        *[_RUNNING] * 50,
        replace(_RUNNING, progress=Progress(0, 4)),
        *[replace(_RUNNING, progress=Progress(2, 4))] * 50,
        replace(_DONE, progress=Progress(4, 4)),
    ]
    world = World(*steps)
    world.end()
    assert world.told == [
        "Run r-1 is queued (PENDING).",
        "Run r-1 is running (STARTED).",
        "Run r-1 is running (STARTED, 0/4).",
        "Run r-1 is running (STARTED, 2/4).",
        "Run r-1 is finished (SUCCESS, 4/4).",
    ]


def test_a_run_that_was_seen_before_is_told_of_only_with_news():
    world = World(_QUEUED, _QUEUED, _DONE, seen=True)
    world.end()
    assert world.told == ["Run r-1 is finished (SUCCESS)."]


def test_trouble_is_told_once_and_so_is_its_end():
    busy, lost = ServerError("busy."), TransportError("lost.")
    world = World(_RUNNING, busy, busy, busy, lost, lost, busy, _RUNNING, _RUNNING, _DONE)
    world.end()
    assert world.told == [
        "Run r-1 is running (STARTED).",
        "busy. Still waiting.",
        "lost. Still waiting.",
        "busy. Still waiting.",
        "The platform answers again about run r-1.",
        "Run r-1 is finished (SUCCESS).",
    ]


def test_a_run_that_is_not_shown_yet_is_no_reason_to_warn():
    world = World(NotFoundError("gone."), NotFoundError("gone."), _RUNNING, _DONE)
    world.end()
    assert world.lines.of("warning") == []
    assert world.told[0] == "The platform does not show run r-1 yet."


def test_a_run_that_is_not_shown_any_more_is_one():
    world = World(_RUNNING, NotFoundError("gone."), _DONE)
    world.end()
    assert world.lines.of("warning") == ["gone. Still waiting."]


@pytest.mark.parametrize("seen", [False, True])
def test_an_unknown_status_is_warned_of_once_and_waited_for(seen):
    world = World(*[_ODD] * 20, replace(_ODD, progress=Progress(1)), _RUNNING, _ODD, _DONE, seen=seen)
    if seen:
        # As after attaching again: what is known of the run already has the odd word.
        world.wait.run = _ODD
    assert world.end().status is WaitStatus.FINISHED
    warnings = world.lines.of("warning")
    assert len(warnings) == 1
    assert "Unknown status 'MEDITATING'" in warnings[0]


def test_an_unknown_status_is_warned_of_again_when_it_changes_and_every_hour():
    other = replace(_ODD, raw_state="LEVITATING")
    world = World(_ODD, _ODD, other, _ODD, *[_ODD] * 800, _DONE, timeout=24 * 3600)
    world.end()
    warned = [line.split("'")[1] for line in world.lines.of("warning")]
    # 800 polls, ten seconds apart, are a little more than two hours.
    assert warned == ["MEDITATING", "LEVITATING", "MEDITATING", "MEDITATING", "MEDITATING"]


_CALLS_DONE = replace(_RUNNING, progress=Progress(4, 4))


def test_f4_a_run_whose_work_is_all_done_and_that_is_never_closed_ends_as_errored():
    world = World(_RUNNING, replace(_RUNNING, progress=Progress(3, 4)), _CALLS_DONE, timeout=24 * 3600)
    world.wait.stalled_after = 1800.0
    end = world.end()
    assert (end.status, end.run.platform_verdict, end.run.stalled) == (WaitStatus.FINISHED, Verdict.ERRORED, True)
    assert "has not closed the run for 30 minutes" in end.run.message
    assert 1800 <= world.clock.past < 1900
    assert world.platform.count("cancel") == 0


def test_f4_whatever_is_new_begins_the_time_again_and_without_a_limit_there_is_none():
    looks = [_CALLS_DONE] * 150 + [replace(_CALLS_DONE, raw_state="evaluating")] * 150 + [_DONE]
    world = World(*looks, timeout=24 * 3600)
    world.wait.stalled_after = 1800.0
    assert world.end() == WaitEnd(WaitStatus.FINISHED, _DONE)
    world = World(*[_CALLS_DONE] * 500, _DONE, timeout=24 * 3600)
    assert world.end() == WaitEnd(WaitStatus.FINISHED, _DONE)


def test_l4_an_adopted_run_that_never_begins_ends_as_errored_with_the_words_of_its_start():
    adopted = replace(_QUEUED, start_error="HTTP 400: the workflow service does not answer.")
    for stalled_after, seconds in ((1800.0, 600.0), (300.0, 300.0)):
        world = World(_QUEUED, timeout=24 * 3600)
        world.wait.run, world.wait.stalled_after = adopted, stalled_after
        end = world.end()
        assert (end.status, end.run.platform_verdict, end.run.stalled) == (WaitStatus.FINISHED, Verdict.ERRORED, True)
        assert "has not begun" in end.run.message
        assert "the workflow service does not answer" in end.run.message
        assert seconds <= world.clock.past < seconds + 60
    # One that begins, one whose start went well, and one that nobody has set a limit for.
    for run, stalled_after, looks in (
        (adopted, 1800.0, [_QUEUED] * 30 + [_RUNNING] * 200),
        (_QUEUED, 1800.0, [_QUEUED] * 300),
        (adopted, None, [_QUEUED] * 300),
    ):
        world = World(*looks, _DONE, timeout=24 * 3600)
        world.wait.run, world.wait.stalled_after = run, stalled_after
        assert world.end().run.platform_verdict is _DONE.platform_verdict


def test_f4_a_list_alone_ends_no_wait_as_stalled():
    """It counts calls that are going as done, and spells the status in another way."""
    world = World(_RUNNING, timeout=24 * 3600)
    wait, listed = world.wait, replace(_CALLS_DONE, raw_state=_RUNNING.raw_state.title())
    wait.stalled_after = 1800.0
    assert wait.observe(listed) is None
    world.clock.now += 1800.0
    assert wait.would_stall(listed)
    assert wait.observe(replace(_CALLS_DONE, progress=Progress(3, 4))) is None
    assert not wait.would_stall(listed)
    world.clock.now += 1800.0
    assert wait.would_stall(listed)
    end = wait.observe(replace(_CALLS_DONE, raw_state=_RUNNING.raw_state))
    assert end is not None
    assert end.run.stalled


def test_an_unknown_status_does_not_outlast_the_deadline():
    assert World(_ODD, timeout=60.0).end() == WaitEnd(WaitStatus.TIMEOUT, _ODD)


# Events


@given(runs, st.sampled_from(_IN_PASSING + _WITH_GRACE + _AT_ONCE), st.sampled_from(WaitStatus))
def test_an_end_survives_being_an_event(run, error, status):
    for end in [WaitEnd(status, run, error)] + ([WaitEnd(status, run)] if status is not WaitStatus.ERROR else []):
        read = WaitEnd.from_event(json.loads(json.dumps(end.to_event())))
        assert (read.status, read.run) == (end.status, end.run)
        assert type(read.error) is type(end.error)
        assert str(read.error) == str(end.error)


def test_an_error_of_a_later_version_is_an_api_error():
    event = WaitEnd(WaitStatus.ERROR, _RUNNING, ApiError("x")).to_event()
    for name in ("FancyError", "annotations", "AirflowException", "ConfigurationError", "RunFailedError", 5):
        event["error"] = {"type": name, "message": "why"}
        error = WaitEnd.from_event(event).error
        assert type(error) is ApiError
        assert str(error) == "why"


_EVENT = WaitEnd(WaitStatus.FINISHED, _DONE).to_event()


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        [],
        "finished",
        {**_EVENT, "status": "success"},
        {**_EVENT, "status": None},
        {**_EVENT, "run": None},
        {**_EVENT, "run": {"run_id": "r"}},
        {**_EVENT, "error": "why"},
        {**_EVENT, "error": {"type": "ApiError"}},
        {**_EVENT, "status": "error"},
        {"status": "finished"},
    ],
    ids=repr,
)
def test_what_is_no_event_says_that_versions_differ(event):
    with pytest.raises(ConfigurationError, match="must have the same version of airflow-provider-testruns"):
        WaitEnd.from_event(event)


@given(json_values)
def test_any_event_is_an_end_or_a_configuration_error(value):
    for event in (value, {**_EVENT, "error": value}, {**_EVENT, "run": value}, {**_EVENT, "status": value}):
        try:
            assert isinstance(WaitEnd.from_event(event), WaitEnd)
        except ConfigurationError:
            continue


# The report


@pytest.mark.parametrize("error", [AuthenticationError("Not you."), InvalidReplyError("Not JSON.")])
def test_a_report_outlasts_what_a_wait_outlasts(error):
    clock, lines = Clock(), Lines()
    platform = FakePlatform(clock)
    run = platform.add("r1")
    platform.end("r1", Verdict.PASSED)
    platform.faults["report"] = [Fault(error), Fault(error)]
    report = drive(platform, fetch_report(platform, run, lines, patience=60.0, clock=clock))
    assert report.run.run_id == "r1"
    assert 3.0 <= clock.past <= 5.0
    assert "Trying again in" in "\n".join(lines.of("warning"))


@pytest.mark.parametrize("error", [AuthenticationError("Not you."), InvalidReplyError("Not JSON.")])
def test_a_report_that_cannot_be_had_is_an_error(error):
    clock, lines = Clock(), Lines()
    platform = FakePlatform(clock)
    run = platform.add("r1")
    platform.end("r1", Verdict.PASSED)
    platform.faults["report"] = [Fault(error)] * 20
    with pytest.raises(type(error)):
        drive(platform, fetch_report(platform, run, lines, patience=60.0, clock=clock))
    assert clock.past <= REPORT_GRACE + 1.0


def test_a_report_that_is_forbidden_is_an_error_at_once():
    clock, lines = Clock(), Lines()
    platform = FakePlatform(clock)
    run = platform.add("r1")
    platform.end("r1", Verdict.PASSED)
    platform.faults["report"] = [Fault(PermissionDeniedError("Not for you."))]
    with pytest.raises(PermissionDeniedError):
        drive(platform, fetch_report(platform, run, lines, patience=60.0, clock=clock))
    assert clock.past == LATENCY


# Waits that look less and less often, and what is handed from one process to another


def test_an_interval_that_doubles_goes_by_the_time_that_has_passed_so_that_a_restart_does_not_move_it():
    world = World(_RUNNING, timeout=100_000.0)
    world.wait.slows_from = BEGIN
    found = []
    for _ in range(8):
        found.append(world.wait.interval)
        world.clock.now += world.wait.interval
    assert found == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0]
    again = Wait(_RUNNING, world.wait.deadline, 10.0, world.lines, world.clock, slows_from=BEGIN)
    assert again.interval == world.wait.interval


def test_an_interval_that_doubles_is_bounded_and_reaches_no_deadline():
    world = World(_RUNNING, timeout=1000.0)
    world.wait.slows_from, world.wait.max_interval = BEGIN, 60.0
    assert world.end().status is WaitStatus.TIMEOUT
    assert max(world.platform.sleeps) <= 60.0 * (1 + JITTER)
    assert world.platform.count("get") < 22
    assert 1000.0 <= world.clock.past < 1001.0


@pytest.mark.parametrize(("longest", "interval"), [(4.0, 4.0), (0.001, 1.0)])
def test_a_longest_interval_below_the_first_one_holds_but_for_a_flood(longest, interval):
    world = World(_RUNNING)
    world.wait.slows_from, world.wait.max_interval = BEGIN, longest
    world.clock.now += 500.0
    assert world.wait.interval == interval


def test_a_request_to_wait_is_a_time_that_another_process_can_keep():
    world = World(_RUNNING)
    world.wait.failed(RateLimitedError("slow.", retry_after=40.0))
    assert world.wait.not_before == BEGIN + 40.0
    again = Wait(_RUNNING, world.wait.deadline, 10.0, world.lines, world.clock, not_before=world.wait.not_before)
    world.clock.now += 5.0
    assert again.pause() == pytest.approx(35.0)
    again.observe(_RUNNING)
    assert again.pause() <= 10.0 * (1 + JITTER)
