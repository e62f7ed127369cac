"""Future AGI simulate: run tests, their executions, calls and evaluations, in both dialects.

====================  ========================================  ====================================================
Run test              Id                                        Its executions
====================  ========================================  ====================================================
nightly-support-sim   fa000000-0000-4000-8000-000000000001      all calls complete; every evaluation is good (chat)
flaky-support-sim     fa000000-0000-4000-8000-000000000002      a call of four fails; it passes on a rerun (voice)
dead-agent-sim        fa000000-0000-4000-8000-000000000003      fail before a call is attempted (chat)
empty-sim             fa000000-0000-4000-8000-000000000004      complete without a call (chat)
failing-agent-sim     fa000000-0000-4000-8000-000000000005      fail, as every call fails (chat)
====================  ========================================  ====================================================

The scenarios of the nth run test are ``fa000000-0000-4000-8000-0000000n0001`` and so on. Chat executions keep a null
``completed_at`` and counters of 0 for ever, as the product's do; voice executions have no calls before they run.

The dialect follows the credentials: a bearer token is the documented one, the two key headers are the current one.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlencode

from .clock import offset, zulu
from .engine import Ending, Phase, SimulatedRun, Target, ending_for_name
from .exchange import (
    ANY_UUID,
    Exchange,
    Operation,
    Refusal,
    Reply,
    encoded_json_reply,
    file_reply,
    html_reply,
    json_reply,
)
from .identity import bearer_token
from .mistakes import Mistake
from .platform import Plan, PlatformAPI, RunDescription, duration_of, ending_of

API_KEY = "sandbox-canary-futureagi-api-key"
SECRET_KEY = "sandbox-canary-futureagi-secret-key"

_ORGANIZATION = "fa000000-0000-4000-8000-0000000000ff"
_AGENT_ID = "fa000000-0000-4000-8000-0000000000a1"
_AGENT_VERSION_ID = "fa000000-0000-4000-8000-0000000000a2"
_SIMULATOR_ID = "fa000000-0000-4000-8000-0000000000a3"
#: When the named objects came to be.
_EPOCH = 1_767_225_600.0


def named_id(number: int) -> str:
    """Return the id of a named object."""
    return f"fa000000-0000-4000-8000-{number:012d}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. Each of its rows becomes a call.

    :param id: its id.
    :param name: its name.
    :param rows: how many rows it has.
    :param flawed_rows: those whose calls fail in a run test whose calls fail.
    """

    id: str
    name: str
    rows: int
    flawed_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation of every call of a run test."""

    id: str
    template_id: str
    name: str
    output_type: str


def _evaluations(number: int) -> tuple[Evaluation, ...]:
    kinds = (("task_completion", "Pass/Fail"), ("politeness", "score"), ("handover", "choices"))
    return tuple(
        Evaluation(named_id(number * 10_000 + 900 + i), named_id(90_000_000 + i), name, kind)
        for i, (name, kind) in enumerate(kinds, start=1)
    )


@dataclass(slots=True)
class RunTest(Target):
    """A run test."""

    scenarios: tuple[Scenario, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    #: ``text`` or ``voice``.
    agent_type: str = "text"
    #: True when a call that failed passes once it is run again.
    recovers: bool = False

    @property
    def is_voice(self) -> bool:
        """True for a voice agent."""
        return self.agent_type == "voice"


@dataclass(slots=True, eq=False)
class Call:
    """One call of an execution."""

    id: str
    scenario: Scenario
    row: int
    fails: bool
    #: Evaluated as not good enough.
    unsatisfying: bool = False
    #: One of its evaluations does not work.
    unscored: bool = False
    #: Its status from an earlier round, None while it belongs to the present one.
    settled: str | None = None

    @property
    def seconds(self) -> int:
        """How long the call takes, as the product reports it."""
        return 40 + 3 * self.row + len(self.scenario.name) % 7


@dataclass(slots=True, eq=False)
class AgentExecution(SimulatedRun):
    """An execution of a run test."""

    calls: list[Call] = field(default_factory=list)
    scenario_ids: list[str] = field(default_factory=list)
    scenario_names: str = ""
    agent_type: str = "text"

    @property
    def is_voice(self) -> bool:
        """True for a voice agent."""
        return self.agent_type == "voice"


_FAILURE_REASON = "The agent hung up before the customer's request was understood"
_WORKFLOW_DOWN = "Failed client connect: the workflow service does not answer"
#: Long enough for an execution to be pending whenever somebody looks.
_FOR_EVER = 1e12
_SETUP_REASON = "Failed to set up the test execution: the agent did not answer the connection check"

# Errors, in the product's one shape


def error(
    status: int,
    kind: str,
    code: str,
    detail: str,
    details: Mapping[str, list[str]] | None = None,
    attribute: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Reply:
    """Return an error as the product words it."""
    body: dict[str, Any] = {
        "status": False,
        "type": kind,
        "code": code,
        "detail": detail,
        "message": detail,
        "error": detail,
        "result": detail,
    }
    if details is not None:
        body["details"] = details
    if attribute is not None:
        body["attr"] = attribute
    body.update(more or {})
    return json_reply(status, body)


def _not_found(detail: str) -> Refusal:
    return Refusal(error(404, "not_found", "not_found", detail))


def _invalid(detail: str) -> Reply:
    return error(400, "validation_error", "invalid", detail)


def _unauthenticated(code: str, detail: str, violation: str | None = None) -> Refusal:
    reply = error(401, "authentication_error", code, detail, {"detail": [detail]})
    reply.headers.append(("www-authenticate", "ApiKey"))
    return Refusal(reply, violation)


_NO_CREDENTIALS = "Authentication credentials were not provided."

_NOT_FOUND_PAGE = (
    '<!doctype html>\n<html lang="en">\n<head>\n  <title>Not Found</title>\n</head>\n<body>\n'
    "  <h1>Not Found</h1><p>The requested resource was not found on this server.</p>\n</body>\n</html>\n"
)


@dataclass(slots=True)
class _Problems:
    """What is wrong with the fields of a body or a query."""

    details: dict[str, list[str]] = field(default_factory=dict)
    first_code: str = "invalid"

    def add(self, name: str, message: str, code: str = "invalid") -> None:
        if not self.details:
            self.first_code = code
        self.details.setdefault(name, []).append(message)

    def refuse(self, sdk: bool = False) -> None:
        """Refuse the request if anything is wrong."""
        if not self.details:
            return
        first = next(iter(self.details))
        attribute = None if first == "non_field_errors" else first
        words = [
            message if name == "non_field_errors" else f"{name}: {message}"
            for name, messages in self.details.items()
            for message in messages
        ]
        text = "; ".join(words)
        more = {"errors": self.details} if sdk else None
        detail = "Validation failed" if sdk else text
        raise Refusal(error(400, "validation_error", self.first_code, detail, self.details, attribute, more), text)


_Check = Callable[[Any], str | None]

_BAD_UUID = "Must be a valid UUID."


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and ANY_UUID.fullmatch(value) is not None


def _check_uuid(value: Any) -> str | None:
    return None if _is_uuid(value) else _BAD_UUID


def _check_integer(value: Any) -> str | None:
    if not value.lstrip("-").isdecimal():
        return "A valid integer is required."
    return None if int(value) >= 1 else "Ensure this value is greater than or equal to 1."


def _check_text(value: Any) -> str | None:
    return None if value else "This field may not be blank."


def _check_any(value: Any) -> str | None:
    return None


def _check_flag(value: Any) -> str | None:
    return None if value in ("true", "false", "True", "False", "1", "0") else "Must be a valid boolean."


_PAGING: Mapping[str, _Check] = {"page": _check_integer, "limit": _check_integer}
_SDK_QUERY: Mapping[str, _Check] = {
    "execution_id": _check_uuid,
    "run_test_name": _check_text,
    **_PAGING,
}


def _read_query(exchange: Exchange, known: Mapping[str, _Check], sdk: bool = False) -> dict[str, str]:
    """Return the query parameters, checked; an unknown one is refused."""
    problems = _Problems()
    arguments = exchange.arguments()
    if sdk:
        # An empty value counts as none.
        arguments = {name: value for name, value in arguments.items() if value}
    for name, value in arguments.items():
        check = known.get(name)
        if check is None:
            problems.add(name, "Unknown field.")
            continue
        problem = check(value)
        if problem is not None:
            problems.add(name, problem, "min_value" if "greater" in problem else "invalid")
    if sdk:
        required = [name for name in ("run_test_name", "execution_id", "call_execution_id") if name in known]
        if not any(arguments.get(name) for name in required) and not problems.details.keys() & set(required):
            quoted = [f"'{name}'" for name in required]
            listed = " or ".join(quoted) if len(quoted) == 2 else f"{', '.join(quoted[:-1])}, or {quoted[-1]}"
            problems.add("non_field_errors", f"At least one of {listed} is required.")
    problems.refuse(sdk)
    return arguments


def _read_json(exchange: Exchange) -> dict[str, Any]:
    """Return the body; an absent one is an empty object."""
    if not exchange.body:
        return {}
    if exchange.media_type != "application/json":
        text = f'Unsupported media type "{exchange.media_type}" in request.'
        raise Refusal(
            error(415, "api_error", "unsupported_media_type", text, {"detail": [text]}),
            f"the body must be application/json, not {exchange.media_type or 'without Content-Type'}",
        )
    try:
        body = json.loads(exchange.body)
    except ValueError as problem:
        text = f"JSON parse error - {problem}"
        raise Refusal(error(400, "validation_error", "parse_error", text, {"detail": [text]}), text) from None
    if not isinstance(body, dict):
        text = f"Invalid data. Expected a dictionary, but got {type(body).__name__}."
        raise Refusal(error(400, "validation_error", "invalid", text, {"non_field_errors": [text]}), text)
    return body


def _check_ids(problems: _Problems, name: str, value: Any) -> None:
    if value is None:
        problems.add(name, "This field may not be null.", "null")
    elif not isinstance(value, list):
        problems.add(name, f'Expected a list of items but got type "{type(value).__name__}".', "not_a_list")
    else:
        for position, item in enumerate(value):
            if not _is_uuid(item):
                problems.add(name, f"{position}: {_BAD_UUID}")


def _check_boolean(problems: _Problems, name: str, value: Any) -> None:
    if value is None:
        problems.add(name, "This field may not be null.", "null")
    elif not isinstance(value, bool):
        problems.add(name, "Must be a valid boolean.")


def _percent(part: float, whole: float) -> float:
    return round(100.0 * part / whole, 2) if whole else 0.0


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


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
        ):
            self.run_tests[named_id(number)] = RunTest(
                named_id(number),
                name,
                ending,
                scenarios=tuple(
                    Scenario(named_id(number * 10_000 + i), title, rows, flawed)
                    for i, (title, rows, flawed) in enumerate(scenarios, start=1)
                ),
                evaluations=_evaluations(number),
                agent_type=agent_type,
                recovers=recovers,
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
            Operation(
                "futureagi.get_run_test_id",
                "GET",
                "/simulate/run-tests/get-id-by-name/{run_test_name}/",
                self._get_run_test_id,
            ),
            Operation("futureagi.list_scenarios", "GET", f"{run_test}/scenarios/", self._list_scenarios),
            Operation("futureagi.execute", "POST", f"{run_test}/execute/", self._execute),
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
            raise _unauthenticated("authentication_failed", "Invalid API key or secret key")
        if token is not None or exchange.headers.get("authorization", "").lower().startswith("basic"):
            if api_key or secret_key:
                raise _unauthenticated(
                    "authentication_failed",
                    "Invalid Token parsed: Invalid token encryption",
                    "Authorization beside X-Api-Key",
                )
            if token != API_KEY:
                raise _unauthenticated("authentication_failed", "Invalid Token parsed: Invalid token encryption")
            exchange.params = {**exchange.params, "dialect": "documented"}
            return
        if not api_key or not secret_key:
            raise _unauthenticated("not_authenticated", _NO_CREDENTIALS, "no credentials")
        if (api_key, secret_key) != (API_KEY, SECRET_KEY):
            raise _unauthenticated("authentication_failed", "Invalid API key or secret key")
        exchange.params = {**exchange.params, "dialect": "current"}

    def before_operation(self, exchange: Exchange, operation: Operation) -> None:
        """Refuse a client that would not take JSON."""
        accepted = exchange.headers.get("accept", "*/*")
        types = {part.partition(";")[0].strip().lower() for part in accepted.split(",")}
        if not types & {"*/*", "application/*", "application/json"}:
            text = "Could not satisfy the request Accept header."
            raise Refusal(error(406, "api_error", "not_acceptable", text, {"detail": [text]}), f"Accept: {accepted}")

    def unknown_path(self, exchange: Exchange) -> Reply:
        """Answer a path that does not exist: 301 when only the last slash is missing, else a page."""
        path = f"{exchange.raw_path}/"
        if not exchange.raw_path.endswith("/") and self.identify(exchange.method, path).allowed:
            exchange.note("the slash at the end is missing")
            query = f"?{exchange.query}" if exchange.query else ""
            location = ("location", f"{self.prefix}{path}{query}")
            return Reply(301, b"", [("content-type", "text/html; charset=utf-8"), location])
        exchange.note("no such path; UUIDs are in lower case, slashes count")
        return html_reply(404, _NOT_FOUND_PAGE)

    def wrong_method(self, exchange: Exchange, allowed: tuple[str, ...]) -> Reply:
        """Answer 405, to those who may ask."""
        self.authenticate(exchange)
        text = f'Method "{exchange.method}" not allowed.'
        reply = error(405, "api_error", "method_not_allowed", text, {"detail": [text]})
        reply.headers.append(("allow", ", ".join(allowed)))
        return reply

    def _run_test(self, exchange: Exchange, dot: str = "") -> RunTest:
        run_test = self.run_tests.get(exchange.params["run_test_id"])
        if run_test is None:
            raise _not_found(f"Run test not found{dot}")
        return run_test

    def _find(self, execution_id: str) -> AgentExecution | None:
        run = self.runs.find(execution_id)
        return run if isinstance(run, AgentExecution) else None

    def _execution(self, execution_id: str, dot: str = ".") -> AgentExecution:
        run = self._find(execution_id.lower())
        if run is None:
            raise _not_found(f"Test execution not found{dot}")
        return run

    def _listed(self, run_test: RunTest) -> list[AgentExecution]:
        """Return the executions of a run test that lists show, newest first."""
        runs = [r for r in self.runs.listed(run_test.id) if isinstance(r, AgentExecution)]
        runs.reverse()
        return runs

    def _page(self, exchange: Exchange, count: int, page: int, limit: int, what: str) -> tuple[slice, dict[str, Any]]:
        """Return which items a page shows, and what the reply says about paging."""
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

    def _health(self, exchange: Exchange) -> Reply:
        if any(name in exchange.headers for name in ("authorization", "x-api-key", "x-secret-key")):
            self.authenticate(exchange)
        return json_reply(200, {"status": True, "result": "Server is up and running"})

    def _public_health(self, exchange: Exchange) -> Reply:
        return json_reply(200, {"status": "OK", "version": "1.0.0"})

    def _list_run_tests(self, exchange: Exchange) -> Reply:
        known = {
            **_PAGING,
            "search": _check_any,
            "simulation_type": _check_any,
            "prompt_template_id": _check_uuid,
        }
        query = _read_query(exchange, known)
        search = query.get("search", "").casefold()
        found = [t for t in self.run_tests.values() if search in t.name.casefold()]
        page, limit = int(query.get("page", 1)), int(query.get("limit", 10))
        shown, paging = self._page(exchange, len(found), page, limit, "run tests")
        return json_reply(200, {**paging, "results": [self._run_test_json(t) for t in found[shown]]})

    def _run_test_json(self, run_test: RunTest) -> dict[str, Any]:
        latest = self.runs.latest(run_test.id)
        evaluations: list[dict[str, Any]] = [
            {
                "id": e.id,
                "name": e.name,
                "template_id": e.template_id,
                "config": {},
                "mapping": {"input": "transcript"},
                "filters": [],
                "model": None,
                "status": "Completed",
                "error_localizer": False,
                "eval_group": None,
            }
            for e in run_test.evaluations
        ]
        return {
            "id": run_test.id,
            "name": run_test.name,
            "description": f"Sandbox run test {run_test.name}",
            "agent_definition": _AGENT_ID,
            "agent_definition_detail": {
                "id": _AGENT_ID,
                "agent_name": "Sandbox agent",
                "agent_type": run_test.agent_type,
                "inbound": True,
                "languages": ["en"],
            },
            "agent_version": {"id": _AGENT_VERSION_ID, "name": "v1"},
            "source_type": "agent_definition",
            "source_type_display": "Agent Definition",
            "prompt_template": None,
            "prompt_template_detail": None,
            "prompt_version": None,
            "prompt_version_detail": None,
            "scenarios": [s.id for s in run_test.scenarios],
            "scenarios_detail": [
                {
                    "id": s.id,
                    "name": s.name,
                    "scenario_type": "dataset",
                    "dataset_rows": s.rows,
                    "status": "Completed",
                }
                for s in run_test.scenarios
            ],
            "dataset_row_ids": [],
            "simulator_agent": _SIMULATOR_ID,
            "simulator_agent_detail": {"id": _SIMULATOR_ID, "name": "Sandbox customer"},
            "simulate_eval_configs": [e.id for e in run_test.evaluations],
            "simulate_eval_configs_detail": evaluations,
            "evals": evaluations,
            "evals_detail": evaluations,
            "organization": _ORGANIZATION,
            "enable_tool_evaluation": False,
            "created_at": zulu(_EPOCH),
            "updated_at": zulu(_EPOCH),
            "last_run_at": None if latest is None else zulu(latest.created),
            "deleted": False,
            "deleted_at": None,
        }

    def _get_run_test(self, exchange: Exchange) -> Reply:
        return json_reply(200, self._run_test_json(self._run_test(exchange)))

    def _get_run_test_id(self, exchange: Exchange) -> Reply:
        name = exchange.params["run_test_name"]
        for run_test in self.run_tests.values():
            if run_test.name == name:
                result = {"run_test_id": run_test.id, "run_test_name": run_test.name}
                return json_reply(200, {"status": True, "result": result})
        raise Refusal(_invalid("Run test not found"))

    def _list_scenarios(self, exchange: Exchange) -> Reply:
        run_test = self._run_test(exchange)
        page, limit, search, _ = self._loose_paging(exchange)
        found = [s for s in run_test.scenarios if search in s.name.casefold()]
        shown, paging = self._page(exchange, len(found), page, limit, "scenarios")
        results = [{"id": s.id, "name": s.name, "row_count": s.rows} for s in found[shown]]
        return json_reply(200, {**paging, "results": results})

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

    def _execute(self, exchange: Exchange) -> Reply:
        documented = exchange.params["dialect"] == "documented"
        run_test = self.run_tests.get(exchange.params["run_test_id"])
        body = _read_json(exchange)
        ids_name, all_name, simulator_name = (
            ("scenarioIds", "selectAll", "simulatorId")
            if documented
            else ("scenario_ids", "select_all", "simulator_id")
        )
        problems = _Problems()
        for name, value in body.items():
            if name == ids_name:
                _check_ids(problems, name, value)
            elif name == all_name:
                _check_boolean(problems, name, value)
            elif name == simulator_name:
                if value is not None and not _is_uuid(value):
                    problems.add(name, _BAD_UUID)
            else:
                problems.add(name, "Unknown field.")
        problems.refuse()
        if run_test is None:
            raise _not_found("Run test not found")
        asked = [str(i).lower() for i in body.get(ids_name, [])]
        chosen = self._choose(run_test, asked, documented and body.get(all_name, False))
        if not chosen:
            raise Refusal(_invalid("At least one scenario is required to execute the test."))
        arguments = {
            "run_test_id": run_test.id,
            "dialect": exchange.params["dialect"],
            "scenario_ids": asked,
            "select_all": body.get(all_name, False),
            "simulator_id": body.get(simulator_name),
        }
        plan = self.take_plan(run_test)
        if self.settings.futureagi_workflow_down:
            # The execution is in the database already, and stays pending for ever.
            self._new_execution(run_test, chosen, arguments, self.clock.now(), Plan(plan.ending, _FOR_EVER))
            raise Refusal(_invalid(f"Failed to start hosted test execution: {_WORKFLOW_DOWN}"))
        run = self._new_execution(run_test, chosen, arguments, self.clock.now(), plan)
        # A voice execution's calls are only made once it runs.
        return json_reply(
            200,
            {
                "message": "Test execution started successfully",
                "execution_id": run.run_id,
                "run_test_id": run_test.id,
                "status": "PENDING" if documented else "started",
                "total_scenarios": len(chosen),
                "total_calls": 0 if run.is_voice else len(run.calls),
                "scenario_ids": chosen,
            },
        )

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
        ending = ending_of(plan)
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
            ending=ending,
            arguments=arguments,
            evaluates=True,
            scenario_ids=scenario_ids,
            scenario_names=", ".join(dict.fromkeys(s.name for s in scenarios)) or "No scenarios",
            agent_type=run_test.agent_type,
        )
        if ending is not Ending.EMPTY:
            flawed = any(s.flawed_rows for s in run_test.scenarios)
            for scenario in scenarios:
                for row in range(scenario.rows):
                    fails = row in scenario.flawed_rows or not (flawed or run.calls)
                    run.calls.append(Call(self.new_id(), scenario, row, ending is Ending.FAILED and fails))
        if run_test.recovers and ending is Ending.FAILED:
            good = [call for call in run.calls if not call.fails]
            for call in good[:1]:
                call.unsatisfying = True
            for call in good[1:2]:
                call.unscored = True
        self.runs.add(run)
        return run

    def _cancel(self, exchange: Exchange) -> Reply:
        body = _read_json(exchange)
        if body:
            text = "This endpoint does not accept a request body."
            details = {"non_field_errors": [text], **{name: ["Unknown field."] for name in body}}
            raise Refusal(error(400, "validation_error", "invalid", text, details, next(iter(body))), text)
        run = self._execution(exchange.params["execution_id"], dot="")
        now = self.clock.now()
        message = "Cancellation signal sent to workflow"
        if run.phase(now).is_final:
            # It does not look whether the execution is over: a completed one becomes cancelled.
            message = "Test execution cancellation initiated"
            run.cancel_requested = None
            run.request_cancel(now, 0.0, "futureagi.cancel_execution")
        else:
            run.request_cancel(now, self.settings.cancel_seconds, "futureagi.cancel_execution")
        return json_reply(200, {"success": True, "message": message, "test_execution_id": run.run_id})

    def _rerun_calls(self, exchange: Exchange) -> Reply:
        body = _read_json(exchange)
        problems = _Problems()
        if "rerun_type" not in body:
            problems.add("rerun_type", "This field is required.", "required")
        for name, value in body.items():
            if name == "rerun_type":
                if value not in ("eval_only", "call_and_eval"):
                    problems.add(name, f'"{value}" is not a valid choice.', "invalid_choice")
            elif name == "call_execution_ids":
                _check_ids(problems, name, value)
            elif name == "select_all":
                _check_boolean(problems, name, value)
            else:
                problems.add(name, "Unknown field.")
        if not problems.details and not body.get("select_all") and not body.get("call_execution_ids"):
            problems.add(
                "non_field_errors",
                "Either 'select_all' must be True or 'call_execution_ids' must be provided",
            )
        problems.refuse()
        run = self._execution(exchange.params["execution_id"], dot="")
        now = self.clock.now()
        status = self._status(run, now)
        if not run.phase(now).is_final:
            raise Refusal(
                _invalid(
                    f"Cannot rerun calls while test execution is in '{status}' status. "
                    "Wait for it to complete or cancel it first."
                )
            )
        rerun_type: str = body["rerun_type"]
        if rerun_type == "call_and_eval" and not run.is_voice:
            raise Refusal(_invalid("Text/Chat agents only support 'eval_only' rerun type."))
        wanted = {str(i).lower() for i in body.get("call_execution_ids", [])}
        chosen = [c for c in run.calls if body.get("select_all") or c.id in wanted]
        if not chosen:
            raise Refusal(_invalid("No call executions found that can be rerun."))
        failed: list[Call] = []
        message = f"Bulk call execution rerun prepared and initiated successfully ({rerun_type})"
        if self.settings.futureagi_workflow_down:
            chosen, failed = [], chosen
            message = f"Bulk call execution rerun prepared; async dispatch failed and can be retried ({rerun_type})"
        else:
            self._restart(run, chosen, rerun_type == "eval_only", now)
        return json_reply(
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

    def _restart(self, run: AgentExecution, chosen: list[Call], evaluates_only: bool, now: float) -> None:
        run_test = self.run_tests.get(run.target_id)
        for call, status in zip(run.calls, self._call_statuses(run, now), strict=True):
            call.settled = status
        for call in chosen:
            if not evaluates_only:
                call.settled = None
            if run_test is not None and run_test.recovers:
                call.fails = call.fails and evaluates_only
                call.unsatisfying = call.unscored = False
        duration = self.settings.run_seconds if run_test is None or run_test.duration is None else run_test.duration
        run.restart(now, duration, evaluates_only)

    # Where an execution stands

    def _visible_calls(self, run: AgentExecution, now: float) -> list[Call]:
        """Return the calls that exist already."""
        if run.is_voice and run.phase(now) is Phase.PENDING and not any(c.settled for c in run.calls):
            return []
        return run.calls

    def _call_statuses(self, run: AgentExecution, now: float) -> list[str]:
        """Return the status of every call, in order."""
        progress = run.progress(now)
        cancelled = run.phase(now) is Phase.CANCELLED
        count = sum(1 for call in run.calls if call.settled is None)
        statuses: list[str] = []
        position = 0
        for call in run.calls:
            if call.settled is not None:
                statuses.append(call.settled)
                continue
            done = progress * count - position if run.ending is not Ending.ERRORED else 0.0
            position += 1
            if done >= 1:
                statuses.append("failed" if call.fails else "completed")
            elif cancelled:
                statuses.append("cancelled")
            elif done >= 0.7:
                statuses.append("analyzing")
            else:
                statuses.append("ongoing" if done > 0 else "pending")
        return statuses

    def _status(self, run: AgentExecution, now: float) -> str:
        if run.raw_status is not None:
            return run.raw_status
        phase = run.phase(now)
        if phase is not Phase.FINISHED:
            # An execution that can't be set up never gets further.
            stuck = run.ending is Ending.ERRORED and phase is Phase.RUNNING
            return Phase.PENDING.value if stuck else phase.value
        if run.ending is Ending.ERRORED:
            return "failed"
        statuses = self._call_statuses(run, now)
        return "completed" if not statuses or "completed" in statuses else "failed"

    def _counts(self, run: AgentExecution, now: float) -> dict[str, int]:
        """Return how many calls there are of each status, and in all."""
        statuses = self._call_statuses(run, now) if self._visible_calls(run, now) else []
        counts = {
            word: statuses.count(word)
            for word in ("completed", "failed", "pending", "analyzing", "ongoing", "cancelled")
        }
        counts["total"] = len(statuses)
        return counts

    def _completed_at(self, run: AgentExecution, now: float) -> float | None:
        """Return when the execution ended as far as the product says so: for chats it mostly forgets to."""
        if not run.is_voice and run.ending is not Ending.ERRORED and run.cancel_requested is None:
            return None
        return run.finished_at(now)

    def _run_test_status(self, exchange: Exchange) -> Reply:
        run_test = self._run_test(exchange)
        run = next(iter(self._listed(run_test)), None)
        if run is None:
            missing = "Test execution not found in database"
            return json_reply(200, {"run_test_id": run_test.id, "status": "not_found", "error": missing})
        now = self.clock.now()
        counts = self._counts(run, now)
        # It counts a call as completed that is still analyzed.
        completed = counts["completed"] + counts["analyzing"]
        status = self._status(run, now)
        finished = self._completed_at(run, now)
        return json_reply(
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
                "success_rate": _percent(completed, counts["total"]),
                "start_time": zulu(run.created),
                "end_time": None if finished is None else zulu(finished),
                "scenarios": [],
                "error": None,
            },
        )

    def _list_executions(self, exchange: Exchange) -> Reply:
        run_test = self._run_test(exchange, dot=".")
        page, limit, search, status = self._loose_paging(exchange)
        now = self.clock.now()
        runs = self._listed(run_test)
        if status:
            # Lower case only, and one of them.
            runs = [r for r in runs if self._status(r, now) == status]
        if search:
            runs = [r for r in runs if search in self._status(r, now) or search in r.scenario_names.casefold()]
        shown, paging = self._page(exchange, len(runs), page, limit, "test executions")
        rows = ", ".join(self._row(run, now) for run in runs[shown])
        head = json.dumps(paging)[:-1]
        return encoded_json_reply(200, f'{head}, "results": [{rows}]}}'.encode())

    def _row(self, run: AgentExecution, now: float) -> str:
        """Return the execution as the list shows it, as JSON text."""
        cached = run.cached_row(now)
        if cached is not None:
            return cached
        phase = run.phase(now)
        # A call's status can change at every tenth of its share.
        tenths = int(run.progress(now) * 10 * max(1, len(run.calls)))
        until = math.inf if phase.is_final else 0.0
        return run.cache_row((run.revision, phase, tenths), until, lambda: self._row_json(run, now))

    def _row_json(self, run: AgentExecution, now: float) -> dict[str, Any]:
        counts = self._counts(run, now)
        final = run.phase(now).is_final
        connected = counts["completed"] + counts["analyzing"]
        attempted = counts["total"] - counts["pending"]
        seconds = self._talked(run, now)
        return {
            "id": run.run_id,
            "status": self._status(run, now).title(),
            "scenarios": run.scenario_names,
            "start_time": offset(run.created),
            "duration": seconds,
            "calls": counts["total"],
            "calls_attempted": attempted,
            "connected_calls": connected,
            "calls_connected_percentage": _percent(connected, counts["total"]),
            "success_rate": _percent(counts["completed"], counts["total"]),
            "avg_response_time": 0.642 if connected else 0.0,
            "agent_definition": "Sandbox agent",
            "agent_version": "v1",
            "agent_type": run.agent_type,
            "source_type": "agent_definition",
            "error_reason": _SETUP_REASON if run.ending is Ending.ERRORED and final else None,
            "total_chats": 0 if run.is_voice else counts["total"],
            "total_number_of_fagi_agent_turns": connected * 4,
        }

    def _talked(self, run: AgentExecution, now: float) -> int:
        """Return the seconds of all calls that were made."""
        statuses = self._call_statuses(run, now)
        made = ("completed", "failed", "analyzing")
        return sum(c.seconds for c, s in zip(run.calls, statuses, strict=True) if s in made)

    # Results

    def _scored_calls(self, run: AgentExecution, now: float) -> list[tuple[Call, str]]:
        """Return the calls with their statuses; nothing is scored before the end, nor after a cancel."""
        visible = self._visible_calls(run, now)
        return list(zip(visible, self._call_statuses(run, now), strict=True)) if visible else []

    def _has_scores(self, run: AgentExecution, now: float) -> bool:
        return run.phase(now) is Phase.FINISHED and run.ending is not Ending.ERRORED

    def _scores(self, run: AgentExecution, call: Call, status: str, now: float) -> dict[str, dict[str, Any]]:
        """Return the evaluations of a call by their ids."""
        run_test = self.run_tests.get(run.target_id)
        if run_test is None or status != "completed" or not self._has_scores(run, now):
            return {}
        position = run.calls.index(call)
        scores: dict[str, dict[str, Any]] = {}
        for evaluation in run_test.evaluations:
            output: Any
            if evaluation.output_type == "Pass/Fail":
                output = "Failed" if call.unsatisfying else "Passed"
                reason = "The request stayed open." if call.unsatisfying else "The request was settled."
            elif evaluation.output_type == "score":
                output, reason = round(0.96 - 0.02 * (position % 10), 2), "Polite throughout."
            else:
                output, reason = ["Yes" if call.unsatisfying else "No"], "Handed over to a person or not."
            score = {
                "name": evaluation.name,
                "output": output,
                "output_type": evaluation.output_type,
                "reason": reason,
                "status": "Completed",
            }
            if call.unscored and evaluation.output_type == "score":
                score.update(
                    output=None,
                    reason="Evaluation failed: model unavailable",
                    status="Failed",
                    error="error",
                    timestamp=offset(run.finished_at(now) or now),
                )
            scores[evaluation.id] = score
        return scores

    def _summarize(self, run_test: RunTest, run: AgentExecution | None, now: float) -> list[dict[str, Any]]:
        """Return the evaluation summary. What could not be scored is left out of it."""
        scored = [self._scores(run, call, status, now) for call, status in self._scored_calls(run, now)] if run else []
        summary: list[dict[str, Any]] = []
        for evaluation in run_test.evaluations:
            outputs = [s[evaluation.id]["output"] for s in scored if evaluation.id in s]
            outputs = [o for o in outputs if o is not None]
            item: dict[str, Any] = {
                "name": evaluation.name,
                "id": evaluation.id,
                "total_cells": len(outputs),
                "output": {},
            }
            total: Any
            if evaluation.output_type == "Pass/Fail":
                passed = outputs.count("Passed")
                total_name, total = "total_pass_rate", _percent(passed, len(outputs)) if outputs else 0
                if outputs:
                    item["output"] = {
                        "pass": total,
                        "fail": _percent(len(outputs) - passed, len(outputs)),
                        "pass_count": passed,
                        "fail_count": len(outputs) - passed,
                    }
            elif evaluation.output_type == "score":
                total_name, total = "total_avg", round(_mean(outputs) * 100, 2) if outputs else 0
                if outputs:
                    item["avg_score"] = total
                    item["output"] = _percentiles(outputs)
            else:
                words = sorted({str(o) for o in outputs})
                shares = {w: _percent(sum(1 for o in outputs if str(o) == w), len(outputs)) for w in words}
                total_name, total = "total_choices_avg", shares
                item["output"] = shares
            summary.append(
                {
                    "name": evaluation.name,
                    "id": evaluation.template_id,
                    "output_type": evaluation.output_type,
                    "result": [item],
                    total_name: total,
                }
            )
        return summary

    def _eval_summary(self, exchange: Exchange) -> Reply:
        run_test = self._run_test(exchange, dot=".")
        query = _read_query(exchange, {"execution_id": _check_uuid})
        now = self.clock.now()
        if "execution_id" in query:
            run = self._find(query["execution_id"].lower())
        else:
            run = next((r for r in self._listed(run_test) if self._has_scores(r, now)), None)
        summary = self._summarize(run_test, run, now)
        for template in summary:
            # The contract has these two here, the product in the items.
            item = template["result"][0]
            template.update(total_cells=item["total_cells"], output=item["output"])
        return json_reply(200, {"status": True, "result": summary})

    def _average_scores(self, run_test: RunTest, run: AgentExecution, now: float) -> dict[str, Any]:
        averages: dict[str, Any] = {}
        for item in self._summarize(run_test, run, now):
            total = item["result"][0]["total_cells"]
            if not total:
                continue
            if item["output_type"] == "choices":
                averages[item["name"]] = {
                    choice.strip("[']").lower(): round(share * total / 100)
                    for choice, share in item["total_choices_avg"].items()
                }
            else:
                averages[f"avg_{item['name']}"] = float(item.get("total_pass_rate", item.get("total_avg", 0)))
        return averages

    def _execution_run_test(self, run: AgentExecution) -> RunTest:
        run_test = self.run_tests.get(run.target_id)
        if run_test is None:
            raise _not_found("Run test not found.")
        return run_test

    def _get_execution(self, exchange: Exchange) -> Reply:
        known = {
            **_PAGING,
            "search": _check_any,
            **dict.fromkeys(("filters", "group_keys", "row_groups"), _check_text),
        }
        query = _read_query(exchange, known)
        run = self._find(exchange.params["execution_id"])
        if run is None:
            text = "Failed to retrieve test execution: No TestExecution matches the given query."
            raise Refusal(error(500, "server_error", "server_error", text))
        run_test = self._execution_run_test(run)
        now = self.clock.now()
        search = query.get("search", "").casefold()
        calls = [(c, s) for c, s in self._scored_calls(run, now) if search in c.scenario.name.casefold()]
        page, limit = int(query.get("page", 1)), int(query.get("limit", 30))
        pages = max(1, -(-len(calls) // limit))
        # Unlike the lists, this call answers a page past the end with an empty one.
        shown, paging = self._page(exchange, len(calls), min(page, pages), limit, "test execution")
        if page > pages:
            shown, paging = slice(0, 0), {**paging, "next": None, "previous": None, "current_page": page}
        columns = [
            {"id": "call_details", "column_name": "Chat Details", "visible": True},
            {"id": "overall_score", "column_name": "Overall Score", "visible": False},
        ]
        columns += [
            {
                "id": e.id,
                "column_name": e.name,
                "visible": True,
                "type": "evaluation",
                "eval_config": {"output": e.output_type},
            }
            for e in run_test.evaluations
        ]
        return json_reply(
            200,
            {
                **paging,
                "status": self._status(run, now),
                "agent_type": run.agent_type,
                "provider": "livekit" if run.is_voice else "futureagi",
                "error_messages": self._error_messages(run, now),
                "column_order": columns,
                "results": [self._call_row(run, call, status, now) for call, status in calls[shown]],
            },
        )

    def _error_messages(self, run: AgentExecution, now: float) -> list[str]:
        final = run.phase(now).is_final
        return [_SETUP_REASON] if final and run.ending is Ending.ERRORED else []

    def _call_row(self, run: AgentExecution, call: Call, status: str, now: float) -> dict[str, Any]:
        made = status in ("completed", "failed", "analyzing")
        talked = status in ("completed", "analyzing")
        scores = self._scores(run, call, status, now)
        outputs = {
            key: {
                "name": s["name"],
                "value": s["output"],
                "type": s["output_type"],
                "reason": s["reason"],
                "status": s["status"],
                "error": s["status"] != "Completed",
                "skipped": False,
            }
            for key, s in scores.items()
        }
        metrics = {
            key: {"id": key, "visible": True, "error_localizer": False, "template_type": "single", **o}
            for key, o in outputs.items()
        }
        ended = {
            "completed": "customer-ended-call",
            "failed": _FAILURE_REASON,
            "cancelled": "Cancelled by user",
        }
        unmeasured = (
            "agent_talk_percentage ai_interruption_count ai_interruption_rate audio_url avg_agent_latency "
            "avg_agent_latency_ms avg_stop_time_after_interruption bot_wpm csat_score customer_call_id "
            "customer_cost_breakdown customer_cost_cents customer_latency_metrics customer_name "
            "original_call_execution_id processing_skip_reason provider rerun_type scenario_graph_id "
            "service_provider_call_id session_id snapshot_timestamp talk_ratio tool_outputs "
            "user_interruption_count user_interruption_rate user_wpm"
        )
        return {
            **dict.fromkeys(unmeasured.split()),
            "id": call.id,
            "test_execution_id": run.run_id,
            "status": status,
            "scenario": call.scenario.name,
            "scenario_id": call.scenario.id,
            "scenario_columns": {},
            "scenario_graph": {},
            "agent_definition_used_id": _AGENT_ID,
            "agent_definition_used_name": "Sandbox agent",
            "simulator_agent_id": _SIMULATOR_ID,
            "simulator_agent_name": "Sandbox customer",
            "simulation_call_type": run.agent_type,
            "call_type": "Inbound",
            "phone_number": "+15550100" if run.is_voice else None,
            "call_summary": f"{call.scenario.name}, row {call.row + 1}" if made else None,
            "ended_reason": ended.get(status),
            "duration": float(call.seconds) if made else None,
            "duration_seconds": call.seconds if made else None,
            "start_time": zulu(run.round_started) if made else None,
            "timestamp": zulu(run.created),
            "cost_cents": 3 if made else None,
            "avg_latency_ms": 640 + call.row if talked else None,
            "response_time_ms": 640 + call.row if talked else None,
            "response_time": round(0.64 + call.row / 1000, 3) if talked else None,
            "turn_count": 4 if talked else None,
            "total_tokens": 0 if talked else None,
            "input_tokens": 0 if talked else None,
            "output_tokens": 0 if talked else None,
            "overall_score": 9.0 if scores else None,
            "eval_metrics": metrics,
            "eval_outputs": outputs,
            "is_snapshot": False,
            "processing_skipped": False,
            "recordings": {},
            "rerun_snapshots": [],
            "transcript": self._segments(run, call, status),
        }

    def _segments(self, run: AgentExecution, call: Call, status: str) -> list[dict[str, Any]]:
        """Return what was said."""
        if status not in ("completed", "failed", "analyzing"):
            return []
        said = [
            ("assistant", "Sandbox support, how can I help?"),
            ("user", f"It is about: {call.scenario.name}."),
        ]
        if status != "failed":
            said += [("assistant", "That is settled now."), ("user", "Thank you, goodbye.")]
        return [
            {
                "id": f"{call.id[:-2]}{position:02x}",
                "speaker_role": role,
                "content": text,
                "start_time_ms": position * 4000,
                "end_time_ms": position * 4000 + 3500,
                "start_time_seconds": f"{position * 4.0:.3f}",
                "end_time_seconds": f"{position * 4.0 + 3.5:.3f}",
                "confidence_score": 0.98,
                "created_at": zulu(run.created + position),
            }
            for position, (role, text) in enumerate(said)
        ]

    def _call_transcript(self, run: AgentExecution, call: Call, status: str) -> dict[str, Any]:
        segments = self._segments(run, call, status)
        return {
            "call_execution_id": call.id,
            "phone_number": "+15550100" if run.is_voice else None,
            "status": status,
            "total_transcripts": len(segments),
            "transcripts": segments,
        }

    def _transcripts(self, exchange: Exchange) -> Reply:
        _read_query(exchange, {})
        # An unknown execution is answered like one without calls.
        run = self._find(exchange.params["execution_id"])
        now = self.clock.now()
        calls = []
        if run is not None:
            calls = [
                {**self._call_transcript(run, call, status), "scenario_name": call.scenario.name}
                for call, status in self._scored_calls(run, now)
            ]
        return json_reply(
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
                for call, status in self._scored_calls(run, now):
                    if call.id == call_id:
                        return run, call, status
        return None

    def _call_transcripts(self, exchange: Exchange) -> Reply:
        found = self._find_call(exchange.params["call_id"])
        if found is None:
            raise _not_found("Call execution not found.")
        return json_reply(200, self._call_transcript(*found))

    def _kpis(self, exchange: Exchange) -> Reply:
        _read_query(exchange, {})
        run = self._execution(exchange.params["execution_id"])
        now = self.clock.now()
        counts = self._counts(run, now)
        connected = counts["completed"] + counts["analyzing"]
        zeros = (
            "agent_talk_percentage customer_talk_percentage avg_agent_latency avg_ai_interruption_count "
            "avg_ai_interruption_rate avg_bot_wpm avg_csat_score avg_input_tokens avg_output_tokens "
            "avg_total_tokens avg_stop_time_after_interruption avg_talk_ratio avg_user_interruption_count "
            "avg_user_interruption_rate avg_user_wpm"
        )
        averages = self._average_scores(self._execution_run_test(run), run, now)
        for value in averages.values():
            if isinstance(value, dict):
                value["choices"] = list(value)
        return json_reply(
            200,
            {
                **dict.fromkeys(zeros.split(), 0.0),
                **averages,
                "agent_type": run.agent_type,
                "is_inbound": True,
                "total_calls": counts["total"],
                "calls_attempted": counts["total"] - counts["pending"],
                "connected_calls": connected,
                "failed_calls": counts["failed"],
                "calls_connected_percentage": _percent(connected, counts["total"]),
                "total_duration": self._talked(run, now),
                "avg_score": 9.0 if averages else 0.0,
                "avg_response": 642.0 if connected else 0.0,
                "avg_chat_latency_ms": 642.0 if connected and not run.is_voice else 0.0,
                "avg_turn_count": 4.0 if connected else 0.0,
                "scenario_graphs": {call.scenario.id: {} for call in run.calls},
            },
        )

    def _performance_summary(self, exchange: Exchange) -> Reply:
        _read_query(exchange, {})
        run = self._execution(exchange.params["execution_id"])
        now = self.clock.now()
        counts = self._counts(run, now)
        per_scenario: dict[str, list[bool]] = {}
        for call, status in self._scored_calls(run, now):
            per_scenario.setdefault(call.scenario.name, []).append(status == "completed")
        scores = {name: 9.0 * sum(good) / len(good) for name, good in per_scenario.items()}
        return json_reply(
            200,
            {
                "test_run_performance_metrics": {
                    "pass_rate": _percent(counts["completed"], counts["total"]),
                    "latest_fail_rate": _percent(counts["failed"], counts["total"]),
                    "total_test_runs": float(counts["total"]),
                },
                "top_performing_scenarios": [
                    {
                        "scenario_name": name,
                        "performance_score": f"{score:.1f}",
                        "test_count": str(len(per_scenario[name])),
                    }
                    for name, score in sorted(scores.items(), key=lambda item: -item[1])
                ],
            },
        )

    def _charts(self, exchange: Exchange) -> Reply:
        _read_query(exchange, {})
        run = self._execution(exchange.params["execution_id"])
        now = self.clock.now()
        failures: list[dict[str, Any]] = []
        scores: list[dict[str, Any]] = []
        for position, (call, status) in enumerate(self._scored_calls(run, now), start=1):
            scored = bool(self._scores(run, call, status, now))
            failed = int(status == "failed")
            base = {"test_run": position, "total_calls": 1}
            failures.append({**base, "failed_calls": failed, "fail_rate": 100.0 * failed})
            scores.append({**base, "scored_calls": int(scored), "score_percentage": 90.0 * scored})

        def chart(kind: str, title: str, axis: str, data: list[dict[str, Any]]) -> dict[str, Any]:
            labels = {"x_axis_label": "Test Runs", "y_axis_label": axis}
            return {"chart_type": kind, "title": title, "data": data, **labels}

        return json_reply(
            200,
            {
                "fail_rate_over_test_runs": chart("scatter", "Fail Rate Over Test Runs", "Fail Rate (%)", failures),
                "evaluation_categories_over_test_runs": chart(
                    "line", "Evaluation Categories Over Test Runs", "Score (%)", scores
                ),
                "metadata": {
                    "test_execution_id": run.run_id,
                    "test_execution_name": run.target_name,
                    "total_calls": len(failures),
                    "total_test_runs": len(failures),
                },
            },
        )

    def _export(self, exchange: Exchange) -> Reply:
        kind = exchange.arguments().get("type")
        if not kind:
            text = "Type parameter is required. Use 'runtest' or 'testexecution'"
            raise Refusal(_invalid(text), text)
        if kind not in ("runtest", "testexecution"):
            text = "Invalid type. Use 'runtest' or 'testexecution'"
            raise Refusal(_invalid(text), text)
        _read_query(exchange, {"type": _check_any, "search": _check_any, "status": _check_any})
        item_id = exchange.params["item_id"]
        run_test: RunTest | None
        if kind == "runtest":
            run_test = self.run_tests.get(item_id)
            runs = [] if run_test is None else self._listed(run_test)
        else:
            run = self._find(item_id)
            runs = [] if run is None else [run]
            run_test = None if run is None else self._execution_run_test(run)
        if run_test is None:
            raise _not_found("Export source not found")
        return file_reply(f"{kind}_{item_id}.csv", "text/csv", self._csv(run_test, runs))

    def _csv(self, run_test: RunTest, runs: list[AgentExecution]) -> bytes:
        now = self.clock.now()
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        head = [
            "ID",
            "Timestamp",
            "Call Type",
            "Status",
            "Duration",
            "Scenario",
            "Overall Score",
            "Response Time",
        ]
        names = [e.name for e in run_test.evaluations]
        writer.writerow([*head, "Audio URL", "Provider call ID", *(n for e in names for n in (e, f"{e}_reason"))])
        for run in runs:
            for call, status in self._scored_calls(run, now):
                scores = self._scores(run, call, status, now)
                by_name = {s["name"]: s for s in scores.values()}
                cells = [
                    str(by_name[name][part]) if name in by_name else ""
                    for name in names
                    for part in ("output", "reason")
                ]
                made = status in ("completed", "failed", "analyzing")
                writer.writerow(
                    [
                        call.id,
                        offset(run.created),
                        "Outbound",
                        status,
                        call.seconds if made else "",
                        call.scenario.name,
                        9.0 if scores else "",
                        0.642 if status == "completed" else "",
                        "",
                        "",
                        *cells,
                    ]
                )
        return buffer.getvalue().encode()

    # The three calls of the SDK

    def _sdk_run_test(self, name: str) -> RunTest:
        for run_test in self.run_tests.values():
            if run_test.name == name:
                return run_test
        raise _not_found("Run test not found.")

    def _sdk_list(
        self, query: dict[str, str], describe: Callable[[AgentExecution, float], dict[str, Any]], what: str
    ) -> Reply:
        """Answer a question about every execution of a run test."""
        runs = self._listed(self._sdk_run_test(query["run_test_name"]))
        now = self.clock.now()
        items, paging = self._sdk_page(runs, query, what)
        results = [describe(run, now) for run in items]
        return json_reply(200, {"status": True, "result": {**paging, "results": results}})

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

    def _metrics(self, exchange: Exchange) -> Reply:
        query = _read_query(exchange, {**_SDK_QUERY, "call_execution_id": _check_uuid}, sdk=True)
        now = self.clock.now()
        if "call_execution_id" in query:
            return json_reply(200, {"status": True, "result": self._call_metrics(query["call_execution_id"])})
        if "execution_id" not in query:
            return self._sdk_list(query, self._metrics_json, "metrics")
        run = self._execution(query["execution_id"])
        return json_reply(200, {"status": True, "result": self._metrics_json(run, now)})

    def _head_json(self, run: AgentExecution, counts: dict[str, int], now: float) -> dict[str, Any]:
        """Return what metrics and runs say first. The counters of chats stay 0."""
        finished = self._completed_at(run, now)
        counted = run.is_voice
        return {
            "execution_id": run.run_id,
            "status": self._status(run, now),
            "started_at": zulu(run.created),
            "completed_at": None if finished is None else zulu(finished),
            "total_calls": counts["total"],
            "completed_calls": counts["completed"] if counted else 0,
            "failed_calls": counts["failed"] if counted else 0,
        }

    def _metrics_json(self, run: AgentExecution, now: float) -> dict[str, Any]:
        counts = self._counts(run, now)
        connected = counts["completed"] + counts["analyzing"]
        chats = "avg_total_tokens avg_input_tokens avg_output_tokens avg_chat_latency_ms avg_turn_count avg_csat_score"
        talks = (
            "avg_user_interruption_rate avg_ai_interruption_rate avg_user_wpm avg_bot_wpm avg_talk_ratio "
            "avg_stop_time_after_interruption_ms"
        )
        chat = dict.fromkeys(chats.split(), 0.0)
        if connected and not run.is_voice:
            chat.update(avg_chat_latency_ms=642.0, avg_turn_count=4.0)
        return {
            **self._head_json(run, counts, now),
            "metrics": {
                # What is queued, ongoing or analyzed is in none of the first three.
                "calls": {name: counts[name] for name in ("completed", "failed", "pending", "total")},
                "chat": chat,
                "conversation": dict.fromkeys(talks.split(), 0.0),
                "cost": {"total_duration_seconds": self._talked(run, now)},
                "latency": {
                    "avg_agent_latency_ms": 0.0,
                    "avg_response_time_ms": 642.0 if connected else 0.0,
                    "percentiles": {},
                },
            },
        }

    def _sdk_call(self, call_id: str) -> tuple[AgentExecution, Call, str]:
        found = self._find_call(call_id.lower())
        if found is None:
            raise _not_found("Call execution not found.")
        return found

    def _call_head(self, run: AgentExecution, call: Call, status: str) -> dict[str, Any]:
        made = status in ("completed", "failed", "analyzing")
        costs = ("total_cost_cents", "llm_cost_cents", "stt_cost_cents", "tts_cost_cents")
        return {
            "call_execution_id": call.id,
            "execution_id": run.run_id,
            "status": status,
            "duration_seconds": call.seconds if made else None,
            "cost": {**dict.fromkeys(costs), **({"total_cost_cents": 3} if made else {})},
            "latency": {"avg_agent_latency_ms": None, "response_time_ms": 642 if made else None},
        }

    def _call_metrics(self, call_id: str) -> dict[str, Any]:
        run, call, status = self._sdk_call(call_id)
        chat = "total_tokens input_tokens output_tokens avg_latency_ms turn_count csat_score"
        talk = (
            "user_interruption_count user_interruption_rate ai_interruption_count ai_interruption_rate user_wpm "
            "bot_wpm talk_ratio avg_stop_time_after_interruption_ms"
        )
        return {
            **self._call_head(run, call, status),
            "chat_metrics": dict.fromkeys(chat.split()),
            "conversation": dict.fromkeys(talk.split()),
        }

    def _analytics(self, exchange: Exchange) -> Reply:
        known = {
            "execution_id": _check_uuid,
            "run_test_name": _check_text,
            "eval_name": _check_text,
            "summary": _check_flag,
        }
        query = _read_query(exchange, known, sdk=True)
        now = self.clock.now()
        if "execution_id" in query:
            run = self._execution(query["execution_id"])
            run_test = self._execution_run_test(run)
        else:
            run_test = self._sdk_run_test(query["run_test_name"])
            finished = [r for r in self._listed(run_test) if r.phase(now) is Phase.FINISHED]
            if not finished:
                raise _not_found("No completed test execution found.")
            run = finished[0]
        counts = self._counts(run, now)
        evaluations = self._summarize(run_test, run, now)
        if "eval_name" in query:
            evaluations = [e for e in evaluations if e["name"] == query["eval_name"]]
        averages = self._average_scores(run_test, run, now)
        connected = counts["completed"] + counts["analyzing"]
        result: dict[str, Any] = {
            "execution_id": run.run_id,
            "run_test_name": run_test.name,
            "status": self._status(run, now),
            "eval_results": evaluations,
            "eval_averages": averages,
            "system_summary": {
                "total_calls": counts["total"],
                "completed_calls": counts["completed"],
                "failed_calls": counts["failed"],
                "avg_score": 9.0 if averages else 0.0,
                "avg_response_time_ms": 642.0 if connected else 0.0,
                "total_duration_seconds": self._talked(run, now),
            },
        }
        if query.get("summary", "true").lower() in ("true", "1"):
            result.update(eval_explanation_summary=None, eval_explanation_summary_status="pending")
        return json_reply(200, {"status": True, "result": result})

    def _runs(self, exchange: Exchange) -> Reply:
        known = {
            **_SDK_QUERY,
            "call_execution_id": _check_uuid,
            "eval_name": _check_text,
            "summary": _check_flag,
        }
        query = _read_query(exchange, known, sdk=True)
        now = self.clock.now()
        if "call_execution_id" in query:
            run, call, status = self._sdk_call(query["call_execution_id"])
            result = {
                **self._call_head(run, call, status),
                "scenario_id": call.scenario.id,
                "scenario_name": call.scenario.name,
                "started_at": zulu(run.round_started),
                "completed_at": zulu(run.round_started + call.seconds) if status in ("completed", "failed") else None,
                "call_summary": f"{call.scenario.name}, row {call.row + 1}",
                "ended_reason": _FAILURE_REASON if status == "failed" else "customer-ended-call",
                "eval_outputs": self._scores(run, call, status, now),
            }
            return json_reply(200, {"status": True, "result": result})
        if "execution_id" not in query:
            return self._sdk_list(query, self._runs_json, "runs")
        run = self._execution(query["execution_id"])
        shown, paging = self._sdk_page(self._scored_calls(run, now), query, "runs")
        calls = []
        for call, status in shown:
            scores = self._scores(run, call, status, now)
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
        result = {**self._runs_json(run, now), "call_results": {**paging, "results": calls}}
        return json_reply(200, {"status": True, "result": result})

    def _runs_json(self, run: AgentExecution, now: float) -> dict[str, Any]:
        return {
            **self._head_json(run, self._counts(run, now), now),
            "eval_results": self._summarize(self._execution_run_test(run), run, now),
        }

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
            evaluations=_evaluations(number),
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
        counts = self._counts(run, now)
        rows: list[tuple[Any, ...]] = []
        for call, status in self._scored_calls(run, now):
            scores = [f"{s['name']}: {s['output']}" for s in self._scores(run, call, status, now).values()]
            problem = _FAILURE_REASON if status == "failed" else ""
            rows.append((call.scenario.name, call.row + 1, status, ", ".join(scores), problem))
        return RunDescription(
            title=f"Run test {run.target_name}",
            status=self._status(run, now),
            counts={name: counts[name] for name in ("total", "completed", "failed", "pending", "cancelled")},
            columns=("Scenario", "Row", "Status", "Evaluations", "Problem"),
            rows=rows,
            remarks=self._error_messages(run, now),
        )


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    marks = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
    found = {}
    for mark in marks:
        position = (len(ordered) - 1) * mark / 100
        below = int(position)
        above = min(below + 1, len(ordered) - 1)
        value = ordered[below] + (ordered[above] - ordered[below]) * (position - below)
        found[f"p{mark}"] = round(value * 100, 2)
    return found
