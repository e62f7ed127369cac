"""Future AGI simulate: run tests, their executions, calls and evaluations, in both dialects.

====================  ========================================  ====================================================
Run test              Id                                        Its executions
====================  ========================================  ====================================================
nightly-support-sim   fa000000-0000-4000-8000-000000000001      all calls complete; every evaluation is good (chat)
flaky-support-sim     fa000000-0000-4000-8000-000000000002      a call of four fails; it passes on a rerun (voice)
dead-agent-sim        fa000000-0000-4000-8000-000000000003      fail before a call is attempted (chat)
empty-sim             fa000000-0000-4000-8000-000000000004      complete without a call (chat)
failing-agent-sim     fa000000-0000-4000-8000-000000000005      fail, as every call fails (chat)
quality-sim           fa000000-0000-4000-8000-000000000006      all calls complete; outputs of every form, tools (voice)
====================  ========================================  ====================================================

The scenarios of the nth run test are ``fa000000-0000-4000-8000-0000000n0001`` and so on. Chat executions keep a null
``completed_at`` and counters of 0 for ever, as the product's do; voice executions have no calls before they run.

The dialect follows the credentials: a bearer token is the documented one, the two key headers are the current one.
Keys are bound to a workspace, and find the run tests of no other. The unbound ones go by ``X-Workspace-Id``, and
without it by the workspace that their user has opened last. The calls below ``/sdk`` know no workspaces.
"""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from .clock import zulu
from .engine import Ending, Phase, SimulatedRun, Target, ending_for_name
from .exchange import (
    Exchange,
    Operation,
    Refusal,
    Response,
    encoded_json_response,
    file_response,
    html_response,
    json_response,
)
from .futureagi_calls import (
    WORKSPACE_ID,
    AgentExecution,
    Call,
    RunTest,
    Scenario,
    average_scores,
    make_evaluations,
    make_rich_evaluations,
    named_id,
    percent,
    summarize,
)
from .futureagi_rules import (
    BAD_UUID,
    NO_CREDENTIALS,
    NOT_FOUND_PAGE,
    PAGING,
    SDK_QUERY,
    Problems,
    check_any,
    check_boolean,
    check_flag,
    check_ids,
    check_text,
    check_uuid,
    error,
    invalid,
    is_uuid,
    not_found,
    read_json,
    read_query,
    unauthenticated,
)
from .futureagi_views import (
    SIMULATOR_ID,
    call_detail,
    call_head,
    call_metrics,
    call_row,
    call_transcript,
    charts_json,
    columns_json,
    csv_export,
    kpis_json,
    metrics_json,
    performance_json,
    row_json,
    run_test_json,
    runs_json,
)
from .identity import bearer_token
from .mistakes import Mistake
from .platform import Plan, PlatformAPI, RunDescription, duration_of, ending_of

API_KEY = "sandbox-canary-futureagi-api-key"
SECRET_KEY = "sandbox-canary-futureagi-secret-key"
#: Keys of a user who made them before there were workspaces.
UNBOUND_API_KEY = "sandbox-canary-futureagi-unbound-api-key"
UNBOUND_SECRET_KEY = "sandbox-canary-futureagi-unbound-secret-key"
#: What the web app sends as a bearer token.
LOGIN_TOKEN = "sandbox-canary-futureagi-login-token"


_WORKFLOW_DOWN = "Failed client connect: the workflow service does not answer"
#: Long enough for an execution to be pending whenever somebody looks.
_FOR_EVER = 1e12


def silence() -> bytes:
    """Return a second of silence as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(b"\x80" * 8000)
    return buffer.getvalue()


class FutureAgiAPI(PlatformAPI):
    """The API of Future AGI."""

    name: ClassVar[str] = "futureagi"
    prefix: ClassVar[str] = "/futureagi"

    def reset(self) -> None:
        """Go back to the named run tests, without executions."""
        super().reset()
        self._reject_until = 0.0
        self.run_tests: dict[str, RunTest] = {}
        for number, name, ending, agent_type, recovers, scenarios in (
            (
                1,
                "nightly-support-sim",
                Ending.PASSED,
                "text",
                False,
                (("Card blocked abroad", 2, ()), ("Parcel is late", 2, ()), ("Change of address", 1, ())),
            ),
            (
                2,
                "flaky-support-sim",
                Ending.FAILED,
                "voice",
                True,
                (("Charged twice", 2, (1,)), ("Cancel the subscription", 2, ())),
            ),
            (3, "dead-agent-sim", Ending.ERRORED, "text", False, (("Opening hours", 2, ()),)),
            (4, "empty-sim", Ending.EMPTY, "text", False, (("Nothing in the dataset", 0, ()),)),
            (
                5,
                "failing-agent-sim",
                Ending.FAILED,
                "text",
                False,
                (("Opening hours on Sunday", 2, (0, 1)), ("Lost password", 1, (0,))),
            ),
            (6, "quality-sim", Ending.PASSED, "voice", False, (("Angry caller", 4, ()), ("Two questions", 3, ()))),
        ):
            self.run_tests[named_id(number)] = RunTest(
                named_id(number),
                name,
                ending,
                scenarios=tuple(
                    Scenario(named_id(number * 10_000 + i), title, rows, flawed)
                    for i, (title, rows, flawed) in enumerate(scenarios, start=1)
                ),
                evaluations=make_rich_evaluations(number) if number == 6 else make_evaluations(number),
                agent_type=agent_type,
                recovers=recovers,
                tools=("lookup", "refund") if number == 6 else (),
            )

    def operations(self) -> Iterable[Operation]:
        """Return the operations of the API."""
        run_test = "/simulate/run-tests/{run_test_id:uuid}"
        execution = "/simulate/test-executions/{execution_id:uuid}"
        sdk = "/sdk/api/v1/simulation"
        return (
            Operation("futureagi.health", "GET", "/health/", self._health, open=True),
            Operation("futureagi.public_health", "GET", "/api/public/health", self._public_health),
            Operation("futureagi.list_run_tests", "GET", "/simulate/run-tests/", self._list_run_tests),
            Operation("futureagi.get_run_test", "GET", f"{run_test}/", self._get_run_test),
            Operation("futureagi.get_simulator", "GET", "/simulate/simulator-agents/{simulator_id}/", self._simulator),
            Operation(
                "futureagi.get_run_test_id",
                "GET",
                "/simulate/run-tests/get-id-by-name/{run_test_name}/",
                self._get_run_test_id,
            ),
            Operation("futureagi.list_scenarios", "GET", f"{run_test}/scenarios/", self._list_scenarios),
            Operation("futureagi.execute", "POST", f"{run_test}/execute/", self._execute),
            Operation(
                "futureagi.execute_prompt",
                "POST",
                "/simulate/prompt-templates/{template_id:uuid}/simulations/{run_test_id:uuid}/execute/",
                self._execute_prompt,
            ),
            Operation("futureagi.run_test_status", "GET", f"{run_test}/status/", self._run_test_status),
            Operation("futureagi.list_executions", "GET", f"{run_test}/executions/", self._list_executions),
            Operation("futureagi.eval_summary", "GET", f"{run_test}/eval-summary/", self._eval_summary),
            Operation("futureagi.get_execution", "GET", f"{execution}/", self._get_execution),
            Operation("futureagi.cancel_execution", "POST", f"{execution}/cancel/", self._cancel),
            Operation("futureagi.rerun_calls", "POST", f"{execution}/rerun-calls/", self._rerun_calls),
            Operation("futureagi.kpis", "GET", f"{execution}/kpis/", self._kpis),
            Operation(
                "futureagi.performance_summary",
                "GET",
                f"{execution}/performance-summary/",
                self._performance_summary,
            ),
            Operation("futureagi.execution_analytics", "GET", f"{execution}/analytics/", self._charts),
            Operation("futureagi.transcripts", "GET", f"{execution}/transcripts/", self._transcripts),
            Operation(
                "futureagi.call_transcripts",
                "GET",
                "/simulate/call-executions/{call_id:uuid}/transcripts/",
                self._call_transcripts,
            ),
            Operation("futureagi.get_call", "GET", "/simulate/call-executions/{call_id:uuid}/", self._get_call),
            Operation("futureagi.recording", "GET", "/recordings/{call_id:uuid}/{channel}", self._recording, open=True),
            Operation("futureagi.export", "GET", "/simulate/export/{item_id:uuid}/", self._export),
            Operation("futureagi.metrics", "GET", f"{sdk}/metrics/", self._metrics),
            Operation("futureagi.analytics", "GET", f"{sdk}/analytics/", self._analytics),
            Operation("futureagi.runs", "GET", f"{sdk}/runs/", self._runs),
        )

    # Answers that are the same everywhere

    def reject_credentials(self, seconds: float) -> None:
        """Refuse the keys for a while."""
        self._reject_until = self.clock.now() + seconds

    def authenticate(self, exchange: Exchange) -> None:
        """Accept the API key as a bearer token, or both keys in their headers."""
        token = bearer_token(exchange)
        api_key, secret_key = exchange.headers.get("x-api-key"), exchange.headers.get("x-secret-key")
        if self.clock.now() < self._reject_until:
            raise unauthenticated("authentication_failed", "Invalid API key or secret key")
        if token is not None or exchange.headers.get("authorization", "").lower().startswith("basic"):
            if api_key or secret_key:
                raise unauthenticated(
                    "authentication_failed",
                    "Invalid Token parsed: Invalid token encryption",
                    "Authorization beside X-Api-Key",
                )
            if self.settings.futureagi_dialects == "current" and token == LOGIN_TOKEN:
                # It reads, and what it starts must be said in the current dialect.
                exchange.params = {**exchange.params, "dialect": "current", "workspace": WORKSPACE_ID}
                return
            if token != API_KEY or self.settings.futureagi_dialects == "current":
                raise unauthenticated("authentication_failed", "Invalid Token parsed: Invalid token encryption")
            exchange.params = {**exchange.params, "dialect": "documented", "workspace": WORKSPACE_ID}
            return
        if not api_key or not secret_key:
            raise unauthenticated("not_authenticated", NO_CREDENTIALS, "no credentials")
        # What those know who have no current dialect are the names of its headers.
        dialect = "documented" if self.settings.futureagi_dialects == "documented" else "current"
        workspace = WORKSPACE_ID
        if (api_key, secret_key) == (UNBOUND_API_KEY, UNBOUND_SECRET_KEY):
            wanted = exchange.headers.get("x-workspace-id", "") or self.settings.futureagi_open_workspace
            workspace = wanted.lower() or WORKSPACE_ID
        elif (api_key, secret_key) != (API_KEY, SECRET_KEY):
            raise unauthenticated("authentication_failed", "Invalid API key or secret key")
        exchange.params = {**exchange.params, "dialect": dialect, "workspace": workspace}

    def before_operation(self, exchange: Exchange, operation: Operation) -> None:
        """Refuse a client that would not take JSON."""
        accepted = exchange.headers.get("accept", "*/*")
        types = {part.partition(";")[0].strip().lower() for part in accepted.split(",")}
        if not types & {"*/*", "application/*", "application/json"}:
            text = "Could not satisfy the request Accept header."
            raise Refusal(error(406, "api_error", "not_acceptable", text, {"detail": [text]}), f"Accept: {accepted}")

    def unknown_path(self, exchange: Exchange) -> Response:
        """Answer a path that does not exist: 301 when only the last slash is missing, else a page."""
        path = f"{exchange.raw_path}/"
        if not exchange.raw_path.endswith("/") and self.identify(exchange.method, path).allowed:
            exchange.note("the slash at the end is missing")
            query = f"?{exchange.query}" if exchange.query else ""
            location = ("location", f"{self.prefix}{path}{query}")
            return Response(301, b"", [("content-type", "text/html; charset=utf-8"), location])
        exchange.note("no such path; UUIDs are in lower case, slashes count")
        return html_response(404, NOT_FOUND_PAGE)

    def wrong_method(self, exchange: Exchange, allowed: tuple[str, ...]) -> Response:
        """Answer 405, to those who may ask."""
        self.authenticate(exchange)
        text = f'Method "{exchange.method}" not allowed.'
        response = error(405, "api_error", "method_not_allowed", text, {"detail": [text]})
        response.headers.append(("allow", ", ".join(allowed)))
        return response

    @staticmethod
    def _simulator(exchange: Exchange) -> Response:
        if exchange.params["simulator_id"] != SIMULATOR_ID:
            raise not_found("No SimulatorAgent matches the given query.")
        return json_response(200, {"id": SIMULATOR_ID, "name": "Sandbox customer"})

    def _run_test(self, exchange: Exchange, dot: str = "") -> RunTest:
        run_test = self._visible(exchange, exchange.params["run_test_id"])
        if run_test is None:
            raise not_found(f"Run test not found{dot}")
        return run_test

    def _visible(self, exchange: Exchange, run_test_id: str) -> RunTest | None:
        """Return a run test of the request's workspace."""
        run_test = self.run_tests.get(run_test_id)
        return run_test if run_test is not None and run_test.workspace == exchange.params["workspace"] else None

    def _find(self, execution_id: str, exchange: Exchange | None = None) -> AgentExecution | None:
        """Return an execution; with an exchange, one of its workspace only."""
        run = self.runs.find(execution_id)
        if not isinstance(run, AgentExecution):
            return None
        return run if exchange is None or self._visible(exchange, run.run_test.id) else None

    def _execution(self, execution_id: str, dot: str = ".", exchange: Exchange | None = None) -> AgentExecution:
        run = self._find(execution_id.lower(), exchange)
        if run is None:
            raise not_found(f"Test execution not found{dot}")
        return run

    def _listed(self, run_test: RunTest) -> list[AgentExecution]:
        """Return the executions of a run test that lists show, newest first."""
        runs = [r for r in self.runs.listed(run_test.id) if isinstance(r, AgentExecution)]
        runs.reverse()
        return runs

    def _page(self, exchange: Exchange, count: int, page: int, limit: int, what: str) -> tuple[slice, dict[str, Any]]:
        """Return which items a page shows, and what the response says about paging."""
        pages = max(1, -(-count // limit))
        if page > pages:
            raise Refusal(
                error(500, "server_error", "server_error", f"Failed to retrieve {what}: Invalid page."),
                "a page past the end",
            )
        others = [(k, v) for k, v in exchange.arguments().items() if k != "page"]

        def link(number: int) -> str:
            query = [*others, ("page", str(number))] if number > 1 else others
            suffix = f"?{urlencode(query)}" if query else ""
            return f"{exchange.origin}{exchange.raw_path}{suffix}"

        paging = {
            "count": count,
            "next": link(page + 1) if page < pages else None,
            "previous": link(page - 1) if page > 1 else None,
            "total_pages": pages,
            "current_page": page,
        }
        return slice((page - 1) * limit, page * limit), paging

    # Run tests

    def _health(self, exchange: Exchange) -> Response:
        if any(name in exchange.headers for name in ("authorization", "x-api-key", "x-secret-key")):
            self.authenticate(exchange)
        return json_response(200, {"status": True, "result": "Server is up and running"})

    def _public_health(self, exchange: Exchange) -> Response:
        return json_response(200, {"status": "OK", "version": "1.0.0"})

    def _list_run_tests(self, exchange: Exchange) -> Response:
        known = {
            **PAGING,
            "search": check_any,
            "simulation_type": check_any,
            "prompt_template_id": check_uuid,
        }
        query = read_query(exchange, known)
        search = query.get("search", "").casefold()
        found = [
            t
            for t in self.run_tests.values()
            if search in t.name.casefold() and t.workspace == exchange.params["workspace"]
        ]
        if "simulation_type" in query:
            found = [t for t in found if t.is_prompt == (query["simulation_type"] == "prompt")]
        page, limit = int(query.get("page", 1)), int(query.get("limit", 10))
        shown, paging = self._page(exchange, len(found), page, limit, "run tests")
        return json_response(200, {**paging, "results": [self._run_test_json(t) for t in found[shown]]})

    def _run_test_json(self, run_test: RunTest) -> dict[str, Any]:
        latest = self.runs.latest(run_test.id)
        return run_test_json(run_test, None if latest is None else latest.created)

    def _get_run_test(self, exchange: Exchange) -> Response:
        return json_response(200, self._run_test_json(self._run_test(exchange)))

    def _get_run_test_id(self, exchange: Exchange) -> Response:
        name = exchange.params["run_test_name"]
        for run_test in self.run_tests.values():
            if run_test.name == name and run_test.workspace == exchange.params["workspace"]:
                result = {"run_test_id": run_test.id, "run_test_name": run_test.name}
                return json_response(200, {"status": True, "result": result})
        raise Refusal(invalid("Run test not found"))

    def _list_scenarios(self, exchange: Exchange) -> Response:
        run_test = self._run_test(exchange)
        page, limit, search, _ = self._loose_paging(exchange)
        found = [s for s in run_test.scenarios if search in s.name.casefold()]
        shown, paging = self._page(exchange, len(found), page, limit, "scenarios")
        results = [{"id": s.id, "name": s.name, "row_count": s.rows} for s in found[shown]]
        return json_response(200, {**paging, "results": results})

    def _loose_paging(self, exchange: Exchange) -> tuple[int, int, str, str | None]:
        """Return page, limit, search and status of the calls that do not check their query."""
        arguments = exchange.arguments()
        for name in sorted(arguments.keys() - {"page", "limit", "search", "status"}):
            exchange.note(f"unknown query parameter {name}")

        def number(name: str, default: int) -> int:
            value = arguments.get(name, "")
            if name in arguments and not (value.isdecimal() and int(value) > 0):
                exchange.note(f"{name}={value}")
            return int(value) if value.isdecimal() and int(value) > 0 else default

        search = arguments.get("search", "").casefold()
        return number("page", 1), number("limit", 10), search, arguments.get("status")

    # Starting and stopping

    def _execute(self, exchange: Exchange) -> Response:
        documented = exchange.params["dialect"] == "documented"
        run_test = self._visible(exchange, exchange.params["run_test_id"])
        body = read_json(exchange)
        ids_name, all_name, simulator_name = (
            ("scenarioIds", "selectAll", "simulatorId")
            if documented
            else ("scenario_ids", "select_all", "simulator_id")
        )
        problems = Problems()
        for name, value in body.items():
            if name == ids_name:
                check_ids(problems, name, value)
            elif name == all_name:
                check_boolean(problems, name, value)
            elif name == simulator_name:
                if value is not None and not is_uuid(value):
                    problems.add(name, BAD_UUID)
            else:
                problems.add(name, "Unknown field.")
        problems.refuse()
        if run_test is None:
            raise not_found("Run test not found")
        asked = [str(i).lower() for i in body.get(ids_name, [])]
        chosen = self._choose(run_test, asked, documented and body.get(all_name, False))
        if not chosen:
            raise Refusal(invalid("At least one scenario is required to execute the test."))
        arguments = {
            "run_test_id": run_test.id,
            "dialect": exchange.params["dialect"],
            "scenario_ids": asked,
            "select_all": body.get(all_name, False),
            "simulator_id": body.get(simulator_name),
        }
        started = self._started(run_test, chosen, arguments, "Test execution started successfully")
        return json_response(200, {**started, "status": "PENDING" if documented else "started"})

    def _execute_prompt(self, exchange: Exchange) -> Response:
        """Start a prompt simulation. Whatever does not belong together is a 500."""
        run_test = self._visible(exchange, exchange.params["run_test_id"])
        body = read_json(exchange)
        problems = Problems()
        for name, value in body.items():
            if name == "scenario_ids":
                check_ids(problems, name, value)
            elif name == "select_all":
                check_boolean(problems, name, value)
            else:
                problems.add(name, "Unknown field.")
        problems.refuse()
        if run_test is None or run_test.prompt_template != exchange.params["template_id"]:
            raise Refusal(error(500, "server_error", "server_error", "Failed to execute simulation"))
        if not run_test.has_prompt_version:
            text = "Prompt version has been deleted. Please update the simulation with a valid version."
            raise Refusal(invalid(text))
        asked = [str(i).lower() for i in body.get("scenario_ids", [])]
        # Here the flag does what its name says.
        chosen = self._choose(run_test, asked, body.get("select_all", False))
        if not chosen:
            raise Refusal(invalid("At least one scenario is required to execute the test."))
        arguments = {
            "run_test_id": run_test.id,
            "prompt_template_id": run_test.prompt_template,
            "dialect": exchange.params["dialect"],
            "scenario_ids": asked,
            "select_all": body.get("select_all", False),
        }
        started = self._started(run_test, chosen, arguments, "Simulation execution started successfully")
        return json_response(200, {"status": True, "result": {**started, "status": "pending"}})

    def _started(self, run_test: RunTest, chosen: list[str], arguments: dict[str, Any], message: str) -> dict[str, Any]:
        """Start an execution, and say so."""
        plan = self.take_plan(run_test)
        if run_test.is_prompt and "prompt_template_id" not in arguments:
            # The worker makes voice calls for it, without an agent or a phone.
            plan = Plan(Ending.ERRORED, plan.duration)
        if self.settings.futureagi_workflow_down:
            # The execution is in the database already, and stays pending for ever.
            self._new_execution(run_test, chosen, arguments, self.clock.now(), Plan(plan.ending, _FOR_EVER))
            raise Refusal(invalid(f"Failed to start hosted test execution: {_WORKFLOW_DOWN}"))
        run = self._new_execution(run_test, chosen, arguments, self.clock.now(), plan)
        # A voice execution's calls are only made once it runs.
        return {
            "message": message,
            "execution_id": run.run_id,
            "run_test_id": run_test.id,
            "total_scenarios": len(chosen),
            "total_calls": 0 if run.is_voice else len(run.calls),
            "scenario_ids": chosen,
        }

    def _choose(self, run_test: RunTest, asked: list[str], all_but: bool) -> list[str]:
        """Return the ids of the scenarios that will run. The current dialect ignores its flag."""
        attached = [s.id for s in run_test.scenarios]
        if not asked:
            return attached
        return [i for i in attached if i not in asked] if all_but else asked

    def _scenario(self, scenario_id: str) -> Scenario | None:
        """Return a scenario of any run test: one that is not attached runs as well."""
        for run_test in self.run_tests.values():
            for scenario in run_test.scenarios:
                if scenario.id == scenario_id:
                    return scenario
        return None

    def _new_execution(
        self,
        run_test: RunTest,
        scenario_ids: list[str],
        arguments: dict[str, Any],
        created: float,
        plan: Plan,
    ) -> AgentExecution:
        scenarios = [s for s in map(self._scenario, scenario_ids) if s is not None]
        run = AgentExecution(
            platform=self.name,
            kind="run",
            run_id=self.new_id(),
            number=self.next_number(),
            target_id=run_test.id,
            target_name=run_test.name,
            created=created,
            duration=duration_of(plan),
            ending=ending_of(plan),
            failing=plan.failing,
            arguments=arguments,
            evaluates=True,
            scenario_ids=scenario_ids,
            scenario_names=", ".join(dict.fromkeys(s.name for s in scenarios)) or "No scenarios",
            run_test=run_test,
            stuck=run_test.never_closes,
        )
        run.add_calls(scenarios, self.new_id)
        self.runs.add(run)
        return run

    def _cancel(self, exchange: Exchange) -> Response:
        body = read_json(exchange)
        if body:
            text = "This endpoint does not accept a request body."
            details = {"non_field_errors": [text], **{name: ["Unknown field."] for name in body}}
            raise Refusal(error(400, "validation_error", "invalid", text, details, next(iter(body))), text)
        run = self._execution(exchange.params["execution_id"], dot="", exchange=exchange)
        now = self.clock.now()
        message = "Cancellation signal sent to workflow"
        if run.phase(now).is_final:
            # It does not look whether the execution is over: a completed one becomes cancelled.
            message = "Test execution cancellation initiated"
            run.cancel_requested = None
            run.request_cancel(now, 0.0, "futureagi.cancel_execution")
        else:
            run.request_cancel(now, self.settings.cancel_seconds, "futureagi.cancel_execution")
        return json_response(200, {"success": True, "message": message, "test_execution_id": run.run_id})

    def _rerun_calls(self, exchange: Exchange) -> Response:
        body = read_json(exchange)
        problems = Problems()
        if "rerun_type" not in body:
            problems.add("rerun_type", "This field is required.", "required")
        for name, value in body.items():
            if name == "rerun_type":
                if value not in ("eval_only", "call_and_eval"):
                    problems.add(name, f'"{value}" is not a valid choice.', "invalid_choice")
            elif name == "call_execution_ids":
                check_ids(problems, name, value)
            elif name == "select_all":
                check_boolean(problems, name, value)
            else:
                problems.add(name, "Unknown field.")
        if not problems.details and not body.get("select_all") and not body.get("call_execution_ids"):
            problems.add(
                "non_field_errors",
                "Either 'select_all' must be True or 'call_execution_ids' must be provided",
            )
        problems.refuse()
        run = self._execution(exchange.params["execution_id"], dot="", exchange=exchange)
        now = self.clock.now()
        status = run.status(now)
        if not run.phase(now).is_final:
            raise Refusal(
                invalid(
                    f"Cannot rerun calls while test execution is in '{status}' status. "
                    "Wait for it to complete or cancel it first."
                )
            )
        rerun_type: str = body["rerun_type"]
        if rerun_type == "call_and_eval" and not run.is_voice:
            raise Refusal(invalid("Text/Chat agents only support 'eval_only' rerun type."))
        wanted = {str(i).lower() for i in body.get("call_execution_ids", [])}
        chosen = [c for c in run.calls if body.get("select_all") or c.id in wanted]
        if not chosen:
            raise Refusal(invalid("No call executions found that can be rerun."))
        failed: list[Call] = []
        message = f"Bulk call execution rerun prepared and initiated successfully ({rerun_type})"
        if self.settings.futureagi_workflow_down:
            chosen, failed = [], chosen
            message = f"Bulk call execution rerun prepared; async dispatch failed and can be retried ({rerun_type})"
        else:
            usual = run.run_test.duration
            duration = self.settings.run_seconds if usual is None else usual
            run.rerun(chosen, now, duration, evaluates_only=rerun_type == "eval_only")
        return json_response(
            200,
            {
                "message": message,
                "test_execution_id": run.run_id,
                "rerun_type": rerun_type,
                "total_processed": len(chosen) + len(failed),
                "successful_reruns": [c.id for c in chosen],
                "failed_reruns": [{"call_execution_id": c.id, "error": _WORKFLOW_DOWN} for c in failed],
                "success_count": len(chosen),
                "failure_count": len(failed),
                "dispatch_error": _WORKFLOW_DOWN if failed else None,
            },
        )

    # Where an execution stands

    def _run_test_status(self, exchange: Exchange) -> Response:
        run_test = self._run_test(exchange)
        run = next(iter(self._listed(run_test)), None)
        if run is None:
            missing = "Test execution not found in database"
            return json_response(200, {"run_test_id": run_test.id, "status": "not_found", "error": missing})
        now = self.clock.now()
        counts = run.counts(now)
        # It counts a call as completed that is still analyzed.
        completed = counts["completed"] + counts["analyzing"]
        status = run.status(now)
        finished = run.completed_at(now)
        return json_response(
            200,
            {
                "run_test_id": run_test.id,
                "execution_id": run.run_id,
                "status": status,
                "message": f"Test execution {status} with {completed} successful and {counts['failed']} failed calls",
                "total_scenarios": len(run.scenario_ids),
                "total_calls": counts["total"],
                "completed_calls": completed,
                "failed_calls": counts["failed"],
                "success_rate": percent(completed, counts["total"]),
                "start_time": zulu(run.created),
                "end_time": None if finished is None else zulu(finished),
                "scenarios": [],
                "error": None,
            },
        )

    def _list_executions(self, exchange: Exchange) -> Response:
        run_test = self._run_test(exchange, dot=".")
        page, limit, search, status = self._loose_paging(exchange)
        now = self.clock.now()
        runs = self._listed(run_test)
        if status:
            # Lower case only, and one of them.
            runs = [r for r in runs if r.status(now) == status]
        if search:
            runs = [r for r in runs if search in r.status(now) or search in r.scenario_names.casefold()]
        shown, paging = self._page(exchange, len(runs), page, limit, "test executions")
        rows = ", ".join(self._row(run, now) for run in runs[shown])
        head = json.dumps(paging)[:-1]
        return encoded_json_response(200, f'{head}, "results": [{rows}]}}'.encode())

    def _row(self, run: AgentExecution, now: float) -> str:
        """Return the execution as the list shows it, as JSON text."""
        cached = run.cached_row(now)
        if cached is not None:
            return cached
        phase = run.phase(now)
        # A call's status can change at every tenth of its share.
        tenths = int(run.progress(now) * 10 * max(1, len(run.calls)))
        until = math.inf if phase.is_final else 0.0
        return run.cache_row((run.revision, phase, tenths), until, lambda: row_json(run, now))

    # Results

    def _eval_summary(self, exchange: Exchange) -> Response:
        run_test = self._run_test(exchange, dot=".")
        query = read_query(exchange, {"execution_id": check_uuid})
        now = self.clock.now()
        if "execution_id" in query:
            run = self._find(query["execution_id"].lower())
        else:
            run = next((r for r in self._listed(run_test) if r.has_scores(now)), None)
        summary = summarize(run_test, run, now)
        for template in summary:
            # The API schema has these two here, the product in the items.
            item = template["result"][0]
            template.update(total_cells=item["total_cells"], output=item["output"])
        return json_response(200, {"status": True, "result": summary})

    def _get_execution(self, exchange: Exchange) -> Response:
        known = {
            **PAGING,
            "search": check_any,
            **dict.fromkeys(("filters", "group_keys", "row_groups"), check_text),
        }
        query = read_query(exchange, known)
        run = self._find(exchange.params["execution_id"], exchange)
        if run is None:
            text = "Failed to retrieve test execution: No TestExecution matches the given query."
            raise Refusal(error(500, "server_error", "server_error", text))
        run_test = run.run_test
        now = self.clock.now()
        search = query.get("search", "").casefold()
        calls = [(c, s) for c, s in run.calls_now(now) if search in c.scenario.name.casefold()]
        page, limit = int(query.get("page", 1)), int(query.get("limit", 30))
        pages = max(1, -(-len(calls) // limit))
        # Unlike the lists, this call answers a page past the end with an empty one.
        shown, paging = self._page(exchange, len(calls), min(page, pages), limit, "test execution")
        if page > pages:
            shown, paging = slice(0, 0), {**paging, "next": None, "previous": None, "current_page": page}
        return json_response(
            200,
            {
                **paging,
                "status": run.status(now),
                "agent_type": run.run_test.agent_type,
                "provider": "livekit" if run.is_voice else "futureagi",
                "error_messages": run.error_messages(now),
                "column_order": columns_json(run_test),
                "results": [call_row(run, call, status, now) for call, status in calls[shown]],
            },
        )

    def _transcripts(self, exchange: Exchange) -> Response:
        read_query(exchange, {})
        # An unknown execution is answered like one without calls.
        run = self._find(exchange.params["execution_id"], exchange)
        now = self.clock.now()
        calls = []
        if run is not None:
            calls = [
                {**call_transcript(run, call, status), "scenario_name": call.scenario.name}
                for call, status in run.calls_now(now)
            ]
        return json_response(
            200,
            {
                "test_execution_id": exchange.params["execution_id"],
                "total_calls": len(calls),
                "total_transcripts": sum(c["total_transcripts"] for c in calls),
                "calls": calls,
            },
        )

    def _find_call(self, call_id: str) -> tuple[AgentExecution, Call, str] | None:
        now = self.clock.now()
        for run in self.runs.all():
            if isinstance(run, AgentExecution) and not run.vanished:
                for call, status in run.calls_now(now):
                    if call.id == call_id:
                        return run, call, status
        return None

    def _call_transcripts(self, exchange: Exchange) -> Response:
        found = self._find_call(exchange.params["call_id"])
        if found is None:
            raise not_found("Call execution not found.")
        return json_response(200, call_transcript(*found))

    def _get_call(self, exchange: Exchange) -> Response:
        read_query(exchange, {})
        found = self._find_call(exchange.params["call_id"])
        if found is None:
            raise not_found("Call execution not found.")
        return json_response(200, call_detail(*found, self.clock.now(), exchange.origin))

    def _recording(self, exchange: Exchange) -> Response:
        """Answer with a second of silence, as the storage would: it is another host's, and takes no keys."""
        if any(name in exchange.headers for name in ("authorization", "x-api-key", "x-secret-key")):
            exchange.note("credentials for a storage")
        found = self._find_call(exchange.params["call_id"])
        if found is None or exchange.params["channel"] not in ("combined.wav", "assistant.wav"):
            raise not_found("No such recording.")
        return file_response(exchange.params["channel"], "audio/wav", silence())

    def _describe(self, exchange: Exchange, describe: Callable[[AgentExecution, float], dict[str, Any]]) -> Response:
        """Answer a question about one execution that takes no query parameters."""
        read_query(exchange, {})
        run = self._execution(exchange.params["execution_id"], exchange=exchange)
        return json_response(200, describe(run, self.clock.now()))

    def _kpis(self, exchange: Exchange) -> Response:
        return self._describe(exchange, kpis_json)

    def _performance_summary(self, exchange: Exchange) -> Response:
        return self._describe(exchange, performance_json)

    def _charts(self, exchange: Exchange) -> Response:
        return self._describe(exchange, charts_json)

    def _export(self, exchange: Exchange) -> Response:
        kind = exchange.arguments().get("type")
        if not kind:
            text = "Type parameter is required. Use 'runtest' or 'testexecution'"
            raise Refusal(invalid(text), text)
        if kind not in ("runtest", "testexecution"):
            text = "Invalid type. Use 'runtest' or 'testexecution'"
            raise Refusal(invalid(text), text)
        read_query(exchange, {"type": check_any, "search": check_any, "status": check_any})
        item_id = exchange.params["item_id"]
        run_test: RunTest | None
        if kind == "runtest":
            run_test = self._visible(exchange, item_id)
            runs = [] if run_test is None else self._listed(run_test)
        else:
            run = self._find(item_id, exchange)
            runs = [] if run is None else [run]
            run_test = None if run is None else run.run_test
        if run_test is None:
            raise not_found("Export source not found")
        return file_response(f"{kind}_{item_id}.csv", "text/csv", csv_export(run_test, runs, self.clock.now()))

    # The three calls of the SDK

    def _sdk_run_test(self, name: str) -> RunTest:
        for run_test in self.run_tests.values():
            if run_test.name == name:
                return run_test
        raise not_found("Run test not found.")

    def _sdk_list(
        self, query: dict[str, str], describe: Callable[[AgentExecution, float], dict[str, Any]], what: str
    ) -> Response:
        """Answer a question about every execution of a run test."""
        runs = self._listed(self._sdk_run_test(query["run_test_name"]))
        now = self.clock.now()
        items, paging = self._sdk_page(runs, query, what)
        results = [describe(run, now) for run in items]
        return json_response(200, {"status": True, "result": {**paging, "results": results}})

    def _sdk_page(self, items: list[Any], query: dict[str, str], what: str) -> tuple[list[Any], dict[str, int]]:
        page, limit = int(query.get("page", 1)), int(query.get("limit", 10))
        pages = max(1, -(-len(items) // limit))
        if page > pages:
            raise Refusal(
                error(500, "server_error", "server_error", f"Unable to fetch simulation {what}."),
                "a page past the end",
            )
        paging = {"count": len(items), "total_pages": pages, "current_page": page}
        return items[(page - 1) * limit : page * limit], paging

    def _metrics(self, exchange: Exchange) -> Response:
        query = read_query(exchange, {**SDK_QUERY, "call_execution_id": check_uuid}, sdk=True)
        now = self.clock.now()
        if "call_execution_id" in query:
            return json_response(
                200, {"status": True, "result": call_metrics(*self._sdk_call(query["call_execution_id"]))}
            )
        if "execution_id" not in query:
            return self._sdk_list(query, metrics_json, "metrics")
        run = self._execution(query["execution_id"])
        return json_response(200, {"status": True, "result": metrics_json(run, now)})

    def _sdk_call(self, call_id: str) -> tuple[AgentExecution, Call, str]:
        found = self._find_call(call_id.lower())
        if found is None:
            raise not_found("Call execution not found.")
        return found

    def _analytics(self, exchange: Exchange) -> Response:
        known = {
            "execution_id": check_uuid,
            "run_test_name": check_text,
            "eval_name": check_text,
            "summary": check_flag,
        }
        query = read_query(exchange, known, sdk=True)
        now = self.clock.now()
        if "execution_id" in query:
            run = self._execution(query["execution_id"])
            run_test = run.run_test
        else:
            run_test = self._sdk_run_test(query["run_test_name"])
            finished = [r for r in self._listed(run_test) if r.phase(now) is Phase.FINISHED]
            if not finished:
                raise not_found("No completed test execution found.")
            run = finished[0]
        counts = run.counts(now)
        evaluations = summarize(run_test, run, now)
        if "eval_name" in query:
            evaluations = [e for e in evaluations if e["name"] == query["eval_name"]]
        averages = average_scores(run, now)
        connected = counts["completed"] + counts["analyzing"]
        result: dict[str, Any] = {
            "execution_id": run.run_id,
            "run_test_name": run_test.name,
            "status": run.status(now),
            "eval_results": evaluations,
            "eval_averages": averages,
            "system_summary": {
                "total_calls": counts["total"],
                "completed_calls": counts["completed"],
                "failed_calls": counts["failed"],
                "avg_score": 9.0 if averages else 0.0,
                "avg_response_time_ms": 642.0 if connected else 0.0,
                "total_duration_seconds": run.talked(now),
            },
        }
        if query.get("summary", "true").lower() in ("true", "1"):
            result.update(eval_explanation_summary=None, eval_explanation_summary_status="pending")
        return json_response(200, {"status": True, "result": result})

    def _runs(self, exchange: Exchange) -> Response:
        known = {
            **SDK_QUERY,
            "call_execution_id": check_uuid,
            "eval_name": check_text,
            "summary": check_flag,
        }
        query = read_query(exchange, known, sdk=True)
        now = self.clock.now()
        if "call_execution_id" in query:
            run, call, status = self._sdk_call(query["call_execution_id"])
            result = {
                **call_head(run, call, status),
                "scenario_id": call.scenario.id,
                "scenario_name": call.scenario.name,
                "started_at": zulu(run.round_started),
                "completed_at": zulu(run.round_started + call.seconds) if status in ("completed", "failed") else None,
                "call_summary": f"{call.scenario.name}, row {call.row + 1}",
                "ended_reason": run.run_test.failure_reason if status == "failed" else "customer-ended-call",
                "eval_outputs": run.scores(call, status, now),
            }
            return json_response(200, {"status": True, "result": result})
        if "execution_id" not in query:
            return self._sdk_list(query, runs_json, "runs")
        run = self._execution(query["execution_id"])
        shown, paging = self._sdk_page(run.calls_now(now), query, "runs")
        calls = []
        for call, status in shown:
            scores = run.scores(call, status, now)
            if "eval_name" in query:
                scores = {key: s for key, s in scores.items() if s["name"] == query["eval_name"]}
            calls.append(
                {
                    "call_execution_id": call.id,
                    "scenario_id": call.scenario.id,
                    "scenario_name": call.scenario.name,
                    "status": status,
                    "duration_seconds": call.seconds if status in ("completed", "failed", "analyzing") else None,
                    "eval_outputs": scores,
                }
            )
        result = {**runs_json(run, now), "call_results": {**paging, "results": calls}}
        return json_response(200, {"status": True, "result": result})

    # For the control and the pages

    def target(self, id_or_name: str) -> RunTest:
        """Return a run test by its id or its name."""
        for run_test in self.run_tests.values():
            if id_or_name in (run_test.id, run_test.name):
                return run_test
        raise Mistake(f"no run test {id_or_name!r}")

    def add_run_test(
        self,
        name: str,
        ending: Ending | None,
        duration: float | None,
        run_test_id: str | None,
        scenarios: Mapping[str, int] | None,
        agent_type: str,
        recovers: bool,
    ) -> RunTest:
        """Create a run test.

        :param scenarios: names and numbers of rows; None for two scenarios of two rows, an empty one for none.
        """
        number = 100 + len(self.run_tests)
        rows = {"First scenario": 2, "Second scenario": 2} if scenarios is None else scenarios
        run_test = RunTest(
            run_test_id or self.new_id(),
            name,
            ending_for_name(name) if ending is None else ending,
            duration,
            scenarios=tuple(Scenario(self.new_id(), title, count) for title, count in rows.items()),
            evaluations=make_evaluations(number),
            agent_type=agent_type,
            recovers=recovers,
        )
        self.run_tests[run_test.id] = run_test
        return run_test

    def simulate(self, target: Target, created: float, plan: Plan) -> SimulatedRun:
        """Start an execution as a user of the platform does."""
        if not isinstance(target, RunTest):
            raise Mistake("executions are started from run tests")
        chosen = [s.id for s in target.scenarios]
        return self._new_execution(target, chosen, {"run_test_id": target.id}, created, plan)

    def describe_run(self, run: SimulatedRun, now: float) -> RunDescription:
        """Describe an execution for its page."""
        if not isinstance(run, AgentExecution):
            raise Mistake("not a run of this platform")
        counts = run.counts(now)
        rows: list[tuple[Any, ...]] = []
        for call, status in run.calls_now(now):
            scores = [f"{s['name']}: {s['output']}" for s in run.scores(call, status, now).values()]
            problem = run.run_test.failure_reason if status == "failed" else ""
            rows.append((call.scenario.name, call.row + 1, status, ", ".join(scores), problem))
        return RunDescription(
            title=f"Run test {run.target_name}",
            status=run.status(now),
            counts={name: counts[name] for name in ("total", "completed", "failed", "pending", "cancelled")},
            columns=("Scenario", "Row", "Status", "Evaluations", "Problem"),
            rows=rows,
            remarks=run.error_messages(now),
        )
