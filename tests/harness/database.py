"""Airflow's metadata database as ``airflow db migrate`` makes it: made once for a run of the tests, then copied."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness.places import here

#: For hanging only; seconds.
_WITHIN = 600.0


def migrated_database() -> Path:
    """The database; whoever comes first makes it, and the others wait.

    :return: the file, to be copied.
    """
    made = here().folder / "migrated" / "airflow.db"
    made.parent.mkdir(exist_ok=True)
    with (made.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            home = made.parent / "home"
            home.mkdir()
            environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
            environment |= {
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "TMPDIR": str(home),
            }
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=environment,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_WITHIN,
            )
            (home / "airflow.db").rename(made)
            shutil.rmtree(home)
    return made
