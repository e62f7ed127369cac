"""Calls are data; ids can't change a path."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.platforms.platform import error_message_reader
from airflow_provider_testruns.steps import LACKING, Call, Response, Sleep, ask, optional, path, pause

pytestmark = pytest.mark.unit

_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() not in ("", ".", "..")
)


@given(_ids)
def test_an_id_is_one_segment_and_comes_out_as_it_went_in(value):
    made = path("/api/runs/{run_id}/logs/", run_id=value)
    assert made.isascii()
    parts = urlsplit("http://host" + made)
    assert (parts.netloc, parts.query, parts.fragment) == ("host", "", "")
    segments = parts.path.split("/")
    assert [unquote(segment) for segment in segments] == ["", "api", "runs", value, "logs", ""]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("../../admin", "..%2F..%2Fadmin"),
        ("a b", "a%20b"),
        ("1.2 dialog", "1.2%20dialog"),
        ("x?y=1#z", "x%3Fy%3D1%23z"),
        ("100%", "100%25"),
        ("%2e%2e", "%252e%252e"),
        ("é", "%C3%A9"),
        ("{run_id}", "%7Brun_id%7D"),
        (4711, "4711"),
        ("line\nbreak", "line%0Abreak"),
    ],
)
def test_ids_are_encoded_whole(value, encoded):
    assert path("/runs/{run_id}", run_id=value) == f"/runs/{encoded}"


@pytest.mark.parametrize("value", ["", " ", ".", "..", " .. ", "\n", "\ud800"], ids=repr)
def test_an_id_that_a_path_would_swallow_is_refused_by_name(value):
    with pytest.raises(ConfigurationError, match=r"^project_id must be an id of the platform, got "):
        path("/projects/{project_id}", project_id=value)


def test_several_ids():
    assert path("/a/{one}/b/{two}/", one="x/y", two=2) == "/a/x%2Fy/b/2/"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429])
def test_a_refusal_proves_that_nothing_was_done(status):
    assert Call("start", "POST", "/", lambda response: None).not_executed(Response(status, {}, b""))


@pytest.mark.parametrize("status", [200, 302, 408, 500, 502, 503, 504])
def test_any_other_response_proves_nothing(status):
    assert not Call("start", "POST", "/", lambda response: None).not_executed(Response(status, {}, b""))


def test_calls_may_be_repeated_unless_they_say_otherwise():
    assert Call("get", "GET", "/", lambda response: None).idempotent


def test_the_same_request_can_be_read_in_another_way():
    call = Call("get", "GET", "/x", lambda response: response.status, {"a": 1}, idempotent=False)
    again = call.with_reader(lambda response: response.body)
    assert again.read(Response(200, {}, b"body")) == b"body"
    assert (again.what, again.method, again.path, again.query, again.idempotent) == (
        "get",
        "GET",
        "/x",
        {"a": 1},
        False,
    )
    assert call.read(Response(200, {}, b"")) == 200


def test_what_is_secret_in_a_call_is_not_in_its_repr():
    assert "canary" not in repr(Call("get", "GET", "/", lambda response: None, secrets=("canary",)))


def test_a_step_gives_what_the_carrier_sends():
    call = Call("get", "GET", "/x", lambda response: None)
    steps = ask(call)
    assert next(steps) is call
    with pytest.raises(StopIteration) as stop:
        steps.send("value")
    assert stop.value.value == "value"


def test_a_pause_is_a_step():
    assert list(pause(2.5)) == [Sleep(2.5)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"detail": " No licence "}, "No licence"),
        ({"detail": "", "errors": ["a", "b"]}, "['a', 'b']"),
        ({"detail": None, "errors": {"x": 1}}, "{'x': 1}"),
        ({"detail": [], "errors": []}, ""),
        ({"detail": 5}, ""),
        ({}, ""),
        ([], ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_a_platforms_own_words(body, found):
    assert error_message_reader("detail", "errors")(body) == found


def _answered(error, **arguments):
    """What a call that is answered with an error comes to as an optional one."""
    steps = optional(ask(Call("get", "GET", "/", lambda response: "found")), **arguments)
    call = next(steps)
    assert call.non_retryable_statuses >= LACKING or "statuses" in arguments
    try:
        steps.throw(error)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("an optional call is sent once")


@pytest.mark.parametrize(
    ("kind", "status"),
    [(NotFoundError, 404), (InvalidRequestError, 405), (InvalidRequestError, 410), (ServerError, 501)],
)
def test_what_a_server_lacks_is_none_or_what_the_caller_makes_of_it(kind, status):
    error = kind("no", status=status)
    assert _answered(error) is None
    assert _answered(error, otherwise=lambda lacking: lacking.status) == status


@pytest.mark.parametrize(
    "error",
    [
        PermissionDeniedError("no", status=403),
        ServerError("no", status=503),
        # Statuses of an answer that says nothing about what the server has.
        AuthenticationError("no", status=404),
        InvalidReplyError("no", status=404),
        TransportError("no"),
    ],
    ids=lambda error: f"{type(error).__name__} {error.status}",
)
def test_any_other_error_is_no_lack(error):
    with pytest.raises(type(error), match=r"^no$"):
        _answered(error)


def test_what_stands_for_a_lack_can_be_said():
    assert _answered(ServerError("no", status=500), statuses=LACKING | {500}) is None
    with pytest.raises(NotFoundError):
        _answered(NotFoundError("no", status=404), statuses={405})
