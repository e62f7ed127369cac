"""A PostgreSQL of the tests' own: a cluster in a folder under /tmp, which listens on a Unix socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine


def program(name: str) -> str | None:
    """A program; Debian keeps PostgreSQL's server out of the path, and PgBouncer where only root looks."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin"]
    folders += map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    return shutil.which(name, path=os.pathsep.join(folders))


def as_user() -> tuple[list[str], str | None]:
    """How the server is started, which refuses to be root's: the prefix of its command, and whose its folder must be.

    :raises LookupError: when there is no way.
    """
    if os.geteuid() != 0:
        return [], None
    if shutil.which("setpriv") is None:
        raise LookupError("setpriv (of util-linux) is not installed")
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], name
    raise LookupError("there is neither a user postgres nor nobody")


@contextmanager
def cluster(max_connections: int = 20) -> Iterator[str]:
    """The URL of an empty database, for SQLAlchemy.

    :param max_connections: how many may be open at once.
    :raises LookupError: when PostgreSQL is not there, or can't be started: why.
    """
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        raise LookupError("PostgreSQL is not installed (on Debian and Ubuntu: apt-get install postgresql)")
    try:
        prefix, owner = as_user()
    except LookupError as e:
        raise LookupError(f"PostgreSQL does not run as root, and can't be started as another user: {e}") from e
    # Not in the folder of this run of the tests, which is for its own user only; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="testruns-postgresql-", dir="/tmp"))
    log = (folder / "server.log").open("wb")
    process = None
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        data = str(folder / "data")
        make = [*prefix, initdb, "-D", data, "-U", "airflow", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(make, check=True, stdout=log, stderr=log, timeout=120, cwd=folder)
        settings = [
            "listen_addresses=",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=16MB",
            f"max_connections={max_connections}",
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        # Started by its own id: what setpriv starts takes its place.
        process = subprocess.Popen(
            [*prefix, server, "-D", data, "-k", str(folder), *options], stdout=log, stderr=log, cwd=folder
        )
        _wait_for(folder, process)
        yield f"postgresql+psycopg://airflow@/postgres?host={folder}"
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # "fast": does not wait for clients
            process.wait(60)
        log.close()
        shutil.rmtree(folder)


def empty_database(url: str, name: str) -> Engine:
    """An empty database of a cluster, in which rows of a few tables are enough.

    :param url: as :func:`cluster` gives it.
    :param name: the database; one that is there is removed.
    """
    from sqlalchemy import create_engine, text

    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    server.dispose()
    engine = create_engine(url.replace("/postgres?", f"/{name}?"))
    ignore_foreign_keys(engine)
    return engine


def ignore_foreign_keys(engine: Engine) -> None:
    """Rows may refer to rows that are not there.

    :param engine: which has no connection yet.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.execute("SET session_replication_role = replica")
        connection.commit()


def _wait_for(folder: Path, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    give_up_at = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"host={folder} user=airflow dbname=postgres connect_timeout=5").close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > give_up_at:
                said = (folder / "server.log").read_text()[-2000:]
                raise RuntimeError(f"PostgreSQL did not start: {said}") from None
        time.sleep(0.1)
