"""``python -m tests.older [VERSION …]``: the provider on older Airflows, each in an environment of its own; with the
version ``newer``, on the newest that can be installed, of 3.4 and later.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".older"
#: The last of each series, and a day soon after it came out: what its dependencies have become since may break it.
VERSIONS = {"3.0.6": "2025-09-15", "3.1.8": "2026-03-25", "3.2.2": "2026-06-20"}
#: Those of our own requirements that were not there yet on such a day.
_NEWER = ("apache-airflow-providers-common-compat", "aiohttp", "python-multipart", "requests", "urllib3")
_END_OF_TIME = "2100-01-01"
#: The version that stands for the newest, and what it is at least.
_NEWEST, _AT_LEAST = "newer", "3.4.0b1"


def main(versions: list[str]) -> int:
    """Try each; the exit status says whether all was as it should be with all of them."""
    bad = []
    for version in [_last(version) for version in versions] or VERSIONS:
        python = environment(version)
        print(f"Airflow {version}", flush=True)
        command = [str(python), "-m", "tests.older.try_out", str(ENVIRONMENTS / f"run-{version}")]
        cache = {"PYTHONPYCACHEPREFIX": str(ENVIRONMENTS / version / "pycache")}
        if subprocess.run(command, cwd=ROOT, env=os.environ | cache, check=False).returncode:
            bad.append(version)
    if bad:
        print(f"Not as it should be on Airflow {', '.join(bad)}")
    return 1 if bad else 0


def _last(series: str) -> str:
    """The version that is meant, by itself or by its series ("3.0")."""
    if series == _NEWEST:
        return series
    found = [version for version in VERSIONS if f"{version}.".startswith(f"{series}.")]
    if len(found) != 1:
        sys.exit(f"{series} is none of {', '.join(VERSIONS)}, nor a series of one of them.")
    return found[0]


def environment(version: str) -> Path:
    """Make an environment with an Airflow and this package, if there is none yet.

    :return: its interpreter.
    """
    folder = ENVIRONMENTS / version
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    print(f"Making an environment with Airflow {version}", flush=True)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    command: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    command += [f"apache-airflow>={_AT_LEAST},<4"] if version == _NEWEST else as_of(VERSIONS[version])
    command += [] if version == _NEWEST else [f"apache-airflow=={version}"]
    command += ["apache-airflow-providers-standard", "psutil", "--editable", f"{ROOT}[sandbox]"]
    if subprocess.run(command, check=False).returncode:
        what = f"{_AT_LEAST} or later" if version == _NEWEST else version
        sys.exit(f"Airflow {what} can't be installed here.")
    (folder / "ready").touch()
    return python


def as_of(day: str, *newer: str) -> list[str | Path]:
    """Arguments of uv: what there was on a day, but for what we need newer.

    :param day: year, month and day.
    :param newer: further packages that are needed as they are now.
    """
    arguments: list[str | Path] = ["--exclude-newer", day]
    for name in (*_NEWER, *newer):
        arguments += ["--exclude-newer-package", f"{name}={_END_OF_TIME}"]
    return arguments


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
