"""Taking values out of untrusted responses.

Every function gives a value of the type it promises, or raises :class:`InvalidReplyError` that names the field.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, TypeVar

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import clean, is_id
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.parsing import Rows
from airflow_provider_testruns.platforms.times import read_time
from airflow_provider_testruns.redaction import redact

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The most that anything is counted to: beyond it somebody means something else.
_MOST = 10**15
#: How much of an object may be kept, see :meth:`Fields.excerpt`.
_MOST_KEPT = 300
#: How much of what is wrong an error shows. Cut by clean(), which masks before: of half a secret nothing is found.
_SHOWN = 60


class Fields:
    """One JSON object of a response, read by key without regard to case and underscores.

    The platforms' documents spell the same field in two ways (``createAt`` and ``createdAt`` aside): ``runId``,
    ``run_id`` and ``RUNID`` are one key here.

    :param value: what stands where an object should.
    :param where: its place in the response, for messages.
    :raises InvalidReplyError: when it is not an object.
    """

    __slots__ = ("_values", "raw", "where")

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidReplyError(f"{where} should be an object, and is {_kind(value)}")
        self.raw: Mapping[str, Any] = value
        self.where = where
        self._values: dict[str, Any] | None = None

    def get(self, *names: str) -> Any:
        """The first of the fields ``names`` that is there and not null; ``None`` when none is."""
        for name in names:
            if name in self.raw:
                # As it is spelt here: lists of hundreds are read often, and folding every key is most of the work.
                found = self.raw[name]
            else:
                if self._values is None:
                    # A key of megabytes is none of ours, and takes its time.
                    self._values = {_fold(key): item for key, item in self.raw.items() if len(key) <= limits.NAME}
                found = self._values.get(_fold(name))
            if found is not None:
                return found
        return None

    def text(self, *names: str, limit: int = limits.LINE) -> str:
        """A clean string of one line that must be there and not be empty; a number is taken as its digits.

        :param names: of the field.
        :param limit: the most characters.
        """
        found = self.optional_text(*names, limit=limit)
        if not found:
            raise InvalidReplyError(f"{self.where}: field {names[0]!r} is missing or empty")
        return found

    def optional_text(self, *names: str, limit: int = limits.LINE) -> str | None:
        """As :meth:`text`, or ``None`` when it is not there."""
        found = self.verbatim(*names)
        return found if found is None else clean(found, limit)

    def verbatim(self, *names: str) -> str | None:
        """A string as it came, ``None`` when it is not there: to decide by, never to show or to store.

        What is longer than :data:`.limits.VERBATIM` ends there, with a hash of the whole that keeps it apart: no step
        after this one costs what a string of megabytes does.
        """
        found = self.get(*names)
        if found is None or (isinstance(found, str) and len(found) <= limits.VERBATIM):
            return found
        if isinstance(found, str):
            return shorter(found)
        if isinstance(found, int | float) and not isinstance(found, bool):
            return str(found)
        raise InvalidReplyError(f"{self.where}: field {names[0]!r} should be a text, and is {_kind(found)}")

    def required(self, *names: str) -> str:
        """As :meth:`verbatim`, for a field that must be there and not be empty."""
        found = self.verbatim(*names)
        if not found:
            raise InvalidReplyError(f"{self.where}: field {names[0]!r} is missing or empty")
        return found

    def identifier(self, *names: str) -> str:
        """An id, which will be part of paths, file names, templates and of lines in the log; see :func:`.is_id`."""
        found = self.get(*names)
        if not is_id(found):
            # A number is taken as its digits.
            found = self.required(*names)
        if not is_id(found):
            raise InvalidReplyError(
                f"{self.where}: field {names[0]!r} should be an id (letters, digits and . _ : -, at most"
                f" {limits.ID} of them), and is {clean(found, _SHOWN)!r}"
            )
        return str(found)

    def optional_identifier(self, *names: str) -> str | None:
        """As :meth:`identifier`; ``None`` when the field is not there or empty."""
        return None if self.get(*names) in (None, "") else self.identifier(*names)

    def integer(self, *names: str, default: int | None = None) -> int:
        """A whole number not below zero; ``default`` when it is not there, which without one is an error."""
        found = self.get(*names)
        if found is None and default is not None:
            return default
        if isinstance(found, str) and found.strip().isdecimal() and len(found) < 20:
            found = int(found)
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= _MOST:
            raise InvalidReplyError(f"{self.where}: field {names[0]!r} should be a count, and is {_kind(found)}")
        return found

    def optional_number(self, *names: str) -> float | None:
        """A finite number, or ``None`` when it is not there."""
        found = self.get(*names)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise InvalidReplyError(f"{self.where}: field {names[0]!r} should be a number, and is {_kind(found)}")
        try:
            number = float(found)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise InvalidReplyError(f"{self.where}: field {names[0]!r} is not a finite number")
        return number

    def flag(self, *names: str, default: bool) -> bool:
        """True or false; ``default`` when it is not there."""
        found = self.get(*names)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise InvalidReplyError(f"{self.where}: field {names[0]!r} should be true or false")
        return found

    def moment(self, *names: str) -> datetime | None:
        """A time in UTC, ``None`` when it is not there, or is none: no state depends on it."""
        return self.start(*names)[0]

    def start(self, *names: str) -> tuple[datetime | None, bool]:
        """As :meth:`moment`, and whether there is something that can't be read."""
        found = self.get(*names)
        if found is None or found == "":
            return None, False
        try:
            return read_time(found), False
        except ValueError:
            log.debug("%s: field %r is not a time: %s", self.where, names[0], redact(_kind(found)))
            return None, True

    def unless_unreadable(self, read: Callable[[], T | None]) -> T | None:
        """What a part of a response says, ``None`` where it can't be read: for what no state or verdict depends on.

        :param read: reads it.
        """
        try:
            return read()
        except InvalidReplyError as e:
            log.debug("Passed over: %s", redact(str(e)))
            return None

    def excerpt(self) -> dict[str, Any]:
        """As much of the object as may be kept while a run is waited for: what is long or large in it is left out."""
        kept: dict[str, Any] = {}
        left = _MOST_KEPT
        for key, value in self.raw.items():
            weight = 1 + (_weight(value, left) if isinstance(value, str | list | Mapping) else 0)
            if weight <= left:
                kept[key] = value
                left -= weight
        return kept

    def child(self, *names: str) -> Fields | None:
        """An object inside this one, ``None`` when it is not there."""
        found = self.get(*names)
        return None if found is None else Fields(found, f"{self.where}.{names[0]}")

    def children(self, *names: str) -> list[Fields]:
        """A list of objects inside this one; empty when it is not there."""
        found = self.get(*names)
        if found is None:
            return []
        return objects(found, f"{self.where}.{names[0]}")

    def walk(self, *names: str) -> Iterator[Fields]:
        """As :meth:`children`, one after the other: only as many as are looked at take memory."""
        found = self.get(*names)
        return iter(()) if found is None else each(found, f"{self.where}.{names[0]}")


def shorter(text: str) -> str:
    """A string as it came. What is longer than :data:`.limits.VERBATIM` ends there, with a hash of the whole that keeps
    it apart: no step after this one costs what a string of megabytes does."""
    if len(text) <= limits.VERBATIM:
        return text
    tag = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: limits.VERBATIM]}~{tag}"


def joined(reasons: Iterable[str | None]) -> str:
    """Why something did not pass, in one string. What comes when there is far more than is shown is not looked at.

    :param reasons: each of them; empty ones are left out.
    """
    found, length = list[str](), 0
    for reason in reasons:
        if length > limits.VERBATIM:
            break
        if reason:
            found.append(reason)
            length += len(reason)
    return "; ".join(found)


def _weight(value: Any, most: int) -> int:
    """How much a value holds: its values, and a value for each hundred characters; not counted much beyond ``most``."""
    weight, stack = 0, [value]
    while stack and weight <= most:
        found = stack.pop()
        weight += 1
        if isinstance(found, str):
            weight += len(found) // 100
        elif isinstance(found, Mapping):
            weight += len(found)
            if weight <= most:
                stack += found.values()
        elif isinstance(found, list):
            weight += len(found)
            if weight <= most:
                stack += found
    return weight


def objects(value: Any, where: str) -> list[Fields]:
    """A list of objects.

    :raises InvalidReplyError: when it is anything else.
    """
    if isinstance(value, Rows):
        raise InvalidReplyError(f"{where} is too large to be read whole: a list of {len(value):,} objects")
    return list(each(value, where))


def each(value: Any, where: str) -> Iterator[Fields]:
    """The objects of a list, one after the other: of a list that is read in pieces only one of them is in memory.

    :raises InvalidReplyError: when it is anything else.
    """
    if not isinstance(value, list | Rows):
        raise InvalidReplyError(f"{where} should be a list, and is {_kind(value)}")
    return (Fields(item, f"{where}[{index}]") for index, item in enumerate(value))


def newest_first(started_at: datetime | None) -> datetime:
    """A sort key for runs by their start; those that have not started count as the newest."""
    return started_at or datetime.max.replace(tzinfo=UTC)


def _fold(key: Any) -> str:
    return str(key).replace("_", "").lower()


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, Rows):
        return "a list that is too large to be read whole"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    kind = next((name for type_, name in names.items() if isinstance(value, type_)), "a number")
    return f"{kind} ({clean(str(value), _SHOWN)!r})" if isinstance(value, str | int | float) else kind
