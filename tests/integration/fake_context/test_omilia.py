"""The operators and sensors for Omilia Testing Studio against the sandbox, driven as Airflow drives them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_testruns.exceptions import (
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    RunCancelledError,
    RunErroredError,
    RunFailedError,
    RunTimeoutError,
    ServerError,
    StartOutcomeUnknownError,
    TransportError,
)
from airflow_provider_testruns.hooks.omilia import OmiliaHook
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
from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.omilia import STATIC_BEARER
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.sensors.omilia import OmiliaGenerationSensor, OmiliaRunSensor
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.harness.pace import DURATION, getting_on_with_polls
from tests.harness.waiting import WITHIN
from tests.integration.fake_context.tasks import Task, Told, first_event

pytestmark = pytest.mark.integration

SMOKE, REGRESSION, BROKEN, EMPTY, GIT = (f"0a000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))
NOBODY = "0a000000-0000-4000-8000-0000deadbeef"
TOKEN = "canary-of-a-git-token"
DEFERRABLE = pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "in place"])


@pytest.fixture
def hook(control: Control) -> Iterator[OmiliaHook]:
    hook = OmiliaHook()
    yield hook
    hook.close()


def run_suites(**arguments: Any) -> OmiliaCreateRunOperator:
    return OmiliaCreateRunOperator(
        task_id="run", **{"project_id": SMOKE, "poll_interval": 0.1, "timeout": 600, **arguments}
    )


def generate(**arguments: Any) -> OmiliaCreateGenerationOperator:
    return OmiliaCreateGenerationOperator(
        task_id="generate", **{"project_id": SMOKE, "poll_interval": 0.1, "timeout": 600, **arguments}
    )


def finished(hook: OmiliaHook, kind: str = "run", project_id: str = SMOKE) -> str:
    """The id of a run or generation that is over."""
    run = hook.start_run(project_id=project_id, kind=kind)
    until = time.monotonic() + WITHIN
    while not hook.get_run(run.run_id, **run.ids).final:
        assert time.monotonic() < until
        time.sleep(0.05)
    return run.run_id


# The run's log


def whole_log(hook: OmiliaHook, run_id: str) -> list[str]:
    return sorted(f"[{section}] {text}" for section, text in hook.get_run_logs(run_id))


@DEFERRABLE
def test_the_log_is_told_while_the_run_goes_each_line_once(
    control: Control, hook: OmiliaHook, told: Told, deferrable: bool
) -> None:
    control.set_target("omilia", SMOKE, duration=DURATION)
    with getting_on_with_polls(control, "omilia.get_run"):
        report = Task().run(run_suites(stream_logs=True, deferrable=deferrable))
    lines = told.of_the_run
    assert sorted(lines) == whole_log(hook, report["run_id"])
    assert len(lines) > 12
    # It came bit by bit, between the looks at the run.
    places = [
        told.text.index(part)
        for part in ("Starting run of suite", "(STARTED, 3/4)", "Saving artifacts", "Result of run")
    ]
    assert places == sorted(places)
    assert control.count("omilia.run_logs") > 3


@DEFERRABLE
def test_without_stream_logs_no_log_is_asked_for(control: Control, told: Told, deferrable: bool) -> None:
    task = Task()
    task.run(run_suites(deferrable=deferrable))
    assert control.count("omilia.run_logs") == 0
    assert told.of_the_run == []
    assert all("log_told" not in event for event in task.events)


def test_the_event_says_how_far_the_log_was_told(control: Control, hook: OmiliaHook, told: Told) -> None:
    control.set_target("omilia", SMOKE, duration=DURATION)
    task = Task()
    with getting_on_with_polls(control, "omilia.get_run"):
        report = task.run(run_suites(stream_logs=True, deferrable=True))
    (event,) = task.events
    assert event["log_told"]
    assert len(event["log_told"]) % 8 == 0
    assert len(event["log_told"]) <= 8 * len(whole_log(hook, report["run_id"]))
    # On a worker that goes on with another event, all is told that is not in it.
    before = len(told.of_the_run)
    run_suites(stream_logs=True).execute_complete(task.context, {**event, "log_told": event["log_told"][:-24]})
    assert len(told.of_the_run) == before + 3 + (len(whole_log(hook, report["run_id"])) - len(event["log_told"]) // 8)


@DEFERRABLE
def test_a_log_that_cannot_be_had_changes_nothing(control: Control, told: Told, deferrable: bool) -> None:
    control.set_target("omilia", SMOKE, duration=DURATION)
    control.fault("status", operation="omilia.run_logs", status=403)
    with getting_on_with_polls(control, "omilia.get_run"):
        report = Task().run(run_suites(stream_logs=True, deferrable=deferrable))
    assert report["verdict"] == "passed"
    assert told.of_the_run == []
    # Once for each process, not for each look.
    assert told.text.count("The run's log is not available.") == (3 if deferrable else 1)


@DEFERRABLE
def test_a_log_that_breaks_off_goes_on_where_it_was(
    control: Control, hook: OmiliaHook, told: Told, deferrable: bool
) -> None:
    control.set_target("omilia", SMOKE, duration=DURATION)
    control.fault("status", operation="omilia.run_logs", status=503, skip=2, times=3)
    with getting_on_with_polls(control, "omilia.get_run"):
        report = Task().run(run_suites(stream_logs=True, deferrable=deferrable))
    assert sorted(told.of_the_run) == whole_log(hook, report["run_id"])


def test_the_log_of_a_run_that_fails_or_is_cut_off_is_told(control: Control, told: Told) -> None:
    with pytest.raises(RunErroredError):
        Task().run(run_suites(project_id=BROKEN, stream_logs=True))
    assert told.of_the_run.count("[Clone Repository] fatal: could not read from the remote repository") == 1
    control.set_target("omilia", REGRESSION, duration=60.0)
    with pytest.raises(RunTimeoutError):
        Task().run(run_suites(project_id=REGRESSION, stream_logs=True, timeout=0.5))
    assert told.of_the_run.count("[Run Test Suites] Starting run of suite with name: greeting") == 1


def test_a_row_of_an_older_version_still_makes_a_trigger(control: Control, hook: OmiliaHook) -> None:
    run = hook.create_run(SMOKE)
    trigger = RunTrigger("omilia", "omilia_default", run.to_dict(), time.time() + 600, 0.1, True)
    _, kwargs = trigger.serialize()
    assert "log_told" not in kwargs
    assert asyncio.run(first_event(RunTrigger(**kwargs)))["status"] == "finished"
    assert control.count("omilia.run_logs") == 0


# Verdicts


@DEFERRABLE
@pytest.mark.parametrize(
    ("project_id", "error"),
    [(SMOKE, None), (REGRESSION, RunFailedError), (BROKEN, RunErroredError), (EMPTY, RunFailedError)],
)
def test_verdicts(control: Control, project_id: str, error: type[Exception] | None, deferrable: bool) -> None:
    task, operator = Task(), run_suites(project_id=project_id, deferrable=deferrable)
    if error is None:
        assert task.run(operator)["verdict"] == "passed"
        return
    with pytest.raises(error):
        task.run(operator)
    verdict = "errored" if error is RunErroredError else "failed"
    assert task.xcoms["return_value"]["verdict"] == verdict


@DEFERRABLE
def test_tries_delays_and_dialogs_are_in_report_and_file(
    control: Control, hook: OmiliaHook, tmp_path: Path, deferrable: bool
) -> None:
    control.create_project("several tries", ending="passed", id="0a000000-0000-4000-8000-0000000f1a41", tries=3)
    report = Task().run(run_suites(project_id="0a000000-0000-4000-8000-0000000f1a41", deferrable=deferrable))
    assert report["notes"] == [
        "Had delays: balance_current_account.",
        "Passed after a re-run: balance_current_account (after 3 tries).",
    ]
    task = Task()
    with pytest.raises(RunFailedError):
        task.run(run_suites(project_id=REGRESSION, deferrable=deferrable, junit_path=str(tmp_path / "report.xml")))
    failed = task.xcoms["return_value"]["failures"][0]
    row = next(
        case for case in hook.list_run_test_cases(task.xcoms["run_id"]) if case["testCaseName"] == failed["name"]
    )
    names = ("numberOfTries", "hadDelays", "dialogId", "goldenDialogId")
    assert failed["details"] == {name: row[name] for name in names}
    assert (row["numberOfTries"], row["hadDelays"]) == (2, True)
    text = (tmp_path / "report.xml").read_text()
    for name in names:
        value = str(row[name]).replace("True", "true")
        assert f'name="case.{failed["name"]}.{name}" value="{value}"' in text
        assert f"[[PROPERTY|{name}={value}]]" in text


def test_no_tests_may_be_allowed(control: Control) -> None:
    report = Task().run(run_suites(project_id=EMPTY, fail_on_no_tests=False))
    assert (report["verdict"], report["total"]) == ("passed", 0)


def test_a_run_that_somebody_revokes_is_cancelled(control: Control) -> None:
    control.plan_next("omilia", ending="cancelled")
    task = Task()
    with pytest.raises(RunCancelledError):
        task.run(run_suites())
    assert task.xcoms["return_value"]["verdict"] == "cancelled"


# Revoking


def revoke(run_id: str, **arguments: Any) -> OmiliaRevokeRunOperator:
    return OmiliaRevokeRunOperator(task_id="revoke", run_id=run_id, poll_interval=0.1, **arguments)


def test_a_run_that_goes_is_revoked(control: Control, hook: OmiliaHook) -> None:
    control.plan_next("omilia", duration=60.0)
    run = hook.create_run(SMOKE)
    task = Task()
    result = task.run(revoke(run.run_id))
    assert (result["run_id"], result["verdict"], result["raw_state"]) == (run.run_id, "cancelled", "REVOKED")
    assert task.xcoms["run_url"] == result["url"]
    assert hook.get_run(run.run_id).raw_state == "REVOKED"
    assert control.count("omilia.revoke_run") == 1


def test_a_run_that_is_over_is_left_alone(control: Control, hook: OmiliaHook, told: Told) -> None:
    result = Task().run(revoke(finished(hook)))
    assert (result["verdict"], result["raw_state"]) == ("passed", "SUCCESS")
    assert "has already finished as SUCCESS: nothing to stop." in told.text
    assert control.count("omilia.revoke_run") == 0


def test_a_run_that_cannot_be_revoked_is_left_alone_and_said_so(control: Control, hook: OmiliaHook) -> None:
    run_id = finished(hook)
    body = {"data": [{"runId": run_id, "projectId": SMOKE, "status": "STARTED", "isRevocable": False}]}
    control.fault("wrong_json", operation="omilia.get_run", body=body)
    with pytest.raises(InvalidRequestError, match=rf"{run_id} is STARTED.*isRevocable is false.*the run continues"):
        Task().run(revoke(run_id))
    assert control.count("omilia.revoke_run") == 0


def test_a_run_that_does_not_say_whether_it_can_be_revoked_is_asked(control: Control, hook: OmiliaHook) -> None:
    control.plan_next("omilia", duration=60.0)
    run_id = hook.create_run(SMOKE).run_id
    body = {"data": [{"runId": run_id, "projectId": SMOKE, "status": "STARTED"}]}
    control.fault("wrong_json", operation="omilia.get_run", body=body, times=1)
    assert Task().run(revoke(run_id))["verdict"] == "cancelled"


def test_waiting_for_a_revoked_run_has_an_end(control: Control, hook: OmiliaHook) -> None:
    control.configure(cancel_seconds=3600.0)
    control.plan_next("omilia", duration=3600.0)
    run_id = hook.create_run(SMOKE).run_id
    with pytest.raises(RunTimeoutError, match=r"was asked to stop and is still \w+ after 0.5 s"):
        Task().run(revoke(run_id, timeout=timedelta(seconds=0.5)))


def test_a_run_that_ends_before_it_is_revoked_keeps_its_verdict(control: Control, hook: OmiliaHook, told: Told) -> None:
    run_id = finished(hook)
    body = {"data": [{"runId": run_id, "projectId": SMOKE, "status": "STARTED", "isRevocable": True}]}
    control.fault("wrong_json", operation="omilia.get_run", body=body, times=2)
    control.fault("status", operation="omilia.revoke_run", status=409, times=1)
    result = Task().run(revoke(run_id))
    assert result["verdict"] == "passed"
    assert "has finished as SUCCESS (passed) before it was stopped." in told.text


def test_a_run_that_is_not_there_cannot_be_revoked(control: Control) -> None:
    with pytest.raises(NotFoundError, match=NOBODY):
        Task().run(revoke(NOBODY))


# Projects

GIT_ARGUMENTS = {"url": "https://git.example.com/a.git", "git_token": TOKEN, "git_provider": "gitlab"}


def create(**arguments: Any) -> OmiliaCreateProjectOperator:
    return OmiliaCreateProjectOperator(task_id="create", **{"name": "nightly", "group": "qa", **arguments})


def test_a_project_is_created_changed_and_deleted(control: Control, hook: OmiliaHook) -> None:
    task = Task()
    made = task.run(create())
    assert (made["name"], made["s3Storage"]) == ("nightly", True)
    assert task.xcoms == {"project_id": made["id"]}
    update = OmiliaUpdateProjectOperator(
        task_id="update", project_id=made["id"], name="nightly", group="qa", **GIT_ARGUMENTS
    )
    changed = Task().run(update)
    assert (changed["id"], changed["gitStorage"], changed["gitProvider"]) == (made["id"], True, "gitlab")
    assert TOKEN not in json.dumps(changed)
    Task().run(OmiliaDeleteProjectOperator(task_id="delete", project_id=made["id"]))
    with pytest.raises(NotFoundError):
        hook.get_project(made["id"])


@pytest.mark.parametrize(
    ("operator", "given"),
    [
        (OmiliaCreateProjectOperator, ("url",)),
        (OmiliaCreateProjectOperator, ("git_token",)),
        (OmiliaCreateProjectOperator, ("url", "git_provider")),
        (OmiliaUpdateProjectOperator, ("git_provider",)),
        (OmiliaUpdateProjectOperator, ("url", "git_token")),
    ],
)
def test_half_of_the_git_arguments_are_named_before_any_request(
    control: Control, operator: Any, given: tuple[str, ...]
) -> None:
    more = {"project_id": SMOKE} if operator is OmiliaUpdateProjectOperator else {}
    arguments = {name: GIT_ARGUMENTS[name] for name in given}
    missing = ", ".join(name for name in GIT_ARGUMENTS if name not in given)
    with pytest.raises(ConfigurationError, match=rf"^{missing} must be given too") as caught:
        Task().run(operator(task_id="t", name="n", group="qa", **more, **arguments))
    assert TOKEN not in str(caught.value)
    assert control.requests() == []


@pytest.mark.parametrize("given", ["{{ secret }}", TOKEN])
def test_a_token_may_be_a_template_and_is_in_no_error(control: Control, told: Told, given: str) -> None:
    control.fault(
        "status",
        operation="omilia.create_project",
        status=400,
        body={"detail": f"clone with {TOKEN}", "gitToken": TOKEN},
    )
    operator = create(**{**GIT_ARGUMENTS, "git_token": given})
    with pytest.raises(InvalidRequestError, match=r"clone with \*\*\*") as caught:
        Task(secret=TOKEN).run(operator)
    assert TOKEN not in str(caught.value)
    assert TOKEN not in told.text
    assert operator.git_token == given, "the rendered one stays on the stack"
    (request,) = control.requests("omilia.create_project")
    assert request.status == 400


def test_the_platform_gets_the_rendered_token(control: Control, hook: OmiliaHook, server: SandboxServer) -> None:
    made = Task(secret=TOKEN).run(create(**{**GIT_ARGUMENTS, "git_token": "{{ secret }}"}))
    assert "gitToken" not in made
    headers = {"Authorization": f"Bearer {STATIC_BEARER}"}
    found = requests.get(f"{server.url}/omilia/api/projects/{made['id']}", headers=headers, timeout=10).json()
    assert found["data"]["gitToken"] == TOKEN


def test_a_project_that_is_not_there_cannot_be_deleted(control: Control, told: Told) -> None:
    delete = OmiliaDeleteProjectOperator(task_id="delete", project_id=NOBODY)
    with pytest.raises(NotFoundError, match=NOBODY):
        Task().run(delete)
    # Unless the try before may have done it.
    Task(try_number=2).run(delete)
    assert f"Project {NOBODY} no longer exists." in told.text


@pytest.mark.parametrize("fault", [{"kind": "drop"}, {"kind": "status", "status": 502}])
def test_a_project_whose_delete_was_not_confirmed_is_looked_for(
    control: Control, hook: OmiliaHook, fault: dict[str, Any]
) -> None:
    delete = OmiliaDeleteProjectOperator(task_id="delete", project_id=SMOKE)
    control.fault(**fault, operation="omilia.delete_project", when="before", times=1)
    with pytest.raises((TransportError, ServerError)):
        Task().run(delete)
    assert hook.get_project(SMOKE)["name"] == "smoke"
    control.fault(**fault, operation="omilia.delete_project", when="after", times=1)
    Task().run(delete)
    with pytest.raises(NotFoundError):
        hook.get_project(SMOKE)
    assert control.count("omilia.delete_project") == 2


# Files


@pytest.fixture
def storage() -> Iterator[MemoryFileSystem]:
    """An object storage in memory, empty."""
    fs = MemoryFileSystem()
    attach("memory", fs=fs)
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def test_suites_go_over_object_storage(control: Control, storage: MemoryFileSystem) -> None:
    storage.pipe("/store/suites/tests/a.yml", b"name: a")
    Task().run(OmiliaUploadTestSuitesOperator(task_id="up", project_id=SMOKE, path="memory://store/suites"))
    down = OmiliaDownloadTestSuitesOperator(task_id="down", project_id=SMOKE, path="memory://store/back/")
    assert Task().run(down) == f"memory://store/back/{SMOKE}_suites.zip"
    with storage.open(f"/store/back/{SMOKE}_suites.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("tests/a.yml") == b"name: a"


def test_git_storage_takes_no_upload(control: Control, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("a")
    with pytest.raises(InvalidRequestError, match="no S3 storage"):
        Task().run(OmiliaUploadTestSuitesOperator(task_id="up", project_id=GIT, path=tmp_path))


def test_a_golden_dialog_is_a_file(control: Control, hook: OmiliaHook, tmp_path: Path) -> None:
    run_id = finished(hook)
    dialog_id = hook.list_run_test_cases(run_id)[0]["goldenDialogId"]
    assert " " in dialog_id
    operator = OmiliaGenerateGoldenDialogOperator(task_id="golden", dialog_id=dialog_id, path=f"{tmp_path}/")
    written = Path(Task().run(operator))
    assert written.parent == tmp_path
    assert written.suffix == ".json"
    assert json.loads(written.read_bytes()) == hook.get_golden_dialog(dialog_id)
    control.fault("wrong_json", operation="omilia.golden_dialog", body="<html>")
    with pytest.raises(Exception, match="not JSON"):
        Task().run(OmiliaGenerateGoldenDialogOperator(task_id="golden", dialog_id=dialog_id, path=f"{tmp_path}/x.json"))
    assert list(tmp_path.iterdir()) == [written]


def artifact_of(kind: str, run_id: str, path: Path, **more: Any) -> BaseOperator:
    if kind == "run":
        return OmiliaDownloadRunArtifactOperator(task_id="get", run_id=run_id, path=path)
    return OmiliaDownloadGenerationArtifactOperator(task_id="get", generation_id=run_id, path=path, **more)


KINDS = pytest.mark.parametrize(
    ("kind", "more"),
    [("run", {}), ("generation", {}), ("generation", {"project_id": SMOKE})],
    ids=["run", "generation", "generation of a known project"],
)


def day_of(control: Control, seconds: float = 0.0) -> str:
    return datetime.fromtimestamp(control.now() + seconds, UTC).strftime("%Y-%m-%d")


@KINDS
def test_an_expired_artifact_says_so_with_the_date(
    control: Control, hook: OmiliaHook, tmp_path: Path, kind: str, more: dict[str, str]
) -> None:
    run_id = finished(hook, kind)
    made, until = day_of(control), day_of(control, 604_800)
    Task().run(artifact_of(kind, run_id, tmp_path / "whole.zip", **more))
    assert zipfile.is_zipfile(tmp_path / "whole.zip")
    control.set_run(run_id, artifact_expired=True)
    said = rf"the artifact of {kind} {run_id} has expired: it was made on {made}.* kept for 7 days, until {until}"
    with pytest.raises(NotFoundError, match=said):
        Task().run(artifact_of(kind, run_id, tmp_path / "none.zip", **more))
    assert [path.name for path in tmp_path.iterdir()] == ["whole.zip"]


@KINDS
def test_an_artifact_whose_time_is_over_says_so_with_the_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, more: dict[str, str]
) -> None:
    # A server of its own: its clock does not come back.
    with SandboxServer(run_seconds=0.3) as server:
        monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(server.connections()["omilia_default"]))
        _no_artifact_after_its_time(server.control, tmp_path, kind, more)


def _no_artifact_after_its_time(control: Control, tmp_path: Path, kind: str, more: dict[str, str]) -> None:
    hook = OmiliaHook()
    run_id = finished(hook, kind)
    hook.close()
    until = day_of(control, 604_800)
    control.advance(604_900)
    # Whatever is answered for the file itself: the API page does not say.
    control.fault("status", operation="omilia.*_artifacts", status=410, body={"detail": "Gone"})
    with pytest.raises(NotFoundError, match=rf"the artifact of {kind} {run_id} has expired: .* until {until} .*Gone"):
        Task().run(artifact_of(kind, run_id, tmp_path / "none.zip", **more))
    assert list(tmp_path.iterdir()) == []
    assert control.violations() == []


def test_other_reasons_for_no_artifact(control: Control, hook: OmiliaHook, tmp_path: Path) -> None:
    control.plan_next("omilia", duration=60.0)
    going = hook.create_run(SMOKE).run_id
    with pytest.raises(NotFoundError, match=rf"{going} does not exist yet: it is created when the run has finished"):
        Task().run(artifact_of("run", going, tmp_path / "a.zip"))
    Task().run(revoke(going))
    with pytest.raises(NotFoundError, match=rf"{going} is not there: the platform made none"):
        Task().run(artifact_of("run", going, tmp_path / "a.zip"))
    with pytest.raises(NotFoundError, match=f"Run {NOBODY} not found"):
        Task().run(artifact_of("run", NOBODY, tmp_path / "a.zip"))
    with pytest.raises(NotFoundError, match=f"Generation {NOBODY} not found"):
        Task().run(artifact_of("generation", NOBODY, tmp_path / "a.zip"))
    whole = finished(hook)
    control.fault("status", operation="omilia.run_artifacts", status=403)
    with pytest.raises(Exception, match="403"):
        Task().run(artifact_of("run", whole, tmp_path / "a.zip"))
    assert list(tmp_path.iterdir()) == []


@DEFERRABLE
def test_artifacts_of_the_starting_operator(control: Control, told: Told, tmp_path: Path, deferrable: bool) -> None:
    task = Task()
    report = task.run(run_suites(artifacts_path=str(tmp_path / "new"), deferrable=deferrable))
    assert task.xcoms["artifacts"] == [str(tmp_path / "new" / f"{report['run_id']}_artifacts.zip")]
    assert zipfile.is_zipfile(task.xcoms["artifacts"][0])
    # They are of no weight: a verdict stands without.
    control.configure(artifact_ttl=0)
    task = Task()
    assert task.run(run_suites(artifacts_path=str(tmp_path / "late"), deferrable=deferrable))["verdict"] == "passed"
    assert task.xcoms["artifacts"] == []
    assert re.search(r"There is no artifact to save\. .* has expired: it was made on", told.text)


# Generations


@DEFERRABLE
def test_a_generation_from_start_to_its_test_cases(
    control: Control, hook: OmiliaHook, tmp_path: Path, deferrable: bool
) -> None:
    task = Task()
    operator = generate(
        group="qa", test_suite="balance", simulation_data="Ani,Dnis", artifacts_path=tmp_path, deferrable=deferrable
    )
    report = task.run(operator)
    assert (report["verdict"], report["raw_state"], report["total"]) == ("passed", "SUCCESS", None)
    assert len(task.events) == deferrable
    started = hook.get_generation(report["run_id"], SMOKE)
    assert (started["group"], started["testSuite"], started["simulationData"]) == ("qa", "balance", "Ani,Dnis")
    (written,) = task.xcoms["artifacts"]
    with zipfile.ZipFile(written) as archive:
        assert {name.split("/")[1] for name in archive.namelist() if "/" in name} == {"balance"}
    assert control.count("omilia.create_generation") == 1
    assert control.count("omilia.create_run") == 0


@DEFERRABLE
def test_a_generation_that_fails_is_broken(control: Control, deferrable: bool) -> None:
    control.plan_next("omilia", ending="errored")
    task = Task()
    with pytest.raises(RunErroredError):
        task.run(generate(deferrable=deferrable))
    assert task.xcoms["return_value"]["verdict"] == "errored"


def test_a_generation_that_times_out_continues_and_that_is_logged(control: Control, told: Told) -> None:
    control.plan_next("omilia", duration=60.0)
    with pytest.raises(RunTimeoutError, match="It may still be running: see the log") as caught:
        Task().run(generate(timeout=0.4))
    assert "cancelled" not in str(caught.value)
    (line,) = told.of("Could not cancel run")
    assert "has no call that revokes a generation" in line
    assert control.count("omilia.revoke_run") == 0


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_the_sensor_of_generations(control: Control, hook: OmiliaHook, mode: str) -> None:
    control.plan_next("omilia", duration=DURATION)
    made = hook.create_generation(SMOKE)
    task = Task()
    sensor = OmiliaGenerationSensor(
        task_id="wait",
        generation_id=made["runId"],
        project_id=SMOKE,
        deferrable=mode == "deferrable",
        poke_interval=0.1,
        timeout=600,
    )
    with getting_on_with_polls(control, "omilia.list_project_generations"):
        report = task.run(sensor)
    assert (report["run_id"], report["verdict"]) == (made["runId"], "passed")
    assert len(task.events) == (mode == "deferrable")


@pytest.mark.parametrize(("generation_id", "project_id", "named"), [("", SMOKE, "generation_id"), ("g", "", "project")])
def test_the_sensor_names_an_id_that_can_be_none(
    control: Control, generation_id: str, project_id: str, named: str
) -> None:
    sensor = OmiliaGenerationSensor(task_id="wait", generation_id=generation_id, project_id=project_id, timeout=5)
    with pytest.raises(ConfigurationError, match=named):
        Task().run(sensor)
    assert control.requests() == []


# Projects by their names


@DEFERRABLE
def test_a_project_may_be_given_by_its_name(control: Control, hook: OmiliaHook, deferrable: bool) -> None:
    task = Task()
    report = task.run(run_suites(project_id=None, project_name="smoke", deferrable=deferrable))
    assert report["verdict"] == "passed"
    assert control.count("omilia.list_projects") == 1
    made = Task().run(generate(project_id=None, project_name="smoke", deferrable=deferrable))
    assert made["verdict"] == "passed"
    assert {run["target_id"] for run in control.runs("omilia")} == {SMOKE}
    run_id = hook.create_run(SMOKE).run_id
    generation_id = hook.create_generation(SMOKE)["runId"]
    shared: dict[str, Any] = {"project_name": "smoke", "deferrable": deferrable, "poke_interval": 0.1, "timeout": 600}
    before = control.count("omilia.list_projects")
    assert Task().run(OmiliaRunSensor(task_id="a", run_id=run_id, **shared))["verdict"] == "passed"
    watched = OmiliaGenerationSensor(task_id="b", generation_id=generation_id, **shared)
    assert Task().run(watched)["run_id"] == generation_id
    assert control.count("omilia.list_projects") == before + 2


def test_a_retry_finds_the_run_of_a_project_that_was_given_by_its_name(control: Control, hook: OmiliaHook) -> None:
    task = Task(dag_run=SimpleNamespace(clear_number=0, start_date=datetime.now(UTC), run_after=None))
    started = OmiliaCreateRunOperator(task_id="run", project_name="smoke", wait_for_completion=False)
    first = task.run(started)["run_id"]
    task.context["ti"].try_number = 2
    assert task.run(run_suites(project_id=None, project_name="smoke"))["run_id"] == first
    assert control.count("omilia.create_run") == 1


def test_each_operator_of_a_project_takes_its_name(control: Control, hook: OmiliaHook, tmp_path: Path) -> None:
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "a.yml").write_text("name: a")
    named: dict[str, Any] = {"task_id": "t", "project_name": "smoke"}
    Task().run(OmiliaUploadTestSuitesOperator(path=str(suites), **named))
    written = Task().run(OmiliaDownloadTestSuitesOperator(path=f"{tmp_path}/down/", **named))
    assert written == f"{tmp_path}/down/{SMOKE}_suites.zip"
    generation = finished(hook, "generation")
    cases = OmiliaDownloadGenerationArtifactOperator(generation_id=generation, path=f"{tmp_path}/cases/", **named)
    assert zipfile.is_zipfile(Task().run(cases))
    changed = Task().run(OmiliaUpdateProjectOperator(name="renamed", group="qa", **named))
    assert (changed["id"], changed["name"]) == (SMOKE, "renamed")
    Task().run(OmiliaDeleteProjectOperator(task_id="t", project_name="renamed"))
    with pytest.raises(NotFoundError):
        hook.get_project(SMOKE)
    gone = OmiliaDeleteProjectOperator(task_id="t", project_name="renamed")
    with pytest.raises(ConfigurationError, match="'renamed' is not the name of a project"):
        Task().run(gone)
    again = Task()
    again.context["ti"].try_number = 2
    again.run(gone)


@pytest.mark.parametrize(
    ("name", "said"),
    [("smok", r"'smok' is not the name of a project .*'smoke'"), ("twin", rf"is the name of 2 projects: .*{NOBODY}")],
)
def test_a_name_of_none_or_of_several_starts_changes_and_waits_for_nothing(
    control: Control, tmp_path: Path, name: str, said: str
) -> None:
    control.create_project("twin", id=NOBODY)
    control.create_project("twin")
    named: dict[str, Any] = {"task_id": "t", "project_name": name}
    (tmp_path / "a.zip").write_bytes(b"PK")
    for task in (
        OmiliaCreateRunOperator(**named),
        OmiliaCreateGenerationOperator(**named),
        OmiliaUpdateProjectOperator(name="n", group="qa", **named),
        OmiliaDeleteProjectOperator(**named),
        OmiliaUploadTestSuitesOperator(path=str(tmp_path / "a.zip"), **named),
        OmiliaDownloadTestSuitesOperator(path=str(tmp_path / "b.zip"), **named),
        OmiliaDownloadGenerationArtifactOperator(generation_id="g", path=str(tmp_path / "b.zip"), **named),
        OmiliaRunSensor(run_id="r", **named),
        OmiliaGenerationSensor(generation_id="g", **named),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Task().run(task)
    asked = {request.operation for request in control.requests()}
    assert asked == {"omilia.token", "omilia.list_projects"}
    assert not (tmp_path / "b.zip").exists()


# A record that somebody else has written


@pytest.mark.parametrize("verdict", [None, "passed"])
def test_a_record_that_names_somebody_elses_run_touches_nothing(control: Control, verdict: str | None) -> None:
    control.configure(run_seconds=1000.0)
    task = Task(dag_run=SimpleNamespace(clear_number=0, start_date=datetime.now(UTC), run_after=None))
    started = OmiliaCreateRunOperator(task_id="run", project_id=SMOKE, wait_for_completion=False)
    ours = task.run(started)["run_id"]
    (foreign,) = control.add_runs("omilia", REGRESSION)
    honest = json.loads(json.dumps(task.record))
    task.record["run"] = task.record["run"] | {
        "run_id": foreign,
        "context": {"project_id": REGRESSION},
        "url": "javascript:alert(1)",
    }
    task.record.update(context={"project_id": REGRESSION}, seen=True)
    if verdict is not None:
        task.record.update(phase="judged", verdict=verdict)
    operator = OmiliaCreateRunOperator(task_id="run", project_id=SMOKE, poll_interval=0.1)
    said = task.fail(operator, StartOutcomeUnknownError)
    assert f"its project_id is '{REGRESSION}', and this task's is '{SMOKE}'" in said
    operator.on_kill()
    # Nor is it cancelled when the task is cleared.
    task.context["ti"].max_tries = 7
    if verdict is None:
        task.fail(OmiliaCreateRunOperator(task_id="run", project_id=SMOKE), StartOutcomeUnknownError)
    assert control.run(foreign)["cancelled_by"] is None
    assert control.count("omilia.create_run") == 1
    assert "run_url" not in task.xcoms
    # With the record as it was, the run is found again.
    task.context["ti"].max_tries = 3
    task.store["test_run"] = honest
    again = OmiliaCreateRunOperator(task_id="run", project_id=SMOKE, wait_for_completion=False)
    assert task.run(again)["run_id"] == ours
    assert control.count("omilia.create_run") == 1
    # But it can't be of a DAG run that was created later.
    # (Other tests move the sandbox's clock on by a week.)
    task.context["dag_run"].start_date = datetime.now(UTC) + timedelta(days=100)
    assert "before this DAG run was created" in task.fail(again, StartOutcomeUnknownError)


def test_a_place_that_is_none_after_rendering_starts_nothing(control: Control, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("junit_path", "artifacts_path"):
        for rendered, said in (
            (None, f"{name} was given and is None after rendering"),
            (2026, f"{name} must be a path"),
            (True, f"{name} must be a path"),
            (str(tmp_path / "pipe"), "a pipe"),
        ):
            operator = OmiliaCreateRunOperator(task_id="run", project_id=SMOKE, **{name: "{{ params.place }}"})
            setattr(operator, name, rendered)
            assert said in Task().fail(operator, ConfigurationError)
    assert control.count("omilia.create_run") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()
