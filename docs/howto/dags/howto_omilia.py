"""The pieces of the page "Omilia Testing Studio: how to", as one DAG file."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_testruns.operators.omilia import (
    OmiliaCreateGenerationOperator,
    OmiliaCreateProjectOperator,
    OmiliaCreateRunOperator,
    OmiliaDeleteProjectOperator,
    OmiliaDownloadGenerationArtifactOperator,
    OmiliaDownloadRunArtifactOperator,
    OmiliaDownloadTestSuitesOperator,
    OmiliaGenerateGoldenDialogOperator,
    OmiliaRevokeRunOperator,
    OmiliaUpdateProjectOperator,
    OmiliaUploadTestSuitesOperator,
)
from airflow_provider_testruns.sensors.omilia import OmiliaGenerationSensor, OmiliaRunSensor


@dag
def howto_omilia():
    # [START start]
    smoke = OmiliaCreateRunOperator(
        task_id="smoke",
        project_name="smoke",
        group="payments",
        stream_logs=True,
        junit_path="/tmp/reports/",
        deferrable=True,
    )
    # [END start]

    # [START watch]
    OmiliaRunSensor(task_id="wait", run_id="{{ params.run_id }}", deferrable=True, poke_interval=10)
    # [END watch]

    # [START generate]
    generation = OmiliaCreateGenerationOperator(
        task_id="generate", project_name="smoke", group="payments", deferrable=True
    )
    OmiliaDownloadGenerationArtifactOperator(
        task_id="fetch_cases",
        generation_id=generation.output["run_id"],
        project_name="smoke",
        path="/tmp/generated.zip",
    )
    # [END generate]

    # [START watch_generation]
    OmiliaGenerationSensor(
        task_id="wait_for_cases", generation_id="{{ params.generation_id }}", project_name="smoke", deferrable=True
    )
    # [END watch_generation]

    # [START revoke]
    OmiliaRevokeRunOperator(task_id="revoke", run_id="{{ params.run_id }}")
    # [END revoke]

    # [START project]
    create = OmiliaCreateProjectOperator(task_id="create", name="CI {{ run_id }}", group="payments")
    project_id = create.output["project_id"]
    upload = OmiliaUploadTestSuitesOperator(task_id="upload", project_id=project_id, path="/repository/suites")
    run = OmiliaCreateRunOperator(task_id="run", project_id=project_id, deferrable=True)
    delete = OmiliaDeleteProjectOperator(task_id="delete", project_id=project_id).as_teardown(setups=create)
    create >> upload >> run >> delete
    # [END project]

    # [START update]
    OmiliaUpdateProjectOperator(
        task_id="new_token",
        project_name="smoke-git",
        name="smoke-git",
        group="payments",
        url="https://gitlab.example.com/voice/suites.git",
        git_token="{{ conn.gitlab.password }}",
    )
    # [END update]

    # [START files]
    OmiliaDownloadRunArtifactOperator(task_id="artifact", run_id=smoke.output["run_id"], path="/tmp/artifact.zip")
    OmiliaDownloadTestSuitesOperator(task_id="suites", project_name="smoke", path="/tmp/suites.zip")
    OmiliaGenerateGoldenDialogOperator(task_id="golden", dialog_id="{{ params.dialog_id }}", path="/tmp/golden.json")
    # [END files]


howto_omilia()
