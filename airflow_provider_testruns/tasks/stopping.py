"""What the operators that stop a run do. Loaded when a task is executed, not when its DAG file is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_testruns.cleaning import outgoing_json
from airflow_provider_testruns.exceptions import InvalidRequestError, RunTimeoutError
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitStatus, wait_for
from airflow_provider_testruns.links.run import announce
from airflow_provider_testruns.model import Run, Verdict
from airflow_provider_testruns.reporting.xcom import run_to_xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook


class Found(NamedTuple):
    """A run before it is stopped.

    :param run: as the platform shows it; ``None`` when it does not, and the run can be stopped all the same.
    :param refusal: why the platform does not allow it to be stopped now; empty when it does.
    """

    run: Run | None
    refusal: str = ""


def stop_run(
    hook: PlatformHook[Any],
    requested: Run,
    before: Found,
    context: Context,
    log: Any,
    *,
    timeout: float,
    poll_interval: float,
) -> dict[str, Any]:
    """Stop a run, unless it has finished, and wait until it has.

    :param hook: of its platform.
    :param requested: the run, as far as the task's arguments describe it.
    :param before: as the platform shows it.
    :param context: the task's.
    :param log: the task log.
    :param timeout: seconds within which it must have finished.
    :param poll_interval: seconds between two polls.
    :return: what the task returns.
    :raises InvalidRequestError: when the platform does not allow it to be stopped.
    :raises RunTimeoutError: when it has not finished in time.
    :raises ApiError: when it could not be stopped, or can't be read.
    """
    found, refusal = before
    if found is not None:
        announce(context, found, log)
    if found is not None and found.final:
        run = found
        log.info("Run %s has already finished as %s: nothing to stop.", run.run_id, run.raw_state)
    elif refusal:
        run = found or requested
        raise InvalidRequestError(
            f"Connection {hook.conn_id!r}: run {run.run_id} is {run.raw_state}, and {refusal}. Nothing was sent; the"
            " run continues. Try again later, or wait for its end with a sensor."
        )
    else:
        run = found or requested
        hook.cancel_run(run.run_id, **requested.ids)
        log.info("Asked the platform to stop run %s.", run.run_id)
        wait = Wait(run, time.time() + timeout, poll_interval, log, seen=found is not None)
        run = _wait_until_finished(hook, wait, timeout)
        if found is None:
            announce(context, run, log)
        stopped = run.platform_verdict is Verdict.CANCELLED
        log.info(
            "Run %s has finished as %s%s.",
            run.run_id,
            run.raw_state,
            ": it was stopped" if stopped else f" ({run.platform_verdict}) before it was stopped",
        )
    return cast("dict[str, Any]", outgoing_json(run_to_xcom(run)))


def _wait_until_finished(hook: PlatformHook[Any], wait: Wait, timeout: float) -> Run:
    """Wait until a run that was asked to stop has finished."""
    end = hook.client.run(wait_for(hook.platform, wait), wait.deadline)
    run = end.run
    if end.status is WaitStatus.ERROR and end.error is not None:
        raise end.error
    if end.status is WaitStatus.TIMEOUT:
        message = f"Run {run.run_id} was asked to stop and is still {run.raw_state} after {timeout:g} s."
        if end.error is not None:
            message += f" The last poll failed: {end.error}"
        raise RunTimeoutError(f"{message} Check it on the platform, or give the task more time (timeout).")
    return run
