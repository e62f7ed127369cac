"""Strings from outside, made fit for what Airflow does with them: its database, its logs, its pages, its terminals.

A platform is not trusted, and JSON can spell what other places choke on: half of a surrogate pair can't be encoded, NUL
can't be stored in PostgreSQL, an escape sequence moves the cursor of whoever reads the log, a line feed begins a line
that looks like Airflow's own.

What a string *decides* (a status, a pattern that matches a name) is decided by the string as it came; what is shown
and stored is the clean one. So cleaning changes no verdict. Where strings must stay different, :func:`distinct` sees to
it.

What comes in passes :func:`clean`; what goes out to events, records, XComs, assets, lineage and files passes
:func:`outgoing_json` or :func:`outgoing_text`, which mask secrets, too (logs and tracebacks: :mod:`.emission`). Secrets
are masked before anything is taken out or cut: half of one can't be found any more.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Collection, Mapping
from datetime import date
from hashlib import blake2b
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.parsing import Rows
from airflow_provider_testruns.redaction import redact

#: Stands for what was cut off.
CUT = " […]"
#: Stands for what can't be encoded or stored: U+FFFD, the replacement character.
LOST = "\N{REPLACEMENT CHARACTER}"

#: What a terminal takes for a command: with parameters (``ESC [ 31 m``), with a text up to its end (a window's title, a
#: link), of two or three characters. No part of the pattern can match in two ways: it takes linear time.
_COMMANDS = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*+[ -/]*+[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*+(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*+[0-~]"
)
#: What ends a line, for anything that may show it.
_BREAKS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BREAKS_AND_TABS = re.compile("(?:\r\n|[\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])+")
_LOST = re.compile("[\x00\ud800-\udfff]")
#: Control characters, what turns the direction of the text around it, annotations, and code points that are none.
_OUT = re.compile(
    "[\x01-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff"
    + "".join(f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{limits.ID}}}")
#: How many characters of the hash tell strings apart whose clean forms are the same.
_TAG = 8
#: The integers that every encoder of Airflow's takes.
_INTEGERS = (-(2**63), 2**63 - 1)


def clean(text: str, limit: int | None = limits.LINE, *, lines: bool = False) -> str:
    """A string from outside that is safe to store, log and show. Never raises.

    Half characters and NUL become U+FFFD; other control characters, commands to terminals, overrides of the text's
    direction and code points that are no characters are taken out. Cleaning what is clean changes nothing.

    :param text: the string; anything else is spelled out first.
    :param limit: the most characters, ``None`` for no limit; what was cut ends in ``[…]``.
    :param lines: whether it may have several lines, and tabs; otherwise they become blanks.
    """
    if text.__class__ is not str:
        text = _spelled(text)
    # One pass over the characters in C; nearly all strings end here.
    if text.isprintable() and (limit is None or len(text) <= limit):
        return text
    cut = False
    if limit is not None and len(text) > limit:
        # Far behind the limit nothing is worth a look.
        keep = 8 * limit + 64
        cut = len(text) > keep
        text = redact(text, keep=keep)
    if not text.isprintable():
        scrubbed = _scrubbed(text, lines)
        if scrubbed != text:
            # Secrets are masked as they came, and once more as they are now: one may have been written with something
            # between its characters.
            text = redact(_scrubbed(redact(text), lines))
    if limit is not None and (cut or len(text) > limit):
        text = text[: max(0, limit - len(CUT))].rstrip() + CUT[:limit]
    return text


def _scrubbed(text: str, lines: bool) -> str:
    text = _COMMANDS.sub("", text)
    text = _BREAKS.sub("\n", text) if lines else _BREAKS_AND_TABS.sub(" ", text)
    return _OUT.sub("", _LOST.sub(LOST, text))


def distinct(text: str, limit: int = limits.NAME) -> str:
    """As :func:`clean`, for strings that must not become equal to others by it: names, and what is compared.

    Where cleaning loses something, a short hash of the whole string stands at the end (``refund~1f3870be``).

    :param text: the string.
    :param limit: the most characters.
    """
    if text.__class__ is str and len(text) <= limit and text.isprintable():
        return text
    cleaned = clean(text, limit)
    if cleaned == text:
        return cleaned
    given = text if text.__class__ is str else _spelled(text)
    tag = "~" + blake2b(given.encode("utf-8", "surrogatepass"), digest_size=_TAG // 2).hexdigest()
    return clean(given, max(0, limit - len(tag))) + tag


def is_clean(text: str, limit: int | None = limits.NAME) -> bool:
    """Whether :func:`clean` would leave a string as it is."""
    return clean(text, limit) == text


def is_id(value: object) -> bool:
    """Whether a value is an id as platforms give them: safe in paths, file names and templates."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and value not in (".", "..")


def clean_json(
    value: Any,
    limit: int | None = limits.MESSAGE,
    *,
    mask: bool = False,
    exact: Collection[str] = (),
    most: int | None = None,
    characters: int | None = None,
) -> Any:
    """Data like JSON whose every string and key is clean, and whose every number can be encoded and stored.

    A number that is not finite becomes ``None``, an integer beyond 64 bits a string. What is nested deeper than
    :data:`.limits.DEPTH` is left out, with ``[…]`` in its place. Other objects are left as they are, or, where secrets
    are masked, spelled out.

    :param value: the data; it is not changed.
    :param limit: the most characters of a string.
    :param mask: whether secrets are masked in every string.
    :param exact: keys whose values are ids, in which nothing is masked or cut: others must find them as they are.
    :param most: the most values in all; what is beyond is left out, with ``[…]`` in its place.
    :param characters: the most characters in all, but for ids; what is beyond is cut to :data:`.limits.STATUS` each.
    """
    left = [math.inf if most is None else most]
    room = [math.inf if characters is None else characters]

    def text(found: str, masked: bool) -> str:
        if mask and not masked:
            return clean(found, None, lines=True)
        if masked and len(found) > limits.STATUS:
            if room[0] < len(found):
                return clean(redact(found, keep=8 * limits.STATUS), limits.STATUS, lines=True)
            room[0] -= len(found)
        return clean(redact(found) if masked else found, limit, lines=True)

    def walk(found: Any, depth: int, masked: bool) -> Any:
        left[0] -= 1
        if found is None or found is True or found is False:
            return found
        if isinstance(found, enum.Enum):
            found = found.value
        if isinstance(found, str):
            return text(found, masked)
        if isinstance(found, int):
            return int(found) if _INTEGERS[0] <= found <= _INTEGERS[1] else clean(_spelled(found), limit)
        if isinstance(found, float):
            return float(found) if math.isfinite(found) else None
        if isinstance(found, Mapping):
            if depth <= 0:
                return CUT.strip()
            out: dict[str, Any] = {}
            for key, item in found.items():
                if left[0] <= 0:
                    out[CUT.strip()] = None
                    break
                name = key if isinstance(key, str) else _spelled(key)
                shown = distinct(redact(name) if masked else name)
                out[shown] = walk(item, depth - 1, masked and name not in exact)
            return out
        if isinstance(found, list | tuple | set | frozenset | Rows):
            if depth <= 0:
                return CUT.strip()
            items = []
            for item in found:
                if left[0] <= 0:
                    items.append(CUT.strip())
                    break
                items.append(walk(item, depth - 1, masked))
            return tuple(items) if isinstance(found, tuple) and not mask else items
        if isinstance(found, date):
            return found.isoformat()
        return text(_spelled(found), masked) if mask else found

    return walk(value, limits.DEPTH, mask)


#: Keys under which events, records and XComs have ids.
_IDS = frozenset({"run_id", "context"})


def outgoing_json(value: Any, *, exact: Collection[str] = _IDS) -> Any:
    """The gate for data that leaves: secrets masked, then cleaned, then cut, keys included; see :func:`clean_json`.

    :param value: what is going to be stored or sent.
    :param exact: keys whose values are ids, in which nothing is masked.
    """
    return clean_json(value, mask=True, exact=exact, most=limits.OUTGOING, characters=limits.OUTGOING_TEXT)


def outgoing_text(text: str, limit: int | None = limits.LINE, *, lines: bool = False) -> str:
    """The gate for one string that leaves, as :func:`outgoing_json`; arguments as of :func:`clean`."""
    if text.__class__ is not str:
        text = _spelled(text)
    return clean(redact(text), limit, lines=lines)


def _spelled(value: object) -> str:
    """Any value as a string; of what can't be spelled, its type."""
    try:
        if isinstance(value, str):
            return str.__str__(value)
        return str(value)
    except Exception:  # whatever its __str__ does: the name of a type is always there
        return f"[{type(value).__name__}]"
