"""Which finished runs are news, and what of that outlives a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_testruns.exceptions import InvalidReplyError, RateLimitedError, ServerError
from airflow_provider_testruns.lifecycle import finished
from airflow_provider_testruns.lifecycle.finished import CursorError, FinishedRuns, Listing
from airflow_provider_testruns.model import Run, RunState, Verdict
from airflow_provider_testruns.platforms.platform import PollCache
from airflow_provider_testruns.timing import FINISHED_OVERLAP as OVERLAP
from airflow_provider_testruns.timing import LONGEST_WATCHED_RUN as LONGEST_RUN

pytestmark = pytest.mark.unit

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


class Clock:
    """Ours, which the platform's need not agree with."""

    def __init__(self) -> None:
        self.now = NOON.timestamp()

    def __call__(self) -> float:
        return self.now


def done(run_id: str, ended: float | None, began: float | None = None) -> Run:
    """A final run; its times in seconds from noon."""
    began = ended if began is None else began
    return Run(
        "omilia",
        run_id,
        RunState.FINISHED,
        "SUCCESS",
        platform_verdict=Verdict.PASSED,
        started_at=None if began is None else NOON + timedelta(seconds=began),
        finished_at=None if ended is None else NOON + timedelta(seconds=ended),
    )


def going(run_id: str, began: float | None) -> Run:
    started = None if began is None else NOON + timedelta(seconds=began)
    return Run("omilia", run_id, RunState.RUNNING, "STARTED", started_at=started)


def ids(runs: Iterable[Run]) -> list[str]:
    return [run.run_id for run in runs]


def restarted(runs: FinishedRuns, clock: Clock) -> FinishedRuns:
    """As after a kill: only the cursor is left."""
    again = FinishedRuns(clock=clock)
    again.restore(json.loads(json.dumps(runs.to_json())))
    return again


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begun(clock: Clock) -> FinishedRuns:
    """What has seen one finished run and one that is not final."""
    runs = FinishedRuns(clock=clock)
    assert runs.look([done("old", -60), going("long", -3600)]) == []
    return runs


def test_what_has_finished_at_the_first_look_is_noted_and_what_finishes_later_is_due_once(begun, clock):
    listed = [done("old", -60), done("b", 20), done("a", 10), going("long", -3600)]
    assert ids(begun.look(listed)) == ["a", "b"]
    assert begun.look(listed) == []
    begun.told("a")
    again = restarted(begun, clock)
    # What was on its way comes again, and nothing else.
    assert ids(again.look(listed)) == ["b"]
    again.told("b")
    assert restarted(again, clock).look(listed) == []


def test_an_event_that_got_lost_is_due_again(begun):
    listed = [done("a", 10)]
    begun.look(listed)
    begun.undelivered("a")
    assert ids(begun.look(listed)) == ["a"]


def test_ends_that_are_equal_or_shown_late_are_within_the_overlap(begun, clock):
    clock.now += 3600
    begun.look([done("newest", 3600)])
    begun.told("newest")
    runs = restarted(begun, clock)
    equal, late, later = done("equal", 3600), done("late", 3600 - OVERLAP), done("later", 3600 - OVERLAP - 1)
    assert ids(runs.look([equal, late, later, done("newest", 3600)])) == ["late", "equal"]


def test_a_run_that_was_seen_before_its_end_is_due_whatever_times_it_shows(begun, clock):
    clock.now += 3600
    begun.look([going("long", -3600), done("newest", 3600)])
    begun.told("newest")
    for runs in (begun, restarted(begun, clock)):
        # Future AGI's list has no ends, and its end may be set before an evaluation begins.
        assert ids(runs.look([done("long", None, began=-3600), done("newest", 3600)])) == ["long"]


def test_the_list_is_read_from_the_earliest_run_that_is_not_final(begun, clock):
    assert begun.since == NOON - timedelta(hours=1)
    assert restarted(begun, clock).since == NOON - timedelta(hours=1)
    clock.now += 60
    begun.look([done("long", 5, began=-3600)])
    begun.told("long")
    begun.look([])
    assert begun.since == NOON + timedelta(seconds=5 - OVERLAP)


def test_nothing_that_is_older_than_the_first_look_becomes_news(clock):
    runs = FinishedRuns(clock=clock)
    assert runs.since == NOON - timedelta(seconds=LONGEST_RUN)
    assert runs.look([]) == []
    assert runs.since is not None
    assert ids(runs.look([done("ancient", -LONGEST_RUN - 1), done("first", 1)])) == ["first"]


def test_backfill_tells_of_what_ended_since_then(clock):
    runs = FinishedRuns(NOON - timedelta(days=7), clock)
    assert runs.since == NOON - timedelta(days=7, seconds=LONGEST_RUN)
    week = 7 * 86_400
    assert ids(runs.look([done("c", -1), done("b", -week), done("a", -week - 1)])) == ["b", "c"]
    # A restart in the middle of it goes on.
    runs.told("b")
    assert ids(restarted(runs, clock).look([done("c", -1), done("b", -week), done("a", -week - 1)])) == ["c"]


def test_an_end_in_the_future_makes_no_other_run_look_old(begun, clock):
    assert ids(begun.look([done("odd", 10 * 365 * 86_400)])) == ["odd"]
    begun.told("odd")
    clock.now += 30
    runs = restarted(begun, clock)
    assert ids(runs.look([done("odd", 10 * 365 * 86_400), done("a", 20)])) == ["a"]


def test_runs_without_any_time_are_told_of_once_as_long_as_they_are_listed(begun, clock):
    listed = [done("timeless", None)]
    assert ids(begun.look(listed)) == ["timeless"]
    begun.told("timeless")
    for _ in range(5):
        clock.now += OVERLAP
        assert begun.look([*listed, done("more", clock.now - NOON.timestamp())]) != listed
        begun.told("more")
        assert begun.look(listed) == []


def test_a_rerun_under_the_same_id_is_news_and_a_copy_that_lags_behind_is_not(begun):
    def told() -> None:
        begun.look([done("a", 10)])
        begun.told("a")

    told()
    begun.look([going("a", 0)])
    assert begun.look([done("a", 10)]) == []
    begun.look([going("a", 0)])
    begun.look([going("a", 0)])
    assert ids(begun.look([done("a", 50)])) == ["a"]


def test_a_run_that_never_ends_is_given_up(begun, clock):
    clock.now += LONGEST_RUN
    begun.look([going("long", -3600), done("newest", LONGEST_RUN)])
    begun.told("newest")
    begun.look([going("long", -3600)])
    begun.look([])
    assert begun.since == NOON + timedelta(seconds=LONGEST_RUN - OVERLAP)


def test_the_cursor_is_bounded_and_what_it_leaves_out_comes_twice_at_worst(clock):
    runs = FinishedRuns(clock=clock)
    runs.look([])
    clock.now += 3600
    listed = [done(f"r-{number}", number / 100) for number in range(9_000)]
    unfinished = [going(f"g-{number}", number / 100) for number in range(1_100)]
    due = runs.look([*listed, *unfinished])
    assert len(due) == 9_000
    for run in due[:8_000]:
        runs.told(run.run_id)
    cursor = runs.to_json()
    # Airflow warns above 64 kB.
    assert len(json.dumps(cursor)) < 65_535
    again = restarted(runs, clock).look(listed)
    assert ids(again) == ids(due[8_000:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "NoneType"),
        (["told"], "list"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"until": "yesterday"}, "'until' is no time"),
        ({"from": 7}, "'from' is no time"),
        ({"told": "abc"}, "'told'"),
        ({"told": "abcdefg!"}, "'told'"),
        ({"told": ["abcdefgh"]}, "'told'"),
        ({"open": "abcdefgh" * (finished.MOST_OPEN + 1)}, "'open'"),
    ],
)
def test_what_is_no_cursor_is_refused_and_changes_nothing(begun, clock, changes: Any, said: str):
    stored = {**begun.to_json(), **changes} if isinstance(changes, dict) else changes
    runs = FinishedRuns(clock=clock)
    with pytest.raises(CursorError, match=said):
        runs.restore(stored)
    assert not runs.begun


def test_a_cursor_of_the_future_is_one_of_now(begun, clock):
    stored = {**begun.to_json(), "from": "2999-01-01T00:00:00+00:00", "until": "2999-01-01T00:00:00"}
    runs = FinishedRuns(clock=clock)
    runs.restore(stored)
    clock.now += 60
    assert ids(runs.look([done("a", 30)])) == ["a"]


def test_an_outage_of_a_list_backs_off_as_a_wait_does_and_is_warned_of_once(mocker, clock):
    log = mocker.Mock()
    listing = Listing({"project_id": "p-1"}, 30.0, lambda: None, log, "Runs of p-1", clock)
    for _ in range(5):
        listing.failed(ServerError("The platform is away."))
        assert 26.9 < listing.pause() < 33.1
    listing.failed(RateLimitedError("Slow down.", retry_after=120.0))
    assert listing.pause() == 120.0
    assert log.warning.call_count == 2
    listing.observed()
    assert log.info.call_count == 1
    assert listing.pause() < 33.1


def test_a_row_that_cannot_be_read_hides_no_other_and_old_ones_are_read_once():
    cache, read = PollCache(), []

    def row(run_id: str, began: float) -> tuple[str, Any, Any]:
        def reader() -> Run:
            read.append(run_id)
            if run_id == "bad":
                raise InvalidReplyError("no run")
            return going(run_id, began)

        return run_id, {"id": run_id}, reader

    rows = [row("old", -100), row("bad", 0), row("new", 0)]
    for _ in range(3):
        assert ids(cache.recent(rows, NOON)) == ["new"]
    assert read == ["old", "bad", "new", "bad", "bad"]
    # Whoever looks further back sees it again.
    assert ids(cache.recent(rows, NOON - timedelta(seconds=100))) == ["old", "new"]
