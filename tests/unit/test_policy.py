"""The rules for carrying calls: what is sent, what each response becomes, and what is tried again."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidReplyError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.steps import Call, Response, Sleep, Upload, ask, no_value
from airflow_provider_testruns.timing import MAX_RETRY_AFTER
from airflow_provider_testruns.transport.auth import FixedHeaders, OAuthToken
from airflow_provider_testruns.transport.effects import NetworkError, Request, ResponseTooLargeError
from airflow_provider_testruns.transport.policy import (
    RequestStats,
    Session,
    back_off,
    retry_after,
    retrying,
)
from tests.unit.responses import response
from tests.unit.steps import BEGIN, Clock, Lines, Script, flow
from tests.unit.strategies import json_values

pytestmark = pytest.mark.unit

_HOST = "https://api.example.com/base"
_KEY = "canary-api-key"


def _session(auth=None, **more) -> Session:
    return Session("con", _HOST, auth or FixedHeaders({"X-Api-Key": _KEY}, (_KEY,)), clock=Clock(), **more)


def _token_session(**more) -> Session:
    clock = Clock()
    token = OAuthToken("https://api.example.com/token", {"client_secret": "canary-secret"}, clock=clock)
    return Session("con", _HOST, token, clock=clock, **more)


def _get(what="get run 4711", path="/runs/4711", read=lambda response: response.json(), **more) -> Call:
    return Call(what, "GET", path, read, **more)


def _start(**more) -> Call:
    return Call("start a run", "POST", "/runs/", lambda response: response.json(), idempotent=False, **more)


def _exchange(call, *answers, session=None, until=None, wire=None):
    session = session or _session()
    wire = wire or Script(answers)
    found = flow(session, session.exchange(call, until), wire)
    assert wire.done()
    return found


def _failure(call, *answers, session=None, wire=None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        _exchange(call, *answers, session=session, wire=wire)
    return caught.value


# What is sent


def _sent(call, session=None, until=None) -> Request:
    wire = Script([response({})])
    _exchange(call, session=session, until=until, wire=wire)
    return wire.requests[0]


def test_a_request_is_the_call_below_the_base_url_with_the_credentials():
    request = _sent(_get(query={"page": 2, "search": "a b&c", "none": None}, headers={"X-More": "1"}))
    assert request.method == "GET"
    assert request.url == f"{_HOST}/runs/4711?page=2&search=a+b%26c"
    assert request.headers == {"Accept": "application/json", "X-More": "1", "X-Api-Key": _KEY}
    assert request.body is None
    assert request.new_connection is False


def test_json_bodies():
    request = _sent(_start(json={"projectId": "p", "group": None}))
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"projectId": "p", "group": None}


def test_an_empty_json_object_is_a_body():
    assert _sent(_start(json={})).body == b"{}"


def test_form_bodies():
    request = _sent(_start(form={"id": "a b", "limit": "1"}))
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.body == b"id=a+b&limit=1"


def test_files_are_the_drivers_business(tmp_path: Path):
    upload = Upload("file", tmp_path / "suites.zip")
    request = _sent(_start(upload=upload))
    assert request.upload is upload
    assert "Content-Type" not in request.headers
    assert _sent(_get(save_to=tmp_path / "a.zip")).save_to == tmp_path / "a.zip"


def test_what_must_not_be_repeated_goes_over_a_connection_of_its_own():
    assert _sent(_start()).new_connection
    assert not _sent(_get()).new_connection


@pytest.mark.parametrize(
    ("until", "timeout"), [(None, 30.0), (BEGIN + 100, 30.0), (BEGIN + 10, 10.0), (BEGIN + 0.2, 1.0), (BEGIN - 5, 1.0)]
)
def test_no_request_lasts_much_beyond_the_deadline(until, timeout):
    assert _sent(_get(), until=until).timeout == _sent(_start(), until=until).timeout == timeout


def test_nothing_that_is_not_json_is_sent():
    with pytest.raises(ValueError, match="JSON"):
        _exchange(_start(json={"x": float("nan")}))


# What comes back


def test_a_response_is_what_the_call_reads_from_it():
    assert _exchange(_get(), response(body={"status": "up"})) == {"status": "up"}
    assert _exchange(Call("cancel", "POST", "/x", no_value), response(status=204, body=b"")) is None
    assert _exchange(_get(), response(status=299, body=5)) == 5


_KINDS = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: PermissionDeniedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: InvalidRequestError,
    408: ServerError,
    409: InvalidRequestError,
    418: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    500: ServerError,
    503: ServerError,
    599: ServerError,
    304: InvalidRequestError,
    300: InvalidRequestError,
}


@pytest.mark.parametrize(("status", "kind"), _KINDS.items())
def test_every_status_has_its_type(status, kind):
    error = _failure(_get(), response(status=status, body={"detail": "Why it is so"}))
    assert type(error) is kind
    assert error.status == status
    assert error.transient is (status in (408, 429) or status >= 500)


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        (401, "Check login and password of the connection."),
        (403, "Check what this user is allowed to do, and the licence or quota, on the platform."),
        (404, "Check the id, and that the connection's host is the right URL, with the right path."),
        (422, "Check the arguments of the task against what the platform says."),
        (429, "Poll less often (a longer poll_interval), or raise the platform's limit."),
        (502, "The platform or a gateway before it has a problem; see its own logs or status page."),
    ],
)
def test_a_message_names_the_connection_the_call_the_run_the_answer_and_the_next_step(status, next_step):
    error = _failure(_get(query={"api_key": "canary"}), response(status=status, body={"detail": "Why it is so"}))
    assert str(error) == (
        f"Connection 'con' could not get run 4711 (GET {_HOST}/runs/4711): HTTP {status}: Why it is so. {next_step}"
    )


def test_the_fields_that_hold_the_credentials_are_named():
    assert "Check secret_key of the connection." in str(
        _failure(_get(), response(status=401), session=_session(auth_fields="secret_key"))
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "No licence!"}, "No licence!"),
        ({"message": "one", "error": "two"}, "one; two."),
        ({"detail": "same", "message": "same"}, "same."),
        ({"errors": [{"field": "a"}]}, "[{'field': 'a'}]."),
        ({"status": False}, "{'status': False}."),
        ([1, 2], "[1, 2]."),
        ("text", "text."),
        (b"", "an empty response."),
        (b"   ", "an empty response."),
        (b"upstream\n  timed out", "upstream timed out."),
        (b"<html><style>p {x}</style><h1>Bad</h1>\n<script>y()</script>Gateway</html>", "Bad Gateway."),
        (b"\xff\xfe broken", "\ufffd\ufffd broken."),
    ],
)
def test_what_the_platform_answered_is_quoted(body, said):
    assert f"HTTP 503: {said} " in str(_failure(_get(), response(status=503, body=body)))


def test_a_call_finds_its_platforms_own_words():
    call = _get(error_text=lambda body: body["result"]["why"])
    assert "HTTP 400: no agent. Check" in str(
        _failure(call, response(status=400, body={"result": {"why": "no agent"}, "detail": "x"}))
    )
    call = _get(error_text=lambda body: "")
    assert "HTTP 400: fallback. Check" in str(_failure(call, response(status=400, body={"detail": "fallback"})))


@pytest.mark.parametrize("body", [b"x" * 3000, json.dumps({"detail": "x" * 3000}).encode(), b"<p>" + b"x" * 3000])
def test_an_answer_is_cut_at_500_characters(body):
    assert f"HTTP 500: {'x' * 496} […]. The platform" in str(_failure(_get(), response(status=500, body=body)))
    assert f"HTTP 500: {'y' * 500}. The platform" in str(_failure(_get(), response(status=500, body=b"y" * 500)))


def test_secrets_are_masked_also_where_the_cut_would_halve_them():
    body = {"detail": f"key {_KEY} is unknown; " + "x" * 460 + _KEY}
    said = str(_failure(_get(), response(status=401, body=body)))
    assert "key *** is unknown" in said
    assert "canary" not in said


def test_the_token_and_the_grant_are_masked():
    session = _token_session()
    said = str(
        _failure(
            _get(),
            response(body={"access_token": "canary-token"}),
            response(status=403, body={"detail": "Bearer canary-token of canary-secret"}),
            session=session,
        )
    )
    assert "Bearer *** of ***." in said


def test_a_calls_own_secrets_are_masked():
    call = _start(json={"gitToken": "canary-git"}, secrets=("canary-git",))
    assert "token *** is bad" in str(_failure(call, response(status=400, body={"detail": "token canary-git is bad"})))

    def read(response):
        raise InvalidReplyError("field 'x' is 'canary-git'")

    call = Call("start", "POST", "/x", read, idempotent=False, secrets=("canary-git",))
    assert "canary" not in str(_failure(call, response({})))


def test_a_slow_and_hostile_page_does_not_hold_up_the_loop():
    # Whoever looks for the end of each tag is at it for hours.
    _failure(_get(), response(status=500, body=b"<" * 5_000_000))
    _failure(_get(), response(status=500, body=b"<script" * 500_000))


def test_an_unreadable_response_names_what_is_wrong():
    def read(response):
        raise InvalidReplyError(f"data: field 'runId' is missing, and there is {_KEY}")

    error = _failure(_get(read=read), response(status=200))
    assert type(error) is InvalidReplyError
    assert error.status == 200
    assert str(error) == (
        f"Connection 'con' could not get run 4711 (GET {_HOST}/runs/4711): the response is not as documented: data:"
        " field 'runId' is missing, and there is ***. Check that the connection's host is the API's own URL."
    )
    assert "is not JSON (text/html, 6 bytes)" in str(
        _failure(_get(), response(status=200, body=b"<html>", content_type="text/html"))
    )


def test_a_response_without_end():
    error = _failure(_get(), ResponseTooLargeError())
    assert type(error) is InvalidReplyError
    assert "larger than 67,108,864 bytes" in str(error)


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (NetworkError("no connection (refused)", sent=False), "Check the connection's host and port"),
        (NetworkError("no complete response", sent=True), "the extra 'timeout' sets how long one request may take"),
        (NetworkError("TLS failed", sent=False, about="verify"), "Check the connection's extra 'verify'"),
    ],
    ids=["refused", "lost", "certificate"],
)
def test_no_response_says_what_to_check(fault, hint):
    error = _failure(_get(), fault)
    assert type(error) is TransportError
    assert error.transient
    assert error.sent is fault.sent
    assert error.not_executed is not fault.sent
    assert str(error).startswith(f"Connection 'con' could not get run 4711 (GET {_HOST}/runs/4711): {fault}. ")
    assert hint in str(error)


def test_other_errors_are_not_disguised():
    with pytest.raises(FileNotFoundError):
        _exchange(_start(), FileNotFoundError("suites.zip"))


@given(
    st.sampled_from(sorted(_KINDS)), json_values, st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text())
)
def test_any_error_response_becomes_its_type(status, body, headers):
    wire = Script([Response(status, headers, json.dumps(body).encode())])
    error = _failure(_get(), wire=wire)
    assert type(error) is _KINDS[status]
    assert len(str(error)) < 900


# Whether it did anything


@pytest.mark.parametrize("status", [300, 400, 404, 408, 429, 500])
def test_the_call_says_which_responses_prove_that_nothing_was_done(status):
    assert _failure(_start(), response(status=status)).not_executed is (400 <= status < 500 and status != 408)
    assert _failure(
        _start(not_executed=lambda response: response.status == status), response(status=status)
    ).not_executed
    assert not _failure(_start(not_executed=lambda response: False), response(status=status)).not_executed


def test_a_response_that_cannot_be_read_proves_nothing():
    assert not _failure(_start(), response(status=200, body=b"<html>")).not_executed


def test_a_token_that_could_not_be_had_proves_that_nothing_was_done():
    for answer in (
        response(status=401),
        response(status=500),
        response(status=200, body=b"?"),
        NetworkError("lost", sent=True),
    ):
        assert _failure(_start(), answer, session=_token_session()).not_executed


@pytest.mark.parametrize(
    "answer",
    [response(status=200, body=b"?"), response(status=302), ResponseTooLargeError()],
    ids=["odd", "redirect", "long"],
)
def test_whatever_a_token_endpoint_answers_the_message_names_the_connection(answer):
    error = _failure(_get(), answer, session=_token_session())
    assert type(error) is InvalidReplyError
    assert str(error).startswith("Connection 'con': the token endpoint https://api.example.com/token ")


def test_a_start_is_not_sent_when_its_time_is_over():
    session = _token_session()

    def slow(request):
        session.clock.now += 31
        return response(body={"access_token": "tok"})

    wire = Script([slow])
    error = _failure(_start(), session=session, wire=wire)
    assert [request.url for request in wire.requests] == ["https://api.example.com/token"]
    assert type(error) is TransportError
    assert error.not_executed


def test_a_start_is_not_sent_after_the_time_that_it_was_given():
    session = _session()
    now = session.clock()
    error = _failure(_start(deadline=now - 0.1), session=session)
    assert type(error) is TransportError
    assert error.not_executed
    assert _sent(_start(deadline=now + 4.0), session=session).timeout == 4.0
    error = _failure(_start(send_before=now), session=session)
    assert error.not_executed
    # Once it is sent it has its full time: what was cut off would have to be looked for.
    assert _sent(_start(send_before=now + 4.0), session=session).timeout == 30.0


def test_what_a_start_waited_for_is_taken_off_its_time():
    session = _token_session()

    def slow(request):
        session.clock.now += 21
        return response(body={"access_token": "tok"})

    wire = Script([slow, response({})])
    _exchange(_start(), session=session, wire=wire)
    assert wire.requests[1].timeout == 9.0
    wire = Script([slow, response({})])
    session.auth.accepted()
    session.clock.now += 3600
    _exchange(_get(), session=session, wire=wire)
    assert wire.requests[1].timeout == 30.0


# 401


def test_a_token_is_had_before_the_first_call_and_kept():
    session = _token_session()
    wire = Script([response(body={"access_token": "tok-1"}), response(body=1), response(body=2)])
    assert [flow(session, session.exchange(_get()), wire) for _ in range(2)] == [1, 2]
    assert [request.headers.get("Authorization") for request in wire.requests] == [None, "Bearer tok-1", "Bearer tok-1"]


def _working_session(wire):
    session = _token_session()
    flow(session, session.exchange(_get()), wire)
    return session


def test_a_token_that_is_not_accepted_is_renewed_once_and_the_call_sent_again():
    wire = Script(
        [
            response(body={"access_token": "tok-1"}),
            response({}),
            response(status=401),
            response(body={"access_token": "tok-2"}),
            response(body=5),
        ]
    )
    session = _working_session(wire)
    assert flow(session, session.exchange(_start()), wire) == 5
    assert [request.headers.get("Authorization", "-") for request in wire.requests[2:]] == [
        "Bearer tok-1",
        "-",
        "Bearer tok-2",
    ]


def test_a_second_401_is_an_authentication_error():
    wire = Script(
        [
            response(body={"access_token": "tok-1"}),
            response({}),
            response(status=401),
            response(body={"access_token": "tok-2"}),
            response(status=401),
        ]
    )
    session = _working_session(wire)
    error = _failure(_get(), session=session, wire=wire)
    assert type(error) is AuthenticationError
    assert [request.url.rsplit("/", 1)[1] for request in wire.requests] == ["token", "4711", "4711", "token", "4711"]


def test_after_a_renewal_in_vain_a_401_is_not_answered_with_another_at_once():
    wire = Script(
        [
            response(body={"access_token": "tok-1"}),
            response({}),
            response(status=401),
            response(body={"access_token": "tok-2"}),
            response(status=401),
        ]
    )
    session = _working_session(wire)
    _failure(_get(), session=session, wire=wire)
    again = Script([response(status=401)])
    _failure(_get(), session=session, wire=again)
    assert len(again.requests) == 1
    session.clock.now += 2
    again = Script([response(status=401), response(body={"access_token": "tok-3"}), response(body=7)])
    assert _exchange(_get(), session=session, wire=again) == 7


def test_a_key_cannot_be_renewed():
    wire = Script([response(status=401)])
    assert type(_failure(_get(), wire=wire)) is AuthenticationError
    assert len(wire.requests) == 1


# Redirects

_REDIRECTS = (301, 302, 303, 307, 308)


@pytest.mark.parametrize(
    ("status", "location", "url"),
    [
        *((status, "/base/runs/4711/", "https://api.example.com/base/runs/4711/") for status in _REDIRECTS),
        (302, "https://api.example.com:443/x?y=1", "https://api.example.com:443/x?y=1"),
        (302, "HTTPS://API.example.com/x", "HTTPS://API.example.com/x"),
    ],
)
def test_a_get_follows_a_redirect_within_its_origin(status, location, url):
    wire = Script([response(status=status, location=location), response(body=5)])
    assert _exchange(_get(), wire=wire) == 5
    assert wire.requests[1].url.casefold() == url.casefold()
    assert wire.requests[1].headers["X-Api-Key"] == _KEY


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example.net/base/runs/4711",
        "//evil.example.net/x",
        "http://api.example.com/base/runs/4711",
        "https://api.example.com:8443/x",
        "https://api.example.com@evil.example.net/x",
        "https://api.example.com.evil.example.net/x",
        "ftp://api.example.com/x",
        "http://[bad",
        "https://api.example.com:99999/",
    ],
)
def test_credentials_never_leave_their_origin(location):
    wire = Script([response(status=302, location=location)])
    error = _failure(_get(), wire=wire)
    assert type(error) is InvalidReplyError
    assert "where the credentials must not go" in str(error)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("method", "status"), [*(("POST", status) for status in _REDIRECTS), ("PUT", 307), ("DELETE", 307)]
)
def test_only_a_get_follows_a_redirect(method, status):
    wire = Script([response(status=status, location="/base/runs")])
    error = _failure(Call("start", method, "/runs/", no_value, idempotent=False), wire=wire)
    assert type(error) is InvalidReplyError
    assert f"it redirects a {method}, which is not followed" in str(error)
    assert len(wire.requests) == 1
    # 302 and 303 are also said after something was done.
    assert error.not_executed is (status in (301, 307, 308))


@pytest.mark.parametrize("headers", [{"location": "/base/runs/4711"}, {}])
def test_redirects_in_circles_end(headers):
    wire = Script([response(status=302, **headers)] * 4)
    assert "it redirects in a loop" in str(_failure(_get(), wire=wire))


# What is learnt on the way


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Fri, 15 Jan 2027 08:00:40 GMT", 40.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", -60.0),
        ("yesterday", None),
        ("", None),
        ("Fri, 99 Jan 2027 08:00:40 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 GMT", None),
        ("Fri, 15 Jan 2027 08:00:40 +9999", None),
        ("Sat, 15 Jan 2028 08:00:00 GMT", 365 * 86_400.0),
        ("Fri, 14 Jan 2029 08:00:00 GMT", None),
    ],
)
def test_the_platforms_clock_is_read_from_its_responses(date, offset):
    session = _session()
    _exchange(_get(), response({}, date=date), session=session)
    assert session.clock_offset == offset
    _failure(_get(), response(status=500, date="Fri, 15 Jan 2027 08:00:05 GMT"), session=session)
    assert session.clock_offset == 5.0
    _exchange(_get(), response({}), session=session)
    assert session.clock_offset == 5.0


def test_a_tally_counts_requests_and_bytes():
    session, stats = _session(), RequestStats()
    wire = Script(
        [
            response(status=302, body=b"", location="/x"),
            response(status=200, body=b"[1]"),
            response(status=500, body=b"oops"),
        ]
    )
    flow(session, session.exchange(_get(), None, stats), wire)
    with pytest.raises(ServerError):
        flow(session, session.exchange(_get(), None, stats), wire)
    assert (stats.requests, stats.bytes) == (3, 7)


# Carrying steps


def _two(first: Call, second: Call):
    try:
        one = yield from ask(first)
    except NotFoundError:
        one = None
    yield Sleep(2.0)
    two = yield from ask(second)
    return one, two


def test_steps_get_results_and_errors_where_they_ask():
    session = _session()
    wire = Script([response(status=404), response(body=2)])
    assert flow(session, session.execute(_two(_get(), _get())), wire) == (None, 2)
    assert wire.sleeps == [2.0]


def test_errors_that_steps_do_not_catch_are_the_callers():
    session = _session()
    with pytest.raises(ServerError):
        flow(session, session.execute(_two(_get(), _get())), Script([response(status=500)]))


@pytest.mark.parametrize("length", [10, 100_000])
@pytest.mark.parametrize("enabled", [True, False])
def test_long_responses_are_read_without_collecting_garbage(length, enabled):
    during = []

    def read(answer: Response) -> None:
        during.append(gc.isenabled())
        raise InvalidReplyError("no")

    try:
        if not enabled:
            gc.disable()
        with pytest.raises(InvalidReplyError):
            _exchange(_get(read=read), response(body="x" * length))
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert during == [enabled and length < 20_000]


def test_steps_that_are_left_are_closed():
    closed = []

    def steps():
        try:
            yield _get()
        finally:
            closed.append(True)

    session = _session()
    carried = session.execute(steps())
    next(carried)
    carried.close()
    assert closed == [True]


# Patience


class Answers:
    """Carries steps with answers instead of a transport."""

    def __init__(self, *answers):
        self.clock, self.lines = Clock(), Lines()
        self.answers: Iterator = iter(answers)
        self.asked = 0
        self.sleeps: list[float] = []

    def execute(self, steps, seconds=60.0, grace=0.0):
        steps = retrying(steps, seconds, grace=grace, clock=self.clock, log=self.lines.warning)
        value, error = None, None
        try:
            while True:
                step = steps.throw(error) if error else steps.send(value)
                value, error = None, None
                if isinstance(step, Sleep):
                    self.sleeps.append(step.seconds)
                    self.clock.now += step.seconds
                    continue
                self.asked += 1
                value = next(self.answers)
                if isinstance(value, ApiError):
                    value, error = None, value
        except StopIteration as stop:
            return stop.value


_IN_PASSING = [ServerError("busy."), RateLimitedError("slow."), TransportError("lost.")]
_FOR_GOOD = [
    AuthenticationError("x"),
    PermissionDeniedError("x"),
    NotFoundError("x"),
    InvalidRequestError("x"),
    InvalidReplyError("x"),
]


@pytest.mark.parametrize("error", _IN_PASSING, ids=lambda error: type(error).__name__)
def test_what_passes_by_itself_is_asked_again(error):
    world = Answers(error, error, error, "there")
    assert world.execute(ask(_get())) == "there"
    for sleep, base in zip(world.sleeps, (1, 2, 4), strict=True):
        assert base <= sleep <= base * 1.25
    assert world.lines.of("warning")[0] == f"{error} Trying again in {world.sleeps[0]:.0f} s."


@pytest.mark.parametrize("error", _FOR_GOOD, ids=lambda error: type(error).__name__)
def test_what_does_not_pass_by_itself_is_raised_at_once(error):
    world = Answers(error)
    with pytest.raises(type(error)):
        world.execute(ask(_get()))
    assert world.asked == 1


def test_what_looks_passing_and_lasts_is_raised_at_once():
    call = _get(non_retryable_statuses=frozenset({500}))
    world = Answers(ServerError("no view.", status=500))
    with pytest.raises(ServerError):
        world.execute(ask(call))
    assert world.asked == 1
    assert Answers(ServerError("busy.", status=503), "there").execute(ask(call)) == "there"


@pytest.mark.parametrize("error", _IN_PASSING, ids=lambda error: type(error).__name__)
def test_what_changes_something_is_never_sent_again(error):
    world = Answers(error)
    with pytest.raises(type(error)):
        world.execute(ask(_start()))
    assert (world.asked, world.sleeps) == (1, [])


def test_patience_has_an_end():
    world = Answers(*[ServerError("busy.")] * 50)
    with pytest.raises(ServerError):
        world.execute(ask(_get()), 60.0)
    assert world.clock.past <= 60
    assert world.asked == 6  # after 0, 1, 3, 7, 15 and 31 s, and a little


@pytest.mark.parametrize("error", [AuthenticationError("who?"), InvalidReplyError("what?")])
def test_grace_is_for_what_may_pass_though_it_seldom_does(error):
    world = Answers(error, error, "there")
    assert world.execute(ask(_get()), 0.0, grace=10.0) == "there"
    assert [int(sleep) for sleep in world.sleeps] == [1, 2]
    world = Answers(*[error] * 50)
    with pytest.raises(type(error)):
        world.execute(ask(_get()), 1000.0, grace=10.0)
    assert 7 <= world.clock.past <= 10


def test_grace_begins_anew_after_a_success():
    def steps():
        for _ in range(5):
            yield from ask(_get())

    refused = [AuthenticationError("who?")] * 2
    world = Answers(*[answer for _ in range(5) for answer in (*refused, 1)])
    world.execute(steps(), grace=4.0)
    assert world.clock.past > 10


def test_grace_sends_what_changes_something_again_only_when_it_did_nothing():
    refused = AuthenticationError("who?")
    refused.not_executed = True
    assert Answers(refused, "done").execute(ask(_start()), grace=10.0) == "done"
    for error in (AuthenticationError("who?"), InvalidReplyError("what?")):
        world = Answers(error)
        with pytest.raises(type(error)):
            world.execute(ask(_start()), grace=10.0)
        assert world.asked == 1


@pytest.mark.parametrize("error", [PermissionDeniedError("x"), NotFoundError("x"), InvalidRequestError("x")])
def test_grace_is_not_for_what_does_not_pass(error):
    world = Answers(error)
    with pytest.raises(type(error)):
        world.execute(ask(_get()), grace=10.0)
    assert world.asked == 1


def test_no_patience_at_all():
    world = Answers(ServerError("busy."))
    with pytest.raises(ServerError):
        world.execute(ask(_get()), 0.0)
    assert (world.asked, world.sleeps) == (1, [])


def test_retry_after_is_obeyed_or_not_waited_for():
    world = Answers(RateLimitedError("slow.", retry_after=20.0), "there")
    assert world.execute(ask(_get())) == "there"
    assert world.sleeps == [20.0]
    world = Answers(RateLimitedError("slow.", retry_after=61.0))
    with pytest.raises(RateLimitedError):
        world.execute(ask(_get()))
    assert world.sleeps == []


def test_patience_is_for_all_steps_together_and_its_pauses_begin_anew_with_each():
    def steps():
        one = yield from ask(_get())
        yield Sleep(5.0)
        two = yield from ask(_get())
        return one, two

    world = Answers(ServerError("busy."), ServerError("busy."), 1, ServerError("busy."), 2)
    assert world.execute(steps()) == (1, 2)
    assert [int(sleep) for sleep in world.sleeps] == [1, 2, 5, 1]


def test_steps_that_catch_an_error_go_on_after_it():
    def steps():
        try:
            yield from ask(_get())
        except ServerError:
            return (yield from ask(_get()))

    world = Answers(ServerError("busy."), ServerError("busy."), "other")
    assert world.execute(steps(), 2.0) == "other"
    assert world.asked == 3


def test_patient_steps_that_are_left_are_closed():
    closed = []

    def steps():
        try:
            yield _get()
        finally:
            closed.append(True)

    patient = retrying(steps(), 5)
    next(patient)
    patient.close()
    assert closed == [True]


@given(st.integers(0, 10_000))
def test_back_off_doubles_up_to_its_most(failures):
    expected = min(30.0, 2.0 ** min(failures, 10))
    assert expected <= back_off(failures) <= expected * 1.25


def test_back_off_differs_by_chance():
    assert len({back_off(3) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        (" 2.5 ", 2.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("86400", MAX_RETRY_AFTER),
        ("inf", MAX_RETRY_AFTER),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Fri, 15 Jan 2027 08:00:40 GMT", 40.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 2028 08:00:00 GMT", MAX_RETRY_AFTER),
        ("Fri, 45 Jan 2027 08:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
        ("5, 7", None),
    ],
)
def test_retry_after(value, seconds):
    headers: Mapping[str, str] = {} if value is None else {"retry-after": value}
    assert retry_after(headers, BEGIN) == seconds


@given(st.text())
def test_any_retry_after_is_seconds_or_none(value):
    found = retry_after({"retry-after": value}, BEGIN)
    assert found is None or 0 <= found <= MAX_RETRY_AFTER


def test_an_error_carries_its_retry_after():
    assert _failure(_get(), response(status=429, retry_after="7")).retry_after == 7.0
    assert _failure(_get(), response(status=503, retry_after="9")).retry_after == 9.0
    assert _failure(_get(), response(status=503)).retry_after is None
