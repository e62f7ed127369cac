"""Every fault does on the wire what it says."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_testruns.sandbox.control import Control
from airflow_provider_testruns.sandbox.omilia import STATIC_BEARER, named_id
from airflow_provider_testruns.sandbox.server import SandboxServer

pytestmark = pytest.mark.integration

HEALTH = "/omilia/api/healthcheck/"
START = {"projectId": named_id(1)}


@pytest.fixture
def wire(sandbox: SandboxServer) -> Iterator[socket.socket]:
    """A bare connection, to see the very bytes."""
    parts = urlsplit(sandbox.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=60) as sock:
        yield sock


def ask(wire: socket.socket, path: str = HEALTH) -> bytes:
    """Send a request and return all bytes until the server closes the connection."""
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: sandbox\r\n\r\n".encode())
    received = b""
    try:
        while chunk := wire.recv(65536):
            received += chunk
    except ConnectionResetError:
        received += b"<reset>"
    return received


def test_drop_closes_the_connection_without_a_byte(control: Control, wire: socket.socket) -> None:
    control.fault("drop", operation="omilia.healthcheck", times=1)
    assert ask(wire) in (b"", b"<reset>")


def test_drop_looks_like_a_lost_connection_to_a_client(control: Control, sandbox: SandboxServer) -> None:
    control.fault("drop", platform="omilia", times=1)
    with pytest.raises(requests.ConnectionError):
        requests.get(sandbox.url + HEALTH, timeout=60)
    assert requests.get(sandbox.url + HEALTH, timeout=60).status_code == 200


def test_hang_answers_nothing_and_then_closes(control: Control, wire: socket.socket) -> None:
    control.fault("hang", operation="omilia.healthcheck", seconds=0.2)
    began = time.monotonic()
    assert ask(wire) in (b"", b"<reset>")
    assert time.monotonic() - began >= 0.15


def test_hang_ends_when_the_client_gives_up(control: Control, sandbox: SandboxServer) -> None:
    control.fault("hang", operation="omilia.healthcheck", seconds=60, times=1)
    with pytest.raises(requests.Timeout):
        requests.get(sandbox.url + HEALTH, timeout=0.2)
    assert requests.get(sandbox.url + HEALTH, timeout=60).status_code == 200


def test_truncate_promises_more_than_it_sends(control: Control, wire: socket.socket) -> None:
    control.fault("truncate", operation="omilia.healthcheck", when="after")
    head, _, body = ask(wire).partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    assert head.startswith(b"HTTP/1.1 200")
    assert 0 < len(body) < length


def test_truncate_breaks_a_client_off(control: Control, sandbox: SandboxServer) -> None:
    control.fault("truncate", operation="omilia.healthcheck")
    with pytest.raises((requests.exceptions.ChunkedEncodingError, http.client.IncompleteRead)):
        requests.get(sandbox.url + HEALTH, timeout=60)


@pytest.mark.parametrize("when", ["before", "after"])
def test_latency_delays_the_response(control: Control, sandbox: SandboxServer, when: str) -> None:
    control.fault("latency", operation="omilia.healthcheck", seconds=0.2, when=when)
    began = time.monotonic()
    assert requests.get(sandbox.url + HEALTH, timeout=60).status_code == 200
    assert time.monotonic() - began >= 0.2


def test_latencies_add_up_to_another_fault(control: Control, sandbox: SandboxServer) -> None:
    control.fault("latency", operation="omilia.*", seconds=0.1)
    control.fault("latency", operation="omilia.*", seconds=0.1)
    control.fault("status", operation="omilia.*", status=500)
    began = time.monotonic()
    assert requests.get(sandbox.url + HEALTH, timeout=60).status_code == 500
    assert time.monotonic() - began >= 0.2


def test_the_setting_delays_every_response(control: Control, sandbox: SandboxServer) -> None:
    control.configure(latency=0.2)
    began = time.monotonic()
    requests.get(sandbox.url + HEALTH, timeout=60)
    assert time.monotonic() - began >= 0.2


def test_status_with_headers_and_body(control: Control, sandbox: SandboxServer) -> None:
    body = {"detail": "slow down"}
    control.fault("status", operation="omilia.healthcheck", status=429, headers={"Retry-After": "7"}, body=body)
    response = requests.get(sandbox.url + HEALTH, timeout=60)
    assert (response.status_code, response.headers["Retry-After"], response.json()) == (429, "7", body)


def test_status_with_a_page(control: Control, sandbox: SandboxServer) -> None:
    headers = {"Content-Type": "text/html"}
    control.fault("status", path="healthcheck", status=502, headers=headers, body="<h1>Bad gateway</h1>")
    response = requests.get(sandbox.url + HEALTH, timeout=60)
    assert (response.status_code, response.text) == (502, "<h1>Bad gateway</h1>")
    assert response.headers["Content-Type"] == "text/html"


def test_wrong_json(control: Control, sandbox: SandboxServer) -> None:
    control.fault("wrong_json", operation="omilia.healthcheck", body=[{"nothing": None}], times=1)
    control.fault("wrong_json", operation="omilia.healthcheck", body="{not json", times=1)
    assert requests.get(sandbox.url + HEALTH, timeout=60).json() == [{"nothing": None}]
    assert requests.get(sandbox.url + HEALTH, timeout=60).text == "{not json"


def test_huge_streams_as_much_as_was_ordered(control: Control, sandbox: SandboxServer) -> None:
    control.fault("huge", operation="omilia.healthcheck", size=3_000_001)
    with requests.get(sandbox.url + HEALTH, timeout=60, stream=True) as response:
        assert sum(len(chunk) for chunk in response.iter_content(65536)) == 3_000_001


def test_a_huge_response_ends_with_its_reader(control: Control, sandbox: SandboxServer) -> None:
    control.fault("huge", operation="omilia.healthcheck", size=10**12, times=1)
    with requests.get(sandbox.url + HEALTH, timeout=60, stream=True) as response:
        assert next(response.iter_content(1)) == b'"'
    assert requests.get(sandbox.url + HEALTH, timeout=60).status_code == 200


def test_redirect(control: Control, sandbox: SandboxServer) -> None:
    control.fault("redirect", operation="omilia.healthcheck", location="https://elsewhere.example/", status=307)
    response = requests.get(sandbox.url + HEALTH, timeout=60, allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (307, "https://elsewhere.example/")


@pytest.mark.parametrize(("when", "started"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("kind", ["drop", "status", "truncate", "wrong_json"])
def test_the_work_is_done_or_not(control: Control, sandbox: SandboxServer, kind: str, when: str, started: int) -> None:
    control.fault(kind, operation="omilia.create_run", when=when, status=500 if kind == "status" else None)
    headers = {"Authorization": f"Bearer {STATIC_BEARER}"}
    try:
        requests.post(f"{sandbox.url}/omilia/api/runs/", json=START, headers=headers, timeout=60)
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        assert kind in ("drop", "truncate")
    assert control.stats()["runs_created"]["omilia"] == started
    assert control.count("omilia.create_run") == 1


def test_a_response_that_comes_too_late_was_worked_on(control: Control, sandbox: SandboxServer) -> None:
    control.fault("latency", operation="omilia.create_run", when="after", seconds=1)
    headers = {"Authorization": f"Bearer {STATIC_BEARER}"}
    with pytest.raises(requests.Timeout):
        requests.post(f"{sandbox.url}/omilia/api/runs/", json=START, headers=headers, timeout=0.2)
    assert len(control.runs("omilia")) == 1


def statuses(sandbox: SandboxServer, count: int) -> list[int]:
    with requests.Session() as session:
        return [session.get(sandbox.url + HEALTH, timeout=60).status_code for _ in range(count)]


def test_times_and_skip(control: Control, sandbox: SandboxServer) -> None:
    control.fault("status", operation="omilia.healthcheck", status=503, times=2, skip=1)
    assert statuses(sandbox, 5) == [200, 503, 503, 200, 200]
    assert control.faults() == []


def test_orders_strike_one_after_the_other(control: Control, sandbox: SandboxServer) -> None:
    control.fault("status", operation="omilia.healthcheck", status=500, times=1)
    control.fault("status", operation="omilia.healthcheck", status=502, times=1)
    assert statuses(sandbox, 3) == [500, 502, 200]


def test_an_outage_ends(control: Control, sandbox: SandboxServer) -> None:
    control.fault("status", platform="omilia", status=503, for_seconds=10)
    assert statuses(sandbox, 1) == [503]
    control.advance(10)
    assert statuses(sandbox, 1) == [200]


def test_probability_follows_the_seed() -> None:
    def sequence() -> list[int]:
        with SandboxServer(seed=7) as sandbox:
            sandbox.control.fault("status", platform="omilia", status=500, probability=0.5)
            return statuses(sandbox, 20)

    first = sequence()
    assert first == sequence()
    assert {200, 500} == set(first)


def test_only_what_matches_is_struck(control: Control, sandbox: SandboxServer) -> None:
    control.fault("status", platform="eggplant", status=500)
    control.fault("status", operation="omilia.create_*", status=500)
    control.fault("status", method="DELETE", status=500)
    control.fault("status", path="^/futureagi/", status=500)
    assert statuses(sandbox, 1) == [200]
    assert requests.get(f"{sandbox.url}/futureagi/health/", timeout=60).status_code == 500


def test_clearing(control: Control, sandbox: SandboxServer) -> None:
    first = control.fault("status", platform="omilia", status=500)
    control.fault("status", platform="omilia", status=502)
    assert control.clear_faults(first) == 1
    assert statuses(sandbox, 1) == [502]
    assert control.clear_faults() == 1
    assert statuses(sandbox, 1) == [200]


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("latency", {}, "seconds"),
        ("hang", {}, "seconds"),
        ("status", {}, "status"),
        ("status", {"status": 99}, "between"),
        ("huge", {}, "size"),
        ("redirect", {}, "location"),
        ("drop", {"probability": 2}, "probability"),
        ("drop", {"platform": "other"}, "no platform"),
        ("explode", {}, "explode"),
    ],
)
def test_orders_that_make_no_sense(control: Control, kind: str, options: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        control.fault(kind, **options)  # type: ignore[arg-type]


def test_faults_over_http(control: Control, sandbox: SandboxServer) -> None:
    url = f"{sandbox.url}/_sandbox/faults"
    order = {"kind": "status", "operation": "omilia.healthcheck", "status": 503, "times": 1, "headers": {"A": "b"}}
    made = requests.post(url, json=order, timeout=60)
    assert made.status_code == 201
    assert [f["id"] for f in requests.get(url, timeout=60).json()] == [made.json()["id"]]
    assert statuses(sandbox, 2) == [503, 200]
    requests.post(url, json={**order, "times": None}, timeout=60)
    assert requests.delete(url, timeout=60).json() == {"removed": 1}
    assert requests.post(url, json={"kind": "latency"}, timeout=60).status_code == 400
    assert requests.post(url, json={**order, "sort": 1}, timeout=60).status_code == 422


def test_faults_are_counted(control: Control, sandbox: SandboxServer) -> None:
    control.fault("status", platform="omilia", status=503, times=2)
    statuses(sandbox, 3)
    # A request of an earlier test, which nobody waits for any more, may still meet its own fault.
    assert control.stats()["faults"]["status"] == 2
    assert [r.fault for r in control.requests("omilia.healthcheck")] == ["status", "status", None]
