"""JSON from outside: counted before it is parsed, and parsed in pieces when it is long."""

from __future__ import annotations

import json
import random
import re
import tracemalloc
from typing import Any

import pytest

from airflow_provider_testruns import limits, parsing
from airflow_provider_testruns.parsing import Rows, TooLargeError, UnreadableError, measure, parse

pytestmark = pytest.mark.unit

_STRING = re.compile(rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*"')


def _any_value(chance: random.Random, deep: int = 0) -> Any:
    """JSON whose strings hold all that has a meaning outside of them."""
    kind = chance.random()
    if deep > 5 or kind < 0.4:
        return chance.choice([1, None, "", 'a"b', "{[\\", "\\\\", ']]}}\\"', '",",', "é😀", -1.5e3, True])
    if kind < 0.7:
        return [_any_value(chance, deep + 1) for _ in range(chance.randint(0, 4))]
    return {
        chance.choice(["a", "b\\", 'c"{', "["]) + str(index): _any_value(chance, deep + 1)
        for index in range(chance.randint(0, 4))
    }


def _depth_of(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max((_depth_of(item) for item in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


@pytest.mark.parametrize("chunk", [3, 64, 1 << 18])
def test_it_counts_what_stands_outside_of_strings(monkeypatch, chunk):
    monkeypatch.setattr(parsing, "_CHUNK", chunk)
    chance = random.Random(chunk)
    for _ in range(400):
        text = json.dumps(_any_value(chance), ensure_ascii=chance.random() < 0.5).encode()
        nodes = 1 + len(re.findall(rb"[,{\[]", _STRING.sub(b"", text)))
        measure(text, nodes, depth=1000)
        if len(text) >= nodes > 1:
            with pytest.raises(TooLargeError, match=r"more than .* values"):
                measure(text, nodes - 1, depth=1000)


def test_it_knows_how_deep_it_is():
    chance = random.Random(7)
    for _ in range(400):
        value = _any_value(chance)
        text, depth = json.dumps(value).encode(), _depth_of(value)
        measure(text, 10**9, depth)
        if len(text) >= depth > 1:
            with pytest.raises(TooLargeError, match="nested deeper"):
                measure(text, 10**9, depth - 1)


def test_depth_is_counted_over_all_pieces(monkeypatch):
    monkeypatch.setattr(parsing, "_CHUNK", 50)
    measure(b"[" * 100 + b"]" * 100, depth=100)
    with pytest.raises(TooLargeError):
        measure(b"[" * 101 + b"]" * 101, depth=100)
    # What was closed is not open any more.
    measure((b"[" * 90 + b"]" * 90 + b",") * 20, depth=100)


@pytest.mark.parametrize(
    "text",
    [
        b"{}," * (limits.POLL_NODES // 2 + 1),
        b"[" + b"1," * limits.POLL_NODES + b"1]",
        b"[" + b'"[",' * limits.POLL_NODES + b"1]",
        b"[" * (limits.DEPTH + 1) + b"]" * (limits.DEPTH + 1),
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    ],
    ids=["objects", "numbers", "strings", "deep", "very deep"],
)
def test_what_is_too_large_is_refused_unparsed(monkeypatch, text):
    monkeypatch.setattr(parsing, "_loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(TooLargeError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [b"NaN", b'[{"a": Infinity}]', b'{"a": -Infinity}', b"", b"{", b"[1,]", b"\xff\xfe\xfd", b"1" * 5000, b"[]]"],
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(UnreadableError):
        parse(text)


def test_a_long_number_is_refused_and_a_string_of_digits_is_not():
    padding = " " * 300_000
    with pytest.raises(TooLargeError, match="digits"):
        parse(f"[{'9' * 1000}]{padding}".encode())
    assert parse(f'["{"9" * 1000}", {"9" * 300}]{padding}'.encode()) == ["9" * 1000, int("9" * 300)]


# In pieces


def _in_pieces(monkeypatch: pytest.MonkeyPatch, long_list: int = 200, piece: int = 300, poll_body: int = 1000) -> None:
    monkeypatch.setattr(parsing, "_LONG_LIST", long_list)
    monkeypatch.setattr(parsing, "_PIECE", piece)
    monkeypatch.setattr(limits, "POLL_BODY", poll_body)


_ROWS = [{"id": str(index), "text": 'a "quoted" [{,}] \\', "inner": [[1, {}], {"a": []}]} for index in range(50)]


@pytest.mark.parametrize(
    ("value", "way"),
    [
        (_ROWS, ()),
        ({"data": _ROWS}, ("data",)),
        ({"count": 50, "results": _ROWS, "next": None, "short": [1, 2]}, ("results",)),
        (
            {"status": True, "result": {"calls": {"results": _ROWS}, "other": [{"a": 1}]}},
            ("result", "calls", "results"),
        ),
    ],
    ids=["bare", "data", "page", "deep"],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_long_list_is_parsed_in_pieces(monkeypatch, value, way, indent):
    _in_pieces(monkeypatch)
    parsed = parse(json.dumps(value, indent=indent).encode(), limits.ALL_NODES)
    rows, whole = parsed, value
    for name in way:
        # What is around the list is as it was.
        assert {**rows, name: None} == {**whole, name: None}
        rows, whole = rows[name], whole[name]
    assert isinstance(rows, Rows)
    assert not isinstance(rows, list)
    assert len(rows) == len(_ROWS)
    assert list(rows) == _ROWS
    assert rows[0] == _ROWS[0]
    assert rows[-1] == _ROWS[-1]
    with pytest.raises(IndexError):
        rows[50]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([*_ROWS, 1]).encode(),
        json.dumps([1, *_ROWS]).encode(),
        json.dumps([*_ROWS, []]).encode(),
        json.dumps(_ROWS).replace("}, {", "} {", 1).encode(),
        json.dumps(_ROWS).replace("}, {", "}, x, {", 1).encode(),
        json.dumps(_ROWS).encode()[:-1],
        json.dumps(_ROWS).encode() + b"]",
        json.dumps(_ROWS).encode()[:-1] + b"}",
        json.dumps({"data": _ROWS}).encode()[:-1] + b', "data": 1',
        b'"' + b'\\"' * 2000,
    ],
)
def test_a_long_list_of_anything_else_is_refused(monkeypatch, text):
    _in_pieces(monkeypatch)
    with pytest.raises(UnreadableError):
        list(parse(text, limits.ALL_NODES))


def test_a_long_list_with_an_object_that_is_no_json(monkeypatch):
    _in_pieces(monkeypatch)
    rows = parse(json.dumps(_ROWS).replace('"49"', "forty", 1).encode(), limits.ALL_NODES)
    with pytest.raises(UnreadableError, match="not JSON"):
        list(rows)


def test_in_the_triggerer_a_long_list_is_refused(monkeypatch):
    _in_pieces(monkeypatch)
    with pytest.raises(TooLargeError, match="longer than"):
        parse(json.dumps(_ROWS).encode())


def test_a_list_has_an_end_of_its_rows(monkeypatch):
    _in_pieces(monkeypatch)
    monkeypatch.setattr(limits, "ROWS", 49)
    with pytest.raises(TooLargeError, match="more than 49 objects"):
        parse(json.dumps(_ROWS).encode(), limits.ALL_NODES)


def test_what_is_long_and_no_list_of_objects_is_refused(monkeypatch):
    _in_pieces(monkeypatch)
    for value in ({"a": "x" * 2000}, {"a": {"b": list(range(500))}}):
        with pytest.raises(UnreadableError):
            parse(json.dumps(value).encode(), limits.ALL_NODES)


def test_reading_a_long_list_takes_little_memory():
    row = {"id": "3f2b8c1e-7d7e-4a7e-9f65-0c3a9d1b2c3d", "status": "PASS", "time": 889.0, "errors": [], "a": "x" * 900}
    text = json.dumps({"data": [row] * 10_000}).encode()
    assert len(text) > limits.POLL_BODY
    tracemalloc.start()
    try:
        assert sum(1 for each in parse(text, limits.ALL_NODES)["data"] if each["status"] == "PASS") == 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * limits.MB


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_500_000 + "😀 \u0000",
        "é" * 800_000,
        "世界" * 300_000,
        "😀" * 300_000,
        ("Ärger, " + "x" * 50 + "😀") * 20_000,
    ],
)
def test_long_texts_are_what_they_are_whatever_their_characters(value):
    text = json.dumps({"a": [value, "b"]}, ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        assert parse(text) == {"a": [value, "b"]}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * limits.MB


def test_an_emoji_makes_only_its_own_string_large():
    """One of them in a list of many strings would make four bytes of each of its characters."""
    text = json.dumps(["x" * 100_000 for _ in range(50)] + ["😀"], ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        parse(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text)


def test_what_looks_like_an_emoji_and_is_none_is_no_json():
    with pytest.raises(UnreadableError):
        parse(b'"' + b"x" * 1_500_000 + b'\xf4\xbf\xbf\xbf"')
