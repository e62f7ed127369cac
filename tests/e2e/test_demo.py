"""``python -m demo`` as a user starts it, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.processes import end, families, read_pids
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
#: DAG, platform and state of every task that has started a run, and the counts of its report.
RUNS = [
    ("example_asset_results", "voice_tests", "omilia", "success", 4, 0, 0),
    ("example_eggplant", "run_model", "eggplant", "success", 1, 0, 0),
    ("example_eggplant_nightly", "run_model[0] Checkout", "eggplant", "success", 1, 0, 0),
    ("example_eggplant_nightly", "run_model[1] Empty", "eggplant", "success", 1, 0, 0),
    ("example_failing_tests", "run_regression", "omilia", "failed", 6, 2, 1),
    ("example_futureagi", "execute_test_run", "futureagi", "success", 4, 0, 0),
    ("example_futureagi_gates", "evaluate_again", "futureagi", "success", 4, 0, 0),
    ("example_futureagi_gates", "support", "futureagi", "success", 4, 0, 0),
    ("example_omilia", "run_suites", "omilia", "success", 4, 0, 0),
    ("example_omilia_ci", "run_suites", "omilia", "success", 4, 0, 0),
    ("example_release_gate", "checkout[0] test case 11", "eggplant", "success", 1, 0, 0),
    ("example_release_gate", "checkout[1] test case 12", "eggplant", "success", 1, 0, 0),
    ("example_release_gate", "support[0] 1 scenario(s)", "futureagi", "success", 2, 0, 0),
    ("example_release_gate", "support[1] 2 scenario(s)", "futureagi", "success", 3, 0, 0),
    ("example_release_gate", "voice[0]", "omilia", "success", 4, 0, 0),
    ("example_release_gate", "voice[1]", "omilia", "success", 4, 0, 0),
]
BROKEN = """
from airflow.sdk import DAG
import nowhere_to_be_found
"""


class RunningDemo:
    """The demo's process and what it has said so far.

    :param folder: its folder.
    :param options: further options of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.lines: list[str] = []
        #: The processes of Airflow that it has started: times of creation by process id.
        self.leaders: dict[int, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--folder", str(folder), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def read_until(self, wanted: str) -> None:
        """Read on until a line has ``wanted`` in it."""
        assert self._process.stdout is not None
        for line in self._process.stdout if not self._process.stdout.closed else ():
            self.lines.append(line.rstrip("\n"))
            self.leaders.update(read_pids(self.folder / "pids").values())
            if wanted in line:
                return
        raise AssertionError(f"the demo never said {wanted!r}:\n{self.text}")

    def finish(self) -> int:
        """Read on to the end; return the exit status."""
        with contextlib.suppress(AssertionError):
            self.read_until("\0")
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(timeout=300)

    def close(self) -> None:
        """End it, however far it is, with all that it has started."""
        self._process.kill()
        self.finish()
        end(self.leaders)

    def send(self, number: signal.Signals) -> None:
        """Send the demo, and none of its children, a signal."""
        self._process.send_signal(number)

    def left_over(self) -> list[str]:
        """What still runs of all that it has started."""
        return [" ".join(process.cmdline()) for process in families(self.leaders)]


@pytest.fixture
def start() -> Iterator[Callable[..., RunningDemo]]:
    """Starts demos that are gone when the test is over, however it ends."""
    with contextlib.ExitStack() as stack:
        yield lambda folder, *options: stack.enter_context(contextlib.closing(RunningDemo(folder, *options)))


def rows(text: str) -> list[list[str]]:
    """The table's cells, with the DAG filled in where it is left out."""
    lines = text.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("-----"))
    edges = [match.span() for match in re.finditer("-+", lines[rule])]
    found: list[list[str]] = []
    for line in lines[rule + 1 :]:
        if not line:
            break
        cells = [line[start:end].strip() for start, end in edges]
        found.append([cells[0] or found[-1][0], *cells[1:]])
    return found


def test_every_dag_ends_as_its_example_says(start, tmp_path: Path) -> None:
    demo = start(tmp_path / "demo")
    assert demo.finish() == 0, demo.text
    table = rows(demo.text)
    told = [
        (dag, task, platform, state, int(passed), int(failed), int(unavailable))
        for dag, task, platform, state, passed, failed, unavailable, _ in table
        if platform != "-"
    ]
    assert sorted(told) == RUNS
    assert {(row[0], row[1]): row[3] for row in table if row[2] == "-"} == {
        ("example_eggplant", "show"): "success",
        ("example_eggplant_nightly", "selected"): "success",
        ("example_eggplant_nightly", "summary"): "success",
        ("example_failing_tests", "release"): "upstream_failed",
        ("example_failing_tests", "tell_the_team"): "success",
        ("example_finished_runs", "follow_up"): "success",
        ("example_futureagi", "show"): "success",
        ("example_futureagi_gates", "show"): "success",
        ("example_nightly_collector", "collect"): "success",
        ("example_omilia", "show"): "success",
        ("example_omilia_ci", "check_out"): "success",
        ("example_omilia_ci", "create_project"): "success",
        ("example_omilia_ci", "delete_project"): "success",
        ("example_omilia_ci", "fetch_artifacts"): "success",
        ("example_omilia_ci", "list_failed_cases"): "success",
        ("example_omilia_ci", "release"): "success",
        ("example_omilia_ci", "upload_suites"): "success",
        ("example_release_gate", "projects"): "success",
        ("example_release_gate", "release"): "success",
        ("example_release_gate", "scenario_selections"): "success",
        ("example_release_gate", "test_cases"): "success",
    }
    assert all(row[7].startswith("http://127.0.0.1:") for row in table if row[2] != "-")
    # The message of the run that fails names what failed, and why.
    assert "2 failed and 1 unavailable of 9 test cases" in demo.text
    assert "failed: balance_joint_account: step 3" in demo.text
    assert demo.text.count("as its example says") == 11
    # Each start made one run (what runs calls again made none), and nothing that was sent is against the documents.
    assert "The sandbox has 15 runs for 16 reports." in demo.text
    assert "UNEXPECTED" not in demo.text
    assert demo.leaders
    assert demo.left_over() == []


def test_a_broken_dag_file_is_named_and_nothing_stays(start, tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "example_broken.py").write_text(BROKEN)
    demo = start(tmp_path / "demo", "--dags", str(dags))
    assert demo.finish() == 1
    assert "The demo failed: Airflow can't read 1 DAG file(s)." in demo.text
    assert "example_broken.py" in demo.text
    assert "No module named 'nowhere_to_be_found'" in demo.text
    assert demo.left_over() == []


def test_killed_then_started_again_then_interrupted(start, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    killed = start(folder)
    killed.read_until("The database is made")
    wait_until(lambda: len(read_pids(folder / "pids")) >= 4, "all components are noted")
    killed.leaders.update(read_pids(folder / "pids").values())

    # While one runs there is no place for another.
    second = start(folder)
    assert second.finish() == 1
    assert re.search(r"Another demo is running in .* as process \d+; end it first", second.text)

    killed.send(signal.SIGKILL)
    killed.finish()
    assert len(killed.left_over()) >= 4
    third = start(folder)
    third.read_until("An earlier Airflow was left running here")
    assert killed.left_over() == []

    third.read_until("The database is made")
    third.send(signal.SIGINT)
    assert third.finish() == 130
    assert "Ended 4 Airflow components" in third.text
    assert third.left_over() == []
    assert os.listdir(folder / "pids") == []


def test_a_component_that_dies_is_named_with_the_end_of_its_log(start, tmp_path: Path) -> None:
    demo = start(tmp_path / "demo")
    demo.read_until("The database is made")
    pids = tmp_path / "demo" / "pids"
    wait_until(lambda: "triggerer" in read_pids(pids), "the triggerer is noted")
    os.kill(read_pids(pids)["triggerer"][0], signal.SIGKILL)
    assert demo.finish() == 1
    assert "The demo failed: Airflow's triggerer has ended with exit code -9. The end of" in demo.text
    assert demo.left_over() == []
