"""Checks of arguments, where a DAG is written and before anything is sent.

Cheap to import: DAG files are read all day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_testruns import timing
from airflow_provider_testruns.cleaning import is_clean
from airflow_provider_testruns.exceptions import ConfigurationError

#: The longest time that an argument can be, in seconds: ten years. Dates beyond the year 9999 can't be written.
_LONGEST = 10 * 365 * 86_400.0
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def seconds(name: str, value: Any, *, least: float | None = None) -> float:
    """An argument that is a time: seconds or a timedelta, more than none.

    :param name: the argument.
    :param value: what was given.
    :param least: the shortest that it can be; without, anything above 0.
    :raises ConfigurationError: when it is not.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not (number > 0 if least is None else least <= number) or number > _LONGEST:
        bound = "greater than 0" if least is None else f"of at least {least:g}"
        raise ConfigurationError(
            f"{name} must be a number of seconds {bound} (and at most {_LONGEST:.0f}), or a timedelta; got"
            f" {shown(value)}."
        )
    return float(number)


def interval(name: str, value: Any) -> float:
    """An argument that is the time between two polls at a run: at least :data:`.timing.MIN_INTERVAL` seconds.

    :raises ConfigurationError: when it is not.
    """
    return seconds(name, value, least=timing.MIN_INTERVAL)


def boolean(name: str, value: Any) -> bool:
    """An argument that is true or false, after its template was rendered, which may have made a string of it.

    :raises ConfigurationError: when it is neither, nor the string ``true`` or ``false`` in any case.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        raise ConfigurationError(f"{name} must be True or False, or the string 'true' or 'false'; got {shown(value)}.")
    return word == "true"


def strictly_boolean(name: str, value: Any) -> bool:
    """An argument that is true or false, and comes from no template.

    :raises ConfigurationError: when it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False; got {shown(value)}.")
    return value


def fraction(name: str, value: Any) -> None:
    """Check an argument that is a fraction from 0 to 1.

    :raises ConfigurationError: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be a fraction from 0 to 1 (0.95 is 95 %); got {shown(value)}.")


def count(name: str, value: Any) -> None:
    """Check an argument that is a number of things, none included.

    :raises ConfigurationError: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{name} must be a whole number, 0 or more; got {shown(value)}.")


def names(argument: str, value: Any) -> tuple[str, ...]:
    """An argument that is a list of names, or ``None`` for none.

    A template may have made a string of the list: JSON, or a name in each line. Empty names are left out.

    :raises ConfigurationError: when it is no such list.
    """
    found = listed(argument, value)
    if not all(isinstance(name, str) for name in found):
        wrong = next(name for name in found if not isinstance(name, str))
        raise ConfigurationError(f"{argument} must be a list of strings; {shown(wrong)} is not a string.")
    return tuple(name for name in (name.strip() for name in found) if name)


def listed(argument: str, value: Any) -> list[Any]:
    """An argument that is a list, or ``None`` for an empty one; or a string that a template has made of it.

    :raises ConfigurationError: when it is none.
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
                    f"{argument} is a string that begins like a list and is not JSON: {shown(given)}. In a template"
                    " write {{ … | tojson }}, or give the DAG render_template_as_native_obj=True."
                ) from e
    if value is None:
        return []
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{argument} must be a list of strings; got {shown(given)}.")
    return list(value)


def optional_string(name: str, value: Any) -> str | None:
    """An argument that is a string which is not empty, or ``None``.

    :raises ConfigurationError: when it is anything else.
    """
    return None if value is None else required_string(name, value)


def required_string(name: str, value: Any) -> str:
    """An argument that is a string which is not empty.

    :raises ConfigurationError: when it is anything else.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a string that is not empty; got {shown(value)}.")
    return value


def string_or_none(name: str, value: Any) -> str | None:
    """An argument that is a string, or ``None``; an empty one, which a template easily gives, is ``None``.

    :raises ConfigurationError: when it is anything else.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string or None; got {shown(value)}.")
    return value


def identifier(name: str, value: Any, *, number: bool = False) -> str:
    """An argument that is an id of a platform, or a name by which it finds something.

    :param name: the argument.
    :param value: what was given.
    :param number: whether it can be a number, too.
    :raises ConfigurationError: when it is anything else, or has control characters or line breaks.
    """
    text = str(value) if number and isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or not is_clean(text, None):
        raise ConfigurationError(
            f"{name} must be an id or a name as the platform shows it, without line breaks and control characters; got"
            f" {shown(value)}."
        )
    return text


def optional_integer(name: str, value: Any) -> int | None:
    """An argument that is a whole number, also as the string that a template gives, or ``None``.

    :raises ConfigurationError: when it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number; got {shown(value)}.")
    return value


def positive(name: str, value: Any) -> int:
    """An argument that is a whole number, 1 or more.

    :raises ConfigurationError: when it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number, 1 or more; got {shown(value)}.")
    return value


def optional_json(name: str, value: Any) -> dict[str, Any] | None:
    """An argument that is a dict which can be sent as JSON, or ``None``.

    :raises ConfigurationError: when it is anything else.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{name} must be a dict; got {shown(value)}.")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise ConfigurationError(f"{name} must be a dict that can be sent as JSON: {e}.") from e
    return dict(value)


def uuid(name: str, value: Any, hint: str = "") -> str:
    """An argument that is a UUID; in lower case.

    :param name: the argument.
    :param value: what was given.
    :param hint: where to find it.
    :raises ConfigurationError: when it is anything else.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not UUID.fullmatch(text):
        raise ConfigurationError(
            f"{name} must be a UUID such as 985eb69c-2e94-42ab-b0f2-5be252bb14f4; got {shown(value)}. {hint}".rstrip()
        )
    return text.lower()


def one_of(name: str, value: Any, choices: Collection[str]) -> str:
    """An argument that is one of some strings.

    :raises ConfigurationError: when it is anything else.
    """
    if not isinstance(value, str) or value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}; got {shown(value)}.")
    return value


def exactly_one(hint: str = "", **given: Any) -> None:
    """Check that one argument of several is given.

    :param hint: what to do, for the message.
    :param given: the arguments; ``None`` and ``False`` are none.
    :raises ConfigurationError: when none is, or more than one.
    """
    named = [name for name, value in given.items() if value is not None and value is not False]
    if len(named) != 1:
        *first, last = given
        raise ConfigurationError(
            f"Exactly one of {', '.join(first)} and {last} must be given; got {' and '.join(named) or 'none'}."
            f" {hint}".rstrip()
        )


def check_project(project_id: Any, project_name: Any, *, optional: bool = False) -> None:
    """Check that a project is given, and once, where the DAG is written; what templates make of it is checked later.

    :param project_id: its id.
    :param project_name: its name.
    :param optional: whether it may be left out.
    :raises ConfigurationError: when it is not.
    """
    given = [value for value in (project_id, project_name) if value is not None]
    if len(given) > 1 or not (given or optional):
        said = "both" if given else "none"
        most = "At most" if optional else "Exactly"
        raise ConfigurationError(f"{most} one of project_id and project_name must be given; given: {said}.")


def fractions(argument: str, value: Any) -> dict[str, float]:
    """An argument that is a dict of fractions by name, or ``None`` for none.

    Numbers that a template made strings of are numbers again; whether they are fractions :class:`.Gates` checks.

    :raises ConfigurationError: when it is no dict.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{argument} must be a dict of fractions by name; got {shown(value)}.")
    return {str(name): number(fraction) for name, fraction in value.items()}


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def number(value: Any) -> Any:
    """A number that a template made a string of as a number again; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
