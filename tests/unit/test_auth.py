"""Tokens: asked for once, renewed while they are still good, and not asked for again and again in vain.

That only one renewal runs at a time is the drivers' business; what the flow does for those who stand in line is here.
"""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidReplyError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.transport.auth import FixedHeaders, OAuthToken
from airflow_provider_testruns.transport.effects import NetworkError, ResponseTooLargeError
from airflow_provider_testruns.transport.policy import Session
from tests.unit.responses import response
from tests.unit.steps import Clock, Script, flow
from tests.unit.strategies import json_values

pytestmark = pytest.mark.unit

_URL = "https://sso.example.com/realms/r/token"
_PASSWORD = {"grant_type": "password", "client_id": "cli", "username": "u", "password": "canary-password"}
_SECRET = {"grant_type": "client_credentials", "client_id": "cli", "client_secret": "canary-secret"}


class World:
    """A session, its token and the wire between them."""

    def __init__(self, *answers, grant=_PASSWORD, can_refresh=False):
        self.clock = Clock()
        self.token = OAuthToken(_URL, grant, timeout=7.0, can_refresh=can_refresh, clock=self.clock)
        self.session = Session("c", "https://api.example.com", self.token, clock=self.clock)
        self.wire = Script(answers)

    def renew(self, stale=None):
        return flow(self.session, self.session.refreshing_token(stale), self.wire)

    def failed(self, stale=None) -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.renew(stale)
        return caught.value

    @property
    def forms(self):
        return [{key: value[0] for key, value in parse_qs(each.body.decode()).items()} for each in self.wire.requests]


def _token(name="tok-1", expires_in=300, **more):
    return response(body={"access_token": name, "expires_in": expires_in, **more})


def test_a_token_is_asked_for_as_the_grant_says():
    world = World(_token())
    assert world.token.headers() is None
    assert world.token.current is None
    world.renew()
    assert world.token.headers() == {"Authorization": "Bearer tok-1"}
    request = world.wire.requests[0]
    assert (request.method, request.url, request.timeout) == ("POST", _URL, 7.0)
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert world.forms == [_PASSWORD]


def test_new_tokens_are_masked():
    world = World(
        _token("canary-access-1-xyz", refresh_token="canary-refresh-1", refresh_expires_in=600), can_refresh=True
    )
    world.renew()
    assert redact("canary-access-1-xyz, canary-refresh-1; canary-password") == "***, ***; ***"


def test_a_word_for_a_token_is_not_masked_everywhere():
    world = World(_token("error"))
    world.renew()
    assert world.token.headers() == {"Authorization": "Bearer error"}
    assert redact("an error") == "an error"
    assert redact("Authorization: Bearer error") == "Authorization: Bearer ***"


@pytest.mark.parametrize("token", ["", "service temporarily unavailable", "tok\n", "t\u00f6k", None, 5, ["tok"]])
def test_what_no_header_can_hold_is_no_token(token):
    error = World(_token(token)).failed()
    assert type(error) is InvalidReplyError
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("expires_in", "good_for"),
    [(300, 270.0), (120, 90.0), (60, 45.0), (20, 15.0), ("300", 270.0), (None, 45.0), (0, 1.0), (-5, 1.0), (1, 1.0)],
)
def test_a_token_is_renewed_while_it_is_still_good(expires_in, good_for):
    world = World(_token(expires_in=expires_in))
    world.renew()
    world.clock.now += good_for - 0.01
    assert world.token.headers() is not None
    world.clock.now += 0.02
    assert world.token.headers() is None
    assert world.token.current == 1


def test_the_life_of_a_token_counts_from_the_asking():
    world = World()

    def slow(request):
        world.clock.now += 20
        return _token(expires_in=60)

    world.wire = Script([slow])
    world.renew()
    world.clock.now += 24.9
    assert world.token.headers() is not None
    world.clock.now += 0.2
    assert world.token.headers() is None


def test_a_token_that_took_longer_than_it_lasts_is_used_all_the_same():
    world = World()

    def slow(request):
        world.clock.now += 90
        return _token(expires_in=60)

    world.wire = Script([slow])
    world.renew()
    assert world.token.headers() == {"Authorization": "Bearer tok-1"}


def test_a_token_that_lasts_for_ever():
    world = World(response(body=b'{"access_token": "tok-1", "expires_in": 1e999}'))
    world.renew()
    world.clock.now += 1e9
    assert world.token.headers() is not None


def test_whoever_asks_for_something_newer_than_what_was_replaced_gets_what_is_there():
    world = World(_token("tok-1"), _token("tok-2"))
    world.renew(None)
    world.renew(None)
    assert len(world.wire.requests) == 1
    world.renew(1)
    assert world.token.current == 2
    world.renew(1)
    assert len(world.wire.requests) == 2


def test_the_same_token_again_counts_as_newer():
    world = World(_token("tok-1"), _token("tok-1"))
    for number in (None, 1, 1, 1):
        world.renew(number)
    assert len(world.wire.requests) == 2
    assert world.token.current == 2


def test_a_refresh_token_takes_the_place_of_the_grant():
    world = World(
        _token("tok-1", refresh_token="ref-1", refresh_expires_in=1800),
        _token("tok-2", refresh_token="ref-2", refresh_expires_in=1800),
        _token("tok-3"),
        can_refresh=True,
    )
    for number in (None, 1, 2):
        world.renew(number)
    assert world.forms == [
        _PASSWORD,
        {"grant_type": "refresh_token", "refresh_token": "ref-1", "client_id": "cli"},
        {"grant_type": "refresh_token", "refresh_token": "ref-2", "client_id": "cli"},
    ]
    assert world.token.current == 3


def test_a_refresh_token_is_used_once():
    world = World(
        _token("tok-1", refresh_token="ref-1", refresh_expires_in=1800), _token("tok-2"), _token("tok-3"),
        can_refresh=True,
    )  # fmt: skip
    for number in (None, 1, 2):
        world.renew(number)
    assert [form["grant_type"] for form in world.forms] == ["password", "refresh_token", "password"]


@pytest.mark.parametrize("status", [400, 401])
def test_a_refused_refresh_token_falls_back_on_the_grant(status):
    world = World(
        _token("tok-1", refresh_token="ref-1", refresh_expires_in=1800),
        response(status=status, body={"error": "invalid_grant"}),
        _token("tok-2"),
        can_refresh=True,
    )
    world.renew()
    world.renew(1)
    assert [form["grant_type"] for form in world.forms] == ["password", "refresh_token", "password"]
    assert world.token.current == 2


def test_a_platform_in_trouble_is_no_refused_refresh_token():
    world = World(
        _token("tok-1", refresh_token="ref-1", refresh_expires_in=1800),
        response(status=503),
        _token("tok-2"),
        can_refresh=True,
    )
    world.renew()
    world.token.accepted()
    assert isinstance(world.failed(1), ServerError)
    world.clock.now += 1.0
    world.renew(1)
    assert [form["grant_type"] for form in world.forms] == ["password", "refresh_token", "password"]


@pytest.mark.parametrize(("lasts", "refreshed"), [(1800, True), (None, False), (0, False), (4, False), ("60", True)])
def test_an_expired_refresh_token_is_not_tried(lasts, refreshed):
    world = World(_token("tok-1", refresh_token="ref-1", refresh_expires_in=lasts), _token("tok-2"), can_refresh=True)
    world.renew()
    world.renew(1)
    assert (world.forms[1]["grant_type"] == "refresh_token") is refreshed


def test_a_refresh_token_is_dropped_where_it_saves_nothing():
    world = World(_token("tok-1", refresh_token="ref-1", refresh_expires_in=1800), _token("tok-2"), grant=_SECRET)
    world.renew()
    world.renew(1)
    assert world.forms == [_SECRET, _SECRET]
    assert "ref-1" not in list(world.token.secrets())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"[]",
        b"{}",
        b'{"access_token": null}',
        b'{"access_token": ""}',
        b'{"access_token": 5}',
        b'{"access_token": "a\\nb"}',
        b'{"access_token": "t\xc3\xb6k"}',
        b'{"access_token": "t", "expires_in": "soon"}',
        b'{"access_token": "t", "expires_in": [1]}',
        b'{"access_token": "t", "expires_in": true}',
        b'{"access_token": "t", "refresh_token": "r", "refresh_expires_in": "soon"}',
        b'{"access_token": "t", "refresh_token": "r", "refresh_expires_in": {}}',
        b'{"access_token": "t", "expires_in": 1' + b"0" * 400 + b"}",
    ],
    ids=lambda body: body[:60].decode(errors="replace"),
)
def test_what_is_no_token_is_an_invalid_response(body):
    world = World(response(body=body), can_refresh=True)
    error = world.failed()
    assert isinstance(error, InvalidReplyError)
    assert _URL in str(error)
    assert "auth_url" in str(error)
    assert world.token.headers() is None


@given(
    st.dictionaries(st.sampled_from(["access_token", "expires_in", "refresh_token", "refresh_expires_in"]), json_values)
)
def test_any_response_of_a_token_endpoint_is_a_token_or_an_api_error(body):
    world = World(response(body=body), can_refresh=True)
    try:
        world.renew()
    except ApiError:
        assert world.token.headers() is None
    else:
        assert world.token.headers()["Authorization"].isprintable()


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (
            response(status=400, body={"error": "invalid_grant", "error_description": "Bad user"}),
            AuthenticationError,
            "Bad user",
        ),
        (response(status=401, body={"error": "unauthorized_client"}), AuthenticationError, "unauthorized_client"),
        (response(status=404, body=b"no such realm"), AuthenticationError, "realm"),
        (
            response(status=302, location="https://evil.example.net/login"),
            InvalidReplyError,
            "https://evil.example.net:443",
        ),
        (response(status=302, location="http://[bad"), InvalidReplyError, "auth_url"),
        (response(status=500), ServerError, "HTTP 500"),
        (NetworkError("no connection (refused)", sent=False), TransportError, "host and port"),
        (ResponseTooLargeError(), InvalidReplyError, "more than 256 KB"),
    ],
    ids=["400", "401", "404", "redirect", "bad-redirect", "500", "refused", "too-large"],
)
def test_a_token_endpoint_that_gives_none(answer, kind, says):
    world = World(answer)
    error = world.failed()
    assert type(error) is kind
    assert says in str(error)
    assert "Connection 'c'" in str(error) or "token endpoint" in str(error)
    assert "canary-password" not in str(error)
    assert len(world.wire.requests) == 1


def test_an_endpoint_that_repeats_the_password_is_not_quoted():
    world = World(response(status=400, body={"error_description": "user u with canary-password is locked"}))
    assert "canary" not in str(world.failed())


def test_those_in_line_behind_a_failed_renewal_share_its_failure():
    world = World()

    def hangs(request):
        world.clock.now += 30
        return NetworkError("no complete response within the time allowed", sent=True)

    world.wire = Script([hangs, _token()])
    first = world.failed()
    others = [world.failed() for _ in range(50)]
    assert len(world.wire.requests) == 1
    assert world.clock.past == 30
    assert {(type(error), str(error)) for error in others} == {(TransportError, str(first))}
    assert len({id(error) for error in others}) == 50
    world.clock.now += 1.0
    world.renew()
    assert world.token.current == 1


def test_a_shared_failure_says_all_that_the_first_said():
    world = World(response(status=429, body={}, retry_after="7"))
    world.failed()
    error = world.failed()
    assert (error.status, error.retry_after, error.transient) == (429, 7.0, True)


def test_a_token_endpoint_in_trouble_is_asked_less_and_less_often_but_its_end_is_noticed_soon():
    world = World(*[response(status=503)] * 100)
    asked = []
    for _ in range(600):
        before = len(world.wire.requests)
        world.failed()
        if len(world.wire.requests) > before:
            asked.append(world.clock.past)
        world.clock.now += 0.1
    gaps = [later - sooner for sooner, later in pairwise(asked)]
    assert gaps[:4] == pytest.approx([1, 2, 4, 5], abs=0.11)
    assert max(gaps) <= 5.11


def test_tokens_that_are_not_accepted_are_renewed_less_and_less_often():
    world = World(*[_token(f"tok-{at}") for at in range(100)])
    world.renew()
    renewed = []
    for _ in range(1500):
        if world.token.may_renew():
            world.renew(world.token.current)
            renewed.append(world.clock.past)
        world.clock.now += 0.1
    gaps = [later - sooner for sooner, later in pairwise(renewed)]
    assert gaps[:5] == pytest.approx([2, 4, 8, 16, 30], abs=0.11)
    assert max(gaps) <= 30.11


def test_an_accepted_token_ends_the_back_off():
    world = World(_token("tok-1"), _token("tok-2"))
    world.renew()
    assert not world.token.may_renew()
    world.token.accepted()
    assert world.token.may_renew()


def test_secrets_are_all_that_must_not_be_seen():
    world = World(_token("tok-1", refresh_token="ref-1", refresh_expires_in=60), can_refresh=True)
    assert list(world.token.secrets()) == ["canary-password"]
    world.renew()
    assert set(world.token.secrets()) == {"canary-password", "tok-1", "ref-1"}
    assert list(OAuthToken(_URL, _SECRET).secrets()) == ["canary-secret"]


def test_nothing_secret_is_in_a_repr():
    world = World(_token("canary-token", refresh_token="canary-ref", refresh_expires_in=60), can_refresh=True)
    world.renew()
    fixed = FixedHeaders({"X-Api-Key": "canary-key"}, ("canary-key",))
    assert "canary" not in repr(world.token) + repr(fixed)


def test_fixed_headers_never_change():
    fixed = FixedHeaders({"X-Api-Key": "k"}, ("k",))
    assert fixed.headers() == {"X-Api-Key": "k"}
    assert fixed.current is not None
    assert not fixed.may_renew()
    assert list(fixed.secrets()) == ["k"]
    fixed.accepted()
    assert list(fixed.renew(lambda request, fields: iter(()))) == []
