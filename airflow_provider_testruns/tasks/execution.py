"""The execution of a task that starts a run: from the start to the verdict.

Loaded when a task is executed, not when its DAG file is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_testruns import timing
from airflow_provider_testruns.cleaning import clean, outgoing_json
from airflow_provider_testruns.exceptions import (
    ApiError,
    NotFoundError,
    RunTimeoutError,
    StartSupersededError,
    TriggerFailedError,
)
from airflow_provider_testruns.lifecycle.run_log import RunLog
from airflow_provider_testruns.lifecycle.starting import Starter
from airflow_provider_testruns.lifecycle.stopping import stop
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, WaitStatus, fetch_report, look_once, wait_for
from airflow_provider_testruns.links.run import announce, mark_test_run
from airflow_provider_testruns.metrics import metrics, span
from airflow_provider_testruns.model import Run, RunReport, Verdict
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.reporting.xcom import run_to_event
from airflow_provider_testruns.tasks.comparing import Comparing
from airflow_provider_testruns.tasks.delivery import deliver, emit_asset_events, errors_in_junit
from airflow_provider_testruns.tasks.overtime import time_left
from airflow_provider_testruns.tasks.record import created_at, epoch_of, record_store
from airflow_provider_testruns.transport.policy import retrying

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.tasks.starting import StartingTask
    from airflow_provider_testruns.transport.blocking import BlockingClient

#: The XCom with what is needed to do that, where there is no record.
WAIT_KEY = "test_run_wait"
#: What a task is set to when a user ends it. A task that was cleared has a new try, which takes care of its run.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


#: How runs come to a task, as far as it is counted.
_COUNTED = frozenset({"started", "reattached", "adopted"})


class RunExecution:
    """What one process does for a task that starts a run: before a deferral, or after it.

    It is made when the process begins to execute the task, which is when ``execution_timeout`` begins to count.

    :param task: the operator, with its arguments rendered.
    :param context: the task's.
    """

    #: The hook and the bookkeeping of the start, once there is something that :meth:`on_kill` could undo.
    hook: PlatformHook[Any]
    starter: Starter

    def __init__(self, task: StartingTask, context: Context) -> None:
        self._task = task
        self._context = context
        self._log = task.log
        self._time_left = time_left(task)
        self._run_log: RunLog | None = None
        self._connected = False
        #: Whether the run is no longer this process's to cancel.
        self._released = False
        #: Whether the platform's counters of failures have been what they seemed, as far as is known.
        self._may_stop_early = True
        #: The run, as soon as it is known.
        self.run: Run | None = None

    def start(self) -> Any:
        """Obtain a run, wait for it, judge it.

        :return: what the task returns.
        """
        with errors_in_junit(self._task, self._context):
            return self._start()

    def resume(self, event: Any) -> Any:
        """Continue after the triggerer's wait.

        :param event: as :meth:`.WaitEnd.to_event` makes it.
        :return: what the task returns.
        :raises ConfigurationError: when it is not such an event.
        """
        with errors_in_junit(self._task, self._context):
            self._task.read_booleans()
            end = WaitEnd.from_event(event)
            self._run_log = self._new_run_log(str(event.get("log_told") or event.get("log_cursor") or ""))
            if end.status is WaitStatus.ERROR and type(end.error) is ApiError:
                # Whatever a platform responds, or does not, has a type of its own: the trigger itself has failed.
                return self._resume_after_failure(str(end.error), ())
            self.run = end.run
            self.connect()
            if not self.starter.restore(end.run):
                # Seen with SQLite, which gives the id of a deleted trigger to the next one: a task that was cleared
                # gets the event of its older run, and nobody would wait for its new one.
                self._log.warning(
                    "The event for run %s belongs to another run; resuming this task's own.", end.run.run_id
                )
                self.run = self._run_log = None
                return self._start()
            return self._conclude(end)

    def resume_after_failure(self, reason: str, traceback: Sequence[str]) -> Any:
        """Continue after a trigger that has failed, for whatever reason: the run is running all the same.

        Airflow does not come back to ``execute_complete`` then. The wait is handed to a new trigger, up to
        :data:`.timing.MAX_TRIGGER_FAILURES` times, with the deadline that it had.

        :param reason: as Airflow gives it.
        :param traceback: of the trigger.
        :return: what the task returns.
        """
        with errors_in_junit(self._task, self._context):
            self._task.read_booleans()
            return self._resume_after_failure(reason, traceback)

    def on_kill(self) -> None:
        """Cancel the run when the task is stopped from outside.

        Runs in a signal handler with about 5 s before the process is killed: a transport of its own, no lock, no call
        to Airflow.
        """
        # Before it is connected nothing has been done that could be undone.
        if not self._task.cancel_on_kill or self._released or not self._connected:
            return
        # This returns to where the task was interrupted: from there nothing is to be started any more.
        self.starter.stopped = True
        record = self.starter.record
        run = self.run or (record.run if record is not None else None) or self.starter.older
        if run is not None and run.final:
            return
        if run is None and record is None:
            self._log.warning("The task was killed before it had started a run.")
            return
        until = time.time() + timing.WORKER_KILL_WITHIN
        client = None
        try:
            client = self.hook.new_client(timeout=timing.WORKER_KILL_WITHIN / 3, in_signal_handler=True)
            if run is None:
                run = self._find_starting_run(client, until)
            if run is not None:
                self._stop(run, "the task was killed", client, within=until - time.time())
        except Exception as e:
            # Whatever was interrupted may be half done. An exception would end up in the middle of it.
            self._log.error("The task was killed. Could not cancel its run; it may still be running. %s", e)
        finally:
            if client is not None:
                client.close()

    def connect(self) -> None:
        """Make the hook and the bookkeeping of the start, with all that :meth:`on_kill` needs of them read and
        imported."""
        hook = self._task.make_hook()
        _ = hook.client, hook.platform
        hook.client.time_left = self._time_left
        self.hook, self.starter = hook, self._new_starter(hook)
        self._connected = True

    # Starting

    def _start(self) -> Any:
        # Raises for what can't be right, before a run is paid for.
        self._task.check_results(try_writing=True)
        self.connect()
        self.starter.deadline = self._deadline()
        self._log.info("Using connection %r: %s", self._task.conn_id, self.hook.settings.base_url)
        return self._obtain()

    def _new_starter(self, hook: PlatformHook[Any]) -> Starter:
        task, context = self._task, self._context
        store = record_store(context) if task.durable else None
        if store is None and task.durable:
            self._log.debug("This Airflow version has no task state store: a retry cannot resume an earlier run.")
        return Starter(
            hook.platform,
            store=store,
            epoch=epoch_of(context, task),
            window=hook.settings.timeout,
            adopt=task.adopt_lost_start,
            cancel_older=task.cancel_on_kill,
            log=self._log,
            after_failed_run=task.after_failed_run(hook.platform),
            clock_offset=lambda: hook.client.session.clock_offset,
            not_before=created_at(context),
            pace=hook.client.session.pace,
        )

    def _deadline(self) -> float:
        task = self._task
        deadline = time.time() + task.timeout
        # In place Airflow enforces execution_timeout by itself; while a task is deferred it does not.
        if task.deferrable and task.execution_timeout is not None:
            started = self._context["ti"].start_date
            began = started.timestamp() if started is not None else time.time()
            deadline = min(deadline, began + task.execution_timeout.total_seconds())
        return deadline

    def _obtain(self) -> Any:
        with self._released_if_superseded(), span("start", platform=self.hook.platform.name):
            obtained = self.hook.client.run(self.starter.obtain(self._task.start_arguments()))
        if obtained.how in _COUNTED:
            metrics.count(obtained.how, platform=self.hook.platform.name)
        run = self.run = obtained.run
        announce(self._context, run, self._log)
        mark_test_run(self._context, run, self._task.conn_id)
        if not self._task.wait_for_completion:
            emit_asset_events(self._task, self._context, run_to_event(run))
            return outgoing_json({"run_id": run.run_id, "run_url": run.url, "state": run.state.value})
        if obtained.seen and run.final:
            return self._conclude(WaitEnd(WaitStatus.FINISHED, run))
        return self._follow(run, seen=obtained.seen)

    @contextmanager
    def _released_if_superseded(self) -> Iterator[None]:
        """A later try that owns the task takes care of its run, too."""
        try:
            yield
        except StartSupersededError:
            self._released = True
            raise

    # Waiting

    def _follow(self, run: Run, *, seen: bool) -> Any:
        """Wait for a run, here or in the triggerer, and judge it."""
        task = self._task
        assert self.starter.deadline is not None
        wait = Wait(
            run,
            self.starter.deadline,
            task.poll_interval,
            self._log,
            seen=seen,
            stalled_after=task.stalled_after,
            max_failures=task.max_failures if task.fail_fast and self._may_stop_early else None,
        )
        try:
            end = self._wait(wait)
        except AirflowTaskTimeout:
            # The cancel has a time limit of its own.
            self.hook.client.time_left = lambda: inf
            self._give_up(wait.run)
            # What Airflow asks on_kill for after this has been done, or is not wanted.
            self._released = True
            raise
        return self._conclude(end)

    def _wait(self, wait: Wait) -> WaitEnd:
        """Wait in place; or hand the wait over to the triggerer, and not return, unless the first poll ends it."""
        task, starter, client = self._task, self.starter, self.hook.client
        # A run that is to be cancelled is not handed over, but cancelled until that is confirmed or this process ends.
        if not task.deferrable or starter.stopped:
            steps = wait_for(
                self.hook.platform,
                wait,
                each_round=lambda: self._note(wait),
                # on_kill returns to here, with a moment left to note what has become of the run: the next try then
                # starts a new one instead of judging it.
                stopped=lambda: starter.stopped,
            )
            with span("wait", platform=self.hook.platform.name):
                return client.run(steps, wait.deadline)
        end = client.run(look_once(self.hook.platform, wait), wait.deadline)
        self._note(wait)
        if end is not None:
            return end
        from airflow_provider_testruns.triggers.run import defer_until_final

        if starter.trigger_failures > timing.MAX_TRIGGER_FAILURES:
            raise self._trigger_failed(wait.run)
        self._abort_if_task_ended(wait.run)
        self._keep_wait(wait)
        cursor = None
        if task.stream_logs:
            cursor = self._run_log.cursor if self._run_log is not None else ""
        defer_until_final(
            task,
            wait,
            platform=task.platform_name,
            conn_id=task.conn_id,
            cancel_on_kill=task.cancel_on_kill,
            log_cursor=cursor,
        )

    def _note(self, wait: Wait) -> None:
        """Keep what a poll has shown, in the record and for on_kill, and stream what is new in the run's log."""
        self.run = wait.run
        with self._released_if_superseded():
            if wait.seen:
                self.starter.mark_seen(wait.run)
            self.starter.flush_record()
        # The end of a finished run's log is streamed by _conclude.
        if not wait.run.final:
            self._stream_log(wait.run, wait.deadline)

    def _stream_log(self, run: Run, until: float | None = None) -> None:
        """Write what is new in the run's log to the task log.

        :param until: while the run is running: the end of the wait. The next poll is another attempt, so there is only
            one here.
        """
        if not self._task.stream_logs:
            return
        run_log = self._run_log = self._run_log or self._new_run_log()
        if until is not None and not run_log.due:
            return
        steps = self.hook.platform.read_log(run)
        try:
            run_log.write(self.hook.ask(steps) if until is None else self.hook.client.run(steps, until))
        except ApiError as e:
            run_log.failed(e)

    def _new_run_log(self, cursor: str = "") -> RunLog:
        return RunLog(self._log, cursor)

    def _abort_if_task_ended(self, run: Run) -> None:
        """Cancel the run of a task that a user ended while this worker was starting it.

        A worker learns that with its next heartbeat. A task that defers before is only refused, nobody calls its
        on_kill, and the run would continue.

        :raises AirflowFailException: when it was ended; Airflow does not accept the outcome of this try any more.
        """
        from airflow_provider_testruns.triggers.run import task_state

        try:
            state = task_state(self._context["ti"])
        except Exception as e:  # whatever Airflow's channel raises: the wait is what matters
            self._log.debug("Could not read the task's state (%s: %s).", type(e).__name__, e)
            return
        if state not in _ENDED:
            return
        if self._task.cancel_on_kill:
            self._stop(run, f"the task was set to {state}")
        raise AirflowFailException(f"The task was set to {state} while it started run {run.run_id}.")

    # Triggers that fail

    def _resume_after_failure(self, reason: str, traceback: Sequence[str]) -> Any:
        shown = clean(redact("".join(str(line) for line in traceback).strip()), lines=True)
        self._log.error("The trigger has failed (%s). %s", reason, shown)
        self._task.check_results()
        self.connect()
        starter, latest = self.starter, self._deadline()
        if starter.has_store:
            deadline, failures = starter.stored_wait()
            run = None
        else:
            run, deadline, failures = self._kept_wait()
        # What is stored can be written by people: it can't make a wait longer.
        starter.deadline = latest if deadline is None else min(deadline, latest)
        starter.trigger_failures = failures + 1
        if starter.has_store:
            # The record holds which run it is, and what is to be done if that was not noted.
            return self._obtain()
        if run is None:
            raise TriggerFailedError(
                f"The trigger has failed ({reason}), and nothing is stored of the run that it waited for; the XCom"
                " run_id has its id. The run may still be running: check it on the platform."
            )
        # XComs can be written by people, as the record can.
        run, seen = self.hook.client.run(starter.confirm(run, self._task.start_arguments()))
        self.run = run
        return self._follow(run, seen=seen)

    def _keep_wait(self, wait: Wait) -> None:
        """Keep what is needed to resume should the trigger fail: in the record, or where there is none in an XCom,
        which Airflow keeps while a task is deferred."""
        if self.starter.has_store:
            self.starter.keep_wait()
            return
        failures = self.starter.trigger_failures
        value = {"run": wait.run.to_dict(), "deadline": wait.deadline, "trigger_failures": failures}
        self._context["ti"].xcom_push(key=WAIT_KEY, value=value)

    def _kept_wait(self) -> tuple[Run | None, float | None, int]:
        """What :meth:`_keep_wait` has put into an XCom."""
        ti = self._context["ti"]
        value = ti.xcom_pull(task_ids=ti.task_id, key=WAIT_KEY, map_indexes=ti.map_index)
        try:
            deadline = float(value["deadline"])
            return Run.from_dict(value["run"]), deadline if isfinite(deadline) else None, int(value["trigger_failures"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None, None, 0

    def _trigger_failed(self, run: Run) -> TriggerFailedError:
        ti = self._context["ti"]
        times = timing.MAX_TRIGGER_FAILURES + 1
        message = f"The trigger that waited for run {run.run_id} has failed {times} times; the log has the errors."
        if int(ti.try_number or 0) <= int(ti.max_tries or 0):
            resumes = "resumes it" if self.starter.has_store else "starts another one, as there is no record of it"
            message += f" The run is {run.raw_state} and left running; the next try {resumes}."
        elif self._task.cancel_on_timeout:
            run = self._give_up(run, "the trigger has failed, and this was the last try")
            message += _outcome(run)
        else:
            message += " It is left running (cancel_on_timeout=False)."
        return TriggerFailedError(_with_url(message, run))

    # The end

    def _conclude(self, end: WaitEnd) -> Any:
        """What the end of a wait means for the task.

        :return: what the task returns.
        """
        self._stream_log(end.run)
        if end.status is WaitStatus.ERROR and end.error is not None:
            raise self._never_shown(end.run, end.error) if self._is_unseen(end) else end.error
        if end.status is WaitStatus.TIMEOUT:
            raise self._timed_out(end)
        if end.status is WaitStatus.FAILING:
            return self._conclude_failing(end.run)
        return self._judge(end.run)

    def _conclude_failing(self, run: Run) -> Any:
        """Stop a run that can't meet ``max_failures`` any more, once a second poll has confirmed that.

        :return: what the task returns, should the run turn out otherwise.
        """
        most = self._task.max_failures
        platform, client = self.hook.platform, self.hook.client
        steps = retrying(platform.poll_with_failures(run), timing.GRACE, grace=timing.GRACE, log=self._log.warning)
        seen, failures = client.run(steps)
        run = self.run = replace(seen, ids={**run.ids, **seen.ids})
        if run.final:
            return self._judge(run)
        if most is None or failures is None or failures <= most:
            self._log.warning(
                "Another poll shows %s failures of run %s. It is not stopped early, as that number is not final.",
                "an unknown number of" if failures is None else failures,
                run.run_id,
            )
            self._may_stop_early = False
            self._restore_deadline()
            return self._follow(run, seen=True)
        why = (
            f"Stopped early (fail_fast=True): {failures} test cases have failed before the end of the run, and"
            f" max_failures is {most}."
        )
        with self._released_if_superseded():
            # Before the cancel: a try that finds the run cancelled must not take that for somebody else's doing.
            self.starter.judged(replace(run, stopped_early=why), Verdict.FAILED)
        run = self._stop(run, "it can't meet max_failures any more (fail_fast=True)")
        if run.final and run.platform_verdict is not Verdict.CANCELLED:
            self._log.info("Run %s has ended by itself before it was stopped.", run.run_id)
            return self._judge(run)
        if not run.final:
            why += f" It was asked to stop, and is still {run.raw_state}: check it on the platform."
        return self._judge(replace(run, stopped_early=why))

    def _restore_deadline(self) -> None:
        """The deadline of the wait, in a process that did not begin it."""
        if self.starter.deadline is None:
            stored = self.starter.stored_wait()[0] if self.starter.has_store else self._kept_wait()[1]
            # What is stored can be written by people: it can't make a wait longer.
            latest = self._deadline()
            self.starter.deadline = latest if stored is None else min(stored, latest)

    def _is_unseen(self, end: WaitEnd) -> bool:
        """Whether a wait has ended because the platform never showed the run that it had started."""
        record = self.starter.record
        shown = (record is not None and record.seen) or end.run.started_at is not None
        return isinstance(end.error, NotFoundError) and not shown

    def _never_shown(self, run: Run, error: ApiError) -> ApiError:
        """The error of a run that was started and that no call shows: it may be running all the same.

        Where a timeout would cancel it, it is asked to stop: its id is known, and an orphaned run may be paid for.
        """
        if not self._task.cancel_on_timeout:
            outcome = "It may still be running (cancel_on_timeout=False): stop it on the platform if it is not wanted."
            return NotFoundError(f"{error} {outcome}", status=404)
        self._log.warning("The platform does not show run %s, which may still be running; cancelling it.", run.run_id)
        steps = retrying(self.hook.platform.cancel_run(run), timing.CONFIRM_WITHIN, log=self._log.warning)
        try:
            self.hook.client.run(steps, time.time() + timing.CONFIRM_WITHIN)
        except ApiError as e:
            outcome = f"It may still be running, and could not be cancelled: stop it on the platform. ({e})"
        else:
            outcome = "The platform was asked to cancel it, and does not show whether it has stopped. Check it there."
        return NotFoundError(f"{error} {outcome}", status=404)

    def _judge(self, run: Run) -> Any:
        with span("judge", platform=self.hook.platform.name):
            return self._judge_run(run)

    def _judge_run(self, run: Run) -> Any:
        task = self._task
        report = self._fetch_report(run)
        if self.starter.record is not None and self.starter.record.rerun_of:
            origin = self.starter.record.rerun_of
            said = f"Only the test cases were run again that had not passed in run {origin}; the others passed there."
            report = replace(report, remarks=(*report.remarks, said))
        task.run_report, self.run = report, report.run
        comparing = Comparing(task, self._context)
        report, judgement = comparing.judge(report)
        with self._released_if_superseded():
            if report.run.stalled:
                # The next try asks for it, and does not start another beside it.
                self.starter.gave_up(report.run)
            else:
                self.starter.judged(report.run, judgement.verdict)
        comparing.remember()
        self._save_artifacts(report.run)
        result, error = deliver(task, self._context, report, judgement)
        if error is None:
            return result
        if judgement.verdict is Verdict.FAILED and not task.retry_failed_runs:
            raise AirflowFailException(str(error)) from error
        raise error

    def _fetch_report(self, run: Run) -> RunReport:
        steps = fetch_report(self.hook.platform, run, self._log)
        if not run.stopped_early:
            return self.hook.client.run(steps)
        try:
            report = self.hook.client.run(steps)
        except ApiError as e:
            # What it means has been decided already.
            self._log.warning("The results of run %s, which was stopped early, are unavailable: %s", run.run_id, e)
            report = RunReport(run)
        return replace(report, run=replace(report.run, stopped_early=run.stopped_early))

    def _save_artifacts(self, run: Run) -> None:
        folder = self._task.artifacts_path
        if folder is None:
            return
        try:
            saved = self.hook.save_artifacts(run, folder)
        except Exception as e:  # of whatever kind: file systems behind fsspec have their own
            self._log.warning("Could not save all files of run %s to %s: %s", run.run_id, folder, e)
            return
        for place in saved:
            self._log.info("Saved %s", place)
        self._context["ti"].xcom_push(key="artifacts", value=outgoing_json(saved))

    def _timed_out(self, end: WaitEnd) -> RunTimeoutError:
        run = end.run
        message = f"Run {run.run_id} did not finish within the timeout ({self._task.timeout:g} s): {run.raw_state}"
        message += f", {run.progress}." if run.progress is not None else "."
        if run.start_error:
            message += f" It was found after its start had failed: {run.start_error}"
        if end.error is not None:
            message += f" The last poll failed: {end.error}"
        if self._task.cancel_on_timeout:
            run = self._give_up(run)
            message += _outcome(run)
        else:
            message += " It is still running (cancel_on_timeout=False); a retry waits for it again."
        return RunTimeoutError(_with_url(message, run))

    def _give_up(self, run: Run, why: str = "the task timed out") -> Run:
        """What becomes of the run of a task that has no time left.

        :return: the run as it was seen last.
        """
        if not self._task.cancel_on_timeout:
            return run
        run = self._stop(run, why)
        if run.platform_verdict is Verdict.CANCELLED:
            # So that the next try starts a new run instead of judging this one. A run that ended by itself just then is
            # judged by the next try.
            self.starter.judged(run, Verdict.CANCELLED)
        return run

    # Stopping

    def _stop(
        self, run: Run, why: str, client: BlockingClient | None = None, within: float = timing.CONFIRM_WITHIN
    ) -> Run:
        steps = stop(self.hook.platform, run, self._log, why=why, within=within)
        run = self.run = (client or self.hook.client).run(steps, time.time() + within)
        return run

    def _find_starting_run(self, client: BlockingClient, until: float) -> Run | None:
        """One lookup of the run of a start that has no response yet; ``None`` when it is not sure which it is."""
        record = self.starter.record
        assert record is not None
        if record.cannot_list is not None:
            self._log.warning(
                "The task was killed while it started a run, which cannot be looked up: %s The platform may have an"
                " orphaned run.",
                record.cannot_list,
            )
            return None
        runs = client.run(self.starter.candidates(record), until)
        found = [run for run in runs if not self.starter.doubt(run, record)]
        if len(found) == 1:
            return found[0]
        self._log.warning(
            "The task was killed while it started a run. %s The platform may have an orphaned run: check for one"
            " started since %s.",
            f"{len(found)} runs match." if found else "No matching run is listed yet.",
            time.strftime("%H:%M:%S UTC", time.gmtime(record.intent_at)),
        )
        return None


def _outcome(run: Run) -> str:
    return f" It has ended as {run.raw_state}." if run.final else " It may still be running: see the log."


def _with_url(message: str, run: Run) -> str:
    return f"{message} The run: {run.url}" if run.url else message
