"""One request of an API and how its response is read, as data; and the form in which several make a step.

A platform module describes; it never sends. What it writes are *steps*: generators that yield a :class:`Call`
(and get what its ``read`` made of the response, or have an :class:`~..exceptions.ApiError` raised at the ``yield``)
or a :class:`Sleep`, and that return a typed result. The transport carries them over the wire, in a worker and in
the triggerer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, overload
from urllib.parse import quote

from airflow_provider_testruns import limits, parsing
from airflow_provider_testruns.cleaning import clean
from airflow_provider_testruns.exceptions import ApiError, AuthenticationError, ConfigurationError, InvalidReplyError

T = TypeVar("T")
S = TypeVar("S")
E = TypeVar("E")

#: Statuses of a server that does not have a call, or does not have any more what the call is for.
LACKING = frozenset({404, 405, 410, 501})


def clean_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers of a response by their lower-case names, with clean values."""
    return {clean(name, limits.NAME).lower(): clean(value.strip(), limits.HEADER_LINE) for name, value in headers}


@dataclass(frozen=True, slots=True)
class Response:
    """What came back.

    :param status: the HTTP status.
    :param headers: by lower-case name.
    :param body: the whole body; empty for a response that was written to a file.
    :param cut: whether there was more, which was not read. Only of a response that is no success.
    :param nodes: the most JSON values that the body may have, see :func:`.parsing.parse`.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: bool = False
    nodes: int = limits.POLL_NODES

    def json(self) -> Any:
        """The body as JSON. On a worker, the long lists of a body of many megabytes are :class:`.parsing.Rows`.

        :raises InvalidReplyError: when it is not JSON, or too large to be parsed.
        """
        try:
            return parsing.parse(self.body, self.nodes)
        except parsing.TooLargeError as e:
            raise InvalidReplyError(f"the response is too large to be read: {e}", status=self.status) from e
        except parsing.UnreadableError as e:
            kind = self.headers.get("content-type", "no content type")
            raise InvalidReplyError(
                f"the response is not JSON ({kind}, {len(self.body)} bytes)", status=self.status
            ) from e

    @property
    def cost(self) -> int:
        """About how much memory the body takes once it is parsed, and not less; bytes."""
        return len(self.body) + 100 * sum(self.body.count(mark) for mark in (b",", b"{", b"["))


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait before going on.

    :param seconds: how long.
    :param new_step: whether what comes after is a step of its own, with an allowance of its own of bytes and seconds:
        the next poll of a wait, the next lookup for a run. Not another try of the same call, nor the next page.
    """

    seconds: float
    new_step: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that goes out as the one part of a multipart form.

    :param field: the form field's name.
    :param path: the local file.
    :param content_type: of the part.
    """

    field: str
    path: Path
    content_type: str = "application/zip"


def no_value(response: Response) -> None:
    """Ignore the response body."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how its response is read.

    :param what: the call in words, for messages: "get run 4711".
    :param method: the HTTP method.
    :param path: below the connection's base URL, beginning with a slash, percent-encoded (see :func:`path`).
    :param read: makes the result of a 2xx response; raises InvalidReplyError when it is not as documented.
    :param query: the query's parameters; those that are ``None`` are left out.
    :param json: the body as JSON, ``None`` for none.
    :param form: the body as a form, ``None`` for none.
    :param upload: the body as a multipart form with one file, ``None`` for none.
    :param save_to: a local file that takes a 2xx response's body instead of memory.
    :param idempotent: whether sending it again changes nothing. ``False`` for what starts or changes something.
    :param not_executed: whether an error response to a call that is not idempotent proves that nothing was done.
    :param error_text: finds the platform's own words in the JSON of an error response.
    :param stands_for: the status that an error response should have had, where a platform is known to give another.
    :param headers: more headers.
    :param non_retryable_statuses: statuses of error responses that asking again soon does not change, although they
        look passing.
    :param deadline: wall-clock time (seconds since 1970) by which a call that is not idempotent is answered or given
        up; past it, it is not sent any more.
    :param send_before: wall-clock time from which on such a call is not sent any more; one that was has its full time.
    :param secrets: what of the request must not be seen in messages, beside the connection's own credentials.
    """

    what: str
    method: str
    path: str
    read: Callable[[Response], T]
    query: Mapping[str, str | int | None] = field(default_factory=dict)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    upload: Upload | None = None
    save_to: Path | None = None
    idempotent: bool = True
    not_executed: Callable[[Response], bool] = lambda response: 400 <= response.status < 500 and response.status != 408
    error_text: Callable[[Any], str] | None = None
    stands_for: Callable[[Response], int] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    non_retryable_statuses: frozenset[int] = frozenset()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    deadline: float | None = None
    send_before: float | None = None

    def with_reader(self, read: Callable[[Response], Any]) -> Call[Any]:
        """The same request, read in another way."""
        return replace(self, read=read)


#: A platform's steps: see the module's text.
Steps = Generator[Call[Any] | Sleep, Any, T]


class StepIterator(Generic[S, T]):
    """Iterates over what a generator yields, and sends it what each of them came to: the one loop behind everything
    that executes steps, in a worker, in the triggerer and in between.

    Set :attr:`value` or :attr:`error` before the next step is taken; after the last, :attr:`result` is what the
    generator returned. As a context manager it closes the generator.

    :param steps: the generator, not begun.
    """

    __slots__ = ("_steps", "error", "result", "value")

    result: T

    def __init__(self, steps: Generator[S, Any, T]) -> None:
        self._steps = steps
        #: What the last step came to.
        self.value: Any = None
        #: What the last step failed with; raised at its ``yield``.
        self.error: Exception | None = None

    def __enter__(self) -> StepIterator[S, T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self._steps.close()

    def __iter__(self) -> StepIterator[S, T]:
        return self

    def __next__(self) -> S:
        value, error = self.value, self.error
        self.value = self.error = None
        try:
            return self._steps.send(value) if error is None else self._steps.throw(error)
        except StopIteration as stop:
            self.result = stop.value
            raise
        finally:
            # Else the error and this frame keep each other alive.
            del error


def through(steps: Generator[S, Any, T], handle: Callable[[S], Generator[E, Any, Any]]) -> Generator[E, Any, T]:
    """The same steps, each of them done by ``handle``.

    :param steps: what to do.
    :param handle: the steps that one step is made of. What it returns, the step came to; an
        :class:`~..exceptions.ApiError` of it is raised where the step was yielded, any other error ends everything.
    """
    with StepIterator(steps) as every:
        for step in every:
            try:
                every.value = yield from handle(step)
            except ApiError as e:
                every.error = e
        return every.result


@overload
def optional(steps: Steps[T], *, statuses: Collection[int] = ...) -> Steps[T | None]: ...


@overload
def optional(
    steps: Steps[T], otherwise: Callable[[ApiError], E], *, statuses: Collection[int] = ...
) -> Steps[T | E]: ...


def optional(
    steps: Steps[T],
    otherwise: Callable[[ApiError], Any] = lambda error: None,
    *,
    statuses: Collection[int] = LACKING,
) -> Steps[Any]:
    """Steps whose calls not every server has: by release, by plan, or as it has forgotten what is asked for.

    Their calls are not sent again for such an answer, whoever executes them.

    :param steps: what to do.
    :param otherwise: makes the result from the error where the server lacks the call; ``None`` is the result without.
    :param statuses: what a server answers that lacks it.
    :raises ApiError: any other. A response that can't be read, or credentials that are not accepted, say nothing
        about what the server has.
    """
    lasting = frozenset(statuses)

    def once(step: Call[Any] | Sleep) -> Steps[Any]:
        if isinstance(step, Call):
            step = replace(step, non_retryable_statuses=step.non_retryable_statuses | lasting)
        return (yield step)

    try:
        return (yield from through(steps, once))
    except ApiError as e:
        if e.status not in lasting or isinstance(e, AuthenticationError | InvalidReplyError):
            raise
        return otherwise(e)


def ask(call: Call[T]) -> Steps[T]:
    """The step of one call: ``run = yield from ask(call)``, typed."""
    result: T = yield call
    return result


def pause(seconds: float, *, new_step: bool = False) -> Steps[None]:
    """The step of waiting; see :class:`Sleep`."""
    yield Sleep(seconds, new_step)


def path(template: str, **ids: str | int) -> str:
    """Fill ``{names}`` of a path with ids, each percent-encoded whole, so that none can change the path.

    :raises ConfigurationError: for an id that is empty, ``.`` or ``..`` (clients and servers drop or fold such a
        segment), or no text that an address can hold.
    """
    encoded = {}
    for name, value in ids.items():
        text = str(value)
        if text.strip() in ("", ".", ".."):
            raise ConfigurationError(f"{name} must be an id of the platform, got {value!r}.")
        try:
            encoded[name] = quote(text, safe="")
        except UnicodeEncodeError:
            raise ConfigurationError(f"{name} must be an id of the platform, got {value!r}.") from None
    return template.format(**encoded)
