"""docs/results.md says what is so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.judging import Gates, judge
from airflow_provider_testruns.model import (
    Baseline,
    CaseNames,
    CaseResult,
    CompareWith,
    Comparison,
    Counts,
    Metric,
    Outcome,
    RunReport,
    Verdict,
)
from airflow_provider_testruns.reporting.xcom import to_event, to_xcom
from tests.unit.test_gates import CASES, report

pytestmark = pytest.mark.unit

TEXT = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
_ALWAYS, _, _SOMETIMES = TEXT.partition("## The report")[2].partition("\n## ")[0].partition("\nSome reports have more:")
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)
FIELDS = dict(_ROW.findall(_ALWAYS))
#: Those that are not in every report.
MORE = dict(_ROW.findall(_SOMETIMES))
TYPES = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "true": lambda value: value is True,
    "null": lambda value: value is None,
    "list": lambda value: isinstance(value, list),
    "list of texts": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "object": lambda value: isinstance(value, dict),
}

_NOTHING = report(ending=Verdict.PASSED)
REPORTS = {
    "everything": (report(*CASES), Gates(allowed_failures=("refunds", "gone"))),
    "nothing": (RunReport(_NOTHING.run), Gates()),
    "no score": (
        RunReport(_NOTHING.run, Counts(), (CaseResult("c", Outcome.NOT_RUN),), {"tone": Metric(None)}),
        Gates(),
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_fields_of_the_report_and_their_types_are_as_documented(name: str) -> None:
    judged, gates = REPORTS[name]
    found = to_xcom(judged, judge(judged, gates), None if name == "nothing" else "s3://b/k.xml")
    assert set(found) == set(FIELDS)
    _of_documented_types(found)


def _of_documented_types(found: dict[str, Any]) -> None:
    kinds = FIELDS | MORE
    for field, value in found.items():
        allowed = [TYPES[kind.strip()] for kind in kinds[field].split(" or ")]
        assert any(fits(value) for fits in allowed), (field, value)


@pytest.mark.parametrize("baseline", [None, Baseline("r-0", Verdict.FAILED)], ids=["without a baseline", "with one"])
def test_the_fields_of_a_compared_run_are_as_documented(baseline: Baseline | None) -> None:
    cases = CaseNames((("", "pays"),), 1)
    comparison = Comparison(CompareWith.PREVIOUS, baseline, cases, cases, cases, {"tone": 0.5})
    judged = replace(
        report(*CASES), comparison=comparison, commit="c0ffee", unstable={(CASES[0].suite, CASES[0].name): "PFP"}
    )
    judged = replace(judged, run=replace(judged.run, stopped_early="Stopped early."))
    found = to_xcom(judged, judge(judged))
    assert set(found) == set(FIELDS) | set(MORE)
    _of_documented_types(found)


def test_each_type_of_each_field_is_seen() -> None:
    # Otherwise "or null" could stand where nothing is ever null.
    seen: dict[str, list[Any]] = {field: [] for field in FIELDS}
    for name, (judged, gates) in REPORTS.items():
        for field, value in to_xcom(judged, judge(judged, gates), None if name == "nothing" else "x").items():
            seen[field].append(value)
    for field, kinds in FIELDS.items():
        for kind in kinds.split(" or "):
            if field not in ("started_at", "finished_at", "duration"):
                assert any(TYPES[kind.strip()](value) for value in seen[field]), (field, kind)


def test_the_events_of_assets_have_what_is_documented() -> None:
    section = TEXT.partition("## Assets")[2].partition(", with the meaning")[0]
    judged, gates = REPORTS["everything"]
    named = set(re.findall(r"`(\w+)`", section)) - {"extra", "finished"}
    assert set(to_event(judged, judge(judged, gates))) == named


def test_every_verdict_is_named() -> None:
    section = TEXT.partition("## The verdict")[2].partition("Without gates")[0]
    assert {verdict.value for verdict in Verdict} == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
