"""What the operators of all platforms share. What they do when they are executed is in :mod:`.tasks`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_testruns import deployment
from airflow_provider_testruns.arguments import interval, seconds
from airflow_provider_testruns.emission import tidy_errors
from airflow_provider_testruns.links.run import RunLink
from airflow_provider_testruns.tasks.connected import ConnectedTask
from airflow_provider_testruns.tasks.judging import TRIGGER_FAILED
from airflow_provider_testruns.tasks.starting import StartingTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.model import Run
    from airflow_provider_testruns.tasks.execution import RunExecution
    from airflow_provider_testruns.tasks.stopping import Found


class PlatformOperator(ConnectedTask, BaseOperator):
    """An operator that talks to one platform."""

    def __init__(self, **kwargs: Any) -> None:
        # Not superfluous: without a constructor of its own a class right under BaseOperator gets the defaults of that
        # one's signature when it is mapped (Airflow 3.3: inlets None instead of a list), and its tasks can't start.
        super().__init__(**kwargs)


class StartRunOperator(StartingTask, PlatformOperator):
    """Starts a run, waits for it and judges it.

    Every argument that is true or false is templated; the strings ``true`` and ``false``, in any case, are read as
    such, and all others are refused before anything is started.

    :param wait_for_completion: wait until the run has finished and judge it. Otherwise the task ends when the run is
        started and returns ``{run_id, run_url, state}``.
    :param deferrable: wait in the triggerer, without a worker. Default: Airflow's ``operators.default_deferrable``.
    :param poll_interval: polling interval in seconds (or a timedelta), at least 0.1. Default: the setting ``[testruns]
        poll_interval``, or 10 seconds.
    :param timeout: seconds (or a timedelta) for the whole wait of a try, deferred or not; ``execution_timeout`` counts
        too, whichever ends first. Default: the setting ``[testruns] timeout``, or 24 hours.
    :param cancel_on_kill: cancel the run when the task is killed, cleared or marked in the UI. A run that its platform
        cannot stop is logged.
    :param cancel_on_timeout: cancel the run when the task times out.
    :param durable: remember the run across tries (Airflow 3.3 and later), so that a retry resumes it instead of
        starting another one.
    :param adopt_lost_start: after a lost response to a start, adopt the one run that a lookup finds. Otherwise the
        task fails and reports its id.
    :param retry_failed_runs: whether a run that failed its tests is worth Airflow's retries, each with a new run.
        Otherwise a failed verdict ends the task at once.
    :param min_pass_rate: replaces "all passed": the minimum fraction (0 to 1) of executed cases that must pass.
        Executed are those that passed, failed or were unavailable; not those that did not run, nor those that
        ``allowed_failures`` excludes.
    :param max_failures: replaces "all passed": how many cases may fail or be unavailable, those that
        ``allowed_failures`` excludes not counted. With other gates all must be met.
    :param compare_with: the run of the same task that the report is compared with: ``previous``, the run before, or
        ``last_passed``, the last one that passed (Airflow 3.1 and later). The report then has ``new_failures``,
        ``still_failing`` and ``fixed``. What is remembered of earlier runs is the XCom ``test_run_history``.
    :param max_new_failures: replaces "all passed": how many cases may fail or be unavailable that are not among those
        of the run that ``compare_with`` names. Where not all of these are known, all count as new. With other gates all
        must be met.
    :param fail_on_no_tests: whether a run in which no test case took part fails.
    :param allowed_failures: cases that are known to fail, by their names (``"refund"``), with their suite
        (``"smoke/refund"``), or by shell-style patterns (``"refund_*"``); a list, or a string with one in each line;
        templated. An entry can also be a dict with exactly ``name``, ``until`` and ``why``: it holds up to that day (a
        date, or a string like ``2026-12-31``; UTC), and a week before log and report note it. Failures of these cases
        are ignored; where one passes, log and report note it. What the platform counts and does not list cannot be
        excluded.
    :param fail_fast: stop the run as soon as more of its cases have failed than ``max_failures`` allows, instead of
        waiting for its end; the verdict is then ``failed``, and the report says that it was stopped early. For runs of
        Omilia's test suites and executions of Future AGI: the other platforms show no failures while a run is running.
        Such a run is polled individually. Not with ``allowed_failures``, nor with ``rerun_failed_only``.
    :param rerun_failed_only: after a failed verdict, Airflow's retry runs only the cases again that did not pass
        (Airflow 3.3 and later, with ``durable``). Where that can't be done, the log says why and a whole run is
        started. An error where the platform can do it for no run.
    :param junit_path: a file for the report as JUnit XML, local or an object storage URL; a folder (one that exists, or
        a path that ends with a slash) takes it as ``<platform>-<run id>.xml``; templated. It is written whole or not
        at all, whatever the verdict, also when the task fails before there is one. A passed run whose file can't be
        written is a :class:`.ReportNotWrittenError`; a verdict other than passed stays what it is.
    :param artifacts_path: a folder, local or an object storage URL, for the files that the platform keeps of the run;
        templated. Where they were written is the XCom ``artifacts``. They are fetched whatever the verdict, and
        unavailable files are logged as warnings: they change no verdict.
    """

    operator_extra_links = (RunLink(),)
    template_fields: Sequence[str] = ()
    ui_color = "#e8f0e4"

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        adopt_lost_start: bool = True,
        retry_failed_runs: bool = True,
        min_pass_rate: float | None = None,
        max_failures: int | None = None,
        fail_on_no_tests: bool = True,
        allowed_failures: Sequence[str | Mapping[str, Any]] | str | None = None,
        compare_with: str | None = None,
        max_new_failures: int | None = None,
        fail_fast: bool = False,
        rerun_failed_only: bool = False,
        junit_path: str | None = None,
        artifacts_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        if poll_interval is None:
            poll_interval = deployment.poll_interval() or deployment.POLL_INTERVAL
        if timeout is None:
            timeout = deployment.timeout() or deployment.TIMEOUT
        self.poll_interval = interval("poll_interval", poll_interval)
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
        self.compare_with = compare_with
        self.max_new_failures = max_new_failures
        self.fail_fast = fail_fast
        self.rerun_failed_only = rerun_failed_only
        self.junit_path = junit_path
        self.artifacts_path = artifacts_path
        self.check_gates()
        self.check_fail_fast()
        self.check_rerun()
        self._execution: RunExecution | None = None

    @tidy_errors
    def execute(self, context: Context) -> Any:
        """Obtain a run, wait for it, judge it."""
        return self._begin(context).start()

    @tidy_errors
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Continue after the triggerer's wait.

        :param event: as :meth:`.WaitEnd.to_event` makes it.
        :raises ConfigurationError: when it is not such an event.
        """
        return self._begin(context).resume(event)

    @tidy_errors
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral; also after a trigger that has failed, where Airflow would only fail the task."""
        if next_method != TRIGGER_FAILED:
            return super().resume_execution(next_method, next_kwargs, context)
        failure = next_kwargs or {}
        reason, traceback = str(failure.get("error", "Unknown")), failure.get("traceback") or ()
        return self._begin(context).resume_after_failure(reason, traceback)

    def on_kill(self) -> None:
        """Cancel the run when the task is stopped from outside."""
        # Airflow calls this in a signal handler, in the middle of anything.
        if self._execution is not None:
            self._execution.on_kill()

    def known_run(self) -> Run | None:
        """The run, as far as it is known when the task fails."""
        return self._execution.run if self._execution is not None else None

    def new_execution(self, context: Context) -> RunExecution:
        """What executes this task in this process.

        :param context: the task's.
        """
        from airflow_provider_testruns.tasks.execution import RunExecution

        return RunExecution(self, context)

    def _begin(self, context: Context) -> RunExecution:
        self._execution = execution = self.new_execution(context)
        return execution


class StopRunOperator(PlatformOperator):
    """Stops a run and waits until it has finished.

    A run that has already finished is no error: the log shows how it ended. Nor is a run that ends by itself before it
    is stopped.

    The return value is ``{platform, run_id, verdict, raw_state, url, started_at, finished_at, duration}``; the verdict
    of a run that was stopped is ``cancelled``.

    :param timeout: seconds (or a timedelta) within which it must have finished; otherwise the task fails with
        :class:`.RunTimeoutError`.
    :param poll_interval: polling interval in seconds (or a timedelta), at least 0.1.
    """

    operator_extra_links = (RunLink(),)
    template_fields: Sequence[str] = ()
    ui_color = "#e8f0e4"

    def __init__(
        self, *, timeout: float | timedelta = 300.0, poll_interval: float | timedelta = 2.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.timeout = seconds("timeout", timeout)
        self.poll_interval = interval("poll_interval", poll_interval)

    @abstractmethod
    def requested_run(self) -> Run:
        """The run to stop, as far as the arguments describe it.

        :raises ConfigurationError: for arguments that can't be right.
        """

    def find_run(self, hook: PlatformHook[Any], run: Run) -> Found:
        """The run before it is stopped.

        :param hook: of its platform.
        :param run: as :meth:`requested_run` gave it.
        :return: as the platform shows it.
        :raises ApiError: when it can't be read.
        """
        from airflow_provider_testruns.tasks.stopping import Found

        return Found(hook.get_run(run.run_id, **run.ids))

    @tidy_errors
    def execute(self, context: Context) -> dict[str, Any]:
        """Stop the run and wait until it has finished.

        :raises InvalidRequestError: when the platform does not allow it to be stopped.
        :raises RunTimeoutError: when it has not finished in time.
        :raises ApiError: when it could not be stopped, or can't be read.
        """
        from airflow_provider_testruns.tasks.stopping import stop_run

        requested = self.requested_run()
        hook = self.connect()
        before = self.find_run(hook, requested)
        limits = {"timeout": self.timeout, "poll_interval": self.poll_interval}
        return stop_run(hook, requested, before, context, self.log, **limits)
