"""Settings of all tests. ``tests/harness`` is what they are made of."""

from __future__ import annotations

from tests.harness import places

# First of all: what is imported from here on may make files.
PLACES = places.take()

import os  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from airflow_provider_testruns import redaction  # noqa: E402
from airflow_provider_testruns.transport import pace  # noqa: E402
from tests.harness import groups, leftovers  # noqa: E402
from tests.harness.summary import Summary, seed_of  # noqa: E402

# Time is not what is tested, and a busy machine is slow; in CI the same examples each time.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    database=None if os.environ.get("CI") else settings.default.database,
)
settings.load_profile("project")

# Runs of tests take no time; the end-to-end tests have an Airflow of their own, with the default.
os.environ.setdefault("AIRFLOW__TESTRUNS__EVENT_DELAY", "0")

#: What a test that is marked ``unit`` does not do, by Python's audit events.
_NOT_UNIT = ("socket.connect", "socket.bind", "sqlite3.connect")
_FILES = pytest.StashKey[set[str]]()
_LEFT = pytest.StashKey[list[str]]()
_unit_tests: dict[str, list[str]] = {}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in _NOT_UNIT:
        for done in _unit_tests.values():
            done.append(f"{event}{arguments[1:]}")


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _unit_means_unit(request: pytest.FixtureRequest) -> Iterator[None]:
    """The marker ``unit`` is true of what bears it."""
    if request.node.get_closest_marker("unit") is None:
        yield
        return
    done = _unit_tests.setdefault(request.node.nodeid, [])
    try:
        yield
    finally:
        del _unit_tests[request.node.nodeid]
    assert done == [], "marked 'unit', and yet"


@pytest.fixture(autouse=True)
def _secrets_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of clients are masked beyond their ends: those of one unit test would be in the texts of the next."""
    if request.node.get_closest_marker("unit") is not None:
        monkeypatch.setattr(redaction, "_registry", redaction._Registry())


@pytest.fixture(autouse=True)
def _nobody_was_refused_before() -> None:
    """A 429 slows down all of a process, and its tests often have the same connection."""
    pace._paces.clear()


@pytest.fixture(autouse=True)
def _chance_repeats(request: pytest.FixtureRequest) -> None:
    """What is drawn by chance, the pauses between attempts for one, is the same when a run is repeated by its seed."""
    random.seed(f"{request.config.getoption('hypothesis_seed', None)} {request.node.nodeid}")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):
        config.stash[_FILES] = leftovers.files(config.rootpath)
        config.pluginmanager.register(Summary(seed_of(config)), "summary")
    config.stash[_LEFT] = []


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """All workers must give a test the same name, and what gzip packs has the time in it."""
    if isinstance(val, bytes) and not (len(val) <= 40 and val.isascii() and val.decode("ascii").isprintable()):
        return f"{argname} of {len(val)} bytes"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> groups.Scheduling:
    return groups.Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended, and says what it has left."""
    node.config.stash[_LEFT] += getattr(node, "workeroutput", {}).get("left", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves something behind has failed."""
    config = session.config
    left = config.stash[_LEFT]
    left += [f"port {port} is still listened on in the process of the tests" for port in leftovers.ports()]
    if _is_worker(config):
        config.workeroutput["left"] = left  # type: ignore[attr-defined]
        return
    left += leftovers.end(leftovers.processes(PLACES.mark))
    # Not what somebody writes while the tests run.
    new = [
        path for path in leftovers.files(config.rootpath) - config.stash[_FILES] if not path.endswith((".py", ".md"))
    ]
    left += [f"file {path}" for path in sorted(new)]
    left += [f"file {PLACES.temporary / path}" for path in sorted(leftovers.files(PLACES.temporary, ()))]
    if not left:
        return
    report = pytest.TestReport(
        nodeid="all tests: this run has left something behind",
        location=("tests/conftest.py", None, "what the run has left behind"),
        keywords={},
        outcome="failed",
        longrepr="\n".join(left),
        when="teardown",
    )
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.stats.setdefault("error", []).append(report)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
