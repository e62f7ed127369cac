"""One scenario for one subject, in a process of its own: ``python -m benchmarks.client SPEC`` prints what it measured.

Triggers are run as the triggerer runs them: each is a task of one event loop that has a greenback portal and goes
through ``trigger.run()``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import resource
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Seconds between two polls at whether the loop is late.
TICK = 0.01
#: What counts as a stall: Airflow's own ``blocked_main_thread_warning_threshold``.
STALL = 0.2
_ROLLUP = Path("/proc/self/smaps_rollup")


def main() -> None:
    """Measure what the first argument says (see :mod:`.plan`), and print it."""
    spec = json.loads(sys.argv[1])
    if spec.get("core") is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {spec["core"]})
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
    if spec["kind"] == "import":
        print(json.dumps({"seconds": _import(spec["modules"])}))
        return
    # Airflow's logging makes every line and writes it to standard output: that much of it counts, as in the triggerer.
    said = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    result = json.dumps(_family(spec) if spec["kind"] == "family" else _measure(spec))
    with os.fdopen(said, "w") as standard_output:
        standard_output.write(result + "\n")


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    if spec["kind"] == "start":
        return _start(spec)
    return asyncio.run(_steady(spec) if spec["kind"] == "steady" else _events(spec))


def _family(spec: dict[str, Any]) -> list[Any]:
    """Several scenarios, each in a child of this process, which has imported and looked up what all of them need.

    Only for what neither the time nor the memory of a process matters to.
    """
    waves: list[list[dict[str, Any]]] = spec["waves"]
    first = next(member for wave in waves for member in wave if member["kind"] == "events")
    os.environ[spec["connection"]] = first["connection"]
    asyncio.run(_prepare(first))
    results = []
    for wave in waves:
        pipes = [_child(member, spec["connection"]) for member in wave]
        results += [json.loads(pipe.read()) for pipe in pipes]
        for pipe in pipes:
            pipe.close()
        for _ in pipes:
            os.wait()
    return results


def _child(spec: dict[str, Any], connection: str) -> Any:
    from asgiref.sync import SyncToAsync

    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return os.fdopen(reading)
    try:
        os.close(reading)
        os.environ[connection] = spec["connection"]
        # The one thread of asgiref, through which Airflow reads connections, has not come along.
        SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)
        try:
            said = json.dumps(_measure(spec))
        except BaseException as e:  # the parent is told, whatever it is
            said = json.dumps({"error": f"{type(e).__name__}: {e}"})
        with os.fdopen(writing, "w") as pipe:
            pipe.write(said)
    finally:
        os._exit(0)


def _import(modules: list[str]) -> float:
    import importlib

    import airflow.sdk  # noqa: F401  # every DAG file has it

    gc.collect()
    before = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    return time.perf_counter() - before


def _control(spec: dict[str, Any], path: str = "", method: str = "GET") -> dict[str, Any]:
    url = f"http://127.0.0.1:{spec['control']}/sites/{spec['port']}{path}"
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    with urllib.request.urlopen(request, timeout=30) as response:
        stats: dict[str, Any] = json.load(response)
    return stats


def memory() -> int:
    """What this process has for itself, in bytes."""
    if _ROLLUP.exists():
        private = [line.split()[1] for line in _ROLLUP.read_text().splitlines() if line.startswith("Private_")]
        return sum(map(int, private)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def percentile(values: list[float], share: float) -> float:
    """The value below which so much of them lies; not a number when there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Lag:
    """How late the event loop is, by a task that wants to run every :data:`TICK`.

    A loop that is held up for a second is late for each of the hundred times in it, not only once.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.stalls = 0
        self.longest = 0.0

    async def watch(self) -> None:
        """Look, until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            late = max(0.0, time.monotonic() - before - TICK)
            self.stalls += late > STALL
            self.longest = max(self.longest, late)
            while late >= 0.0:
                self.late.append(late)
                late -= TICK


async def _go_through(trigger: Any) -> tuple[float, Any]:
    """What ``TriggerRunner.run_trigger`` does: when the event came, and what it says."""
    import greenback

    await greenback.ensure_portal()
    async for event in trigger.run():
        return time.monotonic(), event.payload
    return time.monotonic(), None


async def _prepare(spec: dict[str, Any]) -> Any:
    """Import and look up whatever the first wait does, for that is not what is measured."""
    from benchmarks.subjects import SUBJECTS, load

    subject = SUBJECTS[spec["subject"]]
    load(spec["subject"])
    async with asyncio.timeout(60):
        _, payload = await asyncio.create_task(_go_through(subject.trigger(0, spec["interval"], 0)))
    if not subject.passed(payload):
        raise RuntimeError(f"The first wait of {subject.title} has not worked: {payload}")
    return subject


async def _begin(subject: Any, spec: dict[str, Any]) -> list[asyncio.Task[tuple[float, Any]]]:
    tasks = []
    for number in range(1, spec["runs"] + 1):
        trigger = subject.trigger(number, spec["interval"], spec["groups"])
        tasks.append(asyncio.create_task(_go_through(trigger)))
        await asyncio.sleep(0)
    return tasks


async def _steady(spec: dict[str, Any]) -> dict[str, Any]:
    """Many waits for runs that go on and on."""
    subject = await _prepare(spec)
    gc.collect()
    memory_before = memory()
    await asyncio.to_thread(_control, spec, "/begin", "POST")
    lag = Lag()
    watching = asyncio.create_task(lag.watch())
    began = time.monotonic()
    tasks = await _begin(subject, spec)
    await asyncio.sleep(max(0.0, began + spec["warm"] - time.monotonic()))
    first, first_cpu, first_at = await asyncio.to_thread(_control, spec), time.process_time(), time.monotonic()
    await asyncio.sleep(max(0.0, first_at + spec["window"] - time.monotonic()))
    last, last_cpu, last_at = await asyncio.to_thread(_control, spec), time.process_time(), time.monotonic()
    memory_after = memory()
    watching.cancel()
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, watching, return_exceptions=True)
    trigger_row = len(json.dumps(subject.trigger(1, spec["interval"], spec["groups"]).serialize()[1]))
    return {
        "cpu": last_cpu - first_cpu,
        "seconds": last_at - first_at,
        "states": last["states"] - first["states"],
        "requests": last["requests"] - first["requests"],
        "connections": last["connections"],
        "tokens": last["tokens"],
        "all_states": last["states"],
        "memory": memory_after - memory_before,
        "stalls": lag.stalls,
        "lag": percentile(lag.late, 0.99),
        "longest": lag.longest,
        "ended": len(ended),
        "row": trigger_row,
    }


async def _events(spec: dict[str, Any]) -> dict[str, Any]:
    """Waits for runs that become final; what meets them on the way is the site's to say."""
    subject = await _prepare(spec)
    await asyncio.to_thread(_control, spec, "/begin", "POST")
    tasks = await _begin(subject, spec)
    await asyncio.wait(tasks, timeout=spec["limit"])
    stats = await asyncio.to_thread(_control, spec)
    finish = {int(number): at for number, at in stats.pop("finish").items()}
    delays, failed, waiting = [], 0, 0
    reasons: dict[str, int] = {}
    for number, task in enumerate(tasks, 1):
        if not task.done():
            waiting += 1
            continue
        error = task.exception()
        if error is None and subject.passed(task.result()[1]):
            delays.append((task.result()[0] - finish[number]) / spec["interval"])
            continue
        failed += 1
        why = f"{type(error).__name__}: {error}" if error is not None else str(task.result()[1])
        reasons[why[:80]] = reasons.get(why[:80], 0) + 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        **stats,
        "failed": failed,
        "waiting": waiting,
        "delays": delays,
        "reasons": sorted(reasons, key=lambda why: -reasons[why])[:3],
    }


def _start(spec: dict[str, Any]) -> dict[str, Any]:
    """One start whose response is lost."""
    from benchmarks.subjects import SUBJECTS

    subject = SUBJECTS[spec["subject"]]
    _control(spec, "/begin", "POST")
    began = time.monotonic()
    try:
        assert subject.start is not None
        outcome = f"goes on with {subject.start()}"
        failed = False
    except Exception as e:  # whatever the provider raises is the result
        outcome, failed = f"{type(e).__name__}: {e}", True
    stats = _control(spec)
    return {"starts": stats["starts"], "failed": failed, "outcome": outcome[:200], "seconds": time.monotonic() - began}


if __name__ == "__main__":
    main()
