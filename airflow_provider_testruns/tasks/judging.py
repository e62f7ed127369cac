"""The part of an operator or sensor that judges a run. What is done with the verdict is in :mod:`.delivery`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_testruns.arguments import count, fraction, fractions, shown
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
#: What ``compare_with`` can be: the values of :class:`.CompareWith`, which a DAG file need not import.
COMPARE_WITH = ("previous", "last_passed")


def _check_airflow() -> None:
    """Check that the Airflow version lets tasks read the XComs of earlier DAG runs."""
    from airflow import __version__

    # Not by the signature of xcom_pull: it has had the argument before API servers knew it.
    if tuple(map(int, __version__.split(".")[:2])) < (3, 1):
        raise ConfigurationError(
            f"compare_with needs Airflow 3.1 or later, whose tasks can read XComs of earlier DAG runs; this is"
            f" {__version__}. Leave compare_with out."
        )


class JudgingTask(_Task):
    """The part of an operator or sensor that judges a run and delivers the result.

    The arguments are set by the constructors of its children; see there what they mean.
    """

    #: Templated in every child, beside what it names itself.
    result_fields: ClassVar[tuple[str, ...]] = ("junit_path", "allowed_failures")

    min_pass_rate: float | None
    max_failures: int | None
    fail_on_no_tests: bool
    allowed_failures: Sequence[str | Mapping[str, Any]] | str | None
    compare_with: str | None
    max_new_failures: int | None
    junit_path: str | None

    #: The arguments that say what is tested: runs are compared when these are the same.
    tested_by: ClassVar[tuple[str, ...]] = ()
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
        from airflow_provider_testruns.quarantine import entries

        return Gates(
            min_pass_rate=self.min_pass_rate,
            fail_on_no_tests=self.fail_on_no_tests,
            max_failures=self.max_failures,
            allowed_failures=entries("allowed_failures", self.allowed_failures),
            max_new_failures=self.max_new_failures,
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
        self._check_comparison()

    def _check_comparison(self) -> None:
        if self.compare_with is not None:
            if self.compare_with not in COMPARE_WITH:
                raise ConfigurationError(
                    f"compare_with must be {' or '.join(map(repr, COMPARE_WITH))}, or None; got"
                    f" {shown(self.compare_with)}."
                )
            _check_airflow()
        if self.max_new_failures is not None:
            count("max_new_failures", self.max_new_failures)
            self._check_compared("max_new_failures")

    def _check_compared(self, gate: str) -> None:
        if self.compare_with is None:
            raise ConfigurationError(
                f"{gate} needs an earlier run to compare with: set compare_with to"
                f" {' or '.join(map(repr, COMPARE_WITH))}, or leave {gate} out."
            )

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

    def judge_report(self, report: RunReport, gates: Gates | None = None) -> Judgement:
        """What a run that has finished means.

        :param report: the run's, compared with an earlier one where ``compare_with`` asks for it.
        :param gates: as :meth:`gates` gave them for the comparison; read anew if they are not given.
        """
        from airflow_provider_testruns.judging import judge

        return judge(report, gates or self.gates())

    def task_result(self, report: RunReport, judgement: Judgement, junit_path: str | None) -> Any:
        """What the task returns."""
        from airflow_provider_testruns.reporting.xcom import to_xcom

        return to_xcom(report, judgement, junit_path)

    def known_run(self) -> Run | None:
        """The run, as far as it is known when the task fails."""
        return None


#: How Airflow's pages show the gates on evaluations.
GATES_AS_JSON = {"eval_thresholds": "json", "max_metric_drop": "json"}


class EvaluatingTask(JudgingTask):
    """The same of a platform whose runs have evaluations.

    The arguments are set by the constructors of its children; see there what they mean.
    """

    eval_thresholds: dict[str, float] | None
    max_metric_drop: dict[str, float] | None

    def gates(self) -> Gates:
        """What the task asks of the run, with its gates on evaluations."""
        return replace(
            super().gates(),
            eval_thresholds=fractions("eval_thresholds", self.eval_thresholds),
            max_metric_drop=fractions("max_metric_drop", self.max_metric_drop),
        )

    def evaluations(self) -> list[str]:
        """The evaluations that the gates are about."""
        gated = (("eval_thresholds", self.eval_thresholds), ("max_metric_drop", self.max_metric_drop))
        return sorted({name for argument, value in gated for name in fractions(argument, value)})

    def check_evaluations(self) -> None:
        """Check what can be checked where the DAG is written."""
        if self.max_metric_drop is not None:
            self._check_compared("max_metric_drop")
