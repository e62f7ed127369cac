"""What tests look at a JUnit file with: the schema, its sums, and two readers that CI systems use."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import junitparser
from junit2htmlreport.case_result import CaseResult as HtmlResult
from junit2htmlreport.parser import Junit as HtmlReader

# The schema that Jenkins checks JUnit files against (junit-10.xsd of its xUnit plugin): what each element may hold, its
# attributes, and those of them that it must have.
_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")
_RESULT: tuple[set[str], set[str], set[str]] = (set(), {"type", "message"}, set())
_RERUN: tuple[set[str], set[str], set[str]] = (
    {"stackTrace", "system-out", "system-err"},
    {"type", "message"},
    {"type"},
)
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp"}
        | {"hostname", "id", "package", "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, {"name", "value"}),
    "testcase": (
        {"skipped", "error", "failure", "flakyFailure", "flakyError", "rerunFailure", "rerunError"}
        | {"system-out", "system-err"},
        {"name", "time", "classname", "group"},
        {"name"},
    ),
    "failure": _RESULT,
    "error": _RESULT,
    "skipped": _RESULT,
    **dict.fromkeys(("flakyFailure", "flakyError", "rerunFailure", "rerunError"), _RERUN),
    "system-out": (set(), set(), set()),
}
_MIXED = {"failure", "error", "skipped", "system-out", "system-err"}
_MIXED |= {"flakyFailure", "flakyError", "rerunFailure", "rerunError"}


def violations(element: ElementTree.Element) -> list[str]:
    """What of an element and all that is in it is against the schema."""
    if element.tag not in SCHEMA:
        return [f"<{element.tag}> is unknown"]
    children, attributes, required = SCHEMA[element.tag]
    found = [f"<{element.tag}> may not have {name}" for name in set(element.attrib) - attributes]
    found += [f"<{element.tag}> must have {name}" for name in required - set(element.attrib)]
    found += [f"<{element.tag}> may not hold <{child.tag}>" for child in element if child.tag not in children]
    if element.tag in ("testsuites", "testsuite") and not _TIME.fullmatch(element.get("time", "")):
        found.append(f"time={element.get('time')!r}")
    if element.tag not in _MIXED and ((element.text or "").strip() or any((c.tail or "").strip() for c in element)):
        found.append(f"<{element.tag}> may not hold text")
    return found + [more for child in element for more in violations(child)]


def sums(root: ElementTree.Element) -> list[str]:
    """What of the figures is not the sum of what is there."""
    found = []
    for suite in root:
        cases = suite.findall("testcase")
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            there = sum(case.find(tag) is not None for case in cases)
            if int(suite.attrib[name]) != there:
                found.append(f"{suite.get('name')}: {name}={suite.attrib[name]}, there are {there}")
        if int(suite.attrib["tests"]) != len(cases):
            found.append(f"{suite.get('name')}: tests={suite.attrib['tests']}, there are {len(cases)}")
    for name in ("tests", "failures", "errors"):
        if int(root.attrib[name]) != sum(int(suite.attrib[name]) for suite in root):
            found.append(f"{name} of all")
    return found


def outcomes_of_two_readers(file: Path) -> dict[str, str]:
    """Each case's outcome as both readers have it; they must agree."""
    first = {}
    for suite in junitparser.JUnitXml.fromfile(str(file)):
        for case in suite:
            kinds = {type(result).__name__.lower() for result in case.result}
            assert len(kinds) <= 1
            first[case.name] = kinds.pop() if kinds else "passed"
    # The second one knows no errors of cases: to it they are failures.
    names = {HtmlResult.PASSED: {"passed"}, HtmlResult.FAILED: {"failure", "error"}, HtmlResult.SKIPPED: {"skipped"}}
    second = {case.name: names[case.outcome()] for suite in HtmlReader(str(file)).suites for case in suite.all()}
    assert set(first) == set(second)
    assert all(outcome in second[name] for name, outcome in first.items())
    return first


def properties(file: Path) -> dict[str, list[str]]:
    """The properties of all suites, by name."""
    found: dict[str, list[str]] = {}
    for suite in HtmlReader(str(file)).suites:
        for each in suite.properties:
            assert each.name is not None
            assert each.value is not None
            found.setdefault(each.name, []).append(each.value)
    return found
