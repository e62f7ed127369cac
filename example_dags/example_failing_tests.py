"""
### When tests fail

The regression suites have test cases that fail, so the run's task fails: its message, the last thing in its log, names
them. The report is in XCom all the same: `tell_the_team` reads it, while `release` is never reached. So does the
notifier of the task, which needs no task of its own; any of Airflow's notifiers (mail, chat, pager) takes its place.

The ids are those of the sandbox (`python -m airflow_provider_testruns.sandbox`): put your own in their place.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseNotifier  # airflow.sdk has it from 3.1 on
from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.omilia import OmiliaCreateRunOperator

#: The report is the task's return value. There is none when the run could not be judged.
MESSAGE = """\
{% set report = ti.xcom_pull() %}\
{% if report %}\
{{ report.platform }} tests {{ report.verdict }}: {{ report.passed }} of {{ report.total }} passed, {{ report.url }}
{% for case in report.failures %}\
* {{ case.name }}: {{ case.message }}
{% endfor %}\
{% else %}\
{{ ti.task_id }} did not get as far as a result: {{ exception }}
{% endif %}"""


class LogNotifier(BaseNotifier):
    """Stands for your notifier.

    :param message: what it says; templated.
    """

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        """Say it, to the task's log."""
        self.log.info("Notification:\n%s", self.message)


with DAG(
    dag_id="example_failing_tests",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "omilia", "ends: failed"],
    # What is left empty in the form reaches the operator as None, not as text.
    render_template_as_native_obj=True,
    params={
        "group": Param(
            None,
            title="Group",
            description="Only test cases of this group; empty for all.",
            type=["string", "null"],
            enum=["accounts", "payments", None],
            values_display={"null": "all"},
        ),
    },
) as dag:
    run_regression = OmiliaCreateRunOperator(
        task_id="run_regression",
        project_id="0a000000-0000-4000-8000-000000000002",
        group="{{ params.group }}",
        deferrable=True,
        poll_interval=5,
        # The retries are for a platform that can't be reached: tests that failed would fail again.
        retries=2,
        retry_delay=10,
        retry_failed_runs=False,
        on_failure_callback=LogNotifier(MESSAGE),
    )

    @task(trigger_rule="one_failed")
    def tell_the_team(report: dict[str, Any]) -> None:
        """Stands for your chat or mail."""
        print(f"{report['failed'] + report['unavailable']} of {report['total']} test cases did not pass:")
        for case in report["failures"]:
            print(f"  {case['name']}: {case['message']}")

    @task
    def release() -> None:
        print("Every test case passed.")

    tell_the_team(run_regression.output)
    run_regression >> release()
