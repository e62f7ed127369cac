"""The operators and sensors for Eggplant DAI against every generation of its servers, driven as Airflow drives them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from pytest_mock import MockerFixture

from airflow_provider_testruns.exceptions import (
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RunCancelledError,
    RunErroredError,
    RunFailedError,
    RunTimeoutError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.operators.eggplant import (
    EggplantAbortExecutionOperator,
    EggplantStartExecutionOperator,
    EggplantStartTestConfigurationOperator,
)
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.eggplant import GENERATIONS, named_id
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.eggplant import EggplantExecutionSensor, EggplantRunProgressSensor
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.integration.fake_context.tasks import Task, Told

pytestmark = pytest.mark.integration

CHECKOUT, RETURNS, BROKEN = named_id(1), named_id(2), named_id(3)
NIGHTLY_SHOP, NIGHTLY_RETURNS, BROKEN_NIGHTLY = named_id(11), named_id(12), named_id(13)
UNKNOWN = "00000000-0000-4000-8000-000000000000"
GENERATION = pytest.mark.parametrize("generation", list(GENERATIONS))
#: Servers that show an execution by its id, also to those who did not start it.
SHOWN = pytest.mark.parametrize(
    "generation", [name for name, has in GENERATIONS.items() if has.progress or has.executions]
)
#: Servers that have POST /api/run/progress.
WITH_PROGRESS = [name for name, has in GENERATIONS.items() if has.progress]
MODES = ("poke", "reschedule", "deferrable")
MODE = pytest.mark.parametrize("mode", MODES)
#: Every mode with one of them, each of the others with one mode.
GENERATION_AND_MODE = pytest.mark.parametrize(
    ("generation", "mode"),
    [
        *(("full", mode) for mode in MODES),
        ("progress_only", "poke"),
        ("executions_get", "deferrable"),
        ("runs_only", "reschedule"),
    ],
)
DEFERRABLE = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=0.3, seed=4) as server:
        server.control.configure(cancel_seconds=0.2)
        yield server


@pytest.fixture
def control(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """The sandbox behind the connection, as new. Nothing that a test does may be against the documents."""
    server.control.reset()
    server.control.configure(cancel_seconds=0.2, begin_when_seen=True)
    monkeypatch.setenv("AIRFLOW_CONN_EGGPLANT_DEFAULT", json.dumps(server.connections()["eggplant_default"]))
    yield server.control
    assert server.control.violations() == []
    assert server.control.count("eggplant.create_agent") == 0


@contextmanager
def when_seen(control: Control, operation: str, do: Callable[[], object], looks: int = 1) -> Iterator[None]:
    """Do something as soon as a client has asked for something so many times from now on."""
    before, over = control.count(operation), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if control.count(operation) - before >= looks:
                do()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sensor(mode: str = "poke", **arguments: Any) -> EggplantRunProgressSensor:
    way = {"deferrable": True} if mode == "deferrable" else {"deferrable": False, "mode": mode}
    return EggplantRunProgressSensor(task_id="watch", poke_interval=0.1, **{"timeout": 600, **way, **arguments})


def going(control: Control, run_id: str) -> bool:
    return control.run(run_id)["finished"] is None


# Starting


#: What is started, and the error in which it ends.
EXECUTIONS: dict[str, tuple[dict[str, Any], type[Exception] | None]] = {
    "passes": ({"model_id": CHECKOUT, "test_case_id": 12, "agent": {"agent_id": "1", "is_hosted_agent": True}}, None),
    "fails": ({"model_id": RETURNS, "asset": {"asset_path": "/s"}, "sut": {"criteria": ["web"]}}, RunFailedError),
    "breaks": ({"model_id": BROKEN}, RunErroredError),
    "reruns": ({"rerun_id": "21", "model_name": "Returns"}, RunFailedError),
}


@pytest.mark.parametrize(
    ("generation", "deferrable", "name"),
    [
        *(("full", deferrable, name) for name in EXECUTIONS for deferrable in (True, False)),
        ("progress_only", True, "passes"),
        ("progress_only", False, "fails"),
        ("executions_get", False, "passes"),
        ("executions_get", True, "reruns"),
        ("runs_only", True, "fails"),
        ("runs_only", False, "breaks"),
    ],
)
def test_an_execution_from_start_to_verdict(control: Control, generation: str, deferrable: bool, name: str) -> None:
    arguments, error = EXECUTIONS[name]
    control.configure(eggplant_generation=generation)
    task = Task()
    operator = EggplantStartExecutionOperator(
        task_id="run", deferrable=deferrable, poll_interval=0.1, timeout=600, **arguments
    )
    if error is None:
        report = task.run(operator)
    else:
        with pytest.raises(error):
            task.run(operator)
        report = task.xcoms["return_value"]
    verdicts = {None: "passed", RunFailedError: "failed", RunErroredError: "errored"}
    (run,) = control.runs("eggplant")
    assert (report["run_id"], report["verdict"]) == (run["run_id"], verdicts[error])
    assert task.deferrals == deferrable
    assert control.count("eggplant.start_execution") == 1


@pytest.mark.parametrize(
    ("generation", "deferrable", "test_config_id", "error"),
    [
        ("full", True, NIGHTLY_SHOP, None),
        ("full", False, NIGHTLY_SHOP, None),
        ("full", True, NIGHTLY_RETURNS, RunFailedError),
        ("full", False, NIGHTLY_RETURNS, RunFailedError),
        ("full", True, BROKEN_NIGHTLY, RunErroredError),
        ("progress_only", True, NIGHTLY_RETURNS, RunFailedError),
        ("executions_get", False, NIGHTLY_RETURNS, RunFailedError),
        ("runs_only", True, NIGHTLY_SHOP, None),
        ("v2", True, NIGHTLY_RETURNS, RunFailedError),
        ("v2", False, NIGHTLY_SHOP, None),
    ],
)
def test_a_test_configuration_from_start_to_verdict(
    control: Control, generation: str, deferrable: bool, test_config_id: str, error: type[Exception] | None
) -> None:
    control.configure(eggplant_generation=generation)
    task = Task()
    operator = EggplantStartTestConfigurationOperator(
        task_id="run", test_config_id=test_config_id, deferrable=deferrable, poll_interval=0.1, timeout=600
    )
    if error is None:
        report = task.run(operator)
    else:
        with pytest.raises(error):
            task.run(operator)
        report = task.xcoms["return_value"]
    (run,) = control.runs("eggplant")
    assert report["run_id"] == run["run_id"] == task.xcoms["run_id"]
    assert task.deferrals == deferrable
    with_results = GENERATIONS[generation].results and error is not RunErroredError
    if with_results:
        assert report["total"] == 4
        assert [case["name"] for case in report["failures"]] == (["Return without receipt"] if error else [])
    assert control.count("eggplant.start_test_configuration") == 1
    assert control.count("eggplant.abort_execution") == 0


def test_a_test_configuration_without_an_id_is_refused_before_any_request(control: Control) -> None:
    for missing in (None, "", " "):
        operator = EggplantStartTestConfigurationOperator(task_id="run", test_config_id=missing)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="test_config_id"):
            Task().run(operator)
    assert control.requests() == []


@DEFERRABLE
def test_a_test_configuration_that_is_too_slow_goes_on_and_the_log_says_so(
    control: Control, deferrable: bool, told: Told
) -> None:
    control.set_target("eggplant", NIGHTLY_SHOP, duration=3600)
    task = Task()

    def operator() -> EggplantStartTestConfigurationOperator:
        return EggplantStartTestConfigurationOperator(
            task_id="run", test_config_id=NIGHTLY_SHOP, deferrable=deferrable, poll_interval=0.1, timeout=0.5
        )

    with pytest.raises(RunTimeoutError, match="It may still be running: see the log") as caught:
        task.run(operator())
    assert "asked to stop" not in str(caught.value)
    (said,) = told.of("Could not cancel run")
    assert "no documented call that stops a test configuration" in said
    (run,) = control.runs("eggplant")
    assert going(control, run["run_id"])
    # The next try waits for the same run.
    control.finish_run(run["run_id"])
    report = task.run(operator())
    assert (report["run_id"], report["verdict"]) == (run["run_id"], "passed")
    assert control.count("eggplant.start_test_configuration") == 1


def test_a_killed_task_leaves_its_test_configuration_and_the_log_says_so(control: Control, told: Told) -> None:
    operator = EggplantStartTestConfigurationOperator(
        task_id="run", test_config_id=NIGHTLY_SHOP, poll_interval=0.1, timeout=600
    )
    control.set_target("eggplant", NIGHTLY_SHOP, duration=60)
    (said, finish) = ([], lambda: control.finish_run(control.runs("eggplant")[0]["run_id"]))

    def kill() -> None:
        operator.on_kill()
        said.extend(told.of("Could not cancel run"))
        finish()

    with when_seen(control, "eggplant.get_test_configuration_task", kill, looks=2):
        Task().run(operator)
    assert len(said) == 1
    assert "no documented call that stops a test configuration" in said[0]


def test_a_deferred_test_configuration_that_is_killed_goes_on_and_the_log_says_so(
    control: Control, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.set_target("eggplant", NIGHTLY_SHOP, duration=60)
    operator = EggplantStartTestConfigurationOperator(
        task_id="run", test_config_id=NIGHTLY_SHOP, deferrable=True, timeout=600
    )
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(Task().context)
    trigger = deferred.value.trigger
    assert isinstance(trigger, RunTrigger)

    async def failed(self: RunTrigger) -> str:
        return "failed"

    # Airflow's own channel to the task's state is what stands behind it.
    monkeypatch.setattr(RunTrigger, "_task_state", failed)
    asyncio.run(trigger.on_kill())
    assert told.of("no documented call that stops a test configuration")
    assert going(control, control.runs("eggplant")[0]["run_id"])


def test_e4_a_test_configuration_whose_start_got_no_response_is_looked_up(control: Control) -> None:
    control.fault("drop", operation="eggplant.start_test_configuration", when="after", times=1)
    task = Task()
    for _ in range(2):
        operator = EggplantStartTestConfigurationOperator(task_id="run", test_config_id=NIGHTLY_SHOP, poll_interval=0.1)
        assert task.run(operator)["verdict"] == "passed"
    assert control.count("eggplant.start_test_configuration") == 1


def test_a_test_configuration_whose_start_got_no_response_from_a_server_without_results_is_not_started_again(
    control: Control,
) -> None:
    control.configure(eggplant_generation="progress_only")
    control.fault("drop", operation="eggplant.start_test_configuration", when="after", times=1)
    task = Task()
    for _ in range(2):
        operator = EggplantStartTestConfigurationOperator(task_id="run", test_config_id=NIGHTLY_SHOP)
        with pytest.raises(StartOutcomeUnknownError, match="does not list the results"):
            task.run(operator)
    assert control.count("eggplant.start_test_configuration") == 1


def test_the_files_of_a_test_configuration_are_kept(control: Control, tmp_path: Path) -> None:
    task = Task()
    operator = EggplantStartTestConfigurationOperator(
        task_id="run", test_config_id=NIGHTLY_RETURNS, poll_interval=0.1, artifacts_path=str(tmp_path / "files")
    )
    with pytest.raises(RunFailedError):
        task.run(operator)
    assert sorted(task.xcoms["artifacts"]) == sorted(str(path) for path in (tmp_path / "files").iterdir())
    assert len(task.xcoms["artifacts"]) == 1 + 4 + 1 + 1


# Releases of the server


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(("fail_on_rerun", "verdict"), [(False, "passed"), (True, "failed")])
def test_e5_a_test_that_passed_when_it_was_run_again(
    control: Control, tmp_path: Path, deferrable: bool, fail_on_rerun: bool, verdict: str
) -> None:
    task, junit = Task(), tmp_path / "junit.xml"
    operator = EggplantStartTestConfigurationOperator(
        task_id="run",
        test_config_name="Flaky nightly",
        fail_on_rerun=fail_on_rerun,
        deferrable=deferrable,
        poll_interval=0.1,
        junit_path=str(junit),
    )
    if fail_on_rerun:
        with pytest.raises(RunFailedError):
            task.run(operator)
        report = task.xcoms["return_value"]
    else:
        report = task.run(operator)
    assert (report["verdict"], report["total"], report["passed"]) == (verdict, 4, 4)
    assert report["notes"] == ["Passed after a re-run: Flaky nightly/Search for a product (after 2 tries)."]
    assert report["commit"] == "c0ffee" * 6 + "c0de"
    assert junit.read_text().count("<flakyFailure") == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_e1_e3_where_only_the_list_of_runs_shows_a_run_it_is_waited_for_by_its_number(
    control: Control, deferrable: bool
) -> None:
    control.configure(eggplant_generation="runs_only", eggplant_early_verdict=True)
    control.add_runs("eggplant", "Checkout", 3, age=60, duration=1)
    report = Task().run(
        EggplantStartExecutionOperator(
            task_id="run", model_name="Checkout", deferrable=deferrable, poll_interval=0.1, timeout=60
        )
    )
    # Its test status is FAILED before the end.
    assert report["verdict"] == "passed"
    assert control.count("eggplant.get_run") > 0


@pytest.mark.parametrize("cancel", [True, False])
def test_e1_a_run_that_is_never_shown_is_aborted_unless_that_is_not_wanted(
    control: Control, mocker: MockerFixture, cancel: bool
) -> None:
    mocker.patch("airflow_provider_testruns.timing.GRACE", 0.3)
    control.configure(eggplant_generation="v2")
    # Nothing tells a rerun from the runs of others.
    operator = EggplantStartExecutionOperator(
        task_id="run", rerun_id=21, deferrable=False, poll_interval=0.1, cancel_on_timeout=cancel
    )
    said = "was asked to cancel it" if cancel else "may still be running"
    with pytest.raises(NotFoundError, match=said):
        Task().run(operator)
    assert control.count("eggplant.abort_execution") == cancel


# Aborting


@SHOWN
def test_an_abort_waits_until_the_execution_is_over(control: Control, generation: str, told: Told) -> None:
    control.configure(eggplant_generation=generation)
    (run_id,) = control.add_runs("eggplant", "Checkout", duration=60)
    task = Task()
    ended = task.run(EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id, poll_interval=0.1))
    assert control.run(run_id)["phase"] == "cancelled"
    assert set(ended) == {
        "platform",
        "run_id",
        "verdict",
        "raw_state",
        "url",
        "started_at",
        "finished_at",
        "duration",
    }
    assert (ended["run_id"], ended["verdict"], ended["raw_state"]) == (run_id, "cancelled", "Cancelled") or (
        generation == "executions_get" and ended["raw_state"] == "CANCELLED"
    )
    assert f"Run {run_id} has finished as {ended['raw_state']}: it was stopped." in told.lines
    assert task.xcoms == {"run_id": run_id, "run_url": ended["url"]}
    assert control.count("eggplant.abort_execution") == 1


@SHOWN
def test_an_execution_that_is_over_is_no_error_and_the_log_says_so(
    control: Control, generation: str, told: Told
) -> None:
    control.configure(eggplant_generation=generation)
    (run_id,) = control.add_runs("eggplant", "Returns", age=60, duration=1)
    ended = Task().run(EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id))
    assert ended["verdict"] == "failed"
    assert ended["duration"] == pytest.approx(1, abs=0.1)
    assert f"Run {run_id} has already finished as {ended['raw_state']}: nothing to stop." in told.lines
    assert control.count("eggplant.abort_execution") == 0


def test_an_execution_that_ends_before_the_abort_takes_effect(control: Control, told: Told) -> None:
    # What the server says when it has just ended.
    control.fault("status", operation="eggplant.abort_execution", status=409, times=1)
    (run_id,) = control.add_runs("eggplant", "Returns", duration=60)
    operator = EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id, poll_interval=0.1)
    with when_seen(control, "eggplant.abort_execution", lambda: control.finish_run(run_id, "failed")):
        ended = Task().run(operator)
    assert ended["verdict"] == "failed"
    assert f"Run {run_id} has finished as Failed (failed) before it was stopped." in told.lines


def test_the_wait_for_an_abort_is_bounded(control: Control) -> None:
    control.configure(cancel_seconds=60)
    (run_id,) = control.add_runs("eggplant", "Checkout", duration=60)
    operator = EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id, poll_interval=0.1, timeout=0.5)
    with pytest.raises(RunTimeoutError, match=f"{run_id} was asked to stop and is still Running after 0.5 s"):
        Task().run(operator)


def test_an_execution_that_is_not_listed_yet_is_aborted_all_the_same(control: Control) -> None:
    (run_id,) = control.add_runs("eggplant", "Checkout", duration=60)
    for operation in ("run_progress", "get_execution", "get_ai_execution", "list_runs"):
        control.fault("status", operation=f"eggplant.{operation}", status=404, times=1)
    ended = Task().run(EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id, poll_interval=0.1))
    assert ended["verdict"] == "cancelled"


def test_an_abort_that_is_refused_is_an_error(control: Control) -> None:
    (run_id,) = control.add_runs("eggplant", "Checkout", duration=60)
    control.fault("status", operation="eggplant.abort_execution", status=403)
    with pytest.raises(PermissionDeniedError):
        Task().run(EggplantAbortExecutionOperator(task_id="abort", execution_id=run_id))
    assert going(control, run_id)


def test_what_nobody_shows_was_not_aborted(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_testruns.timing.GRACE", 0.3)
    with pytest.raises(NotFoundError, match=UNKNOWN):
        Task().run(EggplantAbortExecutionOperator(task_id="abort", execution_id=UNKNOWN, poll_interval=0.1))


def test_a_number_of_the_list_of_runs_cannot_be_aborted(control: Control) -> None:
    control.add_runs("eggplant", "Checkout", duration=60)
    with pytest.raises(InvalidRequestError, match="by their UUID"):
        Task().run(EggplantAbortExecutionOperator(task_id="abort", execution_id="1"))
    assert control.count("eggplant.abort_execution") == 0


@pytest.mark.parametrize("execution_id", [None, "", " "])
def test_an_abort_without_an_id_is_refused_before_any_request(control: Control, execution_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="execution_id"):
        Task().run(EggplantAbortExecutionOperator(task_id="abort", execution_id=execution_id))
    assert control.requests() == []


# Watching one run


@pytest.mark.parametrize(
    ("generation", "kind", "mode"),
    [
        *(("full", EggplantExecutionSensor, mode) for mode in MODES),
        *(("full", EggplantRunProgressSensor, mode) for mode in MODES),
        ("progress_only", EggplantRunProgressSensor, "poke"),
        ("executions_get", EggplantRunProgressSensor, "deferrable"),
    ],
)
def test_one_run_is_watched_and_judged(control: Control, generation: str, mode: str, kind: Any) -> None:
    control.configure(eggplant_generation=generation)
    good, bad = (control.add_runs("eggplant", name, duration=0.3)[0] for name in ("Checkout", "Returns"))
    name = "execution_id" if kind is EggplantExecutionSensor else "run_id"
    way: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode, "deferrable": False}
    way |= {"task_id": "watch", "poke_interval": 0.1, "timeout": 600}
    report = Task().run(kind(**{name: good}, **way))
    assert (report["run_id"], report["verdict"]) == (good, "passed")
    task = Task()
    with pytest.raises(RunFailedError):
        task.run(kind(**{name: bad}, **way))
    assert task.xcoms["return_value"]["verdict"] == "failed"
    with pytest.raises(AirflowSkipException):
        Task().run(kind(**{name: bad}, **way, soft_fail=True))


# Watching the runs of a model


@GENERATION_AND_MODE
def test_all_runs_of_a_model_are_watched_and_returned(control: Control, generation: str, mode: str) -> None:
    control.configure(eggplant_generation=generation)
    control.add_runs("eggplant", "Returns", 3, age=30, duration=1)
    older = control.add_runs("eggplant", "Checkout", 2, age=60, duration=1, spacing=5)
    (newer,) = control.add_runs("eggplant", "Checkout", duration=60)
    task = Task()
    asked = "eggplant.run_progress" if generation in WITH_PROGRESS else "eggplant.list_runs"
    with when_seen(control, asked, lambda: control.finish_run(newer), looks=2):
        found = task.run(sensor(mode, model_name="Checkout"))
    if generation in WITH_PROGRESS:
        assert [run["run_id"] for run in found] == [newer, older[1], older[0]]
    else:
        # The list of runs names them by numbers there.
        assert [run["run_id"] for run in found] == ["6", "5", "4"]
    assert {run["verdict"] for run in found} == {"passed"}
    assert all(set(run) >= {"platform", "raw_state", "url", "started_at", "finished_at", "duration"} for run in found)
    assert control.run(newer)["phase"] == "finished"
    assert (task.deferrals, task.reschedules > 0) == (mode == "deferrable", mode == "reschedule")
    assert task.xcoms["run_id"] == "Checkout"


@pytest.mark.parametrize(
    ("mode", "endings", "error", "said"),
    [
        *(
            (
                mode,
                ("passed", "failed", "errored"),
                RunFailedError,
                "Of 3 runs of model Checkout, 1 passed: 1 failed, 1",
            )
            for mode in MODES
        ),
        ("deferrable", ("passed", "errored", "cancelled"), RunErroredError, "1 passed: 1 errored, 1 cancelled"),
        ("poke", ("passed", "passed", "cancelled"), RunCancelledError, "2 passed: 1 cancelled"),
    ],
)
def test_one_run_that_did_not_pass_fails_the_sensor_or_skips_it_in_every_mode(
    control: Control, mode: str, endings: tuple[str, ...], error: type[Exception], said: str
) -> None:
    ids = [
        control.add_runs("eggplant", "Checkout", ending=ending, duration=duration, age=9 - number)[0]
        for number, (ending, duration) in enumerate(zip(endings, (0.1, 0.1, 60), strict=True))
    ]
    for finished in (False, True):
        # Over while it is watched, and over before.
        task = Task()
        end = when_seen(control, "eggplant.run_progress", lambda: control.finish_run(ids[2]), looks=2)
        with nullcontext() if finished else end, pytest.raises(error, match=said) as caught:
            task.run(sensor(mode, model_name="Checkout"))
        assert ids[2] in str(caught.value)
        runs = task.xcoms["return_value"]
        assert [run["run_id"] for run in runs] == ids[::-1]
        assert [run["verdict"] for run in runs] == list(endings[::-1])
        with pytest.raises(AirflowSkipException, match=said):
            Task().run(sensor(mode, model_name="Checkout", soft_fail=True))
        assert task.deferrals == (mode == "deferrable" and not finished)


@MODE
def test_the_gates_are_about_the_runs(control: Control, mode: str, tmp_path: Path) -> None:
    for _ in range(3):
        control.add_runs("eggplant", "Checkout", duration=0.1, age=60)
    errored, cancelled = (
        control.add_runs("eggplant", "Checkout", ending=ending, duration=0.1, age=30)[0]
        for ending in ("errored", "cancelled")
    )
    assert len(Task().run(sensor(mode, model_name="Checkout", min_pass_rate=0.6))) == 5
    with pytest.raises(RunFailedError, match=r"60.0% \(3 of 5\) is below min_pass_rate 70.0%"):
        Task().run(sensor(mode, model_name="Checkout", min_pass_rate=0.7))
    assert len(Task().run(sensor(mode, model_name="Checkout", max_failures=2))) == 5
    with pytest.raises(RunFailedError, match="max_failures is 1"):
        Task().run(sensor(mode, model_name="Checkout", max_failures=1))
    assert (
        len(Task().run(sensor(mode, model_name="Checkout", allowed_failures=[errored, f"Checkout/{cancelled}"]))) == 5
    )
    junit = tmp_path / "runs.xml"
    with pytest.raises(RunCancelledError, match="Of 5 runs of model Checkout, 3 passed: 1 cancelled"):
        Task().run(sensor(mode, model_name="Checkout", allowed_failures=[errored], junit_path=str(junit)))
    assert all(f'<testcase name="{run["run_id"]}"' in junit.read_text() for run in control.runs("eggplant"))


@pytest.mark.parametrize(("generation", "limit"), [("full", 1), *((name, 2) for name in GENERATIONS), ("full", "2")])
def test_a_limit_leaves_out_the_older_runs(control: Control, generation: str, limit: int | str) -> None:
    control.configure(eggplant_generation=generation)
    control.add_runs("eggplant", "Checkout", age=3600, ending="failed", duration=1)
    control.add_runs("eggplant", "Checkout", 2, age=60, duration=1, spacing=5)
    found = Task().run(sensor(model_name="Checkout", limit=limit))
    assert [run["verdict"] for run in found] == ["passed"] * int(limit)
    with pytest.raises(RunFailedError):
        Task().run(sensor(model_name="Checkout"))


def test_a_look_at_a_model_is_one_call(control: Control) -> None:
    control.add_runs("eggplant", "Checkout", 150, age=60, duration=1, spacing=1)
    (newest,) = control.add_runs("eggplant", "Checkout", duration=60)
    with when_seen(control, "eggplant.run_progress", lambda: control.finish_run(newest), looks=3):
        Task().run(sensor("deferrable", model_name="Checkout"))
    asked = [request.operation for request in control.requests()]
    assert set(asked) == {"eggplant.token", "eggplant.run_progress"}


def test_the_log_tells_how_far_the_runs_of_a_model_are(control: Control, told: Told) -> None:
    control.add_runs("eggplant", "Checkout", age=60, duration=1)
    (newest,) = control.add_runs("eggplant", "Checkout", duration=60)
    with when_seen(control, "eggplant.run_progress", lambda: control.finish_run(newest), looks=3):
        Task().run(sensor(model_name="Checkout"))
    told = [line for line in told.lines if line.startswith("Run Checkout is")]
    assert told == [
        "Run Checkout is running (1 Running, 1 Passed, 1/2).",
        "Run Checkout is finished (2 Passed, 2/2).",
    ]


@MODE
def test_a_model_that_is_too_slow_is_a_time_out_and_nothing_is_aborted(control: Control, mode: str) -> None:
    (run_id,) = control.add_runs("eggplant", "Checkout", duration=60)
    with pytest.raises(AirflowSensorTimeout):
        Task().run(sensor(mode, model_name="Checkout", timeout=0.4))
    with pytest.raises(AirflowSkipException):
        Task().run(sensor(mode, model_name="Checkout", timeout=0.4, soft_fail=True))
    assert going(control, run_id)
    assert control.count("eggplant.abort_execution") == 0


@GENERATION_AND_MODE
def test_a_model_without_runs_could_not_be_seen(
    control: Control, generation: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_testruns.timing.GRACE", 0.3)
    control.configure(eggplant_generation=generation)
    with pytest.raises(NotFoundError, match=r"no run of model 'Chekout'\. Check the model's name"):
        Task().run(sensor(mode, model_name="Chekout", soft_fail=True))


def test_a_model_that_the_user_may_not_see(control: Control) -> None:
    with pytest.raises(PermissionDeniedError):
        Task().run(sensor(model_name="Restricted", soft_fail=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Exactly one of run_id and model_name must be given; got none"),
        ({"run_id": UNKNOWN, "model_name": "Checkout"}, "Exactly one of run_id and model_name"),
        ({"run_id": UNKNOWN, "limit": 3}, "limit is only for model_name"),
        ({"model_name": "Checkout", "limit": 0}, "limit must be a whole number, 1 or more"),
        ({"model_name": "Checkout", "limit": "few"}, "limit must be a whole number"),
        ({"model_name": " "}, "model_name must be an id or a name"),
        ({"run_id": ""}, "run_id must be an id or a name"),
    ],
)
def test_arguments_are_checked_before_any_request(control: Control, arguments: dict[str, Any], said: str) -> None:
    for mode in MODES:
        with pytest.raises(ConfigurationError, match=said):
            Task().run(sensor(mode, **arguments))
    assert control.requests() == []


def test_ids_and_paths_are_templated() -> None:
    shared = {"eggplant_conn_id"}
    assert set(EggplantAbortExecutionOperator.template_fields) == {"execution_id"} | shared
    shared |= {"junit_path"}
    assert set(EggplantStartTestConfigurationOperator.template_fields) >= {"test_config_id", "artifacts_path"} | shared
    assert set(EggplantRunProgressSensor.template_fields) >= {"run_id", "model_name", "limit"} | shared
