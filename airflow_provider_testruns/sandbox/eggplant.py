"""Eggplant DAI: executions, their progress, test configurations and results.

====================  ========================================  ====================================================
Model                 Id                                        Its runs
====================  ========================================  ====================================================
Checkout              e0000000-0000-4000-8000-000000000001      pass; test cases 11 and 12
Returns               e0000000-0000-4000-8000-000000000002      fail; test cases 21 (passes) and 22
Broken                e0000000-0000-4000-8000-000000000003      end as Incomplete; test case 31
Empty                 e0000000-0000-4000-8000-000000000004      pass without a step
Restricted            e0000000-0000-4000-8000-000000000005      are refused with 403; it is not listed
====================  ========================================  ====================================================

====================  ========================================  ====================================================
Test configuration    Id                                        Its runs
====================  ========================================  ====================================================
Nightly shop          e0000000-0000-4000-8000-000000000011      pass
Nightly returns       e0000000-0000-4000-8000-000000000012      end with a failed test of four
Broken nightly        e0000000-0000-4000-8000-000000000013      end as Incomplete
Flaky nightly         e0000000-0000-4000-8000-000000000014      pass, once a test that failed was run again
====================  ========================================  ====================================================

A script run ends as its name says (``Checkout.script`` passes, ``Returns.script`` fails).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from xml.etree import ElementTree

from .clock import short_offset, zulu
from .engine import Ending, Phase, SimulatedRun, Target, ending_for_name
from .exchange import (
    ANY_UUID,
    Exchange,
    Operation,
    Refusal,
    Response,
    encoded_json_response,
    file_response,
    json_response,
    no_content,
)
from .identity import Credentials, IdentityProvider, bearer_token
from .mistakes import Mistake
from .platform import Plan, PlatformAPI, RunDescription, duration_of, ending_of

CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-canary-eggplant-secret"
REALM = "eggplant"
_USER = "tester@example.com"
_AGENT = "Sandbox agent"


def named_id(number: int) -> str:
    """Return the id of a named object."""
    return f"e0000000-0000-4000-8000-{number:012d}"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which ways to follow a run a release of the server has.

    :param progress: POST /api/run/progress.
    :param executions: GET on one execution.
    :param tasks: GET on one run of a test configuration.
    :param results: the results API of release 7.5.
    """

    progress: bool
    executions: bool
    tasks: bool
    results: bool


GENERATIONS: Mapping[str, Capabilities] = {
    "full": Capabilities(progress=True, executions=True, tasks=True, results=True),
    "progress_only": Capabilities(progress=True, executions=False, tasks=True, results=False),
    "executions_get": Capabilities(progress=False, executions=True, tasks=True, results=True),
    "runs_only": Capabilities(progress=False, executions=False, tasks=True, results=False),
    "v2": Capabilities(progress=False, executions=False, tasks=False, results=True),
}


@dataclass(slots=True)
class Model(Target):
    """A model, a test configuration or a script.

    :param number: its number in lists.
    :param cases: test case numbers and names; flawed ones fail.
    :param restricted: True when the sandbox's user may not see it.
    """

    number: int = 0
    cases: tuple[tuple[int, str, bool], ...] = ()
    restricted: bool = False


@dataclass(slots=True)
class CaseVerdict:
    """One result of the results API: an execution has one, a test configuration one for each try of its tests.

    :param number: its id, which is also that of the run in the list of runs.
    :param name: the test.
    :param fails: how it ends.
    :param starts: how far into the run it starts, as a fraction.
    """

    number: int
    name: str
    fails: bool
    starts: float = 0.0


@dataclass(slots=True, eq=False)
class Execution(SimulatedRun):
    """An execution, or a run of a test configuration."""

    case_name: str | None = None
    run_type: str = "model"
    agent: str | None = None
    result_id: str = ""
    results: list[CaseVerdict] = field(default_factory=list)


#: The words of the list of runs for what was run; "Check Run Progress Method" has others.
_RUN_TYPES = {"testcase": "directed", "model": "exploratory"}

_SHOP_CASES = ((11, "Pay by card", False), (12, "Pay with a voucher", False))
_RETURN_CASES = ((21, "Return with receipt", False), (22, "Return without receipt", True))
_BROKEN_CASES = ((31, "Open the shop", False),)
_CONFIGURATION_CASES = (
    (41, "Search for a product", False),
    (42, "Pay by card", False),
    (43, "Return without receipt", True),
    (44, "Change the address", False),
)
#: What the logs of runs with assets name as tested.
_COMMIT = "c0ffee" * 6 + "c0de"
#: A picture of one pixel.
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63486870f8"
    "0f000484022002a48be50000000049454e44ae426082"
)


_Check = Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and ANY_UUID.fullmatch(value) is not None


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


_AGENT_FIELDS: Mapping[str, _Check] = {"agent_id": _is_text, "is_hosted_agent": _is_flag}
_ASSET_FIELDS: Mapping[str, _Check] = {"asset_version_id": _is_text, "asset_path": _is_text}
_SUT_FIELDS: Mapping[str, _Check] = {"sut_id": _is_text, "criteria": _is_texts}
_START_FIELDS: Mapping[str, _Check] = {
    "execution_type": lambda value: value == "executing",
    "model_id": _is_uuid,
    "test_case_id": _is_integer,
    "rerun_id": _is_integer,
    "script": _is_text,
    "step_pause_time": _is_integer,
}
_START_OBJECTS: Mapping[str, Mapping[str, _Check]] = {
    "agent": _AGENT_FIELDS,
    "asset": _ASSET_FIELDS,
    "sut": _SUT_FIELDS,
}


def _invalid(location: list[str], message: str) -> Refusal:
    problem = {"loc": location, "msg": message, "type": "value_error"}
    return Refusal(json_response(422, {"detail": [problem]}), f"{'.'.join(location[1:]) or 'body'}: {message}")


def _detail(status: int, text: str) -> Response:
    return json_response(status, {"detail": text})


def _check_fields(body: dict[str, Any], fields: Mapping[str, _Check], location: list[str]) -> None:
    for name, value in body.items():
        check = fields.get(name)
        if check is None:
            raise _invalid([*location, name], "extra fields not permitted")
        if value is not None and not check(value):
            raise _invalid([*location, name], "value is not valid")


class EggplantAPI(PlatformAPI):
    """The API of Eggplant DAI."""

    name: ClassVar[str] = "eggplant"
    prefix: ClassVar[str] = "/eggplant"

    def reset(self) -> None:
        """Go back to the named models, without runs."""
        super().reset()
        self.identity = IdentityProvider(self.name, self.clock, Credentials((REALM,), {CLIENT_ID: CLIENT_SECRET}))
        self.models: dict[str, Model] = {}
        self.configurations: dict[str, Model] = {}
        self.agents = [{"id": "1", "name": _AGENT, "hosted": True, "status": "online"}]
        for number, name, ending, cases in (
            (1, "Checkout", Ending.PASSED, _SHOP_CASES),
            (2, "Returns", Ending.FAILED, _RETURN_CASES),
            (3, "Broken", Ending.ERRORED, _BROKEN_CASES),
            (4, "Empty", Ending.EMPTY, ()),
            (5, "Restricted", Ending.PASSED, _SHOP_CASES),
        ):
            model = Model(named_id(number), name, ending, None, number, cases, name == "Restricted")
            self.models[model.id] = model
        for number, name, ending in (
            (11, "Nightly shop", Ending.PASSED),
            (12, "Nightly returns", Ending.FAILED),
            (13, "Broken nightly", Ending.ERRORED),
            (14, "Flaky nightly", Ending.PASSED),
        ):
            self.configurations[named_id(number)] = Model(
                named_id(number), name, ending, None, number, _CONFIGURATION_CASES
            )

    def operations(self) -> Iterable[Operation]:
        """Return the operations of the API and of the identity provider."""
        service = "/execution_service/api/v1/executions"
        results = "/api/v2/test_results"
        configurations = "/api/v2/test_config_results"
        return (
            Operation(
                "eggplant.token",
                "POST",
                "/auth/realms/{realm}/protocol/openid-connect/token",
                # The identity provider is made again by a reset.
                lambda exchange: self.identity.handle_token(exchange),
                open=True,
            ),
            Operation(
                "eggplant.token_v2",
                "POST",
                "/api/v2/auth",
                lambda exchange: self.identity.handle_json_token(exchange),
                open=True,
            ),
            Operation("eggplant.start_execution", "POST", service, self._start),
            Operation("eggplant.get_execution", "GET", f"{service}/{{execution_id}}", self._get_execution),
            Operation("eggplant.abort_execution", "DELETE", f"{service}/{{execution_id}}", self._abort),
            Operation("eggplant.run_progress", "POST", "/api/run/progress", self._progress),
            Operation("eggplant.list_runs", "GET", "/ai/runs", self._list_runs),
            Operation("eggplant.get_run", "GET", "/ai/runs/{number}", self._get_run),
            Operation("eggplant.get_ai_execution", "GET", "/ai/executions/{execution_id}", self._get_ai_execution),
            Operation("eggplant.list_models", "GET", "/ai/models", self._list_models),
            Operation("eggplant.list_test_cases", "GET", "/ai/models/{number}/testcases", self._list_test_cases),
            Operation(
                "eggplant.list_test_configurations",
                "GET",
                "/test_config_service/api/v1/test_configurations",
                self._list_configurations,
            ),
            Operation("eggplant.list_agents", "GET", "/ai/agents", self._list_agents),
            Operation("eggplant.create_agent", "POST", "/ai/agents", self._create_agent),
            Operation("eggplant.run_logs", "GET", "/ai/runlogs/{number}", self._run_logs),
            Operation(
                "eggplant.start_test_configuration",
                "POST",
                "/task_scheduler_service/api/v1/task_instances/{configuration_id}",
                self._start_configuration,
            ),
            Operation(
                "eggplant.get_test_configuration_task",
                "GET",
                "/ai/testconfigtasks/{task_id}",
                self._get_configuration_task,
            ),
            Operation("eggplant.list_test_results", "GET", results, self._list_results),
            Operation("eggplant.get_test_result", "GET", f"{results}/{{result_id}}", self._get_result),
            Operation("eggplant.test_result_logs", "GET", f"{results}/{{result_id}}/logs", self._result_logs),
            Operation(
                "eggplant.test_result_screenshots",
                "GET",
                f"{results}/{{result_id}}/screenshots",
                self._result_screenshots,
            ),
            Operation("eggplant.screenshot", "GET", "/api/v2/screenshots/{screenshot_id}", self._screenshot),
            Operation("eggplant.list_test_config_results", "GET", configurations, self._list_config_results),
            Operation(
                "eggplant.get_test_config_result",
                "GET",
                f"{configurations}/{{result_id}}",
                self._get_config_result,
            ),
            Operation("eggplant.junit", "GET", f"{configurations}/{{result_id}}/junit", self._junit),
        )

    # Answers that are the same everywhere

    @property
    def _capabilities(self) -> Capabilities:
        return GENERATIONS[self.settings.eggplant_generation]

    def authenticate(self, exchange: Exchange) -> None:
        """Accept a token of the identity provider."""
        token = bearer_token(exchange)
        if token is None or not self.identity.accepts(token):
            response = _detail(401, "Unauthorized")
            response.headers.append(("www-authenticate", "Bearer"))
            raise Refusal(response, "no bearer token" if token is None else None)

    def unknown_path(self, exchange: Exchange) -> Response:
        """Answer a path that does not exist: 404, also when a slash is too much."""
        exchange.note("no such path; slashes count")
        return _detail(404, "Not Found")

    def wrong_method(self, exchange: Exchange, allowed: tuple[str, ...]) -> Response:
        """Answer 405."""
        response = _detail(405, "Method Not Allowed")
        response.headers.append(("allow", ", ".join(allowed)))
        return response

    def _require_results_api(self) -> None:
        if not self._capabilities.results:
            raise Refusal(_detail(404, "Not Found"))

    def _execution(self, execution_id: str) -> Execution:
        if ANY_UUID.fullmatch(execution_id) is None:
            raise _invalid(["path", "execution_id"], "value is not a valid uuid")
        run = self.runs.find(execution_id.lower())
        if not isinstance(run, Execution):
            raise Refusal(_detail(404, "Execution not found"))
        return run

    def _numbered(self, number: str) -> tuple[Execution, CaseVerdict | None]:
        if not number.isdecimal():
            raise _invalid(["path", "run_id"], "value is not a valid integer")
        for run, case in self._numbered_runs(hidden=True):
            if int(number) == (run.number if case is None else case.number):
                return run, case
        raise Refusal(_detail(404, "Run not found"))

    def _visible(self, hidden: bool = False) -> list[Execution]:
        """Return the executions, oldest first; with ``hidden`` those too that lists leave out."""
        shown = [
            run
            for run in self.runs.all()
            if isinstance(run, Execution) and not run.vanished and (hidden or not run.hidden)
        ]
        for run in shown:
            self.runs.see(run)
        return shown

    def _page(self, exchange: Exchange, known: tuple[str, ...], default: int) -> tuple[int, int, dict[str, str]]:
        """Return limit, offset and the other query parameters, checked."""
        arguments = exchange.arguments()
        numbers = {"limit": default, "offset": 0}
        for name, value in arguments.items():
            if name in numbers:
                if not value.isdecimal():
                    raise _invalid(["query", name], "value is not a valid integer")
                numbers[name] = int(value)
            elif name not in known:
                raise _invalid(["query", name], "unknown query parameter")
        return numbers["limit"], numbers["offset"], arguments

    # Starting and stopping

    def _start(self, exchange: Exchange) -> Response:
        body = self._read_start(exchange)
        model = self._start_target(body)
        if model.restricted:
            raise Refusal(_detail(403, "Server denies access from the resource."))
        case_id = body.get("test_case_id")
        case = next((c for c in model.cases if c[0] == case_id), None)
        if case_id is not None and case is None:
            raise _invalid(["body", "test_case_id"], "no such test case")
        run = self._new_execution(model, body, self.clock.now(), self.take_plan(model), case)
        return json_response(200, {"execution_id": run.run_id})

    @staticmethod
    def _read_object(exchange: Exchange) -> dict[str, Any]:
        if exchange.media_type != "application/json":
            raise _invalid(["body"], f"expected application/json, not {exchange.media_type or 'nothing'}")
        try:
            body = json.loads(exchange.body)
        except ValueError:
            raise _invalid(["body"], "not valid JSON") from None
        if not isinstance(body, dict):
            raise _invalid(["body"], "not an object")
        return body

    def _read_start(self, exchange: Exchange) -> dict[str, Any]:
        body = self._read_object(exchange)
        objects = {name: body[name] for name in _START_OBJECTS if name in body}
        for name, value in objects.items():
            if value is None:
                continue
            if not isinstance(value, dict):
                raise _invalid(["body", name], "not an object")
            _check_fields(value, _START_OBJECTS[name], ["body", name])
        _check_fields({k: v for k, v in body.items() if k not in objects}, _START_FIELDS, ["body"])
        if all(body.get(name) is None for name in ("model_id", "rerun_id", "script")):
            raise Refusal(_detail(400, "Required parameters were not sent."), "none of model_id, rerun_id and script")
        if body.get("execution_type") != "executing":
            raise _invalid(["body", "execution_type"], "must be executing")
        return body

    def _start_target(self, body: dict[str, Any]) -> Model:
        if body.get("model_id") is not None:
            model = self.models.get(body["model_id"].lower())
            if model is None:
                raise _invalid(["body", "model_id"], "no such model")
            return model
        if body.get("rerun_id") is not None:
            for run in self._visible(hidden=True):
                if run.number == body["rerun_id"] and run.target_id in self.models:
                    return self.models[run.target_id]
            for model in self.models.values():
                if any(case[0] == body["rerun_id"] for case in model.cases):
                    return model
            raise _invalid(["body", "rerun_id"], "no such run")
        script: str = body["script"]
        return Model(f"script:{script}", script, ending_for_name(script))

    def _new_execution(
        self,
        model: Model,
        arguments: dict[str, Any],
        created: float,
        plan: Plan,
        case: tuple[int, str, bool] | None = None,
        kind: str = "run",
    ) -> Execution:
        is_script = model.id.startswith("script:")
        run = Execution(
            platform=self.name,
            kind=kind,
            run_id=self.new_id(),
            number=self.next_number(),
            target_id=model.id,
            target_name=None if is_script else model.name,
            created=created,
            duration=duration_of(plan),
            ending=ending_of(plan),
            failing=plan.failing,
            arguments=arguments,
            case_name=case[1] if case else None,
            run_type="script" if is_script else "testcase" if case else "model",
            agent=_AGENT if arguments.get("agent") else None,
            result_id=self.new_id(),
        )
        # A test case without a flaw passes although the model's runs fail.
        if case is not None and run.ending is Ending.FAILED and not case[2] and any(c[2] for c in model.cases):
            run.ending = Ending.PASSED
        run.results = self._tested_cases(model, run)
        self.runs.add(run)
        return run

    def _tested_cases(self, model: Model, run: Execution) -> list[CaseVerdict]:
        if run.ending in (Ending.EMPTY, Ending.ERRORED):
            return []
        failed = run.ending is Ending.FAILED
        if run.kind == "run":
            return [CaseVerdict(run.number, run.case_name or f"{model.name} exploration", failed)]
        tried = [(name, failed and flawed) for _, name, flawed in model.cases]
        if run.failing is not None:
            tried = [(name, name in run.failing) for name, _ in tried]
        elif model.name == "Flaky nightly":
            tried.insert(1, (tried[0][0], True))
            tried[:2] = tried[1::-1]
        count = len(tried)
        return [CaseVerdict(self.next_number(), name, fails, at / count) for at, (name, fails) in enumerate(tried)]

    def _abort(self, exchange: Exchange) -> Response:
        run = self._execution(exchange.params["execution_id"])
        now = self.clock.now()
        if run.phase(now).is_final:
            raise Refusal(_detail(409, "Execution is already over"))
        run.request_cancel(now, self.settings.cancel_seconds, "eggplant.abort_execution")
        return no_content()

    # Following

    def _status(self, run: Execution, now: float) -> str:
        if run.raw_status is not None:
            return run.raw_status
        phase = run.phase(now)
        if not phase.is_final:
            # The documented words know no waiting.
            return "Running"
        if phase is Phase.CANCELLED:
            return "Cancelled"
        return {Ending.FAILED: "Failed", Ending.ERRORED: "Incomplete"}.get(run.ending, "Passed")

    def _row(self, run: Execution, now: float) -> str:
        """Return the progress of a run as JSON text."""
        cached = run.cached_row(now)
        if cached is not None:
            return cached
        phase = run.phase(now)
        until = math.inf if phase.is_final else 0.0
        return run.cache_row((run.revision, phase), until, lambda: self._progress_json(run, now))

    def _progress_json(self, run: Execution, now: float) -> dict[str, Any]:
        finished = run.finished_at(now)
        return {
            "id": run.run_id,
            "modelname": run.target_name,
            "username": _USER,
            "starttime": short_offset(run.created),
            "endtime": None if finished is None else short_offset(finished),
            "type": run.run_type,
            "agentname": run.agent,
            "initiator": "api",
            "status": self._status(run, now),
            "processid": str(5000 + run.number),
        }

    def _progress(self, exchange: Exchange) -> Response:
        if not self._capabilities.progress:
            raise Refusal(_detail(404, "Not Found"))
        if exchange.media_type != "application/x-www-form-urlencoded":
            raise Refusal(
                _detail(400, "The required parameters were not sent"),
                f"progress must be form-encoded, not {exchange.media_type or 'without Content-Type'}",
            )
        form = exchange.form()
        unknown = sorted(form.keys() - {"id", "modelName", "limit"})
        if unknown:
            raise Refusal(_detail(400, f"Unrecognized parameter {unknown[0]}"), f"unknown field {unknown[0]}")
        run_id, model_name, limit = form.get("id"), form.get("modelName"), form.get("limit")
        if bool(run_id) == bool(model_name):
            raise Refusal(_detail(400, "Either id or modelName must be supplied"), "either id or modelName")
        if limit is not None and not (limit.isdecimal() and int(limit) > 0):
            raise Refusal(_detail(400, "limit must be a number"), f"limit {limit!r}")
        now = self.clock.now()
        if run_id:
            run = self.runs.find(run_id.lower())
            found = [run] if isinstance(run, Execution) and run.kind == "run" else []
        else:
            found = self._runs_of_model(str(model_name))
        rows = [self._row(run, now) for run in (found if limit is None else found[: int(limit)])]
        return self._wrap_progress(rows, by_id=bool(run_id))

    def _runs_of_model(self, name: str) -> list[Execution]:
        """Return the executions of a model, newest first."""
        model = next((m for m in self.models.values() if m.name == name), None)
        if model is None:
            return []
        if model.restricted:
            raise Refusal(_detail(403, "The current user has no access to the model"))
        runs = [run for run in self.runs.listed(model.id) if isinstance(run, Execution) and run.kind == "run"]
        runs.reverse()
        return runs

    def _wrap_progress(self, rows: list[str], by_id: bool) -> Response:
        shape = self.settings.eggplant_progress_shape
        listed = f"[{', '.join(rows)}]"
        if shape == "items":
            body = f'{{"items": {listed}}}'
        elif shape == "documented" and by_id and rows:
            body = rows[0]
        else:
            body = listed
        return encoded_json_response(200, body.encode())

    def _get_execution(self, exchange: Exchange) -> Response:
        if not self._capabilities.executions:
            # The path exists, for DELETE.
            raise Refusal(_detail(405, "Method Not Allowed"))
        run = self._execution(exchange.params["execution_id"])
        now = self.clock.now()
        finished = run.finished_at(now)
        return json_response(
            200,
            {
                "execution_id": run.run_id,
                "execution_type": "executing",
                "model_id": run.target_id if run.target_id in self.models else None,
                "status": self._status(run, now).upper(),
                "start_time": zulu(run.created),
                "end_time": None if finished is None else zulu(finished),
            },
        )

    def _get_ai_execution(self, exchange: Exchange) -> Response:
        if not self._capabilities.executions:
            raise Refusal(_detail(404, "Not Found"))
        run = self._execution(exchange.params["execution_id"])
        return encoded_json_response(200, self._row(run, self.clock.now()).encode())

    def _run_json(self, run: Execution, case: CaseVerdict | None, now: float) -> dict[str, Any]:
        """Return an item of the list of runs, as public clients show it: nothing in it says which execution it is."""
        finished = run.finished_at(now)
        began = run.created if case is None else self._began(run, case)
        described = {
            "id": run.number if case is None else case.number,
            "modelname": run.target_name,
            "groupid": 1,
            "runtype": _RUN_TYPES.get(run.run_type, run.run_type),
            "testcase": run.case_name if case is None else case.name,
            "teststatus": self._status(run, now) if case is None else self._result_status(run, case, now),
            "starttime": short_offset(began),
            "endtime": None if finished is None else short_offset(finished),
        }
        if finished is None:
            described["teststatus"] = "FAILED" if self.settings.eggplant_early_verdict else "INCOMPLETE"
            if self.settings.eggplant_early_verdict:
                described["runstatus"] = "STARTED"
        return described

    def _numbered_runs(self, hidden: bool = False) -> list[tuple[Execution, CaseVerdict | None]]:
        """Return what the list of runs has, oldest first: executions, and the tests of test configurations."""
        listed: list[tuple[int, Execution, CaseVerdict | None]] = []
        for run in self._visible(hidden):
            if run.kind == "run":
                listed.append((run.number, run, None))
            else:
                listed += [(case.number, run, case) for case in run.results]
        return [(run, case) for _, run, case in sorted(listed, key=lambda item: item[0])]

    def _list_runs(self, exchange: Exchange) -> Response:
        limit, offset, arguments = self._page(exchange, ("task_instance_id",), default=100)
        runs = self._numbered_runs()
        if "task_instance_id" in arguments:
            wanted = arguments["task_instance_id"].lower()
            runs = [(run, case) for run, case in runs if case is not None and run.run_id == wanted]
        now = self.clock.now()
        items = [self._run_json(run, case, now) for run, case in runs[offset : offset + limit]]
        return json_response(200, {"items": items, "total_count": len(runs)})

    def _get_run(self, exchange: Exchange) -> Response:
        return json_response(200, self._run_json(*self._numbered(exchange.params["number"]), self.clock.now()))

    def _list_models(self, exchange: Exchange) -> Response:
        limit, offset, _ = self._page(exchange, (), default=1000)
        models = [m for m in self.models.values() if not m.restricted]
        items = [{"id": m.number, "name": m.name, "modeluuid": m.id} for m in models[offset : offset + limit]]
        return json_response(200, {"items": items, "total_count": len(models)})

    def _list_test_cases(self, exchange: Exchange) -> Response:
        limit, offset, _ = self._page(exchange, (), default=1000)
        model = next((m for m in self.models.values() if str(m.number) == exchange.params["number"]), None)
        if model is None or model.restricted:
            raise Refusal(_detail(404, "Model not found"))
        items = [{"id": number, "testcaseName": name} for number, name, _ in model.cases]
        return json_response(200, {"items": items[offset : offset + limit], "total_count": len(items)})

    def _list_configurations(self, exchange: Exchange) -> Response:
        limit, offset, _ = self._page(exchange, (), default=1000)
        items = [{"id": each.id, "name": each.name} for each in self.configurations.values()]
        return json_response(200, {"items": items[offset : offset + limit], "total_count": len(items)})

    def _list_agents(self, exchange: Exchange) -> Response:
        limit, offset, _ = self._page(exchange, (), default=1000)
        return json_response(200, {"items": self.agents[offset : offset + limit], "total_count": len(self.agents)})

    def _create_agent(self, exchange: Exchange) -> Response:
        exchange.note("a POST to /ai/agents creates an agent; the list is a GET")
        agent = {"id": str(len(self.agents) + 1), "name": "New agent", "hosted": False, "status": "offline"}
        self.agents.append(agent)
        return json_response(201, agent)

    def _log_lines(self, run: Execution, case: CaseVerdict | None, now: float) -> list[dict[str, Any]]:
        """Return a log in the form that public clients show: real failures have an ordinary severity."""
        number = run.number if case is None else case.number
        lines: list[dict[str, Any]] = []

        def add(message: str, kind: str = "log", severity: str = "INFORMATIONAL", image: bool = False) -> None:
            at = len(lines)
            lines.append(
                {
                    "id": number * 1000 + at,
                    "eventtime": zulu(run.created + at / 10),
                    "testrunid": number,
                    "message": message,
                    "severity": severity,
                    "step_id": at,
                    "stage": "run",
                    "message_type": kind,
                    "image_name": "confirmation.png" if image else None,
                    "image_id": number if image else None,
                }
            )

        name = case.name if case else run.target_name or run.target_id
        add(f"Run started: {name}")
        if run.kind != "run" or run.arguments.get("asset"):
            add(f"Using Git commit SHA: '{_COMMIT}'")
        if run.ending is Ending.ERRORED:
            add("The agent could not connect to the system under test", severity="ERROR")
        elif case is not None:
            add("Visited state: Shop front")
            if case.fails:
                add("Searching for the image 'confirmation'", "screenshot", image=True)
                add(f"{name}: image 'confirmation' was not found on the screen", "imagefound")
            else:
                add("Visited state: Confirmation")
        if run.phase(now).is_final:
            add(f"Run ended: {self._status(run, now)}")
        return lines

    def _run_logs(self, exchange: Exchange) -> Response:
        run, case = self._numbered(exchange.params["number"])
        items = self._log_lines(run, case or next(iter(run.results), None), self.clock.now())
        return json_response(200, {"items": items, "total_count": len(items)})

    # Test configurations

    def _start_configuration(self, exchange: Exchange) -> Response:
        configuration = self.configurations.get(exchange.params["configuration_id"].lower())
        if configuration is None:
            raise Refusal(_detail(404, "Test configuration not found"))
        if exchange.body:
            self._read_object(exchange)
        plan = self.take_plan(configuration)
        arguments = {"test_config_id": configuration.id}
        run = self._new_execution(configuration, arguments, self.clock.now(), plan, kind="test configuration")
        return json_response(201, {"task_instance_id": run.run_id})

    def _get_configuration_task(self, exchange: Exchange) -> Response:
        if not self._capabilities.tasks:
            raise Refusal(_detail(404, "Not Found"))
        run = self.runs.find(exchange.params["task_id"].lower())
        if not isinstance(run, Execution) or run.kind != "test configuration":
            raise Refusal(_detail(404, "Task instance not found"))
        now = self.clock.now()
        finished = run.finished_at(now)
        return json_response(
            200,
            {
                "task_instance_id": run.run_id,
                "test_config_id": run.target_id,
                "runstatus": self._status(run, now),
                "starttime": short_offset(run.created),
                "endtime": None if finished is None else short_offset(finished),
            },
        )

    # Results

    def _results(self) -> list[tuple[Execution, CaseVerdict]]:
        """Return every result, newest first."""
        runs = self._visible()
        runs.reverse()
        return [(run, case) for run in runs for case in run.results]

    def _result_status(self, run: Execution, case: CaseVerdict, now: float) -> str:
        if run.phase(now) is not Phase.FINISHED:
            return self._status(run, now).upper()
        return "FAILED" if case.fails else "PASSED"

    def _result_json(self, run: Execution, case: CaseVerdict, now: float) -> dict[str, Any]:
        finished = run.finished_at(now)
        is_configuration = run.kind != "run"
        began = self._began(run, case)
        return {
            "id": case.number,
            "name": case.name,
            "model_id": run.target_id if run.target_id in self.models else None,
            "model_name": run.target_name,
            "test_case_name": run.case_name,
            "run_type": "TEST_CASE" if run.run_type == "testcase" or is_configuration else "EXPLORATORY",
            "status": self._result_status(run, case, now),
            "start_time": zulu(began),
            "end_time": None if finished is None else zulu(finished),
            "duration": None if finished is None else round(finished - began, 3),
        }

    def _began(self, run: Execution, case: CaseVerdict) -> float:
        # In a run that never ends, its first case is at it for ever.
        return run.created + (case.starts * run.duration if math.isfinite(run.duration) else 0.0)

    def _list_results(self, exchange: Exchange) -> Response:
        self._require_results_api()
        filters = ("model_id", "model_name", "status", "run_type")
        known = (*filters, "execution_id", "test_config_result_id", "sort_by", "sort_direction")
        limit, offset, arguments = self._page(exchange, known, default=50)
        now = self.clock.now()
        # As web frameworks do with a filter that they don't know, execution_id is ignored.
        of = arguments.get("test_config_result_id")
        found = [
            self._result_json(run, case, now)
            for run, case in self._results()
            if of is None or (run.kind != "run" and run.result_id == of)
        ]
        for name in filters:
            if name in arguments:
                found = [item for item in found if item[name] == arguments[name]]
        if arguments.get("sort_direction", "desc").lower() == "asc":
            found.reverse()
        return json_response(200, {"items": found[offset : offset + limit], "total_count": len(found)})

    def _result(self, result_id: str) -> tuple[Execution, CaseVerdict]:
        self._require_results_api()
        for run, case in self._results():
            if str(case.number) == result_id:
                return run, case
        raise Refusal(_detail(404, "Test result not found"))

    def _get_result(self, exchange: Exchange) -> Response:
        run, case = self._result(exchange.params["result_id"])
        return json_response(200, self._result_json(run, case, self.clock.now()))

    def _result_logs(self, exchange: Exchange) -> Response:
        run, case = self._result(exchange.params["result_id"])
        limit, offset, _ = self._page(exchange, (), default=1000)
        items = self._log_lines(run, case, self.clock.now())
        return json_response(200, {"items": items[offset : offset + limit], "total_count": len(items)})

    def _result_screenshots(self, exchange: Exchange) -> Response:
        run, case = self._result(exchange.params["result_id"])
        limit, offset, _ = self._page(exchange, (), default=1000)
        items = [{"id": case.number, "timestamp": zulu(run.created + 0.2), "name": "confirmation.png"}]
        if not case.fails:
            items = []
        return json_response(200, {"items": items[offset : offset + limit], "total_count": len(items)})

    def _screenshot(self, exchange: Exchange) -> Response:
        # A failed result has one screenshot, under the result's own id.
        _, case = self._result(exchange.params["screenshot_id"])
        if not case.fails:
            raise Refusal(_detail(404, "Screenshot not found"))
        return file_response("confirmation.png", "image/png", _PNG)

    def _config_result_json(self, run: Execution, now: float) -> dict[str, Any]:
        finished = run.finished_at(now)
        return {
            "id": run.result_id,
            "test_config_id": run.target_id,
            "test_config_name": run.target_name,
            "status": self._status(run, now).upper(),
            "start_time": zulu(run.created),
            "end_time": None if finished is None else zulu(finished),
        }

    def _config_runs(self) -> list[Execution]:
        """Return the runs of test configurations, in an order that no document gives."""
        runs = [run for run in self._visible() if run.kind == "test configuration"]
        return sorted(runs, key=lambda run: run.result_id)

    def _list_config_results(self, exchange: Exchange) -> Response:
        self._require_results_api()
        known = ("test_config_id", "status", "sort_by", "sort_direction")
        limit, offset, arguments = self._page(exchange, known, default=50)
        now = self.clock.now()
        found = [self._config_result_json(run, now) for run in self._config_runs()]
        for name in known[:2]:
            if name in arguments:
                found = [item for item in found if item[name] == arguments[name]]
        return json_response(200, {"items": found[offset : offset + limit], "total_count": len(found)})

    def _config_run(self, result_id: str) -> Execution:
        self._require_results_api()
        for run in self._config_runs():
            if run.result_id == result_id.lower():
                return run
        raise Refusal(_detail(404, "Test config result not found"))

    def _get_config_result(self, exchange: Exchange) -> Response:
        run = self._config_run(exchange.params["result_id"])
        return json_response(200, self._config_result_json(run, self.clock.now()))

    def _junit(self, exchange: Exchange) -> Response:
        run = self._config_run(exchange.params["result_id"])
        failed = sum(1 for case in run.results if case.fails)
        suites = ElementTree.Element("testsuites")
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            {"name": str(run.target_name), "tests": str(len(run.results)), "failures": str(failed)},
        )
        for case in run.results:
            attributes = {"classname": str(run.target_name), "name": case.name, "time": "1.500"}
            element = ElementTree.SubElement(suite, "testcase", attributes)
            if case.fails:
                message = "image 'confirmation' was not found on the screen"
                ElementTree.SubElement(element, "failure", {"message": message}).text = message
        return Response(
            200,
            ElementTree.tostring(suites, "utf-8", xml_declaration=True),
            [("content-type", "application/xml")],
        )

    # For the control and the pages

    def target(self, id_or_name: str) -> Model:
        """Return a model or a test configuration by its id or its name."""
        for model in (*self.models.values(), *self.configurations.values()):
            if id_or_name in (model.id, model.name):
                return model
        raise Mistake(f"no model or test configuration {id_or_name!r}")

    def add_model(self, name: str, ending: Ending | None, duration: float | None, model_id: str | None) -> Model:
        """Create a model with two test cases, the second of which is flawed."""
        number = 1 + max(m.number for m in (*self.models.values(), *self.configurations.values()))
        chosen = ending_for_name(name) if ending is None else ending
        cases = ((number * 10 + 1, "First path", False), (number * 10 + 2, "Second path", True))
        model = Model(model_id or self.new_id(), name, chosen, duration, number, cases)
        self.models[model.id] = model
        return model

    def simulate(self, target: Target, created: float, plan: Plan) -> SimulatedRun:
        """Start a run as a user of the platform does."""
        if not isinstance(target, Model):
            raise Mistake("executions are started from models")
        kind = "test configuration" if target.id in self.configurations else "run"
        return self._new_execution(target, {"model_id": target.id}, created, plan, kind=kind)

    def describe_run(self, run: SimulatedRun, now: float) -> RunDescription:
        """Describe a run for its page."""
        if not isinstance(run, Execution):
            raise Mistake("not a run of this platform")
        rows: list[tuple[Any, ...]] = [(case.name, self._result_status(run, case, now).lower()) for case in run.results]
        lines = self._log_lines(run, run.results[0] if run.results else None, now)
        return RunDescription(
            title=f"{run.target_name or run.target_id}, {run.kind}",
            status=self._status(run, now),
            counts={"tests": len(run.results)},
            columns=("Test", "Status"),
            rows=rows,
            remarks=[f"{line['severity']}: {line['message']}" for line in lines],
        )
