"""The settings of a deployment, ``[testruns]`` in Airflow's configuration: what arguments are that a DAG leaves out.

Whoever runs Airflow sets them, in ``airflow.cfg`` or as ``AIRFLOW__TESTRUNS__POLL_INTERVAL``; what a DAG says itself
comes first. They are read where a DAG file is read and where a task is executed, so all of Airflow needs the same.
"""

from __future__ import annotations

from typing import Final

from airflow_provider_testruns.arguments import interval, seconds, shown
from airflow_provider_testruns.exceptions import ConfigurationError

#: Between two polls of a run that an operator has started; seconds.
POLL_INTERVAL: Final = 10.0
#: For the whole wait of an operator; seconds.
TIMEOUT: Final = 24 * 60 * 60.0
#: How many rows of a list are asked for at once, and the least and most that can be.
PAGE_SIZE: Final = 100
_PAGE_SIZES: Final = (10, 1000)


def poll_interval() -> float | None:
    """The time between two polls of a run; seconds.

    :return: ``None`` where the deployment says nothing.
    :raises ConfigurationError: naming the setting, when it is no such time.
    """
    return _time("poll_interval", at_least_an_interval=True)


def timeout() -> float | None:
    """How long a run is waited for; seconds.

    :return: ``None`` where the deployment says nothing.
    :raises ConfigurationError: naming the setting, when it is no such time.
    """
    return _time("timeout", at_least_an_interval=False)


def page_size() -> int:
    """How many rows of a list are asked for at once.

    :raises ConfigurationError: naming the setting, when it is no such number.
    """
    value = _given("page_size")
    least, most = _PAGE_SIZES
    if value is None:
        return PAGE_SIZE
    if not value.isascii() or not value.isdecimal() or len(value) > 9 or not least <= int(value) <= most:
        raise ConfigurationError(
            f"{_named('page_size')} must be a whole number from {least} to {most}; got {shown(value)}. {_WHERE}"
        )
    return int(value)


_WHERE = "It is set in airflow.cfg, or in the environment as AIRFLOW__TESTRUNS__…."


def _named(name: str) -> str:
    return f"The setting [testruns] {name}"


def _given(name: str) -> str | None:
    from airflow.providers.common.compat.sdk import conf

    value = conf.get("testruns", name, fallback=None)
    return value.strip() or None if isinstance(value, str) else None


def _time(name: str, *, at_least_an_interval: bool) -> float | None:
    value = _given(name)
    if value is None:
        return None
    try:
        number: object = float(value)
    except ValueError:
        number = value
    try:
        return (interval if at_least_an_interval else seconds)(_named(name), number)
    except ConfigurationError as e:
        raise ConfigurationError(f"{e} {_WHERE}") from None
