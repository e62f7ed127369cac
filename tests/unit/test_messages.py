"""The lines and errors that users read at night, by name: whoever changes one, changes it here too.

Values are shown as ``{}``, and those of log lines as ``%s``. What is tested elsewhere by its text alone is not
repeated.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import airflow_provider_testruns

pytestmark = pytest.mark.unit

_PACKAGE = Path(airflow_provider_testruns.__file__).parent

#: By the module that has them.
_MESSAGES = {
    "lifecycle/starting.py": [
        "Started %s: run %s.",
        "Nothing to start (%s): using existing run %s (%s).",
        "Run %s was started by an earlier try: waiting for it, no new start.",
        "Run %s passed in an earlier try; not starting it again.",
        "Run %s of an earlier try ended as %s: starting a new one.",
        "Run %s no longer exists on the platform; starting a new one. %s",
        "Adopted run %s, whose start response was lost.",
        "An earlier try may have started a run; checking.",
        "%s A run may have been started; checking.",
        "%s Nothing was started; trying again in %.0f s.",
        "The platform shows no run of that start: nothing was started.",
        "The runs before this start can't be listed; falling back to timestamps. %s",
        "The record of the run could not be kept (%s: %s); trying again.",
        "Could not poll the run from before this task was cleared; it may still be running. %s",
        "A start was sent and its outcome is not known, and it can't be looked up: {} Nothing is started again."
        " Check the"
        " platform; clear the task to start a new run.",
        "A start was sent and its outcome is not known, and the runs could not be listed. {} Nothing is started"
        " again; the"
        " next try of the task checks again.",
        "A start was sent and got no response; run {} is most likely it, and adopt_lost_start=False prevents"
        " adopting it."
        " Nothing is started again. Check the run on the platform; clear the task to start a new one.",
        "This task timed out before {} could be started. {} A longer timeout leaves time to look up a lost start;"
        " the next"
        " try starts a run.",
        "Check the platform; when no run of this task is running there, remove the key test_run from the task's state"
        " store (or set durable=False for one run), and the next try starts a new one.",
    ],
    "lifecycle/stopping.py": [
        "Asked the platform to cancel run %s: %s.",
        "Run %s has ended as %s.",
        "Run %s was asked to stop and is still %s after %.0f s.%s",
        "Could not cancel run %s (%s); it may still be running. %s",
    ],
    "lifecycle/waiting.py": [
        "Run %s is %s (%s%s).",
        "The platform does not show run %s yet.",
        "The platform answers again about run %s.",
        "Unknown status %r; treating run %s as running until its status is known, it has an end time, or the wait times"
        " out.",
    ],
    "lifecycle/watcher.py": [
        "The platform did not answer before the deadline of the wait.",
        "Connection {} can't be used ({}: {}). Check it, and the secrets backend and metadata database that it is read"
        " from.",
    ],
    "tasks/execution.py": [
        "Run {} did not finish within the timeout ({} s): {}",
        "The trigger that waited for run {} has failed {} times; the log has the errors.",
        "The task was killed. Could not cancel its run; it may still be running. %s",
        "The platform does not show run %s, which may still be running; cancelling it.",
        "This Airflow version has no task state store: a retry cannot resume an earlier run.",
        "Could not save all files of run %s to %s: %s",
    ],
    "tasks/record.py": [
        "Airflow has handed this task to a later try, which takes care of its run. This try stops here and leaves"
        " the run"
        " alone.",
    ],
    "tasks/stopping.py": [
        "Run %s has already finished as %s: nothing to stop.",
        "Run {} was asked to stop and is still {} after {} s.",
    ],
    "tasks/delivery.py": ["The JUnit report could not be written to {}: {}: {}"],
    "triggers/run.py": [
        "Waiting for run %s in the triggerer, until %s at the latest.",
        "The wait for run {} has failed in the triggerer; the run may still be running. {}",
        "Trigger cancelled; the task is %s. The run continues.",
        "Could not cancel run %s; it may still be running. %s",
    ],
    "judging.py": [
        "The run ended as {} without a test that failed: the run itself broke.",
        "Pass rate {} ({} of {}) is below min_pass_rate {}.",
        "{} of {} test cases: max_failures is {}.",
    ],
    "transport/policy.py": [
        "Connection {} could not {} ({} {})",
        "{}: the response is not as documented: {}. Check that the connection's host is the API's own URL.",
        "Connection {}: the token endpoint {} refused the credentials with HTTP {}: {} Check {} of the connection,"
        " and its"
        " realm or auth_url.",
        "%s Trying again in %.0f s.",
    ],
}


@cache
def _strings(module: str) -> frozenset[str]:
    """The strings of a module, with ``{}`` for what is filled in."""
    found = set()
    for node in ast.walk(ast.parse((_PACKAGE / module).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            found.add("".join(map(str, parts)))
    return frozenset(found)


@pytest.mark.parametrize("module", _MESSAGES)
def test_messages_change_on_purpose(module: str) -> None:
    missing = [text for text in _MESSAGES[module] if not any(text in found.strip() for found in _strings(module))]
    assert not missing, f"{module} has no such message any more: name the new one here, and in the docs"


def test_section_marks_have_one_style() -> None:
    marked = [
        f"{file.relative_to(_PACKAGE)}: {line.strip()}"
        for file in _PACKAGE.rglob("*.py")
        for line in file.read_text().splitlines()
        if line.lstrip().startswith("#") and "----" in line
    ]
    assert not marked, "a section begins with a comment line of its own, without rules"
