"""Entries of ``allowed_failures``: names and patterns, and those that hold only until a day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from airflow_provider_testruns.arguments import listed, names, shown
from airflow_provider_testruns.exceptions import ConfigurationError

#: From so many days before its end on, an entry is mentioned in log and report.
WARN_DAYS = 7
_KEYS = ("name", "until", "why")
#: ``date.fromisoformat`` reads other forms, too, some of which are typing errors more often than dates.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A case, or a pattern of cases, that may fail until a day.

    :param name: the name or pattern, as of a plain entry.
    :param until: the last day on which it may fail; days are those of UTC.
    :param why: the reason, for people.
    """

    name: str
    until: date
    why: str

    def __str__(self) -> str:
        return f"{self.name} (until {self.until}: {self.why})"


def entries(argument: str, value: Any) -> tuple[str | Quarantined, ...]:
    """An argument that is a list of such entries, or ``None`` for none.

    A template may have made a string of the list: JSON, or a name in each line. Empty names are left out.

    :param argument: its name.
    :param value: a list of names and of dicts with exactly ``name``, ``until`` and ``why``.
    :raises ConfigurationError: when it is no such list.
    """
    found: list[str | Quarantined] = []
    for index, entry in enumerate(listed(argument, value)):
        if isinstance(entry, Mapping):
            found.append(_quarantined(f"{argument}[{index}]", entry))
        elif isinstance(entry, Quarantined):
            found.append(entry)
        else:
            found += names(argument, [entry])
    return tuple(found)


def _quarantined(where: str, value: Mapping[Any, Any]) -> Quarantined:
    unknown = [key for key in value if key not in _KEYS]
    missing = [key for key in _KEYS if key not in value]
    if unknown or missing:
        said = [f"unknown: {', '.join(map(repr, unknown))}"] if unknown else []
        said += [f"missing: {', '.join(missing)}"] if missing else []
        raise ConfigurationError(f"{where} must have exactly the keys name, until and why ({'; '.join(said)}).")
    return Quarantined(
        _string(f"{where}['name']", value["name"]),
        _day(f"{where}['until']", value["until"]),
        _string(f"{where}['why']", value["why"]),
    )


def _string(where: str, value: Any) -> str:
    # Rendering to native objects makes numbers of strings of digits.
    said = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(said, str) or not said.strip():
        raise ConfigurationError(f"{where} must be a string that is not empty; got {shown(value)}.")
    return said.strip()


def _day(where: str, value: Any) -> date:
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(UTC)).date()
    if isinstance(value, date):
        return value
    said = value.strip() if isinstance(value, str) else ""
    wrong = (
        f"{where} must be a date, or a string like 2026-12-31: the last day on which the case may fail (UTC); got"
        f" {shown(value)}."
    )
    if not _DATE.fullmatch(said):
        raise ConfigurationError(wrong)
    try:
        return date.fromisoformat(said)
    except ValueError as e:
        raise ConfigurationError(wrong) from e
