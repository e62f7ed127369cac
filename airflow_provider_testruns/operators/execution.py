"""What the starting operators of all platforms do: from the start of a run to its verdict.

Loaded when a task is executed, not when its DAG file is read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_testruns.cleaning import outgoing_json
from airflow_provider_testruns.exceptions import (
    ApiError,
    NotFoundError,
    RunTimeoutError,
    StartSupersededError,
    TriggerFailedError,
)
from airflow_provider_testruns.lifecycle.starting import Starter
from airflow_provider_testruns.lifecycle.stopping import CONFIRM_WITHIN, stop
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, WaitStatus, fetch_report, look_once, wait_for
from airflow_provider_testruns.links.run import announce, mark_test_run
from airflow_provider_testruns.model import Verdict, assess
from airflow_provider_testruns.operators.delivery import deliver, tell_assets
from airflow_provider_testruns.operators.record import created_at, epoch_of, record_store
from airflow_provider_testruns.transport.policy import patiently

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.model import Run
    from airflow_provider_testruns.operators.base import StartRunOperator
    from airflow_provider_testruns.transport.blocking import BlockingClient

#: What a worker that is being stopped has before it is killed, with something to spare; seconds.
KILL_WITHIN = 3.5
#: How often a wait is handed to a new trigger after one that has failed.
MAX_TRIGGER_FAILURES = 3
#: The XCom with what is needed to do that, where there is no record.
WAIT_KEY = "test_run_wait"
#: What a task is set to when somebody ends it. A task that was cleared has a fresh try that looks after its run.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def execute(task: StartRunOperator, context: Context) -> dict[str, Any]:
    """Obtain a run, wait for it, judge it.

    :param task: the operator.
    :param context: the task's.
    :return: what the task returns.
    """
    # Raises for what can't be right, before a run is paid for.
    task._check_results(try_writing=True)
    hook = _ready_hook(task)
    starter = task._starter = task._new_starter(context, hook)
    starter.deadline = _deadline(task, context)
    task.log.info("Using connection %r: %s", task.conn_id, hook.settings.base_url)
    return _obtain(task, context, hook, starter)


def _obtain(task: StartRunOperator, context: Context, hook: PlatformHook[Any], starter: Starter) -> dict[str, Any]:
    from airflow_provider_testruns.reporting.xcom import run_to_event

    try:
        obtained = hook.client.run(starter.obtain(task.start_arguments()))
    except StartSupersededError:
        task._released = True
        raise
    run = task._run = obtained.run
    announce(context, run, task.log)
    mark_test_run(context, run, task.conn_id)
    if not task.wait_for_completion:
        tell_assets(task, context, run_to_event(run))
        started = {"run_id": run.run_id, "run_url": run.url, "state": run.state.value}
        return cast("dict[str, Any]", outgoing_json(started))
    if obtained.seen and run.final:
        return task._conclude(context, hook, WaitEnd(WaitStatus.FINISHED, run))
    return _follow(task, context, hook, run, seen=obtained.seen)


def _follow(
    task: StartRunOperator, context: Context, hook: PlatformHook[Any], run: Run, *, seen: bool
) -> dict[str, Any]:
    """Wait for a run, here or in the triggerer, and judge it."""
    starter = task._starter
    assert starter is not None
    assert starter.deadline is not None
    wait = Wait(run, starter.deadline, task.poll_interval, task.log, seen=seen, stalled_after=task.stalled_after)
    try:
        end = _wait(task, context, hook, wait)
    except AirflowTaskTimeout:
        # The cancel has a time limit of its own.
        hook.client.time_left = lambda: inf
        _give_up(task, hook, wait.run)
        # What Airflow asks on_kill for after this has been done, or is not wanted.
        task._released = True
        raise
    return task._conclude(context, hook, end)


def _wait(task: StartRunOperator, context: Context, hook: PlatformHook[Any], wait: Wait) -> WaitEnd:
    """Wait in place; or hand the wait over to the triggerer, and not return, unless it is over at the first look."""
    starter = task._starter
    # A run that is to be cancelled is not handed over, but cancelled until that is confirmed or this process is gone.
    if not task.deferrable or (starter is not None and starter.stopped):
        steps = wait_for(
            hook.platform,
            wait,
            each_round=lambda: task._note(wait),
            # on_kill returns to here, with a moment left to note what has become of the run: the next try then starts
            # anew instead of judging it.
            stopped=None if starter is None else lambda: starter.stopped,
        )
        return hook.client.run(steps, wait.deadline)
    end = hook.client.run(look_once(hook.platform, wait), wait.deadline)
    task._note(wait)
    if end is not None:
        return end
    from airflow_provider_testruns.triggers.run import defer_until_final

    if starter is not None and starter.trigger_failures > MAX_TRIGGER_FAILURES:
        raise _trigger_failed(task, context, hook, wait.run)
    _make_sure_it_is_wanted(task, context, hook, wait.run)
    _keep_wait(task, context, wait)
    defer_until_final(
        task,
        wait,
        platform=task.platform_name,
        conn_id=task.conn_id,
        cancel_on_kill=task.cancel_on_kill,
        log_told=task.log_told(),
    )


def resume(task: StartRunOperator, context: Context, event: dict[str, Any] | None) -> dict[str, Any]:
    """Go on after the triggerer's wait.

    :param task: the operator.
    :param context: the task's.
    :param event: as :meth:`.WaitEnd.to_event` makes it.
    :raises ConfigurationError: when it is none.
    """
    with task._errors_in_junit(context):
        end = WaitEnd.from_event(event)
        if end.status is WaitStatus.ERROR and type(end.error) is ApiError:
            # Whatever a platform answers, or does not answer, has a type of its own: the trigger itself has failed.
            return resume_failed(task, context, str(end.error), ())
    hook = _ready_hook(task)
    task._run = end.run
    starter = task._starter = task._new_starter(context, hook)
    with task._errors_in_junit(context):
        if not starter.restore(end.run):
            # Seen with SQLite, which gives the id of a trigger that is gone to the next one: a task that was cleared
            # gets the event of its older run, and nobody would wait for its new one.
            task.log.warning(
                "The event is about run %s, which is not this task's: going on with its own.", end.run.run_id
            )
            task._run = None
            return execute(task, context)
        return task._conclude(context, hook, end)


def resume_failed(task: StartRunOperator, context: Context, reason: str, traceback: Sequence[str]) -> dict[str, Any]:
    """Go on after a trigger that has failed, for whatever reason: the run is running all the same.

    Airflow does not come back to ``execute_complete`` then. The wait is handed to a new trigger, up to
    :data:`MAX_TRIGGER_FAILURES` times, with the deadline that it had.

    :param task: the operator.
    :param context: the task's.
    :param reason: what Airflow says of it.
    :param traceback: of the trigger.
    """
    from airflow_provider_testruns.cleaning import clean
    from airflow_provider_testruns.redaction import redact

    said = "".join(str(line) for line in traceback).strip()
    task.log.error("The trigger has failed (%s). %s", reason, clean(redact(said), lines=True))
    task._check_results()
    hook = _ready_hook(task)
    starter = task._starter = task._new_starter(context, hook)
    latest = _deadline(task, context)
    if starter.has_store:
        deadline, failures = starter.stored_wait()
        run = None
    else:
        run, deadline, failures = _kept_wait(context)
    # What is stored can be written by people: it can't make a wait longer.
    starter.deadline = latest if deadline is None else min(deadline, latest)
    starter.trigger_failures = failures + 1
    if starter.has_store:
        # The record says which run it is, and what is to be done if that was not noted.
        return _obtain(task, context, hook, starter)
    if run is None:
        raise TriggerFailedError(
            f"The trigger has failed ({reason}), and there is nothing that says which run it waited for: see the XCom"
            " run_id. The run may still be running. Check it on the platform."
        )
    # XComs can be written by people, as the record can.
    run, seen = hook.client.run(starter.confirm(run, task.start_arguments()))
    task._run = run
    return _follow(task, context, hook, run, seen=seen)


def _keep_wait(task: StartRunOperator, context: Context, wait: Wait) -> None:
    """Keep what is needed to go on should the trigger fail: in the record, or where there is none in an XCom, which
    Airflow keeps while a task is deferred."""
    starter = task._starter
    assert starter is not None
    if starter.has_store:
        starter.keep_wait()
        return
    value = {"run": wait.run.to_dict(), "deadline": wait.deadline, "trigger_failures": starter.trigger_failures}
    context["ti"].xcom_push(key=WAIT_KEY, value=value)


def _kept_wait(context: Context) -> tuple[Run | None, float | None, int]:
    """What :func:`_keep_wait` has put into an XCom."""
    from airflow_provider_testruns.model import Run

    ti = context["ti"]
    value = ti.xcom_pull(task_ids=ti.task_id, key=WAIT_KEY, map_indexes=ti.map_index)
    try:
        deadline = float(value["deadline"])
        return Run.from_dict(value["run"]), deadline if isfinite(deadline) else None, int(value["trigger_failures"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None, None, 0


def _trigger_failed(task: StartRunOperator, context: Context, hook: PlatformHook[Any], run: Run) -> TriggerFailedError:
    ti = context["ti"]
    times = MAX_TRIGGER_FAILURES + 1
    said = f"The trigger that waited for run {run.run_id} has failed {times} times: see the log for why."
    if int(ti.try_number or 0) <= int(ti.max_tries or 0):
        said += f" The run is {run.raw_state} and left running; "
        follows = task._starter is not None and task._starter.has_store
        said += "the next try waits for it." if follows else "without a record, the next try starts another one."
    elif task.cancel_on_timeout:
        run = _give_up(
            task, hook, run, "nobody waits for it any more: the trigger has failed, and this was the last try"
        )
        said += f" It has now ended as {run.raw_state}." if run.final else " It may still be running: see the log."
    else:
        said += " It is left running (cancel_on_timeout=False)."
    if run.url:
        said += f" The run: {run.url}"
    return TriggerFailedError(said)


def killed(task: StartRunOperator, hook: PlatformHook[Any], starter: Starter) -> None:
    """Cancel the run when the task is stopped from outside.

    Runs in a signal handler with about 5 s before the process is killed: a transport of its own, no lock, no call
    to Airflow.

    :param task: the operator.
    :param hook: its hook.
    :param starter: the bookkeeping of its start.
    """
    # This returns to where the task was interrupted: from there nothing is to be started any more.
    starter.stopped = True
    record = starter.record
    run = task._run or (record.run if record is not None else None) or starter.older
    if run is not None and run.final:
        return
    if run is None and record is None:
        task.log.warning("The task was killed before it had started a run.")
        return
    until = time.time() + KILL_WITHIN
    client = None
    try:
        client = hook.new_client(timeout=KILL_WITHIN / 3, in_signal_handler=True)
        if run is None:
            run = _one_that_was_starting(task, client, starter, until)
        if run is not None:
            _stop(task, client, hook, run, "the task was killed", within=until - time.time())
    except Exception as e:
        # Whatever was interrupted may be half done. An exception would end up in the middle of it.
        task.log.error("The task was killed and its run could not be cancelled: it may go on. %s", e)
    finally:
        if client is not None:
            client.close()


def _one_that_was_starting(
    task: StartRunOperator, client: BlockingClient, starter: Starter, until: float
) -> Run | None:
    """One look for the run of a start that has no reply yet; ``None`` when it is not sure which it is."""
    record = starter.record
    assert record is not None
    if record.cannot_list is not None:
        task.log.warning(
            "The task was killed while it started a run, and that can't be looked up: %s The platform may"
            " have a run that nobody waits for.",
            record.cannot_list,
        )
        return None
    found = [run for run in client.run(starter.candidates(record), until) if not starter.doubt(run, record)]
    if len(found) == 1:
        return found[0]
    task.log.warning(
        "The task was killed while it started a run. %s The platform may have a run that nobody waits"
        " for: look for one begun since %s.",
        f"{len(found)} runs could be it." if found else "No run of it is listed yet.",
        time.strftime("%H:%M:%S UTC", time.gmtime(record.intent_at)),
    )
    return None


def _ready_hook(task: StartRunOperator) -> PlatformHook[Any]:
    """The hook, with all that on_kill needs of it read and imported."""
    hook = task.make_hook()
    _ = hook.client, hook.platform
    hook.client.time_left = task._time_left
    task._hook = hook
    return hook


def new_starter(task: StartRunOperator, context: Context, hook: PlatformHook[Any]) -> Starter:
    """The bookkeeping of a start.

    :param task: the operator.
    :param context: the task's.
    :param hook: its hook.
    """
    store = record_store(context) if task.durable else None
    if store is None and task.durable:
        task.log.debug("This Airflow version has no task state store: a retry can't go on with an earlier run.")
    return Starter(
        hook.platform,
        store=store,
        epoch=epoch_of(context, task),
        window=hook.settings.timeout,
        adopt=task.adopt_lost_start,
        cancel_older=task.cancel_on_kill,
        log=task.log,
        clock_offset=lambda: hook.client.session.clock_offset,
        not_before=created_at(context),
    )


def _deadline(task: StartRunOperator, context: Context) -> float:
    deadline = time.time() + task.timeout
    # In place Airflow enforces execution_timeout by itself; while a task is deferred it does not.
    if task.deferrable and task.execution_timeout is not None:
        started = context["ti"].start_date
        began = started.timestamp() if started is not None else time.time()
        deadline = min(deadline, began + task.execution_timeout.total_seconds())
    return deadline


def _make_sure_it_is_wanted(task: StartRunOperator, context: Context, hook: PlatformHook[Any], run: Run) -> None:
    """Cancel the run of a task that was marked while this worker was starting it.

    Airflow tells a worker of that with its next heartbeat. A task that defers before is only refused, nobody calls
    its on_kill, and the run would go on.

    :raises AirflowFailException: when it was; Airflow does not take the outcome of this try any more.
    """
    from airflow_provider_testruns.triggers.run import task_state

    try:
        state = task_state(context["ti"])
    except Exception as e:  # whatever Airflow's channel raises: the wait is what matters
        task.log.debug("The task's state can't be asked for (%s: %s).", type(e).__name__, e)
        return
    if state not in _ENDED:
        return
    if task.cancel_on_kill:
        _stop(task, hook.client, hook, run, f"the task was set to {state}")
    raise AirflowFailException(f"The task was set to {state} while it started run {run.run_id}.")


def note(task: StartRunOperator, wait: Wait) -> None:
    """Keep what a look has brought, in the record and for on_kill.

    :param task: the operator.
    :param wait: its wait.
    """
    task._run = wait.run
    if task._starter is None:
        return
    try:
        if wait.seen:
            task._starter.saw(wait.run)
        task._starter.catch_up()
    except StartSupersededError:
        task._released = True
        raise


def conclude(task: StartRunOperator, context: Context, hook: PlatformHook[Any], end: WaitEnd) -> dict[str, Any]:
    """What the end of a wait means for the task.

    :param task: the operator.
    :param context: the task's.
    :param hook: its hook.
    :param end: of its wait.
    :return: what the task returns.
    """
    if end.status is WaitStatus.ERROR and end.error is not None:
        raise _never_shown(task, hook, end.run, end.error) if _is_unseen(task, end) else end.error
    if end.status is WaitStatus.TIMEOUT:
        raise _timed_out(task, hook, end)
    return _judge(task, context, hook, end.run)


def _is_unseen(task: StartRunOperator, end: WaitEnd) -> bool:
    """Whether a wait has ended because the platform never showed the run that it had started."""
    record = task._starter.record if task._starter is not None else None
    shown = (record is not None and record.seen) or end.run.started_at is not None
    return isinstance(end.error, NotFoundError) and not shown


def _never_shown(task: StartRunOperator, hook: PlatformHook[Any], run: Run, error: ApiError) -> ApiError:
    """The error of a run that was started and that no call shows: it may be running all the same.

    Where a time-out would cancel it, it is asked to stop: its id is known, and an orphaned run may be paid for.
    """
    if not task.cancel_on_timeout:
        what = "It may still be running (cancel_on_timeout=False): stop it on the platform if it is not wanted."
        return NotFoundError(f"{error} {what}", status=404)
    task.log.warning("The platform does not show run %s, which may still be running: cancelling it.", run.run_id)
    steps = patiently(hook.platform.cancel_run(run.run_id, **run.context), CONFIRM_WITHIN, log=task.log.warning)
    try:
        hook.client.run(steps, time.time() + CONFIRM_WITHIN)
    except ApiError as e:
        what = f"It may still be running, and could not be cancelled: stop it on the platform. ({e})"
    else:
        what = "The platform was asked to cancel it; whether it has stopped can't be seen. Check it on the platform."
    return NotFoundError(f"{error} {what}", status=404)


def _judge(task: StartRunOperator, context: Context, hook: PlatformHook[Any], run: Run) -> dict[str, Any]:
    steps = fetch_report(hook.platform, run, task.log)
    report = task._report = hook.client.run(steps)
    task._run = report.run
    judgement = assess(report, task.gates())
    if task._starter is not None:
        try:
            if report.run.stalled:
                # The next try asks for it, and does not start another beside it.
                task._starter.gave_up(report.run)
            else:
                task._starter.judged(report.run, judgement.verdict)
        except StartSupersededError:
            task._released = True
            raise
    _save_artifacts(task, context, hook, report.run)
    result, error = deliver(task, context, report, judgement)
    if error is None:
        return cast("dict[str, Any]", result)
    if judgement.verdict is Verdict.FAILED and not task.retry_failed_runs:
        raise AirflowFailException(str(error)) from error
    raise error


def _save_artifacts(task: StartRunOperator, context: Context, hook: PlatformHook[Any], run: Run) -> None:
    if task.artifacts_path is None:
        return
    try:
        saved = hook.save_artifacts(run, task.artifacts_path)
    except Exception as e:  # of whatever kind: file systems behind fsspec have their own
        task.log.warning("The files of run %s could not all be saved to %s: %s", run.run_id, task.artifacts_path, e)
        return
    for place in saved:
        task.log.info("Saved %s", place)
    context["ti"].xcom_push(key="artifacts", value=outgoing_json(saved))


def _timed_out(task: StartRunOperator, hook: PlatformHook[Any], end: WaitEnd) -> RunTimeoutError:
    run = end.run
    said = f"Run {run.run_id} was not final in time (timeout {task.timeout:g} s): {run.raw_state}"
    said += f", {run.progress}." if run.progress is not None else "."
    if run.start_error:
        said += f" It was found after its start had failed: {run.start_error}"
    if end.error is not None:
        said += f" The last look at it failed: {end.error}"
    if task.cancel_on_timeout:
        run = _give_up(task, hook, run)
        said += f" It has now ended as {run.raw_state}." if run.final else " It may go on: see the log."
    else:
        said += " It goes on (cancel_on_timeout=False); a retry waits for it again."
    if run.url:
        said += f" The run: {run.url}"
    return RunTimeoutError(said)


def _give_up(task: StartRunOperator, hook: PlatformHook[Any], run: Run, why: str = "its time is over") -> Run:
    """What becomes of the run of a task that has no time left.

    :return: the run as it was seen last.
    """
    if not task.cancel_on_timeout:
        return run
    run = _stop(task, hook.client, hook, run, why)
    if run.ending is Verdict.CANCELLED and task._starter is not None:
        # So that the next try starts a new run instead of judging this one. A run that ended by itself just then is
        # judged by the next try.
        task._starter.judged(run, Verdict.CANCELLED)
    return run


def _stop(
    task: StartRunOperator,
    client: BlockingClient,
    hook: PlatformHook[Any],
    run: Run,
    why: str,
    within: float = CONFIRM_WITHIN,
) -> Run:
    run = client.run(stop(hook.platform, run, task.log, why=why, within=within), time.time() + within)
    task._run = run
    return run
