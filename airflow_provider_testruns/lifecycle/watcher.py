"""Many waits at once, for the price of few requests: what all waits of one triggerer and connection share.

One :class:`Watcher` per event loop, connection and its settings has one transport, so one token and a few sockets.
Runs that a platform can list together are polled with one list call as soon as more than one of them is watched, as
long as that is not more expensive than polling each.

Each wait begins with reading the connection, so that one that was edited is used at once; those that are under way
stay with the settings that they began with as long as these are accepted.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_testruns import timing
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.emission import get_logger
from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionUnavailableError,
    InvalidReplyError,
    RateLimitedError,
    TransportError,
)
from airflow_provider_testruns.lifecycle.finished import Listing
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, jittered, poll
from airflow_provider_testruns.metrics import metrics
from airflow_provider_testruns.model import Run, RunState
from airflow_provider_testruns.platforms.platform import Platform, PollCache
from airflow_provider_testruns.redaction import redact
from airflow_provider_testruns.steps import Steps
from airflow_provider_testruns.transport.policy import RequestStats

T = TypeVar("T")
log = get_logger(__name__)

#: What a request costs this process beside reading its response, in bytes of a response that cost as much to read. A
#: request over TLS takes about half a millisecond, in which some 40 kB of JSON are read.
REQUEST_COST = 40_000
_TOO_LATE = TransportError("The platform did not answer before the deadline of the wait.")


class Client(Protocol):
    """The part of a transport that a watcher needs."""

    async def run(self, steps: Steps[T], until: float | None = None, stats: RequestStats | None = None) -> T:
        """Carry steps to their end."""

    async def close(self) -> None:
        """Close what is open."""


class Connection(Protocol):
    """An Airflow connection as it was read."""

    @property
    def digest(self) -> str:
        """Differs when any of the settings does."""

    async def open(self) -> tuple[Platform, Client]:
        """The platform and a transport of these settings."""


Read = Callable[[], Awaitable[Connection]]


@dataclass(eq=False, slots=True)
class _Member:
    """One wait of a group.

    Airflow routes a trigger's log lines by the context in which they are logged, so whatever the group finds out about
    a member is said in that member's context: ``context.run`` for a call, ``create_task(…, context=…)`` for a
    coroutine, never one within the other, which Python refuses.

    :param wait: the run and the rules.
    :param context: the one that the wait itself runs in, copied when it joined.
    :param turn: set while the wait is left to the group: its end, or ``None`` when it is to continue by itself.
    """

    wait: Wait
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    turn: asyncio.Future[WaitEnd | None] | None = None

    @property
    def waits(self) -> bool:
        """Whether it is left to the group and has not ended."""
        return self.turn is not None and not self.turn.done()

    def end(self, now: float) -> float:
        """When the wait times out, in seconds of the loop.

        :param now: the time of the loop.
        """
        return now + self.wait.deadline - self.wait.clock()

    def settle(self, end: WaitEnd | None) -> None:
        """End the wait, if this is an end."""
        if end is not None and self.turn is not None and not self.turn.done():
            self.turn.set_result(end)

    def observe(self, run: Run) -> None:
        """The group was shown the run."""
        self.settle(self.context.run(self.wait.observe, run))

    def failed(self, error: ApiError) -> None:
        """A look of the group's ended in an error."""
        self.settle(self.context.run(self.wait.failed, error))

    def time_is_over(self) -> None:
        """The platform has not answered the group before the wait's deadline. Called in :attr:`context`."""
        self.settle(self.wait.failed(_TOO_LATE))

    def release(self) -> None:
        """Leave the wait to itself."""
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)


class _Turn:
    """The time that something long holds up the loop for; everything else waits for its end."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock() + timing.LOOP_TURN

    async def end(self) -> None:
        """Let the others have theirs, if this one has taken long enough."""
        if self._clock() >= self._until:
            await asyncio.sleep(0)
            self._until = self._clock() + timing.LOOP_TURN


@dataclass(eq=False, slots=True)
class _Reader:
    """Somebody who reads a group's list: for what has finished, whoever started it.

    :param listing: the rules.
    :param group: whose list it is.
    :param due: when the next look is, in seconds of the loop.
    :param turn: set while the list is waited for: what it shows, why it is not available, or ``None`` when it is to be
        asked for through another watcher.
    """

    listing: Listing
    group: _Group
    due: float
    turn: asyncio.Future[list[Run] | ApiError | None] | None = None

    @property
    def reads(self) -> bool:
        """Whether the next look is for it, too."""
        return self.turn is not None and not self.turn.done()

    def give(self, found: list[Run] | ApiError | None) -> None:
        """What a look has come to."""
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(found)


@dataclass(eq=False, slots=True)
class _Group:
    """Runs that one list call shows.

    :param key: as the platform named it.
    :param members: the waits for them.
    :param readers: who reads the whole list.
    :param ids: by which the list is asked for, where somebody reads it.
    :param task: polls them together, ``None`` while each is asked for individually.
    :param due: when the next look is, in seconds of the loop.
    :param sooner: set when that was put forward.
    :param not_before: no look before this time (of the loop), as the platform asked for.
    :param failures: how many looks in a row have failed transiently.
    :param singly_until: not before this time (of the loop) is the list tried again.
    :param single_cost: what asking for one of them costs, by the last that was asked for.
    :param cache: what the looks at it have shown.
    """

    key: str
    members: set[_Member] = field(default_factory=set)
    readers: set[_Reader] = field(default_factory=set)
    ids: Mapping[str, str] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    due: float = 0.0
    sooner: asyncio.Event = field(default_factory=asyncio.Event)
    not_before: float = 0.0
    failures: int = 0
    singly_until: float = 0.0
    single_cost: float = REQUEST_COST + 1_000
    cache: PollCache = field(default_factory=PollCache)
    #: When the first of its waits ends, in seconds of the loop. Too early from when that one has left to the next look:
    #: thousands may join and leave at once, and each of them going through all others would hold up the loop.
    ends: float = math.inf
    #: Of the whole list, where somebody reads it.
    whole: PollCache = field(default_factory=PollCache)

    def worth_it(self, now: float) -> bool:
        """Whether it is to be polled together, as far as is known.

        :param now: the time of the loop.
        """
        return bool(self.readers) or (len(self.members) > 1 and now >= self.singly_until)

    def polls_waits(self, now: float) -> bool:
        """Whether the waits are left to the group: not while each is asked for individually.

        :param now: the time of the loop.
        """
        return self.task is not None and now >= self.singly_until

    def interval(self, now: float) -> float:
        """Seconds between two polls: as the most impatient of those asks for who are left to the group."""
        asked = [reader.listing.interval for reader in self.readers]
        if now >= self.singly_until:
            asked += [member.wait.interval for member in self.members]
        return min(asked, default=0.0)

    def time_left(self, now: float) -> float:
        """Seconds until the first of the waits that are left to the group ends."""
        if not self.readers and not self.members:
            return 0.0
        return self.ends - now if now >= self.singly_until else math.inf

    def note_ends(self, now: float) -> None:
        """Find out again when the first of its waits ends.

        :param now: the time of the loop.
        """
        self.ends = min((member.end(now) for member in self.members), default=math.inf)


class Watcher:
    """Waits for many runs over one connection, and reads lists of runs. Belongs to one event loop.

    :param platform: of the connection.
    :param client: the transport.
    :param superseded: whether the connection has other settings by now; asked when the credentials are not accepted.
    """

    def __init__(self, platform: Platform, client: Client, superseded: Callable[[], Awaitable[bool]]) -> None:
        self.platform = platform
        self.client = client
        self._superseded = superseded
        self._loop = asyncio.get_running_loop()
        self._checked_at = self._loop.time()
        self._groups: dict[str, _Group] = {}
        #: How many use this watcher.
        self.users = 0
        #: Whether its credentials are not accepted any more and the connection has other settings: all waits leave.
        self.retired = False

    async def wait(self, wait: Wait) -> WaitEnd | None:
        """Wait for a run.

        The first look comes at any time within the poll interval, by chance: runs that are taken up together, after a
        restart, are not asked for together. It does not come before the end of a Retry-After that another process met.

        :param wait: the run and the rules.
        :return: its end; ``None`` when the wait is to continue with another watcher, as this one is retired.
        """
        metrics.level("watched", 1, platform=self.platform.name)
        member = _Member(wait)
        key = self.platform.group_of(wait.run) if wait.max_failures is None else None
        group = None if key is None else self._join(key, member)
        gap = max(random.uniform(0, wait.interval), wait.not_before - wait.clock())
        try:
            while not self.retired:
                if group is not None and group.polls_waits(self._loop.time()):
                    # Here, and not in a coroutine of its own: there are thousands of these, and whatever each of them
                    # has, the garbage collector looks at.
                    turn, over = self._leave_to(group, member)
                    try:
                        end = await turn
                    finally:
                        over.cancel()
                        member.turn = None
                    if end is not None:
                        return end
                await asyncio.sleep(min(gap, max(0.0, wait.deadline - wait.clock())))
                if group is not None and group.polls_waits(self._loop.time()):
                    continue
                end = await self._look(member, group)
                if end is not None:
                    return end
                gap = wait.pause()
                if group is not None:
                    self._consider(group)
            return None
        finally:
            metrics.level("watched", -1, platform=self.platform.name)
            if group is not None:
                self._leave(group, member)

    def _leave_to(self, group: _Group, member: _Member) -> tuple[asyncio.Future[WaitEnd | None], asyncio.TimerHandle]:
        """Leave a wait to its group.

        :return: its end, or ``None`` when it is to continue by itself; and what ends it at its deadline. The group's
            polls take as long as the platform does; that must not move the end of any wait.
        """
        wait = member.wait
        if group.readers:
            # Who reads the list may do so seldom.
            self._put_forward(group, self._next_look(group, wait.interval))
        turn = member.turn = self._loop.create_future()
        left = max(0.0, wait.deadline - wait.clock())
        return turn, self._loop.call_later(left + timing.LAST_POLL, member.time_is_over, context=member.context)

    async def read(self, listing: Listing) -> _Reader:
        """Become one who reads a list. To be left with :meth:`stop_reading`.

        :param listing: which, and the rules.
        :raises ApiError: when the platform can't say which list that is.
        :raises ConfigurationError: when there is none.
        """
        ids = await self.client.run(self.platform.listed_by(**listing.ids))
        # Where the platform polls no such runs together, the list is nevertheless one for all who read it.
        key = self.platform.group_of(Run(self.platform.name, "", RunState.RUNNING, "", ids=ids)) or repr(
            sorted(ids.items())
        )
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        group.ids = {**group.ids, **ids}
        now = self._loop.time()
        reader = _Reader(listing, group, now + listing.first_pause())
        group.readers.add(reader)
        self._consider(group)
        self._put_forward(group, max(reader.due, group.not_before))
        return reader

    async def list_runs(self, reader: _Reader) -> list[Run] | ApiError | None:
        """The next look at a list.

        :return: what it shows; why it is not available; ``None`` when another watcher has to be asked.
        """
        if self.retired:
            return None
        reader.turn = self._loop.create_future()
        self._consider(reader.group)
        self._put_forward(reader.group, max(reader.due, reader.group.not_before))
        try:
            return await reader.turn
        finally:
            reader.turn = None
            reader.due = self._loop.time() + reader.listing.pause()

    def stop_reading(self, reader: _Reader) -> None:
        """Leave a list."""
        group = reader.group
        group.readers.discard(reader)
        self._close_if_empty(group)

    async def close(self) -> None:
        """Stop polling and close the transport."""
        for group in list(self._groups.values()):
            self._dissolve(group)
        # Nobody may count anything any more.
        self._loop.call_later(timing.METRICS_EVERY, metrics.flush_if_due)
        await self.client.close()

    def _join(self, key: str, member: _Member) -> _Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        group.members.add(member)
        group.ends = min(group.ends, member.end(self._loop.time()))
        self._consider(group)
        # What the platform has asked one wait for holds for all that are polled with it.
        group.not_before = max(group.not_before, self._loop.time() + member.wait.not_before - member.wait.clock())
        group.due = max(group.due, self._next_look(group, 0.0))
        # Whoever joins is not to wait for longer than alone.
        self._put_forward(group, self._next_look(group, member.wait.interval))
        return group

    def _put_forward(self, group: _Group, due: float) -> None:
        """Have the next look at a group no later than at a time of the loop."""
        if due < group.due:
            group.due = due
            group.sooner.set()

    def _leave(self, group: _Group, member: _Member) -> None:
        group.members.discard(member)
        self._close_if_empty(group)

    def _close_if_empty(self, group: _Group) -> None:
        if not group.members and not group.readers:
            self._dissolve(group)
            if self._groups.get(group.key) is group:
                del self._groups[group.key]

    def _consider(self, group: _Group) -> None:
        """Poll a group together from now on, if that may pay."""
        if group.task is None and group.worth_it(self._loop.time()) and not self.retired:
            group.due = float("inf")
            # In a context of nobody's: whoever comes first would get the lines of all others into its log.
            group.task = self._loop.create_task(self._poll_together(group), context=contextvars.Context())

    def _dissolve(self, group: _Group) -> None:
        """Let every member continue by itself."""
        task, group.task = group.task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        for member in group.members:
            member.release()
        for reader in group.readers:
            reader.give(None)

    async def _poll_together(self, group: _Group) -> None:
        try:
            first = random.uniform(0, group.interval(self._loop.time()))
            group.due = min(group.due, self._next_look(group, first))
            while group.worth_it(self._loop.time()) and not self.retired:
                group.note_ends(self._loop.time())
                await self._until_due(group)
                if not await self._look_together(group):
                    group.singly_until = self._loop.time() + timing.INDIVIDUALLY_FOR
                    for member in group.members:
                        member.release()
                group.due = self._next_look(group, jittered(group.interval(self._loop.time())))
        except Exception as e:
            # A fault of the list's own must not touch the waits: each continues by itself.
            if group.failures == 0 or not group.readers:
                # Readers of the list continue, and warn of it now and then.
                log.exception("Polling the group %s failed.", group.key)
            group.failures += 1
            group.singly_until = self._loop.time() + timing.INDIVIDUALLY_FOR
            for reader in group.readers:
                reader.give(InvalidReplyError(f"The list could not be read ({type(e).__name__}: {e})."))
        finally:
            if group.task is asyncio.current_task():
                self._dissolve(group)

    def _next_look(self, group: _Group, gap: float) -> float:
        """When the next look is, ``gap`` seconds from now unless the platform asked for more; never after the end of a
        wait."""
        now = self._loop.time()
        return now + max(0.0, min(max(gap, group.not_before - now), group.time_left(now)))

    async def _until_due(self, group: _Group) -> None:
        while (left := group.due - self._loop.time()) > 0:
            group.sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await group.sooner.wait()

    async def _look_together(self, group: _Group) -> bool:
        """One look at a group.

        :return: whether the next look should be one of this kind, too.
        """
        members = [member for member in group.members if member.waits]
        # One who would be due soon takes what is there already.
        soon = self._loop.time()
        readers = [
            reader for reader in group.readers if reader.reads and reader.due <= soon + reader.listing.interval / 2
        ]
        if not members and not readers:
            return True
        wanted = {member.wait.run.run_id for member in members}
        oldest = _earliest([member.wait.run.started_at for member in members])
        stats = RequestStats()
        try:
            if readers:
                since = _earliest([reader.listing.since() for reader in readers])
                if since is not None and oldest is not None:
                    since = min(since, oldest)
                steps = self.platform.list_recent(since, group.whole, **group.ids)
            else:
                steps = self.platform.list_group(group.key, wanted, oldest, group.cache)
            metrics.count("polls", platform=self.platform.name)
            runs = await self.client.run(steps, None, stats)
        except ApiError as e:
            metrics.count("poll_errors", platform=self.platform.name, error=type(e).__name__)
            for reader in readers:
                reader.give(e)
            return await self._list_failed(group, members, e)
        group.failures, group.not_before = 0, 0.0
        for reader in readers:
            reader.give(runs)
        shown = {run.run_id: run for run in runs}
        missing = []
        turn = _Turn()
        for member in members:
            await turn.end()
            run = shown.get(member.wait.run.run_id)
            if run is None or (member.waits and member.wait.would_stall(run)):
                missing.append(member)
            elif member.waits:
                member.observe(run)
        async with asyncio.TaskGroup() as looks:
            for member in missing:
                looks.create_task(self._look_for_member(member, group), context=member.context)
        if readers:
            # The list was asked for anyhow.
            return True
        aggregate = stats.bytes + stats.requests * REQUEST_COST + len(missing) * group.single_cost
        # Those who have joined and still sleep will be served by the next look, too.
        return aggregate <= len(group.members) * group.single_cost

    async def _list_failed(self, group: _Group, members: list[_Member], error: ApiError) -> bool:
        """What the failure of a list means.

        :return: whether the list should be tried again.
        """
        group.not_before = self._loop.time() + (error.retry_after or 0.0)
        if isinstance(error, AuthenticationError):
            self._trouble(members, error)
            await self._retire_if_superseded()
            return True
        if error.transient:
            self._trouble(members, error)
            group.failures += 1
            if group.failures < timing.LIST_FAILURES or isinstance(error, RateLimitedError):
                return True
        elif not members:
            # Who reads it has no other way.
            return True
        elif not isinstance(error, InvalidReplyError):
            # The list is unavailable; that says nothing of the runs. Each is asked for, and shows what is the matter.
            return False
        # Perhaps it is the list alone. One run is asked for, so that an outage does not cost a request for each.
        member = next((member for member in members if member.waits), None)
        if member is None:
            return True
        answer = await self._ask(member.wait, group)
        if not isinstance(answer, ApiError):
            member.observe(answer[0])
            return False
        group.not_before = max(group.not_before, self._loop.time() + (answer.retry_after or 0.0))
        if error.transient:
            return True
        self._trouble(members if answer.transient or isinstance(answer, InvalidReplyError) else [member], answer)
        return True

    async def _look_for_member(self, member: _Member, group: _Group) -> None:
        member.settle(await self._look(member, group))

    async def _look(self, member: _Member, group: _Group | None) -> WaitEnd | None:
        """One look at one run."""
        answer = await self._ask(member.wait, group)
        return member.wait.failed(answer) if isinstance(answer, ApiError) else member.wait.observe(*answer)

    async def _ask(self, wait: Wait, group: _Group | None) -> tuple[Run, int | None] | ApiError:
        """Ask for one run; see :func:`.poll`."""
        metrics.count("polls", platform=self.platform.name)
        stats = RequestStats()
        try:
            async with asyncio.timeout(max(timing.LAST_POLL, wait.deadline - wait.clock())):
                answer = await self.client.run(poll(self.platform, wait), None, stats)
        except TimeoutError:
            metrics.count("poll_errors", platform=self.platform.name, error=type(_TOO_LATE).__name__)
            return _TOO_LATE
        except ApiError as e:
            metrics.count("poll_errors", platform=self.platform.name, error=type(e).__name__)
            if isinstance(e, AuthenticationError):
                await self._retire_if_superseded()
            return e
        if group is not None:
            group.single_cost = stats.bytes + stats.requests * REQUEST_COST
        return answer

    def _trouble(self, members: list[_Member], error: ApiError) -> None:
        for member in members:
            if member.waits:
                member.failed(error)

    async def _retire_if_superseded(self) -> None:
        """The credentials are not accepted any more: somebody may have put new ones into the connection."""
        if self.retired or self._loop.time() - self._checked_at < timing.REOPEN_AFTER:
            return
        self._checked_at = self._loop.time()
        if not await self._superseded():
            # Nothing is gained by opening it once more with the same settings.
            return
        self.retired = True
        for group in list(self._groups.values()):
            self._dissolve(group)


def _earliest(times: list[datetime | None]) -> datetime | None:
    """The earliest of some times; ``None``, which is from the first, where one of them is that."""
    known = [time for time in times if time is not None]
    return min(known, default=None) if len(known) == len(times) else None


class _Shared:
    """What the waits over one Airflow connection have in common: reading it, and a watcher for each of its settings.

    Whoever asks gets the connection as it is read after that. So many who ask at the same time are served by two
    readings: one that had begun before, and one for all the others.

    :param conn_id: the Airflow connection, for messages.
    :param read: reads it.
    """

    def __init__(self, conn_id: str, read: Read) -> None:
        self._conn_id = conn_id
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._watchers: dict[str, Watcher] = {}
        self._begun = 0
        self._found: Connection | None = None
        self._failure: ConnectionUnavailableError | None = None
        self._failures = 0
        self._not_before = 0.0
        #: How many hold it.
        self.holders = 0

    async def join(self) -> Watcher:
        """The watcher of the connection's settings as they are now; to be given back with :meth:`leave`.

        :raises ConnectionUnavailableError: when it can't be read, or not be used as it is.
        """
        asked = self._begun
        async with self._lock:
            watcher = await self._attempt(asked, self._join)
            watcher.users += 1
            return watcher

    async def leave(self, watcher: Watcher) -> None:
        """Give a watcher back; it is closed when nobody has it any more."""
        watcher.users -= 1
        if watcher.users == 0:
            for digest, known in list(self._watchers.items()):
                if known is watcher:
                    del self._watchers[digest]
            await watcher.close()

    async def _join(self, connection: Connection) -> Watcher:
        digest = connection.digest
        watcher = self._watchers.get(digest)
        # Settings that were given up can come back; the waits that are leaving the old watcher are not to return to it.
        if watcher is None or watcher.retired:

            async def superseded() -> bool:
                return await self._differs_from(digest)

            watcher = Watcher(*await connection.open(), superseded)
            self._watchers[digest] = watcher
        return watcher

    async def _differs_from(self, digest: str) -> bool:
        async def compare(connection: Connection) -> bool:
            return connection.digest != digest

        asked = self._begun
        async with self._lock:
            try:
                return await self._attempt(asked, compare)
            except ConnectionUnavailableError:
                # The old credentials are all there is.
                return False

    async def _attempt(self, asked: int, use: Callable[[Connection], Awaitable[T]]) -> T:
        """Read the connection, unless that was begun after ``asked`` readings, and use it."""
        if self._failure is not None and (self._begun > asked or self._loop.time() < self._not_before):
            raise copy.copy(self._failure)
        try:
            async with asyncio.timeout(timing.CONNECTION_WITHIN):
                if self._found is None or self._begun <= asked:
                    self._found = None
                    self._begun += 1
                    self._found = await self._read()
                result = await use(self._found)
        except Exception as e:  # whatever the secrets backend, Airflow's channel or a wrong field raise
            self._not_before = self._loop.time() + timing.CONNECTION_BACKOFF.after(self._failures)
            self._failures += 1
            why = str(e) or "no answer within the time allowed"
            self._failure = ConnectionUnavailableError(
                f"Connection {self._conn_id!r} can't be used ({type(e).__name__}: {clean(redact(why))}). Check it, and"
                " the secrets backend and metadata database that it is read from."
            )
            raise copy.copy(self._failure) from None
        self._failure, self._failures = None, 0
        return result


class WatcherHandle:
    """One task's hold on the watcher of a connection: it goes over to another when the settings change. Not to be used
    by two coroutines at the same time.

    :param key: the platform's name and the Airflow connection.
    :param read: reads the connection.
    """

    __slots__ = ("_key", "_read", "_reader", "_shared", "_watcher")

    _shared: _Shared

    def __init__(self, key: tuple[str, str], read: Read) -> None:
        self._key = key
        self._read: Read | None = read
        self._watcher: Watcher | None = None
        self._reader: tuple[Watcher, _Reader] | None = None

    async def __aenter__(self) -> Self:
        of_loop = _watchers.setdefault(asyncio.get_running_loop(), {})
        shared = of_loop.get(self._key)
        read, self._read = self._read, None
        if shared is None:
            assert read is not None
            shared = of_loop[self._key] = _Shared(self._key[1], read)
        shared.holders += 1
        self._shared = shared
        return self

    async def __aexit__(self, *exc: object) -> None:
        shared = self._shared
        shared.holders -= 1
        of_loop = _watchers.get(asyncio.get_running_loop(), {})
        if shared.holders == 0 and of_loop.get(self._key) is shared:
            del of_loop[self._key]
        await self.close()

    async def open(self) -> tuple[Platform, Client]:
        """The platform and the transport, good until this is called the next time.

        :raises ConnectionUnavailableError: when the connection can't be read, or not be used as it is.
        """
        watcher = await self._current()
        return watcher.platform, watcher.client

    async def wait(self, wait: Wait) -> WaitEnd:
        """Wait for a run, whatever becomes of the connection meanwhile.

        :param wait: the run and the rules.
        """
        while True:
            try:
                async with asyncio.timeout(max(timing.LAST_POLL, wait.deadline - wait.clock())):
                    watcher = await self._current()
            except (ApiError, TimeoutError) as e:
                end = wait.failed(e if isinstance(e, ApiError) else _TOO_LATE)
                if end is not None:
                    return end
                await asyncio.sleep(wait.pause())
                continue
            end = await watcher.wait(wait)
            if end is not None:
                return end

    async def list_runs(self, listing: Listing) -> list[Run]:
        """The next look at a list of runs, after whatever outage. The list is read through this handle alone; it is
        left when the handle is closed.

        :param listing: which list, and the rules.
        """
        while True:
            try:
                watcher = await self._current()
                if self._reader is None or self._reader[0] is not watcher:
                    self._stop_reading()
                    self._reader = (watcher, await watcher.read(listing))
            except (ApiError, ConfigurationError) as e:
                listing.failed(e)
                await asyncio.sleep(listing.pause())
                continue
            found = await watcher.list_runs(self._reader[1])
            if isinstance(found, ApiError):
                listing.failed(found)
            elif found is not None:
                listing.observed()
                return found

    def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader[0].stop_reading(reader[1])

    async def close(self) -> None:
        """Give the watcher back."""
        self._stop_reading()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await self._shared.leave(watcher)

    async def _current(self) -> Watcher:
        if self._watcher is not None and not self._watcher.retired:
            return self._watcher
        joined = await self._shared.join()
        before, self._watcher = self._watcher, joined
        if before is not None:
            await self._shared.leave(before)
        return joined


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Shared]] = WeakKeyDictionary()


def shared_watcher(platform: str, conn_id: str, read: Read) -> WatcherHandle:
    """A hold on the watcher of a connection in the running event loop, to be used with ``async with``. The connection
    is read when it is first used.

    :param platform: the platform's name.
    :param conn_id: the Airflow connection.
    :param read: reads the connection.
    """
    return WatcherHandle((platform, conn_id), read)
