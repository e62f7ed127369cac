"""
### Voice tests as a step of CI/CD

After the guide "Use through CI/CD" of the Testing Studio API: a project is created, the test suites are uploaded, run,
and read out; what failed is listed with what was expected and what was found; the artifacts are fetched, and whatever
happened the project is deleted again. Creating and deleting are Airflow's setup and teardown: a cleared task runs with
a project of its own.

The release is reached only if every test case passed. With a project name such as `ci-failing` the sandbox has some
fail.

On several workers, give both paths as object storage URLs, such as `s3://conn_id@bucket/suites`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from airflow.sdk import DAG, Param, task

from airflow_provider_testruns.operators.omilia import (
    OmiliaCreateProjectOperator,
    OmiliaCreateRunOperator,
    OmiliaDeleteProjectOperator,
    OmiliaDownloadRunArtifactOperator,
    OmiliaUploadTestSuitesOperator,
)

with DAG(
    dag_id="example_omilia_ci",
    schedule=None,
    doc_md=__doc__,
    # "ends: ..." is what `make demo` expects of a run with the form's defaults.
    tags=["example", "omilia", "ends: passed"],
    params={
        "project": Param(
            "ci-smoke",
            title="Project",
            description="The first part of the project's name; the DAG run is the other.",
            type="string",
            pattern=r"^[a-z0-9-]+$",
        ),
        "group": Param(
            "qa",
            title="Group",
            description="The group that the project belongs to.",
            type="string",
            enum=["qa", "accounts", "payments"],
        ),
        "artifacts_path": Param(
            f"{tempfile.gettempdir()}/testruns-ci/",
            title="Artifacts",
            description="A folder, or an object storage URL that ends with a slash, for the run's results.",
            type="string",
            pattern=r"/$",
        ),
    },
) as dag:

    @task
    def check_out() -> str:
        """Stands for your repository: a folder with test suites, as Testing Studio has them."""
        folder = Path(tempfile.mkdtemp(prefix="suites-"))
        (folder / "tests" / "balance").mkdir(parents=True)
        (folder / ".omilia-ci.yml").write_text("version: 1\nparallelTestCases: 1\n")
        (folder / "tests" / "balance" / "savings.yml").write_text("name: savings\nutterance: what are my savings\n")
        return str(folder)

    create_project = OmiliaCreateProjectOperator(
        task_id="create_project", name="{{ params.project }} {{ run_id }}", group="{{ params.group }}"
    )
    project_id = create_project.output["project_id"]

    upload_suites = OmiliaUploadTestSuitesOperator(task_id="upload_suites", project_id=project_id, path=check_out())

    run_suites = OmiliaCreateRunOperator(
        task_id="run_suites",
        project_id=project_id,
        deferrable=True,
        poll_interval=5,
        stream_logs=True,
        # The retries are for a platform that can't be reached: tests that failed would fail again.
        retries=2,
        retry_delay=10,
        retry_failed_runs=False,
    )

    # Empty where no run was started. The XCom is there as soon as one is, and whatever becomes of it.
    started_run = "{{ ti.xcom_pull(task_ids='run_suites', key='run_id') or '' }}"

    @task(trigger_rule="all_done")
    def list_failed_cases(of_run: str) -> int:
        """What did not pass: expected and found. Stands for your chat or mail."""
        from airflow_provider_testruns.hooks.omilia import OmiliaHook

        if not of_run:
            print("No run was started.")
            return 0
        failed = 0
        for case in OmiliaHook().list_run_test_cases(of_run):
            reasons = [
                f"step {error['step']}, {error['assertion']}: expected {error['expected']!r}, found {error['found']!r}"
                for error in case["assertionErrors"]
            ]
            reasons += [error["text"] for error in case["generalErrors"]]
            if reasons:
                failed += 1
                print(f"{case['testCaseName']} did not pass:", *reasons, sep="\n  ")
        print(f"{failed} test cases did not pass.")
        return failed

    fetch_artifacts = OmiliaDownloadRunArtifactOperator(
        task_id="fetch_artifacts",
        run_id=started_run,
        path="{{ params.artifacts_path }}",
        trigger_rule="all_done",
    )

    @task
    def release() -> None:
        """Stands for your deployment."""
        print("Every test case passed.")

    delete_project = OmiliaDeleteProjectOperator(task_id="delete_project", project_id=project_id)

    create_project >> upload_suites >> run_suites >> release()
    run_suites >> [list_failed_cases(started_run), fetch_artifacts] >> delete_project
    delete_project.as_teardown(setups=create_project)
