"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Time is not what is tested, and a busy machine is slow; in CI the same examples each time.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    database=None if os.environ.get("CI") else settings.default.database,
)
settings.load_profile("project")

# The storm and the kills on a real Airflow are hard on a machine, and not yet known to end well on every one: `make
# storm` runs them, until they have shown that they can be relied on.
if not os.environ.get("STORM"):
    collect_ignore = ["chaos/test_chaos.py", "e2e/test_faults.py"]
