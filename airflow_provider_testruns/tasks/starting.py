"""The part of an operator that starts a run and waits for it. What is done with the run is in :mod:`.execution`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.tasks.judging import JudgingTask

if TYPE_CHECKING:
    from airflow_provider_testruns.model import Run
    from airflow_provider_testruns.platforms.platform import Platform, Start
    from airflow_provider_testruns.steps import Steps


class StartingTask(JudgingTask):
    """What :class:`.RunExecution` needs of its task.

    The arguments are set by the constructor of :class:`.StartRunOperator`; see there what they mean.
    """

    _places: ClassVar[tuple[str, ...]] = ("junit_path", "artifacts_path")

    wait_for_completion: bool
    deferrable: bool
    poll_interval: float
    timeout: float
    cancel_on_kill: bool
    cancel_on_timeout: bool
    durable: bool
    adopt_lost_start: bool
    retry_failed_runs: bool
    artifacts_path: str | None
    fail_fast: bool
    rerun_failed_only: bool
    #: Whether :meth:`.Platform.poll_with_failures` shows failures of the runs that this operator starts, and they can
    #: be stopped.
    shows_failures: ClassVar[bool] = False
    #: Whether :meth:`.Platform.prepare_rerun_of_failed` can do something for the runs that this operator starts.
    reruns_failed: ClassVar[bool] = False
    #: Whether the run's own log is streamed into the task log; only for platforms that have a call for it.
    stream_logs: bool = False
    #: See :class:`.Wait`; of the platforms whose runs may stay open for ever.
    stalled_after: float | None = None

    def check_results(self, *, try_writing: bool = False) -> None:
        """Check the rendered arguments, before a run is paid for.

        :param try_writing: whether it is also tried that files can be written.
        """
        super().check_results(try_writing=try_writing)
        self.check_fail_fast()
        self.check_rerun()
        if self.fail_fast and self.gates().allowed_failures:
            raise ConfigurationError(
                "fail_fast=True can't be used with allowed_failures: while a run is running, only the number of its"
                " failures is known, not their names. Leave one of the two out."
            )

    def check_fail_fast(self) -> None:
        """Check ``fail_fast`` and what it needs.

        :raises ConfigurationError: when a run can't be stopped for its failures.
        """
        # A template is checked when it is rendered.
        if self.fail_fast is not True:
            return
        if not self.shows_failures:
            raise ConfigurationError(
                f"{type(self).__name__} can't have fail_fast=True: its platform shows no failures of such a run before"
                " the run has finished, or can't stop it. Leave fail_fast out; max_failures judges the finished run."
            )
        if self.max_failures is None:
            raise ConfigurationError(
                "fail_fast=True needs max_failures: how many test cases may fail before the run is stopped"
                " (0: the first failure stops it)."
            )

    @abstractmethod
    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the platform's start, from this operator's own."""

    def check_rerun(self) -> None:
        """Check ``rerun_failed_only``.

        :raises ConfigurationError: where only a whole run can be started.
        """
        if self.rerun_failed_only is not True:
            return
        if not self.reruns_failed:
            raise ConfigurationError(
                f"{type(self).__name__} can't have rerun_failed_only=True: its platform has no documented call that"
                " runs the failed cases of such a run again. Leave it out; a retry then starts a whole run."
            )
        if self.fail_fast is True:
            raise ConfigurationError(
                "Of fail_fast=True and rerun_failed_only=True only one can be given: a run that was stopped early has"
                " cases of which nobody knows whether they would have failed."
            )

    def after_failed_run(self, platform: Platform) -> Callable[[Run], Steps[Start | str]] | None:
        """What follows a run of an earlier try that failed, instead of a new start; see :class:`.Starter`.

        :param platform: the run's platform.
        :return: ``None`` for always a new start.
        """
        if not self.rerun_failed_only:
            return None
        return partial(platform.prepare_rerun_of_failed, **self.start_arguments())
