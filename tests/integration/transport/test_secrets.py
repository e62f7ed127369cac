"""What a curious reader could find: errors and their chains, representations, what the libraries log and print."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import datetime
from urllib.parse import quote

import pytest

from airflow_provider_testruns.emission import get_logger, tidy
from airflow_provider_testruns.exceptions import ApiError, InvalidReplyError, TransportError
from airflow_provider_testruns.hooks.eggplant import EggplantHook
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.steps import Call, Response, ask
from airflow_provider_testruns.transport.auth import OAuthToken
from airflow_provider_testruns.transport.effects import Request
from tests.integration.transport.wires import RawServer, answering, fixed, get, post, session

pytestmark = pytest.mark.integration

PASSWORD = "canary/p&ssw0rd<of>the\"connection'"
TOKEN = "canary-token-0123456789abcdef"
PROXY_PASSWORD = "canary-of-the:proxy"
_GRANT = {"grant_type": "password", "client_id": "ocp", "username": "me", "password": PASSWORD}


def _whole(error: BaseException) -> str:
    """All that anybody could see of an error: its chain and everything in it, printed or not."""
    seen: list[str] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None:
            continue
        seen += [repr(one), str(one), repr(vars(one)), *map(repr, one.args)]
        left += [one.__cause__, one.__context__]
    return "\n".join(seen) + "".join(traceback.format_exception(error))


def _reasons() -> Iterator[object]:
    def refusing(line):
        line.read()
        line.response(407, b"{}", {"Proxy-Authenticate": "Basic"})

    def broken(line):
        line.read()
        line.response(502, f"no way to http://me:{quote(PROXY_PASSWORD)}@upstream:3128".encode())

    def silent(line):
        line.read()

    yield pytest.param(refusing, id="407")
    yield pytest.param(broken, id="502")
    yield pytest.param(silent, id="lost")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("talk", list(_reasons()))
def test_the_password_of_a_proxy_is_nowhere_in_an_error(drive, monkeypatch, scheme, talk):
    with RawServer(talk) as proxy:
        url = f"http://me:{quote(PROXY_PASSWORD)}@127.0.0.1:{proxy.port}"
        monkeypatch.setenv(f"{scheme}_proxy", url)
        client = drive(session(f"{scheme}://platform.invalid", fixed(TOKEN)))
        with pytest.raises(ApiError) as caught:
            client.ask(post())
        shown = _whole(caught.value)
        # Whoever else quotes it in what we write.
        said = redact(f"{url} {PROXY_PASSWORD} {quote(PROXY_PASSWORD)}")
    assert "canary" not in shown
    assert "canary" not in said
    assert "127.0.0.1" in said


def test_no_library_error_is_in_the_chain_of_ours(drive):
    """They hold the request with its headers, which some tools show."""

    def lost(line):
        line.read_head()

    with RawServer(lost) as server:
        client = drive(session(server.url, fixed(TOKEN)))
        with pytest.raises(TransportError) as caught:
            client.ask(get())
    one: BaseException | None = caught.value
    chain = []
    while one is not None:
        chain.append(type(one).__module__)
        one = one.__cause__ or one.__context__
    assert len(chain) == 2
    assert all(module.startswith("airflow_provider_testruns") for module in chain)


def test_what_a_response_quotes_is_masked_in_the_chain_too(drive):
    """The standard library's errors quote what they could not read."""
    body = json.dumps({"startedAt": f"{TOKEN}\x1b[31m" + "x" * 50_000}).encode()

    def read(response):
        try:
            return datetime.fromisoformat(response.json()["startedAt"])
        except ValueError as e:
            raise InvalidReplyError("startedAt is not a time") from e

    with RawServer(answering(lambda seen: (200, body))) as server:
        client = drive(session(server.url, fixed(TOKEN)))
        with pytest.raises(ApiError) as caught:
            client.ask(Call("look", "GET", "/", read))
    tidied = tidy(caught.value)
    assert tidied is caught.value
    shown = _whole(tidied)
    assert "canary" not in shown
    assert len(shown) < 40_000


def test_what_a_token_endpoint_echoes_is_masked_in_every_form(drive):
    """Its error quotes the form that it was sent, the password in it, as HTML, as JSON, and once more in a URL."""

    def refuse(seen):
        form = seen.body.decode()
        return 400, json.dumps({"error_description": f"bad: {form}; {PASSWORD}; /?r={quote(form)}"}).encode()

    with RawServer(answering(refuse)) as server:
        client = drive(session(server.url, OAuthToken(f"{server.url}/token", _GRANT)))
        with pytest.raises(ApiError, match=r"bad: grant_type=password.*\*\*\*") as caught:
            client.ask(get())
    shown = _whole(caught.value)
    assert "canary" not in shown
    assert "ssw0rd" not in shown


def test_what_a_platform_echoes_is_masked_before_it_is_cut(drive):
    def answer(seen):
        if seen.path == "/token":
            return 200, json.dumps({"access_token": TOKEN, "expires_in": 60}).encode()
        headers = "".join(f"<li>{name}: {value}</li>" for name, value in seen.headers.items())
        return 500, f"<html>{'.' * 3985}{headers}{'x' * 470}{TOKEN}</html>".encode(), {"Content-Type": "text/html"}

    with RawServer(answering(answer)) as server:
        client = drive(session(server.url, OAuthToken(f"{server.url}/token", _GRANT)))
        with pytest.raises(ApiError) as caught:
            client.ask(get())
    assert "canary" not in _whole(caught.value)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """All that the libraries can be made to log and print."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "aiohttp", "asyncio", "http.client"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    return caplog


@pytest.mark.parametrize("status", [200, 401, 500])
def test_no_library_logs_or_prints_a_header(drive, everything_logged, status):
    def answer(seen):
        if seen.path == "/token":
            return 200, json.dumps({"access_token": TOKEN, "expires_in": 60, "refresh_token": TOKEN}).encode()
        return status, b"{}", {"Set-Cookie": "session=canary-cookie"}

    printed = io.StringIO()
    with RawServer(answering(answer)) as server, redirect_stdout(printed):
        client = drive(session(server.url, OAuthToken(f"{server.url}/token", _GRANT)))
        for call in (get(), post()):
            try:
                client.ask(call)
            except ApiError as e:
                get_logger("airflow_provider_testruns.tests").exception("It failed: %s", e)
        assert f"Bearer {TOKEN}" in [seen.headers.get("authorization") for seen in server.seen]
        client.close()
    shown = printed.getvalue() + everything_logged.text
    assert "canary" not in shown
    assert "ssw0rd" not in shown


def test_renewals_leave_airflows_masker_alone(monkeypatch):
    """It is compiled again for each secret, in the event loop of all triggers, and never forgets one."""
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    asked = []

    def answer(seen):
        if not seen.path.endswith("/token"):
            return 401, b"{}"
        asked.append(seen)
        return 200, json.dumps({"access_token": f"{TOKEN}-{len(asked):06}", "expires_in": 1}).encode()

    def patterns() -> set[str]:
        return set(_secrets_masker().patterns)

    async def renew_in_the_triggerer() -> None:
        platform, client = await EggplantHook.open_async("canary_eggplant")
        assert patterns() == before
        async with client:
            for _ in range(30):
                with pytest.raises(ApiError):
                    await client.run(platform.get_run_progress("r"))
                client.session.auth._stale_at = 0.0

    with RawServer(answering(answer)) as server:
        conn = {"conn_type": "eggplant", "host": server.url, "login": "me", "password": PASSWORD}
        monkeypatch.setenv("AIRFLOW_CONN_CANARY_EGGPLANT", json.dumps(conn))
        hook = EggplantHook("canary_eggplant")
        client = hook.client
        before = patterns()
        assert any("ssw0rd" in pattern for pattern in before)
        compiled = _secrets_masker().replacer
        with client:
            for _ in range(30):
                with pytest.raises(ApiError):
                    client.run(hook.platform.get_run_progress("r"))
                client.session.auth._stale_at = 0.0
        asyncio.run(renew_in_the_triggerer())
    assert len(asked) >= 60
    assert patterns() == before
    assert _secrets_masker().replacer is compiled
    assert redact(f"{TOKEN}-{len(asked):06} and {TOKEN}-{len(asked) - 1:06}, {PASSWORD}") == "*** and ***, ***"


def test_representations_show_no_secret():
    """They are in assertion errors, in debuggers, and in what tools for errors collect."""
    auth = OAuthToken("https://sso.example.com/token", _GRANT)
    auth.known.renewed("access", TOKEN)
    request = Request("POST", "https://x.example.com", {"Authorization": f"Bearer {TOKEN}"}, 5.0, PASSWORD.encode())
    project = OmiliaPlatform().create_project("p", "g", "https://git.example.com/x", TOKEN, "gitlab")
    call: Call[object] = Call("x", "GET", "/", Response.json, headers={"X": TOKEN}, form={"p": PASSWORD}, json=[TOKEN])
    things = [
        auth,
        session("https://x.example.com", auth),
        fixed(TOKEN),
        fixed(TOKEN).known,
        request,
        request.with_headers({"Authorization": f"Basic {TOKEN}"}),
        project,
        project.with_reader(Response.json),
        call,
        Response(200, {"set-cookie": TOKEN}, TOKEN.encode()),
        ask(call),
    ]
    for thing in things:
        assert "canary" not in repr(thing)
        assert "canary" not in str(thing)
