"""Results in real DAGs: JUnit files, gates, asset events and OpenLineage events, whatever becomes of the task."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from airflow.sdk import task

from airflow_provider_testruns.operators.eggplant import EggplantStartExecutionOperator
from airflow_provider_testruns.operators.futureagi import FutureAGIExecuteTestRunOperator
from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from tests.harness.database import migrated_database
from tests.integration.dag_test.running import AirflowProcess, TaskRun, in_step
from tests.unit.junit_files import outcomes_of_two_readers, properties, sums, violations

pytestmark = pytest.mark.integration

MODES = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])


class AirflowWithLineage(AirflowProcess):
    """One whose OpenLineage provider writes its events to a file."""

    lineage: Path

    def events(self, task_id: str, kind: str) -> list[dict[str, Any]]:
        """The events of a task, of one kind."""
        found = []
        for line in self.lineage.read_text().splitlines():
            event = json.loads(line)
            if event["eventType"] == kind and event["job"]["name"].endswith(f".{task_id}"):
                found.append(event)
        return found

    def asset_events(self) -> dict[str, list[dict[str, Any]]]:
        """What the events of each asset tell, by its name."""
        found: dict[str, list[dict[str, Any]]] = {}
        with closing(sqlite3.connect(self.database)) as connection:
            statement = "SELECT asset.name, asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_id"
            for name, extra in connection.execute(statement):
                found.setdefault(name, []).append(json.loads(extra))
        return found


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowWithLineage]:
    """An Airflow of this module's own."""
    home = tmp_path_factory.mktemp("airflow")
    lineage = tmp_path_factory.mktemp("lineage") / "events.jsonl"
    with pytest.MonkeyPatch.context() as patch, SandboxServer() as sandbox:
        patch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
        patch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(lineage))
        patch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
        process = AirflowWithLineage(home, sandbox, migrated_database())
        process.lineage = lineage
        try:
            yield process
        finally:
            process.close()


def checked(file: Path) -> ElementTree.Element:
    """A JUnit file that is as it should be."""
    root = ElementTree.parse(file).getroot()
    assert violations(root) == []
    assert sums(root) == []
    return root


def every_platform(deferrable: bool, folder: str) -> None:
    from airflow.sdk import Asset

    for number, name in enumerate(("passed", "failed", "errored"), start=1):
        shared = {
            "deferrable": deferrable,
            "poll_interval": 0.1,
            "junit_path": folder + "/{{ ti.task_id }}/",
        }
        EggplantStartExecutionOperator(
            task_id=f"eggplant_{name}",
            model_id=f"e0000000-0000-4000-8000-00000000000{number}",
            outlets=[Asset(f"eggplant_{name}_{deferrable}")],
            **shared,
        )
        FutureAGIExecuteTestRunOperator(
            task_id=f"futureagi_{name}",
            run_test_id=f"fa000000-0000-4000-8000-00000000000{number}",
            select_all=True,
            outlets=[Asset(f"futureagi_{name}_{deferrable}")],
            **shared,
        )
        OmiliaCreateRunOperator(
            task_id=f"omilia_{name}",
            project_id=f"0a000000-0000-4000-8000-00000000000{number}",
            outlets=[Asset(f"omilia_{name}_{deferrable}")],
            **shared,
        )


@pytest.fixture(scope="module", params=[True, False], ids=["deferrable", "in place"])
def everything(
    request: pytest.FixtureRequest, airflow: AirflowWithLineage, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, Path, dict[str, TaskRun]]:
    """The DAG of :func:`every_platform`, and the folder of its files."""
    airflow.start_anew()
    folder = tmp_path_factory.mktemp("junit")
    return request.param, folder, airflow.run(every_platform, deferrable=request.param, folder=str(folder))


def test_every_run_has_a_file_whatever_its_verdict(everything: tuple[bool, Path, dict[str, TaskRun]]) -> None:
    deferrable, folder, tasks = everything
    assert len(tasks) == 9
    for task_id, done in tasks.items():
        platform, verdict = task_id.split("_")
        assert done.state == ("success" if verdict == "passed" else "failed"), task_id
        assert done.deferrals == deferrable
        assert done.result["verdict"] == verdict
        file = folder / task_id / f"{platform}-{done.result['run_id']}.xml"
        assert done.result["junit_path"] == str(file)
        root = checked(file)
        bad = int(root.attrib["failures"]), int(root.attrib["errors"])
        assert (bad == (0, 0)) is (verdict == "passed")
        assert (bad[1] > 0) is (verdict == "errored")
        assert set(outcomes_of_two_readers(file).values()) & {"failure", "error"} or verdict == "passed"
        said = properties(file)
        assert said["platform"] == [platform]
        assert said["run_id"] == [done.result["run_id"]]
        assert said["verdict"] == [verdict]
        assert said.get("url", [""]) == [done.result["url"]]
        assert said["airflow.task_id"] == [task_id]
        assert said["airflow.dag_id"][0].startswith("every_platform_")
        assert said["airflow.run_id"]
        assert said["airflow.try_number"] == ["1"]
        if verdict != "passed":
            assert f"The full report: {file}" in done.error.message


def test_a_files_cases_are_the_platforms(everything: tuple[bool, Path, dict[str, TaskRun]]) -> None:
    _, _, tasks = everything
    file = Path(tasks["omilia_failed"].result["junit_path"])
    found = outcomes_of_two_readers(file)
    assert len(found) == 9
    assert sorted(name for name, outcome in found.items() if outcome == "failure") == [
        "balance_joint_account",
        "transfer_above_limit",
    ]
    assert [name for name, outcome in found.items() if outcome == "skipped"] == ["block_then_replace"]
    results = {case.get("name"): case[0] for case in checked(file).iter("testcase") if len(case)}
    assert (results["balance_joint_account"].get("message") or "").startswith("step 3")
    assert results["block_then_replace"].get("type") == "unavailable"
    assert results["block_then_replace"].text
    assert properties(file)["context.project_id"] == ["0a000000-0000-4000-8000-000000000002"]


def test_assets_of_runs_that_passed_carry_the_result(
    airflow: AirflowWithLineage, everything: tuple[bool, Path, dict[str, TaskRun]]
) -> None:
    deferrable, _, tasks = everything
    found = airflow.asset_events()
    for platform in ("eggplant", "futureagi", "omilia"):
        result = tasks[f"{platform}_passed"].result
        names = ("platform", "run_id", "url", "raw_state", "verdict", "total", "passed", "failed", "unavailable")
        expected = {name: result[name] for name in (*names, "not_run", "pass_rate")}
        assert found[f"{platform}_passed_{deferrable}"] == [{**expected, "state": "finished"}]
        for verdict in ("failed", "errored"):
            assert f"{platform}_{verdict}_{deferrable}" not in found


def test_openlineage_events_have_the_test_facet(
    airflow: AirflowWithLineage, everything: tuple[bool, Path, dict[str, TaskRun]]
) -> None:
    _, _, tasks = everything
    for task_id, done in tasks.items():
        platform, verdict = task_id.split("_")
        events = airflow.events(task_id, "COMPLETE" if verdict == "passed" else "FAIL")
        facet = events[-1]["run"]["facets"]["test"]
        assert facet["_schemaURL"].endswith("TestRunFacet.json#/$defs/TestRunFacet")
        run, *cases = facet["tests"]
        assert run["name"] == done.result["run_id"]
        assert run["type"] == f"{platform}.run"
        assert (run["status"], run["actual"]) == ("pass" if verdict == "passed" else "fail", verdict)
        assert run["params"].get("url", "") == done.result["url"]
        assert run["params"].get("passed") == done.result["passed"]
        statuses = [case["status"] for case in cases]
        if len(cases) == done.result["total"]:
            assert statuses.count("pass") == done.result["passed"]
            assert statuses.count("fail") == done.result["failed"] + done.result["unavailable"]
        # No event says so before there is a result.
        assert all("test" not in event["run"]["facets"] for event in airflow.events(task_id, "START"))
    cases = airflow.events("omilia_failed", "FAIL")[-1]["run"]["facets"]["test"]["tests"][1:]
    assert [case["name"] for case in cases if case["status"] == "fail"] == [
        "balance_joint_account",
        "transfer_above_limit",
        "block_then_replace",
    ]
    assert {case["type"] for case in cases} == {"omilia.case"}


def watched(deferrable: bool, folder: str) -> None:
    from airflow.sdk import Asset

    shared = {
        "run_id": "{{ ti.xcom_pull(task_ids='start')['run_id'] }}",
        "project_id": "0a000000-0000-4000-8000-000000000002",
        "deferrable": deferrable,
        "poke_interval": 0.1,
        "junit_path": folder + "/{{ ti.task_id }}.xml",
    }
    start = OmiliaCreateRunOperator(
        task_id="start",
        project_id="0a000000-0000-4000-8000-000000000002",
        wait_for_completion=False,
        outlets=[Asset(f"started_{deferrable}")],
    )
    start >> OmiliaRunSensor(task_id="fails", **shared)
    start >> OmiliaRunSensor(task_id="skips", soft_fail=True, **shared)
    start >> OmiliaRunSensor(
        task_id="passes",
        allowed_failures=["{{ 'balance' }}_*", "transfer_above_limit", "block_then_replace"],
        outlets=[Asset(f"watched_{deferrable}")],
        **shared,
    )
    start >> OmiliaRunSensor(task_id="enough", max_failures=3, **shared)
    start >> OmiliaRunSensor(task_id="too_many", max_failures=2, **shared)
    # A file stands where a folder would have to be.
    nowhere = {**shared, "junit_path": folder + "/passes.xml/{{ ti.task_id }}.xml"}
    start >> OmiliaRunSensor(task_id="unwritten", max_failures=3, soft_fail=True, **nowhere)


@MODES
def test_sensors_do_the_same(airflow: AirflowWithLineage, platforms: Control, deferrable: bool, tmp_path: Path) -> None:
    (tmp_path / "passes.xml").write_text("of the run before")
    tasks = airflow.run(watched, deferrable=deferrable, folder=str(tmp_path))
    assert {name: done.state for name, done in tasks.items()} == {
        "start": "success",
        "fails": "failed",
        "skips": "skipped",
        "passes": "success",
        "enough": "success",
        "too_many": "failed",
        # That a file could not be written is no verdict: soft_fail does not hide it.
        "unwritten": "failed",
    }
    failing = {"balance_joint_account", "transfer_above_limit", "block_then_replace"}
    for name in ("fails", "skips", "passes", "enough", "too_many"):
        checked(tmp_path / f"{name}.xml")
        found = outcomes_of_two_readers(tmp_path / f"{name}.xml")
        assert {case for case, outcome in found.items() if outcome != "passed"} == failing
        assert ("failure" in found.values()) is (name != "passes")
        assert tasks[name].result["junit_path"] == str(tmp_path / f"{name}.xml")
    assert properties(tmp_path / "skips.xml")["verdict"] == ["failed"]
    assert properties(tmp_path / "enough.xml")["verdict"] == ["passed"]
    assert {case["name"] for case in tasks["passes"].result["allowed_failures"]} == failing
    assert tasks["passes"].result["failures"] == []
    assert "note: Allowed to fail, and did not pass: " in tasks["passes"].log
    assert tasks["too_many"].result["reasons"] == [
        "2 failed and 1 unavailable of 9 test cases: max_failures is 2.",
    ]
    assert tasks["unwritten"].error.kind == "ReportNotWrittenError"
    assert tasks["unwritten"].result["verdict"] == "passed"
    events = airflow.asset_events()
    assert events[f"watched_{deferrable}"][0]["run_id"] == tasks["start"].result["run_id"]
    assert events[f"watched_{deferrable}"][0]["verdict"] == "passed"
    assert events[f"started_{deferrable}"] == [
        {
            "platform": "omilia",
            "run_id": tasks["start"].result["run_id"],
            "url": tasks["start"].result["run_url"],
            "state": events[f"started_{deferrable}"][0]["state"],
            "raw_state": events[f"started_{deferrable}"][0]["raw_state"],
        }
    ]
    for name, kind in (("passes", "COMPLETE"), ("fails", "FAIL")):
        cases = airflow.events(name, kind)[-1]["run"]["facets"]["test"]["tests"][1:]
        bad = {case["name"]: case["severity"] for case in cases if case["status"] == "fail"}
        assert bad == dict.fromkeys(failing, "warn" if name == "passes" else "error")


def without_a_verdict(deferrable: bool, folder: str) -> None:
    shared = {
        "project_id": "0a000000-0000-4000-8000-000000000001",
        "deferrable": deferrable,
        "poll_interval": 0.1,
        "junit_path": folder + "/{{ ti.task_id }}.xml",
    }
    OmiliaCreateRunOperator(task_id="not_let_in", omilia_conn_id="wrong_password", **shared)
    OmiliaCreateRunOperator(task_id="too_slow", timeout=600, **shared)
    OmiliaRunSensor(
        task_id="gone",
        run_id="{{ 'c0000000-0000-4000-8000-00000000000c' }}",
        project_id="0a000000-0000-4000-8000-000000000001",
        deferrable=deferrable,
        poke_interval=0.1,
        timeout=1,
        junit_path=folder + "/{{ ti.task_id }}.xml",
    )
    if not deferrable:
        # Airflow's own alarm, in the middle of anything.
        elsewhere = {**shared, "project_id": "0a000000-0000-4000-8000-000000000002"}
        OmiliaCreateRunOperator(task_id="cut_off", execution_timeout=timedelta(seconds=600), **elsewhere)
    OmiliaCreateRunOperator(task_id="bad_argument", allowed_failures="['a']", **shared)
    OmiliaCreateRunOperator(task_id="bad_place", **{**shared, "junit_path": "nowhere://reports/{{ ti.task_id }}.xml"})


@MODES
def test_a_task_without_a_verdict_leaves_no_older_file_in_place(
    airflow: AirflowWithLineage, platforms: Control, deferrable: bool, tmp_path: Path
) -> None:
    platforms.configure(run_seconds=float("inf"))
    for name in ("not_let_in", "too_slow", "gone", "bad_argument"):
        (tmp_path / f"{name}.xml").write_text("of the run before")

    def polled(number: int) -> bool:
        project = f"0a000000-0000-4000-8000-00000000000{number}"
        runs = [run["run_id"] for run in platforms.runs("omilia") if run["target_id"] == project]
        return bool(runs) and sum(runs[0] in asked.path for asked in platforms.requests("omilia.get_run")) > 2

    with in_step((lambda: polled(1), lambda: airflow.pass_time(600))), ExitStack() as stack:
        if not deferrable:
            stack.enter_context(in_step((lambda: polled(2), airflow.alarm)))
        tasks = airflow.run(without_a_verdict, deferrable=deferrable, folder=str(tmp_path))
    expected = {
        "not_let_in": "AuthenticationError",
        "too_slow": "RunTimeoutError",
        "gone": "AirflowSensorTimeout",
        "bad_argument": "ConfigurationError",
    }
    if not deferrable:
        expected["cut_off"] = "AirflowTaskTimeout"
    for name, kind in expected.items():
        assert tasks[name].state == "failed"
        assert tasks[name].error.kind == kind
        root = checked(tmp_path / f"{name}.xml")
        assert (root.get("tests"), root.get("errors")) == ("1", "1")
        error = next(root.iter("error"))
        assert error.get("type") == kind
        assert error.text == tasks[name].error.message
        assert properties(tmp_path / f"{name}.xml")["verdict"] == ["unknown"]
        assert "return_value" not in tasks[name].xcoms
        events = airflow.events(name, "FAIL")
        assert events
        assert all("test" not in event["run"]["facets"] for event in events)
    assert properties(tmp_path / "too_slow.xml")["run_id"] == [tasks["too_slow"].xcoms["run_id"]]
    assert tasks["bad_place"].error.kind == "ConfigurationError"
    assert "junit_path: nothing can be written to 'nowhere://" in tasks["bad_place"].error.message
    # Nothing was started for arguments that can't be right.
    assert platforms.count("omilia.create_run") == (1 if deferrable else 2)


def unwritable(folder: str) -> None:
    from pathlib import Path

    class Blocked(OmiliaCreateRunOperator):
        """After the places were tried, and before the start, a file is put where a folder would have to be."""

        def start_arguments(self) -> dict[str, Any]:
            Path(folder, self.task_id).write_text("")
            return super().start_arguments()

    shared = {"deferrable": False, "poll_interval": 0.1}
    Blocked(
        task_id="passes_later",
        project_id="0a000000-0000-4000-8000-000000000001",
        junit_path=folder + "/{{ 'passes_later/' if ti.try_number == 1 else '' }}report.xml",
        retries=1,
        retry_delay=0,
        **shared,
    )
    fails = Blocked(
        task_id="fails",
        project_id="0a000000-0000-4000-8000-000000000002",
        junit_path=folder + "/fails/report.xml",
        **shared,
    )
    fails >> OmiliaCreateRunOperator(
        task_id="not_started",
        project_id="0a000000-0000-4000-8000-000000000002",
        junit_path=folder + "/fails/report.xml",
        trigger_rule="all_done",
        **shared,
    )
    OmiliaCreateRunOperator(
        task_id="not_set",
        project_id="0a000000-0000-4000-8000-000000000002",
        artifacts_path="{{ dag_run.conf.get('a parameter that nobody has set') }}",
        **shared,
    )


def test_a_file_that_can_not_be_written_changes_no_verdict(
    airflow: AirflowWithLineage, platforms: Control, tmp_path: Path
) -> None:
    tasks = airflow.run(unwritable, folder=str(tmp_path))
    passes = tasks["passes_later"]
    assert (passes.state, passes.tries) == ("success", 2), passes.errors
    assert passes.error.kind == "ReportNotWrittenError"
    run_id = passes.result["run_id"]
    assert passes.error.message.startswith(
        f"Run {run_id} passed. The JUnit report could not be written to {tmp_path}/passes_later/report.xml: "
    )
    checked(tmp_path / "report.xml")
    assert properties(tmp_path / "report.xml")["airflow.try_number"] == ["2"]
    fails = tasks["fails"]
    assert fails.error.kind == "RunFailedError"
    assert "2 failed and 1 unavailable of 9 test cases." in fails.error.message
    assert f"The JUnit report could not be written to {tmp_path}/fails/report.xml: " in fails.error.message
    assert fails.result["verdict"] == "failed"
    assert fails.result["junit_path"] is None
    # What can be found out before a run is paid for is.
    for name, said in (
        ("not_started", "junit_path: nothing can be written to"),
        ("not_set", "artifacts_path is 'None'"),
    ):
        assert tasks[name].error.kind == "ConfigurationError"
        assert tasks[name].error.message.startswith(said)
    # The second try of the one that passed went on with its run.
    assert platforms.count("omilia.create_run") == 2
    assert not list(tmp_path.glob(".*"))


def in_an_object_storage() -> None:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    run = OmiliaCreateRunOperator.partial(
        task_id="run", junit_path="memory://reports/{{ ti.map_index }}.xml", deferrable=False, poll_interval=0.1
    ).expand(project_id=[f"0a000000-0000-4000-8000-00000000000{number}" for number in (1, 5)])

    @task
    def read(reports: Any) -> list[str]:
        return [ObjectStoragePath(report["junit_path"]).read_text() for report in reports]

    read(run.output)


def test_files_of_mapped_tasks_in_an_object_storage(airflow: AirflowWithLineage, platforms: Control) -> None:
    tasks = airflow.run(in_an_object_storage)
    assert tasks["read"].state == "success"
    for index, text in enumerate(tasks["read"].xcoms["return_value"]):
        result = tasks[f"run[{index}]"].result
        assert result["junit_path"] == f"memory://reports/{index}.xml"
        root = ElementTree.fromstring(text.encode())
        assert violations(root) == []
        found = {each.get("name"): each.get("value") for each in root.iter("property")}
        assert (found["run_id"], found["airflow.map_index"]) == (result["run_id"], str(index))
