"""What the operators that stop a run have in common. Loaded when a task is executed, not when its DAG file is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.exceptions import RunTimeoutError
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitStatus, wait_for

if TYPE_CHECKING:
    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.model import Run


def wait_until_over(
    hook: PlatformHook[Any], run: Run, what: str, log: Any, *, timeout: float, poll_interval: float, seen: bool = True
) -> Run:
    """Wait until a run that was asked to stop is over.

    :param hook: of its platform.
    :param run: the run as it was seen last.
    :param what: what the platform calls it, for the message.
    :param log: the task's.
    :param timeout: seconds until it must be over.
    :param poll_interval: seconds between two looks.
    :param seen: whether the platform has shown it.
    :return: the run, final.
    :raises RunTimeoutError: when it is not over in time.
    :raises ApiError: when it can't be seen.
    """
    wait = Wait(run, time.time() + timeout, poll_interval, log, seen=seen)
    end = hook.client.run(wait_for(hook.platform, wait), wait.deadline)
    if end.status is WaitStatus.ERROR and end.error is not None:
        raise end.error
    if end.status is WaitStatus.TIMEOUT:
        said = f"{what} {run.run_id} was asked to stop and is still {end.run.raw_state} after {timeout:g} s."
        if end.error is not None:
            said += f" The last look at it failed: {end.error}"
        raise RunTimeoutError(f"{said} Look at it on the platform, or give the task more time (timeout).")
    return end.run
