"""The end of a run in words: what was skipped and why, what was slow, and how to repeat what chance chose."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from typing import Any

import pytest

#: How many of the slowest tests are named.
SLOWEST = 10


class Summary:
    """Prints the summary before pytest's closing line.

    :param seed: of this run; ``None``: the same choices at every run.
    """

    def __init__(self, seed: str | None) -> None:
        self._seed = seed
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration  # type: ignore[assignment]  # seconds are no whole numbers

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if terminalreporter.config.option.collectonly:
            return
        terminalreporter.section("summary of the run")
        for line in (*self._skipped(terminalreporter.stats.get("skipped", [])), *self._slowest(), self._chance()):
            terminalreporter.write_line(line)

    def _skipped(self, reports: list[Any]) -> list[str]:
        reasons: dict[str, list[str]] = defaultdict(list)
        for report in reports:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reasons[why.removeprefix("Skipped: ")].append(report.nodeid)
        if not reasons:
            return ["Nothing was skipped."]
        lines = [f"Skipped: {len(reports)}"]
        for why, names in sorted(reasons.items()):
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            lines.append(f"  {len(names):4} {why} ({', '.join(sorted(names)[:2])}{more})")
        return lines

    def _slowest(self) -> list[str]:
        slowest = self._seconds.most_common(SLOWEST)
        return ["The slowest, set-up and clean-up included:", *(f"  {took:6.1f} s  {name}" for name, took in slowest)]

    def _chance(self) -> str:
        if self._seed is None:
            return "Seed: none, since with CI set the same examples are tried at every run. To repeat: CI=1 make test"
        return (
            f"Seed: {self._seed}. To repeat what chance chose: make test SEED={self._seed},"
            f" or pytest --hypothesis-seed={self._seed} and the name of a test"
        )


def seed_of(config: pytest.Config) -> str | None:
    """The seed of this run, which is made up unless it is given; ``None`` with ``CI`` set and none given."""
    given = config.getoption("hypothesis_seed", None)
    if given is None and not os.environ.get("CI"):
        given = config.option.hypothesis_seed = str(int.from_bytes(os.urandom(4)))
    return None if given is None else str(given)
