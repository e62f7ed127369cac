"""One mutant on trial, in a process forked from one that has imported all but the package."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from .mutants import PACKAGE
from .suite import PYTEST, Test

#: What takes long to import and knows nothing of the package.
_IMPORTED_ONCE = (
    "airflow.sdk",
    "airflow.models",
    "airflow.providers.common.compat.sdk",
    "aiohttp",
    "requests",
    "fastapi",
    "uvicorn",
    "hypothesis.strategies",
    "junitparser",
    "trustme",
)
#: A mutant that never ends is found by its CPU time, which other work on the machine does not lengthen...
_CPU_SECONDS = 60
#: ...and one that sleeps for ever by the clock, generously; and one that fills memory by its size.
_SECONDS = 400
_MEMORY = 6 << 30

Outcome = tuple[str, str]


class _Changed(importlib.machinery.SourceFileLoader):
    """Loads a module from a text that is in no file, so that the checkout stays as it is."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)


class _Finder:
    def __init__(self, name: str, path: Path, text: str) -> None:
        self._name, self._path, self._text = name, path, text

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> object:
        if name != self._name:
            return None
        package = [str(self._path.parent)] if self._path.name == "__init__.py" else None
        loader = _Changed(name, str(self._path), self._text)
        return importlib.util.spec_from_file_location(
            name, self._path, loader=loader, submodule_search_locations=package
        )


class _Chosen:
    """A pytest plugin: of all tests in the files only those chosen, in their order, and which one fails."""

    def __init__(self, order: Sequence[str]) -> None:
        self._place = {name: place for place, name in enumerate(order)}
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def prepare() -> None:
    """Import, once for all mutants, what takes long."""
    for name in _IMPORTED_ONCE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Airflow has asked what is installed, and so has read what the package says of itself.
    early = {name for name in sys.modules if name.split(".")[0] == PACKAGE}
    if early - {PACKAGE, f"{PACKAGE}.get_provider_info"}:
        sys.exit(f"The package is imported too early to be changed: {sorted(early)}")
    for name in early:
        del sys.modules[name]
    # What is here stays: pytest looks for what it left, several times for each mutant.
    gc.collect()
    gc.freeze()


def try_tests(checkout: Path, changed: str, text: str, tests: Sequence[Test]) -> Outcome:
    """Run tests with one changed module.

    :param changed: the module's file, from the root of the checkout.
    :return: ``survived``, ``killed``, ``stuck`` (it did not end, or took all memory) or ``broken`` (it can't even be
        imported, or the run of the tests itself breaks), and the name of the test that found it.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        told = Path(folder, "told")
        child = os.fork()
        if child == 0:
            _child(checkout, changed, text, tests, Path(folder))
        return _result(child, told)


def _child(checkout: Path, changed: str, text: str, tests: Sequence[Test], folder: Path) -> None:
    status = 70
    try:
        os.setpgid(0, 0)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.chdir(checkout)
        name = changed.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        sys.meta_path.insert(0, _Finder(name, checkout / changed, text))
        chosen = _Chosen([test.id for test in tests])
        files = list(dict.fromkeys(test.file for test in tests))
        status = int(pytest.main([*PYTEST, "-x", f"--basetemp={folder}/pytest", *files], plugins=[chosen]))
        (folder / "told").write_text(chosen.failed)
    except BaseException:
        traceback.print_exc()
    finally:
        # No more of the parent's code here, whatever happened.
        os._exit(status)


def _result(child: int, told: Path) -> Outcome:
    deadline = time.monotonic() + _SECONDS
    status = None
    while status is None and time.monotonic() < deadline:
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = code
        else:
            time.sleep(0.02)
    # With all that it started.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
        return "stuck", ""
    if os.WIFSIGNALED(status):
        return "stuck", f"signal {os.WTERMSIG(status)}"
    by = told.read_text() if told.exists() else ""
    match os.WEXITSTATUS(status):
        case pytest.ExitCode.OK:
            return "survived", ""
        case pytest.ExitCode.NO_TESTS_COLLECTED:
            return "survived", ""
        case pytest.ExitCode.TESTS_FAILED:
            return "killed", by
        case code:
            return "broken", f"pytest ended with {code}"


@contextlib.contextmanager
def only_path(checkout: Path) -> Iterator[None]:
    """Imports from this checkout and from no other that the environment may know."""
    before = list(sys.path)
    sys.path[:] = [str(checkout), *(p for p in before if p and not Path(p, PACKAGE).is_dir())]
    try:
        yield
    finally:
        sys.path[:] = before
