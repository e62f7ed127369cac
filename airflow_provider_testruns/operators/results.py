"""What operators and sensors that judge a run have in common. What they do with it is in :mod:`.delivery`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_testruns.arguments import count, fraction, names
from airflow_provider_testruns.exceptions import ConfigurationError, StartSupersededError
from airflow_provider_testruns.hooks.registry import ConnectedTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_testruns.model import Gates, Judgement, Run, RunReport

    class _Task(ConnectedTask, BaseOperator):
        """What its children are."""
else:
    _Task = ConnectedTask


#: What Airflow resumes a task with whose trigger has failed, in place of the name of a method.
TRIGGER_FAILED = "__fail__"


class JudgingTask(_Task):
    """The part of an operator or sensor that judges a run and hands on what came out.

    The arguments are set by the constructors of its children; see there what they mean.
    """

    #: Templated in every child, beside what it names itself.
    result_fields: ClassVar[tuple[str, ...]] = ("junit_path", "allowed_failures")

    min_pass_rate: float | None
    max_failures: int | None
    fail_on_no_tests: bool
    allowed_failures: Sequence[str] | str | None
    junit_path: str | None

    #: The seconds that are left of ``execution_timeout``, see :func:`.time_left`; set when this process begins to
    #: execute the task.
    _time_left: Callable[[], float] = staticmethod(lambda: math.inf)
    #: The arguments that name a place to write to.
    _places: ClassVar[tuple[str, ...]] = ("junit_path",)
    #: Those that are given where the DAG is written.
    _places_given: tuple[str, ...] = ()

    #: What the run was judged by and to be, for what Airflow asks after the task's own code is done.
    _judged: tuple[RunReport, Judgement] | None = None
    #: The report as soon as it is known, judged or not.
    _report: RunReport | None = None
    #: Whether the report has gone its ways.
    _delivered = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = tuple(getattr(cls, "template_fields", ()))
        cls.template_fields = (*own, *(name for name in cls.result_fields if name not in own))

    def gates(self) -> Gates:
        """What the task asks of the run.

        :raises ConfigurationError: naming the argument that can't be right.
        """
        from airflow_provider_testruns.model import Gates

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

        return OperatorLineage() if self._judged is None else lineage(*self._judged)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """The same when it failed; nothing when the run was not judged."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _check_gates(self) -> None:
        """Check what can be checked where the DAG is written."""
        self._places_given = tuple(name for name in self._places if getattr(self, name) is not None)
        if self.min_pass_rate is not None:
            fraction("min_pass_rate", self.min_pass_rate)
        if self.max_failures is not None:
            count("max_failures", self.max_failures)

    def _check_results(self, *, try_writing: bool = False) -> None:
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
                from airflow_provider_testruns.hooks.files import check_target

                check_target(place, name, into=name != "junit_path", try_writing=try_writing)

    def _result(self, report: RunReport, judgement: Judgement, junit_path: str | None) -> Any:
        """What the task returns."""
        from airflow_provider_testruns.reporting.xcom import to_xcom

        return to_xcom(report, judgement, junit_path)

    @contextmanager
    def _errors_in_junit(self, context: Context) -> Iterator[None]:
        """Write the JUnit file for a task that fails before its run is judged, too: one of an earlier run, left where
        it was, would be taken for this one's."""
        try:
            yield
        except StartSupersededError:
            # A later try has taken over, and its file may be there already.
            raise
        except (Exception, AirflowTaskTimeout) as e:
            # A sensor that is to be asked again later ends in an exception, too.
            if self.junit_path is not None and not self._delivered and not hasattr(e, "reschedule_date"):
                from airflow_provider_testruns.operators.delivery import write_error

                write_error(self, context, e)
            raise

    def _known_run(self) -> Run | None:
        """The run, as far as it is known when the task fails."""
        return None
