"""What the operators of all platforms have in common. What starting ones do with a run is in :mod:`.execution`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_testruns.arguments import interval, seconds
from airflow_provider_testruns.emission import tidy_errors
from airflow_provider_testruns.hooks.registry import ConnectedTask
from airflow_provider_testruns.links.run import RunLink
from airflow_provider_testruns.operators.results import TRIGGER_FAILED, JudgingTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.lifecycle.starting import Starter
    from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd
    from airflow_provider_testruns.model import Run


class PlatformOperator(ConnectedTask, BaseOperator):
    """An operator that talks to one platform."""

    def __init__(self, **kwargs: Any) -> None:
        # Not superfluous: without a constructor of its own a class right under BaseOperator gets the defaults of that
        # one's signature when it is mapped (Airflow 3.3: inlets None instead of a list), and its tasks can't start.
        super().__init__(**kwargs)


class StartRunOperator(JudgingTask, PlatformOperator):
    """Starts a run, waits for it and judges it.

    Every argument that is true or false is templated; the texts ``true`` and ``false``, in any case, are read as such,
    and all others are refused before anything is started.

    :param wait_for_completion: wait until the run is final and judge it. Without, the task ends when the run is
        started and returns ``{run_id, run_url, state}``.
    :param deferrable: wait in the triggerer, without a worker. Default: Airflow's ``operators.default_deferrable``.
    :param poll_interval: seconds (or a timedelta) between two looks at the run, at least 0.1.
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

    #: See :class:`.Wait`; of the platforms whose runs may stay open for ever.
    stalled_after: float | None = None
    operator_extra_links = (RunLink(),)
    template_fields: Sequence[str] = ()
    _places = ("junit_path", "artifacts_path")
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

    @tidy_errors
    def execute(self, context: Context) -> dict[str, Any]:
        """Obtain a run, wait for it, judge it."""
        from airflow_provider_testruns.operators.execution import execute
        from airflow_provider_testruns.operators.overtime import time_left

        self._time_left = time_left(self)
        with self._errors_in_junit(context):
            return execute(self, context)

    @tidy_errors
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the triggerer's wait.

        :param event: as :meth:`.WaitEnd.to_event` makes it.
        :raises ConfigurationError: when it is none.
        """
        from airflow_provider_testruns.operators.execution import resume

        self.read_booleans()
        return resume(self, context, event)

    @tidy_errors
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; also after a trigger that has failed, which Airflow would only fail the task for."""
        from airflow_provider_testruns.operators.overtime import time_left

        self.read_booleans()
        self._time_left = time_left(self)
        if next_method != TRIGGER_FAILED:
            return super().resume_execution(next_method, next_kwargs, context)
        from airflow_provider_testruns.operators.execution import resume_failed

        told = next_kwargs or {}
        with self._errors_in_junit(context):
            return resume_failed(self, context, str(told.get("error", "Unknown")), told.get("traceback") or ())

    def on_kill(self) -> None:
        """Cancel the run when the task is stopped from outside."""
        # Airflow calls this in a signal handler. Without a hook nothing has been done that could be undone.
        if not self.cancel_on_kill or self._released or self._hook is None or self._starter is None:
            return
        from airflow_provider_testruns.operators.execution import killed

        killed(self, self._hook, self._starter)

    def _new_starter(self, context: Context, hook: PlatformHook[Any]) -> Starter:
        """The bookkeeping of a start."""
        from airflow_provider_testruns.operators.execution import new_starter

        return new_starter(self, context, hook)

    def _note(self, wait: Wait) -> None:
        """Keep what a look has brought, in the record and for on_kill."""
        from airflow_provider_testruns.operators.execution import note

        note(self, wait)

    def _conclude(self, context: Context, hook: PlatformHook[Any], end: WaitEnd) -> dict[str, Any]:
        """What the end of a wait means for the task."""
        from airflow_provider_testruns.operators.execution import conclude

        return conclude(self, context, hook, end)

    def _known_run(self) -> Run | None:
        return self._run
