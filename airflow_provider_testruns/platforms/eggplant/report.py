"""What a finished run of Eggplant DAI amounts to: its word, and the results of its tests where the server has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError
from airflow_provider_testruns.model import CaseResult, CaseTexts, Counts, Kind, Outcome, Run, RunReport, Verdict
from airflow_provider_testruns.platforms.eggplant.configurations import DECLINING, result_of, results_of
from airflow_provider_testruns.platforms.eggplant.endpoints import PAGE, RESULTS, RUNS, log_call, pages
from airflow_provider_testruns.platforms.eggplant.responses import (
    Page,
    case_of,
    error_of,
    error_text,
    is_full,
    is_web_page,
    listed,
    optional_page,
    start_of,
)
from airflow_provider_testruns.platforms.reading import Fields
from airflow_provider_testruns.steps import Call, Response, Steps, ask, optional, path, pause

T = TypeVar("T")

#: Of how many tests that did not pass the log is read for the reason.
_EXPLAINED = 20

#: What a run of a model is among the runs of the model. One that was cancelled did not pass: it may not look like a
#: test that did not have to run.
_PART_OUTCOMES: Mapping[Verdict | None, Outcome] = {Verdict.PASSED: Outcome.PASSED, Verdict.FAILED: Outcome.FAILED}


@dataclass(frozen=True, slots=True)
class _Made(Generic[T]):
    """What is kept of a page.

    :param rows: of each of its rows.
    :param total: how many there are on all pages.
    :param first: the first row as it came.
    :param cost: is not counted: what is kept is little.
    """

    rows: list[T]
    total: int
    first: Any = None
    cost: int = 0

    def may_continue(self, asked: int) -> bool:
        """As :meth:`.Page.may_continue`."""
        return is_full(len(self.rows), self.total, asked)


#: What names the commit that was tested, in the log of a suite that DAI has from Git.
_COMMIT = re.compile(r"Using Git commit SHA: '([0-9a-f]{40})'")


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of one test.

    :param id: of the result, or the number of the run in GET /ai/runs that it is.
    :param case: what it means.
    :param at: when it began.
    """

    id: str
    case: CaseResult
    at: datetime | None = None


_Results = list[_Result]


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What a server keeps of a run that files can be made of.

    :param config_result_id: the result of a test configuration, which has a JUnit file.
    :param test_result_ids: the results of single tests, which have logs and screenshots.
    :param failed_result_ids: those of them that did not pass.
    :param run_number: the run in GET /ai/runs, which has a log; asked for where there are no results of single tests.
    """

    config_result_id: str | None = None
    test_result_ids: tuple[str, ...] = ()
    failed_result_ids: tuple[str, ...] = ()
    run_number: str | None = None


def report_of(run: Run, size: int = PAGE) -> Steps[RunReport]:
    """The results of a final run.

    Servers from 7.5 on have results of single tests ("API V2 Endpoints"): they are the cases. On older ones, and where
    the results can't be determined to be this run's, the run itself counts as one case, and no cases are listed.

    :param run: in its last state.
    :param size: how many rows of a list are asked for at once.
    """
    if run.kind is Kind.MODEL:
        return _report_of_model(run)
    results = yield from _results_of(run, size)
    if results:
        results, commit = yield from _explained(results)
        cases = tuple(result.case for result in _last_tries(run, results))
        return RunReport(run, Counts.of(cases), cases, commit=commit)
    if run.platform_verdict is Verdict.PASSED:
        return RunReport(run, Counts(passed=1))
    return RunReport(run, Counts(failed=1) if run.platform_verdict is Verdict.FAILED else None)


def kept_of(run: Run, size: int = PAGE) -> Steps[Artifacts]:
    """What the server keeps of a final run: nothing where it has no such calls, or can't tell what is this run's.

    :param run: in its last state.
    :param size: how many rows of a list are asked for at once.
    """
    config_result_id = run.ids.get("test_config_result_id")

    def read(row: Fields) -> tuple[str, bool]:
        try:
            case = case_of(row)
        except InvalidReplyError:
            # Files can be made of it all the same.
            case = None
        return row.identifier("id"), case is not None and case.outcome in (Outcome.FAILED, Outcome.UNAVAILABLE)

    results = yield from _result_rows(run, config_result_id, read, size)
    return Artifacts(
        config_result_id,
        tuple(result_id for result_id, _ in results),
        tuple(result_id for result_id, failed in results if failed),
        None if results else run_number_of(run),
    )


def _report_of_model(run: Run) -> RunReport:
    """Each run of the model is a case."""
    cases = tuple(
        CaseResult(
            part.run_id,
            _PART_OUTCOMES.get(part.platform_verdict, Outcome.UNAVAILABLE),
            duration=RunReport(part).duration,
            message="" if part.platform_verdict is Verdict.PASSED else part.message or part.raw_state,
            suite=run.run_id,
        )
        for part in run.parts
    )
    return RunReport(run, Counts.of(cases), cases)


def _results_of(run: Run, size: int) -> Steps[_Results]:
    config_result_id = run.ids.get("test_config_result_id")
    again = timing.UNSETTLED_TRIES
    while True:
        results = yield from _result_rows(run, config_result_id, partial(_result, texts=CaseTexts()), size)
        settled = [result for result in results if result is not None]
        if len(settled) == len(results):
            return settled
        if not again:
            # The run counts by its own status then, unless that would hide a test that did not pass.
            return settled if any(one.case.outcome is not Outcome.PASSED for one in settled) else []
        again -= 1
        yield from pause(timing.UNSETTLED_PAUSE)


def _result(row: Fields, texts: CaseTexts) -> _Result | None:
    """A row of a list of results; ``None`` while the server has not settled it."""
    case = case_of(row)
    return None if case is None else _Result(row.identifier("id"), texts.bounded(case), start_of(row))


def _last_tries(run: Run, results: _Results) -> _Results:
    """The results that count: where the platform passes a run in which a test was run again, the last try of each.

    DAI counts a test configuration as passed when each test has passed in the end (7.5 and later).
    """
    if run.kind is not Kind.TEST_CONFIGURATION or run.platform_verdict is not Verdict.PASSED:
        return results
    tries: dict[tuple[str, str], _Results] = {}
    for result in results:
        tries.setdefault((result.case.suite, result.case.name), []).append(result)
    return [_last_try(of_one) for of_one in tries.values()]


def _last_try(tries: _Results) -> _Result:
    """One test's last try, with those before it."""
    if len(tries) == 1:
        return tries[0]
    if any(one.at is None for one in tries) or len({one.at for one in tries}) < len(tries):
        # Which was the last can't be determined. The platform passes the run, so a try that passed was.
        ordered = sorted(tries, key=lambda one: one.case.outcome is Outcome.PASSED)
    else:
        ordered = sorted(tries, key=lambda one: one.at or datetime.min)
    *earlier, last = ordered
    return replace(last, case=replace(last.case, earlier=tuple(one.case for one in earlier)))


def _result_rows(run: Run, config_result_id: str | None, make: Callable[[Fields], T], size: int) -> Steps[list[T]]:
    what = f"get the results of run {run.run_id}"
    if config_result_id is not None:
        filters = {"test_config_result_id": config_result_id}
        mine = partial(_carries, "test_config_result_id", config_result_id, True)
        rows = yield from _optional_rows(what, RESULTS, filters, mine, make, size)
        return rows or (yield from _children(run, make, size))
    if run.kind is Kind.TEST_CONFIGURATION:
        return (yield from _children(run, make, size))
    number = run_number_of(run)
    if number is not None:
        # Public clients have found that a run's number is the id of its result.
        return (yield from _numbered_result(number, make))
    # No public document names this filter. A server that does not know it gives everybody's results: only those that
    # say whose they are can be taken.
    filters = {"execution_id": run.run_id}
    mine = partial(_carries, "execution_id", run.run_id, False)
    return (yield from _optional_rows(what, RESULTS, filters, mine, make, size))


def run_number_of(run: Run) -> str | None:
    """The number of a run in GET /ai/runs, where it is known."""
    if run.kind is not Kind.RUN:
        return None
    number = run.ids.get("run_number") or run.run_id
    return number if number.isascii() and number.isdecimal() else None


def _numbered_result(number: str, make: Callable[[Fields], T]) -> Steps[list[T]]:
    def read(response: Response) -> list[T]:
        if is_web_page(response):
            return []
        row = Fields(response.json(), "the response")
        return [make(row)] if _carries("id", number, False, row) else []

    target = path(RESULTS + "/{number}", number=number)
    call = Call(f"get the result of run {number}", "GET", target, read)
    return (yield from optional(ask(call), statuses=DECLINING)) or []


def _children(run: Run, make: Callable[[Fields], T], size: int) -> Steps[list[T]]:
    """The runs that a test configuration has started, from GET /ai/runs; none where they can't be determined from
    others.

    The filter is one of public clients. A server that ignores it lists all runs: the list is taken only where the rows
    name the task, or where it is shorter than the whole.
    """
    if run.ids.get("result_only"):
        return []
    filters = {"task_instance_id": run.run_id}
    what = f"list the runs of test configuration run {run.run_id}"
    mine = partial(_carries, "task_instance_id", run.run_id, True)

    def named(row: Fields) -> tuple[bool, T]:
        return _carries("task_instance_id", run.run_id, False, row), make(row)

    found = yield from _optional_rows(what, RUNS, filters, mine, named, size)
    rows = [row for _, row in found]
    if all(names_task for names_task, _ in found):
        return rows
    call = Call("list runs", "GET", RUNS, partial(optional_page, where="the response"), query={"limit": 1})
    whole: Page | None = yield from optional(ask(call), statuses=DECLINING)
    return rows if whole is not None and len(rows) < whole.total else []


def configuration_result_id(run: Run, size: int) -> Steps[str | None]:
    """The id of the result of a test configuration's run, where it can be told.

    :param run: in its last state.
    """
    known = run.ids.get("test_config_result_id")
    if known or not run.ids.get("test_config_id"):
        return known or None
    rows = yield from results_of(run.ids["test_config_id"], size)
    try:
        row = result_of(run.run_id, rows or [], run.ids)
    except InvalidReplyError:
        # The run has ended by its own word; only its tests can't be determined from those of others.
        return None
    return None if row is None else row.identifier("id")


def _carries(name: str, wanted: str, without: bool, row: Fields) -> bool:
    """Whether a field of a row is an id, also as a number; ``without`` where the row has no such field."""
    shown = row.get(name)
    if shown is None:
        return without
    return isinstance(shown, str | int) and not isinstance(shown, bool) and str(shown).casefold() == wanted.casefold()


def _explained(results: _Results) -> Steps[tuple[_Results, str]]:
    """The same, with the reason of what did not pass, from its log, where the result has none; and the Git commit that
    was tested, where a log names it.

    Both are for reading only: no trouble with a log costs the report, and what is wrong with one will be with the next.
    """
    out = list(results)
    not_passed = (Outcome.FAILED, Outcome.UNAVAILABLE)
    silent = [at for at, one in enumerate(out) if one.case.outcome in not_passed and not one.case.message]
    commit = ""
    try:
        if not silent and out:
            page = yield from ask(log_call(out[0].id, PAGE, 0))
            commit = _commit_in(page.rows)
        for at in silent[:_EXPLAINED]:
            first, last = yield from _ends_of_log(out[at].id)
            commit = commit or _commit_in(first)
            out[at] = replace(out[at], case=replace(out[at].case, message=error_of(last)))
    except ApiError:
        return out, commit
    return out, commit


def _ends_of_log(test_result_id: str) -> Steps[tuple[list[Fields], list[Fields]]]:
    """The first lines of a log, and the last."""
    page = yield from ask(log_call(test_result_id, PAGE, 0))
    first = page.rows
    if page.total > len(page.rows):
        page = yield from ask(log_call(test_result_id, PAGE, max(0, page.total - PAGE)))
    return first, page.rows


def _commit_in(lines: list[Fields]) -> str:
    for line in lines:
        message = line.get("message")
        found = _COMMIT.search(message) if isinstance(message, str) else None
        if found:
            return found[1]
    return ""


def _optional_rows(
    what: str,
    base: str,
    filters: Mapping[str, str],
    mine: Callable[[Fields], bool],
    make: Callable[[Fields], T],
    size: int,
) -> Steps[list[T]]:
    """The rows of a list that not every server has; none where it is missing, or has rows that are not ``mine``.

    :param make: what is kept of a row.
    :raises ApiError: also when it breaks off: what is not seen of a list that is there may be what failed.
    """
    there = False

    def read(response: Response) -> _Made[T] | None:
        nonlocal there
        # Row by row: of a server that knows no pages it is all of them.
        page = None if is_web_page(response) else listed(response, "the response", counted=False)
        if page is None or not all(mine(row) for row in page):
            return None
        there = there or bool(page.rows)
        first = next((row.raw for row in page), None)
        return _Made([make(row) for row in page], page.total, first)

    def page(limit: int, offset: int) -> Call[_Made[T] | None]:
        query: dict[str, str | int | None] = {**filters, "limit": limit, "offset": offset}
        return Call(what, "GET", base, read, query=query, error_text=error_text)

    def none(error: ApiError) -> list[T]:
        if there:
            raise error
        return []

    return (yield from optional(pages(page, None, size), none, statuses=DECLINING))
