"""The part of an operator that starts a run and waits for it. What is done with the run is in :mod:`.execution`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

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
    #: Whether the run's own log is streamed into the task log; only for platforms that have a call for it.
    stream_logs: bool = False
    #: See :class:`.Wait`; of the platforms whose runs may stay open for ever.
    stalled_after: float | None = None

    @abstractmethod
    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the platform's start, from this operator's own."""

    def after_failed_run(self, platform: Platform) -> Callable[[Run], Steps[Start | str]] | None:
        """What follows a run of an earlier try that failed, instead of a new start; see :class:`.Starter`.

        :param platform: the run's platform.
        :return: ``None`` for always a new start.
        """
        return None
