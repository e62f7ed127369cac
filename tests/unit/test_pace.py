"""How fast a process may ask: turns for requests, tickets for starts, and what a 429 does to all of them."""

from __future__ import annotations

import pytest

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import RateLimitedError
from airflow_provider_testruns.steps import Call, Sleep
from airflow_provider_testruns.transport import pace as paces
from airflow_provider_testruns.transport.auth import FixedHeaders
from airflow_provider_testruns.transport.pace import Pace, in_turn, shared_pace
from airflow_provider_testruns.transport.policy import Allowance, Session
from tests.unit.responses import response
from tests.unit.steps import Clock, Script, drive, flow
from tests.unit.test_starting import World

pytestmark = pytest.mark.unit

_SLOW = {"retry_after": "7"}
MINUTE = timing.MINUTE
FIRST_GAP, MAX_GAP = timing.REFUSED_GAP.first, timing.REFUSED_GAP.most
MAX_HOLD = timing.REFUSED_BACKOFF.most


def _session(pace: Pace) -> Session:
    return Session("con", "https://api.example.com", FixedHeaders({}, ()), clock=pace.clock, pace=pace)


def _get() -> Call[None]:
    return Call("get run 4711", "GET", "/runs/4711", lambda response: None)


def _steps(call):
    return (yield call)


def _sent(session: Session, *answers, call=None, until=None) -> list[float]:
    """What was slept before it was sent."""
    wire = Script(answers or [response({})])
    flow(session, session.execute(_steps(call or _get()), until), wire)
    return wire.sleeps


# Requests per minute


def test_no_more_requests_in_any_minute_than_are_allowed():
    clock = Clock()
    session = _session(Pace(3, clock=clock))
    at = []
    for _ in range(10):
        _sent(session)
        at.append(clock.past)
        clock.now += 7
    assert at == [0, 7, 14, 60, 67, 74, 120, 127, 134, 180]


def test_those_who_wait_together_are_let_go_as_places_become_free():
    pace = Pace(2, clock=Clock())
    assert [pace.take()[0] for _ in range(6)] == [0, 0, 60, 60, 120, 120]


def test_a_turn_in_which_nothing_is_sent_is_given_back():
    pace = Pace(1, clock=Clock())
    pace.take()
    _, turn = pace.take()
    assert turn is not None
    pace.give_back(turn)
    assert pace.take()[0] == MINUTE


def test_a_request_that_is_given_up_while_it_waits_gives_its_turn_back():
    clock = Clock()
    session = _session(Pace(1, clock=clock))
    _sent(session)
    steps = session.execute(_steps(_get()))
    assert steps.send(None) == Sleep(MINUTE)
    steps.close()
    assert session.pace.take()[0] == MINUTE


def test_what_must_be_over_before_its_turn_is_sent_at_once_and_counted():
    clock = Clock()
    session = _session(Pace(1, clock=clock))
    _sent(session)
    assert _sent(session, until=clock.now + 30) == []
    assert session.pace.take()[0] == MINUTE
    assert _sent(session, until=clock.now + 300) == [2 * MINUTE]


def test_a_start_that_would_be_too_late_is_not_sent_and_says_so():
    clock = Clock()
    session = _session(Pace(1, clock=clock))
    _sent(session)
    clock.now += 10
    start = Call("start a run", "POST", "/runs", lambda response: None, idempotent=False, deadline=clock.now + 30)
    with pytest.raises(RateLimitedError, match="max_requests_per_minute") as caught:
        _sent(session, call=start)
    assert (caught.value.not_executed, caught.value.retry_after, clock.past) == (True, 50.0, 10)
    # Without such a time it waits, and has its full time all the same.
    wire = Script([response({})])
    steps = _steps(Call("revoke run", "POST", "/runs", lambda response: None, idempotent=False))
    flow(session, session.execute(steps), wire)
    assert (wire.sleeps, wire.requests[0].timeout) == ([50], 30.0)


def test_waiting_for_others_costs_a_step_nothing_of_its_allowance():
    session = _session(Pace(1, clock=Clock()))

    def many():
        for _ in range(5):
            yield _get()

    allowance = Allowance(10_000, 10_000, 10_000, seconds=5.0)
    wire = Script([response({})] * 5)
    flow(session, session.execute(many(), None, None, allowance), wire)
    assert wire.sleeps == [MINUTE] * 4


# 429


def test_a_429_holds_up_everybody_until_it_may_be_asked_again():
    pace = Pace(clock=Clock())
    with pytest.raises(RateLimitedError):
        _sent(_session(pace), response(status=429, **_SLOW))
    pace.clock.now += 2  # type: ignore[attr-defined]
    assert _sent(_session(pace)) == [5]


def test_then_one_request_follows_another_and_faster_and_faster():
    pace = Pace(clock=Clock())
    _, turn = pace.take()
    pace.refused(turn, 7.0)
    at = [pace.take()[0] for _ in range(30)]
    assert at[:3] == pytest.approx([7, 7 + FIRST_GAP * 0.8, 7 + FIRST_GAP * (0.8 + 0.64)])
    assert at == sorted(at)
    assert at[-1] == at[-10] < 7.5


def test_without_retry_after_and_once_more_it_is_twice_as_long():
    clock = Clock()
    pace = Pace(clock=clock)
    held = []
    for _ in range(9):
        seconds, turn = pace.take()
        clock.now += seconds
        held.append(pace.refused(turn, None))
    assert held == [1, 2, 4, 8, 16, MAX_HOLD, MAX_HOLD, MAX_HOLD, MAX_HOLD]
    assert pace._gap == MAX_GAP
    clock.now += MAX_HOLD + MINUTE + 1
    assert pace.refused(pace.take()[1], None) == 1


def test_requests_that_were_under_way_together_are_refused_once():
    pace = Pace(clock=Clock())
    turns = [pace.take()[1] for _ in range(200)]
    pace.clock.now += 0.02  # type: ignore[attr-defined]
    assert [pace.refused(turn, None) for turn in turns] == [1.0, *[None] * 199]
    assert pace.take()[0] == 1.0


def test_whoever_waits_already_waits_for_the_end_of_it_too():
    clock = Clock()
    pace = Pace(1, clock=clock)
    session = _session(pace)
    _sent(session)
    waiting = session.execute(_steps(_get()))
    assert waiting.send(None) == Sleep(MINUTE)
    clock.now += 59
    pace.refused(pace.take_now(), 100.0)
    clock.now += 1
    assert waiting.send(None) == Sleep(99)
    clock.now += 99
    assert waiting.send(None).url.endswith("/runs/4711")
    waiting.close()


# Starts


def test_so_many_start_at_once_and_the_first_to_come_is_the_next():
    pace = Pace(max_starts_at_once=2, clock=Clock())
    one, two, three, four = (object() for _ in range(4))
    assert [pace.may_start(each) for each in (one, two, three, four)] == [True, True, False, False]
    pace.end_start(two)
    pace.end_start(two)
    assert [pace.may_start(each) for each in (four, three, one)] == [False, True, True]
    pace.limit(None, None)
    assert pace.may_start(four)


def test_a_hook_s_start_waits_for_its_turn_and_leaves_it_however_it_ends():
    pace = Pace(max_starts_at_once=1, clock=Clock())
    other = object()
    assert pace.may_start(other)
    steps = in_turn(pace, _steps(_get()))
    assert isinstance(steps.send(None), Sleep)
    pace.end_start(other)
    assert isinstance(steps.send(None), Call)
    assert not pace.may_start(other)
    steps.close()
    assert pace.may_start(other)


def test_a_task_announces_no_start_before_its_turn():
    world = World()
    pace = Pace(max_starts_at_once=1, clock=world.clock)
    other = object()
    assert pace.may_start(other)

    def others_end(number: int) -> bool:
        if number == 50:
            assert (world.platform.actions, world.kept.record) == (["prepare"], None)
            pace.end_start(other)
        return False

    assert drive(world.platform, world.new_try(pace=pace).obtain({"group": "g"}), dies=others_end).how == "started"
    assert [line for line in world.lines.of("info") if "max_starts_at_once" in line] == [
        "Waiting to start a fake run: max_starts_at_once of the connection is 1, and others start runs."
    ]
    assert pace.may_start(other)


# The one of a connection


def test_all_clients_of_a_connection_share_one(monkeypatch):
    monkeypatch.setattr(paces, "_KEPT", 2)
    first = shared_pace("c", "https://a", None, 5)
    assert shared_pace("c", "https://a", 60, None) is first
    assert (first.max_requests_per_minute, first.max_starts_at_once) == (60, None)
    assert shared_pace("c", "https://b", None, None) is not first
    assert shared_pace("d", "https://a", None, None) is not first
    assert shared_pace("c", "https://a", None, None) is not first
