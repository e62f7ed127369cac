"""Eggplant DAI's lists and results: the calls that give what the API has, unwrapped, under its own field names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.arguments import positive
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.platforms.eggplant.responses import (
    Page,
    error_text,
    number_of,
    page_of,
    payload,
)
from airflow_provider_testruns.platforms.reading import Fields
from airflow_provider_testruns.steps import Call, Response, Steps, ask, no_value, optional, path

RUNS = "/ai/runs"
RESULTS = "/api/v2/test_results"
CONFIG_RESULTS = "/api/v2/test_config_results"

#: Rows of a page. No document names a limit; a server that gives fewer is followed.
PAGE = 100
_LOG_PAGE = 1000
#: How often the end of the list of runs is read before a server that gave shorter pages is asked for whole ones again.
_SIZE_KNOWN_FOR = 20
#: The most rows that are asked for by a limit, and that the list of runs is followed back to.
MOST_ROWS = 100_000


class EggplantCalls:
    """Calls that no run's life depends on. It remembers how long the list of runs is, which saves a call, and the
    highest number in it."""

    page_size: int = PAGE

    def __init__(self) -> None:
        self._runs_total = 0
        self._runs_page_size = PAGE
        #: For how many times more the size of a page is taken for the server's own.
        self._size_known_for = 0
        self._highest_number: int | None = None

    def list_runs(self, limit: int = PAGE) -> Steps[list[dict[str, Any]]]:
        """The newest runs of all models, newest first, as the API has them (GET /ai/runs, "Eggplant DAI Model
        Execution Endpoints"): ``id`` (a whole number), ``modelname``, ``runtype``, ``testcase``, ``teststatus``,
        ``starttime``, ``endtime``. The server lists the oldest first: the last pages are read.

        :param limit: at most so many.
        """
        limit = positive("limit", limit)
        rows = yield from self._runs_backwards(lambda rows: len(rows) >= limit)
        return [dict(row.raw) for row in rows[:limit]]

    def get_run_details(self, run_id: str | int) -> Steps[dict[str, Any]]:
        """One run of :meth:`list_runs` (GET /ai/runs/{id}, public clients), as the API has it.

        :param run_id: its ``id`` there.
        """
        return (yield from _payload(f"get run {run_id}", path("/ai/runs/{run_id}", run_id=run_id)))

    def get_run_logs(self, run_id: str | int) -> Steps[Any]:
        """The log of a run of :meth:`list_runs` (GET /ai/runlogs/{run_id}, public clients), as the API has it.

        :param run_id: its ``id`` there.
        """
        target = path("/ai/runlogs/{run_id}", run_id=run_id)
        call = Call(f"get the log of run {run_id}", "GET", target, Response.json, error_text=error_text)
        return (yield from ask(call))

    def list_models(self) -> Steps[list[dict[str, Any]]]:
        """The models (GET /ai/models, public clients), as the API has them: ``id``, ``name``, ``modeluuid``."""
        models = yield from self.models()
        return [dict(model.raw) for model in models]

    def list_agents(self) -> Steps[list[dict[str, Any]]]:
        """The agents, as the API has them (GET /ai/agents; POST, as "Eggplant DAI Model Execution Endpoints" has it,
        only where GET is not allowed: on the servers that public clients talk to, a POST makes a new agent)."""
        agents = yield from self.agents()
        return [dict(agent.raw) for agent in agents]

    def get_test_configuration_task(self, task_instance_id: str) -> Steps[dict[str, Any]]:
        """One run of a test configuration (GET /ai/testconfigtasks/{id}, public clients), as the API has it; its
        status is ``runstatus``.

        :param task_instance_id: the ``run_id`` of :meth:`.EggplantHook.start_test_configuration`.
        """
        task: dict[str, Any] = yield from ask(self._task_call(task_instance_id, payload))
        return task

    def list_test_results(self, limit: int = PAGE, **filters: str | int) -> Steps[list[dict[str, Any]]]:
        """Results of single tests (GET /api/v2/test_results, "API V2 Endpoints", DAI 7.5 and later), as the API has
        them.

        :param limit: at most so many.
        :param filters: of the API, such as ``test_config_result_id``; sent as they are.
        """
        return (yield from _listed("list test results", RESULTS, limit, filters, self.page_size))

    def get_test_result(self, test_result_id: str) -> Steps[dict[str, Any]]:
        """The result of a single test (GET /api/v2/test_results/{id}, "API V2 Endpoints", DAI 7.5 and later).

        :param test_result_id: the ``id`` of one of :meth:`list_test_results`.
        """
        target = path(RESULTS + "/{test_result_id}", test_result_id=test_result_id)
        return (yield from _payload(f"get test result {test_result_id}", target))

    def get_test_result_logs(self, test_result_id: str, limit: int | None = None) -> Steps[list[dict[str, Any]]]:
        """The log of a single test (GET /api/v2/test_results/{id}/logs, "API V2 Endpoints", DAI 7.5 and later), as the
        API has it: ``eventtime``, ``severity``, ``message``, ``message_type``, ``image_id`` and more.

        :param test_result_id: the ``id`` of one of :meth:`list_test_results`.
        :param limit: at most so many lines; ``None`` for all.
        """
        most = None if limit is None else positive("limit", limit)
        rows = yield from pages(partial(log_call, test_result_id), most, size=_LOG_PAGE)
        return [dict(row.raw) for row in rows]

    def list_screenshots(self, test_result_id: str, limit: int = PAGE) -> Steps[list[dict[str, Any]]]:
        """The screenshots of a single test (GET /api/v2/test_results/{id}/screenshots, "API V2 Endpoints", DAI 7.5 and
        later), as the API has them.

        :param test_result_id: the ``id`` of one of :meth:`list_test_results`.
        :param limit: at most so many.
        """
        target = path(RESULTS + "/{test_result_id}/screenshots", test_result_id=test_result_id)
        return (
            yield from _listed(
                f"list the screenshots of test result {test_result_id}", target, limit, {}, self.page_size
            )
        )

    def screenshot(self, screenshot_id: str, save_to: Path) -> Call[None]:
        """The call that saves a screenshot (GET /api/v2/screenshots/{id}, "API V2 Endpoints", 7.5 and later).

        :param screenshot_id: the id of one of :meth:`list_screenshots`.
        :param save_to: a local file.
        """
        return Call(
            f"download screenshot {screenshot_id}",
            "GET",
            path("/api/v2/screenshots/{screenshot_id}", screenshot_id=screenshot_id),
            no_value,
            save_to=save_to,
            error_text=error_text,
            headers={"Accept": "*/*"},
        )

    def list_test_configuration_results(self, limit: int = PAGE, **filters: str | int) -> Steps[list[dict[str, Any]]]:
        """Results of test configurations (GET /api/v2/test_config_results, "API V2 Endpoints", DAI 7.5 and later), as
        the API has them.

        :param limit: at most so many.
        :param filters: of the API, such as ``test_config_id``; sent as they are.
        """
        return (yield from _listed("list test configuration results", CONFIG_RESULTS, limit, filters, self.page_size))

    def get_test_configuration_result(self, test_config_result_id: str) -> Steps[dict[str, Any]]:
        """The result of a test configuration (GET /api/v2/test_config_results/{id}, "API V2 Endpoints", DAI 7.5 and
        later), as the API has it.

        :param test_config_result_id: the ``id`` of one of :meth:`list_test_configuration_results`.
        """
        target = path(CONFIG_RESULTS + "/{result_id}", result_id=test_config_result_id)
        return (yield from _payload(f"get test configuration result {test_config_result_id}", target))

    def get_junit(self, test_config_result_id: str) -> Steps[str]:
        """The result of a test configuration as JUnit XML (GET /api/v2/test_config_results/{id}/junit, "API V2
        Endpoints", 7.5 and later).

        :param test_config_result_id: the id of one of :meth:`list_test_configuration_results`.
        """
        target = path(CONFIG_RESULTS + "/{result_id}/junit", result_id=test_config_result_id)
        what = f"get the JUnit file of test configuration result {test_config_result_id}"
        headers = {"Accept": "application/xml, */*"}
        return (yield from ask(Call(what, "GET", target, _read_xml, error_text=error_text, headers=headers)))

    def models(self) -> Steps[list[Fields]]:
        """As :meth:`list_models`, to be read by field."""
        return (yield from unpaged("list the models", "/ai/models"))

    def agents(self) -> Steps[list[Fields]]:
        """As :meth:`list_agents`, to be read by field."""
        rows = yield from optional(unpaged("list the agents", "/ai/agents"), statuses={405})
        if rows is None:
            read = partial(page_of, where="the response", counted=False)
            call = Call("list the agents", "POST", "/ai/agents", read, idempotent=False, error_text=error_text)
            rows = (yield from ask(call)).rows
        return rows

    def _task_call(self, task_instance_id: str, read: Callable[[Response], Any]) -> Call[Any]:
        target = path("/ai/testconfigtasks/{task_instance_id}", task_instance_id=task_instance_id)
        return Call(f"get test configuration run {task_instance_id}", "GET", target, read, error_text=error_text)

    def _runs_backwards(self, enough: Callable[[list[Fields]], bool]) -> Steps[list[Fields]]:
        """Rows of GET /ai/runs, newest first: page by page from the end of the list until ``enough`` of them, which is
        asked with the rows in the order of the list."""
        offset, rows = yield from self._last_runs_page()
        pages, cost = 0, 0
        while rows and offset and not enough(rows) and len(rows) < MOST_ROWS:
            start = max(0, offset - self._runs_page_size)
            page = yield from ask(_runs_call(offset - start, start))
            if not page.rows:
                break
            rows, offset = page.rows[: offset - start] + rows, start
            pages, cost = pages + 1, cost + page.cost
            if pages >= limits.PAGES or cost > limits.RAW_ROWS:
                raise InvalidReplyError(f"the list of runs is too large to be read: {len(rows):,} rows were")
        return rows[::-1]

    def _last_runs_page(self) -> Steps[tuple[int, list[Fields]]]:
        """The end of the list and where it begins. What is known of its length from before saves a call."""
        # One page that was short for once must not mean short ones, and many requests, for good.
        self._size_known_for -= 1
        if self._size_known_for < 0:
            self._runs_page_size = self.page_size
        size = self._runs_page_size
        # Half of the page is left for what is new.
        offset = max(0, self._runs_total - max(1, size // 2))
        page = yield from self._runs_page(size, offset)
        if offset and not page.rows:
            offset = 0
            page = yield from self._runs_page(size, 0)
        jumps = True
        for _ in range(limits.PAGES):
            got = len(page.rows)
            end = offset + got
            if not got or got > size:
                # There are none, or all are there, whatever was asked for.
                self._runs_total = got
                return 0, page.rows
            if end >= page.total and not page.may_continue(size):
                break
            # The count is not sure: some servers count what the client may not see, or the page alone.
            ahead = max(end, page.total - max(1, size // 2)) if jumps else end
            following = yield from self._runs_page(size, ahead)
            if ahead > end and not following.rows:
                jumps, ahead = False, end
                following = yield from self._runs_page(size, end)
            if not following.rows or (following.first == page.first and end >= page.total):
                break
            if following.first == page.first:
                raise InvalidReplyError(
                    f"the list of runs is too large to be read: it has {page.total:,} rows by its own count and shows"
                    f" {got:,}, whichever are asked for"
                )
            if got < size:
                # The server's own limit is lower.
                self._runs_page_size = size = got
                self._size_known_for = _SIZE_KNOWN_FOR
            offset, page = ahead, following
        else:
            raise InvalidReplyError(f"the list of runs has no end: {limits.PAGES} pages were read, and there are more")
        self._runs_total = end
        return offset, page.rows

    def _runs_page(self, limit: int, offset: int) -> Steps[Page]:
        highest = 0

        def read(response: Response) -> Page:
            nonlocal highest
            page = page_of(response, "the response", counted=False)
            # Here, where a long page does not hold up the triggerer's event loop.
            highest = max((number_of(row) or 0 for row in page.rows), default=0)
            return page

        page: Page = yield from ask(_runs_call(limit, offset).with_reader(read))
        self._highest_number = max(self._highest_number or 0, highest)
        return page


def pages(page: Callable[[int, int], Call[Any]], most: int | None, size: int = PAGE) -> Steps[list[Any]]:
    """The rows of a list, page by page.

    :param page: the call for a page, by how many rows it may have and how many come before it; gives a :class:`Page`.
    :param most: so many of them; ``None`` for all.
    :param size: how many are asked for at once.
    :raises InvalidReplyError: when there are more than can be read. A part of a list must not pass for all of it.
    """
    rows: list[Any] = []
    enough = limits.ROWS if most is None else most
    total, cost = 0, 0
    before: Page | None = None
    for _ in range(limits.PAGES):
        asked = min(size, enough - len(rows))
        got: Page | None = yield from ask(page(asked, len(rows)))
        if got is None or (before is not None and got.first == before.first):
            # The second: a server that gives the same whatever is asked for.
            return rows
        rows += got.rows
        before = got if got.may_continue(asked) and len(rows) < enough else None
        if before is not None:
            continue
        if not got.rows or len(rows) >= min(got.total, enough):
            if most is None and got.rows and len(rows) < got.total:
                total = got.total
                break
            return rows[:enough]
        total, cost = got.total, cost + got.cost
        if cost > limits.RAW_ROWS:
            break
    raise InvalidReplyError(
        f"the list is too large to be read: {len(rows):,} rows were, and it has {total:,} by its own count"
    )


def log_call(result_id: str, limit: int, offset: int) -> Call[Page]:
    """One page of the log of a single test."""
    return Call(
        f"get the log of test result {result_id}",
        "GET",
        path(RESULTS + "/{result_id}/logs", result_id=result_id),
        partial(page_of, where="the response", counted=False),
        query={"limit": limit, "offset": offset},
        error_text=error_text,
    )


def _payload(what: str, target: str) -> Steps[dict[str, Any]]:
    return (yield from ask(Call(what, "GET", target, payload, error_text=error_text)))


def _listed(
    what: str, base: str, limit: int, filters: Mapping[str, str | int], size: int
) -> Steps[list[dict[str, Any]]]:
    def page(limit: int, offset: int) -> Call[Page]:
        query: dict[str, str | int | None] = {**filters, "limit": limit, "offset": offset}
        read = partial(page_of, where="the response", counted=False)
        return Call(what, "GET", base, read, query=query, error_text=error_text)

    rows = yield from pages(page, positive("limit", limit), size)
    return [dict(row.raw) for row in rows]


def unpaged(what: str, base: str) -> Steps[list[Fields]]:
    """All rows of a list that some servers give whole and others in pages."""

    def page(limit: int, offset: int) -> Call[Page]:
        query = {"limit": limit, "offset": offset} if offset else {}
        read = partial(page_of, where="the response", counted=False)
        return Call(what, "GET", base, read, query=query, error_text=error_text)

    return (yield from pages(page, None))


def _runs_call(limit: int, offset: int) -> Call[Page]:
    read = partial(page_of, where="the response", counted=False)
    query = {"limit": limit, "offset": offset}
    return Call("list runs", "GET", RUNS, read, query=query, error_text=error_text)


def _read_xml(response: Response) -> str:
    if len(response.body) > limits.TEXT_BODY:
        raise InvalidReplyError(
            f"the file is larger than {limits.TEXT_BODY:,} bytes, which is the limit",
            status=response.status,
        )
    try:
        text = response.body.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InvalidReplyError("the response is not UTF-8", status=response.status) from e
    start = text[:1000].lstrip()[:9].casefold()
    if not start.startswith("<") or start.startswith(("<html", "<!doctype")):
        raise InvalidReplyError("the response is not XML", status=response.status)
    return text
