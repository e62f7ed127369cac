"""The page "Test runs" on PostgreSQL: the same queries over the same rows, with the same results as on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.postgresql import empty_database
from tests.integration.plugin.pages import Page, report, rows

pytestmark = pytest.mark.integration

_RUNS: list[dict[str, Any]] = [
    {"number": 1, "xcoms": {"return_value": report(1, ("joint account",))}},
    {"number": 2, "operator": "NightlyRunOperator"},
    {"number": 3, "operator": "BashOperator", "xcoms": {"test_run": None}},
    # From before there were marks.
    {"number": 4, "task": "older", "xcoms": {"test_run": None}},
    {"number": 5, "dag": "secret_dag"},
    {"number": 6, "map_index": 0, "state": "deferred", "xcoms": {"return_value": None}},
    {"number": 6, "map_index": 1, "state": "failed", "xcoms": {"return_value": {"a": "x" * 1_500_000}}},
    *({"number": n, "dag": "many", "minute": 0} for n in range(10, 65)),
]


@pytest.fixture
def pages(postgresql: str) -> Iterator[tuple[Page, Page]]:
    """The page over a database of PostgreSQL, and over one of SQLite."""
    made = Page(empty_database(postgresql, "page")), Page()
    for page in made:
        page.manager.dag_ids = {"shop", "many"}
        page.add(*_RUNS)
    yield made
    for page in made:
        page.engine.dispose()


def test_it_shows_the_same_as_on_sqlite(pages: tuple[Page, Page]) -> None:
    for path, params in (
        ("", {}),
        ("", {"dag_id": "shop"}),
        ("", {"dag_id": "shop", "task_id": "test"}),
        ("", {"dag_id": "secret_dag"}),
        ("tasks", {}),
        ("tasks", {"dag_id": "shop"}),
    ):
        found = []
        for page in pages:
            html = page.get(path, **params)
            older = page.older(html)
            found.append([_without_nonce(html), _without_nonce(page.get(path, **older)) if older else ""])
        assert found[0] == found[1]
        assert not [line for line in found[0][0] if "secret_dag . test" in line]
    assert len(rows(pages[0].get("", dag_id="shop"))) == 5
    assert len(rows(pages[0].get())) == 50
    pages[0].manager.dag_ids = {"secret_dag"}
    assert "secret_dag . test" in pages[0].get()


def _without_nonce(html: str) -> list[str]:
    return [line for line in html.splitlines() if "nonce=" not in line]
