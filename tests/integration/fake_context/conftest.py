from __future__ import annotations

import pytest

from tests.integration.fake_context.tasks import Told


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Told:
    """The log of the tasks."""
    return Told(capfd)
