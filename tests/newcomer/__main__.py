"""``python -m tests.newcomer``: do what ``docs/quickstart.md`` says, with the wheel alone, and see what it promises.

The environment has an Airflow and what the wheel asks for, and not the wheel; the page's own ``pip install`` finds it
in ``dist``. Each command is the page's, one after the other.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.dist.__main__ import DIST, FOLDER, ROOT, Refused, build, environment, run, say

PAGE = ROOT / "docs" / "quickstart.md"
#: A block of code, and the comment before it.
_BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BESIDE = "in a terminal of its own"
#: The port of the sandbox, as the page has it.
_PORT = 8765
#: How long a server may take until it answers; seconds.
_START_WITHIN = 180


@dataclass(frozen=True)
class Block:
    """Code of the page.

    :param note: the comment before it: the name of a file, or where a command is run.
    :param language: ``sh`` or ``python``.
    :param code: what stands in it.
    """

    note: str
    language: str
    code: str


def blocks() -> list[Block]:
    """All code of the page, in order."""
    return [Block(note or "", language, code) for note, language, code in _BLOCK.findall(PAGE.read_text())]


def main() -> int:
    """Do it; the exit status says whether all is as the page says."""
    try:
        if not [*DIST.glob("*.whl")]:
            build()
        follow()
    except Refused as problem:
        print(f"FAULT  {problem}")
        return 1
    print(f"{PAGE.relative_to(ROOT)} is as it should be")
    return 0


def follow() -> None:
    """Do what the page says."""
    (wheel,) = DIST.glob("*.whl")
    python = environment("newcomer", "--constraint", ROOT / "constraints.txt", "pip", wheel)
    run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "airflow-provider-testruns"])
    home = FOLDER / "newcomer-home"
    shutil.rmtree(home, ignore_errors=True)
    (home / "dags").mkdir(parents=True)
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__TESTRUNS__EVENT_DELAY": "0",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        # The package is the wheel; all that it asks for is there.
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(DIST),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    # What somebody who has an Airflow has done before.
    run([python.with_name("airflow"), "db", "migrate"], settings)
    sandbox = None
    try:
        for block in blocks():
            if block.language == "python":
                (home / "dags" / block.note).write_text(block.code)
                say(f"Saved {block.note}")
            elif block.note == _BESIDE:
                with socket.socket() as taken:
                    if taken.connect_ex(("127.0.0.1", _PORT)) == 0:
                        raise Refused(f"Something else listens on port {_PORT}, which the sandbox of the page takes.")
                command = block.code.strip().split()
                inherited = os.environ | settings
                sandbox = subprocess.Popen(command, cwd=home, env=inherited, stdout=subprocess.DEVNULL)
                wait_for(_PORT)
                say(f"Started: {block.code.strip()}")
            else:
                began = time.monotonic()
                shown = run(["bash", "-euo", "pipefail", "-c", block.code], settings, cwd=home)
                first = block.code.splitlines()[0]
                say(f"Ran: {first[:70]} ({time.monotonic() - began:.0f} s)")
        # The last command ran the DAG.
        for platform in ("eggplant", "futureagi", "omilia"):
            if not re.search(rf"{platform}: (\d+) of \1 passed", shown):
                raise Refused(f"The DAG printed no report of {platform} that passed:\n{shown[-3000:]}")
        look_at_page(python, settings)
    finally:
        if sandbox is not None:
            sandbox.terminate()
            sandbox.wait(30)


def look_at_page(python: Path, settings: dict[str, str]) -> None:
    """The page "Test runs", served by Airflow."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(python, settings, port), urlopen(f"http://127.0.0.1:{port}/testruns/", timeout=60) as response:
        text = response.read().decode()
    missing = [task for task in ("checkout", "support", "voice") if task not in text]
    if missing or text.lower().count("passed") < 3:
        raise Refused(f"The page does not show {', '.join(missing) or 'three runs that passed'}:\n{text[:3000]}")
    say("The page Test runs shows the three runs")


@contextmanager
def served(python: Path, settings: dict[str, str], port: int) -> Iterator[None]:
    """Airflow's API server, while it is needed."""
    command = [str(python.with_name("airflow")), "api-server", "--port", str(port), "--workers", "1"]
    with open(FOLDER / "api-server.log", "w") as log:
        server = subprocess.Popen(command, env=os.environ | settings, cwd=FOLDER, stdout=log, stderr=log)
    try:
        wait_for(port)
        yield
    finally:
        server.terminate()
        server.wait(60)


def wait_for(port: int) -> None:
    """Until a server answers on this machine.

    :raises Refused: when it does not.
    """
    until = time.monotonic() + _START_WITHIN
    while time.monotonic() < until:
        try:
            urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except URLError as e:
            # An error page is an answer.
            if getattr(e, "code", None):
                return
            time.sleep(0.5)
        except OSError:
            time.sleep(0.5)
    raise Refused(f"Nothing answers on port {port}.")


if __name__ == "__main__":
    sys.exit(main())
