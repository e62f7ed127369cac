"""One request, one response, and the table that says which operation a request is.

The platforms are not served by FastAPI's own routing. An operation has to be known before it is handled, as faults
and counters go by its name, and each platform has its own answer to a missing slash, a wrong method or a bad body,
which a framework would rather give in its own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

Handler = Callable[["Exchange"], "Response"]


@dataclass(slots=True)
class Response:
    """What is sent back.

    :param status: the HTTP status.
    :param body: the whole body, unless it is streamed.
    :param headers: names and values, in order.
    :param stream: chunks of a body too large to hold; goes out without a Content-Length.
    """

    status: int
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    stream: Iterator[bytes] | None = None


class Refusal(Exception):
    """A request that is answered with an error.

    :param response: the answer.
    :param violation: why the documents don't allow the request; None when it was well-formed all the same, such as
        a token that has expired or a run that no longer exists.
    """

    def __init__(self, response: Response, violation: str | None = None) -> None:
        super().__init__(violation or f"status {response.status}")
        self.response = response
        self.violation = violation


def json_response(status: int, payload: Any, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Answer with JSON."""
    return encoded_json_response(status, json.dumps(payload).encode(), headers)


def encoded_json_response(status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Answer with JSON that is already encoded: long lists are joined from cached rows."""
    return Response(status, body, [("content-type", "application/json"), *headers])


def html_response(status: int, page: str) -> Response:
    """Answer with a page."""
    return Response(status, page.encode(), [("content-type", "text/html; charset=utf-8")])


def file_response(name: str, media_type: str, body: bytes = b"", stream: Iterator[bytes] | None = None) -> Response:
    """Answer with a file to save."""
    headers = [("content-type", media_type), ("content-disposition", f'attachment; filename="{name}"')]
    return Response(200, body, headers, stream)


NO_CONTENT = 204


def no_content() -> Response:
    """Answer 204."""
    return Response(NO_CONTENT)


@dataclass(slots=True)
class Exchange:
    """One request as a platform reads it.

    :param method: in upper case.
    :param raw_path: below the platform's prefix, still percent-encoded.
    :param query: the raw query string.
    :param headers: names in lower case; of a repeated header the last.
    :param body: the whole body.
    :param origin: scheme, host, port and the platform's prefix, as the client addressed them.
    """

    method: str
    raw_path: str
    query: str
    headers: dict[str, str]
    body: bytes
    origin: str
    params: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def arguments(self) -> dict[str, str]:
        """Return the query parameters; of a repeated one the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def form(self) -> dict[str, str]:
        """Return the fields of a form-encoded body; of a repeated one the last."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def note(self, reason: str) -> None:
        """Record that the documents don't allow this, though it is answered."""
        self.violations.append(reason)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a platform's API.

    :param name: what faults and counters call it, such as ``omilia.create_run``.
    :param method: the HTTP method.
    :param template: the path, such as ``/api/runs/{run_id}/logs/``; ``{id:uuid}`` only matches a lower-case UUID.
    :param handler: does the work.
    :param open: True when no credentials are needed.
    """

    name: str
    method: str
    template: str
    handler: Handler
    open: bool = False


LOWER_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ANY_UUID = re.compile(LOWER_UUID.pattern, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A path template cut at its slashes: a literal, or the name of a parameter and whether it must be a UUID."""

    segments: tuple[tuple[str, bool, bool], ...]
    operations: dict[str, Operation]

    def match(self, segments: list[str]) -> dict[str, str] | None:
        params: dict[str, str] = {}
        for (text, is_parameter, must_be_uuid), actual in zip(self.segments, segments, strict=True):
            if not is_parameter:
                if text != actual:
                    return None
                continue
            value = unquote(actual)
            if not value or (must_be_uuid and not LOWER_UUID.fullmatch(value)):
                return None
            params[text] = value
        return params


def _parse_segment(segment: str) -> tuple[str, bool, bool]:
    if segment.startswith("{") and segment.endswith("}"):
        name, _, kind = segment[1:-1].partition(":")
        return name, True, kind == "uuid"
    return segment, False, False


@dataclass(frozen=True, slots=True)
class Match:
    """What the table says about a method and a path.

    :param operation: the operation, or None when the path or the method is unknown.
    :param params: the path's parameters.
    :param allowed: the methods that the path knows; empty when the path is unknown.
    """

    operation: Operation | None
    params: dict[str, str]
    allowed: tuple[str, ...]


class OperationTable:
    """Finds the operation for a method and a path, to the slash.

    Literal segments win over parameters, whatever the order of the operations.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations: dict[str, Operation] = {}
        by_template: dict[str, _Pattern] = {}
        for operation in operations:
            if operation.name in self.operations:
                raise ValueError(f"two operations are called {operation.name}")
            self.operations[operation.name] = operation
            if operation.template not in by_template:
                segments = tuple(_parse_segment(part) for part in operation.template.split("/"))
                by_template[operation.template] = _Pattern(segments, {})
            by_template[operation.template].operations[operation.method] = operation
        self._by_length: dict[int, list[_Pattern]] = {}
        for pattern in sorted(by_template.values(), key=lambda p: sum(1 for s in p.segments if s[1])):
            self._by_length.setdefault(len(pattern.segments), []).append(pattern)

    def find(self, method: str, raw_path: str) -> Match:
        """Look a request up."""
        segments = raw_path.split("/")
        for pattern in self._by_length.get(len(segments), ()):
            params = pattern.match(segments)
            if params is not None:
                return Match(pattern.operations.get(method), params, tuple(pattern.operations))
        return Match(None, {}, ())
