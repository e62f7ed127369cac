"""One trial: an operation, one of whose answers is another; and what must be true whatever it is."""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_testruns import cleaning, exceptions, limits
from airflow_provider_testruns.emission import outgoing
from airflow_provider_testruns.hooks import base
from airflow_provider_testruns.judging import judge
from airflow_provider_testruns.lifecycle.waiting import WaitEnd, WaitStatus
from airflow_provider_testruns.model import Run, RunReport, Verdict
from airflow_provider_testruns.platforms.platform import Start
from airflow_provider_testruns.reporting import digest, junit
from airflow_provider_testruns.reporting.text import table
from airflow_provider_testruns.reporting.xcom import run_to_xcom, to_event, to_xcom
from airflow_provider_testruns.steps import Response, Sleep, Steps
from airflow_provider_testruns.transport.blocking import BlockingClient
from airflow_provider_testruns.transport.effects import Effect, Request
from airflow_provider_testruns.transport.nonblocking import AsyncClient
from airflow_provider_testruns.transport.pace import Pace
from tests.fuzz.operations import Hook, Operation, World

#: NUL as JSON spells it, and not a backslash before what looks like it.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
#: The most that a result may be as JSON; none of the sandbox's is longer than some kB.
_STORED = 2 * limits.MB
#: More requests than any answer may cause, pages of lists included: those of the sandbox say that there are no more.
_MOST_REQUESTS = 100


@dataclass(frozen=True)
class Change:
    """What is answered instead.

    :param at: which of the operation's exchanges.
    :param what: in words, for who reads of a failure.
    :param make: makes the answer: there are many, and some are large.
    """

    at: int
    what: str
    make: Callable[[], Response]


class EndlessError(BaseException):
    """An operation asks for ever. Not an Exception: nothing may take it for an answer."""


class _Script:
    """Answers as recorded, but for one."""

    def __init__(self, operation: Operation, others: Mapping[tuple[str, str], Response], change: Change) -> None:
        self._left = list(enumerate(operation.exchanges))
        self._others = others
        self._change = change
        self._asked = 0
        self.used = False

    def answer(self, request: Request) -> Response:
        self._asked += 1
        if self._asked > _MOST_REQUESTS:
            raise EndlessError(f"{self._asked} requests")
        key = (request.method, urlsplit(request.url).path)
        response = self._others.get(key)
        for place, (index, exchange) in enumerate(self._left):
            if (exchange.method, exchange.path) == key:
                del self._left[place]
                response = exchange.response
                if index == self._change.at:
                    self.used = True
                    response = self._change.make()
                break
        if response is None:
            return Response(404, {"content-type": "application/json"}, b'{"detail": "not there"}')
        if request.save_to is not None and 200 <= response.status < 300:
            request.save_to.write_bytes(response.body)
            return replace(response, body=b"")
        return response


class _Blocking(BlockingClient):
    script: _Script

    def _perform(self, effect: Effect) -> Any:
        return None if isinstance(effect, Sleep) else super()._perform(effect)

    def _send(self, request: Request) -> Response:
        return self.script.answer(request)


class _Async(AsyncClient):
    script: _Script

    async def _perform(self, effect: Effect) -> Any:
        return None if isinstance(effect, Sleep) else await super()._perform(effect)

    async def _send(self, request: Request) -> Response:
        return self.script.answer(request)


class _Client:
    """Both clients under one face, as a hook uses them."""

    def __init__(self, lab: Laboratory, asynchronous: bool) -> None:
        self._lab = lab
        self._asynchronous = asynchronous

    def run(self, steps: Steps[Any], until: float | None = None) -> Any:
        if self._asynchronous:
            return self._lab.runner.run(self._lab.nonblocking.run(steps))
        return self._lab.blocking.run(steps)

    @property
    def session(self) -> Any:
        return self._lab.blocking.session


class Laboratory:
    """Makes trials.

    :param world: what was recorded.
    :param folder: for files; emptied by who made it.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self.runner = asyncio.Runner()
        self.blocking: _Blocking
        self.nonblocking: _Async
        self._clients: dict[str, tuple[_Blocking, _Async]] = {}
        #: How many trials were made, and how many of those changed what happens.
        self.made = self.told = 0

    def close(self) -> None:
        for blocking, nonblocking in self._clients.values():
            blocking.close()
            self.runner.run(nonblocking.close())
        self.runner.close()

    def trial(self, operation: Operation, change: Change, *, asynchronous: bool, thorough: bool = False) -> None:
        """Make one.

        :param operation: what is done.
        :param change: what is answered instead.
        :param asynchronous: by the client of the triggerer; otherwise by that of the workers.
        :param thorough: whether what takes milliseconds is checked, too: files.
        :raises AssertionError: when something is not as it must be.
        """
        hook = self._world.hooks[operation.platform]
        self._ready(hook, operation, change, asynchronous and not operation.moves_a_file)
        self.made += 1
        try:
            result = operation.run(hook)
        except (exceptions.ApiError, exceptions.ConfigurationError, exceptions.StartOutcomeUnknownError) as e:
            self.told += 1
            _fit_to_say(e)
            return
        self._fit_to_hand_on(operation, result, thorough)

    def _ready(self, hook: Hook, operation: Operation, change: Change, asynchronous: bool) -> None:
        platform = operation.platform
        if platform not in self._clients:
            session = base._session(hook, hook.settings)

            async def make() -> _Async:
                return _Async(session)

            self._clients[platform] = _Blocking(session), self.runner.run(make())
        self.blocking, self.nonblocking = self._clients[platform]
        session = base._session(hook, hook.settings)
        # A 429 of another trial is none of this one's.
        session.pace = Pace()
        self.blocking.session.auth.known.release()
        self.blocking.session = self.nonblocking.session = session
        script = _Script(operation, self._world.answers[platform], change)
        self.blocking.script = self.nonblocking.script = script
        client = _Client(self, asynchronous)
        hook._client = client  # type: ignore[assignment]
        # Nothing is tried again: the same answer would come.
        hook.ask = lambda steps, patience=0.0: client.run(steps)  # type: ignore[method-assign]

    def _fit_to_hand_on(self, operation: Operation, result: Any, thorough: bool) -> None:
        for run in _runs(result):
            _storable(run.to_dict(), _STORED)
            _storable(_leaving(run_to_xcom(run)), _STORED)
            event = WaitEnd(WaitStatus.FINISHED, run).to_event()
            _storable(event, _STORED)
            again = WaitEnd.from_event(json.loads(json.dumps(event)))
            assert again.run.to_dict() == run.to_dict(), "an event is read as it was written"
        if isinstance(result, RunReport):
            judgement = judge(result)
            if judgement.verdict is Verdict.PASSED:
                counts = result.counts
                assert counts is None or counts.failed + counts.unavailable == 0, f"passed, with {counts}"
                assert not any(case.outcome.name in ("FAILED", "UNAVAILABLE") for case in result.cases)
                assert not operation.of_failed, "a run in which cases failed has passed"
            _storable(_leaving(to_xcom(result, judgement)), _STORED)
            _storable(_leaving(to_event(result, judgement)), _STORED)
            fit_for_a_log(outgoing(table(result, judgement)))
            fit_for_a_log(outgoing(digest.text(to_xcom(result, judgement))))
            if thorough:
                place = self._folder / "junit.xml"
                junit.write(str(place), result, judgement, {})
                place.read_bytes().decode()
        elif not _runs(result):
            # As the operators return it.
            _storable(_leaving(result), None)


def _runs(result: Any) -> list[Run]:
    if isinstance(result, Run):
        return [result]
    if isinstance(result, Start):
        return _runs(result.existing_run)
    if isinstance(result, list | tuple):
        return [run for item in result for run in _runs(item)]
    return [result.run] if isinstance(result, RunReport) else []


def _leaving(value: Any) -> Any:
    """A value as it leaves for XCom and the like."""
    left = cleaning.outgoing_json(value)
    assert "canary-in-a-url" not in json.dumps(left, default=str), "a user and password in a URL"
    return left


def _storable(value: Any, most: int | None) -> None:
    """What PostgreSQL takes as JSONB, and every encoder on the way there."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_refused if most else str)
    size = len(text.encode())
    assert not _NUL.search(text), "NUL"
    assert most is None or size <= most, f"{size} bytes"


def _refused(value: Any) -> Any:
    raise AssertionError(f"{type(value).__name__} is no JSON")


def _fit_to_say(error: BaseException) -> None:
    message = str(error)
    assert message, "an error without a word"
    assert len(message) <= limits.LINE, f"{len(message)} characters"
    fit_for_a_log(message)


def fit_for_a_log(text: str) -> None:
    """What can be encoded, and moves no cursor.

    :raises AssertionError: when a text is not such.
    """
    text.encode()
    bad = [
        character
        for character in text
        if (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        or ord(character) & 0xFFFE == 0xFFFE
    ]
    assert not bad, f"{bad[:5]!r} in {text[:200]!r}"
    assert "canary-in-a-url" not in text, "a user and password in a URL"


@contextmanager
def laboratory(world: World, folder: Path) -> Iterator[Laboratory]:
    """A laboratory, closed at the end."""
    made = Laboratory(world, folder)
    try:
        yield made
    finally:
        made.close()
