"""Checks of what is given to Eggplant DAI's calls, made before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_testruns.arguments import boolean
from airflow_provider_testruns.exceptions import ConfigurationError

#: The fields of the objects of a start, and their types ("Start Model Execution", DAI 7.1).
AGENT = {"agent_id": str, "is_hosted_agent": bool}
ASSET = {"asset_version_id": str, "asset_path": str}
SUT = {"sut_id": str, "criteria": list}

_TYPE_NAMES: dict[type, str] = {str: "a string", list: "a list of strings"}


def optional_object(name: str, value: Any, known: Mapping[str, type]) -> dict[str, Any] | None:
    """A dict with some of the ``known`` keys, or ``None``. An id that is a whole number becomes a string.

    :param known: the keys and the types of their values, which may be ``None``, too.
    :raises ConfigurationError: when it is anything else, naming the key.
    """
    if value is None:
        return None
    keys = ", ".join(known)
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must be a dict with {keys}, got {value!r}.")
    checked = dict(value)
    for key, item in value.items():
        if key not in known:
            raise ConfigurationError(f"{name} has the key {key!r}, which DAI does not know; it may have {keys}.")
        if item is None:
            continue
        if key.endswith("_id") and isinstance(item, int) and not isinstance(item, bool):
            # What Airflow's native rendering makes of an id such as "1".
            checked[key] = str(item)
            continue
        if known[key] is bool:
            checked[key] = boolean(f"{name}[{key!r}]", item)
            continue
        right = isinstance(item, known[key])
        if isinstance(item, list):
            right = right and all(isinstance(part, str) for part in item)
        if not right:
            raise ConfigurationError(f"{name}[{key!r}] must be {_TYPE_NAMES[known[key]]}, got {item!r}.")
    return checked


def check_names(body: Mapping[str, Any], names: Mapping[str, str | None]) -> None:
    """Check that each name goes with the rest of a start.

    :raises ConfigurationError: when one does not.
    """
    model = "model_id" in body or names["model_name"]
    if not body.keys() & {"model_id", "rerun_id", "script"} and not model:
        raise ConfigurationError(
            "At least one of model_id, rerun_id and script must be given; model_name can replace model_id"
            f" (given: {', '.join([*body, *(name for name, value in names.items() if value)]) or 'none'})."
        )
    if names["test_case_name"] and not (model and not body.keys() & {"rerun_id", "script"}):
        raise ConfigurationError(
            "test_case_name needs the model that it is a test case of: give model_id or model_name."
        )
    if names["test_case_name"] and "test_case_id" in body:
        raise ConfigurationError("Only one of test_case_id and test_case_name may be given.")
    if names["agent_name"] and body.get("agent", {}).get("agent_id") is not None:
        raise ConfigurationError("Only one of agent_name and agent['agent_id'] may be given.")


def check_assets(body: Mapping[str, Any], agent_name: str | None, required: bool) -> None:
    """Refuse the start of a model that runs no snippet, where that is asked for.

    :raises ConfigurationError: when it runs none.
    """
    agent = body.get("agent") or ({"agent_name": agent_name} if agent_name else {})
    missing = untested({"model_id": "", **body, "agent": agent})
    if required and missing and not body.keys() & {"rerun_id", "script"}:
        raise ConfigurationError(f"{' '.join(missing)} require_assets=True refuses such a start.")


def untested(body: Mapping[str, Any]) -> list[str]:
    """Why the start of a model runs no snippet ("Start Model Execution", DAI 7.1); empty when it does.

    :param body: of the start.
    """
    if "model_id" not in body or body.keys() & {"rerun_id", "script"}:
        return []
    reasons = []
    if not _filled(body.get("agent")):
        reasons.append(
            "No agent is given: DAI then connects to no Eggplant Functional suite, only generates a path through the"
            " model and tests nothing. Give agent or agent_name."
        )
    if not _filled(body.get("asset")):
        reasons.append(
            "No asset is given: DAI then runs the model without snippets, which tests nothing. Give asset, such as"
            ' {"asset_path": …}.'
        )
    return reasons


def _filled(value: Any) -> bool:
    """Whether one of an object's fields has a value."""
    return isinstance(value, Mapping) and any(
        item.strip() if isinstance(item, str) else item is not None for item in value.values()
    )
