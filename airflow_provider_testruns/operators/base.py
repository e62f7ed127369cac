"""What the starting operators of all platforms share: from the start of a run to its verdict."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf

from airflow_provider_testruns.arguments import seconds
from airflow_provider_testruns.exceptions import (
    RunTimeoutError,
    StartSupersededError,
)
from airflow_provider_testruns.hooks.registry import ConnectedTask
from airflow_provider_testruns.links.run import RunLink, announce
from airflow_provider_testruns.operators.results import JudgingTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.lifecycle.starting import Starter
    from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd
    from airflow_provider_testruns.model import Run
    from airflow_provider_testruns.transport.blocking import BlockingClient

#: How long the calls that fetch a finished run's report are tried again when they fail in passing; seconds.
REPORT_PATIENCE = 300.0
#: What a worker that is being stopped has before it is killed, with something to spare; seconds.
KILL_WITHIN = 3.5
#: What a task is set to when somebody ends it. A task that was cleared has a fresh try that looks after its run.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


class PlatformOperator(ConnectedTask, BaseOperator):
    """An operator that talks to one platform."""

    def __init__(self, **kwargs: Any) -> None:
        # Not superfluous: without a constructor of its own a class right under BaseOperator gets the defaults of that
        # one's signature when it is mapped (Airflow 3.3: inlets None instead of a list), and its tasks can't start.
        super().__init__(**kwargs)


class StartRunOperator(JudgingTask, PlatformOperator):
    """Starts a run, waits for it and judges it.

    :param wait_for_completion: wait until the run is final and judge it. Without, the task ends when the run is
        started and returns ``{run_id, run_url, state}``.
    :param deferrable: wait in the triggerer, without a worker. Default: Airflow's ``operators.default_deferrable``.
    :param poll_interval: seconds (or a timedelta) between two looks at the run.
    :param timeout: seconds (or a timedelta) for the whole wait of a try, deferred or not; ``execution_timeout`` counts
        too, whichever is over first.
    :param cancel_on_kill: cancel the run when the task is killed, cleared or marked in the UI.
    :param cancel_on_timeout: cancel the run when the time is over.
    :param durable: remember the run across tries (Airflow 3.3 and later), so that a retry goes on with it instead of
        starting another one.
    :param adopt_lost_start: when the reply to a start was lost, take the one run that a look-up finds. Without, the
        task fails and names it.
    :param retry_failed_runs: whether a run that failed its tests is worth Airflow's retries, each with a new run.
        Without, a failed verdict ends the task at once.
    :param min_pass_rate: when given it replaces "all passed": the least fraction (0 to 1) of the cases that were tried
        which must have passed. Tried are those that passed, failed or were unavailable; not those that did not run, nor
        those that ``allowed_failures`` forgives.
    :param max_failures: when given it replaces "all passed": how many cases may fail or be unavailable, those that
        ``allowed_failures`` forgives not counted. With ``min_pass_rate`` both must be met.
    :param fail_on_no_tests: whether a run in which no test case took part fails.
    :param allowed_failures: cases that are known to fail, by their names (``"refund"``), with their suite
        (``"smoke/refund"``), or by patterns in the manner of the shell (``"refund_*"``); a list, or a text with one in
        each line; templated. Where one of them does not pass it counts neither as passed nor as failed; where it
        passes, log and report say so. What the platform counts and does not list can't be forgiven.
    :param junit_path: a file for the report as JUnit XML, local or an object storage URL; a folder (one that is there,
        or a path that ends with a slash) takes it as ``<platform>-<run id>.xml``; templated. It is written whole or not
        at all, whatever the verdict, also when the task fails before there is one. A passed run whose file can't be
        written is a :class:`.ReportNotWrittenError`; a verdict other than passed stays what it is.
    :param artifacts_path: a folder, local or an object storage URL, for the files that the platform keeps of the run;
        templated. Where they were written is the XCom ``artifacts``. They are fetched whatever the verdict, and a file
        that can't be had is a warning: it changes no verdict.
    """

    operator_extra_links = (RunLink(),)
    template_fields: Sequence[str] = ()
    ui_color = "#e8f0e4"

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta = 24 * 60 * 60.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        adopt_lost_start: bool = True,
        retry_failed_runs: bool = True,
        min_pass_rate: float | None = None,
        max_failures: int | None = None,
        fail_on_no_tests: bool = True,
        allowed_failures: Sequence[str] | str | None = None,
        junit_path: str | None = None,
        artifacts_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.timeout = seconds("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.durable = durable
        self.adopt_lost_start = adopt_lost_start
        self.retry_failed_runs = retry_failed_runs
        self.min_pass_rate = min_pass_rate
        self.max_failures = max_failures
        self.fail_on_no_tests = fail_on_no_tests
        self.allowed_failures = allowed_failures
        self.junit_path = junit_path
        self.artifacts_path = artifacts_path
        self._check_gates()
        # What on_kill needs, which runs in a signal handler in the middle of anything.
        self._hook: PlatformHook[Any] | None = None
        self._starter: Starter | None = None
        self._run: Run | None = None
        self._released = False

    @abstractmethod
    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the platform's start, from this operator's own."""

    def log_told(self) -> str | None:
        """What of the run's log is in the task's log, for a trigger that goes on with it; ``None`` for not at all."""
        return None

    def execute(self, context: Context) -> dict[str, Any]:
        """Obtain a run, wait for it, judge it."""
        with self._errors_in_junit(context):
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, WaitStatus, look_once, wait_for
        from airflow_provider_testruns.reporting.xcom import run_to_event

        # Raises for what can't be right, before a run is paid for.
        self._check_results()
        hook = self._ready_hook()
        deadline = self._deadline(context)
        starter = self._starter = self._new_starter(context, hook)
        self.log.info("Using connection %r: %s", self.conn_id, hook.settings.base_url)
        try:
            obtained = hook.client.run(starter.obtain(self.start_arguments()))
        except StartSupersededError:
            self._released = True
            raise
        run = self._run = obtained.run
        announce(context, run, self.log)
        if not self.wait_for_completion:
            self._tell_assets(context, run_to_event(run))
            return {"run_id": run.run_id, "run_url": run.url, "state": run.state.value}
        if obtained.seen and run.final:
            return self._conclude(context, hook, WaitEnd(WaitStatus.FINISHED, run))
        wait = Wait(run, deadline, self.poll_interval, self.log, seen=obtained.seen)
        if self.deferrable:
            end = hook.client.run(look_once(hook.platform, wait), deadline)
            self._note(wait)
            if end is None:
                from airflow_provider_testruns.triggers.run import defer_until_final

                self._make_sure_it_is_wanted(context, hook, wait.run)

                defer_until_final(
                    self,
                    wait,
                    platform=self.platform_name,
                    conn_id=self.conn_id,
                    cancel_on_kill=self.cancel_on_kill,
                    log_told=self.log_told(),
                )
        else:
            end = hook.client.run(wait_for(hook.platform, wait, each_round=lambda: self._note(wait)), deadline)
        return self._conclude(context, hook, end)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the triggerer's wait.

        :param event: as :meth:`.WaitEnd.to_event` makes it.
        :raises ConfigurationError: when it is none.
        """
        from airflow_provider_testruns.lifecycle.waiting import WaitEnd

        end = WaitEnd.from_event(event)
        hook = self._ready_hook()
        self._run = end.run
        starter = self._starter = self._new_starter(context, hook)
        starter.restore(end.run)
        with self._errors_in_junit(context):
            return self._conclude(context, hook, end)

    def on_kill(self) -> None:
        """Cancel the run when the task is stopped from outside.

        Runs in a signal handler with about 5 s before the process is killed: a transport of its own, no lock, no call
        to Airflow.
        """
        hook, starter = self._hook, self._starter
        if not self.cancel_on_kill or self._released or hook is None or starter is None:
            return
        # This returns to where the task was interrupted: from there nothing is to be started any more.
        starter.stopped = True
        record = starter.record
        run = self._run or (record.run if record is not None else None) or starter.older
        if run is not None and run.final:
            return
        if run is None and record is None:
            self.log.warning("The task was killed before it had started a run.")
            return
        client = None
        try:
            client = hook.new_client(timeout=KILL_WITHIN / 3, in_signal_handler=True)
            if run is None:
                run = self._one_that_was_starting(client, starter)
            if run is not None:
                self._stop(client, hook, run, "the task was killed", within=KILL_WITHIN)
        except Exception as e:
            # Whatever was interrupted may be half done. An exception would end up in the middle of it.
            self.log.error("The task was killed and its run could not be cancelled: it may go on. %s", e)
        finally:
            if client is not None:
                client.close()

    def _one_that_was_starting(self, client: BlockingClient, starter: Starter) -> Run | None:
        """One look for the run of a start that has no reply yet; ``None`` when it is not sure which it is."""
        record = starter.record
        assert record is not None
        if record.cannot_list is not None:
            self.log.warning(
                "The task was killed while it started a run, and that can't be looked up: %s The platform may"
                " have a run that nobody waits for.",
                record.cannot_list,
            )
            return None
        found = client.run(starter.candidates(record))
        if len(found) == 1:
            return found[0]
        self.log.warning(
            "The task was killed while it started a run. %s The platform may have a run that nobody waits"
            " for: look for one begun since %s.",
            f"{len(found)} runs could be it." if found else "No run of it is listed yet.",
            time.strftime("%H:%M:%S UTC", time.gmtime(record.intent_at)),
        )
        return None

    def _ready_hook(self) -> PlatformHook[Any]:
        """The hook, with all that on_kill needs of it read and imported."""
        hook = self.make_hook()
        _ = hook.client, hook.platform
        self._hook = hook
        return hook

    def _new_starter(self, context: Context, hook: PlatformHook[Any]) -> Starter:
        from airflow_provider_testruns.lifecycle.starting import Starter
        from airflow_provider_testruns.operators.record import epoch_of, record_store

        store = record_store(context) if self.durable else None
        if store is None and self.durable:
            self.log.debug("This Airflow version has no task state store: a retry can't go on with an earlier run.")
        return Starter(
            hook.platform,
            store=store,
            epoch=epoch_of(context, self),
            window=hook.settings.timeout,
            adopt=self.adopt_lost_start,
            cancel_older=self.cancel_on_kill,
            log=self.log,
            clock_offset=lambda: hook.client.session.clock_offset,
        )

    def _deadline(self, context: Context) -> float:
        deadline = time.time() + self.timeout
        # In place Airflow enforces execution_timeout by itself; while a task is deferred it does not.
        if self.deferrable and self.execution_timeout is not None:
            started = context["ti"].start_date
            began = started.timestamp() if started is not None else time.time()
            deadline = min(deadline, began + self.execution_timeout.total_seconds())
        return deadline

    def _make_sure_it_is_wanted(self, context: Context, hook: PlatformHook[Any], run: Run) -> None:
        """Cancel the run of a task that was marked while this worker was starting it.

        Airflow tells a worker of that with its next heartbeat. A task that defers before is only refused, nobody calls
        its on_kill, and the run would go on.

        :raises AirflowFailException: when it was; Airflow does not take the outcome of this try any more.
        """
        from airflow_provider_testruns.triggers.run import task_state

        try:
            state = task_state(context["ti"])
        except Exception as e:  # whatever Airflow's channel raises: the wait is what matters
            self.log.debug("The task's state can't be asked for (%s: %s).", type(e).__name__, e)
            return
        if state not in _ENDED:
            return
        if self.cancel_on_kill:
            self._stop(hook.client, hook, run, f"the task was set to {state}")
        raise AirflowFailException(f"The task was set to {state} while it started run {run.run_id}.")

    def _note(self, wait: Wait) -> None:
        """Keep what a look has brought, in the record and for on_kill."""
        self._run = wait.run
        if self._starter is None:
            return
        try:
            if wait.seen:
                self._starter.saw(wait.run)
            self._starter.catch_up()
        except StartSupersededError:
            self._released = True
            raise

    def _conclude(self, context: Context, hook: PlatformHook[Any], end: WaitEnd) -> dict[str, Any]:
        from airflow_provider_testruns.lifecycle.waiting import WaitStatus

        if end.status is WaitStatus.ERROR and end.error is not None:
            raise end.error
        if end.status is WaitStatus.TIMEOUT:
            raise self._timed_out(hook, end)
        return self._judge(context, hook, end.run)

    def _judge(self, context: Context, hook: PlatformHook[Any], run: Run) -> dict[str, Any]:
        from airflow_provider_testruns.lifecycle.waiting import fetch_report
        from airflow_provider_testruns.model import Verdict, assess

        steps = fetch_report(hook.platform, run, self.log, patience=REPORT_PATIENCE)
        report = self._report = hook.client.run(steps)
        self._run = report.run
        judgement = assess(report, self.gates())
        if self._starter is not None:
            try:
                self._starter.judged(report.run, judgement.verdict)
            except StartSupersededError:
                self._released = True
                raise
        self._save_artifacts(context, hook, report.run)
        result, error = self._deliver(context, report, judgement)
        if error is None:
            return cast("dict[str, Any]", result)
        if judgement.verdict is Verdict.FAILED and not self.retry_failed_runs:
            raise AirflowFailException(str(error)) from error
        raise error

    def _known_run(self) -> Run | None:
        return self._run

    def _save_artifacts(self, context: Context, hook: PlatformHook[Any], run: Run) -> None:
        if self.artifacts_path is None:
            return
        try:
            saved = hook.save_artifacts(run, self.artifacts_path)
        except Exception as e:  # of whatever kind: file systems behind fsspec have their own
            self.log.warning("The files of run %s could not all be saved to %s: %s", run.run_id, self.artifacts_path, e)
            return
        for place in saved:
            self.log.info("Saved %s", place)
        context["ti"].xcom_push(key="artifacts", value=saved)

    def _timed_out(self, hook: PlatformHook[Any], end: WaitEnd) -> RunTimeoutError:
        from airflow_provider_testruns.model import Verdict

        run = end.run
        said = f"Run {run.run_id} was not final in time (timeout {self.timeout:g} s): {run.raw_state}"
        said += f", {run.progress}." if run.progress is not None else "."
        if end.error is not None:
            said += f" The last look at it failed: {end.error}"
        if self.cancel_on_timeout:
            run = self._stop(hook.client, hook, run, "its time is over")
            said += f" It has now ended as {run.raw_state}." if run.final else " It may go on: see the log."
            if run.ending is Verdict.CANCELLED and self._starter is not None:
                # So that the next try starts a new run instead of judging this one. A run that ended by itself just
                # then is judged by the next try.
                self._starter.judged(run, Verdict.CANCELLED)
        else:
            said += " It goes on (cancel_on_timeout=False); a retry waits for it again."
        if run.url:
            said += f" The run: {run.url}"
        return RunTimeoutError(said)

    def _stop(
        self, client: BlockingClient, hook: PlatformHook[Any], run: Run, why: str, within: float | None = None
    ) -> Run:
        from airflow_provider_testruns.lifecycle.stopping import CONFIRM_WITHIN, stop

        within = CONFIRM_WITHIN if within is None else within
        run = client.run(stop(hook.platform, run, self.log, why=why, within=within), time.time() + within)
        self._run = run
        return run
