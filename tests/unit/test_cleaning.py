"""Whatever string comes from outside, what is made of it can be encoded, stored and logged, and is short enough."""

from __future__ import annotations

import json
import unicodedata

import pytest
from airflow.sdk.execution_time.comms import _RequestFrame
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_testruns import limits
from airflow_provider_testruns.cleaning import (
    CUT,
    LOST,
    clean,
    clean_json,
    distinct,
    is_id,
    outgoing_json,
    outgoing_text,
)
from airflow_provider_testruns.redaction import ClientSecrets

pytestmark = pytest.mark.unit

#: Any string that Python can hold; characters that matter here come often.
hostile = st.text(
    st.characters()
    | st.sampled_from(
        "\x00\x07\x1b\x7f\x85\x9b\x9c\x9d\ud800\udfff\u2028\u202e\u2066\ufdd0\uffff\U0001ffff[]0m\r\n\t\\"
    )
)
#: What can't be in a clean string, by the categories of Unicode and by name.
_FORBIDDEN = {"Cc", "Cs", "Zl", "Zp"}
_OVERRIDES = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _is_harmless(text: str, *, lines: bool = False) -> bool:
    allowed = {"\n", "\t"} if lines else set()
    return not any(
        (unicodedata.category(character) in _FORBIDDEN and character not in allowed)
        or character in _OVERRIDES
        or (ord(character) & 0xFFFE) == 0xFFFE
        or 0xFDD0 <= ord(character) <= 0xFDEF
        for character in text
    )


@given(hostile, st.none() | st.integers(0, 40), st.booleans())
@example("\x1b\x1b[31m[31m", None, False)
@example("\x1b]0;no end", None, False)
@example("\ud83d\x01\ude00", None, False)
def test_a_clean_string_is_harmless_and_short_and_cleaning_it_again_changes_nothing(text, limit, lines):
    cleaned = clean(text, limit, lines=lines)

    assert _is_harmless(cleaned, lines=lines)
    cleaned.encode()
    assert limit is None or len(cleaned) <= limit
    assert lines or len(cleaned.splitlines()) <= 1
    assert clean(cleaned, limit, lines=lines) == cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\ud800b", f"a{LOST}b"),
        ("a\x00b", f"a{LOST}b"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://host.example\x1b\\link", "link"),
        # Without an end it would take the rest of the message with it.
        ("\x1b]0;no end", "0;no end"),
        ("\x1b(Btext", "text"),
        ("pay\u202eto\u2066me", "paytome"),
        ("bell\x07 delete\x7f", "bell delete"),
        ("first\r\nsecond\tthird\x85fourth\u2028fifth", "first second third fourth fifth"),
        ("no\ufffe such\U0001ffff character\ufdd0", "no such character"),
        # What people write in stays: joiners of emoji and scripts, blanks that don't break, private use.
        (
            "\U0001f468\u200d\U0001f469 \u05d0\u200f 1\xa0000 \ue000",
            "\U0001f468\u200d\U0001f469 \u05d0\u200f 1\xa0000 \ue000",
        ),
    ],
)
def test_what_becomes_of_a_string(text, expected):
    assert clean(text) == expected


def test_several_lines_stay_lines_where_they_may():
    assert clean("first\r\nsecond\rthird\u2028\tfourth", lines=True) == "first\nsecond\nthird\n\tfourth"


@pytest.mark.parametrize(
    "value", [None, 7, b"bytes", ["a"], object(), type("Odd", (), {"__str__": lambda self: 1 / 0})()]
)
def test_what_is_no_string_is_spelled_out_and_nothing_is_raised(value):
    assert isinstance(clean(value), str)
    assert isinstance(distinct(value), str)


def test_what_was_cut_says_so():
    assert clean("x" * 101, 100) == "x" * 96 + CUT
    assert clean("x" * 100, 100) == "x" * 100
    assert clean("x" * 100 + "\x01", 100) == "x" * 100
    # Also where taking things out has made it short enough, after most of it was left unread.
    assert clean("\x01" * 100_000 + "x", 100).endswith(CUT)


@given(hostile, hostile, st.integers(20, 60))
def test_different_strings_stay_different_and_stay_as_they_are_the_second_time(one, other, limit):
    first, second = distinct(one, limit), distinct(other, limit)

    assert (first == second) == (one in (other, second) or first == other)
    assert distinct(first, limit) == first
    assert len(first) <= limit
    assert _is_harmless(first)


def test_names_that_differ_only_in_what_is_taken_out_stay_different():
    names = ["refund", "re\x1b[0mfund", "refund\x00", "refund\ud800", "refund\n", "r\u202eefund", "refund" + "x" * 600]
    assert len({distinct(name) for name in names}) == len(names)
    assert distinct("refund") == "refund"


@pytest.mark.parametrize(
    "good", ["a", "0", "985eb69c-2e94-42ab-b0f2-5be252bb14f4", "run:1_2.3", "...", "x" * limits.ID]
)
def test_ids(good):
    assert is_id(good)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "a%2e",
        "é",
        "{{ x }}",
        "\ud800",
        "x" * (limits.ID + 1),
        None,
        7,
    ],
)
def test_what_is_no_id(bad):
    assert not is_id(bad)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile, inner, max_size=4) | st.tuples(inner),
    max_leaves=15,
)


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


@given(json_like)
def test_data_can_be_encoded_and_stored_anywhere(value):
    found = clean_json(value)

    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    # What Airflow's workers and triggerers send to their supervisors.
    _RequestFrame(id=0, body={"value": found}).as_bytes()
    assert all(_is_harmless(text, lines=True) for text in _strings(found))
    assert clean_json(found) == found


def test_data_is_bounded_and_says_what_is_left_out():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    found = clean_json(deep)
    levels = 0
    while isinstance(found, list):
        found, levels = found[0], levels + 1
    assert (found, levels) == (CUT.strip(), limits.DEPTH)
    assert clean_json(list(range(1000)), most=10) == [*range(9), CUT.strip()]
    assert clean_json({"a": "x" * 5000})["a"] == clean("x" * 5000, limits.MESSAGE)
    assert clean_json([10**5000]) == ["[int]"]
    assert clean_json({1: 1.5, "b\x00": float("inf"), "c": 2**64}) == {
        "1": 1.5,
        distinct("b\x00"): None,
        "c": str(2**64),
    }


@pytest.fixture
def secret():
    known = ClientSecrets(["canary-of-a-password"])
    known.hold()
    yield "canary-of-a-password"
    known.release()


def test_secrets_are_masked_before_anything_is_cut_or_taken_out(secret):
    assert outgoing_text(f"said {secret}.") == "said ***."
    # Across the cut, and with something between its characters that is taken out.
    assert clean("x" * 90 + secret * 20, 100).startswith("x" * 90 + "***")
    assert clean("canary\x01-of-a-\x1b[0mpassword") == "***"
    assert outgoing_json(["x" * (limits.MESSAGE - 6) + secret])[0] == "x" * (limits.MESSAGE - 6) + "***"


def test_what_leaves_has_no_secrets_but_ids_stay_as_they_are(secret):
    assert outgoing_json({"said": [secret], secret: 1, "run_id": secret, "context": {"project_id": secret}}) == {
        "said": ["***"],
        "***": 1,
        "run_id": secret,
        "context": {"project_id": secret},
    }


def test_what_leaves_has_a_limit_in_all(monkeypatch):
    monkeypatch.setattr(limits, "OUTGOING_TEXT", 10_000)
    value = [{"run_id": "r" * 200, "state": "finished", "context": {"id": "c" * 1_000}, "message": "m" * 3_000}] * 20
    given = outgoing_json(value)
    assert [len(one["message"]) for one in given] == [3_000] * 3 + [limits.STATUS] * 17
    assert given[-1]["message"].endswith(CUT)
    assert all(one | {"message": ""} == value[0] | {"message": ""} for one in given)
