"""A record of a start that somebody else has written: nothing in it is believed, and nothing is touched for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    ApiError,
    ConfigurationError,
    InvalidRequestError,
    PermissionDeniedError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.lifecycle.starting import Epoch, Phase, Record, Starter, Watermark
from airflow_provider_testruns.model import Run, RunState, Verdict
from airflow_provider_testruns.platforms.eggplant import EggplantPlatform
from airflow_provider_testruns.platforms.futureagi import FutureAGIPlatform
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.platforms.platform import Identity, Platform
from airflow_provider_testruns.steps import Steps
from tests.unit.platforms.steps import BASE_URL, InTurn, Wire, response
from tests.unit.steps import BEGIN, Clock, FakePlatform, Lines, drive
from tests.unit.strategies import json_values

pytestmark = pytest.mark.unit

EPOCH, CLEARED = Epoch(2, 2, 0), Epoch(5, 2, 1)
WINDOW = 30.0
ARGUMENTS = {"group": "g"}


class KnowingPlatform(FakePlatform):
    """As the real ones: it can say what a run of the task's arguments must show, and a poll shows it."""

    def identity(self, **arguments: Any) -> Steps[Identity | None]:
        yield from ()
        return Identity({"project_id": "p"}, dict(arguments))

    def find_runs(self, since: datetime | None, **context: str) -> Steps[list[Run]]:
        if context != {"project_id": "p"}:
            raise ConfigurationError("project_id must be an id.")
        return (yield from super().find_runs(since, **context))


class Store:
    """Holds a record that anybody can write."""

    def __init__(self) -> None:
        self.data: Any = None

    def read(self) -> Any:
        return self.data

    def write(self, data: dict[str, Any]) -> None:
        self.data = json.loads(json.dumps(data, allow_nan=False))

    def clear(self) -> None:
        self.data = None


class World:
    """A task whose first try has started a run, and its DAG run was created a minute before."""

    def __init__(self, *, offset: float = 0.0) -> None:
        self.clock = Clock()
        self.platform = KnowingPlatform(self.clock, offset)
        self.store = Store()
        self.lines = Lines()
        self.not_before = BEGIN - 60
        self.platform.add("yesterdays", age=86_400, ids={"project_id": "p"})
        self.ours = self.try_().run.run_id
        self.platform.actions.clear()

    def try_(self, epoch: Epoch = EPOCH, arguments: dict[str, Any] = ARGUMENTS, **more: Any) -> Any:
        self.starter = Starter(
            self.platform,
            store=self.store,
            epoch=epoch,
            window=WINDOW,
            log=self.lines,
            clock_offset=lambda: self.platform.clock_offset,
            not_before=self.not_before,
            clock=self.clock,
            **more,
        )
        return drive(self.platform, self.starter.obtain(arguments))

    def refused(self, epoch: Epoch = EPOCH, **more: Any) -> str:
        """What a try says that takes nothing from the record, having done nothing but look."""
        before = json.dumps(self.store.data)
        with pytest.raises(StartOutcomeUnknownError) as caught:
            self.try_(epoch, **more)
        assert set(self.platform.actions) <= {"get", "list"}
        assert json.dumps(self.store.data) == before
        # on_kill, which comes at any time, would not touch it either.
        record = self.starter.record
        assert record is None or record.run is None
        assert self.starter.older is None
        return str(caught.value)

    def name(self, run: Run, **changes: Any) -> None:
        """Make the record name another run."""
        self.store.data["run"] = {**run.to_dict(), "url": "javascript:alert(document.domain)"}
        self.store.data.update(changes)


def foreign(world: World, **changes: Any) -> Run:
    given: dict[str, Any] = {"age": 0.0, "ids": {"project_id": "p"}, **changes}
    return world.platform.add("foreign", **given)


_FOREIGN: dict[str, dict[str, Any]] = {
    "of another project": {"ids": {"project_id": "theirs"}},
    "with other arguments": {"started_with": {"group": "theirs"}},
    "from before the DAG run": {"age": 3600.0},
    "from long after the start": {"age": -3000.0},
}


@pytest.mark.parametrize("what", _FOREIGN)
@pytest.mark.parametrize("phase", [Phase.STARTED, Phase.JUDGED])
@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("cleared", [False, True])
def test_a_run_that_is_not_this_tasks_is_neither_judged_nor_waited_for_nor_cancelled(
    what: str, phase: Phase, final: bool, cleared: bool
) -> None:
    world = World()
    run = foreign(world, **_FOREIGN[what])
    world.clock.now += 3600
    if final:
        world.platform.end("foreign", Verdict.PASSED)
    world.name(run, phase=phase.value, verdict="passed" if phase is Phase.JUDGED else None, seen=True)
    if cleared and (phase is Phase.JUDGED or final):
        # There is nothing to cancel: what is done is what is done without a record.
        assert world.try_(CLEARED).how == "started"
        assert "cancel" not in world.platform.actions
        return
    said = world.refused(CLEARED if cleared else EPOCH)
    assert "names run foreign, and the platform does not show it as a run of this task: " in said
    assert "remove the key test_run" in said


def test_what_is_stored_beside_the_run_changes_nothing() -> None:
    """Whoever can write the run's id can write all the rest of the record to match it."""
    world = World()
    run = foreign(world, ids={"project_id": "theirs"}, started_with={"group": "theirs"})
    world.name(
        run,
        ids={"project_id": "theirs"},
        started_with={"group": "theirs"},
        fingerprint="0" * 16,
        mark={"run_id": None, "at": None, "offset": None},
        window=600.0,
    )
    assert "its project_id is 'theirs', and this task's is 'p'" in world.refused()
    world.store.data |= {"phase": "intent", "run": None}
    world.platform.runs = [run]
    # The list of another project is not this task's.
    world.platform.find_runs = lambda since, **context: iter_of(world.platform.runs)  # type: ignore[method-assign]
    assert "its project_id is 'theirs'" in world.refused()
    world.store.data["epoch"] = [9, 9, 9]
    assert "its project_id is 'theirs'" in world.refused()


def iter_of(runs: list[Run]) -> Steps[list[Run]]:
    yield from ()
    return list(runs)


def test_a_verdict_is_believed_only_after_the_platform_was_asked() -> None:
    world = World()
    world.store.data |= {"phase": "judged", "verdict": "passed"}
    # It is still running: it is waited for.
    assert world.try_().how == "reattached"
    world.store.data |= {"phase": "judged", "verdict": "failed"}
    assert world.try_().how == "reattached"
    assert world.platform.actions == ["get", "get"]
    world.platform.end(world.ours, Verdict.FAILED)
    world.store.data |= {"phase": "judged", "verdict": "passed"}
    obtained = world.try_()
    # What it amounts to is the platform's word, and judged again by the caller.
    assert (obtained.how, obtained.run.platform_verdict, obtained.run.url) == ("judged", Verdict.FAILED, "")
    world.platform.lose(world.ours)
    assert "is recorded as passed in an earlier try, and the platform no longer shows it" in world.refused()


def test_links_are_the_platforms() -> None:
    world = World()
    world.store.data["run"]["url"] = "javascript:alert(1)"
    world.store.data["run"]["raw_state"] = "stored"
    run = world.try_().run
    assert (run.run_id, run.url, run.raw_state) == (world.ours, "", "running")


@pytest.mark.parametrize("offset", [-7200.0, 0.0, 7200.0, 90 * 86_400.0])
def test_clocks_that_differ_are_no_reason_to_doubt_ones_own_run(offset: float) -> None:
    world = World(offset=offset)
    for _ in range(2):
        world.clock.now += 1800
        assert world.try_().how == "reattached"
    # And by the platform's clock a run from before the DAG run is one.
    world.name(foreign(world, age=world.clock.past + 120))
    assert "before this DAG run was created" in world.refused()


def test_a_platform_whose_runs_begin_late_is_waited_for() -> None:
    world = World()
    late = foreign(world, age=-3000.0)
    world.clock.now += 3600
    world.name(late)
    world.refused()
    world.platform.begins_late = True  # type: ignore[misc]
    world.platform.actions.clear()
    assert world.try_().run.run_id == "foreign"


def test_what_is_on_the_way_is_found_again_and_cancelled_on_a_clear() -> None:
    """Being careful loses nothing: the flows of an honest record."""
    world = World()
    assert world.try_().how == "reattached"
    world.store.data |= {"phase": "intent", "run": None}
    assert world.try_().how == "adopted"
    assert world.try_(CLEARED).how == "started"
    assert world.platform.count("cancel") == 1
    assert world.platform.count("start") == 1


@pytest.mark.parametrize(
    "before",
    [
        lambda data: data.update(phase="intent", run=None),
        # A run beside a start that is said to be still on the way: nobody ever asks for it.
        lambda data: data.update(phase="intent"),
        lambda data: None,
    ],
)
def test_a_killed_task_cancels_no_run_that_is_not_confirmed(before: Callable[[dict[str, Any]], None]) -> None:
    world = World()
    before(world.store.data)
    steps = Starter(world.platform, store=world.store, epoch=EPOCH, window=WINDOW, log=world.lines, clock=world.clock)
    flow = steps.obtain(ARGUMENTS)
    next(flow)
    # While the first poll is on the way, only a start whose run is still to be found is known.
    assert steps.record is None or steps.record.run is None
    foreign_run = foreign(world, ids={"project_id": "theirs"})
    record = Record.from_json(world.store.data)
    assert steps.doubt(foreign_run, record)


_EVIL = [
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    253_402_300_799.0,
    "",
    "x" * 100_000,
    "\ud800",
    "javascript:alert(1)",
    [],
    [[]],
    {},
    {"run_id": ["x"]},
    {"at": "9999-12-31T23:59:59Z"},
]


@pytest.mark.parametrize("key", sorted(Record(EPOCH, Phase.INTENT, BEGIN, WINDOW, Watermark(), "f").to_json()))
@pytest.mark.parametrize("phase", [Phase.STARTED, Phase.INTENT])
@pytest.mark.parametrize("cleared", [False, True])
def test_no_value_of_any_field_raises_anything_else_or_starts_beside_a_run(
    key: str, phase: Phase, cleared: bool
) -> None:
    for value in _EVIL:
        world = World()
        world.store.data["phase"] = phase.value
        if phase is Phase.INTENT:
            world.store.data["run"] = None
        world.store.data[key] = value
        started = world.platform.count("start")
        try:
            obtained = world.try_(CLEARED if cleared else EPOCH)
        except StartOutcomeUnknownError:
            assert set(world.platform.actions) <= {"get", "list"}
            continue
        if key != "epoch" and not cleared and obtained.how == "started":
            # As good as deleted: what the record no longer leads to is a new start.
            assert key in ("started_with", "mark", "context", "phase", "run", "cannot_list", "intent_at", "window")
            assert world.platform.count("start") == started + 1


@settings(max_examples=300)
@given(json_values, st.sampled_from(["", "run", "mark", "context", "started_with", "epoch"]), st.booleans())
def test_whatever_is_stored_ends_in_a_run_or_in_our_error(value: Any, where: str, cleared: bool) -> None:
    world = World()
    world.store.data = {**world.store.data, where: value} if where else value
    try:
        obtained = world.try_(CLEARED if cleared else EPOCH)
    except StartOutcomeUnknownError:
        assert set(world.platform.actions) <= {"get", "list"}
    else:
        assert obtained.run.url == ""


def test_a_record_that_is_nested_without_end_is_unreadable() -> None:
    world = World()
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"platform": "p", "run_id": "r", "state": "running", "raw_state": "", "parts": [deep]}
    with pytest.raises(StartOutcomeUnknownError, match=r"can't be read"):
        Record.from_json({**world.store.data, "run": deep})


def test_a_record_from_the_future_waits_for_nothing() -> None:
    world = World()
    world.store.data |= {"intent_at": BEGIN + 86_400.0, "phase": "intent", "run": None}
    assert "from the future" in world.refused()
    # Clocks of workers may be apart.
    world.store.data["intent_at"] = BEGIN + 600.0
    assert world.try_().how == "adopted"


def test_a_mark_from_the_future_does_not_make_all_runs_too_old() -> None:
    world = World()
    world.store.data |= {"phase": "intent", "run": None, "mark": {"run_id": None, "at": BEGIN + 3e8, "offset": None}}
    assert "from the future" in world.refused()
    assert world.platform.actions == []


def test_an_id_that_the_platform_refuses_is_the_records_fault() -> None:
    world = World()

    def refuse(*args: Any) -> Steps[Run]:
        yield from ()
        raise InvalidRequestError("HTTP 422: not a UUID", status=422)

    world.platform.get_stored_run = refuse  # type: ignore[method-assign]
    assert "HTTP 422" in world.refused()


@pytest.mark.parametrize("offset", [2.5e11, -2.5e11, float("inf")])
def test_a_date_that_is_absurd_makes_no_record_unreadable(offset: float) -> None:
    clock = Clock()
    platform = KnowingPlatform(clock)
    store = Store()

    def one_try() -> Any:
        starter = Starter(
            platform, store=store, epoch=EPOCH, window=WINDOW, log=Lines(), clock_offset=lambda: offset, clock=clock
        )
        return drive(platform, starter.obtain(ARGUMENTS))

    first = one_try()
    assert one_try().run.run_id == first.run.run_id
    assert platform.count("start") == 1


def test_a_record_that_was_deleted_is_a_new_start() -> None:
    world = World()
    world.store.data = None
    assert world.try_().how == "started"


# The platforms: what a poll of a stored id shows

RUN = "0e000000-0000-4000-8000-000000000001"
OTHER = "0e000000-0000-4000-8000-000000000002"
RUN_TEST = "0a000000-0000-4000-8000-000000000001"
SINCE = datetime(2026, 11, 22, tzinfo=UTC)


def resumed(platform: Platform, wire: Wire, arguments: dict[str, Any], stored: Run, **record: Any) -> Any:
    """What the next try of a task makes of a stored record that names ``stored``."""
    store = Store()
    at = SINCE.timestamp()
    store.data = replace(
        Record(EPOCH, Phase.STARTED, at + 60, WINDOW, Watermark(), "f", run=stored, seen=True), **record
    ).to_json()
    starter = Starter(
        platform,
        store=store,
        epoch=EPOCH,
        window=WINDOW,
        log=Lines(),
        clock_offset=lambda: 0.0,
        not_before=at,
        clock=lambda: at + 3600,
    )
    return wire.run(starter.obtain(arguments))


def omilia_row(**fields: Any) -> dict[str, Any]:
    row = {"runId": "r-1", "projectId": "p-1", "status": "STARTED", "createdAt": "2026-11-22T00:01:00Z"}
    return {**row, "group": "g", "utterance": "", "description": None, **fields}


def test_omilia_compares_project_and_filters_in_one_poll() -> None:
    platform = OmiliaPlatform(BASE_URL)
    stored = Run("omilia", "r-1", RunState.RUNNING, "STARTED", ids={"project_id": "theirs"}, url="javascript:1")
    arguments = {"project_id": "p-1", "group": "g"}
    wire = Wire({"GET /api/runs/r-1": {"data": omilia_row()}})
    found = resumed(platform, wire, arguments, stored).run
    assert (found.ids, wire.asked) == ({"project_id": "p-1"}, ["GET /api/runs/r-1"])
    assert found.url == platform._url("r-1", "p-1")
    for fields, said in (
        ({"projectId": "p-2"}, "its project_id is 'p-2'"),
        ({"group": "other"}, "its group is 'other'"),
        ({"utterance": "hello"}, "its utterance is 'hello'"),
        ({"createdAt": "2026-11-21T23:59:00Z"}, "before this DAG run was created"),
        ({"createdAt": "2026-11-22T00:30:00Z"}, "after this task's start was sent"),
    ):
        wire = Wire({"GET /api/runs/r-1": {"data": omilia_row(**fields)}})
        with pytest.raises(StartOutcomeUnknownError) as caught:
            resumed(platform, wire, arguments, stored)
        assert said in str(caught.value)
        assert wire.asked == ["GET /api/runs/r-1"]


def test_omilia_looks_into_the_project_for_a_run_that_does_not_name_its_own() -> None:
    platform = OmiliaPlatform(BASE_URL)
    stored = Run("omilia", "r-1", RunState.RUNNING, "STARTED")
    row = omilia_row()
    del row["projectId"]
    answers = {"GET /api/runs/r-1": {"data": row}, "GET /api/projects/p-1/runs/": {"data": [row]}}
    arguments = {"project_id": "p-1", "group": "g"}
    assert resumed(platform, Wire(answers), arguments, stored).run.ids == {"project_id": "p-1"}
    answers["GET /api/projects/p-1/runs/"] = {"data": [omilia_row(runId="r-2")]}
    with pytest.raises(StartOutcomeUnknownError, match="does not list it among those of project_id p-1"):
        resumed(platform, Wire(answers), arguments, stored)


def test_omilia_takes_no_run_for_a_generation() -> None:
    platform = OmiliaPlatform(BASE_URL)
    stored = Run("omilia", "r-1", RunState.RUNNING, "STARTED", ids={"project_id": "p-1"})
    wire = Wire({"GET /api/runs/r-1": {"data": omilia_row()}, "GET /api/projects/p-1/generations/": {"data": []}})
    record = {"seen": False}
    with pytest.raises(StartOutcomeUnknownError, match="has never shown it"):
        resumed(platform, wire, {"project_id": "p-1", "kind": "generation"}, stored, **record)
    assert set(wire.asked) == {"GET /api/projects/p-1/generations/"}


def executions(*ids: str, began: str = "2026-11-22T00:01:00Z") -> dict[str, Any]:
    rows = [{"id": each, "status": "Running", "start_time": began, "calls": 5, "calls_attempted": 2} for each in ids]
    return {"count": len(rows), "next": None, "previous": None, "results": rows, "total_pages": 1}


METRICS = f"GET /sdk/api/v1/simulation/metrics/?execution_id={RUN}"
LIST = f"GET /simulate/run-tests/{RUN_TEST}/executions/?page=1&limit=100"


def test_future_agi_takes_only_executions_of_its_run_test() -> None:
    platform = FutureAGIPlatform("current", BASE_URL)
    stored = Run("futureagi", RUN, RunState.RUNNING, "running", ids={"run_test_id": OTHER})
    arguments = {"run_test_id": RUN_TEST, "select_all": True}
    metrics = {"status": True, "result": {"execution_id": RUN, "status": "running", "metrics": {}}}
    wire = Wire({LIST: executions(OTHER, RUN), METRICS: metrics})
    found = resumed(platform, wire, arguments, stored).run
    assert (found.run_id, found.ids, wire.asked) == (RUN, {"run_test_id": RUN_TEST}, [LIST])
    # One that exists, and is of another run test, or is older than the DAG run.
    for listed in (executions(OTHER), executions(RUN, began="2026-11-21T00:00:00Z")):
        wire = Wire({LIST: listed, METRICS: metrics})
        with pytest.raises(StartOutcomeUnknownError, match=f"does not list it among those of run_test_id {RUN_TEST}"):
            resumed(platform, wire, arguments, stored)
        assert wire.asked == [LIST, METRICS, LIST]
    # One that is listed a moment later is ours.
    wire = Wire({LIST: InTurn(executions(OTHER), executions(RUN)), METRICS: metrics})
    assert resumed(platform, wire, arguments, stored).run.run_id == RUN
    # Without the list, the run test still tells of its latest execution.
    latest = f"GET /simulate/run-tests/{RUN_TEST}/status/"
    refused = response({"detail": "no"}, 403)
    wire = Wire({LIST: refused, latest: {"execution_id": RUN}, METRICS: metrics})
    assert resumed(platform, wire, arguments, stored).run.ids == {"run_test_id": RUN_TEST}
    wire = Wire({LIST: refused, latest: {"execution_id": OTHER}, METRICS: metrics})
    with pytest.raises(PermissionDeniedError):
        resumed(platform, wire, arguments, stored)
    # An id that is none is asked for nowhere.
    wire = Wire({LIST: executions(RUN)})
    with pytest.raises(StartOutcomeUnknownError, match="can't be right"):
        resumed(platform, wire, arguments, replace(stored, run_id="../../secrets"))
    assert wire.asked == []


def test_future_agi_goes_on_with_the_execution_that_is_run_again() -> None:
    """It keeps its id and its start, which is before the DAG run: what says that it is ours is the argument."""
    platform = FutureAGIPlatform("current", BASE_URL)
    old = {"execution_id": RUN, "status": "running", "started_at": "2020-01-01T00:00:00Z", "metrics": {}}
    stored = Run("futureagi", RUN, RunState.RUNNING, "running")
    wire = Wire({METRICS: {"status": True, "result": old}})
    assert resumed(platform, wire, {"rerun_of": RUN}, stored).run.run_id == RUN
    with pytest.raises(StartOutcomeUnknownError, match=f"this task's is {OTHER}"):
        resumed(platform, wire, {"rerun_of": OTHER}, stored)


def progress(**fields: Any) -> dict[str, Any]:
    row = {"id": RUN, "modelname": "Shop", "starttime": "2026-11-22T00:01:00Z", "status": "Running", "type": "Model"}
    return {**row, **fields}


def test_eggplant_compares_the_model_that_a_poll_shows() -> None:
    model = "0b000000-0000-4000-8000-000000000001"
    models = {"items": [{"id": 1, "name": "Shop", "modeluuid": model}], "total_count": 1}
    stored = Run("eggplant", RUN, RunState.RUNNING, "Running", ids={"model_name": "Theirs", "model_id": OTHER})

    def answers(row: dict[str, Any]) -> Wire:
        return Wire({"POST /api/run/progress": response([row]), "GET /ai/models": models})

    for arguments in ({"model_id": model}, {"model_id": model, "model_name": "Shop"}):
        found = resumed(EggplantPlatform(BASE_URL), answers(progress()), arguments, stored).run
        assert found.ids["model_name"] == "Shop"
        assert found.ids["model_id"] == model
        # Executions queue: a start time long after the start is no reason to doubt.
        late = answers(progress(starttime="2026-11-22T00:50:00Z"))
        assert resumed(EggplantPlatform(BASE_URL), late, arguments, stored).run.run_id == RUN
        for fields, said in (
            ({"modelname": "Theirs"}, "its model_name is 'Theirs'"),
            ({"model_id": OTHER}, f"its model_id is '{OTHER}'"),
            ({"type": "testcase"}, "its type is 'testcase'"),
            ({"starttime": "2026-11-21T23:00:00Z"}, "before this DAG run was created"),
        ):
            wire = answers(progress(**fields))
            with pytest.raises(StartOutcomeUnknownError) as caught:
                resumed(EggplantPlatform(BASE_URL), wire, arguments, stored)
            assert said in str(caught.value)
            assert all(asked in ("POST /api/run/progress", "GET /ai/models") for asked in wire.asked)


def test_errors_of_the_poll_stay_what_they_are() -> None:
    platform = OmiliaPlatform(BASE_URL)
    stored = Run("omilia", "r-1", RunState.RUNNING, "STARTED")
    with pytest.raises(ApiError) as caught:
        resumed(platform, Wire({"GET /api/runs/r-1": response({"detail": "no"}, 403)}), {"project_id": "p-1"}, stored)
    assert caught.value.status == 403
