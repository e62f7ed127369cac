"""The page "Test runs" as HTML. Names come from platforms and DAG authors: whatever is not written here is escaped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_testruns.cleaning import clean
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
_PLATFORMS = {"eggplant": "Eggplant DAI", "futureagi": "Future AGI", "omilia": "Omilia Testing Studio"}
_VERDICTS = ("passed", "failed", "errored", "cancelled")

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--text:#1a202c;--dim:#5a6577;--line:#e2e8f0;--soft:#f7f9fb;--link:#0b63c5;
--passed:#15803d;--failed:#c53030;--errored:#b45309;--cancelled:#64748b;--none:#94a3b8}
@media (prefers-color-scheme:dark){:root{--bg:#16181d;--text:#e5e9f0;--dim:#9aa5b5;--line:#2d333d;--soft:#1d2027;
--link:#7ab7ff;--passed:#4ade80;--failed:#f87171;--errored:#fbbf24;--cancelled:#94a3b8;--none:#64748b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1280px;padding:1.2rem 1.5rem;background:var(--bg);color:var(--text);
font:14px/1.45 system-ui,"DejaVu Sans",sans-serif}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
header{display:flex;flex-wrap:wrap;gap:.4rem 1.4rem;align-items:baseline;margin-bottom:1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:0 0 .6rem}
nav{display:flex;gap:1rem}nav [aria-current]{color:var(--text);font-weight:600}
form{margin-left:auto;display:flex;gap:.4rem;align-items:center}
select,button{font:inherit;padding:.2rem .5rem;max-width:22rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim);white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td.t{white-space:nowrap}td{overflow-wrap:anywhere}
.dim{color:var(--dim)}.small{font-size:.88em}
.v{font-weight:600;white-space:nowrap}
.v::before{content:"";display:inline-block;width:.6em;height:.6em;border-radius:50%;margin-right:.45em;
background:var(--none)}
.v.passed{color:var(--passed)}.v.failed{color:var(--failed)}.v.errored{color:var(--errored)}
.v.cancelled,.v.none{color:var(--cancelled)}
.v.passed::before{background:var(--passed)}.v.failed::before{background:var(--failed)}
.v.errored::before{background:var(--errored)}.v.cancelled::before{background:var(--cancelled)}
section{border:1px solid var(--line);border-radius:8px;background:var(--soft);padding:.9rem 1.1rem;margin:0 0 1rem}
.two{display:flex;flex-wrap:wrap;gap:.6rem 2.4rem}.two>*{flex:1 1 24rem;min-width:0}
svg{display:block;max-width:100%;height:auto}
svg text{fill:var(--dim);font-size:10px}svg line{stroke:var(--line)}
svg polyline{fill:none;stroke:var(--dim);stroke-width:1.5;opacity:.6}
svg .passed{fill:var(--passed)}svg .failed{fill:var(--failed)}svg .errored{fill:var(--errored)}
svg .cancelled{fill:var(--cancelled)}svg .none{fill:var(--none)}
ol{margin:.2rem 0 0;padding-left:0;list-style:none}li{margin:.15rem 0;overflow-wrap:anywhere}
li b{display:inline-block;min-width:8.5rem;font-weight:600}
.pages{display:flex;gap:1.2rem;margin-top:1rem}
"""


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
    if runs:
        cells = "".join(_run_row(run) for run in runs)
        body = (
            '<table><thead><tr><th>Verdict</th><th>DAG and task</th><th>Platform</th><th class="n">Passed</th>'
            '<th class="n">Not passed</th><th class="n">Total</th><th class="n">Pass rate</th>'
            '<th class="n">Duration</th><th>Started (UTC)</th><th>Links</th></tr></thead>'
            f"<tbody>{cells}</tbody></table>"
        )
    else:
        body = _nothing(first)
    if history is not None:
        body = _card(history, linked=False) + body
    return _page("runs", body + _pages(older, first, dag_id, "./"), dag_ids, dag_id, nonce)


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
    body = "".join(_card(history, linked=True) for history in histories) or _nothing(first)
    return _page("tasks", body + _pages(older, first, dag_id, "tasks"), dag_ids, dag_id, nonce)


def error_page(what: str, *, nonce: str) -> str:
    """A page that says what is wrong."""
    return _page("", f'<p role="alert">{escape(what)}</p>', (), None, nonce)


def _page(which: str, body: str, dag_ids: Sequence[str], dag_id: str | None, nonce: str) -> str:
    query = f"?{urlencode({'dag_id': dag_id})}" if dag_id else ""
    tabs = "".join(
        f'<a href="{escape(href + query)}"{" aria-current=page" if which == name else ""}>{label}</a>'
        for name, href, label in (("runs", "./", "Runs"), ("tasks", "tasks", "Trends"))
    )
    choices = "".join(
        f'<option value="{escape(each)}"{" selected" if each == dag_id else ""}>{escape(each)}</option>'
        for each in dag_ids
    )
    form = (
        f'<form action="{"tasks" if which == "tasks" else "./"}"><label for="dag_id">DAG</label>'
        f'<select id="dag_id" name="dag_id"><option value="">All DAGs</option>{choices}</select>'
        "<button>Show</button></form>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Test runs - Airflow</title>'
        f'<style nonce="{escape(nonce)}">{_STYLE}</style></head><body><header><h1>Test runs</h1><nav>{tabs}'
        f'<a href="../">Back to Airflow</a></nav>{form}</header><main>{body}</main></body></html>'
    )


def _nothing(first: bool) -> str:
    if not first:
        return "<p>There are no older ones.</p>"
    return (
        "<p>No test runs yet.</p>"
        '<p class="dim">Runs are shown here once a task with an operator or sensor of this provider has started or'
        " found one. You see those of the DAGs that you may read.</p>"
    )


def _pages(older: str | None, first: bool, dag_id: str | None, here: str) -> str:
    query = f"?{urlencode({'dag_id': dag_id})}" if dag_id else ""
    links = [] if first else [f'<a href="{escape(here + query)}">Newest</a>']
    if older:
        links.append(f'<a rel="next" href="{escape(here + older)}">Older</a>')
    return f'<div class="pages">{"".join(links)}</div>' if links else ""


def _run_row(run: StoredRun) -> str:
    report = run.report or {}
    word, kind = _verdict(run)
    mapped = f' <span class="dim">[{run.map_index}]</span>' if run.map_index >= 0 else ""
    only = urlencode({"dag_id": run.dag_id, "task_id": run.task_id})
    links = [f'<a href="{escape(_task_href(run))}">Task</a>']
    url = _web(report.get("url") or run.url)
    if url:
        links.append(f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">Test run</a>')
    platform = _text(report.get("platform"))
    # What could not be done counts with what failed, as it does in the verdict.
    failed = [_number(report.get(name)) for name in ("failed", "unavailable")]
    not_passed = None if all(each is None for each in failed) else sum(each or 0 for each in failed)
    started = _when(report.get("started_at")) or run.seen_at
    return (
        f'<tr><td><span class="v {kind}">{escape(word)}</span></td>'
        f'<td><a href="./?{escape(only)}">{escape(_short(run.dag_id))} . {escape(_short(run.task_id))}</a>{mapped}'
        f'<div class="dim small">{escape(_short(run.run_id))}</div></td>'
        f"<td>{escape(_PLATFORMS.get(platform, _short(platform)))}"
        f'<div class="dim small">{escape(_short(_text(report.get("run_id"))))}</div></td>'
        f'<td class="n">{_count(report.get("passed"))}</td><td class="n">{_count(not_passed)}</td>'
        f'<td class="n">{_count(report.get("total"))}</td><td class="n">{_percent(report.get("pass_rate"))}</td>'
        f'<td class="n">{_duration(report.get("duration"))}</td><td class="t">{_moment(started)}</td>'
        f'<td class="t">{" &middot; ".join(links)}</td></tr>'
    )


def _card(history: History, *, linked: bool) -> str:
    title = f"{escape(_short(history.dag_id))} . {escape(_short(history.task_id))}"
    if linked:
        only = urlencode({"dag_id": history.dag_id, "task_id": history.task_id})
        title = f'<a href="./?{escape(only)}">{title}</a>'
    judged = history.judged
    passed = sum(_verdict(run)[0] == "passed" for run in judged)
    said = f"{passed} of the last {len(judged)} passed" if judged else "no reports yet"
    cases = history.most_failed()
    if cases:
        items = "".join(
            f"<li><b>{count} of the last {len(judged)}</b> "
            f"{escape(_short(f'{suite} / {name}' if suite else name or '(no name)'))}</li>"
            for suite, name, count in cases[:MAX_CASES]
        )
        more = f'<p class="dim small">and {len(cases) - MAX_CASES} other cases</p>' if len(cases) > MAX_CASES else ""
        listed = f"<ol>{items}</ol>{more}"
    else:
        listed = '<p class="dim">No case failed.</p>' if judged else ""
    if history.incomplete:
        runs = "run names" if history.incomplete == 1 else "runs name"
        listed += f'<p class="dim small">{history.incomplete} {runs} only the first of the cases that failed.</p>'
    return (
        f'<section><h2>{title} <span class="dim small">{said}</span></h2><div class="two">'
        f'<div><div class="dim small">Pass rate, oldest to newest</div>{_trend(history)}</div>'
        f'<div><div class="dim small">Failed most often</div>{listed}</div></div></section>'
    )


def _trend(history: History) -> str:
    """The pass rates as an SVG: a dot for each run, in the colour of its verdict, joined where there are rates."""
    runs = list(reversed(history.runs))
    left, top, height, step = 36, 8, 80, 22
    width = left + step * max(len(runs), 8) + 8
    marks, line = [], []
    for number, run in enumerate(runs):
        rate = _rate((run.report or {}).get("pass_rate"))
        word, kind = _verdict(run)
        x = left + step * number + step // 2
        y = top + height * (1 - rate) if rate is not None else float(top + height)
        if rate is not None:
            line.append(f"{x},{y:.1f}")
        said = f"{_moment(run.seen_at)}: {escape(word)}" + (f", {_percent(rate)}" if rate is not None else "")
        shape = (
            f'<circle class="{kind}" cx="{x}" cy="{y:.1f}" r="5"/>'
            if rate is not None
            else f'<rect class="{kind}" x="{x - 4}" y="{y - 4:.1f}" width="8" height="8"/>'
        )
        marks.append(f'<a href="{escape(_task_href(run))}"><title>{said}</title>{shape}</a>')
    scale = "".join(
        f'<line x1="{left}" x2="{width}" y1="{y}" y2="{y}"/><text x="{left - 4}" y="{y + 3}" text-anchor="end">'
        f"{label}</text>"
        for y, label in ((top, "100%"), (top + height / 2, "50%"), (top + height, "0%"))
    )
    joined = f'<polyline points="{" ".join(line)}"/>' if len(line) > 1 else ""
    return (
        f'<svg role="img" aria-label="Pass rates of the newest {len(runs)} runs" width="{width}"'
        f' height="{height + 2 * top}" viewBox="0 0 {width} {height + 2 * top}">{scale}{joined}{"".join(marks)}</svg>'
    )


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
