"""The report for people: a table in the log, and the message of a task that fails."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_testruns.cleaning import outgoing_text
from airflow_provider_testruns.exceptions import (
    RunCancelledError,
    RunEndedError,
    RunErroredError,
    RunFailedError,
)
from airflow_provider_testruns.judging import Judgement
from airflow_provider_testruns.model import Comparison, RunReport, Verdict
from airflow_provider_testruns.reporting.digest import MAX_NAMED, case_lines, text
from airflow_provider_testruns.reporting.xcom import MAX_MESSAGE, shorten, to_xcom

_ROW = 500
_ERRORS: dict[Verdict, type[RunEndedError]] = {
    Verdict.FAILED: RunFailedError,
    Verdict.ERRORED: RunErroredError,
    Verdict.CANCELLED: RunCancelledError,
}


def table(report: RunReport, judgement: Judgement) -> str:
    """The result as a small table; of a pass with the first failed cases below it."""
    run, counts = report.run, report.counts
    rows = [("verdict", judgement.verdict.value), ("state", outgoing_text(run.raw_state, MAX_MESSAGE))]
    if counts is not None:
        rows.append(("passed", str(counts.passed)))
        rows += [
            (label, str(number))
            for label, number in (
                ("failed", counts.failed),
                ("unavailable", counts.unavailable),
                ("not run", counts.not_run),
            )
            if number
        ]
        rows.append(("total", str(counts.total)))
    if report.pass_rate is not None:
        rows.append(("pass rate", f"{report.pass_rate:.1%}"))
    if report.duration is not None:
        rows.append(("duration", f"{report.duration:.1f} s"))
    comparison = report.comparison
    changes = comparison.metrics if comparison is not None else {}
    for name, metric in sorted(report.metrics.items()):
        value = "nothing scored" if metric.value is None else f"{metric.value:.3g}"
        if changes.get(name):
            value += f" ({changes[name]:+.3g})"
        rows.append((outgoing_text(name, MAX_MESSAGE), value))
    if comparison is not None:
        rows += _changes(comparison)
    if flaky := report.flaky:
        rows.append(("flaky", _listed([(case.suite, case.name) for case in flaky], len(flaky))))
    width = max(len(label) for label, _ in rows)
    lines = [f"Result of run {run.run_id}:"]
    lines += [f"  {label:<{width}}  {value}" for label, value in rows]
    if judgement.verdict is Verdict.PASSED:
        # Otherwise they are in the message that the task fails with, which is the next thing in its log.
        lines += case_lines(to_xcom(report, judgement))
    lines += [f"  note: {shorten(note, MAX_MESSAGE)}" for note in judgement.notes]
    return "\n".join(lines)


def _changes(comparison: Comparison) -> list[tuple[str, str]]:
    """What has changed, in rows of the table."""
    baseline = comparison.baseline
    if baseline is None:
        # A note says why.
        return [("baseline", "none")]
    said = f"run {baseline.run_id}, {baseline.verdict.value}"
    if baseline.finished_at is not None:
        said += f", {baseline.finished_at:%Y-%m-%d %H:%M} UTC"
    found = (
        ("new failures", comparison.new_failures),
        ("still failing", comparison.still_failing),
        ("fixed", comparison.fixed),
    )
    return [("baseline", said), *((label, _listed(cases.named, cases.total)) for label, cases in found)]


def _listed(cases: Sequence[tuple[str, str]], total: int) -> str:
    """How many cases, and the first of them."""
    named = [f"{suite} / {name}" if suite else name for suite, name in cases[:MAX_NAMED]]
    if not named:
        return str(total)
    more = ", …" if total > len(named) else ""
    return shorten(f"{total}: {', '.join(named)}{more}", _ROW)


def verdict_error(report: RunReport, judgement: Judgement, junit_path: str | None = None) -> RunEndedError | None:
    """The exception of a verdict other than passed; ``None`` for a pass. Its message is the :mod:`.digest`.

    :param report: the run's report.
    :param judgement: what it was judged to mean.
    :param junit_path: where its JUnit file is, if it has one.
    """
    kind = _ERRORS.get(judgement.verdict)
    return None if kind is None else kind(text(to_xcom(report, judgement, junit_path)))
