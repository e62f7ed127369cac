"""What the API of Acme Labs is: requests and how their responses are read, nothing is sent here."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from airflow_provider_testruns.exceptions import ConfigurationError
from airflow_provider_testruns.model import CaseResult, Outcome, Run, RunReport, RunState, Verdict
from airflow_provider_testruns.platforms.platform import Platform, Start
from airflow_provider_testruns.platforms.reading import Fields, objects
from airflow_provider_testruns.steps import Call, Response, Steps, ask, no_value, path

_STATES = {
    "waiting": (RunState.QUEUED, None),
    "running": (RunState.RUNNING, None),
    "done": (RunState.FINISHED, None),
    "stopped": (RunState.FINISHED, Verdict.CANCELLED),
}


class AcmePlatform(Platform):
    """Acme Labs.

    :param base_url: the connection's base URL.
    """

    name: ClassVar[str] = "acme"
    title: ClassVar[str] = "Acme Labs"

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def prepare_start(self, *, suite: str | None) -> Steps[Start]:
        """A run of a suite."""
        yield from ()
        if not isinstance(suite, str) or not suite.strip():
            raise ConfigurationError(f"suite must be the name of a suite, got {suite!r}.")
        call = Call(
            f"start suite {suite}", "POST", path("/suites/{suite}/runs", suite=suite), self._run, idempotent=False
        )
        return Start(f"run of suite {suite}", call, {"suite": suite}, {"suite": suite})

    def newest_run(self, start: Start) -> Steps[Run | None]:
        """The newest run of the suite."""
        runs = yield from self.find_runs(None, **start.ids)
        return runs[0] if runs else None

    def get_run(self, run: Run) -> Steps[Run]:
        """``GET /runs/{id}``."""
        where = path("/runs/{run_id}", run_id=run.run_id)
        return (yield from ask(Call(f"get run {run.run_id}", "GET", where, self._run)))

    def find_runs(self, since: datetime | None, **ids: str) -> Steps[list[Run]]:
        """``GET /suites/{suite}/runs``, newest first."""
        suite = ids["suite"]
        call = Call(f"list runs of {suite}", "GET", path("/suites/{suite}/runs", suite=suite), self._runs)
        runs = yield from ask(call)
        return [run for run in runs if since is None or run.started_at is None or run.started_at >= since]

    def cancel_run(self, run: Run) -> Steps[None]:
        """``POST /runs/{id}/stop``, which leaves a final run as it is."""
        where = path("/runs/{run_id}/stop", run_id=run.run_id)
        yield from ask(Call(f"stop run {run.run_id}", "POST", where, no_value))

    def get_report(self, run: Run) -> Steps[RunReport]:
        """``GET /runs/{id}/cases``."""
        cases = yield from ask(
            Call(f"get cases of {run.run_id}", "GET", path("/runs/{run_id}/cases", run_id=run.run_id), _cases)
        )
        return RunReport(run, cases=cases)

    def check(self) -> Steps[str]:
        """``GET /ping``."""
        yield from ask(Call("ping", "GET", "/ping", no_value))
        return "Acme Labs is there."

    def _run(self, response: Response) -> Run:
        return self._run_of(Fields(response.json(), "the run"))

    def _runs(self, response: Response) -> list[Run]:
        return [self._run_of(row) for row in objects(response.json(), "the runs")]

    def _run_of(self, row: Fields) -> Run:
        run_id, status, suite = row.identifier("id"), row.required("status"), row.identifier("suite")
        state, ending = _STATES.get(status, (RunState.RUNNING, None))
        return Run(
            self.name,
            run_id,
            state,
            status,
            platform_verdict=ending,
            started_at=row.moment("startedAt"),
            url=f"{self._base_url}/show/{run_id}",
            ids={"suite": suite},
            started_with={"suite": suite},
            known_state=status in _STATES,
        )


def _cases(response: Response) -> tuple[CaseResult, ...]:
    return tuple(
        CaseResult(row.required("name"), Outcome.PASSED if row.flag("ok", default=False) else Outcome.FAILED)
        for row in objects(response.json(), "the cases")
    )
