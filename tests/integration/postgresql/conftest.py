"""A PostgreSQL of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.harness.postgresql import cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database, for SQLAlchemy."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(cluster())
        except LookupError as e:
            pytest.skip(str(e))
        yield url
