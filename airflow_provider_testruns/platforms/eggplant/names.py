"""Names instead of ids: one lookup each, in the lists that public clients read."""

from __future__ import annotations

from typing import NoReturn

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.exceptions import ApiError, ConfigurationError
from airflow_provider_testruns.limits import NAME
from airflow_provider_testruns.platforms.eggplant.configurations import DECLINING
from airflow_provider_testruns.platforms.eggplant.endpoints import EggplantCalls, unpaged
from airflow_provider_testruns.platforms.reading import Fields
from airflow_provider_testruns.steps import Steps, optional, path

#: How many candidates an error names.
_MOST_NAMED = 10

TEST_CONFIGURATIONS = "/test_config_service/api/v1/test_configurations"


def model_named(calls: EggplantCalls, name: str) -> Steps[tuple[str, str]]:
    """The UUID of a model, and the id by which its test cases are listed (GET /ai/models).

    :raises ConfigurationError: when no model, or more than one, has this name.
    """
    rows = yield from _listed("model_name", "model_id", calls.models())
    row = _one("model_name", name, rows, ("name",), ("modeluuid",), "model_id")
    uuid = row.identifier("modeluuid")
    return uuid, row.optional_identifier("id") or uuid


def number_of_model(calls: EggplantCalls, model_id: str) -> Steps[str]:
    """The id by which the test cases of a model are listed; its UUID where the server shows no other."""
    rows = yield from _listed("test_case_name", "test_case_id", calls.models())
    for row in rows:
        uuid = row.get("modeluuid")
        if isinstance(uuid, str) and uuid.casefold() == model_id.casefold():
            return row.optional_identifier("id") or model_id
    return model_id


def test_case_named(model: str, name: str) -> Steps[int]:
    """The number of a model's test case (GET /ai/models/{id}/testcases).

    :param model: the id by which the model's test cases are listed.
    :param name: the test case's name.
    :raises ConfigurationError: when no test case of the model, or more than one, has this name.
    """
    steps = unpaged("list the test cases of the model", path("/ai/models/{model}/testcases", model=model))
    rows = yield from _listed("test_case_name", "test_case_id", steps)
    return _one("test_case_name", name, rows, ("testcaseName", "name"), ("id",), "test_case_id").integer("id")


def agent_named(calls: EggplantCalls, name: str) -> Steps[str]:
    """The id of an agent (GET /ai/agents).

    :raises ConfigurationError: when no agent, or more than one, has this name.
    """
    rows = yield from _listed("agent_name", "agent['agent_id']", calls.agents())
    return _one("agent_name", name, rows, ("name",), ("id",), "agent['agent_id']").identifier("id")


def configuration_named(name: str) -> Steps[str]:
    """The id of a test configuration (GET /test_config_service/api/v1/test_configurations).

    :raises ConfigurationError: when no test configuration, or more than one, has this name.
    """
    steps = unpaged("list the test configurations", TEST_CONFIGURATIONS)
    rows = yield from _listed("test_config_name", "test_config_id", steps)
    ids = ("id", "test_config_id", "uuid")
    return _one("test_config_name", name, rows, ("name", "test_config_name"), ids, "test_config_id").identifier(*ids)


def _listed(argument: str, instead: str, steps: Steps[list[Fields]]) -> Steps[list[Fields]]:
    def refuse(error: ApiError) -> NoReturn:
        raise ConfigurationError(
            f"{argument} can't be looked up, as the server does not list what it names: {error} Give {instead} instead."
        ) from error

    return (yield from optional(steps, refuse, statuses=DECLINING))


def _one(
    argument: str, name: str, rows: list[Fields], names: tuple[str, ...], ids: tuple[str, ...], instead: str
) -> Fields:
    """The one row of a name."""
    found = [row for row in rows if any(row.get(key) == name for key in names)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(str(row.get(*ids)) for row in found[:_MOST_NAMED])
        raise ConfigurationError(f"{argument} {name!r} names {len(found)} of them ({clean(shown)}). Give {instead}.")
    known = [str(row.get(*names)) for row in rows if row.get(*names) is not None]
    listed = ", ".join(repr(clean(each, NAME)) for each in known[:_MOST_NAMED]) or "none"
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    raise ConfigurationError(f"{argument} {name!r} does not exist. The server lists: {listed}{more}.")
