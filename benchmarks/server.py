"""The platforms that are waited for, as one process: APIs over TLS that answer late, count, and fail as they are told.

Deliberately not the sandbox: it checks and remembers what is asked, and that takes its time. Each scenario has a
*site* of its own: a listener, its runs, its faults and its counts, so that scenarios can go on side by side and an
outage takes down nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any

#: Of Omilia's runs, the form of an id; the number is what the other platforms call the run.
RUN_ID = "00000000-0000-4000-8000-{:012d}"
#: The project of a group.
PROJECT_ID = "00000000-0000-4000-9000-{:012d}"
#: The number of a run that is final from the beginning.
FINAL = 0
#: The first number of those runs that are listed beside the ones that are waited for, and that began before them.
OLDER = 1_000_000
_NUMBER = re.compile(r"(\d+)/?$")
_CREATED, _FINISHED = "2026-11-01T10:00:00.000000", "2026-11-01T10:20:00.000000"


def _row(number: int, project: int, final: bool) -> bytes:
    """A run of Omilia, with all that its API page shows of one."""
    run_id = RUN_ID.format(number)
    row = {
        "projectId": PROJECT_ID.format(project),
        "parallelTestCases": 1,
        "group": None,
        "utterance": None,
        "description": None,
        "runId": run_id,
        "status": "SUCCESS" if final else "STARTED",
        "createdAt": _CREATED,
        "finishedAt": _FINISHED if final else None,
        "tasks": [],
        "artifact": {
            "artifactId": RUN_ID.format(number + 10 * OLDER),
            "name": f"{run_id}_artifacts.zip",
            "createdAt": _FINISHED,
            "deletedAt": None,
            "ttl": 604800,
            "isExpired": False,
            "runId": run_id,
        }
        if final
        else None,
        "isRevocable": not final,
        "executionMeta": None if final else {"current": 3, "total": 20},
        "duration": "0:20:00" if final else "0:03:00",
    }
    return json.dumps(row).encode()


def _older(group: int, age: int) -> bytes:
    """One of the runs that were there before."""
    day, minute = divmod(age, 24 * 60)
    created = f"2026-10-{30 - day:02d}T{23 - minute // 60:02d}:{59 - minute % 60:02d}:00.000000"
    return _row(OLDER * (group + 1) + age, group, True).replace(_CREATED.encode(), created.encode())


def _databricks(number: int, final: bool) -> bytes:
    state = {
        "life_cycle_state": "TERMINATED" if final else "RUNNING",
        "state_message": "",
        "user_cancelled_or_timedout": False,
    }
    if final:
        state["result_state"] = "SUCCESS"
    return json.dumps(
        {
            "job_id": 11223344,
            "run_id": number,
            "number_in_job": number,
            "creator_user_name": "user.name@example.com",
            "state": state,
            "start_time": 1793527200000,
            "setup_duration": 0,
            "execution_duration": 0,
            "cleanup_duration": 0,
            "end_time": 0,
            "trigger": "ONE_TIME",
            "run_name": "benchmark",
            "run_page_url": f"https://127.0.0.1/#job/11223344/run/{number}",
            "run_type": "JOB_RUN",
            "tasks": [],
            "format": "MULTI_TASK",
        }
    ).encode()


def _dbt(number: int, final: bool) -> bytes:
    return json.dumps(
        {
            "status": {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""},
            "data": {
                "id": number,
                "job_definition_id": 1,
                "account_id": 1,
                "project_id": 1,
                "environment_id": 1,
                "status": 10 if final else 3,
                "status_humanized": "Success" if final else "Running",
                "created_at": "2026-11-01 10:00:00.000000+00:00",
                "started_at": "2026-11-01 10:00:05.000000+00:00",
                "finished_at": "2026-11-01 10:20:00.000000+00:00" if final else None,
                "is_complete": final,
                "is_success": final,
                "href": f"https://127.0.0.1/accounts/1/projects/1/runs/{number}/",
            },
        }
    ).encode()


def _airbyte(number: int, final: bool) -> bytes:
    return json.dumps(
        {
            "jobId": number,
            "status": "succeeded" if final else "running",
            "jobType": "sync",
            "startTime": "2026-11-01T10:00:00Z",
            "connectionId": "00000000-0000-4000-8000-000000000001",
            "duration": "PT20M",
        }
    ).encode()


class Site:
    """What one scenario talks to.

    :param spec: ``runs`` (how many), ``groups`` and ``older`` (how they are listed), ``finish`` (seconds after the
        beginning between which they become final; none for never), ``faults``, ``latency``.
    :param tls: the server's certificate.
    """

    def __init__(self, spec: dict[str, Any], tls: ssl.SSLContext) -> None:
        self._tls = tls
        self.latency: float = spec.get("latency", 0.02)
        runs, groups = spec.get("runs", 0), spec.get("groups", 0)
        dice = random.Random(4711)
        #: When each run is final, in seconds of the machine's monotonic clock after the beginning.
        self.finish: dict[int, float] = {}
        if spec.get("finish"):
            low, high = spec["finish"]
            self.finish = {number: dice.uniform(low, high) for number in range(1, runs + 1)}
        self.groups: list[list[int]] = [list(range(1 + group, runs + 1, groups)) for group in range(groups)]
        self._older = [b",".join(_older(group, i) for i in range(spec.get("older", 0))) for group in range(groups)]
        self._rows = {
            number: (_row(number, group, False), _row(number, group, True))
            for group, members in enumerate(self.groups)
            for number in members
        }
        self.faults: list[dict[str, Any]] = spec.get("faults", [])
        self.lose_response = bool(spec.get("lose_response"))
        self._dice = dice
        self.began: float | None = None
        self.transports: set[asyncio.Transport] = set()
        self.port = 0
        self._listener: asyncio.AbstractServer | None = None
        self._handles: list[asyncio.TimerHandle] = []
        self._outages: set[asyncio.Task[None]] = set()
        self._not_before: dict[str, float] = {}
        self.started: list[dict[str, Any]] = []
        self.counts = dict.fromkeys(
            (
                "connections",
                "requests",
                "tokens",
                "states",
                "lists",
                "faults",
                "too_early",
                "in_fault",
                "sent",
                "starts",
            ),
            0,
        )

    async def open(self) -> None:
        """Listen, on the port of before if there was one."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Http(self), "127.0.0.1", self.port, ssl=self._tls, backlog=4096, ssl_handshake_timeout=60
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Stop listening and drop every connection."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for transport in list(self.transports):
            transport.abort()

    def close(self) -> None:
        """The scenario is over."""
        for handle in self._handles:
            handle.cancel()
        self.shut()

    def begin(self) -> None:
        """The scenario's time starts."""
        loop = asyncio.get_running_loop()
        self.began = time.monotonic()
        self.counts = dict.fromkeys(self.counts, 0)
        for fault in self.faults:
            if fault["kind"] == "outage":
                self._handles.append(loop.call_later(fault["at"], self.shut))
                self._handles.append(loop.call_later(fault["at"] + fault["for"], self._reopen))

    def _reopen(self) -> None:
        task = asyncio.get_running_loop().create_task(self.open())
        self._outages.add(task)
        task.add_done_callback(self._outages.discard)

    def stats(self) -> dict[str, Any]:
        """The counts so far, and when runs became final."""
        began = self.began or 0.0
        return {**self.counts, "finish": {number: began + at for number, at in self.finish.items()}}

    @property
    def _now(self) -> float:
        return 0.0 if self.began is None else time.monotonic() - self.began

    def _final(self, number: int) -> bool:
        return number == FINAL or self._now >= self.finish.get(number, float("inf"))

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        """The response to a request; ``None`` where the connection is lost instead."""
        self.counts["requests"] += 1
        path, _, query = target.partition("?")
        if path.endswith("/token"):
            self.counts["tokens"] += 1
            token = f"benchmark-token-{self._dice.getrandbits(64):016x}"
            return 200, {}, json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).encode()
        if method == "POST":
            return self._start(path, body)
        fault = self._fault(target)
        if fault is not None:
            self.counts["faults"] += 1
            return fault
        return self._look(path, query, body)

    def _fault(self, target: str) -> tuple[int, dict[str, str], bytes] | None:
        now = self._now
        if now < self._not_before.get(target, 0.0):
            self.counts["too_early"] += 1
        for fault in self.faults:
            if not (fault.get("at", 0.0) <= now < fault.get("at", 0.0) + fault.get("for", float("inf"))):
                continue
            if fault["kind"] == "503":
                self.counts["in_fault"] += 1
                if self._dice.random() < fault["share"]:
                    return 503, {}, b'{"detail": "busy"}'
            elif fault["kind"] == "429":
                self.counts["in_fault"] += 1
                self._not_before[target] = now + fault["retry_after"]
                return 429, {"Retry-After": str(fault["retry_after"])}, b'{"detail": "too many requests"}'
            elif fault["kind"] == "401":
                self.counts["in_fault"] += 1
                return 401, {"WWW-Authenticate": "Bearer"}, b'{"detail": "unauthorized"}'
        return None

    def _look(self, path: str, query: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/api/projects/"):
            return self._project(path)
        if path.startswith("/api/2.2/jobs/runs/get"):
            asked = json.loads(body)["run_id"] if body else int(query.rpartition("=")[2])
            self.counts["states"] += 1
            return 200, {}, _databricks(asked, self._final(asked))
        match = _NUMBER.search(path)
        if match is None:
            return 404, {}, b"{}"
        number = int(match[1][-12:])
        final = self._final(number)
        self.counts["states"] += 1
        if path.startswith("/api/runs/"):
            return 200, {}, b'{"data": ' + _row(number, 0, final) + b"}"
        if path.startswith("/api/v2/accounts/"):
            return 200, {}, _dbt(number, final)
        if path.startswith("/jobs/"):
            return 200, {}, _airbyte(number, final)
        if path.startswith("/http/"):
            return (200, {}, b'{"state": "final"}') if final else (404, {}, b'{"state": "running"}')
        self.counts["states"] -= 1
        return 404, {}, b"{}"

    def _project(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = path.split("/")
        group = int(parts[3][-12:])
        if len(parts) > 4 and parts[4] == "runs":
            self.counts["lists"] += 1
            members = self.groups[group] if group < len(self.groups) else []
            self.counts["states"] += len(members)
            rows = [self._rows[number][self._final(number)] for number in members]
            rows += [
                _row(run["number"], group, False).replace(_CREATED.encode(), run["at"].encode()) for run in self.started
            ]
            if group < len(self._older) and self._older[group]:
                rows.append(self._older[group])
            return 200, {}, b'{"data": [' + b",".join(rows) + b"]}"
        latest = json.loads(_older(group, 0))
        project = {"id": PROJECT_ID.format(group), "name": "benchmark", "group": "benchmark", "latestRun": latest}
        return 200, {}, json.dumps({"data": project}).encode()

    def _start(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        self.counts["starts"] += 1
        number = 500 + self.counts["starts"]
        self.started.append({"number": number, "at": time.strftime("%Y-%m-%dT%H:%M:%S.000000", time.gmtime())})
        if self.lose_response and self.counts["starts"] == 1:
            # The work is done; the answer never comes.
            return None
        if path == "/api/runs/":
            return 201, {}, b'{"data": ' + _row(number, 0, False) + b"}"
        if path.startswith("/api/2.2/jobs/"):
            return 200, {}, json.dumps({"run_id": number, "number_in_job": number}).encode()
        if path.startswith("/api/v2/accounts/"):
            return 200, {}, _dbt(number, False)
        return 200, {}, _airbyte(number, False)


class Http(asyncio.Protocol):
    """HTTP/1.1, as far as clients of APIs use it: requests with a length, responses after the site's latency."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._site.counts["connections"] += 1
        self._site.transports.add(transport)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._site.transports.discard(self._transport)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            head, separator, rest = self._received.partition(b"\r\n\r\n")
            if not separator:
                return
            lines = head.decode("latin-1").split("\r\n")
            length, close = 0, False
            for line in lines[1:]:
                name, _, value = line.partition(":")
                name = name.lower()
                if name == "content-length":
                    length = int(value)
                elif name == "connection" and value.strip().lower() == "close":
                    close = True
            if len(rest) < length:
                return
            self._received = rest[length:]
            method, target, _ = lines[0].split(" ", 2)
            asyncio.get_running_loop().call_later(
                self._site.latency, self._response, method, target, rest[:length], close
            )

    def _response(self, method: str, target: str, body: bytes, close: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        response = self._site.answer(method, target, body)
        if response is None:
            transport.abort()
            return
        status, headers, payload = response
        headers = {"Date": formatdate(usegmt=True), "Content-Type": "application/json", **headers}
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n{more}Content-Length: {len(payload)}\r\n\r\n"
        self._site.counts["sent"] += len(payload)
        transport.write(head.encode("latin-1") + payload)
        if close:
            transport.close()


_REASONS = {
    200: "OK",
    201: "Created",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class Control:
    """How the measuring side orders sites: JSON over plain HTTP, one request a connection."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._sites: dict[int, Site] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            answer = json.dumps(await self._handle(method, target, body)).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _handle(self, method: str, target: str, body: bytes) -> Any:
        if method == "POST" and target == "/sites":
            site = Site(json.loads(body), self._tls)
            await site.open()
            self._sites[site.port] = site
            return {"port": site.port}
        site = self._sites[int(target.split("/")[2])]
        if target.endswith("/begin"):
            site.begin()
        elif method == "DELETE":
            site.close()
            del self._sites[site.port]
        return site.stats()


async def _main(certificate: str, says: Callable[[str], None]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    control = await asyncio.start_server(Control(tls).serve, "127.0.0.1", 0)
    says(json.dumps({"control": control.sockets[0].getsockname()[1]}))
    # Whoever started this process holds the other end: when it is gone, so is this.
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """``python -m benchmarks.server CERTIFICATE [CORE]``: says on standard output where it is controlled."""
    if len(sys.argv) > 2 and sys.argv[2]:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    with suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.run(_main(sys.argv[1], lambda line: print(line, flush=True)))


if __name__ == "__main__":
    main()
