"""Future AGI simulate: its REST API, as data and steps.

The API is spoken in two dialects. *documented* is that of the page "Execute a test run": a bearer key and a body in
camelCase. *current* is that of the product as it is deployed: two keys in headers of their own and a body in
snake_case. All other calls are the same in both. Which one is spoken is the connection's choice, never found out by
trying a call that starts something.

Every path ends in a slash (but ``/api/public/health``): without it the product answers a POST with a redirect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args
from urllib.parse import quote, urlsplit

from airflow_provider_testruns import limits, timing
from airflow_provider_testruns.arguments import UUID, exactly_one, one_of, shown, strictly_boolean, uuid
from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.exceptions import (
    ApiError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    StartOutcomeUnknownError,
)
from airflow_provider_testruns.model import CaseResult, CaseTexts, Metric, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.futureagi import responses
from airflow_provider_testruns.platforms.futureagi.metrics import TOOL, Evaluations
from airflow_provider_testruns.platforms.platform import NOT_LISTED, Identity, Platform, PollCache, Start
from airflow_provider_testruns.platforms.reading import Fields, newest_first
from airflow_provider_testruns.steps import LACKING, Call, Response, Steps, ask, optional, path, pause

T = TypeVar("T")

Dialect = Literal["documented", "current"]
#: The words for the extra ``dialect``.
DIALECTS: tuple[Dialect, ...] = ("documented", "current")
RerunType = Literal["eval_only", "call_and_eval"]

DEFAULT_BASE_URL = "https://api.futureagi.com"
#: Where the web app of each API is; of a self-hosted one the connection says it.
_APPS = {
    "api.futureagi.com": "https://app.futureagi.com",
    "api-us.futureagi.com": "https://us.futureagi.com",
    "api-eu.futureagi.com": "https://eu.futureagi.com",
}
#: Rows of the longest page that is asked for. The server's own is 10; no upper limit is known: what it gives counts.
_LONGEST_PAGE = 500
#: The shortest page of a list that is polled for whatever is new.
_LEAST_PAGE = 20
#: What a server answers that lacks a call for details; 500 is what the product gives for a whole execution when one of
#: its evaluations is of a kind that it does not know.
_NO_DETAIL = LACKING | {500}
#: Agents whose calls are written and not spoken.
_WRITTEN = ("text", "chat")


class FutureAGIPlatform(Platform):
    """Future AGI simulate.

    :param dialect: ``documented`` (an API key as bearer token) or ``current`` (API key and secret key).
    :param base_url: the API's address, without a slash at the end.
    :param app_url: the web app's address; empty for the one that belongs to the API's address, or else that itself.
    :raises ConfigurationError: for a dialect that is none.
    """

    name: ClassVar[str] = responses.PLATFORM
    title: ClassVar[str] = PLATFORMS["futureagi"].title

    def __init__(self, dialect: Dialect = "current", base_url: str = DEFAULT_BASE_URL, app_url: str = "") -> None:
        one_of("dialect", dialect, DIALECTS)
        self.dialect = dialect
        self.base_url = base_url.rstrip("/")
        self.app_url = (app_url or _APPS.get(urlsplit(base_url).hostname or "", base_url)).rstrip("/")

    # A run's life

    def prepare_start(  # type: ignore[override]  # the arguments by name: an unknown one is a TypeError
        self,
        run_test_id: str | None = None,
        run_test_name: str | None = None,
        scenario_ids: Sequence[str] | None = None,
        exclude_scenario_ids: Sequence[str] | None = None,
        select_all: bool = False,
        simulator_id: str | None = None,
        evaluations: Collection[str] = (),
        rerun_of: str | None = None,
        rerun_type: RerunType = "call_and_eval",
        call_execution_ids: Sequence[str] | None = None,
    ) -> Steps[Start]:
        """Check a start's arguments and make it ready: ``POST /simulate/run-tests/{run_test_id}/execute/``.

        A run test whose ``source_type`` is ``prompt`` is a prompt simulation, and has a start of its own: ``POST
        /simulate/prompt-templates/{prompt_template_id}/simulations/{run_test_id}/execute/``. The first one would make
        voice calls for it, without an agent or a phone.

        The server takes every list of ids as it comes (unknown ones run nothing and end as completed, those of other
        run tests really run, double ones run twice), so the list is checked here, against the run test's scenarios.
        In the current dialect its flag for "all but these" does nothing, so an exclusion is worked out here.

        :param run_test_id: the run test, by its id (a UUID) …
        :param run_test_name: … or by its name, which must be spelled exactly and belong to one run test only.
        :param scenario_ids: run these scenarios (UUIDs). Exactly one of this and the next two.
        :param exclude_scenario_ids: run all scenarios of the run test but these.
        :param select_all: run all scenarios of the run test.
        :param simulator_id: the simulator (a UUID), when it is not to be the run test's own. Prompt simulations take
            none.
        :param evaluations: names of evaluations that the run test must have.
        :param rerun_of: run calls of this execution again instead; see :meth:`prepare_rerun`, also for the next two.
        :raises ConfigurationError: for arguments that can't be right, naming them.
        """
        if rerun_of is not None:
            return (
                yield from self.prepare_rerun(
                    rerun_of, run_test_id, rerun_type, call_execution_ids, select_all, evaluations
                )
            )
        include = _ids(scenario_ids, "scenario_ids")
        exclude = _ids(exclude_scenario_ids, "exclude_scenario_ids")
        strictly_boolean("select_all", select_all)
        given = [name for name, value in (("scenario_ids", include), ("exclude_scenario_ids", exclude)) if value]
        given += ["select_all"] if select_all else []
        if len(given) != 1:
            raise ConfigurationError(
                "Exactly one of scenario_ids, exclude_scenario_ids and select_all=True says what is run, got"
                f" {' and '.join(given) or 'none'}. An empty list would run everything, so that must be explicit."
            )
        simulator = None if simulator_id is None else _uuid(simulator_id, "simulator_id")
        exactly_one(run_test_id=run_test_id, run_test_name=run_test_name)
        if run_test_name is not None:
            run_test = yield from self._find_run_test(run_test_name)
        else:
            run_test = _uuid(run_test_id, "run_test_id")
        detail: dict[str, Any] | ApiError = {}
        if evaluations or self.dialect == "current":
            # Those who speak the documented dialect know no prompt simulations.
            detail = yield from _detail(lambda: self.get_run_test(run_test))
        is_prompt = not isinstance(detail, ApiError) and responses.is_prompt(detail)
        if is_prompt:
            self._check_prompt(run_test, simulator)
        yield from self._check_evaluations(run_test, evaluations, detail)
        chosen = yield from self._choose(run_test, include, exclude)
        warnings: tuple[str, ...] = ()
        if simulator is not None:
            warnings += yield from self._check_simulator(simulator)
        if isinstance(detail, ApiError) and detail.transient:
            warnings += (
                f"Whether run test {run_test} is a prompt simulation, which is started differently, is not known; it"
                f" is started as one of an agent. {detail}",
            )
        at = path("/simulate/run-tests/{run_test_id}/execute/", run_test_id=run_test)
        if is_prompt:
            assert not isinstance(detail, ApiError)
            template, at = _prompt_start(run_test, detail)
            body: dict[str, Any] = {"scenario_ids": chosen, "select_all": select_all}
        elif self.dialect == "documented":
            body = {"selectAll": include is None, "scenarioIds": list(include or exclude or ())}
            if simulator is not None:
                body["simulatorId"] = simulator
        else:
            body = {"scenario_ids": chosen, "select_all": select_all}
            if simulator is not None:
                body["simulator_id"] = simulator
        named = f"{run_test_name!r} ({run_test})" if run_test_name is not None else run_test
        kind = "run test"
        if is_prompt:
            kind, named = "prompt simulation", f"{named}, of prompt template {template}"
        call = Call(
            f"execute {kind} {run_test}",
            "POST",
            at,
            lambda response: responses.started(response, run_test, self.run_url),
            error_text=partial(responses.start_error_words, dialect=self.dialect),
            json=body,
            idempotent=False,
            not_executed=responses.nothing_was_started,
        )
        return Start(
            what=f"an execution of {kind} {named}",
            call=call,
            ids={"run_test_id": run_test},
            # The rows of the list name neither scenario ids nor a simulator: nothing but time and id tells runs apart.
            not_compared=("scenario_ids", "simulator_id"),
            warnings=warnings,
        )

    def prepare_rerun(
        self,
        execution_id: str,
        run_test_id: str | None = None,
        rerun_type: RerunType = "call_and_eval",
        call_execution_ids: Sequence[str] | None = None,
        select_all: bool = False,
        evaluations: Collection[str] = (),
    ) -> Steps[Start]:
        """Make it ready to run calls of a final execution again: ``POST /simulate/test-executions/{id}/rerun-calls/``.

        The execution keeps its id and goes back to running, so that no list can tell whether a rerun was started.

        :param execution_id: the execution (a UUID).
        :param run_test_id: its run test (a UUID), if known.
        :param rerun_type: ``call_and_eval`` calls and evaluates again, which the product does for voice agents only;
            ``eval_only`` evaluates again what was said.
        :param call_execution_ids: these calls (UUIDs). Without this and ``select_all``: those that did not complete.
        :param select_all: all calls.
        :param evaluations: names of evaluations that the run test must have.
        :return: with no call that did not complete, a start that has nothing to do.
        :raises ConfigurationError: for arguments that can't be right, naming them.
        :raises InvalidRequestError: when the execution is not final.
        """
        one_of("rerun_type", rerun_type, get_args(RerunType))
        calls = _ids(call_execution_ids, "call_execution_ids")
        strictly_boolean("select_all", select_all)
        if calls is not None and select_all:
            raise ConfigurationError("Only one of call_execution_ids and select_all=True can be given; got both.")
        execution = _uuid(execution_id, "execution_id")
        run_test = _uuid(run_test_id, "run_test_id") if run_test_id else None
        run = yield from self.get_run(self.run_by_id(execution, run_test_id=run_test))
        if not run.final:
            raise InvalidRequestError(
                f"Execution {execution} is {run.raw_state}: its calls can be run again when it is final. Wait for it"
                " with FutureAGITestExecutionSensor, or cancel it."
            )
        if run_test is not None and evaluations:
            detail = yield from _detail(lambda: self.get_run_test(run_test))
            yield from self._check_evaluations(run_test, evaluations, detail)
        if not select_all:
            there = yield from self._call_states(execution)
            unknown = [call for call in calls or () if call not in there]
            if unknown:
                raise ConfigurationError(
                    f"call_execution_ids has {len(unknown)} that are no calls of execution {execution}:"
                    f" {', '.join(unknown[:20])}."
                )
            if calls is None:
                calls = [call for call, state in there.items() if state != "completed"]
                if not calls:
                    return self._nothing_to_rerun(run)
        return self._rerun_start(run, rerun_type, calls)

    def prepare_rerun_of_failed(self, run: Run, **arguments: Any) -> Steps[Start | str]:
        """What a new try does after ``run`` was judged as failed, when that is not to be another execution: its calls
        that did not complete, again.

        :return: a start, or a sentence that says why there is none. An execution that is running again has one that has
            nothing to do.
        """
        now = yield from self.get_run(run)
        now = replace(now, ids={**run.ids, **now.ids})
        if not now.final:
            return self._nothing_to_rerun(now)
        there = yield from self._call_states(now.run_id)
        calls = [call for call, state in there.items() if state != "completed"]
        if not calls:
            return f"All calls of execution {now.run_id} were completed: there is none to run again."
        figures = yield from _detail(lambda: self.get_kpis(now.run_id))
        agent = "" if isinstance(figures, ApiError) else str(figures.get("agent_type") or "")
        if agent.casefold() in _WRITTEN:
            return (
                f"The agent of execution {now.run_id} is a text agent, whose calls Future AGI evaluates again but does"
                " not make again: its failed calls would stay failed."
            )
        return self._rerun_start(now, "call_and_eval", calls)

    def identity(
        self,
        run_test_id: str | None = None,
        run_test_name: str | None = None,
        rerun_of: str | None = None,
        **arguments: Any,
    ) -> Steps[Identity | None]:
        """The run test, or for a rerun the execution. Asks only for the id of a run test that is given by name."""
        if rerun_of is not None:
            execution = _uuid(rerun_of, "rerun_of")
            return Identity({"run_test_id": _uuid(run_test_id, "run_test_id")} if run_test_id else {}, {}, execution)
        if run_test_name is not None and run_test_id is None:
            return Identity({"run_test_id": (yield from self._find_run_test(run_test_name))})
        return Identity({"run_test_id": _uuid(run_test_id, "run_test_id")})

    def get_stored_run(self, stored: Run, identity: Identity, since: datetime | None) -> Steps[Run]:
        """The execution from its run test's list: no response for one execution says of which run test it is."""
        run_test_id = identity.ids.get("run_test_id")
        if identity.run_id is not None or run_test_id is None:
            return (yield from self.get_run(self.run_by_id(stored.run_id, run_test_id=run_test_id)))
        execution = _uuid(stored.run_id, "run_id")
        for at in range(timing.UNLISTED_TRIES):
            if at:
                # It is there, and may have been started just now.
                yield from pause(timing.UNLISTED_PAUSE)
            try:
                rows = yield from self._executions(run_test_id, self.page_size, since, {execution})
            except (PermissionDeniedError, NotFoundError, InvalidRequestError):
                # Without the list, the run test still tells of its latest execution.
                latest = yield from self.get_run_test_status(run_test_id)
                if str(latest.get("execution_id")).lower() != execution:
                    raise
                return (yield from self.get_run(self.run_by_id(execution, run_test_id=run_test_id)))
            if rows:
                return rows[0]
            if not at:
                run = yield from self.get_run(self.run_by_id(execution))
        return replace(run, ids=NOT_LISTED)

    def newest_run(self, start: Start) -> Steps[Run | None]:
        """The newest execution of the start's run test: its list with ``limit=1``."""
        page = yield from ask(self._executions_call(start.ids["run_test_id"], 1, 1))
        return page.rows[0] if page.rows else None

    def get_run(self, run: Run) -> Steps[Run]:
        """One execution in its present state: ``GET /sdk/api/v1/simulation/metrics/?execution_id=``.

        :param run: as it was seen last. That response does not contain its run test: ``run_test_id`` of its ids is
            needed for the link to the app, for evaluation metrics from their own call, and for polling it together
            with others.
        """
        status = yield from ask(self._standing_call(run.run_id, run.ids.get("run_test_id")))
        return status.run

    def poll_with_failures(self, run: Run) -> Steps[tuple[Run, int | None]]:
        """One execution in its present state, and how many of its calls have failed, from the same response.

        A failed call is only made again when somebody asks for it (``rerun-calls``).

        :param run: the execution as it was seen last.
        """
        where = yield from ask(self._standing_call(run.run_id, run.ids.get("run_test_id")))
        known = where.failures_counted and where.uncounted is None and not where.run.final
        return where.run, where.counts.failed if known else None

    def find_runs(self, since: datetime | None, run_test_id: str = "", **ids: str) -> Steps[list[Run]]:
        """The executions of a run test that began at or after ``since``, newest first."""
        return (yield from self._executions(_uuid(run_test_id, "run_test_id"), self.page_size, since))

    def group_of(self, run: Run) -> str | None:
        """The run test: its list of executions polls all of them at once."""
        return run.ids.get("run_test_id")

    def list_group(
        self, group: str, wanted: Collection[str], oldest: datetime | None, cache: PollCache | None = None
    ) -> Steps[list[Run]]:
        """Look at executions of a run test: ``GET /simulate/run-tests/{id}/executions/``.

        A page has room for the wanted ones and some that others started since; more are read until all are seen.
        """
        ids = {run_id.lower() for run_id in wanted}
        limit = min(len(ids) + len(ids) // 4 + 5, _LONGEST_PAGE)
        if cache is not None:
            cache.keep(ids)
        return (yield from self._executions(_uuid(group, "run_test_id"), limit, oldest, ids, cache))

    def list_recent(self, since: datetime | None, cache: PollCache, **ids: str) -> Steps[list[Run]]:
        """The executions of a run test that began at or after a time: ``GET /simulate/run-tests/{id}/executions/``,
        in pages that hold about as many as the last time.

        :param ids: ``run_test_id``.
        """
        run_test_id = _uuid(ids.get("run_test_id"), "run_test_id")
        limit = min(max(_LEAST_PAGE, (cache.size or 0) + _LEAST_PAGE), _LONGEST_PAGE)
        found = yield from _all_pages(
            lambda number: self._executions_call(run_test_id, number, limit, since, None, cache, lenient=True),
            key=lambda run: run.run_id,
            most=limits.RUNS,
        )
        cache.size = len(found)
        cache.keep({run.run_id for run in found})
        return found

    def listed_verdict(self, run: Run) -> Verdict | None:
        """The list says ``completed`` as soon as one call was, however many failed: only the report has a verdict."""
        return None if run.platform_verdict is Verdict.PASSED else run.platform_verdict

    def cancel_run(self, run: Run) -> Steps[None]:
        """Stop an execution: ``POST /simulate/test-executions/{id}/cancel/`` with an empty object.

        The product cancels without looking, and makes a completed execution a cancelled one. So its status is read
        before each request, also before one that is sent again because the response to the first got lost.

        :param run: as it was seen last.
        :raises InvalidRequestError: when the platform says that it did not do it.
        """
        cancel = self._call(
            f"cancel execution {run.run_id}",
            "POST",
            path("/simulate/test-executions/{id}/cancel/", id=_uuid(run.run_id, "execution_id")),
            lambda response: Fields(response.json(), "the response to the cancel"),
            json={},
            idempotent=False,
        )
        for left in reversed(range(timing.CANCEL_TRIES)):
            now = yield from self.get_run(run)
            sent_before = left < timing.CANCEL_TRIES - 1
            if now.final or (sent_before and now.raw_state.casefold() == "cancelling"):
                return
            try:
                said = yield from ask(cancel)
            except ApiError as e:
                wait = max(0.5, e.retry_after or 0.0)
                if not e.transient or not left or wait > timing.CANCEL_LONGEST_PAUSE:
                    raise
                yield from pause(wait)
                continue
            if said.get("success") is False:
                why = said.optional_text("message") or "no reason given"
                raise InvalidRequestError(f"Future AGI did not cancel execution {run.run_id}: {why}")
            return

    def get_report(self, run: Run) -> Steps[RunReport]:
        """The results of a final execution.

        The counts are those of the metrics endpoint: without them there is no verdict, so their loss is an error. The
        calls and the evaluations are details: where the server does not have them, or breaks on them, they are left
        out. Evaluations that were left out are :attr:`.RunReport.metrics_error`: no gate on them is met or missed.
        Calls of which neither counters nor list say how they ended, where the failed ones are not counted, are
        unavailable.

        :param run: as :meth:`get_run` gave it.
        """
        run_test_id = run.ids.get("run_test_id")
        standing = self._standing_call(run.run_id, run_test_id)
        now = yield from ask(standing.with_reader(lambda response: _counted(standing.read(response))))
        # What was read last counts, unless it is the better word: a later poll does not make a failed execution pass.
        platform_verdict = (
            now.run.platform_verdict if now.run.platform_verdict not in (None, Verdict.PASSED) else run.platform_verdict
        )
        metrics_error: ApiError | None = None
        cases: tuple[CaseResult, ...] = ()
        evaluations: Evaluations | None = None
        summary: Any = None
        message = run.message
        found = yield from _detail(lambda: self._cases(run.run_id, with_summary=not run_test_id))
        if not isinstance(found, ApiError):
            cases, evaluations, summary = found
        elif not run_test_id:
            metrics_error = found
        counts = now.counts
        if not now.failures_counted and len(cases) < counts.total:
            counts = replace(counts, unavailable=counts.not_run, not_run=0)
        report = RunReport(run, counts, cases)
        # `failed` is one word for two things: every call failed, or none was made. The second says nothing of tests.
        broke = platform_verdict is Verdict.FAILED and report.counts is not None and report.counts.executed == 0
        if run_test_id:
            call = self._eval_summary_call(run_test_id, run.run_id)
            shown = yield from _detail(lambda: ask(call))
            if not isinstance(shown, ApiError):
                summary = shown
            else:
                # What the calls were given is known, but not which evaluations there should be.
                metrics_error = shown
            if broke and not message:
                reason = yield from _detail(lambda: self._error_reason(run, run_test_id))
                message = reason if isinstance(reason, str) else ""
        if broke and not message:
            message = run.start_error
        if summary is not None and evaluations is not None:
            yield from self._without_deleted(run.run_id, summary, evaluations)
        metrics = responses.metrics_of(summary, "the evaluation summary", evaluations)
        tools = Evaluations() if (yield from self._evaluates_tools(run_test_id)) else None
        details: dict[str, responses.CallDetails] = {}
        remarks: list[str] = []
        if cases or tools is not None:
            shown = yield from self._call_details(run.run_id, tools)
            if not isinstance(shown, ApiError):
                details = shown
            else:
                remarks += [f"Cases are named by the ids of their calls: {shown}"] if cases else []
                if tools is not None:
                    metrics_error = metrics_error or shown
        if tools is not None:
            metrics |= {name: metric for tally in tools.by_id.values() for name, metric in tally.metrics()}
        if any(metric.value is None and metric.scored for metric in metrics.values()):
            metrics = yield from self._averaged(run.run_id, metrics)
        cases = responses.named(_explained(cases, details), details)
        unpaid = [
            case.message for case in cases if case.outcome is Outcome.FAILED and responses.is_unpaid(case.message)
        ]
        if unpaid and report.counts is not None and len(unpaid) >= report.counts.failed:
            # The agent was not tested: no call could be made.
            broke, message = True, unpaid[0]
        elif unpaid:
            remarks.append(f"{len(unpaid)} calls failed for the account's balance or limits: {unpaid[0]}")
        finished_at = run.finished_at or now.run.finished_at
        if finished_at is None:
            # Of chats the platform tells when each call began and how long it took, and no end of the whole.
            finished_at = responses.last_end(details)
        told = replace(
            run,
            platform_verdict=Verdict.ERRORED if broke else platform_verdict,
            started_at=run.started_at or now.run.started_at,
            finished_at=finished_at,
            progress=now.run.progress,
            url=run.url or now.run.url,
            message=message,
        )
        if metrics_error is not None:
            metrics_error = type(metrics_error)(
                f"The evaluations of execution {run.run_id} are not available. {metrics_error}",
                status=metrics_error.status,
            )
        return replace(
            report, run=told, cases=cases, metrics=metrics, metrics_error=metrics_error, remarks=tuple(remarks)
        )

    def check(self) -> Steps[str]:
        """Prove the address and the keys: the health call, then the list of run tests."""
        health = yield from self.health()
        page = yield from ask(self._run_tests_call(1, 1))
        version = health.get("version")
        release = f", version {clean(version, limits.NAME)}" if isinstance(version, str) and version else ""
        seen = "run tests can be listed" if page.rows else "there are no run tests yet"
        said = f"Connected to Future AGI at {self.base_url}{release}, in the {self.dialect} dialect; {seen}."
        if self.dialect == "documented":
            said += f" This does not prove that runs can be started: {responses.NEEDS_BOTH_KEYS}"
        return said

    def run_url(self, run_test_id: str | None, execution_id: str) -> str:
        """The page of an execution in the web app; empty when its run test is not known."""
        if not run_test_id:
            return ""
        return f"{self.app_url}/dashboard/simulate/test/{quote(run_test_id, safe='')}/{quote(execution_id, safe='')}"

    # The endpoints that only read

    def health(self) -> Steps[dict[str, Any]]:
        """The server's health. ``GET /api/public/health`` in the current dialect, where it needs the keys;
        ``GET /health/`` in the documented one, where it needs none."""
        at = "/api/public/health" if self.dialect == "current" else "/health/"
        return (
            yield from ask(
                self._get("ask for its health", at, lambda response: responses.whole(response, "the health"))
            )
        )

    def list_run_tests(self) -> Steps[list[dict[str, Any]]]:
        """All run tests, every page: ``GET /simulate/run-tests/``."""
        return (yield from _all_pages(lambda number: self._run_tests_call(number, self.page_size), raw=True))

    def get_run_test(self, run_test_id: str) -> Steps[dict[str, Any]]:
        """One run test: ``GET /simulate/run-tests/{id}/``.

        :param run_test_id: the run test (a UUID).
        """
        return (yield from ask(self._of_run_test("get run test", run_test_id, "")))

    def get_run_test_id(self, name: str) -> Steps[str]:
        """The id of the run test with a name: ``GET /simulate/run-tests/get-id-by-name/{name}/``.

        Where several have the name the server picks one without a word; starting by name makes sure of it.

        :param name: the name, exactly.
        :raises InvalidRequestError: when there is none.
        """

        def read(response: Response) -> str:
            result = responses.result_object(response, "the run test's name")
            return Fields(result, "the run test's name.result").identifier("run_test_id")

        at = path("/simulate/run-tests/get-id-by-name/{run_test_name}/", run_test_name=_name(name))
        return (yield from ask(self._get(f"get the id of run test {name!r}", at, read)))

    def get_run_test_status(self, run_test_id: str) -> Steps[dict[str, Any]]:
        """Where the latest execution of a run test stands: ``GET /simulate/run-tests/{id}/status/``.

        Calls that are still analysed count as completed.

        :param run_test_id: the run test (a UUID).
        :return: the response; of a run test that never ran, ``status`` is ``not_found``.
        """
        return (yield from ask(self._of_run_test("get the status of run test", run_test_id, "status/")))

    def list_scenarios(self, run_test_id: str) -> Steps[list[dict[str, Any]]]:
        """All scenarios of a run test, every page: ``GET /simulate/run-tests/{id}/scenarios/``.

        :param run_test_id: the run test (a UUID).
        """
        at = path("/simulate/run-tests/{run_test_id}/scenarios/", run_test_id=_uuid(run_test_id, "run_test_id"))

        def page(number: int) -> Call[responses.Page[dict[str, Any]]]:
            return self._get(
                f"list the scenarios of run test {run_test_id}",
                at,
                lambda response: responses.page_of(response.json(), number, "the scenarios", responses.with_id("id")),
                page=number,
                limit=self.page_size,
            )

        rows: list[dict[str, Any]] = yield from _all_pages(page, raw=True)
        return rows

    def get_metrics(self, execution_id: str) -> Steps[dict[str, Any]]:
        """The metrics of an execution: ``GET /sdk/api/v1/simulation/metrics/?execution_id=``.

        For hosted chat runs ``completed_at`` stays null and the counters beside it 0: ``metrics.calls`` has them.

        :param execution_id: the execution (a UUID).
        """
        return (yield from ask(self._sdk("metrics", execution_id)))

    def get_analytics(self, execution_id: str) -> Steps[dict[str, Any]]:
        """The evaluations of an execution: ``GET /sdk/api/v1/simulation/analytics/?execution_id=``.

        :param execution_id: the execution (a UUID).
        :return: ``eval_results``, ``eval_averages``, ``system_summary`` and more; rates are from 0 to 100.
        """
        return (yield from ask(self._sdk("analytics", execution_id)))

    def list_call_results(self, execution_id: str) -> Steps[list[dict[str, Any]]]:
        """All calls of an execution, with their evaluations, every page:
        ``GET /sdk/api/v1/simulation/runs/?execution_id=``.

        :param execution_id: the execution (a UUID).
        """
        rows: list[dict[str, Any]] = yield from self._calls_of(
            execution_id, responses.call_rows, lambda row: row["call_execution_id"], raw=True
        )
        return rows

    def get_kpis(self, execution_id: str) -> Steps[dict[str, Any]]:
        """The KPIs of an execution: ``GET /simulate/test-executions/{id}/kpis/``.

        :param execution_id: the execution (a UUID).
        """
        return (yield from ask(self._of_execution("get the KPIs of", execution_id, "kpis/")))

    def list_recorded_calls(self, execution_id: str) -> Steps[list[str]]:
        """The ids of the calls of which there may be recordings: those of a voice agent that took place."""
        detail = yield from self.get_test_execution_detail(execution_id, limit=1)
        if str(detail.get("agent_type")).casefold() in _WRITTEN:
            return []
        states = yield from self._call_states(execution_id)
        return [call_id for call_id, state in states.items() if state not in ("pending", "queued", "cancelled")]

    def get_call_execution(self, call_execution_id: str) -> Steps[dict[str, Any]]:
        """One call with all that is known of it: ``GET /simulate/call-executions/{id}/``.

        :param call_execution_id: the call (a UUID).
        """
        call_id = _uuid(call_execution_id, "call_execution_id")
        at = path("/simulate/call-executions/{id}/", id=call_id)
        return (
            yield from ask(self._get(f"get call {call_id}", at, lambda response: responses.whole(response, "the call")))
        )

    def get_performance_summary(self, execution_id: str) -> Steps[dict[str, Any]]:
        """Pass rate and best scenarios: ``GET /simulate/test-executions/{id}/performance-summary/``.

        :param execution_id: the execution (a UUID).
        """
        return (
            yield from ask(self._of_execution("get the performance summary of", execution_id, "performance-summary/"))
        )

    def get_test_execution_detail(self, execution_id: str, page: int = 1, limit: int = 30) -> Steps[dict[str, Any]]:
        """One page of an execution with its calls: ``GET /simulate/test-executions/{id}/``.

        Heavy, and the server writes when it is asked: for results, not for polling.

        :param execution_id: the execution (a UUID).
        :param page: the page of its calls, from 1.
        :param limit: calls on a page.
        :raises NotFoundError: when there is no such execution, which the server answers with 500.
        """
        return (yield from ask(self._of_execution("get the details of", execution_id, "", page=page, limit=limit)))

    def get_eval_summary(self, run_test_id: str, execution_id: str) -> Steps[list[dict[str, Any]]]:
        """The evaluations of an execution: ``GET /simulate/run-tests/{id}/eval-summary/?execution_id=``.

        Figures are from 0 to 100; one with ``total_cells`` 0 stands for nothing.

        The server shows an execution that does not exist in the same way: where nothing was scored, the
        execution itself is requested, too.

        :param run_test_id: the run test (a UUID).
        :param execution_id: the execution (a UUID).
        :raises NotFoundError: when there is no such execution.
        """
        call = self._eval_summary_call(run_test_id, execution_id)
        rows: list[dict[str, Any]] = yield from ask(
            call.with_reader(lambda response: responses.result_rows(response, "the evaluation summary"))
        )
        if not responses.anything_scored(rows):
            yield from self.get_run(self.run_by_id(execution_id))
        return rows

    def list_transcripts(self, execution_id: str) -> Steps[list[dict[str, Any]]]:
        """The calls of an execution, with what was said: ``GET /simulate/test-executions/{id}/transcripts/``.

        The server shows an execution that does not exist as one without calls: where there are none, the
        execution itself is requested, too.

        :param execution_id: the execution (a UUID).
        :raises NotFoundError: when there is no such execution.
        """

        call = self._of_execution("get the transcripts of", execution_id, "transcripts/")
        rows: list[dict[str, Any]] = yield from ask(call.with_reader(responses.transcripts))
        if not rows:
            yield from self.get_run(self.run_by_id(execution_id))
        return rows

    def export_csv(self, execution_id: str, save_to: Path) -> Steps[None]:
        """Write an execution's table to a local file: ``GET /simulate/export/{id}/?type=testexecution``."""

        def read(response: Response) -> None:
            kind = response.headers.get("content-type", "")
            # A sign-in page or a gateway's answer comes as a 200 too.
            if re.match(r"\s*(text/html|application/json)\b", kind, re.IGNORECASE):
                raise InvalidReplyError(f"the export should be CSV, and is {clean(kind, 60)}")

        at = path("/simulate/export/{id}/", id=_uuid(execution_id, "execution_id"))
        call = self._call(
            f"export execution {execution_id}", "GET", at, read, query={"type": "testexecution"}, save_to=save_to
        )
        yield from ask(call)

    # The endpoint that runs calls again

    def rerun_calls(
        self,
        execution_id: str,
        rerun_type: RerunType,
        call_execution_ids: Sequence[str] | None = None,
        select_all: bool = False,
    ) -> Steps[dict[str, Any]]:
        """Run calls of a final execution again: ``POST /simulate/test-executions/{id}/rerun-calls/``.

        The execution keeps its id and goes back to running. What is run again is paid for again, so the request is
        sent once.

        :param execution_id: the execution.
        :param rerun_type: ``eval_only`` evaluates again what was said; ``call_and_eval`` calls again too, which the
            product does for voice agents only.
        :param call_execution_ids: the calls (UUIDs), or …
        :param select_all: … all of them.
        :return: the response; ``failed_reruns`` has the calls that could not be run again, and why.
        :raises ConfigurationError: for arguments that can't be right.
        :raises StartOutcomeUnknownError: when the response got lost: the calls may be running.
        :raises ServerError: when the platform could not dispatch what it had prepared.
        :raises InvalidRequestError: when no call is run again.
        """
        one_of("rerun_type", rerun_type, get_args(RerunType))
        calls = _ids(call_execution_ids, "call_execution_ids")
        if not isinstance(select_all, bool) or (calls is None) == (not select_all):
            raise ConfigurationError(
                "Exactly one of call_execution_ids and select_all=True says which calls are run again, got"
                f" call_execution_ids={call_execution_ids!r} and select_all={select_all!r}."
            )
        call = self._rerun_call(_uuid(execution_id, "execution_id"), rerun_type, calls, responses.rerun)
        try:
            said = yield from ask(call)
        except ApiError as e:
            if e.not_executed:
                raise
            raise StartOutcomeUnknownError(
                f"{e} It is not known whether the calls of execution {execution_id} are run again. Nothing is sent"
                " again, as the calls would be charged twice. Check the execution on the platform; when it is running"
                " or"
                " evaluating, wait for it with FutureAGITestExecutionSensor."
            ) from e
        if said.dispatch_error or not said.succeeded:
            raise _not_rerun(said, execution_id)
        return dict(said.raw)

    def _rerun_start(self, run: Run, rerun_type: RerunType, calls: list[str] | None) -> Start:
        def read(response: Response) -> Run:
            said = responses.rerun(response)
            if not said.succeeded:
                error = _not_rerun(said, run.run_id)
                # It says itself that nothing was started. It may be paid for, so only the task's next try asks again.
                error.not_executed, error.transient = True, False
                raise error
            return replace(
                run,
                state=RunState.QUEUED,
                raw_state="started",
                platform_verdict=None,
                finished_at=None,
                progress=None,
                message=said.left_out(),
            )

        what = "all calls" if calls is None else f"{len(calls)} call{'s' if len(calls) > 1 else ''}"
        return Start(
            what=f"a rerun ({rerun_type}) of {what} of execution {run.run_id}",
            call=self._rerun_call(run.run_id, rerun_type, calls, read),
            ids=run.ids,
            cannot_list=(
                f"a rerun continues under the id of its execution, {run.run_id}, so no list shows whether it was"
                " started. Check the execution: while it is running or evaluating, wait for it with"
                " FutureAGITestExecutionSensor."
            ),
        )

    def _nothing_to_rerun(self, run: Run) -> Start:
        why = "no call of it is left to run again" if run.final else "the execution is already running again"
        call = self._standing_call(run.run_id, run.ids.get("run_test_id"))
        return Start(
            what=why,
            call=call.with_reader(lambda response: call.read(response).run),
            ids=run.ids,
            cannot_list="Nothing was sent.",
            existing_run=run,
        )

    # Calls

    def _rerun_call(
        self, execution_id: str, rerun_type: RerunType, calls: list[str] | None, read: Callable[[Response], T]
    ) -> Call[T]:
        body: dict[str, Any] = {"rerun_type": rerun_type}
        body |= {"select_all": True} if calls is None else {"call_execution_ids": calls}
        return self._call(
            f"run calls of execution {execution_id} again",
            "POST",
            path("/simulate/test-executions/{id}/rerun-calls/", id=execution_id),
            read,
            json=body,
            idempotent=False,
        )

    def _call(self, what: str, method: str, at: str, read: Callable[[Response], T], **more: Any) -> Call[T]:
        return Call(what, method, at, read, error_text=responses.error_words, stands_for=responses.status_meant, **more)

    def _get(self, what: str, at: str, read: Callable[[Response], T], **query: str | int | None) -> Call[T]:
        return self._call(what, "GET", at, read, query=query)

    def _of_run_test(self, what: str, run_test_id: str, below: str) -> Call[dict[str, Any]]:
        at = path("/simulate/run-tests/{run_test_id}/", run_test_id=_uuid(run_test_id, "run_test_id")) + below
        return self._get(f"{what} {run_test_id}", at, lambda response: responses.whole(response, "the run test"))

    def _of_execution(
        self, what: str, execution_id: str, below: str, **query: str | int | None
    ) -> Call[dict[str, Any]]:
        at = path("/simulate/test-executions/{id}/", id=_uuid(execution_id, "execution_id")) + below
        read = lambda response: responses.whole(response, "the execution")  # noqa: E731
        return self._get(f"{what} execution {execution_id}", at, read, **query)

    def _sdk(self, kind: str, execution_id: str) -> Call[dict[str, Any]]:
        return self._get(
            f"get the {kind} of execution {execution_id}",
            f"/sdk/api/v1/simulation/{kind}/",
            lambda response: responses.result_object(response, f"the {kind}"),
            execution_id=_uuid(execution_id, "execution_id"),
        )

    def _standing_call(self, execution_id: str, run_test_id: str | None) -> Call[responses.ExecutionStatus]:
        execution = _uuid(execution_id, "execution_id")
        run_test = _uuid(run_test_id, "run_test_id") if run_test_id else None
        return self._get(
            f"get execution {execution}",
            "/sdk/api/v1/simulation/metrics/",
            lambda response: responses.standing(response, execution, run_test, self.run_url),
            execution_id=execution,
        )

    def _runs_call(self, execution_id: str, number: int | None, read: Callable[[Response, int], T]) -> Call[T]:
        return self._get(
            f"list the calls of execution {execution_id}",
            "/sdk/api/v1/simulation/runs/",
            lambda response: read(response, number or 1),
            execution_id=_uuid(execution_id, "execution_id"),
            page=number,
            limit=None if number is None else self.page_size,
        )

    def _run_tests_call(self, number: int, limit: int) -> Call[responses.Page[dict[str, Any]]]:
        return self._get(
            "list the run tests",
            "/simulate/run-tests/",
            lambda response: responses.page_of(response.json(), number, "the run tests", responses.with_id("id")),
            page=number,
            limit=limit,
        )

    def _executions_call(
        self,
        run_test_id: str,
        number: int,
        limit: int,
        oldest: datetime | None = None,
        wanted: Collection[str] | None = None,
        cache: PollCache | None = None,
        *,
        lenient: bool = False,
    ) -> Call[responses.Page[Run]]:
        return self._get(
            f"list the executions of run test {run_test_id}",
            path("/simulate/run-tests/{run_test_id}/executions/", run_test_id=run_test_id),
            lambda response: responses.executions(
                response, number, run_test_id, self.run_url, oldest, wanted, cache, lenient=lenient
            ),
            page=number,
            limit=limit,
        )

    def _eval_summary_call(self, run_test_id: str, execution_id: str) -> Call[Any]:
        return self._get(
            f"get the evaluation summary of execution {execution_id}",
            path("/simulate/run-tests/{id}/eval-summary/", id=_uuid(run_test_id, "run_test_id")),
            responses.eval_summary,
            execution_id=_uuid(execution_id, "execution_id"),
        )

    # Steps

    def _executions(
        self,
        run_test_id: str,
        limit: int,
        oldest: datetime | None = None,
        wanted: Collection[str] | None = None,
        cache: PollCache | None = None,
    ) -> Steps[list[Run]]:
        runs = yield from _all_pages(
            lambda number: self._executions_call(run_test_id, number, limit, oldest, wanted, cache),
            key=lambda run: run.run_id,
            enough=None if wanted is None else len(wanted),
            most=limits.RUNS,
        )
        runs.sort(key=lambda run: newest_first(run.started_at), reverse=True)
        return runs

    def _cases(self, execution_id: str, with_summary: bool) -> Steps[tuple[tuple[CaseResult, ...], Evaluations, Any]]:
        evaluations, summaries, texts = Evaluations(), [], CaseTexts()

        def read(response: Response, number: int) -> responses.Page[CaseResult]:
            with_it = with_summary and number == 1
            found = responses.call_page(response, number, evaluations.calls, texts, with_summary=with_it)
            evaluations.merge(found.evaluations)
            if found.summary is not None:
                summaries.append(found.summary)
            return found.page

        # A call that is listed twice with two ends is in the report with both: neither hides the other.
        cases = yield from self._calls_of(execution_id, read, lambda case: (case.name, case.outcome))
        return tuple(cases), evaluations, summaries[0] if summaries else None

    def _evaluates_tools(self, run_test_id: str | None) -> Steps[bool]:
        """Whether the use of tools is evaluated in a run test: only the details of an execution show what came of it,
        and no summary."""
        if not run_test_id:
            return False
        detail = yield from _detail(lambda: self.get_run_test(run_test_id))
        return not isinstance(detail, ApiError) and detail.get("enable_tool_evaluation") is True

    def _call_details(
        self, execution_id: str, tools: Evaluations | None
    ) -> Steps[dict[str, responses.CallDetails] | ApiError]:
        """What only the details of an execution tell of its calls, by their ids; or why they are not available."""

        def page(number: int) -> Call[responses.Page[tuple[str, responses.CallDetails]]]:
            call = self._of_execution("get the details of", execution_id, "", page=number, limit=self.page_size)
            return call.with_reader(lambda response: responses.details_page(response, number, tools))

        try:
            rows = yield from _detail(lambda: _all_pages(page, key=lambda row: row[0]))
        except InvalidReplyError as e:
            # No count and no verdict depends on them.
            return e
        return rows if isinstance(rows, ApiError) else dict(rows)

    def _without_deleted(self, execution_id: str, summary: Any, evaluations: Evaluations) -> Steps[None]:
        """Leave out evaluations that were deleted: their outputs stay with the calls, and the platform's own figures
        are without them."""
        doubtful = responses.unlisted(summary, "the evaluation summary", evaluations)
        if not doubtful:
            return
        figures = yield from _detail(lambda: self.get_kpis(execution_id))
        if isinstance(figures, ApiError):
            return
        for key, name in doubtful.items():
            if name not in figures and f"avg_{name}" not in figures:
                del evaluations.by_id[key]

    def _averaged(self, execution_id: str, metrics: dict[str, Metric]) -> Steps[dict[str, Metric]]:
        """The same metrics, with the averages of the analytics where the summary has none."""
        analytics = yield from _detail(lambda: self.get_analytics(execution_id))
        averages = {} if isinstance(analytics, ApiError) else responses.averages(analytics)
        return {
            name: replace(metric, value=averages.get(name.casefold()))
            if metric.value is None and metric.scored
            else metric
            for name, metric in metrics.items()
        }

    def _calls_of(
        self,
        execution_id: str,
        read: Callable[[Response, int], responses.Page[T]],
        key: Callable[[Any], Any],
        *,
        raw: bool = False,
    ) -> Steps[list[T]]:
        # The product reads page and limit here, but its documents do not name them: only asked for where one page of
        # the server's own size does not hold all calls.
        first = yield from ask(self._runs_call(execution_id, None, read))
        if first.last:
            return list({key(row): row for row in first.rows}.values())
        rows: list[T] = yield from _all_pages(
            lambda number: self._runs_call(execution_id, number, read), key=key, raw=raw
        )
        return rows

    def _call_states(self, execution_id: str) -> Steps[dict[str, str]]:
        """The calls of an execution and the status of each, in lower case."""
        rows = yield from self.list_call_results(execution_id)
        return {row["call_execution_id"].lower(): str(row.get("status") or "").casefold() for row in rows}

    def _check_prompt(self, run_test_id: str, simulator_id: str | None) -> None:
        """Refuse what the start of a prompt simulation can't say.

        :raises ConfigurationError: when it is asked for.
        """
        if self.dialect == "documented":
            raise ConfigurationError(
                f"Run test {run_test_id} is a prompt simulation, which the documented dialect cannot start: only the"
                " current one can, with the API key as password and secret_key of the connection."
            )
        if simulator_id is not None:
            raise ConfigurationError(
                f"simulator_id {simulator_id!r} was given, and run test {run_test_id} is a prompt simulation, which"
                " takes none. Leave it out."
            )

    def _check_evaluations(
        self, run_test_id: str, names: Collection[str], detail: dict[str, Any] | ApiError
    ) -> Steps[None]:
        """Make sure that evaluations are there before a run is paid for, as far as the server tells.

        :param detail: of the run test, or why it is not available.
        """
        if not names or isinstance(detail, ApiError):
            return
        if detail.get("enable_tool_evaluation") is True:
            # Which tools are used shows only in a call.
            names = [name for name in names if not name.startswith(TOOL)]
        known = responses.evaluation_names(detail)
        if known is None or not _unknown(names, known):
            return
        # A gate can be on a template, too, which only the summary names: without an execution, of the latest one.
        latest = self._get(
            f"get the evaluation summary of run test {run_test_id}",
            path("/simulate/run-tests/{id}/eval-summary/", id=run_test_id),
            lambda response: responses.result_rows(response, "the evaluation summary"),
        )
        rows = yield from _detail(lambda: ask(latest))
        if not isinstance(rows, ApiError):
            known |= responses.summary_names(rows)
        unknown = _unknown(names, known)
        if unknown:
            raise ConfigurationError(
                f"eval_thresholds names {', '.join(repr(name) for name in unknown)}, and run test {run_test_id} has no"
                f" such evaluation. It has: {_named(sorted(known)) or 'none'}."
            )

    def _check_simulator(self, simulator_id: str) -> Steps[tuple[str, ...]]:
        """Make sure that a simulator is there: the server takes any id, and then runs the run test's own.

        :return: what is to be said where that could not be seen.
        :raises ConfigurationError: when it is not.
        """
        at = path("/simulate/simulator-agents/{id}/", id=simulator_id)
        call = self._get(
            f"get simulator {simulator_id}", at, lambda response: responses.whole(response, "the simulator")
        )
        try:
            found = yield from ask(call)
        except NotFoundError as e:
            # A server without the call answers with 404, too, but not with these words.
            if responses.WORKSPACE in str(e) or "simulatoragent" in str(e).casefold():
                raise ConfigurationError(
                    f"simulator_id {simulator_id!r} is no simulator of this connection's workspace; Future AGI would"
                    f" use the run test's own instead. {e}"
                ) from e
            metrics_error: ApiError = e
        except (PermissionDeniedError, InvalidRequestError) as e:
            metrics_error = e
        else:
            if str(found.get("id") or simulator_id).lower() == simulator_id and found.get("deleted") is not True:
                return ()
            raise ConfigurationError(
                f"simulator_id {simulator_id!r} is no simulator that can be used: the platform shows it as deleted, or"
                " shows another one for it. Future AGI would use the run test's own instead."
            )
        return (
            f"Whether simulator {simulator_id} exists is not known; if it does not, Future AGI uses the run"
            f" test's own without saying so. {metrics_error}",
        )

    def _error_reason(self, run: Run, run_test_id: str) -> Steps[str]:
        # Only the rows of the list tell why an execution could not be set up.
        run_test = _uuid(run_test_id, "run_test_id")
        rows = yield from self._executions(run_test, self.page_size, run.started_at, {run.run_id.lower()})
        return next((row.message for row in rows), "")

    def _find_run_test(self, name: str) -> Steps[str]:
        """The id of the one run test that is called ``name``. The server's own lookup picks one of several."""
        _name(name)
        found = []
        for row in (yield from self.list_run_tests()):
            if row.get("deleted") is not True:
                found.append((str(row.get("name") or ""), row["id"]))
        ids = [run_test_id for known, run_test_id in found if known == name]
        if len(ids) == 1:
            if not UUID.fullmatch(ids[0]):
                raise InvalidReplyError(f"The id of run test {name!r} should be a UUID, and is {ids[0]!r}.")
            return str(ids[0].lower())
        if ids:
            raise ConfigurationError(
                f"run_test_name {name!r} is the name of {len(ids)} run tests ({', '.join(ids[:10])}). Give one's"
                " run_test_id instead, or rename the others."
            )
        raise ConfigurationError(
            f"run_test_name {name!r} is not the name of a run test of this connection. {_near(name, found)}"
            f" {responses.WORKSPACE}"
        )

    def _choose(self, run_test_id: str, include: list[str] | None, exclude: list[str] | None) -> Steps[list[str]]:
        asked = include or exclude
        if asked is None:
            return []
        argument = "scenario_ids" if include else "exclude_scenario_ids"
        if self.dialect == "current":
            rows = yield from self.list_scenarios(run_test_id)
        else:
            # The documents know no such call: where there is none, the ids go out unchecked.
            found = yield from _detail(lambda: self.list_scenarios(run_test_id))
            if isinstance(found, ApiError):
                return []
            rows = found
        attached = {row["id"].lower(): str(row.get("name") or "") for row in rows}
        unknown = [scenario_id for scenario_id in asked if scenario_id not in attached]
        if unknown:
            there = ", ".join(
                f"{scenario_id} ({clean(name, limits.NAME)})" for scenario_id, name in list(attached.items())[:20]
            )
            more = f" and {len(attached) - 20} more" if len(attached) > 20 else ""
            raise ConfigurationError(
                f"{argument} has {len(unknown)} that are no scenarios of run test {run_test_id}:"
                f" {', '.join(unknown[:20])}. Its scenarios are: {there or 'none'}{more}."
            )
        if include:
            return include
        chosen = [scenario_id for scenario_id in attached if scenario_id not in asked]
        if not chosen:
            raise ConfigurationError(
                f"exclude_scenario_ids leaves none of the {len(attached)} scenarios of run test {run_test_id}:"
                " nothing would be run."
            )
        return chosen


def _prompt_start(run_test_id: str, detail: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt template of a prompt simulation, and the path of its start.

    :raises ConfigurationError: when it can't be started.
    """
    template = responses.prompt_template(detail)
    if template is None:
        raise ConfigurationError(
            f"Run test {run_test_id} is a prompt simulation, and the platform shows no prompt template of it, by which"
            " it is started. Open it in Future AGI: its prompt may have been deleted."
        )
    if responses.prompt_version_is_gone(detail):
        raise ConfigurationError(
            f"The prompt version of run test {run_test_id}, a prompt simulation, has been deleted. Give the simulation"
            " another version in Future AGI."
        )
    at = path(
        "/simulate/prompt-templates/{prompt_template_id}/simulations/{run_test_id}/execute/",
        prompt_template_id=template,
        run_test_id=run_test_id,
    )
    return template, at


def _all_pages(
    call: Callable[[int], Call[responses.Page[T]]],
    key: Callable[[Any], Any] = lambda row: row["id"],
    enough: int | None = None,
    *,
    raw: bool = False,
    most: int | None = None,
) -> Steps[list[T]]:
    """The rows of all pages. What moves to the next page while a list is read is counted once.

    :param call: the call for a page, by its number from 1.
    :param key: tells rows apart.
    :param enough: so many rows are all that is wanted.
    :param raw: whether rows are kept as they come, and not a few things of each.
    :param most: so many rows are more than can be meant; :data:`.limits.ROWS` without it.
    :raises InvalidReplyError: when there is more than can be meant, or kept: a part of a list is none.
    """
    rows: dict[Any, T] = {}
    kept = 0
    for number in range(1, limits.PAGES + 1):
        asked = call(number)
        page, cost = yield from ask(asked.with_reader(partial(_with_cost, asked.read)))
        for row in page.rows:
            rows.setdefault(key(row), row)
        if page.last or (enough is not None and len(rows) >= enough):
            return list(rows.values())
        kept += cost if raw else 0
        if kept > limits.RAW_ROWS or len(rows) > (most or limits.ROWS):
            raise InvalidReplyError(
                f"Future AGI's list is too large: {len(rows):,} rows after {number} pages, and there are more."
            )
    raise InvalidReplyError(f"Future AGI's list exceeds the limit of {limits.PAGES} pages.")


def _with_cost(read: Callable[[Response], T], response: Response) -> tuple[T, int]:
    return read(response), response.cost


def _explained(cases: tuple[CaseResult, ...], details: Mapping[str, responses.CallDetails]) -> tuple[CaseResult, ...]:
    """The same cases, with the reasons of those that failed without one and the durations of those that lack one."""
    found = []
    for case in cases:
        call = details.get(case.name)
        if case.outcome is Outcome.FAILED and not case.message:
            reason = call.reason if call is not None else ""
            case = replace(case, message=reason or "The call failed; the platform gives no reason.")
        if case.duration is None and call is not None:
            case = replace(case, duration=call.duration)
        found.append(case)
    return tuple(found)


def _counted(standing: responses.ExecutionStatus) -> responses.ExecutionStatus:
    if standing.uncounted is not None:
        raise standing.uncounted
    return standing


def _detail(make: Callable[[], Steps[T]]) -> Steps[T | ApiError]:
    """What a server may lack, or break on, without any doubt about how the run ended; or why it is unavailable.

    A 500 is asked again a few times only: the product gives it for ever where it breaks on something.

    :param make: makes the steps, for each try again.
    """
    for left in reversed(range(timing.DETAIL_TRIES)):
        found = yield from optional(make(), lambda error: error, statuses=_NO_DETAIL)
        if not isinstance(found, ApiError) or not left or not found.transient:
            return found
        yield from pause(max(timing.DETAIL_PAUSE, found.retry_after or 0.0))
    raise AssertionError("the last try returns or raises")


def _not_rerun(said: responses.Rerun, execution_id: str) -> ApiError:
    why = said.dispatch_error or said.left_out() or "no reason given"
    return (ServerError if said.dispatch_error else InvalidRequestError)(
        f"Future AGI runs {said.succeeded or 'none'} of the calls of execution {execution_id} again: {clean(why, 500)}"
    )


def _unknown(names: Collection[str], known: Collection[str]) -> list[str]:
    """Those of ``names`` that are no evaluation of ``known``, nor a choice of one (``name=choice``)."""
    return [name for name in names if name not in known and name.rpartition("=")[0] not in known]


def _uuid(value: Any, name: str) -> str:
    """A UUID in lower case: the product does not find upper case ones."""
    return uuid(name, value, "Copy it from the URL of its page in Future AGI.")


def _ids(values: Any, name: str) -> list[str] | None:
    """UUIDs in the order given, each once: the product runs double ones twice."""
    if values is None:
        return None
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ConfigurationError(f"{name} must be a list of UUIDs; got {shown(values)}.")
    if not values:
        raise ConfigurationError(
            f"{name} is an empty list, which Future AGI takes as everything. Give at least one id, or leave it out"
            " and set select_all=True."
        )
    return list(dict.fromkeys(_uuid(value, f"{name}[{index}]") for index, value in enumerate(values)))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"run_test_name must be the name of a run test, got {value!r}.")
    return value


def _named(names: Sequence[str], most: int = 20) -> str:
    """Names that the platform gives, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(clean(name, limits.NAME)) for name in names[:most]) + more


def _near(name: str, found: Sequence[tuple[str, str]]) -> str:
    from difflib import get_close_matches

    by_folded = {known.strip().casefold(): known for known, _ in found}
    near = [by_folded[match] for match in get_close_matches(name.strip().casefold(), by_folded, 5, 0.5)]
    if near:
        return f"Similar names: {_named(near)}. Case and spaces matter."
    return f"There are {len(found)} run tests, none with a similar name."
