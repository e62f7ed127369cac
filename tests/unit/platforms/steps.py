"""Drives a platform's steps over a wire that is a table: no sockets, and every request is remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_testruns.model import Run
from airflow_provider_testruns.platforms.platform import Platform
from airflow_provider_testruns.steps import Call, Response, Sleep, Steps, ask
from airflow_provider_testruns.transport.auth import FixedHeaders
from airflow_provider_testruns.transport.effects import NetworkError, Read, Request
from airflow_provider_testruns.transport.policy import Session
from tests.unit.responses import response

T = TypeVar("T")

BASE_URL = "https://platform.example.com/prefix"


class InTurn:
    """Answers that are given one after the other, the last of them for ever."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def next(self) -> Any:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@dataclass
class Wire:
    """A platform that answers from a table.

    :param answers: by method and path, the query included if there is one: ``GET /api/runs/r-1``. An answer is a
        response, the body of a 200, an exception, a function of the request that gives one of them, or several
        :class:`InTurn`. What is not in the table is answered with 404.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list, init=False)
    sleeps: list[float] = field(default_factory=list, init=False)

    @property
    def asked(self) -> list[str]:
        """Method and path of every request, in order."""
        return [key_of(request) for request in self.requests]

    def run(self, steps: Steps[T]) -> T:
        """Carry steps to their end."""
        session = Session("conn", BASE_URL, FixedHeaders({"Authorization": "Bearer canary"}, ("canary",)))
        flow = session.execute(steps)
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                effect = flow.throw(error) if error else flow.send(value)
            except StopIteration as stop:
                result: T = stop.value
                return result
            value, error = None, None
            if isinstance(effect, Read):
                try:
                    value = effect()
                except Exception as e:
                    error = e
            elif isinstance(effect, Sleep):
                self.sleeps.append(effect.seconds)
            elif isinstance(effect, Request):
                self.requests.append(effect)
                answer = self._answer(effect)
                if isinstance(answer, Exception):
                    error = answer
                else:
                    value = answer

    def ask(self, call: Call[T]) -> T:
        """Send one call."""
        return self.run(ask(call))

    def body(self, index: int = -1) -> Any:
        """The JSON that a request carried."""
        return json.loads(self.requests[index].body or b"null")

    def _answer(self, request: Request) -> Response | Exception:
        found = self.answers.get(key_of(request), response({"detail": "no such thing"}, 404))
        if isinstance(found, InTurn):
            found = found.next()
        if callable(found):
            found = found(request)
        if isinstance(found, Response | Exception):
            return found
        return response(found)


def key_of(request: Request) -> str:
    """Method and path, without the base URL."""
    parts = urlsplit(request.url.removeprefix(BASE_URL))
    return f"{request.method} {parts.path}" + (f"?{parts.query}" if parts.query else "")


def lost(sent: bool = True) -> NetworkError:
    """A connection that breaks."""
    return NetworkError("the connection was lost", sent=sent)


def form_of(request: Request) -> Mapping[str, str]:
    """The form that a request carried."""
    return dict(parse_qsl((request.body or b"").decode(), keep_blank_values=True))


def poll(platform: Platform, run_id: str, **ids: str) -> Steps[Run]:
    """The steps that poll a run of these ids."""
    return platform.get_run(platform.run_by_id(run_id, **ids))


def cancel(platform: Platform, run_id: str, **ids: str) -> Steps[None]:
    """The steps that cancel a run of these ids."""
    return platform.cancel_run(platform.run_by_id(run_id, **ids))
