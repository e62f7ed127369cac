"""The button "Open test run" of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_testruns.cleaning import clean, outgoing_text
from airflow_provider_testruns.limits import ID, NAME, URL

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

    from airflow_provider_testruns.model import Run

#: The XCom that holds the address.
URL_KEY = "run_url"
#: The XCom of a task that starts or watches a test run, by which the page "Test runs" finds it.
TEST_RUN_KEY = "test_run"
#: Characters of a connection's id, as Airflow has it.
_CONN_ID = 250


class RunLink(BaseOperatorLink):
    """Opens the run on its platform.

    The address is an XCom that the task pushes as soon as its run is started: so the button is there while the run is
    going, deferred or not, for each mapped task.
    """

    name = "Open test run"

    @property
    def xcom_key(self) -> str:
        """The XCom in which the address is. Airflow's own key is written only at the end of a try."""
        return URL_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address, empty while there is no run.

        :param operator: the task's operator.
        :param ti_key: which task instance is meant.
        """
        url = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        # XComs can be written by people.
        return url if isinstance(url, str) and url.lower().startswith(("https://", "http://")) else ""


def announce(context: Context, run: Run, log: Any) -> None:
    """Push the run's id and address to XCom and say where the run is.

    :param context: the task's.
    :param run: the run.
    :param log: the task's.
    """
    ti = context["ti"]
    url = outgoing_text(run.url, URL)
    ti.xcom_push(key="run_id", value=clean(run.run_id))
    ti.xcom_push(key=URL_KEY, value=url)
    if url:
        log.info("The run: %s", url)


def mark_test_run(context: Context, run: Run, conn_id: str) -> None:
    """Push what says that this task starts or watches a test run, and which: ``platform``, ``conn_id``, ``run_id`` and
    ``kind``. For the page "Test runs"; a task that only stops a run does not do this.

    :param context: the task's.
    :param run: the run.
    :param conn_id: the Airflow connection.
    """
    value = {
        "platform": outgoing_text(run.platform, NAME),
        "conn_id": outgoing_text(conn_id, _CONN_ID),
        "run_id": clean(run.run_id, ID),
        "kind": run.kind.value,
    }
    context["ti"].xcom_push(key=TEST_RUN_KEY, value=value)
