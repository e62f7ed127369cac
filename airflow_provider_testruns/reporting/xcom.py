"""The report as it goes to XCom: small, plain JSON, whatever the run's size."""

from __future__ import annotations

from typing import Any

from airflow_provider_testruns.cleaning import outgoing_text
from airflow_provider_testruns.judging import Judgement
from airflow_provider_testruns.model import CaseNames, CaseResult, Comparison, Run, RunReport, Verdict

#: How many failed cases go to XCom; the others are only counted.
MAX_FAILURES = 50
#: How much of each text that a platform gives goes to XCom, in characters.
MAX_MESSAGE = 500
#: The same of a detail of a case, such as an id.
MAX_DETAIL = 200


def to_xcom(report: RunReport, judgement: Judgement, junit_path: str | None = None) -> dict[str, Any]:
    """The task's return value. What is in it and how it stays compatible is said in docs/results.md.

    :param report: the run's report.
    :param judgement: what it was judged to mean.
    :param junit_path: where its JUnit file is, if it has one.
    :return: ``platform, run_id, verdict`` (lower case), ``reasons, raw_state, url, started_at, finished_at`` (ISO 8601,
        UTC), ``duration`` (seconds), ``total, passed, failed, unavailable, not_run`` (``None`` when the platform gives
        no counts), ``pass_rate`` (0 to 1), ``failures`` (at most 50 of ``{name, suite, message, outcome}``, without
        those that are allowed; with ``details`` where the platform gives more of a case, under its own names),
        ``failures_left_out``, ``allowed_failures`` (at most 50 of ``{name, suite}``),
        ``allowed_failures_left_out``, ``notes``, ``metrics`` (a number or ``None`` by name) and ``junit_path``;
        ``commit``, where the platform shows which one was tested; ``stopped_early``, true for a run that was stopped as
        a gate could not be met any more; ``flaky`` (at most 50 of ``{name, suite}``) and
        ``flaky_left_out``, where there are any; and with ``compare_with``: ``compared_with`` (that), ``baseline``
        (``{run_id, verdict, finished_at, url, complete}``, ``None`` when there is none), ``new_failures``,
        ``still_failing`` and ``fixed`` (at most 50 of ``{name, suite}``), for each of them ``<name>_left_out``, and
        ``metrics_change`` (a number by name).
    """
    run, counts = report.run, report.counts
    failures, not_passed = counting_failures(report, judgement)
    shown, allowed = failures[:MAX_FAILURES], judgement.allowed[:MAX_FAILURES]
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
                "message": shorten(case.message, MAX_MESSAGE, lines=True),
                "outcome": case.outcome.value,
                **({"details": _details(case)} if case.details else {}),
            }
            for case in shown
        ],
        "failures_left_out": max(0, not_passed - len(shown)),
        "allowed_failures": [_named(case.suite, case.name) for case in allowed],
        "allowed_failures_left_out": len(judgement.allowed) - len(allowed),
        "notes": [shorten(note, MAX_MESSAGE) for note in judgement.notes],
        "metrics": {name: metric.value for name, metric in report.metrics.items()},
        "junit_path": junit_path,
        **_flaky(report),
        **({"commit": report.commit} if report.commit else {}),
        **({"stopped_early": True} if run.stopped_early else {}),
        **(_comparison(report.comparison) if report.comparison is not None else {}),
    }


def _flaky(report: RunReport) -> dict[str, Any]:
    flaky = report.flaky
    if not flaky:
        return {}
    return {
        "flaky": [_named(case.suite, case.name) for case in flaky[:MAX_FAILURES]],
        "flaky_left_out": max(0, len(flaky) - MAX_FAILURES),
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    baseline = found.baseline
    said: dict[str, Any] = {
        "compared_with": found.compare_with.value,
        "baseline": None
        if baseline is None
        else {
            "run_id": baseline.run_id,
            "verdict": baseline.verdict.value,
            "finished_at": baseline.finished_at.isoformat() if baseline.finished_at else None,
            "url": baseline.url,
            "complete": baseline.complete,
        },
    }
    for name in ("new_failures", "still_failing", "fixed"):
        cases: CaseNames = getattr(found, name)
        said[name] = [_named(*case) for case in cases.named[:MAX_FAILURES]]
        said[f"{name}_left_out"] = cases.total - len(said[name])
    said["metrics_change"] = {name: round(change, 6) for name, change in found.metrics.items()}
    return said


def _named(suite: str, name: str) -> dict[str, str]:
    return {"name": shorten(name, MAX_MESSAGE), "suite": shorten(suite, MAX_MESSAGE)}


def _details(case: CaseResult) -> dict[str, str | int | bool]:
    return {
        name: shorten(value, MAX_DETAIL) if isinstance(value, str) else value for name, value in case.details.items()
    }


def counting_failures(report: RunReport, judgement: Judgement) -> tuple[list[CaseResult], int]:
    """The cases that did not pass and are not allowed to, and how many there are with those that only the counts know.

    :param report: the run's report.
    :param judgement: what it was judged to mean.
    """
    failures, counts = report.failures, report.counts
    not_passed = max(len(failures), counts.not_passed if counts is not None else 0)
    allowed = frozenset(judgement.allowed)
    return [case for case in failures if case not in allowed], not_passed - len(judgement.allowed)


def to_event(report: RunReport, judgement: Judgement) -> dict[str, Any]:
    """What an asset's event says of the run, under the names of :func:`to_xcom`.

    :param report: the run's report.
    :param judgement: what it was judged to mean.
    :return: ``platform, run_id, url, state, raw_state, verdict, total, passed, failed, unavailable, not_run,
        pass_rate``; of a run that was compared with an earlier one, all that says so, too; and ``flaky`` and
        ``flaky_left_out`` where there are flaky cases.
    """
    whole = to_xcom(report, judgement)
    names = ("verdict", "total", "passed", "failed", "unavailable", "not_run", "pass_rate")
    changed = _comparison(report.comparison) if report.comparison is not None else {}
    return {**run_to_event(report.run), **{name: whole[name] for name in names}, **changed, **_flaky(report)}


def run_to_event(run: Run) -> dict[str, Any]:
    """What an asset's event says of a run that nobody waited for.

    :param run: as it was seen last.
    :return: ``platform, run_id, url, state`` (``queued``, ``running``, ``finished``) and ``raw_state``.
    """
    return {
        "platform": run.platform,
        "run_id": run.run_id,
        "url": run.url,
        "state": run.state.value,
        "raw_state": run.raw_state,
    }


def finished_to_event(
    run: Run, verdict: Verdict | None, found: tuple[RunReport, Judgement] | None = None, error: str = ""
) -> dict[str, Any]:
    """What an event says of a run that has finished somewhere, under the names of :func:`to_event` and
    :func:`to_xcom`.

    :param run: as a list shows it.
    :param verdict: what it means, as far as is known.
    :param found: its report and what that means, where it was fetched.
    :param error: why it could not be fetched.
    :return: what :func:`to_event` gives (counts are ``None`` without a report), ``started_at, finished_at`` (ISO 8601,
        UTC), ``duration`` (seconds), ``kind``, ``context`` (the ids that the platform's calls need beside ``run_id``),
        ``judged`` (whether the verdict is that of its report), and ``error`` where there is one.
    """
    report = RunReport(run) if found is None else found[0]
    if found is not None:
        event = to_event(*found)
    else:
        nothing = dict.fromkeys(("total", "passed", "failed", "unavailable", "not_run", "pass_rate"))
        event = {**run_to_event(run), "verdict": None if verdict is None else verdict.value, **nothing}
    # A report may know an end that the list does not show.
    started, finished = report.run.started_at, report.run.finished_at
    return {
        **event,
        "started_at": started.isoformat() if started else None,
        "finished_at": finished.isoformat() if finished else None,
        "duration": report.duration,
        "kind": run.kind.value,
        "context": dict(run.ids),
        "judged": found is not None,
        **({"error": error} if error else {}),
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
        "verdict": run.platform_verdict.value if run.platform_verdict else None,
        "raw_state": run.raw_state,
        "url": run.url,
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "duration": RunReport(run).duration,
    }


def shorten(text: str, most: int, *, lines: bool = False) -> str:
    """A string as it may leave (see :func:`.outgoing_text`), cut to ``most`` characters where it is longer."""
    text = outgoing_text(text, None, lines=lines)
    return text if len(text) <= most else text[: most - 2].rstrip() + " …"
