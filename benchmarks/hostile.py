"""What hostile responses cost: ``python -m benchmarks.hostile [case …]``.

A server sends each response to the client of the triggerer (a poll of one run, a poll of a group, a run's log) and to
that of a worker (a poll, a report). Measured are the longest time in which the event loop stood still, by the clock and
by the CPU time that the process took meanwhile (which other processes don't make longer), what memory the process took
beyond what it had, and how many polls of a healthy platform went well meanwhile, over another connection of the same
loop. Each measurement has a process of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_provider_testruns import limits
from airflow_provider_testruns.exceptions import ApiError
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.platforms.omilia import OmiliaPlatform
from airflow_provider_testruns.transport.auth import FixedHeaders
from airflow_provider_testruns.transport.policy import Session

MB = limits.MB
#: How often the healthy platform is polled, and the loop looked at, in seconds.
_POLL, _BEAT = 0.05, 0.005
#: A measurement ends after so many seconds in any case.
_TIMEOUT = 120.0

_HEALTHY = json.dumps({"data": {"runId": "r-1", "status": "STARTED"}}).encode()


def _filled(size: int, row: Callable[[int], str], begin: str = '{"data": [', end: str = "]}") -> bytes:
    rows, length, index = [], 0, 0
    while length < size:
        rows.append(row(index))
        length += len(rows[-1]) + 1
        index += 1
    return (begin + ",".join(rows) + end).encode()


def _run(extra: str) -> bytes:
    return b'{"data": {"runId": "r-1", "status": "STARTED", ' + extra.encode() + b"}}"


def _case(index: int) -> str:
    return json.dumps(
        {
            "testCaseId": f"3f2b8c1e-7d7e-4a7e-9f65-{index:012d}",
            "testCaseName": f"case {index}",
            "dialogId": "a.b.c",
            "status": "PASS" if index % 10 else "FAIL",
            "executionTime": 889.0,
            "assertionErrors": [] if index % 10 else [{"step": 1, "assertion": "a", "expected": "b", "found": "c"}],
            "generalErrors": [],
            "warnings": [],
            "numberOfTries": 1,
            "hadDelays": False,
            "runId": "r-1",
            "group": "a group",
            "utterance": "one",
        }
    )


#: The bodies by the names of the cases; made when they are needed.
BODIES: dict[str, Callable[[], bytes]] = {
    "63 MB of {},": lambda: b"[" + b"{}," * (63 * MB // 3) + b"{}]",
    "8 MB of {},": lambda: b'{"data": [' + b"{}," * (limits.POLL_BODY // 3 - 10) + b"{}]}",
    "as many values as allowed": lambda: b'{"data": [' + b"{}," * (limits.POLL_NODES // 2 - 10) + b"{}]}",
    "rows, as many as allowed": lambda: _filled(
        limits.POLL_NODES * 8, lambda n: f'{{"runId":"r-{n}","status":"STARTED"}}'
    )[: limits.POLL_BODY],
    "rows of a group, 4 MB": lambda: _filled(4 * MB, lambda n: f'{{"runId":"r-{n}","status":"STARTED"}}'),
    "rows of one id, 4 MB": lambda: _filled(4 * MB, lambda n: f'{{"runId":"r-1","status":"STARTED","x":{n}}}'),
    "an object of keys": lambda: _run(", ".join(f'"k{n}": 1' for n in range(240_000))),
    "63 MB in a status": lambda: b'{"data": {"runId": "r-1", "status": "' + b"x" * (63 * MB) + b'"}}',
    "7 MB in a status": lambda: b'{"data": {"runId": "r-1", "status": "' + b"x" * (7 * MB) + b'"}}',
    "7 MB of escapes": lambda: b'{"data": {"runId": "r-1", "status": "' + b"\\u0000" * (7 * MB // 6) + b'"}}',
    "7 MB with an emoji": lambda: b'{"data": {"runId": "r-1", "status": "' + b"x" * (7 * MB) + "😀".encode() + b'"}}',
    "a key of 7 MB": lambda: _run(f'"{"k_" * (3 * MB + MB // 2)}": 1'),
    "long numbers": lambda: _run('"a": [' + ",".join(["9" * 4_000] * 1_800) + "]"),
    "deep": lambda: b"[" * MB + b"]" * MB,
    "deep objects": lambda: b'{"data": ' + b'{"a": ' * 200_000 + b"1" + b"}" * 200_001,
    "64 MB of white space": lambda: b" " * (63 * MB) + _HEALTHY,
    "a log of 7 MB": lambda: _filled(7 * MB, lambda n: f'{{"sectionName": "s", "text": "line {n} of the log"}}'),
    "a report of 100,000 cases": lambda: (
        b'{"data": [' + b",".join(_case(number).encode() for number in range(100_000)) + b"]}"
    ),
    "a report of 63 MB": lambda: _filled(
        63 * MB,
        lambda n: f'{{"testCaseName": "c{n}", "status": "FAIL", "generalErrors": [{{"text": "{"x" * 5_000}"}}]}}',
    ),
    "63 MB of small cases": lambda: _filled(63 * MB, lambda n: f'{{"testCaseName":"c{n}","status":"PASS"}}'),
}
#: The same, packed: what is on the wire is a thousandth.
for _name in ("63 MB of {},", "8 MB of {},", "63 MB in a status"):
    BODIES[f"{_name} in gzip"] = lambda name=_name: gzip.compress(BODIES[name](), 6)  # type: ignore[misc]


def _head(status: int, **headers: Any) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} As ordered\r\nContent-Type: application/json\r\n{lines}\r\n".encode()


def _endless(head: bytes, more: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield more


#: Responses that are no body of a 200 with a length.
STREAMS: dict[str, Callable[[], Iterator[bytes]]] = {
    "an error of 63 MB": lambda: iter([_head(500, Content_Length=63 * MB), b'{"detail": "' + b"x" * (63 * MB)]),
    "an error without end": lambda: _endless(
        _head(500, Transfer_Encoding="chunked"), b"4000\r\n" + b"<p" * 8192 + b"\r\n"
    ),
    "tiny chunks": lambda: _endless(_head(200, Transfer_Encoding="chunked"), b"1\r\n \r\n" * 10_000),
    "headers without end": lambda: _endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"),
    "one header without end": lambda: _endless(b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 100_000),
    "interim responses": lambda: _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000),
    "trailers without end": lambda: _endless(
        _head(200, Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"
    ),
}
CASES = [*BODIES, *STREAMS]


class Server:
    """Sends one response to everybody who asks, and a healthy one below ``/healthy``."""

    def __init__(self, case: str) -> None:
        self._body = BODIES[case]() if case in BODIES else b""
        self._case = case
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._socket.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            data = b""
            while got := sock.recv(65_536):
                data += got
                if b"\r\n\r\n" not in data:
                    continue
                target, data = data.split(b" ", 2)[1], b""
                if target.startswith(b"/healthy"):
                    sock.sendall(_head(200, Content_Length=len(_HEALTHY)) + _HEALTHY)
                elif b"/run_stats/" in target:
                    sock.sendall(_head(404, Content_Length=0))
                elif self._case in STREAMS:
                    for piece in STREAMS[self._case]():
                        sock.sendall(piece)
                else:
                    packed = {"Content_Encoding": "gzip"} if self._case.endswith("in gzip") else {}
                    sock.sendall(_head(200, Content_Length=len(self._body), **packed))
                    sock.sendall(self._body)


def _session(url: str, timeout: float = 10.0) -> Session:
    return Session(
        "hostile", url, FixedHeaders({"Authorization": "Bearer canary-token"}, ("canary-token",)), timeout=timeout
    )


def _steps(what: str) -> Any:
    platform = OmiliaPlatform()
    if what == "poll":
        return platform.get_run(platform.run_by_id("r-1"))
    if what == "group":
        return platform.list_group("run:p-1", {"r-1", "r-2"}, None)
    if what == "log":
        return platform.read_log(Run("omilia", "r-1", RunState.RUNNING, "STARTED"))
    return platform.get_report(Run("omilia", "r-1", RunState.FINISHED, "SUCCESS"))


def _memory(peak: bool) -> float:
    """The memory of this process in MB: what it has, or the most that it has had since it began."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


async def in_the_triggerer(url: str, what: str) -> dict[str, Any]:
    """The cost of one step, and what became of the loop meanwhile."""
    from airflow_provider_testruns.transport.nonblocking import AsyncClient

    loop = asyncio.get_running_loop()
    stalls, busy, polls = [0.0], [0.0], 0
    over = asyncio.Event()

    async def beat() -> None:
        while not over.is_set():
            before, worked = loop.time(), time.process_time()
            await asyncio.sleep(_BEAT)
            stalls.append(loop.time() - before - _BEAT)
            busy.append(time.process_time() - worked)

    async def poll(client: AsyncClient) -> None:
        nonlocal polls
        while not over.is_set():
            await client.run(OmiliaPlatform().get_run(OmiliaPlatform().run_by_id("r-1")))
            polls += 1
            await asyncio.sleep(_POLL)

    async with AsyncClient(_session(f"{url}/healthy")) as healthy, AsyncClient(_session(url)) as client:
        await healthy.run(OmiliaPlatform().get_run(OmiliaPlatform().run_by_id("r-1")))
        others = [loop.create_task(beat()), loop.create_task(poll(healthy))]
        await asyncio.sleep(0.3)
        stalls[:], busy[:], polls, before, began = [0.0], [0.0], 0, _memory(False), time.perf_counter()
        outcome = "read"
        try:
            result = await client.run(_steps(what))
            outcome = f"read: {_said(result)}"
        except ApiError as e:
            outcome = f"{type(e).__name__}: {e}"
        took = time.perf_counter() - began
        await asyncio.sleep(_POLL)
        over.set()
        await asyncio.gather(*others)
    return {
        "stall": max(stalls),
        "busy": max(busy),
        "memory": _memory(True) - before,
        "took": took,
        "polls": polls,
        "outcome": outcome,
    }


def on_a_worker(url: str, what: str) -> dict[str, Any]:
    """The cost of one step."""
    from airflow_provider_testruns.transport.blocking import BlockingClient

    with BlockingClient(_session(f"{url}/healthy")) as healthy:
        healthy.run(OmiliaPlatform().get_run(OmiliaPlatform().run_by_id("r-1")))
    with BlockingClient(_session(url)) as client:
        before, began = _memory(False), time.perf_counter()
        try:
            outcome = f"read: {_said(client.run(_steps(what)))}"
        except ApiError as e:
            outcome = f"{type(e).__name__}: {e}"
        return {"memory": _memory(True) - before, "took": time.perf_counter() - began, "outcome": outcome}


def _said(result: Any) -> str:
    if isinstance(result, list):
        return f"{len(result):,} of it"
    cases = getattr(result, "cases", None)
    return f"{len(cases):,} cases" if cases is not None else f"status of {len(result.raw_state):,} characters"


def measure(case: str, where: str, what: str) -> dict[str, Any]:
    """One measurement, in a process of its own; the server is in this one."""
    server = Server(case)
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.hostile", "--one", server.url, where, what],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if run.returncode:
        return {"outcome": f"failed: {run.stderr[-300:]}"}
    measured: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Measure the cases that are named, or all."""
    if sys.argv[1:2] == ["--one"]:
        url, where, what = sys.argv[2:5]
        print(json.dumps(asyncio.run(in_the_triggerer(url, what)) if where == "triggerer" else on_a_worker(url, what)))
        return
    print(
        f"{'what':28} {'where':10} {'step':7} {'stall ms':>9} {'CPU ms':>7} {'MB':>7} {'s':>6} {'polls':>6} outcome",
    )
    for case in sys.argv[1:] or CASES:
        for where, what in [("triggerer", step) for step in ("poll", "group", "log")] + [
            ("worker", "poll"),
            ("worker", "report"),
        ]:
            got = measure(case, where, what)
            stall = f"{got['stall'] * 1000:9.1f} {got['busy'] * 1000:7.1f}" if "stall" in got else " " * 17
            print(
                f"{case:28} {where:10} {what:7} {stall} {got.get('memory', 0):7.1f} {got.get('took', 0):6.2f}"
                f" {got.get('polls', ''):>6}  {' '.join(got['outcome'].split())[:150]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
