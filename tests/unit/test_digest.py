"""A run's result in few words: what is said, that no name becomes markup, and that each place's limits are kept."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from airflow_provider_testruns.plugin import ResultsPlugin
from airflow_provider_testruns.redaction import ClientSecrets
from airflow_provider_testruns.reporting import digest
from airflow_provider_testruns.reporting.digest import html, markdown, slack_blocks, text
from tests.unit.strategies import json_values

pytestmark = pytest.mark.unit

REPORT: dict[str, Any] = {
    "platform": "omilia",
    "run_id": "r-1",
    "verdict": "failed",
    "reasons": ["2 failed and 1 unavailable of 400 test cases: max_failures is 0."],
    "url": "https://studio.example.com/runs/r-1?a=1&b=(2)",
    "finished_at": "2026-12-01T03:05:35+00:00",
    "total": 400,
    "passed": 396,
    "failed": 2,
    "unavailable": 1,
    "not_run": 1,
    "pass_rate": 0.992481,
    "failures": [
        {"name": "pays", "suite": "smoke", "message": "step 3: expected 'yes',\n found 'no'", "outcome": "failed"},
        {"name": "refund_ok", "suite": "", "message": "no <answer>", "outcome": "failed"},
        {"name": "waits", "suite": "smoke", "message": "", "outcome": "unavailable"},
    ],
    "failures_left_out": 4,
    "junit_path": "s3://reports/r-1.xml",
    "new_failures": [{"name": "refund_ok", "suite": ""}],
    "still_failing": [{"name": "pays", "suite": "smoke"}],
    "still_failing_left_out": 4,
    "fixed": [],
    "baseline": {"run_id": "r-0", "finished_at": "2026-11-25T03:00:00+00:00"},
}
#: What each of these places would make something of: a link, a mention, markup, an end of what it stands in.
HOSTILE = (
    "a`b``c",
    "`",
    "[Approve](https://evil.example)",
    "![x](http://evil.example/x.png)",
    "https://evil.example/approve",
    "www.evil.example",
    "me@evil.example",
    "<!channel>",
    "<@U123>",
    "<https://evil.example|Approve>",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt;",
    "*bold* _it_ ~no~ **strong** __strong__",
    "# Heading",
    "- item",
    "1. item",
    "===",
    "> quote",
    "| a | b |",
    "$x$ #12 @team",
    "\\`",
    "***",
    "[x]: https://evil.example",
    "two\nlines\n\n# Heading",
    "\u202eevil\x1b[31m",
)
hostile = st.sampled_from(HOSTILE) | st.text(st.sampled_from("`*_[]()<>|~\\#@!&$: \n-=+1.aw/"), max_size=30)
MARKDOWN = MarkdownIt("gfm-like")


def with_words(words: str) -> dict[str, Any]:
    """A report in which every text is the same."""
    return {
        **REPORT,
        "run_id": words,
        "verdict": words,
        "reasons": [words, f"{words} is the reason."],
        "failures": [{"name": words, "suite": words, "message": words, "outcome": words}] * 3,
        "junit_path": words,
    }


def test_as_text() -> None:
    assert text(REPORT).splitlines() == [
        "Run r-1 failed. 2 failed and 1 unavailable of 400 test cases: max_failures is 0.",
        "396 of 400 passed, 2 failed, 1 unavailable, 1 not run; pass rate 99.2%.",
        "1 new failure, 5 known, 0 fixed since 25 November.",
        "  failed (new): refund_ok: no <answer>",
        "  failed: smoke / pays: step 3: expected 'yes', found 'no'",
        "  unavailable: smoke / waits",
        "  … and 4 more",
        "The full report: s3://reports/r-1.xml",
        "The run: https://studio.example.com/runs/r-1?a=1&b=%282%29",
    ]


def test_as_markdown() -> None:
    assert markdown(REPORT).split("\n\n") == [
        "**Run r-1 failed**",
        "2 failed and 1 unavailable of 400 test cases: `max_failures` is 0.",
        "396 of 400 passed, 2 failed, 1 unavailable, 1 not run; pass rate 99.2%.",
        "1 new failure, 5 known, 0 fixed since 25 November.",
        "- failed (new): `refund_ok`: no `<answer>`\n"
        "- failed: `smoke / pays`: step 3: expected 'yes', found 'no'\n"
        "- unavailable: `smoke / waits`\n"
        "- … and 4 more",
        "[The run](<https://studio.example.com/runs/r-1?a=1&b=%282%29>) · The full report: `s3://reports/r-1.xml`",
    ]


def test_as_html() -> None:
    found = html(REPORT)
    assert "<p><strong>Run r-1 failed</strong></p>" in found
    assert "<li>failed (new): <code>refund_ok</code>: no &lt;answer&gt;</li>" in found
    assert '<a href="https://studio.example.com/runs/r-1?a=1&amp;b=%282%29">The run</a>' in found


def test_as_blocks_for_slack() -> None:
    header, paragraphs, cases, links = slack_blocks(REPORT)
    assert header == {"type": "header", "text": {"type": "plain_text", "text": "Run r-1 failed", "emoji": False}}
    assert "test cases: `max_failures` is 0.\n396 of 400 passed" in paragraphs["text"]["text"]
    assert cases["text"]["text"].splitlines()[0] == "• failed (new): `refund_ok`: no `&lt;answer&gt;`"
    assert links["text"] == {
        "type": "mrkdwn",
        "text": "<https://studio.example.com/runs/r-1?a=1&amp;b=%282%29|The run>"
        " · The full report: `s3://reports/r-1.xml`",
        "verbatim": True,
    }


@given(hostile)
def test_no_name_is_markup_in_markdown(words: str) -> None:
    tokens = [
        part for token in MARKDOWN.parse(markdown(with_words(words))) for part in (token, *(token.children or []))
    ]
    assert {token.type.removesuffix("_open").removesuffix("_close") for token in tokens} <= {
        *("paragraph", "inline", "text", "strong", "code_inline", "bullet_list", "list_item", "link")
    }
    links = [token.attrs["href"] for token in tokens if token.type == "link_open"]
    assert links == [text(REPORT).rpartition(" ")[2]]
    # Nothing of ours is lost in what others say.
    assert sum(token.type == "list_item_open" for token in tokens) == 4


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@given(hostile)
def test_no_name_is_markup_in_html(words: str) -> None:
    tags = _Tags()
    tags.feed(html(with_words(words)))
    assert {tag for tag, _ in tags.found} <= {"p", "strong", "code", "ul", "li", "a"}
    assert [attrs for _, attrs in tags.found if attrs] == [
        {"href": "https://studio.example.com/runs/r-1?a=1&b=%282%29"}
    ]


@given(hostile)
@example("`a` `b")
def test_no_name_is_markup_in_slack(words: str) -> None:
    for block in slack_blocks(with_words(words)):
        said = block["text"]["text"]
        if block["type"] == "header":
            # Nothing is read in a plain text.
            assert block["text"]["type"] == "plain_text"
            continue
        # Code can't be left from inside: an even number of backticks in a line, none within.
        assert all(line.count("`") % 2 == 0 for line in said.splitlines())
        outside = re.sub("`[^`\n]*`", "", said)
        outside = outside.replace("<https://studio.example.com/runs/r-1?a=1&amp;b=%282%29|The run>", "")
        assert not re.search(r"[*_~<>@|]", outside)
        assert not re.search(r"&(?!amp;|lt;|gt;)", said.replace("&amp;b=", ""))


LONG = {
    **with_words("x" * 900),
    "reasons": ["`<&>_\"'" * 200] * 60,
    "failures": [{"name": "`<&>_" * 200, "suite": '"' * 900, "message": "<& " * 900, "outcome": "failed"}] * 50,
    "url": "https://studio.example.com/" + "&" * 900,
}


@pytest.mark.parametrize("reports", [LONG, [LONG] * 30], ids=["one", "many"])
def test_the_limits_of_each_place(reports: Any) -> None:
    assert len(text(reports)) <= digest.TEXT
    assert len(markdown(reports)) <= digest.MARKDOWN
    assert len(html(reports)) <= digest.HTML
    blocks = slack_blocks(reports)
    assert len(blocks) <= digest.SLACK_BLOCKS
    for block in blocks:
        most = digest.SLACK_HEADER if block["type"] == "header" else digest.SLACK_SECTION
        assert 0 < len(block["text"]["text"]) <= most
    assert sum(len(block["text"]["text"]) for block in blocks) <= digest.SLACK
    if isinstance(reports, list):
        assert text(reports).endswith("… and 20 more runs")
    else:
        # The cases are there, however long the reasons are.
        assert "- failed: " in markdown(reports)
        assert "<li>failed: " in html(reports)


@given(st.dictionaries(st.sampled_from(sorted(REPORT)), json_values) | json_values)
def test_anything_can_stand_in_an_xcom(report: Any) -> None:
    for say in (text, markdown, html):
        assert say(report)
    assert json.dumps(slack_blocks(report), allow_nan=False)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://", "ftp://x/", "//x", 5, "https://x/" + "a" * 3000])
def test_what_is_no_link_is_none(url: Any) -> None:
    for said in (markdown({**REPORT, "url": url}), html({**REPORT, "url": url})):
        assert "The run" not in said


def test_reports_of_earlier_versions() -> None:
    cases = [{"name": "pays", "suite": "smoke", "message": "no"}]
    old = {name: REPORT[name] for name in ("run_id", "verdict", "total", "passed", "url")} | {"failures": cases}
    assert text(old).splitlines() == [
        "Run r-1 failed.",
        "396 of 400 passed.",
        "  did not pass: smoke / pays: no",
        "The run: https://studio.example.com/runs/r-1?a=1&b=%282%29",
    ]


def test_what_there_is_without_a_report() -> None:
    assert text(None) == markdown(None) == "There is no report: no run was judged."
    assert text({"run_id": "r-1", "run_url": "https://x/r", "state": "queued"}) == (
        "Run r-1 is queued.\nThe run: https://x/r"
    )


def test_the_year_where_it_is_another() -> None:
    before = {**REPORT, "baseline": {"finished_at": "2025-12-31T23:59:59+00:00"}}
    assert digest.change(before) == "1 new failure, 5 known, 0 fixed since 31 December 2025"


def test_secrets_are_masked_before_anything_is_escaped() -> None:
    secret = "canary<of&a`secret"
    client = ClientSecrets([secret])
    client.hold()
    for say in (text, markdown, html, slack_blocks):
        assert "canary" not in str(say(with_words(f"a {secret} b")))
    client.release()


def test_the_macros_are_the_same() -> None:
    found = {macro.__name__: macro for macro in ResultsPlugin.macros}
    assert ResultsPlugin.name == "test_runs"
    assert {name: macro(REPORT) for name, macro in found.items()} == {
        "text": text(REPORT),
        "markdown": markdown(REPORT),
        "html": html(REPORT),
        "slack_blocks": slack_blocks(REPORT),
    }
