"""The report as it goes to XCom: small, plain JSON, whatever the run's size."""

from __future__ import annotations

from typing import Any

from airflow_provider_testruns.model import Judgement, Run, RunReport

#: How many failed cases go to XCom; the others are only counted.
MAX_FAILURES = 50
#: How much of each text that a platform gives goes to XCom, in characters.
MAX_MESSAGE = 500


def to_xcom(report: RunReport, judgement: Judgement) -> dict[str, Any]:
    """The task's return value.

    :param report: the run's report.
    :param judgement: what it was judged to mean.
    :return: ``platform, run_id, verdict`` (lower case), ``reasons, raw_state, url, started_at, finished_at`` (ISO 8601,
        UTC), ``duration`` (seconds), ``total, passed, failed, unavailable, not_run`` (``None`` when the platform gives
        no counts), ``pass_rate`` (0 to 1), ``failures`` (at most 50 of ``{name, suite, message}``),
        ``failures_left_out`` and ``metrics`` (a figure or ``None`` by name).
    """
    run, counts = report.run, report.counts
    failures = report.failures
    not_passed = max(len(failures), counts.failed + counts.unavailable if counts is not None else 0)
    shown = failures[:MAX_FAILURES]
    return {
        "platform": run.platform,
        "run_id": run.run_id,
        "verdict": judgement.verdict.value,
        "reasons": [shorten(reason, MAX_MESSAGE) for reason in judgement.reasons],
        "raw_state": run.raw_state,
        "url": run.url,
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "duration": report.duration,
        "total": counts.total if counts else None,
        "passed": counts.passed if counts else None,
        "failed": counts.failed if counts else None,
        "unavailable": counts.unavailable if counts else None,
        "not_run": counts.not_run if counts else None,
        "pass_rate": round(report.pass_rate, 6) if report.pass_rate is not None else None,
        "failures": [
            {
                "name": shorten(case.name, MAX_MESSAGE),
                "suite": shorten(case.suite, MAX_MESSAGE),
                "message": shorten(case.message, MAX_MESSAGE),
            }
            for case in shown
        ],
        "failures_left_out": max(0, not_passed - len(shown)),
        "metrics": {name: metric.value for name, metric in report.metrics.items()},
    }


def run_to_xcom(run: Run) -> dict[str, Any]:
    """A final run in short, without what was tested: the platform's word is the verdict.

    :param run: in its last state.
    :return: ``platform, run_id, verdict`` (lower case), ``raw_state, url, started_at, finished_at`` (ISO 8601, UTC) and
        ``duration`` (seconds).
    """
    return {
        "platform": run.platform,
        "run_id": run.run_id,
        "verdict": run.ending.value if run.ending else None,
        "raw_state": run.raw_state,
        "url": run.url,
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "duration": RunReport(run).duration,
    }


def shorten(text: str, most: int) -> str:
    """``text``, cut to ``most`` characters where it is longer."""
    return text if len(text) <= most else text[: most - 2].rstrip() + " …"
