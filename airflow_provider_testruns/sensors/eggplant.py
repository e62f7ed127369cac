"""Sensors for Eggplant DAI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.sensors.base import RunSensor

if TYPE_CHECKING:
    from airflow_provider_testruns.judging import Gates, Judgement
    from airflow_provider_testruns.model import Run, RunReport


class EggplantExecutionSensor(RunSensor):
    """Waits for an execution on Eggplant DAI and judges it.

    The call that polls it depends on the server; see :meth:`.EggplantPlatform.get_run`.

    :param execution_id: the execution, as the start gave it.
    :param eggplant_conn_id: the Airflow connection.

    The other arguments are those of :class:`.RunSensor`.
    """

    platform_name = "eggplant"
    conn_id_attr = "eggplant_conn_id"
    template_fields: Sequence[str] = ("execution_id", "eggplant_conn_id")

    def __init__(self, *, execution_id: str, eggplant_conn_id: str = "eggplant_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.eggplant_conn_id = eggplant_conn_id

    def watched_run(self) -> Run:
        """The execution of the arguments."""
        from airflow_provider_testruns.arguments import identifier
        from airflow_provider_testruns.model import Run, RunState

        return Run("eggplant", identifier("execution_id", self.execution_id, number=True), RunState.QUEUED, "")


class EggplantRunProgressSensor(RunSensor):
    """Waits for one run on Eggplant DAI, or for all runs of a model, and judges them.

    ``POST /api/run/progress`` of the DAI API ("Check Run Progress Method"), one call a poll.

    By ``run_id`` it does what :class:`EggplantExecutionSensor` does. By ``model_name`` it waits until every run of the
    model is over and returns them all, newest first, each as ``{platform, run_id, verdict, raw_state, url, started_at,
    finished_at, duration}``; it fails (with ``soft_fail``: skips) when one did not pass. Each run, by its id, is then
    what a test case is otherwise, for ``min_pass_rate``, ``max_failures``, ``allowed_failures`` and ``junit_path``.
    While the model has no run there is nothing to see: that ends the wait with :class:`.NotFoundError` when it lasts
    for a minute.

    :param run_id: the run, as the start gave it. Exactly one of ``run_id`` and ``model_name`` must be given.
    :param model_name: the model's name, not its UUID.
    :param limit: by model, only the newest so many runs at each poll; without, every run that the server lists, however
        old: one that failed years ago then fails the sensor, too.
    :param eggplant_conn_id: the Airflow connection.

    The other arguments are those of :class:`.RunSensor`.
    """

    platform_name = "eggplant"
    conn_id_attr = "eggplant_conn_id"
    template_fields: Sequence[str] = ("run_id", "model_name", "limit", "eggplant_conn_id")

    def __init__(
        self,
        *,
        run_id: str | None = None,
        model_name: str | None = None,
        limit: int | str | None = None,
        eggplant_conn_id: str = "eggplant_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.model_name = model_name
        self.limit = limit
        self.eggplant_conn_id = eggplant_conn_id
        if model_name is not None and self.compare_with is not None:
            raise ConfigurationError(
                "compare_with is only for run_id: with model_name, each run is a case, whose name is always new."
            )

    def watched_run(self) -> Run:
        """The run of the arguments, or the runs of the model as one.

        :raises ConfigurationError: for arguments that can't be right.
        """
        from airflow_provider_testruns.arguments import exactly_one, identifier, optional_integer, positive
        from airflow_provider_testruns.model import Kind, Run, RunState

        exactly_one(run_id=self.run_id, model_name=self.model_name)
        limit = optional_integer("limit", self.limit)
        if self.run_id is not None:
            if limit is not None:
                raise ConfigurationError("limit is only for model_name: a run_id names a single run.")
            return Run("eggplant", identifier("run_id", self.run_id, number=True), RunState.QUEUED, "")
        name = identifier("model_name", self.model_name, number=True)
        ids = {"kind": Kind.MODEL.value, "model_name": name}
        if limit is not None:
            ids["limit"] = str(positive("limit", limit))
        return Run("eggplant", name, RunState.QUEUED, "", Kind.MODEL, ids=ids)

    def task_result(self, report: RunReport, judgement: Judgement, junit_path: str | None) -> Any:
        from airflow_provider_testruns.model import Kind
        from airflow_provider_testruns.reporting.xcom import run_to_xcom

        if report.run.kind is not Kind.MODEL:
            return super().task_result(report, judgement, junit_path)
        return [run_to_xcom(part) for part in report.run.parts]

    def judge_report(self, report: RunReport, gates: Gates | None = None) -> Judgement:
        """What a run, or the runs of a model together, mean."""
        from dataclasses import replace

        from airflow_provider_testruns.model import Kind, Verdict

        judgement = super().judge_report(report, gates)
        counted = self.min_pass_rate is not None or self.max_failures is not None
        if report.run.kind is not Kind.MODEL or judgement.verdict is Verdict.PASSED or counted:
            return judgement
        # As cases, runs only pass or not. When none of them failed its tests, the sensor must not say that one did.
        allowed = {case.name for case in judgement.allowed}
        endings = [part.platform_verdict for part in report.run.parts if part.run_id not in allowed]
        bad = [each for each in (Verdict.FAILED, Verdict.ERRORED, Verdict.CANCELLED) if each in endings]
        counts = ", ".join(f"{endings.count(each)} {each.value}" for each in bad)
        passed, total = endings.count(Verdict.PASSED), len(report.run.parts)
        said = f"Of {total} runs of model {report.run.run_id}, {passed} passed: {counts}."
        return replace(judgement, verdict=bad[0], reasons=(said, *judgement.reasons[1:]))
