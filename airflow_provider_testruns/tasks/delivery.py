"""Where the report of a finished run is delivered, for operators and sensors alike.

Loaded when a task is executed, not when its DAG file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_testruns.cleaning import outgoing_json
from airflow_provider_testruns.exceptions import ReportNotWrittenError, StartSupersededError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.judging import Judgement
    from airflow_provider_testruns.model import Run, RunReport
    from airflow_provider_testruns.tasks.judging import JudgingTask


def _count(run: Run, verdict: str) -> None:
    from airflow_provider_testruns.metrics import metrics

    metrics.count("finished", platform=run.platform, verdict=verdict)
    if run.started_at is not None and run.finished_at is not None:
        seconds = max(0.0, (run.finished_at - run.started_at).total_seconds())
        metrics.duration("duration", seconds, platform=run.platform, verdict=verdict)


def deliver(
    task: JudgingTask, context: Context, report: RunReport, judgement: Judgement
) -> tuple[Any, Exception | None]:
    """Deliver a judged report: to the log, the JUnit file, XCom and asset events; Airflow asks for lineage later.

    :param task: whose run it is.
    :param context: the task's.
    :param report: the run's.
    :param judgement: what that means.
    :return: what the task returns, and what it is to raise instead, if anything. It is in XCom then.
    """
    from airflow_provider_testruns.reporting.text import table, verdict_error
    from airflow_provider_testruns.reporting.xcom import to_event

    task.run_report, task.run_judgement = report, judgement
    _count(report.run, judgement.verdict.value)
    task.log.info("%s", table(report, judgement))
    junit_path, problem = _write_junit(task, context, report, judgement)
    task.report_delivered = True
    result = outgoing_json(task.task_result(report, judgement, junit_path))
    verdict = verdict_error(report, judgement, junit_path)
    error: Exception | None = verdict
    if problem is not None:
        said = f"The JUnit report could not be written to {task.junit_path}: {type(problem).__name__}: {problem}"
        if verdict is not None:
            # The verdict comes first, whatever else went wrong.
            error = type(verdict)(f"{verdict}\n{said}")
        else:
            # Whoever reads that file would take an old one, or none, for this run's.
            error = ReportNotWrittenError(
                f"Run {report.run.run_id} passed. {said}. A retry writes it again: on Airflow 3.3 and later it"
                " starts no new run for that."
            )
        error.__cause__ = problem
    if error is None:
        emit_asset_events(task, context, to_event(report, judgement))
    elif task.do_xcom_push:
        # A task that fails has no return value of its own; the report must be there all the same.
        context["ti"].xcom_push(key="return_value", value=result)
    return result, error


@contextmanager
def errors_in_junit(task: JudgingTask, context: Context) -> Iterator[None]:
    """Write the JUnit file for a task that fails before its run is judged, too: one of an earlier run, left where it
    was, would be taken for this one's.

    :param task: the task.
    :param context: the task's.
    """
    try:
        yield
    except StartSupersededError:
        # A later try has taken over, and its file may be there already.
        raise
    except (Exception, AirflowTaskTimeout) as e:
        # A sensor that is to be asked again later ends in an exception, too.
        if task.junit_path is not None and not task.report_delivered and not hasattr(e, "reschedule_date"):
            _write_error(task, context, e)
        raise


def _write_error(task: JudgingTask, context: Context, error: BaseException) -> None:
    from airflow_provider_testruns.model import Run, RunReport, RunState

    run = task.known_run() or Run(task.platform_name, "", RunState.QUEUED, "")
    report = task.run_report or RunReport(run)
    _, problem = _write_junit(task, context, report, None, error)
    if problem is not None:
        task.log.error("The JUnit report could not be written to %s: %s", task.junit_path, problem)


def _write_junit(
    task: JudgingTask,
    context: Context,
    report: RunReport,
    judgement: Judgement | None,
    error: BaseException | None = None,
) -> tuple[str | None, Exception | None]:
    """Write the file, if one is asked for.

    :return: where it is, and why it could not be written.
    """
    if task.junit_path is None:
        return None, None
    from airflow_provider_testruns.reporting.junit import write

    ti = context["ti"]
    about = {f"airflow.{name}": getattr(ti, name, None) for name in ("dag_id", "task_id", "run_id", "try_number")}
    if ti.map_index is not None and ti.map_index >= 0:
        about["airflow.map_index"] = ti.map_index
    try:
        place = write(task.junit_path, report, judgement, about, error=error)
    except Exception as e:  # of whatever kind: file systems behind fsspec have their own
        return None, e
    task.log.info("JUnit report: %s", place)
    return place, None


def emit_asset_events(task: JudgingTask, context: Context, extra: dict[str, Any]) -> None:
    """Put a result into the events of a task's assets.

    :param task: the task.
    :param context: the task's.
    :param extra: the result, plain JSON data.
    """
    from airflow.providers.common.compat.sdk import AssetAlias

    events = context.get("outlet_events")
    if events is None:
        return
    for outlet in task.outlets:
        if isinstance(outlet, AssetAlias):
            # Has events only for the assets that are added to it, which is its user's to do.
            continue
        try:
            events[outlet].extra.update(outgoing_json(extra))
        except TypeError:
            task.log.debug("%r is no asset, and has no event.", outlet)
