"""The trigger that sends an event for every run that finishes, whoever started it, for all platforms."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_testruns import limits, timing
from airflow_provider_testruns.arguments import interval, shown, strictly_boolean
from airflow_provider_testruns.builtin import PLATFORMS
from airflow_provider_testruns.cleaning import is_clean, outgoing_json, outgoing_text
from airflow_provider_testruns.emission import GuardedLog, get_logger
from airflow_provider_testruns.exceptions import ApiError, AuthenticationError, ConfigurationError
from airflow_provider_testruns.model import Run, Verdict, utc

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer

    from airflow_provider_testruns.judging import Judgement
    from airflow_provider_testruns.lifecycle.finished import FinishedRuns
    from airflow_provider_testruns.lifecycle.watcher import Client, WatcherHandle
    from airflow_provider_testruns.model import RunReport
    from airflow_provider_testruns.platforms.platform import Platform

log = get_logger(__name__)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: Where to look, by platform: the arguments of which exactly one is given.
_WHERE: Mapping[str, tuple[str, ...]] = {
    "eggplant": ("model_id", "model_name"),
    "futureagi": ("run_test_id",),
    "omilia": ("project_id",),
}
_ALL_WHERE = ("project_id", "model_id", "model_name", "run_test_id")
#: How many events may be on their way to the metadata database: at most so many come twice when a triggerer is killed.
#: Airflow stores some tens a second and sends no heartbeat meanwhile; its queue for a trigger holds 1,024, and each
#: must be stored within 300 s.
IN_FLIGHT = 64
#: How many reports are fetched at once.
_REPORTS = 8
#: How often the report of a run is asked for with credentials that are refused.
_REFUSALS = 3
#: Stands for what is sent later.
_LATER: dict[str, Any] = {}
#: Before Airflow 3.3 nothing tells when events are stored: there is a pause after so many.
_BATCH = 50


class FinishedRunsTrigger(GuardedLog, BaseEventTrigger):
    """Sends an event for every run of a project, model or run test that finishes, whoever started it.

    For a watcher of an asset: ``Asset("…", watchers=[AssetWatcher(name="…", trigger=FinishedRunsTrigger(…))])``. What
    is in an event, and what is promised, is said in docs/events.md.

    :param platform: ``eggplant``, ``futureagi``, ``omilia``, or that of another package.
    :param conn_id: the Airflow connection.
    :param asset_name: the name of the asset whose watcher this is. In its state store is noted which runs have had
        their event (Airflow 3.3 and later).
    :param project_id: of Omilia: the project.
    :param model_id: of Eggplant: the model's UUID.
    :param model_name: of Eggplant, instead of ``model_id``: the model's name.
    :param run_test_id: of Future AGI: the run test.
    :param verdicts: only runs that ended so (``passed``, ``failed``, ``errored``, ``cancelled``); ``None`` for all.
    :param poll_interval: seconds between two polls; at least 0.1.
    :param judge: whether the report of each run is fetched and judged: the event then has its verdict and counts.
        Without, the verdict is the platform's own word.
    :param backfill_since: with the first start, runs that ended since then get an event, too; a datetime or its ISO
        8601 form, without a zone in UTC.
    :raises ConfigurationError: naming the argument that can't be right.
    """

    def __init__(
        self,
        platform: str,
        conn_id: str,
        *,
        asset_name: str,
        project_id: str | None = None,
        model_id: str | None = None,
        model_name: str | None = None,
        run_test_id: str | None = None,
        verdicts: Sequence[str] | None = None,
        poll_interval: float = 30.0,
        judge: bool = False,
        backfill_since: datetime | str | None = None,
    ) -> None:
        super().__init__()
        self.platform = _platform(platform)
        self.conn_id = _text("conn_id", conn_id)
        self.asset_name = _text("asset_name", asset_name)
        given = (project_id, model_id, model_name, run_test_id)
        self.where = _where(platform, dict(zip(_ALL_WHERE, given, strict=True)))
        self.verdicts = _verdicts(verdicts)
        self.poll_interval = interval("poll_interval", poll_interval)
        self.judge = strictly_boolean("judge", judge)
        self.backfill_since = _since(backfill_since)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and the arguments, for the metadata database."""
        further = {
            "verdicts": list(self.verdicts) if self.verdicts else None,
            "judge": self.judge or None,
            "backfill_since": self.backfill_since.isoformat() if self.backfill_since else None,
        }
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "platform": self.platform,
                "conn_id": self.conn_id,
                "asset_name": self.asset_name,
                **self.where,
                "poll_interval": self.poll_interval,
                **{name: value for name, value in further.items() if value is not None},
            },
        )

    def shared_stream_key(self) -> Hashable | None:
        """All arguments: each trigger has a stream, and a cursor, of its own, which Airflow confirms events to. What
        triggers of one connection have in common they share below that."""
        if not self._asset_is_right():
            return None
        path, arguments = self.serialize()
        return path, json.dumps(arguments, sort_keys=True)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """The stream of this trigger's events, told by Airflow (3.3 and later) which of them are stored.

        :param kwargs: as :meth:`serialize` gave them.
        """
        from airflow.providers.common.compat.sdk import conf
        from airflow.triggers.shared_stream import SharedStreamProducer

        # By name: Airflow before 3.3 does not have the class.
        SharedStreamProducer.register(FinishedRunsStream)
        stream = FinishedRunsStream(cls(**kwargs), AssetStore.of(kwargs["asset_name"]))
        # Whoever has made the queue shorter must not see it overflow.
        queue = conf.getint("triggerer", "shared_stream_subscriber_queue_size", fallback=IN_FLIGHT)
        stream.most_in_flight = max(1, min(IN_FLIGHT, queue))
        return cast("SharedStreamProducer", stream)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """The events of the stream, one for each run.

        :param shared_stream: their payloads.
        """
        async for payload in shared_stream:
            yield TriggerEvent(payload)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without a store, for Airflow before 3.3: what was told of is remembered in memory alone.

        :raises ConfigurationError: when the trigger belongs to another asset than ``asset_name`` says.
        """
        if not self._asset_is_right():
            why = (
                f"asset_name is {self.asset_name!r}, and no asset of this name has this trigger as a watcher: no event"
                " is sent. Give FinishedRunsTrigger the name of the asset that it watches for."
            )
            self.log.error(why)
            # Airflow begins again at once, and would continue like that.
            await asyncio.sleep(timing.MISTAKEN_PAUSE)
            raise ConfigurationError(why)
        stream, sent = FinishedRunsStream(self, None), 0
        events = stream.open_stream()
        async with contextlib.aclosing(events):
            async for payload, run_id in events:
                yield TriggerEvent(payload)
                stream.settle([run_id], delivered=True)
                sent += 1
                if sent % _BATCH == 0:
                    await asyncio.sleep(timing.EVENTS_PAUSE)

    def _asset_is_right(self) -> bool:
        assets = getattr(self, "asset_state_store", None)
        if assets is None:
            return True
        from airflow.sdk import Asset

        try:
            assets[Asset.ref(name=self.asset_name)]
        except KeyError:
            return False
        return True


class AssetStore:
    """A key of an asset's state store (Airflow 3.3 and later).

    :param accessor: Airflow's.
    """

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    @classmethod
    def of(cls, asset_name: str) -> AssetStore:
        """That of an asset.

        :param asset_name: its name.
        """
        from airflow.sdk.execution_time.context import AssetStateStoreAccessor

        return cls(AssetStateStoreAccessor(name=asset_name))

    async def read(self, key: str) -> Any:
        """What is stored; ``None`` when nothing is.

        :raises Exception: whatever Airflow's channel raises.
        """
        return await self._accessor.aget(key)

    async def write(self, key: str, value: Any) -> None:
        """Store something.

        :raises Exception: whatever Airflow's channel raises.
        """
        await self._accessor.aset(key, value)


class FinishedRunsStream:
    """The events of one trigger, in the form that Airflow's ``SharedStreamProducer`` has.

    An event that Airflow has not confirmed is not told of as far as the cursor goes: after a restart it is sent again.
    So none is lost, and some come twice, with the same ``run_id``.

    :param trigger: whose they are.
    :param store: where the cursor is kept; ``None`` for nowhere.
    """

    def __init__(self, trigger: FinishedRunsTrigger, store: AssetStore | None) -> None:
        self._trigger = trigger
        self._store = store
        self._what = "Runs of " + ", ".join(f"{name} {value}" for name, value in trigger.where.items())
        # Who asks for other verdicts, or looks elsewhere, has told of other runs.
        of = [trigger.platform, trigger.conn_id, *trigger.where.items(), *trigger.verdicts]
        self.key = "finished_runs_" + hashlib.blake2b(json.dumps(of).encode(), digest_size=8).hexdigest()
        self._runs: FinishedRuns
        self._cursor_was_bad = False
        #: How many events may be on their way.
        self.most_in_flight = IN_FLIGHT
        self._in_flight = 0
        self._refused: dict[str, int] = {}
        self._room = asyncio.Event()
        self._ending = asyncio.Event()
        self._writing = asyncio.Lock()

    async def open_stream(self) -> AsyncGenerator[tuple[dict[str, Any], str], None]:
        """Yield the payload of each event with the run's id, for ever: no outage of the platform or of the metadata
        database ends it."""
        for module in ("lifecycle.watcher", "reporting.xcom"):
            # That takes some tens of milliseconds: not in the event loop.
            await asyncio.to_thread(import_module, f"airflow_provider_testruns.{module}")
        from airflow_provider_testruns.lifecycle.finished import Listing
        from airflow_provider_testruns.lifecycle.watcher import shared_watcher

        trigger = self._trigger
        try:
            self._runs = self._new_runs()
            await self._restore()
            listing = Listing(trigger.where, trigger.poll_interval, lambda: self._runs.since, log, self._what)
            async with shared_watcher(trigger.platform, trigger.conn_id, self._read_connection) as watcher:
                while True:
                    runs = await watcher.list_runs(listing)
                    first = not self._runs.begun
                    due = self._runs.look(runs)
                    if first and not await self._begin(len(due)):
                        continue
                    async for run, payload in self._payloads(watcher, due):
                        if payload is None:
                            self._runs.told(run.run_id)
                            continue
                        await self._wait_for_room()
                        self._in_flight += 1
                        yield payload, run.run_id
                    await self._save()
        finally:
            self._ending.set()

    async def advance(self, batch: Sequence[Any]) -> None:
        """Airflow has stored some events, or given them up.

        :param batch: items with ``broker_payload``, the run's id, and ``outcome``.
        """
        for item in batch:
            self.settle([item.broker_payload], delivered=item.outcome.is_clean)
        await self._save(lasting=True)

    def settle(self, run_ids: Sequence[str], *, delivered: bool) -> None:
        """Note what has become of events.

        :param run_ids: of their runs.
        :param delivered: whether they have arrived; else they are sent again.
        """
        for run_id in run_ids:
            self._in_flight -= 1
            (self._runs.told if delivered else self._runs.undelivered)(run_id)
        self._room.set()

    def get_advance_lane(self, broker_payload: Any) -> Hashable:
        """All events are confirmed in their order."""
        return None

    async def aclose(self) -> None:
        """Nothing is left open: what the stream holds it gives back when it is closed."""

    # The cursor

    def _new_runs(self) -> FinishedRuns:
        from airflow_provider_testruns.lifecycle.finished import FinishedRuns

        return FinishedRuns(self._trigger.backfill_since)

    async def _restore(self) -> None:
        """Read the cursor, as soon as it can be read."""
        if self._store is None:
            return
        from airflow_provider_testruns.lifecycle.finished import CursorError, FinishedRuns

        stored = await self._persistently(partial(self._store.read, self.key))
        if stored is None:
            return
        try:
            self._runs.restore(stored)
        except CursorError as e:
            # Runs of before it are not told of again, also where backfill_since would have that at a first start.
            self._runs = FinishedRuns(None)
            if self._cursor_was_bad:
                return
            self._cursor_was_bad = True
            log.warning(
                "%s: the cursor %s in the state store of asset %r can't be read (%s). Watching starts again; runs"
                " that have already finished are not reported.",
                self._what,
                self.key,
                self._trigger.asset_name,
                outgoing_text(str(e), limits.ANSWER),
            )

    async def _begin(self, due: int) -> bool:
        """Write the first cursor: what it notes must still be noted after a restart.

        :param due: how many runs are told of at once.
        :return: whether it is written; else all begins again, as somebody else may have written one.
        """
        if self._store is not None:
            try:
                await self._write()
            except Exception as e:
                log.warning("%s: the cursor can't be stored yet (%s). Trying again.", self._what, _said(e))
                self._runs = self._new_runs()
                await asyncio.sleep(random.uniform(0.5, 1) * min(30.0, self._trigger.poll_interval))
                await self._restore()
                return False
        if self._store is None:
            kept = "in memory only; a restart starts again"
        else:
            kept = f"as {self.key} in the state store of asset {self._trigger.asset_name!r}"
        if not self._cursor_was_bad:
            log.warning(
                "%s: there is no cursor; watching starts now. Runs that have already finished are not reported (%d"
                " runs; %d since backfill_since are). The cursor is kept %s.",
                self._what,
                self._runs.noted,
                due,
                kept,
            )
        return True

    async def _save(self, *, lasting: bool = False) -> None:
        """Write the cursor if it has changed.

        :param lasting: until it is written, or the stream ends; else with the next look.
        """
        if self._store is None or not self._runs.changed:
            return
        if not lasting:
            try:
                await self._write()
            except Exception as e:
                log.warning("%s: the cursor can't be stored (%s). Trying again.", self._what, _said(e))
            return
        writing = asyncio.ensure_future(self._persistently(self._write))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                await asyncio.wait({writing}, timeout=timing.LAST_WRITE)
        finally:
            for task in (writing, ending):
                task.cancel()
            await asyncio.wait({writing, ending})

    async def _write(self) -> None:
        assert self._store is not None
        async with self._writing:
            if not self._runs.changed:
                return
            cursor, self._runs.changed = self._runs.to_json(), False
            try:
                await self._store.write(self.key, cursor)
            except BaseException:
                self._runs.changed = True
                raise

    async def _persistently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What Airflow's store answers, after whatever outage.

        :param ask: asks it once.
        """
        from airflow_provider_testruns.transport.policy import back_off

        failures = 0
        while True:
            try:
                return await ask()
            except Exception as e:  # whatever Airflow's channel raises, while its database is away, say
                if failures == 0:
                    log.warning("%s: the state store is not available (%s). Trying again.", self._what, _said(e))
                await asyncio.sleep(back_off(failures))
                failures += 1

    # Events

    async def _wait_for_room(self) -> None:
        while self._in_flight >= self.most_in_flight:
            self._room.clear()
            await self._room.wait()

    async def _payloads(
        self, watcher: WatcherHandle, runs: Sequence[Run]
    ) -> AsyncIterator[tuple[Run, dict[str, Any] | None]]:
        """What is sent of runs; ``None`` for those that are not asked for. Where credentials are refused, that run and
        the ones after it are due again: the next poll finds out whether the connection has new ones."""
        for at in range(0, len(runs), _REPORTS):
            some = runs[at : at + _REPORTS]
            platform, client = await self._opened(watcher)
            payloads = await asyncio.gather(*(self._payload(platform, client, run) for run in some))
            for number, (run, payload) in enumerate(zip(some, payloads, strict=True)):
                if payload is _LATER:
                    for left in runs[at + number :]:
                        self._runs.undelivered(left.run_id)
                    return
                yield run, payload

    async def _payload(self, platform: Platform, client: Client, run: Run) -> dict[str, Any] | None:
        from airflow_provider_testruns.reporting.xcom import finished_to_event

        trigger = self._trigger
        verdict = platform.listed_verdict(run)
        found: tuple[RunReport, Judgement] | None = None
        error = ""
        if trigger.judge or (trigger.verdicts and verdict is None):
            try:
                found = await self._report(platform, client, run)
                verdict = found[1].verdict
            except AuthenticationError as e:
                self._refused[run.run_id] = self._refused.get(run.run_id, 0) + 1
                if self._refused[run.run_id] < _REFUSALS:
                    return _LATER
                error = self._not_available(run, e)
            except Exception as e:  # also what no report of an honest platform raises: the next ones must not wait
                error = self._not_available(run, e)
            self._refused.pop(run.run_id, None)
        # Where the report is not available, whoever asks for a verdict is told of the run all the same.
        if trigger.verdicts and not error and verdict is not None and verdict.value not in trigger.verdicts:
            return None
        event = finished_to_event(run, verdict, found, error)
        sent: dict[str, Any] = outgoing_json({**event, "conn_id": trigger.conn_id})
        return sent

    async def _report(self, platform: Platform, client: Client, run: Run) -> tuple[RunReport, Judgement]:
        from airflow_provider_testruns.lifecycle.finished import judged

        return await client.run(judged(platform, run, log.warning))

    def _not_available(self, run: Run, error: Exception) -> str:
        log.warning("%s: the report of run %s is not available. %s", self._what, run.run_id, error)
        return _said(error)

    async def _opened(self, watcher: WatcherHandle) -> tuple[Platform, Client]:
        """The platform and its client, after whatever outage of what the connection is read from."""
        while True:
            try:
                return await watcher.open()
            except ApiError as e:
                log.warning("%s: %s Trying again.", self._what, e)
                await asyncio.sleep(self._trigger.poll_interval)

    async def _read_connection(self) -> Any:
        from airflow_provider_testruns.hooks.registry import hook_class

        # Importing a hook takes some tens of milliseconds: not in the event loop.
        hook = await asyncio.to_thread(hook_class, self._trigger.platform)
        return await hook.read_async(self._trigger.conn_id)


def _said(error: Exception) -> str:
    return outgoing_text(f"{type(error).__name__}: {error}", limits.ANSWER)


def _text(name: str, value: Any, most: int = limits.NAME) -> str:
    if not isinstance(value, str) or not value.strip() or not is_clean(value, most):
        raise ConfigurationError(f"{name} must be a string of 1 to {most} characters, got {shown(value)}.")
    return value


def _platform(platform: Any) -> str:
    if not isinstance(platform, str) or platform not in PLATFORMS:
        from airflow_provider_testruns.hooks.registry import hook_class

        # One of another package: that it is there is as much as is known of it here.
        try:
            hook_class(platform)
        except ConfigurationError as e:
            raise ConfigurationError(f"platform: {e}") from None
    return str(platform)


def _where(platform: str, given: Mapping[str, Any]) -> dict[str, str]:
    names = _WHERE.get(platform, _ALL_WHERE)
    found = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in found if name not in names]
    if wrong:
        raise ConfigurationError(
            f"{wrong[0]} is not for platform {platform!r}, whose runs are found by {' or '.join(names)}."
        )
    if len(found) != 1:
        said = ", ".join(found) or "none"
        one = names[0] if len(names) == 1 else f"exactly one of {', '.join(names)}"
        raise ConfigurationError(f"{one} must be given for platform {platform!r}; given: {said}.")
    ((name, value),) = found.items()
    text = _text(name, value, limits.NAME if name == "model_name" else limits.ID).strip()
    if platform in PLATFORMS and name in ("model_id", "run_test_id") and not _UUID.fullmatch(text):
        raise ConfigurationError(f"{name} must be a UUID, got {shown(value)}.")
    return {name: text}


def _verdicts(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    known = [verdict.value for verdict in Verdict]
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence | set | frozenset) or not given:
        raise ConfigurationError(f"verdicts must be a list of some of {', '.join(known)}, or None; got {shown(given)}.")
    wrong = [value for value in given if not isinstance(value, str) or str(value).lower() not in known]
    if wrong:
        raise ConfigurationError(f"verdicts must be a list of some of {', '.join(known)}; {shown(wrong[0])} is none.")
    asked = {str(value).lower() for value in given}
    return tuple(value for value in known if value in asked)


def _since(given: Any) -> datetime | None:
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
        if not isinstance(moment, datetime):
            raise TypeError
        moment = utc(moment)
        moment.timestamp()
    except (TypeError, ValueError, OverflowError):
        raise ConfigurationError(
            "backfill_since must be a datetime, or its ISO 8601 form such as 2026-12-01T00:00:00+00:00; got"
            f" {shown(given)}."
        ) from None
    return moment
