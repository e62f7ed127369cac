"""Whatever a response holds, reading it gives a value of the promised type, or an error that names the field."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns import limits, parsing
from airflow_provider_testruns.exceptions import InvalidReplyError
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.platforms.reading import Fields, each, newest_first, objects
from airflow_provider_testruns.platforms.times import read_time
from airflow_provider_testruns.redaction import ClientSecrets, redact
from airflow_provider_testruns.steps import Response, path
from airflow_provider_testruns.transport.decoding import Decoder
from airflow_provider_testruns.transport.effects import EncodingError
from tests.unit.strategies import json_values

pytestmark = pytest.mark.unit

_NAMED = r"response: field 'a' "


def _attempt(read):
    """What reading gives: a value, or the error that says why there is none."""
    try:
        return read()
    except InvalidReplyError as e:
        return e


def _is_error(found, place):
    return isinstance(found, InvalidReplyError) and str(found).startswith(place) and len(str(found)) < 200


@given(json_values)
def test_any_json_gives_a_value_of_the_promised_type_or_an_error_that_names_the_field(value):
    fields = Fields({"a": value}, "response")

    whole = _attempt(lambda: Fields(value, "all"))
    assert (whole.raw is value) if isinstance(value, dict) else _is_error(whole, "all should be an object, and is ")

    listed = _attempt(lambda: objects(value, "all"))
    assert _is_error(listed, "all") if isinstance(listed, InvalidReplyError) else len(listed) == len(value)

    text = _attempt(lambda: fields.text("a"))
    optional = _attempt(lambda: fields.optional_text("a"))
    if isinstance(text, str):
        # It can stand in an address and in a message.
        assert text == optional != ""
        assert path("/runs/{id}", id=f"x{text}").startswith("/runs/x")
        assert text.encode()
    else:
        assert _is_error(text, "response: field 'a' ")
        assert optional in (None, "") or _is_error(optional, "response: field 'a' ")

    count = _attempt(lambda: fields.integer("a"))
    if isinstance(count, int):
        assert type(count) is int
        assert count >= 0
        assert f"{count / 3:.1%} of {count}"
        assert fields.integer("a", default=7) == count
    else:
        assert _is_error(count, "response: field 'a' ")
        assert value is not None or fields.integer("a", default=7) == 7

    number = _attempt(lambda: fields.optional_number("a"))
    if isinstance(number, float):
        assert math.isfinite(number)
    else:
        assert number is None or _is_error(number, "response: field 'a' ")

    flag = _attempt(lambda: fields.flag("a", default=True))
    assert isinstance(flag, bool) or _is_error(flag, "response: field 'a' ")

    at = _attempt(lambda: fields.moment("a"))
    if isinstance(at, datetime):
        assert at.utcoffset() == timedelta(0)
    else:
        assert at is None or _is_error(at, "response: field 'a' ")

    child = _attempt(lambda: fields.child("a"))
    if isinstance(child, Fields):
        assert child.where == "response.a"
    else:
        assert child is None or _is_error(child, "response.a ")

    children = _attempt(lambda: fields.children("a"))
    if isinstance(children, list):
        assert [each.where for each in children] == [f"response.a[{at}]" for at in range(len(children))]
    else:
        assert _is_error(children, "response.a")


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9000, 1, 1)), st.integers(-12, 14))
def test_times_in_every_spelling_are_one_moment(naive, hours):
    offset = f"{hours:+03d}"
    expected = read_time(naive.isoformat() + offset + ":00")
    assert expected is not None
    assert expected.tzinfo is UTC
    text = naive.isoformat(sep=" ")
    for spelling in (
        text + offset,
        text + offset + ":00",
        text + offset + "00",
        f"  {text}{offset} ",
        f"{text} {offset}:00",
        f"{text}{offset}:00[Europe/Berlin]",
        f"{text}{offset}".replace("-", "/", 2),
    ):
        assert read_time(spelling) == expected, spelling
    for spelling in (text, text + "Z", text + "z", text + " UTC", text + " GMT", text.replace(" ", "t") + "z"):
        assert read_time(spelling) == naive.replace(tzinfo=UTC), spelling


@given(st.datetimes(min_value=datetime(1974, 1, 1), max_value=datetime(5000, 1, 1)))
def test_times_as_numbers(naive):
    moment = naive.replace(microsecond=0, tzinfo=UTC)
    seconds = int(moment.timestamp())
    for number in (seconds, float(seconds), seconds * 1000, seconds * 10**6, seconds * 10**9, str(seconds)):
        assert read_time(number) == moment, number


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-05-31 17:00:01.366412+01", datetime(2018, 5, 31, 16, 0, 1, 366412, tzinfo=UTC)),
        ("2026-11-26T24:00:00Z", datetime(2026, 11, 27, tzinfo=UTC)),
        ("2026-12-31T24:00", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-11-26T23:59:60Z", datetime(2026, 11, 27, tzinfo=UTC)),
        ("2026-06-30T23:59:60.5+00:00", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-11-26T13:00:00[Europe/Berlin]", datetime(2026, 11, 26, 12, tzinfo=UTC)),
        ("2026-11-26T13:00:00+01:00[Europe/Berlin]", datetime(2026, 11, 26, 12, tzinfo=UTC)),
        ("2026-11-26T13:00:00Z[UTC]", datetime(2026, 11, 26, 13, tzinfo=UTC)),
        ("2026-11-26T13:00:00+1:00", datetime(2026, 11, 26, 12, tzinfo=UTC)),
        ("2026-11-26T13:00:00\u221202:00", datetime(2026, 11, 26, 15, tzinfo=UTC)),
        ("2026-11-26T13:00:00.123456789z", datetime(2026, 11, 26, 13, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-26T13:00:00,5Z", datetime(2026, 11, 26, 13, 0, 0, 500000, tzinfo=UTC)),
        ("20261126T130000Z", datetime(2026, 11, 26, 13, tzinfo=UTC)),
        ("20261126130000", datetime(2026, 11, 26, 13, tzinfo=UTC)),
        ("20261126", datetime(2026, 11, 26, tzinfo=UTC)),
        ("Thu, 26 Nov 2026 13:00:00 GMT", datetime(2026, 11, 26, 13, tzinfo=UTC)),
        ("26 Nov 2026 13:00:00 +0100", datetime(2026, 11, 26, 12, tzinfo=UTC)),
        ("1795698000.5", datetime(2026, 11, 26, 13, 0, 0, 500000, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00", None),
        (0, None),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_times_that_are_written_otherwise(text, moment):
    assert read_time(text) == moment


_NO_TIMES = [
    "tomorrow",
    "12:00",
    "2024-13-01",
    "2026-11-26T25:00:00Z",
    "2026-11-26T24:00:01Z",
    "2026-11-26T13:00:61Z",
    "2026-11-26T13:00:00+99:00",
    "2026-11-26T13:00:00[Nowhere/At_all]",
    "2026-11-26T13:00:00[../../etc/passwd]",
    "9999-12-31T23:59:59-23:00",
    "0001-01-01T00:00:00+14:00",
    "9" * 30,
    "-",
    " ",
    "x" * 1000,
    5,
    -1_700_000_000,
    True,
    [],
    {},
    math.nan,
    math.inf,
    1e300,
    10**400,
    -(10**400),
]


@pytest.mark.parametrize("value", _NO_TIMES, ids=lambda value: str(value)[:40])
def test_what_is_not_a_time_is_none(value):
    with pytest.raises(ValueError, match=r".+"):
        read_time(value)
    assert Fields({"at": value}, "r").moment("at") is None
    assert Fields({"at": value}, "r").start("at") == (None, True)


@given(json_values | st.text(max_size=90))
def test_no_time_is_anything_but_read_or_not(value):
    try:
        found = read_time(value)
    except ValueError:
        return
    assert found is None or found.tzinfo is UTC


def test_an_empty_time_is_none():
    assert Fields({"at": ""}, "r").moment("at") is None


@pytest.mark.parametrize("spelling", ["runId", "run_id", "RUNID", "RunId", "run_Id_"])
def test_keys_are_looked_up_without_regard_to_case_and_underscores(spelling):
    assert Fields({spelling: "r-1"}, "r").text("runId") == "r-1"
    assert Fields({spelling: "r-1"}, "r").text("run_id") == "r-1"


def test_the_first_name_that_has_a_value_counts():
    fields = Fields({"createdAt": None, "createAt": "x", "other": "y"}, "r")
    assert fields.get("createdAt", "createAt", "other") == "x"
    assert fields.get("nothing") is None


def test_falsy_values_are_values():
    fields = Fields({"nought": 0, "no": False, "empty": ""}, "r")
    assert fields.get("nought", "empty") == 0
    assert fields.integer("nought", default=5) == 0
    assert fields.flag("no", default=True) is False
    assert fields.optional_text("empty") == ""


@pytest.mark.parametrize(("value", "found"), [(4711, "4711"), (1.5, "1.5"), ("x", "x"), ("ümläut 🐎", "ümläut 🐎")])
def test_texts(value, found):
    assert Fields({"a": value}, "response").text("a") == found


@pytest.mark.parametrize("value", [None, "", True, [], {}, "\x1b[0m"], ids=repr)
def test_what_is_no_text(value):
    with pytest.raises(InvalidReplyError, match=_NAMED):
        Fields({"a": value}, "response").text("a")


@pytest.mark.parametrize(("value", "found"), [(3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), (0, 0), (10**15, 10**15)])
def test_counts(value, found):
    assert Fields({"a": value}, "response").integer("a") == found


@pytest.mark.parametrize(
    "value", [None, -1, 2.5, "-1", "three", "", True, False, [], {}, 10**15 + 1, 1e300, math.inf, math.nan, "9" * 20]
)
def test_what_is_no_count(value):
    with pytest.raises(InvalidReplyError, match=_NAMED):
        Fields({"a": value}, "response").integer("a")


@pytest.mark.parametrize("value", ["1", True, [], {}, math.inf, math.nan, 10**400])
def test_what_is_no_number(value):
    with pytest.raises(InvalidReplyError, match=_NAMED):
        Fields({"a": value}, "response").optional_number("a")


@pytest.mark.parametrize("value", ["true", 1, 0, [], {}])
def test_what_is_no_flag(value):
    with pytest.raises(InvalidReplyError, match=_NAMED):
        Fields({"a": value}, "response").flag("a", default=False)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "missing"),
        ({}, "an object"),
        ([], "a list"),
        ("x", "a text ('x')"),
        (True, "true or false ('True')"),
        (5, "a number ('5')"),
        (5.5, "a number ('5.5')"),
    ],
)
def test_errors_say_what_stands_there(value, kind):
    with pytest.raises(InvalidReplyError) as caught:
        objects(value, "data") if not isinstance(value, list) else Fields(value, "data")
    assert str(caught.value).endswith(f"and is {kind}")


def test_errors_quote_little():
    with pytest.raises(InvalidReplyError) as caught:
        objects("x" * 5000, "data")
    assert len(str(caught.value)) < 150


def test_runs_that_have_not_begun_are_the_newest():
    def run(name, at):
        return Run("omilia", name, RunState.QUEUED, "", started_at=at)

    old, new = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    runs = [run("old", old), run("waiting", None), run("new", new)]
    ordered = sorted(runs, key=lambda each: newest_first(each.started_at), reverse=True)
    assert [each.run_id for each in ordered] == ["waiting", "new", "old"]


def test_what_is_not_json_is_an_invalid_response():
    for body in (b"[" * 200_000, b"<html>", b"", b"\xff\xfe", b"9" * 5000):
        with pytest.raises(InvalidReplyError, match=r"the response is (not JSON|too large to be read)"):
            Response(200, {"content-type": "text/html"}, body).json()


def test_a_string_of_megabytes_ends_early_and_stays_apart():
    fields = Fields({"a": "x" * 1_000_000 + "a", "b": "x" * 1_000_000 + "b", "c": "x" * limits.VERBATIM}, "it")
    one, other = fields.verbatim("a"), fields.verbatim("b")
    assert len(one) < limits.VERBATIM + 100
    assert one != other
    assert one[: limits.VERBATIM] == other[: limits.VERBATIM]
    assert fields.verbatim("c") == "x" * limits.VERBATIM


def test_a_list_in_pieces_is_read_one_by_one_and_not_whole(monkeypatch):
    monkeypatch.setattr(limits, "POLL_BODY", 1000)
    monkeypatch.setattr(parsing, "_LONG_LIST", 500)
    monkeypatch.setattr(parsing, "_PIECE", 300)
    rows = [{"id": str(number)} for number in range(100)]
    long = Response(200, {}, json.dumps(rows).encode(), nodes=limits.ALL_NODES).json()
    assert [row.text("id") for row in each(long, "it")] == [row["id"] for row in rows]
    with pytest.raises(InvalidReplyError, match="it is too large to be read whole: a list of 100 objects"):
        objects(long, "it")
    with pytest.raises(InvalidReplyError, match="too large to be read: it is longer"):
        Response(200, {}, json.dumps(rows).encode()).json()


@pytest.mark.parametrize("before", range(40, 61))
def test_an_error_that_quotes_a_part_of_a_response_shows_no_part_of_a_secret(before):
    secret = "canary-0123456789-password"
    with_secret = "x" * before + " " + secret
    secrets = ClientSecrets([secret])
    secrets.hold()
    try:
        for read in (
            lambda: Fields({"a": with_secret}, "response").identifier("a"),
            lambda: Fields(with_secret, "response"),
            lambda: Decoder(with_secret),
        ):
            with pytest.raises((InvalidReplyError, EncodingError)) as raised:
                read()
            assert "canary" not in redact(str(raised.value))
    finally:
        secrets.release()
