"""How Eggplant DAI's responses are read: its status words, its lists, its runs and its test results.

The servers differ by release, and the documents by page: the same run is told of by four calls in four forms. Here
they become one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean, distinct, is_clean
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.model import CaseResult, Kind, Outcome, Progress, Run, RunState, Verdict
from airflow_provider_testruns.parsing import Rows
from airflow_provider_testruns.platforms.platform import settled
from airflow_provider_testruns.platforms.reading import Fields, each, objects
from airflow_provider_testruns.steps import Response

_SEPARATORS = re.compile(r"[\W_]+")
#: Where a run's id may stand. Other fields may hold the ids of other runs (what it is a rerun of).
_ID_FIELDS = ("id", "execution_id", "execution_status_id", "execution_uuid", "run_uuid", "uuid")
#: Where the verdict of a run stands, and where its liveness does: a test status may be set while the run continues.
_VERDICT_FIELDS = ("status", "teststatus")
_LIVENESS_FIELD = "runstatus"
_STATUS_FIELDS = (*_VERDICT_FIELDS, _LIVENESS_FIELD)
_START_FIELDS = ("starttime", "started_at")
#: How much earlier than the answer to its start call a run may begin: by clocks that differ, and where the time has no
#: zone.
_CLOCKS_APART, _ZONES_APART = timedelta(minutes=5), timedelta(hours=15)
#: How a time ends that says its zone.
_ZONED = re.compile(r"([Zz]|UTC|GMT|[+-]\d{2}(:?\d{2})?)$")
_END_FIELDS = ("endtime", "finished_at", "ended_at")
#: How many different states of a model's runs are told of.
_MOST_WORDS = 10
#: The words for what was run: those of "Check Run Progress Method", and those that public clients saw in GET /ai/runs.
_TYPES = {"test case": "testcase", "directed": "testcase", "exploratory": "model"}
#: What makes a line of a log the reason of a failure, whatever its severity.
_FAILURE_TYPE = re.compile("error|exception|fail", re.IGNORECASE)
_FAILURE_WORDS = re.compile("fail|error|exception|not found|unable", re.IGNORECASE)
#: How a line begins that only says how a test ended.
_SUMMARY = re.compile(
    r"\W*(the )?(test|test case|run|script|execution)( run)? (has )?(ended|finished|completed|failed\W*$)",
    re.IGNORECASE,
)
#: How many characters of a line are searched for them.
_MOST_SEARCHED = 4000
_REASON_FIELDS = ("error_message", "error_reason", "failure_reason", "error", "reason", "message")


@dataclass(frozen=True, slots=True)
class Status:
    """What a status word of DAI means.

    :param state: whether the run has finished.
    :param platform_verdict: what the platform calls a finished run.
    :param known: whether the word is in the table.
    """

    state: RunState
    platform_verdict: Verdict | None = None
    known: bool = True


_QUEUED = Status(RunState.QUEUED)
_ACTIVE = Status(RunState.RUNNING)
_PASSED = Status(RunState.FINISHED, Verdict.PASSED)
_FAILED = Status(RunState.FINISHED, Verdict.FAILED)
_ERRORED = Status(RunState.FINISHED, Verdict.ERRORED)
_CANCELLED = Status(RunState.FINISHED, Verdict.CANCELLED)
#: The run has ended, and only its results show how.
_ENDED = Status(RunState.FINISHED)
_WORDS = {
    "pending": _QUEUED,
    "queued": _QUEUED,
    "started": _ACTIVE,
    "running": _ACTIVE,
    "in progress": _ACTIVE,
    "passed": _PASSED,
    "pass": _PASSED,
    "success": _PASSED,
    "passed after rerun": _PASSED,
    "passed after re run": _PASSED,
    "completed": _ENDED,
    "finished": _ENDED,
    "done": _ENDED,
    "complete": _ENDED,
    "ended": _ENDED,
    "failed": _FAILED,
    "error": _ERRORED,
    "timed out": _ERRORED,
    "cancelled": _CANCELLED,
    "canceled": _CANCELLED,
    "aborted": _CANCELLED,
    "stopped": _CANCELLED,
}
#: The words of a single test that did not have to run.
_NOT_RUN = frozenset({"not run", "skipped", "blocked"})
_OUTCOMES = {
    Verdict.PASSED: Outcome.PASSED,
    Verdict.FAILED: Outcome.FAILED,
    Verdict.ERRORED: Outcome.UNAVAILABLE,
    Verdict.CANCELLED: Outcome.NOT_RUN,
}


def word_of(raw: str, *, ended: bool) -> Status:
    """What a status means, without regard to case, and to how its words are joined (``TIMED_OUT``).

    :param raw: the status as it came.
    :param ended: whether the run has an end time. *Incomplete* is a run that ended without a result when it has,
        and one that is running when it has not.
    """
    folded = _folded(raw)
    if folded == "incomplete":
        return _ERRORED if ended else _ACTIVE
    return _WORDS.get(folded, Status(RunState.RUNNING, known=False))


def _folded(raw: str) -> str:
    return _SEPARATORS.sub(" ", raw.casefold()).strip()


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
    rows = list_of(value, where)
    check_few(rows, where)
    return objects(rows, where)


def check_few(rows: Sequence[Any] | Rows, where: str) -> None:
    """Refuse a list of runs and the like that is longer than makes sense: it is looked through again and again.

    :raises InvalidReplyError: when it is.
    """
    if len(rows) > limits.RUNS:
        raise InvalidReplyError(f"{where} has more than {limits.RUNS:,} rows, which are too many to be read at once")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    :param rows: its objects.
    :param total: how many there are on all pages.
    :param cost: about how much memory it takes, in bytes.
    """

    rows: list[Fields]
    total: int
    cost: int = 0

    @property
    def first(self) -> Any:
        """Its first row as it came, to tell pages apart."""
        return self.rows[0].raw if self.rows else None

    def may_continue(self, asked: int) -> bool:
        """Whether there may be more than it says: where its count is no more than its rows, and these are as many as
        were asked for.

        :param asked: how many were.
        """
        return is_full(len(self.rows), self.total, asked)


def is_full(rows: int, total: int, asked: int) -> bool:
    """Whether a page has as many rows as were asked for and no count beyond them: as a bare list has, too."""
    return rows == asked and total <= rows


@dataclass(frozen=True, slots=True)
class Listed:
    """The rows of one page of a list, before they are read.

    :param rows: as they came, or to be parsed as they are read.
    :param total: how many there are on all pages.
    :param where: their place in the response, for messages.
    """

    rows: list[Any] | Rows
    total: int
    where: str

    def __iter__(self) -> Iterator[Fields]:
        """The objects, one after the other.

        :raises InvalidReplyError: when one is none.
        """
        return each(self.rows, self.where)


def listed(response: Response, where: str, *, counted: bool = True) -> Listed:
    """A page: ``{items, total_count}``, or a bare list, which counts nothing but itself. However long it is, and
    whatever was asked for: of a server that knows no pages it is the whole list.

    :param counted: whether ``total_count`` must be there; without it, the page is taken for all there is.
    :raises InvalidReplyError: when it is neither.
    """
    value = response.json()
    if isinstance(value, list | Rows):
        return Listed(value, len(value), where)
    fields = Fields(value, where)
    rows = fields.get("items")
    if rows is None:
        raise InvalidReplyError(f"{where}: field 'items' is missing")
    each(rows, f"{where}.items")
    total = fields.integer("total_count", default=None if counted else len(rows))
    return Listed(rows, total, f"{where}.items")


def page_of(response: Response, where: str, *, counted: bool = True) -> Page:
    """As :func:`listed`, with all rows read: of a list that is looked through again and again.

    :raises InvalidReplyError: when it is none, or longer than that makes sense for.
    """
    found = listed(response, where, counted=counted)
    check_few(found.rows, found.where)
    return Page(list(found), found.total, response.cost)


def optional_page(response: Response, where: str) -> Page | None:
    """As :func:`page_of`; ``None`` for a web page, which is what servers without the call may answer."""
    return None if is_web_page(response) else page_of(response, where, counted=False)


def is_web_page(response: Response) -> bool:
    """Whether a response is a page for people, which some servers answer with where they have no such call."""
    return response.headers.get("content-type", "").lower().startswith("text/html")


def payload(response: Response) -> dict[str, Any]:
    """One object, as the API has it."""
    return dict(Fields(response.json(), "the response").raw)


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
    return fields.optional_identifier(*_ID_FIELDS[1:])


def number_of(fields: Fields) -> int | None:
    """The number of an item of ``/ai/runs``; ``None`` where its ``id`` is no number."""
    found = fields.get("id")
    if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) < 20:
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def type_of(fields: Fields) -> str | None:
    """What was run, ``model``, ``testcase`` or ``script``, in whichever word a server has for it; a word that is not
    known as it came, ``None`` where there is none."""
    shown = fields.get("type", "runtype")
    if not isinstance(shown, str) or not shown:
        return None
    folded = _folded(shown)
    return _TYPES.get(folded, folded)


def run_of(fields: Fields, run_id: str, ids: Mapping[str, str], kind: Kind = Kind.RUN) -> Run:
    """A run, from whichever response tells of it.

    :param fields: the object that does.
    :param run_id: its id.
    :param ids: what is known of it already.
    :param kind: what was started.
    :raises InvalidReplyError: when a field is missing or of a wrong type.
    """
    started, start_unreadable = fields.start(*_START_FIELDS)
    finished, _ = fields.start(*_END_FIELDS)
    raw, word = _status_of(fields, ended=finished is not None)
    model_name = fields.unless_unreadable(lambda: fields.verbatim("modelname"))
    model_id = fields.unless_unreadable(lambda: fields.optional_identifier("model_id", "modeluuid"))
    run_type = type_of(fields)
    known = dict(ids)
    if model_id:
        known.setdefault("model_id", model_id)
    if model_name and is_clean(model_name):
        # Runs are listed by it, so a clean form of it would be of no use.
        known["model_name"] = model_name
    shown = {
        "model_name": distinct(model_name) if model_name else None,
        "type": distinct(run_type) if run_type else None,
    }
    run = Run(
        "eggplant",
        run_id,
        word.state,
        clean(raw, limits.STATUS),
        kind,
        platform_verdict=word.platform_verdict,
        started_at=started,
        finished_at=finished,
        ids=known,
        started_with={key: value for key, value in shown.items() if value},
        message=_reason(fields) if word.platform_verdict in (Verdict.FAILED, Verdict.ERRORED) or not word.known else "",
        known_state=word.known,
        source=fields.excerpt(),
        start_unreadable=start_unreadable,
    )
    return settled(run)


def _status_of(fields: Fields, *, ended: bool) -> tuple[str, Status]:
    """The status of a run, as it came, and what it means.

    Where a server gives both, ``runstatus`` shows whether the run continues, and the other words how it ended: they
    may be set before the end (FAILED as soon as one test has failed).

    :raises InvalidReplyError: when there is no status.
    """
    liveness = fields.verbatim(_LIVENESS_FIELD)
    verdict = fields.verbatim(*_VERDICT_FIELDS)
    if liveness and verdict:
        # As a word for liveness, "stopped" does not say that somebody stopped it.
        status = _ENDED if _folded(liveness) == "stopped" else word_of(liveness, ended=ended)
        # An end time beside the word for how it ended says more than a word that was not brought up to date.
        over = ended and word_of(verdict, ended=True).state is RunState.FINISHED
        continues = status.known or (not ended and _has(fields, *_END_FIELDS))
        if status.state is not RunState.FINISHED and continues and not over:
            return liveness, status
        outcome = word_of(verdict, ended=ended or status.state is RunState.FINISHED)
        if status.state is RunState.FINISHED and outcome.state is not RunState.FINISHED:
            # The run has ended, and no word says how its tests did.
            return (liveness, status) if outcome.known else (verdict, replace(outcome, state=RunState.FINISHED))
        if status.platform_verdict is Verdict.CANCELLED or (
            status.platform_verdict is Verdict.ERRORED and outcome.platform_verdict is Verdict.PASSED
        ):
            # A run that was cancelled or broke has not tested all that it should have.
            return liveness, status
        return verdict, outcome
    raw = fields.required(*_STATUS_FIELDS)
    return raw, word_of(raw, ended=ended)


def _has(fields: Fields, *names: str) -> bool:
    """Whether an object has one of some fields, be it null."""
    return any(name in fields.raw for name in names)


def aggregate(model_name: str, runs: list[Run], ids: Mapping[str, str], url: str) -> Run:
    """Runs of a model as one: over when each of them is.

    :param model_name: the model; stands for the id.
    :param runs: at least one.
    :param ids: of the run, for the next poll.
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
        clean(", ".join(f"{count} {word}" for word, count in words), limits.LINE),
        Kind.MODEL,
        started_at=min(starts, default=None),
        finished_at=max(ends, default=None) if final else None,
        progress=Progress(over, len(runs)),
        url=url,
        ids=ids,
        known_state=all(run.known_state for run in runs),
        # Before, they are in no one's interest, and the metadata database keeps what is waited for.
        parts=tuple(runs) if final else (),
    )


def began_before(fields: Fields, submitted_at: str | None) -> bool:
    """Whether something began before a start was answered, as far as both have a time.

    :param fields: the object that tells of it.
    :param submitted_at: when the start was answered, by the platform's clock, as ISO 8601.
    """
    began = start_of(fields)
    if began is None or submitted_at is None:
        return False
    # A time without a zone is taken for UTC, and may be of any.
    allowance = _CLOCKS_APART if _ZONED.search(str(fields.get(*_START_FIELDS))) else _ZONES_APART
    return datetime.fromisoformat(submitted_at) - began > allowance


def start_of(fields: Fields) -> datetime | None:
    """When a run or a test began."""
    return fields.moment(*_START_FIELDS)


def case_of(fields: Fields) -> CaseResult | None:
    """One test result of a finished run; ``None`` while the server has not settled it.

    :raises InvalidReplyError: when a field is missing or of a wrong type.
    """
    raw = fields.required(*_STATUS_FIELDS)
    word = word_of(raw, ended=True)
    unknown = ""
    if _folded(raw) in _NOT_RUN:
        outcome = Outcome.NOT_RUN
    elif word.platform_verdict is not None:
        outcome = _OUTCOMES[word.platform_verdict]
    elif word.known and word.state is not RunState.FINISHED:
        return None
    else:
        outcome = Outcome.UNAVAILABLE
        unknown = f"Status {clean(raw, limits.STATUS)!r} does not say how the test ended."
    started, finished = fields.moment(*_START_FIELDS), fields.moment(*_END_FIELDS)
    # The times say more than `duration`, whose unit no document gives.
    duration = fields.unless_unreadable(lambda: fields.optional_number("duration"))
    if started is not None and finished is not None:
        duration = (finished - started).total_seconds()
    model_name = fields.verbatim("model_name") or ""
    name = fields.verbatim("test_case_name", "testcase") or fields.verbatim("name") or model_name
    return CaseResult(
        name or fields.required("id"),
        outcome,
        duration=None if duration is None else max(0.0, duration),
        message=_reason(fields) or unknown if outcome in (Outcome.FAILED, Outcome.UNAVAILABLE) else "",
        suite=model_name,
    )


def error_of(lines: list[Fields]) -> str:
    """The line of a log that says best why a test failed; empty when there is none.

    The last of severity error or critical; else the last that sounds like a failure, by its type or its words: real
    failures often have the severity of ordinary lines; else the last of all. A line that only says how the test ended
    comes after all others.
    """
    at = failure_at([line.raw for line in lines])
    return "" if at is None else _message(lines[at].raw)


def failure_at(lines: Sequence[Mapping[str, Any]]) -> int | None:
    """Where in a log the line stands that :func:`error_of` finds; ``None`` in a log without a message.

    :param lines: of the log, in order.
    """
    for is_it in (_is_error, _sounds_like_failure, _message):
        for summary in (False, True):
            for at in range(len(lines) - 1, -1, -1):
                message = _message(lines[at])
                if message and is_it(lines[at]) and (_SUMMARY.match(message) is not None) is summary:
                    return at
    return None


def _message(line: Mapping[str, Any]) -> str:
    message = line.get("message")
    return clean(message.strip(), limits.MESSAGE, lines=True) if isinstance(message, str) else ""


def _is_error(line: Mapping[str, Any]) -> bool:
    severity = line.get("severity")
    return isinstance(severity, str) and severity.casefold() in ("error", "critical", "fatal")


def _sounds_like_failure(line: Mapping[str, Any]) -> bool:
    kind = line.get("message_type")
    by_type = isinstance(kind, str) and _FAILURE_TYPE.search(kind[:_MOST_SEARCHED]) is not None
    return by_type or _FAILURE_WORDS.search(_message(line)[:_MOST_SEARCHED]) is not None


def error_text(body: Any) -> str:
    """DAI's own words in the JSON of an error response: ``detail``, with the fields that a 422 complains of."""
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
            return clean(found.strip(), limits.MESSAGE, lines=True)
    return ""
