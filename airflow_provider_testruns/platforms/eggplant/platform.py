"""Eggplant DAI: its calls, and the life of a run made of them.

The documents are "Start Model Execution" (DAI 7.1), "Check Run Progress Method" and "Eggplant DAI Model Execution
Endpoints" (DAI 7.3). What they leave out is taken from the public "API V2 Endpoints" (DAI 7.5) and public clients;
a call that is not in the first three may be missing on a server, and none of those decides whether a run passed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from airflow_provider_testruns import limits
from airflow_provider_testruns.arguments import (
    boolean,
    identifier,
    optional_integer,
    optional_json,
    optional_string,
    positive,
)
from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.cleaning import is_clean, is_id
from airflow_provider_testruns.exceptions import (
    ApiError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from airflow_provider_testruns.model import Kind, Run, RunReport, RunState
from airflow_provider_testruns.platforms.eggplant import configurations as configurations
from airflow_provider_testruns.platforms.eggplant.arguments import (
    AGENT,
    ASSET,
    SUT,
    check_assets,
    check_names,
    optional_object,
    untested,
)
from airflow_provider_testruns.platforms.eggplant.endpoints import (
    CONFIG_RESULTS,
    MOST_ROWS,
    PAGE,
    EggplantCalls,
)
from airflow_provider_testruns.platforms.eggplant.names import (
    agent_named,
    configuration_named,
    model_named,
    number_of_model,
    test_case_named,
)
from airflow_provider_testruns.platforms.eggplant.report import (
    Artifacts,
    configuration_result_id,
    kept_of,
    report_of,
    run_number_of,
)
from airflow_provider_testruns.platforms.eggplant.responses import (
    aggregate,
    began_before,
    error_text,
    execution_id_of,
    is_run,
    is_web_page,
    list_of,
    number_of,
    page_of,
    rows_of,
    run_of,
    start_of,
    type_of,
)
from airflow_provider_testruns.platforms.platform import Identity, Platform, PollCache, Start
from airflow_provider_testruns.platforms.reading import Fields, newest_first
from airflow_provider_testruns.steps import Call, Response, Steps, ask, no_value, optional, path

T = TypeVar("T")

#: The calls that may poll an execution, in the order in which they are tried.
POLL_ENDPOINTS = ("progress", "executions", "ai_executions", "runs")

_EXECUTIONS = "/execution_service/api/v1/executions"
_TASK_INSTANCES = "/task_scheduler_service/api/v1/task_instances"

_ENDPOINT_NAMES = {
    "progress": "POST /api/run/progress",
    "executions": f"GET {_EXECUTIONS}/{{id}}",
    "ai_executions": "GET /ai/executions/{id}",
    "runs": "GET /ai/runs",
}
#: A list that only helps to find something: whatever is wrong with it, what is looked for is found in another way, or
#: not at all.
_UNREADABLE_LIST = (NotFoundError, InvalidRequestError, PermissionDeniedError, InvalidReplyError)
#: What a run remembers of the time before its start, until it is found.
_BASELINE = ("known_results", "known_since", "submitted_at", "after_number", "run_type")
#: What a run's ids have by which it is found where lists do not show its id.
_HOW_TO_FIND = (
    "known_results",
    "known_since",
    "submitted_at",
    "after_number",
    "run_type",
    "run_number",
    "result_only",
    "test_case_name",
)
#: How far apart two calls may show the start of one run.
_SAME_START = timedelta(seconds=5)
#: Of how many runs of GET /ai/runs it is remembered for which execution they were taken.
_MOST_ADOPTED = 10_000
#: How far back GET /ai/runs is searched for an execution.
_POLLED_RUNS = 300


@dataclass(frozen=True, slots=True)
class ListPage:
    """What one poll of a model's list showed.

    :param found: the runs that were looked for.
    :param rows: how many the list had.
    :param needed: how many of them, from the first, hold all that were found.
    :param newest_first: whether the list is in that order.
    :param oldest: the start of its last run.
    """

    found: list[Run]
    rows: int
    needed: int
    newest_first: bool
    oldest: datetime | None


class EggplantPlatform(EggplantCalls, Platform):
    """Eggplant DAI, as steps.

    It remembers which call answers for an execution, and the models' names: one
    object for each connection saves calls.

    :param base_url: the connection's address, for messages and links.
    :param poll_endpoint: the one call to poll with, of :data:`POLL_ENDPOINTS`; empty to find out.
    :param run_url_template: a page for people, with ``{base_url}``, ``{run_id}`` and ``{model_id}``; empty for the
        base URL.
    :raises ConfigurationError: for a ``poll_endpoint`` that is none.
    """

    name: ClassVar[str] = "eggplant"
    title: ClassVar[str] = PLATFORMS["eggplant"].title
    # Executions queue for agents and licences, and ``starttime`` is when one gets them.
    begins_late: ClassVar[bool] = True

    def __init__(self, base_url: str, *, poll_endpoint: str = "", run_url_template: str = "") -> None:
        super().__init__()
        if poll_endpoint and poll_endpoint not in POLL_ENDPOINTS:
            raise ConfigurationError(
                f"poll_endpoint must be one of {', '.join(POLL_ENDPOINTS)}, got {poll_endpoint!r}."
            )
        self._base_url = base_url
        self._pinned = poll_endpoint
        self._run_url_template = run_url_template
        self._answers = poll_endpoint
        self._no_progress = False
        self._no_model_progress = False
        self._oldest_first = False
        self._model_names: dict[str, str] = {}
        self._model_ids: dict[str, str] = {}
        self._adopted: dict[str, set[str]] = {}
        self._lookers: dict[str, Callable[[str, Mapping[str, str]], Steps[Run | None]]] = {
            "progress": self._look_in_progress,
            "executions": self._look_in_executions,
            "ai_executions": self._look_in_ai_executions,
            "runs": self._look_in_runs,
        }

    # Starting

    def prepare_start(  # type: ignore[override]  # the arguments by name: an unknown one is a TypeError
        self,
        model_id: str | None = None,
        test_case_id: int | str | None = None,
        rerun_id: int | str | None = None,
        script: str | None = None,
        agent: Mapping[str, Any] | None = None,
        asset: Mapping[str, Any] | None = None,
        sut: Mapping[str, Any] | None = None,
        model_name: str | None = None,
        test_config_id: str | None = None,
        test_case_name: str | None = None,
        agent_name: str | None = None,
        require_assets: bool = False,
        test_config_name: str | None = None,
        task_instance_body: Mapping[str, Any] | None = None,
    ) -> Steps[Start]:
        """Make a start ready (POST /execution_service/api/v1/executions, "Start Model Execution", DAI 7.1).

        :param model_id: the model's UUID.
        :param test_case_id: the test case of the model; a whole number.
        :param rerun_id: the test case id of the run to repeat; a whole number.
        :param script: the name of the script to run.
        :param agent: ``agent_id``, ``is_hosted_agent``.
        :param asset: ``asset_version_id``, ``asset_path``.
        :param sut: ``sut_id``, ``criteria`` (a list of texts).
        :param model_name: the model's name, instead of its UUID. Beside ``model_id`` it saves the lookup of the name,
            by which the server lists runs.
        :param test_config_id: start this test configuration instead; goes with none of those before.
        :param test_case_name: the test case's name, instead of its number.
        :param agent_name: the agent's name, instead of ``agent_id`` in ``agent``.
        :param require_assets: whether the start of a model without an agent or without an asset, which runs no
            snippet, is refused instead of warned of.
        :param test_config_name: the test configuration's name, instead of its id.
        :param task_instance_body: the body of the start of a test configuration, sent as it is.
        :raises ConfigurationError: for arguments that can't be right, naming them, and for names of which the server
            lists none or several.
        """
        given = {
            "model_id": optional_string("model_id", model_id),
            "test_case_id": optional_integer("test_case_id", test_case_id),
            "rerun_id": optional_integer("rerun_id", rerun_id),
            "script": optional_string("script", script),
            "agent": optional_object("agent", agent, AGENT),
            "asset": optional_object("asset", asset, ASSET),
            "sut": optional_object("sut", sut, SUT),
        }
        body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        names = {
            "model_name": optional_string("model_name", model_name),
            "test_case_name": optional_string("test_case_name", test_case_name),
            "agent_name": optional_string("agent_name", agent_name),
        }
        test_config_id = optional_string("test_config_id", test_config_id)
        test_config_name = optional_string("test_config_name", test_config_name)
        if test_config_id is not None or test_config_name is not None:
            others = [*body, *(name for name, value in names.items() if value)]
            if others:
                raise ConfigurationError(
                    f"{'test_config_name' if test_config_id is None else 'test_config_id'} goes alone, and"
                    f" {', '.join(others)} was given too: a test configuration defines what it runs."
                )
            return (
                yield from self._configuration_start(
                    test_config_id, test_config_name, optional_json("task_instance_body", task_instance_body)
                )
            )
        if task_instance_body is not None:
            raise ConfigurationError("task_instance_body is only for test_config_id or test_config_name.")
        check_names(body, names)
        check_assets(body, names["agent_name"], boolean("require_assets", require_assets))
        if "model_id" not in body and names["model_name"] and not body.keys() & {"rerun_id", "script"}:
            body["model_id"], listed_as = yield from model_named(self, names["model_name"])
            self._learn(body["model_id"], names["model_name"])
        elif names["test_case_name"]:
            listed_as = yield from number_of_model(self, body["model_id"])
        if names["test_case_name"]:
            body["test_case_id"] = yield from test_case_named(listed_as, names["test_case_name"])
        if names["agent_name"]:
            body["agent"] = {**body.get("agent", {}), "agent_id": (yield from agent_named(self, names["agent_name"]))}
        return (yield from self._execution_start(body, names["model_name"], names["test_case_name"]))

    def _execution_start(
        self, body: Mapping[str, Any], model_name: str | None, test_case_name: str | None
    ) -> Steps[Start]:
        warnings = untested(body)
        ids: dict[str, str] = {"model_id": body["model_id"]} if "model_id" in body else {}
        cannot_list = None
        if "script" in body:
            cannot_list = "a script run belongs to no model, and DAI lists runs by model."
        elif model_name is None and "model_id" in body:
            model_name, cannot_list = yield from self._name_of_model(body["model_id"])
        elif model_name is None:
            cannot_list = "a rerun does not name its model, and DAI lists runs by model. Give model_name."
        if model_name is not None:
            ids["model_name"] = model_name
        if test_case_name is not None:
            ids["test_case_name"] = test_case_name
        if self._pinned in ("", "runs"):
            yield from self._note_highest_number()
        started_with = {}
        if cannot_list is None and model_name is not None:
            started_with["model_name"] = model_name
            if "rerun_id" not in body:
                started_with["type"] = _type_of_start(body)
        what = self._what(body, model_name)
        return Start(
            what,
            Call(
                f"start {what}",
                "POST",
                _EXECUTIONS,
                partial(self._read_start, ids, _type_of_start(body)),
                json={"execution_type": "executing", **body},
                idempotent=False,
                not_executed=_start_did_nothing,
                error_text=error_text,
            ),
            ids={**ids, **{key: value for key, value in started_with.items() if key == "type"}},
            started_with=started_with,
            not_compared=tuple(name for name in ("test_case_id", "rerun_id", "agent", "asset", "sut") if name in body),
            cannot_list=cannot_list,
            warnings=tuple(warnings),
        )

    def identity(
        self,
        model_id: str | None = None,
        model_name: str | None = None,
        test_config_id: str | None = None,
        test_config_name: str | None = None,
        **arguments: Any,
    ) -> Steps[Identity | None]:
        """The model, with its name, or the test configuration. Asks at most for the names of models, or the id of a
        test configuration that is given by name."""
        if test_config_id or test_config_name:
            if not test_config_id:
                test_config_id = yield from configuration_named(
                    optional_string("test_config_name", test_config_name) or ""
                )
            test_config_id = optional_string("test_config_id", test_config_id) or ""
            return Identity({"kind": Kind.TEST_CONFIGURATION.value, "test_config_id": test_config_id})
        model_id, model_name = optional_string("model_id", model_id), optional_string("model_name", model_name)
        body = {name: arguments[name] for name in ("script", "rerun_id", "test_case_id") if arguments.get(name)}
        if "test_case_id" not in body and arguments.get("test_case_name"):
            body["test_case_id"] = arguments["test_case_name"]
        if model_name is None and model_id is not None:
            model_name, _ = yield from self._name_of_model(model_id)
        ids = {"model_id": model_id, "model_name": model_name, "run_type": _type_of_start(body)}
        if "script" in body:
            # It belongs to no model, whatever else is given.
            del ids["model_id"], ids["model_name"]
        started_with = {}
        if ids.get("model_name") and "rerun_id" not in body:
            started_with["type"] = ids["run_type"]
        return Identity({name: value for name, value in ids.items() if value}, started_with)

    def get_stored_run(self, stored: Run, identity: Identity, since: datetime | None) -> Steps[Run]:
        """The run by whichever call shows it. Of what was stored only that is used by which it is found where lists do
        not show its id."""
        ids = {name: stored.ids[name] for name in _HOW_TO_FIND if name in stored.ids}
        # Not the model's id, nor a result of a test configuration: they would be shown as given.
        ids |= {name: value for name, value in identity.ids.items() if name != "model_id"}
        try:
            run = yield from self.get_run(self.run_by_id(stored.run_id, **ids))
        except NotFoundError:
            result = yield from self._stored_result(identity, stored.ids)
            if result is None:
                raise
            run = self._run_of_result(result, stored.run_id, ids)
        if run.started_with.get("type", "model") not in ("model", "testcase", "script"):
            # A word for the type that is not known is compared with nothing.
            run = replace(run, started_with={key: run.started_with[key] for key in run.started_with if key != "type"})
        return run

    def _stored_result(self, identity: Identity, stored: Mapping[str, str]) -> Steps[Fields | None]:
        """The result by which a run of a test configuration was once found, if it is one of this test configuration:
        once it is known, what was there before the start is not remembered any more."""
        test_config_id, known = identity.ids.get("test_config_id"), stored.get("test_config_result_id", "")
        if not test_config_id or not known:
            return None
        rows = yield from configurations.results_of(test_config_id, self.page_size)
        return next((row for row in rows or [] if row.identifier("id").casefold() == known.casefold()), None)

    def _configuration_start(
        self, test_config_id: str | None, name: str | None, body: Mapping[str, Any] | None
    ) -> Steps[Start]:
        if test_config_id is None:
            test_config_id = yield from configuration_named(name or "")
        elif name is not None:
            raise ConfigurationError("Only one of test_config_id and test_config_name may be given.")
        what = f"test configuration {name or test_config_id}"
        ids = {"kind": Kind.TEST_CONFIGURATION.value, "test_config_id": test_config_id}
        results = yield from configurations.results_of(test_config_id, self.page_size)
        known = {} if results is None else configurations.baseline(results)
        cannot_list = None if known else "the server does not list the results of its test configurations."
        ids |= known
        return Start(
            what,
            Call(
                f"start {what}",
                "POST",
                path(_TASK_INSTANCES + "/{test_config_id}", test_config_id=test_config_id),
                partial(self._read_configuration_start, ids),
                json=body,
                idempotent=False,
                error_text=error_text,
            ),
            ids=ids,
            cannot_list=cannot_list,
            # A result may be listed only at its end, and DAI refuses a second run of a test configuration.
            start_after_lookup=False,
        )

    @staticmethod
    def _what(body: Mapping[str, Any], model_name: str | None) -> str:
        model = f"model {model_name or body.get('model_id', '')}".strip()
        if "script" in body:
            return f"a run of script {body['script']}"
        if "rerun_id" in body:
            return f"a rerun of {body['rerun_id']}"
        return f"test case {body['test_case_id']} of {model}" if "test_case_id" in body else f"a run of {model}"

    def _read_start(self, ids: Mapping[str, str], run_type: str, response: Response) -> Run:
        run_id = Fields(response.json(), "the response").identifier("execution_id")
        known = dict(ids)
        if self._highest_number is not None:
            # For servers where only GET /ai/runs shows the run, under a number of its own.
            known |= {"after_number": str(self._highest_number), "run_type": run_type}
            known |= configurations.submitted_at(response)
        # "started" is ours: the response has no status, and the first poll's word is the first that counts.
        return self._linked(Run(self.name, run_id, RunState.QUEUED, "started", ids=known))

    def _read_configuration_start(self, ids: Mapping[str, str], response: Response) -> Run:
        run_id = Fields(response.json(), "the response").identifier("task_instance_id")
        ids = {**ids, **configurations.submitted_at(response)}
        run = Run(self.name, run_id, RunState.QUEUED, "started", Kind.TEST_CONFIGURATION, ids=ids)
        return self._linked(run)

    def _name_of_model(self, model_id: str) -> Steps[tuple[str | None, str | None]]:
        """The name of a model, or why it is unavailable."""
        wanted = model_id.casefold()
        give = "Give model_name."
        if wanted not in self._model_names:
            try:
                models = yield from self.models()
            except _UNREADABLE_LIST as e:
                said = "a response that can't be read" if isinstance(e, InvalidReplyError) else f"HTTP {e.status}"
                why = f"runs are listed by the model's name, and the server gives no list of models ({said}). {give}"
                return None, why
            for model in models:
                uuid, name = model.get("modeluuid"), model.get("name")
                if isinstance(uuid, str) and isinstance(name, str) and name:
                    self._learn(uuid, name)
        found = self._model_names.get(wanted)
        if found is None:
            return None, f"runs are listed by the model's name, and no model in the list is {model_id}. {give}"
        if not is_clean(found):
            why = f"runs are listed by the model's name, and that of {model_id} has control characters or is too long."
            return None, f"{why} Rename the model."
        return found, None

    def _learn(self, model_id: str, name: str) -> None:
        self._model_names[model_id.casefold()] = name
        if self._model_ids.setdefault(name, model_id).casefold() != model_id.casefold():
            # Two models of one name: from the name alone it can't be determined which.
            self._model_ids[name] = ""

    # Finding

    def newest_run(self, start: Start) -> Steps[Run | None]:
        """The newest run of the start's model (POST /api/run/progress with ``limit`` 1; GET /ai/runs where that is
        missing)."""
        name = start.ids.get("model_name")
        if name is None:
            return None
        runs = yield from optional(self.list_model_progress(name, limit=1))
        if runs is None:
            runs = yield from self._newest_in_list(name, 1)
        return runs[0] if runs else None

    def _note_highest_number(self) -> Steps[None]:
        """Read the end of GET /ai/runs: what a start adds to the list has a higher number than all before."""
        self._highest_number = None
        try:
            yield from self._last_runs_page()
        except _UNREADABLE_LIST:
            # A server without the list has another call that shows the run.
            self._highest_number = None

    def find_runs(self, since: datetime | None, **ids: str) -> Steps[list[Run]]:
        """The runs that began at or after ``since``, newest first.

        Of a model they come from POST /api/run/progress, with the ids that the other calls take. Without one they
        come from GET /ai/runs: their ids are whole numbers there unless the server says which execution they are,
        and such a run can't be aborted.

        :param since: the platform's clock; ``None`` for all.
        :param ids: ``model_name`` or ``model_id``, and ``type`` (``model`` or ``testcase``); or
            ``test_config_id``, for the runs of a test configuration, which come from its results.
        :raises ConfigurationError: when the name of the model ``model_id`` is not available.
        """
        if ids.get("test_config_id"):
            found = yield from self._runs_of_configuration(ids["test_config_id"], ids)
            return [run for run in found if since is None or run.started_at is None or run.started_at >= since]
        name = ids.get("model_name")
        if name is None and ids.get("model_id"):
            name, why = yield from self._name_of_model(ids["model_id"])
            if name is None:
                raise ConfigurationError(f"The runs of model_id {ids['model_id']!r} can't be listed: {why}")
        if name is None:
            runs = yield from self._all_runs(since)
        else:
            shown = None
            if not self._no_model_progress:
                shown = yield from optional(self._runs_of_model(name, since, None if since is None else PAGE))
            runs = shown if shown is not None else (yield from self._newest_in_list(name, None, since))
        known = {key: ids[key] for key in ("model_id",) if key in ids}
        wanted = ids.get("type", "").casefold()
        return [
            self._linked(replace(run, ids={**run.ids, **known}))
            for run in runs
            if (since is None or run.started_at is None or run.started_at >= since)
            and (not wanted or run.started_with.get("type", wanted) == wanted)
        ]

    def list_model_progress(self, model_name: str, limit: int | None = None) -> Steps[list[Run]]:
        """The runs of a model, newest first (POST /api/run/progress, "Check Run Progress Method").

        :param model_name: the model's name, not its UUID.
        :param limit: at most so many; ``None`` for all.
        """
        most = None if limit is None else positive("limit", limit)
        return (yield from self._newest_in_progress(identifier("model_name", model_name, number=True), most))

    def group_of(self, run: Run) -> str | None:
        """The model's name: one progress call tells of all its runs. ``None`` where there is no such call."""
        name = run.ids.get("model_name")
        if run.kind is not Kind.RUN or not name or self._no_progress or self._pinned not in ("", "progress"):
            return None
        if run.ids.get("model_id"):
            # The list has no model ids, and links need them.
            self._learn(run.ids["model_id"], name)
        return name

    def list_group(
        self, group: str, wanted: Collection[str], oldest: datetime | None, cache: PollCache | None = None
    ) -> Steps[list[Run]]:
        """Look at runs of a model in one call, POST /api/run/progress; in more where older ones are wanted than the
        last time.

        :param group: the model's name.
        :param wanted: the ids of the runs that are looked for; the others are not read.
        :param oldest: the earliest start among them, ``None`` when it is not known.
        :param cache: of the looks at this model before.
        :return: those of the wanted runs that the list shows.
        """
        seen = cache or PollCache()
        size: int | None = max(len(wanted), seen.size or len(wanted) + max(20, len(wanted) // 2))
        while True:
            glance = yield from ask(
                self._progress_call(
                    f"list the runs of model {group}",
                    _model_form(group, size),
                    partial(self._read_glance, wanted, seen),
                )
            )
            older = oldest is not None and (glance.oldest is None or glance.oldest >= oldest)
            if len(glance.found) >= len(wanted) or size is None or glance.rows < size:
                break
            if glance.newest_first and not older:
                break
            size = size * 2 if glance.newest_first and size * 2 <= MOST_ROWS else None
        # Room for what is started until the next time.
        seen.size = glance.needed + max(10, glance.needed // 4)
        return glance.found

    def listed_by(self, **ids: str) -> Steps[Mapping[str, str]]:
        """A model's runs are listed by its name: that of ``model_id``, where ``model_name`` is not given.

        :raises ConfigurationError: when the name is not available.
        """
        if ids.get("model_name") or not ids.get("model_id"):
            return ids
        name, why = yield from self._name_of_model(ids["model_id"])
        if name is None:
            raise ConfigurationError(f"The runs of model_id {ids['model_id']!r} can't be listed: {why}")
        return {**ids, "model_name": name}

    def list_recent(self, since: datetime | None, cache: PollCache, **ids: str) -> Steps[list[Run]]:
        """The runs of a model that began at or after a time, or wait for their start: POST /api/run/progress, which is
        asked for about as many as the last time; GET /ai/runs where that is missing.

        :param ids: ``model_name``, and ``model_id`` where it is known.
        """
        name = ids.get("model_name")
        if not name or self._no_model_progress:
            return (yield from self.find_runs(since, **ids))
        size = None if since is None or self._oldest_first else max(PAGE // 4, 2 * (cache.size or 0))
        while True:
            call = self._progress_call(
                f"list the runs of model {name}",
                _model_form(name, size),
                partial(self._read_recent, since, cache, ids),
            )
            page = yield from optional(ask(call))
            if page is None:
                return (yield from self.find_runs(since, **ids))
            runs, rows, more = page
            if size is None or rows < size or not more:
                cache.size = len(runs)
                return runs
            size = size * 4 if size * 4 <= MOST_ROWS else None

    def _read_recent(
        self, since: datetime | None, cache: PollCache, ids: Mapping[str, str], response: Response
    ) -> tuple[list[Run], int, bool]:
        """The runs, how many rows there were, and whether a longer list may have more of them."""
        known = {key: ids[key] for key in ("model_id",) if key in ids}

        def read(row: Any, at: int) -> Run:
            fields = Fields(row, f"the response[{at}]")
            return self._linked(run_of(fields, fields.identifier("id"), known))

        listed = list_of(response.json(), "the response")

        def rows() -> Iterator[tuple[str | None, Any, Callable[[], Run]]]:
            for at, row in enumerate(listed):
                run_id = row.get("id") if isinstance(row, dict) else None
                yield (run_id if isinstance(run_id, str) else None), row, partial(read, row, at)

        runs = cache.recent(rows(), since)
        starts = [Fields(row, "the response[…]").moment("starttime") for row in (listed[:1] + listed[-1:])]
        # In another order than newest first, a limit hides just what is looked for.
        in_order = not starts or newest_first(starts[0]) >= newest_first(starts[-1])
        self._oldest_first = self._oldest_first or not in_order
        reached = in_order and bool(starts) and since is not None and starts[-1] is not None and starts[-1] < since
        return runs, len(listed), not reached

    def _read_glance(self, wanted: Collection[str], seen: PollCache, response: Response) -> ListPage:
        def read(row: Any, run_id: str, at: int) -> Run:
            return self._linked(run_of(Fields(row, f"the response[{at}]"), run_id, {}))

        rows = list_of(response.json(), "the response")
        seen.keep(wanted)
        found: dict[str, Run] = {}
        needed = 0
        for at, row in enumerate(rows):
            run_id = row.get("id") if isinstance(row, dict) else None
            if not isinstance(run_id, str) or run_id not in wanted:
                continue
            found[run_id] = seen.run(run_id, row, partial(read, row, run_id, at))
            needed = at + 1
        ends = [Fields(row, "the response[…]").moment("starttime") for row in (rows[:1] + rows[-1:])]
        in_order = not rows or newest_first(ends[0]) >= newest_first(ends[-1])
        return ListPage(list(found.values()), len(rows), needed, in_order, ends[-1] if rows else None)

    def _runs_of_model(self, name: str, since: datetime | None, limit: int | None) -> Steps[list[Run]]:
        """The runs of a model as far back as ``since``, asked for in growing numbers: there are no pages."""
        while True:
            runs, in_order = yield from self._newest_of_model(name, limit)
            if limit is None or since is None or len(runs) < limit:
                return runs
            begun = [run.started_at for run in runs if run.started_at is not None]
            if in_order and begun and begun[-1] < since:
                return runs
            # Were they not the newest ones, a limit would hide just what is looked for.
            limit = limit * 4 if in_order and limit * 4 <= MOST_ROWS else None

    def _newest_of_model(self, name: str, limit: int | None) -> Steps[tuple[list[Run], bool]]:
        """Runs of a model, newest first, and whether they came so: the documents don't say."""
        what, form = f"list the runs of model {name}", _model_form(name, limit)
        runs = yield from ask(self._progress_call(what, form, self._read_progress_list))
        ordered = sorted(runs, key=lambda run: newest_first(run.started_at), reverse=True)
        return ordered, [run.started_at for run in runs] == [run.started_at for run in ordered]

    def _newest_in_progress(self, name: str, most: int | None, ask_for: int | None = None) -> Steps[list[Run]]:
        """The newest runs of a model. A server whose list begins with the oldest gives those under a limit: it is asked
        for all of them.

        :param ask_for: a limit that is higher than ``most``: one run alone shows no order.
        """
        limit = None if self._oldest_first else ask_for or most
        runs, in_order = yield from self._newest_of_model(name, limit)
        if limit is not None and not in_order and len(runs) >= limit:
            self._oldest_first = True
            runs, _ = yield from self._newest_of_model(name, None)
        return runs[:most]

    def _newest_in_list(self, name: str, most: int | None, since: datetime | None = None) -> Steps[list[Run]]:
        """As :meth:`_newest_in_progress`, from GET /ai/runs, which lists the runs of all models."""

        def of_model(rows: list[Fields]) -> list[Fields]:
            return [row for row in rows if row.get("modelname") == name]

        def enough(rows: list[Fields]) -> bool:
            return (most is not None and len(of_model(rows)) >= most) or _begun_before(rows[0], since)

        rows = yield from self._runs_backwards(enough)
        found = [run_of(row, execution_id_of(row) or row.identifier("id"), {}) for row in of_model(rows)]
        found.sort(key=lambda run: newest_first(run.started_at), reverse=True)
        return [self._linked(run) for run in found[:most]]

    def _all_runs(self, since: datetime | None) -> Steps[list[Run]]:
        rows = yield from self._runs_backwards(lambda rows: _begun_before(rows[0], since))
        return [run_of(row, execution_id_of(row) or row.identifier("id"), {}) for row in rows]

    # Polling

    def get_run(self, run: Run) -> Steps[Run]:
        """One run in its present state, by whichever call answers.

        The documents start with one API and tell of progress in another, and servers have one, the other or both:
        the calls of :data:`POLL_ENDPOINTS` are tried in turn, the one that answered last time first. 404, 405 and a
        response without the run move on to the next; any other error is raised as it is.

        :param run: as it was seen last. Its id is the execution's id; the whole number of an item of GET /ai/runs; the
            task instance's id of a test configuration. Of kind ``model`` it stands for the runs of ``model_name``
            together, or the newest ``limit`` of them.
        :raises NotFoundError: when no call shows it, with the answer of each.
        """
        run_id, ids = identifier("run_id", run.run_id, number=True), run.ids
        if run.kind is Kind.TEST_CONFIGURATION:
            return (yield from self._configuration_run(run_id, ids))
        if run.kind is Kind.MODEL:
            return (yield from self._runs_together(ids))
        if (number := ids.get("run_number")) and (known := (yield from self._adopted_run(run_id, number, ids))):
            return known
        order = [self._pinned] if self._pinned else sorted(POLL_ENDPOINTS, key=lambda name: name != self._answers)
        if run_id.isascii() and run_id.isdecimal():
            details = yield from self._numbered_run(run_id, ids)
            if details is not None:
                return details
            # The ids of executions are UUIDs: these calls refuse any other.
            order = [name for name in order if self._pinned or name in ("progress", "runs")]
        name, found = yield from self._look(run_id, order, ids)
        self._answers = name
        return found

    def get_execution(self, execution_id: str) -> Steps[Run]:
        """One execution in its present state (GET /execution_service/api/v1/executions/{id} or GET"
        f" /ai/executions/{id}).

        None of the three documents that this module begins with has these calls: where the server has neither, it is
        what :meth:`get_run` asks.

        :param execution_id: as the start gave it.
        :raises NotFoundError: when no call shows it, with the answer of each.
        """
        order = ("executions", "ai_executions", "progress", "runs")
        _, run = yield from self._look(identifier("execution_id", execution_id, number=True), order, {})
        return run

    def get_run_progress(self, run_id: str) -> Steps[Run]:
        """The progress of one run (POST /api/run/progress, "Check Run Progress Method").

        :param run_id: the execution's id.
        :raises NotFoundError: when the response does not show it.
        """
        _, run = yield from self._look(identifier("run_id", run_id, number=True), ("progress",), {})
        return run

    def _look(self, run_id: str, order: Iterable[str], ids: Mapping[str, str]) -> Steps[tuple[str, Run]]:
        """The first of some calls that shows a run, and what it shows."""
        answers: list[str] = []
        unreadable: InvalidReplyError | None = None
        for name in order:
            try:
                run = yield from optional(self._lookers[name](run_id, ids), lambda error: error)
            except InvalidReplyError as e:
                if name == self._answers:
                    raise
                unreadable = unreadable or e
                continue
            if isinstance(run, ApiError):
                self._no_progress = self._no_progress or name == "progress"
                answers.append(f"{_ENDPOINT_NAMES[name]}: HTTP {run.status}")
                continue
            if name == "progress":
                self._no_progress = False
            if run is not None:
                return name, self._linked(run)
            answers.append(f"{_ENDPOINT_NAMES[name]}: HTTP 200 without the run")
        if unreadable is not None:
            # It may be there and told of in that response: this must not be taken for "it is not there".
            raise unreadable
        hint = (
            "The connection's poll_endpoint allows this call only."
            if self._pinned
            else "Check the id; a run that was just started may take a moment to be listed."
        )
        raise NotFoundError(
            f"{self.title} at {self._base_url} does not show run {run_id}. {'; '.join(answers)}. {hint}", status=404
        )

    def _look_in_progress(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        what, read = f"get the progress of run {run_id}", partial(_read_run, run_id, ids)
        return (yield from ask(self._progress_call(what, {"id": run_id}, read)))

    def _look_in_executions(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        return (yield from ask(self._one(f"get execution {run_id}", _EXECUTIONS, run_id, ids)))

    def _look_in_ai_executions(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        return (yield from ask(self._one(f"get execution {run_id}", "/ai/executions", run_id, ids)))

    def _look_in_runs(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        after = optional_integer("after_number", ids.get("after_number"))

        def seen_enough(rows: list[Fields]) -> bool:
            if any(is_run(row, run_id) for row in rows):
                return True
            return len(rows) >= _POLLED_RUNS and (after is None or _numbered_up_to(rows, after))

        rows = yield from self._runs_backwards(seen_enough)
        found = [row for row in rows if is_run(row, run_id)]
        if found:
            return run_of(found[-1], run_id, ids)
        return None if after is None else self._adopted_row(rows, run_id, after, ids)

    def _adopted_row(self, rows: list[Fields], run_id: str, after: int, ids: Mapping[str, str]) -> Run | None:
        """The run of a start in a list whose items don't show which execution they are: the only item that came after
        the start and is like it. From then on it is polled by its number.

        :raises InvalidReplyError: when there are several; which of them it is can't be determined.
        """
        candidates = self._candidates(rows, after, ids)
        if len(candidates) > 1:
            numbers = ", ".join(str(number) for number in sorted(number_of(row) or 0 for row in candidates)[:10])
            raise InvalidReplyError(
                f"the list of runs does not show which run execution {run_id} is, and {len(candidates)} runs could be"
                f" it: {numbers}"
            )
        for row in candidates:
            number = str(number_of(row))
            self._note_adopted(run_id, number)
            return run_of(row, run_id, {**ids, "run_number": number})
        return None

    def _note_adopted(self, run_id: str, number: str) -> None:
        """Note which execution a number in GET /ai/runs was taken for.

        :raises InvalidReplyError: when it was for two that were started at the same time: one of them is not listed
            yet, and which can't be determined.
        """
        by = self._adopted.setdefault(number, set())
        by.add(run_id.casefold())
        if len(self._adopted) > _MOST_ADOPTED:
            del self._adopted[next(iter(self._adopted))]
        if len(by) > 1:
            raise InvalidReplyError(
                f"run {number} of the list could be each of {len(by)} executions that were started at the same time,"
                f" and the list does not show which: {', '.join(sorted(by)[:10])}. An Airflow pool with one slot"
                " serialises starts of one model"
            )

    @staticmethod
    def _candidates(rows: list[Fields], after: int, ids: Mapping[str, str]) -> list[Fields]:
        """The items of GET /ai/runs that may be the run of a start: new since then, like it, and of no other
        execution."""
        by_number = {
            number: row
            for row in rows
            if (number := number_of(row)) is not None
            and number > after
            and execution_id_of(row) is None
            and _is_like(row, ids)
            and not began_before(row, ids.get("submitted_at"))
        }
        return list(by_number.values())

    def _adopted_run(self, run_id: str, number: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        """The run of a start that is known by its number in GET /ai/runs."""
        run = yield from self._numbered_run(number, ids)
        if run is None:
            rows = yield from self._runs_with(number)
            run = run_of(rows[-1], number, ids) if rows else None
        if run is None:
            return None
        self._note_adopted(run_id, number)
        return self._linked(replace(run, run_id=run_id))

    def _runs_with(self, run_id: str) -> Steps[list[Fields]]:
        """The items of GET /ai/runs that are a run, by its number there; among the newest, and as far back as it."""
        number = int(run_id) if run_id.isascii() and run_id.isdecimal() else None

        def seen_enough(rows: list[Fields]) -> bool:
            if any(is_run(row, run_id) for row in rows):
                return True
            return len(rows) >= _POLLED_RUNS and (number is None or _numbered_up_to(rows, number))

        rows = yield from self._runs_backwards(seen_enough)
        return [row for row in rows if is_run(row, run_id)]

    def _numbered_run(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        """A run by its number in GET /ai/runs; ``None`` when that is not its id."""
        run = yield from optional(ask(self._one(f"get run {run_id}", "/ai/runs", run_id, ids)))
        return None if run is None else self._linked(run)

    def _configuration_run(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run]:
        """A run of a test configuration: by its task where the server shows it, else by its result.

        :raises NotFoundError: when neither is shown, with the answers.
        """
        task, answers = yield from self._configuration_task(run_id, ids)
        ended_without_a_word = task is not None and task.final and task.platform_verdict is None
        if task is not None and not ids.get("test_config_id"):
            return task
        if task is not None and task.known_state and not ended_without_a_word:
            return task
        result = yield from self._configuration_result(run_id, ids if task is None else task.ids)
        if result is not None and (task is None or result.final or ended_without_a_word):
            return result
        if task is not None:
            return task
        answers += f"; GET {CONFIG_RESULTS}: no new result"
        raise NotFoundError(
            f"{self.title} at {self._base_url} does not show run {run_id} of a test configuration. {answers}. A result"
            " may be listed only when the run has ended.",
            status=404,
        )

    def _configuration_task(self, run_id: str, ids: Mapping[str, str]) -> Steps[tuple[Run | None, str]]:
        """A run of a test configuration by its task, or why there is none."""

        def read(response: Response) -> Run | None:
            if is_web_page(response):
                return None
            fields = Fields(response.json(), "the response")
            known = dict(ids)
            for name in ("test_config_id", "test_config_result_id"):
                # The state does not depend on it.
                shown = fields.unless_unreadable(partial(fields.optional_identifier, name))
                if shown:
                    known[name] = shown
            return self._linked(run_of(fields, run_id, known, Kind.TEST_CONFIGURATION))

        if ids.get("result_only"):
            # Found after a lost start: its task was never known.
            return None, "its task is not known"
        what = "GET /ai/testconfigtasks/{id}"
        run: Run | ApiError | None = yield from optional(ask(self._task_call(run_id, read)), lambda error: error)
        if isinstance(run, ApiError):
            return None, f"{what}: HTTP {run.status}"
        return run, f"{what}: a web page"

    def _configuration_result(self, run_id: str, ids: Mapping[str, str]) -> Steps[Run | None]:
        """A run of a test configuration by its result; ``None`` while none is its own."""
        test_config_id = ids.get("test_config_id")
        row: Fields | None = None
        known = ids.get("test_config_result_id")
        if known:
            shown = yield from optional(self.get_test_configuration_result(known))
            row = None if shown is None else Fields(shown, "the result")
        if row is None and test_config_id:
            rows = yield from configurations.results_of(test_config_id, self.page_size)
            row = configurations.result_of(known or run_id, rows or [], ids)
        return None if row is None else self._run_of_result(row, run_id, ids)

    def _run_of_result(self, row: Fields, run_id: str, ids: Mapping[str, str]) -> Run:
        known = {name: value for name, value in ids.items() if name not in _BASELINE}
        known["test_config_result_id"] = row.identifier("id")
        return self._linked(run_of(row, run_id, known, Kind.TEST_CONFIGURATION))

    def _runs_of_configuration(self, test_config_id: str, ids: Mapping[str, str]) -> Steps[list[Run]]:
        """The runs of a test configuration, by their results; only those since a start, where it is known which."""
        rows = yield from configurations.results_of(test_config_id, self.page_size)
        if rows is None:
            raise NotFoundError(
                f"{self.title} at {self._base_url} does not list the results of test configurations"
                f" (GET {CONFIG_RESULTS}).",
                status=404,
            )
        new = configurations.new_results(rows, ids)
        known = {"kind": Kind.TEST_CONFIGURATION.value, "test_config_id": test_config_id}
        runs = []
        for row in rows if new is None else new:
            task = row.optional_identifier("task_instance_id")
            result_id = task or row.identifier("id")
            runs.append(self._run_of_result(row, result_id, known if task else known | {"result_only": "yes"}))
        return sorted(runs, key=lambda run: newest_first(run.started_at), reverse=True)

    def _runs_together(self, ids: Mapping[str, str]) -> Steps[Run]:
        """The runs of a model as one, in one progress call; where there is no such call, from the list of runs.

        :raises NotFoundError: when there is none: of nothing it can't be said how it ended.
        """
        name = identifier("model_name", ids.get("model_name"), number=True)
        limit = optional_integer("limit", ids.get("limit"))
        most = None if limit is None else positive("limit", limit)
        runs = yield from self._newest_of(name, most)
        if not runs:
            raise NotFoundError(
                f"{self.title} at {self._base_url} shows no run of model {name!r}. Check the model's name (not its"
                " UUID), and that a run of it was started.",
                status=404,
            )
        if len(runs) > limits.PARTS:
            raise InvalidReplyError(
                f"{self.title} at {self._base_url} shows {len(runs):,} runs of model {name!r}, and {limits.PARTS:,}"
                " is the most that can be watched together. Set the sensor's limit, to watch only the newest."
            )
        return aggregate(name, runs, ids, self._base_url)

    def _newest_of(self, name: str, most: int | None) -> Steps[list[Run]]:
        if self._no_model_progress:
            return (yield from self._newest_in_list(name, most))
        rows = None if most is None else max(2, most)
        shown = yield from optional(self._newest_in_progress(name, most, rows), lambda error: error)
        if not isinstance(shown, ApiError):
            return shown
        runs = yield from optional(self._newest_in_list(name, most), lambda error: error)
        if isinstance(runs, ApiError):
            raise NotFoundError(
                f"{self.title} at {self._base_url} does not list the runs of model {name!r}."
                f" {_ENDPOINT_NAMES['progress']}: HTTP {shown.status}; {_ENDPOINT_NAMES['runs']}: HTTP {runs.status}.",
                status=404,
            ) from runs
        self._no_model_progress = True
        return runs

    def _progress_call(self, what: str, form: Mapping[str, str], read: Callable[[Response], T]) -> Call[T]:
        # A POST that only reads: to send it again changes nothing.
        return Call(what, "POST", "/api/run/progress", read, form=form, error_text=error_text)

    def _one(self, what: str, base: str, run_id: str, ids: Mapping[str, str]) -> Call[Run | None]:
        target = path(base + "/{run_id}", run_id=run_id)
        return Call(what, "GET", target, partial(_read_run, run_id, ids), error_text=error_text)

    def _read_progress_list(self, response: Response) -> list[Run]:
        rows = rows_of(response.json(), "the response")
        return [self._linked(run_of(row, row.identifier("id"), {})) for row in rows]

    # Stopping

    def cancel_run(self, run: Run) -> Steps[None]:
        """Abort an execution; see :meth:`abort_execution`.

        :param run: as it was seen last.
        :raises InvalidRequestError: for a test configuration that is still running: DAI has no documented call that
            stops one.
        """
        if run.kind is not Kind.TEST_CONFIGURATION:
            return (yield from self._abort(run))
        now = yield from self.get_run(run)
        if not now.final:
            raise InvalidRequestError(
                f"{self.title} has no documented call that stops a test configuration, and task instance"
                f" {run.run_id} is {now.raw_state}. Stop it in the web app."
            )

    def abort_execution(self, execution_id: str) -> Steps[None]:
        """Abort an execution (DELETE /execution_service/api/v1/executions/{id}, "Eggplant DAI Model Execution
        Endpoints"). The server stops it in the background; poll it until it is final. One that has finished is no
        error.

        :param execution_id: as the start gave it.
        :raises NotFoundError: when the server does not know what to abort, though it shows the run as going.
        """
        return (yield from self._abort(self.run_by_id(execution_id)))

    def _abort(self, run: Run) -> Steps[None]:
        run_id = identifier("execution_id", run.run_id, number=True)
        if run_id.isascii() and run_id.isdecimal():
            # DELETE takes the ids of executions, and nothing says which of them this number is.
            now = yield from self.get_run(run)
            if now.final:
                return
            raise InvalidRequestError(
                f"{self.title} aborts executions by their UUID: {run_id} is a number of GET /ai/runs, and it is"
                f" {now.raw_state}. Stop it in the web app."
            )
        missing = yield from self._delete(run_id)
        if missing is None:
            return
        # The documents call the id of a start execution_id and that of an abort execution_status_id.
        other = yield from self._other_id(run_id)
        if other is not None and (yield from self._delete(other)) is None:
            return
        try:
            now = yield from self.get_run(run)
        except NotFoundError:
            return
        if not now.final:
            raise missing

    def _delete(self, run_id: str) -> Steps[NotFoundError | None]:
        """Abort an execution; the error, when the server has none of this id."""
        target = path(_EXECUTIONS + "/{run_id}", run_id=run_id)
        call = Call(f"abort execution {run_id}", "DELETE", target, no_value, error_text=error_text)
        try:
            yield from ask(call)
        except NotFoundError as e:
            return e
        except InvalidRequestError as e:
            if e.status != 409:
                raise
        return None

    def _other_id(self, run_id: str) -> Steps[str | None]:
        """The id under which progress tells of an execution, when it is another."""

        def read(response: Response) -> str | None:
            rows = rows_of(response.json(), "the response")
            if len(rows) != 1:
                return None
            shown = rows[0].get("execution_status_id", "id")
            return shown if is_id(shown) and shown.casefold() != run_id.casefold() else None

        call = self._progress_call(f"get the progress of run {run_id}", {"id": run_id}, read)
        return (yield from optional(ask(call)))

    # The rest

    def get_report(self, run: Run) -> Steps[RunReport]:
        """The results of a final run; see :func:`.eggplant.report.report_of`.

        :param run: as :meth:`get_run` gave it.
        """
        report = yield from report_of((yield from self._located(run)), self.page_size)
        # What was only needed to find it is of no interest any more.
        ids = {name: value for name, value in report.run.ids.items() if name not in _BASELINE}
        return replace(report, run=replace(report.run, ids=ids))

    def list_kept(self, run: Run) -> Steps[Artifacts]:
        """What the server keeps of a final run that files can be made of; see :func:`.eggplant.report.kept_of`.

        :param run: as :meth:`get_run` gave it.
        """
        return (yield from kept_of((yield from self._located(run)), self.page_size))

    def _located(self, run: Run) -> Steps[Run]:
        """A run with the id by which its results are kept, where it can be told: that of the test configuration's
        result, or its number in GET /ai/runs."""
        if run.kind is Kind.TEST_CONFIGURATION:
            result_id = yield from configuration_result_id(run, self.page_size)
            if result_id is None:
                return run
            return replace(run, ids={**run.ids, "test_config_result_id": result_id})
        if run.kind is not Kind.RUN or run_number_of(run) is not None:
            return run
        after = optional_integer("after_number", run.ids.get("after_number"))

        def seen_enough(rows: list[Fields]) -> bool:
            if any(is_run(row, run.run_id) for row in rows):
                return True
            return len(rows) >= _POLLED_RUNS and (after is None or _numbered_up_to(rows, after))

        try:
            rows = yield from self._runs_backwards(seen_enough)
        except _UNREADABLE_LIST:
            # Results are for reading: the verdict stands on the run's own status without them.
            return run
        found = [row for row in rows if is_run(row, run.run_id)]
        if not found and after is not None:
            found = self._candidates(rows, after, run.ids)
            found = [row for row in found if _began_together(run, row)]
        number = number_of(found[0]) if len(found) == 1 else None
        return run if number is None else replace(run, ids={**run.ids, "run_number": str(number)})

    def check(self) -> Steps[str]:
        """Prove the address and the credentials: a token, and GET /ai/runs?limit=1."""
        read = partial(page_of, where="the response")
        call = Call("list runs", "GET", "/ai/runs", read, query={"limit": 1}, error_text=error_text)
        page = yield from ask(call)
        return f"{self.title} at {self._base_url} accepts the credentials; it has {page.total} runs."

    def _linked(self, run: Run) -> Run:
        ids = dict(run.ids)
        model_id = ids.get("model_id") or self._model_ids.get(ids.get("model_name", ""))
        if model_id:
            ids["model_id"] = model_id
        return replace(run, ids=ids, url=self._url(run.run_id, model_id or ""))

    def _url(self, run_id: str, model_id: str) -> str:
        """A page for people. A template whose model is not known would lead nowhere: then it is the base URL."""
        if not self._run_url_template or ("{model_id" in self._run_url_template and not model_id):
            return self._base_url
        return self._run_url_template.format(
            base_url=self._base_url, run_id=quote(run_id, safe=""), model_id=quote(model_id, safe="")
        )


def _type_of_start(body: Mapping[str, Any]) -> str:
    """What a start runs, as :func:`.eggplant_responses.type_of` has it; empty where it can't be determined."""
    if "script" in body:
        return "script"
    if "rerun_id" in body:
        return ""
    return "testcase" if "test_case_id" in body else "model"


def _begun_before(row: Fields, since: datetime | None) -> bool:
    began = None if since is None else row.moment("starttime")
    return since is not None and began is not None and began < since


def _numbered_up_to(rows: list[Fields], number: int) -> bool:
    """Whether rows in the order of the list reach back to a number."""
    shown = number_of(rows[0])
    return shown is not None and shown <= number


def _began_together(run: Run, row: Fields) -> bool:
    """Whether an item of GET /ai/runs began when a run did, as far as both have a time."""
    began = start_of(row)
    return began is None or run.started_at is None or abs(began - run.started_at) <= _SAME_START


def _is_like(row: Fields, ids: Mapping[str, str]) -> bool:
    """Whether an item of GET /ai/runs can be the run of a start.

    :param ids: of the start: the model's name, and what was run.
    """
    model_name, run_type, test_case = (ids.get(name, "") for name in ("model_name", "run_type", "test_case_name"))
    shown_type = type_of(row)
    if model_name:
        # A word for the type that is not known is compared with nothing.
        like = row.get("modelname") == model_name and (
            not run_type or shown_type not in ("model", "testcase", "script") or shown_type == run_type
        )
    else:
        # Without the model's name only a script run can be told from those of models.
        like = run_type == "script" and shown_type == "script"
    shown_case = row.get("testcase")
    return like and (not test_case or not isinstance(shown_case, str) or shown_case == test_case)


def _start_did_nothing(response: Response) -> bool:
    """DAI answers 503 when its message service is away, before anything is queued; so does a gateway, after."""
    if response.status == 503:
        return b"rabbitmq" in response.body.lower()
    return 400 <= response.status < 500 and response.status != 408


def _read_run(run_id: str, ids: Mapping[str, str], response: Response) -> Run | None:
    rows = [row for row in rows_of(response.json(), "the response") if is_run(row, run_id)]
    return run_of(rows[0], run_id, ids) if rows else None


def _model_form(name: str, limit: int | None) -> dict[str, str]:
    return {"modelName": name} if limit is None else {"modelName": name, "limit": str(limit)}
