"""Operators for Eggplant DAI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_testruns.arguments import boolean
from airflow_provider_testruns.exceptions import ConfigurationError, NotFoundError
from airflow_provider_testruns.operators.base import StartRunOperator, StopRunOperator

if TYPE_CHECKING:
    from airflow_provider_testruns.hooks.base import PlatformHook
    from airflow_provider_testruns.judging import Gates
    from airflow_provider_testruns.model import Run
    from airflow_provider_testruns.platforms.platform import Platform
    from airflow_provider_testruns.tasks.stopping import Found


class EggplantStartExecutionOperator(StartRunOperator):
    """Runs a model, a test case or a script on Eggplant DAI and judges the result.

    ``POST /execution_service/api/v1/executions`` of the DAI API (7.1 and later). At least one of ``model_id`` (or
    ``model_name``), ``rerun_id`` and ``script`` must be given.

    :param model_id: the UUID of the model.
    :param test_case_id: the test case of the model to run; an exploratory run without.
    :param rerun_id: the test case id of the original run, for a rerun.
    :param script: the name of the script, for a script-based run.
    :param agent: the agent, ``{"agent_id": …, "is_hosted_agent": …}``. Without one DAI connects to no Eggplant
        Functional suite: with ``model_id`` and ``test_case_id`` alone it only generates a path through the model.
    :param asset: the test assets, ``{"asset_version_id": …, "asset_path": …}``. Without them DAI runs a model without
        snippets, which tests nothing.
    :param sut: the system under test, ``{"sut_id": …}`` or ``{"criteria": [tag, …]}``.
    :param model_name: the name of the model, instead of ``model_id``; looked up, as the other names are. Beside
        ``model_id`` it saves the lookup of the name, by which DAI lists runs.
    :param test_case_name: the name of the test case, instead of ``test_case_id``.
    :param agent_name: the name of the agent, instead of ``agent_id`` in ``agent``.
    :param require_assets: whether the start of a model without an agent or without an asset is an error; otherwise it
        is a warning.
    :param eggplant_conn_id: the Airflow connection.

    An execution is one test case, so that with ``rerun_failed_only`` a retry starts the same one again; an exploratory
    run can't have it.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "eggplant"
    conn_id_attr = "eggplant_conn_id"
    reruns_failed = True
    tested_by = ("model_id", "model_name", "test_case_id", "test_case_name", "rerun_id", "script", "asset")
    template_fields: Sequence[str] = (
        "model_id",
        "test_case_id",
        "rerun_id",
        "script",
        "agent",
        "asset",
        "sut",
        "model_name",
        "test_case_name",
        "agent_name",
        "require_assets",
        "artifacts_path",
        "eggplant_conn_id",
    )
    template_fields_renderers = {"agent": "json", "asset": "json", "sut": "json"}  # noqa: RUF012 - as Airflow has it

    def __init__(
        self,
        *,
        model_id: str | None = None,
        test_case_id: int | str | None = None,
        rerun_id: int | str | None = None,
        script: str | None = None,
        agent: dict[str, Any] | None = None,
        asset: dict[str, Any] | None = None,
        sut: dict[str, Any] | None = None,
        model_name: str | None = None,
        test_case_name: str | None = None,
        agent_name: str | None = None,
        require_assets: bool = False,
        eggplant_conn_id: str = "eggplant_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.test_case_id = test_case_id
        self.rerun_id = rerun_id
        self.script = script
        self.agent = agent
        self.asset = asset
        self.sut = sut
        self.model_name = model_name
        self.test_case_name = test_case_name
        self.agent_name = agent_name
        self.require_assets = require_assets
        self.eggplant_conn_id = eggplant_conn_id
        self._check_rerun_of_case()

    def check_results(self, *, try_writing: bool = False) -> None:
        """Check the rendered arguments, before a run is paid for.

        :param try_writing: whether it is also tried that files can be written.
        """
        super().check_results(try_writing=try_writing)
        self._check_rerun_of_case()

    def _check_rerun_of_case(self) -> None:
        of_one = (self.test_case_id, self.test_case_name, self.rerun_id, self.script)
        if self.rerun_failed_only is True and all(argument is None for argument in of_one):
            raise ConfigurationError(
                "rerun_failed_only=True needs one of test_case_id, test_case_name, rerun_id and script: DAI does not"
                " show which test case an exploratory run has made, so that none can be run again."
            )

    def after_failed_run(self, platform: Platform) -> None:
        """An execution is one test case: a new start of the same arguments is that case again, and no other."""
        return

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the start call."""
        return {
            "model_id": self.model_id,
            "test_case_id": self.test_case_id,
            "rerun_id": self.rerun_id,
            "script": self.script,
            "agent": self.agent,
            "asset": self.asset,
            "sut": self.sut,
            "model_name": self.model_name,
            "test_case_name": self.test_case_name,
            "agent_name": self.agent_name,
            "require_assets": self.require_assets,
        }


class EggplantStartTestConfigurationOperator(StartRunOperator):
    """Runs a test configuration on Eggplant DAI and judges the result.

    ``POST /task_scheduler_service/api/v1/task_instances/{test_config_id}``, the call of DAI's own command line runner.
    It is waited for by its task (``GET /ai/testconfigtasks/{id}``) or, on servers that don't show that, by the result
    that is new since the start (``GET /api/v2/test_config_results``); a start whose response was lost is looked up
    there too. No documented call stops a run of a test configuration: ``cancel_on_kill`` and ``cancel_on_timeout`` only
    log that the run continues. A retry after a timeout waits for the same run.

    A test that fails and passes when DAI runs it again has passed, as DAI counts it, and is noted in the report.

    :param test_config_id: the test configuration: the end of the URL when it is opened in Controller > Test Config.
    :param test_config_name: its name, instead of the id.
    :param task_instance_body: a dict that is sent as the body of the start, as it is. DAI's own runner gives
        parameters, filters and what to run again in it; its form is in no public document.
    :param fail_on_rerun: whether a test that passed only when it was run again fails the run.
    :param eggplant_conn_id: the Airflow connection.

    The other arguments are those of :class:`.StartRunOperator`.
    """

    platform_name = "eggplant"
    conn_id_attr = "eggplant_conn_id"
    tested_by = ("test_config_id", "test_config_name", "task_instance_body")
    template_fields: Sequence[str] = (
        "test_config_id",
        "test_config_name",
        "task_instance_body",
        "fail_on_rerun",
        "artifacts_path",
        "eggplant_conn_id",
    )
    template_fields_renderers = {"task_instance_body": "json"}  # noqa: RUF012 - as Airflow has it

    def __init__(
        self,
        *,
        test_config_id: str | None = None,
        test_config_name: str | None = None,
        task_instance_body: dict[str, Any] | None = None,
        fail_on_rerun: bool = False,
        eggplant_conn_id: str = "eggplant_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.test_config_id = test_config_id
        self.test_config_name = test_config_name
        self.task_instance_body = task_instance_body
        self.fail_on_rerun = fail_on_rerun
        self.eggplant_conn_id = eggplant_conn_id

    def start_arguments(self) -> dict[str, Any]:
        """The arguments of the start call."""
        from airflow_provider_testruns.arguments import identifier

        arguments: dict[str, Any] = {"task_instance_body": self.task_instance_body}
        if self.test_config_name is not None:
            arguments["test_config_name"] = self.test_config_name
        if self.test_config_name is None or self.test_config_id is not None:
            # Without one, the platform would take this for the start of an execution and name other arguments.
            arguments["test_config_id"] = identifier("test_config_id", self.test_config_id, number=True)
        return arguments

    def gates(self) -> Gates:
        """What the task asks of the run.

        :raises ConfigurationError: naming the argument that can't be right.
        """
        return replace(super().gates(), fail_on_rerun=boolean("fail_on_rerun", self.fail_on_rerun))


class EggplantAbortExecutionOperator(StopRunOperator):
    """Aborts an execution on Eggplant DAI and waits until it has finished.

    ``DELETE /execution_service/api/v1/executions/{execution_id}`` of the DAI API (7.3 and later), which stops it in the
    background.

    :param execution_id: the execution, as the start gave it.
    :param eggplant_conn_id: the Airflow connection.

    The return value and the other arguments are those of :class:`.StopRunOperator`.
    """

    platform_name = "eggplant"
    conn_id_attr = "eggplant_conn_id"
    template_fields: Sequence[str] = ("execution_id", "eggplant_conn_id")

    def __init__(self, *, execution_id: str, eggplant_conn_id: str = "eggplant_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.execution_id = execution_id
        self.eggplant_conn_id = eggplant_conn_id

    def requested_run(self) -> Run:
        """The execution of the arguments."""
        from airflow_provider_testruns.arguments import identifier
        from airflow_provider_testruns.model import Run, RunState

        execution_id = identifier("execution_id", self.execution_id, number=True)
        return Run(self.platform_name, execution_id, RunState.QUEUED, "not seen yet")

    def find_run(self, hook: PlatformHook[Any], run: Run) -> Found:
        """As the platform shows it. One that it does not show may have just been started; the abort needs no list."""
        from airflow_provider_testruns.tasks.stopping import Found

        try:
            return super().find_run(hook, run)
        except NotFoundError as e:
            self.log.info("%s Aborting anyway.", e)
            return Found(None)
