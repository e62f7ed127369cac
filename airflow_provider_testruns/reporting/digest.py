"""A run's report in few words, for each place where people read it: a log, a mail, a chat, a page.

All of them say the same: the verdict and its reasons, the counts, what has changed since an earlier run, the first
cases that did not pass, and where the rest is. They are made of the report as it is in XCom (:func:`.to_xcom`), so a
template has them too: ``{{ macros.test_runs.markdown(ti.xcom_pull(task_ids="regression")) }}``.

Whoever can write an XCom can write anything into a report, and what is in it comes from a platform: what is missing or
of another type is ignored. Text is masked, cleaned and cut, and escaped for the place where it goes: no name of a test
case becomes markup, a link or a mention there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow_provider_testruns.cleaning import outgoing_text
from airflow_provider_testruns.limits import URL
from airflow_provider_testruns.reporting.xcom import MAX_MESSAGE, shorten

#: How many cases that did not pass are named.
MAX_NAMED = 10
#: How many reports are said of several, of mapped tasks say.
MAX_REPORTS = 10
#: The most characters of a digest as text. Logs and mails show it.
TEXT = 20_000
#: As Markdown: a message to Teams may have 28 kB, a comment on GitHub 65,536 characters.
MARKDOWN = 20_000
#: As HTML: mail programs cut a message at 100 kB.
HTML = 60_000
#: Slack's limits: blocks of a message, characters of a section and of a header. The message as a whole has one, too,
#: that Slack does not document; it is far beyond :data:`SLACK`.
SLACK_BLOCKS = 50
SLACK_SECTION = 3_000
SLACK_HEADER = 150
SLACK = 12_000

#: A line of a case that did not pass, as it is without markup.
_LINE = 200
#: More than a place puts around a line.
_AROUND = 10
_MAX_REASONS = 10
_ENDED = {
    "passed": "passed",
    "failed": "failed",
    "errored": "could not be run by the platform",
    "cancelled": "was cancelled",
}
_NO_REPORT = "There is no report: no run was judged."
#: Not of the locale, which differs from worker to worker.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
#: What would be markup, a mention or a link by itself, in Markdown's dialects and in Slack's.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~$&@!]|://|www\.|:[\w+-]+:", re.IGNORECASE)
#: What begins a list, or underlines a heading, at the start of a line.
_LIST = re.compile(r"[-+=]+|\d+[.)]")
#: A word, and the punctuation around it.
_BARE = re.compile(r"([(\"']*)(.*?)([)\"'.,:;]*)", re.DOTALL)
#: What may stand in a link as it is; quotes and brackets of any kind could end it.
_OF_A_URL = ":/?#@!$&+,;=%-._~"


class _Case(NamedTuple):
    """A case that did not pass."""

    what: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class _Digest:
    """What there is to say of one report: clean, and not escaped yet."""

    run: str
    ended: str
    reasons: tuple[str, ...] = ()
    counts: str = ""
    change: str = ""
    cases: tuple[_Case, ...] = ()
    not_passed: int = 0
    junit_path: str = ""
    url: str = ""


class _Form(NamedTuple):
    """How a place writes things.

    :param words: a text with words of others in it.
    :param name: a name, to be told from the words around it.
    :param link: a link: its text, and where it leads.
    """

    words: Callable[[str], str]
    name: Callable[[str], str]
    link: Callable[[str, str], str]


def text(report: Any) -> str:
    """A digest as plain text: what a failing task says, for mails and logs.

    :param report: a report as it is in XCom (:func:`.to_xcom`), several of them (of mapped tasks), or ``None`` for
        none.
    """
    return _joined(report, _text, TEXT, "\n\n", _NO_REPORT)


def markdown(report: Any) -> str:
    """A digest as Markdown, as Airflow's pages, GitHub, GitLab and Teams read it.

    :param report: as of :func:`text`.
    """
    return _joined(report, _markdown, MARKDOWN, "\n\n", _NO_REPORT)


def html(report: Any) -> str:
    """A digest as HTML, for mails.

    :param report: as of :func:`text`.
    """
    return _joined(report, _html, HTML, "\n", f"<p>{_NO_REPORT}</p>")


def slack_blocks(report: Any) -> list[dict[str, Any]]:
    """A digest as Slack's blocks (Block Kit), for ``blocks`` of a message.

    :param report: as of :func:`text`.
    """
    reports, left_out = _reports(report)
    if not reports:
        return [_section(_NO_REPORT)]
    blocks = [block for one in reports for block in _slack(_read(one), SLACK // len(reports))][: SLACK_BLOCKS - 1]
    return [*blocks, _section(_more_reports(left_out))] if left_out else blocks


def change(report: Mapping[str, Any]) -> str:
    """What has changed since the run that a report was compared with: "2 new failures, 5 known, 1 fixed since 25
    November". Empty for a report that was compared with none.

    :param report: as it is in XCom.
    """
    baseline = report.get("baseline")
    if not isinstance(baseline, Mapping):
        return ""
    new, known, fixed = (_number_of(report, name) for name in ("new_failures", "still_failing", "fixed"))
    said = f"{new} new {'failure' if new == 1 else 'failures'}, {known} known, {fixed} fixed"
    since = _date(baseline.get("finished_at")) or _date(baseline.get("started_at"))
    if since is None:
        return said
    now = _date(report.get("finished_at"))
    year = "" if now is not None and now.year == since.year else f" {since.year}"
    return f"{said} since {since.day} {_MONTHS[since.month - 1]}{year}"


def case_lines(report: Mapping[str, Any]) -> list[str]:
    """The first cases of a report that did not pass, a line each, and how many more there are.

    :param report: as it is in XCom.
    """
    return _case_lines(_read(report))


def _reports(report: Any) -> tuple[list[Mapping[str, Any]], int]:
    """The reports that are said, and how many more there are."""
    if isinstance(report, Mapping):
        return [report], 0
    if isinstance(report, str | bytes) or not isinstance(report, Iterable):
        return [], 0
    found = [one for one in report if isinstance(one, Mapping)]
    return found[:MAX_REPORTS], max(0, len(found) - MAX_REPORTS)


def _more_reports(left_out: int) -> str:
    return f"… and {left_out} more {'run' if left_out == 1 else 'runs'}"


def _joined(report: Any, say: Callable[[_Digest, int], str], most: int, between: str, nothing: str) -> str:
    reports, left_out = _reports(report)
    if not reports:
        return nothing
    room = (most - len(nothing)) // len(reports) - len(between)
    said = [say(_read(one), room) for one in reports]
    if left_out:
        more = _more_reports(left_out)
        said.append(f"<p>{more}</p>" if nothing.startswith("<") else more)
    return between.join(said)


# What is in a report


def _read(report: Mapping[str, Any]) -> _Digest:
    run_id, platform = _string(report.get("run_id"), 200), _string(report.get("platform"), 50)
    verdict = _string(report.get("verdict"), 50)
    ended = _ENDED.get(verdict) or verdict or f"is {_string(report.get('state'), 50) or 'not judged'}"
    cases = _cases(report)
    return _Digest(
        run=f"Run {run_id}" if run_id else f"The run{f' on {platform}' if platform else ''}",
        ended=ended,
        reasons=tuple(filter(None, (_string(one, MAX_MESSAGE) for one in _list(report, "reasons")[:_MAX_REASONS]))),
        counts=_counts(report),
        change=change(report),
        cases=tuple(cases[:MAX_NAMED]),
        not_passed=len(cases) + _count(report.get("failures_left_out")),
        junit_path=_string(report.get("junit_path"), URL),
        url=_url(report.get("url") or report.get("run_url")),
    )


def _cases(report: Mapping[str, Any]) -> list[_Case]:
    """Those that are new first, where that is known."""
    new = {_full_name(one) for one in _list(report, "new_failures") if isinstance(one, Mapping)}
    found: list[tuple[bool, _Case]] = []
    for one in _list(report, "failures"):
        if isinstance(one, Mapping):
            name = _full_name(one)
            # Reports of earlier versions don't say which of the two it was.
            what = one.get("outcome") if one.get("outcome") in ("failed", "unavailable") else "did not pass"
            is_new = name in new
            message = " ".join(_string(one.get("message"), MAX_MESSAGE).split())
            found.append((not is_new, _Case(f"{what} (new)" if is_new else str(what), name, message)))
    return [case for _, case in sorted(found, key=lambda each: each[0])]


def _full_name(case: Mapping[str, Any]) -> str:
    parts = (_string(case.get("suite"), MAX_MESSAGE), _string(case.get("name"), MAX_MESSAGE) or "(no name)")
    return " / ".join(filter(None, parts))


def _counts(report: Mapping[str, Any]) -> str:
    """Such as: 6 of 9 passed, 2 failed, 1 unavailable; pass rate 66.7%."""
    if report.get("total") is None:
        return ""
    said = f"{_count(report.get('passed'))} of {_count(report.get('total'))} passed"
    for name in ("failed", "unavailable", "not_run"):
        if number := _count(report.get(name)):
            said += f", {number} {name.replace('_', ' ')}"
    rate = _float(report.get("pass_rate"))
    return said if rate is None else f"{said}; pass rate {rate:.1%}"


def _number_of(report: Mapping[str, Any], name: str) -> int:
    return len(_list(report, name)) + _count(report.get(f"{name}_left_out"))


def _string(value: Any, most: int) -> str:
    return shorten(value, most) if isinstance(value, str) else ""


def _list(report: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = report.get(name)
    return value if isinstance(value, list | tuple) else ()


def _count(value: Any) -> int:
    return min(value, 10**15) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        return None
    return float(value)


def _date(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _url(value: Any) -> str:
    """A link that is safe in any markup; empty for what is none."""
    found = outgoing_text(value, None) if isinstance(value, str) else ""
    if len(found) > URL or not re.match(r"https?://[^\s/?#]", found, re.IGNORECASE):
        return ""
    found = quote(found, safe=_OF_A_URL)
    return found if len(found) <= URL else ""


# How each place writes it


def _case_lines(said: _Digest) -> list[str]:
    lines = [
        shorten(f"  {what}: {name}" + (f": {message}" if message else ""), _LINE) for what, name, message in said.cases
    ]
    return [*lines, *(f"  {more}" for more in _more(said, len(lines)))]


def _more(said: _Digest, shown: int) -> list[str]:
    """Nothing where none is shown: the counts say it."""
    return [f"… and {said.not_passed - shown} more"] if 0 < shown < said.not_passed else []


def _title(said: _Digest) -> str:
    return f"{said.run} {said.ended}"


def _text(said: _Digest, most: int) -> str:
    lines = [" ".join([f"{_title(said)}.", *said.reasons])]
    lines += [f"{line}." for line in (said.counts, said.change) if line]
    lines += _case_lines(said)
    lines += [f"The full report: {said.junit_path}"] if said.junit_path else []
    lines += [f"The run: {said.url}"] if said.url else []
    return shorten("\n".join(lines), most, lines=True)


def _with_code(words: str, code: Callable[[str], str]) -> str:
    """A text in which each word that could be markup is code: nothing is markup there."""

    def safe(word: str, first: bool) -> str:
        if not (_MARKUP.search(word) or (first and _LIST.fullmatch(word))):
            return word
        found = _BARE.fullmatch(word)
        assert found is not None
        before, bare, after = found.groups()
        return f"{before}{code(bare)}{after}" if bare else code(word)

    return " ".join(safe(word, at == 0) for at, word in enumerate(words.split()))


def _markdown_code(word: str) -> str:
    longest = max((len(run) for run in re.findall("`+", word)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if word.startswith("`") or word.endswith("`") else ""
    return f"{fence}{gap}{word}{gap}{fence}"


def _slack_escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_code(word: str) -> str:
    # No escape keeps a backtick from ending it.
    return f"`{_slack_escaped(word.replace('`', chr(39)))}`"


_MARKDOWN = _Form(
    words=lambda words: _with_code(words, _markdown_code),
    name=_markdown_code,
    link=lambda label, url: f"[{label}](<{url}>)",
)
_HTML = _Form(
    words=escape,
    name=lambda name: f"<code>{escape(name)}</code>",
    link=lambda label, url: f'<a href="{escape(url)}">{label}</a>',
)
_SLACK = _Form(
    words=lambda words: _with_code(words, _slack_code),
    name=_slack_code,
    link=lambda label, url: f"<{_slack_escaped(url)}|{label}>",
)


def _parts(said: _Digest, form: _Form, most: int) -> tuple[list[str], list[str], list[str]]:
    """What stands below the title, escaped: paragraphs, cases, links. What has no room is left out as a whole, so that
    no markup is cut.

    :param most: the most characters of each of the three, with what the place puts around its lines.
    """
    links = [form.link("The run", said.url)] if said.url else []
    links += [f"The full report: {form.name(said.junit_path)}"] if said.junit_path else []
    paragraphs = [f"{form.words(line)}." for line in (said.counts, said.change) if line]
    cases = _fitting((_case(case, form) for case in said.cases), most - 40)
    return (
        _fitting([*map(form.words, said.reasons), *paragraphs], most),
        [*cases, *_more(said, len(cases))],
        _fitting(links, most),
    )


def _fitting(lines: Iterable[str], most: int) -> list[str]:
    kept = []
    for line in lines:
        most -= len(line) + _AROUND
        if most >= 0:
            kept.append(line)
    return kept


def _case(case: _Case, form: _Form) -> str:
    name = shorten(case.name, _LINE // 2)
    message = shorten(case.message, _LINE - len(name))
    return f"{case.what}: {form.name(name)}" + (f": {form.words(message)}" if message else "")


def _markdown(said: _Digest, most: int) -> str:
    title = f"**{_MARKDOWN.words(_title(said))}**"
    paragraphs, cases, links = _parts(said, _MARKDOWN, (most - len(title)) // 3)
    parts = [title, *paragraphs, "\n".join(f"- {case}" for case in cases), " · ".join(links)]
    return "\n\n".join(filter(None, parts))


def _html(said: _Digest, most: int) -> str:
    title = f"<strong>{_HTML.words(_title(said))}</strong>"
    paragraphs, cases, links = _parts(said, _HTML, (most - len(title)) // 3)
    listed = "".join(f"<li>{case}</li>" for case in cases)
    parts = [f"<p>{line}</p>" for line in (title, *paragraphs)]
    parts += [f"<ul>{listed}</ul>"] if cases else []
    parts += [f"<p>{' · '.join(links)}</p>"] if links else []
    return "\n".join(parts)


def _slack(said: _Digest, most: int) -> list[dict[str, Any]]:
    paragraphs, cases, links = _parts(said, _SLACK, min(SLACK_SECTION, (most - SLACK_HEADER) // 3))
    header = {"type": "plain_text", "text": shorten(_title(said), SLACK_HEADER), "emoji": False}
    sections = ("\n".join(paragraphs), "\n".join(f"• {case}" for case in cases), " · ".join(links))
    return [{"type": "header", "text": header}, *(_section(words) for words in sections if words)]


def _section(words: str) -> dict[str, Any]:
    # Verbatim: Slack then makes no links or mentions of its own.
    return {"type": "section", "text": {"type": "mrkdwn", "text": words, "verbatim": True}}
