"""docs/security.md names every limit, with the value that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_testruns import get_provider_info, limits
from airflow_provider_testruns.lifecycle.run_log import MAX_LINES
from airflow_provider_testruns.reporting import lineage, xcom
from airflow_provider_testruns.timing import CALL_PATIENCE, GRACE, MAX_RETRY_AFTER
from airflow_provider_testruns.transport.nonblocking import CONNECTIONS, MAX_CONNECTIONS

pytestmark = pytest.mark.unit

_REPOSITORY = Path(__file__).parents[2]
_DOCS = _REPOSITORY / "docs" / "security.md"
#: What sizes are counted in.
_UNITS = {"kB": limits.KB, "MB": limits.MB, "s": 1, "": 1}


def _documented() -> dict[str, tuple[float, str, str]]:
    """The table of limits: for each the value, what it bounds, and how to change it."""
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| ([\d,.]+) ?(kB|MB|s|) \| (.+?) \| (.+?) \|$", _DOCS.read_text(), re.MULTILINE
    )
    assert len({row[0] for row in rows}) == len(rows)
    return {name: (float(value.replace(",", "")) * _UNITS[unit], what, how) for name, value, unit, what, how in rows}


def test_every_limit_is_documented_with_its_value_and_how_to_change_it() -> None:
    units = {"KB", "MB"}
    real = {name: value for name, value in vars(limits).items() if name.isupper() and name not in units}
    documented = _documented()
    assert {name: value for name, (value, _, _) in documented.items()} == real
    assert all(what and how for _, what, how in documented.values())


def test_what_can_be_changed_is_a_setting_of_connections() -> None:
    named = {name for _, _, how in _documented().values() for name in re.findall(r"extra `(\w+)`", how)}
    assert named == {"max_file_size"}
    for connection in get_provider_info.get_provider_info()["connection-types"]:
        assert named <= connection["conn-fields"].keys()


def test_the_other_bounds_are_as_documented() -> None:
    text = _DOCS.read_text()
    for said in (
        f"| {MAX_RETRY_AFTER:.0f} s |",
        f"| {CONNECTIONS}, and up to {MAX_CONNECTIONS} while requests wait for one |",
        f"| {MAX_LINES:,} |",
        f"| {xcom.MAX_FAILURES}; {xcom.MAX_MESSAGE} |",
        f"| {lineage.MAX_CASES:,} |",
        f"| {GRACE:.0f} s without a break |",
    ):
        assert said in text
    assert CALL_PATIENCE < limits.STEP_POLL_SECONDS


def test_the_policy_says_how_to_report() -> None:
    policy = (_REPOSITORY / "SECURITY.md").read_text()
    assert "privately" in policy
    for link in re.findall(r"\]\((?!http)([^)#]+)", policy + _DOCS.read_text().replace("../", "")):
        assert (_REPOSITORY / link).exists(), link
