"""Many waits at once: one list call for all of a project, and nothing that one wait meets harms another.

The real hooks, platforms and transport in one event loop, against the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trustme
from asgiref.sync import async_to_sync
from blockbuster import blockbuster_ctx

from airflow_provider_testruns import timing
from airflow_provider_testruns.exceptions import AuthenticationError, NotFoundError, PermissionDeniedError
from airflow_provider_testruns.hooks import versions
from airflow_provider_testruns.hooks.registry import hook_class
from airflow_provider_testruns.lifecycle import watcher
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, WaitStatus
from airflow_provider_testruns.lifecycle.watcher import WatcherHandle, shared_watcher
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.sandbox import eggplant, futureagi, omilia
from airflow_provider_testruns.sandbox.server import SandboxServer
from airflow_provider_testruns.transport.nonblocking import MAX_CONNECTIONS
from airflow_provider_testruns.triggers.run import RunTrigger
from tests.harness.waiting import until
from tests.integration.transport.wires import RawServer, answering

pytestmark = pytest.mark.integration

_PROJECT = omilia.named_id(1)
_LIST, _SINGLE = "omilia.list_project_runs", "omilia.get_run"
_INTERVAL = 0.1
#: For hanging only; seconds.
_WITHIN = 120.0
#: Of each platform: what runs are started from, what the connection needs to find them, the list and the single look.
_PLATFORMS = {
    "omilia": (_PROJECT, {"project_id": _PROJECT}, _LIST, _SINGLE),
    "futureagi": (
        futureagi.named_id(1),
        {"run_test_id": futureagi.named_id(1)},
        "futureagi.list_executions",
        "futureagi.metrics",
    ),
    "eggplant": (
        eggplant.named_id(1),
        {"model_id": eggplant.named_id(1), "model_name": "Checkout"},
        "eggplant.run_progress",
        None,  # the same call, in another form
    ),
}
_log = logging.getLogger("watching")


@pytest.fixture(scope="module")
def _server() -> Iterator[SandboxServer]:
    with SandboxServer(run_seconds=60) as server:
        yield server


@pytest.fixture
def sandbox(_server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServer:
    """The sandbox, as new, behind the three default connections."""
    _server.control.reset()
    for conn_id, connection in _server.connections().items():
        _connect(monkeypatch, conn_id, connection)
    return _server


def _give_up_after_a_second(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where requests hang."""
    connection = sandbox.connections()["omilia_default"]
    connection["extra"]["timeout"] = 1
    _connect(monkeypatch, "omilia_default", connection)


def _connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, connection: dict[str, Any]) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))


def _watching(platform: str = "omilia") -> contextlib.AbstractAsyncContextManager[WatcherHandle]:
    conn_id = f"{platform}_default"
    return shared_watcher(platform, conn_id, lambda: hook_class(platform).read_async(conn_id))


def _wait(run_id: str, platform: str = "omilia", interval: float = _INTERVAL, seconds: float = 600.0) -> Wait:
    run = Run(platform, run_id, RunState.RUNNING, "STARTED", ids=_PLATFORMS[platform][1])
    return Wait(run, time.time() + seconds, interval, _log)


async def _watch(wait: Wait) -> WaitEnd:
    """As a trigger does."""
    async with _watching(wait.run.platform) as shared:
        return await shared.wait(wait)


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it as asyncio.run does, and see that it leaves neither a task nor a watcher."""

    async def watched() -> None:
        await main()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not watcher._watchers.get(asyncio.get_running_loop())

    asyncio.run(watched())


def _all_finished(ends: list[WaitEnd]) -> None:
    assert {end.status for end in ends} == {WaitStatus.FINISHED}


# One call for all


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_runs_that_are_listed_together_are_polled_with_one_call(sandbox, platform):
    target, _, listing, single = _PLATFORMS[platform]
    control = sandbox.control
    run_ids = control.add_runs(platform, target, 50)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        began = time.monotonic()
        waits = [asyncio.create_task(_watch(_wait(run_id, platform))) for run_id in run_ids]
        await until(lambda: control.count(listing) >= 5)
        assert not any(wait.done() for wait in waits)
        for run_id in run_ids:
            control.finish_run(run_id)
        ends = await asyncio.gather(*waits)
        _all_finished(ends)
        assert {end.run.run_id for end in ends} == set(run_ids)
        rounds = (time.monotonic() - began) / (_INTERVAL * 0.9) + 2
        counts = control.stats()["operations"]
        assert counts[listing] <= rounds
        # The first wait begins before there is another to be polled with.
        assert counts.get(single, 0) <= 1
        assert sum(counts.values()) <= rounds + 3

    _run(main)
    stats = control.stats()
    assert stats["connections"]["opened"] <= 2
    assert stats["token_requests"].get(platform, 0) <= 1
    assert control.violations() == []


def test_runs_that_cannot_be_listed_together_share_token_and_connections(sandbox):
    control = sandbox.control
    control.configure(latency=0.01)
    run_ids = control.add_runs("omilia", _PROJECT, 200, duration=0.0)

    def alone(run_id: str) -> Wait:
        wait = _wait(run_id, interval=1.0)
        wait.run = Run("omilia", run_id, RunState.RUNNING, "STARTED")  # its project is not known
        return wait

    async def main() -> None:
        _all_finished(await asyncio.gather(*(_watch(alone(run_id)) for run_id in run_ids)))

    _run(main)
    assert control.count(_SINGLE) == 200
    assert control.stats()["token_requests"] == {"omilia": 1}
    assert control.stats()["connections"]["opened"] <= MAX_CONNECTIONS
    # They were not all asked for at once.
    times = [seen.at for seen in control.requests(_SINGLE)]
    assert max(times) - min(times) > 0.6


def test_f4_what_the_list_takes_for_done_is_asked_for_singly_before_it_ends_as_stalled(sandbox):
    """Future AGI's list counts calls that are going as attempted."""
    control = sandbox.control
    run_test = control.create_run_test("one-call", scenarios={"One": 1})
    going, stuck = control.add_runs("futureagi", run_test, 2, age=30.0)
    control.hang_run(going)
    control.set_run(stuck, stuck=True, duration=10.0)

    async def main() -> None:
        def wait(run_id: str) -> Wait:
            run = Run("futureagi", run_id, RunState.RUNNING, "running", ids={"run_test_id": run_test})
            return Wait(run, time.time() + 3.0, _INTERVAL, _log, stalled_after=0.5)

        ends = await asyncio.gather(_watch(wait(going)), _watch(wait(stuck)))
        assert [end.status for end in ends] == [WaitStatus.TIMEOUT, WaitStatus.FINISHED]
        assert ends[1].run.stalled
        assert control.count("futureagi.list_executions") > 0

    _run(main)


def test_a_run_that_the_list_does_not_show_is_asked_for_singly(sandbox):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 20)
    for run_id in run_ids:
        control.hang_run(run_id)
    hidden = run_ids[7]
    control.hide_run(hidden)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in run_ids]
        await until(lambda: hidden in "".join(seen.path for seen in control.requests(_SINGLE)))
        await until(lambda: control.count(_LIST) >= 5)
        assert control.count(_SINGLE) <= control.count(_LIST) + 1
        asked = {seen.path for seen in control.requests(_SINGLE)}
        assert asked <= {f"/omilia/api/runs/{run_id}" for run_id in (hidden, run_ids[0])}
        assert f"/omilia/api/runs/{hidden}" in asked
        control.finish_run(hidden)
        end = await asyncio.wait_for(waits[7], _WITHIN)
        assert end.run.run_id == hidden
        for run_id in run_ids:
            control.finish_run(run_id)
        _all_finished(await asyncio.gather(*waits))

    _run(main)


def test_many_that_the_list_does_not_show_do_not_wait_for_one_another(sandbox):
    control = sandbox.control
    control.configure(latency=0.1)
    run_ids = control.add_runs("omilia", _PROJECT, 24, duration=0.0)
    for run_id in run_ids[4:]:
        control.hide_run(run_id)

    async def main() -> None:
        _all_finished(await asyncio.gather(*(_watch(_wait(run_id)) for run_id in run_ids)))
        # One after the other needs one connection only.
        assert control.stats()["connections"]["opened"] > 1

    _run(main)


# Who comes and goes


def test_many_are_not_looked_at_more_often_than_they_ask_for(sandbox):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 60)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id, interval=0.1))) for run_id in run_ids]
        await until(lambda: control.count(_LIST) >= 3)
        seen, began = control.count(_LIST), time.monotonic()
        await until(lambda: control.count(_LIST) >= seen + 30)
        # 30 intervals of 0.1 s, each give or take: were the shortest of 60 taken each time, it would be 2.7 s.
        assert time.monotonic() - began > 2.85
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    _run(main)


def test_whoever_joins_is_not_slowed_down_by_those_who_look_seldom(sandbox):
    control = sandbox.control
    slow, other, fast = control.add_runs("omilia", _PROJECT, 3)
    for run_id in (slow, other, fast):
        control.hang_run(run_id)

    async def main() -> None:
        patient = [asyncio.create_task(_watch(_wait(run_id, interval=3600))) for run_id in (slow, other)]
        await asyncio.sleep(0.2)
        quick = asyncio.create_task(_watch(_wait(fast, interval=0.2)))
        await until(lambda: control.count(_LIST) + control.count(_SINGLE) >= 2)
        control.finish_run(fast)
        end = await asyncio.wait_for(quick, _WITHIN)
        assert end.run.run_id == fast
        assert not any(wait.done() for wait in patient)
        for wait in patient:
            wait.cancel()
        await asyncio.gather(*patient, return_exceptions=True)

    _run(main)


def test_whoever_joins_keeps_its_deadline_among_those_who_look_seldom(sandbox):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 3)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        patient = [asyncio.create_task(_watch(_wait(run_id, interval=3600))) for run_id in run_ids[:2]]
        await asyncio.sleep(0.2)
        hasty = _wait(run_ids[2], interval=3600, seconds=1)
        end = await asyncio.wait_for(_watch(hasty), _WITHIN)
        assert end.status is WaitStatus.TIMEOUT
        assert time.time() >= hasty.deadline
        assert not any(wait.done() for wait in patient)
        for wait in patient:
            wait.cancel()
        await asyncio.gather(*patient, return_exceptions=True)

    _run(main)


def test_a_wait_that_is_cancelled_harms_no_other(sandbox):
    control = sandbox.control
    control.configure(latency=0.05)
    run_ids = control.add_runs("omilia", _PROJECT, 20)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in run_ids]
        for wait in waits[:19]:
            await asyncio.sleep(0.03)
            wait.cancel()
        cancelled = await asyncio.gather(*waits[:19], return_exceptions=True)
        assert {type(outcome) for outcome in cancelled} == {asyncio.CancelledError}
        # The last one goes on by itself.
        singles = control.count(_SINGLE)
        await until(lambda: control.count(_SINGLE) > singles + 1)
        control.finish_run(run_ids[19])
        _all_finished([await asyncio.wait_for(waits[19], _WITHIN)])

    _run(main)


def test_a_run_that_is_gone_ends_its_own_wait_only(sandbox, monkeypatch):
    monkeypatch.setattr(timing, "GRACE", 0.5)
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 10)
    for run_id in run_ids:
        control.hang_run(run_id)
    control.vanish_run(run_ids[0])

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in run_ids]
        end = await asyncio.wait_for(waits[0], _WITHIN)
        assert end.status is WaitStatus.ERROR
        assert isinstance(end.error, NotFoundError)
        assert not any(wait.done() for wait in waits[1:])
        for run_id in run_ids[1:]:
            control.finish_run(run_id)
        _all_finished(await asyncio.gather(*waits[1:]))

    _run(main)


def test_a_fault_of_ours_in_the_list_is_logged_and_harms_nobody(sandbox, caplog):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 5, duration=0.0)

    async def main() -> None:
        async with _watching() as shared:
            platform, _ = await shared.open()
            platform.list_group = lambda *args: 1 / 0  # type: ignore[method-assign]
            _all_finished(await asyncio.gather(*(shared.wait(_wait(run_id)) for run_id in run_ids)))

    _run(main)
    assert "Polling the group" in caplog.text
    assert control.count(_SINGLE) == 5


# The list does not work, or does not pay


@pytest.mark.parametrize(("status", "lists"), [(403, 1), (404, 1), (422, 1), (500, timing.LIST_FAILURES)])
def test_a_list_that_cannot_be_had_gives_way_to_single_looks(sandbox, status, lists):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 10)
    control.fault("status", operation=_LIST, status=status)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in run_ids]
        await until(lambda: control.count(_SINGLE) > 10)
        for run_id in run_ids:
            control.finish_run(run_id)
        _all_finished(await asyncio.gather(*waits))

    _run(main)
    assert control.count(_LIST) == lists


def test_a_list_that_hangs_gives_way_to_single_looks(sandbox, monkeypatch):
    _give_up_after_a_second(sandbox, monkeypatch)
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 5, duration=0.0)
    control.fault("hang", operation=_LIST, seconds=30)

    async def main() -> None:
        _all_finished(await asyncio.gather(*(_watch(_wait(run_id)) for run_id in run_ids)))

    _run(main)


def test_what_is_forbidden_altogether_ends_the_waits(sandbox):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 5)
    control.fault("status", operation="omilia.*_run*", status=403)

    async def main() -> None:
        ends = await asyncio.gather(*(_watch(_wait(run_id)) for run_id in run_ids))
        assert {end.status for end in ends} == {WaitStatus.ERROR}
        assert {type(end.error) for end in ends} == {PermissionDeniedError}

    _run(main)


def test_a_list_that_is_dearer_than_single_looks_is_left_alone_for_a_while(sandbox, monkeypatch):
    ahead = 0.0
    control = sandbox.control
    old = control.add_runs("omilia", _PROJECT, 3000, age=86_400, duration=1.0)
    run_ids = control.add_runs("omilia", _PROJECT, 3)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        nonlocal ahead
        # The loop's clock is the test's: the time in which the list is left alone passes when it says so.
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + ahead)
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in run_ids]
        await until(lambda: control.count(_SINGLE) > 6)
        assert control.count(_LIST) == 1
        ahead += timing.INDIVIDUALLY_FOR
        await until(lambda: control.count(_LIST) == 2)  # it is tried again
        for run_id in old:
            control.vanish_run(run_id)
        singles = control.count(_SINGLE)
        await until(lambda: control.count(_SINGLE) > singles + 6)
        assert control.count(_LIST) == 2
        ahead += timing.INDIVIDUALLY_FOR
        await until(lambda: control.count(_LIST) > 6)  # and now it pays
        singles, lists = control.count(_SINGLE), control.count(_LIST)
        await until(lambda: control.count(_LIST) > lists + 4)
        assert control.count(_SINGLE) == singles
        for run_id in run_ids:
            control.finish_run(run_id)
        _all_finished(await asyncio.gather(*waits))

    _run(main)


def test_two_that_come_one_after_the_other_are_listed_together(sandbox):
    """At first only the second is left to the list, and the list alone costs more than that one."""
    control = sandbox.control
    control.add_runs("omilia", _PROJECT, 60, age=86_400, duration=1.0)
    first, second = control.add_runs("omilia", _PROJECT, 2)
    for run_id in (first, second):
        control.hang_run(run_id)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(first, interval=1.0)))]
        await asyncio.sleep(0.01)
        waits.append(asyncio.create_task(_watch(_wait(second, interval=0.1))))
        await until(lambda: control.count(_LIST) > 3)
        control.reset_traffic()
        await until(lambda: control.count(_LIST) > 3)
        assert control.count(_SINGLE) == 0
        for run_id in (first, second):
            control.finish_run(run_id)
        _all_finished(await asyncio.gather(*waits))

    _run(main)


# Trouble


_OUTAGES = {
    "503": {"kind": "status", "status": 503},
    "dropped": {"kind": "drop"},
    "hanging": {"kind": "hang", "seconds": 30},
    "wrong": {"kind": "wrong_json", "body": "<html>maintenance</html>"},
    "401": {"kind": "status", "status": 401},
}


@pytest.mark.parametrize("outage", _OUTAGES)
def test_an_outage_fails_no_wait_and_its_end_is_noticed(sandbox, monkeypatch, outage):
    if outage == "hanging":
        _give_up_after_a_second(sandbox, monkeypatch)
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 50)
    alone = control.add_runs("omilia", omilia.named_id(2), 1)
    for run_id in [*run_ids, *alone]:
        control.hang_run(run_id)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in run_ids]
        single = _wait(alone[0])
        single.run = Run("omilia", alone[0], RunState.RUNNING, "STARTED")
        waits.append(asyncio.create_task(_watch(single)))
        await until(lambda: control.count(_LIST) > 1)
        control.reset_traffic()
        control.fault(operation="omilia.*", **_OUTAGES[outage])
        began = time.monotonic()
        await asyncio.sleep(1.3)
        assert not any(wait.done() for wait in waits)
        took = (time.monotonic() - began) / 1.3
        # One or two for each round of the group, one for each of the single wait. aiohttp sends what was dropped twice.
        assert control.stats()["requests"] < (120 if outage == "dropped" else 60) * took
        control.clear_faults()
        for run_id in [*run_ids, *alone]:
            control.finish_run(run_id)
        _all_finished(await asyncio.wait_for(asyncio.gather(*waits), _WITHIN))

    _run(main)


def test_a_server_that_is_away_for_a_while_fails_no_wait(monkeypatch):
    """Nobody listens, then there is somebody again."""
    done = False

    def answer(seen):
        status = "SUCCESS" if done else "STARTED"
        row = {"projectId": _PROJECT, "status": status, "createdAt": "2026-11-22T12:00:00.000000"}
        if seen.path.endswith("/runs/"):
            body: Any = {"data": [{"runId": f"run-{n}", **row} for n in range(5)], "meta": {"count": 5}}
        else:
            body = {"data": {"runId": seen.path.rsplit("/", 1)[1], **row}}
        return 200, json.dumps(body).encode()

    server = RawServer(answering(answer))
    port = server.port
    _connect(monkeypatch, "omilia_default", _static(server.url, "canary-token"))

    async def main() -> None:
        nonlocal done, server
        waits = [asyncio.create_task(_watch(_wait(f"run-{n}"))) for n in range(5)]
        await until(lambda: len(server.seen) > 2)
        await asyncio.to_thread(server.close)
        await asyncio.sleep(0.6)
        assert not any(wait.done() for wait in waits)
        done = True
        server = RawServer(answering(answer), port=port)
        _all_finished(await asyncio.wait_for(asyncio.gather(*waits), _WITHIN))

    try:
        _run(main)
    finally:
        server.close()


def test_a_request_to_wait_is_obeyed_by_the_whole_group(sandbox):
    control = sandbox.control
    first, second, late = control.add_runs("omilia", _PROJECT, 3)
    for run_id in (first, second, late):
        control.hang_run(run_id)

    async def main() -> None:
        waits = [asyncio.create_task(_watch(_wait(run_id))) for run_id in (first, second)]
        await until(lambda: control.count(_LIST) > 2)
        control.fault("status", operation="omilia.*", status=429, headers={"Retry-After": "1"})
        control.reset_traffic()
        await until(lambda: control.count(_LIST) == 1)
        waits.append(asyncio.create_task(_watch(_wait(late))))
        control.clear_faults()
        await until(lambda: control.count(_LIST) >= 2)
        refused, *later = [seen.at for seen in control.requests()]
        # By the clock of the platform; the answer is on its way for a moment.
        assert min(later) - refused >= 1.0
        for run_id in (first, second, late):
            control.finish_run(run_id)
        _all_finished(await asyncio.gather(*waits))

    _run(main)


@pytest.mark.parametrize("operation", ["omilia.*", _LIST])
def test_deadlines_hold_while_sockets_hang(sandbox, monkeypatch, operation):
    control = sandbox.control
    patient = sandbox.connections()["omilia_default"]
    patient["extra"]["timeout"] = 2 * _WITHIN
    _connect(monkeypatch, "omilia_default", patient)
    run_ids = control.add_runs("omilia", _PROJECT, 20)
    for run_id in run_ids:
        control.hang_run(run_id)

    async def main() -> None:
        began = time.monotonic()

        async def late(wait: Wait, seconds: float) -> float:
            end = await _watch(wait)
            assert end.status is WaitStatus.TIMEOUT
            return time.monotonic() - began - seconds

        control.fault("hang", operation=operation, seconds=2 * _WITHIN)
        delays = [0.5 + n / 25 for n in range(20)]
        found = await asyncio.gather(
            *(late(_wait(run_id, seconds=delay), delay) for run_id, delay in zip(run_ids, delays, strict=True))
        )
        assert min(found) >= -0.01
        # The requests would go on for longer.
        assert max(found) < _WITHIN

    _run(main)


def _static(url: str, token: str) -> dict[str, Any]:
    return {"conn_type": "omilia", "host": url, "password": token, "extra": {}}


@pytest.mark.parametrize("count", [1, 5])
def test_a_credential_that_was_changed_in_the_connection_is_taken_up(monkeypatch, count):
    monkeypatch.setattr(timing, "REOPEN_AFTER", 0.3)
    good, done = "canary-old-token", False

    def answer(seen):
        if seen.headers["authorization"] != f"Bearer {good}":
            return 401, b'{"detail": "Unauthorized"}'
        row = {"projectId": _PROJECT, "status": "SUCCESS" if done else "STARTED"}
        if seen.path.endswith("/runs/"):
            return 200, json.dumps({"data": [{"runId": f"run-{n}", **row} for n in range(count)]}).encode()
        return 200, json.dumps({"data": {"runId": seen.path.rsplit("/", 1)[1], **row}}).encode()

    async def main() -> None:
        nonlocal good, done
        waits = [asyncio.create_task(_watch(_wait(f"run-{n}"))) for n in range(count)]
        await until(lambda: len(server.seen) > 2)
        good, done = "canary-new-token", True
        await asyncio.sleep(0.5)
        assert not any(wait.done() for wait in waits)
        _connect(monkeypatch, "omilia_default", _static(server.url, good))
        _all_finished(await asyncio.wait_for(asyncio.gather(*waits), _WITHIN))

    with RawServer(answering(answer)) as server:
        _connect(monkeypatch, "omilia_default", _static(server.url, good))
        _run(main)


def test_credentials_that_stay_bad_end_the_waits_without_a_flood_of_logins(sandbox, monkeypatch):
    monkeypatch.setattr(timing, "GRACE", 1.2)
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 50)
    bad = sandbox.connections()["omilia_default"]
    bad["password"] = "canary-wrong-password"
    _connect(monkeypatch, "omilia_default", bad)

    async def main() -> None:
        ends = await asyncio.gather(*(_watch(_wait(run_id)) for run_id in run_ids))
        assert {end.status for end in ends} == {WaitStatus.ERROR}
        assert {type(end.error) for end in ends} == {AuthenticationError}

    _run(main)
    assert control.count("omilia.token") <= 4


# The trigger, the event loop, and what is left


def _triggers(run_ids: list[str], platform: str = "omilia") -> list[RunTrigger]:
    return [
        RunTrigger(platform, f"{platform}_default", wait.run.to_dict(), wait.deadline, wait.poll_interval)
        for wait in (_wait(run_id, platform) for run_id in run_ids)
    ]


async def _events(trigger: RunTrigger) -> list[Any]:
    return [event.payload async for event in trigger.run()]


def test_triggers_of_one_connection_share_one_watcher(sandbox):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 100, duration=1.0)

    took = 0.0

    async def main() -> None:
        nonlocal took
        began = time.monotonic()
        found = await asyncio.gather(*(_events(trigger) for trigger in _triggers(run_ids)))
        took = time.monotonic() - began
        assert [len(events) for events in found] == [1] * 100
        ends = [WaitEnd.from_event(events[0]) for events in found]
        _all_finished(ends)
        assert [end.run.run_id for end in ends] == run_ids

    _run(main)
    assert control.stats()["token_requests"] == {"omilia": 1}
    assert control.count(_LIST) <= took / (_INTERVAL * 0.9) + 2


# The connection: edited, missing for a while, and what is left of it


class _Stored:
    """A connection of a test's own."""

    def __init__(self, digest: str, opened: list[str], *, refuse: Callable[[], bool] = lambda: False) -> None:
        self.digest, self.opened, self._refuse = digest, opened, refuse

    async def open(self) -> tuple[Any, Any]:
        self.opened.append(self.digest)
        return _Platform(), _Client(self.digest, self.opened, self._refuse)


class _Platform:
    name = "omilia"

    def group_of(self, run: Run) -> None:
        return None

    def get_run(self, run: Run) -> str:
        return run.run_id


class _Client:
    def __init__(self, digest: str, opened: list[str], refuse: Callable[[], bool]) -> None:
        self._digest, self._opened, self._refuse = digest, opened, refuse
        self.closed = False

    async def run(self, steps: Any, until: float | None = None, stats: Any = None) -> tuple[Run, None]:
        assert not self.closed
        steps.close()
        if self._refuse():
            raise AuthenticationError("who?")
        return Run("omilia", "run-1", RunState.RUNNING, self._digest), None

    async def close(self) -> None:
        self.closed = True
        self._opened.append(f"closed {self._digest}")


def test_a_connection_that_was_edited_is_used_by_new_waits_at_once_and_the_old_client_closes_with_its_last_wait(
    sandbox, monkeypatch
):
    """The old host goes on to be polled for the runs that were started there, and for no others."""
    with SandboxServer(run_seconds=60) as other:
        old_runs = sandbox.control.add_runs("omilia", _PROJECT, 3)
        new_runs = other.control.add_runs("omilia", _PROJECT, 3)
        for run_id in old_runs:
            sandbox.control.hang_run(run_id)
        for run_id in new_runs:
            other.control.hang_run(run_id)

        async def main() -> None:
            before = [asyncio.create_task(_watch(_wait(run_id))) for run_id in old_runs]
            await until(lambda: sandbox.control.count(_LIST) > 1)
            _connect(monkeypatch, "omilia_default", other.connections()["omilia_default"])
            after = [asyncio.create_task(_watch(_wait(run_id))) for run_id in new_runs]
            await until(lambda: other.control.count(_LIST) > 1)
            asked = "".join(seen.path for seen in sandbox.control.requests(_SINGLE))
            assert not [run_id for run_id in new_runs if run_id in asked]
            for run_id in old_runs:
                sandbox.control.finish_run(run_id)
            _all_finished(await asyncio.gather(*before))
            await until(lambda: sandbox.control.stats()["connections"]["open"] == 0)
            assert other.control.stats()["connections"]["open"] >= 1
            for run_id in new_runs:
                other.control.finish_run(run_id)
            _all_finished(await asyncio.gather(*after))

        _run(main)
        assert sandbox.control.violations() == other.control.violations() == []


def test_many_who_come_at_once_are_served_by_two_readings_and_one_client():
    opened: list[str] = []
    readings = ready = 0

    async def read() -> Any:
        nonlocal readings
        readings += 1
        await asyncio.sleep(0.01)
        return _Stored("one", opened)

    async def watch(number: int) -> None:
        nonlocal ready
        async with shared_watcher("omilia", "omilia_default", read) as watching:
            await watching.open()
            ready += 1
            if number == 0:
                await until(lambda: ready == 200)

    async def main() -> None:
        await asyncio.gather(*(watch(number) for number in range(200)))
        assert opened == ["one", "closed one"]
        assert readings == 2

    _run(main)


def test_whoever_comes_after_an_edit_gets_no_reading_that_was_begun_before_it():
    opened: list[str] = []
    settings, began, go_on = "old", asyncio.Event(), asyncio.Event()

    async def read() -> Any:
        found = settings
        began.set()
        await go_on.wait()
        return _Stored(found, opened)

    async def main() -> None:
        nonlocal settings
        async with shared_watcher("o", "c", read) as early, shared_watcher("o", "c", read) as late:
            first = asyncio.create_task(early.open())
            await began.wait()
            settings = "new"
            second = asyncio.create_task(late.open())
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(first, second)
            assert opened == ["old", "new"]
        assert sorted(opened) == ["closed new", "closed old", "new", "old"]

    _run(main)


def test_credentials_that_are_refused_are_read_again_and_opened_again_only_when_they_have_changed(monkeypatch):
    """Each opening with the same settings once kept a client with a TLS context until the last wait had gone."""
    monkeypatch.setattr(timing, "REOPEN_AFTER", 0.05)
    opened: list[str] = []
    settings, readings = "old", 0

    async def read() -> Any:
        nonlocal readings
        readings += 1
        found = settings
        return _Stored(found, opened, refuse=lambda: found == "old")

    async def main() -> None:
        nonlocal settings

        async def watch() -> WaitEnd:
            async with shared_watcher("omilia", "omilia_default", read) as watching:
                return await watching.wait(_wait("run-1", interval=0.02))

        waits = [asyncio.create_task(watch()) for _ in range(3)]
        await until(lambda: readings > 6)
        assert opened == ["old"]
        settings = "new"
        await until(lambda: "closed old" in opened)
        assert opened == ["old", "new", "closed old"]
        assert not any(wait.done() for wait in waits)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert opened == ["old", "new", "closed old", "closed new"]

    _run(main)


def test_settings_that_were_given_up_and_come_back_get_a_client_of_their_own(monkeypatch):
    """While a wait is still leaving the old one."""
    monkeypatch.setattr(timing, "REOPEN_AFTER", 0.0)
    opened: list[str] = []
    settings, accepted = "old", True

    async def read() -> Any:
        found = settings
        return _Stored(found, opened, refuse=lambda: found == "old" and not accepted)

    async def main() -> None:
        nonlocal settings, accepted
        async with shared_watcher("omilia", "omilia_default", read) as slow:
            await slow.open()  # stays with what it has until it asks again
            async with shared_watcher("omilia", "omilia_default", read) as other:
                waiting = asyncio.create_task(other.wait(_wait("run-1", interval=0.02)))
                await asyncio.sleep(0.05)
                settings, accepted = "new", False
                await until(lambda: "new" in opened)
                settings, accepted = "old", True
                await slow.open()
                assert opened == ["old", "new", "old", "closed old"]
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        assert opened[4:] == ["closed new", "closed old"]

    _run(main)


def test_a_connection_that_cannot_be_read_for_a_while_fails_no_wait_and_is_not_asked_for_by_each(sandbox, caplog):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 50, duration=0.0)
    away, readings = True, 0

    async def read() -> Any:
        nonlocal readings
        readings += 1
        if away:
            raise ConnectionError("the vault is sealed")
        return await hook_class("omilia").read_async("omilia_default")

    async def watch(run_id: str) -> WaitEnd:
        async with shared_watcher("omilia", "omilia_default", read) as watching:
            return await watching.wait(_wait(run_id))

    async def main() -> None:
        nonlocal away
        began = time.monotonic()
        waits = [asyncio.create_task(watch(run_id)) for run_id in run_ids]
        await until(lambda: readings > 2)
        # After one second, then two: however often the 50 look.
        assert readings <= 1 + (time.monotonic() - began) / timing.CONNECTION_BACKOFF.first
        assert not any(wait.done() for wait in waits)
        away = False
        _all_finished(await asyncio.gather(*waits))

    _run(main)
    assert "Connection 'omilia_default' can't be used (ConnectionError: the vault is sealed)" in caplog.text


@pytest.mark.parametrize("how", ["missing", "wrong"])
def test_a_trigger_whose_connection_is_not_there_waits_for_it_until_its_deadline(sandbox, monkeypatch, how):
    """One failed lookup once ended the trigger, and nobody followed the run any more."""
    control = sandbox.control
    good = sandbox.connections()["omilia_default"]
    first, second = control.add_runs("omilia", _PROJECT, 2, duration=0.0)
    control.hang_run(second)
    if how == "missing":
        monkeypatch.delenv("AIRFLOW_CONN_OMILIA_DEFAULT")
    else:
        _connect(monkeypatch, "omilia_default", {**good, "host": "not a host"})

    async def main() -> None:
        trigger, late = _triggers([first, second])
        late.deadline = time.time() + 1.0
        events = [asyncio.create_task(_events(late)), asyncio.create_task(_events(trigger))]
        end = WaitEnd.from_event((await events[0])[0])
        assert end.status is WaitStatus.TIMEOUT
        assert "Connection 'omilia_default' can't be used" in str(end.error)
        assert not events[1].done()
        _connect(monkeypatch, "omilia_default", good)
        _all_finished([WaitEnd.from_event((await events[1])[0])])

    _run(main)


def test_a_request_to_wait_that_the_worker_met_is_obeyed_by_the_trigger_and_its_group(sandbox):
    control = sandbox.control
    run_ids = control.add_runs("omilia", _PROJECT, 3, duration=0.0)

    async def main() -> None:
        triggers = _triggers(run_ids)
        triggers[0].not_before = time.time() + 1.5
        path, kwargs = triggers[0].serialize()
        assert path.endswith("RunTrigger")
        again = RunTrigger(**kwargs)
        until = again.not_before
        assert until is not None
        found = await asyncio.gather(*(_events(trigger) for trigger in [again, *triggers[1:]]))
        _all_finished([WaitEnd.from_event(events[0]) for events in found])
        assert min(seen.at for seen in control.requests(_LIST)) >= until - 0.1

    _run(main)


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_the_event_loop_is_never_held_up(sandbox, platform, capfd):
    """From opening the connection, through polls together and alone, to closing it."""
    control = sandbox.control
    run_ids = control.add_runs(platform, _PLATFORMS[platform][0], 20, duration=0.5)
    control.hide_run(run_ids[0])

    async def main() -> None:
        with blockbuster_ctx():
            found = await asyncio.gather(*(_events(trigger) for trigger in _triggers(run_ids, platform)))
        _all_finished([WaitEnd.from_event(events[0]) for events in found])

    _run(main)
    assert "can't be used" not in capfd.readouterr().out


def test_before_airflow_3_3_2_secrets_are_masked_through_the_loop_that_triggers_run_in(monkeypatch):
    """A triggerer of Airflow 3.0 or 3.1 ends when anything speaks to its supervisor from another loop."""
    spoken: list[tuple[str, asyncio.AbstractEventLoop]] = []

    async def speak(secret: str) -> None:
        spoken.append((secret, asyncio.get_running_loop()))

    monkeypatch.delattr("airflow.sdk.log.amask_secret")
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret: async_to_sync(speak)(secret))

    async def main() -> None:
        mask = versions.async_mask()
        with blockbuster_ctx():
            await asyncio.gather(mask("canary-1"), mask("canary-2"))
        loop = asyncio.get_running_loop()
        assert sorted(spoken) == [("canary-1", loop), ("canary-2", loop)]

    _run(main)


_FRESH = """
import asyncio, json, sys, threading
import airflow.sdk.execution_time.cache  # as in a triggerer
from blockbuster import blockbuster_ctx
from airflow_provider_testruns.triggers.run import RunTrigger

main, imported = threading.current_thread(), {}

class Noting:
    def find_spec(self, name, path=None, target=None):
        imported[name] = threading.current_thread() is main

async def watch():
    with blockbuster_ctx():
        return [event.payload async for event in RunTrigger(**json.loads(sys.argv[1])).run()]

sys.meta_path.insert(0, Noting())
(event,) = asyncio.run(watch())
print(json.dumps({"status": event["status"], "imported": imported, "error": event.get("error")}))
"""


def test_the_first_trigger_of_a_process_holds_up_nobody_either(tmp_path, monkeypatch):
    """The HTTP library and the hook are imported, and the CA bundle is read, beside the event loop."""
    authority, certificate, bundle = trustme.CA(), tmp_path / "server.pem", tmp_path / "ca.pem"
    certificate.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(str(bundle))
    with SandboxServer(certfile=str(certificate), verify=str(bundle)) as secure:
        _connect(monkeypatch, "omilia_default", secure.connections()["omilia_default"])
        (run_id,) = secure.control.add_runs("omilia", _PROJECT, duration=0.0)
        wait = _wait(run_id, seconds=300)
        arguments = {
            "platform": "omilia",
            "conn_id": "omilia_default",
            "run": wait.run.to_dict(),
            "deadline": wait.deadline,
            "poll_interval": 0.1,
        }
        done = subprocess.run(
            [sys.executable, "-c", _FRESH, json.dumps(arguments)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    # A call that blocks while the connection is read would be an outage like others, and tried again.
    assert "can't be used" not in done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == "finished", told["error"]
    imported_in_the_loop = {name for name, in_the_loop in told["imported"].items() if in_the_loop}
    assert told["imported"]["aiohttp"] is False
    assert not imported_in_the_loop & {"aiohttp", "yarl", "airflow_provider_testruns.hooks.omilia"}


def test_every_socket_is_closed_when_the_last_wait_leaves(sandbox):
    control = sandbox.control
    control.configure(latency=0.05)
    for platform, (target, *_) in _PLATFORMS.items():
        control.add_runs(platform, target, 20)
    run_ids = {name: [run["run_id"] for run in control.runs(name)] for name in _PLATFORMS}

    async def main() -> None:
        waits = {
            name: [asyncio.create_task(_watch(_wait(run_id, name))) for run_id in ids] for name, ids in run_ids.items()
        }
        everybody = [wait for found in waits.values() for wait in found]
        await until(lambda: all(control.stats()["platforms"].get(name, 0) > 3 for name in _PLATFORMS))
        assert control.stats()["connections"]["open"] >= 3
        for wait in everybody[:-1]:
            wait.cancel()
        await asyncio.gather(*everybody[:-1], return_exceptions=True)
        await until(lambda: control.stats()["connections"]["open"] <= MAX_CONNECTIONS)
        assert control.stats()["connections"]["open"] >= 1
        everybody[-1].cancel()
        await asyncio.gather(everybody[-1], return_exceptions=True)
        await until(lambda: control.stats()["connections"]["open"] == 0)

    for _ in range(2):  # the second time in a loop of its own
        control.reset_traffic()
        _run(main)
