"""Starting exactly once: every row of the table, the mark, the window, the lookup, and writes that fail."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RunTimeoutError,
    ServerError,
    StartAbandonedError,
    StartOutcomeUnknownError,
    StartSupersededError,
    TransportError,
)
from airflow_provider_testruns.lifecycle.starting import (
    Epoch,
    Phase,
    Record,
    Starter,
    StartResult,
    Watermark,
)
from airflow_provider_testruns.model import Run, RunState, Verdict
from airflow_provider_testruns.platforms.platform import Start
from airflow_provider_testruns.steps import Call, ask
from airflow_provider_testruns.timing import CLOCK_ALLOWANCE, GRACE, LISTING_LAG, MAX_UNKNOWN_STARTS, START_PATIENCE
from tests.unit.steps import BEGIN, Clock, Died, FakePlatform, Fault, Lines, drive, lost
from tests.unit.strategies import runs

pytestmark = pytest.mark.unit

#: S: seconds within which a start is sent and answered.
WINDOW = 30.0
EPOCH = Epoch(max_tries=2, retries=2, clear_number=0)
CLEARED = Epoch(max_tries=5, retries=2, clear_number=0)
ARGUMENTS = {"group": "g"}


class MemoryStore:
    """A store that keeps what it is given as JSON, and fails when it is told to."""

    def __init__(self) -> None:
        self.text: str | None = None
        #: What each write in turn raises; ``None`` keeps it.
        self.faults: list[Exception | None] = []
        self.phases: list[str] = []
        self.refuses_to_clear: Exception | None = None
        self.reads: Exception | None = None
        #: Called after each write.
        self.when_written = lambda: None

    def read(self) -> Any:
        if self.reads is not None:
            raise self.reads
        return None if self.text is None else json.loads(self.text)

    def write(self, data: dict[str, Any]) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.text = json.dumps(data, allow_nan=False)
        self.phases.append(data["phase"])
        self.when_written()

    def clear(self) -> None:
        if self.refuses_to_clear is not None:
            raise self.refuses_to_clear
        self.text = None

    @property
    def record(self) -> Record | None:
        return None if self.text is None else Record.from_json(json.loads(self.text))


class World:
    """A task with its tries, its store and its platform."""

    def __init__(self, *, offset: float = 0.0, store: bool = True, **starter: Any) -> None:
        self.clock = Clock()
        self.platform = FakePlatform(self.clock, offset)
        self.kept = MemoryStore()
        self.has_store = store
        self.lines = Lines()
        self._starter = starter
        self.starter: Starter

    def new_try(self, *, epoch: Epoch = EPOCH, **more: Any) -> Starter:
        self.starter = Starter(
            self.platform,
            store=self.kept if self.has_store else None,
            epoch=epoch,
            window=WINDOW,
            log=self.lines,
            clock_offset=lambda: self.platform.clock_offset,
            clock=self.clock,
            **{**self._starter, **more},
        )
        return self.starter

    def obtain(self, arguments: dict[str, Any] = ARGUMENTS, *, dies=lambda number: False, **more: Any) -> StartResult:
        """One try of the task."""
        return drive(self.platform, self.new_try(**more).obtain(arguments), dies=dies)

    def intent(self) -> None:
        """A try that died just before its start was sent."""

        def die():
            raise Died

        self.platform.at_start, before = die, self.platform.at_start
        with pytest.raises(Died):
            self.obtain()
        self.platform.at_start = before
        self.platform.actions.clear()
        assert self.kept.record.phase is Phase.INTENT

    @property
    def ids(self) -> list[str]:
        return [run.run_id for run in self.platform.runs]

    @property
    def warnings(self) -> str:
        return "\n".join(self.lines.of("warning"))


# The table


def test_nothing_recorded_reads_the_mark_writes_the_intent_starts_and_writes_started():
    world = World()
    world.platform.add("older", age=500)
    at_start = []
    world.platform.at_start = lambda: at_start.append(world.kept.record)
    obtained = world.obtain()
    assert world.platform.actions == ["prepare", "newest", "start"]
    assert (obtained.run.run_id, obtained.how, obtained.seen) == ("run-2", "started", False)
    intent = at_start[0]
    assert intent.phase is Phase.INTENT
    assert intent.run is None
    assert intent.mark == Watermark("older", BEGIN - 500, pytest.approx(0.0, abs=1))
    assert intent.window == WINDOW
    assert intent.epoch == EPOCH
    assert intent.ids == {"project_id": "p"}
    assert intent.started_with == ARGUMENTS
    started = world.kept.record
    assert (started.phase, started.run, started.seen) == (Phase.STARTED, obtained.run, False)
    assert replace(started, phase=Phase.INTENT, run=None) == intent
    assert world.starter.record == started


def test_the_record_holds_ids_and_times_only():
    world = World()
    world.obtain({"group": "g", "script": "canary-script " * 100})
    stored = json.loads(world.kept.text)
    assert set(stored) == {
        "version", "epoch", "phase", "intent_at", "window", "mark", "fingerprint", "context", "started_with",
        "cannot_list", "run", "seen", "verdict",
    }  # fmt: skip
    assert len(stored["fingerprint"]) == 16


def test_intent_and_one_candidate_is_adopted():
    world = World()
    world.intent()
    world.platform.add("ours")
    world.clock.now += 600
    obtained = world.obtain()
    assert (obtained.run.run_id, obtained.how, obtained.seen) == ("ours", "adopted", True)
    assert world.platform.count("start") == 0
    assert (world.kept.record.phase, world.kept.record.run.run_id) == (Phase.STARTED, "ours")
    assert world.kept.record.seen


def test_intent_and_no_candidate_is_looked_for_until_the_window_is_over_then_started():
    world = World()
    world.intent()
    intent_at = world.kept.record.intent_at
    started_at = []
    world.platform.at_start = lambda: started_at.append(world.clock())
    obtained = world.obtain()
    assert obtained.how == "started"
    assert world.ids == [obtained.run.run_id]
    assert intent_at + WINDOW + LISTING_LAG <= started_at[0] <= intent_at + WINDOW + LISTING_LAG + 5
    assert max(world.platform.sleeps) <= 5.0
    assert world.platform.count("list") > 10


def test_an_old_intent_is_looked_up_once_and_started():
    world = World()
    world.intent()
    world.clock.now += 3600
    assert world.obtain().how == "started"
    assert world.platform.actions == ["list", "prepare", "newest", "start"]


def test_a_run_that_is_listed_late_is_found():
    world = World()
    world.intent()
    world.platform.add("ours")
    world.platform.listing_lag = 40.0
    assert world.obtain().run.run_id == "ours"
    assert world.platform.count("start") == 0


def test_intent_and_several_candidates_is_an_error():
    world = World()
    world.intent()
    for name in ("one", "two", "three", "four", "five", "six"):
        world.platform.add(name)
    with pytest.raises(StartOutcomeUnknownError) as caught:
        world.obtain()
    assert "6 runs could be it" in str(caught.value)
    assert str(caught.value).count(", ") >= 4
    assert "clear the task" in str(caught.value)
    assert "pool" in str(caught.value)
    assert world.platform.count("start") == 0
    assert world.kept.record.phase is Phase.INTENT


def test_intent_on_a_platform_that_cannot_list_is_an_error():
    world = World()
    world.platform.cannot_list = "script runs are not listed."
    world.intent()
    world.clock.now += 3600
    for _ in range(2):
        with pytest.raises(StartOutcomeUnknownError, match=r"can't be looked up: script runs are not listed\."):
            world.obtain()
    assert world.platform.actions == []


def test_without_adoption_the_candidate_is_named_and_not_taken():
    world = World(adopt=False)
    world.intent()
    world.platform.add("ours")
    with pytest.raises(StartOutcomeUnknownError, match=r"run ours is most likely it.*adopt_lost_start=False"):
        world.obtain()
    assert world.platform.count("start") == 0
    assert world.kept.record.phase is Phase.INTENT


def test_without_adoption_a_start_that_did_nothing_is_repeated_all_the_same():
    world = World(adopt=False)
    world.intent()
    assert world.obtain().how == "started"


def test_started_and_not_final_is_attached_to_again():
    world = World()
    first = world.obtain()
    world.platform.actions.clear()
    again = world.obtain()
    assert (again.run.run_id, again.how, again.seen) == (first.run.run_id, "reattached", True)
    assert again.run.state is RunState.RUNNING
    assert again.run.ids == {"project_id": "p"}
    assert world.platform.actions == ["get"]
    assert world.kept.record.seen


def test_started_and_final_is_judged_without_a_new_start():
    world = World()
    first = world.obtain()
    world.platform.end(first.run.run_id, Verdict.FAILED)
    world.platform.actions.clear()
    again = world.obtain()
    assert again.run.final
    assert again.run.platform_verdict is Verdict.FAILED
    assert again.run.run_id == first.run.run_id
    assert world.platform.actions == ["get"]


def test_attaching_again_outlasts_trouble_in_passing():
    world = World()
    first = world.obtain()
    world.platform.faults["get"] = [Fault(ServerError("busy.")), Fault(RateLimitedError("slow.", retry_after=9.0))]
    assert world.obtain().run.run_id == first.run.run_id
    world.platform.faults["get"] = [Fault(AuthenticationError("who?")), Fault(InvalidReplyError("what?"))]
    assert world.obtain().run.run_id == first.run.run_id
    assert world.platform.count("start") == 1


def test_when_the_run_cannot_be_looked_at_nothing_is_started():
    world = World()
    world.obtain()
    for error in (PermissionDeniedError("no."), AuthenticationError("no."), *[ServerError("busy.")] * 20):
        world.platform.faults["get"] = [Fault(error)] * 20
        with pytest.raises(type(error)):
            world.obtain()
    assert world.platform.count("start") == 1
    assert world.kept.record.phase is Phase.STARTED


def _judge(world: World, verdict: Verdict) -> Run:
    run = world.platform.end(world.obtain().run.run_id, verdict)
    world.starter.judged(run, verdict)
    world.platform.actions.clear()
    return run


def test_judged_and_passing_is_the_report_again():
    world = World()
    run = _judge(world, Verdict.PASSED)
    assert world.kept.record.phase is Phase.JUDGED
    again = world.obtain()
    assert (again.run, again.how, again.seen) == (run, "judged", True)
    # The record is believed only after the platform has shown the run.
    assert world.platform.actions == ["get"]


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.ERRORED, Verdict.CANCELLED])
def test_judged_and_not_passing_starts_anew(verdict):
    world = World()
    run = _judge(world, verdict)
    again = world.obtain()
    assert again.how == "started"
    assert again.run.run_id != run.run_id
    assert world.platform.actions == ["get", "prepare", "newest", "start"]
    assert world.kept.record.phase is Phase.STARTED
    assert world.kept.record.verdict is None
    assert world.kept.record.mark.run_id == run.run_id


def test_a_run_that_was_seen_and_is_gone_is_started_anew():
    world = World()
    run = world.obtain().run
    world.starter.mark_seen(run)
    world.platform.lose(run.run_id)
    assert world.obtain().how == "started"
    assert f"Run {run.run_id} no longer exists" in world.warnings


def test_a_run_that_was_never_seen_is_an_error_after_it_had_time_to_appear():
    world = World()
    run = world.obtain().run
    world.platform.lose(run.run_id)
    with pytest.raises(StartOutcomeUnknownError, match=f"Run {run.run_id} was started by an earlier try"):
        world.obtain()
    assert world.clock() >= world.kept.record.intent_at + WINDOW + GRACE
    assert world.platform.count("start") == 1
    # Not given up on while the task is not cleared.
    with pytest.raises(StartOutcomeUnknownError):
        world.obtain()
    assert world.platform.count("start") == 1


def test_a_run_that_appears_late_is_attached_to():
    world = World()
    run = world.obtain().run
    shown = world.platform.runs.pop()
    world.platform.faults["get"] = [Fault(NotFoundError("not yet.", status=404))] * 3
    world.platform.runs.append(shown)
    assert world.obtain().run.run_id == run.run_id
    assert world.platform.count("start") == 1


# What follows on a run that failed, where that is not a new start


def _rerun(world: World, **start: Any):
    """Starting the same run again, as Future AGI's rerun of single calls does."""

    def send(run: Run, response: Any) -> Run:
        world.platform.at_start()
        at = world.ids.index(run.run_id)
        world.platform.runs[at] = replace(run, state=RunState.RUNNING, raw_state="running", platform_verdict=None)
        return Run("fake", run.run_id, RunState.QUEUED, "pending")

    def after_failed_run(run: Run):
        yield from ask(Call("prepare", "GET", "/prepare", lambda response: None))
        call = Call("rerun", "POST", "/rerun", lambda response: send(run, response), idempotent=False)
        return Start("the failed calls", call, {"project_id": "p"}, cannot_list="a rerun has no listing.", **start)

    return after_failed_run


def test_a_failed_run_is_followed_by_what_the_task_asks_for():
    world = World()
    run = _judge(world, Verdict.FAILED)
    seen = []
    world.platform.at_start = lambda: seen.append(world.kept.record.phase)
    again = world.obtain(after_failed_run=_rerun(world))
    assert (again.run.run_id, again.how) == (run.run_id, "started")
    assert world.platform.actions == ["get", "prepare", "rerun"]
    assert seen == [Phase.INTENT]
    assert (world.kept.record.phase, world.kept.record.verdict) == (Phase.STARTED, None)
    assert len(world.ids) == 1


@pytest.mark.parametrize("verdict", [Verdict.ERRORED, Verdict.CANCELLED])
def test_only_a_failed_run_is_followed_by_something_else(verdict):
    world = World()
    run = _judge(world, verdict)
    assert world.obtain(after_failed_run=_rerun(world)).run.run_id != run.run_id
    assert world.platform.count("rerun") == 0


@pytest.mark.parametrize("error", [InvalidRequestError("Text agents can't.", status=400), NotFoundError("Gone.")])
def test_where_that_cannot_be_a_new_run_is_started(error):
    world = World()
    run = _judge(world, Verdict.FAILED)
    world.platform.faults["rerun"] = [_nothing(error)]
    again = world.obtain(after_failed_run=_rerun(world))
    assert again.run.run_id != run.run_id
    assert f"{error} Starting a new run." in world.warnings


def test_a_sentence_says_why_there_is_a_new_run():
    world = World()
    run = _judge(world, Verdict.FAILED)

    def after_failed_run(run):
        yield from ask(Call("prepare", "GET", "/prepare", lambda response: None))
        return "No call of it failed."

    assert world.obtain(after_failed_run=after_failed_run).run.run_id != run.run_id
    assert "No call of it failed. Starting a new run." in world.warnings


def test_when_it_is_not_known_whether_it_was_done_it_is_not_done_again():
    world = World()
    _judge(world, Verdict.FAILED)
    world.platform.faults["rerun"] = [lost(done=True)]
    for _ in range(2):
        with pytest.raises(StartOutcomeUnknownError, match=r"a rerun has no listing\."):
            world.obtain(after_failed_run=_rerun(world))
    assert world.platform.count("rerun") == 1
    assert world.platform.count("start") == 0


def test_when_nothing_was_done_the_next_try_is_where_this_one_was():
    world = World()
    run = _judge(world, Verdict.FAILED)
    before = world.kept.record
    world.platform.faults["rerun"] = [_nothing(PermissionDeniedError("No credits."))]
    with pytest.raises(PermissionDeniedError):
        world.obtain(after_failed_run=_rerun(world))
    assert world.kept.record == before
    assert world.starter.record == before
    assert world.obtain(after_failed_run=_rerun(world)).run.run_id == run.run_id


def test_a_run_that_is_there_already_is_taken_as_it_is():
    world = World()
    world.platform.existing_run = world.platform.add("theirs")
    obtained = world.obtain()
    assert (obtained.run.run_id, obtained.how, obtained.seen) == ("theirs", "already", True)
    assert world.platform.actions == ["prepare"]
    assert (world.kept.record.phase, world.kept.record.run.run_id) == (Phase.STARTED, "theirs")
    world.platform.existing_run = None
    assert world.obtain().how == "reattached"


# Another epoch


def test_a_cleared_task_cancels_its_older_run_and_starts_anew():
    world = World()
    first = world.obtain().run
    world.platform.actions.clear()
    second = world.obtain(epoch=CLEARED)
    assert world.platform.actions == ["get", "cancel", "get", "prepare", "newest", "start"]
    assert second.run.run_id != first.run_id
    older = next(run for run in world.platform.runs if run.run_id == first.run_id)
    assert older.platform_verdict is Verdict.CANCELLED
    assert world.kept.record.epoch == CLEARED
    assert "the task was cleared and starts again" in "\n".join(world.lines.of("info"))


def test_arguments_in_another_order_are_the_same():
    world = World()
    world.obtain({"group": "g", "utterance": "u"})
    world.obtain({"utterance": "u", "group": "g"})
    assert "arguments of this task differ" not in world.warnings


def test_a_run_that_may_have_been_started_before_a_clear_is_looked_for_less_and_less_often():
    world = World()
    world.intent()
    world.platform.sleeps.clear()
    world.obtain(epoch=CLEARED)
    assert world.platform.sleeps[:5] == [1.0, 1.5, 2.25, 3.375, 5.0]
    assert set(world.platform.sleeps[5:-1]) == {5.0}
    told = [line for line in world.lines.of("info") if "looking for that run, to cancel it" in line]
    assert len(told) == 1


def test_without_cancel_on_kill_the_older_run_goes_on():
    world = World(cancel_older=False)
    world.obtain()
    world.platform.actions.clear()
    world.obtain(epoch=CLEARED)
    assert world.platform.actions == ["prepare", "newest", "start"]


def test_an_older_run_that_is_over_is_left_as_it_is():
    world = World()
    first = world.obtain().run
    world.platform.end(first.run_id, Verdict.PASSED)
    world.obtain(epoch=CLEARED)
    assert world.platform.count("cancel") == 0


def test_an_older_run_that_was_judged_is_not_asked_for():
    world = World()
    _judge(world, Verdict.PASSED)
    assert world.obtain(epoch=CLEARED).how == "started"
    assert world.platform.actions == ["prepare", "newest", "start"]


def test_an_older_run_that_is_gone_is_no_trouble():
    world = World()
    world.platform.lose(world.obtain().run.run_id)
    assert world.obtain(epoch=CLEARED).how == "started"
    assert world.platform.count("cancel") == 0


def test_an_older_run_that_cannot_be_looked_at_is_said():
    world = World()
    world.obtain()
    world.platform.faults["get"] = [Fault(PermissionDeniedError("Not for you."))]
    assert world.obtain(epoch=CLEARED).how == "started"
    assert "it may still be running. Not for you." in world.warnings


def test_an_older_intent_is_looked_for_and_its_run_cancelled():
    world = World()
    world.intent()
    world.platform.add("lost")
    world.obtain(epoch=CLEARED)
    assert world.platform.actions == ["list", "cancel", "get", "prepare", "newest", "start"]


@pytest.mark.parametrize("others", [2, 3])
def test_nothing_is_cancelled_where_it_is_not_sure_what(others):
    world = World()
    world.intent()
    for at in range(others):
        world.platform.add(f"other-{at}")
    world.obtain(epoch=CLEARED)
    assert world.platform.actions == ["list", "prepare", "newest", "start"]
    assert f"{others} runs could be it (other-0, other-1" in world.warnings
    assert "none is cancelled" in world.warnings


def test_an_older_start_without_a_run_is_looked_for_until_its_window_is_over():
    world = World()
    world.intent()
    world.obtain(epoch=CLEARED)
    assert world.platform.count("cancel") == 0
    assert world.platform.actions[-3:] == ["prepare", "newest", "start"]
    assert WINDOW + LISTING_LAG <= world.clock.past <= WINDOW + LISTING_LAG + 10


def test_an_older_run_that_is_listed_late_is_found_and_cancelled():
    world = World()
    world.intent()
    world.platform.listing_lag = 20.0
    world.platform.add("lost")
    second = world.obtain(epoch=CLEARED)
    assert second.run.run_id != "lost"
    assert world.platform.runs[0].platform_verdict is Verdict.CANCELLED
    assert world.clock.past < WINDOW + LISTING_LAG


def test_an_older_intent_is_looked_at_once_when_its_window_is_over():
    world = World()
    world.intent()
    world.clock.now += WINDOW + LISTING_LAG
    world.obtain(epoch=CLEARED)
    assert world.platform.actions == ["list", "prepare", "newest", "start"]


# Killed


@pytest.mark.parametrize("write", ["before the intent", "after the intent"])
def test_a_task_that_was_killed_sends_no_start(write):
    world = World()
    starter = world.new_try()

    def kill():
        starter.stopped = True

    if write == "before the intent":
        kill()
    else:
        world.kept.when_written = kill
    with pytest.raises(StartAbandonedError, match="killed before"):
        drive(world.platform, starter.obtain(ARGUMENTS))
    assert world.platform.runs == []
    # The next try has nothing to look for.
    assert world.kept.record is None


def test_a_task_that_was_killed_while_its_start_was_sent_cancels_the_run():
    world = World()
    starter = world.new_try()

    def kill():
        starter.stopped = True

    world.platform.at_start = kill
    obtained = drive(world.platform, starter.obtain(ARGUMENTS))
    assert obtained.run.final
    assert [run.platform_verdict for run in world.platform.runs] == [Verdict.CANCELLED]
    assert "the task was killed" in "\n".join(world.lines.of("info"))


def test_a_task_that_was_killed_while_it_looked_for_its_run_cancels_it():
    world = World()
    world.intent()
    world.platform.listing_lag = 10.0
    world.platform.add("lost")
    starter = world.new_try()
    starter.stopped = True
    assert drive(world.platform, starter.obtain(ARGUMENTS)).run.run_id == "lost"
    assert world.platform.runs[0].platform_verdict is Verdict.CANCELLED


def test_the_older_run_is_known_to_on_kill_while_it_is_cancelled():
    world = World()
    first = world.obtain().run
    starter = world.new_try(epoch=CLEARED)
    known = []
    cancel = world.platform.cancel_run

    def watched(run_id, **context):
        known.append(starter.older)
        return cancel(run_id, **context)

    world.platform.cancel_run = watched
    drive(world.platform, starter.obtain(ARGUMENTS))
    assert [run.run_id for run in known] == [first.run_id]
    assert starter.older is None


#: A task that was cleared while it ran, on an executor that does not tell of its end as Airflow expects.
CLEARED_WHILE_RUNNING = Epoch(EPOCH.max_tries, EPOCH.retries, EPOCH.clear_number + 1)


def test_a_run_that_was_cancelled_by_a_clear_is_followed_by_a_new_one():
    world = World()
    first = world.obtain().run
    world.platform.end(first.run_id, Verdict.CANCELLED)
    second = world.obtain(epoch=CLEARED_WHILE_RUNNING)
    assert second.how == "started"
    assert second.run.run_id != first.run_id


@pytest.mark.parametrize("verdict", [Verdict.PASSED, Verdict.FAILED, Verdict.ERRORED])
def test_a_run_that_ended_by_itself_is_judged_after_a_clear_too(verdict):
    world = World()
    first = world.obtain().run
    world.platform.end(first.run_id, verdict)
    again = world.obtain(epoch=CLEARED_WHILE_RUNNING)
    assert (again.how, again.run.run_id) == ("reattached", first.run_id)


def test_without_a_clear_a_cancelled_run_is_judged():
    world = World()
    first = world.obtain().run
    world.platform.end(first.run_id, Verdict.CANCELLED)
    assert world.obtain().how == "reattached"


def test_an_older_intent_that_cannot_be_looked_up_is_left():
    world = World()
    world.platform.cannot_list = "script runs are not listed."
    world.intent()
    world.obtain(epoch=CLEARED)
    assert world.platform.actions == ["prepare", "start"]
    assert "can't be looked up: script runs are not listed." in world.warnings


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (Epoch(2, 2, 0), True),
        # A retry changes none of them. A clear raises max_tries.
        (Epoch(5, 2, 0), False),
        (Epoch(5, 2, 1), False),
        # retries was edited in the DAG file between two tries.
        (Epoch(2, 5, 0), True),
        # Cleared after retries was lowered so that max_tries comes out the same.
        (Epoch(2, 1, 1), False),
        # The DAG run was cleared, this task was not.
        (Epoch(2, 2, 1), True),
    ],
)
def test_a_retry_keeps_the_epoch_and_a_clear_moves_it(later, same):
    assert EPOCH.same_as(later) is same
    assert later.same_as(EPOCH) is same
    world = World()
    world.obtain()
    world.obtain(epoch=later)
    assert world.platform.count("start") == (1 if same else 2)


# The mark


def test_the_mark_is_the_newest_run_by_the_platforms_clock():
    world = World(offset=-900.0)
    world.platform.add("older", age=50)
    world.platform.add("newest", age=10)
    world.obtain()
    assert world.kept.record.mark.run_id == "newest"
    assert world.kept.record.mark.at == BEGIN - 900 - 10
    assert world.kept.record.mark.offset == pytest.approx(-900, abs=1.0)


def test_without_any_run_yet_whatever_is_listed_later_is_new():
    world = World()
    world.intent()
    assert world.kept.record.mark.run_id is None
    assert world.kept.record.mark.at is None
    world.platform.add("ours")
    assert world.obtain().run.run_id == "ours"


@pytest.mark.parametrize("error", [ServerError("busy."), PermissionDeniedError("no."), InvalidReplyError("what?")])
def test_without_a_list_the_mark_is_the_date_of_a_response(error):
    world = World(offset=500.0)
    world.platform.faults["newest"] = [Fault(error)] * 20
    world.obtain()
    record = world.kept.record
    assert record.mark.run_id is None
    assert record.mark.at == pytest.approx(record.intent_at + 500 - 2, abs=1.0)
    assert "falling back to timestamps" in world.warnings


def test_without_a_date_the_mark_is_our_clock_with_an_allowance():
    world = World()
    world.platform.sends_date = False
    world.platform.cannot_list = "no"
    world.obtain()
    record = world.kept.record
    assert record.mark == Watermark(None, record.intent_at - CLOCK_ALLOWANCE, None)
    assert world.platform.count("newest") == 0


def test_a_newest_run_that_has_not_begun_is_known_by_its_id():
    world = World()
    world.platform.add("waiting", age=None)
    world.obtain()
    assert world.kept.record.mark.run_id == "waiting"
    assert world.kept.record.mark.at == pytest.approx(world.kept.record.intent_at - 2, abs=1.0)


def test_a_newest_run_from_the_future_is_no_line_to_go_by():
    """With it as the mark, the record was one that the resumed task did not believe."""
    world = World()
    world.platform.zone = 7 * 86_400.0
    world.platform.add("odd")
    run = world.obtain().run
    record = world.kept.record
    assert record.mark == Watermark("odd", pytest.approx(record.intent_at - 2, abs=1.0), record.mark.offset)
    assert world.new_try().restore(run)
    # What is lost can't be determined from others by such times: nothing is started again.
    lossy = World()
    lossy.platform.zone = 7 * 86_400.0
    lossy.platform.add("odd")
    lossy.platform.faults["start"] = [lost(done=True, takes=1.0)]
    for _ in range(2):
        with pytest.raises(StartOutcomeUnknownError, match="run odd began days in the future"):
            lossy.obtain()
    assert lossy.platform.count("start") == 1


def test_credentials_that_are_not_accepted_end_the_try_before_anything_is_written():
    world = World()
    world.platform.faults["newest"] = [Fault(AuthenticationError("no."))] * 100
    with pytest.raises(AuthenticationError):
        world.obtain()
    assert world.kept.text is None
    assert world.clock.past <= GRACE + 5


_MAY_PASS = [AuthenticationError("who?"), InvalidReplyError("what?")]


@pytest.mark.parametrize("action", ["prepare", "newest", "start"])
@pytest.mark.parametrize("error", _MAY_PASS, ids=lambda error: type(error).__name__)
def test_a_moment_of_refused_credentials_or_odd_responses_costs_no_try_where_nothing_was_started(action, error):
    world = World()
    world.platform.faults[action] = [_nothing(error)] * 4
    assert world.obtain().how == "started"
    assert world.ids == ["run-1"]
    assert world.platform.count("list") == 0
    assert world.clock.past < GRACE


@pytest.mark.parametrize("error", _MAY_PASS, ids=lambda error: type(error).__name__)
def test_a_start_that_goes_on_being_refused_fails_after_the_grace_and_leaves_no_record(error):
    world = World()
    world.platform.faults["start"] = [_nothing(error)] * 100
    with pytest.raises(type(error)):
        world.obtain()
    assert world.clock.past <= GRACE + 5
    assert world.platform.count("start") > 3
    assert world.kept.text is None
    assert world.ids == []


# A task whose time is over


def test_a_start_is_not_sent_again_after_the_end_of_the_tasks_time():
    world = World()
    world.platform.faults["start"] = [lost(done=False, takes=WINDOW)]
    deadline = world.clock() + WINDOW + LISTING_LAG - 10
    with pytest.raises(RunTimeoutError, match="sent and got no response, and the platform's list shows no run of it"):
        world.obtain(deadline=deadline)
    assert world.platform.count("start") == 1
    assert world.ids == []
    # What the lookup showed is certain, so the next try need not look again.
    assert world.kept.text is None


def test_a_lost_start_is_found_after_the_end_of_the_tasks_time_too():
    world = World()
    world.platform.listing_lag = WINDOW
    world.platform.faults["start"] = [lost(done=True, takes=1.0)]
    obtained = world.obtain(deadline=world.clock() + 5.0)
    assert (obtained.how, obtained.run.run_id) == ("adopted", "run-1")


@pytest.mark.parametrize("left", [-1.0, 0.0])
def test_a_task_whose_time_is_over_before_its_start_asks_for_nothing_more(left):
    world = World()
    with pytest.raises(RunTimeoutError, match="No start was sent"):
        world.obtain(deadline=world.clock() + left)
    assert world.platform.count("start") == world.platform.count("newest") == 0
    assert world.kept.text is None


def test_time_that_the_mark_has_taken_counts():
    world = World()
    world.platform.faults["newest"] = [Fault(ServerError("busy."), takes=20.0)]
    with pytest.raises(RunTimeoutError, match="No start was sent"):
        world.obtain(deadline=world.clock() + 10.0)
    assert world.platform.count("start") == 0


def test_a_start_that_did_nothing_is_not_tried_again_beyond_the_tasks_time():
    world = World()
    world.platform.faults["start"] = [Fault(RateLimitedError("slow.", retry_after=30.0))] * 5
    for fault in world.platform.faults["start"]:
        fault.error.not_executed = True
    with pytest.raises(RateLimitedError):
        world.obtain(deadline=world.clock() + 20.0)
    assert world.platform.count("start") == 1


# The wait that is handed to a trigger


def test_the_record_keeps_the_deadline_without_a_write_of_its_own():
    world = World()
    world.obtain(deadline=world.clock() + 900.0)
    writes = list(world.kept.phases)
    world.starter.keep_wait()
    assert world.kept.phases == writes
    assert world.new_try().stored_wait() == (world.starter.deadline or BEGIN + 900.0, 0)


def test_a_later_try_has_a_deadline_of_its_own_and_failures_are_counted():
    world = World()
    world.obtain(deadline=world.clock() + 900.0)
    world.obtain(deadline=world.clock() + 1800.0)
    world.starter.keep_wait()
    assert world.new_try().stored_wait()[0] == pytest.approx(BEGIN + 1800.0, abs=5)
    starter = world.new_try(deadline=BEGIN + 1800.0)
    starter.trigger_failures = 2
    drive(world.platform, starter.obtain(ARGUMENTS))
    starter.keep_wait()
    assert world.new_try().stored_wait() == (BEGIN + 1800.0, 2)
    assert world.new_try(epoch=replace(EPOCH, max_tries=9)).stored_wait() == (None, 0)


# What a lookup takes for ours


def _candidates(world: World) -> list[str]:
    return [run.run_id for run in drive(world.platform, world.new_try().candidates(world.kept.record))]


@pytest.mark.parametrize("lists_all", [False, True])
@pytest.mark.parametrize("offset", [0.0, 86_400.0, -86_400.0])
def test_candidates_are_newer_than_the_mark_by_the_platforms_clock(offset, lists_all):
    world = World(offset=offset)
    world.platform.lists_all = lists_all
    world.platform.add("old", age=3600)
    world.platform.add("mark", age=5)
    world.intent()
    world.platform.add("ours", age=0)
    world.platform.add("older than the mark", age=30)
    assert _candidates(world) == ["ours"]


def test_a_run_that_began_in_the_same_moment_as_the_mark_may_be_ours():
    world = World()
    mark = world.platform.add("mark", age=0)
    world.intent()
    world.platform.runs.append(replace(mark, run_id="same moment"))
    assert _candidates(world) == ["same moment"]


def test_candidates_began_inside_the_window():
    world = World()
    world.platform.add("mark", age=5)
    world.intent()
    intent_at = world.kept.record.intent_at
    world.clock.now = intent_at + 1000
    for after in (-1, 0, WINDOW, WINDOW + LISTING_LAG, WINDOW + LISTING_LAG + 4, 900):
        world.platform.add(f"{after:.0f}", age=1000 - after)
    assert sorted(_candidates(world), key=int) == ["-1", "0", "30", "90"]


@pytest.mark.parametrize("hours", [3, -5])
@pytest.mark.parametrize("dates", [True, False])
def test_a_platform_that_gives_local_times_for_utc_starts_nothing_twice(hours, dates):
    """Its runs begin in the future, or hours ago, whatever the Date of its responses says."""
    world = World()
    world.platform.sends_date = dates
    world.platform.zone = hours * 3600.0
    world.platform.add("mark", age=600)
    world.intent()
    world.clock.now += 300
    world.platform.add("ours", age=300)
    assert _candidates(world) == ["ours"]
    assert world.obtain().run.run_id == "ours"
    assert world.platform.count("start") == 0


def test_the_window_is_wider_where_the_clocks_cannot_be_compared():
    world = World()
    world.platform.sends_date = False
    world.platform.add("mark", age=5)
    world.intent()
    world.clock.now += 1000
    now = world.clock() - world.kept.record.intent_at
    for after in (WINDOW + LISTING_LAG + CLOCK_ALLOWANCE - 1, WINDOW + LISTING_LAG + CLOCK_ALLOWANCE + 1):
        world.platform.add(f"{after:.0f}", age=now - after)
    assert _candidates(world) == ["149"]


def test_candidates_are_equal_in_every_field_that_the_platform_shows():
    world = World()
    world.intent()
    for name, shown in {
        "equal": {"group": "g"},
        "other": {"group": "h"},
        "nothing shown": {},
        "empty": {"group": None},
        "more": {"group": "g", "type": "model"},
    }.items():
        world.platform.add(name, started_with=shown)
    assert sorted(_candidates(world)) == ["equal", "more", "nothing shown"]


@pytest.mark.parametrize(("ours", "theirs"), [(None, ""), ("", None), (None, None)])
def test_nothing_and_an_empty_text_are_the_same(ours, theirs):
    world = World()
    world.platform.at_start = lambda: (_ for _ in ()).throw(Died)
    with pytest.raises(Died):
        world.obtain({"filter": ours})
    world.platform.add("ours", started_with={"filter": theirs})
    assert _candidates(world) == ["ours"]


def test_a_run_that_has_not_begun_may_be_ours():
    world = World()
    world.platform.add("mark", age=5)
    world.intent()
    world.platform.add("waiting", age=None)
    assert _candidates(world) == ["waiting"]


def test_what_could_not_be_compared_is_logged():
    world = World()
    world.platform.not_compared = ("agent", "sut")
    world.platform.faults["start"] = [lost(done=True)]
    world.obtain()
    assert "The platform's list does not show, so not compared: agent, sut." in world.lines.of("info")


# A start whose response never came, within one try


_UNKNOWN = [
    TransportError("The connection was lost.", sent=True),
    ServerError("HTTP 502."),
    ServerError("HTTP 500."),
    InvalidReplyError("Not what the documents say."),
]


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("error", _UNKNOWN, ids=str)
def test_a_start_that_worked_unseen_is_adopted(error, store):
    world = World(store=store)
    world.platform.add("older", age=60)
    world.platform.faults["start"] = [Fault(error, done=True)]
    obtained = world.obtain()
    assert obtained.how == "adopted"
    assert world.ids == ["older", "run-2"]
    assert obtained.run.run_id == "run-2"
    assert str(error) in world.warnings
    assert world.starter.record.phase is Phase.STARTED


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("error", _UNKNOWN, ids=str)
def test_a_start_that_did_not_work_is_repeated_after_looking_long_enough(error, store):
    world = World(store=store)
    world.platform.faults["start"] = [Fault(error, done=False, takes=WINDOW)]
    obtained = world.obtain()
    assert obtained.how == "started"
    assert len(world.ids) == 1
    assert world.platform.count("start") == 2
    assert world.clock.past >= WINDOW + LISTING_LAG


def test_a_start_that_worked_and_is_listed_late_is_not_repeated():
    world = World()
    world.platform.listing_lag = LISTING_LAG
    world.platform.faults["start"] = [lost(done=True, takes=WINDOW)]
    assert world.obtain().how == "adopted"
    assert len(world.ids) == 1


def test_unknown_starts_have_an_end():
    world = World()
    world.platform.faults["start"] = [lost(done=False)] * 10
    with pytest.raises(TransportError):
        world.obtain()
    assert world.platform.count("start") == MAX_UNKNOWN_STARTS
    # Each was looked for and had done nothing: the next try need not look.
    assert world.kept.text is None
    assert world.starter.record is None


@pytest.mark.parametrize("done", [True, False])
def test_a_refusal_that_proves_nothing_is_looked_up_and_not_sent_again(done):
    # Future AGI answers 400 when a service behind it is down, and leaves the execution.
    world = World()
    world.platform.faults["start"] = [Fault(InvalidRequestError("HTTP 400.", status=400), done=done)]
    if done:
        assert world.obtain().how == "adopted"
    else:
        with pytest.raises(InvalidRequestError):
            world.obtain()
        assert world.kept.text is None
    assert world.platform.count("list") >= 1
    assert world.platform.count("start") == 1


def test_a_start_of_unknown_outcome_that_cannot_be_looked_up_is_an_error():
    world = World()
    world.platform.cannot_list = "script runs are not listed."
    world.platform.faults["start"] = [lost(done=True)]
    with pytest.raises(StartOutcomeUnknownError) as caught:
        world.obtain()
    assert "script runs are not listed." in str(caught.value)
    assert "the connection was lost" in str(caught.value)
    assert isinstance(caught.value.__cause__, TransportError)
    assert world.platform.count("start") == 1
    assert world.kept.record.phase is Phase.INTENT


@pytest.mark.parametrize("error", [AuthenticationError("who?"), InvalidReplyError("what?")])
def test_a_look_up_outlasts_what_a_wait_outlasts(error):
    world = World()
    world.platform.faults["start"] = [lost(done=True)]
    world.platform.faults["list"] = [Fault(error)] * 3
    assert world.obtain().how == "adopted"
    world = World()
    world.intent()
    world.platform.faults["list"] = [Fault(error)] * 100
    with pytest.raises(StartOutcomeUnknownError, match="the next try of the task checks again"):
        world.obtain()
    assert world.platform.count("start") == 0


def test_a_lost_start_beside_an_identical_one_is_an_error():
    world = World()
    world.platform.at_start = lambda: world.platform.add("somebody else's")
    world.platform.faults["start"] = [lost(done=True)]
    with pytest.raises(StartOutcomeUnknownError, match="2 runs could be it"):
        world.obtain()
    assert world.platform.count("start") == 1


def test_a_lost_start_is_not_adopted_where_that_is_not_wanted():
    world = World(adopt=False)
    world.platform.faults["start"] = [lost(done=True)]
    with pytest.raises(StartOutcomeUnknownError, match="adopt_lost_start=False"):
        world.obtain()
    assert world.platform.count("start") == 1


def test_a_list_that_fails_in_passing_is_asked_again():
    world = World()
    world.platform.faults["start"] = [lost(done=True)]
    world.platform.faults["list"] = [Fault(ServerError("busy."))] * 5
    assert world.obtain().how == "adopted"


@pytest.mark.parametrize("error", [ServerError("busy."), PermissionDeniedError("no."), NotFoundError("gone.")])
def test_a_list_that_cannot_be_had_is_an_error_and_the_next_try_looks_again(error):
    world = World()
    world.platform.faults["start"] = [lost(done=True)]
    world.platform.faults["list"] = [Fault(error)] * 200
    with pytest.raises(StartOutcomeUnknownError, match="the runs could not be listed"):
        world.obtain()
    assert world.platform.count("start") == 1
    world.platform.faults["list"] = []
    assert world.obtain().how == "adopted"
    assert world.platform.count("start") == 1


# Starts that provably did nothing


def _nothing(error: ApiError) -> Fault:
    error.not_executed = True
    return Fault(error)


def test_a_refused_connection_is_tried_again_without_looking():
    world = World()
    refused = Fault(TransportError("No connection.", sent=False))
    world.platform.faults["start"] = [refused] * 4
    assert world.obtain().how == "started"
    assert world.platform.count("list") == 0
    assert world.platform.count("start") == 5
    for sleep, base in zip(world.platform.sleeps, (1, 2, 4, 8), strict=True):
        assert base <= sleep <= base * 1.25
    assert "No connection. Nothing was started; trying again in" in world.warnings


def test_429_is_repeated_when_the_platform_says():
    world = World()
    world.platform.faults["start"] = [_nothing(RateLimitedError("Slow down.", retry_after=45.0))]
    assert world.obtain().how == "started"
    assert world.platform.sleeps == [45.0]


def test_each_sending_has_a_mark_and_an_intent_of_its_own():
    world = World()
    world.platform.faults["start"] = [_nothing(RateLimitedError("Slow down.", retry_after=45.0))]
    times = []
    world.platform.at_start = lambda: times.append(world.clock() - world.kept.record.intent_at)
    world.obtain()
    assert world.kept.phases == ["intent", "intent", "started"]
    assert world.platform.count("newest") == 2
    assert times[0] < 1


def test_a_503_that_proves_nothing_is_looked_up_and_one_that_proves_it_is_not():
    world = World()
    world.platform.faults["start"] = [_nothing(ServerError("RabbitMQ is down."))]
    world.obtain()
    assert world.platform.count("list") == 0
    world = World()
    world.platform.faults["start"] = [Fault(ServerError("Gateway."))]
    world.obtain()
    assert world.platform.count("list") > 1


def test_trying_again_has_an_end_and_leaves_no_record():
    world = World()
    world.platform.faults["start"] = [Fault(TransportError("No connection.", sent=False))] * 500
    with pytest.raises(TransportError):
        world.obtain()
    assert START_PATIENCE - 40 <= world.clock.past <= START_PATIENCE + 5
    assert world.kept.text is None


@pytest.mark.parametrize("kind", [InvalidRequestError, PermissionDeniedError, NotFoundError])
def test_a_refused_start_is_raised_at_once_and_leaves_no_record(kind):
    world = World()
    world.platform.faults["start"] = [_nothing(kind("No."))]
    with pytest.raises(kind):
        world.obtain()
    assert world.platform.actions == ["prepare", "newest", "start"]
    assert world.kept.text is None
    assert world.starter.record is None


def test_a_record_that_cannot_be_removed_only_costs_time():
    world = World()
    world.kept.refuses_to_clear = RuntimeError("store down")
    world.platform.faults["start"] = [_nothing(InvalidRequestError("No."))]
    with pytest.raises(InvalidRequestError):
        world.obtain()
    assert "store down" in world.warnings
    assert world.obtain().how == "started"
    assert len(world.ids) == 1


# Before the start


def test_arguments_that_cannot_be_right_send_nothing():
    world = World()
    with pytest.raises(ConfigurationError, match="group"):
        world.obtain({"group": ""})
    assert world.platform.actions == []
    assert world.kept.text is None


def test_preparing_outlasts_trouble_in_passing():
    world = World()
    world.platform.faults["prepare"] = [Fault(ServerError("busy."))] * 3
    world.platform.faults["newest"] = [Fault(ServerError("busy."))] * 3
    assert world.obtain().how == "started"
    assert world.kept.record.mark.at is None


def test_what_the_user_should_know_is_said_before_the_start():
    world = World()
    world.platform.warnings = ("Without an agent this only generates a path.",)
    world.obtain()
    assert world.platform.warnings[0] in world.lines.of("warning")


def test_other_arguments_than_those_of_the_run_are_said_and_the_run_stands():
    world = World()
    first = world.obtain()
    again = world.obtain({"group": "other"})
    assert again.run.run_id == first.run.run_id
    assert "arguments of this task differ" in world.warnings


# Writes


def test_an_intent_that_cannot_be_written_forbids_the_start():
    world = World()
    world.kept.faults = [RuntimeError("store down")]
    with pytest.raises(RuntimeError, match="store down"):
        world.obtain()
    assert world.platform.actions == ["prepare", "newest"]


def test_a_record_that_cannot_be_read_from_the_store_forbids_the_start():
    world = World()
    world.kept.reads = RuntimeError("store down")
    with pytest.raises(RuntimeError, match="store down"):
        world.obtain()
    assert world.platform.actions == []


def test_an_intent_that_was_written_too_slowly_is_not_sent():
    world = World()
    sent = []
    world.platform.at_start = lambda: sent.append(world.clock() - world.kept.record.intent_at)
    write, slept = world.kept.write, [WINDOW + 0.1, 400.0]

    def slow(data):
        world.clock.now += slept.pop(0) if slept else 0.0
        write(data)

    world.kept.write = slow
    assert world.obtain().how == "started"
    assert world.kept.phases == ["intent", "intent", "intent", "started"]
    assert world.platform.count("newest") == 3
    assert max(sent) < WINDOW


def test_a_started_that_cannot_be_written_does_not_stop_the_wait_and_is_retried():
    world = World()
    down = RuntimeError("store down")
    world.kept.faults = [None, down, down, down]
    obtained = world.obtain()
    assert obtained.how == "started"
    assert world.kept.record.phase is Phase.INTENT
    for _ in range(2):
        world.starter.flush_record()
        assert world.kept.record.phase is Phase.INTENT
    world.starter.flush_record()
    assert world.kept.record.phase is Phase.STARTED
    assert world.kept.record.run == obtained.run
    assert world.warnings.count("store down") == 1
    world.kept.faults = [AssertionError("written again")]
    world.starter.flush_record()


def test_a_verdict_that_cannot_be_written_is_retried():
    world = World()
    run = world.platform.end(world.obtain().run.run_id, Verdict.FAILED)
    world.kept.faults = [RuntimeError("store down")]
    world.starter.judged(run, Verdict.FAILED)
    assert world.kept.record.phase is Phase.STARTED
    world.starter.flush_record()
    assert (world.kept.record.phase, world.kept.record.verdict) == (Phase.JUDGED, Verdict.FAILED)


@pytest.mark.parametrize("adopted", [False, True])
def test_a_started_that_is_refused_stops_this_try_and_cancels_nothing(adopted):
    world = World()
    if adopted:
        world.platform.faults["start"] = [lost(done=True)]
    world.kept.faults = [None, StartSupersededError("A later try owns the task.")]
    with pytest.raises(StartSupersededError):
        world.obtain()
    assert world.platform.count("start") == 1
    assert world.platform.count("cancel") == 0


def test_an_intent_that_is_refused_forbids_the_start():
    world = World()
    world.kept.faults = [StartSupersededError("A later try owns the task.")]
    with pytest.raises(StartSupersededError):
        world.obtain()
    assert world.platform.count("start") == 0


@pytest.mark.parametrize("write", ["saw", "judged", "flush_record"])
def test_a_later_write_that_is_refused_stops_this_try(write):
    world = World()
    if write == "flush_record":
        world.kept.faults = [None, RuntimeError("store down")]
    run = world.obtain().run
    world.kept.faults = [StartSupersededError("A later try owns the task.")]
    with pytest.raises(StartSupersededError):
        {
            "saw": lambda: world.starter.mark_seen(run),
            "judged": lambda: world.starter.judged(run, Verdict.PASSED),
            "flush_record": world.starter.flush_record,
        }[write]()


def test_being_seen_is_written_once():
    world = World()
    run = world.obtain().run
    for _ in range(5):
        world.starter.mark_seen(run)
    assert world.kept.phases == ["intent", "started", "started"]
    assert world.kept.record.seen


def test_a_verdict_on_another_run_changes_nothing():
    world = World()
    run = world.obtain().run
    world.starter.judged(replace(run, run_id="other"), Verdict.FAILED)
    assert world.kept.record.phase is Phase.STARTED


def test_before_there_is_a_run_nothing_is_noted():
    world = World()
    starter = world.new_try()
    run = world.platform.add("other")
    starter.mark_seen(run)
    starter.judged(run, Verdict.PASSED)
    starter.flush_record()
    assert world.kept.text is None


# A wait elsewhere


def test_after_a_wait_elsewhere_the_verdict_is_written():
    world = World()
    run = world.platform.end(world.obtain().run.run_id, Verdict.FAILED)
    starter = world.new_try()
    starter.restore(run)
    starter.judged(run, Verdict.FAILED)
    assert (world.kept.record.phase, world.kept.record.verdict) == (Phase.JUDGED, Verdict.FAILED)
    assert world.obtain().how == "started"


def test_a_started_that_could_not_be_written_before_the_wait_is_made_up_for():
    world = World()
    world.kept.faults = [None, RuntimeError("store down")]
    run = world.platform.end(world.obtain().run.run_id, Verdict.FAILED)
    starter = world.new_try()
    starter.restore(run)
    starter.judged(run, Verdict.FAILED)
    assert world.kept.record.verdict is Verdict.FAILED
    # Otherwise every retry would find the failed run by looking, and judge it again.
    assert world.obtain().how == "started"


@pytest.mark.parametrize("what", ["nothing", "another epoch", "another run"])
def test_a_record_that_is_not_of_this_run_is_left_alone(what):
    world = World()
    run = world.obtain().run
    text = world.kept.text
    if what == "nothing":
        text = world.kept.text = None
    epoch = CLEARED if what == "another epoch" else EPOCH
    starter = world.new_try(epoch=epoch)
    starter.restore(replace(run, run_id="other") if what == "another run" else run)
    starter.judged(run, Verdict.FAILED)
    assert world.kept.text == text


# Airflow before 3.3


def test_without_a_store_every_try_starts_its_own_run():
    world = World(store=False)
    first = world.obtain()
    second = world.obtain()
    assert [first.how, second.how] == ["started", "started"]
    assert first.run.run_id != second.run.run_id
    world.starter.mark_seen(second.run)
    world.starter.judged(second.run, Verdict.FAILED)
    world.starter.flush_record()
    assert world.starter.record.verdict is Verdict.FAILED


def test_without_a_store_what_is_known_is_still_there_for_on_kill():
    world = World(store=False)
    seen = []
    world.platform.at_start = lambda: seen.append(world.starter.record)
    world.obtain()
    assert seen[0].phase is Phase.INTENT
    assert world.starter.record.phase is Phase.STARTED


# The record


_moments = st.floats(0, 4e9, allow_nan=False)
_records = st.builds(
    Record,
    epoch=st.builds(Epoch, *[st.integers(0, 100)] * 3),
    phase=st.sampled_from(Phase),
    intent_at=_moments,
    window=st.floats(1, 600),
    mark=st.builds(Watermark, st.none() | st.text(max_size=9), st.none() | _moments, st.none() | st.floats(-1e5, 1e5)),
    fingerprint=st.just("0123456789abcdef"),
    ids=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    started_with=st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5) | st.booleans(), max_size=2),
    cannot_list=st.none() | st.just("no"),
    run=st.none() | runs,
    seen=st.booleans(),
    verdict=st.none() | st.sampled_from(Verdict),
).map(lambda record: replace(record, run=None) if record.phase is Phase.INTENT else record)


@settings(max_examples=50)
@given(_records)
def test_a_record_survives_being_stored_as_json(record):
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


_GOOD = Record(EPOCH, Phase.INTENT, BEGIN, WINDOW, Watermark(), "f").to_json()


@pytest.mark.parametrize(
    "stored",
    [
        {},
        [],
        "intent",
        5,
        True,
        {**_GOOD, "epoch": [1, 2]},
        {**_GOOD, "epoch": ["a", "b", "c"]},
        {**_GOOD, "epoch": None},
        {**_GOOD, "phase": "dreaming"},
        {**_GOOD, "intent_at": "noon"},
        {**_GOOD, "window": None},
        {**_GOOD, "mark": None},
        {**_GOOD, "mark": {"run_id": 5}},
        {**_GOOD, "run": {"run_id": "r"}},
        {**_GOOD, "run": {"platform": "p", "run_id": "r", "state": "asleep", "raw_state": ""}},
        {**_GOOD, "verdict": "splendid"},
        {key: value for key, value in _GOOD.items() if key != "mark"},
        {key: value for key, value in _GOOD.items() if key != "fingerprint"},
    ],
    ids=lambda stored: json.dumps(stored)[:60],
)
def test_a_record_that_cannot_be_read_starts_nothing(stored):
    world = World()
    world.kept.text = json.dumps(stored)
    before = world.kept.text
    with pytest.raises(StartOutcomeUnknownError, match=r"can't be read .* Nothing is started"):
        world.obtain()
    assert world.platform.actions == []
    assert world.kept.text == before


# All of it together


_faults = st.sampled_from(
    [
        None,
        None,
        None,
        lost(done=True),
        lost(done=False),
        lost(done=True, takes=WINDOW),
        lost(done=False, takes=WINDOW),
        Fault(ServerError("HTTP 502."), done=True),
        Fault(ServerError("HTTP 500."), done=False),
        Fault(TransportError("No connection.", sent=False)),
        Fault(InvalidReplyError("What?"), done=True),
    ]
)
_for_reading = st.sampled_from([None, None, None, Fault(ServerError("HTTP 503.")), Fault(TransportError("Lost."))])
_try = st.fixed_dictionaries(
    {
        "dies": st.none() | st.integers(0, 12),
        "start": st.lists(_faults, max_size=3),
        "list": st.lists(_for_reading, max_size=4),
        "get": st.lists(_for_reading, max_size=2),
        "newest": st.lists(_for_reading, max_size=2),
        "writes": st.lists(st.sampled_from([None, None, RuntimeError("store down")]), max_size=3),
        "pause": st.sampled_from([0.0, 1.0, 20.0, 100.0, 4000.0]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_try, min_size=1, max_size=4),
    st.sampled_from([0.0, 3600.0, -3600.0]),
    st.sampled_from([0.0, 5.0, LISTING_LAG - 1]),
    st.booleans(),
    st.booleans(),
)
def test_however_tries_end_there_is_one_run(tries, offset, lag, older, dates):
    world = World(offset=offset)
    # Without dates the clocks can't be compared: 60 s are allowed for, and nothing is promised for an hour.
    world.platform.sends_date = dates or offset != 0
    world.platform.listing_lag = lag
    if older:
        world.platform.add("older", age=1000)
    before = len(world.ids)
    calm = {"dies": None, "start": [], "list": [], "get": [], "newest": [], "writes": [], "pause": 0.0}
    for plan in [*tries, calm]:
        for action in ("start", "list", "get", "newest"):
            world.platform.faults[action] = list(plan[action])
        world.kept.faults = list(plan["writes"])
        last = plan is calm
        try:
            obtained = world.obtain(dies=lambda number, at=plan["dies"]: number == at)
        except (ApiError, RuntimeError, Died):
            assert not last
        else:
            assert world.ids[before:] == [obtained.run.run_id]
        assert len(world.ids) - before <= 1
        world.clock.now += plan["pause"]
    assert len(world.ids) - before == 1
    assert world.kept.record.run.run_id == world.ids[-1]
