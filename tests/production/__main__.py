"""``python -m tests.production``: the example DAGs and the chaos plan on a cluster as in production.

PostgreSQL behind PgBouncer with transaction pooling, Redis, CeleryExecutor, two schedulers, triggerers, workers and API
servers; the clocks of the second host are minutes off. Everything listens on 127.0.0.1 and is in one folder.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from airflow_provider_testruns.sandbox.server import SandboxServer
from demo.__main__ import POOLS
from demo.airflow import AirflowFailed
from demo.results import collect, expected_end, table
from tests.chaos.books import Balance, balance
from tests.chaos.plan import DAG_ID, make_plan
from tests.chaos.run import DAGS, OPTIONS, passwords, search
from tests.chaos.storm import Weather

from .cluster import Cluster
from .ledger import PostgreSQLLedger
from .parts import SetUpError, check_broker, check_port, find_programs
from .storm import ProductionStorm

_ROOT = Path(__file__).parents[2]
_EXAMPLES = _ROOT / "example_dags"
#: How many task instances run at once.
_AT_ONCE = 12
#: How long the example DAGs may take; seconds.
_EXAMPLES_WITHIN = 900.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it.

    :param arguments: the command line's; ``None`` takes the process's own.
    :return: the exit status: 0 when all is as it should be, 1 when not, 2 when the cluster can't be set up.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.production", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="repeats all choices")
    parser.add_argument("--tasks", type=int, default=300, help="task instances; most have more than one run")
    parser.add_argument("--minutes", type=float, default=60, help="give up after this time")
    parser.add_argument("--folder", type=Path, default=_ROOT / ".production" / "cluster", help="where everything goes")
    parser.add_argument("--port", type=int, default=0, help="of the API servers' address (default: a free one)")
    parser.add_argument("--broker", help="a Redis that is there already, redis://host:port/number")
    parser.add_argument("--no-install", action="store_true", help="don't install Debian's packages, also as root")
    parser.add_argument("--no-examples", action="store_true", help="only the chaos plan")
    options = parser.parse_args(arguments)
    # What is asked to end leaves no process behind either.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(options)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", flush=True)

    try:
        if options.port:
            check_port(options.port)
        if options.broker:
            check_broker(options.broker)
        programs = find_programs(install=not options.no_install, say=say)
        random = Random(options.seed)
        with SandboxServer(seed=options.seed, run_seconds=12.0) as sandbox:
            folder = options.folder.resolve()
            shutil.rmtree(folder / "dags", ignore_errors=True)
            shutil.copytree(_EXAMPLES, folder / "dags")
            shutil.copy(DAGS / "chaos.py", folder / "dags")
            plan = make_plan(random, options.tasks, sandbox.control)
            plan.write(folder / "plan.json")
            connections = sandbox.connections()
            for connection in connections.values():
                # The window of a lost start is this and a minute.
                connection["extra"]["timeout"] = 5
            cluster = Cluster(
                folder,
                programs,
                dags=folder / "dags",
                connections=connections,
                platform_port=urlsplit(sandbox.url).port or 0,
                options={**OPTIONS, "CHAOS_PLAN": str(folder / "plan.json"), "CHAOS_AT_ONCE": str(_AT_ONCE)},
                port=options.port,
                broker=options.broker,
                say=say,
            )
            with cluster:
                faults = [] if options.no_examples else _examples(cluster, say)
                conninfo = f"host=127.0.0.1 port={cluster.servers.ports['postgresql']} user=airflow dbname=airflow"
                ledger = PostgreSQLLedger(conninfo)
                ledger.begin()
                cluster.wait_for_dags([DAG_ID])
                weather = Weather(actions=max(5, options.tasks // 4))
                storm = ProductionStorm(cluster, cluster.api, sandbox.control, plan, ledger, random, weather, say)
                storm.begin()
                storm.run(cluster.api.trigger(DAG_ID), options.minutes * 60)
                # What was asked to stop gets the time that it may take.
                time.sleep(5.0)
                books = balance(storm, ledger, cluster.logs)
                books.counts["seconds"] = round(time.monotonic() - began)
                secrets = set(sandbox.control.issued_tokens()) | set(passwords(connections))
                books.counts["secrets searched for"] = len(secrets)
                dump = ledger.dump()
            books.faults += faults + search(secrets, dump, cluster.logs)
    except (SetUpError, AirflowFailed) as e:
        print(e, file=sys.stderr)
        return 2
    except TimeoutError as e:
        print(f"Not done: {e}", file=sys.stderr)
        return 1
    return _tell(books, options.seed, folder)


def _examples(cluster: Cluster, say: Callable[[str], None]) -> list[str]:
    """Run the example DAGs.

    :return: what did not end as its example says.
    """
    dag_ids = sorted(path.stem for path in _EXAMPLES.glob("example_*.py"))
    for name, slots in POOLS.items():
        cluster.api.make_pool(name, slots)
    dags = cluster.wait_for_dags(dag_ids)
    runs = {dag_id: cluster.api.trigger(dag_id) for dag_id in dag_ids}
    say(f"{len(runs)} example DAGs are triggered")
    for dag_id, run_id in runs.items():
        cluster.wait_for_run(dag_id, run_id, within=_EXAMPLES_WITHIN)
    ends = [collect(cluster.api, dag_id, run_id, expected_end(dags[dag_id])) for dag_id, run_id in runs.items()]
    print(f"\n{table(ends)}\n", flush=True)
    return [f"{end.dag_id}: {end.surprise}" for end in ends if end.surprise]


def _tell(books: Balance, seed: int, folder: Path) -> int:
    print(f"\nSeed {seed}")
    for name, count in sorted(books.counts.items()):
        print(f"{count:7}  {name}")
    for fault in books.faults:
        print(f"  FAULT  {fault}")
    print("The books balance." if not books.faults else f"{len(books.faults)} faults; all is in {folder}")
    return 1 if books.faults else 0


if __name__ == "__main__":
    sys.exit(main())
