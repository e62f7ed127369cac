"""Runs of test configurations of Eggplant DAI: which of their results are new since a start.

What starts one answers with the id of a task instance, and on some servers no call shows that task. The results of a
test configuration (GET /api/v2/test_config_results, "API V2 Endpoints", DAI 7.5 and later) are then the only sign of
it. They don't show which task they are of, so those that were there before the start are remembered. DAI runs one
instance of a test configuration at a time: the one new result is the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256

from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.platforms.eggplant.endpoints import CONFIG_RESULTS, pages
from airflow_provider_testruns.platforms.eggplant.responses import Page, began_before, error_text, optional_page
from airflow_provider_testruns.platforms.reading import Fields
from airflow_provider_testruns.steps import LACKING, Call, Response, Steps, optional

#: What a server answers where a call, or one of its filters, is missing.
DECLINING = LACKING | {400, 403, 422}
#: How the fields of a result's start are spelled.
_START_FIELDS = ("start_time", "starttime", "started_at")
#: Characters of a digest of a result's id, and how many digests are kept: the metadata database stores them.
_DIGEST = 8
_MOST_KNOWN = 400
#: How far the start of a result may be from the answer to the start call, to prefer it to another new one.
_NEAR = timedelta(minutes=2)


def results_of(test_config_id: str, size: int) -> Steps[list[Fields] | None]:
    """All results of a test configuration, in no particular order; ``None`` where the server has no such call.

    :param test_config_id: the test configuration.
    :param size: how many rows are asked for at once.
    """

    missing = False

    def read(response: Response) -> Page | None:
        nonlocal missing
        page = optional_page(response, "the response")
        missing = missing or page is None
        return page

    def page(limit: int, offset: int) -> Call[Page | None]:
        query: dict[str, str | int | None] = {"test_config_id": test_config_id, "limit": limit, "offset": offset}
        what = f"list the results of test configuration {test_config_id}"
        return Call(what, "GET", CONFIG_RESULTS, read, query=query, error_text=error_text)

    rows = yield from optional(pages(page, None, size), statuses=DECLINING)
    # A server that does not know the filter lists those of all test configurations.
    return None if missing or rows is None else [row for row in rows if _is_of(row, test_config_id)]


def _is_of(row: Fields, test_config_id: str) -> bool:
    shown = row.get("test_config_id")
    return shown is None or str(shown).casefold() == test_config_id.casefold()


def baseline(rows: list[Fields]) -> dict[str, str]:
    """What must be remembered of the results before a start, as part of the run's ids.

    :param rows: all of them.
    """
    if len(rows) > _MOST_KNOWN:
        # Those that began earlier are old in any case.
        rows = sorted(rows, key=lambda row: row.moment(*_START_FIELDS) or datetime.max.replace(tzinfo=UTC))
        oldest = rows[-_MOST_KNOWN].moment(*_START_FIELDS)
        if oldest is None:
            return {}
        kept = rows[-_MOST_KNOWN:]
        return {"known_results": "".join(map(_digest, kept)) or "-", "known_since": oldest.isoformat()}
    return {"known_results": "".join(map(_digest, rows)) or "-"}


def new_results(rows: list[Fields], ids: Mapping[str, str]) -> list[Fields] | None:
    """The results that have come since the start; ``None`` where nothing was remembered.

    :param rows: all that there are now.
    :param ids: of the run, with what :func:`baseline` gave.
    """
    known = ids.get("known_results")
    if not known:
        return None
    digests = {known[at : at + _DIGEST] for at in range(0, len(known), _DIGEST)}
    since = datetime.fromisoformat(ids["known_since"]) if "known_since" in ids else None
    new = [row for row in rows if _digest(row) not in digests]
    if since is None:
        return new
    return [row for row in new if _began_after(row, since)]


def _began_after(row: Fields, since: datetime) -> bool:
    began, unreadable = row.start(*_START_FIELDS)
    if unreadable:
        raise InvalidReplyError(f"{row.where}: its start is no time, so it can't be determined whether it is a new one")
    return began is None or began > since


def result_of(task_instance_id: str, rows: list[Fields], ids: Mapping[str, str]) -> Fields | None:
    """The result of a run; ``None`` while there is none.

    :param task_instance_id: the run's id.
    :param rows: all results of its test configuration.
    :param ids: of the run.
    :raises InvalidReplyError: when it can't be determined which of several new ones it is.
    """
    wanted = task_instance_id.casefold()
    for name in ("task_instance_id", "id"):
        for row in rows:
            shown = row.get(name)
            if shown is not None and str(shown).casefold() == wanted:
                return row
    new = new_results(rows, ids)
    # A result that names another task is not this run's.
    new = [row for row in new or [] if row.get("task_instance_id") is None]
    # Nor is one that began before: a result may be listed only at its end.
    new = [row for row in new if not began_before(row, ids.get("submitted_at"))]
    # Pages of a list that grows meanwhile may show one twice.
    new = list({row.identifier("id").casefold(): row for row in new}.values())
    if len(new) > 1 and "submitted_at" in ids:
        near = [row for row in new if _is_near(row, datetime.fromisoformat(ids["submitted_at"]))]
        new = near if len(near) == 1 else new
    if len(new) > 1:
        shown = ", ".join(row.identifier("id") for row in new[:10])
        raise InvalidReplyError(
            f"{len(new)} results of the test configuration have come since task instance {task_instance_id} was"
            f" started, and it can't be determined which is its own: {shown}"
        )
    return new[0] if new else None


def submitted_at(response: Response) -> dict[str, str]:
    """When a start was answered, by the platform's clock; empty where it does not say."""
    try:
        moment = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return {}
    return {"submitted_at": (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()}


def _is_near(row: Fields, moment: datetime) -> bool:
    began = row.moment(*_START_FIELDS)
    try:
        return began is not None and abs(began - moment) <= _NEAR
    except OverflowError:
        return False


def _digest(row: Fields) -> str:
    return sha256(row.identifier("id").casefold().encode("utf-8", "replace")).hexdigest()[:_DIGEST]
