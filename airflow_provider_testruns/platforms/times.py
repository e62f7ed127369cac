"""Times as platforms, gateways and their libraries write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from airflow_provider_testruns.model import utc

#: Longer texts are no times.
_LONGEST = 80
_SHORT_OFFSET = re.compile(r"([+-]\d{2})$")
_EPOCH = re.compile(r"\d{9,20}(\.\d{1,9})?")
_COMPACT = re.compile(r"(19|20)\d{12}")
#: Seconds, milliseconds, micro- and nanoseconds since 1970, each from 1973 to the year 5138.
_UNITS = ((10**8, 10**11, 1), (10**11, 10**14, 10**3), (10**14, 10**17, 10**6), (10**17, 10**20, 10**9))
_DATE = r"(?P<date>\d{4}-\d{2}-\d{2}|\d{8})"
_ODD = re.compile(
    _DATE
    + r"[Tt ](?P<hour>\d{2})(:?(?P<minute>\d{2}))?(:?(?P<second>\d{2}))?([.,](?P<fraction>\d+))?"
    + r" ?(?P<zone>[Zz]|UTC|GMT|[+-]\d{1,2}(:?\d{2}(:?\d{2})?)?)?"
    + r"(\[(?P<region>[A-Za-z0-9_+/-]{1,40})\])?"
)


def read_time(value: Any) -> datetime | None:
    """A time in UTC: ISO 8601 in all its forms, with a zone's name behind it, too; a number of seconds, milli-, micro-
    or nanoseconds since 1970; the form of HTTP and of mail. Without an offset it is UTC.

    :return: ``None`` for the year 1 and for 0, which is how .NET and others write that there is none.
    :raises ValueError: when it is no time.
    """
    found = _read(value)
    return None if found.year == 1 or value == 0 else found


def _read(value: Any) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since_1970(value)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError("not a time")
    text = value.strip()
    if _COMPACT.fullmatch(text):
        text = f"{text[:8]}T{text[8:]}"
    elif _EPOCH.fullmatch(text):
        # Before the rest: fromisoformat() would see a date in its first digits.
        return _since_1970(int(text) if text.isdecimal() else float(text))
    try:
        return utc(datetime.fromisoformat(_SHORT_OFFSET.sub(r"\g<1>:00", text) if ":" in text else text))
    except (ValueError, OverflowError):
        pass
    try:
        odd = _ODD.fullmatch(text.replace("\u2212", "-").replace("/", "-", 2 if text[4:5] == "/" else 0))
        return _from_parts(odd) if odd is not None else utc(parsedate_to_datetime(text))
    except (ArithmeticError, LookupError, TypeError, AttributeError, OSError) as e:
        raise ValueError("not a time") from e


def _since_1970(number: float) -> datetime:
    if number == 0:
        return datetime(1970, 1, 1, tzinfo=UTC)
    # A smaller number than the first is hardly a time.
    for least, most, divisor in _UNITS:
        if least <= number < most:
            seconds, rest = divmod(number, divisor)
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=rest * 10**6 // divisor)
    raise ValueError("not a time")


def _from_parts(odd: re.Match[str]) -> datetime:
    hour, minute, second = (int(odd[name] or 0) for name in ("hour", "minute", "second"))
    day = datetime.fromisoformat(odd["date"])
    if hour > 24 or minute > 59 or second > 60 or (hour == 24 and (minute or second)):
        raise ValueError("not a time")
    # The end of the day, and a leap second: the moment after.
    micro = int((odd["fraction"] or "0")[:6].ljust(6, "0"))
    moment = day + timedelta(hours=hour, minutes=minute, seconds=second, microseconds=micro if second < 60 else 0)
    zone = odd["zone"] or ""
    if not zone and odd["region"]:
        return utc(moment.replace(tzinfo=_region(odd["region"])))
    digits = re.sub(r"\D", "", zone)
    if not digits:
        return moment.replace(tzinfo=UTC)
    if len(digits) % 2:
        digits = "0" + digits
    hours, minutes, seconds = (int(digits[at : at + 2] or 0) for at in (0, 2, 4))
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if offset >= timedelta(days=1) or minutes > 59:
        raise ValueError("not an offset")
    return (moment + offset if zone.startswith("-") else moment - offset).replace(tzinfo=UTC)


@lru_cache(maxsize=32)
def _region(name: str) -> ZoneInfo:
    return ZoneInfo(name)
