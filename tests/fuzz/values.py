"""What a hostile or merely odd server may answer: in the place of a value, a body, a status, a header."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

#: JSON that may stand in the place of any value, as text: some is no JSON, some is such that no encoder writes it.
ODD = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "-0",
    "0.5",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e308",
    "5e-324",
    "9007199254740993",
    "18446744073709551616",
    "1" + "0" * 300,
    "-" + "9" * 5_000,
    '""',
    '" "',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"Passed\\ud800"',
    '"\\u001b[31mPASSED\\u001b[0m"',
    '"\\u001b]0;title\\u0007"',
    '"\\u009b31m"',
    '"line\\r\\n[2026-01-01] INFO - all well"',
    '"\\u202egnp.exe\\u2066"',
    '"\\ufffe\\uffff"',
    '"\U0001f9ea"',
    '"e\\u0301\\u0301\\u0301"',
    '"../../../etc/passwd"',
    '".."',
    '"."',
    '"/"',
    '"C:\\\\x"',
    '"a b"',
    '"a%2fb"',
    '"{{ 7*7 }}"',
    '"${jndi:x}"',
    '"<script>alert(1)</script>"',
    '"]]>"',
    '"%s %d %n"',
    '"{0.__class__}"',
    '"javascript:alert(1)"',
    '"http://user:canary-in-a-url@host/"',
    '"' + "x" * 201 + '"',
    '"' + "x" * 100_000 + '"',
    '"' + "\\u0000" * 5_000 + '"',
    '"[' + "[" * 3_000 + '"',
    '"1"',
    '"01"',
    '"1e5"',
    '"nan"',
    '"-5"',
    '"\\u0663"',
    '"true"',
    '"null"',
    '"PASSED"',
    '"passed"',
    '"FAILED"',
    '"completed"',
    '"unknown"',
    '"2024-02-30T00:00:00Z"',
    '"0001-01-01T00:00:00+23:59"',
    '"9999-12-31T23:59:59-23:59"',
    '"2026-11-26"',
    '"20261126T101112Z"',
    '"1764150000"',
    "1764150000",
    "1764150000000",
    '"00000000-0000-0000-0000-000000000000"',
    "[]",
    "{}",
    "[null]",
    "[[]]",
    "[{}]",
    "[{}, {}]",
    '[{"id": 1}, 5]',
    '{"a": null}',
    '{"": ""}',
    '{"\\ud800": "\\ud800"}',
    '{"a": 1, "a": 2}',
    '{"__proto__": {}, "__class__": 1}',
    "[" * 90 + "]" * 90,
    "[" * 5_000 + "]" * 5_000,
    '{"a":' * 500 + "1" + "}" * 500,
    "[" + ",".join(["1"] * 5_000) + "]",
    "[" + ",".join(["{}"] * 5_000) + "]",
]

#: Whole bodies.
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "NUL": b"\x00" * 1_000,
    "a word": b"OK",
    "HTML": b"<!doctype html><html><title>Sign in</title><script>x</script><body>Sign in &amp; go</body></html>",
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "UTF-32": "{}".encode("utf-32"),
    "Latin-1": '{"status": "f\xe4lt"}'.encode("latin-1"),
    "half a character": b'{"status": "\xc3"}',
    "truncated": b'{"status": "Passed", "id": "1',
    "two values": b"{} {}",
    "a comment": b"{/* */}",
    "single quotes": b"{'status': 'Passed'}",
    "Python": b"[('a', 1), None, True]",
    "null": b"null",
    "a number": b"4",
    "a huge number": b"9" * 100_000,
    "a string": b'"Passed"',
    "a list": b"[]",
    "an object": b"{}",
    "NaN": b"NaN",
    "deep": b"[" * 200_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "many": b"[" + b"{}," * 600_000 + b"{}]",
    "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(300_000)) + b"}",
    "one key many times": b"{" + b'"status":"Passed",' * 100_000 + b'"status":"Failed"}',
    "gzip": gzip.compress(b"{}"),
    "half a gzip": gzip.compress(b"{}" * 1_000)[:40],
    "zlib": zlib.compress(b"{}"),
    "ZIP": b"PK\x03\x04" + b"\x00" * 100,
    "an empty ZIP": b"PK\x05\x06" + b"\x00" * 18,
    "half a ZIP": b"PK\x03\x04\x14\x00",
    "PNG": b"\x89PNG\r\n\x1a\n" + b"\x00" * 50,
    "Base64": base64.b64encode(b'{"status": "Passed"}'),
    "an error in a success": b'{"error": "not allowed", "status": 500}',
    "lines of JSON": b'{"a": 1}\n{"a": 2}\n',
    "server-sent events": b"data: {}\n\n",
    "random bytes": random.Random(7).randbytes(3_000),
}

#: Statuses, and headers that go with some.
STATUSES: list[tuple[int, dict[str, str]]] = [
    (201, {}),
    (202, {"retry-after": "0"}),
    (204, {}),
    (206, {"content-range": "bytes 0-1/9"}),
    (299, {}),
    *((status, {"location": place}) for status in (301, 302, 303, 307, 308) for place in ("", "/", "//evil.example/x")),
    (302, {}),
    (302, {"location": "http://[::1"}),
    (307, {"location": "file:///etc/passwd"}),
    (302, {"location": "http://u:canary-in-a-url@127.0.0.1:99999/"}),
    (300, {}),
    (304, {}),
    (400, {}),
    (401, {}),
    (402, {}),
    (403, {}),
    (404, {}),
    (405, {}),
    (408, {}),
    (409, {}),
    (410, {}),
    (413, {}),
    (418, {}),
    (422, {}),
    *(
        (429, {"retry-after": value})
        for value in ("", "5", "-5", "1e999", "nan", "x" * 10_000, "Thu, 99 Foo 2026 00:00:00 GMT", "9" * 400)
    ),
    (500, {}),
    (501, {}),
    (502, {"content-type": "text/html"}),
    (503, {"retry-after": "1"}),
    (504, {}),
    (529, {}),
    (999, {}),
]

#: Headers of a success.
HEADERS: list[dict[str, str]] = [
    {"content-type": ""},
    {"content-type": "text/html; charset=utf-16"},
    {"content-type": "application/json; charset=\ud800\x00\x1b[31m"},
    {"content-type": "x" * 100_000},
    {"date": ""},
    {"date": "Thu, 99 Foo 2026 00:00:00 GMT"},
    {"date": "Thu, 01 Jan 99999 00:00:00 GMT"},
    {"date": "\x00"},
    {"retry-after": "soon"},
    {"content-length": "-1"},
    {"etag": "\ud800"},
    {"x-" + "y" * 5_000: "z"},
]


def paths(value: Any, most: int = 2, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in a JSON value, itself first; of a list, the first ``most`` items stand for all."""
    yield prefix
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, most, (*prefix, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:most]):
            yield from paths(item, most, (*prefix, index))


_PLACE = "canary-of-the-place"


def replaced(value: Any, path: tuple[str | int, ...], text: str) -> bytes:
    """A JSON value as text, with other text in the place of one of its values."""
    spelled = json.dumps(_with(value, path, _PLACE))
    return spelled.replace(f'"{_PLACE}"', text).encode("utf-8", "surrogatepass")


def restructured(value: Any, path: tuple[str | int, ...]) -> Iterator[bytes]:
    """The same with one of its values left out, twice there, renamed, wrapped, or among others of its kind."""
    if path:
        *way, last = path
        holder = _at(value, tuple(way))
        if isinstance(holder, dict):
            without = {key: item for key, item in holder.items() if key != last}
            yield _dumped(_with(value, tuple(way), without))
            yield _dumped(_with(value, tuple(way), {**without, str(last).upper(): holder[last]}))
            yield _dumped(_with(value, tuple(way), {**holder, str(last).upper(): None}))
        else:
            assert isinstance(last, int)
            yield _dumped(_with(value, tuple(way), holder[:last] + holder[last + 1 :]))
            yield _dumped(_with(value, tuple(way), [*holder, holder[last]]))
            yield _dumped(_with(value, tuple(way), [*holder, None, 5, "x", [], {}]))
    found = _at(value, path)
    yield _dumped(_with(value, path, [found]))
    yield _dumped(_with(value, path, {"value": found}))
    yield _dumped(_with(value, path, str(found)))


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _with(value: Any, path: tuple[str | int, ...], item: Any) -> Any:
    if not path:
        return item
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, first: _with(value[first], rest, item)}
    assert isinstance(first, int)
    return [*value[:first], _with(value[first], rest, item), *value[first + 1 :]]
