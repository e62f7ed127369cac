"""Stopping a run, and making sure that it has stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import ApiError, NotFoundError
from airflow_provider_testruns.metrics import metrics
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.platform import Platform
from airflow_provider_testruns.steps import Steps, pause
from airflow_provider_testruns.transport.policy import retrying


def stop(
    platform: Platform,
    run: Run,
    log: Any,
    *,
    why: str,
    within: float = timing.CONFIRM_WITHIN,
    clock: Callable[[], float] = time.time,
) -> Steps[Run]:
    """Cancel a run and poll it until it is final, or ``within`` seconds have passed. Never raises an ApiError.

    Of every kind of run: where a platform has no call that stops one, its error says so, and is logged here.

    :param platform: the run's platform.
    :param run: the run as it was seen last.
    :param log: the task log.
    :param why: the reason, for the log: "the task timed out".
    :param within: seconds for all of it.
    :return: the run as it was seen last: final, unless a line in the log says otherwise.
    """
    until = clock() + within
    try:
        yield from retrying(platform.cancel_run(run), within / 2, grace=within / 2, clock=clock)
    except ApiError as e:
        log.error("Could not cancel run %s (%s); it may still be running. %s", run.run_id, why, e)
        return run
    metrics.count("cancelled", platform=run.platform)
    log.info("Asked the platform to cancel run %s: %s.", run.run_id, why)
    polls = 0
    failure: ApiError | None = None
    while True:
        try:
            run = yield from platform.get_run(run)
        except NotFoundError:
            log.info("Run %s no longer exists.", run.run_id)
            return run
        except ApiError as e:
            failure = e
        else:
            if run.final:
                log.info("Run %s has ended as %s.", run.run_id, run.raw_state)
                return run
        gap = timing.CONFIRM_BACKOFF.after(polls)
        if clock() + gap > until:
            log.warning(
                "Run %s was asked to stop and is still %s after %.0f s.%s",
                run.run_id,
                run.raw_state,
                within,
                f" {failure}" if failure else "",
            )
            return run
        yield from pause(gap, new_step=True)
        polls += 1
