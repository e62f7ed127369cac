"""What a production cluster is made of beside Airflow: PostgreSQL, PgBouncer, Redis, and the programs for them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from demo.processes import Child
from tests.harness.postgresql import as_user, program

#: Debian's packages, and what each is needed for.
PACKAGES: Mapping[str, str] = {
    "postgres": "postgresql",
    "initdb": "postgresql",
    "pgbouncer": "pgbouncer",
    "redis-server": "redis-server",
    "libfaketime": "libfaketime",
}
_FAKETIME = "faketime/libfaketime.so.1"
#: How long a server may take to start; seconds. For hanging only.
_START_WITHIN = 60.0


class SetUpError(Exception):
    """The cluster can't be set up; the message is one sentence that says why and what to do."""


class Missing(SetUpError):
    """Programs are not installed."""


@dataclass(frozen=True)
class Programs:
    """Where the programs are."""

    postgres: Path
    initdb: Path
    pgbouncer: Path
    redis: Path
    faketime: Path


def find_programs(*, install: bool, say: Callable[[str], None]) -> Programs:
    """Find the programs; where some are missing and may be installed, install Debian's packages.

    :param install: whether to, as root.
    :raises Missing: when some are still missing; names the packages.
    """
    found = {name: _find(name) for name in PACKAGES}
    packages = sorted({PACKAGES[name] for name, path in found.items() if path is None})
    if packages and install and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"Installing {', '.join(packages)}")
        # Their own services are not started: everything here has a folder and ports of its own.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, check=False)
        found = {name: _find(name) for name in PACKAGES}
        packages = sorted({PACKAGES[name] for name, path in found.items() if path is None})
    if packages:
        raise Missing(
            f"Not installed: {', '.join(packages)}. On Debian and Ubuntu, as root: apt-get install {' '.join(packages)}"
        )
    postgres, initdb, pgbouncer, redis, faketime = (path for path in found.values() if path is not None)
    return Programs(postgres, initdb, pgbouncer, redis, faketime)


def _find(name: str) -> Path | None:
    if name == "libfaketime":
        return next(iter(sorted(Path("/usr/lib").glob(f"*/{_FAKETIME}"))), None)
    found = program(name)
    return Path(found) if found else None


def check_port(port: int) -> None:
    """Make sure that a port of this machine is free.

    :raises SetUpError: when it is not.
    """
    if not _is_free(port):
        raise SetUpError(
            f"Port {port} of 127.0.0.1 can't be used: name another one with --port, or leave it out for a free one."
        )


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def check_broker(url: str) -> None:
    """Make sure that a Redis answers.

    :param url: ``redis://host:port/number``.
    :raises SetUpError: when none does; without the password of the URL.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 6379
    except ValueError as e:
        raise SetUpError(f"--broker is not a URL of Redis ({e}), such as redis://127.0.0.1:6379/0.") from e
    if parts.scheme != "redis" or not host:
        raise SetUpError("--broker is not a URL of Redis, such as redis://127.0.0.1:6379/0.")
    try:
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(b"PING\r\n")
            answer = sock.recv(100)
    except OSError as e:
        raise SetUpError(
            f"The broker at {host}:{port} does not answer ({e.strerror or e}): start Redis there, or leave --broker out"
            " to have one started."
        ) from e
    # One that asks for a password is a Redis, too.
    if not answer.startswith((b"+PONG", b"-NOAUTH")):
        raise SetUpError(
            f"What answers at {host}:{port} is not Redis: name another --broker, or leave it out to have one started."
        )


class Servers:
    """PostgreSQL, PgBouncer in front of it with transaction pooling, and Redis, on ports of this machine.

    :param folder: where their data and logs are.
    :param programs: what they are made of.
    :param ports: of ``postgresql``, ``pgbouncer`` and ``redis``.
    """

    def __init__(self, folder: Path, programs: Programs, ports: Mapping[str, int]) -> None:
        self.folder = folder
        self.programs = programs
        self.ports = ports
        try:
            self._prefix, self._owner = as_user()
        except LookupError as e:
            raise SetUpError(f"PostgreSQL does not run as root, and can't be started as another user: {e}.") from e
        self._pids = folder / "pids"
        self._pids.mkdir(parents=True, exist_ok=True)
        self._environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}

    def make_postgresql(self) -> None:
        """Make an empty cluster of databases.

        :raises SetUpError: when that fails.
        """
        data = self._own("postgresql")
        command = [*self._prefix, str(self.programs.initdb), "-D", str(data), "-U", "airflow", "-A", "trust"]
        made = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd="/",
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            said = (made.stderr or made.stdout).strip().splitlines()
            raise SetUpError(f"PostgreSQL's files can't be made in {data}: {said[-1] if said else 'no reason given'}")

    def start_postgresql(self) -> Child:
        """Start PostgreSQL and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self.ports["postgresql"]),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "120",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        data = str(self.folder / "postgresql")
        command = [*self._prefix, str(self.programs.postgres), "-D", data, *options]
        return self._start("postgresql", command, "PostgreSQL", accepts_postgresql)

    def start_pgbouncer(self) -> Child:
        """Start PgBouncer."""
        folder = self._own("pgbouncer")
        users, settings = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text('"airflow" ""\n')
        settings.write_text(
            "[databases]\n"
            f"airflow = host=127.0.0.1 port={self.ports['postgresql']} dbname=airflow user=airflow\n"
            "[pgbouncer]\n"
            "listen_addr = 127.0.0.1\n"
            f"listen_port = {self.ports['pgbouncer']}\n"
            "unix_socket_dir =\n"
            "auth_type = trust\n"
            f"auth_file = {users}\n"
            "pool_mode = transaction\n"
            "max_client_conn = 1000\n"
            "default_pool_size = 60\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        self._give_away(folder)
        command = [*self._prefix, str(self.programs.pgbouncer), str(settings)]
        return self._start("pgbouncer", command, "PgBouncer", accepts)

    def start_redis(self) -> Child:
        """Start Redis, whose data outlives a restart."""
        folder = self.folder / "redis"
        folder.mkdir(exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.ports["redis"]),
            "dir": str(folder),
            "appendonly": "yes",
            "save": "",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return self._start("redis", [str(self.programs.redis), *options], "Redis", accepts)

    def _start(self, name: str, command: Sequence[str], title: str, ready: Callable[[int], bool]) -> Child:
        port = self.ports[name]
        # Else whoever listens there would be taken for it.
        if not _is_free(port):
            raise SetUpError(f"{title} did not start on port {port} of 127.0.0.1: the port is taken.")
        child = Child(name, command, environment=self._environment, log=self.folder / f"{name}.log", pids=self._pids)
        until = time.monotonic() + _START_WITHIN
        while not (child.exit_code is None and ready(port)):
            if child.exit_code is not None or time.monotonic() > until:
                from demo.processes import end_children

                said = child.tail(3).strip().splitlines()
                end_children([child], 2.0)
                raise SetUpError(
                    f"{title} did not start on port {port} of 127.0.0.1: {said[-1] if said else 'it said nothing'}"
                    f" (its log: {child.log})"
                )
            time.sleep(0.1)
        return child

    def _own(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if self._owner is not None:
            for parent in folder.parents:
                if not parent.stat().st_mode & 0o001:
                    raise SetUpError(
                        f"PostgreSQL runs as user {self._owner}, who may not enter {parent}: name another --folder."
                    )
        self._give_away(folder)
        return folder

    def _give_away(self, folder: Path) -> None:
        if self._owner is None:
            return
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, self._owner, pwd.getpwnam(self._owner).pw_gid)


def accepts(port: int) -> bool:
    """Whether a port of this machine is listened on."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def accepts_postgresql(port: int) -> bool:
    """Whether PostgreSQL answers, rather than that it is still starting."""
    import psycopg

    try:
        psycopg.connect(f"host=127.0.0.1 port={port} user=airflow dbname=postgres connect_timeout=5").close()
    except psycopg.OperationalError:
        return False
    return True
