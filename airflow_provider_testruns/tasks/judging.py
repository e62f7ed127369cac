"""The part of an operator or sensor that judges a run. What is done with the verdict is in :mod:`.delivery`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_testruns.arguments import count, fraction, names
from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.tasks.connected import ConnectedTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_testruns.judging import Gates, Judgement
    from airflow_provider_testruns.model import Run, RunReport

    class _Task(ConnectedTask, BaseOperator):
        """What its children are."""
else:
    _Task = ConnectedTask


#: What Airflow resumes a task with whose trigger has failed, in place of the name of a method.
TRIGGER_FAILED = "__fail__"


class JudgingTask(_Task):
    """The part of an operator or sensor that judges a run and delivers the result.

    The arguments are set by the constructors of its children; see there what they mean.
    """

    #: Templated in every child, beside what it names itself.
    result_fields: ClassVar[tuple[str, ...]] = ("junit_path", "allowed_failures")

    min_pass_rate: float | None
    max_failures: int | None
    fail_on_no_tests: bool
    allowed_failures: Sequence[str] | str | None
    junit_path: str | None

    #: The arguments that name a place to write to.
    _places: ClassVar[tuple[str, ...]] = ("junit_path",)
    #: Those that are given where the DAG is written.
    _places_given: tuple[str, ...] = ()

    #: The report as soon as it is fetched, judged or not.
    run_report: RunReport | None = None
    #: What that was judged to mean; Airflow asks for lineage after the task's own code is done.
    run_judgement: Judgement | None = None
    #: Whether the report has been delivered.
    report_delivered: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = tuple(getattr(cls, "template_fields", ()))
        cls.template_fields = (*own, *(name for name in cls.result_fields if name not in own))

    def gates(self) -> Gates:
        """What the task asks of the run.

        :raises ConfigurationError: naming the argument that can't be right.
        """
        from airflow_provider_testruns.judging import Gates

        return Gates(
            min_pass_rate=self.min_pass_rate,
            fail_on_no_tests=self.fail_on_no_tests,
            max_failures=self.max_failures,
            allowed_failures=names("allowed_failures", self.allowed_failures),
        )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """What the OpenLineage provider sends of the run when the task succeeded: the facet ``test``."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from airflow_provider_testruns.reporting.lineage import lineage

        if self.run_report is None or self.run_judgement is None:
            return OperatorLineage()
        return lineage(self.run_report, self.run_judgement)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """The same when it failed; nothing when the run was not judged."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def check_gates(self) -> None:
        """Check what can be checked where the DAG is written."""
        self._places_given = tuple(name for name in self._places if getattr(self, name) is not None)
        if self.min_pass_rate is not None:
            fraction("min_pass_rate", self.min_pass_rate)
        if self.max_failures is not None:
            count("max_failures", self.max_failures)

    def check_results(self, *, try_writing: bool = False) -> None:
        """Check the rendered arguments, before a run is paid for or waited for.

        :param try_writing: whether it is also tried that files can be written.
        """
        self.read_booleans()
        self.gates()
        for name in self._places:
            place = getattr(self, name)
            if place is None and name in self._places_given:
                raise ConfigurationError(
                    f"{name} was given and is None after rendering: a parameter that is not set, perhaps. Set it, or"
                    " leave the argument out."
                )
            if place is not None:
                from airflow_provider_testruns.files import check_target

                check_target(place, name, into=name != "junit_path", try_writing=try_writing)

    def task_result(self, report: RunReport, judgement: Judgement, junit_path: str | None) -> Any:
        """What the task returns."""
        from airflow_provider_testruns.reporting.xcom import to_xcom

        return to_xcom(report, judgement, junit_path)

    def known_run(self) -> Run | None:
        """The run, as far as it is known when the task fails."""
        return None
