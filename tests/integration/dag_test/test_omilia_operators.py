"""Omilia's operators in real DAGs: projects from setup to teardown, files, generations, the run's log, and no token."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from airflow.sdk import task

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.omilia import PASSWORD
from tests.harness.pace import DURATION, getting_on_with_polls
from tests.integration.dag_test.running import AirflowProcess, TaskRun

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[3] / "example_dags"
SMOKE = "0a000000-0000-4000-8000-000000000001"
NAMED = 5
#: A Git token that somebody has written into a DAG file.
TOKEN = "canary-of-a-git-token"


@pytest.fixture(scope="module")
def log_of_deferred(airflow: AirflowProcess) -> TaskRun:
    control = airflow.start_anew()
    control.set_target("omilia", SMOKE, duration=DURATION)
    try:
        with getting_on_with_polls(control, "omilia.get_run"):
            return airflow.run(_streaming)["run"]
    finally:
        control.reset()


def _streaming() -> None:
    from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

    OmiliaCreateRunOperator(
        task_id="run",
        project_id="0a000000-0000-4000-8000-000000000001",
        stream_logs=True,
        deferrable=True,
        poll_interval=0.1,
    )


def test_a_deferred_runs_log_is_in_the_tasks_log_line_by_line(log_of_deferred: TaskRun) -> None:
    assert log_of_deferred.state == "success"
    assert log_of_deferred.deferrals == 1
    told = [line for line in log_of_deferred.lines if line.startswith("[")]
    told = [line for line in told if not line.startswith("[DAG TEST]")]
    assert told.count("[Run Test Suites] Starting run of suite with name: balance") == 1
    assert told.count("[Clone Repository] Task completed successfully") == 1
    assert sum("balance_savings : success [" in line for line in told) == 1
    assert sum("Test cases run: 4, passed: 4" in line for line in told) == 1
    assert told.count("[Aggregate Results] Saving artifacts .zip file") == 1
    assert len(told) == len(set(told))
    # Some in the triggerer, the rest afterwards.
    at = log_of_deferred.lines.index("[DAG TEST] running trigger in line")
    end = next(n for n, line in enumerate(log_of_deferred.lines) if line.startswith("Result of run"))
    assert at < log_of_deferred.lines.index("[Run Test Suites] Starting run of suite with name: card_block") < end


def _everything(folder: str) -> None:
    from airflow_provider_testruns.operators.omilia import (
        OmiliaCreateGenerationOperator,
        OmiliaCreateProjectOperator,
        OmiliaCreateRunOperator,
        OmiliaDeleteProjectOperator,
        OmiliaDownloadGenerationArtifactOperator,
        OmiliaDownloadRunArtifactOperator,
        OmiliaDownloadTestSuitesOperator,
        OmiliaGenerateGoldenDialogOperator,
        OmiliaRevokeRunOperator,
        OmiliaUpdateProjectOperator,
        OmiliaUploadTestSuitesOperator,
    )
    from airflow_provider_testruns.sensors.omilia import OmiliaGenerationSensor

    create = OmiliaCreateProjectOperator(
        task_id="create",
        name="nightly {{ dag_run.dag_id }}",
        group="qa",
        url="https://git.example.com/voice.git",
        git_token="{{ conn.omilia_default.password }}",
        git_provider="gitlab",
    )
    project_id = create.output["project_id"]
    # To S3 storage, so that it can be uploaded to.
    update = OmiliaUpdateProjectOperator(task_id="update", project_id=project_id, name="nightly-s3", group="qa")
    upload = OmiliaUploadTestSuitesOperator(
        task_id="upload", project_id=project_id, path="{{ params.folder }}/suites", params={"folder": folder}
    )
    download = OmiliaDownloadTestSuitesOperator(
        task_id="download", project_id=project_id, path="{{ params.folder }}/back/", params={"folder": folder}
    )
    run = OmiliaCreateRunOperator(task_id="run", project_id=project_id, wait_for_completion=False)
    revoke = OmiliaRevokeRunOperator(task_id="revoke", run_id=run.output["run_id"], poll_interval=0.1)
    again = OmiliaCreateRunOperator(task_id="again", project_id=project_id, deferrable=True, poll_interval=0.1)
    artifact = OmiliaDownloadRunArtifactOperator(
        task_id="artifact", run_id=again.output["run_id"], path=f"file://{folder}/run/results.zip"
    )

    @task
    def dialog(of_run: str) -> str:
        from airflow_provider_testruns.hooks.omilia import OmiliaHook

        return str(OmiliaHook().list_run_test_cases(of_run)[0]["goldenDialogId"])

    golden = OmiliaGenerateGoldenDialogOperator(
        task_id="golden", dialog_id=dialog(again.output["run_id"]), path=f"{folder}/golden.json"
    )
    generate = OmiliaCreateGenerationOperator(
        task_id="generate", project_id=project_id, test_suite="balance", wait_for_completion=False
    )
    wait = OmiliaGenerationSensor(
        task_id="wait",
        generation_id=generate.output["run_id"],
        project_id=project_id,
        deferrable=True,
        poke_interval=0.1,
    )
    cases = OmiliaDownloadGenerationArtifactOperator(
        task_id="cases", generation_id=generate.output["run_id"], path=f"{folder}/generated/"
    )
    whole = OmiliaCreateGenerationOperator(
        task_id="whole",
        project_id=project_id,
        overwrite=True,
        artifacts_path="{{ params.folder }}/whole",
        params={"folder": folder},
        deferrable=True,
        poll_interval=0.1,
    )
    delete = OmiliaDeleteProjectOperator(task_id="delete", project_id=project_id)
    create >> update >> upload >> download >> run >> revoke >> again >> artifact >> golden
    golden >> generate >> wait >> cases >> whole >> delete
    delete.as_teardown(setups=create)


def test_a_project_from_its_creation_to_its_end(airflow: AirflowProcess, platforms: Control, tmp_path: Path) -> None:
    (tmp_path / "suites" / "tests").mkdir(parents=True)
    (tmp_path / "suites" / "tests" / "a.yml").write_text("name: a")
    # Long enough to be going still when a slow machine takes its first look.
    platforms.configure(run_seconds=3.0)
    platforms.plan_next("omilia", duration=60.0)
    tasks = airflow.run(_everything, folder=str(tmp_path))
    assert [(name, done.errors) for name, done in tasks.items() if done.state != "success"] == []
    assert len(tasks) == 15

    created = tasks["create"].result
    assert (created["name"].split()[0], created["gitStorage"]) == ("nightly", True)
    assert created["id"] == tasks["create"].xcoms["project_id"]
    assert created["gitProvider"] == "gitlab"
    assert tasks["create"].rendered["name"] == created["name"]
    assert (tasks["update"].result["name"], tasks["update"].result["s3Storage"]) == ("nightly-s3", True)
    assert tasks["download"].xcoms["return_value"] == str(tmp_path / "back" / f"{created['id']}_suites.zip")
    with zipfile.ZipFile(tasks["download"].xcoms["return_value"]) as archive:
        assert archive.namelist() == ["tests/a.yml"]

    revoked = tasks["revoke"].result
    assert (revoked["verdict"], revoked["raw_state"]) == ("cancelled", "REVOKED")
    assert revoked["run_id"] == tasks["run"].result["run_id"]
    assert tasks["again"].result["verdict"] == "passed"
    assert zipfile.is_zipfile(tmp_path / "run" / "results.zip")
    assert json.loads((tmp_path / "golden.json").read_text())["steps"]

    assert tasks["wait"].result["verdict"] == "passed"
    assert tasks["wait"].result["run_id"] == tasks["generate"].result["run_id"]
    assert tasks["wait"].deferrals == 1
    with zipfile.ZipFile(tasks["cases"].xcoms["return_value"]) as archive:
        assert {name.split("/")[1] for name in archive.namelist() if "/" in name} == {"balance"}
    (whole,) = tasks["whole"].xcoms["artifacts"]
    assert Path(whole) == tmp_path / "whole" / f"{tasks['whole'].result['run_id']}_artifacts.zip"
    assert tasks["whole"].result["verdict"] == "passed"
    assert len([target for target in platforms.targets() if target["platform"] == "omilia"]) == NAMED


def test_the_git_token_is_nowhere_in_airflow(airflow: AirflowProcess, platforms: Control, tmp_path: Path) -> None:
    """As a template, and written into the DAG file, where only the file itself has it."""
    tasks = airflow.run(_with_tokens)
    assert tasks["good"].state == "success"
    assert tasks["literal"].error.kind == "InvalidRequestError"
    assert tasks["half"].error.kind == "ConfigurationError"
    assert tasks["half"].error.message.startswith("git_provider must be given too")
    assert {request.status for request in platforms.requests("omilia.create_project")} == {200, 400}
    assert "git_token" not in tasks["good"].rendered
    written = json.dumps([[done.xcoms, done.rendered, done.lines, repr(done.errors)] for done in tasks.values()])
    for token in (TOKEN, PASSWORD):
        assert token not in written
    for name, text in airflow.tables().items():
        # The DAG file is stored as it is.
        assert name == "dag_code" or TOKEN not in text, name
        assert PASSWORD not in text, name


def _with_tokens() -> None:
    from airflow_provider_testruns.operators.omilia import OmiliaCreateProjectOperator

    shared = {"name": "n", "group": "qa", "url": "https://git.example.com/voice.git"}
    OmiliaCreateProjectOperator(
        task_id="good", git_token="{{ conn.omilia_default.password }}", git_provider="gitlab", **shared
    )
    OmiliaCreateProjectOperator(
        task_id="literal", git_token="canary-of-a-git-token", git_provider="gitlab", **{**shared, "group": "strangers"}
    )
    OmiliaCreateProjectOperator(task_id="half", git_token="canary-of-a-git-token", **shared)


@pytest.fixture
def example() -> str:
    return (EXAMPLES / "example_omilia_ci.py").read_text()


def test_the_ci_example_passes_and_leaves_no_project(
    airflow: AirflowProcess, platforms: Control, example: str, tmp_path: Path
) -> None:
    source = example.replace('f"{tempfile.gettempdir()}/testruns-ci/"', repr(f"{tmp_path}/out/"))
    tasks = airflow.run_file(source.replace("poll_interval=5", "poll_interval=0.1"), "example_omilia_ci")
    assert {name: done.state for name, done in tasks.items()} == dict.fromkeys(tasks, "success")
    assert tasks["list_failed_cases"].xcoms["return_value"] == 0
    (artifact,) = (tmp_path / "out").iterdir()
    assert artifact.name == f"{tasks['run_suites'].result['run_id']}_artifacts.zip"
    assert platforms.count("omilia.upload_suites") == platforms.count("omilia.delete_project") == 1


def test_the_ci_example_lists_what_failed_and_leaves_no_project(
    airflow: AirflowProcess, platforms: Control, example: str, tmp_path: Path
) -> None:
    source = example.replace('f"{tempfile.gettempdir()}/testruns-ci/"', repr(f"{tmp_path}/out/"))
    source = source.replace('"ci-smoke"', '"ci-failing"').replace("poll_interval=5", "poll_interval=0.1")
    tasks = airflow.run_file(source, "example_omilia_ci")
    states = {name: done.state for name, done in tasks.items()}
    assert (states.pop("run_suites"), states.pop("release")) == ("failed", "upstream_failed")
    assert states == dict.fromkeys(states, "success")
    assert tasks["run_suites"].error.kind == "AirflowFailException"
    said = tasks["list_failed_cases"].log
    assert "transfer_above_limit did not pass:" in said
    assert "expected 'The caller is told the result of transfer_above_limit', found 'I am sorry, I did not" in said
    assert "Voice application did not answer within 10 seconds" in said
    assert tasks["list_failed_cases"].xcoms["return_value"] == 3
    assert list((tmp_path / "out").iterdir())
    assert len([target for target in platforms.targets() if target["platform"] == "omilia"]) == NAMED
