"""docs/results.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_testruns.judging import Gates, assess
from airflow_provider_testruns.model import CaseResult, Counts, Metric, Outcome, RunReport, Verdict
from airflow_provider_testruns.reporting.xcom import to_event, to_xcom
from tests.unit.test_gates import CASES, report

pytestmark = pytest.mark.unit

TEXT = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
FIELDS = dict(
    re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT.partition("## The report")[2].partition("\n## ")[0], re.MULTILINE)
)
TYPES = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
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
    found = to_xcom(judged, assess(judged, gates), None if name == "nothing" else "s3://b/k.xml")
    assert set(found) == set(FIELDS)
    for field, value in found.items():
        allowed = [TYPES[kind.strip()] for kind in FIELDS[field].split(" or ")]
        assert any(fits(value) for fits in allowed), (field, value)


def test_each_type_of_each_field_is_seen() -> None:
    # Otherwise "or null" could stand where nothing is ever null.
    seen: dict[str, list[Any]] = {field: [] for field in FIELDS}
    for name, (judged, gates) in REPORTS.items():
        for field, value in to_xcom(judged, assess(judged, gates), None if name == "nothing" else "x").items():
            seen[field].append(value)
    for field, kinds in FIELDS.items():
        for kind in kinds.split(" or "):
            if field not in ("started_at", "finished_at", "duration"):
                assert any(TYPES[kind.strip()](value) for value in seen[field]), (field, kind)


def test_the_events_of_assets_have_what_is_documented() -> None:
    section = TEXT.partition("## Assets")[2].partition(", with the meaning")[0]
    judged, gates = REPORTS["everything"]
    named = set(re.findall(r"`(\w+)`", section)) - {"extra", "finished"}
    assert set(to_event(judged, assess(judged, gates))) == named


def test_every_verdict_is_named() -> None:
    section = TEXT.partition("## The verdict")[2].partition("Without gates")[0]
    assert {verdict.value for verdict in Verdict} == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
