"""Where the record of a task's start is kept: Airflow's task state store (3.3 and later)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.cleaning import distinct, outgoing_json
from airflow_provider_testruns.exceptions import StartSupersededError
from airflow_provider_testruns.lifecycle.starting import Epoch
from airflow_provider_testruns.limits import MESSAGE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

#: The one key in the task's state store.
KEY = "test_run"
#: What of the record the next try compares or looks up: nothing is masked in it.
_EXACT = frozenset({"run_id", "context", "started_with", "mark", "fingerprint"})


class TaskStateRecordStore:
    """Keeps the record in a task's state store. It outlives a try, which an XCom does not.

    :param accessor: ``context["task_state_store"]``.
    """

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def read(self) -> Any:
        """What was written last, ``None`` when nothing was."""
        return self._accessor.get(KEY)

    def write(self, data: dict[str, Any]) -> None:
        """Keep ``data``.

        :raises StartSupersededError: when Airflow does not know this try any more: a later one owns the task.
        """
        try:
            self._accessor.set(KEY, outgoing_json({**data, **_compared(data)}, exact=_EXACT))
        except Exception as e:
            if _status(e) == 404:
                raise StartSupersededError(
                    "Airflow has handed this task to a later try, which takes care of its run. This try stops here and"
                    " leaves the run alone."
                ) from e
            raise

    def clear(self) -> None:
        """Forget what was written."""
        self._accessor.delete(KEY)


def _compared(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a lookup compares, in the form in which they still can be when they are clean."""
    started_with = data.get("started_with")
    if not isinstance(started_with, Mapping):
        return {}
    compared = {
        name: distinct(value, MESSAGE) if isinstance(value, str) else value for name, value in started_with.items()
    }
    return {"started_with": compared}


def record_store(context: Context) -> TaskStateRecordStore | None:
    """The store of the running task; ``None`` where the Airflow version has none."""
    accessor = context.get("task_state_store")
    return None if accessor is None else TaskStateRecordStore(accessor)


def epoch_of(context: Context, operator: BaseOperator) -> Epoch:
    """The task's epoch: a retry keeps it, a clear moves it."""
    clear_number = getattr(context.get("dag_run"), "clear_number", 0)
    return Epoch(int(context["ti"].max_tries or 0), int(operator.retries or 0), int(clear_number or 0))


def created_at(context: Context) -> float | None:
    """The earliest time, in seconds since 1970, at which a task of this DAG run can have started anything.

    Airflow does not tell tasks when a DAG run was created. A DAG run that was never cleared has its first start; one
    that was has the start after the clear, and what is left is the time before which Airflow does not start it.
    """
    dag_run = context.get("dag_run")
    start, after = getattr(dag_run, "start_date", None), getattr(dag_run, "run_after", None)
    if not getattr(dag_run, "clear_number", 0) and start is not None:
        return float(start.timestamp())
    known = [moment.timestamp() for moment in (start, after) if moment is not None]
    return min(known, default=None)


def _status(error: BaseException) -> int | None:
    """The HTTP status behind a failed write: from the supervisor's answer, or the API client's own exception."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    if isinstance(detail, dict):
        return detail.get("status_code")
    return getattr(getattr(error, "response", None), "status_code", None)
