"""The page "Test runs": what its templates in ``templates/`` show.

Names come from platforms and DAG authors: here they are cut, and the templates escape whatever is put into them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.hooks.registry import title_of
from airflow_provider_testruns.plugin.stored import StoredRun

#: How many cases are named as those that failed most often.
MAX_CASES = 10
_MAX_NAME = 200
#: Beyond it a number in a report is a mistake, and too long for a column.
_MOST = 10**12

#: What a task without a report is said to be, by its state; a task that ended without one says "no report".
_GOING = {
    "deferred": "running",
    "running": "running",
    "restarting": "running",
    "queued": "running",
    "scheduled": "running",
    "up_for_reschedule": "running",
    "up_for_retry": "will retry",
}
_VERDICTS = ("passed", "failed", "errored", "cancelled")


@dataclass(frozen=True, slots=True)
class History:
    """A task's newest runs.

    :param runs: newest first.
    """

    dag_id: str
    task_id: str
    runs: Sequence[StoredRun]

    @property
    def judged(self) -> list[StoredRun]:
        """Those that have a report."""
        return [run for run in self.runs if run.report is not None]

    def most_failed(self) -> list[tuple[str, str, int]]:
        """Suite, name and the number of runs for each case that failed, the most often failed first.

        A case counts once for a run, however often it is in it.
        """
        counter: Counter[tuple[str, str]] = Counter()
        for run in self.judged:
            failures = (run.report or {}).get("failures")
            cases = [each for each in failures if isinstance(each, dict)] if isinstance(failures, list) else []
            counter.update({(_text(each.get("suite")), _text(each.get("name"))) for each in cases})
        ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        return [(suite, name, count) for (suite, name), count in ranked]

    @property
    def incomplete(self) -> int:
        """The number of runs whose reports do not name all cases that failed."""
        return sum(bool(_number((run.report or {}).get("failures_left_out"))) for run in self.judged)


@dataclass(frozen=True, slots=True)
class Row:
    """A run in the list, each value as it is shown.

    :param word: what the run is said to be.
    :param kind: the class of its colour in ``style.css``.
    :param only: the query of the page of its task alone.
    :param map_index: ``None`` for a task that is not mapped.
    :param connection: the Airflow connection; empty when that is not known.
    :param task_href: where its task is in Airflow.
    :param run_href: where it is on its platform; empty when that is not known.
    """

    word: str
    kind: str
    only: str
    title: str
    map_index: int | None
    dag_run: str
    platform: str
    connection: str
    run_id: str
    passed: str
    not_passed: str
    total: str
    pass_rate: str
    duration: str
    started: str
    task_href: str
    run_href: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A run in the chart of a trend.

    :param number: its place, from 0 for the oldest.
    :param rate: its pass rate, 0 to 1; ``None`` where there is none.
    """

    number: int
    rate: float | None
    kind: str
    title: str
    href: str


@dataclass(frozen=True, slots=True)
class Case:
    """A case that failed, and in how many of a task's newest runs."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Card:
    """A task's trend and its most failed cases.

    :param only: the query of the page of the task alone.
    :param judged: how many of its newest runs have a report.
    :param passed: how many of those passed.
    :param marks: of its newest runs, oldest first.
    :param cases: those that failed most often.
    :param other_cases: how many more failed.
    :param incomplete: how many reports do not name all cases that failed.
    """

    title: str
    only: str
    judged: int
    passed: int
    marks: Sequence[Mark]
    cases: Sequence[Case]
    other_cases: int
    incomplete: int


def runs_page(
    runs: Sequence[StoredRun],
    history: History | None,
    *,
    dag_ids: Sequence[str],
    dag_id: str | None,
    older: str | None,
    first: bool,
    nonce: str,
) -> str:
    """The list of runs.

    :param runs: newest first.
    :param history: of the one task that the runs are of, if they are.
    :param dag_ids: the DAGs to choose from.
    :param dag_id: the one that is chosen.
    :param older: the query of the next page, if there is one.
    :param first: whether this is the first page.
    :param nonce: of the content security policy.
    """
    return _render(
        "runs.html",
        rows=[_row(run) for run in runs],
        card=_card(history) if history is not None else None,
        current="runs",
        here="./",
        dag_ids=dag_ids,
        dag_id=dag_id,
        older=older,
        first=first,
        nonce=nonce,
    )


def tasks_page(
    histories: Sequence[History],
    *,
    dag_ids: Sequence[str],
    dag_id: str | None,
    older: str | None,
    first: bool,
    nonce: str,
) -> str:
    """The trends of tasks. Parameters as of :func:`runs_page`."""
    return _render(
        "tasks.html",
        cards=[_card(history) for history in histories],
        current="tasks",
        here="tasks",
        dag_ids=dag_ids,
        dag_id=dag_id,
        older=older,
        first=first,
        nonce=nonce,
    )


def error_page(message: str, *, nonce: str) -> str:
    """A page that says what is wrong.

    :param nonce: of the content security policy.
    """
    return _render(
        "error.html",
        message=message,
        current="",
        here="./",
        dag_ids=(),
        dag_id=None,
        older=None,
        first=True,
        nonce=nonce,
    )


@cache
def _environment() -> Environment:
    # What a template asks for and is not given is an error, and no gap in the page.
    return Environment(
        loader=PackageLoader("airflow_provider_testruns.plugin"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def _row(run: StoredRun) -> Row:
    report = run.report or {}
    word, kind = _verdict(run)
    # What could not be done counts with what failed, as it does in the verdict.
    failed = [_number(report.get(name)) for name in ("failed", "unavailable")]
    not_passed = None if all(each is None for each in failed) else sum(each or 0 for each in failed)
    return Row(
        word=word,
        kind=kind,
        only=_only(run.dag_id, run.task_id),
        title=_title(run.dag_id, run.task_id),
        map_index=run.map_index if run.map_index >= 0 else None,
        dag_run=_short(run.run_id),
        platform=_short(title_of(_text(report.get("platform")) or _text(run.mark.get("platform")))),
        connection=_short(_text(run.mark.get("conn_id"))),
        run_id=_short(_text(report.get("run_id")) or _text(run.mark.get("run_id"))),
        passed=_count(report.get("passed")),
        not_passed=_count(not_passed),
        total=_count(report.get("total")),
        pass_rate=_percent(report.get("pass_rate")),
        duration=_duration(report.get("duration")),
        started=_moment(_when(report.get("started_at")) or run.seen_at),
        task_href=_task_href(run),
        run_href=_web(report.get("url") or run.url),
    )


def _card(history: History) -> Card:
    judged, cases = history.judged, history.most_failed()
    return Card(
        title=_title(history.dag_id, history.task_id),
        only=_only(history.dag_id, history.task_id),
        judged=len(judged),
        passed=sum(_verdict(run)[0] == "passed" for run in judged),
        marks=[_mark(number, run) for number, run in enumerate(reversed(history.runs))],
        cases=[
            Case(_short(f"{suite} / {name}" if suite else name or "(no name)"), count)
            for suite, name, count in cases[:MAX_CASES]
        ],
        other_cases=max(0, len(cases) - MAX_CASES),
        incomplete=history.incomplete,
    )


def _mark(number: int, run: StoredRun) -> Mark:
    rate = _rate((run.report or {}).get("pass_rate"))
    word, kind = _verdict(run)
    title = f"{_moment(run.seen_at)}: {word}" + (f", {_percent(rate)}" if rate is not None else "")
    return Mark(number, rate, kind, title, _task_href(run))


def _title(dag_id: str, task_id: str) -> str:
    return f"{_short(dag_id)} . {_short(task_id)}"


def _only(dag_id: str, task_id: str) -> str:
    return urlencode({"dag_id": dag_id, "task_id": task_id})


def _verdict(run: StoredRun) -> tuple[str, str]:
    """What a run is said to be, and the colour for it."""
    if run.report is not None:
        verdict = _text(run.report.get("verdict"))
        return _short(verdict), verdict if verdict in _VERDICTS else "none"
    if run.state in _GOING:
        return _GOING[run.state], "none"
    return ("started", "none") if run.state == "success" else ("no report", "none")


def _task_href(run: StoredRun) -> str:
    """Relative to this page, so that it is right wherever Airflow is served."""
    dag, dag_run, task = (quote(each, safe="") for each in (run.dag_id, run.run_id, run.task_id))
    mapped = f"/mapped/{run.map_index}" if run.map_index >= 0 else ""
    return f"../dags/{dag}/runs/{dag_run}/tasks/{task}{mapped}"


def _web(url: Any) -> str:
    """An address, if it is one that a browser may be sent to."""
    if not isinstance(url, str):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    # What is no text for a page is no URL either.
    return url if parts.scheme in ("http", "https") and parts.netloc and clean(url, None) == url else ""


def _text(value: Any) -> str:
    # Cleaned when it was written, if it was written by us.
    return clean(value, 1000) if isinstance(value, str) else ""


def _short(text: str) -> str:
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 2] + " …"


def _number(value: Any) -> float | None:
    """A number that stands for something: not one that nobody can have counted or waited for."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST <= value <= _MOST:
        return None
    return value


def _rate(value: Any) -> float | None:
    number = _number(value)
    return None if number is None else min(max(float(number), 0.0), 1.0)


def _count(value: Any) -> str:
    number = _number(value)
    return "-" if number is None else f"{number:.0f}"


def _percent(value: Any) -> str:
    rate = _rate(value)
    if rate is None:
        return "-"
    # Rounded down: what is not all is not 100 %.
    return f"{math.floor(rate * 1000 + 1e-6) / 10:g} %"


def _duration(value: Any) -> str:
    seconds = _number(value)
    if seconds is None or seconds < 0:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _when(value: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
    return when if when is not None and when.tzinfo is not None else None


def _moment(when: datetime) -> str:
    try:
        return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError):
        return "-"
