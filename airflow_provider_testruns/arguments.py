"""Checks of arguments where a DAG is written. Cheap to import: DAG files are read all day."""

from __future__ import annotations

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


def number(value: Any) -> Any:
    """A number that a template made a text of as a number again; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
