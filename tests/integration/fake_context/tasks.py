"""A task without Airflow around it: a made-up context, a trigger that is run here, and the log that both write."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred
from airflow.sdk.exceptions import AirflowRescheduleException

from airflow_provider_testruns.triggers.run import RunTrigger


class Told:
    """What tasks have written to their log, which is Airflow's own and not in the reach of ``caplog``."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._text = ""

    @property
    def text(self) -> str:
        """All of it so far, without colours."""
        self._text += re.sub(r"\x1b\[[\d;]*m", "", self._capfd.readouterr().out)
        return self._text

    @property
    def lines(self) -> list[str]:
        """The messages so far."""
        return re.findall(r"^\S+ \[\w+ *\] (.+?) +\[[\w.]+\]", self.text, re.M)

    @property
    def of_the_run(self) -> list[str]:
        """The lines of the run's own log."""
        return re.findall(r"\[info *\] (\[[A-Z][A-Za-z ]+\] .+?) +\[[\w.]+\]", self.text)

    def of(self, part: str) -> list[str]:
        """The messages that have something in them."""
        return [line for line in self.lines if part in line]

    def __contains__(self, part: str) -> bool:
        return part in self.text


class Store(dict[str, Any]):
    """A task's state store, which takes plain data only."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Task:
    """A task over its tries: each takes an operator from ``execute()`` to its end.

    What is deferred goes through the trigger, as plain data, and on in another operator of the same arguments: in
    Airflow that is another process.

    :param try_number: of the task instance.
    :param max_tries: of the task instance.
    :param context: what else is in its context.
    """

    def __init__(self, *, try_number: int = 1, max_tries: int = 3, **context: Any) -> None:
        self.store = Store()
        #: Of the latest try.
        self.xcoms: dict[str, Any] = {}
        self.deferrals = 0
        self.reschedules = 0
        self.triggers: list[RunTrigger] = []
        self.events: list[dict[str, Any]] = []
        self._first_reschedule: datetime | None = None
        self.context: Any = {
            "ti": SimpleNamespace(
                dag_id="dag",
                run_id="manual",
                task_id="task",
                map_index=-1,
                try_number=try_number,
                max_tries=max_tries,
                start_date=None,
                xcom_push=self._push,
                xcom_pull=lambda *, task_ids, key, map_indexes, include_prior_dates=False: self.xcoms.get(key),
                get_first_reschedule_date=lambda context: self._first_reschedule,
            ),
            "task_state_store": self.store,
            **context,
        }

    def run(self, operator: BaseOperator) -> Any:
        """One try; what it returns."""
        self.xcoms = {}
        while True:
            try:
                return operator.execute(self.context)
            except AirflowRescheduleException:
                self.reschedules += 1
                self._first_reschedule = self._first_reschedule or datetime.now(UTC)
                time.sleep(0.05)
            except TaskDeferred as deferred:
                self.deferrals += 1
                path, kwargs = deferred.trigger.serialize()
                assert path == "airflow_provider_testruns.triggers.run.RunTrigger"
                self.triggers.append(RunTrigger(**json.loads(json.dumps(kwargs))))
                self.events.append(json.loads(json.dumps(asyncio.run(first_event(self.triggers[-1])))))
                operator = type(operator)(**operator._BaseOperator__init_kwargs)  # type: ignore[attr-defined]
                return operator.resume_execution(deferred.method_name, {"event": self.events[-1]}, self.context)

    def fail(self, operator: BaseOperator, kind: type[Exception], match: str | None = None) -> str:
        """One try that fails; its message."""
        with pytest.raises(kind, match=match) as raised:
            self.run(operator)
        assert type(raised.value) is kind
        return str(raised.value)

    @property
    def record(self) -> dict[str, Any]:
        """What the store has of the run."""
        record: dict[str, Any] = self.store["test_run"]
        return record

    def _push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


async def first_event(trigger: RunTrigger) -> Any:
    """What the trigger ends in."""
    events = trigger.run()
    event = await anext(events)
    await events.aclose()
    return event.payload
