"""The trigger that waits for a run, for all platforms."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_testruns import timing
from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.cleaning import outgoing_json, outgoing_text
from airflow_provider_testruns.emission import GuardedLog

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

    from airflow_provider_testruns.lifecycle.run_log import RunLog
    from airflow_provider_testruns.lifecycle.waiting import Wait
    from airflow_provider_testruns.lifecycle.watcher import WatcherHandle
    from airflow_provider_testruns.model import Run

#: Where a stored run has what was added to the trigger's arguments since the first version. A triggerer of that version
#: would refuse arguments that it does not know, and fail the task; what it does not know of a run it passes over.
_ADDED = "wait"
#: The stored name of ``log_cursor``, in the trigger's arguments and in its event.
LOG_CURSOR = "log_told"
#: Cancels that are being carried out; the event loop keeps no hold on its tasks.
_at_work: set[asyncio.Task[None]] = set()


class RunTrigger(GuardedLog, BaseTrigger):
    """Waits until a run is final, without a worker.

    Its arguments are stored in clear in the metadata database: they are ids and times, and the id of the connection.
    Triggerers and workers of other versions read and write them, too: see :meth:`serialize`.

    :param platform: the platform's name, as :func:`.hook_class` knows it.
    :param conn_id: the Airflow connection.
    :param run: the run as it was seen last, as :meth:`.Run.to_dict` gives it.
    :param deadline: when the wait times out; seconds since 1970, so that a restart does not move it.
    :param poll_interval: seconds between two polls; less than 0.1 is 0.1.
    :param cancel_on_kill: whether the run is cancelled when a user ends the deferred task (Airflow 3.3 and later).
    :param log_cursor: what of the run's log is in the task log, as :attr:`.RunLog.cursor` gives it; the trigger
        continues from there. ``None`` for a run whose log is not followed.
    :param not_before: no poll before this time (seconds since 1970): the end of a Retry-After that the worker met.
    :param slows_from: when the wait began (seconds since 1970), for one that polls less and less often: see
        :class:`.Wait`.
    :param max_interval: the longest time between two polls of such a wait, in seconds.
    :param event_delay: seconds from the deferral in which no event is sent; 0 for none. See
        :data:`.timing.EVENT_DELAY`.
    :param deferred_at: when the task was deferred; seconds since 1970.
    :param stalled_after: as of :class:`.Wait`.
    :param max_failures: as of :class:`.Wait`.
    :param stored: ``log_cursor`` by its stored name, and arguments that a later version has added: those are passed
        over.
    """

    def __init__(
        self,
        platform: str,
        conn_id: str,
        run: dict[str, Any],
        deadline: float,
        poll_interval: float = 10.0,
        cancel_on_kill: bool = True,
        log_cursor: str | None = None,
        not_before: float | None = None,
        slows_from: float | None = None,
        max_interval: float | None = None,
        event_delay: float = 0.0,
        deferred_at: float | None = None,
        stalled_after: float | None = None,
        max_failures: int | None = None,
        **stored: Any,
    ) -> None:
        super().__init__()
        self.platform = platform
        self.conn_id = conn_id
        added = run.get(_ADDED) if isinstance(run, Mapping) else None
        self.test_run = run if added is None else {name: value for name, value in run.items() if name != _ADDED}
        added = added if isinstance(added, Mapping) else {}
        self.deadline = deadline
        # What an older version stored must not send thousands of requests either.
        self.poll_interval = max(timing.MIN_INTERVAL, poll_interval)
        self.cancel_on_kill = cancel_on_kill
        self.log_cursor = stored.get(LOG_CURSOR) if log_cursor is None else log_cursor
        self.not_before = added.get("not_before") if not_before is None else not_before
        self.slows_from = added.get("slows_from") if slows_from is None else slows_from
        self.max_interval = added.get("max_interval") if max_interval is None else max_interval
        self.event_delay = event_delay or added.get("event_delay") or 0.0
        self.deferred_at = added.get("deferred_at") if deferred_at is None else deferred_at
        self.stalled_after = added.get("stalled_after") if stalled_after is None else stalled_after
        self.max_failures = added.get("max_failures") if max_failures is None else max_failures
        self._done = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and the arguments, for the metadata database.

        While versions are changed, and after a step back, an older version reads them: what was added since the first
        one stands where that passes over it.
        """
        added = {
            "not_before": self.not_before,
            "slows_from": self.slows_from,
            "max_interval": self.max_interval,
            "event_delay": self.event_delay or None,
            "deferred_at": self.deferred_at,
            "stalled_after": self.stalled_after,
            "max_failures": self.max_failures,
        }
        added = {name: value for name, value in added.items() if value is not None}
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "platform": self.platform,
                "conn_id": self.conn_id,
                "run": {**self.test_run, _ADDED: added} if added else self.test_run,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "cancel_on_kill": self.cancel_on_kill,
                **({} if self.log_cursor is None else {LOG_CURSOR: self.log_cursor}),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event: how the wait ended (see :meth:`.WaitEnd.to_event`).

        Nothing but a cancellation leaves this in any other way: whatever goes wrong is an event, too, and what is in it
        can be encoded and stored.
        """
        began = time.monotonic()
        try:
            event = await self._wait()
        except asyncio.CancelledError as e:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this trigger was cancelled, but something that it was waiting for.
            event = self._failure(e)
        except Exception as e:
            event = self._failure(e)
        since_deferral = None if self.deferred_at is None else time.time() - self.deferred_at
        await asyncio.sleep(left_to_hold(self.event_delay, time.monotonic() - began, since_deferral))
        # Airflow calls on_kill also for a trigger that has not returned yet after its event.
        self._done = True
        yield TriggerEvent(event)

    async def _wait(self) -> dict[str, Any]:
        """Wait for the run; the event.

        :raises ConfigurationError: when the platform is not known here.
        """
        from airflow_provider_testruns.hooks.registry import hook_class
        from airflow_provider_testruns.lifecycle.run_log import RunLog
        from airflow_provider_testruns.lifecycle.waiting import Wait
        from airflow_provider_testruns.metrics import span
        from airflow_provider_testruns.model import Run

        if self.platform not in PLATFORMS:
            # A connection that can't be used may be mended while it is waited for. A package that is not installed here
            # will not come before a restart: that is an error at once.
            await asyncio.to_thread(hook_class, self.platform)
        wait = Wait(
            Run.from_dict(self.test_run),
            self.deadline,
            self.poll_interval,
            self.log,
            not_before=self.not_before or 0.0,
            slows_from=self.slows_from,
            max_interval=self.max_interval,
            stalled_after=self.stalled_after,
            max_failures=self.max_failures,
        )
        cursor: dict[str, Any] = {}
        async with self._watcher() as watcher:
            if self.log_cursor is None:
                with span("wait", platform=self.platform):
                    end = await watcher.wait(wait)
            else:
                run_log = RunLog(self.log, self.log_cursor)
                following = asyncio.create_task(self._follow(wait.run, run_log))
                try:
                    with span("wait", platform=self.platform):
                        end = await watcher.wait(wait)
                finally:
                    following.cancel()
                    await asyncio.wait([following])
                # Hashes in Base64: nothing of it is the platform's.
                cursor[LOG_CURSOR] = run_log.cursor
        self._done = end.run.final
        if end.run.parts:
            # Masking the texts of thousands of runs takes its time; in a thread the loop continues meanwhile.
            return {**await asyncio.to_thread(lambda: outgoing_json(end.to_event())), **cursor}
        return {**outgoing_json(end.to_event()), **cursor}

    def _failure(self, error: BaseException) -> dict[str, Any]:
        """The event of a wait that could not be made, or not be finished."""
        from airflow_provider_testruns.exceptions import ApiError

        said = outgoing_text(f"{type(error).__name__}: {_text_of(error)}")
        self.log.error("The wait has failed. %s", said, exc_info=error)
        run = self.test_run if isinstance(self.test_run, Mapping) else {}
        message = (
            f"The wait for run {run.get('run_id')} has failed in the triggerer; the run may still be running. {said}"
        )
        kind = type(error).__name__
        if isinstance(error, ApiError):
            message = _text_of(error)
        else:
            kind = ApiError.__name__
        event: dict[str, Any] = outgoing_json(
            {"status": "error", "run": dict(run), "error": {"type": kind, "message": message}}
        )
        if self.log_cursor is not None:
            event[LOG_CURSOR] = self.log_cursor
        return event

    async def on_kill(self) -> None:
        """Cancel the run, if it was a user who ended the task. Called by Airflow 3.3 and later."""
        if self._done or not self.cancel_on_kill:
            return
        # Airflow cancels the trigger again about once a second until it is gone, also while this runs (3.3.2): the work
        # is a task of its own, which those don't reach.
        work = asyncio.get_running_loop().create_task(self._cancel_run())
        _at_work.add(work)
        work.add_done_callback(_at_work.discard)
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(work)
        if not work.cancelled():
            work.result()

    async def _cancel_run(self) -> None:
        until = time.time() + timing.TRIGGER_KILL_WITHIN
        state = await self._task_state()
        if state is None or state == "deferred":
            # Airflow also calls on_kill when another triggerer has taken the trigger over: the task then continues.
            self.log.info("Trigger cancelled; the task is %s. The run continues.", state or "of unknown state")
            return
        from airflow_provider_testruns.exceptions import ApiError
        from airflow_provider_testruns.lifecycle.stopping import stop
        from airflow_provider_testruns.model import Run

        run = Run.from_dict(self.test_run)
        async with self._watcher() as watcher:
            while True:
                try:
                    async with asyncio.timeout(timing.TRIGGER_KILL_WITHIN / 2):
                        platform, client = await watcher.open()
                    break
                except (ApiError, TimeoutError) as e:
                    if time.time() + 1 > until:
                        self.log.error("Could not cancel run %s; it may still be running. %s", run.run_id, e)
                        return
                await asyncio.sleep(1)
            within = max(timing.TRIGGER_KILL_WITHIN / 2, until - time.time())
            steps = stop(platform, run, self.log, why=f"the task was set to {state}", within=within)
            await client.run(steps, time.time() + within)

    async def _follow(self, run: Run, run_log: RunLog) -> None:
        from airflow_provider_testruns.lifecycle.run_log import follow

        async with self._watcher() as watcher:
            await follow(watcher, run, run_log, self.poll_interval)

    def _watcher(self) -> AbstractAsyncContextManager[WatcherHandle]:
        from airflow_provider_testruns.hooks.registry import hook_class
        from airflow_provider_testruns.lifecycle.watcher import shared_watcher

        async def read() -> Any:
            # Importing a hook takes some tens of milliseconds: not in the event loop.
            hook = await asyncio.to_thread(hook_class, self.platform)
            return await hook.read_async(self.conn_id)

        return shared_watcher(self.platform, self.conn_id, read)

    async def _task_state(self) -> str | None:
        """The task's state now, as :func:`task_state`."""
        ti: Any = self.task_instance
        if ti is None:
            return None
        try:
            return await asyncio.to_thread(task_state, ti)
        except Exception as e:  # whatever Airflow's channel raises: without an answer nothing is cancelled
            self.log.warning("Could not read the task's state (%s: %s).", type(e).__name__, e)
            return None


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # whatever its __str__ does
        return ""


def left_to_hold(event_delay: float, since_begin: float, since_deferral: float | None) -> float:
    """How long an event is to be held back, so that Airflow has processed the deferral before it; seconds.

    :param event_delay: how long after the deferral an event may leave at the earliest; seconds.
    :param since_begin: how long the trigger has been running here; seconds. It began after the deferral.
    :param since_deferral: the time since the deferral by the clocks of two machines, which may differ; ``None`` when
        it is not known.
    """
    if since_deferral is not None and since_deferral > timing.SURELY_DEFERRED:
        # The triggerer was restarted: that must not hold up a run that has been waited for all along.
        return 0.0
    return max(0.0, event_delay - since_begin)


def task_state(ti: Any) -> str | None:
    """The state that Airflow's database has for a task instance; ``none`` for one that was just cleared, ``None`` when
    Airflow does not know it.

    :param ti: the task instance.
    :raises Exception: whatever Airflow's channel raises.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    of_run = states.get(ti.run_id)
    key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    if not isinstance(of_run, Mapping) or key not in of_run:
        return None
    return str(of_run[key] or "none")


def defer_until_final(
    task: BaseOperator,
    wait: Wait,
    *,
    platform: str,
    conn_id: str,
    cancel_on_kill: bool,
    log_cursor: str | None = None,
) -> NoReturn:
    """Hand a wait over to the triggerer; the task continues in its ``execute_complete``.

    :param task: the operator or sensor.
    :param wait: the run and the rules.
    :param platform: the run's platform.
    :param conn_id: the Airflow connection.
    :param cancel_on_kill: whether the run is cancelled when a user ends the deferred task.
    :param log_cursor: ``log_cursor`` of :class:`RunTrigger`.
    """
    task.log.info(
        "Waiting for run %s in the triggerer, until %s at the latest.",
        wait.run.run_id,
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wait.deadline)),
    )
    now = time.time()
    trigger = RunTrigger(
        platform,
        conn_id,
        outgoing_json(wait.run.to_dict()),
        wait.deadline,
        wait.poll_interval,
        cancel_on_kill,
        log_cursor,
        not_before=wait.not_before if wait.not_before > now else None,
        slows_from=wait.slows_from,
        max_interval=wait.max_interval,
        event_delay=_event_delay(),
        deferred_at=now,
        stalled_after=wait.stalled_after,
        max_failures=wait.max_failures,
    )
    # The deadline is the trigger's own: Airflow's timeout of a trigger never comes back to execute_complete, and the
    # run would keep running.
    task.defer(trigger=trigger, method_name="execute_complete", timeout=None)
    raise AssertionError("defer() does not return")


def _event_delay() -> float:
    """The setting ``[testruns] event_delay``; its default where it can't be right."""
    from airflow.providers.common.compat.sdk import AirflowConfigException, conf

    try:
        delay = conf.getfloat("testruns", "event_delay", fallback=timing.EVENT_DELAY)
    except (AirflowConfigException, ValueError):
        return timing.EVENT_DELAY
    return delay if 0 <= delay <= timing.SURELY_DEFERRED else timing.EVENT_DELAY
