"""Which tests run in one process, one after the other, when the rest runs beside them; and what begins first.

What shares a running Airflow is a group. The longest begin first, so that nothing long is left at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Beginnings of paths, and the group of the tests there; ``None``: each file is a group.
ORDER: Sequence[tuple[str, str | None]] = (
    ("tests/e2e/test_faults.py", "faults"),
    ("tests/chaos/test_chaos.py", "chaos"),
    ("tests/e2e/test_demo.py", "demo"),
    ("tests/e2e/", "e2e"),
    # Each of these has a process with Airflow; one for all of them would be at it the longest of all.
    ("tests/integration/dag_test/test_results.py", None),
    ("tests/integration/dag_test/test_tries.py", "dag_test 1"),
    ("tests/integration/dag_test/test_sensors.py", "dag_test 1"),
    ("tests/integration/dag_test/test_isolation.py", "dag_test 1"),
    ("tests/integration/dag_test/", "dag_test 2"),
    ("tests/integration/", None),
)


class Scheduling(LoadScopeScheduling):
    """Gives whole groups to the workers, in order.

    pytest-xdist's own way, ``--dist loadgroup``, adds the group to a test's id, which pytest 9.2 does not let it do.
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        # In the order of ORDER, not by the number of tests.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return _place(nodeid.partition("::")[0])[1]


def arrange(items: list[pytest.Item]) -> None:
    """Put tests in order."""
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0])[0])


def _place(path: str) -> tuple[int, str]:
    for number, (beginning, group) in enumerate(ORDER):
        if path.startswith(beginning):
            return number, group or path
    return len(ORDER), path
