"""Faults to order: what goes wrong, for which requests, and how often."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Any

from .clock import Clock
from .mistakes import Mistake


class FaultKind(StrEnum):
    """What can go wrong."""

    #: The response comes ``seconds`` late.
    LATENCY = "latency"
    #: The response is ``status`` with ``headers`` and ``body``.
    STATUS = "status"
    #: The connection is closed without a byte of response.
    DROP = "drop"
    #: No response for ``seconds``, then the connection is closed.
    HANG = "hang"
    #: The response promises more bytes than come before the connection is closed.
    TRUNCATE = "truncate"
    #: ``body`` with status 200, whatever was asked for.
    WRONG_JSON = "wrong_json"
    #: A body of ``size`` bytes.
    HUGE = "huge"
    #: ``status`` (302 unless told otherwise) to ``location``.
    REDIRECT = "redirect"


class FaultMoment(StrEnum):
    """When it goes wrong."""

    #: Nothing was done.
    BEFORE = "before"
    #: The work was done, only the response is lost or another: a run was started, say.
    AFTER = "after"


@dataclass(slots=True, eq=False)
class Fault:
    """One order. Every condition that is given must hold.

    :param kind: what goes wrong.
    :param when: before or after the work is done.
    :param platform: of this platform only.
    :param operation: of this operation only; ``*`` and ``?`` are wildcards, as in ``omilia.*``.
    :param method: of this HTTP method only.
    :param path: a regular expression that is searched for in the path below the server's root.
    :param times: so many times, then no more.
    :param skip: not for the first so many requests that match.
    :param probability: for each request that matches.
    :param until: only before this time.
    :param seconds: for latency and hang.
    :param status: for status and redirect.
    :param headers: for status, wrong_json, redirect.
    :param body: for status and wrong_json: a string as it is, anything else as JSON.
    :param size: for huge.
    :param location: for redirect.
    """

    kind: FaultKind
    when: FaultMoment = FaultMoment.BEFORE
    platform: str | None = None
    operation: str | None = None
    method: str | None = None
    path: str | None = None
    times: int | None = None
    skip: int = 0
    probability: float | None = None
    until: float | None = None
    seconds: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    size: int = 0
    location: str | None = None
    id: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        if self.kind in (FaultKind.LATENCY, FaultKind.HANG) and self.seconds <= 0:
            raise Mistake(f"{self.kind.value} needs seconds")
        if self.kind is FaultKind.STATUS and self.status is None:
            raise Mistake("status needs a status")
        if self.kind is FaultKind.HUGE and self.size <= 0:
            raise Mistake("huge needs a size")
        if self.kind is FaultKind.REDIRECT and not self.location:
            raise Mistake("redirect needs a location")
        if self.status is not None and not 200 <= self.status <= 599:
            raise Mistake("status lies between 200 and 599")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise Mistake("probability lies between 0 and 1")
        if self.path is not None:
            try:
                re.compile(self.path)
            except re.error as problem:
                raise Mistake(f"path is no regular expression: {problem}") from None

    def matches(self, platform: str, operation: str, method: str, path: str) -> bool:
        """Tell whether the order is about this request."""
        return (
            (self.platform is None or self.platform == platform)
            and (self.operation is None or fnmatchcase(operation, self.operation))
            and (self.method is None or self.method.upper() == method)
            and (self.path is None or re.search(self.path, path) is not None)
        )

    def encoded_body(self) -> bytes:
        """Return the body as bytes."""
        body = self.body
        if body is None:
            body = {"detail": f"sandbox fault {self.id}: {self.kind.value}"}
        return body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def summary(self) -> dict[str, Any]:
        """Describe the order."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What happens to one request.

    :param latency_before: seconds to wait before the work.
    :param latency_after: seconds to wait after it.
    :param fault: what replaces the response, if anything.
    """

    latency_before: float = 0.0
    latency_after: float = 0.0
    fault: Fault | None = None

    def at(self, moment: FaultMoment) -> Fault | None:
        """Return the fault if it strikes at this moment."""
        return self.fault if self.fault is not None and self.fault.when is moment else None


_NO_FAULT = FaultPlan()


class FaultBook:
    """The orders of one server, oldest first. Latencies add up; of the others the first that matches strikes."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._orders: list[Fault] = []
        self._next_id = 1

    def add(self, fault: Fault) -> Fault:
        """Enter an order."""
        fault.id = self._next_id
        self._next_id += 1
        self._orders.append(fault)
        return fault

    def clear(self, fault_id: int | None = None) -> int:
        """Remove one order, or all; return how many were removed."""
        before = len(self._orders)
        self._orders = [] if fault_id is None else [f for f in self._orders if f.id != fault_id]
        return before - len(self._orders)

    def active(self) -> list[Fault]:
        """Return the orders that can still strike."""
        now = self._clock.now()
        self._orders = [f for f in self._orders if f.times != 0 and (f.until is None or now < f.until)]
        return list(self._orders)

    def plan(self, platform: str, operation: str, method: str, path: str) -> FaultPlan:
        """Decide about a request. Counts it, so call it once for each."""
        if not self._orders:
            return _NO_FAULT
        before = after = 0.0
        chosen: Fault | None = None
        for fault in self.active():
            if chosen is not None and fault.kind is not FaultKind.LATENCY:
                continue
            if not fault.matches(platform, operation, method, path) or not self._strikes(fault):
                continue
            if fault.kind is not FaultKind.LATENCY:
                chosen = fault
            elif fault.when is FaultMoment.BEFORE:
                before += fault.seconds
            else:
                after += fault.seconds
        return FaultPlan(before, after, chosen)

    def _strikes(self, fault: Fault) -> bool:
        if fault.skip > 0:
            fault.skip -= 1
            return False
        if fault.probability is not None and self._random.random() >= fault.probability:
            return False
        if fault.times is not None:
            fault.times -= 1
        fault.fired += 1
        return True
