"""The books find what does not agree: each with a made-up account that has one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.books import Balance, _Account, _check_logs
from tests.chaos.ledger import RecordChange, StateChange
from tests.chaos.plan import Plan, PlannedTask
from tests.chaos.run import search
from tests.chaos.storm import Deed

pytestmark = pytest.mark.unit

TASK = PlannedTask("omilia_deferred", 0, "omilia", "project", {}, {}, "passed", "passed", 3.0)
EPOCH, CLEARED = [30, 30, 0], [31, 30, 1]


def run(run_id: str = "one", created: float = 100.0, **changes: Any) -> dict[str, Any]:
    """A run of the sandbox that has passed after 10 seconds."""
    return {
        "run_id": run_id,
        "platform": "omilia",
        "target_id": "project",
        "arguments": {},
        "created": created,
        "finished": created + 10.0,
        "phase": "finished",
        "ending": "passed",
        "cancelled_by": None,
        **changes,
    }


GOING = {"phase": "running", "finished": None}
CANCELLED = {"phase": "cancelled", "cancelled_by": "omilia.revoke_run"}


def record(at: float, phase: str, run_id: str | None = None, epoch: list[int] = EPOCH, verdict: Any = None) -> Any:
    data = {"epoch": epoch, "phase": phase, "run": run_id and {"run_id": run_id}, "verdict": verdict}
    return RecordChange(at, data)


def story(begin: float, run_id: str, verdict: str | None = "passed", epoch: list[int] = EPOCH) -> list[RecordChange]:
    """What is written of a run in good order."""
    told = [record(begin - 0.2, "intent", None, epoch), record(begin + 0.3, "started", run_id, epoch)]
    return told + ([record(begin + 12.0, "judged", run_id, epoch, verdict)] if verdict else [])


def faults(
    runs: list[dict[str, Any]],
    records: list[RecordChange],
    *,
    deeds: tuple[Deed, ...] = (),
    states: tuple[StateChange, ...] = (),
    kills: tuple[Any, ...] = (),
    away: tuple[tuple[float, float], ...] = (),
    task: PlannedTask = TASK,
) -> list[str]:
    """What the books say."""
    books = Balance()
    storm: Any = SimpleNamespace(kills=list(kills), without_triggerer=list(away))
    _Account(task, runs, records, list(states), list(deeds), storm, books).check()
    return books.faults


def state(at: float, before: str, triggerer: int | None = None) -> StateChange:
    return StateChange(at, before, None, 1, 30, triggerer)


def test_one_run_with_its_verdict_is_in_order() -> None:
    assert faults([run()], story(100.0, "one")) == []


def test_two_runs_at_once_in_one_epoch() -> None:
    (fault,) = faults([run(), run("two", 105.0)], story(100.0, "one", None) + story(105.0, "two"))
    assert "in the same epoch" in fault


def test_another_run_after_a_pass() -> None:
    (fault,) = faults([run(), run("two", 120.0)], story(100.0, "one") + story(120.0, "two"))
    assert "neither judged as failing nor cancelled" in fault


def test_another_run_after_a_failure_that_nobody_judged() -> None:
    runs = [run(ending="failed"), run("two", 120.0)]
    assert faults(runs, story(100.0, "one", None) + story(120.0, "two"))
    assert faults(runs, story(100.0, "one", "failed") + story(120.0, "two")) == []


def test_another_run_while_the_cancelled_one_still_goes() -> None:
    runs = [run(**CANCELLED, finished=130.0), run("two", 120.0)]
    assert faults(runs, story(100.0, "one", "cancelled") + story(120.0, "two"))


def test_after_a_clear_another_run_may_follow() -> None:
    runs = [run(**CANCELLED), run("two", 120.0)]
    assert faults(runs, story(100.0, "one", None) + story(120.0, "two", epoch=CLEARED)) == []


def test_another_run_after_one_that_was_cancelled_on_the_platform() -> None:
    runs = [run(phase="cancelled"), run("two", 120.0)]
    (fault,) = faults(runs, story(100.0, "one", None) + story(120.0, "two"))
    assert "neither judged as failing nor cancelled" in fault
    # Tasks were cleared since, and it might have been this one.
    assert faults(runs, story(100.0, "one", None) + story(120.0, "two", epoch=[30, 30, 1])) == []


def test_a_run_without_an_intent() -> None:
    (fault,) = faults([run()], [record(100.3, "started", "one"), record(112.0, "judged", "one", verdict="passed")])
    assert "without an intent" in fault


def test_a_known_run_that_goes_on() -> None:
    (fault,) = faults([run(**GOING)], story(100.0, "one", None))
    assert "nobody looks after it" in fault


def test_a_run_that_nobody_found() -> None:
    (fault,) = faults([run()], [record(99.8, "intent")])
    assert "was never found" in fault
    assert faults([run()], [record(99.8, "intent")], task=replace(TASK, can_be_listed=False)) == []


@pytest.mark.parametrize("truth", [{"ending": "failed"}, CANCELLED, GOING])
def test_a_verdict_that_is_not_the_sandboxs(truth: dict[str, Any]) -> None:
    assert any("the sandbox says" in fault for fault in faults([run(**truth)], story(100.0, "one", "passed")))


DEED = Deed("fail", TASK.key, 104.0, 104.2, "one")


@pytest.mark.parametrize(
    ("change", "reachable"),
    [
        (state(104.1, "running"), True),
        (state(104.1, "deferred", triggerer=7), True),
        # Airflow had nobody to tell.
        (state(104.1, "deferred"), False),
        (state(104.1, "up_for_retry"), False),
    ],
)
def test_a_run_that_was_not_cancelled_though_its_task_was_marked_failed(change: StateChange, reachable: bool) -> None:
    runs, records = [run(**GOING)], story(100.0, "one", None)
    assert bool(faults(runs, records, deeds=(DEED,), states=(change,))) is reachable
    assert faults([run(**CANCELLED)], records, deeds=(DEED,), states=(change,)) == []


def test_a_dead_worker_or_triggerer_cannot_be_told() -> None:
    runs, records = [run(**GOING)], story(100.0, "one", None)
    running, deferred = state(104.1, "running"), state(104.1, "deferred", triggerer=7)
    assert faults(runs, records, deeds=(DEED,), states=(running,), kills=((103.0, TASK.key),)) == []
    # Another task's worker is no excuse.
    assert faults(runs, records, deeds=(DEED,), states=(running,), kills=((103.0, ("other", 0)),))
    assert faults(runs, records, deeds=(DEED,), states=(deferred,), away=((90.0, 110.0),)) == []


def test_a_run_that_was_not_cancelled_though_its_task_was_cleared() -> None:
    deed = replace(DEED, kind="clear")
    runs = [run(**GOING), run("two", 120.0)]
    records = story(100.0, "one", None) + story(120.0, "two", epoch=CLEARED)
    # In whatever state it was: a new_connection try reads of it in the record.
    found = faults(runs, records, deeds=(deed,), states=(state(104.1, "deferred"),))
    assert any("was not cancelled" in fault for fault in found)


def test_a_run_that_cannot_be_looked_up_cannot_be_cancelled_when_its_task_is_cleared() -> None:
    deed, script = replace(DEED, kind="clear"), replace(TASK, can_be_listed=False)
    runs = [run(**GOING), run("two", 120.0)]
    lost = [record(99.8, "intent"), *story(120.0, "two", epoch=CLEARED)]
    change = state(104.1, "up_for_retry")
    assert faults(runs, lost, deeds=(deed,), states=(change,), task=script) == []
    # One that the provider knew of can.
    known = story(100.0, "one", None) + story(120.0, "two", epoch=CLEARED)
    found = faults(runs, known, deeds=(deed,), states=(change,), task=script)
    assert any("was not cancelled" in fault for fault in found)


def test_a_success_without_its_verdict_or_result() -> None:
    books = Balance()
    storm: Any = SimpleNamespace(kills=[], without_triggerer=[])
    good = _Account(TASK, [run()], story(100.0, "one"), [], [], storm, books)
    good.check_result("success", {"run_id": "one", "verdict": "passed"})
    assert books.faults == []
    good.check_result("success", {"run_id": "two", "verdict": "passed"})
    good.check_result("running", None)
    good.check_result("failed", None)
    _Account(TASK, [run()], story(100.0, "one", None), [], [], storm, books).check_result("success", None)
    assert len(books.faults) == 4


def test_an_unknown_outcome_where_the_platform_can_list(tmp_path: Path) -> None:
    log = tmp_path / "task_id=omilia_deferred" / "attempt=1.log"
    log.parent.mkdir()
    log.write_text('{"event": "x", "error_detail": [{"exc_type": "StartOutcomeUnknownError", "exc_value": "?"}]}\n')
    books = Balance()
    _check_logs(Plan([TASK]), tmp_path, books)
    assert len(books.faults) == 1
    books = Balance()
    _check_logs(Plan([replace(TASK, can_be_listed=False)]), tmp_path, books)
    assert books.faults == []


def test_a_secret_in_the_database_or_a_log_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("all is well")
    assert search({"canary-1", "canary-2"}, "rows", tmp_path) == []
    (tmp_path / "b.log").write_text("Authorization: canary-2")
    assert search({"canary-1", "canary-2"}, "rows with canary-1", tmp_path) == [
        "a secret is in the metadata database",
        f"a secret is in {tmp_path / 'b.log'}",
    ]
