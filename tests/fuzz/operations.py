"""Every operation of every platform, and what the sandbox answers to it when all is well."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_testruns.hooks.base import PlatformHook
from airflow_provider_testruns.hooks.registry import hook_class
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.platform import PollCache
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.steps import Response
from airflow_provider_testruns.transport.blocking import BlockingClient
from airflow_provider_testruns.transport.effects import Request
from airflow_provider_testruns.transport.pace import Pace

Hook = PlatformHook[Any]

#: Methods of hooks that ask no platform.
NO_REQUEST = {
    "ask",
    "client",
    "close",
    "get_conn",
    "make_auth",
    "make_platform",
    "new_client",
    "open_async",
    "platform",
    "read_async",
    "settings",
    "log",
}


@dataclass(frozen=True)
class Exchange:
    """One request and its answer.

    :param method: the request's.
    :param path: the same; without the query.
    :param response: the answer; of a file, with the file as body.
    """

    method: str
    path: str
    response: Response


@dataclass
class Operation:
    """One of a hook's methods, with arguments.

    :param name: as it is reported: ``omilia.get_report``.
    :param platform: whose it is.
    :param run: calls it.
    :param methods: the hook's methods that it stands for.
    :param moves_a_file: whether it is one for workers alone.
    :param of_failed: whether it is about a run in which cases have failed, which nothing may make a passed one.
    :param exchanges: what was asked and answered, in order.
    """

    name: str
    platform: str
    run: Callable[[Hook], Any]
    methods: tuple[str, ...]
    moves_a_file: bool = False
    of_failed: bool = False
    exchanges: list[Exchange] = field(default_factory=list)


class _Recorder(BlockingClient):
    """Notes what is answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exchanges: list[Exchange] = []

    def _send(self, request: Request) -> Response:
        response = super()._send(request)
        body = response.body
        if request.save_to is not None and request.save_to.exists():
            body = request.save_to.read_bytes()
        path = urlsplit(request.url).path
        self.exchanges.append(Exchange(request.method, path, Response(response.status, dict(response.headers), body)))
        return response


@dataclass
class World:
    """All operations, and the hooks to call them on.

    :param hooks: by platform; their connections are read.
    :param operations: recorded.
    :param answers: every answer of each platform, by method and path, for requests that none of an operation's own
        answers is for.
    :param folder: for files.
    """

    hooks: dict[str, Hook]
    operations: list[Operation]
    answers: dict[str, dict[tuple[str, str], Response]]
    folder: Path


@contextmanager
def recorded() -> Iterator[World]:
    """Run a sandbox and record it; it is gone when the recording is complete."""
    before = {name: os.environ.get(name) for name in os.environ if name.lower().endswith("_proxy")}
    for name in before:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        names: list[str] = []
        try:
            with SandboxServer(run_seconds=0.05, seed=1) as server:
                for conn_id, connection in server.connections().items():
                    names.append(f"AIRFLOW_CONN_{conn_id.upper()}")
                    os.environ[names[-1]] = json.dumps(connection)
                yield _record(server, Path(folder))
        finally:
            for name in names:
                os.environ.pop(name, None)
            os.environ.update({name: value for name, value in before.items() if value is not None})


def _record(server: SandboxServer, folder: Path) -> World:
    hooks: dict[str, Hook] = {}
    operations: list[Operation] = []
    answers: dict[str, dict[tuple[str, str], Response]] = {}
    for platform, listed in (("eggplant", _eggplant), ("futureagi", _futureagi), ("omilia", _omilia)):
        hook = hook_class(platform)(f"{platform}_default")
        usual = hook.client
        of_platform = answers[platform] = {}
        for operation in listed(hook, folder, server):
            client = _Recorder(_new_session(usual))
            hook._client = client
            operation.run(hook)
            operation.exchanges = client.exchanges
            of_platform |= {(one.method, one.path): one.response for one in client.exchanges}
            operations.append(operation)
            client.close()
        usual.close()
        hook._client = None
        hooks[platform] = hook
    return World(hooks, operations, answers, folder)


def _new_session(client: BlockingClient) -> Any:
    """A session of the same connection, which knows no token yet, and of no 429."""
    import copy

    session = copy.copy(client.session)
    session.pace = Pace()
    auth = copy.copy(session.auth)
    auth.__dict__.update({name: None for name in ("_token", "_refresh") if name in vars(auth)})
    if "_number" in vars(auth):
        auth._number = 0
    session.auth = auth
    return session


def _final(hook: Hook, run: Run) -> Run:
    until = time.monotonic() + 60
    while not run.final:
        assert time.monotonic() < until, f"{run} does not end"
        time.sleep(0.02)
        run = hook.get_run(run.run_id, **run.ids)
    return run


def _of_runs(
    hook: Hook, passed: Run, failed: Run, start: Mapping[str, Any], where: Mapping[str, str]
) -> list[Operation]:
    """What a run's life is made of, the same for all platforms."""
    platform = hook.platform.name

    def op(
        name: str, run: Callable[[Hook], Any], *methods: str, of_failed: bool = False, moves_a_file: bool = False
    ) -> Operation:
        return Operation(f"{platform}.{name}", platform, run, methods or (name,), moves_a_file, of_failed)

    def steps(make: Callable[[Any], Any]) -> Callable[[Hook], Any]:
        return lambda hook: hook.client.run(make(hook.platform))

    def newest(api: Any) -> Any:
        start_ready = yield from api.prepare_start(**start)
        return (yield from api.newest_run(start_ready))

    ops = [
        op("start_run", lambda hook: hook.start_run(**start)),
        op("newest_run", steps(newest)),
        op("get_run", lambda hook: hook.get_run(passed.run_id, **passed.ids)),
        op("find_runs", lambda hook: hook.find_runs(None, **where)),
        op("cancel_run", lambda hook: hook.cancel_run(passed.run_id, **passed.ids)),
        op("get_report", lambda hook: hook.get_report(passed)),
        op("get_report of a failed run", lambda hook: hook.get_report(failed), "get_report", of_failed=True),
        op("test_connection", lambda hook: hook.test_connection()),
        op("save_artifacts", lambda hook: hook.save_artifacts(failed, hook.fuzz_folder), moves_a_file=True),
    ]

    def recent(api: Any) -> Any:
        ids = yield from api.listed_by(**where)
        return (yield from api.list_recent(passed.started_at, PollCache(), **ids))

    ops.append(op("list_recent", steps(recent)))
    group = hook.platform.group_of(passed)
    if group is not None:
        ops.append(op("list_group", steps(lambda api: api.list_group(group, {passed.run_id}, None))))
    return ops


def _eggplant(hook: Any, folder: Path, server: SandboxServer) -> list[Operation]:
    model, returns, nightly = (f"e0000000-0000-4000-8000-0000000000{n}" for n in ("01", "02", "12"))
    passed = _final(hook, hook.start_execution(model))
    failed = _final(hook, hook.start_execution(returns))
    task = _final(hook, hook.start_test_configuration(nightly))
    (config,) = hook.list_test_configuration_results(test_config_id=nightly)
    tests = hook.list_test_results(test_config_result_id=config["id"])
    test, picture = next((one, shown) for one in tests for shown in hook.list_screenshots(one["id"]))
    number = hook.list_runs(1)[0]["id"]
    hook.fuzz_folder = folder / "eggplant"
    calls: dict[str, Callable[[Any], Any]] = {
        "start_execution": lambda hook: hook.start_execution(model),
        "get_execution": lambda hook: hook.get_execution(passed.run_id),
        "get_run_progress": lambda hook: hook.get_run_progress(passed.run_id),
        "list_model_progress": lambda hook: hook.list_model_progress("Checkout"),
        "abort_execution": lambda hook: hook.abort_execution(passed.run_id),
        "list_runs": lambda hook: hook.list_runs(),
        "get_run_details": lambda hook: hook.get_run_details(number),
        "get_run_logs": lambda hook: hook.get_run_logs(number),
        "list_models": lambda hook: hook.list_models(),
        "list_agents": lambda hook: hook.list_agents(),
        "start_test_configuration": lambda hook: hook.start_test_configuration(nightly),
        "get_test_configuration_task": lambda hook: hook.get_test_configuration_task(task.run_id),
        "list_test_results": lambda hook: hook.list_test_results(test_config_result_id=config["id"]),
        "get_test_result": lambda hook: hook.get_test_result(test["id"]),
        "get_test_result_logs": lambda hook: hook.get_test_result_logs(test["id"]),
        "list_screenshots": lambda hook: hook.list_screenshots(test["id"]),
        "list_test_configuration_results": lambda hook: hook.list_test_configuration_results(),
        "get_test_configuration_result": lambda hook: hook.get_test_configuration_result(config["id"]),
        "get_junit": lambda hook: hook.get_junit(config["id"]),
        "list_test_configurations": lambda hook: hook.list_test_configurations(),
    }
    of_task = Operation(
        "eggplant.get_report of a failed test configuration",
        "eggplant",
        lambda hook: hook.get_report(task),
        ("get_report",),
        of_failed=True,
    )
    poll_task = Operation(
        "eggplant.get_run of a test configuration",
        "eggplant",
        lambda hook: hook.get_run(task.run_id, **task.ids),
        ("get_run",),
    )
    image = Operation(
        "eggplant.download_screenshot",
        "eggplant",
        lambda hook: hook.download_screenshot(picture["id"], hook.fuzz_folder),
        ("download_screenshot",),
        moves_a_file=True,
    )
    shared = _of_runs(hook, passed, failed, {"model_id": model}, {"model_name": "Checkout"})
    return [*shared, of_task, poll_task, image, *_named(hook, calls)]


def _futureagi(hook: Any, folder: Path, server: SandboxServer) -> list[Operation]:
    good, flaky = "fa000000-0000-4000-8000-000000000001", "fa000000-0000-4000-8000-000000000002"
    passed = _final(hook, hook.execute_test_run(good, select_all=True))
    failed = _final(hook, hook.execute_test_run(flaky, select_all=True))
    again = _final(hook, hook.execute_test_run(flaky, select_all=True))
    hook.fuzz_folder = folder / "futureagi"
    call_id = hook.list_call_results(passed.run_id)[0]["call_execution_id"]
    calls: dict[str, Callable[[Any], Any]] = {
        "execute_test_run": lambda hook: hook.execute_test_run(good, select_all=True),
        "get_test_execution": lambda hook: hook.get_test_execution(passed.run_id, good),
        "list_executions": lambda hook: hook.list_executions(good),
        "cancel_test_execution": lambda hook: hook.cancel_test_execution(passed.run_id),
        "rerun_calls": lambda hook: hook.rerun_calls(again.run_id, "eval_only", select_all=True),
        "list_run_tests": lambda hook: hook.list_run_tests(),
        "get_run_test": lambda hook: hook.get_run_test(good),
        "get_run_test_id": lambda hook: hook.get_run_test_id("nightly-support-sim"),
        "get_run_test_status": lambda hook: hook.get_run_test_status(good),
        "list_scenarios": lambda hook: hook.list_scenarios(good),
        "get_metrics": lambda hook: hook.get_metrics(passed.run_id),
        "get_analytics": lambda hook: hook.get_analytics(passed.run_id),
        "list_call_results": lambda hook: hook.list_call_results(passed.run_id),
        "get_kpis": lambda hook: hook.get_kpis(passed.run_id),
        "get_performance_summary": lambda hook: hook.get_performance_summary(passed.run_id),
        "get_call_execution": lambda hook: hook.get_call_execution(call_id),
        "get_test_execution_detail": lambda hook: hook.get_test_execution_detail(passed.run_id),
        "get_eval_summary": lambda hook: hook.get_eval_summary(good, passed.run_id),
        "list_transcripts": lambda hook: hook.list_transcripts(passed.run_id),
        "health": lambda hook: hook.health(),
    }
    export = Operation(
        "futureagi.export_csv",
        "futureagi",
        lambda hook: hook.export_csv(passed.run_id, hook.fuzz_folder / "export.csv"),
        ("export_csv",),
        moves_a_file=True,
    )
    template = "fa000000-0000-4000-8000-0000000000c1"
    prompt = server.control.create_run_test("prompt", prompt_template=template)
    prompts = Operation(
        "futureagi.execute_test_run of a prompt simulation",
        "futureagi",
        lambda hook: hook.execute_test_run(prompt, select_all=True),
        ("execute_test_run",),
    )
    simulator = "fa000000-0000-4000-8000-0000000000a3"
    simulated = Operation(
        "futureagi.execute_test_run with a simulator",
        "futureagi",
        lambda hook: hook.execute_test_run(good, select_all=True, simulator_id=simulator),
        ("execute_test_run",),
    )
    start = {"run_test_name": "nightly-support-sim", "select_all": True}
    shared = _of_runs(hook, passed, failed, start, {"run_test_id": good})
    return [*shared, export, prompts, simulated, *_named(hook, calls)]


def _omilia(hook: Any, folder: Path, server: SandboxServer) -> list[Operation]:
    smoke, regression = "0a000000-0000-4000-8000-000000000001", "0a000000-0000-4000-8000-000000000002"
    passed = _final(hook, hook.create_run(smoke))
    failed = _final(hook, hook.create_run(regression))
    generation = _final(hook, hook.start_run(kind="generation", project_id=smoke))
    spare = hook.create_project("spare", "qa")["id"]
    smoke_name = hook.get_project(smoke)["name"]
    dialog = hook.list_run_test_cases(failed.run_id)[0]["dialogId"]
    hook.fuzz_folder = folder / "omilia"
    suites = folder / "suites.zip"
    hook.download_test_suites(smoke, suites)
    server.control.plan_next("omilia", duration=600.0)
    going = hook.create_run(regression)
    calls: dict[str, Callable[[Any], Any]] = {
        "healthcheck": lambda hook: hook.healthcheck(),
        "list_projects": lambda hook: hook.list_projects(),
        "find_project_id": lambda hook: hook.find_project_id(smoke_name),
        "create_project": lambda hook: hook.create_project("fuzz", "qa"),
        "get_project": lambda hook: hook.get_project(smoke),
        "update_project": lambda hook: hook.update_project(spare, "fuzz", "qa"),
        "list_project_runs": lambda hook: hook.list_project_runs(smoke),
        "list_project_generations": lambda hook: hook.list_project_generations(smoke),
        "list_project_run_stats": lambda hook: hook.list_project_run_stats(smoke),
        "create_run": lambda hook: hook.create_run(smoke),
        "revoke_run": lambda hook: hook.revoke_run(going.run_id),
        "list_run_test_suites": lambda hook: hook.list_run_test_suites(failed.run_id),
        "get_run_stats": lambda hook: hook.get_run_stats(failed.run_id),
        "list_run_test_cases": lambda hook: hook.list_run_test_cases(failed.run_id),
        "get_run_logs": lambda hook: hook.get_run_logs(failed.run_id),
        "create_generation": lambda hook: hook.create_generation(smoke),
        "get_generation": lambda hook: hook.get_generation(generation.run_id, smoke),
        "get_golden_dialog": lambda hook: hook.get_golden_dialog(dialog),
        "delete_project": lambda hook: hook.delete_project(spare),
    }
    files: dict[str, Callable[[Any], Any]] = {
        "upload_test_suites": lambda hook: hook.upload_test_suites(smoke, suites),
        "download_test_suites": lambda hook: hook.download_test_suites(smoke, hook.fuzz_folder / "suites.zip"),
        "download_run_artifact": lambda hook: hook.download_run_artifact(failed.run_id, hook.fuzz_folder / "run.zip"),
        "download_generation_artifact": lambda hook: hook.download_generation_artifact(
            generation.run_id, hook.fuzz_folder / "generation.zip", smoke
        ),
        "save_golden_dialog": lambda hook: hook.save_golden_dialog(dialog, hook.fuzz_folder / "dialog.json"),
    }
    log = Operation(
        "omilia.read_log", "omilia", lambda hook: hook.client.run(hook.platform.read_log(failed)), ("get_run_logs",)
    )
    find = Operation(
        "omilia.find_artifact",
        "omilia",
        lambda hook: hook.client.run(hook.platform.find_artifact(failed.kind, failed.run_id, regression)),
        ("download_run_artifact",),
    )
    shared = _of_runs(hook, passed, failed, {"project_id": smoke}, {"project_id": smoke})
    return [*shared, log, find, *_named(hook, files, moves_a_file=True), *_named(hook, calls)]


def _named(hook: Hook, calls: Mapping[str, Callable[[Any], Any]], moves_a_file: bool = False) -> list[Operation]:
    name = hook.platform.name
    return [
        Operation(f"{name}.{method}", name, run, (method,), moves_a_file)
        for method, run in calls.items()
        # Some are there only once another part of the provider has them.
        if hasattr(hook, method)
    ]


def public_methods(platform: str) -> set[str]:
    """The methods of a platform's hook that ask the platform."""
    found = set()
    for one in hook_class(platform).__mro__:
        if one.__module__.startswith("airflow_provider_testruns.hooks"):
            found |= {name for name, item in vars(one).items() if callable(item)}
    return {name for name in found if not name.startswith("_")} - NO_REQUEST
