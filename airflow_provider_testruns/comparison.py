"""What has changed since an earlier run of the same tests, and what is remembered of a run for that. No I/O.

A run leaves a :class:`History`, which the next one is compared with: the last run and the last one that passed, with
the names of the cases that did not pass, and the last outcomes of cases that don't always end alike. Where it is kept
is not said here.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.judging import Gates, may_fail
from airflow_provider_testruns.limits import CHANGED, KB
from airflow_provider_testruns.model import (
    Baseline,
    CaseNames,
    CaseResult,
    CompareWith,
    Comparison,
    Metric,
    Outcome,
    RunReport,
    Verdict,
    utc,
)

#: Suite and name.
Case = tuple[str, str]

#: The form of what is stored: another one is not read.
_FORM = 1
#: Bytes of JSON for the names of the cases that did not pass, of all remembered runs together.
_NAMES = 64 * KB
#: The same for the outcomes of cases that don't always end alike, and for the metrics of one run.
_OUTCOMES = 32 * KB
_METRICS = 16 * KB
#: How many outcomes of a case are remembered, and how often they must have changed for it to be flaky.
RUNS = 10
FLAKY = 2
#: A run with more cases that passed does not remember which ones these were.
_MOST_PASSED = 8 * 1024
#: Bytes of the hash that stands for one of them, and how many characters of base64 are stored in one string.
_HASH, _CHUNK = 3, 3000


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run has tested. Only runs that have tested the same are compared.

    :param platform: the platform.
    :param kind: what was started.
    :param name: how Airflow's pages name the mapped task (``map_index_template``), empty when they don't.
    :param arguments: what of the task's arguments says what is tested.
    :param shown: the same of what the platform shows of the run, which is not always the same fields.
    """

    platform: str
    kind: str
    name: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)

    def differs(self, other: Selection) -> list[str]:
        """In what another one differs, for people; empty when it does not."""
        found = [name for name in ("platform", "kind") if getattr(self, name) != getattr(other, name)]
        if self.name != other.name:
            found.append("map_index_template")
        names = sorted({*self.arguments, *other.arguments})
        found += [name for name in names if self.arguments.get(name) != other.arguments.get(name)]
        both = sorted({*self.shown} & {*other.shown})
        return found + [name for name in both if name not in found and self.shown[name] != other.shown[name]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one run.

    :param run_id: the platform's id.
    :param verdict: what it was judged to mean.
    :param dag_run: Airflow's DAG run.
    :param finished_at: when it ended, by the platform's clock.
    :param url: its page.
    :param failed: the cases that did not pass, how many there are of each name.
    :param allowed: the same of those that ``allowed_failures`` excluded.
    :param left_out: how many more did not pass.
    :param metrics: its metrics.
    :param metrics_of: the run that they are from, where it is another one: an earlier one, for a run without.
    """

    run_id: str
    verdict: Verdict
    dag_run: str = ""
    finished_at: datetime | None = None
    url: str = ""
    failed: Mapping[Case, int] = field(default_factory=dict)
    allowed: Mapping[Case, int] = field(default_factory=dict)
    left_out: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    metrics_of: str = ""

    @property
    def complete(self) -> bool:
        """Whether it names all cases that did not pass."""
        return self.left_out == 0 and self.verdict in (Verdict.PASSED, Verdict.FAILED)

    def baseline(self) -> Baseline:
        """What a comparison says of it."""
        return Baseline(self.run_id, self.verdict, self.finished_at, self.url, self.complete)


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of a task's runs.

    :param tested: what they have tested.
    :param last: the last run.
    :param passed: the last run that passed; may be the same.
    :param before: the last run of an earlier DAG run than ``last``: a retry is not compared with its own first try.
    :param passed_before: the last one of those that passed.
    :param outcomes: of cases that did not always end alike, the last :data:`RUNS` outcomes, the newest last: ``P`` for
        passed, ``F`` for all else.
    :param passing: hashes of the names of the cases that passed when they ran last, ``None`` when they are too many: by
        them a case that was there is told from one that is new.
    """

    tested: Selection
    last: Remembered
    passed: Remembered | None = None
    before: Remembered | None = None
    passed_before: Remembered | None = None
    outcomes: Mapping[Case, str] = field(default_factory=dict)
    passing: frozenset[bytes] | None = None

    def without(self, run_id: str, dag_run: str) -> tuple[Remembered | None, Remembered | None]:
        """The last run and the last that passed, but for a run itself, and for the earlier tries of its DAG run."""

        def other(*found: Remembered | None) -> Remembered | None:
            for one in found:
                if one is not None and one.run_id != run_id and not (dag_run and one.dag_run == dag_run):
                    return one
            return None

        return other(self.last, self.before), other(self.passed, self.passed_before)


# Comparing


def compare(
    report: RunReport,
    gates: Gates,
    compare_with: CompareWith,
    history: History | None,
    tested: Selection,
    *,
    dag_run: str = "",
    unknown: str = "",
) -> RunReport:
    """The report with what has changed, and which of its cases are flaky.

    :param report: of a run that has finished.
    :param gates: what the task asks of it: what is excluded from them is no new failure.
    :param compare_with: which run it is compared with.
    :param history: what is remembered of earlier runs.
    :param tested: what the run has tested.
    :param dag_run: Airflow's DAG run.
    :param unknown: why there is no history, a sentence; without, that there is no earlier run.
    """
    note, base = _baseline(report, compare_with, history, tested, dag_run, unknown)
    failed, _ = _not_passed(report, gates)
    if base is None:
        found = Comparison(compare_with, new_failures=_names(failed, _unlisted(report)), note=note)
    else:
        found = _changes(report, failed, base, compare_with, note)
    unstable: dict[Case, str] = {}
    if history is not None and not history.tested.differs(tested):
        outcomes = _outcomes(report, history)
        there = {case: outcomes[case] for case in outcomes if _changes_of(outcomes[case]) >= FLAKY}
        unstable = {key: there[key] for case in report.cases if (key := (case.suite, case.name)) in there}
    return replace(report, comparison=found, unstable=unstable)


def _baseline(
    report: RunReport,
    compare_with: CompareWith,
    history: History | None,
    tested: Selection,
    dag_run: str,
    unknown: str,
) -> tuple[str, Remembered | None]:
    """The run to compare with; or why there is none."""
    if history is None:
        return unknown or "No baseline: there is no earlier run of this task.", None
    if differs := history.tested.differs(tested):
        before = history.last.run_id
        return f"No baseline: the last run ({before}) tested something else ({', '.join(differs)} differs).", None
    last, passed = history.without(report.run.run_id, dag_run)
    base = last if compare_with is CompareWith.PREVIOUS else passed
    if base is None:
        kind = "there is no earlier run" if compare_with is CompareWith.PREVIOUS else "no earlier run passed, as far as"
        known = "of this task" if compare_with is CompareWith.PREVIOUS else "is known"
        return f"No baseline: {kind} {known}.", None
    ended, base_ended = report.run.finished_at, base.finished_at
    if ended is not None and base_ended is not None and utc(base_ended) > utc(ended):
        return f"No baseline: run {base.run_id} ended at {base_ended}, after this one.", None
    notes = []
    if base.verdict in (Verdict.ERRORED, Verdict.CANCELLED):
        notes.append(f"The baseline, run {base.run_id}, was {base.verdict.value}.")
    if base.left_out:
        notes.append(f"{base.left_out} cases that did not pass in the baseline are not known by name.")
    if base.metrics_of and report.metrics:
        notes.append(f"Metrics are compared with those of run {base.metrics_of}, as the baseline has none.")
    return " ".join(notes), base


def _changes(
    report: RunReport, failed: list[CaseResult], base: Remembered, compare_with: CompareWith, note: str
) -> Comparison:
    # As often as the baseline has a name, it is known; there may be several cases of one.
    left = Counter(base.failed)
    new, still = [], []
    for case in failed:
        key = (case.suite, case.name)
        if left[key] > 0:
            left[key] -= 1
            still.append(case)
        else:
            new.append(case)
    left += Counter(base.allowed)
    fixed = []
    if left:
        for case in report.cases:
            if case.outcome is Outcome.PASSED and left.get((case.suite, case.name), 0) > 0:
                left[(case.suite, case.name)] -= 1
                fixed.append(case)
    before = {name: Metric(value) for name, value in base.metrics.items()}
    return Comparison(
        compare_with,
        base.baseline(),
        new_failures=_names(new, _unlisted(report)),
        still_failing=_names(still),
        fixed=_names(fixed),
        metrics={
            name: metric.value - base.metrics[name]
            for name, metric in report.metrics.items()
            if metric.value is not None and name in base.metrics
        },
        metrics_before=before,
        note=note,
    )


def _names(cases: list[CaseResult], more: int = 0) -> CaseNames:
    return CaseNames(tuple((case.suite, case.name) for case in cases[:CHANGED]), len(cases) + more)


def _not_passed(report: RunReport, gates: Gates) -> tuple[list[CaseResult], list[CaseResult]]:
    """The cases that did not pass: those that count, and those that ``allowed_failures`` excludes."""
    excluded = may_fail(gates)
    counting: list[CaseResult] = []
    allowed: list[CaseResult] = []
    for case in report.failures:
        (allowed if excluded(case) else counting).append(case)
    return counting, allowed


def _unlisted(report: RunReport) -> int:
    """How many cases did not pass that the platform counts and does not list."""
    return 0 if report.counts is None else max(0, report.counts.not_passed - len(report.failures))


# Remembering


def remember(
    report: RunReport,
    verdict: Verdict,
    gates: Gates,
    history: History | None,
    tested: Selection,
    *,
    dag_run: str = "",
) -> History:
    """What the next run is compared with.

    :param report: of a run that has finished.
    :param verdict: what it was judged to mean.
    :param gates: what the task asked of it.
    :param history: what was remembered of earlier runs; dropped when they have tested something else.
    :param tested: what the run has tested.
    :param dag_run: Airflow's DAG run.
    """
    if history is not None and history.tested.differs(tested):
        history = None
    last, passed = history.without(report.run.run_id, dag_run) if history is not None else (None, None)
    counting, allowed = _not_passed(report, gates)
    executed = verdict in (Verdict.PASSED, Verdict.FAILED)
    # Those that a gate is about first: there is not room for any number.
    names = sorted(report.metrics, key=lambda name: name not in gates.max_metric_drop)
    metrics = {name: value for name in names if (value := report.metrics[name].value) is not None}
    metrics_of = ""
    if last is not None and last.metrics and (report.metrics_error is not None or not (executed or metrics)):
        # Otherwise a run that broke would hide how far they have dropped.
        metrics = {**last.metrics, **metrics}
        metrics_of = last.metrics_of or last.run_id
    run = report.run
    now = Remembered(
        run.run_id,
        verdict,
        dag_run,
        run.finished_at,
        run.url,
        Counter((case.suite, case.name) for case in counting),
        Counter((case.suite, case.name) for case in allowed),
        # Of a run that was stopped before its end not all that would not have passed is known.
        max(_unlisted(report), 1 if run.stopped_early else 0),
        metrics,
        metrics_of,
    )
    passing = history.passing if history is not None else frozenset()
    if executed:
        passing = _passing_after(report, passing)
    return History(
        tested,
        now,
        now if verdict is Verdict.PASSED else passed,
        last,
        passed,
        # How a run that broke or was stopped left a case says nothing of the case.
        _outcomes(report, history) if executed else (history.outcomes if history is not None else {}),
        passing,
    )


def _passing_after(report: RunReport, before: frozenset[bytes] | None) -> frozenset[bytes] | None:
    """Hashes of the cases whose last outcome is that they passed; of those that passed now, when all are too many."""
    passed = [(case.suite, case.name) for case in report.cases if case.outcome is Outcome.PASSED]
    if len(passed) > _MOST_PASSED:
        return None
    now = frozenset(map(_hash, passed))
    failed = frozenset(_hash((case.suite, case.name)) for case in report.failures[:_MOST_PASSED])
    all_known = now | ((before or frozenset()) - failed)
    return all_known if len(all_known) <= _MOST_PASSED else now


def _outcomes(report: RunReport, history: History | None) -> dict[Case, str]:
    """The last outcomes of the cases that did not always end alike, with those of this run; the cases of this run
    first."""
    if history is None:
        return {}
    known, last = history.outcomes, history.last
    failed_before = {*last.failed, *last.allowed}
    failing = {(case.suite, case.name) for case in report.failures}
    ended: dict[Case, str] = dict.fromkeys(failing, "F")
    for case in report.cases:
        if case.outcome is Outcome.PASSED:
            key = (case.suite, case.name)
            if key not in failing and (key in known or key in failed_before):
                ended[key] = "P"
    found: dict[Case, str] = {}
    for key, outcome in ended.items():
        before = known.get(key)
        if before is None:
            before = "F" if key in failed_before else ""
            if not before and history.passing and _hash(key) in history.passing:
                before = "P"
        outcomes = (before + outcome)[-RUNS:]
        if _changes_of(outcomes):
            found[key] = outcomes
    return found | {key: outcomes for key, outcomes in known.items() if key not in ended}


def _changes_of(outcomes: str) -> int:
    return outcomes.count("PF") + outcomes.count("FP")


def _hash(case: Case) -> bytes:
    return blake2b("\0".join(case).encode("utf-8", "surrogatepass"), digest_size=_HASH).digest()


# Storing


def to_json(history: History) -> dict[str, Any]:
    """Plain JSON data, of at most some 150 kB; :func:`from_json` reads it back.

    Names that have no room are counted.
    """
    runs: list[Remembered] = []
    places: dict[str, int | None] = {}
    for name in ("last", "passed", "before", "passed_before"):
        run = getattr(history, name)
        if run is not None and run not in runs:
            runs.append(run)
        places[name] = None if run is None else runs.index(run)
    room = [_NAMES]
    stored = []
    for run in runs:
        failed, missing = _packed(run.failed, room)
        allowed, more = _packed(run.allowed, room)
        stored.append(
            {
                "run_id": run.run_id,
                "verdict": run.verdict.value,
                "dag_run": run.dag_run,
                "finished_at": utc(run.finished_at).isoformat() if run.finished_at is not None else None,
                "url": run.url,
                "failed": failed,
                "allowed": allowed,
                "left_out": run.left_out + missing + more,
                "metrics": _bounded_metrics(run.metrics),
                "metrics_of": run.metrics_of,
            }
        )
    tested = history.tested
    outcomes, outcomes_left_out = _packed_outcomes(history.outcomes)
    passing = None
    if history.passing is not None:
        packed = b64encode(b"".join(sorted(history.passing))).decode()
        passing = [packed[start : start + _CHUNK] for start in range(0, len(packed), _CHUNK)]
    return {
        "form": _FORM,
        "tested": {
            "platform": tested.platform,
            "kind": tested.kind,
            "name": tested.name,
            "arguments": dict(tested.arguments),
            "shown": dict(tested.shown),
        },
        "runs": stored,
        **places,
        "outcomes": outcomes,
        "outcomes_left_out": outcomes_left_out,
        "passing": passing,
    }


def _packed(cases: Mapping[Case, int], room: list[int]) -> tuple[dict[str, list[str]], int]:
    """Names by suite, as many as there is room for, and how many there is none for."""
    packed: dict[str, list[str]] = {}
    missing = sum(cases.values())
    for (suite, name), count in cases.items():
        size = _size(name) * count + (0 if suite in packed else _size(suite))
        if size > room[0]:
            break
        room[0] -= size
        missing -= count
        packed.setdefault(suite, []).extend([name] * count)
    return packed, missing


def _packed_outcomes(outcomes: Mapping[Case, str]) -> tuple[dict[str, dict[str, str]], int]:
    packed: dict[str, dict[str, str]] = {}
    room, missing = _OUTCOMES, 0
    # Those that change most are looked for.
    for (suite, name), found in sorted(outcomes.items(), key=lambda item: -_changes_of(item[1])):
        size = _size(name) + _size(found) + (0 if suite in packed else _size(suite))
        if size > room:
            missing += 1
            continue
        room -= size
        packed.setdefault(suite, {})[name] = found
    return packed, missing


def _bounded_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    kept: dict[str, float] = {}
    room = _METRICS
    for name, value in metrics.items():
        room -= _size(name) + 24
        if room < 0:
            break
        kept[name] = value
    return kept


def _size(text: str) -> int:
    """About how many bytes a string takes in JSON, with what stands around it."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) + 4


def from_json(data: Any) -> History:
    """Read what :func:`to_json` wrote. It comes from a place to which people can write.

    :raises ValueError: when it is not such data.
    """
    try:
        if not isinstance(data, Mapping) or data["form"] != _FORM:
            raise ValueError("it is of another form")
        runs = [_remembered(run) for run in _list(data["runs"])]
        found = {name: _at(runs, data[name]) for name in ("last", "passed", "before", "passed_before")}
        last = found.pop("last")
        if last is None:
            raise ValueError("it has no last run")
        return History(
            _tested(data["tested"]), last, outcomes=_read_outcomes(data["outcomes"]), passing=_passing(data), **found
        )
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as e:
        raise ValueError(f"{type(e).__name__}: {e}") from e


def _tested(data: Any) -> Selection:
    return Selection(
        _text(data["platform"]),
        _text(data["kind"]),
        _text(data["name"]),
        {_text(name): _text(value) for name, value in data["arguments"].items()},
        {_text(name): _text(value) for name, value in data["shown"].items()},
    )


def _remembered(data: Any) -> Remembered:
    finished_at = data["finished_at"]
    metrics = {_line(name): float(value) for name, value in data["metrics"].items()}
    return Remembered(
        _line(data["run_id"]),
        Verdict(data["verdict"]),
        _line(data["dag_run"]),
        None if finished_at is None else utc(datetime.fromisoformat(finished_at)),
        _line(data["url"]),
        _unpacked(data["failed"]),
        _unpacked(data["allowed"]),
        _number(data["left_out"]),
        {name: value for name, value in metrics.items() if math.isfinite(value)},
        _line(data["metrics_of"]),
    )


def _unpacked(data: Any) -> Counter[Case]:
    return Counter((_text(suite), _text(name)) for suite, names in data.items() for name in _list(names))


def _read_outcomes(data: Any) -> dict[Case, str]:
    found = {}
    for suite, names in data.items():
        for name, outcomes in names.items():
            if not set(_text(outcomes)) <= {"P", "F"}:
                raise ValueError(f"outcomes are P and F, not {outcomes!r:.50}")
            found[(_text(suite), _text(name))] = outcomes[-RUNS:]
    return found


def _passing(data: Mapping[str, Any]) -> frozenset[bytes] | None:
    if data["passing"] is None:
        return None
    packed = b64decode("".join(map(_text, _list(data["passing"]))), validate=True)
    return frozenset(packed[start : start + _HASH] for start in range(0, len(packed), _HASH))


def _at(runs: list[Remembered], place: Any) -> Remembered | None:
    return None if place is None else runs[_number(place)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.50} is no string")
    return value


def _line(value: Any) -> str:
    """What is said of a run in logs and messages: people can have written it."""
    return clean(_text(value))


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r:.50} is no number from 0 on")
    return value


def _list(value: Any) -> Iterable[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.50} is no list")
    return value
