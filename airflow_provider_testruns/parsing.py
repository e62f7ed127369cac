"""JSON that comes from outside: measured before it is parsed, and parsed in pieces when it is long.

Parsing holds the interpreter from the first byte to the last, and makes up to a hundred bytes of memory of one byte of
JSON. So what would take too much is found out by counting, which is some ten times as fast, and refused.
"""

from __future__ import annotations

import json
import re
import secrets
from array import array
from collections.abc import Iterator
from typing import Any

from airflow_provider_testruns import limits

#: How much is counted at once, in bytes.
_CHUNK = 256 * 1024
#: About how much of a long list is parsed at once, in bytes.
_PIECE = 256 * 1024
#: A list that is shorter stays part of what is around it, in bytes.
_LONG_LIST = 1024 * 1024
#: In how many objects a long list is looked for: ``{"result": {"calls": {"results": […]}}}`` are three.
_WITHIN = 4

#: One kind of brackets: that they match is for the parser to say.
_ONE_KIND = bytes.maketrans(b"[]", b"{}")
_BUT_BRACKETS = bytes(sorted(set(range(256)) - set(b"{}")))
_BUT_DEPTH = bytes(sorted(set(range(256)) - set(b'{}[]"')))
_BUT_NODES = bytes(sorted(set(range(256)) - set(b'{}[]",')))
_AS_DIGITS = bytes(ord("0") if chr(code) in "0123456789" else code for code in range(256))
_MANY_DIGITS = b"0" * (limits.DIGITS + 1)
#: In UTF-8: bytes that begin a character of four bytes, and those that begin none.
_EMOJI_LEADS = bytes(range(0xF0, 0xF5))
_CONTINUED = bytes(range(0x80, 0xC0))
_EMOJI = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
#: So many of them are written as escapes, at most.
_MANY_EMOJIS = 200_000
#: As far as the next bracket that is in no string. Possessive: nothing is tried again, whatever it is given.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([{}\[\]])', re.DOTALL)


class UnreadableError(ValueError):
    """It is no JSON."""


class TooLargeError(UnreadableError):
    """It has more values, or is nested deeper, than is parsed. The text says what the limit is."""


def measure(text: bytes, nodes: int = limits.POLL_NODES, depth: int = limits.DEPTH) -> None:
    """Count what parsing would make, without parsing.

    :param text: the JSON; of anything else the count means nothing, and no harm is done.
    :param nodes: the most values that it may have, an object or a list being one more.
    :param depth: how deep it may be nested.
    :raises TooLargeError: when it has more.
    """
    if len(text) <= min(nodes, depth):
        return
    # A value takes at least one byte, so that most responses need no counting of them.
    counted = len(text) > nodes
    dropped = _BUT_NODES if counted else _BUT_DEPTH
    found, level, in_string, start = 1, 0, False, 0
    while start < len(text):
        end = start + _CHUNK
        piece = text[start:end]
        if b"\\" in piece:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                # Not in the middle of an escape.
                piece += text[end : end + 1]
                end += 1
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        start = end
        marks = piece.translate(_ONE_KIND, dropped)
        if in_string:
            marks = b'"' + marks
        # Strings without a mark in them are gone with this, and the others stay what they are.
        marks = marks.replace(b'""', b"")
        if b'"' in marks:
            parts = marks.split(b'"')
            in_string = len(parts) % 2 == 0
            marks = b"".join(parts[::2])
        else:
            in_string = False
        if counted:
            found += marks.count(b",") + marks.count(b"{")
            if found > nodes:
                raise TooLargeError(f"it has more than {nodes:,} values")
            marks = marks.translate(None, _BUT_BRACKETS)
        level = _depth(marks, level, depth)


def _depth(brackets: bytes, level: int, most: int) -> int:
    """How deep it is after some more brackets.

    :raises TooLargeError: when it was deeper than ``most`` on the way.
    """
    inner = 0
    while brackets:
        # The innermost pairs are taken out, level by level.
        left = brackets.replace(b"{}", b"")
        if len(left) == len(brackets):
            break
        brackets = left
        inner += 1
        if level + inner > most:
            raise TooLargeError(f"it is nested deeper than {most} levels")
    # What is left closes what was open before, and opens what is closed later.
    opened = brackets.count(b"{")
    if level + opened > most:
        raise TooLargeError(f"it is nested deeper than {most} levels")
    return max(0, level + 2 * opened - len(brackets))


def parse(text: bytes, nodes: int = limits.POLL_NODES) -> Any:
    """Parse JSON, if it is not too large.

    :param text: the JSON.
    :param nodes: the most values that it may have. Where that is more than is parsed at once
        (:data:`.limits.POLL_NODES`), the long lists of a longer one are :class:`Rows`, which are parsed as they are
        read.
    :raises TooLargeError: when it has more, or is nested too deeply.
    :raises UnreadableError: when it is no JSON, of which NaN and Infinity are no part.
    """
    if len(text) <= limits.POLL_BODY:
        try:
            measure(text, min(nodes, limits.POLL_NODES))
        except TooLargeError:
            if nodes <= limits.POLL_NODES:
                raise
        else:
            return _loads(text)
    elif nodes <= limits.POLL_NODES:
        raise TooLargeError(f"it is longer than {limits.POLL_BODY // limits.MB} MB")
    measure(text, nodes)
    return _in_pieces(text)


def _no_constant(name: str) -> Any:
    raise UnreadableError(f"{name} is no JSON")


def _int(digits: str) -> int:
    if len(digits) > limits.DIGITS:
        raise TooLargeError(f"it has a number of more than {limits.DIGITS} digits")
    return int(digits)


_JSON = json.JSONDecoder(parse_constant=_no_constant)
_JSON_WITH_LONG_NUMBERS = json.JSONDecoder(parse_constant=_no_constant, parse_int=_int)


def _decoded(text: bytes) -> str:
    """The text as characters.

    One emoji makes every character of a string take four bytes. Where that is much, emojis are written as JSON escapes,
    so that only the strings that have one in them grow.
    """
    if len(text) > _LONG_LIST and not text.isascii():
        emojis = len(text) - len(text.translate(None, _EMOJI_LEADS))
        characters = len(text.translate(None, _CONTINUED))
        if emojis and characters > len(text) // 2:
            if emojis > _MANY_EMOJIS:
                raise TooLargeError(f"it has more than {_MANY_EMOJIS:,} emojis")
            try:
                text = _EMOJI.sub(_escaped, text)
            except UnicodeDecodeError as e:
                raise UnreadableError("it is not UTF-8") from e
    return text.decode(json.detect_encoding(text), "surrogatepass")


def _escaped(found: re.Match[bytes]) -> bytes:
    return json.dumps(found[0].decode())[1:-1].encode()


def _loads(text: bytes) -> Any:
    # In a short text they take no time, and longer ones than 4,300 digits Python itself refuses. They may also stand in
    # strings, where they do no harm.
    long_numbers = len(text) > _CHUNK and _MANY_DIGITS in text.translate(_AS_DIGITS)
    decoder = _JSON_WITH_LONG_NUMBERS if long_numbers else _JSON
    try:
        return decoder.decode(_decoded(text))
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as e:
        raise UnreadableError("it is not JSON") from e


class Rows:
    """A long list of objects in JSON, each parsed when it is asked for, and not kept.

    It is no :class:`list`: whatever does not know it is to refuse it rather than to take it for an empty one.

    :param text: the whole JSON.
    :param spans: where each object begins and ends, one after the other.
    """

    __slots__ = ("_spans", "_text")

    def __init__(self, text: bytes, spans: array[int]) -> None:
        self._text = text
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans) // 2

    def __iter__(self) -> Iterator[Any]:
        at, spans = 0, self._spans
        while at < len(spans):
            first = at
            at += 2
            while at < len(spans) and spans[at + 1] - spans[first] <= _PIECE:
                at += 2
            if spans[at - 1] - spans[first] > limits.ROW:
                raise TooLargeError(f"one of its objects is longer than {limits.ROW // limits.MB} MB")
            yield from self._parsed(spans[first], spans[at - 1])

    def _parsed(self, start: int, end: int) -> list[Any]:
        piece = b"".join((b"[", memoryview(self._text)[start:end], b"]"))
        measure(piece)
        rows: list[Any] = _loads(piece)
        return rows

    def __getitem__(self, index: int) -> Any:
        index = range(len(self))[index]
        return next(iter(Rows(self._text, self._spans[2 * index : 2 * index + 2])))


def _in_pieces(text: bytes) -> Any:
    """What is around the long lists, parsed, with :class:`Rows` for each of them."""
    envelope: list[bytes] = []
    found: dict[str, Rows] = {}
    token = secrets.token_hex(8)
    done = 0
    for start, end, spans in _outer_lists(text):
        if spans is None or end - start < _LONG_LIST:
            continue
        name = f"{token}-{len(found)}"
        found[name] = Rows(text, spans)
        envelope += [text[done:start], b'"', name.encode(), b'"']
        done = end
    envelope.append(text[done:])
    around = b"".join(envelope)
    if len(around) > limits.POLL_BODY:
        raise TooLargeError(f"it is longer than {limits.POLL_BODY // limits.MB} MB, and no list of objects")
    measure(around)
    return _filled(_loads(around), found, _WITHIN)


def _filled(value: Any, found: dict[str, Rows], within: int) -> Any:
    if isinstance(value, str):
        return found.get(value, value)
    if isinstance(value, dict) and within:
        return {key: _filled(item, found, within - 1) for key, item in value.items()}
    return value


def _outer_lists(text: bytes) -> Iterator[tuple[int, int, array[int] | None]]:
    """The lists that are in no other: where they begin and end, and the same of each of their objects; ``None`` where
    they hold anything else.

    :raises UnreadableError: when the brackets don't match.
    """
    scanner = _TO_BRACKET.scanner(text)  # type: ignore[attr-defined]
    opened = bytearray()
    list_at, level, began = -1, 0, 0
    spans: array[int] | None = None
    while (match := scanner.match()) is not None:
        at = match.end() - 1
        bracket = text[at]
        if bracket in b"{[":
            if list_at < 0 and bracket == ord("[") and len(opened) < _WITHIN:
                list_at, level, spans = at, len(opened) + 1, array("Q")
            elif list_at >= 0 and len(opened) == level and spans is not None:
                began = at
                before = spans[-1] if spans else list_at + 1
                if bracket != ord("{") or text[before:at].strip() != (b"," if spans else b""):
                    spans = None
                elif len(spans) >= 2 * limits.ROWS:
                    raise TooLargeError(f"it has a list of more than {limits.ROWS:,} objects")
            opened.append(bracket)
            continue
        if not opened or opened.pop() != (ord("{") if bracket == ord("}") else ord("[")):
            raise UnreadableError("the brackets don't match")
        if list_at >= 0 and len(opened) == level and spans is not None:
            spans.extend((began, at + 1))
        elif list_at >= 0 and len(opened) < level:
            if spans is not None and text[spans[-1] if spans else list_at + 1 : at].strip():
                spans = None
            yield list_at, at + 1, spans
            list_at = -1
    if opened:
        raise UnreadableError("the brackets don't match")
