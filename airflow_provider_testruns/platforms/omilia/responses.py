"""How Omilia Testing Studio's responses are read: envelopes, runs, statistics, test cases and logs.

The document is the Testing Studio API page. It contradicts itself in places; what is done about each is said where it
is done, and pinned by a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean, distinct
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.model import CaseResult, Counts, Kind, Outcome, Progress, Run, RunState, Verdict
from airflow_provider_testruns.parsing import Rows
from airflow_provider_testruns.platforms.platform import settled
from airflow_provider_testruns.platforms.reading import Fields, each, joined, objects, shorter
from airflow_provider_testruns.steps import Response

#: The words of the enum ``RunStatus``, and those of the CI/CD guide on the same page; folded.
_STATES: dict[str, tuple[RunState, Verdict | None]] = {
    "pending": (RunState.QUEUED, None),
    "started": (RunState.RUNNING, None),
    "starting": (RunState.RUNNING, None),
    "retry": (RunState.RUNNING, None),
    "success": (RunState.FINISHED, Verdict.PASSED),
    "successful": (RunState.FINISHED, Verdict.PASSED),
    "failure": (RunState.FINISHED, Verdict.FAILED),
    "failed": (RunState.FINISHED, Verdict.FAILED),
    "revoked": (RunState.FINISHED, Verdict.CANCELLED),
}
#: The words of a test case: those of the table, and those of the samples.
_OUTCOMES = {
    "pass": Outcome.PASSED,
    "passed": Outcome.PASSED,
    "success": Outcome.PASSED,
    "successful": Outcome.PASSED,
    "fail": Outcome.FAILED,
    "failed": Outcome.FAILED,
    "failure": Outcome.FAILED,
    "unavailable": Outcome.UNAVAILABLE,
    "none": Outcome.NOT_RUN,
    "": Outcome.NOT_RUN,
}
#: The arguments of a start that a run shows again, by our name and the API's.
SHOWN = {
    Kind.RUN: {"group": "group", "utterance": "utterance", "description": "description"},
    Kind.GENERATION: {
        "group": "group",
        "test_suite": "testSuite",
        "overwrite": "overwrite",
        "simulation_data": "simulationData",
    },
}
#: The sample's ``executionTime`` of 889.0 is ``889.000 ms`` in its log; the table says seconds.
_PER_SECOND = 1000.0
#: What the model *Run Test Case Stats* has of how a case went, beside its status.
TRIES = "numberOfTries"
DELAYS = "hadDelays"
#: No document is nested deeper than logs are, which is three levels.
_DEEPEST = 50
_USER_OF_URL = re.compile(r"(https?://)[^/\s@]+@", re.IGNORECASE)
_TROUBLE = re.compile(
    r"\b(error|fatal|fail(ed|ure)?|exception|invalid|denied|not found|could ?n[o']t|can(no|')t|unable)\b",
    re.IGNORECASE,
)


def payload(response: Response) -> Any:
    """What the envelope ``{"data": …}`` holds.

    :raises InvalidReplyError: when there is no envelope, or nothing in it.
    """
    data = Fields(response.json(), "the response").get("data")
    if data is None:
        raise InvalidReplyError("the response: field 'data' is missing")
    return data


def one(response: Response, wanted: str | None = None, id_field: str = "runId") -> Fields:
    """The one object of a response, which the document shows bare, and in a list.

    :param response: the response.
    :param wanted: the id that was asked for; picks the object when there are several.
    :param id_field: the field that holds it.
    :raises InvalidReplyError: when it can't be determined which object it is.
    """
    data = payload(response)
    if not isinstance(data, list):
        return Fields(data, "data")
    # One after the other: of a list of any length only one is wanted.
    for row in each(data, "data"):
        if len(data) == 1 or (wanted is not None and same_id(row.verbatim(id_field), wanted)):
            return row
    raise InvalidReplyError(
        f"data should be one object, and is a list of {len(data)}" + (f" without {wanted!r}" if wanted else "")
    )


def bare_rows(response: Response) -> list[Any] | Rows:
    """What stands in the list of a response, unchecked; a single object may stand without a list around it."""
    data = payload(response)
    if isinstance(data, Mapping):
        return [data]
    if not isinstance(data, list | Rows):
        raise InvalidReplyError("data should be a list")
    return data


def many(response: Response) -> list[Fields]:
    """The objects of a response's list."""
    return objects(bare_rows(response), "data")


def plain(response: Response) -> list[dict[str, Any]]:
    """The objects of a response, with the API's own names."""
    return [dict(row.raw) for row in many(response)]


def same_id(one_id: str | None, other: str) -> bool:
    """Whether two ids are the same; UUIDs are written in either case."""
    return one_id is not None and one_id.casefold() == other.casefold()


def has(row: Fields, name: str) -> bool:
    """Whether a field is there, be it null."""
    return name in row.raw or row.get(name) is not None


def run_of(row: Fields, kind: Kind, url: Callable[[str, str], str], project_id: str = "") -> Run:
    """A run or a generation: the models *Run* and *Generated Test Case* of the API page.

    :param row: the object.
    :param kind: which of the two.
    :param url: gives the page for people from the run's id and the project's.
    :param project_id: the project, should the object not name it.
    """
    run_id = row.identifier("runId")
    raw = row.required("status")
    state = _STATES.get(raw.strip().casefold())
    # ``createdAt`` in the samples, ``createAt`` in the table. There is no other start time.
    started_at, start_unreadable = row.start("createdAt", "createAt")
    project_id = row.unless_unreadable(lambda: row.optional_identifier("projectId")) or project_id
    ids = {"project_id": project_id} if project_id else {}
    if kind is Kind.GENERATION:
        ids["kind"] = kind.value
    return settled(
        Run(
            platform="omilia",
            run_id=run_id,
            state=state[0] if state else RunState.RUNNING,
            raw_state=clean(raw, limits.STATUS),
            kind=kind,
            platform_verdict=state[1] if state else None,
            started_at=started_at,
            finished_at=row.moment("finishedAt"),
            progress=row.unless_unreadable(lambda: _progress(row)),
            url=url(run_id, project_id),
            ids=ids,
            started_with={ours: _shown(row, theirs) for ours, theirs in SHOWN[kind].items() if has(row, theirs)},
            known_state=state is not None,
            source=row.excerpt(),
            start_unreadable=start_unreadable,
        )
    )


@dataclass(frozen=True, slots=True)
class Artifact:
    """The model *Task Artifact*: the ZIP file of a run or a generation, which the platform keeps for some time.

    :param created_at: when it was made, by the platform's clock.
    :param ttl: for how many seconds it is kept.
    :param is_expired: the platform's own word on whether that is over.
    :param deleted_at: when it was deleted.
    """

    created_at: datetime | None = None
    ttl: float | None = None
    is_expired: bool = False
    deleted_at: datetime | None = None

    @property
    def kept_until(self) -> datetime | None:
        """When it expires, ``None`` when the platform does not say."""
        if self.created_at is None or self.ttl is None:
            return None
        try:
            return self.created_at + timedelta(seconds=self.ttl)
        except OverflowError:
            return None

    def why_gone(self, now: datetime) -> str:
        """Why it is no longer available, with the date; empty when nothing says so.

        :param now: the time by the platform's clock.
        """
        until = self.kept_until
        made = f"made on {_time(self.created_at)}" if self.created_at is not None else "made, nobody says when"
        if self.deleted_at is not None:
            return f"was deleted on {_time(self.deleted_at)}: it was {made}"
        # The platform's own word counts most: its clock is not ours.
        if not self.is_expired and (until is None or until > now):
            return ""
        kept = f" and kept for {_span(self.ttl or 0.0)}, until {_time(until)}" if until is not None else ""
        return f"has expired: it was {made}{kept}"


def artifact_of(row: Fields) -> Artifact | None:
    """The artifact of a run or a generation, ``None`` when it has none."""
    artifact = row.child("artifact")
    if artifact is None:
        return None
    return Artifact(
        artifact.moment("createdAt", "createAt"),
        artifact.optional_number("ttl"),
        artifact.flag("isExpired", default=False),
        # ``deleted_at`` in the table, ``deletedAt`` in the samples.
        artifact.moment("deletedAt", "deleted_at"),
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    days, rest = divmod(seconds, 86_400)
    return str(timedelta(seconds=seconds)) if rest else f"{days:g} days"


def _progress(row: Fields) -> Progress | None:
    meta = row.child("executionMeta")
    if meta is None:
        return None
    return Progress(meta.integer("current", default=0), None if meta.get("total") is None else meta.integer("total"))


def _shown(row: Fields, name: str) -> str | bool | None:
    found = row.get(name)
    if name == "overwrite":
        # A boolean in the samples and a string in the table.
        if isinstance(found, str) and found.strip().casefold() in ("true", "false"):
            return found.strip().casefold() == "true"
        if found is None or isinstance(found, bool):
            return bool(found)
    if found is None:
        return None
    # What is neither is nothing that a run was started with, and equals none of it.
    return distinct(found if isinstance(found, str) else _text(found), limits.MESSAGE)


def counts_of(response: Response, run_id: str) -> Counts | None:
    """The model *Run Stats*: how many test cases ended in which way.

    Statistics are told apart by ``runId``: in the sample one ``statsId`` stands for two runs.

    :return: ``None`` when the statistics are not there, or are another run's.
    """
    data = Fields(response.json(), "the response").get("data")
    rows = [Fields(data, "data")] if isinstance(data, Mapping) else objects(data if data is not None else [], "data")
    for row in rows:
        whose = row.verbatim("runId")
        if same_id(whose, run_id) or (whose is None and len(rows) == 1):
            return Counts(row.integer("pass"), row.integer("fail"), row.integer("unavailable"))
    return None


def case_of(row: Fields) -> tuple[CaseResult, bool]:
    """The model *Run Test Case Stats*: one test case.

    :return: the case, and whether its status is a word that the provider knows.
    """
    name = row.required("testCaseName", "testCaseId", "dialogId")
    raw = row.verbatim("status") or ""
    outcome = _OUTCOMES.get(raw.strip().casefold())
    milliseconds = row.unless_unreadable(lambda: row.optional_number("executionTime"))
    details = _details_of(row)
    return (
        CaseResult(
            name,
            outcome or Outcome.UNAVAILABLE,
            None if milliseconds is None or milliseconds < 0 else milliseconds / _PER_SECOND,
            "" if outcome is Outcome.PASSED else _why(row, None if outcome else raw),
            tries=int(details.get(TRIES, 0)),
            details=details,
        ),
        outcome is not None,
    )


def _details_of(row: Fields) -> dict[str, str | int | bool]:
    """What shows a flaky case, and the ids that lead to its dialogs; what is null or can't be read is left out."""
    found: dict[str, str | int | bool | None] = {
        TRIES: row.unless_unreadable(lambda: None if row.get(TRIES) is None else row.integer(TRIES)),
        DELAYS: row.unless_unreadable(lambda: _optional_flag(row, DELAYS)),
    }
    for name in ("dialogId", "goldenDialogId"):
        # No ids of paths: the document's own have dots and spaces. They decide nothing.
        found[name] = row.unless_unreadable(partial(row.optional_text, name, limit=limits.NAME)) or None
    return {name: value for name, value in found.items() if value is not None}


def _optional_flag(row: Fields, name: str) -> bool | None:
    """True or false, which the same page has as strings elsewhere (``overwrite``); ``None`` when it is not there."""
    found = row.get(name)
    if isinstance(found, str) and found.strip().casefold() in ("true", "false"):
        return found.strip().casefold() == "true"
    return None if found is None else row.flag(name, default=False)


def _why(row: Fields, unknown: str | None) -> str:
    def errors() -> Iterator[str]:
        for error in row.walk("assertionErrors"):
            step, assertion, expected, found = (
                _text(error.get(name)) for name in ("step", "assertion", "expected", "found")
            )
            yield f"step {step}, {assertion}: expected {expected!r}, found {found!r}"
        for error in row.walk("generalErrors"):
            yield _text(error.get("text"))

    reasons = joined(errors())
    if not reasons:
        reasons = joined(f"warning: {_text(warning.get('text'))}" for warning in row.walk("warnings"))
    if unknown is not None:
        reasons = joined((reasons, f"status {clean(unknown, 60)!r} is not known to the provider"))
    return reasons


def _text(value: Any) -> str:
    if isinstance(value, str):
        return shorter(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "…"


def log_of(response: Response) -> list[tuple[str, str]]:
    """The model *Run Log*: lines with the section that each stands in, in order.

    The samples have sections inside the content of others, empty objects for sections, and keys that are missing; all
    of it is read. A user's name or password in a Git address is masked.
    """
    body = response.json()
    top = Fields(body, "the response") if isinstance(body, Mapping) else None
    data = top.get("data") if top is not None else body
    if data is None:
        # The model's own sample is a section without an envelope.
        data = body
    lines: list[tuple[str, str]] = []
    # No recursion: how deep a response is nested is not ours to say.
    open_sections: list[tuple[str, Iterator[Fields]]] = [("", _items(data, "data"))]
    while open_sections:
        section, items = open_sections[-1]
        item = next(items, None)
        if item is None:
            open_sections.pop()
            continue
        text = item.verbatim("text")
        if text is not None:
            lines.append((section, clean(_USER_OF_URL.sub(r"\1***@", text), limits.LOG_TEXT, lines=True)))
        content = item.get("content")
        if content is not None:
            name = item.optional_text("sectionName", limit=limits.NAME) or section
            open_sections.append((name, _items(content, "content")))
    return lines


def _items(value: Any, where: str) -> Iterator[Fields]:
    return iter([Fields(value, where)]) if isinstance(value, Mapping) else each(value, where)


def trouble_in(lines: list[tuple[str, str]]) -> str:
    """What a log says of why its run broke, in one line; empty when it says nothing that looks like it."""
    found = [
        (section, " ".join(text.split()))
        for section, text in lines
        if _TROUBLE.search(text) and not text.lstrip().startswith("Test cases run:")
    ]
    if not found:
        return ""
    first = found[0][0]
    said = "; ".join(text for section, text in found if section == first)
    return (f"{first}: " if first else "") + clean(said, 300)


def without_git_token(value: Any) -> Any:
    """A payload without any ``gitToken``, which the API gives in clear, and without what it says elsewhere of it.

    :raises InvalidReplyError: when the payload is nested deeper than any that is documented.
    """
    tokens: set[str] = set()
    _find_tokens(value, tokens, 0)
    return _cleaned(value, sorted(tokens, key=len, reverse=True))


def _is_git_token(key: Any) -> bool:
    return str(key).replace("_", "").casefold() == "gittoken"


def _find_tokens(value: Any, tokens: set[str], depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidReplyError("the response is nested too deeply")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _is_git_token(key):
                if isinstance(item, str) and len(item) >= 4:
                    tokens.add(item)
            else:
                _find_tokens(item, tokens, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _find_tokens(item, tokens, depth + 1)


def _cleaned(value: Any, tokens: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(item, tokens) for key, item in value.items() if not _is_git_token(key)}
    if isinstance(value, list):
        return [_cleaned(item, tokens) for item in value]
    if isinstance(value, str):
        for token in tokens:
            value = value.replace(token, "***")
        return _USER_OF_URL.sub(r"\1***@", value)
    return value
