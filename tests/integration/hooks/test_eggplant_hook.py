"""The Eggplant hook, from an Airflow connection over a socket to the sandbox, which checks every request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.hooks.eggplant import EggplantHook
from airflow_provider_testruns.judging import judge
from airflow_provider_testruns.model import Counts, Kind, Run, RunState, Verdict
from airflow_provider_testruns.sandbox.server import SandboxServer
from tests.harness.waiting import WITHIN

pytestmark = pytest.mark.integration

CHECKOUT = "e0000000-0000-4000-8000-000000000001"
RETURNS = "e0000000-0000-4000-8000-000000000002"
BROKEN = "e0000000-0000-4000-8000-000000000003"
RESTRICTED = "e0000000-0000-4000-8000-000000000005"
NIGHTLY_RETURNS = "e0000000-0000-4000-8000-000000000012"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
AGENT = {"agent_id": "1", "is_hosted_agent": True}


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """A sandbox that finds nothing to complain of."""
    with SandboxServer(run_seconds=0.2, seed=1) as server:
        yield server
        assert server.control.violations() == []


@pytest.fixture
def connect(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a hook whose connection differs from the sandbox's own in some fields."""
    hooks: list[EggplantHook] = []

    def make(*, extra: dict[str, Any] | None = None, **fields: Any) -> EggplantHook:
        conn = {**sandbox.connections()["eggplant_default"], **fields}
        conn["extra"] = {**conn["extra"], **(extra or {})}
        monkeypatch.setenv("AIRFLOW_CONN_EGGPLANT_DEFAULT", json.dumps(conn))
        hooks.append(EggplantHook())
        return hooks[-1]

    yield make
    for hook in hooks:
        hook.close()


@pytest.fixture
def hook(connect: Any) -> EggplantHook:
    """The hook of the sandbox's own connection."""
    made: EggplantHook = connect()
    return made


def wait(hook: EggplantHook, run: Run) -> Run:
    """Poll a run until it is final."""
    until = time.monotonic() + WITHIN
    while not run.final:
        assert time.monotonic() < until
        time.sleep(0.05)
        run = hook.get_run(run.run_id, **run.ids)
    return run


@pytest.mark.parametrize(
    ("generation", "arguments", "ending"),
    [
        ("full", {"model_id": CHECKOUT, "agent": AGENT}, Verdict.PASSED),
        ("full", {"model_id": CHECKOUT, "test_case_id": 11, "agent": AGENT}, Verdict.PASSED),
        ("full", {"model_id": RETURNS, "sut": {"criteria": ["web"]}}, Verdict.FAILED),
        ("full", {"model_id": BROKEN, "asset": {"asset_path": "/s"}}, Verdict.ERRORED),
        ("full", {"script": "Checkout.script"}, Verdict.PASSED),
        ("full", {"rerun_id": "21", "model_name": "Returns"}, Verdict.FAILED),
        ("progress_only", {"model_id": RETURNS}, Verdict.FAILED),
        ("progress_only", {"script": "Checkout.script"}, Verdict.PASSED),
        ("executions_get", {"model_id": RETURNS}, Verdict.FAILED),
        ("executions_get", {"model_id": BROKEN}, Verdict.ERRORED),
        ("runs_only", {"model_id": RETURNS}, Verdict.FAILED),
        ("runs_only", {"model_id": BROKEN}, Verdict.ERRORED),
        ("runs_only", {"script": "Checkout.script"}, Verdict.PASSED),
    ],
)
def test_a_run_from_start_to_verdict_on_every_generation_of_servers(
    sandbox: SandboxServer, hook: EggplantHook, generation: str, arguments: dict[str, Any], ending: Any
) -> None:
    sandbox.control.configure(eggplant_generation=generation)
    run = hook.start_execution(**arguments)
    assert run.state is RunState.QUEUED
    assert run.url == f"{sandbox.url}/_sandbox/runs/eggplant/{run.run_id}"
    run = wait(hook, run)
    assert run.platform_verdict is ending
    report = hook.get_report(run)
    assert judge(report).verdict is ending
    with_cases = generation in ("full", "executions_get") and ending is not Verdict.ERRORED
    assert len(report.cases) == (1 if with_cases else 0)
    if with_cases and ending is Verdict.FAILED:
        assert "was not found" in report.failures[0].message
    assert sandbox.control.stats()["runs_created"]["eggplant"] == 1


@pytest.mark.parametrize("shape", ["documented", "list", "items"])
def test_progress_in_every_shape(sandbox: SandboxServer, hook: EggplantHook, shape: str) -> None:
    sandbox.control.configure(eggplant_progress_shape=shape)
    run = hook.start_execution(CHECKOUT)
    assert hook.get_run_progress(run.run_id).raw_state in ("Running", "Passed")
    assert hook.get_execution(run.run_id).run_id == run.run_id
    assert [listed.run_id for listed in hook.list_model_progress("Checkout")] == [run.run_id]
    with pytest.raises(NotFoundError):
        hook.get_run_progress(UNKNOWN)


def test_an_execution_that_nobody_knows(hook: EggplantHook) -> None:
    with pytest.raises(NotFoundError, match=r"POST /api/run/progress.*GET /ai/runs") as caught:
        hook.get_run(UNKNOWN)
    assert caught.value.status == 404
    with pytest.raises(NotFoundError):
        hook.get_execution(UNKNOWN)
    with pytest.raises(NotFoundError):
        hook.get_run("999")


def test_an_abort_is_confirmed_and_idempotent(sandbox: SandboxServer, hook: EggplantHook) -> None:
    sandbox.control.set_target("eggplant", "Checkout", duration=60)
    run = hook.start_execution(CHECKOUT)
    hook.abort_execution(run.run_id)
    run = wait(hook, run)
    assert (run.raw_state, run.platform_verdict) == ("Cancelled", Verdict.CANCELLED)
    hook.cancel_run(run.run_id, **run.ids)
    hook.abort_execution(UNKNOWN)
    assert judge(hook.get_report(run)).verdict is Verdict.CANCELLED


def test_a_start_is_sent_once_and_only_a_proof_allows_another(sandbox: SandboxServer, hook: EggplantHook) -> None:
    control = sandbox.control
    control.fault("drop", operation="eggplant.start_execution", when="after", times=1)
    with pytest.raises(TransportError) as lost:
        hook.start_execution(CHECKOUT)
    assert not lost.value.not_executed
    control.fault("status", operation="eggplant.start_execution", status=503, body="no upstream", times=1)
    with pytest.raises(ServerError) as unknown:
        hook.start_execution(CHECKOUT)
    assert not unknown.value.not_executed
    control.fault("status", operation="eggplant.start_execution", status=503, body="RabbitMQ is not available", times=1)
    with pytest.raises(ServerError) as proven:
        hook.start_execution(CHECKOUT)
    assert proven.value.not_executed
    assert control.count("eggplant.start_execution") == 3
    assert control.stats()["runs_created"]["eggplant"] == 1
    # The lost one can be found.
    start = hook.ask(hook.platform.prepare_start(model_id=CHECKOUT))
    found = hook.find_runs(datetime.now(UTC) - timedelta(minutes=1), **start.ids)
    assert [run.run_id for run in found] == [run["run_id"] for run in control.runs("eggplant")]
    assert found[0].started_with == start.started_with
    newest = hook.ask(hook.platform.newest_run(start))
    assert newest is not None
    assert newest.run_id == found[0].run_id
    assert hook.find_runs(datetime.now(UTC) + timedelta(minutes=1), **start.ids) == []


def test_arguments_are_checked_before_any_request(sandbox: SandboxServer, hook: EggplantHook) -> None:
    with pytest.raises(ConfigurationError, match="model_id"):
        hook.start_execution(test_case_id=11)
    with pytest.raises(ConfigurationError, match="agentid"):
        hook.start_execution(CHECKOUT, agent={"agentid": "1"})
    assert sandbox.control.requests() == []


def test_what_the_user_may_not_run(hook: EggplantHook) -> None:
    with pytest.raises(PermissionDeniedError):
        hook.start_execution(RESTRICTED)


def test_runs_of_a_model_in_one_call(sandbox: SandboxServer, hook: EggplantHook) -> None:
    ids = sandbox.control.add_runs("eggplant", "Checkout", 300, spacing=1.0)
    assert [run.run_id for run in hook.list_model_progress("Checkout", limit=2)] == [ids[-1], ids[-2]]
    oldest = hook.get_run(ids[150]).started_at
    before = sandbox.control.count("eggplant.run_progress")
    found = hook.ask(hook.platform.list_group("Checkout", set(ids[150:]), oldest))
    assert {run.run_id for run in found} == set(ids[150:])
    assert sandbox.control.count("eggplant.run_progress") == before + 1


def test_the_lists(sandbox: SandboxServer, hook: EggplantHook) -> None:
    sandbox.control.add_runs("eggplant", "Checkout", 250, age=60)
    runs = hook.list_runs(limit=120)
    assert [run["id"] for run in runs] == list(range(250, 130, -1))
    assert hook.get_run_details(250) == runs[0]
    assert hook.get_run("250").platform_verdict is Verdict.PASSED
    assert hook.get_run_logs(250)["items"]
    assert [run.run_id for run in hook.find_runs()][:2] == ["250", "249"]
    assert [model["name"] for model in hook.list_models()] == ["Checkout", "Returns", "Broken", "Empty"]
    assert [agent["name"] for agent in hook.list_agents()] == ["Sandbox agent"]
    assert sandbox.control.count("eggplant.create_agent") == 0


def test_a_test_configuration(sandbox: SandboxServer, hook: EggplantHook, tmp_path: Path) -> None:
    run = hook.start_test_configuration(NIGHTLY_RETURNS)
    assert run.kind is Kind.TEST_CONFIGURATION
    with pytest.raises(InvalidRequestError, match="no documented call"):
        hook.cancel_run(run.run_id, **run.ids)
    run = wait(hook, run)
    assert hook.get_test_configuration_task(run.run_id)["runstatus"] == "Failed"
    hook.cancel_run(run.run_id, **run.ids)
    report = hook.get_report(run)
    assert report.counts == Counts(passed=3, failed=1)
    assert judge(report).verdict is Verdict.FAILED
    assert [case.name for case in report.failures] == ["Return without receipt"]

    (result,) = hook.list_test_configuration_results(test_config_id=NIGHTLY_RETURNS)
    assert hook.get_test_configuration_result(result["id"]) == result
    tests = hook.list_test_results(test_config_result_id=result["id"])
    assert len(tests) == 4
    (failed,) = [test for test in tests if test["status"] == "FAILED"]
    assert hook.get_test_result(failed["id"]) == failed
    assert sum("not found" in line["message"] for line in hook.get_test_result_logs(failed["id"])) == 1
    assert len(hook.get_test_result_logs(failed["id"], limit=1)) == 1
    (picture,) = hook.list_screenshots(failed["id"])

    saved = hook.download_screenshot(picture["id"], tmp_path)
    assert Path(saved).read_bytes().startswith(b"\x89PNG")
    assert hook.get_junit(result["id"]).count("<testcase") == 4
    hook.get_junit(result["id"], f"file://{tmp_path}/results/junit.xml")
    assert "<failure" in (tmp_path / "results" / "junit.xml").read_text()
    sandbox.control.fault("status", operation="eggplant.screenshot", status=200, body="<html>sign in</html>")
    with pytest.raises(InvalidReplyError, match="not an image"):
        hook.download_screenshot(picture["id"], tmp_path / "other.png")
    assert {path.name for path in tmp_path.iterdir()} == {Path(saved).name, "results"}


def test_what_the_server_keeps_of_a_test_configuration_is_saved(
    sandbox: SandboxServer, hook: EggplantHook, tmp_path: Path
) -> None:
    run = wait(hook, hook.start_test_configuration(NIGHTLY_RETURNS))
    folder = tmp_path / "new" / "folder"
    saved = hook.save_artifacts(run, str(folder))
    assert sorted(saved) == sorted(str(path) for path in folder.iterdir())
    assert saved[0].endswith("_failure.png")
    (result,) = hook.list_test_configuration_results(test_config_id=NIGHTLY_RETURNS)
    tests = hook.list_test_results(test_config_result_id=result["id"])
    (failed,) = [test["id"] for test in tests if test["status"] == "FAILED"]
    assert {Path(path).name for path in saved} == {
        f"{run.run_id}_junit.xml",
        f"{run.run_id}_{failed}_001.png",
        f"{run.run_id}_{failed}_failure.png",
        *(f"{run.run_id}_{test['id']}_log.jsonl" for test in tests),
    }
    assert (folder / f"{run.run_id}_junit.xml").read_text().count("<testcase") == 4
    assert (folder / f"{run.run_id}_{failed}_001.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / f"{run.run_id}_{failed}_log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == hook.get_test_result_logs(failed)


@pytest.mark.parametrize(
    ("generation", "names"),
    [
        ("full", ["{run}_1_001.png", "{run}_1_failure.png", "{run}_1_log.jsonl"]),
        ("executions_get", ["{run}_1_001.png", "{run}_1_failure.png", "{run}_1_log.jsonl"]),
        ("runs_only", ["{run}_log.json"]),
        ("progress_only", ["{run}_log.json"]),
    ],
)
def test_what_the_server_keeps_of_an_execution_is_saved_on_every_generation(
    sandbox: SandboxServer, hook: EggplantHook, tmp_path: Path, generation: str, names: list[str]
) -> None:
    run = wait(hook, hook.start_execution(RETURNS))
    sandbox.control.configure(eggplant_generation=generation)
    saved = hook.save_artifacts(run, f"file://{tmp_path}")
    assert sorted(Path(path).name for path in saved) == [name.format(run=run.run_id) for name in names]
    if generation == "runs_only":
        assert "image 'confirmation' was not found" in (tmp_path / f"{run.run_id}_log.json").read_text()
        assert hook.save_artifacts(hook.get_run("1"), tmp_path) == [str(tmp_path / "1_log.json")]


def test_files_are_complete_or_absent(sandbox: SandboxServer, hook: EggplantHook, tmp_path: Path) -> None:
    run = wait(hook, hook.start_test_configuration(NIGHTLY_RETURNS))
    # What the server does not keep any more is left out.
    sandbox.control.fault("status", operation="eggplant.screenshot", status=404)
    sandbox.control.fault("status", operation="eggplant.junit", status=404)
    saved = hook.save_artifacts(run, tmp_path)
    assert {Path(path).suffix for path in saved} == {".jsonl"}
    sandbox.control.clear_faults()
    # What can't be had is an error, and leaves no half of a file.
    for fault in ({"kind": "status", "status": 200, "body": "<html>sign in</html>"}, {"kind": "status", "status": 403}):
        for operation in ("eggplant.screenshot", "eggplant.junit"):
            order = sandbox.control.fault(operation=operation, **fault)
            folder = tmp_path / f"{operation}-{fault['status']}"
            with pytest.raises((InvalidReplyError, PermissionDeniedError)):
                hook.save_artifacts(run, folder)
            part = "junit" if operation.endswith("junit") else "png"
            assert not folder.is_dir() or not [path for path in folder.iterdir() if part in path.name]
            sandbox.control.clear_faults(order)


def test_the_files_of_a_run_have_an_end(
    sandbox: SandboxServer, hook: EggplantHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = wait(hook, hook.start_test_configuration(NIGHTLY_RETURNS))
    monkeypatch.setattr(limits, "FILES", 2)
    assert len(hook.save_artifacts(run, tmp_path / "few")) == 2
    monkeypatch.undo()
    pictures = [path for path in hook.save_artifacts(run, tmp_path / "all") if path.endswith(".png")]
    small = max(Path(path).stat().st_size for path in pictures)
    hook._settings = replace(hook.settings, max_file_size=small)
    hook.close()
    with pytest.raises(InvalidReplyError, match=r"together larger than .*max_file_size"):
        hook.save_artifacts(run, tmp_path / "small")


def test_a_report_of_an_older_server_has_no_cases(sandbox: SandboxServer, hook: EggplantHook) -> None:
    run = wait(hook, hook.start_test_configuration(NIGHTLY_RETURNS))
    sandbox.control.configure(eggplant_generation="progress_only")
    report = hook.get_report(run)
    assert (report.counts, report.cases, judge(report).verdict) == (Counts(failed=1), (), Verdict.FAILED)


def test_a_token_that_expired_is_renewed(sandbox: SandboxServer, hook: EggplantHook) -> None:
    run = hook.start_execution(CHECKOUT)
    sandbox.control.expire_tokens("eggplant")
    assert hook.get_run(run.run_id).run_id == run.run_id
    assert len(sandbox.control.issued_tokens("eggplant")) == 2


def test_what_passes_by_itself_is_waited_for_where_nothing_is_changed(
    sandbox: SandboxServer, hook: EggplantHook
) -> None:
    run = hook.start_execution(CHECKOUT)
    sandbox.control.fault("status", operation="eggplant.run_progress", status=503, times=1)
    assert hook.get_run(run.run_id).run_id == run.run_id
    # A server that is down is not one that lacks the call: nothing else was asked.
    assert sandbox.control.count("eggplant.get_execution") == 0


def test_the_test_button(sandbox: SandboxServer, connect: Any) -> None:
    good, said = connect().test_connection()
    assert good, said
    requests = [request.operation for request in sandbox.control.requests()]
    assert requests == ["eggplant.token", "eggplant.list_runs"]
    for fields, part in (
        ({"password": "wrong-canary"}, "password"),
        ({"extra": {"realm": "other"}}, "realm"),
        ({"host": f"{sandbox.url}/nowhere"}, "host"),
        ({"login": ""}, "login"),
        ({"extra": {"poll_endpoint": "all"}}, "poll_endpoint"),
        ({"extra": {"run_url_template": "{where}"}}, "run_url_template"),
    ):
        good, said = connect(**fields).test_connection()
        assert not good
        assert part in said
        assert "wrong-canary" not in said
    sandbox.control.reset_traffic()


def test_the_whole_address_of_the_token_endpoint(sandbox: SandboxServer, connect: Any) -> None:
    url = f"{sandbox.url}/eggplant/auth/realms/eggplant/protocol/openid-connect/token"
    assert connect(extra={"realm": "", "auth_url": url}).test_connection()[0]
    with pytest.raises(AuthenticationError, match="auth_url"):
        connect(extra={"auth_url": f"{url}/nowhere"}).list_runs()
    sandbox.control.reset_traffic()


def test_a_pinned_call(sandbox: SandboxServer, connect: Any) -> None:
    hook = connect(extra={"poll_endpoint": "ai_executions"})
    run = hook.start_execution(CHECKOUT)
    hook.get_run(run.run_id)
    assert sandbox.control.count("eggplant.run_progress") == 0
    sandbox.control.configure(eggplant_generation="progress_only")
    with pytest.raises(NotFoundError, match="poll_endpoint"):
        hook.get_run(run.run_id)


def test_the_same_calls_in_an_event_loop(hook: EggplantHook) -> None:
    """The platform is carried by the triggerer's transport as by the worker's."""
    run = hook.start_execution(CHECKOUT)

    async def look() -> Run:
        platform, client = await EggplantHook.open_async("eggplant_default")
        try:
            return await client.run(platform.get_run(run))
        finally:
            await client.close()

    assert asyncio.run(look()).run_id == run.run_id


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SandboxServer, Any]]:
    """A sandbox whose certificate is signed by a CA of its own, and what sets the connection's ``verify``."""
    authority = trustme.CA()
    chain, bundle = tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(bundle))
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    bundles = {"own": str(bundle), "other": str(other)}

    with SandboxServer(run_seconds=0.2, certfile=str(chain), keyfile=str(chain)) as server:

        def connect(verify: Any) -> None:
            conn = server.connections()["eggplant_default"]
            extra = {} if verify is None else {"verify": bundles.get(verify, verify)}
            monkeypatch.setenv("AIRFLOW_CONN_EGGPLANT_DEFAULT", json.dumps({**conn, "extra": extra}))

        yield server, connect
        assert server.control.violations() == []


def ask_from_a_worker() -> str:
    hook = EggplantHook()
    try:
        # At once: what may be transient would be tried again for 20 s.
        return hook.ask(hook.platform.check(), patience=0.0)
    finally:
        hook.close()


def ask_from_the_triggerer() -> str:
    async def ask() -> str:
        platform, client = await EggplantHook.open_async("eggplant_default")
        try:
            return str(await client.run(platform.check()))
        finally:
            await client.close()

    return asyncio.run(ask())


TRANSPORTS = pytest.mark.parametrize("ask", [ask_from_a_worker, ask_from_the_triggerer])


@TRANSPORTS
@pytest.mark.parametrize("verify", ["own", False, "false"])
def test_a_self_signed_install_with_its_ca_bundle_or_unchecked(tls: Any, ask: Any, verify: Any) -> None:
    server, connect = tls
    assert server.url.startswith("https://")
    connect(verify)
    assert ask()
    assert {request.operation for request in server.control.requests()} >= {"eggplant.token"}


@TRANSPORTS
@pytest.mark.parametrize("verify", [None, "true", "other"])
def test_a_certificate_that_is_not_accepted_names_the_setting(tls: Any, ask: Any, verify: Any) -> None:
    server, connect = tls
    connect(verify)
    with pytest.raises(TransportError, match=r"Check the connection's extra 'verify'.*CA bundle") as caught:
        ask()
    assert caught.value.not_executed
    assert "'eggplant_default'" in str(caught.value)
    assert server.control.requests() == []


def test_a_ca_bundle_that_is_not_there_names_the_setting(tls: Any, tmp_path: Path) -> None:
    _, connect = tls
    connect(str(tmp_path / "nowhere.pem"))
    good, said = EggplantHook().test_connection()
    assert not good
    assert "verify must be true, false or the path of a CA bundle" in said
