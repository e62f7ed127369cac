"""``python -m tests.harness.compiled``: imports once what the processes of the tests import, so that there is bytecode.

Whoever makes bytecode writes it down for the next; many that begin at the same time make it all at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

from tests.harness import places

#: What the components of a running Airflow import.
COMPONENTS = (
    *(
        f"airflow.cli.commands.{name}_command"
        for name in ("api_server", "dag_processor", "db", "scheduler", "task", "triggerer")
    ),
    "airflow.api_fastapi.core_api.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "airflow.api_fastapi.execution_api.app",
    "airflow.dag_processing.processor",
    "airflow.executors.local_executor",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.providers.standard.operators.python",
    "airflow.sdk.execution_time.task_runner",
)


def main() -> int:
    """Import it all, the tests too.

    :return: 0. What can't be imported is for the tests to tell.
    """
    # First of all: what is imported from here on may make files.
    places.take()
    for name in COMPONENTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import pytest

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
