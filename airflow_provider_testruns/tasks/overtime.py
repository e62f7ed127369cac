"""A second deadline for ``execution_timeout``.

Airflow enforces it with one alarm, whose exception is lost when the alarm strikes while Python runs a finaliser or the
callback of a weak reference: Python prints "Exception ignored" there, and the task continues. So each request and each
pause of a task is checked against the clock, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_testruns import timing

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


def time_left(task: BaseOperator, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """What a client asks before each step, to be made when this process begins to execute the task.

    :param task: the operator or sensor.
    :param clock: seconds; for tests.
    :return: gives the seconds that are left. It raises :class:`AirflowTaskTimeout` when there are none, as Airflow's
        own alarm does.
    """
    if task.execution_timeout is None:
        return lambda: math.inf
    limit = task.execution_timeout.total_seconds()
    until = clock() + limit + timing.OVERTIME

    def left() -> float:
        seconds = until - clock()
        if seconds <= 0:
            raise AirflowTaskTimeout(
                f"The execution_timeout of {limit:g} s passed {timing.OVERTIME:g} s ago, and Airflow's own alarm was"
                " lost."
            )
        return seconds

    return left
