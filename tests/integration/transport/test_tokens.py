"""Tokens over real sockets: asked for once, renewed in time, and never by two at once."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import parse_qs

import pytest

from airflow_provider_testruns.exceptions import ApiError, AuthenticationError, ServerError
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.steps import ask
from airflow_provider_testruns.transport.auth import OAuthToken
from airflow_provider_testruns.transport.nonblocking import MAX_CONNECTIONS, AsyncClient
from tests.integration.transport.wires import (
    API,
    SMOKE,
    RawServer,
    answering,
    get,
    password_grant,
    session,
    to_sandbox,
    within,
)

pytestmark = pytest.mark.integration

_TOKEN = "omilia.token"


class _Clock:
    """Monotonic seconds that a test can move on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_one_token_serves_many_calls(sandbox, drive):
    client = drive(to_sandbox(sandbox, password_grant(sandbox)))
    for _ in range(5):
        client.ask(API.list_projects())
    client.ask(API.create_run(SMOKE))
    assert sandbox.control.count(_TOKEN) == 1
    assert sandbox.control.violations() == []


def test_a_token_is_renewed_before_it_expires(sandbox, drive):
    clock = _Clock()
    sandbox.control.set_token_lifetime(300, "omilia", refresh_seconds=1800)
    client = drive(to_sandbox(sandbox, password_grant(sandbox, clock=clock)))
    client.ask(API.list_projects())
    clock.ahead = 265.0
    client.ask(API.list_projects())
    assert sandbox.control.count(_TOKEN) == 1
    clock.ahead = 271.0
    client.ask(API.list_projects())
    assert sandbox.control.count(_TOKEN) == 2
    assert {seen.status for seen in sandbox.control.requests()} == {200}


def test_a_token_that_is_not_accepted_any_more_is_renewed_once(sandbox, drive):
    client = drive(to_sandbox(sandbox, password_grant(sandbox)))
    client.ask(API.list_projects())
    sandbox.control.expire_tokens()
    run = client.ask(API.create_run(SMOKE))
    assert [seen.status for seen in sandbox.control.requests("omilia.create_run")] == [401, 200]
    assert [found["run_id"] for found in sandbox.control.runs("omilia")] == [run.run_id]
    # The refresh token was not good any more either: the second request was in vain, the third was not.
    assert [seen.status for seen in sandbox.control.requests(_TOKEN)] == [200, 400, 200]


def test_a_401_that_lasts_does_not_flood_the_token_endpoint(sandbox, drive):
    client = drive(to_sandbox(sandbox, password_grant(sandbox)))
    client.ask(API.list_projects())
    sandbox.control.fault("status", operation="omilia.list_projects", status=401)
    with within(3):
        for _ in range(20):
            with pytest.raises(AuthenticationError, match="Check login and password"):
                client.ask(API.list_projects())
    assert sandbox.control.count(_TOKEN) <= 3
    sandbox.control.clear_faults()
    assert client.ask(API.list_projects())


def test_the_refresh_token_spares_the_password(drive):
    forms = []

    def tokens(seen):
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        forms.append(form)
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != f"canary-refresh-token-{len(forms) - 1}":
            return 400, b'{"error": "invalid_grant"}'
        return 200, (
            b'{"access_token": "canary-access-token-%d", "expires_in": 60,'
            b' "refresh_token": "canary-refresh-token-%d", "refresh_expires_in": 1800}' % (len(forms), len(forms))
        )

    clock = _Clock()
    grant = {"grant_type": "password", "client_id": "ocp", "username": "me", "password": "canary-password"}
    with RawServer(answering(tokens)) as idp, RawServer(answering(lambda seen: (200, b"{}"))) as api:
        auth = OAuthToken(f"{idp.url}/token", grant, can_refresh=True, clock=clock)
        client = drive(session(api.url, auth))
        for _ in range(3):
            client.ask(get())
            clock.ahead += 50
        clock.ahead += 1800  # now the refresh token is over, too
        client.ask(get())
        sent = [seen.headers["authorization"] for seen in api.seen]
    assert sent == [f"Bearer canary-access-token-{number}" for number in (1, 2, 3, 4)]
    assert [form["grant_type"] for form in forms] == ["password", "refresh_token", "refresh_token", "password"]
    assert forms[1] == {"grant_type": "refresh_token", "client_id": "ocp", "refresh_token": "canary-refresh-token-1"}
    assert forms[2]["refresh_token"] == "canary-refresh-token-2"
    # The current ones and those before.
    for kind in ("access", "refresh"):
        assert redact(f"canary-{kind}-token-4 canary-{kind}-token-3") == "*** ***"


def test_a_refused_password_names_the_fields(sandbox, drive):
    auth = password_grant(sandbox)
    auth.grant = {**auth.grant, "password": "canary-wrong-password"}
    client = drive(to_sandbox(sandbox, auth))
    with pytest.raises(AuthenticationError, match=r"Invalid user credentials.*Check login and password") as caught:
        client.ask(API.create_run(SMOKE))
    assert caught.value.not_executed
    assert "canary-wrong-password" not in str(caught.value)
    assert sandbox.control.count("omilia.create_run") == 0


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "drop"}, {"kind": "hang", "seconds": 9}])
def test_trouble_at_the_token_endpoint_is_no_refusal(sandbox, drive, fault):
    sandbox.control.fault(operation=_TOKEN, **fault)
    client = drive(to_sandbox(sandbox, password_grant(sandbox, timeout=0.4)))
    with within(2), pytest.raises(ApiError) as caught:
        client.ask(API.create_run(SMOKE))
    assert caught.value.transient
    assert caught.value.not_executed  # the start was not sent
    assert sandbox.control.count("omilia.create_run") == 0


# Many at once


def _together(sandbox, count: int, auth: OAuthToken, **options) -> list[object]:
    async def main() -> list[object]:
        async with AsyncClient(to_sandbox(sandbox, auth, **options)) as client:
            looks = (client.run(ask(API.list_projects())) for _ in range(count))
            return await asyncio.gather(*looks, return_exceptions=True)

    return asyncio.run(main())


def test_many_flows_share_one_token_and_few_connections(sandbox):
    sandbox.control.configure(latency=0.01)
    found = _together(sandbox, 200, password_grant(sandbox))
    assert all(isinstance(projects, list) for projects in found)
    assert sandbox.control.count(_TOKEN) == 1
    stats = sandbox.control.stats()["connections"]
    assert stats["opened"] <= MAX_CONNECTIONS
    assert sandbox.control.violations() == []


def test_many_flows_renew_a_lost_token_once(sandbox):
    async def main() -> None:
        async with AsyncClient(to_sandbox(sandbox, password_grant(sandbox, can_refresh=False))) as client:
            await client.run(ask(API.list_projects()))
            sandbox.control.expire_tokens()
            await asyncio.gather(*(client.run(ask(API.list_projects())) for _ in range(200)))

    asyncio.run(main())
    assert sandbox.control.count(_TOKEN) == 2
    # Whoever was on the way or in line with the lost token has asked a second time, nobody a third.
    assert sandbox.control.count("omilia.list_projects") <= 1 + 2 * 200


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "hang", "seconds": 9}])
def test_many_flows_share_the_failure_of_a_renewal(sandbox, fault):
    sandbox.control.fault(operation=_TOKEN, **fault)
    with within(3):
        found = _together(sandbox, 200, password_grant(sandbox, timeout=0.5))
    assert all(isinstance(error, ApiError) and error.transient for error in found)
    assert all(isinstance(error, ServerError) for error in found) == (fault["kind"] == "status")
    assert sandbox.control.count(_TOKEN) <= 2


def test_a_wait_for_a_free_connection_does_not_count(sandbox):
    """100 calls of 0.3 s over 8 connections take 3.8 s; each of them has 3 s, ten times what it takes."""
    sandbox.control.configure(latency=0.3)
    found = _together(sandbox, 100, password_grant(sandbox), timeout=3.0)
    assert [error for error in found if isinstance(error, Exception)] == []
