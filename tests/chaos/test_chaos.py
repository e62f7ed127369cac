"""The short form of the chaos test; ``make chaos`` is the long one."""

from __future__ import annotations

import pytest

from tests.chaos.books import Balance
from tests.chaos.run import chaos
from tests.chaos.storm import PLANNED, Weather
from tests.harness.database import migrated_database

#: For hanging only; seconds.
WITHIN = 1500.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * WITHIN)]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Balance:
    """One storm: each kind of fault by plan, and more of them by chance."""
    books = chaos(
        tmp_path_factory.mktemp("chaos"),
        seed=33,
        tasks=40,
        weather=Weather(worker_kills=0.15, lost_responses=0.1, actions=0, triggerer_kills_every=2 * WITHIN),
        within=WITHIN,
        database=migrated_database(),
    )
    print("\n".join(f"{count:7}  {name}" for name, count in sorted(books.counts.items())))
    return books


def test_the_books_balance_after_a_storm(books: Balance) -> None:
    assert books.faults == []
    assert books.counts["runs"] >= 40
    assert books.counts["secrets searched for"] > 4


def test_every_kind_of_fault_has_struck(books: Balance) -> None:
    assert {name.removeprefix("planned: ") for name in books.counts if name.startswith("planned: ")} == set(PLANNED)
    assert books.counts["the triggerer was killed"] == 1
    assert (books.counts["tasks were cleared"], books.counts["tasks were marked failed"]) >= (2, 2)


def test_what_was_lost_was_found_again(books: Balance) -> None:
    # Eight responses were lost by plan, on platforms that can list; nobody ended those tasks.
    assert books.counts["whose start response was lost"] >= 8
    # A worker that waited was killed by plan.
    assert books.counts["was started by an earlier try: waiting for it, no new start"] >= 1
