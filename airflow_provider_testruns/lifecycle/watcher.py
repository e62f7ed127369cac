"""Many waits at once, for the price of few requests: what all waits of one triggerer and connection share.

One :class:`Watcher` per event loop and connection has one transport, so one token and a few sockets. Runs that a
platform can list together are polled with one list call as soon as more than one of them is watched, as long as that
is not dearer than asking for each.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_testruns.exceptions import (
    ApiError,
    AuthenticationError,
    InvalidReplyError,
    RateLimitedError,
    TransportError,
)
from airflow_provider_testruns.lifecycle.waiting import Wait, WaitEnd, jittered
from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.call import Steps
from airflow_provider_testruns.platforms.platform import Memory, Platform
from airflow_provider_testruns.transport.policy import Tally

T = TypeVar("T")
log = logging.getLogger(__name__)

#: What a request costs this process beside reading its reply, in bytes of a reply that cost as much to read. A request
#: over TLS takes about half a millisecond, in which some 40 kB of JSON are read.
REQUEST_COST = 40_000
#: How long runs are asked for singly after their list turned out dearer, or not to be had; seconds.
SINGLY_FOR = 300.0
#: How long a look that is made when a wait's time is over may take; seconds.
LAST_LOOK = 1.0
#: How often a list may fail in passing until it is tried whether a single run can be seen all the same.
LIST_FAILURES = 3
#: How often, at most, a connection whose credentials are not accepted any more is read again; seconds.
REOPEN_AFTER = 15.0
_TOO_LATE = TransportError("The platform did not answer before the deadline of the wait.")


class Client(Protocol):
    """The part of a transport that a watcher needs."""

    async def run(self, steps: Steps[T], until: float | None = None, tally: Tally | None = None) -> T:
        """Carry steps to their end."""

    async def close(self) -> None:
        """Close what is open."""


Open = Callable[[], Awaitable[tuple[Platform, Client]]]


@dataclass(eq=False, slots=True)
class _Member:
    """One wait of a group.

    Airflow routes a trigger's log lines by the context in which they are logged, so whatever the group finds out about
    a member is said in that member's context: ``context.run`` for a call, ``create_task(…, context=…)`` for a
    coroutine, never one within the other, which Python refuses.

    :param wait: the run and the rules.
    :param context: the one that the wait itself runs in, copied when it joined.
    :param turn: set while the wait is left to the group: its end, or ``None`` when it is to go on by itself.
    """

    wait: Wait
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    turn: asyncio.Future[WaitEnd | None] | None = None

    @property
    def waits(self) -> bool:
        """Whether it is left to the group and has not ended."""
        return self.turn is not None and not self.turn.done()

    def settle(self, end: WaitEnd | None) -> None:
        """End the wait, if this is an end."""
        if end is not None and self.turn is not None and not self.turn.done():
            self.turn.set_result(end)

    def look(self, run: Run) -> None:
        """The group was shown the run."""
        self.settle(self.context.run(self.wait.look, run))

    def trouble(self, error: ApiError) -> None:
        """A look of the group's ended in an error."""
        self.settle(self.context.run(self.wait.trouble, error))

    def let_go(self) -> None:
        """Leave the wait to itself."""
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)


@dataclass(eq=False, slots=True)
class _Group:
    """Runs that one list call shows.

    :param key: as the platform named it.
    :param members: the waits for them.
    :param task: polls them together, ``None`` while each is asked for singly.
    :param due: when the next look is, in seconds of the loop.
    :param sooner: set when that was put forward.
    :param not_before: no look before this time (of the loop), as the platform asked for.
    :param failures: how many looks in a row have failed in passing.
    :param singly_until: not before this time (of the loop) is the list tried again.
    :param single_cost: what asking for one of them costs, by the last that was asked for.
    :param memory: what the looks at it have shown.
    """

    key: str
    members: set[_Member] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    due: float = 0.0
    sooner: asyncio.Event = field(default_factory=asyncio.Event)
    not_before: float = 0.0
    failures: int = 0
    singly_until: float = 0.0
    single_cost: float = REQUEST_COST + 1_000
    memory: Memory = field(default_factory=Memory)

    @property
    def interval(self) -> float:
        """Seconds between two looks: as the most impatient of its members asks for."""
        return min((member.wait.poll_interval for member in self.members), default=0.0)


class Watcher:
    """Waits for many runs over one connection. Belongs to one event loop.

    :param open_client: reads the connection and opens its transport.
    """

    def __init__(self, open_client: Open) -> None:
        self._open_client = open_client
        self._opening = asyncio.Lock()
        self._opened: tuple[Platform, Client] | None = None
        self._opened_at = 0.0
        self._left_open: list[Client] = []
        self._groups: dict[str, _Group] = {}
        self._loop = asyncio.get_running_loop()
        #: How many use this watcher.
        self.users = 0

    async def open(self) -> tuple[Platform, Client]:
        """The platform and the transport, opened by the first who asks."""
        if self._opened is None:
            async with self._opening:
                if self._opened is None:
                    self._opened = await self._open_client()
                    self._opened_at = self._loop.time()
        return self._opened

    async def wait(self, wait: Wait) -> WaitEnd:
        """Wait for a run.

        The first look comes at any time within the poll interval, by chance: runs that are taken up together, after a
        restart, are not asked for together.

        :param wait: the run and the rules.
        """
        platform, _ = await self.open()
        member = _Member(wait)
        key = platform.group_of(wait.run)
        group = None if key is None else self._join(key, member)
        gap = random.uniform(0, wait.poll_interval)
        try:
            while True:
                if group is not None and group.task is not None:
                    end = await self._left_to_the_group(member)
                    if end is not None:
                        return end
                await asyncio.sleep(min(gap, max(0.0, wait.deadline - wait.clock())))
                if group is not None and group.task is not None:
                    continue
                end = await self._look(member, group)
                if end is not None:
                    return end
                gap = wait.pause()
                if group is not None:
                    self._consider(group)
        finally:
            if group is not None:
                self._leave(group, member)

    async def _left_to_the_group(self, member: _Member) -> WaitEnd | None:
        """The wait's end, or ``None`` when it is to go on by itself."""
        wait = member.wait
        member.turn = self._loop.create_future()
        # The group's looks take as long as the platform does; that must not move the end of any wait.
        over = self._loop.call_later(max(0.0, wait.deadline - wait.clock()) + LAST_LOOK, self._time_is_over, member)
        try:
            return await member.turn
        finally:
            over.cancel()
            member.turn = None

    def _time_is_over(self, member: _Member) -> None:
        member.trouble(_TOO_LATE)

    async def close(self) -> None:
        """Stop polling and close the transport."""
        for group in list(self._groups.values()):
            self._dissolve(group)
        opened, self._opened = self._opened, None
        left, self._left_open = self._left_open, []
        for client in [*left, *([opened[1]] if opened is not None else [])]:
            await client.close()

    def _join(self, key: str, member: _Member) -> _Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        group.members.add(member)
        self._consider(group)
        # Whoever joins is not to wait for longer than alone.
        due = self._next_look(group, member.wait.poll_interval)
        if due < group.due:
            group.due = due
            group.sooner.set()
        return group

    def _leave(self, group: _Group, member: _Member) -> None:
        group.members.discard(member)
        if not group.members:
            self._dissolve(group)
            if self._groups.get(group.key) is group:
                del self._groups[group.key]

    def _consider(self, group: _Group) -> None:
        """Poll a group together from now on, if that may pay."""
        if group.task is None and len(group.members) > 1 and self._loop.time() >= group.singly_until:
            # In a context of nobody's: whoever comes first would get the lines of all others into its log.
            group.task = self._loop.create_task(self._poll_together(group), context=contextvars.Context())

    def _dissolve(self, group: _Group) -> None:
        """Let every member go on by itself."""
        task, group.task = group.task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        for member in group.members:
            member.let_go()

    async def _poll_together(self, group: _Group) -> None:
        try:
            group.due = self._next_look(group, random.uniform(0, group.interval))
            while len(group.members) > 1:
                await self._until_due(group)
                if not await self._look_together(group):
                    group.singly_until = self._loop.time() + SINGLY_FOR
                    break
                group.due = self._next_look(group, jittered(group.interval))
        except Exception:
            # A fault of the list's own must not touch the waits: each goes on by itself.
            log.exception("Polling the group %s together has failed.", group.key)
            group.singly_until = self._loop.time() + SINGLY_FOR
        finally:
            if group.task is asyncio.current_task():
                self._dissolve(group)

    def _next_look(self, group: _Group, gap: float) -> float:
        """When the next look is, ``gap`` seconds from now unless the platform asked for more; never after the end of a
        wait."""
        now = self._loop.time()
        left = min((member.wait.deadline - member.wait.clock() for member in group.members), default=0.0)
        return now + max(0.0, min(max(gap, group.not_before - now), left))

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
        platform, client = await self.open()
        members = [member for member in group.members if member.waits]
        if not members:
            return True
        wanted = {member.wait.run.run_id for member in members}
        starts = [member.wait.run.started_at for member in members]
        known = [start for start in starts if start is not None]
        oldest = min(known) if len(known) == len(starts) else None
        tally = Tally()
        try:
            runs = await client.run(platform.list_group(group.key, wanted, oldest, group.memory), None, tally)
        except ApiError as e:
            return await self._list_failed(group, members, e)
        group.failures, group.not_before = 0, 0.0
        shown = {run.run_id: run for run in runs}
        missing = []
        for member in members:
            run = shown.get(member.wait.run.run_id)
            if run is None:
                missing.append(member)
            elif member.waits:
                member.look(run)
        async with asyncio.TaskGroup() as looks:
            for member in missing:
                looks.create_task(self._look_for_member(member, group), context=member.context)
        together = tally.bytes + tally.requests * REQUEST_COST + len(missing) * group.single_cost
        # Those who have joined and still sleep will be served by the next look, too.
        return together <= len(group.members) * group.single_cost

    async def _list_failed(self, group: _Group, members: list[_Member], error: ApiError) -> bool:
        """What the failure of a list means.

        :return: whether the list should be tried again.
        """
        group.not_before = self._loop.time() + (error.retry_after or 0.0)
        if isinstance(error, AuthenticationError):
            self._trouble(members, error)
            await self._reopen()
            return True
        if error.transient:
            self._trouble(members, error)
            group.failures += 1
            if group.failures < LIST_FAILURES or isinstance(error, RateLimitedError):
                return True
        elif not isinstance(error, InvalidReplyError):
            # The list can't be had; that says nothing of the runs. Each is asked for, and shows what is the matter.
            return False
        # Perhaps it is the list alone. One run is asked for, so that an outage does not cost a request for each.
        member = next((member for member in members if member.waits), None)
        if member is None:
            return True
        answer = await self._ask(member.wait, group)
        if not isinstance(answer, ApiError):
            member.look(answer)
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
        return member.wait.trouble(answer) if isinstance(answer, ApiError) else member.wait.look(answer)

    async def _ask(self, wait: Wait, group: _Group | None) -> Run | ApiError:
        """Ask for one run."""
        platform, client = await self.open()
        tally = Tally()
        try:
            async with asyncio.timeout(max(LAST_LOOK, wait.deadline - wait.clock())):
                run = await client.run(platform.get_run(wait.run.run_id, **wait.run.context), None, tally)
        except TimeoutError:
            return _TOO_LATE
        except ApiError as e:
            if isinstance(e, AuthenticationError):
                await self._reopen()
            return e
        if group is not None:
            group.single_cost = tally.bytes + tally.requests * REQUEST_COST
        return run

    def _trouble(self, members: list[_Member], error: ApiError) -> None:
        for member in members:
            if member.waits:
                member.trouble(error)

    async def _reopen(self) -> None:
        """The credentials are not accepted any more: somebody may have put new ones into the connection."""
        async with self._opening:
            if self._opened is None or self._loop.time() - self._opened_at < REOPEN_AFTER:
                return
            self._opened_at = self._loop.time()
            try:
                opened = await self._open_client()
            except Exception:  # whatever the secrets backend raises: the old credentials are all there is
                return
            # Others are still waiting for replies over the old one.
            self._left_open.append(self._opened[1])
            self._opened = opened


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Watcher]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_watcher(platform: str, conn_id: str, open_client: Open) -> AsyncIterator[Watcher]:
    """The watcher of a connection in the running event loop; closed when the last who uses it leaves.

    :param platform: the platform's name.
    :param conn_id: the Airflow connection.
    :param open_client: reads the connection and opens its transport, when there is no watcher yet.
    """
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    key = (platform, conn_id)
    watcher = watchers.get(key)
    if watcher is None:
        watcher = watchers[key] = Watcher(open_client)
    watcher.users += 1
    try:
        yield watcher
    finally:
        watcher.users -= 1
        if watcher.users == 0:
            if watchers.get(key) is watcher:
                del watchers[key]
            await watcher.close()
