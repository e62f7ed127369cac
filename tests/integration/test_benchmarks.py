"""The benchmark itself: ten waits of ours against its server, and what is written about such figures."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import plan, report

pytestmark = pytest.mark.integration


def test_ten_waits_are_measured():
    busy = {"runs": 10, "finish": (1.0, 1.5), "faults": [{"kind": "503", "share": 0.2}]}
    wave = [
        ("events", busy, {"interval": 0.2, "limit": 20.0}),
        ("steady", {"runs": 10}, {"interval": 0.5, "warm": 0.5, "window": 1.0}),
        ("start", {"lose_response": True}, {}),
    ]
    with plan.benchmark() as bench:
        faulty, steady, lost = bench.family("ours, listed", [wave])
    assert (faulty["failed"], faulty["waiting"], len(faulty["delays"])) == (0, 0, 10)
    assert faulty["faults"] > 0
    assert all(delay > 0 for delay in faulty["delays"])
    # Two intervals are watched, give or take a look at their edges.
    assert 5 <= steady["states"] <= 40
    assert steady["ended"] == 0
    assert 1 <= steady["connections"] <= 8
    assert steady["tokens"] == 1
    assert steady["cpu"] > 0
    # A run whose start was answered by nobody is found, and gone on with.
    assert (lost["starts"], lost["failed"]) == (1, False)


def _steady(cpu: float) -> dict[str, Any]:
    figures = {"cpu": cpu, "seconds": 10.0, "states": 2000, "requests": 10, "connections": 5, "tokens": 1}
    return {
        **figures,
        "runs": 1000,
        "memory": 9_000_000,
        "stalls": 0,
        "lag": 0.004,
        "longest": 0.01,
        "ended": 0,
        "row": 312,
    }


def test_figures_are_written_net_of_the_empty_trigger():
    columns = (*plan.COLUMNS, "empty")
    found = {
        "steady": {column: [_steady(cpu), _steady(cpu + 0.2)] for cpu, column in enumerate(columns, 1)},
        "slow": {},
        "growth": {},
        "detect": {"ours, listed": {"delays": [0.25, 0.5, 0.75]}},
        "faults": {},
        "starts": {"ours, listed": {"starts": 1, "failed": False, "outcome": ""}},
        "imports": {"ours": {"operators": [0.01, 0.012, 0.011]}},
        "machine": {"date": "2026-01-01", "cores": "2", "memory": "1 GB", "system": "-", "python": "3"},
    }
    found["steady"]["empty"] = [{**_steady(0.1), "memory": 7_000_000}]
    text = report.markdown(found)
    # (1 s - 0.1 s) for 2000 states, and (1.2 s - 0.1 s).
    assert (
        "| CPU seconds for 10 000 observed states | <= 0.75 listed, <= 12.75 individually | 5.00 (4.50-5.50) |" in text
    )
    assert "| memory, MB | <= 10 | 2.0 |" in text
    assert "| detection delay p50, in intervals | <= 0.55 | 0.50 | - |" in text
    assert "| this provider | <= 15, <= 15, <= 25 | 11.0 (10.0-12.0) | - | - |" in text
    assert "* ours: 1, and the task continues with one." in text
    ElementTree.fromstring(report.plot(found))


def test_every_subject_has_a_column():
    assert {subject for subject, _ in plan.COLUMNS.values()} | {"empty"} == set(plan.SUBJECTS)
    assert set(plan.FULL.faults) == set(plan.FAULTS)
    assert set(plan.FULL.columns) == set(plan.COLUMNS)
