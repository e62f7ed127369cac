"""JUnit files: valid, whole or absent, true to the run, and the same to every reader."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest
from airflow.sdk.exceptions import AirflowRescheduleException
from hypothesis import given, settings
from hypothesis import strategies as st
from junit2htmlreport.parser import Junit as HtmlReader

from airflow_provider_testruns.cleaning import distinct
from airflow_provider_testruns.exceptions import ConfigurationError, TransportError
from airflow_provider_testruns.judging import Gates, Judgement, judge
from airflow_provider_testruns.model import (
    Baseline,
    CaseNames,
    CaseResult,
    CompareWith,
    Comparison,
    Counts,
    Metric,
    Outcome,
    Run,
    RunReport,
    RunState,
    Verdict,
)
from airflow_provider_testruns.reporting.junit import build, check_place, write
from airflow_provider_testruns.sensors.omilia import OmiliaRunSensor
from airflow_provider_testruns.tasks.delivery import errors_in_junit
from tests.unit.junit_files import outcomes_of_two_readers, properties, sums, violations

pytestmark = pytest.mark.unit

RUN = Run(
    "omilia",
    "r-1",
    RunState.FINISHED,
    "FAILURE",
    platform_verdict=Verdict.FAILED,
    started_at=datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
    finished_at=datetime(2026, 1, 2, 3, 5, 35, 500_000, tzinfo=UTC),
    url="https://studio.example.com/r-1",
    ids={"project_id": "p-1"},
    started_with={"group": "payments", "utterance": None},
)
CASES = (
    CaseResult("greets", Outcome.PASSED, 1.5, suite="smoke"),
    CaseResult("pays", Outcome.FAILED, 2.5, "step 3: expected 'yes',\n   found 'no'", "smoke"),
    CaseResult("refunds", Outcome.FAILED, 0.25, "known since May", "smoke"),
    CaseResult("waits", Outcome.UNAVAILABLE, message="no line"),
    CaseResult("later", Outcome.NOT_RUN),
)
REPORT = RunReport(RUN, Counts.of(CASES), CASES, {"tone": Metric(0.8512, 4), "depth": Metric(None)})


def written(folder: Path, report: RunReport, judgement: Judgement | None, *args: Any, **kwargs: Any) -> Path:
    """A file, checked against the schema."""
    place = Path(write(str(folder / "report.xml"), report, judgement, *args, **kwargs))
    root = ElementTree.parse(place).getroot()
    assert violations(root) == []
    assert sums(root) == []
    return place


def test_the_schema_check_finds_what_is_wrong() -> None:
    bad = "<testsuites><testsuite name='s' tests='1' failures='0' time='1e-05'>x<testcase time='soon' speed='1'>"
    bad += "<properties/></testcase></testsuite></testsuites>"
    assert sorted(violations(ElementTree.fromstring(bad))) == [
        "<testcase> may not have speed",
        "<testcase> may not hold <properties>",
        "<testcase> must have name",
        "<testsuite> may not hold text",
        "<testsuite> must have errors",
        "time='1e-05'",
    ]


def test_a_report_as_a_file(tmp_path: Path) -> None:
    judgement = judge(REPORT, Gates(allowed_failures=("smoke/ref*",)))
    file = written(tmp_path, REPORT, judgement, {"airflow.dag_id": "nightly", "airflow.map_index": 0})
    root = ElementTree.parse(file).getroot()
    assert root.attrib == {"name": "omilia run r-1", "tests": "5", "failures": "1", "errors": "0", "time": "89.822"}
    assert [(suite.get("name"), suite.get("tests"), suite.get("time")) for suite in root] == [
        ("omilia run r-1", "2", "0.0"),
        ("smoke", "3", "4.25"),
    ]
    assert root[0].get("timestamp") == "2026-01-02T03:04:05"
    assert [(case.get("name"), case.get("classname"), case.get("time")) for case in root.iter("testcase")] == [
        ("waits", "omilia", None),
        ("later", "omilia", None),
        ("greets", "omilia.smoke", "1.5"),
        ("pays", "omilia.smoke", "2.5"),
        ("refunds", "omilia.smoke", "0.25"),
    ]
    assert {
        case.attrib["name"]: (result.tag, result.get("type"), result.get("message"), result.text)
        for case in root.iter("testcase")
        for result in case
    } == {
        "pays": ("failure", "failed", "step 3: expected 'yes',", "step 3: expected 'yes',\n   found 'no'"),
        "refunds": ("skipped", "allowed_failure", "Allowed to fail: known since May", "known since May"),
        "waits": ("skipped", "unavailable", "no line", "no line"),
        "later": ("skipped", "not_run", "not run", "not run"),
    }
    assert properties(file) == {
        "platform": ["omilia"],
        "run_id": ["r-1"],
        "kind": ["run"],
        "raw_state": ["FAILURE"],
        "url": ["https://studio.example.com/r-1"],
        "verdict": ["failed"],
        "pass_rate": ["0.25"],
        "total": ["5"],
        "passed": ["1"],
        "failed": ["2"],
        "unavailable": ["1"],
        "not_run": ["1"],
        "filter.group": ["payments"],
        "context.project_id": ["p-1"],
        "metric.tone": ["0.8512"],
        "reason": [
            "1 failed and 1 unavailable of 5 test cases.",
            "1 that did not pass are ignored (allowed_failures).",
        ],
        "note": ["Allowed to fail, and did not pass: smoke/refunds."],
        "airflow.dag_id": ["nightly"],
        "airflow.map_index": ["0"],
    }


def test_details_of_cases_are_properties_of_the_suite_and_stand_beside_the_case(tmp_path: Path) -> None:
    """By Jenkins's schema a testcase has none."""
    more = {"numberOfTries": 2, "hadDelays": True, "dialogId": "a. <b>"}
    cases = (
        CaseResult("pays", Outcome.FAILED, message="no", details=more),
        CaseResult("greets", Outcome.PASSED, suite="smoke", details={"numberOfTries": 1}),
        CaseResult("waits", Outcome.PASSED),
    )
    file = written(tmp_path, RunReport(RUN, None, cases), judge(RunReport(RUN, None, cases)))
    found = {name: value for name, value in properties(file).items() if name.startswith("case.")}
    assert found == {
        "case.pays.numberOfTries": ["2"],
        "case.pays.hadDelays": ["true"],
        "case.pays.dialogId": ["a. <b>"],
        "case.greets.numberOfTries": ["1"],
    }
    root = ElementTree.parse(file).getroot()
    smoke = next(suite for suite in root if suite.get("name") == "smoke")
    assert [p.attrib for p in smoke.iter("property")] == [{"name": "case.greets.numberOfTries", "value": "1"}]
    said = {case.get("name"): case.findtext("system-out") for case in root.iter("testcase")}
    lines = "[[PROPERTY|numberOfTries=2]]\n[[PROPERTY|hadDelays=true]]\n[[PROPERTY|dialogId=a. <b>]]"
    assert said == {"pays": lines, "greets": "[[PROPERTY|numberOfTries=1]]", "waits": None}


def test_flaky_cases_and_what_has_changed(tmp_path: Path) -> None:
    cases = (*CASES, CaseResult("again", Outcome.PASSED, tries=2))
    baseline = Baseline("r-0", Verdict.PASSED, datetime(2026, 1, 1, tzinfo=UTC), "https://studio.example.com/r-0")
    comparison = Comparison(
        CompareWith.PREVIOUS,
        baseline,
        CaseNames((("smoke", "pays"), ("", "waits")), 3),
        fixed=CaseNames((("smoke", "greets"),), 1),
        metrics={"tone": -0.05},
    )
    unstable = {("smoke", "greets"): "PFP", ("smoke", "pays"): "FPF"}
    report = replace(REPORT, cases=cases, counts=None, comparison=comparison, unstable=unstable)
    file = written(tmp_path, report, judge(report))
    flaky = {
        case.get("name"): each.get("message")
        for case in ElementTree.parse(file).iter("testcase")
        for each in case.findall("flakyFailure")
    }
    assert flaky == {
        "greets": "Its last 3 runs: passed, failed, passed.",
        "pays": "Its last 3 runs: failed, passed, failed.",
        "again": "Passed at try 2.",
    }
    # They are as they ended, to any reader.
    assert outcomes_of_two_readers(file)["greets"] == "passed"
    assert outcomes_of_two_readers(file)["pays"] == "failure"
    found = properties(file)
    assert found["flaky"] == ["3"]
    assert (found["compared_with"], found["baseline.run_id"]) == (["previous"], ["r-0"])
    assert (found["new_failures"], found["new_failures.1"], found["new_failures.2"]) == (
        ["3"],
        ["smoke/pays"],
        ["waits"],
    )
    assert (found["still_failing"], found["fixed.1"]) == (["0"], ["smoke/greets"])
    assert found["metric_change.tone"] == ["-0.05"]


def test_two_readers_find_the_same(tmp_path: Path) -> None:
    file = written(tmp_path, REPORT, judge(REPORT))
    assert outcomes_of_two_readers(file) == {
        "greets": "passed",
        "pays": "failure",
        "refunds": "failure",
        "waits": "skipped",
        "later": "skipped",
    }
    # As a CI server's summary has it.
    assert "pays" in str(HtmlReader(str(file)).html())


@pytest.mark.parametrize(
    ("report", "judgement", "expected"),
    [
        pytest.param(
            RunReport(RUN, Counts(failed=3)),
            Judgement(Verdict.FAILED, ("3 failed of 3 test cases.",)),
            ("failure", "failed", "3 failed of 3 test cases."),
            id="failures that the platform does not list",
        ),
        pytest.param(
            RunReport(RUN, Counts(unavailable=1), (CASES[3],)),
            Judgement(Verdict.FAILED, ("1 unavailable of 1 test cases.",)),
            ("failure", "failed", "1 unavailable of 1 test cases."),
            id="only skipped cases",
        ),
        pytest.param(
            RunReport(RUN, Counts(passed=1), (CASES[0],)),
            Judgement(Verdict.FAILED, ("Evaluation 'tone' is 0.8, below its gate 0.9 by 0.1.", "And another.")),
            ("failure", "failed", "Evaluation 'tone' is 0.8, below its gate 0.9 by 0.1."),
            id="a gate",
        ),
        pytest.param(
            RunReport(RUN),
            Judgement(Verdict.ERRORED, ("no agent",)),
            ("error", "errored", "no agent"),
            id="it could not be run",
        ),
        pytest.param(
            REPORT,
            Judgement(Verdict.CANCELLED, ("The run was cancelled.",)),
            ("error", "cancelled", "The run was cancelled."),
            id="it was cancelled",
        ),
        pytest.param(RunReport(RUN, Counts(passed=1), (CASES[0],)), Judgement(Verdict.PASSED), None, id="a pass"),
        pytest.param(REPORT, Judgement(Verdict.FAILED, ("Too few.",)), None, id="a case shows it"),
        pytest.param(REPORT, Judgement(Verdict.PASSED), None, id="failures within the gates"),
    ],
)
def test_a_run_that_did_not_pass_never_looks_like_one_that_did(
    tmp_path: Path, report: RunReport, judgement: Judgement, expected: tuple[str, str, str] | None
) -> None:
    root = ElementTree.parse(written(tmp_path, report, judgement)).getroot()
    itself = [case for case in root.iter("testcase") if case.get("name") == "run r-1"]
    assert [(case[0].tag, case[0].get("type"), case[0].get("message")) for case in itself] == (
        [expected] if expected else []
    )
    for case in itself:
        assert case[0].text == "\n".join(judgement.reasons)
    bad = int(root.attrib["failures"]) + int(root.attrib["errors"])
    assert bad >= (judgement.verdict is not Verdict.PASSED)


def test_a_run_that_could_not_be_seen_is_an_error_of_that_kind(tmp_path: Path) -> None:
    error = TransportError("Connection 'x': no response. Check the host.")
    file = written(tmp_path, RunReport(RUN), None, {}, error=error)
    case = next(ElementTree.parse(file).getroot().iter("testcase"))
    assert (case[0].tag, case[0].get("type"), case[0].get("message")) == (
        "error",
        "TransportError",
        "Connection 'x': no response. Check the host.",
    )
    assert case[0].text == str(error)
    assert properties(file)["verdict"] == ["unknown"]
    # Before there is a run there is only the platform.
    nobody = Run("eggplant", "", RunState.QUEUED, "")
    root = ElementTree.parse(written(tmp_path, RunReport(nobody), None, error=error)).getroot()
    assert [suite.get("name") for suite in root] == ["eggplant run"]
    assert [case.get("name") for case in root.iter("testcase")] == ["run"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("żółć 漢字 🦜", "żółć 漢字 🦜"),
        ("a\x00b\x1b[31mred\x7f", "a\ufffdbred"),
        ("half \ud83e of a pair", "half \ufffd of a pair"),
        ("no\ufffe\uffffcharacter", "nocharacter"),
        ("<b>&amp;</b>]]> \"quoted\" 'so'", "<b>&amp;</b>]]> \"quoted\" 'so'"),
    ],
)
def test_any_text_arrives(tmp_path: Path, text: str, kept: str) -> None:
    report = RunReport(RUN, None, (CaseResult(text, Outcome.FAILED, message=text, suite=text),))
    file = written(tmp_path, report, Judgement(Verdict.FAILED, (text,)), {"about": text})
    case = next(case for suite in junitparser.JUnitXml.fromfile(str(file)) for case in suite)
    # Names stay different from others that are the same when cleaned.
    name = distinct(text)
    assert name.startswith(kept)
    assert (case.name, case.classname, case.result[0].text) == (name, f"omilia.{name}", kept)
    suite = HtmlReader(str(file)).suites[1]
    assert suite.name == name.replace("\ufffd", "?")  # as its reader spells it
    assert properties(file)["reason"] == [kept]


_anything = st.text(max_size=40) | st.text(st.characters(categories=["Cc", "Cs", "Cn", "Zl"]), max_size=10)
_cases = st.builds(
    CaseResult,
    _anything,
    st.sampled_from(Outcome),
    st.none() | st.floats(),
    _anything,
    st.sampled_from(["", "a", "b"]) | _anything,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(_cases, max_size=12).map(tuple),
    st.sampled_from(Verdict),
    st.dictionaries(_anything, _anything, max_size=3),
    st.booleans(),
)
def test_whatever_a_platform_says_the_file_is_valid_and_complete(
    tmp_path_factory: pytest.TempPathFactory,
    cases: tuple[CaseResult, ...],
    verdict: Verdict,
    about: dict[str, str],
    forgiven: bool,
) -> None:
    report = RunReport(RUN, None, cases)
    judgement = Judgement(verdict, ("because",), allowed=tuple(report.failures) if forgiven else ())
    file = written(tmp_path_factory.mktemp("junit"), report, judgement, about)
    suites = list(junitparser.JUnitXml.fromfile(str(file)))
    found = [case for suite in suites for case in suite if case.name != "run r-1"]
    assert len(found) == len([case for case in cases if case.name != "run r-1"])
    bad = sum(suite.failures + suite.errors for suite in suites)
    assert bad or verdict is Verdict.PASSED


#: Writes a file of 100 000 cases; says by how much that made the process larger (MB) and how long it took (s of CPU).
_MANY = """
import json, resource, sys, time
from airflow_provider_testruns.judging import *
from airflow_provider_testruns.model import *
from airflow_provider_testruns.reporting.junit import write

detail = "step 7: expected 'yes', found 'no'\\n" + "what was said before; " * 10
cases = tuple(
    CaseResult(f"case {at}", Outcome.FAILED if at % 5 == 0 else Outcome.PASSED, 0.5, detail, f"suite {at % 100}")
    for at in range(100_000)
)
run = Run("omilia", "r-1", RunState.FINISHED, "FAILURE", platform_verdict=Verdict.FAILED)
report = RunReport(run, Counts.of(cases), cases)
write(sys.argv[1], RunReport(report.run), None)
size, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
write(sys.argv[1], report, judge(report, Gates(allowed_failures=("suite 5/*", "case 99995"))))
more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) / 1024
json.dump([more, time.process_time() - began], sys.stdout)
"""


@pytest.mark.perf
def test_a_hundred_thousand_cases(tmp_path: Path) -> None:
    file = tmp_path / "many.xml"
    script = [sys.executable, "-c", _MANY, str(file)]
    megabytes, seconds = json.loads(subprocess.run(script, capture_output=True, check=True).stdout)
    print(f"100 000 cases: {megabytes:.0f} MB, {seconds:.1f} s of CPU, a file of {file.stat().st_size / 1e6:.0f} MB")
    assert megabytes < 150
    root = ElementTree.parse(file).getroot()
    assert sums(root) == []
    assert (root.attrib["tests"], root.attrib["failures"], len(root)) == ("100000", "18999", 101)


# Where it is written


def test_a_folder_takes_it_under_the_runs_name(tmp_path: Path) -> None:
    judgement = judge(REPORT)
    assert write(str(tmp_path), REPORT, judgement) == str(tmp_path / "omilia-r-1.xml")
    assert write(f"file://{tmp_path}/new/", REPORT, judgement) == str(tmp_path / "new" / "omilia-r-1.xml")
    nobody = RunReport(Run("eggplant", "", RunState.QUEUED, ""))
    assert write(f"{tmp_path}/", nobody, None) == str(tmp_path / "eggplant.xml")
    assert write(str(tmp_path / "as-named.txt"), REPORT, judgement) == str(tmp_path / "as-named.txt")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "as-named.txt",
        "eggplant.xml",
        "omilia-r-1.xml",
        "omilia-r-1.xml",
    ]


def test_an_older_file_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    target = tmp_path / "report.xml"
    target.write_text("of the run before")

    cases = tuple(CaseResult(f"case {at}", Outcome.FAILED, message="m" * 100) for at in range(1000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a disk that is full in the middle of the file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(str(target), RunReport(RUN, None, cases), Judgement(Verdict.FAILED))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_text() == "of the run before"
    write(str(target), REPORT, judge(REPORT))
    assert build(REPORT, judge(REPORT)).tostring() in target.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["report.xml"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (" ", "junit_path is empty"),
        ("nowhere://bucket/report.xml", "junit_path: nothing can be written to 'nowhere://bucket/report.xml': "),
        ("s3://bucket/report.xml", "No filesystem registered for scheme s3"),
    ],
)
def test_a_place_that_can_not_be_is_named_before_anything_is_started(place: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        check_place(place)


@pytest.mark.parametrize("place", ["report.xml", "/tmp/reports/", "file:///tmp/report.xml", Path("report.xml")])
def test_other_places_are_not_looked_at_before(place: Any) -> None:
    check_place(place)


def test_a_sensor_that_is_to_look_again_later_has_not_failed(tmp_path: Path) -> None:
    sensor = OmiliaRunSensor(task_id="wait", run_id="r", junit_path=str(tmp_path / "report.xml"), mode="reschedule")
    context: Any = {"ti": SimpleNamespace(dag_id="d", task_id="wait", run_id="r", try_number=1, map_index=-1)}
    with pytest.raises(AirflowRescheduleException), errors_in_junit(sensor, context):
        raise AirflowRescheduleException(datetime.now(UTC))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TransportError), errors_in_junit(sensor, context):
        raise TransportError("no response")
    assert properties(tmp_path / "report.xml")["verdict"] == ["unknown"]
