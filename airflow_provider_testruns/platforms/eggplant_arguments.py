"""Checks of what is given to Eggplant DAI's calls, made before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_testruns.exceptions import ConfigurationError

#: The fields of the objects of a start, and their types ("Start Model Execution", DAI 7.1).
AGENT = {"agent_id": str, "is_hosted_agent": bool}
ASSET = {"asset_version_id": str, "asset_path": str}
SUT = {"sut_id": str, "criteria": list}

_TYPE_NAMES = {str: "a text", bool: "true or false", list: "a list of texts"}


def optional_text(name: str, value: Any) -> str | None:
    """A text that is not empty, or ``None``.

    :raises ConfigurationError: when it is anything else.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a text that is not empty, got {value!r}.")
    return value


def required_id(name: str, value: Any) -> str:
    """An id, also as a number.

    :raises ConfigurationError: when it is anything else.
    """
    text = optional_text(name, str(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    if text is None:
        raise ConfigurationError(f"{name} must be given, got None.")
    return text


def optional_integer(name: str, value: Any) -> int | None:
    """A whole number, also as the text that a template gives, or ``None``.

    :raises ConfigurationError: when it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, got {value!r}.")
    return value


def optional_object(name: str, value: Any, known: Mapping[str, type]) -> dict[str, Any] | None:
    """A dict with some of the ``known`` keys, or ``None``. An id that is a whole number becomes a text.

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
        right = isinstance(item, known[key])
        if isinstance(item, list):
            right = right and all(isinstance(part, str) for part in item)
        if not right:
            raise ConfigurationError(f"{name}[{key!r}] must be {_TYPE_NAMES[known[key]]}, got {item!r}.")
    return checked


def checked_limit(limit: Any) -> int:
    """A whole number from 1 on.

    :raises ConfigurationError: when it is anything else.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigurationError(f"limit must be a whole number from 1 on, got {limit!r}.")
    return limit
