"""Airflow on several machines: two of each part, on PostgreSQL, PgBouncer, Redis and Celery."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from demo.airflow import START_WITHIN, AirflowFailed, LocalAirflow, free_port
from demo.processes import Child, end_children, end_leftovers, families

from .parts import Programs, Servers, SetUpError
from .proxy import Proxy

#: What runs on the two hosts: the kind of part, and its command line.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "worker": ("celery", "worker", "--skip-serve-logs", "--concurrency", "4"),
}
HOSTS = ("1", "2")
#: How far the clocks of host 2 are off; seconds. That of a triggerer is ahead only: one that is behind by more than
#: ``[triggerer] triggerer_health_check_threshold`` counts as dead for the others, whatever it runs.
CLOCKS = {"worker-2": 150.0, "triggerer-2": 90.0}
_SETTINGS = '''"""What PgBouncer's transaction pooling asks of the drivers."""

async_arguments = {"prepare_threshold": None}
'''
#: Python sleeps until a moment of the monotonic clock, and libfaketime 0.9.10 spoils that call: it fails at once.
_SLEEP = '''"""Sleep by a call that libfaketime leaves alone."""

import select
import time


def sleep(seconds):
    select.select([], [], [], seconds)


time.sleep = sleep
'''


class Cluster(LocalAirflow):
    """Two schedulers, triggerers, Celery workers and API servers, the latter behind one address, and a DAG processor.

    Host 1 and host 2 have logs of their own and reach the API servers and the platforms over cables of their own; all
    reach the database over one.

    :param folder: where everything is that it leaves behind.
    :param programs: of PostgreSQL, PgBouncer and Redis.
    :param platform_port: where the three platforms are on this machine.
    :param connections: the Airflow connections to them.
    :param port: of the API servers' address; 0 for a free one.
    :param broker: a Redis that is there already.
    """

    def __init__(
        self,
        folder: Path,
        programs: Programs,
        *,
        dags: Path,
        connections: Mapping[str, Mapping[str, Any]],
        platform_port: int,
        options: Mapping[str, str],
        port: int = 0,
        broker: str | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(folder, dags=dags, connections={}, options=options, parallelism=16, say=say)
        self._programs = programs
        self._broker = broker
        self._platform_port = platform_port
        self._connections = connections
        self._address = port or urlsplit(self.url).port or 0
        self.url = f"http://127.0.0.1:{self._address}"
        self.api.url = self.url
        self._api_ports = {host: free_port() for host in HOSTS}
        self.servers_folder = self.folder / "servers"
        self._clock_fix = self.home / "clock"
        self._servers: dict[str, Child] = {}
        self._proxies: dict[str, Proxy] = {}
        self._stopped: set[int] = set()

    # Up and down

    def start(self) -> None:
        """Make everything, wait until it is healthy.

        :raises SetUpError: when a server can't be started.
        :raises AirflowFailed: when a part of Airflow can't.
        """
        if (pids := self.servers_folder / "pids").is_dir():
            end_leftovers(pids)
        shutil.rmtree(self.servers_folder, ignore_errors=True)
        self._prepare_folder()
        ports = {name: free_port() for name in ("postgresql", "pgbouncer", "redis")}
        servers = self.servers = Servers(self.servers_folder, self._programs, ports)
        self._say("Starting PostgreSQL, PgBouncer and Redis")
        servers.make_postgresql()
        self.start_server("postgresql")
        self._make_database(ports["postgresql"])
        self.start_server("pgbouncer")
        if self._broker is None:
            self.start_server("redis")
            self._broker = f"redis://127.0.0.1:{ports['redis']}/0"
        self._lay_cables(ports)
        self._configure()
        # Migrations lock with the session, which a transaction pool does not keep.
        pooled = self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        direct = f"postgresql+psycopg2://airflow@127.0.0.1:{ports['postgresql']}/airflow"
        self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = direct
        self._say("Making Airflow's database")
        self._run_to_end("db-migrate", "db", "migrate")
        self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = pooled
        for name in self.part_names():
            self.start_component(name)
        self.wait_until_healthy()

    def stop(self) -> None:
        """End everything, whatever state it is in."""
        self.wake_all()
        super().stop()
        for proxy in self._proxies.values():
            proxy.close()
        self._proxies.clear()
        end_children(self._servers.values())
        self._servers.clear()

    def part_names(self) -> list[str]:
        """The parts of Airflow by their names."""
        return [*(f"{kind}-{host}" for kind in _PARTS for host in HOSTS), "dag-processor"]

    def start_server(self, name: str) -> None:
        """Start ``postgresql``, ``pgbouncer`` or ``redis``."""
        self._servers[name] = getattr(self.servers, f"start_{name}")()

    def end_server(self, name: str) -> None:
        """End one of them: its clients lose their connections."""
        child = self._servers.pop(name)
        # PostgreSQL waits for its clients when it gets SIGTERM, and not when it gets SIGINT.
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(child.pid).send_signal(signal.SIGINT if name == "postgresql" else signal.SIGTERM)
        end_children([child], 15.0)

    def _make_database(self, port: int) -> None:
        import psycopg

        with psycopg.connect(f"host=127.0.0.1 port={port} user=airflow dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE airflow")

    def _lay_cables(self, ports: Mapping[str, int]) -> None:
        api_ports = list(self._api_ports.values())
        try:
            self._proxies["address"] = Proxy(api_ports, self._address)
        except OSError as e:
            raise SetUpError(f"Port {self._address} of 127.0.0.1 was taken meanwhile ({e.strerror}); try again.") from e
        self._proxies["database"] = Proxy([ports["pgbouncer"]])
        for host in HOSTS:
            self._proxies[f"API of host {host}"] = Proxy(api_ports)
            self._proxies[f"platforms of host {host}"] = Proxy([self._platform_port])

    def _configure(self) -> None:
        database = f"airflow@127.0.0.1:{self._proxies['database'].port}/airflow"
        settings = self.home / "config" / "production_settings.py"
        settings.parent.mkdir()
        self._clock_fix.mkdir()
        settings.write_text(_SETTINGS)
        (self._clock_fix / "sitecustomize.py").write_text(_SLEEP)
        self.environment |= {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+psycopg://{database}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": "production_settings.async_arguments",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": str(self._broker),
            # In full: the short form takes another driver.
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            # Celery is asked not to mind being root's, which it is here in a container.
            "C_FORCE_ROOT": "1",
        }

    # Parts

    def start_component(self, kind: str, name: str | None = None, *arguments: str) -> Child:
        """Start a part by its name; by its kind, that of host 1."""
        name = self._named(name or kind)
        kind, _, host = name.rpartition("-")
        if kind == "dag":
            command: tuple[str, ...] = ("dag-processor",)
        else:
            command = (*_PARTS[kind], *arguments)
        if kind == "api-server":
            command += ("--port", str(self._api_ports[host]))
        elif kind == "worker":
            pid_file = self.folder / "tmp" / f"{name}.pid"
            pid_file.unlink(missing_ok=True)
            command += ("--celery-hostname", f"{name}@host-{host}", "--pid", str(pid_file))
        child = self._children[name] = self._child(name, *command)
        return child

    def end_component(self, name: str, grace: float = 8.0) -> None:
        """End a part by its name; by its kind, that of host 1."""
        super().end_component(self._named(name), grace)

    def pid(self, name: str) -> int:
        """The process id of a part."""
        return super().pid(self._named(name))

    def has_ended(self, name: str) -> bool:
        """Whether a part does not run any more."""
        return super().has_ended(self._named(name))

    def check(self) -> None:
        """Parts end under faults, and are started again by :meth:`revive`."""

    def revive(self) -> list[str]:
        """Start again what has ended by itself, as systemd or Kubernetes would.

        :return: the names.
        """
        ended = [name for name, child in self._children.items() if child.exit_code is not None]
        for name in ended:
            self.end_component(name, 0.0)
            self.start_component(name)
        return ended

    def _named(self, name: str) -> str:
        return f"{name}-1" if name in _PARTS else name

    def _child(self, name: str, *arguments: str) -> Child:
        kind, _, host = name.rpartition("-")
        if kind not in _PARTS:
            host = HOSTS[0]
        common = self.environment
        self.environment = common | self._of_host(host) | self._clock(name)
        try:
            return super()._child(name, *arguments)
        finally:
            self.environment = common

    def _of_host(self, host: str) -> dict[str, str]:
        logs = self.logs / f"host-{host}"
        logs.mkdir(parents=True, exist_ok=True)
        environment = {
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs / "tasks"),
            "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag-files"),
        }
        if f"API of host {host}" in self._proxies:
            url = f"http://127.0.0.1:{self._proxies[f'API of host {host}'].port}/execution/"
            environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = url
            port = self._proxies[f"platforms of host {host}"].port
            for conn_id, connection in self._connections.items():
                moved = json.dumps(connection).replace(f"127.0.0.1:{self._platform_port}", f"127.0.0.1:{port}")
                environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = moved
        return environment

    def _clock(self, name: str) -> dict[str, str]:
        if name not in CLOCKS:
            return {}
        return {
            "LD_PRELOAD": str(self._programs.faketime),
            "PYTHONPATH": str(self._clock_fix),
            "FAKETIME": f"{CLOCKS[name]:+.0f}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def wait_until_healthy(self, within: float = START_WITHIN) -> None:
        """Wait until Airflow says so, and both workers and API servers answer.

        :raises AirflowFailed: when a part ends, or the time is over.
        """
        until = time.monotonic() + within
        while missing := self._missing():
            for child in self._children.values():
                if child.exit_code is not None:
                    raise AirflowFailed(f"{child.name} has ended. The end of {child.log}:\n{child.tail()}")
            if time.monotonic() > until:
                raise AirflowFailed(f"Not healthy within {within:.0f} s: {', '.join(missing)}; logs are in {self.logs}")
            self._pause(0.5)
        self._say(f"Airflow is up, at {self.url}")

    def _missing(self) -> list[str]:
        from .parts import accepts

        missing = [f"api-server-{host}" for host, port in self._api_ports.items() if not accepts(port)]
        if missing:
            return missing
        healthy = self._healthy()
        missing = [name for name in ("scheduler", "triggerer", "dag-processor") if name not in healthy]
        return missing + [
            f"worker-{host}" for host in HOSTS if " ready." not in self._children[f"worker-{host}"].tail(2000)
        ]

    # Faults

    @contextlib.contextmanager
    def cut(self, cable: str) -> Iterator[None]:
        """Cut a cable: ``address``, ``database``, ``API of host …`` or ``platforms of host …``."""
        self._proxies[cable].cut()
        try:
            yield
        finally:
            self._proxies[cable].mend()

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop all processes of a part, and wake them again: it has noticed nothing."""
        stopped = self.family(name)
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                self._stopped.add(process.pid)
        try:
            yield
        finally:
            self.wake_all()

    def wake_all(self) -> None:
        """Wake what is stopped."""
        for pid in list(self._stopped):
            self._stopped.discard(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def family(self, name: str) -> list[psutil.Process]:
        """All processes of a part."""
        child = self._children[self._named(name)]
        created = json.loads(child.pid_file.read_text())["created"]
        return families({child.pid: created})
