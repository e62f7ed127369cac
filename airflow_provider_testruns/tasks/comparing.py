"""How a task compares its run with earlier ones: what is remembered of them is the XCom ``test_run_history``.

Loaded when a task is executed, not when its DAG file is read.

Airflow gives the XCom of an earlier DAG run with ``include_prior_dates``: of the rows whose DAG run is not later than
ours the first one, by logical date, the newest first. DAG runs without a logical date (manual ones, those that an asset
triggered) are the first of all on PostgreSQL and the last of all on SQLite, so that neither shows the newest row where
there are rows of both sorts. There are none: a run whose DAG run is of the other sort than that of the row that it has
read writes into that row, in the place of its own. So all rows of a task are of one sort, and the first one is the
newest on any database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XCom

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean, distinct, outgoing_json
from airflow_provider_testruns.comparison import History, Selection, compare, from_json, remember, to_json
from airflow_provider_testruns.model import CompareWith
from airflow_provider_testruns.tasks.starting import StartingTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_testruns.judging import Judgement
    from airflow_provider_testruns.model import Run, RunReport
    from airflow_provider_testruns.tasks.judging import JudgingTask

#: The XCom.
KEY = "test_run_history"
#: What in it is compared with ids, so that nothing in it is masked.
_EXACT = frozenset({"run_id", "dag_run"})
#: What of a run says what was tested, where the platform shows it: ids, and arguments of its start.
_IDS = ("project_id", "model_id", "run_test_id", "test_config_id")
_STARTED_WITH = ("type", "group", "utterance", "description", "test_suite")


class Comparing:
    """Judges a task's run with what has changed since an earlier one, where ``compare_with`` asks for that.

    :param task: the task, with its arguments rendered.
    :param context: the task's.
    """

    def __init__(self, task: JudgingTask, context: Context) -> None:
        self._task = task
        self._context = context
        self._ti = context["ti"]
        self._map_index = -1 if self._ti.map_index is None else self._ti.map_index
        self._dag_run = str(self._ti.run_id)
        #: Whether the DAG run has a logical date.
        self._dated = getattr(context.get("dag_run"), "logical_date", None) is not None
        self._place: tuple[str, bool] | None = None
        self._next: History | None = None

    def judge(self, report: RunReport) -> tuple[RunReport, Judgement]:
        """What a run means; and its report, compared.

        :param report: of a run that has finished.
        """
        task = self._task
        if task.compare_with is None:
            return report, task.judge_report(report)
        gates, tested = task.gates(), self._tested(report.run)
        history, unknown = self._read()
        report = compare(
            report,
            gates,
            CompareWith(task.compare_with),
            history,
            tested,
            dag_run=self._dag_run,
            unknown=unknown,
        )
        judgement = task.judge_report(report, gates)
        self._next = remember(report, judgement.verdict, gates, history, tested, dag_run=self._dag_run)
        return report, judgement

    def remember(self) -> None:
        """Keep what the next run is compared with. That it can't be kept is logged: it changes no verdict."""
        if self._next is None:
            return
        data = to_json(self._next)
        try:
            if self._place is not None and self._place[1] is not self._dated and self._write_there(data, *self._place):
                return
            self._write(data, self._dag_run, self._dated)
        except Exception as e:  # whatever Airflow's channel raises
            self._task.log.warning("What the next run is compared with could not be kept: %s: %s", type(e).__name__, e)

    def _write_there(self, data: Mapping[str, Any], place: str, dated: bool) -> bool:
        """Write into the row of another DAG run; whether that was possible."""
        try:
            self._write(data, place, dated)
        except Exception as e:  # whatever Airflow's channel raises: that DAG run may have been removed meanwhile
            self._task.log.info("Not written into the XCom of DAG run %s: %s: %s", place, type(e).__name__, e)
            return False
        return True

    def _write(self, data: Mapping[str, Any], place: str, dated: bool) -> None:
        ti = self._ti
        value = outgoing_json({**data, "place": {"dag_run": place, "dated": dated}}, exact=_EXACT)
        if place == self._dag_run:
            ti.xcom_push(key=KEY, value=value)
            return
        XCom.set(KEY, value, dag_id=ti.dag_id, task_id=ti.task_id, run_id=place, map_index=self._map_index)

    def _read(self) -> tuple[History | None, str]:
        """What is remembered; or why that can't be read."""
        ti = self._ti
        try:
            data = ti.xcom_pull(
                task_ids=ti.task_id,
                key=KEY,
                include_prior_dates=True,
                map_indexes=-1 if ti.map_index is None else ti.map_index,
            )
        except Exception as e:  # whatever Airflow's channel raises: the verdict must not depend on it
            self._task.log.warning("What is known of earlier runs could not be read: %s: %s", type(e).__name__, e)
            return None, f"No baseline: what is known of earlier runs could not be read ({type(e).__name__})."
        if data is None:
            return None, ""
        try:
            # First, so that a row that can't be read is replaced: all later runs would read it again.
            place = data["place"]
            self._place = str(place["dag_run"]), place["dated"] is True
            history = from_json(data)
        except (ValueError, KeyError, TypeError) as e:
            # XComs can be written by people.
            said = clean(str(e), limits.STATUS)
            return None, f"No baseline: the XCom {KEY} of an earlier run can't be read ({said})."
        return history, ""

    def _tested(self, run: Run) -> Selection:
        task = self._task
        arguments = {name: getattr(task, name, None) for name in (*task.tested_by, task.conn_id_attr)}
        shown = {name: run.ids[name] for name in _IDS if name in run.ids}
        if not (isinstance(task, StartingTask) and task.tested_by):
            # What a task starts its own arguments say; a retry may run only the cases again that failed.
            shown |= {name: run.started_with[name] for name in _STARTED_WITH if name in run.started_with}
        return Selection(
            run.platform,
            run.kind.value,
            self._map_name(),
            {name: _hash(value) for name, value in arguments.items() if value is not None},
            {name: distinct("" if value is None else str(value), limits.NAME) for name, value in shown.items()},
        )

    def _map_name(self) -> str:
        """How Airflow's pages name the mapped task; its index says only at which place it stands."""
        template = self._context.get("map_index_template")
        if template is None:
            return ""
        try:
            return distinct(str(self._task.render_template(template, self._context)))
        except Exception as e:  # whatever a template does
            self._task.log.debug("map_index_template can't be rendered: %s: %s", type(e).__name__, e)
            return ""


def _hash(value: Any) -> str:
    """Stands for an argument, which may be long."""
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(each, str) for each in value):
        value = sorted(value)
    said = json.dumps(value, sort_keys=True, default=str)
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
