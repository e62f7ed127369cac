"""Which scenarios there are, and how they are run: ``python -m benchmarks``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.subjects import CONN_ID, SUBJECTS

ROOT = Path(__file__).parents[1]
#: How many waits and older runs a group has where runs are listed.
GROUPS, OLDER = 5, 200
#: Ours twice: asked for individually, and listed.
COLUMNS: dict[str, tuple[str, int]] = {
    "ours, listed": ("ours", GROUPS),
    "ours, individually": ("ours", 0),
    "databricks": ("databricks", 0),
    "dbt": ("dbt", 0),
    "airbyte": ("airbyte", 0),
    "http": ("http", 0),
}
OURS = ("ours, listed", "ours, individually")
#: Its calls are synchronous: they hold the loop up, and a thousand of them take minutes. It has this part of the waits.
_SLOW, _LESS = "airbyte", 4
_HANGS = 900.0
_CONNECTION = f"AIRFLOW_CONN_{CONN_ID.upper()}"


@dataclass(frozen=True)
class Mode:
    """How much is measured.

    :param runs: how many waits.
    :param rounds: how often the scenarios of the short interval are repeated, interleaved.
    :param intervals: the short and the long poll interval.
    :param windows: how many intervals are measured, for each.
    :param growth: other numbers of waits, for ours.
    :param detect: how many waits the detection delay is taken of.
    :param faults: whom each fault meets.
    :param imports: how often each import is repeated.
    :param columns: for whom.
    :param budget: seconds for the scenarios of the short interval; no repetition is begun after them.
    :param many: how many waits there are for whom where it is about thousands; none for nobody.
    """

    runs: int = 1000
    rounds: int = 5
    intervals: tuple[float, float] = (5.0, 30.0)
    windows: tuple[int, int] = (2, 1)
    growth: tuple[int, ...] = (10, 100)
    detect: int = 200
    faults: Mapping[str, int] = None  # type: ignore[assignment]
    imports: int = 5
    columns: Sequence[str] = tuple(COLUMNS)
    budget: float = 900.0
    many: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.faults is None:
            object.__setattr__(self, "faults", {"503": 200, "outage": 50, "429": 5, "401": 50})


#: Thousands of waits. Databricks' has a connection and a token for each.
MANY = MappingProxyType({"empty": 10_000, "ours, listed": 10_000, "ours, individually": 10_000, "databricks": 2_000})
#: The poll interval of those, and how long the first minute, in which all of them begin, is measured; seconds.
MANY_INTERVAL, MANY_WARM = 10.0, 60.0
FULL = Mode(many=MANY)
QUICK = Mode(rounds=1, windows=(1, 1), growth=(), detect=100, imports=1, budget=0.0, many=MANY)
#: For the test: whether it works, not what it finds.
TINY = Mode(
    runs=10,
    rounds=1,
    intervals=(0.5, 0.5),
    windows=(2, 2),
    growth=(),
    detect=10,
    faults={},
    imports=1,
    columns=OURS,
    budget=0.0,
)
#: What each fault is, the poll interval meanwhile, when the runs are final, and when it is over; seconds.
FAULTS: dict[str, tuple[dict[str, Any], float, tuple[float, float], float]] = {
    "503": ({"kind": "503", "share": 0.02}, 1.0, (8.0, 10.0), 45.0),
    "outage": ({"kind": "outage", "at": 3.0, "for": 10.0}, 2.0, (4.0, 15.0), 45.0),
    "429": ({"kind": "429", "at": 2.0, "for": 4.0, "retry_after": 3}, 1.0, (7.0, 8.0), 35.0),
    "401": ({"kind": "401", "at": 2.0, "for": 2.0}, 1.0, (5.0, 7.0), 35.0),
}


class Benchmark:
    """The server, and the clients that are measured against it.

    :param folder: for certificates and an Airflow home.
    :param control: the server's control port.
    :param cores: the client's and the server's, if there are two.
    """

    def __init__(self, folder: Path, control: int, cores: tuple[int | None, int | None]) -> None:
        self._folder = folder
        self._control = control
        self._core = cores[0]
        self._other = cores[1]

    def measure(self, column: str, kind: str, site: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
        """One scenario, in a process of its own.

        :param column: for whom; a key of :data:`COLUMNS`, or ``empty``.
        :param kind: ``steady``, ``events`` or ``start``.
        :param site: as the server's ``Site`` takes it.
        :param spec: the rest of what the client is told.
        """
        with self._ready(column, kind, site, spec) as order:
            measured: dict[str, Any] = self._client(order, {_CONNECTION: order["connection"]})
            return {**measured, "runs": site.get("runs", 0)}

    def family(
        self, column: str, waves: Sequence[Sequence[tuple[str, Mapping[str, Any], dict[str, Any]]]]
    ) -> list[Any]:
        """Scenarios that go on side by side, wave after wave, each in a child of one process.

        :param column: for whom.
        :param waves: ``kind``, ``site`` and ``spec`` of each, as for :meth:`measure`.
        """
        with ExitStack() as stack:
            orders = [[stack.enter_context(self._ready(column, *scenario)) for scenario in wave] for wave in waves]
            results: list[Any] = self._client({"kind": "family", "waves": orders, "connection": _CONNECTION})
            for order, result in zip((order for wave in orders for order in wave), results, strict=True):
                if "error" in result:
                    raise RuntimeError(f"A scenario has failed: {order}: {result['error']}")
            return results

    @contextmanager
    def _ready(
        self, column: str, kind: str, site: Mapping[str, Any], spec: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        subject, groups = COLUMNS.get(column, (column, 0))
        groups = min(groups, site.get("runs", groups))
        older = OLDER if groups or kind == "start" else 0
        port = self._ask("POST", "/sites", {**site, "groups": groups or int(kind == "start"), "older": older})["port"]
        try:
            yield {
                "kind": kind,
                "subject": subject,
                "groups": groups,
                "port": port,
                "control": self._control,
                "runs": site.get("runs", 0),
                "core": self._core,
                "connection": json.dumps(SUBJECTS[subject].connection(port, str(self._folder / "authority.pem"))),
                **spec,
            }
        finally:
            self._ask("DELETE", f"/sites/{port}")

    def imports(self, modules: Sequence[str], second_core: bool = False) -> float:
        """How long importing them takes in a process that has Airflow's SDK; seconds."""
        core = self._other if second_core else self._core
        seconds: float = self._client({"kind": "import", "modules": list(modules), "core": core})["seconds"]
        return seconds

    def _client(self, spec: dict[str, Any], more: Mapping[str, str] | None = None) -> Any:
        authority = str(self._folder / "authority.pem")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "SSL_"))
            and not name.lower().endswith("_proxy")
            and name != "PYTHONDONTWRITEBYTECODE"  # imports are those of a process that finds bytecode
        }
        environment |= {
            "AIRFLOW_HOME": str(self._folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "REQUESTS_CA_BUNDLE": authority,
            "SSL_CERT_FILE": authority,
            **(more or {}),
        }
        command = [sys.executable, "-m", "benchmarks.client", json.dumps(spec)]
        done = subprocess.run(
            command, env=environment, cwd=self._folder, capture_output=True, text=True, timeout=_HANGS, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"A scenario has failed: {spec}\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._control}{path}", method=method, data=data)
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


@contextmanager
def benchmark() -> Iterator[Benchmark]:
    """Certificates, a server on one core, and clients on the other."""
    import trustme

    cores: tuple[int | None, int | None] = (None, None)
    if hasattr(os, "sched_getaffinity") and len(mine := sorted(os.sched_getaffinity(0))) > 1:
        cores = (mine[0], mine[1])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        command = [sys.executable, "-m", "benchmarks.server", str(folder / "server.pem")]
        command += [str(cores[1])] if cores[1] is not None else []
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            yield Benchmark(folder, json.loads(server.stdout.readline())["control"], cores)
        finally:
            # Without its standard input it ends.
            server.communicate(timeout=10)


def run(mode: Mode, say: Any = print) -> dict[str, Any]:
    """Measure everything.

    :param mode: how much of it.
    :param say: takes a line about what is going on.
    """
    began = time.monotonic()
    found: dict[str, Any] = {
        "steady": {},
        "slow": {},
        "growth": {},
        "detect": {},
        "faults": {},
        "starts": {},
        "imports": {},
    }
    with benchmark() as bench:
        _imports(bench, mode, found, say)
        _side_by_side(bench, mode, found, say)
        _steady(bench, mode, found, say)
        found["many"] = many(bench, mode, say)
    found["seconds"] = time.monotonic() - began
    return found


def _imports(bench: Benchmark, mode: Mode, found: dict[str, Any], say: Any) -> None:
    say("imports")
    subjects = dict.fromkeys(COLUMNS[column][0] for column in mode.columns)
    parts = [
        (name, part, modules)
        for name in subjects
        for part, modules in SUBJECTS[name].imports.items()
        if part != "sensors" or name == "ours"
    ]
    with ThreadPoolExecutor(2) as pool:
        for round_ in range(mode.imports + 1):
            jobs = [
                (name, part, pool.submit(bench.imports, modules, bool(i % 2)))
                for i, (name, part, modules) in enumerate(parts)
            ]
            for name, part, job in jobs:
                if round_:  # the first writes the bytecode
                    found["imports"].setdefault(name, {}).setdefault(part, []).append(job.result())
                else:
                    job.result()


def _side_by_side(bench: Benchmark, mode: Mode, found: dict[str, Any], say: Any) -> None:
    """What does not depend on how fast the machine is at that time."""
    short, long = mode.intervals
    jobs: list[tuple[str, str, Any]] = []
    with ThreadPoolExecutor(12) as pool:
        say("faults, lost starts and detection delays")
        families = {column: pool.submit(_family_of, bench, mode, column) for column in mode.columns}
        for column, family in families.items():
            for part, key, result in family.result():
                if key:
                    found[part].setdefault(column, {})[key] = result
                else:
                    found[part][column] = result
        say("growth")
        for number in mode.growth:
            for column in OURS:
                spec = {"interval": short, "warm": short, "window": 2 * short}
                job = pool.submit(bench.measure, column, "steady", {"runs": number}, **spec)
                jobs.append((f"growth/{column}", str(number), job))
        _gather(jobs, found)
        if mode.growth:
            say(f"{mode.runs} waits, a look every {long:g} s, all side by side")
            spec = {"interval": long, "warm": min(5.0, long), "window": mode.windows[1] * long}
            for column in (*mode.columns, "empty"):
                job = pool.submit(bench.measure, column, "steady", {"runs": _runs(mode, column)}, **spec)
                jobs.append((f"slow/{column}", "", job))
            _gather(jobs, found)


def _family_of(bench: Benchmark, mode: Mode, column: str) -> list[tuple[str, str, Any]]:
    short = mode.intervals[0]
    names: list[tuple[str, str]] = []
    waves: list[list[tuple[str, Mapping[str, Any], dict[str, Any]]]] = [[], []]
    for fault, runs in mode.faults.items():
        what, interval, finish, limit = FAULTS[fault]
        names.append(("faults", fault))
        site = {"runs": runs, "finish": finish, "faults": [what]}
        waves[0].append(("events", site, {"interval": interval, "limit": limit}))
    if SUBJECTS[COLUMNS[column][0]].start is not None and column != "ours, individually":
        names.append(("starts", ""))
        waves[0].append(("start", {"lose_response": True}, {}))
    # The slow one keeps others of the same core waiting: less of it.
    runs = max(1, mode.detect // _LESS) if column == _SLOW else mode.detect
    names.append(("detect", ""))
    site = {"runs": runs, "finish": (2 * short, 3 * short)}
    waves[1].append(("events", site, {"interval": short, "limit": 6 * short}))
    results = bench.family(column, waves)
    return [(part, key, result) for (part, key), result in zip(names, results, strict=True)]


def _gather(jobs: list[tuple[str, str, Any]], found: dict[str, Any]) -> None:
    for where, key, job in jobs:
        part, _, column = where.partition("/")
        if key:
            found[part].setdefault(column, {})[key] = job.result()
        else:
            found[part][column] = job.result()
    jobs.clear()


def _steady(bench: Benchmark, mode: Mode, found: dict[str, Any], say: Any) -> None:
    """What is measured alone, one after the other, again and again; the slow one once, at the end."""
    short = mode.intervals[0]
    spec = {"interval": short, "warm": short, "window": mode.windows[0] * short}
    began = time.monotonic()
    repeated = [column for column in ("empty", *mode.columns) if column != _SLOW]
    order = [(round_, column) for round_ in range(mode.rounds) for column in repeated]
    order += [(0, _SLOW)] if _SLOW in mode.columns else []
    for round_, column in order:
        if round_ and time.monotonic() - began > mode.budget:
            continue
        runs = _runs(mode, column)
        say(f"{runs} waits, a look every {short:g} s: {column}, round {round_ + 1}")
        measured = bench.measure(column, "steady", {"runs": runs}, **spec)
        found["steady"].setdefault(column, []).append(measured)


def many(bench: Benchmark, mode: Mode, say: Any) -> dict[str, Any]:
    """Thousands of waits that begin together, as after a restart, and a round of them after a minute.

    :param bench: the server and the clients.
    :param mode: for how many.
    :param say: takes a line about what is going on.
    """
    found = {}
    for column, runs in mode.many.items():
        say(f"{runs} waits, a look every {MANY_INTERVAL:g} s: {column}")
        spec = {"interval": MANY_INTERVAL, "warm": MANY_WARM, "window": 2 * MANY_INTERVAL}
        found[column] = bench.measure(column, "steady", {"runs": runs}, **spec)
    return found


def _runs(mode: Mode, column: str) -> int:
    """How many steady waits a subject has."""
    return max(1, mode.runs // _LESS) if column == _SLOW else mode.runs
