"""The short form of the chaos test; ``make chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import chaos
from tests.chaos.storm import Weather

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_the_books_balance_after_a_storm(tmp_path: Path) -> None:
    books = chaos(
        tmp_path,
        seed=33,
        tasks=40,
        weather=Weather(worker_kills=0.3, lost_replies=0.25, actions_every=3.0, actions=12, triggerer_kills_every=30.0),
        within=400,
    )
    print("\n".join(f"{count:7}  {name}" for name, count in sorted(books.counts.items())))
    assert books.faults == []
    # It was a storm, and what it is about did happen.
    counts = books.counts
    assert counts["runs"] >= 40
    assert sum(count for name, count in counts.items() if name.startswith("task processes killed:")) >= 8
    assert counts["the triggerer was killed"] >= 1
    assert counts["tasks were cleared"] + counts["tasks were marked failed"] >= 6
    assert counts["is the one whose start got no reply: adopted"] >= 3
    assert counts["was started by an earlier try: waiting for it, no new start"] >= 1
    assert counts["secrets searched for"] > 4
