"""Which tests can see a change: those that run its line, cheapest first."""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import coverage
import pytest

from .mutants import PACKAGE, Mutant

#: For one mutant at most so many tests, which took at most so many seconds when they were recorded.
MOST_TESTS, MOST_SECONDS = 400, 30.0
#: Of these over a socket, where unit tests run the line too: they take a hundred times as long.
MOST_OVER_A_SOCKET, MOST_SECONDS_OVER_A_SOCKET = 12, 6.0
#: Not these: they are run in processes of their own, or ask nothing of the package.
_LEFT_OUT_MARKS = ("e2e", "perf")
_LEFT_OUT_FIXTURES = ("airflow",)


@dataclass(frozen=True)
class Test:
    id: str
    seconds: float
    unit: bool

    @property
    def function(self) -> str:
        return self.id.split("[")[0]

    @property
    def file(self) -> str:
        return self.id.split("::")[0]


class Recorder:
    """A pytest plugin that notes which test runs which lines, and how long it takes."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout
        self._coverage = coverage.Coverage(data_file=None, config_file=False, source=[str(checkout / PACKAGE)])
        self._tests: dict[str, tuple[float, bool]] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        wanted = [item for item in items if can_be_run_here(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
        items[:] = wanted

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        self._tests[item.nodeid] = (time.perf_counter() - began, item.get_closest_marker("unit") is not None)
        self._coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def write(self, file: Path) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        number = {name: n for n, name in enumerate(self._tests)}
        lines = {}
        for path in data.measured_files():
            by_line = data.contexts_by_lineno(path)
            lines[str(Path(path).relative_to(self._checkout))] = {
                line: [number[name] for name in names if name in number] for line, names in by_line.items()
            }
        tests = [[name, seconds, unit] for name, (seconds, unit) in self._tests.items()]
        file.write_text(json.dumps({"tests": tests, "failed": self.failed, "lines": lines}))


def can_be_run_here(item: pytest.Item) -> bool:
    """Not what needs an Airflow of its own, whose process would not have the change."""
    fixtures = getattr(item, "fixturenames", ())
    return not any(map(item.get_closest_marker, _LEFT_OUT_MARKS)) and not any(f in fixtures for f in _LEFT_OUT_FIXTURES)


def record(checkout: Path, folders: list[str], file: Path) -> None:
    """Run the tests once. In a process of its own, as it imports all of the package."""
    recorder = Recorder(checkout)
    status = pytest.main([*PYTEST, *folders], plugins=[recorder])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"The tests could not be run: {status!r}")
    recorder.write(file)
    if recorder.failed:
        print(f"{len(recorder.failed)} tests fail without any change, and are left out: {recorder.failed[:10]}")


#: The same examples each time, and no output of tests that fail as they should.
PYTEST = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=line", "--no-header", "-rN"]


def settle_chance() -> None:
    """Hypothesis takes the same examples each time where it sees a CI server."""
    os.environ["CI"] = "1"


class Suite:
    """What was recorded.

    :param file: what :func:`record` wrote.
    :param checkout: whose tests and code they are.
    """

    def __init__(self, file: Path, checkout: Path) -> None:
        recorded = json.loads(file.read_text())
        self.tests = [Test(*each) for each in recorded["tests"]]
        self._failed = set(recorded["failed"])
        self._lines: dict[str, dict[int, set[int]]] = {
            path: {int(line): set(tests) for line, tests in lines.items()} for path, lines in recorded["lines"].items()
        }
        self._checkout = checkout

    def for_mutant(self, mutant: Mutant) -> list[Test]:
        """The tests to run, in order: one of each test function before a second of any, the cheap ones first."""
        order: list[Test] = []
        for numbers in self._covering(mutant):
            found = sorted((self.tests[number] for number in numbers), key=lambda test: test.seconds)
            by_function: dict[str, list[Test]] = defaultdict(list)
            for test in found:
                if test.id not in self._failed and test not in order:
                    by_function[test.function].append(test)
            waves = ((wave, test) for tests in by_function.values() for wave, test in enumerate(tests))
            order += [test for _, test in sorted(waves, key=lambda each: (each[0], each[1].seconds))]
        units = _first([test for test in order if test.unit], MOST_TESTS, MOST_SECONDS)
        limits = (MOST_OVER_A_SOCKET, MOST_SECONDS_OVER_A_SOCKET) if units else (MOST_TESTS, MOST_SECONDS)
        others = _first([test for test in order if not test.unit], *limits)
        # File by file, as servers are started for a file.
        files = list(dict.fromkeys(test.file for test in others))
        return units + sorted(others, key=lambda test: files.index(test.file))

    def _covering(self, mutant: Mutant) -> list[set[int]]:
        """Those that run the line, and those that run the function: of a generator into which an error was thrown,
        coverage does not see the rest.
        """
        lines = self._lines.get(mutant.path, {})
        tree = ast.parse((self._checkout / mutant.path).read_text())
        exact = set().union(*(lines.get(line, ()) for line in range(mutant.line, mutant.end_line + 1)))
        if exact:
            return [exact, set().union(*(lines.get(line, ()) for line in _function(tree, mutant.line)))]
        around, names = _around(tree, mutant.line)
        found = set().union(*(lines.get(line, ()) for line in around))
        if not found and names:
            # It is run when the module is imported: whoever runs a line with the name that it gives may see it.
            for path, run in self._lines.items():
                mentions = _mentions((self._checkout / path).read_text(), names)
                found |= set().union(*(run.get(line, ()) for line in mentions))
        return [found or set().union(*lines.values())]


def _first(tests: list[Test], most: int, seconds: float) -> list[Test]:
    """As many as do not take longer, and one at least."""
    ends = list(accumulate(test.seconds for test in tests))
    return [test for test, end in zip(tests[:most], ends, strict=False) if end <= seconds] or tests[:1]


def stages(tests: list[Test]) -> list[list[Test]]:
    """Tests in the parts that are worth a process each: the file that knows most, its like, those over a socket."""
    units = [test for test in tests if test.unit]
    known = Counter(test.file for test in units)
    first = max(known, key=lambda file: known[file]) if known else ""
    parts = [
        [test for test in units if test.file == first],
        [test for test in units if test.file != first],
        [test for test in tests if not test.unit],
    ]
    return [part for part in parts if part]


def _function(tree: ast.Module, line: int) -> range:
    """The lines of the innermost function around a line."""
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    around = [each for each in functions if each.lineno <= line <= (each.end_lineno or each.lineno)]
    best = max(around, key=lambda each: each.lineno, default=None)
    return range(best.lineno, (best.end_lineno or best.lineno) + 1) if best else range(0)


def _around(tree: ast.Module, line: int) -> tuple[set[int], set[str]]:
    """The lines of the smallest statement around a line (of a function, its body too), and the names it defines."""
    statements = (each for each in ast.walk(tree) if isinstance(each, ast.stmt))
    around = [each for each in statements if each.lineno <= line <= (each.end_lineno or each.lineno)]
    if not around:
        return set(), set()
    best = max(around, key=lambda each: each.lineno)
    lines = set(range(best.lineno, (best.end_lineno or best.lineno) + 1))
    targets = getattr(best, "targets", None) or [getattr(best, "target", None)]
    names = {node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)}
    if isinstance(best, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        names.add(best.name)
    return lines, names


def _mentions(text: str, names: set[str]) -> set[int]:
    if not any(name in text for name in names):
        return set()
    return {
        node.lineno
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Name) and node.id in names) or (isinstance(node, ast.Attribute) and node.attr in names)
    }
