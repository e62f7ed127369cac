"""How Eggplant DAI's replies are read: its status words, its lists, its runs and its test results.

The servers differ by release, and the documents by page: the same run is told of by four calls in four forms. Here
they become one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.model import CaseResult, Kind, Outcome, Progress, Run, RunState, Verdict
from airflow_provider_testruns.platforms.call import Reply
from airflow_provider_testruns.platforms.reading import Fields, objects

_SEPARATORS = re.compile(r"[\s_-]+")
#: Where a run's id may stand. Other fields may hold the ids of other runs (what it is a rerun of).
_ID_FIELDS = ("id", "execution_id", "execution_status_id", "execution_uuid", "run_uuid", "uuid")
_STATUS_FIELDS = ("status", "teststatus", "runstatus")
_START_FIELDS = ("starttime", "started_at")
_END_FIELDS = ("endtime", "finished_at", "ended_at")
#: How many different states of a model's runs are told of.
_MOST_WORDS = 10
_REASON_FIELDS = ("error_message", "error_reason", "failure_reason", "error", "reason", "message")


@dataclass(frozen=True, slots=True)
class Word:
    """What a status word of DAI means.

    :param state: whether the run is over.
    :param ending: what the platform calls a finished run.
    :param known: whether the word is in the table.
    """

    state: RunState
    ending: Verdict | None = None
    known: bool = True


_QUEUED = Word(RunState.QUEUED)
_ACTIVE = Word(RunState.RUNNING)
_PASSED = Word(RunState.FINISHED, Verdict.PASSED)
_FAILED = Word(RunState.FINISHED, Verdict.FAILED)
_ERRORED = Word(RunState.FINISHED, Verdict.ERRORED)
_CANCELLED = Word(RunState.FINISHED, Verdict.CANCELLED)
_WORDS = {
    "pending": _QUEUED,
    "queued": _QUEUED,
    "started": _ACTIVE,
    "running": _ACTIVE,
    "in progress": _ACTIVE,
    "passed": _PASSED,
    "pass": _PASSED,
    "success": _PASSED,
    "failed": _FAILED,
    "error": _ERRORED,
    "timed out": _ERRORED,
    "cancelled": _CANCELLED,
    "canceled": _CANCELLED,
    "aborted": _CANCELLED,
    "stopped": _CANCELLED,
}
_OUTCOMES = {
    Verdict.PASSED: Outcome.PASSED,
    Verdict.FAILED: Outcome.FAILED,
    Verdict.ERRORED: Outcome.UNAVAILABLE,
    Verdict.CANCELLED: Outcome.NOT_RUN,
}


def word_of(raw: str, *, ended: bool) -> Word:
    """What a status means, without regard to case, and to how its words are joined (``TIMED_OUT``).

    :param raw: the status as it came.
    :param ended: whether the run has an end time. *Incomplete* is a run that ended without a result when it has,
        and one that goes on when it has not.
    """
    folded = _SEPARATORS.sub(" ", raw.strip().casefold())
    if folded == "incomplete":
        return _ERRORED if ended else _ACTIVE
    return _WORDS.get(folded, Word(RunState.RUNNING, known=False))


def list_of(value: Any, where: str) -> list[Any]:
    """The elements of a list, however the server wraps it: one object, a list, or ``{items}``.

    :raises InvalidReplyError: when it is none of them.
    """
    if value is None or value == {}:
        return []
    if isinstance(value, list):
        return value
    items = Fields(value, where).get("items")
    if items is None:
        return [value]
    if not isinstance(items, list):
        raise InvalidReplyError(f"{where}: field 'items' should be a list")
    return items


def rows_of(value: Any, where: str) -> list[Fields]:
    """As :func:`list_of`, where every element must be an object.

    :raises InvalidReplyError: when one is not.
    """
    return objects(list_of(value, where), where)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    :param rows: its objects.
    :param total: how many there are on all pages.
    """

    rows: list[Fields]
    total: int


def page_of(reply: Reply, where: str, *, counted: bool = True) -> Page:
    """A page: ``{items, total_count}``, or a bare list, which is all there is.

    :param counted: whether ``total_count`` must be there; without it, the page is taken for all there is.
    :raises InvalidReplyError: when it is neither.
    """
    value = reply.json()
    if isinstance(value, list):
        rows = objects(value, where)
        return Page(rows, len(rows))
    fields = Fields(value, where)
    if fields.get("items") is None:
        raise InvalidReplyError(f"{where}: field 'items' is missing")
    rows = fields.children("items")
    return Page(rows, fields.integer("total_count", default=None if counted else len(rows)))


def optional_page(reply: Reply, where: str) -> Page | None:
    """As :func:`page_of`; ``None`` for a web page, which is what servers without the call may answer."""
    if reply.headers.get("content-type", "").lower().startswith("text/html"):
        return None
    return page_of(reply, where)


def payload(reply: Reply) -> dict[str, Any]:
    """One object, as the API has it."""
    return dict(Fields(reply.json(), "the reply").raw)


def is_run(fields: Fields, run_id: str) -> bool:
    """Whether an object tells of a run, by its id."""
    wanted = run_id.strip().casefold()
    found = (fields.get(name) for name in _ID_FIELDS)
    return any(
        str(value).casefold() == wanted
        for value in found
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    )


def execution_id_of(fields: Fields) -> str | None:
    """The id of the execution that an item of ``/ai/runs`` is, where it carries one."""
    return fields.optional_text(*_ID_FIELDS[1:])


def run_of(fields: Fields, run_id: str, context: Mapping[str, str], kind: Kind = Kind.RUN) -> Run:
    """A run, from whichever reply tells of it.

    :param fields: the object that does.
    :param run_id: its id.
    :param context: what is known of it already.
    :param kind: what was started.
    :raises InvalidReplyError: when a field is missing or of a wrong type.
    """
    raw = fields.text(*_STATUS_FIELDS)
    started, finished = fields.moment(*_START_FIELDS), fields.moment(*_END_FIELDS)
    word = word_of(raw, ended=finished is not None)
    model_name = fields.optional_text("modelname")
    model_id = fields.optional_text("model_id", "modeluuid")
    run_type = fields.optional_text("type", "runtype")
    known = dict(context)
    if model_id:
        known.setdefault("model_id", model_id)
    if model_name:
        known["model_name"] = model_name
    shown = {"model_name": model_name, "type": run_type.casefold() if run_type else None}
    return Run(
        "eggplant",
        run_id,
        word.state,
        raw,
        kind,
        ending=word.ending,
        started_at=started,
        finished_at=finished,
        context=known,
        started_with={key: value for key, value in shown.items() if value},
        message=_reason(fields) if word.ending in (Verdict.FAILED, Verdict.ERRORED) else "",
        known_state=word.known,
    )


def together(model_name: str, runs: list[Run], context: Mapping[str, str], url: str) -> Run:
    """Runs of a model as one: over when each of them is.

    :param model_name: the model; stands for the id.
    :param runs: at least one.
    :param context: what the next look needs.
    :param url: a page for people.
    """
    over = sum(run.final for run in runs)
    final = over == len(runs)
    starts = [run.started_at for run in runs if run.started_at is not None]
    ends = [run.finished_at for run in runs if run.finished_at is not None]
    words = Counter(run.raw_state for run in runs).most_common(_MOST_WORDS)
    return Run(
        "eggplant",
        model_name,
        RunState.FINISHED if final else RunState.RUNNING,
        ", ".join(f"{count} {word}" for word, count in words),
        Kind.MODEL,
        started_at=min(starts, default=None),
        finished_at=max(ends, default=None) if final else None,
        progress=Progress(over, len(runs)),
        url=url,
        context=context,
        known_state=all(run.known_state for run in runs),
        # Before, they are in no one's interest, and the metadata database keeps what is waited for.
        parts=tuple(runs) if final else (),
    )


def case_of(fields: Fields) -> CaseResult | None:
    """One test result of a run that is over; ``None`` while the server has not settled it.

    :raises InvalidReplyError: when a field is missing or of a wrong type.
    """
    word = word_of(fields.text(*_STATUS_FIELDS), ended=True)
    if word.ending is None:
        return None
    outcome = _OUTCOMES[word.ending]
    started, finished = fields.moment(*_START_FIELDS), fields.moment(*_END_FIELDS)
    # The times say more than `duration`, whose unit no document gives.
    duration = fields.optional_number("duration")
    if started is not None and finished is not None:
        duration = (finished - started).total_seconds()
    model_name = fields.optional_text("model_name") or ""
    name = fields.optional_text("test_case_name") or fields.optional_text("name") or model_name
    return CaseResult(
        name or fields.text("id"),
        outcome,
        duration=None if duration is None else max(0.0, duration),
        message=_reason(fields) if outcome in (Outcome.FAILED, Outcome.UNAVAILABLE) else "",
        suite=model_name,
    )


def error_of(lines: list[Fields]) -> str:
    """The last error of a log; empty when there is none."""
    for line in reversed(lines):
        severity, message = line.get("severity"), line.get("message")
        if isinstance(severity, str) and severity.casefold() in ("error", "critical") and isinstance(message, str):
            return message.strip()
    return ""


def error_text(body: Any) -> str:
    """DAI's own words in the JSON of an error reply: ``detail``, with the fields that a 422 complains of."""
    if not isinstance(body, Mapping):
        return ""
    detail = body.get("detail")
    if isinstance(detail, list):
        problems = [_problem(item) for item in detail]
        return "; ".join(problem for problem in problems if problem)
    for value in (detail, body.get("message"), body.get("error"), body.get("title")):
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _problem(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item) if isinstance(item, str) else ""
    where = item.get("loc")
    place = ".".join(str(part) for part in where if isinstance(part, str | int)) if isinstance(where, list) else ""
    said = item.get("msg")
    return ": ".join(part for part in (place, said if isinstance(said, str) else "") if part)


def _reason(fields: Fields) -> str:
    for name in _REASON_FIELDS:
        found = fields.get(name)
        if isinstance(found, str) and found.strip():
            return found.strip()
    return ""
