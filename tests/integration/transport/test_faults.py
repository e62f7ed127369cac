"""What goes wrong on the wire, and what it becomes: the same for a worker (requests) and the triggerer (aiohttp)."""

from __future__ import annotations

import gzip
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidReplyError,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.sandbox import omilia
from airflow_provider_testruns.transport.auth import OAuthToken
from tests.harness.waiting import wait_until
from tests.integration.transport.wires import (
    API,
    BEARER,
    SMOKE,
    RawServer,
    answering,
    dripping,
    get,
    password_grant,
    post,
    session,
    to_sandbox,
    within,
)

pytestmark = pytest.mark.integration

#: All of them: ``test_policy.py``.
_STATUSES = [
    (403, PermissionDeniedError),
    (408, ServerError),
    (422, InvalidRequestError),
    (429, RateLimitedError),
    (500, ServerError),
]


@pytest.mark.parametrize(("status", "kind"), _STATUSES)
def test_each_status_has_its_error(sandbox, drive, status, kind):
    sandbox.control.fault("status", operation="omilia.*", status=status, body={"detail": "no, thank you"})
    client = drive(to_sandbox(sandbox))
    with pytest.raises(ApiError) as caught:
        client.ask(API.create_run(SMOKE))
    error = caught.value
    assert type(error) is kind
    assert error.status == status
    assert error.transient == (status in (408, 429) or status >= 500)
    # Only what the platform itself refused is known to have done nothing.
    assert error.not_executed == (status < 500 and status != 408)
    message = str(error)
    assert "'omilia_default'" in message
    assert "start a run of project" in message
    assert f"HTTP {status}: no, thank you." in message
    assert sandbox.control.count("omilia.create_run") == 1


def test_a_token_that_is_never_accepted(sandbox, drive):
    sandbox.control.fault("status", operation="omilia.create_run", status=401)
    client = drive(to_sandbox(sandbox))
    with pytest.raises(AuthenticationError, match="Check login and password of the connection") as caught:
        client.ask(API.create_run(SMOKE))
    assert caught.value.not_executed
    assert sandbox.control.count("omilia.create_run") == 1


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("86400", 300, 300),
        ("soon", None, None),
    ],
)
def test_retry_after_is_read_and_capped(sandbox, drive, value, low, high):
    sandbox.control.fault("status", operation="omilia.list_projects", status=429, headers={"Retry-After": value})
    with pytest.raises(RateLimitedError) as caught:
        drive(to_sandbox(sandbox)).ask(API.list_projects())
    asked = caught.value.retry_after
    assert asked is None if low is None else low <= asked <= high


def test_retry_after_as_a_date_is_counted_from_now(sandbox, drive):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    sandbox.control.fault("status", operation="omilia.list_projects", status=503, headers={"Retry-After": when})
    with pytest.raises(ServerError) as caught:
        drive(to_sandbox(sandbox)).ask(API.list_projects())
    assert 50 < caught.value.retry_after <= 60


_LOST = {
    "drop": {"kind": "drop"},
    "hang": {"kind": "hang", "seconds": 20},
    "late": {"kind": "latency", "seconds": 0.6},
    "truncate": {"kind": "truncate"},
}
_BAD = {
    "500": {"kind": "status", "status": 500},
    "a page": {"kind": "wrong_json", "body": "<html>Welcome</html>"},
    "other JSON": {"kind": "wrong_json", "body": [1, 2]},
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [*_LOST, *_BAD])
def test_a_start_is_sent_once_whatever_becomes_of_its_response(sandbox, drive, fault, when):
    sandbox.control.fault(operation="omilia.create_run", when=when, **{**_LOST, **_BAD}[fault])
    made = to_sandbox(sandbox)
    client = drive(made)
    client.ask(API.list_projects())  # so that there is a kept connection, over which it must not go
    made.timeout = 0.25
    opened = sandbox.control.stats()["connections"]["opened"]
    with within(3), pytest.raises(ApiError) as caught:
        client.ask(API.create_run(SMOKE))
    assert not caught.value.not_executed
    if fault in _LOST:
        assert type(caught.value) is TransportError
        assert caught.value.sent
    wait_until(lambda: sandbox.control.count("omilia.create_run") > 0)  # one that is late comes to its end, too
    time.sleep(0.05)
    stats = sandbox.control.stats()
    assert stats["operations"]["omilia.create_run"] == 1
    assert stats["runs_created"]["omilia"] == (when == "after" or fault == "late")
    assert stats["connections"]["opened"] == opened + 1


def test_a_response_within_the_time_is_waited_for(sandbox, drive):
    sandbox.control.fault("latency", operation="omilia.create_run", seconds=0.5)
    run = drive(to_sandbox(sandbox, timeout=60)).ask(API.create_run(SMOKE))
    assert sandbox.control.run(run.run_id)["target_id"] == SMOKE


def test_a_response_that_is_not_json_says_so(sandbox, drive):
    sandbox.control.fault("wrong_json", operation="omilia.list_projects", body="<html>Sign in</html>")
    with pytest.raises(InvalidReplyError, match=r"not JSON \(application/json, 20 bytes\)") as caught:
        drive(to_sandbox(sandbox)).ask(API.list_projects())
    assert not caught.value.transient


@pytest.mark.parametrize("kind", ["drop", "truncate", "status"])
def test_the_next_call_after_a_fault_goes_well(sandbox, drive, kind):
    client = drive(to_sandbox(sandbox))
    client.ask(API.list_projects())
    # aiohttp sends a GET once more by itself when a connection is lost, so it must be lost twice.
    status = 500 if kind == "status" else None
    sandbox.control.fault(kind, operation="omilia.list_projects", status=status, times=2)
    with pytest.raises(ApiError) as caught:
        client.ask(API.list_projects())
    assert caught.value.transient
    sandbox.control.clear_faults()
    assert client.ask(API.list_projects())


# Responses of any length


def test_a_response_that_announces_its_size_is_cut_off(drive):
    def talk(line):
        while line.read() is not None:
            line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
            while True:
                line.send(b"x" * 1_000_000)

    with RawServer(talk) as server, within(10), pytest.raises(InvalidReplyError, match="larger than"):
        drive(session(server.url, timeout=9)).ask(get())


def test_a_packed_response_is_read(drive):
    body = gzip.compress(b'{"a": 1}')
    with RawServer(answering(lambda seen: (200, body, {"Content-Encoding": "gzip"}))) as server:
        assert drive(session(server.url)).ask(get()) == {"a": 1}


# Time


_DRIPS = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nX-More: ", b"1"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"1"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "until it closes": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"1"),
    "interim responses": (b"HTTP/1.1 ", b"100 Continue\r\n\r\nHTTP/1.1 "),
}


@pytest.mark.parametrize(
    ("drip", "call"),
    [*((drip, post()) for drip in _DRIPS), ("body", get())],
    ids=[*_DRIPS, "body of a get"],
)
def test_a_response_that_drips_ends_with_its_time(drive, drip, call):
    with RawServer(dripping(*_DRIPS[drip])) as server:
        client = drive(session(server.url, timeout=1))
        with within(2), pytest.raises(TransportError, match="no complete response within the time allowed") as caught:
            client.ask(call)
        assert caught.value.sent
        wait_until(lambda: server.seen, "the server has read the request")
        assert len(server.seen) == 1


def test_a_deadline_cuts_the_time_of_any_call(drive):
    with RawServer(dripping(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n")) as server:
        client = drive(session(server.url, timeout=30))
        with within(2), pytest.raises(TransportError):
            client.ask(post(), until=time.time() + 1)


def test_a_start_is_not_sent_when_its_time_has_passed_before(drive):
    """The time of a start is that of the whole exchange, the token's included."""
    api = answering(lambda seen: (200, b"{}"))
    idp = answering(lambda seen: (time.sleep(0.7), (200, b'{"access_token": "canary-token-1"}'))[1])
    with RawServer(api) as server, RawServer(idp) as tokens:
        auth = OAuthToken(f"{tokens.url}/token", {"grant_type": "client_credentials"}, timeout=5)
        client = drive(session(server.url, auth, timeout=0.5))
        with pytest.raises(TransportError, match="deadline passed before it was sent") as caught:
            client.ask(post())
        assert not caught.value.sent
        assert caught.value.not_executed
        assert server.seen == []


def test_a_server_that_never_takes_the_connection_up(drive):
    """Its queue is full, so the kernel answers nothing: it can't have been sent."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
            waiting.append(sock)
        client = drive(session(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=1))
        with within(2), pytest.raises(TransportError, match="no connection within the time") as caught:
            client.ask(post())
        for sock in waiting:
            sock.close()
    assert not caught.value.sent
    assert caught.value.not_executed


# Nobody there


def test_a_refused_connection_proves_that_nothing_was_sent(drive):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        client = drive(session(f"http://127.0.0.1:{sock.getsockname()[1]}"))
        with pytest.raises(TransportError, match=r"Connection refused.*Check the connection's host and port") as caught:
            client.ask(post())
    assert not caught.value.sent
    assert caught.value.not_executed
    assert caught.value.transient


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..invalid"])
def test_a_name_that_does_not_resolve_proves_that_nothing_was_sent(drive, host):
    client = drive(session(f"http://{host}", timeout=20))
    with pytest.raises(TransportError, match=r"no connection|URL is not usable") as caught:
        client.ask(post())
    assert not caught.value.sent
    assert caught.value.not_executed


def test_a_connection_that_is_reset_at_once_may_have_taken_the_start(drive):
    with RawServer(lambda line: None) as server:
        with pytest.raises(TransportError) as caught:
            drive(session(server.url)).ask(post())
        assert caught.value.sent
        assert server.connections == 1


def test_a_server_that_does_not_speak_http(drive):
    def talk(line):
        line.read()
        line.send(b"220 mail.example.com ESMTP ready\r\n")

    with RawServer(talk) as server:
        with within(3), pytest.raises(TransportError) as caught:
            drive(session(server.url, timeout=1)).ask(post())
        assert caught.value.sent
        assert len(server.seen) == 1


# Redirects


def test_a_redirect_on_the_same_host_is_followed_for_get(sandbox, drive):
    sandbox.control.fault(
        "redirect", path="/api/runs/old", location=f"/omilia/api/projects/{SMOKE}", status=301, method="GET"
    )
    run = drive(to_sandbox(sandbox)).ask(get("/api/runs/old"))
    assert run["data"]["id"] == SMOKE
    assert [seen.status for seen in sandbox.control.requests()] == [301, 200]


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_of_a_start_is_not_followed(sandbox, drive, status):
    sandbox.control.fault("redirect", operation="omilia.create_run", location="/omilia/api/projects/", status=status)
    with pytest.raises(InvalidReplyError, match=f"HTTP {status}, and it redirects a POST, which is not followed"):
        drive(to_sandbox(sandbox)).ask(API.create_run(SMOKE))
    assert [seen.operation for seen in sandbox.control.requests()] == ["omilia.create_run"]


@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/x", "//127.0.0.1:{port}/x", "http://localhost:{port}/x"])
def test_no_token_goes_to_another_host(drive, location):
    with RawServer(answering(lambda seen: (200, b"{}"))) as other:
        to = location.format(port=other.port)
        with (
            RawServer(answering(lambda seen: (302, b"", {"Location": to}))) as server,
            pytest.raises(InvalidReplyError, match="where the credentials must not go"),
        ):
            drive(session(server.url)).ask(get())
        assert other.connections == 0


def test_the_same_port_under_another_name_is_another_host(drive):
    def answer(seen):
        return 302, b"", {"Location": f"http://localhost:{server.port}/x"}

    with RawServer(answering(answer)) as server:
        with pytest.raises(InvalidReplyError, match="where the credentials must not go"):
            drive(session(server.url)).ask(get())
        assert len(server.seen) == 1


@pytest.mark.parametrize("location", ["http://[", "http://user:secret@{own}/x", None])
def test_a_redirect_to_nowhere(drive, location):
    def answer(seen):
        return 302, b"", {} if location is None else {"Location": location.format(own=f"127.0.0.1:{server.port}")}

    with RawServer(answering(answer)) as server:
        with within(3), pytest.raises(InvalidReplyError, match="HTTP 302"):
            drive(session(server.url)).ask(get())
        assert len(server.seen) <= 4
        assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {BEARER}"}


@pytest.mark.parametrize("location", ["http://[", "/elsewhere"])
def test_a_start_that_is_redirected_to_nowhere_may_have_been_done(drive, location):
    with RawServer(answering(lambda seen: (302, b"", {"Location": location}))) as server:
        with pytest.raises(InvalidReplyError, match="HTTP 302, and it redirects a POST") as caught:
            drive(session(server.url)).ask(post())
        assert not caught.value.not_executed
        assert len(server.seen) == 1


def test_the_body_of_a_redirect_is_bounded_too(sandbox, drive):
    def talk(line):
        while line.read() is not None:
            line.send(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
            while True:
                line.send(b"x" * 1_000_000)

    with RawServer(talk) as server, within(10), pytest.raises(InvalidReplyError, match="in a loop"):
        drive(session(server.url, timeout=9)).ask(get())


def test_redirects_in_circles_end(drive):
    with RawServer(answering(lambda seen: (307, b"", {"Location": seen.path + "x"}))) as server:
        with pytest.raises(InvalidReplyError, match="redirects in a loop"):
            drive(session(server.url)).ask(get())
        assert len(server.seen) == 4


def test_the_token_endpoint_is_not_followed_elsewhere(drive):
    with RawServer(answering(lambda seen: (200, b"{}"))) as other:
        with RawServer(answering(lambda seen: (307, b"", {"Location": f"{other.url}/token"}))) as tokens:
            auth = OAuthToken(f"{tokens.url}/token", {"grant_type": "password", "password": "canary-password"})
            with pytest.raises(InvalidReplyError, match=r"redirects to .*where no credentials are sent"):
                drive(session(other.url, auth)).ask(get())
        assert other.connections == 0


# Connections


def test_a_connection_is_kept_for_what_can_be_repeated(sandbox, drive):
    client = drive(to_sandbox(sandbox))
    for _ in range(6):
        client.ask(API.list_projects())
    assert sandbox.control.stats()["connections"]["opened"] == 1


def test_what_must_not_be_repeated_has_a_connection_of_its_own(sandbox, drive):
    client = drive(to_sandbox(sandbox))
    client.ask(API.list_projects())
    for _ in range(3):
        client.ask(API.create_run(SMOKE))
    client.ask(API.list_projects())
    stats = sandbox.control.stats()
    assert stats["connections"]["opened"] == 4
    assert stats["runs_created"]["omilia"] == 3
    client.close()
    wait_until(lambda: sandbox.control.stats()["connections"]["open"] == 0)


def test_a_kept_connection_that_the_server_closed_is_replaced(drive):
    def talk(line):
        if line.read() is not None:
            line.response(200, b"{}")

    with RawServer(talk) as server:
        client = drive(session(server.url))
        for _ in range(3):
            client.ask(get())
            time.sleep(0.05)
        assert server.connections == 3


def test_a_netrc_entry_does_not_replace_our_token(drive, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\ndefault login anyone password at-all\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(answering(lambda seen: (200, b"{}"))) as server:
        client = drive(session(server.url))
        client.ask(get())
        client.ask(post())
        assert [seen.headers["authorization"] for seen in server.seen] == [f"Bearer {BEARER}"] * 2


def test_a_netrc_entry_is_not_sent_where_we_send_no_token(drive, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login anyone password at-all\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with RawServer(answering(lambda seen: (200, b'{"access_token": "canary-token-1", "expires_in": 60}'))) as server:
        auth = OAuthToken(f"{server.url}/token", {"grant_type": "password", "password": "canary-password"})
        drive(session(server.url, auth)).ask(get())
        assert [seen.headers.get("authorization") for seen in server.seen] == [None, "Bearer canary-token-1"]


def test_the_proxy_of_the_environment_is_chosen_for_each_host(drive, monkeypatch):
    """The token endpoint is reached directly, the platform through the proxy; whichever is asked first."""
    token = b'{"access_token": "canary-token-1", "expires_in": 60}'
    with (
        RawServer(answering(lambda seen: (200, token))) as tokens,
        RawServer(answering(lambda seen: (200, b'{"by": "proxy"}'))) as proxy,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        auth = OAuthToken(f"{tokens.url}/token", {"grant_type": "client_credentials"})
        assert drive(session("http://platform.invalid", auth)).ask(get()) == {"by": "proxy"}
        assert len(tokens.seen) == 1
        assert [seen.path for seen in proxy.seen] == ["http://platform.invalid/"]


def test_a_proxy_that_is_not_there_proves_that_nothing_was_sent(drive, monkeypatch):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{sock.getsockname()[1]}")
        with pytest.raises(TransportError) as caught:
            drive(session("http://platform.invalid")).ask(post())
    assert caught.value.not_executed


# Messages


def test_messages_hold_no_secret(sandbox, drive):
    auth = password_grant(sandbox)
    client = drive(to_sandbox(sandbox, auth))
    client.ask(API.list_projects())
    secrets = [omilia.PASSWORD, *sandbox.control.issued_tokens("omilia")]
    assert len(secrets) == 3  # an access token and a refresh token
    assert redact(" ".join(secrets)) == "*** *** ***"
    echo = {"detail": "you sent " + " and ".join(secrets)}
    for status in (400, 403, 500):
        sandbox.control.fault("status", operation="omilia.*_run", status=status, body=echo, times=1)
        with pytest.raises(ApiError) as caught:
            client.ask(API.create_run(SMOKE))
        _without(secrets, caught.value)
        assert "***" in str(caught.value)
    sandbox.control.expire_tokens()
    sandbox.control.clear_faults()
    sandbox.control.fault("status", operation="omilia.token", status=401, body=echo)
    with pytest.raises(AuthenticationError) as caught:
        client.ask(API.list_projects())
    _without(secrets, caught.value)


def _without(secrets: list[str], error: BaseException | None) -> None:
    while error is not None:
        for secret in secrets:
            assert secret not in str(error)
            assert secret not in repr(error)
        error = error.__cause__ or error.__context__


def test_a_long_answer_is_cut_and_a_page_is_read(sandbox, drive):
    page = "<html><head><style>p {}</style></head><body><h1>Bad gateway</h1><p>" + "nginx " * 500 + "</p></body></html>"
    sandbox.control.fault(
        "status", operation="omilia.list_projects", status=502, body=page, headers={"Content-Type": "text/html"}
    )
    with pytest.raises(ServerError, match=r"HTTP 502: Bad gateway nginx .*\[…\]") as caught:
        drive(to_sandbox(sandbox)).ask(API.list_projects())
    assert "<" not in str(caught.value)
    assert len(str(caught.value)) < 900
