"""What the sensors of all platforms share: watching a run that somebody else has started."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_testruns import deployment
from airflow_provider_testruns.arguments import boolean, interval, seconds
from airflow_provider_testruns.emission import tidy_errors
from airflow_provider_testruns.exceptions import RunEndedError
from airflow_provider_testruns.links.run import RunLink, announce, mark_test_run
from airflow_provider_testruns.tasks.judging import TRIGGER_FAILED, JudgingTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd
    from airflow_provider_testruns.model import Run


#: Arguments of Airflow's sensors that are true or false.
_AIRFLOWS_OWN = ("soft_fail", "never_fail", "silent_fail", "exponential_backoff")


class RunSensor(JudgingTask, BaseSensorOperator):
    """Waits until a run is final and judges it. It never cancels what it watches.

    In every mode the same function judges, and the report is the task's return value. With ``soft_fail`` a verdict
    other than passed, and a timeout, skip the task; that the run could not be polled is an error in any case.

    :param deferrable: wait in the triggerer, without a worker. Default: Airflow's ``operators.default_deferrable``.
    :param min_pass_rate: as of :class:`.StartRunOperator`, like those that follow.
    :param max_failures: how many cases may not pass.
    :param fail_on_no_tests: whether a run in which no test case took part fails.
    :param allowed_failures: cases that are known to fail.
    :param compare_with: the run that the report is compared with.
    :param max_new_failures: how many cases may not pass that passed in it.
    :param junit_path: a file for the report as JUnit XML. That it can't be written is an error in any case, too.

    ``timeout`` and ``poke_interval`` are Airflow's own; ``poke_interval`` is at least 0.1 s. Where neither the task nor
    ``default_args`` has them, the settings ``[testruns] timeout`` and ``poll_interval`` are taken, if there are any.
    Every argument that is true or false is templated; the strings ``true`` and ``false``, in any case, are read as
    such, and all others are refused.
    """

    operator_extra_links = (RunLink(),)
    template_fields: Sequence[str] = ()
    ui_color = "#e8f0e4"
    #: See :class:`.Wait`; of the platforms whose runs may stay open for ever.
    stalled_after: float | None = None
    #: The seconds that are left of ``execution_timeout``, see :func:`.time_left`; set when this process begins to
    #: execute the task.
    _time_left: Callable[[], float] = staticmethod(lambda: math.inf)

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        min_pass_rate: float | None = None,
        max_failures: int | None = None,
        fail_on_no_tests: bool = True,
        allowed_failures: Sequence[str | Mapping[str, Any]] | str | None = None,
        compare_with: str | None = None,
        max_new_failures: int | None = None,
        junit_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Airflow takes any string for true.
        for name in _AIRFLOWS_OWN:
            if isinstance(kwargs.get(name), str):
                kwargs[name] = boolean(name, kwargs[name])
        if "poke_interval" in kwargs:
            kwargs["poke_interval"] = interval("poke_interval", kwargs["poke_interval"])
        if "timeout" in kwargs:
            kwargs["timeout"] = seconds("timeout", kwargs["timeout"], least=0.0)
        # Airflow hands the DAG's default_args on under this name.
        given = {**(kwargs.get("default_args") or {}), **kwargs}
        for name, setting in (("poke_interval", deployment.poll_interval), ("timeout", deployment.timeout)):
            if name not in given and (value := setting()) is not None:
                kwargs[name] = value
        super().__init__(**kwargs)
        # Those of default_args are known only now.
        for name in _AIRFLOWS_OWN:
            setattr(self, name, boolean(name, getattr(self, name, False)))
        self.poke_interval = interval("poke_interval", self.poke_interval)
        self.timeout = seconds("timeout", self.timeout, least=0.0)
        self.deferrable = deferrable
        self.min_pass_rate = min_pass_rate
        self.max_failures = max_failures
        self.fail_on_no_tests = fail_on_no_tests
        self.allowed_failures = allowed_failures
        self.compare_with = compare_with
        self.max_new_failures = max_new_failures
        self.junit_path = junit_path
        self.check_gates()
        self._wait: Wait | None = None
        self._open_hook: PlatformHook[Any] | None = None
        self._announced = False
        self._ended: Run | None = None

    @abstractmethod
    def watched_run(self) -> Run:
        """The run to watch, as far as the arguments describe it.

        :raises ConfigurationError: for arguments that can't be right.
        """

    @tidy_errors
    def execute(self, context: Context) -> Any:
        """Wait for the run and judge it."""
        from airflow_provider_testruns.tasks.delivery import errors_in_junit

        self._begin()
        with errors_in_junit(self, context):
            return self._execute(context)

    def _execute(self, context: Context) -> Any:
        self.check_results()
        if not self.deferrable:
            end = super().execute(context)
            return self._conclude(context, end)
        wait = self._watch(self._deadline(context))
        end = self._poll(context, wait)
        if end is None:
            from airflow_provider_testruns.triggers.run import defer_until_final

            defer_until_final(self, wait, platform=self.platform_name, conn_id=self.conn_id, cancel_on_kill=False)
        return self._conclude(context, end)

    @tidy_errors
    def poke(self, context: Context) -> PokeReturnValue:
        """Poll the run once.

        :return: done when the run is final, with the end of the wait as value; :meth:`execute` judges it.
        :raises ApiError: when the run can't be polled, and that lasts.
        """
        # The timeout is Airflow's own in these modes.
        wait = self._wait or self._watch(math.inf)
        end = self._poll(context, wait)
        while end is None and self.reschedule and wait.unsure:
            # The next poke may be in another process, which could not know how long this has lasted.
            time.sleep(min(5.0, self.poke_interval))
            end = self._poll(context, wait)
        if end is not None and end.error is not None:
            raise end.error
        return PokeReturnValue(end is not None, end)

    @tidy_errors
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Continue after the triggerer's wait.

        :param event: as :meth:`.WaitEnd.to_event` makes it.
        """
        from airflow_provider_testruns.lifecycle.waiting import WaitEnd
        from airflow_provider_testruns.tasks.delivery import errors_in_junit

        self.read_booleans()
        with errors_in_junit(self, context):
            end = WaitEnd.from_event(event)
            self._ended = end.run
            return self._conclude(context, end)

    @tidy_errors
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's operators do. Its sensors would skip on any error with ``soft_fail``; see :meth:`_conclude`."""
        from airflow_provider_testruns.tasks.delivery import errors_in_junit

        self._begin()
        try:
            if next_method == TRIGGER_FAILED:
                # execute_complete, which sees to the JUnit file, is not called then.
                with errors_in_junit(self, context):
                    return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
        except AirflowSkipException:
            raise
        except Exception as e:
            if type(e).__name__ == "TaskDeferralTimeout":  # its module differs between Airflow versions
                raise self._skip_or(AirflowSensorTimeout(*e.args)) from e
            # To be asked again later is no failure.
            if self.never_fail and not hasattr(e, "reschedule_date"):
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from e
            raise

    def _begin(self) -> None:
        from airflow_provider_testruns.tasks.overtime import time_left

        # In the mode reschedule Airflow's limit is for one poke, which has limits of its own.
        if self.deferrable or not self.reschedule:
            self._time_left = time_left(self)

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        """As Airflow's, but not beyond the end of ``execution_timeout``, should its alarm be lost."""
        interval = float(super()._get_next_poke_interval(*args, **kwargs))
        try:
            return min(interval, self._time_left())
        except AirflowTaskTimeout:
            # The poke that comes now raises it, where Airflow looks at soft_fail and never_fail.
            return 0.0

    def _watch(self, deadline: float) -> Wait:
        from airflow_provider_testruns.lifecycle.waiting import Wait

        self._wait = Wait(self.watched_run(), deadline, self.poke_interval, self.log, stalled_after=self.stalled_after)
        if self.exponential_backoff and self.deferrable:
            self._wait.slows_from = time.time()
            self._wait.max_interval = self.max_wait.total_seconds() if self.max_wait else None
        self.log.info("Using connection %r: %s", self.conn_id, self._hook.settings.base_url)
        return self._wait

    def _poll(self, context: Context, wait: Wait) -> WaitEnd | None:
        from airflow_provider_testruns.lifecycle.waiting import look_once

        hook = self._hook
        until = None if math.isinf(wait.deadline) else wait.deadline
        end = hook.client.run(look_once(hook.platform, wait), until)
        if wait.seen:
            self._announce(context, wait.run)
        return end

    @property
    def _hook(self) -> PlatformHook[Any]:
        if self._open_hook is None:
            self._open_hook = self.make_hook()
            self._open_hook.client.time_left = self._time_left
        return self._open_hook

    def _deadline(self, context: Context) -> float:
        deadline = time.time() + self.timeout
        if self.execution_timeout is not None:
            started = context["ti"].start_date
            began = started.timestamp() if started is not None else time.time()
            deadline = min(deadline, began + self.execution_timeout.total_seconds())
        return deadline

    def _announce(self, context: Context, run: Run) -> None:
        if self._announced:
            return
        self._announced = True
        announce(context, run, self.log)
        mark_test_run(context, run, self.conn_id)

    def _conclude(self, context: Context, end: WaitEnd) -> Any:
        """What the end of the wait means for the task: the one place for all modes."""
        from airflow_provider_testruns.lifecycle.waiting import WaitStatus, fetch_report
        from airflow_provider_testruns.metrics import span
        from airflow_provider_testruns.tasks.comparing import Comparing
        from airflow_provider_testruns.tasks.delivery import deliver

        if end.status is WaitStatus.ERROR and end.error is not None:
            raise end.error
        if end.status is WaitStatus.TIMEOUT:
            message = (
                f"Run {end.run.run_id} did not finish within the timeout ({self.timeout:g} s): {end.run.raw_state}."
            )
            if end.error is not None:
                message += f" The last poll failed: {end.error}"
            raise self._skip_or(AirflowSensorTimeout(message))
        with span("judge", platform=self._hook.platform.name):
            steps = fetch_report(self._hook.platform, end.run, self.log)
            report = self.run_report = self._hook.client.run(steps)
            self._announce(context, report.run)
            comparing = Comparing(self, context)
            report, judgement = comparing.judge(report)
            self.run_report = report
            comparing.remember()
            result, error = deliver(self, context, report, judgement)
        if error is None:
            return result
        # That a file could not be written is no verdict, and skips nothing.
        raise self._skip_or(error) if isinstance(error, RunEndedError) or self.never_fail else error

    def known_run(self) -> Run | None:
        return self._ended or (self._wait.run if self._wait is not None else None)

    def _skip_or(self, error: Exception) -> Exception:
        if not self.soft_fail and not self.never_fail:
            return error
        skip = AirflowSkipException(f"Skipping (soft_fail or never_fail): {error}")
        skip.__cause__ = error
        return skip
