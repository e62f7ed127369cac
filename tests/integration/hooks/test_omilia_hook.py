"""The hook over a socket, against the sandbox, which checks requests as strictly as the API page does."""

from __future__ import annotations

import json
import logging
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.hooks.omilia import OmiliaHook
from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.lifecycle.starting import Epoch, Starter
from airflow_provider_testruns.model import Counts, Kind, Outcome, Run, RunState, Verdict
from airflow_provider_testruns.sandbox import omilia as canaries
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.waiting import WITHIN

pytestmark = pytest.mark.integration

SMOKE, REGRESSION, BROKEN, EMPTY, GIT = (f"0a000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))
NOBODY = "0a000000-0000-4000-8000-0000deadbeef"


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=0.2, seed=1) as running:
        yield running


@pytest.fixture
def sandbox(server: SandboxServer) -> Iterator[SandboxServer]:
    server.control.reset()
    yield server
    assert server.control.violations() == []


@pytest.fixture
def hook(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OmiliaHook]:
    with_password = connected(sandbox, monkeypatch)
    yield with_password
    with_password.close()


def connected(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any] | None = None, **fields: Any
) -> OmiliaHook:
    """A hook whose connection is the sandbox's, with other fields, and extras in place of its own."""
    connection = sandbox.connections()["omilia_default"]
    usual = {
        "auth_url": f"{sandbox.url}/omilia/auth/realms/master/protocol/openid-connect/token",
        "run_url_template": connection["extra"]["run_url_template"],
        "timeout": 60,
    }
    connection = {**connection, **fields, "extra": {**usual, **(extra or {})}}
    monkeypatch.setenv("AIRFLOW_CONN_OMILIA_DEFAULT", json.dumps(connection))
    return OmiliaHook()


def finished(hook: OmiliaHook, run: Run) -> Run:
    until = time.monotonic() + WITHIN
    while time.monotonic() < until:
        run = hook.get_run(run.run_id, **run.ids)
        if run.final:
            return run
        time.sleep(0.02)
    raise AssertionError(f"{run} has not ended")


def test_a_run_from_start_to_report(hook, sandbox):
    started = hook.create_run(SMOKE)
    assert (started.kind, started.ids) == (Kind.RUN, {"project_id": SMOKE})
    assert started.url == f"{sandbox.url}/_sandbox/runs/omilia/{started.run_id}"
    run = finished(hook, started)
    assert (run.state, run.platform_verdict, run.raw_state) == (RunState.FINISHED, Verdict.PASSED, "SUCCESS")
    assert hook.list_project_runs(SMOKE) == [run]
    report = hook.get_report(run)
    assert report.counts == Counts(4)
    assert [case.outcome for case in report.cases] == [Outcome.PASSED] * 4
    assert all(case.duration is not None and 0.5 < case.duration < 2 for case in report.cases)
    assert judge(report).verdict is Verdict.PASSED
    assert sandbox.control.count("omilia.create_run") == 1


@pytest.mark.parametrize(
    ("project", "verdict"),
    [(REGRESSION, Verdict.FAILED), (BROKEN, Verdict.ERRORED), (EMPTY, Verdict.FAILED), (GIT, Verdict.PASSED)],
)
def test_verdicts(hook, project, verdict):
    report = hook.get_report(finished(hook, hook.create_run(project)))
    assert judge(report).verdict is verdict
    if project == REGRESSION:
        assert report.counts == Counts(6, 2, 1)
        assert "step 3, prompt: expected" in report.failures[0].message
        assert report.failures[-1].message == "Voice application did not answer within 10 seconds"
    elif project == BROKEN:
        assert "could not read from the remote repository" in judge(report).reasons[0]
    elif project == EMPTY:
        assert judge(report, Gates(fail_on_no_tests=False)).verdict is Verdict.PASSED


def test_filters(hook):
    run = finished(hook, hook.create_run(REGRESSION, group="payments", description="lost"))
    assert run.started_with == {"group": "payments", "utterance": None, "description": "lost"}
    assert [case.name for case in hook.get_report(run).cases] == ["block_lost_card"]
    nothing = finished(hook, hook.create_run(SMOKE, utterance="no such words"))
    assert judge(hook.get_report(nothing)).verdict is Verdict.FAILED


def test_every_reader_of_a_run(hook):
    run = finished(hook, hook.create_run(REGRESSION))
    assert hook.healthcheck() == {"status": "up"}
    assert hook.list_run_test_suites(run.run_id)[0] == {"testSuiteName": "greeting"}
    stats = hook.get_run_stats(run.run_id)
    assert (stats["runId"], stats["pass"], stats["fail"], stats["unavailable"]) == (run.run_id, 6, 2, 1)
    assert hook.list_project_run_stats(REGRESSION) == [stats]
    cases = hook.list_run_test_cases(run.run_id)
    assert len(cases) == 9
    golden_ids = [case[name] for case in cases for name in ("dialogId", "goldenDialogId")]
    assert any(" " in golden_id for golden_id in golden_ids)
    for golden_id in golden_ids[:2]:
        assert hook.get_golden_dialog(golden_id)["steps"]
    log = hook.get_run_logs(run.run_id)
    assert ("Load Test Suites", "Test suites found: 4") in log
    sections = list(dict.fromkeys(section for section, _ in log))
    assert sections[-1] == "Aggregate Results"
    with pytest.raises(NotFoundError, match=NOBODY):
        hook.get_run(NOBODY)


def test_projects(hook):
    made = hook.create_project("nightly", "qa")
    assert (made["name"], made["s3Storage"]) == ("nightly", True)
    assert hook.get_project(made["id"]) == made
    changed = hook.update_project(
        made["id"], "nightly-git", "qa", "https://git.example.com/a.git", canaries.GIT_TOKEN, "github"
    )
    assert (changed["name"], changed["gitStorage"], changed["gitProvider"]) == ("nightly-git", True, "github")
    listed = hook.list_projects()
    assert {project["id"] for project in listed} >= {made["id"], SMOKE, GIT}
    assert canaries.GIT_TOKEN not in json.dumps([changed, listed, hook.get_project(GIT)])
    hook.delete_project(made["id"])
    with pytest.raises(NotFoundError):
        hook.get_project(made["id"])
    with pytest.raises(InvalidRequestError, match="Group: strangers invalid"):
        hook.create_project("nightly", "strangers")


def test_a_git_token_is_in_no_error_and_in_no_log(hook, sandbox, caplog, capfd):
    sandbox.control.fault(
        "status",
        operation="omilia.create_project",
        status=500,
        body={"trace": {"request": {"gitToken": canaries.GIT_TOKEN}}, "detail": f"clone with {canaries.GIT_TOKEN}"},
    )
    with caplog.at_level(logging.DEBUG), pytest.raises(ServerError) as caught:
        hook.create_project("n", "qa", "https://git.example.com/a.git", canaries.GIT_TOKEN, "gitlab")
    assert "clone with ***" in str(caught.value)
    out = capfd.readouterr()
    assert canaries.GIT_TOKEN not in caplog.text + out.out + out.err
    assert sandbox.control.count("omilia.create_project") == 1, "what changes something is never sent twice"


def test_generations(hook, sandbox, tmp_path):
    first = hook.create_generation(SMOKE, group="qa", test_suite="balance", simulation_data="Ani,Dnis")
    assert (first["group"], first["testSuite"], first["overwrite"]) == ("qa", "balance", False)
    run = hook.start_run(kind="generation", project_id=SMOKE, overwrite=True)
    assert (run.kind, run.ids) == (Kind.GENERATION, {"project_id": SMOKE, "kind": "generation"})
    run = finished(hook, run)
    assert run.started_with == {"group": None, "test_suite": None, "overwrite": True, "simulation_data": None}
    assert judge(hook.get_report(run)).verdict is Verdict.PASSED
    assert [row["runId"] for row in hook.list_project_generations(SMOKE)] == [run.run_id, first["runId"]]
    assert hook.get_generation(first["runId"], SMOKE)["simulationData"] == "Ani,Dnis"
    assert [found.run_id for found in hook.find_runs(run.started_at, **run.ids)] == [run.run_id]
    with pytest.raises(NotFoundError):
        hook.get_generation(NOBODY, SMOKE)
    assert hook.list_project_runs(SMOKE) == []
    finished(hook, Run("omilia", first["runId"], RunState.QUEUED, "", ids=run.ids))
    written = hook.download_generation_artifact(first["runId"], tmp_path)
    assert zipfile.ZipFile(written).testzip() is None
    assert Path(written).name == f"{first['runId']}_artifacts.zip"
    sandbox.control.plan_next("omilia", duration=60.0)
    with pytest.raises(InvalidRequestError, match="no call that revokes"):
        hook.cancel_run(hook.start_run(kind="generation", project_id=SMOKE).run_id, **run.ids)


def test_cancelling(hook, sandbox):
    sandbox.control.configure(cancel_seconds=0.1)
    sandbox.control.plan_next("omilia", duration=60.0)
    run = hook.create_run(SMOKE)
    hook.revoke_run(run.run_id)
    run = finished(hook, run)
    assert (run.platform_verdict, judge(hook.get_report(run)).verdict) == (Verdict.CANCELLED, Verdict.CANCELLED)
    hook.cancel_run(run.run_id, **run.ids)
    done = finished(hook, hook.create_run(SMOKE))
    hook.cancel_run(done.run_id)
    assert hook.get_run(done.run_id).platform_verdict is Verdict.PASSED
    assert sandbox.control.count("omilia.revoke_run") == 1
    with pytest.raises(InvalidRequestError, match="cannot be revoked"):
        hook.revoke_run(done.run_id)
    with pytest.raises(NotFoundError):
        hook.cancel_run(NOBODY)


def test_a_revoke_whose_response_is_lost_has_worked(hook, sandbox):
    sandbox.control.configure(cancel_seconds=0.0)
    sandbox.control.plan_next("omilia", duration=60.0)
    run = hook.create_run(SMOKE)
    sandbox.control.fault("drop", operation="omilia.revoke_run", when="after", times=1)
    hook.cancel_run(run.run_id)
    assert hook.get_run(run.run_id).platform_verdict is Verdict.CANCELLED


def test_runs_are_found_by_time(hook, sandbox):
    ids = sandbox.control.add_runs("omilia", SMOKE, 30, age=60.0, spacing=1.0)
    found = hook.find_runs(project_id=SMOKE)
    assert [run.run_id for run in found] == ids[::-1]
    since = found[9].started_at
    assert [run.run_id for run in hook.find_runs(since, project_id=SMOKE)] == ids[:-11:-1]
    assert hook.find_runs(datetime.now(UTC) + timedelta(hours=1), project_id=SMOKE) == []
    wanted = {ids[0], ids[-1]}
    before = sandbox.control.count("omilia.list_project_runs")
    polled = hook.ask(hook.platform.list_group(hook.platform.group_of(found[0]), wanted, None))
    assert {run.run_id for run in polled} == wanted
    assert sandbox.control.count("omilia.list_project_runs") == before + 1
    assert {run.run_id: run for run in polled}[ids[0]] == hook.get_run(ids[0])


@pytest.mark.parametrize("kind", ["run", "generation"])
def test_a_start_whose_response_is_lost_is_found_again(hook, sandbox, kind):
    sandbox.control.add_runs("omilia", SMOKE, 3, age=60.0)
    operation = "omilia.create_run" if kind == "run" else "omilia.create_generation"
    sandbox.control.fault("drop", operation=operation, when="after", times=1)
    starter = Starter(
        hook.platform,
        store=None,
        epoch=Epoch(1, 0, 0),
        window=hook.settings.timeout,
        log=logging.getLogger(__name__),
        clock_offset=lambda: hook.client.session.clock_offset,
    )
    obtained = hook.client.run(starter.obtain({"project_id": SMOKE, "kind": kind}))
    assert obtained.how == "adopted"
    assert sandbox.control.count(operation) == 1
    assert obtained.run.run_id == sandbox.control.runs("omilia")[-1]["run_id"]
    assert finished(hook, obtained.run).platform_verdict is Verdict.PASSED


def test_a_start_is_never_sent_twice(hook, sandbox):
    sandbox.control.fault("status", operation="omilia.create_*", status=503, when="after")
    with pytest.raises(ServerError):
        hook.create_run(SMOKE)
    with pytest.raises(ServerError):
        hook.create_generation(SMOKE)
    sandbox.control.clear_faults()
    sandbox.control.fault("drop", operation="omilia.create_*", when="before")
    with pytest.raises(TransportError):
        hook.create_run(SMOKE)
    assert sandbox.control.count("omilia.create_run") == 2
    assert sandbox.control.count("omilia.create_generation") == 1


def test_suites_go_up_and_come_down_again(hook, sandbox, tmp_path):
    suites = tmp_path / "suites"
    (suites / "tests").mkdir(parents=True)
    (suites / "tests" / "a.yml").write_text("name: a")
    (suites / ".omilia-ci.yml").write_text("version: 1")
    (suites / "secret").symlink_to(tmp_path / "elsewhere")
    hook.upload_test_suites(SMOKE, str(suites))
    written = hook.download_test_suites(SMOKE, str(tmp_path / "down" / "suites.zip"))
    assert written == str(tmp_path / "down" / "suites.zip")
    with zipfile.ZipFile(written) as archive:
        assert archive.namelist() == [".omilia-ci.yml", "tests/a.yml"]
    hook.upload_test_suites(EMPTY, Path(written))
    assert Path(hook.download_test_suites(EMPTY, tmp_path)).read_bytes() == Path(written).read_bytes()
    assert sandbox.control.count("omilia.upload_suites") == 2
    with pytest.raises(InvalidRequestError, match="no S3 storage"):
        hook.upload_test_suites(GIT, suites)
    with pytest.raises(ConfigurationError, match="project_id"):
        hook.upload_test_suites("", suites)
    assert sandbox.control.count("omilia.upload_suites") == 3


def test_artifacts_are_complete_or_absent(hook, sandbox, tmp_path):
    run = finished(hook, hook.create_run(SMOKE))
    folder = tmp_path / "artifacts"
    target = folder / "run.zip"
    assert hook.download_run_artifact(run.run_id, target) == str(target)
    whole = target.read_bytes()
    assert zipfile.ZipFile(target).testzip() is None

    sandbox.control.fault("truncate", operation="omilia.run_artifacts", times=1)
    hook.download_run_artifact(run.run_id, target)
    assert target.read_bytes() == whole, "a download that broke off is done again"

    sandbox.control.fault("wrong_json", operation="omilia.run_artifacts", times=1, body={"not": "a ZIP"})
    with pytest.raises(InvalidReplyError, match=r"artifact of run .* is not a complete ZIP file"):
        hook.download_run_artifact(run.run_id, folder / "other.zip")
    sandbox.control.set_run(run.run_id, artifact_expired=True)
    with pytest.raises(NotFoundError, match="Artifact has expired"):
        hook.download_run_artifact(run.run_id, folder / "expired.zip")
    assert [path.name for path in folder.iterdir()] == ["run.zip"]


def test_what_the_platform_keeps_is_saved(hook, sandbox, tmp_path):
    run = finished(hook, hook.create_run(SMOKE))
    generation = finished(hook, hook.start_run(kind="generation", project_id=SMOKE))
    folder = tmp_path / "new"
    for kept in (run, generation):
        (written,) = hook.save_artifacts(kept, str(folder))
        assert written == str(folder / f"{kept.run_id}_artifacts.zip")
        assert zipfile.is_zipfile(written)
    sandbox.control.set_run(run.run_id, artifact_expired=True)
    assert hook.save_artifacts(run, tmp_path / "other") == []


def test_a_large_artifact_takes_little_memory(hook, sandbox, tmp_path):
    run = finished(hook, hook.create_run(SMOKE))
    size = 48 * 1024 * 1024
    sandbox.control.configure(artifact_bytes=size)
    tracemalloc.start()
    try:
        written = Path(hook.download_run_artifact(run.run_id, tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.stat().st_size >= size
    assert zipfile.is_zipfile(written)
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"login": canaries.USER, "password": canaries.PASSWORD}, {}),
        ({"login": canaries.USER, "password": canaries.PASSWORD}, {"grant_type": "password"}),
        ({"login": canaries.CLIENT_ID, "password": canaries.CLIENT_SECRET}, {"grant_type": "client_credentials"}),
        ({"login": None, "password": canaries.STATIC_BEARER}, {}),
        ({"login": None, "password": None}, {"personal_access_token": canaries.PERSONAL_ACCESS_TOKEN}),
    ],
)
def test_four_ways_to_authenticate(sandbox, monkeypatch, fields, extra):
    hook = connected(sandbox, monkeypatch, extra, **fields)
    works, said = hook.test_connection()
    assert works, said
    assert "5 projects" in said
    run = finished(hook, hook.create_run(SMOKE))
    assert run.platform_verdict is Verdict.PASSED
    hook.close()
    asks = fields["login"] is not None
    assert sandbox.control.count("omilia.token") == (1 if asks else 0)


@pytest.mark.parametrize(
    ("fields", "extra", "named"),
    [
        ({"password": "canary-wrong"}, {}, "login and password"),
        ({"login": None, "password": "canary-wrong"}, {}, "bearer token"),
        ({"login": None, "password": None}, {"personal_access_token": "canary-wrong"}, "personal_access_token"),
        ({"password": "canary-wrong"}, {"grant_type": "client_credentials"}, "client secret"),
    ],
)
def test_wrong_credentials(sandbox, monkeypatch, fields, extra, named):
    hook = connected(sandbox, monkeypatch, extra, **fields)
    works, said = hook.test_connection()
    assert not works
    assert named in said
    assert "canary" not in said
    with pytest.raises(AuthenticationError):
        hook.list_projects()
    hook.close()


@pytest.mark.parametrize("state", ["revoked", "password_expired", "deactivated", "reactivated"])
def test_o1_each_way_a_personal_access_token_dies_is_in_the_error(sandbox, monkeypatch, state):
    hook = connected(
        sandbox,
        monkeypatch,
        {"personal_access_token": canaries.PERSONAL_ACCESS_TOKEN},
        login=None,
        password=None,
    )
    assert hook.test_connection()[0]
    sandbox.control.configure(omilia_access_token=state)
    works, said = hook.test_connection()
    assert not works
    for part in ("HTTP 401", "'Expires at'", "Revoked", "password is older than 90 days", "logged in to", "new token"):
        assert part in said
    with pytest.raises(AuthenticationError, match="even while the token is used"):
        hook.create_run(SMOKE)
    assert canaries.PERSONAL_ACCESS_TOKEN not in said
    hook.close()
    new = connected(
        sandbox,
        monkeypatch,
        {"personal_access_token": canaries.NEW_PERSONAL_ACCESS_TOKEN},
        login=None,
        password=None,
    )
    assert new.test_connection()[0] is (state == "reactivated")
    new.close()


def test_o2_the_one_time_password_is_named_where_a_password_is_refused(sandbox, monkeypatch):
    sandbox.control.configure(omilia_otp=True)
    hook = connected(sandbox, monkeypatch)
    works, said = hook.test_connection()
    assert not works
    for part in ("Invalid user credentials", "one-time password (OTP)", "personal access token", "ocp on CA1"):
        assert part in said
    hook.close()
    client = connected(
        sandbox,
        monkeypatch,
        {"grant_type": "client_credentials"},
        login=canaries.CLIENT_ID,
        password=canaries.CLIENT_SECRET,
    )
    assert client.test_connection()[0]
    client.close()


def test_o2_a_realm_that_is_not_there_names_those_that_are(server, monkeypatch):
    # A wrong realm is against the documents: on purpose.
    server.control.reset()
    url = f"{server.url}/omilia/auth/realms/wrong/protocol/openid-connect/token"
    works, said = connected(server, monkeypatch, {"auth_url": url}).test_connection()
    assert not works
    assert "The realm is master on EU1, US1 and US2" in said


def test_o3_the_calls_stand_below_a_path_of_the_host(sandbox, monkeypatch):
    sandbox.control.configure(omilia_service_path="/testing-studio")
    below = connected(sandbox, monkeypatch, host=f"{sandbox.url}/omilia/testing-studio")
    assert below.test_connection()[0]
    assert finished(below, below.create_run(SMOKE)).platform_verdict is Verdict.PASSED
    below.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/omilia", "missing, or different from /omilia?"),
        ("/omilia/testing-studio/api", "host ends with /api, which every call adds"),
        ("", "The connection's host has none."),
    ],
)
def test_o3_a_404_says_that_the_service_path_may_be_missing(server, monkeypatch, path, said):
    # A wrong path is against the documents: on purpose.
    server.control.reset()
    server.control.configure(omilia_service_path="/testing-studio")
    hook = connected(server, monkeypatch, host=f"{server.url}{path}")
    works, told = hook.test_connection()
    assert not works
    assert "HTTP 404" in told
    assert said in told
    if not path.endswith("/api"):
        assert "service path before /api/ missing" in told
        assert "browser's network tab" in told
    with pytest.raises(NotFoundError, match="/api"):
        hook.get_run(NOBODY)
    hook.close()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "redirect", "location": "https://login.example.com/x"},
        {"kind": "status", "status": 200, "body": "<html>", "headers": {"content-type": "text/html"}},
    ],
)
def test_o3_a_page_instead_of_the_api_says_so_too(hook, sandbox, fault):
    """A console may answer any path: with its login page, or with itself."""
    sandbox.control.fault(operation="omilia.healthcheck", **fault)
    works, told = hook.test_connection()
    assert not works
    assert "service path before /api/ missing" in told


def test_o4_a_start_that_is_only_accepted_is_looked_up(hook, sandbox):
    """202 without a body, as the page of HTTP codes has it for what is asynchronous."""
    sandbox.control.fault("status", operation="omilia.create_run", status=202, body=None, when="after", times=1)
    starter = Starter(
        hook.platform,
        store=None,
        epoch=Epoch(1, 0, 0),
        window=hook.settings.timeout,
        log=logging.getLogger(__name__),
        clock_offset=lambda: hook.client.session.clock_offset,
    )
    obtained = hook.client.run(starter.obtain({"project_id": SMOKE}))
    assert (obtained.how, sandbox.control.count("omilia.create_run")) == ("adopted", 1)
    assert sandbox.control.stats()["runs_created"]["omilia"] == 1
    assert finished(hook, obtained.run).platform_verdict is Verdict.PASSED
    # And of what gives nothing back a 202 is as good as a 204.
    sandbox.control.plan_next("omilia", duration=60.0)
    run = hook.create_run(SMOKE)
    sandbox.control.fault("status", operation="omilia.revoke_run", status=202, when="after", times=1)
    hook.cancel_run(run.run_id)
    assert sandbox.control.run(run.run_id)["cancelled_by"] == "omilia.revoke_run"


@pytest.mark.parametrize("names", ["sample", "table", "table_strict", "both"])
def test_o5_one_project_is_made_whichever_naming_the_platform_takes(hook, sandbox, names):
    sandbox.control.configure(omilia_project_names=names)
    before = len(hook.list_projects())
    git = ("https://git.example.com/a.git", canaries.GIT_TOKEN, "github")
    made = hook.create_project("nightly", "qa", *git)
    assert (made["gitStorage"], made["gitProvider"], made["gitUrl"]) == (True, "github", git[0])
    assert len(hook.list_projects()) == before + 1
    changed = hook.update_project(made["id"], "renamed", "qa", *git)
    assert (changed["id"], changed["name"], changed["gitStorage"]) == (made["id"], "renamed", True)
    sends = 1 if names in ("sample", "both") else 2
    assert sandbox.control.count("omilia.create_project") == sandbox.control.count("omilia.update_project") == sends
    assert canaries.GIT_TOKEN not in json.dumps([made, changed])


def test_o5_a_lost_response_is_not_taken_for_a_refusal(hook, sandbox):
    sandbox.control.configure(omilia_project_names="table")
    before = len(hook.list_projects())
    sandbox.control.fault("drop", operation="omilia.create_project", when="after", skip=1, times=1)
    with pytest.raises(TransportError):
        hook.create_project("nightly", "qa", "https://git.example.com/a.git", canaries.GIT_TOKEN, "gitlab")
    assert len(hook.list_projects()) == before + 1
    assert sandbox.control.count("omilia.create_project") == 2


def test_o6_the_form_field_that_the_platform_wants_is_named(hook, sandbox, tmp_path):
    with zipfile.ZipFile(tmp_path / "suites.zip", "w") as archive:
        archive.writestr("tests/a.yml", "name: a")
    detail = [{"loc": ["body", "archive"], "msg": "field required", "type": "value_error.missing"}]
    sandbox.control.fault("status", operation="omilia.upload_suites", status=422, body={"detail": detail}, times=1)
    with pytest.raises(InvalidRequestError, match=r"body.archive: field required.*give field='archive'"):
        hook.upload_test_suites(SMOKE, tmp_path / "suites.zip")
    detail.append({"loc": ["body", "name"], "msg": "field required", "type": "value_error.missing"})
    sandbox.control.fault("status", operation="omilia.upload_suites", status=422, body={"detail": detail}, times=1)
    with pytest.raises(InvalidRequestError, match=r"body.archive: field required; body.name: field required") as caught:
        hook.upload_test_suites(SMOKE, tmp_path / "suites.zip")
    assert "give field" not in str(caught.value)


def test_a_token_is_renewed_in_time_and_after_its_session_has_died(hook, sandbox, monkeypatch):
    hook.list_projects()
    # A little before the 300 s that a token lasts.
    monkeypatch.setattr(hook.client.session.auth, "clock", lambda: time.monotonic() + 280.0)
    hook.list_projects()
    assert (sandbox.control.count("omilia.token"), sandbox.control.count("omilia.list_projects")) == (2, 2)
    # The refresh token is as dead as the token: the 401, the refresh that is refused, and the login again.
    sandbox.control.expire_tokens("omilia")
    hook.list_projects()
    assert (sandbox.control.count("omilia.token"), sandbox.control.count("omilia.list_projects")) == (4, 4)


def test_the_token_endpoint_of_the_host_is_not_below_its_path(sandbox, monkeypatch):
    hook = connected(sandbox, monkeypatch, {"auth_url": "", "realm": "ocp"})
    auth, _ = hook.make_auth(hook.settings)
    assert auth.token_url == f"{sandbox.url}/auth/realms/ocp/protocol/openid-connect/token"
