"""What a finished run of Eggplant DAI amounts to: its word, and the results of its tests where the server has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError
from airflow_provider_testruns.model import CaseResult, Counts, Kind, Outcome, Run, RunReport, Verdict
from airflow_provider_testruns.platforms.call import Call, Reply, Steps, ask, pause
from airflow_provider_testruns.platforms.eggplant_calls import (
    CONFIG_RESULTS,
    PAGE,
    RESULTS,
    log_call,
    pages,
)
from airflow_provider_testruns.platforms.eggplant_replies import case_of, error_of, error_text, optional_page
from airflow_provider_testruns.platforms.reading import Fields

#: What a server answers where a call, or one of its filters, is missing.
_LACKING = (400, 403, 404, 405, 422, 501)
#: Of how many tests that did not pass the log is read for the reason.
_EXPLAINED = 20
#: How often, and after how many seconds, results that are not settled yet are read again.
_UNSETTLED = (2, 2.0)

#: What a run of a model is among the runs of the model. One that was cancelled did not pass: it may not look like a
#: test that did not have to run.
_PART_OUTCOMES: Mapping[Verdict | None, Outcome] = {Verdict.PASSED: Outcome.PASSED, Verdict.FAILED: Outcome.FAILED}

_Results = list[tuple[str, CaseResult]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Made(Generic[T]):
    """What is kept of a page.

    :param rows: of each of its rows.
    :param total: how many there are on all pages.
    :param cost: is not counted: what is kept is little.
    """

    rows: list[T]
    total: int
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a server keeps of a run that files can be made of.

    :param config_result_id: the result of a test configuration, which has a JUnit file.
    :param test_result_ids: the results of single tests, which have logs and screenshots.
    :param run_number: the run in GET /ai/runs, which has a log; asked for where there are no results of single tests.
    """

    config_result_id: str | None = None
    test_result_ids: tuple[str, ...] = ()
    run_number: str | None = None


def report_of(run: Run) -> Steps[RunReport]:
    """The results of a final run.

    Servers from 7.5 on have results of single tests ("API V2 Endpoints"): they are the cases. On older ones, and where
    the results can't be told to be this run's, the run itself counts as one case, and no cases are listed.

    :param run: in its last state.
    """
    if run.kind is Kind.MODEL:
        return _report_of_model(run)
    results = yield from _results_of(run)
    if results:
        cases = tuple(case for _, case in results)
        return RunReport(run, Counts.of(cases), cases)
    if run.ending is Verdict.PASSED:
        return RunReport(run, Counts(passed=1))
    return RunReport(run, Counts(failed=1) if run.ending is Verdict.FAILED else None)


def kept_of(run: Run) -> Steps[Kept]:
    """What the server keeps of a final run: nothing where it has no such calls, or can't tell what is this run's.

    :param run: in its last state.
    """
    config_result_id = None
    if run.kind is Kind.TEST_CONFIGURATION:
        config_result_id = yield from _configuration_result_id(run)
    ids = yield from _result_rows(run, config_result_id, lambda row: row.text("id"))
    return Kept(config_result_id, tuple(ids))


def _report_of_model(run: Run) -> RunReport:
    """Each run of the model is a case."""
    cases = tuple(
        CaseResult(
            part.run_id,
            _PART_OUTCOMES.get(part.ending, Outcome.UNAVAILABLE),
            duration=RunReport(part).duration,
            message="" if part.ending is Verdict.PASSED else part.message or part.raw_state,
            suite=run.run_id,
        )
        for part in run.parts
    )
    return RunReport(run, Counts.of(cases), cases)


def _results_of(run: Run) -> Steps[_Results]:
    config_result_id = None
    if run.kind is Kind.TEST_CONFIGURATION:
        config_result_id = yield from _configuration_result_id(run)
    again, gap = _UNSETTLED
    while True:
        results = yield from _result_rows(run, config_result_id, lambda row: (row.text("id"), case_of(row)))
        settled = [(result_id, case) for result_id, case in results if case is not None]
        if len(settled) == len(results):
            return (yield from _explained(settled))
        if not again:
            # The run counts by its own status then, unless that would hide a test that did not pass.
            return settled if any(case.outcome is not Outcome.PASSED for _, case in settled) else []
        again -= 1
        yield from pause(gap)


def _result_rows(run: Run, config_result_id: str | None, make: Callable[[Fields], T]) -> Steps[list[T]]:
    if config_result_id is not None:
        filters = {"test_config_result_id": config_result_id}
        mine = partial(_carries, "test_config_result_id", config_result_id, True)
    elif run.kind is Kind.TEST_CONFIGURATION:
        return []
    else:
        # No public document names this filter. A server that does not know it gives everybody's results: only those
        # that say whose they are can be taken.
        filters = {"execution_id": run.run_id}
        mine = partial(_carries, "execution_id", run.run_id, False)
    return (yield from _optional_rows(f"get the results of run {run.run_id}", RESULTS, filters, mine, make))


def _configuration_result_id(run: Run) -> Steps[str | None]:
    known = run.context.get("test_config_result_id")
    if known or not run.context.get("test_config_id"):
        return known or None
    filters = {"test_config_id": run.context["test_config_id"]}
    what = f"get the result of test configuration run {run.run_id}"
    rows = yield from _optional_rows(what, CONFIG_RESULTS, filters, lambda row: True, lambda row: row, most=PAGE)
    return next((row.text("id") for row in rows if _carries("task_instance_id", run.run_id, False, row)), None)


def _carries(name: str, wanted: str, without: bool, row: Fields) -> bool:
    """Whether a field of a row is an id; ``without`` where the row has no such field."""
    shown = row.get(name)
    if shown is None:
        return without
    return isinstance(shown, str) and shown.casefold() == wanted.casefold()


def _explained(results: _Results) -> Steps[_Results]:
    """The same, with the reason of what did not pass, from its log, where the result has none."""
    out = list(results)
    not_passed = (Outcome.FAILED, Outcome.UNAVAILABLE)
    silent = [at for at, (_, case) in enumerate(out) if case.outcome in not_passed and not case.message]
    for at in silent[:_EXPLAINED]:
        result_id, case = out[at]
        try:
            lines = yield from _last_lines(result_id)
        except ApiError:
            # Reasons are for reading only: what is wrong with one log will be with the next.
            break
        out[at] = (result_id, replace(case, message=error_of(lines)))
    return out


def _last_lines(test_result_id: str) -> Steps[list[Fields]]:
    page = yield from ask(log_call(test_result_id, PAGE, 0))
    if page.total > len(page.rows):
        page = yield from ask(log_call(test_result_id, PAGE, max(0, page.total - PAGE)))
    return page.rows


def _optional_rows(
    what: str,
    base: str,
    filters: Mapping[str, str],
    mine: Callable[[Fields], bool],
    make: Callable[[Fields], T],
    most: int | None = None,
) -> Steps[list[T]]:
    """The rows of a list that not every server has; none where it is missing, or has rows that are not ``mine``.

    :param make: what is kept of a row.
    :param most: so many of them; ``None`` for all.
    :raises ApiError: also when it breaks off: what is not seen of a list that is there may be what failed.
    """
    there = False

    def read(reply: Reply) -> _Made[T] | None:
        nonlocal there
        page = optional_page(reply, "the reply")
        if page is None or not all(mine(row) for row in page.rows):
            return None
        there = there or bool(page.rows)
        return _Made([make(row) for row in page.rows], page.total)

    def page(limit: int, offset: int) -> Call[_Made[T] | None]:
        query: dict[str, str | int | None] = {**filters, "limit": limit, "offset": offset}
        return Call(what, "GET", base, read, query=query, error_text=error_text)

    try:
        return (yield from pages(page, most))
    except ApiError as e:
        if there or e.status not in _LACKING or isinstance(e, InvalidReplyError):
            raise
        return []
