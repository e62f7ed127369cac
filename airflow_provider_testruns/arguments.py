"""Checks of arguments where a DAG is written. Cheap to import: DAG files are read all day."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_testruns.exceptions import ConfigurationError


def seconds(name: str, value: float | timedelta) -> float:
    """An argument that is a time: seconds or a timedelta, more than none.

    :raises ConfigurationError: when it is not.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
        raise ConfigurationError(f"{name} must be a number of seconds greater than 0, or a timedelta; got {value!r}.")
    return float(number)


def fraction(name: str, value: Any) -> None:
    """Check an argument that is a fraction from 0 to 1.

    :raises ConfigurationError: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be a fraction from 0 to 1 (0.95 is 95 %); got {value!r}.")


def count(name: str, value: Any) -> None:
    """Check an argument that is a number of things, none included.

    :raises ConfigurationError: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{name} must be a whole number, 0 or more; got {value!r}.")


def names(argument: str, value: Any) -> tuple[str, ...]:
    """An argument that is a list of names, or ``None`` for none.

    A template may have made a text of the list: JSON, or a name in each line. Empty names are left out.

    :raises ConfigurationError: when it is no such list.
    """
    given = value
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            value = value.splitlines()
        else:
            try:
                value = json.loads(value)
            except ValueError as e:
                raise ConfigurationError(
                    f"{argument} is a text that begins like a list and is not JSON: {shown(given)}. In a template write"
                    " {{ … | tojson }}, or give the DAG render_template_as_native_obj=True."
                ) from e
    if value is None:
        return ()
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{argument} must be a list of names; got {shown(given)}.")
    listed = list(value)
    if not all(isinstance(name, str) for name in listed):
        wrong = next(name for name in listed if not isinstance(name, str))
        raise ConfigurationError(f"{argument} must be a list of names, each a text; {shown(wrong)} is none.")
    return tuple(name for name in (name.strip() for name in listed) if name)


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def number(value: Any) -> Any:
    """A number that a template made a text of as a number again; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
