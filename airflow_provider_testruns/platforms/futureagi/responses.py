"""Reading Future AGI's responses: what each one says, in the provider's own vocabulary. Pure, like all platforms.

The product spells a status in three ways ("PENDING", "Pending", "pending"), ends times in ``Z`` or ``+00:00``, and
gives rates and averages from 0 to 100; beyond this module there is one spelling, UTC, and fractions.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

from airflow_provider_testruns import limits
from airflow_provider_testruns.arguments import UUID
from airflow_provider_testruns.cleaning import clean, distinct, is_id
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.model import (
    CaseResult,
    CaseTexts,
    Counts,
    Metric,
    Outcome,
    Progress,
    Run,
    RunState,
    Verdict,
)
from airflow_provider_testruns.parsing import Rows
from airflow_provider_testruns.platforms.futureagi.metrics import Evaluations, Tally, choices_of, fraction
from airflow_provider_testruns.platforms.platform import PollCache, settled
from airflow_provider_testruns.platforms.reading import Fields, each, joined, objects
from airflow_provider_testruns.steps import Response

T = TypeVar("T")

PLATFORM = "futureagi"

_STATES: Mapping[str, tuple[RunState, Verdict | None]] = {
    "started": (RunState.QUEUED, None),
    "pending": (RunState.QUEUED, None),
    "running": (RunState.RUNNING, None),
    "evaluating": (RunState.RUNNING, None),
    "cancelling": (RunState.RUNNING, None),
    # Said as soon as one call was completed, however many failed: the report has the last word.
    "completed": (RunState.FINISHED, Verdict.PASSED),
    "failed": (RunState.FINISHED, Verdict.FAILED),
    "cancelled": (RunState.FINISHED, Verdict.CANCELLED),
}
_OUTCOMES = {"completed": Outcome.PASSED, "failed": Outcome.FAILED}

#: Error responses that are given before the server's own code for a start is reached, or by its first checks: the key,
#: the plan, the run test's id, and what the web framework refuses by itself (method, content type, accepted types).
_REFUSED = frozenset({401, 402, 403, 404, 405, 406, 415, 429})
#: For whoever does not find a run test that is there.
WORKSPACE = (
    "An API key sees the run tests of its own organization and workspace only; workspace_id of the connection names the"
    " workspace."
)
#: For whoever uses the documented dialect with a server of today.
NEEDS_BOTH_KEYS = (
    "Future AGI now accepts starts in the current dialect only, which needs both keys: the API key as password"
    " and secret_key of the connection. The extra dialect=documented is for older installations."
)
#: What a call that the account can't pay for ends with, in lower case; what was said, or how long, has limits, too.
_UNPAID = re.compile(
    r"insufficient balance|free tier.*limit reached|usage paused|budget limit|\bunpaid\b"
    r"|^(?!.*\b(?:turns?|messages?|duration|time|length|silence|retry|retries|tokens?)\b.*limit reached)"
    r".*limit reached",
    re.DOTALL,
)
#: What the product refuses a start with before it has made an execution, in lower case, beside the fields in `details`.
_REFUSED_FOR = (
    "at least one scenario is required",
    "are not completed",
    "prompt version has been deleted",
)
#: The words of a 500 that is a 404: the product's view has not expected that an id is unknown.
_NO_MATCH = re.compile(r"no \w+ matches the given query", re.IGNORECASE)

_ADVICE = {
    "payment_required": "The plan, the credits or the licence do not cover this run: upgrade, or run fewer scenarios.",
    "entitlement_error": "The plan does not have this feature: ask the organization's owner.",
    "permission_error": "Use a key whose user has the rights for it in this organization and workspace.",
    "rate_limit": "The limit counts all requests of the organization in a minute.",
}

#: Where a run test's details have its evaluations; releases differ.
_EVALUATIONS = ("evals_detail", "simulate_eval_configs_detail", "evals")

#: How much a case's name has of a column's name and of what stands in it, and in all; characters.
_COLUMN = 60
_CASE = 240
#: Columns of a row that name a case. Rows of a data set have a handful.
_MOST_COLUMNS = 20
#: No call lasts longer; seconds.
_LONGEST_CALL = 7 * 86_400.0

#: What is read of a row of the executions.
_ROW = ("id", "status", "start_time", "calls", "calls_attempted", "error_reason")

RunUrl = Callable[[str | None, str], str]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    :param rows: what it holds.
    :param last: whether the server says, or the rows show, that nothing wanted comes after it.
    """

    rows: list[T]
    last: bool


@dataclass(frozen=True, slots=True)
class CallPage:
    """One page of an execution's calls.

    :param page: the calls.
    :param evaluations: what those of its calls were given that no page before has shown.
    :param summary: the platform's summary of the evaluations of the whole execution, which each page repeats; ``None``
        when not asked for.
    """

    page: Page[CaseResult]
    evaluations: Evaluations
    summary: Any = None


@dataclass(frozen=True, slots=True)
class CallDetails:
    """What only the details of an execution tell of a call.

    :param row: what the row of its scenario says, in one line; empty when the platform does not show it.
    :param reason: why it ended, empty when the platform does not say.
    :param started_at: when it began; aware, UTC.
    :param duration: seconds.
    """

    row: str
    reason: str
    started_at: datetime | None
    duration: float | None


@dataclass(frozen=True, slots=True)
class ExecutionStatus:
    """Where an execution stands.

    :param run: it.
    :param counts: its calls.
    :param failures_counted: whether the failed ones are counted.
    :param uncounted: why the counters can't be read, ``None`` when they can.
    """

    run: Run
    counts: Counts
    failures_counted: bool = True
    uncounted: InvalidReplyError | None = None


@dataclass(frozen=True, slots=True)
class Rerun:
    """The response to a rerun.

    :param raw: it, under the API's own names.
    :param succeeded: how many calls are run again.
    :param failed: the others, each with its reason.
    :param dispatch_error: why what was prepared could not be started; empty when it was.
    """

    raw: Mapping[str, Any]
    succeeded: int
    failed: tuple[str, ...]
    dispatch_error: str

    def left_out(self) -> str:
        """What is not run again, and why; empty when all is."""
        if not self.failed:
            return self.dispatch_error
        more = f" and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        return f"Not run again: {'; '.join(self.failed[:10])}{more}."


def nothing_was_started(response: Response) -> bool:
    """Whether an error response to a start proves that nothing was started.

    A 400 proves it only when the request itself was refused. When the workflow service is down the product has
    already kept a ``pending`` execution, and answers with a 400 of ``type: validation_error`` too; what tells them
    apart is ``details``, which name the fields and scenarios that were refused and which that one lacks.
    """
    if response.status in _REFUSED:
        return True
    if response.status != 400:
        return False
    try:
        body = response.json()
    except InvalidReplyError:
        return False
    if not isinstance(body, Mapping) or body.get("type") not in ("validation_error", None):
        return False
    details = body.get("details")
    if isinstance(details, Mapping) and details and body.get("type") is not None:
        return True
    said = _own_words(body).lower()
    return not said.startswith("failed to") and any(words in said for words in _REFUSED_FOR)


def _own_words(body: Mapping[str, Any], within: int = 2) -> str:
    """The text of an error response: under one of some names, each of which may be a text, or an object that has it.

    :param within: how deep it may be.
    """
    for name in ("detail", "message", "error", "result", "reason", "code"):
        found = body.get(name)
        if isinstance(found, str) and found.strip():
            return found.strip()
        if isinstance(found, list):
            texts = [text.strip() for text in found if isinstance(text, str) and text.strip()]
            if texts:
                return "; ".join(texts)
        if within and isinstance(found, Mapping) and (inner := _own_words(found, within - 1)):
            return inner
    return ""


def error_words(body: Any) -> str:
    """What an error response says: its text, the fields that it names, and what can be done where that is known."""
    if not isinstance(body, Mapping):
        return ""
    parts = [_own_words(body)]
    details = body.get("details")
    if isinstance(details, Mapping):
        for name, texts in details.items():
            for text in texts if isinstance(texts, list) else [texts]:
                if isinstance(text, str) and text and text not in parts[0]:
                    parts.append(f"{name}: {text}")
    if body.get("type") == "not_found" or _NO_MATCH.search(parts[0]):
        parts.append(WORKSPACE)
    advice = _ADVICE.get(body["type"]) if isinstance(body.get("type"), str) else None
    if advice:
        parts.append(advice)
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part)


def start_error_words(body: Any, dialect: str) -> str:
    """The same of a start, whose fields have other names in the other dialect.

    :param dialect: that was spoken.
    """
    said = error_words(body)
    details = body.get("details") if isinstance(body, Mapping) else None
    if not isinstance(details, Mapping):
        return said
    unknown = {name for name, texts in details.items() if "unknown field" in str(texts).casefold()}
    if dialect == "documented" and unknown & {"scenarioIds", "selectAll", "simulatorId"}:
        return f"{said} This server does not take the documented dialect: {NEEDS_BOTH_KEYS}"
    if dialect == "current" and unknown & {"scenario_ids", "select_all", "simulator_id"}:
        return (
            f"{said} This server does not take the current dialect: for an older installation, set the extra"
            " dialect=documented of the connection."
        )
    return said


def status_meant(response: Response) -> int:
    """The status that an error response should have: the product answers 500 for some unknown ids."""
    if response.status != 500:
        return response.status
    try:
        body = response.json()
    except InvalidReplyError:
        return response.status
    return 404 if isinstance(body, Mapping) and _NO_MATCH.search(_own_words(body)) else response.status


def is_prompt(run_test: Mapping[str, Any]) -> bool:
    """Whether a run test is a prompt simulation, by its details."""
    shown = run_test.get("source_type")
    return isinstance(shown, str) and shown.strip().casefold() == "prompt"


def prompt_template(run_test: Mapping[str, Any]) -> str | None:
    """The id of a prompt simulation's template, by its details; ``None`` when they have none."""
    for name in ("prompt_template", "prompt_template_detail", "prompt_template_id"):
        found = run_test.get(name)
        if isinstance(found, Mapping):
            found = found.get("id")
        if isinstance(found, str) and UUID.fullmatch(found.strip()):
            return found.strip().lower()
    return None


def prompt_version_is_gone(run_test: Mapping[str, Any]) -> bool:
    """Whether the details of a prompt simulation say that its version was deleted."""
    shown = run_test.get("prompt_version_detail")
    if isinstance(shown, Mapping) and shown.get("deleted") is True:
        return True
    return "prompt_version" in run_test and not run_test["prompt_version"] and not shown


def anything_scored(summary: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an evaluation summary has a value of anything."""
    return any(
        item.get("total_cells")
        for row in summary
        for item in (row, *(row.get("result") or ()))
        if isinstance(item, Mapping)
    )


def whole(response: Response, where: str) -> dict[str, Any]:
    """A response that is one object, as it is."""
    return dict(Fields(response.json(), where).raw)


def unwrapped(response: Response, where: str) -> Any:
    """The ``result`` of a response that wraps it: ``{"status": true, "result": …}``."""
    outer = Fields(response.json(), where)
    if outer.get("status") is False:
        raise InvalidReplyError(f"{where}: field 'status' is false in a response of HTTP {response.status}")
    if outer.get("result") is None:
        raise InvalidReplyError(f"{where}: field 'result' is missing")
    return outer.get("result")


def result_object(response: Response, where: str) -> dict[str, Any]:
    """The ``result`` of a response, which is an object."""
    return dict(Fields(unwrapped(response, where), f"{where}.result").raw)


def result_rows(response: Response, where: str) -> list[dict[str, Any]]:
    """The ``result`` of a response, which is a list of objects."""
    return [dict(row.raw) for row in objects(unwrapped(response, where), f"{where}.result")]


def with_id(field: str) -> Callable[[Any, str], dict[str, Any]]:
    """A reader of rows under the API's own names, in which ``field`` must be an id: lists are told apart by it."""

    def read(row: Any, where: str) -> dict[str, Any]:
        raw = Fields(row, where).raw
        if not is_id(raw.get(field)):
            raise InvalidReplyError(f"{where}: field {field!r} should be an id")
        return dict(raw)

    return read


def page_of(value: Any, number: int, where: str, read: Callable[[Any, str], T], *, in_pieces: bool = False) -> Page[T]:
    """One page of a list; the API schema has a bare list for some of them, the product never.

    :param value: what stands where the page should.
    :param number: the page that was asked for, from 1.
    :param where: its place, for messages.
    :param read: reads one row.
    :param in_pieces: whether little is kept of a row, so that a page may be longer than what is parsed at once.
    """
    if isinstance(value, list):
        return Page([read(row, f"{where}[{index}]") for index, row in enumerate(value)], last=True)
    fields = Fields(value, where)
    rows = fields.get("results")
    if isinstance(rows, Rows) and not in_pieces:
        raise InvalidReplyError(f"{where}: field 'results' is too large to be read whole: {len(rows):,} rows")
    if not isinstance(rows, list | Rows):
        raise InvalidReplyError(f"{where}: field 'results' should be a list")
    # A page past the end is a 500, so the next one is only asked for when the server says that there is one.
    if fields.get("total_pages") is not None:
        last = number >= fields.integer("total_pages")
    else:
        last = fields.get("next") is None
    return Page([read(row, f"{where}.results[{index}]") for index, row in enumerate(rows)], last or not rows)


def started(response: Response, run_test_id: str, url: RunUrl) -> Run:
    """The execution that a start has made. Its status is not believed: only a poll says where a run stands."""
    body = response.json()
    # That of a prompt simulation is wrapped.
    if isinstance(body, Mapping) and "execution_id" not in body and isinstance(body.get("result"), Mapping):
        body = body["result"]
    fields = Fields(body, "the start's response")
    execution_id = _id(fields, "execution_id")
    return Run(
        platform=PLATFORM,
        run_id=execution_id,
        state=RunState.QUEUED,
        raw_state=fields.optional_text("status", limit=limits.STATUS) or "started",
        url=url(run_test_id, execution_id),
        ids={"run_test_id": run_test_id},
        source=fields.excerpt(),
    )


def standing(response: Response, execution_id: str, run_test_id: str | None, url: RunUrl) -> ExecutionStatus:
    """Where one execution stands, from the metrics endpoint."""
    fields = Fields(unwrapped(response, "the metrics"), "the metrics' result")
    if (found := _id(fields, "execution_id")) != execution_id:
        raise InvalidReplyError(f"the metrics' result: field 'execution_id' is {found}, which was not asked for")
    counts, failures_counted, uncounted = Counts(), False, None
    try:
        counts, failures_counted = _counts(fields)
    except InvalidReplyError as e:
        # Where it stands is known all the same; a report needs them.
        uncounted = e
    raw = fields.required("status")
    state, platform_verdict, known = _state(raw)
    # A rerun keeps the end time of the run before: only a final status, or one that is unknown, goes with it.
    finished_at = fields.moment("completed_at") if state is RunState.FINISHED or not known else None
    started_at, start_unreadable = fields.start("started_at")
    # Before it has begun its calls are still being made, and their number grows.
    preparing = state is RunState.QUEUED and not fields.get("total_calls")
    run = Run(
        platform=PLATFORM,
        run_id=execution_id,
        state=state,
        raw_state=clean(raw, limits.STATUS),
        platform_verdict=platform_verdict,
        started_at=started_at,
        finished_at=finished_at,
        progress=None if preparing or uncounted is not None else _progress(counts.passed + counts.failed, counts.total),
        url=url(run_test_id, execution_id),
        ids={"run_test_id": run_test_id} if run_test_id else {},
        known_state=known,
        source=fields.excerpt(),
        start_unreadable=start_unreadable,
    )
    return ExecutionStatus(settled(run), counts, failures_counted, uncounted)


def _counts(fields: Fields) -> tuple[Counts, bool]:
    """The counters of an execution, and whether the failed calls are among them."""
    # Of hosted chat runs the counters beside the status stay 0 for ever; those of `calls` are counted from the calls.
    # Its `pending` leaves out queued, ongoing and analyzing calls: what is neither completed nor failed did not run.
    metrics = fields.child("metrics")
    calls = metrics.child("calls") if metrics is not None else None
    total = fields.integer("total_calls", default=0)
    passed, failed = fields.integer("completed_calls", default=0), fields.integer("failed_calls", default=0)
    counted = fields.get("failed_calls") is not None
    if calls is not None and (of_calls := calls.integer("total", default=0)):
        # A failure that one of the two counts is one, whatever the other says.
        total, failed = of_calls, max(failed, calls.integer("failed", default=0))
        passed = calls.integer("completed", default=passed)
        counted = calls.get("failed") is not None or failed > 0
    return Counts(passed=passed, failed=failed, not_run=max(0, total - passed - failed)), counted


def executions(
    response: Response,
    number: int,
    run_test_id: str,
    url: RunUrl,
    oldest: datetime | None = None,
    wanted: Collection[str] | None = None,
    cache: PollCache | None = None,
    *,
    lenient: bool = False,
) -> Page[Run]:
    """A page of a run test's executions, newest first.

    :param number: the page that was asked for, from 1.
    :param oldest: those that began before are left out.
    :param wanted: the only ids (in lower case) that are read; ``None`` for all. A poll of many is read often.
    :param cache: of the polls before.
    :param lenient: whether rows that can't be read are left out.
    """

    def read(row: Any, where: str) -> Run:
        return _execution(Fields(row, where), run_test_id, url)

    runs: list[Run] = []
    last_row: tuple[Any, str] | None = None

    def take(row: Any, where: str) -> None:
        nonlocal last_row
        last_row = row, where
        given = row.get("id") if isinstance(row, dict) else None
        key = given.lower() if isinstance(given, str) else None
        if wanted is not None and key is not None and key not in wanted:
            return
        cut = _cut(row)
        try:
            run = read(cut, where) if cache is None or key is None else cache.run(key, cut, partial(read, cut, where))
        except InvalidReplyError:
            if lenient:
                return
            raise
        # The rows have no end times: whether a run of unknown status has ended, only its own metrics show.
        if not _began_before(run.started_at, oldest) and (wanted is None or run.known_state):
            if len(runs) >= limits.RUNS:
                raise InvalidReplyError(f"the executions are more than {limits.RUNS:,}, which are too many to be read")
            runs.append(run)

    last = page_of(response.json(), number, "the executions", take).last
    if not last and oldest is not None and last_row is not None:
        # The list is ordered by when executions were made: what comes after an older one is older.
        last = _began_before(Fields(*last_row).moment("start_time"), oldest)
    return Page(runs, last)


def _cut(row: Any) -> Any:
    # Rows are read in their hundreds at each poll, and most of a row is of no interest.
    if isinstance(row, Mapping) and "id" in row and "status" in row:
        return {name: row[name] for name in _ROW if name in row}
    return row


def _began_before(started_at: datetime | None, oldest: datetime | None) -> bool:
    return oldest is not None and started_at is not None and started_at < oldest


def _execution(fields: Fields, run_test_id: str, url: RunUrl) -> Run:
    execution_id = _id(fields, "id")
    raw = fields.required("status")
    state, platform_verdict, known = _state(raw)
    started_at, start_unreadable = fields.start("start_time")
    return Run(
        platform=PLATFORM,
        run_id=execution_id,
        state=state,
        raw_state=clean(raw, limits.STATUS),
        platform_verdict=platform_verdict,
        started_at=started_at,
        # Until it has begun its calls are still being made, and their number grows.
        progress=None
        if state is RunState.QUEUED
        else fields.unless_unreadable(
            lambda: _progress(fields.integer("calls_attempted", default=0), fields.integer("calls", default=0))
        ),
        url=url(run_test_id, execution_id),
        ids={"run_test_id": run_test_id},
        message=fields.unless_unreadable(lambda: fields.optional_text("error_reason")) or "",
        known_state=known,
        source=fields.excerpt(),
        start_unreadable=start_unreadable,
    )


def call_page(
    response: Response, number: int, known: Collection[str], texts: CaseTexts, *, with_summary: bool
) -> CallPage:
    """A page of an execution's calls.

    :param known: the ids of the calls that pages before have shown.
    :param texts: of the cases, on all pages.
    :param with_summary: whether the summary of the evaluations is read, too.
    """
    evaluations = Evaluations()

    def read(row: Any, where: str) -> CaseResult:
        case = texts.bounded(_case(row, where))
        if case.name not in known and case.name not in evaluations.calls:
            evaluations.calls.add(case.name)
            evaluations.add(row.get("eval_outputs"))
        return case

    fields = Fields(unwrapped(response, "the runs"), "the runs' result")
    page = page_of(fields.get("call_results"), number, "the runs' result.call_results", read, in_pieces=True)
    summary = fields.get("eval_results") if with_summary else None
    metrics_of(summary, "the runs' result.eval_results")
    return CallPage(page, evaluations, summary)


def call_rows(response: Response, number: int) -> Page[dict[str, Any]]:
    """A page of an execution's calls under the API's own names."""
    fields = Fields(unwrapped(response, "the runs"), "the runs' result")
    return page_of(fields.get("call_results"), number, "the runs' result.call_results", with_id("call_execution_id"))


def _case(row: Any, where: str) -> CaseResult:
    fields = Fields(row, where)
    call_id = fields.identifier("call_execution_id").lower()
    status = fields.required("status")
    outcome = _OUTCOMES.get(status.casefold(), Outcome.NOT_RUN)
    seconds = fields.unless_unreadable(lambda: fields.optional_number("duration_seconds"))
    message = ""
    if outcome is not Outcome.PASSED:
        message = joined(chain((fields.verbatim("ended_reason"),), _troubles(fields)))
    if outcome is Outcome.NOT_RUN and not message:
        message = f"The call is {clean(status, limits.STATUS)}."
    return CaseResult(
        # Until the details of the execution name it: see named().
        name=call_id,
        outcome=outcome,
        duration=None if seconds is None else max(0.0, seconds),
        message=message,
        suite=fields.verbatim("scenario_name") or "",
        details={"call_execution_id": call_id},
    )


def _troubles(fields: Fields) -> Iterator[str]:
    outputs = fields.get("eval_outputs")
    # A list by the documents, an object by evaluation id from the product.
    values = list(outputs.values()) if isinstance(outputs, Mapping) else outputs if outputs is not None else []
    for output in each(values, f"{fields.where}.eval_outputs"):
        reason = output.verbatim("reason")
        verdict = output.get("output")
        if reason and (verdict is None or verdict in ("Failed", "Fail", False)):
            yield f"{output.optional_text('name') or 'evaluation'}: {reason}"


def is_unpaid(reason: str) -> bool:
    """Whether a call failed for the account's balance, quota or invoices, and not for what it tested."""
    return _UNPAID.search(reason.casefold()) is not None


def details_page(response: Response, number: int, tools: Evaluations | None = None) -> Page[tuple[str, CallDetails]]:
    """A page of an execution's details: what no other list tells of its calls, by their ids.

    :param tools: takes what the calls' use of tools was given, if that is wanted.
    """

    def read(row: Any, where: str) -> tuple[str, CallDetails]:
        fields = Fields(row, where)
        call_id = fields.required("id").lower()
        if tools is not None and call_id not in tools.calls:
            tools.calls.add(call_id)
            tools.add_tools(row.get("tool_outputs"))
        seconds = fields.unless_unreadable(lambda: fields.optional_number("duration_seconds"))
        if seconds is None:
            seconds = fields.unless_unreadable(lambda: fields.optional_number("duration"))
        return call_id, CallDetails(
            row=_row_of(fields),
            reason=fields.unless_unreadable(lambda: fields.verbatim("ended_reason")) or "",
            started_at=fields.moment("start_time"),
            duration=None if seconds is None else min(max(0.0, seconds), _LONGEST_CALL),
        )

    return page_of(response.json(), number, "the execution", read, in_pieces=True)


def _row_of(fields: Fields) -> str:
    """The row of its scenario that a call was made from, by its columns; empty where the platform shows none.

    Ids of rows and calls are others in the next execution; what a row says stays the same.
    """
    columns = fields.get("scenario_columns")
    if not isinstance(columns, Mapping):
        return ""
    parts = []
    for name in sorted(name for name in columns if isinstance(name, str))[:_MOST_COLUMNS]:
        cell = columns[name]
        value = cell.get("value") if isinstance(cell, Mapping) else cell
        if value is None or value in ("", [], {}):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        if text := " ".join(text.split()):
            parts.append(f"{distinct(name, _COLUMN)}={distinct(text, _COLUMN)}")
    return distinct(", ".join(parts), _CASE)


def named(cases: Sequence[CaseResult], details: Mapping[str, CallDetails]) -> tuple[CaseResult, ...]:
    """The same cases under names that they have in the next execution, too: what the row of their scenario says.

    Where that tells calls of a scenario not apart they are numbered, in the order of their start. The calls' own ids
    stay in the cases' details.

    :param cases: under the ids of their calls.
    :param details: of the calls, by their ids. A case whose call they lack keeps its name.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for call_id, suite in dict.fromkeys((case.name, case.suite) for case in cases if case.name in details):
        alike.setdefault((suite, details[call_id].row), []).append(call_id)
    names: dict[tuple[str, str], str] = {}
    for (suite, row), calls in alike.items():
        # The list's own order is that of the last change. Sorting keeps it where no start is known.
        calls.sort(key=lambda call_id: (_started(details[call_id]), call_id))
        for number, call_id in enumerate(calls, 1):
            name = row if row and number == 1 else f"{row or suite or 'call'} #{number}"
            names[suite, call_id] = name
    return tuple(
        replace(case, name=names[case.suite, case.name], as_it_came=None) if (case.suite, case.name) in names else case
        for case in cases
    )


def _started(call: CallDetails) -> float:
    return math.inf if call.started_at is None else call.started_at.timestamp()


def last_end(details: Mapping[str, CallDetails]) -> datetime | None:
    """When the last of the calls ended, as far as the platform tells their starts and durations."""
    ends = []
    for call in details.values():
        if call.started_at is not None and call.duration is not None:
            with suppress(OverflowError):
                ends.append(call.started_at + timedelta(seconds=call.duration))
    return max(ends, default=None)


def recordings_of(call: Mapping[str, Any]) -> dict[str, str]:
    """The addresses of a call's recordings, by what is on them (``combined``, ``assistant``, ``customer``,
    ``stereo``), from its details."""
    shown = call.get("recordings")
    found = dict(shown) if isinstance(shown, Mapping) else {}
    if not found and call.get("audio_url"):
        found = {"combined": call["audio_url"]}
    return {
        name: url
        for name, url in found.items()
        if isinstance(name, str) and is_id(name) and isinstance(url, str) and url and len(url) <= limits.VERBATIM
    }


def averages(analytics: Mapping[str, Any]) -> dict[str, float]:
    """The averages of an execution's analytics, by the evaluation's name in lower case."""
    shown = analytics.get("eval_averages")
    if not isinstance(shown, Mapping):
        return {}
    fields = Fields(shown, "the analytics' eval_averages")
    found = {
        name[4:].casefold(): fields.unless_unreadable(lambda name=name: fields.optional_number(name))  # type: ignore[misc]
        for name in shown
        if isinstance(name, str) and name.startswith("avg_")
    }
    return {name: fraction(value) for name, value in found.items() if value is not None}


def evaluation_names(run_test: Mapping[str, Any]) -> set[str] | None:
    """The names of a run test's evaluations, from its details; ``None`` when they do not tell."""
    lists = [run_test[name] for name in _EVALUATIONS if isinstance(run_test.get(name), list)]
    if not lists:
        return None
    found = [row.get("name") for rows in lists for row in rows if isinstance(row, Mapping)]
    return {name for name in found if isinstance(name, str) and name}


def summary_names(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names in an evaluation summary: of the evaluations as they are set up, and of their templates."""
    found = [row.get("name") for row in rows]
    for row in rows:
        found += [item.get("name") for item in row.get("result") or () if isinstance(item, Mapping)]
    return {name for name in found if isinstance(name, str) and name}


def rerun(response: Response) -> Rerun:
    """What a rerun has come to. With the workflow service down it is a 200, too."""
    fields = Fields(response.json(), "the response to the rerun")
    failed = [
        f"{row.optional_text('call_execution_id')}: {row.optional_text('error')}"
        for row in fields.children("failed_reruns")
    ]
    error = fields.optional_text("dispatch_error") or ""
    return Rerun(dict(fields.raw), fields.integer("success_count"), tuple(failed), error)


def transcripts(response: Response) -> list[dict[str, Any]]:
    """The calls of an execution with their transcripts; the response has them all."""
    fields = Fields(response.json(), "the transcripts")
    if fields.get("calls") is None:
        raise InvalidReplyError("the transcripts: field 'calls' is missing")
    return [dict(row.raw) for row in fields.children("calls")]


def eval_summary(response: Response) -> Any:
    """The evaluation summary as the API has it, for :func:`metrics_of`.

    :raises InvalidReplyError: when that could not read it.
    """
    summary = unwrapped(response, "the evaluation summary")
    metrics_of(summary, "the evaluation summary's result")
    return summary


def metrics_of(summary: Any, where: str, evaluations: Evaluations | None = None) -> dict[str, Metric]:
    """The metrics of an execution, by the evaluation's name: its calls' own outputs, else the platform's summary.

    Nothing scored is a value of 0 on the wire and ``None`` here. A share of one choice is under ``name=choice``. Of
    two evaluations with the same name the lower one counts, so that no gate is passed by the other.

    :param summary: as :func:`eval_summary` gives it; ``None`` where it is not available.
    :param where: its place in the response, for messages.
    :param evaluations: of the execution's calls.
    :raises InvalidReplyError: when the summary is not as documented.
    """
    found: dict[str, Metric] = {}
    own = {} if evaluations is None else {key.lower(): tally for key, tally in evaluations.by_id.items()}

    def add(name: str, metric: Metric) -> None:
        known = found.get(name)
        if known is None or (known.value is not None and (metric.value is None or metric.value < known.value)):
            found[name] = metric
        if len(found) > limits.METRICS:
            raise InvalidReplyError(f"{where} has more than {limits.METRICS:,} evaluations, choices included")

    templates = [] if summary is None else objects(summary, where)
    listed: set[str] = set()
    for template in templates:
        # The API schema has the figures here, the product in a list: an evaluation can be set up several times.
        configured = template.children("result") or [template]
        tallies = []
        for config in configured:
            listed.add(str(config.get("id")).lower())
            tally = own.get(str(config.get("id")).lower())
            if tally is not None and tally.scored:
                tallies.append(tally)
                for name, metric in tally.metrics():
                    add(config.required("name") + name.removeprefix(tally.name), metric)
            else:
                _add_config(config, template, alone=len(configured) == 1, add=add)
        _add_template(template, configured, tallies, found)
    for key, tally in own.items():
        seen = tally.name in found or any(name.startswith(f"{tally.name}=") for name in found)
        if key not in listed and (tally.scored or not seen):
            for name, metric in tally.metrics():
                add(name, metric)
    return found


def unlisted(summary: Any, where: str, evaluations: Evaluations) -> dict[str, str]:
    """The evaluations that calls were given and the platform's summary does not have, by their keys: their names as
    ``kpis`` spells them. They are of evaluations that were deleted, or never set up."""
    configured = [
        str(config.get("id")).lower()
        for template in objects(summary, where)
        for config in template.children("result") or [template]
    ]
    return {
        key: tally.name.lower().replace(" ", "_")
        for key, tally in evaluations.by_id.items()
        if tally.scored and key.lower() not in configured
    }


def _add_config(config: Fields, template: Fields, *, alone: bool, add: Callable[[str, Metric], None]) -> None:
    """One evaluation of the platform's summary."""
    scored = config.integer("total_cells")
    name = config.required("name")
    if scored == 0:
        add(name, Metric(None, 0))
        return
    rate = _rate(config, template)
    if rate is None and alone:
        rate = _percentage(template, "total_pass_rate", "total_avg")
        if rate == 0.0 and config.get("output") == {}:
            # Of outputs that are objects the summary makes nothing, and says 0.
            rate = None
    if rate is not None:
        add(name, Metric(rate, scored))
    elif _is_choices(template):
        for choice, share in _shares(config):
            add(f"{name}={choice}", Metric(share, scored))
    elif template.verbatim("output_type") == "score":
        add(name, Metric(None, scored))


def _add_template(
    template: Fields, configured: Sequence[Fields], tallies: Sequence[Tally], found: dict[str, Metric]
) -> None:
    """All evaluations of one template together, under its own name, unless one of them is called so."""
    name = template.required("name")
    if name in found or not template.children("result"):
        return
    if tallies:
        values = [(tally.value, tally.scored) for tally in tallies]
        if len(tallies) == len(configured) and all(value is not None for value, _ in values):
            scored = sum(count for _, count in values)
            found[name] = Metric(
                fraction(sum((value or 0.0) * count for value, count in values) * 100 / scored), scored
            )
        return
    total = _percentage(template, "total_pass_rate", "total_avg")
    scored = sum(config.integer("total_cells") for config in configured)
    if total is not None and scored and all(_rate(config, template) is not None for config in configured):
        found[name] = Metric(total, scored)


def _rate(config: Fields, template: Fields) -> float | None:
    average = _percentage(config, "avg_score")
    if average is not None or _is_choices(template):
        return average
    output = config.child("output")
    return _percentage(output, "pass") if output is not None else None


def _is_choices(template: Fields) -> bool:
    kind = template.verbatim("output_type")
    return kind.casefold() == "choices" if kind else template.get("total_choices_avg") is not None


def _shares(config: Fields) -> Iterator[tuple[str, float]]:
    """The share of each choice; of several that were made together, that of each of them."""
    output = config.child("output")
    if output is None:
        return
    shares: dict[str, float] = {}
    for key in output.raw:
        share = Fields({"share": output.raw[key]}, f"{output.where}.{key}").optional_number("share")
        for choice in _made(str(key)) if share is not None else ():
            shares[choice] = shares.get(choice, 0.0) + (share or 0.0)
    for choice, share in shares.items():
        yield choice, fraction(share)


def _made(key: str) -> list[str]:
    """The choices of a key; the product writes what an evaluation gave as a string: ``"['No']"``."""
    # The parser of Python takes hundreds of bytes of memory for each of these.
    if key.startswith(("[", "{")) and len(key) <= limits.NAME:
        try:
            given = ast.literal_eval(key)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [key]
        return choices_of(given) or [key]
    return [key]


def _percentage(fields: Fields, *names: str) -> float | None:
    number = fields.optional_number(*names)
    return None if number is None else fraction(number)


def _progress(done: int, total: int) -> Progress | None:
    return Progress(min(done, total), total) if total else None


def _state(raw: str) -> tuple[RunState, Verdict | None, bool]:
    known = _STATES.get(raw.strip().casefold())
    return (*known, True) if known is not None else (RunState.RUNNING, None, False)


def _id(fields: Fields, name: str) -> str:
    text = fields.required(name)
    if not UUID.fullmatch(text):
        raise InvalidReplyError(f"{fields.where}: field {name!r} should be a UUID, and is {clean(text, 60)!r}")
    return text.lower()
